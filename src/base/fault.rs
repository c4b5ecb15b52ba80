//! Error codes, hints and exit codes: what every error owes its reader.

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

impl Exit {
    /// What a process means that ended with this code.
    pub fn of_code(code: i32) -> Self {
        let all = [Self::Done, Self::Usage, Self::Pipeline, Self::Data, Self::Run, Self::Store, Self::Machine];
        let more = [Self::Work, Self::Stopped];
        all.into_iter().chain(more).find(|exit| *exit as i32 == code).unwrap_or(Self::Bug)
    }

    /// The diagnosis of an error that ends the process this way. `code` is stable and searchable, `crate::what-is-wrong`.
    pub fn code(self, code: &'static str) -> Diagnosis {
        Diagnosis { code, exit: self, hint: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Stable and searchable.
    pub code: &'static str,
    /// Whose fault it is.
    pub exit: Exit,
    pub hint: Option<String>,
}

impl Diagnosis {
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub fn hint_if(self, hint: Option<String>) -> Self {
        Self { hint, ..self }
    }
}

/// An error that answers the three questions.
pub trait Fault: std::error::Error {
    fn diagnosis(&self) -> Diagnosis;

    /// Stable and searchable, `crate::what-is-wrong`.
    fn code(&self) -> &'static str {
        self.diagnosis().code
    }

    fn hint(&self) -> Option<String> {
        self.diagnosis().hint
    }

    /// Whose fault it is.
    fn exit(&self) -> Exit {
        self.diagnosis().exit
    }
}

pub type AnyFault = Box<dyn Fault + Send + Sync>;

impl std::error::Error for AnyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        (**self).source()
    }
}

/// An error with all its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
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

    #[test]
    fn a_boxed_error_says_what_it_says_bare() {
        let file =
            || crate::fs::FileError::new("open", std::path::Path::new("photos"), std::io::ErrorKind::NotADirectory.into());
        let boxed: AnyFault = Box::new(file());
        assert_eq!(boxed.to_string(), file().to_string());
        assert_eq!(chain(&boxed), chain(&file()));
        assert!(chain(&boxed).len() > boxed.to_string().len(), "the cause is told, too");
        assert_eq!(boxed.diagnosis(), file().diagnosis());
    }
}
