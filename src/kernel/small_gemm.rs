//! Products of small matrices without packing: both sides are read where they lie.
//!
//! A general product first packs both sides; for a cluster head on a batch of features that takes as long as the product
//! itself. Here rows are read as they are: both sides along the common axis ([`inner`]), or one number of the left with a whole
//! row of the right ([`outer`]).
//!
//! AVX-512 only; elsewhere `gemm` does it.
#![expect(unsafe_code, reason = "AVX-512 intrinsics on pointers; every block states its bounds")]

use std::arch::x86_64::{
    __m512, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_reduce_add_ps,
    _mm512_set1_ps, _mm512_setzero_ps,
};

use super::buffers::Place;
use super::gemm::Strides;
use super::isa::{Avx512, Isa};

/// Numbers in a register.
const LANES: usize = 16;
/// Rows of the left, and rows of the right, of a tile of [`inner`]: 24 sums.
const INNER: (usize, usize) = (4, 6);
/// Rows of a tile of [`outer`], and registers of columns: 24 sums.
const OUTER: (usize, usize) = (6, 4);
/// Numbers that fill half of a first-level cache.
const NEAR: usize = 6 * 1024;
/// Numbers of the right side up to which this wins: they stay in a core's second-level cache beside the rest.
const SMALL: usize = 1 << 17;

/// The proof that this processor can do it, if the right side is small enough for it to pay.
pub(super) fn suits(right: usize) -> Option<Avx512> {
    match Isa::used() {
        Isa::Avx512(isa) if right <= SMALL => Some(isa),
        _ => None,
    }
}

/// The lanes of the `vector`-th register of `n` numbers that exist.
fn lanes(n: usize, vector: usize) -> u16 {
    match n.saturating_sub(vector * LANES) {
        rest if rest >= LANES => u16::MAX,
        rest => (1 << rest) - 1,
    }
}

/// `out [m, n] = left [m, k] · right [n, k]ᵀ`, all row-major.
///
/// # Panics
/// If a length does not fit.
pub(super) fn inner<'a>(_: Avx512, [m, n, k]: [usize; 3], out: &'a mut [Place], left: &[f32], right: &[f32]) -> &'a mut [f32] {
    assert!(out.len() == m * n && left.len() == m * k && right.len() == n * k, "matrix out of bounds");
    // Some rows of the right stay in the first-level cache while all rows of the left pass by.
    let group = (NEAR / k / INNER.1).max(1) * INNER.1;
    for (first, right) in (0..n).step_by(group).zip(right.chunks(group * k)) {
        for (rows, left) in left.chunks(INNER.0 * k).enumerate() {
            for (columns, right) in right.chunks(INNER.1 * k).enumerate() {
                let out = &mut out[rows * INNER.0 * n + first + columns * INNER.1..];
                // SAFETY: AVX-512 is proven; both chunks are whole rows of `k`; `out` has as many rows, `n` apart, and
                // columns from here on.
                unsafe { inner_tile(k, out, n, left, right) };
            }
        }
    }
    // SAFETY: the tiles cover it.
    unsafe { out.assume_init_mut() }
}

/// Up to 4 rows with up to 6 rows.
///
/// # Safety
/// AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn inner_tile(k: usize, out: &mut [Place], pitch: usize, left: &[f32], right: &[f32]) {
    let (rows, columns) = (left.len() / k, right.len() / k);
    // Rows that do not exist repeat the last one: their sums are dropped.
    let a: [*const f32; INNER.0] = std::array::from_fn(|i| left[i.min(rows - 1) * k..].as_ptr());
    let b: [*const f32; INNER.1] = std::array::from_fn(|j| right[j.min(columns - 1) * k..].as_ptr());
    let mut sums = [[_mm512_setzero_ps(); INNER.1]; INNER.0];
    for at in (0..k / LANES * LANES).step_by(LANES) {
        // SAFETY: each pointer has `k` numbers, and at + 16 ≤ k.
        let load = |from: *const f32| -> __m512 { unsafe { _mm512_loadu_ps(from.add(at)) } };
        let a = a.map(load);
        for (j, &b) in b.iter().enumerate() {
            let b = load(b);
            for (sums, &a) in sums.iter_mut().zip(&a) {
                sums[j] = _mm512_fmadd_ps(a, b, sums[j]);
            }
        }
    }
    let (at, mask) = (k / LANES * LANES, lanes(k, k / LANES));
    if mask != 0 {
        // SAFETY: each pointer has `k` numbers; lanes beyond are masked and not touched.
        let load = |from: *const f32| -> __m512 { unsafe { _mm512_maskz_loadu_ps(mask, from.add(at)) } };
        let a = a.map(load);
        for (j, &b) in b.iter().enumerate() {
            let b = load(b);
            for (sums, &a) in sums.iter_mut().zip(&a) {
                sums[j] = _mm512_fmadd_ps(a, b, sums[j]);
            }
        }
    }
    // SAFETY: AVX-512 is proven.
    unsafe { store(&sums, [rows, columns], out, pitch) };
}

