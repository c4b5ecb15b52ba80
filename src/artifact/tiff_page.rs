//! TIFF pictures: the first page of a file, with 1 to 16 bits per value, gray, color, CMYK or of a palette.
//!
//! The crate `tiff` reads strips and tiles and undoes LZW, deflate, packed bits, fax and JPEG compression. What it leaves to others is
//! done here: palettes, JPEG's colors, values of fewer than 8 bits, planes that lie one after the other, opacity of gray pictures.

use std::borrow::Cow;
use std::io::Cursor;

use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, RgbImage, RgbaImage};
use tiff::decoder::{BufferLayoutPreference, ChunkType, Decoder, DecodingResult, Limits};
use tiff::tags::Tag;
use tiff::{ColorType, TiffError};

use kinset_base::file_kind::RAW;

/// Tags of a directory.
const SUBFILE: u16 = 254;
const BITS: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const SAMPLES: u16 = 277;
const EXTRA_SAMPLES: u16 = 338;
const DNG_VERSION: u16 = 50_706;

/// A row of a strip or tile takes no more bytes.
const ROW: u64 = 64 << 20;

/// A tile with a JPEG inside has no more pixels a side; 256 and 512 are usual.
const TILE: u32 = 4096;

/// Values of tags.
const JPEG: u32 = 7;
const RGB: u32 = 2;
const PALETTE: u32 = 3;
const BLACK_IS_ZERO: u16 = 1;
const ASSOCIATED_ALPHA: u32 = 1;
const ALPHA: u32 = 2;

/// A file's first directory: what stands where, without a look at the pixels.
#[derive(Clone, Copy)]
pub(super) struct Directory<'a> {
    file: &'a [u8],
    big_endian: bool,
    /// The first entry.
    at: usize,
    entries: usize,
}

impl<'a> Directory<'a> {
    /// `None` if the file is cut before it.
    pub(super) fn first(file: &'a [u8]) -> Option<Self> {
        let mut directory = Self { file, big_endian: file.first() == Some(&b'M'), at: 0, entries: 0 };
        let start = directory.long(4)? as usize;
        (directory.entries, directory.at) = (usize::from(directory.short(start)?), start + 2);
        Some(directory)
    }

