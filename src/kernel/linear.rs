//! Fully connected layer, `y = x · wᵀ + b`.
//!
//! Candle composes it of a product, a transpose and a broadcast, and always computes the gradient of the input too, which
//! nobody needs when heads are trained on fixed features.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::autograd::{Backward, GradSlot, Input, Saved, read, record, supported};
use super::buffers::{Place, in_pieces, in_pieces_here};
use super::dispatch::vectorized;
use super::error::KernelError;
use super::gemm::{Strides, columns, multiply_whole, rows};
#[cfg(target_arch = "x86_64")]
use super::small_gemm;

/// Rows of the result per task; fixed, so that the cut does not depend on the machine.
const PIECE: usize = 32;

/// The same where there are very many rows and weights that fill caches: they are packed once per task, which has to pay.
const LARGE_PIECE: usize = 256;
/// Rows from which on.
const MANY: usize = 2048;

/// Numbers on the right from which on: what does not stay in a core's second-level cache.
const BEYOND_CACHE: usize = 1 << 17;

/// Rows of the result per task for so many rows in all, and so many numbers on the right.
fn piece(rows: usize, right: usize) -> usize {
    if rows >= MANY && right > BEYOND_CACHE { LARGE_PIECE } else { PIECE }
}

/// Multiplications worth handing to another core; below, the hand-over costs more than it saves.
const WORTH: usize = 1 << 23;

vectorized! {
    fn add_row(y: &mut [f32], b: &[f32]) {
        for (y, b) in y.iter_mut().zip(b) {
            *y += b;
        }
    }
}

/// A result `[m, n]` whose sums have `k` terms, in pieces of so many rows: `work` gets the number of a piece and its room, and
/// returns the rows.
fn tall<F>([m, n, k]: [usize; 3], piece: usize, work: F) -> Vec<f32>
where
    F: for<'a> Fn(usize, &'a mut [Place]) -> &'a mut [f32] + Sync,
{
    if m * n * k < WORTH { in_pieces_here(m * n, piece * n, work) } else { in_pieces(m * n, piece * n, work) }
}

/// y `[B, O]` = x `[B, I]` · w `[O, I]`ᵀ + b.
fn forward([batch, outputs, inputs]: [usize; 3], x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let piece = piece(batch, w.len());
    tall([batch, outputs, inputs], piece, |i, y| {
        let sizes @ [size, ..] = [y.len() / outputs, outputs, inputs];
        let x = &x[i * piece * inputs..][..size * inputs];
        let y = against_rows(sizes, y, x, w);
        y.chunks_exact_mut(outputs).for_each(|row| add_row(row, b));
        y
    })
}

/// `out` `[m, n]` = `left` `[m, k]` · `right` `[n, k]`ᵀ, row-major.
fn against_rows<'a>(sizes @ [.., k]: [usize; 3], out: &'a mut [Place], left: &[f32], right: &[f32]) -> &'a mut [f32] {
    #[cfg(target_arch = "x86_64")]
    if small_gemm::suits(right.len()) {
        return small_gemm::inner(sizes, out, left, right);
    }
    multiply_whole(sizes, out, left, rows(k), right, columns(k))
}

/// `[m, n]` = `left` `[m, k]`, as its strides say, · `right` `[k, n]`, row-major.
fn back([m, n, k]: [usize; 3], left: &[f32], left_at: Strides, right: &[f32]) -> Vec<f32> {
    let piece = piece(m, right.len());
    tall([m, n, k], piece, |i, out| {
        let sizes = [out.len() / n, n, k];
        let left = &left[i * piece * left_at.row..];
        #[cfg(target_arch = "x86_64")]
        if small_gemm::suits(right.len()) {
            return small_gemm::outer(sizes, out, left, left_at, right);
        }
        multiply_whole(sizes, out, left, left_at, right, rows(n))
    })
}

