//! A check of Thrift structures: they can be read in a time, and with memory, that their length bounds.
//!
//! A Parquet file describes itself in Thrift's compact protocol. In it a list names its length and may hold elements that take no
//! bytes: nine bytes keep the decoder (parquet 60.1) counting for seconds, and a footer has room for hundreds of them. No limit on
//! sizes and no caught panic helps against that, nor against a list of 2³¹ pages, for which it asks for 51 GB and aborts. Nothing
//! that is read here has such lists: whatever holds one is damaged, and is refused before the decoder sees it. The test
//! `the_decoder_still_needs_this_check` says when this file can go.
//!
//! The decoder reads a field that it knows as what it should be, whatever type the file gives it. So a walk must know them too (see
//! [`super::structures`]), or the two would soon look at different places.

use std::io::{self, ErrorKind, Read};

/// Structures inside structures, at most so many: Parquet's own have seven.
const DEEPEST: usize = 64;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Flag,
    Byte,
    /// A whole number of 16 to 64 bits: written alike.
    Number,
    Double,
    /// Bytes or text.
    Bytes,
    Numbers,
    Struct(&'static Structure),
    Structs(&'static Structure),
}

/// A structure that the decoder knows: its fields by their numbers. Others are skipped by it.
pub(super) struct Structure {
    pub(super) name: &'static str,
    pub(super) fields: &'static [(i16, Kind)],
}

/// What a walk comes by.
pub(super) enum Seen {
    /// A whole number of a structure that the decoder knows.
    Number { of: &'static str, field: i16, value: i64 },
    /// The end of one.
    End { of: &'static str },
}

/// Walks over the structure that `input` begins with; `length` bytes are left there. Returns how many of them it takes. `seen` is
/// told of numbers on the way, and may refuse them. What is refused here: a structure that is damaged or longer than that, a field
/// of another type than it should be, more elements than bytes.
pub(super) fn walk(
    input: impl Read,
    length: u64,
    structure: &'static Structure,
    seen: &mut dyn FnMut(Seen) -> io::Result<()>,
) -> io::Result<u64> {
    let mut walk = Walk { input, left: length, seen };
    walk.structure(Some(structure), 0)?;
    Ok(length - walk.left)
}

struct Walk<'a, R> {
    input: R,
    left: u64,
    seen: &'a mut dyn FnMut(Seen) -> io::Result<()>,
}

impl<R: Read> Walk<'_, R> {
    fn structure(&mut self, known: Option<&Structure>, depth: usize) -> io::Result<()> {
        let mut field = 0_i16;
        loop {
            let header = self.byte()?;
            let (distance, wire) = (header >> 4, header & 0x0f);
            if wire == 0 {
                return known.map_or(Ok(()), |known| (self.seen)(Seen::End { of: known.name }));
            }
            // Where it is not told by the distance from the last one, a field's number follows; what is too large wraps, as in the decoder.
            field = match distance {
                0 => self.number()? as i16,
                _ => field.checked_add(i16::from(distance)).ok_or_else(|| damaged("numbers its fields beyond 32767"))?,
            };
            let Some(known) = known else {
                self.value(wire, None, depth)?;
                continue;
            };
            match known.fields.iter().find(|(number, _)| *number == field) {
                Some((_, kind)) if !kind.is(wire) => {
                    return Err(damaged(&format!("gives field {field} of {} the type {wire}", known.name)));
                }
                Some((_, Kind::Number)) => {
                    let value = self.number()?;
                    (self.seen)(Seen::Number { of: known.name, field, value })?;
                }
                kind => self.value(wire, kind.map(|(_, kind)| *kind), depth)?,
            }
        }
    }

    /// A value of a type; `kind` if the decoder knows what it should hold.
    fn value(&mut self, wire: u8, kind: Option<Kind>, depth: usize) -> io::Result<()> {
        if depth == DEEPEST {
            return Err(damaged("is nested too deeply"));
        }
        match wire {
            1 | 2 => Ok(()), // a field's yes or no is its type
            3 => self.skip(1),
            4..=6 => self.varint().map(drop),
            7 => self.skip(8),
            8 => self.varint().and_then(|length| self.skip(length)),
            9 | 10 => {
                let header = self.byte()?;
                let count = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
                let element = match kind {
                    Some(Kind::Numbers) => Some(Kind::Number),
                    Some(Kind::Structs(known)) => Some(Kind::Struct(known)),
                    _ => None,
                };
                self.elements(count, &[header & 0x0f], element, depth)
            }
            11 => match self.varint()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.elements(count, &[kinds >> 4, kinds & 0x0f], None, depth)
                }
            },
            12 => self.structure(if let Some(Kind::Struct(known)) = kind { Some(known) } else { None }, depth + 1),
            13 => self.skip(16),
            other => Err(damaged(&format!("names a type {other} that does not exist"))),
        }
    }

    /// So many elements, each of values of these types.
    fn elements(&mut self, count: u64, wires: &[u8], kind: Option<Kind>, depth: usize) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        // The protocol gives a byte to each yes or no, decoders that skip over one give it none: read so or so, nothing good follows.
        // Of Parquet's own structures only the index of columns has such a list, and nobody here reads that.
        if wires.iter().any(|wire| matches!(wire, 1 | 2)) {
            return Err(damaged("holds a list of truth values where Parquet has none"));
        }
        if let Some(kind) = kind
            && !wires.iter().all(|wire| kind.is(*wire))
        {
            return Err(damaged(&format!("holds a list of the type {}", wires[0])));
        }
        if count > self.left {
            return Err(damaged(&format!("claims {count} elements in {} bytes", self.left)));
        }
        for _ in 0..count {
            for &wire in wires {
                self.value(wire, kind, depth + 1)?;
            }
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.consume(1)?;
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

    /// A number whose sign is its lowest bit.
    fn number(&mut self) -> io::Result<i64> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        self.consume(count)?;
        let skipped = io::copy(&mut self.input.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    fn consume(&mut self, count: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(count).ok_or_else(|| damaged("ends too early"))?;
        Ok(())
    }
}

impl Kind {
    /// True if the protocol's type can be this.
    fn is(&self, wire: u8) -> bool {
        match self {
            Self::Flag => matches!(wire, 1 | 2),
            Self::Byte => wire == 3,
            Self::Number => matches!(wire, 4..=6),
            Self::Double => wire == 7,
            Self::Bytes => wire == 8,
            Self::Numbers | Self::Structs(_) => matches!(wire, 9 | 10),
            Self::Struct(_) => wire == 12,
        }
    }
}

/// The decoder reads lengths and counts as 32 bits and lets the others go.
pub(super) fn as_read(value: i64) -> i64 {
    i64::from(value as i32)
}

/// What is wrong with a structure, in words.
pub(super) fn damaged(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("a structure of its metadata {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Structure = Structure { name: "Nothing", fields: &[] };
    const INNER: Structure = Structure { name: "Inner", fields: &[(1, Kind::Number), (2, Kind::Flag)] };
    const OUTER: Structure = Structure {
        name: "Outer",
        fields: &[(1, Kind::Bytes), (3, Kind::Number), (4, Kind::Structs(&INNER)), (9, Kind::Double)],
    };

    fn passed(bytes: &[u8], length: u64) -> io::Result<u64> {
        walk(bytes, length, &NOTHING, &mut |_| Ok(()))
    }

    fn refused(bytes: &[u8]) -> String {
        passed(bytes, bytes.len() as u64).unwrap_err().to_string()
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
        assert_eq!(passed(&bytes, bytes.len() as u64).unwrap(), length);
        for cut in 0..length {
            assert!(passed(&bytes, cut).is_err(), "{cut} bytes");
            assert!(passed(&bytes[..cut as usize], length).is_err(), "an input of {cut} bytes");
        }
    }

    /// If this fails, parquet bounds what it skips: see whether it also checks field types, the lengths of page lists and the
    /// depth of columns, and drop this file.
    #[test]
    fn the_decoder_still_needs_this_check() {
        use parquet::file::metadata::ParquetMetaDataReader;
        // One column, no rows; field 100 is a list of a million truth values without a byte for any of them.
        let mut footer = vec![0x15, 2, 0x19, 0x2c, 0x48, 1, b'r', 0x15, 2, 0, 0x15, 2, 0x25, 0, 0x18, 1, b'x', 0];
        footer.extend([0x16, 0, 0x19, 0x0c, 0x09, 0xc8, 0x01, 0xf2, 0xc0, 0x84, 0x3d, 0]);
        assert!(ParquetMetaDataReader::decode_metadata(&footer).is_ok());
        let walked = walk(&footer[..], footer.len() as u64, &super::super::structures::FILE, &mut |_| Ok(()));
        assert!(walked.unwrap_err().to_string().contains("truth values"));
        // Field 1 is a number; here it is given as a structure, and read as a number all the same.
        footer.truncate(footer.len() - 8);
        footer[0] = 0x1c;
        footer.push(0);
        assert!(ParquetMetaDataReader::decode_metadata(&footer).is_ok());
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
    fn fields_that_the_decoder_knows_must_be_what_it_takes_them_for() {
        // A text, then field 3, and a list of two structures of which the second has a field that nobody knows.
        let good = [0x18, 1, b'x', 0x25, 0x54, 0x19, 0x2c, 0x16, 2, 0, 0x22, 0x38, 1, b'y', 0, 0];
        let mut found = Vec::new();
        let taken = walk(&good[..], good.len() as u64, &OUTER, &mut |seen| {
            found.push(match seen {
                Seen::Number { of, field, value } => format!("{of}.{field} = {value}"),
                Seen::End { of } => of.to_owned(),
            });
            Ok(())
        });
        assert_eq!(taken.unwrap(), good.len() as u64);
        assert_eq!(found, ["Outer.3 = 42", "Inner.1 = 1", "Inner", "Inner", "Outer"]);

        let refused = |bytes: &[u8]| walk(bytes, 99, &OUTER, &mut |_| Ok(())).unwrap_err().to_string();
        // A number that looks like bytes: a decoder that knows the field would read on inside of them.
        assert!(refused(&[0x38, 2, 0x19, 0xf2, 0]).contains("field 3 of Outer the type 8"));
        assert!(refused(&[0x19, 0x15, 2, 0]).contains("field 1 of Outer the type 9"));
        assert!(refused(&[0x49, 0x15, 2, 0]).contains("a list of the type 5"));
        assert!(refused(&[0x08, 0x12, 0x19]).contains("field 9 of Outer the type 8"), "a number in full");
        assert!(refused(&[0x08, 0x92, 0x80, 0x08, 0x19]).contains("field 9 of Outer"), "a number that wraps");
        assert!(refused(&[0x05, 0xfe, 0xff, 0x03, 2, 0x15]).contains("beyond 32767"));
        let stop = |seen| if let Seen::Number { .. } = seen { Err(damaged("is not liked")) } else { Ok(()) };
        assert!(walk(&good[..], 99, &OUTER, &mut |seen| stop(seen)).unwrap_err().to_string().contains("not liked"));
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
