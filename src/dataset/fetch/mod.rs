//! # fetch: downloads of published data sets and weights
//!
//! [`remote`] says what a published file must add up to, [`download`] brings one file whatever the network does, [`unpack`] opens
//! an archive without letting anything out of its folder, [`set`] puts a data set together from these, [`weights`] gets one file of
//! weights, and [`published`] knows some by name. Nothing here prints: what happens is told to a listener.

pub mod download;
pub mod error;
pub mod published;
pub mod remote;
#[cfg(test)]
pub(super) mod server;
pub mod set;
pub mod unpack;
pub mod weights;

pub use download::FetchEvent;
pub use error::FetchError;
pub use published::{PUBLISHED, PublishedWeights};
pub use remote::{Download, Remote, Sum};
pub use set::{Options, Outcome, Plan, fetch, plan};
pub use weights::Weights;
