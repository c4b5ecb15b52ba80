//! Weight normalization: linear layers whose rows have a length of their own, w = g · v / |v|.
//!
//! # Paper
//! Salimans & Kingma 2016, "Weight normalization", eq. 2.

use candle_core::{D, Device, Tensor};

use super::error::Result;
use super::init::Init;
use super::params::{Builder, Params, values};
use kinset_artifact::encoder::Tensors;
use kinset_base::seed::Seed;
use kinset_kernel::linear;

/// Directions `[O, I]` and lengths `[O, 1]`.
#[derive(Clone, Debug)]
pub(super) struct Normed {
    direction: Tensor,
    length: Tensor,
}

impl Normed {
    pub(super) fn build(b: &mut Builder, name: &str, inputs: usize, outputs: usize) -> Result<Self> {
        b.within(name, |b| {
            Ok(Self {
                direction: b.parameter("weight_v", &[outputs, inputs], Init::Linear { inputs })?,
                length: b.parameter("weight_g", &[outputs, 1], Init::Ones)?,
            })
        })
    }

    /// The weights, `[O, I]`.
    pub(super) fn weight(&self) -> Result<Tensor> {
        let norm = self.direction.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        Ok(self.direction.broadcast_mul(&(&self.length / norm)?)?)
    }
}

/// One linear layer per space, from features to clusters, with weight norm: TURTLE's task encoder.
#[derive(Clone, Debug)]
pub struct TaskEncoder {
    layers: Vec<(Normed, Tensor)>,
    params: Params,
}

impl TaskEncoder {
    /// A new one over spaces of these dimensions; it starts as a linear layer does. Tensors are called `task.{s}.…`.
    pub fn init(dims: &[usize], clusters: usize, seed: Seed, device: &Device) -> Result<Self> {
        let mut b = Builder::fresh(seed, device);
        let layers = dims
            .iter()
            .enumerate()
            .map(|(space, &dim)| {
                let name = format!("task.{space}");
                let layer = Normed::build(&mut b, &name, dim, clusters)?;
                let bias = b.within(&name, |b| b.parameter("bias", &[clusters], Init::Linear { inputs: dim }))?;
                Ok((layer, bias))
            })
            .collect::<Result<Vec<_>>>()?;
        let params = b.finish()?;
        for space in 0..dims.len() {
            let get = |name: &str| params.get(&format!("task.{space}.{name}"));
            if let (Some(direction), Some(length)) = (get("weight_v"), get("weight_g")) {
                // A length is that of its direction at first, so that nothing is normalized away.
                length.set(&direction.as_detached_tensor().sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)?;
            }
        }
        Ok(Self { layers, params })
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What it makes of features of a space.
    ///
    /// # Shapes
    /// `x`: `[B, D]`. Returns logits `[B, K]`.
    pub fn logits(&self, space: usize, x: &Tensor) -> Result<Tensor> {
        let (layer, bias) = &self.layers[space];
        Ok(linear(x, &layer.weight()?, bias)?)
    }

    /// Weights `[K, D]` and bias `[K]` of a space, as plain numbers.
    pub fn plain(&self, space: usize) -> Result<(Vec<f32>, Vec<f32>)> {
        let (layer, bias) = &self.layers[space];
        Ok((values(&layer.weight()?)?, values(bias)?))
    }
}

/// Plain linear classifiers, one per space: TURTLE's inner learners. Tensors are called `inner.{s}.…`.
#[derive(Clone, Debug)]
pub struct LinearProbes {
    layers: Vec<super::head::Linear>,
    params: Params,
}

impl LinearProbes {
    pub fn init(dims: &[usize], clusters: usize, seed: Seed, device: &Device) -> Result<Self> {
        let mut b = Builder::fresh(seed, device);
        let layers = dims
            .iter()
            .enumerate()
            .map(|(space, &dim)| super::head::Linear::build(&mut b, &format!("inner.{space}"), dim, clusters))
            .collect::<Result<_>>()?;
        Ok(Self { layers, params: b.finish()? })
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// # Shapes
    /// `x`: `[B, D]`. Returns logits `[B, K]`.
    pub fn logits(&self, space: usize, x: &Tensor) -> Result<Tensor> {
        self.layers[space].forward(x)
    }
}

/// Shape of [`DistillHeads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistillShape {
    /// Features, D.
    pub dim: usize,
    /// Hidden units, U.
    pub hidden: usize,
    /// Width of what is brought to unit length, V.
    pub bottleneck: usize,
    /// Clusters, K.
    pub clusters: usize,
    /// Heads, H.
    pub heads: usize,
}

/// Heads as self-distillation has them: linear, GELU, linear, unit length, and a last layer with weight norm.
///
/// # Paper
/// Caron et al. 2021, "Emerging properties in self-supervised vision transformers" (DINO), appendix C; with two layers, as TEMI has it.
#[derive(Clone, Debug)]
pub struct DistillHeads {
    heads: Vec<(super::head::Linear, super::head::Linear, Normed)>,
    params: Params,
    shape: DistillShape,
}

impl DistillHeads {
    /// New ones: normal weights of deviation 0.02 and biases of 0, and a last layer of directions of length 1. Tensors are called
    /// `head.{h}.…`.
    pub fn init(shape: DistillShape, seed: Seed, device: &Device) -> Result<Self> {
        Self::build(shape, Builder::fresh(seed, device))
    }

    /// The same numbers, seen without recording.
    pub fn over(shape: DistillShape, params: &Params) -> Result<Self> {
        Self::build(shape, Builder::shared(params, false))
    }

