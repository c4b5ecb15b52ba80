//! Winograd's fast 3 x 3 convolution, F(4 x 4, 3 x 3): 9 multiplications in place of 36 (AVX-512).
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
//! size is alike and only channels are padded (to 16): images are transposed to [pixel, channel] on the way in and back on the
//! way out, tile by tile in the cache.
//!
//! The points are 0, ±√2, ±1/√2 and ∞. With the usual 0, ±1, ±2, ∞ the result is ten times less exact than a direct sum; with
//! these, two to three times (measured for 16 to 512 channels), because no number is transformed by large factors.
//!
//! # Paper
//! Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016, section 4.1.
#![expect(unsafe_code, reason = "AVX-512 intrinsics on pointers; every block states its bounds")]
#![expect(clippy::large_types_passed_by_value, reason = "tiles live in registers: the functions are inlined")]
#![expect(clippy::needless_range_loop, reason = "indices are coordinates of a tile")]
#![expect(clippy::match_same_arms, reason = "a table: one line per case")]

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_fmadd_ps, _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps, _mm512_sub_ps,
};
use std::f32::consts::{FRAC_1_SQRT_2, SQRT_2};
use std::ops::Range;

use rayon::prelude::*;

use super::super::buffers::{Place, room, with_scratch, written};
use super::super::isa::Avx512;
use super::super::transpose::{LANES, transpose_exact, transpose_padded};
use super::Algorithm;
use super::shape::Shape;

/// Outputs along a tile's side.
const STEP: usize = 4;
/// Pixels along a tile's side.
const SIDE: usize = STEP + 2;
/// Numbers per tile.
const NUMBERS: usize = SIDE * SIDE;
/// Registers of outputs in one product.
const VECTORS: usize = 4;
/// Terms of a product at once: 128 rows of 4 registers are 32 KiB, two thirds of the first-level cache.
const TERMS: usize = 128;
/// Bytes of a task's transformed tiles and products: they stay in the second-level cache.
const CACHE: usize = 1792 * 1024;
/// Channels and outputs of a task of the weights' gradient.
const SLICE: [usize; 2] = [64, 128];
/// Channels and outputs at least: transforming a tile costs the same for a product with few terms (measured: 16 channels take
/// 1.5 times as long as a direct sum, 32 as long, 64 six tenths, 256 half).
const LEAST: usize = 48;
/// Kernels of a layer at most: 144 MiB when transformed.
const LARGEST: usize = 1024 * 1024;
/// Tiles of a task: at least so many, that the kernels are not read from far away for a few tiles, and at most.
const TILES: [usize; 2] = [64, 256];

/// Products of transformed tiles and kernels.
#[derive(Debug)]
pub(super) struct Winograd(pub(super) Avx512);

impl Algorithm for Winograd {
    fn computes(&self, s: &Shape) -> bool {
        (s.kernel, s.stride) == (3, 1) && s.padding <= 2
    }

    fn pays(&self, s: &Shape) -> bool {
        s.channels.min(s.outputs) >= LEAST
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
    fn pad(&self, isa: Avx512, image: &[f32], rows: &Range<usize>, out: &mut [f32], pitch: usize) {
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
            transpose_padded(isa, &image[y * s.width..], map, image.len() / map, s.width, &mut out[from * pitch..], pitch);
        }
    }
}

/// Bᵀ of six numbers.
#[target_feature(enable = "avx512f")]
#[inline]
fn spread_tile(d: [__m512; 6]) -> [__m512; 6] {
    let (half, two, more) = (_mm512_set1_ps(0.5), _mm512_set1_ps(2.0), _mm512_set1_ps(2.5));
    let (long, short) = (_mm512_set1_ps(SQRT_2), _mm512_set1_ps(FRAC_1_SQRT_2));
    let even = _mm512_fnmadd_ps(half, d[2], d[4]);
    let odd = _mm512_fnmadd_ps(half, d[1], d[3]);
    let even2 = _mm512_fnmadd_ps(two, d[2], d[4]);
    let odd2 = _mm512_fnmadd_ps(two, d[1], d[3]);
    [
        _mm512_fnmadd_ps(more, d[2], _mm512_add_ps(d[0], d[4])),
        _mm512_fmadd_ps(long, odd, even),
        _mm512_fnmadd_ps(long, odd, even),
        _mm512_fmadd_ps(short, odd2, even2),
        _mm512_fnmadd_ps(short, odd2, even2),
        _mm512_fnmadd_ps(more, d[3], _mm512_add_ps(d[1], d[5])),
    ]
}

