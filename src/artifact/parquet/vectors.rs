//! Vectors with names in anybody's Parquet: NeMo Curator, AutoFAISS, clip-retrieval, a pandas frame.
//!
//! The layout is a convention with variants: the column is called `embedding`, `embeddings` or something else; it is a list or a
//! fixed-size list of floats of any width; names are texts or numbers in `id` or elsewhere, or there are none.

use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use parquet::errors::ParquetError;

use super::column::texts;
use super::footer::Footer;
use super::guard::guarded;
use super::write::CHUNK_ROWS;
use crate::error::{ArtifactError, Result, shown};

/// Names a column of vectors goes by, the likeliest first.
const VECTORS: [&str; 6] = ["embedding", "embeddings", "feature", "features", "vector", "emb"];
/// Names a column of names goes by.
const IDS: [&str; 7] = ["id", "name", "key", "image_path", "path", "file_name", "image"];

/// Some rows: their names, and their vectors `[rows, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedVectors {
    /// One for each row; none if the file has no names.
    pub ids: Option<Vec<String>>,
    /// Numbers per row.
    pub dim: usize,
    /// `[rows, D]`.
    pub values: Vec<f32>,
}

/// A Parquet file of vectors, whoever wrote it.
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    footer: Footer,
    rows: usize,
    id: Option<String>,
    vector: String,
}

impl VectorFile {
    /// Opens a file and finds its columns. `id` and `vector` name them; without a name the usual ones are tried, then the first
    /// column of lists of floats.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged, or a column is missing or of a type that does not fit.
    pub fn open(path: &Path, id: Option<&str>, vector: Option<&str>) -> Result<Self> {
        let footer = Footer::read(path)?;
        let rows = footer.rows(path)?;
        let fields = footer.schema().fields();
        let find = |name: &str| fields.iter().find(|field| field.name() == name);
        let missing = |name: &str| ArtifactError::NoColumn {
            path: shown(path),
            column: name.into(),
            found: fields.iter().map(|field| field.name().clone()).collect(),
        };
        let wrong = |field: &Field, wanted: &str| ArtifactError::WrongType {
            path: shown(path),
            column: field.name().clone(),
            found: field.data_type().to_string(),
            wanted: wanted.into(),
        };
        let field = if let Some(name) = vector {
            find(name).ok_or_else(|| missing(name))?
        } else {
            let mut usual = VECTORS.into_iter().filter_map(find).chain(fields.iter());
            usual.find(|field| holds_vectors(field)).ok_or_else(|| missing(VECTORS[0]))?
        };
        if !holds_vectors(field) {
            return Err(wrong(field, "lists of floats"));
        }
        let vector = field.name().clone();
        let id = match id {
            Some(name) => {
                let field = find(name).ok_or_else(|| missing(name))?;
                if !holds_names(field) {
                    return Err(wrong(field, "text or whole numbers"));
                }
                Some(field.name().clone())
            }
            None => IDS.into_iter().filter_map(find).find(|field| holds_names(field)).map(|field| field.name().clone()),
        };
        Ok(Self { path: path.to_owned(), footer, rows, id, vector })
    }

    /// How many vectors.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The vectors, in order, some thousand at a time.
    ///
    /// # Errors
    /// If the file cannot be opened again.
    pub fn batches(&self) -> Result<VectorBatches> {
        let decoder = self.footer.decoder(&self.path)?;
        let roots = self.footer.schema().fields().iter().enumerate();
        let roots = roots.filter(|(_, field)| *field.name() == self.vector || Some(field.name()) == self.id.as_ref());
        let mask = ProjectionMask::roots(self.footer.parquet_schema(), roots.map(|(place, _)| place));
        let reader = guarded(&self.path, || decoder.with_projection(mask).with_batch_size(CHUNK_ROWS).build())?;
        Ok(VectorBatches {
            path: self.path.clone(),
            reader: Some(reader),
            id: self.id.clone(),
            vector: self.vector.clone(),
            row: 0,
            dim: None,
        })
    }
}

/// Streams the vectors of a file.
pub struct VectorBatches {
    path: PathBuf,
    reader: Option<ParquetRecordBatchReader>,
    id: Option<String>,
    vector: String,
    row: usize,
    dim: Option<usize>,
}

impl VectorBatches {
    fn convert(&mut self, batch: &RecordBatch) -> Result<NamedVectors> {
        let damaged = |detail: &str| ArtifactError::Damaged { path: shown(&self.path), detail: detail.to_owned() };
        let column = batch.column_by_name(&self.vector).ok_or_else(|| damaged("a batch lacks its vectors"))?;
        let null =
            |row: usize| ArtifactError::Null { path: shown(&self.path), column: self.vector.clone(), row: self.row + row };
        if let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) {
            return Err(null(row));
        }
        let (values, ends) = lists(column).ok_or_else(|| damaged("the vectors are not what their type promises"))?;
        let dim = match self.dim {
            Some(dim) => dim,
            None => ends.first().copied().unwrap_or(0),
        };
        if let Some(row) = (0..ends.len()).find(|&row| ends[row] != (row + 1) * dim) {
            let found = ends[row] - if row > 0 { ends[row - 1] } else { 0 };
            let (path, column, row) = (shown(&self.path), self.vector.clone(), self.row + row);
            let (value, wanted) = (format!("{found} numbers"), format!("a vector of {dim}, as in the first row"));
            return Err(ArtifactError::OutOfRange { path, column, row, value, wanted });
        }
        if values.null_count() > 0 {
            let place = (0..values.len()).find(|place| values.is_null(*place)).unwrap_or(0);
            return Err(null(place / dim.max(1)));
        }
        let values = cast(&values, &DataType::Float32).map_err(|e| damaged(&e.to_string()))?;
        let values = values.as_primitive_opt::<Float32Type>().ok_or_else(|| damaged("no floats"))?.values().to_vec();
        let ids = match &self.id {
            None => None,
            Some(name) => {
                let column = batch.column_by_name(name).ok_or_else(|| damaged("a batch lacks its names"))?;
                if let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) {
                    let (path, column) = (shown(&self.path), name.clone());
                    return Err(ArtifactError::Null { path, column, row: self.row + row });
                }
                Some(texts(column).ok_or_else(|| damaged("the names are no texts"))?)
            }
        };
        self.row += batch.num_rows();
        self.dim = Some(dim);
        Ok(NamedVectors { ids, dim, values })
    }
}

