//! Scan for candidates of neighbors in products of rows rounded to 16-bit integers.
//!
//! A row of unit length is rounded to multiples of 1 / [`SCALE`]. The product of two such rows is an `i32`, exact whatever the
//! order of its terms, and processors multiply 16-bit numbers in pairs, at least twice as many in a cycle as `f32`. It is off
//! the cosine by no more than the lengths of the two rounding errors allow (Cauchy and Schwarz), and these are measured when a
//! row is rounded. With that margin a threshold on products cannot miss a neighbor.
//!
//! Nothing is written but what reaches a threshold: products stay in registers, or in the nearest cache.

#![expect(unsafe_code, reason = "vector instructions, chosen at run time")]

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::isa::{Avx2, Isa, Vnni};

/// Steps from 0 to 1. By Cauchy and Schwarz sums of products stay below 2³¹, also those of a part of the terms.
const SCALE: f64 = 32_767.0;
/// One in units of a product of two rows.
pub(super) const ONE: f64 = SCALE * SCALE;
/// Rows that are packed together: a vector of 512 bits holds a pair of numbers of each.
pub(super) const GROUP: usize = 16;
/// Columns of a strip: three groups, with [`HIGH`] rows as many sums as registers hold.
pub(super) const WIDE: usize = 3 * GROUP;
/// Rows of a tile.
const HIGH: usize = 8;

type Tile = [[i32; WIDE]; HIGH];

/// Unit rows, rounded to 16-bit integers.
#[derive(Debug, Default)]
pub(super) struct Int16Rows {
    /// [groups, pairs, rows of a group, 2]; rows and numbers that do not exist are 0, and two groups more than needed, so that
    /// every group begins a strip.
    packed: Vec<[i16; 2]>,
    /// Pairs of numbers in a row.
    pairs: usize,
    len: usize,
    /// The largest length of a rounding error.
    error: f64,
}

impl Int16Rows {
    /// Rounds rows [N, D], given 1 / length of each.
    pub(super) fn new(rows: &[f32], dim: usize, inverse: &[f64]) -> Self {
        Self::placed(inverse.len(), dim, |at| Some((&rows[at * dim..(at + 1) * dim], inverse[at])))
    }

    /// The same for the rows at these places, in this order; where a place is no row there are zeros.
    pub(super) fn arranged(rows: &[f32], dim: usize, inverse: &[f64], places: &[u32]) -> Self {
        Self::placed(places.len(), dim, |at| {
            let row = places[at] as usize;
            inverse.get(row).map(|&inverse| (&rows[row * dim..(row + 1) * dim], inverse))
        })
    }

