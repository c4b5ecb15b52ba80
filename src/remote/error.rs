//! Errors of a remote store, with hints and exit codes.

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_base::stop::Stopped;
use kinset_store::StoreError;

use super::address::FORMS;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    #[error("`{url}` is no place for a cache: {why}")]
    Address {
        /// Without what may be secret in it.
        url: String,
        why: String,
    },
    /// This kinset was built without what talks to servers.
    #[error("this kinset was built without remote caches, and `{url}` is set as one")]
    NotBuilt { url: String },
    #[error("`{url}` can only be read")]
    ReadOnly { url: String },
    /// A web server does not say what it has.
    #[error("`{url}` has no list of what it holds")]
    NoList { url: String },
    #[error("the cache `{url}` does not answer: {why}")]
    Unreachable { url: String, why: String },
    #[error("the cache `{url}` refuses: {why}")]
    Refused { url: String, why: String },
    /// An object that is not what its name promises, or not there though a record names it.
    #[error("`{object}` of the cache is damaged: {why}")]
    Damaged { object: String, why: String },
    /// A newer kinset wrote it. Whoever meets it leaves it as it is.
    #[error("`{object}` of the cache has format {format}, which this kinset does not know")]
    Newer { object: String, format: u32 },
    /// What is to be pushed is not here.
    #[error("the result {key} is not whole here: {why}")]
    NotHere { key: String, why: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

pub type Result<T> = std::result::Result<T, RemoteError>;

impl RemoteError {
    /// True if the next question would end likewise: nobody answers, or nobody may ask.
    pub fn is_of_the_place(&self) -> bool {
        !matches!(self, Self::Damaged { .. } | Self::Newer { .. } | Self::NotHere { .. } | Self::Stopped(_))
    }
}

impl Fault for RemoteError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Address { .. } => Exit::Usage
                .code("remote::address")
                .hint(format!("write {FORMS}; credentials come from the environment, such as AWS_ACCESS_KEY_ID")),
            Self::NotBuilt { .. } => Exit::Usage.code("remote::not-built").hint(
                "the wheel has them (`pip install ./src/python`), or build with `cargo build --release --features remote`; \
                 `--cache-mode off` runs without",
            ),
            Self::ReadOnly { .. } => {
                Exit::Usage.code("remote::read-only").hint("push to the s3://, gs://, az:// or file:// address behind it")
            }
            Self::NoList { .. } => Exit::Usage.code("remote::no-list").hint("name the pipelines whose results are meant"),
            Self::Unreachable { .. } => Exit::Store.code("remote::unreachable").hint(
                "check the address and the network (`kinset doctor` tries it); KINSET_CACHE_TIMEOUT is how many seconds a server may be silent",
            ),
            Self::Refused { .. } => Exit::Store.code("remote::refused").hint(
                "credentials come from the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (of a profile: `eval \"$(aws configure \
                 export-credentials --format env)\"`), GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME and …_KEY; S3 says 403 for what is \
                 not there to whom it does not let list (s3:ListBucket)",
            ),
            Self::Damaged { .. } => {
                Exit::Store.code("remote::damaged").hint("push the result again from where it is whole: `kinset cache push`")
            }
            Self::Newer { .. } => Exit::Store.code("remote::newer").hint("use the kinset that wrote it, or another address"),
            Self::NotHere { .. } => {
                Exit::Store.code("remote::not-here").hint("`kinset verify --repair` removes what is damaged; then run the pipeline")
            }
            Self::Store(error) => error.diagnosis(),
            Self::File(error) if error.is_of_machine() => error.diagnosis(),
            Self::File(error) => Exit::Store.code("remote::file").hint_if(error.hint()),
            Self::Stopped(_) => Exit::Stopped.code("remote::stopped"),
        }
    }
}
