//! How is a convolution trained on a CPU at the speed of a matrix product?
//!
//! Unfold a tile of the input that fits the cache ("im2col"), multiply, next tile. The three products of a layer (output, input gradient, weight gradient) share the
//! unfolding; one thread does one tile, and rayon runs over fixed groups of images. Small maps (4 x 4, 7 x 7) are put several images into one product, or the
//! product would be too narrow.
//!
//! With AVX-512, `winograd` does the 3 x 3 convolutions without stride, which are most of a residual network, `direct` the others without stride, and `broadcast` those with
//! stride 2.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

use super::elementwise::{CHUNK, accumulate};
use super::error::KernelError;
use super::graph::{Input, Rule, Seen, Slot, is_ours, link, read};
use super::tile::{blank, columns, product, rows, with_scratch};

/// Floats of unfolded input per tile: half a MiB, so that it stays in the second-level cache beside the packed weights.
const TILE: usize = 128 * 1024;
/// A product should have at least this many columns; smaller maps are grouped.
const COLUMNS: usize = 256;
/// Floats in all partial weight gradients together: 64 MiB.
const PARTIALS: usize = 16 * 1024 * 1024;

/// The sizes of one convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
}

impl Shape {
    fn of(x: &Tensor, w: &Tensor, stride: usize, padding: usize) -> Result<Self> {
        let wrong = || KernelError::Shape { op: "conv2d", shapes: vec![x.dims().to_vec(), w.dims().to_vec()] }.wrap();
        let (&[batch, channels, height, width], &[outputs, inputs, kernel, side]) = (x.dims(), w.dims()) else {
            return Err(wrong());
        };
        if inputs != channels
            || kernel != side
            || kernel == 0
            || stride == 0
            || batch * channels * height * width * outputs == 0
        {
            return Err(wrong());
        }
        if height + 2 * padding < kernel || width + 2 * padding < kernel {
            return Err(KernelError::Window { op: "conv2d", kernel, stride, padding, height, width }.wrap());
        }
        let out_height = (height + 2 * padding - kernel) / stride + 1;
        let out_width = (width + 2 * padding - kernel) / stride + 1;
        Ok(Self { batch, channels, height, width, outputs, kernel, stride, padding, out_height, out_width })
    }

    pub(super) fn image(&self) -> usize {
        self.channels * self.height * self.width
    }

