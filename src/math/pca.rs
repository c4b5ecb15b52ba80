//! Principal component analysis (Pearson 1901): the directions in which rows vary most, for looking at features.
//!
//! Subspace iteration with Rayleigh–Ritz steps (Halko, Martinsson and Tropp 2011, "Finding structure with randomness",
//! algorithm 4.4): only products of the table with a few vectors are needed, so wide features cost no matrix of their own. The
//! start is drawn from a fixed seed, sums run over fixed pieces in double precision: the same numbers for any number of threads.

use rayon::prelude::*;

use super::eigen::{dot, eigen, gram, orthonormalize, rotated};
use super::kmeans::column_means;
use kinset_base::seed::Seed;
use kinset_base::stop::{Stop, Stopped};

/// Vectors beyond those asked for; they make the iteration converge fast.
const SPARE: usize = 8;
/// Most iterations; ties between components need not be resolved to be drawn.
const ITERATIONS: usize = 100;
/// Relative change of the variances at which it stops.
const TOLERANCE: f64 = 1e-9;
/// Rows of a parallel piece; fixed, so that no result depends on the number of threads.
const ROWS: usize = 128;

/// Rows seen along their principal components.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// Components there are: as many as asked for, fewer for tables with fewer rows or columns.
    pub count: usize,
    /// `[N, count]`: where each row lies, the mean at 0.
    pub scores: Vec<f64>,
    /// `[count]`: the share of all variance along each, 0 to 1, falling.
    pub share: Vec<f64>,
}

/// The first `count` principal components of a table. The largest coordinate of each direction is positive.
///
/// # Shapes
/// `rows` [N, D].
///
/// # Panics
/// If `dim` or `count` is 0, or `dim` does not divide the length.
pub fn principal(rows: &[f32], dim: usize, count: usize) -> Pca {
    assert!(dim > 0 && count > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D], and a component asked for");
    let n = rows.len() / dim;
    let count = count.min(dim).min(n);
    let table = Table { rows, dim, mean: column_means(rows, dim) };
    let total: f64 = table.per_piece(|row| row.iter().map(|x| x * x).sum::<f64>()).iter().sum();
    if total <= 0.0 {
        return Pca { count, scores: vec![0.0; n * count], share: vec![0.0; count] };
    }
    let width = (count + SPARE).min(dim).min(n);
    let mut rng = Seed::new(0).branch("pca").rng();
    // Columns are stored one after the other: [width, D].
    let mut basis: Vec<f64> = (0..width * dim).map(|_| rng.normal()).collect();
    orthonormalize(&mut basis, dim);
    let mut before = vec![0.0; count];
    for _ in 0..ITERATIONS {
        let scores = table.times(&basis, width);
        let (values, rotation) = eigen(gram(&scores, width), width);
        basis = rotated(&basis, &rotation, width, dim);
        let settled = values[..count].iter().zip(&before).all(|(now, old)| (now - old).abs() <= TOLERANCE * total);
        before = values[..count].to_vec();
        if settled {
            break;
        }
        basis = table.back(&table.times(&basis, width), width);
        orthonormalize(&mut basis, dim);
    }
    for direction in basis.chunks_exact_mut(dim) {
        let largest = direction.iter().copied().fold(0.0_f64, |most, x| if x.abs() > most.abs() { x } else { most });
        if largest < 0.0 {
            for x in direction {
                *x = -*x;
            }
        }
    }
    let scores = table.times(&basis, width).chunks_exact(width).flat_map(|row| row[..count].to_vec()).collect();
    Pca { count, scores, share: before.iter().map(|value| (value / total).clamp(0.0, 1.0)).collect() }
}

/// Steps of the iteration that finds [`longest`] directions: each makes what they hold larger, and nobody needs the last percent.
const STEPS: usize = 3;

/// Directions that hold much of the length of rows, those that hold most first: roughly the principal components of rows whose mean is
/// not taken off. Where rows span fewer directions than asked for, the last ones hold nothing, and may be zero.
///
/// # Shapes
/// `rows` [N, D]; result [count, D], orthonormal, count at most D.
///
/// # Panics
/// If `dim` or `count` is 0, or `dim` does not divide the length.
pub fn longest(rows: &[f32], dim: usize, count: usize) -> Vec<f64> {
    assert!(dim > 0 && count > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D], and a direction asked for");
    let width = count.min(dim);
    let table = Table { rows, dim, mean: vec![0.0; dim] };
    let mut rng = Seed::new(0).branch("longest").rng();
    let mut basis: Vec<f64> = (0..width * dim).map(|_| rng.normal()).collect();
    orthonormalize(&mut basis, dim);
    for _ in 0..STEPS {
        basis = table.back(&table.times(&basis, width), width);
        orthonormalize(&mut basis, dim);
    }
    let (_, rotation) = eigen(gram(&table.times(&basis, width), width), width);
    basis = rotated(&basis, &rotation, width, dim);
    orthonormalize(&mut basis, dim);
    basis
}

