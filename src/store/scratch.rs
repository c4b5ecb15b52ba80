//! Unfinished work: drafts in `tmp/`, and checkpoints in `work/<key>/`, which outlive a run and are removed when the key has its record.
//!
//! What is temporary bears the name of the process that wrote it, and is removed once that is gone; of a process on another machine
//! nobody can know, and a week must do. Checkpoints lie in a folder for each attempt at the key: whoever goes on takes those of the last
//! one over, and one that was taken for dead and is not writes into a folder that nobody reads any more.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::digest::Digest;
use super::disk::{changed_at, entries, stat};
use super::error::{Result, StoreError};
use super::key::{Key, Manifest};
use super::layout::{NEW, PROBE, Store};
use super::lease::RETIRED;
use super::lock::StageLock;
use super::manifests::read_manifest;
use super::peers::PEER;
use super::place::Reach;
use super::process::{Fate, Process};
use super::view::BUILDING;
use kinset_base::clock;
use kinset_base::fs::{self, At};

/// The file in a folder of checkpoints that says what they were computed from. Hidden, so that it passes for no checkpoint.
const MANIFEST: &str = ".manifest.json";

/// The folder of what several processes compute together.
const SHARED: &str = "shared";

const DRAFT: &str = "draft-";

/// How the names begin of folders of checkpoints that are being taken over.
const HEIR: &str = ".heir-";

/// After so long what another machine left half done is nobody's.
pub(super) const FORGETS: Duration = Duration::from_hours(7 * 24);

impl Store {
    /// How the name begins of something temporary of this process.
    pub(super) fn temporary(&self, what: &str) -> String {
        format!("{what}{}-", self.me.tag())
    }

    /// A new folder for outputs that are being written, on the file system of the blobs. It is removed with what is left in it
    /// when the handle goes.
    pub fn draft(&self) -> Result<TempDir> {
        self.writable()?;
        let tmp = self.tmp();
        let prefix = self.temporary(DRAFT);
        self.writing(tempfile::Builder::new().prefix(&prefix).tempdir_in(&tmp).at("create a folder in", &tmp))
    }

    /// Where the checkpoints of a key lie, or would.
    pub fn scratch_path(&self, key: &Key) -> PathBuf {
        self.scratch_folders().join(key.hex())
    }

    /// The folder for the checkpoints of this attempt at a manifest's key, with what the last attempt left.
    pub fn scratch(&self, manifest: &Manifest, lock: &StageLock) -> Result<PathBuf> {
        let top = self.scratch_of(manifest)?;
        let earlier = self.attempts(&manifest.key())?;
        let number = earlier.last().map_or(0, |(number, _)| *number) + 1;
        let path = top.join(format!("{number:06}-{}", self.me.tag()));
        match earlier.last() {
            None => drop(self.make_folder(&path)?),
            Some((_, last)) if lock.holder_may_still_write() => {
                let heir = tempfile::Builder::new().prefix(&self.temporary(HEIR)).tempdir_in(&top);
                let heir = self.writing(heir.at("create a folder in", &top))?.keep();
                self.writing(take_over(last, &heir))?;
                self.writing(fs::rename(&heir, &path))?;
            }
            Some((_, last)) => self.writing(fs::rename(last, &path))?,
        }
        self.writing(fs::sync_folder(&top))?;
        for (_, older) in earlier {
            // One that is still being written to stays until the key is done.
            let _ = fs::remove_folder(&older);
        }
        Ok(path)
    }

    /// The folder of all unfinished work on a manifest's key.
    fn scratch_of(&self, manifest: &Manifest) -> Result<PathBuf> {
        let top = self.scratch_path(&manifest.key());
        self.writable()?;
        if self.make_folder(&top)? || !fs::exists(&top.join(MANIFEST)) {
            let text = serde_json::to_vec(manifest).map_err(|source| StoreError::Encode { what: "a manifest", source })?;
            self.replace(&top.join(MANIFEST), &text)?;
        }
        Ok(top)
    }

    /// The folder for what several processes compute together for a manifest's key. It is of no attempt: none of them holds the key.
    pub fn make_shared(&self, manifest: &Manifest) -> Result<PathBuf> {
        let folder = self.scratch_of(manifest)?.join(SHARED);
        self.make_folder(&folder)?;
        Ok(folder)
    }

    /// That folder, if there is something in it.
    pub fn shared(&self, key: &Key) -> Option<PathBuf> {
        let folder = self.scratch_path(key).join(SHARED);
        entries(&folder).is_ok_and(|found| !found.is_empty()).then_some(folder)
    }

