//! Archives: whatever is in one, nothing leaves the folder.
#![no_main]

use kinset::dataset::fetch::unpack::unpack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(dir) = tempfile::tempdir() else { return };
    let (archive, inside) = (dir.path().join("a.tar.gz"), dir.path().join("inside"));
    if std::fs::write(&archive, bytes).is_err() {
        return;
    }
    let _ = unpack(&archive, &inside, &inside.join(".tmp"), 1 << 16);
    let outside = std::fs::read_dir(dir.path()).map_or(0, |entries| entries.count());
    assert!(outside <= 2, "something left the folder");
});
