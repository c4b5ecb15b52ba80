//! Features that somebody else made, and attributes: the first byte says which form the rest has.
#![no_main]

use kinset::dataset::vectors::attributes::Attributes;
use kinset::dataset::vectors::{Options, Vectors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The reader of Parquet catches panics of its crate: only what comes out of ours counts.
    let _ = std::panic::take_hook();
    let Some((&kind, content)) = bytes.split_first() else { return };
    let Ok(dir) = tempfile::tempdir() else { return };
    let path = dir.path().join(["a.csv", "a.npy", "a.parquet", "a.arrow", "known.csv"][usize::from(kind) % 5]);
    if std::fs::write(&path, content).is_err() {
        return;
    }
    if kind % 5 == 4 {
        let _ = Attributes::open(&path, str::to_owned);
        return;
    }
    let Ok(mut vectors) = Vectors::open(&path, &Options::default()) else { return };
    while let Ok(Some(batch)) = vectors.batch() {
        assert_eq!(Some(batch.values.len()), vectors.dim().map(|dim| dim * batch.ids.len()));
    }
});
