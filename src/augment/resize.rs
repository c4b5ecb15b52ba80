//! Resampling with antialias, to the bit as Pillow does it.
//!
//! Pillow scales 8-bit pictures in two passes, one along the rows (across) and one along the columns (down), rounding to 8 bits
//! in between. Weights are computed in f64, normalized, and turned into integers with 22 fractional bits; a pass is a weighted
//! sum plus one half, shifted down. Any other arithmetic differs in rare pixels, and so does the other order: across comes
//! first, but since version 13 (pull request 9549) not where `down_comes_first`.
//!
//! Both passes run here over whole rows of bytes: the pass across works on the transposed picture, whose "rows" are columns of
//! all channels, and a second transposition leaves the planes [`Planes`] wants. Mirroring is free on the way.

#![expect(clippy::inline_always, reason = "what is not inlined into `kernel::dispatch` is compiled for narrow vectors")]

use super::crop::Window;
use super::planes::Planes;
use kinset_artifact::encoder::Filter;
use kinset_artifact::pixels::Pixels;
use kinset_kernel::dispatch::{Work, widest};

/// Fractional bits of a weight: 32 less 8 for the pixel, less 2 so that sums cannot overflow (Pillow).
const BITS: u32 = 22;

/// One half, for rounding.
const HALF: i32 = 1 << (BITS - 1);

/// For every output position, which inputs count and how much.
#[derive(Clone, Debug, Default)]
pub struct Taps {
    /// First input and range of `weights`, per output.
    spans: Vec<(usize, usize, usize)>,
    /// Integer weights; those of one output sum to 1 in fixed point, up to rounding.
    weights: Vec<i32>,
    /// The weights of one output before rounding.
    exact: Vec<f64>,
}

impl Taps {
    /// Bilinear weights from `input` to `output` pixels; the triangle widens when the picture shrinks (antialias).
    pub fn bilinear(&mut self, input: usize, output: usize) {
        let scale = input as f64 / output as f64;
        let width = scale.max(1.0);
        let narrow = 1.0 / width;
        self.fill(input, output, scale, width, |distance| (1.0 - (distance * narrow).abs()).max(0.0));
    }

    /// Bicubic weights (Keys 1981 with a = −½), widened as the triangle is.
    pub fn bicubic(&mut self, input: usize, output: usize) {
        const A: f64 = -0.5;
        let scale = input as f64 / output as f64;
        let width = scale.max(1.0);
        let narrow = 1.0 / width;
        self.fill(input, output, scale, 2.0 * width, |distance| {
            let x = (distance * narrow).abs();
            if x < 1.0 {
                ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
            } else if x < 2.0 {
                (((x - 5.0) * x + 8.0) * x - 4.0) * A
            } else {
                0.0
            }
        });
    }

    pub fn by(&mut self, filter: Filter, input: usize, output: usize) {
        match filter {
            Filter::Bilinear => self.bilinear(input, output),
            Filter::Bicubic => self.bicubic(input, output),
        }
    }

    /// Gaussian weights over `length` pixels, cut at three deviations and normalized at the borders: a blur.
    pub fn gaussian(&mut self, length: usize, sigma: f64) {
        let support = (3.0 * sigma).ceil() + 0.5;
        self.fill(length, length, 1.0, support, |distance| (-0.5 * (distance / sigma).powi(2)).exp());
    }

