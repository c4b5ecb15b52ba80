//! Pictures of published data sets in Parquet, as Hugging Face and others write them.
//!
//! The layout is a convention with variants: the column is called `image`, `img` or something else; it is a struct of `bytes` and
//! `path`, or bare bytes; labels are integers called `label` or `fine_label`, their names stand in the file's metadata. All of
//! Arrow's forms of text and bytes, dictionaries and the usual codecs are read.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use serde_json::Value;

use super::batches::BatchReader;
use super::column::{blobs, texts};
use super::footer::Footer;
use crate::error::{ArtifactError, Result, display};

/// Rows decoded at a time: pictures are large.
const BATCH: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPicture {
    /// Its file's bytes; empty if only a path is given.
    pub bytes: Vec<u8>,
    /// Its path as the data set gives it; may be empty.
    pub path: String,
    /// Its class, if the table has labels and this one is known.
    pub label: Option<i64>,
}

/// A Parquet file of pictures that was not written by kinset.
#[derive(Debug)]
pub struct PictureFile {
    footer: Footer,
    image: usize,
    label: Option<usize>,
    names: Vec<String>,
}

impl PictureFile {
    /// Opens a file and finds its columns. `image` and `label` name them; without a name, the picture is the first column that
    /// can be one (`image` and `img` first), and the label is `label`, if it is there.
    pub fn open(path: &Path, image: Option<&str>, label: Option<&str>) -> Result<Self> {
        let footer = Footer::read(path)?;
        let fields = footer.schema().fields();
        let likely = || {
            let usual = ["image", "img"].into_iter().filter_map(|name| fields.find(name)).map(|(place, _)| place);
            usual.chain(0..fields.len()).find(|place| holds_pictures(&fields[*place]))
        };
        let image = match (image, likely()) {
            (None, Some(place)) => place,
            (name, _) => footer.column(name.unwrap_or("image"))?.0,
        };
        let wrong = |place: usize, wanted: &str| {
            let field = &fields[place];
            footer.wrong_type(field.name(), field.data_type(), wanted)
        };
        if !holds_pictures(&fields[image]) {
            return Err(wrong(image, "a struct of `bytes` and `path`, or binary"));
        }
        let label = match label {
            Some(name) => Some(footer.column(name)?.0),
            None => fields.find("label").map(|(place, _)| place),
        };
        if let Some(place) = label.filter(|place| !fields[*place].data_type().is_integer()) {
            return Err(wrong(place, "integers"));
        }
        let names = label.map(|place| class_names(&footer, fields[place].name())).unwrap_or_default();
        Ok(Self { footer, image, label, names })
    }

    pub fn rows(&self) -> usize {
        self.footer.rows
    }

    pub fn has_labels(&self) -> bool {
        self.label.is_some()
    }

    /// The names of the classes, if the metadata give them.
    pub fn class_names(&self) -> &[String] {
        &self.names
    }

