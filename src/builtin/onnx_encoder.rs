//! Image encoders from ONNX files, frozen: run by kinset itself, without a runtime beside it.
//!
//! The encoder it writes is one like any other: `embed`, `predict`, heads with `encoder = …` and `export` take it. It never learns.
//! What the file does not say (how pictures are brought to size, which values they have) is set here, or is what most exports want.
//!
//! Where the file lies is no part of the key; its bytes are.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::frozen::{In, Out};
use super::pretrained::{self, sha256_complaint};
use kinset_artifact::encoder::{Encoder, Filter, Normalization, Resize};
use kinset_base::search_path::DataPaths;
use kinset_model::onnx::{Pool, Read, Values, Wanted, read};
use kinset_model::published::{CLIP, IMAGENET};
use kinset_stage::{Complaint, Context, RawFiles, Stage, StageError};

/// What the channels of a picture are before the network sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ValuesChoice {
    /// By ImageNet's means and deviations.
    Imagenet,
    /// By those of CLIP's pictures.
    Clip,
    /// 0 to 1.
    ZeroOne,
    /// −1 to 1.
    Symmetric,
    /// 0 to 255.
    Bytes,
}

kinset_stage::settings! {
    /// Settings. All but `file` are read off the file, or are what most exports want.
    pub struct Config {
        /// The `.onnx` file, relative to the pipeline file; or its address, from which `kinset data fetch` brings it.
        file: PathBuf = PathBuf::new();
        /// The SHA-256 it must have, 64 hexadecimal digits; an address needs one.
        sha256: Option<String> = None;
        /// The output that becomes the features; unset: `embedding` or another usual one, or the only one.
        output: Option<String> = None;
        /// How tokens or places become one list of numbers: `first` (the class token) or `mean`.
        pool: Option<Pool> = None;
        /// Side of the images it is shown, pixels, where the file takes any; unset: the file's, or 224.
        size: Option<usize> = None, min 1;
        /// Pixels of the shorter side before the center is cut; unset: 256 for 224, and with `clip` the size.
        resize: Option<usize> = None, min 1;
        /// How they are resized: `bicubic` or `bilinear`.
        filter: Option<Filter> = None;
        /// The values it takes: `imagenet`, `clip`, `zero_one`, `symmetric` (−1 to 1), `bytes` (0 to 255). Unset: 0 to 1 or to 255
        /// where the file itself normalizes channels, else `imagenet`.
        values: Option<ValuesChoice> = None;
        /// Channel means instead, of values 0–1.
        mean: Option<Vec<f32>> = None;
        /// Channel deviations, likewise.
        std: Option<Vec<f32>> = None;
    }
    and combinations
}

impl Config {
    fn combinations(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        if self.file.as_os_str().is_empty() {
            found.push(Complaint::new("file", "is needed: the `.onnx` file"));
        }
        found.extend(sha256_complaint(self.sha256.as_deref()));
        found.extend(pretrained::address_complaint(&self.file, self.sha256.as_deref()));
        found.extend(pretrained::statistics_complaints(self.mean.as_deref(), self.std.as_deref()));
        if self.values.is_some() && self.mean.is_some() {
            found.push(Complaint::new("values", "and `mean` both say which values it takes: set one of them"));
        }
        found
    }

