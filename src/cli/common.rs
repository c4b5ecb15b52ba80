//! Steps that most commands share: a checked pipeline, a store, the places of raw data.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use candle_core::Device;

use super::args::{ClusterArgs, PipelineArgs, PlaceArgs, SelectArgs};
use super::cluster::Where;
use super::terminal;
use crate::artifact::encoder::Classifier;
use crate::artifact::error::ArtifactError;
use crate::artifact::probe::Probe;
use crate::artifact::{Artifact, Stored};
use crate::base::fault::{Diagnosis, Exit, Fault, chain};
use crate::base::fs;
use crate::base::output::{self, Output, OutputError};
use crate::base::search_path::DataPaths;
use crate::pipeline::fault::Faults;
use crate::pipeline::graph::{self, Selected, Selection};
use crate::pipeline::journal;
use crate::pipeline::spec::{self, Request, Spec};
use crate::pipeline::state::{self, Devices, Known, Outlook, State};
use crate::registry;
use crate::report::names;
use crate::store::Store;
use crate::store::digest::Digest;
use crate::train::device::DeviceName;

/// Why a command did not do what it was asked.
pub(super) enum Failure {
    /// Faults of a pipeline file.
    Faults(Faults),
    Fault(Box<dyn Fault>),
}

/// Every error of a crate is a fault; one line each, because [`Faults`] is one too and shall be shown in its own way.
macro_rules! faults {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(fault: $error) -> Self {
                Self::Fault(Box::new(fault))
            }
        })*
    };
}

faults!(
    ArtifactError,
    fs::FileError,
    OutputError,
    crate::dataset::DatasetError,
    crate::dataset::fetch::FetchError,
    crate::dataset::names::NamesError,
    crate::model::ModelError,
    crate::pipeline::dispatch::error::DispatchError,
    crate::pipeline::error::RunError,
    crate::remote::RemoteError,
    crate::stage::StageError,
    crate::store::StoreError,
    crate::train::TrainError,
);

impl Failure {
    /// A fault of the command itself.
    pub(super) fn own(fault: impl Fault + 'static) -> Self {
        Self::Fault(Box::new(fault))
    }

    /// A fault of what is written beside its place, told of the place.
    pub(super) fn of_output(output: &Output, error: ArtifactError) -> Self {
        match error {
            ArtifactError::File(error) => output.named(error).into(),
            error => error.into(),
        }
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

impl Failure {
    pub(super) fn fault(&self) -> &dyn Fault {
        match self {
            Self::Faults(faults) => faults,
            Self::Fault(fault) => &**fault,
        }
    }

    /// What is wrong, on one line.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Faults(faults) => faults.to_string(),
            Self::Fault(fault) => chain(&**fault),
        }
    }

    /// Says what is wrong; returns how the process should end.
    pub(super) fn report(&self) -> Exit {
        match self {
            Self::Faults(faults) => {
                terminal::say_in_color(&faults.render(terminal::colored(), terminal::width()));
                Exit::Pipeline
            }
            Self::Fault(fault) => {
                terminal::error(&**fault);
                fault.exit()
            }
        }
    }
}

/// Ends the process with the code of the machine where an allocation fails that nobody can answer for: the standard library says
/// how much was asked for, and aborts. Any other abort stays one.
pub(super) fn exit_without_memory() {
    #[cfg(unix)]
    {
        let (abort, code) = (signal_hook::consts::SIGABRT, Exit::Machine as i32);
        // Without it the process ends as any other that has no memory.
        let _ = signal_hook::flag::register_conditional_shutdown(abort, code, crate::kernel::memory_refused());
    }
}

/// Threads that the system does not give.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the worker threads")]
struct NoThreads {
    #[source]
    source: rayon::ThreadPoolBuildError,
}

impl Fault for NoThreads {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Machine.code("machine::threads").hint(
            "allow more processes and memory (`ulimit -u`, `ulimit -v`), or ask for fewer threads: `--threads 1`, or \
             RAYON_NUM_THREADS=1 in the environment",
        )
    }
}

/// Starts the threads that all commands compute with, so that nothing starts them where it could not be told that there are none:
/// as many as asked for, else one for each core.
pub(super) fn start_threads(threads: Option<u16>) -> Result<(), Failure> {
    let started = rayon::ThreadPoolBuilder::new().num_threads(threads.map_or(0, usize::from)).build_global();
    match started {
        // Without a source it says that they were started before.
        Err(source) if std::error::Error::source(&source).is_some() => Err(Failure::own(NoThreads { source })),
        _ => Ok(()),
    }
}

/// What a command returns.
pub(super) type Answer = Result<Exit, Failure>;

pub(super) fn pipeline(args: &PipelineArgs) -> Result<Spec, Failure> {
    pipeline_with(args, None)
}

