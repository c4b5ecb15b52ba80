//! The unpacking of a published archive, of which nothing leaves its folder.
//!
//! Only regular files and folders are taken, only under plain names below the folder, each name once, and no more bytes than the
//! published archive has. Anything else – a link, a device, a name with `..`, an absolute one – is an error that names it, before
//! any file has come to its place: everything is unpacked beside and moved when it is whole.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::error::FetchError;
use kinset_base::fs::{self, At};
use kinset_base::unit;

type Result<T> = std::result::Result<T, FetchError>;

/// More entries no published archive has.
const MOST_ENTRIES: usize = 100_000;

/// Unpacks a gzipped tar archive of at most `most` bytes into a folder; files of the same names there are replaced. Returns the
/// names of the files, as they lie below the folder.
pub fn unpack(archive: &Path, folder: &Path, beside: &Path, most: u64) -> Result<Vec<PathBuf>> {
    fs::remove_folder(beside)?;
    fs::create_folders(beside)?;
    let names = out(archive, beside, most).inspect_err(|_| {
        // What is half unpacked is of no use; that it cannot be removed is not the news.
        let _ = fs::remove_folder(beside);
    })?;
    for name in &names {
        let target = folder.join(name);
        if let Some(parent) = target.parent() {
            fs::create_folders(parent)?;
        }
        fs::rename(&beside.join(name), &target)?;
    }
    fs::remove_folder(beside)?;
    Ok(names)
}

fn out(archive: &Path, beside: &Path, most: u64) -> Result<Vec<PathBuf>> {
    let shown = || archive.display().to_string();
    let broken = |source: std::io::Error| FetchError::Archive { archive: shown(), source };
    let mut tar = Archive::new(MultiGzDecoder::new(fs::reader(archive)?));
    let (mut names, mut seen, mut left) = (Vec::new(), BTreeSet::new(), most);
    // Raw: long names and extended headers are entries like others, and are never held in memory whole.
    for (count, entry) in tar.entries().map_err(broken)?.raw(true).enumerate() {
        let mut entry = entry.map_err(broken)?;
        let told = String::from_utf8_lossy(&entry.path_bytes()).chars().take(200).collect::<String>();
        let unsafe_ = |why: String| FetchError::Unsafe { archive: shown(), entry: told.clone(), why };
        if count >= MOST_ENTRIES {
            return Err(unsafe_(format!("is one of more than {} entries", unit::count(MOST_ENTRIES as u64))));
        }
        let size = entry.size();
        let Some(rest) = left.checked_sub(size) else {
            return Err(unsafe_(format!(
                "would unpack to more than {}, and the published archive does not",
                unit::bytes(most)
            )));
        };
        left = rest;
        match entry.header().entry_type() {
            // Times and owners of the next file: nothing we keep.
            EntryType::XHeader | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous | EntryType::Directory => {}
            other => return Err(unsafe_(format!("is {other:?}, and only files and folders are taken"))),
        }
        let name = plain(&told).ok_or_else(|| unsafe_("is not a plain path below the folder".to_owned()))?;
        if entry.header().entry_type() == EntryType::Directory {
            fs::create_folders(&beside.join(&name))?;
            continue;
        }
        if name.as_os_str().is_empty() || !seen.insert(name.clone()) {
            return Err(unsafe_("is there twice".to_owned()));
        }
        let target = beside.join(&name);
        if let Some(parent) = target.parent() {
            fs::create_folders(parent)?;
        }
        let mut file = fs::create_new(&target)?;
        let mut buffer = vec![0; 1 << 17];
        let mut found = 0_u64;
        loop {
            let count = entry.read(&mut buffer).map_err(broken)?;
            if count == 0 {
                break;
            }
            found += count as u64;
            file.write_all(&buffer[..count]).at("write", &target)?;
        }
        if found != size {
            return Err(unsafe_(format!("ends after {found} of {size} bytes")));
        }
        file.sync_all().at("flush", &target)?;
        names.push(name);
    }
    if names.is_empty() {
        return Err(FetchError::Archive { archive: shown(), source: std::io::Error::other("there is no file in it") });
    }
    Ok(names)
}

