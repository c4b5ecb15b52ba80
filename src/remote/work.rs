//! Transfers of several objects at once.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kinset_base::stop::Stop;

use super::error::{RemoteError, Result};

/// So many objects move at once.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// Somebody who waits for objects to move.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub stop: &'a Stop,
    /// Hears how many more bytes have moved. From several threads.
    pub moved: &'a (dyn Fn(u64) + Sync),
}

/// Does the same with all, some at once. The first error ends it.
pub(super) fn side_by_side<T: Sync>(items: &[T], stop: &Stop, act: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let first: Mutex<Option<RemoteError>> = Mutex::new(None);
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            if let Err(error) = stop.check().map_err(RemoteError::from).and_then(|()| act(item)) {
                over.store(true, Ordering::Relaxed);
                first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_ONCE.get().min(items.len()) {
            // One that cannot be had is not missed: this thread works as well.
            let _ = std::thread::Builder::new().name("cache".into()).spawn_scoped(scope, work);
        }
        work();
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
