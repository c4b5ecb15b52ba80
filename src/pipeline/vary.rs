//! `[vary]`: settings that take several values, and which nodes that makes of a stage.
//!
//! Every list is an `Axis`; a stage, with all below it, is there once for each combination of the axes that it or what it reads
//! depends on. A list of tables holds settings that change together. Values are laid over the file, as profiles are, so that each is
//! checked, and pointed at, where it stands.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::document::{Entry, Item, Table, Value};
use super::fault::{COLLECTED, Finding, Place, SpecFault, quote};
use super::graph;
use super::spec::MAX_NODES;

/// The most settings that vary.
const MAX_VARIED: usize = 64;
/// Letters of a value in the name of a node; a longer one is cut.
const MAX_WORD: usize = 24;

/// A setting that varies, and the value that it has in one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Varied {
    /// Where it stands in the file: `stage.cluster.optimizer.lr`.
    pub path: String,
    /// The end of the path that no other varied setting has: `lr`.
    pub name: String,
    pub value: Json,
}

impl Varied {
    /// True if it is a setting of this stage or source itself, and not of one above it.
    pub fn is_of(&self, family: &str) -> bool {
        let own = self.path.strip_prefix("stage.").unwrap_or(&self.path);
        own.strip_prefix(family).is_some_and(|rest| rest.starts_with('.'))
    }

    /// The value for people and for a cell of a table.
    pub fn word(&self) -> String {
        self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned)
    }
}

/// One list of `[vary]`.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// The list.
    pub(super) place: Place,
    pub(super) choices: Vec<Choice>,
    /// True for the parts of a source, which ports collect; other axes go on to the end.
    pub(super) cuts: bool,
}

/// One value of an axis.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// What is laid over the root of the file.
    pub(super) over: Table,
    pub(super) settings: Vec<Setting>,
    pub(super) varied: Vec<Varied>,
    /// What names of nodes say of it: `@lr=0.01`, `#07`.
    pub(super) word: String,
}

/// A value, by its path from the root.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) path: Vec<String>,
    pub(super) item: Item,
}

/// `stage` and `data`, with the names there are.
pub(super) type Known<'a> = [(&'static str, &'static str, &'a [String]); 2];

/// The axes of `[vary]`, in its order.
pub(super) fn read(entry: &Entry, known: Known<'_>, findings: &mut Vec<Finding>) -> Vec<Axis> {
    let mut reader = Reader { known, findings, axes: Vec::new() };
    reader.below(entry, &mut Vec::new());
    let mut axes = reader.axes;
    let settings = axes.iter().flat_map(|axis| &axis.choices).flat_map(|choice| &choice.settings);
    let count = settings.map(|setting| &setting.path).collect::<BTreeSet<_>>().len();
    if count > MAX_VARIED {
        findings.push(Finding::at(entry.key, SpecFault::TooMany { what: "varied settings", count, limit: MAX_VARIED }));
        return Vec::new();
    }
    name(&mut axes);
    axes
}

struct Reader<'a> {
    known: Known<'a>,
    findings: &'a mut Vec<Finding>,
    axes: Vec<Axis>,
}

