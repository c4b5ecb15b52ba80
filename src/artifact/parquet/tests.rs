//! Tables to disk and back, and what happens to damaged ones.

use std::path::Path;

use arrow::array::{ArrayRef, AsArray, Float32Array, RecordBatch, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;
use std::sync::{Arc, LazyLock};

use super::{Column, ColumnKind, TableReader, TableWriter};
use crate::error::ArtifactError;
use crate::meta::Meta;
use kinset_base::fs;
use kinset_store::digest::Digest;

const SCHEMA: [(&str, ColumnKind); 9] = [
    ("id", ColumnKind::Text),
    ("row", ColumnKind::U32),
    ("i", ColumnKind::I32),
    ("l", ColumnKind::I64),
    ("f", ColumnKind::F32),
    ("d", ColumnKind::F64),
    ("v", ColumnKind::Vectors { width: 3 }),
    ("n", ColumnKind::IndexLists { width: 2 }),
    ("image", ColumnKind::Images),
];
const NAMES: [&str; 9] = ["id", "row", "i", "l", "f", "d", "v", "n", "image"];

/// Some rows of every kind.
pub(super) fn rows(range: std::ops::Range<usize>) -> Vec<Column> {
    let number = |i: usize| (i as f32).sin();
    vec![
        Column::Text(range.clone().map(|i| format!("id{i:04}")).collect()),
        Column::U32(range.clone().map(|i| i as u32).collect()),
        Column::I32(range.clone().map(|i| 5 - i as i32).collect()),
        Column::I64(range.clone().map(|i| (i as i64) << 40).collect()),
        Column::F32(range.clone().map(number).collect()),
        Column::F64(range.clone().map(|i| f64::from(number(i)) / 3.0).collect()),
        Column::Vectors { width: 3, values: range.clone().flat_map(|i| [number(i), 0.0, -1.0]).collect() },
        Column::IndexLists { width: 2, values: range.clone().flat_map(|i| [i as u32, 7]).collect() },
        Column::Images {
            bytes: range.clone().map(|i| vec![i as u8; i % 5]).collect(),
            paths: range.map(|i| if i % 3 == 0 { String::new() } else { format!("a/{i}.png") }).collect(),
        },
    ]
}

pub(super) fn write(path: &Path, batches: &[usize], meta: Meta) -> Digest {
    let mut writer = TableWriter::create(path, &SCHEMA, meta).unwrap();
    let mut start = 0;
    for count in batches {
        writer.write(rows(start..start + count)).unwrap();
        start += count;
    }
    writer.finish().unwrap()
}

pub(super) fn meta() -> Meta {
    Meta::new("thing").with("k", 3)
}

#[test]
fn a_table_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for count in [0, 1, 20, 9000] {
        let path = dir.path().join("t.parquet");
        write(&path, &[count], meta());
        let reader = TableReader::open(&path, "thing").unwrap();
        assert_eq!((reader.rows(), reader.meta()), (count, &meta()));
        assert_eq!(NAMES.map(|name| (name, reader.kind(name).unwrap())), SCHEMA);
        assert_eq!(reader.read(&NAMES).unwrap(), rows(0..count));
    }
}

#[test]
fn columns_groups_and_rows_can_be_read_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let schema = [("id", ColumnKind::Text), ("v", ColumnKind::Vectors { width: 512 })];
    let mut writer = TableWriter::create(&path, &schema, meta()).unwrap();
    let ids = |range: std::ops::Range<usize>| Column::Text(range.map(|i| format!("{i}")).collect());
    let vectors = |range: std::ops::Range<usize>| Column::Vectors {
        width: 512,
        values: range.flat_map(|i| vec![i as f32; 512]).collect(),
    };
    for start in (0..40_000).step_by(10_000) {
        writer.write(vec![ids(start..start + 10_000), vectors(start..start + 10_000)]).unwrap();
    }
    writer.finish().unwrap();
    let reader = TableReader::open(&path, "thing").unwrap();
    assert_eq!(reader.groups(), 2, "2 KiB per row: a group ends after 64 MiB");
    assert_eq!(reader.read(&["v", "id"]).unwrap(), [vectors(0..40_000), ids(0..40_000)], "in the order asked for");
    let first = reader.group_rows(0);
    assert_eq!(first + reader.group_rows(1), 40_000);
    assert_eq!(reader.read_group(1, &["id"]).unwrap(), [ids(first..40_000)]);
    assert!(matches!(reader.read(&["w"]).unwrap_err(), ArtifactError::NoColumn { .. }));
    assert!(matches!(reader.index_lists("v").unwrap_err(), ArtifactError::WrongType { .. }));
}

