//! Residual networks: one description for small, CIFAR, STL and ImageNet images.
//!
//! Tensor names are those of the files people have: `shortcut.0` for the 1×1 convolution of a residual branch where the stem
//! is for small images (the common CIFAR code), `downsample.0` with the ImageNet stem (torchvision).
//!
//! Deviations:
//! - The last pooling is the mean over the whole map. The authors' STL network has a fixed 7×7 window, which equals it at
//!   96–111 px and fails at any other size.
//! - `resnet_tiny` is ours: three stages of one basic block, widths w, 2w, 4w. For 8 px digits it sees maps of 8, 4 and 2 px;
//!   from 28 px on, the `strided` stem saves three quarters of the work.
//!
//! # Paper
//! He et al. 2016, "Deep residual learning", tables 1 and 6; the stride of a bottleneck sits in its 3×3 convolution, as in
//! torchvision ("ResNet v1.5"). No zero-init of the last batch norm.

use candle_core::{DType, Tensor};

use super::error::Result;
use super::init::Init;
use super::norm::{BatchNorm, Mode, too_few};
use super::params::Builder;
use kinset_artifact::encoder::Stem;
use kinset_gpu as gpu;
use kinset_gpu::{Card, Statistics};
use kinset_kernel::{After, conv2d, global_avg_pool, max_pool2d};

/// The layers of a residual network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) stem: Stem,
    pub(super) channels: usize,
    pub(super) width: usize,
    /// Blocks per stage. Stage s is `width`·2ˢ wide; all but the first halve the map.
    pub(super) blocks: &'static [usize],
    pub(super) bottleneck: bool,
}

impl Layout {
    /// Features, D.
    pub(super) fn features(&self) -> usize {
        (self.width << (self.blocks.len() - 1)) * self.expansion()
    }

    fn expansion(&self) -> usize {
        if self.bottleneck { 4 } else { 1 }
    }

    /// The first convolution.
    pub(super) fn first(&self) -> Step {
        let (kernel, stride) = match self.stem {
            Stem::Cifar | Stem::Stl => (3, 1),
            Stem::Strided => (3, 2),
            Stem::Imagenet => (7, 2),
        };
        Step::new("conv1", "bn1", self.channels, (self.width, kernel, stride))
    }

    /// Kernel, stride and padding of the pooling after it.
    pub(super) fn pool(&self) -> Option<(usize, usize, usize)> {
        match self.stem {
            Stem::Cifar | Stem::Strided => None,
            Stem::Stl => Some((2, 2, 1)),
            Stem::Imagenet => Some((3, 2, 1)),
        }
    }

    /// The blocks after that, in order.
    pub(super) fn residuals(&self) -> Vec<Residual> {
        let (mut all, mut from) = (Vec::new(), self.width);
        for (stage, &count) in self.blocks.iter().enumerate() {
            let (width, outputs) = (self.width << stage, (self.width << stage) * self.expansion());
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let shapes: &[Shape] = if self.bottleneck {
                    &[(width, 1, 1), (width, 3, stride), (outputs, 1, 1)]
                } else {
                    &[(width, 3, stride), (outputs, 3, 1)]
                };
                let mut inputs = from;
                let steps = shapes.iter().enumerate().map(|(i, &shape)| {
                    let step = Step::new(&format!("conv{}", i + 1), &format!("bn{}", i + 1), inputs, shape);
                    inputs = shape.0;
                    step
                });
                let steps = steps.collect();
                let way = if self.stem == Stem::Imagenet { "downsample" } else { "shortcut" };
                let shortcut = (stride != 1 || from != outputs)
                    .then(|| Step::new(&format!("{way}.0"), &format!("{way}.1"), from, (outputs, 1, stride)));
                all.push(Residual { name: format!("layer{}.{block}", stage + 1), steps, shortcut });
                from = outputs;
            }
        }
        all
    }
}

/// What a unit is to be: outputs, kernel, stride.
type Shape = (usize, usize, usize);

/// What a convolution and the batch norm after it are to be.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Name of the convolution.
    pub(super) conv: String,
    /// Name of the batch norm.
    pub(super) norm: String,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Step {
    fn new(conv: &str, norm: &str, inputs: usize, (outputs, kernel, stride): Shape) -> Self {
        Self { conv: conv.to_owned(), norm: norm.to_owned(), inputs, outputs, kernel, stride, padding: kernel / 2 }
    }
}

/// What a block is to be: two or three units, and a way around them where input and output differ in shape.
#[derive(Clone, Debug)]
pub(super) struct Residual {
    pub(super) name: String,
    pub(super) steps: Vec<Step>,
    pub(super) shortcut: Option<Step>,
}

/// Convolution without bias, then batch norm.
#[derive(Clone, Debug)]
struct Unit {
    weight: Tensor,
    stride: usize,
    padding: usize,
    norm: BatchNorm,
}

