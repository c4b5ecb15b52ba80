//! A check of the entropy-coded data of JPEG files. Decoding is elsewhere: [`kinset_artifact::image_codec`].
//!
//! Decoders tolerate damage in JPEGs: where the entropy-coded data are corrupt, they warn at most, and the rest of the picture is gray (the decoder that
//! is used here) or noise (libjpeg, which takes up again at the next restart). To tell that a picture is whole, its codes have to be
//! read, and that is most of a decoder's work. Here they are read and nothing is made of them: no coefficients, no transform, no
//! colors; that takes a third of the time.
//!
//! Read is what cameras, scrapers and data sets hold: baseline files (ITU-T T.81, process 1) of one component, or of three that are
//! sampled in one of the usual ways, in one scan, with or without restarts. Of others nothing is said.

use std::cell::RefCell;
use std::rc::Rc;

use kinset_artifact::image_codec::Header;

/// Longest codes, in bits.
const LONGEST: usize = 16;

/// Codes so long are found in one look. Two bits more are 15 % faster on tables that are there, and twice as slow on small files with
/// tables of their own.
const SHORT: usize = 9;

/// What the end of a block adds to the position in it: more than any run, so that it can be told from them.
const END: usize = 128;

/// Fewer bytes after the last code do not tell that it is not the last.
const LITTLE: usize = 16;

/// Coefficients of a block.
const BLOCK: usize = 64;

/// Tables of codes that a thread keeps. Most files carry the four of T.81's annex K, which cost more to make than a small picture to read.
const KEPT: usize = 8;

/// What can be said of a file without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is of the usual form, and the codes of its whole picture are sound. It can be decoded; the header is that of the file,
    /// before it is turned.
    Sound(Header),
    /// It is of the usual form, and its entropy-coded data are corrupt. Decoders show gray or noise from there on.
    Damaged,
    /// It is no such file, or holds more than the picture.
    Unusual,
}

pub(super) fn read(file: &[u8]) -> Verdict {
    scan(file).unwrap_or(Verdict::Unusual)
}

/// True if a JPEG's last scan is followed by the end marker (ITU-T T.81, annex B).
pub(super) fn is_whole(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // Up to the next marker: fill bytes, or the coded data of a scan, in which `ff 00` and restarts are no markers.
        let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&byte| byte == 0xff)) else { return false };
        at += found + 1;
        match bytes.get(at) {
            Some(0x00 | 0x01 | 0xff | 0xd0..=0xd7) => continue,
            Some(0xd9) => return true,
            Some(_) => at += 1,
            None => return false,
        }
        let Some(length) = bytes.get(at..at + 2) else { return false };
        at += usize::from(u16::from_be_bytes([length[0], length[1]]));
    }
}

/// Nothing if the file is not of the usual form.
fn scan(file: &[u8]) -> Option<Verdict> {
    let mut rest = file.strip_prefix(&[0xff, 0xd8])?;
    let mut tables = Tables::default();
    let mut frame = None;
    let mut restart = 0;
    let mut adobe = false;
    loop {
        let (&[0xff, marker, high, low], _) = rest.split_first_chunk()? else { return None };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let body = rest.get(4..2 + length)?;
        rest = &rest[2 + length..];
        match marker {
            0xc0 if frame.is_none() => frame = Some(Frame::read(body)?),
            0xc4 => tables.read_codes(body)?,
            0xda => {
                let frame = frame?;
                // Adobe's mark of a transform that is no color picture's leads decoders elsewhere.
                if adobe && frame.components.len() != 3 {
                    return None;
                }
                let units = frame.units(body, &tables)?;
                let header = Header { width: frame.width, height: frame.height, channels: frame.components.len() };
                return Some(match Codes::new(rest).picture(frame.count, &units, restart) {
                    Ok(()) => Verdict::Sound(header),
                    Err(Flaw::Senseless) => Verdict::Damaged,
                    Err(Flaw::Odd) => Verdict::Unusual,
                });
            }
            0xdb => tables.read_steps(body)?,
            0xdd => restart = usize::from(u16::from_be_bytes(*body.as_array()?)),
            // Motion JPEG has tables of its own; shorter than this, decoders disagree.
            0xe0 if body.len() < 6 || body.starts_with(b"AVI1") => return None,
            0xe1 if body.starts_with(b"http://ns.adobe.com/xmp/extension/") => return None,
            0xee if body.starts_with(b"Adobe") => {
                if body.get(11) != Some(&1) {
                    return None;
                }
                adobe = true;
            }
            0xe0..=0xef | 0xfe => {}
            _ => return None,
        }
    }
}

