//! Running a pipeline: every stage that is ready, side by side within the tokens there are, each computed once.
//!
//! A stage is computed by whoever holds the lock of its key, and published by the same thread as soon as it is done: a run that
//! dies loses only what was under way, and of that no more than happened since the last checkpoint. A failed stage stops those
//! that read it and nobody else.
//!
//! Before a stage computes, the blobs that it reads are compared with their digests, and once more afterwards if somebody wrote to
//! them. If one is damaged, nothing is published, the stage that made it runs again, and all below that are looked at anew.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{PoisonError, RwLock, mpsc};
use std::time::Duration;

use candle_core::Device;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::catalog::Registry;
use super::error::RunError;
use super::event::{Event, Planned, Tell};
use super::graph;
use super::spec::{Node, Spec};
use super::state::{Inputs, Known, Outlook, Why};
use kinset_artifact::Artifact;
use kinset_artifact::features::Features;
use kinset_artifact::images::Images;
use kinset_artifact::parquet::TableReader;
use kinset_base::clock::Stopwatch;
use kinset_base::fault::{Exit, Fault, chain};
use kinset_base::fs;
use kinset_base::memory::Watch;
use kinset_base::search_path::DataPaths;
use kinset_stage::{AnyDraft, AnyStage, Context, Offers, StageError, Stop};
use kinset_store::blob::NewFile;
use kinset_store::digest::Digest;
use kinset_store::digest_cache::Stamp;
use kinset_store::key::Manifest;
use kinset_store::lock::{self, StageLock};
use kinset_store::record::{Lookup, Provenance, Record, StoredOutput};
use kinset_store::{Store, StoreError};

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
    /// Its class, for keys.
    pub device_class: &'static str,
    /// Wait for stages that another run computes.
    pub wait: bool,
    /// Save checkpoints at least this often.
    pub checkpoint_every: Duration,
    /// Raised when the run shall stop.
    pub stop: Stop,
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

/// Why a node has no result for now.
enum Setback {
    Failed(RunError),
    /// It can have one once its input is whole again.
    Damaged(DamagedInput),
    /// An input was damaged and has been mended while it was at work.
    Mended,
}

impl<E: Into<RunError>> From<E> for Setback {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// An output that is not what its stage wrote.
struct DamagedInput {
    maker: usize,
    /// What it said.
    content: Digest,
    why: String,
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
    let engine = Engine {
        publishing: RwLock::default(),
        outlook: Outlook { spec, registry: options.registry, store, places, device_class: options.device_class },
        options,
        tell,
    };
    let (outcomes, records) = engine.execute();
    let summary = Summary { outcomes, records, seconds: clock.seconds() };
    tell.tell(Event::RunFinished { seconds: summary.seconds, ran: summary.ran().count(), exit: summary.exit() as u8 });
    Ok(summary)
}

struct Engine<'a> {
    /// Held for reading from the publication of a record until its view is there.
    publishing: RwLock<()>,
    outlook: Outlook<'a>,
    options: &'a Options,
    tell: Tell<'a>,
}

