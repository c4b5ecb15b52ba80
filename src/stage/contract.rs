//! The stage contract.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::error::StageError;
use super::outputs::Outputs;
use super::ports::{LabelFreePorts, Ports};
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;

/// Something wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Which setting, dotted from the stage's table: `augment.crop_scale`.
    pub path: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

impl Complaint {
    /// A complaint about one setting.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into(), hint: None }
    }

    /// Complaints about the fields of a nested table.
    pub fn below(table: &str, fields: impl IntoIterator<Item = (&'static str, String)>) -> Vec<Self> {
        fields.into_iter().map(|(field, message)| Self::new(format!("{table}.{field}"), message)).collect()
    }

    /// What is wrong with a number that must be at least so large.
    pub fn unless_at_least(path: &str, value: u64, least: u64) -> Option<Self> {
        (value < least).then(|| Self::new(path, format!("is {value}, and must be at least {least}")))
    }

    /// What is wrong with a number that must be finite and above 0.
    pub fn unless_above_zero(path: &str, value: f64) -> Option<Self> {
        let fits = value > 0.0 && value.is_finite();
        (!fits).then(|| Self::new(path, format!("is {value}, and must be above 0")))
    }

    /// What is wrong with a number that must be finite and not below 0.
    pub fn if_negative(path: &str, value: f64) -> Option<Self> {
        let fits = value >= 0.0 && value.is_finite();
        (!fits).then(|| Self::new(path, format!("is {value}, and must not be negative")))
    }

    /// What is wrong with a number that must be a share below the whole.
    pub fn unless_below_one(path: &str, value: f64) -> Option<Self> {
        (!(0.0..1.0).contains(&value)).then(|| Self::new(path, format!("is {value}, and must lie in 0–1, below 1")))
    }

    /// Adds what would be right.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// The settings of a stage. `Default` is the paper's table where there is a paper; serde refuses unknown keys.
pub trait Settings: Serialize + DeserializeOwned + Default + Clone + Send + Sync {
    /// Everything that is wrong beyond types: ranges, combinations. A stage never checks its own settings again.
    fn check(&self) -> Vec<Complaint> {
        Vec::new()
    }
}

/// No settings at all.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

impl Settings for NoSettings {}

/// One step of a pipeline: what it asks for, what it yields, how it runs.
pub trait Stage: 'static {
    /// The word in the pipeline file.
    const KIND: &'static str;
    /// Raise it when equal inputs would now yield another result, and say why beside it.
    const VERSION: u32;
    /// One line for lists.
    const SUMMARY: &'static str;
    /// True if it draws random numbers: its key then holds the derived seed.
    const SEEDED: bool = false;
    /// True if it computes on the device: its key then holds the class of the device and the precision.
    const ON_DEVICE: bool = false;
    /// Its settings.
    type Config: Settings;
    /// What it reads.
    type In: Ports;
    /// What it writes.
    type Out: Outputs;

    /// Files outside the store that its result depends on; the engine digests them into the key.
    ///
    /// # Errors
    /// If they cannot be found.
    fn raw_files(_config: &Self::Config, _places: &DataPaths) -> Result<Vec<RawFile>, StageError> {
        Ok(Vec::new())
    }

    /// The settings that go into the key: all but those that say where something lies and not what it is.
    ///
    /// # Errors
    /// If the settings make no sense (the plan has checked them).
    fn key_settings(config: &Self::Config) -> Result<impl Serialize, StageError> {
        Ok(config)
    }

    /// Does the work.
    ///
    /// # Errors
    /// Whatever went wrong, with the numbers; [`StageError::Stopped`] if it was asked to stop and kept its progress.
    fn run(config: &Self::Config, input: Self::In, cx: &Context<'_>) -> Result<Self::Out, StageError>;
}

/// What the door of a method says; `kinset methods NAME` prints it.
#[derive(Clone, Copy, Debug)]
pub struct Sign {
    /// Authors, title, venue, identifier.
    pub paper: &'static str,
    /// What it reads, in words.
    pub reads: &'static str,
    /// What it writes, in words.
    pub writes: &'static str,
    /// The idea in two sentences.
    pub idea: &'static str,
    /// The loss, with shapes.
    pub loss: &'static str,
    /// How the result is chosen without labels.
    pub selection: &'static str,
    /// What the default settings take from the paper or its authors' code.
    pub as_in_paper: &'static str,
    /// Where this differs, and why.
    pub unlike_paper: &'static str,
    /// What to expect, on which data.
    pub expect: &'static str,
}

/// A stage with a paper. Its bounds are the label-free guarantee: ports that carry labels or scores do not compile.
///
/// ```compile_fail,E0277
/// use kinset_artifact::{Draft, Stored, encoder::Encoder, labels::Labels};
/// use kinset_stage::{Context, Method, Sign, Stage, StageError, contract::NoSettings};
///
/// kinset_stage::ports! { /** Reads the truth. */ pub struct In { labels: Stored<Labels> } }
/// kinset_stage::outputs! { /** An encoder. */ pub struct Out { encoder: Draft<Encoder> } }
///
/// struct Cheat;
/// impl Stage for Cheat {
///     const KIND: &'static str = "cheat";
///     const VERSION: u32 = 1;
///     const SUMMARY: &'static str = "learns from the truth";
///     type Config = NoSettings;
///     type In = In;
///     type Out = Out;
///     fn run(_: &NoSettings, _: In, _: &Context<'_>) -> Result<Out, StageError> {
///         Err(StageError::Stopped)
///     }
/// }
/// impl Method for Cheat {
///     const SIGN: Sign = Sign { paper: "", reads: "", writes: "", idea: "", loss: "", selection: "", as_in_paper: "",
///         unlike_paper: "", expect: "" };
/// }
/// ```
///
/// Nor can a step launder labels into something label-free: a stage that reads them must not write anything a method may read.
///
/// ```compile_fail,E0080
/// use kinset_artifact::{Draft, Stored, features::Features, labels::Labels};
/// use kinset_stage::{Context, Erased, Stage, StageError, contract::NoSettings};
///
/// kinset_stage::ports! { /** Reads the truth. */ pub struct In { labels: Stored<Labels> } }
/// kinset_stage::outputs! { /** Writes it as features. */ pub struct Out { features: Draft<Features> } }
///
/// struct Launder;
/// impl Stage for Launder {
///     const KIND: &'static str = "launder";
///     const VERSION: u32 = 1;
///     const SUMMARY: &'static str = "labels as features";
///     type Config = NoSettings;
///     type In = In;
///     type Out = Out;
///     fn run(_: &NoSettings, _: In, _: &Context<'_>) -> Result<Out, StageError> {
///         Err(StageError::Stopped)
///     }
/// }
/// let _ = Erased::<Launder>::new();
/// ```
pub trait Method: Stage<In: LabelFreePorts, Out: Outputs> {
    /// What its door says.
    const SIGN: Sign;
}
