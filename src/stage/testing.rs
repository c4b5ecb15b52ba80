//! Signals kept for tests, of this crate and of others.

use std::sync::{Mutex, PoisonError};

use super::context::{Signal, Sink};

/// Keeps every signal.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Vec<Signal>>);

impl Sink for Heard {
    fn signal(&self, _: &str, signal: Signal) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(signal);
    }
}

impl Heard {
    /// All of them so far.
    pub fn signals(&self) -> Vec<Signal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The texts of notes and warnings so far.
    pub fn texts(&self) -> Vec<String> {
        let text = |signal| match signal {
            Signal::Note(text) | Signal::Warning(text) => Some(text),
            Signal::Progress { .. } | Signal::Metric { .. } => None,
        };
        self.signals().into_iter().filter_map(text).collect()
    }

    /// The texts of warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        let warning = |signal| if let Signal::Warning(text) = signal { Some(text) } else { None };
        self.signals().into_iter().filter_map(warning).collect()
    }
}
