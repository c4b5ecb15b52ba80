//! Decoding and encoding of picture files: PNG, JPEG, WebP, GIF, BMP; TIFF by `tiff_page`.
//!
//! A picture is decoded as it is shown: turned as its EXIF data say, transparency laid over white, 16 bits rounded to 8, unless whoever
//! asks has another [`Look`]. Color becomes gray by the weights of ITU-R 601 in Pillow's integers. Everybody who looks at pixels goes
//! through here, so training, reports and predictions see the same.
//!
//! Of an animation the first frame is the picture, of a file of pages the first page. Palettes are color, but those of BMP, which has no
//! other gray, may be gray.
//!
//! Microscopes and medical cameras store 8 or 12 bits in files of 16, which would look black. A picture with no value above 255 or
//! 4,095 is therefore taken to have 8 or 12 bits; [`Opened::decode_with_bits`] tells which, for whoever reports it.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::gif::GifDecoder;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ExtendedColorType, ImageBuffer, Luma, Rgb};
use image::{ImageDecoder, ImageEncoder as _, ImageError, ImageReader, Limits};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::catch_panic::catch_decoder_panic;
use super::decode_memory;
use super::error::{ArtifactError, Result};
use super::picture_facts::{FORMATS, ImageFormat, PictureFacts};
use super::pixels::Pixels;
use super::tiff_page;
use kinset_base::file_kind::{file_kind, with_remedy};
use kinset_base::unit::bytes;

/// Sides longer than this are not pictures for training.
const LONGEST_SIDE: u32 = 65_535;
/// Bytes a decoder may ask for.
const LARGEST: u64 = 1 << 30;

/// How a picture file becomes a picture, where its source says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Turned and mirrored as its EXIF data say.
    pub turned: bool,
    /// What lies under transparency: red, green, blue.
    pub background: [u8; 3],
}

impl Default for Look {
    fn default() -> Self {
        Self { turned: true, background: [255; 3] }
    }
}

impl Look {
    /// It makes another picture of a file than the usual look does.
    pub fn changes(&self, facts: &PictureFacts) -> bool {
        (!self.turned && facts.is_turned()) || (self.background != [255; 3] && facts.alpha)
    }
}

/// A picture's shape as it is shown, after it was turned.
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
    /// As it lies in the file.
    stored: Header,
    facts: PictureFacts,
    decoder: Decoder<'a>,
}

