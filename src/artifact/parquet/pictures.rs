//! Pictures of published data sets in Parquet or Arrow, as Hugging Face and others write them.
//!
//! The layout is a convention with variants. The column is called `image`, `img` or something else; it is a struct of `bytes` and
//! `path`, bare bytes, or text: a path, or the bytes in base64. A list of any of these counts as its first picture. Labels are
//! integers called `label` or `fine_label` with names in the file's metadata, or texts, truth values, floats without fractions. All
//! of Arrow's forms of text and bytes, dictionaries and the usual codecs are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, UInt64Type};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::ProjectionMask;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::batches::BatchReader;
use super::column::{blobs, texts};
use super::footer::Footer;
use super::table_file::TableFile;
use super::write::CHUNK_ROWS;
use crate::error::{ArtifactError, Result, display};
use crate::picture_facts::ImageFormat;

/// Rows decoded at a time: pictures are large.
const BATCH: usize = 256;
/// Names a column of pictures goes by, the likeliest first.
const IMAGES: [&str; 4] = ["image", "img", "images", "picture"];
/// Names a column of paths goes by where no column holds pictures.
const PATHS: [&str; 7] = ["file_name", "image_path", "image_file", "filename", "filepath", "file", "path"];

#[derive(Clone, Debug, PartialEq)]
pub struct FoundPicture {
    /// Its file's bytes; empty if only a path is given.
    pub bytes: Vec<u8>,
    /// Its path as the data set gives it; may be empty.
    pub path: String,
    /// Its class, if labels are read and this one is known.
    pub label: Option<FoundLabel>,
    /// Further pictures of its row, which are not read.
    pub others: usize,
}

/// A label as it stands in a table.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundLabel {
    Number(i64),
    /// A number that is none of a class: `0.37`, 2⁶³.
    Fraction(f64),
    Text(String),
}

/// A Parquet or Arrow file of pictures that was not written by kinset.
#[derive(Debug)]
pub struct PictureFile {
    table: TableFile,
    path: PathBuf,
    image: usize,
    label: Option<usize>,
}