/// Tables up to this width have their scatter matrix computed once, in place of two passes over the rows an iteration: 8 MiB of it.
const SCATTERED: usize = 1024;
/// Rows of the scatter matrix that one thread adds up; they stay in its cache.
const BLOCK: usize = 32;
/// Relative change of the variances at which components are good enough to be whitened.
const CLOSE: f64 = 1e-7;
/// Components of less than this share of the variance are rounding.
const LEAST: f64 = 1e-9;

/// The first `count` principal components, fewer where there are fewer rows or columns, each of mean 0 and variance 1; one along which
/// nothing varies is 0. `stop` is looked at in each pass. The same bits for any number of threads.
///
/// # Shapes
/// `rows` [N, D]. Returns `[N, count]` and the count.
///
/// # Errors
/// [`Stopped`].
///
/// # Panics
/// As [`principal`].
pub fn whitened(rows: &[f32], dim: usize, count: usize, stop: &Stop) -> Result<(Vec<f32>, usize), Stopped> {
    assert!(dim > 0 && count > 0 && rows.len().is_multiple_of(dim), "rows must be [N, D], and a component asked for");
    let n = rows.len() / dim;
    let count = count.min(dim).min(n);
    let width = (count + SPARE).min(dim).min(n);
    let table = Table { rows, dim, mean: column_means(rows, dim) };
    let scatter = if dim <= SCATTERED { Some(table.scatter(stop)?) } else { None };
    // XᵀX B.
    let image = |basis: &[f64]| match &scatter {
        Some(scatter) => {
            basis.chunks_exact(dim).flat_map(|vector| scatter.chunks_exact(dim).map(|row| dot(row, vector))).collect()
        }
        None => table.back(&table.times(basis, width), width),
    };
    let mut rng = Seed::new(0).branch("pca").rng();
    let mut basis: Vec<f64> = (0..width * dim).map(|_| rng.normal()).collect();
    orthonormalize(&mut basis, dim);
    let mut before = vec![0.0; width];
    for _ in 0..ITERATIONS {
        stop.check()?;
        let moved: Vec<f64> = image(&basis);
        let mut products: Vec<f64> =
            basis.chunks_exact(dim).flat_map(|a| moved.chunks_exact(dim).map(move |b| dot(a, b))).collect();
        // The same but for rounding; the eigenvectors are of a symmetric matrix.
        for row in 0..width {
            for column in 0..row {
                products[row * width + column] = products[column * width + row];
            }
        }
        let (values, rotation) = eigen(products, width);
        let total: f64 = values.iter().sum();
        let settled = values[..count].iter().zip(&before).all(|(now, old)| (now - old).abs() <= CLOSE * total);
        before = values;
        basis = rotated(if settled { &basis } else { &moved }, &rotation, width, dim);
        if settled {
            break;
        }
        orthonormalize(&mut basis, dim);
    }
    let total: f64 = before.iter().sum();
    let scales: Vec<f64> =
        before[..count].iter().map(|&square| if square > LEAST * total { (n as f64 / square).sqrt() } else { 0.0 }).collect();
    let scores = table.times(&basis, width);
    let scaled = |row: &[f64]| row.iter().zip(&scales).map(|(x, scale)| (x * scale) as f32).collect::<Vec<_>>();
    Ok((scores.chunks_exact(width).flat_map(scaled).collect(), count))
}

/// A table whose mean is taken off on the way.
struct Table<'a> {
    rows: &'a [f32],
    dim: usize,
    mean: Vec<f64>,
}

