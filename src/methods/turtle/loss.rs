//! TURTLE's losses, of both levels: how well linear classifiers agree with labels that are themselves sought.

use candle_core::{D, Result, Tensor};

/// Cross-entropy with soft labels: −mean_i Σ_c τ_ic ln p_ic.
///
/// # Shapes
/// `logits`, `labels`: `[B, K]`; rows of `labels` sum to 1. Returns a scalar, in nats.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    (candle_nn::ops::log_softmax(logits, D::Minus1)? * labels)?.sum(D::Minus1)?.mean_all()?.neg()
}

/// Entropy of the mean label, in nats.
///
/// # Shapes
/// `labels`: `[B, K]`. Returns a scalar.
pub fn spread(labels: &Tensor) -> Result<Tensor> {
    let mean = labels.mean(0)?;
    // x ln x is 0 at 0.
    (&mean * mean.maximum(1e-30)?.log()?)?.sum_all()?.neg()
}

/// The labels of all spaces together: the mean of their soft-max.
///
/// # Shapes
/// Each of `logits`: `[B, K]`. Returns the soft-max of each, and their mean, `[B, K]`.
///
/// # Paper
/// TURTLE (arXiv 2406.07236), eq. 9.
pub fn labels(logits: &[Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
    let each = logits.iter().map(|logits| candle_nn::ops::softmax(logits, D::Minus1)).collect::<Result<Vec<_>>>()?;
    let mean = (Tensor::stack(&each, 0)?.sum(0)? / each.len() as f64)?;
    Ok((each, mean))
}

/// The parts of the outer loss; scalars.
#[derive(Clone, Debug)]
pub struct Outer {
    /// `error − γ · spread`.
    pub total: Tensor,
    /// Cross-entropy of the inner classifiers with the labels, summed over spaces.
    pub error: Tensor,
    /// Entropy of the mean label of each space, summed.
    pub spread: Tensor,
}

/// The loss of the task encoder, with the inner classifiers fixed.
///
/// # Shapes
/// `inner`: what the classifiers say, `[B, K]` each; `each`, `mean`: what [`labels`] gives.
///
/// # Paper
/// TURTLE, eq. 12, with the first-order gradient of its section 3.3.
pub fn outer(inner: &[Tensor], each: &[Tensor], mean: &Tensor, gamma: f64) -> Result<Outer> {
    let sum = |parts: Vec<Tensor>| Tensor::stack(&parts, 0)?.sum_all();
    let error = sum(inner.iter().map(|logits| cross_entropy(&logits.detach(), mean)).collect::<Result<_>>()?)?;
    let spread = sum(each.iter().map(spread).collect::<Result<_>>()?)?;
    let total = (&error - (&spread * gamma)?)?;
    Ok(Outer { total, error, spread })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use serde_json::Value;

    use super::*;
    use kinset_model::testing::numbers;

    fn wave(step: f64, phase: f64) -> Tensor {
        let values: Vec<f64> = (0..30).map(|i| 2.0 * (step * f64::from(i) + phase).sin()).collect();
        Tensor::from_vec(values, (6, 5), &Device::Cpu).unwrap()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_scalar().unwrap()
    }

    /// Written by `tests/golden/heads/make.py`.
    #[test]
    fn both_losses_and_their_gradients_are_those_of_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/heads/expected.json")).unwrap();
        let case = &golden["turtle"];
        let near = |what: &str, found: &Tensor, wanted: &Value| {
            let found = found.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
            for (found, wanted) in found.iter().zip(numbers(wanted)) {
                assert!((found - wanted).abs() < 1e-7, "{what}: {found} is not {wanted}");
            }
        };
        let task = [Var::from_tensor(&wave(0.9, 0.1)).unwrap(), Var::from_tensor(&wave(0.7, 0.5)).unwrap()];
        let inner = [Var::from_tensor(&wave(0.8, 0.3)).unwrap(), Var::from_tensor(&wave(0.6, 0.9)).unwrap()];
        let logits = |vars: &[Var; 2]| vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>();
        let (each, mean) = labels(&logits(&task)).unwrap();
        near("labels", &mean.detach(), &case["labels"]);
        let inner_loss = cross_entropy(inner[0].as_tensor(), &mean.detach()).unwrap();
        assert!((number(&inner_loss) - case["inner"].as_f64().unwrap()).abs() < 1e-9);
        let gradients = inner_loss.backward().unwrap();
        near("inner", gradients.get(inner[0].as_tensor()).unwrap(), &case["inner_gradient"]);
        assert!(gradients.get(task[0].as_tensor()).is_none(), "labels are fixed for the inner classifiers");
        let found = outer(&logits(&inner), &each, &mean, 10.0).unwrap();
        for (name, part) in [("total", &found.total), ("error", &found.error), ("spread", &found.spread)] {
            assert!((number(part) - case[name].as_f64().unwrap()).abs() < 1e-8, "{name}: {}", number(part));
        }
        let gradients = found.total.backward().unwrap();
        near("first", gradients.get(task[0].as_tensor()).unwrap(), &case["outer_gradients"][0]);
        near("second", gradients.get(task[1].as_tensor()).unwrap(), &case["outer_gradients"][1]);
        assert!(gradients.get(inner[0].as_tensor()).is_none(), "inner classifiers are fixed for the task encoder");
    }

    #[test]
    fn a_label_that_nobody_gets_spreads_nothing_and_breaks_nothing() {
        let labels = Tensor::new(&[[1.0_f64, 0.0], [1.0, 0.0]], &Device::Cpu).unwrap();
        assert!(number(&spread(&labels).unwrap()).abs() < 1e-12);
        let even = Tensor::new(&[[1.0_f64, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
        assert!((number(&spread(&even).unwrap()) - 2_f64.ln()).abs() < 1e-12);
    }
}