/// Aᵀ of six numbers.
#[target_feature(enable = "avx512f")]
#[inline]
fn gather_outputs(m: [__m512; 6]) -> [__m512; 4] {
    let (half, two) = (_mm512_set1_ps(0.5), _mm512_set1_ps(2.0));
    let (long, short) = (_mm512_set1_ps(SQRT_2), _mm512_set1_ps(FRAC_1_SQRT_2));
    let (sum, sum2) = (_mm512_add_ps(m[1], m[2]), _mm512_add_ps(m[3], m[4]));
    let (odd, odd2) = (_mm512_mul_ps(long, _mm512_sub_ps(m[1], m[2])), _mm512_mul_ps(short, _mm512_sub_ps(m[3], m[4])));
    [
        _mm512_add_ps(m[0], _mm512_add_ps(sum, sum2)),
        _mm512_add_ps(odd, odd2),
        _mm512_fmadd_ps(two, sum, _mm512_mul_ps(half, sum2)),
        _mm512_add_ps(m[5], _mm512_fmadd_ps(two, odd, _mm512_mul_ps(half, odd2))),
    ]
}

/// A of four numbers.
#[target_feature(enable = "avx512f")]
#[inline]
fn spread_gradients(g: [__m512; 4]) -> [__m512; 6] {
    let (half, two) = (_mm512_set1_ps(0.5), _mm512_set1_ps(2.0));
    let (long, short) = (_mm512_set1_ps(SQRT_2), _mm512_set1_ps(FRAC_1_SQRT_2));
    let (even, odd) = (_mm512_fmadd_ps(two, g[2], g[0]), _mm512_fmadd_ps(two, g[3], g[1]));
    let (even2, odd2) = (_mm512_fmadd_ps(half, g[2], g[0]), _mm512_fmadd_ps(half, g[3], g[1]));
    [
        g[0],
        _mm512_fmadd_ps(long, odd, even),
        _mm512_fnmadd_ps(long, odd, even),
        _mm512_fmadd_ps(short, odd2, even2),
        _mm512_fnmadd_ps(short, odd2, even2),
        g[3],
    ]
}

/// G of three numbers.
#[target_feature(enable = "avx512f")]
#[inline]
fn spread_kernel(g: [__m512; 3]) -> [__m512; 6] {
    let (half, two) = (_mm512_set1_ps(0.5), _mm512_set1_ps(2.0));
    let (sixth, less) = (_mm512_set1_ps(1.0 / 6.0), _mm512_set1_ps(-1.0 / 1.5));
    let (long, short) = (_mm512_set1_ps(SQRT_2), _mm512_set1_ps(FRAC_1_SQRT_2));
    let (even, even2) = (_mm512_fmadd_ps(two, g[2], g[0]), _mm512_fmadd_ps(half, g[2], g[0]));
    [
        g[0],
        _mm512_mul_ps(sixth, _mm512_fmadd_ps(long, g[1], even)),
        _mm512_mul_ps(sixth, _mm512_fnmadd_ps(long, g[1], even)),
        _mm512_mul_ps(less, _mm512_fmadd_ps(short, g[1], even2)),
        _mm512_mul_ps(less, _mm512_fnmadd_ps(short, g[1], even2)),
        g[2],
    ]
}

/// Gᵀ of six sums.
#[target_feature(enable = "avx512f")]
#[inline]
fn gather_taps(s: [__m512; 6]) -> [__m512; 3] {
    let (half, two) = (_mm512_set1_ps(0.5), _mm512_set1_ps(2.0));
    let (sixth, less) = (_mm512_set1_ps(1.0 / 6.0), _mm512_set1_ps(-1.0 / 1.5));
    let (long, short) = (_mm512_set1_ps(SQRT_2), _mm512_set1_ps(FRAC_1_SQRT_2));
    let (sum, sum2) = (_mm512_mul_ps(sixth, _mm512_add_ps(s[1], s[2])), _mm512_mul_ps(less, _mm512_add_ps(s[3], s[4])));
    let (odd, odd2) = (_mm512_mul_ps(sixth, _mm512_sub_ps(s[1], s[2])), _mm512_mul_ps(less, _mm512_sub_ps(s[3], s[4])));
    [
        _mm512_add_ps(s[0], _mm512_add_ps(sum, sum2)),
        _mm512_fmadd_ps(long, odd, _mm512_mul_ps(short, odd2)),
        _mm512_add_ps(s[5], _mm512_fmadd_ps(two, sum, _mm512_mul_ps(half, sum2))),
    ]
}

