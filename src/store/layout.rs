//! The [`Store`]: its folders, and atomic writes of its small files.
//!
//! Opening reads nothing: a complete re-run must cost milliseconds, and reading must work on a store that cannot be written. The
//! first write creates the folders and checks that files can be published.
//!
//! What lies in the place of a file or folder of the store and is none is no reason to stop: it goes to `aside/`.

use std::ffi::OsStr;
use std::fs as files;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::check::Checked;
use super::digest::Digest;
use super::digest_cache::DigestCache;
use super::disk::{new_file, parent, rename_new, stat, write_tmp};
use super::error::{Result, StoreError};
use super::failpoint::Failpoints;
use super::key::Key;
use super::lease;
use super::place::{self, FileSystem, Reach};
use super::process::Process;
use super::scratch::FORGETS;
use kinset_base::fs::{self, At, FileError};

/// The folder of the store inside the artifacts folder; no pipeline can have this name.
pub(super) const FOLDER: &str = "store";

/// Where things go that lay in the place of a file or folder of the store. Nobody needs them; a person may look.
const ASIDE: &str = "aside";

/// How the names begin of small files that are being written, and of the trial of a store.
pub(super) const NEW: &str = "new-";
pub(super) const PROBE: &str = ".probe-";

/// Things of one name that are kept there.
const MOST_ASIDE: u32 = 1000;

/// The form of the whole store. A newer kinset that cannot let older ones in writes a larger number into the file `format`.
const FORMAT: u32 = 1;

/// A longer file holds no number.
const LONGEST_FORMAT: u64 = 64;

/// Results on disk. Shared between threads by reference; several processes may have the same one open.
pub struct Store {
    artifacts: PathBuf,
    root: PathBuf,
    pub(super) may_write: bool,
    writable: OnceLock<()>,
    pub(super) me: Process,
    /// How far its locks reach.
    pub(super) reach: OnceLock<Reach>,
    pub(super) lease_lasts: Duration,
    /// After so long what another machine left half done is nobody's.
    pub(super) forgets: Duration,
    pub(super) cache: OnceLock<Mutex<DigestCache>>,
    /// Seconds that a raw file must have been left alone for its digest to be remembered.
    pub(super) quiet: f64,
    pub(super) checked: Checked,
    pub(super) fail: Failpoints,
}

