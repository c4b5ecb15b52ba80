//! The stage contract.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::error::StageError;
use super::outputs::Outputs;
use super::ports::{LabelFreePorts, Ports};
use super::raw_files::RawFiles;
use super::settings::Settings;
use kinset_base::search_path::DataPaths;

/// What falls to one of several processes that compute a stage together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which process, from 0.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl Share {
    /// Which of so many pieces fall to it.
    pub fn pieces(self, all: usize) -> Range<usize> {
        let from = |number: usize| (number as u128 * all as u128 / self.of.max(1) as u128) as usize;
        from(self.number)..from(self.number + 1)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {} of {}", self.number + 1, self.of)
    }
}

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
    /// Whether several processes can compute it together: each by [`Stage::share`] what falls to it; what runs after them puts together
    /// what they left in [`Context::shared`], and computes what is missing. The result is the same as without them, bit by bit.
    const SHARED: bool = false;
    /// Its settings. `Default` is the paper's table where there is a paper.
    type Config: Settings + Default;
    /// What it reads.
    type In: Ports;
    /// What it writes.
    type Out: Outputs;

    /// Files outside the store that its result depends on; the engine digests them into the key.
    ///
    /// # Errors
    /// If they cannot be found.
    fn raw_files(_config: &Self::Config, _places: &DataPaths) -> Result<RawFiles, StageError> {
        Ok(RawFiles::default())
    }

    /// The settings that go into the key: all but those that say where something lies and not what it is.
    ///
    /// # Errors
    /// If the settings make no sense (the plan has checked them).
    fn key_settings(config: &Self::Config) -> Result<impl Serialize, StageError> {
        Ok(config)
    }

    /// Refuses settings that so many images cannot satisfy. The stage itself asks it once it has the images, `plan` as soon as their
    /// number is known.
    ///
    /// # Errors
    /// [`StageError::TooFew`].
    fn fits(_config: &Self::Config, _images: usize) -> Result<(), StageError> {
        Ok(())
    }

    /// Computes some of it, and leaves that in [`Context::shared`].
    ///
    /// # Errors
    /// As [`Stage::run`].
    fn share(_config: &Self::Config, _input: Self::In, _share: Share, _cx: &Context<'_>) -> Result<(), StageError> {
        Ok(())
    }

    /// Does the work.
    ///
    /// # Errors
    /// Whatever went wrong, with the numbers; [`StageError::Stopped`] if it was asked to stop and kept its progress.
    fn run(config: &Self::Config, input: Self::In, cx: &Context<'_>) -> Result<Self::Out, StageError>;
}

/// The card of a method's paper; `kinset methods NAME` prints it.
#[derive(Clone, Copy, Debug)]
pub struct PaperCard {
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
/// use kinset_stage::{Context, Method, NoSettings, PaperCard, Stage, StageError};
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
///     const CARD: PaperCard = PaperCard { paper: "", reads: "", writes: "", idea: "", loss: "", selection: "", as_in_paper: "",
///         unlike_paper: "", expect: "" };
/// }
/// ```
///
/// Nor can a stage turn labels into something label-free: a stage that reads them must not write anything a method may read.
///
/// ```compile_fail,E0080
/// use kinset_artifact::{Draft, Stored, features::Features, labels::Labels};
/// use kinset_stage::{Context, Erased, NoSettings, Stage, StageError};
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
    /// The card of its paper.
    const CARD: PaperCard;
}