#[test]
fn a_picture_is_found_in_its_page() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let mut writer = TableWriter::create(&path, &[("image", ColumnKind::Images)], meta()).unwrap();
    // 90 MB: many pages, three row groups. Every fourth one was left outside.
    let picture = |i: usize| if i.is_multiple_of(4) { vec![] } else { (0..30_000).map(|j| (i + j) as u8).collect() };
    let name = |i: usize| format!("{i}.png");
    for start in (0..4000).step_by(100) {
        let bytes = (start..start + 100).map(picture).collect();
        writer.write(vec![Column::Images { bytes, paths: (start..start + 100).map(name).collect() }]).unwrap();
    }
    writer.finish().unwrap();
    let reader = TableReader::open(&path, "thing").unwrap();
    assert_eq!(reader.groups(), 3, "a group of pictures ends after 32 MiB");
    for row in [0, 1, 2, 3, 99, 1234, reader.group_rows(0) - 1, reader.group_rows(0), reader.group_rows(0) + 1, 3999] {
        let path = if row % 4 == 0 { name(row) } else { String::new() };
        assert_eq!(reader.picture("image", row).unwrap(), (picture(row), path), "row {row}");
    }
    assert!(reader.picture("image", 4000).is_err());
    assert!(reader.picture("id", 0).is_err());
}

#[test]
fn the_digest_made_from_a_file_is_the_one_its_writer_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let plain = SCHEMA.len() - 1;
    for count in [0, 1, 20, 9000] {
        let mut writer = TableWriter::create(&path, &SCHEMA[..plain], meta().with("recall", 0.1 + 0.2)).unwrap();
        let mut columns = rows(0..count);
        columns.truncate(plain);
        writer.write(columns).unwrap();
        let written = writer.finish().unwrap();
        assert_eq!(TableReader::open(&path, "thing").unwrap().content().unwrap(), Some(written), "{count} rows");
    }
    write(&path, &[20], meta());
    assert_eq!(
        TableReader::open(&path, "thing").unwrap().content().unwrap(),
        None,
        "pictures are digested before they are encoded"
    );
}

#[test]
fn the_digest_sees_content_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let digest = write(&path, &[9000], meta());
    let bytes = fs::read(&path).unwrap();
    assert_eq!(write(&path, &[1, 0, 8191, 808], meta()), digest);
    assert_eq!(fs::read(&path).unwrap(), bytes, "rows are cut again, so even the bytes are the same");
    assert_eq!(write(&path, &[9000], meta().about("source", "elsewhere")), digest);
    assert_ne!(write(&path, &[8999], meta()), digest);
    assert_ne!(write(&path, &[9000], meta().with("metric", "cosine")), digest);
    assert_ne!(write(&path, &[9000], Meta::new("other").with("k", 3)), digest);
}

#[test]
fn a_renamed_folder_of_packed_pictures_is_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    let digest = |bytes: &[u8], path: &str| {
        let schema = [("image", ColumnKind::Images)];
        let mut writer = TableWriter::create(&dir.path().join("i.parquet"), &schema, meta()).unwrap();
        writer.write(vec![Column::Images { bytes: vec![bytes.to_vec()], paths: vec![path.into()] }]).unwrap();
        writer.finish().unwrap()
    };
    assert_eq!(digest(b"png", "cats/1.png"), digest(b"png", "dogs/1.png"));
    assert_ne!(digest(b"png", "cats/1.png"), digest(b"jpg", "cats/1.png"));
    assert_ne!(digest(b"", "cats/1.png"), digest(b"", "dogs/1.png"), "left outside, the path is all there is");
}

#[test]
fn the_format_is_pinned() {
    // If one of these moves, every cached result of every user is made again: raise `meta::FORMAT` with it, and say so.
    let dir = tempfile::tempdir().unwrap();
    let digest = write(&dir.path().join("t.parquet"), &[3], meta());
    assert_eq!(digest.hex(), "98939ea3ec35e8fe5273d3c193ae0f4363b8bc722e8cfd6eaba2252346b24b0b");
    assert_eq!(
        write(&dir.path().join("t.parquet"), &[0], Meta::new("thing")).hex(),
        "06c8bbb21778ba06f685cbd7118ffce6e38917c13a744f9f0ef68d75ad16f805"
    );
}

