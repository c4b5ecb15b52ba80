//! The run of a pipeline: every stage that is ready, side by side within the tokens there are, each computed once.
//!
//! A stage is computed by whoever holds the lock of its key, and published by the same thread as soon as it is done: a run that
//! dies loses only what was under way, and of that no more than happened since the last checkpoint. A failed stage stops those
//! that read it and nobody else.
//!
//! Before a stage computes, the blobs that it reads are compared with their digests, and once more afterwards if somebody wrote to
//! them. If one is damaged, nothing is published, the stage that made it runs again, and all below that are looked at anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use candle_core::Device;

pub use super::attempt::IMAGES;
use super::attempt::{Attempt, DamagedInput, Setback};
use super::cache::Cache;
use super::catalog::Registry;
use super::error::RunError;
use super::event::{Event, Planned, Tell};
use super::graph;
use super::spec::Spec;
use super::state::{Devices, Known, Outlook, Why};
use kinset_base::clock::Stopwatch;
use kinset_base::fault::{Exit, Fault, chain};
use kinset_base::fs;
use kinset_base::search_path::DataPaths;
use kinset_stage::{AnyStage, StageError, Stop};
use kinset_store::Store;
use kinset_store::record::Record;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    pub registry: Registry,
    /// Nodes that may run.
    pub chosen: BTreeSet<usize>,
    /// Nodes that run even if fresh.
    pub forced: BTreeSet<usize>,
    /// CPU tokens: as many stages side by side at most.
    pub threads: usize,
    pub device: Device,
    /// The class of device of each stage, for keys.
    pub devices: Devices,
    /// Whether results are shown under the readable names of their stages.
    pub shows: bool,
    /// Wait for stages that another run computes.
    pub wait: bool,
    /// Save checkpoints at least this often.
    pub checkpoint_every: Duration,
    /// Raised when the run shall stop.
    pub stop: Stop,
    /// Where results are looked for before they are computed, and sent.
    pub cache: Option<Arc<dyn Cache>>,
}

/// What became of a stage.
#[derive(Debug)]
pub enum Outcome {
    /// Its result was there.
    Fresh,
    /// It ran, in so many seconds.
    Ran {
        why: Why,
        /// Wall clock.
        seconds: f64,
    },
    /// Another run computed it meanwhile.
    Adopted,
    /// A cache had it, and so many bytes came.
    Pulled {
        bytes: u64,
    },
    Failed {
        error: RunError,
    },
    /// It was stopped on request; its progress is kept.
    Stopped,
    /// It could not run, because this one above it has no result.
    Blocked {
        by: String,
    },
    /// It was not chosen, and nothing chosen needed it.
    Skipped,
    /// A job of its own goes on with it.
    Submitted,
}

impl Outcome {
    /// True if there will be no result.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Blocked { .. } | Self::Stopped)
    }
}

/// What became of a run.
#[derive(Debug)]
pub struct Summary {
    /// Per node, in the order of the pipeline's nodes.
    pub outcomes: Vec<Outcome>,
    /// Results by node, of all that have one.
    pub records: Known,
    /// Wall clock of the whole run.
    pub seconds: f64,
    /// The jobs it needed.
    pub jobs: Jobs,
}

/// Jobs of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    pub submitted: usize,
    /// Of earlier runs, that were still there.
    pub attached: usize,
}

impl Summary {
    /// How the process should end: the first failure in the order of the file decides.
    pub fn exit(&self) -> Exit {
        let mut exit = Exit::Done;
        for outcome in &self.outcomes {
            match outcome {
                Outcome::Failed { error } => return error.exit(),
                Outcome::Stopped => exit = Exit::Stopped,
                _ => {}
            }
        }
        exit
    }

    /// The nodes that ran, in the order of the pipeline's nodes.
    pub fn ran(&self) -> impl Iterator<Item = usize> + '_ {
        self.outcomes.iter().enumerate().filter(|(_, o)| matches!(o, Outcome::Ran { .. })).map(|(index, _)| index)
    }
}

/// What a worker reports of a node.
struct Done {
    index: usize,
    result: Result<(Outcome, Record), Setback>,
}

