//! Vectors with names in anybody's table: NeMo Curator, AutoFAISS, clip-retrieval, a pandas frame, a saved data set.
//!
//! The layout is a convention with variants: the column is called `embedding`, `embeddings` or something else; it is a list or a
//! fixed-size list of floats of any width, or the numbers have a column each, `0`, `1`, `2`; names are texts or numbers in `id` or
//! elsewhere or in the index of a pandas frame, or there are none. What was chosen is told in [`VectorFile::reading`].

use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float32Type, Schema};

use super::arrow_files::ArrowFiles;
use super::batches::BatchReader;
use super::column::texts;
use super::footer::Footer;
use super::usual_names::{IDS, VECTORS, likely, numbered, usual};
use super::write::CHUNK_ROWS;
use crate::error::{ArtifactError, Result, display};
use kinset_base::reading::Reading;

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

/// A table of vectors, whoever wrote it.
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    table: Table,
    columns: Columns,
}

#[derive(Debug)]
enum Table {
    Parquet(Box<Footer>),
    Arrow(ArrowFiles),
}

/// The chosen columns, by their places.
#[derive(Debug)]
struct Columns {
    id: Option<usize>,
    vectors: Numbers,
    reading: Reading,
}

#[derive(Clone, Debug)]
enum Numbers {
    Lists(usize),
    /// A column for each.
    Columns(Range<usize>),
}

impl Numbers {
    fn places(&self) -> Range<usize> {
        match self {
            Self::Lists(place) => *place..*place + 1,
            Self::Columns(places) => places.clone(),
        }
    }
}

impl VectorFile {
    /// Opens a Parquet file and finds its columns. `id` and `vector` name them, an empty `id` means that there are no names.
    /// Without them the usual ones are tried, then the index of a pandas frame; and the only column of lists of floats, then
    /// columns that are numbered.
    ///
    /// # Errors
    /// If it cannot be read, has no such columns, or has several that may be meant.
    pub fn open(path: &Path, id: Option<&str>, vector: Option<&str>) -> Result<Self> {
        let footer = Footer::read(path)?;
        let columns = choose(path, footer.schema(), footer.entry("pandas"), id, vector)?;
        Ok(Self { path: path.to_owned(), table: Table::Parquet(Box::new(footer)), columns })
    }

    /// As [`Self::open`], for an Arrow file or the folder of `save_to_disk`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_arrow(path: &Path, id: Option<&str>, vector: Option<&str>) -> Result<Self> {
        let files = ArrowFiles::open(path)?;
        let columns = choose(path, files.schema(), files.entry("pandas"), id, vector)?;
        Ok(Self { path: path.to_owned(), table: Table::Arrow(files), columns })
    }

    /// How many rows there are, if the file says so before its end.
    pub fn rows(&self) -> Option<usize> {
        match &self.table {
            Table::Parquet(footer) => Some(footer.rows),
            Table::Arrow(_) => None,
        }
    }

    /// Which columns were chosen, and which were left.
    pub fn reading(&self) -> &Reading {
        &self.columns.reading
    }

    /// The vectors, in order, some thousand at a time.
    pub fn batches(&self) -> Result<VectorBatches> {
        let mut places: Vec<usize> = self.columns.id.into_iter().chain(self.columns.vectors.places()).collect();
        places.sort_unstable();
        places.dedup();
        // In a batch the columns stand in the order of the file.
        let inside = |place: usize| places.partition_point(|&other| other < place);
        let vectors = match &self.columns.vectors {
            Numbers::Lists(place) => Numbers::Lists(inside(*place)),
            Numbers::Columns(range) => Numbers::Columns(inside(range.start)..inside(range.start) + range.len()),
        };
        let converter = Converter { path: self.path.clone(), id: self.columns.id.map(inside), vectors, row: 0, dim: None };
        let batches = match &self.table {
            Table::Parquet(footer) => footer.columns(places, CHUNK_ROWS)?,
            Table::Arrow(files) => files.columns(places, CHUNK_ROWS),
        };
        Ok(VectorBatches { batches, converter })
    }
}

