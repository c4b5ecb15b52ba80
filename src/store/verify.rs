//! Verification of a whole store: every byte is read again and compared with its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::check::changed;
use super::digest::Digest;
use super::disk::{entries, parent, stat};
use super::error::{Result, StoreError};
use super::key::Key;
use super::layout::Store;
use super::manifests::read_manifest;
use super::record::{self, Found, Record};
use kinset_base::fs;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    pub records: usize,
    pub manifests: usize,
    pub blobs: usize,
    pub bytes: u64,
    /// What is wrong, blobs first.
    pub findings: Vec<Finding>,
    /// True if what could be was dropped.
    pub repaired: bool,
}

impl Verification {
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub path: PathBuf,
    pub problem: String,
    /// True if `repair` deletes it; a file that is none of the store's is left alone.
    pub ours: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.problem)
    }
}

impl Verification {
    fn find(&mut self, path: PathBuf, problem: impl Into<String>) {
        self.findings.push(Finding { path, problem: problem.into(), ours: true });
    }

    fn find_stray(&mut self, path: PathBuf) {
        self.findings.push(Finding { path, problem: "it is not a file of the store".into(), ours: false });
    }

    fn find_newer(&mut self, path: PathBuf, found: u32, known: u32) {
        let problem = format!("it has format {found}; this kinset reads formats up to {known} and leaves it alone");
        self.findings.push(Finding { path, problem, ours: false });
    }
}

/// What the store cannot know of a result.
pub trait Judge: Sync {
    /// What is wrong with the outputs of a record, beside those its stage declares, in words.
    fn undeclared(&self, record: &Record) -> Option<String>;

    /// The digest of what a file of a kind of artifact says; `None` if nobody can tell.
    ///
    /// # Errors
    /// If the file is not what it should be, in words.
    fn says(&self, artifact: &str, file: &str, path: &Path) -> std::result::Result<Option<Digest>, String>;
}

/// What was said of outputs that is not so: contents that stages below may have been given falsely.
#[derive(Default)]
struct False {
    /// The bytes changed. Whoever compared them did not compute from them.
    bytes: BTreeSet<Digest>,
    /// The record tells of other content than its files hold.
    content: BTreeSet<Digest>,
}