    /// The attempts at a key that left a folder, the last one last.
    fn attempts(&self, key: &Key) -> Result<Vec<(u32, PathBuf)>> {
        let number = |name: &str| attempt(name).map(|(number, _)| number);
        let mut found: Vec<_> =
            entries(&self.scratch_path(key))?.into_iter().filter_map(|(name, path)| Some((number(&name)?, path))).collect();
        found.sort_unstable();
        Ok(found)
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
        let last = self.attempts(key).ok().and_then(|mut found| found.pop());
        last.is_some_and(|(_, last)| entries(&last).is_ok_and(|found| !found.is_empty()))
    }

    /// Removes the checkpoints of a key, unless another process is at it by now: they are its own then.
    pub fn remove_scratch(&self, key: &Key) -> Result<()> {
        if self.is_others(&lease_name(key))? {
            return Ok(());
        }
        self.writing(fs::remove_folder(&self.scratch_path(key)))
    }

    /// Removes from `tmp/` and from the views what processes that are gone left half done, and their leases. `locked`: the store is locked
    /// exclusively.
    pub(super) fn remove_leftovers(&self, locked: bool) -> Result<()> {
        let tmp = self.tmp();
        let Ok(found) = std::fs::read_dir(&tmp) else { return Ok(()) };
        // Hidden names too: a probe that was killed.
        for entry in found {
            let entry = entry.at("list", &tmp)?;
            self.remove_leftover(&entry.file_name(), &entry.path(), locked)?;
        }
        self.remove_half_written_checkpoints(locked)?;
        self.remove_leases_of_the_dead(locked)?;
        self.remove_unfinished_views(locked)
    }

    /// Removes something temporary, if its process is gone.
    pub(super) fn remove_leftover(&self, name: &OsStr, path: &Path, locked: bool) -> Result<()> {
        let name = name.to_string_lossy();
        let process =
            [DRAFT, NEW, PROBE, RETIRED, HEIR, BUILDING, PEER].into_iter().find_map(|what| Process::in_name(&name, what));
        if !self.is_left(process.as_ref(), path, locked)? {
            return Ok(());
        }
        if stat(path)?.is_some_and(|found| found.is_dir()) {
            return self.writing(fs::remove_folder(path));
        }
        self.writing(fs::remove(path))
    }

    /// True if the process is gone that wrote something. What bears no name is an older kinset's.
    fn is_left(&self, process: Option<&Process>, path: &Path, locked: bool) -> Result<bool> {
        let is_own = locked && self.reach() == Reach::Machine;
        match process.map(|process| process.fate(&self.me)) {
            Some(Fate::Running) => return Ok(false),
            Some(Fate::Gone) => return Ok(true),
            // Who holds the store's lock alone knows of all that run under this kernel.
            Some(Fate::Unknown) if is_own && process.is_some_and(|process| process.shares_kernel(&self.me)) => return Ok(true),
            None if is_own => return Ok(true),
            Some(Fate::Unknown) | None => {}
        }
        Ok(stat(path)?.is_some_and(|found| clock::unix_seconds() - changed_at(&found) > self.forgets.as_secs_f64()))
    }

