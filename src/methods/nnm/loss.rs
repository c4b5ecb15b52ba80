//! NNM's loss: agreement row by row, and cluster by cluster.

use candle_core::{D, Tensor};
use rayon::prelude::*;

/// What one head says of a batch: logits `[B, K]`.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// Of the anchors.
    pub anchors: &'a Tensor,
    /// Of one mined neighbor of each.
    pub neighbors: &'a Tensor,
    /// Of a second view of each anchor; none: the first serves again, as in the paper's figure.
    pub second: Option<&'a Tensor>,
}

/// The weights of the loss that are not 1.
#[derive(Clone, Copy, Debug)]
pub struct TermWeights {
    /// Of the class terms; 1 in the paper.
    pub class: f64,
    /// Of the entropy, λ.
    pub entropy: f64,
}

/// The parts of NNM's loss; scalars, in nats.
#[derive(Clone, Debug)]
pub struct NnmLoss {
    /// The match within the batch: `consistency + class − λ · entropy`.
    pub local: Tensor,
    /// How much the views and their neighbors disagree, C(P, Q).
    pub consistency: Tensor,
    /// How hard it is to tell clusters by whom they hold, D(P, Q).
    pub class: Tensor,
    /// How evenly both views of the anchors spread over the clusters.
    pub entropy: Tensor,
    /// The match with the whole set, C(S, T) + D(S, T), if there is something to match.
    pub global: Option<Tensor>,
}

impl NnmLoss {
    /// What is minimized.
    pub fn total(&self) -> candle_core::Result<Tensor> {
        match &self.global {
            Some(global) => &self.local + global,
            None => Ok(self.local.clone()),
        }
    }
}

/// NNM's loss of one head.
///
/// # Shapes
/// `nearest`: `[B]`, u32, each anchor's nearest anchor in the batch. `targets`: `[B, K]`, logarithms of the probabilities each
/// image is matched with; they get no gradient if they were made without one.
///
/// # Paper
/// NNM, as its authors' code has it since July 2021; without a second view, as the paper's figure has it. The logarithm of an
/// agreement is not taken below −100, and a mean probability below 1e-8 counts as 1e-8.
pub fn nnm_loss(
    logits: &Logits<'_>,
    nearest: &Tensor,
    targets: Option<&Tensor>,
    weights: TermWeights,
) -> candle_core::Result<NnmLoss> {
    let log = |logits: &Tensor| candle_nn::ops::log_softmax(logits, D::Minus1);
    let anchors = log(logits.anchors)?;
    let second = logits.second.map_or_else(|| Ok(anchors.clone()), log)?;
    let local = anchors.index_select(nearest, 0)?;
    let ours = Tensor::cat(&[&anchors, &second], 0)?;
    let theirs = Tensor::cat(&[&log(logits.neighbors)?, &local], 0)?;
    let consistency = disagreement(&ours, &theirs)?;
    let class = class_contrast(&ours, &theirs)?;
    let mean = ours.exp()?.mean(0)?.maximum(1e-8)?;
    let entropy = (&mean * mean.log()?)?.sum_all()?.neg()?;
    let local = ((&consistency + (&class * weights.class)?)? - (&entropy * weights.entropy)?)?;
    let global = targets
        .map(|targets| {
            let all = Tensor::cat(&[&ours, &theirs], 0)?;
            let fourfold = targets.repeat((4, 1))?;
            disagreement(&all, &fourfold)? + (class_contrast(&all, &fourfold)? * weights.class)?
        })
        .transpose()?;
    Ok(NnmLoss { local, consistency, class, entropy, global })
}

/// C(X, Y) = mean_i −ln(X_i · Y_i), from logarithms `[B, K]`: f32 cannot hold an agreement of e^−100.
fn disagreement(x: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
    (x + y)?.log_sum_exp(D::Minus1)?.neg()?.minimum(100.0)?.mean_all()
}