impl Engine<'_> {
    /// The nodes to look at: the chosen, and all they need.
    fn needed(&self) -> BTreeSet<usize> {
        let spec = self.outlook.spec;
        let mut needed = self.options.chosen.clone();
        for &index in spec.order.iter().rev() {
            if needed.contains(&index) {
                needed.extend(graph::inputs(&spec.nodes[index]));
            }
        }
        needed
    }

    fn execute(&self) -> (Vec<Outcome>, Known) {
        let spec = self.outlook.spec;
        let needed = self.needed();
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
                    if let Some(above) = graph::inputs(node).find(|above| lost(outcomes.get(above))) {
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
                    let on_device = self.outlook.stage(node).is_ok_and(AnyStage::on_device);
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
                        let result = catch_unwind(AssertUnwindSafe(|| self.node(index, &known, forced)))
                            .unwrap_or_else(|panic| Err(RunError::Panicked { what: message(&*panic) }.into()));
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
        let stage = || self.outlook.spec.nodes[index].name.clone();
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
        let spec = self.outlook.spec;
        if !standing.damaged.insert(maker) {
            return Err(RunError::Damaged { stage: spec.nodes[maker].name.clone(), why });
        }
        self.outlook.store.forget_readers(&content)?;
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
        let place = |index: &usize| self.outlook.spec.order.iter().position(|other| other == index);
        standing.waiting.sort_by_key(place);
        standing.waiting.dedup();
    }

    /// The first input of a node that is not what its stage wrote.
    fn damaged_input(&self, node: &Node, known: &Known) -> Result<Option<DamagedInput>, RunError> {
        for (maker, name, output) in wired(node, known) {
            if let Some(why) = self.outlook.store.damage(name, output)? {
                return Ok(Some(DamagedInput { maker, content: output.content, why }));
            }
        }
        Ok(None)
    }

    /// Which files a node reads.
    fn identities(&self, node: &Node, known: &Known) -> Result<Vec<Vec<u64>>, StoreError> {
        wired(node, known).map(|(_, _, output)| self.outlook.store.identities(output)).collect()
    }

    /// Would two nodes compute the same? Then one does it, and the other finds it done: repetitions differ from the first seeded
    /// stage on only.
    fn same_work(&self, one: usize, other: usize, known: &Known) -> bool {
        let nodes = &self.outlook.spec.nodes;
        let key = |index: usize| self.outlook.inputs(&nodes[index], known).ok().map(|inputs| inputs.manifest.key());
        nodes[one].kind == nodes[other].kind && key(one).is_some_and(|own| key(other) == Some(own))
    }

    /// Brings one node to a result.
    fn node(&self, index: usize, known: &Known, forced: bool) -> Result<(Outcome, Record), Setback> {
        let (spec, store) = (self.outlook.spec, self.outlook.store);
        let node = &spec.nodes[index];
        let inputs = self.outlook.inputs(node, known)?;
        let key = inputs.manifest.key();
        let mut lookup = store.lookup(&key)?;
        if let Lookup::Hit(record) = &lookup
            && !forced
        {
            let record = record.clone();
            self.show(node, &inputs, &record)?;
            self.tell.tell(Event::StageFresh { stage: node.name.clone(), key: key.hex() });
            return Ok((Outcome::Fresh, record));
        }
        if !self.options.chosen.contains(&index) {
            let (stage, needs) = (node.name.clone(), self.reader_of(index));
            return Err(match lookup {
                Lookup::Damaged(why) => RunError::Damaged { stage, why }.into(),
                _ => RunError::NotChosen { stage, needs }.into(),
            });
        }

        let purpose = format!("{}/{}", spec.name, node.name);
        let (mut waited, mut last) = (false, None::<String>);
        let lock = store.lock_stage(&key, &purpose, |holder| {
            waited = true;
            let words = holder.map_or_else(|| "an unknown process".to_owned(), ToString::to_string);
            if last.as_ref() != Some(&words) && self.options.wait {
                self.tell.tell(Event::StageWaiting { stage: node.name.clone(), holder: words.clone() });
            }
            last = Some(words);
            self.options.wait && !self.options.stop.requested()
        })?;
        let Some(lock) = lock else {
            if self.options.stop.requested() {
                return Err(StageError::Stopped.into());
            }
            return Err(RunError::Held { holder: last.unwrap_or_default() }.into());
        };
        if waited || !forced {
            // Without a wait too: another may have ended between the look and the lock.
            lookup = if waited { store.lookup_after_waiting(&key)? } else { store.lookup(&key)? };
            if let Lookup::Hit(record) = lookup {
                self.show(node, &inputs, &record)?;
                self.tell.tell(Event::StageFinished { stage: node.name.clone(), key: key.hex(), seconds: 0.0, adopted: true });
                return Ok((Outcome::Adopted, record));
            }
        }

        if let Some(damaged) = self.damaged_input(node, known)? {
            // Nobody knows since when: it may be what the checkpoints come from.
            store.remove_scratch(&key)?;
            return Err(Setback::Damaged(damaged));
        }
        let why = if forced { Why::Forced } else { self.why(node, &inputs, &lookup)? };
        self.tell.tell(Event::StageStarted {
            stage: node.name.clone(),
            kind: node.kind.clone(),
            key: key.hex(),
            why: why.to_string(),
        });
        let clock = Stopwatch::start();
        let record = self.work(node, &inputs, known, forced, &lock)?;
        let seconds = clock.seconds();
        self.tell.tell(Event::StageFinished { stage: node.name.clone(), key: key.hex(), seconds, adopted: false });
        Ok((Outcome::Ran { why, seconds }, record))
    }

    /// Runs the stage and publishes what it wrote.
    fn work(&self, node: &Node, inputs: &Inputs, known: &Known, forced: bool, lock: &StageLock) -> Result<Record, Setback> {
        let store = self.outlook.store;
        let key = inputs.manifest.key();
        let stage = self.outlook.stage(node)?;
        let clock = Stopwatch::start();
        let memory = Watch::start();
        let resumed = store.has_scratch(&key);
        let out = store.draft()?;
        let raw = inputs.raw.iter().map(|(file, digest, _)| (file.name.to_string(), *digest)).collect();
        let cx = Context::new(
            &node.name,
            self.options.device.clone(),
            Outlook::seed(node),
            self.outlook.places,
            self.options.stop.clone(),
            store.scratch(&inputs.manifest, lock)?,
            out.path().to_owned(),
            &self.tell,
        )
        .with_raw(raw)
        .with_lock(lock)
        .with_origin(origin(&inputs.manifest, node))
        .with_checkpoint_every(self.options.checkpoint_every);
        let before = self.identities(node, known)?;
        let ran = stage.run(&node.settings, &inputs.offers, &cx);
        // Whatever the stage says of bytes that were written to meanwhile, it does not count.
        let damaged = self.damaged_input(node, known)?;
        if damaged.is_some() || self.identities(node, known)? != before {
            store.remove_scratch(&key)?;
            return Err(damaged.map_or(Setback::Mended, Setback::Damaged));
        }
        let drafts = ran.map_err(|error| match lock.check() {
            // Whatever it says then comes of that.
            Err(taken @ StoreError::Taken { .. }) => taken.into(),
            _ => named(error, out.path(), &node.name),
        })?;

        let stamps: Vec<_> = inputs.raw.par_iter().map(|(file, _, _)| Stamp::of(&file.path)).collect();
        for ((file, _, before), after) in inputs.raw.iter().zip(stamps) {
            if after? != *before {
                return Err(RunError::Moved { path: file.path.display().to_string() }.into());
            }
        }
        let mut outputs = BTreeMap::new();
        for AnyDraft { output, artifact, files } in &drafts {
            let files: Vec<NewFile<'_>> =
                files.iter().map(|file| NewFile { name: file.name, path: &file.path, logical: file.logical }).collect();
            outputs.insert((*output).to_owned(), store.publish_output(artifact, &files)?);
        }
        let mut facts = Provenance {
            seconds: clock.seconds(),
            threads: self.options.threads,
            peak_memory: memory.peak(),
            host: Some(lock::host()),
            ..Provenance::default()
        };
        if resumed {
            facts.notes.insert("resumed".into(), "from a checkpoint; the seconds are those of the last attempt".into());
        }
        // By this later runs tell how long they will take.
        if let Some(images) = rows(&inputs.offers) {
            facts.notes.insert(IMAGES.into(), images.to_string());
        }
        facts.notes.extend(cx.kept().into_iter().map(|(name, lines)| (name.to_owned(), lines.join("\n"))));
        let _until_shown = self.publishing.read().unwrap_or_else(PoisonError::into_inner);
        let published = store.publish(&inputs.manifest, outputs, facts)?;
        store.remove_scratch(&key)?;
        if published.differed && forced {
            return Err(RunError::Unsteady { key: key.to_string() }.into());
        }
        self.show(node, inputs, &published.record)?;
        Ok(published.record)
    }

    /// Why a stage runs. It waits while others are between record and view: a result of the same kind that is not shown yet would
    /// pass for an earlier one of this stage.
    fn why(&self, node: &Node, inputs: &Inputs, lookup: &Lookup) -> Result<Why, RunError> {
        let _all_shown = self.publishing.write().unwrap_or_else(PoisonError::into_inner);
        self.outlook.why(node, &inputs.manifest, lookup)
    }

    /// Puts the result under its readable name.
    fn show(&self, node: &Node, inputs: &Inputs, record: &Record) -> Result<(), RunError> {
        self.outlook.store.update_view(&self.outlook.spec.name, &node.name, &inputs.manifest, record)?;
        Ok(())
    }

    fn reader_of(&self, index: usize) -> String {
        let reads = |node: &&Node| graph::inputs(node).any(|above| above == index);
        self.outlook.spec.nodes.iter().find(reads).map_or_else(String::new, |node| node.name.clone())
    }
}

