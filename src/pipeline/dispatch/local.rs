//! Worker processes on this machine. They stop, with their checkpoints kept, when whoever started them asks or is gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::cluster::{After, Cluster, Death, Job, JobId, Queue, Standing, State};
use super::error::DispatchError;
use kinset_base::command::{Ended, Program, Running};

/// So many processes of this program.
#[derive(Debug)]
pub struct Local {
    kinset: PathBuf,
    count: usize,
    state: Mutex<Processes>,
}

#[derive(Debug, Default)]
struct Processes {
    started: usize,
    running: BTreeMap<JobId, Running>,
    ended: BTreeMap<JobId, Death>,
}

impl Local {
    pub fn new(kinset: PathBuf, count: usize) -> Self {
        Self { kinset, count, state: Mutex::default() }
    }
}

impl Cluster for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn keeps_order(&self) -> bool {
        false
    }

    fn most_tasks(&self) -> usize {
        1
    }

    fn most_at_once(&self) -> usize {
        self.count
    }

    fn submit(&self, job: &Job<'_>, _: &[After]) -> Result<JobId, DispatchError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = job.place.ticket();
        let program =
            Program::new(&self.kinset).args(["exec-stage".into(), "--attended".into(), ticket.into_os_string(), "0".into()]);
        let running = program.start(&job.place.log(0))?;
        state.started += 1;
        // Numbers of processes come again.
        let id = format!("{}-{}", state.started, running.id());
        state.running.insert(id.clone(), running);
        Ok(id)
    }

    fn poll(&self) -> Result<Queue, DispatchError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Processes { running, ended, .. } = &mut *state;
        running.retain(|id, process| {
            let death = match process.ended() {
                Ok(None) => return true,
                Ok(Some(Ended::Code(code))) => Death::Code(code),
                Ok(Some(Ended::Signal)) => Death::Killed,
                Err(error) => Death::Word(error.to_string()),
            };
            ended.insert(id.clone(), death);
            false
        });
        let of = |state| Standing { state, since: String::new(), comment: String::new() };
        let at_work = running.keys().map(|id| ((id.clone(), 0), of(State::Running { node: String::new() })));
        let over = ended.iter().map(|(id, death)| ((id.clone(), 0), of(State::Ended(death.clone()))));
        Ok(at_work.chain(over).collect())
    }

    fn cancel(&self, jobs: &[JobId]) -> Result<(), DispatchError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for id in jobs {
            if let Some(process) = state.running.get_mut(id) {
                process.let_go();
            }
        }
        Ok(())
    }

    fn post_mortem(&self, job: &JobId, _: usize) -> Option<Death> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).ended.get(job).cloned()
    }
}
