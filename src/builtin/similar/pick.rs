//! Selections without a search: at random, far from each other, or unlike the target. Each image taken is given its edge
//! to a target image, so that filters, budgets and provenance are the same as for a search.

use super::config::Config;
use super::shards::Shards;
use kinset_artifact::features::FeatureTable;
use kinset_base::seed::Seed;
use kinset_kernel::gemm::Gemm;
use kinset_kernel::neighbors;
use kinset_math::curate::blind;
use kinset_math::curate::choose::Edge;
use kinset_math::curate::join::Rows;
use kinset_stage::{StageError, Stop};

/// Pool images that a picker looks at, if there are more.
const SAMPLE: usize = 1 << 14;

/// Images of the pool, each as likely, ascending.
pub fn random(pool: &Shards, count: usize, seed: Seed) -> Vec<u32> {
    let places = blind::random(pool.distinct_len(), count, seed);
    places.into_iter().map(|place| pool.distinct_row(place)).collect()
}

/// As many images far from each other, as [`farthest`] finds them; ascending.
pub fn diverse(pool: &Shards, count: usize, seed: Seed, stop: &Stop) -> Result<Vec<u32>, StageError> {
    let mut rows = farthest(pool, count, seed, stop)?;
    rows.sort_unstable();
    Ok(rows)
}

/// As many images far from each other, out of a sample of the pool at least four times as large, in the order they are taken.
pub fn farthest(pool: &Shards, count: usize, seed: Seed, stop: &Stop) -> Result<Vec<u32>, StageError> {
    let sample = random(pool, SAMPLE.max(4 * count), seed.branch("sample"));
    let values = pool.rows(&sample)?;
    let taken = blind::diverse(&values, pool.dim(), count, seed.branch("first"), &Gemm, stop)?;
    Ok(taken.into_iter().map(|place| sample[place as usize]).collect())
}

/// For every kept target image some pool images that it does not look like, in the order they were drawn.
pub fn dissimilar(
    config: &Config,
    target: &FeatureTable,
    kept: &[u32],
    pool: &Shards,
    seed: Seed,
    stop: &Stop,
) -> Result<Vec<Edge>, StageError> {
    let sample = random(pool, SAMPLE, seed.branch("sample"));
    let values = pool.rows(&sample)?;
    let (rows, targets) = (Rows::new(&values, pool.dim()), Rows::new(&target.values, target.dim));
    let mut edges = Vec::new();
    for &row in kept {
        stop.check()?;
        let cosine = |place: usize| targets.cosine(row as usize, &rows, place);
        let found = blind::dissimilar(sample.len(), config.k, config.dissimilar_below, seed.at(u64::from(row)), cosine);
        edges.extend((1..).zip(found).map(|(rank, (place, cosine))| Edge { target: row, pool: sample[place], rank, cosine }));
    }
    Ok(edges)
}

/// The edge of each pool image to its nearest kept target image; by target, ranked by similarity.
pub fn edges(target: &FeatureTable, kept: &[u32], pool: &Shards, rows: &[u32], stop: &Stop) -> Result<Vec<Edge>, StageError> {
    let queries: Vec<f32> = kept.iter().flat_map(|&row| target.row(row as usize).iter().copied()).collect();
    let targets = Rows::new(&queries, target.dim);
    let mut edges: Vec<Edge> = Vec::with_capacity(rows.len());
    pool.stream(rows, |first, values| {
        let images = Rows::new(values, target.dim);
        let found = neighbors::nearest(values, &queries, target.dim, 1, stop).map_err(StageError::other)?;
        for (place, &near) in found.index.iter().enumerate() {
            let cosine = targets.cosine(near as usize, &images, place);
            edges.push(Edge { target: kept[near as usize], pool: rows[first + place], rank: 0, cosine });
        }
        Ok(())
    })?;
    edges.sort_by(|a, b| a.target.cmp(&b.target).then(b.cosine.total_cmp(&a.cosine)).then(a.pool.cmp(&b.pool)));
    let mut last = (u32::MAX, 0);
    for edge in &mut edges {
        last = if last.0 == edge.target { (edge.target, last.1 + 1) } else { (edge.target, 1) };
        edge.rank = last.1;
    }
    Ok(edges)
}