impl Iterator for VectorBatches {
    type Item = Result<NamedVectors>;

    fn next(&mut self) -> Option<Self::Item> {
        // Taken out, so that nothing is asked of a decoder that has failed once.
        let mut reader = self.reader.take()?;
        let batch = match guarded(&self.path, || reader.next().transpose().map_err(ParquetError::from)) {
            Ok(batch) => batch?,
            Err(e) => return Some(Err(e)),
        };
        let found = self.convert(&batch);
        if found.is_ok() {
            self.reader = Some(reader);
        }
        Some(found)
    }
}

/// All numbers of a column of lists, and where each row ends.
fn lists(column: &ArrayRef) -> Option<(ArrayRef, Vec<usize>)> {
    if let Some(lists) = column.as_fixed_size_list_opt() {
        let width = usize::try_from(lists.value_length()).ok()?;
        let start = lists.value_offset_at(0);
        return Some((lists.values().slice(start, lists.len() * width), (1..=lists.len()).map(|row| row * width).collect()));
    }
    let lists = cast(column, &large(column.data_type())?).ok()?;
    let lists = lists.as_list_opt::<i64>()?;
    let offsets: Vec<usize> =
        lists.value_offsets().iter().map(|o| usize::try_from(*o)).collect::<std::result::Result<_, _>>().ok()?;
    let (first, last) = (*offsets.first()?, *offsets.last()?);
    Some((lists.values().slice(first, last - first), offsets[1..].iter().map(|end| end - first).collect()))
}

fn large(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::List(child) | DataType::LargeList(child) => Some(DataType::LargeList(child.clone())),
        _ => None,
    }
}

fn holds_vectors(field: &Field) -> bool {
    match field.data_type() {
        DataType::List(child) | DataType::LargeList(child) | DataType::FixedSizeList(child, _) => {
            child.data_type().is_floating()
        }
        _ => false,
    }
}

fn holds_names(field: &Field) -> bool {
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => matches!(**values, DataType::Utf8 | DataType::LargeUtf8),
        other => other.is_integer(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, ListArray, StringArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::Schema;
    use parquet::arrow::ArrowWriter;

    use super::*;
    use kinset_base::fs;

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
        let mut writer = ArrowWriter::try_new(fs::create_new(path).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn ragged(lengths: &[usize]) -> ArrayRef {
        let values = Float64Array::from((0..lengths.iter().sum()).map(|i: usize| i as f64 / 2.0).collect::<Vec<_>>());
        let field = Arc::new(Field::new("item", DataType::Float64, true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths.iter().copied()), Arc::new(values), None))
    }

    fn all(path: &Path, id: Option<&str>, vector: Option<&str>) -> Result<Vec<NamedVectors>> {
        VectorFile::open(path, id, vector)?.batches()?.collect()
    }

    #[test]
    fn lists_of_doubles_with_numbers_as_names_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nemo.parquet");
        write(&path, vec![("id", Arc::new(Int64Array::from(vec![7, 9]))), ("embeddings", ragged(&[2, 2]))]);
        let wanted = NamedVectors { ids: Some(vec!["7".into(), "9".into()]), dim: 2, values: vec![0.0, 0.5, 1.0, 1.5] };
        assert_eq!(all(&path, None, None).unwrap(), std::slice::from_ref(&wanted));
        assert_eq!(all(&path, Some("id"), Some("embeddings")).unwrap(), [wanted]);
        assert!(all(&path, Some("id"), Some("id")).unwrap_err().to_string().contains("lists of floats"));
        assert!(all(&path, Some("name"), None).unwrap_err().to_string().contains("no column `name`"));
    }

    #[test]
    fn vectors_of_different_length_and_missing_ones_are_refused_with_their_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ragged.parquet");
        write(&path, vec![("emb", ragged(&[2, 2, 3]))]);
        let text = all(&path, None, None).unwrap_err().to_string();
        assert!(text.contains("`3 numbers` in row 2; a vector of 2"), "{text}");
        let path = dir.path().join("null.parquet");
        let names = Arc::new(StringArray::from(vec![Some("a"), None]));
        write(&path, vec![("name", names), ("emb", ragged(&[1, 1]))]);
        assert!(all(&path, None, None).unwrap_err().to_string().contains("`name`"));
    }
}
