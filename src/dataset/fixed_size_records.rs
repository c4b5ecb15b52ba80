//! Files of records of equal length, and pictures stored channel by channel.

use std::io::{self, Read};

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

/// Reads a file of records of equal length, whose number is published.
pub(super) fn read_blocks(
    file: &RawFile,
    length: usize,
    count: u64,
) -> Result<impl Iterator<Item = Result<Vec<u8>>> + Send + use<>> {
    let (path, name, expected) = (file.path.clone(), file.path.display().to_string(), count * length as u64);
    if file.bytes != expected {
        return Err(DatasetError::Length { file: name, expected, found: file.bytes });
    }
    let mut reader = fs::reader(&path)?;
    Ok((0..count).map(move |_| {
        let mut bytes = vec![0; length];
        match reader.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            // Its length was right a moment ago.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(DatasetError::Changed { file: name.clone() }),
            Err(error) => Err(fs::FileError::new("read", &path, error).into()),
        }
    }))
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
            let file = RawFile::find("x.bin", dir.path().join("x.bin")).unwrap().unwrap();
            let opened = read_blocks(&file, 4, 3);
            assert_eq!(opened.is_ok(), fits, "{length}");
            if let Ok(blocks) = opened {
                assert_eq!(blocks.map(Result::unwrap).collect::<Vec<_>>(), vec![vec![7; 4]; 3]);
            }
        }
        assert!(RawFile::find("y.bin", dir.path().join("y.bin")).unwrap().is_none());
    }
}