/// The table as another tool would write it again: other codec, other row groups.
fn rewrite(from: &Path, to: &Path, properties: WriterProperties, batch: usize) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::open(from).unwrap()).unwrap();
    let pairs = reader.metadata().file_metadata().key_value_metadata().unwrap().clone();
    let schema = reader.schema().clone();
    let mut writer = ArrowWriter::try_new(fs::create_new(to).unwrap(), schema, Some(properties)).unwrap();
    for part in reader.with_batch_size(batch).build().unwrap() {
        writer.write(&part.unwrap()).unwrap();
        writer.flush().unwrap();
    }
    pairs.into_iter().filter(|pair| pair.key == "kinset").for_each(|pair| writer.append_key_value_metadata(pair));
    writer.close().unwrap();
}

#[test]
fn other_codecs_dictionaries_and_row_groups_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write(&path, &[500], meta());
    for (i, codec) in [Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())].into_iter().enumerate() {
        let again = dir.path().join(format!("{i}.parquet"));
        let properties = WriterProperties::builder().set_compression(codec).set_dictionary_enabled(true).build();
        rewrite(&path, &again, properties, 70);
        let reader = TableReader::open(&again, "thing").unwrap();
        assert_eq!(reader.groups(), 8);
        assert_eq!(reader.read(&NAMES).unwrap(), rows(0..500));
    }
}

#[test]
fn embeddings_are_stored_as_the_other_tools_like_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write(&path, &[10], meta());
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::open(&path).unwrap()).unwrap();
    let wanted = DataType::FixedSizeList(Arc::new(Field::new("element", DataType::Float32, false)), 3);
    let field = reader.schema().field_with_name("v").unwrap().clone();
    assert_eq!((field.data_type(), field.is_nullable()), (&wanted, false));
    for group in reader.metadata().row_groups() {
        for column in group.columns() {
            assert_eq!(column.compression(), Compression::UNCOMPRESSED);
            assert!(column.dictionary_page_offset().is_none(), "{}", column.column_path());
        }
    }
    assert_eq!(reader.metadata().file_metadata().created_by(), Some("kinset"));
}

#[test]
fn columns_that_do_not_fit_the_schema_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let schema = [("id", ColumnKind::Text), ("v", ColumnKind::Vectors { width: 2 })];
    let mut writer = TableWriter::create(&path, &schema, meta()).unwrap();
    let id = || Column::Text(vec!["a".into()]);
    let mut refuse = |columns: Vec<Column>| writer.write(columns).unwrap_err();
    assert!(matches!(refuse(vec![id()]), ArtifactError::Length { .. }));
    assert!(matches!(refuse(vec![id(), id()]), ArtifactError::WrongType { .. }));
    let vectors = |width, count| Column::Vectors { width, values: vec![0.0; count] };
    assert!(matches!(refuse(vec![id(), vectors(3, 3)]), ArtifactError::WrongType { .. }));
    assert!(matches!(refuse(vec![id(), vectors(2, 4)]), ArtifactError::Length { .. }));
    assert!(matches!(refuse(vec![id(), vectors(2, 1)]), ArtifactError::Length { .. }));
}

