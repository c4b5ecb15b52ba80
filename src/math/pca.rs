//! Principal component analysis (Pearson 1901): the directions in which rows vary most, for looking at features.
//!
//! Subspace iteration with Rayleigh–Ritz steps (Halko, Martinsson and Tropp 2011, "Finding structure with randomness",
//! algorithm 4.4): only products of the table with a few vectors are needed, so wide features cost no matrix of their own. The
//! start is drawn from a fixed seed, sums run over fixed pieces in double precision: the same numbers for any number of threads.

use rayon::prelude::*;

use kinset_base::seed::Seed;

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
    let mut mean = vec![0.0_f64; dim];
    for row in rows.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    for sum in &mut mean {
        *sum /= n.max(1) as f64;
    }
    let table = Table { rows, dim, mean };
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

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    for (x, y) in a.chunks(8).zip(b.chunks(8)) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    lanes.iter().sum()
}

/// Gram–Schmidt, twice: once loses what it should keep when vectors are nearly alike. A vector that vanishes becomes an axis.
fn orthonormalize(vectors: &mut [f64], dim: usize) {
    for place in 0..vectors.len() / dim {
        let (done, rest) = vectors.split_at_mut(place * dim);
        let vector = &mut rest[..dim];
        let scale = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in done.chunks_exact(dim) {
                let shared = dot(vector, other);
                vector.iter_mut().zip(other).for_each(|(x, y)| *x -= shared * y);
            }
        }
        let length = dot(vector, vector).sqrt();
        if length > 1e-12 * scale.max(f64::MIN_POSITIVE) {
            for x in vector {
                *x /= length;
            }
        } else {
            vector.fill(0.0);
        }
    }
}

/// `[width, width]`: products of the columns of a table [N, width].
fn gram(table: &[f64], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width * width];
    for row in table.chunks_exact(width) {
        for (sums, x) in sums.chunks_exact_mut(width).zip(row) {
            sums.iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
        }
    }
    sums
}

/// Eigenvalues, falling, and eigenvectors (rows of the second result) of a small symmetric matrix: Jacobi's rotations (Golub and
/// Van Loan 2013, section 8.5).
fn eigen(mut matrix: Vec<f64>, size: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; size * size];
    for i in 0..size {
        vectors[i * size + i] = 1.0;
    }
    let norm: f64 = matrix.iter().map(|x| x * x).sum();
    for _ in 0..60 {
        let off: f64 = (0..size).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * size + j].powi(2)).sum();
        if off <= 1e-28 * norm {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                let beside = matrix[p * size + q];
                if beside.abs() <= f64::MIN_POSITIVE {
                    continue;
                }
                let theta = (matrix[q * size + q] - matrix[p * size + p]) / (2.0 * beside);
                let sign = if theta < 0.0 { -1.0 } else { 1.0 };
                let tangent = sign / (theta.abs() + (theta * theta + 1.0).sqrt());
                let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
                let sine = tangent * cosine;
                for k in 0..size {
                    let (a, b) = (matrix[k * size + p], matrix[k * size + q]);
                    matrix[k * size + p] = cosine * a - sine * b;
                    matrix[k * size + q] = sine * a + cosine * b;
                }
                for k in 0..size {
                    let (a, b) = (matrix[p * size + k], matrix[q * size + k]);
                    matrix[p * size + k] = cosine * a - sine * b;
                    matrix[q * size + k] = sine * a + cosine * b;
                }
                for k in 0..size {
                    let (a, b) = (vectors[p * size + k], vectors[q * size + k]);
                    vectors[p * size + k] = cosine * a - sine * b;
                    vectors[q * size + k] = sine * a + cosine * b;
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[b * size + b].total_cmp(&matrix[a * size + a]).then(a.cmp(&b)));
    let values = order.iter().map(|&i| matrix[i * size + i]).collect();
    let vectors = order.iter().flat_map(|&i| vectors[i * size..(i + 1) * size].to_vec()).collect();
    (values, vectors)
}

/// The basis turned by a rotation whose rows are the new directions.
fn rotated(basis: &[f64], rotation: &[f64], width: usize, dim: usize) -> Vec<f64> {
    let mut turned = vec![0.0; width * dim];
    for (turned, weights) in turned.chunks_exact_mut(dim).zip(rotation.chunks_exact(width)) {
        for (vector, weight) in basis.chunks_exact(dim).zip(weights) {
            turned.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
        }
    }
    turned
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
