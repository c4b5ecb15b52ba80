//! The pinning of candle to one thread, so that its threads do not compete with ours.
//!
//! Candle deals out every sum and every product of more than a few thousand numbers to threads of its own, and both sides wait
//! for each other without sleeping: the caller until the slowest is done, the others a millisecond for what may come next.
//! Between the small tensors of a loss that is most of what they do. They take the cores from the threads of our kernels and,
//! on a machine that others use too, spin through whole time slices (TURTLE's search on two cores: half of its CPU time, a
//! third to a half of its wall time). What is large enough to be worth two cores runs in our kernels anyway. Results are the
//! same: nothing is summed across candle's threads.
#![expect(unsafe_code, reason = "a variable of the environment is the only place candle reads it from")]

use std::ffi::OsStr;
use std::path::Path;

use kinset_base::fs;

/// What candle asks for the number of its threads, once, when it needs the first.
const THREADS: &str = "CANDLE_NUM_THREADS";

/// Has candle compute on the thread that calls it, unless somebody chose otherwise. The first thing a program does: returns
/// false, and does nothing, where the process has other threads already, or the system does not say (Linux does).
pub fn keep_candle_on_one_thread() -> bool {
    let alone = fs::list(Path::new("/proc/self/task")).is_ok_and(|threads| threads.len() == 1);
    if let Some(number) = wanted(std::env::var_os(THREADS).as_deref()).filter(|_| alone) {
        // SAFETY: the only thread of the process is this one, as the system just said, so nobody reads the environment
        // meanwhile.
        unsafe { std::env::set_var(THREADS, number) };
    }
    alone
}

/// What to set, if anything.
fn wanted(given: Option<&OsStr>) -> Option<&'static str> {
    given.is_none_or(OsStr::is_empty).then_some("1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_chose_stays() {
        assert_eq!(wanted(None), Some("1"));
        assert_eq!(wanted(Some(OsStr::new(""))), Some("1"));
        assert_eq!(wanted(Some(OsStr::new("2"))), None);
    }

    #[test]
    fn nothing_is_set_while_others_may_read() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || wait.recv());
        let before = std::env::var_os(THREADS);
        assert!(!keep_candle_on_one_thread(), "there are two threads at least");
        assert_eq!(std::env::var_os(THREADS), before);
        drop(go);
        assert!(other.join().unwrap().is_err());
    }
}
