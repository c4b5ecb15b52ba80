//! Gaps of a selection: target images that nothing near enough was taken for, parts of the pool of which nothing was taken, and what a
//! smaller or larger budget would bring.

use std::collections::BTreeMap;

use super::pick;
use super::report::{Compared, Measure, to_distance};
use kinset_artifact::selection::{Budget, Farthest, Missed, Region};
use kinset_kernel::gemm::Gemm;
use kinset_kernel::neighbors::{self, Search};
use kinset_math::cosine;
use kinset_math::curate::choose::{Edge, Edges, Reason};
use kinset_math::curate::{alike, blind};
use kinset_math::kmeans::{KMeans, assign};
use kinset_math::stats;
use kinset_stage::StageError;

/// Target images that are listed.
const LISTED: usize = 24;
/// Pool images that regions are made of, if there are more.
const SAMPLE: usize = 10_000;
/// Images of the sample in a region, if they were of one size; and the most regions.
const EACH: usize = 50;
const REGIONS: usize = 24;
/// Rows of each set whose distributions are compared for a budget.
const COMPARED: usize = 1000;
/// Budgets that are tried, as shares of what was taken.
const SHARES: [(usize, usize); 7] = [(1, 8), (1, 4), (1, 2), (1, 1), (2, 1), (4, 1), (8, 1)];

/// Why an image may not be taken, whatever the budget.
const FORBIDDEN: [Reason; 4] = [Reason::Excluded, Reason::MinDist, Reason::TargetCopy, Reason::HeldOut];

/// A selection, with what it was chosen from.
pub struct Selected<'a> {
    pub measure: &'a Measure<'a>,
    pub compared: &'a Compared,
    /// As they were judged.
    pub edges: &'a Edges,
    /// The same before the budget was spent.
    pub unspent: &'a Edges,
    /// What was taken, ascending.
    pub rows: &'a [u32],
    /// What the search found, by target, then by rank.
    pub found: &'a [Edge],
    /// Names of the target's images.
    pub targets: &'a [String],
}

/// For each target row the edge to the nearest pool image that might have been taken, with what became of it; if none might, to the nearest.
/// `found` and `judged` are by target, then by rank.
fn best(found: &[Edge], judged: &Edges, targets: usize) -> Vec<Option<(Edge, Option<Reason>)>> {
    let reasons: BTreeMap<(u32, u32), Reason> =
        judged.edges.iter().zip(&judged.reasons).map(|(edge, reason)| ((edge.target, edge.pool), *reason)).collect();
    let mut best: Vec<Option<(Edge, Option<Reason>)>> = vec![None; targets];
    for edge in found {
        let reason = reasons.get(&(edge.target, edge.pool)).copied();
        let place = &mut best[edge.target as usize];
        let out = |reason: &Option<Reason>| reason.is_some_and(|reason| FORBIDDEN.contains(&reason));
        if place.as_ref().is_none_or(|(_, known)| out(known) && !out(&reason)) {
            *place = Some((*edge, reason));
        }
    }
    best
}

/// What is missed; nothing where the target has no two different images to take a measure from. `spend` takes at most so many images.
///
/// # Errors
/// If the pool cannot be read, or it is asked to stop.
pub fn missed(selected: &Selected<'_>, spend: &dyn Fn(&mut Edges, usize)) -> Result<Option<Missed>, StageError> {
    let apart: Vec<f64> = selected.compared.among.iter().copied().filter(|distance| *distance > 0.0).collect();
    if apart.is_empty() {
        return Ok(None);
    }
    let near = stats::median(&apart);
    let best = best(selected.found, selected.edges, selected.targets.len());
    let in_pool = |row: u32| best[row as usize].map_or(2.0, |(edge, _)| edge.distance());
    let kept = selected.measure.kept.iter().zip(&selected.compared.nearest);
    let mut far: Vec<(f64, u32)> = kept.map(|(row, distance)| (*distance, *row)).filter(|(d, _)| *d > near).collect();
    far.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let uncovered = far.len();
    let allowed =
        |row: u32| best[row as usize].is_some_and(|(_, reason)| reason.is_none_or(|reason| !FORBIDDEN.contains(&reason)));
    let coverable = far.iter().filter(|(_, row)| in_pool(*row) <= near && allowed(*row)).count();
    let targets = far.iter().take(LISTED).map(|&(distance, row)| {
        let best = best[row as usize];
        let taken = |edge: &Edge| selected.rows.binary_search(&edge.pool).is_ok();
        Farthest {
            id: selected.targets[row as usize].clone(),
            row,
            distance,
            in_pool: in_pool(row),
            pool_id: best.map(|(edge, _)| selected.measure.pool.id(edge.pool).into_owned()).unwrap_or_default(),
            pool: best.map_or(0, |(edge, _)| edge.pool),
            reason: match best {
                None => "nothing near",
                Some((edge, _)) if taken(&edge) => Reason::Ok.word(),
                Some((_, reason)) => reason.map_or("not picked", Reason::word),
            }
            .to_owned(),
        }
    });
    let targets = targets.collect();
    let (regions, budgets) = (regions(selected)?, budgets(selected, near, spend)?);
    Ok(Some(Missed { near, uncovered, in_pool: coverable, targets, regions, budgets }))
}

