//! Winograd's fast 3 x 3 convolution, F(4 x 4, 3 x 3): 9 multiplications in place of 36.
//!
//! A tile of 6 x 6 pixels gives 4 x 4 outputs. Tile and kernel are transformed to 36 numbers each – values of polynomials at
//! six points –, multiplied number by number and summed over the channels, and transformed back:
//!
//! ```text
//! Y = Aᵀ [ Σ over channels of (G g Gᵀ) ⊙ (Bᵀ d B) ] A          output, and the input's gradient with the kernel rotated by 180°
//! g' = Gᵀ [ Σ over tiles of (Bᵀ d B) ⊙ (A Y' Aᵀ) ] G           the weights' gradient, the same read backwards
//! ```
//!
//! The sums are 36 matrix products with a quarter of the multiplications. All lanes of a register hold channels, so every map
//! size is alike and only channels are padded (to a register): images are transposed to [pixel, channel] on the way in and back on the
//! way out, tile by tile in the cache.
//!
//! The points are 0, ±√2, ±1/√2 and ∞. With the usual 0, ±1, ±2, ∞ the result is ten times less exact than a direct sum; with
//! these, two to three times (measured for 16 to 512 channels), because no number is transformed by large factors.
//!
//! # Paper
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.1.
#![expect(unsafe_code, reason = "reads and writes of registers; every block states its bounds")]
#![expect(clippy::inline_always, reason = "compiled as part of a loop, with its instruction set")]
#![expect(clippy::needless_range_loop, reason = "indices are coordinates of a tile")]
#![expect(clippy::match_same_arms, reason = "a table: one line per case")]

use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::Range;

use rayon::prelude::*;

use super::super::buffers::{Place, room, with_scratch, written};
use super::super::simd::{Simd, WIDEST};
use super::super::transpose::{transpose_exact, transpose_padded};
use super::Algorithm;
use super::shape::Shape;

/// Outputs along a tile's side.
const STEP: usize = 4;
/// Pixels along a tile's side.
const SIDE: usize = STEP + 2;
/// Numbers per tile.
const NUMBERS: usize = SIDE * SIDE;
/// Terms of a product at once: 128 rows of four wide registers are 32 KiB, two thirds of the first-level cache.
const TERMS: usize = 128;
/// Bytes of a task's transformed tiles and products: they stay in the second-level cache.
const CACHE: usize = 1792 * 1024;
/// Channels and outputs of a task of the weights' gradient.
const SLICE: [usize; 2] = [64, 128];
/// Channels and outputs at least: transforming a tile costs the same for a product with few terms. (Measured with AVX-512: 16
/// channels take 1.5 times as long as a direct sum, 32 as long, 64 six tenths, 256 half; with AVX2, 16 take six tenths.)
const fn least<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 48 } else { 16 }
}
/// Kernels of a layer at most: 144 MiB when transformed.
const LARGEST: usize = 1024 * 1024;
/// Tiles of a task: at least so many, that the kernels are not read from far away for a few tiles, and at most.
const TILES: [usize; 2] = [64, 256];

/// Products of transformed tiles and kernels.
#[derive(Debug)]
pub(super) struct Winograd<S>(pub(super) S);

impl<S: Simd> Algorithm for Winograd<S> {
    fn computes(&self, s: &Shape) -> bool {
        (s.kernel, s.stride) == (3, 1) && s.padding <= 2
    }

    fn pays(&self, s: &Shape) -> bool {
        s.channels.min(s.outputs) >= least::<S>()
            // The transformed kernels take four times the room of the kernels.
            && s.channels * s.outputs <= LARGEST
            // Tiles that hang over the edge of a small map may multiply more than a direct sum.
            && 2 * Grid::of(s).tiles() * NUMBERS <= s.map() * 9
    }

    fn forward(&self, s: &Shape, x: &[f32], w: &[f32]) -> Vec<f32> {
        multiply(self.0, s, x, w, Way::Forward, None)
    }

    fn input_gradient(&self, s: &Shape, dy: &[f32], w: &[f32], sum: Option<Vec<f32>>) -> Vec<f32> {
        let Some(back) = s.backwards() else { unreachable!("`computes` wants no stride and little padding") };
        multiply(self.0, &back, dy, w, Way::Back, sum)
    }

    fn weight_gradient(&self, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
        weight_gradient(self.0, s, x, dy)
    }
}

/// A buffer that begins on a cache line: a register that lies across two costs two reads.
fn aligned<T>(buffer: &mut [T]) -> &mut [T] {
    let skip = from_line(buffer);
    &mut buffer[skip..]
}

/// Where the first cache line begins.
fn from_line<T>(buffer: &[T]) -> usize {
    buffer.as_ptr().align_offset(64).min(LINE)
}

/// Floats to add to a buffer that will be [`aligned`].
const LINE: usize = 16;

#[derive(Clone, Copy)]
struct Grid {
    shape: Shape,
    rows: usize,
    columns: usize,
}

impl Grid {
    fn of(shape: &Shape) -> Self {
        Self { shape: *shape, rows: shape.out_height.div_ceil(STEP), columns: shape.out_width.div_ceil(STEP) }
    }

