//! Data sets in several files of one form, and which of them belong to a split.
//!
//! `root` is one file, or a folder; of a folder all files with the form's ending are read, in the order of their names. The split
//! `all` is every file. Another name takes the files that say so: `test-00000-of-00001.parquet`, `test.parquet`, or any file in a
//! subfolder `test`.

use std::path::PathBuf;

use super::entry::Request;
use super::error::{Result, Searched};
use super::list_files::FileList;
use super::reader::Ignored;
use kinset_base::fs;
use kinset_base::name::Name;
use kinset_base::raw_file::RawFile;

pub(super) struct Form {
    /// How their names end, without the dot.
    pub(super) endings: &'static [&'static str],
    /// What one is called in a sentence.
    pub(super) what: &'static str,
    /// The name of a file that is all there is: its own says nothing.
    pub(super) alone: &'static str,
}

pub(super) struct Shards {
    /// The file, or the folder they lie in.
    pub(super) root: PathBuf,
    /// Split after split in the order asked for, by name within each.
    pub(super) files: Vec<RawFile>,
    /// Files of other forms.
    pub(super) ignored: Ignored,
}

impl Shards {
    pub(super) fn find(request: &Request<'_>, form: &Form) -> Result<Self> {
        let Request { source, parts, paths, .. } = *request;
        let root = source.required_root(paths)?;
        let missing = |problem: String| request.missing(vec![Searched { place: root.display().to_string(), problem }]);
        let whole = parts == ["all"];
        let mut ignored = Ignored::default();
        let mut files = match fs::metadata(&root)? {
            None => return Err(request.missing(vec![Searched::new(&root, &[])])),
            Some(found) if found.is_file() => {
                if !whole {
                    return Err(source.fault("split", "must be `all` where `root` is one file"));
                }
                vec![RawFile::new(form.alone, root.clone(), &found)]
            }
            Some(_) => {
                let mut found = FileList::default();
                found.add(&root, &Name::default())?;
                ignored = found.ignored;
                found.files
            }
        };
        files.retain(|file| {
            let fits =
                file.path.extension().is_some_and(|found| form.endings.iter().any(|ending| found.eq_ignore_ascii_case(ending)));
            let keep = fits || file.name == form.alone;
            if !keep {
                ignored.add(&file.path);
            }
            keep
        });
        if !whole {
            let mut chosen = Vec::new();
            for part in parts {
                let before = chosen.len();
                chosen.extend(files.iter().filter(|file| belongs(&file.name, part)).cloned());
                if chosen.len() == before {
                    return Err(missing(format!("no {} of a split `{part}`", form.what)));
                }
            }
            files = chosen;
        }
        if files.is_empty() {
            return Err(missing(format!("no {}", form.what)));
        }
        Ok(Self { root, files, ignored })
    }
}

/// True for `test-00000-of-00001.parquet`, `test.parquet` and anything in a folder `test`.
fn belongs(name: &str, part: &str) -> bool {
    let mut names = name.split('/').rev();
    let file = names.next().and_then(|file| file.strip_prefix(part));
    file.is_some_and(|rest| rest.starts_with(['-', '.'])) || names.any(|folder| folder == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_split_that_its_name_or_folder_says() {
        for (name, part, wanted) in [
            ("test-00000-of-00001.parquet", "test", true),
            ("test.tar", "test", true),
            ("a/test/x.tar", "test", true),
            ("tester-1.tar", "test", false),
            ("test/x.tar", "tes", false),
            ("latest.tar", "test", false),
        ] {
            assert_eq!(belongs(name, part), wanted, "{name}, {part}");
        }
    }
}
