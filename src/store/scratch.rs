//! Unfinished work: drafts in `tmp/`, deleted once no run uses the store, and checkpoints in `work/<key>/`, which outlive a run
//! and are removed when the key has its record.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tempfile::TempDir;

use super::digest::Digest;
use super::disk::{entries, stat};
use super::error::{Result, StoreError};
use super::key::{Key, Manifest};
use super::layout::Store;
use super::manifests::read_manifest;
use kinset_base::fs::{self, At};

/// The file in a folder of checkpoints that says what they were computed from. Hidden, so that it passes for no checkpoint.
const MANIFEST: &str = ".manifest.json";

impl Store {
    /// A new folder for outputs that are being written, on the file system of the blobs. It is removed with what is left in it
    /// when the handle goes.
    pub fn draft(&self) -> Result<TempDir> {
        self.writable()?;
        let tmp = self.tmp();
        self.writing(tempfile::Builder::new().prefix("draft-").tempdir_in(&tmp).at("create a folder in", &tmp))
    }

    /// Where the checkpoints of a key lie, or would.
    pub fn scratch_path(&self, key: &Key) -> PathBuf {
        self.scratch_folders().join(key.hex())
    }

    /// The checkpoint folder of a manifest's key, made if need be. Hold the key's lock.
    pub fn scratch(&self, manifest: &Manifest) -> Result<PathBuf> {
        let path = self.scratch_path(&manifest.key());
        self.writable()?;
        if self.make_folder(&path)? {
            let text = serde_json::to_vec(manifest).map_err(|source| StoreError::Encode { what: "a manifest", source })?;
            self.writing(fs::write_atomic(&path.join(MANIFEST), &text))?;
        }
        Ok(path)
    }

    /// Keys of unfinished work that reads one of these contents, or of which nobody knows what it reads.
    pub(super) fn work_that_reads(&self, contents: &BTreeSet<Digest>) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for (name, path) in entries(&self.scratch_folders())? {
            let Ok(key) = name.parse() else { continue };
            if read_manifest(&path.join(MANIFEST), &key).map_or(true, |manifest| manifest.reads(contents)) {
                keys.push(key);
            }
        }
        Ok(keys)
    }

    /// True if an earlier run left checkpoints to resume from.
    pub fn has_scratch(&self, key: &Key) -> bool {
        entries(&self.scratch_path(key)).is_ok_and(|found| !found.is_empty())
    }

    pub fn remove_scratch(&self, key: &Key) -> Result<()> {
        self.writing(fs::remove_folder(&self.scratch_path(key)))
    }

    /// Empties `tmp/`, and removes views that were never finished. Only who has locked the store exclusively may call this.
    pub(super) fn remove_leftovers(&self) -> Result<()> {
        let tmp = self.tmp();
        let Ok(found) = std::fs::read_dir(&tmp) else { return Ok(()) };
        // Hidden names too: a probe that was killed.
        for entry in found {
            let path = entry.at("list", &tmp)?.path();
            if stat(&path)?.is_some_and(|found| found.is_dir()) {
                self.writing(fs::remove_folder(&path))?;
            } else {
                self.writing(fs::remove(&path))?;
            }
        }
        self.remove_half_written_checkpoints()?;
        self.remove_unfinished_views()
    }

    /// Removes what a kill left beside checkpoints. A stage that goes on removes it with its folder; one that was killed after its result
    /// was stored does not run again.
    fn remove_half_written_checkpoints(&self) -> Result<()> {
        for (_, folder) in entries(&self.scratch_folders())? {
            let Ok(found) = std::fs::read_dir(&folder) else { continue };
            for entry in found {
                let entry = entry.at("list", &folder)?;
                if entry.file_name().to_string_lossy().starts_with(fs::HALF_WRITTEN) {
                    self.writing(fs::remove(&entry.path()))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs as files;

    use super::*;
    use crate::record::tests::{manifest, new_store};

    impl Store {
        /// Makes work one of a kinset that did not say what it read.
        pub(crate) fn age_scratch(&self, key: &Key) {
            files::remove_file(self.scratch_path(key).join(MANIFEST)).unwrap();
        }
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_of_checkpoints_costs_them_and_nothing_else() {
        let (_dir, store) = new_store();
        let key = manifest(1).key();
        store.writable().unwrap();
        files::write(store.scratch_path(&key), "mine").unwrap();
        assert!(!store.has_scratch(&key));
        let folder = store.scratch(&manifest(1)).unwrap();
        files::write(folder.join("epoch-1"), "x").unwrap();
        files::remove_dir_all(&folder).unwrap();
        files::write(&folder, "mine").unwrap();
        store.remove_scratch(&key).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn checkpoints_stay_until_the_key_is_done_and_belong_to_it_alone() {
        let (dir, store) = new_store();
        let [a, b] = [1, 2].map(|epochs| manifest(epochs).key());
        assert!(!store.has_scratch(&a));
        let folder = store.scratch(&manifest(1)).unwrap();
        assert!(!store.has_scratch(&a), "an empty folder is nothing to go on from");
        files::write(folder.join("epoch-1"), "x").unwrap();
        let again = Store::open(dir.path()).unwrap();
        assert_eq!(again.scratch(&manifest(1)).unwrap(), folder);
        assert!(again.has_scratch(&a) && !again.has_scratch(&b));
        again.remove_scratch(&a).unwrap();
        again.remove_scratch(&b).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn drafts_vanish_with_their_handle_and_what_a_kill_left_is_swept() {
        let (_dir, store) = new_store();
        let draft = store.draft().unwrap();
        let kept = store.draft().unwrap().keep();
        files::write(draft.path().join("x"), "x").unwrap();
        let gone = draft.path().to_path_buf();
        drop(draft);
        assert!(!gone.exists() && kept.exists());
        files::write(store.tmp().join(".probe-x"), "").unwrap();
        let work = store.scratch(&manifest(1)).unwrap();
        files::write(work.join("epoch-1"), "x").unwrap();
        files::write(work.join(format!("{}x", fs::HALF_WRITTEN)), "half a checkpoint").unwrap();
        store.remove_leftovers().unwrap();
        assert_eq!(files::read_dir(store.tmp()).unwrap().count(), 0);
        let mut left: Vec<_> = files::read_dir(&work).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort_unstable();
        assert_eq!(left, [MANIFEST, "epoch-1"], "checkpoints stay");
    }
}
