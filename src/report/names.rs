//! The names of clusters that hold for a result: where their file lies, and whether it was made for what is there now.

use std::path::{Path, PathBuf};

use kinset_artifact::Artifact;
use kinset_artifact::assignments::Assignments;
use kinset_dataset::names::{Names, NamesError, NamesFile};
use kinset_pipeline::spec::{Node, Spec};
use kinset_pipeline::state::{Known, Outlook};
use kinset_store::digest::Digest;
use kinset_store::record::Record;

use super::gather::wired;

/// The stage that reads a file of names.
const NAMED: &str = "named";

/// The file of names for the assignments that a node gives: that of the stage `named` that reads them, else `photos.names.toml` beside
/// `photos.toml`.
pub fn place(outlook: &Outlook<'_>, node: usize) -> PathBuf {
    let reads = |named: &&Node| named.kind == NAMED && wired(named, "assignments") == Some(node);
    let file = outlook.spec.nodes.iter().find(reads).and_then(|named| named.settings["file"].as_str());
    file.map_or_else(|| beside(&outlook.spec.path), |file| outlook.places.file(Path::new(file)))
}

/// The file of names that belongs to a pipeline file.
pub fn beside(pipeline: &Path) -> PathBuf {
    pipeline.with_extension("names.toml")
}

/// The names of the clusters of these assignments; none if nothing is named, or another stage's clusters are.
///
/// # Errors
/// A file that cannot be read; one that was made for another result of this stage, so that its numbers mean other clusters.
pub fn of_assignments(
    outlook: &Outlook<'_>,
    node: usize,
    result: Digest,
    clusters: usize,
) -> Result<Option<(PathBuf, Names)>, NamesError> {
    let path = place(outlook, node);
    let names = Names::read(&path)?;
    let stage = outlook.spec.nodes[node].name.as_str();
    let other = |spec: &Spec| names.stage.as_deref().is_some_and(|other| other != stage && spec.node(other).is_some());
    if names.is_empty() || names.of != Some(result) && other(outlook.spec) {
        return Ok(None);
    }
    names.check(&path, stage, result, clusters)?;
    Ok(Some((path, names)))
}

/// The names of the clusters that a node's classifier sorts into, by the assignments that it made.
///
/// # Errors
/// As [`of_assignments`], and where those assignments have no result, so that nobody knows whether the names are theirs.
pub fn of_classifier(
    outlook: &Outlook<'_>,
    known: &Known,
    node: usize,
    clusters: usize,
) -> Result<Option<(PathBuf, Names)>, NamesError> {
    let nodes = &outlook.spec.nodes;
    for (index, made) in nodes.iter().enumerate().rev() {
        if !made.gives(Assignments::KIND) || wired(made, "classifier") != Some(node) {
            continue;
        }
        if let Some(result) = known.get(&index).and_then(content) {
            if let Some(found) = of_assignments(outlook, index, result, clusters)? {
                return Ok(Some(found));
            }
            continue;
        }
        let path = place(outlook, index);
        let names = Names::read(&path)?;
        if names.highest().is_some() && names.stage.as_deref() == Some(&made.name) {
            return Err(NamesError::NoResult { path: path.display().to_string(), stage: made.name.clone() });
        }
    }
    Ok(None)
}

/// What the assignments in a record say.
fn content(record: &Record) -> Option<Digest> {
    record.outputs.values().find(|output| output.kind == Assignments::KIND).map(|output| output.content)
}

/// Changes when any file of names does that a report may show.
pub(super) fn revisions(outlook: &Outlook<'_>) -> Vec<String> {
    let nodes = &outlook.spec.nodes;
    let mut places: Vec<PathBuf> =
        (0..nodes.len()).filter(|&node| nodes[node].gives(Assignments::KIND)).map(|node| place(outlook, node)).collect();
    places.sort_unstable();
    places.dedup();
    // What cannot be read is told where it is shown.
    places.iter().map(|path| NamesFile::read(path).map_or_else(|error| error.to_string(), |file| file.revision())).collect()
}
