//! Convolution with stride 1 or 2, one input number broadcast to a register of output channels.
//!
//! All lanes of a register hold output channels, and a pixel of the input is read as one number for all of them:
//!
//! ```text
//! y[n, o] += flat[base(n) + offset(k)] · w[k, o]        for T neighboring positions n and V registers of outputs o
//! ```
//!
//! A read of one number never lies across two cache lines and does not care how far the next position is: a stride costs
//! nothing, and a map of 28 or 14 or 7 pixels is cut into blocks without waste. `flat` is the image with its border of zeros;
//! the sums are transposed to [channel, pixel] while they are in the first-level cache. Without stride, lanes over positions
//! (`direct`) are a little faster (measured for 16 and 32 channels): there is nothing to transpose.
//!
//! The input's gradient is done once per phase of the input's pixels, each with the taps that meet it. The weights' gradient
//! has positions for terms: `dw[k, o] += flat[base(n) + offset(k)] · dyᵀ[n, o]`.
#![expect(unsafe_code, reason = "reads and writes of registers; every block states its bounds")]

use rayon::prelude::*;

use super::super::buffers::{room, with_scratch, written};
use super::super::simd::Simd;
use super::super::transpose::{transpose_exact, transpose_padded};
use super::Algorithm;
use super::reduce::{best_vectors, sum_of_parts};
use super::shape::Shape;

/// Images per task of a product.
const IMAGES: usize = 4;
/// Positions that are transposed at once: with two registers of outputs they fill a third of the first-level cache.
const STRIP: usize = 128;
/// Floats of flat input and transposed gradients that a task prepares at once: 1 MiB, half of the second-level cache.
const PREPARED: usize = 256 * 1024;

/// Products with lanes over outputs.
#[derive(Debug)]
pub(super) struct Strided<S>(pub(super) S);

impl<S: Simd> Algorithm for Strided<S> {
    fn computes(&self, s: &Shape) -> bool {
        s.stride <= 2
    }

    fn pays(&self, s: &Shape) -> bool {
        !s.is_pointwise()
    }

    fn forward(&self, s: &Shape, x: &[f32], w: &[f32]) -> Vec<f32> {
        let taps = s.taps();
        multiply(self.0, s, x, |o, k| w[o * taps + k], None)
    }

    fn input_gradient(&self, s: &Shape, dy: &[f32], w: &[f32], sum: Option<Vec<f32>>) -> Vec<f32> {
        let area = s.kernel * s.kernel;
        if let Some(back) = s.backwards() {
            return multiply(self.0, &back, dy, |c, k| w[(k / area * s.channels + c) * area + area - 1 - k % area], sum);
        }
        phased_gradient(self.0, s, dy, w, sum)
    }

    fn weight_gradient(&self, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
        weight_gradient(self.0, s, x, dy)
    }
}

/// Copies rows of neighbors to rows `row` apart: a call of memcpy for 7 or 28 numbers costs more than the copy.
///
/// # Safety
/// Both sides hold `height` rows of `width` numbers.
pub(super) unsafe fn copy_rows<S: Simd>(simd: S, from: *const f32, height: usize, width: usize, to: *mut f32, row: usize) {
    // SAFETY: as the caller promises; masked lanes are not touched.
    simd.run(|| unsafe {
        if width < S::LANES {
            let mask = simd.first(width);
            for y in 0..height {
                simd.store_some(mask, to.add(y * row), simd.load_some(mask, from.add(y * width)));
            }
            return;
        }
        for y in 0..height {
            let (from, to) = (from.add(y * width), to.add(y * row));
            for x in (0..width).step_by(S::LANES) {
                // The last register overlaps the one before it.
                let x = x.min(width - S::LANES);
                simd.store(to.add(x), simd.load(from.add(x)));
            }
        }
    });
}

