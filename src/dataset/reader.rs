//! Located raw files, and the records that are read from them one by one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::class_names;
use super::error::{DatasetError, FaultyImages, Result};
use super::guarded_decode::{self, Checked, Undecodable};
use kinset_artifact::image_codec::{Header, Look, encode_png};
use kinset_artifact::picture_facts::PictureFacts;
use kinset_artifact::pixels::Pixels;
use kinset_base::fs::FileError;
use kinset_base::name::Name;
use kinset_base::raw_file::RawFile;
use kinset_base::reading::Reading;
use kinset_base::unit::{count, counted};
use kinset_store::digest::{Digest, Hasher};

/// Asks the engine for the digest of a raw file's bytes; the engine's cache of digests spares most readings.
pub type DigestOf<'a> = dyn FnMut(&RawFile) -> std::result::Result<Digest, FileError> + 'a;

/// The digest of a raw file's bytes, read now: a [`DigestOf`] where no cache is at hand.
pub fn file_digest(file: &RawFile) -> std::result::Result<Digest, FileError> {
    Digest::of_file(&file.path)
}

/// A data set that was found and not opened yet. Together with its source's [`identity`](super::identity()), the digests
/// and names of its [`files`](Self::files) decide what it will say.
pub struct DatasetFiles {
    /// All raw files the records depend on, in the reader's order.
    pub files: Arc<[RawFile]>,
    /// Where they lie; nowhere for what is drawn.
    pub root: Option<PathBuf>,
    /// What lies there beside them and is not read.
    pub ignored: Ignored,
    /// Where the labels come from, after "12 classes": `by folder`.
    pub(super) labels_from: &'static str,
    /// What of the files' names and places is probably not meant.
    pub(super) doubts: Vec<String>,
    /// One of the doubts is about the names of classes.
    pub(super) classes_doubted: bool,
    /// Reading compares what it reads of every file with the file's digest, so that nobody has to look at the files once more.
    pub checked: bool,
    pub(super) open: Box<Open>,
    pub(super) limit: Option<usize>,
    /// False if labels are not wanted.
    pub(super) with_labels: bool,
}

impl std::fmt::Debug for DatasetFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("DatasetFiles");
        f.field("root", &self.root).field("files", &self.files).field("ignored", &self.ignored).finish_non_exhaustive()
    }
}

/// A format's second half of the work: from located files to records.
pub(super) type Open = dyn Fn(&Arc<[RawFile]>, &mut DigestOf) -> Result<DatasetReader> + Send;

impl DatasetFiles {
    /// Files that were found, and what opens them for one reading.
    pub(super) fn new(
        files: Vec<RawFile>,
        root: Option<PathBuf>,
        open: impl Fn(&Arc<[RawFile]>, &mut DigestOf) -> Result<DatasetReader> + Send + 'static,
    ) -> Self {
        let (ignored, labels_from, doubts) = (Ignored::default(), "", Vec::new());
        let (open, limit, with_labels, classes_doubted, checked) = (Box::new(open), None, true, false, false);
        Self { files: files.into(), root, ignored, labels_from, doubts, classes_doubted, checked, open, limit, with_labels }
    }

    /// Opens the data set for one reading from front to back. `digest_of` is asked for each file of a folder; where no cache
    /// is at hand, `&mut file_digest` reads them.
    ///
    /// # Errors
    /// Headers that cannot be, files that disagree with each other; what comes later in the files is found while reading.
    pub fn open(&self, digest_of: &mut DigestOf) -> Result<DatasetReader> {
        let DatasetReader { mut labels, mut count, mut records } = (self.open)(&self.files, digest_of)?;
        if let Some(limit) = self.limit {
            (count, records) = (count.min(limit), Box::new(Limited { left: limit, records }));
        }
        if !self.with_labels && !matches!(labels, Labels::Absent { .. }) {
            (labels, records) = (Labels::unwanted(), Box::new(Unlabeled(records)));
        }
        Ok(DatasetReader { labels, count, records })
    }

