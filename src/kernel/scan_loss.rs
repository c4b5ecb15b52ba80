//! SCAN's loss: consistency of pairs and entropy of clusters, in one pass over the logits of all heads.
//!
//! On cached features a training step of a clustering head is a small product and a dozen element-wise operations on a few
//! thousand numbers; built of tensor operations, the operations' overhead is most of the step.

use std::sync::Arc;

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::autograd::{Backward, GradSlot, Input, Saved, read, record, supported};
use super::error::KernelError;
use super::exponential::exponential;

/// An agreement below e^−100 counts as that.
const FARTHEST: f64 = 100.0;

/// A mean probability below this counts as this.
const LEAST: f64 = 1e-8;

/// Consistency and entropy of every head.
///
/// With P, Q the soft-max of a head's logits of anchors and neighbors: consistency = mean_i −ln(P_i · Q_i), at most 100 each;
/// entropy = −Σ_k p̄_k ln p̄_k with p̄ the mean of P, at least 1e-8 each. In nats.
///
/// # Shapes
/// `anchors`, `neighbors`: logits `[B, H·K]`, head by head. Returns `[H, 2]`: consistency, entropy.
///
/// # Errors
/// Shapes that do not match, or an empty input.
///
/// # Paper
/// The two terms of SCAN (arXiv 2005.12320), eq. 2, with the bounds of the authors' code.
pub fn scan_terms(anchors: &Tensor, neighbors: &Tensor, heads: usize) -> Result<Tensor> {
    let wrong = || {
        let shapes = vec![anchors.dims().to_vec(), neighbors.dims().to_vec(), vec![heads]];
        KernelError::Shape { op: "scan_terms", shapes }.wrap()
    };
    let &[batch, width] = anchors.dims() else { return Err(wrong()) };
    if anchors.dims() != neighbors.dims() || batch * width * heads == 0 || !width.is_multiple_of(heads) {
        return Err(wrong());
    }
    let shape = Shape { batch, heads, clusters: width / heads };
    if !supported(&[anchors, neighbors]) {
        return composed(anchors, neighbors, shape);
    }
    let (a, n) = (Input::of(anchors)?, Input::of(neighbors)?);
    let passes = read(&a.data, |a| read(&n.data, |n| Passes::of(shape, a, n)))??;
    let slots = [a.slot(), n.slot()];
    record(passes.terms(), (heads, 2), &[&a, &n], [None, None], || ScanBackward { passes, slots })
}

/// The same of candle's operations.
fn composed(anchors: &Tensor, neighbors: &Tensor, s: Shape) -> Result<Tensor> {
    let apart = |logits: &Tensor| logits.reshape((s.batch, s.heads, s.clusters));
    let log_p = candle_nn::ops::log_softmax(&apart(anchors)?, D::Minus1)?;
    let log_q = candle_nn::ops::log_softmax(&apart(neighbors)?, D::Minus1)?;
    // ln Σ_k P_k Q_k from logarithms: f32 cannot hold an agreement of e^−100.
    let together = (&log_p + &log_q)?.log_sum_exp(D::Minus1)?;
    let consistency = together.neg()?.minimum(FARTHEST)?.mean(0)?;
    let mean = log_p.exp()?.mean(0)?.maximum(LEAST)?;
    let entropy = (&mean * mean.log()?)?.sum(D::Minus1)?.neg()?;
    Tensor::stack(&[consistency, entropy], 1)
}

#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    heads: usize,
    clusters: usize,
}

/// Pairs per task; fixed, so that the order of the sums does not depend on the machine.
const PIECE: usize = 256;

/// Probabilities that the heads give all pairs.
struct Passes {
    shape: Shape,
    /// Probabilities of anchors and neighbors, and p q / Σ p q, `[B, H·K]`.
    p: Vec<f32>,
    q: Vec<f32>,
    r: Vec<f32>,
    /// −ln of each pair's agreement, unbounded, `[B, H]`.
    apart: Vec<f64>,
    /// Mean of `p`, `[H·K]`.
    mean: Vec<f64>,
}

/// Rows of `p`, `q` and `r`, and of `apart`, as they come from zipping.
type Rows<'a> = (((&'a mut [f32], &'a mut [f32]), &'a mut [f32]), &'a mut [f64]);

