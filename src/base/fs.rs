//! File access whose errors say what was tried and where. Besides the store, nobody else touches files.

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// An open file and what is known of one, named here so that nobody else needs to know where they come from.
pub use std::fs::{File, Metadata};

use super::fault::{Diagnosis, Exit, Fault};

#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{path}`")]
pub struct FileError {
    /// The verb: `read`, `create`, `list` …
    pub action: &'static str,
    pub path: String,
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub fn new(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self { action, path: path.display().to_string(), source: in_words(source) }
    }

    /// True if the disk or the quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// True if there is a folder, a pipe, a socket or a device where a file should be.
    pub fn is_no_file(&self) -> bool {
        self.source.kind() == io::ErrorKind::IsADirectory
    }

    /// True if reading failed whatever the file holds: the machine failed, or access is denied. With any other error the file is gone, or
    /// is no file.
    pub fn is_not_of_content(&self) -> bool {
        self.is_of_machine() || matches!(self.source.kind(), io::ErrorKind::PermissionDenied)
    }

    /// True if the machine is to blame, not the file: no space, no memory, too many open files, a disk that fails.
    pub fn is_of_machine(&self) -> bool {
        is_of_machine(&self.source)
    }
}

/// Rust's own words for an error that does not come from the system speak of entities and buffers.
fn in_words(source: io::Error) -> io::Error {
    let kind = source.kind();
    let words = match kind {
        io::ErrorKind::NotFound => "no such file or folder",
        io::ErrorKind::AlreadyExists => "it already exists",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::NotADirectory => "it is not a folder",
        io::ErrorKind::StorageFull => "the disk is full",
        io::ErrorKind::UnexpectedEof => "it ends too early",
        _ => return source,
    };
    let own = source.raw_os_error().is_none() && source.get_ref().is_none();
    if own { io::Error::new(kind, words) } else { source }
}

/// Numbers of errors that [`io::ErrorKind`] has no name for; the same on every Unix.
mod unix {
    pub(super) const IO: i32 = 5;
    pub(super) const FILES_OF_SYSTEM: i32 = 23;
    pub(super) const FILES_OF_PROCESS: i32 = 24;
    /// A link that leads back to itself: the one number that differs.
    pub(super) const LOOP: i32 = if cfg!(target_os = "linux") { 40 } else { 62 };
}

/// True if the machine is to blame for an error, not the file.
pub fn is_of_machine(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::FileTooLarge
            | Kind::OutOfMemory
            | Kind::WouldBlock
            | Kind::TimedOut
            | Kind::StaleNetworkFileHandle
    ) || fails(error)
        || lacks_files(error)
}

/// True if a device failed.
fn fails(error: &io::Error) -> bool {
    cfg!(unix) && error.raw_os_error() == Some(unix::IO)
}

/// True if too many files are open.
fn lacks_files(error: &io::Error) -> bool {
    cfg!(unix) && matches!(error.raw_os_error(), Some(unix::FILES_OF_SYSTEM | unix::FILES_OF_PROCESS))
}

impl Fault for FileError {
    fn diagnosis(&self) -> Diagnosis {
        use io::ErrorKind as Kind;
        const PERMISSIONS: &str = "check the permissions, or name another place with `--artifacts DIR`";
        match self.source.kind() {
            Kind::NotFound => Exit::Data.code("file::not-found"),
            Kind::PermissionDenied => Exit::Store.code("file::not-permitted").hint(PERMISSIONS),
            Kind::ReadOnlyFilesystem => Exit::Store.code("file::read-only").hint(PERMISSIONS),
            Kind::StorageFull | Kind::QuotaExceeded => Exit::Machine
                .code("file::disk-full")
                .hint("free some space (`kinset gc` lists unused results), then run again: finished stages are kept"),
            Kind::FileTooLarge => Exit::Machine
                .code("file::too-large")
                .hint("raise the limit on the size of files (`ulimit -f`), or use a file system that holds larger ones"),
            Kind::WouldBlock => {
                Exit::Machine.code("file::no-resources").hint("allow more processes and memory: `ulimit -u`, `ulimit -v`")
            }
            Kind::OutOfMemory => Exit::Machine.code("file::no-memory").hint("free some memory, or use a machine with more"),
            _ if lacks_files(&self.source) => Exit::Machine
                .code("file::too-many-open")
                .hint("raise the limit on open files: `ulimit -n 4096`, then run again"),
            _ if self.is_of_machine() => {
                Exit::Machine.code("file::device").hint("the disk or its connection failed: see the system log (`dmesg`)")
            }
            Kind::NotADirectory => Exit::Data
                .code("file::failed")
                .hint("a file is in the place of a folder: choose another path, or move the file"),
            Kind::IsADirectory => Exit::Data.code("file::not-a-file").hint("name a file, or move the folder of that name away"),
            _ => Exit::Data.code("file::failed"),
        }
    }
}

