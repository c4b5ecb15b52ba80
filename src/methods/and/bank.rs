//! The memory bank: one remembered direction per image, which together are the classifier. Nothing of it is learned by gradients;
//! it follows the network.

use candle_core::{D, DType, Device, Tensor};

use kinset_base::seed::Seed;
use kinset_math::cosine::FLOOR;
use kinset_model::params::values;
use kinset_stage::StageError;
use kinset_train::snapshot::Snapshot;

/// A logit that takes no part.
const NEVER: f64 = -1e9;

/// One row per image.
#[derive(Debug)]
pub struct Bank {
    /// `[N, P]`, never part of a graph.
    rows: Tensor,
}

/// Which rows of the bank count as the class of each image of a batch: the image itself, and its neighbors if it is an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positives {
    /// `[B, 1 + k]`; places that count for nothing hold the image itself.
    rows: Vec<u32>,
    /// `[B, 1 + k]`.
    counts: Vec<bool>,
    width: usize,
}

impl Positives {
    /// Of the images in `rows`; `neighbors` of an image are k rows if it is an anchor, else none.
    pub fn new<'a>(rows: &[usize], k: usize, neighbors: impl Fn(usize) -> Option<&'a [u32]>) -> Self {
        let mut positives = Self { rows: Vec::with_capacity(rows.len() * (1 + k)), counts: Vec::new(), width: 1 + k };
        for &row in rows {
            let near = neighbors(row);
            positives.rows.push(row as u32);
            positives.counts.push(true);
            for place in 0..k {
                positives.rows.push(near.map_or(row as u32, |near| near[place]));
                positives.counts.push(near.is_some());
            }
        }
        positives
    }
}

impl Bank {
    /// Random directions: every number uniform in ±√(3 / P), so that rows are about of unit length.
    pub fn random(images: usize, dim: usize, seed: Seed, device: &Device) -> Result<Self, StageError> {
        let (mut rng, most) = (seed.rng(), (3.0 / dim as f64).sqrt());
        let values = (0..images * dim).map(|_| rng.between(-most, most) as f32).collect();
        Self::of(values, dim, device)
    }

    /// Given rows, `[N, P]`.
    pub fn of(values: Vec<f32>, dim: usize, device: &Device) -> Result<Self, StageError> {
        let images = values.len() / dim;
        Ok(Self { rows: Tensor::from_vec(values, (images, dim), device)? })
    }

    /// The rows, `[N, P]`.
    pub fn values(&self) -> Result<Vec<f32>, StageError> {
        Ok(values(&self.rows)?)
    }

    pub fn loss(&self, x: &Tensor, positives: &Positives, temperature: f64) -> Result<Tensor, StageError> {
        Ok(neighborhood_loss(x, &self.rows, positives, temperature)?)
    }

    /// Moves the rows of a batch, which are distinct, towards its embeddings: the unit vector along m · row + (1 − m) · x.
    ///
    /// # Shapes
    /// `x`: `[B, P]`, unit rows.
    ///
    /// # Errors
    /// If a row would be left without direction; if the device fails.
    pub fn follow(&mut self, rows: &[usize], x: &Tensor, momentum: f64) -> Result<(), StageError> {
        let numbers: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        let index = Tensor::from_vec(numbers, rows.len(), self.rows.device())?;
        let moved = ((self.rows.index_select(&index, 0)? * momentum)? + (x.detach() * (1.0 - momentum))?)?;
        let length = moved.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        let lengths = length.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        if let Some(place) = lengths.iter().position(|length| !length.is_finite() || *length < FLOOR) {
            return Err(StageError::Degenerate {
                code: "and::no-direction",
                what: format!(
                    "the memory bank entry of image {} has length {}, so it cannot be normalized",
                    rows[place], lengths[place]
                ),
                hint: "lower the learning rate; its features are not usable".into(),
            });
        }
        let moved = moved.broadcast_div(&length)?;
        let index = index.unsqueeze(1)?.broadcast_as(moved.shape())?.contiguous()?;
        self.rows.scatter_set(&index, &moved, 0)?;
        Ok(())
    }

    /// See [`kinset_train::training::TrainingLoop::state`].
    pub fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        snapshot.tensor("bank", &mut self.rows)
    }
}

/// −ln of the probability that an image is taken for itself or one of its neighbors, by soft-max over the whole bank, averaged over
/// the batch. As differences of log-sum-exp, which no small probability can spoil.
///
/// # Shapes
/// `x`: `[B, P]`, unit rows; `bank`: `[N, P]`, detached. Returns a scalar in nats.
///
/// # Paper
/// AND, eq. 2 and 5; its authors' `lib/criterion.py` divides by B, anchors and instances alike.
pub fn neighborhood_loss(x: &Tensor, bank: &Tensor, positives: &Positives, temperature: f64) -> candle_core::Result<Tensor> {
    let batch = x.dim(0)?;
    let logits = (x.matmul(&bank.t()?)? / temperature)?;
    let index = Tensor::from_slice(&positives.rows, (batch, positives.width), x.device())?;
    let own = logits.gather(&index, 1)?;
    let hidden: Vec<f64> = positives.counts.iter().map(|&counts| if counts { 0.0 } else { NEVER }).collect();
    let hidden = Tensor::from_vec(hidden, (batch, positives.width), x.device())?.to_dtype(x.dtype())?;
    let own = (own + hidden)?.log_sum_exp(D::Minus1)?;
    (logits.log_sum_exp(D::Minus1)? - own)?.mean_all()
}

