//! Measures of how evenly a pool was divided, and how evenly images were taken from it, beside as many random ones. None of it needs a label.

use crate::similar::shards::Shards;
use kinset_artifact::levels::{ClusterRow, LevelRow, LevelTable};
use kinset_base::seed::Seed;
use kinset_kernel::neighbors;
use kinset_math::cosine;
use kinset_math::curate::blind;
use kinset_math::curate::hierarchy::Level;
use kinset_math::entropy::entropy_of_counts;
use kinset_math::stats;
use kinset_stage::{StageError, Stop};

/// Images among which nearest ones are looked for.
const SAMPLE: usize = 1 << 14;

/// Levels that every pool is divided by, if it has so many.
const ALWAYS: usize = 2;

/// A level above them is left out if its clusters count for less than this share of their number.
const EVEN: f64 = 0.25;

/// How many levels, from the lowest, divide a pool evenly. Where most images are in few clusters of a level and the others hold next to
/// nothing, equal parts of a budget go to what is odd; the levels below say more.
pub fn even(levels: &[Level], dim: usize) -> usize {
    let mut images: Vec<u64> = vec![1; levels[0].labels.len()];
    let is_even = |level: &Level| {
        let k = level.clusters(dim);
        let mut counts = vec![0; k];
        for (&cluster, images) in level.labels.iter().zip(&images) {
            counts[cluster as usize] += images;
        }
        images = counts;
        entropy_of_counts(&images).exp() >= EVEN * k as f64
    };
    levels.iter().map(is_even).enumerate().take_while(|&(below, even)| even || below < ALWAYS).count()
}

/// The tables of some levels, with what was taken and as many random images; both ascend.
pub fn table(
    levels: &[Level],
    pool: &Shards,
    (selected, random): (&[u32], &[u32]),
    seed: Seed,
    stop: &Stop,
) -> Result<LevelTable, StageError> {
    let mut rows = Vec::with_capacity(levels.len());
    let mut clusters = Vec::new();
    // The cluster of each image, in this level.
    let mut at: Vec<u32> = Vec::new();
    for (number, level) in (1..).zip(levels) {
        stop.check()?;
        at = if number == 1 { level.labels.clone() } else { at.iter().map(|&below| level.labels[below as usize]).collect() };
        let k = level.clusters(pool.dim());
        let count = |images: &mut dyn Iterator<Item = u32>| {
            let mut counts = vec![0_u64; k];
            images.for_each(|image| counts[at[image as usize] as usize] += 1);
            counts
        };
        let images = count(&mut (0..pool.len() as u32));
        let taken = count(&mut selected.iter().copied());
        let drawn = count(&mut random.iter().copied());
        let parents = levels.get(number as usize).map(|above| &above.labels);
        clusters.extend((0..k).map(|cluster| ClusterRow {
            level: number,
            cluster: cluster as u32,
            parent: parents.map_or(-1, |parents| parents[cluster] as i32),
            images: images[cluster] as u32,
            selected: taken[cluster] as u32,
        }));
        let effective = |counts: &[u64]| entropy_of_counts(counts).exp();
        rows.push(LevelRow {
            level: number,
            clusters: k as u32,
            smallest: images.iter().copied().min().unwrap_or(0) as u32,
            largest: images.iter().copied().max().unwrap_or(0) as u32,
            effective: effective(&images),
            effective_selected: effective(&taken),
            effective_random: effective(&drawn),
            nearest: apart(level.centers.clone(), pool.dim(), stop)?.unwrap_or(0.0),
            within: within(level),
        });
    }
    let among = |rows: &[u32], name: &str| {
        let places = blind::random(rows.len(), SAMPLE, seed.branch(name));
        let rows: Vec<u32> = places.into_iter().map(|place| rows[place as usize]).collect();
        apart(pool.rows(&rows)?, pool.dim(), stop)
    };
    Ok(LevelTable {
        levels: rows,
        clusters,
        nearest_selected: among(selected, "selected")?,
        nearest_random: among(random, "random")?,
    })
}

/// Mean Euclidean distance of what is in a cluster to its center.
fn within(level: &Level) -> f64 {
    let sum: f64 = level.squares.iter().map(|&square| f64::from(square).sqrt()).sum();
    sum / level.squares.len().max(1) as f64
}

/// Mean distance, 1 − cosine, of a row to the nearest other one; nothing if there are fewer than two. Rows without direction are left out.
fn apart(mut rows: Vec<f32>, dim: usize, stop: &Stop) -> Result<Option<f64>, StageError> {
    let zero = cosine::normalize_rows(&mut rows, dim);
    for &row in zero.iter().rev() {
        rows.drain(row * dim..(row + 1) * dim);
    }
    if rows.len() / dim < 2 {
        return Ok(None);
    }
    let found = neighbors::all_pairs(&rows, dim, 1, stop, &mut |_, _| ()).map_err(StageError::other)?;
    let distances: Vec<f64> = found.similarity.iter().map(|&cosine| (1.0 - f64::from(cosine)).clamp(0.0, 2.0)).collect();
    Ok(Some(stats::mean(&distances)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_above_the_second_are_used_while_they_divide_images_evenly() {
        let level = |labels: Vec<u32>, k: usize| Level { centers: vec![0.0; k], squares: vec![0.0; labels.len()], labels };
        let same = || level((0..10).collect(), 10);
        // Images in the ten clusters of the first level, which the others only pass on.
        let uneven = (0..100).map(|image: u32| image.saturating_sub(90)).collect();
        let levels = [level(uneven, 10), same(), same(), same()];
        assert_eq!([1, 2, 3, 4].map(|levels_in_all| even(&levels[..levels_in_all], 1)), [1, 2, 2, 2]);
        let levels = [
            level((0..100).map(|image| image % 10).collect(), 10),
            same(),
            level(vec![0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 2),
            same(),
        ];
        assert_eq!(even(&levels[..3], 1), 3);
        let odd = level((0..10_u32).map(|below| below.saturating_sub(8)).collect(), 8);
        assert_eq!(even(&[levels[0].clone(), same(), odd], 1), 2);
    }
}