impl Reader<'_> {
    fn report(&mut self, finding: Finding) {
        if self.findings.len() < COLLECTED {
            self.findings.push(finding);
        }
    }

    /// Goes down to the lists.
    fn below(&mut self, given: &Entry, path: &mut Vec<String>) {
        let item = &given.item;
        match &item.value {
            Value::Table(table) if !table.entries.is_empty() => {
                for entry in &table.entries {
                    if self.knows(entry, path) {
                        path.push(entry.name.clone());
                        self.below(entry, path);
                        path.pop();
                    }
                }
            }
            Value::List(items) if !path.is_empty() && !items.is_empty() => self.axis(given, items, path),
            Value::Unfit => {}
            Value::Table(_) => self.unfit(item, path, "settings with a list of values each", "an empty table".into()),
            _ if path.is_empty() => self.unfit(item, path, "a table", item.describe()),
            _ => self.unfit(item, path, "a list of values", item.describe()),
        }
    }

    fn unfit(&mut self, item: &Item, path: &[String], want: &str, found: String) {
        let what = if path.is_empty() { "`vary`".to_owned() } else { quote(&format!("vary.{}", path.join("."))) };
        self.report(Finding::at(item.place, SpecFault::Value { what, want: want.into(), found, hint: None }));
    }

    /// Whether this is a section, or the name of something, that the file has.
    fn knows(&mut self, entry: &Entry, path: &[String]) -> bool {
        let fault = match path {
            [] if self.known.iter().any(|(section, _, _)| *section == entry.name) => return true,
            [] if entry.name.contains('.') => SpecFault::Setting {
                owner: "`vary`".into(),
                message: format!("in quotes {} is one name", quote(&entry.name)),
                hint: Some(format!("write `{} = […]` without quotes", entry.name)),
            },
            [] if entry.name == "seed" => SpecFault::Setting {
                owner: "`vary`".into(),
                message: "seeds are repeated, not varied".into(),
                hint: Some("write `[repeat]` with `from` and `seeds`".into()),
            },
            [] => {
                let known = self.known.iter().map(|(section, _, _)| (*section).to_owned()).collect();
                SpecFault::UnknownKey { owner: "`vary`".into(), key: entry.name.clone(), known }
            }
            [section] => match self.known.iter().find(|(known, _, _)| known == section) {
                Some((_, what, known)) if !known.contains(&entry.name) => {
                    SpecFault::NothingBelow { what, name: entry.name.clone(), known: known.to_vec() }
                }
                _ => return true,
            },
            _ => return true,
        };
        self.report(Finding::at(entry.key, fault));
        false
    }

    fn axis(&mut self, given: &Entry, items: &[Item], path: &[String]) {
        if items.len() > MAX_NODES {
            let fault = SpecFault::TooMany { what: "values", count: items.len(), limit: MAX_NODES };
            self.report(Finding::at(given.item.place, fault));
            return;
        }
        let before = self.findings.len();
        let mut choices: Vec<Choice> = Vec::new();
        for item in items {
            let mut settings = Vec::new();
            self.settings(item, &mut path.to_vec(), &mut settings);
            let same = |other: &&Choice| {
                other.settings.len() == settings.len()
                    && settings.iter().all(|s| other.settings.iter().any(|o| o.path == s.path && same(&o.item, &s.item)))
            };
            if let Some(first) = choices.iter().find(same).and_then(|choice| choice.settings.first()) {
                let notes = vec![(first.item.place, "here first".to_owned())];
                let what = quote(&format!("vary.{}", path.join(".")));
                let fault = SpecFault::Value {
                    what,
                    want: "different values".into(),
                    found: format!("{} again", item.describe()),
                    hint: None,
                };
                self.report(Finding { fault, place: Some(item.place), notes });
            }
            choices.push(Choice { over: nested(path, given.key, item), settings, varied: Vec::new(), word: String::new() });
        }
        if self.findings.len() == before {
            self.axes.push(Axis { place: given.item.place, choices, cuts: false });
        }
    }

    /// The settings of a value: itself, or those of a table.
    fn settings(&mut self, item: &Item, path: &mut Vec<String>, into: &mut Vec<Setting>) {
        match &item.value {
            Value::Table(table) if !table.entries.is_empty() => {
                for entry in &table.entries {
                    if self.knows(entry, path) {
                        path.push(entry.name.clone());
                        self.settings(&entry.item, path, into);
                        path.pop();
                    }
                }
            }
            Value::Unfit => {}
            // Section, name, setting.
            _ if path.len() < 3 => {
                self.unfit(item, path, "a list of tables of settings", format!("one of {}", item.describe()));
            }
            _ => into.push(Setting { path: path.clone(), item: item.clone() }),
        }
    }
}

/// A value as a tree from the root. Keys stand where the last of them does.
pub(super) fn nested(path: &[String], key: Place, item: &Item) -> Table {
    let entry = |name: &String, item: Item| Entry { name: name.clone(), key, item };
    let mut path = path.iter().rev();
    let last = path.next().map(|name| entry(name, item.clone()));
    let root = last.map(|last| {
        path.fold(last, |inner, name| {
            let table = Value::Table(Table { entries: vec![inner] });
            entry(name, Item { place: item.place, value: table })
        })
    });
    Table { entries: root.into_iter().collect() }
}

/// Equal numbers are equal however they are written.
fn same(one: &Item, other: &Item) -> bool {
    match (&one.value, &other.value) {
        (Value::Whole(whole), Value::Real(real)) | (Value::Real(real), Value::Whole(whole)) => {
            (*whole as f64).total_cmp(real).is_eq()
        }
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        _ => one.json() == other.json(),
    }
}

