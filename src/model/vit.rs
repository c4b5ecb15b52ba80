//! Vision transformers as DINOv2 and CLIP have them, by one description.
//!
//! Tensor names are those of DINOv2's authors for both families; CLIP's norm before the blocks is `norm_pre`, its last projection
//! `proj`. What others call them says [`super::import::towers`].
//!
//! Made to be frozen: where nothing is recorded, a block is one kernel, and weights are rearranged for it once per group of images.
//! With gradients candle's own operations do the same, slower.
//!
//! Deviation: DINOv2's authors interpolate positions of networks without registers with a scale that is off by a tenth of a patch
//! (`interpolate_offset`); transformers, and we, do not. Theirs for networks with registers are as here.
//!
//! # Paper
//! Dosovitskiy et al. 2021, "An image is worth 16×16 words"; Oquab et al. 2023, "DINOv2"; Darcet et al. 2024, "Vision transformers
//! need registers"; Radford et al. 2021, "CLIP".

use candle_core::Tensor;

use super::error::{ModelError, Result};
use super::head::Linear;
use super::init::Init;
use super::params::Builder;
use super::positions;
use kinset_artifact::encoder::{Architecture, Family, Transformer};
use kinset_kernel::{Activation, LayerNorm, Patches, TransformerBlock, linear};

/// Images that pass together where nothing is recorded: weights are rearranged for them at a hundredth of their cost.
const GROUP: usize = 64;

/// What layer norm adds to the variance before the root.
pub(super) fn epsilon(family: Family) -> f32 {
    match family {
        Family::Dinov2 => 1e-6,
        Family::Clip => 1e-5,
    }
}

/// Layer norm over the last axis.
#[derive(Clone, Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl Norm {
    fn build(b: &mut Builder, name: &str, width: usize, family: Family) -> Result<Self> {
        b.within(name, |b| {
            Ok(Self {
                weight: b.parameter("weight", &[width], Init::Ones)?,
                bias: b.parameter("bias", &[width], Init::Zeros)?,
                epsilon: epsilon(family),
            })
        })
    }

    fn lent(&self) -> LayerNorm<'_> {
        LayerNorm { weight: &self.weight, bias: &self.bias, epsilon: self.epsilon }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.lent().of(x)?)
    }
}

/// Attention, then two layers, each around a way past it.
#[derive(Clone, Debug)]
struct Block {
    norms: [Norm; 2],
    qkv: Linear,
    out: Linear,
    hidden: [Linear; 2],
    /// Layer scale, `[D]` each.
    scales: Option<[Tensor; 2]>,
    heads: usize,
    family: Family,
}

impl Block {
    fn build(b: &mut Builder, shape: &Transformer, width: usize) -> Result<Self> {
        let scale = |b: &mut Builder, name: &str| b.within(name, |b| b.parameter("gamma", &[width], Init::Ones));
        let first = Norm::build(b, "norm1", width, shape.family)?;
        let qkv = b.within("attn", |b| Linear::build(b, "qkv", width, 3 * width))?;
        let out = b.within("attn", |b| Linear::build(b, "proj", width, width))?;
        let scaled = shape.family == Family::Dinov2;
        let after_attention = scaled.then(|| scale(b, "ls1")).transpose()?;
        let second = Norm::build(b, "norm2", width, shape.family)?;
        let hidden = b.within("mlp", |b| {
            Ok([Linear::build(b, "fc1", width, shape.hidden)?, Linear::build(b, "fc2", shape.hidden, width)?])
        })?;
        let after_hidden = scaled.then(|| scale(b, "ls2")).transpose()?;
        let scales = after_attention.zip(after_hidden).map(|(one, other)| [one, other]);
        Ok(Self { norms: [first, second], qkv, out, hidden, scales, heads: shape.heads, family: shape.family })
    }

    fn lent(&self) -> TransformerBlock<'_> {
        let scale = |which: usize| self.scales.as_ref().map(|scales| &scales[which]);
        TransformerBlock {
            norms: [self.norms[0].lent(), self.norms[1].lent()],
            qkv: self.qkv.lent(None),
            out: self.out.lent(scale(0)),
            hidden: [self.hidden[0].lent(None), self.hidden[1].lent(scale(1))],
            heads: self.heads,
            activation: match self.family {
                Family::Dinov2 => Activation::Gelu,
                Family::Clip => Activation::QuickGelu,
            },
        }
    }
}

