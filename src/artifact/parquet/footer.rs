//! What a Parquet file says of itself, and the only way to its rows.
//!
//! Whatever the decoder would read as Thrift (the footer, the index of pages, the header of every page) is walked over first, so
//! that no file keeps it busy for longer than its bytes are worth: see [`super::thrift`].

use std::io::{self, BufReader, Read};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::errors::{ParquetError, Result as Decoded};
use parquet::file::metadata::{ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};

use super::guard::guarded;
use super::thrift::walk;
use crate::artifact::error::{ArtifactError, Result, shown};
use crate::base::fs::{self, At, File};

/// The last bytes of a file: the footer's length in four of them, and a mark.
const TAIL: usize = 8;

/// The footer of any Parquet file.
#[derive(Clone, Debug)]
pub(super) struct Footer {
    arrow: ArrowReaderMetadata,
    /// Where pages begin, as far as an index says so, in ascending order.
    pages: Arc<[u64]>,
    /// The size of the file.
    pub(super) bytes: u64,
}

impl Deref for Footer {
    type Target = ArrowReaderMetadata;

    fn deref(&self) -> &ArrowReaderMetadata {
        &self.arrow
    }
}

impl Footer {
    /// Reads the footer of a file, and its index of pages if it has one.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = fs::open(path)?;
        let bytes = file.metadata().at("look at", path)?.len();
        let arrow = guarded(path, || {
            if let Some(range) = described(&file, bytes)? {
                walk_range(&file, range)?;
            }
            let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
            reader.try_parse(&file)?;
            let metadata = reader.finish()?;
            let columns = metadata.row_groups().iter().flat_map(RowGroupMetaData::columns);
            let mut left = bytes;
            for range in columns.filter_map(ColumnChunkMetaData::offset_index_range) {
                // Many columns that share one long index would each have it read again.
                left = left
                    .checked_sub(range.end.saturating_sub(range.start))
                    .ok_or_else(|| ParquetError::General("its indexes of pages are longer than the file".to_owned()))?;
                walk_range(&file, range)?;
            }
            // Without the page index a single picture would cost its whole row group.
            let mut reader = ParquetMetaDataReader::new_with_metadata(metadata)
                .with_column_index_policy(PageIndexPolicy::Skip)
                .with_offset_index_policy(PageIndexPolicy::Optional);
            reader.read_page_indexes(&file)?;
            ArrowReaderMetadata::try_new(Arc::new(reader.finish()?), ArrowReaderOptions::new())
        })?;
        let pages = pages(arrow.metadata()).into();
        Ok(Self { arrow, pages, bytes })
    }

    /// The number of rows, if the parts of the footer agree on it.
    ///
    /// # Errors
    /// If they do not, or there are more than row numbers (32 bits).
    pub(super) fn rows(&self, path: &Path) -> Result<usize> {
        let claimed = self.metadata().file_metadata().num_rows();
        let groups = self
            .metadata()
            .row_groups()
            .iter()
            .try_fold(0_i64, |sum, group| (group.num_rows() >= 0).then(|| sum.checked_add(group.num_rows())).flatten());
        if groups != Some(claimed) || claimed > i64::from(u32::MAX) {
            let detail = format!("the footer claims {claimed} rows, its row groups {}", groups.unwrap_or(-1));
            return Err(ArtifactError::Damaged { path: shown(path), detail });
        }
        Ok(usize::try_from(claimed).unwrap_or(0))
    }

    /// Begins to read the file that this is the footer of.
    ///
    /// # Errors
    /// If it cannot be opened again.
    pub(super) fn decoder(&self, path: &Path) -> Result<ParquetRecordBatchReaderBuilder<Source>> {
        let source = Source { file: fs::open(path)?, pages: self.pages.clone() };
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(source, self.arrow.clone()))
    }
}

/// Where the footer stands in a file, if its last bytes say so. What is wrong with them is for the decoder to tell.
fn described(file: &File, bytes: u64) -> Decoded<Option<Range<u64>>> {
    let Some(end) = bytes.checked_sub(TAIL as u64) else { return Ok(None) };
    let [a, b, c, d, b'P', b'A', b'R', b'1'] = file.get_bytes(end, TAIL)?[..] else { return Ok(None) };
    let start = end.checked_sub(u64::from(u32::from_le_bytes([a, b, c, d])));
    Ok(start.map(|start| start..end))
}

