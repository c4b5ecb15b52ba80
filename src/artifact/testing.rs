//! What the tests of this room share.

use super::{Artifact, Draft, Stored};
use crate::store::digest::Digest;

/// A draft as if the store had taken it.
pub(crate) fn stored<A: Artifact>(draft: &Draft<A>) -> Stored<A> {
    Stored::new(draft.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"test"), "test")
}
