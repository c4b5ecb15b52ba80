//! The [`Store`]: its folders, and atomic writes of its small files.
//!
//! Opening reads nothing: a complete re-run must cost milliseconds, and reading must work on a store that cannot be written. The
//! first write creates the folders and checks that files can be published.

use std::fs as files;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use super::digest::Digest;
use super::digest_cache::{DigestCache, QUIET};
use super::disk::{make_folder, parent, rename_new, write_tmp};
use super::error::{Result, StoreError};
use super::failpoint::Failpoints;
use super::key::Key;
use kinset_base::fs::{self, At, FileError};

/// The folder of the store inside the artifacts folder; no pipeline can have this name.
pub(super) const FOLDER: &str = "store";

/// Results on disk. Shared between threads by reference; several processes may have the same one open.
pub struct Store {
    artifacts: PathBuf,
    root: PathBuf,
    may_write: bool,
    writable: OnceLock<()>,
    pub(super) cache: OnceLock<Mutex<DigestCache>>,
    /// Seconds that a raw file must have been left alone for its digest to be remembered.
    pub(super) quiet: f64,
    pub(super) fail: Failpoints,
}

impl Store {
    /// The store of an artifacts folder, to read and to write. Neither needs to exist yet.
    ///
    /// # Errors
    /// If there is something at the path that is no folder.
    pub fn open(artifacts: &Path) -> Result<Self> {
        Self::at(artifacts, true)
    }

    /// The store of an artifacts folder, to look at: nothing is ever written.
    pub fn open_existing(artifacts: &Path) -> Result<Self> {
        let store = Self::at(artifacts, false)?;
        if !store.exists() {
            return Err(StoreError::Missing { path: store.root.display().to_string() });
        }
        Ok(store)
    }

    /// Like [`Store::open_existing`], but a store that is not there is an empty one: for plans.
    ///
    /// # Errors
    /// If there is something at the path that is no folder.
    pub fn open_to_read(artifacts: &Path) -> Result<Self> {
        Self::at(artifacts, false)
    }

    fn at(artifacts: &Path, may_write: bool) -> Result<Self> {
        let root = artifacts.join(FOLDER);
        for folder in [artifacts, &root] {
            if fs::metadata(folder)?.is_some_and(|found| !found.is_dir()) {
                let error = FileError::new("open the store", folder, io::ErrorKind::NotADirectory.into());
                return Err(StoreError::File(error));
            }
        }
        Ok(Self {
            artifacts: artifacts.to_path_buf(),
            root,
            may_write,
            writable: OnceLock::new(),
            cache: OnceLock::new(),
            quiet: QUIET,
            fail: Failpoints::default(),
        })
    }

    /// True if somebody has written to it before.
    pub fn exists(&self) -> bool {
        self.root.is_dir()
    }

    /// The folder of store and views.
    pub fn artifacts(&self) -> &Path {
        &self.artifacts
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn records(&self) -> PathBuf {
        self.root.join("records")
    }

    pub(super) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(super) fn scratch_folders(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Where the bytes with this digest lie, or would.
    pub fn blob_path(&self, blob: &Digest) -> PathBuf {
        let hex = blob.hex();
        self.blobs().join(&hex[..2]).join(hex)
    }

    pub(super) fn record_path(&self, key: &Key) -> PathBuf {
        let hex = key.hex();
        self.records().join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// Makes the layout and checks, once, that a file can be published.
    pub(super) fn writable(&self) -> Result<()> {
        if self.writable.get().is_some() {
            return Ok(());
        }
        if !self.may_write {
            let error = FileError::new("write", &self.root, io::Error::other("the store was opened read-only"));
            return Err(StoreError::ReadOnly { path: self.root.display().to_string(), source: error });
        }
        self.probe()?;
        // Two threads may both have probed; either's word will do.
        let _ = self.writable.set(());
        Ok(())
    }

    fn probe(&self) -> Result<()> {
        let (tmp, blobs) = (self.tmp(), self.blobs());
        self.writing(fs::create_folders(&self.root))?;
        for folder in [&tmp, &blobs, &self.records(), &self.manifests(), &self.scratch_folders(), &self.locks()] {
            self.writing(make_folder(&self.root, folder))?;
        }
        self.writing(self.fail.pass("probe").at("write", &tmp))?;
        // Device numbers do not tell bind mounts apart; only a rename does.
        let probe = self.writing(tempfile::Builder::new().prefix(".probe-").tempfile_in(&tmp).at("create a file in", &tmp))?;
        let from = probe.path();
        let to = blobs.join(from.file_name().unwrap_or_default());
        match files::rename(from, &to) {
            Ok(()) => self.writing(fs::remove(&to)),
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                Err(StoreError::Split { path: self.root.display().to_string() })
            }
            Err(error) => self.writing(Err(error).at("create a file in", &blobs)),
        }
    }

    /// Gives a failed write its meaning.
    pub(super) fn writing<T>(&self, result: fs::Result<T>) -> Result<T> {
        result.map_err(|error| StoreError::writing(&self.root, error))
    }

    /// Publishes a small file of our own under a name that must be free. `Ok(false)`: it is taken.
    pub(super) fn write_new(&self, path: &Path, content: &[u8]) -> Result<bool> {
        let folder = self.folder_of(path)?;
        let file = self.writing(write_tmp(&self.tmp(), content))?;
        self.writing(self.fail.pass("file written").at("publish", path))?;
        let fresh = match rename_new(file.path(), path) {
            Ok(()) => true,
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return self.writing(Err(error).at("publish", path)),
        };
        self.writing(self.fail.pass("file named").at("publish", path))?;
        self.writing(fs::sync_folder(folder))?;
        Ok(fresh)
    }

    /// Publishes a small file of our own, over an older one if there is one.
    pub(super) fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let folder = self.folder_of(path)?;
        let file = self.writing(write_tmp(&self.tmp(), content))?;
        self.writing(self.fail.pass("file written").at("publish", path))?;
        self.writing(file.persist(path).map_err(|e| e.error).at("publish", path))?;
        self.writing(self.fail.pass("file named").at("publish", path))?;
        self.writing(fs::sync_folder(folder))
    }

    /// The folder of a path in the store, made if need be.
    pub(super) fn folder_of<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        self.writable()?;
        let folder = parent(path);
        self.writing(make_folder(parent(folder), folder))?;
        Ok(folder)
    }
}

