//! Batches of images, in the order of the set or shuffled.
//!
//! The order of an epoch is a function of seed and epoch number, so a resumed run needs nothing but its place in the epoch.

use std::ops::Range;

use super::error::{Result, TrainError};
use kinset_base::seed::Seed;

/// What becomes of the last batch of an epoch when the images do not fill it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is dropped: batch statistics and batch losses want full batches.
    Drop,
    /// It is kept, smaller.
    Keep,
    /// It is kept, but one image alone joins the batch before: batch statistics need two.
    Join,
}

/// How a set is cut into batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    images: usize,
    batch: usize,
    last: Last,
}

impl Batches {
    /// Cuts `images` images into batches of `batch`.
    ///
    /// # Errors
    /// [`TrainError::NoImages`]; [`TrainError::Setting`] for a batch of 0; [`TrainError::BatchTooLarge`] if every batch would
    /// be dropped.
    pub fn new(images: usize, batch: usize, last: Last) -> Result<Self> {
        if images == 0 {
            return Err(TrainError::NoImages);
        }
        if batch == 0 {
            return Err(TrainError::Setting { setting: "batch", found: "0".into(), wanted: "at least 1" });
        }
        if batch > images && last == Last::Drop {
            return Err(TrainError::BatchTooLarge { batch, images });
        }
        Ok(Self { images, batch, last })
    }

    /// Batches per epoch.
    pub fn len(&self) -> usize {
        match self.last {
            Last::Drop => self.images / self.batch,
            Last::Keep => self.images.div_ceil(self.batch),
            Last::Join => self.images.div_ceil(self.batch) - usize::from(self.leaves_one()),
        }
    }

    fn leaves_one(&self) -> bool {
        self.batch > 1 && self.images > self.batch && self.images % self.batch == 1
    }

    /// Never: a set has a batch.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The batches of an epoch in a random order of the images, as rows of the set.
    pub fn shuffled(&self, seed: Seed, epoch: usize) -> Vec<Vec<usize>> {
        let order = seed.branch("order").at(epoch as u64).rng().permutation(self.images);
        self.in_order().map(|rows| order[rows].to_vec()).collect()
    }

    /// The batches in the order of the set.
    pub fn in_order(&self) -> impl ExactSizeIterator<Item = Range<usize>> + use<> {
        let (Self { images, batch, .. }, count) = (*self, self.len());
        // The last one takes what is left; where the rest is dropped, that is a full batch.
        let end = if self.last == Last::Drop { count * batch } else { images };
        (0..count).map(move |i| i * batch..if i + 1 == count { end } else { (i + 1) * batch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_visits_each_image_once_and_epochs_differ() {
        let batches = Batches::new(10, 3, Last::Keep).unwrap();
        let (one, two) = (batches.shuffled(Seed::new(1), 0), batches.shuffled(Seed::new(1), 1));
        assert_eq!(one.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 3, 1]);
        let mut rows = one.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..10).collect::<Vec<_>>());
        assert_ne!(one, two);
        assert_eq!(one, batches.shuffled(Seed::new(1), 0));
    }

    #[test]
    fn the_partial_batch_is_dropped_or_kept() {
        assert_eq!(Batches::new(10, 3, Last::Drop).unwrap().in_order().collect::<Vec<_>>(), [0..3, 3..6, 6..9]);
        assert_eq!(Batches::new(10, 5, Last::Drop).unwrap().len(), 2);
        assert_eq!(Batches::new(9, 4, Last::Join).unwrap().in_order().collect::<Vec<_>>(), [0..4, 4..9]);
        assert_eq!(Batches::new(10, 4, Last::Join).unwrap().in_order().collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        assert_eq!(Batches::new(3, 1, Last::Join).unwrap().len(), 3, "batches of one are asked for");
        assert!(Batches::new(2, 5, Last::Keep).unwrap().in_order().eq(std::iter::once(0..2)));
        // methods/scan.md section 1: steps per epoch of the published settings.
        assert_eq!(Batches::new(50_000, 512, Last::Drop).unwrap().len(), 97);
        assert_eq!(Batches::new(105_000, 512, Last::Drop).unwrap().len(), 205);
    }

    #[test]
    fn what_would_train_on_nothing_is_an_error() {
        let error = Batches::new(100, 512, Last::Drop).unwrap_err();
        assert_eq!(error.to_string(), "the batch is `512`, but there are only 100 images");
        assert!(matches!(Batches::new(0, 1, Last::Keep), Err(TrainError::NoImages)));
        assert!(matches!(Batches::new(5, 0, Last::Keep), Err(TrainError::Setting { .. })));
    }
}
