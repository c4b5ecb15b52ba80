//! Archives: whatever is in one, nothing leaves the folder.

use kinset::dataset::fetch::unpack::unpack;

/// Reads what somebody may have sent.
pub(crate) fn target(bytes: &[u8]) {
    let Ok(dir) = tempfile::tempdir() else { return };
    let (archive, inside) = (dir.path().join("a.tar.gz"), dir.path().join("inside"));
    if std::fs::write(&archive, bytes).is_err() {
        return;
    }
    let _ = unpack(&archive, &inside, &inside.join(".tmp"), 1 << 16);
    let outside = std::fs::read_dir(dir.path()).map_or(0, Iterator::count);
    assert!(outside <= 2, "something left the folder");
}