    fn short(&self, at: usize) -> Option<u16> {
        let bytes = <[u8; 2]>::try_from(self.file.get(at..at.checked_add(2)?)?).ok()?;
        Some(if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let bytes = <[u8; 4]>::try_from(self.file.get(at..at.checked_add(4)?)?).ok()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// Where the entry of a tag begins.
    fn entry(&self, tag: u16) -> Option<usize> {
        (0..self.entries).map(|entry| self.at + 12 * entry).find(|&at| self.short(at) == Some(tag))
    }

    /// The first value of a tag, of one of the two kinds that numbers have here.
    fn value(&self, tag: u16) -> Option<u32> {
        let at = self.entry(tag)?;
        let (kind, count) = (self.short(at + 2)?, self.long(at + 4)? as usize);
        let size = if kind == 3 { 2 } else { 4 };
        let at = if count.saturating_mul(size) <= 4 { at + 8 } else { self.long(at + 8)? as usize };
        match kind {
            3 => self.short(at).map(u32::from),
            4 => self.long(at),
            _ => None,
        }
    }

    pub(super) fn bits(&self) -> u32 {
        self.value(BITS).unwrap_or(1)
    }

    pub(super) fn has_alpha(&self) -> bool {
        let fourth = self.value(PHOTOMETRIC) == Some(RGB) && self.value(SAMPLES) == Some(4);
        self.value(EXTRA_SAMPLES).map_or(fourth, |extra| matches!(extra, ASSOCIATED_ALPHA | ALPHA))
    }

    /// Another page follows.
    pub(super) fn has_next(&self) -> bool {
        self.long(self.at + 12 * self.entries).is_some_and(|next| next != 0)
    }

    /// The first picture is a preview: most cameras' raw files are such.
    fn is_preview(&self) -> bool {
        self.entry(DNG_VERSION).is_some() || self.value(SUBFILE).is_some_and(|kind| kind & 1 != 0)
    }
}

/// A file whose first directory was read.
pub(super) struct Page<'a> {
    decoder: Decoder<Cursor<Cow<'a, [u8]>>>,
    file: &'a [u8],
    pub(super) width: u32,
    pub(super) height: u32,
    color: ColorType,
    palette: Option<Vec<u16>>,
    /// Colors were multiplied by opacity.
    multiplied: bool,
    jpeg: bool,
}

/// Opens the first page. `largest` is what its pixels may take, in bytes.
pub(super) fn open(file: &[u8], largest: u64) -> Result<Page<'_>, String> {
    let directory = Directory::first(file).ok_or("invalid TIFF: it is cut")?;
    if directory.is_preview() {
        return Err(format!("its first picture is a preview, as of {RAW}"));
    }
    let mut bytes = Cow::Borrowed(file);
    let indexed = directory.value(PHOTOMETRIC) == Some(PALETTE);
    if indexed {
        // The crate refuses palettes: indices are read as if they were gray.
        let at = directory.entry(PHOTOMETRIC).ok_or("invalid TIFF: it has no colors")? + 8;
        let gray = if directory.big_endian { BLACK_IS_ZERO.to_be_bytes() } else { BLACK_IS_ZERO.to_le_bytes() };
        bytes.to_mut()[at..at + 2].copy_from_slice(&gray);
    }
    let mut limits = Limits::default();
    limits.decoding_buffer_size = usize::try_from(largest).unwrap_or(usize::MAX);
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    // No list of values is longer than the file it stands in.
    limits.ifd_value_size = file.len().max(1 << 10);
    let wrong = |error: TiffError| error.to_string();
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(wrong)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(wrong)?;
    // The crate takes the memory of a row of a strip or tile before it reads one.
    let row = u64::from(decoder.chunk_dimensions().0) * u64::from(directory.value(SAMPLES).unwrap_or(1)) * 2;
    if row > ROW {
        return Err(format!("invalid TIFF: a row of a tile takes {}", kinset_base::unit::bytes(row)));
    }
    let color = decoder.colortype().map_err(wrong)?;
    if let Some(formats) = decoder.find_tag_unsigned_vec::<u16>(Tag::SampleFormat).map_err(wrong)?
        && formats.iter().any(|&format| format != 1)
    {
        return Err("its values are signed or no whole numbers: save it with 8 or 16 bits".to_owned());
    }
    let palette = if indexed { Some(decoder.get_tag_u16_vec(Tag::ColorMap).map_err(wrong)?) } else { None };
    let read = match color {
        ColorType::Gray(1 | 2 | 4 | 8) => true,
        ColorType::Gray(16) | ColorType::RGB(8 | 16) | ColorType::RGBA(8 | 16) | ColorType::CMYK(8) | ColorType::YCbCr(8) => {
            !indexed
        }
        ColorType::Multiband { bit_depth: 8 | 16, num_samples: 2 } => !indexed && directory.has_alpha(),
        _ => false,
    };
    if !read {
        return Err(format!("TIFF with colors of the form {color:?} is not read: save it as gray or RGB with 8 or 16 bits"));
    }
    let multiplied = directory.value(EXTRA_SAMPLES) == Some(ASSOCIATED_ALPHA);
    let jpeg = directory.value(COMPRESSION) == Some(JPEG);
    if matches!(color, ColorType::YCbCr(_)) && !jpeg {
        return Err("TIFF with YCbCr colors is read with JPEG compression only: save it as RGB".to_owned());
    }
    Ok(Page { decoder, file, width, height, color, palette, multiplied, jpeg })
}

