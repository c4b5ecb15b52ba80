//! SCAN's loss, and the validation loss that chooses epoch and head without labels.

use candle_core::Tensor;

use kinset_kernel::scan_terms;
use kinset_math::entropy;

/// The parts of SCAN's loss, summed over the heads; scalars, in nats.
#[derive(Clone, Debug)]
pub struct ScanLoss {
    /// `consistency − λ · entropy`.
    pub total: Tensor,
    /// How much anchor and neighbor disagree.
    pub consistency: Tensor,
    /// How evenly the anchors spread over the clusters.
    pub entropy: Tensor,
}

/// SCAN's loss of all heads.
///
/// # Shapes
/// `anchors`, `neighbors`: logits `[B, H·K]`, head by head.
///
/// # Paper
/// SCAN, eq. 2. As in the authors' code the logarithm of an agreement is not taken below −100, and a mean probability below
/// 1e-8 counts as 1e-8.
pub fn scan_loss(anchors: &Tensor, neighbors: &Tensor, heads: usize, entropy_weight: f64) -> candle_core::Result<ScanLoss> {
    let terms = scan_terms(anchors, neighbors, heads)?.sum(0)?;
    let (consistency, entropy) = (terms.get(0)?, terms.get(1)?);
    let total = (&consistency - (&entropy * entropy_weight)?)?;
    Ok(ScanLoss { total, consistency, entropy })
}

/// SCAN's validation loss of one head, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Validation {
    /// Mean of −ln(p_a · p_n) over images and their neighbors, the image itself among them.
    pub consistency: f64,
    /// Entropy of the mean probability.
    pub entropy: f64,
}

impl Validation {
    /// What is minimized: both parts with weight 1, whatever λ is in training.
    pub fn total(&self) -> f64 {
        self.consistency - self.entropy
    }
}

/// Validates one head without labels.
///
/// # Shapes
/// `probabilities`: `[N, K]`; `index`: `[N, width]`, of which the first `k` columns count.
///
/// # Paper
/// Not in the paper: SCAN's `utils/evaluate_utils.py`, which pairs every image with itself too.
pub fn validation_loss(probabilities: &[f32], clusters: usize, index: &[u32], width: usize, k: usize) -> Validation {
    use rayon::prelude::*;
    let row = |r: usize| &probabilities[r * clusters..(r + 1) * clusters];
    let disagreement = |a: usize, b: usize| {
        let dot: f64 = row(a).iter().zip(row(b)).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        -dot.ln().max(-100.0)
    };
    let n = probabilities.len() / clusters;
    let per_row: Vec<f64> = (0..n)
        .into_par_iter()
        .map(|r| {
            let others = &index[r * width..r * width + k];
            disagreement(r, r) + others.iter().map(|&other| disagreement(r, other as usize)).sum::<f64>()
        })
        .collect();
    Validation {
        consistency: per_row.iter().sum::<f64>() / (n * (k + 1)) as f64,
        entropy: entropy::entropy(&entropy::mean_distribution(probabilities, clusters)),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{D, DType, Device, Var};

    use super::*;

    fn logits() -> (Vec<f64>, Vec<f64>) {
        let cell =
            |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> { (0..30).map(|at| f((at / 5) as f64, (at % 5) as f64)).collect() };
        (cell(&|i, c| 2.0 * (1.1 * i + 0.9 * c).cos()), cell(&|i, c| 2.0 * (0.8 * i - 0.6 * c + 0.3).sin()))
    }

    fn tensor(values: Vec<f64>, dtype: DType) -> Tensor {
        Tensor::from_vec(values, (6, 5), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn the_loss_equals_the_authors() {
        let (a, n) = logits();
        for (weight, expected) in [(2.0, -1.384_392_7), (5.0, -6.153_299_8)] {
            let loss = scan_loss(&tensor(a.clone(), DType::F32), &tensor(n.clone(), DType::F32), 1, weight).unwrap();
            assert!((number(&loss.consistency) - 1.794_878_5).abs() < 1e-6);
            assert!((number(&loss.entropy) - 1.589_635_6).abs() < 1e-6);
            assert!((number(&loss.total) - expected).abs() < 2e-6);
        }
    }

    #[test]
    fn the_validation_loss_equals_the_authors() {
        let p = candle_nn::ops::softmax(&tensor(logits().0, DType::F32), D::Minus1).unwrap();
        let p = p.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let index: Vec<u32> = (0..6).flat_map(|i| [(i + 1) % 6, (i + 2) % 6]).collect();
        let found = validation_loss(&p, 5, &index, 2, 2);
        assert!((found.entropy - 1.589_635_6).abs() < 1e-6);
        assert!((found.consistency - 1.515_934_6).abs() < 1e-6);
        assert!((found.total() + 0.073_701_0).abs() < 1e-6);
    }

    #[test]
    fn renaming_clusters_changes_nothing_and_agreement_of_one_hots_costs_nothing() {
        let (a, n) = logits();
        let order = Tensor::new(&[3_u32, 0, 4, 1, 2], &Device::Cpu).unwrap();
        let renamed = |v: &[f64]| tensor(v.to_vec(), DType::F64).index_select(&order, 1).unwrap();
        let plain = scan_loss(&tensor(a.clone(), DType::F64), &tensor(n.clone(), DType::F64), 1, 5.0).unwrap();
        let other = scan_loss(&renamed(&a), &renamed(&n), 1, 5.0).unwrap();
        assert!((number(&plain.total) - number(&other.total)).abs() < 1e-12);

        let sure = (Tensor::eye(5, DType::F64, &Device::Cpu).unwrap() * 200.0).unwrap();
        let loss = scan_loss(&sure, &sure, 1, 1.0).unwrap();
        assert!(number(&loss.consistency).abs() < 1e-12);
        assert!((number(&loss.entropy) - 5_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn complete_disagreement_is_large_but_finite() {
        let one = (Tensor::eye(5, DType::F32, &Device::Cpu).unwrap() * 500.0).unwrap();
        let other = one.index_select(&Tensor::new(&[1_u32, 2, 3, 4, 0], &Device::Cpu).unwrap(), 0).unwrap();
        let consistency = number(&scan_loss(&one, &other, 1, 5.0).unwrap().consistency);
        assert!((80.0..=100.0).contains(&consistency), "{consistency}");
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        let (a, n) = logits();
        let (va, vn) = (
            Var::from_tensor(&tensor(a.clone(), DType::F64)).unwrap(),
            Var::from_tensor(&tensor(n.clone(), DType::F64)).unwrap(),
        );
        let gradients = scan_loss(&va, &vn, 1, 5.0).unwrap().total.backward().unwrap();
        let loss = |a: &[f64], n: &[f64]| {
            number(&scan_loss(&tensor(a.to_vec(), DType::F64), &tensor(n.to_vec(), DType::F64), 1, 5.0).unwrap().total)
        };
        for (var, first) in [(&va, true), (&vn, false)] {
            let gradient = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for at in 0..30 {
                let moved = |by: f64| {
                    let (mut a, mut n) = (a.clone(), n.clone());
                    if first {
                        a[at] += by;
                    } else {
                        n[at] += by;
                    }
                    loss(&a, &n)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((gradient[at] - expected).abs() < 1e-7);
            }
        }
    }
}
