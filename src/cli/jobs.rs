//! `kinset jobs`: the jobs of a pipeline on a cluster.

use std::collections::BTreeSet;

use clap::Args;
use serde_json::json;

use super::args::{ClusterArgs, PipelineArgs};
use super::cluster::Where;
use super::common::{Answer, Failure, pipeline};
use super::terminal;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::pipeline::dispatch::cluster::{Cluster as _, Death, JobId, State};
use crate::pipeline::dispatch::jobs::{self, Listed};
use crate::pipeline::dispatch::slurm::Slurm;
use crate::pipeline::journal::runs_folder;

/// List the jobs of a pipeline on the cluster, show a log, cancel them
#[derive(Debug, Args)]
#[command(after_help = "\
Shows all jobs that wait or run, and those of the last run that submitted any.

Examples:
  kinset jobs pipelines/stl10.toml
  kinset jobs pipelines/stl10.toml --log cluster@3
  kinset jobs pipelines/stl10.toml --cancel
  kinset jobs pipelines/stl10.toml --cancel cluster,scores")]
pub struct JobsArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The cluster file [default: $KINSET_CLUSTER, else cluster.toml beside the pipeline, else ~/.config/kinset/cluster.toml]
    #[arg(long, value_name = "FILE")]
    cluster: Option<std::path::PathBuf>,
    /// Print the log of this stage's newest job
    #[arg(long, value_name = "STAGE", conflicts_with = "cancel")]
    log: Option<String>,
    /// Cancel all jobs, or those of these stages (comma-separated); checkpoints are kept
    #[arg(long, value_name = "STAGES", num_args = 0..=1, value_delimiter = ',', default_missing_value = "")]
    cancel: Option<Vec<String>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A job that is not there.
#[derive(Debug, thiserror::Error)]
#[error("`{pipeline}` has no job for `{stage}`")]
struct NoJob {
    pipeline: String,
    stage: String,
}

impl Fault for NoJob {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("job::none").hint("`kinset jobs PIPELINE` lists those there are")
    }
}

pub(super) fn run(args: &JobsArgs) -> Answer {
    let spec = pipeline(&args.pipeline)?;
    let at = Where::of(&ClusterArgs { executor: None, cluster: args.cluster.clone() }, &args.pipeline.pipeline)?;
    let slurm = Slurm::new("kinset".into(), at.rules);
    let runs = runs_folder(&args.pipeline.places.artifacts, &spec.name);
    // Who never submitted anything needs no Slurm to be told so.
    let any = !jobs::submitted(&runs, &std::collections::BTreeMap::new()).is_empty();
    let listed = if any { jobs::list(&runs, &slurm.poll().map_err(Failure::own)?) } else { Vec::new() };
    let none = |stage: &str| Failure::own(NoJob { pipeline: spec.name.clone(), stage: stage.to_owned() });
    // Of a stage, or of one of its settings, all that it has become.
    let carries = |stage: &String, name: &str| {
        stage.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['@', '#', ' ']))
    };
    let of = |job: &Listed, name: &str| job.stages.iter().any(|stage| carries(stage, name));
    if let Some(stage) = &args.log {
        let job = listed.iter().rev().find(|job| of(job, stage)).ok_or_else(|| none(stage))?;
        let log = job.place.log(job.task);
        terminal::print(&String::from_utf8_lossy(&fs::read(&log)?))?;
        return Ok(Exit::Done);
    }
    if let Some(stages) = &args.cancel {
        let stages: Vec<&String> = stages.iter().filter(|stage| !stage.is_empty()).collect();
        if let Some(stage) = stages.iter().find(|stage| !listed.iter().any(|job| of(job, stage))) {
            return Err(none(stage));
        }
        let meant = |job: &&Listed| job.is_alive() && (stages.is_empty() || stages.iter().any(|stage| of(job, stage)));
        let named = |job: &Listed| if stages.is_empty() { job.job.clone() } else { task_id(job, &listed) };
        let ids: BTreeSet<JobId> = listed.iter().filter(meant).map(named).collect();
        let ids: Vec<JobId> = ids.into_iter().collect();
        if !ids.is_empty() {
            slurm.cancel(&ids).map_err(Failure::own)?;
        }
        if args.json {
            terminal::print_json(&json!({ "pipeline": spec.name, "cancelled": ids }))?;
        } else {
            terminal::say(&match ids.len() {
                0 => "no job waits or runs".to_owned(),
                _ => format!("cancelled {}; their checkpoints are kept", ids.join(", ")),
            });
        }
        return Ok(Exit::Done);
    }
    if args.json {
        let rows: Vec<_> = listed.iter().map(|job| as_json(job, &listed)).collect();
        terminal::print_json(&json!({ "pipeline": spec.name, "jobs": rows }))?;
    } else if listed.is_empty() {
        terminal::say(&format!("`{}` has submitted no jobs", spec.name));
    } else {
        terminal::print(&in_words(&listed))?;
    }
    Ok(Exit::Done)
}

