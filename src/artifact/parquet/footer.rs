//! The footer of a Parquet file, checked before the decoder sees it, and the only way to the file's rows.
//!
//! The decoder trusts what it reads: how many elements a list has, how deep columns are nested, how many values a dictionary
//! holds. Whatever it would read as Thrift is therefore walked over first, and what a file of its length cannot hold is refused
//! (see [`super::thrift`]): the footer and the index of pages here, the header of every page in [`super::source`].

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Field;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::Result as Decoded;
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::ChunkReader;

use super::batches::{BatchReader, guarded};
use super::source::{Places, Source, within};
use super::structures::{FILE, PAGES};
use super::thrift::{Seen, as_read, damaged, walk};
use crate::error::{ArtifactError, Result, display};
use kinset_base::file_kind::{BEGINNING, file_kind, with_remedy};
use kinset_base::fs::{self, At, File};
use kinset_base::unit;

/// The last bytes of a file: the footer's length in four of them, and a mark.
const TAIL: usize = 8;
/// Longer metadata are not read: they are copied and unpacked several times.
const LONGEST: u64 = 64 << 20;
/// How a file begins and ends.
const MARK: &[u8; 4] = b"PAR1";
/// Codecs that are read: none, Snappy, gzip, Brotli, LZ4, Zstandard, LZ4 raw. The specification has one more, 3, LZO.
const CODECS: [i64; 7] = [0, 1, 2, 4, 5, 6, 7];
/// Columns inside columns, at most so many: the decoder calls itself for each.
const DEEPEST: usize = 128;

#[derive(Clone, Debug)]
pub(super) struct Footer {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) rows: usize,
    arrow: ArrowReaderMetadata,
    places: Arc<Places>,
}

impl Deref for Footer {
    type Target = ArrowReaderMetadata;

    fn deref(&self) -> &ArrowReaderMetadata {
        &self.arrow
    }
}

