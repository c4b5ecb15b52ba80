//! The search for files whose names are known, in the layouts that a data set comes in.

use std::path::PathBuf;
use std::sync::Arc;

use super::entry::Request;
use super::error::{Result, Searched};
use super::reader::{DatasetFiles, DatasetReader, DigestOf};
use kinset_base::fs;
use kinset_base::raw_file::RawFile;

/// A folder in which files are looked for.
#[derive(Default)]
pub(super) struct Lookup {
    pub(super) folder: PathBuf,
    files: Vec<RawFile>,
    missing: Vec<String>,
}

impl Lookup {
    /// The place among the located files of the first of these that is there.
    pub(super) fn find(&mut self, names: &[impl AsRef<str>]) -> Result<Option<usize>> {
        for name in names.iter().map(AsRef::as_ref) {
            if let Some(file) = RawFile::find(name, self.folder.join(name))? {
                self.files.push(file);
                return Ok(Some(self.files.len() - 1));
            }
        }
        Ok(None)
    }

    /// As [`find`](Self::find), of a file that is needed; the first name is the published one.
    pub(super) fn require(&mut self, names: &[impl AsRef<str>]) -> Result<usize> {
        let found = self.find(names)?;
        if let (None, Some(name)) = (found, names.first()) {
            self.missing.push(format!("`{}`", name.as_ref()));
        }
        Ok(found.unwrap_or_default())
    }
}

/// Takes the first layout that is whole, in the first folder that holds one. A layout is a folder below the data set's own
/// (empty for that itself) and what `plan` calls it; `plan` asks for the files and says how to open them.
pub(super) fn locate_fixed<L: Copy, O>(
    request: &Request<'_>,
    layouts: &[(&str, L)],
    plan: impl Fn(&mut Lookup, L) -> Result<O>,
) -> Result<DatasetFiles>
where
    O: Fn(&Arc<[RawFile]>, &mut DigestOf) -> Result<DatasetReader> + Send + 'static,
{
    let mut searched: Vec<Searched> = Vec::new();
    for place in request.candidates() {
        for (number, &(below, layout)) in layouts.iter().enumerate() {
            let folder = if below.is_empty() { place.clone() } else { place.join(below) };
            let mut lookup = Lookup { folder, ..Lookup::default() };
            let open = plan(&mut lookup, layout)?;
            let Lookup { folder, files, missing } = lookup;
            if missing.is_empty() {
                return Ok(DatasetFiles::new(files, Some(folder), open));
            }
            // Each folder once; and of the rarer layouts only what was begun is worth a word.
            let found = Searched::new(&folder, &missing);
            if !searched.iter().any(|known| known.place == found.place) && (number < 2 || fs::exists(&folder)) {
                searched.push(found);
            }
        }
    }
    Err(request.missing(searched))
}
