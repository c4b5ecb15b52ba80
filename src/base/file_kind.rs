//! The kind of a file by its first bytes: for messages about files that are not what their name says.

/// A web page where data should be, a pointer to a file that was not downloaded, a picture of a format that is not read. `None` if
/// nothing is known of such a beginning.
pub fn file_kind(begin: &[u8]) -> Option<&'static str> {
    let text = begin.trim_ascii_start();
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let starts = |word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    if starts(b"<!doctype html") || starts(b"<html") || starts(b"<head") {
        return Some("an HTML page: what was downloaded is a web page, not the file");
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
    Some(match begin {
        [b'G', b'I', b'F', b'8', ..] => "a GIF picture",
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => "a BMP picture",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF picture",
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => "an AVIF picture",
        [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', b'e' | b'i', ..] => "a HEIC picture",
        [0, 0, 0, 12, b'J', b'X', b'L', ..] | [0xff, 0x0a, ..] => "a JPEG XL picture",
        [0, 0, 0, 12, b'j', b'P', ..] => "a JPEG 2000 picture",
        [b'8', b'B', b'P', b'S', ..] => "a Photoshop file",
        [b'%', b'P', b'D', b'F', ..] => "a PDF document",
        [b'P', b'K', 3, 4, ..] => "a zip archive",
        [0x1f, 0x8b, ..] => "a gzip file",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "a zstd file",
        [b'P', b'A', b'R', b'1', ..] => "a Parquet table",
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] => "an Arrow table",
        [0x89, b'H', b'D', b'F', ..] => "an HDF5 file",
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => "a NumPy array",
        [0x89, b'P', b'N', b'G', ..] => "a PNG picture",
        [0xff, 0xd8, 0xff, ..] => "a JPEG picture",
        [b'{' | b'[', ..] => "JSON or other text",
        _ => return None,
    })
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
        for begin in [&b""[..], b"\0\0\0\0", b"<p", b"RIFF\0\0\0\0WEBP"] {
            assert_eq!(file_kind(begin), None, "{begin:?}");
        }
    }
}
