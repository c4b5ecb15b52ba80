//! What most commands begin with: a checked pipeline, a store, the places of raw data.

use std::path::Path;

use candle_core::Device;

use super::args::{PipelineArgs, PlaceArgs, SelectArgs};
use super::terminal;
use crate::base::hint::{Exit, Fault};
use crate::dataset::Places;
use crate::pipeline::fault::Faults;
use crate::pipeline::graph::{self, Selected, Selection};
use crate::pipeline::registry;
use crate::pipeline::spec::{self, Request, Spec};
use crate::pipeline::state::Outlook;
use crate::store::Store;
use crate::train::device::{DeviceClass, DeviceName};

/// Why a command did not do what it was asked.
pub(super) enum Failure {
    /// Faults of a pipeline file.
    Faults(Faults),
    /// One fault.
    Fault(Box<dyn Fault>),
    /// The reader of our output has gone: nothing to say.
    Closed,
}

/// Every error of a room is a fault; one line each, because [`Faults`] is one too and shall be shown in its own way.
macro_rules! faults {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(fault: $error) -> Self {
                Self::Fault(Box::new(fault))
            }
        })*
    };
}

faults!(
    crate::artifact::error::ArtifactError,
    crate::base::fs::FileError,
    crate::dataset::DatasetError,
    crate::pipeline::error::RunError,
    crate::stage::StageError,
    crate::store::StoreError,
    crate::train::TrainError,
);

impl Failure {
    /// A fault of the command itself.
    pub(super) fn own(fault: impl Fault + 'static) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::Faults(faults)
    }
}

impl Failure {
    /// Says what is wrong; returns how the process should end.
    pub(super) fn report(&self) -> Exit {
        match self {
            Self::Faults(faults) => {
                terminal::say(&faults.render(terminal::colored(), terminal::width()));
                Exit::Pipeline
            }
            Self::Fault(fault) => {
                terminal::error(&**fault);
                fault.exit()
            }
            Self::Closed => Exit::Done,
        }
    }
}

/// What a command returns.
pub(super) type Answer = Result<Exit, Failure>;

/// The checked pipeline.
pub(super) fn pipeline(args: &PipelineArgs) -> Result<Spec, Failure> {
    let request =
        Request { profile: args.profile.clone(), set: args.set.clone(), seed: args.seed, device: args.device.clone() };
    Ok(spec::load(&args.pipeline, &request, &registry::catalog())?)
}

/// Where raw data are looked for. A source's own `root` is relative to the pipeline file.
pub(super) fn places(args: &PlaceArgs, pipeline: Option<&Path>) -> Places {
    let base = pipeline.and_then(Path::parent).map(Path::to_path_buf).unwrap_or_default();
    Places::new(base, args.data.clone(), std::env::var_os("KINSET_DATA").map(Into::into))
}

/// The device of a pipeline, and its class for keys.
pub(super) fn device_of(spec: &Spec) -> Result<(Device, &'static str), Failure> {
    let device = spec.device.parse::<DeviceName>()?.open()?;
    let class = DeviceClass::of(&device).word();
    Ok((device, class))
}

/// Which stages.
pub(super) fn selection(spec: &Spec, args: &SelectArgs) -> Result<Selected, Failure> {
    let selection = Selection {
        only: args.only.clone(),
        from: args.from.clone(),
        until: args.until.clone(),
        force: args.force.then(Vec::new),
    };
    Ok(graph::select(spec, &selection)?)
}

/// Calls back with the outlook on a pipeline, over a store that is only read.
pub(super) fn outlook<T>(
    args: &PipelineArgs,
    look: impl FnOnce(&Spec, &Outlook<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let spec = pipeline(args)?;
    let store = Store::open_to_read(&args.places.artifacts)?;
    let places = places(&args.places, Some(&args.pipeline));
    let device_class = device_of(&spec)?.1;
    look(&spec, &Outlook { spec: &spec, store: &store, places: &places, device_class })
}
