//! # builtin/near_duplicates: what repeats within and across a pool, a target and held-out sets
//!
//! [`mod@stage`] is the stage; [`sets`] reads all sets as one table; [`search`] compares every pair once, from disk; [`shared`] keeps what one
//! set has of another.
//!
//! Not here: the scan that finds candidates (`kernel/near_pairs`), who stands for whom (`math/curate/owners`), images with equal pixels
//! (`builtin/duplicates`).

pub mod search;
pub mod sets;
pub mod shared;
pub mod stage;

pub use stage::NearDuplicates;
