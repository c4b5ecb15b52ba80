//! Nearest rows by Euclidean distance, of rows as they are, not brought to unit length.
//!
//! [`nearest_other`] compares all pairs; it is for batches. Whole sets have a fast search for the largest *cosine* (in `kernel`),
//! and [`lift`] makes that search find the nearest row: with two more coordinates the order by cosine is the order by distance.
//! The lift rounds to single precision, so [`nearest_of`] decides among the few best in double precision.

use rayon::prelude::*;

/// Rows per parallel piece; fixed, so that no result depends on the number of threads.
const ROWS: usize = 64;

/// Squared Euclidean distance in double precision; the sum runs in eight fixed lanes, as [`dot`](super::cosine::dot) does.
pub fn distance2(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32, y: f32| {
        let difference = f64::from(x) - f64::from(y);
        difference * difference
    };
    let mut lanes = [0.0_f64; 8];
    let (mut a, mut b) = (a.chunks_exact(8), b.chunks_exact(8));
    for (x, y) in a.by_ref().zip(b.by_ref()) {
        for lane in 0..8 {
            lanes[lane] += square(x[lane], y[lane]);
        }
    }
    for (lane, (&x, &y)) in lanes.iter_mut().zip(a.remainder().iter().zip(b.remainder())) {
        *lane += square(x, y);
    }
    ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
}

/// The nearest other row of each row of a table [N, D], the lower one of equals. A row that is alone is its own.
///
/// # Panics
/// If `dim` is 0 or does not divide the length.
pub fn nearest_other(rows: &[f32], dim: usize) -> Vec<u32> {
    let n = count(rows, dim);
    let best = |row: usize| nearest(rows, dim, row, 0..n as u32);
    (0..n).into_par_iter().with_min_len(ROWS.min(n.div_ceil(16).max(1))).map(best).collect()
}

/// The nearest of its candidates for each row of a table [N, D], the lower one of equals; the row itself does not count.
///
/// # Shapes
/// `candidates` [N, width], rows of the table.
///
/// # Panics
/// If shapes disagree.
pub fn nearest_of(rows: &[f32], dim: usize, candidates: &[u32], width: usize) -> Vec<u32> {
    let n = count(rows, dim);
    assert_eq!(candidates.len(), n * width, "candidates must be [N, width]");
    (0..n)
        .into_par_iter()
        .with_min_len(ROWS)
        .map(|row| nearest(rows, dim, row, candidates[row * width..(row + 1) * width].iter().copied()))
        .collect()
}

fn nearest(rows: &[f32], dim: usize, row: usize, candidates: impl Iterator<Item = u32>) -> u32 {
    let at = |r: usize| &rows[r * dim..(r + 1) * dim];
    let mut best: Option<(f64, u32)> = None;
    for other in candidates.filter(|&other| other as usize != row) {
        let distance = distance2(at(row), at(other as usize));
        if best.is_none_or(|(least, holder)| distance < least || distance <= least && other < holder) {
            best = Some((distance, other));
        }
    }
    best.map_or(row as u32, |(_, other)| other)
}

