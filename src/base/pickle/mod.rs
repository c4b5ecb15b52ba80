//! # base/pickle: the plain values in Python's pickles
//!
//! Python's own format of objects is a program, and two crates have to read files of it: weights that PyTorch wrote
//! (`model/import`), CIFAR in its Python version (`dataset`). `machine` runs the program as far as it builds plain values,
//! [`value`] says which those are and which names may occur.
//!
//! Not here: what the values mean.

pub mod error;
mod machine;
pub mod value;

pub use error::{DAMAGED, PickleError, TENSORS_ALONE};
