//! Type erasure, in one place: any [`Stage`] as a `&'static dyn AnyStage`.

use std::fmt;
use std::marker::PhantomData;

use serde_json::Value;

use super::context::Context;
use super::contract::{Method, PaperCard, Share, Stage};
use super::error::StageError;
use super::outputs::{AnyDraft, OutputInfo, Outputs};
use super::ports::{Offers, PortInfo, Ports};
use super::raw_files::RawFiles;
use super::schema;
use super::settings::{Complaint, Limit, Settings};
use kinset_base::search_path::DataPaths;
use kinset_store::Manifest;

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
    /// The card of a method; none for a stage without a paper.
    fn card(&self) -> Option<&'static PaperCard>;
    /// Its ports.
    fn ports(&self) -> &'static [PortInfo];
    /// Its outputs.
    fn outputs(&self) -> &'static [OutputInfo];
    /// Its settings with nothing said, as a JSON object.
    fn default_settings(&self) -> Value;
    /// The limits of numbers among them, by dotted path.
    fn limits(&self) -> Vec<(String, Limit)>;
    /// A JSON Schema of what a pipeline file may set, with documents, defaults and limits.
    fn schema(&self) -> Value;
    /// Everything wrong with some complete settings, types first.
    fn check_settings(&self, settings: &Value) -> Vec<Complaint>;
    /// Complete settings as the stage's own type writes them.
    ///
    /// # Errors
    /// If they are not of that type: the plan has checked them, so this is our bug.
    fn normalize(&self, settings: &Value) -> Result<Value, StageError>;
    /// Kind, version and [`Stage::key_settings`]: what the key holds before inputs and seed are added.
    ///
    /// # Errors
    /// As [`AnyStage::normalize`]; a setting that is not a finite number.
    fn manifest(&self, settings: &Value) -> Result<Manifest, StageError>;
    /// [`Stage::raw_files`].
    ///
    /// # Errors
    /// If the files cannot be found.
    fn raw_files(&self, settings: &Value, places: &DataPaths) -> Result<RawFiles, StageError>;
    /// [`Stage::fits`].
    ///
    /// # Errors
    /// As [`AnyStage::normalize`]; if so many images are too few.
    fn fits(&self, settings: &Value, images: usize) -> Result<(), StageError>;
    /// [`Stage::SHARED`].
    fn shared(&self) -> bool;
    /// Binds the ports and computes a share.
    ///
    /// # Errors
    /// Whatever the stage says.
    fn share(&self, settings: &Value, offers: &Offers, share: Share, cx: &Context<'_>) -> Result<(), StageError>;
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
    card: Option<&'static PaperCard>,
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
        Self { card: None, stage: PhantomData }
    }
}

impl<M: Method> Erased<M> {
    const OUT_LABEL_FREE: () = assert!(M::Out::LABEL_FREE, "what a method writes must be label-free");

    /// A method: a stage with a paper.
    pub const fn method() -> Self {
        let () = Self::OUT_LABEL_FREE;
        Self { card: Some(&M::CARD), stage: PhantomData }
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

    fn card(&self) -> Option<&'static PaperCard> {
        self.card
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

    fn limits(&self) -> Vec<(String, Limit)> {
        S::Config::default().limits()
    }

    fn schema(&self) -> Value {
        let defaults = self.default_settings();
        // A complaint about nothing is about what has to be given.
        let complaints = self.check_settings(&defaults).into_iter().map(|complaint| complaint.path);
        let needed: Vec<String> = complaints.filter(|path| defaults.get(path) == Some(&"".into())).collect();
        schema::of::<S::Config>(&defaults, &needed)
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

    fn manifest(&self, settings: &Value) -> Result<Manifest, StageError> {
        let config = typed::<S>(settings)?;
        let settings = S::key_settings(&config)?;
        Manifest::new(S::KIND, S::VERSION, &settings).map_err(StageError::other)
    }

    fn raw_files(&self, settings: &Value, places: &DataPaths) -> Result<RawFiles, StageError> {
        S::raw_files(&typed::<S>(settings)?, places)
    }

    fn fits(&self, settings: &Value, images: usize) -> Result<(), StageError> {
        S::fits(&typed::<S>(settings)?, images)
    }

    fn shared(&self) -> bool {
        S::SHARED
    }

    fn share(&self, settings: &Value, offers: &Offers, share: Share, cx: &Context<'_>) -> Result<(), StageError> {
        S::share(&typed::<S>(settings)?, S::In::bind(offers)?, share, cx)
    }

    fn run(&self, settings: &Value, offers: &Offers, cx: &Context<'_>) -> Result<Vec<AnyDraft>, StageError> {
        let config = typed::<S>(settings)?;
        let input = S::In::bind(offers)?;
        Ok(S::run(&config, input, cx)?.drafts())
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    use super::*;
    use kinset_artifact::Draft;
    use kinset_artifact::labels::Labels;
    use kinset_base::fault::{Exit, Fault};

    crate::ports! { /** Nothing. */ struct In {} }
    crate::outputs! { /** Never written. */ struct Out { labels: Draft<Labels> } }

    #[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
    struct Then {
        rate: f32,
        nested: Nested,
    }

    #[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
    struct Nested {
        scale: f64,
    }

    /// [`Then`] with two settings that were added later.
    #[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
    struct Now {
        rate: f32,
        nested: NestedNow,
        warmup: Option<u32>,
    }

    #[derive(Clone, Default, Serialize, Deserialize, JsonSchema)]
    struct NestedNow {
        scale: f64,
        shift: Option<Vec<f64>>,
    }

    impl Settings for Then {}
    impl Settings for Now {}

    struct Toy<C>(PhantomData<C>);

    impl<C: Settings + Default + 'static> Stage for Toy<C> {
        const KIND: &'static str = "toy";
        const VERSION: u32 = 1;
        const SUMMARY: &'static str = "a stage with settings";
        type Config = C;
        type In = In;
        type Out = Out;

        fn run(_: &C, _: In, _: &Context<'_>) -> Result<Out, StageError> {
            Err(StageError::Stopped)
        }
    }

    const THEN: &dyn AnyStage = &Erased::<Toy<Then>>::new();
    const NOW: &dyn AnyStage = &Erased::<Toy<Now>>::new();

    #[test]
    fn a_new_optional_setting_moves_no_key() {
        let then = THEN.normalize(&json!({"rate": 0.1, "nested": {"scale": 2}})).unwrap();
        let now = NOW.normalize(&then).unwrap();
        assert_eq!((&now["warmup"], &now["nested"]["shift"]), (&Value::Null, &Value::Null));
        let (then, now) = (THEN.manifest(&then).unwrap(), NOW.manifest(&now).unwrap());
        assert_eq!(then.settings(), &json!({"rate": 0.1, "nested": {"scale": 2}}));
        assert_eq!(now, then);
        assert_eq!(now.key(), then.key());
        let set = NOW.manifest(&json!({"rate": 0.1, "nested": {"scale": 2}, "warmup": 0})).unwrap();
        assert_ne!(set.key(), then.key());
    }

    #[test]
    fn a_setting_that_is_not_finite_is_refused_by_name() {
        // JSON has no such number, but 32 bits are too few for this one.
        let error = NOW.manifest(&json!({"rate": 1e300, "nested": {"scale": 1}})).unwrap_err();
        assert_eq!(error.to_string(), "`settings.rate` is inf; expected a finite number");
        assert_eq!((error.code(), error.exit()), ("store::not-finite", Exit::Pipeline));
    }
}
