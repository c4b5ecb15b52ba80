//! Garbage collection: what may be deleted, in which order, and the deleting.
//!
//! Whatever is referenced stays: by a pipeline (the caller says which keys), by a view, by a pin. Of the rest everything goes,
//! or, under a budget of bytes, what is cheapest to recompute first: ascending *seconds to recompute ÷ bytes*, so that a large
//! quick feature table goes before a small slow encoder.
//!
//! A plan deletes nothing. Deleting locks the store, removes a record before the blobs that only it refers to, and spares what
//! is younger than an hour: on a file system without locks a run may be between publishing its blobs and its record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::digest::Digest;
use super::disk::{changed_at, entries, folder_size, parent, stat};
use super::error::{Result, StoreError};
use super::key::Key;
use super::layout::Store;
use super::manifests::read_manifest;
use super::record::{self, Found, Record};
use kinset_base::clock;
use kinset_base::fs;

/// What stays, and how much of the rest may.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Keys that stay, each with the reason: what the pipelines refer to, what the last runs used. Pins and views are added.
    pub roots: BTreeMap<Key, String>,
    /// Bytes that the store may hold; `None`: only what is referenced stays.
    pub max_size: Option<u64>,
    /// Younger files are spared.
    pub min_age: Duration,
    /// Now: seconds since 1970, UTC.
    pub now: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { roots: BTreeMap::new(), max_size: None, min_age: Duration::from_hours(1), now: clock::unix_seconds() }
    }
}

/// What may go, in the order in which it goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub victims: Vec<Victim>,
    /// Results that stay, and why.
    pub kept: BTreeMap<Key, String>,
    /// Bytes of blobs and checkpoints before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
    /// Bytes that are unreferenced, but too young to go.
    pub spared: u64,
    /// Bytes by which what is referenced alone exceeds the budget.
    pub over: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Victim {
    pub item: Item,
    /// Bytes that it gives back. A blob that other results refer to gives back nothing until they go.
    pub bytes: u64,
    /// What it costs to recompute: seconds, if that is known.
    pub seconds: Option<f64>,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A result: the record of a key, its manifest, and the blobs that nothing else refers to.
    Result {
        key: Key,
        /// The kind of stage; empty if the record cannot be read.
        kind: String,
    },
    /// Checkpoints of an unfinished stage.
    Work { key: Key },
    /// A manifest without a record.
    Manifest { key: Key, kind: String },
    /// Bytes that no record refers to.
    Blob { blob: Digest },
}

struct Inventory {
    blobs: BTreeMap<Digest, Weight>,
    records: BTreeMap<Key, Option<Record>>,
    work: BTreeMap<Key, Weight>,
    manifests: Vec<(String, Key, Weight)>,
}

#[derive(Clone, Copy)]
struct Weight {
    bytes: u64,
    changed: f64,
}

impl Store {
    fn pins_path(&self) -> PathBuf {
        self.root().join("pins")
    }