impl Footer {
    /// Reads the footer of a file, and its index of pages if it has one.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = fs::open(path)?;
        let bytes = file.metadata().at("look at", path)?.len();
        is_parquet(path, &file, bytes)?;
        let range = guarded(path, || metadata_range(&file, bytes))?;
        let length = range.as_ref().map_or(0, |range| range.end - range.start);
        if length > LONGEST {
            let (found, most) = (unit::bytes(length), unit::bytes(LONGEST));
            return Err(ArtifactError::LongMetadata { path: display(path), found, most });
        }
        let mut codec = None;
        let arrow = guarded(path, || {
            if let Some(range) = range {
                let mut tree = Tree::default();
                walk(file.get_read(range.start)?, range.end - range.start, &FILE, &mut |seen| {
                    if let Seen::Number { of: "ColumnMetaData", field: 4, value } = seen {
                        let value = as_read(value);
                        codec = codec.or((!CODECS.contains(&value)).then_some(value));
                    }
                    tree.see(&seen)
                })?;
                tree.end()?;
            }
            let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
            reader.try_parse(&file)?;
            let metadata = reader.finish()?;
            let columns = || metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
            within(bytes, "columns", columns().map(ColumnChunkMetaData::compressed_size))?;
            let indexes = || columns().filter_map(ColumnChunkMetaData::offset_index_range);
            let lengths = indexes().map(|range| range.end.saturating_sub(range.start).cast_signed());
            within(bytes, "indexes of pages", lengths)?;
            for range in indexes() {
                let length = range.end.saturating_sub(range.start);
                walk(file.get_read(range.start)?, length, &PAGES, &mut |_| Ok(()))?;
            }
            // Without the page index a single picture would cost its whole row group.
            let mut reader = ParquetMetaDataReader::new_with_metadata(metadata)
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Optional);
            reader.read_page_indexes(&file)?;
            ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), ArrowReaderOptions::new())
        });
        // Before what the decoder says of it: a codec it does not know is no damage.
        if let Some(codec) = codec {
            let what = format!(
                "is compressed by {}, which kinset does not read",
                if codec == 3 { "LZO".into() } else { format!("codec {codec}") }
            );
            return Err(ArtifactError::Unsupported { path: display(path), what });
        }
        let arrow = arrow?;
        let places = Arc::new(guarded(path, || Places::from_metadata(arrow.metadata(), bytes))?);
        let rows = rows(path, arrow.metadata())?;
        Ok(Self { path: path.to_owned(), bytes, rows, arrow, places })
    }

    /// The entry of the file's metadata under a key.
    pub(super) fn entry(&self, key: &str) -> Option<&str> {
        let pairs = self.metadata().file_metadata().key_value_metadata().into_iter().flatten();
        pairs.filter(|pair| pair.key == key).find_map(|pair| pair.value.as_deref())
    }

    /// The place and type of a column.
    pub(super) fn column(&self, name: &str) -> Result<(usize, &Field)> {
        let (place, field) = self.schema().fields().find(name).ok_or_else(|| ArtifactError::NoColumn {
            path: display(&self.path),
            column: name.into(),
            found: self.schema().fields().iter().map(|field| field.name().clone()).collect(),
        })?;
        Ok((place, field.as_ref()))
    }

    /// Says that a column has another type than was expected.
    pub(super) fn wrong_type(&self, column: &str, found: impl ToString, wanted: impl ToString) -> ArtifactError {
        let (path, column) = (display(&self.path), column.to_owned());
        ArtifactError::WrongType { path, column, found: found.to_string(), wanted: wanted.to_string() }
    }

    /// Begins to read rows: `narrow` says which, and how many at a time.
    pub(super) fn batches(
        &self,
        narrow: impl FnOnce(ParquetRecordBatchReaderBuilder<Source>) -> ParquetRecordBatchReaderBuilder<Source>,
    ) -> Result<BatchReader> {
        let source = Source::new(fs::open(&self.path)?, self.places.clone());
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.arrow.clone());
        let reader = guarded(&self.path, || narrow(builder).build())?;
        Ok(BatchReader::new(&self.path, reader))
    }

    /// Begins to read some columns, by their places, so many rows at a time.
    pub(super) fn columns(&self, places: impl IntoIterator<Item = usize>, rows: usize) -> Result<BatchReader> {
        let mask = ProjectionMask::roots(self.parquet_schema(), places);
        self.batches(|builder| builder.with_projection(mask).with_batch_size(rows))
    }
}

/// Refuses what is no Parquet at all, or is encrypted. What is cut short is for the decoder to tell.
fn is_parquet(path: &Path, file: &File, bytes: u64) -> Result<()> {
    let mut head = [0; BEGINNING];
    let length = head.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
    let head = &mut head[..length];
    let mut file = file;
    file.read_exact(head).at("read", path)?;
    let damaged = |detail: &str| ArtifactError::Damaged { path: display(path), detail: detail.to_owned() };
    if head.is_empty() {
        return Err(damaged("it is empty"));
    }
    let (begin, same) = (&head[..length.min(MARK.len())], &MARK[..length.min(MARK.len())]);
    if begin != same && begin != b"PARE" {
        return Err(ArtifactError::NotTheForm { path: display(path), form: "Parquet", what: looks_like(head) });
    }
    let mut end = [0; MARK.len()];
    if bytes > TAIL as u64 {
        file.seek(SeekFrom::End(-(MARK.len() as i64))).and_then(|_| file.read_exact(&mut end)).at("read", path)?;
    }
    match &end {
        b"PARE" => Err(ArtifactError::Unsupported { path: display(path), what: "is encrypted".to_owned() }),
        MARK => Ok(()),
        _ => Err(damaged("its end is missing: writing or downloading it was not completed")),
    }
}

