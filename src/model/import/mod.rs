//! # import: weights of other projects
//!
//! [`find`] reads the network of a file that PyTorch or safetensors wrote, for SCAN, NNM, RUC, AND, MoCo and whoever trains a residual
//! network: containers in `file`, the restricted unpickler is `base/pickle`, which dictionary is the network in `state`, what stands before
//! and beside its names in [`beginnings`], whose names those are in [`names`], which network that is in [`network`]. What is left beside the
//! network is said. In it no tensor is left over and none is made up: what is missing or unexpected is an error that lists both sides,
//! because a partly random network would train without an error and score badly.
//!
//! [`frozen`] reads the image encoders that people leave as they are (DINOv2, CLIP, ResNet-50), whose names are in `towers`.
//!
//! [`names`] also serves the way out (`kinset export`). Not here: how our own weights lie on disk (`artifact::encoder`).

pub mod beginnings;
pub mod error;
mod file;
pub mod frozen;
pub mod names;
pub mod network;
mod state;
mod towers;

pub use beginnings::Names;
pub use error::ImportError;
pub use names::Layout;
pub use network::{Found, Wanted, find};

#[cfg(test)]
mod tests;
