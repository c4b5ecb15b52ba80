//! # train: how does one step work?
//!
//! What every method needs to move weights: optimizers ([`optim`]) and the learning rates they follow ([`schedule`]), averages
//! of weights ([`ema`]), the order of the images ([`batches`]) and the batch made early ([`ahead`]), the device ([`device`]), checkpoints a killed run goes on from
//! ([`checkpoint`]), and the checks that a run is still worth its electricity ([`health`]).
//!
//! Not here: losses and loops (`method`): a method owns its rounds.

pub mod ahead;
pub mod batches;
pub mod checkpoint;
pub mod device;
pub mod ema;
pub mod error;
pub mod feed;
pub mod health;
pub mod infer;
pub mod optim;
pub mod schedule;
pub mod settings;
mod sweep;

pub use error::{Result, TrainError};