/// A pipeline with what a command adds to its file.
pub(super) fn pipeline_with(args: &PipelineArgs, added: Option<String>) -> Result<Spec, Failure> {
    let PipelineArgs { profile, set, seed, device, .. } = args.clone();
    Ok(spec::load(&args.pipeline, &Request { profile, set, seed, device, added }, &registry::catalog())?)
}

/// Another pipeline file whose last run shows its results under this name, if it still has it. `own` is the file that is meant.
pub(super) fn namesake(name: &str, artifacts: &Path, own: Option<&Path>) -> Option<PathBuf> {
    let other = journal::last_pipeline(&journal::runs_folder(artifacts, name))?;
    // One that is gone or renamed is in nobody's way.
    let found = fs::absolute(&other).ok()?;
    let same = own.is_some_and(|own| fs::absolute(own).is_ok_and(|own| own == found));
    let spec = if same { None } else { spec::load(&other, &Request::default(), &registry::catalog()).ok() };
    spec.filter(|spec| spec.name == name).map(|_| other)
}

/// Where raw data are looked for. A source's own `root` is relative to the pipeline file.
pub(super) fn places(args: &PlaceArgs, pipeline: Option<&Path>) -> DataPaths {
    // A pipe or `/dev/stdin` lies nowhere near the data: paths are then relative to the current folder.
    let file = pipeline.filter(|path| fs::metadata(path).is_ok_and(|found| found.is_some_and(|found| found.is_file())));
    let base = file.and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
    DataPaths::new(base, args.data.clone(), std::env::var_os("KINSET_DATA").map(Into::into)).with_hub(hub())
}

/// Where Hugging Face's tools keep what they fetched, by the variables that they obey.
fn hub() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").or_else(|| set("USERPROFILE")).unwrap_or_default();
    set("HF_HUB_CACHE").unwrap_or_else(|| {
        let cache = || set("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("huggingface");
        set("HF_HOME").unwrap_or_else(cache).join("hub")
    })
}

/// Why no card is used is said once, however often a command asks for the device.
static SAID: std::sync::Once = std::sync::Once::new();

/// The device of a pipeline on this machine, and its class for keys.
pub(super) fn device_of(spec: &Spec) -> Result<(Device, Devices), Failure> {
    let opened = spec.device.parse::<DeviceName>()?.open()?;
    if let Some(why) = &opened.passed_over {
        SAID.call_once(|| terminal::say(&format!("the processor computes, not a card: {why}")));
    }
    Ok((opened.tensors, opened.class.word().into()))
}

pub(super) fn selection(spec: &Spec, args: &SelectArgs) -> Result<Selected, Failure> {
    let selection = Selection {
        only: args.only.clone(),
        from: args.from.clone(),
        until: args.until.clone(),
        force: args.force.then(Vec::new),
    };
    Ok(graph::select(spec, &selection)?)
}

/// A result in the store whose type is only known by name.
pub(super) struct Held {
    /// The stage it came from, and its output if that is not the main one.
    pub(super) stage: String,
    pub(super) node: usize,
    pub(super) kind: String,
    pub(super) files: Vec<PathBuf>,
    pub(super) digest: Digest,
}

impl Held {
    pub(super) fn typed<A: Artifact>(&self) -> Stored<A> {
        Stored::new(self.files.clone(), self.digest, self.stage.clone())
    }
}

/// There is no such result.
#[derive(Debug, thiserror::Error)]
enum NoResult {
    #[error("there is no stage `{name}`")]
    Unknown { name: String, nearest: Option<String> },
    #[error("`{name}` has no such output: expected {wanted}, it gives {found}")]
    Other { name: String, wanted: String, found: String },
    #[error("`{name}` has no valid cached result in `{artifacts}`")]
    Stale { name: String, artifacts: String },
}

impl Fault for NoResult {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Unknown { nearest, .. } => Exit::Usage
                .code("result::no-such-stage")
                .hint_if(nearest.as_ref().map(|name| format!("did you mean `{name}`?"))),
            Self::Other { .. } => Exit::Usage.code("result::other-kind"),
            Self::Stale { .. } => Exit::Run.code("result::stale").hint(NOT_THERE),
        }
    }
}

/// What to do where a result is looked for and not found.
pub(super) const NOT_THERE: &str = "run the pipeline first, or name the folder of its results with `--artifacts DIR`; \
                                    `kinset explain PIPELINE STAGE` shows why it would run";

/// The folder in which results are looked for, as it was named.
pub(super) fn looked_in(outlook: &Outlook<'_>) -> String {
    outlook.store.artifacts().display().to_string()
}

