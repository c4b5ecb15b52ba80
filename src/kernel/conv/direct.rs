//! Convolution without stride as a product with a table of offsets, so that the unfolded input is never written down (AVX-512).
//!
//! In a copy of the image with its border of zeros ("flat"), the pixels that one tap of the kernel meets lie one after the
//! other, for a whole map: output position `n` meets `flat[n + offset(tap)]`. So the unfolded matrix is a table of offsets, and
//! the product
//!
//! ```text
//! y[o, n] = Σ over taps k of w[o, k] · flat[n + offset(k)]
//! ```
//!
//! needs no second copy. A row of the flat map is one pixel longer than the image's row; the results in between are computed
//! and dropped, 3 % at a width of 32. On maps of less than [`NARROW`] pixels width the waste would be larger than the price of
//! a copy: there, 48 positions at a time (of several images) are gathered into a panel first, and the same product runs over
//! the panel.
//!
//! The input's gradient is the same with the kernel rotated by 180°. The weights' gradient has its own product: lanes over
//! output channels, `dw[k, o] += flat[n + offset(k)] · dyᵀ[n, o]`.
//!
//! Without stride only; `strided` does the others. And with AVX-512 only: 16 registers hold too few sums for the price of writing
//! pieces with masks, and both `winograd` and `strided` are faster (measured for 3, 16 and 32 channels).
#![expect(unsafe_code, reason = "AVX-512 intrinsics on pointers; every block states its bounds")]

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mask_loadu_ps, _mm512_mask_storeu_ps, _mm512_set1_ps,
    _mm512_setzero_ps, _mm512_storeu_ps,
};

use rayon::prelude::*;

use super::super::buffers::{room, with_scratch, written};
use super::super::isa::Avx512;
use super::super::transpose::transpose_padded;
use super::Algorithm;
use super::reduce::{best_vectors, sum_of_parts};
use super::shape::Shape;
use super::strided::copy_rows;

/// Numbers in a register.
const LANES: usize = 16;

/// Registers of positions per block.
const VECTORS: usize = 3;
/// Positions per block.
const BLOCK: usize = LANES * VECTORS;
/// Outputs per block: 8 · 3 sums, 3 loads, the rest for the compiler.
const ROWS: usize = 8;
/// Taps per block of the weight gradient: 9 · 3 sums.
const TAPS: usize = 9;
/// Maps narrower than this go through panels.
const NARROW: usize = 12;
/// Floats of flat input that a task prepares at once: 1 MiB, half of the second-level cache.
const FLAT: usize = 256 * 1024;
/// A read past the last position stays inside this.
const SLACK: usize = 2 * BLOCK;

/// Products with tables of offsets.
#[derive(Debug)]
pub(super) struct Direct(pub(super) Avx512);

impl Algorithm for Direct {
    /// Neither the convolution nor its input's gradient may have a stride.
    fn computes(&self, s: &Shape) -> bool {
        s.backwards().is_some()
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
        let Some(back) = s.backwards() else { unreachable!("`computes` wants no stride and little padding") };
        multiply(self.0, &back, dy, |c, k| w[(k / area * s.channels + c) * area + area - 1 - k % area], sum)
    }

    fn weight_gradient(&self, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
        weight_gradient(self.0, s, x, dy)
    }
}

/// Lanes of a register and where they go to or come from: lane `l` of `mask` ↔ `at + l`.
#[derive(Clone, Copy, Default)]
struct Piece {
    mask: u16,
    at: isize,
}

/// Cuts positions into registers, and each register into runs of neighbors in memory. `place` says where a position lies;
/// `None` is nowhere.
fn pieces(positions: usize, place: impl Fn(usize) -> Option<usize>) -> Vec<Vec<Piece>> {
    (0..positions.div_ceil(LANES))
        .map(|vector| {
            let mut runs: Vec<Piece> = Vec::new();
            for lane in 0..LANES.min(positions - vector * LANES) {
                let Some(place) = place(vector * LANES + lane) else { continue };
                let at = place as isize - lane as isize;
                match runs.last_mut() {
                    Some(run) if run.at == at => run.mask |= 1 << lane,
                    _ => runs.push(Piece { mask: 1 << lane, at }),
                }
            }
            runs
        })
        .collect()
}

