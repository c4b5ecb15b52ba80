//! # kinset-train: the training loop and its parts
//!
//! What every method needs to move weights. [`training`] is the loop: it resumes, steps, measures and saves; [`objective`] is what a
//! method of the usual kind states of itself, a loss and little more. Below them: the network and the order of the images
//! ([`trainable`], [`batches`]), what it reads ([`image_loader`], [`input_cache`], [`feature_space`], [`neighbor_pairs`]) and the
//! batch that is made early ([`prefetch`]); optimizers ([`optim`]) and learning rates ([`schedule`]), what of both suits a number of images ([`course`]), averages of weights ([`ema`]),
//! checkpoints ([`checkpoint`], [`snapshot`]), the choice of an epoch ([`best_epoch`]), heads that begin where another clustering is ([`start`]), the check for collapse ([`collapse`]) and that for equal images ([`distinct`]),
//! the number of clusters where another stage finds it ([`mod@found_clusters`]).
//!
//! Not here: losses (`methods`).

#![forbid(unsafe_code)]

pub mod batches;
pub mod best_epoch;
pub mod checkpoint;
pub mod collapse;
pub mod course;
pub mod device;
pub mod distinct;
pub mod ema;
pub mod error;
pub mod feature_space;
pub mod found_clusters;
mod fused_update;
pub mod image_loader;
pub mod infer;
pub mod input_cache;
pub mod neighbor_pairs;
pub mod objective;
pub mod optim;
pub mod ports;
pub mod prefetch;
pub mod pretext;
pub mod schedule;
pub mod settings;
pub mod snapshot;
pub mod start;
pub mod trainable;
pub mod training;

pub use course::{Course, Paced};
pub use error::{Result, TrainError};
pub use found_clusters::found_clusters;
pub use image_loader::ImageLoader;
pub use objective::{At, Objective, Trainer};
pub use prefetch::Prefetcher;
pub use settings::{OptimizerSettings, ScheduleSettings};
pub use snapshot::Snapshot;
pub use trainable::{BatchOrder, Trainable};
pub use training::{Measured, TrainingLoop, finite, measured, scalar, train};
