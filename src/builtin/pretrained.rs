//! Somebody else's weights as an encoder, and as a classifier if the file has heads: files of SCAN, NNM, RUC, AND, MoCo, and of whoever
//! trains a residual network with torchvision, timm, Lightning, solo-learn or lightly. AND's AlexNet is read too.
//!
//! What is read, and what never is, says [`kinset_model::import`]. The images lend what the file does not say: the size a network
//! sees them at, and the statistics of their channels where `mean` and `std` are not given.
//!
//! Where the file is and how its SHA-256 was checked are no part of the key; its bytes are.
//!
//! Label-free as far as kinset can tell: NNM's and AND's authors chose the epoch they published by test accuracy, and no file says so.

use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use kinset_artifact::encoder::{Backbone, Classifier, Encoder, Normalization, Stem};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::{Draft, Stored};
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;
use kinset_base::unit;
use kinset_dataset::DatasetError;
use kinset_dataset::fetch::Weights;
use kinset_model::ModelError;
use kinset_model::import::{self, ImportError, Layout, Names, Wanted};
use kinset_stage::{Complaint, Context, RawFiles, Stage, StageError};
use kinset_store::digest::Digest;
use kinset_train::image_loader::ImageLoader;

/// Larger files are refused: a checkpoint of ResNet-50 with all its optimizer's memory has a third of a GiB.
pub(super) const LARGEST: u64 = 4 << 30;

kinset_stage::settings! {
    /// Settings. All but `file`, and `stem` for networks of small images, are read off the file.
    pub struct Config {
        /// The file of weights (`.pth`, `.pth.tar`, `.t7`, `.ckpt`, `.safetensors`), relative to the pipeline file; or its
        /// address, from which `kinset data fetch` brings it.
        file: PathBuf = PathBuf::new();
        /// The SHA-256 it must have, 64 hexadecimal digits; an address needs one.
        sha256: Option<String> = None;
        /// The network's name, where a file has several: `net1` or `net2` of RUC.
        part: Option<String> = None;
        /// The prefix of the names of its tensors: `backbone.`; unset: detected.
        prefix: Option<String> = None;
        /// Tensors to leave out: `["projector.*"]`; `*` stands for any characters.
        ignore: Option<Vec<String>> = None;
        /// `resnet18`, `resnet34`, `resnet50`, `resnet_tiny`, `alexnet`; none: the one whose layers the file has.
        backbone: Option<Backbone> = None;
        /// The first layers. `cifar`, `stl` and `strided` have equal tensors, so one of them must be named; `imagenet` shows.
        stem: Option<Stem> = None;
        /// Side the images are brought to, pixels; none: their own. An AlexNet takes only those of its training.
        size: Option<usize> = None, min 1;
        /// Channel means the network was trained with, of values 0–1; unset: those of the images.
        mean: Option<Vec<f32>> = None;
        /// Channel deviations, likewise.
        std: Option<Vec<f32>> = None;
        /// The best head, from 0; unset: the one that the file names, or the only one.
        head: Option<usize> = None;
    }
    and combinations
}

impl Config {
    fn combinations(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        if self.file.as_os_str().is_empty() {
            found.push(Complaint::new("file", "is needed: the file of weights"));
        }
        found.extend(sha256_complaint(self.sha256.as_deref()));
        found.extend(address_complaint(&self.file, self.sha256.as_deref()));
        match self.backbone {
            Some(Backbone::Graph) => {
                let hint = "the stage `onnx_encoder` reads ONNX files";
                found.push(Complaint::new("backbone", "is `graph`, which none of these files contain").with_hint(hint));
            }
            Some(Backbone::Pixels | Backbone::Features) => {
                found.push(Complaint::new("backbone", "is one that has no weights"));
            }
            Some(Backbone::Vit) => {
                let hint = "the stage `frozen` reads published transformers";
                found.push(Complaint::new("backbone", "is `vit`, which none of these files contain").with_hint(hint));
            }
            _ => {}
        }
        found.extend(statistics_complaints(self.mean.as_deref(), self.std.as_deref()));
        found
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// Whose size, channels and statistics the encoder takes.
        images: Stored<Images>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The backbone, with its projection head if the file has one.
        encoder: Draft<Encoder>,
        /// Backbone and heads, if the file has heads.
        classifier: Option<Draft<Classifier>>,
    }
}

/// Reading weights.
#[derive(Debug)]
pub struct Pretrained;

