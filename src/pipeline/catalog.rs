//! The catalog of stages, as far as the checks need it: kinds, ports, outputs, settings.
//!
//! The checks of a pipeline file need no stage that can run. They ask this narrow view, which the registry answers for the
//! real stages and a dozen lines answer in tests. Everything is in plain words and JSON, so a fault can be put into words
//! without knowing a stage's own types.

use serde_json::Value;

use kinset_stage::{AnyStage, Complaint, OutputInfo, PortInfo};

/// All stages there are.
pub trait Catalog {
    /// The words for `kind = "…"`, in the order a reader should see them.
    fn kinds(&self) -> Vec<&str>;

    fn stage(&self, kind: &str) -> Option<&dyn StageInfo>;
}

/// The kind of stage that stands behind each `[data.X]` table. It has no ports; its first output is the main one.
pub const INGEST: &str = "ingest";

/// One kind of stage.
pub trait StageInfo {
    fn kind(&self) -> &str;

    fn ports(&self) -> &[PortInfo];

    /// What it writes, the main output first. Never empty.
    fn outputs(&self) -> &[OutputInfo];

    /// All settings with their defaults, as an object. Every setting has its key: one without a default, required or not,
    /// stands there as `null`.
    fn default_settings(&self) -> Value;

    /// What is wrong with complete settings: wrong types, values out of range. No complaint means that [`Self::normalize`]
    /// will do. serde's own words are fine, they are put into plain ones; so is a complaint without a path. Settings that were `null` by default and were not given are left out.
    fn check_settings(&self, settings: &Value) -> Vec<Complaint>;

    /// The settings as the stage's own type writes them: defaults filled in, `1` as `1.0` where a number with a fraction is
    /// meant. Called only on settings without complaints.
    fn normalize(&self, settings: &Value) -> Value;
}

/// The stages that can run, as a catalog.
#[derive(Clone, Copy, Debug)]
pub struct Registry(pub &'static [&'static dyn AnyStage]);

impl Registry {
    pub fn find(&self, kind: &str) -> Option<&'static dyn AnyStage> {
        self.0.iter().copied().find(|stage| AnyStage::kind(*stage) == kind)
    }
}

impl Catalog for Registry {
    fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(|stage| AnyStage::kind(*stage)).collect()
    }

    fn stage(&self, kind: &str) -> Option<&dyn StageInfo> {
        self.0.iter().find(|stage| AnyStage::kind(**stage) == kind).map(|stage| stage as &dyn StageInfo)
    }
}

impl StageInfo for &'static dyn AnyStage {
    fn kind(&self) -> &str {
        AnyStage::kind(*self)
    }

    fn ports(&self) -> &[PortInfo] {
        AnyStage::ports(*self)
    }

    fn outputs(&self) -> &[OutputInfo] {
        AnyStage::outputs(*self)
    }

    fn default_settings(&self) -> Value {
        AnyStage::default_settings(*self)
    }

    fn check_settings(&self, settings: &Value) -> Vec<Complaint> {
        AnyStage::check_settings(*self, settings)
    }

    fn normalize(&self, settings: &Value) -> Value {
        // Settings without complaints are of the stage's type, so there is nothing to fail; and unwritten they are still right.
        AnyStage::normalize(*self, settings).unwrap_or_else(|_| settings.clone())
    }
}

/// What is contradictory in a catalog itself: names that a pipeline file could not tell apart. A test over the registry
/// expects nothing.
pub fn contradictions(catalog: &dyn Catalog) -> Vec<String> {
    let mut found = Vec::new();
    for kind in catalog.kinds() {
        let Some(stage) = catalog.stage(kind) else {
            found.push(format!("`{kind}` is listed and not found"));
            continue;
        };
        if stage.kind() != kind {
            found.push(format!("`{kind}` is found under the name `{}`", stage.kind()));
        }
        if stage.outputs().is_empty() {
            found.push(format!("`{kind}` writes nothing"));
        }
        if kind == INGEST && !stage.ports().is_empty() {
            found.push(format!("`{kind}` has ports, and a source reads nothing"));
        }
        let settings = stage.default_settings();
        let Some(settings) = settings.as_object() else {
            found.push(format!("the settings of `{kind}` are not an object"));
            continue;
        };
        let mut names: Vec<&str> =
            stage.ports().iter().map(|port| port.name).chain(settings.keys().map(String::as_str)).collect();
        names.push("kind");
        names.sort_unstable();
        found.extend(
            names
                .windows(2)
                .filter(|two| two[0] == two[1])
                .map(|two| format!("`{kind}` uses the key `{}` twice among `kind`, its ports and its settings", two[0])),
        );
        let mut outputs: Vec<&str> = stage.outputs().iter().map(|output| output.name).collect();
        outputs.sort_unstable();
        found.extend(
            outputs.windows(2).filter(|two| two[0] == two[1]).map(|two| format!("`{kind}` has two outputs `{}`", two[0])),
        );
    }
    found
}