    /// What was taken, once so many images came from the records, and what was left.
    pub fn reading(&self, images: usize, labels: &Labels, records: &dyn Records) -> Reading {
        let Reading { took, left, doubts } = records.reading();
        let mut reading = Reading::default();
        reading.took(match took.as_slice() {
            [] => counted(images as u64, "image"),
            kinds => format!("{} ({})", counted(images as u64, "image"), kinds.join(", ")),
        });
        let from = if self.labels_from.is_empty() { String::new() } else { format!(" {}", self.labels_from) };
        reading.took(match labels {
            Labels::Named(names) => {
                let few: Vec<&str> = names.iter().take(NAMED_CLASSES).map(String::as_str).collect();
                let more = if names.len() > few.len() { ", …" } else { "" };
                let classes =
                    if names.len() == 1 { "1 class".to_owned() } else { format!("{} classes", count(names.len() as u64)) };
                format!("{classes}{from}: {}{more}", few.join(", "))
            }
            Labels::Numbered => format!("numbered classes{from}"),
            Labels::Absent { why } => format!("no labels: {why}"),
        });
        reading.left =
            self.ignored.endings.iter().map(|(kind, number)| format!("{} × {kind}", count(*number as u64))).collect();
        reading.left.extend(left);
        let alike = if let Labels::Named(names) = labels { class_names::alike(names) } else { None };
        reading.doubts = self.doubts.iter().cloned().chain(alike).chain(doubts).collect();
        reading
    }
}

/// Classes that a reading names.
const NAMED_CLASSES: usize = 6;

/// What lies beside the pictures and is not read: how many of which kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Kinds (`.txt`; `without ending`; `folder @eaDir`) with their counts, sorted.
    pub endings: Vec<(String, usize)>,
}

impl Ignored {
    pub fn count(&self) -> usize {
        self.endings.iter().map(|(_, count)| count).sum()
    }

    /// `12 other files: 11 .gif, 1 .txt`, of what is called so.
    pub(super) fn summary(&self, what: &str) -> String {
        match self.count() {
            0 => "it is empty".to_owned(),
            all => {
                let mut endings = self.endings.clone();
                endings.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
                let few: Vec<_> = endings.iter().take(5).map(|(ending, number)| format!("{number} {ending}")).collect();
                format!("{all} {what}: {}", few.join(", "))
            }
        }
    }

    /// Counts a file by its ending, in small letters.
    pub(super) fn add(&mut self, path: &Path) {
        match path.extension() {
            Some(ending) => self.count_as(&format!(".{}", Name::of(ending).to_lowercase()), 1),
            None => self.count_as("without ending", 1),
        }
    }

    /// Counts some files as something.
    pub(super) fn count_as(&mut self, what: &str, count: usize) {
        if count > 0 {
            match self.endings.binary_search_by(|(known, _)| known.as_str().cmp(what)) {
                Ok(at) => self.endings[at].1 += count,
                Err(at) => self.endings.insert(at, (what.to_owned(), count)),
            }
        }
    }
}

pub struct DatasetReader {
    /// Whether there are labels, and their names.
    pub labels: Labels,
    /// How many records will come; fewer only where broken images are skipped.
    pub count: usize,
    pub records: Box<dyn Records>,
}

impl std::fmt::Debug for DatasetReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatasetReader").field("labels", &self.labels).field("count", &self.count).finish_non_exhaustive()
    }
}

impl DatasetReader {
    /// Reads parts that follow each other.
    pub(super) fn chain<P>(labels: Labels, count: usize, parts: Vec<P>) -> Self
    where
        P: Iterator<Item = Result<Record>> + Send + 'static,
    {
        Self { labels, count, records: Box::new(Chain(Some(parts.into_iter().flatten()))) }
    }
}

/// What is known of a data set's ground truth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Every record has a label, an index into these names.
    Named(Vec<String>),
    /// Every record has a label, and the labels have no names.
    Numbered,
    /// No record has a label.
    Absent { why: String },
}

impl Labels {
    /// They may be there, and are not wanted.
    pub(super) fn unwanted() -> Self {
        Self::Absent { why: "`labels = false`".to_owned() }
    }

    /// Labels with these names; without any they are numbers.
    pub(super) fn of_classes(names: &[&str]) -> Self {
        match names {
            [] => Self::Numbered,
            names => Self::Named(names.iter().map(|&name| name.to_owned()).collect()),
        }
    }
}

/// One picture and, apart from it, its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub content: Content,
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (gray) or 3 (color).
    pub channels: usize,
    /// Of how many bits its values were taken to be: 8, or of a file of 16 bits what it uses, 8, 12 or 16.
    pub bits: u8,
    /// What the header of the file says that was read.
    pub facts: Option<PictureFacts>,
    /// The file it came from, below the source's root, where it had one to itself.
    pub path: Option<String>,
    /// Its class; `-1` for a picture that the data set leaves without one (STL-10's unlabeled part), `None` if there are no labels.
    pub label: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Pixels from an array.
    Raw(Pixels),
    /// A whole picture file, which was read through once and can be decoded.
    Encoded {
        bytes: Vec<u8>,
        digest: Digest,
        /// It is a JPEG with corrupt entropy-coded data, of which decoders show gray or noise for a part.
        damaged: bool,
    },
}

