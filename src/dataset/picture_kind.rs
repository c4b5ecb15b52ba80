//! Kinds of picture files, counted: format, gray or color, and what a reader of pixels alone would not notice.

use super::reader::Record;
use kinset_artifact::image_codec::Look;
use kinset_artifact::picture_facts::ImageFormat;
use kinset_base::unit::count;

/// How many pictures there were of which kind.
#[derive(Clone, Debug, Default)]
pub(super) struct KindCounts {
    look: Look,
    counts: [usize; KINDS.len()],
    images: usize,
    /// Of 16 bits, and taken to have fewer.
    fewer_bits: usize,
}

/// Kinds in words, in the order of [`KindCounts`].
const KINDS: [&str; 11] = [
    "PNG",
    "JPEG",
    "WebP",
    "GIF",
    "BMP",
    "TIFF",
    "gray",
    "with transparency, laid over ",
    "with 16 bits, rounded to 8",
    "turned by EXIF",
    "with several frames or pages, of which the first is read",
];
const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Webp, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
/// Places in [`KINDS`].
const TRANSPARENT: usize = 7;
const DEEP: usize = 8;
const TURNED: usize = 9;

impl KindCounts {
    pub(super) fn new(look: Look) -> Self {
        Self { look, ..Self::default() }
    }

    pub(super) fn add(&mut self, record: &Record) {
        self.images += 1;
        let Some(facts) = record.facts else { return };
        let formats = FORMATS.iter().map(|&format| facts.format == format);
        let others = [record.channels == 1, facts.alpha, facts.deep, facts.is_turned(), facts.several];
        self.fewer_bits += usize::from(facts.deep && record.bits < 16);
        for (count, yes) in self.counts.iter_mut().zip(formats.chain(others)) {
            *count += usize::from(yes);
        }
    }

    /// What may not be meant.
    pub(super) fn doubts(&self) -> Option<String> {
        (self.fewer_bits > 0).then(|| {
            format!(
                "{} of {} pictures with 16 bits have no value above 4,095 and are taken to have 12 bits, or 8 if none is above 255; if \
                 they are just dark, convert them to 8 bits first",
                count(self.fewer_bits as u64),
                count(self.counts[DEEP] as u64)
            )
        })
    }

    /// `12 PNG`, `3 gray`; a kind that is all is `PNG`.
    pub(super) fn words(&self) -> Vec<String> {
        let word = |(place, &number): (usize, &usize)| {
            let kind = match place {
                TRANSPARENT => format!("{}{}", KINDS[place], color_name(self.look.background)),
                TURNED if !self.look.turned => "not turned as EXIF says".to_owned(),
                _ => KINDS[place].to_owned(),
            };
            match number {
                0 => None,
                all if all == self.images => Some(kind),
                some => Some(format!("{} {kind}", count(some as u64))),
            }
        };
        self.counts.iter().enumerate().filter_map(word).collect()
    }
}

/// A color as a source names it.
pub(super) fn color_name(color: [u8; 3]) -> String {
    match color {
        [255, 255, 255] => "white".to_owned(),
        [0, 0, 0] => "black".to_owned(),
        [red, green, blue] => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::codecs::png::PngEncoder;
    use image::codecs::webp::WebPEncoder;
    use image::{ExtendedColorType, ImageEncoder};
    use proptest::prelude::*;

    use super::*;
    use kinset_artifact::picture_facts::PictureFacts;

    /// TIFF's head and one entry: the orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut bytes = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
        bytes.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn png(color: ExtendedColorType, bytes: usize, orientation: Option<u8>) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        if let Some(orientation) = orientation {
            encoder.set_exif_metadata(exif(orientation)).unwrap();
        }
        encoder.write_image(&vec![9; 4 * bytes], 2, 2, color).unwrap();
        file
    }

    #[test]
    fn headers_say_what_pixels_do_not() {
        let facts = |file: &[u8]| PictureFacts::of(file).map(|facts| (facts.alpha, facts.deep, facts.is_turned()));
        assert_eq!(facts(&png(ExtendedColorType::L8, 1, None)), Some((false, false, false)));
        assert_eq!(facts(&png(ExtendedColorType::L16, 2, Some(6))), Some((false, true, true)));
        assert_eq!(facts(&png(ExtendedColorType::Rgba8, 4, Some(1))), Some((true, false, false)));
        let mut file = Vec::new();
        let mut encoder = JpegEncoder::new(&mut file);
        encoder.set_exif_metadata(exif(3)).unwrap();
        encoder.write_image(&[9; 12], 2, 2, ExtendedColorType::Rgb8).unwrap();
        assert_eq!(facts(&file), Some((false, false, true)));
        for (color, bytes, transparent) in [(ExtendedColorType::Rgba8, 16, true), (ExtendedColorType::Rgb8, 12, false)] {
            file.clear();
            let mut encoder = WebPEncoder::new_lossless(&mut file);
            encoder.set_exif_metadata(exif(8)).unwrap();
            encoder.write_image(&vec![9; bytes], 2, 2, color).unwrap();
            assert_eq!(facts(&file), Some((transparent, false, true)));
        }
    }

    #[test]
    fn kinds_are_counted_and_one_that_is_all_needs_no_number() {
        let mut counts = KindCounts::default();
        for bytes in [png(ExtendedColorType::L8, 1, None), png(ExtendedColorType::L16, 2, Some(6))] {
            counts.add(&Record::encoded(bytes, None, None, None, Look::default()).unwrap());
        }
        assert_eq!(counts.words(), ["PNG", "gray", "1 with 16 bits, rounded to 8", "1 turned by EXIF"]);
        assert!(counts.doubts().unwrap().starts_with("1 of 1 pictures with 16 bits have no value above 4,095"));
    }

    proptest! {
        #[test]
        fn headers_that_lie_make_no_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..96), form in 0..6) {
            let heads: [&[u8]; 6] =
                [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"BM\0\0\0\0\0\0\0\0", b"II*\0"];
            let head = heads[form as usize];
            bytes.splice(..0, head.iter().copied());
            let _ = PictureFacts::of(&bytes);
        }
    }
}