impl Page<'_> {
    pub(super) fn is_gray(&self) -> bool {
        self.palette.is_none() && matches!(self.color, ColorType::Gray(_) | ColorType::Multiband { .. })
    }

    fn values(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height) * u64::from(self.color.num_samples())
    }

    /// What decoding takes, in bytes: values as they are stored, and as they are shown where that differs.
    pub(super) fn bytes(&self) -> u64 {
        let wide = if self.color.bit_depth() > 8 { 2 } else { 1 };
        let shown = u64::from(self.width) * u64::from(self.height) * if self.is_gray() { 1 } else { 3 };
        let again = if self.color.bit_depth() < 8 || self.palette.is_some() { shown } else { 0 };
        // A strip may be all of it, and is unpacked beside it.
        self.values() * wide + again + if self.jpeg { self.values() } else { 0 }
    }

    pub(super) fn decode(mut self) -> Result<DynamicImage, String> {
        let wrong = |error: TiffError| error.to_string();
        if self.jpeg {
            self.check_jpegs()?;
        }
        let mut read = DecodingResult::U8(Vec::new());
        let layout = self.decoder.read_image_to_buffer(&mut read).map_err(wrong)?;
        let (width, height, channels) = (self.width, self.height, usize::from(self.color.num_samples()));
        let short = || "invalid TIFF: it holds fewer values than its size says".to_owned();
        match read {
            DecodingResult::U8(values) => {
                let mut values = interleaved(values, &layout, channels).ok_or_else(short)?;
                if self.color.bit_depth() < 8 {
                    values = unpacked(&values, width as usize, self.color.bit_depth(), self.palette.is_none());
                }
                if let Some(palette) = &self.palette {
                    values = colored(&values, palette).ok_or("invalid TIFF: a color is not in its palette")?;
                }
                let made = match self.color {
                    _ if self.palette.is_some() => RgbImage::from_raw(width, height, values).map(DynamicImage::ImageRgb8),
                    ColorType::Gray(_) => GrayImage::from_raw(width, height, values).map(DynamicImage::ImageLuma8),
                    ColorType::Multiband { .. } => {
                        if self.multiplied {
                            unmultiplied::<2, _>(&mut values, u8::MAX);
                        }
                        GrayAlphaImage::from_raw(width, height, values).map(DynamicImage::ImageLumaA8)
                    }
                    ColorType::RGBA(_) => {
                        if self.multiplied {
                            unmultiplied::<4, _>(&mut values, u8::MAX);
                        }
                        RgbaImage::from_raw(width, height, values).map(DynamicImage::ImageRgba8)
                    }
                    ColorType::CMYK(_) => RgbImage::from_raw(width, height, from_cmyk(&values)).map(DynamicImage::ImageRgb8),
                    ColorType::YCbCr(_) => {
                        from_ycbcr(&mut values);
                        RgbImage::from_raw(width, height, values).map(DynamicImage::ImageRgb8)
                    }
                    _ => RgbImage::from_raw(width, height, values).map(DynamicImage::ImageRgb8),
                };
                made.ok_or_else(short)
            }
            DecodingResult::U16(values) => {
                let mut values = interleaved(values, &layout, channels).ok_or_else(short)?;
                match self.color {
                    ColorType::Multiband { .. } if self.multiplied => unmultiplied::<2, _>(&mut values, u16::MAX),
                    ColorType::RGBA(_) if self.multiplied => unmultiplied::<4, _>(&mut values, u16::MAX),
                    _ => {}
                }
                let made = match self.color {
                    ColorType::Gray(_) => ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageLuma16),
                    ColorType::Multiband { .. } => ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageLumaA16),
                    ColorType::RGBA(_) => ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageRgba16),
                    _ => ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageRgb16),
                };
                made.ok_or_else(short)
            }
            _ => Err("its values are no whole numbers of 8 or 16 bits".to_owned()),
        }
    }

    /// JPEGs inside say themselves how large they are: none may be larger than the strip or tile it fills, up to its last block.
    fn check_jpegs(&mut self) -> Result<(), String> {
        let wrong = |error: TiffError| error.to_string();
        let (width, height) = self.decoder.chunk_dimensions();
        let (tags, width, height) = match self.decoder.get_chunk_type() {
            ChunkType::Strip => ((Tag::StripOffsets, Tag::StripByteCounts), width, height.min(self.height)),
            ChunkType::Tile => ((Tag::TileOffsets, Tag::TileByteCounts), width.min(TILE), height.min(TILE)),
        };
        let offsets = self.decoder.get_tag_u64_vec(tags.0).map_err(wrong)?;
        let lengths = self.decoder.get_tag_u64_vec(tags.1).map_err(wrong)?;
        for (at, length) in offsets.into_iter().zip(lengths) {
            let end = at.checked_add(length).filter(|&end| end <= self.file.len() as u64).ok_or("invalid TIFF: it is cut")?;
            let (across, down) =
                jpeg_size(&self.file[at as usize..end as usize]).ok_or("invalid TIFF: a JPEG inside is damaged")?;
            if across > width.next_multiple_of(16) || down > height.next_multiple_of(16) {
                return Err(format!("invalid TIFF: {across} × {down} pixels inside {width} × {height}"));
            }
        }
        Ok(())
    }
}