/// Finds a short name for each setting, and a word for each value.
fn name(axes: &mut [Axis]) {
    let settings = axes.iter().flat_map(|axis| &axis.choices).flat_map(|choice| &choice.settings);
    let paths: BTreeSet<Vec<String>> = settings.map(|setting| setting.path.clone()).collect();
    let short = |path: &[String]| {
        let unique = |length: &usize| paths.iter().filter(|other| other.ends_with(&path[path.len() - length..])).count() == 1;
        let length = (1..path.len()).find(unique).unwrap_or(path.len());
        path[path.len() - length..].join(".")
    };
    for axis in axes {
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for choice in &mut axis.choices {
            choice.varied = choice
                .settings
                .iter()
                .filter_map(|setting| {
                    let value = setting.item.json()?;
                    Some(Varied { path: setting.path.join("."), name: short(&setting.path), value })
                })
                .collect();
            let words = choice.varied.iter().map(|varied| format!("@{}={}", fit(&varied.name), in_name(&varied.value)));
            let word = words.collect::<String>();
            // Names of folders, some of which know no capital letters.
            let free = |word: &String| !taken.contains(&word.to_lowercase());
            let numbered = (2..).map(|number| format!("{word}_{number}"));
            choice.word = std::iter::once(word.clone()).chain(numbered).find(free).unwrap_or_default();
            taken.insert(choice.word.to_lowercase());
        }
    }
}

/// A value as a part of a file's name.
fn in_name(value: &Json) -> String {
    match value {
        Json::String(text) => fit(text),
        Json::Array(items) => fit(&items.iter().map(in_name).collect::<Vec<_>>().join("_")),
        other => fit(&other.to_string()),
    }
}

fn fit(text: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    text.chars().take(MAX_WORD).map(fits).collect()
}

/// Axes that a node depends on, by number, in order.
pub(super) type On = Vec<usize>;

/// All axes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Axes(pub(super) Vec<Axis>);

impl Axes {
    /// Those that set something of this stage (`stage`) or source (`data`).
    pub(super) fn of(&self, section: &str, name: &str) -> On {
        let sets = |setting: &Setting| setting.path[0] == section && setting.path[1] == name;
        let touches = |axis: &Axis| axis.choices.iter().flat_map(|choice| &choice.settings).any(sets);
        (0..self.0.len()).filter(|&axis| touches(&self.0[axis])).collect()
    }

    /// With the axes of all that is read. `own` and `inputs` by node; of each input, whether its parts are collected.
    pub(super) fn spread(&self, own: &[On], inputs: &[Vec<(usize, bool)>]) -> Vec<On> {
        let mut all: Vec<BTreeSet<usize>> = own.iter().map(|own| own.iter().copied().collect()).collect();
        let read: Vec<Vec<usize>> = inputs.iter().map(|inputs| inputs.iter().map(|(input, _)| *input).collect()).collect();
        for node in graph::order(&read) {
            for &(input, collects) in &inputs[node] {
                let above: Vec<usize> = all[input].iter().copied().filter(|&axis| !(collects && self.0[axis].cuts)).collect();
                all[node].extend(above);
            }
        }
        all.into_iter().map(|on| on.into_iter().collect()).collect()
    }

    /// How many combinations there are.
    pub(super) fn count(&self, on: &On) -> usize {
        on.iter().fold(1, |count: usize, &axis| count.saturating_mul(self.0[axis].choices.len()))
    }

    /// The choices of a combination, with the number of each: the last axis changes first.
    pub(super) fn choices(&self, on: &On, combination: usize) -> Vec<(usize, &Choice)> {
        let mut rest = combination;
        let mut chosen: Vec<(usize, &Choice)> = on
            .iter()
            .rev()
            .map(|&axis| {
                let choices = &self.0[axis].choices;
                let at = rest % choices.len();
                rest /= choices.len();
                (at, &choices[at])
            })
            .collect();
        chosen.reverse();
        chosen
    }

