//! Leases: files that say who is at work in the store, for machines that no lock of a kernel connects.
//!
//! Beside the lock of a key its holder has a lease, `leases/<key>.json`, and so has every run (`run-…`) and who deletes (`gc-…`). A
//! lease is made under a name that must be free, which every file system grants to one alone, and renewed from then on. It is over
//! when its holder removes it; at once when whoever asks can see that the holder is gone: by a lock that reaches both, or since both
//! are of one machine; else when it was not renewed for so long as it says itself.
//!
//! Its age is by the clock of the file server, never by one machine's: who renews it makes a file, reads when the server says that was,
//! and writes that time into the lease; who asks does likewise. It is written in place, since what a machine remembers of a name may be
//! old, while the bytes of a file that is opened are those of the server.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk::{changed_at, entries, new_file, rename_new, stat};
use super::error::{Result, StoreError};
use super::layout::Store;
use super::lock::Holder;
use super::place::Reach;
use super::process::{Fate, Process};
use kinset_base::clock;
use kinset_base::fs::{self, At, FileError};

/// For how many seconds a machine that says nothing is not taken for dead.
pub const VARIABLE: &str = "KINSET_LEASE";

/// How long a lease lasts without being renewed.
pub(super) const LASTS: Duration = Duration::from_mins(10);

/// So often a lease is renewed while it lasts once.
const BEATS: u32 = 20;

/// A longer file is none.
const LARGEST: u64 = 1 << 14;

/// All leases are as long, if they can: a machine may remember the length of the one before.
const LONG: usize = 1024;

/// Of what begins a lease, so that the time behind it can be written in place.
const BEFORE_BEAT: &str = "{\"beat\":\"";

/// How the names begin of leases that are being removed.
pub(super) const RETIRED: &str = "gone-";

/// A name that is taken and free in turns is not one.
const ATTEMPTS: usize = 100;

/// What a lease says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Terms {
    /// Seconds since 1970 on the clock of the file server at which the holder last said that it is there. First, and always as wide.
    beat: String,
    /// No two leases have the same.
    name: String,
    /// Seconds without a renewal after which it is over.
    lasts: f64,
    /// How far the lock reaches that the holder has as well.
    locks: Reach,
    process: Process,
    /// Seconds since 1970, UTC, by the holder's clock.
    since: f64,
    /// What for: `stl10/cluster`.
    stage: String,
}

impl Terms {
    pub(super) fn holder(&self) -> Holder {
        let Process { host, pid, .. } = &self.process;
        Holder { host: host.clone(), pid: *pid, since: self.since, stage: self.stage.clone() }
    }

    fn beat(&self) -> f64 {
        self.beat.parse().unwrap_or(0.0)
    }
}

/// Who has a lease.
pub(super) struct Somebody {
    /// Nothing where that cannot be read just now.
    pub(super) known: Option<Holder>,
}

impl Somebody {
    fn words(&self) -> Option<String> {
        self.known.as_ref().map(ToString::to_string)
    }
}

/// What lies in the place of a lease.
enum Seen {
    Nothing,
    Terms(Box<Terms>),
    /// Something else: a machine lost its power while it was written.
    Damaged,
}

/// Where somebody stands who wants a lease.
pub(super) enum Taken {
    Ours(Lease),
    Theirs(Somebody),
}

/// The clock of the file server.
#[derive(Clone, Debug)]
struct ServerClock {
    tmp: PathBuf,
    tag: String,
    /// The file system is of this machine alone, and so is its clock.
    own: bool,
}

impl ServerClock {
    fn now(&self) -> fs::Result<f64> {
        if self.own {
            return Ok(clock::unix_seconds());
        }
        let prefix = format!("new-{}-", self.tag);
        let file = new_file(&self.tmp, &prefix)?;
        let made = file.as_file().metadata().at("look at", file.path())?;
        let since = made.modified().at("look at", file.path())?.duration_since(std::time::UNIX_EPOCH);
        Ok(since.map_or(0.0, |since| since.as_secs_f64()))
    }
}

/// A lease that is held. It ends with the handle; where the process is killed, as the module says.
#[derive(Debug)]
pub(super) struct Lease {
    kept: Kept,
    /// Hung up to end the renewing.
    renewing: Option<(Sender<()>, JoinHandle<()>)>,
    /// It was taken from a holder that may still be there, and write.
    pub(super) from_the_lost: bool,
}

