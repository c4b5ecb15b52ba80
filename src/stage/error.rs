//! Errors of a running stage.

use std::ops::RangeInclusive;

use kinset_base::fault::{AnyFault, Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_base::stop::Stopped;
use kinset_base::unit;
use kinset_store::StoreError;

/// Why a stage did not finish.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// It was asked to stop; its progress is kept.
    #[error("stopped on request; run again to resume")]
    Stopped,
    /// A file outside the store.
    #[error(transparent)]
    File(#[from] FileError),
    /// An artifact could not be read or written.
    #[error(transparent)]
    Artifact(#[from] kinset_artifact::error::ArtifactError),
    /// The error of another crate: of raw data, neighbors, networks or training.
    #[error(transparent)]
    Other(AnyFault),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// The inputs do not go together.
    #[error("{what}")]
    Mismatch {
        /// What does not fit what, with names and numbers.
        what: String,
        /// What to change.
        hint: String,
    },
    /// Fewer images than the setting needs.
    #[error("{setting} is {value}, but there {}", only(*images))]
    TooFew {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: usize,
        /// How many images there are.
        images: usize,
        /// What to change.
        hint: String,
    },
    /// The result is worthless, and here are the numbers.
    #[error("{what}")]
    Degenerate {
        /// A stable code.
        code: &'static str,
        /// What happened, with the numbers.
        what: String,
        /// What to try.
        hint: String,
    },
    /// The progress of a run cannot be written or read.
    #[error("cannot use `{what}` of the checkpoint")]
    Progress {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A wired artifact does not fit its port, although the plan checked it.
    #[error("port `{port}` expects {want}, got {got}")]
    Bound {
        /// The port.
        port: &'static str,
        /// The artifact it takes.
        want: &'static str,
        /// What came.
        got: String,
    },
    /// Checked settings do not fit the stage's own type.
    #[error("the checked settings of `{kind}` do not fit its type")]
    Settings {
        /// The stage kind.
        kind: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

fn only(images: usize) -> String {
    format!("{} only {}", if images == 1 { "is" } else { "are" }, unit::counted(images as u64, "image"))
}

impl StageError {
    /// A file of the store that could not be worked with: a checkpoint, an output. The store or the machine is to blame, never the
    /// data.
    pub fn of_store(error: FileError) -> Self {
        Self::Other(Box::new(StoreError::from(error)))
    }

    /// The error of another crate; [`StageError::Stopped`] if that says that it was asked to stop.
    pub fn other(fault: impl Fault + Send + Sync + 'static) -> Self {
        if fault.exit() == Exit::Stopped { Self::Stopped } else { Self::Other(Box::new(fault)) }
    }

    /// A setting that the number of images limits, such as a number of neighbors: a default above the limit is lowered to it, a value
    /// that somebody chose is not.
    ///
    /// # Errors
    /// [`StageError::TooFew`] for a value above `fits` that is no default, or if nothing fits.
    pub fn fitting(
        setting: &'static str,
        value: usize,
        default: usize,
        fits: &RangeInclusive<usize>,
        images: usize,
    ) -> Result<usize, Self> {
        let most = *fits.end();
        if value <= most {
            return Ok(value);
        }
        if value != default || fits.is_empty() { Err(Self::too_few(setting, value, fits, images)) } else { Ok(most) }
    }

    /// A setting that so many images cannot satisfy, and which values they would.
    pub fn too_few(setting: &'static str, value: usize, fits: &RangeInclusive<usize>, images: usize) -> Self {
        let lower = if fits.is_empty() { String::new() } else { format!("set `{setting} = {}` or less, or ", fits.end()) };
        Self::TooFew { setting, value, images, hint: format!("{lower}add more images") }
    }

    /// More clusters than images, if that is so. `setting` is the one that asks for them.
    ///
    /// # Errors
    /// [`StageError::TooFew`].
    pub fn enough_for_clusters(setting: &'static str, clusters: usize, images: usize) -> Result<(), Self> {
        if clusters <= images {
            return Ok(());
        }
        let hint = "ask for fewer clusters, or add more images".into();
        Err(Self::TooFew { setting, value: clusters, images, hint })
    }
}

impl From<Stopped> for StageError {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

impl Fault for StageError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Stopped => Exit::Stopped.code("stage::stopped"),
            Self::File(e) => e.diagnosis(),
            Self::Artifact(e) => e.diagnosis(),
            Self::Other(e) => e.diagnosis(),
            Self::Tensor(_) => Exit::Run.code("stage::tensor"),
            Self::Mismatch { hint, .. } => Exit::Data.code("stage::mismatch").hint(hint.clone()),
            Self::TooFew { hint, .. } => Exit::Data.code("stage::too-few-images").hint(hint.clone()),
            Self::Degenerate { code, hint, .. } => Exit::Run.code(code).hint(hint.clone()),
            Self::Progress { .. } => Exit::Run.code("stage::progress").hint("run with `--force` to start this stage over"),
            Self::Bound { .. } => {
                Exit::Bug.code("stage::bound").hint("this is a bug in kinset; please report it with the pipeline file")
            }
            Self::Settings { .. } => {
                Exit::Bug.code("stage::settings").hint("this is a bug in kinset; please report it with the pipeline file")
            }
        }
    }
}
