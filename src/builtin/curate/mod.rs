//! # builtin/curate: a balanced part of a pool, without a target
//!
//! [`mod@stage`] clusters the pool level by level and takes images from the clusters in turn; [`config`] says how; [`measure`] says how
//! evenly it was done, beside as many random images.
//!
//! Not here: the clustering and the sampling themselves (`math/curate`), the pool as one table (`builtin/similar/shards`), images for
//! training (`builtin/subset`), what is known of the images (`builtin/distribution`).

pub mod config;
pub mod measure;
pub mod stage;

pub use stage::Curate;
