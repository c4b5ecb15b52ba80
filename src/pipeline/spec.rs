//! The check of a pipeline file: from its text to a list of nodes – or to all its faults.
//!
//! A [`Spec`] that exists is sound: every stage has a kind, every setting is one its stage takes, every port is bound to an
//! output of the right artifact, nothing waits for itself. It holds settings with all defaults written out, so that a file with
//! its keys in another order, other comments or other stage names asks the same questions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::catalog::{Catalog, INGEST, StageInfo};
use super::document::{self, Entry, Item, Table, Value};
use super::fault::{COLLECTED, Faults, Finding, Place, Source, SpecFault, near, one_of, quote};
use super::graph;
use super::settings;
use super::shard;
use super::vary::{self, Axes, On, Varied};
use kinset_base::file_kind::is_utf16;
use kinset_base::fs::{self, FileError};
use kinset_stage::ports::STANDS_FOR;
use kinset_stage::{OutputInfo, PortInfo};

/// The largest file read, in bytes. The longest pipeline anyone wrote so far has some 200 lines.
pub const MAX_FILE: u64 = 1 << 20;
/// The most nodes, repetitions included.
pub const MAX_NODES: usize = 2000;
/// The most profiles.
pub const MAX_PROFILES: usize = 32;
/// The most repetitions.
pub const MAX_SEEDS: usize = 1000;
/// How faults call what a command adds.
const ADDED: &str = "what is added to the file";
/// The longest name of a stage: it becomes a folder.
pub const MAX_NAME: usize = 100;
/// The longest name of a node, with what varies and its seed.
const MAX_NODE_NAME: usize = 200;

/// What the command line adds to the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// `--profile P`.
    pub profile: Option<String>,
    /// `--set path=value`, in order.
    pub set: Vec<String>,
    /// `--seed N`.
    pub seed: Option<u64>,
    /// `--device D`.
    pub device: Option<String>,
    /// What a command adds, as text of a pipeline file: laid over the file and its profile, below what was asked for.
    pub added: Option<String>,
}

/// A checked pipeline.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name, `name = "…"` or the stem of the file.
    pub name: String,
    /// The seed of everything that is not repeated; 1 if none is given.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda`, `cuda:0`, `metal` …
    pub device: String,
    /// `f32`.
    pub precision: String,
    pub path: PathBuf,
    /// The text of the file, and what was added to it.
    pub text: String,
    pub request: Request,
    /// The profile that was laid over.
    pub profile: Option<String>,
    /// `store.max_size` in bytes.
    pub max_size: Option<u64>,
    /// The seeds of `[repeat]`, if there is one.
    pub repeat: Option<Repeat>,
    /// All nodes, in the order of the file.
    pub nodes: Vec<Node>,
    /// Indices of `nodes` so that each comes after all it reads from; among those free to come next, the order of the file.
    pub order: Vec<usize>,
}

/// `[repeat]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// The stages that are repeated, with all below them.
    pub from: Vec<String>,
    /// One seed for each repetition. `seeds = n` means the seed of the pipeline and the n − 1 that follow, so that the first
    /// repetition is the run without `[repeat]`, and more repetitions keep those there are.
    pub seeds: Vec<u64>,
}

/// A stage of the pipeline, or a source (`data.X`).
#[derive(Clone, Debug)]
pub struct Node {
    /// `pretext`, `data.pool`, `cluster@3` for the repetition with seed 3, `cluster@lr=0.1@3` where a setting varies.
    pub name: String,
    /// The name in the file: `cluster` for `cluster@3`.
    pub family: String,
    pub kind: String,
    /// All settings, defaults written out, keys sorted.
    pub settings: Json,
    /// What each bound port reads. A port that takes one has one entry.
    pub ports: BTreeMap<String, Vec<OutputRef>>,
    pub seed: u64,
    pub repeated: bool,
    /// The varied settings that it depends on, its own and those of stages above it, in the order of `[vary]`.
    pub varied: Vec<Varied>,
    /// What it writes, the main output first.
    pub outputs: Vec<OutputInfo>,
    /// Where the file names it.
    pub place: Place,
}

impl Node {
    /// Its name without the mark of a repetition: `cluster@lr=0.1`.
    pub fn variant(&self) -> &str {
        without_seed(&self.name, self.seed)
    }

    /// True if this names it, alone or with others: itself, all its repetitions, or all that the file's stage has become.
    pub fn is_called(&self, name: &str) -> bool {
        self.name == name || self.family == name || self.variant() == name
    }

    /// True if it writes an artifact of this kind.
    pub fn gives(&self, artifact: &str) -> bool {
        self.outputs.iter().any(|output| output.artifact == artifact)
    }
}

/// The name of a node without the mark of a repetition. Words of varied settings have a `=`, which no seed has.
pub(super) fn without_seed(name: &str, seed: u64) -> &str {
    name.strip_suffix(&format!("@{seed}")).unwrap_or(name)
}

/// An output of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRef {
    /// Index of the node.
    pub node: usize,
    pub output: &'static str,
    pub artifact: &'static str,
    /// True if it is the node's main output.
    pub main: bool,
}

impl Spec {
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// An output as it is written: `pretext`, `data.pool.labels`.
    pub fn reference(&self, output: &OutputRef) -> String {
        let node = &self.nodes[output.node].name;
        if output.main { node.clone() } else { format!("{node}.{}", output.output) }
    }
}

/// Reads and checks a pipeline file.
///
/// # Errors
/// All faults of the file and of what the command line adds.
pub fn load(path: &Path, request: &Request, catalog: &dyn Catalog) -> Result<Spec, Faults> {
    let text = read(path).map_err(|fault| Faults::nowhere(*fault))?;
    check(path, &text, request, catalog)
}

/// True if a pipeline can have this name, which becomes a folder beside the store.
pub fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name != "store"
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// Checks the text of a pipeline file. `path` is for messages and for the name of a pipeline that gives none.
///
/// # Errors
/// All faults of the text and of what the command line adds.
pub fn check(path: &Path, text: &str, request: &Request, catalog: &dyn Catalog) -> Result<Spec, Faults> {
    let mut sources = Vec::new();
    let mut findings = Vec::new();
    let mut base = document::read(&mut sources, &path.display().to_string(), text, &mut findings);
    let mut options = Vec::new();
    if let Some(text) = &request.added {
        options.push(document::read(&mut sources, ADDED, text, &mut findings));
    }
    let added = options.first().cloned();
    for set in &request.set {
        options.push(document::read_option(&mut sources, "--set", set, &mut findings));
    }
    if let Some(device) = &request.device {
        options.push(option(&mut sources, "device", "--device", device, Value::Text(device.clone())));
    }
    if let Some(seed) = request.seed {
        options.push(option(&mut sources, "seed", "--seed", &seed.to_string(), Value::Whole(seed.into())));
    }
    let unreadable = unreadable(&sources, &findings);

    let profiles = profiles(base.take("profile"), &mut findings);
    let mut known = base.clone();
    if let Some(table) = &added {
        known.overlay(table);
    }
    let has = Names::of(&known);
    let over = |profile: Option<&Table>| {
        let mut root = base.clone();
        profile.into_iter().chain(&options).for_each(|table| root.overlay(table));
        root
    };
    let survey = |root: &Table, profile: &[Place]| {
        let mut survey = Survey { catalog, path, has: &has, profile, axes: Axes::default(), findings: Vec::new() };
        let draft = survey.root(root);
        (draft, survey.findings)
    };
    let chosen = match &request.profile {
        None => None,
        Some(name) => {
            let found = profiles.iter().find(|(_, profile, _)| profile == name);
            if found.is_none() {
                let known = profiles.iter().map(|(_, name, _)| name.clone()).collect();
                let fault = SpecFault::UnknownName { what: "profile", written: name.clone(), known };
                let place = whole(&mut sources, "--profile", name);
                findings.push(Finding::at(place, fault));
            }
            found.map(|(_, _, table)| table)
        }
    };
    let (draft, found) = survey(&over(chosen), &chosen.map(places).unwrap_or_default());
    findings.extend(found);
    if request.profile.is_none() {
        // A profile that drifted from its file is found when the file is checked, not on the day the profile is needed.
        for (key, _, table) in &profiles {
            let inside = places(table);
            let (_, found) = survey(&over(Some(table)), &inside);
            for mut finding in found {
                let known =
                    |other: &Finding| other.place == finding.place && other.fault.to_string() == finding.fault.to_string();
                if findings.len() < COLLECTED && !findings.iter().any(known) {
                    if finding.place.is_some_and(|place| inside.binary_search(&place).is_err()) {
                        finding.notes.push((*key, "with this profile".to_owned()));
                    }
                    findings.push(finding);
                }
            }
        }
    }
    if !unreadable.is_empty() {
        findings.retain(|finding| stands(finding, &unreadable, &sources));
    }
    match draft {
        Some(draft) if findings.is_empty() => Ok(draft.finish(path, text, request)),
        _ => Err(Faults::new(sources, findings)),
    }
}

