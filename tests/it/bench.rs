//! Where do tests work? In a folder of their own, with kinset at hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The repository.
pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// No training: one source, features that are the pixels, a mining, a clustering, scores.
pub(crate) const CHEAP: &str = r#"
name = "cheap"
device = "cpu"

[data.train]
dataset = "synthetic"
split = "train"
images = 30
classes = 3
size = 8

[stage.pixels]
kind = "pixels"
images = "data.train"

[stage.features]
kind = "embed"
images = "data.train"
encoder = "pixels"

[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5

[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "pixels"
clusters = 3

[stage.scores]
kind = "evaluate"
classifiers = ["kmeans"]
images = "data.train"
labels = "data.train.labels"
"#;

/// The nodes of [`CHEAP`].
pub(crate) const CHEAP_NODES: [&str; 6] = ["data.train", "pixels", "features", "neighbors", "kmeans", "scores"];

/// Every kind of stage, each with next to nothing to do.
pub(crate) const WHOLE: &str = concat!(
    r#"
name = "whole"
seed = 1
device = "cpu"

[data.train]
dataset = "synthetic"
split = "train"
images = 48
classes = 3
size = 12

[data.test]
dataset = "synthetic"
split = "test"
images = 24
classes = 3
size = 12

[stage.pretext]
kind = "simclr"
images = "data.train"
epochs = 2
batch = 16
network = { backbone = "resnet_tiny", width = 8 }

[stage.moco]
kind = "moco"
images = "data.train"
epochs = 2
batch = 16
queue = 32
network = { backbone = "resnet_tiny", width = 8 }

[stage.byol]
kind = "byol"
images = "data.train"
epochs = 2
batch = 16
network = { backbone = "resnet_tiny", width = 8 }

[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"

[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5

[stage.cluster]
kind = "scan"
images = "data.train"
encoder = "pretext"
neighbors = "neighbors"
clusters = 3
heads = 2
epochs = 2
batch = 16

[stage.selflabel]
kind = "selflabel"
images = "data.train"
classifier = "cluster"
epochs = 2
batch = 16
confidence_threshold = 0.34

[stage.ruc]
kind = "ruc"
images = "data.train"
classifier = "cluster"
neighbors = "neighbors"
epochs = 2
batch = 16
confidence_threshold = 0.34
optimizer = { lr = 0.05 }

[stage.nnm]
kind = "nnm"
images = "data.train"
encoder = "pretext"
neighbors = "neighbors"
clusters = 3
heads = 2
epochs = 3
batch = 16

[stage.pixels]
kind = "pixels"
images = "data.train"

[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "pretext"
clusters = 3

[stage.assignments]
kind = "predict"
images = "data.train"
classifier = "selflabel"

[stage.scores]
kind = "evaluate"
classifiers = ["kmeans", "cluster", "selflabel", "ruc"]
images = "data.test"
labels = "data.test.labels"

[stage.test_features]
kind = "embed"
images = "data.test"
encoder = "pretext"

[stage.knn]
kind = "knn_eval"
bank = "features"
bank_labels = "data.train.labels"
queries = "test_features"
query_labels = "data.test.labels"

[stage.instances]
kind = "and"
images = "data.train"
epochs = 3
rounds = 2
batch = 16
network = { backbone = "resnet_tiny", width = 8 }

[stage.estimate]
kind = "auto_k"
features = "instances.bank"
max = 6
restarts = 2

[stage.sweep]
kind = "sweep_k"
features = "instances.bank"
max = 4
seeds = 2
restarts = 2
sample = 40

[stage.instance_features]
kind = "embed"
images = "data.train"
encoder = "instances"

[stage.instance_knn]
kind = "knn_eval"
bank = "instances.bank"
bank_labels = "data.train.labels"
queries = "instance_features"
query_labels = "data.train.labels"

[stage.imported]
kind = "import_features"
file = "features.csv"

[stage.matches]
kind = "retrieve"
target = "test_features"
pool = "features"
k = 3

[stage.selection]
kind = "similar"
target = "test_features"
pool = ["features"]
matches = ["matches"]
k = 3
budget = 20
quotas = { clusters = 2 }
pool_sim = 0.999

[stage.chosen]
kind = "subset"
images = ["data.train"]
selection = "selection"

[stage.weights]
kind = "pretrained"
images = "data.train"
stem = "cifar"
file = ""#,
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/pretrained/gray.pth.tar\"\n",
    r#"
[stage.tower]
kind = "frozen"
network = { backbone = "dinov2_vits14", width = 16, depth = 2, heads = 2, patch = 4, grid = 5 }
size = 20
weights = ""#,
    env!("CARGO_MANIFEST_DIR"),
    "/tests/golden/encoders/dinov2_hub.safetensors\"\n",
    r#"
[stage.tower_features]
kind = "embed"
images = "data.train"
encoder = "tower"

[stage.scan_heads]
kind = "scan_heads"
features = "features"
neighbors = "neighbors"
encoder = "pretext"
clusters = 3
heads = 2
epochs = 2
batch = 16

[stage.temi]
kind = "temi"
features = "features"
neighbors = "neighbors"
encoder = "pretext"
clusters = 3
heads = 2
hidden = 8
bottleneck = 4
epochs = 2
batch = 16

[stage.turtle]
kind = "turtle"
features = ["features", "tower_features"]
clusters = 3
epochs = 2
steps = 4
batch = 32

[stage.together]
kind = "consensus"
classifiers = ["temi"]
features = ["features"]

[stage.sorted]
kind = "predict"
features = ["features", "tower_features"]
classifier = "turtle"

[stage.feature_scores]
kind = "evaluate"
classifiers = ["together", "temi", "scan_heads"]
features = "features"
labels = "data.train.labels"
"#,
);

/// Features that somebody else made, beside every pipeline.
const FEATURES: &str = "a.png,1,0,0.5\n\"b.png\n\",0.5,-1,0\nc,d.png,0,0,2\n";

/// The nodes of [`WHOLE`].
pub(crate) const WHOLE_NODES: [&str; 35] = [
    "data.train",
    "data.test",
    "pretext",
    "moco",
    "byol",
    "features",
    "neighbors",
    "cluster",
    "selflabel",
    "ruc",
    "nnm",
    "pixels",
    "kmeans",
    "assignments",
    "scores",
    "test_features",
    "knn",
    "instances",
    "estimate",
    "sweep",
    "instance_features",
    "instance_knn",
    "imported",
    "matches",
    "selection",
    "chosen",
    "weights",
    "tower",
    "tower_features",
    "scan_heads",
    "temi",
    "turtle",
    "together",
    "sorted",
    "feature_scores",
];

/// A folder of one's own; gone when dropped.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A folder with a `p.toml`.
    pub(crate) fn with(pipeline: &str) -> Self {
        let bench = Self::new();
        bench.write("p.toml", pipeline);
        bench.write("features.csv", FEATURES);
        bench
    }

    /// Where something lies.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// kinset, to be started in this folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        command(self.dir.path(), args)
    }

    /// Starts kinset and waits for its end.
    pub(crate) fn kinset(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    /// `kinset run p.toml --json …`.
    pub(crate) fn run(&self, more: &[&str]) -> Said {
        self.kinset(&[&["run", "p.toml", "--json"], more].concat())
    }

    /// Starts kinset and does not wait; standard output and error go to files, so that no pipe fills up.
    pub(crate) fn start(&self, name: &str, args: &[&str]) -> Running {
        let (out, err) = (self.path(format!("{name}.out")), self.path(format!("{name}.err")));
        let child =
            self.command(args).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap()).spawn().unwrap();
        Running { child, out, err }
    }

    /// The metrics of a stage over all runs so far, in the order they came: name and value.
    pub(crate) fn metrics(&self, pipeline: &str, stage: &str) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        for run in sorted(&self.path("artifacts").join(pipeline).join("runs")) {
            for line in fs::read_to_string(run.join("events.jsonl")).unwrap().lines() {
                let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
                if event["event"] == "metric" && event["stage"] == stage {
                    found.push((event["name"].as_str().unwrap().to_owned(), event["value"].as_f64().unwrap()));
                }
            }
        }
        found
    }

    /// Asserts that the store is as it should be: every byte is what its name says, and nothing half-written lies about.
    pub(crate) fn assert_sound(&self, why: &str) {
        self.assert_sound_at("artifacts", why);
    }

    /// As [`Bench::assert_sound`], for a store elsewhere.
    pub(crate) fn assert_sound_at(&self, artifacts: &str, why: &str) {
        if !self.path(artifacts).join("store").is_dir() {
            return;
        }
        let said = self.kinset(&["verify", "--json", "--artifacts", artifacts]);
        assert_eq!(said.exit, 0, "{why}: {}\n{}", said.out, said.err);
        assert_eq!(said.json["findings"], serde_json::json!([]), "{why}");
        let left = sorted(&self.path(artifacts).join("store/tmp"));
        assert!(left.is_empty(), "{why}: half-written: {left:?}");
    }
}

/// kinset, to be started in a folder, away from whatever the machine has set.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinset"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1");
    // What the machine has fetched from Hugging Face's hub is no part of a test.
    command.env("HF_HOME", folder.join("hf"));
    for name in ["HF_HUB_CACHE", "KINSET_DATA", "RAYON_NUM_THREADS", "COLUMNS", "LINES", "RUST_LOG", "RUST_BACKTRACE"] {
        command.env_remove(name);
    }
    command
}

/// What kinset said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    /// The exit code; -1 after a signal.
    pub(crate) exit: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
    /// Standard output as JSON, or null.
    pub(crate) json: Value,
}

