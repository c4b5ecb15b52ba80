//! Images through an encoder, to features in Parquet.

use schemars::JsonSchema;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
        let unfinished = cx.unfinished("embed 1");
        let (mut parts, mut values) = (0, Vec::new());
        for part in unfinished.parts::<Vec<f32>>()? {
            let done = (values.len() + part.len()) / dim;
            // Chunks are computed as a whole, so that a row's bits do not depend on where a run was stopped.
            if !(values.len() + part.len()).is_multiple_of(dim) || !(done.is_multiple_of(infer::CHUNK) || done == images.len())
            {
                break;
            }
            values.extend(part);
            parts += 1;
        }
        let done = values.len() / dim;
        if done > 0 {
            cx.note(format!("resuming at image {done} of {}", images.len()));
            bar.advance(done as u64);
        }
        let mut kept = values.len();
        let mut values = infer::features_from(&net, layer, &loader, (done, values), |done, all| {
            bar.advance(done as u64);
            let stop = cx.stop.requested();
            if stop || unfinished.is_due() {
                unfinished.add(parts, &all[kept..])?;
                (parts, kept) = (parts + 1, all.len());
            }
            if stop { Err(StageError::Stopped) } else { Ok(()) }
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
