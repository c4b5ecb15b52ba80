//! Folders for tests to work in, pipelines that need next to no time, and kinset started in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kinset::registry;
use kinset::stage::AnyStage;
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

/// Every kind of stage, each with next to nothing to do: those of [`ground`], those that [`WIRED`] wires by hand, and all others of
/// the registry, wired by what their ports want. A new method is in it without a line here.
pub(crate) static WHOLE: LazyLock<String> = LazyLock::new(|| {
    let mut text = ground("whole", 48, 2);
    for stage in registry::all() {
        // Sources, which are all of the kind `ingest`, stand under `data`.
        if stage.kind() != "ingest"
            && ![&text, WIRED].iter().any(|known| known.contains(&format!("kind = \"{}\"\n", stage.kind())))
        {
            text.push_str(&stage_table(stage.kind(), stage, SMALL));
        }
    }
    text + &WIRED.replace("GOLDEN", &format!("{ROOT}/tests/golden"))
});

/// How much the stages of [`WHOLE`] have to do, and which optional ports are connected. `versions.json` pins what they give with it.
const SMALL: &[(&str, &str)] = &[
    ("epochs", "2"),
    ("nnm.epochs", "3"),
    ("nnm.neighbors", "\"neighbors\""),
    ("and.epochs", "3"),
    ("and.rounds", "2"),
    ("batch", "16"),
    ("clusters", "3"),
    ("curate.clusters", "[6, 2]"),
    ("curate.resamples", "2"),
    ("curate.nearest", "2"),
    ("heads", "2"),
    ("confidence_threshold", "0.34"),
    ("network", NETWORK),
    ("moco.queue", "32"),
    ("ruc.optimizer", "{ lr = 0.05 }"),
    ("kmeans.encoder", "\"pretext\""),
    ("join.components", "2"),
    ("scan_heads.encoder", "\"pretext\""),
    ("temi.encoder", "\"pretext\""),
    ("temi.hidden", "8"),
    ("temi.bottleneck", "4"),
    ("duplicates.features", "\"features\""),
    ("outliers.assignments", "\"assignments\""),
    ("auto_k.max", "6"),
    ("auto_k.restarts", "2"),
    ("sweep_k.max", "4"),
    ("sweep_k.seeds", "2"),
    ("sweep_k.restarts", "2"),
    ("sweep_k.sample", "40"),
];

const NETWORK: &str = r#"{ backbone = "resnet_tiny", width = 8 }"#;

/// Stages that read what only a person can choose, and second ones of a kind.
const WIRED: &str = r#"
[data.test]
dataset = "synthetic"
split = "test"
images = 24
classes = 3
size = 12

[stage.assignments]
kind = "predict"
images = "data.train"
classifier = "selflabel"

[stage.groups]
kind = "named"
assignments = "assignments"
file = "names.toml"

[stage.probe]
kind = "probe"
features = "features"
encoder = "pretext"
labels = "data.train.labels"

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

[stage.linear]
kind = "linear_eval"
bank = "features"
bank_labels = "data.train.labels"
queries = "test_features"
query_labels = "data.test.labels"

[stage.instance_features]
kind = "embed"
images = "data.train"
encoder = "and"

[stage.instance_knn]
kind = "knn_eval"
bank = "and.bank"
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

[stage.near]
kind = "near_duplicates"
pool = ["features"]
target = "test_features"
held_out = ["test_features"]
similarity = 0.99

[stage.chosen]
kind = "subset"
images = ["data.train"]
selection = "selection"

[stage.counted]
kind = "distribution"
selections = ["curate"]
labels = ["data.train.labels"]

[stage.weights]
kind = "pretrained"
images = "data.train"
stem = "cifar"
file = "GOLDEN/pretrained/gray.pth.tar"

[stage.tower]
kind = "frozen"
network = { backbone = "dinov2_vits14", width = 16, depth = 2, heads = 2, patch = 4, grid = 5 }
size = 20
weights = "GOLDEN/encoders/dinov2_hub.safetensors"

[stage.graph]
kind = "onnx_encoder"
file = "GOLDEN/onnx/mobile.onnx"

[stage.graph_features]
kind = "embed"
images = "data.train"
encoder = "graph"

