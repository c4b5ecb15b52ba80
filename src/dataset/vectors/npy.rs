//! NumPy's `.npy`: a header in Python syntax, then the numbers (NEP 1).

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;

use crate::error::{DatasetError, Result};
use kinset_base::file_kind::{BEGINNING, file_kind, with_remedy};
use kinset_base::fs::At;

/// Numbers that are read at a time.
const CHUNK: usize = 1 << 20;
/// Of a file that stores column by column more, as each column is read apart.
const COLUMNS_CHUNK: usize = 1 << 24;
/// Longer headers are something else.
const LONGEST: usize = 1 << 16;

/// A file, or bytes in memory.
pub trait Source: Read + Seek + Send {}

impl<T: Read + Seek + Send> Source for T {}

/// Streams a table of floats.
pub struct Npy {
    path: PathBuf,
    source: Box<dyn Source>,
    kind: Kind,
    /// Column by column, as Fortran stores.
    columns: bool,
    begin: u64,
    rows: usize,
    dim: usize,
    /// Numbers that are read at a time.
    chunk: usize,
    read: usize,
}

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    /// Bytes of a number: 2, 4 or 8.
    width: usize,
    big_endian: bool,
}

impl Kind {
    /// Reads NumPy's name of a kind.
    fn from_descr(descr: &str) -> std::result::Result<Self, String> {
        let (order, name) = descr.split_at_checked(1).unwrap_or_default();
        let width = match name {
            "f2" => 2,
            "f4" => 4,
            "f8" => 8,
            _ => {
                let why = match name.as_bytes().first() {
                    Some(b'i' | b'u' | b'b') => {
                        "whole numbers; features are floats, so it may hold labels, row numbers or what is quantized: \
                         if it is features, save `x.astype('float32')`"
                    }
                    Some(b'V') if name == "V2" => {
                        "two bytes without a type, as bfloat16 of `ml_dtypes` is saved; save `x.astype('float32')`"
                    }
                    Some(b'f') => "floats of another width; save `x.astype('float32')`",
                    Some(b'c') => "complex numbers; float16, float32 or float64 was expected",
                    Some(b'O') => "Python objects, which are not read: rows of different length? save `numpy.stack(x)`",
                    Some(b'U' | b'S') => "texts; float16, float32 or float64 was expected",
                    _ => "of a type that is not read; float16, float32 or float64 was expected",
                };
                return Err(format!("its values are {why} (`{descr}`)"));
            }
        };
        match order {
            "<" | ">" => Ok(Self { width, big_endian: order == ">" }),
            _ => Err(format!("`{descr}` does not give the byte order")),
        }
    }

    /// Numbers from their bytes.
    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        fn numbers<const N: usize>(bytes: &[u8], big_endian: bool, number: fn([u8; N]) -> f32) -> Vec<f32> {
            let one = |bytes: &[u8; N]| {
                let mut bytes = *bytes;
                if big_endian {
                    bytes.reverse();
                }
                number(bytes)
            };
            bytes.as_chunks::<N>().0.iter().map(one).collect()
        }
        match self.width {
            2 => numbers::<2>(bytes, self.big_endian, |b| f16::from_le_bytes(b).to_f32()),
            4 => numbers::<4>(bytes, self.big_endian, f32::from_le_bytes),
            _ => numbers::<8>(bytes, self.big_endian, |b| f64::from_le_bytes(b) as f32),
        }
    }
}

