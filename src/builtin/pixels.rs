//! The pixels themselves as an encoder: a baseline for learned encoders.

use kinset_artifact::encoder::{Backbone, Encoder, Stem};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::{Draft, Stored};
use kinset_base::unit;
use kinset_model::encoder::{EncoderNet, architecture};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::image_loader::ImageLoader;

/// The most features of an image: 1,024 × 1,024 pixels in color are three million.
const MOST: usize = 4 << 20;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Side the images are brought to, pixels; unset: their own.
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
        let (side, channels) = (loader.size(), images.channels());
        if side * side * channels > MOST {
            let of = unit::counted(channels as u64, "channel");
            let what =
                format!("{side} × {side} pixels of {of} are more than {} features of an image", unit::count(MOST as u64));
            return Err(StageError::Mismatch {
                what,
                hint: "set `size`, the side that images are brought to, as `size = 64`".into(),
            });
        }
        let shape = architecture(Backbone::Pixels, Stem::Cifar, 1, images.channels(), loader.size(), None)?;
        let net = EncoderNet::init(&shape, cx.seed, &cx.device)?;
        let encoder = Encoder { card: net.card(loader.normalization().clone()), tensors: net.to_tensors()? };
        Ok(Out { encoder: encoder.save(&cx.out("encoder")?)? })
    }
}
