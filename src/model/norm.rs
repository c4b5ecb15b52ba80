//! Batch norm: parameters that gradients move, and running statistics that the forward pass moves.

use candle_core::{Tensor, Var};

use super::error::{ModelError, Result};
use super::init::Init;
use super::params::Builder;
use kinset_kernel::{After, batch_norm, batch_norm_eval};

/// Whose statistics batch norm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those of the batch; the running statistics move towards them.
    Train,
    /// The running statistics, which stay as they are.
    Eval,
}

/// Added to the variance before the root (PyTorch's default).
pub(super) const EPSILON: f64 = 1e-5;
/// The share of the batch in the new running statistics (PyTorch's default).
const MOMENTUM: f64 = 0.1;

/// Batch norm over `[B, channels, height, width]`: biased variance for normalising, unbiased for the running value.
///
/// # Paper
/// Ioffe & Szegedy 2015, algorithm 1; defaults and the unbiased running variance as in PyTorch.
#[derive(Clone, Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Var,
    variance: Var,
}

impl BatchNorm {
    pub(super) fn build(builder: &mut Builder, name: &str, channels: usize) -> Result<Self> {
        builder.within(name, |b| {
            Ok(Self {
                weight: b.parameter("weight", &[channels], Init::Ones)?,
                bias: b.parameter("bias", &[channels], Init::Zeros)?,
                mean: b.buffer("running_mean", &[channels], Init::Zeros)?,
                variance: b.buffer("running_var", &[channels], Init::Ones)?,
            })
        })
    }

    /// Normalises, then does what `after` says.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode, after: After) -> Result<Tensor> {
        if mode == Mode::Eval {
            let (mean, variance) = (self.mean.as_detached_tensor(), self.variance.as_detached_tensor());
            return Ok(batch_norm_eval(x, &self.weight, &self.bias, &mean, &variance, EPSILON, after)?);
        }
        let normal = batch_norm(x, &self.weight, &self.bias, EPSILON, after)?;
        if normal.count < 2 {
            return Err(too_few(x));
        }
        self.follow(&normal.mean, &normal.variance, normal.count)?;
        Ok(normal.output)
    }

    /// Moves the running statistics towards those of a batch: mean, biased variance, and values per channel, two at least.
    pub(super) fn follow(&self, mean: &Tensor, variance: &Tensor, count: usize) -> Result<()> {
        let unbiased = count as f64 / (count - 1) as f64;
        blend(&self.mean, mean, 1.0)?;
        blend(&self.variance, variance, unbiased)
    }

    /// Scale and shift.
    pub(super) fn line(&self) -> [&Tensor; 2] {
        [&self.weight, &self.bias]
    }

    /// Running mean and variance.
    pub(super) fn running(&self) -> [Tensor; 2] {
        [self.mean.as_detached_tensor(), self.variance.as_detached_tensor()]
    }
}

/// The error of batch statistics of a single value per channel.
pub(super) fn too_few(x: &Tensor) -> ModelError {
    let wanted = "more than one value per channel to take batch statistics from".into();
    ModelError::Input { wanted, found: x.dims().to_vec() }
}

/// Moves a running statistic towards `scale` times that of the batch.
fn blend(running: &Var, batch: &Tensor, scale: f64) -> Result<()> {
    let kept = (running.as_detached_tensor() * (1.0 - MOMENTUM))?;
    running.set(&(kept + (batch * (MOMENTUM * scale))?)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use serde_json::Value;

    use super::super::params::{Params, values};
    use super::*;
    use crate::testing::{assert_near, numbers, wave};
    use kinset_base::seed::Seed;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/golden/model/batch_norm.json")).unwrap()
    }

    fn norm() -> (BatchNorm, Params) {
        let mut builder = Builder::fresh(Seed::new(0), &Device::Cpu);
        let norm = builder.within("bn", |b| BatchNorm::build(b, "x", 3)).unwrap();
        let params = builder.finish().unwrap();
        let set = |name: &str, values: Tensor| params.get(&format!("bn.x.{name}")).unwrap().set(&values).unwrap();
        set("weight", wave(&[3], 0.9, 1.0, 1.0));
        set("bias", wave(&[3], 1.3, 0.2, 1.0));
        set("running_mean", wave(&[3], 0.4, 0.5, 1.0));
        set("running_var", (wave(&[3], 0.8, 0.0, 0.5) + 1.0).unwrap());
        (norm, params)
    }

    #[test]
    fn a_train_step_and_an_eval_after_it_are_those_of_pytorch() {
        let (norm, params) = norm();
        let x = Var::from_tensor(&(wave(&[2, 3, 2, 2], 1.7, 0.3, 2.0) + 0.5).unwrap()).unwrap();
        let y = norm.forward(x.as_tensor(), Mode::Train, After::Nothing).unwrap();
        let grads = (&y * wave(&[2, 3, 2, 2], 0.6, 0.1, 1.0)).unwrap().sum_all().unwrap().backward().unwrap();
        let golden = golden();
        let near = |what: &str, found: &Tensor| {
            assert_near(what, &values(found).unwrap(), &numbers(&golden["train"][what]), 2e-6);
        };
        near("output", &y);
        near("running_mean", params.get("bn.x.running_mean").unwrap());
        near("running_var", params.get("bn.x.running_var").unwrap());
        near("gradient_input", grads.get(x.as_tensor()).unwrap());
        near("gradient_weight", grads.get(params.get("bn.x.weight").unwrap().as_tensor()).unwrap());
        near("gradient_bias", grads.get(params.get("bn.x.bias").unwrap().as_tensor()).unwrap());
        let y = norm.forward(x.as_tensor(), Mode::Eval, After::Nothing).unwrap();
        assert_near("eval", &values(&y).unwrap(), &numbers(&golden["eval"]["output"]), 2e-6);
        near("running_mean", params.get("bn.x.running_mean").unwrap());
    }

    #[test]
    fn a_single_value_per_channel_has_no_statistics() {
        let (norm, _) = norm();
        let x = Tensor::zeros((1, 3, 1, 1), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(norm.forward(&x, Mode::Train, After::Nothing), Err(ModelError::Input { .. })));
        assert!(norm.forward(&x, Mode::Eval, After::Nothing).is_ok());
    }
}
