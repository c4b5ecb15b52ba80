//! The cache of a run: which one, who named it, and what was pulled and pushed.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::CacheArgs;
use super::common::Failure;
use super::terminal;
use crate::base::fault::{Diagnosis, Exit, Fault, chain};
use crate::base::fs::FileError;
use crate::base::unit;
use crate::pipeline::cache::{Cache, Found};
use crate::pipeline::dispatch::rules::{CACHE_MODES, CacheMode, CacheRules};
use crate::pipeline::dispatch::ticket::TicketCache;
use crate::remote::pull::missing;
use crate::remote::pusher::{Pusher, Sent};
use crate::remote::{Address, Remote, RemoteError, Work};
use crate::stage::Stop;
use crate::store::Store;
use crate::store::key::Manifest;
use crate::store::record::Record;

/// The variables of the environment that say which cache.
pub(super) const URL: &str = "KINSET_CACHE";
pub(super) const MODE: &str = "KINSET_CACHE_MODE";
pub(super) const TIMEOUT: &str = "KINSET_CACHE_TIMEOUT";

/// How long a server may be silent, if nobody says so.
const PATIENCE: Duration = Duration::from_secs(30);

/// A variable of the environment, or the command line, that says nothing that can be meant.
#[derive(Debug, thiserror::Error)]
enum Unset {
    #[error("no cache is named")]
    NoUrl,
    #[error("the environment variable `{name}` is `{value}`")]
    Variable { name: &'static str, value: String, expected: &'static str },
}

impl Fault for Unset {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoUrl => Exit::Usage
                .code("cache::no-url")
                .hint("name it with `--url URL`, in KINSET_CACHE, or as `[cache] url = \"s3://…\"` in the cluster file"),
            Self::Variable { expected, .. } => {
                Exit::Usage.code("cache::variable").hint(format!("set it to {expected}, or unset it"))
            }
        }
    }
}

/// Which cache there is, and what is done with it.
pub(super) struct Settings {
    pub(super) address: Address,
    pub(super) mode: CacheMode,
    pub(super) patience: Duration,
}

impl Settings {
    /// As the command line says, else the environment, else the cluster file. Nothing if nobody names a cache, or it is off.
    pub(super) fn of(args: &CacheArgs, rules: &CacheRules) -> Result<Option<Self>, Failure> {
        let mode = match (args.cache_mode, set(MODE)) {
            (Some(mode), _) => mode,
            (None, Some(value)) => {
                value.parse().map_err(|_| Failure::own(Unset::Variable { name: MODE, value, expected: CACHE_MODES }))?
            }
            (None, None) => rules.mode.unwrap_or_default(),
        };
        let Some(url) = args.cache.clone().or_else(|| set(URL)).or_else(|| rules.url.clone()) else { return Ok(None) };
        if mode == CacheMode::Off {
            return Ok(None);
        }
        let patience = match set(TIMEOUT) {
            Some(value) => {
                let seconds = value.parse().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
                let expected = "a number of seconds from 0.1 to 86400";
                Duration::from_secs_f64(
                    seconds.ok_or_else(|| Failure::own(Unset::Variable { name: TIMEOUT, value, expected }))?,
                )
            }
            None => rules.timeout.unwrap_or(PATIENCE),
        };
        Ok(Some(Self { address: url.parse()?, mode, patience }))
    }

    /// The same for a command that is about the cache, whatever runs do with it.
    pub(super) fn named(url: Option<&String>, rules: &CacheRules) -> Result<Self, Failure> {
        let args = CacheArgs { cache: url.cloned(), cache_mode: Some(CacheMode::ReadWrite) };
        Self::of(&args, rules)?.ok_or_else(|| Failure::own(Unset::NoUrl))
    }

    /// As a ticket says.
    pub(super) fn of_ticket(ticket: &TicketCache) -> Result<Self, Failure> {
        let patience = Duration::try_from_secs_f64(ticket.timeout).unwrap_or(PATIENCE);
        Ok(Self { address: ticket.url.parse()?, mode: ticket.mode, patience })
    }

    /// For a ticket.
    pub(super) fn ticket(&self) -> TicketCache {
        TicketCache { url: self.address.to_string(), mode: self.mode, timeout: self.patience.as_secs_f64() }
    }

    pub(super) fn open(&self) -> Result<Remote, Failure> {
        Ok(Remote::open(&self.address, self.patience)?)
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().trim().to_owned()).filter(|value| !value.is_empty())
}

/// The cache that a run asks, and fills if it may.
pub(super) struct RunCache {
    remote: Arc<Remote>,
    pusher: Mutex<Option<Pusher>>,
    /// Nobody answers, or nobody may ask: it has been told, and is not tried again.
    over: AtomicBool,
}

impl std::fmt::Debug for RunCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunCache({})", self.remote.address())
    }
}

