//! The table of stages: how every stage stands, and what the last run did with it.

use std::collections::BTreeSet;
use std::path::Path;

use super::journal::{self, Journal};
use super::page::{LastRun, StageRow, Standing, Wire};
use crate::names;
use kinset_base::clock;
use kinset_base::fault::chain;
use kinset_pipeline::spec::{Node, Spec};
use kinset_pipeline::state::{Known, Outlook, State};
use kinset_stage::AnyStage;
use kinset_store::digest::Digest;
use kinset_store::record::Record;

/// The form of reports. Raise it when the page changes, so that finished pipelines get a new one.
const FORMAT: u32 = 4;

/// All stages as they stand now, and the results there are.
pub(super) fn rows(outlook: &Outlook<'_>) -> (Vec<StageRow>, Known) {
    let mut known = Known::new();
    let states = outlook.states(&BTreeSet::new());
    let rows = outlook
        .spec
        .nodes
        .iter()
        .zip(states)
        .enumerate()
        .map(|(index, (node, state))| {
            let mut row = row(outlook, node);
            match state {
                State::Fresh { record, .. } => {
                    tell_result(&mut row, &record);
                    known.insert(index, *record);
                }
                State::Stale { key, why } => {
                    (row.state, row.why, row.key) = ("to run".into(), Some(why.to_string()), Some(key.hex()));
                }
                State::Waits { on } => (row.state, row.why) = ("waits".into(), Some(format!("for {}", on.join(", ")))),
                State::Broken { error } => (row.state, row.why) = ("broken".into(), Some(chain(&error))),
            }
            row
        })
        .collect();
    (rows, known)
}

/// All stages as a run has left them, if all have a result: raw data are not looked at again.
pub(super) fn rows_after(outlook: &Outlook<'_>, known: &Known) -> Option<Vec<StageRow>> {
    let nodes = outlook.spec.nodes.iter().enumerate();
    nodes
        .map(|(index, node)| {
            let mut row = row(outlook, node);
            tell_result(&mut row, known.get(&index)?);
            Some(row)
        })
        .collect()
}

fn row(outlook: &Outlook<'_>, node: &Node) -> StageRow {
    StageRow {
        name: node.name.clone(),
        family: node.family.clone(),
        variant: node.variant().to_owned(),
        kind: node.kind.clone(),
        seed: outlook.stage(node).is_ok_and(AnyStage::seeded).then_some(node.seed),
        ..StageRow::default()
    }
}

fn tell_result(row: &mut StageRow, record: &Record) {
    row.state = "fresh".into();
    row.seconds = Some(record.seconds.max(0.0));
    row.peak_memory = record.peak_memory;
    row.bytes = Some(record.bytes());
    row.finished = Some(clock::stamp(record.finished));
    row.version = Some(record.crate_version.clone());
    row.key = Some(record.key.hex());
}

/// What flows where: each pair of stages once for each artifact.
pub(super) fn wires(spec: &Spec) -> Vec<Wire> {
    let mut wires = BTreeSet::new();
    for (to, node) in spec.nodes.iter().enumerate() {
        for output in node.ports.values().flatten() {
            wires.insert(Wire { from: output.node, to, artifact: output.artifact.to_owned() });
        }
    }
    wires.into_iter().collect()
}

/// Changes when anything changes that a report shows; costs no look into any result.
pub(super) fn fingerprint(outlook: &Outlook<'_>, rows: &[StageRow], runs: &Path, asked: Option<&str>) -> String {
    let spec = outlook.spec;
    let file = spec.path.display().to_string();
    let about = (FORMAT, env!("CARGO_PKG_VERSION"), &spec.name, &spec.profile, file, &spec.device);
    let repeat = spec.repeat.as_ref().map(|repeat| &repeat.seeds);
    let names = names::revisions(outlook);
    let text = serde_json::to_vec(&(about, spec.seed, repeat, rows, wires(spec), journal::newest(runs), asked, names));
    // Plain types with text keys: this cannot fail.
    Digest::of(&text.unwrap_or_default()).hex()
}

/// Adds what the last run said.
pub(super) fn tell(rows: &mut [StageRow], journal: Option<&Journal>) {
    for row in rows {
        let Some(told) = journal.and_then(|journal| journal.stages.get(&row.name)) else { continue };
        row.last = Some(told.word.to_owned());
        // What went wrong and was mended since is history.
        if row.state != "fresh" {
            (row.error, row.hint) = (told.error.clone(), told.hint.clone());
        }
    }
}

pub(super) fn last_run(journal: &Journal) -> LastRun {
    LastRun {
        began: journal.began.clone(),
        seconds: journal.seconds,
        exit: journal.exit,
        ran: journal.count("ran"),
        fresh: ["cached", "adopted", "from a cache"].map(|word| journal.count(word)).into_iter().sum(),
        version: journal.version.clone(),
    }
}

/// How the whole stands. What failed or was stopped counts only while it has no result.
pub(super) fn standing(rows: &[StageRow], journal: Option<&Journal>) -> Standing {
    let open: Vec<&str> = rows.iter().filter(|row| row.state != "fresh").map(|row| row.name.as_str()).collect();
    if open.is_empty() {
        return Standing::Complete;
    }
    if let Some(journal) = journal {
        let still_open = |words: &[&str]| -> Vec<String> {
            journal.those(words).into_iter().filter(|stage| open.contains(&stage.as_str())).collect()
        };
        let failed = still_open(&["failed"]);
        if !failed.is_empty() {
            return Standing::Failed { stages: failed };
        }
        let stopped = still_open(&["stopped", "began", "waited"]);
        if !stopped.is_empty() {
            return Standing::Interrupted { stages: stopped, asked: journal.exit.is_some() };
        }
    }
    if open.len() == rows.len() && journal.is_none() {
        return Standing::Never;
    }
    Standing::Partial { stages: open.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, state: &str) -> StageRow {
        StageRow { name: name.into(), state: state.into(), ..StageRow::default() }
    }

    fn journal(words: &[(&str, &'static str)], exit: Option<u8>) -> Journal {
        let told = |word| journal::Told { word, ..journal::Told::default() };
        let stages = words.iter().map(|(stage, word)| ((*stage).to_owned(), told(word))).collect();
        Journal { stages, exit, ..Journal::default() }
    }

    #[test]
    fn a_pipeline_stands_as_its_open_stages_and_its_last_run_say() {
        let done = [row("a", "fresh"), row("b", "fresh")];
        let half = [row("a", "fresh"), row("b", "to run")];
        let none = [row("a", "to run"), row("b", "waits")];
        assert_eq!(standing(&done, None), Standing::Complete);
        let failed = journal(&[("a", "cached"), ("b", "failed")], Some(5));
        assert_eq!(standing(&half, Some(&failed)), Standing::Failed { stages: vec!["b".into()] });
        assert_eq!(standing(&done, Some(&failed)), Standing::Complete, "it was mended since");
        let stopped = journal(&[("b", "stopped")], Some(75));
        assert_eq!(standing(&half, Some(&stopped)), Standing::Interrupted { stages: vec!["b".into()], asked: true });
        let killed = journal(&[("b", "began")], None);
        assert_eq!(standing(&half, Some(&killed)), Standing::Interrupted { stages: vec!["b".into()], asked: false });
        assert_eq!(standing(&none, None), Standing::Never);
        assert_eq!(standing(&half, None), Standing::Partial { stages: 1 });
    }
}