/// D(X, Y), from logarithms `[B, K]`: columns of X against columns of Y, all of unit length, no temperature.
fn class_contrast(x: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
    let columns = |log: &Tensor| {
        let p = log.exp()?;
        // The floor keeps the gradient of a cluster that nobody is in from being 0 / 0.
        let length = p.sqr()?.sum_keepdim(0)?.maximum(1e-24)?.sqrt()?;
        p.broadcast_div(&length)
    };
    let (x, y) = (columns(x)?, columns(y)?);
    let cosines = x.t()?.matmul(&y)?;
    let own = (x * y)?.sum(0)?;
    (cosines.log_sum_exp(D::Minus1)? - own)?.mean_all()
}

/// D(X, X) of a whole table of probabilities `[N, K]`, in double precision.
pub fn class_contrast_of(probabilities: &[f32], clusters: usize) -> f64 {
    // Row `k` of XᵀX, in the order of the images, whatever the number of threads.
    let products: Vec<Vec<f64>> = (0..clusters)
        .into_par_iter()
        .map(|k| {
            let mut sums = vec![0.0; clusters];
            for row in probabilities.chunks_exact(clusters) {
                let own = f64::from(row[k]);
                sums.iter_mut().zip(row).for_each(|(sum, &p)| *sum += own * f64::from(p));
            }
            sums
        })
        .collect();
    let length: Vec<f64> = (0..clusters).map(|k| products[k][k].sqrt().max(1e-12)).collect();
    let of_cluster = |k: usize| {
        let cosine = |j: usize| products[k][j] / (length[k] * length[j]);
        (0..clusters).map(|j| cosine(j).exp()).sum::<f64>().ln() - cosine(k)
    };
    (0..clusters).map(of_cluster).sum::<f64>() / clusters as f64
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use serde_json::Value;

    use super::*;
    use crate::simclr::contrastive_loss;

    fn table(values: &[f64], rows: usize, dtype: DType) -> Tensor {
        Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn cells(rows: usize, columns: usize, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        (0..rows * columns).map(|at| f((at / columns) as f64, (at % columns) as f64)).collect()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    fn list(t: &Tensor) -> Vec<f64> {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// What a loss is made from, in double precision.
    #[derive(Clone)]
    struct Input {
        b: usize,
        /// Anchors, neighbors, and the second view, if there is one.
        logits: Vec<Vec<f64>>,
        nearest: Vec<u32>,
        /// Probabilities.
        targets: Option<Vec<f64>>,
        entropy_weight: f64,
    }

    impl Input {
        fn loss_of(&self, logits: &[Tensor], dtype: DType) -> NnmLoss {
            let nearest = Tensor::new(self.nearest.clone(), &Device::Cpu).unwrap();
            let targets = self.targets.as_ref().map(|q| table(q, self.b, DType::F64).log().unwrap().to_dtype(dtype).unwrap());
            let logits = Logits { anchors: &logits[0], neighbors: &logits[1], second: logits.get(2) };
            nnm_loss(&logits, &nearest, targets.as_ref(), TermWeights { class: 1.0, entropy: self.entropy_weight }).unwrap()
        }

        fn loss(&self, dtype: DType) -> NnmLoss {
            let logits: Vec<Tensor> = self.logits.iter().map(|values| table(values, self.b, dtype)).collect();
            self.loss_of(&logits, dtype)
        }

        /// Of the total, with respect to all logits.
        fn gradients(&self, dtype: DType) -> Vec<Vec<f64>> {
            let vars: Vec<Var> =
                self.logits.iter().map(|values| Var::from_tensor(&table(values, self.b, dtype)).unwrap()).collect();
            let logits: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            let gradients = self.loss_of(&logits, dtype).total().unwrap().backward().unwrap();
            vars.iter().map(|var| list(gradients.get(var).unwrap())).collect()
        }
    }

    /// methods/nnm.md, section 4.2.
    fn fixture(second_view: bool, global: bool) -> Input {
        let mut logits = vec![
            cells(4, 3, |i, k| 2.0 * (1.0 + 0.7 * i + 1.3 * k).sin()),
            cells(4, 3, |i, k| 2.0 * (0.5 + 0.9 * i + 0.4 * k).cos()),
        ];
        if second_view {
            logits.push(cells(4, 3, |i, k| 1.5 * (0.3 + 1.1 * i + 0.8 * k).sin()));
        }
        let bank = table(&cells(6, 3, |r, k| 3.0 * (0.2 + 0.6 * r + 1.7 * k).cos()), 6, DType::F64);
        let bank = candle_nn::ops::softmax(&bank, D::Minus1).unwrap();
        let rows = Tensor::new(&[5_u32, 0, 3, 2], &Device::Cpu).unwrap();
        let targets = global.then(|| list(&bank.index_select(&rows, 0).unwrap()));
        Input { b: 4, logits, nearest: vec![2, 3, 0, 1], targets, entropy_weight: 5.0 }
    }

    #[track_caller]
    fn assert_near(found: f64, wanted: f64, tolerance: f64, what: &str) {
        assert!((found - wanted).abs() <= tolerance, "{what}: {found} is not {wanted}");
    }

    #[test]
    fn the_loss_and_its_gradients_equal_the_authors() {
        let wanted = [(false, None, -2.587_881_84), (true, Some(1.421_645_89 + 1.080_395_20), -0.085_840_75)];
        let rows = [
            [
                [0.098_636_1, -0.087_051_4, -0.011_584_7],
                [-0.006_117_7, -0.029_436_8, 0.035_554_5],
                [0.008_218_5, 0.054_049_3, -0.062_267_8],
            ],
            [
                [0.162_650_1, -0.084_973_6, -0.077_676_5],
                [0.046_023_3, -0.037_075_6, -0.008_947_6],
                [0.028_004_5, 0.061_161_5, -0.089_166_0],
            ],
        ];
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-4)] {
            for ((global, part, total), rows) in wanted.into_iter().zip(rows) {
                let input = fixture(true, global);
                let loss = input.loss(dtype);
                assert_near(number(&loss.consistency), 0.952_650_32, tolerance, "C(P, Q)");
                assert_near(number(&loss.class), 1.161_667_21, tolerance, "D(P, Q)");
                assert_near(number(&loss.entropy), 0.940_439_87, tolerance, "H");
                assert_near(number(&loss.total().unwrap()), total, tolerance, "total");
                assert_eq!(loss.global.is_some(), global);
                if let (Some(found), Some(part)) = (&loss.global, part) {
                    assert_near(number(found), part, tolerance, "C(S, T) + D(S, T)");
                    assert_near(number(&loss.local) + part, total, tolerance, "the sum");
                }
                for (gradient, row) in input.gradients(dtype).iter().zip(rows) {
                    for (found, wanted) in gradient.iter().zip(row) {
                        assert_near(*found, wanted, tolerance, "gradient of row 0");
                    }
                }
            }
            let figure = fixture(false, false).loss(dtype);
            assert_near(number(&figure.consistency), 0.742_447_40, tolerance, "C, as in the paper's figure");
            assert_near(number(&figure.class), 1.074_815_68, tolerance, "D, as in the paper's figure");
        }
    }

    #[test]
    fn the_two_global_parts_equal_the_authors_one_by_one() {
        let input = fixture(true, true);
        let log = |values: &[f64]| candle_nn::ops::log_softmax(&table(values, 4, DType::F64), D::Minus1).unwrap();
        let (p, n, second) = (log(&input.logits[0]), log(&input.logits[1]), log(&input.logits[2]));
        let l = p.index_select(&Tensor::new(input.nearest.clone(), &Device::Cpu).unwrap(), 0).unwrap();
        let s = Tensor::cat(&[p, second, n, l], 0).unwrap();
        let t = table(input.targets.as_ref().unwrap(), 4, DType::F64).log().unwrap().repeat((4, 1)).unwrap();
        assert_near(number(&disagreement(&s, &t).unwrap()), 1.421_645_89, 1e-6, "C(S, T)");
        assert_near(number(&class_contrast(&s, &t).unwrap()), 1.080_395_20, 1e-6, "D(S, T)");
    }

    #[test]
    fn larger_losses_equal_pytorchs() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/nnm/golden.json")).unwrap();
        let numbers = |list: &Value| -> Option<Vec<f64>> {
            list.as_array().map(|list| list.iter().map(|v| v.as_f64().unwrap()).collect())
        };
        let cases = golden["loss"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let logits = ["anchors", "neighbors", "second"].iter().filter_map(|part| numbers(&case[*part])).collect();
            let input = Input {
                b: case["b"].as_u64().unwrap() as usize,
                logits,
                nearest: numbers(&case["nearest"]).unwrap().into_iter().map(|v| v as u32).collect(),
                targets: numbers(&case["targets"]),
                entropy_weight: case["weight"].as_f64().unwrap(),
            };
            let loss = input.loss(DType::F64);
            let wanted = |part: &str| case[part].as_f64().unwrap();
            for (part, found) in [("consistency", &loss.consistency), ("class", &loss.class), ("entropy", &loss.entropy)] {
                assert_near(number(found), wanted(part), 1e-9 * wanted(part).abs().max(1.0), &format!("{name}, {part}"));
            }
            assert_near(number(&loss.total().unwrap()), wanted("total"), 1e-8, name);
            if name == "sure" {
                // PyTorch does not believe gradients of agreements below 1e-12.
                assert!(input.gradients(DType::F32).iter().flatten().all(|g| g.is_finite()));
                continue;
            }
            for (gradient, wanted) in input.gradients(DType::F64).iter().zip(case["gradients"].as_array().unwrap()) {
                for (found, wanted) in gradient.iter().zip(numbers(wanted).unwrap()) {
                    assert_near(*found, wanted, 1e-9, &format!("{name}, gradient"));
                }
            }
        }
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        for (second, global) in [(true, true), (true, false), (false, true)] {
            let input = fixture(second, global);
            for (which, gradient) in input.gradients(DType::F64).iter().enumerate() {
                for (at, found) in gradient.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut input = input.clone();
                        input.logits[which][at] += by;
                        number(&input.loss(DType::F64).total().unwrap())
                    };
                    assert_near(*found, (moved(1e-5) - moved(-1e-5)) / 2e-5, 1e-8, "gradient");
                }
            }
        }
    }

    #[test]
    fn without_targets_nothing_flows_into_them_and_without_weights_only_consistency_is_left() {
        let input = fixture(true, false);
        let logits: Vec<Tensor> = input.logits.iter().map(|values| table(values, 4, DType::F64)).collect();
        let nearest = Tensor::new(input.nearest, &Device::Cpu).unwrap();
        let logits = Logits { anchors: &logits[0], neighbors: &logits[1], second: Some(&logits[2]) };
        let loss = nnm_loss(&logits, &nearest, None, TermWeights { class: 0.0, entropy: 0.0 }).unwrap();
        assert_near(number(&loss.total().unwrap()), number(&loss.consistency), 1e-12, "total");
    }

    #[test]
    fn clusters_that_nobody_is_in_give_numbers_and_no_nan() {
        // The third cluster's probability is 0 in f32, for anchors and neighbors alike; the last row is torn apart.
        let logits = |sign: f64| {
            let mut rows = cells(6, 3, |i, k| if k > 1.0 { -500.0 } else { 100.0 * (i + k).sin() });
            rows[15] = 400.0 * sign;
            rows[16] = -400.0 * sign;
            rows
        };
        let input = Input {
            b: 6,
            logits: vec![logits(1.0), logits(-1.0), logits(1.0)],
            nearest: vec![1, 2, 3, 4, 5, 0],
            targets: Some(vec![1.0 / 3.0; 18]),
            entropy_weight: 5.0,
        };
        let loss = input.loss(DType::F32);
        assert!(number(&loss.total().unwrap()).is_finite());
        assert!(input.gradients(DType::F32).iter().flatten().all(|g| g.is_finite()));
    }

    /// methods/nnm.md, section 4.1: K, the least D, and at the plateau with permuted targets the largest probability, C, D and the
    /// global part.
    const LIMITS: [(usize, f64, f64, f64, f64, f64); 6] = [
        (10, 1.4612, 0.76, 0.54, 1.52, 5.12),
        (15, 1.8165, 0.74, 0.59, 1.86, 5.97),
        (20, 2.0782, 0.74, 0.61, 2.12, 6.57),
        (50, 2.9458, 0.72, 0.66, 2.96, 8.46),
        (100, 3.6222, 0.71, 0.67, 3.63, 9.87),
        (200, 4.3069, 0.71, 0.68, 4.31, 11.27),
    ];

    #[test]
    fn untrained_heads_start_at_minus_three_times_the_logarithm_of_k() {
        for (k, ..) in LIMITS {
            let logits = |phase: f64| cells(64, k, |i, j| 0.02 * (1.7 * i + 0.9 * j + phase).sin());
            let input = Input {
                b: 64,
                logits: vec![logits(0.0), logits(1.0), logits(2.0)],
                nearest: (0..64).rev().collect(),
                targets: None,
                entropy_weight: 5.0,
            };
            let total = number(&input.loss(DType::F32).total().unwrap());
            assert_near(total, -3.0 * (k as f64).ln(), 0.02, &format!("{k} clusters"));
        }
    }

    #[test]
    fn perfect_clusters_reach_the_least_class_term() {
        for (k, least, ..) in LIMITS {
            let sure = (Tensor::eye(k, DType::F64, &Device::Cpu).unwrap() * 300.0).unwrap();
            let log = candle_nn::ops::log_softmax(&sure, D::Minus1).unwrap();
            assert_near(number(&class_contrast(&log, &log).unwrap()), least, 1e-4, &format!("{k} clusters"));
            let p: Vec<f32> = list(&log.exp().unwrap()).into_iter().map(|v| v as f32).collect();
            assert_near(class_contrast_of(&p, k), least, 1e-4, "of a whole table");
        }
    }

    #[test]
    fn mixed_up_targets_hold_confidence_down_to_the_plateau_of_the_reference() {
        for (k, _, probability, consistency, class, global) in LIMITS.into_iter().take(4) {
            // Perfect balanced clusters, every image as sure as every other; row (i, j) is of cluster i and matched with one of j.
            let parts = |sure: f64| {
                let log =
                    |cluster: usize, of: usize| if cluster == of { sure.ln() } else { ((1.0 - sure) / (k - 1) as f64).ln() };
                let rows = |which: fn(usize, usize) -> usize| -> Tensor {
                    let values = (0..k * k * k).map(|at| log(which(at / k / k, at / k % k), at % k)).collect::<Vec<_>>();
                    table(&values, k * k, DType::F64)
                };
                let (own, other) = (rows(|i, _| i), rows(|_, j| j));
                let of =
                    |x: &Tensor, y: &Tensor| (number(&disagreement(x, y).unwrap()), number(&class_contrast(x, y).unwrap()));
                let ((c, d), (far, apart)) = (of(&own, &own), of(&own, &other));
                assert_near(apart, (k as f64).ln(), 1e-6, "who is matched at random tells clusters not apart");
                (c, d, far + apart)
            };
            let total = |sure: f64| {
                let (c, d, g) = parts(sure);
                c + d + g
            };
            let sure =
                (50..100).map(|p| f64::from(p) / 100.0).fold(0.5, |best, p| if total(p) < total(best) { p } else { best });
            let (c, d, g) = parts(sure);
            assert_near(sure, probability, 0.0101, &format!("{k} clusters, the largest probability"));
            assert_near(c, consistency, 0.02, &format!("{k} clusters, C"));
            assert_near(d, class, 0.011, &format!("{k} clusters, D"));
            assert_near(g, global, 0.03, &format!("{k} clusters, the global part"));
        }
    }

    #[test]
    fn the_pretext_loss_of_the_reference_comes_out() {
        // methods/nnm.md, section 3.1: rows 2i and 2i + 1 are the views of item i; here all first views come first.
        let mut z = cells(6, 4, |i, k| (0.4 + 1.9 * i + 0.7 * k).sin());
        for row in z.chunks_mut(4) {
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            for v in row {
                *v /= length;
            }
        }
        let rows = Tensor::new(&[0_u32, 2, 4, 1, 3, 5], &Device::Cpu).unwrap();
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-4)] {
            let z = table(&z, 6, dtype).index_select(&rows, 0).unwrap();
            assert_near(number(&contrastive_loss(&z, 0.1).unwrap()), 12.206_012, tolerance, "NT-Xent");
        }
    }
}
