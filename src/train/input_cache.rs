//! The inputs of a network: views, or features that are computed once where encoder and views do not change.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::image_loader::ImageLoader;
use super::infer::{self, Layer};
use kinset_augment::Recipe;
use kinset_base::seed::Seed;
use kinset_model::{ClassifierNet, EncoderNet, Mode};
use kinset_stage::{Context, StageError};

/// Images as a network reads them.
#[derive(Clone, Debug)]
pub enum CachedInputs<'a> {
    /// Images, of which views are made.
    Views(ImageLoader<'a>),
    /// Features `[N, D]` that were computed before; nothing random is left in them.
    Features(Tensor),
}

impl<'a> CachedInputs<'a> {
    /// Images; or, if `fixed` says that encoder and views do not change, their features, computed now.
    pub fn of(loader: ImageLoader<'a>, fixed: bool, net: &EncoderNet, cx: &Context<'_>) -> Result<Self, StageError> {
        if !fixed {
            return Ok(Self::Views(loader));
        }
        Ok(Self::Features(Tensor::from_vec(encode(net, &loader, cx)?, (loader.len(), net.dim()), &cx.device)?))
    }

    /// Images, N.
    pub fn len(&self) -> usize {
        match self {
            Self::Views(loader) => loader.len(),
            Self::Features(features) => features.dims().first().copied().unwrap_or(0),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn are_features(&self) -> bool {
        matches!(self, Self::Features(_))
    }

    /// Views `[B, C, S, S]` of these images, or their features `[B, D]`.
    pub fn read(&self, rows: &[usize], recipe: &Recipe, views: Seed) -> Result<Tensor, StageError> {
        match self {
            Self::Views(loader) => Ok(loader.views(rows, recipe, views)?),
            Self::Features(features) => Ok(features.index_select(&row_tensor(rows, features.device())?, 0)?),
        }
    }

    /// The same of a range of plain images.
    pub fn plain(&self, rows: Range<usize>) -> Result<Tensor, StageError> {
        match self {
            Self::Views(loader) => Ok(loader.plain_range(rows)?),
            Self::Features(features) => Ok(features.narrow(0, rows.start, rows.len())?),
        }
    }

    /// Features `[B, D]` of what was read.
    pub fn features(&self, net: &ClassifierNet, read: Tensor, mode: Mode) -> Result<Tensor, StageError> {
        if self.are_features() { Ok(read) } else { Ok(net.features(&read, mode)?) }
    }
}

pub fn row_tensor(rows: &[usize], device: &Device) -> candle_core::Result<Tensor> {
    Tensor::new(rows.iter().map(|&row| row as u32).collect::<Vec<_>>(), device)
}

/// Backbone features of all plain images, `[N, D]`, behind a progress bar.
pub fn encode(net: &EncoderNet, loader: &ImageLoader<'_>, cx: &Context<'_>) -> Result<Vec<f32>, StageError> {
    let bar = cx.bar(loader.len() as u64, "images encoded");
    infer::features(net, Layer::Backbone, loader, |done| {
        bar.advance(done as u64);
        cx.check()
    })
}
