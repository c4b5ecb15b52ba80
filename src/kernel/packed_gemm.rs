//! Products with a matrix that is packed once and used for many rows.
//!
//! ```text
//! right [k, n] → panels of some columns, each [k, columns]
//! ```
//!
//! A general product cannot know that a matrix comes again, and packs it for every few hundred rows. Here the left side stays
//! as it lies; 6 rows meet a panel of 4 registers, where there are 32, or of 2; and [`TERMS`] rows of a panel stay in the
//! first-level cache while all rows of the left pass by. What a row becomes does not depend on the rows beside it, not in one
//! bit.
//!
//! Where there are no registers of our own, `gemm` multiplies the same panels.
#![expect(unsafe_code, reason = "reads and writes of registers; every block states its bounds")]

use super::gemm::{Strides, multiply, rows};
#[cfg(target_arch = "x86_64")]
use super::isa::Isa;
#[cfg(target_arch = "x86_64")]
use super::simd::{Simd, with_simd};
#[cfg(target_arch = "x86_64")]
use super::transpose::transpose_padded;

/// Rows of a tile: 24 or 12 sums.
#[cfg(target_arch = "x86_64")]
const ROWS: usize = 6;
/// Terms at a time: of a panel, 32 KiB or 8.
#[cfg(target_arch = "x86_64")]
const TERMS: usize = 128;
/// Numbers of a cache line.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 16;

/// How wide panels are.
#[derive(Clone, Copy)]
struct Layout {
    /// Columns are padded to a multiple.
    lanes: usize,
    /// Columns of a panel.
    panel: usize,
}

impl Layout {
    /// For the registers in use.
    fn used() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(layout) = with_simd!(Isa::used(), |simd| Self::of(simd)) {
            return layout;
        }
        Self { lanes: 16, panel: 64 }
    }

    #[cfg(target_arch = "x86_64")]
    fn of<S: Simd>(_: S) -> Self {
        Self { lanes: S::LANES, panel: S::LANES * if S::REGISTERS >= 32 { 4 } else { 2 } }
    }

    fn padded(self, columns: usize) -> usize {
        columns.next_multiple_of(self.lanes)
    }

    /// (first column, columns, columns with those that are zero) of each panel.
    fn panels(self, columns: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..columns).step_by(self.panel).map(move |first| {
            let here = self.panel.min(columns - first);
            (first, here, self.padded(here))
        })
    }
}

/// What stands in the result before sums are added.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// Nothing.
    Zero,
    /// This row, in every row.
    Row(&'a [f32]),
    /// What is there.
    There,
}

pub(super) struct PackedMatrix {
    layout: Layout,
    columns: usize,
    terms: usize,
    /// Panel by panel, `[terms, columns]` each; the last one is as wide as it must be, in whole registers, zeros beyond.
    numbers: Vec<f32>,
}

impl PackedMatrix {
    /// Of the matrix whose *columns* lie as rows `line` apart: `right[k][n] = w[n · line + k]`, as weights of a layer do.
    ///
    /// # Panics
    /// If a length does not fit.
    pub(super) fn of_columns(w: &[f32], line: usize, columns: usize, terms: usize) -> Self {
        assert!(rows(line).fits(columns, terms, w.len()) && columns * terms > 0, "matrix out of bounds");
        let layout = Layout::used();
        let mut numbers = vec![0.0; layout.padded(columns) * terms];
        for (first, here, wide) in layout.panels(columns) {
            let (w, to) = (&w[first * line..], &mut numbers[first * terms..][..wide * terms]);
            #[cfg(target_arch = "x86_64")]
            if with_simd!(Isa::used(), |simd| transpose_padded(simd, w, line, here, terms, to, wide)).is_some() {
                continue;
            }
            for (column, w) in w.chunks(line).take(here).enumerate() {
                for (to, w) in to[column..].iter_mut().step_by(wide).zip(&w[..terms]) {
                    *to = *w;
                }
            }
        }
        Self { layout, columns, terms, numbers }
    }

