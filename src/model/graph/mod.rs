//! # graph: a network that came as a graph, its operators as ONNX specifies them
//!
//! Pictures pass in small groups, side by side on all threads; a group is computed the same whatever threads there are. Nothing here
//! learns: weights are buffers, and no gradient reaches them. Whole numbers (shapes, axes, indices) are tensors of `i64` on the CPU.
//!
//! `net` runs a graph; `operators` knows the operators by name, `numbers`, `maps` and `shapes` hold those that take more than a line;
//! `inputs` is what they have in common. Not here: how a graph is taken out of a file (`onnx`).
//!
//! # Source
//! ONNX, "Operator schemas" (`docs/Operators.md`), operator set 17; `Gelu` of set 20.

mod inputs;
mod maps;
mod net;
mod numbers;
mod operators;
mod shapes;

pub(crate) use inputs::Inputs;
pub(crate) use net::GraphNet;
pub(crate) use operators::operator;
