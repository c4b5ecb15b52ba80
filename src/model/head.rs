//! What sits on top of the features: projections for contrast, heads for clusters.

use candle_core::{D, Tensor};

use super::error::Result;
use super::init::Init;
use super::ops;
use super::params::Builder;
use crate::artifact::encoder::{Projection, ProjectionKind};

/// Weights times input plus bias.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub(super) fn build(b: &mut Builder, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        b.within(name, |b| {
            Ok(Self {
                weight: b.parameter("weight", &[outputs, inputs], Init::Linear { inputs })?,
                bias: b.parameter("bias", &[outputs], Init::Linear { inputs })?,
            })
        })
    }

    /// # Shapes
    /// `x`: `[B, inputs]`. Returns `[B, outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
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
            ProjectionKind::Linear => vec![Linear::build_bare(b, features, projection.dim)?],
        };
        Ok(Self { layers })
    }

    /// # Shapes
    /// `features`: `[B, D]`. Returns `[B, P]`, rows of unit length.
    pub(super) fn forward(&self, features: &Tensor) -> Result<Tensor> {
        let mut y = features.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = layer.forward(&if i > 0 { ops::relu(&y)? } else { y })?;
        }
        unit_rows(&y)
    }
}

impl Linear {
    /// A linear layer that *is* the head, so its tensors carry no number.
    fn build_bare(b: &mut Builder, inputs: usize, outputs: usize) -> Result<Self> {
        Ok(Self {
            weight: b.parameter("weight", &[outputs, inputs], Init::Linear { inputs })?,
            bias: b.parameter("bias", &[outputs], Init::Linear { inputs })?,
        })
    }
}

/// Rows brought to unit length; rows shorter than 1e-12 are divided by 1e-12 instead.
///
/// # Shapes
/// `x`: `[B, D]`. Returns the same.
///
/// # Errors
/// If the device fails.
pub fn unit_rows(x: &Tensor) -> Result<Tensor> {
    // The floor goes under the root: a root has no gradient at 0.
    let length = x.sqr()?.sum_keepdim(D::Minus1)?.maximum(1e-24)?.sqrt()?;
    Ok(x.broadcast_div(&length)?)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn rows_get_unit_length_and_zero_rows_stay_zero_with_a_finite_gradient() {
        let x = Var::new(&[[3_f32, 4.0], [0.0, 0.0]], &Device::Cpu).unwrap();
        let y = unit_rows(x.as_tensor()).unwrap();
        let rows = y.to_vec2::<f32>().unwrap();
        assert!((rows[0][0] - 0.6).abs() < 1e-6 && (rows[0][1] - 0.8).abs() < 1e-6);
        assert_eq!(rows[1], [0.0, 0.0]);
        let grads = y.sum_all().unwrap().backward().unwrap();
        let gradient = grads.get(x.as_tensor()).unwrap().to_vec2::<f32>().unwrap();
        assert!(gradient.iter().flatten().all(|g| g.is_finite()), "{gradient:?}");
    }
}