/// What it takes to renew a lease.
#[derive(Clone, Debug)]
struct Kept {
    path: PathBuf,
    name: String,
    clock: ServerClock,
}

impl Kept {
    /// Says that the holder is there. `Some`: it is another's now.
    fn renew(&self) -> fs::Result<Option<Somebody>> {
        let opened = std::fs::OpenOptions::new().read(true).write(true).open(&self.path);
        let mut file = match opened {
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Somebody { known: None })),
            opened => opened.at("open", &self.path)?,
        };
        let mut text = Vec::new();
        (&file).take(LARGEST).read_to_end(&mut text).at("read", &self.path)?;
        match serde_json::from_slice::<Terms>(&text) {
            Ok(terms) if terms.name == self.name => {}
            other => return Ok(Some(Somebody { known: other.ok().map(|terms| terms.holder()) })),
        }
        let beat = written(self.clock.now()?);
        let at = BEFORE_BEAT.len() as u64;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(beat.as_bytes())).at("write", &self.path)?;
        Ok(None)
    }
}

impl Lease {
    /// Goes on, if it is still ours, and renews it.
    ///
    /// # Errors
    /// [`StoreError::Taken`]; if it cannot be read or written.
    pub(super) fn check(&self) -> Result<()> {
        match self.kept.renew()? {
            None => Ok(()),
            Some(by) => Err(StoreError::Taken { by: by.words() }),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some((renewing, thread)) = self.renewing.take() {
            drop(renewing);
            // It catches nothing and returns nothing: a panic of its has been told.
            let _ = thread.join();
        }
        // One that stays is over as that of a dead process is.
        let _ = retire(&self.kept.path, &self.kept.name, &self.kept.clock);
    }
}

/// Removes a lease if it is this one; what has come into its place meanwhile is put back.
fn retire(path: &Path, name: &str, clock: &ServerClock) -> fs::Result<()> {
    let prefix = format!("{RETIRED}{}-", clock.tag);
    let moved = tempfile::Builder::new().prefix(&prefix).make_in(&clock.tmp, |beside| std::fs::rename(path, beside));
    let moved = match moved {
        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        moved => moved.at("remove", path)?,
    };
    let another = |text: Vec<u8>| serde_json::from_slice::<Terms>(&text).is_ok_and(|terms| terms.name != name);
    if fs::read_at_most(moved.path(), LARGEST).is_ok_and(another) {
        // If the name is taken again by now, its holder has lost it, and will notice.
        match rename_new(moved.path(), path) {
            Err(taken) if taken.kind() == std::io::ErrorKind::AlreadyExists => {}
            done => done.at("put back", path)?,
        }
    }
    Ok(())
}

/// Of one width for all times until the year 5138.
fn written(seconds: f64) -> String {
    format!("{seconds:015.3}")
}

impl Store {
    pub(super) fn leases(&self) -> PathBuf {
        self.root().join("leases")
    }

    fn server_clock(&self) -> ServerClock {
        ServerClock { tmp: self.tmp(), tag: self.me.tag(), own: self.reach() == Reach::Machine }
    }

    /// Seconds since 1970 on the clock of the file server.
    pub(super) fn server_time(&self) -> fs::Result<f64> {
        self.server_clock().now()
    }

    /// Takes a lease of this name if it is free, or was that of a holder that is gone. `locked`: the lock beside it is held.
    pub(super) fn take_lease(&self, name: &str, stage: &str, locked: bool) -> Result<Taken> {
        let path = self.leases().join(name);
        let mut from_the_lost = false;
        for _ in 0..ATTEMPTS {
            match self.read_lease(&path)? {
                Seen::Nothing => {
                    if let Some(kept) = self.make_lease(&path, stage, locked)? {
                        return self.keep_lease(kept, from_the_lost).map(Taken::Ours);
                    }
                    if self.is_unseen(&path)? {
                        return Ok(Taken::Theirs(Somebody { known: None }));
                    }
                }
                Seen::Terms(theirs) => match self.is_over(&theirs, locked)? {
                    Over::No => return Ok(Taken::Theirs(Somebody { known: Some(theirs.holder()) })),
                    how => {
                        from_the_lost |= matches!(how, Over::Lost);
                        self.writing(retire(&path, &theirs.name, &self.server_clock()))?;
                    }
                },
                Seen::Damaged if self.is_damaged_over(&path, locked)? => {
                    from_the_lost = true;
                    self.remove_file(&path)?;
                }
                Seen::Damaged => return Ok(Taken::Theirs(Somebody { known: None })),
            }
        }
        let error = std::io::Error::other("the lease keeps being replaced");
        Err(StoreError::File(FileError::new("take", &path, error)))
    }