pub type Result<T> = std::result::Result<T, FileError>;

/// Adds verb and place to an I/O result.
pub trait At<T> {
    /// `File::open(p).at("open", p)`.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| FileError::new(action, path, source))
    }
}

/// Opens a file to read it.
///
/// # Errors
/// Also if the path is a folder, a pipe, a socket or a device ([`FileError::is_no_file`]): nothing waits here for somebody to
/// write.
pub fn open(path: &Path) -> Result<File> {
    open_to("open", path)
}

fn open_to(action: &'static str, path: &Path) -> Result<File> {
    // Looked at first, because opening a pipe waits, and opening a device may do something.
    open_found(action, path, &look_at(action, path)?)
}

/// What a path leads to.
fn look_at(action: &'static str, path: &Path) -> Result<Metadata> {
    fs::metadata(path).map_err(|error| {
        if leads_to_itself(&error) {
            return no_file(action, path, "a link to itself");
        }
        let link = (error.kind() == io::ErrorKind::NotFound).then(|| dangling(path)).flatten();
        FileError::new(action, path, link.unwrap_or(error))
    })
}

/// Opens a path that was found to be a file a moment ago: on a file server, and for 100,000 files, a second look is felt. What has come
/// in its place since is opened too, and does not make wait; whoever reads it compares what was opened or read with what was found.
///
/// # Errors
/// If it cannot be opened.
pub fn open_again(path: &Path) -> Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    options.open(path).at("open", path)
}

/// The bytes of a path that was found to be a file of this length a moment ago; one that has grown since is read so far. At most `limit`
/// bytes where the length is 0: there are file systems that call everything empty. With it, what tells the file from others, after it was
/// read; `None` where the length is 0.
///
/// # Errors
/// As [`open_again`]; if it cannot be read.
pub fn read_again(path: &Path, length: u64, limit: u64) -> Result<(Vec<u8>, Option<Identity>)> {
    if length == 0 {
        return Ok((read_at_most(path, limit)?, None));
    }
    let mut bytes = room(path, length)?;
    let file = open_again(path)?;
    (&file).take(length).read_to_end(&mut bytes).at("read", path)?;
    Ok((bytes, Identity::of(&file.metadata().at("look at", path)?)))
}

/// Checks that what was found at a path is a file.
///
/// # Errors
/// If it is not ([`FileError::is_no_file`]).
pub fn must_be_file(path: &Path, found: &Metadata) -> Result<()> {
    what_else(found).map_or(Ok(()), |what| Err(no_file("open", path, what)))
}

fn open_found(action: &'static str, path: &Path, found: &Metadata) -> Result<File> {
    match what_else(found) {
        None => File::open(path).at(action, path),
        Some(what) => Err(no_file(action, path, what)),
    }
}

/// Seconds that a file must have been left alone to be known by its times: clocks of file systems move in steps, and of two changes
/// within a step the second does not show.
pub const QUIET: f64 = 2.0;

/// What tells a file from others and from what it was before, without reading it. Times are nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file system's number on this machine, until it is mounted anew.
    pub device: u64,
    pub inode: u64,
    pub modified: i64,
    /// When content or name, owner, permissions were changed: no program can set it back.
    pub changed: i64,
}

