//! What does a token take from the others? Self-attention of all heads, over queries, keys and values as one layer makes them.
//!
//! On a CPU, and where nothing is recorded, an image is one task: its scores stay in a core's cache, and no axis is moved about in
//! memory. Else candle composes it, with gradients.

use candle_core::{D, Device, Result, Tensor};
use rayon::prelude::*;

use super::error::KernelError;
use super::exponential::exponential;
use super::graph::{is_ours, read};
use super::simd::vectorized;
use super::tile::{Strides, blank, product, rows, with_scratch};

vectorized! {
    /// Takes the largest off each row of so many numbers, after all were scaled.
    fn lowered(scores: &mut [f32], width: usize, scale: f32) {
        for row in scores.chunks_exact_mut(width) {
            let mut top = [f32::NEG_INFINITY; 16];
            for part in row.chunks(16) {
                for (top, &x) in top.iter_mut().zip(part) {
                    *top = if x > *top { x } else { *top };
                }
            }
            let mut most = f32::NEG_INFINITY;
            for top in top {
                most = if top > most { top } else { most };
            }
            for x in row {
                *x = (*x - most) * scale;
            }
        }
    }
}

vectorized! {
    /// Makes each row one of sum 1.
    fn normalized(scores: &mut [f32], width: usize) {
        for row in scores.chunks_exact_mut(width) {
            let mut sums = [0.0_f32; 16];
            for part in row.chunks(16) {
                for (sum, x) in sums.iter_mut().zip(part) {
                    *sum += x;
                }
            }
            let mut total = 0.0;
            for sum in sums {
                total += sum;
            }
            let share = 1.0 / total;
            for x in row {
                *x *= share;
            }
        }
    }
}

/// softmax(Q Kᵀ / √d) V of every head, d = D / A.
///
/// # Shapes
/// `qkv`: `[B·T, 3·D]`: of each token its query, key and value, each head by head. Returns `[B·T, D]`.
///
/// # Errors
/// Shapes that do not belong together; nothing to work on.
///
/// # Paper
/// Vaswani et al. 2017, "Attention is all you need", eq. 1 and section 3.2.2, without the last projection.
pub fn attention(qkv: &Tensor, batch: usize, heads: usize) -> Result<Tensor> {
    let wrong = || KernelError::Shape { op: "attention", shapes: vec![qkv.dims().to_vec(), vec![batch, heads]] }.wrap();
    let &[tokens, triple] = qkv.dims() else { return Err(wrong()) };
    if batch * heads * tokens * triple == 0 || !tokens.is_multiple_of(batch) || !triple.is_multiple_of(3 * heads) {
        return Err(wrong());
    }
    let shape = Shape { batch, tokens: tokens / batch, heads, dim: triple / (3 * heads) };
    if !is_ours(&[qkv]) || qkv.track_op() {
        return composed(qkv, shape);
    }
    let qkv = qkv.contiguous()?;
    let out = read(&qkv, |qkv| of_images(shape, qkv))?;
    Tensor::from_vec(out, (tokens, triple / 3), &Device::Cpu)
}

#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    tokens: usize,
    heads: usize,
    /// Of one head.
    dim: usize,
}

fn of_images(s: Shape, qkv: &[f32]) -> Vec<f32> {
    let width = s.heads * s.dim;
    let mut out = blank(s.batch * s.tokens * width);
    let images = out.par_chunks_mut(s.tokens * width).zip(qkv.par_chunks(3 * s.tokens * width));
    images.for_each(|(out, qkv)| {
        with_scratch([s.tokens * s.tokens, 0, 0], |scores, _, _| {
            let (by_row, by_column) = (Strides { row: 3 * width, column: 1 }, Strides { row: 1, column: 3 * width });
            for head in 0..s.heads {
                let at = head * s.dim;
                let (query, key, value) = (&qkv[at..], &qkv[width + at..], &qkv[2 * width + at..]);
                let square = [s.tokens, s.tokens, s.dim];
                product(square, scores, rows(s.tokens), false, query, by_row, key, by_column);
                lowered(scores, s.tokens, 1.0 / (s.dim as f32).sqrt());
                exponential(scores);
                normalized(scores, s.tokens);
                let taken = [s.tokens, s.dim, s.tokens];
                product(taken, &mut out[at..], rows(width), false, scores, rows(s.tokens), value, by_row);
            }
        });
    });
    out
}

/// The same of candle's operations.
fn composed(qkv: &Tensor, s: Shape) -> Result<Tensor> {
    let parts = qkv.reshape((s.batch, s.tokens, 3, s.heads, s.dim))?;
    let part = |which: usize| parts.narrow(2, which, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (query, key, value) = (part(0)?, part(1)?, part(2)?);
    let scores = (query.matmul(&key.transpose(2, 3)?.contiguous()?)? * (1.0 / (s.dim as f64).sqrt()))?;
    let taken = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
    taken.transpose(1, 2)?.reshape((s.batch * s.tokens, s.heads * s.dim))
}

#[cfg(test)]
mod tests {
    use super::super::check::{agrees_with_differences, doubles, normal};
    use super::*;

    #[test]
    fn one_task_an_image_says_what_the_composition_says() {
        for (batch, tokens, heads, dim) in [(1, 1, 1, 1), (2, 5, 3, 4), (3, 17, 2, 8), (1, 50, 4, 16)] {
            let qkv = (normal("qkv", &[batch * tokens, 3 * heads * dim]) * 2.0).unwrap();
            let fast = attention(&qkv, batch, heads).unwrap();
            let slow = composed(&qkv.to_dtype(candle_core::DType::F64).unwrap(), Shape { batch, tokens, heads, dim }).unwrap();
            assert_eq!(fast.dims(), [batch * tokens, heads * dim]);
            for (a, b) in doubles(&fast).iter().zip(doubles(&slow)) {
                assert!((a - b).abs() < 1e-5, "{batch} {tokens} {heads} {dim}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        agrees_with_differences("attention", &|t| attention(&t[0], 2, 2), &[normal("qkv", &[6, 18])]);
    }

    #[test]
    fn a_token_of_great_weight_is_taken_alone_and_images_do_not_see_each_other() {
        let qkv = Tensor::new(&[[100.0_f32, 100.0, 1.0], [100.0, -100.0, 2.0], [0.0, 0.0, 7.0], [0.0, 5.0, 9.0]], &Device::Cpu);
        let found = doubles(&attention(&qkv.unwrap(), 2, 1).unwrap());
        assert_eq!(found, [1.0, 1.0, 8.0, 8.0]);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let qkv = normal("qkv", &[5 * 33, 3 * 24]);
        let bits = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| doubles(&attention(&qkv, 5, 3).unwrap()))
        };
        assert_eq!(bits(1), bits(3));
    }

    #[test]
    fn shapes_must_belong_together() {
        let qkv = normal("qkv", &[6, 18]);
        for (batch, heads) in [(4, 2), (2, 4), (0, 2), (2, 0)] {
            assert!(attention(&qkv, batch, heads).is_err());
        }
    }
}