/// out[row, piece(n)] = Σ_k left[k, row] · right[n + offsets[k]] for 8 rows and V registers of positions, or += if `add`.
///
/// # Safety
/// AVX-512F; `left` holds 8 numbers per offset; `right` may be read from each offset on for V registers; each piece's lanes may
/// be written, in `rows` rows `pitch` apart.
#[target_feature(enable = "avx512f")]
unsafe fn block<const V: usize>(
    offsets: &[u32],
    left: *const f32,
    right: *const f32,
    out: *mut f32,
    pitch: usize,
    rows: usize,
    (pieces, add): (&[Vec<Piece>], bool),
) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
        let mut left = left;
        for &offset in offsets {
            let right = right.add(offset as usize);
            let mut v = [_mm512_setzero_ps(); V];
            for (j, v) in v.iter_mut().enumerate() {
                *v = _mm512_loadu_ps(right.add(j * LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let w = _mm512_set1_ps(*left.add(i));
                for (sum, v) in sums.iter_mut().zip(v) {
                    *sum = _mm512_fmadd_ps(w, v, *sum);
                }
            }
            left = left.add(ROWS);
        }
        for (j, runs) in pieces.iter().enumerate().take(V) {
            for run in runs {
                for (i, sums) in sums.iter().enumerate().take(rows) {
                    let to = out.wrapping_add(i * pitch).wrapping_offset(run.at);
                    let there = if add { _mm512_mask_loadu_ps(_mm512_setzero_ps(), run.mask, to) } else { _mm512_setzero_ps() };
                    _mm512_mask_storeu_ps(to, run.mask, if add { _mm512_add_ps(there, sums[j]) } else { sums[j] });
                }
            }
        }
    }
}

/// One to three registers.
///
/// # Safety
/// As [`block`], for as many registers as there are pieces.
unsafe fn blocks(
    offsets: &[u32],
    left: *const f32,
    right: *const f32,
    out: *mut f32,
    pitch: usize,
    rows: usize,
    (pieces, add): (&[Vec<Piece>], bool),
) {
    // SAFETY: as the caller promises.
    unsafe {
        match pieces.len() {
            1 => block::<1>(offsets, left, right, out, pitch, rows, (pieces, add)),
            2 => block::<2>(offsets, left, right, out, pitch, rows, (pieces, add)),
            _ => block::<3>(offsets, left, right, out, pitch, rows, (pieces, add)),
        }
    }
}

/// Gathers three registers of positions for each tap into a panel [taps, 48].
///
/// # Safety
/// AVX-512F; the pieces' lanes may be read from every offset on; the panel has 48 numbers per offset.
#[target_feature(enable = "avx512f")]
unsafe fn gather_panel(offsets: &[u32], flat: *const f32, pieces: &[Vec<Piece>], panel: *mut f32) {
    // SAFETY: as the caller promises; masked lanes are not touched.
    unsafe {
        for (k, &offset) in offsets.iter().enumerate() {
            let flat = flat.add(offset as usize);
            for (j, runs) in pieces.iter().enumerate() {
                let mut v = _mm512_setzero_ps();
                for run in runs {
                    v = _mm512_mask_loadu_ps(v, run.mask, flat.wrapping_offset(run.at));
                }
                _mm512_storeu_ps(panel.add(k * BLOCK + j * LANES), v);
            }
        }
    }
}

/// Flat copies of images: the geometry.
#[derive(Clone, Copy)]
struct Flat {
    channels: usize,
    height: usize,
    width: usize,
    /// Zeros before the first row and column.
    before: usize,
    /// Row length of a plane.
    row: usize,
    /// Size of a channel.
    plane: usize,
}

impl Flat {
    /// For the taps of a convolution.
    fn of(s: &Shape) -> Self {
        // The border on the right is the border on the left of the next row.
        let row = (s.width + s.padding).max(s.out_width);
        let plane = row * (s.height + 2 * s.padding + 1);
        Self { channels: s.channels, height: s.height, width: s.width, before: s.padding, row, plane }
    }

