//! A cache of raw files' digests, so that an unchanged data set costs one look per file and not one read.
//!
//! An entry is trusted if file system, inode, size and both times (to the nanosecond) are the same. A file that was touched less than
//! two seconds before it was read is not remembered: it could change again within the clock's step and look the same. Lines
//! that cannot be read are skipped, and the file may be deleted at any time.
//!
//! Each machine appends to a file of its own, since over a network two that append to one write over each other, and reads those of all:
//! what lies on a file system that they share was read for all of them.

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read as _, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::disk::{changed_at, entries};
use super::error::{Result, StoreError};
use super::layout::Store;
use super::place::volume;
use kinset_base::clock;
use kinset_base::fs::{self, Identity};
use kinset_base::raw_file::RawFile;

/// How the names of the files begin.
const FILES: &str = "digests-";

/// Entries kept when the file is rewritten.
const MOST: usize = 1 << 20;

/// A larger file is not read (about 2 million entries).
const LARGEST: u64 = 256 << 20;

/// Attempts to read a file that changes under our eyes.
const ATTEMPTS: usize = 3;

/// What tells that a file is the one we know, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The file system's number, by [`volume`].
    volume: u64,
    inode: u64,
    size: u64,
    modified: i64,
    changed: i64,
}

impl Stamp {
    /// The stamp of a file; `None` where the system has no inodes. The executor compares stamps before and after a stage: a
    /// result whose raw inputs moved meanwhile is not published.
    pub fn of(path: &Path) -> Result<Option<Self>> {
        Ok(Self::from(&stat(path)?))
    }

    fn from(found: &Metadata) -> Option<Self> {
        Identity::of(found).map(|identity| Self::new(identity, found.len()))
    }

    fn new(identity: Identity, size: u64) -> Self {
        let Identity { device, inode, modified, changed } = identity;
        Self { volume: volume(device), inode, size, modified, changed }
    }
}

/// One line of the file: file system, inode, size, modified, changed (nanoseconds since 1970), digest.
#[derive(Serialize, Deserialize)]
struct Line(u64, u64, u64, i64, i64, Digest);

impl Line {
    fn new(stamp: &Stamp, digest: Digest) -> Self {
        Self(stamp.volume, stamp.inode, stamp.size, stamp.modified, stamp.changed, digest)
    }

    fn split(self) -> (Stamp, Digest) {
        let Self(volume, inode, size, modified, changed, digest) = self;
        (Stamp { volume, inode, size, modified, changed }, digest)
    }
}

/// Digests by inode. A later line about the same inode replaces an earlier one.
#[derive(Debug, Default)]
pub(super) struct DigestCache {
    known: BTreeMap<(u64, u64), (Stamp, Digest)>,
}

impl DigestCache {
    /// Reads the file; the number of its lines says whether it is time to rewrite it.
    fn load(path: &Path) -> (Self, usize) {
        let mut cache = Self::default();
        let lines = cache.read(path);
        (cache, lines)
    }

    /// Adds what a file says; how many lines it has.
    fn read(&mut self, path: &Path) -> usize {
        let bytes = fs::read_at_most(path, LARGEST).unwrap_or_default();
        let mut lines = 0;
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            lines += 1;
            if let Ok(line) = serde_json::from_slice::<Line>(line) {
                let (stamp, digest) = line.split();
                self.put(stamp, digest);
            }
        }
        lines
    }

    fn get(&self, stamp: &Stamp) -> Option<Digest> {
        let (known, digest) = self.known.get(&(stamp.volume, stamp.inode))?;
        (known == stamp).then_some(*digest)
    }

    fn put(&mut self, stamp: Stamp, digest: Digest) {
        self.known.insert((stamp.volume, stamp.inode), (stamp, digest));
    }
}

impl Store {
    fn digest_cache_path(&self) -> PathBuf {
        self.root().join(format!("{FILES}{}.jsonl", self.me.machine_tag()))
    }

    /// Those that other machines have written.
    fn digests_of_others(&self) -> Vec<PathBuf> {
        let own = self.digest_cache_path();
        let found = entries(self.root()).unwrap_or_default();
        found.into_iter().filter(|(name, path)| name.starts_with(FILES) && *path != own).map(|(_, path)| path).collect()
    }