/// Numbers of a tile after Bᵀ · B, `apart` from each other.
///
/// # Safety
/// AVX-512F; six rows of six registers may be read, 36 registers written.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transform_tile(from: *const f32, row: usize, pixel: usize, to: *mut f32, apart: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut t = [[_mm512_setzero_ps(); SIDE]; SIDE];
        for (i, t) in t.iter_mut().enumerate() {
            *t = spread_tile(std::array::from_fn(|j| _mm512_loadu_ps(from.add(i * row + j * pixel))));
        }
        for j in 0..SIDE {
            for (i, v) in spread_tile(std::array::from_fn(|i| t[i][j])).into_iter().enumerate() {
                _mm512_storeu_ps(to.add((i * SIDE + j) * apart), v);
            }
        }
    }
}

/// The outputs Aᵀ · A of a tile's 36 numbers.
///
/// # Safety
/// AVX-512F; 36 registers may be read.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transform_output(from: *const f32, apart: usize) -> [[__m512; STEP]; STEP] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut t = [[_mm512_setzero_ps(); STEP]; SIDE];
        for (i, t) in t.iter_mut().enumerate() {
            *t = gather_outputs(std::array::from_fn(|j| _mm512_loadu_ps(from.add((i * SIDE + j) * apart))));
        }
        let columns: [[__m512; STEP]; STEP] = std::array::from_fn(|j| gather_outputs(std::array::from_fn(|i| t[i][j])));
        std::array::from_fn(|i| std::array::from_fn(|j| columns[j][i]))
    }
}

/// The 36 numbers A · Aᵀ of a tile's output gradients.
///
/// # Safety
/// AVX-512F; 36 registers may be written.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transform_gradient(g: [[__m512; STEP]; STEP], to: *mut f32, apart: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let t = g.map(|g| spread_gradients(g));
        for j in 0..SIDE {
            for (i, v) in spread_gradients(std::array::from_fn(|i| t[i][j])).into_iter().enumerate() {
                _mm512_storeu_ps(to.add((i * SIDE + j) * apart), v);
            }
        }
    }
}

/// out[t, v] = Σ_k a[t · a_row + k · a_step] · b[k, v] for T rows and V registers; added to what is there if `add`.
///
/// # Safety
/// AVX-512F; `terms` numbers of T rows of `a`, as many rows of V registers of `b`, T rows of V registers of `out`.
#[target_feature(enable = "avx512f")]
unsafe fn block<const T: usize, const V: usize>(
    terms: usize,
    (a, a_row, a_step): (*const f32, usize, usize),
    (b, b_step): (*const f32, usize),
    (out, out_row): (*mut f32, usize),
    add: bool,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; T];
        let (mut a, mut b) = (a, b);
        for _ in 0..terms {
            let mut v = [_mm512_setzero_ps(); V];
            for (j, v) in v.iter_mut().enumerate() {
                *v = _mm512_loadu_ps(b.add(j * LANES));
            }
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(t * a_row));
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = _mm512_fmadd_ps(x, v, *sum);
                }
            }
            a = a.add(a_step);
            b = b.add(b_step);
        }
        for (t, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let out = out.add(t * out_row + j * LANES);
                _mm512_storeu_ps(out, if add { _mm512_add_ps(_mm512_loadu_ps(out), *sum) } else { *sum });
            }
        }
    }
}

/// Rows of a [`block`] for so many registers. They divide 16, so channels need no more padding.
fn rows_of(vectors: usize) -> usize {
    match vectors {
        1 => 16,
        2 => 8,
        3 => 8,
        _ => 4,
    }
}

/// `rows` rows (rounded up) of V registers.
///
/// # Safety
/// As [`block`], for `rows` rounded up to [`rows_of`].
unsafe fn product(
    rows: usize,
    terms: usize,
    (a, a_row, a_step): (*const f32, usize, usize),
    (b, b_step): (*const f32, usize),
    (out, out_row): (*mut f32, usize),
    add: bool,
    vectors: usize,
) {
    for row in (0..rows).step_by(rows_of(vectors)) {
        // SAFETY: as the caller promises.
        unsafe {
            let (a, out) = ((a.add(row * a_row), a_row, a_step), (out.add(row * out_row), out_row));
            match vectors {
                1 => block::<16, 1>(terms, a, (b, b_step), out, add),
                2 => block::<8, 2>(terms, a, (b, b_step), out, add),
                3 => block::<8, 3>(terms, a, (b, b_step), out, add),
                _ => block::<4, 4>(terms, a, (b, b_step), out, add),
            }
        }
    }
}

