//! CIFAR: where its files are, and its binary version (`cifar_python` reads the other): per image one or two bytes of labels, then its red, green and blue plane, row by row.
//!
//! CIFAR-10 has one label, CIFAR-100 the coarse and the fine one; the 20 coarse ones are CIFAR-20. There is no header: the
//! published number of images is the only length a file may have. The published order is random, so it is kept.
//!
//! Source: A. Krizhevsky, "The CIFAR-10 and CIFAR-100 data sets", section "Binary version".

use super::cifar_python;
use super::error::{DatasetError, Looked, Result};
use super::planes::{Blocks, Order, color, present};
use super::record::{Content, DigestOf, Ignored, Labels, Located, Opened, Reader, Record, Records};
use super::registry::Entry;
use super::source::Source;
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::search_path::DataPaths;

/// Pixels per side.
pub(super) const SIDE: usize = 32;

/// Which of CIFAR's data sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The folder of the unpacked archive.
    pub folder: &'static str,
    /// The same of the Python version.
    pub python: &'static str,
    /// Bytes of labels before each image.
    pub labels: usize,
    /// Which of them counts.
    pub label: usize,
}

/// CIFAR-10.
pub(super) const TEN: Form = Form { folder: "cifar-10-batches-bin", python: "cifar-10-batches-py", labels: 1, label: 0 };
/// CIFAR-100 with its coarse labels.
pub(super) const TWENTY: Form = Form { folder: "cifar-100-binary", python: "cifar-100-python", labels: 2, label: 0 };
/// CIFAR-100 with its fine labels.
pub(super) const HUNDRED: Form = Form { folder: "cifar-100-binary", python: "cifar-100-python", labels: 2, label: 1 };

struct Plan {
    form: Form,
    names: Labels,
    /// How many classes there are.
    classes: usize,
    /// Images per file.
    counts: Vec<u64>,
}

/// Looks for a data set's files: the unpacked archive of the binary version or of the Python version, or its folder itself.
pub(super) fn locate(entry: &Entry, form: Form, source: &Source, parts: &[String], places: &DataPaths) -> Result<Located> {
    let mut looked = Vec::new();
    for place in places.candidates(entry.home(), source.root.as_deref(), entry.system) {
        for (folder, python) in
            [(place.join(form.folder), false), (place.clone(), false), (place.join(form.python), true), (place.clone(), true)]
        {
            let (mut files, mut counts, mut missing) = (Vec::new(), Vec::new(), Vec::new());
            for split in parts.iter().filter_map(|part| entry.split(part)) {
                let names: Vec<&str> = split.images.split(' ').collect();
                for name in &names {
                    let name = if python { name.trim_end_matches(".bin") } else { name };
                    match present(&folder, name)? {
                        Some(file) => files.push(file),
                        None => missing.push(format!("`{name}`")),
                    }
                    counts.push(split.count.unwrap_or(0) / names.len() as u64);
                }
            }
            if missing.is_empty() {
                let classes = if form.labels == 2 && form.label == 1 { 100 } else { entry.classes.len() };
                let names = match entry.classes {
                    [] => Labels::Numbered,
                    names => Labels::Named(names.iter().map(|&name| name.to_owned()).collect()),
                };
                let reader: Box<dyn Reader> = if python {
                    Box::new(cifar_python::Plan { form, names, classes, counts })
                } else {
                    Box::new(Plan { form, names, classes, counts })
                };
                return Ok(Located { files, root: Some(folder), ignored: Ignored::default(), reader, limit: None });
            }
            // Of the Python version only what was begun is worth a word.
            if !python || folder != place && fs::exists(&folder) {
                looked.push(Looked::new(&folder, &missing));
            }
        }
    }
    Err(DatasetError::Missing { dataset: entry.name.to_owned(), looked, advice: entry.way(source, places) })
}

impl Reader for Plan {
    fn open(&self, files: &[RawFile], _: &mut DigestOf) -> Result<Opened> {
        let block = self.form.labels + 3 * SIDE * SIDE;
        let mut blocks = Vec::new();
        for (file, &count) in files.iter().zip(&self.counts) {
            blocks.push(Blocks::open(file, block, count)?);
        }
        blocks.reverse();
        let count = self.counts.iter().sum::<u64>() as usize;
        let records = Cifar { blocks, form: self.form, classes: self.classes, row: 0 };
        Ok(Opened { labels: self.names.clone(), count, records: Box::new(records) })
    }
}

/// The records of several files, the first one last in the list.
struct Cifar {
    blocks: Vec<Blocks>,
    form: Form,
    classes: usize,
    /// Within the file.
    row: u64,
}

impl Cifar {
    fn step(&mut self) -> Result<Option<Record>> {
        while let Some(blocks) = self.blocks.last_mut() {
            let Some(bytes) = blocks.next()? else {
                self.blocks.pop();
                self.row = 0;
                continue;
            };
            let (labels, planes) = bytes.split_at(self.form.labels);
            let label = labels[self.form.label];
            if usize::from(label) >= self.classes {
                let (file, row, classes) = (blocks.name().to_owned(), self.row, self.classes);
                return Err(DatasetError::Label { file, row, found: i64::from(label), classes });
            }
            self.row += 1;
            return Ok(Some(Record {
                content: Content::Raw(color(planes, SIDE, Order::Rows)),
                width: SIDE,
                height: SIDE,
                channels: 3,
                path: None,
                label: Some(i32::from(label)),
            }));
        }
        Ok(None)
    }
}

