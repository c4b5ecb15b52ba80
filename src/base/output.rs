//! Output files and folders: written beside their place and moved there when complete, and never over what they are made from.
//!
//! What is at the place keeps its content until then. A file that is there is replaced and its permissions are kept; a link is
//! replaced, and what it leads to stays as it is; a folder takes something in only if it is empty. A device or a pipe is written
//! into. What a killed process left is known by its name and by nobody holding its lock, and goes when the same place is
//! written next.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::fault::{Diagnosis, Exit, Fault};
use super::fs::{self, At, File, FileError, UNFINISHED};

/// The file in a draft that its maker keeps locked.
const LOCK: &str = "kinset.lock";
/// Random letters at the end of a draft's name.
const LETTERS: usize = 6;
/// Bytes of a place's name in the name of its draft.
const NAMED: usize = 200;

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("`{path}` is an input, and would be overwritten")]
    Source { path: String },
    #[error("`{path}` is a folder")]
    Folder { path: String },
    #[error("`{path}` already exists")]
    There { path: String },
    #[error("`{path}` is a device or a pipe")]
    Special { path: String },
    #[error(transparent)]
    File(FileError),
}

impl From<FileError> for OutputError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl Fault for OutputError {
    fn diagnosis(&self) -> Diagnosis {
        use io::ErrorKind as Kind;
        match self {
            Self::Source { .. } => Exit::Usage.code("output::source").hint("name another file for the output"),
            Self::Folder { .. } => Exit::Usage.code("output::folder").hint("name a file in it"),
            Self::There { .. } => Exit::Usage.code("output::there").hint("name an empty folder or one that does not exist yet"),
            Self::Special { .. } => Exit::Usage.code("output::special").hint("name a file"),
            Self::File(error) if error.is_full() => Exit::Machine
                .code("output::disk-full")
                .hint("free some space or name another place, then run again; no partial output was left"),
            Self::File(error) if error.is_of_machine() => error.diagnosis(),
            Self::File(error) => match error.source.kind() {
                Kind::NotADirectory | Kind::AlreadyExists | Kind::InvalidFilename | Kind::InvalidInput => {
                    Exit::Usage.code("output::name").hint("name another place for the output")
                }
                _ => Exit::Machine
                    .code("output::not-written")
                    .hint("check the permissions, or name another place for the output"),
            },
        }
    }
}

pub type Result<T> = std::result::Result<T, OutputError>;

/// An output that is being made.
#[derive(Debug)]
pub struct Output {
    place: PathBuf,
    /// What is written.
    content: PathBuf,
    /// Removed when dropped; nothing where the place itself is written into.
    draft: Option<TempDir>,
    /// Whether the place is a folder that was there, and takes the content in.
    inside: bool,
    /// Held as long as somebody works on the draft.
    _lock: Option<File>,
}

impl Output {
    /// Begins a file; folders above it are made.
    ///
    /// # Errors
    /// If the place is a folder, or nothing can be written beside it.
    pub fn file(place: &Path) -> Result<Self> {
        let folder = || OutputError::Folder { path: place.display().to_string() };
        match fs::metadata(place)? {
            Some(found) if found.is_dir() => return Err(folder()),
            Some(found) if !found.is_file() || is_door(place) => {
                let (place, content) = (place.to_owned(), place.to_owned());
                return Ok(Self { place, content, draft: None, inside: false, _lock: None });
            }
            _ => {}
        }
        let name = place.file_name().ok_or_else(folder)?;
        fs::create_folders(fs::parent(place))?;
        let output = Self::beside(place, fs::parent(place), &prefix(name), name, false)?;
        // At once: a name that cannot be is told before the work.
        fs::create_new(&output.content).map_err(|error| output.named(error))?;
        Ok(output)
    }

    /// Begins a folder; folders above it are made.
    ///
    /// # Errors
    /// If there is something at the place that is no empty folder, or nothing can be written beside it.
    pub fn folder(place: &Path) -> Result<Self> {
        let there = || OutputError::There { path: place.display().to_string() };
        let output = match fs::metadata(place)? {
            Some(found) if !found.is_dir() => return Err(there()),
            Some(_) => {
                remove_abandoned(place, OsStr::new(UNFINISHED));
                if !fs::list(place)?.is_empty() {
                    return Err(there());
                }
                // Inside, because an empty folder may be a mounted disk, which nothing can be renamed to.
                Self::beside(place, place, OsStr::new(UNFINISHED), OsStr::new("content"), true)?
            }
            None if fs::is_link(place) => return Err(there()),
            None => {
                let name = place.file_name().ok_or_else(there)?;
                fs::create_folders(fs::parent(place))?;
                Self::beside(place, fs::parent(place), &prefix(name), name, false)?
            }
        };
        fs::create_folders(&output.content)?;
        Ok(output)
    }