    fn placed<'a>(len: usize, dim: usize, row: impl Fn(usize) -> Option<(&'a [f32], f64)> + Sync) -> Self {
        let pairs = dim.div_ceil(2);
        let mut packed = vec![[0; 2]; (len.div_ceil(GROUP) + 2) * pairs * GROUP];
        let errors: Vec<f64> = packed
            .par_chunks_mut(pairs * GROUP)
            .enumerate()
            .map(|(number, group)| {
                let mut largest = 0.0_f64;
                for lane in 0..GROUP.min(len.saturating_sub(number * GROUP)) {
                    let Some((row, inverse)) = row(number * GROUP + lane) else { continue };
                    let mut error = 0.0;
                    for (at, &x) in row.iter().enumerate() {
                        let exact = f64::from(x) * inverse * SCALE;
                        let whole = exact.round_ties_even().clamp(-SCALE, SCALE);
                        error += (exact - whole).powi(2);
                        group[at / 2 * GROUP + lane][at % 2] = whole as i16;
                    }
                    largest = largest.max(error);
                }
                largest.sqrt() / SCALE
            })
            .collect();
        Self { packed, pairs, len, error: errors.into_iter().fold(0.0, f64::max) }
    }

    /// The largest difference between a product and the cosine times [`ONE`].
    pub(super) fn margin(&self, other: &Self) -> i32 {
        // ⟨u, v⟩ − ⟨u − e, v − f⟩ = ⟨e, v⟩ + ⟨u − e, f⟩; the 2 covers what double precision rounds. The conversion cuts off.
        ((self.error + other.error + self.error * other.error) * ONE).ceil() as i32 + 2
    }

    /// Takes the place of what was here with copies of some rows of another table.
    pub(super) fn copy(&mut self, other: &Self, rows: impl ExactSizeIterator<Item = usize>) {
        (self.pairs, self.len, self.error) = (other.pairs, rows.len(), other.error);
        self.packed.resize(self.len.next_multiple_of(GROUP) * self.pairs, [0; 2]);
        for (at, row) in rows.enumerate() {
            let (from, to) = (other.first_of(row), self.first_of(at));
            for pair in (0..self.pairs * GROUP).step_by(GROUP) {
                self.packed[to + pair] = other.packed[from + pair];
            }
        }
    }

    /// Where the first pair of a row lies; the others follow [`GROUP`] apart.
    fn first_of(&self, row: usize) -> usize {
        row / GROUP * self.pairs * GROUP + row % GROUP
    }

    fn pairs_of(&self, row: usize) -> impl Iterator<Item = &[i16; 2]> {
        self.packed[self.first_of(row)..].iter().step_by(GROUP).take(self.pairs)
    }

    /// The product of one row with one of another table.
    pub(super) fn product(&self, row: usize, other: &Self, column: usize) -> i32 {
        let terms = self.pairs_of(row).zip(other.pairs_of(column));
        terms.map(|(a, b)| i32::from(a[0]) * i32::from(b[0]) + i32::from(a[1]) * i32::from(b[1])).sum()
    }

    /// From this group on, as long as a strip.
    fn strip(&self, group: usize) -> &[[i16; 2]] {
        &self.packed[group * self.pairs * GROUP..][..3 * self.pairs * GROUP]
    }

    /// Multiplies rows from `first` on, one for each of the thresholds, with the strip of `columns` from `from` on, and writes
    /// down the products that reach the threshold of their row, and those that reach the threshold of their column.
    ///
    /// # Panics
    /// If the places are no multiples of [`GROUP`], or out of range.
    pub(super) fn cross(&self, first: usize, columns: &Self, from: usize, scan: &mut Scan) {
        assert!(first.is_multiple_of(GROUP) && from.is_multiple_of(GROUP), "groups cannot be split");
        assert!(first + scan.thresholds.len() <= self.len && self.pairs == columns.pairs, "rows and columns must exist");
        scan.hits.clear();
        scan.other_hits.clear();
        let rows = &self.packed[first / GROUP * self.pairs * GROUP..];
        scan.run(rows, columns.strip(from / GROUP), self.pairs);
    }
}

/// A product that reached the threshold of one of its ends; row and column counted from where [`Int16Rows::cross`] began.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Hit {
    pub(super) row: u32,
    pub(super) column: u32,
    pub(super) value: i32,
}

/// What products are compared with, and which ones reached it.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) thresholds: Vec<i32>,
    /// The threshold of each column; `i32::MAX` is never reached.
    pub(super) other_thresholds: [i32; WIDE],
    pub(super) hits: Vec<Hit>,
    pub(super) other_hits: Vec<Hit>,
}

impl Default for Scan {
    fn default() -> Self {
        Self { thresholds: Vec::new(), other_thresholds: [i32::MAX; WIDE], hits: Vec::new(), other_hits: Vec::new() }
    }
}

impl Scan {
    fn run(&mut self, rows: &[[i16; 2]], strip: &[[i16; 2]], pairs: usize) {
        #[cfg(target_arch = "x86_64")]
        match Isa::used() {
            Isa::Avx512(isa) => match isa.vnni() {
                Some(isa) => return self.run_vnni(isa, rows, strip, pairs),
                None => return self.run_avx2(isa.avx2(), rows, strip, pairs),
            },
            Isa::Avx2(isa) => return self.run_avx2(isa, rows, strip, pairs),
            Isa::Portable => {}
        }
        self.run_here(rows, strip, pairs, plain, masks);
    }