/// What a table says of where it comes from. Names of stages and files are in no key, so they are not in here either.
fn origin(manifest: &Manifest, node: &Node) -> BTreeMap<String, Value> {
    let inputs: BTreeMap<&String, Value> = manifest.inputs.iter().map(|(port, input)| (port, json!(input))).collect();
    let mut origin = BTreeMap::from([
        ("stage".to_owned(), json!(manifest.kind)),
        ("key".to_owned(), json!(manifest.key().hex())),
        ("inputs".to_owned(), json!(inputs)),
    ]);
    if manifest.seed.is_some() {
        origin.insert("seed".to_owned(), json!(node.seed));
    }
    origin
}

/// Names the output where an error names the private folder it was written to. Where the machine or the store is at fault, the place
/// is what matters.
fn named(error: StageError, draft: &Path, stage: &str) -> RunError {
    let (said, diagnosis, draft) = (chain(&error), error.diagnosis(), draft.display().to_string());
    if !said.contains(&draft) || matches!(diagnosis.exit, Exit::Machine | Exit::Store) {
        return error.into();
    }
    RunError::Writing { said: output_named(&said, &draft, stage), diagnosis }
}

fn output_named(said: &str, draft: &str, stage: &str) -> String {
    let (mut text, mut rest) = (String::new(), said);
    while let Some((before, after)) = rest.split_once(draft) {
        let end = after.find(['`', ' ', ':', ',', '\n']).unwrap_or(after.len());
        let output = after[..end].split(['/', '\\']).find(|part| !part.is_empty()).unwrap_or("result");
        text.push_str(&format!("{before}{output} of {stage}"));
        rest = &after[end..];
    }
    text + rest
}

