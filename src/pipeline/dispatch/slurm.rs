//! Slurm, by its own commands: `sbatch`, `squeue`, `scancel`, `sacct`, `scontrol`, `sinfo`.
//!
//! The script of a job goes to the standard input of `sbatch`, and *is* kinset in the end (`exec`), so that signals come to it once. The
//! queue is asked for all jobs in one call, whatever their state and partition. `sacct`, which lags and may be off, is asked for words
//! alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cluster::{After, Cluster, Death, Job, JobId, Queue, Standing, State};
use super::error::DispatchError;
use super::rules::{Needs, Rules};
use super::ticket::{Place, Ticket};
use kinset_base::command::{CommandError, Program, Said};

/// What a job must not inherit from whoever submits it, who may be a job too.
const SCRUBBED: &[&str] = &["SLURM_", "SBATCH_", "PMIX_"];

/// But for where Slurm is.
const KEPT: &[&str] = &["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS"];

/// A controller under load takes its time.
const PATIENCE: Duration = Duration::from_mins(2);

/// What Slurm says where it may work later.
const LATER: &[&str] = &[
    "Socket timed out",
    "Unable to contact slurm controller",
    "Slurm temporarily unable to accept job",
    "Resource temporarily unavailable",
    "temporarily unavailable",
    "Connection refused",
    "Connection reset",
    "Zero Bytes were transmitted",
    "Transport endpoint is not connected",
    "AssocMaxSubmitJobLimit",
    "QOSMaxSubmitJobPerUserLimit",
    "Job submit limit",
    "Message receive failure",
];

/// Ids in one call of `scancel`.
const AT_ONCE: usize = 500;

/// The states of jobs that are still to do something.
const ALIVE: &[&str] = &[
    "PENDING",
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESIZING",
    "RESV_DEL_HOLD",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
];

#[derive(Clone, Debug)]
pub struct Slurm {
    kinset: PathBuf,
    rules: Rules,
}

impl Slurm {
    /// `kinset` is this program's own path, for want of another in the rules.
    pub fn new(kinset: PathBuf, rules: Rules) -> Self {
        Self { kinset: rules.kinset.clone().unwrap_or(kinset), rules }
    }

    /// The script of a job that starts after these, or after what is said where it is submitted.
    pub fn script(&self, job: &Job<'_>, after: &[After]) -> String {
        let Job { place, ticket, needs, comment } = job;
        let mut lines = Lines { needs, text: String::from("#!/bin/bash\n") };
        lines.line("job-name", &format!("{}/{}", ticket.pipeline, ticket.unit));
        lines.line("comment", comment);
        let tasks = ticket.tasks.len();
        let array = tasks > 1;
        if array {
            let limit = self.rules.limits.at_once.map(|limit| format!("%{limit}")).unwrap_or_default();
            lines.line("array", &format!("0-{}{limit}", tasks - 1));
        }
        if !after.is_empty() {
            lines.line("dependency", &dependency(after));
        }
        lines.line("kill-on-invalid-dep", "yes");
        if self.rules.requeue.times > 0 {
            lines.flag("requeue");
            lines.line("signal", &format!("B:{}@{}", self.rules.requeue.signal, self.rules.requeue.lead.as_secs()));
        } else {
            lines.text.push_str("#SBATCH --no-requeue\n");
        }
        lines.line("open-mode", "append");
        lines.line("export", "NONE");
        let said = |lines: &mut Lines<'_>, name: &str, value: Option<String>| {
            if let Some(value) = value {
                lines.line(name, &value);
            }
        };
        said(&mut lines, "cpus-per-task", needs.cpus.map(|cpus| cpus.to_string()));
        said(&mut lines, "mem", needs.memory.map(|bytes| format!("{}M", bytes.div_ceil(1 << 20))));
        said(&mut lines, "time", needs.time.map(|time| time.as_secs().div_ceil(60).to_string()));
        said(&mut lines, "partition", needs.partition.clone());
        said(&mut lines, "account", needs.account.clone());
        said(&mut lines, "qos", needs.qos.clone());
        let kind = needs.gpu_type.as_ref().map(|kind| format!("{kind}:")).unwrap_or_default();
        said(&mut lines, "gpus-per-node", needs.gpus.filter(|gpus| *gpus > 0).map(|gpus| format!("{kind}{gpus}")));
        said(&mut lines, "gres", needs.gres.clone());
        lines.line("output", &log_pattern(place, array));
        for extra in needs.extra.iter().flatten() {
            lines.text.push_str(&format!("#SBATCH {extra}\n"));
        }
        for line in &self.rules.setup {
            lines.text.push_str(&format!("{line}\n"));
        }
        let (kinset, ticket) = (quoted(&self.kinset), quoted(&place.ticket()));
        lines.text + &format!("exec {kinset} exec-stage {ticket} \"${{SLURM_ARRAY_TASK_ID:-0}}\"\n")
    }
}

/// The lines for `sbatch`, without those that a rule leaves out.
struct Lines<'a> {
    needs: &'a Needs,
    text: String,
}

