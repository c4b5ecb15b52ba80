//! From the text of a pipeline file to a checked list of nodes – or to all its faults.
//!
//! A [`Spec`] that exists is sound: every stage has a kind, every setting is one its stage takes, every port is bound to an
//! output of the right artifact, nothing waits for itself. It holds settings with all defaults written out, so that a file with
//! its keys in another order, other comments or other stage names asks the same questions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::catalog::{Arity, Catalog, INGEST, OutputInfo, PortInfo, StageInfo};
use super::document::{self, Entry, Item, Table, Value};
use super::fault::{Faults, Finding, Place, Source, SpecFault, near, one_of, quote};
use super::graph;
use super::settings;
use crate::base::fs::{self, FileError};

/// The largest file read, in bytes. The longest pipeline anyone wrote so far has some 200 lines.
pub const MAX_FILE: u64 = 1 << 20;
/// The most nodes, repetitions included.
pub const MAX_NODES: usize = 2000;
/// The most profiles.
pub const MAX_PROFILES: usize = 32;
/// The most repetitions.
const MAX_SEEDS: usize = 1000;
/// The longest name of a stage: it becomes a folder.
const MAX_NAME: usize = 100;

/// What the command line adds to the file.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--profile P`.
    pub profile: Option<String>,
    /// `--set path=value`, in order.
    pub set: Vec<String>,
    /// `--seed N`.
    pub seed: Option<u64>,
    /// `--device D`.
    pub device: Option<String>,
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
    /// `f32` or `bf16`.
    pub precision: String,
    /// The file.
    pub path: PathBuf,
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
    /// The stage that is repeated, with all below it.
    pub from: String,
    /// One seed for each repetition. `seeds = n` means the seed of the pipeline and the n − 1 that follow, so that the first
    /// repetition is the run without `[repeat]`, and more repetitions keep those there are.
    pub seeds: Vec<u64>,
}

/// A stage of the pipeline, or a source (`data.X`).
#[derive(Clone, Debug)]
pub struct Node {
    /// `pretext`, `data.pool`, `cluster@3` for the repetition with seed 3.
    pub name: String,
    /// The name in the file: `cluster` for `cluster@3`.
    pub family: String,
    /// The kind of stage.
    pub kind: String,
    /// All settings, defaults written out, keys sorted.
    pub settings: Json,
    /// What each bound port reads. A port that takes one has one entry.
    pub ports: BTreeMap<String, Vec<OutputRef>>,
    /// Its seed.
    pub seed: u64,
    /// True if it belongs to a repetition.
    pub repeated: bool,
    /// Where the file names it.
    pub place: Place,
}

/// An output of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRef {
    /// Index of the node.
    pub node: usize,
    /// The name of the output.
    pub output: &'static str,
    /// The artifact it is.
    pub artifact: &'static str,
    /// True if it is the node's main output.
    pub main: bool,
}

impl Spec {
    /// The node with this name.
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
    let text = read(path).map_err(Faults::nowhere)?;
    check(path, &text, request, catalog)
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
    for set in &request.set {
        options.push(document::read_option(&mut sources, "--set", set, &mut findings));
    }
    if let Some(device) = &request.device {
        options.push(option(&mut sources, "device", "--device", device, Value::Text(device.clone())));
    }
    if let Some(seed) = request.seed {
        options.push(option(&mut sources, "seed", "--seed", &seed.to_string(), Value::Whole(seed.into())));
    }
    let unreadable = lines_of(&sources, &findings);

