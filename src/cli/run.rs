//! `kinset run`: runs of a pipeline.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::args::{CacheArgs, ClusterArgs, MachineArgs, PipelineArgs, SelectArgs, seconds};
use super::cluster::Where;
use super::common::{Answer, Failure, device_of, namesake, pipeline, places, selection};
use super::expected::Told;
use super::report;
use super::run_cache::{Finished, RunCache, Settings};
use super::terminal::{self, Screen};
use crate::base::clock::Stopwatch;
use crate::base::fault::{Diagnosis, Exit, Fault, chain};
use crate::base::fs::{self, FileError};
use crate::base::search_path::DataPaths;
use crate::base::unit;
use crate::pipeline::cache::Cache;
use crate::pipeline::dispatch::cluster::Cluster;
use crate::pipeline::dispatch::kubernetes::Kubernetes;
use crate::pipeline::dispatch::local::Local;
use crate::pipeline::dispatch::rehearsal::Rehearsal;
use crate::pipeline::dispatch::rules::{CacheRules, Executor};
use crate::pipeline::dispatch::slurm::Slurm;
use crate::pipeline::dispatch::ticket::{Form, Restarts, Worker};
use crate::pipeline::dispatch::watch::{self, Dispatch};
use crate::pipeline::event::{Listener, Tell};
use crate::pipeline::graph::Selected;
use crate::pipeline::journal::{Journal, jobs_of, runs_folder};
use crate::pipeline::run::{self, Jobs, Options, Outcome, Summary};
use crate::pipeline::scalars::Scalars;
use crate::pipeline::spec::Spec;
use crate::pipeline::state::{Devices, Known, Outlook};
use crate::registry;
use crate::remote::Remote;
use crate::report::gather::{Elsewhere, Glance};
use crate::report::{file, scores};
use crate::stage::Stop;
use crate::store::Store;
use crate::store::place::Reach;

/// Run a pipeline: only the stages that are missing or out of date
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset run pipelines/fashion-mini.toml
  kinset run pipelines/fashion-mini.toml --profile smoke
  kinset run pipelines/stl10.toml --set stage.pretext.epochs=5 --until features
  kinset run pipelines/stl10.toml --only scores --force

Signals:
  SIGINT (Ctrl-C), SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 ask to stop: progress is saved, and the run
  ends within two seconds with exit code 75; the same command resumes. Further ones change nothing,
  but a second Ctrl-C, a quarter of a second or more after the first signal, ends it at once (130).")]
pub struct RunArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    /// Fail instead of waiting when another run computes the same stage
    #[arg(long)]
    no_wait: bool,
    /// Save the progress of a stage at least this often
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    checkpoint_every: f64,
    /// Write no report.html at the end
    #[arg(long)]
    no_report: bool,
    /// Print one JSON object at the end instead of tables
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    jobs: WatchArgs,
}

/// How jobs are watched.
#[derive(Debug, Args)]
struct WatchArgs {
    /// With slurm: submit, and leave; the same command comes back to the jobs
    #[arg(long, help_heading = "Cluster")]
    detach: bool,
    /// With slurm or kubernetes: write the scripts or manifests of all jobs into this folder, and submit nothing
    #[arg(long, value_name = "DIR", help_heading = "Cluster", conflicts_with = "detach")]
    dry_run: Option<PathBuf>,
    /// With slurm: cancel the jobs when this command is stopped, instead of leaving them at work
    #[arg(long, help_heading = "Cluster", conflicts_with_all = ["detach", "dry_run"])]
    cancel_on_exit: bool,
}

/// An option that means nothing where the stages run, or one that is missing there.
#[derive(Debug, thiserror::Error)]
enum NotHere {
    #[error("`{option}` is for stages that run on a cluster")]
    Option { option: &'static str },
    #[error("kinset does not talk to Kubernetes itself: it writes manifests")]
    OnlyWritten,
}

impl Fault for NotHere {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Option { .. } => {
                Exit::Usage.code("run::not-here").hint("add `--executor slurm`, or `executor = \"slurm\"` to the cluster file")
            }
            Self::OnlyWritten => Exit::Usage
                .code("run::only-written")
                .hint("add `--dry-run DIR`; then `DIR/submit.sh` applies them by `kubectl`, each when what it reads is done"),
        }
    }
}