    #[cfg(target_arch = "x86_64")]
    fn run_vnni(&mut self, _: Vnni, rows: &[[i16; 2]], strip: &[[i16; 2]], pairs: usize) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
        fn run(scan: &mut Scan, rows: &[[i16; 2]], strip: &[[i16; 2]], pairs: usize) {
            scan.run_here(
                rows,
                strip,
                pairs,
                |rows, strip, tile| vnni(rows, strip, tile),
                |v, threshold, thresholds| masks_avx512(v, threshold, thresholds),
            );
        }
        // SAFETY: AVX-512 with VNNI is proven.
        unsafe { run(self, rows, strip, pairs) };
    }

    #[cfg(target_arch = "x86_64")]
    fn run_avx2(&mut self, _: Avx2, rows: &[[i16; 2]], strip: &[[i16; 2]], pairs: usize) {
        #[target_feature(enable = "avx2")]
        fn run(scan: &mut Scan, rows: &[[i16; 2]], strip: &[[i16; 2]], pairs: usize) {
            scan.run_here(rows, strip, pairs, |rows, strip, tile| avx2(rows, strip, tile), masks);
        }
        // SAFETY: AVX2 is proven.
        unsafe { run(self, rows, strip, pairs) };
    }

    /// Integers and comparisons only, so every instruction set finds the same.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it must be compiled anew inside each function above")]
    fn run_here(
        &mut self,
        rows: &[[i16; 2]],
        strip: &[[i16; 2]],
        pairs: usize,
        multiply: impl Fn(&[[i16; 2]], &[[i16; 2]], &mut Tile),
        masks: impl Fn(&[i32; WIDE], i32, &[i32; WIDE]) -> (u64, u64),
    ) {
        let Self { thresholds, other_thresholds, hits, other_hits } = self;
        let mut tile = [[0; WIDE]; HIGH];
        let groups = thresholds.chunks(GROUP).zip(rows.chunks_exact(pairs * GROUP)).enumerate();
        for (group, (thresholds, rows)) in groups {
            for (half, thresholds) in thresholds.chunks(HIGH).enumerate() {
                multiply(&rows[half * HIGH..], strip, &mut tile);
                for (at, (values, &threshold)) in tile.iter().zip(thresholds).enumerate() {
                    let (own, others) = masks(values, threshold, other_thresholds);
                    if own | others != 0 {
                        let row = group * GROUP + half * HIGH + at;
                        note(hits, own, values, row);
                        note(other_hits, others, values, row);
                    }
                }
            }
        }
    }
}

/// Writes down the columns whose bit is set.
#[inline(always)]
#[expect(clippy::inline_always, reason = "two instructions per hit")]
fn note(hits: &mut Vec<Hit>, mut mask: u64, values: &[i32; WIDE], row: usize) {
    while mask != 0 {
        let column = mask.trailing_zeros();
        hits.push(Hit { row: row as u32, column, value: values[column as usize] });
        mask &= mask - 1;
    }
}

