//! The jobs of a pipeline: what was submitted, by this run and by earlier ones, and how it stands.
//!
//! Each run keeps a list, `jobs/jobs.jsonl`: a line before a job is submitted and one with its number after. What died between the two
//! is found again in the queue by its comment.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::cluster::{JobId, Queue, Standing};
use super::tail::Tail;
use super::ticket::{End, Place, Task, Ticket};
use crate::event::Event;
use crate::journal;
use kinset_base::fs::{self, FileError};

/// The list in the folder of a run's jobs. No job is called so: theirs begin with a number.
const LIST: &str = "jobs.jsonl";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Line {
    ticket: String,
    comment: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    job: Option<JobId>,
}

/// Notes that a job will be submitted, or was.
///
/// # Errors
/// If that cannot be remembered: then it must not be submitted.
pub(super) fn note(place: &Place, comment: &str, job: Option<&JobId>) -> fs::Result<()> {
    let line = Line { ticket: place.stem.clone(), comment: comment.to_owned(), job: job.cloned() };
    let path = place.folder.join(LIST);
    let mut file = fs::append(&path)?;
    let text = serde_json::to_string(&line).unwrap_or_default() + "\n";
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| FileError::new("write", &path, error))
}

/// A job that was submitted, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    pub place: Place,
    pub comment: String,
    pub job: Option<JobId>,
}

/// All jobs of the runs of a pipeline, oldest first. Those whose number is not known are looked for in the queue.
pub fn submitted(runs: &Path, queue: &Queue) -> Vec<Submitted> {
    let mut by_comment: BTreeMap<&str, &JobId> = BTreeMap::new();
    for ((job, _), Standing { comment, .. }) in queue {
        by_comment.insert(comment, job);
    }
    let mut found: Vec<Submitted> = Vec::new();
    for run in fs::list(runs).unwrap_or_default() {
        let folder = journal::jobs_of(&run);
        let text = fs::read_text(&folder.join(LIST)).unwrap_or_default();
        let mut own: Vec<Submitted> = Vec::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            let place = Place { folder: folder.clone(), stem: line.ticket };
            match own.iter_mut().find(|known| known.place == place) {
                Some(known) => known.job = line.job.or(known.job.take()),
                None => own.push(Submitted { place, comment: line.comment, job: line.job }),
            }
        }
        for job in &mut own {
            if job.job.is_none() {
                job.job = by_comment.get(job.comment.as_str()).map(|job| (*job).clone());
            }
        }
        found.extend(own);
    }
    found
}

/// A task of a job, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    pub job: JobId,
    pub place: Place,
    pub task: usize,
    pub stages: Vec<String>,
    /// Nothing if the queue does not know it any more.
    pub standing: Option<Standing>,
    pub end: Option<End>,
    /// Stage, units done, units in all, what a unit is.
    pub progress: Option<(String, u64, u64, String)>,
}

impl Listed {
    pub fn is_alive(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| !matches!(standing.state, super::cluster::State::Ended(_)))
    }
}

/// All tasks that are still to do something, and all of the last run that submitted any.
pub fn list(runs: &Path, queue: &Queue) -> Vec<Listed> {
    let jobs = submitted(runs, queue);
    let last = jobs.last().map(|job| job.place.folder.clone());
    let mut found = Vec::new();
    for Submitted { place, job, .. } in jobs {
        let Some(job) = job else { continue };
        let Ok(ticket) = Ticket::load_any(&place.ticket()) else { continue };
        for (task, nodes) in ticket.tasks.iter().enumerate() {
            let standing = queue.get(&(job.clone(), task)).cloned();
            let stages = nodes.iter().map(Task::name).collect();
            let listed = Listed {
                job: job.clone(),
                place: place.clone(),
                task,
                stages,
                standing,
                end: End::read(&place.end(task)),
                progress: None,
            };
            if listed.is_alive() || Some(&place.folder) == last.as_ref() {
                let progress = Tail::new(place.events(task)).more().into_iter().rev().find_map(|event| match event {
                    Event::Progress { stage, done, total, unit, .. } => Some((stage, done, total, unit.into_owned())),
                    _ => None,
                });
                found.push(Listed { progress, ..listed });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::cluster::State;
    use super::*;

    #[test]
    fn what_died_while_it_submitted_is_found_by_its_comment() {
        let dir = tempfile::tempdir().unwrap();
        let folder = journal::jobs_of(&dir.path().join("2026-11-29"));
        fs::create_folders(&folder).unwrap();
        let place = |stem: &str| Place { folder: folder.clone(), stem: stem.into() };
        note(&place("01-a"), "kinset:1", None).unwrap();
        note(&place("01-a"), "kinset:1", Some(&"7".to_owned())).unwrap();
        note(&place("02-b"), "kinset:2", None).unwrap();
        note(&place("03-c"), "kinset:3", None).unwrap();
        let standing =
            Standing { state: State::Waiting { why: String::new() }, since: String::new(), comment: "kinset:2".into() };
        let queue = Queue::from([(("9".to_owned(), 0), standing)]);
        let jobs: Vec<Option<JobId>> = submitted(dir.path(), &queue).into_iter().map(|job| job.job).collect();
        assert_eq!(jobs, [Some("7".to_owned()), Some("9".to_owned()), None]);
    }
}
