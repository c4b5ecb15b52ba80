//! Near-duplicates for people: images by the names of their files, as lines of a table.

use serde_json::{Value, json};

use super::common::Failure;
use crate::artifact::images::{Images, names_and_paths};
use crate::artifact::near_duplicates::{NearDuplicates, NearNames, NearSet, NearSummary, NearTable};
use crate::artifact::{Artifact, Stored};
use crate::pipeline::spec::{Node, Spec};
use crate::pipeline::state::{self, Known};
use crate::report::lines::{Form, table_lines};
use crate::store::Store;

/// A result, with the names of its images.
pub(super) struct Near {
    pub(super) table: NearTable,
    names: NearNames,
    /// By set, by row: the paths of the files that the images came from; nothing where they are not known.
    paths: Vec<Vec<String>>,
    /// What people call each set.
    pub(super) called: Vec<String>,
}

impl Near {
    /// Reads the result of a stage, and where its images lie.
    ///
    /// # Errors
    /// If something is not what was written.
    pub(super) fn of(
        stored: &Stored<NearDuplicates>,
        node: usize,
        (spec, store, known): (&Spec, &Store, &Known),
    ) -> Result<Self, Failure> {
        let (table, names) = NearTable::load(stored)?;
        let nodes = &spec.nodes;
        let (mut paths, mut called) = (Vec::new(), Vec::new());
        for features in features(&nodes[node]) {
            let mut all = Some(Vec::new());
            for &shard in &features {
                let found = nodes[shard].ports.get("images").and_then(|wires| wires.first());
                let found = found.map(|wire| images(spec, store, known, wire.node)).transpose()?.flatten();
                match (&mut all, found) {
                    (Some(all), Some(images)) => all.extend(names_and_paths(&images)?.1),
                    _ => all = None,
                }
            }
            // A set of arrays has no files.
            paths.push(all.filter(|all| all.iter().all(|path| !path.is_empty())).unwrap_or_default());
            called.push(match features.as_slice() {
                [one] => format!("`{}`", nodes[*one].name),
                _ => "the pool".to_owned(),
            });
        }
        Ok(Self { table, names, paths, called })
    }

    pub(super) fn summary(&self) -> &NearSummary {
        &self.table.summary
    }

    /// What people call a set.
    pub(super) fn called(&self, set: &NearSet) -> String {
        let place = self.summary().sets.iter().position(|other| other.name == set.name);
        place.and_then(|place| self.called.get(place)).unwrap_or(&set.name).clone()
    }

    /// What was found, in words.
    pub(super) fn told(&self) -> Vec<String> {
        self.summary().told(&|set| self.called(set))
    }

    fn path(&self, set: u32, row: u32) -> &str {
        self.paths.get(set as usize).and_then(|paths| paths.get(row as usize)).map_or("", String::as_str)
    }

    /// The path of a member, or its id.
    pub(super) fn member(&self, at: usize) -> &str {
        let member = &self.table.members[at];
        Some(self.path(member.set, member.row)).filter(|path| !path.is_empty()).unwrap_or(&self.names.members[at])
    }

    /// Of an image that a set shares with another, and of its copy there, the path or the id.
    pub(super) fn copy(&self, at: usize) -> (&str, &str) {
        let (copy, (id, other_id)) = (&self.table.shared[at], &self.names.shared[at]);
        let shown = |path, id| if str::is_empty(path) { id } else { path };
        (shown(self.path(copy.set, copy.row), id), shown(self.path(copy.other, copy.other_row), other_id))
    }

    /// The images of groups, group by group, what stands for it first; with their number.
    pub(super) fn groups(&self, form: Form) -> (String, usize) {
        let members = self.table.members.iter().enumerate();
        let rows: Vec<Vec<Value>> = members
            .map(|(at, member)| {
                vec![
                    json!(member.group),
                    json!(at == 0 || self.table.members[at - 1].group != member.group),
                    json!(self.summary().sets[member.set as usize].name),
                    json!(self.path(member.set, member.row)),
                    json!(self.names.members[at]),
                    json!(member.row),
                    json!(member.exact),
                    float(member.similarity),
                ]
            })
            .collect();
        let names = ["group", "kept", "set", "path", "id", "row", "exact", "similarity"];
        (table_lines(form, &names, &rows), rows.len())
    }

    /// The images with a near copy in an earlier set; with their number.
    pub(super) fn shared(&self, form: Form) -> (String, usize) {
        let set = |set: u32| json!(self.summary().sets[set as usize].name);
        let copies = self.table.shared.iter().zip(&self.names.shared);
        let rows: Vec<Vec<Value>> = copies
            .map(|(copy, (id, other_id))| {
                vec![
                    set(copy.set),
                    json!(self.path(copy.set, copy.row)),
                    json!(id),
                    json!(copy.row),
                    set(copy.other),
                    json!(self.path(copy.other, copy.other_row)),
                    json!(other_id),
                    json!(copy.other_row),
                    float(copy.similarity),
                    json!(copy.copies),
                ]
            })
            .collect();
        let names = ["set", "path", "id", "row", "other", "other_path", "other_id", "other_row", "similarity", "copies"];
        (table_lines(form, &names, &rows), rows.len())
    }
}

/// The nodes whose features are compared, set by set, in the order of the result.
fn features(node: &Node) -> Vec<Vec<usize>> {
    let wired = |port: &str| node.ports.get(port).into_iter().flatten().map(|wire| wire.node);
    let mut sets = vec![wired("pool").collect()];
    sets.extend(wired("target").chain(wired("held_out")).map(|node| vec![node]));
    sets
}

fn images(spec: &Spec, store: &Store, known: &Known, node: usize) -> Result<Option<Stored<Images>>, Failure> {
    let Some(record) = known.get(&node) else { return Ok(None) };
    let found = record.outputs.iter().find(|(_, output)| output.kind == Images::KIND);
    let stored = |(name, output): (&String, _)| state::stored(store, &spec.nodes[node].name, name, output);
    Ok(found.map(stored).transpose()?)
}

/// With the digits that single precision has.
fn float(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}