/// Parts of the pool, those nearest to the target first.
fn regions(selected: &Selected<'_>) -> Result<Vec<Region>, StageError> {
    let Measure { pool, dim, queries, seed, stop, .. } = selected.measure;
    let seed = seed.branch("regions");
    let sample = pick::random(pool, SAMPLE, seed.branch("sample"));
    let values = pool.rows(&sample)?;
    let clusters = (sample.len() / EACH).clamp(1, REGIONS);
    let fit = KMeans { restarts: 1, ..KMeans::new(clusters) }.fit(&values, *dim, &Gemm, seed.branch("clusters"), stop)?;
    let part = assign(&values, &fit.centers, *dim, &Gemm, stop)?;
    let found = neighbors::nearest(&values, queries, *dim, 1, stop).map_err(StageError::other)?;
    let count = fit.centers.len() / dim;
    let (mut sizes, mut distances, mut typical) =
        (vec![0_usize; count], vec![0.0; count], vec![(f64::NEG_INFINITY, 0_u32); count]);
    for (place, (&part, &nearest)) in part.iter().zip(&found.similarity).enumerate() {
        let part = part as usize;
        sizes[part] += 1;
        distances[part] += to_distance(nearest);
        let center = &fit.centers[part * dim..(part + 1) * dim];
        let alike = cosine::cosine(&values[place * dim..(place + 1) * dim], center);
        if alike > typical[part].0 {
            typical[part] = (alike, sample[place]);
        }
    }
    let mut taken = vec![0_usize; count];
    pool.stream(selected.rows, |_, values| {
        for part in assign(values, &fit.centers, *dim, &Gemm, stop)? {
            taken[part as usize] += 1;
        }
        Ok(())
    })?;
    let there = (0..count).filter(|&part| sizes[part] > 0);
    let mut regions: Vec<Region> = there
        .map(|part| Region {
            typical: pool.id(typical[part].1).into_owned(),
            pool: typical[part].1,
            share: sizes[part] as f64 / sample.len() as f64,
            selected: taken[part],
            distance: distances[part] / sizes[part] as f64,
        })
        .collect();
    regions.sort_by(|a, b| a.distance.total_cmp(&b.distance).then(a.pool.cmp(&b.pool)));
    Ok(regions)
}

/// What less and more than was taken would bring, by the same rules.
fn budgets(selected: &Selected<'_>, near: f64, spend: &dyn Fn(&mut Edges, usize)) -> Result<Vec<Budget>, StageError> {
    let Measure { pool, dim, sample, width, seed, stop, .. } = selected.measure;
    let seed = seed.branch("budgets");
    let most = selected.unspent.picks().len();
    let mut sizes: Vec<usize> = SHARES.iter().map(|(over, under)| (selected.rows.len() * over / under).min(most)).collect();
    sizes.retain(|size| *size > 0);
    sizes.dedup();
    let few = blind::random(sample.len() / dim, COMPARED, seed.branch("target"));
    let target: Vec<f32> = few.iter().flat_map(|&row| &sample[row as usize * dim..][..*dim]).copied().collect();
    let mmd2 = |rows: &[u32], size: usize| {
        let drawn = blind::random(rows.len(), COMPARED, seed.branch("drawn").at(size as u64));
        let drawn: Vec<u32> = drawn.into_iter().map(|place| rows[place as usize]).collect();
        Ok::<_, StageError>(alike::mmd2(&target, &pool.rows(&drawn)?, *dim, *width, &Gemm))
    };
    let mut budgets = Vec::new();
    for size in sizes {
        stop.check()?;
        let rows = if size == selected.rows.len() {
            selected.rows.to_vec()
        } else {
            let mut edges = selected.unspent.clone();
            spend(&mut edges, size);
            let mut rows: Vec<u32> = edges.picks().iter().map(|pick| pick.best.pool).collect();
            rows.sort_unstable();
            rows
        };
        let random = pick::random(pool, size, seed.branch("random").at(size as u64));
        let (own, other) = (nearest(selected.measure, &rows)?, nearest(selected.measure, &random)?);
        let share = |distances: &[f64]| distances.iter().filter(|d| **d <= near).count() as f64 / distances.len().max(1) as f64;
        budgets.push(Budget {
            images: size,
            coverage: share(&own),
            random_coverage: share(&other),
            distance: stats::mean(&own),
            mmd2: mmd2(&rows, size)?,
            random_mmd2: mmd2(&random, size)?,
        });
    }
    Ok(budgets)
}

/// For each kept target image the distance to its nearest of some pool rows, of which there is one at least.
fn nearest(measure: &Measure<'_>, rows: &[u32]) -> Result<Vec<f64>, StageError> {
    let mut search = Search::new(&measure.queries, measure.dim, 1, &measure.stop).map_err(StageError::other)?;
    measure.pool.stream(rows, |first, values| search.feed(values, first).map_err(StageError::other))?;
    Ok(search.finish().map_err(StageError::other)?.similarity.into_iter().map(to_distance).collect())
}