    /// The pinned keys, each with its reason.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is no pin: deleting what somebody meant to keep is worse than stopping.
    pub fn pins(&self) -> Result<BTreeMap<Key, String>> {
        let path = self.pins_path();
        if fs::metadata(&path)?.is_none() {
            return Ok(BTreeMap::new());
        }
        let text = fs::read_text(&path)?;
        let mut pins = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, why) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let key = key.parse().map_err(|_| StoreError::Damaged {
                path: path.display().to_string(),
                why: format!("`{line}` does not begin with a key"),
            })?;
            pins.insert(key, why.trim().to_owned());
        }
        Ok(pins)
    }

    /// Keeps a key through every `gc`.
    pub fn pin(&self, key: &Key, why: &str) -> Result<()> {
        let mut pins = self.pins()?;
        pins.insert(*key, why.split_whitespace().collect::<Vec<_>>().join(" "));
        self.write_pins(&pins)
    }

    /// Lets a key go again. `false`: it was not pinned.
    pub fn unpin(&self, key: &Key) -> Result<bool> {
        let mut pins = self.pins()?;
        let was = pins.remove(key).is_some();
        if was {
            self.write_pins(&pins)?;
        }
        Ok(was)
    }

    fn write_pins(&self, pins: &BTreeMap<Key, String>) -> Result<()> {
        let mut text = String::new();
        for (key, why) in pins {
            text.extend([&key.hex(), " ", why, "\n"]);
        }
        self.replace(&self.pins_path(), text.as_bytes())
    }

    /// What may go; nothing is deleted.
    ///
    /// # Errors
    /// [`StoreError::Newer`] if there is a record or view of a newer kinset: nobody here knows what it needs.
    pub fn gc_plan(&self, policy: &Policy) -> Result<Plan> {
        let inventory = self.inventory()?;
        let mut kept = policy.roots.clone();
        for (key, why) in self.pins()? {
            kept.insert(key, if why.is_empty() { "pinned".into() } else { format!("pinned: {why}") });
        }
        for shown in self.views()? {
            kept.entry(shown.key).or_insert_with(|| format!("latest result of {}/{}", shown.pipeline, shown.stage));
        }
        Ok(plan(policy, &inventory, kept))
    }

    /// Deletes what may go and says what it was.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a run holds the store; if something cannot be listed or removed.
    pub fn gc(&self, policy: &Policy) -> Result<Plan> {
        let alone = self.lock_exclusive()?;
        let plan = self.gc_plan(policy)?;
        let (mut blobs, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for victim in &plan.victims {
            match &victim.item {
                Item::Result { key, .. } => {
                    let path = self.record_path(key);
                    folders.insert(parent(&path).to_path_buf());
                    let found = self.record(key)?;
                    self.remove_file(&path)?;
                    if let Found::Whole(record) = found {
                        blobs.extend(record.files().map(|(_, file)| file.blob));
                        self.remove_file(&self.manifest_path(&record.kind, key)?)?;
                    }
                }
                Item::Work { key } => self.remove_scratch(key)?,
                Item::Manifest { key, kind } => self.remove_file(&self.manifest_path(kind, key)?)?,
                Item::Blob { blob } => {
                    blobs.insert(*blob);
                }
            }
        }
        // The records must be gone for good before their blobs go.
        for folder in folders {
            self.writing(fs::sync_folder(&folder))?;
        }
        let inventory = self.inventory()?;
        let referenced = inventory.referenced();
        for blob in blobs {
            if !referenced.contains(&blob) && inventory.blobs.get(&blob).is_some_and(|weight| weight.is_old(policy)) {
                self.remove_file(&self.blob_path(&blob))?;
            }
        }
        self.remove_leftovers(alone.locked)?;
        self.remove_idle_locks()?;
        Ok(plan)
    }

    fn inventory(&self) -> Result<Inventory> {
        let mut inventory =
            Inventory { blobs: BTreeMap::new(), records: BTreeMap::new(), work: BTreeMap::new(), manifests: Vec::new() };
        for (blob, path) in self.all_blobs()?.0 {
            if let Some(found) = stat(&path)? {
                inventory.blobs.insert(blob, Weight { bytes: found.len(), changed: changed_at(&found) });
            }
        }
        for key in self.keys()? {
            let record = match self.record(&key)? {
                Found::Whole(record) => Some(record),
                Found::Nothing | Found::Damaged(_) => None,
                Found::Newer(format) => return Err(StoreError::newer(&self.record_path(&key), format, record::FORMAT)),
            };
            inventory.records.insert(key, record);
        }
        for (name, path) in entries(&self.scratch_folders())? {
            if let Ok(key) = name.parse() {
                let (bytes, changed) = folder_size(&path)?;
                inventory.work.insert(key, Weight { bytes, changed });
            }
        }
        for (kind, folder) in entries(&self.manifests())? {
            for (name, path) in entries(&folder)? {
                if let Some(Ok(key)) = name.strip_suffix(".json").map(str::parse)
                    && let Some(found) = stat(&path)?
                    // Of these only ones without a record may go.
                    && (inventory.records.contains_key(&key)
                        || !matches!(read_manifest(&path, &key), Err(StoreError::Newer { .. })))
                {
                    inventory.manifests.push((kind.clone(), key, Weight { bytes: found.len(), changed: changed_at(&found) }));
                }
            }
        }
        Ok(inventory)
    }

    /// All blobs by their digest, and what else lies among them.
    pub(super) fn all_blobs(&self) -> Result<(BTreeMap<Digest, PathBuf>, Vec<PathBuf>)> {
        let (mut blobs, mut strays) = (BTreeMap::new(), Vec::new());
        for (_, shard) in entries(&self.blobs())? {
            if !stat(&shard)?.is_some_and(|found| found.is_dir()) {
                strays.push(shard);
                continue;
            }
            for (name, path) in entries(&shard)? {
                match name.parse::<Digest>() {
                    Ok(blob) if self.blob_path(&blob) == path => {
                        blobs.insert(blob, path);
                    }
                    _ => strays.push(path),
                }
            }
        }
        Ok((blobs, strays))
    }
}