    fn tiles(&self) -> usize {
        self.rows * self.columns
    }

    /// Pixels in a row of tiles, borders included.
    fn width(&self) -> usize {
        STEP * self.columns + 2
    }

    /// Pixels under some rows of tiles, borders included.
    fn pixels(&self, rows: usize) -> usize {
        (STEP * rows + 2) * self.width()
    }

    /// Images per task and rows of tiles at a time, so that about `most` tiles are worked on at once.
    fn cut(&self, most: usize) -> (usize, usize) {
        let most = most.clamp(TILES[0], TILES[1]);
        if self.tiles() > most {
            let parts = self.rows.div_ceil((most / self.columns).max(1));
            return (1, self.rows.div_ceil(parts));
        }
        // An even number of tasks of nearly equal size.
        let tasks = self.shape.batch.div_ceil(most / self.tiles()).next_multiple_of(2);
        (self.shape.batch.div_ceil(tasks), self.rows)
    }

    /// Pieces of `height` rows of tiles.
    fn pieces(&self, height: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.rows;
        (0..rows).step_by(height).map(move |row| row..(row + height).min(rows))
    }

    /// Copies channels of an image, `pitch` per pixel, with its border of zeros, as far as the tiles of `rows` see.
    fn pad<S: Simd>(&self, simd: S, image: &[f32], rows: &Range<usize>, out: &mut [f32], pitch: usize) {
        let s = &self.shape;
        let (map, width) = (s.height * s.width, self.width());
        let mut inside = s.height..0;
        for (row, line) in (STEP * rows.start..STEP * rows.end + 2).zip(out.chunks_exact_mut(width * pitch)) {
            match row.checked_sub(s.padding).filter(|y| *y < s.height) {
                None => line.fill(0.0),
                Some(y) => {
                    inside = inside.start.min(y)..y + 1;
                    line[..s.padding * pitch].fill(0.0);
                    line[(s.padding + s.width) * pitch..].fill(0.0);
                }
            }
        }
        for y in inside {
            let from = (y + s.padding - STEP * rows.start) * width + s.padding;
            transpose_padded(simd, &image[y * s.width..], map, image.len() / map, s.width, &mut out[from * pitch..], pitch);
        }
    }
}

/// Bᵀ of six numbers.
#[inline(always)]
fn spread_tile<S: Simd>(simd: S, d: [S::Vector; 6]) -> [S::Vector; 6] {
    let (half, two, more) = (simd.all(0.5), simd.all(2.0), simd.all(2.5));
    let (long, short) = (simd.all(SQRT_2), simd.all(FRAC_1_SQRT_2));
    let even = simd.fnma(half, d[2], d[4]);
    let odd = simd.fnma(half, d[1], d[3]);
    let even2 = simd.fnma(two, d[2], d[4]);
    let odd2 = simd.fnma(two, d[1], d[3]);
    [
        simd.fnma(more, d[2], simd.add(d[0], d[4])),
        simd.fma(long, odd, even),
        simd.fnma(long, odd, even),
        simd.fma(short, odd2, even2),
        simd.fnma(short, odd2, even2),
        simd.fnma(more, d[3], simd.add(d[1], d[5])),
    ]
}

/// Aᵀ of six numbers.
#[inline(always)]
fn gather_outputs<S: Simd>(simd: S, m: [S::Vector; 6]) -> [S::Vector; 4] {
    let (half, two) = (simd.all(0.5), simd.all(2.0));
    let (long, short) = (simd.all(SQRT_2), simd.all(FRAC_1_SQRT_2));
    let (sum, sum2) = (simd.add(m[1], m[2]), simd.add(m[3], m[4]));
    let (odd, odd2) = (simd.mul(long, simd.sub(m[1], m[2])), simd.mul(short, simd.sub(m[3], m[4])));
    [
        simd.add(m[0], simd.add(sum, sum2)),
        simd.add(odd, odd2),
        simd.fma(two, sum, simd.mul(half, sum2)),
        simd.add(m[5], simd.fma(two, odd, simd.mul(half, odd2))),
    ]
}

/// A of four numbers.
#[inline(always)]
fn spread_gradients<S: Simd>(simd: S, g: [S::Vector; 4]) -> [S::Vector; 6] {
    let (half, two) = (simd.all(0.5), simd.all(2.0));
    let (long, short) = (simd.all(SQRT_2), simd.all(FRAC_1_SQRT_2));
    let (even, odd) = (simd.fma(two, g[2], g[0]), simd.fma(two, g[3], g[1]));
    let (even2, odd2) = (simd.fma(half, g[2], g[0]), simd.fma(half, g[3], g[1]));
    [
        g[0],
        simd.fma(long, odd, even),
        simd.fnma(long, odd, even),
        simd.fma(short, odd2, even2),
        simd.fnma(short, odd2, even2),
        g[3],
    ]
}

