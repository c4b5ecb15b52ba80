//! # kinset-stage: the contract of a stage
//!
//! The contract between the engine and everything that runs in it: a [`Stage`] has a kind, a version, settings, typed
//! [`mod@ports`] and typed [`mod@outputs`], and one function. A [`Method`] is a stage with a paper, and its bounds are the label-free
//! guarantee. A stage gets all it may use from its [`Context`], and its saved progress from its [`Unfinished`] work. [`erased`] is the one
//! place where types are erased, so that the engine can hold a list of stages; [`schema`] describes a stage's settings.
//!
//! Not here: the stages themselves (`builtin`, `methods`), when and why they run (`pipeline`).

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod context;
pub mod contract;
pub mod erased;
pub mod error;
pub mod outputs;
pub mod ports;
pub mod raw_files;
pub mod schema;
pub mod settings;
#[doc(hidden)]
pub mod testing;
pub mod unfinished;

#[doc(hidden)] // for the macros
pub use kinset_artifact as artifact;
pub use kinset_base::stop::Stop;

pub use context::{Bar, Context, Signal, Sink};
pub use contract::{Method, PaperCard, Share, Stage};
pub use erased::{AnyStage, Erased};
pub use error::StageError;
pub use outputs::{AnyDraft, OutputInfo, Outputs};
pub use ports::{Arity, Either, LabelFreePorts, Offer, Offers, Parts, Port, PortInfo, Ports};
pub use raw_files::RawFiles;
pub use settings::{Complaint, Limit, NoSettings, Settings};
pub use unfinished::Unfinished;