    /// Removes what a kill left beside checkpoints. A stage that goes on removes it with its folder; one that was killed after its result
    /// was stored does not run again.
    fn remove_half_written_checkpoints(&self, locked: bool) -> Result<()> {
        for (_, top) in entries(&self.scratch_folders())? {
            let Ok(found) = std::fs::read_dir(&top) else { continue };
            for entry in found {
                let entry = entry.at("list", &top)?;
                let (name, folder) = (entry.file_name(), entry.path());
                if name.to_string_lossy().starts_with(HEIR) {
                    self.remove_leftover(&name, &folder, locked)?;
                }
                let Some((_, process)) = attempt(&name.to_string_lossy()) else { continue };
                let Ok(found) = std::fs::read_dir(&folder) else { continue };
                for entry in found {
                    let entry = entry.at("list", &folder)?;
                    let is_half = entry.file_name().to_string_lossy().starts_with(fs::HALF_WRITTEN);
                    if is_half && self.is_left(Some(&process), &entry.path(), locked)? {
                        self.writing(fs::remove(&entry.path()))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The name of a key's lease.
pub(super) fn lease_name(key: &Key) -> String {
    format!("{key}.json")
}

/// The number and the process of an attempt, of the name of its folder.
fn attempt(name: &str) -> Option<(u32, Process)> {
    let (number, tag) = name.split_once('-')?;
    Some((number.parse().ok()?, Process::parse(tag)?))
}

/// Gives what lies in a folder a second name in another, or a copy. Files there are replaced and never changed, so that whoever still
/// writes into the first changes nothing in the second.
fn take_over(from: &Path, to: &Path) -> fs::Result<()> {
    for path in fs::list(from)? {
        let Some(name) = path.file_name().filter(|name| !name.to_string_lossy().starts_with(fs::HALF_WRITTEN)) else {
            continue;
        };
        let new = to.join(name);
        if fs::is_real_folder(&path) {
            fs::create_folders(&new)?;
            take_over(&path, &new)?;
            continue;
        }
        match std::fs::hard_link(&path, &new).or_else(|_| std::fs::copy(&path, &new).map(drop)) {
            // It is being replaced just now.
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
            done => done.at("take over", &path)?,
        }
    }
    fs::sync_folder(to)
}

#[cfg(test)]
mod tests {
    use std::fs as files;

    use super::*;
    use crate::record::tests::{begun, manifest, new_store};

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
        let folder = begun(&store, &manifest(1));
        files::write(folder.join("epoch-1"), "x").unwrap();
        files::remove_dir_all(&folder).unwrap();
        files::write(&folder, "mine").unwrap();
        assert!(!store.has_scratch(&key));
        let top = store.scratch_path(&key);
        files::remove_dir_all(&top).unwrap();
        files::write(&top, "mine").unwrap();
        store.remove_scratch(&key).unwrap();
        assert!(!top.exists());
    }

    #[test]
    fn checkpoints_stay_until_the_key_is_done_and_belong_to_it_alone() {
        let (dir, store) = new_store();
        let [a, b] = [1, 2].map(|epochs| manifest(epochs).key());
        assert!(!store.has_scratch(&a));
        let folder = begun(&store, &manifest(1));
        assert!(!store.has_scratch(&a), "an empty folder is nothing to go on from");
        files::write(folder.join("epoch-1"), "x").unwrap();
        let again = Store::open(dir.path()).unwrap();
        assert!(again.has_scratch(&a) && !again.has_scratch(&b));
        let next = begun(&again, &manifest(1));
        assert_eq!(files::read(next.join("epoch-1")).unwrap(), b"x", "the next attempt has what the last one left");
        assert!(next != folder && !folder.exists() && again.has_scratch(&a));
        again.remove_scratch(&a).unwrap();
        again.remove_scratch(&b).unwrap();
        assert!(!next.exists());
    }

    #[test]
    fn what_is_taken_over_from_one_that_may_write_is_not_changed_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        files::create_dir_all(from.join("checkpoint-1")).unwrap();
        files::create_dir(&to).unwrap();
        let mine = Path::new("checkpoint-1/state.json");
        fs::write_atomic(&from.join(mine), b"one").unwrap();
        files::write(from.join(format!("{}x", fs::HALF_WRITTEN)), "half").unwrap();
        take_over(&from, &to).unwrap();
        fs::write_atomic(&from.join(mine), b"two").unwrap();
        files::write(from.join("later"), "x").unwrap();
        assert_eq!(files::read(to.join(mine)).unwrap(), b"one");
        assert_eq!(fs::list(&to).unwrap(), [to.join("checkpoint-1")]);
    }

    #[test]
    fn drafts_vanish_with_their_handle_and_what_the_dead_left_is_swept() {
        let (dir, store) = new_store();
        let draft = store.draft().unwrap();
        let living = store.draft().unwrap();
        files::write(draft.path().join("x"), "x").unwrap();
        let gone = draft.path().to_path_buf();
        drop(draft);
        assert!(!gone.exists());
        for name in [".probe-x", "draft-1lN1nO"] {
            files::write(store.tmp().join(name), "of an older kinset").unwrap();
        }
        let mut dead = vec![store.tmp()];
        if cfg!(target_os = "linux") {
            let tag = Process::gone().tag();
            for name in [format!("{DRAFT}{tag}-x"), format!("{NEW}{tag}-x"), format!("{PROBE}{tag}-x")] {
                files::write(store.tmp().join(name), "x").unwrap();
            }
            files::create_dir_all(dir.path().join(format!("digits/{BUILDING}{tag}-x"))).unwrap();
            dead.push(dir.path().join("digits"));
        }
        let building = dir.path().join(format!("digits/{}x", store.temporary(BUILDING)));
        files::create_dir_all(&building).unwrap();
        store.remove_leftovers(true).unwrap();
        assert!(living.path().exists() && building.exists(), "what is being written stays");
        assert!(dead.iter().all(|folder| files::read_dir(folder).unwrap().count() == 1));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn half_a_checkpoint_goes_when_its_process_is_gone() {
        let (_dir, store) = new_store();
        let work = begun(&store, &manifest(1));
        let dead = store.scratch_path(&manifest(1).key()).join(format!("000002-{}", Process::gone().tag()));
        files::create_dir(&dead).unwrap();
        for folder in [&work, &dead] {
            files::write(folder.join("epoch-1"), "x").unwrap();
            files::write(folder.join(format!("{}x", fs::HALF_WRITTEN)), "half a checkpoint").unwrap();
        }
        store.remove_leftovers(true).unwrap();
        let count = |folder: &Path| files::read_dir(folder).unwrap().count();
        assert_eq!((count(&work), count(&dead)), (2, 1), "checkpoints stay");
    }
}
