//! All stages there are, as the checks and the engine see them.

use serde_json::Value;

use super::catalog::{Catalog, StageInfo};
use crate::method::METHODS;
use crate::stage::{AnyStage, Complaint, OutputInfo, PortInfo};
use crate::step::STEPS;

/// Steps and methods, in the order a reader should see them.
pub fn all() -> impl Iterator<Item = &'static dyn AnyStage> {
    STEPS.iter().chain(METHODS).copied()
}

/// The stage of a kind.
pub fn find(kind: &str) -> Option<&'static dyn AnyStage> {
    all().find(|stage| stage.kind() == kind)
}

/// The catalog of the real stages.
#[derive(Debug)]
pub struct Registry {
    stages: Vec<Entry>,
}

#[derive(Debug)]
struct Entry(&'static dyn AnyStage);

impl Registry {
    /// All stages.
    pub fn new() -> Self {
        Self { stages: all().map(Entry).collect() }
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Catalog for Registry {
    fn kinds(&self) -> Vec<&str> {
        self.stages.iter().map(|entry| entry.0.kind()).collect()
    }

    fn stage(&self, kind: &str) -> Option<&dyn StageInfo> {
        self.stages.iter().find(|entry| entry.0.kind() == kind).map(|entry| entry as &dyn StageInfo)
    }
}

impl StageInfo for Entry {
    fn kind(&self) -> &str {
        self.0.kind()
    }

    fn ports(&self) -> &[PortInfo] {
        self.0.ports()
    }

    fn outputs(&self) -> &[OutputInfo] {
        self.0.outputs()
    }

    fn default_settings(&self) -> Value {
        self.0.default_settings()
    }

    fn check_settings(&self, settings: &Value) -> Vec<Complaint> {
        self.0.check_settings(settings)
    }

    fn normalize(&self, settings: &Value) -> Value {
        self.0.normalize(settings).unwrap_or_else(|_| settings.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::catalog::contradictions;

    #[test]
    fn the_registry_does_not_contradict_itself() {
        assert_eq!(contradictions(&Registry::new()), Vec::<String>::new());
    }

    #[test]
    fn default_settings_are_without_complaint_and_come_back_unchanged() {
        for stage in all() {
            let settings = stage.default_settings();
            // A source must say which data set it is.
            if stage.kind() != "ingest" {
                assert_eq!(stage.check_settings(&settings), Vec::new(), "{}", stage.kind());
            }
            assert_eq!(stage.normalize(&settings).unwrap(), settings, "{}", stage.kind());
        }
    }
}
