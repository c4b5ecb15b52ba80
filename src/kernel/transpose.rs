//! Transposes of matrices, sixteen by sixteen in registers: [channel, pixel] and [pixel, channel].
#![expect(unsafe_code, reason = "AVX-512 intrinsics on pointers; every block states its bounds")]

use std::arch::x86_64::{
    __m512, _mm512_add_ps, _mm512_castpd_ps, _mm512_castps_pd, _mm512_mask_loadu_ps, _mm512_mask_storeu_ps, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_storeu_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

use super::buffers::Place;
use super::isa::Avx512;

/// Numbers in a register.
pub(super) const LANES: usize = 16;

/// Transposes `rows` lines of `columns` numbers, lines `line` apart, into `columns` lines of `rows` numbers, `pitch` apart;
/// numbers beyond `rows` up to a multiple of 16 become zero.
///
/// # Panics
/// If a matrix does not lie inside its slice.
pub(super) fn transpose_padded(
    _: Avx512,
    from: &[f32],
    line: usize,
    rows: usize,
    columns: usize,
    to: &mut [f32],
    pitch: usize,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(
        pitch >= rows.next_multiple_of(LANES)
            && from.len() >= (rows - 1) * line + columns
            && to.len() >= (columns - 1) * pitch + rows.next_multiple_of(LANES),
        "matrix out of bounds"
    );
    // SAFETY: AVX-512 is proven; both sides are large enough, as just checked.
    unsafe { all_padded(from.as_ptr(), line, rows, columns, to.as_mut_ptr(), pitch) };
}

/// Transposes `rows` lines of `columns` numbers, lines `pitch` apart, into `columns` lines of `rows` numbers, `line` apart,
/// writes all of these and touches nothing else; `add` them to what is there, or put them in its place.
///
/// # Panics
/// If a matrix does not lie inside its slice.
///
/// # Safety
/// If `add`, the numbers that are added to were written.
pub(super) unsafe fn transpose_exact(
    _: Avx512,
    from: &[f32],
    (pitch, rows, columns): (usize, usize, usize),
    to: &mut [Place],
    line: usize,
    add: bool,
) {
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(from.len() >= (rows - 1) * pitch + columns && to.len() >= (columns - 1) * line + rows, "matrix out of bounds");
    // SAFETY: AVX-512 is proven; both sides are large enough, as just checked; what is added to was written, as the caller
    // promises.
    unsafe { all_exact(from.as_ptr(), (pitch, rows, columns), to.as_mut_ptr().cast(), line, add) };
}

/// # Safety
/// AVX-512F; `rows` lines of `columns` numbers may be read, `columns` lines of `rows`, rounded up to 16, written.
#[target_feature(enable = "avx512f")]
unsafe fn all_padded(from: *const f32, line: usize, rows: usize, columns: usize, to: *mut f32, pitch: usize) {
    for row in (0..rows).step_by(LANES) {
        for column in (0..columns).step_by(LANES) {
            let (high, wide) = (LANES.min(rows - row), LANES.min(columns - column));
            // SAFETY: `high` lines of `wide` numbers are read, `wide` lines of 16 written, as the caller promises.
            unsafe {
                let block = transposed(from.add(row * line + column), line, high, wide);
                let to = to.add(column * pitch + row);
                if wide == LANES {
                    for (i, block) in block.iter().enumerate() {
                        _mm512_storeu_ps(to.add(i * pitch), *block);
                    }
                } else {
                    for (i, block) in block.iter().enumerate().take(wide) {
                        _mm512_storeu_ps(to.add(i * pitch), *block);
                    }
                }
            }
        }
    }
}

/// # Safety
/// AVX-512F; `rows` lines of `columns` numbers may be read, `columns` lines of `rows` numbers written and, if `add`, read.
#[target_feature(enable = "avx512f")]
unsafe fn all_exact(from: *const f32, (pitch, rows, columns): (usize, usize, usize), to: *mut f32, line: usize, add: bool) {
    for column in (0..columns).step_by(LANES) {
        for row in (0..rows).step_by(LANES) {
            let (high, wide) = (LANES.min(rows - row), LANES.min(columns - column));
            // SAFETY: `high` lines of `wide` numbers are read, `wide` lines of `high` written, as the caller promises; masked
            // lanes are not touched.
            unsafe {
                let mut block = transposed(from.add(row * pitch + column), pitch, high, wide);
                let to = to.add(column * line + row);
                if add {
                    for (i, block) in block.iter_mut().enumerate().take(wide) {
                        let there = _mm512_mask_loadu_ps(_mm512_setzero_ps(), mask(high), to.add(i * line));
                        *block = _mm512_add_ps(there, *block);
                    }
                }
                if (high, wide) == (LANES, LANES) {
                    for (i, block) in block.iter().enumerate() {
                        _mm512_storeu_ps(to.add(i * line), *block);
                    }
                } else {
                    for (i, block) in block.iter().enumerate().take(wide) {
                        _mm512_mask_storeu_ps(to.add(i * line), mask(high), *block);
                    }
                }
            }
        }
    }
}

fn mask(count: usize) -> u16 {
    if count >= LANES { u16::MAX } else { (1 << count) - 1 }
}

/// # Safety
/// AVX-512F; `high` lines of `wide` numbers may be read.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn transposed(from: *const f32, line: usize, high: usize, wide: usize) -> [__m512; LANES] {
    // SAFETY: as the caller promises; masked lanes are not touched.
    unsafe {
        let mask = mask(wide);
        let mut r = [_mm512_setzero_ps(); LANES];
        if high == LANES {
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm512_mask_loadu_ps(*r, mask, from.add(i * line));
            }
        } else {
            for (i, r) in r.iter_mut().enumerate().take(high) {
                *r = _mm512_mask_loadu_ps(*r, mask, from.add(i * line));
            }
        }
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let wider = |a: __m512, b: __m512| (_mm512_castps_pd(a), _mm512_castps_pd(b));
        for i in 0..4 {
            for j in 0..2 {
                let (a, b) = wider(t[4 * i + j], t[4 * i + j + 2]);
                // Columns 2j and 2j + 1 (plus multiples of four) of rows 4i to 4i + 3.
                r[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                r[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
            }
        }
        for j in 0..4 {
            let low = _mm512_shuffle_f32x4::<0x88>(r[j], r[4 + j]);
            let low_odd = _mm512_shuffle_f32x4::<0xdd>(r[j], r[4 + j]);
            let high = _mm512_shuffle_f32x4::<0x88>(r[8 + j], r[12 + j]);
            let high_odd = _mm512_shuffle_f32x4::<0xdd>(r[8 + j], r[12 + j]);
            t[j] = _mm512_shuffle_f32x4::<0x88>(low, high);
            t[8 + j] = _mm512_shuffle_f32x4::<0xdd>(low, high);
            t[4 + j] = _mm512_shuffle_f32x4::<0x88>(low_odd, high_odd);
            t[12 + j] = _mm512_shuffle_f32x4::<0xdd>(low_odd, high_odd);
        }
        t
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffers::{room, written};
    use super::super::isa::Isa;
    use super::*;

    #[test]
    fn matrices_of_any_size_are_transposed_and_back() {
        let Isa::Avx512(isa) = Isa::used() else { return };
        for (rows, columns) in [(1usize, 1usize), (3, 20), (16, 16), (17, 33), (40, 5), (64, 49)] {
            let (line, pitch) = (columns + 3, rows.next_multiple_of(LANES) + 16);
            let from: Vec<f32> = (0..rows * line).map(|i| i as f32 + 1.0).collect();
            let mut transposed = vec![-1.0; columns * pitch];
            transpose_padded(isa, &from, line, rows, columns, &mut transposed, pitch);
            for c in 0..columns {
                for r in 0..pitch {
                    let expected = match r {
                        r if r < rows => from[r * line + c],
                        r if r < rows.next_multiple_of(LANES) => 0.0,
                        _ => -1.0,
                    };
                    assert!((transposed[c * pitch + r] - expected).abs() < 0.5, "{rows}x{columns} at {r}, {c}");
                }
            }
            let mut back = vec![-2.0; rows * line];
            for (add, times) in [(false, 1.0), (true, 2.0)] {
                let mut places = room(Some(back), rows * line);
                // SAFETY: they hold numbers already.
                back = unsafe {
                    transpose_exact(isa, &transposed, (pitch, columns, rows), &mut places, line, add);
                    written(places)
                };
                for (i, (back, from)) in back.iter().zip(&from).enumerate() {
                    let expected = if i % line < columns { times * from } else { -2.0 };
                    assert!((back - expected).abs() < 0.5, "{rows}x{columns} at {i}, {times} times");
                }
            }
        }
    }
}
