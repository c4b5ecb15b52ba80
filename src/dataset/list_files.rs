//! The files below a folder.
//!
//! Left out, and counted: hidden names (leading dot), folders that file servers and archivers make beside the pictures, kinset's own
//! exports and results, links to nothing, and what is neither file nor folder. Links are followed, but not back to a folder they lie
//! in. (`base::fs::walk` knows no circles but by their depth, which two of them turn into an endless walk.)

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::Result;
use super::reader::Ignored;
use kinset_base::fs;
use kinset_base::name::Name;
use kinset_base::raw_file::RawFile;

/// Folders within folders.
const MAX_DEPTH: usize = 64;

/// The file in a folder that kinset wrote pictures to: below a source's root they are there twice.
pub const EXPORT_MARK: &str = ".exported-by-kinset";

/// Folders of thumbnails, of deleted files and of macOS's attributes, as Synology, QNAP, Windows, macOS and `fsck` name them.
const FOREIGN: [&str; 11] = [
    "@eaDir",
    "@Recycle",
    "@Recently-Snapshot",
    "@tmp",
    "#recycle",
    "#snapshot",
    "__MACOSX",
    "$RECYCLE.BIN",
    "System Volume Information",
    "Network Trash Folder",
    "lost+found",
];

/// What [`Ignored`] calls folders that kinset filled.
pub(super) const EXPORTS: &str = "folder exported by kinset";
const RESULTS: &str = "folder of kinset's results";

#[derive(Debug, Default)]
pub(super) struct FileList {
    /// The files, sorted by name.
    pub files: Vec<RawFile>,
    /// What was left out.
    pub ignored: Ignored,
    /// A folder that was asked for is an export of kinset.
    pub from_export: bool,
}

impl FileList {
    /// Adds all that lies below a folder; `prefix` comes before each name.
    pub(super) fn add(&mut self, folder: &Path, prefix: &Name) -> Result<()> {
        self.join(Self::below(folder, prefix, &[])?);
        // By name, not by path: paths differ from machine to machine.
        self.files.sort_unstable_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        Ok(())
    }

    fn join(&mut self, other: Self) {
        self.files.extend(other.files);
        for (what, count) in other.ignored.endings {
            self.ignored.count_as(&what, count);
        }
        self.from_export |= other.from_export;
    }

    /// All that lies below a folder; `above` holds the folders this one lies in.
    fn below(folder: &Path, prefix: &Name, above: &[Identity]) -> Result<Self> {
        let mut list = Self::default();
        let Some(found) = fs::metadata(folder)? else { return Ok(list) };
        let identity = identity(folder, &found);
        if above.contains(&identity) {
            return Ok(list); // a link back: all of it is listed already
        }
        if above.len() >= MAX_DEPTH {
            let why = std::io::Error::other(format!("more than {MAX_DEPTH} folders deep"));
            return Err(fs::FileError::new("list", folder, why).into());
        }
        let paths = fs::list(folder)?;
        let marked = holds(&paths, EXPORT_MARK);
        if above.is_empty() {
            list.from_export = marked;
        } else if let Some(kind) = if marked { Some(EXPORTS) } else { is_store(&paths).then_some(RESULTS) } {
            list.ignored.count_as(kind, 1);
            return Ok(list);
        }
        let above = [above, &[identity]].concat();
        // Together: on a file server every look is a journey. Of several errors the first by name is told.
        let rest = paths
            .into_par_iter()
            .fold(
                || Ok(Self::default()),
                |list: Result<Self>, path| list.and_then(|mut list| list.take(path, prefix, &above).map(|()| list)),
            )
            .reduce(
                || Ok(Self::default()),
                |one, other| {
                    let mut one = one?;
                    one.join(other?);
                    Ok(one)
                },
            );
        list.join(rest?);
        Ok(list)
    }

    /// Adds one entry of a folder, and what lies below it.
    fn take(&mut self, path: PathBuf, prefix: &Name, above: &[Identity]) -> Result<()> {
        let Some(name) = path.file_name().map(Name::of) else { return Ok(()) };
        if name.starts_with('.') {
            if name.as_str() != EXPORT_MARK {
                self.ignored.count_as("hidden", 1);
            }
            return Ok(());
        }
        match fs::metadata(&path)? {
            Some(found) if found.is_dir() && FOREIGN.contains(&name.as_str()) => {
                self.ignored.count_as(&format!("folder {name}"), 1);
            }
            Some(found) if found.is_dir() => self.join(Self::below(&path, &prefix.below(&name).below(&"/".into()), above)?),
            Some(found) if found.is_file() => {
                self.files.push(RawFile::new(prefix.below(&name), path, &found));
            }
            Some(_) => self.ignored.count_as("device, pipe or socket", 1),
            None => self.ignored.count_as("broken link", 1),
        }
        Ok(())
    }
}

