//! Matrix products on slices, one thread each: the parallelism lies over tiles, so it cannot change a sum.
#![expect(unsafe_code, reason = "`gemm` takes pointers; the bounds are checked here")]

use std::cell::Cell;

/// A matrix inside a slice: element (i, j) lies at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    /// Distance of two rows.
    pub(super) row: usize,
    /// Distance of two columns.
    pub(super) column: usize,
}

/// Rows one after the other, `width` apart.
pub(super) fn rows(width: usize) -> Strides {
    Strides { row: width, column: 1 }
}

/// The transpose of [`rows`].
pub(super) fn columns(width: usize) -> Strides {
    Strides { row: 1, column: width }
}

impl Strides {
    /// Do all elements of a matrix [m, n] lie inside a slice of `len` numbers?
    pub(super) fn fits(self, m: usize, n: usize, len: usize) -> bool {
        m == 0 || n == 0 || (m - 1) * self.row + (n - 1) * self.column < len
    }
}

/// `out [m, n] = left [m, k] · right [k, n]`, or `+=` if `add`.
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
pub(super) fn product(
    [m, n, k]: [usize; 3],
    out: &mut [f32],
    at: Strides,
    add: bool,
    left: &[f32],
    left_at: Strides,
    right: &[f32],
    right_at: Strides,
) {
    assert!(
        at.fits(m, n, out.len()) && left_at.fits(m, k, left.len()) && right_at.fits(k, n, right.len()),
        "matrix out of bounds"
    );
    // SAFETY: all elements that the strides reach lie inside the slices, as just checked; `out` is exclusive.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            at.column as isize,
            at.row as isize,
            add,
            left.as_ptr(),
            left_at.column as isize,
            left_at.row as isize,
            right.as_ptr(),
            right_at.column as isize,
            right_at.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Room for a result that the caller writes completely; zeroing it first would be a sweep over memory on one thread.
#[expect(clippy::uninit_vec, reason = "that is the point")]
pub(super) fn blank(len: usize) -> Vec<f32> {
    let mut room = Vec::with_capacity(len);
    // SAFETY: the capacity is there, any bits are an f32, and every caller writes each number before reading it.
    unsafe { room.set_len(len) };
    room
}

thread_local! {
    static SCRATCH: [Cell<Vec<f32>>; 3] = const { [const { Cell::new(Vec::new()) }; 3] };
}

/// Lends three buffers that live as long as the thread; what is in them is old rubbish. They never shrink: callers bound what they ask for.
pub(super) fn with_scratch<T>(sizes: [usize; 3], f: impl FnOnce(&mut [f32], &mut [f32], &mut [f32]) -> T) -> T {
    let [mut a, mut b, mut c] = SCRATCH.with(|cells| cells.each_ref().map(Cell::take));
    for (buffer, size) in [&mut a, &mut b, &mut c].into_iter().zip(sizes) {
        if buffer.len() < size {
            buffer.resize(size, 0.0);
        }
    }
    let result = f(&mut a[..sizes[0]], &mut b[..sizes[1]], &mut c[..sizes[2]]);
    SCRATCH.with(|cells| {
        for (cell, buffer) in cells.iter().zip([a, b, c]) {
            cell.set(buffer);
        }
    });
    result
}
