//! What all readers have in common: raw files first, then records one by one.

use std::path::{Path, PathBuf};

use super::decode::{self, Checked, Undecodable};
use super::error::Result;
use kinset_artifact::codec::Header;
use kinset_artifact::pixels::Pixels;
use kinset_base::fs::FileError;
use kinset_base::raw_file::RawFile;
use kinset_store::digest::Digest;

/// Asks the engine for the digest of a raw file's bytes; the engine's memo spares most readings.
pub type DigestOf<'a> = dyn FnMut(&RawFile) -> std::result::Result<Digest, FileError> + 'a;

/// The digest of a raw file's bytes, read now: a [`DigestOf`] where no memo is at hand.
///
/// # Errors
/// If it cannot be read.
pub fn file_digest(file: &RawFile) -> std::result::Result<Digest, FileError> {
    Digest::of_file(&file.path)
}

/// A data set that was found and not opened yet. Together with [`Source::identity`](super::Source::identity), the digests and
/// names of its [`files`](Self::files) decide what it will say.
pub struct Located {
    /// All raw files the records depend on, in the reader's order.
    pub files: Vec<RawFile>,
    /// Where they lie; nowhere for what is drawn.
    pub root: Option<PathBuf>,
    /// What lies there beside them and is not read.
    pub ignored: Ignored,
    pub(super) reader: Box<dyn Reader>,
    pub(super) limit: Option<usize>,
}

impl std::fmt::Debug for Located {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Located");
        f.field("root", &self.root).field("files", &self.files).field("ignored", &self.ignored).finish_non_exhaustive()
    }
}

impl Located {
    /// Opens the data set for one reading from front to back. `digest_of` is asked for each file of a folder; where no memo
    /// is at hand, `&mut file_digest` reads them.
    ///
    /// # Errors
    /// Headers that cannot be, files that disagree with each other; what comes later in the files is found while reading.
    pub fn open(&self, digest_of: &mut DigestOf) -> Result<Opened> {
        let Opened { labels, count, records } = self.reader.open(&self.files, digest_of)?;
        Ok(match self.limit {
            None => Opened { labels, count, records },
            Some(limit) => Opened { labels, count: count.min(limit), records: Box::new(Limited { left: limit, records }) },
        })
    }
}

/// Files beside the pictures that are no pictures: how many of which ending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Endings (`.txt`; `without ending`) with their counts, sorted.
    pub endings: Vec<(String, usize)>,
}

impl Ignored {
    /// How many files.
    pub fn count(&self) -> usize {
        self.endings.iter().map(|(_, count)| count).sum()
    }

    /// Counts a file by its ending, in small letters.
    pub(super) fn add(&mut self, path: &Path) {
        match path.extension() {
            Some(ending) => self.count_as(&format!(".{}", ending.to_string_lossy().to_lowercase()), 1),
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

/// A format's half of the work: from located files to records.
pub(super) trait Reader: Send {
    /// Opens the files for one reading.
    fn open(&self, files: &[RawFile], digest_of: &mut DigestOf) -> Result<Opened>;
}

/// A data set that is being read.
pub struct Opened {
    /// Whether there are labels, and their names.
    pub labels: Labels,
    /// How many records will come; fewer only where broken images are skipped.
    pub count: usize,
    /// The records.
    pub records: Box<dyn Records>,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("labels", &self.labels).field("count", &self.count).finish_non_exhaustive()
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
    Absent {
        /// Why, for whoever asks for them.
        why: String,
    },
}

/// One picture and, apart from it, its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The picture as it came.
    pub content: Content,
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (gray) or 3 (color).
    pub channels: usize,
    /// The file it came from, below the source's root, where it had one to itself.
    pub path: Option<String>,
    /// Its class; `-1` for a picture that the data set leaves without one (STL-10's unlabeled part), `None` if there are no labels.
    pub label: Option<i32>,
}

/// A picture as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Pixels from an array.
    Raw(Pixels),
    /// A whole PNG, JPEG or WebP file, which was read through once and can be decoded.
    Encoded {
        /// The file's bytes.
        bytes: Vec<u8>,
        /// Their digest.
        digest: Digest,
        /// It is damaged, and decoders show gray or noise for a part of it.
        damaged: bool,
    },
}

impl Record {
    /// A picture file, read through. `digest` is that of its bytes, where it is known already.
    pub(super) fn of_file(
        bytes: Vec<u8>,
        digest: Option<Digest>,
        path: Option<String>,
        label: Option<i32>,
    ) -> std::result::Result<Self, Undecodable> {
        let Checked { header: Header { width, height, channels }, damaged } = decode::check(&bytes)?;
        let digest = digest.unwrap_or_else(|| Digest::of(&bytes));
        Ok(Self { content: Content::Encoded { bytes, digest, damaged }, width, height, channels, path, label })
    }
}

/// The records of a data set, in an order that does not depend on labels. After an error nothing more comes.
pub trait Records: Iterator<Item = Result<Record>> + Send {
    /// The broken pictures left out so far.
    fn skipped(&self) -> Faulty {
        Faulty::default()
    }

    /// The damaged pictures among those that came: JPEGs of which decoders show gray or noise for a part.
    fn damaged(&self) -> Faulty {
        Faulty::default()
    }
}

/// Pictures that something is wrong with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faulty {
    /// How many.
    pub count: usize,
    /// The first few.
    pub first: Vec<Broken>,
}

impl Faulty {
    /// How many are named.
    pub const NAMED: usize = 5;

    /// Counts one, and names it if few were named before.
    pub(super) fn push(&mut self, name: &str, reason: String) {
        self.count += 1;
        if self.first.len() < Self::NAMED {
            self.first.push(Broken { name: name.to_owned(), reason });
        }
    }
}

/// A picture that something is wrong with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The file, below the source's root.
    pub name: String,
    /// Why.
    pub reason: String,
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
    fn skipped(&self) -> Faulty {
        self.records.skipped()
    }

    fn damaged(&self) -> Faulty {
        self.records.damaged()
    }
}
