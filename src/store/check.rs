//! The comparison of blobs with their digests when they are used.
//!
//! A lookup only looks at sizes, so that a run with nothing to do stays quick. Who computes from a blob has its bytes compared
//! first: once per process, and again if it was written to since. What was found is remembered, so that a result with a changed
//! blob is damaged for every later lookup of this process, until the blob is published anew.
//!
//! So a record of today's form is the right result for its key. One of `UNCHECKED` may have been computed from changed bytes;
//! when an output turns out to be damaged, such records that read it are forgotten, and with them all unfinished work that reads
//! it. What was computed from *their* results needs no care: if those come out differently, the keys below them are others.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::digest::Digest;
use super::disk::stat;
use super::error::Result;
use super::key::Key;
use super::layout::Store;
use super::record::{Found, Record, StoredFile, StoredOutput};

/// The last form of records whose inputs nobody compared.
pub(super) const UNCHECKED: u32 = 1;

/// What tells that a blob was not written to. Not the time of its last change: a view's hard link is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Seen {
    fn of(found: &Metadata) -> Self {
        Self { bytes: found.len(), modified: found.modified().ok() }
    }
}

/// What it looked like, and whether it was whole then. Held while it is read, so that two stages do not both read it.
type Cell = Arc<Mutex<Option<(Seen, bool)>>>;

/// The blobs that were compared in this process.
#[derive(Default)]
pub(super) struct Checked(Mutex<BTreeMap<Digest, Cell>>);

impl Checked {
    fn cell(&self, blob: &Digest) -> Cell {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(*blob).or_default())
    }
}

impl Store {
    /// What is wrong with the files of an output, in words; each is compared with its digest. Call it before computing from them.
    ///
    /// # Errors
    /// If a file is there and cannot be read.
    pub fn damage(&self, name: &str, output: &StoredOutput) -> Result<Option<String>> {
        if let Some(missing) = self.missing_from(name, output)? {
            return Ok(Some(missing));
        }
        for file in &output.files {
            if !self.is_intact(&file.blob)? {
                return Ok(Some(changed(name, file)));
            }
        }
        Ok(None)
    }

    /// True if the bytes of a file are here, whole.
    ///
    /// # Errors
    /// If it is there and cannot be read.
    pub fn has(&self, file: &StoredFile) -> Result<bool> {
        let found = stat(&self.blob_path(&file.blob))?;
        Ok(found.is_some_and(|found| found.is_file() && found.len() == file.size) && self.is_intact(&file.blob)?)
    }

    fn is_intact(&self, blob: &Digest) -> Result<bool> {
        let path = self.blob_path(blob);
        let cell = self.checked.cell(blob);
        let mut known = cell.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = stat(&path)? else { return Ok(false) };
        let seen = Seen::of(&found);
        if let Some((then, whole)) = *known
            && then == seen
        {
            return Ok(whole);
        }
        let whole = match Digest::of_file(&path) {
            Ok(digest) => digest == *blob,
            Err(error) if error.is_no_file() => false,
            Err(error) => return Err(error.into()),
        };
        *known = Some((seen, whole));
        Ok(whole)
    }

    /// True if this process has found that its bytes are others. Reads nothing.
    pub(super) fn is_known_to_differ(&self, blob: &Digest, found: &Metadata) -> bool {
        let cell = self.checked.0.lock().unwrap_or_else(PoisonError::into_inner).get(blob).map(Arc::clone);
        cell.is_some_and(|cell| *cell.lock().unwrap_or_else(PoisonError::into_inner) == Some((Seen::of(found), false)))
    }

    /// Remembers a blob that was just published: its digest is that of its bytes.
    pub(super) fn is_known_to_be_whole(&self, blob: &Digest) -> Result<()> {
        if let Some(found) = stat(&self.blob_path(blob))? {
            *self.checked.cell(blob).lock().unwrap_or_else(PoisonError::into_inner) = Some((Seen::of(&found), true));
        }
        Ok(())
    }

    /// Forgets what may have been computed from this output while it was damaged, and says of which keys it was: records of
    /// `UNCHECKED` that read it, and unfinished work that does and that nobody is at now.
    pub fn forget_readers(&self, content: &Digest) -> Result<Vec<Key>> {
        let contents = BTreeSet::from([*content]);
        let readers = self.unchecked_readers(&contents)?;
        for record in &readers {
            self.forget(&record.key)?;
        }
        for key in self.work_that_reads(&contents)? {
            if let Some(_alone) = self.try_lock_stage(&key, "verify")? {
                self.remove_scratch(&key)?;
            }
        }
        Ok(readers.into_iter().map(|record| record.key).collect())
    }

    /// Which files the blobs of an output are. Others than before: somebody has mended one meanwhile.
    pub fn identities(&self, output: &StoredOutput) -> Result<Vec<u64>> {
        let identity = |file: &StoredFile| Ok(stat(&self.blob_path(&file.blob))?.map_or(0, |found| identity(&found)));
        output.files.iter().map(identity).collect()
    }

    /// Records of `UNCHECKED` that read one of these contents, or of which nobody knows what they read.
    pub(super) fn unchecked_readers(&self, contents: &BTreeSet<Digest>) -> Result<Vec<Record>> {
        let mut readers = Vec::new();
        for key in self.keys()? {
            if let Found::Whole(record) = self.record(&key)?
                && record.format <= UNCHECKED
                && self.reads(&record, contents).unwrap_or(true)
            {
                readers.push(record);
            }
        }
        Ok(readers)
    }

    /// True if a record was computed from one of these contents; `None` if its manifest is lost.
    pub(super) fn reads(&self, record: &Record, contents: &BTreeSet<Digest>) -> Option<bool> {
        Some(self.manifest(&record.kind, &record.key).ok().flatten()?.reads(contents))
    }
}

