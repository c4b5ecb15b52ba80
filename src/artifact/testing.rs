//! Artifacts for tests, of this crate and of others.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

use super::neighbors::NeighborTable;
use super::{Artifact, Draft, Stored};
use kinset_store::digest::Digest;

/// A draft as if the store had taken it.
pub fn stored<A: Artifact>(draft: &Draft<A>) -> Stored<A> {
    Stored::new(draft.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"test"), "test")
}

/// A ring of images, each with its two neighbors.
pub fn ring(n: u32) -> NeighborTable {
    NeighborTable {
        ids: (0..n).map(|i| i.to_string()).collect(),
        k: 2,
        index: (0..n).flat_map(|i| [(i + 1) % n, (i + n - 1) % n]).collect(),
        similarity: vec![0.5; 2 * n as usize],
        metric: "cosine".into(),
        exact: true,
        recall: None,
    }
}

/// A stream of Arrow with names, `id`, and their features, `[N, dim]`.
///
/// # Errors
/// Names or values that are not as many as they should be.
pub fn arrow_stream(ids: &[String], dim: usize, values: &[f32]) -> Result<Vec<u8>, ArrowError> {
    let field = Arc::new(Field::new_list_field(DataType::Float32, false));
    let values: ArrayRef = Arc::new(Float32Array::from(values.to_vec()));
    let features: ArrayRef = Arc::new(FixedSizeListArray::try_new(field, dim as i32, values, None)?);
    let ids: ArrayRef = Arc::new(StringArray::from(ids.to_vec()));
    let batch = RecordBatch::try_from_iter([("id", ids), ("features", features)])?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    writer.write(&batch)?;
    writer.into_inner()
}
