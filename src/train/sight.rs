//! What does a network see of an image? A view; or, where encoder and views stand still, features that were computed once. And
//! whom does it see beside it: one of the image's mined neighbors.

use candle_core::{Device, Tensor};

use crate::feed::Feed;
use crate::infer::{self, Layer};
use kinset_artifact::images::ImageSet;
use kinset_artifact::neighbors::NeighborTable;
use kinset_augment::Recipe;
use kinset_base::seed::Seed;
use kinset_model::{ClassifierNet, EncoderNet, Mode};
use kinset_stage::context::Context;
use kinset_stage::error::StageError;

/// Images as a network sees them.
#[derive(Clone, Debug)]
pub struct Sight<'a> {
    /// The images.
    pub feed: Feed<'a>,
    /// Features of an encoder that stands still on views that stand still, `[N, D]`.
    pub cached: Option<Tensor>,
}

impl<'a> Sight<'a> {
    /// Images in views; or, if encoder and views stand still, their features, computed now.
    ///
    /// # Errors
    /// As [`encoded`].
    pub fn of(feed: Feed<'a>, still: bool, net: &EncoderNet, cx: &Context<'_>) -> Result<Self, StageError> {
        let cached = if still {
            let features = encoded(net, &feed, cx)?;
            Some(Tensor::from_vec(features, (feed.len(), net.dim()), &cx.device)?)
        } else {
            None
        };
        Ok(Self { feed, cached })
    }

    /// Views `[B, C, S, S]` of these images, or their features `[B, D]` if they are computed already.
    ///
    /// # Errors
    /// An image that cannot be decoded; a device without room.
    pub fn see(&self, rows: &[usize], recipe: &Recipe, views: Seed) -> Result<Tensor, StageError> {
        match &self.cached {
            Some(cached) => Ok(cached.index_select(&numbers(rows, cached.device())?, 0)?),
            None => Ok(self.feed.views(rows, recipe, views)?),
        }
    }

    /// Features `[B, D]` of what was seen.
    ///
    /// # Errors
    /// If the device fails.
    pub fn features(&self, net: &ClassifierNet, seen: Tensor, mode: Mode) -> Result<Tensor, StageError> {
        if self.cached.is_some() { Ok(seen) } else { Ok(net.features(&seen, mode)?) }
    }
}

/// Rows as a tensor of indices.
///
/// # Errors
/// If the device fails.
pub fn numbers(rows: &[usize], device: &Device) -> candle_core::Result<Tensor> {
    Tensor::new(rows.iter().map(|&row| row as u32).collect::<Vec<_>>(), device)
}

/// Backbone features of all plain images, `[N, D]`, behind a progress bar.
///
/// # Errors
/// Whatever the network says; [`StageError::Stopped`].
pub fn encoded(net: &EncoderNet, feed: &Feed<'_>, cx: &Context<'_>) -> Result<Vec<f32>, StageError> {
    let bar = cx.bar(feed.len() as u64, "images encoded");
    infer::features(net, Layer::Backbone, feed, |done| {
        bar.advance(done as u64);
        cx.check()
    })
}

/// The neighbors were mined on these images.
///
/// # Errors
/// [`StageError::Mismatch`] if not; `port` says which neighbors.
pub fn belongs(table: &NeighborTable, images: &ImageSet, port: &str) -> Result<(), StageError> {
    if table.ids.as_slice() == images.ids() {
        return Ok(());
    }
    Err(StageError::Mismatch {
        what: format!("`{port}` were mined on {} other images than the {} that are connected", table.ids.len(), images.len()),
        hint: "wire the neighbors of the features of the same images".into(),
    })
}

/// Draws one of the first `k` neighbors of an image, or with `include_self` perhaps the image itself; for this epoch, whatever
/// batch it is in.
pub fn partner(table: &NeighborTable, k: usize, include_self: bool, row: usize, epoch: u64, seed: Seed) -> usize {
    let own = usize::from(include_self);
    match seed.branch("partners").at(epoch).at(row as u64).rng().below(k.min(table.k) + own) {
        0 if own == 1 => row,
        drawn => table.neighbors(row)[drawn - own] as usize,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn partners_are_all_candidates_and_nobody_else_and_stay_for_an_epoch() {
        let table = NeighborTable {
            ids: (0..4).map(|row| row.to_string()).collect(),
            k: 3,
            index: vec![1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2],
            similarity: vec![0.5; 12],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        };
        let drawn =
            |k, own| -> BTreeSet<usize> { (0..64).map(|epoch| partner(&table, k, own, 1, epoch, Seed::new(1))).collect() };
        assert_eq!(drawn(2, false), BTreeSet::from([0, 2]));
        assert_eq!(drawn(2, true), BTreeSet::from([0, 1, 2]));
        assert_eq!(drawn(9, false), BTreeSet::from([0, 2, 3]), "no more than were mined");
        let again = |epoch| partner(&table, 3, true, 1, epoch, Seed::new(2));
        assert_eq!(again(5), again(5));
    }
}
