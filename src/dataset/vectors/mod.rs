//! # dataset/vectors: features that somebody else made
//!
//! Vectors with names, one for each image, from a file: Parquet ([`mod@open`] finds the columns), NumPy's `.npy` ([`npy`]), or
//! CSV as the fork of SCAN writes it ([`csv`]). They stream by, some thousand rows at a time. What else is known of images by
//! name, their class or the weather, comes as [`attributes`].
//!
//! Not here: kinset's own features (`artifact/features`).

pub mod attributes;
pub mod csv;
pub mod npy;
pub mod open;

pub use open::{Batch, Options, Vectors};