/// A name that is safe as a file name everywhere: letters, digits, `-`, `_`, `.`, `=`, `@`; a letter or digit first; 1–100 bytes.
pub(super) fn checked_name<'a>(what: &'static str, name: &'a str) -> Result<&'a str> {
    let fits = |c: char| c.is_alphanumeric() || "-_.=@".contains(c);
    if name.len() <= 100 && name.starts_with(char::is_alphanumeric) && name.chars().all(fits) {
        Ok(name)
    } else {
        Err(StoreError::Name { name: name.to_owned(), what })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::new_store;
    use kinset_base::fault::{Exit, Fault};

    #[test]
    fn opening_writes_nothing_and_the_first_write_makes_the_layout() {
        let dir = tempfile::tempdir().unwrap();
        let artifacts = dir.path().join("artifacts");
        let store = Store::open(&artifacts).unwrap();
        assert!(!artifacts.exists());
        store.writable().unwrap();
        let made: Vec<_> = fs::list(store.root()).unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(made, ["blobs", "locks", "manifests", "records", "tmp", "work"]);
        assert!(fs::list(&store.blobs()).unwrap().is_empty() && fs::list(&store.tmp()).unwrap().is_empty());
    }

    #[test]
    fn a_reader_wants_a_store_and_never_writes() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Store::open_existing(dir.path()).err().unwrap();
        assert_eq!((missing.code(), missing.exit()), ("store::missing", Exit::Store));
        assert!(!Store::open_to_read(dir.path()).unwrap().exists());
        fs::create_folders(&dir.path().join(FOLDER)).unwrap();
        let store = Store::open_existing(dir.path()).unwrap();
        let refused = store.writable().unwrap_err();
        assert_eq!((refused.code(), refused.exit()), ("store::read-only", Exit::Store));
        assert!(fs::list(store.root()).unwrap().is_empty());
    }

    #[test]
    fn a_file_system_that_refuses_is_told_from_one_that_is_full() {
        let (_dir, store) = new_store();
        store.fail.set(|_| Err(io::ErrorKind::ReadOnlyFilesystem.into()));
        assert_eq!(store.writable().unwrap_err().code(), "store::read-only");
        store.fail.set(|_| Err(io::ErrorKind::StorageFull.into()));
        assert_eq!(store.writable().unwrap_err().exit(), Exit::Machine);
        store.fail.set(|_| Ok(()));
        store.writable().unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("artifacts");
        files::write(&path, "").unwrap();
        assert_eq!(Store::open(&path).err().unwrap().exit(), Exit::Store);
    }

    #[test]
    fn names_stay_inside_their_folder() {
        for good in ["scan", "auto_k", "stl10", "cluster@3", "seed=1", "größe", "a.b"] {
            assert!(checked_name("a stage", good).is_ok(), "{good}");
        }
        let long = "x".repeat(101);
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "-x", "a\0", &long] {
            assert!(checked_name("a stage", bad).is_err(), "{bad}");
        }
    }
}
