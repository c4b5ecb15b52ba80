//! The check of a stage's settings: all complaints at once, each at the setting it is about.
//!
//! A stage checks settings as serde does: the first wrong type ends it. So the settings are checked whole, each guilty one is
//! put back to its default, and the rest is checked again until nothing new comes up. A complaint that names no setting is
//! traced by taking settings away one at a time.

use serde_json::{Map, Value as Json};

use super::catalog::StageInfo;
use super::document::{Entry, Item, Value};
use super::fault::{COLLECTED, Finding, Place, SpecFault, near, quote};
use kinset_stage::Complaint;

/// What the check has found.
pub struct Checked {
    /// Given settings over the defaults, not yet normalized; meaningful if there are no findings.
    pub settings: Json,
    /// All that is wrong.
    pub findings: Vec<Finding>,
}

/// Checks the given settings. `owner` is whose they are, in words; `header` is where to point for what is missing; `extra` are
/// keys other than settings that may stand in the same table, for suggestions.
pub fn check(stage: &dyn StageInfo, given: &[&Entry], owner: &str, header: Place, extra: &[&str]) -> Checked {
    let defaults = stage.default_settings();
    let mut search = Search { stage, defaults, owner, header, leaves: Vec::new(), away: Vec::new(), findings: Vec::new() };
    let top = search.defaults.clone();
    search.collect(&top, given, &mut Vec::new(), extra);
    search.run();
    let all: Vec<usize> = (0..search.leaves.len()).collect();
    Checked { settings: search.overlay(&all), findings: search.findings }
}

/// A given setting.
struct Leaf<'a> {
    path: Vec<String>,
    item: &'a Item,
    json: Json,
}

struct Search<'a> {
    stage: &'a dyn StageInfo,
    defaults: Json,
    owner: &'a str,
    header: Place,
    leaves: Vec<Leaf<'a>>,
    /// Settings that are at their defaults because what was given is reported already.
    away: Vec<String>,
    findings: Vec<Finding>,
}

