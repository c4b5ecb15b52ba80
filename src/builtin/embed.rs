//! Images through an encoder, to features in Parquet.

use serde::{Deserialize, Serialize};

use kinset_artifact::encoder::Encoder;
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::{Draft, Stored};
use kinset_math::cosine;
use kinset_model::encoder::EncoderNet;
use kinset_stage::{Context, Stage, StageError};
use kinset_train::image_loader::ImageLoader;
use kinset_train::infer::{self, Layer};

/// Which layer becomes the features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerChoice {
    /// The projection head's output where there is one (SCAN mines on it after SimCLR), else the backbone's.
    #[default]
    Auto,
    /// The backbone's output (SCAN mines on it after MoCo).
    Backbone,
    Projection,
}

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Which layer becomes the features.
        layer: LayerChoice = LayerChoice::Auto;
        /// Whether features are brought to unit length.
        normalize: bool = true;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// Image → `[D]`.
        encoder: Stored<Encoder>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[N, D]`.
        features: Draft<Features>,
    }
}

/// Feature extraction.
#[derive(Debug)]
pub struct Embed;

impl Stage for Embed {
    const KIND: &'static str = "embed";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "compute the features of images with an encoder";
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let images = ImageSet::open(&input.images)?;
        let encoder = Encoder::load(&input.encoder)?;
        let architecture = &encoder.card.architecture;
        let loader =
            ImageLoader::like(&images, architecture.channels, architecture.size, &encoder.card.normalization, &cx.device)?;
        let net = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &cx.device)?;
        let (layer, dim) = match (config.layer, &architecture.projection) {
            (LayerChoice::Auto | LayerChoice::Projection, Some(projection)) => (Layer::Projection, projection.dim),
            (LayerChoice::Auto | LayerChoice::Backbone, _) => (Layer::Backbone, net.dim()),
            (LayerChoice::Projection, None) => {
                return Err(StageError::Mismatch {
                    what: format!("the encoder of `{}` has no projection head", input.encoder.origin()),
                    hint: "set `layer = \"backbone\"`".into(),
                });
            }
        };
        let bar = cx.bar(images.len() as u64, "images");
        let mut values = infer::features(&net, layer, &loader, |done| {
            bar.advance(done as u64);
            cx.check()
        })?;
        if config.normalize {
            let zero = cosine::normalize_rows(&mut values, dim);
            if !zero.is_empty() {
                cx.warn(format!("{} images have features that are all 0, and cannot be normalized", zero.len()));
            }
        }
        let table = FeatureTable {
            ids: images.ids().to_vec(),
            dim,
            values,
            normalized: config.normalize,
            encoder: input.encoder.digest().hex(),
            layer: match layer {
                Layer::Backbone => "backbone".into(),
                Layer::Projection => "projection".into(),
            },
        };
        Ok(Out { features: table.save(&cx.out("features")?)? })
    }
}
