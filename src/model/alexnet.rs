//! AlexNet with batch norm, for pictures of 32 pixels and for ImageNet's: the network of AND's published table.
//!
//! Five convolutions and two fully connected layers, each followed by batch norm and ReLU; a third linear layer, to 128 numbers, is the
//! encoder's projection. One tower; no local response normalization and no dropout, whose place batch norm takes. The stem says which
//! form it is: `cifar` has kernels of 3 and poolings that do not overlap, `imagenet` those of 2012.
//!
//! AND's code has no AlexNet. Layers and tensor names are those of the code for PyTorch that goes with the line of work AND belongs to
//! (instance discrimination after Wu et al. 2018), with `features.{n}`, `fc1`, `fc2` and `projection.0`.
//!
//! The first fully connected layer reads the whole last map, so that the network takes images of one size only.
//!
//! # Paper
//! Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", for the widths of one tower; Ioffe & Szegedy
//! 2015 for batch norm; Huang et al. 2019, "Unsupervised deep learning by neighbourhood discovery", for its use.

use candle_core::Tensor;

use super::error::Result;
use super::head::Linear;
use super::init::Init;
use super::norm::{BatchNorm, Mode};
use super::params::Builder;
use super::resnet::Step;
use kinset_artifact::encoder::Stem;
use kinset_kernel::{After, conv2d, max_pool2d, scale_shift};

/// Outputs of the five convolutions, in units of the first one's.
const WIDTHS: [usize; 5] = [1, 3, 6, 4, 4];
/// Which of them a pooling follows.
const POOLED: [bool; 5] = [true, true, false, false, true];
/// Numbers that the first fully connected layer may have: 8 GiB of them.
const MOST_WEIGHTS: usize = 1 << 31;

/// The layers of an AlexNet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// [`Stem::Imagenet`], or else the form for small images.
    pub(super) stem: Stem,
    pub(super) channels: usize,
    /// Outputs of the first convolution; 64 in the papers.
    pub(super) width: usize,
    /// Side of the input, pixels.
    pub(super) size: usize,
}

impl Layout {
    /// What each of the five convolutions is to be, in order, and kernel and stride of the pooling after it.
    pub(super) fn steps(&self) -> Vec<(Step, Option<(usize, usize)>)> {
        let (pool, kernels) = match self.stem {
            Stem::Imagenet => ((3, 2), [(11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)]),
            Stem::Cifar | Stem::Stl | Stem::Strided => ((2, 2), [(3, 1, 1); 5]),
        };
        // Batch norm, ReLU and pooling count as layers in the names.
        let (mut place, mut inputs, mut steps) = (0, self.channels, Vec::new());
        for ((kernel, stride, padding), (width, pooled)) in kernels.into_iter().zip(WIDTHS.into_iter().zip(POOLED)) {
            let outputs = self.width * width;
            let (conv, norm) = (format!("features.{place}"), format!("features.{}", place + 1));
            steps.push((Step { conv, norm, inputs, outputs, kernel, stride, padding }, pooled.then_some(pool)));
            place += if pooled { 4 } else { 3 };
            inputs = outputs;
        }
        steps
    }

    /// Side of the last map, pixels; none where the images are too small.
    pub(super) fn last_side(&self) -> Option<usize> {
        let fold = |side: usize, kernel: usize, stride: usize, padding: usize| {
            (side + 2 * padding).checked_sub(kernel).map(|rest| rest / stride + 1)
        };
        self.steps().iter().try_fold(self.size, |side, (step, pool)| {
            let side = fold(side, step.kernel, step.stride, step.padding)?;
            match *pool {
                Some((kernel, stride)) => fold(side, kernel, stride, 0),
                None => Some(side),
            }
        })
    }