/// True if a folder has an entry of this name.
fn holds(sorted: &[PathBuf], name: &str) -> bool {
    sorted.binary_search_by(|path| path.file_name().cmp(&Some(name.as_ref()))).is_ok()
}

/// True for the folder that a pipeline's results go to.
fn is_store(sorted: &[PathBuf]) -> bool {
    let folders = ["blobs", "records", "locks"];
    sorted.iter().find(|path| path.file_name().is_some_and(|name| name == "store")).is_some_and(|store| {
        folders
            .iter()
            .all(|folder| fs::metadata(&store.join(folder)).is_ok_and(|found| found.is_some_and(|found| found.is_dir())))
    })
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

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn write(dir: &Path, names: &[&str]) {
        for name in names {
            let path = dir.join(name);
            fs::create_folders(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, b"x").unwrap();
        }
    }

    fn found(dir: &Path) -> (Vec<String>, Vec<(String, usize)>) {
        let mut found = FileList::default();
        found.add(dir, &"p/".into()).unwrap();
        (found.files.into_iter().map(|file| file.name.into_string()).collect(), found.ignored.endings)
    }

    fn counted(kinds: &[(&str, usize)]) -> Vec<(String, usize)> {
        kinds.iter().map(|&(kind, count)| (kind.to_owned(), count)).collect()
    }

    #[test]
    fn links_are_followed_but_not_in_circles() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(dir.path(), &["a/1.png", "b/2.png", ".git/3.png", "a/.4.png"]);
        write(elsewhere.path(), &["5.png"]);
        for (name, target) in [("a/up", dir.path()), ("a/self", &dir.path().join("a")), ("b/out", elsewhere.path())] {
            symlink(target, dir.path().join(name)).unwrap();
        }
        symlink("nowhere", dir.path().join("a/lost.png")).unwrap();
        let (files, left) = found(dir.path());
        assert_eq!(files, ["p/a/1.png", "p/b/2.png", "p/b/out/5.png"]);
        assert_eq!(left, counted(&[("broken link", 1), ("hidden", 2)]));
    }

    #[test]
    fn folders_of_file_servers_and_sockets_are_left_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &["a/1.png", "a/@eaDir/1.png/THUMB.jpg", "@eaDir/x.jpg", "__MACOSX/a/._1.png", "a/.AppleDouble/1.png"],
        );
        let _socket = UnixListener::bind(dir.path().join("a/socket.png")).unwrap();
        let (files, left) = found(dir.path());
        assert_eq!(files, ["p/a/1.png"]);
        let wanted = [("device, pipe or socket", 1), ("folder @eaDir", 2), ("folder __MACOSX", 1), ("hidden", 1)];
        assert_eq!(left, counted(&wanted));
    }

    #[test]
    fn what_kinset_wrote_is_left_below_a_root_and_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &["a/1.png", "sorted/0/a_1.png", "sorted/.exported-by-kinset", "artifacts/photos/x.png", "shop/store/y.png"],
        );
        for folder in ["blobs", "records", "locks"] {
            fs::create_folders(&dir.path().join("artifacts/store").join(folder)).unwrap();
        }
        let (files, left) = found(dir.path());
        assert_eq!(files, ["p/a/1.png", "p/shop/store/y.png"]);
        assert_eq!(left, counted(&[(EXPORTS, 1), (RESULTS, 1)]));
        let mut own = FileList::default();
        own.add(&dir.path().join("sorted"), &Name::default()).unwrap();
        assert_eq!((own.files.len(), own.from_export, own.ignored.count()), (1, true, 0));
    }

    #[test]
    fn names_that_are_no_utf8_stay_apart() {
        let dir = tempfile::tempdir().unwrap();
        for name in [&b"cl\xe9"[..], b"cl\xe8"] {
            let folder = dir.path().join(OsStr::from_bytes(name));
            fs::create_folders(&folder).unwrap();
            fs::write_atomic(&folder.join("1.png"), name).unwrap();
        }
        let mut list = FileList::default();
        list.add(dir.path(), &Name::default()).unwrap();
        let names: Vec<&str> = list.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["cl\\xe8/1.png", "cl\\xe9/1.png"]);
        for file in &list.files {
            assert_eq!(dir.path().join(Name::path(&file.name)), file.path, "the way back");
        }
    }
}
