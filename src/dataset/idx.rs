//! MNIST's format: an array of bytes behind a header of big-endian numbers, gzipped or not.
//!
//! The header is `0 0 8 rank` and one u32 per axis: images have rank 3 (N, height, width), labels rank 1 (N). Nothing of it is
//! trusted before it is checked: sides and products are bounded, an unpacked file must have exactly the promised length, a
//! gzipped one must be able to hold it (deflate shrinks at most 1032:1), and memory grows with the data that arrive, never with
//! what a header says.
//!
//! Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", file formats.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::byte_stream::{ByteStream, hex, malformed};
use super::entry::{Entry, Format, Request, Split};
use super::error::{DatasetError, Result};
use super::fetch::remote::{Download, MIB};
use super::fixed_layout::locate_fixed;
use super::guarded_decode::MAX_SIDE;
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Labels, Record, checked_label};
use kinset_artifact::pixels::Pixels;
use kinset_base::file_kind::kind_of;
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::unit::counted;

/// Deflate's best: 258 bytes for 2 bits (zlib's technical details).
const MOST_SHRUNK: u64 = 1032;

pub(super) const NUMERALS: &[&str] = &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

const CLOTHES: &[&str] =
    &["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

const fn splits(train: u64, test: u64) -> [Split; 2] {
    [
        Split { name: "train", images: "train-images-idx3-ubyte", labels: "train-labels-idx1-ubyte", count: Some(train) },
        Split { name: "test", images: "t10k-images-idx3-ubyte", labels: "t10k-labels-idx1-ubyte", count: Some(test) },
    ]
}

const fn downloads(bases: &'static [&'static str], md5: [&'static str; 4]) -> [Download; 4] {
    [
        Download::file("train-images-idx3-ubyte.gz", bases, md5[0], 64 * MIB),
        Download::file("train-labels-idx1-ubyte.gz", bases, md5[1], 64 * MIB),
        Download::file("t10k-images-idx3-ubyte.gz", bases, md5[2], 64 * MIB),
        Download::file("t10k-labels-idx1-ubyte.gz", bases, md5[3], 64 * MIB),
    ]
}

pub(super) static DATASETS: &[Entry] = &[
    Entry {
        license: "CC BY 4.0",
        splits: &[Split { name: "all", images: "images-idx3-ubyte", labels: "labels-idx1-ubyte", count: Some(1797) }],
        shape: Some((8, 8)),
        classes: NUMERALS,
        ..Entry::new(
            "digits",
            "UCI optical digits, test part: 1,797 gray images, 8×8",
            "it is part of kinset's repository: copy `data/digits` from there",
            &Idx,
        )
    },
    Entry {
        license: "MIT",
        splits: &splits(5_000, 1_000),
        shape: Some((28, 28)),
        classes: CLOTHES,
        ..Entry::new(
            "fashion-mini",
            "the first 5,000 + 1,000 images of Fashion-MNIST: gray, 28×28",
            "it is part of kinset's repository: copy `data/fashion-mini` from there",
            &Idx,
        )
    },
    Entry {
        license: "MIT",
        splits: &splits(60_000, 10_000),
        shape: Some((28, 28)),
        classes: CLOTHES,
        system: &["/usr/share/datasets/fashion-mnist"],
        downloads: &downloads(
            &[
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            ],
            [
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ],
        ),
        ..Entry::new(
            "fashion-mnist",
            "Zalando's clothes: 60,000 + 10,000 gray images, 28×28",
            "on Debian and Ubuntu `apt install dataset-fashion-mnist`; else put the four files of \
             https://github.com/zalandoresearch/fashion-mnist there",
            &Idx,
        )
    },
    Entry {
        license: "CC BY-SA 3.0",
        splits: &splits(60_000, 10_000),
        shape: Some((28, 28)),
        classes: NUMERALS,
        downloads: &downloads(
            &["https://ossci-datasets.s3.amazonaws.com/mnist/"],
            [
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ],
        ),
        ..Entry::new(
            "mnist",
            "handwritten digits: 60,000 + 10,000 gray images, 28×28",
            "put its four published files (`train-images-idx3-ubyte.gz` …) there",
            &Idx,
        )
    },
    Entry::new(
        "idx",
        "your own arrays in MNIST's format: `images-idx3-ubyte`, or `SPLIT-images-idx3-ubyte`; labels likewise",
        "name their folder with `root = \"DIR\"`",
        &Idx,
    ),
];

#[derive(Debug)]
struct Idx;

/// A part: images and perhaps labels, as places among the located files, and how many were published.
struct Part {
    images: usize,
    labels: Option<usize>,
    count: Option<u64>,
}

impl Format for Idx {
    fn name(&self) -> &'static str {
        "idx"
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let (shape, classes) = (request.entry.shape, request.entry.classes);
        locate_fixed(request, &[("", ())], |lookup, ()| {
            // Why there are no labels.
            let (mut parts, mut absent) = (Vec::new(), None);
            for part in request.parts {
                let split = request.entry.split(part);
                let (images, labels) = match split {
                    Some(split) => (split.images.to_owned(), split.labels.to_owned()),
                    None if part == "all" => ("images-idx3-ubyte".to_owned(), "labels-idx1-ubyte".to_owned()),
                    None => (format!("{part}-images-idx3-ubyte"), format!("{part}-labels-idx1-ubyte")),
                };
                let images = lookup.require(&names(&images))?;
                let labels = names(&labels);
                let found = lookup.find(&labels)?;
                if found.is_none() {
                    absent.get_or_insert_with(|| format!("`{}` lacks `{}`", lookup.folder.display(), labels[0]));
                }
                parts.push(Part { images, labels: found, count: split.and_then(|split| split.count) });
            }
            let kind = absent.map_or_else(|| Labels::of_classes(classes), |why| Labels::Absent { why });
            Ok(move |files: &Arc<[RawFile]>, _: &mut DigestOf| open(files, &parts, shape, &kind, classes.len()))
        })
    }
}

