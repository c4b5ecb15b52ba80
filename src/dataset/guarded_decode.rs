//! Decoding of image files, and the check that one is whole and of a size we can hold.
//!
//! Decoding itself is `artifact::image_codec`'s: the pixels that are checked here are the pixels that training will see (turned as
//! EXIF data say, transparency over white, 16 bits rounded to 8; color profiles are not applied; gray files stay gray; of an
//! animation the first frame, of pages the first one). What is added here:
//!
//! - The content decides the format, not the file's name.
//! - A truncated JPEG is an error, although decoders would fill the rest with gray. One that is damaged inside is decoded as they
//!   do it; of the usual, baseline form, [`check`] says so.
//! - Neither side may be longer than [`MAX_SIDE`], a guard against files that unpack to more than the machine holds.
//!
//! HEIC and AVIF are named with what converts them, and not decoded. Looked at in November 2026, decoders in Rust alone: for AVIF,
//! `rav1d` (BSD) is a port of a C library with its C interface and `unsafe` throughout, and needs an assembler to be quick; `rav1d-safe`
//! and `zenavif` are under the AGPL. For HEIC, `heifer` and `heic-rs` (MIT or Apache, no `unsafe`) are some weeks old; the first says
//! that it agrees with HEVC's conformance streams. They are to be looked at again; decoding HEVC is also covered by patents, for which
//! neither gives a licence.

use super::jpeg_check::{self, Verdict};
use kinset_artifact::error::ArtifactError;
use kinset_artifact::image_codec::{self, Header, Look};
pub use kinset_artifact::picture_facts::ImageFormat;
use kinset_artifact::picture_facts::{FORMATS, PictureFacts};
use kinset_artifact::pixels::Pixels;
use kinset_base::file_kind::{file_kind, with_remedy};

/// The longest side of a picture, in pixels.
pub const MAX_SIDE: usize = 16_384;

/// No JPEG holds more pixels in a byte. A block of 8×8 takes one bit at least, the code of its mean, and components whose finest
/// sampling differs by direction may share the resolution among four. What claims more lacks most of its blocks, and decoders
/// would fill hundreds of megabytes with gray for it.
const JPEG_PIXELS_PER_BYTE: usize = 8 * 64 * 4;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// There is nothing.
    #[error("the file is empty")]
    Nothing,
    #[error("not a {FORMATS} file, it {0}")]
    Foreign(String),
    #[error("the file is truncated")]
    Truncated,
    /// A picture beyond [`MAX_SIDE`].
    #[error("{width}×{height} pixels; at most {MAX_SIDE} per side are read")]
    TooLarge {
        /// Pixels per row.
        width: usize,
        /// Rows.
        height: usize,
    },
    #[error("{0}")]
    Damaged(String),
}

/// Decodes a whole file.
pub fn decode(bytes: &[u8]) -> Result<Pixels, Undecodable> {
    decode_as(bytes, Look::default())
}

/// Decodes a whole file as it is to look.
pub fn decode_as(bytes: &[u8], look: Look) -> Result<Pixels, Undecodable> {
    open(bytes)?.decode_as(look).map_err(damaged)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    pub header: Header,
    pub facts: PictureFacts,
    /// Of how many bits its values were taken to be: 8, 12 or 16.
    pub bits: u8,
    /// A baseline JPEG with corrupt entropy-coded data: decoders show gray or noise from there on, and so does [`decode`].
    /// Of progressive and other unusual files this is not known.
    pub damaged: bool,
}

/// Would [`decode`] read this file?
pub fn check(bytes: &[u8]) -> Result<Checked, Undecodable> {
    let verdict = jpeg_check::read(bytes);
    if let (Verdict::Sound(stored), Some(facts)) = (verdict, PictureFacts::of(bytes))
        && stored.width.max(stored.height) <= MAX_SIDE
    {
        return Ok(Checked { header: facts.as_shown(stored), facts, bits: 8, damaged: false });
    }
    let opened = open(bytes)?;
    let (header, facts) = (opened.header(), opened.facts());
    let (_, bits) = opened.decode_with_bits(Look::default()).map_err(damaged)?;
    Ok(Checked { header, facts, bits, damaged: verdict == Verdict::Damaged })
}