/// G of three numbers.
#[inline(always)]
fn spread_kernel<S: Simd>(simd: S, g: [S::Vector; 3]) -> [S::Vector; 6] {
    let (half, two) = (simd.all(0.5), simd.all(2.0));
    let (sixth, less) = (simd.all(1.0 / 6.0), simd.all(-1.0 / 1.5));
    let (long, short) = (simd.all(SQRT_2), simd.all(FRAC_1_SQRT_2));
    let (even, even2) = (simd.fma(two, g[2], g[0]), simd.fma(half, g[2], g[0]));
    [
        g[0],
        simd.mul(sixth, simd.fma(long, g[1], even)),
        simd.mul(sixth, simd.fnma(long, g[1], even)),
        simd.mul(less, simd.fma(short, g[1], even2)),
        simd.mul(less, simd.fnma(short, g[1], even2)),
        g[2],
    ]
}

/// Gᵀ of six sums.
#[inline(always)]
fn gather_taps<S: Simd>(simd: S, s: [S::Vector; 6]) -> [S::Vector; 3] {
    let (half, two) = (simd.all(0.5), simd.all(2.0));
    let (sixth, less) = (simd.all(1.0 / 6.0), simd.all(-1.0 / 1.5));
    let (long, short) = (simd.all(SQRT_2), simd.all(FRAC_1_SQRT_2));
    let (sum, sum2) = (simd.mul(sixth, simd.add(s[1], s[2])), simd.mul(less, simd.add(s[3], s[4])));
    let (odd, odd2) = (simd.mul(sixth, simd.sub(s[1], s[2])), simd.mul(less, simd.sub(s[3], s[4])));
    [
        simd.add(s[0], simd.add(sum, sum2)),
        simd.fma(long, odd, simd.mul(short, odd2)),
        simd.add(s[5], simd.fma(two, sum, simd.mul(half, sum2))),
    ]
}

/// Numbers of a tile after Bᵀ · B, `apart` from each other.
///
/// # Safety
/// Six rows of six registers may be read, 36 registers written.
#[inline(always)]
unsafe fn transform_tile<S: Simd>(simd: S, from: *const f32, row: usize, pixel: usize, to: *mut f32, apart: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut t = [[simd.zero(); SIDE]; SIDE];
        for (i, t) in t.iter_mut().enumerate() {
            *t = spread_tile(simd, std::array::from_fn(|j| simd.load(from.add(i * row + j * pixel))));
        }
        for j in 0..SIDE {
            for (i, v) in spread_tile(simd, std::array::from_fn(|i| t[i][j])).into_iter().enumerate() {
                simd.store(to.add((i * SIDE + j) * apart), v);
            }
        }
    }
}

/// The outputs Aᵀ · A of a tile's 36 numbers.
///
/// # Safety
/// 36 registers may be read.
#[inline(always)]
unsafe fn transform_output<S: Simd>(simd: S, from: *const f32, apart: usize) -> [[S::Vector; STEP]; STEP] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut t = [[simd.zero(); STEP]; SIDE];
        for (i, t) in t.iter_mut().enumerate() {
            *t = gather_outputs(simd, std::array::from_fn(|j| simd.load(from.add((i * SIDE + j) * apart))));
        }
        let columns: [[S::Vector; STEP]; STEP] =
            std::array::from_fn(|j| gather_outputs(simd, std::array::from_fn(|i| t[i][j])));
        std::array::from_fn(|i| std::array::from_fn(|j| columns[j][i]))
    }
}

/// The 36 numbers A · Aᵀ of a tile's output gradients.
///
/// # Safety
/// 36 registers may be written.
#[inline(always)]
unsafe fn transform_gradient<S: Simd>(simd: S, g: [[S::Vector; STEP]; STEP], to: *mut f32, apart: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let t = g.map(|g| spread_gradients(simd, g));
        for j in 0..SIDE {
            for (i, v) in spread_gradients(simd, std::array::from_fn(|i| t[i][j])).into_iter().enumerate() {
                simd.store(to.add((i * SIDE + j) * apart), v);
            }
        }
    }
}

/// out[t, v] = Σ_k a[t · a_row + k · a_step] · b[k, v] for T rows and V registers; added to what is there if `add`.
///
/// # Safety
/// `terms` numbers of T rows of `a`, as many rows of V registers of `b`, T rows of V registers of `out`.
unsafe fn block<S: Simd, const T: usize, const V: usize>(
    simd: S,
    terms: usize,
    (a, a_row, a_step): (*const f32, usize, usize),
    (b, b_step): (*const f32, usize),
    (out, out_row): (*mut f32, usize),
    add: bool,
) {
    // SAFETY: as the caller promises.
    simd.run(|| unsafe {
        let mut sums = [[simd.zero(); V]; T];
        let (mut a, mut b) = (a, b);
        for _ in 0..terms {
            let mut v = [simd.zero(); V];
            for (j, v) in v.iter_mut().enumerate() {
                *v = simd.load(b.add(j * S::LANES));
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = simd.all(*a.add(t * a_row));
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = simd.fma(x, v, *sum);
                }
            }
            a = a.add(a_step);
            b = b.add(b_step);
        }
        for (t, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let out = out.add(t * out_row + j * S::LANES);
                simd.store(out, if add { simd.add(simd.load(out), *sum) } else { *sum });
            }
        }
    });
}

