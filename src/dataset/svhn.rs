//! SVHN's cropped digits: MATLAB files (`mat5`) that hold an array `X` `[32, 32, 3, N]` of bytes and `y` `[N, 1]` of labels.
//!
//! MATLAB stores the first axis first, so an image is 3,072 bytes in a row: planes of columns. Labels run from 1 to 10, and 10
//! means the digit 0. The published order is that of street scenes, which labels do not decide, so it is kept.
//!
//! Source: Y. Netzer et al., "Reading digits in natural images with unsupervised feature learning", 2011.

use std::sync::Arc;

use super::byte_stream::malformed;
use super::entry::{Entry, Format, Request, Split};
use super::error::{DatasetError, Result};
use super::fetch::remote::{Download, GIB, MIB};
use super::fixed_layout::locate_fixed;
use super::fixed_size_records::{Order, color};
use super::idx::NUMERALS;
use super::mat5::{BYTES, DOUBLES, HEADER, MatArray, MatFile};
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Labels, Record};
use kinset_base::raw_file::RawFile;

/// Pixels per side.
const SIDE: usize = 32;
const IMAGE: u64 = 3 * (SIDE * SIDE) as u64;
const CLASSES: usize = 10;

const BASE: &[&str] = &["http://ufldl.stanford.edu/housenumbers/"];

pub(super) static DATASETS: &[Entry] = &[Entry {
    license: "for non-commercial use",
    splits: &[
        Split { name: "train", images: "train_32x32.mat", labels: "", count: Some(73_257) },
        Split { name: "test", images: "test_32x32.mat", labels: "", count: Some(26_032) },
        Split { name: "extra", images: "extra_32x32.mat", labels: "", count: Some(531_131) },
    ],
    shape: Some((SIDE, SIDE)),
    classes: NUMERALS,
    downloads: &[
        Download::file("train_32x32.mat", BASE, "e26dedcc434d2e4c54c9b2d4a06d8373", 256 * MIB),
        Download::file("test_32x32.mat", BASE, "eb5a983be6a315427106f1b164d9cef3", 256 * MIB),
        Download::file("extra_32x32.mat", BASE, "a93ce644f1a588dc4d68dda5feec44a7", 2 * GIB).extra(),
    ],
    ..Entry::new(
        "svhn",
        "house numbers, cropped digits: 73,257 + 26,032 color images and 531,131 extra, 32×32",
        "put `train_32x32.mat` and `test_32x32.mat` from http://ufldl.stanford.edu/housenumbers there",
        &Svhn,
    )
}];

#[derive(Debug)]
struct Svhn;

impl Format for Svhn {
    fn name(&self) -> &'static str {
        "svhn"
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let classes = request.entry.classes;
        locate_fixed(request, &[("", ())], |lookup, ()| {
            let mut counts = Vec::new();
            for split in request.splits() {
                lookup.require(&[split.images])?;
                counts.push(split.count);
            }
            Ok(move |files: &Arc<[RawFile]>, _: &mut DigestOf| {
                let (mut parts, mut total) = (Vec::new(), 0);
                for (file, &count) in files.iter().zip(&counts) {
                    let (images, labels) = open(file, count)?;
                    total += labels.len();
                    parts.push(records(images, labels));
                }
                Ok(DatasetReader::chain(Labels::of_classes(classes), total, parts))
            })
        })
    }
}

/// A file's images, which are unpacked while they are read, and its labels.
fn open(file: &RawFile, count: Option<u64>) -> Result<(MatArray, Vec<u8>)> {
    let mut mat = MatFile::open(file)?;
    let (mut images, mut labels) = (None, None);
    while let Some(mut array) = mat.next_array()? {
        match array.name.as_str() {
            "X" if images.is_none() => images = Some(array),
            "y" if labels.is_none() => labels = Some(digits(&mut array)?),
            _ => {}
        }
    }
    let lack = if labels.is_none() { "y" } else { "X" };
    let (Some(images), Some(labels)) = (images, labels) else {
        return Err(malformed(&mat.name, HEADER, "the arrays", "`X` and `y`", format!("no `{lack}`")));
    };
    let side = SIDE as u64;
    let fits = matches!(images.sizes[..], [height, width, 3, _] if height == side && width == side);
    let found = images.sizes.get(3).copied().unwrap_or(0);
    if !fits || images.kind != BYTES || images.bytes != found.saturating_mul(IMAGE) {
        let found = format!("{:?} in {} bytes of kind {}", images.sizes, images.bytes, images.kind);
        return Err(images.malformed("`X`", "bytes [32, 32, 3, N]", found));
    }
    if found == 0 || count.is_some_and(|count| count != found) {
        let expected = count.map_or("1 or more".to_owned(), |count| count.to_string());
        return Err(images.malformed("the number of images", expected, found));
    }
    if found != labels.len() as u64 {
        let name = mat.name;
        let (images, labels, label_count) = (format!("{name}: X"), format!("{name}: y"), labels.len() as u64);
        return Err(DatasetError::Mismatch { images, image_count: found, labels, label_count });
    }
    Ok((images, labels))
}

fn records(mut images: MatArray, labels: Vec<u8>) -> impl Iterator<Item = Result<Record>> + Send {
    (0..labels.len()).map(move |row| {
        let planes = images.data.take(IMAGE)?;
        if row + 1 == labels.len() {
            // The end belongs to the last image: a reader that takes as many as it was promised must hear of damage too.
            images.data.finish()?;
        }
        Ok(Record::raw(color(&planes, SIDE, Order::Columns), Some(i32::from(labels[row]))))
    })
}

/// Digits 0 to 9 of the array `y`.
fn digits(array: &mut MatArray) -> Result<Vec<u8>> {
    let width = match array.kind {
        BYTES => 1,
        DOUBLES => 8,
        kind => return Err(array.malformed("the numbers of `y`", "bytes or doubles", format!("kind {kind}"))),
    };
    let count = array.sizes.iter().fold(1_u64, |all, &size| all.saturating_mul(size));
    if count.saturating_mul(width) != array.bytes {
        return Err(array.malformed("`y`", format!("{count} labels"), format!("{} bytes", array.bytes)));
    }
    let data = array.data.take(array.bytes)?;
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
            return Err(DatasetError::Label { file: array.data.file.clone(), row: row as u64, found, classes: CLASSES });
        };
        labels.push(digit % CLASSES as u8);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::file_digest;
    use crate::mat5::{FLAGS, INTEGERS, MATRIX, PACKED};
    use crate::reader::Content;
    use crate::{Source, registry};
    use kinset_base::fault::Fault;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;

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
        let parts = ["train".to_owned()];
        let request = Request { entry: &entry, source: &source, parts: &parts, paths: &DataPaths::new("", None, None) };
        let located = entry.format.locate(&request)?;
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