impl Table<'_> {
    fn centered<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
        row.iter().zip(&self.mean).map(|(&x, mean)| f64::from(x) - mean)
    }

    fn per_piece(&self, of: impl Fn(&[f64]) -> f64 + Sync) -> Vec<f64> {
        let piece = |rows: &[f32]| -> f64 {
            rows.chunks_exact(self.dim).map(|row| of(&self.centered(row).collect::<Vec<f64>>())).sum()
        };
        self.rows.par_chunks(ROWS * self.dim).map(piece).collect()
    }

    /// `[D, D]`: XᵀX of the centered rows. Each entry is summed over the rows in their order.
    fn scatter(&self, stop: &Stop) -> Result<Vec<f64>, Stopped> {
        let dim = self.dim;
        let mut all = vec![0.0; dim * dim];
        all.par_chunks_mut(BLOCK * dim).enumerate().try_for_each(|(block, sums)| {
            let first = block * BLOCK;
            let mut row = Vec::with_capacity(dim);
            for rows in self.rows.chunks(ROWS * dim) {
                stop.check()?;
                for values in rows.chunks_exact(dim) {
                    row.clear();
                    row.extend(self.centered(values));
                    for (place, sums) in sums.chunks_exact_mut(dim).enumerate() {
                        let own = row[first + place];
                        sums[first..].iter_mut().zip(&row[first..]).for_each(|(sum, x)| *sum += own * x);
                    }
                }
            }
            Ok(())
        })?;
        for row in 0..dim {
            for column in 0..row {
                all[row * dim + column] = all[column * dim + row];
            }
        }
        Ok(all)
    }

    /// `[N, width]`: products of all rows with the vectors of a basis [width, D].
    fn times(&self, basis: &[f64], width: usize) -> Vec<f64> {
        let mut out = vec![0.0; self.rows.len() / self.dim * width];
        let pieces = out.par_chunks_mut(ROWS * width).zip(self.rows.par_chunks(ROWS * self.dim));
        pieces.for_each(|(out, rows)| {
            let mut row = Vec::with_capacity(self.dim);
            for (out, values) in out.chunks_exact_mut(width).zip(rows.chunks_exact(self.dim)) {
                row.clear();
                row.extend(self.centered(values));
                for (out, vector) in out.iter_mut().zip(basis.chunks_exact(self.dim)) {
                    *out = dot(&row, vector);
                }
            }
        });
        out
    }

    /// `[width, D]`: all rows added up, weighted by `scores` [N, width].
    fn back(&self, scores: &[f64], width: usize) -> Vec<f64> {
        let pieces: Vec<Vec<f64>> = self
            .rows
            .par_chunks(ROWS * self.dim)
            .zip(scores.par_chunks(ROWS * width))
            .map(|(rows, scores)| {
                let mut sums = vec![0.0; width * self.dim];
                for (row, scores) in rows.chunks_exact(self.dim).zip(scores.chunks_exact(width)) {
                    let row: Vec<f64> = self.centered(row).collect();
                    for (sum, score) in sums.chunks_exact_mut(self.dim).zip(scores) {
                        sum.iter_mut().zip(&row).for_each(|(sum, x)| *sum += score * x);
                    }
                }
                sums
            })
            .collect();
        let mut sums = vec![0.0; width * self.dim];
        for piece in pieces {
            sums.iter_mut().zip(piece).for_each(|(sum, x)| *sum += x);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ellipsoid with axes 5, 2, 1 and next to nothing else, turned in the plane of the first two.
    fn ellipsoid(n: usize) -> Vec<f32> {
        let mut rng = Seed::new(3).rng();
        let (sine, cosine) = 0.6_f64.sin_cos();
        (0..n)
            .flat_map(|_| {
                let (a, b) = (5.0 * rng.normal(), 2.0 * rng.normal());
                let tail = [rng.normal(), 0.01 * rng.normal(), 0.01 * rng.normal()];
                [7.0 + a * cosine - b * sine, -3.0 + a * sine + b * cosine, tail[0], tail[1], tail[2]].map(|x| x as f32)
            })
            .collect()
    }

    #[test]
    fn the_longest_directions_hold_most_of_the_length_and_are_orthonormal() {
        let rows = ellipsoid(2000);
        let basis = longest(&rows, 5, 3);
        for (place, one) in basis.chunks_exact(5).enumerate() {
            for (other, two) in basis.chunks_exact(5).enumerate() {
                let expected = f64::from(u8::from(place == other));
                assert!((dot(one, two) - expected).abs() < 1e-12, "{place} and {other}");
            }
        }
        let held: Vec<f64> = basis
            .chunks_exact(5)
            .map(|way| {
                let along = |row: &[f32]| row.iter().zip(way).map(|(&x, w)| f64::from(x) * w).sum::<f64>().powi(2);
                rows.chunks_exact(5).map(along).sum()
            })
            .collect();
        let all: f64 = rows.iter().map(|&x| f64::from(x).powi(2)).sum();
        assert!(held[0] > held[1] && held[1] > held[2] && held.iter().sum::<f64>() > 0.999 * all, "{held:?} of {all}");
        let few = longest(&rows[..5], 5, 4);
        let lengths: Vec<f64> = few.chunks_exact(5).map(|way| dot(way, way).sqrt()).collect();
        assert!(lengths.iter().all(|length| *length == 0.0 || (length - 1.0).abs() < 1e-12), "{lengths:?}");
    }

    #[test]
    fn the_axes_of_an_ellipsoid_are_found_in_order() {
        let rows = ellipsoid(4000);
        let pca = principal(&rows, 5, 3);
        assert_eq!(pca.count, 3);
        for (share, wanted) in pca.share.iter().zip([25.0 / 30.0, 4.0 / 30.0, 1.0 / 30.0]) {
            assert!((share - wanted).abs() < 0.02, "{:?}", pca.share);
        }
        // Along the first component the rows lie as they were drawn along the long axis.
        let (sine, cosine) = (0.6_f32.sin(), 0.6_f32.cos());
        let along: Vec<f64> = rows.chunks_exact(5).map(|r| f64::from((r[0] - 7.0) * cosine + (r[1] + 3.0) * sine)).collect();
        let first: Vec<f64> = pca.scores.chunks_exact(3).map(|row| row[0]).collect();
        let worst = along.iter().zip(&first).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 0.5, "{worst}");
    }

    #[test]
    fn shares_of_all_components_sum_to_one_and_scores_do_not_correlate() {
        let rows = ellipsoid(500);
        let pca = principal(&rows, 5, 5);
        assert!((pca.share.iter().sum::<f64>() - 1.0).abs() < 1e-9, "{:?}", pca.share);
        let products = gram(&pca.scores, 5);
        for i in 0..5 {
            for j in 0..i {
                let scale = (products[i * 5 + i] * products[j * 5 + j]).sqrt();
                assert!(products[i * 5 + j].abs() < 1e-6 * scale, "{i} and {j}");
            }
        }
    }

    #[test]
    fn whitened_components_are_the_principal_ones_at_variance_one() {
        let rows = ellipsoid(500);
        let (found, count) = whitened(&rows, 5, 3, &Stop::default()).unwrap();
        let pca = principal(&rows, 5, 3);
        assert_eq!(count, 3);
        for column in 0..3 {
            let of = |values: Vec<f64>| values.into_iter().skip(column).step_by(3).collect::<Vec<f64>>();
            let (white, plain) = (of(found.iter().map(|&x| f64::from(x)).collect()), of(pca.scores.clone()));
            assert!((dot(&white, &white) / 500.0 - 1.0).abs() < 1e-4);
            let cosine = dot(&white, &plain) / (dot(&white, &white) * dot(&plain, &plain)).sqrt();
            assert!(cosine.abs() > 0.9999, "{column}: {cosine}");
        }
    }

    #[test]
    fn a_wide_table_is_whitened_by_passes_and_a_direction_in_which_nothing_varies_stays_zero() {
        let dim = SCATTERED + 1;
        let mut rng = Seed::new(4).rng();
        let mut rows = vec![1.0_f32; 40 * dim];
        for row in rows.chunks_exact_mut(dim) {
            (row[3], row[dim - 1]) = (9.0 * rng.normal() as f32, rng.normal() as f32);
        }
        let (found, count) = whitened(&rows, dim, 3, &Stop::default()).unwrap();
        for (column, wanted) in [(0, 1.0), (1, 1.0), (2, 0.0)] {
            let mean = found.iter().skip(column).step_by(count).map(|x| x * x).sum::<f32>() / 40.0;
            assert!((mean - wanted).abs() < 1e-3, "{column}: {mean}");
        }
        assert_eq!(whitened(&rows, dim, 3, &Stop::after(2)), Err(Stopped));
    }

    #[test]
    fn tables_with_nothing_in_them_have_components_of_zero() {
        let pca = principal(&[2.0; 12], 3, 2);
        assert_eq!((pca.scores, pca.share), (vec![0.0; 8], vec![0.0; 2]));
        assert_eq!(principal(&[1.0, 2.0, 5.0], 3, 2).count, 1, "one row has no second direction");
    }

    #[test]
    fn one_thread_and_five_give_the_same_bits() {
        let rows = ellipsoid(700);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| principal(&rows, 5, 2))
        };
        assert_eq!(with(1), with(5));
    }
}