/// The number of a file, where the system has one.
fn identity(found: &Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::ino(found)
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        0
    }
}

/// The sentence for a file whose bytes are not what its digest says.
pub(super) fn changed(output: &str, file: &StoredFile) -> String {
    format!("`{}` of its output `{output}` has changed", file.name)
}

#[cfg(test)]
mod tests {
    use std::fs as files;
    use std::path::Path;

    use super::*;
    use crate::key::Manifest;
    use crate::record::Lookup;
    use crate::record::tests::{age, begun, manifest, new_store, publish, whole};

    /// Writes through a second name, as who writes to the file of a view does.
    fn flip_through_a_link(blob: &Path, at: usize) {
        let link = blob.with_extension("link");
        files::hard_link(blob, &link).unwrap();
        let mut bytes = files::read(&link).unwrap();
        bytes[at] ^= 1;
        let rights = files::metadata(&link).unwrap().permissions();
        let mut open = rights.clone();
        #[expect(clippy::permissions_set_readonly_false, reason = "for the moment of the damage")]
        open.set_readonly(false);
        files::set_permissions(&link, open).unwrap();
        files::write(&link, bytes).unwrap();
        files::set_permissions(&link, rights).unwrap();
        files::remove_file(&link).unwrap();
    }

    #[test]
    fn changed_bytes_are_found_when_they_are_used_and_remembered_until_they_are_published_anew() {
        let (dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let output = &record.outputs["features"];
        let path = store.blob_path(&output.files[0].blob);
        assert_eq!(store.damage("features", output).unwrap(), None);
        let bytes = files::read(&path).unwrap();
        flip_through_a_link(&path, 1);
        assert_ne!(files::read(&path).unwrap(), bytes, "the link leads to the blob");
        whole(&store, &manifest(1)); // a lookup does not read the bytes …
        let why = "`table.bin` of its output `features` has changed".to_owned();
        assert_eq!(store.damage("features", output).unwrap(), Some(why.clone()), "though it was whole before");
        assert_eq!(store.lookup(&record.key).unwrap(), Lookup::Damaged(why.clone()), "… but now it is known");
        assert!(matches!(Store::open(dir.path()).unwrap().lookup(&record.key).unwrap(), Lookup::Hit(_)));

        publish(&store, &manifest(1), "one", 1.0).unwrap();
        assert_eq!(store.damage("features", output).unwrap(), None);
        assert_eq!(whole(&store, &manifest(1)), record);

        flip_through_a_link(&path, 1);
        let another = Store::open(dir.path()).unwrap();
        let healed = publish(&another, &manifest(1), "two", 1.0).unwrap();
        assert!(!healed.adopted, "a record with a damaged blob is not adopted, though nobody knew of it");
        assert_eq!(whole(&another, &manifest(1)), healed.record);
    }

    #[test]
    fn a_blob_is_read_once_per_process_and_again_if_it_was_written_to() {
        let (dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let output = &record.outputs["features"];
        let path = store.blob_path(&output.files[0].blob);
        let modified = files::metadata(&path).unwrap().modified().unwrap();
        flip_through_a_link(&path, 0);
        // Its time put back shows that the cache of digests is what answers.
        files::File::open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(store.damage("features", output).unwrap(), None);
        assert!(Store::open(dir.path()).unwrap().damage("features", output).unwrap().is_some());
    }

    #[test]
    fn results_that_nobody_checked_are_forgotten_with_what_they_read_and_others_are_kept() {
        let (_dir, store) = new_store();
        let content = publish(&store, &manifest(1), "one", 1.0).unwrap().record.outputs["features"].content;
        let reader = |kind: &str| Manifest::new(kind, 1, &()).unwrap().input("features", content);
        let many = Manifest::new("many", 1, &()).unwrap().input("features", vec![content]);
        let (old, new, other) = (reader("kmeans"), reader("neighbors"), manifest(2));
        for manifest in [&old, &new, &many, &other] {
            publish(&store, manifest, "result", 1.0).unwrap();
        }
        for manifest in [&old, &many, &other] {
            age(&store, &manifest.key());
        }
        let mut expected = vec![old.key(), many.key()];
        expected.sort_unstable();
        assert_eq!(store.forget_readers(&content).unwrap(), expected);
        for gone in [&old, &many] {
            assert_eq!(store.lookup(&gone.key()).unwrap(), Lookup::Miss);
        }
        whole(&store, &new);
        whole(&store, &other);

        age(&store, &new.key());
        files::remove_file(store.manifest_path("neighbors", &new.key()).unwrap()).unwrap();
        assert_eq!(store.forget_readers(&Digest::of(b"any")).unwrap(), [new.key()], "what it read is not known");
    }

    #[test]
    fn work_that_reads_it_or_does_not_say_is_dropped_and_other_work_is_kept() {
        let (_dir, store) = new_store();
        let content = Digest::of(b"damaged");
        let [reader, old, busy, other] =
            [manifest(1).input("features", content), manifest(2), manifest(3), manifest(4).input("features", Digest::of(b"x"))];
        for manifest in [&reader, &old, &busy, &other] {
            files::write(begun(&store, manifest).join("checkpoint"), "x").unwrap();
        }
        for manifest in [&old, &busy] {
            store.age_scratch(&manifest.key());
        }
        let _lock = store.try_lock_stage(&busy.key(), "p/s").unwrap().unwrap();
        assert_eq!(store.forget_readers(&content).unwrap(), []);
        assert_eq!([&reader, &old, &busy, &other].map(|m| store.has_scratch(&m.key())), [false, false, true, true]);
    }
}
