//! The encoder of the pipeline that `kinset init` writes: one by name, one in a file, or none, so that one is learned.

use std::fmt;
use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::common::Failure;
use crate::artifact::encoder::Normalization;
use crate::base::clock::Stopwatch;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::base::name::Name;
use crate::base::search_path::DataPaths;
use crate::base::seed::Seed;
use crate::builtin::frozen;
use crate::dataset::fetch::PublishedWeights;
use crate::model::encoder::EncoderNet;
use crate::model::import::frozen::published;
use crate::model::published::{Published, TowerSettings};
use crate::model::{Mode, onnx};

/// What was decided, and why.
pub(super) struct Choice {
    pub(super) encoder: Encoder,
    pub(super) why: String,
    /// Seconds that it takes for a picture here, if it was tried.
    pub(super) seconds: Option<f64>,
}

pub(super) enum Encoder {
    /// Of these images.
    Learned,
    /// A stage that loads one: the settings of `[stage.encoder]`.
    Loaded(String),
}

/// An encoder that cannot be had.
#[derive(Debug, thiserror::Error)]
enum NoEncoder {
    #[error("cannot find the weights of `{}`", .0.name())]
    NotFetched(Published),
    #[error("`{name}` names neither a published encoder nor a file")]
    Unknown { name: String },
    #[error("`{file}` holds none of the published encoders")]
    Unlike { file: String },
}

impl Fault for NoEncoder {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NotFetched(network) => {
                Exit::Data.code("init::not-fetched").hint(format!("download them once with {}", frozen::commands(*network)))
            }
            Self::Unknown { .. } => {
                let names: Vec<String> = Published::ALL.iter().map(|network| network.name()).collect();
                Exit::Usage
                    .code("init::encoder")
                    .hint(format!("give {}, a file `.onnx`, `.safetensors` or `.pth`, or `none`", names.join(", ")))
            }
            Self::Unlike { .. } => Exit::Data.code("init::encoder").hint(
                "export the network as ONNX: any image encoder is read from there; for weights of SCAN, MoCo and other residual \
                 networks see `kinset methods pretrained`",
            ),
        }
    }
}

/// The encoder that was asked for; unasked, the first that is here.
///
/// # Errors
/// [`NoEncoder`]; a file that cannot be read.
pub(super) fn chosen(asked: Option<&str>, places: &DataPaths) -> Result<Choice, Failure> {
    let known = |network: Published, why: String| Choice {
        encoder: Encoder::Loaded(format!("kind = \"frozen\"\nnetwork = {{ backbone = \"{}\" }}\n", network.name())),
        why,
        seconds: seconds_of(network),
    };
    let learned = |why: String| Choice { encoder: Encoder::Learned, why, seconds: None };
    match asked {
        Some("none") => Ok(learned("learned from these images, as asked".into())),
        Some(name) => match (Published::named(name), Path::new(name)) {
            (Some(network), _) if frozen::found(network, places).is_some() => Ok(known(network, format!("`{name}`, as asked"))),
            (Some(network), _) => Err(Failure::own(NoEncoder::NotFetched(network))),
            (None, path) if fs::metadata(path)?.is_some_and(|found| found.is_file()) => of_file(path),
            _ => Err(Failure::own(NoEncoder::Unknown { name: name.to_owned() })),
        },
        None => Ok(match Published::ALL.into_iter().find(|network| frozen::found(*network, places).is_some()) {
            Some(network) => {
                known(network, format!("`{}`, which is on this machine; `--encoder none` learns one instead", network.name()))
            }
            None => learned(offer()),
        }),
    }
}

/// Why one is learned where nobody asked for that, and what would be better.
fn offer() -> String {
    let weights = PublishedWeights::find(&Published::default().name());
    let how = weights.map(|one| format!("`{}` ({} MB), then `--encoder {}`", one.command(), one.megabytes, one.name));
    format!(
        "learned from these images, which takes longest, because no published one is here; better and faster: {}, or `--encoder FILE.onnx`",
        how.unwrap_or_default()
    )
}

