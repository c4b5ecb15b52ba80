//! The body of a residual network as one operation on tensors of the processor.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Shape, Storage, Tensor};

use super::card::Card;
use super::error::{GpuError, Result};
use super::network::Network;
use super::plan::Purpose;
use super::session::Lease;

/// What batch norm uses.
#[derive(Clone, Copy, Debug)]
pub enum Statistics<'a> {
    /// Those of the batch.
    Batch,
    /// Given ones, a row as of [`Network::units`]: mean, then variance of each unit.
    Fixed(&'a [f32]),
}

/// Features of images, computed on a card, with gradients of weights and images.
///
/// # Shapes
/// `images` `[B, C, H, W]`; `weights` one row: of each unit, in the order of [`Network::units`], weight `[outputs, inputs, kernel,
/// kernel]`, gamma and beta. Returns features `[B, D]` and, of a batch's own statistics, their row: mean and biased variance of each
/// unit.
///
/// # Errors
/// [`GpuError::Memory`] before anything is computed, if it does not fit on the card; [`GpuError::Call`] if the card fails.
pub fn features(
    card: &'static Card,
    network: &Network,
    images: &Tensor,
    weights: &Tensor,
    statistics: Statistics<'_>,
) -> Result<(Tensor, Vec<f32>)> {
    let (batch, _, height, width) = images.dims4()?;
    let (training, given) = match statistics {
        Statistics::Batch => (true, None),
        Statistics::Fixed(row) => (false, Some(row)),
    };
    let of_images = images.track_op();
    let recorded = of_images || weights.track_op();
    let purpose = Purpose { network: network.clone(), images: batch, height, width, training, recorded, of_images };
    let lease = Lease::of(card, &purpose)?;
    let (images, weights) = (images.contiguous()?, weights.contiguous()?);
    let made = numbers(&images, |images| numbers(&weights, |weights| lease.forward(images, weights, given)))???;
    let shape = (batch, network.features());
    if !recorded {
        return Ok((Tensor::from_vec(made.features, shape, &Device::Cpu)?, made.moments));
    }
    let body = Body { lease, features: Mutex::new(Some(made.features)), shape: shape.into() };
    Ok((images.apply_op2(&weights, body)?, made.moments))
}

/// Lends the numbers of a contiguous f32 tensor.
fn numbers<T>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(numbers)), Some((start, end))) => Ok(f(&numbers[start..end])),
        _ => Err(candle_core::Error::UnexpectedDType {
            msg: "the card takes f32 numbers of the processor",
            expected: DType::F32,
            got: tensor.dtype(),
        }
        .into()),
    }
}

/// A forward pass that was made, and the session that can go back.
struct Body {
    lease: Lease,
    features: Mutex<Option<Vec<f32>>>,
    shape: Shape,
}

