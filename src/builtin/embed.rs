//! Images through an encoder, to features in Parquet.

use kinset_artifact::encoder::Encoder;
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::{Draft, Stored};
use kinset_math::cosine;
use kinset_model::encoder::EncoderNet;
use kinset_stage::{Complaint, Context, Stage, StageError};
use kinset_train::image_loader::ImageLoader;
use kinset_train::infer::{self, Layer};

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Which layer becomes the features. `auto`: the projection head's output where there is one (SCAN mines on it after SimCLR), else
        /// the backbone's. `backbone`: the backbone's output (SCAN mines on it after MoCo). `projection`: the projection head's. Or a layer inside
        /// the backbone: `conv1` or a block, `layer3.1`, of a residual network, `conv1` to `conv5`, `fc1`, `fc2` of `alexnet`, a block, `blocks.5`, of a
        /// transformer; a map is averaged until it has at most 10,000 numbers.
        layer: String = "auto".into();
        /// Whether features are brought to unit length.
        normalize: bool = true;
    }
    and combinations
}

impl Config {
    /// Which layers an encoder has is known when it is there; what is the name of none is known before.
    fn combinations(&self) -> Option<Complaint> {
        let number = |text: &str| !text.is_empty() && text.len() < 6 && text.bytes().all(|byte| byte.is_ascii_digit());
        let numbered = |word: &str| self.layer.strip_prefix(word).is_some_and(number);
        let block = self.layer.strip_prefix("layer").and_then(|rest| rest.split_once('.'));
        let known = ["auto", "backbone", "projection"].contains(&self.layer.as_str())
            || ["conv", "fc", "blocks."].into_iter().any(numbered)
            || block.is_some_and(|(stage, block)| number(stage) && number(block));
        let hint = "`auto`, `backbone`, `projection`, or a layer inside: `conv1`, `layer3.1`, `fc1`, `blocks.5`";
        (!known).then(|| Complaint::new("layer", format!("is `{}`, which is no layer", self.layer)).with_hint(hint))
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
        let (layer, dim) = match (config.layer.as_str(), &architecture.projection) {
            ("auto" | "projection", Some(projection)) => (Layer::Projection, projection.dim),
            ("auto" | "backbone", _) => (Layer::Backbone, net.dim()),
            ("projection", None) => {
                return Err(StageError::Mismatch {
                    what: format!("the encoder of `{}` has no projection head", input.encoder.origin()),
                    hint: "set `layer = \"backbone\"`".into(),
                });
            }
            (name, _) => inner(&net, name, input.encoder.origin())?,
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
                Layer::Inner(_) => config.layer.clone(),
            },
        };
        Ok(Out { features: table.save(&cx.out("features")?)? })
    }
}

/// A layer inside the backbone, and its numbers per image.
fn inner(net: &EncoderNet, name: &str, origin: &str) -> Result<(Layer, usize), StageError> {
    let layers = net.layers();
    if let Some(at) = layers.iter().position(|layer| layer == name) {
        return Ok((Layer::Inner(at), net.inner_dim(at)?));
    }
    let hint = if layers.is_empty() {
        "set `layer = \"backbone\"`: its inner layers have no names; of an ONNX file `onnx_encoder` reads another `output`"
            .into()
    } else {
        format!("it has {}", layers.iter().map(|layer| format!("`{layer}`")).collect::<Vec<_>>().join(", "))
    };
    Err(StageError::Mismatch { what: format!("the encoder of `{origin}` has no layer `{name}`"), hint })
}
