//! Errors of artifact files: unreadable, damaged, or with invalid content.

use std::fmt;
use std::path::Path;

use super::picture_facts::FORMATS;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;

pub type Result<T> = std::result::Result<T, ArtifactError>;

/// An artifact's file that cannot be read, written or trusted. Rows count from 0.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is truncated, or its bytes were changed.
    #[error("`{path}` is damaged: {detail}")]
    Damaged { path: String, detail: String },
    /// A file in a form, or with a part of one, that is not read; nothing is wrong with it.
    #[error("`{path}` {what}")]
    Unsupported { path: String, what: String },
    /// A file that is not at all what its name says.
    #[error("`{path}` is not a valid {form} file: {what}")]
    NotTheForm { path: String, form: &'static str, what: String },
    /// Several columns may hold what is looked for, and none is named as usual.
    #[error("`{path}` does not say which column holds {what}; it may be {}", Listed(candidates))]
    WhichColumn { path: String, what: &'static str, candidates: Vec<String> },
    #[error(
        "`{path}` has no column of vectors, that is a list of floats, or columns of numbers called `0`, `1`, `2` and so on; \
         its columns are {}",
        Listed(found)
    )]
    NoVectors { path: String, found: Vec<String> },
    #[error("cannot write `{path}`: {detail}")]
    Encode { path: String, detail: String },
    #[error("`{path}` has no `kinset` metadata, so it is not a table of `{wanted}`")]
    NotOurs { path: String, wanted: &'static str },
    #[error("`{path}` contains `{found}`, not `{wanted}`")]
    WrongKind { path: String, found: String, wanted: &'static str },
    /// The file was written by a newer kinset, or by one too old.
    #[error("`{path}` has format {found}; this kinset reads format {known}")]
    WrongFormat { path: String, found: u64, known: u64 },
    /// Metadata that lack a field, or whose field is of another type.
    #[error("`{path}` has no usable metadata field `{field}`: {wanted} was expected, found {found}")]
    MetaField { path: String, field: String, wanted: &'static str, found: String },
    #[error("`{path}` has no column `{column}`; its columns are {}", Listed(found))]
    NoColumn { path: String, column: String, found: Vec<String> },
    /// A table of others in which nothing can be pictures.
    #[error("`{path}` has no column of images; its columns are {}", few(found))]
    NoPictures {
        path: String,
        /// Each with what it holds: "`label` (integers)".
        found: Vec<String>,
    },
    #[error("`{path}` has {found} of metadata; at most {most} are read")]
    LongMetadata { path: String, found: String, most: String },
    #[error("column `{column}` of `{path}` is {found}; {wanted} was expected")]
    WrongType { path: String, column: String, found: String, wanted: String },
    #[error("column `{column}` of `{path}` has no value in row {row}")]
    Null { path: String, column: String, row: usize },
    /// Columns of one table differ in length, or a table does not have the rows it should have.
    #[error("`{what}` of `{path}` has {found} values where {wanted} were expected")]
    Length { path: String, what: String, found: usize, wanted: usize },
    #[error("`{path}` contains no {what}")]
    Empty { path: String, what: &'static str },
    #[error("`{path}` would have more than {limit} rows")]
    TooManyRows { path: String, limit: u64 },
    #[error("column `{column}` of `{path}` contains `{value}` in row {row}; finite numbers were expected")]
    NotFinite { path: String, column: String, row: usize, value: String },
    /// A value that nothing fits to: a neighbor that is no row, a probability above 1.
    #[error("column `{column}` of `{path}` contains `{value}` in row {row}; {wanted} was expected")]
    OutOfRange { path: String, column: String, row: usize, value: String, wanted: String },
    #[error("`{path}` has the id `{id}` twice, in rows {first} and {second}")]
    DuplicateId { path: String, id: String, first: usize, second: usize },
    #[error("image `{name}` cannot be decoded: {detail}")]
    Picture { name: String, detail: String },
    /// A picture that was left outside the table and is not the same any more.
    #[error("image `{path}` changed since it was ingested as `{id}`")]
    ChangedPicture { path: String, id: String },
    #[error("`{path}` is not the JSON of a `{wanted}`: {detail}")]
    Json { path: String, wanted: &'static str, detail: String },
    /// Tensors that the card lists and the file lacks, and the other way round.
    #[error(
        "`{path}` does not contain the tensors its card lists: missing {}, unexpected {}",
        Listed(missing),
        Listed(unexpected)
    )]
    TensorNames { path: String, missing: Vec<String>, unexpected: Vec<String> },
    #[error("tensor `{name}` of `{path}` contains {found}; F32 was expected")]
    TensorType { path: String, name: String, found: String },
    #[error("`{path}`: {what}")]
    Contradiction { path: String, what: String },
}

/// Parts of a sentence, at most eight of them.
fn few(parts: &[String]) -> String {
    let mut text = parts[..parts.len().min(8)].join(", ");
    if parts.len() > 8 {
        text.push_str(&format!(" and {} more", parts.len() - 8));
    }
    if parts.is_empty() { "none".to_owned() } else { text }
}

/// Names, at most eight of them.
struct Listed<'a>(&'a [String]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (i, name) in self.0.iter().take(8).enumerate() {
            write!(f, "{}`{name}`", if i == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(8) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

pub(super) fn display(path: &Path) -> String {
    path.display().to_string()
}

const EDITED: &str = "was the table edited by another tool? run the stage again, or keep all columns, types and metadata";
const DAMAGED: &str = "`kinset verify --repair` drops damaged results from the store, and the next run makes them again; a file of \
                       your own must be fetched or exported again";
const PAIR: &str = "the two files of a network belong together: copy both, unchanged";
const AGAIN: &str = "run the stage that wrote it again; if this repeats, please report it";

impl Fault for ArtifactError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::File(e) => e.diagnosis(),
            Self::Damaged { .. } => Exit::Data.code("artifact::damaged").hint(DAMAGED),
            Self::Unsupported { .. } => Exit::Data.code("artifact::unsupported").hint(
                "write it again in another way: Parquet in zstd, snappy, gzip, brotli, lz4 or uncompressed, not encrypted; Arrow \
                 uncompressed",
            ),
            Self::NotTheForm { .. } => Exit::Data.code("artifact::not-the-form").hint(DAMAGED),
            Self::WhichColumn { .. } => Exit::Data.code("artifact::which-column").hint("name the column"),
            Self::NoVectors { .. } => Exit::Data.code("artifact::no-vectors").hint("name the column"),
            Self::Encode { .. } => {
                Exit::Bug.code("artifact::not-encodable").hint("please report this: kinset built a table it cannot write")
            }
            Self::NotOurs { .. } => {
                Exit::Data.code("artifact::not-ours").hint("`kinset inspect FILE` shows the content of a Parquet file")
            }
            Self::WrongKind { .. } => {
                Exit::Data.code("artifact::wrong-kind").hint("name the stage or file that yields the expected kind")
            }
            Self::WrongFormat { found, known, .. } if found > known => {
                Exit::Data.code("artifact::wrong-format").hint("update kinset, or run the stage again with this one")
            }
            Self::WrongFormat { .. } => {
                Exit::Data.code("artifact::wrong-format").hint("run the stage again: its format is no longer read")
            }
            Self::MetaField { .. } => Exit::Data.code("artifact::metadata").hint(EDITED),
            Self::NoColumn { .. } => Exit::Data.code("artifact::no-column").hint(EDITED),
            Self::NoPictures { .. } => Exit::Data.code("artifact::no-pictures").hint(
                "images are the bytes of picture files, PNG or JPEG, alone or as `bytes` beside `path`, paths below the table's folder, \
                 or base64; write arrays of pixels as PNG first",
            ),
            Self::LongMetadata { .. } => Exit::Data
                .code("artifact::long-metadata")
                .hint("write it with fewer columns or longer row groups, and with the names of classes in a column of text"),
            Self::WrongType { .. } => Exit::Data.code("artifact::wrong-type").hint(EDITED),
            Self::Null { .. } => Exit::Data.code("artifact::null").hint(EDITED),
            Self::Length { .. } => Exit::Data.code("artifact::length").hint(EDITED),
            Self::Empty { .. } => {
                Exit::Data.code("artifact::empty").hint("check the source's `root`, `split` and `limit`: nothing was selected")
            }
            Self::TooManyRows { .. } => Exit::Data.code("artifact::too-many-rows").hint("split the source, or set `limit`"),
            Self::NotFinite { .. } => Exit::Run
                .code("artifact::not-finite")
                .hint("training diverged or the encoder is broken: lower `optimizer.lr`, then run the stage again"),
            Self::OutOfRange { .. } => Exit::Data.code("artifact::out-of-range").hint(AGAIN),
            Self::DuplicateId { .. } => Exit::Data.code("artifact::duplicate-id").hint(EDITED),
            Self::Picture { .. } => {
                Exit::Data.code("artifact::picture").hint(format!("remove the file or fetch it again; a picture is a {FORMATS} file"))
            }
            Self::ChangedPicture { .. } => Exit::Data
                .code("artifact::picture-changed")
                .hint("run again to ingest it anew"),
            Self::Json { .. } => Exit::Data.code("artifact::json").hint(DAMAGED),
            Self::TensorNames { .. } => Exit::Data.code("artifact::tensor-names").hint(PAIR),
            Self::TensorType { .. } => Exit::Data.code("artifact::tensor-type").hint(PAIR),
            Self::Contradiction { .. } => Exit::Data.code("artifact::contradiction").hint(AGAIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_file_column_and_fix() {
        let error = ArtifactError::NoColumn {
            path: "a/features.parquet".into(),
            column: "embedding".into(),
            found: vec!["id".into(), "row".into()],
        };
        assert_eq!(error.to_string(), "`a/features.parquet` has no column `embedding`; its columns are `id`, `row`");
        assert!(error.hint().is_some());
        assert_eq!((error.code(), error.exit()), ("artifact::no-column", Exit::Data));
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<String> = (0..11).map(|i| format!("w{i}")).collect();
        assert!(Listed(&names).to_string().ends_with("`w7` and 3 more"));
        assert_eq!(Listed(&[]).to_string(), "none");
    }
}