impl<'a> Search<'a> {
    /// Descends where both the defaults and the file have a table, and reports keys that the defaults do not know.
    fn collect(&mut self, defaults: &Json, given: &[&'a Entry], path: &mut Vec<String>, extra: &[&str]) {
        let Some(known) = defaults.as_object() else { return };
        for entry in given {
            if self.findings.len() >= COLLECTED {
                return;
            }
            let Some(default) = known.get(&entry.name) else {
                let mut names: Vec<String> = known.keys().cloned().collect();
                names.sort_unstable();
                let mut names: Vec<String> = extra.iter().map(|name| (*name).to_owned()).chain(names).collect();
                names.dedup();
                let owner =
                    if path.is_empty() { self.owner.to_owned() } else { format!("`{}` of {}", path.join("."), self.owner) };
                self.findings
                    .push(Finding::at(entry.key, SpecFault::UnknownKey { owner, key: entry.name.clone(), known: names }));
                continue;
            };
            path.push(entry.name.clone());
            match (&entry.item.value, default) {
                (Value::Table(table), Json::Object(inner)) if !inner.is_empty() && same_kind(table, inner) => {
                    let entries: Vec<&Entry> = table.entries.iter().collect();
                    self.collect(default, &entries, path, &[]);
                }
                _ => match entry.item.json() {
                    Some(json) => self.leaves.push(Leaf { path: path.clone(), item: &entry.item, json }),
                    None => self.away.push(path.join(".")),
                },
            }
            path.pop();
        }
    }

    /// The defaults with some of the leaves laid over, nulls left out.
    fn overlay(&self, leaves: &[usize]) -> Json {
        let mut settings = self.defaults.clone();
        for leaf in leaves.iter().filter_map(|&index| self.leaves.get(index)) {
            let mut at = &mut settings;
            for name in &leaf.path {
                if !at.is_object() {
                    *at = Json::Object(Map::new());
                }
                at = &mut at[name.as_str()];
            }
            *at = leaf.json.clone();
        }
        without_nulls(settings)
    }

    fn complaints(&self, leaves: &[usize]) -> Vec<Complaint> {
        self.stage.check_settings(&self.overlay(leaves))
    }

    fn run(&mut self) {
        let mut kept: Vec<usize> = (0..self.leaves.len()).collect();
        loop {
            let mut guilty = Vec::new();
            for complaint in self.complaints(&kept) {
                // With a guilty setting back at its default, a complaint that speaks of it may be about the default.
                let echo = |name: &String| {
                    let last = name.rsplit('.').next().unwrap_or(name);
                    complaint.message.contains(&format!("`{last}`")) || complaint.message.contains(&format!("`{name}`"))
                };
                if self.away.iter().any(echo) {
                    continue;
                }
                let culprit = self.culprit(&complaint, &kept);
                self.report(&complaint, culprit);
                guilty.extend(culprit);
            }
            if guilty.is_empty() {
                return;
            }
            kept.retain(|leaf| !guilty.contains(leaf));
            let names: Vec<String> = guilty.iter().map(|&leaf| self.leaves[leaf].path.join(".")).collect();
            self.away.extend(names);
        }
    }

    /// The given setting that a complaint is about.
    fn culprit(&self, complaint: &Complaint, kept: &[usize]) -> Option<usize> {
        let path = segments(&complaint.path);
        if !path.is_empty() {
            let named = |leaf: &usize| path.starts_with(&self.leaves[*leaf].path);
            if let Some(leaf) = kept.iter().copied().find(|leaf| named(leaf)) {
                return Some(leaf);
            }
        }
        let within = |leaf: &usize| self.leaves[*leaf].path.starts_with(&path);
        let candidates: Vec<usize> = kept.iter().copied().filter(|leaf| path.is_empty() || within(leaf)).collect();
        let candidates = if candidates.is_empty() { kept.to_vec() } else { candidates };
        // Without the guilty one the complaint is gone …
        let gone = |leaf: &usize| {
            let others: Vec<usize> = kept.iter().copied().filter(|other| other != leaf).collect();
            !self.complaints(&others).contains(complaint)
        };
        // … unless two are guilty in the same words: then either of them alone brings it up.
        let alone = |leaf: &usize| self.complaints(&[*leaf]).contains(complaint);
        let bare = self.complaints(&[]).contains(complaint);
        candidates
            .iter()
            .copied()
            .find(|leaf| gone(leaf))
            .or_else(|| (!bare).then(|| candidates.iter().copied().find(|leaf| alone(leaf))).flatten())
    }

    fn report(&mut self, complaint: &Complaint, culprit: Option<usize>) {
        let leaf = culprit.map(|index| &self.leaves[index]);
        let path = segments(&complaint.path);
        let (item, name) = match leaf {
            Some(leaf) => {
                let deeper = path.get(leaf.path.len()..).filter(|_| path.starts_with(&leaf.path)).unwrap_or_default();
                let item = descend(leaf.item, deeper);
                (Some(item), if path.is_empty() { leaf.path.join(".") } else { complaint.path.clone() })
            }
            None => (None, complaint.path.clone()),
        };
        let fault = self.fault(complaint, item, &name);
        let place = item.map_or(self.header, |item| item.place);
        self.findings.push(Finding::at(place, fault));
    }

    /// serde's words, put plainly.
    fn fault(&self, complaint: &Complaint, item: Option<&Item>, name: &str) -> SpecFault {
        let message = complaint.message.split(" at line ").next().unwrap_or_default().trim();
        let what = if name.is_empty() { self.owner.to_owned() } else { format!("{} of {}", quote(name), self.owner) };
        let hint = complaint.hint.clone();
        if let Some(setting) = between(message, "missing field `", "`") {
            let inside = segments(&complaint.path);
            let setting = if inside.last().is_some_and(|last| last == setting) || inside.is_empty() {
                setting.to_owned()
            } else {
                format!("{}.{setting}", complaint.path)
            };
            return SpecFault::MissingSetting { owner: self.owner.to_owned(), setting };
        }
        for opening in ["invalid type: ", "invalid value: ", "invalid length "] {
            let Some((found, want)) = message.strip_prefix(opening).and_then(|rest| rest.rsplit_once(", expected ")) else {
                continue;
            };
            let limit = if found.starts_with("integer `") && !found.starts_with("integer `-") { largest(want) } else { None };
            let want = limit.map_or_else(|| wanted(want), |limit| format!("an integer up to {limit}"));
            let found = item.map_or_else(|| found.to_owned(), Item::describe);
            return SpecFault::Value { what, want, found, hint };
        }
        if let Some((found, want)) = message.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("`, expected "))
        {
            let names: Vec<&str> = want.split('`').skip(1).step_by(2).collect();
            let hint = hint.or_else(|| near(found, names.iter().copied()).map(|name| format!("did you mean {}?", quote(name))));
            let want = if names.is_empty() { want.to_owned() } else { super::fault::one_of(&names) };
            return SpecFault::Value { what, want, found: quote(found), hint };
        }
        if let Some((key, known)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
            let known = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            return SpecFault::UnknownKey { owner: what, key: key.to_owned(), known };
        }
        SpecFault::Setting { owner: what, message: message.to_owned(), hint }
    }
}