impl Store {
    /// Reads everything and compares it with its name, and with what `judge` knows. With `repair` the store is locked, and
    /// records, blobs and manifests that are damaged are dropped, records first: the stages concerned run again. Dropped too is
    /// what may have been computed from damage: records of a kinset that did not compare what it read, and unfinished work.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if it is to be repaired while a run uses it; if something cannot be listed or removed.
    pub fn verify(&self, repair: bool, judge: Option<&dyn Judge>) -> Result<Verification> {
        let (_alone, _shared) = if repair { (Some(self.lock_exclusive()?), None) } else { (None, self.lock_shared(|| true)?) };
        let (blobs, strays) = self.all_blobs()?;
        let mut report = Verification { blobs: blobs.len(), ..Verification::default() };
        for path in blobs.values() {
            report.bytes += stat(path)?.map_or(0, |found| found.len());
        }
        let problem = |(blob, path): (&Digest, &PathBuf)| match Digest::of_file(path) {
            Ok(found) if found == *blob => None,
            Ok(_) => Some((*blob, "its bytes have changed".to_owned())),
            Err(error) => Some((*blob, format!("it cannot be read ({})", error.source))),
        };
        let bad: BTreeMap<Digest, String> = blobs.par_iter().filter_map(problem).collect();
        for (blob, problem) in &bad {
            report.find(self.blob_path(blob), problem);
        }
        let is_false = self.verify_records(&bad, judge, &mut report)?;
        self.verify_readers(&is_false, &mut report)?;
        self.verify_manifests(&mut report)?;
        for path in strays.into_iter().chain(self.stray_records()?) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.len() == 2 && name.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                report.find(path, "it is in the place of a folder");
            } else {
                report.find_stray(path);
            }
        }
        if repair {
            let is_record = |finding: &&Finding| finding.path.starts_with(self.records());
            let (records, others): (Vec<_>, Vec<_>) =
                report.findings.iter().filter(|finding| finding.ours).partition(is_record);
            for finding in records.into_iter().chain(others) {
                if finding.path.starts_with(self.scratch_folders()) {
                    self.writing(fs::remove_folder(&finding.path))?;
                } else if [self.blobs(), self.records()].iter().any(|table| *table == parent(&finding.path)) {
                    self.set_aside(&finding.path)?;
                } else {
                    self.remove_file(&finding.path)?;
                }
            }
            report.repaired = true;
        }
        Ok(report)
    }

    /// What lies among the records and is none.
    fn stray_records(&self) -> Result<Vec<PathBuf>> {
        let mut strays = Vec::new();
        for (_, shard) in entries(&self.records())? {
            if !shard.is_dir() {
                strays.push(shard);
                continue;
            }
            for (file, path) in entries(&shard)? {
                let key: Option<Key> = file.strip_suffix(".json").and_then(|name| name.parse().ok());
                if key.is_none_or(|key| self.record_path(&key) != path) {
                    strays.push(path);
                }
            }
        }
        Ok(strays)
    }

    fn verify_records(
        &self,
        bad: &BTreeMap<Digest, String>,
        judge: Option<&dyn Judge>,
        report: &mut Verification,
    ) -> Result<False> {
        let mut is_false = False::default();
        let mut whole = Vec::new();
        for key in self.keys()? {
            report.records += 1;
            let path = self.record_path(&key);
            match self.record(&key)? {
                Found::Nothing => {}
                Found::Damaged(damage) => report.find(path, damage),
                Found::Newer(format) => report.find_newer(path, format, record::FORMAT),
                Found::Whole(record) => whole.push(record),
            }
        }
        let judged: Vec<Option<(Option<Digest>, String)>> =
            whole.par_iter().map(|record| judge.and_then(|judge| self.judge(record, bad, judge))).collect();
        for (record, judged) in whole.iter().zip(judged) {
            let of_bad =
                record.outputs.iter().filter(|(_, output)| output.files.iter().any(|file| bad.contains_key(&file.blob)));
            is_false.bytes.extend(of_bad.map(|(_, output)| output.content));
            let differs = record.files().find(|(_, file)| bad.contains_key(&file.blob));
            let damage = match (differs, judged) {
                (Some((output, file)), _) => Some(changed(output, file)),
                (None, Some((content, damage))) => {
                    is_false.content.extend(content);
                    Some(damage)
                }
                (None, None) => self.missing_from_any(&record.outputs)?,
            };
            if let Some(damage) = damage {
                report.find(self.record_path(&record.key), format!("a result of `{}`: {damage}", record.kind));
            }
        }
        Ok(is_false)
    }

    /// What is wrong with a record whose blobs are whole, and the content that it falsely claims to have.
    fn judge(&self, record: &Record, bad: &BTreeMap<Digest, String>, judge: &dyn Judge) -> Option<(Option<Digest>, String)> {
        if let Some(damage) = judge.undeclared(record) {
            return Some((None, damage));
        }
        let files = record.outputs.iter().flat_map(|(name, output)| output.files.iter().map(move |file| (name, output, file)));
        for (name, output, file) in files.filter(|(_, _, file)| !bad.contains_key(&file.blob)) {
            let path = self.blob_path(&file.blob);
            let Some(logical) = file.logical.filter(|_| path.is_file()) else { continue };
            let why = match judge.says(&output.kind, &file.name, &path) {
                Ok(says) if says.is_none_or(|says| says == logical) => continue,
                Ok(_) => "does not match its record".to_owned(),
                Err(why) => format!("is not what it should be ({why})"),
            };
            return Some((Some(output.content), format!("`{}` of its output `{name}` {why}", file.name)));
        }
        None
    }

    /// What may have been computed from damage.
    fn verify_readers(&self, is_false: &False, report: &mut Verification) -> Result<()> {
        if is_false.bytes.is_empty() && is_false.content.is_empty() {
            return Ok(());
        }
        let known: BTreeSet<PathBuf> = report.findings.iter().map(|finding| finding.path.clone()).collect();
        let unchecked: BTreeSet<Key> = self.unchecked_readers(&is_false.bytes)?.into_iter().map(|record| record.key).collect();
        for key in self.keys()? {
            let Found::Whole(record) = self.record(&key)? else { continue };
            let path = self.record_path(&key);
            let reads = unchecked.contains(&key) || self.reads(&record, &is_false.content).unwrap_or(false);
            if reads && !known.contains(&path) {
                report.find(path, format!("a result of `{}`: it may have been computed from damaged inputs", record.kind));
            }
        }
        for key in self.work_that_reads(&is_false.bytes.union(&is_false.content).copied().collect())? {
            report.find(self.scratch_path(&key), "checkpoints that may have been computed from damaged inputs");
        }
        Ok(())
    }

    /// A damaged manifest only makes explanations worse.
    fn verify_manifests(&self, report: &mut Verification) -> Result<()> {
        for (_, folder) in entries(&self.manifests())? {
            for (name, path) in entries(&folder)? {
                report.manifests += 1;
                match name.strip_suffix(".json").map(str::parse::<Key>) {
                    Some(Ok(key)) => match read_manifest(&path, &key) {
                        Ok(_) => {}
                        Err(StoreError::Damaged { why, .. }) => report.find(path, why),
                        Err(StoreError::Newer { found, known, .. }) => report.find_newer(path, found, known),
                        Err(StoreError::File(error)) => report.find(path, format!("it cannot be read ({})", error.source)),
                        Err(error) => report.find(path, error.to_string()),
                    },
                    _ => report.find_stray(path),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Manifest;
    use crate::record::Lookup;
    use crate::record::tests::{age, begun, manifest, new_store, publish, whole};
    use std::fs as files;

    fn flip_a_bit(path: &Path) {
        let mut bytes = files::read(path).unwrap();
        bytes[0] ^= 1;
        files::remove_file(path).unwrap();
        files::write(path, bytes).unwrap();
    }

    fn sentences(report: &Verification, store: &Store) -> Vec<String> {
        let root = format!("{}/", store.root().display());
        report.findings.iter().map(|finding| finding.to_string().replace(&root, "")).collect()
    }

    #[test]
    fn a_whole_store_is_clean_and_every_byte_was_read() {
        let (dir, store) = new_store();
        let mut bytes = 0;
        for i in 1..=3 {
            bytes += publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap().record.bytes();
        }
        let report = Store::open_existing(dir.path()).unwrap().verify(false, None).unwrap();
        assert_eq!((report.records, report.manifests, report.blobs, report.bytes), (3, 3, 6, bytes));
        assert!(report.is_clean());
    }

    #[test]
    fn a_flipped_bit_is_found_and_repair_makes_the_stage_run_again() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        publish(&store, &manifest(2), "two", 1.0).unwrap();
        let blob = record.outputs["features"].files[0].blob;
        flip_a_bit(&store.blob_path(&blob));
        whole(&store, &manifest(1)); // a lookup does not read the bytes
        let report = store.verify(false, None).unwrap();
        let hex = blob.hex();
        let key = record.key.hex();
        assert_eq!(
            sentences(&report, &store),
            [
                format!("`blobs/{}/{hex}`: its bytes have changed", &hex[..2]),
                format!(
                    "`records/{}/{key}.json`: a result of `scan`: `table.bin` of its output `features` has changed",
                    &key[..2]
                ),
            ]
        );
        assert_eq!(store.verify(false, None).unwrap(), report, "looking changes nothing");

        let repaired = store.verify(true, None).unwrap();
        assert!(repaired.repaired && repaired.findings == report.findings);
        assert_eq!(store.lookup(&record.key).unwrap(), Lookup::Miss);
        whole(&store, &manifest(2));
        assert!(store.verify(false, None).unwrap().is_clean());
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        assert!(store.verify(false, None).unwrap().is_clean());
    }

    #[test]
    fn missing_blobs_bad_records_bad_manifests_and_strays_are_named() {
        let (_dir, store) = new_store();
        for i in 1..=3 {
            publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap();
        }
        files::remove_file(store.blob_path(&whole(&store, &manifest(1)).outputs["features"].files[1].blob)).unwrap();
        files::write(store.record_path(&manifest(2).key()), "{").unwrap();
        let path = store.manifest_path("scan", &manifest(3).key()).unwrap();
        files::write(&path, files::read_to_string(&path).unwrap().replace("\"epochs\": 3", "\"epochs\": 4")).unwrap();
        files::write(store.blobs().join("note.txt"), "?").unwrap();
        let report = store.verify(true, None).unwrap();
        let problems: Vec<_> =
            sentences(&report, &store).into_iter().map(|s| s.split_once(": ").unwrap().1.to_owned()).collect();
        for expected in [
            "a result of `scan`: `card.json` of its output `features` is missing",
            "its contents do not match its name",
            "it is not a file of the store",
        ] {
            assert!(problems.iter().any(|found| found == expected), "{expected}: {problems:?}");
        }
        assert_eq!(problems.len(), 4);
        let again = store.verify(false, None).unwrap();
        assert_eq!(sentences(&again, &store), ["`blobs/note.txt`: it is not a file of the store"]);
        whole(&store, &manifest(3));
    }

    #[test]
    fn what_was_computed_from_damage_is_dropped_unless_it_was_compared_first() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let content = record.outputs["features"].content;
        let reader = |kind: &str| Manifest::new(kind, 1, &()).unwrap().input("features", content);
        let (old, new) = (reader("kmeans"), reader("neighbors"));
        for manifest in [&old, &new, &manifest(2)] {
            publish(&store, manifest, "result", 1.0).unwrap();
        }
        let [started, other] = [manifest(8).input("features", content), manifest(9)];
        for manifest in [&started, &other] {
            files::write(begun(&store, manifest).join("checkpoint"), "x").unwrap();
        }
        for key in [old.key(), manifest(2).key()] {
            age(&store, &key);
        }
        assert!(store.verify(false, None).unwrap().is_clean(), "the older form is no damage");
        flip_a_bit(&store.blob_path(&record.outputs["features"].files[0].blob));
        let report = store.verify(true, None).unwrap();
        let told = |problem: &str| report.findings.iter().filter(|finding| finding.problem.contains(problem)).count();
        assert_eq!((told("`kmeans`: it may have been computed from damaged inputs"), told("checkpoints that may")), (1, 1));
        assert_eq!(report.findings.len(), 4, "{:?}", sentences(&report, &store));
        for gone in [&manifest(1), &old] {
            assert_eq!(store.lookup(&gone.key()).unwrap(), Lookup::Miss);
        }
        whole(&store, &new);
        whole(&store, &manifest(2));
        assert_eq!([&started, &other].map(|manifest| store.has_scratch(&manifest.key())), [false, true]);
        assert!(store.verify(false, None).unwrap().is_clean());
    }

    /// Knows what one file says, and which kinds of output a stage has.
    struct Knows(Digest);

    impl Judge for Knows {
        fn undeclared(&self, record: &Record) -> Option<String> {
            record.outputs.values().any(|output| output.kind != "features").then(|| "it has no such output".to_owned())
        }

        fn says(&self, artifact: &str, file: &str, _: &Path) -> std::result::Result<Option<Digest>, String> {
            assert_eq!((artifact, file), ("features", "table.bin"), "only what has a content of its own is read");
            Ok(Some(self.0))
        }
    }

    #[test]
    fn another_artifacts_blob_in_a_record_is_seen_and_so_is_what_was_computed_from_it() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let below = Manifest::new("kmeans", 1, &()).unwrap().input("features", record.outputs["features"].content);
        assert!(store.verify(false, Some(&Knows(Digest::of(b"one")))).unwrap().is_clean());
        publish(&store, &below, "two", 1.0).unwrap();
        let report = store.verify(true, Some(&Knows(Digest::of(b"two")))).unwrap();
        let told = sentences(&report, &store);
        for problem in ["`table.bin` of its output `features` does not match its record", "`kmeans`: it may have been"] {
            assert!(told.iter().any(|line| line.contains(problem)), "{problem}: {told:?}");
        }
        assert_eq!((told.len(), store.keys().unwrap()), (2, vec![]));

        let draft = store.draft().unwrap();
        let path = draft.path().join("x");
        files::write(&path, "x").unwrap();
        let output = store.publish_output("labels", &[crate::blob::NewFile { name: "x", path: &path, logical: None }]).unwrap();
        store.publish(&manifest(3), [("features".to_owned(), output)].into(), record::Provenance::default()).unwrap();
        let told = sentences(&store.verify(false, Some(&Knows(Digest::of(b"")))).unwrap(), &store);
        assert!(told.len() == 1 && told[0].ends_with("a result of `scan`: it has no such output"), "{told:?}");
    }

    #[test]
    fn what_a_newer_kinset_wrote_is_named_and_left_alone() {
        let (_dir, store) = new_store();
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        let [record, manifest] =
            [store.record_path(&manifest(1).key()), store.manifest_path("scan", &manifest(1).key()).unwrap()];
        for path in [&record, &manifest] {
            files::write(path, r#"{"format": 99}"#).unwrap();
        }
        let report = store.verify(true, None).unwrap();
        let told = sentences(&report, &store);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.iter().all(|line| line.contains("it has format 99; this kinset reads formats up to 2")), "{told:?}");
        for path in [&record, &manifest] {
            assert_eq!(files::read(path).unwrap(), br#"{"format": 99}"#);
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_file_is_named_and_mended() {
        let (_dir, store) = new_store();
        for i in 1..=4 {
            publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap();
        }
        let blob = |epochs| store.blob_path(&whole(&store, &manifest(epochs)).outputs["features"].files[0].blob);
        let places = [blob(1), blob(2), store.record_path(&manifest(3).key()), store.record_path(&manifest(4).key())];
        for (number, place) in places.iter().enumerate() {
            files::remove_file(place).unwrap();
            if number % 2 == 0 {
                files::create_dir(place).unwrap();
                files::write(place.join("mine"), "").unwrap();
            } else {
                assert!(std::process::Command::new("mkfifo").arg(place).status().unwrap().success());
            }
        }
        let shard = store.records().join("ff");
        let _ = files::remove_dir_all(&shard);
        files::write(&shard, "mine").unwrap();
        let told = sentences(&store.verify(true, None).unwrap(), &store);
        assert!(told.iter().any(|line| line == "`records/ff`: it is in the place of a folder"), "{told:?}");
        assert_eq!(files::read(store.root().join("aside/ff-1")).unwrap(), b"mine");
        assert_eq!(told.iter().filter(|line| line.contains("it is a folder, not a file")).count(), 2, "{told:?}");
        assert_eq!(told.iter().filter(|line| line.contains("it is a pipe, not a file")).count(), 2, "{told:?}");
        assert!(store.verify(false, None).unwrap().is_clean());
        assert_eq!(store.keys().unwrap(), []);
    }

    #[test]
    fn repair_waits_for_no_run() {
        let (_dir, store) = new_store();
        let _run = store.lock_shared(|| true).unwrap();
        assert!(matches!(store.verify(true, None), Err(StoreError::Busy { .. })));
        assert!(store.verify(false, None).unwrap().is_clean());
    }
}
