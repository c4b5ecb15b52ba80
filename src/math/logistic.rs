//! The linear head that gives rows their labels: multinomial logistic regression.
//!
//! Minimizes mean cross-entropy + λ/2 |W|² by L-BFGS (Nocedal and Wright 2006, "Numerical Optimization", algorithm 7.5) with steps
//! halved until Armijo's condition holds. The problem is convex: the start does not matter, and nothing is drawn.
//!
//! Sums run over fixed pieces: the same bits for any number of threads.

use rayon::prelude::*;

use super::eigen::dot;
use super::kmeans::Products;
use super::topk::argmax_rows;
use kinset_base::stop::{Stop, Stopped};

/// Pieces that gradients are summed over; fixed, so that no result depends on the number of threads.
const PIECES: usize = 64;
/// Fewest rows of a piece.
const ROWS: usize = 256;
/// Steps that L-BFGS remembers.
const MEMORY: usize = 10;
/// Least share of the decrease that the slope promises (Nocedal and Wright's c₁).
const ARMIJO: f64 = 1e-4;

/// How to fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Logistic {
    /// λ, weight of the squared weights.
    pub penalty: f64,
    /// Most iterations.
    pub iterations: usize,
    /// Stop when no entry of the gradient is larger.
    pub tolerance: f64,
}

/// A linear head.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[K, D]`.
    pub weight: Vec<f32>,
    /// `[K]`.
    pub bias: Vec<f32>,
    /// What was minimized, at the end.
    pub loss: f64,
    /// False if it ran out of iterations.
    pub converged: bool,
}

impl Logistic {
    /// At most 300 iterations, tolerance 1e-5: the labels change no more long before.
    pub const fn new(penalty: f64) -> Self {
        Self { penalty, iterations: 300, tolerance: 1e-5 }
    }

    /// The head whose soft-max is nearest to the labels. `stop` is looked at before each pass over the rows.
    ///
    /// # Shapes
    /// `rows`: `[N, dim]`, best centered and of variance about 1; `labels`: `[N]`, below `clusters`.
    ///
    /// # Errors
    /// [`Stopped`].
    ///
    /// # Panics
    /// If the shapes do not agree or a label is too large.
    pub fn fit(
        &self,
        rows: &[f32],
        dim: usize,
        labels: &[u32],
        clusters: usize,
        products: &impl Products,
        stop: &Stop,
    ) -> Result<Linear, Stopped> {
        assert!(dim > 0 && rows.len() == labels.len() * dim, "one label a row");
        assert!(labels.iter().all(|label| (*label as usize) < clusters), "labels must be below the number of clusters");
        let problem = Problem { rows, dim, labels, clusters, penalty: self.penalty, products };
        let mut at = vec![0.0; clusters * (dim + 1)];
        let (mut loss, mut slope) = problem.loss(&at);
        let mut memory: Vec<(Vec<f64>, Vec<f64>)> = Vec::new();
        let mut converged = steepest(&slope) <= self.tolerance;
        for _ in 0..self.iterations {
            if converged {
                break;
            }
            let direction = direction(&slope, &memory);
            let promised = dot(&direction, &slope);
            let mut step = if memory.is_empty() { 1.0 / dot(&slope, &slope).sqrt().max(1.0) } else { 1.0 };
            let (next, found) = loop {
                stop.check()?;
                let next: Vec<f64> = at.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
                let found = problem.loss(&next);
                // At the end rounding hides the decrease; such a step is no longer worth looking for.
                if found.0 <= loss + ARMIJO * step * promised || step < 1e-10 {
                    break (next, found);
                }
                step /= 2.0;
            };
            if found.0 >= loss {
                converged = true;
                break;
            }
            let moved: Vec<f64> = next.iter().zip(&at).map(|(new, old)| new - old).collect();
            let changed: Vec<f64> = found.1.iter().zip(&slope).map(|(new, old)| new - old).collect();
            if dot(&moved, &changed) > 0.0 {
                if memory.len() == MEMORY {
                    memory.remove(0);
                }
                memory.push((moved, changed));
            }
            at = next;
            (loss, slope) = found;
            converged = steepest(&slope) <= self.tolerance;
        }
        let (weight, bias) = at.split_at(clusters * dim);
        let single = |values: &[f64]| values.iter().map(|x| *x as f32).collect();
        Ok(Linear { weight: single(weight), bias: single(bias), loss, converged })
    }
}