impl PictureFile {
    /// Opens a file and finds its pictures: in the column `image` names, else in the first that can hold them (`image` and its like
    /// first), else in one of paths. Labels are not read.
    ///
    /// # Errors
    /// No file of this form; no such column, or none of pictures.
    pub fn open(path: &Path, image: Option<&str>) -> Result<Self> {
        let table = TableFile::open(path)?;
        let fields = table.schema().fields();
        let named = |names: &'static [&'static str], form: Form| {
            let found = names.iter().filter_map(|name| fields.find(name));
            found.filter(move |(_, field)| holds(field.data_type()) == Some(form)).map(|(place, _)| place)
        };
        let any = (0..fields.len()).find(|place| holds(fields[*place].data_type()) == Some(Form::Bytes));
        let likely = || {
            let first = named(&IMAGES, Form::Bytes).next().or_else(|| named(&IMAGES, Form::Text).next());
            first.or(any).or_else(|| named(&PATHS, Form::Text).next())
        };
        let image = match image {
            Some(name) => {
                let (place, field) = table.column(name)?;
                if holds(field.data_type()).is_none() {
                    return Err(wrong_type(path, field, PICTURES));
                }
                place
            }
            None => likely().ok_or_else(|| {
                let found = fields.iter().map(|field| format!("`{}` ({})", field.name(), in_words(field.data_type())));
                ArtifactError::NoPictures { path: display(path), found: found.collect() }
            })?,
        };
        Ok(Self { table, path: path.to_owned(), image, label: None })
    }

    /// Labels are read: from the column of this name, or from `label`, if it is there.
    ///
    /// # Errors
    /// No such column; one that is named and holds no labels.
    pub fn with_labels(self, label: Option<&str>) -> Result<Self> {
        let label = match label {
            Some(name) => {
                let (place, field) = self.table.column(name)?;
                if !holds_labels(field.data_type()) {
                    return Err(wrong_type(&self.path, field, "integers or text"));
                }
                Some(place)
            }
            None => self.table.schema().fields().find("label").map(|(place, _)| place),
        };
        Ok(Self { label, ..self })
    }

    pub fn rows(&self) -> usize {
        self.table.rows()
    }

    /// The name of the column of pictures, and what it holds.
    pub fn image_column(&self) -> (&str, String) {
        let field = self.field(self.image);
        (field.name(), in_words(field.data_type()))
    }

    /// The name of the column of labels, and what it holds; nothing if there is none.
    pub fn label_column(&self) -> Option<(&str, String)> {
        let field = self.field(self.label?);
        Some((field.name(), in_words(field.data_type())))
    }

    /// The column of labels is of a type that labels can have.
    pub fn can_be_labels(&self) -> bool {
        self.label.is_some_and(|place| holds_labels(self.field(place).data_type()))
    }

    fn field(&self, place: usize) -> &Field {
        self.table.schema().field(place)
    }

    /// The names of the classes, if the metadata give them: `info.features.<column>.names` under the key `huggingface`, as a list or
    /// as an object with numbers for keys.
    pub fn class_names(&self) -> Vec<String> {
        let label = self.label.map(|place| self.field(place)).filter(|field| field.data_type().is_integer());
        let names = label.and_then(|field| class_names(self.table.entry("huggingface")?, field.name()));
        names.unwrap_or_default()
    }

    /// The labels of all rows, some thousand at a time; nothing if none are read, or the column holds none.
    pub fn labels(&self) -> Result<Option<LabelBatches>> {
        let Some(place) = self.label.filter(|_| self.can_be_labels()) else { return Ok(None) };
        let batches = self.table.columns([place], CHUNK_ROWS)?;
        Ok(Some(LabelBatches { batches, column: self.field(place).name().clone() }))
    }

    /// The paths in the column of pictures, if there may be pictures that are given by nothing else.
    pub fn paths(&self) -> Result<Vec<String>> {
        // `save_to_disk` puts all bytes into its files.
        let Some(footer) = self.table.footer().filter(|footer| self.may_lack_bytes(footer)) else { return Ok(Vec::new()) };
        let schema = footer.parquet_schema();
        // Without the bytes, which would be most of the file.
        let leaves = (0..schema.num_columns())
            .filter(|&leaf| schema.get_column_root_idx(leaf) == self.image && schema.column(leaf).name() != "bytes");
        let mask = ProjectionMask::leaves(schema, leaves);
        let batches = footer.batches(|builder| builder.with_projection(mask).with_batch_size(CHUNK_ROWS))?;
        let pictures =
            Pictures { batches, image: self.field(self.image).name().clone(), label: None, ready: Vec::new().into_iter() };
        let named = pictures.filter(|picture| !matches!(picture, Ok(picture) if picture.path.is_empty()));
        named.map(|picture| Ok(picture?.path)).collect()
    }

    /// The column is text, or its file's statistics count pictures without bytes.
    fn may_lack_bytes(&self, footer: &Footer) -> bool {
        let schema = footer.parquet_schema();
        let is_bytes = |leaf: &usize| schema.get_column_root_idx(*leaf) == self.image && schema.column(*leaf).name() == "bytes";
        match (holds(self.field(self.image).data_type()), (0..schema.num_columns()).find(is_bytes)) {
            (Some(Form::Text), _) => true,
            (_, None) => false,
            (_, Some(leaf)) => footer.metadata().row_groups().iter().any(|group| {
                let nulls = group.column(leaf).statistics().and_then(parquet::file::statistics::Statistics::null_count_opt);
                nulls.is_some_and(|nulls| nulls > 0)
            }),
        }
    }

    /// The pictures, in order. Memory: a few hundred of them.
    pub fn pictures(&self) -> Result<Pictures> {
        let label = self.label.filter(|_| self.can_be_labels());
        let batches = self.table.columns(std::iter::once(self.image).chain(label), BATCH)?;
        let name = |place: usize| self.field(place).name().clone();
        Ok(Pictures { batches, image: name(self.image), label: label.map(name), ready: Vec::new().into_iter() })
    }
}

