//! Near-duplicates in features: what was found, some of what sets share, and some groups.

use std::collections::BTreeMap;

use kinset_artifact::Stored;
use kinset_artifact::images::{Images, names_and_paths};
use kinset_artifact::near_duplicates::{NearDuplicates, NearTable};

use super::inputs::{Results, wired};
use super::page::{Glimpse, NearSets, Sight};
use super::samples::{Elsewhere, Shards, images_of, sight};

/// Images with a copy in an earlier set that are shown.
const SHARED: usize = 24;
/// Groups that are shown.
const GROUPS: usize = 12;
/// Images of each.
const MEMBERS: usize = 9;

/// What each stage found that looks for near-duplicates. Nothing of one whose tables cannot be read.
pub(super) fn near_sets(results: &Results<'_>, elsewhere: &Elsewhere<'_>) -> Vec<NearSets> {
    (0..results.spec.nodes.len()).filter_map(|node| one(results, node, elsewhere)).collect()
}

fn one(results: &Results<'_>, node: usize, elsewhere: &Elsewhere<'_>) -> Option<NearSets> {
    let (table, names) = NearTable::load(&results.get::<NearDuplicates>(node)?).ok()?;
    let nodes = &results.spec.nodes;
    let at = &nodes[node];
    let pool = Shards::of(results, at)?;
    // The sets after the pool, each of one stage.
    let target = wired(at, "target").into_iter();
    let others: Vec<usize> = target.chain(at.ports.get("held_out").into_iter().flatten().map(|wire| wire.node)).collect();
    let place = |set: u32, row: u32| match set {
        0 => pool.place(row as usize),
        _ => (others.get(set as usize - 1).and_then(|&features| images_of(&nodes[features])), row as usize),
    };
    let mut paths = Paths::of(results);
    let mut glimpse = |set: u32, row: u32, id: &str, similarity: Option<f32>| {
        let (images, row) = place(set, row);
        // Pictures from elsewhere are those of the pool and of the target; nobody has named where held-out ones lie.
        let finder = match set {
            0 => elsewhere.pool.as_ref(),
            1 if at.ports.contains_key("target") => elsewhere.target.as_ref(),
            _ => None,
        };
        let sight = sight(images, row, id, finder);
        let glimpse = Glimpse { id: id.to_owned(), sight, similarity: similarity.map(f64::from) };
        Glimpse { id: paths.name(&glimpse), ..glimpse }
    };
    let mut called: Vec<String> = vec!["the pool".to_owned()];
    called.extend(others.iter().map(|&other| format!("`{}`", nodes[other].name)));
    let shared = table.by_weight().into_iter().take(SHARED).map(|at| {
        let (copy, (id, other_id)) = (&table.shared[at], &names.shared[at]);
        let image = glimpse(copy.set, copy.row, id, None);
        (called[copy.set as usize].clone(), image, glimpse(copy.other, copy.other_row, other_id, Some(copy.similarity)))
    });
    let shared = shared.collect();
    let mut groups: Vec<std::ops::Range<usize>> = Vec::new();
    for group in table.members.chunk_by(|a, b| a.group == b.group) {
        let begin = groups.last().map_or(0, |range| range.end);
        groups.push(begin..begin + group.len());
    }
    // Those that are least alike first: whether the threshold is right is seen there.
    let least =
        |group: &std::ops::Range<usize>| table.members[group.clone()].iter().map(|one| one.similarity).fold(1.0, f32::min);
    groups.sort_by(|a, b| least(a).total_cmp(&least(b)).then(a.start.cmp(&b.start)));
    let groups = groups
        .into_iter()
        .take(GROUPS)
        .map(|group| {
            let kept = group.start;
            let mut shown = group.take(MEMBERS).map(|row| {
                let member = &table.members[row];
                let similarity = (row != kept).then_some(member.similarity);
                glimpse(member.set, member.row, &names.members[row], similarity)
            });
            let first = shown.next();
            (first, shown.collect())
        })
        .filter_map(|(first, rest): (Option<Glimpse>, Vec<Glimpse>)| Some((first?, rest)))
        .collect();
    let place = |name: &str| table.summary.sets.iter().position(|set| set.name == name).unwrap_or(0);
    let told = table.summary.told(&|set| called[place(&set.name)].clone());
    Some(NearSets { stage: results.name(node).to_owned(), told, summary: table.summary, shared, groups })
}

/// The paths of the images of some nodes, each read once.
pub(super) struct Paths<'a> {
    results: &'a Results<'a>,
    known: BTreeMap<usize, Vec<String>>,
}

impl<'a> Paths<'a> {
    pub(super) fn of(results: &'a Results<'a>) -> Self {
        Self { results, known: BTreeMap::new() }
    }

    /// The path of the file that an image came from; what it is called where it has none.
    pub(super) fn name(&mut self, glimpse: &Glimpse) -> String {
        let Sight::Table { node, row } = glimpse.sight else { return glimpse.id.clone() };
        let paths = self.known.entry(node).or_insert_with(|| {
            let images: Option<Stored<Images>> = self.results.get(node);
            images.and_then(|images| names_and_paths(&images).ok()).map(|(_, paths)| paths).unwrap_or_default()
        });
        paths.get(row).filter(|path| !path.is_empty()).unwrap_or(&glimpse.id).clone()
    }
}
