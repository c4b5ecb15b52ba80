//! What sits on top of the features: projections for contrast, heads for clusters.

use candle_core::Tensor;

use super::error::Result;
use super::init::Init;
use super::params::Builder;
use crate::artifact::encoder::{Projection, ProjectionKind};
use crate::kernel::{l2_normalize, linear, relu};

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
}

/// A projection head: one linear layer, or two with a ReLU between.
#[derive(Clone, Debug)]
pub(super) struct ProjectionHead {
    layers: Vec<Linear>,
}

impl ProjectionHead {
    pub(super) fn build(b: &mut Builder, features: usize, projection: &Projection) -> Result<Self> {
        // Numbers, not words: in the files people have, the ReLU counts as layer 1.
        let layers = match projection.kind {
            ProjectionKind::Mlp => {
                vec![Linear::build(b, "0", features, features)?, Linear::build(b, "2", features, projection.dim)?]
            }
            ProjectionKind::Linear => vec![Linear::build_here(b, features, projection.dim)?],
        };
        Ok(Self { layers })
    }

    /// # Shapes
    /// `features`: `[B, D]`. Returns `[B, P]`, rows of unit length.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let mut y = features.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = layer.forward(&if i > 0 { relu(&y)? } else { y })?;
        }
        Ok(l2_normalize(&y)?)
    }
}
