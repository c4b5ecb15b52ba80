//! Weight gradients from partial sums with lanes over output channels, `[taps, outputs]`, of slices of the input's channels.

use rayon::prelude::*;

use super::super::accumulate::add_to;
use super::super::simd::Simd;
use super::shape::Shape;

/// How many registers of outputs the next block of sums takes of those left. Four are better done as two and two than as three
/// and one.
pub(super) fn best_vectors<S: Simd>(left: usize) -> usize {
    match left {
        4 => 2,
        n => n.min(if S::REGISTERS >= 32 { 3 } else { 2 }),
    }
}

/// dw `[O, K]` of partial sums, each `[taps of a slice, pitch]`: those of all slices, then of all slices again. They are added
/// in this order, whatever the number of threads.
pub(super) fn sum_of_parts(s: &Shape, partials: &[Vec<f32>], (slices, slice_taps, pitch): (usize, usize, usize)) -> Vec<f32> {
    let mut dw = vec![0.0; s.outputs * s.taps()];
    let (head, rest) = partials.split_at(slices);
    let sums: Vec<Vec<f32>> = head
        .par_iter()
        .enumerate()
        .map(|(slice, head)| {
            let mut sum = head.clone();
            for part in rest.iter().skip(slice).step_by(slices) {
                add_to(&mut sum, part);
            }
            sum
        })
        .collect();
    dw.par_chunks_mut(s.taps()).enumerate().for_each(|(o, dw)| {
        for (dw, sum) in dw.chunks_mut(slice_taps).zip(&sums) {
            for (dw, line) in dw.iter_mut().zip(sum.chunks_exact(pitch)) {
                *dw = line[o];
            }
        }
    });
    dw
}
