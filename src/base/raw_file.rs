//! A file outside the store that a result depends on.

use std::path::PathBuf;

use super::fs::{self, FileError};

/// A raw file: its name and its bytes belong to the key of what is made from it, its place does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFile {
    /// Its path below the source's root, with `/` between names: the same on every machine.
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
}

impl RawFile {
    pub fn find(name: impl Into<String>, path: PathBuf) -> Result<Option<Self>, FileError> {
        let found = fs::metadata(&path)?.filter(fs::Metadata::is_file);
        Ok(found.map(|found| Self { name: name.into(), path, bytes: found.len() }))
    }
}
