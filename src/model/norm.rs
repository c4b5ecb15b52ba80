//! Batch norm: parameters that gradients move, and running statistics that the forward pass moves.

use candle_core::{Tensor, Var};

use super::error::{ModelError, Result};
use super::init::Init;
use super::ops;
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

    /// Normalises, then takes the positive part if `relu`.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode, relu: bool) -> Result<Tensor> {
        let train = mode == Mode::Train;
        if train && x.elem_count() <= self.weight.elem_count() {
            return Err(ModelError::Input {
                wanted: "more than one value per channel to take batch statistics from".into(),
                found: x.dims().to_vec(),
            });
        }
        let running = (&self.mean, &self.variance);
        Ok(ops::batch_norm(x, &self.weight, &self.bias, running, train, MOMENTUM, EPSILON, relu)?)
    }
}