/// A frame header (T.81, B.2.2).
struct Frame {
    width: usize,
    height: usize,
    components: Vec<Component>,
    /// How many minimum coded units there are.
    count: usize,
}

struct Component {
    id: u8,
    /// Blocks of it in a minimum coded unit.
    blocks: usize,
    /// Which table of quantization steps.
    steps: u8,
}

impl Frame {
    fn read(body: &[u8]) -> Option<Self> {
        let (&[8, h0, h1, w0, w1, count], components) = body.split_first_chunk()? else { return None };
        let (height, width) = (u16::from_be_bytes([h0, h1]).into(), u16::from_be_bytes([w0, w1]).into());
        let (components, rest) = components.as_chunks::<3>();
        let first = components.first()?[1];
        let usual = match components {
            [_] => first == 0x11,
            [_, second, third] => matches!(first, 0x11 | 0x12 | 0x21 | 0x22) && [second[1], third[1]] == [0x11; 2],
            _ => false,
        };
        if !usual || !rest.is_empty() || components.len() != usize::from(count) || width == 0 || height == 0 {
            return None;
        }
        let (across, down) = (usize::from(first >> 4), usize::from(first & 15));
        let count = usize::div_ceil(width, 8 * across) * usize::div_ceil(height, 8 * down);
        let blocks = |sampling: u8| usize::from(sampling >> 4) * usize::from(sampling & 15);
        let components =
            components.iter().map(|&[id, sampling, steps]| Component { id, blocks: blocks(sampling), steps }).collect();
        Some(Self { width, height, components, count })
    }

    /// The tables of each block of a minimum coded unit, by a scan header (T.81, B.2.3) that takes all components in their order.
    fn units<'a>(&self, body: &[u8], tables: &'a Tables) -> Option<Vec<(&'a Table, &'a Table)>> {
        let count = self.components.len();
        let (&first, rest) = body.split_first()?;
        let (named, [0, 63, 0]) = rest.split_at_checked(2 * count)? else { return None };
        if usize::from(first) != count {
            return None;
        }
        let mut units = Vec::with_capacity(6);
        for (place, (component, &[id, choice])) in self.components.iter().zip(named.as_chunks().0).enumerate() {
            let before = &self.components[..place];
            if component.id != id
                || before.iter().any(|other| other.id == id)
                || tables.steps.get(usize::from(component.steps)) != Some(&true)
            {
                return None;
            }
            let table = |tables: &'a [Option<Rc<Table>>], number| tables.get(usize::from(number))?.as_deref();
            let pair = (table(&tables.means, choice >> 4)?, table(&tables.others, choice & 15)?);
            units.extend(std::iter::repeat_n(pair, component.blocks));
        }
        Some(units)
    }
}

/// The tables that were defined. Baseline files have two of each kind of codes.
#[derive(Default)]
struct Tables {
    /// Codes of a block's mean (DC).
    means: [Option<Rc<Table>>; 2],
    /// Codes of its other coefficients (AC).
    others: [Option<Rc<Table>>; 2],
    /// Quantization steps: whether they are there.
    steps: [bool; 4],
}

impl Tables {
    /// Tables of codes (T.81, B.2.4.2).
    fn read_codes(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some(([kind, counts @ ..], _)) = body.split_first_chunk::<{ 1 + LONGEST }>() {
            let symbols: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let definition;
            (definition, body) = body.split_at_checked(1 + LONGEST + symbols)?;
            let table = match kind >> 4 {
                0 => self.means.get_mut(usize::from(*kind)),
                1 => self.others.get_mut(usize::from(kind & 15)),
                _ => None,
            };
            *table? = Some(Table::of(definition)?);
        }
        body.is_empty().then_some(())
    }

    /// Tables of quantization steps in bytes (T.81, B.2.4.1).
    fn read_steps(&mut self, body: &[u8]) -> Option<()> {
        let (tables, rest) = body.as_chunks::<{ 1 + BLOCK }>();
        for table in tables {
            *self.steps.get_mut(usize::from(table[0]))? = true;
        }
        rest.is_empty().then_some(())
    }
}

/// Bits that follow the code of a mean, and coefficients it stands for.
fn mean(symbol: u8) -> Option<(usize, usize)> {
    (symbol <= 11).then_some((symbol.into(), 1))
}