/// How a task of an array is named to Slurm.
fn task_id(job: &Listed, listed: &[Listed]) -> JobId {
    let array = listed.iter().any(|other| other.job == job.job && other.task != job.task);
    if array { format!("{}_{}", job.job, job.task) } else { job.job.clone() }
}

/// State and node.
fn state(job: &Listed) -> (String, String) {
    let death = |death: &Death| match death {
        Death::Cancelled => "cancelled".to_owned(),
        Death::Memory => "out of memory".to_owned(),
        Death::Time => "out of time".to_owned(),
        Death::Node => "node failed".to_owned(),
        Death::Word(word) if word == "completed" => "done".to_owned(),
        Death::Word(word) => word.clone(),
        Death::Code(code) => format!("exit code {code}"),
        Death::Killed | Death::Vanished => "gone".to_owned(),
    };
    match (&job.standing, &job.end) {
        (Some(standing), _) => match &standing.state {
            State::Running { node } => ("runs".to_owned(), node.clone()),
            State::Waiting { why } if why.is_empty() || why == "None" => ("waits".to_owned(), String::new()),
            State::Waiting { why } => (format!("waits: {why}"), String::new()),
            State::Ended(how) => (death(how), String::new()),
        },
        (None, Some(end)) if end.exit == 0 => ("done".to_owned(), String::new()),
        (None, Some(end)) if end.exit == Exit::Stopped as u8 => ("stopped".to_owned(), String::new()),
        (None, Some(_)) => ("failed".to_owned(), String::new()),
        (None, None) => ("gone".to_owned(), String::new()),
    }
}

fn as_json(job: &Listed, listed: &[Listed]) -> serde_json::Value {
    let (state, node) = state(job);
    json!({
        "stages": job.stages, "job": task_id(job, listed), "alive": job.is_alive(), "state": state, "node": node,
        "since": job.standing.as_ref().map(|standing| standing.since.clone()),
        "progress": job.progress.as_ref().map(|(stage, done, total, unit)| json!({ "stage": stage, "done": done, "total": total, "unit": unit })),
        "log": job.place.log(job.task).display().to_string(),
        "error": job.end.as_ref().filter(|end| end.exit != 0).map(|end| json!({ "code": end.code, "message": end.message, "hint": end.hint })),
    })
}

fn in_words(listed: &[Listed]) -> String {
    let mut table = terminal::table(&["stage", "job", "state", "node", "since", "progress", "log"], &[]);
    for job in listed {
        let (state, node) = state(job);
        let since = job.standing.as_ref().map(|standing| standing.since.clone()).filter(|since| since != "N/A");
        let progress = job.progress.as_ref().map(|(_, done, total, unit)| format!("{done} of {total} {unit}"));
        table.add_row([
            job.stages.join("+"),
            task_id(job, listed),
            state,
            node,
            since.unwrap_or_default(),
            progress.unwrap_or_default(),
            job.place.log(job.task).display().to_string(),
        ]);
    }
    terminal::text(&table)
}
