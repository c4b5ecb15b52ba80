//! The bytes of a file, unpacked while they are read, with errors that name the place.

use std::io::{self, Read};

use super::error::{DatasetError, Result};

/// A stream of which nothing is trusted: memory grows with the bytes that arrive, never with what a header says.
pub(super) struct ByteStream {
    inner: Box<dyn Read + Send>,
    pub(super) file: String,
    /// Unpacked bytes taken so far.
    at: u64,
    /// Unpacked bytes that the header promises.
    pub(super) promised: u64,
}

impl ByteStream {
    pub(super) fn new(inner: Box<dyn Read + Send>, file: String) -> Self {
        Self { inner, file, at: 0, promised: 0 }
    }

    /// The next bytes, all of them.
    pub(super) fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(1 << 16) as usize);
        let result = (&mut self.inner).take(count).read_to_end(&mut bytes);
        let expected = self.promised.max(self.at.saturating_add(count));
        self.at += bytes.len() as u64;
        match result {
            Err(source) => Err(self.broken(source)),
            Ok(found) if (found as u64) < count => {
                Err(DatasetError::Truncated { file: self.file.clone(), expected, found: self.at })
            }
            Ok(_) => Ok(bytes),
        }
    }

    /// The next few bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.take(N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(&bytes);
        Ok(array)
    }

    /// Makes sure that nothing follows; of a packed stream that also checks the checksum.
    pub(super) fn finish(&mut self) -> Result<()> {
        match (&mut self.inner).take(1).read_to_end(&mut Vec::new()) {
            Ok(0) => Ok(()),
            Ok(_) => Err(DatasetError::TooLong { file: self.file.clone(), expected: self.promised.max(self.at) }),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn broken(&self, source: io::Error) -> DatasetError {
        DatasetError::Unpack { file: self.file.clone(), offset: self.at, source }
    }
}

/// A field that is not what it should be.
pub(super) fn malformed(
    file: &str,
    offset: u64,
    field: &'static str,
    expected: impl Into<String>,
    found: impl ToString,
) -> DatasetError {
    DatasetError::Malformed { file: file.to_owned(), offset, field, expected: expected.into(), found: found.to_string() }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