impl Npy {
    /// Opens a file of `bytes` bytes and checks its header.
    ///
    /// # Errors
    /// If it is no `.npy` of a table of floats, or its length is not what its header declares.
    pub fn open(path: &Path, mut source: Box<dyn Source>, bytes: u64) -> Result<Self> {
        let wrong =
            |problem: String| DatasetError::Vectors { file: path.display().to_string(), place: "header".into(), problem };
        let short = |_| wrong("the file is shorter than a header".into());
        let mut head = [0; 8];
        source.read_exact(&mut head).map_err(short)?;
        if &head[..6] != b"\x93NUMPY" {
            let mut begin = head.to_vec();
            source.take(BEGINNING as u64).read_to_end(&mut begin).at("read", path)?;
            let kind = file_kind(&begin).map_or_else(String::new, |kind| format!(": it is {}", with_remedy(kind)));
            return Err(wrong(format!("it does not begin like a NumPy file{kind}")));
        }
        let mut length = [0; 4];
        let wide_length = head[6] >= 2;
        source.read_exact(&mut length[..if wide_length { 4 } else { 2 }]).map_err(short)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(wrong(format!("a header of {length} bytes is none")));
        }
        let mut text = vec![0; length];
        source.read_exact(&mut text).map_err(short)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let begin = 8 + if wide_length { 4 } else { 2 } + length as u64;
        let descr = match value(&text, "descr") {
            Some(Value::Text(descr)) => descr,
            Some(Value::Other(record)) if record.starts_with('[') => {
                return Err(wrong("its rows are records with named fields; a table of floats was expected".into()));
            }
            _ => return Err(wrong("its header does not give the type of its values".into())),
        };
        let kind = Kind::from_descr(descr).map_err(wrong)?;
        let columns = match value(&text, "fortran_order") {
            Some(Value::Other("True")) => true,
            Some(Value::Other("False")) => false,
            _ => return Err(wrong("its header does not say whether it is stored by row or by column".into())),
        };
        let shape: Option<Vec<usize>> = match value(&text, "shape") {
            Some(Value::Other(shape)) => shape
                .strip_prefix('(')
                .and_then(|shape| shape.strip_suffix(')'))
                .map(|shape| shape.split(',').map(|n| n.trim().trim_end_matches('L')).filter(|n| !n.is_empty()))
                .and_then(|sizes| sizes.map(|size| size.parse().ok()).collect()),
            _ => None,
        };
        let shape = shape.ok_or_else(|| wrong("its header does not give the shape of its array".into()))?;
        let [rows, dim] = shape[..] else {
            let sizes = shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            return Err(wrong(format!("its shape is ({sizes}); a table of two dimensions was expected: images, then numbers")));
        };
        let wanted = (rows as u64).checked_mul(dim as u64).and_then(|n| n.checked_mul(kind.width as u64));
        if wanted.and_then(|n| n.checked_add(begin)) != Some(bytes) {
            return Err(wrong(format!("its header declares {rows} × {dim} numbers, which do not match its {bytes} bytes")));
        }
        if dim == 0 {
            return Err(wrong("vectors of dimension 0 have no values".into()));
        }
        let chunk = if columns { COLUMNS_CHUNK } else { CHUNK };
        Ok(Self { path: path.to_owned(), source, kind, columns, begin, rows, dim, chunk, read: 0 })
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers of a vector, D.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How the numbers are stored, for people.
    pub fn form(&self) -> String {
        let order = if self.kind.big_endian { ", big-endian" } else { "" };
        let columns = if self.columns { ", column by column" } else { "" };
        format!("float{}{order}{columns}", self.kind.width * 8)
    }

    /// The next rows, `[rows, D]`, and the number of the first; none at the end.
    pub fn batch(&mut self) -> Result<Option<(usize, Vec<f32>)>> {
        let first = self.read;
        let rows = (self.chunk / self.dim).max(1).min(self.rows - first);
        if rows == 0 {
            return Ok(None);
        }
        self.read += rows;
        if !self.columns {
            let mut bytes = vec![0; rows * self.dim * self.kind.width];
            self.source.read_exact(&mut bytes).at("read", &self.path)?;
            return Ok(Some((first, self.kind.decode(&bytes))));
        }
        let mut values = vec![0.0; rows * self.dim];
        let mut bytes = vec![0; rows * self.kind.width];
        for column in 0..self.dim {
            let place = (column as u64 * self.rows as u64 + first as u64) * self.kind.width as u64;
            self.source.seek(SeekFrom::Start(self.begin + place)).at("read", &self.path)?;
            self.source.read_exact(&mut bytes).at("read", &self.path)?;
            for (row, value) in self.kind.decode(&bytes).into_iter().enumerate() {
                values[row * self.dim + column] = value;
            }
        }
        Ok(Some((first, values)))
    }
}

