//! # kinset-model: networks and their weights
//!
//! Residual networks, AlexNet, published vision transformers, graphs of ONNX's operators, and heads; their initial weights, and the names their tensors go by. [`EncoderNet`] turns images
//! into features, [`ClassifierNet`] turns features into clusters; both are made of [`Params`], an ordered list of named
//! tensors that says which of them training moves. [`export`] and [`onnx`] write them for PyTorch and for the runtimes of ONNX; [`onnx`] reads encoders too.
//!
//! Not here: how weights move (`train`), fast operations (`kernel`), what a network looks like on disk (`artifact`).

#![forbid(unsafe_code)]

mod alexnet;
pub mod classifier;
pub mod encoder;
pub mod error;
pub mod export;
mod graph;
mod head;
pub mod import;
pub mod init;
mod norm;
pub mod onnx;
pub mod params;
mod positions;
pub mod published;
mod resnet;
pub mod settings;
#[doc(hidden)] // tests of other crates use it
pub mod testing;
mod vit;
mod weight_norm;

pub use classifier::{ClassifierNet, HeadChoice, HeadsShape};
pub use encoder::{EncoderNet, architecture, features_alone, tower};
pub use error::{Mismatch, ModelError, Result};
pub use head::PredictionHead;
pub use norm::Mode;
pub use params::{Params, Role};
pub use weight_norm::{DistillHeads, DistillShape, LinearProbes, TaskEncoder};
