//! SVHN's cropped digits: MATLAB files of level 5 that hold an array `X` `[32, 32, 3, N]` of bytes and `y` `[N, 1]` of labels.
//!
//! A file is a header and a list of elements, each packed by zlib or not. MATLAB stores the first axis first, so an image is 3,072
//! bytes in a row: planes of columns. Labels run from 1 to 10, and 10 means the digit 0. Only what these files need is read of the
//! format. Nothing in it is believed: elements end with the file, arrays have the sizes that belong together, and memory grows
//! with the data that arrive. The published order is that of street scenes, which labels do not decide, so it is kept.
//!
//! Source: Y. Netzer et al., "Reading digits in natural images with unsupervised feature learning", 2011; The MathWorks, "MAT-File
//! Format", chapter 1.

use std::io::{self, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;

use super::error::{DatasetError, Looked, Result};
use super::planes::{Order, color, present, shown};
use super::record::{Content, DigestOf, Ignored, Labels, Located, Opened, Reader, Record, Records};
use super::registry::Entry;
use super::source::Source;
use kinset_base::fs::{self, At};
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;

/// Pixels per side.
const SIDE: usize = 32;
const IMAGE: usize = 3 * SIDE * SIDE;
const CLASSES: usize = 10;

/// The header before the first element.
const HEADER: u64 = 128;
/// Kinds of data: the numbers are those of the format.
const BYTES: u32 = 2;
const INTEGERS: u32 = 5;
const FLAGS: u32 = 6;
const DOUBLES: u32 = 9;
const MATRIX: u32 = 14;
const PACKED: u32 = 15;
/// Longer names are none of ours.
const LONGEST_NAME: u32 = 63;

struct Plan {
    classes: &'static [&'static str],
    /// Images per file.
    counts: Vec<Option<u64>>,
}