impl Store {
    /// The store of an artifacts folder, to read and to write. Neither needs to exist yet.
    ///
    /// # Errors
    /// If there is something at the path that is no folder, or a store that only a newer kinset may use.
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
    /// If there is something at the path that is no folder, or a store that only a newer kinset may use.
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
        // A disk that is not mounted is no empty store.
        for folder in [artifacts, &root, &root.join("blobs"), &root.join("records")] {
            if let Some(error) = fs::dangling(folder) {
                return Err(StoreError::File(FileError::new("open the store", folder, error)));
            }
        }
        let format = root.join("format");
        if let Ok(text) = fs::read_at_most(&format, LONGEST_FORMAT)
            && let Some(found) = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok())
            && found > FORMAT
        {
            return Err(StoreError::newer(&format, found, FORMAT));
        }
        Ok(Self {
            artifacts: artifacts.to_path_buf(),
            root,
            may_write,
            writable: OnceLock::new(),
            me: Process::this().clone(),
            reach: named_reach()?.map_or_else(OnceLock::new, OnceLock::from),
            lease_lasts: named_lease()?.unwrap_or(lease::LASTS),
            forgets: FORGETS,
            cache: OnceLock::new(),
            quiet: fs::QUIET,
            checked: Checked::default(),
            fail: Failpoints::default(),
        })
    }

    /// How far the locks of its file system reach; that of a folder above it while it is not there. Where no table of mounts says so,
    /// it is taken for one of this machine.
    pub fn reach(&self) -> Reach {
        *self.reach.get_or_init(|| {
            let there = self.root.ancestors().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
            let nearest = there.into_iter().find(|folder| folder.is_dir());
            nearest.and_then(FileSystem::of).map_or(Reach::Machine, |system| system.reach)
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
        for folder in [&tmp, &blobs, &self.records(), &self.manifests(), &self.scratch_folders(), &self.locks(), &self.leases()]
        {
            self.make_folder(folder)?;
        }
        self.writing(self.fail.pass("probe").at("write", &tmp))?;
        // Device numbers do not tell bind mounts apart; only a rename does.
        let probe = self.writing(new_file(&tmp, &self.temporary(PROBE)))?;
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
        let file = self.writing(write_tmp(&self.tmp(), &self.temporary(NEW), content))?;
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
        let file = self.writing(write_tmp(&self.tmp(), &self.temporary(NEW), content))?;
        self.writing(self.fail.pass("file written").at("publish", path))?;
        self.keep_for_file(path)?;
        self.writing(file.persist(path).map_err(|e| e.error).at("publish", path))?;
        self.writing(self.fail.pass("file named").at("publish", path))?;
        self.writing(fs::sync_folder(folder))
    }

    /// The folder of a path in the store, made if need be.
    pub(super) fn folder_of<'a>(&self, path: &'a Path) -> Result<&'a Path> {
        self.writable()?;
        let folder = parent(path);
        self.make_folder(folder)?;
        Ok(folder)
    }

    /// Creates a folder inside a folder that exists, lastingly. What is there and is none is set aside. `false`: it was there.
    pub(super) fn make_folder(&self, path: &Path) -> Result<bool> {
        let made = match files::create_dir(path) {
            Err(there) if there.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(false),
            Err(there) if there.kind() == io::ErrorKind::AlreadyExists => {
                self.set_aside(path)?;
                match files::create_dir(path) {
                    Err(there) if there.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    made => made,
                }
            }
            made => made,
        };
        self.writing(made.at("create the folder", path))?;
        self.writing(fs::sync_folder(parent(path)))?;
        Ok(true)
    }

    /// Sets aside what has the name of a file of the store and is none.
    pub(super) fn keep_for_file(&self, path: &Path) -> Result<()> {
        let is_file = fs::metadata(path)?.is_none_or(|found| found.is_file());
        if is_file { Ok(()) } else { self.set_aside(path) }
    }

    /// Removes a file of the store; nothing there is fine too, and what is no file is set aside.
    pub(super) fn remove_file(&self, path: &Path) -> Result<()> {
        self.keep_for_file(path)?;
        self.writing(fs::remove(path))
    }

    /// Frees a place of the store. What may be somebody's, a folder with something in it or a file with bytes, goes to `aside/`;
    /// a pipe, a socket, a link and what is empty are removed.
    pub(super) fn set_aside(&self, path: &Path) -> Result<()> {
        self.set_aside_as(path.file_name().unwrap_or_default(), path)
    }

    /// As [`Store::keep_for_file`] does, for something that belongs under this name.
    pub(super) fn set_aside_as(&self, name: &OsStr, path: &Path) -> Result<()> {
        let Some(found) = stat(path)? else { return Ok(()) };
        if found.is_dir() && files::remove_dir(path).is_ok() {
            return Ok(());
        }
        if !found.is_dir() && (!found.is_file() || found.len() == 0) {
            return self.writing(fs::remove(path));
        }
        let folder = self.root.join(ASIDE);
        self.writing(fs::create_folders(&folder))?;
        for number in 1..=MOST_ASIDE {
            let mut unique = name.to_owned();
            unique.push(format!("-{number}"));
            match rename_new(path, &folder.join(unique)) {
                Err(taken) if matches!(taken.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {}
                Err(gone) if gone.kind() == io::ErrorKind::NotFound && stat(path)?.is_none() => return Ok(()),
                done => return self.writing(done.at("set aside", path)),
            }
        }
        self.writing(Err(io::Error::from(io::ErrorKind::AlreadyExists)).at("set aside", path))
    }
}

/// How far locks reach, if the environment says so.
fn named_reach() -> Result<Option<Reach>> {
    let Some(value) = variable(place::VARIABLE) else { return Ok(None) };
    let known = Reach::NAMES.into_iter().find(|(name, _)| *name == value);
    let expected = "`machine`, `cluster`, `node` or `none`";
    known.map(|(_, reach)| Some(reach)).ok_or(StoreError::Variable { name: place::VARIABLE, value, expected })
}