    fn build(shape: DistillShape, mut b: Builder) -> Result<Self> {
        let heads = (0..shape.heads)
            .map(|head| {
                b.within(&format!("head.{head}"), |b| {
                    Ok((
                        super::head::Linear::build_small(b, "0", shape.dim, shape.hidden)?,
                        super::head::Linear::build_small(b, "2", shape.hidden, shape.bottleneck)?,
                        Normed::build(b, "last", shape.bottleneck, shape.clusters)?,
                    ))
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { heads, params: b.finish()?, shape })
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What a head makes of features, before any temperature. With `still`, no gradient reaches the last layer.
    ///
    /// # Shapes
    /// `x`: `[B, D]`. Returns `[B, K]`.
    pub fn scores(&self, head: usize, x: &Tensor, still: bool) -> Result<Tensor> {
        let (first, second, last) = &self.heads[head];
        let narrow = kinset_kernel::l2_normalize(&second.forward(&kinset_kernel::gelu(&first.forward(x)?)?)?)?;
        let weight = last.weight()?;
        let weight = if still { weight.detach() } else { weight };
        let none = Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?;
        Ok(linear(&narrow, &weight, &none)?)
    }

    /// The tensors of a classifier's heads of kind [`HeadKind::Bottleneck`](kinset_artifact::encoder::HeadKind): scores are
    /// divided by the temperature.
    pub fn to_heads(&self, temperature: f64) -> Result<Tensors> {
        let DistillShape { dim, hidden, bottleneck, clusters, .. } = self.shape;
        let mut tensors = Tensors::default();
        for (head, (.., last)) in self.heads.iter().enumerate() {
            let get = |name: &str| self.params.get(&format!("head.{head}.{name}")).map(|var| values(var.as_tensor()));
            let mut put = |name: &str, shape: Vec<usize>, values: Vec<f32>| {
                tensors.insert(format!("cluster_head.{head}.{name}"), shape, values);
            };
            let parts = [
                ("0.weight", vec![hidden, dim]),
                ("0.bias", vec![hidden]),
                ("2.weight", vec![bottleneck, hidden]),
                ("2.bias", vec![bottleneck]),
            ];
            for (name, shape) in parts {
                if let Some(found) = get(name) {
                    put(name, shape, found?);
                }
            }
            let weight = values(&last.weight()?)?.into_iter().map(|value| (f64::from(value) / temperature) as f32).collect();
            put("last.weight", vec![clusters, bottleneck], weight);
        }
        Ok(tensors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_near, wave};
    use crate::{ClassifierNet, EncoderNet, HeadsShape, features_alone};
    use kinset_artifact::encoder::HeadKind;

    #[test]
    fn a_task_encoder_starts_as_a_linear_layer_and_moves_lengths_apart_from_directions() {
        let task = TaskEncoder::init(&[4, 3], 5, Seed::new(1), &Device::Cpu).unwrap();
        let direction = task.params().get("task.1.weight_v").unwrap();
        let x = wave(&[2, 3], 0.7, 0.1, 1.0);
        let bias = task.params().get("task.1.bias").unwrap();
        let wanted = linear(&x, direction.as_tensor(), bias.as_tensor()).unwrap();
        let wanted: Vec<f64> = values(&wanted).unwrap().into_iter().map(f64::from).collect();
        assert_near("start", &values(&task.logits(1, &x).unwrap()).unwrap(), &wanted, 1e-6);
        // Another length of the directions changes nothing.
        direction.set(&(direction.as_detached_tensor() * 3.0).unwrap()).unwrap();
        assert_near("longer", &values(&task.logits(1, &x).unwrap()).unwrap(), &wanted, 1e-6);
        let grads = task.logits(1, &x).unwrap().sum_all().unwrap().backward().unwrap();
        for name in ["task.1.weight_v", "task.1.weight_g", "task.1.bias"] {
            assert!(grads.get(task.params().get(name).unwrap().as_tensor()).is_some(), "{name}");
        }
    }

    #[test]
    fn distilled_heads_become_heads_of_a_classifier() {
        let shape = DistillShape { dim: 6, hidden: 5, bottleneck: 4, clusters: 3, heads: 2 };
        let heads = DistillHeads::init(shape, Seed::new(3), &Device::Cpu).unwrap();
        let temperature = 0.1;
        let body = EncoderNet::init(&features_alone(6).unwrap(), Seed::new(1), &Device::Cpu).unwrap();
        let kind = HeadKind::Bottleneck;
        let made = HeadsShape { kind, bottleneck: Some(4), ..HeadsShape::linear(3, 2, Some(5)) };
        let tensors = heads.to_heads(temperature).unwrap();
        let net = ClassifierNet::with_heads(&body, made, &tensors, &Device::Cpu).unwrap();
        let x = wave(&[7, 6], 0.9, 0.3, 1.0);
        for head in 0..2 {
            let scores = heads.scores(head, &x, false).unwrap();
            let wanted: Vec<f64> = values(&scores).unwrap().iter().map(|&v| f64::from(v) / temperature).collect();
            assert_near("logits", &values(&net.logits(head, &x).unwrap()).unwrap(), &wanted, 1e-5);
        }
        let still = heads.scores(0, &x, true).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(still.get(heads.params().get("head.0.last.weight_v").unwrap().as_tensor()).is_none());
        assert!(still.get(heads.params().get("head.0.0.weight").unwrap().as_tensor()).is_some());
        let frozen = DistillHeads::over(shape, heads.params()).unwrap();
        assert!(!frozen.scores(1, &x, false).unwrap().track_op());
    }
}
