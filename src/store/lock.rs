//! File locks on stages and on the store. The kernel frees them when their holder is killed: no PID files.
//!
//! While a stage runs, its key is locked: a second run that wants the same key waits, says for whom, and adopts the result.
//! Different keys never block each other, nor do readers. Runs share the lock of the store; what deletes holds it exclusively.
//!
//! Where locks hold on one machine only, or not at all, the [leases](super::lease) beside them keep processes apart; everywhere else they
//! say the same as the locks. Should both fail, two processes do the same work, each with checkpoints of its own, and the first result
//! counts.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{Result, StoreError};
use super::key::Key;
use super::layout::Store;
use super::lease::{Lease, Taken};
use super::place::Reach;
use super::process::Process;
use super::scratch::lease_name;
use kinset_base::clock;
use kinset_base::fs::{self, At};

/// How often a waiter looks: often at first, since most waits are short.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(200);
/// And over a network, where each look is some questions to a server.
const LONGEST_AFAR: Duration = Duration::from_secs(1);

/// A lock file that keeps being removed under our eyes is not one.
const ATTEMPTS: usize = 100;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holder {
    pub host: String,
    pub pid: u32,
    /// Since when: seconds since 1970, UTC.
    pub since: f64,
    /// What for: `stl10/cluster`.
    pub stage: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}, for `{}`", self.pid, self.host, self.stage)
    }
}

/// The right to run a key. It ends with the handle, or with the process.
#[derive(Debug)]
pub struct StageLock {
    // Before the lock: who gets that next finds no lease.
    lease: Lease,
    file: File,
}

impl StageLock {
    /// Goes on, if nobody has taken over: another machine does so when nothing was heard of this one for long. Ask before progress is
    /// kept.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; if the lease cannot be read or written.
    pub fn check(&self) -> Result<()> {
        self.lease.check()
    }

    /// True if it was taken over from one that is not known to be gone.
    pub(super) fn holder_may_still_write(&self) -> bool {
        self.lease.from_the_lost
    }
}

impl Drop for StageLock {
    fn drop(&mut self) {
        // The next waiter shall not read our name. The lock itself goes with the file handle.
        let _ = self.file.set_len(0);
    }
}

/// The store, held together with other runs. It ends with the handle, or with the process.
#[derive(Debug)]
pub struct RunLock {
    _lease: Option<Lease>,
    _file: Option<File>,
}

/// The store, held alone. It ends with the handle, or with the process.
#[derive(Debug)]
pub(super) struct ExclusiveLock {
    /// Whether by a lock of the kernel too.
    pub(super) locked: bool,
    _lease: Option<Lease>,
    _file: File,
}

/// What came of trying to lock a file.
enum Tried {
    Locked,
    /// Another has it.
    Held,
    /// The file system knows no locks.
    Unlockable,
}

/// How the names of leases begin: of runs, and of who deletes.
const RUN: &str = "run";
const DELETING: &str = "gc";

impl Store {
    pub(super) fn lock_path(&self, key: &Key) -> PathBuf {
        self.locks().join(format!("{key}.lock"))
    }

    fn store_lock_path(&self) -> PathBuf {
        self.locks().join("store.lock")
    }

    /// Tries to lock a file of the store; where its locks reach nobody, that is not even tried.
    fn try_lock(&self, path: &Path, lock: impl FnOnce() -> std::result::Result<(), TryLockError>) -> Result<Tried> {
        if self.reach() == Reach::Nowhere {
            return Ok(Tried::Unlockable);
        }
        match lock() {
            Ok(()) => Ok(Tried::Locked),
            Err(TryLockError::WouldBlock) => Ok(Tried::Held),
            Err(TryLockError::Error(error)) if has_no_locks(&error) => Ok(Tried::Unlockable),
            Err(TryLockError::Error(error)) => self.writing(Err(error).at("lock", path)),
        }
    }