/// How a run stands.
#[derive(Default)]
struct Standing {
    outcomes: BTreeMap<usize, Outcome>,
    known: Known,
    /// In the order of the pipeline's graph.
    waiting: Vec<usize>,
    running: BTreeSet<usize>,
    /// What became of nodes that are looked at anew, because something above them was damaged.
    before: BTreeMap<usize, Outcome>,
    /// Of the running ones those that are to be looked at anew when they are done.
    outdated: BTreeSet<usize>,
    /// Nodes whose results were found to be damaged. Once is bad luck.
    damaged: BTreeSet<usize>,
}

/// Runs a pipeline.
///
/// # Errors
/// Only what concerns the run as a whole, such as a store that cannot be held; faults of stages are outcomes.
pub fn run(spec: &Spec, store: &Store, places: &DataPaths, options: &Options, tell: Tell<'_>) -> Result<Summary, RunError> {
    let clock = Stopwatch::start();
    let (pipeline, plan) = (spec.name.clone(), Planned::of(spec));
    let file = fs::absolute(&spec.path).unwrap_or_else(|_| spec.path.clone()).display().to_string();
    tell.tell(Event::RunStarted { pipeline, file, version: env!("CARGO_PKG_VERSION").into(), plan });
    let Some(_held) = store.lock_shared(|| !options.stop.requested())? else { return Err(StageError::Stopped.into()) };
    let engine = Engine { attempt: Attempt::new(Outlook::of(spec, options, store, places), options, tell), options, tell };
    let (outcomes, records) = engine.execute();
    let summary = Summary { outcomes, records, seconds: clock.seconds(), jobs: Jobs::default() };
    tell.tell(Event::RunFinished { seconds: summary.seconds, ran: summary.ran().count(), exit: summary.exit() as u8 });
    Ok(summary)
}

struct Engine<'a> {
    attempt: Attempt<'a>,
    options: &'a Options,
    tell: Tell<'a>,
}