impl Stage for Pretrained {
    const KIND: &'static str = "pretrained";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "load published weights of SCAN, NNM, RUC, AND or MoCo: PyTorch files or safetensors";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Config, places: &DataPaths) -> Result<RawFiles, StageError> {
        let path = path_of(&config.file, config.sha256.as_deref(), places)?;
        weights_at(path.clone(), || StageError::Mismatch {
            what: format!("there is no file `{}` to read weights from", path.display()),
            hint: "correct `file`, which is relative to the pipeline file; the authors' pages name where theirs can be had"
                .into(),
        })
    }

    fn key_settings(config: &Config) -> Result<impl Serialize, StageError> {
        Ok(Config { file: PathBuf::new(), sha256: None, ..config.clone() })
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let files = Self::raw_files(config, cx.places)?;
        let (path, bytes) = read(&files, config.sha256.as_deref(), cx)?;
        let names = Names { prefix: config.prefix.clone(), ignore: config.ignore.clone().unwrap_or_default() };
        let wanted =
            Wanted { part: config.part.clone(), backbone: config.backbone, stem: config.stem, head: config.head, names };
        let found = import::find(&bytes, &wanted).map_err(|error| at(path, error))?;
        cx.check()?;

        let images = ImageSet::open(&input.images)?;
        let loader = if let (Some(mean), Some(std)) = (&config.mean, &config.std) {
            let size = ImageLoader::raw(&images, config.size, &cx.device)?.size();
            let normalization = Normalization::new(mean.clone(), std.clone());
            ImageLoader::like(&images, found.channels, size, &normalization, &cx.device)?
        } else {
            let own = ImageLoader::of(&images, config.size, &cx.device, &cx.stop)?;
            ImageLoader::like(&images, found.channels, own.size(), own.normalization(), &cx.device)?
        };
        let encoder = found.encoder(loader.size(), loader.normalization())?;
        let classifier = found.classifier(loader.size(), loader.normalization())?;
        cx.read(found.reading());
        cx.note(told(&found, &encoder, classifier.as_ref()));
        let classifier = match classifier {
            Some(classifier) => Some(classifier.save(&cx.out("classifier")?)?),
            None => None,
        };
        Ok(Out { encoder: encoder.save(&cx.out("encoder")?)?, classifier })
    }
}

/// Where a file of weights lies, which is named by its path or its address.
///
/// # Errors
/// The file of an address that was not fetched; no checksum where one is needed.
pub(super) fn path_of(file: &Path, sha256: Option<&str>, places: &DataPaths) -> Result<PathBuf, StageError> {
    let Some(url) = address(file) else { return Ok(places.file(file)) };
    let weights = Weights::new(url, sha256.unwrap_or_default(), None, places)
        .map_err(|error| StageError::Mismatch { what: error.to_string(), hint: "correct `sha256`".into() })?;
    Ok(weights.find()?)
}

/// What a key is made of. Not the file's own name: what it is called says nothing.
pub(super) fn weights_at(path: PathBuf, missing: impl FnOnce() -> StageError) -> Result<RawFiles, StageError> {
    match fs::metadata(&path)?.filter(fs::Metadata::is_file) {
        Some(found) => Ok(vec![RawFile::new("weights", path, &found)].into()),
        None => Err(missing()),
    }
}

/// The bytes of the one file that a key speaks of, and where it lies.
///
/// # Errors
/// A file that changed since its digest was taken, is too large, or is not the one whose SHA-256 was given.
pub(super) fn read<'a>(
    files: &'a [RawFile],
    sha256: Option<&str>,
    cx: &Context<'_>,
) -> Result<(&'a Path, Vec<u8>), StageError> {
    let Some(file) = files.first() else { unreachable!("`raw_files` names one file or fails") };
    let bytes = fs::read_at_most(&file.path, LARGEST)?;
    cx.check()?;
    // What the key speaks of is what is read.
    if cx.raw_digest(file).is_some_and(|digest| digest != Digest::of(&bytes)) {
        return Err(DatasetError::Changed { file: file.path.display().to_string() }.into());
    }
    checked(sha256, &bytes).map_err(|error| at(&file.path, error))?;
    Ok((&file.path, bytes))
}

/// The address, if a file is named by one.
fn address(file: &Path) -> Option<&str> {
    file.to_str().filter(|text| Weights::is_address(text))
}

pub(super) fn address_complaint(file: &Path, sha256: Option<&str>) -> Option<Complaint> {
    let bare = address(file).is_some() && sha256.is_none();
    bare.then(|| Complaint::new("sha256", "is required if `file` is a URL, because its content may change"))
}

pub(super) fn statistics_complaints(means: Option<&[f32]>, deviations: Option<&[f32]>) -> Vec<Complaint> {
    let mut found = Vec::new();
    if means.map(<[f32]>::len) != deviations.map(<[f32]>::len) {
        found.push(Complaint::new("mean", "and `std` go together: as many numbers each as the images have channels"));
    }
    if means.is_some_and(|means| !means.iter().all(|mean| mean.is_finite())) {
        found.push(Complaint::new("mean", "must hold finite numbers"));
    }
    if deviations.is_some_and(|all| !all.iter().all(|deviation| deviation.is_finite() && *deviation > 0.0)) {
        found.push(Complaint::new("std", "must hold finite numbers above 0"));
    }
    found
}

