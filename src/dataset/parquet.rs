//! Published data sets in Parquet, in Hugging Face's layout and its relatives: a column of pictures, perhaps one of labels; and what
//! their library's `save_to_disk` writes, Arrow files of the same layout.
//!
//! **Files and splits** are as in `shards`. **Columns.** The picture is `image` or `img`, else the first column that can be one; the label is
//! `label`. `image_column` and `label_column` name others. A picture that is given by its path is read from below its table's
//! folder. **Labels** are the data set's numbers, their names come from the files' metadata; texts and truth values name the classes
//! themselves (`labels_by_name`). −1, NaN or nothing means that this image has no label. A column `label` that cannot be labels is
//! not read, and it is said why.
//!
//! **Order.** As published. A set that is sorted by class shows it in its row numbers, and a `limit` then takes a few classes only:
//! shuffle such a set when writing it.
//!
//! What is inside Parquet is `artifact::parquet`'s business.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{Entry, Format, Request};
use super::error::{DatasetError, FaultyFiles, Result};
use super::labels_by_name::{Classes, LabelScan, MAX_CLASSES};
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Ignored, Labels, Record, open_lazily};
use super::shards::{Form, Shards};
use super::skip_broken::{SkipBroken, Tried, try_chunks};
use super::table_paths::beside;
use kinset_artifact::image_codec::Look;
use kinset_artifact::parquet::arrow_files;
use kinset_artifact::parquet::pictures::{FoundLabel, FoundPicture, PictureFile};
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::reading::Reading;
use kinset_base::unit::count;
use kinset_store::digest::Digest;

/// Pictures that are decoded together. Fixed, so that the thread count decides nothing.
const CHUNK: usize = 64;
/// Longer files are no pictures.
const MAX_FILE: u64 = 1 << 28;

const FORM: Form = Form { endings: &["parquet", "arrow"], what: "Parquet file", alone: "data.parquet" };

pub(super) static DATASETS: &[Entry] = &[Entry::new(
    "parquet",
    "your own Parquet file or folder of shards: a column of images in Hugging Face's layout, perhaps `label`",
    "name the file or its folder with `root = \"PATH\"`",
    &Parquet,
)];

#[derive(Debug)]
struct Parquet;

/// The columns that a source names.
#[derive(Clone, Debug)]
struct Columns {
    image: Option<String>,
    label: Option<String>,
}

impl Columns {
    fn open(&self, table: &Path) -> Result<PictureFile> {
        let file = PictureFile::open(table, self.image.as_deref()).and_then(|file| file.with_labels(self.label.as_deref()));
        file.map_err(DatasetError::PictureTable)
    }
}

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["part", "skip_broken", "orientation", "background", "image_column", "label_column"]
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let Shards { root, mut files, mut ignored } = Shards::find(request, &FORM)?;
        only_saved(&mut files, &mut ignored)?;
        let source = request.source;
        files = source.part_of(files)?;
        let columns = Columns { image: source.image_column.clone(), label: source.label_column.clone() };
        let tables = files.len();
        files.extend(named_files(&files, &columns, &mut ignored)?);
        let (place, skip_broken, look) = (root.display().to_string(), source.skip_broken, source.look()?);
        let open = move |files: &Arc<[RawFile]>, digest_of: &mut DigestOf| {
            let (tables, named) = files.split_at(tables);
            let named = named.iter().map(|file| Ok((file.path.clone(), digest_of(file)?))).collect::<Result<_>>()?;
            let (labels, count, tried) = open(tables, named, &columns, look)?;
            let records = SkipBroken::new(tried, place.clone(), skip_broken).looking(look).saying(chosen(tables, &columns)?);
            Ok(DatasetReader { labels, count, records: Box::new(records) })
        };
        Ok(DatasetFiles { ignored, ..DatasetFiles::new(files, Some(root), open) })
    }
}

/// Of a folder of Hugging Face's `save_to_disk` only the files that it lists: what `map` and `filter` kept lies beside them.
fn only_saved(files: &mut Vec<RawFile>, ignored: &mut Ignored) -> Result<()> {
    let mut folders = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.extension().is_some_and(|ending| ending == "arrow")) {
        if let Some(folder) = file.path.parent()
            && !folders.contains_key(folder)
        {
            let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            folders.insert(folder.to_owned(), arrow_files::files(here).map_err(DatasetError::PictureTable)?);
        }
    }
    files.retain(|file| {
        let listed = file.path.parent().and_then(|folder| folders.get(folder)?.as_ref());
        let keep = listed.is_none_or(|listed| listed.iter().any(|saved| saved.file_name() == file.path.file_name()));
        if !keep {
            ignored.add(&file.path);
        }
        keep
    });
    Ok(())
}

