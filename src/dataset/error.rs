//! Errors of raw data, which name the file and the byte.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use kinset_artifact::error::ArtifactError;
use kinset_artifact::picture_facts::FORMATS;
use kinset_base::fault::{Diagnosis, Exit, Fault, chain};
use kinset_base::file_kind::{kind_of, remedy};
use kinset_base::fs::{self, FileError};
use kinset_base::unit::count;
use kinset_stage::StageError;

pub type Result<T> = std::result::Result<T, DatasetError>;

/// A place where a data set was looked for, and what was not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Searched {
    pub place: String,
    /// `no such folder`, or the files it lacks.
    pub problem: String,
}

impl Searched {
    /// A place that is no folder, or lacks these files.
    pub(super) fn new(place: &Path, missing: &[String]) -> Self {
        let problem = match fs::metadata(place) {
            Ok(Some(found)) if found.is_dir() => format!("lacks {}", missing.join(", ")),
            Ok(Some(_)) => match kind_of(place) {
                None => "not a folder".to_owned(),
                Some(kind) => format!("not a folder, but {kind}: {}", what_to_do(kind).unwrap_or("name a folder")),
            },
            Ok(None) => "no such folder".to_owned(),
            Err(error) => error.to_string(),
        };
        Self { place: place.display().to_string(), problem }
    }
}

