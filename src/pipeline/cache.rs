//! The interface of a cache on other machines: results before a run computes them, and a place for those that it computed.

use std::fmt::Debug;

use kinset_stage::Stop;
use kinset_store::Store;
use kinset_store::key::Manifest;
use kinset_store::record::Record;

/// A cache that several machines share. It may be slow, wrong or gone: then the stage runs as if there were none.
pub trait Cache: Debug + Send + Sync {
    /// Brings the result of a manifest's key into the store. `moved` hears how many of how many bytes have come.
    fn pull(&self, store: &Store, manifest: &Manifest, moved: &(dyn Fn(u64, u64) + Sync), stop: &Stop) -> Found;

    /// Takes note of a result that was just published. It does not wait until that is sent.
    fn push(&self, stage: &str, record: &Record);
}

/// What a cache has for a key.
#[derive(Debug)]
pub enum Found {
    /// The result, which is in the store now, and how many bytes came for it.
    Here(Box<Record>, u64),
    Nothing,
    /// Something that is of no use, or no answer; and why, to be told.
    Unusable(String),
}
