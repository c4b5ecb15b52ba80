//! Candidates for pairs of near rows: a scan over a few numbers per row that misses none.
//!
//! Let B be orthonormal directions and x, y of unit length. What B holds of them and what it leaves out are at right angles, so by Cauchy
//! and Schwarz
//!
//! ```text
//! ⟨x, y⟩ ≤ ⟨Bx, By⟩ + t(x) · t(y),   t(x)² = 1 − |Bx|²
//! ```
//!
//! The right side is the product of the rows (Bx, t(x)) and (By, t(y)), which are of unit length as well and much shorter: a *sketch*. Where
//! a cosine near 1 is asked for, few pairs pass that do not have it, whatever the directions; with those that hold most of the length, hardly
//! any. Sketches are multiplied in integers (`int16_scan.rs` beside this file), with margins for all that is rounded on the way. What
//! passes is a candidate: who wants to know scores it in double precision, so neither directions nor instruction set move an answer.

use std::ops::Range;

use super::gemm;
use super::int16_scan::{Int16Rows, ONE, Scan, WIDE};
use kinset_math::cosine::dot;

/// Half a step of `f32` near 1: the unit of its rounding.
const ROUNDING: f64 = 1.0 / (1 << 24) as f64;
/// Sketches are a little longer than 1, at most by this share.
const LONGER: f64 = 1.002;
/// Rows and columns of a scan begin at multiples of this.
pub const STEP: usize = super::int16_scan::GROUP;

/// Orthonormal directions, few, that sketches are made along.
#[derive(Clone, Debug)]
pub struct Directions {
    /// [count, D].
    vectors: Vec<f32>,
    count: usize,
    dim: usize,
    /// How far they are from orthonormal, as stored: the length of B Bᵀ − 1.
    skew: f64,
}

