//! The interface of object storage: what a remote store needs of it.

use std::io::Read;
use std::ops::ControlFlow;

use kinset_base::fs::FileError;

/// Objects by name, each written in one step: whoever reads one reads all of it.
pub trait Objects: Send + Sync {
    /// What is known of an object, if it is there.
    fn look(&self, name: &str) -> Result<Option<Object>, Trouble>;

    /// Passes its bytes on, piece by piece, until it ends or whoever takes them has enough. `false`: it is not there.
    fn read(&self, name: &str, take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<bool, Trouble>;

    /// Writes a small one, if there is none of this name. `false`: there is, and it stays.
    fn create(&self, name: &str, content: &[u8]) -> Result<bool, Trouble>;

    /// Writes a small one in any case.
    fn replace(&self, name: &str, content: &[u8]) -> Result<(), Trouble>;

    /// Writes one of so many bytes in any case. `going` hears how many more have gone, and says whether to go on; if not, nothing is
    /// written, and the answer is `false`.
    fn upload(
        &self,
        name: &str,
        from: &mut dyn Read,
        size: u64,
        going: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<bool, Trouble>;

    /// All whose names begin with this and a slash.
    fn list(&self, folder: &str) -> Result<Vec<(String, Object)>, Trouble>;

    /// Removes one; not there is fine too.
    fn remove(&self, name: &str) -> Result<(), Trouble>;
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Bytes.
    pub size: u64,
    /// When it was written: seconds since 1970, UTC, by the clock there.
    pub changed: f64,
}

/// Why an object could not be had, or written.
#[derive(Debug)]
pub enum Trouble {
    /// Nobody answers, or with an error of its own. In words.
    Unreachable(String),
    /// Whoever answers does not let us. In words.
    Refused(String),
    /// What was to be sent cannot be read.
    Here(FileError),
}
