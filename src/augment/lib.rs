//! # kinset-augment: image augmentation
//!
//! Pixels become views. A [`Recipe`] says which transforms, in which order, how strong; a [`Viewer`] makes normalized batches by
//! it ([`batch`]). The transforms work on 8-bit planes ([`planes`]) and give Pillow's bytes: cutting ([`crop`]), scaling
//! ([`resize`]), mirroring ([`flip`]), color ([`color`]), tone ([`tone`]), geometry ([`affine`]), the operations of SCAN's strong
//! views ([`strong`]) and of RUC's ([`randaugment`]), the crop of instance discrimination ([`instance`]); [`cutout`] works on the
//! finished view.
//!
//! Not here: which recipe a method uses (`methods`), decoding (`artifact`).

#![forbid(unsafe_code)]

pub mod affine;
pub mod batch;
pub mod color;
pub mod crop;
pub mod cutout;
pub mod error;
pub mod flip;
pub mod instance;
pub mod planes;
pub mod randaugment;
pub mod recipe;
pub mod resize;
pub mod statistics;
pub mod strong;
pub mod tone;

#[cfg(test)]
mod golden;

pub use batch::{Pictures, Viewer};
pub use error::Error;
pub use instance::Instance;
pub use randaugment::RandAugment;
pub use recipe::{Plain, Recipe, Simclr, Standard, Strong};