/// T positions `A` apart and V registers of outputs; position t goes to `out + t · step`.
///
/// # Safety
/// T positions may be read from each offset on, `w` holds V registers per offset, T times V registers may be written.
unsafe fn block<S: Simd, const T: usize, const V: usize, const A: usize>(
    simd: S,
    offsets: &[u32],
    flat: *const f32,
    w: *const f32,
    out: *mut f32,
    step: usize,
) {
    // SAFETY: as the caller promises.
    simd.run(|| unsafe {
        let mut sums = [[simd.zero(); V]; T];
        let mut w = w;
        for &offset in offsets {
            let flat = flat.add(offset as usize);
            let mut v = [simd.zero(); V];
            for (j, v) in v.iter_mut().enumerate() {
                *v = simd.load(w.add(j * S::LANES));
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = simd.all(*flat.add(t * A));
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = simd.fma(x, v, *sum);
                }
            }
            w = w.add(V * S::LANES);
        }
        for (t, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                simd.store(out.add(t * step + j * S::LANES), *sum);
            }
        }
    });
}

type Block<S> = unsafe fn(S, &[u32], *const f32, *const f32, *mut f32, usize);

/// The block for so many positions in a row: its width, at most `positions`, so that the last block may begin earlier and
/// overlap.
fn best_block<S: Simd>(positions: usize, vectors: usize, stride: usize) -> (usize, Block<S>) {
    macro_rules! pick {
        ($(($t:literal, $v:literal))*) => {{
            let all: &[(usize, usize, [Block<S>; 2])] = &[$(($t, $v, [block::<S, $t, $v, 1>, block::<S, $t, $v, 2>])),*];
            // Half a cycle per multiplication, but four for the sums to be ready again, and one for the loop.
            let cost = |t: usize| positions.div_ceil(t) * ((t * vectors).max(8) + 2);
            let fitting = all.iter().filter(|(t, v, _)| *v == vectors && *t <= positions);
            match fitting.min_by_key(|(t, _, _)| cost(*t)) {
                Some((t, _, blocks)) => (*t, blocks[stride - 1]),
                None => unreachable!("there are blocks of one position for each number of registers in `groups`, not {vectors}"),
            }
        }};
    }
    if S::REGISTERS >= 32 {
        pick!((28, 1)(22, 1)(16, 1)(14, 1)(12, 1)(8, 1)(7, 1)(4, 1)(2, 1)(1, 1)(14, 2)(11, 2)(8, 2)(7, 2)(4, 2)(2, 2)(1, 2)(
            6, 4
        )(4, 4)(2, 4)(1, 4))
    } else {
        pick!((12, 1)(8, 1)(7, 1)(4, 1)(2, 1)(1, 1)(6, 2)(5, 2)(4, 2)(2, 2)(1, 2))
    }
}

/// Images with a border of zeros: the geometry.
#[derive(Clone, Copy)]
struct Flat {
    channels: usize,
    height: usize,
    width: usize,
    /// Zeros before the first row and column.
    before: usize,
    row: usize,
    /// Size of a channel.
    plane: usize,
}

impl Flat {
    fn of(s: &Shape) -> Self {
        let row = s.width + 2 * s.padding;
        Self {
            channels: s.channels,
            height: s.height,
            width: s.width,
            before: s.padding,
            row,
            plane: row * (s.height + 2 * s.padding),
        }
    }

    fn image(&self) -> usize {
        self.channels * self.plane
    }

    /// Is the flat image the image?
    fn is_plain(&self) -> bool {
        self.plane == self.height * self.width && self.row == self.width
    }

    /// Copies an image over another of the same geometry, or over zeros.
    fn fill<S: Simd>(&self, simd: S, image: &[f32], out: &mut [f32]) {
        assert!(
            (self.before + self.height - 1) * self.row + self.before + self.width <= self.plane
                && self.before + self.width <= self.row,
            "the image is larger than its plane"
        );
        for (input, plane) in image.chunks_exact(self.height * self.width).zip(out.chunks_exact_mut(self.plane)) {
            let plane = &mut plane[self.before * self.row + self.before..];
            // SAFETY: `height` rows of `width` are there on both sides, as just checked.
            unsafe { copy_rows(simd, input.as_ptr(), self.height, self.width, plane.as_mut_ptr(), self.row) };
        }
    }
}

/// The outputs whose row and column leave the same rest: which pixels they meet, with which weights.
struct Phase {
    /// From the pixel of an output's base to that of each tap.
    offsets: Vec<u32>,
    /// [group, tap, output of the group]
    weights: Vec<f32>,
    /// Outputs in a column and in a row.
    rows: usize,
    columns: usize,
}