    /// Makes a draft in a folder.
    fn beside(place: &Path, folder: &Path, prefix: &OsStr, name: &OsStr, inside: bool) -> Result<Self> {
        remove_abandoned(folder, prefix);
        let made = tempfile::Builder::new().prefix(prefix).rand_bytes(LETTERS).tempdir_in(folder);
        let draft = made.at("create a file in", folder)?;
        let lock = fs::create_new(&draft.path().join(LOCK))?;
        // Where a file system has no locks, what is left behind is never known to be, and stays.
        let _ = lock.try_lock();
        let content = draft.path().join(name);
        Ok(Self { place: place.to_owned(), content, draft: Some(draft), inside, _lock: Some(lock) })
    }

    /// Where a file that somebody else writes, or the content of a folder, goes until it is whole.
    ///
    /// # Errors
    /// If the place is a device or a pipe.
    pub fn path(&self) -> Result<&Path> {
        match self.draft {
            Some(_) => Ok(&self.content),
            None => Err(OutputError::Special { path: self.place.display().to_string() }),
        }
    }

    /// Opens the file for writing.
    ///
    /// # Errors
    /// If that is not permitted.
    pub fn create(&self) -> Result<File> {
        fs::open_to_write(&self.content).map_err(|error| self.named(error))
    }

    /// Where it will be.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Says of an error where the output was to be, not where it was made.
    pub fn named(&self, error: FileError) -> OutputError {
        let path = Path::new(&error.path);
        let path = match (path.strip_prefix(&self.content), &self.draft) {
            (Ok(rest), _) if rest.as_os_str().is_empty() => self.place.clone(),
            (Ok(rest), _) => self.place.join(rest),
            (Err(_), Some(draft)) if path.starts_with(draft.path()) => self.place.clone(),
            (Err(_), _) => return error.into(),
        };
        FileError { path: path.display().to_string(), ..error }.into()
    }

    /// Moves what is whole to its place.
    ///
    /// # Errors
    /// If it cannot be moved; then nothing is there that was not there before.
    pub fn finish(mut self) -> Result<()> {
        let Some(draft) = self.draft.take() else { return Ok(()) };
        if fs::is_real_folder(&self.content) {
            if self.inside {
                self.move_in()?;
            } else {
                fs::rename(&self.content, &self.place)?;
            }
        } else {
            fs::sync(&self.content).map_err(|error| self.named(error))?;
            if let Some(found) = fs::metadata(&self.place)? {
                fs::give_permissions(&found, &self.content).map_err(|error| self.named(error))?;
            }
            fs::rename(&self.content, &self.place)?;
        }
        drop(draft);
        Ok(fs::sync_folder(fs::parent(&self.place))?)
    }

    /// Moves the content of a folder into the one that was there: all of it or nothing.
    fn move_in(&self) -> Result<()> {
        let mut moved: Vec<PathBuf> = Vec::new();
        for from in fs::list(&self.content)? {
            let to = self.place.join(from.file_name().unwrap_or_default());
            if let Err(error) = fs::rename(&from, &to) {
                for to in moved {
                    let _ = fs::remove_folder(&to);
                }
                return Err(error.into());
            }
            moved.push(to);
        }
        Ok(())
    }
}

/// Copies a file, piece by piece: tables may be larger than memory.
///
/// # Errors
/// As [`write()`]; if `from` cannot be read.
pub fn copy(from: &Path, place: &Path) -> Result<()> {
    let mut file = fs::open(from)?;
    let output = Output::file(place)?;
    io::copy(&mut file, &mut output.create()?).at("write", place)?;
    output.finish()
}

/// Writes a whole file.
///
/// # Errors
/// As [`Output::file`]; a disk that is full.
pub fn write(place: &Path, content: &[u8]) -> Result<()> {
    let output = Output::file(place)?;
    output.create()?.write_all(content).at("write", place)?;
    output.finish()
}

/// Refuses a place that is one of the files an output is made from.
///
/// # Errors
/// [`OutputError::Source`].
pub fn not_over<'a>(place: &Path, sources: impl IntoIterator<Item = &'a Path>) -> Result<()> {
    if sources.into_iter().any(|source| fs::is_same(place, source)) {
        return Err(OutputError::Source { path: place.display().to_string() });
    }
    Ok(())
}

/// True if a path is a name of what the process has open, `/dev/stdout`: a link that must not be replaced, whatever it leads to.
fn is_door(place: &Path) -> bool {
    fs::is_link(place)
        && fs::absolute(fs::parent(place)).is_ok_and(|folder| folder == Path::new("/dev") || folder.starts_with("/proc"))
}

/// How the names of the drafts of a place begin.
fn prefix(name: &OsStr) -> OsString {
    let name = name.to_string_lossy();
    format!(".{}{UNFINISHED}", &name[..name.floor_char_boundary(NAMED)]).into()
}