/// The files that tables name instead of holding their bytes, each once: what they say belongs to the data set's key.
fn named_files(tables: &[RawFile], columns: &Columns, ignored: &mut Ignored) -> Result<Vec<RawFile>> {
    let mut files = BTreeMap::new();
    for table in tables {
        // What is wrong with a table is told when it is read.
        let Ok(names) = PictureFile::open(&table.path, columns.image.as_deref()).and_then(|file| file.paths()) else {
            continue;
        };
        let folder = table.name.rfind('/').map_or("", |slash| &table.name[..=slash]);
        for name in names {
            if let Ok(path) = beside(&table.path, &name)
                && !files.contains_key(&path)
                && let Some(file) = RawFile::find(format!("{folder}{name}"), path)?
            {
                files.insert(file.path.clone(), file);
            }
        }
    }
    for path in files.keys() {
        let ending = path.extension().map(|ending| format!(".{}", ending.to_string_lossy().to_lowercase()));
        let kind = ignored.endings.iter_mut().find(|(kind, _)| ending.as_ref() == Some(kind));
        if let Some((_, count)) = kind {
            *count = count.saturating_sub(1);
        }
    }
    ignored.endings.retain(|(_, count)| *count > 0);
    Ok(files.into_values().collect())
}

/// The columns that are read.
fn chosen(tables: &[RawFile], columns: &Columns) -> Result<Reading> {
    let mut reading = Reading::default();
    if let Some(table) = tables.first() {
        let file = columns.open(&table.path)?;
        let (column, holds) = file.image_column();
        if holds.starts_with("lists") {
            reading.doubt(format!("the column `{column}` holds lists, of which the first image is read; give each image a row of its own to read all"));
        }
        reading.took(format!("images from the column `{column}` ({holds})"));
        if let Some((column, holds)) = file.label_column().filter(|_| file.can_be_labels()) {
            reading.took(format!("labels from the column `{column}` ({holds})"));
        }
    }
    Ok(reading)
}

fn open(
    tables: &[RawFile],
    named: BTreeMap<PathBuf, Digest>,
    columns: &Columns,
    look: Look,
) -> Result<(Labels, usize, impl Iterator<Item = Result<Tried>> + Send + use<>)> {
    let Some(first) = tables.first() else { unreachable!("a data set is located with its files") };
    let (mut scan, mut images, mut unfit, mut known) = (LabelScan::default(), 0_usize, None, None);
    let mut faulty = FaultyFiles::default();
    for table in tables {
        let Some(file) = faulty.take(columns.open(&table.path))? else { continue };
        images = images.saturating_add(file.rows());
        let found = (file.label_column().is_some(), file.class_names());
        let names = match &known {
            None => &known.insert(found).1,
            Some(first) if *first == found => &first.1,
            Some(_) => return Err(DatasetError::Shards { one: first.name.to_string(), other: table.name.to_string() }),
        };
        let Some(batches) = faulty.take(file.labels().map_err(DatasetError::PictureTable))? else { continue };
        match batches {
            None => unfit = file.label_column().map(|(name, holds)| format!("the column `{name}` holds {holds}")).or(unfit),
            Some(batches) if names.is_empty() => {
                for batch in batches {
                    let Some(batch) = faulty.take(batch.map_err(DatasetError::PictureTable))? else { break };
                    batch.iter().flatten().for_each(|label| scan.see(label));
                }
            }
            Some(_) => {}
        }
    }
    faulty.finish()?;
    let (labelled, names) = known.unwrap_or_default();
    let place = format!("the column `{}`", columns.label.as_deref().unwrap_or("label"));
    let declared = Some(names.len()).filter(|classes| *classes > 0);
    let classes = match (labelled, unfit) {
        (false, _) => {
            Classes::None { why: format!("`{}` has no column `label`; name another with `label_column`", first.name) }
        }
        (_, Some(why)) => Classes::None { why: format!("{why}, which cannot be labels") },
        _ if names.is_empty() => scan.finish(&place),
        _ if names.len() > MAX_CLASSES => {
            let (found, most) = (count(names.len() as u64), count(MAX_CLASSES as u64));
            Classes::None { why: format!("{place} has {found} names of classes; at most {most} are read") }
        }
        _ => Classes::Numbered,
    };
    let labels = match &classes {
        Classes::Numbered if declared.is_some() => Labels::Named(names),
        other => other.labels(),
    };
    // Tables are opened again when their turn has come, so that the footer of one is in memory and not of all.
    let tables: Vec<(Arc<str>, PathBuf)> = tables.iter().map(|file| (Arc::from(&*file.name), file.path.clone())).collect();
    let columns = columns.clone();
    let chunks = tables.into_iter().flat_map(move |(name, path)| {
        let file = columns.open(&path);
        open_lazily(move || chunks(name, path.into(), &file?))
    });
    let tried = try_chunks(chunks, move |row: Row| {
        let label = match (&classes, declared) {
            (Classes::None { .. }, _) => None,
            (_, Some(classes)) => Some(declared_label(&row, classes)?),
            (classes, None) => Some(classes.number(row.picture.label.as_ref())),
        };
        attempt(row, label, &named, look)
    });
    Ok((labels, images, tried))
}