/// A product y [B,O,P]: outputs (a + s·i, b + s·j) of the phases (a, b) read from pixel (t·i, t·j) on.
struct Product {
    flat: Flat,
    outputs: usize,
    height: usize,
    width: usize,
    /// s² phases.
    phases: Vec<Phase>,
    /// s
    spread: usize,
    /// t
    stride: usize,
}

/// Registers of outputs per group, the last group may have fewer.
fn group_of<S: Simd>(outputs: usize, columns: usize) -> usize {
    match outputs.div_ceil(S::LANES) {
        1 => 1,
        4.. if S::REGISTERS >= 32 && columns < 7 => 4,
        _ => 2,
    }
}

/// (first register, registers) of groups of one, two or four registers.
fn groups<S: Simd>(outputs: usize, columns: usize) -> Vec<(usize, usize)> {
    let (all, most) = (outputs.div_ceil(S::LANES), group_of::<S>(outputs, columns));
    let mut groups = Vec::new();
    let mut first = 0;
    while first < all {
        let vectors = match all - first {
            left if left >= most => most,
            3 | 2 => 2,
            _ => 1,
        };
        groups.push((first, vectors));
        first += vectors;
    }
    groups
}

impl Product {
    /// Weights as a function of (output, tap of the phase), in groups.
    fn pack<S: Simd>(outputs: usize, columns: usize, taps: usize, at: impl Fn(usize, usize) -> f32 + Sync) -> Vec<f32> {
        let width = outputs.next_multiple_of(S::LANES);
        let mut packed = vec![0.0; width * taps];
        let mut rest = packed.as_mut_slice();
        let mut parts = Vec::new();
        for (first, vectors) in groups::<S>(outputs, columns) {
            let (part, more) = rest.split_at_mut(vectors * S::LANES * taps);
            parts.push((first * S::LANES, vectors * S::LANES, part));
            rest = more;
        }
        parts.into_par_iter().for_each(|(first, width, part)| {
            for (k, line) in part.chunks_exact_mut(width).enumerate() {
                for (o, to) in line.iter_mut().enumerate().take(outputs - first) {
                    *to = at(first + o, k);
                }
            }
        });
        packed
    }

    fn check(&self) {
        for phase in self.phases.iter().filter(|phase| phase.rows * phase.columns > 0) {
            let last = phase.offsets.iter().max().map_or(0, |&offset| offset as usize)
                + (phase.rows - 1) * self.stride * self.flat.row
                + (phase.columns - 1) * self.stride;
            assert!(last < self.flat.image(), "taps reach {last}, the flat image has {} numbers", self.flat.image());
        }
    }

    fn run<S: Simd>(&self, simd: S, batch: usize, x: &[f32], sum: Option<Vec<f32>>) -> Vec<f32> {
        self.check();
        let (map, image) = (self.height * self.width, self.flat.channels * self.flat.height * self.flat.width);
        let groups = groups::<S>(self.outputs, self.width);
        let widest = groups[0].1 * S::LANES;
        let lines = (STRIP / self.width).max(1).next_multiple_of(self.spread);
        let copy = if self.flat.is_plain() { 0 } else { self.flat.image() };
        let add = sum.is_some();
        let mut y = room(sum, batch * self.outputs * map);
        y.par_chunks_mut(IMAGES * self.outputs * map).zip(x.par_chunks(IMAGES * image)).for_each(|(y, x)| {
            with_scratch([copy, lines * self.width * widest + S::LANES, 0], |flat, strip, _| {
                let skip = strip.as_ptr().align_offset(64).min(S::LANES);
                let strip = &mut strip[skip..];
                flat.fill(0.0);
                for (x, y) in x.chunks_exact(image).zip(y.chunks_exact_mut(self.outputs * map)) {
                    let flat = if copy == 0 {
                        x
                    } else {
                        self.flat.fill(simd, x, flat);
                        &*flat
                    };
                    for &(first, vectors) in &groups {
                        for line in (0..self.height).step_by(lines) {
                            let lines = lines.min(self.height - line);
                            self.strip(simd, flat, (first, vectors), line..line + lines, strip);
                            let outputs = (self.outputs - first * S::LANES).min(vectors * S::LANES);
                            let to = &mut y[first * S::LANES * map + line * self.width..];
                            // SAFETY: if there is a sum, all of `y` holds its numbers.
                            unsafe {
                                transpose_exact(simd, strip, (vectors * S::LANES, lines * self.width, outputs), to, map, add);
                            };
                        }
                    }
                }
            });
        });
        // SAFETY: all lines of all outputs of all images were written.
        unsafe { written(y) }
    }