    fn cache(&self) -> &Mutex<DigestCache> {
        self.cache.get_or_init(|| {
            let path = self.digest_cache_path();
            let (own, lines) = DigestCache::load(&path);
            if lines > 1000 + 2 * own.known.len() || lines > 2 * MOST {
                self.compact(&path, &own);
            }
            let mut all = DigestCache::default();
            for path in self.digests_of_others() {
                all.read(&path);
            }
            all.known.extend(own.known);
            Mutex::new(all)
        })
    }

    /// The digests of many raw files and what they looked like then, in their order; from the cache if a file is as it was, else read,
    /// in parallel.
    ///
    /// # Errors
    /// The first (in their order) that cannot be read or changes while it is.
    pub fn digest_files(&self, files: &[RawFile]) -> Result<Vec<(Digest, Option<Stamp>)>> {
        let cache = self.cache();
        let known = |stamp| cache.lock().unwrap_or_else(PoisonError::into_inner).get(&stamp);
        let found: Vec<Result<Digested>> = files
            .par_iter()
            .map(|file| {
                let look = match file.identity {
                    Some(identity) => Look { stamp: Some(Stamp::new(identity, file.bytes)), size: file.bytes, modified: None },
                    None => Look::at(&file.path)?,
                };
                match look.stamp.and_then(known) {
                    Some(digest) => Ok(Digested { digest, stamp: look.stamp, remember: false }),
                    None => self.read_steady(&file.path, look),
                }
            })
            .collect();
        let mut digests = Vec::with_capacity(files.len());
        let mut fresh = Vec::new();
        for result in found {
            let Digested { digest, stamp, remember } = result?;
            digests.push((digest, stamp));
            fresh.extend(stamp.filter(|_| remember).map(|stamp| (stamp, digest)));
        }
        if !fresh.is_empty() {
            let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
            for (stamp, digest) in &fresh {
                cache.put(*stamp, *digest);
            }
            self.remember(&fresh);
        }
        Ok(digests)
    }

    /// Reads a file until it stays the same from before, when it was looked at, to after.
    fn read_steady(&self, path: &Path, mut before: Look) -> Result<Digested> {
        for _ in 0..ATTEMPTS {
            let began = clock::unix_seconds();
            let mut file = fs::open_again(path).map_err(StoreError::Input)?;
            // There are file systems that call everything empty.
            let length = if before.size == 0 { u64::MAX } else { before.size };
            let digest = Digest::of_open(&mut file, length, path).map_err(StoreError::Input)?;
            // Of what was opened: another file of this name is another inode, and no longer what was looked at before.
            let after = fs::At::at(file.metadata(), "look at", path).map_err(StoreError::Input)?;
            if before.is_of(&after) {
                let quiet = began - changed_at(&after) >= self.quiet;
                return Ok(Digested { digest, stamp: Stamp::from(&after), remember: quiet });
            }
            before = Look::at(path)?;
        }
        Err(StoreError::Unsteady { path: path.display().to_string() })
    }

    /// Appends to the file. Failing is fine: it is only a cache, and a store that cannot be written can be read.
    fn remember(&self, fresh: &[(Stamp, Digest)]) {
        let path = self.digest_cache_path();
        if self.writable().is_ok() && self.keep_for_file(&path).is_ok() {
            let _ = append(&path, &lines(fresh.iter()));
        }
    }

    /// Rewrites the file without what was superseded. A line that another process appends meanwhile is lost, and costs it one
    /// more read.
    fn compact(&self, path: &Path, cache: &DigestCache) {
        let superfluous = cache.known.len().saturating_sub(MOST);
        // What changed longest ago goes first.
        let mut kept: Vec<&(Stamp, Digest)> = cache.known.values().collect();
        kept.sort_by_key(|(stamp, _)| (stamp.changed, stamp.volume, stamp.inode));
        if self.writable().is_ok() {
            let _ = self.replace(path, &lines(kept.into_iter().skip(superfluous)));
        }
    }
}

