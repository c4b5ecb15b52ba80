//! Products of small matrices without packing: both sides are read where they lie.
//!
//! A general product first packs both sides; for a cluster head on a batch of features that takes as long as the product
//! itself. Here rows are read as they are: both sides along the common axis ([`inner`]), or one number of the left with a whole
//! row of the right ([`outer`]).
//!
//! Where there are no registers of our own, `gemm` does it.
#![expect(unsafe_code, reason = "reads and writes of registers; every block states its bounds")]

use super::buffers::Place;
use super::gemm::Strides;
use super::isa::Isa;
use super::simd::{Simd, with_simd};

/// Numbers that fill half of a first-level cache.
const NEAR: usize = 6 * 1024;
/// Numbers of the right side up to which this wins: they stay in a core's second-level cache beside the rest.
const SMALL: usize = 1 << 17;

/// Does this processor do it, and is the right side small enough for it to pay?
pub(super) fn suits(right: usize) -> bool {
    right <= SMALL && Isa::used() != Isa::Portable
}

/// `out [m, n] = left [m, k] · right [n, k]ᵀ`, all row-major.
///
/// # Panics
/// If a length does not fit, or where this does not [suit](suits).
pub(super) fn inner<'a>(sizes: [usize; 3], out: &'a mut [Place], left: &[f32], right: &[f32]) -> &'a mut [f32] {
    let [m, n, k] = sizes;
    assert!(out.len() == m * n && left.len() == m * k && right.len() == n * k, "matrix out of bounds");
    let written = with_simd!(Isa::used(), |simd| inner_tiles(simd, sizes, out, left, right));
    assert!(written.is_some(), "no registers");
    // SAFETY: the tiles cover it.
    unsafe { out.assume_init_mut() }
}

/// By tiles with a row of the left for each of R, and a row of the right for each of C: R · C sums.
fn inner_tiles<S: Simd>(simd: S, sizes: [usize; 3], out: &mut [Place], left: &[f32], right: &[f32]) {
    if S::REGISTERS >= 32 {
        inner_tiles_of::<S, 4, 6>(simd, sizes, out, left, right);
    } else {
        inner_tiles_of::<S, 3, 4>(simd, sizes, out, left, right);
    }
}

fn inner_tiles_of<S: Simd, const R: usize, const C: usize>(
    simd: S,
    [_, n, k]: [usize; 3],
    out: &mut [Place],
    left: &[f32],
    right: &[f32],
) {
    // Some rows of the right stay in the first-level cache while all rows of the left pass by.
    let group = (NEAR / k / C).max(1) * C;
    for (first, right) in (0..n).step_by(group).zip(right.chunks(group * k)) {
        for (rows, left) in left.chunks(R * k).enumerate() {
            for (columns, right) in right.chunks(C * k).enumerate() {
                inner_tile::<S, R, C>(simd, k, &mut out[rows * R * n + first + columns * C..], n, left, right);
            }
        }
    }
}

/// Up to R rows with up to C rows of `k` numbers, into rows `pitch` apart.
fn inner_tile<S: Simd, const R: usize, const C: usize>(
    simd: S,
    k: usize,
    out: &mut [Place],
    pitch: usize,
    left: &[f32],
    right: &[f32],
) {
    let (rows, columns) = (left.len() / k, right.len() / k);
    // Rows that do not exist repeat the last one: their sums are dropped.
    let a: [&[f32]; R] = std::array::from_fn(|i| &left[i.min(rows - 1) * k..][..k]);
    let b: [&[f32]; C] = std::array::from_fn(|j| &right[j.min(columns - 1) * k..][..k]);
    let sums = simd.run(|| {
        let mut sums = [[simd.zero(); C]; R];
        for at in (0..k - k % S::LANES).step_by(S::LANES) {
            // SAFETY: each row has `k` numbers, and at + LANES ≤ k.
            let load = |from: &[f32]| unsafe { simd.load(from.as_ptr().add(at)) };
            multiply_add(simd, &mut sums, a.map(load), b, load);
        }
        if !k.is_multiple_of(S::LANES) {
            let (at, mask) = (k - k % S::LANES, simd.first(k % S::LANES));
            // SAFETY: each row has `k` numbers; lanes beyond are masked and not touched.
            let load = |from: &[f32]| unsafe { simd.load_some(mask, from.as_ptr().add(at)) };
            multiply_add(simd, &mut sums, a.map(load), b, load);
        }
        sums
    });
    store(simd, &sums, [rows, columns], out, pitch);
}