/// Registers of outputs in one product: with the rows of [`rows_of`], as many sums as there are registers for.
fn most_vectors<S: Simd>() -> usize {
    if S::REGISTERS >= 32 { 4 } else { 2 }
}

/// Rows of the next [`block`] of so many registers, if so many rows are left. Over all rows of a product, they add up to what is
/// asked, rounded up to a multiple of two, four, eight or sixteen that divides a wide register.
fn rows_of<S: Simd>(left: usize, vectors: usize) -> usize {
    match (S::REGISTERS >= 32, vectors, left) {
        (true, 1, _) => 16,
        (true, 2 | 3, _) => 8,
        (true, ..) => 4,
        (false, 1, _) => 8,
        (false, _, 6..) => 6,
        (false, _, 3..) => 4,
        (false, ..) => 2,
    }
}

/// `rows` rows (rounded up) of V registers.
///
/// # Safety
/// As [`block`], for `rows` rounded up as [`rows_of`] does.
#[expect(clippy::too_many_arguments, reason = "three matrices with their sizes")]
unsafe fn product<S: Simd>(
    simd: S,
    rows: usize,
    terms: usize,
    (a, a_row, a_step): (*const f32, usize, usize),
    (b, b_step): (*const f32, usize),
    (out, out_row): (*mut f32, usize),
    add: bool,
    vectors: usize,
) {
    let mut row = 0;
    while row < rows {
        let next = rows_of::<S>(rows - row, vectors);
        // SAFETY: as the caller promises.
        unsafe {
            let (a, out) = ((a.add(row * a_row), a_row, a_step), (out.add(row * out_row), out_row));
            match (next, vectors) {
                (16, 1) => block::<S, 16, 1>(simd, terms, a, (b, b_step), out, add),
                (8, 1) => block::<S, 8, 1>(simd, terms, a, (b, b_step), out, add),
                (8, 2) => block::<S, 8, 2>(simd, terms, a, (b, b_step), out, add),
                (6, 2) => block::<S, 6, 2>(simd, terms, a, (b, b_step), out, add),
                (4, 2) => block::<S, 4, 2>(simd, terms, a, (b, b_step), out, add),
                (2, 2) => block::<S, 2, 2>(simd, terms, a, (b, b_step), out, add),
                (8, 3) => block::<S, 8, 3>(simd, terms, a, (b, b_step), out, add),
                (4, 4) => block::<S, 4, 4>(simd, terms, a, (b, b_step), out, add),
                _ => unreachable!("no block has {next} rows of {vectors} registers"),
            }
        }
        row += next;
    }
}

/// Cuts outputs into panels: (first output, registers).
fn panels<S: Simd>(outputs: usize) -> Vec<(usize, usize)> {
    let (vectors, most) = (outputs.div_ceil(S::LANES), most_vectors::<S>());
    (0..vectors).step_by(most).map(|first| (first * S::LANES, most.min(vectors - first))).collect()
}

/// G g Gᵀ for a register of outputs at once, `kernel` [tap, output]; the numbers lie `apart` from each other.
///
/// # Safety
/// Nine registers may be read, 36 written.
unsafe fn transform_kernel<S: Simd>(simd: S, kernel: *const f32, rotated: bool, to: *mut f32, apart: usize) {
    // SAFETY: as the caller promises.
    simd.run(|| unsafe {
        let mut g = [simd.zero(); 9];
        for (t, g) in g.iter_mut().enumerate() {
            *g = simd.load(kernel.add(if rotated { 8 - t } else { t } * S::LANES));
        }
        let t: [[S::Vector; SIDE]; 3] = std::array::from_fn(|i| spread_kernel(simd, [g[3 * i], g[3 * i + 1], g[3 * i + 2]]));
        for j in 0..SIDE {
            for (i, v) in spread_kernel(simd, [t[0][j], t[1][j], t[2][j]]).into_iter().enumerate() {
                simd.store(to.add((i * SIDE + j) * apart), v);
            }
        }
    });
}

/// Which kernel leads from a channel to an output.
#[derive(Clone, Copy)]
enum Way {
    /// Weights [O, C, 9] from C to O.
    Forward,
    /// Weights [C, O, 9] from C to O, rotated by 180°.
    Back,
}

/// All kernels, transformed: [panel, number, channel, output of the panel]; numbers of a panel are [`number_apart`]. What lies
/// between them, and before the first [`aligned`] one, is not written.
fn transform_kernels<S: Simd>(simd: S, channels: usize, outputs: usize, w: &[f32], way: Way) -> Vec<Place> {
    let all_panels = panels::<S>(outputs);
    let sizes: usize = all_panels.iter().map(|&(_, vectors)| NUMBERS * number_apart::<S>(channels, vectors)).sum();
    let mut all = room(None, sizes + LINE);
    let full = NUMBERS * number_apart::<S>(channels, most_vectors::<S>());
    aligned(&mut all)[..sizes].par_chunks_mut(full).zip(all_panels).for_each(|(panel, (first, vectors))| {
        transform_panel(simd, [channels, outputs], 0..channels, (first, vectors), w, way, panel);
    });
    all
}