/// Subtracts the largest number from each row of K, and returns it.
fn lower(rows: &mut [f32], clusters: usize, tops: &mut [f32]) {
    for (row, top) in rows.chunks_exact_mut(clusters).zip(tops) {
        *top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for x in row {
            *x -= *top;
        }
    }
}

/// Divides each row of K numbers by its sum, and returns the sum.
fn normalize(rows: &mut [f32], clusters: usize, sums: &mut [f32]) {
    for (row, sum) in rows.chunks_exact_mut(clusters).zip(sums) {
        *sum = row.iter().sum();
        let scale = 1.0 / *sum;
        for x in row {
            *x *= scale;
        }
    }
}

impl Passes {
    fn of(shape: Shape, anchors: &[f32], neighbors: &[f32]) -> Self {
        let Shape { batch, heads, clusters } = shape;
        let width = heads * clusters;
        let (mut p, mut q, mut r) = (anchors.to_vec(), neighbors.to_vec(), vec![0.0; batch * width]);
        let mut apart = vec![0.0; batch * heads];
        let piece = |(((p, q), r), apart): Rows<'_>| {
            let [mut top, mut of_p, mut of_q, mut of_r] = [(); 4].map(|()| vec![0.0_f32; apart.len()]);
            lower(p, clusters, &mut top);
            lower(q, clusters, &mut top);
            // ln Σ p q from logarithms: f32 cannot hold an agreement of e^−100.
            for ((r, p), q) in r.iter_mut().zip(&*p).zip(&*q) {
                *r = p + q;
            }
            lower(r, clusters, &mut top);
            for side in [&mut *p, &mut *q, &mut *r] {
                exponential(side);
            }
            normalize(p, clusters, &mut of_p);
            normalize(q, clusters, &mut of_q);
            normalize(r, clusters, &mut of_r);
            for (at, apart) in apart.iter_mut().enumerate() {
                let [p, q, r] = [of_p[at], of_q[at], of_r[at]].map(f64::from);
                *apart = (p * q / r).ln() - f64::from(top[at]);
            }
            let mut sums = vec![0.0_f64; width];
            for row in p.chunks_exact(width) {
                for (sum, p) in sums.iter_mut().zip(row) {
                    *sum += f64::from(*p);
                }
            }
            sums
        };
        let sums: Vec<Vec<f64>> = if batch <= PIECE {
            vec![piece((((&mut p, &mut q), &mut r), &mut apart))]
        } else {
            let pairs = p.par_chunks_mut(PIECE * width).zip(q.par_chunks_mut(PIECE * width));
            pairs.zip(r.par_chunks_mut(PIECE * width)).zip(apart.par_chunks_mut(PIECE * heads)).map(piece).collect()
        };
        let mut mean = vec![0.0; width];
        for sums in sums {
            for (mean, sum) in mean.iter_mut().zip(sums) {
                *mean += sum / batch as f64;
            }
        }
        Self { shape, p, q, r, apart, mean }
    }

    fn terms(&self) -> Vec<f32> {
        let Shape { batch, heads, clusters } = self.shape;
        let each = self.mean.chunks_exact(clusters).enumerate().flat_map(|(head, mean)| {
            let far: f64 = self.apart.iter().skip(head).step_by(heads).map(|apart| apart.min(FARTHEST)).sum();
            let entropy: f64 = mean.iter().map(|m| m.max(LEAST)).map(|m| m * m.ln()).sum();
            [(far / batch as f64) as f32, -entropy as f32]
        });
        each.collect()
    }

    /// Gradients of both logits, given those of the terms. With r = p q / Σ p q: ∂(−ln Σ p q) = p − r for the anchor and
    /// q − r for the neighbor; ∂entropy = p (g − Σ p g) with g = −(ln p̄ + 1), and 0 where a bound holds.
    fn gradients(&self, of_terms: &[f32]) -> [Vec<f32>; 2] {
        let Shape { batch, heads, clusters } = self.shape;
        let batch = batch as f64;
        let g: Vec<f32> = (self.mean.iter().enumerate())
            .map(|(at, &m)| {
                let weight = f64::from(of_terms[at / clusters * 2 + 1]) / batch;
                if m > LEAST { (-(m.ln() + 1.0) * weight) as f32 } else { 0.0 }
            })
            .collect();
        let [mut of_anchor, mut of_neighbor] = [(); 2].map(|()| vec![0.0; self.p.len()]);
        let rows = self.p.chunks_exact(clusters).zip(self.q.chunks_exact(clusters)).zip(self.r.chunks_exact(clusters));
        let out = of_anchor.chunks_exact_mut(clusters).zip(of_neighbor.chunks_exact_mut(clusters));
        for (at, (((p, q), r), (anchor, neighbor))) in rows.zip(out).enumerate() {
            let head = at % heads;
            let weight = if self.apart[at] < FARTHEST { (f64::from(of_terms[2 * head]) / batch) as f32 } else { 0.0 };
            let g = &g[head * clusters..][..clusters];
            let inner: f32 = p.iter().zip(g).map(|(p, g)| p * g).sum();
            for k in 0..clusters {
                anchor[k] = weight * (p[k] - r[k]) + p[k] * (g[k] - inner);
                neighbor[k] = weight * (q[k] - r[k]);
            }
        }
        [of_anchor, of_neighbor]
    }
}

