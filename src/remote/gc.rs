//! Collection: what is old in the remote store is removed, by command and never by itself.
//!
//! Object storage does not tell when something was read last, so age is that of the record. Records go before the blobs that only they
//! named, and a blob goes a day after a collection has found that nothing names it: the first writes it down in `gc.json`, a later one
//! removes it if that is still so. Who pushes looks there, and sends again what is written down, which makes it young. So a push that
//! runs meanwhile loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use kinset_base::clock;
use kinset_base::stop::Stop;
use kinset_store::digest::Digest;
use kinset_store::key::Key;

use super::error::{RemoteError, Result};
use super::objects::Object;
use super::remote::{BLOBS, MANIFESTS, RECORDS, Remote, key_of, manifest_name, record_name};
use super::work::side_by_side;

/// The list of blobs that nothing names.
const CONDEMNED: &str = "gc.json";

/// A larger list is none.
const LARGEST: u64 = 256 << 20;

/// So long a blob stays that nothing names.
pub const RESPITE: Duration = Duration::from_hours(24);

/// What may go.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Results that stay, whatever their age.
    pub keep: BTreeSet<Key>,
    pub older_than: Duration,
    /// Now: seconds since 1970, UTC.
    pub now: f64,
}

impl Policy {
    pub fn older_than(older_than: Duration) -> Self {
        Self { keep: BTreeSet::new(), older_than, now: clock::unix_seconds() }
    }
}

/// A result that goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Victim {
    pub key: Key,
    /// The kind of its stage; empty if its record cannot be read.
    pub kind: String,
    /// Seconds since it was pushed.
    pub age: f64,
}

/// What goes, and what is left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub results: Vec<Victim>,
    /// Blobs that go now, and their bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// Blobs that nothing names and that a collection after [`RESPITE`] will remove, and their bytes.
    pub condemned: Vec<(Digest, u64)>,
    /// Results that stay.
    pub kept: usize,
    /// Bytes of all blobs before.
    pub before: u64,
}

impl Plan {
    pub fn freed(&self) -> u64 {
        self.blobs.iter().map(|(_, bytes)| bytes).sum()
    }
}

#[derive(Default, Serialize, Deserialize)]
struct List {
    /// Since when: seconds since 1970, UTC.
    condemned: BTreeMap<Digest, f64>,
}

impl Remote {
    /// What no record named when a collection looked, and since when.
    pub(super) fn condemned(&self) -> Result<BTreeMap<Digest, f64>> {
        // One that cannot be read condemns nothing.
        let bytes = match self.small(CONDEMNED, LARGEST) {
            Err(RemoteError::Damaged { .. }) => None,
            bytes => bytes?,
        };
        Ok(bytes.and_then(|bytes| serde_json::from_slice::<List>(&bytes).ok()).unwrap_or_default().condemned)
    }

    /// Finds what is old, and removes it if `delete` says so.
    ///
    /// # Errors
    /// [`RemoteError::ReadOnly`], [`RemoteError::NoList`]; [`RemoteError::Newer`] if there is a record of a newer kinset: nobody here knows
    /// what it needs; if nobody answers. What was removed until then is gone, records before what they named.
    pub fn collect(&self, policy: &Policy, delete: bool, stop: &Stop) -> Result<Plan> {
        self.writable()?;
        let records = self.list(RECORDS)?;
        let mut plan = Plan::default();
        let (mut named, mut known) = (BTreeSet::new(), BTreeSet::new());
        for (name, object) in &records {
            stop.check()?;
            let Some(key) = key_of(name).filter(|key| record_name(key) == *name) else { continue };
            known.insert(key);
            let age = policy.now - object.changed;
            let is_old = age >= policy.older_than.as_secs_f64() && !policy.keep.contains(&key);
            match self.record_of(&key) {
                Ok(Some(record)) if !is_old => {
                    plan.kept += 1;
                    named.extend(record.files().map(|(_, file)| file.blob));
                }
                Ok(Some(record)) => plan.results.push(Victim { key, kind: record.kind, age }),
                Err(RemoteError::Damaged { .. }) => plan.results.push(Victim { key, kind: String::new(), age }),
                // Somebody has removed it meanwhile.
                Ok(None) => {}
                Err(error) => return Err(error),
            }
        }
        if delete {
            let manifests: BTreeMap<Key, String> =
                self.list(MANIFESTS)?.into_iter().filter_map(|(name, _)| Some((key_of(&name)?, name))).collect();
            side_by_side(&plan.results, stop, |victim| {
                self.remove(&record_name(&victim.key))?;
                let manifest = manifests.get(&victim.key).cloned();
                self.remove(&manifest.unwrap_or_else(|| manifest_name(&victim.kind, &victim.key)))
            })?;
            // What was pushed meanwhile names blobs as well.
            for key in self.keys()?.into_keys().filter(|key| !known.contains(key)) {
                if let Some(record) = self.record_of(&key)? {
                    named.extend(record.files().map(|(_, file)| file.blob));
                }
            }
        }
        let before = self.condemned()?;
        let mut list = List::default();
        for (name, Object { size, changed }) in self.list(BLOBS)? {
            let Some(blob) = name.rsplit('/').next().and_then(|digits| digits.parse::<Digest>().ok()) else { continue };
            plan.before += size;
            if named.contains(&blob) {
                continue;
            }
            match before.get(&blob) {
                // Pushed again since then, it begins anew.
                Some(since) if changed <= *since && policy.now - since >= RESPITE.as_secs_f64() => {
                    plan.blobs.push((blob, size));
                }
                Some(since) if changed <= *since => {
                    list.condemned.insert(blob, *since);
                    plan.condemned.push((blob, size));
                }
                _ => {
                    list.condemned.insert(blob, policy.now);
                    plan.condemned.push((blob, size));
                }
            }
        }
        if delete {
            side_by_side(&plan.blobs, stop, |(blob, _)| self.remove(&super::remote::blob_name(blob)))?;
            let text = serde_json::to_vec_pretty(&list)
                .map_err(|source| kinset_store::StoreError::Encode { what: "a list of blobs", source })?;
            if !list.condemned.is_empty() || !before.is_empty() {
                self.objects.replace(CONDEMNED, &text).map_err(|trouble| self.told(trouble))?;
            }
        }
        Ok(plan)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.objects.remove(name).map_err(|trouble| self.told(trouble))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Machine, manifest, quietly, three};

