//! Features that somebody else made, and attributes: the first byte says which form the rest has.

use kinset::dataset::vectors::attributes::Attributes;
use kinset::dataset::vectors::{Options, Vectors};

/// Reads what somebody may have sent.
pub(crate) fn target(bytes: &[u8]) {
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
}
