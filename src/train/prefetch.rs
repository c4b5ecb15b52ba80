//! Prefetching of the next batch during the step on the current one.
//!
//! Views are made on the processor; while a network computes (elsewhere, or in a stretch that keeps one core busy), the other
//! cores would wait. What is made depends on epoch and step alone, so making it early changes no bit.

use rayon::join;

/// Holds the batch that was made early.
#[derive(Debug)]
pub struct Prefetcher<T, E> {
    ready: Option<(Place, Result<T, E>)>,
    early: bool,
}

/// Where a batch belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Counted from 0.
    pub epoch: u64,
    /// Within the epoch, counted from 0.
    pub step: u64,
    /// Steps in an epoch.
    pub steps: u64,
}

impl<T, E> Default for Prefetcher<T, E> {
    fn default() -> Self {
        Self::new(true)
    }
}

impl<T, E> Prefetcher<T, E> {
    /// Makes batches early, or, where making one is less work than waking another thread, when they are wanted.
    pub fn new(early: bool) -> Self {
        Self { ready: None, early }
    }
}

impl<T: Send, E: Send> Prefetcher<T, E> {
    /// Does `work` on the batch of this place, and makes the next one of the same epoch meanwhile.
    pub fn step<R: Send>(
        &mut self,
        at: Place,
        make: impl Fn(u64) -> Result<T, E> + Sync,
        work: impl FnOnce(T) -> Result<R, E> + Send,
    ) -> Result<R, E> {
        let batch = match self.ready.take() {
            Some((place, batch)) if place == at => batch?,
            _ => make(at.step)?,
        };
        let next = Place { step: at.step + 1, ..at };
        if next.step >= at.steps || !self.early {
            return work(batch);
        }
        // A batch that cannot be made fails its own step, not this one.
        let (done, made) = join(|| work(batch), || make(next.step));
        self.ready = Some((next, made));
        done
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_step_gets_its_own_batch_made_once() {
        let made = Mutex::new(Vec::new());
        let mut ahead: Prefetcher<u64, String> = Prefetcher::default();
        let mut seen = Vec::new();
        for epoch in 0..2 {
            for step in 0..3 {
                let make = |step| {
                    made.lock().unwrap().push((epoch, step));
                    Ok(epoch * 10 + step)
                };
                seen.push(ahead.step(Place { epoch, step, steps: 3 }, make, Ok).unwrap());
            }
        }
        assert_eq!(seen, [0, 1, 2, 10, 11, 12]);
        assert_eq!(*made.lock().unwrap(), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_batch_that_cannot_be_made_fails_its_own_step() {
        let mut ahead: Prefetcher<u64, String> = Prefetcher::default();
        let make = |step| if step == 1 { Err("torn".to_owned()) } else { Ok(step) };
        assert_eq!(ahead.step(Place { epoch: 0, step: 0, steps: 2 }, make, Ok), Ok(0));
        assert_eq!(ahead.step(Place { epoch: 0, step: 1, steps: 2 }, make, Ok), Err("torn".to_owned()));
    }

    #[test]
    fn what_is_little_work_is_made_when_it_is_wanted() {
        let made = Mutex::new(Vec::new());
        let mut ahead: Prefetcher<u64, String> = Prefetcher::new(false);
        for step in 0..2 {
            let make = |step| {
                made.lock().unwrap().push(step);
                Ok(step)
            };
            assert_eq!(ahead.step(Place { epoch: 0, step, steps: 2 }, make, Ok), Ok(step));
            assert_eq!(made.lock().unwrap().len() as u64, step + 1);
        }
    }

    #[test]
    fn a_batch_of_another_place_is_not_used() {
        let mut ahead: Prefetcher<u64, String> = Prefetcher::default();
        let at = |epoch, step| Place { epoch, step, steps: 9 };
        ahead.step(at(0, 0), Ok, Ok).unwrap();
        assert_eq!(ahead.step(at(0, 5), |step| Ok(100 + step), Ok), Ok(105), "a resumed run jumps");
    }
}
