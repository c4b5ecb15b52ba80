//! Files of weights: zip, legacy stream, safetensors, and the pickles in them.
#![no_main]

use kinset::artifact::encoder::{Normalization, Stem};
use kinset::model::import::{Wanted, find};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let wanted = Wanted { stem: Some(Stem::Cifar), ..Wanted::default() };
    for wanted in [wanted, Wanted::default()] {
        if let Ok(found) = find(bytes, &wanted) {
            let normalization = Normalization { mean: vec![0.5; found.channels.min(8)], std: vec![0.5; found.channels.min(8)] };
            let _ = found.encoder(32, &normalization);
            let _ = found.classifier(32, &normalization);
        }
    }
});
