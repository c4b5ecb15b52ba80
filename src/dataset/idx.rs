//! MNIST's format: an array of bytes behind a header of big-endian numbers, gzipped or not.
//!
//! The header is `0 0 8 rank` and one u32 per axis: images have rank 3 (N, height, width), labels rank 1 (N). Nothing of it is
//! believed before it is checked: sides and products are bounded, an unpacked file must have exactly the promised length, a
//! gzipped one must be able to hold it (deflate shrinks at most 1032:1), and memory grows with the data that arrive, never with
//! what a header says.
//!
//! Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", file formats.

use std::io::{self, BufRead, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::decode::MAX_SIDE;
use super::error::{DatasetError, Looked, Result};
use super::record::{Content, DigestOf, Ignored, Labels, Located, Opened, Reader, Record, Records};
use super::registry::{Entry, Split};
use super::source::Source;
use kinset_artifact::pixels::Pixels;
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;

/// Deflate's best: 258 bytes for 2 bits (zlib's technical details).
const MOST_SHRUNK: u64 = 1032;

/// What a data set's definition says about its files.
#[derive(Clone, Debug)]
struct Claim {
    shape: Option<(usize, usize)>,
    counts: Vec<Option<u64>>,
    classes: &'static [&'static str],
}

/// The files of the parts: for each one images and perhaps labels, as indices into the located files.
struct Plan {
    parts: Vec<(usize, Option<usize>)>,
    claim: Claim,
    /// What to say to whoever asks for labels.
    absent: Option<String>,
}

