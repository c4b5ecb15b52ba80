//! Requests to stop, and the error of work that was stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A request to stop, shared by those who may ask for it and those who work. Whoever works for long looks at it often: some ten
/// times a second.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    looks: Option<Looks>,
}

/// A stop that comes with a certain look at it: what tests stop by, since they cannot time it.
#[derive(Clone, Debug)]
struct Looks {
    until: u64,
    so_far: Arc<AtomicU64>,
}

/// Work was broken off on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped on request")]
pub struct Stopped;

impl Stop {
    /// Lets so many looks pass, and is a request from then on.
    pub fn after(looks: u64) -> Self {
        Self { looks: Some(Looks { until: looks, so_far: Arc::default() }), ..Self::default() }
    }

    /// How often somebody looked, of [`Stop::after`].
    pub fn looks(&self) -> u64 {
        self.looks.as_ref().map_or(0, |looks| looks.so_far.load(Ordering::Relaxed))
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// True once somebody asked, and from then on.
    pub fn requested(&self) -> bool {
        let come = |looks: &Looks| looks.so_far.fetch_add(1, Ordering::Relaxed) >= looks.until;
        self.looks.as_ref().is_some_and(come) || self.asked.load(Ordering::Relaxed)
    }

    /// Goes on, or stops because somebody asked.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn check(&self) -> Result<(), Stopped> {
        if self.requested() { Err(Stopped) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reaches_all_who_share_it_and_stays() {
        let (one, other) = (Stop::default(), Stop::default());
        let shared = one.clone();
        assert_eq!(shared.check(), Ok(()));
        one.request();
        assert_eq!((shared.check(), shared.check(), other.check()), (Err(Stopped), Err(Stopped), Ok(())));
    }

    #[test]
    fn a_stop_may_come_with_a_look() {
        let stop = Stop::after(2);
        let asked: Vec<bool> = (0..4).map(|_| stop.clone().requested()).collect();
        assert_eq!(asked, [false, false, true, true]);
        assert_eq!((stop.looks(), Stop::default().looks()), (4, 0));
    }
}
