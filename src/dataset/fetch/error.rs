//! Errors on the way from a publisher's server to a folder.

use crate::DatasetError;
use kinset_base::fs::FileError;
use kinset_base::hint::{Exit, Fault};
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
    #[error("cannot get `{url}`: {why}{}", tried(*tries))]
    Network {
        /// The address.
        url: String,
        /// What happened last.
        why: String,
        /// How often it was tried.
        tries: u32,
    },
    /// The server says no.
    #[error("cannot get `{url}`: the server answers {status}")]
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
    #[error("`{archive}` is not unpacked: `{entry}` {why}")]
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
    #[error("what was fetched is not a whole data set: {0}")]
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
    fn code(&self) -> &'static str {
        match self {
            Self::NotOffered { .. } => "fetch::not-offered",
            Self::Network { .. } => "fetch::network",
            Self::Status { .. } => "fetch::status",
            Self::TooLarge { .. } => "fetch::too-large",
            Self::Checksum { .. } => "fetch::checksum",
            Self::WrongSum { .. } => "fetch::sum",
            Self::Unsafe { .. } => "fetch::unsafe-archive",
            Self::Archive { .. } => "fetch::archive",
            Self::Incomplete(_) => "fetch::incomplete",
            Self::ByHand { source, .. } => source.code(),
            Self::Dataset(error) => error.code(),
            Self::File(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotOffered { advice, .. } => Some(advice.clone()),
            Self::ByHand { how, .. } => Some(how.clone()),
            Self::Checksum { .. } => Some(
                "the publisher has changed it, or somebody else has: compare with the data set's page; `--sha256 DIGITS` takes \
                 another file on your word"
                    .into(),
            ),
            Self::Incomplete(error) => error.hint(),
            Self::Dataset(error) => error.hint(),
            Self::File(error) => error.hint(),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::WrongSum { .. } => Exit::Usage,
            Self::ByHand { source, .. } => source.exit(),
            Self::Dataset(error) => error.exit(),
            Self::File(error) => error.exit(),
            _ => Exit::Data,
        }
    }
}