/// Finds the columns, and says what was found.
fn choose(path: &Path, schema: &Schema, pandas: Option<&str>, id: Option<&str>, vector: Option<&str>) -> Result<Columns> {
    let fields = schema.fields();
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let owned = |places: &mut dyn Iterator<Item = usize>| places.map(|place| names[place].to_owned()).collect::<Vec<_>>();
    let wrong = |place: usize, wanted: &str| ArtifactError::WrongType {
        path: display(path),
        column: names[place].to_owned(),
        found: fields[place].data_type().to_string(),
        wanted: wanted.to_owned(),
    };
    let missing = |column: &str| ArtifactError::NoColumn {
        path: display(path),
        column: column.to_owned(),
        found: owned(&mut (0..names.len())),
    };
    let at = |name: &str| names.iter().position(|found| *found == name);
    let mut reading = Reading::default();
    let index = pandas.and_then(pandas_index).and_then(|name| at(&name)).filter(|place| holds_names(&fields[*place]));

    let runs = numbered(&names, |place| fields[place].data_type().is_floating());
    let vectors = if let Some(name) = vector {
        match (at(name), runs.iter().find(|run| run.stem == name)) {
            (Some(place), _) if holds_vectors(&fields[place]) => Numbers::Lists(place),
            (Some(place), _) => return Err(wrong(place, "lists of floats")),
            (None, Some(run)) => Numbers::Columns(run.columns.clone()),
            (None, None) => return Err(missing(name)),
        }
    } else {
        let lists: Vec<usize> = (0..fields.len()).filter(|place| holds_vectors(&fields[*place])).collect();
        let called: Vec<usize> = lists.iter().copied().filter(|place| is_called_vector(names[*place])).collect();
        let named = usual(&VECTORS, &names, |place| holds_vectors(&fields[place]));
        match (named, &called[..], &lists[..]) {
            (Some(place), ..) | (None, &[place], _) | (None, &[], &[place]) => Numbers::Lists(place),
            (None, [], []) => match (likely(&runs), &runs[..]) {
                (Some(run), _) => Numbers::Columns(run.columns.clone()),
                (None, []) => {
                    let found = |field: &std::sync::Arc<Field>| format!("{}: {}", field.name(), field.data_type());
                    let found = fields.iter().map(found).collect();
                    return Err(ArtifactError::NoVectors { path: display(path), found });
                }
                (None, several) => {
                    let candidates = several.iter().map(|run| run.stem.clone()).collect();
                    return Err(ArtifactError::WhichColumn { path: display(path), what: VECTORS_ARE, candidates });
                }
            },
            (None, [], several) | (None, several, _) => {
                let candidates = owned(&mut several.iter().copied());
                return Err(ArtifactError::WhichColumn { path: display(path), what: VECTORS_ARE, candidates });
            }
        }
    };

    let free = |place: usize| !vectors.places().contains(&place);
    let is_text = |place: usize| free(place) && holds_names(&fields[place]) && !fields[place].data_type().is_integer();
    let texts: Vec<usize> = (0..fields.len()).filter(|place| is_text(*place)).collect();
    let id = match id {
        Some("") => None,
        Some(name) => {
            let place = at(name).ok_or_else(|| missing(name))?;
            if !holds_names(&fields[place]) {
                return Err(wrong(place, "text or integers"));
            }
            Some(place)
        }
        None => {
            let usual_one = usual(&IDS, &names, |place| free(place) && holds_names(&fields[place]));
            let chosen = usual_one.or(index.filter(|place| is_text(*place) || free(*place) && texts.is_empty()));
            if chosen.is_none() && !texts.is_empty() {
                let candidates = owned(&mut texts.iter().copied());
                return Err(ArtifactError::WhichColumn { path: display(path), what: NAMES_ARE, candidates });
            }
            if let Some(place) =
                usual(&IDS, &names, |place| free(place) && !holds_names(&fields[place])).filter(|_| chosen.is_none())
            {
                let kind = fields[place].data_type();
                reading.doubt(format!(
                    "column `{}` is {kind}, neither text nor integers, so images are named by their row",
                    names[place]
                ));
            }
            chosen
        }
    };

    reading.took(match &vectors {
        Numbers::Lists(place) => format!("vectors: column `{}`", names[*place]),
        Numbers::Columns(places) => {
            format!("vectors: columns `{}` to `{}`", names[places.start], names[places.end.saturating_sub(1)])
        }
    });
    reading.took(match id {
        None => "names: row numbers".to_owned(),
        Some(place) if Some(place) == index => format!("names: column `{}`, the index in pandas", names[place]),
        Some(place) => format!("names: column `{}`", names[place]),
    });
    let left: Vec<usize> = (0..fields.len()).filter(|place| free(*place) && Some(*place) != id).collect();
    if !left.is_empty() {
        let shown: Vec<String> = left.iter().take(8).map(|place| format!("`{}`", names[*place])).collect();
        let more = if left.len() > 8 { format!(" and {} more", left.len() - 8) } else { String::new() };
        reading.left(format!("column {}{more}", shown.join(", ")));
    }
    Ok(Columns { id, vectors, reading })
}