/// Looks for a data set's files.
pub(super) fn locate(entry: &Entry, source: &Source, parts: &[String], places: &DataPaths) -> Result<Located> {
    let mut looked = Vec::new();
    for place in places.candidates(entry.name, source.root.as_deref(), entry.system) {
        let (mut files, mut plan, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let mut absent = None;
        for part in parts {
            let (images, labels) = names(entry.split(part), part);
            match present(&place, &images)? {
                Some(file) => files.push(file),
                None => missing.push(format!("`{images}.gz`")),
            }
            let image_file = files.len().saturating_sub(1);
            let label_file = present(&place, &labels)?;
            if label_file.is_none() {
                absent.get_or_insert_with(|| format!("`{}` lacks `{labels}.gz`", place.display()));
            }
            plan.push((image_file, label_file.as_ref().map(|_| files.len())));
            files.extend(label_file);
        }
        if missing.is_empty() {
            let counts = parts.iter().map(|part| entry.split(part).and_then(|split| split.count)).collect();
            let claim = Claim { shape: entry.shape, counts, classes: entry.classes };
            return Ok(Located {
                files,
                root: Some(place),
                ignored: Ignored::default(),
                reader: Box::new(Plan { parts: plan, claim, absent }),
                limit: None,
            });
        }
        looked.push(Looked::new(&place, &missing));
    }
    Err(DatasetError::Missing { dataset: entry.name.to_owned(), looked, advice: entry.way(source, places) })
}

/// The names of a part's files, without `.gz`.
fn names(split: Option<&Split>, part: &str) -> (String, String) {
    match split {
        Some(split) => (split.images.to_owned(), split.labels.to_owned()),
        None if part == "all" => ("images-idx3-ubyte".to_owned(), "labels-idx1-ubyte".to_owned()),
        None => (format!("{part}-images-idx3-ubyte"), format!("{part}-labels-idx1-ubyte")),
    }
}

/// The file under one of the names in use: packed or not, and with the dot that some copies of MNIST have.
fn present(place: &Path, name: &str) -> Result<Option<RawFile>> {
    let dotted = name.replace("-idx", ".idx");
    for name in [format!("{name}.gz"), name.to_owned(), format!("{dotted}.gz"), dotted] {
        let path = place.join(&name);
        if let Some(found) = fs::metadata(&path)?.filter(std::fs::Metadata::is_file) {
            return Ok(Some(RawFile { name, path, bytes: found.len() }));
        }
    }
    Ok(None)
}

impl Reader for Plan {
    fn open(&self, files: &[RawFile], _: &mut DigestOf) -> Result<Opened> {
        let labeled = self.absent.is_none();
        let mut parts = Vec::new();
        for (&(images, labels), count) in self.parts.iter().zip(&self.claim.counts) {
            let images = Images::read(Stream::open(&files[images])?, self.claim.shape, *count)?;
            let labels = match labels {
                Some(labels) if labeled => Some(read_labels(Stream::open(&files[labels])?, &images, self.claim.classes.len())?),
                _ => None,
            };
            parts.push(Part { images, labels });
        }
        let count = parts.iter().map(|part| part.images.count).fold(0_u64, u64::saturating_add);
        let labels = match &self.absent {
            Some(why) => Labels::Absent { why: why.clone() },
            None if self.claim.classes.is_empty() => Labels::Numbered,
            None => Labels::Named(self.claim.classes.iter().map(|&name| name.to_owned()).collect()),
        };
        parts.reverse();
        Ok(Opened { labels, count: usize::try_from(count).unwrap_or(usize::MAX), records: Box::new(Idx { parts }) })
    }
}

/// The records of several parts, the first one last in the list.
struct Idx {
    parts: Vec<Part>,
}

struct Part {
    images: Images,
    labels: Option<Vec<u8>>,
}

impl Iterator for Idx {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let part = self.parts.last_mut()?;
            let row = part.images.next;
            match part.images.next() {
                Ok(Some(pixels)) => {
                    let label = part.labels.as_ref().and_then(|labels| labels.get(row as usize)).map(|&l| i32::from(l));
                    return Some(Ok(Record {
                        width: pixels.width,
                        height: pixels.height,
                        channels: 1,
                        content: Content::Raw(pixels),
                        path: None,
                        label,
                    }));
                }
                Ok(None) => {
                    self.parts.pop();
                }
                Err(error) => {
                    self.parts.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl Records for Idx {}

/// A file of images behind its checked header.
struct Images {
    stream: Stream,
    count: u64,
    height: usize,
    width: usize,
    next: u64,
}

impl Images {
    /// Reads and checks the header.
    fn read(mut stream: Stream, shape: Option<(usize, usize)>, count: Option<u64>) -> Result<Self> {
        let [images, height, width] = stream.header::<3>()?;
        for (offset, field, found, known) in
            [(8, "height", height, shape.map(|(height, _)| height)), (12, "width", width, shape.map(|(_, width)| width))]
        {
            let fits = known.map_or((1..=MAX_SIDE as u64).contains(&found), |known| found == known as u64);
            if !fits {
                let expected = known.map_or(format!("1 to {MAX_SIDE}"), |known| known.to_string());
                return Err(stream.malformed(offset, field, expected, found.to_string()));
            }
        }
        if images == 0 || count.is_some_and(|count| count != images) {
            let expected = count.map_or("1 or more".to_owned(), |count| count.to_string());
            return Err(stream.malformed(4, "the number of images", expected, images.to_string()));
        }
        stream.promise(16 + u128::from(images) * u128::from(height) * u128::from(width))?;
        // Both sides are at most MAX_SIDE.
        Ok(Self { stream, count: images, height: height as usize, width: width as usize, next: 0 })
    }

    /// The next image, or nothing after the last one.
    fn next(&mut self) -> Result<Option<Pixels>> {
        if self.next == self.count {
            self.stream.finish()?;
            return Ok(None);
        }
        let data = self.stream.take(self.height * self.width)?;
        self.next += 1;
        if self.next == self.count {
            // The end belongs to the last image: a reader that takes as many as it was promised must hear of damage too.
            self.stream.finish()?;
        }
        Ok(Some(Pixels::new(self.width, self.height, 1, data)))
    }
}

/// All labels of a part, one byte each.
fn read_labels(mut stream: Stream, images: &Images, classes: usize) -> Result<Vec<u8>> {
    let [count] = stream.header::<1>()?;
    if count != images.count {
        return Err(DatasetError::Mismatch {
            images: images.stream.file.clone(),
            image_count: images.count,
            labels: stream.file,
            label_count: count,
        });
    }
    stream.promise(8 + u128::from(count))?;
    // The header's u32 fits, and memory grows only with the bytes that arrive.
    let labels = stream.take(count as usize)?;
    stream.finish()?;
    if classes > 0
        && let Some(row) = labels.iter().position(|&label| usize::from(label) >= classes)
    {
        return Err(DatasetError::Label { file: stream.file, row: row as u64, found: i64::from(labels[row]), classes });
    }
    Ok(labels)
}

/// A file that is unpacked while it is read.
struct Stream {
    inner: Box<dyn Read + Send>,
    file: String,
    /// Bytes on disk.
    bytes: u64,
    packed: bool,
    /// Unpacked bytes taken so far.
    at: u64,
    /// Unpacked bytes that the header promises.
    promised: u64,
}

impl Stream {
    fn open(file: &RawFile) -> Result<Self> {
        Self::new(fs::reader(&file.path)?, &file.path, file.bytes)
    }

    /// Tells packed from plain by the first bytes, not by the name: browsers unpack what they download.
    fn new(mut reader: impl BufRead + Send + 'static, path: &Path, bytes: u64) -> Result<Self> {
        let packed = fs::At::at(reader.fill_buf(), "read", path)?.starts_with(&[0x1f, 0x8b]);
        let inner: Box<dyn Read + Send> = if packed { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) };
        Ok(Self { inner, file: path.display().to_string(), bytes, packed, at: 0, promised: 0 })
    }

    fn malformed(&self, offset: u64, field: &'static str, expected: String, found: String) -> DatasetError {
        DatasetError::Malformed { file: self.file.clone(), offset, field, expected, found }
    }

    /// Checks magic and rank, and reads the sizes.
    fn header<const RANK: usize>(&mut self) -> Result<[u64; RANK]> {
        self.promised = 4 + 4 * RANK as u64;
        let magic = self.take(4)?;
        let expected = [0, 0, 8, RANK as u8];
        if magic != expected {
            let show = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            return Err(self.malformed(0, "the magic number", show(&expected), show(&magic)));
        }
        let sizes = self.take(4 * RANK)?;
        let mut header = [0; RANK];
        for (size, bytes) in header.iter_mut().zip(sizes.chunks_exact(4)) {
            *size = bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
        }
        Ok(header)
    }

    /// Holds the promised length against what is on disk.
    fn promise(&mut self, promised: u128) -> Result<()> {
        let possible = if self.packed { u128::from(self.bytes) * u128::from(MOST_SHRUNK) } else { u128::from(self.bytes) };
        self.promised = u64::try_from(promised).unwrap_or(u64::MAX);
        if promised > possible {
            let found = u64::try_from(possible).unwrap_or(u64::MAX);
            return Err(if self.packed {
                let (expected, found) = (format!("{promised} unpacked bytes"), format!("at most {found}"));
                self.malformed(4, "the content", expected, found)
            } else {
                DatasetError::Truncated { file: self.file.clone(), expected: self.promised, found }
            });
        }
        if !self.packed && promised < possible {
            return Err(DatasetError::TooLong { file: self.file.clone(), expected: self.promised });
        }
        Ok(())
    }

    /// The next bytes, all of them.
    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(1 << 16));
        let result = (&mut self.inner).take(count as u64).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        match result {
            Err(source) => Err(self.broke(source)),
            Ok(_) if bytes.len() < count => {
                Err(DatasetError::Truncated { file: self.file.clone(), expected: self.promised, found: self.at })
            }
            Ok(_) => Ok(bytes),
        }
    }

    /// Makes sure that nothing follows; with gzip that also checks the checksum.
    fn finish(&mut self) -> Result<()> {
        let mut byte = [0];
        loop {
            match self.inner.read(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => return Err(DatasetError::TooLong { file: self.file.clone(), expected: self.promised }),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broke(error)),
            }
        }
    }

    fn broke(&self, source: io::Error) -> DatasetError {
        DatasetError::Unpack { file: self.file.clone(), offset: self.at, source }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::file_digest;
    use crate::registry;

    fn header(sizes: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, sizes.len() as u8];
        for size in sizes {
            bytes.extend(size.to_be_bytes());
        }
        bytes
    }

    fn with(sizes: &[u32], data: impl IntoIterator<Item = u8>) -> Vec<u8> {
        let mut bytes = header(sizes);
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(images: &[u8], labels: Option<&[u8]>) -> Result<(Labels, Vec<Record>)> {
        read_as("", "all", images, labels)
    }

    /// Writes files under the names of a part and reads them as `dataset = "idx"`.
    fn read_as(ending: &str, split: &str, images: &[u8], labels: Option<&[u8]>) -> Result<(Labels, Vec<Record>)> {
        let dir = tempfile::tempdir().unwrap();
        let prefix = if split == "all" { String::new() } else { format!("{split}-") };
        fs::write_atomic(&dir.path().join(format!("{prefix}images-idx3-ubyte{ending}")), images).unwrap();
        if let Some(labels) = labels {
            fs::write_atomic(&dir.path().join(format!("{prefix}labels-idx1-ubyte{ending}")), labels).unwrap();
        }
        open(&Source::named("idx").split(split).root(dir.path()))
    }

    fn open(source: &Source) -> Result<(Labels, Vec<Record>)> {
        let located = registry::locate(source, &DataPaths::new("", None, None))?;
        let opened = located.open(&mut file_digest)?;
        let count = opened.count;
        let records: Vec<_> = opened.records.collect::<Result<_>>()?;
        assert_eq!(records.len(), count);
        Ok((opened.labels, records))
    }

    fn text<T: std::fmt::Debug>(result: Result<T>) -> String {
        let text = result.unwrap_err().to_string();
        // The folder is a random one.
        text.split('`').map(|part| part.rsplit('/').next().unwrap()).collect::<Vec<_>>().join("`")
    }

    #[test]
    fn images_and_labels_come_out_row_by_row() {
        let images = with(&[2, 2, 3], 0..12);
        let labels = with(&[2], [7, 3]);
        for (images, labels, ending) in
            [(images.clone(), labels.clone(), ""), (gzip(&images), gzip(&labels), ".gz"), (images, gzip(&labels), "")]
        {
            let (names, records) = read_as(ending, "all", &images, Some(&labels)).unwrap();
            assert_eq!(names, Labels::Numbered);
            assert_eq!(records[0].content, Content::Raw(Pixels::new(3, 2, 1, (0..6).collect())));
            assert_eq!(records[1].content, Content::Raw(Pixels::new(3, 2, 1, (6..12).collect())));
            assert_eq!([records[0].label, records[1].label], [Some(7), Some(3)]);
            assert_eq!((records[0].width, records[0].height, records[0].channels), (3, 2, 1));
        }
    }

    #[test]
    fn a_file_that_a_browser_unpacked_but_did_not_rename_is_read() {
        let images = with(&[1, 1, 1], [9]);
        assert_eq!(read_as(".gz", "all", &images, None).unwrap().1.len(), 1);
    }

    #[test]
    fn without_labels_the_reason_is_told() {
        let (labels, records) = read(&with(&[1, 1, 1], [9]), None).unwrap();
        assert_eq!(records[0].label, None);
        let Labels::Absent { why } = labels else { panic!("{labels:?}") };
        assert!(why.contains("lacks `labels-idx1-ubyte.gz`"), "{why}");
    }

    #[test]
    fn parts_of_ones_own_have_their_names_in_front() {
        assert_eq!(read_as("", "letters", &with(&[1, 1, 1], [9]), None).unwrap().1.len(), 1);
        let dir = tempfile::tempdir().unwrap();
        for (part, value) in [("a", 1), ("b", 2)] {
            let path = dir.path().join(format!("{part}-images-idx3-ubyte"));
            fs::write_atomic(&path, &with(&[1, 1, 1], [value])).unwrap();
        }
        let (_, records) = open(&Source::named("idx").split("b+a").root(dir.path())).unwrap();
        let values: Vec<_> = records
            .iter()
            .map(|record| match &record.content {
                Content::Raw(pixels) => pixels.data[0],
                Content::Encoded { .. } => panic!("arrays are raw"),
            })
            .collect();
        assert_eq!(values, [2, 1], "parts come in the order they are asked for");
    }

    #[test]
    fn faults_name_file_byte_expected_and_found() {
        let cases: [(Vec<u8>, &str); 10] = [
            (header(&[0, 1, 1]), "`images-idx3-ubyte`, byte 4: the number of images should be 1 or more, found 0"),
            (vec![], "`images-idx3-ubyte` ends after 0 bytes, its header promises 16"),
            (header(&[1, 1]), "`images-idx3-ubyte`, byte 0: the magic number should be 00 00 08 03, found 00 00 08 02"),
            (
                b"<html>no such page</html>".to_vec(),
                "`images-idx3-ubyte`, byte 0: the magic number should be 00 00 08 03, found 3c 68 74 6d",
            ),
            (header(&[1, 1, 1])[..10].to_vec(), "`images-idx3-ubyte` ends after 10 bytes, its header promises 16"),
            (with(&[2, 2, 3], 0..11), "`images-idx3-ubyte` ends after 27 bytes, its header promises 28"),
            (with(&[2, 2, 3], 0..13), "`images-idx3-ubyte` goes on after byte 28, where its header says it ends"),
            (with(&[1, 0, 3], 0..3), "`images-idx3-ubyte`, byte 8: height should be 1 to 16384, found 0"),
            (with(&[1, 1, 16_385], 0..3), "`images-idx3-ubyte`, byte 12: width should be 1 to 16384, found 16385"),
            (
                with(&[u32::MAX, 16_384, 16_384], 0..3),
                "`images-idx3-ubyte` ends after 19 bytes, its header promises 1,152,921,504,338,411,536",
            ),
        ];
        for (bytes, expected) in cases {
            assert_eq!(text(read(&bytes, None)), expected);
        }
    }

    #[test]
    fn labels_are_held_against_the_images() {
        let images = with(&[2, 1, 1], [0, 0]);
        assert_eq!(
            text(read(&images, Some(&with(&[3], [0, 1, 2])))),
            "`images-idx3-ubyte` holds 2 images, `labels-idx1-ubyte` 3 labels"
        );
        assert_eq!(
            text(read(&images, Some(&with(&[2], [0])))),
            "`labels-idx1-ubyte` ends after 9 bytes, its header promises 10"
        );
        assert_eq!(
            text(read(&images, Some(&with(&[2, 1], [0, 1])))),
            "`labels-idx1-ubyte`, byte 0: the magic number should be 00 00 08 01, found 00 00 08 02"
        );
    }

    #[test]
    fn a_packed_file_that_cannot_hold_what_it_promises_is_not_unpacked() {
        let bomb = gzip(&header(&[u32::MAX, 16_384, 16_384]));
        let text = text(read_as(".gz", "all", &bomb, None));
        assert!(text.contains("byte 4: the content should be 1152921504338411536 unpacked bytes, found at most"), "{text}");
    }

    #[test]
    fn packed_files_that_end_early_go_on_or_are_damaged_are_refused() {
        let whole = with(&[3, 20, 20], (0..1200_u32).map(|i| (i * 7919 % 251) as u8));
        let packed = gzip(&whole);
        assert_eq!(read_as(".gz", "all", &packed, None).unwrap().1.len(), 3);
        // Every truncation, down to the checksum's last byte.
        for length in 0..packed.len() {
            assert!(read_as(".gz", "all", &packed[..length], None).is_err(), "{length} of {} bytes", packed.len());
        }
        let mut wrong = packed.clone();
        let crc = wrong.len() - 8;
        wrong[crc] ^= 1;
        assert!(
            text(read_as(".gz", "all", &wrong, None)).starts_with("cannot unpack `images-idx3-ubyte.gz` beyond byte 1,216")
        );
        let mut long = whole.clone();
        long.push(0);
        assert_eq!(
            text(read_as(".gz", "all", &gzip(&long), None)),
            "`images-idx3-ubyte.gz` goes on after byte 1,216, where its header says it ends"
        );
        assert_eq!(
            text(read_as(".gz", "all", &gzip(&whole[..1000]), None)),
            "`images-idx3-ubyte.gz` ends after 1,000 bytes, its header promises 1,216"
        );
    }

    #[test]
    fn a_limit_reads_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = gzip(&with(&[3, 1, 1], 0..3));
        fs::write_atomic(&dir.path().join("images-idx3-ubyte.gz"), &bytes[..bytes.len() - 4]).unwrap();
        let mut source = Source::named("idx").root(dir.path());
        assert!(open(&source).is_err(), "the checksum is cut");
        source.limit = Some(2);
        assert_eq!(open(&source).unwrap().1.len(), 2);
        source.limit = Some(5);
        assert!(open(&source).is_err());
    }

    #[test]
    fn an_iterator_ends_after_its_error() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = gzip(&with(&[3, 1, 1], 0..2));
        fs::write_atomic(&dir.path().join("images-idx3-ubyte.gz"), &bytes).unwrap();
        let located = registry::locate(&Source::named("idx").root(dir.path()), &DataPaths::new("", None, None)).unwrap();
        let mut records = located.open(&mut file_digest).unwrap().records;
        assert!(records.next().unwrap().is_ok());
        assert!(records.next().unwrap().is_ok());
        assert!(records.next().unwrap().is_err());
        assert!(records.next().is_none());
    }

    #[test]
    fn a_known_data_set_must_be_what_its_name_says() {
        let read = |sizes: [u32; 3], labels: Vec<u8>| {
            let dir = tempfile::tempdir().unwrap();
            let pixels = sizes.iter().product::<u32>() as usize;
            fs::write_atomic(&dir.path().join("images-idx3-ubyte"), &with(&sizes, vec![0; pixels])).unwrap();
            fs::write_atomic(&dir.path().join("labels-idx1-ubyte"), &with(&[labels.len() as u32], labels)).unwrap();
            text(open(&Source::named("digits").root(dir.path())))
        };
        assert_eq!(read([1797, 8, 9], vec![0; 1797]), "`images-idx3-ubyte`, byte 12: width should be 8, found 9");
        assert_eq!(
            read([1796, 8, 8], vec![0; 1796]),
            "`images-idx3-ubyte`, byte 4: the number of images should be 1797, found 1796"
        );
        let mut labels = vec![9; 1797];
        labels[1000] = 10;
        assert_eq!(
            read([1797, 8, 8], labels),
            "`labels-idx1-ubyte`: the label of image 1000 is 10, the data set has 10 classes"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            sizes in prop::array::uniform3(prop_oneof![0_u32..6, any::<u32>()]),
            data in prop::collection::vec(any::<u8>(), 0..64),
            cut in 0_usize..80,
            flip in prop::option::of((0_usize..80, any::<u8>())),
            packed: bool,
        ) {
            let mut bytes = with(&sizes, data);
            bytes.truncate(cut);
            let promised = sizes.iter().map(|&size| u128::from(size)).product::<u128>() + 16;
            let side = 1..=MAX_SIDE as u32;
            let sound = bytes.len() as u128 == promised && sizes[0] > 0 && side.contains(&sizes[1]) && side.contains(&sizes[2]);
            if packed {
                bytes = gzip(&bytes);
            }
            if let Some((at, value)) = flip && let Some(byte) = bytes.get_mut(at) {
                *byte = value;
                let _ = read(&bytes, None);
            } else {
                prop_assert_eq!(read(&bytes, None).is_ok(), sound);
            }
        }
    }
}
