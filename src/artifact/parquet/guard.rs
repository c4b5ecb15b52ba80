//! The edge to the Parquet decoder.

use std::fmt::Display;
use std::path::Path;

use crate::error::{ArtifactError, Result, shown};
use crate::guard::calmly;

/// Runs a piece of decoding; what goes wrong names the file.
pub(super) fn guarded<T, E: Display>(path: &Path, decode: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    calmly(decode).map_err(|detail| ArtifactError::Damaged { path: shown(path), detail })
}