pub(super) fn run(args: &RunArgs) -> Answer {
    let spec = pipeline(&args.pipeline)?;
    let selected = selection(&spec, &args.select)?;
    let patience = Patience { wait: !args.no_wait, checkpoint_every: args.checkpoint_every };
    let at = Where::of(&args.cluster, &args.pipeline.pipeline)?;
    let (slurm, kubernetes) = (at.executor == Executor::Slurm, at.executor == Executor::Kubernetes);
    let fits = [
        ("--detach", args.jobs.detach, slurm),
        ("--dry-run", args.jobs.dry_run.is_some(), slurm || kubernetes),
        ("--cancel-on-exit", args.jobs.cancel_on_exit, slurm),
    ];
    if let Some((option, ..)) = fits.into_iter().find(|(_, given, fits)| *given && !fits) {
        return Err(Failure::own(NotHere::Option { option }));
    }
    if kubernetes && args.jobs.dry_run.is_none() {
        return Err(Failure::own(NotHere::OnlyWritten));
    }
    let done = match at.executor {
        Executor::Here => perform(&spec, selected, &args.pipeline, patience, (&args.cache, &at.rules.cache))?,
        _ => distribute(&spec, selected, args, &at)?,
    };
    let Done { summary, store, places, devices, journal, cache } = done;
    let exit = summary.exit();
    if let Some(folder) = &args.jobs.dry_run {
        let what = if kubernetes { "manifest" } else { "script" };
        let files = unit::counted(summary.jobs.submitted as u64, what);
        terminal::say(&format!("wrote {files} and `submit.sh` to `{}`; nothing was submitted", folder.display()));
        // What can only be submitted later is no failure.
        return Ok(if exit == Exit::Stopped { Exit::Done } else { exit });
    }
    let outlook = Outlook { spec: &spec, registry: registry::catalog(), store: &store, places: &places, devices };
    let page = file::place(&args.pipeline.places.artifacts, &spec.name);
    let report = (!args.no_report).then(|| report::after_run(&outlook, &summary.records, page, Elsewhere::default())).flatten();
    let tables = score_tables(&spec, &store, &summary.records)
        .inspect_err(|_| terminal::say(&closing(&spec, &summary, args, at.executor)))?;
    let varied = varied_table(&outlook, &summary.records);
    if args.json {
        terminal::print_json(&as_json(&spec, &summary, &tables, report.as_deref(), cache.as_ref()))?;
        return Ok(exit);
    }
    if !tables.is_empty() {
        terminal::print(&format!("\n{}", scores::render(&tables)))?;
    }
    terminal::say(&closing(&spec, &summary, args, at.executor));
    if let Some(table) = &varied {
        terminal::say(&format!("varied settings: {}", table.display()));
    }
    if let Some(report) = &report {
        terminal::say(&format!("report: {}", report.display()));
    }
    if let Some(folder) = journal.folder() {
        terminal::say(&format!("events: {}", folder.join("events.jsonl").display()));
    }
    Ok(exit)
}

/// How long a run waits for others, and for its next checkpoint.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Whether it waits when another run computes the same stage.
    pub(super) wait: bool,
    /// Seconds between checkpoints, at most.
    pub(super) checkpoint_every: f64,
}

impl Default for Patience {
    fn default() -> Self {
        Self { wait: true, checkpoint_every: 60.0 }
    }
}

/// A run that has ended, and where it took place.
pub(super) struct Done {
    pub(super) summary: Summary,
    pub(super) store: Store,
    pub(super) places: DataPaths,
    pub(super) devices: Devices,
    pub(super) journal: Journal,
    pub(super) cache: Option<Finished>,
}

/// Runs the selected stages on the screen and in the journal, until a signal.
pub(super) fn perform(
    spec: &Spec,
    selected: Selected,
    args: &PipelineArgs,
    patience: Patience,
    (cache, rules): (&CacheArgs, &CacheRules),
) -> Result<Done, Failure> {
    let stop = stop_on_signals()?;
    let (device, devices) = device_of(spec)?;
    let artifacts = &args.places.artifacts;
    let store = Store::open(artifacts)?;
    let cache = RunCache::of(cache, rules, artifacts, &stop)?;
    if let Some(note) = of_shared(&store) {
        terminal::say(&note);
    }
    let places = places(&args.places, Some(&args.pipeline));
    let journal = Journal::new(runs_folder(artifacts, &spec.name));
    let screen = Screen::new();
    warn_of_namesake(spec, args);
    let scalars = Scalars::new(&journal);
    let outlook = Outlook { spec, registry: registry::catalog(), store: &store, places: &places, devices: devices.clone() };
    let say = |text: &str| screen.expect(text);
    let told = Told::new(outlook, selected.clone(), &say);
    let listeners: [&dyn Listener; 4] = [&screen, &journal, &scalars, &told];
    let options = Options {
        registry: registry::catalog(),
        chosen: selected.nodes,
        forced: selected.forced,
        threads: rayon::current_num_threads(),
        device,
        devices: devices.clone(),
        shows: true,
        wait: patience.wait,
        checkpoint_every: Duration::from_secs_f64(patience.checkpoint_every),
        stop,
        cache: for_engine(cache.as_ref()),
    };
    let summary = run::run(spec, &store, &places, &options, Tell(&listeners))?;
    let cache = cache.map(|cache| cache.finish());
    Ok(Done { summary, store, places, devices, journal, cache })
}