/// What to do with a file of this kind where images were expected, if that is known.
fn what_to_do(kind: &str) -> Option<&'static str> {
    match kind {
        "a tar archive" => Some("`dataset = \"tar\"` reads it"),
        "a Parquet table" => Some("`dataset = \"parquet\"` reads it"),
        _ => remedy(kind),
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultyImages {
    pub count: usize,
    /// In the order in which they were found.
    pub all: Vec<FaultyImage>,
}

impl FaultyImages {
    /// How many a message names.
    pub const NAMED: usize = 5;

    /// How many are kept: all, but of a set that is nothing but faults.
    const KEPT: usize = 1 << 20;

    /// Counts one, and keeps its name.
    pub(super) fn push(&mut self, name: &str, reason: String) {
        self.count += 1;
        if self.all.len() < Self::KEPT {
            self.all.push(FaultyImage { name: name.to_owned(), reason });
        }
    }

    /// The first by name with their reasons, and how many more there are.
    pub fn few(&self) -> String {
        few(&self.all, self.count)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyImage {
    /// The file, below the source's root.
    pub name: String,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    #[error("unknown data set `{name}`")]
    Unknown { name: String, nearest: Option<&'static str> },

    #[error("`{dataset}` has no split `{split}`")]
    UnknownSplit { dataset: String, split: String, known: Vec<String> },

    /// A setting that the data set does not have, or a value it cannot take.
    #[error("`{setting}` of `{dataset}` {problem}")]
    Setting {
        dataset: String,
        /// The key in the pipeline file.
        setting: &'static str,
        /// What is wrong: `must be 1 or more, found 0`.
        problem: String,
    },

    #[error("cannot find the data set `{dataset}`: {}", places(searched))]
    Missing {
        dataset: String,
        /// Every place looked at, and what was not there.
        searched: Vec<Searched>,
        advice: String,
    },

    /// Published weights that are not here yet.
    #[error("the weights `{url}` are not at `{place}`")]
    NotFetched { url: String, place: String, command: String },

    #[error("`{folder}` contains no {FORMATS} image ({others})")]
    Empty {
        folder: String,
        /// What it holds instead: `12 other files: 11 .gif, 1 .txt`.
        others: String,
    },

    /// Archives without a member that is a picture.
    #[error("`{file}` contains no pictures ({others})")]
    NoMembers {
        file: String,
        /// What they hold instead: `12 other members: 12 .input.jpg`.
        others: String,
    },

    #[error("`{file}`, byte {offset}: {field} should be {expected}, found {found}")]
    Malformed {
        file: String,
        /// Where the field begins, in unpacked bytes.
        offset: u64,
        field: &'static str,
        expected: String,
        found: String,
    },

    /// A file that stops early.
    #[error("`{file}` ends after {} bytes, its header declares {}", count(*found), count(*expected))]
    Truncated {
        file: String,
        /// Unpacked bytes that the header declares.
        expected: u64,
        /// Unpacked bytes that are there.
        found: u64,
    },

    /// A file that does not stop where its header says.
    #[error("`{file}` has data after byte {}, where its header says it ends", count(*expected))]
    TooLong {
        file: String,
        /// Unpacked bytes that the header declares.
        expected: u64,
    },

    /// A file without a header that has not its published length.
    #[error("`{file}` has {} bytes, the published file has {}", count(*found), count(*expected))]
    Length {
        file: String,
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },

    /// A file of a container format that does not hold what it should.
    #[error("`{file}`: {problem}")]
    Content { file: String, problem: String },

    #[error("`{file}`, line {line}: {problem}")]
    ClassList {
        file: String,
        /// Which line, from 1.
        line: usize,
        problem: String,
    },

    #[error("cannot unpack `{file}` beyond byte {}", count(*offset))]
    Unpack {
        file: String,
        /// Unpacked bytes that came out before.
        offset: u64,
        #[source]
        source: io::Error,
    },

    /// A file of another kind than its name or the source says.
    #[error("`{file}` is not {wanted}, but {kind}")]
    OtherKind {
        file: String,
        /// `a tar archive`
        wanted: &'static str,
        /// In the words of [`kinset_base::file_kind`].
        kind: &'static str,
    },

    #[error("cannot read the archive `{file}`")]
    Archive {
        file: String,
        #[source]
        source: io::Error,
    },

    #[error("`{images}` contains {} images, `{labels}` {} labels", count(*image_count), count(*label_count))]
    Mismatch { images: String, image_count: u64, labels: String, label_count: u64 },

    #[error("`{file}`: the label of image {row} is {found}, the data set has {classes} classes")]
    Label {
        file: String,
        /// Which image, from 0.
        row: u64,
        found: i64,
        /// How many classes there are; labels run from 0 to one less.
        classes: usize,
    },

    /// Several files that cannot be read.
    #[error("{} files cannot be read: {}", count(faults.len() as u64), first_of(faults))]
    Unreadable {
        /// What is wrong with each, in words that name it.
        faults: Vec<String>,
        /// The first of them.
        first: Box<DatasetError>,
    },

    #[error("{} of {} images in `{place}` cannot be read: {}", count(broken.count as u64), count(*images as u64), broken.few())]
    Broken { place: String, broken: FaultyImages, images: usize },

    /// Files of one data set with different classes.
    #[error("`{one}` and `{other}` belong to one data set but have different labels or class names")]
    Shards { one: String, other: String },

    #[error("`{file}`, {place}: {problem}")]
    Vectors {
        file: String,
        /// Where in it: `line 7`, `header`.
        place: String,
        problem: String,
    },

    #[error(transparent)]
    Table(#[from] ArtifactError),

    /// A table of pictures that a data source names.
    #[error(transparent)]
    PictureTable(ArtifactError),
    /// A table of features, not one of pictures.
    #[error(transparent)]
    Features(ArtifactError),

    /// A file that is no longer what it was when it was hashed.
    #[error("`{file}` changed while it was being read")]
    Changed { file: String },

    #[error(transparent)]
    File(#[from] FileError),
}

/// Faults of files, gathered so that one error names them all.
#[derive(Default)]
pub(super) struct FaultyFiles {
    /// In words, each once: a file may be met several times.
    faults: BTreeSet<String>,
    first: Option<DatasetError>,
}

impl FaultyFiles {
    /// Keeps a fault of a file.
    ///
    /// # Errors
    /// Any other: of what several files say together, of the machine.
    pub(super) fn keep(&mut self, error: DatasetError) -> Result<()> {
        use DatasetError as E;
        let of_a_file = matches!(
            error,
            E::PictureTable(_) | E::Archive { .. } | E::OtherKind { .. } | E::Content { .. } | E::Changed { .. } | E::File(_)
        );
        if !of_a_file || error.exit() != Exit::Data {
            return Err(error);
        }
        self.faults.insert(chain(&error));
        self.first.get_or_insert(error);
        Ok(())
    }

    /// What a fallible step gave; nothing if it had a fault that was kept.
    ///
    /// # Errors
    /// As [`FaultyFiles::keep`].
    pub(super) fn take<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.keep(error).map(|()| None),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// All faults in one error, if there are any. Of one it is that one.
    ///
    /// # Errors
    /// See there.
    pub(super) fn finish(&mut self) -> Result<()> {
        let faults = std::mem::take(&mut self.faults);
        match self.first.take() {
            None => Ok(()),
            Some(first) if faults.len() < 2 => Err(first),
            Some(first) => Err(DatasetError::Unreadable { faults: faults.into_iter().collect(), first: Box::new(first) }),
        }
    }
}

/// The first of many faults.
fn first_of(faults: &[String]) -> String {
    let shown = &faults[..faults.len().min(FaultyImages::NAMED)];
    let more = faults.len() - shown.len();
    let more = if more > 0 { format!("; and {} more", count(more as u64)) } else { String::new() };
    format!("{}{more}", shown.join("; "))
}

fn places(searched: &[Searched]) -> String {
    let places: Vec<_> = searched.iter().map(|l| format!("`{}` ({})", l.place, l.problem)).collect();
    places.join(", ")
}

fn few(all: &[FaultyImage], count_of_all: usize) -> String {
    let first = &all[..all.len().min(FaultyImages::NAMED)];
    let mut text: Vec<_> = first.iter().map(|b| format!("`{}` ({})", b.name, b.reason)).collect();
    if count_of_all > first.len() {
        text.push(format!("and {} more", count((count_of_all - first.len()) as u64)));
    }
    text.join(", ")
}

impl From<DatasetError> for StageError {
    fn from(error: DatasetError) -> Self {
        Self::other(error)
    }
}

/// What to do about most damaged files.
const DAMAGED: &str = "the file is damaged or not what its name says: download it again";

impl Fault for DatasetError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Unknown { nearest: Some(name), .. } => Exit::Pipeline
                .code("dataset::unknown")
                .hint(format!("did you mean `{name}`? `kinset data list` lists them all")),
            Self::Unknown { nearest: None, .. } => Exit::Pipeline
                .code("dataset::unknown")
                .hint("`kinset data list` lists them all; your own images: `dataset = \"folder\"` with `root = \"DIR\"`"),
            Self::UnknownSplit { known, .. } => Exit::Pipeline
                .code("dataset::unknown-split")
                .hint(format!("it has {}; join several with `+`", known.join(", "))),
            Self::Setting { .. } => Exit::Pipeline.code("dataset::setting"),
            Self::Missing { advice, .. } => Exit::Data.code("dataset::missing").hint(advice.clone()),
            Self::NotFetched { command, .. } => {
                Exit::Data.code("dataset::not-fetched").hint(format!("`{command}` downloads them"))
            }
            Self::Empty { .. } => Exit::Data.code("dataset::empty").hint("set the folder of the images with `root = \"DIR\"`"),
            Self::NoMembers { .. } => Exit::Data.code("dataset::no-members").hint(
                "a sample's picture is its member `.jpg`, `.png`, `.webp`, `.gif`, `.bmp` or `.tif`; name another by what follows the first dot of its \
                 name: `image_column = \"input.jpg\"`",
            ),
            Self::Malformed { .. } => Exit::Data.code("dataset::malformed").hint(DAMAGED),
            Self::Truncated { .. } => Exit::Data.code("dataset::truncated").hint(DAMAGED),
            Self::TooLong { .. } => Exit::Data.code("dataset::too-long").hint(DAMAGED),
            Self::Length { .. } => Exit::Data.code("dataset::length").hint(DAMAGED),
            Self::Content { .. } => Exit::Data.code("dataset::content").hint(DAMAGED),
            Self::OtherKind { kind, .. } => {
                Exit::Data.code("dataset::other-kind").hint(what_to_do(kind).unwrap_or("name another file, or download it again"))
            }
            Self::Archive { .. } => Exit::Data.code("dataset::archive").hint(DAMAGED),
            Self::ClassList { .. } => Exit::Data
                .code("dataset::class-list")
                .hint("each line: a folder, then optionally a space and the class name; list each folder once"),
            Self::Unpack { .. } => Exit::Data.code("dataset::unpack").hint(DAMAGED),
            Self::Mismatch { .. } => Exit::Data.code("dataset::mismatch").hint(DAMAGED),
            Self::Label { .. } => Exit::Data.code("dataset::label").hint(DAMAGED),
            Self::Unreadable { first, .. } => first.diagnosis(),
            Self::Broken { .. } => Exit::Data
                .code("dataset::broken-images")
                .hint("remove or repair them, or skip them: `skip_broken = true` in the data source, `--skip-broken` of `init`, `similar` and `curate`"),
            Self::Shards { .. } => Exit::Data
                .code("dataset::shards")
                .hint("read them one by one, or split by split: `root = \"FILE\"`, `split = \"NAME\"`"),
            Self::Vectors { .. } => Exit::Data.code("dataset::vectors").hint(
                "features are one vector for each image: .parquet or .arrow with a name and a list of floats, .npy with a list of \
                 `names`, or .csv with a name and then numbers. What is guessed can be set: `header`, `separator`, `id_column`, \
                 `column`, `names`, `dim` (`kinset similar`: `--header` and so on, `--feature-dim`)",
            ),
            Self::PictureTable(
                error @ (ArtifactError::NoColumn { .. } | ArtifactError::WrongType { .. } | ArtifactError::NoPictures { .. }),
            ) => {
                let what = "images are binary, a struct of `bytes` and `path`, paths below the table's folder, or base64";
                Exit::Data.code(error.code()).hint(format!("name other columns with `image_column` and `label_column`; {what}"))
            }
            Self::PictureTable(error @ ArtifactError::Damaged { .. }) => {
                Exit::Data.code(error.code()).hint("the file is damaged: download it again")
            }
            Self::PictureTable(error)
            | Self::Table(
                error @ (ArtifactError::NoPictures { .. }
                | ArtifactError::LongMetadata { .. }
                | ArtifactError::Unsupported { .. }),
            ) => error.diagnosis(),
            Self::Features(error) => match error {
                ArtifactError::NoColumn { .. }
                | ArtifactError::WrongType { .. }
                | ArtifactError::WhichColumn { .. }
                | ArtifactError::NoVectors { .. } => Exit::Data.code(error.code()).hint(
                    "`id_column` names the column of names (`\"\"`: rows are numbered), `column` that of the vectors; `kinset similar` \
                     has `--id-column` and `--column` for them",
                ),
                ArtifactError::Null { .. } | ArtifactError::OutOfRange { .. } => {
                    Exit::Data.code(error.code()).hint("drop the row where the file is made, or choose another column: `id_column`, `column`")
                }
                ArtifactError::Damaged { .. } | ArtifactError::NotTheForm { .. } => {
                    Exit::Data.code(error.code()).hint("export or fetch the file again")
                }
                other => other.diagnosis(),
            },
            // The store's tables heal by running again; these files are the user's.
            Self::Table(error @ ArtifactError::NoColumn { .. }) => {
                Exit::Data.code(error.code()).hint("name the columns with `image_column` and `label_column`")
            }
            Self::Table(error) => {
                Exit::Data.code(error.code()).hint("the file is damaged or contains no images: download it again")
            }
            Self::Changed { .. } => {
                Exit::Data.code("dataset::changed").hint("wait until no other program writes there, then run again")
            }
            Self::File(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
                Exit::Data.code("file::not-permitted").hint("check the permissions of the file")
            }
            Self::File(error) => error.diagnosis(),
        }
    }
}