impl Identity {
    /// `None` where the system has no inodes, and for times that nanoseconds in 64 bits do not reach (after 2262).
    #[cfg(unix)]
    pub fn of(found: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let nanos = |seconds: i64, nanos: i64| seconds.checked_mul(1_000_000_000)?.checked_add(nanos);
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            modified: nanos(found.mtime(), found.mtime_nsec())?,
            changed: nanos(found.ctime(), found.ctime_nsec())?,
        })
    }

    #[cfg(not(unix))]
    pub fn of(_: &Metadata) -> Option<Self> {
        None
    }

    /// True if the file was left alone for [`QUIET`] seconds before a moment, in seconds since 1970. Whatever is done to it after that moment
    /// changes its identity.
    pub fn is_quiet(&self, moment: f64) -> bool {
        moment - self.changed.max(self.modified) as f64 * 1e-9 >= QUIET
    }
}

fn no_file(action: &'static str, path: &Path, what: &'static str) -> FileError {
    FileError::new(action, path, io::Error::new(io::ErrorKind::IsADirectory, NotAFile(what)))
}

/// True if a path is a link that leads back to itself.
fn leads_to_itself(error: &io::Error) -> bool {
    cfg!(unix) && error.raw_os_error() == Some(unix::LOOP)
}

/// The error of a link that leads to nothing; none for any other path.
pub fn dangling(path: &Path) -> Option<io::Error> {
    let target = fs::read_link(path).ok()?;
    matches!(path.try_exists(), Ok(false))
        .then(|| io::Error::new(io::ErrorKind::NotFound, Dangling(target.display().to_string())))
}

/// The reason why a link is not followed.
#[derive(Debug, thiserror::Error)]
#[error("it is a link to `{0}`, which is not there")]
struct Dangling(String);

/// What a path is that is no file, in words.
fn what_else(found: &Metadata) -> Option<&'static str> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = found.file_type();
        if kind.is_fifo() {
            return Some("a pipe");
        } else if kind.is_socket() {
            return Some("a socket");
        } else if kind.is_char_device() || kind.is_block_device() {
            return Some("a device");
        }
    }
    found.is_dir().then_some("a folder")
}

/// The reason why a folder, a pipe, a socket or a device is not read.
#[derive(Debug, thiserror::Error)]
#[error("it is {0}, not a file")]
struct NotAFile(&'static str);

pub fn reader(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::with_capacity(1 << 18, open(path)?))
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_to("read", path)?.read_to_end(&mut bytes).at("read", path)?;
    Ok(bytes)
}

/// At most `limit` bytes of a file: a guard against files that are not what they claim to be.
pub fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let found = look_at("open", path)?;
    take_at_most(&open_found("open", path, &found)?, found.len(), path, limit)
}

/// As [`read_at_most`], but of whatever gives bytes: for what a person hands over once and is read once, as `<(command)`.
pub fn read_stream_at_most(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).at("open", path)?;
    let length = file.metadata().at("look at", path)?.len();
    take_at_most(&file, length, path, limit)
}

/// `length` is what to make room for; there may be more.
fn take_at_most(file: &File, length: u64, path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = room(path, length.min(limit).saturating_add(1))?;
    file.take(limit + 1).read_to_end(&mut bytes).at("read", path)?;
    if bytes.len() as u64 > limit {
        let why = format!("it is larger than {}", super::unit::bytes(limit));
        return Err(FileError::new("read", path, io::Error::other(why)));
    }
    Ok(bytes)
}

/// An empty buffer with room for so many bytes.
fn room(path: &Path, length: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let room = usize::try_from(length).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(room).map_err(|e| FileError::new("read", path, io::Error::new(io::ErrorKind::OutOfMemory, e)))?;
    Ok(bytes)
}

pub fn read_text(path: &Path) -> Result<String> {
    io::read_to_string(open_to("read", path)?).at("read", path)
}

/// Creates a file that is not there yet.
pub fn create_new(path: &Path) -> Result<File> {
    File::create_new(path).at("create", path)
}

/// What the name of a file begins with while [`write_atomic`] writes it: a kill can leave such a file behind.
pub const HALF_WRITTEN: &str = ".tmp-";

