//! Transposes of matrices, square by square in registers: [channel, pixel] and [pixel, channel].
//!
//! A square that is not full is gone through as a full one, and each row asked for: a loop of fewer turns is not unrolled, and then the
//! square lies in memory and not in registers.
#![expect(unsafe_code, reason = "reads and writes of registers; every block states its bounds")]
#![expect(clippy::inline_always, reason = "compiled as part of a loop, with its instruction set")]

use super::buffers::Place;
use super::simd::Simd;

/// Transposes `rows` lines of `columns` numbers, lines `line` apart, into `columns` lines of `rows` numbers, `pitch` apart;
/// numbers beyond `rows` up to a whole register become zero.
///
/// # Panics
/// If a matrix does not lie inside its slice.
pub(super) fn transpose_padded<S: Simd>(
    simd: S,
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
        pitch >= rows.next_multiple_of(S::LANES)
            && from.len() >= (rows - 1) * line + columns
            && to.len() >= (columns - 1) * pitch + rows.next_multiple_of(S::LANES),
        "matrix out of bounds"
    );
    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
    simd.run(|| {
        for row in (0..rows).step_by(S::LANES) {
            for column in (0..columns).step_by(S::LANES) {
                let (high, wide) = (S::LANES.min(rows - row), S::LANES.min(columns - column));
                // SAFETY: `high` lines of `wide` numbers are read, `wide` lines of a register written: both sides are large
                // enough, as checked.
                unsafe {
                    let block = transposed(simd, from.add(row * line + column), line, high, wide);
                    let to = to.add(column * pitch + row);
                    if wide == S::LANES {
                        for (i, block) in block.as_ref().iter().enumerate() {
                            simd.store(to.add(i * pitch), *block);
                        }
                    } else {
                        for (i, block) in block.as_ref().iter().enumerate() {
                            if i < wide {
                                simd.store(to.add(i * pitch), *block);
                            }
                        }
                    }
                }
            }
        }
    });
}

/// Transposes `rows` lines of `columns` numbers, lines `pitch` apart, into `columns` lines of `rows` numbers, `line` apart,
/// writes all of these and touches nothing else; `add` them to what is there, or put them in its place.
///
/// # Panics
/// If a matrix does not lie inside its slice.
///
/// # Safety
/// If `add`, the numbers that are added to were written.
pub(super) unsafe fn transpose_exact<S: Simd>(
    simd: S,
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
    let (from, to) = (from.as_ptr(), to.as_mut_ptr().cast::<f32>());
    simd.run(|| {
        for column in (0..columns).step_by(S::LANES) {
            for row in (0..rows).step_by(S::LANES) {
                let (high, wide) = (S::LANES.min(rows - row), S::LANES.min(columns - column));
                let mask = simd.first(high);
                // SAFETY: `high` lines of `wide` numbers are read, `wide` lines of `high` written, both inside their slices as
                // checked; what is added to was written, as the caller promises; masked lanes are not touched.
                unsafe {
                    let mut block = transposed(simd, from.add(row * pitch + column), pitch, high, wide);
                    let to = to.add(column * line + row);
                    if add {
                        for (i, block) in block.as_mut().iter_mut().enumerate() {
                            if i < wide {
                                *block = simd.add(simd.load_some(mask, to.add(i * line)), *block);
                            }
                        }
                    }
                    if (high, wide) == (S::LANES, S::LANES) {
                        for (i, block) in block.as_ref().iter().enumerate() {
                            simd.store(to.add(i * line), *block);
                        }
                    } else {
                        for (i, block) in block.as_ref().iter().enumerate() {
                            if i < wide {
                                simd.store_some(mask, to.add(i * line), *block);
                            }
                        }
                    }
                }
            }
        }
    });
}

/// # Safety
/// `high` lines of `wide` numbers may be read.
#[inline(always)]
unsafe fn transposed<S: Simd>(simd: S, from: *const f32, line: usize, high: usize, wide: usize) -> S::Square {
    let mut rows = simd.square();
    // SAFETY: as the caller promises; masked lanes are not touched.
    unsafe {
        if (high, wide) == (S::LANES, S::LANES) {
            for (i, row) in rows.as_mut().iter_mut().enumerate() {
                *row = simd.load(from.add(i * line));
            }
        } else {
            let mask = simd.first(wide);
            for (i, row) in rows.as_mut().iter_mut().enumerate() {
                if i < high {
                    *row = simd.load_some(mask, from.add(i * line));
                }
            }
        }
    }
    simd.transposed(rows)
}

#[cfg(test)]
mod tests {
    use super::super::buffers::{room, written};
    use super::super::isa::Isa;
    use super::super::simd::with_simd;
    use super::*;

    fn there_and_back<S: Simd>(simd: S) {
        for (rows, columns) in [(1usize, 1usize), (3, 20), (8, 8), (16, 16), (17, 33), (40, 5), (64, 49)] {
            let padded = rows.next_multiple_of(S::LANES);
            let (line, pitch) = (columns + 3, padded + 16);
            let from: Vec<f32> = (0..rows * line).map(|i| i as f32 + 1.0).collect();
            let mut transposed = vec![-1.0; columns * pitch];
            transpose_padded(simd, &from, line, rows, columns, &mut transposed, pitch);
            for c in 0..columns {
                for r in 0..pitch {
                    let expected = match r {
                        r if r < rows => from[r * line + c],
                        r if r < padded => 0.0,
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
                    transpose_exact(simd, &transposed, (pitch, columns, rows), &mut places, line, add);
                    written(places)
                };
                for (i, (back, from)) in back.iter().zip(&from).enumerate() {
                    let expected = if i % line < columns { times * from } else { -2.0 };
                    assert!((back - expected).abs() < 0.5, "{rows}x{columns} at {i}, {times} times");
                }
            }
        }
    }

    #[test]
    fn matrices_of_any_size_are_transposed_and_back() {
        for isa in Isa::used().with_smaller() {
            with_simd!(isa, |simd| there_and_back(simd));
        }
    }
}