#[expect(clippy::inline_always, reason = "compiled as part of a loop, with its instruction set")]
#[inline(always)]
fn multiply_add<'a, S: Simd, const R: usize, const C: usize>(
    simd: S,
    sums: &mut [[S::Vector; C]; R],
    a: [S::Vector; R],
    b: [&'a [f32]; C],
    load: impl Fn(&'a [f32]) -> S::Vector,
) {
    for (j, b) in b.into_iter().enumerate() {
        let b = load(b);
        for (sums, &a) in sums.iter_mut().zip(&a) {
            sums[j] = simd.fma(a, b, sums[j]);
        }
    }
}

/// Adds up the lanes of each sum of a tile. A function of its own: inlined, it makes the compiler move the sums of the loop above
/// between registers and stack in every round.
#[inline(never)]
fn store<S: Simd, const R: usize, const C: usize>(
    simd: S,
    sums: &[[S::Vector; C]; R],
    [rows, columns]: [usize; 2],
    out: &mut [Place],
    pitch: usize,
) {
    simd.run(|| {
        for (i, sums) in sums.iter().enumerate().take(rows) {
            for (out, &sum) in out[i * pitch..][..columns].iter_mut().zip(sums) {
                out.write(simd.sum(sum));
            }
        }
    });
}

/// `out [m, n] = left [m, k] · right [k, n]`; `right` and `out` row-major, `left` as its strides say.
///
/// # Panics
/// If a length does not fit, or where this does not [suit](suits).
pub(super) fn outer<'a>(
    sizes: [usize; 3],
    out: &'a mut [Place],
    left: &[f32],
    left_at: Strides,
    right: &[f32],
) -> &'a mut [f32] {
    let [m, n, k] = sizes;
    assert!(out.len() == m * n && left_at.fits(m, k, left.len()) && right.len() == k * n, "matrix out of bounds");
    // SAFETY: `left` reaches as many rows as `out` has, as just checked, and `right` has `k` rows of `n`.
    let written = with_simd!(Isa::used(), |simd| unsafe { outer_tiles(simd, sizes, out, left, left_at, right) });
    assert!(written.is_some(), "no registers");
    // SAFETY: the tiles cover it.
    unsafe { out.assume_init_mut() }
}

/// Rows of a tile of [`outer`]: with four or two registers of columns, 24 or 12 sums.
const OUTER: usize = 6;

/// # Safety
/// `left` may be read at `i · row + p · column` for all rows i of `out` and p below k.
unsafe fn outer_tiles<S: Simd>(
    simd: S,
    [_, n, k]: [usize; 3],
    out: &mut [Place],
    left: &[f32],
    left_at: Strides,
    right: &[f32],
) {
    // A strip of the right stays in the first-level cache while all rows of the left pass by.
    let vectors = if S::REGISTERS >= 32 { 4 } else { 2 };
    for first in (0..n).step_by(vectors * S::LANES) {
        for (tile, out) in out.chunks_mut(OUTER * n).enumerate() {
            let left = &left[tile * OUTER * left_at.row..];
            // SAFETY: as the caller promises.
            unsafe {
                if S::REGISTERS >= 32 {
                    outer_tile::<S, 4>(simd, k, n, out, left, left_at, right, first);
                } else {
                    outer_tile::<S, 2>(simd, k, n, out, left, left_at, right, first);
                }
            }
        }
    }
}

