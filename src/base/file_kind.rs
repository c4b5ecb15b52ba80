//! The kind of a file by its first bytes: for messages about files that are not what their name says.

use std::io::Read;
use std::path::Path;

use crate::fs;

/// Bytes of a beginning that tell all that is told here.
pub const BEGINNING: usize = 512;

/// What files hold that are no data before they are unpacked.
const PACKED: [&str; 8] = [
    "a zip archive",
    "a gzip file",
    "a zstd file",
    "a bzip2 file",
    "an xz file",
    "an LZ4 file",
    "a 7z archive",
    "a RAR archive",
];

/// A web page where data should be, a pointer to a file that was not downloaded, a picture of a format that is not read. `None` if
/// nothing is known of such a beginning.
pub fn file_kind(begin: &[u8]) -> Option<&'static str> {
    let text = begin.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let starts = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if starts(b"<!doctype html") || starts(b"<html") || starts(b"<head") {
        return Some("an HTML page: an error or login page may have been saved in the file's place");
    }
    if starts(b"version https://git-lfs") {
        return Some("a pointer of Git LFS: `git lfs pull` downloads the file itself");
    }
    if starts(b"<svg") || (starts(b"<?xml") && text.windows(4).any(|word| word == b"<svg")) {
        return Some("an SVG drawing");
    }
    if starts(b"<?xml") {
        return Some("an XML document");
    }
    if begin.get(257..262) == Some(b"ustar") {
        return Some("a tar archive");
    }
    Some(match begin {
        [b'G', b'I', b'F', b'8', ..] => "a GIF picture",
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => "a BMP picture",
        [b'I', b'I', 42, 0, _, _, _, _, b'C', b'R', ..]
        | [b'I', b'I', b'R' | b'U', ..]
        | [b'F', b'U', b'J', b'I', b'F', b'I', b'L', b'M', ..] => RAW,
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF picture",
        [b'I', b'I', 43, 0, ..] | [b'M', b'M', 0, 43, ..] => "a TIFF picture of the form for more than 4 GiB (BigTIFF)",
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => "an AVIF picture",
        [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', b'e' | b'i', ..] => "a HEIC picture",
        [0, 0, 0, 12, b'J', b'X', b'L', ..] | [0xff, 0x0a, ..] => "a JPEG XL picture",
        [0, 0, 0, 12, b'j', b'P', ..] => "a JPEG 2000 picture",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop file",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [b'P', b'K', 3, 4, ..] => zip_kind(begin),
        [0x1f, 0x8b, ..] => "a gzip file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd file",
        [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => "a bzip2 file",
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => "an xz file",
        [4, 0x22, 0x4d, 0x18, ..] => "an LZ4 file",
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => "a 7z archive",
        [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => "a RAR archive",
        [b'P', b'A', b'R', b'1', ..] => "a Parquet table",
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => "an Arrow table",
        [0xff, 0xff, 0xff, 0xff, length, _, 0, 0, ..] if *length != 0xff => "an Arrow stream",
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy array (.npy)",
        [0x80, 2..=5, ..] => "a Python pickle",
        [b'S', b'Q', b'L', b'i', b't', b'e', b' ', ..] => "an SQLite database",
        [0x89, b'P', b'N', b'G', ..] => "a PNG picture",
        [0xff, 0xd8, 0xff, ..] => "a JPEG picture",
        [_, _, _, _, _, _, _, 0, b'{', ..] => "a safetensors file",
        _ if is_utf16(begin) => "UTF-16 text: save it as UTF-8",
        [b'{' | b'[', ..] => "JSON or other text",
        _ => return None,
    })
}

/// The kind of a file that is there and can be read.
pub fn kind_of(path: &Path) -> Option<&'static str> {
    let mut begin = Vec::new();
    fs::open(path).ok()?.take(BEGINNING as u64).read_to_end(&mut begin).ok()?;
    file_kind(&begin)
}

/// A zip archive by the name of its first member.
fn zip_kind(begin: &[u8]) -> &'static str {
    let length = begin.get(26..28).map_or(0, |two| usize::from(u16::from_le_bytes([two[0], two[1]])));
    let name = begin.get(30..).map_or(&[][..], |rest| &rest[..length.min(rest.len())]);
    match name {
        _ if name.ends_with(b".npy") => "an archive of NumPy arrays (.npz)",
        _ if name.ends_with(b"data.pkl") => "what PyTorch's `torch.save` writes",
        _ if name == b"[Content_Types].xml" => "an Office document",
        _ => "a zip archive",
    }
}

