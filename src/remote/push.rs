//! Pushing: a result of the local store becomes one of the remote store.
//!
//! Blobs go before the record that names them, and none is sent that is there with its size. The first record of a key stays, unless
//! something of it is damaged or gone: then ours takes its place, so that the place heals when a stage has run again.

use std::ops::ControlFlow;

use kinset_base::fs;
use kinset_base::stop::Stopped;
use kinset_store::Store;
use kinset_store::key::Key;
use kinset_store::record::{Lookup, Record, StoredFile};

use super::error::{RemoteError, Result};
use super::objects::{Object, Trouble};
use super::remote::{Remote, blob_name, manifest_name, record_name};
use super::work::{Work, side_by_side};

/// A record that others write whenever we look is looked at so often.
const TRIES: u32 = 4;

/// What became of a result that was to be pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was sent: so many objects, so many bytes.
    Sent { objects: u64, bytes: u64 },
    /// It was there.
    There,
    /// Another result of the same key was there, and stays.
    Differs,
}

impl Remote {
    /// Sends the result of a key, if it is not there.
    ///
    /// # Errors
    /// [`RemoteError::NotHere`] if it is not whole here; [`RemoteError::ReadOnly`]; [`RemoteError::Newer`] if a newer kinset has pushed
    /// this key; if nobody answers, or writing is not allowed. The record is there only if all of it is.
    pub fn push(&self, store: &Store, key: &Key, work: Work<'_>) -> Result<Pushed> {
        self.writable()?;
        let not_here = |why: String| RemoteError::NotHere { key: key.short(), why };
        let ours = match store.lookup(key)? {
            Lookup::Hit(record) => record,
            Lookup::Miss => return Err(not_here("there is no record".into())),
            Lookup::Damaged(why) => return Err(not_here(why)),
        };
        let manifest = store.manifest(&ours.kind, key)?.ok_or_else(|| not_here("its manifest is missing".into()))?;
        let text = ours.to_bytes()?;
        // What an older kinset did not check is nobody else's.
        Record::read(&text, &manifest).map_err(|error| not_here(error.to_string()))?;

        let (mut objects, mut bytes) = (0, 0);
        for _ in 0..TRIES {
            let theirs = match self.record(&manifest) {
                Err(RemoteError::Damaged { .. }) => None,
                theirs => theirs?,
            };
            if let Some(theirs) = &theirs
                && self.has_all(theirs)?
            {
                return Ok(match (objects, theirs.says_the_same_as(&ours)) {
                    (_, false) => Pushed::Differs,
                    (0, true) => Pushed::There,
                    (_, true) => Pushed::Sent { objects, bytes },
                });
            }
            let missing = self.not_there(store, &ours)?;
            side_by_side(&missing, work.stop, |file| self.send(store, file, work))?;
            objects += missing.len() as u64;
            bytes += missing.iter().map(|file| file.size).sum::<u64>();
            let small = serde_json::to_vec_pretty(&manifest)
                .map_err(|source| kinset_store::StoreError::Encode { what: "a manifest", source })?;
            let (of_manifest, of_record) = (manifest_name(&ours.kind, key), record_name(key));
            let create = |name: &str, content: &[u8]| self.objects.create(name, content).map_err(|trouble| self.told(trouble));
            let replace =
                |name: &str, content: &[u8]| self.objects.replace(name, content).map_err(|trouble| self.told(trouble));
            objects += u64::from(create(&of_manifest, &small)?);
            if self.is_known_to_be_damaged(&of_record) || theirs.is_some() {
                replace(&of_manifest, &small)?;
                replace(&of_record, &text)?;
            } else if !create(&of_record, &text)? {
                // Somebody was faster: that one counts, if it is whole.
                continue;
            }
            self.is_whole_again(&of_record);
            return Ok(Pushed::Sent { objects: objects + 1, bytes: bytes + text.len() as u64 });
        }
        Err(self.told(Trouble::Unreachable(format!("it lists {} and does not return it", record_name(key)))))
    }

