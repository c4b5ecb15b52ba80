//! CIFAR: where its files are, and its binary version (`cifar_python` reads the other): per image one or two bytes of labels,
//! then its red, green and blue plane, row by row.
//!
//! CIFAR-10 has one label, CIFAR-100 the coarse and the fine one; the 20 coarse ones are CIFAR-20. There is no header: the
//! published number of images is the only length a file may have. The published order is random, so it is kept.
//!
//! Source: A. Krizhevsky, "The CIFAR-10 and CIFAR-100 data sets", section "Binary version".

use std::sync::Arc;

use super::cifar_python;
use super::entry::{Entry, Format, Request, Split};
use super::error::Result;
use super::fetch::remote::{Download, MIB};
use super::fixed_layout::locate_fixed;
use super::fixed_size_records::{Order, color, read_blocks};
use super::reader::{DatasetFiles, DatasetReader, DigestOf, Labels, Record, checked_label};
use kinset_base::raw_file::RawFile;

/// Pixels per side.
pub(super) const SIDE: usize = 32;

/// One of CIFAR's data sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cifar {
    /// The folder of the unpacked archive.
    folder: &'static str,
    /// The same of the Python version.
    python: &'static str,
    /// Bytes of labels before each image.
    labels: usize,
    /// Which of them counts.
    label: usize,
    /// What the Python version calls it.
    pub(super) key: &'static str,
}

/// CIFAR-10.
pub(super) const TEN: Cifar =
    Cifar { folder: "cifar-10-batches-bin", python: "cifar-10-batches-py", labels: 1, label: 0, key: "labels" };
/// CIFAR-100 with its coarse labels.
pub(super) const TWENTY: Cifar =
    Cifar { folder: "cifar-100-binary", python: "cifar-100-python", labels: 2, label: 0, key: "coarse_labels" };
/// CIFAR-100 with its fine labels.
pub(super) const HUNDRED: Cifar = Cifar { label: 1, key: "fine_labels", ..TWENTY };

const THINGS: &[&str] = &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const SUPERCLASSES: &[&str] = &[
    "aquatic_mammals",
    "fish",
    "flowers",
    "food_containers",
    "fruit_and_vegetables",
    "household_electrical_devices",
    "household_furniture",
    "insects",
    "large_carnivores",
    "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores",
    "medium_mammals",
    "non-insect_invertebrates",
    "people",
    "reptiles",
    "small_mammals",
    "trees",
    "vehicles_1",
    "vehicles_2",
];

const CIFAR100: &[Split] = &[
    Split { name: "train", images: "train.bin", labels: "", count: Some(50_000) },
    Split { name: "test", images: "test.bin", labels: "", count: Some(10_000) },
];

const ADVICE: &str = "unpack the binary or the Python version from https://www.cs.toronto.edu/~kriz/cifar.html there";

const KRIZ: &[&str] = &["https://www.cs.toronto.edu/~kriz/"];

const ARCHIVE100: &[Download] =
    &[Download::archive("cifar-100-binary.tar.gz", KRIZ, "03b5dce01913d631647c71ecec9e9cb8", 256 * MIB, 256 * MIB)];

pub(super) static DATASETS: &[Entry] = &[
    Entry {
        license: "none stated",
        splits: &[
            Split {
                name: "train",
                images: "data_batch_1.bin data_batch_2.bin data_batch_3.bin data_batch_4.bin data_batch_5.bin",
                labels: "",
                count: Some(50_000),
            },
            Split { name: "test", images: "test_batch.bin", labels: "", count: Some(10_000) },
        ],
        shape: Some((32, 32)),
        classes: THINGS,
        downloads: &[Download::archive(
            "cifar-10-binary.tar.gz",
            KRIZ,
            "c32a1d4ab5d03f1284b67883e8d87530",
            256 * MIB,
            256 * MIB,
        )],
        ..Entry::new("cifar10", "50,000 + 10,000 color images of things and animals, 32×32", ADVICE, &TEN)
    },
    Entry {
        classes: SUPERCLASSES,
        ..cifar100("cifar20", "CIFAR-100 by its 20 coarse classes: 50,000 + 10,000 color images, 32×32", &TWENTY)
    },
    cifar100("cifar100", "CIFAR-100 by its 100 fine classes: 50,000 + 10,000 color images, 32×32", &HUNDRED),
];

const fn cifar100(name: &'static str, title: &'static str, labels: &'static Cifar) -> Entry {
    Entry {
        license: "none stated",
        splits: CIFAR100,
        shape: Some((32, 32)),
        folder: Some("cifar100"),
        downloads: ARCHIVE100,
        ..Entry::new(name, title, ADVICE, labels)
    }
}

impl Format for Cifar {
    fn name(&self) -> &'static str {
        "cifar"
    }

    /// Looks for the unpacked archive of the binary version or of the Python version, or for its folder itself.
    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let (form, names) = (*self, request.entry.classes);
        let classes = if names.is_empty() { 100 } else { names.len() };
        let layouts = [(self.folder, false), ("", false), (self.python, true), ("", true)];
        locate_fixed(request, &layouts, |lookup, python| {
            let mut counts = Vec::new();
            for split in request.splits() {
                let names: Vec<&str> = split.images.split(' ').collect();
                for name in &names {
                    lookup.require(&[if python { name.trim_end_matches(".bin") } else { name }])?;
                    counts.push(split.count.unwrap_or(0) / names.len() as u64);
                }
            }
            Ok(move |files: &Arc<[RawFile]>, _: &mut DigestOf| {
                let labels = Labels::of_classes(names);
                let total = counts.iter().sum::<u64>() as usize;
                let parts = files.iter().zip(&counts);
                if python {
                    let parts = parts.map(|(file, &count)| cifar_python::records(form, file.clone(), count, classes)).collect();
                    return Ok(DatasetReader::chain(labels, total, parts));
                }
                let parts = parts.map(|(file, &count)| records(form, file, count, classes)).collect::<Result<_>>()?;
                Ok(DatasetReader::chain(labels, total, parts))
            })
        })
    }
}

fn records(
    form: Cifar,
    file: &RawFile,
    count: u64,
    classes: usize,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let name = file.path.display().to_string();
    let blocks = read_blocks(file, form.labels + 3 * SIDE * SIDE, count)?;
    Ok((0..).zip(blocks).map(move |(row, block)| {
        let block = block?;
        let (labels, planes) = block.split_at(form.labels);
        let label = checked_label(&name, row, i64::from(labels[form.label]), classes)?;
        Ok(Record::raw(color(planes, SIDE, Order::Rows), Some(label)))
    }))
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
    fn small(form: Cifar, classes: &'static [&'static str]) -> Entry {
        Entry {
            format: Box::leak(Box::new(form)),
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

    fn read(entry: &Entry, form: Cifar, files: &[(&str, Vec<u8>)], split: &str) -> Result<(Labels, Vec<Record>)> {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(form.folder).join(name);
            fs::create_folders(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, bytes).unwrap();
        }
        let source = Source::named("cifar10").split(split).root(dir.path());
        let parts = entry.parts(split).unwrap();
        let request = Request { entry, source: &source, parts: &parts, paths: &DataPaths::new("", None, None) };
        let located = entry.format.locate(&request)?;
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