/// The outputs that a node reads: who made each, and its name.
fn wired<'k>(node: &'k Node, known: &'k Known) -> impl Iterator<Item = (usize, &'k str, &'k StoredOutput)> {
    node.ports.values().flatten().filter_map(|reference| {
        let output = known.get(&reference.node)?.outputs.get(reference.output)?;
        Some((reference.node, reference.output, output))
    })
}

/// The note of a record that says how many images its stage read.
pub const IMAGES: &str = "images";

/// How many images a stage reads by its features or images.
fn rows(offers: &Offers) -> Option<usize> {
    let of = |kind: &'static str| {
        let [offer] = offers.get(kind)?.as_slice() else { return None };
        // A table that cannot be read has stopped the stage.
        TableReader::open(offer.files.first()?, kind).ok().map(|table| table.rows())
    };
    // The ports are called as what they take.
    of(Features::KIND).or_else(|| of(Images::KIND))
}

/// True if there will be no result.
fn lost(outcome: Option<&Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Failed { .. } | Outcome::Blocked { .. } | Outcome::Stopped))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_output_and_not_the_folder_it_was_written_to() {
        let said = "`/a/store/tmp/draft-x1/images/images.parquet` holds no images: cannot read `/a/store/tmp/draft-x1`";
        let named = output_named(said, "/a/store/tmp/draft-x1", "data.photos");
        assert_eq!(named, "`images of data.photos` holds no images: cannot read `result of data.photos`");
        let path = Path::new("/a/store/tmp/draft-x1");
        let error =
            |kind: std::io::ErrorKind| StageError::File(fs::FileError::new("write", &path.join("images/x"), kind.into()));
        let data = super::named(error(std::io::ErrorKind::NotFound), path, "s");
        assert_eq!(data.to_string(), "cannot write `images of s`: no such file or folder");
        let full = super::named(error(std::io::ErrorKind::StorageFull), path, "s");
        assert!(chain(&full).contains("draft-x1") && full.exit() == Exit::Machine, "where it is full is what matters");
        assert!(matches!(super::named(StageError::Stopped, path, "s"), RunError::Stage(StageError::Stopped)));
    }
}
