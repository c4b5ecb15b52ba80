//! Errors on the way from a publisher's server to a folder.

use crate::DatasetError;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_base::unit::bytes;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    #[error("`{name}` cannot be fetched")]
    NotOffered { name: String, advice: String },
    /// The server cannot be reached, or the way to it breaks again and again.
    #[error("cannot download `{url}`: {why}{}", tried(*tries))]
    Network { url: String, why: String, tries: u32 },
    #[error("cannot download `{url}`: the server answers {status}")]
    Status { url: String, status: u16 },
    #[error("`{url}` sends more than {}, and the published file is smaller", bytes(*most))]
    TooLarge { url: String, most: u64 },
    #[error("`{file}` is not the published file: its {kind} is {found}, expected {wanted}")]
    Checksum {
        file: String,
        /// `MD5` or `SHA-256`.
        kind: &'static str,
        wanted: String,
        found: String,
    },
    /// A checksum on the command line that is none, or belongs to no file.
    #[error("{what}")]
    WrongSum { what: String },
    /// An archive with something in it that no published archive has.
    #[error("refusing to unpack `{archive}`: `{entry}` {why}")]
    Unsafe { archive: String, entry: String, why: String },
    #[error("cannot unpack `{archive}`")]
    Archive {
        archive: String,
        #[source]
        source: std::io::Error,
    },
    /// All files came, and the reader does not find what it needs in them.
    #[error("the downloaded data set is incomplete: {0}")]
    Incomplete(Box<DatasetError>),
    /// Not to be had from here, with what to do by hand.
    #[error("{source}")]
    ByHand {
        #[source]
        source: Box<FetchError>,
        /// What to get and where to put it.
        how: String,
    },
    #[error(transparent)]
    Dataset(#[from] DatasetError),
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
