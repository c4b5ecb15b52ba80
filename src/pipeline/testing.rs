//! A small catalog for the tests of this crate: real serde types behind it, no stage that could run.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::catalog::{Catalog, StageInfo};
use kinset_stage::{Arity, Complaint, OutputInfo, PortInfo};

trait Config: Default + Serialize + DeserializeOwned {
    fn complaints(&self) -> Vec<Complaint> {
        Vec::new()
    }
}

fn complaint(path: &str, message: String) -> Complaint {
    Complaint::new(path, message)
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Ingest {
    dataset: Option<String>,
    split: Option<String>,
    limit: Option<u32>,
    part: Option<Part>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    number: u32,
    of: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<u32>,
}

impl Config for Ingest {
    fn complaints(&self) -> Vec<Complaint> {
        if self.dataset.is_none() { vec![complaint("dataset", "missing field `dataset`".into())] } else { Vec::new() }
    }
}

#[derive(Serialize, Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Schedule {
    Constant,
    Cosine,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Optimizer {
    Sgd { momentum: f64, nesterov: bool },
    Adam { beta: f64 },
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Augment {
    crop_scale: [f64; 2],
    gray: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self { crop_scale: [0.2, 1.0], gray: 0.2 }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SimClr {
    epochs: u32,
    warmup: u32,
    lr: f64,
    temperature: f64,
    schedule: Schedule,
    nesterov: bool,
    optimizer: Optimizer,
    augment: Augment,
}

impl Default for SimClr {
    fn default() -> Self {
        Self {
            epochs: 500,
            warmup: 10,
            lr: 0.4,
            temperature: 0.1,
            schedule: Schedule::Cosine,
            nesterov: false,
            optimizer: Optimizer::Sgd { momentum: 0.9, nesterov: false },
            augment: Augment::default(),
        }
    }
}

impl Config for SimClr {
    fn complaints(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        if self.epochs == 0 {
            found.push(complaint("epochs", "at least one epoch is needed".into()));
        }
        if self.warmup > self.epochs {
            found.push(complaint("warmup", format!("{} is more than all `epochs`, {}", self.warmup, self.epochs)));
        }
        if self.temperature <= 0.0 {
            found.push(complaint("temperature", format!("`{}` is not above 0", self.temperature)));
        }
        if self.augment.crop_scale[0] > self.augment.crop_scale[1] {
            found.push(complaint("augment.crop_scale", "the smallest is larger than the largest".into()));
        }
        found
    }
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Config for Nothing {}

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Neighbors {
    k: u32,
}

impl Default for Neighbors {
    fn default() -> Self {
        Self { k: 20 }
    }
}

impl Config for Neighbors {}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Scan {
    #[serde(default)]
    clusters: Option<u32>,
}

impl Config for Scan {
    fn complaints(&self) -> Vec<Complaint> {
        if self.clusters.is_none() { vec![complaint("clusters", "missing field `clusters`".into())] } else { Vec::new() }
    }
}

struct Fake {
    kind: &'static str,
    ports: Vec<PortInfo>,
    outputs: Vec<OutputInfo>,
    defaults: fn() -> Value,
    check: fn(&Value) -> Vec<Complaint>,
    normalize: fn(&Value) -> Value,
}

fn defaults<C: Config>() -> Value {
    serde_json::to_value(C::default()).unwrap()
}

fn check<C: Config>(settings: &Value) -> Vec<Complaint> {
    match serde_json::from_value::<C>(settings.clone()) {
        Ok(config) => config.complaints(),
        Err(error) => vec![complaint("", error.to_string())],
    }
}

fn normalize<C: Config>(settings: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<C>(settings.clone()).unwrap()).unwrap()
}

impl StageInfo for Fake {
    fn kind(&self) -> &str {
        self.kind
    }
    fn ports(&self) -> &[PortInfo] {
        &self.ports
    }
    fn outputs(&self) -> &[OutputInfo] {
        &self.outputs
    }
    fn default_settings(&self) -> Value {
        (self.defaults)()
    }
    fn check_settings(&self, settings: &Value) -> Vec<Complaint> {
        (self.check)(settings)
    }
    fn normalize(&self, settings: &Value) -> Value {
        (self.normalize)(settings)
    }
}

fn fake<C: Config>(kind: &'static str, ports: &[(&'static str, &'static str, Arity)], outputs: &[&'static str]) -> Fake {
    Fake {
        kind,
        ports: ports
            .iter()
            .map(|&(name, artifact, arity)| PortInfo { name, artifact, arity, collects: kind == "concat" })
            .collect(),
        outputs: outputs.iter().map(|name| OutputInfo { name, artifact: name, files: &[], optional: false }).collect(),
        defaults: defaults::<C>,
        check: check::<C>,
        normalize: normalize::<C>,
    }
}

/// The catalog.
pub(super) struct Fakes(Vec<Fake>);

impl Catalog for Fakes {
    fn kinds(&self) -> Vec<&str> {
        self.0.iter().map(|fake| fake.kind).collect()
    }
    fn stage(&self, kind: &str) -> Option<&dyn StageInfo> {
        self.0.iter().find(|fake| fake.kind == kind).map(|fake| fake as &dyn StageInfo)
    }
}

/// Ingest, SimCLR, embed, neighbors, SCAN, evaluate, and a stage that takes many.
pub(super) fn catalog() -> Fakes {
    use Arity::{Many, One, Optional};
    Fakes(vec![
        fake::<Ingest>("ingest", &[], &["images", "labels"]),
        fake::<SimClr>("simclr", &[("images", "images", One), ("start", "encoder", Optional)], &["encoder", "curve"]),
        fake::<Nothing>("embed", &[("images", "images", One), ("encoder", "encoder", One)], &["features"]),
        fake::<Neighbors>("neighbors", &[("features", "features", One)], &["neighbors"]),
        fake::<Scan>(
            "scan",
            &[("images", "images", One), ("encoder", "encoder", One), ("neighbors", "neighbors", One)],
            &["classifier", "assignments", "curve"],
        ),
        fake::<Nothing>(
            "evaluate",
            &[("classifier", "classifier", One), ("images", "images", One), ("labels", "labels", One)],
            &["scores"],
        ),
        fake::<Nothing>("compare", &[("scores", "scores", Many)], &["scores"]),
        fake::<Nothing>("concat", &[("features", "features", Many)], &["features"]),
    ])
}

/// The pipeline of the design's section 6.
pub(super) const SAMPLE: &str = r#"
name = "stl10"
seed = 1
device = "auto"                      # cpu, cuda:0, metal

[data.pool]                          # a named image source
dataset = "stl10"
split = "train+unlabeled"

[data.test]
dataset = "stl10"
split = "test"

[stage.pretext]
kind = "simclr"
images = "data.pool"
epochs = 500

[stage.features]
kind = "embed"
images = "data.pool"
encoder = "pretext"

[stage.neighbors]
kind = "neighbors"
features = "features"
k = 20

[stage.cluster]
kind = "scan"
images = "data.pool"
encoder = "pretext"
neighbors = "neighbors"
clusters = 10

[stage.scores]
kind = "evaluate"
classifier = "cluster"
images = "data.test"
labels = "data.test.labels"

[repeat]
from = "cluster"
seeds = 3

[profile.smoke.data.pool]
limit = 256
[profile.smoke.stage.pretext]
epochs = 10
"#;