fn walk_range(file: &File, range: Range<u64>) -> Decoded<()> {
    let length = range.end.saturating_sub(range.start);
    walk(file.get_read(range.start)?, length)?;
    Ok(())
}

/// Where pages begin that the decoder will look for by the index. A dictionary stands before the first of them.
fn pages(metadata: &ParquetMetaData) -> Vec<u64> {
    let mut pages = Vec::new();
    for (place, group) in metadata.row_groups().iter().enumerate() {
        let index = metadata.page_index_for_row_group(place);
        for (leaf, column) in group.columns().iter().enumerate() {
            let Some(locations) = index.page_locations(leaf) else { continue };
            let first = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let offsets = locations.iter().map(|location| location.offset).chain([first]);
            pages.extend(offsets.filter_map(|offset| u64::try_from(offset).ok()));
        }
    }
    pages.sort_unstable();
    pages.dedup();
    pages
}

/// The bytes of a Parquet file, for the decoder.
pub(super) struct Source {
    file: File,
    pages: Arc<[u64]>,
}

impl Length for Source {
    fn len(&self) -> u64 {
        Length::len(&self.file)
    }
}

impl ChunkReader for Source {
    type T = Header;

    fn get_read(&self, start: u64) -> Decoded<Header> {
        Ok(Header { input: self.file.get_read(start)?, left: self.len().saturating_sub(start), walked: false })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Decoded<Bytes> {
        // Nothing is set aside for more than there is.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are beyond the end of the file")));
        }
        let bytes = self.file.get_bytes(start, length)?;
        // Pages found by the index come with their headers, others without.
        if self.pages.binary_search(&start).is_ok() {
            walk(&bytes[..], length as u64)?;
        }
        Ok(bytes)
    }
}

/// The file from some place on. The decoder opens it wherever a page may begin, and reads from it only if one does.
pub(super) struct Header {
    input: BufReader<File>,
    left: u64,
    walked: bool,
}

impl Read for Header {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.walked {
            let taken = walk(&mut self.input, self.left)?;
            self.input.seek_relative(-taken.cast_signed())?;
            self.walked = true;
        }
        self.input.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::ParquetMetaDataWriter;
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
            let footer = Footer::read(&path)?;
            footer.rows(&path)?;
            let decoder = footer.decoder(&path)?;
            guarded(&path, || decoder.build()?.collect::<std::result::Result<Vec<_>, _>>())
        };
        read().map(|batches| batches.len()).unwrap_err().to_string()
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
    fn columns_that_share_an_index_as_long_as_the_file_are_refused() {
        let mut bytes = small();
        let end = bytes.len() - TAIL;
        let length = u32::from_le_bytes(bytes[end..end + 4].try_into().unwrap()) as usize;
        let metadata = ParquetMetaDataReader::decode_metadata(&bytes[end - length..end]).unwrap();
        let long = Some(bytes.len() as i32 / 2);
        let stretched =
            |column: &ColumnChunkMetaData| column.clone().into_builder().set_offset_index_length(long).build().unwrap();
        let group = metadata.row_group(0);
        let columns = group.columns().iter().map(stretched).collect();
        let group = group.clone().into_builder().set_column_metadata(columns).build().unwrap();
        let metadata = metadata.into_builder().set_row_groups(vec![group]).build();
        bytes.truncate(end - length);
        ParquetMetaDataWriter::new(&mut bytes, &metadata).finish().unwrap();
        let text = refusal(&bytes);
        assert!(text.contains("longer than the file"), "{text}");
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
        assert_eq!(Some(footer.pages[0]), column.dictionary_page_offset().map(i64::cast_unsigned));
        assert_eq!(Some(footer.pages[1]), u64::try_from(column.data_page_offset()).ok());
        assert_eq!(footer.pages.len(), 1 + 5);
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
