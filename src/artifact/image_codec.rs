//! Decoding and encoding of picture files.
//!
//! Decoded as Pillow does it for a data loader: EXIF orientation is not applied, transparency is dropped, color becomes gray by
//! the weights of ITU-R 601.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ColorType, DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder as _, ImageError, ImageReader, Limits};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::catch_panic::catch_decoder_panic;
use super::error::{ArtifactError, Result};
use super::pixels::Pixels;
use kinset_base::unit::bytes;

/// Sides longer than this are not pictures for training.
const LONGEST_SIDE: u32 = 65_535;
/// Bytes a decoder may ask for.
const LARGEST: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 (gray) or 3 (color).
    pub channels: usize,
}

/// A picture file whose header was read, and nothing else yet.
pub struct Opened<'a> {
    name: &'a str,
    header: Header,
    decoder: Decoder<'a>,
}

enum Decoder<'a> {
    /// On its own: through `image`, a header is read again before the pixels are, which small pictures feel.
    Jpeg(Box<JpegDecoder<ZCursor<&'a [u8]>>>),
    Other(Box<dyn ImageDecoder + 'a>),
}

/// Reads the header of a PNG, JPEG or WebP file. `name` is for messages.
///
/// # Errors
/// If the format is another one, the header is damaged, or a side is longer than 65,535 pixels.
pub fn open<'a>(name: &'a str, file: &'a [u8]) -> Result<Opened<'a>> {
    let opened = if file.starts_with(&[0xff, 0xd8, 0xff]) {
        catch_decoder_panic(|| jpeg(file).map_err(as_jpeg))
    } else {
        catch_decoder_panic(|| other(file))
    };
    let (header, decoder) = opened.map_err(|detail| ArtifactError::Picture { name: name.to_owned(), detail })?;
    Ok(Opened { name, header, decoder })
}

/// What the header of a PNG, JPEG or WebP file says. `name` is for messages.
pub fn probe(name: &str, file: &[u8]) -> Result<Header> {
    Ok(open(name, file)?.header)
}

/// Decodes a PNG, JPEG or WebP file to so many channels, 1 or 3. `name` is for messages.
pub fn decode(name: &str, file: &[u8], channels: usize) -> Result<Pixels> {
    Ok(with_channels(open(name, file)?.decode()?, channels))
}

impl Opened<'_> {
    pub fn header(&self) -> Header {
        self.header
    }

    /// Decodes the picture, in its own channels.
    pub fn decode(self) -> Result<Pixels> {
        let Self { name, header: Header { width, height, channels }, decoder } = self;
        let damaged = |detail| ArtifactError::Picture { name: name.to_owned(), detail };
        // As the decoder unpacks it: with transparency, or 16 bits.
        let size = match &decoder {
            Decoder::Jpeg(_) => (width * height * channels) as u64,
            Decoder::Other(decoder) => decoder.total_bytes(),
        };
        if size > LARGEST {
            return Err(damaged(format!("{width} × {height} pixels are more than fit into {}", bytes(LARGEST))));
        }
        let data = match decoder {
            Decoder::Jpeg(mut decoder) => catch_decoder_panic(|| decoder.decode().map_err(as_jpeg)),
            Decoder::Other(decoder) => catch_decoder_panic(|| {
                let picture = DynamicImage::from_decoder(decoder)?;
                let data = if channels == 1 { picture.into_luma8().into_raw() } else { picture.into_rgb8().into_raw() };
                Ok::<_, ImageError>(data)
            }),
        };
        Ok(Pixels::new(width, height, channels, data.map_err(damaged)?))
    }
}

fn jpeg(file: &[u8]) -> std::result::Result<(Header, Decoder<'_>), DecodeErrors> {
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(LONGEST_SIDE as usize)
        .set_max_height(LONGEST_SIDE as usize);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers()?;
    let (Some((width, height)), Some(color)) = (decoder.dimensions(), decoder.input_colorspace()) else {
        return Err("the header lacks size or color".into());
    };
    let (wanted, channels) = if color == ColorSpace::Luma { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    Ok((Header { width, height, channels }, Decoder::Jpeg(Box::new(decoder))))
}

/// The decoder's messages do not name the format.
fn as_jpeg(error: DecodeErrors) -> String {
    format!("invalid JPEG: {error}")
}

fn other(file: &[u8]) -> std::result::Result<(Header, Decoder<'_>), ImageError> {
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(LARGEST);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let ((width, height), color) = (decoder.dimensions(), decoder.color_type());
    let gray = matches!(color, ColorType::L8 | ColorType::L16 | ColorType::La8 | ColorType::La16);
    let header = Header { width: width as usize, height: height as usize, channels: if gray { 1 } else { 3 } };
    Ok((header, Decoder::Other(Box::new(decoder))))
}

/// A picture as PNG.
///
/// # Errors
/// If a side is 0 or longer than 2³² − 1.
pub fn encode_png(name: &str, picture: &Pixels) -> Result<Vec<u8>> {
    png(name, picture, CompressionType::Fast)
}

/// A picture for a page: PNG, or JPEG of this quality (1–100) where that is much smaller, and its MIME type.
///
/// # Errors
/// If a side is 0 or longer than 65,535.
pub fn encode_for_page(name: &str, picture: &Pixels, quality: u8) -> Result<(&'static str, Vec<u8>)> {
    let png = png(name, picture, CompressionType::Best)?;
    let (width, height, color) = shape(name, picture)?;
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, quality)
        .write_image(&picture.data, width, height, color)
        .map_err(|e| ArtifactError::Picture { name: name.to_owned(), detail: e.to_string() })?;
    // What costs little more is shown as it is.
    Ok(if png.len() * 4 <= jpeg.len() * 5 { ("image/png", png) } else { ("image/jpeg", jpeg) })
}