/// Up to 6 rows and up to V registers of columns from the `first` column on.
///
/// # Safety
/// As [`outer_tiles`].
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
unsafe fn outer_tile<S: Simd, const V: usize>(
    simd: S,
    k: usize,
    n: usize,
    out: &mut [Place],
    left: &[f32],
    left_at: Strides,
    right: &[f32],
    first: usize,
) {
    let rows = out.len() / n;
    simd.run(|| {
        let masks: [S::Mask; V] = std::array::from_fn(|v| simd.first(n.saturating_sub(first + v * S::LANES)));
        let a: [*const f32; OUTER] = std::array::from_fn(|i| left[i.min(rows - 1) * left_at.row..].as_ptr());
        let mut sums = [[simd.zero(); V]; OUTER];
        let whole = first + V * S::LANES <= n;
        for p in 0..k {
            let row = right[p * n..].as_ptr();
            let mut b = [simd.zero(); V];
            for (v, b) in b.iter_mut().enumerate() {
                // A register that begins beyond the row has an empty mask; its address is not used.
                let from = row.wrapping_add(first + v * S::LANES);
                // SAFETY: the row has `n` numbers; lanes beyond are masked and not touched.
                *b = unsafe { if whole { simd.load(from) } else { simd.load_some(masks[v], from) } };
            }
            for (sums, a) in sums.iter_mut().zip(a) {
                // SAFETY: as the caller promises.
                let a = simd.all(unsafe { *a.add(p * left_at.column) });
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = simd.fma(a, b, *sum);
                }
            }
        }
        for (sums, row) in sums.iter().zip(out.chunks_exact_mut(n)) {
            for (v, (&sum, mask)) in sums.iter().zip(masks).enumerate() {
                let to = row.as_mut_ptr().cast::<f32>().wrapping_add(first + v * S::LANES);
                // SAFETY: the row has `n` numbers; lanes beyond are masked and not touched.
                unsafe { if whole { simd.store(to, sum) } else { simd.store_some(mask, to, sum) } };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::gemm::{columns, rows};
    use super::*;
    use kinset_base::seed::Seed;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    const SHAPES: [[usize; 3]; 8] =
        [[1, 1, 1], [4, 6, 16], [5, 7, 17], [3, 50, 529], [128, 50, 40], [7, 64, 3], [13, 129, 31], [6, 17, 100]];

    #[test]
    fn both_products_equal_their_double_precision_values_in_all_shapes() {
        if !suits(1) {
            return;
        }
        for [m, n, k] in SHAPES {
            let (left, right) = (random(m * k, 1), random(n * k, 2));
            let exact = |i: usize, j: usize, left_of: &dyn Fn(usize, usize) -> f32, right_of: &dyn Fn(usize, usize) -> f32| {
                (0..k).map(|p| f64::from(left_of(i, p)) * f64::from(right_of(p, j))).sum::<f64>()
            };
            let near = |found: &[f32], left_of: &dyn Fn(usize, usize) -> f32, right_of: &dyn Fn(usize, usize) -> f32| {
                for i in 0..m {
                    for j in 0..n {
                        let (found, wanted) = (f64::from(found[i * n + j]), exact(i, j, left_of, right_of));
                        assert!((found - wanted).abs() < 2e-6 * (k as f64).max(4.0), "{m}x{n}x{k} at {i}, {j}: {found}");
                    }
                }
            };
            let room = || vec![Place::new(f32::NAN); m * n];
            let out = &mut room();
            near(inner([m, n, k], out, &left, &right), &|i, p| left[i * k + p], &|p, j| right[j * k + p]);
            let out = &mut room();
            near(outer([m, n, k], out, &left, rows(k), &right), &|i, p| left[i * k + p], &|p, j| right[p * n + j]);
            let out = &mut room();
            near(outer([m, n, k], out, &left, columns(m), &right), &|i, p| left[p * m + i], &|p, j| right[p * n + j]);
        }
    }
}
