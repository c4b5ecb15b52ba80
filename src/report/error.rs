//! Errors of plots and reports.

use kinset_artifact::error::ArtifactError;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;

/// Why something cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("nothing to plot as `{plot}`: {why}")]
    Nothing { plot: &'static str, why: String },
    #[error("`{pipeline}` has no results in `{artifacts}`")]
    NoResults { pipeline: String, artifacts: String },
    #[error("`{plot}` cannot be written as `{name}`")]
    Form { plot: &'static str, name: String },
    #[error(transparent)]
    Picture(#[from] ArtifactError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl Fault for ReportError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Nothing { .. } => {
                Exit::Run.code("report::nothing").hint("run the pipeline first; `--stage NAME` names what to show")
            }
            Self::NoResults { .. } => Exit::Run
                .code("report::no-results")
                .hint("run the pipeline first, or name the folder of its results with `--artifacts DIR`"),
            Self::Form { plot, .. } if *plot == "prototypes" => {
                Exit::Usage.code("report::form").hint("write it as .svg or .png")
            }
            Self::Form { .. } => Exit::Usage
                .code("report::form")
                .hint("write it as .svg, which browsers, Inkscape and LaTeX convert to other formats"),
            Self::Picture(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
        }
    }
}