impl Lines<'_> {
    fn flag(&mut self, name: &str) {
        if !self.needs.without.iter().flatten().any(|without| without == name) {
            self.text.push_str(&format!("#SBATCH --{name}\n"));
        }
    }

    fn line(&mut self, name: &str, value: &str) {
        self.flag(&format!("{name}={value}"));
    }
}

/// Where a job's output goes: `%a` is the number of the task. A `%` of the path itself is doubled.
fn log_pattern(place: &Place, array: bool) -> String {
    let stem = place.folder.join(&place.stem).display().to_string().replace('%', "%%");
    let quote = if stem.contains(' ') { "\"" } else { "" };
    format!("{quote}{stem}-{}.log{quote}", if array { "%a" } else { "0" })
}

/// A path as one word of a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=@%:,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// `afterok:1:2_3,aftercorr:4`.
pub(super) fn dependency(after: &[After]) -> String {
    let mut whole: Vec<String> = Vec::new();
    let mut each: Vec<String> = Vec::new();
    for after in after {
        match after {
            After::Whole(id) => whole.push(id.clone()),
            After::Task(id, task) => whole.push(format!("{id}_{task}")),
            After::Each(id) => each.push(id.clone()),
        }
    }
    let part = |word: &str, ids: Vec<String>| (!ids.is_empty()).then(|| format!("{word}:{}", ids.join(":")));
    [part("afterok", whole), part("aftercorr", each)].into_iter().flatten().collect::<Vec<_>>().join(",")
}

/// One of Slurm's commands.
fn ask(program: &'static str, args: &[&str], input: &str) -> Result<String, DispatchError> {
    let Said { code, out, err } = Program::new(program).args(args).without(SCRUBBED, KEPT).ask(input, PATIENCE)?;
    if code == Some(0) {
        return Ok(out);
    }
    let said = err.trim().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    let said = if said.is_empty() { format!("exit code {}", code.unwrap_or(-1)) } else { said };
    if LATER.iter().any(|later| said.contains(later)) {
        return Err(DispatchError::Busy { program, said });
    }
    Err(DispatchError::Refused { program, said })
}

impl Cluster for Slurm {
    fn name(&self) -> &'static str {
        "slurm"
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn most_tasks(&self) -> usize {
        self.rules.limits.array.min(self.rules.limits.jobs)
    }

    fn most_at_once(&self) -> usize {
        self.rules.limits.jobs
    }

    fn submit(&self, job: &Job<'_>, after: &[After]) -> Result<JobId, DispatchError> {
        let said = ask("sbatch", &["--parsable"], &self.script(job, after))?;
        // Of a federation the cluster's name follows.
        let id = said.trim().split(';').next().unwrap_or_default().to_owned();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(DispatchError::Refused {
                program: "sbatch",
                said: format!("its answer has no number: {}", said.trim()),
            });
        }
        Ok(id)
    }

    fn poll(&self) -> Result<Queue, DispatchError> {
        Ok(read_queue(&ask("squeue", &["--me", "-h", "-r", "-t", "all", "-o", "%F|%K|%T|%r|%N|%S|%k"], "")?))
    }

    fn cancel(&self, jobs: &[JobId]) -> Result<(), DispatchError> {
        for ids in jobs.chunks(AT_ONCE) {
            ask("scancel", &ids.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
        }
        Ok(())
    }

    fn post_mortem(&self, job: &JobId, task: usize) -> Option<Death> {
        let told = ask("sacct", &["-n", "-P", "-X", "-D", "-j", job, "-o", "JobID,State"], "").ok()?;
        let of_task = format!("{job}_{task}");
        // The last line is that of the last restart.
        let state = told.lines().rev().find_map(|line| {
            let (id, state) = line.split_once('|')?;
            (id == of_task || id == job).then(|| state.split(' ').next().unwrap_or_default().to_owned())
        })?;
        death(&state)
    }
}

/// The lines of `squeue`. Whatever is none is passed over.
fn read_queue(text: &str) -> Queue {
    let mut queue = BTreeMap::new();
    for line in text.lines() {
        let parts: Vec<&str> = line.splitn(7, '|').collect();
        let [job, task, state, why, node, since, comment] = parts[..] else { continue };
        let state = match death(state) {
            None if state == "RUNNING" || state == "COMPLETING" => State::Running { node: node.to_owned() },
            None => State::Waiting { why: why.to_owned() },
            Some(death) => State::Ended(death),
        };
        let standing = Standing { state, since: since.to_owned(), comment: comment.to_owned() };
        queue.insert((job.to_owned(), task.parse().unwrap_or(0)), standing);
    }
    queue
}

/// The end that a state means; nothing if it is none.
fn death(state: &str) -> Option<Death> {
    if ALIVE.contains(&state) {
        return None;
    }
    Some(match state {
        "CANCELLED" | "REVOKED" => Death::Cancelled,
        "OUT_OF_MEMORY" => Death::Memory,
        "TIMEOUT" | "DEADLINE" => Death::Time,
        "NODE_FAIL" | "BOOT_FAIL" => Death::Node,
        other => Death::Word(other.to_ascii_lowercase().replace('_', " ")),
    })
}