[stage.tower_features]
kind = "embed"
images = "data.train"
encoder = "tower"

[stage.turtle]
kind = "turtle"
features = ["features", "tower_features"]
clusters = 3
epochs = 2
steps = 4
batch = 32

[stage.taught]
kind = "distill"
classifier = "turtle"
reads = ["features", "tower_features"]
features = "features"
encoder = "pretext"

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
"#;

/// The nodes of [`WHOLE`], in the order of the file: name and kind.
pub(crate) static WHOLE_KINDS: LazyLock<Vec<(&'static str, &'static str)>> = LazyLock::new(|| {
    WHOLE
        .split("\n[")
        .skip(1)
        .map(|table| {
            let name = table.split(']').next().unwrap();
            let kind = table.split_once("\nkind = \"").map_or("ingest", |(_, rest)| rest.split('"').next().unwrap());
            (name.strip_prefix("stage.").unwrap_or(name), kind)
        })
        .collect()
});

/// Their names.
pub(crate) static WHOLE_NODES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| WHOLE_KINDS.iter().map(|(name, _)| *name).collect());

/// A node of [`WHOLE`] and all that read what it gives, straight or through others, in the order of the file.
pub(crate) fn whole_below(name: &str) -> Vec<&'static str> {
    let mut below = vec![name];
    // Until nothing is added: a stage may stand before what it reads.
    loop {
        let known = below.len();
        for table in WHOLE.split("\n[stage.").skip(1) {
            let (stage, wires) = table.split_once(']').unwrap();
            // A file is named in quotes as well, and is no stage.
            let lines = wires.lines().filter(|line| !line.starts_with("file ="));
            let mut words = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
            let reads = words.any(|word| {
                below.iter().any(|node| word.strip_prefix(node).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
            });
            if reads && !below.contains(&stage) {
                below.push(stage);
            }
        }
        if below.len() == known {
            return WHOLE_NODES.iter().copied().filter(|node| below.contains(node)).collect();
        }
    }
}

/// A pipeline that looks for near-duplicates in a pool of features, and for those of a test set.
pub(crate) fn repeats(test: &str, pool: &str) -> String {
    let import = |name: &str, file: &str| format!("[stage.{name}]\nkind = \"import_features\"\nfile = \"{file}\"\n");
    let near = "[stage.near]\nkind = \"near_duplicates\"\npool = [\"pool\"]\nheld_out = [\"test\"]\n";
    format!("name = \"repeats\"\ndevice = \"cpu\"\n{}{}{near}", import("pool", pool), import("test", test))
}

/// Features that somebody else made, beside every pipeline.
const FEATURES: &str = "a.png,1,0,0.5\n\"b.png\n\",0.5,-1,0\nc,d.png,0,0,2\n";