impl CustomOp2 for Body {
    fn name(&self) -> &'static str {
        "body on the card"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let features = self.features.lock().ok().and_then(|mut features| features.take());
        let features = features.ok_or(GpuError::Length { what: "features", found: 0, wanted: self.shape.elem_count() });
        Ok((CpuStorage::F32(features.map_err(GpuError::wrap)?), self.shape.clone()))
    }

    fn bwd(
        &self,
        images: &Tensor,
        weights: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        let made = numbers(&gradient, |gradient| self.lease.backward(gradient)).flatten();
        let (of_weights, of_images) = made.map_err(GpuError::wrap)?;
        let of_images = of_images.map(|numbers| Tensor::from_vec(numbers, images.shape(), &Device::Cpu)).transpose()?;
        Ok((of_images, Some(Tensor::from_vec(of_weights, weights.shape(), &Device::Cpu)?)))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::super::network::{Block, Pool, Unit};
    use super::super::reference;
    use super::super::testing::open;
    use super::*;
    use kinset_base::seed::Seed;

    fn unit(inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Unit {
        Unit { inputs, outputs, kernel, stride, padding: kernel / 2 }
    }

    /// Two blocks of two units, the second with a way around it.
    fn basic(channels: usize, pool: Option<Pool>) -> Network {
        let same = Block { units: vec![unit(5, 5, 3, 1), unit(5, 5, 3, 1)], shortcut: None };
        let half = Block { units: vec![unit(5, 8, 3, 2), unit(8, 8, 3, 1)], shortcut: Some(unit(5, 8, 1, 2)) };
        Network { first: unit(channels, 5, 3, 1), pool, blocks: vec![same, half] }
    }

    /// Three units a block, as in a ResNet-50 with the stem of ImageNet.
    fn bottleneck() -> Network {
        let wide =
            Block { units: vec![unit(6, 4, 1, 1), unit(4, 4, 3, 1), unit(4, 16, 1, 1)], shortcut: Some(unit(6, 16, 1, 1)) };
        let same = Block { units: vec![unit(16, 4, 1, 1), unit(4, 4, 3, 1), unit(4, 16, 1, 1)], shortcut: None };
        let half =
            Block { units: vec![unit(16, 7, 1, 1), unit(7, 7, 3, 2), unit(7, 28, 1, 1)], shortcut: Some(unit(16, 28, 1, 2)) };
        let pool = Some(Pool { kernel: 3, stride: 2, padding: 1 });
        Network { first: unit(3, 6, 7, 2), pool, blocks: vec![wide, same, half] }
    }

    fn networks() -> Vec<(&'static str, Network)> {
        vec![
            ("small images", basic(3, None)),
            ("gray", basic(1, None)),
            ("the stem of STL", basic(3, Some(Pool { kernel: 2, stride: 2, padding: 1 }))),
            ("the stem of ImageNet, three units a block", bottleneck()),
        ]
    }

    fn normal(name: &str, count: usize, scale: f64) -> Vec<f32> {
        let mut rng = Seed::new(3).branch(name).rng();
        (0..count).map(|_| (rng.normal() * scale) as f32).collect()
    }

    /// Weights around what networks begin with; gammas around one.
    fn weights(network: &Network) -> Vec<f32> {
        let mut all = normal("weights", network.lengths().0, 0.1);
        for (unit, place) in network.units().zip(network.places()) {
            let scale = (2.0 / (unit.inputs * unit.kernel * unit.kernel) as f32).sqrt() * 10.0;
            all[place.weight].iter_mut().for_each(|w| *w *= scale);
            all[place.gamma].iter_mut().for_each(|gamma| *gamma += 1.0);
        }
        all
    }

    fn images(dims: [usize; 4]) -> Tensor {
        // A mean far from zero, so that sums must keep their digits.
        let numbers = normal("images", dims.iter().product(), 1.0).into_iter().map(|v| v + 3.0).collect();
        Tensor::from_vec(numbers, &dims, &Device::Cpu).unwrap()
    }

    fn floats(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[track_caller]
    fn near(what: &str, found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len(), "{what}");
        let scale = wanted.iter().fold(1e-6f32, |most, v| most.max(v.abs()));
        for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
            assert!((found - wanted).abs() <= 1e-5 * scale, "{what} at {at}: {found} and not {wanted}, of at most {scale}");
        }
    }

    type Made = (Tensor, Vec<f32>);

    /// Features, moments, gradients of weights and of images of Σ r · features, for fixed r.
    fn all(f: impl Fn(&Tensor, &Tensor) -> Result<Made>, images: &Tensor, weights: &[f32]) -> [Vec<f32>; 4] {
        let (images, weights) =
            (Var::from_tensor(images).unwrap(), Var::from_vec(weights.to_vec(), weights.len(), &Device::Cpu).unwrap());
        let (features, moments) = f(images.as_tensor(), weights.as_tensor()).unwrap();
        let r = Tensor::from_vec(normal("r", features.elem_count(), 1.0), features.shape(), &Device::Cpu).unwrap();
        let gradients = (&features * r).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |var: &Var| floats(gradients.get(var.as_tensor()).unwrap());
        [floats(&features.detach()), moments, of(&weights), of(&images)]
    }

    const WHAT: [&str; 4] = ["features", "moments", "gradient of weights", "gradient of images"];

    #[test]
    fn a_training_step_is_that_of_the_processor() {
        let Some(card) = open(&[]) else { return };
        for (name, network) in networks() {
            let (images, weights) = (images([4, network.first.inputs, 14, 13]), weights(&network));
            let found = all(|x, w| features(card, &network, x, w, Statistics::Batch), &images, &weights);
            let wanted = all(|x, w| reference::features(&network, x, w, Statistics::Batch), &images, &weights);
            for ((found, wanted), what) in found.iter().zip(&wanted).zip(WHAT) {
                near(&format!("{name}: {what}"), found, wanted);
            }
        }
    }

    #[test]
    fn given_statistics_are_used_with_and_without_a_gradient() {
        let Some(card) = open(&[]) else { return };
        for (name, network) in networks() {
            let (images, weights) = (images([3, network.first.inputs, 11, 16]), weights(&network));
            let mut row = normal("statistics", network.lengths().1, 0.3);
            for place in network.places() {
                let half = place.moments.len() / 2;
                row[place.moments][half..].iter_mut().for_each(|variance| *variance = variance.abs() + 0.5);
            }
            let fixed = Statistics::Fixed(&row);
            let found = all(|x, w| features(card, &network, x, w, fixed), &images, &weights);
            let wanted = all(|x, w| reference::features(&network, x, w, fixed), &images, &weights);
            for ((found, wanted), what) in found.iter().zip(&wanted).zip(WHAT) {
                near(&format!("{name}: {what}"), found, wanted);
            }
            // Buffers are shared then, and must not be while somebody needs them.
            let plain = Tensor::new(weights.as_slice(), &Device::Cpu).unwrap();
            let (plain, moments) = features(card, &network, &images, &plain, fixed).unwrap();
            assert!(!plain.track_op() && moments.is_empty());
            assert_eq!(floats(&plain), found[0], "{name}: without a gradient");
        }
    }

    #[test]
    fn statistics_of_the_batch_without_a_gradient_are_the_same_bytes() {
        let Some(card) = open(&[]) else { return };
        for (name, network) in networks() {
            let (images, weights) = (images([4, network.first.inputs, 14, 13]), weights(&network));
            let recorded = all(|x, w| features(card, &network, x, w, Statistics::Batch), &images, &weights);
            let plain = Tensor::new(weights.as_slice(), &Device::Cpu).unwrap();
            let (plain, moments) = features(card, &network, &images, &plain, Statistics::Batch).unwrap();
            assert_eq!((floats(&plain), moments), (recorded[0].clone(), recorded[1].clone()), "{name}");
        }
    }

    #[test]
    fn passes_that_overlap_and_threads_that_take_turns_do_not_disturb_each_other() {
        let Some(card) = open(&[]) else { return };
        let network = basic(3, None);
        let (images, weights) = (images([2, 3, 9, 9]), weights(&network));
        let step = |images: &Tensor| all(|x, w| features(card, &network, x, w, Statistics::Batch), images, &weights);
        let bits = |made: [Vec<f32>; 4]| made.map(|row| row.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        let doubled = (&images * 2.0).unwrap();
        let (one, two) = (bits(step(&images)), bits(step(&doubled)));
        assert_ne!(one, two);
        // Two forward passes of one shape before either goes back.
        let row = Var::from_vec(weights.clone(), weights.len(), &Device::Cpu).unwrap();
        let pass = |images: &Tensor| features(card, &network, images, row.as_tensor(), Statistics::Batch).unwrap().0;
        let (first, second) = (pass(&images), pass(&doubled));
        let back = |features: &Tensor| {
            let r = Tensor::from_vec(normal("r", features.elem_count(), 1.0), features.shape(), &Device::Cpu).unwrap();
            let gradients = (features * r).unwrap().sum_all().unwrap().backward().unwrap();
            floats(gradients.get(row.as_tensor()).unwrap()).into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(back(&first), one[2]);
        assert_eq!(back(&second), two[2]);
        assert_eq!(back(&first), one[2], "and once more");
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    let (step, images) = (&step, if thread % 2 == 0 { &images } else { &doubled });
                    scope.spawn(move || bits(step(images)))
                })
                .collect();
            for (thread, handle) in threads.into_iter().enumerate() {
                assert!(handle.join().unwrap() == if thread % 2 == 0 { one.clone() } else { two.clone() }, "thread {thread}");
            }
        });
    }

    #[test]
    fn a_number_that_is_none_is_kept() {
        let Some(card) = open(&[]) else { return };
        let network = basic(3, Some(Pool { kernel: 2, stride: 2, padding: 1 }));
        let weights = weights(&network);
        let mut row = normal("statistics", network.lengths().1, 0.0);
        row.fill(1.0);
        let mut numbers = floats(&images([2, 3, 9, 9]));
        numbers[40] = f32::NAN;
        let images = Tensor::from_vec(numbers, (2, 3, 9, 9), &Device::Cpu).unwrap();
        let weights = Tensor::new(weights.as_slice(), &Device::Cpu).unwrap();
        let (made, _) = features(card, &network, &images, &weights, Statistics::Fixed(&row)).unwrap();
        let rows: Vec<Vec<f32>> = made.to_vec2().unwrap();
        assert!(rows[0].iter().all(|v| v.is_nan()), "{rows:?}");
        assert!(rows[1].iter().all(|v| v.is_finite()), "{rows:?}");
    }

    #[test]
    fn a_batch_that_does_not_fit_is_refused_before_the_first_step_and_a_smaller_one_takes_its_place() {
        let Some(card) = open(&["DOUBLE_MEMORY=400000"]) else { return };
        let network = basic(3, None);
        let weights = Tensor::new(weights(&network).as_slice(), &Device::Cpu).unwrap();
        let run = |batch| features(card, &network, &images([batch, 3, 16, 16]), &weights, Statistics::Batch);
        run(2).unwrap();
        run(4).unwrap();
        let error = run(4000).unwrap_err();
        assert!(matches!(error, GpuError::Memory { images: 4000, height: 16, free: 400_000, .. }), "{error}");
        run(6).unwrap();
        let wrong = Tensor::zeros(7, DType::F32, &Device::Cpu).unwrap();
        let error = features(card, &network, &images([2, 3, 16, 16]), &wrong, Statistics::Batch).unwrap_err();
        assert!(matches!(error, GpuError::Length { what: "weights", found: 7, .. }), "{error}");
    }
}