/// What [`ArtifactError::WhichColumn`] asks for.
pub const VECTORS_ARE: &str = "the vectors";
/// What [`ArtifactError::WhichColumn`] asks for.
pub const NAMES_ARE: &str = "the names";

/// The column of a pandas frame's index, if it has one: a range of numbers has none.
fn pandas_index(metadata: &str) -> Option<String> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).ok()?;
    match metadata["index_columns"].as_array().map(Vec::as_slice)? {
        [serde_json::Value::String(name)] => Some(name.clone()),
        _ => None,
    }
}

fn is_called_vector(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["emb", "feature", "vector", "latent"].iter().any(|part| name.contains(part))
}

pub struct VectorBatches {
    batches: BatchReader,
    converter: Converter,
}

/// Places are those in a batch.
struct Converter {
    path: PathBuf,
    id: Option<usize>,
    vectors: Numbers,
    row: usize,
    dim: Option<usize>,
}

impl Converter {
    fn convert(&mut self, batch: &RecordBatch) -> Result<NamedVectors> {
        let damaged = |detail: &str| ArtifactError::Damaged { path: display(&self.path), detail: detail.to_owned() };
        let name = |place: usize| batch.schema().fields().get(place).map(|field| field.name().clone()).unwrap_or_default();
        let null = |place: usize, row: usize| ArtifactError::Null {
            path: display(&self.path),
            column: name(place),
            row: self.row + row,
        };
        let column = |place: usize| {
            let column = batch.columns().get(place).ok_or_else(|| damaged("a batch lacks a column"))?;
            (0..column.len()).find(|row| column.is_null(*row)).map_or(Ok(column), |row| Err(null(place, row)))
        };
        let floats = |values: &ArrayRef| -> Result<Vec<f32>> {
            let values = cast(values, &DataType::Float32).map_err(|e| damaged(&e.to_string()))?;
            Ok(values
                .as_primitive_opt::<Float32Type>()
                .ok_or_else(|| damaged("the vectors are not float32"))?
                .values()
                .to_vec())
        };
        let (dim, values) = match &self.vectors {
            Numbers::Lists(place) => {
                let (values, ends) =
                    lists(column(*place)?).ok_or_else(|| damaged("the vectors are not of their declared type"))?;
                let dim = self.dim.unwrap_or_else(|| ends.first().copied().unwrap_or(0));
                if let Some(row) = (0..ends.len()).find(|&row| ends[row] != (row + 1) * dim) {
                    let found = ends[row] - if row > 0 { ends[row - 1] } else { 0 };
                    let (path, column, row) = (display(&self.path), name(*place), self.row + row);
                    let (value, wanted) = (format!("{found} numbers"), format!("a vector of {dim}, as in the first row"));
                    return Err(ArtifactError::OutOfRange { path, column, row, value, wanted });
                }
                if values.null_count() > 0 {
                    let missing = (0..values.len()).find(|missing| values.is_null(*missing)).unwrap_or(0);
                    return Err(null(*place, missing / dim.max(1)));
                }
                (dim, floats(&values)?)
            }
            Numbers::Columns(places) => {
                let mut values = vec![0.0; batch.num_rows() * places.len()];
                for (number, place) in places.clone().enumerate() {
                    for (row, value) in floats(column(place)?)?.into_iter().enumerate() {
                        values[row * places.len() + number] = value;
                    }
                }
                (places.len(), values)
            }
        };
        let ids = match self.id {
            None => None,
            Some(place) => Some(texts(column(place)?).ok_or_else(|| damaged("the names are not text"))?),
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
        DataType::List(child) | DataType::LargeList(child) => child.data_type().is_floating(),
        // Any number of lists of nothing takes no bytes.
        DataType::FixedSizeList(child, width) => *width > 0 && child.data_type().is_floating(),
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
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use kinset_base::fs;

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        write_with(path, columns, &[]);
    }

    fn write_with(path: &Path, columns: Vec<(&str, ArrayRef)>, metadata: &[(&str, &str)]) {
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
        let mut writer = ArrowWriter::try_new(fs::create_new(path).unwrap(), schema, None).unwrap();
        writer.write(&batch).unwrap();
        for (key, value) in metadata {
            writer.append_key_value_metadata(KeyValue::new((*key).to_owned(), (*value).to_owned()));
        }
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

    fn names(path: &Path) -> Result<Vec<String>> {
        let batches = all(path, None, None)?;
        Ok(batches.into_iter().flat_map(|batch| batch.ids.unwrap_or_default()).collect())
    }

    fn text(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn names_come_from_the_usual_columns_and_the_index_of_pandas() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(format!("{name}.parquet"));
        for id in ["image_id", "url", "filename", "path", "file_name", "name", "id", "image", "Filename"] {
            write(&path(id), vec![("caption", text(&["x", "y"])), (id, text(&["a", "b"])), ("emb", ragged(&[1, 1]))]);
            assert_eq!(names(&path(id)).unwrap(), ["a", "b"], "{id}");
            let reading = VectorFile::open(&path(id), None, None).unwrap().reading().line();
            assert_eq!(reading, format!("vectors: column `emb`, names: column `{id}`; not read: column `caption`"));
        }
        let pandas = |index: &str, columns| {
            let path = path("pandas");
            fs::remove(&path).unwrap();
            write_with(&path, columns, &[("pandas", &format!(r#"{{"index_columns": [{index}]}}"#))]);
            path
        };
        let level = "__index_level_0__";
        let found = pandas(
            &format!("\"{level}\""),
            vec![("emb", ragged(&[1, 1])), ("caption", text(&["x", "y"])), (level, text(&["a", "b"]))],
        );
        assert_eq!(names(&found).unwrap(), ["a", "b"]);
        let reading = VectorFile::open(&found, None, None).unwrap().reading().line();
        assert!(reading.contains("names: column `__index_level_0__`, the index in pandas"), "{reading}");
        let range = r#"{"kind": "range", "start": 0, "stop": 2, "step": 1}"#;
        let found = pandas(range, vec![("emb", ragged(&[1, 1]))]);
        assert_eq!(all(&found, None, None).unwrap()[0].ids, None);
    }

    #[test]
    fn row_numbers_do_not_stand_for_names_beside_a_column_of_texts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        write(&path, vec![("photo", text(&["a", "b"])), ("emb", ragged(&[1, 1])), ("caption", text(&["x", "y"]))]);
        let error = all(&path, None, None).unwrap_err().to_string();
        assert!(error.ends_with("does not say which column holds the names; it may be `photo`, `caption`"), "{error}");
        assert_eq!(all(&path, Some("photo"), None).unwrap()[0].ids, Some(vec!["a".into(), "b".into()]));
        assert_eq!(all(&path, Some(""), None).unwrap()[0].ids, None);
    }

    #[test]
    fn the_vectors_are_chosen_by_name_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(format!("{name}.parquet"));
        write(&path("box"), vec![("bbox", ragged(&[4])), ("clip_embedding", ragged(&[2]))]);
        assert_eq!(all(&path("box"), None, None).unwrap()[0].dim, 2);
        write(&path("two"), vec![("bbox", ragged(&[4])), ("other", ragged(&[2]))]);
        let error = all(&path("two"), None, None).unwrap_err().to_string();
        assert!(error.ends_with("which column holds the vectors; it may be `bbox`, `other`"), "{error}");
        assert_eq!(all(&path("two"), None, Some("other")).unwrap()[0].dim, 2);
        write(&path("none"), vec![("embedding", text(&["[1, 2]"]))]);
        let error = all(&path("none"), None, None).unwrap_err().to_string();
        assert!(error.contains("no column of vectors") && error.ends_with("`embedding: Utf8`"), "{error}");
    }

    #[test]
    fn a_column_for_each_number_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let number = |values: [f64; 2]| -> ArrayRef { Arc::new(Float64Array::from(values.to_vec())) };
        let columns = vec![
            ("weight", number([7.0, 8.0])),
            ("0", number([1.0, 2.0])),
            ("1", number([3.0, 4.0])),
            ("id", text(&["a", "b"])),
        ];
        write(&path, columns);
        let wanted = NamedVectors { ids: Some(vec!["a".into(), "b".into()]), dim: 2, values: vec![1.0, 3.0, 2.0, 4.0] };
        assert_eq!(all(&path, None, None).unwrap(), [wanted]);
        let reading = VectorFile::open(&path, None, None).unwrap().reading().line();
        assert_eq!(reading, "vectors: columns `0` to `1`, names: column `id`; not read: column `weight`");
    }

    #[test]
    fn arrow_files_give_the_same_vectors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data-00000-of-00001.arrow");
        let batch = RecordBatch::try_from_iter([("features", ragged(&[2, 2])), ("image", text(&["a.png", "b.png"]))]).unwrap();
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(fs::create_new(&path).unwrap(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        let state = r#"{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}"#;
        fs::write_atomic(&dir.path().join("state.json"), state.as_bytes()).unwrap();
        for path in [&path, dir.path()] {
            let file = VectorFile::open_arrow(path, None, None).unwrap();
            let all: Vec<NamedVectors> = file.batches().unwrap().collect::<Result<_>>().unwrap();
            let one =
                NamedVectors { ids: Some(vec!["a.png".into(), "b.png".into()]), dim: 2, values: vec![0.0, 0.5, 1.0, 1.5] };
            assert_eq!(all, [one.clone(), one]);
        }
    }

    #[test]
    fn every_codec_is_read() {
        use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
        let dir = tempfile::tempdir().unwrap();
        let codecs = [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::GZIP(GzipLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
            Compression::LZ4,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::LZ4_RAW,
        ];
        let batch = RecordBatch::try_from_iter([("emb", ragged(&[50; 40]))]).unwrap();
        for (number, codec) in codecs.into_iter().enumerate() {
            let path = dir.path().join(format!("{number}.parquet"));
            let properties = WriterProperties::builder().set_compression(codec).build();
            let mut writer = ArrowWriter::try_new(fs::create_new(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            assert_eq!(all(&path, None, None).unwrap()[0].values, (0..2000).map(|i| i as f32 / 2.0).collect::<Vec<_>>());
        }
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
