//! # dataset/vectors: features that somebody else made
//!
//! Vectors with names, one for each image, from a file ([`mod@open`]): Parquet and Arrow, whose columns the artifacts find, NumPy's
//! `.npy` ([`npy`]), or delimited text ([`csv`], whose records `records` reads). They stream by, some thousand rows at a time.
//! [`check`] reads a whole file and says what is wrong with it. What else is known of images by name, their class or the weather,
//! comes as [`attributes`].
//!
//! Not here: kinset's own features (`artifact/features`).

pub mod attributes;
mod check;
pub mod csv;
pub mod npy;
pub mod open;
mod records;

pub use check::{Problem, VectorsReport, check, fault, repeated};
pub use csv::byte_of;
pub use open::{Batch, Options, Vectors, files};
pub(super) use records::not_text;