/// Width and height by a JPEG's frame header.
fn jpeg_size(jpeg: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        let [0xff, marker] = *jpeg.get(at..at + 2)? else { return None };
        let two = |at: usize| jpeg.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        match marker {
            0xff => at += 1,
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Some((u32::from(two(at + 7)?), u32::from(two(at + 5)?)));
            }
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::from(two(at + 2)?),
        }
    }
}

/// Values pixel by pixel, whether they lie so or in planes. `None` if some are missing.
fn interleaved<T: Copy>(values: Vec<T>, layout: &BufferLayoutPreference, channels: usize) -> Option<Vec<T>> {
    if layout.planes <= 1 {
        return Some(values);
    }
    let plane = layout.plane_stride?.get() / size_of::<T>();
    let planes: Vec<&[T]> = values.chunks_exact(plane).take(channels).collect();
    (planes.len() == channels).then(|| (0..plane).flat_map(|at| planes.iter().map(move |plane| plane[at])).collect())
}

/// Values of fewer than 8 bits, each in a byte; stretched to 8 bits if they are gray.
fn unpacked(rows: &[u8], width: usize, bits: u8, stretch: bool) -> Vec<u8> {
    let (per_byte, most) = (usize::from(8 / bits), (1_u8 << bits) - 1);
    let by = if stretch { 255 / most } else { 1 };
    let value = |row: &[u8], x: usize| (row[x / per_byte] >> (8 - bits as usize * (x % per_byte + 1))) & most;
    let rows = rows.chunks_exact(width.div_ceil(per_byte).max(1));
    rows.flat_map(|row| (0..width).map(move |x| value(row, x) * by)).collect()
}

/// RGB by a palette, which holds all reds, then all greens and all blues, in 16 bits.
fn colored(indices: &[u8], palette: &[u16]) -> Option<Vec<u8>> {
    let colors = palette.len() / 3;
    let table: Vec<[u8; 3]> =
        (0..colors).map(|i| [0, 1, 2].map(|channel| (palette[channel * colors + i] >> 8) as u8)).collect();
    if indices.iter().any(|&index| usize::from(index) >= colors) {
        return None;
    }
    Some(indices.iter().flat_map(|&index| table[usize::from(index)]).collect())
}

/// Colors as they are without their opacity, of which `top` is all.
fn unmultiplied<const C: usize, T: Copy + Into<u32> + TryFrom<u32>>(values: &mut [T], top: T) {
    let top: u32 = top.into();
    for pixel in values.as_chunks_mut::<C>().0 {
        let opacity: u32 = pixel[C - 1].into();
        for color in &mut pixel[..C - 1] {
            let (value, whole) = (u64::from((*color).into()), u64::from(top));
            let value = (value * whole).checked_div(u64::from(opacity)).map_or(0, |value| value.min(whole));
            *color = T::try_from(value as u32).unwrap_or(*color);
        }
    }
}

/// Without a profile: each color is darkened by black, as Pillow does it.
fn from_cmyk(values: &[u8]) -> Vec<u8> {
    let over = |color: u8, black: u8| ((255 - u32::from(color)) * (255 - u32::from(black)) + 127) / 255;
    values.as_chunks::<4>().0.iter().flat_map(|&[c, m, y, k]| [c, m, y].map(|color| over(color, k) as u8)).collect()
}