/// Which values reach the threshold, and which reach their own.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must be compiled anew inside each function that uses it")]
fn masks(values: &[i32; WIDE], threshold: i32, other_thresholds: &[i32; WIDE]) -> (u64, u64) {
    // Two plain passes first: they become a few wide comparisons, and hits are rare.
    let (mut any, mut any_other) = (false, false);
    for at in 0..WIDE {
        any |= values[at] >= threshold;
        any_other |= values[at] >= other_thresholds[at];
    }
    let (mut own, mut others) = (0, 0);
    if any || any_other {
        for at in 0..WIDE {
            own |= u64::from(values[at] >= threshold) << at;
            others |= u64::from(values[at] >= other_thresholds[at]) << at;
        }
    }
    (own, others)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn masks_avx512(values: &[i32; WIDE], threshold: i32, other_thresholds: &[i32; WIDE]) -> (u64, u64) {
    use std::arch::x86_64::{_mm512_cmpge_epi32_mask, _mm512_loadu_si512, _mm512_set1_epi32};
    let (mut own, mut others, threshold) = (0, 0, _mm512_set1_epi32(threshold));
    for part in 0..3 {
        // SAFETY: both arrays hold 3 · 16 numbers; the load asks for no alignment.
        let (value, other_threshold) = unsafe {
            (
                _mm512_loadu_si512(values.as_ptr().add(GROUP * part).cast()),
                _mm512_loadu_si512(other_thresholds.as_ptr().add(GROUP * part).cast()),
            )
        };
        own |= u64::from(_mm512_cmpge_epi32_mask(value, threshold)) << (GROUP * part);
        others |= u64::from(_mm512_cmpge_epi32_mask(value, other_threshold)) << (GROUP * part);
    }
    (own, others)
}

/// Products of [`HIGH`] rows, one pair every [`GROUP`], with a strip, any machine.
#[inline(always)]
#[expect(clippy::inline_always, reason = "it must be compiled anew inside the function that uses it")]
fn plain(rows: &[[i16; 2]], strip: &[[i16; 2]], tile: &mut Tile) {
    for (at, sums) in tile.iter_mut().enumerate() {
        for (sums, group) in sums.as_chunks_mut::<GROUP>().0.iter_mut().zip(strip.chunks_exact(strip.len() / 3)) {
            *sums = [0; GROUP];
            for (row, columns) in rows[at..].iter().step_by(GROUP).zip(group.as_chunks::<GROUP>().0) {
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum += i32::from(row[0]) * i32::from(column[0]) + i32::from(row[1]) * i32::from(column[1]);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
#[expect(clippy::cast_ptr_alignment, reason = "a pair is read as one number, wherever it lies")]
fn vnni(rows: &[[i16; 2]], strip: &[[i16; 2]], tile: &mut Tile) {
    use std::arch::x86_64::{
        _mm512_dpwssd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
    };
    let third = strip.len() / 3;
    let pairs = third / GROUP;
    assert!(pairs > 0 && rows.len() >= (pairs - 1) * GROUP + HIGH, "a pair of each row for each of the columns");
    let mut sums = [[_mm512_setzero_si512(); 3]; HIGH];
    let (rows, strip) = (rows.as_ptr().cast::<i32>(), strip.as_ptr());
    for pair in 0..pairs {
        // SAFETY: (part · third + pair · 16) + 16 ≤ 3 · third, the length of the strip; the load asks for no alignment.
        let columns: [_; 3] =
            std::array::from_fn(|part| unsafe { _mm512_loadu_si512(strip.add(part * third + pair * GROUP).cast()) });
        for (at, sums) in sums.iter_mut().enumerate() {
            // SAFETY: pair · 16 + at < (pairs − 1) · 16 + 8 ≤ the length of the rows, as checked; any two `i16` are an `i32`.
            let row = _mm512_set1_epi32(unsafe { rows.add(pair * GROUP + at).read_unaligned() });
            for (sum, columns) in sums.iter_mut().zip(columns) {
                *sum = _mm512_dpwssd_epi32(*sum, row, columns);
            }
        }
    }
    for (sums, tile) in sums.iter().zip(tile) {
        for (part, sum) in sums.iter().enumerate() {
            // SAFETY: 16 · part + 16 ≤ 48, the length of the row; the store asks for no alignment.
            unsafe { _mm512_storeu_si512(tile.as_mut_ptr().add(GROUP * part).cast(), *sum) };
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[expect(clippy::cast_ptr_alignment, reason = "a pair is read as one number, wherever it lies")]
fn avx2(rows: &[[i16; 2]], strip: &[[i16; 2]], tile: &mut Tile) {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_storeu_si256,
    };
    /// Rows whose sums, with one group of columns, sixteen registers hold.
    const FEW: usize = 4;
    let third = strip.len() / 3;
    let pairs = third / GROUP;
    assert!(pairs > 0 && rows.len() >= (pairs - 1) * GROUP + HIGH, "a pair of each row for each of the columns");
    let (rows, strip) = (rows.as_ptr().cast::<i32>(), strip.as_ptr());
    for (few, part) in [(0, 0), (0, 1), (0, 2), (FEW, 0), (FEW, 1), (FEW, 2)] {
        let mut sums = [[_mm256_setzero_si256(); 2]; FEW];
        for pair in 0..pairs {
            // SAFETY: (part · third + pair · 16) + 8 · half + 8 ≤ 3 · third, the length of the strip; no alignment is asked
            // for.
            let columns: [_; 2] = std::array::from_fn(|half| unsafe {
                _mm256_loadu_si256(strip.add(part * third + pair * GROUP + 8 * half).cast())
            });
            for (at, sums) in sums.iter_mut().enumerate() {
                // SAFETY: pair · 16 + few + at < (pairs − 1) · 16 + 8 ≤ the length of the rows, as checked.
                let row = _mm256_set1_epi32(unsafe { rows.add(pair * GROUP + few + at).read_unaligned() });
                for (sum, columns) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(row, columns));
                }
            }
        }
        for (sums, tile) in sums.iter().zip(&mut tile[few..few + FEW]) {
            for (half, sum) in sums.iter().enumerate() {
                // SAFETY: 16 · part + 8 · half + 8 ≤ 48, the length of the row; no alignment is asked for.
                unsafe { _mm256_storeu_si256(tile.as_mut_ptr().add(GROUP * part + 8 * half).cast(), *sum) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::Seed;
    use kinset_math::cosine::{cosine, norm};

    fn random(rows: usize, dim: usize, seed: u64) -> (Vec<f32>, Int16Rows) {
        let mut rng = Seed::new(seed).rng();
        let rows: Vec<f32> = (0..rows * dim).map(|_| rng.normal() as f32).collect();
        let inverse: Vec<f64> = rows.chunks(dim).map(|row| 1.0 / norm(row)).collect();
        let grid = Int16Rows::new(&rows, dim, &inverse);
        (rows, grid)
    }

    /// All products of a table with a strip of another.
    fn products(rows: &Int16Rows, columns: &Int16Rows, from: usize) -> Vec<Hit> {
        let mut scan = Scan { thresholds: vec![i32::MIN; rows.len], ..Scan::default() };
        rows.cross(0, columns, from, &mut scan);
        assert!(scan.other_hits.is_empty(), "the highest threshold is never reached");
        scan.hits
    }

    #[test]
    fn products_are_off_the_cosine_by_less_than_the_margin() {
        for dim in [1, 2, 7, 128, 1001] {
            let ((a, rows), (b, columns)) = (random(37, dim, 1), random(60, dim, 2));
            let margin = f64::from(rows.margin(&columns));
            // Half a step in every number of both rows is the most there can be.
            let half = 0.5 * (dim as f64).sqrt() / SCALE;
            assert!(margin <= (2.0 * half + half * half) * ONE + 3.0, "{dim}: {margin} is no use");
            let mut seen = 0;
            for from in [0, 48] {
                for hit in products(&rows, &columns, from) {
                    let (row, column) = (hit.row as usize, hit.column as usize + from);
                    let expected = if column < 60 {
                        cosine(&a[row * dim..][..dim], &b[column * dim..][..dim]) * ONE
                    } else {
                        0.0 // padding
                    };
                    assert!((f64::from(hit.value) - expected).abs() <= margin, "{dim}: {hit:?} instead of {expected}");
                    seen += 1;
                }
            }
            assert_eq!(seen, 37 * 96);
        }
    }

    #[test]
    fn the_extremes_of_the_range_do_not_overflow() {
        let rows = [1.0, 0.0, -1.0, 0.0, 0.0, 1.0];
        let grid = Int16Rows::new(&rows, 2, &[1.0; 3]);
        let found: Vec<i32> = products(&grid, &grid, 0).iter().filter(|hit| hit.column < 3).map(|hit| hit.value).collect();
        let one = ONE as i32;
        assert_eq!(found, [one, -one, 0, -one, one, 0, 0, 0, one]);
        // Every number of a row as large as it can be: the sums are those of rows that point the same way.
        let long = vec![1.0_f32; 4096];
        let grid = Int16Rows::new(&long, 4096, &[1.0 / 64.0]);
        assert!((f64::from(products(&grid, &grid, 0)[0].value) - ONE).abs() <= f64::from(grid.margin(&grid)));
    }

    #[test]
    fn all_instruction_sets_find_the_same() {
        for dim in [2, 5, 130] {
            let ((_, rows), (_, columns)) = (random(43, dim, 3), random(48, dim, 4));
            let mut scan =
                Scan { thresholds: (0..43).map(|r| if r % 9 == 0 { i32::MIN } else { 1 << 28 }).collect(), ..Scan::default() };
            scan.other_thresholds = std::array::from_fn(|column| (column as i32 - 24) << 25);
            rows.cross(0, &columns, 0, &mut scan);
            let fast = (scan.hits.clone(), scan.other_hits.clone());
            assert_eq!(fast.0.iter().filter(|hit| hit.row == 9).count(), 48, "below the lowest threshold there is nothing");
            scan.hits.clear();
            scan.other_hits.clear();
            scan.run_here(&rows.packed, columns.strip(0), rows.pairs, plain, masks);
            assert_eq!((&scan.hits, &scan.other_hits), (&fast.0, &fast.1), "dim {dim}, plain");
            #[cfg(target_arch = "x86_64")]
            if let Isa::Avx512(_) | Isa::Avx2(_) = Isa::used() {
                let isa = match Isa::used() {
                    Isa::Avx512(isa) => isa.avx2(),
                    Isa::Avx2(isa) => isa,
                    Isa::Portable => unreachable!(),
                };
                scan.hits.clear();
                scan.other_hits.clear();
                scan.run_avx2(isa, &rows.packed, columns.strip(0), rows.pairs);
                assert_eq!((&scan.hits, &scan.other_hits), (&fast.0, &fast.1), "dim {dim}, AVX2");
            }
        }
    }
}
