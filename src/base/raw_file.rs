//! A file outside the store that a result depends on.

use std::path::PathBuf;

/// A raw file: its name and its bytes belong to the key of what is made from it, its place does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFile {
    /// Its path below the source's root, with `/` between names: the same on every machine.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}
