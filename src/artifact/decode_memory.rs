//! The memory of pictures that are being decoded: one bound for all threads of the process.

use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

use kinset_base::memory;

/// Bytes that pictures usually may take while they are decoded, together; one that needs more is decoded alone.
const USUAL: u64 = 1 << 30;

/// What threads share: pictures are decoded wherever pixels are wanted, and each thread's share cannot be known before.
static MEMORY: LazyLock<Memory> =
    LazyLock::new(|| Memory { most: memory::share(USUAL), used: Mutex::new(0), freed: Condvar::new() });

struct Memory {
    most: u64,
    used: Mutex<u64>,
    freed: Condvar,
}

/// Memory that is taken, until it is dropped.
pub(super) struct Share {
    of: &'static Memory,
    bytes: u64,
}

/// Waits until a picture of so many bytes has room. Whoever has a share must not ask for another.
pub(super) fn share(bytes: u64) -> Share {
    MEMORY.share(bytes)
}

impl Memory {
    fn share(&'static self, bytes: u64) -> Share {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |used: &mut u64| *used > 0 && used.saturating_add(bytes) > self.most;
        let mut used = self.freed.wait_while(used, full).unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_add(bytes);
        Share { of: self, bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.of.used.lock().unwrap_or_else(PoisonError::into_inner);
        *used = used.saturating_sub(self.bytes);
        self.of.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn pictures_that_are_decoded_together_share_the_memory_and_large_ones_are_alone() {
        static SMALL: Memory = Memory { most: 100, used: Mutex::new(0), freed: Condvar::new() };
        static NOW: AtomicU64 = AtomicU64::new(0);
        let worst = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let worst = &worst;
                scope.spawn(move || {
                    for step in 0..50 {
                        let bytes = if (thread + step) % 7 == 0 { 1000 } else { 40 };
                        let share = SMALL.share(bytes);
                        let now = NOW.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        worst.fetch_max(if now > 1000 { 2 } else { u64::from(now > 100 && now != 1000) }, Ordering::SeqCst);
                        std::thread::yield_now();
                        NOW.fetch_sub(bytes, Ordering::SeqCst);
                        drop(share);
                    }
                });
            }
        });
        assert_eq!(worst.into_inner(), 0, "more than 100 together, or something beside a large one");
        assert_eq!(*SMALL.used.lock().unwrap(), 0);
    }
}