impl Weight {
    fn is_old(&self, policy: &Policy) -> bool {
        policy.now - self.changed >= policy.min_age.as_secs_f64()
    }
}

impl Inventory {
    fn referenced(&self) -> BTreeSet<Digest> {
        self.records.values().flatten().flat_map(|record| record.files().map(|(_, file)| file.blob)).collect()
    }
}

fn plan(policy: &Policy, inventory: &Inventory, mut kept: BTreeMap<Key, String>) -> Plan {
    let size = |blob: &Digest| inventory.blobs.get(blob).map_or(0, |weight| weight.bytes);
    let blobs_of = |record: &Record| -> BTreeSet<Digest> { record.files().map(|(_, file)| file.blob).collect() };
    let mut uses: BTreeMap<Digest, usize> = BTreeMap::new();
    for blob in inventory.records.values().flatten().flat_map(blobs_of) {
        *uses.entry(blob).or_default() += 1;
    }
    let before = inventory.blobs.values().chain(inventory.work.values()).map(|weight| weight.bytes).sum();
    let mut plan = Plan { before, after: before, ..Plan::default() };
    let give_back = |plan: &mut Plan, item, bytes: u64, seconds, why: &str| {
        plan.after -= bytes;
        plan.victims.push(Victim { item, bytes, seconds, why: why.to_owned() });
    };

    // What nobody can use costs nothing to lose.
    for (key, record) in &inventory.records {
        if record.is_none() && !kept.contains_key(key) {
            give_back(&mut plan, Item::Result { key: *key, kind: String::new() }, 0, None, "its record is damaged");
        }
    }
    for (blob, weight) in &inventory.blobs {
        if !uses.contains_key(blob) {
            if weight.is_old(policy) {
                give_back(&mut plan, Item::Blob { blob: *blob }, weight.bytes, None, "unreferenced");
            } else {
                plan.spared += weight.bytes;
            }
        }
    }
    for (kind, key, weight) in &inventory.manifests {
        if !inventory.records.contains_key(key) && !kept.contains_key(key) && weight.is_old(policy) {
            // Too small to count.
            give_back(&mut plan, Item::Manifest { key: *key, kind: kind.clone() }, 0, None, "it has no record");
        }
    }
    for (key, weight) in &inventory.work {
        let done = inventory.records.get(key).is_some_and(Option::is_some);
        if done || !kept.contains_key(key) {
            if weight.is_old(policy) {
                let why = if done { "its stage has finished" } else { "unfinished and unreferenced" };
                give_back(&mut plan, Item::Work { key: *key }, weight.bytes, None, why);
            } else {
                plan.spared += weight.bytes;
            }
        }
    }

    // Results go only as far as the budget asks.
    let held: BTreeSet<Digest> = inventory
        .records
        .iter()
        .filter(|(key, _)| kept.contains_key(*key))
        .filter_map(|(_, r)| r.as_ref())
        .flat_map(blobs_of)
        .collect();
    let mut candidates: Vec<(f64, &Record)> = inventory
        .records
        .iter()
        .filter(|(key, _)| !kept.contains_key(*key))
        .filter_map(|(_, record)| record.as_ref())
        .map(|record| {
            let bytes: u64 = blobs_of(record).difference(&held).map(size).sum();
            (if bytes == 0 { f64::INFINITY } else { record.seconds.max(0.0) / bytes as f64 }, record)
        })
        .collect();
    candidates.sort_by(|(a, first), (b, second)| a.total_cmp(b).then(first.key.cmp(&second.key)));
    for (_, record) in candidates {
        if policy.max_size.is_some_and(|most| plan.after <= most) {
            kept.insert(record.key, "within the budget".into());
            continue;
        }
        let (mut bytes, mut young) = (0, false);
        for blob in blobs_of(record) {
            let Some(left) = uses.get_mut(&blob) else { continue };
            *left -= 1;
            if *left == 0
                && let Some(weight) = inventory.blobs.get(&blob)
            {
                if weight.is_old(policy) {
                    bytes += weight.bytes;
                } else {
                    young = true;
                    plan.spared += weight.bytes;
                }
            }
        }
        let item = Item::Result { key: record.key, kind: record.kind.clone() };
        let why = match (bytes, young) {
            (0, true) => "unreferenced; its files are too young to go",
            (0, false) => "unreferenced; its files are those of other results",
            _ => "unreferenced",
        };
        give_back(&mut plan, item, bytes, Some(record.seconds), why);
    }
    kept.retain(|key, _| inventory.records.contains_key(key));
    plan.kept = kept;
    plan.over = policy.max_size.map_or(0, |most| plan.after.saturating_sub(most));
    plan
}

