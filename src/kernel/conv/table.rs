//! The layer, its gradients, and the table of algorithms.

use std::fmt::Debug;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::super::autograd::{Backward, GradSlot, Input, Saved, read, record, supported};
use super::super::error::KernelError;
use super::super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::super::simd::with_simd;
use super::shape::Shape;
use super::unfolded;
#[cfg(target_arch = "x86_64")]
use super::{direct, strided, winograd};

/// A way to compute the three products of a layer.
pub(super) trait Algorithm: Debug {
    /// Can it compute convolutions of these sizes?
    fn computes(&self, s: &Shape) -> bool;

    /// Is it faster than those after it in the table, where it computes?
    fn pays(&self, _: &Shape) -> bool {
        true
    }

    /// y [B,O,P] of x [B,C,H,W] and w [O,C,k,k].
    fn forward(&self, s: &Shape, x: &[f32], w: &[f32]) -> Vec<f32>;

    /// dx [B,C,H,W] of dy [B,O,P] and w, added to `sum` if there is one.
    fn input_gradient(&self, s: &Shape, dy: &[f32], w: &[f32], sum: Option<Vec<f32>>) -> Vec<f32>;

    /// dw [O,C,k,k] of x and dy.
    fn weight_gradient(&self, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32>;
}

/// An algorithm, if the instruction set allows it.
type Offer = Option<Box<dyn Algorithm>>;

#[cfg(target_arch = "x86_64")]
fn offered(algorithm: impl Algorithm + 'static) -> Box<dyn Algorithm> {
    Box::new(algorithm)
}

/// The algorithms that an instruction set allows, from the most special to the most general.
fn algorithms(isa: Isa) -> impl Iterator<Item = Box<dyn Algorithm>> {
    // A box of what has no size is not allocated.
    static TABLE: &[fn(Isa) -> Offer] = &[
        #[cfg(target_arch = "x86_64")]
        |isa| with_simd!(isa, |simd| offered(winograd::Winograd(simd))),
        #[cfg(target_arch = "x86_64")]
        |isa| match isa {
            Isa::Avx512(proof) => Some(offered(direct::Direct(proof))),
            _ => None,
        },
        #[cfg(target_arch = "x86_64")]
        |isa| with_simd!(isa, |simd| offered(strided::Strided(simd))),
        |_| Some(Box::new(unfolded::Unfolded)),
    ];
    TABLE.iter().filter_map(move |make| make(isa))
}

/// The first that computes these sizes and pays.
fn best(s: &Shape) -> Box<dyn Algorithm> {
    let found = algorithms(Isa::used()).find(|algorithm| algorithm.computes(s) && algorithm.pays(s));
    found.unwrap_or_else(|| Box::new(unfolded::Unfolded))
}

/// Two-dimensional convolution without bias: as the layer of a network, so it is a cross-correlation.
///
/// # Shapes
/// `x` [B, C, H, W], `w` [O, C, k, k] → [B, O, H', W'] with H' = ⌊(H + 2·padding − k) / stride⌋ + 1.
///
/// The gradient of `x` is computed only if `x` belongs to a graph: the first layer of a network does not pay for it.
///
/// # Errors
/// Shapes that do not fit, a window larger than the padded map.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let shape = Shape::of(x, w, stride, padding)?;
    if !supported(&[x, w]) {
        return x.conv2d(w, padding, stride, 1, 1);
    }
    let input = Input::of(x)?;
    let w = w.contiguous()?;
    let y = read(&input.data, |x| read(&w, |w| best(&shape).forward(&shape, x, w)))??;
    let dims = (shape.batch, shape.outputs, shape.out_height, shape.out_width);
    record(y, dims, &[&input], [Some(&w), None], || ConvBackward {
        shape,
        x: input.data.clone(),
        slot: input.slot(),
        train: w.track_op(),
    })
}

struct ConvBackward {
    shape: Shape,
    x: Tensor,
    slot: Option<Arc<GradSlot>>,
    /// Is the weight's gradient wanted?
    train: bool,
}

