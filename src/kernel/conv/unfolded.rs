//! Convolution by unfolding the input ("im2col") and multiplying with `gemm`: any shape, any processor.
//!
//! A tile of the input that fits the cache is unfolded and multiplied, then the next. The three products of a layer (output,
//! input gradient, weight gradient) share the unfolding; one thread does one tile, and rayon runs over fixed groups of images.
//! Small maps (4 x 4, 7 x 7) are put several images into one product, or the product would be too narrow.
#![expect(unsafe_code, reason = "tiles are written into a result that was not zeroed")]

use rayon::prelude::*;

use super::super::accumulate::{CHUNK, accumulate, add_to};
use super::super::buffers::{Place, room, with_scratch, written};
use super::super::gemm::{columns, multiply, multiply_new, rows};
use super::Algorithm;
use super::shape::Shape;

/// Floats of unfolded input per tile: half a MiB, so that it stays in the second-level cache beside the packed weights.
const TILE: usize = 128 * 1024;
/// A product should have at least this many columns; smaller maps are grouped.
const COLUMNS: usize = 256;
/// Floats in all partial weight gradients together: 64 MiB.
const PARTIALS: usize = 16 * 1024 * 1024;

/// Unfolding and `gemm`.
#[derive(Debug)]
pub(super) struct Unfolded;

impl Algorithm for Unfolded {
    fn computes(&self, _: &Shape) -> bool {
        true
    }

    fn forward(&self, s: &Shape, x: &[f32], w: &[f32]) -> Vec<f32> {
        forward(s, x, w)
    }

    fn input_gradient(&self, s: &Shape, dy: &[f32], w: &[f32], sum: Option<Vec<f32>>) -> Vec<f32> {
        let dx = input_gradient(s, dy, w);
        let Some(mut sum) = sum else { return dx };
        accumulate(&mut sum, &dx);
        sum
    }

    fn weight_gradient(&self, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
        weight_gradient(s, x, dy)
    }
}

impl Shape {
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
fn scatter(matrix: &[f32], rows: usize, map: usize, out: &mut [Place]) {
    let images = out.len() / (rows * map);
    for (i, image) in out.chunks_exact_mut(rows * map).enumerate() {
        for (r, line) in image.chunks_exact_mut(map).enumerate() {
            line.write_copy_of_slice(&matrix[(r * images + i) * map..][..map]);
        }
    }
}

/// y [B,O,P] = w [O,K] · unfold(x).
fn forward(s: &Shape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let (taps, map, group) = (s.taps(), s.map(), s.group());
    let mut y = room(None, s.batch * s.outputs * map);
    y.par_chunks_mut(group * s.outputs * map).zip(x.par_chunks(group * s.image())).for_each(|(y, x)| {
        let images = x.len() / s.image();
        if s.is_pointwise() && images == 1 {
            multiply_new([s.outputs, map, taps], y, map, w, rows(taps), x, rows(map));
            return;
        }
        let width = s.tile_columns();
        with_scratch([taps * width, if images > 1 { s.outputs * width } else { 0 }, 0], |tile, out, _| {
            if images == 1 {
                for (row, count) in s.tiles(1) {
                    let n = count * s.out_width;
                    unfold(s, x, (row, count), tile, n, 0);
                    let at = row * s.out_width;
                    multiply_new([s.outputs, n, taps], &mut y[at..], map, w, rows(taps), tile, rows(n));
                }
            } else {
                let n = images * map;
                for (i, image) in x.chunks_exact(s.image()).enumerate() {
                    unfold(s, image, (0, s.out_height), tile, n, i * map);
                }
                multiply([s.outputs, n, taps], out, rows(n), false, w, rows(taps), tile, rows(n));
                scatter(out, s.outputs, map, y);
            }
        });
    });
    // SAFETY: every group of images is either scattered as a whole, or all its tiles of rows were products.
    unsafe { written(y) }
}

/// dx [B,C,H,W] = fold(wᵀ · dy), or the convolution with the kernel rotated by 180° where there is one.
fn input_gradient(s: &Shape, dy: &[f32], w: &[f32]) -> Vec<f32> {
    let (taps, map, group) = (s.taps(), s.map(), s.group());
    if let Some(back) = s.backwards() {
        let area = s.kernel * s.kernel;
        let mut rotated = vec![0.0; w.len()];
        for o in 0..s.outputs {
            for c in 0..s.channels {
                let from = &w[(o * s.channels + c) * area..][..area];
                for (to, v) in rotated[(c * s.outputs + o) * area..][..area].iter_mut().zip(from.iter().rev()) {
                    *to = *v;
                }
            }
        }
        return forward(&back, dy, &rotated);
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
                    multiply([taps, n, s.outputs], tile, rows(n), false, w, columns(taps), &dy[at..], rows(map));
                    fold(s, dx, (row, count), tile, n, 0);
                }
            } else {
                let n = images * map;
                gather(dy, s.outputs, map, all);
                multiply([taps, n, s.outputs], tile, rows(n), false, w, columns(taps), all, rows(n));
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
                        multiply([s.outputs, taps, map], &mut dw, rows(taps), true, dy, rows(map), x, columns(map));
                    } else if images == 1 {
                        for (row, count) in s.tiles(1) {
                            let n = count * s.out_width;
                            unfold(s, x, (row, count), tile, n, 0);
                            let at = row * s.out_width;
                            multiply([s.outputs, taps, n], &mut dw, rows(taps), true, &dy[at..], rows(map), tile, columns(n));
                        }
                    } else {
                        let n = images * map;
                        for (i, image) in x.chunks_exact(s.image()).enumerate() {
                            unfold(s, image, (0, s.out_height), tile, n, i * map);
                        }
                        gather(dy, s.outputs, map, all);
                        multiply([s.outputs, taps, n], &mut dw, rows(taps), true, all, rows(n), tile, columns(n));
                    }
                }
            });
            dw
        })
        .collect();
    let Some((sum, rest)) = partials.split_first_mut() else { return vec![0.0; size] };
    sum.par_chunks_mut(CHUNK).enumerate().for_each(|(i, sum)| {
        for part in &*rest {
            add_to(sum, &part[i * CHUNK..][..sum.len()]);
        }
    });
    std::mem::take(sum)
}
