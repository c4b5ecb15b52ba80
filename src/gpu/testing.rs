//! What the tests of this crate share.

use std::path::Path;

use super::test_double::library;
use super::{Card, Libraries};

/// A card on the double that was built with these definitions.
pub(crate) fn open(definitions: &[&str]) -> Option<&'static Card> {
    let library = library(Path::new(env!("CARGO_MANIFEST_DIR")), definitions)?;
    Some(Box::leak(Box::new(Card::open(&Libraries::both(&library), 0).unwrap())))
}