struct Row {
    table: Arc<str>,
    /// Where the table lies.
    path: Arc<Path>,
    number: u64,
    picture: FoundPicture,
}

/// The pictures of a file, chunk by chunk.
fn chunks(
    table: Arc<str>,
    path: Arc<Path>,
    file: &PictureFile,
) -> Result<impl Iterator<Item = Result<Vec<Row>>> + Send + use<>> {
    let pictures = file.pictures().map_err(DatasetError::PictureTable)?;
    let mut rows = (0..).zip(pictures).map(move |(number, picture)| {
        let picture = picture.map_err(DatasetError::PictureTable)?;
        Ok(Row { table: Arc::clone(&table), path: Arc::clone(&path), number, picture })
    });
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        let chunk = (!ended).then(|| rows.by_ref().take(CHUNK).collect::<Result<Vec<_>>>())?;
        // Nothing of a table is read after a fault in it.
        ended = chunk.is_err();
        (!matches!(&chunk, Ok(rows) if rows.is_empty())).then_some(chunk)
    }))
}

/// A label whose class has a name in the metadata. Hugging Face marks images without one by −1.
fn declared_label(row: &Row, classes: usize) -> Result<i32> {
    let found = if let Some(FoundLabel::Number(number)) = row.picture.label { number } else { -1 };
    if !(-1..classes as i64).contains(&found) {
        return Err(DatasetError::Label { file: row.table.to_string(), row: row.number, found, classes });
    }
    Ok(found as i32)
}

fn attempt(row: Row, label: Option<i32>, named: &BTreeMap<PathBuf, Digest>, look: Look) -> Result<Tried> {
    let FoundPicture { bytes, path, .. } = row.picture;
    let mut name = format!("{}, row {}", row.table, row.number);
    if !path.is_empty() {
        name.push_str(&format!(": {path}"));
    }
    let found = match (bytes.is_empty(), path.is_empty()) {
        (false, _) => Ok((bytes, None)),
        (true, true) => Err("the row has no image".to_owned()),
        (true, false) => named_file(&row.path, &path, named)?,
    };
    let path = (!path.is_empty()).then_some(path);
    let record =
        found.and_then(|(bytes, digest)| Record::encoded(bytes, digest, path, label, look).map_err(|why| why.to_string()));
    Ok((name, record))
}

type Found = std::result::Result<(Vec<u8>, Option<Digest>), String>;