struct ScanBackward {
    passes: Passes,
    slots: [Option<Arc<GradSlot>>; 2],
}

impl Backward for ScanBackward {
    fn name(&self) -> &'static str {
        "scan_terms"
    }

    fn backward(&self, gradient: Vec<f32>, _: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        for (slot, gradient) in self.slots.iter().zip(self.passes.gradients(&gradient)) {
            if let Some(slot) = slot {
                slot.add(gradient);
            }
        }
        Ok([None, None])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{agrees_with_differences, doubles, normal, run, same_bits};
    use super::*;
    use candle_core::Device;

    fn logits(heads: usize, batch: usize, k: usize, scale: f64) -> [Tensor; 2] {
        ["a", "n"].map(|name| (normal(name, &[batch, heads * k]) * scale).unwrap())
    }

    #[test]
    fn terms_and_gradients_agree_with_differences() {
        for (heads, batch, k) in [(1, 6, 5), (5, 16, 10), (2, 1, 3), (3, 9, 2)] {
            let f = |t: &[Tensor]| scan_terms(&t[0], &t[1], heads);
            agrees_with_differences(&format!("scan terms {heads}x{batch}x{k}"), &f, &logits(heads, batch, k, 2.0));
        }
    }

    #[test]
    fn heads_do_not_see_each_other() {
        let [a, n] = logits(3, 7, 4, 1.0);
        let all = doubles(&scan_terms(&a, &n, 3).unwrap());
        for head in 0..3 {
            let own = |t: &Tensor| t.narrow(1, head * 4, 4).unwrap();
            assert_eq!(doubles(&scan_terms(&own(&a), &own(&n), 1).unwrap()), all[2 * head..2 * head + 2]);
        }
    }

    #[test]
    fn complete_disagreement_is_bounded_and_without_gradient_beyond() {
        let eye = (Tensor::eye(5, candle_core::DType::F32, &Device::Cpu).unwrap() * 500.0).unwrap();
        let other = eye.index_select(&Tensor::new(&[1_u32, 2, 3, 4, 0], &Device::Cpu).unwrap(), 0).unwrap();
        let (terms, gradients) = run(&|t| scan_terms(&t[0], &t[1], 1), &[eye, other]);
        assert!((doubles(&terms)[0] - 100.0).abs() < 1e-12);
        assert!(doubles(&gradients[1]).iter().all(|g| *g == 0.0), "{:?}", doubles(&gradients[1]));
        assert!(gradients.iter().flat_map(doubles).all(f64::is_finite));
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        same_bits("scan_terms", &|t| scan_terms(&t[0], &t[1], 3), &logits(3, 2000, 10, 3.0));
    }

    #[test]
    fn shapes_must_match() {
        let [a, n] = logits(2, 3, 4, 1.0);
        assert!(scan_terms(&a, &n, 3).is_err());
        assert!(scan_terms(&a, &n.narrow(0, 0, 2).unwrap(), 2).is_err());
        assert!(scan_terms(&a, &n, 0).is_err());
    }
}