/// Bits that follow the code of another coefficient, and coefficients it stands for: a run of zeros and one that is none.
fn other(symbol: u8) -> Option<(usize, usize)> {
    match (symbol >> 4, symbol & 15) {
        (0, 0) => Some((0, END)),
        (15, 0) => Some((0, 16)),
        (run, bits @ 1..=10) => Some((bits.into(), usize::from(run) + 1)),
        _ => None,
    }
}

/// A code and what follows it in bits, in the lower byte, and the coefficients it stands for, in the upper. Never 0.
type Step = u16;

/// A table of Huffman codes (T.81, annex C), made for stepping over them.
struct Table {
    /// By the next bits; 0 where a longer code begins, or none.
    short: [Step; 1 << SHORT],
    /// The same, but both as one step where the next bits tell two codes of which the first does not end the block: most steps are so
    /// short, and each look waits for the one before.
    pairs: [Step; 1 << SHORT],
    /// By the number of the symbol.
    steps: [Step; 256],
    /// Where the codes up to a length end, as the next 16 bits.
    ends: [u32; LONGEST + 1],
    /// Symbols with codes up to a length.
    symbols: [usize; LONGEST + 1],
}

thread_local! {
    /// With their definitions, the one that was made last in front.
    static TABLES: RefCell<Vec<(Vec<u8>, Rc<Table>)>> = const { RefCell::new(Vec::new()) };
}

impl Table {
    /// The table of a definition: kind and number, how many codes there are of each length, symbols.
    fn of(definition: &[u8]) -> Option<Rc<Self>> {
        TABLES.with_borrow_mut(|tables| {
            if let Some((_, table)) = tables.iter().find(|(known, _)| known == definition) {
                return Some(Rc::clone(table));
            }
            let ([kind, counts @ ..], symbols) = definition.split_first_chunk::<{ 1 + LONGEST }>()?;
            let table = Rc::new(Self::new(counts, symbols, if kind >> 4 == 0 { mean } else { other })?);
            tables.insert(0, (definition.to_owned(), Rc::clone(&table)));
            tables.truncate(KEPT);
            Some(table)
        })
    }

    /// `meaning` of a symbol: the bits that follow it and the coefficients it stands for.
    fn new(counts: &[u8; LONGEST], symbols: &[u8], meaning: fn(u8) -> Option<(usize, usize)>) -> Option<Self> {
        let mut table = Self {
            short: [0; 1 << SHORT],
            pairs: [0; 1 << SHORT],
            steps: [0; 256],
            ends: [0; LONGEST + 1],
            symbols: [0; LONGEST + 1],
        };
        // How long the codes in `short` are, without what follows them.
        let mut lengths = [0_u8; 1 << SHORT];
        let (mut code, mut number) = (0_u32, 0);
        for (length, &count) in (1..).zip(counts) {
            let width = 1 << (LONGEST - length);
            for _ in 0..count {
                let (bits, coefficients) = meaning(*symbols.get(number)?)?;
                let step = (coefficients << 8 | (length + bits)) as Step;
                *table.steps.get_mut(number)? = step;
                if length <= SHORT {
                    let first = code as usize >> (LONGEST - SHORT);
                    let range = first..first + (1 << (SHORT - length));
                    table.short.get_mut(range.clone())?.fill(step);
                    lengths.get_mut(range)?.fill(length as u8);
                }
                code += width;
                number += 1;
            }
            // All ones are no code.
            if code > 0xffff {
                return None;
            }
            table.ends[length] = code;
            table.symbols[length] = number;
        }
        for (bits, pair) in table.pairs.iter_mut().enumerate() {
            let first = table.short[bits];
            *pair = first;
            let used = usize::from(first & 0xff);
            if first != 0 && used < SHORT && usize::from(first >> 8) < END {
                let next = bits << used & ((1 << SHORT) - 1);
                if (1..=SHORT - used).contains(&usize::from(lengths[next])) {
                    // Bits in the lower byte, coefficients in the upper: neither overflows.
                    *pair += table.short[next];
                }
            }
        }
        Some(table)
    }

    /// The step at the code that the next 16 bits begin with, which is no short one.
    #[cold]
    fn long(&self, next: u32) -> Option<Step> {
        let length = (SHORT + 1..=LONGEST).find(|&length| next < self.ends[length])?;
        let number = (next - self.ends[length - 1]) >> (LONGEST - length);
        self.steps.get(self.symbols[length - 1] + number as usize).copied()
    }
}