    /// Holds the store for a run, so that nothing is deleted meanwhile; sweeps `tmp/` if no other run does. While `gc` is
    /// deleting it waits and asks `keep_waiting` at each look; `Ok(None)`: it was told to stop. A store that cannot be written
    /// is held if it can be, and used all the same.
    pub fn lock_shared(&self, mut keep_waiting: impl FnMut() -> bool) -> Result<Option<RunLock>> {
        let path = self.store_lock_path();
        let (file, ours) = match self.writable() {
            Ok(()) => (self.open_lock(&path)?, true),
            // Read-only, disk full: nothing may need to be written at all, and what does will say why it cannot.
            Err(_) => match fs::open(&path) {
                Ok(file) => (file, false),
                Err(_) => return Ok(Some(RunLock { _lease: None, _file: None })),
            },
        };
        if ours {
            match self.try_lock(&path, || file.try_lock())? {
                Tried::Locked => {
                    let removed = self.remove_leftovers(true);
                    file.unlock().at("unlock", &path)?;
                    removed?;
                }
                Tried::Unlockable => self.remove_leftovers(false)?,
                Tried::Held => {}
            }
        }
        let mut pause = SHORTEST;
        let locked = loop {
            match self.try_lock(&path, || file.try_lock_shared())? {
                Tried::Locked => break true,
                Tried::Unlockable => break false,
                Tried::Held if !keep_waiting() => return Ok(None),
                Tried::Held => pause = self.wait(pause),
            }
        };
        let lease = if ours { self.announce(RUN, locked)? } else { None };
        // Both announce themselves before they look for the other, so that one of them sees the other at least.
        while lease.is_some() && self.living_lease(DELETING, None, locked)?.is_some() {
            if !keep_waiting() {
                return Ok(None);
            }
            pause = self.wait(pause);
        }
        Ok(Some(RunLock { _lease: lease, _file: locked.then_some(file) }))
    }

    /// A lease that says to other machines that somebody is here. Nothing if the disk is full: who can do no harm then need not be
    /// announced, and what is written next will say so.
    fn announce(&self, what: &str, locked: bool) -> Result<Option<Lease>> {
        match self.new_lease(what, locked) {
            Err(StoreError::File(error)) if error.is_full() => Ok(None),
            lease => lease.map(Some),
        }
    }

    /// Holds the store alone, to delete.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while a run holds it, here or on another machine.
    pub(super) fn lock_exclusive(&self) -> Result<ExclusiveLock> {
        let busy = |by: Option<Holder>| StoreError::Busy {
            path: self.root().display().to_string(),
            by: by.map(|by| format!("process {} on {}", by.pid, by.host)),
        };
        self.writable()?;
        let path = self.store_lock_path();
        let file = self.open_lock(&path)?;
        // A run that starts holds it alone for the moment of sweeping `tmp/`.
        for _ in 0..20 {
            let locked = match self.try_lock(&path, || file.try_lock())? {
                Tried::Held => {
                    std::thread::sleep(SHORTEST);
                    continue;
                }
                Tried::Locked => true,
                Tried::Unlockable => false,
            };
            let lease = self.announce(DELETING, locked)?;
            for others in [RUN, DELETING] {
                if let Some(by) = self.living_lease(others, lease.as_ref(), locked)? {
                    return Err(busy(by.known));
                }
            }
            return Ok(ExclusiveLock { locked, _lease: lease, _file: file });
        }
        Err(busy(None))
    }

    /// Takes the lock of a key if it is free, and its lease. `stage` says what for: `stl10/cluster`.
    pub fn try_lock_stage(&self, key: &Key, stage: &str) -> Result<Option<StageLock>> {
        self.writable()?;
        let path = self.lock_path(key);
        for _ in 0..ATTEMPTS {
            let mut file = self.open_lock(&path)?;
            let locked = match self.try_lock(&path, || file.try_lock())? {
                Tried::Locked => true,
                Tried::Held => return Ok(None),
                Tried::Unlockable => false,
            };
            // `gc` removes lock files: one that has lost its name guards nothing.
            if still_named(&file, &path)? {
                let Taken::Ours(lease) = self.take_lease(&lease_name(key), stage, locked)? else { return Ok(None) };
                if locked {
                    let Process { host, pid, .. } = self.me.clone();
                    let holder = Holder { host, pid, since: clock::unix_seconds(), stage: stage.to_owned() };
                    self.writing(sign(&mut file, &holder).at("write", &path))?;
                }
                return Ok(Some(StageLock { lease, file }));
            }
        }
        let error = io::Error::other("the lock file keeps being removed");
        Err(StoreError::File(fs::FileError::new("lock", &path, error)))
    }

    /// Waits for the lock of a key. At each look `keep_waiting` hears who holds it (if that is known) and says whether to go on;
    /// `Ok(None)`: it said no. Looks come at most 0.2 s apart, or 1 s on a shared file system.
    pub fn lock_stage(
        &self,
        key: &Key,
        stage: &str,
        mut keep_waiting: impl FnMut(Option<&Holder>) -> bool,
    ) -> Result<Option<StageLock>> {
        let mut pause = SHORTEST;
        loop {
            if let Some(lock) = self.try_lock_stage(key, stage)? {
                return Ok(Some(lock));
            }
            if !keep_waiting(self.holder(key).as_ref()) {
                return Ok(None);
            }
            pause = self.wait(pause);
        }
    }