/// The places of all that stands in a table, sorted.
fn places(table: &Table) -> Vec<Place> {
    let mut places = Vec::new();
    table.places(&mut places);
    places.sort_unstable();
    places
}

pub(super) fn read(path: &Path) -> Result<String, Box<SpecFault>> {
    let shown = || path.display().to_string();
    let unreadable = |source: FileError| Box::new(SpecFault::Unreadable { source });
    let Some(metadata) = fs::metadata(path).map_err(unreadable)? else {
        return Err(Box::new(SpecFault::NoFile { path: shown(), near: similar_file(path) }));
    };
    if metadata.is_dir() {
        return Err(Box::new(SpecFault::Folder { path: shown(), files: pipeline_files(path) }));
    }
    if metadata.len() > MAX_FILE {
        return Err(Box::new(SpecFault::TooLarge { path: shown(), limit: MAX_FILE }));
    }
    // A pipe too: `kinset plan <(generate)`.
    let bytes = fs::read_stream_at_most(path, MAX_FILE).map_err(unreadable)?;
    // Of Latin letters it is UTF-8 too, with zeros between.
    if is_utf16(&bytes) {
        return Err(Box::new(SpecFault::NotText { path: shown(), line: 1, byte: 1, utf16: true }));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line_start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Box::new(SpecFault::NotText {
            path: shown(),
            line: document::line_ends(good) + 1,
            byte: good.len() - line_start + 1,
            utf16: false,
        })
    })
}

fn pipeline_files(folder: &Path) -> Vec<String> {
    let files = fs::list(folder).unwrap_or_default();
    files.iter().filter(|file| file.extension().is_some_and(|e| e == "toml")).map(|file| file.display().to_string()).collect()
}

/// A pipeline file with a similar name, in the same folder or in `pipelines/`.
fn similar_file(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let wanted = path.file_stem()?.to_str()?;
    let files: Vec<String> = [folder, Path::new("pipelines")].iter().flat_map(|folder| pipeline_files(folder)).collect();
    let stem = |file: &String| Path::new(file).file_stem().and_then(|stem| stem.to_str().map(str::to_owned));
    let stems: Vec<String> = files.iter().filter_map(stem).collect();
    let found = near(wanted, stems.iter().map(String::as_str))?;
    files.iter().find(|file| stem(file).as_deref() == Some(found)).cloned()
}

/// An option of the command line as an overlay with a single key.
fn option(sources: &mut Vec<Source>, key: &str, option: &str, text: &str, value: Value) -> Table {
    let place = whole(sources, option, text);
    Table { entries: vec![Entry { name: key.to_owned(), key: place, item: Item { place, value } }] }
}

fn whole(sources: &mut Vec<Source>, name: &str, text: &str) -> Place {
    sources.push(Source { name: name.to_owned(), text: text.to_owned() });
    Place { source: (sources.len() - 1) as u32, start: 0, end: text.len() as u32 }
}

/// The lines of the file that have syntax faults.
fn unreadable(sources: &[Source], findings: &[Finding]) -> Vec<usize> {
    let syntax = findings.iter().filter(|finding| matches!(finding.fault, SpecFault::Syntax { .. }));
    syntax.filter_map(|finding| finding.place.filter(|place| place.source == 0)).map(|place| line_of(sources, place)).collect()
}

fn line_of(sources: &[Source], place: Place) -> usize {
    let text = sources.get(place.source as usize).map_or("", |source| source.text.as_str());
    document::line_ends(text.as_bytes().get(..place.start as usize).unwrap_or_default())
}

/// In a file with syntax faults, what seems to be missing may just not have been understood, and what comes behind a damaged
/// header seems to belong to the table before it: only what is plainly there and plainly wrong is reported with them.
fn stands(finding: &Finding, unreadable: &[usize], sources: &[Source]) -> bool {
    let Some(place) = finding.place else { return false };
    match &finding.fault {
        SpecFault::Syntax { .. } => true,
        SpecFault::MissingPort { .. }
        | SpecFault::OneOf { .. }
        | SpecFault::Both { .. }
        | SpecFault::MissingSetting { .. }
        | SpecFault::NoKind { .. }
        | SpecFault::NothingBelow { .. }
        | SpecFault::UnknownReference { .. }
        | SpecFault::UnknownName { .. } => false,
        _ if place.source > 0 => true,
        SpecFault::UnknownKey { .. } => unreadable.iter().all(|line| line_of(sources, place) < *line),
        _ => !unreadable.contains(&line_of(sources, place)),
    }
}

/// The tables under `[profile]`, with the places of their names.
fn profiles(entry: Option<Entry>, findings: &mut Vec<Finding>) -> Vec<(Place, String, Table)> {
    let Some(entry) = entry else { return Vec::new() };
    let Some(table) = table_of(&entry, "`profile`", findings) else { return Vec::new() };
    if table.entries.len() > MAX_PROFILES {
        let fault = SpecFault::TooMany { what: "profiles", count: table.entries.len(), limit: MAX_PROFILES };
        findings.push(Finding::at(entry.key, fault));
    }
    let mut profiles = Vec::new();
    for entry in table.entries.iter().take(MAX_PROFILES) {
        if let Some(table) = table_of(entry, &format!("profile {}", quote(&entry.name)), findings) {
            profiles.push((entry.key, entry.name.clone(), table.clone()));
        }
    }
    profiles
}

fn table_of<'a>(entry: &'a Entry, what: &str, findings: &mut Vec<Finding>) -> Option<&'a Table> {
    match &entry.item.value {
        Value::Table(table) => return Some(table),
        Value::Unfit => {}
        _ => findings.push(wrong(&entry.item, what, "a table", None)),
    }
    None
}

fn wrong(item: &Item, what: &str, want: &str, hint: Option<&str>) -> Finding {
    let fault =
        SpecFault::Value { what: what.into(), want: want.into(), found: item.describe(), hint: hint.map(str::to_owned) };
    Finding::at(item.place, fault)
}

/// The names that the file itself gives, without any overlay.
struct Names {
    stages: Vec<String>,
    sources: Vec<String>,
}

impl Names {
    fn of(root: &Table) -> Self {
        let names = |key: &str| match root.get(key).map(|entry| &entry.item.value) {
            Some(Value::Table(table)) => table.entries.iter().map(|entry| entry.name.clone()).collect(),
            _ => Vec::new(),
        };
        Self { stages: names("stage"), sources: names("data") }
    }
}

/// Everything of a spec, before repetitions.
struct Draft<'a> {
    name: Option<String>,
    seed: u64,
    device: String,
    precision: String,
    max_size: Option<u64>,
    repeat: Option<(Vec<usize>, Seeds)>,
    axes: Axes,
    nodes: Vec<Sketch<'a>>,
}

enum Seeds {
    Count(usize),
    These(Vec<u64>),
}

impl Seeds {
    fn len(&self) -> usize {
        match self {
            Self::Count(count) => *count,
            Self::These(seeds) => seeds.len(),
        }
    }
}

/// A node on its way to being one.
struct Sketch<'a> {
    name: String,
    place: Place,
    /// None if its kind is not known, which is a fault of its own; then nothing that reads from it is blamed.
    stage: Option<&'a dyn StageInfo>,
    /// In words: ``stage `pretext` (simclr)``.
    owner: String,
    /// The axes that set something of it.
    on: On,
    /// For each combination of these.
    settings: Vec<Json>,
    bindings: Vec<Binding>,
    /// Every port that was given, with what was written.
    wires: Vec<(&'a PortInfo, Item)>,
}

/// A port and one output it reads.
struct Binding {
    port: &'static str,
    place: Place,
    node: usize,
    output: Option<OutputRef>,
    /// Whether it reads all parts of a source that is cut.
    collects: bool,
}

struct Survey<'a, 'n> {
    catalog: &'a dyn Catalog,
    path: &'n Path,
    has: &'n Names,
    /// All places of the profile that was laid over, sorted.
    profile: &'n [Place],
    axes: Axes,
    findings: Vec<Finding>,
}

