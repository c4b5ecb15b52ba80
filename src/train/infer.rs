//! Inference: a whole set through a network in evaluation mode, in chunks.

use candle_core::{Device, Tensor};

use super::error::TrainError;
use super::image_loader::{ImageLoader, viewer};
use kinset_artifact::encoder::Classifier;
use kinset_artifact::pixels::Pixels;
use kinset_augment::{Plain, Viewer};
use kinset_base::seed::Seed;
use kinset_model::ClassifierNet;
use kinset_model::Mode;
use kinset_model::encoder::EncoderNet;
use kinset_model::params::values;

/// Images per chunk: large enough for full-speed products, small enough for the activations of a ResNet-50 at 224 px to fit.
pub const CHUNK: usize = 256;

/// Rows of features per chunk.
const ROWS: usize = 4096;

/// Which layer of an encoder to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The backbone's output, as it is.
    Backbone,
    /// The projection head's output, of unit length.
    Projection,
    /// A layer inside the backbone, by its place in [`EncoderNet::layers`].
    Inner(usize),
}

/// Runs a set through `network` chunk by chunk, from where `done` images gave `all`; `tick` hears how many more are done and what all
/// gave, and may stop.
fn collect<E: From<TrainError>>(
    loader: &ImageLoader<'_>,
    network: impl Fn(&Tensor) -> Result<Tensor, TrainError>,
    (mut done, mut all): (usize, Vec<f32>),
    mut tick: impl FnMut(usize, &[f32]) -> Result<(), E>,
) -> Result<Vec<f32>, E> {
    while done < loader.len() {
        let end = (done + CHUNK).min(loader.len());
        let images = loader.plain_range(done..end).map_err(E::from)?;
        let out = network(&images).map_err(E::from)?;
        let out = values(&out).map_err(|error| E::from(error.into()))?;
        all.reserve_exact((out.len() / (end - done) * loader.len()).saturating_sub(all.len()));
        all.extend_from_slice(&out);
        tick(end - done, &all)?;
        done = end;
    }
    Ok(all)
}

/// A classifier that stands ready for pictures as they come.
#[derive(Clone, Debug)]
pub struct Predictor {
    net: ClassifierNet,
    head: usize,
    viewer: Viewer,
    device: Device,
}

impl Predictor {
    pub fn new(classifier: &Classifier, device: &Device) -> Result<Self, TrainError> {
        let card = &classifier.card;
        let viewer = viewer(&Plain::default().into(), card.encoder.architecture.size, &card.encoder.normalization)?;
        let net = ClassifierNet::from_tensors(card, &classifier.tensors, device)?.frozen()?;
        Ok(Self { net, head: card.head, viewer, device: device.clone() })
    }

    /// Channels of what it sees, 1 or 3.
    pub fn channels(&self) -> usize {
        self.viewer.channels()
    }

    /// K.
    pub fn clusters(&self) -> usize {
        self.net.clusters()
    }

    /// What the network sees of a picture of these channels: resized, cut in the middle, normalized. `[C, S, S]`.
    ///
    /// # Errors
    /// A picture of other channels.
    pub fn view(&self, picture: Pixels) -> Result<Vec<f32>, TrainError> {
        Ok(self.viewer.views(&[picture][..], &[0], |_| Seed::new(0))?)
    }

    /// Probabilities of the chosen head.
    ///
    /// # Shapes
    /// `views`: `[B, C, S, S]`, one after the other. Returns `[B, K]`, row-major.
    ///
    /// # Errors
    /// Numbers that are no such views; a device without room.
    pub fn probabilities(&self, views: Vec<f32>) -> Result<Vec<f32>, TrainError> {
        let (channels, size) = (self.viewer.channels(), self.viewer.size());
        let images = Tensor::from_vec(views, ((), channels, size, size), &self.device)?;
        Ok(values(&self.net.decide(self.head, &self.net.features(&images, Mode::Eval)?)?)?)
    }
}

