//! Beginning and end of a pretext task: a new network; an encoder and a curve.

use super::image_loader::ImageLoader;
use crate::ports::EncoderOut;
use kinset_artifact::curve::{Curve, Point};
use kinset_artifact::encoder::Encoder;
use kinset_artifact::images::ImageSet;
use kinset_model::EncoderNet;
use kinset_model::settings::NetworkSettings;
use kinset_stage::{Context, StageError};

/// The images as they will be fed (their own size unless one is given, their own channel statistics), and a network of these
/// settings with random weights.
///
/// # Errors
/// Images of many sizes and none given; settings no network can have.
pub fn begin<'a>(
    images: &'a ImageSet,
    size: Option<usize>,
    network: &NetworkSettings,
    cx: &Context<'_>,
) -> Result<(ImageLoader<'a>, EncoderNet), StageError> {
    let loader = ImageLoader::of(images, size, &cx.device, &cx.stop)?;
    let architecture = network.architecture(images.channels(), loader.size())?;
    let net = EncoderNet::init(&architecture, cx.seed.branch("weights"), &cx.device)?;
    Ok((loader, net))
}

/// Writes the outputs `encoder` and `curve`.
pub fn finish(
    net: &EncoderNet,
    loader: &ImageLoader<'_>,
    points: Vec<Point>,
    cx: &Context<'_>,
) -> Result<EncoderOut, StageError> {
    let encoder = Encoder { card: net.card(loader.normalization().clone()), tensors: net.to_tensors()? };
    Ok(EncoderOut { encoder: encoder.save(&cx.out("encoder")?)?, curve: Curve { points }.save(&cx.out("curve")?)? })
}