/// How long leases last, if the environment says so.
fn named_lease() -> Result<Option<Duration>> {
    let Some(value) = variable(lease::VARIABLE) else { return Ok(None) };
    let seconds = value.parse().ok().filter(|seconds| (1.0..=1e6).contains(seconds));
    let expected = "a number of seconds from 1 to 1000000";
    seconds.map(|seconds| Some(Duration::from_secs_f64(seconds))).ok_or(StoreError::Variable {
        name: lease::VARIABLE,
        value,
        expected,
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
}

/// A name that is safe as a file name everywhere: letters, digits, `-`, `_`, `.`, `=`, `@`, `#`; a letter or digit first; 1–200 bytes.
pub(super) fn checked_name<'a>(what: &'static str, name: &'a str) -> Result<&'a str> {
    let fits = |c: char| c.is_alphanumeric() || "-_.=@#".contains(c);
    if name.len() <= 200 && name.starts_with(char::is_alphanumeric) && name.chars().all(fits) {
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
        assert_eq!(made, ["blobs", "leases", "locks", "manifests", "records", "tmp", "work"]);
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

    #[cfg(unix)]
    #[test]
    fn a_link_to_nothing_is_named_and_no_empty_store() {
        for place in ["artifacts", "artifacts/store", "artifacts/store/blobs", "artifacts/store/records"] {
            let dir = tempfile::tempdir().unwrap();
            let (artifacts, link) = (dir.path().join("artifacts"), dir.path().join(place));
            fs::create_folders(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink("/gone/disk", &link).unwrap();
            for opened in [Store::open(&artifacts), Store::open_existing(&artifacts), Store::open_to_read(&artifacts)] {
                let error = opened.err().unwrap();
                let told = kinset_base::fault::chain(&error);
                assert!(told.contains(place) && told.contains("it is a link to `/gone/disk`, which is not there"), "{told}");
                assert_eq!(error.exit(), Exit::Store);
            }
        }
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
    #[cfg(unix)]
    fn what_lies_in_the_place_of_a_folder_or_file_is_set_aside_and_nothing_of_it_lost() {
        let (_dir, store) = new_store();
        fs::create_folders(store.root()).unwrap();
        let mine = [store.blobs(), store.tmp(), store.locks()];
        for path in &mine {
            files::write(path, "mine").unwrap();
        }
        files::write(store.records(), "").unwrap();
        std::os::unix::fs::symlink("nowhere", store.manifests()).unwrap();
        store.writable().unwrap();
        assert!([store.blobs(), store.tmp(), store.locks(), store.records(), store.manifests()].iter().all(|p| p.is_dir()));
        let aside = || -> Vec<_> {
            let found = fs::list(&store.root().join(ASIDE)).unwrap();
            found.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(aside(), ["blobs-1", "locks-1", "tmp-1"]);
        assert_eq!(files::read(store.root().join("aside/tmp-1")).unwrap(), b"mine");

        let path = store.root().join("pins");
        for _ in 0..2 {
            fs::create_folders(&path.join("full")).unwrap();
            store.replace(&path, b"x").unwrap();
            assert_eq!(files::read(&path).unwrap(), b"x");
            fs::remove(&path).unwrap();
        }
        fs::create_folders(&path).unwrap();
        store.replace(&path, b"x").unwrap();
        assert_eq!(aside(), ["blobs-1", "locks-1", "pins-1", "pins-2", "tmp-1"], "an empty folder is nobody's");
    }

    #[test]
    fn a_store_of_a_newer_format_is_refused_and_left_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(FOLDER);
        fs::create_folders(&root).unwrap();
        files::write(root.join("format"), "2\n").unwrap();
        for refused in [Store::open(dir.path()), Store::open_existing(dir.path()), Store::open_to_read(dir.path())] {
            let error = refused.err().unwrap();
            assert_eq!((error.code(), error.exit()), ("store::newer", Exit::Store));
            assert!(error.to_string().ends_with("has format 2; this kinset reads formats up to 1"), "{error}");
        }
        assert_eq!(fs::list(&root).unwrap(), [root.join("format")]);
        files::write(root.join("format"), "1\n").unwrap();
        Store::open(dir.path()).unwrap();
    }

    #[test]
    fn names_stay_inside_their_folder() {
        for good in ["scan", "auto_k", "stl10", "cluster@3", "seed=1", "größe", "a.b"] {
            assert!(checked_name("a stage", good).is_ok(), "{good}");
        }
        let long = "x".repeat(201);
        for bad in ["", ".", "..", ".hidden", "a/b", "a\\b", "a b", "-x", "a\0", &long] {
            assert!(checked_name("a stage", bad).is_err(), "{bad}");
        }
    }
}
