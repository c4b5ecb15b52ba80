//! Tickets: the pipeline as it was when a job was submitted, which nodes to compute, and the keys of what they read.
//!
//! A ticket lies in the folder of its run, and beside it what its tasks leave: events, a log, and how each ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DispatchError;
use super::rules::CacheMode;
use crate::error::RunError;
use crate::spec::Request;
use crate::state::Devices;
use kinset_base::fault::{Exit, Fault, chain};
use kinset_base::fs;
use kinset_base::search_path::DataPaths;
use kinset_stage::Share;
use kinset_store::digest::Digest;
use kinset_store::key::Key;

/// The form of a ticket.
const FORMAT: u32 = 1;

/// A larger file is no ticket.
const LARGEST: u64 = 64 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ticket {
    format: u32,
    /// The version of kinset that wrote it, which is the one that may use it.
    version: String,
    /// The name of the pipeline.
    pub pipeline: String,
    /// What the job is called: `cluster`, `features+neighbors`.
    pub unit: String,
    /// The pipeline file and its text.
    pub file: PathBuf,
    pub text: String,
    pub request: Request,
    /// The folder of the store.
    pub artifacts: PathBuf,
    /// What roots are relative to, the folder of the data sets, and that of Hugging Face's hub.
    pub base: PathBuf,
    pub data: PathBuf,
    pub hub: PathBuf,
    pub devices: Devices,
    /// Threads of a worker; all there are if nobody said how many.
    pub threads: Option<u16>,
    /// Bytes of memory of a worker, if somebody said how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Seconds between checkpoints, at most.
    pub checkpoint_every: f64,
    /// Seconds after which what should be there is not.
    pub settle: f64,
    /// How often a job that was stopped is queued again.
    pub restarts: Restarts,
    /// Where results are looked for before they are computed, and sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<TicketCache>,
    /// Keys of what is there, and of sources, by node: nobody has to read raw data to know them.
    pub keys: BTreeMap<String, Key>,
    /// The nodes of each task, in the order in which they run.
    pub tasks: Vec<Vec<Task>>,
}

/// A node of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    pub stage: String,
    pub forced: bool,
    /// What falls to it, where several tasks compute a stage together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// What it computes, as far as the plan knows it: another pipeline file of the same name has others.
    pub plan: Digest,
}

impl Task {
    /// What it is called: `cluster@3`, `neighbors (part 2 of 8)`.
    pub fn name(&self) -> String {
        self.share.map_or_else(|| self.stage.clone(), |share| format!("{} ({share})", self.stage))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    pub times: u32,
    pub signal: String,
    pub without_progress: u32,
}

/// The cache of a job, as whoever submitted it was told. Its credentials are in the environment of the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TicketCache {
    pub url: String,
    pub mode: CacheMode,
    /// Seconds that a server may be silent.
    pub timeout: f64,
}

/// What a worker may use; all that there is if nobody said how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Worker {
    pub threads: Option<u16>,
    /// Bytes.
    pub memory: Option<u64>,
}

/// What all tickets of a run share.
#[derive(Clone, Debug)]
pub struct Form {
    pub pipeline: String,
    pub file: PathBuf,
    pub text: String,
    pub request: Request,
    pub artifacts: PathBuf,
    pub places: DataPaths,
    pub devices: Devices,
    pub checkpoint_every: f64,
    pub settle: f64,
    pub restarts: Restarts,
    pub cache: Option<TicketCache>,
}

impl Form {
    /// A ticket for these tasks.
    pub fn fill(&self, unit: String, worker: Worker, keys: BTreeMap<String, Key>, tasks: Vec<Vec<Task>>) -> Ticket {
        Ticket {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pipeline: self.pipeline.clone(),
            unit,
            file: self.file.clone(),
            text: self.text.clone(),
            request: self.request.clone(),
            artifacts: self.artifacts.clone(),
            base: self.places.file(Path::new("")),
            data: self.places.data().to_owned(),
            hub: self.places.hub().to_owned(),
            devices: self.devices.clone(),
            threads: worker.threads,
            memory: worker.memory,
            checkpoint_every: self.checkpoint_every,
            settle: self.settle,
            restarts: self.restarts.clone(),
            cache: self.cache.clone(),
            keys,
            tasks,
        }
    }
}

impl Ticket {
    /// Reads a ticket of this version of kinset.
    ///
    /// # Errors
    /// If it is none, or of another version.
    pub fn load(path: &Path) -> Result<Self, DispatchError> {
        let ticket = Self::load_any(path)?;
        let own = env!("CARGO_PKG_VERSION");
        if ticket.version != own {
            return Err(DispatchError::Version { ticket: ticket.version, own });
        }
        Ok(ticket)
    }

    /// Reads a ticket to look at it.
    pub(super) fn load_any(path: &Path) -> Result<Self, DispatchError> {
        let bytes = fs::read_at_most(path, LARGEST)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| DispatchError::NotATicket { path: path.display().to_string(), why: error.to_string() })
    }

    /// Where the worker looks for raw data.
    pub fn places(&self) -> DataPaths {
        DataPaths::new(self.base.clone(), Some(self.data.clone()), None).with_hub(self.hub.clone())
    }

    /// What its jobs are found by again: the beginning of the digest of what it says, and words for people.
    pub fn comment(&self) -> String {
        let digest = Digest::of(&serde_json::to_vec(self).unwrap_or_default());
        format!("kinset:{}:{}:{}", digest.short(), self.pipeline, self.unit)
    }
}

/// Where a ticket lies, and what its tasks leave beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub folder: PathBuf,
    /// The name of its file without the ending: `03-cluster`.
    pub stem: String,
}

impl Place {
    /// The place of a ticket's file.
    pub fn of(ticket: &Path) -> Self {
        let stem = ticket.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        Self { folder: fs::parent(ticket).to_owned(), stem }
    }

    pub fn ticket(&self) -> PathBuf {
        self.folder.join(format!("{}.json", self.stem))
    }

    fn of_task(&self, task: usize, ending: &str) -> PathBuf {
        self.folder.join(format!("{}-{task}.{ending}", self.stem))
    }

    pub fn events(&self, task: usize) -> PathBuf {
        self.of_task(task, "jsonl")
    }

    pub fn log(&self, task: usize) -> PathBuf {
        self.of_task(task, "log")
    }

    pub fn end(&self, task: usize) -> PathBuf {
        self.of_task(task, "end")
    }

    /// Where a worker counts how often it was stopped without progress.
    pub fn stalls(&self, task: usize) -> PathBuf {
        self.of_task(task, "stalls")
    }
}

/// How a task ended: with the code of its process, and the error of the stage at which it did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub exit: u8,
    /// True if it is queued again and goes on later.
    pub again: bool,
    pub stage: Option<String>,
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
    /// A stage above whose result is damaged and was forgotten.
    pub damaged: Option<String>,
}

impl End {
    pub fn of(stage: &str, error: &RunError) -> Self {
        Self {
            exit: error.exit() as u8,
            stage: Some(stage.to_owned()),
            code: error.code().to_owned(),
            message: chain(error),
            hint: error.hint(),
            ..Self::default()
        }
    }

    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> fs::Result<()> {
        fs::write_atomic(path, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// The error, as the stage gave it in its own process.
    pub fn error(&self) -> RunError {
        let exit = Exit::of_code(i32::from(self.exit));
        // Codes are few, and known to the program: what another version adds is kept for the rest of this process.
        let diagnosis = exit.code(self.code.clone().leak()).hint_if(self.hint.clone());
        RunError::Told { said: self.message.clone(), diagnosis }
    }
}
