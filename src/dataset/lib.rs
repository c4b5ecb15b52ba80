//! # kinset-dataset: what did the camera, or the benchmark, give us?
//!
//! Raw data in the formats of the field become a stream of pictures, with labels beside them where there are any. Reading has
//! two steps, so that a run that has nothing to do costs only stats: [`locate`] names the raw files a source depends on, for
//! the engine to hash through its memo; [`Located::open`] then reads them.
//!
//! | file | what it reads |
//! |---|---|
//! | [`idx`] | MNIST's format, gzipped or not: `digits`, `fashion-mini`, `fashion-mnist`, `mnist`, or any with `dataset = "idx"` |
//! | [`cifar`], and `cifar_python` beside it | CIFAR's binary version, and the Python version that torchvision keeps: `cifar10`, `cifar20`, `cifar100` |
//! | [`stl`] | STL-10's binary files: `stl10` |
//! | [`svhn`] | SVHN's cropped digits in MATLAB files: `svhn` |
//! | [`folder`] | PNG, JPEG, WebP files; class folders become labels: `folder`, `imagenet` and its subsets by [`class_list`] |
//! | [`parquet`] | published tables in Hugging Face's layout, one file or many |
//! | `tar` | tar shards in WebDataset's layout |
//! | [`vectors`] | not pictures: features that somebody else made, from Parquet, `.npy` or CSV |
//! | [`synthetic`] | nothing: it draws shapes, for tests and smoke runs |
//!
//! [`registry`] is the one list of data sets; a new one is a file here and a line there. [`check()`] reads a source through and
//! says what it holds; [`fetch`] brings published ones here; [`incoming`] is for
//! pictures that are looked at once. Not here: how pictures and labels are stored (`artifact`), where a run keeps them (`store`).
//!
//! Labels never decide the order of records: where the raw data are sorted by class (folders), rows follow content digests.

#![forbid(unsafe_code)]

pub mod check;
pub mod cifar;
mod cifar_python;
pub mod class_list;
pub mod decode;
pub mod error;
pub mod fetch;
pub mod folder;
pub mod hub;
pub mod idx;
pub mod incoming;
mod jpeg;
pub mod parquet;
mod planes;
pub mod record;
pub mod registry;
mod shards;
mod sieve;
pub mod source;
pub mod stl;
pub mod svhn;
pub mod synthetic;
mod tar;
pub mod vectors;
mod walk;

pub use check::{Report, check};
pub use error::{DatasetError, Result};
pub use record::{Broken, Content, Faulty, Labels, Located, Opened, Record, Records, file_digest};
pub use registry::{Entry, locate};
pub use source::Source;