pub(super) fn sha256_complaint(text: Option<&str>) -> Option<Complaint> {
    let hexadecimal = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.filter(|text| !hexadecimal(text)).map(|_| Complaint::new("sha256", "must have 64 hexadecimal digits"))
}

/// Says which file the fault is in.
pub(super) fn at(path: &Path, error: impl Into<ModelError>) -> ModelError {
    ModelError::Unreadable { file: path.display().to_string(), source: Box::new(error.into()) }
}

/// The file is the one that was meant.
pub(super) fn checked(wanted: Option<&str>, bytes: &[u8]) -> Result<(), ImportError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let found = unit::hex(&Sha256::digest(bytes));
    if found == wanted.to_ascii_lowercase() { Ok(()) } else { Err(ImportError::Checksum { wanted: wanted.to_owned(), found }) }
}

/// What was read, in words.
fn told(found: &import::Found, encoder: &Encoder, classifier: Option<&Classifier>) -> String {
    let family = match found.layout() {
        Layout::Scan => "SCAN's names",
        Layout::Moco => "MoCo's names",
        Layout::And => "names of a bare network",
    };
    let shape = &encoder.card.architecture;
    let mut text =
        format!("{family}: {:?}, stem {:?}, width {}, {} features", shape.backbone, shape.stem, shape.width, shape.features);
    if let Some(projection) = &shape.projection {
        text.push_str(&format!(", {:?} projection to {}", projection.kind, projection.dim));
    }
    if let Some(classifier) = classifier {
        let card = &classifier.card;
        text.push_str(&format!(", {} heads of {} clusters, head {} {}", card.heads, card.clusters, card.head, card.chosen_by));
    }
    if found.left_out() > 0 {
        text.push_str(&format!("; {} tensors that only training needs are left out", found.left_out()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fault::{Exit, Fault};
    use kinset_stage::Settings;
    use kinset_store::Manifest;

    fn in_key(config: &Config) -> Manifest {
        Manifest::new(Pretrained::KIND, Pretrained::VERSION, &Pretrained::key_settings(config).unwrap()).unwrap()
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let wrong = Config {
            sha256: Some("abc".into()),
            size: Some(0),
            backbone: Some(Backbone::Pixels),
            mean: Some(vec![0.5, f32::NAN]),
            std: Some(vec![0.0]),
            ..Config::default()
        };
        let fields: Vec<String> = wrong.check().into_iter().map(|complaint| complaint.path).collect();
        assert_eq!(fields, ["size", "file", "sha256", "backbone", "mean", "mean", "std"]);
        let fine = Config { file: "x.pth".into(), mean: Some(vec![0.5]), std: Some(vec![0.5]), ..Config::default() };
        assert_eq!(fine.check(), []);
    }

    #[test]
    fn an_address_needs_a_checksum_and_says_how_its_file_comes_here() {
        let bare = Config { file: "https://x.org/a.pth".into(), ..Config::default() };
        assert_eq!(bare.check().into_iter().map(|complaint| complaint.path).collect::<Vec<_>>(), ["sha256"]);
        let config = Config { sha256: Some("0".repeat(64)), ..bare };
        assert_eq!(config.check(), []);
        let (dir, digits) = (tempfile::tempdir().unwrap(), "0".repeat(64));
        let places = DataPaths::new("", Some(dir.path().into()), None);
        let error = Pretrained::raw_files(&config, &places).unwrap_err();
        assert_eq!((error.code(), error.exit()), ("dataset::not-fetched", Exit::Data), "{error}");
        let path = Weights::new("https://x.org/a.pth", &digits, None, &places).unwrap().path();
        fs::create_folders(path.parent().unwrap()).unwrap();
        fs::write_atomic(&path, b"abc").unwrap();
        assert_eq!(Pretrained::raw_files(&config, &places).unwrap()[0].path, path);
        let local = Config { file: "elsewhere.pth".into(), ..Config::default() };
        assert_eq!(in_key(&config), in_key(&local));
    }

    #[test]
    fn the_key_holds_neither_place_nor_checksum() {
        let one = Config { file: "a.pth".into(), sha256: Some("0".repeat(64)), ..Config::default() };
        let other = Config { file: "b/c.pth".into(), ..Config::default() };
        assert_eq!(in_key(&one), in_key(&other));
        let another = Config { head: Some(1), ..other.clone() };
        assert_ne!(in_key(&one), in_key(&another));
        let named = Config { prefix: Some("backbone.".into()), ..other.clone() };
        assert_ne!(in_key(&one), in_key(&named));
        let key = serde_json::to_string(&in_key(&other)).unwrap();
        assert!(!key.contains("prefix") && !key.contains("ignore"), "what is not set is not in it: {key}");
    }

    #[test]
    fn a_checksum_is_compared_whatever_its_letters() {
        let abc = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        assert!(checked(Some(abc), b"abc").is_ok() && checked(None, b"abd").is_ok());
        let error = checked(Some(abc), b"abd").unwrap_err();
        assert!(error.to_string().contains("expected BA78"), "{error}");
    }
}
