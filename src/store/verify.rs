//! Is everything still what its name promises? Reads every byte again.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::digest::Digest;
use super::disk::{entries, look};
use super::error::{Result, StoreError};
use super::key::{Key, read_manifest};
use super::open::Store;
use super::record::Damage;
use kinset_base::fs;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// Records looked at.
    pub records: usize,
    /// Manifests looked at.
    pub manifests: usize,
    /// Blobs read.
    pub blobs: usize,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong, blobs first.
    pub findings: Vec<Finding>,
    /// True if what could be was dropped.
    pub repaired: bool,
}

impl Verification {
    /// True if nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What can be wrong with a file of the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// The bytes of a blob are not those of its name.
    Bytes {
        /// The name.
        blob: Digest,
    },
    /// A blob cannot be read.
    Unreadable {
        /// The name.
        blob: Digest,
        /// Why.
        why: String,
    },
    /// A result is not whole: its stage will run again.
    Result {
        /// Its key.
        key: Key,
        /// The kind of stage; empty if the record cannot be read.
        kind: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A manifest is not the one of its name; only explanations suffer.
    Manifest {
        /// Why.
        why: String,
    },
    /// Something that is not ours; it is left alone.
    Stray,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: ", self.path.display())?;
        match &self.trouble {
            Trouble::Bytes { .. } => f.write_str("its bytes have changed"),
            Trouble::Unreadable { why, .. } => write!(f, "it cannot be read ({why})"),
            Trouble::Result { kind, damage, .. } if kind.is_empty() => damage.fmt(f),
            Trouble::Result { kind, damage, .. } => write!(f, "a result of `{kind}`: {damage}"),
            Trouble::Manifest { why } => f.write_str(why),
            Trouble::Stray => f.write_str("it is not a file of the store"),
        }
    }
}