impl Linear {
    /// The most probable label of each row.
    ///
    /// # Shapes
    /// `rows`: `[N, dim]`.
    pub fn labels(&self, rows: &[f32], dim: usize, products: &impl Products) -> Vec<usize> {
        let clusters = self.bias.len();
        let piece = |rows: &[f32]| {
            let mut logits = vec![0.0; rows.len() / dim * clusters];
            products.products(rows, &self.weight, dim, &mut logits);
            for row in logits.chunks_exact_mut(clusters) {
                row.iter_mut().zip(&self.bias).for_each(|(logit, bias)| *logit += bias);
            }
            argmax_rows(&logits, clusters)
        };
        rows.par_chunks(ROWS * dim).flat_map_iter(piece).collect()
    }

    /// The share of rows whose most probable label is the one they have, 0 to 1.
    ///
    /// # Shapes
    /// `rows`: `[N, dim]`; `labels`: `[N]`.
    pub fn agreement(&self, rows: &[f32], dim: usize, labels: &[u32], products: &impl Products) -> f64 {
        let given = self.labels(rows, dim, products);
        let same = given.iter().zip(labels).filter(|(given, label)| **given == **label as usize).count();
        same as f64 / given.len() as f64
    }
}

/// The first weights, `[K, D]`, then the bias, `[K]`.
struct Problem<'a, P> {
    rows: &'a [f32],
    dim: usize,
    labels: &'a [u32],
    clusters: usize,
    penalty: f64,
    products: &'a P,
}

impl<P: Products> Problem<'_, P> {
    /// What is minimized, and its gradient.
    fn loss(&self, at: &[f64]) -> (f64, Vec<f64>) {
        let (k, dim, n) = (self.clusters, self.dim, self.labels.len());
        let (weight, bias) = at.split_at(k * dim);
        let single: Vec<f32> = weight.iter().map(|x| *x as f32).collect();
        let piece = n.div_ceil(PIECES).max(ROWS);
        let pieces: Vec<(f64, Vec<f32>)> = self
            .rows
            .par_chunks(piece * dim)
            .zip(self.labels.par_chunks(piece))
            .map(|(rows, labels)| {
                let mut logits = vec![0.0; labels.len() * k];
                self.products.products(rows, &single, dim, &mut logits);
                let (mut loss, mut slope) = (0.0, vec![0.0_f32; k * (dim + 1)]);
                let (weights, biases) = slope.split_at_mut(k * dim);
                for ((row, logits), &label) in rows.chunks_exact(dim).zip(logits.chunks_exact(k)).zip(labels) {
                    let logits: Vec<f64> = logits.iter().zip(bias).map(|(x, b)| f64::from(*x) + b).collect();
                    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = logits.iter().map(|x| (x - most).exp()).sum();
                    loss += most + sum.ln() - logits[label as usize];
                    for (class, logit) in logits.iter().enumerate() {
                        let target = if class == label as usize { 1.0 } else { 0.0 };
                        let error = ((logit - most).exp() / sum - target) as f32;
                        biases[class] += error;
                        let slope = &mut weights[class * dim..(class + 1) * dim];
                        slope.iter_mut().zip(row).for_each(|(sum, x)| *sum += error * x);
                    }
                }
                (loss, slope)
            })
            .collect();
        let (mut loss, mut slope) = (0.0, vec![0.0; at.len()]);
        for (part, gradient) in pieces {
            loss += part;
            slope.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += f64::from(x));
        }
        let n = n.max(1) as f64;
        for value in &mut slope {
            *value /= n;
        }
        slope.iter_mut().zip(weight).for_each(|(sum, w)| *sum += self.penalty * w);
        (loss / n + self.penalty / 2.0 * dot(weight, weight), slope)
    }
}

