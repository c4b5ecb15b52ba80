//! Errors of the store, with hints and exit codes.

use std::io;
use std::path::Path;

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store could not be worked with.
    #[error(transparent)]
    File(FileError),
    /// A raw input outside the store could not be read.
    #[error(transparent)]
    Input(FileError),
    #[error("the store `{path}` cannot be written")]
    ReadOnly {
        path: String,
        #[source]
        source: FileError,
    },
    #[error("there is no store at `{path}`")]
    Missing { path: String },
    /// `tmp/` and `blobs/` lie on different file systems, so nothing can be published in one step.
    #[error("`{path}/tmp` and `{path}/blobs` are on different file systems")]
    Split { path: String },
    #[error("`{path}` is damaged: {why}")]
    Damaged { path: String, why: String },
    /// A newer kinset wrote it. Whoever meets it leaves it as it is.
    #[error("`{path}` has format {found}; this kinset reads formats up to {known}")]
    Newer { path: String, found: u32, known: u32 },
    #[error("the store `{path}` is in use{}", by.as_ref().map(|by| format!(": {by}")).unwrap_or_default())]
    Busy {
        path: String,
        /// By whom, in words, if that is known.
        by: Option<String>,
    },
    /// This process said nothing for so long that another took over what it was at.
    #[error("another process has taken over this stage{}", by.as_ref().map(|by| format!(": {by}")).unwrap_or_default())]
    Taken {
        /// Which, in words, if that is known.
        by: Option<String>,
    },
    /// Processes were to meet over the store.
    #[error("{came} of {expected} others came")]
    NobodyCame { came: usize, expected: usize },
    #[error("{came} came together, and {expected} were expected")]
    TooManyCame { came: usize, expected: usize },
    #[error("another process was lost: {what}")]
    PeerLost { what: String },
    #[error("the environment variable `{name}` is `{value}`")]
    Variable {
        name: &'static str,
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    #[error("`{field}` is {value}; expected a finite number")]
    NotFinite {
        /// The setting: `settings.optimizer.rate`.
        field: String,
        /// `NaN`, `inf` or `-inf`.
        value: f64,
    },
    #[error("`{field}` cannot be part of a key: {why}")]
    Unkeyable { field: String, why: String },
    /// A raw input changed while it was read.
    #[error("`{path}` changed while it was being read")]
    Unsteady { path: String },
    #[error("`{name}` cannot name {what}")]
    Name {
        name: String,
        /// `a pipeline`, `a stage`, `a file`, `a kind`.
        what: &'static str,
    },
    #[error("cannot write {what} as JSON")]
    Encode {
        /// `a record`, `a manifest`, `a view`.
        what: &'static str,
        #[source]
        source: serde_json::Error,
    },
}

pub type Result<T> = std::result::Result<T, StoreError>;

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl StoreError {
    pub(super) fn newer(path: &Path, found: u32, known: u32) -> Self {
        Self::Newer { path: path.display().to_string(), found, known }
    }

    /// A write into the store that failed: a store that is read-only is told apart from a file that failed.
    pub(super) fn writing(store: &Path, error: FileError) -> Self {
        match error.source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path: store.display().to_string(), source: error }
            }
            _ => Self::File(error),
        }
    }
}