/// The names in use for a file: packed or not, and with the dot that some copies of MNIST have.
fn names(name: &str) -> [String; 4] {
    let dotted = name.replace("-idx", ".idx");
    [format!("{name}.gz"), name.to_owned(), format!("{dotted}.gz"), dotted]
}

fn open(
    files: &[RawFile],
    parts: &[Part],
    shape: Option<(usize, usize)>,
    kind: &Labels,
    classes: usize,
) -> Result<DatasetReader> {
    let (mut opened, mut total) = (Vec::new(), 0_u64);
    for &Part { images, labels, count } in parts {
        let images = Images::open(&files[images], shape, count)?;
        let labels = match labels {
            Some(labels) if !matches!(kind, Labels::Absent { .. }) => Some(read_labels(&files[labels], &images, classes)?),
            _ => None,
        };
        total = total.saturating_add(images.count);
        opened.push(images.records(labels));
    }
    Ok(DatasetReader::chain(kind.clone(), usize::try_from(total).unwrap_or(usize::MAX), opened))
}

/// A file of images behind its checked header.
struct Images {
    stream: ByteStream,
    count: u64,
    height: usize,
    width: usize,
}

impl Images {
    fn open(file: &RawFile, shape: Option<(usize, usize)>, count: Option<u64>) -> Result<Self> {
        let mut array = Array::open(file)?;
        let [images, height, width] = array.header::<3>()?;
        for (offset, field, found, known) in
            [(8, "height", height, shape.map(|(height, _)| height)), (12, "width", width, shape.map(|(_, width)| width))]
        {
            let fits = known.map_or((1..=MAX_SIDE as u64).contains(&found), |known| found == known as u64);
            if !fits {
                let expected = known.map_or(format!("1 to {MAX_SIDE}"), |known| known.to_string());
                return Err(malformed(&array.stream.file, offset, field, expected, found));
            }
        }
        if images == 0 || count.is_some_and(|count| count != images) {
            let expected = count.map_or("1 or more".to_owned(), |count| count.to_string());
            return Err(malformed(&array.stream.file, 4, "the number of images", expected, images));
        }
        array.promise(16 + u128::from(images) * u128::from(height) * u128::from(width))?;
        // Both sides are at most MAX_SIDE.
        Ok(Self { stream: array.stream, count: images, height: height as usize, width: width as usize })
    }

