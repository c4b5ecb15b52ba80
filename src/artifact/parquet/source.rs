//! The bytes of a Parquet file, for the decoder. Where it would read the header of a page, that header is checked first.

use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::errors::{ParquetError, Result as Decoded};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, Length};

use super::structures::PAGE;
use super::thrift::{Seen, as_read, damaged, walk};
use kinset_base::fs::File;

/// Bytes of a page, unpacked.
const LARGEST_PAGE: i64 = 1 << 30;

/// Lengths of parts that do not overlap are no longer than the file together: a part that many share would be read for each of them.
pub(super) fn within(bytes: u64, what: &str, lengths: impl Iterator<Item = i64>) -> Decoded<()> {
    let mut left = bytes;
    for length in lengths {
        left = u64::try_from(length)
            .ok()
            .and_then(|length| left.checked_sub(length))
            .ok_or_else(|| ParquetError::General(format!("its {what} are longer than the file")))?;
    }
    Ok(())
}

#[derive(Debug, Default)]
pub(super) struct Places {
    /// Where pages begin that the decoder will look for by the index, in ascending order. A dictionary stands before the first of them.
    pub(super) pages: Vec<u64>,
    /// The columns that are not compressed, in ascending order.
    plain: Vec<Range<u64>>,
}

impl Places {
    pub(super) fn from_metadata(metadata: &ParquetMetaData, bytes: u64) -> Decoded<Self> {
        let mut places = Self::default();
        let mut sizes = Vec::new();
        for (place, group) in metadata.row_groups().iter().enumerate() {
            let index = metadata.page_index_for_row_group(place);
            for (leaf, column) in group.columns().iter().enumerate() {
                let (first, length) = column.byte_range();
                if column.compression() == Compression::UNCOMPRESSED {
                    places.plain.push(first..first.saturating_add(length));
                }
                let Some(locations) = index.page_locations(leaf) else { continue };
                places.pages.push(first);
                places.pages.extend(locations.iter().filter_map(|location| u64::try_from(location.offset).ok()));
                sizes.extend(locations.iter().map(|location| i64::from(location.compressed_page_size)));
            }
        }
        within(bytes, "pages", sizes.into_iter())?;
        places.pages.sort_unstable();
        places.plain.sort_unstable_by_key(|range| range.start);
        Ok(places)
    }

    fn is_page(&self, offset: u64) -> bool {
        self.pages.binary_search(&offset).is_ok()
    }

    fn is_plain(&self, offset: u64) -> bool {
        let before = self.plain.partition_point(|range| range.start <= offset);
        before.checked_sub(1).is_some_and(|last| self.plain[last].contains(&offset))
    }

    /// Walks over the header of a page; returns its length.
    fn header(&self, offset: u64, input: impl Read, length: u64) -> io::Result<u64> {
        let (mut unpacked, mut packed, mut dictionary) = (0, 0, 0);
        let taken = walk(input, length, &PAGE, &mut |seen| {
            match seen {
                Seen::Number { of: "PageHeader", field: 2, value } => unpacked = as_read(value),
                Seen::Number { of: "PageHeader", field: 3, value } => packed = as_read(value),
                Seen::Number { of: "DictionaryPageHeader", field: 1, value } => dictionary = as_read(value),
                _ => {}
            }
            Ok(())
        })?;
        // What is compressed is found out when it is unpacked; of the rest the decoder trusts either length.
        if unpacked > LARGEST_PAGE || self.is_plain(offset) && unpacked != packed {
            return Err(damaged(&format!("claims a page of {unpacked} bytes, {packed} in the file")));
        }
        // Space is set aside for all values that a dictionary claims, and each takes a byte at least.
        if dictionary > unpacked {
            return Err(damaged(&format!("claims a dictionary of {dictionary} values in {unpacked} bytes")));
        }
        Ok(taken)
    }
}

pub(super) struct Source {
    file: File,
    places: Arc<Places>,
}

impl Source {
    pub(super) fn new(file: File, places: Arc<Places>) -> Self {
        Self { file, places }
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        Length::len(&self.file)
    }
}

impl ChunkReader for Source {
    type T = Header;

    fn get_read(&self, start: u64) -> Decoded<Header> {
        Ok(Header { input: self.file.get_read(start)?, places: self.places.clone(), start, left: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Decoded<Bytes> {
        // Nothing is set aside for more than there is.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} are beyond the end of the file")));
        }
        let bytes = self.file.get_bytes(start, length)?;
        // Pages found by the index come with their headers, others without.
        if length > 0 && self.places.is_page(start) {
            self.places.header(start, &bytes[..], length as u64)?;
        }
        Ok(bytes)
    }
}

/// The header of a page. The decoder opens one wherever a page may begin, and reads from it only if one does.
pub(super) struct Header {
    input: BufReader<File>,
    places: Arc<Places>,
    start: u64,
    /// What is left of it; nothing before it was walked over.
    left: Option<u64>,
}

impl Read for Header {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = if let Some(left) = self.left {
            left
        } else {
            let length = self.input.get_ref().metadata()?.len().saturating_sub(self.start);
            let length = self.places.header(self.start, &mut self.input, length)?;
            self.input.seek_relative(-length.cast_signed())?;
            length
        };
        let read = (&mut self.input).take(left).read(buffer)?;
        self.left = Some(left - read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_claim_more_than_they_can_hold_are_refused() {
        let places = Places { plain: vec![100..200, 300..400], ..Places::default() };
        let header = |offset: u64, unpacked: u8, packed: u8, values: &[u8]| {
            let bytes = [&[0x15, 4, 0x15, unpacked, 0x15, packed, 0x4c, 0x15][..], values, &[0x15, 0, 0, 0]].concat();
            places.header(offset, &bytes[..], bytes.len() as u64).map_err(|e| e.to_string())
        };
        assert_eq!(header(100, 40, 40, &[10]), Ok(13));
        assert_eq!(header(99, 40, 20, &[10]), Ok(13), "compressed");
        assert!(header(199, 40, 20, &[10]).unwrap_err().contains("a page of 20 bytes, 10 in the file"));
        let many = header(0, 40, 20, &[0xfe, 0xff, 0xff, 0xff, 0x0f]).unwrap_err();
        assert!(many.contains("a dictionary of 2147483647 values in 20 bytes"), "{many}");
        assert!(
            places
                .header(0, &[0x25, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0][..], 7)
                .unwrap_err()
                .to_string()
                .contains("claims a page")
        );
    }
}
