//! Caching allocator: keeps large blocks for the next training step.
//!
//! The system's allocator gives large blocks back as soon as they are free, so every activation of every step is mapped anew
//! and each of its pages is cleared on first touch (measured: 20 to 30 % of a small network's step). [`CachingAllocator`] keeps
//! large blocks and asks for huge pages. It never holds more than the program once used: before it takes fresh memory beyond
//! the highest use so far, it frees the blocks that have been idle longest.
//!
//! It is meant for a program, not for a library: `#[global_allocator] static ALLOCATOR: CachingAllocator =
//! CachingAllocator::new();` in `main.rs`, and [`keep_large_blocks_apart`] as the first thing that `main` does.
#![expect(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Blocks below this go straight to the system. 512 KiB.
const LARGE: usize = 512 * 1024;
/// A huge page; large blocks are aligned to it. 2 MiB.
const PAGE: usize = 2 * 1024 * 1024;
/// Blocks that can lie idle.
const PLACES: usize = 1024;

/// Whether the system ever had no memory to give.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// True from the first time on that the system had no memory to give. An allocation that cannot fail aborts the process then;
/// whoever catches the abort knows by this what it was.
pub fn memory_refused() -> &'static AtomicBool {
    &REFUSED
}

/// Notes it if there is no block.
fn noted(block: *mut u8) -> *mut u8 {
    if block.is_null() {
        REFUSED.store(true, Ordering::SeqCst);
    }
    block
}

/// The system's allocator, with a cache of large blocks.
pub struct CachingAllocator(Mutex<Idle>);

#[derive(Clone, Copy)]
struct Block {
    address: usize,
    size: usize,
}

/// Idle blocks, the longest idle first.
struct Idle {
    blocks: [Block; PLACES],
    count: usize,
    /// In all idle blocks.
    bytes: usize,
    /// Bytes in large blocks in use, now and at most so far.
    used: usize,
    most: usize,
}

/// The size of the block that serves `size` bytes: the next of eight steps per power of two, so that nearly equal tensors share
/// blocks. `None` goes to the system.
fn class(layout: Layout) -> Option<Layout> {
    if layout.size() < LARGE || layout.align() > 4096 || layout.size() > isize::MAX as usize / 2 {
        return None;
    }
    let step = (layout.size().next_power_of_two() / 16).max(4096);
    let size = layout.size().next_multiple_of(step);
    Layout::from_size_align(size, if size < PAGE { 4096 } else { PAGE }).ok()
}

impl Idle {
    /// An idle block of exactly this size, the one used last.
    fn take(&mut self, size: usize) -> Option<usize> {
        let at = self.blocks[..self.count].iter().rposition(|block| block.size == size)?;
        Some(self.remove(at).address)
    }

    fn remove(&mut self, at: usize) -> Block {
        let block = self.blocks[at];
        self.blocks.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.bytes -= block.size;
        block
    }

    /// Keeps a block; false if there is no room.
    fn put(&mut self, block: Block) -> bool {
        if self.count == PLACES {
            return false;
        }
        self.blocks[self.count] = block;
        self.count += 1;
        self.bytes += block.size;
        true
    }
}