/// Downhill, by the curvature that past steps met: the two loops of L-BFGS.
fn direction(slope: &[f64], memory: &[(Vec<f64>, Vec<f64>)]) -> Vec<f64> {
    let mut way: Vec<f64> = slope.iter().map(|x| -x).collect();
    let mut shares = Vec::with_capacity(memory.len());
    for (moved, changed) in memory.iter().rev() {
        let share = dot(moved, &way) / dot(moved, changed);
        way.iter_mut().zip(changed).for_each(|(x, y)| *x -= share * y);
        shares.push(share);
    }
    if let Some((moved, changed)) = memory.last() {
        let scale = dot(moved, changed) / dot(changed, changed);
        for x in &mut way {
            *x *= scale;
        }
    }
    for ((moved, changed), share) in memory.iter().zip(shares.iter().rev()) {
        let other = dot(changed, &way) / dot(moved, changed);
        way.iter_mut().zip(moved).for_each(|(x, s)| *x += (share - other) * s);
    }
    way
}

fn steepest(slope: &[f64]) -> f64 {
    slope.iter().fold(0.0, |most, x| f64::max(most, x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kmeans::Plain;
    use kinset_base::seed::Seed;

    const FIT: Logistic = Logistic { penalty: 0.1, iterations: 200, tolerance: 1e-7 };

    fn fit(rows: &[f32], dim: usize, labels: &[u32], clusters: usize) -> Linear {
        FIT.fit(rows, dim, labels, clusters, &Plain, &Stop::default()).unwrap()
    }

    #[test]
    fn one_feature_and_two_labels_meet_the_root_of_the_slope() {
        // Rows −1 and 1 with labels 0 and 1: by symmetry W = (−w, w), bias 0, and λ w = soft-max's error, 1 / (1 + e^(2w)).
        let found = fit(&[-1.0, 1.0], 1, &[0, 1], 2);
        assert!(found.converged);
        let w = f64::from(found.weight[1]);
        assert!((found.weight[0] + found.weight[1]).abs() < 1e-6 && found.bias.iter().all(|b| b.abs() < 1e-6));
        // Products are single: the loss is known to 1e-8, and so its minimum to the root of that.
        assert!((0.1 * w - 1.0 / (1.0 + (2.0 * w).exp())).abs() < 1e-5, "{w}");
    }

    #[test]
    fn a_label_that_nobody_has_gets_no_image() {
        let found = fit(&[-1.0, -0.9, 1.0, 1.1], 1, &[0, 0, 2, 2], 3);
        assert!(found.bias[1] < found.bias[0] && found.bias[1] < found.bias[2]);
        assert_eq!(found.labels(&[-1.0, 1.0, -2.0], 1, &Plain), [0, 2, 0]);
        assert!((found.agreement(&[-1.0, 1.0, -2.0, -1.0], 1, &[0, 2, 0, 2], &Plain) - 0.75).abs() < 1e-12);
    }

    #[test]
    fn the_slope_is_that_of_finite_differences() {
        let mut rng = Seed::new(5).rng();
        let rows: Vec<f32> = (0..40 * 3).map(|_| rng.normal() as f32).collect();
        let labels: Vec<u32> = (0..40).map(|i| i % 4).collect();
        let problem = Problem { rows: &rows, dim: 3, labels: &labels, clusters: 4, penalty: 0.01, products: &Plain };
        let at: Vec<f64> = (0..16).map(|_| rng.normal()).collect();
        let (_, slope) = problem.loss(&at);
        for place in 0..at.len() {
            let moved = |by: f64| {
                let mut at = at.clone();
                at[place] += by;
                problem.loss(&at).0
            };
            let wanted = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            assert!((slope[place] - wanted).abs() < 1e-4, "{place}: {} is not {wanted}", slope[place]);
        }
    }

    #[test]
    fn one_thread_and_five_give_the_same_bits() {
        let mut rng = Seed::new(5).rng();
        let rows: Vec<f32> = (0..1000 * 3).map(|_| rng.normal() as f32).collect();
        let labels: Vec<u32> = rows.chunks_exact(3).map(|row| u32::from(row[0] > row[1])).collect();
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(&rows, 3, &labels, 2))
        };
        assert_eq!(with(1), with(5));
    }

    #[test]
    fn who_is_told_to_stop_has_no_result() {
        assert_eq!(FIT.fit(&[-1.0, 1.0], 1, &[0, 1], 2, &Plain, &Stop::after(0)), Err(Stopped));
    }
}
