//! What can go wrong when something is shown.

use kinset_artifact::error::ArtifactError;
use kinset_base::fs::FileError;
use kinset_base::hint::{Exit, Fault};

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is nothing to draw.
    #[error("there is nothing to plot as `{plot}`: {why}")]
    Nothing {
        /// What was asked for.
        plot: &'static str,
        /// Why it is not there.
        why: String,
    },
    /// A drawing cannot be had in this form.
    #[error("`{plot}` cannot be written as `{name}`")]
    Form {
        /// What was asked for.
        plot: &'static str,
        /// The file.
        name: String,
    },
    /// A picture cannot be packed.
    #[error(transparent)]
    Picture(#[from] ArtifactError),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Fault for ReportError {
    fn code(&self) -> &'static str {
        match self {
            Self::Nothing { .. } => "report::nothing",
            Self::Form { .. } => "report::form",
            Self::Picture(error) => error.code(),
            Self::File(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Nothing { .. } => Some("run the pipeline first; `--stage NAME` names what to show".into()),
            Self::Form { plot, .. } if *plot == "prototypes" => Some("write it as .svg or .png".into()),
            Self::Form { .. } => Some("write it as .svg, which browsers, Inkscape and LaTeX turn into anything else".into()),
            Self::Picture(error) => error.hint(),
            Self::File(error) => error.hint(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Nothing { .. } => Exit::Run,
            Self::Form { .. } => Exit::Usage,
            Self::Picture(error) => error.exit(),
            Self::File(error) => error.exit(),
        }
    }
}
