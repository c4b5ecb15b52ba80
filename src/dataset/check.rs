//! The report of a check that reads a whole source, one record in memory at a time.

use super::error::{DatasetError, FaultyImages, Result};
use super::reader::{DigestOf, Ignored, Labels};
use super::registry;
use super::source::Source;
use kinset_base::reading::Reading;
use kinset_base::search_path::DataPaths;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The raw files: name and length.
    pub files: Vec<(String, u64)>,
    /// What lies beside them and is not read.
    pub ignored: Ignored,
    /// What was taken and left, in words.
    pub reading: Reading,
    pub images: usize,
    pub gray: usize,
    /// The smallest width and the smallest height, in pixels.
    pub smallest: (usize, usize),
    /// The largest width and the largest height, in pixels.
    pub largest: (usize, usize),
    pub labels: Labels,
    /// The folders that are taken for classes look like none.
    pub classes_doubted: bool,
    /// How many images each label has, by label; without names up to the largest label.
    pub per_class: Vec<usize>,
    /// Images that the data set leaves without a label although others have one.
    pub unlabeled: usize,
    /// Images that cannot be decoded: all of them, whether they may be skipped or not.
    pub broken: FaultyImages,
    /// They may be skipped.
    pub skip_broken: bool,
    /// Baseline JPEGs with corrupt entropy-coded data: they decode only partly.
    pub damaged: FaultyImages,
    place: String,
}

impl Report {
    /// The error that a run would end with, if there are broken images and they must not be skipped, or no others.
    pub fn fault(&self) -> Option<DatasetError> {
        let (place, broken, images) = (self.place.clone(), self.broken.clone(), self.images + self.broken.count);
        (broken.count > 0 && (!self.skip_broken || self.images == 0)).then_some(DatasetError::Broken { place, broken, images })
    }
}

/// Reads a source through: every header, length, checksum, picture and label. Broken images do not end it.
///
/// # Errors
/// The first thing that is wrong beside them.
pub fn check(source: &Source, paths: &DataPaths, digest_of: &mut DigestOf) -> Result<Report> {
    let entry = registry::find(&source.dataset)?;
    let skip = source.skip_broken || entry.format.settings().contains(&"skip_broken");
    let located = registry::locate(&Source { skip_broken: skip, ..source.clone() }, paths)?;
    let mut opened = located.open(digest_of)?;
    let mut report = Report {
        files: located.files.iter().map(|file| (file.name.to_string(), file.bytes)).collect(),
        ignored: located.ignored.clone(),
        reading: Reading::default(),
        images: 0,
        gray: 0,
        smallest: (usize::MAX, usize::MAX),
        largest: (0, 0),
        per_class: match &opened.labels {
            Labels::Named(names) => vec![0; names.len()],
            Labels::Numbered | Labels::Absent { .. } => Vec::new(),
        },
        labels: opened.labels.clone(),
        classes_doubted: located.classes_doubted,
        unlabeled: 0,
        broken: FaultyImages::default(),
        skip_broken: source.skip_broken,
        damaged: FaultyImages::default(),
        place: located.root.as_deref().map_or_else(|| source.dataset.clone(), |root| root.display().to_string()),
    };
    for record in &mut opened.records {
        let record = match record {
            // Nothing but broken images.
            Err(DatasetError::Broken { broken, .. }) if skip => {
                report.broken = broken;
                break;
            }
            record => record?,
        };
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
    report.reading = located.reading(report.images, &opened.labels, &*opened.records);
    if report.images > 0 {
        report.broken = opened.records.skipped();
    }
    report.damaged = opened.records.damaged();
    Ok(report)
}
