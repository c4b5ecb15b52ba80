//! Vectors with names in anybody's Parquet: NeMo Curator, AutoFAISS, clip-retrieval, a pandas frame.
//!
//! The layout is a convention with variants: the column is called `embedding`, `embeddings` or something else; it is a list or a
//! fixed-size list of floats of any width; names are texts or numbers in `id` or elsewhere, or there are none.

use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type};

use super::batches::BatchReader;
use super::column::texts;
use super::footer::Footer;
use super::write::CHUNK_ROWS;
use crate::error::{ArtifactError, Result, display};

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
    footer: Footer,
    id: Option<usize>,
    vector: usize,
}

impl VectorFile {
    /// Opens a file and finds its columns. `id` and `vector` name them; without a name the usual ones are tried, then the first
    /// column of lists of floats.
    pub fn open(path: &Path, id: Option<&str>, vector: Option<&str>) -> Result<Self> {
        let footer = Footer::read(path)?;
        let fields = footer.schema().fields();
        let usual = |names: &'static [&str]| names.iter().filter_map(|name| fields.find(name)).map(|(place, _)| place);
        let likely = || usual(&VECTORS).chain(0..fields.len()).find(|place| holds_vectors(&fields[*place]));
        let vector = match (vector, likely()) {
            (None, Some(place)) => place,
            (name, _) => footer.column(name.unwrap_or(VECTORS[0]))?.0,
        };
        let wrong = |place: usize, wanted: &str| {
            let field = &fields[place];
            footer.wrong_type(field.name(), field.data_type(), wanted)
        };
        if !holds_vectors(&fields[vector]) {
            return Err(wrong(vector, "lists of floats"));
        }
        let id = match id {
            Some(name) => Some(footer.column(name)?.0),
            None => usual(&IDS).find(|place| holds_names(&fields[*place])),
        };
        if let Some(place) = id.filter(|place| !holds_names(&fields[*place])) {
            return Err(wrong(place, "text or integers"));
        }
        Ok(Self { footer, id, vector })
    }

    pub fn rows(&self) -> usize {
        self.footer.rows
    }

    /// The vectors, in order, some thousand at a time.
    pub fn batches(&self) -> Result<VectorBatches> {
        let batches = self.footer.columns(self.id.into_iter().chain([self.vector]), CHUNK_ROWS)?;
        let name = |place: usize| self.footer.schema().field(place).name().clone();
        let converter =
            Converter { path: self.footer.path.clone(), id: self.id.map(name), vector: name(self.vector), row: 0, dim: None };
        Ok(VectorBatches { batches, converter })
    }
}

pub struct VectorBatches {
    batches: BatchReader,
    converter: Converter,
}

struct Converter {
    path: PathBuf,
    id: Option<String>,
    vector: String,
    row: usize,
    dim: Option<usize>,
}

impl Converter {
    fn convert(&mut self, batch: &RecordBatch) -> Result<NamedVectors> {
        let damaged = |detail: &str| ArtifactError::Damaged { path: display(&self.path), detail: detail.to_owned() };
        let null = |column: &str, row: usize| ArtifactError::Null {
            path: display(&self.path),
            column: column.to_owned(),
            row: self.row + row,
        };
        let column = |name: &str| {
            let column = batch.column_by_name(name).ok_or_else(|| damaged("a batch lacks a column"))?;
            (0..column.len()).find(|row| column.is_null(*row)).map_or(Ok(column), |row| Err(null(name, row)))
        };
        let (values, ends) =
            lists(column(&self.vector)?).ok_or_else(|| damaged("the vectors are not of their declared type"))?;
        let dim = self.dim.unwrap_or_else(|| ends.first().copied().unwrap_or(0));
        if let Some(row) = (0..ends.len()).find(|&row| ends[row] != (row + 1) * dim) {
            let found = ends[row] - if row > 0 { ends[row - 1] } else { 0 };
            let (path, column, row) = (display(&self.path), self.vector.clone(), self.row + row);
            let (value, wanted) = (format!("{found} numbers"), format!("a vector of {dim}, as in the first row"));
            return Err(ArtifactError::OutOfRange { path, column, row, value, wanted });
        }
        if values.null_count() > 0 {
            let place = (0..values.len()).find(|place| values.is_null(*place)).unwrap_or(0);
            return Err(null(&self.vector, place / dim.max(1)));
        }
        let values = cast(&values, &DataType::Float32).map_err(|e| damaged(&e.to_string()))?;
        let values = values.as_primitive_opt::<Float32Type>().ok_or_else(|| damaged("no floats"))?.values().to_vec();
        let ids = match &self.id {
            None => None,
            Some(name) => Some(texts(column(name)?).ok_or_else(|| damaged("the names are no texts"))?),
        };
        self.row += batch.num_rows();
        self.dim = Some(dim);
        Ok(NamedVectors { ids, dim, values })
    }
}

impl Iterator for VectorBatches {
    type Item = Result<NamedVectors>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.next(|batch| self.converter.convert(batch)).transpose()
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
