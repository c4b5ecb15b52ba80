//! A meeting of processes over one store, on several machines: whether one sees what another writes, whether locks hold between them, and how
//! their clocks stand.
//!
//! Each has a folder of its own in `tmp/`. It puts files there that never change, and lists those of the others: a list comes from the
//! server, while a name that was looked for and not there may be remembered for a while. All go from step to step together; what one has
//! found at a step stands in its file of that step.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::digest::Digest;
use super::disk::{entries, rename_new, write_tmp};
use super::error::{Result, StoreError};
use super::layout::Store;
use super::lock::has_no_locks;
use super::place::within;
use super::process::{Fate, Process};
use kinset_base::clock::{self, Stopwatch};
use kinset_base::fs::{self, At};

/// How the names begin of folders of those who meet.
pub(super) const PEER: &str = "peer-";

/// How often others are looked for.
const LOOK: Duration = Duration::from_millis(100);

/// A file of a step is short.
const LARGEST: u64 = 1 << 16;

/// Bytes of the file that appears while it is looked for.
const PATTERN: usize = 1 << 16;

/// A lock that is not answered for so long is none.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// Names in the folders.
const CARD: &str = "card";
const BEAT: &str = "beat-";
const STEP: &str = "step-";
const LOCK: &str = "lock";
const FIRST: &str = "first";
const LATE: &str = "late";

/// How many meet, and how long they wait.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// This process is one of them.
    pub count: usize,
    /// For the others to come.
    pub come: Duration,
    /// For the others at each step, and for a name to be seen.
    pub step: Duration,
}

/// Who one is: a process, and what it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    process: Process,
    pub facts: BTreeMap<String, String>,
}

impl Card {
    pub fn host(&self) -> &str {
        &self.process.host
    }

    pub fn pid(&self) -> u32 {
        self.process.pid
    }
}

/// What became of trying to share a lock that another held alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tried {
    /// It is kept out.
    Held,
    /// It got in.
    Free,
    /// The file system has no locks.
    None,
    /// No answer came.
    Silent,
}

/// What all found together.
#[derive(Clone, Debug)]
pub struct Found {
    pub others: Vec<Card>,
    /// All run under one kernel: nothing was learned of what lies between machines.
    pub one_machine: bool,
    /// What those who do not hold the lock found while it was held, and after it was given back.
    pub held: Vec<Tried>,
    pub freed: Vec<Tried>,
    /// How many were given a name that is given to one alone.
    pub winners: usize,
    /// Seconds until a new file was seen in a list, and by its name, which had been looked for before: at most. Nothing: not in time.
    pub listed: Option<f64>,
    pub named: Option<f64>,
    /// Whether what was read of it is what was written.
    pub same: bool,
    /// Seconds by which the clock of the fastest machine is ahead of that of the slowest.
    pub apart: f64,
}

/// What one has found, as far as it has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Step {
    /// Seconds by which its clock is ahead of the file server's.
    ahead: f64,
    tried: Option<Tried>,
    freed: Option<Tried>,
    won: bool,
    listed: Option<f64>,
    named: Option<f64>,
    same: bool,
}

struct Meeting<'a> {
    store: &'a Store,
    terms: Terms,
    own: TempDir,
    /// The folders of the others, by the names of their processes.
    others: BTreeMap<String, PathBuf>,
    /// Signs of life so far.
    beats: u64,
    step: Step,
}

impl Store {
    /// Meets other processes that do the same over this store at the same time.
    ///
    /// # Errors
    /// [`StoreError::NobodyCame`], [`StoreError::PeerLost`]; if `keep_waiting` says no, [`StoreError::NobodyCame`] too; if the store cannot
    /// be written.
    pub fn meet(&self, facts: BTreeMap<String, String>, terms: Terms, keep_waiting: impl Fn() -> bool) -> Result<Found> {
        self.writable()?;
        let tmp = self.tmp();
        let own = tempfile::Builder::new().prefix(&self.temporary(PEER)).tempdir_in(&tmp).at("create a folder in", &tmp);
        let mut meeting =
            Meeting { store: self, terms, own: self.writing(own)?, others: BTreeMap::new(), beats: 0, step: Step::default() };
        let card = Card { process: self.me.clone(), facts };
        meeting.put(CARD, &card)?;
        meeting.gather(&keep_waiting)?;
        meeting.hold(&card)
    }
}

