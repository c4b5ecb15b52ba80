//! # kinset-train: how does one step work?
//!
//! What every method needs to move weights: optimizers ([`optim`]) and the learning rates they follow ([`schedule`]), averages
//! of weights ([`ema`]), the order of the images ([`batches`]) and the batch made early ([`ahead`]), the device ([`device`]), checkpoints a killed run goes on from
//! ([`checkpoint`]), and the checks that a run is still worth its electricity ([`health`]).
//!
//! Not here: losses and loops (`methods`): a method owns its rounds.

#![forbid(unsafe_code)]

pub mod ahead;
pub mod batches;
pub mod checkpoint;
pub mod device;
pub mod ema;
pub mod error;
pub mod feed;
pub mod health;
pub mod infer;
pub mod learner;
pub mod optim;
pub mod pretext;
pub mod schedule;
pub mod selection;
pub mod settings;
pub mod sight;
pub mod space;
mod sweep;
pub mod training;

pub use error::{Result, TrainError};