/// Cuts outputs into panels of at most four registers: (first output, registers).
fn panels(outputs: usize) -> Vec<(usize, usize)> {
    let vectors = outputs.div_ceil(LANES);
    (0..vectors).step_by(VECTORS).map(|first| (first * LANES, VECTORS.min(vectors - first))).collect()
}

/// G g Gᵀ for 16 outputs at once, `kernel` [tap, output]; the numbers lie `apart` from each other.
///
/// # Safety
/// AVX-512F; 36 registers may be written.
#[target_feature(enable = "avx512f")]
unsafe fn transform_kernel(kernel: &[f32; 9 * LANES], rotated: bool, to: *mut f32, apart: usize) {
    // SAFETY: as the caller promises; the nine rows are registers.
    unsafe {
        let g: [__m512; 9] =
            std::array::from_fn(|t| _mm512_loadu_ps(kernel.as_ptr().add(if rotated { 8 - t } else { t } * LANES)));
        let t: [[__m512; SIDE]; 3] = std::array::from_fn(|i| spread_kernel([g[3 * i], g[3 * i + 1], g[3 * i + 2]]));
        for j in 0..SIDE {
            for (i, v) in spread_kernel([t[0][j], t[1][j], t[2][j]]).into_iter().enumerate() {
                _mm512_storeu_ps(to.add((i * SIDE + j) * apart), v);
            }
        }
    }
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
fn transform_kernels(isa: Avx512, channels: usize, outputs: usize, w: &[f32], way: Way) -> Vec<Place> {
    let all_panels = panels(outputs);
    let sizes: usize = all_panels.iter().map(|&(_, vectors)| NUMBERS * number_apart(channels, vectors)).sum();
    let mut all = room(None, sizes + LINE);
    let full = NUMBERS * number_apart(channels, VECTORS);
    aligned(&mut all)[..sizes].par_chunks_mut(full).zip(all_panels).for_each(|(panel, (first, vectors))| {
        let apart = number_apart(channels, vectors);
        let mut kernel = [0.0; 9 * LANES];
        for v in 0..vectors {
            let first = first + v * LANES;
            let count = LANES.min(outputs - first);
            for c in 0..channels {
                let rotated = match way {
                    Way::Forward => {
                        transpose_padded(isa, &w[(first * channels + c) * 9..], channels * 9, count, 9, &mut kernel, LANES);
                        false
                    }
                    Way::Back => {
                        transpose_padded(isa, &w[(c * outputs + first) * 9..], 9, count, 9, &mut kernel, LANES);
                        true
                    }
                };
                let to = &mut panel[c * vectors * LANES + v * LANES..];
                assert!(to.len() >= (NUMBERS - 1) * apart + LANES, "kernels out of bounds");
                // SAFETY: AVX-512 is proven; the numbers lie in the panel, as checked.
                unsafe { transform_kernel(&kernel, rotated, to.as_mut_ptr().cast(), apart) };
            }
        }
    });
    all
}

/// Floats from one number's kernels to the next in a panel; a line more than needed, or powers of two would compete for the
/// same place in the cache.
fn number_apart(channels: usize, vectors: usize) -> usize {
    channels * vectors * LANES + LINE
}

/// y [B,O,P] of x [B,C,H,W], added to `sum` if there is one.
fn multiply(isa: Avx512, s: &Shape, x: &[f32], w: &[f32], way: Way, sum: Option<Vec<f32>>) -> Vec<f32> {
    let grid = Grid::of(s);
    let mut kernels = transform_kernels(isa, s.channels, s.outputs, w, way);
    let kernels = &*aligned(&mut kernels);
    let panels = panels(s.outputs);
    let pitch = s.channels.next_multiple_of(LANES);
    let wide = panels[0].1 * LANES;
    let (group, height) = grid.cut(CACHE / 4 / NUMBERS / (pitch + wide));
    let most = (group * height * grid.columns).next_multiple_of(LANES);
    // Numbers are a whole number of lines apart that is no power of two.
    let (tile_apart, product_apart) = (most * pitch + LANES, most * wide + LANES);
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
                    grid.pad(isa, image, &rows, padded, pitch);
                    transform_tiles(isa, &grid, rows.len(), padded, pitch, pitch, &mut tiles[count * pitch..], tile_apart);
                    count += per_image;
                }
                for (panel, &(first, vectors)) in panels.iter().enumerate() {
                    let (width, apart) = (vectors * LANES, number_apart(s.channels, vectors));
                    let kernels = &kernels[panel * NUMBERS * number_apart(s.channels, VECTORS)..][..NUMBERS * apart];
                    for (number, kernels) in kernels.chunks_exact(apart).enumerate() {
                        let kernels = &kernels[..s.channels * width];
                        let (tiles, products) = (&tiles[number * tile_apart..], &mut products[number * product_apart..]);
                        for (part, kernels) in kernels.chunks(TERMS * width).enumerate() {
                            let terms = kernels.len() / width;
                            // SAFETY: AVX-512 is proven; there is room for `most` tiles, a multiple of a block's rows, of
                            // `pitch` channels and `width` outputs.
                            unsafe {
                                product(
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
                            pixels_of(isa, &grid, &rows, &products[i * per_image * width..], product_apart, width, pixels);
                        let to = &mut y[first * map + STEP * rows.start * s.out_width..];
                        // SAFETY: if there is a sum, all of `y` holds its numbers.
                        unsafe { transpose_exact(isa, pixels, (width, count, outputs), to, map, add) };
                    }
                }
            }
        });
    });
    // SAFETY: the pixels of all tiles were written, for all outputs of all images.
    unsafe { written(y) }
}