    fn fill(&mut self, input: usize, output: usize, scale: f64, support: f64, weight: impl Fn(f64) -> f64) {
        self.spans.clear();
        self.weights.clear();
        for position in 0..output {
            let centre = (position as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            self.exact.clear();
            self.exact.extend((first..end).map(|x| weight(x as f64 - centre + 0.5)));
            let total = self.exact.iter().fold(0.0, |sum, w| sum + w);
            let start = self.weights.len();
            let mut first = first;
            for &w in &self.exact {
                let half = if w < 0.0 { -0.5 } else { 0.5 };
                let fixed = (half + w / total * f64::from(1 << BITS)) as i32;
                // A leading zero adds nothing to the sum; neither do trailing ones, below.
                if fixed == 0 && self.weights.len() == start {
                    first += 1;
                } else {
                    self.weights.push(fixed);
                }
            }
            while self.weights.len() > start + 1 && self.weights.last() == Some(&0) {
                self.weights.pop();
            }
            self.spans.push((first, start, self.weights.len()));
        }
    }

    /// First input and weights of one output.
    #[inline(always)]
    fn at(&self, output: usize) -> (usize, &[i32]) {
        let (first, start, end) = self.spans[output];
        (first, &self.weights[start..end])
    }
}

/// Memory for the two passes, reused from sample to sample.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    across: Taps,
    down: Taps,
    buffers: [Vec<u8>; 2],
}

/// Whether Pillow scales down the columns before it goes across: if that shortens them by more than twice what rows lose.
///
/// Found by comparing both orders with Pillow 13.0 over 20,000 random sizes. The papers' numbers come from older versions, which
/// always went across first; square views of square pictures, and any window that is scaled up, are the same in both.
fn down_comes_first(from: (usize, usize), to: (usize, usize)) -> bool {
    to.1 < from.1 && from.1 - to.1 > 2 * from.0.saturating_sub(to.0)
}

/// Cuts a window out of a picture, scales it to `width` x `height` and, if asked, mirrors it.
///
/// The window is cut first: no pixel outside it counts (torchvision's `resized_crop`).
pub fn crop_resize(
    picture: &Pixels,
    window: Window,
    size: (usize, usize),
    mirrored: bool,
    scratch: &mut Scratch,
    out: &mut Planes,
) {
    crop_resize_by(Filter::Bilinear, picture, window, size, mirrored, scratch, out);
}

/// [`crop_resize`] by any filter.
pub fn crop_resize_by(
    filter: Filter,
    picture: &Pixels,
    window: Window,
    (width, height): (usize, usize),
    mirrored: bool,
    scratch: &mut Scratch,
    out: &mut Planes,
) {
    if (window.width, window.height) == (width, height) {
        out.load(picture, window);
        if mirrored {
            super::flip::mirror(out);
        }
        return;
    }
    out.reshape(picture.channels, height, width);
    scratch.across.by(filter, window.width, width);
    scratch.down.by(filter, window.height, height);
    let passes = TwoPasses::<false> {
        source: &picture.data[(window.top * picture.width + window.left) * picture.channels..],
        stride: picture.width * picture.channels,
        rows: window.height,
        columns: window.width,
        channels: picture.channels,
        down_first: down_comes_first((window.width, window.height), (width, height)),
        mirrored,
        scratch,
        out: &mut out.data,
    };
    match filter {
        Filter::Bilinear => widest(passes),
        Filter::Bicubic => widest(passes.clamped()),
    }
}

/// Blurs a picture with a Gaussian of this deviation in pixels.
pub fn blur(from: &Planes, sigma: f64, scratch: &mut Scratch, to: &mut Planes) {
    to.reshape_like(from);
    scratch.across.gaussian(from.width, sigma);
    scratch.down.gaussian(from.height, sigma);
    let area = from.area().max(1);
    for (source, out) in from.planes().zip(to.data.chunks_exact_mut(area)) {
        let (stride, rows, columns) = (from.width, from.height, from.width);
        let shape =
            TwoPasses::<false> { source, stride, rows, columns, channels: 1, down_first: false, mirrored: false, scratch, out };
        widest(shape);
    }
}

/// The two passes over bytes. Weights below 0 need `CLAMP`: their sums leave 0–255.
struct TwoPasses<'a, const CLAMP: bool> {
    /// `rows` rows of `columns` pixels of `channels` bytes; rows begin `stride` bytes apart.
    source: &'a [u8],
    stride: usize,
    rows: usize,
    columns: usize,
    channels: usize,
    down_first: bool,
    mirrored: bool,
    scratch: &'a mut Scratch,
    /// `[channels, height, width]`
    out: &'a mut [u8],
}

