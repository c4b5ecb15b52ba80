//! STL-10's binary files: images as red, green and blue plane, each column by column; labels as a file of bytes, from 1.
//!
//! The 100,000 images of `unlabeled` have no label; beside others they get −1. There is no header: the published number of images
//! is the only length a file may have. The published order is random, so it is kept.
//!
//! Source: A. Coates, H. Lee, A. Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS 2011, and
//! the data set's page.

use std::sync::Arc;

use super::entry::{Entry, Format, Request, Split};
use super::error::Result;
use super::fetch::remote::{Download, GIB};
use super::fixed_layout::locate_fixed;
use super::fixed_size_records::{Order, color, read_blocks};
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Labels, Record, checked_label};
use kinset_base::raw_file::RawFile;

/// Pixels per side.
const SIDE: usize = 96;

/// The folder of the unpacked archive.
const FOLDER: &str = "stl10_binary";

pub(super) static DATASETS: &[Entry] = &[Entry {
    license: "that of ImageNet, where the images are from",
    splits: &[
        Split { name: "train", images: "train_X.bin", labels: "train_y.bin", count: Some(5_000) },
        Split { name: "test", images: "test_X.bin", labels: "test_y.bin", count: Some(8_000) },
        Split { name: "unlabeled", images: "unlabeled_X.bin", labels: "", count: Some(100_000) },
    ],
    shape: Some((SIDE, SIDE)),
    classes: &["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"],
    downloads: &[Download::archive(
        "stl10_binary.tar.gz",
        &["http://ai.stanford.edu/~acoates/stl10/", "https://cs.stanford.edu/~acoates/stl10/"],
        "91f7769df0f17e558f3565bffb0c7dfb",
        3 * GIB,
        4 * GIB,
    )],
    ..Entry::new(
        "stl10",
        "5,000 + 8,000 color images and 100,000 without labels, 96×96",
        "unpack `stl10_binary.tar.gz` from https://cs.stanford.edu/~acoates/stl10 there",
        &Stl,
    )
}];

#[derive(Debug)]
struct Stl;

impl Format for Stl {
    fn name(&self) -> &'static str {
        "stl"
    }

    /// Looks for the unpacked archive, or its folder itself.
    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let classes = request.entry.classes;
        locate_fixed(request, &[(FOLDER, ()), ("", ())], |lookup, ()| {
            // Images, labels or none, as places among the located files, and how many.
            let mut parts = Vec::new();
            for split in request.splits() {
                let images = lookup.require(&[split.images])?;
                let labels = if split.labels.is_empty() { None } else { Some(lookup.require(&[split.labels])?) };
                parts.push((images, labels, split.count.unwrap_or(0)));
            }
            Ok(move |files: &Arc<[RawFile]>, _: &mut DigestOf| open(files, &parts, classes))
        })
    }
}

fn open(files: &[RawFile], parts: &[(usize, Option<usize>, u64)], classes: &[&str]) -> Result<DatasetReader> {
    let labeled = parts.iter().any(|(_, labels, _)| labels.is_some());
    let (mut opened, mut total) = (Vec::new(), 0);
    for &(images, labels, count) in parts {
        let labels = match labels {
            Some(labels) => read_labels(&files[labels], count, classes.len())?,
            None => vec![-1; count as usize],
        };
        total += count as usize;
        let images = read_blocks(&files[images], 3 * SIDE * SIDE, count)?;
        opened.push(
            images
                .zip(labels)
                .map(move |(planes, label)| Ok(Record::raw(color(&planes?, SIDE, Order::Columns), labeled.then_some(label)))),
        );
    }
    let labels = if labeled {
        Labels::of_classes(classes)
    } else {
        Labels::Absent { why: "the images of `unlabeled` have none".to_owned() }
    };
    Ok(DatasetReader::chain(labels, total, opened))
}

