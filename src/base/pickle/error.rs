//! Errors of pickles.

use crate::fault::{Diagnosis, Exit, Fault};
use crate::unit::count;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    #[error("it ends at byte {at}, in the middle of {what}")]
    Truncated {
        at: usize,
        /// What was to come.
        what: &'static str,
    },
    /// No pickler writes it.
    #[error("its pickle is damaged at byte {at}: {what}")]
    Damaged { at: usize, what: String },
    /// It wants more than plain values.
    #[error("refusing to load `{name}` from its pickle: only tensors and plain containers are allowed")]
    Refused {
        /// The module and name, or the operation.
        name: String,
    },
    #[error("{what} exceeds the limit of {}", count(*most))]
    TooLarge { what: String, most: u64 },
}

impl Fault for PickleError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Truncated { .. } => Exit::Data.code("import::truncated").hint(DAMAGED),
            Self::Damaged { .. } => Exit::Data.code("import::damaged").hint(DAMAGED),
            Self::Refused { .. } => Exit::Data.code("import::refused").hint(TENSORS_ALONE),
            Self::TooLarge { .. } => Exit::Data.code("import::too-large"),
        }
    }
}

/// What to do about a file that is not whole.
pub const DAMAGED: &str = "the file is damaged or its download is incomplete: download it again";
/// What to do about a file that holds code.
pub const TENSORS_ALONE: &str = "save only the tensors, on a machine that trusts the file: \
                                 `torch.save(network.state_dict(), \"weights.pth\")`";
