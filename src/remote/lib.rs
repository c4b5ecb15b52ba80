//! # kinset-remote: results in object storage
//!
//! A second store, in the layout of the local one, that several machines fill and read: `blobs/ab/…`, `records/12/….json`,
//! `manifests/<kind>/….json` below a prefix of S3, Google Cloud Storage, Azure, a folder, or, to be read only, a web server.
//!
//! [`Address`] says where; [`Remote`] is the way in. [`pull`] brings a result here: the record is compared with its key, every blob
//! with its digest, and only then is the record made valid, so that nothing is used unchecked. [`push`] sends one: blobs before the
//! record that names them, none over another's. [`gc`] removes by command what is old. [`pusher`] pushes beside a run.
//!
//! Digests protect bytes, not claims: whoever may write to the place can claim a result. There is no code in results.
//!
//! All but `cloud` speaks to the trait [`objects::Objects`] and is built always; `cloud` puts the crates `object_store` and tokio behind
//! it, nowhere else, with the feature `object-store`.
//!
//! Not here: when a run asks (`pipeline`), words on the screen (`cli`).

#![forbid(unsafe_code)]

pub mod address;
#[cfg(feature = "object-store")]
mod cloud;
pub mod error;
pub mod gc;
pub mod objects;
pub mod pull;
pub mod push;
pub mod pusher;
pub mod remote;
#[cfg(test)]
mod testing;
mod work;

pub use address::Address;
pub use error::RemoteError;
pub use remote::Remote;
pub use work::Work;
