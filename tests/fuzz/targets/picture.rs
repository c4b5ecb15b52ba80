//! Picture files: PNG, JPEG, WebP, GIF, BMP, TIFF.

use kinset::dataset::guarded_decode::{ImageFormat, check, decode};

/// Reads what somebody may have sent.
pub(crate) fn target(bytes: &[u8]) {
    let decoded = decode(bytes).ok().map(|picture| {
        assert_eq!(picture.data.len(), picture.width * picture.height * picture.channels);
        (picture.width, picture.height, picture.channels)
    });
    // Others are checked by decoding them: a WebP of 40 bytes may hold 80 million pixels, and need not do so twice.
    if ImageFormat::sniff(bytes) == Some(ImageFormat::Jpeg) {
        let checked = check(bytes).ok().map(|checked| checked.header);
        assert_eq!(checked.map(|header| (header.width, header.height, header.channels)), decoded);
    }
}
