//! Properties of a picture file beside its size: how it is to be turned, whether it is transparent, how many bits and pictures it has.
//!
//! Read from its headers without a decoder and in this one place, so that whoever counts pictures, checks them or decodes them sees
//! the same.

use image::metadata::Orientation;

use super::image_codec::Header;
use super::tiff_page;

/// The formats that are read, for messages.
pub const FORMATS: &str = "PNG, JPEG, WebP, GIF, BMP or TIFF";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureFacts {
    pub format: ImageFormat,
    /// How it is turned or mirrored before it is shown (EXIF).
    pub orientation: Orientation,
    /// It has transparency: an alpha channel, a color that is declared transparent, or a first frame that does not fill it.
    pub alpha: bool,
    /// 16 bits per channel; all others have 8 or fewer.
    pub deep: bool,
    /// More frames or pages follow the first one, which is the picture.
    pub several: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageFormat {
    Png,
    /// JPEG, with or without JFIF.
    Jpeg,
    /// WebP, lossy or lossless.
    Webp,
    Gif,
    Bmp,
    Tiff,
}

impl ImageFormat {
    /// The format that a file's first 12 bytes announce.
    pub fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Some(Self::Png),
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => Some(Self::Bmp),
            // Canon's raw files are TIFF files with a mark, whose first picture is a preview.
            [b'I', b'I', 42, 0, _, _, _, _, b'C', b'R', ..] => None,
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(Self::Tiff),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Webp => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }
}

impl PictureFacts {
    /// `None` if the file is of no format that is read. What is damaged or missing counts as not there.
    pub fn of(file: &[u8]) -> Option<Self> {
        let format = ImageFormat::sniff(file)?;
        let mut facts = Self { format, orientation: Orientation::NoTransforms, alpha: false, deep: false, several: false };
        match format {
            ImageFormat::Png => facts.read_png(file),
            ImageFormat::Jpeg => facts.read_jpeg(file),
            ImageFormat::Webp => facts.read_webp(file),
            ImageFormat::Gif => facts.read_gif(file),
            ImageFormat::Bmp => facts.read_bmp(file),
            ImageFormat::Tiff => facts.read_tiff(file),
        }
        Some(facts)
    }

    /// Nothing is to be done with its pixels.
    pub fn is_plain(&self) -> bool {
        !self.is_turned() && !self.alpha && !self.deep
    }

    pub fn is_turned(&self) -> bool {
        self.orientation != Orientation::NoTransforms
    }