impl Meeting<'_> {
    /// The name of the own folder: paths to it may differ.
    fn own_name(&self) -> String {
        self.own.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Puts a file into the own folder, whole from the moment it has its name.
    fn put(&self, name: &str, content: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(content).map_err(|source| StoreError::Encode { what: "a file of a meeting", source })?;
        self.put_bytes(self.own.path(), name, &bytes).map(drop)
    }

    /// False if the name is taken.
    fn put_bytes(&self, folder: &Path, name: &str, bytes: &[u8]) -> Result<bool> {
        let path = folder.join(name);
        let file = self.store.writing(write_tmp(self.own.path(), ".new-", bytes))?;
        match rename_new(file.path(), &path) {
            Ok(()) => Ok(true),
            Err(taken) if taken.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => self.store.writing(Err(error).at("publish", &path)),
        }
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, path: &Path) -> Result<T> {
        let bytes = self.store.writing(fs::read_at_most(path, LARGEST))?;
        serde_json::from_slice(&bytes)
            .map_err(|_| StoreError::PeerLost { what: format!("`{}` is not what was written", path.display()) })
    }

    /// Shows that this process is there.
    fn beat(&mut self) -> Result<()> {
        let name = |number: u64| format!("{BEAT}{number:09}");
        self.beats += 1;
        self.put(&name(self.beats), &())?;
        // The last one counts; those before may stay.
        let _ = fs::remove(&self.own.path().join(name(self.beats - 1)));
        Ok(())
    }

    /// Waits until as many are there as are to meet. One is there whose signs of life go on: what a killed one has left says nothing more.
    fn gather(&mut self, keep_waiting: &dyn Fn() -> bool) -> Result<()> {
        let waited = Stopwatch::start();
        let mut first_seen: BTreeMap<String, String> = BTreeMap::new();
        loop {
            self.beat()?;
            let mut came = BTreeMap::new();
            for (name, folder) in entries(&self.store.tmp())? {
                let Some(process) = Process::in_name(&name, PEER) else { continue };
                if name == self.own_name() || process.fate(&self.store.me) == Fate::Gone {
                    continue;
                }
                let names: Vec<String> = entries(&folder)?.into_iter().map(|(name, _)| name).collect();
                let last = names.iter().rev().find(|name| name.starts_with(BEAT));
                let Some(last) = last.filter(|_| names.iter().any(|name| name == CARD)) else { continue };
                if *first_seen.entry(name.clone()).or_insert_with(|| last.clone()) != *last {
                    came.insert(name, folder);
                }
            }
            if came.len() + 1 >= self.terms.count {
                if came.len() + 1 > self.terms.count {
                    return Err(StoreError::TooManyCame { came: came.len() + 1, expected: self.terms.count });
                }
                self.others = came;
                return Ok(());
            }
            if waited.elapsed() > self.terms.come || !keep_waiting() {
                return Err(StoreError::NobodyCame { came: came.len(), expected: self.terms.count - 1 });
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Says that this process has come to a step, waits for all others there, and returns what they have found. `what` is what has been
    /// done by then.
    fn come_to(&mut self, number: usize, what: &str) -> Result<Vec<Step>> {
        let name = format!("{STEP}{number}");
        self.put(&name, &self.step)?;
        let waited = Stopwatch::start();
        let mut found = Vec::with_capacity(self.others.len());
        for folder in self.others.clone().values() {
            while !entries(folder)?.iter().any(|(listed, _)| *listed == name) {
                if waited.elapsed() > self.terms.step {
                    return Err(StoreError::PeerLost { what: format!("it did not say in time that it has {what}") });
                }
                if number == 1 {
                    // Others may still be looking for us.
                    self.beat()?;
                }
                std::thread::sleep(LOOK / 5);
            }
            found.push(self.read(&folder.join(&name))?);
        }
        Ok(found)
    }

    fn hold(mut self, own_card: &Card) -> Result<Found> {
        let cards: Vec<Card> = self.others.values().map(|folder| self.read(&folder.join(CARD))).collect::<Result<_>>()?;
        // The first in the order of names has what the others look at.
        let own_name = self.own_name();
        let leads = self.others.keys().all(|other| own_name < *other);
        let leader = match self.others.iter().next() {
            Some((_, folder)) if !leads => folder.clone(),
            _ => self.own.path().to_owned(),
        };
        let [lock, late] = [LOCK, LATE].map(|name| leader.join(name));

        // 1. The leader holds a lock, and everybody has looked for what is not there yet.
        let held = if leads {
            let file = self.store.writing(File::create(&lock).at("create", &lock))?;
            // Where it cannot be had, the others get it.
            within(LOCK_PATIENCE, move || file.try_lock().map(|()| file)).ok().and_then(std::result::Result::ok)
        } else {
            None
        };
        let _ = std::fs::symlink_metadata(&late);
        self.step.ahead = clock::unix_seconds() - self.store.writing(self.store.server_time())?;
        self.come_to(1, "looked for a file that is not there")?;

        // 2. Everybody else tries the lock, and all want one name.
        self.step.tried = (!leads).then(|| try_to_share(&lock));
        self.step.won = self.put_bytes(&leader, FIRST, b"1")?;
        self.come_to(2, "tried a lock of another")?;

        // 3. The lock is given back, and what was not there appears.
        drop(held);
        let words = leader.file_name().unwrap_or_default().to_string_lossy();
        let pattern: Vec<u8> = Digest::of(words.as_bytes()).hex().bytes().cycle().take(PATTERN).collect();
        let wrote = Stopwatch::start();
        if leads {
            self.put_bytes(&leader, LATE, &pattern)?;
            self.step.same = true;
        } else {
            while self.step.named.is_none() && wrote.elapsed() < self.terms.step {
                if self.step.listed.is_none() && entries(&leader)?.iter().any(|(name, _)| name == LATE) {
                    self.step.listed = Some(wrote.seconds());
                }
                if std::fs::symlink_metadata(&late).is_ok() {
                    self.step.named = Some(wrote.seconds());
                }
                std::thread::sleep(LOOK / 5);
            }
            self.step.same =
                self.step.named.is_some() && fs::read_at_most(&late, 2 * PATTERN as u64).is_ok_and(|read| read == pattern);
            self.step.freed = Some(try_to_share(&lock));
        }
        // Who waits for a name takes as long as it may, and then says so.
        self.terms.step *= 2;
        let steps = self.come_to(3, "seen a file that has appeared")?;

        // 4. All have read what all have found.
        let all: Vec<Step> = steps.into_iter().chain([self.step.clone()]).collect();
        self.put(&format!("{STEP}4"), &self.step)?;
        let waited = Stopwatch::start();
        let last = format!("{STEP}4");
        for folder in self.others.values() {
            // Who has read all of it goes, and its folder with it.
            let reads = |found: Vec<(String, PathBuf)>| !found.is_empty() && !found.iter().any(|(name, _)| *name == last);
            while reads(entries(folder)?) && waited.elapsed() < self.terms.step {
                std::thread::sleep(LOOK / 5);
            }
        }
        let followers: Vec<&Step> = all.iter().filter(|step| step.tried.is_some()).collect();
        let slowest =
            |of: fn(&Step) -> Option<f64>| followers.iter().map(|step| of(step)).reduce(|a, b| Some(a?.max(b?))).flatten();
        let clocks = || all.iter().map(|step| step.ahead);
        Ok(Found {
            one_machine: cards.iter().all(|card| card.process.shares_kernel(&own_card.process)),
            others: cards,
            held: followers.iter().filter_map(|step| step.tried).collect(),
            freed: followers.iter().filter_map(|step| step.freed).collect(),
            winners: all.iter().filter(|step| step.won).count(),
            listed: slowest(|step| step.listed),
            named: slowest(|step| step.named),
            same: all.iter().all(|step| step.same),
            apart: clocks().fold(f64::MIN, f64::max) - clocks().fold(f64::MAX, f64::min),
        })
    }
}

/// Tries to share a lock that another may hold alone.
fn try_to_share(path: &Path) -> Tried {
    let path = path.to_owned();
    let answer = within(LOCK_PATIENCE, move || match File::open(&path) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Tried::Free,
            Err(TryLockError::WouldBlock) => Tried::Held,
            Err(TryLockError::Error(error)) if has_no_locks(&error) => Tried::None,
            Err(TryLockError::Error(_)) => Tried::Silent,
        },
        Err(_) => Tried::Silent,
    });
    answer.unwrap_or(Tried::Silent)
}

#[cfg(test)]
mod tests {
    use super::super::place::Reach;
    use super::*;

    fn terms(count: usize) -> Terms {
        Terms { count, come: Duration::from_secs(20), step: Duration::from_secs(20) }
    }

    fn on(host: &str, dir: &Path) -> Store {
        let mut store = Store::open(dir).unwrap();
        store.me = Process::on(host);
        store.reach = Reach::Nowhere.into();
        store
    }

    fn meet(dir: &Path, hosts: &[&str]) -> Vec<Result<Found>> {
        std::thread::scope(|scope| {
            let come = |host: &&str| {
                let (store, facts) = (on(host, dir), BTreeMap::from([("version".to_owned(), (*host).to_owned())]));
                let count = hosts.len();
                scope.spawn(move || store.meet(facts, terms(count), || true))
            };
            let all: Vec<_> = hosts.iter().map(come).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        })
    }

    #[test]
    fn all_who_meet_find_the_same() {
        for hosts in [&["a", "b"][..], &["a", "b", "c"]] {
            let dir = tempfile::tempdir().unwrap();
            for (found, host) in meet(dir.path(), hosts).into_iter().zip(hosts) {
                let found = found.unwrap();
                let others: Vec<&str> = found.others.iter().map(Card::host).collect();
                assert_eq!(others, hosts.iter().copied().filter(|other| other != host).collect::<Vec<_>>());
                assert_eq!(found.others[0].facts["version"], others[0]);
                let rest = hosts.len() - 1;
                assert_eq!((found.held, found.freed), (vec![Tried::Held; rest], vec![Tried::Free; rest]));
                assert_eq!((found.winners, found.same, found.one_machine), (1, true, true));
                assert!(found.named.unwrap() < 10.0 && found.listed.unwrap() < 10.0 && found.apart < 1.0);
            }
            assert!(entries(&on("a", dir.path()).tmp()).unwrap().is_empty(), "nothing is left");
        }
    }

    #[test]
    fn what_a_killed_one_has_left_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let store = on("a", dir.path());
        store.writable().unwrap();
        let left = store.tmp().join(format!("{PEER}{}-x", Process::on("b").tag()));
        std::fs::create_dir(&left).unwrap();
        let card = Card { process: Process::on("b"), facts: BTreeMap::new() };
        std::fs::write(left.join(CARD), serde_json::to_vec(&card).unwrap()).unwrap();
        std::fs::write(left.join(format!("{BEAT}000000007")), "null").unwrap();
        let short = Terms { come: Duration::from_millis(400), ..terms(2) };
        let alone = store.meet(BTreeMap::new(), short, || true).unwrap_err();
        assert!(matches!(alone, StoreError::NobodyCame { came: 0, expected: 1 }), "{alone}");
        let given_up = store.meet(BTreeMap::new(), terms(2), || false).unwrap_err();
        assert!(matches!(given_up, StoreError::NobodyCame { .. }), "{given_up}");
    }
}
