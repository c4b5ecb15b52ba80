//! The similarity join: all pairs of rows that are at least so alike, not only those among some nearest.
//!
//! Products in single precision find the pairs that may be; cosines in double precision decide. So the answer depends neither on
//! tiles nor on threads.

use rayon::prelude::*;

use crate::cosine::{FLOOR, dot, norm};
use crate::kmeans::Products;
use kinset_base::stop::{Stop, Stopped};

/// Rows that are compared at a time; fixed, so that no result depends on the number of threads.
const ROWS: usize = 128;
/// Columns of a parallel piece.
const COLUMNS: usize = 2048;

/// Rows with a direction, and what is known of their lengths.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    values: &'a [f32],
    dim: usize,
    /// 1 / length of each row.
    inverse: Vec<f64>,
}

impl<'a> Rows<'a> {
    /// Takes rows of about unit length.
    ///
    /// # Shapes
    /// `values` [N, D].
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the length, or a row has no direction.
    pub fn new(values: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
        let inverse = values
            .par_chunks(dim)
            .map(|row| {
                let length = norm(row);
                assert!(length.is_finite() && length >= FLOOR, "a row without direction has no cosine");
                1.0 / length
            })
            .collect();
        Self { values, dim, inverse }
    }

    pub fn len(&self) -> usize {
        self.inverse.len()
    }

    pub fn is_empty(&self) -> bool {
        self.inverse.is_empty()
    }

    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// The cosine of one of these rows and one of others, −1 to 1, in double precision; the same bits from both ends.
    pub fn cosine(&self, row: usize, others: &Rows, other: usize) -> f64 {
        let product = dot(self.row(row), others.row(other)) * (self.inverse[row] * others.inverse[other]);
        // `+ 0.0` makes one zero of the two.
        product.clamp(-1.0, 1.0) + 0.0
    }
}

/// A cosine as a distance, 0 to 2.
pub fn distance(cosine: f64) -> f64 {
    1.0 - cosine.clamp(-1.0, 1.0)
}

/// Passes on every pair of a row of `a` and a row of `b` whose cosine is `least` or more, by row, then by column. Of a table with
/// itself (`itself`), only pairs whose column is after their row.
///
/// # Errors
/// If it is asked to stop.
///
/// # Panics
/// If the dimensions differ.
pub fn pairs(
    a: &Rows,
    b: &Rows,
    itself: bool,
    least: f64,
    products: &impl Products,
    stop: &Stop,
    mut take: impl FnMut(usize, usize, f64),
) -> Result<(), Stopped> {
    assert_eq!(a.dim, b.dim, "rows of different dimension have no cosine");
    let dim = a.dim;
    // What single precision may miss over so many terms, and as much again for lengths that are only about 1.
    let floor = least - (dim as f64 * 2.4e-7 + 1e-5) - 2e-3;
    for first in (0..a.len()).step_by(ROWS) {
        stop.check()?;
        let last = (first + ROWS).min(a.len());
        let begin = if itself { first } else { 0 };
        let pieces: Vec<usize> = (begin..b.len()).step_by(COLUMNS).collect();
        let mut found: Vec<(u32, u32, f64)> = pieces
            .into_par_iter()
            .map_init(Vec::new, |tile: &mut Vec<f32>, from| {
                let upto = (from + COLUMNS).min(b.len());
                let width = upto - from;
                tile.clear();
                tile.resize((last - first) * width, 0.0);
                products.products(&a.values[first * dim..last * dim], &b.values[from * dim..upto * dim], dim, tile);
                let mut hits = Vec::new();
                for (place, product) in tile.iter().enumerate() {
                    if f64::from(*product) < floor {
                        continue;
                    }
                    let (row, column) = (first + place / width, from + place % width);
                    if itself && column <= row {
                        continue;
                    }
                    let cosine = a.cosine(row, b, column);
                    if cosine >= least {
                        hits.push((row as u32, column as u32, cosine));
                    }
                }
                hits
            })
            .flatten_iter()
            .collect();
        found.sort_unstable_by_key(|&(row, column, _)| (row, column));
        for (row, column, cosine) in found {
            take(row as usize, column as usize, cosine);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cosine::normalize_rows;
    use crate::kmeans::Plain;

    #[test]
    fn distance_runs_from_nought_to_two() {
        for (cosine, wanted) in [(1.0 + 1e-9, 0.0), (0.0, 1.0), (-1.0, 2.0)] {
            assert!((distance(cosine) - wanted).abs() < 1e-15, "{cosine}");
        }
    }

    proptest! {
        #[test]
        fn the_join_is_what_comparing_all_pairs_gives(
            grid in prop::collection::vec(-2_i8..=2, 3..600), least in -1.0_f64..1.0, itself: bool,
        ) {
            let mut values: Vec<f32> = grid[..grid.len() / 3 * 3].iter().map(|&x| f32::from(x)).collect();
            values.chunks_mut(3).filter(|row| row.iter().all(|x| *x == 0.0)).for_each(|row| row[0] = 1.0);
            prop_assert!(normalize_rows(&mut values, 3).is_empty());
            let rows = Rows::new(&values, 3);
            let mut found = Vec::new();
            let never = Stop::default();
            pairs(&rows, &rows, itself, least, &Plain, &never, |a, b, cosine| found.push((a, b, cosine.to_bits()))).unwrap();
            let mut wanted = Vec::new();
            for a in 0..rows.len() {
                for b in (0..rows.len()).filter(|b| !itself || *b > a) {
                    let cosine = rows.cosine(a, &rows, b);
                    if cosine >= least {
                        wanted.push((a, b, cosine.to_bits()));
                    }
                }
            }
            prop_assert_eq!(found, wanted);
        }
    }
}
