//! Vectors from a file of any form, in one stream.

use std::path::{Path, PathBuf};

use super::csv::Csv;
use super::npy::Npy;
use super::records::{not_text, wrong};
use crate::error::{DatasetError, Result};
use kinset_artifact::parquet::arrow_files;
use kinset_artifact::parquet::vectors::{VectorBatches, VectorFile};
use kinset_base::file_kind::{kind_of, with_remedy};
use kinset_base::fs;
use kinset_base::name::{Name, without_mark};
use kinset_base::reading::Reading;
use kinset_base::unit::count;

/// Lists of names may be so long.
const LONGEST: u64 = 1 << 32;

/// What a file does not say of itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The column of names; an empty one: there are none, rows are numbered. Of text without a header its number, from 1.
    pub id_column: Option<String>,
    /// The column of vectors (Parquet, Arrow); or what stands before the numbers in the names of their columns (CSV too).
    pub column: Option<String>,
    /// A file of names, one a line.
    pub names: Option<PathBuf>,
    /// Numbers per vector (CSV).
    pub dim: Option<usize>,
    /// Whether the first line has the names of columns (CSV).
    pub header: Option<bool>,
    /// What stands between fields (CSV): a character, `tab` or `blank`.
    pub separator: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub ids: Vec<String>,
    /// `[rows, D]`.
    pub values: Vec<f32>,
}

/// A stream of vectors with names. Where there are no names, they are row numbers.
pub struct Vectors {
    form: Form,
    /// Names from a list, and its path.
    names: Option<(PathBuf, std::vec::IntoIter<String>)>,
    rows: usize,
    dim: Option<usize>,
    total: Option<usize>,
    reading: Reading,
    ended: bool,
}

enum Form {
    Table(VectorBatches),
    Npy(Npy),
    Csv(Box<Csv>),
}

/// The forms that features come in, by the endings of their names; a folder of `save_to_disk` has none.
pub const ENDINGS: [&str; 8] = ["parquet", "pq", "arrow", "feather", "npy", "csv", "tsv", "txt"];

/// What a name ends in, in small letters.
fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// The files that are read for a path: itself, or those that a folder of `save_to_disk` lists.
///
/// # Errors
/// If there is none, or it is no file that can be read twice: a pipe, a device.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let files = arrow_files::files(path).map_err(DatasetError::Features)?;
    let Some(files) = files else {
        return Err(wrong(path, "it", "a folder without the `state.json` that `save_to_disk` writes holds no features"));
    };
    for file in &files {
        match fs::metadata(file)? {
            Some(found) if found.is_file() => {}
            Some(found) => {
                let what = if found.is_dir() { "a folder" } else { "a pipe or a device" };
                let problem = format!("is {what}; a file on disk was expected, as it is read more than once");
                return Err(wrong(file, "it", &problem));
            }
            // Opened, so that what is missing is said in the words of the file system.
            None => fs::open(file).map(|_| ())?,
        }
    }
    Ok(files)
}