    fn wait(&self, pause: Duration) -> Duration {
        std::thread::sleep(pause);
        (pause * 2).min(if self.reach() == Reach::Machine { LONGEST } else { LONGEST_AFAR })
    }

    /// Who holds a key, if somebody does and has signed.
    pub fn holder(&self, key: &Key) -> Option<Holder> {
        self.lock_holder(key).or_else(|| self.lease_holder(&lease_name(key)))
    }

    fn lock_holder(&self, key: &Key) -> Option<Holder> {
        let path = self.lock_path(key);
        let file = fs::open(&path).ok()?;
        let mut text = String::new();
        (&file).take(4096).read_to_string(&mut text).ok()?;
        let holder = serde_json::from_str(&text).ok()?;
        // A killed holder leaves its name, but not its lock.
        match self.try_lock(&path, || file.try_lock_shared()) {
            Ok(Tried::Held) => Some(holder),
            _ => None,
        }
    }

    fn open_lock(&self, path: &Path) -> Result<File> {
        self.keep_for_file(path)?;
        self.writing(open_lock(path))
    }

    pub(super) fn remove_idle_locks(&self) -> Result<()> {
        for (name, path) in super::disk::entries(&self.locks())? {
            let Some(Ok(_)) = name.strip_suffix(".lock").map(str::parse::<Key>) else { continue };
            let file = self.open_lock(&path)?;
            if file.try_lock().is_ok() {
                self.writing(fs::remove(&path))?;
            }
        }
        Ok(())
    }
}

fn open_lock(path: &Path) -> fs::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).at("open", path)
}

fn sign(file: &mut File, holder: &Holder) -> io::Result<()> {
    let text = serde_json::to_vec(holder)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)
}

/// True if the file system does not know locks at all.
pub(super) fn has_no_locks(error: &io::Error) -> bool {
    #[cfg(unix)]
    if error.raw_os_error() == Some(rustix::io::Errno::NOLCK.raw_os_error()) {
        return true;
    }
    error.kind() == io::ErrorKind::Unsupported
}

fn still_named(file: &File, path: &Path) -> Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let ours = file.metadata().at("look at", path)?;
        Ok(fs::metadata(path)?.is_some_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        Ok(fs::exists(path))
    }
}

/// The name of this machine.
pub fn host() -> String {
    Process::this().host.clone()
}

#[cfg(test)]
mod tests {
    use std::fs as files;
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::record::tests::{manifest, new_store};
    use kinset_base::fault::{Exit, Fault};

    const PLACE: &str = "KINSET_TEST_LOCK_PLACE";

    #[test]
    #[ignore = "the other process of the tests below"]
    fn hold_until_killed() {
        let Some(place) = std::env::var_os(PLACE) else { return };
        let store = Store::open(Path::new(&place)).unwrap();
        let _run = store.lock_shared(|| true).unwrap().unwrap();
        let _lock = store.try_lock_stage(&manifest(1).key(), "digits/cluster").unwrap().unwrap();
        fs::write_atomic(&Path::new(&place).join("ready"), b"").unwrap();
        std::thread::sleep(Duration::from_mins(1));
    }

