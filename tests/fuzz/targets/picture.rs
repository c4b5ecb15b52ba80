//! Picture files: PNG, JPEG, WebP.
#![no_main]

use kinset::dataset::guarded_decode::{ImageFormat, check, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Decoders run guarded, which catches panics of their crates: only what comes out of ours counts.
    let _ = std::panic::take_hook();
    let decoded = decode(bytes).ok().map(|picture| {
        assert_eq!(picture.data.len(), picture.width * picture.height * picture.channels);
        (picture.width, picture.height, picture.channels)
    });
    // Others are checked by decoding them: a WebP of 40 bytes may hold 80 million pixels, and need not do so twice.
    if ImageFormat::sniff(bytes) == Some(ImageFormat::Jpeg) {
        let checked = check(bytes).ok().map(|checked| checked.header);
        assert_eq!(checked.map(|header| (header.width, header.height, header.channels)), decoded);
    }
});
