//! # kinset-store: where is it, and is it whole?
//!
//! Results on disk, named by what they say. Two tables and one rule: **records** (stage key → outputs) and **blobs** (digest →
//! bytes); a blob is published before the record that names it and removed after it. So a kill at any moment leaves a record
//! that is complete or none at all, nothing is ever rolled back, and there is no state called *running* on disk.
//!
//! ```text
//! artifacts/store/  blobs/ab/abcd…        read-only files, named by the digest of their bytes      [blob]
//!                   records/12/1234….json stage key → outputs, cost, provenance                   [record]
//!                   manifests/scan/1234….json  what went into the key, readable                   [key]
//!                   work/1234…/           checkpoints of an unfinished stage                       [work]
//!                   tmp/                  half-written things, swept when no run holds the store   [work]
//!                   locks/                kernel file locks: one per stage key, one for the store  [lock]
//!                   digests.jsonl         stat → digest of raw inputs; may be deleted              [memo]
//!                   pins                  keys that `gc` must keep                                 [gc]
//! artifacts/<pipeline>/<stage>/           the latest result under readable names                   [view]
//! ```
//!
//! Files and no database: readers need no lock, two writers of one name write the same thing, and a person can look with `ls`.
//! [`Store`] is the way in; [`Manifest`] and [`Key`] say what a result is the answer to; [`reason`] says what moved.
//!
//! Not here: what the files mean (`artifact`), when something runs (`pipeline`).

#![forbid(unsafe_code)]

pub mod blob;
#[cfg(test)]
mod crash;
pub mod digest;
mod disk;
pub mod error;
mod fail;
pub mod gc;
pub mod key;
pub mod lock;
pub mod memo;
mod open;
pub mod reason;
pub mod record;
pub mod settings;
pub mod verify;
pub mod view;
pub mod work;

pub use error::{Result, StoreError};
pub use key::{Input, Key, Manifest};
pub use open::Store;
pub use record::{Lookup, Record, StoredFile, StoredOutput};
