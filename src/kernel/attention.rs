//! Self-attention of all heads, over queries, keys and values as one layer makes them.
//!
//! [`of_head`] computes one head in place: scores of a strip of queries stay in the first-level cache from their product to the
//! one that uses them, and no axis is moved about in memory. [`composed`] is the same of candle's operations, with gradients.

use candle_core::{D, Result, Tensor};

use super::buffers::with_scratch;
use super::dispatch::vectorized;
use super::exponential::power;
use super::packed_gemm::{PackedMatrix, Start};

/// Queries whose scores are held at once: 30 KiB for 257 tokens.
const STRIP: usize = 24;
/// Rows of scores begin so many numbers apart, or a multiple.
const LANES: usize = 16;

#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) batch: usize,
    /// T
    pub(super) tokens: usize,
    pub(super) heads: usize,
    /// Of one head.
    pub(super) dim: usize,
}

vectorized! {
    /// Each row becomes e to the power of itself, scaled, less its largest; `shares` becomes one over the sum of each row.
    fn soften(scores: &mut [f32], width: usize, scale: f32, shares: &mut [f32]) {
        for (row, share) in scores.chunks_exact_mut(width).zip(shares) {
            let mut top = [f32::NEG_INFINITY; LANES];
            for part in row.chunks_exact(LANES) {
                for (top, &x) in top.iter_mut().zip(part) {
                    *top = if x > *top { x } else { *top };
                }
            }
            let mut most = f32::NEG_INFINITY;
            for top in top {
                most = if top > most { top } else { most };
            }
            let mut sums = [0.0_f32; LANES];
            for part in row.chunks_exact_mut(LANES) {
                for (sum, x) in sums.iter_mut().zip(part) {
                    *x = power((*x - most) * scale);
                    *sum += *x;
                }
            }
            let mut total = 0.0;
            for sum in sums {
                total += sum;
            }
            *share = 1.0 / total;
        }
    }
}

vectorized! {
    fn times(out: &mut [f32], width: usize, shares: &[f32]) {
        for (row, share) in out.chunks_exact_mut(width).zip(shares) {
            for x in row {
                *x *= share;
            }
        }
    }
}

/// softmax(Q Kᵀ / √d) V of one head of one image, on the calling thread.
///
/// # Shapes
/// `qkv`: `[T, 3·A·d]`, of each token its query, key and value, each head by head. `out`: `[Q, d]` for the first Q tokens.
///
/// # Paper
/// Vaswani et al. 2017, "Attention is all you need", eq. 1.
pub(super) fn of_head(s: Shape, qkv: &[f32], head: usize, out: &mut [f32]) {
    let (width, at) = (s.heads * s.dim, head * s.dim);
    let line = 3 * width;
    let keys = PackedMatrix::of_columns(&qkv[width + at..], line, s.tokens, s.dim);
    let values = PackedMatrix::of_rows(&qkv[2 * width + at..], line, s.dim, s.tokens);
    let pitch = s.tokens.next_multiple_of(LANES);
    for (strip, out) in out.chunks_mut(STRIP * s.dim).enumerate() {
        let count = out.len() / s.dim;
        let queries = &qkv[strip * STRIP * line + at..];
        with_scratch([count * pitch, count, 0], |scores, shares, _| {
            keys.multiply(count, queries, line, scores, pitch, Start::Zero);
            for row in scores.chunks_exact_mut(pitch) {
                // Padding gets no weight.
                row[s.tokens..].fill(f32::NEG_INFINITY);
            }
            soften(scores, pitch, 1.0 / (s.dim as f32).sqrt(), shares);
            values.multiply(count, scores, pitch, out, s.dim, Start::Zero);
            times(out, s.dim, shares);
        });
    }
}

/// The same of all heads and images, of candle's operations.
///
/// # Shapes
/// `qkv`: `[B·T, 3·A·d]`. Returns `[B·T, A·d]`.
pub(super) fn composed(qkv: &Tensor, s: Shape) -> Result<Tensor> {
    let parts = qkv.reshape((s.batch, s.tokens, 3, s.heads, s.dim))?;
    let part = |which: usize| parts.narrow(2, which, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
    let (query, key, value) = (part(0)?, part(1)?, part(2)?);
    let scores = (query.matmul(&key.transpose(2, 3)?.contiguous()?)? * (1.0 / (s.dim as f64).sqrt()))?;
    let taken = candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&value)?;
    taken.transpose(1, 2)?.reshape((s.batch * s.tokens, s.heads * s.dim))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::check::{agrees_with_differences, doubles, floats, normal};
    use super::*;

    /// Every head of every image, `[B·T, A·d]`.
    fn of_heads(s: Shape, qkv: &[f32]) -> Vec<f32> {
        let width = s.heads * s.dim;
        let mut all = vec![f32::NAN; s.batch * s.tokens * width];
        for (image, qkv) in qkv.chunks(3 * s.tokens * width).enumerate() {
            for head in 0..s.heads {
                let mut out = vec![f32::NAN; s.tokens * s.dim];
                of_head(s, qkv, head, &mut out);
                for (token, out) in out.chunks(s.dim).enumerate() {
                    all[(image * s.tokens + token) * width + head * s.dim..][..s.dim].copy_from_slice(out);
                }
            }
        }
        all
    }

    #[test]
    fn heads_alone_say_what_the_composition_says_in_double_precision() {
        for (batch, tokens, heads, dim) in [(1, 1, 1, 1), (2, 5, 3, 4), (3, 17, 2, 8), (1, 50, 4, 16), (1, 257, 1, 64)] {
            let s = Shape { batch, tokens, heads, dim };
            let qkv = (normal("qkv", &[batch * tokens, 3 * heads * dim]) * 2.0).unwrap();
            let slow = composed(&qkv.to_dtype(candle_core::DType::F64).unwrap(), s).unwrap();
            assert_eq!(slow.dims(), [batch * tokens, heads * dim]);
            for (a, b) in of_heads(s, &floats(&qkv)).into_iter().zip(doubles(&slow)) {
                assert!((f64::from(a) - b).abs() < 1e-5, "{batch} {tokens} {heads} {dim}: {a} is not {b}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_differences() {
        let s = Shape { batch: 2, tokens: 3, heads: 2, dim: 3 };
        agrees_with_differences("attention", &|t| composed(&t[0], s), &[normal("qkv", &[6, 18])]);
    }

    #[test]
    fn a_token_of_great_weight_is_taken_alone_and_images_do_not_see_each_other() {
        let s = Shape { batch: 2, tokens: 2, heads: 1, dim: 1 };
        let qkv = [100.0, 100.0, 1.0, 100.0, -100.0, 2.0, 0.0, 0.0, 7.0, 0.0, 5.0, 9.0];
        let wide = Tensor::from_slice(&qkv.map(f64::from), (4, 3), &Device::Cpu).unwrap();
        assert_eq!(doubles(&composed(&wide, s).unwrap()), [1.0, 1.0, 8.0, 8.0]);
        assert_eq!(of_heads(s, &qkv), [1.0, 1.0, 8.0, 8.0]);
    }
}