    /// This binary, running one of its ignored tests on the store in `dir`.
    fn other_process(dir: &Path, test: &str) -> Child {
        let path = module_path!().split_once("::").unwrap().1;
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{path}::{test}"), "--ignored"])
            .env(PLACE, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn holding_process(dir: &Path) -> Child {
        let mut child = other_process(dir, "hold_until_killed");
        for _ in 0..2000 {
            if dir.join("ready").exists() {
                return child;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("the other process did not come up");
    }

    #[test]
    fn one_at_a_time_holds_a_key_and_others_are_free() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
        let [one, two] = [1, 2].map(|epochs| manifest(epochs).key());
        let lock = a.try_lock_stage(&one, "p/one").unwrap().unwrap();
        assert!(b.try_lock_stage(&one, "p/one").unwrap().is_none());
        assert!(b.try_lock_stage(&two, "p/two").unwrap().is_some());
        let holder = b.holder(&one).unwrap();
        assert_eq!((holder.pid, holder.stage.as_str(), holder.host), (std::process::id(), "p/one", host()));
        drop(lock);
        assert_eq!(b.holder(&one), None);
        assert!(b.try_lock_stage(&one, "p/one").unwrap().is_some());
    }

    #[test]
    fn threads_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let store = Store::open(dir.path()).unwrap();
                    for _ in 0..10 {
                        let lock = store.lock_stage(&manifest(1).key(), "p/s", |_| true).unwrap().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }

    #[test]
    fn a_waiter_hears_for_whom_and_may_give_up() {
        let (_dir, store) = new_store();
        let key = manifest(1).key();
        let _lock = store.try_lock_stage(&key, "p/s").unwrap().unwrap();
        let mut heard = Vec::new();
        let given_up = store
            .lock_stage(&key, "q/s", |holder| {
                heard.push(holder.unwrap().stage.clone());
                heard.len() < 3
            })
            .unwrap();
        assert!(given_up.is_none());
        assert_eq!(heard, ["p/s", "p/s", "p/s"]);
    }

    #[test]
    fn a_killed_process_lets_go_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut child = holding_process(dir.path());
        let store = Store::open(dir.path()).unwrap();
        let key = manifest(1).key();
        assert!(store.try_lock_stage(&key, "p/s").unwrap().is_none());
        let holder = store.holder(&key).unwrap();
        assert_eq!((holder.pid, holder.stage.as_str()), (child.id(), "digits/cluster"));
        let busy = store.lock_exclusive().unwrap_err();
        assert_eq!((busy.code(), busy.exit()), ("store::busy", Exit::Store));
        let draft = store.draft().unwrap();
        assert!(store.lock_shared(|| true).unwrap().is_some(), "runs hold the store together");
        assert!(draft.path().exists(), "the drafts of a run are not removed by another");

        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(store.holder(&key), None);
        assert!(store.try_lock_stage(&key, "p/s").unwrap().is_some());
        store.lock_exclusive().unwrap();
    }

    #[test]
    fn runs_share_the_store_and_the_first_sweeps() {
        let (dir, store) = new_store();
        store.writable().unwrap();
        let left = store.tmp().join("draft-of-nobody");
        files::create_dir(&left).unwrap();
        let first = store.lock_shared(|| true).unwrap().unwrap();
        assert!(!left.exists());
        let draft = store.draft().unwrap();
        let second = Store::open(dir.path()).unwrap().lock_shared(|| true).unwrap().unwrap();
        assert!(draft.path().exists());
        assert!(store.lock_exclusive().is_err());
        drop((first, second));
        let alone = store.lock_exclusive().unwrap();
        assert!(store.lock_shared(|| false).unwrap().is_none());
        drop(alone);
    }

    #[test]
    fn a_lock_file_that_was_removed_guards_nothing() {
        let (_dir, store) = new_store();
        let key = manifest(1).key();
        let held = store.try_lock_stage(&key, "p/s").unwrap().unwrap();
        store.remove_idle_locks().unwrap();
        assert!(store.lock_path(&key).exists(), "a held lock keeps its file");
        drop(held);
        let idle = open_lock(&store.lock_path(&key)).unwrap();
        assert!(still_named(&idle, &store.lock_path(&key)).unwrap());
        store.remove_idle_locks().unwrap();
        assert!(!store.lock_path(&key).exists());
        let lock = store.try_lock_stage(&key, "p/s").unwrap().unwrap();
        assert!(!still_named(&idle, &store.lock_path(&key)).unwrap());
        assert!(still_named(&lock.file, &store.lock_path(&key)).unwrap());
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_or_pipe_in_the_place_of_a_lock_is_no_reason_to_stop() {
        let (_dir, store) = new_store();
        let key = manifest(1).key();
        store.writable().unwrap();
        files::create_dir(store.lock_path(&key)).unwrap();
        assert!(Command::new("mkfifo").arg(store.store_lock_path()).status().unwrap().success());
        assert_eq!(store.holder(&key), None);
        assert!(store.lock_shared(|| true).unwrap().is_some());
        assert!(store.try_lock_stage(&key, "p/s").unwrap().is_some());
        assert!([store.lock_path(&key), store.store_lock_path()].iter().all(|path| path.is_file()));
    }

    #[test]
    fn a_store_that_is_only_read_is_entered_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Store::open_to_read(dir.path()).unwrap().lock_shared(|| true).unwrap().is_some());
        let writer = Store::open(dir.path()).unwrap();
        drop(writer.lock_shared(|| true).unwrap());
        let reader = Store::open_existing(dir.path()).unwrap();
        let held = reader.lock_shared(|| true).unwrap().unwrap();
        assert!(writer.lock_exclusive().is_err());
        drop(held);
        let refusing = Store::open(dir.path()).unwrap();
        refusing.fail.set(|_| Err(io::ErrorKind::StorageFull.into()));
        let held = refusing.lock_shared(|| true).unwrap().unwrap();
        assert!(writer.lock_exclusive().is_err(), "a full disk does not keep a run from holding the store");
        drop(held);
        writer.lock_exclusive().unwrap();
    }
}
