//! `kinset run`: runs of a pipeline.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use super::args::{PipelineArgs, SelectArgs, seconds};
use super::common::{Answer, Failure, device_of, namesake, pipeline, places, selection};
use super::expected::Told;
use super::report;
use super::terminal::{self, Screen};
use crate::base::clock::Stopwatch;
use crate::base::fault::{Exit, Fault, chain};
use crate::base::fs::{self, FileError};
use crate::base::search_path::DataPaths;
use crate::base::unit;
use crate::pipeline::event::{Listener, Tell};
use crate::pipeline::graph::Selected;
use crate::pipeline::journal::{Journal, runs_folder};
use crate::pipeline::run::{self, Options, Outcome, Summary};
use crate::pipeline::scalars::Scalars;
use crate::pipeline::spec::Spec;
use crate::pipeline::state::{Known, Outlook};
use crate::registry;
use crate::report::gather::Elsewhere;
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
    /// Number of threads; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) threads: Option<u16>,
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
}

pub(super) fn run(args: &RunArgs) -> Answer {
    let spec = pipeline(&args.pipeline)?;
    let selected = selection(&spec, &args.select)?;
    let patience = Patience { wait: !args.no_wait, checkpoint_every: args.checkpoint_every };
    let Done { summary, store, places, device_class, journal } = perform(&spec, selected, &args.pipeline, patience)?;
    let exit = summary.exit();
    let outlook = Outlook { spec: &spec, registry: registry::catalog(), store: &store, places: &places, device_class };
    let page = file::place(&args.pipeline.places.artifacts, &spec.name);
    let report = (!args.no_report).then(|| report::after_run(&outlook, &summary.records, page, Elsewhere::default())).flatten();
    let tables =
        score_tables(&spec, &store, &summary.records).inspect_err(|_| terminal::say(&closing(&spec, &summary, args)))?;
    if args.json {
        terminal::print_json(&as_json(&spec, &summary, &tables, report.as_deref()))?;
        return Ok(exit);
    }
    if !tables.is_empty() {
        terminal::print(&format!("\n{}", scores::render(&tables)))?;
    }
    terminal::say(&closing(&spec, &summary, args));
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
    pub(super) device_class: &'static str,
    pub(super) journal: Journal,
}

