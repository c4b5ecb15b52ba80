//! How much do the cluster heads of a pair agree, and how evenly do they spread? One pass over the logits of all heads.
//!
//! On cached features a training step of a clustering head is a small product and a dozen element-wise operations on a few
//! thousand numbers; built of tensor operations, the operations' overhead is most of the step.

use std::sync::Arc;

use candle_core::{D, Result, Tensor};
use rayon::prelude::*;

use super::error::KernelError;
use super::graph::{Input, Rule, Seen, Slot, is_ours, link, read};
use super::tile::blank;

/// An agreement below e^−100 counts as that.
const FARTHEST: f64 = 100.0;

/// A mean probability below this counts as this.
const LEAST: f64 = 1e-8;

/// Numbers of one head worth another core.
const WORTH: usize = 1 << 14;

/// Consistency and entropy of every head.
///
/// With P, Q the soft-max of a head's logits of anchors and neighbors: consistency = mean_i −ln(P_i · Q_i), at most 100 each;
/// entropy = −Σ_k p̄_k ln p̄_k with p̄ the mean of P, at least 1e-8 each. In nats.
///
/// # Shapes
/// `anchors`, `neighbors`: logits `[B, H·K]`, head by head. Returns `[H, 2]`: consistency, entropy.
///
/// # Errors
/// Shapes that do not belong together; nothing to work on.
///
/// # Paper
/// The two terms of SCAN (arXiv 2005.12320), eq. 2, with the bounds of the authors' code.
pub fn agreement(anchors: &Tensor, neighbors: &Tensor, heads: usize) -> Result<Tensor> {
    let wrong = || {
        let shapes = vec![anchors.dims().to_vec(), neighbors.dims().to_vec(), vec![heads]];
        KernelError::Shape { op: "agreement", shapes }.wrap()
    };
    let &[batch, width] = anchors.dims() else { return Err(wrong()) };
    if anchors.dims() != neighbors.dims() || batch * width * heads == 0 || !width.is_multiple_of(heads) {
        return Err(wrong());
    }
    let shape = Shape { batch, heads, clusters: width / heads };
    if !is_ours(&[anchors, neighbors]) {
        return composed(anchors, neighbors, shape);
    }
    let (a, n) = (Input::of(anchors)?, Input::of(neighbors)?);
    let terms = read(&a.data, |a| read(&n.data, |n| shape.per_head(|head| Passes::of(shape, head, a, n).terms())))??;
    let terms: Vec<f32> = terms.into_iter().flatten().map(|term| term as f32).collect();
    let (anchors, neighbors) = (a.data.clone(), n.data.clone());
    let slots = [a.slot(), n.slot()];
    link(terms, (heads, 2), &[&a, &n], [None, None], || AgreementRule { shape, anchors, neighbors, slots })
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

impl Shape {
    /// One task per head.
    fn per_head<T: Send>(self, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
        if self.batch * self.clusters < WORTH {
            (0..self.heads).map(f).collect()
        } else {
            (0..self.heads).into_par_iter().map(f).collect()
        }
    }
}

/// What one head says of all pairs.
struct Passes {
    shape: Shape,
    /// Probabilities of anchors and neighbors, `[B, K]`.
    p: Vec<f32>,
    q: Vec<f32>,
    /// −ln of each pair's agreement, unbounded.
    apart: Vec<f64>,
    /// Mean of `p`.
    mean: Vec<f64>,
}

/// Writes ln of the soft-max.
fn log_softmax(logits: &[f32], out: &mut [f32]) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|x| (x - top).exp()).sum();
    let shift = top + sum.ln();
    for (out, x) in out.iter_mut().zip(logits) {
        *out = x - shift;
    }
}

impl Passes {
    fn of(shape: Shape, head: usize, anchors: &[f32], neighbors: &[f32]) -> Self {
        let (k, width) = (shape.clusters, shape.heads * shape.clusters);
        let (mut p, mut q) = (blank(shape.batch * k), blank(shape.batch * k));
        let (mut apart, mut mean) = (Vec::with_capacity(shape.batch), vec![0.0; k]);
        for (pair, (p, q)) in p.chunks_exact_mut(k).zip(q.chunks_exact_mut(k)).enumerate() {
            let at = pair * width + head * k;
            log_softmax(&anchors[at..at + k], p);
            log_softmax(&neighbors[at..at + k], q);
            let top = p.iter().zip(q.iter()).map(|(p, q)| p + q).fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = p.iter().zip(q.iter()).map(|(p, q)| (p + q - top).exp()).sum();
            apart.push(-f64::from(top + sum.ln()));
            for ((p, q), mean) in p.iter_mut().zip(q.iter_mut()).zip(&mut mean) {
                *p = p.exp();
                *q = q.exp();
                *mean += f64::from(*p);
            }
        }
        for m in &mut mean {
            *m /= shape.batch as f64;
        }
        Self { shape, p, q, apart, mean }
    }