/// What the first bytes of a file look like that is none of ours, for people.
pub(super) fn looks_like(head: &[u8]) -> String {
    match file_kind(head) {
        Some(kind) => format!("it is {}", with_remedy(kind)),
        None if head.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) => {
            "it begins like plain text".to_owned()
        }
        None if head.iter().all(|byte| *byte == 0) => "it begins with zeros only".to_owned(),
        None => "its first bytes match no format that kinset knows".to_owned(),
    }
}

/// The number of rows, if the parts of the footer agree on it.
fn rows(path: &Path, metadata: &ParquetMetaData) -> Result<usize> {
    let claimed = metadata.file_metadata().num_rows();
    let groups = metadata
        .row_groups()
        .iter()
        .try_fold(0_i64, |sum, group| (group.num_rows() >= 0).then(|| sum.checked_add(group.num_rows())).flatten());
    if groups != Some(claimed) || claimed > i64::from(u32::MAX) {
        let detail = format!("the footer claims {claimed} rows, its row groups {}", groups.unwrap_or(-1));
        return Err(ArtifactError::Damaged { path: display(path), detail });
    }
    Ok(usize::try_from(claimed).unwrap_or(0))
}

/// Where the metadata stand in a file, if its last bytes say so. What is wrong with them is for the decoder to tell.
fn metadata_range(file: &File, bytes: u64) -> Decoded<Option<Range<u64>>> {
    let Some(end) = bytes.checked_sub(TAIL as u64) else { return Ok(None) };
    let [a, b, c, d, b'P', b'A', b'R', b'1'] = file.get_bytes(end, TAIL)?[..] else { return Ok(None) };
    let start = end.checked_sub(u64::from(u32::from_le_bytes([a, b, c, d])));
    Ok(start.map(|start| start..end))
}

/// The tree of columns: each group comes before what is in it.
#[derive(Default)]
struct Tree {
    /// What the element that is being walked over says of its children.
    children: i64,
    /// Children that groups still wait for, the outermost group first.
    waiting: Vec<i64>,
}