fn png(name: &str, picture: &Pixels, compression: CompressionType) -> Result<Vec<u8>> {
    let (width, height, color) = shape(name, picture)?;
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, compression, FilterType::Adaptive)
        .write_image(&picture.data, width, height, color)
        .map_err(|e| ArtifactError::Picture { name: name.to_owned(), detail: e.to_string() })?;
    Ok(file)
}

fn shape(name: &str, picture: &Pixels) -> Result<(u32, u32, ExtendedColorType)> {
    let side = |side: usize| u32::try_from(side).ok().filter(|side| (1..=LONGEST_SIDE).contains(side));
    let (Some(width), Some(height)) = (side(picture.width), side(picture.height)) else {
        let detail = format!("{} × {} pixels cannot be encoded", picture.width, picture.height);
        return Err(ArtifactError::Picture { name: name.to_owned(), detail });
    };
    Ok((width, height, if picture.channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 }))
}

/// A picture in so many channels: gray is repeated, color is weighted by ITU-R 601 in Pillow's integers.
pub fn with_channels(picture: Pixels, channels: usize) -> Pixels {
    let Pixels { width, height, channels: found, data } = picture;
    let data = match (found, channels) {
        (1, 3) => data.iter().flat_map(|gray| [*gray; 3]).collect(),
        (3, 1) => {
            let (colors, _) = data.as_chunks::<3>();
            let gray =
                |c: &[u8; 3]| (u32::from(c[0]) * 19_595 + u32::from(c[1]) * 38_470 + u32::from(c[2]) * 7_471 + 0x8000) >> 16;
            colors.iter().map(|color| gray(color) as u8).collect()
        }
        _ => return Pixels::new(width, height, found, data),
    };
    Pixels::new(width, height, channels, data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pictures_come_back_as_they_were() {
        for channels in [1, 3] {
            let picture = Pixels::new(3, 2, channels, (0..6 * channels as u8).map(|i| i * 11).collect());
            let file = encode_png("x", &picture).unwrap();
            assert_eq!(probe("x", &file).unwrap(), Header { width: 3, height: 2, channels });
            assert_eq!(decode("x", &file, channels).unwrap(), picture);
            assert_eq!(file, encode_png("x", &picture).unwrap());
        }
    }

    #[test]
    fn a_page_gets_flat_pictures_as_they_are_and_noise_as_jpeg() {
        let flat = Pixels::new(64, 64, 1, vec![7; 4096]);
        let (kind, bytes) = encode_for_page("x", &flat, 80).unwrap();
        assert_eq!((kind, decode("x", &bytes, 1).unwrap()), ("image/png", flat));
        let mut rng = kinset_base::seed::Seed::new(1).rng();
        let noise = Pixels::new(64, 64, 3, (0..12_288).map(|_| rng.bits32() as u8).collect());
        let (kind, fine) = encode_for_page("x", &noise, 80).unwrap();
        assert_eq!(kind, "image/jpeg");
        assert!(encode_for_page("x", &noise, 30).unwrap().1.len() < fine.len());
        assert_eq!(probe("x", &fine).unwrap(), Header { width: 64, height: 64, channels: 3 });
    }

    #[test]
    fn gray_weights_are_those_of_pillow() {
        // Image.new("RGB", (1, 1), c).convert("L") for these colors gives 76, 150, 29, 255, 0, 123.
        let colors = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 200, 100, 40];
        let gray = with_channels(Pixels::new(6, 1, 3, colors.to_vec()), 1);
        assert_eq!(gray.data, [76, 150, 29, 255, 0, 123]);
        assert_eq!(with_channels(Pixels::new(2, 1, 1, vec![5, 9]), 3).data, [5, 5, 5, 9, 9, 9]);
    }

    #[test]
    fn what_is_no_picture_is_refused_by_name() {
        let text = decode("cat.gif", b"GIF89a and more", 3).unwrap_err().to_string();
        assert!(text.contains("`cat.gif`"), "{text}");
        assert!(probe("empty", &[]).is_err());
        assert!(encode_png("flat", &Pixels::new(0, 4, 1, vec![])).is_err());
    }

    proptest! {
        #[test]
        fn changed_bytes_never_panic(place in 0_usize..120, byte: u8, cut in 0_usize..120) {
            let picture = Pixels::new(5, 4, 3, (0..60).map(|i| i * 4).collect());
            let mut file = encode_png("x", &picture).unwrap();
            let length = file.len();
            file[place % length] = byte;
            file.truncate(if cut % 2 == 0 { length } else { cut % length });
            let _ = decode("x", &file, 3);
        }
    }
}