#[cfg(test)]
pub(super) mod tests {
    use candle_core::Var;

    use super::*;

    /// The toy bank of the specification, section 14.
    pub(crate) const TOY: [f32; 8] = [1.0, 0.0, 0.8, 0.6, 0.0, 1.0, -0.6, 0.8];

    fn tensor(values: &[f64], dim: usize) -> Tensor {
        Tensor::from_slice(values, (values.len() / dim, dim), &Device::Cpu).unwrap()
    }

    fn toy() -> Tensor {
        tensor(&TOY.map(|x| (f64::from(x) * 10.0).round() / 10.0), 2)
    }

    fn loss(x: &[f64], rows: &[usize], anchors: &[(usize, [u32; 1])]) -> f64 {
        let near = |row| anchors.iter().find(|(anchor, _)| *anchor == row).map(|(_, near)| near.as_slice());
        let positives = Positives::new(rows, 1, near);
        neighborhood_loss(&tensor(x, 2), &toy(), &positives, 0.1).unwrap().to_scalar::<f64>().unwrap()
    }

    #[test]
    fn the_losses_of_the_specification_hold() {
        for (found, expected) in [
            (loss(&[0.6, 0.8], &[0], &[]), 3.807286),
            (loss(&[0.6, 0.8], &[0], &[(0, [1])]), 0.180329),
            (loss(&[0.8, -0.6], &[2], &[]), 14.005502),
            (loss(&[0.6, 0.8, 0.8, -0.6], &[0, 2], &[(0, [1])]), 7.092915),
        ] {
            assert!((found - expected).abs() < 5e-7, "{found} instead of {expected}");
        }
        let p = candle_nn::ops::softmax(&(tensor(&[0.6, 0.8], 2).matmul(&toy().t().unwrap()).unwrap() / 0.1).unwrap(), 1);
        for (found, expected) in
            p.unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap().iter().zip([0.022208, 0.812787, 0.164099, 0.000905])
        {
            assert!((found - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn the_gradient_of_the_specification_holds_and_the_bank_gets_none() {
        let x = Var::from_tensor(&tensor(&[0.6, 0.8, 0.8, -0.6], 2)).unwrap();
        let positives = Positives::new(&[0, 2], 1, |row| (row == 0).then_some(&[1][..]));
        let gradients = neighborhood_loss(&x, &toy(), &positives, 0.1).unwrap().backward().unwrap();
        let found = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (found, expected) in found.iter().zip([-0.667121, 0.342269, 4.994509, -4.983537]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn the_rows_of_the_specification_move_and_the_others_stay() {
        let mut bank = Bank::of(TOY.to_vec(), 2, &Device::Cpu).unwrap();
        let x = Tensor::from_slice(&[0.6_f32, 0.8, 0.8, -0.6], (2, 2), &Device::Cpu).unwrap();
        bank.follow(&[0, 2], &x, 0.5).unwrap();
        let found = bank.values().unwrap();
        for (found, expected) in found.iter().zip([0.894427, 0.447214, 0.8, 0.6, 0.894427, 0.447214, -0.6, 0.8]) {
            assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn a_memory_without_direction_is_an_error_and_no_nan() {
        let mut bank = Bank::of(TOY.to_vec(), 2, &Device::Cpu).unwrap();
        let opposite = Tensor::from_slice(&[-1.0_f32, 0.0], (1, 2), &Device::Cpu).unwrap();
        let error = bank.follow(&[0], &opposite, 0.5).unwrap_err().to_string();
        assert!(error.contains("image 0"), "{error}");
        assert_eq!(bank.values().unwrap(), TOY, "nothing was written");
    }

    /// `tests/golden/and/loss.json`, which torch wrote.
    #[derive(serde::Deserialize)]
    pub(crate) struct Golden {
        pub(crate) entropy: Vec<f64>,
        pub(crate) anchors: Vec<u32>,
        pub(crate) neighbors: Vec<Vec<u32>>,
        batch: Vec<usize>,
        loss: f64,
        gradient: Vec<Vec<f64>>,
        moved: Vec<Vec<f64>>,
    }

    pub(crate) fn golden() -> Golden {
        serde_json::from_str(include_str!("../../../tests/golden/and/loss.json")).unwrap()
    }

    /// `wave` of `make.py`.
    pub(crate) fn wave(rows: usize, dim: usize, phase: f64) -> Vec<f64> {
        let mut all = Vec::new();
        for i in 0..rows {
            let row: Vec<f64> =
                (0..dim).map(|d| (phase + 0.7 * i as f64 + 1.3 * d as f64 + 0.21 * (i * d) as f64).sin()).collect();
            let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            all.extend(row.iter().map(|x| x / length));
        }
        all
    }

    /// The batch of the golden loss.
    fn positives(golden: &Golden) -> Positives {
        Positives::new(&golden.batch, 3, |row| {
            golden.anchors.iter().position(|&a| a as usize == row).map(|rank| golden.neighbors[rank].as_slice())
        })
    }

    #[test]
    fn loss_gradient_and_bank_are_those_of_torch() {
        let golden = golden();
        let (bank, x) = (tensor(&wave(40, 6, 0.3), 6), Var::from_tensor(&tensor(&wave(5, 6, 1.9), 6)).unwrap());
        let loss = neighborhood_loss(&x, &bank, &positives(&golden), 0.1).unwrap();
        assert!((loss.to_scalar::<f64>().unwrap() - golden.loss).abs() < 1e-10);
        let gradients = loss.backward().unwrap();
        let gradient = gradients.get(&x).unwrap().to_vec2::<f64>().unwrap();
        for (found, expected) in gradient.concat().iter().zip(golden.gradient.concat()) {
            assert!((found - expected).abs() < 1e-9);
        }
        let single = wave(40, 6, 0.3).iter().map(|&v| v as f32).collect();
        let mut bank = Bank::of(single, 6, &Device::Cpu).unwrap();
        bank.follow(&golden.batch, &x.to_dtype(DType::F32).unwrap(), 0.5).unwrap();
        let values = bank.values().unwrap();
        for (row, expected) in golden.batch.iter().zip(&golden.moved) {
            for (found, expected) in values[row * 6..][..6].iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        let golden = golden();
        let (bank, values) = (tensor(&wave(40, 6, 0.3), 6), wave(5, 6, 1.9));
        let x = Var::from_tensor(&tensor(&values, 6)).unwrap();
        let positives = positives(&golden);
        let gradients = neighborhood_loss(&x, &bank, &positives, 0.1).unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for at in 0..values.len() {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                neighborhood_loss(&tensor(&values, 6), &bank, &positives, 0.1).unwrap().to_scalar::<f64>().unwrap()
            };
            let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            assert!((gradient[at] - expected).abs() < 1e-6, "{at}: {} instead of {expected}", gradient[at]);
        }
    }

    #[test]
    fn a_random_bank_costs_ln_n_and_a_bit_and_its_rows_are_about_unit() {
        let (n, dim) = (5000, 128);
        let bank = Bank::random(n, dim, Seed::new(1), &Device::Cpu).unwrap();
        let values = bank.values().unwrap();
        let most = (3.0_f32 / 128.0).sqrt();
        assert!(values.iter().all(|v| v.abs() <= most) && values.iter().any(|v| v.abs() > 0.99 * most));
        let mean = values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / n as f64;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        let mut rng = Seed::new(2).rng();
        let mut x: Vec<f32> = (0..256 * dim).map(|_| rng.normal() as f32).collect();
        assert!(kinset_math::cosine::normalize_rows(&mut x, dim).is_empty());
        let x = Tensor::from_vec(x, (256, dim), &Device::Cpu).unwrap();
        let rows: Vec<usize> = (0..256).collect();
        let loss = bank.loss(&x, &Positives::new(&rows, 0, |_| None), 0.1).unwrap().to_scalar::<f32>().unwrap();
        assert!((f64::from(loss) - (n as f64).ln() - 0.39).abs() < 0.15, "{loss} instead of {}", (n as f64).ln() + 0.39);
    }

    #[test]
    fn probabilities_too_small_for_a_float_leave_a_finite_loss() {
        let positives = Positives::new(&[0], 0, |_| None);
        let (x, bank) = (tensor(&[1.0, 0.0], 2), tensor(&[-1.0, 0.0, 1.0, 0.0], 2));
        let loss = neighborhood_loss(&x, &bank, &positives, 1e-3).unwrap().to_scalar::<f64>().unwrap();
        assert!((loss - 2000.0).abs() < 1e-6, "{loss}");
    }

    #[test]
    fn a_saved_bank_comes_back_and_another_is_refused() {
        let mut bank = Bank::of(TOY.to_vec(), 2, &Device::Cpu).unwrap();
        let mut saved = Snapshot::default();
        bank.state(&mut saved).unwrap();
        let mut saved = saved.restoring();
        let x = Tensor::from_slice(&[0.0_f32, 1.0], (1, 2), &Device::Cpu).unwrap();
        bank.follow(&[0], &x, 0.5).unwrap();
        assert_ne!(bank.values().unwrap(), TOY);
        bank.state(&mut saved).unwrap();
        assert_eq!(bank.values().unwrap(), TOY);
        let mut other = Bank::of(TOY[..4].to_vec(), 2, &Device::Cpu).unwrap();
        assert!(other.state(&mut saved).is_err());
    }
}