    fn records(self, labels: Option<Vec<i32>>) -> impl Iterator<Item = Result<Record>> + Send {
        let Self { mut stream, count, height, width } = self;
        (0..count).map(move |row| {
            let data = stream.take((height * width) as u64)?;
            if row + 1 == count {
                // The end belongs to the last image: a reader that takes as many as it was promised must hear of damage too.
                stream.finish()?;
            }
            let label = labels.as_ref().and_then(|labels| labels.get(row as usize)).copied();
            Ok(Record::raw(Pixels::new(width, height, 1, data), label))
        })
    }
}

/// All labels of a part, one byte each.
fn read_labels(file: &RawFile, images: &Images, classes: usize) -> Result<Vec<i32>> {
    let mut array = Array::open(file)?;
    let [count] = array.header::<1>()?;
    if count != images.count {
        return Err(DatasetError::Mismatch {
            images: images.stream.file.clone(),
            image_count: images.count,
            labels: array.stream.file,
            label_count: count,
        });
    }
    array.promise(8 + u128::from(count))?;
    // Memory grows only with the bytes that arrive.
    let labels = array.stream.take(count)?;
    array.stream.finish()?;
    // Without names any byte is a label.
    let classes = if classes == 0 { 256 } else { classes };
    (0..).zip(labels).map(|(row, label)| checked_label(&array.stream.file, row, i64::from(label), classes)).collect()
}

struct Array {
    stream: ByteStream,
    /// Bytes on disk.
    bytes: u64,
    packed: bool,
}

/// A magic number, and what it says of the array.
fn in_words(magic: [u8; 4]) -> String {
    let kind = match magic[2] {
        0x08 => "unsigned bytes",
        0x09 => "signed bytes",
        0x0b => "16-bit integers",
        0x0c => "32-bit integers",
        0x0d => "32-bit floats",
        0x0e => "64-bit floats",
        _ => "",
    };
    match magic {
        [0, 0, _, rank] if !kind.is_empty() => {
            format!("{} ({kind} in {})", hex(&magic), counted(rank.into(), "dimension"))
        }
        _ => format!("{} (not an IDX file)", hex(&magic)),
    }
}

impl Array {
    /// Tells packed from plain by the first bytes, not by the name: browsers unpack what they download.
    fn open(file: &RawFile) -> Result<Self> {
        let mut reader = fs::reader(&file.path)?;
        let packed = fs::At::at(reader.fill_buf(), "read", &file.path)?.starts_with(&[0x1f, 0x8b]);
        let inner: Box<dyn Read + Send> = if packed { Box::new(MultiGzDecoder::new(reader)) } else { Box::new(reader) };
        Ok(Self { stream: ByteStream::new(inner, file.path.display().to_string()), bytes: file.bytes, packed })
    }

    /// Checks magic and rank, and reads the sizes.
    fn header<const RANK: usize>(&mut self) -> Result<[u64; RANK]> {
        self.stream.promised = 4 + 4 * RANK as u64;
        let magic = self.stream.array::<4>()?;
        let expected = [0, 0, 8, RANK as u8];
        if magic != expected {
            let file = self.stream.file.clone();
            return Err(match kind_of(Path::new(&file)).filter(|_| !self.packed && magic[..2] != [0, 0]) {
                Some(kind) => DatasetError::OtherKind { file, wanted: "an IDX file", kind },
                None => malformed(&file, 0, "the magic number", in_words(expected), in_words(magic)),
            });
        }
        let mut sizes = [0; RANK];
        for size in &mut sizes {
            *size = u64::from(u32::from_be_bytes(self.stream.array()?));
        }
        Ok(sizes)
    }