/// The kernels of some channels and a panel's outputs, transformed: [number, channel, output of the panel].
fn transform_panel<S: Simd>(
    simd: S,
    [all_channels, outputs]: [usize; 2],
    channels: Range<usize>,
    (first, vectors): (usize, usize),
    w: &[f32],
    way: Way,
    panel: &mut [Place],
) {
    let apart = number_apart::<S>(channels.len(), vectors);
    let mut kernel = [0.0; 9 * WIDEST];
    for v in 0..vectors {
        let first = first + v * S::LANES;
        let count = S::LANES.min(outputs - first);
        for (row, c) in channels.clone().enumerate() {
            let (from, line, rotated) = match way {
                Way::Forward => ((first * all_channels + c) * 9, all_channels * 9, false),
                Way::Back => ((c * outputs + first) * 9, 9, true),
            };
            transpose_padded(simd, &w[from..], line, count, 9, &mut kernel, S::LANES);
            let to = &mut panel[row * vectors * S::LANES + v * S::LANES..];
            assert!(to.len() >= (NUMBERS - 1) * apart + S::LANES, "kernels out of bounds");
            // SAFETY: the numbers lie in the panel, as checked, and there are nine registers of the widest.
            unsafe { transform_kernel(simd, kernel.as_ptr(), rotated, to.as_mut_ptr().cast(), apart) };
        }
    }
}

/// Floats from one number's kernels to the next in a panel; a line more than needed, or powers of two would compete for the
/// same place in the cache.
fn number_apart<S: Simd>(channels: usize, vectors: usize) -> usize {
    channels * vectors * S::LANES + LINE
}

/// y [B,O,P] of x [B,C,H,W], added to `sum` if there is one.
fn multiply<S: Simd>(simd: S, s: &Shape, x: &[f32], w: &[f32], way: Way, sum: Option<Vec<f32>>) -> Vec<f32> {
    let grid = Grid::of(s);
    if s.batch == 1 && grid.tiles() <= TILES[1] {
        return multiply_one(simd, &grid, x, w, way, sum);
    }
    let mut kernels = transform_kernels(simd, s.channels, s.outputs, w, way);
    let kernels = &*aligned(&mut kernels);
    let panels = panels::<S>(s.outputs);
    let pitch = s.channels.next_multiple_of(S::LANES);
    let wide = panels[0].1 * S::LANES;
    let (group, height) = grid.cut(CACHE / 4 / NUMBERS / (pitch + wide));
    let most = (group * height * grid.columns).next_multiple_of(S::LANES);
    // Numbers are a whole number of lines apart that is no power of two.
    let (tile_apart, product_apart) = (most * pitch + LINE, most * wide + LINE);
    let sizes = [
        grid.pixels(height) * pitch + LINE,
        NUMBERS * tile_apart + LINE,
        NUMBERS * product_apart + STEP * STEP * height * grid.columns * wide + LINE,
    ];
    let (map, image) = (s.map(), s.image());
    let add = sum.is_some();
    let mut y = room(sum, s.batch * s.outputs * map);
    y.par_chunks_mut(group * s.outputs * map).zip(x.par_chunks(group * image)).for_each(|(y, x)| {
        with_scratch(sizes, |padded, tiles, products| {
            let (padded, tiles) = (aligned(padded), aligned(tiles));
            let (products, pixels) = aligned(products).split_at_mut(NUMBERS * product_apart);
            for rows in grid.pieces(height) {
                let per_image = rows.len() * grid.columns;
                let mut count = 0;
                for image in x.chunks_exact(image) {
                    grid.pad(simd, image, &rows, padded, pitch);
                    transform_tiles(simd, &grid, rows.len(), padded, pitch, pitch, &mut tiles[count * pitch..], tile_apart);
                    count += per_image;
                }
                for (panel, &(first, vectors)) in panels.iter().enumerate() {
                    let (width, apart) = (vectors * S::LANES, number_apart::<S>(s.channels, vectors));
                    let kernels =
                        &kernels[panel * NUMBERS * number_apart::<S>(s.channels, most_vectors::<S>())..][..NUMBERS * apart];
                    for (number, kernels) in kernels.chunks_exact(apart).enumerate() {
                        let kernels = &kernels[..s.channels * width];
                        let (tiles, products) = (&tiles[number * tile_apart..], &mut products[number * product_apart..]);
                        for (part, kernels) in kernels.chunks(TERMS * width).enumerate() {
                            let terms = kernels.len() / width;
                            // SAFETY: there is room for `most` tiles, a multiple of a block's rows, of
                            // `pitch` channels and `width` outputs.
                            unsafe {
                                product(
                                    simd,
                                    count,
                                    terms,
                                    (tiles[part * TERMS..].as_ptr(), pitch, 1),
                                    (kernels.as_ptr().cast(), width),
                                    (products.as_mut_ptr(), width),
                                    part > 0,
                                    vectors,
                                );
                            }
                        }
                    }
                    let outputs = width.min(s.outputs - first);
                    for (i, y) in y.chunks_exact_mut(s.outputs * map).enumerate() {
                        let count =
                            pixels_of(simd, &grid, &rows, &products[i * per_image * width..], product_apart, width, pixels);
                        let to = &mut y[first * map + STEP * rows.start * s.out_width..];
                        // SAFETY: if there is a sum, all of `y` holds its numbers.
                        unsafe { transpose_exact(simd, pixels, (width, count, outputs), to, map, add) };
                    }
                }
            }
        });
    });
    // SAFETY: the pixels of all tiles were written, for all outputs of all images.
    unsafe { written(y) }
}