enum Decoder<'a> {
    /// On its own: through `image`, a header is read again before the pixels are, which small pictures feel.
    Jpeg(Box<JpegDecoder<ZCursor<&'a [u8]>>>),
    Tiff(Box<tiff_page::Page<'a>>),
    Other(Box<dyn ImageDecoder + 'a>),
}

/// Reads the header of a picture file. `name` is for messages.
///
/// # Errors
/// If the format is another one, the header is damaged, or a side is longer than 65,535 pixels.
pub fn open<'a>(name: &'a str, file: &'a [u8]) -> Result<Opened<'a>> {
    let damaged = |detail| ArtifactError::Picture { name: name.to_owned(), detail };
    let Some(facts) = PictureFacts::of(file) else {
        let what = file_kind(file).map_or_else(String::new, |kind| format!("; it is {}", with_remedy(kind)));
        return Err(damaged(format!("it is not a {FORMATS} file{what}")));
    };
    let opened = match facts.format {
        ImageFormat::Jpeg => catch_decoder_panic(|| jpeg(file).map_err(as_jpeg)),
        ImageFormat::Tiff => catch_decoder_panic(|| tiff(file)),
        ImageFormat::Bmp => catch_decoder_panic(|| bmp(file)),
        ImageFormat::Gif => catch_decoder_panic(|| gif(file)),
        _ => catch_decoder_panic(|| other(file)),
    };
    let (stored, decoder) = opened.map_err(damaged)?;
    if stored.width == 0 || stored.height == 0 {
        return Err(damaged(format!("it has {} × {} pixels", stored.width, stored.height)));
    }
    Ok(Opened { name, stored, facts, decoder })
}

/// What the header of a picture file says. `name` is for messages.
pub fn probe(name: &str, file: &[u8]) -> Result<Header> {
    Ok(open(name, file)?.header())
}

/// Decodes a picture file to so many channels, 1 or 3. `name` is for messages.
pub fn decode(name: &str, file: &[u8], channels: usize) -> Result<Pixels> {
    Ok(with_channels(open(name, file)?.decode()?, channels))
}

impl Opened<'_> {
    pub fn header(&self) -> Header {
        self.facts.as_shown(self.stored)
    }

    pub fn facts(&self) -> PictureFacts {
        self.facts
    }

    /// Decodes the picture, in its own channels.
    pub fn decode(self) -> Result<Pixels> {
        self.decode_as(Look::default())
    }

    /// Decodes the picture as it is to look, in its own channels; what was gray is in color over a colored background.
    pub fn decode_as(self, look: Look) -> Result<Pixels> {
        Ok(self.decode_with_bits(look)?.0)
    }

    /// Decodes the picture, in its own channels, and tells of how many bits its values were taken to be: 8, 12 or 16.
    pub fn decode_with_bits(self, look: Look) -> Result<(Pixels, u8)> {
        self.decode_held(look).map(|(pixels, bits, _)| (pixels, bits))
    }

    /// As [`Opened::decode_with_bits`], with the memory that it takes while somebody looks at it.
    pub(super) fn decode_held(self, look: Look) -> Result<(Pixels, u8, decode_memory::Share)> {
        let Self { name, stored: Header { width, height, channels }, facts, decoder } = self;
        let damaged = |detail| ArtifactError::Picture { name: name.to_owned(), detail };
        // As the decoder unpacks it: with transparency, or 16 bits.
        let size = match &decoder {
            Decoder::Jpeg(_) => (width * height * channels) as u64,
            Decoder::Tiff(page) => page.bytes(),
            Decoder::Other(decoder) => decoder.total_bytes(),
        };
        if size > LARGEST {
            return Err(damaged(format!("{width} × {height} pixels are more than fit into {}", bytes(LARGEST))));
        }
        // What is converted from 16 bits is there twice, and a frame may lie on its canvas.
        let converted = if facts.deep || facts.is_turned() || facts.format == ImageFormat::Gif {
            (width * height * channels) as u64
        } else {
            0
        };
        let share = decode_memory::share(size + converted);
        let (mut data, bits) = match decoder {
            Decoder::Jpeg(mut decoder) => catch_decoder_panic(|| Ok::<_, String>((decoder.decode().map_err(as_jpeg)?, 8))),
            Decoder::Tiff(page) => catch_decoder_panic(|| Ok::<_, String>(eight_bits(page.decode()?, look.background))),
            Decoder::Other(decoder) => {
                catch_decoder_panic(|| Ok::<_, ImageError>(eight_bits(DynamicImage::from_decoder(decoder)?, look.background)))
            }
        }
        .map_err(damaged)?;
        let found = data.len() / (width * height).max(1);
        let channels = if facts.format == ImageFormat::Bmp && channels == 1 && found == 3 {
            // A palette of grays comes as color.
            data = data.into_iter().step_by(3).collect();
            1
        } else {
            found
        };
        let orientation = if look.turned { facts.orientation } else { Orientation::NoTransforms };
        Ok((turned(Pixels::new(width, height, channels, data), orientation), bits, share))
    }
}

/// The values of a picture, gray or RGB, over a background where it is transparent; and of how many bits they were taken to be.
fn eight_bits(picture: DynamicImage, background: [u8; 3]) -> (Vec<u8>, u8) {
    let colored = background != [background[0]; 3];
    match picture {
        DynamicImage::ImageLumaA8(_) if colored => eight_bits(picture.into_rgba8().into(), background),
        DynamicImage::ImageLumaA16(_) if colored => eight_bits(picture.into_rgba16().into(), background),
        DynamicImage::ImageLuma8(picture) => (picture.into_raw(), 8),
        DynamicImage::ImageRgb8(picture) => (picture.into_raw(), 8),
        DynamicImage::ImageLumaA8(picture) => (over::<2>(picture.into_raw(), background), 8),
        DynamicImage::ImageRgba8(picture) => (over::<4>(picture.into_raw(), background), 8),
        DynamicImage::ImageLuma16(picture) => rounded::<1>(&picture.into_raw(), 1),
        DynamicImage::ImageRgb16(picture) => rounded::<3>(&picture.into_raw(), 3),
        DynamicImage::ImageLumaA16(picture) => {
            let (data, bits) = rounded::<2>(&picture.into_raw(), 1);
            (over::<2>(data, background), bits)
        }
        DynamicImage::ImageRgba16(picture) => {
            let (data, bits) = rounded::<4>(&picture.into_raw(), 3);
            (over::<4>(data, background), bits)
        }
        // No format that is read decodes to floats.
        other => (other.into_rgb8().into_raw(), 8),
    }
}

/// Values of 16 bits in 8. Of the C channels of a pixel the first `colors` are colors; these may use fewer bits than they have.
fn rounded<const C: usize>(values: &[u16], colors: usize) -> (Vec<u8>, u8) {
    let (pixels, _) = values.as_chunks::<C>();
    let (top, bits) = match pixels.iter().flat_map(|pixel| &pixel[..colors]).max() {
        Some(0..=0xff) => (0xff, 8),
        Some(0x100..=0xfff) => (0xfff, 12),
        _ => (0xffff, 16),
    };
    let round = |value: u16, top: u32| ((u32::from(value) * 255 + top / 2) / top) as u8;
    let of = |(channel, value): (usize, &u16)| round(*value, if channel < colors { top } else { 0xffff });
    (pixels.iter().flat_map(|pixel| pixel.iter().enumerate().map(of)).collect(), bits)
}

/// Pixels of C channels, of which the last is opacity, over a background. White is the usual one: transparent drawings are made for
/// paper, and what lies under transparency is often black.
fn over<const C: usize>(mut data: Vec<u8>, background: [u8; 3]) -> Vec<u8> {
    let mut to = 0;
    for from in (0..data.len()).step_by(C) {
        let opacity = u32::from(data[from + C - 1]);
        for channel in 0..C - 1 {
            let color = u32::from(data[from + channel]);
            data[to] = ((color * opacity + u32::from(background[channel]) * (255 - opacity) + 127) / 255) as u8;
            to += 1;
        }
    }
    data.truncate(to);
    data
}

/// A picture, turned and mirrored.
fn turned(picture: Pixels, orientation: Orientation) -> Pixels {
    if orientation == Orientation::NoTransforms {
        return picture;
    }
    let Pixels { width, height, channels, data } = picture;
    let (across, down) = (width as u32, height as u32);
    // A buffer always has room for the picture it holds.
    let buffer = if channels == 1 {
        ImageBuffer::<Luma<u8>, _>::from_raw(across, down, data).map(DynamicImage::ImageLuma8)
    } else {
        ImageBuffer::<Rgb<u8>, _>::from_raw(across, down, data).map(DynamicImage::ImageRgb8)
    };
    let Some(mut buffer) = buffer else { unreachable!("`Pixels` holds as many values as its sides say") };
    buffer.apply_orientation(orientation);
    Pixels::new(buffer.width() as usize, buffer.height() as usize, channels, buffer.into_bytes())
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

fn tiff(file: &[u8]) -> std::result::Result<(Header, Decoder<'_>), String> {
    let page = tiff_page::open(file, LARGEST)?;
    if page.width.max(page.height) > LONGEST_SIDE {
        return Err(format!("{} × {} pixels; a side has at most {LONGEST_SIDE}", page.width, page.height));
    }
    let channels = if page.is_gray() { 1 } else { 3 };
    Ok((Header { width: page.width as usize, height: page.height as usize, channels }, Decoder::Tiff(Box::new(page))))
}

fn bmp(file: &[u8]) -> std::result::Result<(Header, Decoder<'_>), ImageError> {
    let mut decoder = BmpDecoder::new(Cursor::new(file))?;
    decoder.set_limits(limits())?;
    let (width, height) = decoder.dimensions();
    let gray =
        decoder.get_palette().is_some_and(|colors| colors.iter().all(|&[red, green, blue]| red == green && green == blue));
    let header = Header { width: width as usize, height: height as usize, channels: if gray { 1 } else { 3 } };
    Ok((header, Decoder::Other(Box::new(decoder))))
}

fn gif(file: &[u8]) -> std::result::Result<(Header, Decoder<'_>), ImageError> {
    let mut decoder = GifDecoder::new(Cursor::new(file))?;
    let (width, height) = decoder.dimensions();
    // A frame may be larger than the canvas that it is cut to, but not by much.
    let most = (1 << 20) + (u64::from(width) * u64::from(height)).saturating_mul(16);
    let mut limits = limits();
    limits.max_alloc = Some(most.min(LARGEST));
    decoder.set_limits(limits)?;
    Ok((Header { width: width as usize, height: height as usize, channels: 3 }, Decoder::Other(Box::new(decoder))))
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(LARGEST);
    limits
}

fn other(file: &[u8]) -> std::result::Result<(Header, Decoder<'_>), ImageError> {
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format()?;
    reader.limits(limits());
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

/// A picture as JPEG of this quality, 1–100.
///
/// # Errors
/// If a side is 0 or longer than 65,535.
pub fn encode_jpeg(name: &str, picture: &Pixels, quality: u8) -> Result<Vec<u8>> {
    let (width, height, color) = shape(name, picture)?;
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, quality)
        .write_image(&picture.data, width, height, color)
        .map_err(|e| ArtifactError::Picture { name: name.to_owned(), detail: e.to_string() })?;
    Ok(jpeg)
}

/// A picture for a page: PNG, or JPEG of this quality (1–100) where that is much smaller, and its MIME type.
///
/// # Errors
/// If a side is 0 or longer than 65,535.
pub fn encode_for_page(name: &str, picture: &Pixels, quality: u8) -> Result<(&'static str, Vec<u8>)> {
    let png = png(name, picture, CompressionType::Best)?;
    let jpeg = encode_jpeg(name, picture, quality)?;
    // What costs little more is shown as it is.
    Ok(if png.len() * 4 <= jpeg.len() * 5 { ("image/png", png) } else { ("image/jpeg", jpeg) })
}

fn png(name: &str, picture: &Pixels, compression: CompressionType) -> Result<Vec<u8>> {
    let (width, height, color) = shape(name, picture)?;
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, compression, FilterType::Adaptive)
        .write_image(&picture.data, width, height, color)
        .map_err(|e| ArtifactError::Picture { name: name.to_owned(), detail: e.to_string() })?;
    // Thousands of small ones wait for their row group.
    file.shrink_to_fit();
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

    use super::super::picture_facts::tests::{exif, jpeg_with, png_with};
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

    /// 3 × 2 pixels, each of another value.
    fn six(channels: usize) -> Pixels {
        Pixels::new(3, 2, channels, (0..6).flat_map(|i| (0..channels).map(move |c| i * 40 + c as u8)).collect())
    }

    #[test]
    fn a_picture_is_shown_as_its_exif_data_say() {
        // Of the file's pixels 0 1 2 / 3 4 5 what is seen, by the table of the EXIF specification.
        let seen: [(usize, [u8; 6]); 8] = [
            (3, [0, 1, 2, 3, 4, 5]),
            (3, [2, 1, 0, 5, 4, 3]),
            (3, [5, 4, 3, 2, 1, 0]),
            (3, [3, 4, 5, 0, 1, 2]),
            (2, [0, 3, 1, 4, 2, 5]),
            (2, [3, 0, 4, 1, 5, 2]),
            (2, [5, 2, 4, 1, 3, 0]),
            (2, [2, 5, 1, 4, 0, 3]),
        ];
        for (orientation, (width, order)) in (1..).zip(seen) {
            let exif = exif(orientation, orientation % 2 == 0);
            for channels in [1, 3] {
                let wanted = order.iter().flat_map(|i| (0..channels).map(move |c| i * 40 + c as u8)).collect();
                let wanted = Pixels::new(width, 6 / width, channels, wanted);
                let png = png_with(&encode_png("x", &six(channels)).unwrap(), 33, *b"eXIf", &exif);
                let header = Header { width, height: 6 / width, channels };
                assert_eq!((probe("x", &png).unwrap(), decode("x", &png, channels).unwrap()), (header, wanted));
            }
            // Blocks of one color each, which a JPEG keeps.
            let blocks: Vec<u8> = (0..16).flat_map(|y| (0..24).map(move |x| (y / 8 * 3 + x / 8) as u8 * 40)).collect();
            let mut jpeg = Vec::new();
            JpegEncoder::new_with_quality(&mut jpeg, 100).write_image(&blocks, 24, 16, ExtendedColorType::L8).unwrap();
            let picture = decode("x", &jpeg_with(&jpeg, &exif), 1).unwrap();
            assert_eq!((picture.width, picture.height), (8 * width, 48 / width));
            for (place, value) in order.iter().enumerate() {
                let (x, y) = (place % width * 8 + 4, place / width * 8 + 4);
                assert!(picture.data[y * picture.width + x].abs_diff(value * 40) <= 1, "{orientation}: {place}");
            }
        }
    }

    fn png_of<T>(values: &[T], color: ExtendedColorType) -> Vec<u8>
    where
        T: Copy + Into<u16>,
    {
        // Native order, as the encoder wants it.
        let deep = |value: &T| -> Vec<u8> {
            let value: u16 = (*value).into();
            if color.bits_per_pixel() / u16::from(color.channel_count()) == 16 {
                value.to_ne_bytes().into()
            } else {
                vec![value as u8]
            }
        };
        let bytes: Vec<u8> = values.iter().flat_map(deep).collect();
        let mut file = Vec::new();
        let width = (values.len() / usize::from(color.channel_count())) as u32;
        PngEncoder::new(&mut file).write_image(&bytes, width, 1, color).unwrap();
        file
    }

    #[test]
    fn transparency_is_laid_over_white() {
        // Black line art: nothing but its opacity tells line from paper.
        let file = png_of(&[0_u8, 255, 0, 0, 0, 100, 200, 128], ExtendedColorType::La8);
        assert_eq!(decode("x", &file, 1).unwrap().data, [0, 255, 155, 227]);
        assert!(PictureFacts::of(&file).unwrap().alpha);
        let file = png_of(&[0_u8, 0, 0, 0, 10, 20, 30, 255, 0, 0, 200, 51], ExtendedColorType::Rgba8);
        assert_eq!(decode("x", &file, 3).unwrap().data, [255, 255, 255, 10, 20, 30, 204, 204, 244]);
        let file = png_of(&[0_u16, 0, 0, 65_535, 65_535, 32_768], ExtendedColorType::La16);
        assert_eq!(decode("x", &file, 1).unwrap().data, [255, 0, 255]);
        let over = |background| open("x", &file).unwrap().decode_as(Look { background, ..Look::default() }).unwrap();
        assert_eq!(over([0; 3]), Pixels::new(3, 1, 1, vec![0, 0, 128]));
        assert_eq!(over([9, 0, 255]), Pixels::new(3, 1, 3, vec![9, 0, 255, 0, 0, 0, 132, 128, 255]), "color under gray");
        // A gray that is declared transparent.
        let file = png_with(&png_of(&[0_u8, 7, 200], ExtendedColorType::L8), 33, *b"tRNS", &[0, 7]);
        assert_eq!(decode("x", &file, 1).unwrap().data, [0, 255, 200]);
        assert!(PictureFacts::of(&file).unwrap().alpha);
        let mut webp = Vec::new();
        let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
        encoder.write_image(&[9, 9, 9, 0, 9, 8, 7, 255], 2, 1, ExtendedColorType::Rgba8).unwrap();
        assert_eq!(decode("x", &webp, 3).unwrap().data, [255, 255, 255, 9, 8, 7]);
        assert!(PictureFacts::of(&webp).unwrap().alpha);
    }

    #[test]
    fn sixteen_bits_are_rounded_and_twelve_in_sixteen_are_not_black() {
        let read = |values: &[u16], color| {
            let file = png_of(values, color);
            assert!(PictureFacts::of(&file).unwrap().deep);
            let (picture, bits) = open("x", &file).unwrap().decode_with_bits(Look::default()).unwrap();
            (picture.data, bits)
        };
        assert_eq!(read(&[0, 128, 129, 257, 32_768, 65_535], ExtendedColorType::L16), (vec![0, 0, 1, 1, 128, 255], 16));
        assert_eq!(read(&[0, 8, 9, 2048, 4095], ExtendedColorType::L16), (vec![0, 0, 1, 128, 255], 12));
        assert_eq!(read(&[0, 4096], ExtendedColorType::L16), (vec![0, 16], 16));
        assert_eq!(read(&[0, 7, 255], ExtendedColorType::L16), (vec![0, 7, 255], 8));
        assert_eq!(read(&[0, 0], ExtendedColorType::L16), (vec![0, 0], 8));
        assert_eq!(read(&[0, 4095, 2048], ExtendedColorType::Rgb16), (vec![0, 255, 128], 12));
        // Opacity has all its bits, whatever the colors use.
        assert_eq!(read(&[4095, 65_535, 0, 65_535, 0, 0], ExtendedColorType::La16), (vec![255, 0, 255], 12));
    }

    #[test]
    fn what_a_header_says_of_transparency_is_what_decoders_find() {
        let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/dataset");
        let mut transparent = 0;
        for path in kinset_base::fs::list(&golden).unwrap() {
            let bytes = kinset_base::fs::read(&path).unwrap();
            let Some(facts) = PictureFacts::of(&bytes) else { continue };
            let opened = open("x", &bytes).unwrap();
            let found = match opened.decoder {
                // Its decoder always gives opacity.
                Decoder::Other(decoder) if facts.format == ImageFormat::Gif => {
                    DynamicImage::from_decoder(decoder).unwrap().into_rgba8().pixels().any(|pixel| pixel[3] < 255)
                }
                Decoder::Other(decoder) => decoder.color_type().has_alpha(),
                Decoder::Tiff(page) => page.decode().unwrap().color().has_alpha(),
                Decoder::Jpeg(_) => continue,
            };
            assert_eq!(facts.alpha, found, "{}", path.display());
            transparent += usize::from(facts.alpha);
        }
        assert!(transparent >= 8, "{transparent}");
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
        let text = decode("cat.jpg", b"\0\0\0\x18ftypheic and more", 3).unwrap_err().to_string();
        assert!(text.contains("`cat.jpg`") && text.contains("it is a HEIC picture; convert them, `heif-convert"), "{text}");
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