impl<'a> TwoPasses<'a, false> {
    fn clamped(self) -> TwoPasses<'a, true> {
        let Self { source, stride, rows, columns, channels, down_first, mirrored, scratch, out } = self;
        TwoPasses { source, stride, rows, columns, channels, down_first, mirrored, scratch, out }
    }
}

/// A sum in fixed point as a byte.
#[inline(always)]
fn byte<const CLAMP: bool>(sum: i32) -> u8 {
    let value = sum >> BITS;
    if CLAMP { value.clamp(0, 255) as u8 } else { value as u8 }
}

impl<const CLAMP: bool> Work for TwoPasses<'_, CLAMP> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { source, stride, rows, columns, channels, down_first, mirrored, scratch, out } = self;
        let Scratch { across, down, buffers: [a, b] } = scratch;
        let (width, height) = (across.spans.len(), down.spans.len());
        let line = columns * channels;
        if down_first {
            weigh::<CLAMP>(source, stride, line, down, false, room(a, height * line));
            transpose(a, line, height, line, room(b, line * height));
            weigh::<CLAMP>(b, channels * height, channels * height, across, mirrored, room(a, width * channels * height));
            transpose(a, channels * height, width, channels * height, out);
        } else {
            transpose(source, stride, rows, line, room(a, line * rows));
            weigh::<CLAMP>(a, channels * rows, channels * rows, across, mirrored, room(b, width * channels * rows));
            transpose(b, channels * rows, width, channels * rows, room(a, channels * rows * width));
            for (plane, result) in a.chunks_exact(rows * width).zip(out.chunks_exact_mut(height * width)) {
                weigh::<CLAMP>(plane, width, width, down, false, result);
            }
        }
    }
}

/// The first `length` bytes of a buffer that only grows.
#[inline(always)]
fn room(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

/// Weighted sums of rows of `length` bytes, which begin `stride` bytes apart: `[outputs, length]` from `[inputs, length]`, outputs
/// in reverse order if asked.
#[inline(always)]
fn weigh<const CLAMP: bool>(from: &[u8], stride: usize, length: usize, taps: &Taps, reverse: bool, to: &mut [u8]) {
    let count = taps.spans.len();
    for (position, row) in to.chunks_exact_mut(length).enumerate() {
        let (first, weights) = taps.at(if reverse { count - 1 - position } else { position });
        let from = &from[first * stride..(first + weights.len() - 1) * stride + length];
        match weights {
            // A single weight is 1, up to less than a rounding.
            [_] => row.copy_from_slice(from),
            [a, b] => {
                let (x, y) = from.split_at(stride);
                if length >= 32 { two::<CLAMP, 32>(x, y, *a, *b, row) } else { two::<CLAMP, 8>(x, y, *a, *b, row) }
            }
            _ if length >= 32 => many::<CLAMP, 32>(from, stride, weights, row),
            _ => many::<CLAMP, 8>(from, stride, weights, row),
        }
    }
}

/// `N` bytes from `at` on.
#[inline(always)]
fn block<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    let Some(block) = bytes[at..].first_chunk() else { unreachable!("blocks end with their row") };
    block
}

/// Where blocks of `N` start that cover `length`: the last one overlaps its neighbor rather than stick out. None if not even one
/// block fits.
#[inline(always)]
fn starts<const N: usize>(length: usize) -> impl Iterator<Item = usize> {
    let count = if length < N { 0 } else { length.div_ceil(N) };
    (0..count).map(move |i| (i * N).min(length - N))
}

/// The weighted sum of two rows.
#[inline(always)]
fn two<const CLAMP: bool, const N: usize>(x: &[u8], y: &[u8], a: i32, b: i32, to: &mut [u8]) {
    let sum = |x: u8, y: u8| byte::<CLAMP>(i32::from(x) * a + i32::from(y) * b + HALF);
    for at in starts::<N>(to.len()) {
        let (x, y) = (block::<N>(x, at), block::<N>(y, at));
        let mut sums = [0; N];
        for i in 0..N {
            sums[i] = sum(x[i], y[i]);
        }
        to[at..at + N].copy_from_slice(&sums);
    }
    if to.len() < N {
        for ((to, x), y) in to.iter_mut().zip(x).zip(y) {
            *to = sum(*x, *y);
        }
    }
}

