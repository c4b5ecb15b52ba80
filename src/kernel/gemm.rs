//! Matrix products through the `gemm` crate: of matrices inside slices, and of tables of rows (`A · Bᵀ`).
//!
//! `gemm` itself runs on one thread here; work is cut into pieces of fixed size for rayon instead. So the bits depend on the
//! shapes and the machine, never on the number of threads.
#![expect(unsafe_code, reason = "`gemm` takes pointers; the bounds are checked here")]

use rayon::prelude::*;

use super::buffers::Place;
use kinset_math::kmeans::Products;

/// Rows of A per parallel piece; fixed, so that no result depends on the number of threads.
const ROWS: usize = 256;

/// A matrix inside a slice: element (i, j) lies at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    /// Distance of two rows.
    pub(super) row: usize,
    /// Distance of two columns.
    pub(super) column: usize,
}

/// Rows one after the other, `width` apart.
pub(super) fn rows(width: usize) -> Strides {
    Strides { row: width, column: 1 }
}

/// The transpose of [`rows`].
pub(super) fn columns(width: usize) -> Strides {
    Strides { row: 1, column: width }
}

impl Strides {
    /// Do all elements of a matrix [m, n] lie inside a slice of `len` numbers?
    pub(super) fn fits(self, m: usize, n: usize, len: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.row + (n - 1) * self.column < len
    }
}

/// `out [m, n] = left [m, k] · right [k, n]`, or `+=` if `add`.
///
/// # Panics
/// If a matrix does not lie inside its slice.
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
pub(super) fn multiply(
    sizes @ [m, n, _]: [usize; 3],
    out: &mut [f32],
    at: Strides,
    add: bool,
    left: &[f32],
    left_at: Strides,
    right: &[f32],
    right_at: Strides,
) {
    assert!(at.fits(m, n, out.len()), "matrix out of bounds");
    // SAFETY: all elements of the result lie inside `out`, as just checked, which is exclusive, and hold numbers.
    unsafe { into(sizes, out.as_mut_ptr(), at, add, left, left_at, right, right_at) };
}

/// The same for a result, rows `pitch` apart, that nobody wrote yet; of `out` that much is written.
pub(super) fn multiply_new(
    sizes @ [m, n, _]: [usize; 3],
    out: &mut [Place],
    pitch: usize,
    left: &[f32],
    left_at: Strides,
    right: &[f32],
    right_at: Strides,
) {
    assert!(rows(pitch).fits(m, n, out.len()), "matrix out of bounds");
    // SAFETY: all elements of the result lie inside `out`, as just checked, which is exclusive; they are written only.
    unsafe { into(sizes, out.as_mut_ptr().cast(), rows(pitch), false, left, left_at, right, right_at) };
}

/// The same for a result that fills `out` row by row.
pub(super) fn multiply_whole<'a>(
    sizes @ [m, n, _]: [usize; 3],
    out: &'a mut [Place],
    left: &[f32],
    left_at: Strides,
    right: &[f32],
    right_at: Strides,
) -> &'a mut [f32] {
    assert_eq!(out.len(), m * n, "the result must fill its room");
    multiply_new(sizes, out, n, left, left_at, right, right_at);
    // SAFETY: all of it was just written.
    unsafe { out.assume_init_mut() }
}

