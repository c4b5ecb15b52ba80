//! The image loader: batches of stored images on a device, augmented by a recipe or plain.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::error::{Result, TrainError};
use kinset_artifact::encoder::Normalization;
use kinset_artifact::images::ImageSet;
use kinset_augment::{Plain, Recipe, Viewer, statistics};
use kinset_base::seed::Seed;
use kinset_base::stop::Stop;

/// Images, the size a network sees them at, and how their channels are normalized.
#[derive(Clone, Debug)]
pub struct ImageLoader<'a> {
    images: &'a ImageSet,
    size: usize,
    normalization: Normalization,
    device: Device,
}

impl<'a> ImageLoader<'a> {
    /// Images for a network that is new to them: their own size unless one is given, their own channel statistics.
    ///
    /// # Errors
    /// [`TrainError::NoSize`] if sizes vary and none is given; an image that cannot be decoded.
    pub fn of(images: &'a ImageSet, size: Option<usize>, device: &Device, stop: &Stop) -> Result<Self> {
        let normalization = statistics::channels(images, stop)?;
        Ok(Self { images, size: size_of(images, size)?, normalization, device: device.clone() })
    }

    /// Images as plain numbers 0–1: nothing is taken from them and nothing divided.
    ///
    /// # Errors
    /// [`TrainError::NoSize`] if sizes vary and none is given.
    pub fn raw(images: &'a ImageSet, size: Option<usize>, device: &Device) -> Result<Self> {
        let channels = images.channels();
        let normalization = Normalization::new(vec![0.0; channels], vec![1.0; channels]);
        Ok(Self { images, size: size_of(images, size)?, normalization, device: device.clone() })
    }

    /// Images for a network that was trained before: its size and its channel statistics.
    ///
    /// # Errors
    /// [`TrainError::Channels`] if the network saw gray images and these are color, or the other way round.
    pub fn like(
        images: &'a ImageSet,
        channels: usize,
        size: usize,
        normalization: &Normalization,
        device: &Device,
    ) -> Result<Self> {
        // Published networks were trained on color, and see gray pictures as three equal channels.
        let spread = images.channels() == 1 && channels == 3 && normalization.resize.is_some();
        if images.channels() != channels && !spread {
            return Err(TrainError::Channels { network: channels, images: images.channels() });
        }
        Ok(Self { images, size, normalization: normalization.clone(), device: device.clone() })
    }

    pub fn len(&self) -> usize {
        self.images.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Side of a view, pixels.
    pub fn size(&self) -> usize {
        self.size
    }

    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// One random view of each image. `seed` is the branch of this epoch and view; every image draws from its own leaf, so a
    /// view depends neither on the batch nor on threads.
    ///
    /// # Shapes
    /// Returns `[B, C, S, S]`, normalized.
    pub fn views(&self, rows: &[usize], recipe: &Recipe, seed: Seed) -> Result<Tensor> {
        let viewer = viewer(recipe, self.size, &self.normalization)?;
        let values = viewer.views(self.images, rows, |row| seed.at(row as u64))?;
        self.tensor(values, rows.len())
    }

    /// The images as they are: resized and center-cropped to the size where that is not theirs, as the network came to be.
    ///
    /// # Shapes
    /// Returns `[B, C, S, S]`, normalized.
    pub fn plain(&self, rows: &[usize]) -> Result<Tensor> {
        self.views(rows, &Plain::default().into(), Seed::new(0))
    }

    pub fn plain_range(&self, rows: Range<usize>) -> Result<Tensor> {
        self.plain(&rows.collect::<Vec<_>>())
    }

    fn tensor(&self, values: Vec<f32>, rows: usize) -> Result<Tensor> {
        Ok(Tensor::from_vec(values, (rows, self.normalization.mean.len(), self.size, self.size), &self.device)?)
    }
}

/// What makes the views of a network: by the recipe, or, where it says nothing, in the way the network came with.
pub(super) fn viewer(recipe: &Recipe, size: usize, normalization: &Normalization) -> Result<Viewer> {
    let Normalization { mean, std, resize } = normalization;
    Ok(match (recipe, resize) {
        (Recipe::Plain(Plain { resize: None }), Some(resize)) => Viewer::prepared(*resize, size, mean, std)?,
        (_, Some(_)) => Viewer::new(recipe, size, mean, std)?.with_gray(),
        (_, None) => Viewer::new(recipe, size, mean, std)?,
    })
}

/// The side a network sees images at: the one that is given, else their own.
fn size_of(images: &ImageSet, given: Option<usize>) -> Result<usize> {
    match (given, images.fixed_size()) {
        (Some(size), _) => Ok(size),
        (None, Some((width, height))) => Ok(width.min(height)),
        (None, None) => Err(TrainError::NoSize),
    }
}
