//! What every error owes its reader: a code to search for, a hint what to do, and whose fault it is.

/// How the process ends. The numbers are part of the interface (`kinset --help` lists them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// All fresh or done.
    Done = 0,
    /// The command line was not understood.
    Usage = 2,
    /// The pipeline file has faults.
    Pipeline = 3,
    /// The data are missing, truncated or not what they claim to be.
    Data = 4,
    /// A stage failed: a loss that is not finite, collapsed clusters.
    Run = 5,
    /// The store is damaged or not writable.
    Store = 6,
    /// The machine: no such device, disk full, out of memory.
    Machine = 7,
    /// `plan` found work to do.
    Work = 10,
    /// Our bug.
    Bug = 70,
    /// Stopped on request; running again goes on.
    Stopped = 75,
}

/// An error that answers the three questions.
pub trait Fault: std::error::Error {
    /// Stable and searchable, `room::what-is-wrong`.
    fn code(&self) -> &'static str;

    /// What to do about it, if we know.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Whose fault it is.
    fn exit(&self) -> Exit;
}

/// An error of any room.
pub type AnyFault = Box<dyn Fault + Send + Sync>;

impl std::error::Error for AnyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        (**self).source()
    }
}

/// The candidate that looks most like what was written, if one is close enough to be meant.
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = written.to_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&folded, &name.to_lowercase().replace('-', "_")), name))
        .filter(|(distance, name)| *distance <= 1 + written.len().max(name.len()) / 4)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_find_their_word_and_strangers_do_not() {
        let names = ["epochs", "batch", "temperature", "learning_rate"];
        assert_eq!(nearest("epoch", names), Some("epochs"));
        assert_eq!(nearest("temprature", names), Some("temperature"));
        assert_eq!(nearest("Learning-Rate", names), Some("learning_rate"));
        assert_eq!(nearest("colour", names), None);
    }
}