impl Backward for ConvBackward {
    fn name(&self) -> &'static str {
        "conv2d"
    }
    fn backward(&self, gradient: Vec<f32>, saved: Saved<'_>) -> Result<[Option<Tensor>; 2]> {
        let [Some(w), _] = saved.parameters else { return Err(KernelError::NoGradient { op: "conv2d" }.wrap()) };
        if let Some(slot) = &self.slot {
            // Another consumer of the input may have been here: add to its gradient on the way out.
            let sum = slot.take();
            slot.add(read(w, |w| best(&self.shape).input_gradient(&self.shape, &gradient, w, sum))?);
        }
        if !self.train {
            return Ok([None, None]);
        }
        let dw = read(&self.x, |x| best(&self.shape).weight_gradient(&self.shape, x, &gradient))?;
        Ok([Some(Tensor::from_vec(dw, w.shape(), &Device::Cpu)?), None])
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::check::{distance, doubles, floats, normal, run, same_bits};
    use super::*;
    use candle_core::{DType, Var};

    /// Seven loops in f64: output, gradient of the input, gradient of the weights, for the cotangent of `run`.
    fn plainly(s: &Shape, x: &[f64], w: &[f64], r: &[f64]) -> [Vec<f64>; 3] {
        let (mut y, mut dx, mut dw) = (vec![0.0; r.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        let mut out = 0;
        for b in 0..s.batch {
            for o in 0..s.outputs {
                for oy in 0..s.out_height {
                    for ox in 0..s.out_width {
                        for c in 0..s.channels {
                            for ky in 0..s.kernel {
                                for kx in 0..s.kernel {
                                    let (iy, ix) = (oy * s.stride + ky, ox * s.stride + kx);
                                    if iy < s.padding
                                        || ix < s.padding
                                        || iy - s.padding >= s.height
                                        || ix - s.padding >= s.width
                                    {
                                        continue;
                                    }
                                    let at_x = ((b * s.channels + c) * s.height + iy - s.padding) * s.width + ix - s.padding;
                                    let at_w = ((o * s.channels + c) * s.kernel + ky) * s.kernel + kx;
                                    y[out] += x[at_x] * w[at_w];
                                    dx[at_x] += r[out] * w[at_w];
                                    dw[at_w] += r[out] * x[at_x];
                                }
                            }
                        }
                        out += 1;
                    }
                }
            }
        }
        [y, dx, dw]
    }

    fn agrees(
        batch: usize,
        channels: usize,
        (height, width): (usize, usize),
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
    ) {
        let name =
            format!("{batch}x{channels}x{height}x{width} by {outputs}, kernel {kernel} stride {stride} padding {padding}");
        let x = normal("image", &[batch, channels, height, width]);
        let w = normal("weight", &[outputs, channels, kernel, kernel]);
        let s = Shape::of(&x, &w, stride, padding).unwrap();
        let (y, gradients) = run(&|t| conv2d(&t[0], &t[1], stride, padding), &[x.clone(), w.clone()]);
        assert_eq!(y.dims(), [batch, outputs, s.out_height, s.out_width], "{name}");
        let r = normal("cotangent", y.dims());
        let expected = plainly(&s, &doubles(&x), &doubles(&w), &doubles(&r));
        let near = |by: &str, found: [&[f32]; 3]| {
            for (what, (found, expected)) in ["output", "dx", "dw"].iter().zip(found.into_iter().zip(&expected)) {
                let found: Vec<f64> = found.iter().copied().map(f64::from).collect();
                let off = distance(&found, expected);
                assert!(off < 1e-5, "{name}: {what} by {by} off by {off:e}");
            }
        };
        near("the layer", [&floats(&y), &floats(&gradients[0]), &floats(&gradients[1])]);
        let (x, w, r) = (floats(&x), floats(&w), floats(&r));
        for algorithm in Isa::used().with_smaller().into_iter().flat_map(algorithms).filter(|algorithm| algorithm.computes(&s))
        {
            let dx = algorithm.input_gradient(&s, &r, &w, None);
            near(&format!("{algorithm:?}"), [&algorithm.forward(&s, &x, &w), &dx, &algorithm.weight_gradient(&s, &x, &r)]);
            let there: Vec<f32> = (0..dx.len()).map(|i| i as f32 * 0.5).collect();
            let added: Vec<f32> = there.iter().zip(&dx).map(|(there, dx)| there + dx).collect();
            assert_eq!(algorithm.input_gradient(&s, &r, &w, Some(there)), added, "{name}: a sum by {algorithm:?}");
        }
    }

    #[test]
    fn every_algorithm_is_the_best_one_for_some_layer() {
        let best = |channels: usize, side: usize, kernel: usize, stride: usize| {
            let (x, w) = (normal("x", &[1, channels, side, side]), normal("w", &[64, channels, kernel, kernel]));
            format!("{:?}", best(&Shape::of(&x, &w, stride, kernel / 2).unwrap()))
        };
        let mut found = vec![best(64, 8, 3, 1), best(3, 8, 3, 1), best(64, 8, 3, 2), best(64, 8, 1, 1)];
        found.dedup();
        let wanted: Vec<String> = algorithms(Isa::used()).map(|algorithm| format!("{algorithm:?}")).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn all_convolutions_of_resnets_agree_with_seven_loops() {
        for (kernel, stride, padding) in [(3, 1, 1), (3, 2, 1), (1, 1, 0), (1, 2, 0), (7, 2, 3)] {
            for (height, width) in [(1, 1), (4, 4), (7, 7), (8, 5), (9, 16), (28, 28)] {
                agrees(3, 4, (height, width), 5, kernel, stride, padding);
            }
        }
    }

    #[test]
    fn odd_shapes_agree_with_seven_loops() {
        // C = H = W, N = H = W: candle's own was wrong there once.
        agrees(2, 5, (5, 5), 3, 3, 1, 1);
        agrees(5, 3, (5, 5), 5, 3, 2, 1);
        agrees(4, 4, (4, 4), 4, 1, 2, 0);
        // One image, one channel, one output.
        agrees(1, 1, (28, 28), 16, 3, 1, 1);
        agrees(1, 16, (6, 6), 1, 3, 1, 1);
        agrees(1, 1, (1, 1), 1, 1, 1, 0);
        // More padding than the kernel needs, and none.
        agrees(2, 3, (6, 4), 2, 3, 1, 2);
        agrees(2, 3, (6, 4), 2, 3, 1, 0);
        agrees(2, 3, (5, 6), 2, 2, 1, 3);
        agrees(2, 3, (5, 6), 2, 1, 1, 1);
        agrees(2, 3, (6, 7), 2, 5, 3, 2);
        agrees(2, 2, (3, 3), 2, 3, 4, 0);
        agrees(2, 2, (4, 4), 3, 2, 2, 0);
        // A last row and column that no window reaches.
        agrees(2, 3, (8, 10), 2, 3, 2, 0);
    }

    #[test]
    fn shapes_that_are_no_multiple_of_a_tile_agree_with_seven_loops() {
        // A group that is not full at the end; tiles of rows that do not divide the height.
        agrees(21, 6, (4, 4), 7, 3, 1, 1);
        agrees(37, 3, (4, 4), 5, 3, 2, 1);
        agrees(2, 70, (33, 31), 9, 3, 1, 1);
        agrees(1, 64, (40, 72), 17, 3, 2, 1);
        agrees(3, 33, (17, 19), 35, 3, 1, 1);
        agrees(6, 40, (15, 15), 12, 1, 1, 0);
        agrees(19, 16, (7, 7), 48, 3, 1, 1);
        agrees(4, 16, (28, 28), 16, 3, 1, 1);
        agrees(5, 64, (14, 14), 64, 3, 1, 1);
    }

    #[test]
    fn strides_over_blocks_of_any_width_agree_with_seven_loops() {
        // Blocks that overlap in a row, both phases of odd sides, one, two and four registers of outputs and what is left,
        // several slices of channels.
        agrees(3, 20, (15, 57), 33, 3, 2, 1);
        agrees(6, 16, (28, 28), 32, 3, 2, 1);
        agrees(2, 70, (9, 8), 81, 3, 2, 1);
        agrees(5, 40, (13, 11), 16, 1, 2, 0);
        agrees(2, 130, (6, 34), 100, 1, 2, 1);
        agrees(2, 3, (37, 35), 64, 7, 2, 3);
    }

    #[test]
    fn tiles_of_any_map_and_slices_of_any_width_agree_with_seven_loops() {
        // Whole tiles, tiles over both edges, one row of pixels of the last tile, every padding that `winograd` computes.
        for padding in [0, 1, 2] {
            for (height, width) in [(4, 4), (8, 8), (7, 8), (10, 13), (29, 6)] {
                agrees(3, 50, (height, width), 49, 3, 1, padding);
            }
        }
        // Several slices of channels and of outputs, several terms and panels; several pieces of one image.
        agrees(2, 130, (8, 7), 150, 3, 1, 1);
        agrees(5, 80, (4, 4), 200, 3, 1, 1);
        agrees(1, 48, (80, 70), 64, 3, 1, 1);
        // One image of few tiles: several parts of its channels, and panels.
        agrees(1, 150, (8, 7), 130, 3, 1, 1);
    }

    #[test]
    fn an_image_is_the_same_alone_and_in_company() {
        let (x, w) = (normal("image", &[3, 150, 9, 8]), normal("weight", &[130, 150, 3, 3]));
        let all = floats(&conv2d(&x, &w, 1, 1).unwrap());
        for (i, together) in all.chunks(all.len() / 3).enumerate() {
            let alone = floats(&conv2d(&x.narrow(0, i, 1).unwrap().contiguous().unwrap(), &w, 1, 1).unwrap());
            let same = alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same || Isa::used() == Isa::Portable, "image {i}");
        }
    }

    #[test]
    fn candle_agrees() {
        let (x, w) = (normal("image", &[2, 6, 9, 9]), normal("weight", &[4, 6, 3, 3]));
        for (stride, padding) in [(1, 1), (2, 1), (1, 0)] {
            let ours = conv2d(&x, &w, stride, padding).unwrap();
            let theirs = x.conv2d(&w, padding, stride, 1, 1).unwrap();
            assert!(distance(&doubles(&ours), &doubles(&theirs)) < 1e-5);
            let wide = conv2d(&x.to_dtype(DType::F64).unwrap(), &w.to_dtype(DType::F64).unwrap(), stride, padding).unwrap();
            assert_eq!(wide.dtype(), DType::F64);
            assert!(distance(&doubles(&ours), &doubles(&wide)) < 1e-5);
        }
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        for (x, w, stride, padding) in [
            ([9, 16, 28, 28], [16, 16, 3, 3], 1, 1),
            ([9, 72, 14, 14], [136, 72, 3, 3], 1, 1),
            ([9, 8, 14, 14], [24, 8, 3, 3], 2, 1),
            ([40, 24, 4, 4], [32, 24, 3, 3], 1, 1),
            ([9, 24, 8, 8], [32, 24, 1, 1], 2, 0),
            ([9, 24, 8, 8], [32, 24, 1, 1], 1, 0),
        ] {
            same_bits("conv2d", &|t| conv2d(&t[0], &t[1], stride, padding), &[normal("image", &x), normal("weight", &w)]);
        }
    }

    #[test]
    fn strided_inputs_are_understood() {
        let x = normal("image", &[3, 4, 6, 5]);
        let w = normal("weight", &[2, 4, 3, 3]);
        let turned = |x: &Tensor| x.transpose(2, 3);
        let (y, gradients) = run(&|t| conv2d(&turned(&t[0])?, &t[1], 1, 1), &[x.clone(), w.clone()]);
        let (z, expected) = run(&|t| conv2d(&turned(&t[0])?.contiguous()?, &t[1], 1, 1), &[x, w]);
        assert_eq!(floats(&y), floats(&z));
        assert_eq!(floats(&gradients[0]), floats(&expected[0]));
    }

    #[test]
    fn images_outside_of_the_graph_get_no_gradient_and_frozen_weights_neither() {
        let (x, w) = (normal("image", &[2, 3, 5, 5]), normal("weight", &[4, 3, 3, 3]));
        let var = Var::from_tensor(&w).unwrap();
        let gradients = conv2d(&x, var.as_tensor(), 1, 1).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(var.as_tensor()).is_some() && gradients.get(&x).is_none());
        let var = Var::from_tensor(&x).unwrap();
        let gradients = conv2d(var.as_tensor(), &w, 1, 1).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(var.as_tensor()).is_some() && gradients.get(&w).is_none());
    }

    #[test]
    fn an_input_of_two_convolutions_gets_the_sum_of_both_gradients() {
        // By tiles, by rows, by panels, with a stride, by a plain product, folded.
        for (channels, side, outputs, kernel, stride) in
            [(50, 9, 49, 3, 1), (5, 17, 9, 3, 1), (5, 7, 9, 3, 1), (20, 15, 33, 3, 2), (9, 6, 5, 1, 1), (4, 7, 3, 3, 3)]
        {
            let x = normal("image", &[3, channels, side, side]);
            let w = ["one", "other"].map(|name| normal(name, &[outputs, channels, kernel, kernel]));
            let conv = |x: &Tensor, w: &Tensor| conv2d(x, w, stride, kernel / 2);
            let gradient = |f: &dyn Fn(&Tensor) -> Result<Tensor>| {
                let (_, gradients) = run(&|t| f(&t[0]), std::slice::from_ref(&x));
                floats(&gradients[0])
            };
            let [one, other] = [&w[0], &w[1]].map(|w| gradient(&|x| conv(x, w)));
            let both = gradient(&|x| conv(x, &w[0])? + conv(x, &w[1])?);
            let sum: Vec<f32> = one.iter().zip(&other).map(|(one, other)| one + other).collect();
            assert_eq!(both, sum, "{channels} channels, side {side}, kernel {kernel}, stride {stride}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let x = normal("image", &[2, 3, 5, 5]);
        assert!(conv2d(&x, &normal("w", &[4, 2, 3, 3]), 1, 1).is_err(), "channels");
        assert!(conv2d(&x, &normal("w", &[4, 3, 7, 7]), 1, 0).is_err(), "window");
        assert!(conv2d(&x, &normal("w", &[4, 3, 3, 3]), 0, 1).is_err(), "stride");
        assert!(conv2d(&x, &normal("w", &[4, 3, 3, 2]), 1, 1).is_err(), "not square");
    }
}
