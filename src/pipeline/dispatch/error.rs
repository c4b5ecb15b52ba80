//! Errors of running stages elsewhere.

use std::path::Path;

use kinset_base::command::CommandError;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;

use super::cluster::Death;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error(transparent)]
    File(#[from] FileError),
    /// A scheduler that is busy, or does not answer for now: it is asked again.
    #[error("`{program}` does not answer: {said}")]
    Busy { program: &'static str, said: String },
    #[error("`{program}` refused: {said}")]
    Refused { program: &'static str, said: String },
    #[error("`{path}` is not a ticket: {why}")]
    NotATicket { path: String, why: String },
    #[error("the ticket is of kinset {ticket}, and this is {own}")]
    Version { ticket: String, own: &'static str },
    #[error("the ticket has {tasks} tasks, and none with the number {index}")]
    NoTask { tasks: usize, index: usize },
    #[error("{}", words(death, *seen))]
    Died { death: Death, seen: bool, log: String, tail: String, memory: Option<String> },
    #[error("the cluster file names no image for pods")]
    NoImage,
    #[error("`{path}` lies in no volume of the pods")]
    Unseen { path: String },
    #[error("it was stopped {times} times in a row without progress")]
    NoProgress { times: u32 },
    #[error("its job ended well and left another result than the plan expects")]
    Moved,
}

fn words(death: &Death, seen: bool) -> String {
    match death {
        Death::Cancelled => "its job was cancelled".into(),
        Death::Memory => "its job ran out of memory".into(),
        Death::Time => "its job ran out of time".into(),
        Death::Node => "the node of its job failed".into(),
        Death::Killed => "its process was killed".into(),
        Death::Code(code) => format!("its job ended with exit code {code} and without a result"),
        Death::Word(word) => format!("its job ended without a result: {word}"),
        Death::Vanished if seen => "its job has vanished without a result".into(),
        Death::Vanished => "its job has vanished before anybody saw it".into(),
    }
}

impl Fault for DispatchError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Command(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Busy { .. } => Exit::Machine.code("job::busy").hint("try again later: jobs that were submitted go on"),
            Self::Refused { .. } => Exit::Run
                .code("job::refused")
                .hint("check partition, account and limits in `cluster.toml`; `kinset run … --dry-run DIR` shows the script"),
            Self::NotATicket { .. } => Exit::Usage.code("job::not-a-ticket"),
            Self::Version { .. } => Exit::Machine
                .code("job::version")
                .hint("install the same version on all nodes, or name it in `cluster.toml`: `kinset = \"/shared/bin/kinset\"`"),
            Self::NoTask { .. } => Exit::Usage.code("job::no-task"),
            Self::Died { death, log, tail, memory, .. } => {
                let (exit, code, advice) = match death {
                    Death::Memory => (Exit::Machine, "job::memory", "raise `memory` in `cluster.toml`"),
                    Death::Time => (Exit::Run, "job::time", "raise `time` in `cluster.toml`; its progress is kept"),
                    Death::Cancelled => (Exit::Run, "job::cancelled", "run again to resume"),
                    Death::Node => (Exit::Machine, "job::node", "run again to resume"),
                    Death::Killed => {
                        (Exit::Run, "job::killed", "run again to resume; the system may have killed it for lack of memory")
                    }
                    Death::Code(_) => (Exit::Run, "job::ended", "its log says more"),
                    Death::Word(_) => (Exit::Run, "job::ended", "its log says more; run again to resume"),
                    Death::Vanished => (Exit::Run, "job::vanished", "run again to resume"),
                };
                let memory = memory.as_ref().map(|memory| format!(" (its last results needed {memory})")).unwrap_or_default();
                let tail = if tail.is_empty() { String::new() } else { format!(", which ends with:\n{tail}") };
                exit.code(code).hint(format!("{advice}{memory}; log: `{log}`{tail}"))
            }
            Self::NoImage => Exit::Pipeline
                .code("job::no-image")
                .hint("say which image has kinset: `[kubernetes]` with `image = \"registry/kinset:1\"` in `cluster.toml`"),
            Self::Unseen { .. } => Exit::Pipeline.code("job::unseen").hint(
                "name the claim of the volume that it is in, and where pods mount it: `[kubernetes]` with `claims = \
                 [\"team:/shared\"]` in `cluster.toml`; it must be mounted there on this machine too",
            ),
            Self::NoProgress { .. } => Exit::Run
                .code("job::no-progress")
                .hint("raise `time`, or `lead` of `[requeue]`, in `cluster.toml`; its last checkpoint is kept"),
            Self::Moved => Exit::Data.code("job::moved").hint("its raw data have changed since: run again"),
        }
    }
}

/// The last lines of a log.
pub(super) fn last_lines(log: &Path) -> String {
    const LINES: usize = 20;
    const MOST: usize = 4000;
    // It is the scheduler's, and may lie elsewhere or nowhere.
    let bytes = kinset_base::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(MOST)..]).into_owned();
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}
