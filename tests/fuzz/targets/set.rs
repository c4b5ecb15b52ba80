//! Data sets: the first byte says which format the rest is a file of.

use kinset::base::search_path::DataPaths;
use kinset::dataset::{Source, check, file_digest};

/// Reads what somebody may have sent.
pub(crate) fn target(bytes: &[u8]) {
    let Some((&kind, content)) = bytes.split_first() else { return };
    let Ok(dir) = tempfile::tempdir() else { return };
    let (name, file) = match kind % 6 {
        0 => ("idx", "images-idx3-ubyte"),
        1 => ("idx", "images-idx3-ubyte.gz"),
        2 => ("svhn", "train_32x32.mat"),
        3 => ("parquet", "train.parquet"),
        4 => ("tar", "train.tar"),
        _ => ("folder", "picture.png"),
    };
    if std::fs::write(dir.path().join(file), content).is_err() {
        return;
    }
    let source = Source::named(name).root(dir.path());
    let source = if name == "svhn" { source.split("train") } else { source };
    let _ = check(&source, &DataPaths::new("", None, None), &mut file_digest);
}
