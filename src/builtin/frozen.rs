//! Frozen published encoders: DINOv2, CLIP's image encoder, ResNet-50. Most clusterings of natural images begin with their features
//! today.
//!
//! The encoder it writes is one like any other; with it goes how pictures are prepared, so `embed` and `predict` do as the network's
//! authors. Own code, without a further dependency: hence no cargo feature.
//!
//! The stage fetches no weights: they lie in a file, where `kinset data fetch` left them, or in the cache of Hugging Face's tools. Their place
//! is no part of the key; their bytes are.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::pretrained;
use kinset_artifact::Draft;
use kinset_artifact::encoder::Encoder;
use kinset_base::search_path::DataPaths;
use kinset_dataset::fetch::PublishedWeights;
use kinset_dataset::hub::{NotFetched, Repository};
use kinset_model::import::{Names, frozen};
use kinset_model::published::{Published, TowerSettings};
use kinset_stage::{Complaint, Context, RawFiles, Stage, StageError};

/// What stands before the name of a repository.
const HUB: &str = "hf:";

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Which network: `{ backbone = "dinov2_vits14" }` (`b`, `l`; `_reg`), `clip_vit_b32`, `clip_vit_b16`, `clip_vit_l14`,
        /// `resnet50`.
        network: TowerSettings = TowerSettings::default(), nested;
        /// A file (`.safetensors`, `.pth`), relative to the pipeline file; or `hf:OWNER/NAME` in the cache of Hugging Face's
        /// tools. Empty: what `kinset data fetch` brought for this network, or those tools.
        weights: String = String::new();
        /// The SHA-256 it must have, 64 hexadecimal digits.
        sha256: Option<String> = None;
        /// The network's name, where a file has several: `teacher`.
        part: Option<String> = None;
        /// The prefix of the names of its tensors: `teacher.backbone.`; unset: detected.
        prefix: Option<String> = None;
        /// Tensors to leave out: `["projector.*"]`; `*` stands for any characters.
        ignore: Option<Vec<String>> = None;
        /// Side of the images it is shown, pixels: a multiple of the patch; unset: 224.
        size: Option<usize> = None;
        /// Pixels of the shorter side before the center is cut; unset: as the authors do.
        resize: Option<usize> = None;
    }
    and places_and_sizes
}

impl Config {
    fn places_and_sizes(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        if let Some(name) = self.weights.strip_prefix(HUB)
            && Repository::parse(name).is_none()
        {
            let hint = format!("such as `{HUB}{}`, optionally followed by `@REVISION`", self.network.backbone.repository());
            found.push(Complaint::new("weights", format!("names no repository: `{name}`")).with_hint(hint));
        }
        found.extend(pretrained::sha256_complaint(self.sha256.as_deref()));
        // The first fault of the shape alone; without one, sizes that do not go together.
        match self.network.network(self.size, self.resize) {
            Err(error) => found.push(Complaint::new("network", format!("cannot be: {error}"))),
            Ok((architecture, normalization)) => {
                if let Some(resize) = normalization.resize.filter(|resize| resize.shorter < architecture.size) {
                    let (shorter, size) = (resize.shorter, architecture.size);
                    found.push(Complaint::new("resize", format!("is {shorter}, but the crop is {size} pixels")));
                }
            }
        }
        found
    }
}

kinset_stage::ports! {
    /// It reads nothing from the store.
    pub struct In {}
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The network, and how pictures are prepared for it.
        encoder: Draft<Encoder>,
    }
}

/// Reading a published encoder.
#[derive(Debug)]
pub struct Frozen;

impl Stage for Frozen {
    const KIND: &'static str = "frozen";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "load a frozen pretrained encoder: DINOv2, CLIP's image encoder, ResNet-50";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Config, places: &DataPaths) -> Result<RawFiles, StageError> {
        let path = path_of(config, places)?;
        pretrained::weights_at(path.clone(), || StageError::Mismatch {
            what: format!("cannot find the weights `{}`", path.display()),
            hint: format!(
                "correct `weights`, which is relative to the pipeline file; or `{HUB}{}`, fetched by `hf download`",
                config.network.backbone.repository()
            ),
        })
    }

    fn key_settings(config: &Config) -> Result<impl Serialize, StageError> {
        Ok(Config { weights: String::new(), sha256: None, ..config.clone() })
    }

    fn run(config: &Config, _: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let files = Self::raw_files(config, cx.places)?;
        let (path, bytes) = pretrained::read(&files, config.sha256.as_deref(), cx)?;
        let (architecture, normalization) = config.network.network(config.size, config.resize)?;
        cx.check()?;
        let names = Names { prefix: config.prefix.clone(), ignore: config.ignore.clone().unwrap_or_default() };
        let wanted = frozen::Wanted { part: config.part.clone(), names };
        let found =
            frozen::tower(&bytes, &wanted, &architecture, &normalization).map_err(|error| pretrained::at(path, error))?;
        cx.read(&found.reading);
        cx.note(told(&found));
        Ok(Out { encoder: found.encoder.save(&cx.out("encoder")?)? })
    }
}