    /// Width and height change places when it is turned.
    pub fn is_sideways(&self) -> bool {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        matches!(self.orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    }

    /// The shape a picture has when it is shown.
    pub fn as_shown(&self, stored: Header) -> Header {
        let Header { width, height, channels } = stored;
        if self.is_sideways() { Header { width: height, height: width, channels } } else { stored }
    }

    /// The EXIF data stand before the picture or after it; the first ones count.
    fn read_png(&mut self, file: &[u8]) {
        let (Some(depth), Some(color)) = (file.get(24), file.get(25)) else { return };
        (self.deep, self.alpha) = (*depth == 16, color & 4 != 0);
        let (mut at, mut before, mut exif) = (8_usize, true, None);
        while let Some((length, kind)) = file.get(at..at.saturating_add(8)).map(|head| head.split_at(4)) {
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
            match kind {
                b"IDAT" => before = false,
                b"tRNS" if before => self.alpha = true,
                b"acTL" if before => self.several = true,
                b"eXIf" => exif = exif.or(file.get(at + 8..(at + 8).saturating_add(length))),
                b"IEND" => break,
                _ => {}
            }
            at = at.saturating_add(length).saturating_add(12);
        }
        self.turn(exif);
    }

    fn read_jpeg(&mut self, file: &[u8]) {
        let mut at = 2;
        while let Some([0xff, marker]) = file.get(at..at + 2) {
            let (0xe0..=0xef | 0xc0..=0xcf | 0xdb..=0xdf | 0xfe, Some(length)) = (*marker, file.get(at + 2..at + 4)) else {
                // A fill byte, or the picture itself.
                if *marker != 0xff {
                    return;
                }
                at += 1;
                continue;
            };
            let end = at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
            let exif = file.get(at + 4..end).filter(|_| *marker == 0xe1).and_then(|body| body.strip_prefix(b"Exif\0\0"));
            if exif.is_some() {
                return self.turn(exif);
            }
            at = end;
        }
    }

    fn read_webp(&mut self, file: &[u8]) {
        let mut at = 12_usize;
        let mut extended = false;
        while let Some((kind, length)) = file.get(at..at.saturating_add(8)).map(|head| head.split_at(4)) {
            let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
            let body = file.get(at + 8..(at + 8).saturating_add(length));
            match (kind, body) {
                (b"VP8X", Some([flags, ..])) => {
                    (extended, self.alpha, self.several) = (true, flags & 0x10 != 0, flags & 2 != 0);
                }
                (b"VP8L", Some([0x2f, _, _, _, last, ..])) if !extended => self.alpha = last & 0x10 != 0,
                (b"EXIF", exif) => return self.turn(exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))),
                _ => {}
            }
            at = at.saturating_add(length).saturating_add(8 + length % 2);
        }
    }

    fn read_gif(&mut self, file: &[u8]) {
        let colors = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        let Some(screen) = file.get(6..13) else { return };
        let (mut at, mut frames) = (13 + colors(screen[4]), 0);
        loop {
            match file.get(at..) {
                Some([0x21, label, rest @ ..]) => {
                    if let (0xf9, 0, [4, flags, ..]) = (label, frames, rest) {
                        self.alpha = flags & 1 != 0;
                    }
                    at += 2;
                }
                Some([0x2c, rest @ ..]) if rest.len() >= 9 => {
                    frames += 1;
                    if frames > 1 {
                        self.several = true;
                        return;
                    }
                    self.alpha |= rest[..4] != [0; 4] || rest[4..8] != screen[..4];
                    at += 11 + colors(rest[8]);
                }
                _ => return,
            }
            // Blocks, each behind its length.
            while let Some(length @ 1..) = file.get(at) {
                at += 1 + usize::from(*length);
            }
            at += 1;
        }
    }

    /// Of files of 16 and 32 bits, later headers say which of them are opacity.
    fn read_bmp(&mut self, file: &[u8]) {
        let number = |at: usize| file.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        self.alpha = matches!(number(14), 56 | 108 | 124) && number(30) == 3 && number(66) != 0;
    }

    fn read_tiff(&mut self, file: &[u8]) {
        if let Some(directory) = tiff_page::Directory::first(file) {
            (self.alpha, self.deep, self.several) = (directory.has_alpha(), directory.bits() == 16, directory.has_next());
            // TIFF's own directory is what EXIF data are made of.
            self.turn(Some(file));
        }
    }

    fn turn(&mut self, exif: Option<&[u8]>) {
        self.orientation = exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The EXIF data of an orientation, in either order of bytes.
    pub(crate) fn exif(orientation: u8, big: bool) -> Vec<u8> {
        if big {
            [&b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..], &[orientation, 0, 0, 0, 0, 0, 0]].concat()
        } else {
            [&b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"[..], &[orientation, 0, 0, 0, 0, 0, 0, 0]].concat()
        }
    }

    /// A JPEG with EXIF data behind its first marker.
    pub(crate) fn jpeg_with(file: &[u8], exif: &[u8]) -> Vec<u8> {
        let length = (exif.len() as u16 + 8).to_be_bytes();
        [&file[..2], &[0xff, 0xe1], &length, b"Exif\0\0", exif, &file[2..]].concat()
    }

    /// A PNG with one more chunk at a place; its checksum is right.
    pub(crate) fn png_with(file: &[u8], at: usize, kind: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut sum = !0_u32;
        for byte in kind.iter().chain(body) {
            sum ^= u32::from(*byte);
            (0..8).for_each(|_| sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()));
        }
        let length = (body.len() as u32).to_be_bytes();
        [&file[..at], &length, &kind, body, &(!sum).to_be_bytes(), &file[at..]].concat()
    }

    #[test]
    fn orientation_is_found_wherever_it_stands_and_in_both_orders_of_bytes() {
        let turned = |file: &[u8]| PictureFacts::of(file).unwrap().orientation.to_exif();
        let jpeg = [&[0xff, 0xd8][..], &[0xff, 0xe0, 0, 4, 1, 2], &[0xff, 0xff, 0xda, 0, 2]].concat();
        let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"[..], &[0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0, 0, 0, 0, 0]].concat();
        let end = b"\0\0\0\0IDAT\0\0\0\0".to_vec();
        assert_eq!((turned(&jpeg), turned(&png)), (1, 1));
        for orientation in 1..=8 {
            for big in [false, true] {
                let exif = exif(orientation, big);
                assert_eq!(turned(&jpeg_with(&jpeg, &exif)), orientation);
                let late = png_with(&[&png[..], &end].concat(), png.len() + end.len(), *b"eXIf", &exif);
                assert_eq!((turned(&png_with(&png, png.len(), *b"eXIf", &exif)), turned(&late)), (orientation, orientation));
                let length = (exif.len() as u32).to_le_bytes();
                let webp = [&b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x18\0\0\0\0\0\0\0\0\0EXIF"[..], &length, &exif].concat();
                assert_eq!((turned(&webp), PictureFacts::of(&webp).unwrap().alpha), (orientation, true));
            }
        }
        assert_eq!(turned(&jpeg_with(&jpeg, &exif(9, false))), 1, "there is no such orientation");
        assert_eq!(turned(&jpeg_with(&jpeg_with(&jpeg, &exif(3, true)), &exif(6, true))), 6, "the first one counts");
        assert_eq!(turned(&jpeg_with(&jpeg, b"II\x2a\0\xff\xff\xff\xff")), 1);
    }
}
