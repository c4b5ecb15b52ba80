//! Images that stand out: copies of others, and those that are unlike all others.

use super::assignments::{Looked, take};
use super::inputs::{Results, Subject, wired};
use super::page::{Copies, Unusual};
use kinset_artifact::duplicates::{DuplicateTable, Duplicates};
use kinset_artifact::outliers::{OutlierTable, Outliers};

/// Groups of copies that are shown.
const GROUPS: usize = 24;
/// Images of each.
const MEMBERS: usize = 9;
/// Outliers that are shown.
const OUTLIERS: usize = 60;

/// The first node that gave copies of the images that are looked at. The groups whose members are least alike come first: whether the
/// threshold is right is seen there.
pub(super) fn copies(results: &Results<'_>, subject: &Subject, looked: &mut Looked) -> Option<Copies> {
    let nodes = &results.spec.nodes;
    let node = (0..nodes.len()).find(|&node| {
        results.has(node, "duplicates") && (subject.images.is_none() || wired(&nodes[node], "images") == subject.images)
    })?;
    let table = take(DuplicateTable::load(&results.get::<Duplicates>(node)?), &mut looked.faults)?;
    let mut groups = table.groups();
    let least = |group: &[u32]| group.iter().map(|&row| table.similarity[row as usize]).fold(1.0, f32::min);
    let copies = groups.iter().map(|group| group.len() - 1).sum();
    let exact =
        groups.iter().flatten().filter(|&&row| table.exact[row as usize] && table.representative[row as usize] != row).count();
    let of = groups.len();
    groups.sort_by(|a, b| least(a).total_cmp(&least(b)).then(a[0].cmp(&b[0])));
    let shown = groups.iter().take(GROUPS).map(|group| {
        let shot = |&row: &u32| {
            let mut shot = looked.shot(row as usize, &table.ids[row as usize]);
            (shot.right, shot.similarity) = (None, (row != group[0]).then(|| table.similarity[row as usize]));
            shot
        };
        group.iter().take(MEMBERS).map(shot).collect()
    });
    Some(Copies {
        stage: results.name(node).to_owned(),
        groups: of,
        copies,
        exact,
        least: table.least,
        by: table.by.clone(),
        shown: shown.collect(),
    })
}

/// The first node that scored how unusual the images are that are looked at.
pub(super) fn unusual(results: &Results<'_>, subject: &Subject, looked: &mut Looked) -> Option<Unusual> {
    let nodes = &results.spec.nodes;
    let images = |node: usize| {
        let features = wired(&nodes[wired(&nodes[node], "neighbors")?], "features")?;
        wired(&nodes[features], "images")
    };
    let node = (0..nodes.len())
        .find(|&node| results.has(node, "outliers") && (subject.images.is_none() || images(node) == subject.images))?;
    let table = take(OutlierTable::load(&results.get::<Outliers>(node)?), &mut looked.faults)?;
    let shot = |&row: &u32| {
        let mut shot = looked.shot(row as usize, &table.ids[row as usize]);
        (shot.right, shot.similarity) = (None, Some(1.0 - table.score[row as usize]));
        shot
    };
    let shown = table.order().iter().take(OUTLIERS.min(table.len() / 4)).map(shot).collect();
    Some(Unusual { stage: results.name(node).to_owned(), k: table.k, shown })
}
