//! Vectors from a file of any of the three forms, in one stream.

use std::path::{Path, PathBuf};

use super::csv::Csv;
use super::npy::Npy;
use crate::error::{DatasetError, Result};
use kinset_artifact::parquet::vectors::{VectorBatches, VectorFile};
use kinset_base::fs;

/// Lists of names may be so long.
const LONGEST: u64 = 1 << 32;

/// What a file does not say of itself.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The column of names (Parquet).
    pub id_column: Option<String>,
    /// The column of vectors (Parquet).
    pub column: Option<String>,
    /// A file of names, one a line (`.npy`).
    pub names: Option<PathBuf>,
    /// Numbers per vector (CSV).
    pub dim: Option<usize>,
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
    rows: usize,
    dim: Option<usize>,
    total: Option<usize>,
}

enum Form {
    Parquet(VectorBatches),
    Npy(Npy, Option<Vec<String>>),
    Csv(Csv),
}

impl Vectors {
    /// Opens a file; its ending tells the form.
    ///
    /// # Errors
    /// If it cannot be read, or is not what its ending says; an ending that is none of `.parquet`, `.npy`, `.csv`, `.txt`.
    pub fn open(path: &Path, options: &Options) -> Result<Self> {
        let wrong = |problem: &str| DatasetError::Vectors {
            file: path.display().to_string(),
            place: "name".into(),
            problem: problem.to_owned(),
        };
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
        let (form, dim, total) = match ending.as_str() {
            "parquet" | "pq" => {
                let file = VectorFile::open(path, options.id_column.as_deref(), options.column.as_deref())?;
                (Form::Parquet(file.batches()?), None, Some(file.rows()))
            }
            "npy" => {
                let bytes = fs::metadata(path)?.map_or(0, |found| found.len());
                let npy = Npy::open(path, Box::new(fs::reader(path)?), bytes)?;
                let names = options.names.as_deref().map(|names| list(names, npy.rows())).transpose()?;
                let (dim, rows) = (npy.dim(), npy.rows());
                (Form::Npy(npy, names), Some(dim), Some(rows))
            }
            "csv" | "txt" => {
                let csv = Csv::open(path, Box::new(fs::reader(path)?), options.dim)?;
                let dim = csv.dim();
                (Form::Csv(csv), Some(dim), None)
            }
            _ => return Err(wrong("features come as .parquet, .npy or .csv")),
        };
        Ok(Self { form, rows: 0, dim, total })
    }

    /// How many vectors there are, if the file says so before its end.
    pub fn total(&self) -> Option<usize> {
        self.total
    }

    /// Numbers per vector, once it is known: at the latest with the first batch.
    pub fn dim(&self) -> Option<usize> {
        self.dim
    }

    /// The next rows; none at the end.
    pub fn batch(&mut self) -> Result<Option<Batch>> {
        let first = self.rows;
        let numbered = |rows: usize| (first..first + rows).map(|row| row.to_string()).collect();
        let batch = match &mut self.form {
            Form::Parquet(batches) => match batches.next().transpose()? {
                None => None,
                Some(found) => {
                    self.dim = Some(found.dim);
                    let rows = found.values.len() / found.dim.max(1);
                    Some(Batch { ids: found.ids.unwrap_or_else(|| numbered(rows)), values: found.values })
                }
            },
            Form::Npy(npy, names) => {
                let dim = npy.dim();
                npy.batch()?.map(|(first, values)| {
                    let rows = values.len() / dim;
                    let ids = names.as_ref().map_or_else(|| numbered(rows), |names| names[first..first + rows].to_vec());
                    Batch { ids, values }
                })
            }
            Form::Csv(csv) => csv.batch()?,
        };
        self.rows += batch.as_ref().map_or(0, |batch| batch.ids.len());
        Ok(batch)
    }
}

/// A list of names, one a line, as many as there are rows.
fn list(path: &Path, rows: usize) -> Result<Vec<String>> {
    let names = names(path)?;
    if names.len() != rows {
        return Err(DatasetError::Vectors {
            file: path.display().to_string(),
            place: format!("line {}", names.len().min(rows) + 1),
            problem: format!("it names {} images, the vectors are {rows}", names.len()),
        });
    }
    Ok(names)
}

/// The names of a list: one a line, blanks around them and empty lines left out.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_at_most(path, LONGEST)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
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
        fs::write_atomic(&names, b"a\n").unwrap();
        assert!(read(Some(names)).unwrap_err().to_string().contains("it names 1 images, the vectors are 2"));
        assert!(Vectors::open(&dir.path().join("f.bin"), &Options::default()).is_err());
    }
}
