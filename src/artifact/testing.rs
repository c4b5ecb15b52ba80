//! Artifacts for tests, of this crate and of others.

use super::{Artifact, Draft, Stored};
use kinset_store::digest::Digest;

/// A draft as if the store had taken it.
pub fn stored<A: Artifact>(draft: &Draft<A>) -> Stored<A> {
    Stored::new(draft.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"test"), "test")
}
