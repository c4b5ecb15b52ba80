//! File-system operations: renames that never overwrite, flushing, listing.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use kinset_base::fs::{At, FileError, Result};

/// Renames a file to a name that must be free.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if it is not.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // Kernels and file systems that do not know the flag.
            Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => {}
            done => return done.map_err(io::Error::from),
        }
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => Err(taken),
        // No links either. The name is made of the content or guarded by a lock: a lost race replaces like with like.
        Err(_) if fs::symlink_metadata(to).is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
        Err(_) => fs::rename(from, to),
    }
}

/// Lets two folders swap their names in one step. `Ok(false)`: not possible here.
pub(super) fn exchange(a: &Path, b: &Path) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = (a, b);
        Ok(false)
    }
}

pub(super) fn make_read_only(path: &Path) -> Result<()> {
    let mut permissions = fs::metadata(path).at("look at", path)?.permissions();
    if !permissions.readonly() {
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions).at("make read-only", path)?;
    }
    Ok(())
}

/// A new file under `tmp/` that goes with its handle, readable for whom the umask allows (a store may be shared). Its name begins with
/// `prefix`. Errors are the system's own: `tempfile` would hide their numbers.
pub(super) fn new_file(tmp: &Path, prefix: &str) -> Result<NamedTempFile> {
    let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
    tempfile::Builder::new().prefix(prefix).make_in(tmp, create).at("create a file in", tmp)
}

/// As [`new_file`], with this content, flushed to disk.
pub(super) fn write_tmp(tmp: &Path, prefix: &str, content: &[u8]) -> Result<NamedTempFile> {
    let mut file = new_file(tmp, prefix)?;
    let path = file.path().to_path_buf();
    // Not through `file` itself, whose errors hide their numbers as well.
    file.as_file_mut().write_all(content).at("write", &path)?;
    file.as_file().sync_all().at("flush", &path)?;
    Ok(file)
}

pub(super) fn flush(path: &Path) -> Result<()> {
    File::open(path).at("open", path)?.sync_all().at("flush", path)
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Seconds since 1970 of the last change to a file: of its bytes, its name or its rights, where the system tells.
pub(super) fn changed_at(metadata: &Metadata) -> f64 {
    let modified = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0.0, |age| age.as_secs_f64());
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        modified.max(metadata.ctime() as f64 + metadata.ctime_nsec() as f64 * 1e-9)
    }
    #[cfg(not(unix))]
    modified
}

/// The entries of a folder of the store, sorted; nothing there is an empty folder. Hidden names (our own probes) are left out.
pub(super) fn entries(folder: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let found = match fs::read_dir(folder) {
        Ok(found) => found,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(e) => return Err(e).at("list", folder),
    };
    let mut entries = Vec::new();
    for entry in found {
        let entry = entry.at("list", folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.push((name, entry.path()));
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// Bytes of all files in a folder, and when it or the youngest of them changed.
pub(super) fn folder_size(folder: &Path) -> Result<(u64, f64)> {
    let (mut bytes, mut youngest) = (0, stat(folder)?.map_or(0.0, |found| changed_at(&found)));
    for (_, path) in entries(folder)? {
        let Some(metadata) = stat(&path)? else { continue };
        if metadata.is_dir() {
            let (inner, age) = folder_size(&path)?;
            bytes += inner;
            youngest = youngest.max(age);
        } else {
            bytes += metadata.len();
            youngest = youngest.max(changed_at(&metadata));
        }
    }
    Ok((bytes, youngest))
}

/// Metadata of a path; links are not followed, and a missing file is `None`.
pub(super) fn stat(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(FileError::new("look at", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_is_refused_and_a_free_one_given() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| dir.path().join(name));
        fs::write(&a, "a").unwrap();
        fs::write(&b, "b").unwrap();
        assert_eq!(rename_new(&a, &b).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&b).unwrap(), b"b");
        rename_new(&a, &c).unwrap();
        assert_eq!((fs::read(&c).unwrap(), a.exists()), (b"a".to_vec(), false));
    }

    #[test]
    fn an_empty_folder_is_not_a_free_name() {
        // A plain rename would succeed here.
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        assert!(rename_new(&a, &b).is_err());
    }
}