    /// Which combinations of the axes `of` what is read belong to this one of `on`: one, but for all parts of a source that are collected.
    pub(super) fn read(&self, on: &On, combination: usize, of: &On, collects: bool) -> Vec<usize> {
        let chosen = self.choices(on, combination);
        of.iter().fold(vec![0], |read, axis| {
            let Axis { choices, cuts, .. } = &self.0[*axis];
            let at = on.iter().position(|other| other == axis).map_or(0, |place| chosen[place].0);
            let places = if collects && *cuts { 0..choices.len() } else { at..at + 1 };
            read.iter().flat_map(|read| places.clone().map(move |at| read * choices.len() + at)).collect()
        })
    }

    /// Which combination of `fewer` axes is part of this one of `on`, which has them all.
    pub(super) fn part(&self, on: &On, combination: usize, fewer: &On) -> usize {
        self.read(on, combination, fewer, false)[0]
    }

    /// The table of a stage or source under a combination.
    pub(super) fn laid_over(&self, table: &Table, section: &str, name: &str, on: &On, combination: usize) -> Table {
        let mut table = table.clone();
        let inside = |over: &Table| -> Option<Table> {
            let Value::Table(section) = &over.get(section)?.item.value else { return None };
            let Value::Table(own) = &section.get(name)?.item.value else { return None };
            Some(own.clone())
        };
        self.choices(on, combination)
            .into_iter()
            .filter_map(|(_, choice)| inside(&choice.over))
            .for_each(|over| table.overlay(&over));
        table
    }

    /// What varies of a stage or source that cannot: an input, the kind.
    pub(super) fn inputs_of(&self, on: &On, section: &str, name: &str, others: &[&str]) -> Vec<(Place, String)> {
        let settings = on.iter().flat_map(|&axis| &self.0[axis].choices).flat_map(|choice| &choice.settings);
        let of = settings.filter(|setting| setting.path[0] == section && setting.path[1] == name);
        of.filter(|s| others.contains(&s.path[2].as_str())).map(|s| (s.item.place, s.path[2].clone())).collect()
    }

