//! What can be wrong with a pickle.

/// Why no values were read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It stops early.
    #[error("it ends at byte {at}, in the middle of {what}")]
    Truncated {
        /// Where.
        at: usize,
        /// What was to come.
        what: &'static str,
    },
    /// No pickler writes it.
    #[error("its pickle is damaged at byte {at}: {what}")]
    Damaged {
        /// Where.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// It wants more than plain values.
    #[error("its pickle wants `{name}`, and nothing but tensors and plain containers is ever built")]
    Refused {
        /// The module and name, or the operation.
        name: String,
    },
    /// More than is believed.
    #[error("{what} is more than the {} that are believed", super::super::unit::count(*most))]
    TooLarge {
        /// What.
        what: String,
        /// The limit.
        most: u64,
    },
}