impl Fault for StoreError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(file) if file.is_full() => Exit::Machine.code("store::disk-full").hint_if(file.hint()),
            Self::File(file) if file.is_of_machine() => file.diagnosis(),
            Self::File(file) => Exit::Store.code("store::file").hint_if(file.hint()),
            Self::Input(file) => file.diagnosis(),
            Self::ReadOnly { .. } => Exit::Store.code("store::read-only").hint(
                "`plan`, `status` and `inspect` work on a read-only store; to run, check its \
                 permissions or name another place with `--artifacts DIR`",
            ),
            Self::Missing { .. } => {
                Exit::Store.code("store::missing").hint("run a pipeline first, or name the right place with `--artifacts DIR`")
            }
            Self::Split { .. } => Exit::Store
                .code("store::split")
                .hint("no folder inside the store may be a mount or a link: move the whole store instead"),
            Self::Damaged { .. } => Exit::Store
                .code("store::damaged")
                .hint("`kinset verify --repair` removes damaged results; their stages will run again"),
            Self::Newer { .. } => Exit::Store.code("store::newer").hint(
                "nothing was changed: use the kinset that wrote it, or name another place with `--artifacts DIR`; if no newer \
                 one was ever used here, the file is damaged and may be removed",
            ),
            Self::Busy { .. } => {
                Exit::Store.code("store::busy").hint("wait until the runs that use it are done; results are safe meanwhile")
            }
            Self::Taken { .. } => Exit::Stopped.code("store::taken").hint(
                "this process was suspended, or lost the file server, for too long; the same command takes the other's result, or \
                 resumes from its progress",
            ),
            Self::NobodyCame { .. } => Exit::Store.code("store::nobody-came").hint(
                "start the same command on the other machines at the same time, over the same `--artifacts`; if they say the same, \
                 they do not see what another one writes there",
            ),
            Self::TooManyCame { .. } => {
                Exit::Usage.code("store::too-many-came").hint("say how many machines meet: `--peers 3`")
            }
            Self::PeerLost { .. } => Exit::Store.code("store::peer-lost").hint(
                "if the command was not stopped on the other machine, that machine does not see in time what is written here",
            ),
            Self::Variable { expected, .. } => Exit::Usage.code("store::variable").hint(format!("set it to {expected}, or unset it")),
            Self::NotFinite { field, .. } => {
                Exit::Pipeline.code("store::not-finite").hint(format!("write a number for `{field}`"))
            }
            Self::Unkeyable { .. } => Exit::Bug.code("store::unkeyable"),
            Self::Unsteady { .. } => {
                Exit::Data.code("store::unsteady-input").hint("wait until it is completely written, then run again")
            }
            Self::Name { .. } => Exit::Pipeline
                .code("store::name")
                .hint("use letters, digits, `-`, `_`, `.`, `=`, `@` or `#`, with a letter or digit first"),
            Self::Encode { .. } => Exit::Bug.code("store::encode"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: io::ErrorKind) -> StoreError {
        let path = Path::new("artifacts/store");
        StoreError::writing(path, FileError::new("create", &path.join("tmp/x"), kind.into()))
    }

    #[test]
    fn a_full_disk_a_refusing_store_and_a_broken_file_end_differently() {
        let full = failed(io::ErrorKind::StorageFull);
        assert_eq!((full.code(), full.exit()), ("store::disk-full", Exit::Machine));
        assert!(full.hint().unwrap().contains("kinset gc"));
        let quota = failed(io::ErrorKind::QuotaExceeded);
        assert_eq!(quota.exit(), Exit::Machine);
        for kind in [io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::PermissionDenied] {
            let refused = failed(kind);
            assert_eq!((refused.code(), refused.exit()), ("store::read-only", Exit::Store));
            assert_eq!(refused.to_string(), "the store `artifacts/store` cannot be written");
        }
        let failing = StoreError::File(FileError::new("read", Path::new("artifacts/store/x"), io::Error::from_raw_os_error(5)));
        assert_eq!((failing.code(), failing.exit()), ("file::device", Exit::Machine));
        let broken = failed(io::ErrorKind::Other);
        assert_eq!((broken.code(), broken.exit()), ("store::file", Exit::Store));
    }

    #[test]
    fn a_raw_input_that_is_not_there_is_a_fault_of_the_data() {
        let error = StoreError::Input(FileError::new("read", Path::new("data/x"), io::ErrorKind::NotFound.into()));
        assert_eq!((error.code(), error.exit()), ("file::not-found", Exit::Data));
    }
}