/// Labels from 0, of bytes from 1.
fn read_labels(file: &RawFile, count: u64, classes: usize) -> Result<Vec<i32>> {
    let name = file.path.display().to_string();
    let bytes = (0..).zip(read_blocks(file, 1, count)?);
    bytes.map(|(row, byte)| checked_label(&name, row, i64::from(byte?[0]) - 1, classes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DatasetError;
    use crate::file_digest;
    use crate::reader::Content;
    use crate::{Source, registry};
    use kinset_base::fault::Fault;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;

    /// A small data set of the same form.
    fn small() -> Entry {
        Entry {
            splits: Box::leak(Box::new([
                Split { name: "train", images: "train_X.bin", labels: "train_y.bin", count: Some(2) },
                Split { name: "unlabeled", images: "unlabeled_X.bin", labels: "", count: Some(1) },
            ])),
            ..*registry::find("stl10").unwrap()
        }
    }

    /// Red grows down a column, green is the number, blue is 0.
    fn image(number: u8) -> Vec<u8> {
        let red = (0..SIDE * SIDE).map(|at| (at % SIDE) as u8);
        red.chain(vec![number; SIDE * SIDE]).chain(vec![0; SIDE * SIDE]).collect()
    }

    fn read(files: &[(&str, Vec<u8>)], split: &str) -> Result<(Labels, Vec<Record>)> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(FOLDER).join(name);
            fs::create_folders(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, bytes).unwrap();
        }
        let (entry, source) = (small(), Source::named("stl10").split(split).root(dir.path()));
        let parts = entry.parts(split).unwrap();
        let request = Request { entry: &entry, source: &source, parts: &parts, paths: &DataPaths::new("", None, None) };
        let located = entry.format.locate(&request)?;
        let opened = located.open(&mut file_digest)?;
        let (count, records) = (opened.count, opened.records.collect::<Result<Vec<_>>>()?);
        assert_eq!(records.len(), count);
        Ok((opened.labels, records))
    }

    fn whole() -> [(&'static str, Vec<u8>); 3] {
        [("train_X.bin", [image(7), image(8)].concat()), ("train_y.bin", vec![10, 1]), ("unlabeled_X.bin", image(9))]
    }

    #[test]
    fn columns_become_rows_and_labels_begin_at_0() {
        let (labels, records) = read(&whole(), "train").unwrap();
        assert!(matches!(labels, Labels::Named(names) if names[0] == "airplane" && names[9] == "truck"));
        assert_eq!(records.iter().map(|record| record.label).collect::<Vec<_>>(), [Some(9), Some(0)]);
        let Content::Raw(pixels) = &records[0].content else { panic!("pixels come raw") };
        // First row: the red of each column's first byte; second row: 1.
        assert_eq!(pixels.data[..6], [0, 7, 0, 0, 7, 0]);
        assert_eq!(pixels.data[3 * SIDE..3 * SIDE + 6], [1, 7, 0, 1, 7, 0]);
    }

    #[test]
    fn unlabeled_images_have_no_label_alone_and_minus_one_beside_others() {
        let (labels, records) = read(&whole(), "unlabeled").unwrap();
        assert!(matches!(labels, Labels::Absent { .. }) && records[0].label.is_none());
        let (_, records) = read(&whole(), "train+unlabeled").unwrap();
        assert_eq!(records.iter().map(|record| record.label).collect::<Vec<_>>(), [Some(9), Some(0), Some(-1)]);
    }

    #[test]
    fn lengths_and_labels_that_cannot_be_are_refused() {
        let with = |at: usize, bytes: Vec<u8>| {
            let mut files = whole();
            files[at].1 = bytes;
            read(&files, "train").unwrap_err()
        };
        for bytes in [vec![1], vec![1, 2, 3], Vec::new()] {
            assert!(matches!(with(1, bytes), DatasetError::Length { expected: 2, .. }));
        }
        let long = [image(1), image(2), vec![0]].concat();
        for bytes in [image(1), long] {
            assert!(matches!(with(0, bytes), DatasetError::Length { expected: 55_296, .. }));
        }
        assert!(matches!(with(1, vec![1, 0]), DatasetError::Label { row: 1, found: -1, classes: 10, .. }));
        let error = with(1, vec![11, 1]);
        assert!(matches!(error, DatasetError::Label { row: 0, found: 10, .. }), "{error}");
        let error = read(&whole()[..1], "train").unwrap_err();
        assert!(error.to_string().contains("stl10_binary` (lacks `train_y.bin`)"), "{error}");
        assert!(error.hint().unwrap().contains("stl10"));
    }
}