fn path_of(config: &Config, places: &DataPaths) -> Result<PathBuf, StageError> {
    let backbone = config.network.backbone;
    if config.weights.is_empty() {
        return found(backbone, places).ok_or_else(|| StageError::Mismatch {
            what: format!("cannot find the weights of `{}`", backbone.name()),
            hint: format!("download them once with {}, or set a file in `weights`", commands(backbone)),
        });
    }
    let Some(name) = config.weights.strip_prefix(HUB) else { return Ok(places.file(Path::new(&config.weights))) };
    let found = Repository::parse(name).map(|repository| repository.weights(places));
    match found {
        Some(Ok(path)) => Ok(path),
        Some(Err(NotFetched { repository, place, command })) => Err(StageError::Mismatch {
            what: format!("cannot find the weights `{repository}` in `{}`", place.display()),
            hint: format!("download them once with `{command}`, or set a file in `weights`"),
        }),
        None => Err(StageError::Mismatch { what: format!("`{name}` names no repository"), hint: "OWNER/NAME".into() }),
    }
}

/// The published weights of a network, where `kinset data fetch` or Hugging Face's tools put them.
pub fn found(backbone: Published, places: &DataPaths) -> Option<PathBuf> {
    let fetched = PublishedWeights::find(&backbone.name()).and_then(|one| one.weights(places).ok()?.find().ok());
    fetched.or_else(|| Repository::parse(backbone.repository())?.weights(places).ok())
}

/// The commands that bring them, in words.
pub fn commands(backbone: Published) -> String {
    let hub = format!("`hf download {} model.safetensors`", backbone.repository());
    match PublishedWeights::find(&backbone.name()) {
        Some(one) => format!("`{}` or {hub}", one.command()),
        None => hub,
    }
}

/// What was read, in words.
fn told(found: &frozen::Tower) -> String {
    let shape = &found.encoder.card.architecture;
    let mut text = format!("{}: {} features of images of {} pixels", found.family, shape.features, shape.size);
    if let Some(resize) = found.encoder.card.normalization.resize {
        text.push_str(&format!(", {}", resize.told()));
    }
    if found.left_out > 0 {
        text.push_str(&format!("; {} tensors that have no part in them are left out", found.left_out));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;
    use kinset_store::Manifest;

    fn in_key(config: &Config) -> Manifest {
        Manifest::new(Frozen::KIND, Frozen::VERSION, &Frozen::key_settings(config).unwrap()).unwrap()
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let fields = |config: Config| config.check().into_iter().map(|complaint| complaint.path).collect::<Vec<_>>();
        assert_eq!(fields(Config::default()), [] as [&str; 0]);
        let fine = Config { weights: "hf:facebook/dinov2-small".into(), ..Config::default() };
        assert_eq!(fine.check(), []);
        assert_eq!(fields(Config { weights: "hf:dinov2".into(), size: Some(225), ..fine.clone() }), ["weights", "network"]);
        assert_eq!(fields(Config { resize: Some(200), sha256: Some("0".into()), ..fine.clone() }), ["sha256", "resize"]);
        let network = TowerSettings { backbone: Published::Resnet50, depth: Some(3), ..TowerSettings::default() };
        assert_eq!(fields(Config { network, ..fine }), ["network.depth"]);
    }

    #[test]
    fn the_key_holds_neither_place_nor_checksum() {
        let one = Config { weights: "a.safetensors".into(), sha256: Some("0".repeat(64)), ..Config::default() };
        let other = Config { weights: "hf:a/b".into(), ..Config::default() };
        assert_eq!(in_key(&one), in_key(&other));
        let another = Config { size: Some(518), ..other };
        assert_ne!(in_key(&one), in_key(&another));
    }

    #[test]
    fn missing_weights_come_with_the_command_that_fetches_them() {
        let places = DataPaths::new(".", None, None).with_hub("/nowhere".into());
        let config = Config { weights: "hf:facebook/dinov2-small".into(), ..Config::default() };
        let StageError::Mismatch { what, hint } = Frozen::raw_files(&config, &places).unwrap_err() else {
            panic!("it was found")
        };
        assert!(what.contains("/nowhere/models--facebook--dinov2-small"), "{what}");
        assert!(hint.contains("`hf download facebook/dinov2-small model.safetensors`"), "{hint}");
    }

    #[test]
    fn without_a_place_the_fetched_weights_are_taken_and_what_is_missing_comes_with_a_command() {
        let dir = tempfile::tempdir().unwrap();
        let places = DataPaths::new(".", Some(dir.path().into()), None).with_hub("/nowhere".into());
        let StageError::Mismatch { what, hint } = Frozen::raw_files(&Config::default(), &places).unwrap_err() else {
            panic!("it was found")
        };
        assert_eq!(what, "cannot find the weights of `dinov2_vits14`");
        assert!(hint.contains("`kinset data fetch dinov2_vits14` or `hf download facebook/dinov2-small"), "{hint}");
        let path = PublishedWeights::find("dinov2_vits14").unwrap().weights(&places).unwrap().path();
        kinset_base::fs::create_folders(path.parent().unwrap()).unwrap();
        kinset_base::fs::write_atomic(&path, b"weights").unwrap();
        assert_eq!(Frozen::raw_files(&Config::default(), &places).unwrap()[0].path, path);
        // Every network that has published weights is one that can be named.
        for one in &kinset_dataset::fetch::PUBLISHED {
            assert_eq!(Published::named(one.name).unwrap().name(), one.name);
        }
    }
}