/// Looks for the files of the parts.
pub(super) fn locate(entry: &Entry, source: &Source, parts: &[String], places: &DataPaths) -> Result<Located> {
    let mut looked = Vec::new();
    for place in places.candidates(entry.home(), source.root.as_deref(), entry.system) {
        let (mut files, mut counts, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for split in parts.iter().filter_map(|part| entry.split(part)) {
            match present(&place, split.images)? {
                Some(file) => files.push(file),
                None => missing.push(format!("`{}`", split.images)),
            }
            counts.push(split.count);
        }
        if missing.is_empty() {
            let plan = Plan { classes: entry.classes, counts };
            let ignored = Ignored::default();
            return Ok(Located { files, root: Some(place), ignored, reader: Box::new(plan), limit: None });
        }
        looked.push(Looked::new(&place, &missing));
    }
    Err(DatasetError::Missing { dataset: entry.name.to_owned(), looked, advice: entry.way(source, places) })
}

impl Reader for Plan {
    fn open(&self, files: &[RawFile], _: &mut DigestOf) -> Result<Opened> {
        let mut parts = Vec::new();
        for (file, &count) in files.iter().zip(&self.counts) {
            parts.push(Part::open(file, count)?);
        }
        let count = parts.iter().map(|part| part.labels.len()).sum();
        parts.reverse();
        let labels = Labels::Named(self.classes.iter().map(|&name| name.to_owned()).collect());
        Ok(Opened { labels, count, records: Box::new(Svhn { parts }) })
    }
}

/// The records of several files, the first one last in the list.
struct Svhn {
    parts: Vec<Part>,
}

impl Iterator for Svhn {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.parts.last_mut()?.next() {
                Ok(Some(record)) => return Some(Ok(record)),
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

impl Records for Svhn {}

/// A file's labels, and its images as they are unpacked.
struct Part {
    images: Body,
    labels: Vec<u8>,
    next: usize,
}

impl Part {
    fn open(file: &RawFile, count: Option<u64>) -> Result<Self> {
        let mat = Mat::open(file)?;
        let (mut images, mut labels) = (None, None);
        let mut at = HEADER;
        while let Some(element) = mat.element(at)? {
            at = element.end;
            let Some(mut body) = mat.body(&element)? else { continue };
            let array = body.array()?;
            match array.name.as_str() {
                "X" if images.is_none() => images = Some((body, array)),
                "y" if labels.is_none() => labels = Some(body.labels(&array)?),
                _ => {}
            }
        }
        let lack = if labels.is_none() { "y" } else { "X" };
        let (Some((images, array)), Some(labels)) = (images, labels) else {
            return Err(mat.malformed(HEADER, "the arrays", "`X` and `y`".into(), format!("no `{lack}`")));
        };
        let side = SIDE as u64;
        let fits = matches!(array.sizes[..], [height, width, 3, _] if height == side && width == side);
        let found = array.sizes.get(3).copied().unwrap_or(0);
        if !fits || array.kind != BYTES || array.bytes != found.saturating_mul(IMAGE as u64) {
            let found = format!("{:?} in {} bytes of kind {}", array.sizes, array.bytes, array.kind);
            return Err(mat.malformed(images.start, "`X`", "bytes [32, 32, 3, N]".into(), found));
        }
        if found == 0 || count.is_some_and(|count| count != found) {
            let expected = count.map_or("1 or more".to_owned(), |count| count.to_string());
            return Err(mat.malformed(images.start, "the number of images", expected, found.to_string()));
        }
        if found != labels.len() as u64 {
            let name = mat.name;
            let (images, labels, label_count) = (format!("{name}: X"), format!("{name}: y"), labels.len() as u64);
            return Err(DatasetError::Mismatch { images, image_count: found, labels, label_count });
        }
        Ok(Self { images, labels, next: 0 })
    }

    fn next(&mut self) -> Result<Option<Record>> {
        let Some(&label) = self.labels.get(self.next) else { return Ok(None) };
        let planes = self.images.take(IMAGE as u64)?;
        self.next += 1;
        if self.next == self.labels.len() {
            // The end belongs to the last image: a reader that takes as many as it was promised must hear of damage too.
            self.images.finish()?;
        }
        Ok(Some(Record {
            content: Content::Raw(color(&planes, SIDE, Order::Columns)),
            width: SIDE,
            height: SIDE,
            channels: 3,
            path: None,
            label: Some(i32::from(label)),
        }))
    }
}

/// A MATLAB file of level 5.
struct Mat<'a> {
    file: &'a RawFile,
    name: String,
}

/// One entry of its list.
struct Element {
    kind: u32,
    start: u64,
    end: u64,
}

impl<'a> Mat<'a> {
    /// Checks the header.
    fn open(file: &'a RawFile) -> Result<Self> {
        let mat = Self { file, name: shown(&file.path) };
        if file.bytes < HEADER {
            return Err(mat.truncated(HEADER));
        }
        let tail: [u8; 4] = mat.at(HEADER - 4)?;
        // Version 1, and the order of bytes that turns `MI` into `IM`: small ends first.
        if tail != [0, 1, b'I', b'M'] {
            let show = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            return Err(mat.malformed(HEADER - 4, "version and byte order", show(&[0, 1, b'I', b'M']), show(&tail)));
        }
        Ok(mat)
    }

    /// Some bytes of the file.
    fn at<const N: usize>(&self, offset: u64) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        let mut file = self.seek(offset)?;
        match file.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(DatasetError::Changed { file: self.name.clone() })
            }
            Err(error) => Err(fs::FileError::new("read", &self.file.path, error).into()),
        }
    }

    fn seek(&self, offset: u64) -> Result<Box<dyn Read + Send>> {
        let mut file = fs::open(&self.file.path)?;
        file.seek(SeekFrom::Start(offset)).at("read", &self.file.path)?;
        Ok(Box::new(file))
    }

    /// The element that begins here; none at the end of the file.
    fn element(&self, at: u64) -> Result<Option<Element>> {
        if at == self.file.bytes {
            return Ok(None);
        }
        if self.file.bytes - at < 8 {
            return Err(self.truncated(at + 8));
        }
        let [kind, bytes] = words(self.at(at)?);
        let (start, end) = (at + 8, at + 8 + u64::from(bytes));
        if end > self.file.bytes {
            return Err(self.truncated(end));
        }
        Ok(Some(Element { kind, start, end }))
    }

    /// What a matrix holds, unpacked; other elements are left alone.
    fn body(&self, element: &Element) -> Result<Option<Body>> {
        let raw = self.seek(element.start)?.take(element.end - element.start);
        let raw = io::BufReader::with_capacity(1 << 18, raw);
        let inner: Box<dyn Read + Send> = match element.kind {
            MATRIX => Box::new(raw),
            PACKED => Box::new(ZlibDecoder::new(raw)),
            _ => return Ok(None),
        };
        let mut body = Body { inner, name: self.name.clone(), start: element.start, at: 0 };
        if element.kind == PACKED {
            let [kind, _] = words(body.bytes()?);
            if kind != MATRIX {
                return Ok(None);
            }
        }
        Ok(Some(body))
    }

    fn truncated(&self, expected: u64) -> DatasetError {
        DatasetError::Truncated { file: self.name.clone(), expected, found: self.file.bytes }
    }

    fn malformed(&self, offset: u64, field: &'static str, expected: String, found: String) -> DatasetError {
        DatasetError::Malformed { file: self.name.clone(), offset, field, expected, found }
    }
}