/// The same for one image. Transformed kernels are used for few tiles, and would take longer to write to memory and to read again
/// than to multiply: a panel's are made when they are wanted, some channels at a time, and tasks are panels.
fn multiply_one<S: Simd>(simd: S, grid: &Grid, x: &[f32], w: &[f32], way: Way, sum: Option<Vec<f32>>) -> Vec<f32> {
    let s = &grid.shape;
    let (panels, map, count, rows) = (panels::<S>(s.outputs), s.map(), grid.tiles(), 0..grid.rows);
    let pitch = s.channels.next_multiple_of(S::LANES);
    let wide = panels[0].1 * S::LANES;
    let most = count.next_multiple_of(S::LANES);
    let (tile_apart, product_apart) = (most * pitch + LINE, most * wide + LINE);
    let mut tiles = vec![0.0; NUMBERS * tile_apart + LINE];
    let tiles = aligned(&mut tiles);
    with_scratch([grid.pixels(grid.rows) * pitch + LINE, 0, 0], |padded, _, _| {
        let padded = aligned(padded);
        grid.pad(simd, x, &rows, padded, pitch);
        transform_tiles(simd, grid, grid.rows, padded, pitch, pitch, tiles, tile_apart);
    });
    let tiles = &*tiles;
    let add = sum.is_some();
    let mut y = room(sum, s.outputs * map);
    y.par_chunks_mut(wide * map).zip(panels).for_each(|(y, (first, vectors))| {
        let (width, outputs) = (vectors * S::LANES, y.len() / map);
        let mut kernels = room(None, NUMBERS * number_apart::<S>(TERMS.min(s.channels), vectors) + LINE);
        let kernels = aligned(&mut kernels);
        with_scratch([NUMBERS * product_apart + LINE, map * wide, 0], |products, pixels, _| {
            let products = aligned(products);
            for channel in (0..s.channels).step_by(TERMS) {
                let terms = TERMS.min(s.channels - channel);
                let channels = channel..channel + terms;
                transform_panel(simd, [s.channels, s.outputs], channels, (first, vectors), w, way, kernels);
                let apart = number_apart::<S>(terms, vectors);
                for number in 0..NUMBERS {
                    let (tiles, kernels) =
                        (&tiles[number * tile_apart + channel..], &kernels[number * apart..][..terms * width]);
                    // SAFETY: there is room for `most` tiles, a multiple of a block's rows, of `pitch` channels and `width`
                    // outputs; the kernels of so many terms were just written.
                    unsafe {
                        product(
                            simd,
                            count,
                            terms,
                            (tiles.as_ptr(), pitch, 1),
                            (kernels.as_ptr().cast(), width),
                            (products[number * product_apart..].as_mut_ptr(), width),
                            channel > 0,
                            vectors,
                        );
                    }
                }
            }
            let count = pixels_of(simd, grid, &rows, products, product_apart, width, pixels);
            // SAFETY: if there is a sum, all of `y` holds its numbers.
            unsafe { transpose_exact(simd, pixels, (width, count, outputs), y, map, add) };
        });
    });
    // SAFETY: all pixels were written, for all outputs.
    unsafe { written(y) }
}

/// Transforms all tiles of a [`Grid::pad`]; `channels` is a multiple of 16.
#[expect(clippy::too_many_arguments, reason = "two buffers with the distances in them")]
fn transform_tiles<S: Simd>(
    simd: S,
    grid: &Grid,
    rows: usize,
    padded: &[f32],
    pitch: usize,
    channels: usize,
    tiles: &mut [f32],
    apart: usize,
) {
    let row = grid.width() * pitch;
    assert!(
        padded.len() >= grid.pixels(rows) * pitch
            && tiles.len() >= (NUMBERS - 1) * apart + rows * grid.columns * channels
            && channels <= pitch,
        "tiles out of bounds"
    );
    let (padded, mut to) = (padded.as_ptr(), tiles.as_mut_ptr());
    simd.run(|| {
        for ty in 0..rows {
            for tx in 0..grid.columns {
                for c in (0..channels).step_by(S::LANES) {
                    // SAFETY: six rows and columns from here lie in the padded, 36 numbers `apart` in `tiles`, as checked.
                    unsafe {
                        let from = padded.add(STEP * ty * row + STEP * tx * pitch + c);
                        transform_tile(simd, from, row, pitch, to.add(c), apart);
                    }
                }
                // SAFETY: one row of channels per tile, as checked.
                to = unsafe { to.add(channels) };
            }
        }
    });
}