/// A vision transformer up to its features.
#[derive(Clone, Debug)]
pub(super) struct Vit {
    shape: Transformer,
    /// `[1, 1, D]`.
    class: Tensor,
    /// `[1, 1 + grid², D]`: the class token's, then those of the patches, row by row.
    positions: Tensor,
    /// `[1, R, D]`.
    registers: Option<Tensor>,
    /// `[D, 3, P, P]`.
    patches: Tensor,
    /// `[D]`; CLIP has none.
    patch_bias: Option<Tensor>,
    before: Option<Norm>,
    blocks: Vec<Block>,
    after: Norm,
    /// `[output, D]`.
    projection: Option<Tensor>,
}

impl Vit {
    /// The settings that no such network has; else the number of features.
    pub(super) fn features(architecture: &Architecture, shape: &Transformer) -> Result<usize> {
        let wrong = |field: &'static str, found: usize, wanted: String| {
            Err(ModelError::Architecture { field, found: found.to_string(), wanted })
        };
        let Transformer { depth, heads, patch, grid, hidden, registers, output, .. } = *shape;
        let bounds = [
            ("depth", depth, 1, 256),
            ("heads", heads, 1, 1024),
            ("patch", patch, 1, 1024),
            ("grid", grid, 1, 1024),
            ("hidden", hidden, 1, 65_536),
            ("registers", registers, 0, 1024),
            ("output", output.unwrap_or(1), 1, 65_536),
            ("width", architecture.width, 1, 16_384),
        ];
        for (field, found, least, most) in bounds {
            if !(least..=most).contains(&found) {
                return wrong(field, found, format!("{least} to {most}"));
            }
        }
        if architecture.channels != 3 {
            return wrong("channels", architecture.channels, "published transformers see color: 3".into());
        }
        if !architecture.width.is_multiple_of(heads) {
            return wrong("heads", heads, format!("a divisor of the width {}", architecture.width));
        }
        if !architecture.size.is_multiple_of(patch) {
            return wrong("size", architecture.size, format!("a multiple of the patch of {patch} pixels"));
        }
        if architecture.projection.is_some() {
            return wrong("projection", 1, "published transformers go without a pretext's head".into());
        }
        Ok(shape.features(architecture.width))
    }

    pub(super) fn build(b: &mut Builder, shape: &Transformer, width: usize) -> Result<Self> {
        let small = Init::Linear { inputs: width };
        let class = b.parameter("cls_token", &[1, 1, width], small)?;
        let positions = b.parameter("pos_embed", &[1, 1 + shape.grid * shape.grid, width], small)?;
        let registers = match shape.registers {
            0 => None,
            count => Some(b.parameter("register_tokens", &[1, count, width], small)?),
        };
        let inputs = 3 * shape.patch * shape.patch;
        let (patches, patch_bias) = b.within("patch_embed.proj", |b| {
            let weight = b.parameter("weight", &[width, 3, shape.patch, shape.patch], Init::Linear { inputs })?;
            let with_bias = shape.family == Family::Dinov2;
            Ok((weight, with_bias.then(|| b.parameter("bias", &[width], Init::Linear { inputs })).transpose()?))
        })?;
        let clip = shape.family == Family::Clip;
        let before = clip.then(|| Norm::build(b, "norm_pre", width, shape.family)).transpose()?;
        let blocks = (0..shape.depth)
            .map(|block| b.within(&format!("blocks.{block}"), |b| Block::build(b, shape, width)))
            .collect::<Result<_>>()?;
        let after = Norm::build(b, "norm", width, shape.family)?;
        let projection = match shape.output {
            None => None,
            Some(output) => Some(b.within("proj", |b| b.parameter("weight", &[output, width], small))?),
        };
        let shape = *shape;
        Ok(Self { shape, class, positions, registers, patches, patch_bias, before, blocks, after, projection })
    }

    /// # Shapes
    /// `images`: `[B, 3, S, S]`, S a multiple of the patch. Returns `[B, D]`.
    pub(super) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        self.until(images, None)
    }

    /// Names of its blocks, from the first to the last.
    pub(super) fn layers(&self) -> Vec<String> {
        (0..self.blocks.len()).map(|block| format!("blocks.{block}")).collect()
    }

    /// The class token after a block, counted from 0, without the last norm; after none the features.
    ///
    /// # Shapes
    /// As [`Vit::forward`]; a block's token is `[B, width]`.
    pub(super) fn until(&self, images: &Tensor, block: Option<usize>) -> Result<Tensor> {
        let (batch, _, height, side) = images.dims4()?;
        if height != side || !side.is_multiple_of(self.shape.patch) {
            let wanted = format!("squares of a multiple of {} pixels", self.shape.patch);
            return Err(ModelError::Input { wanted, found: images.dims().to_vec() });
        }
        let (before, positions) = self.placed(side / self.shape.patch)?;
        if images.track_op() || self.class.track_op() || batch <= GROUP {
            return self.group(images, &before, &positions, block);
        }
        let groups = (0..batch)
            .step_by(GROUP)
            .map(|first| self.group(&images.narrow(0, first, GROUP.min(batch - first))?, &before, &positions, block))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&groups, 0)?)
    }

    /// What stands before the patches, `[1 + R, D]`, and the positions of those, `[to², D]`.
    fn placed(&self, to: usize) -> Result<(Tensor, Tensor)> {
        let learned = self.positions.squeeze(0)?;
        let patches = learned.narrow(0, 1, self.shape.grid * self.shape.grid)?;
        // As transformers has it: networks with registers, which are newer, are resized with antialias.
        let patches = positions::resized(&patches, self.shape.grid, to, self.shape.registers > 0)?;
        let class = (self.class.squeeze(0)? + learned.narrow(0, 0, 1)?)?;
        Ok(match &self.registers {
            None => (class, patches),
            Some(registers) => (Tensor::cat(&[&class, &registers.squeeze(0)?], 0)?, patches),
        })
    }

    fn group(&self, images: &Tensor, before: &Tensor, positions: &Tensor, until: Option<usize>) -> Result<Tensor> {
        let batch = images.dim(0)?;
        let patches = Patches { weight: &self.patches, bias: self.patch_bias.as_ref(), before, positions };
        let mut x = patches.tokens(images)?;
        if let Some(norm) = &self.before {
            x = norm.forward(&x)?;
        }
        let blocks = &self.blocks[..until.map_or(self.blocks.len(), |block| block + 1)];
        let Some((last, blocks)) = blocks.split_last() else { unreachable!("a depth of 0 is refused") };
        for block in blocks {
            x = block.lent().of(&x, batch)?;
        }
        let token = last.lent().of_first(&x, batch)?;
        if until.is_some() {
            return Ok(token);
        }
        let features = self.after.forward(&token)?;
        match &self.projection {
            None => Ok(features),
            Some(projection) => {
                let none = Tensor::zeros(projection.dim(0)?, projection.dtype(), projection.device())?;
                Ok(linear(&features, projection, &none)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use crate::encoder::tower;
    use crate::params::values;
    use crate::testing::{assert_near, fill, wave};
    use crate::{EncoderNet, Mode};
    use kinset_artifact::encoder::{Backbone, Stem};
    use kinset_base::seed::Seed;

    const SHAPE: Transformer =
        Transformer { family: Family::Dinov2, depth: 2, heads: 2, patch: 4, grid: 3, hidden: 12, registers: 2, output: None };

    fn net(shape: Transformer) -> EncoderNet {
        EncoderNet::init(&tower(shape, 6, 12).unwrap(), Seed::new(1), &Device::Cpu).unwrap()
    }

    fn families() -> [Transformer; 3] {
        let clip = Transformer { family: Family::Clip, registers: 0, output: Some(5), ..SHAPE };
        [SHAPE, Transformer { registers: 0, ..SHAPE }, clip]
    }

    #[test]
    fn recorded_or_not_alone_or_in_company_the_features_are_the_same() {
        for shape in families() {
            let net = net(shape);
            fill(net.params());
            let images = wave(&[GROUP + 3, 3, 16, 16], 0.013, 0.2, 1.0);
            let recorded = net.features(&images, Mode::Eval).unwrap();
            assert!(recorded.track_op());
            let frozen = net.frozen().unwrap();
            let still = frozen.features(&images, Mode::Eval).unwrap();
            assert!(!still.track_op());
            assert_eq!(still.dims(), [GROUP + 3, net.dim()]);
            let wanted: Vec<f64> = values(&recorded).unwrap().iter().map(|&v| v.into()).collect();
            assert_near("still", &values(&still).unwrap(), &wanted, 1e-5);
            let last = values(&frozen.features(&images.narrow(0, GROUP + 2, 1).unwrap(), Mode::Eval).unwrap()).unwrap();
            assert_near("alone", &last, &wanted[(GROUP + 2) * net.dim()..], 1e-5);
        }
    }

    #[test]
    fn a_block_gives_its_class_token_in_groups_as_at_once() {
        for shape in families() {
            let net = net(shape);
            fill(net.params());
            assert_eq!(net.layers(), ["blocks.0", "blocks.1"]);
            let images = wave(&[GROUP + 3, 3, 12, 12], 0.013, 0.2, 1.0);
            let all = [0, 1].map(|block| net.frozen().unwrap().inner(&images, block).unwrap());
            assert_ne!(values(&all[0]).unwrap(), values(&all[1]).unwrap());
            for (block, all) in all.iter().enumerate() {
                assert_eq!(all.dims(), [GROUP + 3, 6]);
                let alone = net.frozen().unwrap().inner(&images.narrow(0, GROUP + 2, 1).unwrap(), block).unwrap();
                let wanted: Vec<f64> = values(all).unwrap()[(GROUP + 2) * 6..].iter().map(|&v| v.into()).collect();
                assert_near("alone", &values(&alone).unwrap(), &wanted, 1e-5);
            }
        }
    }

    #[test]
    fn every_weight_gets_a_gradient() {
        for shape in families() {
            let net = net(shape);
            fill(net.params());
            let images = Var::from_tensor(&wave(&[2, 3, 12, 12], 0.05, 0.2, 1.0)).unwrap();
            let features = net.features(images.as_tensor(), Mode::Train).unwrap();
            let loss = (&features * wave(features.dims(), 1.1, 0.4, 1.0)).unwrap().sum_all().unwrap();
            let gradients = loss.backward().unwrap();
            for (name, var) in net.params().parameters() {
                let gradient = gradients.get(var.as_tensor()).unwrap_or_else(|| panic!("{name} has no gradient"));
                assert!(values(gradient).unwrap().iter().any(|&g| g != 0.0) || name.contains("qkv"), "{name}");
            }
        }
    }

    #[test]
    fn a_network_survives_its_tensors() {
        for shape in families() {
            let net = net(shape);
            let normalization = kinset_artifact::encoder::Normalization::new(vec![0.5; 3], vec![0.5; 3]);
            let again = EncoderNet::from_tensors(&net.card(normalization), &net.to_tensors().unwrap(), &Device::Cpu).unwrap();
            assert_eq!(again.to_tensors().unwrap(), net.to_tensors().unwrap());
        }
    }

    #[test]
    fn shapes_that_cannot_be_are_refused_by_name() {
        let refuse = |shape: Transformer, width, size| tower(shape, width, size).unwrap_err().to_string();
        assert!(refuse(Transformer { heads: 4, ..SHAPE }, 6, 12).contains("`heads` 4"));
        assert!(refuse(SHAPE, 6, 13).contains("`size` 13"));
        assert!(refuse(Transformer { depth: 0, ..SHAPE }, 6, 12).contains("depth"));
        assert!(refuse(SHAPE, usize::MAX, 12).contains("width"));
        let net = net(SHAPE);
        assert_eq!((net.architecture().backbone, net.architecture().stem), (Backbone::Vit, Stem::Imagenet));
        for shape in [[1, 3, 13, 13], [1, 3, 12, 16]] {
            let images = Tensor::zeros(&shape, DType::F32, &Device::Cpu).unwrap();
            assert!(matches!(net.features(&images, Mode::Eval), Err(ModelError::Input { .. })), "{shape:?}");
        }
    }
}