impl Record {
    pub(super) fn raw(pixels: Pixels, label: Option<i32>) -> Self {
        let Pixels { width, height, channels, .. } = pixels;
        Self { content: Content::Raw(pixels), width, height, channels, bits: 8, facts: None, path: None, label }
    }

    /// A picture file, read through. `digest` is that of its bytes, where it is known already. A picture that is to look otherwise than
    /// its file usually does is kept as the PNG of what is to be seen, so that whoever reads it later sees that.
    pub(super) fn encoded(
        mut bytes: Vec<u8>,
        digest: Option<Digest>,
        path: Option<String>,
        label: Option<i32>,
        look: Look,
    ) -> std::result::Result<Self, Undecodable> {
        let Checked { mut header, facts, damaged, bits } = guarded_decode::check(&bytes)?;
        let mut digest = digest.unwrap_or_else(|| Digest::of(&bytes));
        if look.changes(&facts) {
            let picture = guarded_decode::decode_as(&bytes, look)?;
            header = Header { width: picture.width, height: picture.height, channels: picture.channels };
            bytes = encode_png("", &picture).map_err(guarded_decode::damaged)?;
            // Of the file and the look, not of the PNG: another version of its encoder must not make another picture.
            let look = format!("{} {:?}", look.turned, look.background);
            digest = Hasher::derived("kinset 2026-11 picture with a look").field(&digest.hex()).field(&look).finish();
        }
        let Header { width, height, channels } = header;
        let content = Content::Encoded { bytes, digest, damaged };
        Ok(Self { content, width, height, channels, bits, facts: Some(facts), path, label })
    }
}

/// The records of a data set, in an order that does not depend on labels. After an error nothing more comes.
pub trait Records: Iterator<Item = Result<Record>> + Send {
    /// The broken pictures left out so far.
    fn skipped(&self) -> FaultyImages {
        FaultyImages::default()
    }

    /// The damaged pictures among those that came: JPEGs that decode only partly.
    fn damaged(&self) -> FaultyImages {
        FaultyImages::default()
    }

    /// What only the reader knows of what came so far: kinds of pictures, members left out, doubts.
    fn reading(&self) -> Reading {
        Reading::default()
    }
}

/// Records without their labels.
struct Unlabeled(Box<dyn Records>);

impl Iterator for Unlabeled {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next()?.map(|record| Record { label: None, ..record }))
    }
}

impl Records for Unlabeled {
    fn skipped(&self) -> FaultyImages {
        self.0.skipped()
    }

    fn damaged(&self) -> FaultyImages {
        self.0.damaged()
    }

    fn reading(&self) -> Reading {
        self.0.reading()
    }
}

/// The first records only.
struct Limited {
    left: usize,
    records: Box<dyn Records>,
}

impl Iterator for Limited {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.records.next()
    }
}

impl Records for Limited {
    fn skipped(&self) -> FaultyImages {
        self.records.skipped()
    }

    fn damaged(&self) -> FaultyImages {
        self.records.damaged()
    }

    fn reading(&self) -> Reading {
        self.records.reading()
    }
}

/// The records of parts that follow each other. After an error or the end nothing more comes.
struct Chain<P: IntoIterator>(Option<std::iter::Flatten<std::vec::IntoIter<P>>>);

impl<P: Iterator<Item = Result<Record>>> Iterator for Chain<P> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.0.as_mut()?.next();
        if !matches!(next, Some(Ok(_))) {
            self.0 = None;
        }
        next
    }
}

impl<P: Iterator<Item = Result<Record>> + Send> Records for Chain<P> {}

/// What comes from a file that is opened when its turn has come.
pub(super) fn open_lazily<T, I: Iterator<Item = Result<T>>>(
    open: impl FnOnce() -> Result<I>,
) -> impl Iterator<Item = Result<T>> {
    std::iter::once_with(open).flat_map(|opened| {
        let (items, error) = match opened {
            Ok(items) => (Some(items), None),
            Err(error) => (None, Some(Err(error))),
        };
        items.into_iter().flatten().chain(error)
    })
}

/// A label that must name one of the classes.
pub(super) fn checked_label(file: &str, row: u64, found: i64, classes: usize) -> Result<i32> {
    match i32::try_from(found) {
        Ok(label) if usize::try_from(label).is_ok_and(|label| label < classes) => Ok(label),
        _ => Err(DatasetError::Label { file: file.to_owned(), row, found, classes }),
    }
}
