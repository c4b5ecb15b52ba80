//! A report on a source that is read through, one record in memory at a time.

use super::error::{FaultyImages, Result};
use super::reader::{DigestOf, Ignored, Labels};
use super::registry;
use super::source::Source;
use kinset_base::search_path::DataPaths;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The raw files: name and length.
    pub files: Vec<(String, u64)>,
    /// Files beside them that are no images.
    pub ignored: Ignored,
    pub images: usize,
    pub gray: usize,
    /// The smallest width and the smallest height, in pixels.
    pub smallest: (usize, usize),
    /// The largest width and the largest height, in pixels.
    pub largest: (usize, usize),
    pub labels: Labels,
    /// How many images each label has, by label; without names up to the largest label.
    pub per_class: Vec<usize>,
    /// Images that the data set leaves without a label although others have one.
    pub unlabeled: usize,
    pub skipped: FaultyImages,
    /// Baseline JPEGs with corrupt entropy-coded data: they decode only partly.
    pub damaged: FaultyImages,
}

/// Reads a source through: every header, length, checksum, picture and label.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(source: &Source, paths: &DataPaths, digest_of: &mut DigestOf) -> Result<Report> {
    let located = registry::locate(source, paths)?;
    let mut opened = located.open(digest_of)?;
    let mut report = Report {
        files: located.files.iter().map(|file| (file.name.clone(), file.bytes)).collect(),
        ignored: located.ignored.clone(),
        images: 0,
        gray: 0,
        smallest: (usize::MAX, usize::MAX),
        largest: (0, 0),
        per_class: match &opened.labels {
            Labels::Named(names) => vec![0; names.len()],
            Labels::Numbered | Labels::Absent { .. } => Vec::new(),
        },
        labels: opened.labels.clone(),
        unlabeled: 0,
        skipped: FaultyImages::default(),
        damaged: FaultyImages::default(),
    };
    for record in &mut opened.records {
        let record = record?;
        report.images += 1;
        report.gray += usize::from(record.channels == 1);
        report.smallest = (report.smallest.0.min(record.width), report.smallest.1.min(record.height));
        report.largest = (report.largest.0.max(record.width), report.largest.1.max(record.height));
        if let Some(label) = record.label {
            match usize::try_from(label) {
                Ok(label) => {
                    // Readers hold labels below the number of classes; unnamed ones are bytes or checked likewise.
                    if label >= report.per_class.len() {
                        report.per_class.resize(label + 1, 0);
                    }
                    report.per_class[label] += 1;
                }
                Err(_) => report.unlabeled += 1,
            }
        }
    }
    if report.images == 0 {
        report.smallest = (0, 0);
    }
    report.skipped = opened.records.skipped();
    report.damaged = opened.records.damaged();
    Ok(report)
}