impl Tree {
    fn see(&mut self, seen: &Seen) -> io::Result<()> {
        match *seen {
            Seen::Number { of: "SchemaElement", field: 5, value } => self.children = as_read(value),
            Seen::End { of: "SchemaElement" } => {
                while self.waiting.pop_if(|waiting| *waiting == 0).is_some() {}
                if let Some(waiting) = self.waiting.last_mut() {
                    *waiting -= 1;
                }
                let children = std::mem::take(&mut self.children);
                if children != 0 {
                    self.waiting.push(children);
                }
                if self.waiting.len() > DEEPEST {
                    return Err(damaged(&format!("nests more than {DEEPEST} columns")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Space is set aside for all children that are claimed, so all must have come.
    fn end(&self) -> io::Result<()> {
        if self.waiting.iter().any(|waiting| *waiting != 0) {
            return Err(damaged("claims more columns than it has"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::basic::Compression;
    use parquet::file::metadata::{ColumnChunkMetaDataBuilder, ParquetMetaDataWriter};
    use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

    use super::super::tests::{meta, write};
    use super::*;

    /// 2³¹ − 1 truth values that take no bytes, as a field that Parquet does not know.
    const ENDLESS: [u8; 9] = [0x09, 0xc8, 0x01, 0xf2, 0xff, 0xff, 0xff, 0xff, 0x07];

    fn refusal(bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        fs::write_atomic(&path, bytes).unwrap();
        let read = || {
            let mut batches = Footer::read(&path)?.batches(|builder| builder)?;
            while batches.next(|_| Ok(()))?.is_some() {}
            Ok(())
        };
        Result::unwrap_err(read()).to_string()
    }

    fn small() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        write(&path, &[12], meta());
        fs::read(&path).unwrap()
    }

    #[test]
    fn a_footer_that_would_be_counted_for_seconds_is_refused() {
        let mut bytes = small();
        let end = bytes.len() - TAIL;
        let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap());
        bytes[end..end + 4].copy_from_slice(&(length + ENDLESS.len() as u32).to_le_bytes());
        bytes.splice(end - 1..end - 1, ENDLESS);
        let text = refusal(&bytes);
        assert!(text.contains("truth values where Parquet has none"), "{text}");
    }

    #[test]
    fn what_is_no_parquet_is_told_from_what_is_damaged() {
        let page = refusal(b"\n<!DOCTYPE html><title>Sign in</title>");
        assert!(page.contains("is not a valid Parquet file: it is an HTML page"), "{page}");
        assert!(refusal(b"version https://git-lfs.github.com/spec/v1\noid").contains("git lfs pull"));
        assert!(refusal(b"{\"error\": 404}").contains("it is JSON"));
        assert!(refusal(b"").contains("is damaged: it is empty"));
        assert!(refusal(&small()[..90]).contains("is damaged: its end is missing"));
    }

    #[test]
    fn a_codec_that_is_not_read_is_no_damage() {
        let bytes = small();
        let end = bytes.len() - TAIL;
        let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes[end - length..end]).unwrap();
        let group = metadata.row_group(0);
        let lzo =
            |column: &ColumnChunkMetaData| column.clone().into_builder().set_compression(Compression::LZO).build().unwrap();
        let group =
            group.clone().into_builder().set_column_metadata(group.columns().iter().map(lzo).collect()).build().unwrap();
        let metadata = metadata.into_builder().set_row_groups(vec![group]).build();
        let mut changed = bytes[..end - length].to_vec();
        ParquetMetaDataWriter::new(&mut changed, &metadata).finish().unwrap();
        let text = refusal(&changed);
        assert!(text.ends_with("is compressed by LZO, which kinset does not read"), "{text}");
        // A codec of the future: the same bytes with another number where the LZO's stands.
        let place = (0..changed.len()).rev().filter(|place| changed[*place] == 6);
        let future = place.map(|place| {
            let mut other = changed.clone();
            other[place] = 60;
            refusal(&other)
        });
        assert!(future.into_iter().any(|text| text.ends_with("is compressed by codec 30, which kinset does not read")));
    }

    #[test]
    fn a_footer_whose_fields_are_not_what_they_should_be_is_refused() {
        let mut bytes = small();
        let end = bytes.len() - TAIL;
        let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
        // As a text, which it is not, what the decoder would read as the rest of the footer.
        let hidden = [&[0x18, ENDLESS.len() as u8][..], &ENDLESS].concat();
        bytes[end..end + 4].copy_from_slice(&((length + hidden.len()) as u32).to_le_bytes());
        bytes.splice(end - length..end - length, hidden);
        let text = refusal(&bytes);
        assert!(text.contains("field 1 of FileMetaData the type 8"), "{text}");
    }

    #[test]
    fn trees_of_columns_that_are_too_deep_or_not_there_are_refused() {
        let file = |elements: &[Vec<u8>]| {
            let mut footer = vec![0x15, 2, 0x19, 0xfc, (elements.len() % 128) as u8 | 0x80, (elements.len() / 128) as u8];
            footer.extend(elements.concat());
            footer.push(0);
            [b"PAR1", &footer[..], &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat()
        };
        let group = |children: &[u8]| [&[0x48, 1, b'g', 0x15][..], children, &[0]].concat();
        let leaf = vec![0x48, 1, b'x', 0];
        let nested = |groups: usize| file(&[vec![group(&[2]); groups], vec![leaf.clone()]].concat());
        assert!(refusal(&nested(DEEPEST + 1)).contains("nests more than 128 columns"));
        let text = refusal(&nested(DEEPEST));
        assert!(!text.contains("nests more"), "{text}");
        assert!(refusal(&file(&[group(&[0xfe, 0xff, 0xff, 0xff, 0x0f]), leaf.clone()])).contains("more columns than it has"));
        assert!(refusal(&file(&[group(&[4]), leaf.clone()])).contains("more columns than it has"));
        let flat = refusal(&file(&[group(&[4]), leaf.clone(), leaf]));
        assert!(!flat.contains("more columns"), "{flat}");
    }

    #[test]
    fn an_index_of_more_pages_than_bytes_is_refused() {
        let bytes = small();
        let end = bytes.len() - TAIL;
        let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes[end - length..end]).unwrap();
        let index = metadata.row_group(0).column(2).offset_index_range().unwrap();
        for (kind, why) in [(0x0c, "claims 2147483647 elements"), (0x02, "truth values")] {
            let mut bytes = bytes.clone();
            let list = [0x19, 0xf0 | kind, 0xff, 0xff, 0xff, 0xff, 0x07];
            bytes[index.start as usize..][..list.len()].copy_from_slice(&list);
            let text = refusal(&bytes);
            assert!(text.contains(why), "{text}");
        }
    }

    #[test]
    fn columns_that_share_what_is_as_long_as_the_file_are_refused() {
        let whole = small();
        let end = whole.len() - TAIL;
        let length = u32::from_le_bytes(whole[end..end + 4].try_into().unwrap()) as usize;
        let metadata = ParquetMetaDataReader::decode_metadata(&whole[end - length..end]).unwrap();
        let long = whole.len() as i32 / 2;
        let stretched = |stretch: &dyn Fn(ColumnChunkMetaDataBuilder) -> ColumnChunkMetaDataBuilder| {
            let group = metadata.row_group(0);
            let columns =
                group.columns().iter().map(|column| stretch(column.clone().into_builder()).build().unwrap()).collect();
            let group = group.clone().into_builder().set_column_metadata(columns).build().unwrap();
            let mut bytes = whole[..end - length].to_vec();
            let metadata = metadata.clone().into_builder().set_row_groups(vec![group]).build();
            ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().unwrap();
            refusal(&bytes)
        };
        let text = stretched(&|column| column.set_offset_index_length(Some(long)));
        assert!(text.contains("its indexes of pages are longer than the file"), "{text}");
        let text = stretched(&|column| column.set_total_compressed_size(i64::from(long)));
        assert!(text.contains("its columns are longer than the file"), "{text}");
    }

    #[test]
    fn the_header_of_a_page_is_looked_through_with_an_index_and_without() {
        for (indexed, dictionary) in [(true, true), (true, false), (false, true), (false, false)] {
            let properties = WriterProperties::builder().set_dictionary_enabled(dictionary).set_offset_index_disabled(!indexed);
            let mut bytes = numbers(properties);
            // The first page, a dictionary or not, begins behind the mark.
            bytes[4..4 + ENDLESS.len()].copy_from_slice(&ENDLESS);
            let text = refusal(&bytes);
            assert!(text.contains("truth values"), "index: {indexed}, dictionary: {dictionary}: {text}");
        }
    }

    #[test]
    fn an_index_leads_to_pages_and_to_the_dictionary_before_them() {
        let properties = WriterProperties::builder().set_data_page_row_count_limit(20).set_write_batch_size(10);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        fs::write_atomic(&path, &numbers(properties)).unwrap();
        let footer = Footer::read(&path).unwrap();
        let column = footer.metadata().row_group(0).column(0);
        assert_eq!(Some(footer.places.pages[0]), column.dictionary_page_offset().map(i64::cast_unsigned));
        assert_eq!(Some(footer.places.pages[1]), u64::try_from(column.data_page_offset()).ok());
        assert_eq!(footer.places.pages.len(), 1 + 5);
    }

    /// A file of a hundred numbers.
    fn numbers(properties: WriterPropertiesBuilder) -> Vec<u8> {
        let numbers: ArrayRef = Arc::new(Int64Array::from((0..100).collect::<Vec<_>>()));
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }
}