impl Store {
    /// Reads everything and compares it with its name. With `repair` the store is held alone, and records, blobs and manifests
    /// that are damaged are dropped, records first: the stages concerned run again. `progress` hears bytes done and bytes in
    /// all, from several threads.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if it is to be repaired while a run holds it; if something cannot be listed or removed.
    pub fn verify(&self, repair: bool, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<Verification> {
        let (_alone, _shared) = if repair { (Some(self.enter_alone()?), None) } else { (None, self.enter(|| true)?) };
        let (blobs, strays) = self.all_blobs()?;
        let mut sized = Vec::with_capacity(blobs.len());
        for (blob, path) in blobs {
            let size = look(&path)?.map_or(0, |found| found.len());
            sized.push((blob, path, size));
        }
        let total = sized.iter().map(|(_, _, size)| size).sum();
        let done = AtomicU64::new(0);
        let troubles: Vec<Option<Finding>> = sized
            .par_iter()
            .map(|(blob, path, size)| {
                let trouble = match Digest::of_file(path) {
                    Ok(found) if found == *blob => None,
                    Ok(_) => Some(Trouble::Bytes { blob: *blob }),
                    Err(error) => Some(Trouble::Unreadable { blob: *blob, why: error.source.to_string() }),
                };
                progress(done.fetch_add(*size, Ordering::Relaxed) + size, total);
                trouble.map(|trouble| Finding { path: path.clone(), trouble })
            })
            .collect();
        let mut report = Verification { blobs: sized.len(), bytes: total, ..Verification::default() };
        report.findings.extend(troubles.into_iter().flatten());
        let bad: BTreeSet<Digest> = report
            .findings
            .iter()
            .filter_map(|finding| match finding.trouble {
                Trouble::Bytes { blob } | Trouble::Unreadable { blob, .. } => Some(blob),
                _ => None,
            })
            .collect();
        self.verify_records(&bad, &mut report)?;
        self.verify_manifests(&mut report)?;
        report.findings.extend(strays.into_iter().map(|path| Finding { path, trouble: Trouble::Stray }));
        if repair {
            self.repair(&report)?;
            report.repaired = true;
        }
        Ok(report)
    }

    fn verify_records(&self, bad: &BTreeSet<Digest>, report: &mut Verification) -> Result<()> {
        for key in self.keys()? {
            report.records += 1;
            let (kind, damage) = match self.record(&key)? {
                None => continue,
                Some(Err(damage)) => (String::new(), Some(damage)),
                Some(Ok(record)) => {
                    let changed = record.files().find(|(_, file)| bad.contains(&file.blob));
                    let damage = match changed {
                        Some((output, file)) => {
                            let why = format!("`{}` of its output `{output}` has changed", file.name);
                            Some(Damage::Record { why })
                        }
                        None => self.missing_from(&record.outputs)?,
                    };
                    (record.kind, damage)
                }
            };
            if let Some(damage) = damage {
                let trouble = Trouble::Result { key, kind, damage };
                report.findings.push(Finding { path: self.record_path(&key), trouble });
            }
        }
        Ok(())
    }

    fn verify_manifests(&self, report: &mut Verification) -> Result<()> {
        for (_, folder) in entries(&self.manifests())? {
            for (name, path) in entries(&folder)? {
                report.manifests += 1;
                let trouble = match name.strip_suffix(".json").map(str::parse::<Key>) {
                    Some(Ok(key)) => match read_manifest(&path, &key) {
                        Ok(_) => continue,
                        Err(StoreError::Damaged { why, .. }) => Trouble::Manifest { why },
                        Err(error) => Trouble::Manifest { why: error.to_string() },
                    },
                    _ => Trouble::Stray,
                };
                report.findings.push(Finding { path, trouble });
            }
        }
        Ok(())
    }

    fn repair(&self, report: &Verification) -> Result<()> {
        let is_record = |finding: &&Finding| matches!(finding.trouble, Trouble::Result { .. });
        let is_stray = |finding: &&Finding| matches!(finding.trouble, Trouble::Stray);
        for finding in report.findings.iter().filter(is_record) {
            self.writing(fs::remove(&finding.path))?;
        }
        for finding in report.findings.iter().filter(|finding| !is_record(finding) && !is_stray(finding)) {
            self.writing(fs::remove(&finding.path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs as files;
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;
    use crate::record::Lookup;
    use crate::record::tests::{manifest, publish, whole};

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
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut bytes = 0;
        for i in 1..=3 {
            bytes += publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap().record.bytes();
        }
        let most = Mutex::new((0, 0));
        let report = Store::open_existing(dir.path())
            .unwrap()
            .verify(false, &|done, all| {
                let mut most = most.lock().unwrap();
                *most = (most.0.max(done), all);
            })
            .unwrap();
        assert_eq!((report.records, report.manifests, report.blobs, report.bytes), (3, 3, 6, bytes));
        assert!(report.is_clean());
        assert_eq!(*most.lock().unwrap(), (bytes, bytes));
    }

    #[test]
    fn a_flipped_bit_is_found_and_repair_makes_the_stage_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        publish(&store, &manifest(2), "two", 1.0).unwrap();
        let blob = record.outputs["features"].files[0].blob;
        flip_a_bit(&store.blob_path(&blob));
        whole(&store, &manifest(1)); // a lookup does not read the bytes
        let report = store.verify(false, &|_, _| {}).unwrap();
        let hex = blob.hex();
        let key = record.key.hex();
        assert_eq!(
            sentences(&report, &store),
            [
                format!("`blobs/{}/{hex}`: its bytes have changed", &hex[..2]),
                format!(
                    "`records/{}/{key}.json`: a result of `scan`: its record is damaged (`table.bin` of its output `features` has changed)",
                    &key[..2]
                ),
            ]
        );
        assert_eq!(store.verify(false, &|_, _| {}).unwrap(), report, "looking changes nothing");

        let repaired = store.verify(true, &|_, _| {}).unwrap();
        assert!(repaired.repaired && repaired.findings == report.findings);
        assert_eq!(store.lookup(&record.key).unwrap(), Lookup::Miss);
        whole(&store, &manifest(2));
        assert!(store.verify(false, &|_, _| {}).unwrap().is_clean());
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        assert!(store.verify(false, &|_, _| {}).unwrap().is_clean());
    }

    #[test]
    fn missing_blobs_bad_records_bad_manifests_and_strays_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for i in 1..=3 {
            publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap();
        }
        files::remove_file(store.blob_path(&whole(&store, &manifest(1)).outputs["features"].files[1].blob)).unwrap();
        files::write(store.record_path(&manifest(2).key()), "{").unwrap();
        let path = store.manifest_path("scan", &manifest(3).key()).unwrap();
        files::write(&path, files::read_to_string(&path).unwrap().replace("\"epochs\": 3", "\"epochs\": 4")).unwrap();
        files::write(store.blobs().join("note.txt"), "?").unwrap();
        let report = store.verify(true, &|_, _| {}).unwrap();
        let troubles: Vec<_> =
            sentences(&report, &store).into_iter().map(|s| s.split_once(": ").unwrap().1.to_owned()).collect();
        for expected in [
            "a result of `scan`: `card.json` of its output `features` is missing",
            "it does not say what its name promises",
            "it is not a file of the store",
        ] {
            assert!(troubles.iter().any(|found| found == expected), "{expected}: {troubles:?}");
        }
        assert_eq!(troubles.len(), 4);
        let again = store.verify(false, &|_, _| {}).unwrap();
        assert_eq!(sentences(&again, &store), ["`blobs/note.txt`: it is not a file of the store"]);
        whole(&store, &manifest(3));
    }

    #[test]
    fn repair_waits_for_no_run() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let _run = store.enter(|| true).unwrap();
        assert!(matches!(store.verify(true, &|_, _| {}), Err(StoreError::Busy { .. })));
        assert!(store.verify(false, &|_, _| {}).unwrap().is_clean());
    }
}
