//! Batches of rows from the decoders of Parquet and Arrow: their panics are errors, and they are asked nothing after a failure.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;

use crate::catch_panic::catch_decoder_panic;
use crate::error::{ArtifactError, Result, display};

/// Runs a piece of decoding; what goes wrong names the file.
pub(super) fn guarded<T, E: Display>(path: &Path, decode: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    catch_decoder_panic(decode).map_err(|detail| match detail.contains("IPC decompression requires") {
        // A feature of the decoder that is left out: it sets memory aside for whatever a file claims.
        true => ArtifactError::Unsupported {
            path: display(path),
            what: "is compressed, which kinset does not read in Arrow".into(),
        },
        false => ArtifactError::Damaged { path: display(path), detail },
    })
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