#[cfg(test)]
mod tests {
    use std::fs as files;

    use proptest::prelude::*;

    use super::*;
    use crate::record::Lookup;
    use crate::record::tests::{begun, manifest, new_store, publish, whole};

    /// Two hours from now: nothing is young.
    fn later() -> Policy {
        let policy = Policy::default();
        Policy { now: policy.now + 7200.0, ..policy }
    }

    fn roots(epochs: &[u32]) -> BTreeMap<Key, String> {
        epochs.iter().map(|epochs| (manifest(*epochs).key(), "named by digits/cluster".to_owned())).collect()
    }

    fn blob_count(store: &Store) -> usize {
        store.all_blobs().unwrap().0.len()
    }

    #[test]
    fn nothing_goes_beside_records_of_a_newer_kinset_and_newer_manifests_stay() {
        let (_dir, store) = new_store();
        for i in 1..=2 {
            publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap();
        }
        let (record, lonely) =
            (store.record_path(&manifest(1).key()), store.manifest_path("scan", &manifest(9).key()).unwrap());
        files::write(&lonely, r#"{"format": 99}"#).unwrap();
        files::write(&record, r#"{"format": 99}"#).unwrap();
        for refused in [store.gc(&later()), store.gc_plan(&later())] {
            assert!(matches!(refused, Err(StoreError::Newer { found: 99, .. })), "{refused:?}");
        }
        assert_eq!((blob_count(&store), files::read(&record).unwrap()), (4, br#"{"format": 99}"#.to_vec()));
        files::remove_file(&record).unwrap();
        store.gc(&later()).unwrap();
        assert_eq!((blob_count(&store), files::read(&lonely).unwrap()), (0, br#"{"format": 99}"#.to_vec()));
    }

    #[test]
    fn what_is_no_file_is_no_reason_to_stop() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let path = store.record_path(&record.key);
        for path in [path, store.blob_path(&record.outputs["features"].files[0].blob)] {
            files::remove_file(&path).unwrap();
            files::create_dir(&path).unwrap();
        }
        store.gc(&later()).unwrap();
        assert_eq!((store.keys().unwrap(), blob_count(&store)), (vec![], 0));
    }

    #[test]
    fn what_is_named_stays_and_the_rest_goes() {
        let (_dir, store) = new_store();
        for i in 1..=5 {
            publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap();
        }
        store.pin(&manifest(2).key(), "for the paper").unwrap();
        let record = whole(&store, &manifest(3));
        store.update_view("digits", "cluster", &manifest(3), &record).unwrap();
        let policy = Policy { roots: roots(&[1]), ..later() };

        let plan = store.gc_plan(&policy).unwrap();
        assert_eq!(blob_count(&store), 10, "a plan deletes nothing");
        let why: Vec<_> = [1, 2, 3].map(|i| plan.kept[&manifest(i).key()].as_str()).into();
        assert_eq!(why, ["named by digits/cluster", "pinned: for the paper", "latest result of digits/cluster"]);
        assert_eq!((plan.kept.len(), plan.victims.len()), (3, 2));
        assert!(plan.victims.iter().all(|victim| victim.bytes > 0 && victim.seconds == Some(1.0)));
        let freed: u64 = plan.victims.iter().map(|victim| victim.bytes).sum();
        assert_eq!(plan.before - plan.after, freed);

        assert_eq!(store.gc(&policy).unwrap(), plan);
        assert_eq!(blob_count(&store), 6);
        for i in 1..=3 {
            whole(&store, &manifest(i));
        }
        for i in 4..=5 {
            assert_eq!(store.lookup(&manifest(i).key()).unwrap(), Lookup::Miss);
            assert_eq!(store.manifest("scan", &manifest(i).key()).unwrap(), None);
        }
        assert!(store.verify(false, None).unwrap().is_clean());
        let again = store.gc(&policy).unwrap();
        assert_eq!((again.victims, again.before), (vec![], plan.after));
        assert!(store.unpin(&manifest(2).key()).unwrap() && !store.unpin(&manifest(2).key()).unwrap());
        assert_eq!(store.gc_plan(&policy).unwrap().victims.len(), 1);
    }

    #[test]
    fn a_blob_of_two_results_stays_until_both_go() {
        let (_dir, store) = new_store();
        publish(&store, &manifest(1), "same", 1.0).unwrap();
        publish(&store, &manifest(2), "same", 1.0).unwrap();
        assert_eq!(blob_count(&store), 2);
        let plan = store.gc(&Policy { roots: roots(&[1]), ..later() }).unwrap();
        assert_eq!((plan.victims.len(), plan.victims[0].bytes), (1, 0));
        assert_eq!(plan.victims[0].why, "unreferenced; its files are those of other results");
        whole(&store, &manifest(1));
        store.gc(&later()).unwrap();
        assert_eq!(blob_count(&store), 0);
    }

    #[test]
    fn under_a_budget_the_cheapest_bytes_go_first() {
        let (_dir, store) = new_store();
        let long = "x".repeat(1000);
        publish(&store, &manifest(1), "small and slow", 1000.0).unwrap();
        publish(&store, &manifest(2), &format!("{long}{long}"), 10.0).unwrap();
        publish(&store, &manifest(3), &long, 100.0).unwrap();
        let order = |policy: &Policy| -> Vec<Key> {
            let plan = store.gc_plan(policy).unwrap();
            assert!(plan.after <= policy.max_size.unwrap_or(0));
            let key = |victim: &Victim| match victim.item {
                Item::Result { key, .. } => key,
                _ => panic!("{victim:?}"),
            };
            plan.victims.iter().map(key).collect()
        };
        let keys = |epochs: &[u32]| epochs.iter().map(|epochs| manifest(*epochs).key()).collect::<Vec<_>>();
        assert_eq!(order(&later()), keys(&[2, 3, 1]));
        let before = store.gc_plan(&later()).unwrap().before;
        assert_eq!(order(&Policy { max_size: Some(before), ..later() }), []);
        assert_eq!(order(&Policy { max_size: Some(before - 1), ..later() }), keys(&[2]));
        assert_eq!(order(&Policy { max_size: Some(500), ..later() }), keys(&[2, 3]));
        let plan = store.gc_plan(&Policy { max_size: Some(500), roots: roots(&[3]), ..later() }).unwrap();
        assert!(plan.over > 0, "what is named stays even over the budget: {plan:?}");
        assert_eq!(plan.kept.len(), 1);
    }

    #[test]
    fn the_young_are_spared() {
        let (_dir, store) = new_store();
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        let orphan = store.draft().unwrap().path().join("orphan");
        files::create_dir_all(orphan.parent().unwrap()).unwrap();
        files::write(&orphan, "orphan").unwrap();
        store.publish_blob(&orphan).unwrap();
        begun(&store, &manifest(2));
        let plan = store.gc(&Policy::default()).unwrap();
        assert_eq!(plan.after, plan.before);
        assert!(plan.spared > 0);
        assert_eq!(plan.victims[0].why, "unreferenced; its files are too young to go");
        assert_eq!(blob_count(&store), 3);
        assert!(store.scratch_path(&manifest(2).key()).exists());
        store.gc(&later()).unwrap();
        assert_eq!(blob_count(&store), 0);
        assert!(!store.scratch_path(&manifest(2).key()).exists());
    }

    #[test]
    fn checkpoints_stay_while_their_key_is_named() {
        let (_dir, store) = new_store();
        for i in 1..=2 {
            files::write(begun(&store, &manifest(i)).join("epoch-1"), "12345").unwrap();
        }
        let plan = store.gc(&Policy { roots: roots(&[1]), ..later() }).unwrap();
        assert_eq!((plan.before, plan.after), (10, 5));
        assert_eq!(plan.victims[0].why, "unfinished and unreferenced");
        assert!(store.has_scratch(&manifest(1).key()) && !store.has_scratch(&manifest(2).key()));
    }

    #[test]
    fn a_run_keeps_everything_and_damaged_pins_stop_everything() {
        let (_dir, store) = new_store();
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        let run = store.lock_shared(|| true).unwrap();
        assert!(matches!(store.gc(&later()), Err(StoreError::Busy { .. })));
        drop(run);
        files::write(store.pins_path(), "# a comment\n\nnonsense\n").unwrap();
        assert!(matches!(store.gc(&later()), Err(StoreError::Damaged { .. })));
        whole(&store, &manifest(1));
    }

    #[test]
    fn a_damaged_record_goes_and_so_does_what_only_it_named() {
        let (_dir, store) = new_store();
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        files::write(store.record_path(&manifest(1).key()), "{").unwrap();
        let plan = store.gc(&later()).unwrap();
        assert_eq!((plan.victims.len(), plan.after), (3, 0));
        assert_eq!((blob_count(&store), store.keys().unwrap().len()), (0, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn no_kept_result_ever_loses_a_blob(
            contents in prop::collection::vec(0_u8..4, 1..7),
            rooted in prop::collection::vec(any::<bool>(), 7),
            max_size in prop::option::of(0_u64..200),
        ) {
            let (_dir, store) = new_store();
            for (i, content) in contents.iter().enumerate() {
                publish(&store, &manifest(i as u32), &format!("content {content}"), i as f64).unwrap();
            }
            let named: Vec<u32> = (0..contents.len() as u32).filter(|i| rooted[*i as usize]).collect();
            let plan = store.gc(&Policy { roots: roots(&named), max_size, ..later() }).unwrap();
            for i in &named {
                whole(&store, &manifest(*i));
            }
            for key in plan.kept.keys() {
                prop_assert!(matches!(store.lookup(key).unwrap(), Lookup::Hit(_)));
            }
            prop_assert_eq!(store.keys().unwrap().len(), plan.kept.len());
            let left: u64 = store.inventory().unwrap().blobs.values().map(|weight| weight.bytes).sum();
            prop_assert_eq!(left, plan.after);
        }
    }
}