/// Weights times input plus bias.
///
/// # Shapes
/// `x`: `[B, I]`; `weight`: `[O, I]`; `bias`: `[O]`. Returns `[B, O]`.
///
/// # Errors
/// Shapes that do not match, or an empty input.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let shapes = || vec![x.dims().to_vec(), weight.dims().to_vec(), bias.dims().to_vec()];
    let wrong = || KernelError::Shape { op: "linear", shapes: shapes() }.wrap();
    let (&[batch, inputs], &[outputs, width]) = (x.dims(), weight.dims()) else { return Err(wrong()) };
    if width != inputs || bias.dims() != [outputs] || batch * inputs * outputs == 0 {
        return Err(wrong());
    }
    if !supported(&[x, weight, bias]) {
        return x.matmul(&weight.t()?)?.broadcast_add(bias);
    }
    let input = Input::of(x)?;
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let y = read(&input.data, |x| read(&weight, |w| read(&bias, |b| forward([batch, outputs, inputs], x, w, b))))???;
    let parameters = [Some(&weight), Some(&bias)];
    record(y, (batch, outputs), &[&input], parameters, || LinearBackward { x: input.data.clone(), slot: input.slot() })
}

struct LinearBackward {
    x: Tensor,
    slot: Option<Arc<GradSlot>>,
}

impl Backward for LinearBackward {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn backward(&self, gradient: Vec<f32>, saved: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let lost = || KernelError::NoGradient { op: "linear" }.wrap();
        let [Some(weight), Some(bias)] = saved.parameters else { return Err(lost()) };
        let (batch, inputs) = self.x.dims2()?;
        let outputs = weight.dim(0)?;
        if let Some(slot) = &self.slot {
            let to = |w: &[f32]| back([batch, inputs, outputs], &gradient, rows(outputs), w);
            slot.add(read(weight, to)?);
        }
        let of_weight = if weight.track_op() {
            let to = |x: &[f32]| back([outputs, inputs, batch], &gradient, columns(outputs), x);
            Some(Tensor::from_vec(read(&self.x, to)?, (outputs, inputs), &Device::Cpu)?)
        } else {
            None
        };
        let of_bias = if bias.track_op() {
            let mut sum = vec![0.0; outputs];
            gradient.chunks_exact(outputs).for_each(|row| add_row(&mut sum, row));
            Some(Tensor::from_vec(sum, outputs, &Device::Cpu)?)
        } else {
            None
        };
        Ok([of_weight, of_bias])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{agrees_with_differences, distance, doubles, normal, run, same_bits};
    use super::*;
    use candle_core::Var;

    fn inputs(batch: usize, inputs: usize, outputs: usize) -> [Tensor; 3] {
        [normal("x", &[batch, inputs]), normal("w", &[outputs, inputs]), normal("b", &[outputs])]
    }

    fn layer(t: &[Tensor]) -> Result<Tensor> {
        linear(&t[0], &t[1], &t[2])
    }

    #[test]
    fn values_and_gradients_agree_with_differences_in_all_shapes() {
        for (b, i, o) in [(1, 1, 1), (3, 5, 7), (33, 4, 65), (70, 9, 2), (256, 17, 50)] {
            agrees_with_differences(&format!("linear {b}x{i}x{o}"), &layer, &inputs(b, i, o));
        }
    }

    #[test]
    fn large_pieces_say_what_double_precision_says() {
        let t = inputs(2100, 300, 500);
        let wide: Vec<Tensor> = t.iter().map(|t| t.to_dtype(candle_core::DType::F64).unwrap()).collect();
        let (found, wanted) = (doubles(&layer(&t).unwrap()), doubles(&layer(&wide).unwrap()));
        assert!(distance(&found, &wanted) < 1e-5);
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        same_bits("linear", &layer, &inputs(300, 130, 77));
    }

    #[test]
    fn what_is_fixed_gets_no_gradient() {
        let [x, w, b] = inputs(4, 3, 2);
        let (w, b) = (Var::from_tensor(&w).unwrap(), Var::from_tensor(&b).unwrap());
        let gradients = linear(&x, &w, &b).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&x).is_none());
        assert_eq!(gradients.get(b.as_tensor()).unwrap().to_vec1::<f32>().unwrap(), [4.0, 4.0]);
        let (_, all) = run(&layer, &inputs(4, 3, 2));
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn shapes_must_match() {
        let [x, w, b] = inputs(4, 3, 2);
        assert!(linear(&x, &normal("w", &[2, 4]), &b).is_err());
        assert!(linear(&x, &w, &normal("b", &[3])).is_err());
        assert!(linear(&normal("x", &[4]), &w, &b).is_err());
    }
}