    /// Names of the fully connected layers, each with its inputs and outputs; none where the images are too small or the first of them
    /// too large.
    pub(super) fn dense(&self) -> Option<[(&'static str, [usize; 2]); 2]> {
        let inputs = self.last_side()?.checked_pow(2)?.checked_mul(self.width * WIDTHS[4])?;
        let units = self.features();
        (inputs.checked_mul(units)? <= MOST_WEIGHTS).then_some([("fc1", [inputs, units]), ("fc2", [units, units])])
    }

    /// Features, D.
    pub(super) fn features(&self) -> usize {
        self.width * if self.stem == Stem::Imagenet { 64 } else { 16 }
    }
}

/// Convolution with bias, batch norm, ReLU.
#[derive(Clone, Debug)]
struct Unit {
    weight: Tensor,
    bias: Tensor,
    norm: BatchNorm,
    stride: usize,
    padding: usize,
    pool: Option<(usize, usize)>,
}

impl Unit {
    fn build(b: &mut Builder, step: &Step, pool: Option<(usize, usize)>) -> Result<Self> {
        let &Step { inputs, outputs, kernel, stride, padding, .. } = step;
        let (weight, bias) = b.within(&step.conv, |b| {
            let weight = b.parameter("weight", &[outputs, inputs, kernel, kernel], Init::KaimingNormal)?;
            Ok((weight, b.parameter("bias", &[outputs], Init::Linear { inputs: inputs * kernel * kernel })?))
        })?;
        Ok(Self { weight, bias, norm: BatchNorm::build(b, &step.norm, outputs)?, stride, padding, pool })
    }

    /// Before the pooling.
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = conv2d(x, &self.weight, self.stride, self.padding)?;
        let ones = self.bias.detach().ones_like()?;
        self.norm.forward(&scale_shift(&y, &ones, &self.bias, After::Nothing)?, mode, After::Relu)
    }

    fn pooled(&self, y: Tensor) -> Result<Tensor> {
        match self.pool {
            Some((kernel, stride)) => Ok(max_pool2d(&y, kernel, stride, 0)?),
            None => Ok(y),
        }
    }
}

/// Linear layer, batch norm, ReLU.
#[derive(Clone, Debug)]
struct Dense {
    linear: Linear,
    norm: BatchNorm,
}

