//! Verification of a whole store: every byte is read again and compared with its name.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use rayon::prelude::*;

use super::digest::Digest;
use super::disk::{entries, stat};
use super::error::{Result, StoreError};
use super::key::Key;
use super::layout::Store;
use super::manifests::read_manifest;
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
}

impl Store {
    /// Reads everything and compares it with its name. With `repair` the store is locked, and records, blobs and manifests that
    /// are damaged are dropped, records first: the stages concerned run again.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if it is to be repaired while a run uses it; if something cannot be listed or removed.
    pub fn verify(&self, repair: bool) -> Result<Verification> {
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
        self.verify_records(&bad, &mut report)?;
        self.verify_manifests(&mut report)?;
        for path in strays {
            report.find_stray(path);
        }
        if repair {
            let is_record = |finding: &&Finding| finding.path.starts_with(self.records());
            let (records, others): (Vec<_>, Vec<_>) =
                report.findings.iter().filter(|finding| finding.ours).partition(is_record);
            for finding in records.into_iter().chain(others) {
                self.writing(fs::remove(&finding.path))?;
            }
            report.repaired = true;
        }
        Ok(report)
    }

    fn verify_records(&self, bad: &BTreeMap<Digest, String>, report: &mut Verification) -> Result<()> {
        for key in self.keys()? {
            report.records += 1;
            let problem = match self.record(&key)? {
                None => continue,
                Some(Err(damage)) => Some(damage),
                Some(Ok(record)) => {
                    let changed = record.files().find(|(_, file)| bad.contains_key(&file.blob));
                    let damage = match changed {
                        Some((output, file)) => Some(format!("`{}` of its output `{output}` has changed", file.name)),
                        None => self.missing_from(&record.outputs)?,
                    };
                    damage.map(|damage| format!("a result of `{}`: {damage}", record.kind))
                }
            };
            if let Some(problem) = problem {
                report.find(self.record_path(&key), problem);
            }
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
    use std::fs as files;
    use std::path::Path;

    use super::*;
    use crate::record::Lookup;
    use crate::record::tests::{manifest, new_store, publish, whole};

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
        let report = Store::open_existing(dir.path()).unwrap().verify(false).unwrap();
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
        let report = store.verify(false).unwrap();
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
        assert_eq!(store.verify(false).unwrap(), report, "looking changes nothing");

        let repaired = store.verify(true).unwrap();
        assert!(repaired.repaired && repaired.findings == report.findings);
        assert_eq!(store.lookup(&record.key).unwrap(), Lookup::Miss);
        whole(&store, &manifest(2));
        assert!(store.verify(false).unwrap().is_clean());
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        assert!(store.verify(false).unwrap().is_clean());
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
        let report = store.verify(true).unwrap();
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
        let again = store.verify(false).unwrap();
        assert_eq!(sentences(&again, &store), ["`blobs/note.txt`: it is not a file of the store"]);
        whole(&store, &manifest(3));
    }

    #[test]
    fn repair_waits_for_no_run() {
        let (_dir, store) = new_store();
        let _run = store.lock_shared(|| true).unwrap();
        assert!(matches!(store.verify(true), Err(StoreError::Busy { .. })));
        assert!(store.verify(false).unwrap().is_clean());
    }
}
