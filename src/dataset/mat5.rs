//! MATLAB files of level 5: a header and a list of elements, each packed by zlib or not, of which some are arrays.
//!
//! Only what data sets need is read of the format: arrays of real numbers. Nothing in it is trusted: elements end with the file,
//! and memory grows with the data that arrive.
//!
//! Source: The MathWorks, "MAT-File Format", chapter 1.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;

use super::byte_stream::{ByteStream, hex, malformed};
use super::error::{DatasetError, Result};
use kinset_base::file_kind::kind_of;
use kinset_base::fs::{self, At};
use kinset_base::raw_file::RawFile;

/// The header before the first element, in bytes.
pub(super) const HEADER: u64 = 128;
/// Kinds of data: the numbers are those of the format.
pub(super) const BYTES: u32 = 2;
pub(super) const INTEGERS: u32 = 5;
pub(super) const FLAGS: u32 = 6;
pub(super) const DOUBLES: u32 = 9;
pub(super) const MATRIX: u32 = 14;
pub(super) const PACKED: u32 = 15;
/// Longer names are none of ours.
const LONGEST_NAME: u32 = 63;

/// A file, read element by element.
pub(super) struct MatFile<'a> {
    file: &'a RawFile,
    pub(super) name: String,
    /// Where the next element begins.
    at: u64,
}

impl<'a> MatFile<'a> {
    pub(super) fn open(file: &'a RawFile) -> Result<Self> {
        let mat = Self { file, name: file.path.display().to_string(), at: HEADER };
        if let Some(kind) = kind_of(&file.path) {
            return Err(DatasetError::OtherKind { file: mat.name, wanted: "a MATLAB file", kind });
        }
        if file.bytes < HEADER {
            return Err(mat.truncated(HEADER));
        }
        let tail: [u8; 4] = mat.stream(HEADER - 4, 4)?.array()?;
        // Version 1, and the order of bytes that turns `MI` into `IM`: small ends first.
        if tail != [0, 1, b'I', b'M'] {
            return Err(malformed(&mat.name, HEADER - 4, "version and byte order", hex(&[0, 1, b'I', b'M']), hex(&tail)));
        }
        Ok(mat)
    }

    fn range(&self, offset: u64, count: u64) -> Result<impl Read + Send + use<>> {
        let mut file = fs::open(&self.file.path)?;
        file.seek(SeekFrom::Start(offset)).at("read", &self.file.path)?;
        Ok(io::BufReader::with_capacity(count.min(1 << 18) as usize, file.take(count)))
    }

    fn stream(&self, offset: u64, count: u64) -> Result<ByteStream> {
        Ok(ByteStream::new(Box::new(self.range(offset, count)?), self.name.clone()))
    }

    /// The next array; other elements are left alone. None at the end of the file.
    pub(super) fn next_array(&mut self) -> Result<Option<MatArray>> {
        while self.at != self.file.bytes {
            if self.file.bytes - self.at < 8 {
                return Err(self.truncated(self.at + 8));
            }
            let [kind, bytes] = words(self.stream(self.at, 8)?.array()?);
            let (start, count) = (self.at + 8, u64::from(bytes));
            self.at = start + count;
            if self.at > self.file.bytes {
                return Err(self.truncated(self.at));
            }
            let stream = match kind {
                MATRIX => self.stream(start, count)?,
                PACKED => {
                    let unpacked = ZlibDecoder::new(self.range(start, count)?);
                    let mut stream = ByteStream::new(Box::new(unpacked), self.name.clone());
                    if words(stream.array()?)[0] != MATRIX {
                        continue;
                    }
                    stream
                }
                _ => continue,
            };
            return MatArray::open(stream, start).map(Some);
        }
        Ok(None)
    }

    fn truncated(&self, expected: u64) -> DatasetError {
        DatasetError::Truncated { file: self.name.clone(), expected, found: self.file.bytes }
    }
}

/// Two little-endian numbers.
fn words(bytes: [u8; 8]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bytes;
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// An array of real numbers: what it says of itself, and its data, which nobody has held against that.
pub(super) struct MatArray {
    pub(super) name: String,
    pub(super) sizes: Vec<u64>,
    pub(super) kind: u32,
    pub(super) bytes: u64,
    pub(super) data: ByteStream,
    /// Where it begins in the file.
    start: u64,
}

impl MatArray {
    /// Reads flags, sizes and name; what follows are the data.
    fn open(stream: ByteStream, start: u64) -> Result<Self> {
        let mut array = Self { name: String::new(), sizes: Vec::new(), kind: 0, bytes: 0, data: stream, start };
        let (kind, flags) = array.part(8)?;
        // Bit 3 of the second byte: imaginary parts follow the real ones.
        if kind != FLAGS || flags.len() != 8 || flags[1] & 8 != 0 {
            let found = format!("{flags:02x?} of kind {kind}");
            return Err(array.malformed("the flags of an array", "those of real numbers", found));
        }
        let (kind, sizes) = array.part(4 * 8)?;
        if kind != INTEGERS || sizes.len() < 8 || sizes.len() % 4 != 0 {
            let found = format!("{} bytes of kind {kind}", sizes.len());
            return Err(array.malformed("the sizes of an array", "2 to 8 numbers", found));
        }
        array.sizes = sizes.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
        let (_, name) = array.part(LONGEST_NAME)?;
        array.name = String::from_utf8_lossy(&name).into_owned();
        let tag: [u8; 8] = array.data.array()?;
        let [kind, bytes] = words(tag);
        (array.kind, array.bytes) = (kind & 0xffff, u64::from(bytes));
        if let Some(short) = short_part(tag) {
            // Data so short that they stand in the tag: put them back.
            array.bytes = short.len() as u64;
            array.data = ByteStream::new(Box::new(io::Cursor::new(short)), array.data.file);
        }
        Ok(array)
    }

    /// A short part: its kind and its bytes, at most `most`. Longer ones than four bytes are filled up to eights.
    fn part(&mut self, most: u32) -> Result<(u32, Vec<u8>)> {
        let tag: [u8; 8] = self.data.array()?;
        let [kind, bytes] = words(tag);
        if let Some(short) = short_part(tag) {
            return Ok((kind & 0xffff, short));
        }
        if bytes > most {
            return Err(self.malformed("the length of a part of an array", format!("at most {most}"), bytes));
        }
        let mut part = self.data.take(u64::from(bytes.next_multiple_of(8)))?;
        part.truncate(bytes as usize);
        Ok((kind, part))
    }

    pub(super) fn malformed(&self, field: &'static str, expected: impl Into<String>, found: impl ToString) -> DatasetError {
        malformed(&self.data.file, self.start, field, expected, found)
    }
}

/// The bytes of a part that stands in its tag: up to four.
fn short_part(tag: [u8; 8]) -> Option<Vec<u8>> {
    let bytes = words(tag)[0] >> 16;
    (bytes != 0).then(|| tag[4..4 + bytes.min(4) as usize].to_vec())
}
