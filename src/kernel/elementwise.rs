//! Element-wise operations on activations: sums, ReLU, and both in one pass.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::accumulate::CHUNK;
use super::autograd::{Backward, GradSlot, Input, Saved, read, record, supported};
use super::buffers::{Place, in_pieces, write};
use super::dispatch::vectorized;
use super::error::KernelError;

vectorized! {
    fn relu_of<'a>(y: &'a mut [Place], x: &[f32]) -> &'a mut [f32] {
        write(y, x.iter().map(|&x| if x < 0.0 { 0.0 } else { x }))
    }
}

vectorized! {
    fn sum_of<'a>(y: &'a mut [Place], a: &[f32], b: &[f32]) -> &'a mut [f32] {
        write(y, a.iter().zip(b).map(|(a, b)| a + b))
    }
}

vectorized! {
    fn relu_of_sum<'a>(y: &'a mut [Place], a: &[f32], b: &[f32]) -> &'a mut [f32] {
        write(y, a.iter().zip(b).map(|(a, b)| a + b).map(|sum| if sum < 0.0 { 0.0 } else { sum }))
    }
}

vectorized! {
    fn keep_where_positive(gradient: &mut [f32], y: &[f32]) {
        for (g, &y) in gradient.iter_mut().zip(y) {
            *g = if y > 0.0 { *g } else { 0.0 };
        }
    }
}

/// Sets the gradient to zero where the output is.
pub(super) fn mask(gradient: &mut [f32], y: &[f32]) {
    gradient.par_chunks_mut(CHUNK).zip(y.par_chunks(CHUNK)).for_each(|(g, y)| keep_where_positive(g, y));
}

/// `max(x, 0)`; the gradient at zero is zero, as PyTorch's. NaN passes.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    if !supported(&[x]) {
        return x.relu();
    }
    let input = Input::of(x)?;
    let y = read(&input.data, |x| in_pieces(x.len(), CHUNK, |i, y| relu_of(y, &x[i * CHUNK..])))?;
    let slots = [input.slot(), None];
    record(y, x.shape(), &[&input], [None, None], || ReluBackward { slots })
}

vectorized! {
    fn clip_of<'a>(y: &'a mut [Place], x: &[f32], low: f32, high: f32) -> &'a mut [f32] {
        write(y, x.iter().map(|&x| if x < low { low } else if x > high { high } else { x }))
    }
}

/// `x`, where it leaves the bounds the nearer of them. NaN passes. The fast one has no gradient.
pub fn clip(x: &Tensor, low: f32, high: f32) -> Result<Tensor> {
    if !supported(&[x]) || x.track_op() {
        return x.clamp(low, high);
    }
    let x = x.contiguous()?;
    let y = read(&x, |x| in_pieces(x.len(), CHUNK, |i, y| clip_of(y, &x[i * CHUNK..], low, high)))?;
    Tensor::from_vec(y, x.shape(), x.device())
}

/// `a + b` of equal shapes.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    sum(a, b, false)
}

/// `max(a + b, 0)`: the end of a residual block.
pub fn add_relu(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    sum(a, b, true)
}

fn sum(a: &Tensor, b: &Tensor, rectify: bool) -> Result<Tensor> {
    if a.dims() != b.dims() {
        return Err(KernelError::Shape { op: "add", shapes: vec![a.dims().to_vec(), b.dims().to_vec()] }.wrap());
    }
    if !supported(&[a, b]) {
        let sum = (a + b)?;
        return if rectify { sum.relu() } else { Ok(sum) };
    }
    let (left, right) = (Input::of(a)?, Input::of(b)?);
    let y = read(&left.data, |a| {
        read(&right.data, |b| {
            let work = if rectify { relu_of_sum } else { sum_of };
            in_pieces(a.len(), CHUNK, |i, y| work(y, &a[i * CHUNK..], &b[i * CHUNK..]))
        })
    })??;
    let slots = [left.slot(), right.slot()];
    if !rectify {
        return record(y, a.shape(), &[&left, &right], [None, None], || SumBackward { slots });
    }
    record(y, a.shape(), &[&left, &right], [None, None], || ReluBackward { slots })
}

/// A copy, made by all cores.
pub(super) fn copy(gradient: &[f32]) -> Vec<f32> {
    in_pieces(gradient.len(), CHUNK, |i, to| {
        let from = &gradient[i * CHUNK..][..to.len()];
        to.write_copy_of_slice(from)
    })
}

/// Adds a gradient to every slot; the last one gets the memory.
pub(super) fn share(gradient: Vec<f32>, slots: &[Option<Arc<GradSlot>>]) {
    let mut wanting = slots.iter().flatten().peekable();
    let mut gradient = Some(gradient);
    while let Some(slot) = wanting.next() {
        let part = if wanting.peek().is_some() { gradient.as_deref().map(copy) } else { gradient.take() };
        if let Some(part) = part {
            slot.add(part);
        }
    }
}

struct ReluBackward {
    slots: [Option<Arc<GradSlot>>; 2],
}

impl Backward for ReluBackward {
    fn name(&self) -> &'static str {
        "relu"
    }
    fn keeps_output(&self) -> bool {
        true
    }
    fn backward(&self, mut gradient: Vec<f32>, saved: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let output = saved.output.ok_or_else(|| KernelError::NoGradient { op: "relu" }.wrap())?;
        read(output, |y| mask(&mut gradient, y))?;
        share(gradient, &self.slots);
        Ok([None, None])
    }
}

struct SumBackward {
    slots: [Option<Arc<GradSlot>>; 2],
}

impl Backward for SumBackward {
    fn name(&self) -> &'static str {
        "add"
    }
    fn backward(&self, gradient: Vec<f32>, _: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        share(gradient, &self.slots);
        Ok([None, None])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{agrees_with_differences, doubles, floats, normal, run, same_bits};
    use super::*;
    use candle_core::Device;

    #[test]
    fn sums_and_rectifiers_agree_with_differences() {
        let inputs = [normal("a", &[3, 5, 7]), normal("b", &[3, 5, 7])];
        agrees_with_differences("relu", &|t| relu(&t[0]), &inputs[..1]);
        agrees_with_differences("add", &|t| add(&t[0], &t[1]), &inputs);
        agrees_with_differences("add_relu", &|t| add_relu(&t[0], &t[1]), &inputs);
        agrees_with_differences("twice", &|t| add(&t[0], &t[0]), &inputs[..1]);
    }

    #[test]
    fn zero_has_no_gradient_and_nan_passes() {
        let x = Tensor::new(&[-1.0f32, 0.0, 2.0, f32::NAN], &Device::Cpu).unwrap();
        let y = floats(&relu(&x).unwrap());
        assert_eq!(y[..3], [0.0, 0.0, 2.0]);
        assert!(y[3].is_nan());
        let x = Tensor::new(&[-1.0f32, 0.0, 2.0], &Device::Cpu).unwrap();
        let (_, gradients) = run(&|t| relu(&t[0]), std::slice::from_ref(&x));
        let r = doubles(&normal("cotangent", &[3]));
        assert_eq!(doubles(&gradients[0]), [0.0, 0.0, r[2]]);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let inputs = [normal("a", &[3, 40_001]), normal("b", &[3, 40_001])];
        same_bits("add_relu", &|t| add_relu(&add(&relu(&t[0])?, &t[1])?, &t[0]), &inputs);
    }

    #[test]
    fn shapes_must_be_equal() {
        assert!(add(&normal("a", &[2, 3]), &normal("b", &[3, 2])).is_err());
    }
}