/// # Safety
/// All elements of a matrix [m, n] at `out` may be written; if `add`, they hold numbers.
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
unsafe fn into(
    [m, n, k]: [usize; 3],
    out: *mut f32,
    at: Strides,
    add: bool,
    left: &[f32],
    left_at: Strides,
    right: &[f32],
    right_at: Strides,
) {
    assert!(left_at.fits(m, k, left.len()) && right_at.fits(k, n, right.len()), "matrix out of bounds");
    // SAFETY: all elements of the left and the right lie inside their slices, as just checked; of the result as the caller
    // promises. What is not added to is not read.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
            at.column as isize,
            at.row as isize,
            add,
            left.as_ptr(),
            left_at.column as isize,
            left_at.row as isize,
            right.as_ptr(),
            right_at.column as isize,
            right_at.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Writes `a · bᵀ` to `out` on the calling thread.
///
/// # Shapes
/// `a` [A, D], `b` [B, D], `out` [A, B], all row-major.
///
/// # Panics
/// If a length does not fit its shape.
pub fn product(a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
    assert!(dim > 0 && a.len().is_multiple_of(dim) && b.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
    let (m, n) = (a.len() / dim, b.len() / dim);
    assert_eq!(out.len(), m * n, "the products of {m} and {n} rows must be [A, B]");
    if !out.is_empty() {
        multiply([m, n, dim], out, rows(n), false, a, rows(dim), b, columns(dim));
    }
}

/// The same on all threads.
///
/// # Shapes
/// `a` [A, D], `b` [B, D], result [A, B], all row-major.
///
/// # Panics
/// If a length does not fit its shape.
pub fn products(a: &[f32], b: &[f32], dim: usize) -> Vec<f32> {
    assert!(dim > 0 && a.len().is_multiple_of(dim) && b.len().is_multiple_of(dim), "rows must be [N, D] with D > 0");
    let width = b.len() / dim;
    let mut out = vec![0.0; a.len() / dim * width];
    if width > 0 {
        out.par_chunks_mut(ROWS * width).zip(a.par_chunks(ROWS * dim)).for_each(|(out, a)| product(a, b, dim, out));
    }
    out
}

/// The products of this crate for those who only know that they need some, k-means among them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gemm;

impl Products for Gemm {
    fn products(&self, a: &[f32], b: &[f32], dim: usize, out: &mut [f32]) {
        product(a, b, dim, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;
    use kinset_base::stop::Stop;
    use kinset_math::cosine::dot;
    use kinset_math::kmeans::{KMeans, Plain};

    fn random(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        (0..rows * dim).map(|_| rng.normal() as f32).collect()
    }

    #[test]
    fn products_equal_their_double_precision_values_in_all_shapes() {
        for (rows, columns, dim) in [(1, 1, 1), (1, 9, 3), (7, 1, 128), (300, 17, 33), (5, 600, 1), (64, 64, 1500), (520, 3, 2)]
        {
            let (a, b) = (random(rows, dim, 1), random(columns, dim, 2));
            let found = products(&a, &b, dim);
            assert_eq!(found.len(), rows * columns);
            for (i, x) in a.chunks(dim).enumerate() {
                for (j, y) in b.chunks(dim).enumerate() {
                    let bound = 1e-7 * dim as f64 * (dot(x, x) * dot(y, y)).sqrt();
                    assert!(
                        (f64::from(found[i * columns + j]) - dot(x, y)).abs() <= bound,
                        "{rows}×{columns}×{dim} at {i}, {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_the_output_held_before_does_not_matter() {
        let (a, b) = (random(20, 5, 3), random(30, 5, 4));
        let mut out = vec![f32::NAN; 600];
        product(&a, &b, 5, &mut out);
        assert_eq!(out, products(&a, &b, 5));
        assert!(products(&[], &b, 5).is_empty() && products(&a, &[], 5).is_empty());
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        let (a, b) = (random(1000, 70, 5), random(333, 70, 6));
        let run =
            |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| products(&a, &b, 70));
        let bits = |v: Vec<f32>| v.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(run(1)), bits(run(3)));
    }

    #[test]
    fn k_means_finds_the_same_clusters_with_fast_and_plain_products() {
        let mut rows = random(400, 6, 7);
        rows.chunks_mut(6).enumerate().for_each(|(i, row)| row[i % 4] += 30.0);
        let config = KMeans { restarts: 2, ..KMeans::new(4) };
        let (fast, plain) = (
            config.fit(&rows, 6, &Gemm, Seed::new(1), &Stop::default()).unwrap(),
            config.fit(&rows, 6, &Plain, Seed::new(1), &Stop::default()).unwrap(),
        );
        assert!((fast.inertia - plain.inertia).abs() < 1e-6 * plain.inertia);
        for (i, label) in fast.labels.iter().enumerate() {
            assert_eq!(*label, fast.labels[i % 4]);
        }
    }
}