    /// Holds the promised length against what is on disk.
    fn promise(&mut self, promised: u128) -> Result<()> {
        let possible = if self.packed { u128::from(self.bytes) * u128::from(MOST_SHRUNK) } else { u128::from(self.bytes) };
        let (file, expected) = (self.stream.file.clone(), u64::try_from(promised).unwrap_or(u64::MAX));
        self.stream.promised = expected;
        if promised > possible && self.packed {
            return Err(malformed(
                &file,
                4,
                "the content",
                format!("{promised} unpacked bytes"),
                format!("at most {possible}"),
            ));
        }
        if promised > possible {
            return Err(DatasetError::Truncated { file, expected, found: self.bytes });
        }
        if !self.packed && promised < possible {
            return Err(DatasetError::TooLong { file, expected });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::Source;
    use crate::file_digest;
    use crate::reader::Content;
    use crate::registry;
    use kinset_base::search_path::DataPaths;

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
        let cases: [(Vec<u8>, &str); 12] = [
            (header(&[0, 1, 1]), "`images-idx3-ubyte`, byte 4: the number of images should be 1 or more, found 0"),
            (vec![], "`images-idx3-ubyte` ends after 0 bytes, its header declares 16"),
            (
                header(&[1, 1]),
                "`images-idx3-ubyte`, byte 0: the magic number should be 00 00 08 03 (unsigned bytes in 3 dimensions), found \
                 00 00 08 02 (unsigned bytes in 2 dimensions)",
            ),
            (
                [&[0, 0, 13, 1][..], &header(&[1])[4..]].concat(),
                "`images-idx3-ubyte`, byte 0: the magic number should be 00 00 08 03 (unsigned bytes in 3 dimensions), found \
                 00 00 0d 01 (32-bit floats in 1 dimension)",
            ),
            (
                b"\x01\x02\x03\x04".to_vec(),
                "`images-idx3-ubyte`, byte 0: the magic number should be 00 00 08 03 (unsigned bytes in 3 dimensions), found \
                 01 02 03 04 (not an IDX file)",
            ),
            (
                b"<html>no such page</html>".to_vec(),
                "`images-idx3-ubyte` is not an IDX file, but an HTML page: an error or login page may have been saved in the file's place",
            ),
            (header(&[1, 1, 1])[..10].to_vec(), "`images-idx3-ubyte` ends after 10 bytes, its header declares 16"),
            (with(&[2, 2, 3], 0..11), "`images-idx3-ubyte` ends after 27 bytes, its header declares 28"),
            (with(&[2, 2, 3], 0..13), "`images-idx3-ubyte` has data after byte 28, where its header says it ends"),
            (with(&[1, 0, 3], 0..3), "`images-idx3-ubyte`, byte 8: height should be 1 to 16384, found 0"),
            (with(&[1, 1, 16_385], 0..3), "`images-idx3-ubyte`, byte 12: width should be 1 to 16384, found 16385"),
            (
                with(&[u32::MAX, 16_384, 16_384], 0..3),
                "`images-idx3-ubyte` ends after 19 bytes, its header declares 1,152,921,504,338,411,536",
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
            "`images-idx3-ubyte` contains 2 images, `labels-idx1-ubyte` 3 labels"
        );
        assert_eq!(
            text(read(&images, Some(&with(&[2], [0])))),
            "`labels-idx1-ubyte` ends after 9 bytes, its header declares 10"
        );
        assert_eq!(
            text(read(&images, Some(&with(&[2, 1], [0, 1])))),
            "`labels-idx1-ubyte`, byte 0: the magic number should be 00 00 08 01 (unsigned bytes in 1 dimension), found \
             00 00 08 02 (unsigned bytes in 2 dimensions)"
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
            "`images-idx3-ubyte.gz` has data after byte 1,216, where its header says it ends"
        );
        assert_eq!(
            text(read_as(".gz", "all", &gzip(&whole[..1000]), None)),
            "`images-idx3-ubyte.gz` ends after 1,000 bytes, its header declares 1,216"
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