/// Writes a whole file so that a reader sees the old content or the new one, never a part: temporary file beside it, flushed
/// to disk, renamed into place.
pub fn write_atomic(path: &Path, content: &[u8]) -> Result<()> {
    let folder = parent(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(HALF_WRITTEN);
    // As any other file: who may read it is for the umask to say.
    #[cfg(unix)]
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    #[cfg(unix)]
    builder.permissions(permissions);
    let mut file = builder.tempfile_in(folder).at("create a file in", folder)?;
    // Not through `file` itself, whose errors name the temporary path.
    file.as_file_mut().write_all(content).at("write", path)?;
    file.as_file().sync_all().at("flush", path)?;
    file.persist(path).map_err(|e| e.error).at("replace", path)?;
    sync_folder(folder)
}

/// Opens a file to write behind its end; one that is not there begins empty.
pub fn append(path: &Path) -> Result<File> {
    fs::OpenOptions::new().create(true).append(true).open(path).at("write", path)
}

/// Moves a file or folder on one file system; what was there is replaced if it is a file.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).at("move a file to", to)
}

/// Makes a symbolic link that leads to `target`; where the system has none, a copy.
pub fn link(target: &Path, path: &Path) -> Result<()> {
    #[cfg(unix)]
    let made = std::os::unix::fs::symlink(target, path);
    #[cfg(not(unix))]
    let made = fs::copy(target, path).map(drop);
    made.at("link", path)
}

/// The path from the root, if the file is there.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    fs::canonicalize(path).at("look for", path)
}

pub fn create_folders(path: &Path) -> Result<()> {
    fs::create_dir_all(path).at("create the folder", path)
}

/// Makes the names in a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).at("open", path)?.sync_all().at("flush the folder", path)
}

/// Waits until nobody else has locked this folder, and locks it until the file is dropped. Elsewhere than on Unix a folder cannot be
/// opened, and nobody waits.
pub fn lock_folder(path: &Path) -> Result<Option<File>> {
    if cfg!(not(unix)) {
        return Ok(None);
    }
    let folder = File::open(path).at("open the folder", path)?;
    folder.lock().at("lock the folder", path)?;
    Ok(Some(folder))
}

pub fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(e) if cannot_be(&e, path) => Ok(None),
        Err(e) => Err(e).at("look at", path),
    }
}

/// True if the error says that there is nothing: also for a name that no file can have, too long or with a zero in it, and for a
/// link that leads to itself.
fn cannot_be(error: &io::Error, path: &Path) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::NotFound | Kind::NotADirectory | Kind::InvalidFilename)
        || leads_to_itself(error)
        || path.as_os_str().as_encoded_bytes().contains(&0)
}

/// True if both paths lead to one file or folder, by whatever names and links.
pub fn is_same(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        identity(a).is_some_and(|a| identity(b) == Some(a))
    }
    #[cfg(not(unix))]
    fs::canonicalize(a).is_ok_and(|a| fs::canonicalize(b).is_ok_and(|b| a == b))
}

/// True if the path is a link itself, wherever it leads.
pub fn is_link(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
}

/// Where a link leads that the path is itself, as it was written.
pub fn link_target(path: &Path) -> Option<PathBuf> {
    fs::read_link(path).ok()
}

pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// The entries of a folder, sorted by name.
pub fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path).at("list", path)? {
        entries.push(entry.at("list", path)?.path());
    }
    // They differ in their names only: to compare paths part by part would cost more than the names.
    entries.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(entries)
}

/// True if the path is a folder itself, not a link to one.
pub fn is_real_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// How the names of files begin that stand in for others until they are whole.
pub const UNFINISHED: &str = ".kinset-";

/// Copies a file; what is at the new path is replaced in one step, once the copy is whole.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    put(to, |beside| fs::copy(from, beside).map(drop)).at("copy", from)
}

/// A second name for a file; what is at the new path is replaced in one step.
pub fn link_hard(from: &Path, to: &Path) -> Result<()> {
    put(to, |beside| fs::hard_link(from, beside)).at("link", from)
}