    /// True if all blobs of a record are there with their sizes, and none is known to be damaged.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn has_all(&self, record: &Record) -> Result<bool> {
        for (_, file) in record.files() {
            if self.there(file)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn there(&self, file: &StoredFile) -> Result<Option<Object>> {
        let name = blob_name(&file.blob);
        if self.is_known_to_be_damaged(&name) {
            return Ok(None);
        }
        let found = self.objects.look(&name).map_err(|trouble| self.told(trouble))?;
        Ok(found.filter(|found| found.size == file.size))
    }

    /// The files of a record that have to be sent, each once. What a collection has condemned is sent again, so that it is young.
    fn not_there<'r>(&self, store: &Store, record: &'r Record) -> Result<Vec<&'r StoredFile>> {
        let condemned = self.condemned()?;
        let mut missing: Vec<&StoredFile> = Vec::new();
        for (_, file) in record.files() {
            if missing.iter().any(|other| other.blob == file.blob) {
                continue;
            }
            if condemned.contains_key(&file.blob) || self.there(file)?.is_none() {
                // Damage does not travel.
                if !store.has(file)? {
                    let why = format!("`{}` is missing or has changed", file.name);
                    return Err(RemoteError::NotHere { key: record.key.short(), why });
                }
                missing.push(file);
            }
        }
        Ok(missing)
    }

    fn send(&self, store: &Store, file: &StoredFile, work: Work<'_>) -> Result<()> {
        let (name, path) = (blob_name(&file.blob), store.blob_path(&file.blob));
        let mut from = fs::open(&path)?;
        let mut going = |bytes: u64| {
            (work.moved)(bytes);
            if work.stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let done = self.objects.upload(&name, &mut from, file.size, &mut going).map_err(|trouble| self.told(trouble))?;
        if !done {
            return Err(Stopped.into());
        }
        self.is_whole_again(&name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Machine, manifest, quietly, three};

    #[test]
    fn a_result_is_sent_once_and_blobs_before_the_record() {
        let (place, _, there) = three();
        there.compute(1, "one");
        let Pushed::Sent { objects, .. } = place.push(&there, 1).unwrap() else { panic!("nothing was sent") };
        assert_eq!(objects, 4, "two blobs, a manifest, a record");
        let written = place.objects.written();
        assert!(written[..2].iter().all(|name| name.starts_with("blobs/")), "{written:?}");
        assert!(written[2].starts_with("manifests/scan/") && written[3].starts_with("records/"), "{written:?}");
        assert_eq!(place.push(&there, 1).unwrap(), Pushed::There);
        assert_eq!(place.objects.written().len(), 4);
        // Another result with one of the files.
        there.compute(2, "one");
        let Pushed::Sent { objects, .. } = place.push(&there, 2).unwrap() else { panic!("nothing was sent") };
        assert_eq!(objects, 2, "its blobs are there");
    }

    #[test]
    fn what_is_not_whole_here_is_not_sent() {
        let (place, _, there) = three();
        assert!(matches!(place.push(&there, 1).unwrap_err(), RemoteError::NotHere { .. }));
        let record = there.compute(1, "one");
        there.damage_blob(&record.files().next().unwrap().1.blob);
        let error = place.push(&there, 1).unwrap_err();
        assert!(error.to_string().contains("is missing or has changed"), "{error}");
        assert!(place.objects.names().iter().all(|name| !name.starts_with("records/")));
    }

    #[test]
    fn of_many_at_once_one_wins_and_all_find_it() {
        let (place, _, _) = three();
        let machines: Vec<Machine> = (0..16).map(|_| Machine::new()).collect();
        for (number, machine) in machines.iter().enumerate() {
            machine.compute(1, &format!("result {}", number % 2));
        }
        let place = &place;
        let pushed: Vec<Pushed> = std::thread::scope(|scope| {
            let threads: Vec<_> = machines.iter().map(|machine| scope.spawn(move || place.push(machine, 1).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(place.objects.written().iter().filter(|name| name.starts_with("records/")).count(), 1);
        assert_eq!(pushed.iter().filter(|pushed| **pushed == Pushed::Differs).count(), 8, "{pushed:?}");
        let here = Machine::new();
        let record = place.remote.pull(&here.store, &manifest(1), quietly()).unwrap().unwrap().record;
        assert_eq!(machines.iter().filter(|machine| machine.whole(1).says_the_same_as(&record)).count(), 8);
    }

    #[test]
    fn a_place_that_fails_has_no_record_without_its_blobs_and_the_next_push_ends_it() {
        let (place, _, there) = three();
        there.compute(1, "one");
        for calls in 0.. {
            place.objects.fail_after(calls);
            let pushed = place.push(&there, 1);
            place.objects.heal();
            let here = Machine::new();
            let pulled = place.remote.pull(&here.store, &manifest(1), quietly()).unwrap();
            let Err(error) = pushed else {
                assert!(pulled.is_some() && calls > 4);
                return;
            };
            assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
            assert!(pulled.is_none());
        }
    }

    #[test]
    fn damage_that_was_found_heals_when_the_result_is_pushed_again() {
        let (place, _, there) = three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        for name in place.objects.names().into_iter().filter(|name| !name.starts_with("manifests/")) {
            let good = place.objects.bytes(&name);
            let mut bad = good.clone();
            bad[3] ^= 1;
            place.objects.put(&name, &bad);
            place.remote.pull(&Machine::new().store, &manifest(1), quietly()).unwrap_err();
            // It computes the same, and so has it whole.
            let again = Machine::new();
            again.compute(1, "one");
            assert!(matches!(place.push(&again, 1).unwrap(), Pushed::Sent { .. }), "{name}");
            place.remote.pull(&Machine::new().store, &manifest(1), quietly()).unwrap().unwrap();
            assert_eq!(place.push(&again, 1).unwrap(), Pushed::There);
        }
        // A blob that is gone, or cut short, need not have been looked for.
        for cut in [None, Some(b"x")] {
            let blob = place.objects.names().into_iter().find(|name| name.starts_with("blobs/")).unwrap();
            match cut {
                None => place.objects.take(&blob),
                Some(bytes) => place.objects.put(&blob, bytes),
            }
            assert!(matches!(place.push(&there, 1).unwrap(), Pushed::Sent { .. }));
            place.remote.pull(&Machine::new().store, &manifest(1), quietly()).unwrap().unwrap();
        }
    }

    #[test]
    fn a_newer_kinsets_record_stays() {
        let (place, _, there) = three();
        there.compute(1, "one");
        let name = record_name(&manifest(1).key());
        place.objects.put(&name, br#"{"format": 99}"#);
        assert!(matches!(place.push(&there, 1).unwrap_err(), RemoteError::Newer { .. }));
        assert_eq!(place.objects.bytes(&name), br#"{"format": 99}"#);
    }

    #[test]
    fn a_web_server_is_never_written_to() {
        let place = crate::testing::Place::at("https://host/x");
        let there = Machine::new();
        there.compute(1, "one");
        assert!(matches!(place.push(&there, 1).unwrap_err(), RemoteError::ReadOnly { .. }));
        assert!(matches!(place.remote.keys().unwrap_err(), RemoteError::NoList { .. }));
        assert_eq!(place.objects.calls(), 0);
    }

    #[test]
    fn a_stop_ends_it_and_leaves_no_record() {
        let (place, here, there) = three();
        there.compute(1, "one");
        let stop = kinset_base::stop::Stop::default();
        stop.request();
        let pushed = place.remote.push(&there.store, &manifest(1).key(), Work { stop: &stop, ..quietly() });
        assert!(matches!(pushed.unwrap_err(), RemoteError::Stopped(_)));
        assert!(place.remote.pull(&here.store, &manifest(1), quietly()).unwrap().is_none());
    }
}