/// What makes pictures of a kind that is not read ones that are.
const CONVERT: [(&str, &str); 7] = [
    ("a HEIC picture", "convert them, `heif-convert IN.heic OUT.jpg` (Debian's package `libheif-examples`)"),
    ("an AVIF picture", "convert them, `avifdec IN.avif OUT.png` (Debian's package `libavif-bin`)"),
    ("a JPEG XL picture", "convert them, `djxl IN.jxl OUT.png` (Debian's package `libjxl-tools`)"),
    ("a JPEG 2000 picture", "convert them, `opj_decompress -i IN.jp2 -o OUT.png` (Debian's package `libopenjp2-tools`)"),
    ("an SVG drawing", "draw them, `rsvg-convert -w 512 IN.svg -o OUT.png` (Debian's package `librsvg2-bin`)"),
    ("a Photoshop file", "convert them, `magick IN.psd[0] OUT.png` (ImageMagick)"),
    (RAW, "develop them, `darktable-cli IN OUT.jpg`, or take the JPEGs that the camera wrote beside them"),
];

/// What a camera's sensor measured: there are many formats, and most look like TIFF.
pub const RAW: &str = "a camera's raw file";

/// The kind that a file's ending, in small letters and without its dot, promises: of pictures that are not read.
pub fn unread_picture(ending: &str) -> Option<&'static str> {
    Some(match ending {
        "heic" | "heif" | "hif" => "a HEIC picture",
        "avif" => "an AVIF picture",
        "jxl" => "a JPEG XL picture",
        "jp2" | "j2k" | "jpf" | "jpx" => "a JPEG 2000 picture",
        "svg" | "svgz" => "an SVG drawing",
        "psd" | "psb" => "a Photoshop file",
        "arw" | "cr2" | "cr3" | "crw" | "dng" | "erf" | "iiq" | "kdc" | "mrw" | "nef" | "nrw" | "orf" | "pef" | "raf"
        | "rw2" | "sr2" | "srw" | "x3f" => RAW,
        "exr" | "hdr" | "ico" | "icns" | "pbm" | "pgm" | "ppm" | "pnm" | "pcx" | "qoi" | "tga" => "a picture of another format",
        _ => return None,
    })
}

/// What to do with a file of this kind first, if it is known.
pub fn remedy(kind: &str) -> Option<&'static str> {
    if let Some((_, remedy)) = CONVERT.iter().find(|(known, _)| *known == kind) {
        return Some(remedy);
    }
    match kind {
        "a picture of another format" => Some("convert them to PNG, `magick IN OUT.png` (ImageMagick)"),
        "an archive of NumPy arrays (.npz)" => {
            Some("save one array of it: `numpy.save(\"x.npy\", numpy.load(\"x.npz\")[\"NAME\"])`")
        }
        _ if PACKED.contains(&kind) => Some("unpack it and name what comes out"),
        _ => None,
    }
}

/// The kind, and what to do with such a file if that is known.
pub fn with_remedy(kind: &str) -> String {
    remedy(kind).map_or_else(|| kind.to_owned(), |remedy| format!("{kind}; {remedy}"))
}

