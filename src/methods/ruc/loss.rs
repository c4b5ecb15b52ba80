//! RUC's losses, and the mixing of images and targets.

use candle_core::{D, Tensor};

use kinset_base::seed::Rng;
use kinset_math::beta::beta;

/// Cross-entropy against distributions: the mean over the rows of −Σ t ln σ(z).
///
/// # Shapes
/// `logits` and `targets` `[B, K]`. Returns a scalar in nats.
///
/// # Paper
/// MixMatch, eq. 3; with smoothed targets RUC, eq. 6.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    (candle_nn::ops::log_softmax(logits, D::Minus1)? * targets)?.sum(D::Minus1)?.mean_all()?.neg()
}

/// Mean over rows *and clusters* of (σ(z) − t)².
///
/// # Shapes
/// `logits` and `targets` `[B, K]`. Returns a scalar.
///
/// # Paper
/// MixMatch, eq. 4.
pub fn square_error(logits: &Tensor, targets: &Tensor) -> candle_core::Result<Tensor> {
    (candle_nn::ops::softmax(logits, D::Minus1)? - targets)?.sqr()?.mean_all()
}

/// How a batch is mixed with itself: each row with its partner.
///
/// # Paper
/// MixMatch, eq. 8–11: the own share is the larger one.
#[derive(Clone, Debug, PartialEq)]
pub struct Mixing {
    /// What a row keeps of itself, 0.5–1.
    pub share: f64,
    /// The partner of each row.
    pub partner: Vec<usize>,
}

impl Mixing {
    /// Draws one share for the batch, from Beta(α, α), and a partner for each of its rows.
    pub fn draw(rows: usize, alpha: f64, rng: &mut Rng) -> Self {
        let share = beta(alpha, alpha, rng);
        Self { share: share.max(1.0 - share), partner: rng.permutation(rows) }
    }

    /// Mixes targets: rows of distributions.
    pub fn of_targets(&self, targets: &[Vec<f64>]) -> Vec<Vec<f64>> {
        let mix = |(own, partner): (&Vec<f64>, &usize)| {
            own.iter().zip(&targets[*partner]).map(|(a, b)| self.share * a + (1.0 - self.share) * b).collect()
        };
        targets.iter().zip(&self.partner).map(mix).collect()
    }

    /// Mixes images: the rows of `views` in this order, each with its partner.
    ///
    /// # Shapes
    /// `views` `[V, C, S, S]`; returns as many images as `order` has rows.
    pub fn of_images(&self, views: &Tensor, order: &[usize]) -> candle_core::Result<Tensor> {
        let pick = |rows: Vec<u32>| views.index_select(&Tensor::new(rows, views.device())?, 0);
        let own = pick(order.iter().map(|&row| row as u32).collect())?;
        let partners = pick(self.partner.iter().map(|&at| order[at] as u32).collect())?;
        (own * self.share)? + (partners * (1.0 - self.share))?
    }
}