/// The cache as the engine knows it.
pub(super) fn for_engine(cache: Option<&Arc<RunCache>>) -> Option<Arc<dyn Cache>> {
    cache.map(|cache| Arc::clone(cache) as Arc<dyn Cache>)
}

/// How often files of jobs, and processes, are looked at.
const TICK: Duration = Duration::from_millis(50);
const TICK_OF_CLUSTER: Duration = Duration::from_millis(500);

/// Runs the selected stages by jobs, on the screen and in the journal.
fn distribute(spec: &Spec, selected: Selected, args: &RunArgs, at: &Where) -> Result<Done, Failure> {
    let artifacts = &args.pipeline.places.artifacts;
    let dry = args.jobs.dry_run.as_deref();
    // Processes of this machine stop first, and then this one, which has seen how.
    let stop = stop_on_signals_within(|_| GRACE + Duration::from_secs(2), |_| ())?.stop;
    let (device, devices) = (at.device(spec)?, at.devices(spec)?);
    let store = if dry.is_some() { Store::open_to_read(artifacts)? } else { Store::open(artifacts)? };
    let settings = Settings::of(&args.cache, &at.rules.cache)?;
    let cache = match &settings {
        // Nobody is asked, but for whether a worker could.
        Some(settings) if dry.is_some() && !Remote::is_built() => settings.open().map(|_| None)?,
        Some(settings) if dry.is_none() => RunCache::with(settings, artifacts, &stop)?,
        _ => None,
    };
    if let Some(note) = of_shared(&store) {
        terminal::say(&note);
    }
    let places = places(&args.pipeline.places, Some(&args.pipeline.pipeline));
    let runs = runs_folder(artifacts, &spec.name);
    let journal = Journal::new(runs.clone());
    let screen = Screen::new();
    if dry.is_none() {
        warn_of_namesake(spec, &args.pipeline);
    }
    let scalars = Scalars::new(&journal);
    let whole = |path: &Path| std::path::absolute(path).map_err(|error| FileError::new("look for", path, error));
    let kinset = std::env::current_exe().map_err(|error| FileError::new("look for", Path::new("this program"), error))?;
    let threads = rayon::current_num_threads();
    let mut rules = at.rules.clone();
    let memory = args.machine.memory;
    let (cluster, worker): (Box<dyn Cluster>, Worker) = match (at.executor, dry) {
        (Executor::Local(count), _) => {
            // What is true of nodes elsewhere is not of this machine.
            rules = rules.on_this_machine();
            rules.limits.settle = Duration::ZERO;
            let threads = u16::try_from((threads / count).max(1)).ok();
            let memory = memory.map(|bytes| bytes / count as u64);
            (Box::new(Local::new(kinset, count)), Worker { threads, memory })
        }
        (_, None) => (Box::new(Slurm::new(kinset, rules.clone())), Worker { threads: None, memory }),
        (executor, Some(folder)) => {
            fs::create_folders(folder)?;
            let worker = Worker { threads: None, memory };
            if executor == Executor::Kubernetes {
                // What ends a pod asks it to stop first, with as much time as a warning leaves.
                rules.requeue.signal = "TERM".into();
                (Box::new(Kubernetes::new(rules.clone(), whole(folder)?, &whole(artifacts)?)?), worker)
            } else {
                (Box::new(Rehearsal::new(Slurm::new(kinset, rules.clone()), folder.to_owned())), worker)
            }
        }
    };
    let data = match &rules.data {
        Some(data) => whole(data)?,
        None => whole(places.data())?,
    };
    let form = Form {
        pipeline: spec.name.clone(),
        file: whole(&spec.path)?,
        text: spec.text.clone(),
        request: spec.request.clone(),
        artifacts: whole(artifacts)?,
        places: DataPaths::new(whole(&places.file(Path::new(".")))?, Some(data), None).with_hub(whole(places.hub())?),
        devices: devices.clone(),
        checkpoint_every: args.checkpoint_every,
        settle: rules.limits.settle.as_secs_f64(),
        restarts: Restarts {
            times: rules.requeue.times,
            signal: rules.requeue.signal.clone(),
            without_progress: rules.requeue.without_progress,
        },
        // Where each stage is submitted when its inputs are there, this process has asked for it.
        cache: settings.filter(|_| cluster.keeps_order()).map(|settings| settings.ticket()),
    };
    let folder = || match dry {
        Some(folder) => std::path::absolute(folder).map_err(|error| FileError::new("look for", folder, error)),
        None => Ok(jobs_of(&fs::absolute(&journal.begin()?)?)),
    };
    let options = Options {
        registry: registry::catalog(),
        chosen: selected.nodes,
        forced: selected.forced,
        threads,
        device,
        devices: devices.clone(),
        shows: dry.is_none(),
        wait: !args.no_wait,
        checkpoint_every: Duration::from_secs_f64(args.checkpoint_every),
        stop: stop.clone(),
        cache: for_engine(cache.as_ref()),
    };
    let listeners: [&dyn Listener; 3] = [&screen, &journal, &scalars];
    let forward: [&dyn Listener; 2] = [&screen, &scalars];
    let dispatch = Dispatch {
        cluster: &*cluster,
        rules: &rules,
        form: &form,
        folder: &folder,
        runs,
        forward: Tell(&forward),
        detach: args.jobs.detach || dry.is_some(),
        cancel: args.jobs.cancel_on_exit,
        worker,
        tick: if cluster.keeps_order() { TICK_OF_CLUSTER } else { TICK },
    };
    // Without a trace: nothing has happened.
    let tell: &[&dyn Listener] = if dry.is_some() { &listeners[..1] } else { &listeners };
    let summary = watch::run(spec, &store, &places, &options, &dispatch, Tell(tell))?;
    let cache = cache.map(|cache| cache.finish());
    Ok(Done { summary, store, places, devices, journal, cache })
}

