//! Published data sets in Parquet, in Hugging Face's layout and its relatives: a column of pictures, perhaps one of labels.
//!
//! **Files and splits** are as in `shards`. **Columns.** The picture is `image` or `img`, else the first column that can be one; the label is
//! `label`. `image_column` and `label_column` name others. **Labels** are the data set's numbers, their names come from the files'
//! metadata; −1 or nothing means that this image has no label.
//!
//! **Order.** As published. A set that is sorted by class shows it in its row numbers, and a `limit` then takes a few classes only:
//! shuffle such a set when writing it.
//!
//! What is inside Parquet is `artifact::parquet`'s business.

use std::sync::Arc;

use super::entry::{Entry, Format, Request};
use super::error::{DatasetError, Result};
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Labels, Record, open_lazily};
use super::shards::{Form, Shards};
use super::skip_broken::{SkipBroken, Tried, try_chunks};
use kinset_artifact::parquet::pictures::{FoundPicture, PictureFile};
use kinset_base::raw_file::RawFile;

/// Pictures that are decoded together. Fixed, so that the thread count decides nothing.
const CHUNK: usize = 64;

/// More classes without names than this are no classes but, say, numbers of products.
const MAX_CLASSES: i64 = 1 << 20;

const FORM: Form = Form { ending: "parquet", what: "Parquet file", alone: "data.parquet" };

pub(super) static DATASETS: &[Entry] = &[Entry::new(
    "parquet",
    "your own Parquet file or folder of shards: a column of images in Hugging Face's layout, perhaps `label`",
    "name the file or its folder with `root = \"PATH\"`",
    &Parquet,
)];

#[derive(Debug)]
struct Parquet;

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["skip_broken", "image_column", "label_column"]
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let Shards { root, files, ignored } = Shards::find(request, &FORM)?;
        let (source, place) = (request.source.clone(), root.display().to_string());
        let open = move |files: &[RawFile], _: &mut DigestOf| {
            let (labels, count, tried) = open(files, source.image_column.as_deref(), source.label_column.as_deref())?;
            let records = Box::new(SkipBroken::new(tried, place.clone(), source.skip_broken));
            Ok(DatasetReader { labels, count, records })
        };
        Ok(DatasetFiles { ignored, ..DatasetFiles::new(files, Some(root), open) })
    }
}

fn open(
    files: &[RawFile],
    image_column: Option<&str>,
    label_column: Option<&str>,
) -> Result<(Labels, usize, impl Iterator<Item = Result<Tried>> + Send + use<>)> {
    let mut shards = Vec::with_capacity(files.len());
    for file in files {
        let name: Arc<str> = file.name.as_str().into();
        shards.push((name, PictureFile::open(&file.path, image_column, label_column)?));
    }
    let Some((first, shard)) = shards.first() else { unreachable!("a data set is located with its files") };
    let labels = match (shard.has_labels(), shard.class_names()) {
        (true, []) => Labels::Numbered,
        (true, names) => Labels::Named(names.to_vec()),
        (false, _) => Labels::Absent { why: format!("`{first}` has no column `label`; name another with `label_column`") },
    };
    for (name, other) in &shards {
        if (other.has_labels(), other.class_names()) != (shard.has_labels(), shard.class_names()) {
            return Err(DatasetError::Shards { one: first.to_string(), other: name.to_string() });
        }
    }
    let classes = match &labels {
        Labels::Named(names) => names.len() as i64,
        _ => MAX_CLASSES,
    };
    let count = shards.iter().map(|(_, shard)| shard.rows()).fold(0, usize::saturating_add);
    let labeled = shard.has_labels();
    let chunks = shards.into_iter().flat_map(|(name, shard)| open_lazily(move || chunks(name, &shard)));
    let tried = try_chunks(chunks, move |(file, row, picture): Row| {
        let label = if labeled { Some(label(&file, row, picture.label, classes)?) } else { None };
        Ok(attempt(&file, row, picture, label))
    });
    Ok((labels, count, tried))
}

type Row = (Arc<str>, u64, FoundPicture);

/// The pictures of a file, chunk by chunk.
fn chunks(name: Arc<str>, shard: &PictureFile) -> Result<impl Iterator<Item = Result<Vec<Row>>> + Send + use<>> {
    let mut rows = (0..).zip(shard.pictures()?).map(move |(row, picture)| Ok((Arc::clone(&name), row, picture?)));
    Ok(std::iter::from_fn(move || {
        let chunk = rows.by_ref().take(CHUNK).collect::<Result<Vec<_>>>();
        (!matches!(&chunk, Ok(rows) if rows.is_empty())).then_some(chunk)
    }))
}

