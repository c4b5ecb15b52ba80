//! What can go wrong between a checked pipeline and its results.

use kinset_base::fs::FileError;
use kinset_base::hint::{Exit, Fault};
use kinset_stage::StageError;
use kinset_store::error::StoreError;

/// Why a stage has no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The stage said so.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The store said so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be reached.
    #[error(transparent)]
    File(#[from] FileError),
    /// A stage reads an optional output that its maker did not write.
    #[error("`{output}` is not there: `{maker}` came out without it")]
    NoOutput {
        /// The output, as the pipeline file names it.
        output: String,
        /// The stage that did not write it.
        maker: String,
    },
    /// A chosen stage reads one that is not chosen and has no result.
    #[error("`{needs}` reads `{stage}`, which is not chosen and has no result that holds")]
    NotChosen {
        /// The stage without a result.
        stage: String,
        /// Who reads it.
        needs: String,
    },
    /// Raw data changed while a stage read them.
    #[error("`{path}` changed while it was read, so the result is not kept")]
    Moved {
        /// The file.
        path: String,
    },
    /// Somebody else computes this stage, and we were told not to wait.
    #[error("another run is computing it: {holder}")]
    Held {
        /// Who.
        holder: String,
    },
    /// A stage panicked.
    #[error("it panicked: {what}")]
    Panicked {
        /// The panic's message.
        what: String,
    },
    /// A second computation of the same key came out different.
    #[error(
        "it came out different from the stored result of the same key, so it does not repeat itself; the stored result stays"
    )]
    Unsteady,
    /// A kind that the registry does not know; the plan has checked it.
    #[error("there is no stage of the kind `{kind}`")]
    NoKind {
        /// The kind.
        kind: String,
    },
}

impl Fault for RunError {
    fn code(&self) -> &'static str {
        match self {
            Self::Stage(e) => e.code(),
            Self::Store(e) => e.code(),
            Self::File(e) => e.code(),
            Self::NoOutput { .. } => "run::no-output",
            Self::NotChosen { .. } => "run::not-chosen",
            Self::Moved { .. } => "run::input-moved",
            Self::Held { .. } => "run::held",
            Self::Panicked { .. } => "run::panicked",
            Self::Unsteady => "run::unsteady",
            Self::NoKind { .. } => "run::no-kind",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Stage(e) => e.hint(),
            Self::Store(e) => e.hint(),
            Self::File(e) => e.hint(),
            Self::NoOutput { output, .. } if output.ends_with(".labels") => Some(
                "the source has no labels: for a folder, put the images of each class into a sub-folder, or leave out the \
                 stages that measure against labels"
                    .into(),
            ),
            Self::NoOutput { .. } => None,
            Self::NotChosen { .. } => Some("leave out `--only` or `--from`, so that it runs too".into()),
            Self::Moved { .. } => Some("run again when nobody writes to it".into()),
            Self::Held { .. } => Some("leave out `--no-wait` to wait for its result".into()),
            Self::Panicked { .. } | Self::NoKind { .. } => {
                Some("this is a bug of kinset; please report it with the pipeline file and the event file of the run".into())
            }
            Self::Unsteady => Some("please report it: on one machine, equal inputs and seed must give equal bytes".into()),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Stage(e) => e.exit(),
            Self::Store(e) => e.exit(),
            Self::File(e) => e.exit(),
            Self::NoOutput { .. } | Self::Moved { .. } => Exit::Data,
            Self::NotChosen { .. } | Self::Held { .. } => Exit::Run,
            Self::Panicked { .. } | Self::NoKind { .. } | Self::Unsteady => Exit::Bug,
        }
    }
}

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