impl Vectors {
    /// Opens a file; its ending tells the form. A folder is one of `save_to_disk`.
    ///
    /// # Errors
    /// If it cannot be read, or is not what its ending says; an ending that is none of [`ENDINGS`].
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let opened = files(path)?;
        let (id, column) = (options.id_column.as_deref(), options.column.as_deref());
        let table = |file: kinset_artifact::error::Result<VectorFile>| -> Result<_> {
            let file = file.map_err(DatasetError::Features)?;
            let batches = file.batches().map_err(DatasetError::Features)?;
            Ok((Form::Table(batches), None, file.rows(), file.reading().clone()))
        };
        // Names from a list stand for those in the file.
        let id = if options.names.is_some() { Some("") } else { id };
        let kind = if opened.first().map(PathBuf::as_path) == Some(path) { ending(path) } else { "arrow".to_owned() };
        let (form, dim, total, reading) = match kind.as_str() {
            "parquet" | "pq" => table(VectorFile::open(path, id, column))?,
            "arrow" | "feather" => table(VectorFile::open_arrow(path, id, column))?,
            "npy" => {
                let bytes = fs::metadata(path)?.map_or(0, |found| found.len());
                let npy = Npy::open(path, Box::new(fs::open(path)?), bytes)?;
                let mut reading = Reading::default();
                reading.took(npy.form());
                if options.names.is_none() {
                    reading.took("names: row numbers");
                }
                let (dim, rows) = (npy.dim(), npy.rows());
                (Form::Npy(npy), Some(dim), Some(rows), reading)
            }
            "csv" | "tsv" | "txt" => {
                let csv = Csv::open(path, Box::new(fs::reader(path)?), options)?;
                let (dim, reading) = (csv.dim(), csv.reading().clone());
                (Form::Csv(Box::new(csv)), Some(dim), None, reading)
            }
            _ => {
                let said = kind_of(path).map_or_else(String::new, |kind| format!("; the file is {}", with_remedy(kind)));
                let problem = format!("features come as .parquet, .arrow, .npy, .csv or .tsv{said}");
                return Err(wrong(path, "name", &problem));
            }
        };
        let mut opened = Self { form, names: None, rows: 0, dim, total, reading, ended: false };
        if let Some(list) = &options.names {
            let names = names(list)?;
            if opened.total.is_some_and(|rows| rows != names.len()) {
                return Err(too_few(list, names.len(), opened.total.unwrap_or(0)));
            }
            opened.reading.took.retain(|took| !took.starts_with("names:"));
            opened.reading.took(format!("names: `{}`", list.display()));
            opened.names = Some((list.clone(), names.into_iter()));
        }
        Ok(opened)
    }

    /// How many vectors there are, if the file says so before its end.
    pub fn total(&self) -> Option<usize> {
        self.total
    }

    /// Numbers per vector, once it is known: at the latest with the first batch.
    pub fn dim(&self) -> Option<usize> {
        self.dim
    }

    /// How the file was understood: columns, separator, type, order. After the last batch also how many vectors it has.
    pub fn reading(&self) -> &Reading {
        &self.reading
    }

    /// The next rows; none at the end.
    pub fn batch(&mut self) -> Result<Option<Batch>> {
        let first = self.rows;
        let numbered = |rows: usize| (first..first + rows).map(|row| row.to_string()).collect();
        let batch = match &mut self.form {
            Form::Table(batches) => match batches.next().transpose().map_err(DatasetError::Features)? {
                None => None,
                Some(found) => {
                    self.dim = Some(found.dim);
                    let rows = found.values.len() / found.dim.max(1);
                    Some(Batch { ids: found.ids.unwrap_or_else(|| numbered(rows)), values: found.values })
                }
            },
            Form::Npy(npy) => {
                let dim = npy.dim();
                npy.batch()?.map(|(_, values)| Batch { ids: numbered(values.len() / dim), values })
            }
            Form::Csv(csv) => csv.batch(first)?,
        };
        let Some(mut batch) = batch else {
            return self.end().map(|()| None);
        };
        self.rows += batch.ids.len();
        if let Some((list, names)) = &mut self.names {
            let rows = batch.ids.len();
            batch.ids = names.take(rows).collect();
            if batch.ids.len() < rows {
                return Err(too_few(list, first + batch.ids.len(), self.rows));
            }
        }
        Ok(Some(batch))
    }

    fn end(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        if let Some((list, names)) = &mut self.names
            && names.len() > 0
        {
            return Err(too_few(list, self.rows + names.len(), self.rows));
        }
        let (rows, dim) = (count(self.rows as u64), self.dim.unwrap_or(0));
        let vectors = if self.rows == 1 { "vector" } else { "vectors" };
        self.reading.took.insert(0, format!("{rows} {vectors} of {dim} numbers"));
        Ok(())
    }
}

/// A list of names that are not as many as there are rows.
fn too_few(path: &Path, names: usize, rows: usize) -> DatasetError {
    let line = format!("line {}", names.min(rows) + 1);
    wrong(path, &line, &format!("it has {names} names for {rows} vectors"))
}

