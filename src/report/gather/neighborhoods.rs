//! Examples of neighborhoods: some images with their neighbors.

use super::assignments::{Looked, take};
use super::inputs::{Results, Subject};
use super::page::{Neighborhood, Neighborhoods, Part};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_base::seed::Seed;
use kinset_math::knn::purity;

/// Images that are shown.
const QUERIES: usize = 12;
/// Neighbors of each that are shown.
const SHOWN: usize = 8;

/// Some images, spread over the clusters where there are some, each with its nearest.
pub(super) fn neighborhoods(results: &Results<'_>, subject: &Subject, looked: &Looked) -> Part<Neighborhoods> {
    let Some(node) = subject.neighbors else { return Part::absent("No stage has found neighbors of these images yet.") };
    let mut faults = Vec::new();
    let table = results.get::<Neighbors>(node).and_then(|stored| take(NeighborTable::load(&stored), &mut faults));
    let Some(table) = table else {
        return Part::absent(format!("`{}` cannot be read: {}", results.name(node), faults.join("; ")));
    };
    let same = looked.assigned.as_ref().is_none_or(|assigned| assigned.table.ids == table.ids);
    if !same {
        return Part::absent(format!("`{}` was computed on other images than the assignments.", results.name(node)));
    }
    let shares = looked.classes_of(&table.ids).map(|classes| {
        let of = |k| purity(&table.index, table.k, k, &classes);
        (of(table.k), of(1))
    });
    let mean =
        |place: usize| (0..table.len()).map(|row| f64::from(table.similarities(row)[place])).sum::<f64>() / table.len() as f64;
    let shown = queries(&table, looked)
        .into_iter()
        .map(|row| {
            let mut query = looked.shot(row, &table.ids[row]);
            // Here an image is judged by the one it is shown for.
            query.right = None;
            let neighbors = table.neighbors(row).iter().zip(table.similarities(row)).take(SHOWN);
            let neighbors = neighbors.map(|(&neighbor, &similarity)| {
                let mut shot = looked.shot(neighbor as usize, &table.ids[neighbor as usize]);
                shot.similarity = Some(similarity);
                shot.right = query.class.as_ref().zip(shot.class.as_ref()).map(|(own, other)| own == other);
                shot
            });
            Neighborhood { neighbors: neighbors.collect(), query }
        })
        .collect();
    Part::Shown(Neighborhoods {
        stage: results.name(node).to_owned(),
        k: table.k,
        metric: table.metric.clone(),
        exact: table.exact,
        recall: table.recall.map(|recall| (recall.share, recall.images)),
        purity: shares.filter(|(all, first)| all.is_finite() && first.is_finite()),
        similarity: (mean(0), mean(table.k - 1)),
        shown,
    })
}

/// At random, but one from each cluster before there are two from any.
fn queries(table: &NeighborTable, looked: &Looked) -> Vec<usize> {
    let order = Seed::new(0).branch("report").branch("neighbors").rng().permutation(table.len());
    let cluster = |row: usize| looked.assigned.as_ref().map_or(-1, |assigned| assigned.table.cluster[row]);
    let (mut chosen, mut seen): (Vec<usize>, Vec<i32>) = (Vec::new(), Vec::new());
    for &row in &order {
        if chosen.len() == QUERIES {
            break;
        }
        if !seen.contains(&cluster(row)) {
            seen.push(cluster(row));
            chosen.push(row);
        }
    }
    for row in order {
        if chosen.len() < QUERIES && !chosen.contains(&row) {
            chosen.push(row);
        }
    }
    chosen.sort_by_key(|&row| (cluster(row), row));
    chosen
}
