//! Baselines that a selection must beat: selections that ignore the target.

use crate::kmeans::Products;
use kinset_base::seed::Seed;
use kinset_base::stop::{Stop, Stopped};

/// `count` of `n` rows, each as likely, ascending; all if there are fewer.
pub fn random(n: usize, count: usize, seed: Seed) -> Vec<u32> {
    let mut rows: Vec<u32> = Vec::new();
    // Floyd's algorithm: as many draws as rows are taken, however large the pool.
    let count = count.min(n);
    let mut rng = seed.rng();
    let mut taken = std::collections::BTreeSet::new();
    for top in n - count..n {
        let row = rng.below(top + 1);
        if !taken.insert(row) {
            taken.insert(top);
        }
    }
    rows.extend(taken.into_iter().map(|row| row as u32));
    rows
}

/// `count` rows far from each other: the first at random, then always the one whose nearest taken row is farthest (Gonzalez 1985,
/// 2-approximate k-center). In the order they are taken; all if there are fewer.
///
/// # Shapes
/// `rows` [N, D], of unit length.
///
/// # Errors
/// If it is asked to stop.
pub fn diverse(
    rows: &[f32],
    dim: usize,
    count: usize,
    seed: Seed,
    products: &impl Products,
    stop: &Stop,
) -> Result<Vec<u32>, Stopped> {
    let n = rows.len() / dim.max(1);
    let count = count.min(n);
    let mut taken: Vec<u32> = Vec::with_capacity(count);
    if count == 0 {
        return Ok(taken);
    }
    let mut next = seed.rng().below(n);
    let mut nearest = vec![f32::NEG_INFINITY; n];
    let mut tile = vec![0.0; n];
    loop {
        stop.check()?;
        taken.push(next as u32);
        if taken.len() == count {
            return Ok(taken);
        }
        products.products(&rows[next * dim..(next + 1) * dim], rows, dim, &mut tile);
        nearest.iter_mut().zip(&tile).for_each(|(best, product)| *best = best.max(*product));
        // Above any product, so that no row is taken twice, copies or not.
        nearest[next] = f32::INFINITY;
        next = (0..n).fold(0, |least, row| if nearest[row] < nearest[least] { row } else { least });
    }
}

/// For one target: up to `k` images out of some candidates whose cosine is below `below`, in the order in which they are drawn.
/// The opposite of a search, for images that the target does *not* look like.
pub fn dissimilar(
    candidates: usize,
    k: usize,
    below: f64,
    seed: Seed,
    mut cosine: impl FnMut(usize) -> f64,
) -> Vec<(usize, f64)> {
    // The fork looks at a random tenth.
    let drawn = random_order(candidates, candidates.div_ceil(10), seed);
    drawn.into_iter().map(|row| (row, cosine(row))).filter(|(_, cosine)| *cosine < below).take(k).collect()
}

fn random_order(n: usize, count: usize, seed: Seed) -> Vec<usize> {
    let mut rows: Vec<usize> = random(n, count, seed).into_iter().map(|row| row as usize).collect();
    seed.branch("order").rng().shuffle(&mut rows);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmeans::Plain;

    #[test]
    fn random_rows_are_distinct_and_each_as_likely() {
        let mut hits = [0_u32; 10];
        for seed in 0..4000 {
            let rows = random(10, 3, Seed::new(seed));
            assert!(rows.len() == 3 && rows.windows(2).all(|pair| pair[0] < pair[1]));
            for row in rows {
                hits[row as usize] += 1;
            }
        }
        assert!(hits.iter().all(|&count| (1100..1300).contains(&count)), "{hits:?}");
        assert_eq!(random(3, 9, Seed::new(1)), [0, 1, 2]);
        assert_eq!(random(0, 2, Seed::new(1)), [0_u32; 0]);
    }

    #[test]
    fn diverse_rows_are_the_corners_before_the_middle() {
        // Four directions, and a crowd near the first.
        let mut rows: Vec<f32> = vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0, -1.0];
        for step in 1..20 {
            let angle = f64::from(step) * 0.01;
            rows.extend([angle.cos() as f32, angle.sin() as f32]);
        }
        for seed in 0..10 {
            let taken = diverse(&rows, 2, 4, Seed::new(seed), &Plain, &Stop::default()).unwrap();
            let near = |row: usize| {
                taken.iter().any(|&t| rows[t as usize * 2] * rows[row * 2] + rows[t as usize * 2 + 1] * rows[row * 2 + 1] > 0.9)
            };
            assert!((0..4).all(near), "{taken:?}");
        }
        let all = diverse(&[1.0, 0.0, 1.0, 0.0], 2, 5, Seed::new(1), &Plain, &Stop::default()).unwrap();
        assert_eq!(all.len(), 2, "copies are taken, once each");
    }

    #[test]
    fn dissimilar_images_are_below_the_limit() {
        let found = dissimilar(1000, 5, 0.3, Seed::new(2), |row| if row % 2 == 0 { 0.9 } else { 0.1 });
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|(row, cosine)| row % 2 == 1 && *cosine < 0.3));
        assert_eq!(dissimilar(1000, 5, 0.3, Seed::new(2), |_| 0.3), []);
    }
}
