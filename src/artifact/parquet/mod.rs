//! # artifact/parquet: how do tables get to disk and back?
//!
//! The only place that names the crates arrow and parquet. [`mod@column`] is the house's own idea of a table, [`mod@write`] streams one
//! to disk and digests what it says on the way, [`mod@read`] brings it back or says exactly what is wrong with it. Three readers take
//! any Parquet file: [`mod@inspect`] describes it, with the [`mod@shape`] of its columns, [`mod@pictures`] streams the images of a
//! published data set, [`mod@vectors`] embeddings that somebody else made.
//!
//! All of them open a file through `footer` and read it through `source`. Neither lets what the file says of itself reach the decoder
//! before `thrift` walked over it by the plan of `structures`.
//!
//! Not here: what the columns mean (the files beside this folder).

pub mod column;
mod footer;
mod guard;
pub mod inspect;
pub mod pictures;
pub mod read;
pub mod shape;
mod source;
mod structures;
mod thrift;
pub mod vectors;
pub mod write;

#[cfg(test)]
mod tests;

pub use column::{Column, ColumnKind};
pub use read::TableReader;
pub use write::TableWriter;