    /// What a picture goes through before this network.
    fn normalization(&self, read: &Read) -> Result<Normalization, StageError> {
        let (channels, size) = (read.architecture.channels, read.architecture.size);
        let own = read.prepared.as_ref();
        let chosen = self.values.unwrap_or(match (own, read.values) {
            (Some(_), _) | (None, Values::Inside) => ValuesChoice::ZeroOne,
            (None, Values::Bytes) => ValuesChoice::Bytes,
            (None, Values::Unknown) => ValuesChoice::Imagenet,
        });
        let all = |mean: f32, std: f32| ([mean; 3], [std; 3]);
        let (mean, std) = match chosen {
            ValuesChoice::Imagenet => IMAGENET,
            ValuesChoice::Clip => CLIP,
            ValuesChoice::ZeroOne => all(0.0, 1.0),
            ValuesChoice::Symmetric => all(0.5, 0.5),
            ValuesChoice::Bytes => all(0.0, 1.0 / 255.0),
        };
        let of = |given: &Option<Vec<f32>>, usual: [f32; 3]| match (given, channels) {
            (Some(given), _) => given.clone(),
            (None, 3) => usual.to_vec(),
            // A gray picture has the mean of all three.
            (None, _) => vec![usual.iter().sum::<f32>() / 3.0],
        };
        let (mean, std) = (of(&self.mean, mean), of(&self.std, std));
        if mean.len() != channels {
            return Err(StageError::Mismatch {
                what: format!("`mean` and `std` are of {} channels, and the network takes {channels}", mean.len()),
                hint: "give as many numbers as it has channels".into(),
            });
        }
        let said = |key: &str| own.and_then(|own| own.get(key));
        let usual = if chosen == ValuesChoice::Clip { size } else { (size * 256).div_ceil(224) };
        let shorter =
            self.resize.or_else(|| said("shorter").and_then(Value::as_u64).map(|side| side as usize)).unwrap_or(usual);
        if shorter < size {
            return Err(StageError::Mismatch {
                what: format!("`resize` is {shorter}, but the network takes {size} pixels"),
                hint: format!("set `resize` to {size} or more"),
            });
        }
        let named = || serde_json::from_value(said("filter")?.clone()).ok();
        let filter = self.filter.or_else(named).unwrap_or(Filter::Bicubic);
        Ok(Normalization { mean, std, resize: Some(Resize { shorter, filter }) })
    }
}

/// Reading an ONNX file.
#[derive(Debug)]
pub struct OnnxEncoder;

impl Stage for OnnxEncoder {
    const KIND: &'static str = "onnx_encoder";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "load any image encoder from an ONNX file, frozen";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn raw_files(config: &Config, places: &DataPaths) -> Result<RawFiles, StageError> {
        let path = pretrained::path_of(&config.file, config.sha256.as_deref(), places)?;
        pretrained::weights_at(path.clone(), || StageError::Mismatch {
            what: format!("there is no file `{}` to read an encoder from", path.display()),
            hint: "correct `file`, which is relative to the pipeline file".into(),
        })
    }

    fn key_settings(config: &Config) -> Result<impl Serialize, StageError> {
        Ok(Config { file: PathBuf::new(), sha256: None, ..config.clone() })
    }

    fn run(config: &Config, _: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let files = Self::raw_files(config, cx.places)?;
        let (path, bytes) = pretrained::read(&files, config.sha256.as_deref(), cx)?;
        let wanted = Wanted { output: config.output.clone(), pool: config.pool, size: config.size, usual_pool: false };
        let found = read(&bytes, &wanted).map_err(|error| pretrained::at(path, error))?;
        drop(bytes);
        cx.check()?;
        let normalization = config.normalization(&found)?;
        cx.note(told(&found, &normalization));
        let card = found.card(normalization);
        Ok(Out { encoder: Encoder { card, tensors: found.tensors }.save(&cx.out("encoder")?)? })
    }
}

