//! NumPy's `.npy`: a header in Python's words, then the numbers (NEP 1).

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use crate::error::{DatasetError, Result};
use kinset_base::fs::At;

/// Numbers that are read at a time.
const CHUNK: usize = 1 << 20;
/// Longer headers are something else.
const LONGEST: usize = 1 << 16;

/// Streams a table of floats.
pub struct Npy {
    path: PathBuf,
    source: Box<dyn BufRead + Send>,
    wide: bool,
    rows: usize,
    dim: usize,
    read: usize,
}

impl Npy {
    /// Opens a file of `bytes` bytes and checks its header.
    ///
    /// # Errors
    /// If it is no `.npy` of a C-ordered table of little-endian f4 or f8, or its length is not what its header declares.
    pub fn open(path: &Path, mut source: Box<dyn BufRead + Send>, bytes: u64) -> Result<Self> {
        let wrong =
            |problem: String| DatasetError::Vectors { file: path.display().to_string(), place: "header".into(), problem };
        let mut head = [0; 8];
        source.read_exact(&mut head).map_err(|_| wrong("the file is shorter than a header".into()))?;
        if &head[..6] != b"\x93NUMPY" {
            return Err(wrong("it does not begin like a NumPy file".into()));
        }
        let mut length = [0; 4];
        let wide_length = head[6] >= 2;
        source
            .read_exact(&mut length[..if wide_length { 4 } else { 2 }])
            .map_err(|_| wrong("the file is shorter than a header".into()))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(wrong(format!("a header of {length} bytes is none")));
        }
        let mut text = vec![0; length];
        source.read_exact(&mut text).map_err(|_| wrong("the file is shorter than a header".into()))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let wide = match value(&text, "descr") {
            Some(kind) if kind.contains("'<f4'") => false,
            Some(kind) if kind.contains("'<f8'") => true,
            other => return Err(wrong(format!("numbers of type {}; `<f4` or `<f8` was expected", other.unwrap_or("nothing")))),
        };
        if !value(&text, "fortran_order").is_some_and(|order| order.starts_with("False")) {
            return Err(wrong("its rows do not lie one after the other; save `numpy.ascontiguousarray(x)`".into()));
        }
        let shape = value(&text, "shape").and_then(|shape| shape.strip_prefix('(')).and_then(|shape| shape.split(')').next());
        let shape: Option<Vec<usize>> = shape
            .map(|s| {
                s.split(',')
                    .map(str::trim)
                    .filter(|n| !n.is_empty())
                    .map(str::parse)
                    .collect::<std::result::Result<_, _>>()
                    .ok()
            })
            .unwrap_or_default();
        let Some([rows, dim]) = shape.as_deref() else {
            return Err(wrong("a table of two dimensions was expected: images, then numbers".into()));
        };
        let (rows, dim) = (*rows, *dim);
        let begin = 8 + if wide_length { 4 } else { 2 } + length as u64;
        let wanted = (rows as u64).checked_mul(dim as u64).and_then(|n| n.checked_mul(if wide { 8 } else { 4 }));
        if wanted.and_then(|n| n.checked_add(begin)) != Some(bytes) {
            return Err(wrong(format!("its header declares {rows} × {dim} numbers, which do not match its {bytes} bytes")));
        }
        if dim == 0 {
            return Err(wrong("vectors of dimension 0 have no values".into()));
        }
        Ok(Self { path: path.to_owned(), source, wide, rows, dim, read: 0 })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a vector, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The next rows, `[rows, D]`, and the number of the first; none at the end.
    pub fn batch(&mut self) -> Result<Option<(usize, Vec<f32>)>> {
        let first = self.read;
        let rows = (CHUNK / self.dim).max(1).min(self.rows - first);
        if rows == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; rows * self.dim * if self.wide { 8 } else { 4 }];
        self.source.read_exact(&mut bytes).at("read", &self.path)?;
        self.read += rows;
        let values = if self.wide {
            bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
        } else {
            bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        Ok(Some((first, values)))
    }
}

/// What stands behind a key of the header, to its end.
fn value<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let rest = header.split_once(&format!("'{key}':"))?.1.trim_start();
    Some(rest)
}

/// A table of whole numbers as a `.npy` file, `<i8`.
///
/// # Panics
/// If `columns` is 0 or does not divide the length.
pub fn whole_numbers(values: &[i64], columns: usize) -> Vec<u8> {
    assert!(columns > 0 && values.len().is_multiple_of(columns), "the table must be [N, columns]");
    let shape = format!("({}, {columns})", values.len() / columns);
    let mut header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}");
    // The numbers begin at a multiple of 64.
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, numbers: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(numbers);
        bytes
    }

    fn open(bytes: Vec<u8>) -> Result<Npy> {
        let length = bytes.len() as u64;
        Npy::open(Path::new("f.npy"), Box::new(std::io::Cursor::new(bytes)), length)
    }

    #[test]
    fn tables_of_both_widths_are_read() {
        let values = [1.5_f32, -2.0, 0.25, 8.0, 0.0, 1.0];
        let narrow: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let wide: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
        for (kind, numbers) in [("<f4", narrow), ("<f8", wide)] {
            let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (3, 2), }}\n");
            let mut npy = open(file(&header, &numbers)).unwrap();
            assert_eq!((npy.rows(), npy.dim()), (3, 2));
            assert_eq!(npy.batch().unwrap().unwrap(), (0, values.to_vec()));
            assert!(npy.batch().unwrap().is_none());
        }
    }

    #[test]
    fn what_is_no_table_of_floats_is_refused() {
        let refuse = |header: &str, numbers: usize| match open(file(header, &vec![0; numbers])) {
            Ok(_) => panic!("{header}"),
            Err(e) => e.to_string(),
        };
        assert!(refuse("{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }", 16).contains("`<f4` or `<f8`"));
        assert!(refuse("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }", 8).contains("ascontiguousarray"));
        assert!(refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8).contains("two dimensions"));
        assert!(refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", 8).contains("do not match"));
        assert!(refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 0), }", 0).contains("dimension 0"));
        assert!(open(b"\x93NUM".to_vec()).is_err() && open(b"PK\x03\x04aaaaaaaaaaaa".to_vec()).is_err());
    }

    #[test]
    fn whole_numbers_are_written_as_numpy_does() {
        let bytes = whole_numbers(&[1, -1, 3, 4], 2);
        assert_eq!(bytes.len(), 128 + 32);
        let text = String::from_utf8_lossy(&bytes[10..128]).into_owned();
        assert_eq!(text.trim_end(), "{'descr': '<i8', 'fortran_order': False, 'shape': (2, 2), }");
        assert_eq!(bytes[136..144], (-1_i64).to_le_bytes());
    }
}
