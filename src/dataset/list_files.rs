//! The files below a folder.
//!
//! Hidden names (leading dot) are left out. Links are followed, but not back to a folder they lie in; a link to nothing is counted,
//! not an error. (`base::fs::walk` knows no circles but by their depth, which two of them turn into an endless walk.)

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::Result;
use kinset_base::fs;
use kinset_base::raw_file::RawFile;

/// Folders within folders.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Default)]
pub(super) struct FileList {
    /// The files, sorted by name.
    pub files: Vec<RawFile>,
    /// Links to nothing.
    pub broken_links: usize,
    /// Devices, pipes, sockets.
    pub special: usize,
}

impl FileList {
    /// Adds all that lies below a folder; `prefix` comes before each name.
    pub(super) fn add(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        self.descend(folder, prefix, &mut Vec::new())?;
        // By name, not by path: paths differ from machine to machine.
        self.files.sort_unstable_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        Ok(())
    }

    /// `above` holds the folders this one lies in.
    fn descend(&mut self, folder: &Path, prefix: &str, above: &mut Vec<Identity>) -> Result<()> {
        let Some(found) = fs::metadata(folder)? else { return Ok(()) };
        let identity = identity(folder, &found);
        if above.contains(&identity) {
            return Ok(()); // a link back: all of it is listed already
        }
        if above.len() >= MAX_DEPTH {
            let why = std::io::Error::other(format!("more than {MAX_DEPTH} folders deep"));
            return Err(fs::FileError::new("list", folder, why).into());
        }
        above.push(identity);
        let paths = fs::list(folder)?;
        // Together: on a file server every look is a journey.
        let looks: Vec<_> = paths.par_iter().map(|path| fs::metadata(path)).collect();
        for (path, look) in paths.into_iter().zip(looks) {
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            match look? {
                Some(found) if found.is_dir() => self.descend(&path, &format!("{name}/"), above)?,
                Some(found) if found.is_file() => self.files.push(RawFile { name, path, bytes: found.len() }),
                Some(_) => self.special += 1,
                None => self.broken_links += 1,
            }
        }
        above.pop();
        Ok(())
    }
}

/// What makes two paths the same folder.
type Identity = (u64, u64, PathBuf);

#[cfg(unix)]
fn identity(_: &Path, found: &std::fs::Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    (found.dev(), found.ino(), PathBuf::new())
}

/// Without inodes only the depth guards.
#[cfg(not(unix))]
fn identity(folder: &Path, _: &std::fs::Metadata) -> Identity {
    (0, 0, folder.to_owned())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for path in ["a/1.png", "b/2.png", ".git/3.png", "a/.4.png"] {
            let path = dir.path().join(path);
            fs::create_folders(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, b"x").unwrap();
        }
        fs::write_atomic(&elsewhere.path().join("5.png"), b"xyz").unwrap();
        for (name, target) in [("a/up", dir.path()), ("a/self", &dir.path().join("a")), ("b/out", elsewhere.path())] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        symlink("nowhere", dir.path().join("a/lost.png")).unwrap();
        let mut found = FileList::default();
        found.add(dir.path(), "p/").unwrap();
        let files: Vec<_> = found.files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        assert_eq!(files, [("p/a/1.png", 1), ("p/b/2.png", 1), ("p/b/out/5.png", 3)]);
        assert_eq!((found.broken_links, found.special), (1, 0));
    }
}