/// Two little-endian numbers.
fn words(bytes: [u8; 8]) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = bytes;
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// What an array says of itself before its data come.
struct Array {
    name: String,
    sizes: Vec<u64>,
    kind: u32,
    bytes: u64,
}

/// A matrix element while it is unpacked.
struct Body {
    inner: Box<dyn Read + Send>,
    name: String,
    /// Where it begins in the file.
    start: u64,
    /// Unpacked bytes taken so far.
    at: u64,
}

impl Body {
    fn malformed(&self, field: &'static str, expected: impl Into<String>, found: impl ToString) -> DatasetError {
        let (expected, found) = (expected.into(), found.to_string());
        DatasetError::Malformed { file: self.name.clone(), offset: self.start, field, expected, found }
    }

    fn broke(&self, source: io::Error) -> DatasetError {
        DatasetError::Unpack { file: self.name.clone(), offset: self.at, source }
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|error| self.broke(error))?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// The next bytes, all of them.
    fn take(&mut self, count: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(count.min(1 << 16) as usize);
        let result = (&mut self.inner).take(count).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        match result {
            Err(error) => Err(self.broke(error)),
            Ok(_) if (bytes.len() as u64) < count => Err(self.broke(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(bytes),
        }
    }

    /// Makes sure that nothing follows, and with it that the checksum is right.
    fn finish(&mut self) -> Result<()> {
        let mut rest = Vec::new();
        match (&mut self.inner).take(1).read_to_end(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => Err(DatasetError::TooLong { file: self.name.clone(), expected: self.at }),
            Err(error) => Err(self.broke(error)),
        }
    }

    /// A short part: its kind and its bytes, at most `most`. Up to four bytes stand in the tag itself; longer ones are filled up
    /// to eights.
    fn part(&mut self, most: u32) -> Result<(u32, Vec<u8>)> {
        let tag: [u8; 8] = self.bytes()?;
        let [kind, bytes] = words(tag);
        if kind >> 16 != 0 {
            let bytes = (kind >> 16).min(4) as usize;
            return Ok((kind & 0xffff, tag[4..4 + bytes].to_vec()));
        }
        if bytes > most {
            return Err(self.malformed("the length of a part of an array", format!("at most {most}"), bytes));
        }
        let mut part = self.take(u64::from(bytes.next_multiple_of(8)))?;
        part.truncate(bytes as usize);
        Ok((kind, part))
    }

    /// Flags, sizes and name; what follows are the data.
    fn array(&mut self) -> Result<Array> {
        let (kind, flags) = self.part(8)?;
        // Bit 3 of the second byte: imaginary parts follow the real ones.
        if kind != FLAGS || flags.len() != 8 || flags[1] & 8 != 0 {
            return Err(self.malformed(
                "the flags of an array",
                "those of real numbers",
                format!("{flags:02x?} of kind {kind}"),
            ));
        }
        let (kind, sizes) = self.part(4 * 8)?;
        if kind != INTEGERS || sizes.len() < 8 || sizes.len() % 4 != 0 {
            return Err(self.malformed(
                "the sizes of an array",
                "2 to 8 numbers",
                format!("{} bytes of kind {kind}", sizes.len()),
            ));
        }
        let sizes = sizes.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))).collect();
        let (_, name) = self.part(LONGEST_NAME)?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let tag: [u8; 8] = self.bytes()?;
        let [kind, bytes] = words(tag);
        if kind >> 16 == 0 {
            return Ok(Array { name, sizes, kind, bytes: u64::from(bytes) });
        }
        // Data so short that they stand in the tag: put them back.
        let short = (kind >> 16).min(4);
        let data = tag[4..4 + short as usize].to_vec();
        self.inner = Box::new(io::Cursor::new(data));
        Ok(Array { name, sizes, kind: kind & 0xffff, bytes: u64::from(short) })
    }

    /// Digits 0 to 9 of the array `y`.
    fn labels(&mut self, array: &Array) -> Result<Vec<u8>> {
        let width = match array.kind {
            BYTES => 1,
            DOUBLES => 8,
            kind => return Err(self.malformed("the numbers of `y`", "bytes or doubles", format!("kind {kind}"))),
        };
        let count = array.sizes.iter().fold(1_u64, |all, &size| all.saturating_mul(size));
        if count.saturating_mul(width) != array.bytes {
            return Err(self.malformed("`y`", format!("{count} labels"), format!("{} bytes", array.bytes)));
        }
        let data = self.take(array.bytes)?;
        let mut labels = Vec::with_capacity(data.len() / width as usize);
        for (row, bytes) in data.chunks_exact(width as usize).enumerate() {
            let label = match *bytes {
                [label] => f64::from(label),
                [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => f64::NAN,
            };
            let digit = (1..=CLASSES as u8).find(|&digit| (f64::from(digit) - label).abs() < 1e-9);
            let Some(digit) = digit else {
                let found = if label.is_finite() { label as i64 } else { -1 };
                return Err(DatasetError::Label { file: self.name.clone(), row: row as u64, found, classes: CLASSES });
            };
            labels.push(digit % CLASSES as u8);
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::file_digest;
    use crate::registry::{self, Split};
    use kinset_base::hint::Fault;

    fn part(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        if data.len() <= 4 {
            bytes.extend((kind | (data.len() as u32) << 16).to_le_bytes());
            bytes.extend(data);
            bytes.resize(8, 0);
        } else {
            bytes.extend(kind.to_le_bytes());
            bytes.extend((data.len() as u32).to_le_bytes());
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    fn element(kind: u32, content: &[u8]) -> Vec<u8> {
        [&kind.to_le_bytes()[..], &(content.len() as u32).to_le_bytes(), content].concat()
    }

    fn matrix(name: &str, sizes: &[u32], kind: u32, data: &[u8]) -> Vec<u8> {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let parts =
            [part(FLAGS, &[9, 0, 0, 0, 0, 0, 0, 0]), part(INTEGERS, &sizes), part(1, name.as_bytes()), part(kind, data)];
        element(MATRIX, &parts.concat())
    }

    fn packed(matrix: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(matrix).unwrap();
        element(PACKED, &encoder.finish().unwrap())
    }

    fn mat(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![b' '; 124];
        bytes.extend([0, 1, b'I', b'M']);
        bytes.extend(elements.concat());
        bytes
    }

    /// Red grows down a column, green is the number, blue is 0.
    fn images(count: u8) -> Vec<u8> {
        let one = |number| {
            let red = (0..SIDE * SIDE).map(|at| (at % SIDE) as u8);
            red.chain(vec![number; SIDE * SIDE]).chain(vec![0; SIDE * SIDE]).collect::<Vec<u8>>()
        };
        (0..count).flat_map(one).collect()
    }

    fn x(count: u8) -> Vec<u8> {
        matrix("X", &[32, 32, 3, u32::from(count)], BYTES, &images(count))
    }

    fn y(labels: &[u8]) -> Vec<u8> {
        matrix("y", &[labels.len() as u32, 1], BYTES, labels)
    }

    /// Reads bytes as the split of a data set without a published count.
    fn read(bytes: &[u8]) -> Result<(Labels, Vec<Record>)> {
        let dir = tempfile::tempdir().unwrap();
        fs::write_atomic(&dir.path().join("train_32x32.mat"), bytes).unwrap();
        let splits = &*Box::leak(Box::new([Split { name: "train", images: "train_32x32.mat", labels: "", count: None }]));
        let entry = Entry { splits, ..*registry::find("svhn").unwrap() };
        let source = Source::named("svhn").split("train").root(dir.path());
        let located = locate(&entry, &source, &["train".to_owned()], &DataPaths::new("", None, None))?;
        let opened = located.open(&mut file_digest)?;
        let (count, records) = (opened.count, opened.records.collect::<Result<Vec<_>>>()?);
        assert_eq!(records.len(), count);
        Ok((opened.labels, records))
    }

    #[test]
    fn packed_and_plain_arrays_in_any_order_come_out_row_by_row() {
        let doubles: Vec<u8> = [10.0, 1.0, 9.0].iter().flat_map(|label: &f64| label.to_le_bytes()).collect();
        let other = matrix("note", &[1, 2], BYTES, &[7, 7]);
        let files = [
            mat(&[packed(&x(3)), packed(&y(&[10, 1, 9]))]),
            mat(&[y(&[10, 1, 9]), x(3)]),
            mat(&[packed(&other), packed(&matrix("y", &[3, 1], DOUBLES, &doubles)), x(3), element(7, &[0; 16])]),
        ];
        for bytes in files {
            let (labels, records) = read(&bytes).unwrap();
            assert!(matches!(labels, Labels::Named(names) if names.len() == 10 && names[9] == "9"));
            assert_eq!(records.iter().map(|record| record.label.unwrap()).collect::<Vec<_>>(), [0, 1, 9], "10 is the digit 0");
            for (number, record) in (0..).zip(&records) {
                let Content::Raw(pixels) = &record.content else { panic!("pixels come raw") };
                assert_eq!((pixels.width, pixels.height, pixels.channels), (32, 32, 3));
                assert_eq!(pixels.data[..6], [0, number, 0, 0, number, 0]);
                assert_eq!(pixels.data[3 * SIDE..3 * SIDE + 3], [1, number, 0]);
            }
        }
    }

    #[test]
    fn a_single_label_stands_in_its_tag() {
        assert_eq!(read(&mat(&[packed(&x(1)), packed(&y(&[4]))])).unwrap().1[0].label, Some(4));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let text = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let (good_x, good_y) = (packed(&x(2)), packed(&y(&[1, 2])));
        assert!(text(&mat(&[good_x.clone(), packed(&y(&[1]))])).contains("2 images"), "fewer labels than images");
        assert!(text(&mat(std::slice::from_ref(&good_x))).contains("no `y`"));
        assert!(text(&mat(std::slice::from_ref(&good_y))).contains("no `X`"));
        for label in [0, 11, 255] {
            let error = read(&mat(&[good_x.clone(), packed(&y(&[1, label]))])).unwrap_err();
            assert!(matches!(error, DatasetError::Label { row: 1, .. }), "{error}");
            assert!(error.hint().is_some());
        }
        let half = matrix("y", &[2, 1], DOUBLES, &[1.5_f64, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        assert!(matches!(read(&mat(&[good_x.clone(), half])), Err(DatasetError::Label { row: 0, .. })));
        let wide = matrix("X", &[64, 16, 3, 2], BYTES, &images(2));
        assert!(text(&mat(&[packed(&wide), good_y.clone()])).contains("[32, 32, 3, N]"));
        let many = matrix("X", &[32, 32, 3, u32::MAX], BYTES, &images(2));
        assert!(text(&mat(&[packed(&many), good_y.clone()])).contains("[32, 32, 3, N]"));
        let short = matrix("X", &[32, 32, 3, 2], BYTES, &images(1));
        assert!(text(&mat(&[packed(&short), good_y.clone()])).contains("[32, 32, 3, N]"));
        let mut other = mat(&[good_x, good_y]);
        other[126..128].copy_from_slice(b"MI");
        assert!(text(&other).contains("byte order"));
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_so_is_a_flipped_bit_in_the_pixels() {
        let whole = mat(&[packed(&x(2)), packed(&y(&[1, 2]))]);
        assert!(read(&whole).is_ok());
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length} of {}", whole.len());
        }
        // The checksum of the packed images, which comes after all of them.
        let mut flipped = whole.clone();
        flipped[127 + packed(&x(2)).len()] ^= 1;
        assert!(matches!(read(&flipped), Err(DatasetError::Unpack { .. })));
        let mut long = whole.clone();
        long.extend([0; 4]);
        assert!(matches!(read(&long), Err(DatasetError::Truncated { .. })));
        // Behind the last pixel, inside the element.
        let more = [x(1), vec![1]].concat();
        assert!(matches!(read(&mat(&[packed(&more), y(&[3])])), Err(DatasetError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn noise_is_refused_or_read_but_never_a_panic(noise in prop::collection::vec((0_usize..1 << 16, any::<u8>()), 1..8)) {
            for elements in [[x(1), y(&[3])], [packed(&x(1)), packed(&y(&[3]))]] {
                let mut bytes = mat(&elements);
                let length = bytes.len();
                for &(at, value) in &noise {
                    bytes[at % length] = value;
                }
                // Most of the bytes are pixels: half of the noise goes where the structure is.
                for &(at, value) in &noise {
                    bytes[at % 200.min(length)] ^= value & 1;
                }
                let _ = read(&bytes);
            }
        }
    }
}
