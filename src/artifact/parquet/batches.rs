//! Batches of rows from the Parquet decoder: its panics are errors, and it is asked nothing after its first failure.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::catch_panic::catch_decoder_panic;
use crate::error::{ArtifactError, Result, display};

/// Runs a piece of decoding; what goes wrong names the file.
pub(super) fn guarded<T, E: Display>(path: &Path, decode: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    catch_decoder_panic(decode).map_err(|detail| ArtifactError::Damaged { path: display(path), detail })
}

pub(super) struct BatchReader {
    path: PathBuf,
    /// Nothing after a failure.
    reader: Option<ParquetRecordBatchReader>,
}

impl BatchReader {
    pub(super) fn new(path: &Path, reader: ParquetRecordBatchReader) -> Self {
        Self { path: path.to_owned(), reader: Some(reader) }
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
