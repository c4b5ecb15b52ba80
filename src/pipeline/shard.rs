//! `[shard]`: a source whose files are read in parts, each a node of its own, and all below it until a port collects the parts.
//!
//! It is an [`Axis`] of [`vary`](super::vary), by which the setting `part` of the source takes a value for each part: what is computed for a part is
//! cached by itself, and a further part costs what it costs alone.

use super::document::{Entry, Item, Table, Value};
use super::fault::{Finding, SpecFault};
use super::spec::MAX_NODES;
use super::vary::{Axis, Choice, Setting, nested};

/// The setting of a source that says which part of it is read.
const PART: &str = "part";

/// The axis of `[shard]`. `sources` are the names that the file has below `data`.
pub(super) fn read(entry: &Entry, sources: &[String], findings: &mut Vec<Finding>) -> Option<Axis> {
    let Value::Table(table) = &entry.item.value else {
        if !matches!(entry.item.value, Value::Unfit) {
            findings.push(value(&entry.item, "`shard`", "a table"));
        }
        return None;
    };
    let known = ["from", "parts", "files"];
    for entry in table.entries.iter().filter(|entry| !known.contains(&entry.name.as_str())) {
        let known = known.iter().map(|key| (*key).to_owned()).collect();
        let fault = SpecFault::UnknownKey { owner: "`shard`".into(), key: entry.name.clone(), known };
        findings.push(Finding::at(entry.key, fault));
    }
    for key in ["from", "parts"].into_iter().filter(|key| table.get(key).is_none()) {
        let fault = SpecFault::MissingSetting { owner: "`shard`".into(), setting: key.to_owned() };
        findings.push(Finding::at(entry.item.place, fault));
    }
    let from = table.get("from").and_then(|entry| source(&entry.item, sources, findings));
    let mut count = |key: &str, most: i128, want: &str| {
        let item = &table.get(key)?.item;
        match item.value {
            Value::Whole(count) if (1..=most).contains(&count) => Some((item, count as usize)),
            Value::Unfit => None,
            _ => {
                findings.push(value(item, &format!("`shard.{key}`"), want));
                None
            }
        }
    };
    let parts = count("parts", MAX_NODES as i128, &format!("a number of parts, 1 to {MAX_NODES}"));
    let files = count("files", i128::from(u32::MAX), "a number of files, 1 or more");
    let (from, (item, parts)) = (from?, parts?);
    let choices = (0..parts).map(|part| choice(entry, item, from, part, parts, files));
    Some(Axis { place: item.place, choices: choices.collect(), cuts: true })
}

fn value(item: &Item, what: &str, want: &str) -> Finding {
    let fault = SpecFault::Value { what: what.into(), want: want.into(), found: item.describe(), hint: None };
    Finding::at(item.place, fault)
}

/// The name below `data` of the source that is cut.
fn source<'a>(item: &Item, sources: &'a [String], findings: &mut Vec<Finding>) -> Option<&'a str> {
    let Some(written) = item.text() else {
        if !matches!(item.value, Value::Unfit) {
            findings.push(value(item, "`shard.from`", "the name of a source"));
        }
        return None;
    };
    let found = written.strip_prefix("data.").and_then(|name| sources.iter().find(|known| *known == name));
    if found.is_none() {
        let known = sources.iter().map(|name| format!("data.{name}")).collect();
        findings.push(Finding::at(item.place, SpecFault::UnknownName { what: "source", written: written.to_owned(), known }));
    }
    found.map(String::as_str)
}

