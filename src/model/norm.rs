//! Batch norm: parameters that gradients move, and running statistics that the forward pass moves.

use candle_core::{Tensor, Var};

use super::error::{ModelError, Result};
use super::init::Init;
use super::ops::{After, batch_norm, batch_norm_eval};
use super::params::Builder;

/// Whose statistics batch norm uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those of the batch; the running statistics move towards them.
    Train,
    /// The running statistics, which stay as they are.
    Eval,
}

/// Added to the variance before the root (PyTorch's default).
const EPSILON: f64 = 1e-5;
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
            return Err(ModelError::Input {
                wanted: "more than one value per channel to take batch statistics from".into(),
                found: x.dims().to_vec(),
            });
        }
        let unbiased = normal.count as f64 / (normal.count - 1) as f64;
        blend(&self.mean, &normal.mean, 1.0)?;
        blend(&self.variance, &normal.variance, unbiased)?;
        Ok(normal.output)
    }
}

/// Moves a running statistic towards `scale` times that of the batch.
fn blend(running: &Var, batch: &Tensor, scale: f64) -> Result<()> {
    let kept = (running.as_detached_tensor() * (1.0 - MOMENTUM))?;
    running.set(&(kept + (batch * (MOMENTUM * scale))?)?)?;
    Ok(())
}
