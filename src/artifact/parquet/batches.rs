//! Batches of rows from the decoders of Parquet and Arrow: their panics are errors, and they are asked nothing after a failure.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use crate::catch_panic::catch_decoder_panic;
use crate::error::{ArtifactError, Result, display};
use kinset_base::fs::{self, FileError};

/// Runs a piece of decoding; what goes wrong names the file.
pub(super) fn guarded<T, E: Display>(path: &Path, decode: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    catch_decoder_panic(decode).map_err(|detail| match refused(&detail) {
        Some(source) => FileError::new("read", path, source).into(),
        // A feature of the decoder that is left out: it sets memory aside for whatever a file claims.
        None if detail.contains("IPC decompression requires") => {
            let what = "is compressed, which kinset does not read in Arrow".into();
            ArtifactError::Unsupported { path: display(path), what }
        }
        None => ArtifactError::Damaged { path: display(path), detail },
    })
}

/// The machine's refusal behind an error of the decoder, which passes on only its words; they end with its number. A disk that
/// fails and too many open files are no damage of the file.
fn refused(detail: &str) -> Option<io::Error> {
    let (_, number) = detail.rsplit_once("(os error ")?;
    let error = io::Error::from_raw_os_error(number.split_once(')')?.0.parse().ok()?);
    fs::is_of_machine(&error).then_some(error)
}

pub(super) struct BatchReader {
    path: PathBuf,
    /// Nothing after a failure.
    reader: Option<Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send>>,
}

impl BatchReader {
    pub(super) fn new(
        path: &Path,
        reader: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send + 'static,
    ) -> Self {
        Self { path: path.to_owned(), reader: Some(Box::new(reader)) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What `convert` makes of the next batch; nothing after the last one, and nothing after an error.
    pub(super) fn next<T>(&mut self, convert: impl FnOnce(&RecordBatch) -> Result<T>) -> Result<Option<T>> {
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        let Some(batch) = guarded(&self.path, || reader.next().transpose())? else { return Ok(None) };
        let converted = guarded(&self.path, || Ok::<_, String>(convert(&batch)))??;
        self.reader = Some(reader);
        Ok(Some(converted))
    }
}

#[cfg(test)]
mod tests {
    use parquet::errors::ParquetError;

    use super::*;

    #[test]
    fn a_disk_that_fails_is_no_damage_of_the_file() {
        let failed = |number| {
            let error = ParquetError::from(io::Error::from_raw_os_error(number));
            guarded(Path::new("x.parquet"), || Err::<(), _>(ArrowError::from(error))).unwrap_err()
        };
        assert!(matches!(failed(5), ArtifactError::File(error) if error.is_of_machine()));
        assert!(matches!(failed(22), ArtifactError::Damaged { .. }));
    }
}
