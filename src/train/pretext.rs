//! How does a pretext begin and end? With a new network for images it has never seen, and with an encoder and a curve.

use crate::feed::Feed;
use kinset_artifact::Draft;
use kinset_artifact::curve::{Curve, Point};
use kinset_artifact::encoder::Encoder;
use kinset_artifact::images::ImageSet;
use kinset_model::EncoderNet;
use kinset_model::settings::NetworkSettings;
use kinset_stage::context::Context;
use kinset_stage::error::StageError;

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
) -> Result<(Feed<'a>, EncoderNet), StageError> {
    let feed = Feed::of(images, size, &cx.device)?;
    let architecture = network.architecture(images.channels(), feed.size())?;
    let net = EncoderNet::init(&architecture, cx.seed.branch("weights"), &cx.device)?;
    Ok((feed, net))
}

/// Writes the outputs `encoder` and `curve`.
///
/// # Errors
/// If they cannot be written.
pub fn finish(
    net: &EncoderNet,
    feed: &Feed<'_>,
    points: Vec<Point>,
    cx: &Context<'_>,
) -> Result<(Draft<Encoder>, Draft<Curve>), StageError> {
    let encoder = Encoder { card: net.card(feed.normalization().clone()), tensors: net.to_tensors()? };
    Ok((encoder.save(&cx.out("encoder")?)?, Curve { points }.save(&cx.out("curve")?)?))
}