impl Said {
    /// Takes what a process left.
    pub(crate) fn of(output: &Output) -> Self {
        Self::new(
            output.status.code().unwrap_or(-1),
            String::from_utf8(output.stdout.clone()).unwrap(),
            String::from_utf8(output.stderr.clone()).unwrap(),
        )
    }

    fn new(exit: i32, out: String, err: String) -> Self {
        let json = serde_json::from_str(&out).unwrap_or_default();
        Self { exit, out, err, json }
    }

    /// Asserts that it ended well.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert_eq!(self.exit, 0, "{}\n{}", self.out, self.err);
        self
    }

    /// The stages that ran, in the order of the file.
    #[track_caller]
    pub(crate) fn ran(&self) -> Vec<&str> {
        let Some(ran) = self.json["ran"].as_array() else { panic!("no list of what ran: {}\n{}", self.out, self.err) };
        ran.iter().map(|name| name.as_str().unwrap()).collect()
    }

    /// State by stage.
    pub(crate) fn states(&self) -> BTreeMap<&str, &str> {
        let stages = self.json["stages"].as_array().unwrap();
        stages.iter().map(|stage| (stage["stage"].as_str().unwrap(), stage["state"].as_str().unwrap())).collect()
    }

    /// Stages in this state, in the order of the file.
    pub(crate) fn those(&self, state: &str) -> Vec<&str> {
        let stages = self.json["stages"].as_array().unwrap();
        stages.iter().filter(|stage| stage["state"] == state).map(|stage| stage["stage"].as_str().unwrap()).collect()
    }

    /// What each output says, as digests by `stage.output`.
    #[track_caller]
    pub(crate) fn digests(&self) -> BTreeMap<String, String> {
        let Some(stages) = self.json["stages"].as_array() else { panic!("no stages: {}\n{}", self.out, self.err) };
        let mut found = BTreeMap::new();
        for stage in stages {
            for (output, digest) in stage["outputs"].as_object().into_iter().flatten() {
                found.insert(format!("{}.{output}", stage["stage"].as_str().unwrap()), digest.as_str().unwrap().to_owned());
            }
        }
        found
    }
}

