//! # artifact/parquet: tables on disk
//!
//! The only place that names the crates arrow and parquet. [`mod@column`] has the column types of kinset's tables, [`mod@write`]
//! streams a table to disk and digests its content on the way, [`mod@read`] reads it back or says exactly what is wrong with it.
//! Three readers take any Parquet file: [`mod@inspect`] gives its [`mod@summary`], with the distributions of its columns,
//! [`mod@pictures`] streams the images of a published data set, [`mod@vectors`] embeddings that somebody else made.
//!
//! [`mod@arrow_files`] opens Arrow's own files and what Hugging Face's `save_to_disk` writes; [`mod@vectors`] reads them too.
//! [`mod@usual_names`] has the names that columns of features go by.
//!
//! All readers of Parquet open a file through `footer` and read it through `batches` and `source`. Metadata of the file reach the decoder only
//! after `thrift` has checked them against `structures`.
//!
//! Not here: what the columns mean (the files beside this folder).

pub mod arrow_files;
mod batches;
pub mod column;
mod footer;
pub mod inspect;
pub mod pictures;
pub mod read;
mod shape;
mod source;
mod structures;
pub mod summary;
mod table_file;
mod thrift;
pub mod usual_names;
pub mod vectors;
pub mod write;

#[cfg(test)]
mod tests;

pub use column::{Column, ColumnKind};
pub use read::TableReader;
pub use write::TableWriter;
