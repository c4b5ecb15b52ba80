//! # kinset-dataset: readers of raw data
//!
//! Raw data in the formats of the field become a stream of pictures, with labels beside them where there are any. Reading has
//! two steps, so that a run that has nothing to do costs only stats: [`locate`] names the raw files a source depends on, for
//! the engine to hash through its cache of digests; [`DatasetFiles::open`] then reads them.
//!
//! | format | what it reads |
//! |---|---|
//! | `idx` | MNIST's format, gzipped or not: `digits`, `fashion-mini`, `fashion-mnist`, `mnist`, or any with `dataset = "idx"` |
//! | `cifar`, and `cifar_python` beside it | CIFAR's binary version, and the Python version that torchvision keeps: `cifar10`, `cifar20`, `cifar100` |
//! | `stl` | STL-10's binary files: `stl10` |
//! | `svhn`, with `mat5` | SVHN's cropped digits in MATLAB files: `svhn` |
//! | `folder`, with `list_files`, `class_list`, `class_names` | PNG, JPEG, WebP, GIF, BMP, TIFF files; class folders become labels: `folder`, `imagenet` and its subsets |
//! | `parquet` | published tables in Hugging Face's layout, one file or many |
//! | `tar` | tar shards in WebDataset's layout |
//! | `synthetic` | nothing: it draws shapes, for tests and smoke runs |
//!
//! A new format is one file here and one line in the list of formats; the file holds its `Format` and its data sets. A
//! new data set of a known format is one more [`Entry`] in that format's file.
//!
//! [`registry`] finds them by name; [`check()`] reads a source through and says what it holds; [`fetch`] brings published ones
//! here; [`adhoc_images`] is for pictures that are looked at once; [`vectors`] reads features that somebody else made, from
//! Parquet, `.npy` or CSV; [`names`] what a person calls clusters, which are labels, too. Not here: how pictures and labels are stored (`artifact`), where a run keeps them (`store`).
//!
//! Labels never decide the order of records: where the raw data are sorted by class (folders), rows follow content digests.

#![forbid(unsafe_code)]

/// Declares the formats, a module each, and the list of their data sets.
macro_rules! formats {
    ($($format:ident)+) => {
        $(mod $format;)+

        /// The data sets of each format, in the order in which they are listed to people.
        static FORMATS: &[&[entry::Entry]] = &[$($format::DATASETS),+];
    };
}

formats! {
    idx
    cifar
    stl
    svhn
    folder
    parquet
    tar
    synthetic
}

pub mod adhoc_images;
mod byte_stream;
pub mod check;
mod cifar_python;
mod class_list;
mod class_names;
pub mod entry;
pub mod error;
pub mod fetch;
mod fixed_layout;
mod fixed_size_records;
pub mod guarded_decode;
pub mod hub;
mod jpeg_check;
mod labels_by_name;
mod list_files;
mod mat5;
pub mod names;
mod part;
mod picture_kind;
pub mod reader;
pub mod registry;
mod shards;
mod skip_broken;
pub mod source;
mod table_paths;
pub mod vectors;

pub use check::{Report, check};
pub use entry::Entry;
pub use error::{DatasetError, FaultyImage, FaultyImages, Result};
pub use list_files::EXPORT_MARK;
pub use part::Part;
pub use reader::{Content, DatasetFiles, DatasetReader, Labels, Record, Records, file_digest};
pub use registry::{identity, locate};
pub use source::Source;
