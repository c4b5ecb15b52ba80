//! # kinset-store: the cache of results on disk
//!
//! Results on disk, named by their content. Two tables and one rule: **records** (stage key → outputs) and **blobs** (digest →
//! bytes); a blob is published before the record that names it and removed after it. So a kill at any moment leaves a record
//! that is complete or none at all, nothing is ever rolled back, and there is no state called *running* on disk.
//!
//! ```text
//! artifacts/store/  blobs/ab/abcd…        read-only files, named by the digest of their bytes      [blob]
//!                   records/12/1234….json stage key → outputs, cost, provenance                   [record]
//!                   manifests/scan/1234….json  what went into the key, readable                   [manifests]
//!                   work/1234…/           checkpoints of an unfinished stage, by attempt           [scratch]
//!                   tmp/                  half-written things, removed when their process is gone  [scratch]
//!                   locks/                kernel file locks: one per stage key, one for the store  [lock]
//!                   leases/               the same said in files, for other machines               [lease]
//!                   digests-….jsonl       stat → digest of raw inputs; may be deleted              [digest_cache]
//!                   aside/                what lay in the place of one of these and was none       [layout]
//!                   pins                  keys that `gc` must keep                                 [gc]
//! artifacts/<pipeline>/<stage>/           the latest result under readable names                   [view]
//! ```
//!
//! A record carries a digest of itself, and whoever computes from a blob has its bytes compared with its name first (`check`).
//! What a newer kinset wrote in a form that is not known here is refused and never changed.
//!
//! Files and no database: readers need no lock, two writers of one name write the same thing, and a person can look with `ls`.
//! [`Store`] is the way in; [`Manifest`] and [`Key`] say what a result was computed from; [`manifest_diff`] says what changed.
//!
//! Several machines may share a store. What is temporary is named by the process that wrote it, so that nobody takes away what another
//! machine is at; locks have leases beside them, for file systems whose locks do not reach other machines; and what was not there is
//! looked for again where a machine remembers for a while what it did not find.
//!
//! [`place`] tries out what the file system of a folder can do, and [`peers`] what several machines see of each other there.
//!
//! Not here: what the files mean (`artifact`), when something runs (`pipeline`).

#![forbid(unsafe_code)]

pub mod blob;
mod check;
#[cfg(test)]
mod crash_test;
pub mod digest;
pub mod digest_cache;
mod disk;
pub mod error;
mod failpoint;
pub mod gc;
#[cfg(test)]
mod hosts_test;
pub mod key;
mod layout;
pub mod lease;
pub mod lock;
pub mod manifest_diff;
pub mod manifests;
pub mod peers;
pub mod place;
pub mod process;
pub mod record;
mod scratch;
mod settings;
pub mod verify;
pub mod view;

pub use error::{Result, StoreError};
pub use key::{Input, Key, Manifest};
pub use layout::Store;
pub use record::{Lookup, Record, StoredFile, StoredOutput};