    fn image(&self) -> usize {
        self.channels * self.plane
    }

    /// Copies channels of an image into their planes, over another image or over zeros.
    fn fill(&self, isa: Avx512, image: &[f32], out: &mut [f32]) {
        assert!(
            self.before * self.row + self.before + (self.height - 1) * self.row + self.width <= self.plane,
            "the image is larger than its plane"
        );
        for (input, plane) in image.chunks_exact(self.height * self.width).zip(out.chunks_exact_mut(self.plane)) {
            let plane = &mut plane[self.before * self.row + self.before..];
            // SAFETY: `height` rows of `width` are there on both sides, as just checked.
            unsafe { copy_rows(isa, input.as_ptr(), self.height, self.width, plane.as_mut_ptr(), self.row) };
        }
    }

    /// Where tap (c, ky, kx) of output position 0 lies.
    fn tap(&self, c: usize, ky: usize, kx: usize) -> u32 {
        (c * self.plane + ky * self.row + kx) as u32
    }

    /// The bound on which the reads rely.
    fn check(&self, offsets: &[u32], positions: usize) {
        let last = offsets.iter().max().map_or(0, |&offset| offset as usize) + positions;
        assert!(last < self.image() + SLACK, "taps reach {last}, the flat image has {} numbers", self.image());
    }

    /// All taps of `channels` channels, in the order of the weights.
    fn taps(&self, channels: usize, kernel: usize) -> Vec<u32> {
        (0..channels).flat_map(|c| (0..kernel * kernel).map(move |t| self.tap(c, t / kernel, t % kernel))).collect()
    }
}

/// Packs a matrix into blocks of 8 rows, [rows/8, taps, 8], zeros beyond.
fn pack(rows: usize, taps: usize, at: impl Fn(usize, usize) -> f32 + Sync) -> Vec<f32> {
    if taps == 0 {
        return Vec::new();
    }
    let mut packed = vec![0.0; rows.div_ceil(ROWS) * taps * ROWS];
    packed.par_chunks_mut(taps * ROWS).enumerate().for_each(|(block, packed)| {
        let first = block * ROWS;
        for i in 0..ROWS.min(rows - first) {
            for (k, to) in packed[i..].iter_mut().step_by(ROWS).enumerate() {
                *to = at(first + i, k);
            }
        }
    });
    packed
}

