//! Errors on the way from a publisher's server to a folder.

use crate::DatasetError;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_base::unit::bytes;

/// Why a data set did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nobody offers it.
    #[error("`{name}` cannot be fetched")]
    NotOffered {
        /// The data set.
        name: String,
        /// How it is to be had.
        advice: String,
    },
    /// The server cannot be reached, or the way to it breaks again and again.
    #[error("cannot download `{url}`: {why}{}", tried(*tries))]
    Network {
        /// The address.
        url: String,
        /// What happened last.
        why: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The server says no.
    #[error("cannot download `{url}`: the server answers {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// More than the published file has.
    #[error("`{url}` sends more than {}, and the published file is smaller", bytes(*most))]
    TooLarge {
        /// The address.
        url: String,
        /// The limit.
        most: u64,
    },
    /// Another file than was published.
    #[error("`{file}` is not the published file: its {kind} is {found}, expected {wanted}")]
    Checksum {
        /// The file.
        file: String,
        /// `MD5` or `SHA-256`.
        kind: &'static str,
        /// What it must be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// A checksum on the command line that is none, or belongs to no file.
    #[error("{what}")]
    WrongSum {
        /// What is wrong.
        what: String,
    },
    /// An archive with something in it that no published archive has.
    #[error("refusing to unpack `{archive}`: `{entry}` {why}")]
    Unsafe {
        /// The archive.
        archive: String,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// An archive that breaks.
    #[error("cannot unpack `{archive}`")]
    Archive {
        /// The archive.
        archive: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// All files came, and the reader does not find what it needs in them.
    #[error("the downloaded data set is incomplete: {0}")]
    Incomplete(Box<DatasetError>),
    /// Not to be had from here, with what to do by hand.
    #[error("{source}")]
    ByHand {
        /// What went wrong.
        #[source]
        source: Box<FetchError>,
        /// What to get and where to put it.
        how: String,
    },
    /// The data set or its place.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The file system.
    #[error(transparent)]
    File(#[from] FileError),
}

fn tried(tries: u32) -> String {
    if tries > 1 { format!(" (tried {tries} times)") } else { String::new() }
}

impl Fault for FetchError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NotOffered { advice, .. } => Exit::Data.code("fetch::not-offered").hint(advice.clone()),
            Self::Network { .. } => Exit::Data.code("fetch::network"),
            Self::Status { .. } => Exit::Data.code("fetch::status"),
            Self::TooLarge { .. } => Exit::Data.code("fetch::too-large"),
            Self::Checksum { .. } => Exit::Data.code("fetch::checksum").hint(
                "the publisher or somebody else changed it: compare with the data set's page; `--sha256 DIGITS` accepts \
                 another file",
            ),
            Self::WrongSum { .. } => Exit::Usage.code("fetch::sum"),
            Self::Unsafe { .. } => Exit::Data.code("fetch::unsafe-archive"),
            Self::Archive { .. } => Exit::Data.code("fetch::archive"),
            Self::Incomplete(error) => Exit::Data.code("fetch::incomplete").hint_if(error.hint()),
            Self::ByHand { source, how, .. } => source.diagnosis().hint(how.clone()),
            Self::Dataset(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
        }
    }
}