/// The names of a list: one a line, blanks around them and empty lines left out.
///
/// # Errors
/// If it cannot be read, or is no text.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_at_most(path, LONGEST)?;
    not_text(&text).map_or(Ok(()), |problem| Err(wrong(path, "beginning", &problem)))?;
    let text = without_mark(&text);
    let name = |line: &[u8]| match str::from_utf8(line.trim_ascii()) {
        Ok(line) => line.trim().to_owned(),
        Err(_) => Name::from_bytes(line.trim_ascii()).into_string(),
    };
    Ok(text.split(|byte| matches!(byte, b'\n' | b'\r')).map(name).filter(|name| !name.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_arrays_come_from_a_list_or_are_row_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let npy = dir.path().join("f.npy");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }";
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend([1.0_f32, 2.0].iter().flat_map(|v| v.to_le_bytes()));
        fs::write_atomic(&npy, &bytes).unwrap();
        let names = dir.path().join("names.txt");
        fs::write_atomic(&names, b"a\n\n b \n").unwrap();
        let read = |names: Option<PathBuf>| {
            let mut found = Vectors::open(&npy, &Options { names, ..Options::default() })?;
            assert_eq!((found.total(), found.dim()), (Some(2), Some(1)));
            found.batch().map(|batch| batch.unwrap().ids)
        };
        assert_eq!(read(None).unwrap(), ["0", "1"]);
        assert_eq!(read(Some(names.clone())).unwrap(), ["a", "b"]);
        fs::write_atomic(&names, b"\xef\xbb\xbfa\r\n\xe9\n").unwrap();
        assert_eq!(read(Some(names.clone())).unwrap(), ["a", "\\xe9"], "a byte order mark is no part of a name");
        fs::write_atomic(&names, b"a\n").unwrap();
        assert!(read(Some(names)).unwrap_err().to_string().contains("it has 1 names for 2 vectors"));
        let other = dir.path().join("f.bin");
        fs::write_atomic(&other, &bytes).unwrap();
        let refused = Vectors::open(&other, &Options::default()).err().unwrap().to_string();
        assert!(
            refused.contains("features come as .parquet") && refused.contains("the file is a NumPy array (.npy)"),
            "{refused}"
        );
        let npz = dir.path().join("f.npy");
        let mut zip = b"PK\x03\x04".to_vec();
        zip.resize(26, 0);
        zip.extend(b"\x09\0\0\0arr_0.npy");
        fs::write_atomic(&npz, &zip).unwrap();
        let refused = Vectors::open(&npz, &Options::default()).err().unwrap().to_string();
        assert!(refused.contains("it is an archive of NumPy arrays (.npz); save one array of it"), "{refused}");
        for (name, words) in [
            ("f.csv", "this is an archive of NumPy"),
            ("f.parquet", "it is an archive of NumPy"),
            ("f.arrow", "it is an archive of NumPy"),
        ] {
            fs::write_atomic(&dir.path().join(name), &zip).unwrap();
            let refused = Vectors::open(&dir.path().join(name), &Options::default()).err().unwrap().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn names_from_a_list_stand_for_those_of_any_form() {
        let dir = tempfile::tempdir().unwrap();
        let (csv, names) = (dir.path().join("f.csv"), dir.path().join("names.txt"));
        fs::write_atomic(&csv, b"0.5,1\n0.25,2\n").unwrap();
        let read = |list: &str| {
            fs::write_atomic(&names, list.as_bytes()).unwrap();
            let mut found = Vectors::open(&csv, &Options { names: Some(names.clone()), ..Options::default() })?;
            let mut ids = Vec::new();
            while let Some(batch) = found.batch()? {
                assert_eq!(batch.values, [0.5, 1.0, 0.25, 2.0]);
                ids.extend(batch.ids);
            }
            assert!(found.reading().line().starts_with("2 vectors of 2 numbers, no header, separator `,`, names: `"));
            Ok::<_, DatasetError>(ids)
        };
        assert_eq!(read("\u{feff}a\rb\r").unwrap(), ["a", "b"]);
        assert!(read("a\n").unwrap_err().to_string().contains("line 2: it has 1 names for 2 vectors"));
        assert!(read("a\nb\nc\n").unwrap_err().to_string().contains("line 3: it has 3 names for 2 vectors"));
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_read_twice_is_refused_without_waiting() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("f.csv");
        fs::link_symbolically(Path::new("/dev/zero"), &device).unwrap();
        let refused = Vectors::open(&device, &Options::default()).err().unwrap().to_string();
        assert!(refused.contains("is a pipe or a device; a file on disk was expected"), "{refused}");
        let refused = Vectors::open(dir.path(), &Options::default()).err().unwrap().to_string();
        assert!(refused.contains("without the `state.json`"), "{refused}");
        assert!(
            Vectors::open(&dir.path().join("none.csv"), &Options::default()).err().unwrap().to_string().contains("cannot open")
        );
    }
}