fn lines<'a>(entries: impl Iterator<Item = &'a (Stamp, Digest)>) -> Vec<u8> {
    let mut text = Vec::new();
    for (stamp, digest) in entries {
        if let Ok(line) = serde_json::to_vec(&Line::new(stamp, *digest)) {
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
    }
    text
}

/// Appends whole lines, alone: other processes wait, and a line that a kill cut short is ended first.
fn append(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    // Where there are no locks, one write in append mode is the next best thing.
    let _ = file.lock();
    let torn = ends_torn(&mut file)?;
    let mut whole = Vec::with_capacity(text.len() + 1);
    if torn {
        whole.push(b'\n');
    }
    whole.extend_from_slice(text);
    file.write_all(&whole)
}

fn ends_torn(file: &mut File) -> std::io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

/// What a file looked like before it was read.
struct Look {
    stamp: Option<Stamp>,
    size: u64,
    /// Asked where there is no stamp.
    modified: Option<SystemTime>,
}

impl Look {
    fn at(path: &Path) -> Result<Self> {
        let found = stat(path)?;
        fs::must_be_file(path, &found).map_err(StoreError::Input)?;
        Ok(Self { stamp: Stamp::from(&found), size: found.len(), modified: found.modified().ok() })
    }

    /// True if what was opened then is what was looked at, and has not changed.
    fn is_of(&self, opened: &Metadata) -> bool {
        match self.stamp {
            Some(stamp) => Stamp::from(opened) == Some(stamp),
            None => opened.is_file() && (self.size, self.modified) == (opened.len(), opened.modified().ok()),
        }
    }
}

/// A raw file that was looked at, and read if the cache did not know it.
struct Digested {
    digest: Digest,
    stamp: Option<Stamp>,
    /// It was read, and may be remembered.
    remember: bool,
}

fn stat(path: &Path) -> Result<Metadata> {
    fs::At::at(std::fs::metadata(path), "look at", path).map_err(StoreError::Input)
}

#[cfg(test)]
#[cfg(unix)]
pub(crate) mod tests {
    use std::fs as files;

    use super::*;
    use crate::record::tests::new_store;
    use kinset_base::fault::{Exit, Fault};

    /// Raw files that hold their names.
    fn written(dir: &Path, names: &[&str]) -> Vec<PathBuf> {
        names.iter().inspect(|name| files::write(dir.join(name), name).unwrap()).map(|name| dir.join(name)).collect()
    }

    fn raw(path: &Path) -> RawFile {
        let unknown = RawFile { name: "raw".into(), path: path.to_owned(), bytes: 0, identity: None, quiet: false };
        RawFile::find("raw", path.to_owned()).unwrap().unwrap_or(unknown)
    }

    pub(crate) fn digest(store: &Store, path: &Path) -> Digest {
        store.digest_files(&[raw(path)]).unwrap()[0].0
    }

    /// A store that takes every file for one that has been left alone for long enough.
    fn trusting(dir: &Path) -> Store {
        let mut store = Store::open(&dir.join("artifacts")).unwrap();
        store.quiet = 0.0;
        store
    }

    fn digests(store: &Store, paths: &[PathBuf]) -> Vec<Digest> {
        paths.iter().map(|path| digest(store, path)).collect()
    }

    fn cached_lines(store: &Store) -> usize {
        files::read_to_string(store.digest_cache_path()).map_or(0, |text| text.lines().count())
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let paths = written(dir.path(), &["a", "b"]);
        let store = trusting(dir.path());
        assert_eq!(digests(&store, &paths), [Digest::of(b"a"), Digest::of(b"b")]);
        assert_eq!(cached_lines(&store), 2);
        // A forged entry shows that the cache is what answers.
        let forged =
            files::read_to_string(store.digest_cache_path()).unwrap().replace(&Digest::of(b"a").hex(), &Digest::of(b"z").hex());
        files::write(store.digest_cache_path(), forged).unwrap();
        let again = trusting(dir.path());
        assert_eq!(digests(&again, &paths), [Digest::of(b"z"), Digest::of(b"b")]);
        assert_eq!(cached_lines(&again), 2, "a warm run writes nothing");
        // Same size, same mtime: the change time gives it away.
        let mtime = files::metadata(&paths[0]).unwrap().modified().unwrap();
        files::write(&paths[0], "c").unwrap();
        File::options().write(true).open(&paths[0]).unwrap().set_modified(mtime).unwrap();
        assert_eq!(digest(&again, &paths[0]), Digest::of(b"c"));
    }

    #[test]
    fn a_file_that_was_just_touched_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        files::write(&path, "a").unwrap();
        let store = Store::open(&dir.path().join("artifacts")).unwrap();
        assert_eq!(digest(&store, &path), Digest::of(b"a"));
        assert_eq!(cached_lines(&store), 0);
        files::write(&path, "b").unwrap();
        assert_eq!(digest(&store, &path), Digest::of(b"b"));
    }

    #[test]
    fn nonsense_and_torn_lines_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let paths = written(dir.path(), &["a", "b"]);
        let store = trusting(dir.path());
        digest(&store, &paths[0]);
        let mut text = files::read(store.digest_cache_path()).unwrap();
        text.splice(0..0, b"nonsense\n{}\n\xff\xfe\n[1,2]\n".iter().copied());
        text.extend_from_slice(b"[1,2,3");
        files::write(store.digest_cache_path(), &text).unwrap();
        let again = trusting(dir.path());
        digests(&again, &paths);
        let (cache, lines) = DigestCache::load(&store.digest_cache_path());
        assert_eq!((cache.known.len(), lines), (2, 7), "the torn line was ended before the new one");
    }

    #[test]
    fn a_pipe_or_folder_in_its_place_makes_nobody_wait_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let paths = written(dir.path(), &["a", "b"]);
        digest(&trusting(dir.path()), &paths[1]);
        let place = trusting(dir.path()).digest_cache_path();
        for what in ["pipe", "folder", "full folder"] {
            files::remove_file(&place).unwrap();
            match what {
                "pipe" => assert!(std::process::Command::new("mkfifo").arg(&place).status().unwrap().success()),
                _ => files::create_dir(&place).unwrap(),
            }
            if what == "full folder" {
                files::write(place.join("mine"), "").unwrap();
            }
            let store = trusting(dir.path());
            assert_eq!(digest(&store, &paths[0]), Digest::of(b"a"));
            assert_eq!(cached_lines(&store), 1, "{what}");
        }
    }

    #[test]
    fn many_may_append_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let path = &path;
                scope.spawn(move || {
                    for i in 0..50 {
                        let stamp = Stamp { volume: thread, inode: i, size: 1, modified: 1, changed: 1 };
                        append(path, &lines([(stamp, Digest::of(b"x"))].iter())).unwrap();
                    }
                });
            }
        });
        let (cache, lines) = DigestCache::load(&path);
        assert_eq!((cache.known.len(), lines), (200, 200));
    }

    #[test]
    fn superseded_lines_are_dropped_when_they_are_many() {
        let (_dir, store) = new_store();
        store.writable().unwrap();
        let entry = |changed: i64| (Stamp { volume: 1, inode: 2, size: 3, modified: 4, changed }, Digest::of(b"x"));
        let many: Vec<_> = (0..1500).map(entry).collect();
        files::write(store.digest_cache_path(), lines(many.iter())).unwrap();
        assert_eq!(store.cache().lock().unwrap().get(&entry(1499).0), Some(Digest::of(b"x")));
        assert_eq!(store.cache().lock().unwrap().get(&entry(7).0), None);
        assert_eq!(cached_lines(&store), 1);
    }

    #[test]
    fn a_store_to_be_read_digests_and_remembers_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let paths = written(dir.path(), &["a"]);
        let artifacts = dir.path().join("artifacts");
        let store = Store::open_to_read(&artifacts).unwrap();
        assert_eq!(digest(&store, &paths[0]), Digest::of(b"a"));
        assert!(!artifacts.exists());
    }

    #[test]
    fn the_first_file_that_is_not_there_is_named() {
        let (dir, store) = new_store();
        let paths = ["x", "y", "z"].map(|name| dir.path().join(name));
        files::write(&paths[0], "x").unwrap();
        let error = store.digest_files(&paths.map(|path| raw(&path))).unwrap_err();
        assert!(error.to_string().contains("y`"), "{error}");
        assert_eq!(error.exit(), Exit::Data);
    }
}