    /// What a profile or an option of the command line sets of a stage or source although it varies: the place, the setting, and the table
    /// that says what it is. `profile` holds the places of the profile, sorted. Nothing else may say which part is read.
    pub(super) fn overruled(
        &self,
        table: &Table,
        on: &On,
        (section, name): (&str, &str),
        profile: &[Place],
    ) -> Vec<(Place, String, &'static str)> {
        let layer = |place: &Place| (place.source, profile.binary_search(place).is_ok());
        let mut found: Vec<(Place, String, &'static str)> = Vec::new();
        for &axis in on {
            let Axis { choices, cuts, .. } = &self.0[axis];
            let settings = choices.iter().flat_map(|choice| &choice.settings);
            for setting in settings.filter(|setting| setting.path[0] == section && setting.path[1] == name) {
                let mut at = Some(table);
                let mut item = None;
                for step in &setting.path[2..] {
                    item = at.and_then(|table| table.get(step)).map(|entry| &entry.item);
                    at = item.and_then(|item| if let Value::Table(table) = &item.value { Some(table) } else { None });
                }
                if let Some(item) = item.filter(|item| *cuts || layer(&item.place) > layer(&setting.item.place))
                    && !found.iter().any(|(place, _, _)| *place == item.place)
                {
                    found.push((item.place, setting.path.join("."), if *cuts { "shard" } else { "vary" }));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::COLLECTED;
    use crate::graph::{Selection, select};
    use crate::spec::{Request, Spec, check};
    use crate::testing::{SAMPLE, catalog};

    fn with(vary: &str) -> String {
        format!("{SAMPLE}[vary]\n{vary}\n")
    }

    /// The same without the profile, which sets some of what varies.
    fn alone(vary: &str) -> String {
        format!("{}[vary]\n{vary}\n", SAMPLE.split("[profile.").next().unwrap())
    }

    fn spec(text: &str, request: &Request) -> Spec {
        check(Path::new("p.toml"), text, request, &catalog()).unwrap_or_else(|faults| panic!("{}", faults.render(false, 120)))
    }

    fn names(spec: &Spec) -> Vec<&str> {
        spec.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    /// `line:column message`, the line counted from `[vary]` on.
    fn faults(vary: &str) -> Vec<String> {
        told(&with(vary), &Request::default())
    }

    fn told(text: &str, request: &Request) -> Vec<String> {
        let Err(faults) = check(Path::new("p.toml"), text, request, &catalog()) else { return Vec::new() };
        let before = SAMPLE.matches('\n').count();
        let line = |finding: &crate::fault::Finding| {
            let at = finding.place.and_then(|place| faults.position(place)).map_or((0, 0), |at| (at.line, at.column));
            let line = at.0.saturating_sub(before);
            format!("{line}:{} {}", at.1, finding.fault)
        };
        faults.findings().iter().map(line).collect()
    }

    #[test]
    fn what_depends_on_a_setting_is_there_for_each_value_and_each_seed() {
        let spec = spec(&with("stage.neighbors.k = [5, 20]"), &Request::default());
        assert_eq!(
            names(&spec),
            [
                "data.pool",
                "data.test",
                "pretext",
                "features",
                "neighbors@k=5",
                "neighbors@k=20",
                "cluster@k=5@1",
                "cluster@k=5@2",
                "cluster@k=5@3",
                "cluster@k=20@1",
                "cluster@k=20@2",
                "cluster@k=20@3",
                "scores@k=5@1",
                "scores@k=5@2",
                "scores@k=5@3",
                "scores@k=20@1",
                "scores@k=20@2",
                "scores@k=20@3"
            ]
        );
        let reads = |node: &str, port: &str| spec.reference(&spec.node(node).unwrap().ports[port][0]);
        assert_eq!(reads("cluster@k=20@2", "neighbors"), "neighbors@k=20");
        assert_eq!(reads("cluster@k=20@2", "encoder"), "pretext");
        assert_eq!(reads("scores@k=5@3", "classifier"), "cluster@k=5@3");
        let node = spec.node("scores@k=5@3").unwrap();
        assert_eq!((node.family.as_str(), node.variant(), node.seed), ("scores", "scores@k=5", 3));
        assert_eq!((node.varied[0].path.as_str(), node.varied[0].name.as_str()), ("stage.neighbors.k", "k"));
        assert!(node.varied[0].is_of("neighbors") && !node.varied[0].is_of("scores"));
        let selected = |name: &str| {
            let only = Selection { only: vec![name.into()], ..Selection::default() };
            select(&spec, &only).unwrap().nodes.len()
        };
        assert_eq!([selected("cluster"), selected("cluster@k=5"), selected("cluster@k=5@3")], [6, 3, 1]);
    }

    #[test]
    fn a_varied_stage_is_what_would_be_written_by_hand() {
        let varied = spec(
            &alone("stage.pretext = [{ lr = 1, epochs = 20 }, { lr = 2, warmup = 0 }]\nstage.neighbors.k = [5, 20]"),
            &Request::default(),
        );
        let by_hand = spec(
            SAMPLE,
            &Request { set: vec!["stage.pretext.lr=2".into(), "stage.pretext.warmup=0".into()], ..Request::default() },
        );
        let pretext = varied.node("pretext@lr=2@warmup=0").unwrap();
        assert_eq!(pretext.settings.to_string(), by_hand.node("pretext").unwrap().settings.to_string());
        assert_eq!(varied.node("pretext@lr=1@epochs=20").unwrap().settings["epochs"], 20);
        let cluster: Vec<&str> =
            names(&varied).into_iter().filter(|name| name.starts_with("cluster") && name.ends_with("@1")).collect();
        assert_eq!(
            cluster,
            [
                "cluster@lr=1@epochs=20@k=5@1",
                "cluster@lr=1@epochs=20@k=20@1",
                "cluster@lr=2@warmup=0@k=5@1",
                "cluster@lr=2@warmup=0@k=20@1"
            ],
            "tables go together, lists by themselves"
        );
        let reads = |port: &str| varied.reference(&varied.node(cluster[2]).unwrap().ports[port][0]);
        assert_eq!([reads("encoder"), reads("neighbors")], ["pretext@lr=2@warmup=0", "neighbors@lr=2@warmup=0@k=5"]);
    }

    #[test]
    fn settings_of_several_stages_may_go_together_and_sources_vary_too() {
        let text =
            "stage = [{ pretext.lr = 1, neighbors.k = 5 }, { pretext.lr = 2, neighbors.k = 9 }]\ndata.pool.limit = [100, 200]";
        let spec = spec(&alone(text), &Request::default());
        let neighbors: Vec<&str> = names(&spec).into_iter().filter(|name| name.starts_with("neighbors")).collect();
        assert_eq!(
            neighbors,
            [
                "neighbors@lr=1@k=5@limit=100",
                "neighbors@lr=1@k=5@limit=200",
                "neighbors@lr=2@k=9@limit=100",
                "neighbors@lr=2@k=9@limit=200"
            ]
        );
        assert_eq!(spec.node("data.pool@limit=200").unwrap().settings["limit"], 200);
        assert_eq!(names(&spec).iter().filter(|name| name.starts_with("data.test")).count(), 1);
        assert_eq!(spec.order.len(), spec.nodes.len());
    }

    #[test]
    fn values_become_parts_of_names_that_fit_for_folders_and_stay_apart() {
        let names_of = |vary: &str| {
            let spec = spec(&with(vary), &Request { set: vec!["repeat.seeds=[1]".into()], ..Request::default() });
            names(&spec).into_iter().filter(|name| name.starts_with("pretext")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            names_of("stage.pretext.augment.crop_scale = [[0.2, 1], [0.5, 1.0]]"),
            ["pretext@crop_scale=0.2_1", "pretext@crop_scale=0.5_1.0"]
        );
        assert_eq!(
            names_of(
                "stage.pretext.optimizer = [{ kind = 'sgd', momentum = 0.5, nesterov = true }, { kind = 'adam', beta = 0.9 }]"
            ),
            ["pretext@kind=sgd@momentum=0.5@nesterov=true", "pretext@kind=adam@beta=0.9"],
            "the ends of paths tell them apart"
        );
        assert_eq!(names_of("stage.pretext.lr = [1e-5, 0.1]"), ["pretext@lr=0.00001", "pretext@lr=0.1"]);
        let texts = |vary: &str| {
            let text = format!("[data.a]\ndataset = 'x'\n[vary]\n{vary}");
            spec(&text, &Request::default()).nodes.into_iter().map(|node| node.name).collect::<Vec<_>>()
        };
        assert_eq!(
            texts("data.a.dataset = ['../x', '.. x', 'X', 'x']"),
            ["data.a@dataset=.._x", "data.a@dataset=.._x_2", "data.a@dataset=X", "data.a@dataset=x_2"]
        );
    }

    #[test]
    fn settings_of_one_name_are_told_apart_by_their_stages() {
        let text = format!(
            "{SAMPLE}[stage.other]\nkind = 'neighbors'\nfeatures = 'features'\n[vary]\nstage.neighbors.k = [1]\nstage.other.k = [2]\n"
        );
        let spec = spec(&text, &Request::default());
        assert!(spec.node("other@other.k=2").is_some() && spec.node("neighbors@neighbors.k=1").is_some(), "{:?}", names(&spec));
    }

    #[test]
    fn a_profile_and_an_option_change_what_varies() {
        let text = format!("{}[profile.quick.vary]\nstage.neighbors.k = [7]\n", with("stage.neighbors.k = [5, 20]"));
        let named = |request: Request| {
            spec(&text, &request)
                .nodes
                .iter()
                .filter(|node| node.family == "neighbors")
                .map(|node| node.name.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(named(Request { profile: Some("quick".into()), ..Request::default() }), ["neighbors@k=7"]);
        assert_eq!(
            named(Request { set: vec!["vary.stage.neighbors.k=[1, 2]".into()], ..Request::default() }),
            ["neighbors@k=1", "neighbors@k=2"]
        );
        let over = Request { set: vec!["stage.neighbors.k=3".into()], ..Request::default() };
        assert_eq!(told(&text, &over), ["0:19 stage `neighbors` (neighbors): `[vary]` says what `stage.neighbors.k` is"]);
        // What the file sets beside its list is the value without it; what a profile sets is meant.
        let overruled = ["0:10 stage `pretext` (simclr): `[vary]` says what `stage.pretext.epochs` is"];
        let text = with("stage.pretext.epochs = [20, 30]");
        assert_eq!(told(&text, &Request { profile: Some("smoke".into()), ..Request::default() }), overruled);
        assert_eq!(told(&text, &Request::default()), overruled, "before the profile is needed");
        let text = text + "[profile.smoke.vary]\nstage.pretext.epochs = [12]\n";
        assert_eq!(told(&text, &Request::default()), Vec::<String>::new(), "as in the file");
    }

    #[test]
    fn each_fault_is_told_where_it_stands() {
        assert_eq!(faults("stage.clutser.k = [1]"), ["2:7 the file has no stage `clutser`"]);
        assert_eq!(faults("stage.neighbors.l = [1, 2]"), ["2:17 unknown key `l` in stage `neighbors` (neighbors)"]);
        assert_eq!(
            faults("stage.neighbors.k = []"),
            ["2:21 `vary.stage.neighbors.k` expects a list of values, found an empty list"]
        );
        assert_eq!(faults("stage.neighbors.k = 5"), ["2:21 `vary.stage.neighbors.k` expects a list of values, found `5`"]);
        assert_eq!(
            faults("stage.pretext.lr = [1, 0.5, 1.0]"),
            ["2:29 `vary.stage.pretext.lr` expects different values, found `1.0` again"]
        );
        assert_eq!(
            faults("stage.neighbors.k = [5, 'x', -1]"),
            [
                "2:25 `k` of stage `neighbors` (neighbors) expects an integer, 0 or more, found the text `x`",
                "2:30 `k` of stage `neighbors` (neighbors) expects an integer, 0 or more, found `-1`"
            ],
            "all of them, each at its place"
        );
        assert_eq!(
            faults("stage.pretext.warmup = [0, 600]"),
            [
                "2:28 `warmup` of stage `pretext` (simclr): 600 is more than all `epochs`, 500",
                "2:28 `warmup` of stage `pretext` (simclr): 600 is more than all `epochs`, 10"
            ],
            "and under the profile"
        );
        assert_eq!(
            faults("stage.neighbors.features = ['features']"),
            ["2:29 stage `neighbors` (neighbors): `features` is no setting, and only settings vary"]
        );
        assert_eq!(
            faults("stage.neighbors.kind = ['x']"),
            ["2:25 stage `neighbors` (neighbors): `kind` is no setting, and only settings vary"]
        );
        assert_eq!(faults("seed = [1, 2]"), ["2:1 `vary`: seeds are repeated, not varied"]);
        assert_eq!(faults("'stage.neighbors.k' = [1, 2]"), ["2:1 `vary`: in quotes `stage.neighbors.k` is one name"]);
        assert_eq!(faults("repeat = [1]"), ["2:1 unknown key `repeat` in `vary`"]);
        assert_eq!(faults(""), ["1:1 `vary` expects settings with a list of values each, found an empty table"]);
        assert_eq!(
            faults("stage.neighbors = [1]"),
            ["2:20 `vary.stage.neighbors` expects a list of tables of settings, found one of `1`"]
        );
        assert_eq!(told(&format!("vary = 3\n{SAMPLE}"), &Request::default()), ["0:8 `vary` expects a table, found `3`"]);
        assert_eq!(
            faults(
                "stage.neighbors.k = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\nstage.pretext.lr = [11, 12, 13, 14, 15, 16, 17, 18, 19, 20]\nstage.pretext.temperature = [1, 2, 3, 4, 5]"
            ),
            ["1:2 3602 stages with all combinations of what varies, and their repetitions, and 2000 is the limit"]
        );
    }

    #[test]
    fn nonsense_costs_little() {
        let keys: String = (0..50_000).map(|index| format!("a{index} = [1, 2]\n")).collect::<Vec<_>>().concat();
        for text in [
            format!("{SAMPLE}[vary]\n{keys}"),
            format!("{SAMPLE}[vary.stage.pretext]\n{keys}"),
            format!("{SAMPLE}[vary.stage]\n{keys}"),
            with(&format!("stage.pretext.lr = [{}]", "1, ".repeat(100_000))),
            with(&format!("stage.pretext.lr = [{}1]", "[".repeat(50_000))),
        ] {
            let faults = check(Path::new("p.toml"), &text, &Request::default(), &catalog()).unwrap_err();
            assert!((1..=COLLECTED).contains(&faults.findings().len()), "{}", faults.findings().len());
        }
    }

    #[test]
    fn a_needed_setting_may_come_from_what_varies_alone() {
        let text = SAMPLE.replace("clusters = 10\n", "") + "[vary]\nstage.cluster.clusters = [5, 10]\n";
        let spec = spec(&text, &Request::default());
        assert_eq!(spec.node("cluster@clusters=5@1").unwrap().settings["clusters"], 5);
    }
}