/// Transforms all tiles of a [`Grid::pad`]; `channels` is a multiple of 16.
#[expect(clippy::too_many_arguments, reason = "two buffers with the distances in them")]
fn transform_tiles(
    _: Avx512,
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
    let mut to = tiles.as_mut_ptr();
    for ty in 0..rows {
        for tx in 0..grid.columns {
            let from = padded[STEP * ty * row + STEP * tx * pitch..].as_ptr();
            for c in (0..channels).step_by(LANES) {
                // SAFETY: AVX-512 is proven; six rows and columns from here lie in the padded, 36 numbers `apart` in `tiles`,
                // as checked.
                unsafe { transform_tile(from.add(c), row, pitch, to.add(c), apart) };
            }
            // SAFETY: one row of channels per tile, as checked.
            to = unsafe { to.add(channels) };
        }
    }
}

/// Transforms products back to pixels [pixel, width]; how many pixels.
fn pixels_of(
    _: Avx512,
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
    for ty in 0..rows.len() {
        for tx in 0..grid.columns {
            let tile = (ty * grid.columns + tx) * width;
            for c in (0..width).step_by(LANES) {
                // SAFETY: AVX-512 is proven; 36 numbers per tile, `apart`, and only pixels of the map are written, as checked.
                unsafe {
                    let square = transform_output(products.as_ptr().add(tile + c), apart);
                    for (i, line) in square.into_iter().enumerate().take(lines - STEP * ty) {
                        for (j, v) in line.into_iter().enumerate().take(s.out_width - STEP * tx) {
                            let at = (STEP * ty + i) * s.out_width + STEP * tx + j;
                            _mm512_storeu_ps(pixels.as_mut_ptr().add(at * width + c), v);
                        }
                    }
                }
            }
        }
    }
    lines * s.out_width
}

