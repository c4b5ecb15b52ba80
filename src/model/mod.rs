//! # model: what does the network look like?
//!
//! Residual networks and their heads, their initial weights, and the names their tensors go by. [`EncoderNet`] turns images
//! into features, [`ClassifierNet`] turns features into clusters; both are made of [`Params`], an ordered list of named
//! tensors that says which of them training moves.
//!
//! Not here: how weights move (`train`), fast operations (`kernel`), what a network looks like on disk (`artifact`).

pub mod classifier;
pub mod encoder;
pub mod error;
pub mod export;
mod head;
pub mod import;
pub mod init;
mod norm;
pub mod params;
mod resnet;
pub mod settings;
#[cfg(test)]
pub(crate) mod testing;

pub use classifier::{ClassifierNet, HeadChoice};
pub use encoder::{EncoderNet, architecture};
pub use error::{Mismatch, ModelError, Result};
pub use head::PredictionHead;
pub use norm::Mode;
pub use params::{Params, Role};
