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

use candle_core::Tensor;

use super::error::Result;
use super::init::Init;
use super::norm::{BatchNorm, Mode};
use super::params::Builder;
use crate::artifact::encoder::Stem;
use crate::kernel::{After, conv2d, global_avg_pool, max_pool2d};

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

    /// Kernel, stride and padding of the first convolution.
    fn first(&self) -> (usize, usize, usize) {
        match self.stem {
            Stem::Cifar | Stem::Stl => (3, 1, 1),
            Stem::Strided => (3, 2, 1),
            Stem::Imagenet => (7, 2, 3),
        }
    }
}

/// Convolution without bias, then batch norm.
#[derive(Clone, Debug)]
struct Unit {
    weight: Tensor,
    stride: usize,
    padding: usize,
    norm: BatchNorm,
}

/// What a unit is to be: outputs, kernel, stride.
type Shape = (usize, usize, usize);

impl Unit {
    fn build(b: &mut Builder, names: (&str, &str), inputs: usize, (outputs, kernel, stride): Shape) -> Result<Self> {
        let weight = b.within(names.0, |b| b.parameter("weight", &[outputs, inputs, kernel, kernel], Init::KaimingNormal))?;
        let norm = BatchNorm::build(b, names.1, outputs)?;
        Ok(Self { weight, stride, padding: kernel / 2, norm })
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
    fn build(b: &mut Builder, layout: &Layout, inputs: usize, width: usize, stride: usize) -> Result<Self> {
        let outputs = width * layout.expansion();
        let shapes: &[Shape] = if layout.bottleneck {
            &[(width, 1, 1), (width, 3, stride), (outputs, 1, 1)]
        } else {
            &[(width, 3, stride), (outputs, 3, 1)]
        };
        let (mut units, mut from) = (Vec::with_capacity(shapes.len()), inputs);
        for (i, &shape) in shapes.iter().enumerate() {
            let names = (format!("conv{}", i + 1), format!("bn{}", i + 1));
            units.push(Unit::build(b, (&names.0, &names.1), from, shape)?);
            from = shape.0;
        }
        let shortcut = if stride != 1 || inputs != outputs {
            let name = if layout.stem == Stem::Imagenet { "downsample" } else { "shortcut" };
            let unit = b.within(name, |b| Unit::build(b, ("0", "1"), inputs, (outputs, 1, stride)))?;
            Some(Unit { padding: 0, ..unit })
        } else {
            None
        };
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
    stem: Stem,
    first: Unit,
    blocks: Vec<Block>,
}

impl ResNet {
    pub(super) fn build(b: &mut Builder, layout: &Layout) -> Result<Self> {
        let (kernel, stride, padding) = layout.first();
        let first = Unit::build(b, ("conv1", "bn1"), layout.channels, (layout.width, kernel, stride))?;
        let first = Unit { padding, ..first };
        let (mut blocks, mut from) = (Vec::new(), layout.width);
        for (stage, &count) in layout.blocks.iter().enumerate() {
            let width = layout.width << stage;
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                blocks.push(b.within(&name, |b| Block::build(b, layout, from, width, stride))?);
                from = width * layout.expansion();
            }
        }
        Ok(Self { stem: layout.stem, first, blocks })
    }

    /// # Shapes
    /// `x`: `[B, C, S, S]`. Returns `[B, D]`.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.first.forward(x, mode, After::Relu)?;
        let mut y = match self.stem {
            Stem::Cifar | Stem::Strided => y,
            Stem::Stl => max_pool2d(&y, 2, 2, 1)?,
            Stem::Imagenet => max_pool2d(&y, 3, 2, 1)?,
        };
        for block in &self.blocks {
            y = block.forward(&y, mode)?;
        }
        Ok(global_avg_pool(&y)?)
    }
}