    /// The pictures, in order. Memory: a few hundred of them.
    pub fn pictures(&self) -> Result<Pictures> {
        let batches = self.footer.columns(std::iter::once(self.image).chain(self.label), BATCH)?;
        let name = |place: usize| self.footer.schema().field(place).name().clone();
        Ok(Pictures { batches, image: name(self.image), label: self.label.map(name), ready: Vec::new().into_iter() })
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
                convert(batch, &self.image, self.label.as_deref()).ok_or_else(|| {
                    let detail = format!("column `{}` does not hold what its declared type says", self.image);
                    ArtifactError::Damaged { path, detail }
                })
            });
            match pictures.transpose()? {
                Ok(pictures) => self.ready = pictures.into_iter(),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

fn convert(batch: &RecordBatch, image: &str, label: Option<&str>) -> Option<Vec<FoundPicture>> {
    let column = batch.column_by_name(image)?;
    let (bytes, paths) = match column.as_struct_opt() {
        Some(parts) => {
            let bytes = parts.column_by_name("bytes").map(blobs);
            let paths = parts.column_by_name("path").map(texts);
            let blank = || vec![Vec::new(); column.len()];
            (bytes.unwrap_or_else(|| Some(blank()))?, paths.unwrap_or_else(|| Some(vec![String::new(); column.len()]))?)
        }
        None => (blobs(column)?, vec![String::new(); column.len()]),
    };
    let labels = match label {
        Some(label) => labels(batch.column_by_name(label)?)?,
        None => vec![None; column.len()],
    };
    let rows = bytes.into_iter().zip(paths).zip(labels);
    Some(rows.map(|((bytes, path), label)| FoundPicture { bytes, path, label }).collect())
}

fn labels(array: &ArrayRef) -> Option<Vec<Option<i64>>> {
    let array = cast(array, &DataType::Int64).ok()?;
    Some(array.as_primitive_opt::<Int64Type>()?.iter().collect())
}

fn is_binary(kind: &DataType) -> bool {
    match kind {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Dictionary(_, values) => is_binary(values),
        _ => false,
    }
}

fn holds_pictures(field: &Field) -> bool {
    match field.data_type() {
        DataType::Struct(parts) => parts.iter().any(|part| part.name() == "bytes" && is_binary(part.data_type())),
        kind => is_binary(kind),
    }
}

/// The names of a label's classes: `info.features.<column>.names` under the key `huggingface`, as a list or as an object with
/// numbers for keys.
fn class_names(footer: &Footer, column: &str) -> Vec<String> {
    let Some(json) = footer.entry("huggingface").and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return Vec::new();
    };
    let names = &json["info"]["features"][column]["names"];
    let text = |name: &Value| name.as_str().map(str::to_owned);
    match names {
        Value::Array(names) => names.iter().map(text).collect::<Option<_>>().unwrap_or_default(),
        Value::Object(names) => {
            (0..names.len()).map(|i| names.get(&i.to_string()).and_then(text)).collect::<Option<_>>().unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BinaryViewArray, DictionaryArray, Int8Array, Int64Array, LargeBinaryArray, LargeStringArray, StringArray,
        StringViewArray, StructArray,
    };
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

    fn found(file: &PictureFile) -> Vec<(Vec<u8>, String, Option<i64>)> {
        file.pictures().unwrap().map(|p| p.unwrap()).map(|p| (p.bytes, p.path, p.label)).collect()
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
            let file = PictureFile::open(&path, None, None).unwrap();
            assert_eq!((file.rows(), file.class_names()), (3, &["cat".to_owned(), "dog".to_owned()][..]));
            let wanted = [
                (b"one".to_vec(), "a/1.png".to_owned(), Some(1)),
                (vec![], "b/2.png".to_owned(), Some(0)),
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
        let plain = PictureFile::open(&path, None, None).unwrap();
        assert!(!plain.has_labels());
        let named = PictureFile::open(&path, Some("picture"), Some("fine_label")).unwrap();
        let all = found(&named);
        assert_eq!((all.len(), &all[999]), (1000, &(vec![231; 3], String::new(), Some(999 % 7))));
        assert!(named.class_names().is_empty());
        let refuse = |image, label| PictureFile::open(&path, image, label).unwrap_err().to_string();
        assert!(refuse(Some("image"), None).contains("no column `image`; its columns are `picture`, `fine_label`"));
        assert!(refuse(Some("fine_label"), None).contains("binary"));
        assert!(refuse(None, Some("picture")).contains("integers"));
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
            assert!(matches!(PictureFile::open(&cut, None, None).unwrap_err(), ArtifactError::Damaged { .. }));
        }
        // The length of the first picture becomes 4 billion.
        let at = whole.windows(4).position(|w| w == [9, 0, 0, 0]).unwrap();
        let mut bad = whole;
        bad[at..at + 4].fill(0xff);
        fs::write_atomic(&path, &bad).unwrap();
        let file = PictureFile::open(&path, None, None).unwrap();
        let all: Vec<_> = file.pictures().unwrap().collect();
        assert!(all.len() == 1 && all[0].is_err(), "one error, then the end");
    }
}