/// A value of the header.
enum Value<'a> {
    /// Without its quotes.
    Text(&'a str),
    /// A word, a list or a tuple, as it stands there.
    Other(&'a str),
}

/// What stands behind a key of the header.
fn value<'a>(header: &'a str, key: &str) -> Option<Value<'a>> {
    let rest = ['\'', '"'].iter().find_map(|quote| header.split_once(&format!("{quote}{key}{quote}:")))?.1.trim_start();
    let until = |end: char| Some(&rest[1..=rest[1..].find(end)?]);
    match rest.chars().next()? {
        quote @ ('\'' | '"') => until(quote).map(Value::Text),
        '(' => rest.find(')').map(|end| Value::Other(&rest[..=end])),
        _ => Some(Value::Other(rest.split([',', '}']).next()?.trim())),
    }
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
    fn tables_of_all_floats_orders_and_ends_are_read() {
        let values = [1.5_f32, -2.0, 0.25, 8.0, 0.0, 1.0];
        let columns = [1.5_f32, 0.25, 0.0, -2.0, 8.0, 1.0];
        for (fortran, stored) in [("False", values), ("True", columns)] {
            let kinds: [(&str, &str, Vec<u8>); 6] = [
                ("<f2", "float16", stored.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()),
                (">f2", "float16, big-endian", stored.iter().flat_map(|v| f16::from_f32(*v).to_be_bytes()).collect()),
                ("<f4", "float32", stored.iter().flat_map(|v| v.to_le_bytes()).collect()),
                (">f4", "float32, big-endian", stored.iter().flat_map(|v| v.to_be_bytes()).collect()),
                ("<f8", "float64", stored.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()),
                (">f8", "float64, big-endian", stored.iter().flat_map(|v| f64::from(*v).to_be_bytes()).collect()),
            ];
            for (kind, form, numbers) in kinds {
                let header = format!("{{'descr': '{kind}', 'fortran_order': {fortran}, 'shape': (3, 2), }}\n");
                let mut npy = open(file(&header, &numbers)).unwrap();
                assert_eq!((npy.rows(), npy.dim()), (3, 2));
                assert_eq!(npy.form(), form.to_owned() + if fortran == "True" { ", column by column" } else { "" });
                assert_eq!(npy.batch().unwrap().unwrap(), (0, values.to_vec()), "{kind} {fortran}");
                assert!(npy.batch().unwrap().is_none());
            }
        }
    }

    #[test]
    fn long_tables_come_in_batches() {
        let at = |row: usize, column: usize| (row * 3 + column) as f32;
        let columns: Vec<f32> = (0..3).flat_map(|column| (0..7).map(move |row| at(row, column))).collect();
        let rows: Vec<f32> = (0..21).map(|i| at(i / 3, i % 3)).collect();
        for (fortran, stored) in [("True", columns), ("False", rows.clone())] {
            let header = format!("{{'descr': '<f4', 'fortran_order': {fortran}, 'shape': (7, 3), }}\n");
            let mut npy = open(file(&header, &stored.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())).unwrap();
            npy.chunk = 6;
            let mut all = Vec::new();
            while let Some((first, values)) = npy.batch().unwrap() {
                assert_eq!((first, values.len() <= 6), (all.len() / 3, true));
                all.extend(values);
            }
            assert_eq!(all, rows, "{fortran}");
        }
    }

    #[test]
    fn what_is_no_table_of_floats_is_refused() {
        let refuse = |header: &str, numbers: usize| match open(file(header, &vec![0; numbers])) {
            Ok(_) => panic!("{header}"),
            Err(e) => e.to_string(),
        };
        let kind = |kind: &str| refuse(&format!("{{'descr': {kind}, 'fortran_order': False, 'shape': (1, 2), }}"), 16);
        for (found, why) in [
            ("'<i8'", "whole numbers; features are floats"),
            ("'|u1'", "whole numbers"),
            ("'|b1'", "whole numbers"),
            ("'<V2'", "bfloat16"),
            ("'|V2'", "bfloat16"),
            ("'<f16'", "floats of another width"),
            ("'|O'", "numpy.stack"),
            ("'<U12'", "texts"),
            ("'<c8'", "complex"),
            ("[('a', '<f4')]", "named fields"),
            ("''", "of a type that is not read"),
        ] {
            let text = kind(found);
            assert!(text.contains(why) && !text.contains("fortran_order"), "{text}");
        }
        assert!(refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8).contains("its shape is (2); a table"));
        assert!(refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", 8).contains("do not match"));
        assert!(refuse("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 0), }", 0).contains("dimension 0"));
        assert!(refuse("{'descr': '<f4', 'shape': (2, 2), }", 16).contains("by row or by column"));
        assert!(open(b"\x93NUM".to_vec()).is_err() && open(b"PK\x03\x04aaaaaaaaaaaa".to_vec()).is_err());
        assert!(
            refuse("{'descr': '", 0).contains("does not give the type") && refuse("", 0).contains("does not give the type")
        );
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
