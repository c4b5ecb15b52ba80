//! The pixels themselves as an encoder: a baseline for learned encoders.

use kinset_artifact::encoder::{Backbone, Encoder, Stem};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::{Draft, Stored};
use kinset_model::encoder::{EncoderNet, architecture};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::image_loader::ImageLoader;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Side the images are brought to, pixels; none: their own.
        size: Option<usize> = None;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// Whose size and channels the encoder takes.
        images: Stored<Images>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// Image → its pixels.
        encoder: Draft<Encoder>,
    }
}

/// The identity encoder.
#[derive(Debug)]
pub struct Pixels;

impl Stage for Pixels {
    const KIND: &'static str = "pixels";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "use the raw pixels as features: the simplest baseline";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        cx.check()?;
        let images = ImageSet::open(&input.images)?;
        let loader = ImageLoader::raw(&images, config.size, &cx.device)?;
        let shape = architecture(Backbone::Pixels, Stem::Cifar, 1, images.channels(), loader.size(), None)?;
        let net = EncoderNet::init(&shape, cx.seed, &cx.device)?;
        let encoder = Encoder { card: net.card(loader.normalization().clone()), tensors: net.to_tensors()? };
        Ok(Out { encoder: encoder.save(&cx.out("encoder")?)? })
    }
}