/// The weighted sum of any number of rows.
#[inline(always)]
fn many<const CLAMP: bool, const N: usize>(from: &[u8], stride: usize, weights: &[i32], to: &mut [u8]) {
    let length = to.len();
    for at in starts::<N>(length) {
        let mut sums = [HALF; N];
        for (row, weight) in from.chunks(stride).zip(weights) {
            let row = block::<N>(row, at);
            for i in 0..N {
                sums[i] += i32::from(row[i]) * weight;
            }
        }
        let mut bytes = [0; N];
        for i in 0..N {
            bytes[i] = byte::<CLAMP>(sums[i]);
        }
        to[at..at + N].copy_from_slice(&bytes);
    }
    if length < N {
        for (i, to) in to.iter_mut().enumerate() {
            let products = from.chunks(stride).zip(weights).map(|(row, weight)| i32::from(row[i]) * weight);
            *to = byte::<CLAMP>(HALF + products.sum::<i32>());
        }
    }
}

/// Turns `rows` rows of `columns` bytes, `stride` bytes apart, into `columns` rows of `rows` bytes.
#[inline(always)]
fn transpose(from: &[u8], stride: usize, rows: usize, columns: usize, to: &mut [u8]) {
    if rows < 8 || columns < 8 {
        for row in 0..rows {
            for column in 0..columns {
                to[column * rows + row] = from[row * stride + column];
            }
        }
        return;
    }
    for row in starts::<8>(rows) {
        for column in starts::<8>(columns) {
            let mut lines = [0; 8];
            for (i, line) in lines.iter_mut().enumerate() {
                *line = u64::from_le_bytes(*block(from, (row + i) * stride + column));
            }
            for (i, line) in turn(lines).into_iter().enumerate() {
                let at = (column + i) * rows + row;
                to[at..at + 8].copy_from_slice(&line.to_le_bytes());
            }
        }
    }
}