    /// Consistency and entropy.
    fn terms(&self) -> [f64; 2] {
        let far: f64 = self.apart.iter().map(|apart| apart.min(FARTHEST)).sum();
        let entropy: f64 = self.mean.iter().map(|m| m.max(LEAST)).map(|m| m * m.ln()).sum();
        [far / self.shape.batch as f64, -entropy]
    }

    /// Gradients of both logits, given those of the two terms. With r = p q / Σ p q: ∂(−ln Σ p q) = p − r for the anchor and
    /// q − r for the neighbor; ∂entropy = p (g − Σ p g) with g = −(ln p̄ + 1), and 0 where a bound holds.
    fn gradients(&self, of_terms: [f64; 2], mut put: impl FnMut(&[f32], &[f32])) {
        let (k, batch) = (self.shape.clusters, self.shape.batch as f64);
        let g: Vec<f64> =
            self.mean.iter().map(|&m| if m > LEAST { -(m.ln() + 1.0) * of_terms[1] / batch } else { 0.0 }).collect();
        let weight = of_terms[0] / batch;
        let (mut anchor, mut neighbor) = (vec![0.0; k], vec![0.0; k]);
        for (pair, (p, q)) in self.p.chunks_exact(k).zip(self.q.chunks_exact(k)).enumerate() {
            let (weight, scale) = if self.apart[pair] < FARTHEST { (weight, self.apart[pair].exp()) } else { (0.0, 0.0) };
            let inner: f64 = p.iter().zip(&g).map(|(&p, g)| f64::from(p) * g).sum();
            for at in 0..k {
                let (p, q) = (f64::from(p[at]), f64::from(q[at]));
                let r = p * q * scale;
                anchor[at] = (weight * (p - r) + p * (g[at] - inner)) as f32;
                neighbor[at] = (weight * (q - r)) as f32;
            }
            put(&anchor, &neighbor);
        }
    }
}

struct AgreementRule {
    shape: Shape,
    anchors: Tensor,
    neighbors: Tensor,
    slots: [Option<Arc<Slot>>; 2],
}

impl Rule for AgreementRule {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn backward(&self, gradient: Vec<f32>, _: Seen<'_>) -> Result<[Option<Tensor>; 2]> {
        let s = self.shape;
        let (k, width) = (s.clusters, s.heads * s.clusters);
        let parts = read(&self.anchors, |a| {
            read(&self.neighbors, |n| {
                s.per_head(|head| {
                    let (mut of_a, mut of_n) = (Vec::with_capacity(s.batch * k), Vec::with_capacity(s.batch * k));
                    let terms = [f64::from(gradient[2 * head]), f64::from(gradient[2 * head + 1])];
                    Passes::of(s, head, a, n).gradients(terms, |a, n| {
                        of_a.extend_from_slice(a);
                        of_n.extend_from_slice(n);
                    });
                    [of_a, of_n]
                })
            })
        })??;
        for (side, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            let mut whole = vec![0.0; s.batch * width];
            for (head, part) in parts.iter().enumerate() {
                for (row, part) in whole.chunks_exact_mut(width).zip(part[side].chunks_exact(k)) {
                    row[head * k..(head + 1) * k].copy_from_slice(part);
                }
            }
            slot.add(whole);
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
            let f = |t: &[Tensor]| agreement(&t[0], &t[1], heads);
            agrees_with_differences(&format!("agreement {heads}x{batch}x{k}"), &f, &logits(heads, batch, k, 2.0));
        }
    }

    #[test]
    fn heads_do_not_see_each_other() {
        let [a, n] = logits(3, 7, 4, 1.0);
        let all = doubles(&agreement(&a, &n, 3).unwrap());
        for head in 0..3 {
            let own = |t: &Tensor| t.narrow(1, head * 4, 4).unwrap();
            assert_eq!(doubles(&agreement(&own(&a), &own(&n), 1).unwrap()), all[2 * head..2 * head + 2]);
        }
    }

    #[test]
    fn complete_disagreement_is_bounded_and_without_gradient_beyond() {
        let eye = (Tensor::eye(5, candle_core::DType::F32, &Device::Cpu).unwrap() * 500.0).unwrap();
        let other = eye.index_select(&Tensor::new(&[1_u32, 2, 3, 4, 0], &Device::Cpu).unwrap(), 0).unwrap();
        let (terms, gradients) = run(&|t| agreement(&t[0], &t[1], 1), &[eye, other]);
        assert!((doubles(&terms)[0] - 100.0).abs() < 1e-12);
        assert!(doubles(&gradients[1]).iter().all(|g| *g == 0.0), "{:?}", doubles(&gradients[1]));
        assert!(gradients.iter().flat_map(doubles).all(f64::is_finite));
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        same_bits("agreement", &|t| agreement(&t[0], &t[1], 3), &logits(3, 2000, 10, 3.0));
    }

    #[test]
    fn shapes_must_belong_together() {
        let [a, n] = logits(2, 3, 4, 1.0);
        assert!(agreement(&a, &n, 3).is_err());
        assert!(agreement(&a, &n.narrow(0, 0, 2).unwrap(), 2).is_err());
        assert!(agreement(&a, &n, 0).is_err());
    }
}