/// True for UTF-16: by its byte order mark, or because every other byte of a beginning is zero and no other is, as in text of
/// Latin letters.
pub fn is_utf16(begin: &[u8]) -> bool {
    if begin.starts_with(&[0xff, 0xfe]) || begin.starts_with(&[0xfe, 0xff]) {
        return true;
    }
    let pairs = begin[..begin.len().min(BEGINNING)].as_chunks::<2>().0;
    let zeros = |place: usize| pairs.iter().filter(|pair| pair[place] == 0).count();
    // Three letters at least, so that small numbers are no text; some may be no Latin ones.
    let letters = |zero: usize| zeros(1 - zero) == 0 && pairs.len() >= 3 && zeros(zero) * 10 >= pairs.len() * 8;
    letters(0) || letters(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_pointers_and_other_formats_are_told() {
        let kind = |begin: &[u8]| file_kind(begin).unwrap_or("nothing known");
        assert!(kind(b"\n<!DOCTYPE html>\n<html>").starts_with("an HTML page"));
        assert!(kind(b"\xef\xbb\xbf<html lang=en>").starts_with("an HTML page"));
        assert!(kind(b"version https://git-lfs.github.com/spec/v1\noid").contains("git lfs pull"));
        assert_eq!(kind(b"<?xml version=\"1.0\"?><svg>"), "an SVG drawing");
        assert_eq!(kind(b"\0\0\0\x18ftypheic"), "a HEIC picture");
        assert_eq!(kind(b"GIF89a"), "a GIF picture");
        assert_eq!([kind(b"II\x2a\0\x10\0\0\0CR"), kind(b"II\x2a\0\x10\0\0\0XX")], [RAW, "a TIFF picture"]);
        for (ending, told) in [("heic", "heif-convert"), ("nef", "darktable"), ("svg", "rsvg-convert"), ("qoi", "magick")] {
            assert!(remedy(unread_picture(ending).unwrap()).unwrap().contains(told), "{ending}");
        }
        assert_eq!(unread_picture("tif"), None);
        let mut tar = vec![b'a'; 300];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(kind(&tar), "a tar archive");
        assert_eq!(kind(b"\x40\x01\0\0\0\0\0\0{\"a\""), "a safetensors file");
        for begin in [&b""[..], b"\0\0\0\0", b"<p", b"RIFF\0\0\0\0WEBP"] {
            assert_eq!(file_kind(begin), None, "{begin:?}");
        }
    }

    #[test]
    fn a_zip_archive_is_told_by_its_first_member() {
        let zip = |name: &[u8]| {
            let mut begin = b"PK\x03\x04".to_vec();
            begin.resize(26, 0);
            begin.extend((name.len() as u16).to_le_bytes());
            begin.extend([0, 0]);
            begin.extend(name);
            begin.extend(b"contents");
            file_kind(&begin).unwrap()
        };
        assert_eq!(zip(b"arr_0.npy"), "an archive of NumPy arrays (.npz)");
        assert!(remedy(zip(b"arr_0.npy")).unwrap().contains("numpy.load"));
        assert_eq!(zip(b"archive/data.pkl"), "what PyTorch's `torch.save` writes");
        assert_eq!(zip(b"cat/1.png"), "a zip archive");
        assert_eq!(remedy(zip(b"cat/1.png")), Some("unpack it and name what comes out"));
        assert_eq!(file_kind(b"PK\x03\x04"), Some("a zip archive"));
        assert_eq!(remedy("a PNG picture"), None);
    }

    #[test]
    fn utf_16_is_told_with_and_without_its_mark() {
        let wide = |text: &str, big: bool| -> Vec<u8> {
            text.encode_utf16().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
        };
        for big in [false, true] {
            for text in ["name,0,1\na,0.5,1\n", "\u{feff}写真", "Grüße €,1,2,3,4,5"] {
                assert!(is_utf16(&wide(text, big)), "{text:?}, {big}");
                assert_eq!(file_kind(&wide(text, big)), Some("UTF-16 text: save it as UTF-8"));
            }
        }
        for other in [&b"name,0,1"[..], b"", b"a\0", b"\0\0\0\0\0\0\0\0", b"a\0\0\0b\0\0\0", b"a\0b,c,d,e"] {
            assert!(!is_utf16(other), "{other:?}");
        }
    }
}