    /// Some lines of a group of outputs of one image.
    fn strip<S: Simd>(
        &self,
        simd: S,
        flat: &[f32],
        (first, vectors): (usize, usize),
        lines: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let pitch = vectors * S::LANES;
        assert!(out.len() >= lines.len() * self.width * pitch && flat.len() >= self.flat.image(), "strip out of bounds");
        for b in 0..self.spread {
            let columns = self.phases[b].columns;
            if columns == 0 {
                continue;
            }
            let (width, block) = best_block::<S>(columns, vectors, self.stride);
            for (i, y) in lines.clone().enumerate() {
                let phase = &self.phases[y % self.spread * self.spread + b];
                let weights = &phase.weights[first * S::LANES * phase.offsets.len()..];
                let from = &flat[y / self.spread * self.stride * self.flat.row..];
                let out = &mut out[(i * self.width + b) * pitch..];
                for column in (0..columns).step_by(width) {
                    let column = column.min(columns - width);
                    // SAFETY: positions and taps lie inside the flat image by `check`, the weights hold
                    // `vectors` registers per tap, the line of outputs lies in `out`, as checked.
                    unsafe {
                        block(
                            simd,
                            &phase.offsets,
                            from.as_ptr().add(column * self.stride),
                            weights.as_ptr(),
                            out.as_mut_ptr().add(column * self.spread * pitch),
                            self.spread * pitch,
                        );
                    }
                }
            }
        }
    }
}

/// y [B,O,P] of x [B,C,H,W] with weights given as a function of (o, tap), added to `sum` if there is one.
fn multiply<S: Simd>(simd: S, s: &Shape, x: &[f32], w: impl Fn(usize, usize) -> f32 + Sync, sum: Option<Vec<f32>>) -> Vec<f32> {
    let flat = Flat::of(s);
    let area = s.kernel * s.kernel;
    let offsets =
        (0..s.taps()).map(|k| (k / area * flat.plane + k % area / s.kernel * flat.row + k % s.kernel) as u32).collect();
    let weights = Product::pack::<S>(s.outputs, s.out_width, s.taps(), w);
    let phase = Phase { offsets, weights, rows: s.out_height, columns: s.out_width };
    let product = Product {
        flat,
        outputs: s.outputs,
        height: s.out_height,
        width: s.out_width,
        phases: vec![phase],
        spread: 1,
        stride: s.stride,
    };
    product.run(simd, s.batch, x, sum)
}

/// dx of a convolution with stride: pixel s·i + a − padding meets only the taps a, a + s, a + 2s …, of the outputs i, i − 1, i
/// − 2 …
fn phased_gradient<S: Simd>(simd: S, s: &Shape, dy: &[f32], w: &[f32], sum: Option<Vec<f32>>) -> Vec<f32> {
    let stride = s.stride;
    let before = (s.kernel - 1) / stride;
    // As far as the last pixel sees.
    let (high, wide) = ((s.height - 1 + s.padding) / stride + 1, (s.width - 1 + s.padding) / stride + 1);
    let row = before + wide.max(s.out_width);
    let plane = row * (before + high.max(s.out_height));
    let flat = Flat { channels: s.outputs, height: s.out_height, width: s.out_width, before, row, plane };
    let phases = (0..stride * stride)
        .map(|phase| {
            let (y, x) = (phase / stride, phase % stride);
            let (a, b) = ((y + s.padding) % stride, (x + s.padding) % stride);
            let (down, right) = (before + (y + s.padding) / stride, before + (x + s.padding) / stride);
            let taps: Vec<(usize, usize, usize)> = (0..s.outputs)
                .flat_map(|o| {
                    (a..s.kernel).step_by(stride).flat_map(move |ky| (b..s.kernel).step_by(stride).map(move |kx| (o, ky, kx)))
                })
                .collect();
            let offsets =
                taps.iter().map(|&(o, ky, kx)| (o * plane + (down - ky / stride) * row + right - kx / stride) as u32).collect();
            let weights = Product::pack::<S>(s.channels, s.width, taps.len(), |c, k| {
                let (o, ky, kx) = taps[k];
                w[((o * s.channels + c) * s.kernel + ky) * s.kernel + kx]
            });
            let outputs = |pixels: usize, first: usize| pixels.saturating_sub(first).div_ceil(stride);
            Phase { offsets, weights, rows: outputs(s.height, y), columns: outputs(s.width, x) }
        })
        .collect();
    let product = Product { flat, outputs: s.channels, height: s.height, width: s.width, phases, spread: stride, stride: 1 };
    product.run(simd, s.batch, dy, sum)
}

