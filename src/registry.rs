//! The list of all stages: the built-in ones, then the methods.

use std::sync::LazyLock;

use crate::builtin::BUILTIN;
use crate::methods::METHODS;
use crate::pipeline::catalog::Registry;
use crate::stage::AnyStage;

static ALL: LazyLock<Vec<&'static dyn AnyStage>> = LazyLock::new(|| BUILTIN.iter().chain(METHODS).copied().collect());

/// All stages, in the order a reader should see them.
pub fn all() -> impl Iterator<Item = &'static dyn AnyStage> {
    ALL.iter().copied()
}

/// The stage of a kind.
pub fn find(kind: &str) -> Option<&'static dyn AnyStage> {
    catalog().find(kind)
}

/// The catalog that pipeline files are checked against and runs look stages up in.
pub fn catalog() -> Registry {
    Registry(&ALL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::catalog::contradictions;

    #[test]
    fn the_registry_does_not_contradict_itself() {
        assert_eq!(contradictions(&catalog()), Vec::<String>::new());
    }

    #[test]
    fn default_settings_are_without_complaint_and_come_back_unchanged() {
        for stage in all() {
            let settings = stage.default_settings();
            // What has no default must be given: which data set, which file.
            let mut complaints = stage.check_settings(&settings);
            complaints.retain(|complaint| settings.get(&complaint.path) != Some(&"".into()));
            assert_eq!(complaints, Vec::new(), "{}", stage.kind());
            assert_eq!(stage.normalize(&settings).unwrap(), settings, "{}", stage.kind());
        }
    }
}