impl Iterator for Cifar {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.blocks.clear();
        }
        result.transpose()
    }
}

impl Records for Cifar {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_digest;
    use crate::registry::{self, Kind, Split};
    use kinset_base::hint::Fault;

    /// A small data set of the same form.
    fn small(form: Form, classes: &'static [&'static str]) -> Entry {
        Entry {
            kind: Kind::Cifar(form),
            classes,
            splits: Box::leak(Box::new([
                Split { name: "train", images: "a.bin b.bin", labels: "", count: Some(4) },
                Split { name: "test", images: "c.bin", labels: "", count: Some(1) },
            ])),
            ..*registry::find("cifar10").unwrap()
        }
    }

    /// An image whose planes are its number, its number + 1 and + 2, but for the second pixel of the first row.
    fn record(labels: &[u8], number: u8) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for channel in 0..3 {
            let mut plane = vec![number + channel; SIDE * SIDE];
            plane[1] = 200;
            bytes.extend(plane);
        }
        bytes
    }

    fn read(entry: &Entry, form: Form, files: &[(&str, Vec<u8>)], split: &str) -> Result<(Labels, Vec<Record>)> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(form.folder).join(name);
            fs::create_folders(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, bytes).unwrap();
        }
        let source = Source::named("cifar10").split(split).root(dir.path());
        let located = locate(entry, form, &source, &entry.parts(split).unwrap(), &DataPaths::new("", None, None))?;
        let opened = located.open(&mut file_digest)?;
        Ok((opened.labels, opened.records.collect::<Result<_>>()?))
    }

    #[test]
    fn files_follow_each_other_and_planes_become_pixels() {
        let entry = small(TEN, &["no", "yes"]);
        let files = [
            ("a.bin", [record(&[0], 1), record(&[1], 2)].concat()),
            ("b.bin", [record(&[1], 3), record(&[0], 4)].concat()),
            ("c.bin", record(&[1], 5)),
        ];
        let (labels, records) = read(&entry, TEN, &files, "all").unwrap();
        assert_eq!(labels, Labels::Named(vec!["no".into(), "yes".into()]));
        assert_eq!(records.iter().map(|record| record.label.unwrap()).collect::<Vec<_>>(), [0, 1, 1, 0, 1]);
        for (number, record) in (1..).zip(&records) {
            let Content::Raw(pixels) = &record.content else { panic!("pixels come raw") };
            assert_eq!((record.width, record.height, record.channels), (32, 32, 3));
            assert_eq!(pixels.data[..9], [number, number + 1, number + 2, 200, 200, 200, number, number + 1, number + 2]);
        }
        assert_eq!(read(&entry, TEN, &files, "test").unwrap().1.len(), 1);
    }

    #[test]
    fn twenty_reads_the_coarse_and_a_hundred_the_fine_label() {
        let bytes = || [("c.bin", record(&[1, 77], 5))];
        assert_eq!(read(&small(TWENTY, &["a", "b"]), TWENTY, &bytes(), "test").unwrap().1[0].label, Some(1));
        let (labels, records) = read(&small(HUNDRED, &[]), HUNDRED, &bytes(), "test").unwrap();
        assert_eq!((labels, records[0].label), (Labels::Numbered, Some(77)));
    }

    #[test]
    fn a_file_cut_short_or_too_long_or_with_a_label_too_large_is_refused() {
        let entry = small(TEN, &["no", "yes"]);
        let whole = record(&[1], 5);
        for (bytes, length) in [(whole[..3072].to_vec(), 3072), ([&whole[..], &[0]].concat(), 3074), (Vec::new(), 0)] {
            let error = read(&entry, TEN, &[("c.bin", bytes)], "test").unwrap_err();
            assert!(
                matches!(error, DatasetError::Length { expected: 3073, found, .. } if found == length),
                "{error}: {length}"
            );
        }
        let files = [("a.bin", [record(&[0], 1), record(&[2], 2)].concat()), ("b.bin", [&whole[..], &whole].concat())];
        let error = read(&entry, TEN, &files, "train").unwrap_err();
        assert!(matches!(error, DatasetError::Label { row: 1, found: 2, classes: 2, .. }), "{error}");
        assert!(error.to_string().contains("a.bin"), "{error}");
        let error = read(&small(HUNDRED, &[]), HUNDRED, &[("c.bin", record(&[0, 100], 0))], "test").unwrap_err();
        assert!(matches!(error, DatasetError::Label { found: 100, classes: 100, .. }), "{error}");
    }

    #[test]
    fn missing_files_are_named_for_both_layouts() {
        let error = read(&small(TEN, &["no"]), TEN, &[("a.bin", Vec::new())], "train").unwrap_err();
        let text = error.to_string();
        assert!(text.contains("cifar-10-batches-bin` (lacks `b.bin`)") && text.contains("(lacks `a.bin`, `b.bin`)"), "{text}");
        assert!(error.hint().unwrap().contains("cs.toronto.edu"));
    }
}