impl<'a> Survey<'a, '_> {
    fn report(&mut self, finding: Finding) {
        if self.findings.len() < COLLECTED {
            self.findings.push(finding);
        }
    }

    fn root(&mut self, root: &Table) -> Option<Draft<'a>> {
        const KNOWN: [&str; 10] = ["name", "seed", "device", "precision", "data", "stage", "shard", "vary", "repeat", "store"];
        for entry in &root.entries {
            if !KNOWN.contains(&entry.name.as_str()) {
                let known = KNOWN.iter().map(|key| (*key).to_owned()).chain(["profile".to_owned()]).collect();
                let fault = SpecFault::UnknownKey { owner: "the pipeline".into(), key: entry.name.clone(), known };
                self.report(Finding::at(entry.key, fault));
            }
        }
        let name = self.name(root.get("name"));
        let seed = root.get("seed").and_then(|entry| self.seed(&entry.item, "`seed`")).unwrap_or(1);
        let device = root.get("device").and_then(|entry| self.device(&entry.item)).unwrap_or_else(|| "auto".into());
        let precision = root.get("precision").and_then(|entry| self.precision(&entry.item)).unwrap_or_else(|| "f32".into());
        let max_size = root.get("store").and_then(|entry| self.store(entry));
        if let Some(entry) = root.get("vary") {
            let known = [("stage", "stage", self.has.stages.as_slice()), ("data", "source", self.has.sources.as_slice())];
            self.axes = Axes(vary::read(entry, known, &mut self.findings));
        }
        // Last, so that the parts of one combination follow each other.
        let shard = root.get("shard").and_then(|entry| shard::read(entry, &self.has.sources, &mut self.findings));
        self.axes.0.extend(shard);
        let nodes = self.nodes(root)?;
        let repeat = root.get("repeat").and_then(|entry| self.repeat(entry, &nodes));
        let draft = Draft { name, seed, device, precision, max_size, repeat, axes: self.axes.clone(), nodes };
        self.size(&draft, root);
        Some(draft)
    }

    /// Reports more nodes than there may be, and names that are too long, before any of them is made.
    fn size(&mut self, draft: &Draft<'_>, root: &Table) {
        let place = |key: &str| root.get(key).map_or(draft.nodes[0].place, |entry| entry.key);
        let (spread, below) = (draft.spread(), draft.repeat.as_ref().map(|(from, seeds)| (draft.below(from), seeds.len())));
        let seeds = |node: usize| below.as_ref().map_or(1, |(below, seeds)| if below[node] { *seeds } else { 1 });
        let counts = (0..draft.nodes.len()).map(|node| draft.axes.count(&spread[node]).saturating_mul(seeds(node)));
        let count = counts.fold(0, usize::saturating_add);
        if count > MAX_NODES {
            let (key, what) = match draft.axes.0.last() {
                None => ("repeat", "stages with their repetitions"),
                Some(axis) if axis.cuts => ("shard", "stages with all parts, combinations and repetitions"),
                Some(_) => ("vary", "stages with all combinations of what varies, and their repetitions"),
            };
            self.report(Finding::at(place(key), SpecFault::TooMany { what, count, limit: MAX_NODES }));
        }
        for (node, on) in draft.nodes.iter().zip(&spread).filter(|(_, on)| !on.is_empty()) {
            let word = |&axis: &usize| draft.axes.0[axis].choices.iter().map(|choice| choice.word.len()).max().unwrap_or(0);
            // A seed has at most 20 digits.
            let length = node.name.len() + on.iter().map(word).sum::<usize>() + 21;
            if length > MAX_NODE_NAME {
                let fault = SpecFault::Setting {
                    owner: "`vary`".into(),
                    message: format!("names of {} with all that varies would have {length} letters", quote(&node.name)),
                    hint: Some(format!("{MAX_NODE_NAME} fit: vary fewer settings at a time")),
                };
                self.report(Finding::at(place("vary"), fault));
            }
        }
    }

    fn name(&mut self, entry: Option<&Entry>) -> Option<String> {
        const RULE: &str = "the name is also that of a folder: at most 100 letters, digits, `-`, `_` and `.`, not beginning with `.` \
                            or `-`, and not `store`; write `name = \"…\"` at the top of the file";
        let (name, place) = match entry {
            None => (self.path.file_stem()?.to_string_lossy().into_owned(), None),
            Some(entry) => {
                let Some(name) = entry.item.text() else {
                    self.value(&entry.item, "`name`", "a text in quotes", None);
                    return None;
                };
                (name.to_owned(), Some(entry.item.place))
            }
        };
        if !is_name(&name) {
            let fault = SpecFault::Name { what: "pipeline", name: name.clone(), rule: RULE };
            self.report(Finding { fault, place, notes: Vec::new() });
        }
        Some(name)
    }

    fn value(&mut self, item: &Item, what: &str, want: &str, hint: Option<&str>) {
        if !matches!(item.value, Value::Unfit) {
            self.report(wrong(item, what, want, hint));
        }
    }

    fn seed(&mut self, item: &Item, what: &str) -> Option<u64> {
        if let Value::Whole(seed) = item.value
            && let Ok(seed) = u64::try_from(seed)
        {
            return Some(seed);
        }
        self.value(item, what, "an integer, 0 or more", None);
        None
    }

    fn device(&mut self, item: &Item) -> Option<String> {
        const WANT: &str = "`auto`, `cpu`, `cuda:0` or `metal`";
        if let Some(device) = item.text() {
            let (family, number) = device.split_once(':').map_or((device, None), |(family, number)| (family, Some(number)));
            let number_fits =
                number.is_none_or(|n| n.len() <= 3 && !n.is_empty() && n.bytes().all(|digit| digit.is_ascii_digit()));
            if match family {
                "auto" | "cpu" => number.is_none(),
                "cuda" | "metal" => number_fits,
                _ => false,
            } {
                return Some(device.to_owned());
            }
        }
        let hint = item.text().is_some_and(|text| text.starts_with("gpu")).then_some("NVIDIA's are `cuda:0`, Apple's `metal`");
        self.value(item, "`device`", WANT, hint);
        None
    }

    fn precision(&mut self, item: &Item) -> Option<String> {
        // The key has room for others; every stage computes in this one.
        if let Some(precision @ "f32") = item.text() {
            return Some(precision.to_owned());
        }
        self.value(item, "`precision`", &one_of(&["f32"]), None);
        None
    }

    /// `[store]`: so far only `max_size`.
    fn store(&mut self, entry: &Entry) -> Option<u64> {
        let table = table_of(entry, "`store`", &mut self.findings)?;
        self.only(table, "`store`", &["max_size"]);
        let item = &table.get("max_size")?.item;
        let size = match &item.value {
            Value::Whole(bytes) => u64::try_from(*bytes).ok(),
            Value::Text(text) => size(text),
            _ => None,
        };
        if size.is_none() {
            self.value(item, "`store.max_size`", "bytes or a text such as `200 GB` or `1.5 TiB`", None);
        }
        size
    }

    /// Reports all keys but these.
    fn only(&mut self, table: &Table, owner: &str, known: &[&str]) {
        for entry in table.entries.iter().filter(|entry| !known.contains(&entry.name.as_str())) {
            let known = known.iter().map(|key| (*key).to_owned()).collect();
            let fault = SpecFault::UnknownKey { owner: owner.to_owned(), key: entry.name.clone(), known };
            self.report(Finding::at(entry.key, fault));
        }
    }

    fn repeat(&mut self, entry: &Entry, nodes: &[Sketch<'_>]) -> Option<(Vec<usize>, Seeds)> {
        let table = table_of(entry, "`repeat`", &mut self.findings)?;
        self.only(table, "`repeat`", &["from", "seeds"]);
        for key in ["from", "seeds"] {
            if table.get(key).is_none() {
                let fault = SpecFault::MissingSetting { owner: "`repeat`".into(), setting: key.to_owned() };
                self.report(Finding::at(entry.item.place, fault));
            }
        }
        let from = table.get("from").and_then(|entry| self.from(&entry.item, nodes));
        let seeds = table.get("seeds").and_then(|entry| self.seeds(&entry.item));
        Some((from?, seeds?))
    }

    /// The name of a stage, or several.
    fn from(&mut self, item: &Item, nodes: &[Sketch<'_>]) -> Option<Vec<usize>> {
        let items = match &item.value {
            Value::List(items) if !items.is_empty() => items.as_slice(),
            _ => std::slice::from_ref(item),
        };
        let found = items.iter().map(|item| {
            let Some(written) = item.text() else {
                self.value(item, "`repeat.from`", "the name of a stage, or a list of names", None);
                return None;
            };
            let found = nodes.iter().position(|node| node.name == written);
            if found.is_none() {
                let known = nodes.iter().filter(|node| node.stage.is_some()).map(|node| node.name.clone()).collect();
                let fault = SpecFault::UnknownName { what: "stage", written: written.to_owned(), known };
                self.report(Finding::at(item.place, fault));
            }
            found
        });
        // All of them are looked at, so that all faults are reported.
        found.collect::<Vec<_>>().into_iter().collect()
    }

    fn seeds(&mut self, item: &Item) -> Option<Seeds> {
        const WANT: &str = "the number of seeds, 1 to 1000, or a list of different seeds";
        match &item.value {
            Value::Whole(count) => {
                if let Ok(count) = usize::try_from(*count)
                    && (1..=MAX_SEEDS).contains(&count)
                {
                    return Some(Seeds::Count(count));
                }
            }
            Value::List(items) if (1..=MAX_SEEDS).contains(&items.len()) => {
                let seeds: Vec<Option<u64>> = items.iter().map(|item| self.seed(item, "a seed of `repeat.seeds`")).collect();
                let seeds: Vec<u64> = seeds.into_iter().collect::<Option<_>>()?;
                let mut different = seeds.clone();
                different.sort_unstable();
                different.dedup();
                if different.len() == seeds.len() {
                    return Some(Seeds::These(seeds));
                }
            }
            _ => {}
        }
        self.value(item, "`repeat.seeds`", WANT, None);
        None
    }

    /// All sources and stages, wired.
    fn nodes(&mut self, root: &Table) -> Option<Vec<Sketch<'a>>> {
        let mut entries: Vec<(bool, &Entry)> = Vec::new();
        for (key, source) in [("data", true), ("stage", false)] {
            if let Some(entry) = root.get(key)
                && let Some(table) = table_of(entry, &format!("`{key}`"), &mut self.findings)
            {
                entries.extend(table.entries.iter().map(|entry| (source, entry)));
            }
        }
        if entries.is_empty() {
            self.report(Finding::nowhere(SpecFault::Nothing));
            return None;
        }
        entries.sort_by_key(|(_, entry)| entry.key);
        if entries.len() > MAX_NODES {
            let fault = SpecFault::TooMany { what: "sources and stages", count: entries.len(), limit: MAX_NODES };
            self.report(Finding::at(entries[MAX_NODES].1.key, fault));
            return None;
        }
        let mut nodes: Vec<Sketch<'a>> =
            entries.iter().map(|(source, entry)| if *source { self.source(entry) } else { self.stage(entry) }).collect();
        self.wire(&mut nodes);
        self.cycles(&nodes);
        Some(nodes)
    }

    fn check_name(&mut self, what: &'static str, entry: &Entry) {
        const RULE: &str = "letters, digits, `-` and `_`, at most 100 of them; not `data` and not `runs`, which have a meaning of \
                            their own";
        let name = entry.name.as_str();
        let fits = (1..=MAX_NAME).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
            && (what == "source" || !matches!(name, "data" | "runs"));
        if !fits {
            let fault = SpecFault::Name { what, name: name.to_owned(), rule: RULE };
            self.report(Finding::at(entry.key, fault));
        }
    }

    /// `[data.X]`.
    fn source(&mut self, entry: &Entry) -> Sketch<'a> {
        self.check_name("source", entry);
        let stage = self.catalog.stage(INGEST);
        let name = format!("data.{}", entry.name);
        let owner = format!("source {}", quote(&name));
        let on = self.axes.of("data", &entry.name);
        let mut sketch =
            Sketch { name, place: entry.key, stage, owner, on, settings: Vec::new(), bindings: Vec::new(), wires: Vec::new() };
        if stage.is_none() {
            // Not the file's fault, but better told than met later.
            let fault = SpecFault::UnknownKind { stage: sketch.name.clone(), kind: INGEST.to_owned(), known: Vec::new() };
            self.report(Finding::at(entry.key, fault));
        }
        if let (Some(stage), Some(table)) = (stage, table_of(entry, &sketch.owner, &mut self.findings)) {
            let (settings, found) = self.settings(stage, entry, table, ("data", &sketch.on), &sketch.owner, &[]);
            let stranger = !self.has.sources.contains(&entry.name)
                && near(&entry.name, self.has.sources.iter().map(String::as_str)).is_some();
            if stranger && !found.is_empty() {
                let fault =
                    SpecFault::NothingBelow { what: "source", name: entry.name.clone(), known: self.has.sources.clone() };
                self.report(Finding::at(entry.key, fault));
            } else {
                self.findings.extend(found);
            }
            sketch.settings = settings;
        }
        sketch
    }

    /// Checks the table of a stage or source under every combination of what varies of it. `others` are keys that are no settings.
    fn settings(
        &self,
        stage: &dyn StageInfo,
        entry: &Entry,
        table: &Table,
        (section, on): (&str, &On),
        owner: &str,
        others: &[&str],
    ) -> (Vec<Json>, Vec<Finding>) {
        let (name, count) = (entry.name.as_str(), self.axes.count(on));
        let mut findings = Vec::new();
        for (place, input) in self.axes.inputs_of(on, section, name, others) {
            let message = format!("{} is no setting, and only settings vary", quote(&input));
            let hint = Some("write a stage for each of them".to_owned());
            findings.push(Finding::at(place, SpecFault::Setting { owner: owner.to_owned(), message, hint }));
        }
        for (place, path, by) in self.axes.overruled(table, on, (section, name), self.profile) {
            let message = format!("`[{by}]` says what {} is", quote(&path));
            let hint = if by == "vary" { format!("write `vary.{path} = […]`") } else { "leave it out".to_owned() };
            let hint = Some(hint);
            findings.push(Finding::at(place, SpecFault::Setting { owner: owner.to_owned(), message, hint }));
        }
        if count > MAX_NODES {
            let what = "combinations of what varies of a stage";
            findings.push(Finding::at(self.axes.0[on[0]].place, SpecFault::TooMany { what, count, limit: MAX_NODES }));
            return (Vec::new(), findings);
        }
        let mut all = Vec::with_capacity(count);
        for combination in 0..count {
            let table = self.axes.laid_over(table, section, name, on, combination);
            let given: Vec<&Entry> = table.entries.iter().filter(|entry| !others.contains(&entry.name.as_str())).collect();
            let checked = settings::check(stage, &given, owner, entry.key, others);
            for finding in checked.findings {
                let told =
                    |other: &Finding| other.place == finding.place && other.fault.to_string() == finding.fault.to_string();
                if findings.len() < COLLECTED && !findings.iter().any(told) {
                    findings.push(finding);
                }
            }
            all.push(checked.settings);
        }
        (all, findings)
    }

    /// `[stage.Y]`.
    fn stage(&mut self, entry: &Entry) -> Sketch<'a> {
        self.check_name("stage", entry);
        let mut sketch = Sketch {
            name: entry.name.clone(),
            place: entry.key,
            stage: None,
            owner: format!("stage {}", quote(&entry.name)),
            on: self.axes.of("stage", &entry.name),
            settings: Vec::new(),
            bindings: Vec::new(),
            wires: Vec::new(),
        };
        let Some(table) = table_of(entry, &sketch.owner, &mut self.findings) else { return sketch };
        let Some(stage) = self.kind(entry, table) else { return sketch };
        sketch.stage = Some(stage);
        sketch.owner = format!("stage {} ({})", quote(&entry.name), stage.kind());
        for entry in &table.entries {
            if let Some(port) = stage.ports().iter().find(|port| port.name == entry.name) {
                sketch.wires.push((port, entry.item.clone()));
            }
        }
        // Any combination gives the same settings, if not the same values.
        let whole = self.axes.laid_over(table, "stage", &entry.name, &sketch.on, 0);
        // A port `clusters_from` brings what the setting `clusters` says: which of the two was meant, nobody knows.
        for (port, item) in &sketch.wires {
            let setting = port.name.strip_suffix(STANDS_FOR);
            if let Some(entry) = setting.and_then(|setting| whole.get(setting)) {
                let (owner, setting, port) = (sketch.owner.clone(), entry.name.clone(), port.name.to_owned());
                self.findings.push(Finding::at(item.place, SpecFault::Both { owner, setting, port }));
            }
        }
        let mut others = vec!["kind"];
        others.extend(stage.ports().iter().map(|port| port.name));
        let (settings, found) = self.settings(stage, entry, table, ("stage", &sketch.on), &sketch.owner, &others);
        self.findings.extend(found);
        sketch.settings = settings;
        sketch
    }

    fn kind(&mut self, entry: &Entry, table: &Table) -> Option<&'a dyn StageInfo> {
        let known = || self.catalog.kinds().into_iter().filter(|kind| *kind != INGEST).map(str::to_owned).collect();
        let stage = entry.name.clone();
        let (place, fault) = match table.get("kind") {
            None if !self.has.stages.contains(&stage) => {
                (entry.key, SpecFault::NothingBelow { what: "stage", name: stage, known: self.has.stages.clone() })
            }
            None => (entry.key, SpecFault::NoKind { stage, known: known() }),
            Some(given) => match given.item.text() {
                Some(INGEST) => (given.item.place, SpecFault::SourceAsStage { stage }),
                Some(kind) => match self.catalog.stage(kind) {
                    Some(found) => return Some(found),
                    None => (given.item.place, SpecFault::UnknownKind { stage, kind: kind.to_owned(), known: known() }),
                },
                None => {
                    self.value(&given.item, "`kind`", "the kind of stage in quotes", None);
                    return None;
                }
            },
        };
        self.report(Finding::at(place, fault));
        None
    }

    fn wire(&mut self, nodes: &mut [Sketch<'a>]) {
        let names: BTreeMap<String, usize> = nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), index)).collect();
        for index in 0..nodes.len() {
            let wires = std::mem::take(&mut nodes[index].wires);
            let mut bindings = Vec::new();
            for (port, item) in &wires {
                self.bind(nodes, &names, index, port, item, &mut bindings);
            }
            let ports = nodes[index].stage.map_or(&[][..], StageInfo::ports);
            for port in ports.iter().filter(|port| port.arity.is_needed()) {
                let given = wires.iter().find(|(given, _)| given.name == port.name);
                let empty = given.filter(|(_, item)| matches!(&item.value, Value::List(items) if items.is_empty()));
                if given.is_none() || empty.is_some() {
                    let fault = SpecFault::MissingPort {
                        owner: nodes[index].owner.clone(),
                        port: port.name.to_owned(),
                        artifact: port.artifact.to_owned(),
                        fits: fits(nodes, index, None, port.artifact),
                    };
                    self.report(Finding::at(empty.map_or(nodes[index].place, |(_, item)| item.place), fault));
                }
            }
            let either: Vec<&PortInfo> = ports.iter().filter(|port| port.arity.is_either()).collect();
            let connected: Vec<&Item> = either
                .iter()
                .filter_map(|port| wires.iter().find(|(given, _)| given.name == port.name).map(|(_, item)| item))
                .collect();
            if !either.is_empty() && connected.len() != 1 {
                let fault = SpecFault::OneOf {
                    owner: nodes[index].owner.clone(),
                    ports: either.iter().map(|port| port.name.to_owned()).collect(),
                    given: connected.len(),
                };
                self.report(Finding::at(connected.get(1).map_or(nodes[index].place, |item| item.place), fault));
            }
            nodes[index].bindings = bindings;
        }
    }

    /// Binds one port to what was written.
    fn bind(
        &mut self,
        nodes: &[Sketch<'a>],
        names: &BTreeMap<String, usize>,
        index: usize,
        port: &'a PortInfo,
        item: &Item,
        bindings: &mut Vec<Binding>,
    ) {
        let what = || format!("port {} of {}", quote(port.name), nodes[index].owner);
        let many = port.arity.is_list();
        let want = if many { "names of sources, stages or outputs" } else { "the name of a source, a stage or an output" };
        let items = match &item.value {
            Value::List(items) if many => items.as_slice(),
            Value::List(_) => {
                self.value(item, &what(), want, None);
                return;
            }
            _ => std::slice::from_ref(item),
        };
        let mut read: Vec<(usize, &str)> = Vec::new();
        for item in items {
            let Some(written) = item.text() else {
                self.value(item, &what(), want, None);
                continue;
            };
            let owner = || nodes[index].owner.clone();
            let port_name = || port.name.to_owned();
            let found = match resolve(nodes, names, written) {
                Ok(found) => found,
                Err(Unresolved::Name) => {
                    let fits = fits(nodes, index, None, port.artifact);
                    let fault = SpecFault::UnknownReference {
                        owner: owner(),
                        port: port_name(),
                        written: written.to_owned(),
                        artifact: port.artifact.to_owned(),
                        meant: meant(nodes, names, written, &fits),
                        fits,
                    };
                    self.report(Finding::at(item.place, fault));
                    continue;
                }
                Err(Unresolved::Output { node, output }) => {
                    let outputs: Vec<String> = references(&nodes[node]).map(|(reference, _)| reference).collect();
                    let names = || nodes[node].stage.map_or(&[][..], StageInfo::outputs).iter().map(|output| output.name);
                    let meant = near(&output, names()).and_then(|meant| names().position(|name| name == meant));
                    let meant = meant.and_then(|position| outputs.get(position).cloned());
                    let fault = SpecFault::UnknownOutput { node: nodes[node].name.clone(), output, outputs, meant };
                    self.report(Finding::at(item.place, fault));
                    continue;
                }
            };
            let (node, output) = found;
            let name = output.as_ref().map_or("", |output| output.output);
            if read.contains(&(node, name)) {
                let fault = SpecFault::Twice { owner: owner(), port: port_name(), written: written.to_owned() };
                self.report(Finding::at(item.place, fault));
                continue;
            }
            read.push((node, name));
            if node == index {
                self.report(Finding::at(item.place, SpecFault::Itself { owner: owner(), port: port_name() }));
                continue;
            }
            if let Some(output) = &output
                && output.artifact != port.artifact
            {
                let fault = SpecFault::WrongArtifact {
                    owner: owner(),
                    port: port_name(),
                    written: written.to_owned(),
                    gives: output.artifact.to_owned(),
                    wants: port.artifact.to_owned(),
                    fits: fits(nodes, index, Some(node), port.artifact),
                };
                self.report(Finding::at(item.place, fault));
            }
            bindings.push(Binding { port: port.name, place: item.place, node, output, collects: port.collects });
        }
    }

    /// Reports stages that wait for each other.
    fn cycles(&mut self, nodes: &[Sketch<'a>]) {
        let inputs: Vec<Vec<usize>> =
            nodes.iter().map(|node| node.bindings.iter().map(|binding| binding.node).collect()).collect();
        for cycle in graph::cycles(&inputs) {
            let mut steps = cycle.iter().zip(cycle.iter().cycle().skip(1)).filter_map(|(&reader, &read)| {
                let binding = nodes[reader].bindings.iter().find(|binding| binding.node == read)?;
                Some((binding.place, format!("{} reads {}", quote(&nodes[reader].name), quote(&nodes[read].name))))
            });
            let Some((place, _)) = steps.next() else { continue };
            let notes = steps.collect();
            let names = cycle.iter().chain(cycle.first()).map(|&index| nodes[index].name.clone()).collect();
            self.report(Finding { fault: SpecFault::Cycle { names }, place: Some(place), notes });
        }
    }
}

enum Unresolved {
    Name,
    Output { node: usize, output: String },
}

/// The node, and the output unless the kind of the node is unknown.
fn resolve(
    nodes: &[Sketch<'_>],
    names: &BTreeMap<String, usize>,
    written: &str,
) -> Result<(usize, Option<OutputRef>), Unresolved> {
    let output = |node: usize, position: usize, output: &OutputInfo| OutputRef {
        node,
        output: output.name,
        artifact: output.artifact,
        main: position == 0,
    };
    if let Some(&node) = names.get(written) {
        let main = nodes[node].stage.and_then(|stage| stage.outputs().first());
        return Ok((node, main.map(|main| output(node, 0, main))));
    }
    let (name, rest) = written.rsplit_once('.').ok_or(Unresolved::Name)?;
    let node = *names.get(name).ok_or(Unresolved::Name)?;
    let Some(stage) = nodes[node].stage else { return Ok((node, None)) };
    match stage.outputs().iter().enumerate().find(|(_, output)| output.name == rest) {
        Some((position, found)) => Ok((node, Some(output(node, position, found)))),
        None => Err(Unresolved::Output { node, output: rest.to_owned() }),
    }
}

/// What a node's outputs are called, and what they are.
fn references<'n>(node: &'n Sketch<'_>) -> impl Iterator<Item = (String, &'static str)> + 'n {
    let outputs = node.stage.map_or(&[][..], StageInfo::outputs);
    outputs.iter().enumerate().map(|(position, output)| {
        let name = if position == 0 { node.name.clone() } else { format!("{}.{}", node.name, output.name) };
        (name, output.artifact)
    })
}

