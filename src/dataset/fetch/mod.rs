//! # fetch: where are the published data sets, and how do they get here?
//!
//! [`catalog`] knows addresses and checksums, [`download`] brings one file whatever the network does, [`unpack`] opens an archive
//! without letting anything out of its folder, [`set`] puts a data set together from these, [`weights`] gets one file of weights. Nothing here prints: what happens is
//! told to a listener.

pub mod catalog;
pub mod download;
pub mod error;
#[cfg(test)]
pub(super) mod server;
pub mod set;
pub mod unpack;
pub mod weights;

pub use catalog::{Remote, Sum, Supply};
pub use download::Tell;
pub use error::FetchError;
pub use set::{Options, Outcome, Plan, fetch, plan};
pub use weights::Weights;