/// What runs on several machines can rely on, where locks do not tell them apart.
fn of_shared(store: &Store) -> Option<String> {
    let which = match store.reach() {
        Reach::Machine | Reach::Cluster => return None,
        Reach::Node => "whose locks hold on this machine only",
        Reach::Nowhere => "without locks",
    };
    Some(format!(
        "note: `{}` is on a file system {which}: runs on several machines are kept apart by leases, and one whose machine \
         dies is waited for up to ten minutes",
        store.artifacts().display()
    ))
}

/// Says which other pipeline shows its results under the same name.
fn warn_of_namesake(spec: &Spec, args: &PipelineArgs) {
    let artifacts = &args.places.artifacts;
    if let Some(other) = namesake(&spec.name, artifacts, Some(&args.pipeline)) {
        let (name, other, folder) = (&spec.name, other.display(), artifacts.join(&spec.name));
        terminal::say(&format!(
            "warning: `{other}` is also called `{name}`: this run replaces its views and its report in `{}`; change `name` in one of them",
            folder.display()
        ));
    }
}

/// The scores of these results, which are also written beside them.
pub(super) fn score_tables(spec: &Spec, store: &Store, known: &Known) -> Result<Vec<scores::Scored>, Failure> {
    let tables = scores::collect(spec, store, known)?;
    if let Err(error) = scores::write_tables(&tables, store, &spec.name) {
        terminal::say(&format!("warning: no `{}`: {}; the results are not touched by this", scores::TABLE, chain(&error)));
    }
    Ok(tables)
}

/// Writes what all combinations of varied settings gave beside the report, as `scores.csv` and `scores.json`: one line for each of them,
/// each thing that was measured and each seed.
fn varied_table(outlook: &Outlook<'_>, known: &Known) -> Option<PathBuf> {
    if outlook.spec.nodes.iter().all(|node| node.varied.is_empty()) {
        return None;
    }
    let (csv, json) = Glance::after(outlook, known).varied()?;
    let table = outlook.store.artifacts().join(&outlook.spec.name).join(scores::TABLE);
    let text = format!("{json:#}\n");
    let written = fs::write_atomic(&table, csv.as_bytes())
        .and_then(|()| fs::write_atomic(&table.with_extension("json"), text.as_bytes()));
    written
        .inspect_err(|error| {
            let name = table.display();
            terminal::say(&format!("warning: no `{name}`: {}; the results are not touched by this", chain(error)));
        })
        .ok()
        .map(|()| table)
}

