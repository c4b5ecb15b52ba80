//! Examples of a selection: some images of a target, each beside the pool's images that were taken for it.

use std::path::PathBuf;

use super::inputs::{Results, wired};
use super::near::Paths;
use super::page::{Glimpse, Sight, Taken};
use kinset_artifact::features::{FeatureReader, Features};
use kinset_artifact::selection::SelectionTable;
use kinset_base::rows;
use kinset_base::seed::Seed;
use kinset_pipeline::spec::Node;

/// Target images that are shown.
const TARGETS: usize = 8;
/// Images beside each.
const BESIDE: usize = 8;
/// Images of the selection, at random.
const LOT: usize = 24;

/// Where the picture of a name lies, if it is anywhere.
pub type Finder<'a> = Box<dyn Fn(&str) -> Option<PathBuf> + 'a>;

/// Pictures that are no artifact of the pipeline: of features that were brought along.
#[derive(Default)]
pub struct Elsewhere<'a> {
    pub target: Option<Finder<'a>>,
    pub pool: Option<Finder<'a>>,
}

impl Elsewhere<'_> {
    pub fn is_empty(&self) -> bool {
        self.target.is_none() && self.pool.is_none()
    }
}

/// Some target images with what was taken for them, and some of all that was taken, from the tables of a node. Nothing if the pool's
/// shards cannot be read.
pub(super) fn taken(results: &Results<'_>, node: usize, table: &SelectionTable, elsewhere: &Elsewhere<'_>) -> Option<Taken> {
    let at = &results.spec.nodes[node];
    let target = wired(at, "target").and_then(|features| images_of(&results.spec.nodes[features]));
    let target = |row: usize| Glimpse {
        id: table.targets[row].clone(),
        sight: sight(target, row, &table.targets[row], elsewhere.target.as_ref()),
        similarity: None,
    };
    let shards = Shards::of(results, at)?;
    let pool = |row: u32, id: &str| {
        let (images, row) = shards.place(row as usize);
        Glimpse { id: id.to_owned(), sight: sight(images, row, id, elsewhere.pool.as_ref()), similarity: None }
    };

    let lots = Seed::new(0).branch("report").branch("selection");
    // At random, and in the target's order. What nothing was taken for is shown, too.
    let mut shown: Vec<usize> = lots.branch("target").rng().permutation(table.targets.len());
    shown.retain(|&row| table.repeats.kept[row]);
    shown.truncate(TARGETS);
    shown.sort_unstable();
    // Only the pick by neighbors takes images for somebody.
    let pairs = (table.pick == "nearest").then(|| {
        let of = |row: usize| {
            let edges = table.edges.iter().filter(|judged| judged.edge.target as usize == row && judged.reason.counts());
            let beside = edges
                .take(BESIDE)
                .map(|judged| Glimpse { similarity: Some(judged.edge.cosine), ..pool(judged.edge.pool, &judged.pool_id) });
            (target(row), beside.collect())
        };
        shown.into_iter().map(of).collect()
    });
    let mut lot = lots.branch("chosen").rng().permutation(table.chosen.len());
    lot.truncate(LOT);
    lot.sort_unstable();
    let lot = lot.into_iter().map(|at| pool(table.chosen[at].best.pool, &table.chosen[at].id)).collect();
    let (mut missed, mut regions) = (Vec::new(), Vec::new());
    if let Some(found) = &table.report.missed {
        let mut paths = Paths::of(results);
        let mut named = |glimpse: Glimpse| Glimpse { id: paths.name(&glimpse), ..glimpse };
        for far in found.targets.iter().take(TARGETS) {
            let nearest = Glimpse { similarity: Some(1.0 - far.in_pool), ..pool(far.pool, &far.pool_id) };
            missed.push((named(target(far.row as usize)), vec![named(nearest)]));
        }
        regions = found.regions.iter().map(|region| named(pool(region.pool, &region.typical))).collect();
    }
    Some(Taken { pairs: pairs.unwrap_or_default(), lot, missed, regions })
}

/// The node whose images features were made of.
pub(super) fn images_of(features: &Node) -> Option<usize> {
    wired(features, "images")
}

/// Where a row's picture is seen: among the images of a stage, or else where a finder knows it.
pub(super) fn sight(images: Option<usize>, row: usize, id: &str, finder: Option<&Finder<'_>>) -> Sight {
    match (images, finder) {
        (Some(node), _) => Sight::Table { node, row },
        (None, Some(find)) => find(id).map_or(Sight::Nowhere, Sight::File),
        (None, None) => Sight::Nowhere,
    }
}

/// The pool, shard by shard: where each begins, and the node of its images.
pub(super) struct Shards(Vec<(usize, Option<usize>)>);

impl Shards {
    pub(super) fn of(results: &Results<'_>, selection: &Node) -> Option<Self> {
        let shards = selection.ports.get("pool")?;
        let mut start = 0;
        let mut all = Vec::new();
        for (place, shard) in shards.iter().enumerate() {
            all.push((start, images_of(&results.spec.nodes[shard.node])));
            // Nothing begins after the last, which in most pools is the only one: its names, maybe millions, stay unread.
            if place + 1 < shards.len() {
                start += FeatureReader::open(&results.get::<Features>(shard.node)?).ok()?.len();
            }
        }
        Some(Self(all))
    }

    /// The node of a row's images, and the row there.
    pub(super) fn place(&self, row: usize) -> (Option<usize>, usize) {
        let shard = rows::table_of(&self.0, |(start, _)| *start, row);
        self.0.get(shard).map_or((None, row), |(start, images)| (*images, row - start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_row_is_found_in_its_shard() {
        let shards = Shards(vec![(0, Some(4)), (10, None), (10, Some(6)), (15, Some(7))]);
        let places: Vec<_> = [0, 9, 10, 14, 15, 99].into_iter().map(|row| shards.place(row)).collect();
        assert_eq!(places, [(Some(4), 0), (Some(4), 9), (Some(6), 0), (Some(6), 4), (Some(7), 0), (Some(7), 84)]);
    }

    #[test]
    fn a_picture_is_looked_for_in_its_table_and_only_then_by_its_name() {
        let finder: Finder<'_> = Box::new(|id| (id == "a").then(|| PathBuf::from("a.png")));
        assert_eq!(sight(Some(3), 5, "a", Some(&finder)), Sight::Table { node: 3, row: 5 });
        assert_eq!(sight(None, 5, "a", Some(&finder)), Sight::File("a.png".into()));
        assert_eq!(sight(None, 5, "b", Some(&finder)), Sight::Nowhere);
        assert_eq!(sight(None, 5, "a", None), Sight::Nowhere);
    }
}