    const DAY: f64 = 86_400.0;

    fn policy(days: u64, now: f64) -> Policy {
        Policy { keep: BTreeSet::new(), older_than: Duration::from_hours(24 * days), now }
    }

    #[test]
    fn records_go_first_and_blobs_a_day_after_nothing_names_them() {
        let (place, _, there) = three();
        let collect = |days, now, delete| place.remote.collect(&policy(days, now), delete, &Stop::default()).unwrap();
        there.compute(1, "old");
        place.push(&there, 1).unwrap();
        place.objects.set_clock(80.0 * DAY);
        there.compute(2, "young");
        place.push(&there, 2).unwrap();
        let all = place.objects.names();

        let plan = collect(90, 100.0 * DAY, false);
        let keys: Vec<Key> = plan.results.iter().map(|victim| victim.key).collect();
        assert_eq!((keys, plan.kept, plan.blobs.len(), plan.condemned.len()), (vec![manifest(1).key()], 1, 0, 2));
        assert_eq!(place.objects.names(), all, "a plan removes nothing");
        assert_eq!(collect(101, 100.0 * DAY, true).results, []);
        assert_eq!(place.objects.names(), all);

        place.objects.set_clock(100.0 * DAY);
        assert_eq!(collect(90, 100.0 * DAY, true).freed(), 0);
        assert!(place.remote.pull(&Machine::new().store, &manifest(1), quietly()).unwrap().is_none());
        let blobs = || place.objects.names().iter().filter(|name| name.starts_with("blobs/")).count();
        assert_eq!(blobs(), 4);
        let plan = collect(90, 100.5 * DAY, true);
        assert_eq!((plan.blobs.len(), plan.condemned.len(), blobs()), (0, 2, 4), "too early");
        let plan = collect(90, 101.1 * DAY, true);
        assert_eq!((plan.blobs.len(), plan.condemned.len(), blobs()), (2, 0, 2));
        assert!(place.objects.names().iter().all(|name| !name.contains(&manifest(1).key().hex())), "no manifest is left");
        place.remote.pull(&Machine::new().store, &manifest(2), quietly()).unwrap().unwrap();
        assert_eq!(collect(90, 101.2 * DAY, true), Plan { kept: 1, before: plan.before - plan.freed(), ..Plan::default() });
    }

    #[test]
    fn what_is_condemned_and_pushed_again_stays() {
        let (place, _, there) = three();
        let collect = |now, delete| place.remote.collect(&policy(90, now), delete, &Stop::default()).unwrap();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        place.objects.set_clock(100.0 * DAY);
        collect(100.0 * DAY, true);
        place.objects.set_clock(101.5 * DAY);
        place.push(&there, 1).unwrap();
        // The record is there again; and even had nobody looked at it, the blobs are younger than their condemnation.
        assert_eq!(collect(102.0 * DAY, true).blobs, []);
        place.remote.pull(&Machine::new().store, &manifest(1), quietly()).unwrap().unwrap();
    }

    #[test]
    fn what_is_kept_stays_whatever_its_age_and_damage_goes() {
        let (place, _, there) = three();
        for number in [1, 2] {
            there.compute(number, &number.to_string());
            place.push(&there, number).unwrap();
        }
        let name = record_name(&manifest(2).key());
        place.objects.put(&name, b"{}");
        let keep = BTreeSet::from([manifest(1).key()]);
        let plan = place.remote.collect(&Policy { keep, ..policy(90, 100.0 * DAY) }, true, &Stop::default()).unwrap();
        assert_eq!((plan.kept, plan.results.len(), plan.results[0].kind.as_str()), (1, 1, ""));
        place.remote.pull(&Machine::new().store, &manifest(1), quietly()).unwrap().unwrap();
    }

    #[test]
    fn a_newer_kinsets_record_stops_it() {
        let (place, _, there) = three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        place.objects.put(&record_name(&manifest(2).key()), br#"{"format": 99}"#);
        let before = place.objects.names();
        let error = place.remote.collect(&policy(0, DAY), true, &Stop::default()).unwrap_err();
        assert!(matches!(error, RemoteError::Newer { .. }), "{error}");
        assert_eq!(place.objects.names(), before);
    }
}