/// A table that names another `kind` than the default does has other keys: it replaces the default whole.
fn same_kind(given: &super::document::Table, default: &Map<String, Json>) -> bool {
    match (given.get("kind").and_then(|entry| entry.item.text()), default.get("kind").and_then(Json::as_str)) {
        (Some(given), Some(default)) => given == default,
        _ => true,
    }
}

fn without_nulls(value: Json) -> Json {
    match value {
        Json::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name, without_nulls(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

/// `crop.scale[1]` and `crop.scale.1` as steps.
fn segments(path: &str) -> Vec<String> {
    path.split(['.', '[', ']']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn descend<'a>(item: &'a Item, path: &[String]) -> &'a Item {
    let Some((first, rest)) = path.split_first() else { return item };
    let inner = match &item.value {
        Value::Table(table) => table.get(first).map(|entry| &entry.item),
        Value::List(items) => first.parse().ok().and_then(|index: usize| items.get(index)),
        _ => None,
    };
    inner.map_or(item, |inner| descend(inner, rest))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.split(after).next()
}

fn largest(expected: &str) -> Option<u64> {
    Some(match expected {
        "u8" => u8::MAX.into(),
        "u16" => u16::MAX.into(),
        "u32" => u32::MAX.into(),
        "i8" => i8::MAX as u64,
        "i16" => i16::MAX as u64,
        "i32" => i32::MAX as u64,
        "i64" | "isize" => i64::MAX as u64,
        _ => return None,
    })
}

/// What serde expects, as a person would say it.
fn wanted(expected: &str) -> String {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "an integer, 0 or more".into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "an integer".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "`true` or `false`".into(),
        "a string" | "string" | "string or map" => "a text in quotes".into(),
        "a sequence" => "a list".into(),
        "a map" => "a table".into(),
        _ if expected.starts_with("struct ") => "a table".into(),
        _ => match expected.strip_prefix("an array of length ").or_else(|| expected.strip_prefix("a tuple of size ")) {
            Some(length) => format!("a list of {length}"),
            None => expected.to_owned(),
        },
    }
}

/// The same settings with all keys in the order of the alphabet, so that equal settings are equal texts.
pub fn sorted(value: Json) -> Json {
    match value {
        Json::Object(map) => {
            let sorted: std::collections::BTreeMap<String, Json> =
                map.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            sorted.into_iter().collect::<Map<_, _>>().into()
        }
        Json::Array(items) => items.into_iter().map(sorted).collect::<Vec<_>>().into(),
        other => other,
    }
}
