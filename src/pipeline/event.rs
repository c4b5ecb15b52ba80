//! The events of a run, typed: the terminal, the [`journal`](super::journal) and tests hear the same.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::{self, Spec};
use super::vary::Varied;
use kinset_stage::{Signal, Sink};

/// A stage as a run planned it: enough to read its results later, when the pipeline file says something else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The stage: `cluster`, `cluster@3`.
    pub stage: String,
    /// Its name in the file.
    pub family: String,
    pub kind: String,
    pub seed: u64,
    /// The varied settings that it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub varied: Vec<Varied>,
    /// By port, what it reads: a stage for its main output, else `stage.output`.
    pub reads: BTreeMap<String, Vec<String>>,
}

impl Planned {
    /// All stages of a pipeline, in the order of its file.
    pub fn of(spec: &Spec) -> Vec<Self> {
        let node = |node: &spec::Node| Self {
            stage: node.name.clone(),
            family: node.family.clone(),
            kind: node.kind.clone(),
            seed: node.seed,
            varied: node.varied.clone(),
            reads: node
                .ports
                .iter()
                .map(|(port, wired)| (port.clone(), wired.iter().map(|at| spec.reference(at)).collect()))
                .collect(),
        };
        spec.nodes.iter().map(node).collect()
    }

    /// Its name without the mark of a repetition: `cluster@lr=0.1`.
    pub fn variant(&self) -> &str {
        spec::without_seed(&self.stage, self.seed)
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    RunStarted {
        pipeline: String,
        /// Its file, in full; empty where it is not known.
        #[serde(default)]
        file: String,
        /// The version of kinset.
        version: Cow<'static, str>,
        /// The stages of the pipeline, in the order of its file.
        plan: Vec<Planned>,
    },
    /// A stage needs no work.
    StageFresh {
        stage: String,
        key: String,
    },
    /// The result of a stage came from a cache.
    StagePulled {
        stage: String,
        key: String,
        /// Bytes that came.
        bytes: u64,
    },
    /// Another run is computing this stage; we wait for it.
    StageWaiting {
        stage: String,
        /// Who holds it, in words.
        holder: String,
    },
    StageStarted {
        stage: String,
        kind: String,
        key: String,
        why: String,
    },
    /// A number of a training curve.
    Metric {
        stage: String,
        /// Epoch or step.
        step: u64,
        name: String,
        value: f64,
    },
    /// How far a stage is.
    Progress {
        stage: String,
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What a unit is.
        unit: Cow<'static, str>,
        /// A word or number to show beside it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Something worth knowing.
    Note {
        stage: String,
        text: String,
    },
    /// Something worth acting on.
    Warning {
        stage: String,
        text: String,
    },
    StageFinished {
        stage: String,
        key: String,
        /// How long it worked, in seconds.
        seconds: f64,
        /// True if another run computed it and we took its result.
        adopted: bool,
    },
    StageFailed {
        stage: String,
        /// The error and its causes.
        error: String,
        hint: Option<String>,
    },
    /// A stage cannot run because one above it did not finish.
    StageBlocked {
        stage: String,
        /// The one above.
        by: String,
    },
    /// A stage was stopped on request; its progress is kept.
    StageStopped {
        stage: String,
    },
    /// Stages were submitted as a job, or one of an earlier run was found again.
    Job {
        unit: String,
        /// What the scheduler calls it.
        job: String,
        tasks: usize,
        attached: bool,
    },
    RunFinished {
        seconds: f64,
        /// Stages that worked.
        ran: usize,
        exit: u8,
    },
}

/// Hears events. Listeners are called from several threads.
pub trait Listener: Sync {
    fn hear(&self, event: &Event);
}

/// Tells all listeners.
#[derive(Clone, Copy)]
pub struct Tell<'a>(pub &'a [&'a dyn Listener]);

impl std::fmt::Debug for Tell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tell({} listeners)", self.0.len())
    }
}

impl Tell<'_> {
    pub fn tell(&self, event: Event) {
        for listener in self.0 {
            listener.hear(&event);
        }
    }
}

impl Sink for Tell<'_> {
    fn signal(&self, stage: &str, signal: Signal) {
        let stage = stage.to_owned();
        self.tell(match signal {
            Signal::Metric { step, name, value } => Event::Metric { stage, step, name, value },
            Signal::Progress { done, total, unit, text } => Event::Progress { stage, done, total, unit: unit.into(), text },
            Signal::Note(text) => Event::Note { stage, text },
            Signal::Warning(text) => Event::Warning { stage, text },
        });
    }
}