/// y [B,O,P] of x [B,C,H,W] with weights given as a function of (o, tap), added to `sum` if there is one.
fn multiply(isa: Avx512, s: &Shape, x: &[f32], w: impl Fn(usize, usize) -> f32 + Sync, sum: Option<Vec<f32>>) -> Vec<f32> {
    let (flat, map, taps) = (Flat::of(s), s.map(), s.taps());
    let packed = pack(s.outputs, taps, w);
    let offsets = flat.taps(s.channels, s.kernel);
    let add = sum.is_some();
    let mut y = room(sum, s.batch * s.outputs * map);
    let narrow = s.out_width < NARROW;
    // Images per task: as many as fit, for narrow maps enough to fill a few panels.
    let group = (FLAT / flat.image()).clamp(1, if narrow { (4 * BLOCK).div_ceil(map) } else { 4 });
    let position = |n: usize| (n / map) * flat.image() + (n % map) / s.out_width * flat.row + n % s.out_width;
    let wide =
        pieces(s.out_height * flat.row, |n| (n % flat.row < s.out_width).then(|| n / flat.row * s.out_width + n % flat.row));
    flat.check(&offsets, if narrow { position(map - 1) } else { wide.len() * LANES });
    y.par_chunks_mut(group * s.outputs * map).zip(x.par_chunks(group * s.image())).for_each(|(y, x)| {
        let images = x.len() / s.image();
        let panel = if narrow { taps * BLOCK } else { 0 };
        let at_once = if narrow { images } else { 1 };
        with_scratch([at_once * flat.image() + SLACK, panel, 0], |buffer, panel, _| {
            buffer.fill(0.0);
            if narrow {
                for (x, to) in x.chunks_exact(s.image()).zip(buffer.chunks_exact_mut(flat.image())) {
                    flat.fill(isa, x, to);
                }
                let n = images * map;
                let from = pieces(n, |n| Some(position(n)));
                let to = pieces(n, |n| Some((n / map) * s.outputs * map + n % map));
                let ordinal: Vec<u32> = (0..taps).map(|k| (k * BLOCK) as u32).collect();
                for (from, to) in from.chunks(VECTORS).zip(to.chunks(VECTORS)) {
                    // SAFETY: AVX-512 is proven; `position` of a position of these images plus a tap lies in `buffer`; the
                    // panel was sized above.
                    unsafe { gather_panel(&offsets, buffer.as_ptr(), from, panel.as_mut_ptr()) };
                    for (block, left) in packed.chunks_exact(taps * ROWS).enumerate() {
                        let rows = ROWS.min(s.outputs - block * ROWS);
                        // SAFETY: AVX-512 is proven; the panel has 48 columns; `to` maps positions of these images into `y`,
                        // rows `map` apart.
                        unsafe {
                            blocks(
                                &ordinal,
                                left.as_ptr(),
                                panel.as_ptr(),
                                y.as_mut_ptr().cast::<f32>().add(block * ROWS * map),
                                map,
                                rows,
                                (to, add),
                            );
                        };
                    }
                }
                return;
            }
            for (x, y) in x.chunks_exact(s.image()).zip(y.chunks_exact_mut(s.outputs * map)) {
                flat.fill(isa, x, &mut buffer[..flat.image()]);
                for (first, to) in wide.chunks(VECTORS).enumerate() {
                    let right = &buffer[first * BLOCK..];
                    for (block, left) in packed.chunks_exact(taps * ROWS).enumerate() {
                        let rows = ROWS.min(s.outputs - block * ROWS);
                        // SAFETY: AVX-512 is proven; positions and taps lie inside the flat image, a register's overhang in the
                        // slack; `to` maps into `y`.
                        unsafe {
                            blocks(
                                &offsets,
                                left.as_ptr(),
                                right.as_ptr(),
                                y.as_mut_ptr().cast::<f32>().add(block * ROWS * map),
                                map,
                                rows,
                                (to, add),
                            );
                        };
                    }
                }
            }
        });
    });
    // SAFETY: the pieces of all positions were written, for all outputs of all images.
    unsafe { written(y) }
}

/// The positions of a weight gradient: images, rows, columns, and how far apart they lie in the flat copy.
#[derive(Clone, Copy)]
struct Walk {
    images: usize,
    image: usize,
    rows: usize,
    row: usize,
    columns: usize,
}

/// out[t, o] += Σ over positions n of flat[n + taps[t]] · right[n, o] for T taps and V registers of outputs; `right` and `out`
/// have rows `pitch` apart.
///
/// # Safety
/// AVX-512F; flat positions plus taps may be read, `right` has a row per position, `out` a row per tap, each V registers wide.
#[target_feature(enable = "avx512f")]
unsafe fn outer<const T: usize, const V: usize>(
    walk: Walk,
    flat: *const f32,
    taps: &[u32],
    right: *const f32,
    pitch: usize,
    out: *mut f32,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); V]; T];
        let mut from = [flat; T];
        for (from, &tap) in from.iter_mut().zip(taps) {
            *from = flat.add(tap as usize);
        }
        let mut right = right;
        for image in 0..walk.images {
            for row in 0..walk.rows {
                let start = image * walk.image + row * walk.row;
                for n in start..start + walk.columns {
                    let mut v = [_mm512_setzero_ps(); V];
                    for (j, v) in v.iter_mut().enumerate() {
                        *v = _mm512_loadu_ps(right.add(j * LANES));
                    }
                    for (sums, from) in sums.iter_mut().zip(from) {
                        let x = _mm512_set1_ps(*from.add(n));
                        for (sum, v) in sums.iter_mut().zip(v) {
                            *sum = _mm512_fmadd_ps(x, v, *sum);
                        }
                    }
                    right = right.add(pitch);
                }
            }
        }
        for (t, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let out = out.add(t * pitch + j * LANES);
                _mm512_storeu_ps(out, _mm512_add_ps(_mm512_loadu_ps(out), *sum));
            }
        }
    }
}

