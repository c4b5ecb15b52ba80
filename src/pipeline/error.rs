//! Errors of running a pipeline.

use super::dispatch::error::DispatchError;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_stage::StageError;
use kinset_store::error::StoreError;

/// Why a stage has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The same in words: of an output that it was writing, because the private folder it lay in is gone; or of a stage that ran
    /// elsewhere.
    #[error("{said}")]
    Told { said: String, diagnosis: Diagnosis },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    /// Of running it elsewhere.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
    #[error("`{maker}` did not produce output `{output}`")]
    NoOutput {
        /// The output, as the pipeline file names it.
        output: String,
        maker: String,
    },
    #[error("`{needs}` needs `{stage}`, which is not selected and has no valid cached result")]
    NotChosen { stage: String, needs: String },
    /// A worker misses what its ticket promises.
    #[error("`{stage}` has no result, and it is an input")]
    NoInput { stage: String },
    /// A result that is needed is not what its stage wrote, and the stage cannot run.
    #[error("the result of `{stage}` is damaged: {why}")]
    Damaged { stage: String, why: String },
    /// A result that somebody wants to read is not what its stage wrote.
    #[error("the result of `{stage}` is damaged: {why}")]
    DamagedResult { stage: String, why: String },
    #[error("`{path}` changed while it was being read; the result was discarded")]
    Moved { path: String },
    #[error("another run is computing this stage: {holder}")]
    Held { holder: String },
    #[error("cannot start a thread for the stage")]
    NoThread {
        #[source]
        source: std::io::Error,
    },
    #[error("the stage panicked: {what}")]
    Panicked { what: String },
    #[error("the stage is not deterministic: computing key {key} again gave a different result; the stored result was kept")]
    Unsteady { key: String },
    /// A kind that the registry does not know; the plan has checked it.
    #[error("unknown stage kind `{kind}`")]
    NoKind { kind: String },
}

impl Fault for RunError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Stage(e) => e.diagnosis(),
            Self::Told { diagnosis, .. } => diagnosis.clone(),
            Self::Store(e) => e.diagnosis(),
            Self::File(e) => e.diagnosis(),
            Self::Dispatch(e) => e.diagnosis(),
            Self::NoOutput { output, .. } if output.ends_with(".labels") => Exit::Data.code("run::no-output").hint(
                "the source has no labels: for a folder, put the images of each class into a subfolder, or leave out the \
                 stages that measure against labels",
            ),
            Self::NoOutput { .. } => Exit::Data.code("run::no-output"),
            Self::NotChosen { .. } => {
                Exit::Run.code("run::not-chosen").hint("leave out `--only` or `--from`, so that it runs too")
            }
            Self::NoInput { .. } => Exit::Run
                .code("run::no-input")
                .hint("its raw data have changed since the job was submitted, or somebody deleted it: run the pipeline again"),
            Self::Damaged { .. } => Exit::Store.code("run::damaged").hint(
                "leave out `--only` or `--from`, so that it runs again; if it did run, the disk loses data: \
                 choose another folder with `--artifacts DIR`",
            ),
            Self::DamagedResult { .. } => {
                Exit::Store.code("result::damaged").hint("`kinset verify --repair` removes it; the next run computes it again")
            }
            Self::Moved { .. } => Exit::Data.code("run::input-moved").hint("run again once nothing writes to it"),
            Self::Held { .. } => Exit::Run.code("run::held").hint("leave out `--no-wait` to wait for its result"),
            Self::NoThread { .. } => {
                Exit::Machine.code("run::no-thread").hint("allow more processes and memory: `ulimit -u`, `ulimit -v`")
            }
            Self::Panicked { .. } => Exit::Bug
                .code("run::panicked")
                .hint("this is a bug in kinset; please report it with the pipeline file and the event file of the run"),
            Self::Unsteady { .. } => Exit::Bug
                .code("run::unsteady")
                .hint("please report it: on one machine, equal inputs and seed must give equal bytes"),
            Self::NoKind { .. } => Exit::Bug
                .code("run::no-kind")
                .hint("this is a bug in kinset; please report it with the pipeline file and the event file of the run"),
        }
    }
}
