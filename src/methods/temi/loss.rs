//! TEMI's loss, weighted pointwise mutual information: how much more often two images share a cluster than chance would have it.

use candle_core::{D, Result, Tensor};

/// A cluster rarer than this among the teacher's answers counts as this rare.
const LEAST: f64 = 1e-8;

/// Soft-max of scores over a temperature, in logarithms.
pub fn log_probabilities(scores: &Tensor, temperature: f64) -> Result<Tensor> {
    candle_nn::ops::log_softmax(&(scores / temperature)?, D::Minus1)
}

/// The chance that two images fall into one cluster, by one head: Σ_c p_c q_c.
///
/// # Shapes
/// `one`, `other`: logarithms of probabilities, `[B, K]`. Returns `[B]`.
pub fn same_cluster(one: &Tensor, other: &Tensor) -> Result<Tensor> {
    (one + other)?.exp()?.sum(D::Minus1)
}

/// ln Σ_c (p_c q_c)^β / m_c.
///
/// # Shapes
/// `student`, `teacher`: logarithms of probabilities, `[B, K]`; `marginal`: logarithms, `[K]`. Returns `[B]`.
pub fn information(student: &Tensor, teacher: &Tensor, marginal: &Tensor, beta: f64) -> Result<Tensor> {
    ((student + teacher)? * beta)?.broadcast_sub(marginal)?.log_sum_exp(D::Minus1)
}

/// TEMI's loss of one head: −½ mean_i w_i (I(s_i, t'_i) + I(s'_i, t_i)), a scalar.
///
/// # Shapes
/// `students`, `teachers`: logarithms of probabilities of image and neighbor, `[B, K]` each; `marginal` `[K]` and `weights` `[B]`
/// plain numbers.
///
/// # Paper
/// TEMI (arXiv 2303.17896), eqs. 6, 8 and 9; the weights are the mean of [`same_cluster`] over all heads.
pub fn temi_loss(
    students: [&Tensor; 2],
    teachers: [&Tensor; 2],
    marginal: &Tensor,
    weights: &Tensor,
    beta: f64,
) -> Result<Tensor> {
    let marginal = marginal.maximum(LEAST)?.log()?;
    let one = information(students[0], teachers[1], &marginal, beta)?;
    let other = information(students[1], teachers[0], &marginal, beta)?;
    ((one + other)? * weights)?.mean_all()? * -0.5
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use serde_json::Value;

    use super::*;
    use kinset_model::testing::numbers;

    fn wave(step: f64, phase: f64) -> Tensor {
        let values: Vec<f64> = (0..30).map(|i| (step * f64::from(i) + phase).sin()).collect();
        Tensor::from_vec(values, (6, 5), &Device::Cpu).unwrap()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    /// Written by `tests/golden/heads/make.py`.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../../../tests/golden/heads/expected.json")).unwrap()
    }

    #[test]
    fn loss_weights_and_gradient_are_those_of_pytorch() {
        for case in golden()["temi"].as_array().unwrap() {
            let (beta, student, teacher) = (
                case["beta"].as_f64().unwrap(),
                case["student_temperature"].as_f64().unwrap(),
                case["teacher_temperature"].as_f64().unwrap(),
            );
            for dtype in [DType::F64, DType::F32] {
                let scores = Var::from_tensor(&wave(0.9, 0.1).to_dtype(dtype).unwrap()).unwrap();
                let log = |t: &Tensor, temperature| log_probabilities(&t.to_dtype(dtype).unwrap(), temperature).unwrap();
                let students = [log(scores.as_tensor(), student), log(&wave(0.7, 0.5), student)];
                let teachers = [log(&wave(0.8, 0.3), teacher), log(&wave(0.6, 0.9), teacher)];
                let marginal = Tensor::from_vec(numbers(&case["marginal"]), 5, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                let weights = same_cluster(&teachers[0], &teachers[1]).unwrap();
                let found = weights.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
                for (found, wanted) in found.iter().zip(numbers(&case["weights"])) {
                    assert!((found - wanted).abs() < 1e-6, "{found} is not {wanted}");
                }
                let [s, t] = [&students, &teachers];
                let loss = temi_loss([&s[0], &s[1]], [&t[0], &t[1]], &marginal, &weights, beta).unwrap();
                let wanted = case["loss"].as_f64().unwrap();
                assert!((number(&loss) - wanted).abs() < 1e-5 * wanted.abs().max(1.0), "{} is not {wanted}", number(&loss));
                let gradients = loss.backward().unwrap();
                let gradient = gradients.get(scores.as_tensor()).unwrap().to_dtype(DType::F64).unwrap();
                let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                for (found, wanted) in gradient.iter().zip(numbers(&case["gradient"])) {
                    assert!((found - wanted).abs() < 2e-5, "{found} is not {wanted}");
                }
            }
        }
    }

    #[test]
    fn sure_and_even_answers_of_one_mind_say_ln_k_and_unsure_ones_nothing() {
        let sure = Tensor::eye(5, DType::F64, &Device::Cpu).unwrap();
        let log = log_probabilities(&(sure * 300.0).unwrap(), 1.0).unwrap();
        let even = Tensor::full(0.2_f64, 5, &Device::Cpu).unwrap();
        let ones = Tensor::ones(5, DType::F64, &Device::Cpu).unwrap();
        let loss = temi_loss([&log, &log], [&log, &log], &even, &ones, 1.0).unwrap();
        assert!((number(&loss) + 5_f64.ln()).abs() < 1e-9, "{}", number(&loss));
        let unsure = log_probabilities(&Tensor::zeros((5, 5), DType::F64, &Device::Cpu).unwrap(), 1.0).unwrap();
        let loss = temi_loss([&unsure, &unsure], [&unsure, &unsure], &even, &ones, 1.0).unwrap();
        assert!(number(&loss).abs() < 1e-9, "{}", number(&loss));
    }

    #[test]
    fn a_cluster_the_teacher_never_names_costs_no_infinity() {
        let scores = Tensor::new(&[[0.0_f32, -1e4], [0.0, -1e4]], &Device::Cpu).unwrap();
        let log = log_probabilities(&scores, 0.1).unwrap();
        let marginal = Tensor::new(&[1.0_f32, 0.0], &Device::Cpu).unwrap();
        let ones = Tensor::ones(2, DType::F32, &Device::Cpu).unwrap();
        let loss = temi_loss([&log, &log], [&log, &log], &marginal, &ones, 0.6).unwrap();
        assert!(number(&loss).is_finite());
    }
}