/// Rows of distributions as a tensor like another.
pub fn tensor_of(rows: &[Vec<f64>], like: &Tensor) -> candle_core::Result<Tensor> {
    let columns = rows.first().map_or(0, Vec::len);
    Tensor::from_vec(rows.concat(), (rows.len(), columns), like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use serde_json::Value;

    use super::*;
    use kinset_base::seed::Seed;
    use kinset_math::softmax::softmax_rows;
    use kinset_math::targets::{guess, refine, sharpen, smooth};
    use kinset_model::testing::numbers;

    fn wave(rows: usize, columns: usize, step: f64, phase: f64, scale: f64) -> Tensor {
        let values: Vec<f64> = (0..rows * columns).map(|at| scale * (step * at as f64 + phase).sin()).collect();
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    fn near(what: &str, found: &[f64], wanted: &[f64], tolerance: f64) {
        assert_eq!(found.len(), wanted.len(), "{what}");
        for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            assert!((found - wanted).abs() <= tolerance, "{what}[{at}]: {found} is not {wanted}");
        }
    }

    fn flat(tensor: &Tensor) -> Vec<f64> {
        tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap()
    }

    #[test]
    fn a_whole_step_gives_the_numbers_of_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/ruc/step.json")).unwrap();
        let (rows, clusters) = (7, 4);
        let clean = [true, false, true, true, false, true, false];
        let label = [2, 0, 1, 3, 1, 2, 0];
        let said = |step, phase| -> Vec<Vec<f32>> {
            let logits: Vec<f32> = flat(&wave(rows, clusters, step, phase, 2.0)).into_iter().map(|v| v as f32).collect();
            softmax_rows(&logits, clusters).chunks(clusters).map(<[f32]>::to_vec).collect()
        };
        let (own2, own3) = (said(0.7, 0.1), said(0.9, 0.4));
        let (peer1, peer2, peer3) = (said(1.1, 0.2), said(1.3, 0.5), said(1.7, 0.3));
        let of = |wanted: bool| (0..rows).filter(move |&row| clean[row] == wanted);
        let sharp = |mut target: Vec<f64>| {
            sharpen(&mut target, 0.5);
            target
        };
        let refined: Vec<Vec<f64>> =
            of(true).map(|row| sharp(refine(label[row], &peer1[row], row as f64 / (rows - 1) as f64))).collect();
        let guessed: Vec<Vec<f64>> =
            of(false).map(|row| sharp(guess(&[&own2[row], &own3[row], &peer2[row], &peer3[row]]))).collect();
        near("refined", &refined.concat(), &numbers(&golden["refined"]), 1e-6);
        near("guessed", &guessed.concat(), &numbers(&golden["guessed"]), 1e-6);

        let targets = [refined.clone(), refined, guessed.clone(), guessed].concat();
        let mixing = Mixing { share: 0.64, partner: (0..2 * rows).map(|i| (5 * i + 3) % (2 * rows)).collect() };
        let mixed = mixing.of_targets(&targets);
        near("mixed", &mixed.concat(), &numbers(&golden["mixed"]), 1e-6);

        let z = Var::from_tensor(&wave(2 * rows, clusters, 0.37, 0.8, 1.5)).unwrap();
        let strong = Var::from_tensor(&wave(rows, clusters, 0.53, 0.6, 1.5)).unwrap();
        let edge = 2 * of(true).count();
        let mixed = tensor_of(&mixed, &z).unwrap();
        let part = |tensor: &Tensor, from: usize, rows: usize| tensor.narrow(0, from, rows).unwrap();
        let labeled = cross_entropy(&part(&z, 0, edge), &part(&mixed, 0, edge)).unwrap();
        let rest = 2 * rows - edge;
        let guesses = square_error(&part(&z, edge, rest), &part(&mixed, edge, rest)).unwrap();
        let guesses = (guesses * (25.0 * 0.3)).unwrap();
        let chosen = Tensor::new(of(true).map(|row| row as u32).collect::<Vec<_>>(), &Device::Cpu).unwrap();
        let smoothed: Vec<Vec<f64>> = of(true).map(|row| smooth(label[row], clusters, 0.5)).collect();
        let smoothing =
            cross_entropy(&strong.index_select(&chosen, 0).unwrap(), &tensor_of(&smoothed, &strong).unwrap()).unwrap();
        for (name, loss) in [("labeled", &labeled), ("unlabeled", &guesses), ("smoothing", &smoothing)] {
            near(name, &[loss.to_scalar::<f64>().unwrap()], &[golden[name].as_f64().unwrap()], 1e-6);
        }
        let total = ((labeled + guesses).unwrap() + smoothing).unwrap();
        let gradients = total.backward().unwrap();
        for (name, var) in [("gradient_z", &z), ("gradient_strong", &strong)] {
            near(name, &flat(gradients.get(var.as_tensor()).unwrap()), &numbers(&golden[name]), 1e-6);
        }
    }

    #[test]
    fn the_smoothing_loss_is_that_of_the_reference() {
        // methods/ruc.md section 14; and its least values, section 6.5.
        let logits = Tensor::new(&[[2_f64, 1.0, 0.0]], &Device::Cpu).unwrap();
        let target = tensor_of(&[smooth(0, 3, 0.5)], &logits).unwrap();
        near("loss", &[cross_entropy(&logits, &target).unwrap().to_scalar().unwrap()], &[1.157606], 5e-7);
        for (clusters, least) in [(10, 1.7918), (20, 2.1654)] {
            let smoothed = smooth(3, clusters, 0.5);
            let logits: Vec<f64> = smoothed.iter().map(|p| p.ln()).collect();
            let logits = Tensor::from_vec(logits, (1, clusters), &Device::Cpu).unwrap();
            let loss = cross_entropy(&logits, &tensor_of(&[smoothed], &logits).unwrap()).unwrap();
            near("least", &[loss.to_scalar().unwrap()], &[least], 5e-5);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        type Loss = fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>;
        let (start, raw) = (wave(5, 4, 0.9, 0.3, 1.5), wave(5, 4, 0.4, 0.1, 1.0));
        let targets = candle_nn::ops::softmax(&raw, D::Minus1).unwrap();
        for loss in [cross_entropy as Loss, square_error as Loss] {
            let z = Var::from_tensor(&start).unwrap();
            let gradients = loss(&z, &targets).unwrap().backward().unwrap();
            let gradient = flat(gradients.get(z.as_tensor()).unwrap());
            for (at, found) in gradient.iter().enumerate() {
                let moved = |by: f64| {
                    let mut values = flat(&start);
                    values[at] += by;
                    let z = Tensor::from_vec(values, (5, 4), &Device::Cpu).unwrap();
                    loss(&z, &targets).unwrap().to_scalar::<f64>().unwrap()
                };
                let wanted = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((found - wanted).abs() < 1e-8, "{at}: {found} is not {wanted}");
            }
        }
    }

    #[test]
    fn images_and_targets_are_mixed_alike() {
        let views = wave(6, 3, 0.8, 0.2, 1.0);
        let order = [4, 0, 5, 1];
        let rows = views.to_vec2::<f64>().unwrap();
        let targets: Vec<Vec<f64>> = order.iter().map(|&row| rows[row].clone()).collect();
        let mixing = Mixing::draw(4, 4.0, &mut Seed::new(3).rng());
        assert!((0.5..=1.0).contains(&mixing.share));
        let images = mixing.of_images(&views, &order).unwrap();
        near("mixed", &flat(&images), &mixing.of_targets(&targets).concat(), 1e-12);
        let itself = Mixing { share: 0.7, partner: vec![0, 1, 2, 3] };
        near("itself", &itself.of_targets(&targets).concat(), &targets.concat(), 1e-12);
    }
}