fn of_file(path: &Path) -> Result<Choice, Failure> {
    let full = fs::absolute(path)?;
    let place = quoted(&full)?;
    let bytes = fs::read_at_most(path, LARGEST)?;
    let shown = Name::of(path);
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) {
        let read = onnx::read(&bytes, &onnx::Wanted { usual_pool: true, ..onnx::Wanted::default() })?;
        let mut stage = format!("kind = \"onnx_encoder\"\nfile = {place}\n");
        if let Some(pool) = read.pool {
            let (name, words) = match pool {
                onnx::Pool::First => ("first", "the class token; \"mean\" takes the mean of all"),
                onnx::Pool::Mean => ("mean", "of all places"),
            };
            stage.push_str(&format!("{:<30} # {words}\n", format!("pool = \"{name}\"")));
        }
        let values = match read.prepared {
            Some(_) => "pictures are prepared as the file says".to_owned(),
            None => format!("{}; see `kinset methods onnx_encoder` if its pictures are others", read.values),
        };
        let (features, size) = (read.architecture.features, read.architecture.size);
        let why = format!("`{}`, as asked: {features} features of {size} × {size} pixels; {values}", shown.as_str());
        let plain = Normalization::new(vec![0.0; read.architecture.channels], vec![1.0; read.architecture.channels]);
        let net = EncoderNet::from_tensors(&read.card(plain), &read.tensors, &Device::Cpu);
        return Ok(Choice { encoder: Encoder::Loaded(stage), why, seconds: net.ok().and_then(|net| tried(&net)) });
    }
    let Some(network) = published(&bytes)? else {
        return Err(Failure::own(NoEncoder::Unlike { file: shown.into_string() }));
    };
    let name = network.name();
    let stage = format!("kind = \"frozen\"\nnetwork = {{ backbone = \"{name}\" }}\nweights = {place}\n");
    let why = format!("`{}`, as asked: it is `{name}`", shown.as_str());
    Ok(Choice { encoder: Encoder::Loaded(stage), why, seconds: seconds_of(network) })
}

/// Pictures that a network is tried with.
const TRIED: usize = 4;
/// Wider ones are not made for a trial, which would take seconds.
const WIDEST: usize = 768;

/// Seconds that a published network takes for a picture: with any weights.
fn seconds_of(network: Published) -> Option<f64> {
    let settings = TowerSettings { backbone: network, ..TowerSettings::default() };
    let (architecture, _) = settings.network(None, None).ok().filter(|(shape, _)| shape.width <= WIDEST)?;
    tried(&EncoderNet::init(&architecture, Seed::new(0), &Device::Cpu).ok()?)
}

/// Seconds that a network takes for a picture; nothing if it takes none.
fn tried(net: &EncoderNet) -> Option<f64> {
    let (net, shape) = (net.frozen().ok()?, net.architecture());
    let run = |count: usize| {
        let pictures = Tensor::zeros((count, shape.channels, shape.size, shape.size), DType::F32, &Device::Cpu).ok()?;
        net.features(&pictures, Mode::Eval).ok()
    };
    run(1)?;
    let clock = Stopwatch::start();
    run(TRIED)?;
    Some(clock.seconds() / TRIED as f64)
}

/// The largest file of weights.
const LARGEST: u64 = 4 << 30;

/// A pipeline file cannot name the file.
#[derive(Debug, thiserror::Error)]
#[error("the path `{path}` is not valid UTF-8, so a pipeline file cannot contain it")]
pub(super) struct NoText {
    path: String,
}

impl Fault for NoText {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("init::no-text").hint("rename it, or name a link to it")
    }
}

/// A path as a text of a pipeline file.
pub(super) fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::own(NoText { path: Name::of(path).into_string() }))?;
    Ok(serde_json::Value::String(text.to_owned()).to_string())
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "encoder: {}", self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: Option<&str>, places: &DataPaths) -> Result<(bool, String), String> {
        match chosen(asked, places) {
            Ok(choice) => Ok((matches!(choice.encoder, Encoder::Loaded(_)), choice.to_string())),
            Err(failure) => Err(failure.in_words()),
        }
    }

    #[test]
    fn what_is_here_is_taken_and_what_is_missing_is_offered() {
        let dir = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(dir.path().into()), None).with_hub("/nowhere".into());
        let (loaded, text) = said(None, &places).unwrap();
        assert!(
            !loaded && text.contains("`kinset data fetch dinov2_vits14` (88 MB), then `--encoder dinov2_vits14`"),
            "{text}"
        );
        assert_eq!(said(Some("clip_vit_b32"), &places).unwrap_err(), "cannot find the weights of `clip_vit_b32`");
        assert!(said(Some("dinov3"), &places).unwrap_err().contains("neither a published encoder nor a file"));
        let path = PublishedWeights::find("dinov2_vits14").unwrap().weights(&places).unwrap().path();
        fs::create_folders(path.parent().unwrap()).unwrap();
        fs::write_atomic(&path, b"weights").unwrap();
        let (loaded, text) = said(None, &places).unwrap();
        assert!(loaded && text.contains("`dinov2_vits14`, which is on this machine"), "{text}");
        assert!(!said(Some("none"), &places).unwrap().0);
    }

    #[test]
    fn a_file_is_known_by_what_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let places = DataPaths::new("", Some(dir.path().into()), None);
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let of = |file: &str| said(golden.join(file).to_str(), &places);
        let (_, text) = of("onnx/mobile.onnx").unwrap();
        assert!(text.contains("12 features of 17 × 17 pixels; values 0 to 1"), "{text}");
        // A tiny network is none of those that are published.
        assert!(of("encoders/dinov2_hub.safetensors").unwrap_err().contains("holds none of the published encoders"));
        let error = of("onnx/tiny.onnx").unwrap_err();
        assert!(error.contains("takes pictures"), "{error}");
    }
}