/// The result of `STAGE` or `STAGE.OUTPUT`; of several outputs the first of these kinds.
pub(super) fn stored(spec: &Spec, outlook: &Outlook<'_>, written: &str, kinds: &[&str]) -> Result<Held, Failure> {
    let find = |name: &str| spec.nodes.iter().position(|node| node.name == name);
    let (index, output) = match (find(written), written.rsplit_once('.')) {
        (Some(index), _) => (index, None),
        (None, Some((name, output))) if find(name).is_some() => (find(name).unwrap_or(0), Some(output)),
        (None, _) => {
            // Of repetitions, and of what varies, one has to be named.
            let one = spec.nodes.iter().find(|node| node.is_called(written)).map(|node| node.name.as_str());
            let nearest =
                one.or_else(|| crate::base::fault::nearest(written, spec.nodes.iter().map(|node| node.name.as_str())));
            return Err(Failure::own(NoResult::Unknown { name: written.to_owned(), nearest: nearest.map(str::to_owned) }));
        }
    };
    let states = outlook.states(&BTreeSet::new());
    let State::Fresh { record, .. } = &states[index] else {
        return Err(Failure::own(NoResult::Stale { name: spec.nodes[index].name.clone(), artifacts: looked_in(outlook) }));
    };
    let fits = |name: &str, kind: &str| output.is_none_or(|output| output == name) && kinds.contains(&kind);
    let chosen =
        kinds.iter().find_map(|kind| record.outputs.iter().find(|(name, found)| found.kind == **kind && fits(name, kind)));
    let Some((output, found)) = chosen else {
        let list = |names: Vec<String>| names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
        return Err(Failure::own(NoResult::Other {
            name: written.to_owned(),
            wanted: list(kinds.iter().map(|&kind| kind.to_owned()).collect()),
            found: list(record.outputs.values().map(|found| found.kind.clone()).collect()),
        }));
    };
    state::intact(outlook.store, written, output, found)?;
    Ok(Held {
        stage: written.to_owned(),
        node: index,
        kind: found.kind.clone(),
        files: found.files.iter().map(|file| outlook.store.blob_path(&file.blob)).collect(),
        digest: found.content,
    })
}

/// All results of a pipeline that are there.
pub(super) fn known(outlook: &Outlook<'_>) -> Known {
    let states = outlook.states(&BTreeSet::new()).into_iter().enumerate();
    states
        .filter_map(|(index, state)| if let State::Fresh { record, .. } = state { Some((index, *record)) } else { None })
        .collect()
}

/// A classifier or a probe, and what a person calls its clusters or classes, `[K]`; no names if nobody named any, or `by_number` says
/// that nobody asks.
pub(super) fn classifier_of(outlook: &Outlook<'_>, held: &Held, by_number: bool) -> Result<(Classifier, Vec<String>), Failure> {
    if held.kind == Probe::KIND {
        let Probe { names, classifier } = Probe::load(&held.typed())?;
        return Ok((classifier, if by_number { Vec::new() } else { names }));
    }
    let classifier = Classifier::load(&held.typed())?;
    if by_number {
        return Ok((classifier, Vec::new()));
    }
    let clusters = classifier.card.clusters;
    let found = names::of_classifier(outlook, &known(outlook), held.node, clusters)?;
    let named = found.filter(|(_, names)| !names.clusters.is_empty()).map(|(_, names)| names.of_clusters(clusters));
    Ok((classifier, named.unwrap_or_default()))
}

/// Refuses a place for an output that the pipeline reads: its file, its raw data, anything in the store.
///
/// # Errors
/// [`OutputError::Source`].
pub(super) fn not_an_input(place: &Path, args: &PipelineArgs, outlook: &Outlook<'_>) -> Result<(), Failure> {
    output::not_over(place, [args.pipeline.as_path()])?;
    let (store, folder) = (fs::absolute(outlook.store.root()), fs::absolute(fs::parent(place)));
    if matches!((store, folder), (Ok(store), Ok(folder)) if folder.starts_with(&store)) {
        return Err(OutputError::Source { path: place.display().to_string() }.into());
    }
    if !fs::exists(place) {
        return Ok(());
    }
    for node in &outlook.spec.nodes {
        // Raw data that cannot be had cannot be overwritten either.
        let raw = outlook.stage(node)?.raw_files(&node.settings, outlook.places).unwrap_or_default();
        output::not_over(place, raw.iter().map(|file| file.path.as_path()))?;
    }
    Ok(())
}

/// Calls back with the outlook on a pipeline, over a store that is only read.
pub(super) fn outlook<T>(
    args: &PipelineArgs,
    look: impl FnOnce(&Spec, &Outlook<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    outlook_at(args, &ClusterArgs::default(), look)
}

/// The same for stages that run where the command line says.
pub(super) fn outlook_at<T>(
    args: &PipelineArgs,
    cluster: &ClusterArgs,
    look: impl FnOnce(&Spec, &Outlook<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let spec = pipeline(args)?;
    let store = Store::open_to_read(&args.places.artifacts)?;
    let places = places(&args.places, Some(&args.pipeline));
    let devices = Where::of(cluster, &args.pipeline)?.devices(&spec)?;
    look(&spec, &Outlook { spec: &spec, registry: registry::catalog(), store: &store, places: &places, devices })
}
