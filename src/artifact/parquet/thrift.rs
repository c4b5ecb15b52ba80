//! Can this structure be read in a time that its length bounds?
//!
//! A Parquet file describes itself in Thrift's compact protocol. In it a list names its length and may hold elements that take no
//! bytes, so that ten bytes can keep a decoder counting for seconds, and a footer has room for hundreds of them. Parquet itself has
//! no such lists: whatever holds one is damaged, and is refused before the decoder sees it.

use std::io::{self, ErrorKind, Read};

/// Structures inside structures, at most so many: Parquet's own have seven.
const DEEPEST: usize = 64;

/// Walks over the structure that `input` begins with; `length` bytes are left there. Returns how many of them it takes.
///
/// # Errors
/// If the structure is damaged or longer than that, or holds more elements than bytes.
pub(super) fn walk(input: impl Read, length: u64) -> io::Result<u64> {
    let mut walk = Walk { input, left: length };
    walk.structure(0)?;
    Ok(length - walk.left)
}

struct Walk<R> {
    input: R,
    left: u64,
}

impl<R: Read> Walk<R> {
    fn structure(&mut self, depth: usize) -> io::Result<()> {
        loop {
            let header = self.byte()?;
            let (distance, kind) = (header >> 4, header & 0x0f);
            if kind == 0 {
                return Ok(());
            }
            if distance == 0 {
                self.varint()?; // the field's number, where it is not told by the distance from the last one
            }
            match kind {
                1 | 2 => {} // a field's yes or no is its type
                kind => self.value(kind, depth)?,
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> io::Result<()> {
        if depth == DEEPEST {
            return Err(damaged("is nested too deeply"));
        }
        match kind {
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => self.varint().and_then(|length| self.skip(length)),
            9 | 10 => {
                let header = self.byte()?;
                let count = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
                self.elements(count, &[header & 0x0f], depth)
            }
            11 => match self.varint()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.elements(count, &[kinds >> 4, kinds & 0x0f], depth)
                }
            },
            12 => self.structure(depth + 1),
            13 => self.skip(16),
            other => Err(damaged(&format!("names a type {other} that does not exist"))),
        }
    }

    /// So many elements, each of values of these types.
    fn elements(&mut self, count: u64, kinds: &[u8], depth: usize) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        // The protocol gives a byte to each yes or no, decoders that skip over one give it none: read so or so, nothing good follows.
        if kinds.iter().any(|kind| matches!(kind, 1 | 2)) {
            return Err(damaged("holds truth values where Parquet has none"));
        }
        if count > self.left {
            return Err(damaged(&format!("claims {count} elements in {} bytes", self.left)));
        }
        for _ in 0..count {
            for &kind in kinds {
                self.value(kind, depth + 1)?;
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.take(1)?;
        let mut byte = [0];
        self.input.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// An unsigned number in groups of seven bits, the lowest first.
    fn varint(&mut self) -> io::Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged("holds a number of more than 64 bits"))
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.take(count)?;
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    fn take(&mut self, count: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(count).ok_or_else(|| damaged("ends too early"))?;
        Ok(())
    }
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("a structure of its metadata {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8]) -> String {
        walk(bytes, bytes.len() as u64).unwrap_err().to_string()
    }

    #[test]
    fn every_type_is_walked_to_its_end() {
        let fields: [&[u8]; 12] = [
            &[0x11],                                                                // true
            &[0x12],                                                                // false
            &[0x13, 7],                                                             // byte
            &[0x14, 0x80, 0x01],                                                    // 16 bits
            &[0x05, 0x64, 0x07],                                                    // 32 bits, with the field's number in full
            &[0x16, 0xff, 0xff, 0x03],                                              // 64 bits
            &[0x17, 0, 0, 0, 0, 0, 0, 0, 0],                                        // double
            &[0x18, 2, b'h', b'i'],                                                 // text
            &[0x19, 0x25, 1, 2],                                                    // list of two numbers
            &[0x1a, 0x00],                                                          // an empty set without a type
            &[0x1b, 1, 0x85, 1, b'k', 9],                                           // map of text to numbers
            &[0x1c, 0x1d, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0], // structure with a UUID
        ];
        let mut bytes = fields.concat();
        bytes.push(0);
        let length = bytes.len() as u64;
        bytes.extend([1, 2, 3]);
        assert_eq!(walk(&bytes[..], bytes.len() as u64).unwrap(), length);
        for cut in 0..length {
            assert!(walk(&bytes[..], cut).is_err(), "{cut} bytes");
            assert!(walk(&bytes[..cut as usize], length).is_err(), "an input of {cut} bytes");
        }
    }

    #[test]
    fn more_elements_than_bytes_are_refused() {
        let many = [0xff, 0xff, 0xff, 0xff, 0x07];
        let list = |kind: u8| [&[0x19, 0xf0 | kind][..], &many, &[0]].concat();
        assert!(refused(&list(5)).contains("claims 2147483647 elements in 1 bytes"), "{}", refused(&list(5)));
        for kind in [1, 2] {
            assert!(refused(&list(kind)).contains("truth values"));
        }
        assert!(refused(&[&[0x1b][..], &many, &[0x22, 0]].concat()).contains("truth values"), "a map");
        assert!(refused(&[0x19, 0x19, 0xf2, 0xff, 0x7f, 0]).contains("truth values"), "a list in a list");
        assert!(refused(&[0x18, 0xff, 0x7f, 0]).contains("ends too early"), "a text");
    }

    #[test]
    fn what_is_no_thrift_is_refused() {
        assert!(refused(&[0x1e, 0]).contains("type 14"));
        assert!(refused(&[0x19, 0x10, 0]).contains("type 0"));
        assert!(refused(&[0xff; 40]).contains("type 15"));
        let number = [&[0x16][..], &[0x80; 11]].concat();
        assert!(refused(&number).contains("more than 64 bits"));
        let deep = [[0x1c; 70], [0; 70]].concat();
        assert!(refused(&deep).contains("nested too deeply"));
        let lists = [&[0x19][..], &[0x19; 70], &[0x00; 4]].concat();
        assert!(refused(&lists).contains("nested too deeply"));
    }
}
