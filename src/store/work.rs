//! Where does something lie that is not done yet? Drafts in `tmp/`, which anybody may sweep once no run holds the store;
//! checkpoints in `work/<key>/`, which outlive the run and are removed when the key has its record. Another key never sees them.

use std::path::PathBuf;

use tempfile::TempDir;

use super::disk::{entries, look, make_folder};
use super::error::Result;
use super::key::Key;
use super::open::Store;
use kinset_base::fs::{self, At};

impl Store {
    /// A new folder for outputs that are being written, on the file system of the blobs. It is removed with what is left in it
    /// when the handle goes.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn draft(&self) -> Result<TempDir> {
        self.writable()?;
        let tmp = self.tmp();
        self.writing(tempfile::Builder::new().prefix("draft-").tempdir_in(&tmp).at("create a folder in", &tmp))
    }

    /// Where the checkpoints of a key lie, or would.
    pub fn work_path(&self, key: &Key) -> PathBuf {
        self.work_folders().join(key.hex())
    }

    /// The private folder of a key, made if need be. Hold the key's lock.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn work(&self, key: &Key) -> Result<PathBuf> {
        let path = self.work_path(key);
        self.writable()?;
        self.writing(make_folder(&self.work_folders(), &path))?;
        Ok(path)
    }

    /// True if an earlier run left something to go on from.
    pub fn has_work(&self, key: &Key) -> bool {
        entries(&self.work_path(key)).is_ok_and(|found| !found.is_empty())
    }

    /// Removes the private folder of a key.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn finish_work(&self, key: &Key) -> Result<()> {
        self.writing(fs::remove_folder(&self.work_path(key)))
    }

    /// Empties `tmp/`, and removes views that were never finished. Only who holds the store alone may call this.
    pub(super) fn sweep(&self) -> Result<()> {
        let tmp = self.tmp();
        let Ok(found) = std::fs::read_dir(&tmp) else { return Ok(()) };
        // Hidden names too: a probe that was killed.
        for entry in found {
            let path = entry.at("list", &tmp)?.path();
            if look(&path)?.is_some_and(|found| found.is_dir()) {
                self.writing(fs::remove_folder(&path))?;
            } else {
                self.writing(fs::remove(&path))?;
            }
        }
        self.sweep_views()
    }
}

#[cfg(test)]
mod tests {
    use std::fs as files;

    use super::*;
    use crate::record::tests::manifest;

    #[test]
    fn checkpoints_stay_until_the_key_is_done_and_belong_to_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let [a, b] = [1, 2].map(|epochs| manifest(epochs).key());
        assert!(!store.has_work(&a));
        let folder = store.work(&a).unwrap();
        assert!(!store.has_work(&a), "an empty folder is nothing to go on from");
        files::write(folder.join("epoch-1"), "x").unwrap();
        let again = Store::open(dir.path()).unwrap();
        assert_eq!(again.work(&a).unwrap(), folder);
        assert!(again.has_work(&a) && !again.has_work(&b));
        again.finish_work(&a).unwrap();
        again.finish_work(&b).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn drafts_vanish_with_their_handle_and_what_a_kill_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let draft = store.draft().unwrap();
        let kept = store.draft().unwrap().keep();
        files::write(draft.path().join("x"), "x").unwrap();
        let gone = draft.path().to_path_buf();
        drop(draft);
        assert!(!gone.exists() && kept.exists());
        files::write(store.tmp().join(".probe-x"), "").unwrap();
        store.sweep().unwrap();
        assert_eq!(files::read_dir(store.tmp()).unwrap().count(), 0);
    }
}