impl CachingAllocator {
    #[expect(clippy::new_without_default, reason = "an allocator is a static, and only a constant function can make one")]
    pub const fn new() -> Self {
        Self(Mutex::new(Idle { blocks: [Block { address: 0, size: 0 }; PLACES], count: 0, bytes: 0, used: 0, most: 0 }))
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block of a class, and whether it is known to hold zeros.
    fn obtain(&self, class: Layout, zeroed: bool) -> (*mut u8, bool) {
        let mut idle = self.lock();
        idle.used += class.size();
        idle.most = idle.most.max(idle.used);
        if let Some(address) = idle.take(class.size()) {
            return (std::ptr::with_exposed_provenance_mut(address), false);
        }
        while idle.count > 0 && idle.used + idle.bytes > idle.most {
            let block = idle.remove(0);
            release(block);
        }
        drop(idle);
        // SAFETY: a class is larger than zero.
        let block = noted(unsafe { if zeroed { System.alloc_zeroed(class) } else { System.alloc(class) } });
        if block.is_null() {
            self.lock().used -= class.size();
        } else {
            prefer_huge_pages(block, class.size());
        }
        (block, true)
    }
}

impl Drop for CachingAllocator {
    fn drop(&mut self) {
        let mut idle = self.lock();
        while idle.count > 0 {
            release(idle.remove(0));
        }
    }
}

fn release(block: Block) {
    let align = if block.size < PAGE { 4096 } else { PAGE };
    if let Ok(layout) = Layout::from_size_align(block.size, align) {
        // SAFETY: every block was allocated by the system with this layout, in `obtain`.
        unsafe { System.dealloc(std::ptr::with_exposed_provenance_mut(block.address), layout) };
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn prefer_huge_pages(block: *mut u8, size: usize) {
    unsafe extern "C" {
        fn madvise(address: *mut std::ffi::c_void, length: usize, advice: i32) -> i32;
    }
    /// `MADV_HUGEPAGE` of linux/mman.h.
    const HUGE_PAGE: i32 = 14;
    if size >= PAGE {
        // SAFETY: the range was just allocated and starts on a page; the call is advice and changes no content. Its failure
        // costs speed only.
        let _advice = unsafe { madvise(block.cast(), size / PAGE * PAGE, HUGE_PAGE) };
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn prefer_huge_pages(_: *mut u8, _: usize) {}

// SAFETY: blocks come from the system's allocator with a layout at least as large and as aligned as asked for; a block is in
// use or idle, never both.
unsafe impl GlobalAlloc for CachingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some(class) => self.obtain(class, false).0,
            // SAFETY: as the caller promises.
            None => noted(unsafe { System.alloc(layout) }),
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class(layout) else {
            // SAFETY: as the caller promises.
            return noted(unsafe { System.alloc_zeroed(layout) });
        };
        let (block, fresh) = self.obtain(class, true);
        if !fresh && !block.is_null() {
            // SAFETY: the block has at least this size.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class(layout) else {
            // SAFETY: as the caller promises.
            return unsafe { System.dealloc(block, layout) };
        };
        let block = Block { address: block.expose_provenance(), size: class.size() };
        let mut idle = self.lock();
        idle.used -= class.size();
        let kept = idle.put(block);
        drop(idle);
        if !kept {
            release(block);
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(size, layout.align()) else { return null_mut() };
        match (class(layout), class(new)) {
            // SAFETY: as the caller promises.
            (None, None) => noted(unsafe { System.realloc(block, layout, size) }),
            (Some(old), Some(new)) if old == new => block,
            _ => {
                // SAFETY: two blocks, each at least as large as what is copied; the old one is given up.
                unsafe {
                    let to = self.alloc(new);
                    if !to.is_null() {
                        to.copy_from_nonoverlapping(block, layout.size().min(size));
                        self.dealloc(block, layout);
                    }
                    to
                }
            }
        }
    }
}

/// Tells glibc to map each block of a huge page or more by itself, whatever was freed before. Left alone, glibc raises the size
/// from which it maps with every large block that is freed, up to 32 MiB; then aligned blocks lie among small ones and leave
/// holes (measured: a quarter of the memory in which Fashion-MNIST is read, a third of that in which a small network trains).
pub fn keep_large_blocks_apart() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        /// `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD` of malloc.h.
        const MAPPED_FROM: i32 = -3;
        const KEPT: i32 = -1;
        // SAFETY: the call changes settings of the allocator under its own lock. Its failure costs memory only.
        let _advice = unsafe { [mallopt(MAPPED_FROM, PAGE as i32), mallopt(KEPT, 64 << 20)] };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::seed::{Rng, Seed};

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 4).unwrap()
    }

    #[test]
    fn blocks_come_back_zeroed_if_asked_and_no_more_is_kept_than_was_used() {
        let allocator = CachingAllocator::new();
        let (size, other) = (3_000_001, 9_000_000);
        // Miri is slow.
        let step = if cfg!(miri) { 10_007 } else { 1 };
        // SAFETY: each block is written inside its size and freed once with its layout.
        unsafe {
            let first = allocator.alloc(layout(size));
            assert!(!first.is_null() && first.addr().is_multiple_of(PAGE));
            first.write_bytes(7, size);
            allocator.dealloc(first, layout(size));
            let again = allocator.alloc_zeroed(layout(size - 5));
            assert_eq!(again, first, "a block of the same class is used again");
            assert!(std::slice::from_raw_parts(again, size - 5).iter().step_by(step).all(|b| *b == 0));
            again.write_bytes(9, size - 5);
            assert_eq!(allocator.realloc(again, layout(size - 5), size), again, "inside its class it stays");
            let larger = allocator.realloc(again, layout(size), other);
            assert!(std::slice::from_raw_parts(larger, size - 5).iter().step_by(step).all(|b| *b == 9));
            let smaller = allocator.realloc(larger, layout(other), 100);
            assert_eq!(std::slice::from_raw_parts(smaller, 100), [9; 100]);
            allocator.dealloc(smaller, layout(100));
        }
        let idle = allocator.lock();
        assert_eq!(idle.used, 0);
        assert!(idle.bytes <= idle.most, "{} idle, at most {} were used", idle.bytes, idle.most);
        // The block of `size` and the one of `other` were in use together once.
        assert!(idle.most >= size + other && idle.most < (size + other) * 9 / 8);
        drop(idle);
        // A third size fits under the highest use only if something is given back.
        // SAFETY: freed with its layout.
        unsafe {
            let third = allocator.alloc(layout(6_000_000));
            let idle = allocator.lock();
            assert!(idle.used + idle.bytes <= idle.most);
            drop(idle);
            allocator.dealloc(third, layout(6_000_000));
        }
    }

    #[test]
    #[cfg(not(miri))]
    fn memory_that_the_system_refuses_is_noted() {
        let allocator = CachingAllocator::new();
        // SAFETY: nothing is allocated, so there is nothing to free.
        let block = unsafe { allocator.alloc(layout(isize::MAX as usize / 4)) };
        assert!(block.is_null() && memory_refused().load(Ordering::SeqCst));
        assert_eq!(allocator.lock().used, 0);
    }

    /// A block that a thread holds, as the model knows it: all of it is this byte.
    struct Held {
        block: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Held {
        /// Writes the byte all over the block.
        fn fill(block: *mut u8, layout: Layout, byte: u8) -> Self {
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            // SAFETY: the block has this size, and nobody else has it.
            unsafe { block.write_bytes(byte, layout.size()) };
            Self { block, layout, byte }
        }

        /// Are the first `count` bytes still what this thread wrote?
        fn check(&self, count: usize, byte: u8) {
            // SAFETY: the block has at least so many, all written.
            let bytes = unsafe { std::slice::from_raw_parts(self.block, count) };
            let step = (count / 500).max(1);
            assert!(bytes.iter().step_by(step).chain(bytes.last()).all(|b| *b == byte), "somebody else wrote here");
        }
    }

    #[test]
    fn threads_never_share_a_block_whatever_they_do() {
        let allocator = CachingAllocator::new();
        let (threads, rounds) = if cfg!(miri) { (3, 40) } else { (4, 600) };
        let size = |rng: &mut Rng| match rng.below(4) {
            0 => 1 + rng.below(1000),
            1 => LARGE - 2 + rng.below(5),
            // Few classes, so that blocks go from thread to thread.
            _ => LARGE + rng.below(6) * 100_000,
        };
        std::thread::scope(|scope| {
            for thread in 0..threads as u64 {
                let (allocator, size) = (&allocator, &size);
                scope.spawn(move || {
                    let mut rng = Seed::new(thread).rng();
                    let mut held: Vec<Held> = Vec::new();
                    for round in 0..rounds {
                        let byte = (round * 7 + thread) as u8 | 1;
                        let align = 1 << rng.below(14);
                        let layout = Layout::from_size_align(size(&mut rng), align).unwrap();
                        let at = rng.below(held.len().max(1));
                        // SAFETY: blocks are used inside their layouts and freed once.
                        unsafe {
                            match rng.below(4) {
                                0 => held.push(Held::fill(allocator.alloc(layout), layout, byte)),
                                1 => {
                                    let block = allocator.alloc_zeroed(layout);
                                    Held { block, layout, byte: 0 }.check(layout.size(), 0);
                                    held.push(Held::fill(block, layout, byte));
                                }
                                2 if !held.is_empty() => {
                                    let old = held.swap_remove(at);
                                    let new = Layout::from_size_align(layout.size(), old.layout.align()).unwrap();
                                    let block = allocator.realloc(old.block, old.layout, new.size());
                                    let kept = Held { block, layout: new, byte };
                                    kept.check(new.size().min(old.layout.size()), old.byte);
                                    held.push(Held::fill(block, new, byte));
                                }
                                _ if !held.is_empty() => {
                                    let old = held.swap_remove(at);
                                    old.check(old.layout.size(), old.byte);
                                    allocator.dealloc(old.block, old.layout);
                                }
                                _ => {}
                            }
                        }
                        if held.len() > 6 {
                            let old = held.remove(0);
                            old.check(old.layout.size(), old.byte);
                            // SAFETY: freed once, with its layout.
                            unsafe { allocator.dealloc(old.block, old.layout) };
                        }
                    }
                    for old in held {
                        old.check(old.layout.size(), old.byte);
                        // SAFETY: freed once, with its layout.
                        unsafe { allocator.dealloc(old.block, old.layout) };
                    }
                });
            }
        });
        let idle = allocator.lock();
        assert_eq!(idle.used, 0, "all came back");
        assert_eq!(idle.blocks[..idle.count].iter().map(|block| block.size).sum::<usize>(), idle.bytes);
        assert!(idle.bytes <= idle.most && idle.count <= PLACES);
    }

    #[test]
    fn classes_waste_little() {
        for size in [LARGE, LARGE + 1, 1_000_000, 12_345_678, 1 << 30] {
            let class = class(layout(size)).unwrap();
            assert!(class.size() >= size && class.size() <= size + size / 8 + 4096);
        }
        assert!(class(layout(LARGE - 1)).is_none());
    }
}