impl Unit {
    fn build(b: &mut Builder, step: &Step) -> Result<Self> {
        let &Step { inputs, outputs, kernel, stride, padding, .. } = step;
        let weight =
            b.within(&step.conv, |b| b.parameter("weight", &[outputs, inputs, kernel, kernel], Init::KaimingNormal))?;
        let norm = BatchNorm::build(b, &step.norm, outputs)?;
        Ok(Self { weight, stride, padding, norm })
    }

    fn forward(&self, x: &Tensor, mode: Mode, after: After) -> Result<Tensor> {
        let y = conv2d(x, &self.weight, self.stride, self.padding)?;
        self.norm.forward(&y, mode, after)
    }
}

/// Two or three units, and a way around them.
#[derive(Clone, Debug)]
struct Block {
    units: Vec<Unit>,
    shortcut: Option<Unit>,
}

impl Block {
    fn build(b: &mut Builder, residual: &Residual) -> Result<Self> {
        let units = residual.steps.iter().map(|step| Unit::build(b, step)).collect::<Result<_>>()?;
        let shortcut = residual.shortcut.as_ref().map(|step| Unit::build(b, step)).transpose()?;
        Ok(Self { units, shortcut })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let Some((last, firsts)) = self.units.split_last() else { unreachable!("`build` makes two or three units") };
        let mut y = x.clone();
        for unit in firsts {
            y = unit.forward(&y, mode, After::Relu)?;
        }
        match &self.shortcut {
            Some(unit) => last.forward(&y, mode, After::AddRelu(&unit.forward(x, mode, After::Nothing)?)),
            None => last.forward(&y, mode, After::AddRelu(x)),
        }
    }
}

/// A residual network without its last, classifying layer.
#[derive(Clone, Debug)]
pub(super) struct ResNet {
    first: Unit,
    pool: Option<(usize, usize, usize)>,
    /// With their names, `layer1.0`.
    blocks: Vec<(String, Block)>,
    /// The same, as a card wants to know it.
    network: gpu::Network,
}

/// The network that a card computes.
fn network(layout: &Layout) -> gpu::Network {
    let unit = |step: &Step| {
        let &Step { inputs, outputs, kernel, stride, padding, .. } = step;
        gpu::Unit { inputs, outputs, kernel, stride, padding }
    };
    let block = |residual: &Residual| gpu::Block {
        units: residual.steps.iter().map(unit).collect(),
        shortcut: residual.shortcut.as_ref().map(unit),
    };
    let pool = layout.pool().map(|(kernel, stride, padding)| gpu::Pool { kernel, stride, padding });
    gpu::Network { first: unit(&layout.first()), pool, blocks: layout.residuals().iter().map(block).collect() }
}

impl ResNet {
    pub(super) fn build(b: &mut Builder, layout: &Layout) -> Result<Self> {
        let first = Unit::build(b, &layout.first())?;
        let blocks = layout.residuals();
        let blocks = blocks.into_iter().map(|residual| {
            let block = b.within(&residual.name, |b| Block::build(b, &residual))?;
            Ok((residual.name, block))
        });
        Ok(Self { first, pool: layout.pool(), blocks: blocks.collect::<Result<_>>()?, network: network(layout) })
    }

    /// In the order of [`gpu::Network::units`].
    fn units(&self) -> impl Iterator<Item = &Unit> {
        std::iter::once(&self.first).chain(self.blocks.iter().flat_map(|(_, block)| block.units.iter().chain(&block.shortcut)))
    }

    /// The same on a card.
    fn forward_on(&self, card: &'static Card, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let (batch, _, height, width) = x.dims4()?;
        let counts = self.network.counts([batch, height, width]);
        if mode == Mode::Train && counts.iter().any(|count| *count < 2) {
            return Err(too_few(x));
        }
        let weights = self.units().flat_map(|unit| std::iter::once(&unit.weight).chain(unit.norm.line()));
        let weights = Tensor::cat(&weights.map(Tensor::flatten_all).collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        if mode == Mode::Eval {
            let row: Vec<Tensor> = self.units().flat_map(|unit| unit.norm.running()).collect();
            let row = Tensor::cat(&row, 0)?.to_vec1()?;
            return Ok(gpu::features(card, &self.network, x, &weights, Statistics::Fixed(&row))?.0);
        }
        let (features, moments) = gpu::features(card, &self.network, x, &weights, Statistics::Batch)?;
        let mut rest = moments.as_slice();
        for ((unit, of), count) in self.units().zip(self.network.units()).zip(counts) {
            let (mean, after) = rest.split_at(of.outputs);
            let (variance, after) = after.split_at(of.outputs);
            unit.norm.follow(&Tensor::new(mean, x.device())?, &Tensor::new(variance, x.device())?, count)?;
            rest = after;
        }
        Ok(features)
    }

    /// # Shapes
    /// `x`: `[B, C, S, S]`. Returns `[B, D]`.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if let Some(card) = Card::used()
            && x.device().is_cpu()
            && x.dtype() == DType::F32
        {
            return self.forward_on(card, x, mode);
        }
        Ok(global_avg_pool(&self.until(x, mode, self.blocks.len())?)?)
    }