/// dw [O,C,3,3]. Tasks are (part of the batch) x (slice of channels) x (slice of outputs); parts are added in order.
fn weight_gradient(isa: Avx512, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let grid = Grid::of(s);
    let [c_slice, o_slice] =
        [s.channels.next_multiple_of(LANES).min(SLICE[0]), s.outputs.next_multiple_of(LANES).min(SLICE[1])];
    let [c_slices, o_slices] = [s.channels.div_ceil(c_slice), s.outputs.div_ceil(o_slice)];
    let slices = c_slices * o_slices;
    let (group, height) = grid.cut(CACHE / 4 / NUMBERS / (c_slice + o_slice));
    let parts = 16usize.div_ceil(slices).min(s.batch.div_ceil(group));
    let part = s.batch.div_ceil(parts).next_multiple_of(group);
    let parts = s.batch.div_ceil(part);
    let most = group * height * grid.columns;
    let (tile_apart, gradient_apart) = (most * c_slice + LANES, most * o_slice + LANES);
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
            let (c_pitch, o_pitch) = (channels.next_multiple_of(LANES), outputs.next_multiple_of(LANES));
            let panels = panels(outputs);
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
                            grid.pad(isa, x, &rows, padded, c_pitch);
                            transform_tiles(
                                isa,
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
                                isa,
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
                                // SAFETY: AVX-512 is proven; `count` tiles of `c_pitch` channels, a multiple of a block's rows,
                                // and of `o_pitch` outputs; a sum for each.
                                unsafe {
                                    product(
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
    dw.par_chunks_mut(LANES * s.channels * 9).enumerate().for_each(|(i, dw)| {
        let o = i * LANES;
        let mut taps = vec![0.0; c_slice * 9 * LANES];
        for c_first in (0..s.channels).step_by(c_slice) {
            let slice = c_first / c_slice * o_slices + o / o_slice;
            let channels = c_slice.min(s.channels - c_first);
            let parts: Vec<&[f32]> = sums.iter().skip(slice).step_by(slices).map(|sums| &sums[from_line(sums)..]).collect();
            for (c, taps) in taps.chunks_exact_mut(9 * LANES).enumerate().take(channels) {
                let at = c * o_slice + o % o_slice;
                assert!(parts.iter().all(|part| part.len() >= at + (NUMBERS - 1) * sum_apart + LANES), "sums out of bounds");
                // SAFETY: AVX-512 is proven; 36 sums lie in each part, as checked, and nine taps in the chunk.
                unsafe { taps_of(&parts, at, sum_apart, taps.as_mut_ptr()) };
            }
            let outputs = dw.len() / (s.channels * 9);
            // SAFETY: nothing is added.
            unsafe {
                transpose_exact(isa, &taps, (LANES, channels * 9, outputs), &mut dw[c_first * 9..], s.channels * 9, false);
            };
        }
    });
    // SAFETY: the taps of all outputs and channels were written.
    unsafe { written(dw) }
}

/// Transforms the output's gradient under some rows of tiles; [tile, outputs] per number.
#[expect(clippy::too_many_arguments, reason = "three buffers with the distances in them")]
fn transform_gradients(
    isa: Avx512,
    grid: &Grid,
    rows: &Range<usize>,
    dy: &[f32],
    outputs: usize,
    pixels: &mut [f32],
    gradients: &mut [f32],
    apart: usize,
) {
    let (s, pitch) = (&grid.shape, outputs.next_multiple_of(LANES));
    let lines = (STEP * rows.end).min(s.out_height) - STEP * rows.start;
    let map = s.map();
    transpose_padded(isa, &dy[STEP * rows.start * s.out_width..], map, outputs, lines * s.out_width, pixels, pitch);
    assert!(
        gradients.len() >= (NUMBERS - 1) * apart + rows.len() * grid.columns * pitch
            && pixels.len() >= lines * s.out_width * pitch,
        "gradients out of bounds"
    );
    for ty in 0..rows.len() {
        for tx in 0..grid.columns {
            let tile = (ty * grid.columns + tx) * pitch;
            for v in (0..pitch).step_by(LANES) {
                // SAFETY: AVX-512 is proven; only pixels of the map are read, 36 numbers `apart` written, as checked.
                unsafe {
                    let mut g = [[_mm512_setzero_ps(); STEP]; STEP];
                    for (i, g) in g.iter_mut().enumerate().take(lines - STEP * ty) {
                        for (j, g) in g.iter_mut().enumerate().take(s.out_width - STEP * tx) {
                            let at = (STEP * ty + i) * s.out_width + STEP * tx + j;
                            *g = _mm512_loadu_ps(pixels.as_ptr().add(at * pitch + v));
                        }
                    }
                    transform_gradient(g, gradients.as_mut_ptr().add(tile + v), apart);
                }
            }
        }
    }
}

/// Adds 36 sums of some parts in order, and writes Gᵀ · G of them, [tap, output].
///
/// # Safety
/// AVX-512F; in each part 36 registers, `apart` from each other, may be read from `at` on; nine may be written.
#[target_feature(enable = "avx512f")]
unsafe fn taps_of(parts: &[&[f32]], at: usize, apart: usize, to: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let sum = |number: usize| {
            let mut sum = _mm512_setzero_ps();
            for part in parts {
                sum = _mm512_add_ps(sum, _mm512_loadu_ps(part.as_ptr().add(at + number * apart)));
            }
            sum
        };
        let t: [[__m512; 3]; SIDE] = std::array::from_fn(|i| gather_taps(std::array::from_fn(|j| sum(i * SIDE + j))));
        for j in 0..3 {
            for (i, v) in gather_taps(std::array::from_fn(|i| t[i][j])).into_iter().enumerate() {
                _mm512_storeu_ps(to.add((3 * i + j) * LANES), v);
            }
        }
    }
}
