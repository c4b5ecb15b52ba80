//! Picture files: PNG, JPEG, WebP.
#![no_main]

use kinset::dataset::decode::{check, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Decoders run guarded, which catches panics of their crates: only what comes out of ours counts.
    let _ = std::panic::take_hook();
    let (decoded, checked) = (decode(bytes), check(bytes));
    match (&decoded, &checked) {
        (Ok(picture), Ok(checked)) => {
            assert_eq!(picture.data.len(), picture.width * picture.height * picture.channels);
            let header = checked.header;
            assert_eq!((picture.width, picture.height, picture.channels), (header.width, header.height, header.channels));
        }
        (Err(_), Err(_)) => {}
        _ => panic!("decoded {:?}, checked {checked:?}", decoded.map(|picture| (picture.width, picture.height))),
    }
});
