//! Files outside the store that a stage reads, as it found them.

use std::any::Any;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use kinset_base::raw_file::RawFile;

/// What a stage finds outside the store before it runs.
#[derive(Debug, Default)]
pub struct RawFiles {
    files: Arc<[RawFile]>,
    found: Mutex<Option<Box<dyn Any + Send>>>,
}

impl RawFiles {
    /// Files, and what else was found with them: [`Context::found`](super::Context::found) hands it to the run, so that a folder of many
    /// files is listed once, and what is read is what the key speaks of.
    pub fn with(files: Arc<[RawFile]>, found: impl Any + Send) -> Self {
        Self { files, found: Mutex::new(Some(Box::new(found))) }
    }

    pub(super) fn take<T: Any>(&self) -> Option<T> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        found.downcast().ok().map(|found| *found)
    }
}

impl From<Vec<RawFile>> for RawFiles {
    fn from(files: Vec<RawFile>) -> Self {
        Self { files: files.into(), found: Mutex::default() }
    }
}

impl Deref for RawFiles {
    type Target = [RawFile];

    fn deref(&self) -> &[RawFile] {
        &self.files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_handed_over_once_and_as_what_it_is() {
        let file = RawFile { name: "a".into(), path: "a".into(), bytes: 1, identity: None, quiet: false };
        let raw = RawFiles::with(vec![file.clone()].into(), 7_u32);
        assert_eq!((&raw[..], raw.take(), raw.take::<u32>()), (&[file.clone()][..], Some(7_u32), None));
        assert_eq!(RawFiles::with(Arc::default(), 7_u32).take::<u64>(), None);
        assert_eq!(RawFiles::from(vec![file]).take::<u32>(), None);
    }
}
