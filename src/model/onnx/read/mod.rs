//! # read: from somebody's ONNX file to an encoder: the operators that lead to one output, in the form of one operator set, and their weights.
//!
//! What does not depend on the picture is computed here. What exporters spell out in many operators (GELU, layer norm) becomes one
//! again, which runs faster. The graph is tried with pictures of zeros, so that a file that cannot be run is refused at once.
//!
//! `file` is the way from bytes to an encoder; `picture` says what it takes, `numbers` reads tensors and settings, `drawn` is the graph
//! while it is read, `fuse` finds the operators that are one, `finish` tries it and lays it down.

mod drawn;
mod file;
mod finish;
mod fuse;
mod numbers;
mod picture;
#[cfg(test)]
mod tests;

pub use file::{Pool, Read, Values, Wanted, encoder};
