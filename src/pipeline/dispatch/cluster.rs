//! The interface of what runs jobs, as the watching process sees it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::DispatchError;
use super::rules::Needs;
use super::ticket::{Place, Ticket};

/// The name of a submitted job. All tasks of an array share it.
pub type JobId = String;

/// A job to be submitted: a ticket, and what it asks for.
#[derive(Debug)]
pub struct Job<'a> {
    pub place: &'a Place,
    pub ticket: &'a Ticket,
    pub needs: &'a Needs,
    /// What it is found by again.
    pub comment: &'a str,
}

/// What a job starts after.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum After {
    /// All tasks of it.
    Whole(JobId),
    /// This task of it.
    Task(JobId, usize),
    /// Each of our tasks after the one of the same number.
    Each(JobId),
}

/// How a task of a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Waiting { why: String },
    Running { node: String },
    Ended(Death),
}

/// What is known of a task of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub state: State,
    /// Since when, in the words of the scheduler.
    pub since: String,
    pub comment: String,
}

/// Words for the end of a job. They never say whether it has a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    Cancelled,
    Memory,
    Time,
    Node,
    /// A signal ended it.
    Killed,
    Code(i32),
    /// What else the scheduler calls it.
    Word(String),
    /// Nobody knows of it any more.
    Vanished,
}

/// Tasks by job and number.
pub type Queue = BTreeMap<(JobId, usize), Standing>;

/// Something that runs jobs. The outcome of a job is the records of its nodes, whatever is said here.
pub trait Cluster: Sync {
    fn name(&self) -> &'static str;

    /// True if it starts a job after those that it names, and goes on when we are gone: then all is submitted at once. Otherwise each
    /// is submitted when its inputs are there, and stops with us.
    fn keeps_order(&self) -> bool;

    /// The most tasks of a job.
    fn most_tasks(&self) -> usize;

    /// The most tasks at once.
    fn most_at_once(&self) -> usize;

    /// Submits a job.
    ///
    /// # Errors
    /// [`DispatchError::Busy`] if it may work later, anything else if it will not.
    fn submit(&self, job: &Job<'_>, after: &[After]) -> Result<JobId, DispatchError>;

    /// How all jobs stand that it still knows.
    ///
    /// # Errors
    /// If it does not say: then nothing is known.
    fn poll(&self) -> Result<Queue, DispatchError>;

    /// Asks these jobs to stop.
    ///
    /// # Errors
    /// If they cannot be reached.
    fn cancel(&self, jobs: &[JobId]) -> Result<(), DispatchError>;

    /// Words for the end of a task that is not in the queue any more.
    fn post_mortem(&self, job: &JobId, task: usize) -> Option<Death>;

    /// What was written for people, instead of submitting.
    fn written(&self) -> Option<PathBuf> {
        None
    }
}