/// What somebody rejected and moved, beside every pipeline: images of [`WHOLE`].
const NAMES: &str = "rejected = [\"c1031fa35782abf0\"]\n\n[images]\n9d527aa0e88fa978 = \"shapes\"\n";

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
        bench.write("names.toml", NAMES);
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
        self.spawn(name, &mut self.command(args))
    }

    /// As [`Bench::start`], for a command.
    pub(crate) fn spawn(&self, name: &str, command: &mut Command) -> Running {
        let (out, err) = (self.path(format!("{name}.out")), self.path(format!("{name}.err")));
        let child = command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap()).spawn().unwrap();
        Running { child, out, err }
    }

    /// Where the digests of raw files are kept that this machine has read.
    pub(crate) fn memo(&self) -> PathBuf {
        let is_one = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("digests-"));
        sorted(&self.path("artifacts/store")).into_iter().find(is_one).unwrap()
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

    /// Waits until a training of this pipeline has measured its first epoch.
    pub(crate) fn wait_for_an_epoch(&self, pipeline: &str) {
        let runs = self.path("artifacts").join(pipeline).join("runs");
        for _ in 0..3000 {
            let has_one = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("\"event\":\"metric\"");
            if event_files(&runs).iter().any(has_one) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no epoch in half a minute");
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

/// The tests themselves may run under `nohup`, and children inherit what is ignored. What is caught is reset for them instead.
static CLOSED_TERMINAL: LazyLock<()> = LazyLock::new(|| {
    signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).unwrap();
});

/// kinset, to be started in a folder, away from whatever the machine has set.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Command {
    LazyLock::force(&CLOSED_TERMINAL);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kinset"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).env("NO_COLOR", "1");
    // What the machine has fetched from Hugging Face's hub is no part of a test.
    command.env("HF_HOME", folder.join("hf"));
    // Nor is a person's own cluster.
    command.env("XDG_CONFIG_HOME", folder.join("config"));
    for name in [
        "HF_HUB_CACHE",
        "KINSET_CACHE",
        "KINSET_CACHE_MODE",
        "KINSET_CACHE_TIMEOUT",
        "KINSET_CLUSTER",
        "KINSET_DATA",
        "KINSET_HOST",
        "KINSET_LEASE",
        "KINSET_LOCKS",
        "RAYON_NUM_THREADS",
        "COLUMNS",
        "LINES",
        "RUST_LOG",
        "RUST_BACKTRACE",
    ] {
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
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it has asked the system for its signals, or has ended: what comes sooner ends any process. Only Linux says.
    pub(crate) fn wait_until_it_listens(&mut self) {
        let status = format!("/proc/{}/status", self.id());
        let catches = |text: String| {
            let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim().to_owned();
            Some(u64::from_str_radix(&mask, 16).unwrap() >> (signal_hook::consts::SIGTERM - 1) & 1 == 1)
        };
        while self.child.try_wait().unwrap().is_none() && fs::read_to_string(&status).ok().and_then(catches) == Some(false) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
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

    /// Sends a signal by name, unless it has ended: its id may be somebody else's by now.
    pub(crate) fn signal_while_alive(&mut self, name: &str) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(name);
        }
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

/// The table of a stage: its needed ports wired by what they want to the stages of [`ground`], and of these values those whose
/// setting or port it has. `kind.setting` is for one kind alone; of two for the same setting the later one holds.
fn stage_table(name: &str, stage: &dyn AnyStage, values: &[(&str, &str)]) -> String {
    let mut text = format!("\n[stage.{name}]\nkind = \"{}\"\n", stage.kind());
    let either = stage.ports().iter().position(|port| port.arity.is_either());
    for (place, port) in stage.ports().iter().enumerate() {
        if !port.arity.is_needed() && either != Some(place) {
            continue;
        }
        let from = match port.artifact {
            "images" => "data.train",
            "labels" => "data.train.labels",
            "encoder" => "pretext",
            "features" => "features",
            "neighbors" => "neighbors",
            "classifier" => "cluster",
            other => panic!("`{}` reads {other}: wire it by hand in `WIRED`", stage.kind()),
        };
        let from = if port.arity.is_list() { format!("[\"{from}\"]") } else { format!("\"{from}\"") };
        text.push_str(&format!("{} = {from}\n", port.name));
    }
    let known = stage.default_settings();
    let mut settings = BTreeMap::new();
    for &(setting, value) in values {
        let (kind, setting) = setting.split_once('.').unwrap_or((stage.kind(), setting));
        let has = known.get(setting).is_some() || stage.ports().iter().any(|port| port.name == setting);
        if kind == stage.kind() && has {
            settings.insert(setting, value);
        }
    }
    for (setting, value) in settings {
        text.push_str(&format!("{setting} = {value}\n"));
    }
    text
}

/// What a stage of this kind gets to learn on next to nothing, over [`ground`].
pub(crate) fn tiny_stage(name: &str, stage: &dyn AnyStage, epochs: u32) -> String {
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
        ("network", NETWORK),
    ];
    stage_table(name, stage, &small)
}

/// Everything a method may want to read, from `images` drawn images of three shapes.
pub(crate) fn ground(pipeline: &str, images: u32, epochs: u32) -> String {
    format!(
        r#"
name = "{pipeline}"
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
network = {NETWORK}

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

/// The stages of [`ground`].
pub(crate) const GROUND: &str = "pretext,features,neighbors,cluster";

/// All methods: the stages that have a paper.
pub(crate) fn methods() -> impl Iterator<Item = &'static dyn AnyStage> {
    registry::all().filter(|stage| stage.card().is_some())
}
