//! Errors of names.

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_base::output::OutputError;
use kinset_base::unit;

/// Why names cannot be read, changed or used.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("`{path}` is not TOML: line {line}: {message}")]
    Syntax { path: String, line: usize, message: String },
    #[error("`{path}`, line {line}: {what}")]
    Value { path: String, line: usize, what: String },
    #[error("`{name}` cannot be the name of a group: {why}")]
    Name { name: String, why: &'static str },
    /// The clusters of another result have other numbers.
    #[error("`{path}` names the clusters of another result than `{stage}` has now")]
    Stale { path: String, stage: String },
    #[error("`{path}` names clusters of `{stage}`, which has no result to compare them with")]
    NoResult { path: String, stage: String },
    #[error("`{path}` names cluster {cluster}, and {there}")]
    NoCluster { path: String, cluster: usize, there: Clusters },
}

/// How many clusters there are, in words.
#[derive(Clone, Copy, Debug)]
pub struct Clusters(pub usize);

impl std::fmt::Display for Clusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(count) = self;
        write!(f, "there are {}, from 0 to {}", unit::counted(*count as u64, "cluster"), count.saturating_sub(1))
    }
}

impl Fault for NamesError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(error) => error.diagnosis(),
            Self::Output(error) => error.diagnosis(),
            Self::Syntax { .. } => Exit::Data.code("names::syntax").hint("correct the line, or remove the file to begin anew"),
            Self::Value { .. } => Exit::Data.code("names::value").hint(
                "it has `of`, `stage`, `rejected = [\"IMAGE\"]`, a table `[clusters]` of `3 = \"NAME\"`, and a table `[images]` \
                 of `\"IMAGE\" = \"NAME\"`",
            ),
            Self::Name { .. } => Exit::Usage.code("names::name").hint("a name is also that of a folder; choose another"),
            Self::Stale { .. } => Exit::Data.code("names::stale").hint(
                "`kinset label PIPELINE --carry` carries the names over to the clusters that have most of the same images; \
                 `kinset label PIPELINE --forget` drops the names of clusters and keeps what was moved and rejected",
            ),
            Self::NoResult { .. } => Exit::Run.code("names::no-result").hint("run the pipeline first"),
            Self::NoCluster { .. } => Exit::Usage.code("names::no-cluster").hint("`kinset label PIPELINE` lists the clusters"),
        }
    }
}
