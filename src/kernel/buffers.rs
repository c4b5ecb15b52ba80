//! Buffers: results that are written once without being zeroed first, and scratch memory of a thread.
//!
//! Zeroing a large result would be a sweep over memory on one thread before the work begins. Room that nobody wrote yet is
//! `MaybeUninit<f32>`; who fills it returns it as `&mut [f32]`, which only written memory can be.
#![expect(unsafe_code, reason = "memory that was never written becomes numbers here; each block says who wrote it")]

use std::cell::Cell;
use std::mem::{ManuallyDrop, MaybeUninit};

use rayon::prelude::*;

/// A number's place that may not have been written yet.
pub(super) type Place = MaybeUninit<f32>;

/// A result of `len` numbers, made on all cores in pieces of so many. `write` gets the number of a piece and its room, and
/// returns the room, written.
///
/// # Panics
/// If `write` returns other numbers than its piece.
pub(super) fn in_pieces<F>(len: usize, piece: usize, write: F) -> Vec<f32>
where
    F: for<'a> Fn(usize, &'a mut [Place]) -> &'a mut [f32] + Sync,
{
    let mut all = room(None, len);
    all.par_chunks_mut(piece).enumerate().for_each(|(i, room)| one_piece(room, |room| write(i, room)));
    // SAFETY: every piece came back written.
    unsafe { written(all) }
}

/// The same on the calling thread.
pub(super) fn in_pieces_here<F>(len: usize, piece: usize, write: F) -> Vec<f32>
where
    F: for<'a> Fn(usize, &'a mut [Place]) -> &'a mut [f32],
{
    let mut all = room(None, len);
    all.chunks_mut(piece).enumerate().for_each(|(i, room)| one_piece(room, |room| write(i, room)));
    // SAFETY: every piece came back written.
    unsafe { written(all) }
}

fn one_piece(room: &mut [Place], write: impl for<'a> FnOnce(&'a mut [Place]) -> &'a mut [f32]) {
    let (at, len) = (room.as_ptr(), room.len());
    let numbers = write(room);
    assert!(numbers.as_ptr().cast() == at && numbers.len() == len, "another piece came back");
}

/// Writes numbers from the beginning of `room` on, and returns what was written.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the caller is compiled once per instruction set, and this with it")]
pub(super) fn write(room: &mut [Place], numbers: impl Iterator<Item = f32>) -> &mut [f32] {
    let mut count = 0;
    for (place, number) in room.iter_mut().zip(numbers) {
        place.write(number);
        count += 1;
    }
    // SAFETY: so many were just written.
    unsafe { room[..count].assume_init_mut() }
}

/// Room for a result: the numbers of a sum that it is added to, or memory that nobody wrote yet.
pub(super) fn room(sum: Option<Vec<f32>>, len: usize) -> Vec<Place> {
    let Some(sum) = sum else {
        let mut room = Vec::with_capacity(len);
        // SAFETY: the capacity is there, and a `MaybeUninit` needs no content.
        unsafe { room.set_len(len) };
        return room;
    };
    assert_eq!(sum.len(), len, "a number of the sum for each of the result");
    let mut sum = ManuallyDrop::new(sum);
    // SAFETY: the parts of a vector that nobody else drops; `MaybeUninit<f32>` is laid out as `f32`.
    unsafe { Vec::from_raw_parts(sum.as_mut_ptr().cast(), len, sum.capacity()) }
}

/// The numbers of a room.
///
/// # Safety
/// All of them were written.
pub(super) unsafe fn written(room: Vec<Place>) -> Vec<f32> {
    let mut room = ManuallyDrop::new(room);
    // SAFETY: the parts of a vector that nobody else drops; all numbers are there, as the caller promises.
    unsafe { Vec::from_raw_parts(room.as_mut_ptr().cast(), room.len(), room.capacity()) }
}

thread_local! {
    static SCRATCH: [Cell<Vec<f32>>; 3] = const { [const { Cell::new(Vec::new()) }; 3] };
}

/// Lends three buffers that live as long as the thread; they hold what the last user left. They never shrink: callers bound
/// what they ask for.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_are_put_together() {
        for (len, piece) in [(0, 3), (1, 1), (7, 3), (9, 3), (5, 100)] {
            let numbers =
                |i: usize, room: &mut [Place]| -> Vec<f32> { (0..room.len()).map(|at| (i * piece + at) as f32).collect() };
            let wanted: Vec<f32> = (0..len).map(|at| at as f32).collect();
            let all = in_pieces(len, piece, |i, room| {
                let numbers = numbers(i, room);
                write(room, numbers.into_iter())
            });
            let here = in_pieces_here(len, piece, |i, room| {
                let numbers = numbers(i, room);
                room.write_copy_of_slice(&numbers)
            });
            assert_eq!((&all, &here), (&wanted, &wanted));
        }
    }

    #[test]
    #[should_panic(expected = "another piece came back")]
    fn a_piece_that_is_not_written_to_its_end_is_refused() {
        in_pieces_here(5, 5, |_, room| write(room, [1.0, 2.0].into_iter()));
    }

    #[test]
    fn a_sum_keeps_its_numbers_and_new_room_takes_some() {
        let sum = room(Some(vec![1.0, 2.0]), 2);
        // SAFETY: they are those of a vector.
        assert_eq!(unsafe { written(sum) }, [1.0, 2.0]);
        let mut new = room(None, 3);
        write(&mut new, [3.0, 4.0, 5.0].into_iter());
        // SAFETY: all three were written.
        assert_eq!(unsafe { written(new) }, [3.0, 4.0, 5.0]);
    }

    #[test]
    fn scratch_is_lent_again_and_grows() {
        with_scratch([2, 0, 1], |a, b, c| {
            assert_eq!([a.len(), b.len(), c.len()], [2, 0, 1]);
            a.fill(7.0);
            // Who asks while it is lent gets other buffers.
            with_scratch([2, 0, 0], |other, _, _| assert_eq!(other, [0.0; 2]));
        });
        with_scratch([3, 0, 0], |a, _, _| assert_eq!(a.len(), 3));
    }
}