/// Everything that gives an artifact, but for the node that asks; outputs of `first` come first.
fn fits(nodes: &[Sketch<'_>], asks: usize, first: Option<usize>, artifact: &str) -> Vec<String> {
    let of = |index: usize| references(&nodes[index]).filter(|(_, gives)| *gives == artifact).map(|(name, _)| name);
    let others = (0..nodes.len()).filter(|index| *index != asks && Some(*index) != first);
    first.into_iter().chain(others).flat_map(of).collect()
}

/// The reference that was probably meant.
fn meant(nodes: &[Sketch<'_>], names: &BTreeMap<String, usize>, written: &str, fits: &[String]) -> Option<String> {
    if let Some(bare) = written.strip_prefix("stage.")
        && resolve(nodes, names, bare).is_ok()
    {
        return Some(bare.to_owned());
    }
    let source = format!("data.{written}");
    if resolve(nodes, names, &source).is_ok() {
        return Some(source);
    }
    let fitting = near(written, fits.iter().map(String::as_str)).or_else(|| near(&source, fits.iter().map(String::as_str)));
    fitting.or_else(|| near(written, names.keys().map(String::as_str))).map(str::to_owned)
}

/// `200 GB`, `1.5 TiB`, `4096` in bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes.is_finite() && bytes < 1e18).then_some(bytes.round() as u64)
}

impl Draft<'_> {
    /// What each node reads.
    fn inputs(&self) -> Vec<Vec<usize>> {
        self.nodes.iter().map(|node| node.bindings.iter().map(|binding| binding.node).collect()).collect()
    }

    /// The axes that each node depends on.
    fn spread(&self) -> Vec<On> {
        let own: Vec<On> = self.nodes.iter().map(|node| node.on.clone()).collect();
        let read = |node: &Sketch<'_>| node.bindings.iter().map(|binding| (binding.node, binding.collects)).collect();
        self.axes.spread(&own, &self.nodes.iter().map(read).collect::<Vec<_>>())
    }

    /// Which nodes are among the given ones or read from them, over any number of steps.
    fn below(&self, from: &[usize]) -> Vec<bool> {
        let inputs = self.inputs();
        let mut all = vec![false; self.nodes.len()];
        for &one in from {
            all.iter_mut().zip(graph::below(&inputs, one)).for_each(|(all, below)| *all |= below);
        }
        all
    }

    /// Writes out defaults, combinations of what varies, and repetitions. Only for a draft without faults.
    fn finish(self, path: &Path, text: &str, request: &Request) -> Spec {
        let repeat = self.repeat.as_ref().map(|(from, seeds)| {
            let seeds = match seeds {
                Seeds::Count(count) => (0..*count as u64).map(|step| self.seed.wrapping_add(step)).collect(),
                Seeds::These(seeds) => seeds.clone(),
            };
            (self.below(from), Repeat { from: from.iter().map(|&one| self.nodes[one].name.clone()).collect(), seeds })
        });
        let seeds_of = |node: usize| match &repeat {
            Some((below, repeat)) if below[node] => Some(repeat.seeds.as_slice()),
            _ => None,
        };
        let (axes, on) = (&self.axes, self.spread());
        // Where the first repetition of the first combination of each node comes to lie; the others follow it.
        let mut first = Vec::with_capacity(self.nodes.len());
        let mut count = 0;
        for (index, on) in on.iter().enumerate() {
            first.push(count);
            count += axes.count(on) * seeds_of(index).map_or(1, <[u64]>::len);
        }
        let mut nodes = Vec::with_capacity(count);
        for (index, sketch) in self.nodes.iter().enumerate() {
            let Some(stage) = sketch.stage else { unreachable!("a node of unknown kind is a fault") };
            let seeds = seeds_of(index);
            for combination in 0..axes.count(&on[index]) {
                let own = axes.part(&on[index], combination, &sketch.on);
                let settings = settings::sorted(stage.normalize(&sketch.settings[own]));
                let choices = axes.choices(&on[index], combination);
                let variant = choices.iter().fold(sketch.name.clone(), |name, (_, choice)| name + &choice.word);
                for (repetition, &seed) in seeds.unwrap_or(&[self.seed]).iter().enumerate() {
                    let mut ports: BTreeMap<String, Vec<OutputRef>> = BTreeMap::new();
                    for binding in &sketch.bindings {
                        let Some(output) = &binding.output else { unreachable!("a node of unknown kind is a fault") };
                        for read in axes.read(&on[index], combination, &on[binding.node], binding.collects) {
                            let read = seeds_of(binding.node).map_or(read, |seeds| read * seeds.len() + repetition);
                            let node = first[binding.node] + read;
                            ports.entry(binding.port.to_owned()).or_default().push(OutputRef { node, ..output.clone() });
                        }
                    }
                    nodes.push(Node {
                        name: if seeds.is_some() { format!("{variant}@{seed}") } else { variant.clone() },
                        family: sketch.name.clone(),
                        kind: stage.kind().to_owned(),
                        settings: settings.clone(),
                        ports,
                        seed,
                        repeated: seeds.is_some(),
                        varied: choices.iter().flat_map(|(_, choice)| choice.varied.clone()).collect(),
                        outputs: stage.outputs().to_vec(),
                        place: sketch.place,
                    });
                }
            }
        }
        let inputs: Vec<Vec<usize>> = nodes.iter().map(|node| graph::inputs(node).collect()).collect();
        Spec {
            name: self.name.unwrap_or_else(|| "pipeline".into()),
            seed: self.seed,
            device: self.device,
            precision: self.precision,
            path: path.to_owned(),
            text: text.to_owned(),
            request: request.clone(),
            profile: request.profile.clone(),
            max_size: self.max_size,
            repeat: repeat.map(|(_, repeat)| repeat),
            order: graph::order(&inputs),
            nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SAMPLE, catalog};
    use super::*;
    use kinset_base::fault::{Exit, Fault};

    fn request(profile: Option<&str>, set: &[&str]) -> Request {
        Request {
            profile: profile.map(str::to_owned),
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            ..Request::default()
        }
    }

    const PATH: &str = "p.toml";

    fn spec(text: &str, request: &Request) -> Spec {
        match check(Path::new(PATH), text, request, &catalog()) {
            Ok(spec) => spec,
            Err(faults) => panic!("{}", faults.render(false, 120)),
        }
    }

    /// Code, `line:column`, and message of every fault.
    fn short(text: &str, request: &Request) -> Vec<String> {
        let Err(faults) = check(Path::new(PATH), text, request, &catalog()) else { return Vec::new() };
        let line = |finding: &Finding| {
            let at = finding.place.and_then(|place| faults.position(place));
            let at = at.map(|at| format!("{}:{}:{} ", at.file, at.line, at.column)).unwrap_or_default();
            format!("{at}{}", finding.fault)
        };
        faults.findings().iter().map(line).collect()
    }

    fn one(text: &str) -> String {
        let found = short(text, &Request::default());
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    }

    #[test]
    fn the_sample_of_the_design_becomes_nodes_in_order() {
        let spec = spec(SAMPLE, &Request::default());
        let names: Vec<&str> = spec.order.iter().map(|&node| spec.nodes[node].name.as_str()).collect();
        assert_eq!(
            names,
            [
                "data.pool",
                "data.test",
                "pretext",
                "features",
                "neighbors",
                "cluster@1",
                "cluster@2",
                "cluster@3",
                "scores@1",
                "scores@2",
                "scores@3"
            ]
        );
        assert_eq!((spec.name.as_str(), spec.seed, spec.device.as_str(), spec.precision.as_str()), ("stl10", 1, "auto", "f32"));
        let scores = spec.node("scores@2").unwrap();
        let reads = |port: &str| spec.reference(&scores.ports[port][0]);
        assert_eq!((scores.family.as_str(), scores.kind.as_str(), scores.seed), ("scores", "evaluate", 2));
        assert_eq!([reads("classifier"), reads("images"), reads("labels")], ["cluster@2", "data.test", "data.test.labels"]);
        assert_eq!(spec.node("pretext").unwrap().settings["temperature"], 0.1, "defaults are written out");
    }

    #[test]
    fn order_comments_and_names_of_stages_do_not_matter_to_settings() {
        let a = "[data.a]\ndataset = 'x'\n[stage.s]\nkind = 'simclr'\nimages = 'data.a'\nlr = 1\naugment.gray = 0\n";
        let b = "# comment\n[stage.other]\naugment = {gray = 0.0}\nimages = \"data.b\"\nlr = 1.0\nkind = 'simclr'\n[data.b]\ndataset = 'x'\n";
        let (a, b) = (spec(a, &Request::default()), spec(b, &Request::default()));
        let (a, b) = (a.node("s").unwrap(), b.node("other").unwrap());
        assert_eq!(a.settings.to_string(), b.settings.to_string());
        assert_eq!(a.settings["lr"].to_string(), "1.0", "a number with a fraction may be written without");
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = include_str!("../../tests/golden/pipeline/many.toml");
        let sets = ["stage.pretex.epochs=3", "stage.pretext.lr=quick", "stag.x=1", "stage.pretext.augment.gray=\"x"];
        let request = request(None, &sets);
        let faults = check(Path::new("many.toml"), text, &request, &catalog()).unwrap_err();
        let drawn = faults.render(false, 120);
        assert_eq!(drawn, include_str!("../../tests/golden/pipeline/many.txt"), "\n{drawn}");
    }

    #[test]
    fn faults_can_be_read_by_programs() {
        let text = "[data.a]\r\ndataset = 'x'\r\n\tlimit = 'ä'; \r\n";
        let text = text.replace(';', "");
        let faults = check(Path::new(PATH), &text, &Request::default(), &catalog()).unwrap_err();
        let expected = serde_json::json!([{
            "code": "pipeline::value",
            "message": "`limit` of source `data.a` expects an integer, 0 or more, found the text `ä`",
            "label": null, "hint": null, "file": "p.toml", "line": 3, "column": 10,
        }]);
        assert_eq!(faults.to_json(), expected);
        assert_eq!((faults.code(), faults.exit()), ("pipeline::value", Exit::Pipeline));
    }

    #[test]
    fn a_byte_order_mark_is_no_character() {
        assert_eq!(one("\u{feff}sead = 1\n[data.a]\ndataset='x'\n"), "p.toml:1:1 unknown key `sead` in the pipeline");
    }

    #[test]
    fn overlays_are_laid_over_and_keep_their_places() {
        let smoke = spec(SAMPLE, &request(Some("smoke"), &["stage.pretext.lr=2", "seed=7", "repeat.seeds=[5]"]));
        let pretext = smoke.node("pretext").unwrap();
        assert_eq!((&pretext.settings["epochs"], &pretext.settings["lr"]), (&10.into(), &2.0.into()));
        assert_eq!(smoke.node("data.pool").unwrap().settings["limit"], 256);
        assert_eq!((smoke.seed, smoke.node("cluster@5").unwrap().seed), (7, 5));

        let direct = Request { seed: Some(u64::MAX), device: Some("cuda:1".into()), ..Request::default() };
        let direct = spec(SAMPLE, &direct);
        assert_eq!((direct.seed, direct.device.as_str()), (u64::MAX, "cuda:1"));
        assert_eq!(direct.node("cluster@0").unwrap().seed, 0, "seeds wrap");

        let faults = |set: &str| short(SAMPLE, &request(None, &[set]));
        assert_eq!(
            faults("stage.scores.images=data.pool.labels"),
            ["--set:1:21 `data.pool.labels` gives labels, but port `images` of stage `scores` (evaluate) expects images"]
        );
        assert_eq!(
            faults("stage.pretext.epochs = 1e3"),
            ["--set:1:24 `epochs` of stage `pretext` (simclr) expects an integer, 0 or more, found `1000.0`"]
        );
        assert_eq!(faults("profile.x.seed=1"), ["--set:1:1 unknown key `profile` in the pipeline"]);
        let device = Request { device: Some("gpu".into()), ..Request::default() };
        assert_eq!(
            short(SAMPLE, &device),
            ["--device:1:1 `device` expects `auto`, `cpu`, `cuda:0` or `metal`, found the text `gpu`"]
        );
    }

    #[test]
    fn an_unknown_profile_names_those_there_are() {
        let faults = check(Path::new(PATH), SAMPLE, &request(Some("smok"), &[]), &catalog()).unwrap_err();
        let fault = &faults.findings()[0].fault;
        assert_eq!(fault.to_string(), "there is no profile `smok`");
        assert_eq!(fault.label().unwrap(), "did you mean `smoke`?");
        assert_eq!(fault.hint().unwrap(), "there is `smoke`");
    }

    #[test]
    fn a_profile_that_drifted_is_a_fault_before_anyone_asks_for_it() {
        let drifted =
            |profile: &str| one(&format!("[data.a]\ndataset = 'x'\n[stage.s]\nkind = 'simclr'\nimages = 'data.a'\n{profile}"));
        assert_eq!(drifted("[profile.p.stage.t]\nepochs = 1\n"), "p.toml:6:18 the file has no stage `t`");
        assert_eq!(drifted("[profile.p.stage.s]\nepoch = 1\n"), "p.toml:7:1 unknown key `epoch` in stage `s` (simclr)");
        assert_eq!(
            drifted("[profile.p.stage.s]\nkind = 'embed'\n"),
            "p.toml:3:8 stage `s` (embed) needs encoder at its port `encoder`",
            "also if what the profile breaks stands elsewhere"
        );
        assert_eq!(drifted("[profile.p]\nprofile.q.seed = 1\n"), "p.toml:7:1 unknown key `profile` in the pipeline");
        assert_eq!(
            drifted("profile.p = 1\n").split(' ').next(),
            Some("p.toml:6:1"),
            "a top-level key inside a table is unknown"
        );
    }

    #[test]
    fn broken_toml_is_told_with_what_is_plainly_wrong_elsewhere() {
        let text = "sead = 1\n[stage.a]\nkind = 'simclr'\nimages =\nimages = 3\nlr = 'x'\n[stage.b\nkind = 'embd'\n[stage.c]\nkind = '''x\n";
        assert_eq!(
            short(text, &Request::default()),
            [
                "p.toml:1:1 unknown key `sead` in the pipeline",
                "p.toml:4:9 a value is missing here",
                "p.toml:5:1 `images` is given twice",
                "p.toml:6:6 `lr` of stage `a` (simclr) expects a number, found the text `x`",
                "p.toml:7:9 the header is not closed",
                "p.toml:10:8 this text is never closed",
            ]
        );
    }

    #[test]
    fn each_wrong_wire_says_what_would_fit() {
        let wired = |lines: &str| {
            let text = format!(
                "[data.pool]\ndataset='x'\n[stage.pretext]\nkind='simclr'\nimages='data.pool'\n[stage.s]\nkind='embed'\n{lines}"
            );
            let faults = check(Path::new(PATH), &text, &Request::default(), &catalog()).unwrap_err();
            let [finding] = faults.findings() else { panic!("{}", faults.render(false, 120)) };
            let parts = [Some(finding.fault.to_string()), finding.fault.label(), finding.fault.hint()];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(
            wired("images='data.pool'"),
            "stage `s` (embed) needs encoder at its port `encoder` | write `encoder = \"pretext\"`, the only encoder here"
        );
        assert_eq!(
            wired("images='pool'\nencoder='pretext'"),
            "port `images` of stage `s` (embed): there is no source, stage or output `pool` | did you mean `data.pool`? | these give \
             images: `data.pool`"
        );
        assert_eq!(wired("images='data.pool'\nencoder='stage.pretext'").split(" | ").nth(1), Some("did you mean `pretext`?"));
        assert_eq!(
            wired("images='data.pool'\nencoder='pretext.curve'"),
            "`pretext.curve` gives curve, but port `encoder` of stage `s` (embed) expects encoder | this is curve | these give encoder: \
             `pretext`"
        );
        assert_eq!(
            wired("images='data.pool.images'\nencoder='s'").split(" | ").next(),
            Some("port `encoder` of stage `s` (embed) reads the stage's own result")
        );
    }

    #[test]
    fn the_main_output_has_two_names_and_is_one() {
        let text = "[data.a]\ndataset='x'\n[stage.s]\nkind='simclr'\nimages='data.a.images'\n";
        let spec = spec(text, &Request::default());
        assert_eq!(spec.reference(&spec.node("s").unwrap().ports["images"][0]), "data.a");
        let one_alone = format!("{SAMPLE}\n[stage.a]\nkind='compare'\nscores='scores'\n");
        assert_eq!(short(&one_alone, &Request::default()), [""; 0], "a port for many takes one");
        let none = format!("{SAMPLE}\n[stage.a]\nkind='compare'\n[stage.b]\nkind='compare'\nscores=[]\n");
        let lines = SAMPLE.matches('\n').count();
        let found: Vec<String> = short(&none, &Request::default());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with(&format!("p.toml:{}:", lines + 2)), "{found:?}");
        assert!(found[1].starts_with(&format!("p.toml:{}:8 ", lines + 6)), "an empty list is pointed at: {found:?}");
        let many = format!("{SAMPLE}\n[stage.all]\nkind='compare'\nscores=['scores','scores.scores']\n");
        assert_eq!(
            one(&many),
            format!(
                "p.toml:{}:18 port `scores` of stage `all` (compare) names `scores.scores` twice",
                SAMPLE.matches('\n').count() + 4
            )
        );
    }

    #[test]
    fn circles_are_told_as_a_path() {
        let ring = |names: &[(&str, &str)]| {
            let stages =
                names.iter().map(|(name, start)| format!("[stage.{name}]\nkind='simclr'\nimages='data.d'\nstart='{start}'\n"));
            short(&format!("[data.d]\ndataset='x'\n{}", stages.collect::<String>()), &Request::default())
        };
        assert_eq!(
            ring(&[("a", "c"), ("b", "a"), ("c", "b"), ("tail", "c")]),
            ["p.toml:6:7 these stages wait for each other: `a` -> `c` -> `b` -> `a` (each reads the next)"]
        );
        assert_eq!(ring(&[("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")]).len(), 2, "each circle once");
    }

    #[test]
    fn settings_are_all_checked_even_if_the_stage_stops_at_the_first() {
        let faults = |lines: &str| {
            short(&format!("[data.d]\ndataset='x'\n[stage.s]\nkind='simclr'\nimages='data.d'\n{lines}"), &Request::default())
        };
        assert_eq!(faults("lr='x'\ntemperature='x'\nepochs='x'\n").len(), 3, "three times in the same words");
        assert_eq!(faults("warmup=100\nepochs=200\n"), [""; 0], "together they fit, though neither fits the other's default");
        assert_eq!(faults("epochs=5\n"), ["p.toml:6:8 `warmup` of stage `s` (simclr): 10 is more than all `epochs`, 5"]);
        assert_eq!(
            faults("warmup=600\nepochs='all'\n"),
            ["p.toml:7:8 `epochs` of stage `s` (simclr) expects an integer, 0 or more, found the text `all`"],
            "no blame that rests on a default nobody meant"
        );
        assert_eq!(
            faults("epochs=5000000000\n"),
            ["p.toml:6:8 `epochs` of stage `s` (simclr) expects an integer up to 4294967295, found `5000000000`"]
        );
        assert_eq!(
            faults("augment.crop_scale=[0.1]\n"),
            ["p.toml:6:20 `augment.crop_scale` of stage `s` (simclr) expects a list of 2, found a list of 1"]
        );
        assert_eq!(faults("augment=3\n"), ["p.toml:6:9 `augment` of stage `s` (simclr) expects a table, found `3`"]);
        assert_eq!(
            faults("lr=inf\ntemperature=2026-11-21\n"),
            [
                "p.toml:6:4 `lr` expects a finite number, found `inf`",
                "p.toml:7:13 `temperature` expects a text in quotes, a number, true or false, found `2026-11-21`",
            ]
        );
    }

    #[test]
    fn repetitions_take_the_seeds_that_follow_or_those_that_are_named() {
        let repeated = |repeat: &str| {
            let text = format!("seed=4\n[data.d]\ndataset='x'\n[stage.s]\nkind='simclr'\nimages='data.d'\n[repeat]\n{repeat}");
            let spec = spec(&text, &Request::default());
            let nodes = spec.nodes.iter().map(|node| format!("{} {}", node.name, node.seed));
            nodes.collect::<Vec<_>>()
        };
        assert_eq!(repeated("from='s'\nseeds=2"), ["data.d 4", "s@4 4", "s@5 5"], "the first is the run without repetitions");
        assert_eq!(repeated("from='data.d'\nseeds=[9, 3]"), ["data.d@9 9", "data.d@3 3", "s@9 9", "s@3 3"]);
        assert_eq!(repeated("from=['s', 'data.d']\nseeds=[9]"), ["data.d@9 9", "s@9 9"], "what is below several, once");
        let text = "[data.d]\ndataset='x'\n[repeat]\nfrom=['data.d', 'data.e', 7]\nseeds=1\n";
        assert_eq!(
            short(text, &Request::default()),
            [
                "p.toml:4:17 there is no stage `data.e`",
                "p.toml:4:27 `repeat.from` expects the name of a stage, or a list of names, found `7`"
            ]
        );
        let text = "[data.d]\ndataset='x'\n[repeat]\nfrom='data.d'\nseeds=0\n";
        assert_eq!(
            one(text),
            "p.toml:5:7 `repeat.seeds` expects the number of seeds, 1 to 1000, or a list of different seeds, found `0`"
        );
    }

    #[test]
    fn names_become_folders_and_must_be_fit_for_it() {
        let named = |name: &str| {
            short(&format!("[data.d]\ndataset='x'\n[stage.{name}]\nkind='simclr'\nimages='data.d'\n"), &Request::default())
        };
        for bad in ["'a b'", "'a.b'", "''", "'../x'", "'ä'", "data", "runs"] {
            assert_eq!(named(bad).len(), 1, "{bad}");
        }
        assert_eq!(named("a-B_9"), [""; 0]);
        let from_file = |path: &str| check(Path::new(path), "[data.d]\ndataset='x'\n", &Request::default(), &catalog());
        assert_eq!(from_file("x/stl10.v2.toml").unwrap().name, "stl10.v2");
        assert_eq!(from_file("x/store.toml").unwrap_err().to_string(), "`store` cannot be the name of a pipeline");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            ["20 GB", "1.5TiB", "7", " 3 kb "].map(size),
            [Some(20_000_000_000), Some(1_649_267_441_664), Some(7), Some(3000)]
        );
        assert_eq!(["", "GB", "1 XB", "-1 GB", "1..2 GB", "99999999999 TB"].map(size), [None; 6]);
    }

    #[test]
    fn files_that_are_none_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let told = |name: &str, content: Option<&[u8]>| {
            let path = dir.path().join(name);
            if let Some(content) = content {
                fs::write_atomic(&path, content).unwrap();
            }
            let faults = load(&path, &Request::default(), &catalog()).unwrap_err();
            assert_eq!(faults.exit(), Exit::Pipeline);
            let text = format!("{faults} | {}", faults.hint().unwrap_or_default());
            text.replace(&dir.path().display().to_string(), "DIR")
        };
        assert_eq!(told("empty.toml", Some(b"")), "there is nothing to do: the file has no `[data.…]` and no `[stage.…]` | ");
        assert!(told("emptie.toml", None).contains("there is no pipeline file"));
        assert!(told("emptie.toml", None).contains("did you mean"));
        assert!(told(".", None).contains("is a folder, not a pipeline file | it contains these pipeline files"));
        assert!(told("big.toml", Some(&vec![b'#'; MAX_FILE as usize + 1])).contains("is larger than 1.00 MiB"));
        assert!(told("latin.toml", Some(b"# a\n# \xe4\n")).contains("is not text in UTF-8: see line 2, byte 3"));
        assert!(told("wide.toml", Some(b"\xff\xfea\0")).contains("it looks like UTF-16"));
        assert!(told("unmarked.toml", Some(b"n\0a\0m\0e\0=\0")).contains("it looks like UTF-16"));
        assert!(told("empty.toml/x.toml", None).contains("there is no pipeline file"));
    }

    #[test]
    fn a_file_full_of_nonsense_costs_little_and_says_so_once() {
        let keys: String = (0..100_000).map(|index| format!("a{index}=1\n")).collect::<Vec<_>>().concat();
        for text in [
            keys.clone(),
            format!("[data.x]\n{keys}"),
            keys.replace("=1", "="),
            "[".repeat(1 << 20),
            "a=[".repeat(1 << 18),
            "a.".repeat(1 << 19),
        ] {
            let faults = check(Path::new(PATH), &text, &Request::default(), &catalog()).unwrap_err();
            assert!((1..=COLLECTED).contains(&faults.findings().len()), "{}", faults.findings().len());
            assert!(faults.render(false, 100).len() < 100_000);
        }
        let many: String = (0..=MAX_NODES).map(|index| format!("[data.a{index}]\ndataset='x'\n")).collect::<Vec<_>>().concat();
        assert_eq!(one(&many).split_once(' ').unwrap().1, "2001 sources and stages, and 2000 is the limit");
        let repeated = format!("{SAMPLE}[profile.p]\nrepeat = {{ from = 'data.pool', seeds = 1000 }}\n");
        assert_eq!(one(&repeated).split_once(' ').unwrap().1, "6001 stages with their repetitions, and 2000 is the limit");
    }

    #[test]
    fn the_catalog_of_the_tests_contradicts_nothing() {
        assert_eq!(super::super::catalog::contradictions(&catalog()), [""; 0]);
    }

    /// Pieces that make damage likely to matter.
    const PIECES: [&str; 26] = [
        "[",
        "]",
        "\"",
        "'",
        "'''",
        "\"\"\"",
        "=",
        "\n",
        ".",
        ",",
        "{",
        "}",
        "#",
        "stage",
        "data.pool",
        "kind = 'scan'\n",
        "nan",
        "2026-11-21",
        "\u{feff}",
        "\r\n",
        "\t",
        "\0",
        "ä",
        "[profile.smoke.stage.x]\n",
        "[vary]\nstage.pretext.lr = [1, 2]\n",
        "stage.neighbors = [{ k = 1 }, { k = 2 }]\n",
    ];

    proptest::proptest! {
        #[test]
        fn no_damage_to_a_file_makes_the_check_panic(
            edits in proptest::collection::vec((0.0..1.0_f64, 0..40_usize, 0..PIECES.len(), 0.0..1.0_f64), 1..6),
            set in proptest::collection::vec(0..PIECES.len(), 0..5),
        ) {
            let mut text: Vec<char> = SAMPLE.chars().collect();
            for (at, length, piece, other) in edits {
                let place = |share: f64, text: &[char]| ((share * text.len() as f64) as usize).min(text.len());
                let (start, copy) = (place(at, &text), place(other, &text));
                let end = (start + length).min(text.len());
                let mut put: Vec<char> = PIECES[piece].chars().collect();
                if length % 3 == 0 {
                    put.extend_from_slice(&text[copy..(copy + length).min(text.len())]);
                }
                text.splice(start..end, put);
            }
            let text: String = text.into_iter().collect();
            let set: String = set.into_iter().map(|piece| PIECES[piece]).collect();
            let sets: &[&str] = if set.is_empty() { &[] } else { &[&set] };
            for profile in [None, Some("smoke")] {
                match check(Path::new(PATH), &text, &request(profile, sets), &catalog()) {
                    Err(faults) => {
                        proptest::prop_assert!(!faults.findings().is_empty());
                        proptest::prop_assert!(!faults.render(true, 80).is_empty());
                        proptest::prop_assert_eq!(faults.to_json().as_array().unwrap().len(), faults.findings().len());
                    }
                    Ok(spec) => {
                        proptest::prop_assert_eq!(spec.order.len(), spec.nodes.len());
                        for (position, &node) in spec.order.iter().enumerate() {
                            proptest::prop_assert!(graph::inputs(&spec.nodes[node]).all(|input| spec.order[..position].contains(&input)));
                        }
                    }
                }
            }
        }
    }
}