/// Transposes 8 x 8 bytes: swaps the off-diagonal quarters of 2 x 2, 4 x 4, then 8 x 8 squares.
#[inline(always)]
fn turn(mut lines: [u64; 8]) -> [u64; 8] {
    for (apart, shift, mask) in [(1, 8, 0x00ff_00ff_00ff_00ff), (2, 16, 0x0000_ffff_0000_ffff), (4, 32, 0xffff_ffff)] {
        for upper in (0..8).filter(|line| line & apart == 0) {
            let lower = upper + apart;
            let swap = ((lines[upper] >> shift) ^ lines[lower]) & mask;
            lines[upper] ^= swap << shift;
            lines[lower] ^= swap;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_to_one_is_the_identity() {
        let mut taps = Taps::default();
        taps.bilinear(7, 7);
        assert_eq!(taps.weights, [1 << BITS; 7]);
        assert_eq!(taps.spans.iter().map(|span| span.0).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    }

    #[test]
    fn doubling_mixes_three_to_one() {
        let mut taps = Taps::default();
        taps.bilinear(2, 4);
        assert_eq!(taps.weights, [1 << 22, 3 << 20, 1 << 20, 1 << 20, 3 << 20, 1 << 22]);
    }

    /// Written by `tests/golden/encoders/pictures.py`.
    #[test]
    fn bicubic_pictures_are_pillows_to_the_byte() {
        let golden: serde_json::Value = serde_json::from_str(include_str!("../../tests/golden/encoders/bicubic.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let number = |name: &str| case[name].as_u64().unwrap() as usize;
            let (width, height, channels) = (number("width"), number("height"), number("channels"));
            // Hard edges beside noise, so that sums leave the range of a byte.
            let value = |i: usize| if (i / 5).is_multiple_of(3) { 255 } else { (i * i * 37 + i * 91) % 256 * ((i / 7) % 2) };
            let picture =
                Pixels::new(width, height, channels, (0..width * height * channels).map(|i| value(i) as u8).collect());
            let mut out = Planes::default();
            let (whole, size) = (Window::whole(width, height), (number("to_width"), number("to_height")));
            crop_resize_by(Filter::Bicubic, &picture, whole, size, false, &mut Scratch::default(), &mut out);
            let wanted: Vec<u8> = case["bytes"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u8).collect();
            assert_eq!(out.to_pixels().data, wanted, "{width}×{height}×{channels} to {size:?}");
        }
    }

    proptest! {
        #[test]
        fn a_transposition_moves_every_byte_to_its_mirror_place(rows in 1_usize..40, columns in 1_usize..40, extra in 0_usize..5) {
            let stride = columns + extra;
            let from: Vec<u8> = (0..rows * stride).map(|i| (i * 131 % 251) as u8).collect();
            let mut to = vec![0; rows * columns];
            transpose(&from, stride, rows, columns, &mut to);
            for row in 0..rows {
                for column in 0..columns {
                    prop_assert_eq!(to[column * rows + row], from[row * stride + column]);
                }
            }
        }

        #[test]
        fn weights_of_an_output_sum_to_one(input in 1_usize..300, output in 1_usize..300) {
            let mut taps = Taps::default();
            taps.bilinear(input, output);
            for position in 0..output {
                let (first, weights) = taps.at(position);
                prop_assert!(first + weights.len() <= input);
                let sum: i32 = weights.iter().sum();
                prop_assert!((sum - (1 << BITS)).unsigned_abs() as usize <= weights.len());
            }
        }

        #[test]
        fn an_even_picture_stays_even(width in 1_usize..50, height in 1_usize..50, to_width in 1_usize..50, to_height in 1_usize..50,
                                      value: u8, gray: bool) {
            let channels = if gray { 1 } else { 3 };
            let picture = Pixels::new(width, height, channels, vec![value; width * height * channels]);
            let (mut scratch, mut out) = (Scratch::default(), Planes::default());
            crop_resize(&picture, Window::whole(width, height), (to_width, to_height), false, &mut scratch, &mut out);
            prop_assert!(out.data.iter().all(|&v| v == value));
            prop_assert_eq!(out.data.len(), to_width * to_height * channels);
            let mut blurred = Planes::default();
            blur(&out, 1.3, &mut scratch, &mut blurred);
            prop_assert!(blurred.data.iter().all(|&v| v == value));
        }

        #[test]
        fn mirroring_on_the_way_is_mirroring_afterwards(width in 1_usize..40, height in 1_usize..40, size in 1_usize..40) {
            let picture = Pixels::new(width, height, 3, (0..width * height * 3).map(|i| (i * 37 % 256) as u8).collect());
            let (mut scratch, mut plain, mut mirrored) = (Scratch::default(), Planes::default(), Planes::default());
            let window = Window::whole(width, height);
            crop_resize(&picture, window, (size, size), false, &mut scratch, &mut plain);
            crop_resize(&picture, window, (size, size), true, &mut scratch, &mut mirrored);
            super::super::flip::mirror(&mut plain);
            prop_assert_eq!(plain, mirrored);
        }
    }

    #[test]
    fn a_blur_spreads_a_dot_evenly_and_keeps_its_mass() {
        let mut from = Planes { channels: 1, height: 15, width: 15, data: vec![0; 225] };
        from.data[7 * 15 + 7] = 255;
        let mut to = Planes::default();
        blur(&from, 1.0, &mut Scratch::default(), &mut to);
        let at = |y: usize, x: usize| i32::from(to.data[y * 15 + x]);
        assert!((at(7, 7) - 41).abs() <= 1, "255 / (2 pi), {}", at(7, 7));
        assert_eq!([at(7, 6), at(7, 8), at(6, 7), at(8, 7)], [at(7, 6); 4]);
        let mass: i32 = to.data.iter().map(|&v| i32::from(v)).sum();
        assert!((mass - 255).abs() < 20, "{mass}");
    }
}
