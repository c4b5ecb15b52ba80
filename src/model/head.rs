//! Heads on the features: projections and predictions for pretext tasks, linear layers for clusters.

use candle_core::{Device, Tensor};

use super::error::Result;
use super::init::Init;
use super::norm::{BatchNorm, Mode};
use super::params::{Builder, Params};
use kinset_artifact::encoder::{Projection, ProjectionKind};
use kinset_base::seed::Seed;
use kinset_kernel::{After, Layer, linear, relu};

/// Weights times input plus bias.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(super) fn build(b: &mut Builder, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        b.within(name, |b| Self::build_here(b, inputs, outputs))
    }

    /// Without a name of its own: the linear layer *is* the part it belongs to.
    fn build_here(b: &mut Builder, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            weight: b.parameter("weight", &[outputs, inputs], Init::Linear { inputs })?,
            bias: b.parameter("bias", &[outputs], Init::Linear { inputs })?,
        })
    }

    /// One that starts small: normal weights of deviation 0.02, no bias.
    pub(super) fn build_small(b: &mut Builder, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        b.within(name, |b| {
            Ok(Self {
                weight: b.parameter("weight", &[outputs, inputs], Init::Normal { deviation: 0.02 })?,
                bias: b.parameter("bias", &[outputs], Init::Zeros)?,
            })
        })
    }

    /// Several layers of equal shape as one: what each makes of `x`, side by side.
    ///
    /// # Shapes
    /// `x`: `[B, inputs]`. Returns `[B, layers · outputs]`.
    pub(super) fn side_by_side(layers: &[&Self], x: &Tensor) -> Result<Tensor> {
        if let [one] = layers {
            return one.forward(x);
        }
        let weights: Vec<&Tensor> = layers.iter().map(|layer| &layer.weight).collect();
        let biases: Vec<&Tensor> = layers.iter().map(|layer| &layer.bias).collect();
        Ok(linear(x, &Tensor::cat(&weights, 0)?, &Tensor::cat(&biases, 0)?)?)
    }

    /// # Shapes
    /// `x`: `[B, inputs]`. Returns `[B, outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(linear(x, &self.weight, &self.bias)?)
    }

    /// For a kernel of more than one layer, each output times a number of its own if there is one.
    pub(super) fn lent<'a>(&'a self, scale: Option<&'a Tensor>) -> Layer<'a> {
        Layer { weight: &self.weight, bias: &self.bias, scale }
    }
}

/// Two linear layers, between them a ReLU, before it perhaps batch norm.
#[derive(Clone, Debug)]
pub(super) struct Mlp {
    first: Linear,
    norm: Option<BatchNorm>,
    second: Linear,
}

impl Mlp {
    /// Numbers, not words, for names: in the files people have, batch norm and ReLU count as layers.
    fn build(b: &mut Builder, [inputs, hidden, outputs]: [usize; 3], norm: bool) -> Result<Self> {
        Ok(Self {
            first: Linear::build(b, "0", inputs, hidden)?,
            norm: norm.then(|| BatchNorm::build(b, "1", hidden)).transpose()?,
            second: Linear::build(b, if norm { "3" } else { "2" }, hidden, outputs)?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let hidden = self.first.forward(x)?;
        let hidden = match &self.norm {
            None => relu(&hidden)?,
            Some(norm) => {
                let (rows, columns) = hidden.dims2()?;
                let map = hidden.reshape((rows, columns, 1, 1))?;
                norm.forward(&map, mode, After::Relu)?.reshape((rows, columns))?
            }
        };
        self.second.forward(&hidden)
    }
}

/// A projection head, by [`ProjectionKind`].
#[derive(Clone, Debug)]
pub(super) enum ProjectionHead {
    Linear(Linear),
    Mlp(Mlp),
}

impl ProjectionHead {
    pub(super) fn build(b: &mut Builder, features: usize, projection: &Projection) -> Result<Self> {
        let shape = [features, features, projection.dim];
        Ok(match projection.kind {
            ProjectionKind::Linear => Self::Linear(Linear::build_here(b, features, projection.dim)?),
            ProjectionKind::Mlp => Self::Mlp(Mlp::build(b, shape, false)?),
            ProjectionKind::MlpNorm => Self::Mlp(Mlp::build(b, shape, true)?),
        })
    }

    /// # Shapes
    /// `features`: `[B, D]`. Returns `[B, P]`, rows of any length.
    pub(super) fn forward(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        match self {
            Self::Linear(layer) => layer.forward(features),
            Self::Mlp(layers) => layers.forward(features, mode),
        }
    }
}

/// Guesses one projection from another: linear, batch norm, ReLU, linear. Part of training alone; no artifact holds it.
///
/// # Paper
/// Grill et al. 2020, "Bootstrap your own latent", section 3.3.
#[derive(Clone, Debug)]
pub struct PredictionHead {
    layers: Mlp,
    params: Params,
}

impl PredictionHead {
    /// A new one from `dim` to `dim` numbers; its tensors are called `predictor.…`.
    pub fn init(dim: usize, hidden: usize, seed: Seed, device: &Device) -> Result<Self> {
        let mut builder = Builder::fresh(seed, device);
        let layers = builder.within("predictor", |b| Mlp::build(b, [dim, hidden, dim], true))?;
        Ok(Self { layers, params: builder.finish()? })
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The guess.
    ///
    /// # Shapes
    /// `projection`: `[B, P]`. Returns `[B, P]`, rows of any length.
    ///
    /// # Errors
    /// A single row in [`Mode::Train`].
    pub fn forward(&self, projection: &Tensor, mode: Mode) -> Result<Tensor> {
        self.layers.forward(projection, mode)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use serde_json::Value;

    use super::super::params::values;
    use super::*;
    use crate::testing::{assert_near, fill, numbers, wave};

    #[test]
    fn a_head_with_batch_norm_computes_and_learns_as_in_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/pretext/byol.json")).unwrap();
        let head = PredictionHead::init(3, 4, Seed::new(0), &Device::Cpu).unwrap();
        let names: Vec<&str> = head.params().iter().map(|(name, ..)| name).collect();
        assert_eq!(names.iter().filter(|name| name.starts_with("predictor.1.")).count(), 4, "{names:?}");
        fill(head.params());
        let x = Var::from_tensor(&wave(&[5, 3], 0.9, 0.2, 1.5)).unwrap();
        let y = head.forward(x.as_tensor(), Mode::Train).unwrap();
        assert_near("output", &values(&y).unwrap(), &numbers(&golden["head"]["output"]), 2e-6);
        let grads = (&y * wave(&[5, 3], 1.1, 0.4, 1.0)).unwrap().sum_all().unwrap().backward().unwrap();
        assert_near("input", &values(grads.get(x.as_tensor()).unwrap()).unwrap(), &numbers(&golden["head"]["gradient"]), 5e-6);
        for (name, var) in head.params().parameters() {
            let wanted = numbers(&golden["head"]["parameters"][name.trim_start_matches("predictor.")]);
            assert_near(name, &values(grads.get(var.as_tensor()).unwrap()).unwrap(), &wanted, 5e-6);
        }
        let y = head.forward(x.as_tensor(), Mode::Eval).unwrap();
        assert_near("eval", &values(&y).unwrap(), &numbers(&golden["head"]["eval"]), 2e-6);
    }
}
