//! Data sets, and the formats that read them.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use super::error::{DatasetError, Result, Searched};
use super::fetch::remote::Download;
use super::reader::DatasetFiles;
use super::source::Source;
use kinset_base::search_path::DataPaths;

/// A format of raw data: a file of this crate, named in the list of formats in its `mod.rs`.
pub(super) trait Format: Debug + Sync {
    /// Its name in errors about settings.
    fn name(&self) -> &'static str;

    /// The settings of a source that it has beside those that all formats have.
    fn settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Checks the values of its own settings and fills in their defaults.
    fn complete(&self, source: &Source) -> Result<Source> {
        Ok(source.clone())
    }

    /// Finds the files: lists folders and looks at sizes, reads no pictures.
    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles>;
}

/// A data set, or a format for the user's own.
#[derive(Debug)]
pub struct Entry {
    /// Its name in a pipeline file.
    pub name: &'static str,
    /// What it is, in a line.
    pub title: &'static str,
    pub license: &'static str,
    /// How to get it by hand.
    pub advice: &'static str,
    pub(super) format: &'static dyn Format,
    /// Its parts in the published order; empty where the user names them.
    pub splits: &'static [Split],
    /// Height and width of every image, where the data set fixes them.
    pub shape: Option<(usize, usize)>,
    /// The names of its classes by label; empty where the files or nobody names them.
    pub classes: &'static [&'static str],
    /// Where operating systems install it.
    pub system: &'static [&'static str],
    /// The folder it lies in, if that is not called as it is: several data sets may share one.
    pub(super) folder: Option<&'static str>,
    /// Its published files; none where an account is needed, or where it is not published at all.
    pub downloads: &'static [Download],
}

#[derive(Debug)]
pub struct Split {
    pub name: &'static str,
    /// The file of images, without `.gz`; several files with blanks between; empty where there is none.
    pub images: &'static str,
    /// The file of labels, likewise.
    pub labels: &'static str,
    /// How many images were published.
    pub count: Option<u64>,
}

impl Split {
    /// A part whose files have no fixed names.
    pub(super) const fn named(name: &'static str) -> Self {
        Self { name, images: "", labels: "", count: None }
    }
}

impl Entry {
    /// A data set of the user's own; published ones say more.
    pub(super) const fn new(
        name: &'static str,
        title: &'static str,
        advice: &'static str,
        format: &'static dyn Format,
    ) -> Self {
        Self {
            name,
            title,
            license: "yours",
            advice,
            format,
            splits: &[],
            shape: None,
            classes: &[],
            system: &[],
            folder: None,
            downloads: &[],
        }
    }

    /// The folder it lies in, below that of all data.
    pub(super) fn folder(&self) -> &'static str {
        self.folder.unwrap_or(self.name)
    }

    /// True if every source of it must say where it lies.
    pub fn needs_root(&self) -> bool {
        self.splits.is_empty()
    }

    /// The names of the parts that a split asks for.
    ///
    /// # Errors
    /// A part that the data set does not have, twice the same, or none.
    pub fn parts(&self, split: &str) -> Result<Vec<String>> {
        if split == "all" && !self.splits.is_empty() {
            return Ok(self.splits.iter().map(|part| part.name.to_owned()).collect());
        }
        let unknown = |split: &str| {
            let mut known: Vec<_> = self.splits.iter().map(|part| format!("`{}`", part.name)).collect();
            match known.len() {
                0 => known.push("`all` or names of your own".to_owned()),
                1 => {}
                _ => known.push("`all`".to_owned()),
            }
            DatasetError::UnknownSplit { dataset: self.name.to_owned(), split: split.to_owned(), known }
        };
        let mut parts: Vec<String> = Vec::new();
        for part in split.split('+').map(str::trim) {
            if part.is_empty() || parts.iter().any(|seen| seen == part) {
                return Err(unknown(split));
            }
            parts.push(part.to_owned());
        }
        for part in &parts {
            let fits = if self.splits.is_empty() {
                // A name of the user's own becomes part of a path.
                (part != "all" || parts.len() == 1) && !part.contains(['/', '\\']) && part != ".." && part != "."
            } else {
                self.split(part).is_some()
            };
            if !fits {
                return Err(unknown(part));
            }
        }
        Ok(parts)
    }

    pub(super) fn split(&self, name: &str) -> Option<&Split> {
        self.splits.iter().find(|split| split.name == name)
    }
}

pub(super) struct Request<'a> {
    pub(super) entry: &'a Entry,
    pub(super) source: &'a Source,
    pub(super) parts: &'a [String],
    pub(super) paths: &'a DataPaths,
}

impl Request<'_> {
    /// The parts of a data set that has fixed ones.
    pub(super) fn splits(&self) -> impl Iterator<Item = &Split> {
        self.parts.iter().filter_map(|part| self.entry.split(part))
    }

    /// All folders that the data set may lie in, the best first.
    pub(super) fn candidates(&self) -> Vec<PathBuf> {
        self.paths.candidates(self.entry.folder(), self.source.root.as_deref(), self.entry.system)
    }

    /// The data set is not there: what was looked at, and what to do.
    pub(super) fn missing(&self, searched: Vec<Searched>) -> DatasetError {
        let Entry { name, advice, downloads, .. } = *self.entry;
        let advice = if downloads.is_empty() {
            advice.to_owned()
        } else {
            let all =
                if downloads.iter().any(|file| file.extra) && self.source.split.contains("extra") { " --all" } else { "" };
            let place = match &self.source.root {
                Some(root) => format!(" --root {}", quoted(&self.paths.file(root))),
                None if self.paths.data() == Path::new("data") => String::new(),
                None => format!(" --data {}", quoted(self.paths.data())),
            };
            format!("`kinset data fetch {name}{all}{place}` downloads it; or {advice}")
        };
        DatasetError::Missing { dataset: name.to_owned(), searched, advice }
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-~+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
