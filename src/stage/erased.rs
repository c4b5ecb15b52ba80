//! Where types are forgotten, once: any [`Stage`] as a `&'static dyn AnyStage`.

use std::fmt;
use std::marker::PhantomData;

use serde_json::Value;

use super::context::Context;
use super::contract::{Complaint, Method, Settings, Sign, Stage};
use super::error::StageError;
use super::outputs::{AnyDraft, OutputInfo, Outputs};
use super::ports::{Offers, PortInfo, Ports};
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;

/// A stage of any type, as the engine sees it.
pub trait AnyStage: Sync {
    /// [`Stage::KIND`].
    fn kind(&self) -> &'static str;
    /// [`Stage::VERSION`].
    fn version(&self) -> u32;
    /// [`Stage::SUMMARY`].
    fn summary(&self) -> &'static str;
    /// [`Stage::SEEDED`].
    fn seeded(&self) -> bool;
    /// [`Stage::ON_DEVICE`].
    fn on_device(&self) -> bool;
    /// The sign of a method; none for a step.
    fn sign(&self) -> Option<&'static Sign>;
    /// Its ports.
    fn ports(&self) -> &'static [PortInfo];
    /// Its outputs.
    fn outputs(&self) -> &'static [OutputInfo];
    /// Its settings with nothing said, as a JSON object.
    fn default_settings(&self) -> Value;
    /// Everything wrong with some complete settings, types first.
    fn check_settings(&self, settings: &Value) -> Vec<Complaint>;
    /// Complete settings as the stage's own type writes them.
    ///
    /// # Errors
    /// If they are not of that type: the plan has checked them, so this is our bug.
    fn normalize(&self, settings: &Value) -> Result<Value, StageError>;
    /// The part of the settings that belongs into the key.
    ///
    /// # Errors
    /// As [`AnyStage::normalize`].
    fn key_settings(&self, settings: &Value) -> Result<Value, StageError>;
    /// [`Stage::raw_files`].
    ///
    /// # Errors
    /// If the files cannot be found.
    fn raw_files(&self, settings: &Value, places: &DataPaths) -> Result<Vec<RawFile>, StageError>;
    /// Binds the ports and runs.
    ///
    /// # Errors
    /// Whatever the stage says.
    fn run(&self, settings: &Value, offers: &Offers, cx: &Context<'_>) -> Result<Vec<AnyDraft>, StageError>;
}

impl fmt::Debug for dyn AnyStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.kind(), self.version())
    }
}

/// The erasure of a stage.
pub struct Erased<S> {
    sign: Option<&'static Sign>,
    stage: PhantomData<fn() -> S>,
}

impl<S: Stage> Erased<S> {
    const NO_LAUNDERING: () = assert!(
        S::In::LABEL_FREE || !S::Out::ANY_LABEL_FREE,
        "a stage that reads labels or scores must not write anything a method may read"
    );

    /// A step: a stage without a paper.
    #[expect(clippy::new_without_default, reason = "registration is a named act")]
    pub const fn new() -> Self {
        let () = Self::NO_LAUNDERING;
        Self { sign: None, stage: PhantomData }
    }
}

impl<M: Method> Erased<M> {
    const OUT_LABEL_FREE: () = assert!(M::Out::LABEL_FREE, "what a method writes must be label-free");

    /// A method: a stage with a paper.
    pub const fn method() -> Self {
        let () = Self::OUT_LABEL_FREE;
        Self { sign: Some(&M::SIGN), stage: PhantomData }
    }
}

fn typed<S: Stage>(settings: &Value) -> Result<S::Config, StageError> {
    serde_json::from_value(settings.clone()).map_err(|source| StageError::Settings { kind: S::KIND, source })
}

fn written<S: Stage>(config: &S::Config) -> Result<Value, StageError> {
    serde_json::to_value(config).map_err(|source| StageError::Settings { kind: S::KIND, source })
}

impl<S: Stage> AnyStage for Erased<S> {
    fn kind(&self) -> &'static str {
        S::KIND
    }

    fn version(&self) -> u32 {
        S::VERSION
    }

    fn summary(&self) -> &'static str {
        S::SUMMARY
    }

    fn seeded(&self) -> bool {
        S::SEEDED
    }

    fn on_device(&self) -> bool {
        S::ON_DEVICE
    }

    fn sign(&self) -> Option<&'static Sign> {
        self.sign
    }

    fn ports(&self) -> &'static [PortInfo] {
        S::In::PORTS
    }

    fn outputs(&self) -> &'static [OutputInfo] {
        S::Out::OUTPUTS
    }

    fn default_settings(&self) -> Value {
        written::<S>(&S::Config::default()).unwrap_or_else(|_| Value::Object(serde_json::Map::new()))
    }

    fn check_settings(&self, settings: &Value) -> Vec<Complaint> {
        match serde_json::from_value::<S::Config>(settings.clone()) {
            Ok(config) => config.check(),
            Err(error) => vec![Complaint::new("", error.to_string())],
        }
    }

    fn normalize(&self, settings: &Value) -> Result<Value, StageError> {
        written::<S>(&typed::<S>(settings)?)
    }

    fn key_settings(&self, settings: &Value) -> Result<Value, StageError> {
        S::key_settings(&typed::<S>(settings)?)
    }

    fn raw_files(&self, settings: &Value, places: &DataPaths) -> Result<Vec<RawFile>, StageError> {
        S::raw_files(&typed::<S>(settings)?, places)
    }

    fn run(&self, settings: &Value, offers: &Offers, cx: &Context<'_>) -> Result<Vec<AnyDraft>, StageError> {
        let config = typed::<S>(settings)?;
        let input = S::In::bind(offers)?;
        Ok(S::run(&config, input, cx)?.drafts())
    }
}