    let profiles = profiles(base.take("profile"), &mut findings);
    let has = Names::of(&base);
    let over = |profile: Option<&Table>| {
        let mut root = base.clone();
        profile.into_iter().chain(&options).for_each(|table| root.overlay(table));
        root
    };
    let survey = |root: &Table| {
        let mut survey = Survey { catalog, path, has: &has, findings: Vec::new() };
        let draft = survey.root(root);
        (draft, survey.findings)
    };
    let chosen = match &request.profile {
        None => None,
        Some(name) => {
            let found = profiles.iter().find(|(profile, _)| profile == name);
            if found.is_none() {
                let known = profiles.iter().map(|(name, _)| name.clone()).collect();
                let fault = SpecFault::UnknownName { what: "profile", written: name.clone(), known };
                let place = whole(&mut sources, "--profile", name);
                findings.push(Finding::at(place, fault));
            }
            found.map(|(_, table)| table)
        }
    };
    let (draft, found) = survey(&over(chosen));
    findings.extend(found);
    if request.profile.is_none() {
        // A profile that drifted from its file is found when the file is checked, not on the day the profile is needed.
        for (_, table) in &profiles {
            let mut places = Vec::new();
            table.places(&mut places);
            let (_, found) = survey(&over(Some(table)));
            findings.extend(found.into_iter().filter(|finding| finding.place.is_some_and(|place| places.contains(&place))));
        }
    }
    if !unreadable.is_empty() {
        findings.retain(|finding| stands(finding, &unreadable, &sources));
    }
    match draft {
        Some(draft) if findings.is_empty() => Ok(draft.finish(path, request)),
        _ => Err(Faults::new(sources, findings)),
    }
}