/// What was read, in words.
fn told(found: &Read, normalization: &Normalization) -> String {
    let shape = &found.architecture;
    let mut text = format!("`{}`: {} features of images of {} pixels", found.output, shape.features, shape.size);
    if let Some(resize) = normalization.resize {
        text.push_str(&format!(", {}", resize.told()));
    }
    text.push_str(&match &found.prepared {
        Some(_) => "; prepared as the file itself says".to_owned(),
        None => format!("; {}, mean {:?}, deviation {:?}", found.values, normalization.mean, normalization.std),
    });
    if !found.others.is_empty() {
        let others: Vec<String> = found.others.iter().map(|name| format!("`{name}`")).collect();
        text.push_str(&format!("; not read: {}", others.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use kinset_artifact::testing::stored;
    use kinset_base::seed::Seed;
    use kinset_base::stop::Stop;
    use kinset_stage::Settings;
    use kinset_stage::testing::Heard;
    use kinset_store::Manifest;

    const MOBILE: &[u8] = include_bytes!("../../tests/golden/onnx/mobile.onnx");

    fn golden() -> Config {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/onnx");
        Config { file: folder.join("mobile.onnx"), ..Config::default() }
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let fields = |config: &Config| config.check().into_iter().map(|complaint| complaint.path).collect::<Vec<_>>();
        assert_eq!(fields(&Config::default()), ["file"]);
        assert_eq!(fields(&golden()), [] as [&str; 0]);
        let wrong = Config {
            file: "https://x.org/a.onnx".into(),
            size: Some(0),
            mean: Some(vec![0.5]),
            values: Some(ValuesChoice::Clip),
            ..Config::default()
        };
        assert_eq!(fields(&wrong), ["size", "sha256", "mean", "values"]);
    }

    #[test]
    fn the_key_holds_neither_place_nor_checksum() {
        let key = |config: &Config| {
            Manifest::new(OnnxEncoder::KIND, OnnxEncoder::VERSION, &OnnxEncoder::key_settings(config).unwrap()).unwrap()
        };
        let moved = Config { file: "b.onnx".into(), sha256: Some("0".repeat(64)), ..golden() };
        assert_eq!(key(&golden()), key(&moved));
        assert_ne!(key(&golden()), key(&Config { output: Some("logits".into()), ..golden() }));
    }

    #[test]
    fn pictures_are_prepared_as_the_file_or_the_settings_say() {
        let read = read(MOBILE, &Wanted::default()).unwrap();
        let plain = golden().normalization(&read).unwrap();
        assert_eq!((plain.mean[0], plain.std[0]), (0.0, 1.0), "channels are normalized inside");
        assert_eq!(plain.resize, Some(Resize { shorter: 20, filter: Filter::Bicubic }));
        let clip = Config { values: Some(ValuesChoice::Clip), filter: Some(Filter::Bilinear), ..golden() };
        let clip = clip.normalization(&read).unwrap();
        assert_eq!((clip.mean[0], clip.resize), (CLIP.0[0], Some(Resize { shorter: 17, filter: Filter::Bilinear })));
        let own = Read { prepared: Some(serde_json::json!({ "shorter": 19, "filter": "bilinear" })), ..read.clone() };
        assert_eq!(golden().normalization(&own).unwrap().resize, Some(Resize { shorter: 19, filter: Filter::Bilinear }));
        let small = Config { resize: Some(16), ..golden() };
        assert!(small.normalization(&read).unwrap_err().to_string().contains("takes 17 pixels"));
        let gray = Config { mean: Some(vec![0.5]), std: Some(vec![0.5]), ..golden() };
        assert!(gray.normalization(&read).is_err());
    }

    #[test]
    fn it_writes_an_encoder_and_says_how_it_reads_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let (heard, places) = (Heard::default(), DataPaths::new(dir.path(), None, None));
        let folder = |name: &str| dir.path().join(name);
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), folder("work"), folder("out"), &heard);
        let out = OnnxEncoder::run(&golden(), In {}, &cx).unwrap();
        let encoder = Encoder::load(&stored(&out.encoder)).unwrap();
        assert_eq!((encoder.card.architecture.features, encoder.card.architecture.size), (12, 17));
        let said = heard.texts().join("\n");
        assert!(said.contains("`embedding`: 12 features of images of 17 pixels, cut out of 20 (bicubic)"), "{said}");
        assert!(said.contains("normalized inside") && said.ends_with("not read: `logits`"), "{said}");
    }
}