pub struct LabelBatches {
    batches: BatchReader,
    column: String,
}

impl Iterator for LabelBatches {
    type Item = Result<Vec<Option<FoundLabel>>>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = display(self.batches.path());
        let next = self.batches.next(|batch| {
            batch.column_by_name(&self.column).and_then(labels).ok_or_else(|| not_as_declared(path, &self.column))
        });
        next.transpose()
    }
}

pub struct Pictures {
    batches: BatchReader,
    image: String,
    label: Option<String>,
    ready: std::vec::IntoIter<FoundPicture>,
}

impl Iterator for Pictures {
    type Item = Result<FoundPicture>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(picture) = self.ready.next() {
                return Some(Ok(picture));
            }
            let path = display(self.batches.path());
            let pictures = self.batches.next(|batch| {
                convert(batch, &self.image, self.label.as_deref()).ok_or_else(|| not_as_declared(path, &self.image))
            });
            match pictures.transpose()? {
                Ok(pictures) => self.ready = pictures.into_iter(),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

fn wrong_type(path: &Path, field: &Field, wanted: &str) -> ArtifactError {
    let (column, found) = (field.name().clone(), in_words(field.data_type()));
    ArtifactError::WrongType { path: display(path), column, found, wanted: wanted.to_owned() }
}

fn not_as_declared(path: String, column: &str) -> ArtifactError {
    ArtifactError::Damaged { path, detail: format!("column `{column}` does not hold what its declared type says") }
}

fn convert(batch: &RecordBatch, image: &str, label: Option<&str>) -> Option<Vec<FoundPicture>> {
    let mut pictures = pictures(batch.column_by_name(image)?)?;
    if let Some(label) = label {
        for (picture, label) in pictures.iter_mut().zip(labels(batch.column_by_name(label)?)?) {
            picture.label = label;
        }
    }
    Some(pictures)
}

fn pictures(column: &ArrayRef) -> Option<Vec<FoundPicture>> {
    let kind = column.data_type();
    if let Some(wide) = wide_list(kind) {
        return first_of_lists(&cast(column, &wide).ok()?);
    }
    let blank = || Some(vec![String::new(); column.len()]);
    let (bytes, paths) = match column.as_struct_opt() {
        Some(parts) => {
            let bytes = parts.column_by_name("bytes").map(blobs);
            let paths = parts.column_by_name("path").map(texts);
            (bytes.unwrap_or_else(|| Some(vec![Vec::new(); column.len()]))?, paths.unwrap_or_else(blank)?)
        }
        None if is_text(kind) => {
            let from_text = |text: String| from_base64(&text).map_or((Vec::new(), text), |bytes| (bytes, String::new()));
            texts(column)?.into_iter().map(from_text).unzip()
        }
        None => (blobs(column)?, blank()?),
    };
    let picture = |(bytes, path)| FoundPicture { bytes, path, label: None, others: 0 };
    Some(bytes.into_iter().zip(paths).map(picture).collect())
}

/// The first picture of each list; of an empty one nothing.
fn first_of_lists(lists: &ArrayRef) -> Option<Vec<FoundPicture>> {
    let lists = lists.as_list_opt::<i64>()?;
    let length = |row: usize| if lists.is_null(row) { 0 } else { lists.value_length(row) };
    let first = |row: usize| (length(row) > 0).then(|| lists.value_offsets()[row].cast_unsigned());
    let firsts: UInt64Array = (0..lists.len()).map(first).collect();
    let mut found = pictures(&take(lists.values(), &firsts, None).ok()?)?;
    for (row, picture) in found.iter_mut().enumerate() {
        picture.others = usize::try_from(length(row) - 1).unwrap_or(0);
    }
    Some(found)
}

fn wide_list(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::List(child) | DataType::LargeList(child) | DataType::FixedSizeList(child, _) => {
            Some(DataType::LargeList(child.clone()))
        }
        _ => None,
    }
}

/// How pictures begin in base64.
const BASE64: [&str; 7] = ["iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "Qk", "SUkqA", "TU0AK"];

/// The bytes of a picture that stands in a text, as base64 or as a `data:` address.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    // As PNG, JPEG, WebP, GIF, BMP and TIFF begin; a short one is the name of a file.
    let body = match text.strip_prefix("data:image/") {
        Some(rest) => rest.split_once(";base64,")?.1,
        None => Some(text).filter(|text| BASE64.iter().any(|begin| text.starts_with(begin)))?,
    };
    let bytes = STANDARD.decode(body.trim_ascii()).ok()?;
    ImageFormat::sniff(&bytes).map(|_| bytes)
}

fn labels(array: &ArrayRef) -> Option<Vec<Option<FoundLabel>>> {
    let kind = plain(array.data_type());
    let array = cast(array, kind).ok()?;
    let float = |value: f64| {
        // Beyond 2⁵³ floats are not whole numbers, but multiples.
        let whole = value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0;
        if whole { FoundLabel::Number(value as i64) } else { FoundLabel::Fraction(value) }
    };
    Some(match kind {
        DataType::Null => vec![None; array.len()],
        DataType::UInt64 => {
            let number = |value: u64| i64::try_from(value).map_or(FoundLabel::Fraction(value as f64), FoundLabel::Number);
            array.as_primitive_opt::<UInt64Type>()?.iter().map(|value| value.map(number)).collect()
        }
        kind if kind.is_integer() => {
            let array = cast(&array, &DataType::Int64).ok()?;
            array.as_primitive_opt::<Int64Type>()?.iter().map(|value| value.map(FoundLabel::Number)).collect()
        }
        kind if kind.is_numeric() => {
            let array = cast(&array, &DataType::Float64).ok()?;
            let values = array.as_primitive_opt::<Float64Type>()?.iter();
            values.map(|value| value.filter(|value| !value.is_nan()).map(float)).collect()
        }
        // Truth values are `false` and `true`.
        _ => texts(&array)?.into_iter().map(|text| (!text.is_empty()).then_some(FoundLabel::Text(text))).collect(),
    })
}

/// What a column of pictures holds, inside lists and structs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Bytes,
    /// Paths, or base64.
    Text,
}

