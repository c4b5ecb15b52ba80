//! Picture files: PNG, JPEG, WebP.
#![no_main]

use kinset::dataset::decode::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Decoders run guarded, which catches panics of their crates: only what comes out of ours counts.
    let _ = std::panic::take_hook();
    if let Ok(picture) = decode(bytes) {
        assert_eq!(picture.data.len(), picture.width * picture.height * picture.channels);
    }
});