/// A symbolic link to a file; what is at the new path is replaced in one step.
pub fn link_symbolically(from: &Path, to: &Path) -> Result<()> {
    #[cfg(unix)]
    let make = |beside: &Path| std::os::unix::fs::symlink(from, beside);
    #[cfg(windows)]
    let make = |beside: &Path| std::os::windows::fs::symlink_file(from, beside);
    put(to, make).at("link", from)
}

/// Makes a file under a name of its own beside its place, then renames it.
fn put(to: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let beside = tempfile::Builder::new().prefix(UNFINISHED).make_in(parent(to), |beside| make(beside))?;
    // Two names of one file: the system's rename leaves both.
    let made = beside.path().to_owned();
    beside.persist(to).map_err(|failed| failed.error)?;
    match fs::remove_file(&made) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The folder that a path lies in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Opens what is there to write into it: a device, a pipe.
pub fn open_to_write(path: &Path) -> Result<File> {
    fs::OpenOptions::new().write(true).open(path).at("write", path)
}

/// Gives one file the permissions of another.
pub fn give_permissions(from: &Metadata, to: &Path) -> Result<()> {
    fs::set_permissions(to, from.permissions()).at("set the permissions of", to)
}

/// Makes the content of a file durable.
pub fn sync(path: &Path) -> Result<()> {
    open(path)?.sync_all().at("flush", path)
}

/// Removes a file; nothing there is fine too.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

/// Removes a folder and all in it, or what else has its name; nothing there is fine too.
pub fn remove_folder(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_dir()) {
        return remove(path);
    }
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).at("remove", path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_verb_the_place_and_the_reason() {
        let missing = Path::new("no/such/file.bin");
        let error = read(missing).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `no/such/file.bin`");
        assert_eq!((error.code(), error.exit()), ("file::not-found", Exit::Data));
        let made = FileError::new("read", missing, io::ErrorKind::NotFound.into());
        assert_eq!((made.source.to_string(), made.code()), ("no such file or folder".to_owned(), error.code()));
        let short = Read::read_exact(&mut &b"ab"[..], &mut [0; 3]).unwrap_err();
        assert_eq!(short.to_string(), "failed to fill whole buffer", "nobody would know what to do");
        assert_eq!(FileError::new("read", missing, short).source.to_string(), "it ends too early");
        let words = FileError::new("read", missing, io::Error::new(io::ErrorKind::NotFound, "gone since noon"));
        assert_eq!(words.source.to_string(), "gone since noon");
    }

    #[test]
    #[cfg(unix)]
    fn what_is_written_at_once_may_be_read_as_any_other_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        write_atomic(&dir.path().join("a"), b"x").unwrap();
        drop(create_new(&dir.path().join("b")).unwrap());
        let mode = |name: &str| metadata(&dir.path().join(name)).unwrap().unwrap().permissions().mode();
        assert_eq!(mode("a"), mode("b"));
    }

    #[test]
    #[cfg(unix)]
    fn what_was_looked_at_is_read_as_far_as_it_was_long_and_nothing_waits_for_what_came_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let [file, pipe] = ["file", "pipe"].map(|name| dir.path().join(name));
        fs::write(&file, "0123456789").unwrap();
        let bytes = |path: &Path, length, limit| read_again(path, length, limit).map(|(bytes, _)| bytes);
        assert_eq!(bytes(&file, 10, 100).unwrap(), b"0123456789");
        assert_eq!(bytes(&file, 4, 100).unwrap(), b"0123");
        assert_eq!(bytes(&file, 20, 100).unwrap(), b"0123456789");
        // A length of 0 says nothing.
        assert_eq!(bytes(&file, 0, 10).unwrap(), b"0123456789");
        assert!(bytes(&file, 0, 9).is_err());
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(bytes(&pipe, 10, 100).unwrap(), b"");
        assert!(bytes(dir.path(), 10, 100).is_err() && bytes(&dir.path().join("none"), 10, 100).is_err());
        let identity = |path: &Path| Identity::of(&metadata(path).unwrap().unwrap()).unwrap();
        let before = identity(&file);
        assert_eq!(identity(&file), before);
        assert_ne!(identity(&pipe), before);
    }

    #[test]
    #[cfg(unix)]
    fn only_files_are_read_and_nothing_waits_for_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let [pipe, socket, link] = ["pipe", "socket", "link"].map(|name| dir.path().join(name));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        let ring = dir.path().join("ring");
        std::os::unix::fs::symlink(&ring, &ring).unwrap();
        let lost = dir.path().join("lost");
        std::os::unix::fs::symlink("nowhere", &lost).unwrap();
        let error = open(&lost).unwrap_err();
        assert_eq!(error.source.to_string(), "it is a link to `nowhere`, which is not there");
        assert!(error.is_missing() && dangling(&link).is_none() && dangling(dir.path()).is_none());
        for (path, what) in [
            (dir.path(), "a folder"),
            (ring.as_path(), "a link to itself"),
            (pipe.as_path(), "a pipe"),
            (link.as_path(), "a pipe"),
            (socket.as_path(), "a socket"),
            (Path::new("/dev/null"), "a device"),
        ] {
            let refusals = [
                open(path).map(drop),
                reader(path).map(drop),
                read(path).map(drop),
                read_at_most(path, 1).map(drop),
                read_text(path).map(drop),
            ];
            for refused in refusals {
                let error = refused.unwrap_err();
                assert_eq!(error.source.to_string(), format!("it is {what}, not a file"));
                assert_eq!((error.is_no_file(), error.code(), error.exit()), (true, "file::not-a-file", Exit::Data));
            }
        }
        assert_eq!(read_stream_at_most(Path::new("/dev/null"), 1).unwrap(), b"");
        link_symbolically(&dir.path().join("file"), &link).unwrap();
        write_atomic(&dir.path().join("file"), b"x").unwrap();
        assert_eq!(read(&link).unwrap(), b"x", "a link to a file is one");
    }

    #[test]
    fn what_has_the_name_of_a_folder_is_removed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, b"x").unwrap();
        remove_folder(&path).unwrap();
        create_folders(&path.join("inner")).unwrap();
        remove_folder(&path).unwrap();
        remove_folder(&path).unwrap();
        assert!(!exists(&path));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_device_that_fails_and_a_full_one_are_the_machine_s_fault() {
        // The first page of a process is mapped nowhere, and reading it is an error of input and output.
        let error = read(Path::new("/proc/self/mem")).unwrap_err();
        assert_eq!((error.code(), error.exit()), ("file::device", Exit::Machine), "{:?}", error.source);
        let error = open_to_write(Path::new("/dev/full")).unwrap().write_all(b"x").at("write", Path::new("x")).unwrap_err();
        assert_eq!((error.code(), error.exit()), ("file::disk-full", Exit::Machine));
        let error = FileError::new("open", Path::new("x"), io::Error::from_raw_os_error(24));
        assert_eq!((error.code(), error.exit()), ("file::too-many-open", Exit::Machine));
        assert!(error.hint().unwrap().contains("ulimit -n"));
    }

    #[test]
    fn a_name_that_no_file_can_have_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["x".repeat(300), "a\0b".to_owned()] {
            assert!(metadata(&dir.path().join(&name)).unwrap().is_none(), "{name:?}");
        }
        let link = dir.path().join("link");
        #[cfg(unix)]
        super::link(&link, &link).unwrap();
        assert!(metadata(&link).unwrap().is_none());
    }

    #[test]
    #[cfg(unix)]
    fn a_copy_or_link_onto_a_name_of_the_same_file_loses_nothing_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        write_atomic(&a, b"x").unwrap();
        link_hard(&a, &b).unwrap();
        link_hard(&a, &b).unwrap();
        assert!(is_same(&a, &b) && !is_link(&b));
        copy(&a, &b).unwrap();
        assert!(!is_same(&a, &b));
        link_symbolically(&a, &b).unwrap();
        assert!(is_same(&a, &b) && is_link(&b) && !is_link(&a));
        assert_eq!(read(&a).unwrap(), b"x");
        assert_eq!(list(dir.path()).unwrap(), [a, b]);
    }

    #[test]
    fn a_file_larger_than_its_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, &[0; 10]).unwrap();
        assert_eq!(read_at_most(&path, 10).unwrap().len(), 10);
        assert!(read_at_most(&path, 9).is_err());
    }
}