impl Engine<'_> {
    fn execute(&self) -> (Vec<Outcome>, Known) {
        let spec = self.attempt.outlook.spec;
        let needed = graph::needed(spec, &self.options.chosen);
        let mut standing = Standing {
            waiting: spec.order.iter().copied().filter(|index| needed.contains(index)).collect(),
            ..Standing::default()
        };
        for index in 0..spec.nodes.len() {
            if !needed.contains(&index) {
                standing.outcomes.insert(index, Outcome::Skipped);
            }
        }
        let (report, reports) = mpsc::channel::<Done>();
        std::thread::scope(|scope| {
            let mut device_taken = None;
            loop {
                let Standing { outcomes, known, waiting, running, before, .. } = &mut standing;
                // In order, so that what can start is found in one pass and equal runs start equal stages.
                waiting.retain(|&index| {
                    let node = &spec.nodes[index];
                    if let Some(above) = graph::inputs(node).find(|above| outcomes.get(above).is_some_and(Outcome::is_lost)) {
                        let by = spec.nodes[above].name.clone();
                        self.tell.tell(Event::StageBlocked { stage: node.name.clone(), by: by.clone() });
                        outcomes.insert(index, Outcome::Blocked { by });
                        return false;
                    }
                    if self.options.stop.requested() && running.is_empty() {
                        outcomes.insert(index, Outcome::Stopped);
                        return false;
                    }
                    let ready = graph::inputs(node).all(|above| known.contains_key(&above));
                    let on_device = self.attempt.outlook.stage(node).is_ok_and(AnyStage::on_device);
                    if !ready
                        || self.options.stop.requested()
                        || running.len() >= self.options.threads.max(1)
                        || (on_device && device_taken.is_some())
                        || running.iter().any(|&other| self.same_work(index, other, known))
                    {
                        return true;
                    }
                    running.insert(index);
                    if on_device {
                        device_taken = Some(index);
                    }
                    // What was done in this run need not be done again because somebody said so.
                    let forced = self.options.forced.contains(&index) && !before.contains_key(&index);
                    let (report, known) = (report.clone(), known.clone());
                    let done = report.clone();
                    let work = move || {
                        let result = self.attempt.node(index, &known, forced);
                        // The loop outlives its workers, so somebody listens.
                        let _ = done.send(Done { index, result });
                    };
                    if let Err(source) = std::thread::Builder::new().spawn_scoped(scope, work) {
                        let _ = report.send(Done { index, result: Err(RunError::NoThread { source }.into()) });
                    }
                    false
                });
                if running.is_empty() {
                    break;
                }
                let Ok(Done { index, result }) = reports.recv() else { break };
                if device_taken == Some(index) {
                    device_taken = None;
                }
                self.take(&mut standing, index, result);
            }
        });
        (standing.outcomes.into_values().collect(), standing.known)
    }

    /// Takes what a worker reports.
    fn take(&self, standing: &mut Standing, index: usize, result: Result<(Outcome, Record), Setback>) {
        let stage = || self.attempt.outlook.spec.nodes[index].name.clone();
        standing.running.remove(&index);
        let outdated = standing.outdated.remove(&index);
        let error = match result {
            Ok((outcome, _)) if outdated => {
                standing.before.insert(index, outcome);
                return self.wait_again(standing, [index]);
            }
            // What it found may be mended by now.
            Err(Setback::Damaged(_)) if outdated => return self.wait_again(standing, [index]),
            Ok((outcome, record)) => {
                standing.known.insert(index, record);
                let before = standing.before.remove(&index).filter(|_| matches!(outcome, Outcome::Fresh));
                standing.outcomes.insert(index, before.unwrap_or(outcome));
                return;
            }
            Err(Setback::Damaged(input)) => match self.heal(standing, index, input) {
                Ok(()) => return,
                Err(error) => error,
            },
            Err(Setback::Mended) => return self.wait_again(standing, [index]),
            Err(Setback::Failed(error)) => error,
        };
        let outcome = if let RunError::Stage(StageError::Stopped) = error {
            self.tell.tell(Event::StageStopped { stage: stage() });
            Outcome::Stopped
        } else {
            self.tell.tell(Event::StageFailed { stage: stage(), error: chain(&error), hint: error.hint() });
            Outcome::Failed { error }
        };
        standing.outcomes.insert(index, outcome);
    }

    /// Has the maker of a damaged input run again, and all below it looked at anew: what an older kinset computed from it is
    /// forgotten.
    fn heal(&self, standing: &mut Standing, index: usize, input: DamagedInput) -> Result<(), RunError> {
        let DamagedInput { maker, content, why } = input;
        let spec = self.attempt.outlook.spec;
        if !standing.damaged.insert(maker) {
            return Err(RunError::Damaged { stage: spec.nodes[maker].name.clone(), why });
        }
        self.attempt.outlook.store.forget_readers(&content)?;
        let mut below = BTreeSet::from([maker]);
        for &node in &spec.order {
            if graph::inputs(&spec.nodes[node]).any(|above| below.contains(&above)) {
                below.insert(node);
            }
        }
        let mut again = vec![index];
        for node in below {
            if standing.running.contains(&node) {
                standing.outdated.insert(node);
            } else if standing.known.remove(&node).is_some() {
                standing.before.extend(standing.outcomes.remove(&node).map(|outcome| (node, outcome)));
                again.push(node);
            }
        }
        self.wait_again(standing, again);
        Ok(())
    }

    fn wait_again(&self, standing: &mut Standing, nodes: impl IntoIterator<Item = usize>) {
        standing.waiting.extend(nodes);
        let place = |index: &usize| self.attempt.outlook.spec.order.iter().position(|other| other == index);
        standing.waiting.sort_by_key(place);
        standing.waiting.dedup();
    }

    /// Would two nodes compute the same? Then one does it, and the other finds it done: repetitions differ from the first seeded
    /// stage on only.
    fn same_work(&self, one: usize, other: usize, known: &Known) -> bool {
        let nodes = &self.attempt.outlook.spec.nodes;
        let key = |index: usize| self.attempt.outlook.inputs(&nodes[index], known).ok().map(|inputs| inputs.manifest.key());
        nodes[one].kind == nodes[other].kind && key(one).is_some_and(|own| key(other) == Some(own))
    }
}