/// How long what is at work may take to keep its progress: well within two seconds of the signal the process has ended.
pub(super) const GRACE: Duration = Duration::from_millis(1600);

/// Ctrl-C that comes again so soon is the first one, passed on by a program between the terminal and this one.
const ECHO: Duration = Duration::from_millis(250);

/// The first signal asks to stop, and a little later the process ends whether or not everybody has heard: results and checkpoints
/// are whole at any moment. A second Ctrl-C ends it at once, with 128 and its number. No other signal does when it is repeated: a
/// scheduler sends the same one to a job's steps and to its script, which passes it on, some milliseconds apart.
pub(super) fn stop_on_signals() -> Result<Stop, Failure> {
    Ok(stop_on_signals_within(|_| GRACE, |_| ())?.stop)
}

/// A request to stop, and the signal that it came by.
pub(super) struct Heard {
    pub(super) stop: Stop,
    pub(super) signal: HeardSignal,
}

/// The first signal that was heard.
#[derive(Clone, Default)]
pub(super) struct HeardSignal(Arc<AtomicI32>);

impl HeardSignal {
    /// What a scheduler calls it.
    pub(super) fn name(&self) -> Option<&'static str> {
        match self.0.load(Ordering::Relaxed) {
            SIGINT => Some("INT"),
            SIGTERM => Some("TERM"),
            SIGUSR1 => Some("USR1"),
            SIGUSR2 => Some("USR2"),
            SIGHUP => Some("HUP"),
            _ => None,
        }
    }
}