/// The bytes of a file that a table names, and their digest.
fn named_file(table: &Path, name: &str, named: &BTreeMap<PathBuf, Digest>) -> Result<Found> {
    let path = match beside(table, name) {
        Ok(path) => path,
        Err(why) => return Ok(Err(why)),
    };
    let Some(digest) = named.get(&path) else {
        return Ok(Err("the table holds only its path, and there is no such file below the table's folder".to_owned()));
    };
    let bytes = fs::read_at_most(&path, MAX_FILE)?;
    if Digest::of(&bytes) != *digest {
        return Err(DatasetError::Changed { file: path.display().to_string() });
    }
    Ok(Ok((bytes, Some(*digest))))
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
            located.files.iter().map(|file| file.name.clone()).collect::<Vec<_>>()
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
        assert!(
            error.contains("`x.parquet, row 80: 80.png` (the table holds only its path, and there is no such file"),
            "{error}"
        );
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
        shard(&one, &[(png(0), 1)], &["a", "b"]);
        shard(&dir.path().join("2.parquet"), &[(png(0), 1)], &["b", "a"]);
        assert_eq!(
            read(&source).unwrap_err().to_string(),
            "`1.parquet` and `2.parquet` belong to one data set but have different labels or class names"
        );
    }

    fn write(path: &Path, columns: &[(&str, ColumnKind)], rows: Vec<Column>) {
        let mut writer = TableWriter::create(path, columns, Meta::new("x")).unwrap();
        writer.write(rows).unwrap();
        writer.finish().unwrap();
    }

    /// Pictures with a column `label` of any kind.
    fn labelled(path: &Path, labels: Column, kind: ColumnKind) {
        let bytes: Vec<_> = (0..labels.len()).map(|i| png(i as u8)).collect();
        let paths = vec![String::new(); bytes.len()];
        write(path, &[("image", ColumnKind::Images), ("label", kind)], vec![Column::Images { bytes, paths }, labels]);
    }

    #[test]
    fn texts_are_numbered_by_name_over_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::named("parquet").root(dir.path());
        let texts = |texts: &[&str]| Column::Text(texts.iter().map(|&text| text.to_owned()).collect());
        labelled(&dir.path().join("1.parquet"), texts(&["dog", "ape"]), ColumnKind::Text);
        labelled(&dir.path().join("2.parquet"), texts(&["", "cat", "ape"]), ColumnKind::Text);
        let (names, records) = read(&source).unwrap();
        assert_eq!(names, Labels::Named(vec!["ape".into(), "cat".into(), "dog".into()]));
        assert_eq!(labels(&records), [2, 0, -1, 1, 0]);
    }

    #[test]
    fn floats_are_numbers_and_what_cannot_be_labels_costs_only_the_labels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.parquet");
        let source = Source::named("parquet").root(dir.path());
        labelled(&path, Column::F64(vec![1.0, f64::NAN, 0.0]), ColumnKind::F64);
        let (names, records) = read(&source).unwrap();
        assert_eq!((names, labels(&records)), (Labels::Numbered, vec![1, -1, 0]));
        labelled(&path, Column::Bool(vec![true, false, true]), ColumnKind::Bool);
        let (names, records) = read(&source).unwrap();
        assert_eq!((names, labels(&records)), (Labels::Named(vec!["false".into(), "true".into()]), vec![1, 0, 1]));
        let vectors = (Column::Vectors { width: 2, values: vec![0.0; 4] }, ColumnKind::Vectors { width: 2 });
        let cases = [
            (
                Column::F64(vec![0.25, 1.0]),
                ColumnKind::F64,
                "the column `label` holds numbers such as 0.25, which cannot be classes",
            ),
            (Column::I32(vec![-1, -1]), ColumnKind::I32, "the column `label` has no value for any image"),
            (vectors.0, vectors.1, "the column `label` holds lists of numbers, which cannot be labels"),
        ];
        for (column, kind, wanted) in cases {
            labelled(&path, column, kind);
            let (names, records) = read(&source).unwrap();
            assert_eq!((names, records.len(), records[0].label), (Labels::Absent { why: wanted.into() }, 2, None));
        }
        let named = Source { label_column: Some("label".into()), ..source };
        let error = read(&named).unwrap_err();
        assert!(error.to_string().ends_with("is lists of numbers; integers or text was expected"), "{error}");
        assert!(error.hint().unwrap().contains("`label_column`"), "a column that was named must do");
    }

    #[test]
    fn pictures_are_read_from_the_paths_that_a_table_names() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::named("parquet").root(dir.path());
        fs::create_folders(&dir.path().join("sub/a")).unwrap();
        for (name, value) in [("sub/a/1.png", 1), ("sub/2.png", 2), ("sub/other.png", 9)] {
            fs::write_atomic(&dir.path().join(name), &png(value)).unwrap();
        }
        let table = |paths: &[&str]| {
            let paths = Column::Text(paths.iter().map(|&path| path.to_owned()).collect());
            write(&dir.path().join("sub/t.parquet"), &[("image", ColumnKind::Text)], vec![paths]);
        };
        table(&["2.png", "a/1.png", "2.png"]);
        let (_, records) = read(&source).unwrap();
        let digests: Vec<_> = records
            .iter()
            .map(|record| match &record.content {
                Content::Encoded { digest, .. } => *digest,
                Content::Raw(_) => panic!(),
            })
            .collect();
        assert_eq!(digests, [2, 1, 2].map(|value| Digest::of(&png(value))));
        let located = registry::locate(&source, &DataPaths::new("", None, None)).unwrap();
        let names: Vec<_> = located.files.iter().map(|file| file.name.to_string()).collect();
        assert_eq!(names, ["sub/t.parquet", "sub/2.png", "sub/a/1.png"], "what they say belongs to the key");
        assert_eq!(located.ignored.endings, [(".png".to_owned(), 1)]);
        // A picture that is another one than when it was hashed.
        let mut stale = |file: &RawFile| if file.bytes > 0 { Ok(Digest::of(b"before")) } else { file_digest(file) };
        let mut records = located.open(&mut stale).unwrap().records;
        let Some(Err(DatasetError::Unreadable { faults, first })) = records.next() else { panic!("both have changed") };
        assert!(faults.len() == 2 && matches!(*first, DatasetError::Changed { .. }), "{faults:?}");
        table(&["2.png", "gone.png", "../2.png", "https://x.org/2.png", ""]);
        let error = read(&source).unwrap_err().to_string();
        for wanted in [
            "4 of 5 images",
            "row 1: gone.png` (the table holds only its path",
            "leads out",
            "is a URL",
            "row 4` (the row has no image)",
        ] {
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn of_a_saved_data_set_the_listed_files_are_read_and_no_caches() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a/data-0.arrow", "a/cache-9f.arrow", "b/other.arrow"];
        for name in names {
            fs::create_folders(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write_atomic(&dir.path().join(name), b"x").unwrap();
        }
        let state = |text: &str| fs::write_atomic(&dir.path().join("a/state.json"), text.as_bytes()).unwrap();
        state(r#"{"_data_files": [{"filename": "data-0.arrow"}]}"#);
        let find = |name: &str| RawFile::find(name, dir.path().join(name)).unwrap().unwrap();
        let (mut files, mut ignored) = (names.map(find).to_vec(), Ignored::default());
        only_saved(&mut files, &mut ignored).unwrap();
        let kept: Vec<_> = files.iter().map(|file| file.name.to_string()).collect();
        assert_eq!((kept, ignored.count()), (vec![names[0].to_owned(), names[2].to_owned()], 1));
        state(r#"{"_data_files": [{"filename": "data-0.arrow"}], "_indices_files": [{"filename": "i.arrow"}]}"#);
        assert!(only_saved(&mut files, &mut ignored).unwrap_err().to_string().contains("flatten_indices"));
    }

    #[test]
    fn a_table_without_pictures_says_what_its_columns_hold() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.parquet");
        let source = Source::named("parquet").root(dir.path());
        write(&path, &[("image", ColumnKind::I32)], vec![Column::I32(vec![1, 2])]);
        let error = read(&source).unwrap_err();
        assert!(error.to_string().ends_with("has no column of images; its columns are `image` (integers)"), "{error}");
        assert!(error.hint().unwrap().contains("`image_column`"));
    }

    #[test]
    fn a_million_names_are_none_of_classes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.parquet");
        let names: Vec<String> = (0..1_000_000).map(|number| format!("class_{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        shard(&path, &[(png(1), 0), (png(2), 7)], &names);
        let (labels, records) = read(&Source::named("parquet").root(dir.path())).unwrap();
        let Labels::Absent { why } = labels else { panic!("{} names are taken", names.len()) };
        assert_eq!(why, "the column `label` has 1,000,000 names of classes; at most 524,288 are read");
        assert!(records.len() == 2 && records.iter().all(|record| record.label.is_none()));
    }

    #[test]
    fn all_damaged_tables_are_named_whether_their_ends_or_their_pages_are_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let pictures: Vec<_> = (0..20).map(|value| (png(value), 0)).collect();
        for name in ["a.parquet", "b.parquet", "c.parquet", "d.parquet"] {
            shard(&path(name), &pictures, &["cat"]);
        }
        let whole = fs::read(&path("a.parquet")).unwrap();
        let cut =
            |names: &[&str]| names.iter().for_each(|name| fs::write_atomic(&path(name), &whole[..whole.len() / 2]).unwrap());
        let refused = || read(&Source::named("parquet").root(dir.path())).unwrap_err();
        // The first page's header, which only reading its rows looks at.
        let mut pages = whole.clone();
        pages[4..24].fill(0xff);
        for name in ["b.parquet", "d.parquet"] {
            fs::write_atomic(&path(name), &pages).unwrap();
        }
        let error = refused();
        assert!(error.to_string().starts_with("2 files cannot be read: "), "{error}");
        assert!(error.to_string().contains("b.parquet") && error.to_string().contains("d.parquet"), "{error}");
        assert_eq!(error.exit(), kinset_base::fault::Exit::Data);
        cut(&["a.parquet", "c.parquet"]);
        let error = refused().to_string();
        assert!(error.contains("a.parquet") && error.contains("c.parquet"), "{error}");
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
