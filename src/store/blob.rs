//! Publishing blobs: files flushed to disk, made read-only, and named by the digest of their bytes.
//!
//! A blob that is there already is a success: somebody else had the same bytes. Unless it is not what its name promises (a disk
//! that lost a part of it): then it is replaced, and so the store heals when a stage runs again.

use std::io;
use std::path::Path;

use super::digest::Digest;
use super::disk::{flush, make_read_only, rename_new, stat};
use super::error::Result;
use super::layout::{Store, checked_name};
use super::record::{StoredFile, StoredOutput, content_digest};
use kinset_base::fs::{self, At};

/// A file that was just written in a draft folder ([`Store::draft`]).
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// Its name within the artifact: `features.parquet`.
    pub name: &'a str,
    pub path: &'a Path,
    /// The digest of what it says, where that is not the digest of its bytes.
    pub logical: Option<Digest>,
}

impl Store {
    /// Makes a file of a draft folder a blob; the draft is gone afterwards. Returns the digest of its bytes and their number.
    pub fn publish_blob(&self, draft: &Path) -> Result<(Digest, u64)> {
        let point = |name| self.writing(self.fail.pass(name).at("publish", draft));
        self.writable()?;
        point("blob begun")?;
        // The rights before the flush, so that they last too.
        self.writing(make_read_only(draft))?;
        point("blob read-only")?;
        // The disk is at work while the bytes are read again.
        let (flushed, digest) = rayon::join(|| flush(draft), || Digest::of_file(draft));
        self.writing(flushed)?;
        point("blob flushed")?;
        let digest = digest?;
        let size = fs::metadata(draft)?.map_or(0, |found| found.len());
        let path = self.blob_path(&digest);
        let folder = self.folder_of(&path)?;
        match rename_new(draft, &path) {
            Ok(()) => {}
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                let whole = stat(&path)?.is_some_and(|found| found.is_file() && found.len() == size)
                    && Digest::of_file(&path).is_ok_and(|there| there == digest);
                if whole {
                    self.writing(fs::remove(draft))?;
                } else {
                    self.keep_for_file(&path)?;
                    self.writing(std::fs::rename(draft, &path).at("replace", &path))?;
                }
            }
            Err(error) => return self.writing(Err(error).at("publish", &path)),
        }
        self.is_known_to_be_whole(&digest)?;
        point("blob named")?;
        self.writing(fs::sync_folder(folder))?;
        point("blob durable")?;
        Ok((digest, size))
    }

    /// Makes the files of one output blobs. What it returns goes into a record ([`Store::publish`]); until then nobody knows of
    /// them.
    pub fn publish_output(&self, kind: &str, files: &[NewFile<'_>]) -> Result<StoredOutput> {
        let mut stored = Vec::with_capacity(files.len());
        for file in files {
            checked_name("a file", file.name)?;
            let (blob, size) = self.publish_blob(file.path)?;
            stored.push(StoredFile { name: file.name.to_owned(), blob, logical: file.logical, size });
        }
        let content = content_digest(kind, stored.iter().map(|file| (file.name.as_str(), file.content())));
        Ok(StoredOutput { kind: kind.to_owned(), content, files: stored })
    }
}

#[cfg(test)]
mod tests {
    use std::fs as files;

    use super::*;
    use crate::record::tests::new_store;

    fn draft(store: &Store, content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = store.draft().unwrap();
        let path = folder.path().join("x.bin");
        files::write(&path, content).unwrap();
        (folder, path)
    }

    #[test]
    fn bytes_are_named_by_their_digest_and_cannot_be_written() {
        let (_dir, store) = new_store();
        let (_keep, path) = draft(&store, b"hello");
        let (digest, size) = store.publish_blob(&path).unwrap();
        assert_eq!((digest, size), (Digest::of(b"hello"), 5));
        let blob = store.blob_path(&digest);
        assert_eq!(files::read(&blob).unwrap(), b"hello");
        assert!(files::metadata(&blob).unwrap().permissions().readonly());
        assert!(!path.exists());
    }

    #[test]
    fn the_same_bytes_twice_are_one_blob() {
        let (_dir, store) = new_store();
        let (_a, first) = draft(&store, b"hello");
        let (_b, second) = draft(&store, b"hello");
        let (digest, _) = store.publish_blob(&first).unwrap();
        let born = files::metadata(store.blob_path(&digest)).unwrap().modified().unwrap();
        assert_eq!(store.publish_blob(&second).unwrap().0, digest);
        assert_eq!(files::metadata(store.blob_path(&digest)).unwrap().modified().unwrap(), born);
        assert!(!second.exists());
    }

    #[test]
    fn a_blob_that_lost_or_changed_bytes_is_replaced() {
        let (_dir, store) = new_store();
        for damage in [&b"he"[..], b"hellO", b""] {
            let (_a, first) = draft(&store, b"hello");
            let (digest, _) = store.publish_blob(&first).unwrap();
            let blob = store.blob_path(&digest);
            files::remove_file(&blob).unwrap();
            files::write(&blob, damage).unwrap();
            let (_b, second) = draft(&store, b"hello");
            store.publish_blob(&second).unwrap();
            assert_eq!(files::read(&blob).unwrap(), b"hello");
        }
    }

    #[test]
    fn an_empty_file_is_a_blob_too() {
        let (_dir, store) = new_store();
        let (_keep, path) = draft(&store, b"");
        assert_eq!(store.publish_blob(&path).unwrap(), (Digest::of(b""), 0));
    }
}