impl RunCache {
    /// The cache of a run over these artifacts, if one is set.
    pub(super) fn of(
        args: &CacheArgs,
        rules: &CacheRules,
        artifacts: &Path,
        stop: &Stop,
    ) -> Result<Option<Arc<Self>>, Failure> {
        let settings = Settings::of(args, rules)?;
        settings.map_or(Ok(None), |settings| Self::with(&settings, artifacts, stop))
    }

    /// The cache of a run, as it is set. Nothing, and a word why, if it cannot be had now.
    pub(super) fn with(settings: &Settings, artifacts: &Path, stop: &Stop) -> Result<Option<Arc<Self>>, Failure> {
        let remote = match settings.open() {
            Ok(remote) => Arc::new(remote),
            // A folder that is not mounted, say. What makes no sense, or was not built, is another matter.
            Err(failure) if failure.fault().exit() == Exit::Store => {
                terminal::say(&format!("warning: {}; the run goes on without the cache", failure.in_words()));
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let pusher = match settings.mode {
            CacheMode::ReadWrite => {
                remote.writable()?;
                let failed = |error| FileError::new("start a thread of", Path::new("this process"), error);
                Some(Pusher::start(Arc::clone(&remote), artifacts, stop.clone()).map_err(failed)?)
            }
            CacheMode::Read | CacheMode::Off => None,
        };
        Ok(Some(Arc::new(Self { remote, pusher: Mutex::new(pusher), over: AtomicBool::new(false) })))
    }

    /// Waits until all is sent, and says what is not.
    pub(super) fn finish(&self) -> Finished {
        let url = self.remote.address().to_string();
        let pusher = self.pusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(pusher) = pusher else { return Finished { url, sent: None } };
        let waiting = pusher.waiting();
        if waiting > 0 {
            terminal::say(&format!("sending {} to `{url}`", unit::counted(waiting, "result")));
        }
        let sent = pusher.finish();
        if let Some(why) = &sent.why {
            terminal::say(&format!(
                "warning: not sent to the cache: {}; because {why}\nhint: the results are whole here; `kinset cache push` sends them",
                sent.failed.join(", ")
            ));
        }
        if !sent.differ.is_empty() {
            terminal::say(&format!(
                "warning: the cache has another result of the same key, and keeps it: {}",
                sent.differ.join(", ")
            ));
        }
        if sent.results > 0 {
            let (results, bytes) = (unit::counted(sent.results, "result"), unit::bytes(sent.bytes));
            terminal::say(&format!("sent {results} to `{url}` ({bytes})"));
        }
        Finished { url, sent: Some(sent) }
    }

    fn bring(
        &self,
        store: &Store,
        manifest: &Manifest,
        moved: &(dyn Fn(u64, u64) + Sync),
        stop: &Stop,
    ) -> Result<Option<(Record, u64)>, RemoteError> {
        let Some(record) = self.remote.record(manifest)? else { return Ok(None) };
        let total = missing(store, &record)?.iter().map(|file| file.size).sum();
        let done = AtomicU64::new(0);
        let more = |bytes: u64| moved(done.fetch_add(bytes, Ordering::Relaxed) + bytes, total);
        let pulled = self.remote.bring(store, manifest, record, Work { stop, moved: &more })?;
        Ok(Some((pulled.record, pulled.bytes)))
    }
}

impl Cache for RunCache {
    fn pull(&self, store: &Store, manifest: &Manifest, moved: &(dyn Fn(u64, u64) + Sync), stop: &Stop) -> Found {
        if self.over.load(Ordering::Relaxed) {
            return Found::Nothing;
        }
        match self.bring(store, manifest, moved, stop) {
            Ok(Some((record, bytes))) => Found::Here(Box::new(record), bytes),
            Ok(None) | Err(RemoteError::Stopped(_)) => Found::Nothing,
            Err(error) if !error.is_of_the_place() => Found::Unusable(format!("{}; it is not used", chain(&error))),
            Err(_) if self.over.swap(true, Ordering::Relaxed) => Found::Nothing,
            Err(error) => Found::Unusable(format!("{}; the run goes on without the cache", chain(&error))),
        }
    }

    fn push(&self, stage: &str, record: &Record) {
        if let Some(pusher) = &*self.pusher.lock().unwrap_or_else(PoisonError::into_inner) {
            pusher.push(stage, record.key);
        }
    }
}

/// What became of the cache of a run.
pub(super) struct Finished {
    url: String,
    sent: Option<Sent>,
}

impl Finished {
    pub(super) fn as_json(&self) -> Value {
        let sent = self.sent.as_ref().map(|sent| {
            json!({ "results": sent.results, "bytes": sent.bytes, "failed": sent.failed, "why": sent.why, "differ": sent.differ })
        });
        json!({ "url": self.url, "sent": sent })
    }
}