/// Has Slurm queue the job that this process is once more. What has ended it may have done so already.
///
/// # Errors
/// If Slurm refuses.
pub fn requeue(job: &str) -> Result<(), DispatchError> {
    match ask("scontrol", &["requeue", job], "") {
        Err(DispatchError::Refused { said, .. }) if said.contains("pending execution") => Ok(()),
        other => other.map(drop),
    }
}

/// What Slurm is, here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Name and number, in its own words.
    pub version: String,
    pub partitions: Vec<Partition>,
}

/// A partition, as `sinfo` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub name: String,
    /// Jobs that name none go there.
    pub default: bool,
    /// It takes jobs and starts them.
    pub up: bool,
    pub nodes: u64,
}

impl About {
    /// Asks Slurm; nothing where it is not installed.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn ask() -> Result<Option<Self>, DispatchError> {
        let version = match ask("sbatch", &["--version"], "") {
            Err(DispatchError::Command(CommandError::NotStarted { .. })) => return Ok(None),
            said => said?.trim().to_owned(),
        };
        let partitions = read_partitions(&ask("sinfo", &["--noheader", "--format=%P|%a|%D"], "")?);
        Ok(Some(Self { version, partitions }))
    }
}

/// The lines of `sinfo`, of which a partition may have several. Whatever is none is passed over.
fn read_partitions(text: &str) -> Vec<Partition> {
    let mut partitions: Vec<Partition> = Vec::new();
    for line in text.lines() {
        let [name, state, nodes] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else { continue };
        let Ok(nodes) = nodes.parse::<u64>() else { continue };
        let (name, default) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
        match partitions.iter_mut().find(|known| known.name == name) {
            Some(known) => known.nodes += nodes,
            None => partitions.push(Partition { name: name.to_owned(), default, up: state == "up", nodes }),
        }
    }
    partitions
}

/// What a job knows of itself: its number, and how often it was started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    pub job: String,
    pub restarts: u32,
    pub cpus: Option<u16>,
}

impl Own {
    /// By the variables that Slurm sets; nothing outside a job.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name: &str| variable(name).and_then(|text| text.parse::<u32>().ok());
        let cpus = number("SLURM_CPUS_PER_TASK").and_then(|cpus| u16::try_from(cpus).ok());
        Some(Self { job: variable("SLURM_JOB_ID")?, restarts: number("SLURM_RESTART_COUNT").unwrap_or(0), cpus })
    }
}

/// May a job that was stopped be queued again? Only if the warning before its end did it: whoever cancels a job means it, and Slurm
/// itself queues again what it preempts.
pub fn may_requeue(ticket: &Ticket, own: &Own, signal: Option<&str>) -> bool {
    signal == Some(ticket.restarts.signal.as_str()) && own.restarts < ticket.restarts.times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_read_whatever_stands_in_it() {
        let text = "12|N/A|RUNNING|None|n1|2026-11-29T02:00:00|kinset:1:p:a|b\n13|4|PENDING|Dependency||N/A|x\nnonsense\n\
                    14|0|CANCELLED|None||N/A|\n15|N/A|NEW_STATE|None|||\n";
        let queue = read_queue(text);
        assert_eq!(queue.len(), 4);
        let of = |job: &str, task: usize| &queue[&(job.to_owned(), task)];
        assert_eq!(of("12", 0).state, State::Running { node: "n1".into() });
        assert_eq!(of("12", 0).comment, "kinset:1:p:a|b");
        assert_eq!(of("13", 4).state, State::Waiting { why: "Dependency".into() });
        assert_eq!(of("14", 0).state, State::Ended(Death::Cancelled));
        assert_eq!(of("15", 0).state, State::Ended(Death::Word("new state".into())));
    }

    #[test]
    fn the_partitions_are_read_whatever_stands_in_their_list() {
        let of = |name: &str, default, up, nodes| Partition { name: name.into(), default, up, nodes };
        let text = "main*|up|4\ngpu|down|2\nmain*|up|1\nslurm_load_partitions: nonsense\n|up\n";
        assert_eq!(read_partitions(text), [of("main", true, true, 5), of("gpu", false, false, 2)]);
        assert_eq!(read_partitions(""), []);
    }

    #[test]
    fn dependencies_name_jobs_tasks_and_arrays() {
        let after = [After::Whole("1".into()), After::Each("7".into()), After::Task("2".into(), 3)];
        assert_eq!(dependency(&after), "afterok:1:2_3,aftercorr:7");
    }

    #[test]
    fn paths_are_one_word_of_a_shell() {
        assert_eq!(quoted(Path::new("/a/b-1.json")), "/a/b-1.json");
        assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }

    #[test]
    fn a_job_knows_itself_by_its_variables() {
        let set = |name: &str| match name {
            "SLURM_JOB_ID" => Some("9".to_owned()),
            "SLURM_RESTART_COUNT" => Some("2".to_owned()),
            _ => None,
        };
        assert_eq!(Own::of(set), Some(Own { job: "9".into(), restarts: 2, cpus: None }));
        assert_eq!(Own::of(|_| None), None);
    }
}