/// Features of all images.
///
/// # Shapes
/// Returns `[N, D]`, `[N, P]` for the projection, `[N, D']` for an inner layer, row-major.
pub fn features<E: From<TrainError>>(
    net: &EncoderNet,
    layer: Layer,
    loader: &ImageLoader<'_>,
    mut tick: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<f32>, E> {
    features_from(net, layer, loader, (0, Vec::new()), |done, _| tick(done))
}

/// The same from where another call stopped: `before` are the images that were done, whole chunks of them, and their features.
///
/// # Shapes
/// As [`features`].
pub fn features_from<E: From<TrainError>>(
    net: &EncoderNet,
    layer: Layer,
    loader: &ImageLoader<'_>,
    before: (usize, Vec<f32>),
    tick: impl FnMut(usize, &[f32]) -> Result<(), E>,
) -> Result<Vec<f32>, E> {
    let net = net.frozen().map_err(|error| E::from(error.into()))?;
    let network = |images: &Tensor| {
        Ok(match layer {
            Layer::Backbone => net.features(images, Mode::Eval)?,
            Layer::Projection => net.project(&net.features(images, Mode::Eval)?, Mode::Eval)?,
            Layer::Inner(layer) => net.inner(images, layer)?,
        })
    };
    collect(loader, network, before, tick)
}

/// Cluster probabilities of features by the head that counts, a chunk at a time.
///
/// # Shapes
/// `features`: `[N, D]`, row-major, as the heads read them. Returns `[N, K]`, row-major.
pub fn of_features<E: From<TrainError>>(
    net: &ClassifierNet,
    head: usize,
    features: &[f32],
    device: &Device,
    mut tick: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<f32>, E> {
    let run = |rows: &[f32]| -> Result<Vec<f32>, TrainError> {
        let dim = net.encoder().architecture().output();
        let rows = Tensor::from_slice(rows, (rows.len() / dim, dim), device)?;
        Ok(values(&net.decide(head, &rows)?)?)
    };
    let mut all = Vec::with_capacity(features.len() / net.encoder().architecture().output() * net.clusters());
    for rows in features.chunks(ROWS * net.encoder().architecture().output()) {
        all.extend(run(rows).map_err(E::from)?);
        tick(rows.len() / net.encoder().architecture().output())?;
    }
    Ok(all)
}

/// Cluster probabilities of all images by some heads.
///
/// # Shapes
/// Returns one `[N, K]` per head, row-major.
pub fn probabilities<E: From<TrainError>>(
    net: &ClassifierNet,
    heads: &[usize],
    loader: &ImageLoader<'_>,
    tick: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Vec<f32>>, E> {
    let heads: Vec<(&ClassifierNet, usize)> = heads.iter().map(|&head| (net, head)).collect();
    predict_ensemble(&heads, loader, tick)
}

/// The same by heads of several classifiers that stand on equal backbones: the images go through that of the first, once.
///
/// # Shapes
/// Returns one `[N, K]` per head, row-major.
pub fn predict_ensemble<E: From<TrainError>>(
    heads: &[(&ClassifierNet, usize)],
    loader: &ImageLoader<'_>,
    mut tick: impl FnMut(usize) -> Result<(), E>,
) -> Result<Vec<Vec<f32>>, E> {
    let frozen = |&(net, head): &(&ClassifierNet, usize)| Ok((net.frozen()?, head));
    let heads = heads.iter().map(frozen).collect::<Result<Vec<_>, TrainError>>().map_err(E::from)?;
    let Some((first, _)) = heads.first() else { return Ok(Vec::new()) };
    let network = |images: &Tensor| {
        let backbone = first.encoder().features(images, Mode::Eval)?;
        let said = |(net, head): &(ClassifierNet, usize)| Ok(net.decide(*head, &net.read(backbone.clone(), Mode::Eval)?)?);
        Ok(Tensor::cat(&heads.iter().map(said).collect::<Result<Vec<_>, TrainError>>()?, 1)?)
    };
    let all = collect(loader, network, (0, Vec::new()), |done, _| tick(done))?;
    let width: usize = heads.iter().map(|(net, _)| net.clusters()).sum();
    let mut at = 0;
    let columns = heads.iter().map(|(net, _)| {
        let from = at;
        at += net.clusters();
        from..at
    });
    Ok(columns.map(|own| all.chunks_exact(width).flat_map(|row| row[own.clone()].iter().copied()).collect()).collect())
}