/// Runs the selected stages on the screen and in the journal, until a signal.
pub(super) fn perform(spec: &Spec, selected: Selected, args: &PipelineArgs, patience: Patience) -> Result<Done, Failure> {
    let stop = stop_on_signals()?;
    let (device, device_class) = device_of(spec)?;
    let artifacts = &args.places.artifacts;
    let store = Store::open(artifacts)?;
    if let Some(note) = of_shared(&store) {
        terminal::say(&note);
    }
    let places = places(&args.places, Some(&args.pipeline));
    let journal = Journal::new(runs_folder(artifacts, &spec.name));
    let screen = Screen::new();
    if let Some(other) = namesake(&spec.name, artifacts, Some(&args.pipeline)) {
        let (name, other, folder) = (&spec.name, other.display(), artifacts.join(&spec.name));
        terminal::say(&format!(
            "warning: `{other}` is also called `{name}`: this run replaces its views and its report in `{}`; change `name` in one of them",
            folder.display()
        ));
    }
    let scalars = Scalars::new(&journal);
    let outlook = Outlook { spec, registry: registry::catalog(), store: &store, places: &places, device_class };
    let say = |text: &str| screen.expect(text);
    let told = Told::new(outlook, selected.clone(), &say);
    let listeners: [&dyn Listener; 4] = [&screen, &journal, &scalars, &told];
    let options = Options {
        registry: registry::catalog(),
        chosen: selected.nodes,
        forced: selected.forced,
        threads: rayon::current_num_threads(),
        device,
        device_class,
        wait: patience.wait,
        checkpoint_every: Duration::from_secs_f64(patience.checkpoint_every),
        stop,
    };
    let summary = run::run(spec, &store, &places, &options, Tell(&listeners))?;
    Ok(Done { summary, store, places, device_class, journal })
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

/// The scores of these results, which are also written beside them.
pub(super) fn score_tables(spec: &Spec, store: &Store, known: &Known) -> Result<Vec<scores::Scored>, Failure> {
    let tables = scores::collect(spec, store, known)?;
    if let Err(error) = scores::write_tables(&tables, store, &spec.name) {
        terminal::say(&format!("warning: no `{}`: {}; the results are not touched by this", scores::TABLE, chain(&error)));
    }
    Ok(tables)
}

/// How long what is at work may take to keep its progress: well within two seconds of the signal the process has ended.
const GRACE: Duration = Duration::from_millis(1600);

/// Ctrl-C that comes again so soon is the first one, passed on by a program between the terminal and this one.
const ECHO: Duration = Duration::from_millis(250);

/// The first signal asks to stop, and a little later the process ends whether or not everybody has heard: results and checkpoints
/// are whole at any moment. A second Ctrl-C ends it at once, with 128 and its number. No other signal does when it is repeated: a
/// scheduler sends the same one to a job's steps and to its script, which passes it on, some milliseconds apart.
pub(super) fn stop_on_signals() -> Result<Stop, Failure> {
    let failed = |error| FileError::new("listen to signals of", Path::new("this process"), error);
    let status = fs::read_text(Path::new("/proc/self/status")).unwrap_or_default();
    // Schedulers announce the end of a job's time by a signal that a person chooses; `USR1` and `USR2` are the usual ones.
    let mut signals = vec![SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
    // A terminal that is closed; `nohup` has that ignored, and means it.
    if !ignores(&status, SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut heard = Signals::new(&signals).map_err(failed)?;
    let stop = Stop::default();
    let asks = stop.clone();
    let wait = move || {
        if heard.forever().next().is_none() {
            return;
        }
        asks.request();
        let asked = Stopwatch::start();
        while asked.elapsed() < GRACE {
            std::thread::sleep(Duration::from_millis(20));
            if heard.pending().any(|signal| signal == SIGINT) && asked.elapsed() > ECHO {
                signal_hook::low_level::exit(128 + SIGINT);
            }
        }
        // Standard error may be held by somebody who waits for a terminal that has gone.
        let _ = std::thread::Builder::new().spawn(|| terminal::say(LATE));
        std::thread::sleep(Duration::from_millis(100));
        signal_hook::low_level::exit(Exit::Stopped as i32);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map_err(failed)?;
    Ok(stop)
}

const LATE: &str = "\nstopped without waiting for the current step; the same command resumes from the last checkpoint";

/// Does a process with this status, as Linux shows it, ignore a signal? Not known elsewhere, and then no.
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

fn closing(spec: &Spec, summary: &Summary, args: &RunArgs) -> String {
    let time = unit::duration(Duration::from_secs_f64(summary.seconds));
    let count = |is: fn(&Outcome) -> bool| summary.outcomes.iter().filter(|o| is(o)).count();
    let stages = |count: usize| unit::counted(count as u64, "stage");
    let (ran, fresh) = (summary.ran().count(), count(|o| matches!(o, Outcome::Fresh)));
    let (failed, blocked) = (count(|o| matches!(o, Outcome::Failed { .. })), count(|o| matches!(o, Outcome::Blocked { .. })));
    let adopted = count(|o| matches!(o, Outcome::Adopted));
    let folder = args.pipeline.places.artifacts.join(&spec.name);
    match summary.exit() {
        Exit::Done if ran == 0 && adopted == 0 => format!("\nnothing to do, {} fresh ({time})", stages(fresh)),
        Exit::Done => {
            let by_others = if adopted > 0 { format!(", {adopted} by another run") } else { String::new() };
            format!("\n{} ran{by_others}, {fresh} fresh, in {time}; results are in {}", stages(ran), folder.display())
        }
        Exit::Stopped => format!("\nstopped after {time}; the same command resumes from here"),
        _ => format!("\n{} failed, {blocked} could not run, {ran} ran, {fresh} fresh, in {time}", stages(failed)),
    }
}

fn as_json(spec: &Spec, summary: &Summary, tables: &[scores::Scored], report: Option<&Path>) -> Value {
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
        "ran": summary.ran().map(|index| spec.nodes[index].name.clone()).collect::<Vec<_>>(),
        "stages": stages,
        "scores": tables,
        "report": report.map(|path| path.display().to_string()),
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