#[test]
fn foreign_and_wrong_tables_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let text = |error: ArtifactError| error.to_string();
    fs::write_atomic(&path, b"id,row\n").unwrap();
    assert!(matches!(TableReader::open(&path, "thing").unwrap_err(), ArtifactError::NotTheForm { .. }));

    let batch = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["a"])) as ArrayRef)]).unwrap();
    let foreign = |value: Option<&str>| {
        fs::remove(&path).unwrap();
        let mut writer = ArrowWriter::try_new(fs::create_new(&path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        if let Some(value) = value {
            writer.append_key_value_metadata(KeyValue::new("kinset".into(), value.to_owned()));
        }
        writer.close().unwrap();
        TableReader::open(&path, "thing").unwrap_err()
    };
    assert!(text(foreign(None)).contains("no `kinset` metadata"));
    assert!(matches!(foreign(Some("{")), ArtifactError::Json { .. }));
    assert!(text(foreign(Some(r#"{"artifact":"labels","format":1,"fields":{}}"#))).contains("`labels`, not `thing`"));
    let newer = foreign(Some(r#"{"artifact":"thing","format":9,"fields":{}}"#));
    assert!(matches!(newer, ArtifactError::WrongFormat { found: 9, .. }));
}

#[test]
fn missing_values_are_found_wherever_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let child = Arc::new(Field::new("element", DataType::Float32, true));
    let values = Arc::new(Float32Array::from(vec![Some(1.0), Some(2.0), Some(3.0), None]));
    let lists = arrow::array::FixedSizeListArray::new(child, 2, values, None);
    let numbers = UInt32Array::from(vec![Some(1), None]);
    let batch =
        RecordBatch::try_from_iter_with_nullable([("v", Arc::new(lists) as ArrayRef, true), ("u", Arc::new(numbers), true)])
            .unwrap();
    assert_eq!(batch.column(1).as_primitive::<arrow::datatypes::UInt32Type>().len(), 2);
    let mut writer =
        ArrowWriter::try_new(fs::create_new(&path).unwrap(), Arc::new(Schema::clone(&batch.schema())), None).unwrap();
    writer.write(&batch).unwrap();
    let json = r#"{"artifact":"thing","format":1,"fields":{}}"#;
    writer.append_key_value_metadata(KeyValue::new("kinset".into(), json.to_owned()));
    writer.close().unwrap();
    let reader = TableReader::open(&path, "thing").unwrap();
    assert!(matches!(reader.read(&["v"]).unwrap_err(), ArtifactError::Null { row: 1, .. }));
    assert!(matches!(reader.read(&["u"]).unwrap_err(), ArtifactError::Null { row: 1, .. }));
}

/// A small file with every kind of column, and where to put damaged copies.
static SMALL: LazyLock<(tempfile::TempDir, Vec<u8>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    write(&path, &[12], meta());
    let bytes = fs::read(&path).unwrap();
    (dir, bytes)
});

/// Reads a damaged copy in every way there is.
fn read_damaged(name: &str, bytes: &[u8]) -> bool {
    use std::io::Write;
    let path = SMALL.0.path().join(name);
    fs::remove(&path).unwrap();
    fs::create_new(&path).unwrap().write_all(bytes).unwrap();
    let reader = TableReader::open(&path, "thing");
    let read = reader.as_ref().is_ok_and(|reader| reader.read(&NAMES).is_ok());
    if let Ok(reader) = &reader {
        (0..12).for_each(|row| drop(reader.picture("image", row)));
        let _ = reader.read_group(0, &["v"]);
    }
    read
}

/// A copy with one to three flipped bits.
pub(super) fn flipped(seed: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let mut rng = kinset_base::seed::Seed::new(seed).rng();
    let mut bytes = SMALL.1.clone();
    for _ in 0..=rng.below(3) {
        let place = rng.below(bytes.len());
        bytes[place] ^= 1 << rng.below(8);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flip.parquet");
    fs::write_atomic(&path, &bytes).unwrap();
    (dir, path)
}

#[test]
fn a_file_cut_short_anywhere_is_an_error() {
    for length in 0..SMALL.1.len() {
        assert!(!read_damaged("cut.parquet", &SMALL.1[..length]), "cut to {length} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4)) {
        let mut bytes = SMALL.1.clone();
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= 1 << bit;
        }
        read_damaged("flip.parquet", &bytes);
    }

    #[test]
    fn any_batches_give_the_same_digest(batches in prop::collection::vec(0_usize..40, 0..6)) {
        let dir = tempfile::tempdir().unwrap();
        let total = batches.iter().sum();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        prop_assert_eq!(write(&a, &batches, meta()), write(&b, &[total], meta()));
        prop_assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    }
}

#[test]
fn yes_and_no_come_back_and_are_part_of_the_digest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let save = |values: &[bool]| {
        let mut writer = TableWriter::create(&path, &[("b", ColumnKind::Bool)], Meta::new("thing")).unwrap();
        writer.write(vec![Column::Bool(values.to_vec())]).unwrap();
        writer.finish().unwrap()
    };
    let values: Vec<bool> = (0..20_000).map(|i| i % 3 == 0).collect();
    let other = save(&[true, true]);
    assert_ne!(save(&[true, false]), other);
    save(&values);
    let reader = TableReader::open(&path, "thing").unwrap();
    assert_eq!(reader.read(&["b"]).unwrap(), [Column::Bool(values)]);
}