    pub(super) fn map(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Rows of the unfolded input.
    pub(super) fn taps(&self) -> usize {
        self.channels * self.kernel * self.kernel
    }

    /// Is the unfolded input the input?
    fn is_pointwise(&self) -> bool {
        self.kernel == 1 && self.stride == 1 && self.padding == 0
    }

    /// Images in one product.
    fn group(&self) -> usize {
        if self.map() >= COLUMNS { 1 } else { COLUMNS.div_ceil(self.map()).min((TILE * 4 / (self.taps() * self.map())).max(1)) }
    }

    /// Output rows in one tile.
    fn tile_rows(&self) -> usize {
        (TILE / (self.taps() * self.out_width)).clamp(1, self.out_height)
    }

    /// Cuts a group of `images` into tiles: (first row, rows). A group of several images is one tile.
    fn tiles(&self, images: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (height, step) = (self.out_height, if images > 1 { self.out_height } else { self.tile_rows() });
        (0..height).step_by(step).map(move |row| (row, step.min(height - row)))
    }

    /// The widest unfolded tile, in columns.
    fn tile_columns(&self) -> usize {
        let group = self.group();
        if group > 1 { group * self.map() } else { self.tile_rows() * self.out_width }
    }

    /// The convolution that gives the input's gradient from the output's, if there is one.
    pub(super) fn backwards(&self) -> Option<Self> {
        (self.stride == 1 && self.padding < self.kernel).then(|| Self {
            channels: self.outputs,
            outputs: self.channels,
            height: self.out_height,
            width: self.out_width,
            out_height: self.height,
            out_width: self.width,
            padding: self.kernel - 1 - self.padding,
            ..*self
        })
    }

    /// Which outputs along one axis read inside the input, for one tap.
    fn inside(&self, tap: usize, input: usize, output: usize) -> (usize, usize) {
        let first = self.padding.saturating_sub(tap).div_ceil(self.stride).min(output);
        let last = (input + self.padding).saturating_sub(tap).div_ceil(self.stride).min(output);
        (first, last.max(first))
    }
}

/// Writes the unfolded rows `row .. row + count` of one image into `tile` [taps, pitch], from column `at` on.
fn unfold(s: &Shape, image: &[f32], (row, count): (usize, usize), tile: &mut [f32], pitch: usize, at: usize) {
    let plane = s.height * s.width;
    let mut line = at;
    for c in 0..s.channels {
        let input = &image[c * plane..][..plane];
        for ky in 0..s.kernel {
            for kx in 0..s.kernel {
                let (first, last) = s.inside(kx, s.width, s.out_width);
                for y in 0..count {
                    let out = &mut tile[line + y * s.out_width..][..s.out_width];
                    let source = ((row + y) * s.stride + ky).checked_sub(s.padding).filter(|&y| y < s.height);
                    let Some(source) = source.filter(|_| first < last) else {
                        out.fill(0.0);
                        continue;
                    };
                    out[..first].fill(0.0);
                    out[last..].fill(0.0);
                    let input = &input[source * s.width..][..s.width];
                    let from = first * s.stride + kx - s.padding;
                    if s.stride == 1 {
                        out[first..last].copy_from_slice(&input[from..][..last - first]);
                    } else {
                        for (out, v) in out[first..last].iter_mut().zip(input[from..].iter().step_by(s.stride)) {
                            *out = *v;
                        }
                    }
                }
                line += pitch;
            }
        }
    }
}

/// The transpose of [`unfold`]: adds `tile` to the pixels its numbers were read from.
fn fold(s: &Shape, image: &mut [f32], (row, count): (usize, usize), tile: &[f32], pitch: usize, at: usize) {
    let plane = s.height * s.width;
    let mut line = at;
    for c in 0..s.channels {
        let out = &mut image[c * plane..][..plane];
        for ky in 0..s.kernel {
            for kx in 0..s.kernel {
                let (first, last) = s.inside(kx, s.width, s.out_width);
                for y in 0..count {
                    let source = ((row + y) * s.stride + ky).checked_sub(s.padding).filter(|&y| y < s.height);
                    let Some(source) = source.filter(|_| first < last) else { continue };
                    let from = source * s.width + first * s.stride + kx - s.padding;
                    let tile = &tile[line + y * s.out_width..][first..last];
                    for (out, v) in out[from..].iter_mut().step_by(s.stride).zip(tile) {
                        *out += *v;
                    }
                }
                line += pitch;
            }
        }
    }
}

/// Gathers the maps of some images [images, O, P] into one matrix [O, images * P].
fn gather(maps: &[f32], rows: usize, map: usize, out: &mut [f32]) {
    let images = maps.len() / (rows * map);
    for (i, image) in maps.chunks_exact(rows * map).enumerate() {
        for (r, line) in image.chunks_exact(map).enumerate() {
            out[(r * images + i) * map..][..map].copy_from_slice(line);
        }
    }
}

/// The transpose of [`gather`].
fn scatter(matrix: &[f32], rows: usize, map: usize, out: &mut [f32]) {
    let images = out.len() / (rows * map);
    for (i, image) in out.chunks_exact_mut(rows * map).enumerate() {
        for (r, line) in image.chunks_exact_mut(map).enumerate() {
            line.copy_from_slice(&matrix[(r * images + i) * map..][..map]);
        }
    }
}

/// y [B,O,P] = w [O,K] · unfold(x).
fn forward(s: &Shape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let (taps, map, group) = (s.taps(), s.map(), s.group());
    let mut y = blank(s.batch * s.outputs * map);
    y.par_chunks_mut(group * s.outputs * map).zip(x.par_chunks(group * s.image())).for_each(|(y, x)| {
        let images = x.len() / s.image();
        if s.is_pointwise() && images == 1 {
            product([s.outputs, map, taps], y, rows(map), false, w, rows(taps), x, rows(map));
            return;
        }
        let width = s.tile_columns();
        with_scratch([taps * width, if images > 1 { s.outputs * width } else { 0 }, 0], |tile, out, _| {
            if images == 1 {
                for (row, count) in s.tiles(1) {
                    let n = count * s.out_width;
                    unfold(s, x, (row, count), tile, n, 0);
                    let at = row * s.out_width;
                    product([s.outputs, n, taps], &mut y[at..], rows(map), false, w, rows(taps), tile, rows(n));
                }
            } else {
                let n = images * map;
                for (i, image) in x.chunks_exact(s.image()).enumerate() {
                    unfold(s, image, (0, s.out_height), tile, n, i * map);
                }
                product([s.outputs, n, taps], out, rows(n), false, w, rows(taps), tile, rows(n));
                scatter(out, s.outputs, map, y);
            }
        });
    });
    y
}

/// dx [B,C,H,W] = fold(wᵀ · dy), or the convolution with the turned kernel where there is one; added to `sum` if there is one.
fn input_gradient(s: &Shape, dy: &[f32], w: &[f32], sum: Option<Vec<f32>>) -> Vec<f32> {
    let dx = folded(s, dy, w);
    let Some(mut sum) = sum else { return dx };
    accumulate(&mut sum, &dx);
    sum
}

fn folded(s: &Shape, dy: &[f32], w: &[f32]) -> Vec<f32> {
    let (taps, map, group) = (s.taps(), s.map(), s.group());
    if let Some(back) = s.backwards() {
        let area = s.kernel * s.kernel;
        let mut turned = vec![0.0; w.len()];
        for o in 0..s.outputs {
            for c in 0..s.channels {
                let from = &w[(o * s.channels + c) * area..][..area];
                for (to, v) in turned[(c * s.outputs + o) * area..][..area].iter_mut().zip(from.iter().rev()) {
                    *to = *v;
                }
            }
        }
        return forward(&back, dy, &turned);
    }
    let mut dx = vec![0.0; s.batch * s.image()];
    dx.par_chunks_mut(group * s.image()).zip(dy.par_chunks(group * s.outputs * map)).for_each(|(dx, dy)| {
        let images = dx.len() / s.image();
        let width = s.tile_columns();
        with_scratch([taps * width, if images > 1 { s.outputs * width } else { 0 }, 0], |tile, all, _| {
            if images == 1 {
                for (row, count) in s.tiles(1) {
                    let n = count * s.out_width;
                    let at = row * s.out_width;
                    product([taps, n, s.outputs], tile, rows(n), false, w, columns(taps), &dy[at..], rows(map));
                    fold(s, dx, (row, count), tile, n, 0);
                }
            } else {
                let n = images * map;
                gather(dy, s.outputs, map, all);
                product([taps, n, s.outputs], tile, rows(n), false, w, columns(taps), all, rows(n));
                for (i, image) in dx.chunks_exact_mut(s.image()).enumerate() {
                    fold(s, image, (0, s.out_height), tile, n, i * map);
                }
            }
        });
    });
    dx
}

/// dw [O,K] = Σ over images of dy [O,P] · unfold(x)ᵀ. A fixed number of partial sums, added in order.
fn weight_gradient(s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (taps, map, group) = (s.taps(), s.map(), s.group());
    let size = s.outputs * taps;
    let groups = s.batch.div_ceil(group);
    let parts = (PARTIALS / size).clamp(2, 64).min(groups);
    let per_part = groups.div_ceil(parts) * group;
    let mut partials: Vec<Vec<f32>> = x
        .par_chunks(per_part * s.image())
        .zip(dy.par_chunks(per_part * s.outputs * map))
        .map(|(x, dy)| {
            let mut dw = vec![0.0; size];
            let width = s.tile_columns();
            let grouped = if group > 1 { s.outputs * width } else { 0 };
            with_scratch([taps * width, grouped, 0], |tile, all, _| {
                for (x, dy) in x.chunks(group * s.image()).zip(dy.chunks(group * s.outputs * map)) {
                    let images = x.len() / s.image();
                    if images == 1 && s.is_pointwise() {
                        product([s.outputs, taps, map], &mut dw, rows(taps), true, dy, rows(map), x, columns(map));
                    } else if images == 1 {
                        for (row, count) in s.tiles(1) {
                            let n = count * s.out_width;
                            unfold(s, x, (row, count), tile, n, 0);
                            let at = row * s.out_width;
                            product([s.outputs, taps, n], &mut dw, rows(taps), true, &dy[at..], rows(map), tile, columns(n));
                        }
                    } else {
                        let n = images * map;
                        for (i, image) in x.chunks_exact(s.image()).enumerate() {
                            unfold(s, image, (0, s.out_height), tile, n, i * map);
                        }
                        gather(dy, s.outputs, map, all);
                        product([s.outputs, taps, n], &mut dw, rows(taps), true, all, rows(n), tile, columns(n));
                    }
                }
            });
            dw
        })
        .collect();
    let Some((sum, rest)) = partials.split_first_mut() else { return vec![0.0; size] };
    sum.par_chunks_mut(CHUNK).enumerate().for_each(|(i, sum)| {
        for part in &*rest {
            accumulate(sum, &part[i * CHUNK..][..sum.len()]);
        }
    });
    std::mem::take(sum)
}

/// The three products of a layer, by the best means of this processor.
fn best(s: &Shape) -> Products {
    #[cfg(target_arch = "x86_64")]
    if super::winograd::suits(s) {
        return Products {
            forward: super::winograd::forward,
            input_gradient: super::winograd::input_gradient,
            weight_gradient: super::winograd::weight_gradient,
        };
    }
    #[cfg(target_arch = "x86_64")]
    if super::direct::suits(s) && !s.is_pointwise() {
        return Products {
            forward: super::direct::forward,
            input_gradient: super::direct::input_gradient,
            weight_gradient: super::direct::weight_gradient,
        };
    }
    #[cfg(target_arch = "x86_64")]
    if super::broadcast::suits(s) && !s.is_pointwise() {
        return Products {
            forward: super::broadcast::forward,
            input_gradient: super::broadcast::input_gradient,
            weight_gradient: super::broadcast::weight_gradient,
        };
    }
    let _ = s;
    Products { forward, input_gradient, weight_gradient }
}

/// dx of dy and the weights, added to a gradient that is there already.
type InputGradient = fn(&Shape, &[f32], &[f32], Option<Vec<f32>>) -> Vec<f32>;

struct Products {
    forward: fn(&Shape, &[f32], &[f32]) -> Vec<f32>,
    input_gradient: InputGradient,
    weight_gradient: fn(&Shape, &[f32], &[f32]) -> Vec<f32>,
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
    if !is_ours(&[x, w]) {
        return x.conv2d(w, padding, stride, 1, 1);
    }
    let input = Input::of(x)?;
    let w = w.contiguous()?;
    let y = read(&input.data, |x| read(&w, |w| (best(&shape).forward)(&shape, x, w)))??;
    let dims = (shape.batch, shape.outputs, shape.out_height, shape.out_width);
    link(y, dims, &[&input], [Some(&w), None], || ConvRule {
        shape,
        x: input.data.clone(),
        slot: input.slot(),
        train: w.track_op(),
    })
}

struct ConvRule {
    shape: Shape,
    x: Tensor,
    slot: Option<Arc<Slot>>,
    /// Is the weight's gradient wanted?
    train: bool,
}

impl Rule for ConvRule {
    fn name(&self) -> &'static str {
        "conv2d"
    }
    fn backward(&self, gradient: Vec<f32>, seen: Seen<'_>) -> Result<[Option<Tensor>; 2]> {
        let [Some(w), _] = seen.parameters else { return Err(KernelError::NoGradient { op: "conv2d" }.wrap()) };
        if let Some(slot) = &self.slot {
            // Another consumer of the input may have been here: add to its gradient on the way out.
            let sum = slot.take();
            slot.add(read(w, |w| (best(&self.shape).input_gradient)(&self.shape, &gradient, w, sum))?);
        }
        let dw = if self.train {
            read(&self.x, |x| (best(&self.shape).weight_gradient)(&self.shape, x, &gradient))?
        } else {
            return Ok([None, None]);
        };
        Ok([Some(Tensor::from_vec(dw, w.shape(), &Device::Cpu)?), None])
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{distance, doubles, floats, normal, run, same_bits};
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
        for (what, (got, expected)) in
            ["output", "dx", "dw"].iter().zip([&y, &gradients[0], &gradients[1]].iter().zip(&expected))
        {
            let off = distance(&doubles(got), expected);
            assert!(off < 1e-5, "{name}: {what} off by {off:e}");
        }
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
        // Blocks that overlap in a row, both phases of odd sides, one, two and four registers of outputs and what is left, several slices of channels.
        agrees(3, 20, (15, 57), 33, 3, 2, 1);
        agrees(6, 16, (28, 28), 32, 3, 2, 1);
        agrees(2, 70, (9, 8), 81, 3, 2, 1);
        agrees(5, 40, (13, 11), 16, 1, 2, 0);
        agrees(2, 130, (6, 34), 100, 1, 2, 1);
        agrees(2, 3, (37, 35), 64, 7, 2, 3);
    }

    #[test]
    fn tiles_of_any_map_and_slices_of_any_width_agree_with_seven_loops() {
        // Whole tiles, tiles over both edges, one row of pixels of the last tile, every padding that `winograd` takes.
        for padding in [0, 1, 2] {
            for (height, width) in [(4, 4), (8, 8), (7, 8), (10, 13), (29, 6)] {
                agrees(3, 50, (height, width), 49, 3, 1, padding);
            }
        }
        // Several slices of channels and of outputs, several terms and panels; several pieces of one image.
        agrees(2, 130, (8, 7), 150, 3, 1, 1);
        agrees(5, 80, (4, 4), 200, 3, 1, 1);
        agrees(1, 48, (70, 50), 64, 3, 1, 1);
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