/// The positions of a weight gradient: images, rows, columns, and how far apart they lie in the flat copy.
#[derive(Clone, Copy)]
struct Walk {
    images: usize,
    image: usize,
    rows: usize,
    row: usize,
    columns: usize,
    stride: usize,
}

/// out[r · K + k, o] += Σ over positions n of flat[n + lines[r] + k] · right[n, o] for R lines of K taps and V registers of
/// outputs; `right` and `out` have rows `pitch` apart.
///
/// # Safety
/// Flat positions plus taps may be read, `right` has a row per position, `out` a row per tap, each V registers wide.
unsafe fn outer<S: Simd, const R: usize, const K: usize, const V: usize>(
    simd: S,
    walk: Walk,
    flat: *const f32,
    lines: &[u32],
    right: *const f32,
    pitch: usize,
    out: *mut f32,
) {
    // SAFETY: as the caller promises.
    simd.run(|| unsafe {
        let mut sums = [[[simd.zero(); V]; K]; R];
        let mut from = [flat; R];
        for (from, &line) in from.iter_mut().zip(lines) {
            *from = flat.add(line as usize);
        }
        let mut right = right;
        for image in 0..walk.images {
            for row in 0..walk.rows {
                let mut n = image * walk.image + row * walk.row;
                for _ in 0..walk.columns {
                    let mut v = [simd.zero(); V];
                    for (j, v) in v.iter_mut().enumerate() {
                        *v = simd.load(right.add(j * S::LANES));
                    }
                    for (sums, from) in sums.iter_mut().zip(from) {
                        for (k, sums) in sums.iter_mut().enumerate() {
                            let x = simd.all(*from.add(n + k));
                            for (sum, v) in sums.iter_mut().zip(v) {
                                *sum = simd.fma(x, v, *sum);
                            }
                        }
                    }
                    n += walk.stride;
                    right = right.add(pitch);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (k, sums) in sums.iter().enumerate() {
                for (j, sum) in sums.iter().enumerate() {
                    let out = out.add((r * K + k) * pitch + j * S::LANES);
                    simd.store(out, simd.add(simd.load(out), *sum));
                }
            }
        }
    });
}

type Outer<S> = unsafe fn(S, Walk, *const f32, &[u32], *const f32, usize, *mut f32);

/// The block of `lines` lines at most: how many it takes.
fn best_outer<S: Simd>(lines: usize, taps: usize, vectors: usize) -> (usize, Outer<S>) {
    macro_rules! pick {
        ($(($r:literal, $k:literal, $v:literal))*) => {{
            let all: &[(usize, usize, usize, Outer<S>)] = &[$(($r, $k, $v, outer::<S, $r, $k, $v>)),*];
            let fitting = all.iter().filter(|(r, k, v, _)| (*k, *v) == (taps, vectors) && *r <= lines);
            match fitting.max_by_key(|(r, ..)| *r) {
                Some((r, _, _, outer)) => (*r, *outer),
                None => unreachable!("lines have one or three taps, groups one to three registers, not {taps} and {vectors}"),
            }
        }};
    }
    if S::REGISTERS >= 32 {
        pick!((6, 3, 1)(3, 3, 1)(2, 3, 1)(1, 3, 1)(3, 3, 2)(2, 3, 2)(1, 3, 2)(3, 3, 3)(2, 3, 3)(1, 3, 3)(9, 1, 1)(4, 1, 1)(
            2, 1, 1
        )(1, 1, 1)(9, 1, 2)(4, 1, 2)(2, 1, 2)(1, 1, 2)(9, 1, 3)(4, 1, 3)(2, 1, 3)(1, 1, 3))
    } else {
        pick!((3, 3, 1)(2, 3, 1)(1, 3, 1)(2, 3, 2)(1, 3, 2)(9, 1, 1)(6, 1, 1)(4, 1, 1)(2, 1, 1)(1, 1, 1)(6, 1, 2)(4, 1, 2)(
            2, 1, 2
        )(1, 1, 2))
    }
}

/// dw [O,C,k,k] = Σ over images and positions of dy ⊗ the pixels under each tap. Tasks are (part of the batch) x (slice of the
/// channels); parts are added in order.
fn weight_gradient<S: Simd>(simd: S, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (map, area) = (s.map(), s.kernel * s.kernel);
    let pitch = s.outputs.next_multiple_of(S::LANES);
    let slice = (576 / area).clamp(1, s.channels);
    let slices = s.channels.div_ceil(slice);
    let parts = 16usize.div_ceil(slices).min(s.batch);
    let part = s.batch.div_ceil(parts);
    let parts = s.batch.div_ceil(part);
    let flat = Flat { channels: slice, ..Flat::of(s) };
    let group = (PREPARED / (flat.image() + map * pitch)).clamp(1, part);
    // Taps in a line are neighbors; for kernels other than 3 x 3 a line is one tap.
    let width = if s.kernel == 3 { 3 } else { 1 };
    let lines: Vec<u32> = (0..slice * area / width)
        .map(|line| {
            let k = line * width;
            (k / area * flat.plane + k % area / s.kernel * flat.row + k % s.kernel) as u32
        })
        .collect();
    let last = lines.iter().max().map_or(0, |&line| line as usize) + width - 1;
    let last = last + (s.out_height - 1) * s.stride * flat.row + (s.out_width - 1) * s.stride;
    assert!(last < flat.image(), "taps reach {last}, the flat image has {} numbers", flat.image());
    let partials: Vec<Vec<f32>> = (0..parts * slices)
        .into_par_iter()
        .map(|task| {
            let (images, first) = (task / slices * part..((task / slices + 1) * part).min(s.batch), task % slices * slice);
            let channels = slice.min(s.channels - first);
            let mut sums = vec![0.0; channels * area * pitch];
            with_scratch([group * flat.image(), group * map * pitch + S::LANES, 0], |buffer, right, _| {
                let skip = right.as_ptr().align_offset(64).min(S::LANES);
                let right = &mut right[skip..];
                buffer.fill(0.0);
                for start in images.clone().step_by(group) {
                    let count = group.min(images.end - start);
                    for i in 0..count {
                        let image = &x[(start + i) * s.image() + first * s.height * s.width..][..channels * s.height * s.width];
                        flat.fill(simd, image, &mut buffer[i * flat.image()..][..flat.image()]);
                        let dy = &dy[(start + i) * s.outputs * map..][..s.outputs * map];
                        transpose_padded(simd, dy, map, s.outputs, map, &mut right[i * map * pitch..], pitch);
                    }
                    let walk = Walk {
                        images: count,
                        image: flat.image(),
                        rows: s.out_height,
                        row: s.stride * flat.row,
                        columns: s.out_width,
                        stride: s.stride,
                    };
                    let lines = &lines[..channels * area / width];
                    // One register leaves room for more lines; with several groups of outputs, all take the same.
                    let most = match (pitch == S::LANES, S::REGISTERS >= 32) {
                        (true, _) => 9,
                        (_, true) => 9 / width,
                        _ => 6 / width,
                    };
                    let mut done = 0;
                    while done < lines.len() {
                        let mut column = 0;
                        let mut taken = 0;
                        while column < pitch {
                            let vectors = best_vectors::<S>((pitch - column) / S::LANES);
                            let (block, outer) = best_outer::<S>(most.min(lines.len() - done), width, vectors);
                            taken = block;
                            let out = sums[done * width * pitch + column..].as_mut_ptr();
                            // SAFETY: positions and taps lie in the flat images, as checked, `right` has a
                            // row per position, `sums` a row per tap.
                            unsafe {
                                outer(simd, walk, buffer.as_ptr(), &lines[done..], right[column..].as_ptr(), pitch, out);
                            }
                            column += vectors * S::LANES;
                        }
                        done += taken;
                    }
                }
            });
            sums
        })
        .collect();
    sum_of_parts(s, &partials, (slices, slice * area, pitch))
}