/// Transforms products back to pixels [pixel, width]; how many pixels.
fn pixels_of<S: Simd>(
    simd: S,
    grid: &Grid,
    rows: &Range<usize>,
    products: &[f32],
    apart: usize,
    width: usize,
    pixels: &mut [f32],
) -> usize {
    let s = &grid.shape;
    let lines = (STEP * rows.end).min(s.out_height) - STEP * rows.start;
    assert!(
        products.len() >= (NUMBERS - 1) * apart + rows.len() * grid.columns * width
            && pixels.len() >= lines * s.out_width * width,
        "pixels out of bounds"
    );
    let (products, pixels) = (products.as_ptr(), pixels.as_mut_ptr());
    simd.run(|| {
        for ty in 0..rows.len() {
            for tx in 0..grid.columns {
                let tile = (ty * grid.columns + tx) * width;
                for c in (0..width).step_by(S::LANES) {
                    // SAFETY: 36 numbers per tile, `apart`, and only pixels of the map are written, as checked.
                    unsafe {
                        let square = transform_output(simd, products.add(tile + c), apart);
                        for (i, line) in square.into_iter().enumerate().take(lines - STEP * ty) {
                            for (j, v) in line.into_iter().enumerate().take(s.out_width - STEP * tx) {
                                let at = (STEP * ty + i) * s.out_width + STEP * tx + j;
                                simd.store(pixels.add(at * width + c), v);
                            }
                        }
                    }
                }
            }
        }
    });
    lines * s.out_width
}

/// dw [O,C,3,3]. Tasks are (part of the batch) x (slice of channels) x (slice of outputs); parts are added in order.
fn weight_gradient<S: Simd>(simd: S, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let grid = Grid::of(s);
    let [c_slice, o_slice] =
        [s.channels.next_multiple_of(S::LANES).min(SLICE[0]), s.outputs.next_multiple_of(S::LANES).min(SLICE[1])];
    let [c_slices, o_slices] = [s.channels.div_ceil(c_slice), s.outputs.div_ceil(o_slice)];
    let slices = c_slices * o_slices;
    let (group, height) = grid.cut(CACHE / 4 / NUMBERS / (c_slice + o_slice));
    let parts = 16usize.div_ceil(slices).min(s.batch.div_ceil(group));
    let part = s.batch.div_ceil(parts).next_multiple_of(group);
    let parts = s.batch.div_ceil(part);
    let most = group * height * grid.columns;
    let (tile_apart, gradient_apart) = (most * c_slice + LINE, most * o_slice + LINE);
    let (map, image) = (s.map(), s.image());
    let sizes = [
        grid.pixels(height) * c_slice + STEP * height * s.out_width * o_slice + LINE,
        NUMBERS * tile_apart + LINE,
        NUMBERS * gradient_apart + LINE,
    ];
    let sum_apart = c_slice * o_slice + LINE;
    let sums: Vec<Vec<f32>> = (0..parts * slices)
        .into_par_iter()
        .map(|task| {
            let images = task / slices * part..((task / slices + 1) * part).min(s.batch);
            let (c_first, o_first) = (task % slices / o_slices * c_slice, task % o_slices * o_slice);
            let (channels, outputs) = (c_slice.min(s.channels - c_first), o_slice.min(s.outputs - o_first));
            let (c_pitch, o_pitch) = (channels.next_multiple_of(S::LANES), outputs.next_multiple_of(S::LANES));
            let panels = panels::<S>(outputs);
            let mut sums = vec![0.0; NUMBERS * sum_apart + LINE];
            let all = aligned(&mut sums);
            with_scratch(sizes, |padded, tiles, gradients| {
                let (padded, pixels) = aligned(padded).split_at_mut(grid.pixels(height) * c_slice);
                let (tiles, gradients) = (aligned(tiles), aligned(gradients));
                for start in images.clone().step_by(group) {
                    let images = start..(start + group).min(images.end);
                    for rows in grid.pieces(height) {
                        let mut count = 0;
                        for i in images.clone() {
                            let x = &x[i * image + c_first * s.height * s.width..][..channels * s.height * s.width];
                            grid.pad(simd, x, &rows, padded, c_pitch);
                            transform_tiles(
                                simd,
                                &grid,
                                rows.len(),
                                padded,
                                c_pitch,
                                c_pitch,
                                &mut tiles[count * c_pitch..],
                                tile_apart,
                            );
                            let dy = &dy[(i * s.outputs + o_first) * map..][..outputs * map];
                            transform_gradients(
                                simd,
                                &grid,
                                &rows,
                                dy,
                                outputs,
                                pixels,
                                &mut gradients[count * o_pitch..],
                                gradient_apart,
                            );
                            count += rows.len() * grid.columns;
                        }
                        for number in 0..NUMBERS {
                            let (tiles, gradients) = (&tiles[number * tile_apart..], &gradients[number * gradient_apart..]);
                            let all = &mut all[number * sum_apart..];
                            for &(first, vectors) in &panels {
                                // SAFETY: `count` tiles of `c_pitch` channels, a multiple of a block's rows,
                                // and of `o_pitch` outputs; a sum for each.
                                unsafe {
                                    product(
                                        simd,
                                        c_pitch,
                                        count,
                                        (tiles.as_ptr(), 1, c_pitch),
                                        (gradients[first..].as_ptr(), o_pitch),
                                        (all[first..].as_mut_ptr(), o_slice),
                                        true,
                                        vectors,
                                    );
                                }
                            }
                        }
                    }
                }
            });
            sums
        })
        .collect();
    let mut dw = room(None, s.outputs * s.channels * 9);
    dw.par_chunks_mut(S::LANES * s.channels * 9).enumerate().for_each(|(i, dw)| {
        let o = i * S::LANES;
        let mut taps = vec![0.0; c_slice * 9 * S::LANES];
        for c_first in (0..s.channels).step_by(c_slice) {
            let slice = c_first / c_slice * o_slices + o / o_slice;
            let channels = c_slice.min(s.channels - c_first);
            let parts: Vec<&[f32]> = sums.iter().skip(slice).step_by(slices).map(|sums| &sums[from_line(sums)..]).collect();
            for (c, taps) in taps.chunks_exact_mut(9 * S::LANES).enumerate().take(channels) {
                let at = c * o_slice + o % o_slice;
                assert!(parts.iter().all(|part| part.len() >= at + (NUMBERS - 1) * sum_apart + S::LANES), "sums out of bounds");
                // SAFETY: 36 sums lie in each part, as checked, and nine taps in the chunk.
                unsafe { taps_of(simd, &parts, at, sum_apart, taps.as_mut_ptr()) };
            }
            let outputs = dw.len() / (s.channels * 9);
            // SAFETY: nothing is added.
            unsafe {
                transpose_exact(simd, &taps, (S::LANES, channels * 9, outputs), &mut dw[c_first * 9..], s.channels * 9, false);
            };
        }
    });
    // SAFETY: the taps of all outputs and channels were written.
    unsafe { written(dw) }
}