/// One to nine taps, one to three registers.
///
/// # Safety
/// As [`outer`] for `taps.len()` taps and `vectors` registers.
unsafe fn outers(walk: Walk, flat: *const f32, taps: &[u32], right: *const f32, pitch: usize, out: *mut f32, vectors: usize) {
    macro_rules! pick {
        ($($t:literal)*) => {
            match (taps.len(), vectors) {
                $(($t, 1) => outer::<$t, 1>(walk, flat, taps, right, pitch, out),
                  ($t, 2) => outer::<$t, 2>(walk, flat, taps, right, pitch, out),
                  ($t, 3) => outer::<$t, 3>(walk, flat, taps, right, pitch, out),)*
                (taps, vectors) => unreachable!("blocks have one to nine taps and one to three registers, not {taps} and {vectors}"),
            }
        };
    }
    // SAFETY: as the caller promises.
    unsafe { pick!(1 2 3 4 5 6 7 8 9) }
}

/// dw [O,C,k,k] = Σ over images and positions of dy ⊗ the pixels under each tap. Tasks are (part of the batch) x (slice of the
/// channels); parts are added in order.
fn weight_gradient(isa: Avx512, s: &Shape, x: &[f32], dy: &[f32]) -> Vec<f32> {
    let (map, area) = (s.map(), s.kernel * s.kernel);
    let pitch = s.outputs.next_multiple_of(LANES);
    let slice = (576 / area).clamp(1, s.channels);
    let slices = s.channels.div_ceil(slice);
    let parts = 16usize.div_ceil(slices).min(s.batch);
    let part = s.batch.div_ceil(parts);
    let parts = s.batch.div_ceil(part);
    let flat = Flat { channels: slice, ..Flat::of(s) };
    let group = (FLAT / (flat.image() + map * pitch)).clamp(1, part);
    let taps = flat.taps(slice, s.kernel);
    flat.check(&taps, (s.out_height - 1) * flat.row + s.out_width);
    let partials: Vec<Vec<f32>> = (0..parts * slices)
        .into_par_iter()
        .map(|task| {
            let (images, first) = (task / slices * part..((task / slices + 1) * part).min(s.batch), task % slices * slice);
            let channels = slice.min(s.channels - first);
            let mut sums = vec![0.0; channels * area * pitch];
            with_scratch([group * flat.image() + SLACK, group * map * pitch, 0], |buffer, right, _| {
                buffer.fill(0.0);
                for start in images.clone().step_by(group) {
                    let count = group.min(images.end - start);
                    for i in 0..count {
                        let image = &x[(start + i) * s.image() + first * s.height * s.width..][..channels * s.height * s.width];
                        flat.fill(isa, image, &mut buffer[i * flat.image()..][..flat.image()]);
                        transpose_padded(
                            isa,
                            &dy[(start + i) * s.outputs * map..],
                            map,
                            s.outputs,
                            map,
                            &mut right[i * map * pitch..],
                            pitch,
                        );
                    }
                    let walk =
                        Walk { images: count, image: flat.image(), rows: s.out_height, row: flat.row, columns: s.out_width };
                    for (k, taps) in taps[..channels * area].chunks(TAPS).enumerate() {
                        let mut column = 0;
                        while column < pitch {
                            let vectors = best_vectors::<Avx512>((pitch - column) / LANES);
                            let out = sums[k * TAPS * pitch + column..].as_mut_ptr();
                            // SAFETY: AVX-512 is proven; positions and taps lie in the flat images, `right` has a row per
                            // position, `sums` a row per tap.
                            unsafe { outers(walk, buffer.as_ptr(), taps, right[column..].as_ptr(), pitch, out, vectors) };
                            column += vectors * LANES;
                        }
                    }
                }
            });
            sums
        })
        .collect();
    sum_of_parts(s, &partials, (slices, slice * area, pitch))
}