fn count(rows: &[f32], dim: usize) -> usize {
    assert!(dim > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
    rows.len() / dim
}

/// Rows on two spheres, made by [`lift`].
#[derive(Clone, Debug, PartialEq)]
pub struct Lifted {
    /// D + 2.
    pub dim: usize,
    /// [N, D + 2], unit length: who asks.
    pub queries: Vec<f32>,
    /// [N, D + 2], unit length: who is found.
    pub pool: Vec<f32>,
}

/// Lifts the rows of a table [N, D] so that for each query the cosines with the pool fall as the Euclidean distances rise.
///
/// With x and y centered on the mean and scaled so that none is longer than 1, the query (x, 1, 0) and the pool row
/// (2y, −|y|², r) have the product 2x·y − |y|² = |x|² − |x − y|², and r brings all pool rows to the length √5. The order is exact
/// up to single precision: two distances can change places if their squares differ by some 1e-6 of the largest squared length.
///
/// # Panics
/// If `dim` is 0 or does not divide the length.
pub fn lift(rows: &[f32], dim: usize) -> Lifted {
    let n = count(rows, dim);
    let mut mean = vec![0.0_f64; dim];
    for row in rows.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    for sum in &mut mean {
        *sum /= n.max(1) as f64;
    }
    let squared = |row: &[f32]| -> f64 { row.iter().zip(&mean).map(|(&x, m)| (f64::from(x) - m).powi(2)).sum() };
    let longest = rows.chunks_exact(dim).map(squared).fold(0.0, f64::max).sqrt();
    let scale = if longest > 0.0 { 1.0 / longest } else { 1.0 };
    let mut lifted = Lifted { dim: dim + 2, queries: Vec::new(), pool: Vec::new() };
    lifted.queries.resize(n * lifted.dim, 0.0);
    lifted.pool.resize(n * lifted.dim, 0.0);
    lifted
        .queries
        .par_chunks_mut(lifted.dim)
        .zip(lifted.pool.par_chunks_mut(lifted.dim))
        .zip(rows.par_chunks(dim))
        .with_min_len(ROWS)
        .for_each(|((query, pool), row)| {
            let length2 = (squared(row) * scale * scale).min(1.0);
            let (of_query, of_pool) = ((length2 + 1.0).sqrt(), 5.0_f64.sqrt());
            for ((q, p), (&x, m)) in query.iter_mut().zip(pool.iter_mut()).zip(row.iter().zip(&mean)) {
                let x = (f64::from(x) - m) * scale;
                *q = (x / of_query) as f32;
                *p = (2.0 * x / of_pool) as f32;
            }
            query[dim] = (1.0 / of_query) as f32;
            pool[dim] = (-length2 / of_pool) as f32;
            pool[dim + 1] = ((5.0 - 4.0 * length2 - length2 * length2).max(0.0).sqrt() / of_pool) as f32;
        });
    lifted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cosine::{dot, norm};
    use proptest::prelude::*;

    #[test]
    fn the_nearest_point_on_a_line_is_the_nearest_number() {
        assert_eq!(nearest_other(&[0.0, 10.0, 11.0, 30.0, 10.5], 1), [1, 4, 4, 2, 1]);
        assert_eq!(nearest_other(&[7.0], 1), [0], "alone");
        assert_eq!(nearest_of(&[0.0, 10.0, 11.0, 30.0], 1, &[0, 3, 3, 2, 1, 0, 3, 0], 2), [3, 2, 1, 0]);
    }

    #[test]
    fn long_rows_are_as_far_as_they_are_long() {
        // By cosine the first two would be the pair.
        assert_eq!(nearest_other(&[1.0, 0.0, 9.0, 0.0, 0.0, 1.5], 2), [2, 0, 0]);
    }

    proptest! {
        #[test]
        fn the_lift_turns_distances_into_cosines(v in prop::collection::vec(-3_f32..3.0, 8..80)) {
            let rows = &v[..v.len() / 4 * 4];
            let (n, lifted) = (rows.len() / 4, lift(rows, 4));
            let row = |table: &[f32], r: usize, dim: usize| table[r * dim..(r + 1) * dim].to_vec();
            let longest = {
                let mean: Vec<f64> = (0..4).map(|d| (0..n).map(|r| f64::from(rows[r * 4 + d])).sum::<f64>() / n as f64).collect();
                (0..n).map(|r| (0..4).map(|d| (f64::from(rows[r * 4 + d]) - mean[d]).powi(2)).sum::<f64>()).fold(0.0, f64::max)
            };
            for a in 0..n {
                let query = row(&lifted.queries, a, 6);
                prop_assert!((norm(&query) - 1.0).abs() < 1e-6);
                for b in 0..n {
                    let pool = row(&lifted.pool, b, 6);
                    prop_assert!((norm(&pool) - 1.0).abs() < 1e-6);
                    // product · √5 · |(x, 1)| = |x|² − |x − y|², in units of the longest.
                    let length2 = 1.0 / f64::from(query[4]).powi(2) - 1.0;
                    let found = length2 - dot(&query, &pool) * 5.0_f64.sqrt() * (length2 + 1.0).sqrt();
                    let wanted = distance2(&row(rows, a, 4), &row(rows, b, 4)) / longest.max(1e-12);
                    prop_assert!((found - wanted).abs() < 2e-6, "{found} is not {wanted}");
                }
            }
        }

        #[test]
        fn all_candidates_are_as_good_as_all_rows(v in prop::collection::vec(-2_i8..=2, 6..60)) {
            let rows: Vec<f32> = v[..v.len() / 3 * 3].iter().map(|&x| f32::from(x)).collect();
            let n = rows.len() / 3;
            let all: Vec<u32> = (0..n).flat_map(|_| (0..n as u32).rev()).collect();
            prop_assert_eq!(nearest_of(&rows, 3, &all, n), nearest_other(&rows, 3));
        }
    }
}
