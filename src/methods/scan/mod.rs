//! # SCAN: clustering by agreement of neighbors
//!
//! The clustering stage of SCAN, on images ([`stage`]) or on features that were computed once ([`heads`]): two stages of one
//! [`loss`] and one `training`.

pub mod heads;
pub mod loss;
pub mod stage;
mod training;

pub use heads::ScanHeads;
pub use stage::{Scan, Update};
