//! What the benchmarks of fixed size have in common: files of equal records, and pictures stored channel by channel.

use std::io::{self, Read};
use std::path::Path;

use super::error::{DatasetError, Result};
use kinset_artifact::pixels::Pixels;
use kinset_base::fs;
use kinset_base::raw_file::RawFile;

/// In which order the bytes of a plane come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Row by row: CIFAR.
    Rows,
    /// Column by column, as MATLAB writes: STL-10, SVHN.
    Columns,
}

/// A color picture from its red, green and blue plane.
///
/// # Panics
/// If there are not `3 · side · side` bytes.
pub(super) fn color(planes: &[u8], side: usize, order: Order) -> Pixels {
    let area = side * side;
    assert_eq!(planes.len(), 3 * area, "three planes were expected");
    let mut data = Vec::with_capacity(planes.len());
    for y in 0..side {
        for x in 0..side {
            let at = match order {
                Order::Rows => y * side + x,
                Order::Columns => x * side + y,
            };
            data.extend([planes[at], planes[area + at], planes[2 * area + at]]);
        }
    }
    Pixels::new(side, side, 3, data)
}

/// A file of records of equal length, whose number is published.
pub(super) struct Blocks {
    reader: Box<dyn Read + Send>,
    name: String,
    block: usize,
    left: u64,
}

impl Blocks {
    /// Opens a file and holds its length against the published one.
    pub(super) fn open(file: &RawFile, block: usize, count: u64) -> Result<Self> {
        let expected = count * block as u64;
        if file.bytes != expected {
            return Err(DatasetError::Length { file: shown(&file.path), expected, found: file.bytes });
        }
        Ok(Self { reader: Box::new(fs::reader(&file.path)?), name: shown(&file.path), block, left: count })
    }

    /// The file, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next record, or nothing after the last one.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; self.block];
        self.reader.read_exact(&mut bytes).map_err(|error| match error.kind() {
            // Its length was right a moment ago.
            io::ErrorKind::UnexpectedEof => DatasetError::Changed { file: self.name.clone() },
            _ => fs::FileError::new("read", Path::new(&self.name), error).into(),
        })?;
        self.left -= 1;
        Ok(Some(bytes))
    }
}

/// A path as messages show it.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// The file of this name below a place, if it is there.
pub(super) fn present(place: &Path, name: &str) -> Result<Option<RawFile>> {
    let path = place.join(name);
    let found = fs::metadata(&path)?.filter(fs::Metadata::is_file);
    Ok(found.map(|found| RawFile { name: name.to_owned(), path, bytes: found.len() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels_from_rows_and_from_columns() {
        // Red 0–3, green 10–13, blue 20–23.
        let planes: Vec<u8> = [0, 10, 20].into_iter().flat_map(|first| first..first + 4).collect();
        assert_eq!(color(&planes, 2, Order::Rows).data, [0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23]);
        assert_eq!(color(&planes, 2, Order::Columns).data, [0, 10, 20, 2, 12, 22, 1, 11, 21, 3, 13, 23]);
    }

    #[test]
    fn a_file_of_another_length_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for (length, fits) in [(11, false), (12, true), (13, false), (0, false)] {
            fs::write_atomic(&dir.path().join("x.bin"), &vec![7; length]).unwrap();
            let file = present(dir.path(), "x.bin").unwrap().unwrap();
            let opened = Blocks::open(&file, 4, 3);
            assert_eq!(opened.is_ok(), fits, "{length}");
            if let Ok(mut blocks) = opened {
                let read: Vec<Vec<u8>> = std::iter::from_fn(|| blocks.next().unwrap()).collect();
                assert_eq!(read, vec![vec![7; 4]; 3]);
            }
        }
        assert!(present(dir.path(), "y.bin").unwrap().is_none());
    }
}