/// JPEG's colors, by JFIF's formula.
fn from_ycbcr(values: &mut [u8]) {
    for pixel in values.as_chunks_mut::<3>().0 {
        let [y, cb, cr] = pixel.map(f32::from);
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        *pixel = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|value| value.round() as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tag, kind and value.
    type Entry = (u16, u16, u32);

    /// A little-endian file of one directory: SHORT or LONG values, and something behind it.
    fn file(tags: &[Entry], rest: &[u8]) -> Vec<u8> {
        let mut bytes = b"II\x2a\0\x08\0\0\0".to_vec();
        bytes.extend((tags.len() as u16).to_le_bytes());
        for &(tag, kind, value) in tags {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(1_u32.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes.extend(rest);
        bytes
    }

    /// A gray picture of 2 × 2 pixels, with other or more tags.
    fn gray(other: &[Entry]) -> Vec<u8> {
        let mut tags = vec![
            (256, 3, 2),
            (257, 3, 2),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 1),
            (273, 4, 0),
            (277, 3, 1),
            (278, 3, 2),
            (279, 4, 4),
        ];
        tags.retain(|(tag, ..)| other.iter().all(|(own, ..)| own != tag));
        tags.extend(other);
        tags.sort_unstable();
        let data = 8 + 2 + 12 * tags.len() as u32 + 4;
        tags.iter_mut().filter(|(tag, ..)| *tag == 273).for_each(|(.., at)| *at = data);
        file(&tags, &[1, 2, 3, 250])
    }

    fn read(file: &[u8]) -> Result<Vec<u8>, String> {
        Ok(open(file, 1 << 20)?.decode()?.into_bytes())
    }

    #[test]
    fn what_the_directory_says_is_done_or_refused_in_words() {
        assert_eq!(read(&gray(&[])).unwrap(), [1, 2, 3, 250]);
        assert_eq!(read(&gray(&[(262, 3, 0)])).unwrap(), [254, 253, 252, 5], "white is zero");
        let refusals: [(&[Entry], &str); 6] = [
            (&[(254, 4, 1)], "preview"),
            (&[(50_706, 4, 1)], "a camera's raw file"),
            (&[(339, 3, 3)], "no whole numbers"),
            (&[(258, 3, 32)], "save it as gray or RGB"),
            (&[(262, 3, 6), (277, 3, 3)], "JPEG compression only"),
            (&[(277, 3, 40_000), (256, 4, 60_000)], "a row of a tile takes"),
        ];
        for (other, told) in refusals {
            let said = read(&gray(other)).unwrap_err();
            assert!(said.contains(told), "{other:?}: {said}");
        }
    }

    #[test]
    fn a_jpeg_inside_is_no_larger_than_its_strip() {
        let jpeg = |side: u16| {
            let [high, low] = side.to_be_bytes();
            [&[0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0][..], &[0xff, 0xd9]].concat()
        };
        assert_eq!(jpeg_size(&jpeg(700)), Some((700, 700)));
        assert_eq!(jpeg_size(&[0xff, 0xd8, 0xff, 0xda, 0, 2]), None);
        let mut bytes = gray(&[(259, 3, JPEG), (279, 4, 17)]);
        let data = bytes.len() - 4;
        bytes.truncate(data);
        bytes.extend(jpeg(16_384));
        let said = read(&bytes).unwrap_err();
        assert!(said.contains("16384 × 16384 pixels inside 2 × 2"), "{said}");
    }

    #[test]
    fn few_bits_are_unpacked_and_palettes_looked_up() {
        assert_eq!(unpacked(&[0b1010_0000, 0b0110_0000], 3, 1, true), [255, 0, 255, 0, 255, 255]);
        assert_eq!(unpacked(&[0b00_01_10_11, 0b11_000000], 5, 2, true), [0, 85, 170, 255, 255]);
        assert_eq!(unpacked(&[0x3f], 2, 4, false), [3, 15]);
        let palette = [0x0100, 0x0200, 0x1000, 0x2000, 0xff00, 0xfe00];
        assert_eq!(colored(&[1, 0], &palette).unwrap(), [2, 0x20, 0xfe, 1, 0x10, 0xff]);
        assert_eq!(colored(&[2], &palette), None);
    }
}