/// A name of plain parts; `./` in front is fine.
fn plain(name: &str) -> Option<PathBuf> {
    if name.contains(['\0', '\\', ':']) {
        return None;
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (path.components().count() <= 32).then_some(path)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;
    use kinset_base::fault::Fault;

    /// An archive as anybody could write it: name, kind, content, and the size its header claims.
    fn archive(entries: &[(&str, EntryType, &[u8], Option<u64>)]) -> Vec<u8> {
        let mut builder = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, kind, content, claimed) in entries {
            let mut header = Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_size(claimed.unwrap_or(content.len() as u64));
            if kind.is_symlink() {
                header.set_link_name("/etc").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap()
    }

    fn try_(bytes: &[u8], most: u64) -> (tempfile::TempDir, Result<Vec<PathBuf>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar.gz");
        fs::write_atomic(&path, bytes).unwrap();
        let result = unpack(&path, &dir.path().join("data"), &dir.path().join("data/.tmp"), most);
        (dir, result)
    }

    #[test]
    fn files_come_to_their_places_and_older_ones_are_replaced() {
        let bytes = archive(&[
            ("set/", EntryType::Directory, b"", None),
            ("./set/a.bin", EntryType::Regular, b"abc", None),
            ("set/deep/b.bin", EntryType::Regular, b"", None),
        ]);
        let (dir, names) = try_(&bytes, 100);
        assert_eq!(names.unwrap(), [PathBuf::from("set/a.bin"), PathBuf::from("set/deep/b.bin")]);
        let path = dir.path().join("data/set/a.bin");
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        fs::write_atomic(&path, b"old").unwrap();
        unpack(&dir.path().join("a.tar.gz"), &dir.path().join("data"), &dir.path().join("data/.tmp"), 100).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert!(!fs::exists(&dir.path().join("data/.tmp")));
    }

    #[test]
    fn nothing_leaves_the_folder_and_nothing_strange_comes_in() {
        for (name, kind) in [
            ("../x", EntryType::Regular),
            ("set/../../x", EntryType::Regular),
            ("/tmp/kinset-x", EntryType::Regular),
            ("set\\x", EntryType::Regular),
            ("C:x", EntryType::Regular),
            ("link", EntryType::Symlink),
            ("hard", EntryType::Link),
            ("device", EntryType::Char),
            ("pipe", EntryType::Fifo),
            ("long", EntryType::GNULongName),
            ("sparse", EntryType::GNUSparse),
        ] {
            let (dir, result) = try_(&archive(&[("good", EntryType::Regular, b"1", None), (name, kind, b"", None)]), 1000);
            let error = result.unwrap_err();
            assert_eq!(error.code(), "fetch::unsafe-archive", "{name}: {error}");
            assert!(error.to_string().contains(name), "{error}");
            assert!(!fs::exists(&dir.path().join("data/good")), "{name}: what came before it is not kept either");
            assert!(!fs::exists(&dir.path().join("x")));
        }
        let twice = archive(&[("a", EntryType::Regular, b"1", None), ("./a", EntryType::Regular, b"2", None)]);
        assert!(try_(&twice, 100).1.unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn sizes_are_bounded_before_anything_is_written() {
        let large = archive(&[("a", EntryType::Regular, &[0; 600], None), ("b", EntryType::Regular, &[0; 600], None)]);
        assert!(try_(&large, 1200).1.is_ok());
        assert!(try_(&large, 1199).1.unwrap_err().to_string().contains("`b` would unpack to more than"));
        let claims = archive(&[("a", EntryType::Regular, b"abc", Some(1 << 40))]);
        assert!(matches!(try_(&claims, 1 << 30).1.unwrap_err(), FetchError::Unsafe { .. }));
        // A header that promises more than there is.
        let short = archive(&[("a", EntryType::Regular, b"abc", Some(2000))]);
        assert!(try_(&short, 1 << 30).1.is_err());
    }

    #[test]
    fn damaged_and_empty_archives_are_errors() {
        let whole = archive(&[("a", EntryType::Regular, &[7; 3000], None)]);
        for length in [0, 10, whole.len() / 2] {
            let error = try_(&whole[..length], 10_000).1.unwrap_err();
            assert!(matches!(error, FetchError::Archive { .. }), "{length}: {error}");
        }
        assert!(try_(&archive(&[]), 100).1.unwrap_err().to_string().contains("cannot unpack"));
        assert!(try_(b"<html>", 100).1.is_err());
    }
}
