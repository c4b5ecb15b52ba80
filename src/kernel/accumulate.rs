//! Sums of slices: `sum += other`.

use rayon::prelude::*;

use super::dispatch::vectorized;

/// Numbers per task: fixed, so the cut does not depend on the machine. 128 KiB.
pub(super) const CHUNK: usize = 32 * 1024;

vectorized! {
    /// `sum += other`, on the calling thread.
    pub(super) fn add_to(sum: &mut [f32], other: &[f32]) {
        for (a, b) in sum.iter_mut().zip(other) {
            *a += b;
        }
    }
}

/// `sum += other`, on all cores.
pub(super) fn accumulate(sum: &mut [f32], other: &[f32]) {
    sum.par_chunks_mut(CHUNK).zip(other.par_chunks(CHUNK)).for_each(|(a, b)| add_to(a, b));
}
