//! Dry runs of a submission to Slurm: a script for each job, and one that submits them all.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::cluster::{After, Cluster, Death, Job, JobId, Queue};
use super::error::DispatchError;
use super::slurm::{Slurm, dependency};
use kinset_base::fs;

/// The script that submits all others.
const SUBMIT: &str = "submit.sh";

#[derive(Debug)]
pub struct Rehearsal {
    slurm: Slurm,
    folder: PathBuf,
    lines: Mutex<String>,
}

impl Rehearsal {
    /// Into this folder, which is there.
    pub fn new(slurm: Slurm, folder: PathBuf) -> Self {
        let lines =
            "#!/bin/bash\n# Submits these jobs, each after those that it reads.\nset -e\ncd \"$(dirname \"$0\")\"\n".to_owned();
        Self { slurm, folder, lines: Mutex::new(lines) }
    }
}

impl Cluster for Rehearsal {
    fn name(&self) -> &'static str {
        "slurm"
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn most_tasks(&self) -> usize {
        self.slurm.most_tasks()
    }

    fn most_at_once(&self) -> usize {
        usize::MAX
    }

    fn submit(&self, job: &Job<'_>, after: &[After]) -> Result<JobId, DispatchError> {
        let stem = &job.place.stem;
        fs::write_atomic(&self.folder.join(format!("{stem}.sbatch")), self.slurm.script(job, &[]).as_bytes())?;
        let number = stem.split('-').next().unwrap_or_default();
        let after = if after.is_empty() { String::new() } else { format!(" --dependency={}", dependency(after)) };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a federation the cluster's name follows the number.
        lines.push_str(&format!("j{number}=$(sbatch --parsable{after} {stem}.sbatch); j{number}=${{j{number}%%;*}}\n"));
        fs::write_atomic(&self.folder.join(SUBMIT), lines.as_bytes())?;
        Ok(format!("${{j{number}}}"))
    }

    fn poll(&self) -> Result<Queue, DispatchError> {
        Ok(Queue::new())
    }

    fn cancel(&self, _: &[JobId]) -> Result<(), DispatchError> {
        Ok(())
    }

    fn post_mortem(&self, _: &JobId, _: usize) -> Option<Death> {
        None
    }

    fn written(&self) -> Option<PathBuf> {
        Some(self.folder.clone())
    }
}