/// Adds up the lanes of each sum of a tile. A function of its own: inlined, it makes the compiler move the sums of the loop above
/// between registers and stack in every round.
///
/// # Safety
/// AVX-512F.
#[target_feature(enable = "avx512f")]
#[inline(never)]
unsafe fn store(sums: &[[__m512; INNER.1]; INNER.0], [rows, columns]: [usize; 2], out: &mut [Place], pitch: usize) {
    for (i, sums) in sums.iter().enumerate().take(rows) {
        for (out, &sum) in out[i * pitch..][..columns].iter_mut().zip(sums) {
            out.write(_mm512_reduce_add_ps(sum));
        }
    }
}

/// `out [m, n] = left [m, k] · right [k, n]`; `right` and `out` row-major, `left` as its strides say.
///
/// # Panics
/// If a length does not fit.
pub(super) fn outer<'a>(
    _: Avx512,
    [m, n, k]: [usize; 3],
    out: &'a mut [Place],
    left: &[f32],
    left_at: Strides,
    right: &[f32],
) -> &'a mut [f32] {
    assert!(out.len() == m * n && left_at.fits(m, k, left.len()) && right.len() == k * n, "matrix out of bounds");
    // A strip of the right stays in the first-level cache while all rows of the left pass by.
    for first in (0..n.div_ceil(LANES)).step_by(OUTER.1) {
        for (tile, out) in out.chunks_mut(OUTER.0 * n).enumerate() {
            let left = &left[tile * OUTER.0 * left_at.row..];
            // SAFETY: AVX-512 is proven; `left` reaches as many rows as `out` has from here on, as checked; `right` has
            // `k` rows of `n`.
            unsafe { outer_tile(k, n, out, left, left_at, right, first) };
        }
    }
    // SAFETY: the tiles cover it.
    unsafe { out.assume_init_mut() }
}

/// Up to 6 rows and up to 4 registers of columns from the `first`-th on.
///
/// # Safety
/// AVX-512F; `left` may be read at `i · row + p · column` for all rows i of `out` and p below k.
#[target_feature(enable = "avx512f")]
unsafe fn outer_tile(k: usize, n: usize, out: &mut [Place], left: &[f32], left_at: Strides, right: &[f32], first: usize) {
    let rows = out.len() / n;
    let masks: [u16; OUTER.1] = std::array::from_fn(|v| lanes(n, first + v));
    let a: [*const f32; OUTER.0] = std::array::from_fn(|i| left[i.min(rows - 1) * left_at.row..].as_ptr());
    let mut sums = [[_mm512_setzero_ps(); OUTER.1]; OUTER.0];
    let whole = masks[OUTER.1 - 1] == u16::MAX;
    for p in 0..k {
        let row = right[p * n..].as_ptr();
        let b: [__m512; OUTER.1] = std::array::from_fn(|v| {
            // A register that begins beyond the row has an empty mask; its address is not used.
            let from = row.wrapping_add((first + v) * LANES);
            // SAFETY: the row has `n` numbers; lanes beyond are masked and not touched.
            unsafe { if whole { _mm512_loadu_ps(from) } else { _mm512_maskz_loadu_ps(masks[v], from) } }
        });
        for (sums, a) in sums.iter_mut().zip(a) {
            // SAFETY: as the caller promises.
            let a = _mm512_set1_ps(unsafe { *a.add(p * left_at.column) });
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = _mm512_fmadd_ps(a, b, *sum);
            }
        }
    }
    for (sums, row) in sums.iter().zip(out.chunks_exact_mut(n)) {
        for (v, (&sum, mask)) in sums.iter().zip(masks).enumerate() {
            // SAFETY: the row has `n` numbers; lanes beyond are masked and not touched.
            unsafe { _mm512_mask_storeu_ps(row.as_mut_ptr().cast::<f32>().wrapping_add((first + v) * LANES), mask, sum) };
        }
    }
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
        let Some(isa) = suits(1) else { return };
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
            near(inner(isa, [m, n, k], out, &left, &right), &|i, p| left[i * k + p], &|p, j| right[j * k + p]);
            let out = &mut room();
            near(outer(isa, [m, n, k], out, &left, rows(k), &right), &|i, p| left[i * k + p], &|p, j| right[p * n + j]);
            let out = &mut room();
            near(outer(isa, [m, n, k], out, &left, columns(m), &right), &|i, p| left[p * m + i], &|p, j| right[p * n + j]);
        }
    }

    #[test]
    fn lanes_beyond_the_end_are_off() {
        assert_eq!([lanes(16, 0), lanes(17, 1), lanes(5, 0), lanes(5, 1)], [u16::MAX, 1, 31, 0]);
    }
}