    /// Of the matrix as it is, rows `line` apart: `right[k][n] = w[k · line + n]`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub(super) fn of_rows(w: &[f32], line: usize, columns: usize, terms: usize) -> Self {
        assert!(rows(line).fits(terms, columns, w.len()) && columns * terms > 0, "matrix out of bounds");
        let layout = Layout::used();
        let mut numbers = vec![0.0; layout.padded(columns) * terms];
        for (first, here, wide) in layout.panels(columns) {
            for (to, w) in numbers[first * terms..].chunks_exact_mut(wide).zip(w.chunks(line)).take(terms) {
                to[..here].copy_from_slice(&w[first..first + here]);
            }
        }
        Self { layout, columns, terms, numbers }
    }

    /// n
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn scale(&mut self, by: &[f32]) {
        assert_eq!(by.len(), self.columns, "a number for each column");
        for (first, here, wide) in self.layout.panels(self.columns) {
            for line in self.numbers[first * self.terms..][..wide * self.terms].chunks_exact_mut(wide) {
                line.iter_mut().zip(&by[first..first + here]).for_each(|(number, by)| *number *= by);
            }
        }
    }

    /// `out [count, n] = start + left [count, k] · right`; rows of the left are `line` apart, those of the result `pitch`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub(super) fn multiply(&self, count: usize, left: &[f32], line: usize, out: &mut [f32], pitch: usize, start: Start<'_>) {
        assert!(
            rows(line).fits(count, self.terms, left.len()) && rows(pitch).fits(count, self.columns, out.len()),
            "matrix out of bounds"
        );
        if let Start::Row(row) = start {
            assert_eq!(row.len(), self.columns, "a number for each column");
        }
        #[cfg(target_arch = "x86_64")]
        if with_simd!(Isa::used(), |simd| self.tiles(simd, count, left, line, out, pitch, start)).is_some() {
            return;
        }
        self.plain(count, left, line, out, pitch, start);
    }

    fn plain(&self, count: usize, left: &[f32], line: usize, out: &mut [f32], pitch: usize, start: Start<'_>) {
        if let Start::Row(row) = start {
            out.chunks_mut(pitch).take(count).for_each(|out| out[..self.columns].copy_from_slice(row));
        }
        let add = !matches!(start, Start::Zero);
        for (first, here, wide) in self.layout.panels(self.columns) {
            let (out, right) = (&mut out[first..], &self.numbers[first * self.terms..]);
            let right_at = Strides { row: wide, column: 1 };
            multiply([count, here, self.terms], out, rows(pitch), add, left, rows(line), right, right_at);
        }
    }

    /// By tiles in registers.
    #[cfg(target_arch = "x86_64")]
    #[expect(clippy::too_many_arguments, reason = "two matrices with the distances of their rows")]
    fn tiles<S: Simd>(
        &self,
        simd: S,
        count: usize,
        left: &[f32],
        line: usize,
        out: &mut [f32],
        pitch: usize,
        start: Start<'_>,
    ) {
        for (first, here, wide) in self.layout.panels(self.columns) {
            let panel = &self.numbers[first * self.terms..][..wide * self.terms];
            for (term, right) in (0..self.terms).step_by(TERMS).zip(panel.chunks(TERMS * wide)) {
                let start = match start {
                    _ if term > 0 => Start::There,
                    Start::Row(row) => Start::Row(&row[first..first + here]),
                    other => other,
                };
                for (number, row) in (0..count).step_by(ROWS).enumerate() {
                    let size = tiles::Size { rows: ROWS.min(count - row), columns: here, terms: right.len() / wide };
                    let (left, out) = (&left[row * line + term..], &mut out[row * pitch + first..]);
                    let ahead = right.len() + number * size.terms / 2 * LINE % right.len();
                    tiles::tile(simd, size, left, line, (right, ahead), out, pitch, start);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod tiles {
    use super::{LINE, ROWS, Simd, Start};

    #[derive(Clone, Copy)]
    pub(super) struct Size {
        /// At most [`ROWS`].
        pub(super) rows: usize,
        /// At most those of a panel.
        pub(super) columns: usize,
        pub(super) terms: usize,
    }

    /// A tile of a product.
    ///
    /// With `right` goes how far from its beginning lies what will be wanted after it: while this tile is multiplied, the tiles
    /// of some rows together call the next rows of the panel from main memory. Without it a third of the time is spent waiting.
    #[expect(clippy::too_many_arguments, reason = "three matrices with the distances of their rows")]
    pub(super) fn tile<S: Simd>(
        simd: S,
        size: Size,
        left: &[f32],
        line: usize,
        (right, ahead): (&[f32], usize),
        out: &mut [f32],
        pitch: usize,
        start: Start<'_>,
    ) {
        let vectors = size.columns.div_ceil(S::LANES);
        let (rows, last) = (size.rows, size.rows.wrapping_sub(1));
        assert!(
            (1..=ROWS).contains(&rows)
                && (1..=4).contains(&vectors)
                && left.len() >= last * line + size.terms
                && right.len() >= size.terms * vectors * S::LANES
                && out.len() >= last * pitch + size.columns
                && !matches!(start, Start::Row(row) if row.len() < size.columns),
            "tile out of bounds"
        );
        // SAFETY: the bounds were just checked for as many registers as the columns need.
        unsafe {
            match vectors {
                1 => sums::<S, 1>(simd, size, left, line, (right, ahead), out, pitch, start),
                2 => sums::<S, 2>(simd, size, left, line, (right, ahead), out, pitch, start),
                3 => sums::<S, 3>(simd, size, left, line, (right, ahead), out, pitch, start),
                _ => sums::<S, 4>(simd, size, left, line, (right, ahead), out, pitch, start),
            }
        }
    }

    /// # Safety
    /// `left` has `rows` rows of `terms` numbers, `right` V registers a term, `out` `rows` rows of `columns` numbers, of which all
    /// but the last register are full.
    #[expect(clippy::too_many_arguments, reason = "three matrices with the distances of their rows")]
    unsafe fn sums<S: Simd, const V: usize>(
        simd: S,
        size: Size,
        left: &[f32],
        line: usize,
        (right, ahead): (&[f32], usize),
        out: &mut [f32],
        pitch: usize,
        start: Start<'_>,
    ) {
        simd.run(|| {
            // Rows that do not exist repeat the last one: their sums are dropped.
            let left: [*const f32; ROWS] = std::array::from_fn(|i| left[i.min(size.rows - 1) * line..].as_ptr());
            let (mut right, mut ahead) = (right.as_ptr(), right.as_ptr().wrapping_add(ahead));
            let mask = |j: usize| simd.first(size.columns - j * S::LANES);
            // SAFETY: the caller's row has `columns` numbers; masked lanes are not touched.
            let read = |from: *const f32, j: usize| unsafe { simd.load_some(mask(j), from.wrapping_add(j * S::LANES)) };
            let mut sums: [[S::Vector; V]; ROWS] = [[simd.zero(); V]; ROWS];
            match start {
                Start::Zero => {}
                Start::Row(row) => {
                    for (j, sum) in sums[0].iter_mut().enumerate() {
                        *sum = read(row.as_ptr(), j);
                    }
                    sums = [sums[0]; ROWS];
                }
                Start::There => {
                    for (i, sums) in sums.iter_mut().enumerate().take(size.rows) {
                        for (j, sum) in sums.iter_mut().enumerate() {
                            *sum = read(out[i * pitch..].as_ptr(), j);
                        }
                    }
                }
            }
            for term in 0..size.terms {
                if term % 2 == 0 {
                    simd.prefetch(ahead);
                    ahead = ahead.wrapping_add(LINE);
                }
                // SAFETY: `right` holds V registers for each term, `left` as many numbers as there are terms.
                unsafe {
                    let mut b = [simd.zero(); V];
                    for (j, b) in b.iter_mut().enumerate() {
                        *b = simd.load(right.add(j * S::LANES));
                    }
                    for (sums, left) in sums.iter_mut().zip(left) {
                        let a = simd.all(*left.add(term));
                        for (sum, b) in sums.iter_mut().zip(b) {
                            *sum = simd.fma(a, b, *sum);
                        }
                    }
                    right = right.add(V * S::LANES);
                }
            }
            let whole = size.columns == V * S::LANES;
            for (i, sums) in sums.iter().enumerate().take(size.rows) {
                let out = out[i * pitch..].as_mut_ptr();
                for (j, sum) in sums.iter().enumerate() {
                    let to = out.wrapping_add(j * S::LANES);
                    // SAFETY: the row has `columns` numbers; masked lanes are not touched.
                    unsafe { if whole { simd.store(to, *sum) } else { simd.store_some(mask(j), to, *sum) } };
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::isa::Isa;
    use super::*;
    use kinset_base::seed::Seed;

    fn random(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = Seed::new(seed).rng();
        (0..n).map(|_| rng.normal() as f32).collect()
    }

    /// What stands in an element of the result that nobody may touch.
    const UNTOUCHED: f32 = -77.0;

    /// Both ways to multiply, both ways to pack, all starts, against sums in double precision.
    fn try_all([m, n, k]: [usize; 3], [line, pitch, w_line]: [usize; 3]) {
        let (left, right, row) = (random(m * line, 1), random(n.max(k) * w_line, 2), random(n, 3));
        let of_columns = PackedMatrix::of_columns(&right, w_line, n, k);
        let of_rows = PackedMatrix::of_rows(&right, w_line, n, k);
        for (panels, at) in [(of_columns, Strides { row: 1, column: w_line }), (of_rows, rows(w_line))] {
            for start in [Start::Zero, Start::Row(&row), Start::There] {
                for plain in [false, true] {
                    let mut out = vec![UNTOUCHED; m * pitch];
                    if plain {
                        panels.plain(m, &left, line, &mut out, pitch, start);
                    } else {
                        panels.multiply(m, &left, line, &mut out, pitch, start);
                    }
                    for (place, &found) in out.iter().enumerate() {
                        let (i, j) = (place / pitch, place % pitch);
                        if j >= n {
                            assert_eq!(found.to_bits(), UNTOUCHED.to_bits(), "beyond the columns");
                            continue;
                        }
                        let first = match start {
                            Start::Zero => 0.0,
                            Start::Row(row) => f64::from(row[j]),
                            Start::There => f64::from(UNTOUCHED),
                        };
                        let term = |p: usize| f64::from(left[i * line + p]) * f64::from(right[p * at.row + j * at.column]);
                        let wanted = first + (0..k).map(term).sum::<f64>();
                        let off = (f64::from(found) - wanted).abs();
                        assert!(off < 1e-5 * (k as f64).sqrt() + 1e-4, "{m}x{n}x{k} at {i}, {j}: {found} is not {wanted}");
                    }
                }
            }
        }
    }

    #[test]
    fn products_of_all_shapes_are_those_of_double_precision() {
        for sizes @ [_, n, k] in
            [[1, 1, 1], [6, 64, 128], [7, 65, 129], [13, 257, 64], [5, 48, 300], [12, 31, 7], [2, 144, 257]]
        {
            try_all(sizes, [k, n, n.max(k)]);
            try_all(sizes, [k + 3, n + 5, n.max(k) + 2]);
        }
    }

    #[test]
    fn hand_values() {
        // [1 2] · [[3 5] [4 6]] + [10 20]
        let panels = PackedMatrix::of_columns(&[3.0, 4.0, 5.0, 6.0], 2, 2, 2);
        let mut out = [0.0; 2];
        panels.multiply(1, &[1.0, 2.0], 2, &mut out, 2, Start::Row(&[10.0, 20.0]));
        assert_eq!(out[..], [21.0, 37.0]);
        let mut panels = PackedMatrix::of_rows(&[3.0, 5.0, 4.0, 6.0], 2, 2, 2);
        panels.scale(&[2.0, -1.0]);
        panels.multiply(1, &[1.0, 2.0], 2, &mut out, 2, Start::Zero);
        assert_eq!(out[..], [22.0, -17.0]);
    }

    #[test]
    fn a_row_is_the_same_alone_and_in_company() {
        let (n, k) = (100, 200);
        let (left, right) = (random(17 * k, 4), random(n * k, 5));
        let panels = PackedMatrix::of_columns(&right, k, n, k);
        let mut all = vec![0.0; 17 * n];
        panels.multiply(17, &left, k, &mut all, n, Start::Zero);
        for row in 0..17 {
            let mut alone = vec![0.0; n];
            panels.multiply(1, &left[row * k..], k, &mut alone, n, Start::Zero);
            let same = alone.iter().zip(&all[row * n..]).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same || Isa::used() == Isa::Portable, "row {row}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn products_of_any_shape_are_those_of_double_precision(
            m in 1_usize..20, n in 1_usize..150, k in 1_usize..280, more in 0_usize..20,
        ) {
            try_all([m, n, k], [k + more, n + more, n.max(k) + more]);
        }
    }
}
