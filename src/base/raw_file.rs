//! A file outside the store that a result depends on.

use std::path::PathBuf;

use super::clock;
use super::fs::{self, FileError, Identity, Metadata};
use super::name::Name;

/// A raw file: its name and its bytes belong to the key of what is made from it, its place does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFile {
    /// Its path below the source's root, with `/` between names: the same on every machine.
    pub name: Name,
    pub path: PathBuf,
    pub bytes: u64,
    /// What it was known by when it was found.
    pub identity: Option<Identity>,
    /// It was [quiet](Identity::is_quiet) then.
    pub quiet: bool,
}

impl RawFile {
    pub fn find(name: impl Into<Name>, path: PathBuf) -> Result<Option<Self>, FileError> {
        let found = fs::metadata(&path)?.filter(Metadata::is_file);
        Ok(found.map(|found| Self::new(name, path, &found)))
    }

    /// What was found at a path: nobody looks a second time, which is felt with 100,000 files and on a file server.
    pub fn new(name: impl Into<Name>, path: PathBuf, found: &Metadata) -> Self {
        let identity = Identity::of(found);
        let quiet = identity.is_some_and(|identity| identity.is_quiet(clock::unix_seconds()));
        Self { name: name.into(), path, bytes: found.len(), identity, quiet }
    }
}