    /// A lease under a name of its own: that of a run (`run`), or of who deletes (`gc`).
    pub(super) fn new_lease(&self, what: &str, locked: bool) -> Result<Lease> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("{what}-{}-{}.json", self.me.tag(), NUMBER.fetch_add(1, Ordering::Relaxed));
        match self.take_lease(&name, what, locked)? {
            Taken::Ours(lease) => Ok(lease),
            Taken::Theirs(by) => Err(StoreError::Taken { by: by.words() }),
        }
    }

    /// `None`: somebody else was faster.
    fn make_lease(&self, path: &Path, stage: &str, locked: bool) -> Result<Option<Kept>> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let clock = self.server_clock();
        let terms = Terms {
            beat: written(self.writing(clock.now())?),
            name: format!("{}-{}", self.me.tag(), NUMBER.fetch_add(1, Ordering::Relaxed)),
            lasts: self.lease_lasts.as_secs_f64(),
            locks: if locked { self.reach() } else { Reach::Nowhere },
            process: self.me.clone(),
            since: clock::unix_seconds(),
            stage: stage.to_owned(),
        };
        let mut text = serde_json::to_vec(&terms).map_err(|source| StoreError::Encode { what: "a lease", source })?;
        text.resize(text.len().max(LONG - 1), b' ');
        text.push(b'\n');
        // Not flushed: who loses power is gone.
        let mut file = self.writing(new_file(&clock.tmp, &format!("new-{}-", clock.tag)))?;
        self.writing(file.as_file_mut().write_all(&text).at("write", path))?;
        // Closed, so that other machines can read it as soon as it has its name.
        let file = file.into_temp_path();
        let kept = Kept { path: path.to_owned(), name: terms.name, clock };
        match rename_new(&file, path) {
            Ok(()) => Ok(Some(kept)),
            // Over a network the answer may have been lost, and the question asked twice.
            Err(taken) if taken.kind() == std::io::ErrorKind::AlreadyExists => match self.read_lease(path)? {
                Seen::Terms(found) if found.name == kept.name => Ok(Some(kept)),
                _ => Ok(None),
            },
            Err(error) => self.writing(Err(error).at("publish", path)),
        }
    }

    /// Renews a lease from now on.
    fn keep_lease(&self, kept: Kept, from_the_lost: bool) -> Result<Lease> {
        let (hang_up, ended) = mpsc::channel::<()>();
        let (beats, pause) = (kept.clone(), self.lease_lasts / BEATS);
        let renew = move || {
            while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // A server that does not answer now may do so next time, and who goes on checks first.
                if let Ok(Some(_)) = beats.renew() {
                    return;
                }
            }
        };
        match std::thread::Builder::new().name("lease".into()).spawn(renew) {
            Ok(thread) => Ok(Lease { kept, renewing: Some((hang_up, thread)), from_the_lost }),
            Err(error) => {
                self.writing(retire(&kept.path, &kept.name, &kept.clock))?;
                Err(error).at("start a thread to renew", &kept.path).map_err(StoreError::File)
            }
        }
    }

    fn read_lease(&self, path: &Path) -> Result<Seen> {
        match fs::read_at_most(path, LARGEST) {
            Ok(text) => Ok(serde_json::from_slice(&text).map_or(Seen::Damaged, |terms| Seen::Terms(Box::new(terms)))),
            Err(error) if error.is_missing() && fs::dangling(path).is_none() => Ok(Seen::Nothing),
            Err(error) if error.is_of_machine() || error.source.kind() == std::io::ErrorKind::PermissionDenied => {
                self.writing(Err(error))
            }
            Err(_) => Ok(Seen::Damaged),
        }
    }

    /// True if a lease is there, but this machine remembers that it was not.
    fn is_unseen(&self, path: &Path) -> Result<bool> {
        let is_listed = |found: Vec<(String, PathBuf)>| found.into_iter().any(|(_, listed)| listed == path);
        Ok(self.reach() != Reach::Machine
            && is_listed(entries(&self.leases())?)
            && matches!(self.read_lease(path)?, Seen::Nothing)
            && is_listed(entries(&self.leases())?))
    }

    /// Whether the holder of a lease is gone, to one who holds the lock beside it (`locked`) or not.
    fn is_over(&self, terms: &Terms, locked: bool) -> Result<Over> {
        let both = |reach| (self.reach(), terms.locks) == (reach, reach);
        if (locked && both(Reach::Machine)) || terms.process.fate(&self.me) == Fate::Gone {
            return Ok(Over::Gone);
        }
        // A server may also have taken the lock from a machine that it lost sight of.
        let silent = || Ok::<_, StoreError>(self.writing(self.server_clock().now())? - terms.beat() > terms.lasts);
        Ok(if (locked && both(Reach::Cluster)) || silent()? { Over::Lost } else { Over::No })
    }

    fn is_damaged_over(&self, path: &Path, locked: bool) -> Result<bool> {
        if locked && matches!(self.reach(), Reach::Machine | Reach::Cluster) {
            return Ok(true);
        }
        let Some(found) = stat(path)? else { return Ok(true) };
        Ok(self.writing(self.server_clock().now())? - changed_at(&found) > self.lease_lasts.as_secs_f64())
    }

    /// Who holds the lease of this name, if somebody does that is not known to be gone.
    pub(super) fn lease_holder(&self, name: &str) -> Option<Holder> {
        match self.read_lease(&self.leases().join(name)) {
            Ok(Seen::Terms(terms)) if terms.process.fate(&self.me) != Fate::Gone => Some(terms.holder()),
            _ => None,
        }
    }

    /// True if another process holds the lease of this name.
    pub(super) fn is_others(&self, name: &str) -> Result<bool> {
        Ok(match self.read_lease(&self.leases().join(name))? {
            Seen::Terms(terms) => terms.process != self.me && matches!(self.is_over(&terms, false)?, Over::No),
            Seen::Nothing | Seen::Damaged => false,
        })
    }

    /// The first lease beside one's own that is not over, of those whose name begins so. `locked`: no process that this machine's locks
    /// reach has one.
    pub(super) fn living_lease(&self, prefix: &str, own: Option<&Lease>, locked: bool) -> Result<Option<Somebody>> {
        for (name, path) in entries(&self.leases())? {
            if !name.starts_with(prefix) || own.is_some_and(|own| own.kept.path == path) {
                continue;
            }
            match self.read_lease(&path)? {
                Seen::Terms(terms) if matches!(self.is_over(&terms, locked)?, Over::No) => {
                    return Ok(Some(Somebody { known: Some(terms.holder()) }));
                }
                Seen::Damaged if !self.is_damaged_over(&path, locked)? => return Ok(Some(Somebody { known: None })),
                Seen::Nothing if self.is_unseen(&path)? => return Ok(Some(Somebody { known: None })),
                Seen::Nothing | Seen::Terms(_) | Seen::Damaged => {}
            }
        }
        Ok(None)
    }

    /// Removes the leases of the dead. `locked`: the store is locked exclusively.
    pub(super) fn remove_leases_of_the_dead(&self, locked: bool) -> Result<()> {
        for (_, path) in entries(&self.leases())? {
            match self.read_lease(&path)? {
                Seen::Terms(terms) if !matches!(self.is_over(&terms, locked)?, Over::No) && terms.process != self.me => {
                    self.writing(retire(&path, &terms.name, &self.server_clock()))?;
                }
                Seen::Damaged if self.is_damaged_over(&path, locked)? => self.remove_file(&path)?,
                Seen::Nothing | Seen::Terms(_) | Seen::Damaged => {}
            }
        }
        Ok(())
    }
}

/// Whether a lease is over.
enum Over {
    No,
    /// Its holder is gone.
    Gone,
    /// Its holder said nothing for too long, or has lost its lock.
    Lost,
}