/// Opens a file that may be a whole picture of a size we can hold.
fn open(bytes: &[u8]) -> Result<image_codec::Opened<'_>, Undecodable> {
    match ImageFormat::sniff(bytes) {
        None if bytes.is_empty() => return Err(Undecodable::Nothing),
        None => {
            let begin: Vec<_> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            let known = file_kind(bytes).map(|kind| format!("is {}", with_remedy(kind)));
            return Err(Undecodable::Foreign(known.unwrap_or_else(|| format!("begins with `{}`", begin.join(" ")))));
        }
        Some(ImageFormat::Jpeg) if !jpeg_check::is_whole(bytes) => return Err(Undecodable::Truncated),
        Some(ImageFormat::Webp) if lacks_exif(bytes) => return Err(Undecodable::Truncated),
        Some(_) => {}
    }
    let opened = image_codec::open("", bytes).map_err(damaged)?;
    let Header { width, height, .. } = opened.header();
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Undecodable::TooLarge { width, height });
    }
    if ImageFormat::sniff(bytes) == Some(ImageFormat::Jpeg) && width * height > bytes.len().saturating_mul(JPEG_PIXELS_PER_BYTE)
    {
        return Err(Undecodable::Truncated);
    }
    Ok(opened)
}

/// A WebP file that is cut, and whose header promises EXIF data at its end: how it is to be turned is not known.
fn lacks_exif(webp: &[u8]) -> bool {
    let length = webp.get(4..8).map_or(0, |b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    let promised = webp.get(12..16) == Some(b"VP8X") && webp.get(20).is_some_and(|flags| flags & 8 != 0);
    promised && length + 8 > webp.len() as u64
}

/// The caller knows the file's name; only what is wrong with it is of interest.
pub(super) fn damaged(error: ArtifactError) -> Undecodable {
    match error {
        ArtifactError::Picture { detail, .. } => Undecodable::Damaged(detail),
        other => Undecodable::Damaged(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use image::{ImageEncoder, codecs, codecs::png::PngEncoder};
    use proptest::prelude::*;

    use super::*;
    use kinset_base::fs;

    /// Pictures beside this crate's tests.
    const FILES: usize = 45;

    fn golden() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dataset")
    }

    fn files() -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for path in fs::list(&golden()).unwrap() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = fs::read(&path).unwrap();
            if ImageFormat::sniff(&bytes).is_some() {
                files.push((name, bytes));
            }
        }
        assert_eq!(files.len(), FILES);
        files
    }

    #[test]
    fn a_jpeg_that_claims_more_pixels_than_its_bytes_can_hold_is_not_decoded() {
        let mut bytes = fs::read(&golden().join("gray.jpg")).unwrap();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        // Height and width of the frame header; found by fuzzing, where such a file kept the decoder busy for seconds.
        bytes[frame + 5..frame + 9].copy_from_slice(&[0x40, 0x00, 0x40, 0x00]);
        assert_eq!(decode(&bytes), Err(Undecodable::Truncated));
        bytes[frame + 5..frame + 9].copy_from_slice(&[0x40, 0x01, 0x00, 0x08]);
        assert_eq!(decode(&bytes), Err(Undecodable::TooLarge { width: 8, height: 0x4001 }));
        // One color compresses best of all, and stays far below.
        let mut flat = Vec::new();
        let gray = vec![128; 2048 * 2048];
        codecs::jpeg::JpegEncoder::new_with_quality(&mut flat, 1)
            .write_image(&gray, 2048, 2048, image::ExtendedColorType::L8)
            .unwrap();
        assert!(decode(&flat).unwrap().data.iter().all(|&value| value.abs_diff(128) < 2), "{} bytes", flat.len());
    }

    #[test]
    fn a_check_says_of_every_kind_of_file_what_decoding_does() {
        for (name, bytes) in files() {
            let pixels = decode(&bytes).unwrap();
            let header = Header { width: pixels.width, height: pixels.height, channels: pixels.channels };
            let checked = check(&bytes).unwrap();
            assert_eq!((checked.header, checked.damaged), (header, false), "{name}");
            assert_eq!(checked.facts.is_turned(), name.starts_with("turned"), "{name}");
            assert_eq!(checked.bits, if name.starts_with("gray16") { 16 } else { 8 }, "{name}");
            for length in (0..bytes.len()).step_by(3) {
                assert_eq!(check(&bytes[..length]).is_ok(), decode(&bytes[..length]).is_ok(), "{name} cut at {length}");
            }
        }
    }

    #[test]
    fn every_kind_of_file_shows_what_pillow_shows() {
        let seen: serde_json::Value = serde_json::from_str(&fs::read_text(&golden().join("pixels.json")).unwrap()).unwrap();
        for (name, bytes) in files() {
            let wanted = &seen[&name];
            let number = |key: &str| wanted[key].as_u64().unwrap() as usize;
            let pixels = decode(&bytes).unwrap_or_else(|why| panic!("{name}: {why}"));
            let shape = (pixels.width, pixels.height, pixels.channels);
            assert_eq!(shape, (number("width"), number("height"), number("channels")), "{name}");
            let values: Vec<i64> = wanted["values"].as_array().unwrap().iter().map(|value| value.as_i64().unwrap()).collect();
            assert_eq!(values.len(), pixels.data.len(), "{name}");
            let most = values.iter().zip(&pixels.data).map(|(&a, &b)| (a - i64::from(b)).abs()).max().unwrap();
            assert!(most <= number("tolerance") as i64, "{name}: off by {most}");
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_or_shows_the_whole_picture() {
        for (name, bytes) in files() {
            let whole = decode(&bytes).unwrap();
            let mut refused = 0;
            for length in 0..bytes.len() {
                match decode(&bytes[..length]) {
                    Err(_) => refused += 1,
                    // A PNG without its end chunk, a WebP without its metadata or later frames, a TIFF without its later pages.
                    Ok(pixels) if ImageFormat::sniff(&bytes) == Some(ImageFormat::Jpeg) => {
                        panic!("{name} cut at {length} gives {}×{}", pixels.width, pixels.height)
                    }
                    Ok(pixels) => assert_eq!(pixels, whole, "{name} cut at {length}"),
                }
            }
            // Of two pages of one size nobody misses the second one.
            assert!(refused * 2 >= bytes.len(), "{name}: {refused} of {}", bytes.len());
        }
    }

    #[test]
    fn what_is_no_picture_is_told_apart() {
        assert_eq!(decode(b"").unwrap_err().to_string(), "the file is empty");
        let refusal = |bytes: &[u8]| decode(bytes).unwrap_err().to_string();
        assert!(
            refusal(b"\0\0\0\x18ftypavif....")
                .starts_with("not a PNG, JPEG, WebP, GIF, BMP or TIFF file, it is an AVIF picture; conv")
        );
        assert!(refusal(b"\x01 and more").ends_with("TIFF file, it begins with `01 20 61 6e 64 20 6d 6f`"));
        assert!(refusal(b"II*\0\x10\0\0\0CR\x02\0").contains("a camera's raw file; develop"), "what only looks like TIFF");
        assert!(refusal(b"<!DOCTYPE html><html>").contains("it is an HTML page"));
        assert_eq!(decode(&[0xff, 0xd8, 0xff, 0xe0]).unwrap_err(), Undecodable::Truncated);
    }

    #[test]
    fn a_picture_that_claims_to_be_huge_is_refused_from_its_header() {
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&vec![0; 16_385], 16_385, 1, image::ExtendedColorType::L8).unwrap();
        assert_eq!(decode(&bytes).unwrap_err(), Undecodable::TooLarge { width: 16_385, height: 1 });
        bytes.clear();
        PngEncoder::new(&mut bytes).write_image(&vec![7; 16_384], 16_384, 1, image::ExtendedColorType::L8).unwrap();
        assert_eq!(decode(&bytes).unwrap().width, 16_384);
        // A JPEG whose frame header says 65,535 × 65,535.
        let mut bytes = Vec::new();
        codecs::jpeg::JpegEncoder::new(&mut bytes).write_image(&[9; 64], 8, 8, image::ExtendedColorType::L8).unwrap();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        bytes[frame + 5..frame + 9].fill(0xff);
        assert_eq!(decode(&bytes).unwrap_err(), Undecodable::TooLarge { width: 65_535, height: 65_535 });
    }

    proptest! {
        #[test]
        fn changed_bytes_make_no_decoder_panic(
            file in 0..FILES,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let (_, mut bytes) = files().swap_remove(file);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let (decoded, checked) = (decode(&bytes), check(&bytes));
            if let Ok(pixels) = &decoded {
                prop_assert_eq!(pixels.data.len(), pixels.width * pixels.height * pixels.channels);
            }
            let header = |pixels: Pixels| Header { width: pixels.width, height: pixels.height, channels: pixels.channels };
            prop_assert_eq!(checked.is_ok(), decoded.is_ok(), "{:?}", decoded.as_ref().err());
            prop_assert_eq!(checked.ok().map(|checked| checked.header), decoded.ok().map(header));
        }

        #[test]
        fn eight_bit_pixels_come_back_from_png_and_lossless_webp(
            width in 1_usize..9, height in 1_usize..9, color: bool, seed: u64,
        ) {
            let channels = if color { 3 } else { 1 };
            let mut rng = kinset_base::seed::Seed::new(seed).rng();
            let data: Vec<u8> = (0..width * height * channels).map(|_| rng.below(256) as u8).collect();
            let kind = if color { image::ExtendedColorType::Rgb8 } else { image::ExtendedColorType::L8 };
            let mut bytes = Vec::new();
            PngEncoder::new(&mut bytes).write_image(&data, width as u32, height as u32, kind).unwrap();
            let wanted = Pixels::new(width, height, channels, data);
            prop_assert_eq!(&decode(&bytes).unwrap(), &wanted);
            if color {
                bytes.clear();
                let encoder = codecs::webp::WebPEncoder::new_lossless(&mut bytes);
                encoder.write_image(&wanted.data, width as u32, height as u32, kind).unwrap();
                prop_assert_eq!(&decode(&bytes).unwrap(), &wanted);
            }
        }
    }
}
