//! STL-10's binary files: images as red, green and blue plane, each column by column; labels as a file of bytes, from 1.
//!
//! The 100,000 images of `unlabeled` have no label; beside others they get −1. There is no header: the published number of images
//! is the only length a file may have. The published order is random, so it is kept.
//!
//! Source: A. Coates, H. Lee, A. Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS 2011, and
//! the data set's page.

use super::error::{DatasetError, Looked, Result};
use super::planes::{Blocks, Order, color, present};
use super::record::{Content, DigestOf, Ignored, Labels, Located, Opened, Reader, Record, Records};
use super::registry::Entry;
use super::source::Source;
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;

/// Pixels per side.
const SIDE: usize = 96;

/// The folder of the unpacked archive.
const FOLDER: &str = "stl10_binary";

struct Plan {
    classes: &'static [&'static str],
    /// Per part: images, labels or none, as indices into the located files, and how many.
    parts: Vec<(usize, Option<usize>, u64)>,
}

/// Looks for the files: the unpacked archive, or its folder itself.
pub(super) fn locate(entry: &Entry, source: &Source, parts: &[String], places: &DataPaths) -> Result<Located> {
    let mut looked = Vec::new();
    for place in places.candidates(entry.home(), source.root.as_deref(), entry.system) {
        for folder in [place.join(FOLDER), place.clone()] {
            let (mut files, mut plan, mut missing) = (Vec::new(), Vec::new(), Vec::new());
            for split in parts.iter().filter_map(|part| entry.split(part)) {
                let mut add = |name: &str| -> Result<usize> {
                    match present(&folder, name)? {
                        Some(file) => files.push(file),
                        None => missing.push(format!("`{name}`")),
                    }
                    Ok(files.len().saturating_sub(1))
                };
                let images = add(split.images)?;
                let labels = if split.labels.is_empty() { None } else { Some(add(split.labels)?) };
                plan.push((images, labels, split.count.unwrap_or(0)));
            }
            if missing.is_empty() {
                let plan = Plan { classes: entry.classes, parts: plan };
                let ignored = Ignored::default();
                return Ok(Located { files, root: Some(folder), ignored, reader: Box::new(plan), limit: None });
            }
            looked.push(Looked::new(&folder, &missing));
        }
    }
    Err(DatasetError::Missing { dataset: entry.name.to_owned(), looked, advice: entry.way(source, places) })
}

impl Reader for Plan {
    fn open(&self, files: &[RawFile], _: &mut DigestOf) -> Result<Opened> {
        let labeled = self.parts.iter().any(|(_, labels, _)| labels.is_some());
        let (mut parts, mut total) = (Vec::new(), 0);
        for &(images, labels, count) in &self.parts {
            let labels = match labels {
                Some(labels) => read_labels(&files[labels], count, self.classes.len())?,
                None => vec![-1; count as usize],
            };
            total += count as usize;
            parts.push((Blocks::open(&files[images], 3 * SIDE * SIDE, count)?, labels.into_iter()));
        }
        parts.reverse();
        let labels = if labeled {
            Labels::Named(self.classes.iter().map(|&name| name.to_owned()).collect())
        } else {
            Labels::Absent { why: "the images of `unlabeled` have none".to_owned() }
        };
        Ok(Opened { labels, count: total, records: Box::new(Stl { parts, labeled }) })
    }
}

/// Labels from 0, of bytes from 1.
fn read_labels(file: &RawFile, count: u64, classes: usize) -> Result<Vec<i32>> {
    let mut blocks = Blocks::open(file, 1, count)?;
    let mut labels = Vec::with_capacity(count as usize);
    while let Some(byte) = blocks.next()? {
        let label = i64::from(byte[0]) - 1;
        if !(0..classes as i64).contains(&label) {
            return Err(DatasetError::Label {
                file: blocks.name().to_owned(),
                row: labels.len() as u64,
                found: label,
                classes,
            });
        }
        labels.push(label as i32);
    }
    Ok(labels)
}

/// The records of several parts, the first one last in the list.
struct Stl {
    parts: Vec<(Blocks, std::vec::IntoIter<i32>)>,
    labeled: bool,
}

impl Stl {
    fn step(&mut self) -> Result<Option<Record>> {
        while let Some((images, labels)) = self.parts.last_mut() {
            if let Some(planes) = images.next()? {
                return Ok(Some(Record {
                    content: Content::Raw(color(&planes, SIDE, Order::Columns)),
                    width: SIDE,
                    height: SIDE,
                    channels: 3,
                    path: None,
                    label: labels.next().filter(|_| self.labeled),
                }));
            }
            self.parts.pop();
        }
        Ok(None)
    }
}

impl Iterator for Stl {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.parts.clear();
        }
        result.transpose()
    }
}

impl Records for Stl {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_digest;
    use crate::registry::{self, Split};
    use kinset_base::fs;
    use kinset_base::hint::Fault;

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
        let located = locate(&entry, &source, &entry.parts(split).unwrap(), &DataPaths::new("", None, None))?;
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