/// As [`stop_on_signals`], with as much time as `grace` has for a signal, and `last` before the process is ended without waiting.
pub(super) fn stop_on_signals_within(
    grace: impl Fn(&str) -> Duration + Send + 'static,
    last: impl FnOnce(&str) + Send + 'static,
) -> Result<Heard, Failure> {
    let failed = |error| FileError::new("listen to signals of", Path::new("this process"), error);
    let status = fs::read_text(Path::new("/proc/self/status")).unwrap_or_default();
    // Schedulers announce the end of a job's time by a signal that a person chooses; `USR1` and `USR2` are the usual ones.
    let mut signals = vec![SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
    // A terminal that is closed; `nohup` has that ignored, and means it.
    if !ignores(&status, SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut heard = Signals::new(&signals).map_err(failed)?;
    let ours = Heard { stop: Stop::default(), signal: HeardSignal::default() };
    let asks = Heard { stop: ours.stop.clone(), signal: ours.signal.clone() };
    let wait = move || {
        let Some(first) = heard.forever().next() else { return };
        asks.signal.0.store(first, Ordering::Relaxed);
        asks.stop.request();
        let asked = Stopwatch::start();
        let name = asks.signal.name().unwrap_or_default();
        let grace = grace(name);
        while asked.elapsed() < grace {
            std::thread::sleep(Duration::from_millis(20));
            if heard.pending().any(|signal| signal == SIGINT) && asked.elapsed() > ECHO {
                signal_hook::low_level::exit(128 + SIGINT);
            }
        }
        last(name);
        // Standard error may be held by somebody who waits for a terminal that has gone.
        let _ = std::thread::Builder::new().spawn(|| terminal::say(LATE));
        std::thread::sleep(Duration::from_millis(100));
        signal_hook::low_level::exit(Exit::Stopped as i32);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    Ok(ours)
}

const LATE: &str = "\nstopped without waiting for the current step; the same command resumes from the last checkpoint";

/// Does a process with this status, as Linux shows it, ignore a signal? Not known elsewhere, and then no.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn closing(spec: &Spec, summary: &Summary, args: &RunArgs, executor: Executor) -> String {
    let time = unit::duration(Duration::from_secs_f64(summary.seconds));
    let count = |is: fn(&Outcome) -> bool| summary.outcomes.iter().filter(|o| is(o)).count();
    let stages = |count: usize| unit::counted(count as u64, "stage");
    let (ran, fresh) = (summary.ran().count(), count(|o| matches!(o, Outcome::Fresh)));
    let (failed, blocked) = (count(|o| matches!(o, Outcome::Failed { .. })), count(|o| matches!(o, Outcome::Blocked { .. })));
    let adopted = count(|o| matches!(o, Outcome::Adopted));
    let pulled = count(|o| matches!(o, Outcome::Pulled { .. }));
    let folder = args.pipeline.places.artifacts.join(&spec.name);
    let submitted = count(|o| matches!(o, Outcome::Submitted));
    let counted = |jobs: usize| unit::counted(jobs as u64, "job");
    let of_jobs = match summary.jobs {
        Jobs { submitted: 0, attached: 0 } => String::new(),
        Jobs { submitted, attached: 0 } => format!("; {} submitted", counted(submitted)),
        Jobs { submitted, attached } => format!("; re-attached {}, {} submitted", counted(attached), counted(submitted)),
    };
    let pipeline = args.pipeline.pipeline.display();
    let back = format!(
        "the same command comes back to the jobs; `kinset jobs {pipeline}` lists them, `kinset jobs {pipeline} --cancel` cancels them"
    );
    match summary.exit() {
        Exit::Done if submitted > 0 => format!("\n{} in jobs{of_jobs}\n{back}", stages(submitted)),
        Exit::Done if ran == 0 && adopted == 0 && pulled == 0 => format!("\nnothing to do, {} fresh ({time})", stages(fresh)),
        Exit::Done => {
            let by_others = if adopted > 0 { format!(", {adopted} by another run") } else { String::new() };
            let from_cache = if pulled > 0 { format!(", {pulled} from the cache") } else { String::new() };
            format!(
                "\n{} ran{by_others}{from_cache}, {fresh} fresh, in {time}{of_jobs}; results are in {}",
                stages(ran),
                folder.display()
            )
        }
        Exit::Stopped if executor == Executor::Slurm && !args.jobs.cancel_on_exit && summary.jobs != Jobs::default() => {
            format!("\nstopped watching after {time}{of_jobs}; jobs go on\n{back}")
        }
        Exit::Stopped => format!("\nstopped after {time}; the same command resumes from here"),
        _ => format!("\n{} failed, {blocked} could not run, {ran} ran, {fresh} fresh, in {time}{of_jobs}", stages(failed)),
    }
}

fn as_json(
    spec: &Spec,
    summary: &Summary,
    tables: &[scores::Scored],
    report: Option<&Path>,
    cache: Option<&Finished>,
) -> Value {
    let stages: Vec<Value> = spec
        .nodes
        .iter()
        .zip(&summary.outcomes)
        .enumerate()
        .map(|(index, (node, outcome))| {
            let mut stage = json!({ "stage": node.name, "kind": node.kind });
            let state = match outcome {
                Outcome::Fresh => "fresh",
                Outcome::Ran { why, seconds } => {
                    stage["why"] = json!(why.to_string());
                    stage["seconds"] = json!(seconds);
                    "ran"
                }
                Outcome::Adopted => "adopted",
                Outcome::Pulled { bytes } => {
                    stage["bytes"] = json!(bytes);
                    "pulled"
                }
                Outcome::Failed { error } => {
                    stage["error"] = json!({ "code": error.code(), "message": chain(error), "hint": error.hint() });
                    "failed"
                }
                Outcome::Stopped => "stopped",
                Outcome::Blocked { by } => {
                    stage["by"] = json!(by);
                    "blocked"
                }
                Outcome::Skipped => "skipped",
                Outcome::Submitted => "submitted",
            };
            stage["state"] = json!(state);
            if let Some(record) = summary.records.get(&index) {
                stage["key"] = json!(record.key.hex());
                let contents: serde_json::Map<String, Value> =
                    record.outputs.iter().map(|(name, output)| (name.clone(), json!(output.content))).collect();
                stage["outputs"] = Value::Object(contents);
            }
            stage
        })
        .collect();
    json!({
        "pipeline": spec.name,
        "exit": summary.exit() as u8,
        "seconds": summary.seconds,
        "jobs": { "submitted": summary.jobs.submitted, "attached": summary.jobs.attached },
        "ran": summary.ran().map(|index| spec.nodes[index].name.clone()).collect::<Vec<_>>(),
        "stages": stages,
        "scores": tables,
        "report": report.map(|path| path.display().to_string()),
        "cache": cache.map(Finished::as_json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_nohup_has_ignored_is_known_from_the_status() {
        let status = "Name:\tkinset\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n";
        assert!(ignores(status, SIGHUP) && ignores(status, 13) && !ignores(status, SIGINT));
        assert!(!ignores("", SIGHUP) && !ignores("SigIgn:\tx", SIGHUP));
    }
}