/// A part as a value of the source's setting.
fn choice(shard: &Entry, item: &Item, source: &str, part: usize, parts: usize, files: Option<(&Item, usize)>) -> Choice {
    let entry = |name: &str, value: usize| {
        let item = Item { place: item.place, value: Value::Whole(value as i128) };
        Entry { name: name.to_owned(), key: shard.key, item }
    };
    let mut entries = vec![entry("number", part), entry("of", parts)];
    entries.extend(files.map(|(_, files)| entry("files", files)));
    let cut = Item { place: item.place, value: Value::Table(Table { entries }) };
    let path: Vec<String> = ["data", source, PART].map(str::to_owned).to_vec();
    let digits = (parts - 1).to_string().len().max(2);
    Choice {
        over: nested(&path, shard.key, &cut),
        settings: vec![Setting { path, item: cut }],
        varied: Vec::new(),
        word: format!("#{part:0digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::graph::{Selection, select};
    use crate::spec::{Request, Spec, check};
    use crate::testing::{SAMPLE, catalog};

    /// Features of a source in parts, put together for the neighbors.
    fn with(shard: &str) -> String {
        let joined = SAMPLE
            .replace("features = \"features\"", "features = \"all\"")
            .replace("encoder = \"pretext\"", "encoder = \"other\"");
        let pretext = joined.replace(
            "[stage.pretext]\nkind = \"simclr\"\nimages = \"data.pool\"",
            "[stage.pretext]\nkind = \"simclr\"\nimages = \"data.test\"",
        );
        let scan = pretext
            .replace("kind = \"scan\"\nimages = \"data.pool\"", "kind = \"scan\"\nimages = \"data.test\"")
            .replace("\"other\"", "\"pretext\"");
        format!("{scan}[stage.all]\nkind = 'concat'\nfeatures = 'features'\n[shard]\n{shard}\n")
    }

    fn spec(text: &str) -> Spec {
        let checked = check(Path::new("p.toml"), text, &Request::default(), &catalog());
        checked.unwrap_or_else(|faults| panic!("{}", faults.render(false, 120)))
    }

    fn faults(shard: &str, request: &Request) -> Vec<String> {
        let Err(faults) = check(Path::new("p.toml"), &with(shard), request, &catalog()) else { return Vec::new() };
        faults.findings().iter().map(|finding| finding.fault.to_string()).collect()
    }

    fn names(spec: &Spec) -> Vec<&str> {
        spec.nodes.iter().map(|node| node.name.as_str()).collect()
    }

    #[test]
    fn what_lies_below_a_source_is_there_for_each_part_until_they_are_collected() {
        let spec = spec(&with("from = 'data.pool'\nparts = 3"));
        assert_eq!(
            names(&spec),
            [
                "data.pool#00",
                "data.pool#01",
                "data.pool#02",
                "data.test",
                "pretext",
                "features#00",
                "features#01",
                "features#02",
                "neighbors",
                "cluster@1",
                "cluster@2",
                "cluster@3",
                "scores@1",
                "scores@2",
                "scores@3",
                "all"
            ]
        );
        let reads = |node: &str, port: &str| {
            spec.node(node).unwrap().ports[port].iter().map(|output| spec.reference(output)).collect::<Vec<_>>()
        };
        assert_eq!(reads("features#01", "images"), ["data.pool#01"]);
        assert_eq!(reads("all", "features"), ["features#00", "features#01", "features#02"], "in order");
        assert_eq!(reads("neighbors", "features"), ["all"]);
        let part = &spec.node("data.pool#02").unwrap();
        assert_eq!(part.settings["part"], serde_json::json!({ "number": 2, "of": 3 }));
        assert_eq!((part.family.as_str(), part.variant(), part.varied.len()), ("data.pool", "data.pool#02", 0));
        let selected = |name: &str| {
            let only = Selection { only: vec![name.into()], ..Selection::default() };
            select(&spec, &only).unwrap().nodes.len()
        };
        assert_eq!([selected("features"), selected("features#01")], [3, 1]);
    }

    #[test]
    fn parts_go_with_varied_settings_and_with_files_in_each() {
        let text = with("from = 'data.pool'\nparts = 101\nfiles = 5") + "[vary]\nstage.pretext.lr = [1, 2]\n";
        let spec = spec(&text);
        let of = |family: &str| spec.nodes.iter().filter(|node| node.family == family).count();
        assert_eq!(["data.pool", "pretext", "features", "all", "cluster"].map(of), [101, 2, 202, 2, 6]);
        let node = spec.node("features@lr=2#007").unwrap();
        assert_eq!(spec.reference(&node.ports["images"][0]), "data.pool#007");
        let all: Vec<String> = spec.node("all@lr=2").unwrap().ports["features"].iter().map(|of| spec.reference(of)).collect();
        assert_eq!((all.len(), all[100].as_str()), (101, "features@lr=2#100"));
        assert_eq!(
            spec.node("data.pool#100").unwrap().settings["part"],
            serde_json::json!({"number": 100, "of": 101, "files": 5})
        );
    }

    #[test]
    fn a_profile_has_parts_of_its_own() {
        let text = with("from = 'data.pool'\nparts = 3") + "[profile.few.shard]\nparts = 1\n";
        let request = Request { profile: Some("few".into()), ..Request::default() };
        let spec = check(Path::new("p.toml"), &text, &request, &catalog()).unwrap();
        assert_eq!(names(&spec)[0..2], ["data.pool#00", "data.test"]);
    }

    #[test]
    fn faults_are_told() {
        let none = Request::default();
        assert_eq!(faults("", &none), ["`shard` needs a value for `from`", "`shard` needs a value for `parts`"]);
        assert_eq!(faults("from = 'data.pol'\nparts = 2", &none), ["there is no source `data.pol`"]);
        assert_eq!(faults("from = 'pool'\nparts = 2", &none), ["there is no source `pool`"]);
        assert_eq!(
            faults("from = 'data.pool'\nparts = 0\nfiles = 'x'\nof = 3", &none),
            [
                "`shard.parts` expects a number of parts, 1 to 2000, found `0`",
                "`shard.files` expects a number of files, 1 or more, found the text `x`",
                "unknown key `of` in `shard`"
            ]
        );
        assert_eq!(
            faults("from = 'data.pool'\nparts = 2000", &none),
            ["4010 stages with all parts, combinations and repetitions, and 2000 is the limit"]
        );
        let set = Request { set: vec!["data.pool.part.number=3".into()], ..none };
        assert_eq!(
            faults("from = 'data.pool'\nparts = 2", &set),
            ["source `data.pool`: `[shard]` says what `data.pool.part` is"]
        );
    }
}