impl Dense {
    fn build(b: &mut Builder, name: &str, [inputs, outputs]: [usize; 2]) -> Result<Self> {
        b.within(name, |b| {
            Ok(Self { linear: Linear::build(b, "0", inputs, outputs)?, norm: BatchNorm::build(b, "1", outputs)? })
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let y = self.linear.forward(x)?;
        let (rows, columns) = y.dims2()?;
        let y = self.norm.forward(&y.reshape((rows, columns, 1, 1))?, mode, After::Relu)?;
        Ok(y.reshape((rows, columns))?)
    }
}

/// An AlexNet without its last linear layer.
#[derive(Clone, Debug)]
pub(super) struct AlexNet {
    units: Vec<Unit>,
    dense: Vec<Dense>,
}

impl AlexNet {
    /// `dense` is the layout's own.
    pub(super) fn build(b: &mut Builder, layout: &Layout, dense: [(&'static str, [usize; 2]); 2]) -> Result<Self> {
        let units = layout.steps().iter().map(|(step, pool)| Unit::build(b, step, *pool)).collect::<Result<_>>()?;
        let dense = dense.into_iter().map(|(name, sizes)| Dense::build(b, name, sizes)).collect::<Result<_>>()?;
        Ok(Self { units, dense })
    }

    /// # Shapes
    /// `x`: `[B, C, S, S]`, S that of the layout. Returns `[B, D]`.
    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.until(x, mode, self.units.len() + self.dense.len() - 1)
    }

    /// Names of its layers, from the first to the last.
    pub(super) fn layers(&self) -> Vec<String> {
        let named = |word: &'static str, count: usize| (1..=count).map(move |number| format!("{word}{number}"));
        named("conv", self.units.len()).chain(named("fc", self.dense.len())).collect()
    }

    /// What a layer makes of images, counted from 0; a convolution's map is the one before the pooling.
    ///
    /// # Shapes
    /// `x`: `[B, C, S, S]`. Returns `[B, C', H, W]` of a convolution, `[B, D]` of a fully connected layer.
    pub(super) fn until(&self, x: &Tensor, mode: Mode, layer: usize) -> Result<Tensor> {
        let mut y = x.clone();
        for (at, unit) in self.units.iter().enumerate() {
            y = unit.forward(&y, mode)?;
            if at == layer {
                return Ok(y);
            }
            y = unit.pooled(y)?;
        }
        y = y.flatten_from(1)?;
        for dense in self.dense.iter().take(layer + 1 - self.units.len()) {
            y = dense.forward(&y, mode)?;
        }
        Ok(y)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use candle_core::Device;
    use serde_json::{Value, json};

    use super::*;
    use crate::export::save;
    use crate::import::{self, Layout as Names, Wanted};
    use crate::params::values;
    use crate::testing::{assert_near, fill_with_noise, noise, noisy, numbers};
    use crate::{EncoderNet, ModelError, architecture};
    use kinset_artifact::encoder::{Backbone, Encoder, Normalization, Projection, ProjectionKind};
    use kinset_base::fs;
    use kinset_base::seed::Seed;

    const FORMS: [(&str, Stem, usize); 2] = [("cifar", Stem::Cifar, 32), ("imagenet", Stem::Imagenet, 224)];

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/alexnet")
    }

    fn golden() -> Value {
        serde_json::from_str(&fs::read_text(&folder().join("expected.json")).unwrap()).unwrap()
    }

    fn plain() -> Normalization {
        Normalization::new(vec![0.0; 3], vec![1.0; 3])
    }

    fn net(stem: Stem, width: usize, size: usize, dim: usize) -> EncoderNet {
        let projection = Some(Projection { kind: ProjectionKind::Linear, dim });
        let shape = architecture(Backbone::Alexnet, stem, width, 3, size, projection).unwrap();
        let net = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
        fill_with_noise(net.params());
        net
    }

    fn images(size: usize, count: usize) -> Tensor {
        noisy(&[count, 3, size, size], 1000)
    }

    /// Some numbers of each row, and the sum of all.
    #[track_caller]
    fn assert_some(what: &str, found: &Tensor, wanted: &Value) {
        let rows = found.flatten_from(1).unwrap();
        let (all, columns, step) = (values(&rows).unwrap(), rows.dim(1).unwrap(), wanted["step"].as_u64().unwrap() as usize);
        let some: Vec<f32> = all.chunks_exact(columns).flat_map(|row| row.iter().step_by(step).copied()).collect();
        assert_near(what, &some, &numbers(&wanted["values"]), 1e-4);
        assert!(some.iter().filter(|value| **value > 0.01).count() > some.len() / 5, "{what}: nothing is seen of it");
        let (sum, wanted) = (all.iter().map(|&value| f64::from(value)).sum::<f64>(), wanted["sum"].as_f64().unwrap());
        assert!((sum - wanted).abs() < 1e-5 * all.len() as f64, "{what}: the sum {sum} is not {wanted}");
    }

    #[track_caller]
    fn assert_gives(what: &str, net: &EncoderNet, expected: &Value) {
        let size = expected["size"].as_u64().unwrap() as usize;
        let features = net.features(&images(size, 2), Mode::Eval).unwrap();
        assert_some(what, &features, &expected["features"]);
        let projected = values(&net.project(&features, Mode::Eval).unwrap()).unwrap();
        assert_near(what, &projected, &numbers(&expected["projection"]), 1e-4);
    }

    #[test]
    fn both_forms_give_pytorchs_numbers_leave_under_its_names_and_come_back() {
        let (golden, dir) = (golden(), tempfile::tempdir().unwrap());
        for (form, stem, size) in FORMS {
            let expected = &golden["forms"][form];
            let net = net(stem, 64, size, 128);
            assert_gives(form, &net, expected);
            let all = net.layers();
            assert_eq!(all, ["conv1", "conv2", "conv3", "conv4", "conv5", "fc1", "fc2"]);
            for (at, layer) in all.iter().enumerate() {
                let made = net.made(&images(size, 2), at).unwrap();
                assert_some(&format!("{form} {layer}"), &made, &expected["layers"][layer]);
            }

            let path = dir.path().join(form);
            let there = Encoder { card: net.card(plain()), tensors: net.to_tensors().unwrap() };
            let mut names = save(&there.tensors, Names::And, &path).unwrap();
            let mut wanted: Vec<String> =
                expected["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
            names.sort();
            wanted.sort();
            assert_eq!(names, wanted);
            let found = import::find(&fs::read(&path).unwrap(), &Wanted::default()).unwrap();
            assert_eq!(found.layout(), Names::And);
            let back = found.encoder(size, &plain()).unwrap();
            assert!(back == there, "{form}: other numbers or another card came back");
            assert_gives(form, &EncoderNet::from_tensors(&back.card, &back.tensors, &Device::Cpu).unwrap(), expected);
        }
    }

    #[test]
    fn files_of_pytorch_are_read_and_tell_the_size_of_their_images() {
        let golden = golden();
        for (name, stem, size) in [("cifar.ckpt", Stem::Cifar, 32), ("imagenet.pth", Stem::Imagenet, 224)] {
            let bytes = fs::read(&folder().join(name)).unwrap();
            let found = import::find(&bytes, &Wanted::default()).unwrap();
            let encoder = found.encoder(size, &plain()).unwrap();
            let shape = &encoder.card.architecture;
            assert_eq!((shape.backbone, shape.stem, shape.width, shape.size), (Backbone::Alexnet, stem, 1, size));
            let net = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
            assert_gives(name, &net, &golden["files"][name]);

            let error = found.encoder(96, &plain()).unwrap_err();
            let sizes = if size == 32 { "32 to 39 pixels" } else { "223 to 254 pixels" };
            assert!(error.to_string().contains(sizes) && matches!(error, ModelError::Architecture { .. }), "{error}");
            let other = if size == 32 { Stem::Imagenet } else { Stem::Cifar };
            assert!(import::find(&bytes, &Wanted { stem: Some(other), ..Wanted::default() }).is_err());
        }
    }

    #[test]
    fn a_pass_in_training_gives_pytorchs_gradients_and_statistics() {
        let expected = &golden()["train"];
        let net = net(Stem::Cifar, 2, 32, 5);
        let features = net.features(&images(32, 6), Mode::Train).unwrap();
        let projected = net.project(&features, Mode::Train).unwrap();
        assert_near("projection", &values(&projected).unwrap(), &numbers(&expected["projection"]), 1e-4);
        let grads = (&projected * noisy(&[6, 5], 2000)).unwrap().sum_all().unwrap().backward().unwrap();
        let theirs = |name: &str| Names::And.theirs(name, true).unwrap();
        for (name, var) in net.params().parameters() {
            let found = values(grads.get(var.as_tensor()).unwrap()).unwrap();
            let wanted = numbers(&expected["gradients"][theirs(name)]);
            assert_near(name, &found[..wanted.len()], &wanted, 2e-4);
        }
        for (name, var) in net.params().buffers() {
            let wanted = numbers(&expected["statistics"][theirs(name)]);
            assert_near(name, &values(var).unwrap()[..wanted.len()], &wanted, 1e-4);
        }
    }

    #[test]
    fn what_no_alexnet_has_is_refused_by_name() {
        let wrong = |stem, width, size| architecture(Backbone::Alexnet, stem, width, 3, size, None).unwrap_err().to_string();
        assert!(wrong(Stem::Stl, 64, 96).contains("`stem` stl"));
        assert!(wrong(Stem::Cifar, 64, 7).contains("at least 8 pixels"));
        assert!(wrong(Stem::Imagenet, 64, 62).contains("at least 63 pixels"));
        assert!(wrong(Stem::Cifar, 1024, 65_536).contains("2,147,483,648"), "before memory is taken");
        for (stem, size) in [(Stem::Cifar, 8), (Stem::Imagenet, 63)] {
            let net = net(stem, 1, size, 5);
            assert_eq!(net.features(&images(size, 1), Mode::Eval).unwrap().dims(), [1, net.dim()]);
            assert!(matches!(net.features(&images(size + 8, 1), Mode::Eval), Err(ModelError::Input { .. })));
        }
    }

    /// Leaves networks and what they make of two images where `tests/parity/alexnet.py` finds them.
    #[test]
    fn alexnets_are_left_for_pytorch() {
        let Some(folder) = std::env::var_os("KINSET_INTEROP_DIR") else { return };
        let folder = Path::new(&folder).join("alexnet");
        fs::create_folders(&folder).unwrap();
        let mut told = Vec::new();
        for (form, stem, size) in FORMS {
            let net = net(stem, 8, size, 5);
            let features = net.features(&images(size, 2), Mode::Eval).unwrap();
            save(&net.to_tensors().unwrap(), Names::And, &folder.join(format!("{form}.safetensors"))).unwrap();
            told.push(json!({
                "form": form, "width": 8, "features": values(&features).unwrap(),
                "projection": values(&net.project(&features, Mode::Eval).unwrap()).unwrap(),
            }));
        }
        fs::write_atomic(&folder.join("expected.json"), &serde_json::to_vec(&told).unwrap()).unwrap();
    }

    #[test]
    fn noise_is_that_of_the_script() {
        assert!(noise(1000, 3).iter().all(|value| (-1.0..1.0).contains(value)));
        assert_ne!(noise(4, 0), noise(4, 1));
    }
}