/// What can be a column of pictures, for messages.
const PICTURES: &str = "a struct of `bytes` and `path`, binary, or text (a path or base64)";

fn holds(kind: &DataType) -> Option<Form> {
    let part = |parts: &arrow::datatypes::Fields, name: &str, fits: fn(&DataType) -> bool| {
        parts.iter().any(|part| part.name() == name && fits(part.data_type()))
    };
    match kind {
        DataType::Struct(parts) if part(parts, "bytes", is_binary) => Some(Form::Bytes),
        DataType::Struct(parts) if part(parts, "path", is_text) => Some(Form::Text),
        DataType::List(child) | DataType::LargeList(child) | DataType::FixedSizeList(child, _) => {
            (wide_list(child.data_type()).is_none()).then(|| holds(child.data_type()))?
        }
        kind if is_binary(kind) => Some(Form::Bytes),
        kind if is_text(kind) => Some(Form::Text),
        _ => None,
    }
}

/// The type of a dictionary's values; any other type is its own.
fn plain(kind: &DataType) -> &DataType {
    if let DataType::Dictionary(_, values) = kind { values } else { kind }
}

fn is_binary(kind: &DataType) -> bool {
    matches!(plain(kind), DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_text(kind: &DataType) -> bool {
    matches!(plain(kind), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn holds_labels(kind: &DataType) -> bool {
    let kind = plain(kind);
    kind.is_numeric() || is_text(kind) || matches!(kind, DataType::Boolean | DataType::Null)
}

/// A type for people.
fn in_words(kind: &DataType) -> String {
    match plain(kind) {
        DataType::Null => "nothing".to_owned(),
        DataType::Boolean => "truth values".to_owned(),
        kind if kind.is_integer() => "integers".to_owned(),
        kind if kind.is_numeric() => "numbers".to_owned(),
        kind if is_text(kind) => "text".to_owned(),
        kind if is_binary(kind) => "binary".to_owned(),
        DataType::Struct(parts) => {
            let parts: Vec<String> = parts.iter().take(4).map(|part| format!("`{}`", part.name())).collect();
            format!("a struct of {}", parts.join(", "))
        }
        DataType::List(child) | DataType::LargeList(child) | DataType::FixedSizeList(child, _) => {
            format!("lists of {}", in_words(child.data_type()))
        }
        kind => kind.to_string(),
    }
}

/// What Hugging Face's library keeps of a table's columns. What is not needed stays text: there may be a million names.
#[derive(Deserialize)]
struct HuggingFace<'a> {
    #[serde(borrow)]
    info: Info<'a>,
}

#[derive(Deserialize)]
struct Info<'a> {
    #[serde(borrow)]
    features: BTreeMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
struct Feature<'a> {
    #[serde(borrow)]
    names: &'a RawValue,
}

fn class_names(json: &str, column: &str) -> Option<Vec<String>> {
    let features = serde_json::from_str::<HuggingFace>(json).ok()?.info.features;
    let names = serde_json::from_str::<Feature>(features.get(column)?.get()).ok()?.names.get();
    if let Ok(names) = serde_json::from_str(names) {
        return Some(names);
    }
    let mut names: BTreeMap<String, String> = serde_json::from_str(names).ok()?;
    (0..names.len()).map(|i| names.remove(&i.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BinaryViewArray, BooleanArray, DictionaryArray, Float64Array, Int8Array, Int64Array, LargeBinaryArray,
        LargeStringArray, ListArray, NullArray, StringArray, StringViewArray, StructArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{Int32Type, Schema};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::{Compression, GzipLevel, ZstdLevel};
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use kinset_base::fs;

    const HF: &str =
        r#"{"info":{"features":{"image":{"_type":"Image"},"label":{"names":["cat","dog"],"_type":"ClassLabel"}}}}"#;

    fn file(path: &Path, codec: Compression, columns: Vec<(&str, ArrayRef)>) {
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        let properties = WriterProperties::builder().set_compression(codec).build();
        let schema = Arc::new(Schema::clone(&batch.schema()));
        fs::remove(path).unwrap();
        let mut writer = ArrowWriter::try_new(fs::create_new(path).unwrap(), schema, Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.append_key_value_metadata(KeyValue::new("huggingface".into(), HF.to_owned()));
        writer.close().unwrap();
    }

    fn images(bytes: ArrayRef, paths: ArrayRef) -> ArrayRef {
        let fields =
            vec![Field::new("bytes", bytes.data_type().clone(), true), Field::new("path", paths.data_type().clone(), true)];
        Arc::new(StructArray::new(fields.into(), vec![bytes, paths], None))
    }

    fn found(file: &PictureFile) -> Vec<(Vec<u8>, String, Option<FoundLabel>)> {
        file.pictures().unwrap().map(|p| p.unwrap()).map(|p| (p.bytes, p.path, p.label)).collect()
    }

    #[expect(clippy::unnecessary_wraps, reason = "beside labels that are not there")]
    fn number(value: i64) -> Option<FoundLabel> {
        Some(FoundLabel::Number(value))
    }

    #[test]
    fn every_form_of_the_layout_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let bytes: [Option<&[u8]>; 3] = [Some(b"one"), None, Some(b"three")];
        let names = [Some("a/1.png"), Some("b/2.png"), None];
        let labels: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(0), None]));
        let forms: [(ArrayRef, ArrayRef); 4] = [
            (Arc::new(BinaryArray::from(bytes.to_vec())), Arc::new(StringArray::from(names.to_vec()))),
            (Arc::new(LargeBinaryArray::from(bytes.to_vec())), Arc::new(LargeStringArray::from(names.to_vec()))),
            (Arc::new(BinaryViewArray::from(bytes.to_vec())), Arc::new(StringViewArray::from(names.to_vec()))),
            (Arc::new(BinaryArray::from(bytes.to_vec())), Arc::new(names.into_iter().collect::<DictionaryArray<Int32Type>>())),
        ];
        let codecs = [
            Compression::SNAPPY,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::GZIP(GzipLevel::default()),
            Compression::UNCOMPRESSED,
        ];
        for ((bytes, paths), codec) in forms.into_iter().zip(codecs) {
            file(&path, codec, vec![("label", labels.clone()), ("image", images(bytes, paths))]);
            let file = PictureFile::open(&path, None).unwrap().with_labels(None).unwrap();
            assert_eq!((file.rows(), file.class_names()), (3, vec!["cat".to_owned(), "dog".to_owned()]));
            let wanted = [
                (b"one".to_vec(), "a/1.png".to_owned(), number(1)),
                (vec![], "b/2.png".to_owned(), number(0)),
                (b"three".to_vec(), String::new(), None),
            ];
            assert_eq!(found(&file), wanted);
        }
    }

    #[test]
    fn bare_bytes_small_integers_and_other_names_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let bytes: ArrayRef = Arc::new((0..1000).map(|i| Some(vec![i as u8; 3])).collect::<BinaryArray>());
        let labels: ArrayRef = Arc::new((0..1000).map(|i| Some((i % 7) as i8)).collect::<Int8Array>());
        file(&path, Compression::SNAPPY, vec![("picture", bytes), ("fine_label", labels)]);
        let plain = PictureFile::open(&path, None).unwrap().with_labels(None).unwrap();
        assert_eq!(plain.label_column(), None);
        let named = PictureFile::open(&path, Some("picture")).unwrap().with_labels(Some("fine_label")).unwrap();
        let all = found(&named);
        assert_eq!((all.len(), &all[999]), (1000, &(vec![231; 3], String::new(), number(999 % 7))));
        assert!(named.class_names().is_empty());
        let refuse =
            |image, label| PictureFile::open(&path, image).and_then(|file| file.with_labels(label)).unwrap_err().to_string();
        assert!(refuse(Some("image"), None).contains("no column `image`; its columns are `picture`, `fine_label`"));
        assert!(refuse(Some("fine_label"), None).contains("binary"));
        assert!(refuse(None, Some("picture")).contains("integers"));
    }

    #[test]
    fn labels_of_every_type_are_read_as_numbers_or_texts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let text = |text: &str| Some(FoundLabel::Text(text.to_owned()));
        let dictionary = [Some("dog"), None, Some("cat")].into_iter().collect::<DictionaryArray<Int32Type>>();
        let cases: [(ArrayRef, [Option<FoundLabel>; 3]); 6] = [
            (Arc::new(StringArray::from(vec![Some("dog"), Some(""), None])), [text("dog"), None, None]),
            (Arc::new(dictionary), [text("dog"), None, text("cat")]),
            (Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), [text("true"), None, text("false")]),
            (Arc::new(Float64Array::from(vec![Some(3.0), Some(f64::NAN), None])), [number(3), None, None]),
            (Arc::new(Float64Array::from(vec![0.5, -1.0, 2.0])), [Some(FoundLabel::Fraction(0.5)), number(-1), number(2)]),
            (Arc::new(NullArray::new(3)), [None, None, None]),
        ];
        let bytes: ArrayRef = Arc::new([Some(b"1"), Some(b"2"), Some(b"3")].into_iter().collect::<BinaryArray>());
        for (labels, wanted) in cases {
            let kind = labels.data_type().clone();
            file(&path, Compression::SNAPPY, vec![("image", bytes.clone()), ("label", labels)]);
            let file = PictureFile::open(&path, None).unwrap();
            assert!(found(&file).iter().all(|(.., label)| label.is_none()), "nobody asked for {kind}");
            let file = file.with_labels(None).unwrap();
            assert!(file.can_be_labels() && file.class_names().len() == if kind.is_integer() { 2 } else { 0 }, "{kind}");
            let all: Vec<_> = file.labels().unwrap().unwrap().map(|batch| batch.unwrap()).collect();
            assert_eq!(all.concat(), wanted, "{kind}");
            assert_eq!(found(&file).into_iter().map(|(.., label)| label).collect::<Vec<_>>(), wanted, "{kind}");
        }
        file(&path, Compression::SNAPPY, vec![("image", bytes.clone()), ("label", bytes)]);
        let file = PictureFile::open(&path, None).unwrap().with_labels(None).unwrap();
        assert!(!file.can_be_labels() && file.labels().unwrap().is_none());
        assert_eq!((found(&file).len(), file.label_column()), (3, Some(("label", "binary".to_owned()))));
    }

    #[test]
    fn paths_base64_and_lists_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let png = b"\x89PNG\r\n\x1a\n and more";
        let code = STANDARD.encode(png);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![
            Some("a/1.png"),
            Some(&code),
            Some(&format!("data:image/png;base64,{code}")),
            Some("/9j/no.jpg"),
            None,
        ]));
        file(&path, Compression::SNAPPY, vec![("id", texts.clone()), ("image", texts.clone())]);
        let opened = PictureFile::open(&path, None).unwrap();
        let wanted = |bytes: &[u8], path: &str| (bytes.to_vec(), path.to_owned(), None);
        let all = [wanted(b"", "a/1.png"), wanted(png, ""), wanted(png, ""), wanted(b"", "/9j/no.jpg"), wanted(b"", "")];
        assert_eq!(found(&opened), all);
        assert_eq!(opened.paths().unwrap(), ["a/1.png", "/9j/no.jpg"]);
        assert_eq!(opened.image_column(), ("image", "text".to_owned()));
        // Lists of structs: none, two, one picture.
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"one"[..]), Some(b"two"), None]));
        let parts = images(bytes, Arc::new(StringArray::from(vec![None, Some("2.png"), Some("b/3.png")])));
        let item = Arc::new(Field::new("item", parts.data_type().clone(), true));
        let lists: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([0, 2, 1]), parts, None));
        file(&path, Compression::SNAPPY, vec![("id", Arc::new(Int64Array::from(vec![1, 2, 3]))), ("pictures", lists)]);
        let opened = PictureFile::open(&path, None).unwrap();
        assert_eq!(found(&opened), [wanted(b"", ""), wanted(b"one", ""), wanted(b"", "b/3.png")]);
        let others: Vec<usize> = opened.pictures().unwrap().map(|picture| picture.unwrap().others).collect();
        assert_eq!((others, opened.paths().unwrap()), (vec![0, 1, 0], vec!["b/3.png".to_owned()]));
        assert_eq!(opened.image_column(), ("pictures", "lists of a struct of `bytes`, `path`".to_owned()));
    }

    #[test]
    fn a_saved_data_set_of_hugging_face_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data-00000-of-00001.arrow");
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"one"[..]), Some(b"two")]));
        let labels: ArrayRef = Arc::new(Int64Array::from(vec![1, 0]));
        let columns = [("label", labels), ("image", images(bytes, Arc::new(StringArray::from(vec![None, Some("2.png")]))))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let hf = BTreeMap::from([("huggingface".to_owned(), HF.to_owned())]);
        let schema = Schema::clone(&batch.schema()).with_metadata(hf);
        let batch = batch.with_schema(Arc::new(schema)).unwrap();
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch.slice(0, 1)).unwrap();
        writer.finish().unwrap();
        let whole = writer.into_inner().unwrap();
        fs::write_atomic(&path, &whole).unwrap();
        let opened = PictureFile::open(&path, None).unwrap().with_labels(None).unwrap();
        assert_eq!((opened.rows(), opened.class_names()), (3, vec!["cat".to_owned(), "dog".to_owned()]));
        let row = |bytes: &[u8], path: &str, label| (bytes.to_vec(), path.to_owned(), number(label));
        assert_eq!(found(&opened), [row(b"one", "", 1), row(b"two", "2.png", 0), row(b"one", "", 1)]);
        for length in (0..whole.len() - 8).step_by(5) {
            fs::write_atomic(&path, &whole[..length]).unwrap();
            let cut = PictureFile::open(&path, None).and_then(|file| file.pictures()?.collect::<Result<Vec<_>>>());
            assert!(cut.is_err() || cut.unwrap().len() < 3, "cut at {length}");
        }
    }

    #[test]
    fn columns_that_hold_no_pictures_are_named_with_what_they_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
        let item = |array: &ArrayRef| Arc::new(Field::new("item", array.data_type().clone(), true));
        let rows: ArrayRef = Arc::new(ListArray::new(item(&values), OffsetBuffer::from_lengths([2, 2]), values, None));
        let pixels: ArrayRef = Arc::new(ListArray::new(item(&rows), OffsetBuffer::from_lengths([1, 1]), rows, None));
        let labels: ArrayRef = Arc::new(Int64Array::from(vec![0, 1]));
        file(&path, Compression::SNAPPY, vec![("image", pixels), ("label", labels)]);
        let text = PictureFile::open(&path, None).unwrap_err().to_string();
        assert!(
            text.ends_with("no column of images; its columns are `image` (lists of lists of integers), `label` (integers)"),
            "{text}"
        );
        let text = PictureFile::open(&path, Some("image")).unwrap_err().to_string();
        assert!(text.contains("column `image`") && text.contains("is lists of lists of integers; a struct"), "{text}");
    }

    #[test]
    fn names_of_classes_are_read_as_list_and_as_object() {
        let json = |names: &str| format!(r#"{{"info":{{"features":{{"x":[{{"a":1}}],"label":{{"names":{names}}}}}}},"y":2}}"#);
        let names = |text: &str| class_names(&json(text), "label");
        assert_eq!(names(r#"["a","b\u00e9"]"#).unwrap(), ["a", "bé"]);
        assert_eq!(names(r#"{"1":"b","0":"a"}"#).unwrap(), ["a", "b"]);
        assert_eq!(
            [names(r#"{"1":"b","2":"a"}"#), names("[1,2]"), names("null"), class_names(&json("[]"), "x")],
            [const { None }; 4]
        );
    }

    #[test]
    fn damaged_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        let bytes: ArrayRef = Arc::new((0..50).map(|i| Some(vec![i as u8; 9])).collect::<BinaryArray>());
        file(&path, Compression::UNCOMPRESSED, vec![("image", bytes)]);
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7) {
            let cut = dir.path().join("cut.parquet");
            fs::remove(&cut).unwrap();
            fs::create_new(&cut).unwrap().write_all(&whole[..length]).unwrap();
            assert!(matches!(PictureFile::open(&cut, None).unwrap_err(), ArtifactError::Damaged { .. }));
        }
        // The length of the first picture becomes 4 billion.
        let at = whole.windows(4).position(|w| w == [9, 0, 0, 0]).unwrap();
        let mut bad = whole;
        bad[at..at + 4].fill(0xff);
        fs::write_atomic(&path, &bad).unwrap();
        let file = PictureFile::open(&path, None).unwrap();
        let all: Vec<_> = file.pictures().unwrap().collect();
        assert!(all.len() == 1 && all[0].is_err(), "one error, then the end");
    }
}