/// What may be wrong with codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// Something that is no code, or fewer or more than the header says.
    Senseless,
    /// Something else follows, or a little that some writers leave before a marker.
    Odd,
}

/// The coded data of a scan (T.81, F.2.2).
struct Codes<'a> {
    data: &'a [u8],
    /// The first byte that is not among the bits.
    at: usize,
    /// The next bits, the first on top.
    bits: u64,
    /// How many of them are known; negative once more were used than there are.
    known: i32,
    /// A marker comes next.
    ended: bool,
}

impl<'a> Codes<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, bits: 0, known: 0, ended: false }
    }

    /// Steps over so many minimum coded units, and the mark of the picture's end. `restart` is the number of units between restarts,
    /// or 0.
    fn picture(&mut self, count: usize, units: &[(&Table, &Table)], restart: usize) -> Result<(), Flaw> {
        for unit in 0..count {
            if restart > 0 && unit > 0 && unit % restart == 0 {
                self.marker(0xd0 + (unit / restart - 1) as u8 % 8)?;
            }
            for (means, others) in units {
                self.block(means, others).ok_or(Flaw::Senseless)?;
            }
        }
        self.marker(0xd9)
    }

    #[inline]
    fn block(&mut self, means: &Table, others: &Table) -> Option<()> {
        let mut place = self.step(means)?;
        while place < BLOCK {
            self.fill_up();
            let pair = others.pairs[(self.bits >> (64 - SHORT)) as usize];
            let coefficients = usize::from(pair >> 8);
            // The second code of a pair is the next block's where the first fills this one.
            if pair != 0 && place + coefficients % END < BLOCK {
                self.skip(pair);
                place += coefficients;
            } else {
                place += self.step(others)?;
            }
        }
        // A run that leads out of the block, or bits that are not there.
        ((place == BLOCK || place > END) && self.known >= 0).then_some(())
    }

    /// Steps over a code and what follows it; how many coefficients these are.
    #[inline]
    fn step(&mut self, table: &Table) -> Option<usize> {
        self.fill_up();
        let mut step = table.short[(self.bits >> (64 - SHORT)) as usize];
        if step == 0 {
            step = table.long((self.bits >> 48) as u32)?;
        }
        self.skip(step);
        Some(usize::from(step >> 8))
    }

    #[inline]
    fn skip(&mut self, step: Step) {
        let length = step & 0xff;
        self.bits <<= length;
        self.known -= i32::from(length);
    }

    #[inline]
    fn fill_up(&mut self) {
        // A code and its bits are 27 at most, and a pair is fewer: what is left of SHORT for the second code, and 10 bits that follow it.
        if self.known < 32 && !self.ended {
            self.fill();
        }
    }

    #[inline]
    fn fill(&mut self) {
        if let Some(next) = self.data.get(self.at..).and_then(<[u8]>::first_chunk) {
            let next = u64::from_be_bytes(*next);
            // No byte of eight is 255: none of the others is zero.
            let others = !next;
            if others.wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 == 0 {
                // What does not fit whole is written again next time, over the same.
                self.bits |= next >> self.known;
                let bytes = (64 - self.known) / 8;
                self.at += bytes as usize;
                self.known += 8 * bytes;
                return;
            }
        }
        self.fill_slowly();
    }

    /// Byte by byte: 255 is followed by 0, or is a marker.
    fn fill_slowly(&mut self) {
        while self.known <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 1;
                    0xff
                }
                None | Some([] | [0xff, ..]) => {
                    self.ended = true;
                    return;
                }
                Some([byte, ..]) => *byte,
            };
            self.at += 1;
            self.bits |= u64::from(byte) << (56 - self.known);
            self.known += 8;
        }
    }

    /// Steps over a marker that has to come next (T.81, B.1.1.2), after fewer bits than a byte has.
    fn marker(&mut self, wanted: u8) -> Result<(), Flaw> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let is_marker = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0;
        let left = rest.windows(2).position(is_marker).unwrap_or(rest.len());
        // Any number of 255 may come before.
        let fill = rest[left..].iter().take_while(|byte| **byte == 0xff).count();
        let found = rest.get(left + fill) == Some(&wanted);
        let padding = rest[..left].iter().all(|byte| *byte == 0);
        match left + self.known as usize / 8 {
            0 if found => {
                *self = Self { at: self.at + fill + 1, ..Self::new(self.data) };
                Ok(())
            }
            LITTLE.. if found && !padding => Err(Flaw::Senseless),
            _ => Err(Flaw::Odd),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, ImageEncoder};
    use proptest::prelude::*;

    use super::super::guarded_decode::decode;
    use super::*;
    use kinset_artifact::picture_facts::PictureFacts;
    use kinset_base::fs;
    use kinset_base::seed::Seed;

    /// A picture of noise, and of the gray between, so that codes of all lengths and runs occur.
    fn noise(seed: u64, width: usize, height: usize, channels: usize, quality: u8) -> Vec<u8> {
        let mut rng = Seed::new(seed).rng();
        let loud = rng.below(256);
        let data: Vec<u8> = (0..width * height * channels)
            .map(|place| if rng.below(256) < loud { rng.below(256) as u8 } else { (place / 7 % 256) as u8 })
            .collect();
        let mut bytes = Vec::new();
        let color = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
        JpegEncoder::new_with_quality(&mut bytes, quality).write_image(&data, width as u32, height as u32, color).unwrap();
        bytes
    }

    fn golden(name: &str) -> Vec<u8> {
        fs::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dataset").join(name)).unwrap()
    }

    /// The first byte of the scan's codes.
    fn codes(file: &[u8]) -> usize {
        let scan = file.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap();
        scan + 2 + usize::from(u16::from_be_bytes([file[scan + 2], file[scan + 3]]))
    }

    #[test]
    fn usual_files_are_read_and_others_left_alone() {
        let header = |width, height, channels| Verdict::Sound(Header { width, height, channels });
        for (name, wanted) in [
            ("gray.jpg", header(24, 16, 1)),
            ("subsampled.jpg", header(24, 16, 3)),
            ("restarts.jpg", header(24, 16, 3)),
            ("turned.jpg", header(24, 16, 3)),
            ("progressive.jpg", Verdict::Unusual),
            ("cmyk.jpg", Verdict::Unusual),
        ] {
            assert_eq!(read(&golden(name)), wanted, "{name}");
        }
        assert_eq!(read(&noise(1, 33, 17, 3, 90)), header(33, 17, 3));
        assert_eq!(read(b""), Verdict::Unusual);
    }

    #[test]
    fn a_picture_that_decoders_fill_with_gray_is_not_sound() {
        let file = noise(2, 64, 64, 3, 75);
        let begin = codes(&file);
        let (mut decoded, mut damaged, mut sound) = (0, 0, 0);
        let places = begin..file.len() - 2;
        for place in places.clone() {
            let mut file = file.clone();
            file[place] ^= 0x5a;
            decoded += usize::from(decode(&file).is_ok());
            match read(&file) {
                Verdict::Sound(_) => sound += 1,
                Verdict::Damaged => damaged += 1,
                Verdict::Unusual => {}
            }
        }
        // Decoders mind nothing but markers; that is why codes are read.
        assert!(decoded * 10 > places.len() * 9, "{decoded} of {}", places.len());
        // What falls into step again just before the end can't be told from another picture.
        assert!(damaged * 4 > places.len() * 3 && sound * 4 < places.len(), "{damaged}, {sound} of {}", places.len());
        let mut file = file;
        file[begin + 40..begin + 140].fill(0);
        assert_eq!(read(&file), Verdict::Damaged, "a sector that was lost");
    }

    #[test]
    fn nothing_may_be_left_and_nothing_may_lack() {
        let file = noise(3, 40, 24, 1, 85);
        assert!(matches!(read(&file), Verdict::Sound(_)));
        let (begin, end) = (codes(&file), file.len() - 2);
        for length in 0..file.len() {
            let wanted = match length {
                length if length < begin => Verdict::Unusual,
                length if length < end => Verdict::Damaged,
                _ => Verdict::Unusual,
            };
            assert_eq!(read(&file[..length]), wanted, "cut at {length}");
        }
        for (rest, wanted) in [
            (&[0xff, 0xff][..], read(&file)),
            (&[0; 3], Verdict::Unusual),
            (&[0; 500], Verdict::Unusual),
            (&[0xff, 0x00], Verdict::Unusual),
            (&[0xff, 0xd0], Verdict::Unusual),
            (&[0x5a; 20], Verdict::Damaged),
        ] {
            assert_eq!(read(&[&file[..end], rest, &file[end..]].concat()), wanted, "{rest:?} left");
        }
        // A block more or less than the header says.
        let frame = file.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        for height in [16, 25, 32] {
            let mut file = file.clone();
            file[frame + 6] = height;
            assert_eq!(read(&file), Verdict::Damaged, "{height} rows");
        }
    }

    #[test]
    fn every_size_and_quality_is_known() {
        for seed in 0..200_u64 {
            let mut rng = Seed::new(seed).rng();
            let [width, height] = [0; 2].map(|_| 1 + rng.below(70));
            let (channels, quality) = (if seed % 3 == 0 { 1 } else { 3 }, 1 + rng.below(100) as u8);
            let file = noise(seed, width, height, channels, quality);
            assert_eq!(
                read(&file),
                Verdict::Sound(Header { width, height, channels }),
                "{width}×{height}×{channels}, quality {quality}"
            );
        }
    }

    /// A picture of gray blocks, of which each takes two bits, with a restart after so many units.
    fn flat(sampling: u8, width: u16, height: u16, restart: u16) -> Vec<u8> {
        let segment = |marker: u8, body: &[u8]| [&[0xff, marker], &(body.len() as u16 + 2).to_be_bytes()[..], body].concat();
        let (w, h) = (width.to_be_bytes(), height.to_be_bytes());
        // The one symbol of either table is 0: no difference, and the end of the block. Its code is one bit, 0.
        let table = |kind| [&[kind, 1][..], &[0; 16]].concat();
        let (across, down) = (u16::from(sampling >> 4), u16::from(sampling & 15));
        let units = width.div_ceil(8 * across) * height.div_ceil(8 * down);
        let bits = 2 * usize::from(across * down + 2);
        let mut file = [
            &[0xff, 0xd8][..],
            &segment(0xdb, &[&[0][..], &[1; 64]].concat()),
            &segment(0xc0, &[8, h[0], h[1], w[0], w[1], 3, 1, sampling, 0, 2, 0x11, 0, 3, 0x11, 0]),
            &segment(0xc4, &[table(0x00), table(0x10)].concat()),
            &segment(0xdd, &restart.to_be_bytes()),
            &segment(0xda, &[3, 1, 0, 2, 0, 3, 0, 0, 63, 0]),
        ]
        .concat();
        let every = if restart == 0 { units } else { restart };
        for first in (0..units).step_by(every.into()) {
            if first > 0 {
                // Fill bytes are allowed before any marker.
                file.extend([0xff, 0xff, 0xd0 + (first / every - 1) as u8 % 8]);
            }
            file.extend(vec![0; (bits * usize::from(every.min(units - first))).div_ceil(8)]);
        }
        file.extend([0xff, 0xd9]);
        file
    }

    #[test]
    fn all_samplings_sizes_and_restarts_are_what_decoders_take_them_for() {
        for sampling in [0x11, 0x12, 0x21, 0x22] {
            for (width, height) in (1..40).flat_map(|side| [(side, 41 - side), (side, 17), (90, side)]) {
                for restart in [0, 1, 2, 7] {
                    let file = flat(sampling, width, height, restart);
                    let what = format!("{width}×{height}, {sampling:02x}, restarts after {restart}");
                    let header = Header { width: width.into(), height: height.into(), channels: 3 };
                    assert_eq!(read(&file), Verdict::Sound(header), "{what}");
                    let pixels = decode(&file).unwrap();
                    assert_eq!(
                        Header { width: pixels.width, height: pixels.height, channels: pixels.channels },
                        header,
                        "{what}"
                    );
                    assert!(pixels.data.iter().all(|&value| value == 128), "{what}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_sound_can_be_decoded(
            seed in 0_u64..32,
            name in prop::sample::select(&["", "gray.jpg", "subsampled.jpg", "restarts.jpg", "turned.jpg", "progressive.jpg", "cmyk.jpg"][..]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            in_header: bool,
        ) {
            let mut file = if name.is_empty() { noise(seed, 20, 30, 3, 60) } else { golden(name) };
            let end = if in_header { codes(&file) } else { file.len() };
            for (place, value) in changes {
                file[place.index(end)] = value;
            }
            if let Verdict::Sound(stored) = read(&file) {
                let (pixels, header) = (decode(&file), PictureFacts::of(&file).unwrap().as_shown(stored));
                prop_assert_eq!(pixels.map(|p| Header { width: p.width, height: p.height, channels: p.channels }), Ok(header));
            }
        }
    }
}