/// Transforms the output's gradient under some rows of tiles; [tile, outputs] per number.
#[expect(clippy::too_many_arguments, reason = "three buffers with the distances in them")]
fn transform_gradients<S: Simd>(
    simd: S,
    grid: &Grid,
    rows: &Range<usize>,
    dy: &[f32],
    outputs: usize,
    pixels: &mut [f32],
    gradients: &mut [f32],
    apart: usize,
) {
    let (s, pitch) = (&grid.shape, outputs.next_multiple_of(S::LANES));
    let lines = (STEP * rows.end).min(s.out_height) - STEP * rows.start;
    let map = s.map();
    transpose_padded(simd, &dy[STEP * rows.start * s.out_width..], map, outputs, lines * s.out_width, pixels, pitch);
    assert!(
        gradients.len() >= (NUMBERS - 1) * apart + rows.len() * grid.columns * pitch
            && pixels.len() >= lines * s.out_width * pitch,
        "gradients out of bounds"
    );
    let (pixels, gradients) = (pixels.as_ptr(), gradients.as_mut_ptr());
    simd.run(|| {
        for ty in 0..rows.len() {
            for tx in 0..grid.columns {
                let tile = (ty * grid.columns + tx) * pitch;
                for v in (0..pitch).step_by(S::LANES) {
                    // SAFETY: only pixels of the map are read, 36 numbers `apart` written, as checked.
                    unsafe {
                        let mut g = [[simd.zero(); STEP]; STEP];
                        for (i, g) in g.iter_mut().enumerate().take(lines - STEP * ty) {
                            for (j, g) in g.iter_mut().enumerate().take(s.out_width - STEP * tx) {
                                let at = (STEP * ty + i) * s.out_width + STEP * tx + j;
                                *g = simd.load(pixels.add(at * pitch + v));
                            }
                        }
                        transform_gradient(simd, g, gradients.add(tile + v), apart);
                    }
                }
            }
        }
    });
}

/// Adds 36 sums of some parts in order, and writes Gᵀ · G of them, [tap, output].
///
/// # Safety
/// In each part 36 registers, `apart` from each other, may be read from `at` on; nine may be written.
unsafe fn taps_of<S: Simd>(simd: S, parts: &[&[f32]], at: usize, apart: usize, to: *mut f32) {
    // SAFETY: as the caller promises.
    simd.run(|| unsafe {
        let sum = |number: usize| {
            let mut sum = simd.zero();
            for part in parts {
                sum = simd.add(sum, simd.load(part.as_ptr().add(at + number * apart)));
            }
            sum
        };
        let t: [[S::Vector; 3]; SIDE] = std::array::from_fn(|i| gather_taps(simd, std::array::from_fn(|j| sum(i * SIDE + j))));
        for j in 0..3 {
            for (i, v) in gather_taps(simd, std::array::from_fn(|i| t[i][j])).into_iter().enumerate() {
                simd.store(to.add((3 * i + j) * S::LANES), v);
            }
        }
    });
}