/// Hugging Face marks images without a label by −1.
fn label(file: &str, row: u64, label: Option<i64>, classes: i64) -> Result<i32> {
    let found = label.unwrap_or(-1);
    if !(-1..classes).contains(&found) {
        return Err(DatasetError::Label { file: file.to_owned(), row, found, classes: classes as usize });
    }
    Ok(found as i32)
}

fn attempt(file: &str, row: u64, picture: FoundPicture, label: Option<i32>) -> Tried {
    let FoundPicture { bytes, path, .. } = picture;
    let name = if path.is_empty() { format!("{file}, row {row}") } else { format!("{file}, row {row}: {path}") };
    let result = if bytes.is_empty() {
        Err("the table contains only its path, not its bytes".to_owned())
    } else {
        Record::encoded(bytes, None, (!path.is_empty()).then_some(path), label).map_err(|why| why.to_string())
    };
    (name, result)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::file_digest;
    use crate::reader::Content;
    use crate::{Source, registry};
    use kinset_artifact::image_codec::encode_png;
    use kinset_artifact::meta::Meta;
    use kinset_artifact::parquet::{Column, ColumnKind, TableWriter};
    use kinset_artifact::pixels::Pixels;
    use kinset_base::fault::Fault;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_store::digest::Digest;

    fn png(value: u8) -> Vec<u8> {
        encode_png("x", &Pixels::new(3, 2, 1, vec![value; 6])).unwrap()
    }

    /// Writes a file of pictures and labels; `names` are its classes.
    fn shard(path: &Path, pictures: &[(Vec<u8>, i32)], names: &[&str]) {
        fs::create_folders(path.parent().unwrap()).unwrap();
        let mut writer =
            TableWriter::create(path, &[("image", ColumnKind::Images), ("label", ColumnKind::I32)], Meta::new("x")).unwrap();
        if !names.is_empty() {
            let features = serde_json::json!({ "info": { "features": { "label": { "names": names } } } });
            writer.add_metadata("huggingface", features.to_string());
        }
        let bytes = pictures.iter().map(|(bytes, _)| bytes.clone()).collect();
        let paths = (0..pictures.len()).map(|row| format!("{row}.png")).collect();
        let labels = pictures.iter().map(|(_, label)| *label).collect();
        writer.write(vec![Column::Images { bytes, paths }, Column::I32(labels)]).unwrap();
        writer.finish().unwrap();
    }

    fn read(source: &Source) -> Result<(Labels, Vec<Record>)> {
        let opened = registry::locate(source, &DataPaths::new("", None, None))?.open(&mut file_digest)?;
        Ok((opened.labels, opened.records.collect::<Result<_>>()?))
    }

    fn labels(records: &[Record]) -> Vec<i32> {
        records.iter().map(|record| record.label.unwrap()).collect()
    }

    #[test]
    fn a_file_of_another_program_is_read_as_it_is() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dataset");
        let source = Source::named("parquet").root(golden.join("huggingface.parquet"));
        let (names, records) = read(&source).unwrap();
        assert_eq!(names, Labels::Named(vec!["gray".into(), "color".into()]));
        assert_eq!(labels(&records), [1, 0, 1, -1]);
        assert_eq!(records.iter().map(|record| record.channels).collect::<Vec<_>>(), [3, 1, 3, 3]);
        for record in &records {
            let bytes = fs::read(&golden.join(record.path.as_ref().unwrap())).unwrap();
            assert_eq!(record.content, Content::Encoded { digest: Digest::of(&bytes), bytes, damaged: false });
        }
        let (names, records) = read(&Source { label_column: Some("fine_label".into()), ..source.clone() }).unwrap();
        assert_eq!((names, labels(&records)), (Labels::Numbered, vec![5, 3, 4, 5]));
        let error = read(&Source { label_column: Some("coarse".into()), ..source }).unwrap_err();
        assert!(error.to_string().contains("no column `coarse`"), "{error}");
        assert!(error.hint().unwrap().contains("label_column"));
    }

    #[test]
    fn shards_come_in_the_order_of_names_and_splits_by_what_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, first: u8| {
            let pictures: Vec<_> = (first..first + 3).map(|i| (png(i), i32::from(i))).collect();
            shard(&dir.path().join(name), &pictures, &[]);
        };
        write("data/train-00001-of-00002.parquet", 10);
        write("data/train-00000-of-00002.parquet", 0);
        write("data/test-00000-of-00001.parquet", 20);
        write("extra/trainer.parquet", 30);
        fs::write_atomic(&dir.path().join("README.md"), b"words").unwrap();
        let read = |split: &str| read(&Source::named("parquet").root(dir.path()).split(split));
        let (names, records) = read("train").unwrap();
        assert_eq!((names, labels(&records)), (Labels::Numbered, vec![0, 1, 2, 10, 11, 12]));
        assert_eq!(labels(&read("train+test").unwrap().1), [0, 1, 2, 10, 11, 12, 20, 21, 22]);
        assert_eq!(labels(&read("extra").unwrap().1), [30, 31, 32]);
        assert_eq!(labels(&read("all").unwrap().1).len(), 12);
        let error = read("valid").unwrap_err();
        assert!(error.to_string().ends_with("(no Parquet file of a split `valid`)"), "{error}");
        let located = registry::locate(&Source::named("parquet").root(dir.path()), &DataPaths::new("", None, None)).unwrap();
        assert_eq!(located.ignored.endings, [(".md".to_owned(), 1)]);
    }

    #[test]
    fn the_name_of_a_single_file_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a.parquet", "b.pq"].map(|name| {
            shard(&dir.path().join(name), &[(png(1), 0)], &[]);
            let source = Source::named("parquet").root(dir.path().join(name));
            let located = registry::locate(&source, &DataPaths::new("", None, None)).unwrap();
            located.files.into_iter().map(|file| file.name).collect::<Vec<_>>()
        });
        assert_eq!(names[0], names[1]);
        let error = read(&Source::named("parquet").root(dir.path().join("a.parquet")).split("train")).unwrap_err();
        assert!(error.to_string().contains("must be `all`"), "{error}");
    }

    #[test]
    fn broken_pictures_are_named_by_row_or_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut pictures: Vec<_> = (0..100).map(|i| (png(i), 0)).collect();
        pictures[70].0.truncate(30);
        pictures[80].0.clear();
        shard(&dir.path().join("x.parquet"), &pictures, &["a"]);
        let mut source = Source::named("parquet").root(dir.path());
        let error = read(&source).unwrap_err().to_string();
        assert!(error.contains("2 of 100 images") && error.contains("`x.parquet, row 70: 70.png`"), "{error}");
        assert!(error.contains("`x.parquet, row 80: 80.png` (the table contains only its path, not its bytes)"), "{error}");
        source.skip_broken = true;
        assert_eq!(read(&source).unwrap().1.len(), 98);
    }

    #[test]
    fn labels_beyond_the_classes_and_files_that_disagree_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::named("parquet").root(dir.path());
        let one = dir.path().join("1.parquet");
        for label in [2, -2] {
            shard(&one, &[(png(0), 1), (png(1), label)], &["a", "b"]);
            let error = read(&source).unwrap_err().to_string();
            assert_eq!(error, format!("`1.parquet`: the label of image 1 is {label}, the data set has 2 classes"));
        }
        shard(&one, &[(png(0), i32::MAX)], &[]);
        assert!(matches!(read(&source), Err(DatasetError::Label { .. })));
        shard(&one, &[(png(0), 1)], &["a", "b"]);
        shard(&dir.path().join("2.parquet"), &[(png(0), 1)], &["b", "a"]);
        assert_eq!(
            read(&source).unwrap_err().to_string(),
            "`1.parquet` and `2.parquet` belong to one data set but have different labels or class names"
        );
    }

    #[test]
    fn places_without_tables_and_damaged_tables_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::named("parquet").root(dir.path());
        assert!(read(&source).unwrap_err().to_string().ends_with("(no Parquet file)"));
        let nowhere = Source::named("parquet").root(dir.path().join("x"));
        assert!(read(&nowhere).unwrap_err().to_string().ends_with("(no such folder)"));
        let path = dir.path().join("1.parquet");
        shard(&path, &[(png(0), 0)], &[]);
        let whole = fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(11) {
            fs::write_atomic(&path, &whole[..length]).unwrap();
            assert!(read(&source).is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