impl Directions {
    /// Takes vectors of unit length at right angles; zeros among them are left out.
    ///
    /// # Shapes
    /// `vectors` [count, D].
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the length, or they are far from orthonormal.
    pub fn new(vectors: &[f64], dim: usize) -> Self {
        assert!(dim > 0 && vectors.len().is_multiple_of(dim), "directions must be [count, D] with D > 0");
        let there = vectors.chunks_exact(dim).filter(|vector| vector.iter().any(|x| *x != 0.0));
        let vectors: Vec<f32> = there.flatten().map(|&x| x as f32).collect();
        let count = vectors.len() / dim;
        let row = |at: usize| &vectors[at * dim..(at + 1) * dim];
        let mut skew = 0.0;
        for one in 0..count {
            for other in 0..count {
                skew += (dot(row(one), row(other)) - f64::from(u8::from(one == other))).powi(2);
            }
        }
        let skew = skew.sqrt();
        assert!(skew < 1e-3, "directions must be orthonormal, and are off by {skew}");
        Self { vectors, count, dim, skew }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The most that a number of a sketch misses by: the error of a sum of D products in single precision, in any order (Higham 2002,
    /// section 3.1).
    fn error(&self) -> f64 {
        let all = self.dim as f64 + 2.0;
        (self.count as f64).sqrt() * all * ROUNDING / (1.0 - all * ROUNDING) * 1.01
    }
}

/// Sketches of some rows, ready to be multiplied.
#[derive(Debug)]
pub struct Sketches {
    rows: Int16Rows,
    len: usize,
    /// What a cosine may be above the product of two sketches.
    above: f64,
}

impl Sketches {
    /// Makes them of rows of about unit length, given 1 / length of each; without directions, of all their numbers.
    ///
    /// # Shapes
    /// `rows` [N, D], `inverse` `[N]`.
    ///
    /// # Panics
    /// If the lengths do not fit each other, or D is not that of the directions.
    pub fn new(rows: &[f32], dim: usize, inverse: &[f64], directions: Option<&Directions>) -> Self {
        assert_eq!(rows.len(), dim * inverse.len(), "rows must be [N, D], with a length for each");
        let len = inverse.len();
        let Some(directions) = directions.filter(|directions| directions.count > 0) else {
            return Self { rows: Int16Rows::new(rows, dim, inverse), len, above: 0.0 };
        };
        assert_eq!(directions.dim, dim, "directions are of another dimension than rows");
        let (count, error, skew) = (directions.count, directions.error(), directions.skew);
        let along = gemm::products(rows, &directions.vectors, dim);
        let mut sketches = Vec::with_capacity(len * (count + 1));
        for (along, inverse) in along.chunks_exact(count).zip(inverse) {
            let along = along.iter().map(|&x| (f64::from(x) * inverse) as f32);
            sketches.extend(along);
            let made = &sketches[sketches.len() - count..];
            // No shorter than what is left out can be, however the rest was rounded.
            let held = (dot(made, made).sqrt() - error).max(0.0);
            let left_out = (1.0 - held * held).max(0.0) + skew;
            sketches.push((left_out.sqrt() * (1.0 + 1e-6)).min(1.0) as f32);
        }
        let rows = Int16Rows::new(&sketches, count + 1, &vec![1.0; len]);
        Self { rows, len, above: 2.0 * error + error * error + skew }
    }

    /// How many rows they are of.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Passes on every pair of some rows of these and some of others whose cosine may be `least` or more: all that have it, and some that do
    /// not. Both count from the begin of their table.
    ///
    /// # Panics
    /// If a range does not begin at a multiple of [`STEP`], or ends beyond the table.
    pub fn candidates(
        &self,
        rows: Range<usize>,
        others: &Self,
        columns: Range<usize>,
        least: f64,
        room: &mut Room,
        mut take: impl FnMut(usize, usize),
    ) {
        assert!(rows.end <= self.len && columns.end <= others.len, "rows and columns must exist");
        let margin = f64::from(self.rows.margin(&others.rows)) * LONGER;
        let threshold = ((least - self.above.max(others.above)) * ONE - margin).floor() as i32;
        let scan = &mut room.0;
        scan.thresholds.clear();
        scan.thresholds.resize(rows.len(), threshold);
        for from in columns.clone().step_by(WIDE) {
            self.rows.cross(rows.start, &others.rows, from, scan);
            for hit in &scan.hits {
                let column = from + hit.column as usize;
                if column < columns.end {
                    take(rows.start + hit.row as usize, column);
                }
            }
        }
    }
}

/// What a scan needs room for; one for each thread.
#[derive(Debug, Default)]
pub struct Room(Scan);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use kinset_base::seed::Seed;
    use kinset_math::cosine::{cosine, norm, normalize_rows};
    use kinset_math::pca::longest;

    fn sketches(rows: &[f32], dim: usize, directions: Option<&Directions>) -> Sketches {
        let inverse: Vec<f64> = rows.chunks(dim).map(|row| 1.0 / norm(row)).collect();
        Sketches::new(rows, dim, &inverse, directions)
    }

    fn found(a: &Sketches, b: &Sketches, least: f64) -> BTreeSet<(usize, usize)> {
        let mut found = BTreeSet::new();
        a.candidates(0..a.len(), b, 0..b.len(), least, &mut Room::default(), |row, column| {
            assert!(found.insert((row, column)), "a pair comes once");
        });
        found
    }

    fn near(a: &[f32], b: &[f32], dim: usize, least: f64) -> BTreeSet<(usize, usize)> {
        let columns = || b.chunks(dim).enumerate();
        let pairs =
            a.chunks(dim).enumerate().flat_map(|(at, row)| columns().map(move |(other, column)| (at, row, other, column)));
        pairs.filter(|(_, row, _, column)| cosine(row, column) >= least).map(|(at, _, other, _)| (at, other)).collect()
    }

    /// Unit rows around a few centers, `spread` apart.
    fn clumps(count: usize, dim: usize, spread: f64, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        let centers: Vec<f64> = (0..7 * dim).map(|_| rng.normal()).collect();
        let mut rows: Vec<f32> = (0..count)
            .flat_map(|row| {
                let center = &centers[row % 7 * dim..][..dim];
                center.iter().map(|x| (x + spread * rng.normal()) as f32).collect::<Vec<_>>()
            })
            .collect();
        assert!(normalize_rows(&mut rows, dim).is_empty());
        rows
    }

    #[test]
    fn no_near_pair_is_missed_and_few_others_pass() {
        let dim = 96;
        let (a, b) = (clumps(333, dim, 0.15, 1), clumps(200, dim, 0.15, 1));
        let directions = |count| Directions::new(&longest(&a, dim, count), dim);
        for count in [0, 1, 15, 31] {
            let ways = (count > 0).then(|| directions(count));
            let (one, two) = (sketches(&a, dim, ways.as_ref()), sketches(&b, dim, ways.as_ref()));
            for least in [0.95, 0.98, 0.999] {
                let (found, near) = (found(&one, &two, least), near(&a, &b, dim, least));
                assert!(found.is_superset(&near), "{count} directions, {least}");
                // A seventh of all pairs are of one center, which seven directions tell from the others; of one nothing can be asked.
                assert!(count == 1 || found.len() < 10_000, "{count} directions, {least}: {}", found.len());
            }
        }
        let (all, ways) = (found(&sketches(&a, dim, None), &sketches(&b, dim, None), 0.98), directions(31));
        let sketched = found(&sketches(&a, dim, Some(&ways)), &sketches(&b, dim, Some(&ways)), 0.98);
        assert!(sketched.is_superset(&all), "the sketch is an upper bound of the whole");
    }

    #[test]
    fn ranges_are_kept_to() {
        let rows = clumps(100, 8, 0.01, 3);
        let all = sketches(&rows, 8, None);
        let mut found = BTreeSet::new();
        all.candidates(16..40, &all, 48..99, 0.0, &mut Room::default(), |row, column| {
            found.insert((row, column));
        });
        assert!(found.iter().all(|(row, column)| (16..40).contains(row) && (48..99).contains(column)));
        assert!(found.contains(&(16, 51)) && found.contains(&(39, 53)), "{found:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn rows_on_a_grid_full_of_copies_and_thresholds_that_are_met_exactly(
            grid in prop::collection::vec(-2_i8..=2, 5..400), count in 1_usize..5, least in prop::sample::select(vec![0.5, 0.8, 1.0]),
        ) {
            let mut rows: Vec<f32> = grid[..grid.len() / 5 * 5].iter().map(|&x| f32::from(x)).collect();
            rows.chunks_mut(5).filter(|row| row.iter().all(|x| *x == 0.0)).for_each(|row| row[0] = 1.0);
            prop_assert!(normalize_rows(&mut rows, 5).is_empty());
            let ways = Directions::new(&longest(&rows, 5, count), 5);
            let all = sketches(&rows, 5, Some(&ways));
            prop_assert!(found(&all, &all, least).is_superset(&near(&rows, &rows, 5, least)));
        }
    }
}