/// The text of a pipeline file.
fn read(path: &Path) -> Result<String, SpecFault> {
    let shown = || path.display().to_string();
    let unreadable = |source: FileError| SpecFault::Unreadable { source };
    let Some(metadata) = fs::metadata(path).map_err(unreadable)? else {
        return Err(SpecFault::NoFile { path: shown(), near: similar_file(path) });
    };
    if metadata.is_dir() {
        return Err(SpecFault::Folder { path: shown(), files: pipeline_files(path) });
    }
    if metadata.len() > MAX_FILE {
        return Err(SpecFault::TooLarge { path: shown(), limit: MAX_FILE });
    }
    let bytes = fs::read_at_most(path, MAX_FILE).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line_start = good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        SpecFault::NotText {
            path: shown(),
            line: good.iter().filter(|byte| **byte == b'\n').count() + 1,
            byte: good.len() - line_start + 1,
            utf16: error.as_bytes().starts_with(&[0xff, 0xfe]) || error.as_bytes().starts_with(&[0xfe, 0xff]),
        }
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

/// Source and line of every syntax fault.
fn lines_of(sources: &[Source], findings: &[Finding]) -> Vec<(u32, usize)> {
    let syntax = findings.iter().filter(|finding| matches!(finding.fault, SpecFault::Syntax { .. }));
    syntax.filter_map(|finding| Some((finding.place?.source, line_of(sources, finding.place?)))).collect()
}

fn line_of(sources: &[Source], place: Place) -> usize {
    let text = sources.get(place.source as usize).map_or("", |source| source.text.as_str());
    text.as_bytes().iter().take(place.start as usize).filter(|byte| **byte == b'\n').count()
}

/// In a text with syntax faults, what seems to be missing may just not have been understood: only what is plainly there and
/// plainly wrong is reported with them.
fn stands(finding: &Finding, unreadable: &[(u32, usize)], sources: &[Source]) -> bool {
    match finding.fault {
        SpecFault::Syntax { .. } => true,
        SpecFault::MissingPort { .. }
        | SpecFault::MissingSetting { .. }
        | SpecFault::NoKind { .. }
        | SpecFault::NothingBelow { .. }
        | SpecFault::Nothing
        | SpecFault::UnknownReference { .. }
        | SpecFault::UnknownName { .. } => false,
        _ => finding.place.is_some_and(|place| !unreadable.contains(&(place.source, line_of(sources, place)))),
    }
}

/// The tables under `[profile]`.
fn profiles(entry: Option<Entry>, findings: &mut Vec<Finding>) -> Vec<(String, Table)> {
    let Some(entry) = entry else { return Vec::new() };
    let Some(table) = table_of(&entry, "`profile`", findings) else { return Vec::new() };
    if table.entries.len() > MAX_PROFILES {
        let fault = SpecFault::TooMany { what: "profiles", count: table.entries.len(), limit: MAX_PROFILES };
        findings.push(Finding::at(entry.key, fault));
    }
    let mut profiles = Vec::new();
    for entry in table.entries.iter().take(MAX_PROFILES) {
        if let Some(table) = table_of(entry, &format!("profile {}", quote(&entry.name)), findings) {
            profiles.push((entry.name.clone(), table.clone()));
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
    repeat: Option<(usize, Seeds)>,
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
    settings: Json,
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
}

struct Survey<'a, 'n> {
    catalog: &'a dyn Catalog,
    path: &'n Path,
    has: &'n Names,
    findings: Vec<Finding>,
}

impl<'a> Survey<'a, '_> {
    fn root(&mut self, root: &Table) -> Option<Draft<'a>> {
        const KNOWN: [&str; 8] = ["name", "seed", "device", "precision", "data", "stage", "repeat", "store"];
        for entry in &root.entries {
            if !KNOWN.contains(&entry.name.as_str()) {
                let known = KNOWN.iter().map(|key| (*key).to_owned()).chain(["profile".to_owned()]).collect();
                let fault = SpecFault::UnknownKey { owner: "the pipeline".into(), key: entry.name.clone(), known };
                self.findings.push(Finding::at(entry.key, fault));
            }
        }
        let name = self.name(root.get("name"));
        let seed = root.get("seed").and_then(|entry| self.seed(&entry.item, "`seed`")).unwrap_or(1);
        let device = root.get("device").and_then(|entry| self.device(&entry.item)).unwrap_or_else(|| "auto".into());
        let precision = root.get("precision").and_then(|entry| self.precision(&entry.item)).unwrap_or_else(|| "f32".into());
        let max_size = root.get("store").and_then(|entry| self.store(entry));
        let nodes = self.nodes(root)?;
        let repeat = root.get("repeat").and_then(|entry| self.repeat(entry, &nodes));
        let draft = Draft { name, seed, device, precision, max_size, repeat, nodes };
        if let Some((from, seeds)) = &draft.repeat {
            let cone = draft.below(*from).iter().filter(|below| **below).count();
            let count = draft.nodes.len() + cone * seeds.len().saturating_sub(1);
            if count > MAX_NODES {
                let place = root.get("repeat").map_or(draft.nodes[*from].place, |entry| entry.key);
                let what = "stages with their repetitions";
                self.findings.push(Finding::at(place, SpecFault::TooMany { what, count, limit: MAX_NODES }));
            }
        }
        Some(draft)
    }

    fn name(&mut self, entry: Option<&Entry>) -> Option<String> {
        const RULE: &str = "it becomes a folder: letters, digits, `-`, `_` and `.`, not first a `.` or `-`, at most 100, and not \
                            `store`; write `name = \"…\"` at the top of the file";
        let fits = |name: &str| {
            name.len() <= MAX_NAME
                && name != "store"
                && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        };
        let (name, place) = match entry {
            None => (self.path.file_stem()?.to_string_lossy().into_owned(), None),
            Some(entry) => match entry.item.text() {
                Some(name) => (name.to_owned(), Some(entry.item.place)),
                None => {
                    self.value(&entry.item, "`name`", "a text in quotes", None);
                    return None;
                }
            },
        };
        if !fits(&name) {
            let fault = SpecFault::Name { what: "pipeline", name: name.clone(), rule: RULE };
            self.findings.push(Finding { fault, place, notes: Vec::new() });
        }
        Some(name)
    }

    fn value(&mut self, item: &Item, what: &str, want: &str, hint: Option<&str>) {
        if !matches!(item.value, Value::Unfit) {
            self.findings.push(wrong(item, what, want, hint));
        }
    }

    fn seed(&mut self, item: &Item, what: &str) -> Option<u64> {
        if let Value::Whole(seed) = item.value
            && let Ok(seed) = u64::try_from(seed)
        {
            return Some(seed);
        }
        self.value(item, what, "a whole number, 0 or more", None);
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
        match item.text() {
            Some(precision @ ("f32" | "bf16")) => Some(precision.to_owned()),
            _ => {
                self.value(item, "`precision`", &one_of(&["f32", "bf16"]), None);
                None
            }
        }
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
            self.findings.push(Finding::at(entry.key, fault));
        }
    }

    fn repeat(&mut self, entry: &Entry, nodes: &[Sketch<'_>]) -> Option<(usize, Seeds)> {
        let table = table_of(entry, "`repeat`", &mut self.findings)?;
        self.only(table, "`repeat`", &["from", "seeds"]);
        for key in ["from", "seeds"] {
            if table.get(key).is_none() {
                let fault = SpecFault::MissingSetting { owner: "`repeat`".into(), setting: key.to_owned() };
                self.findings.push(Finding::at(entry.item.place, fault));
            }
        }
        let from = table.get("from").and_then(|entry| {
            let Some(written) = entry.item.text() else {
                self.value(&entry.item, "`repeat.from`", "the name of a stage", None);
                return None;
            };
            let found = nodes.iter().position(|node| node.name == written);
            if found.is_none() {
                let known = nodes.iter().map(|node| node.name.clone()).collect();
                let fault = SpecFault::UnknownName { what: "stage", written: written.to_owned(), known };
                self.findings.push(Finding::at(entry.item.place, fault));
            }
            found
        });
        let seeds = table.get("seeds").and_then(|entry| self.seeds(&entry.item));
        Some((from?, seeds?))
    }

    fn seeds(&mut self, item: &Item) -> Option<Seeds> {
        const WANT: &str = "how many seeds, 1 to 1000, or a list of different seeds";
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
            self.findings.push(Finding::nowhere(SpecFault::Nothing));
            return None;
        }
        entries.sort_by_key(|(_, entry)| entry.key);
        if entries.len() > MAX_NODES {
            let fault = SpecFault::TooMany { what: "sources and stages", count: entries.len(), limit: MAX_NODES };
            self.findings.push(Finding::at(entries[MAX_NODES].1.key, fault));
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
            self.findings.push(Finding::at(entry.key, fault));
        }
    }

    /// `[data.X]`.
    fn source(&mut self, entry: &Entry) -> Sketch<'a> {
        self.check_name("source", entry);
        let stage = self.catalog.stage(INGEST);
        let name = format!("data.{}", entry.name);
        let owner = format!("source {}", quote(&name));
        let mut sketch = Sketch {
            name,
            place: entry.key,
            stage,
            owner,
            settings: Json::Null,
            bindings: Vec::new(),
            wires: Vec::new(),
        };
        if let (Some(stage), Some(table)) = (stage, table_of(entry, &sketch.owner, &mut self.findings)) {
            let given: Vec<&Entry> = table.entries.iter().collect();
            let checked = settings::check(stage, &given, &sketch.owner, entry.key, &[]);
            let stranger = !self.has.sources.contains(&entry.name)
                && near(&entry.name, self.has.sources.iter().map(String::as_str)).is_some();
            if stranger && !checked.findings.is_empty() {
                let fault = SpecFault::NothingBelow { what: "source", name: entry.name.clone(), known: self.has.sources.clone() };
                self.findings.push(Finding::at(entry.key, fault));
            } else {
                self.findings.extend(checked.findings);
            }
            sketch.settings = checked.settings;
        }
        sketch
    }

    /// `[stage.Y]`.
    fn stage(&mut self, entry: &Entry) -> Sketch<'a> {
        self.check_name("stage", entry);
        let mut sketch = Sketch {
            name: entry.name.clone(),
            place: entry.key,
            stage: None,
            owner: format!("stage {}", quote(&entry.name)),
            settings: Json::Null,
            bindings: Vec::new(),
            wires: Vec::new(),
        };
        let Some(table) = table_of(entry, &sketch.owner, &mut self.findings) else { return sketch };
        let Some(stage) = self.kind(entry, table) else { return sketch };
        sketch.stage = Some(stage);
        sketch.owner = format!("stage {} ({})", quote(&entry.name), stage.kind());
        let mut given = Vec::new();
        for entry in &table.entries {
            match stage.ports().iter().find(|port| port.name == entry.name) {
                _ if entry.name == "kind" => {}
                Some(port) => sketch.wires.push((port, entry.item.clone())),
                None => given.push(entry),
            }
        }
        let mut others = vec!["kind"];
        others.extend(stage.ports().iter().map(|port| port.name));
        let checked = settings::check(stage, &given, &sketch.owner, entry.key, &others);
        self.findings.extend(checked.findings);
        sketch.settings = checked.settings;
        sketch
    }

    fn kind(&mut self, entry: &Entry, table: &Table) -> Option<&'a dyn StageInfo> {
        let known = || self.catalog.kinds().into_iter().filter(|kind| *kind != INGEST).map(str::to_owned).collect();
        let stage = entry.name.clone();
        let (place, fault) = match table.get("kind") {
            None if !self.has.stages.contains(&stage) => (
                entry.key,
                SpecFault::NothingBelow { what: "stage", name: stage, known: self.has.stages.clone() },
            ),
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
        self.findings.push(Finding::at(place, fault));
        None
    }

    /// Binds every port.
    fn wire(&mut self, nodes: &mut [Sketch<'a>]) {
        let names: BTreeMap<String, usize> = nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), index)).collect();
        for index in 0..nodes.len() {
            let wires = std::mem::take(&mut nodes[index].wires);
            let mut bindings = Vec::new();
            for (port, item) in &wires {
                self.bind(nodes, &names, index, port, item, &mut bindings);
            }
            let ports = nodes[index].stage.map_or(&[][..], StageInfo::ports);
            for port in ports.iter().filter(|port| port.arity != Arity::Optional) {
                if !wires.iter().any(|(given, _)| given.name == port.name) {
                    let fault = SpecFault::MissingPort {
                        owner: nodes[index].owner.clone(),
                        port: port.name.to_owned(),
                        artifact: port.artifact.to_owned(),
                        fits: fits(nodes, index, None, port.artifact),
                    };
                    self.findings.push(Finding::at(nodes[index].place, fault));
                }
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
        let many = port.arity == Arity::Many;
        let want = if many { "names of sources, stages or outputs" } else { "the name of a source, a stage or an output" };
        let items = match &item.value {
            Value::List(items) if many && !items.is_empty() => items.as_slice(),
            Value::List(_) => {
                self.value(item, &what(), if many { "at least one name" } else { want }, None);
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
                    self.findings.push(Finding::at(item.place, fault));
                    continue;
                }
                Err(Unresolved::Output { node, output }) => {
                    let outputs = references(&nodes[node]).map(|(reference, _)| reference).collect();
                    let fault = SpecFault::UnknownOutput { node: nodes[node].name.clone(), output, outputs };
                    self.findings.push(Finding::at(item.place, fault));
                    continue;
                }
            };
            let (node, output) = found;
            let name = output.as_ref().map_or("", |output| output.output);
            if read.contains(&(node, name)) {
                let fault = SpecFault::Twice { owner: owner(), port: port_name(), written: written.to_owned() };
                self.findings.push(Finding::at(item.place, fault));
                continue;
            }
            read.push((node, name));
            if node == index {
                self.findings.push(Finding::at(item.place, SpecFault::Itself { owner: owner(), port: port_name() }));
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
                self.findings.push(Finding::at(item.place, fault));
            }
            bindings.push(Binding { port: port.name, place: item.place, node, output });
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
            self.findings.push(Finding { fault: SpecFault::Cycle { names }, place: Some(place), notes });
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
fn size(text: &str) -> Option<u64> {
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
    /// Which nodes are the given one or read from it, over any number of steps.
    fn below(&self, from: usize) -> Vec<bool> {
        let inputs: Vec<Vec<usize>> =
            self.nodes.iter().map(|node| node.bindings.iter().map(|binding| binding.node).collect()).collect();
        graph::below(&inputs, from)
    }

    /// Writes out defaults and repetitions. Only for a draft without faults.
    fn finish(self, path: &Path, request: &Request) -> Spec {
        let repeat = self.repeat.as_ref().map(|(from, seeds)| {
            let seeds = match seeds {
                Seeds::Count(count) => (0..*count as u64).map(|step| self.seed.wrapping_add(step)).collect(),
                Seeds::These(seeds) => seeds.clone(),
            };
            (self.below(*from), Repeat { from: self.nodes[*from].name.clone(), seeds })
        });
        let seeds_of = |node: usize| match &repeat {
            Some((below, repeat)) if below[node] => Some(repeat.seeds.as_slice()),
            _ => None,
        };
        // Where the first repetition of each node comes to lie; the others follow it.
        let mut first = Vec::with_capacity(self.nodes.len());
        let mut count = 0;
        for index in 0..self.nodes.len() {
            first.push(count);
            count += seeds_of(index).map_or(1, <[u64]>::len);
        }
        let mut nodes = Vec::with_capacity(count);
        for (index, sketch) in self.nodes.iter().enumerate() {
            let Some(stage) = sketch.stage else { unreachable!("a node of unknown kind is a fault") };
            let settings = settings::sorted(stage.normalize(&sketch.settings));
            let seeds = seeds_of(index);
            for (repetition, &seed) in seeds.unwrap_or(&[self.seed]).iter().enumerate() {
                let mut ports: BTreeMap<String, Vec<OutputRef>> = BTreeMap::new();
                for binding in &sketch.bindings {
                    let Some(output) = &binding.output else { unreachable!("a node of unknown kind is a fault") };
                    let shift = if seeds_of(binding.node).is_some() { repetition } else { 0 };
                    let node = first[binding.node] + shift;
                    ports.entry(binding.port.to_owned()).or_default().push(OutputRef { node, ..output.clone() });
                }
                nodes.push(Node {
                    name: if seeds.is_some() { format!("{}@{seed}", sketch.name) } else { sketch.name.clone() },
                    family: sketch.name.clone(),
                    kind: stage.kind().to_owned(),
                    settings: settings.clone(),
                    ports,
                    seed,
                    repeated: seeds.is_some(),
                    place: sketch.place,
                });
            }
        }
        let inputs: Vec<Vec<usize>> = nodes.iter().map(|node| graph::inputs(node).collect()).collect();
        Spec {
            name: self.name.unwrap_or_else(|| "pipeline".into()),
            seed: self.seed,
            device: self.device,
            precision: self.precision,
            path: path.to_owned(),
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
    use super::super::fake::{SAMPLE, catalog};
    use super::*;

    fn request(profile: Option<&str>, set: &[&str]) -> Request {
        Request {
            profile: profile.map(str::to_owned),
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            ..Request::default()
        }
    }

    fn faults(text: &str, request: &Request) -> String {
        match check(Path::new("p.toml"), text, request, &catalog()) {
            Ok(_) => "fine\n".into(),
            Err(faults) => faults.render(false, 120),
        }
    }

    #[test]
    fn show() {
        println!("{}", faults(SAMPLE, &request(None, &[])));
        println!("{}", faults(MANY, &request(None, &["stage.pretex.epochs=3", "stage.pretext.lr=quick", "stag.x=1", "stage.pretext.augment.gray=\"x"])));
        println!("{}", faults("[stage.a]\nkind = \"simclr\"\nimages =\nimages = 3\nepoch = 5\n[stage.b\nkind='embed'\nencoder='x'\nepochs = 2026-01-01\n", &request(Some("x"), &[])));
        println!("{}", faults("", &request(None, &[])));
    }

    const MANY: &str = r#"
name = "a b"
seed = -1
device = "gpu"
sead = 3

[data.pool]
dataset = "stl10"
limit = "many"
spilt = "train"

[stage.pretext]
kind = "simclr"
images = "pool"
epochs = 5.5
temperature = -1
schedule = "cosin"
lr = nan
augment = { crop_scale = [0.9, 0.1], grey = 0.2 }

[stage.features]
kind = "embd"

[stage.neighbors]
kind = "neighbors"
features = "data.pool.labels"
k = -3

[stage.cluster]
kind = "scan"
images = "data.pool.image"
encoder = ["pretext"]
neighbors = "cluster"

[stage.a]
kind = "simclr"
images = "data.pool"
start = "b"
[stage.b]
kind = "simclr"
images = "data.pool"
start = "a"
[stage.all]
kind = "compare"
scores = ["all", 3]

[profile.smoke.stage.pretex]
epochs = 1
[profile.smoke.stage.pretext]
warmup = 1000
"#;
}