    /// Names of its layers, from the first to the last: the convolution before the blocks, then each block.
    pub(super) fn layers(&self) -> Vec<String> {
        std::iter::once("conv1".to_owned()).chain(self.blocks.iter().map(|(name, _)| name.clone())).collect()
    }

    /// The map of a layer, counted from 0; that of the first is the one before the pooling.
    ///
    /// # Shapes
    /// `x`: `[B, C, S, S]`. Returns `[B, C', H, W]`.
    pub(super) fn until(&self, x: &Tensor, mode: Mode, layer: usize) -> Result<Tensor> {
        let mut y = self.first.forward(x, mode, After::Relu)?;
        if layer == 0 {
            return Ok(y);
        }
        if let Some((kernel, stride, padding)) = self.pool {
            y = max_pool2d(&y, kernel, stride, padding)?;
        }
        for (_, block) in self.blocks.iter().take(layer) {
            y = block.forward(&y, mode)?;
        }
        Ok(y)
    }
}

#[cfg(test)]
#[path = "../gpu/test_double.rs"]
mod test_double;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{Device, Var};

    use super::super::params::{Params, values};
    use super::*;
    use crate::testing::{fill, wave};
    use kinset_base::seed::Seed;
    use kinset_gpu::Libraries;

    fn net(layout: &Layout) -> (ResNet, Params) {
        let mut builder = Builder::fresh(Seed::new(1), &Device::Cpu);
        let net = ResNet::build(&mut builder, layout).unwrap();
        let params = builder.finish().unwrap();
        fill(&params);
        (net, params)
    }

    #[track_caller]
    fn near(what: &str, found: &Tensor, wanted: &Tensor) {
        assert_eq!(found.dims(), wanted.dims(), "{what}");
        let row = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (found, wanted) = (row(found), row(wanted));
        // As of `assert_near`: sums of terms around one, some of which cancel.
        let scale = wanted.iter().fold(1.0f32, |most, v| most.max(v.abs()));
        for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert!((found - wanted).abs() <= 1e-5 * scale, "{what}[{at}]: {found} and not {wanted}, of at most {scale}");
        }
    }

    #[test]
    fn a_card_and_the_processor_make_the_same_features_gradients_and_statistics() {
        let gpu = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gpu");
        let Some(library) = test_double::library(&gpu, &[]) else { return };
        let card: &'static Card = Box::leak(Box::new(Card::open(&Libraries::both(&library), 0).unwrap()));
        let layout = |stem, channels, blocks, bottleneck| Layout { stem, channels, width: 4, blocks, bottleneck };
        for (layout, side) in [
            (layout(Stem::Cifar, 1, &[1, 1, 1], false), 12),
            (layout(Stem::Strided, 3, &[1, 1, 1], false), 20),
            (layout(Stem::Stl, 3, &[2, 2], false), 18),
            (layout(Stem::Imagenet, 3, &[1, 2], true), 33),
        ] {
            let what = |part: &str| format!("{layout:?}: {part}");
            let ((here, wanted), (there, found)) = (net(&layout), net(&layout));
            let mut rng = Seed::new(5).rng();
            let pixels: Vec<f32> = (0..6 * layout.channels * side * side).map(|_| rng.normal() as f32).collect();
            let x = Tensor::from_vec(pixels, (6, layout.channels, side, side), &Device::Cpu).unwrap();
            for _ in 0..2 {
                let (y, z) = (here.forward(&x, Mode::Train).unwrap(), there.forward_on(card, &x, Mode::Train).unwrap());
                near(&what("features"), &z.detach(), &y.detach());
                let r = wave(y.dims(), 0.77, 0.4, 1.0);
                let back = |features: &Tensor| (features * &r).unwrap().sum_all().unwrap().backward().unwrap();
                let (of_y, of_z) = (back(&y), back(&z));
                for ((name, wanted), (_, found)) in wanted.parameters().zip(found.parameters()) {
                    let of = |gradients: &candle_core::backprop::GradStore, var: &Var| {
                        gradients.get(var.as_tensor()).unwrap_or_else(|| panic!("{name} has no gradient")).clone()
                    };
                    near(&what(name), &of(&of_z, found), &of(&of_y, wanted));
                }
            }
            for ((name, wanted), (_, found)) in wanted.buffers().zip(found.buffers()) {
                assert_ne!(values(found).unwrap(), vec![0.0; found.elem_count()], "{name} moved");
                near(&what(name), found.as_tensor(), wanted.as_tensor());
            }
            let (y, z) = (here.forward(&x, Mode::Eval).unwrap(), there.forward_on(card, &x, Mode::Eval).unwrap());
            near(&what("features of running statistics"), &z.detach(), &y.detach());
        }
        // As the processor has it: one value per channel has no statistics.
        let (net, _) = net(&layout(Stem::Cifar, 1, &[1, 1], false));
        let x = Tensor::zeros((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(net.forward_on(card, &x, Mode::Train), Err(crate::ModelError::Input { .. })));
    }
}