/// Removes the drafts that nobody works on any more. One that cannot be removed is in nobody's way.
fn remove_abandoned(folder: &Path, prefix: &OsStr) {
    for path in fs::list(folder).unwrap_or_default() {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let ours = name.starts_with(prefix.as_encoded_bytes()) && name.len() == prefix.len() + LETTERS;
        // Held until the folder is gone, so that of two that find it one removes it.
        if ours
            && fs::is_real_folder(&path)
            && let Ok(lock) = fs::open(&path.join(LOCK))
            && lock.try_lock().is_ok()
        {
            let _ = fs::remove_folder(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::list(folder).unwrap().iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    /// What a killed process leaves: its lock goes with it, its files do not.
    fn abandon(output: Output) {
        let _ = output.draft.unwrap().keep();
    }

    #[test]
    fn a_file_appears_whole_or_not_at_all_and_what_was_there_stays_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("below/x.csv");
        write(&place, b"old").unwrap();
        let output = Output::file(&place).unwrap();
        output.create().unwrap().write_all(b"half").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"old");
        drop(output);
        assert_eq!((fs::read(&place).unwrap(), names(&dir.path().join("below"))), (b"old".to_vec(), vec!["x.csv".into()]));
        write(&place, b"new").unwrap();
        assert_eq!((fs::read(&place).unwrap(), names(&dir.path().join("below"))), (b"new".to_vec(), vec!["x.csv".into()]));
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_another_works_on_stays() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x.csv");
        abandon(Output::file(&place).unwrap());
        let alive = Output::file(&place).unwrap();
        assert_eq!(names(dir.path()).len(), 1, "the abandoned draft has gone");
        fs::create_folders(&dir.path().join(".x.csv.kinset-stranger")).unwrap();
        write(&place, b"new").unwrap();
        assert_eq!(names(dir.path()).len(), 3, "the other's draft, the stranger and the file");
        alive.create().unwrap().write_all(b"later").unwrap();
        alive.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"later");
    }

    #[test]
    fn a_folder_appears_whole_where_there_was_none_or_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("sorted");
        for there in [false, true] {
            if there {
                fs::create_folders(&place).unwrap();
            }
            abandon(Output::folder(&place).unwrap());
            let output = Output::folder(&place).unwrap();
            let content = output.path().unwrap().join("0");
            fs::create_folders(&content).unwrap();
            fs::write_atomic(&content.join("a.png"), b"x").unwrap();
            assert!(!place.join("0").exists(), "not before it is whole");
            output.finish().unwrap();
            assert_eq!((names(&place), names(&place.join("0"))), (vec!["0".into()], vec!["a.png".into()]));
            assert_eq!(names(dir.path()), ["sorted"], "nothing is left beside it");
            let error = Output::folder(&place).unwrap_err();
            assert_eq!((error.code(), error.exit()), ("output::there", Exit::Usage));
            assert_eq!(names(&place), ["0"]);
            fs::remove_folder(&place).unwrap();
        }
    }

    #[test]
    fn a_folder_a_source_and_an_impossible_name_are_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("photos.csv");
        write(&source, b"mine").unwrap();
        let refused = |place: &Path| Output::file(place).unwrap_err().diagnosis();
        assert_eq!(refused(dir.path()).code, "output::folder");
        assert_eq!(refused(&source.join("x.csv")).exit, Exit::Usage, "a file in the place of a folder");
        assert_eq!(refused(&dir.path().join("x".repeat(300))).exit, Exit::Usage);
        assert_eq!(not_over(&source, [source.as_path()]).unwrap_err().code(), "output::source");
        not_over(&dir.path().join("new.csv"), [source.as_path()]).unwrap();
        assert_eq!(names(dir.path()), ["photos.csv"]);
    }

    #[test]
    fn a_name_as_long_as_can_be_has_room_for_its_draft() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x".repeat(255), "é".repeat(127)] {
            write(&dir.path().join(&name), b"x").unwrap();
            assert_eq!(fs::read(&dir.path().join(&name)).unwrap(), b"x");
        }
    }

    #[test]
    #[cfg(unix)]
    fn permissions_stay_and_a_link_is_replaced_without_what_it_leads_to() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| dir.path().join(name));
        write(&file, b"theirs").unwrap();
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, private).unwrap();
        write(&file, b"mine").unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::link(&file, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!((fs::read(&file).unwrap(), fs::read(&link).unwrap()), (b"mine".to_vec(), b"new".to_vec()));
        assert!(!fs::is_link(&link));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_device_is_written_into_and_never_replaced() {
        let full = Path::new("/dev/full");
        let error = write(full, b"x").unwrap_err();
        assert_eq!((error.code(), error.exit()), ("output::disk-full", Exit::Machine));
        write(Path::new("/dev/null"), b"x").unwrap();
        assert_eq!(Output::file(full).unwrap().path().unwrap_err().code(), "output::special");
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
        assert!(is_door(Path::new("/dev/stdout")));
    }
}