/// kinset at work.
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far on standard error.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Waits until it says something on standard error; false if it ended without.
    pub(crate) fn wait_for(&mut self, words: &str) -> bool {
        loop {
            // Asked first: what it says last is seen too.
            let ended = self.child.try_wait().unwrap().is_some();
            if self.said().contains(words) {
                return true;
            }
            if ended {
                return false;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// kill -9. True if it was still at work.
    pub(crate) fn kill(mut self) -> bool {
        let alive = self.child.try_wait().unwrap().is_none();
        let _ = self.child.kill();
        let status = self.child.wait().unwrap();
        alive && status.code().is_none()
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        let status = self.child.wait().unwrap();
        let out = fs::read_to_string(&self.out).unwrap();
        Said::new(status.code().unwrap_or(-1), out, self.said())
    }
}

/// The entries of a folder by name; none if it is not there.
pub(crate) fn sorted(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// All files below a folder, by name.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in sorted(folder) {
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// The event files of all runs below a folder; beside them lie TensorBoard's, which are no text.
pub(crate) fn event_files(runs: &Path) -> Vec<PathBuf> {
    files_below(runs).into_iter().filter(|path| path.ends_with("events.jsonl")).collect()
}

/// An IDX file of gray images.
pub(crate) fn idx_images(count: u32, height: u32, width: u32, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 3];
    for number in [count, height, width] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(pixels);
    bytes
}

/// An IDX file of labels.
pub(crate) fn idx_labels(labels: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, 1];
    bytes.extend((labels.len() as u32).to_be_bytes());
    bytes.extend(labels);
    bytes
}

/// What a stage of this kind gets to learn on next to nothing: its ports wired by what they want, and those of its settings that
/// say how much to do made small. Generic, so that a new method needs no line here.
pub(crate) fn tiny_stage(name: &str, card: &Value, epochs: u32) -> String {
    let mut text = format!("\n[stage.{name}]\nkind = {}\n", card["kind"]);
    for port in card["ports"].as_array().unwrap() {
        if port["arity"] == "optional" {
            continue;
        }
        let from = match port["artifact"].as_str().unwrap() {
            "images" => "data.train",
            "encoder" => "pretext",
            "features" => "features",
            "neighbors" => "neighbors",
            "classifier" => "cluster",
            other => panic!("no stage of the test pipeline gives {other}"),
        };
        let from = if port["arity"] == "many" { format!("[\"{from}\"]") } else { format!("\"{from}\"") };
        text.push_str(&format!("{} = {from}\n", port["name"].as_str().unwrap()));
    }
    let epochs = epochs.to_string();
    let small = [
        ("epochs", epochs.as_str()),
        ("batch", "16"),
        ("clusters", "3"),
        ("heads", "2"),
        // Just above chance, so that what there is to learn from does not change on the way.
        ("confidence_threshold", "0.34"),
        // MoCo on 72 steps: a queue that is soon full of real keys, and a key encoder that follows within them.
        ("queue", "16"),
        ("key_momentum", "0.95"),
        ("norm_groups", "2"),
        ("network", "{ backbone = \"resnet_tiny\", width = 8 }"),
    ];
    for (setting, value) in small {
        if card["settings"].get(setting).is_some() {
            text.push_str(&format!("{setting} = {value}\n"));
        }
    }
    text
}

/// Everything a method may want to read, from `images` drawn images of three shapes.
pub(crate) fn tiny_ground(images: u32, epochs: u32) -> String {
    format!(
        r#"
name = "tiny"
seed = 1
device = "cpu"
[data.train]
dataset = "synthetic"
split = "train"
images = {images}
classes = 3
size = 12
[stage.pretext]
kind = "simclr"
images = "data.train"
epochs = {epochs}
batch = 16
network = {{ backbone = "resnet_tiny", width = 8 }}
[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"
[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5
[stage.cluster]
kind = "scan"
images = "data.train"
encoder = "pretext"
neighbors = "neighbors"
clusters = 3
heads = 2
epochs = {epochs}
batch = 16
"#
    )
}

/// The stages of [`tiny_ground`].
pub(crate) const TINY_GROUND: &str = "pretext,features,neighbors,cluster";

/// The cards of all methods, as `kinset methods --json` has them.
pub(crate) fn methods() -> Vec<Value> {
    let said = Bench::new().kinset(&["methods", "--json"]).done();
    let all = said.json.as_array().unwrap().clone();
    let methods: Vec<Value> = all.into_iter().filter(|card| !card["sign"].is_null()).collect();
    assert!(methods.len() >= 3, "simclr, scan and selflabel at least");
    methods
}
