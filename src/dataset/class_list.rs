//! Lists of classes: a text file of one folder name per line says which of them, and in which order.
//!
//! A line is the name of a class's folder, then perhaps a blank and what people call it: `n01440764 tench`. Labels are numbered by
//! line, from 0. This is the form of SCAN's lists of ImageNet's subsets.

use std::collections::BTreeSet;
use std::path::Path;

use super::error::{DatasetError, Result};
use kinset_base::file_kind::is_utf16;
use kinset_base::fs;
use kinset_base::name::{Name, without_mark};
use kinset_base::raw_file::RawFile;

/// Longer lists are refused: ImageNet's 21,841 classes take a twentieth.
const LONGEST: u64 = 1 << 24;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClassList {
    pub(super) file: RawFile,
    /// Folder and name by label.
    pub(super) classes: Vec<(Name, String)>,
}

impl ClassList {
    /// Reads a list; none if there is no such file.
    ///
    /// # Errors
    /// A line that names no folder, or one a second time; no line at all.
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let name = path.file_name().map(Name::of).unwrap_or_default();
        let Some(file) = RawFile::find(name, path.to_owned())? else { return Ok(None) };
        let text = fs::read_at_most(path, LONGEST)?;
        // Two bytes for each letter: what some editors call Unicode.
        let wide = is_utf16(&text);
        let text = without_mark(&text);
        let wrong = |line: usize, problem: String| {
            Err(DatasetError::ClassList { file: path.display().to_string(), line: line + 1, problem })
        };
        let (mut classes, mut seen) = (Vec::new(), BTreeSet::new());
        if wide {
            return wrong(0, "the list is UTF-16: save it as UTF-8".to_owned());
        }
        for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = Name::from_bytes(line);
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let (folder, name) = line.split_once(char::is_whitespace).unwrap_or((line, line));
            if Name::bytes(folder).iter().any(|byte| matches!(byte, b'/' | b'\\')) || folder.starts_with('.') {
                return wrong(number, format!("`{folder}` is not a valid folder name"));
            }
            // `line` is in its shown form already.
            let folder = Name::from_bytes(&Name::bytes(folder));
            if !seen.insert(folder.clone()) {
                return wrong(number, format!("`{folder}` is there already"));
            }
            classes.push((folder, name.trim().to_owned()));
        }
        if classes.is_empty() {
            return wrong(0, "the list names no class".to_owned());
        }
        Ok(Some(Self { file, classes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fault::Fault;

    fn read(text: &str) -> Result<Option<ClassList>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write_atomic(&dir.path().join("list.txt"), text.as_bytes()).unwrap();
        ClassList::read(&dir.path().join("list.txt"))
    }

    #[test]
    fn labels_are_lines_and_names_may_have_blanks() {
        let list = read("n02 great white shark\r\n\n  n01\ttench \nn03").unwrap().unwrap();
        let pairs: Vec<_> = list.classes.iter().map(|(folder, name)| (folder.as_str(), name.as_str())).collect();
        assert_eq!(pairs, [("n02", "great white shark"), ("n01", "tench"), ("n03", "n03")]);
        assert_eq!(list.file.name, "list.txt");
        assert!(ClassList::read(Path::new("nowhere/list.txt")).unwrap().is_none());
        let list = read("\u{feff}n02\nn01\r\n").unwrap().unwrap();
        assert_eq!(list.classes[0].0.as_str(), "n02", "a byte order mark is no part of a name");
    }

    #[test]
    fn lines_that_name_no_folder_or_one_twice_are_refused() {
        for (text, line) in [("a\nb\na x", 3), ("../x", 1), ("a\n.b", 2), ("a/b", 1), ("", 1), ("\n\n", 1), ("\u{feff}../x", 1)]
        {
            let error = read(text).unwrap_err();
            assert!(matches!(error, DatasetError::ClassList { line: found, .. } if found == line), "{text:?}: {error}");
            assert!(error.hint().is_some());
        }
    }
}
