//! What the file system of a folder is, how much room it has, and whether it can do what the store relies on.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::disk::rename_new;
use super::lock::has_no_locks;
use kinset_base::fs::{self, At, Result, UNFINISHED};

/// The longest table of mounts that is read.
const LARGEST: u64 = 1 << 24;
/// Written in a trial.
const TRIED: usize = 1 << 16;

/// Where a lock that one process holds keeps others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The file system is of this machine alone.
    Machine,
    /// On all machines that have mounted it.
    Cluster,
    /// On this machine alone, although others have mounted it too.
    Node,
    /// Nowhere: it was mounted without locks.
    Nowhere,
}

/// The file system that a folder lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// `ext4`, `nfs4`.
    pub kind: String,
    pub reach: Reach,
}

impl FileSystem {
    /// That of a folder that is there, by the system's table of mounts; nothing where it has none (Linux has).
    pub fn of(folder: &Path) -> Option<Self> {
        let folder = fs::absolute(folder).ok()?;
        let table = fs::read_at_most(Path::new("/proc/self/mountinfo"), LARGEST).ok()?;
        Self::in_table(&folder, &String::from_utf8_lossy(&table))
    }

    /// A line is `id parent device root point options … - kind source options`; of two at one point the later lies on top.
    fn in_table(folder: &Path, table: &str) -> Option<Self> {
        let mounts = table.lines().filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let point = PathBuf::from(unescaped(mount.split(' ').nth(4)?));
            let mut parts = system.split(' ');
            let (kind, options) = (parts.next()?, parts.nth(1).unwrap_or_default());
            folder.starts_with(&point).then(|| (point.as_os_str().len(), kind, options))
        });
        let (_, kind, options) = mounts.max_by_key(|(length, ..)| *length)?;
        Some(Self { kind: kind.to_owned(), reach: reach(kind, options) })
    }
}

/// Blanks in names are written as octal numbers.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, char)| text.replace(code, char))
}

/// What the documents of each file system say of `flock`.
fn reach(kind: &str, options: &str) -> Reach {
    let has = |wanted: &[&str]| options.split(',').any(|option| wanted.contains(&option));
    match kind {
        "nfs" | "nfs4" if has(&["nolock", "local_lock=all", "local_lock=flock"]) => Reach::Node,
        "lustre" if has(&["localflock"]) => Reach::Node,
        "lustre" if !has(&["flock"]) => Reach::Nowhere,
        "cifs" | "smb3" if has(&["nobrl"]) => Reach::Node,
        "nfs" | "nfs4" | "lustre" | "cifs" | "smb3" | "ceph" | "gfs2" | "ocfs2" => Reach::Cluster,
        "gpfs" | "beegfs" | "afs" | "9p" | "virtiofs" | "vboxsf" | "fuse" => Reach::Node,
        kind if kind.starts_with("fuse.") => Reach::Node,
        _ => Reach::Machine,
    }
}

/// Bytes that an ordinary process may still write below a folder that is there.
pub fn free(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder).ok()?;
        found.f_bavail.checked_mul(found.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

/// What a file system was found not to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// A second name for a file.
    HardLinks,
    /// Files that name others.
    SymbolicLinks,
    /// It knows no locks.
    Locks,
    /// It gives one lock to two at a time.
    LocksThatHold,
}

/// Writes, flushes, renames, links and locks in a new folder inside this one, and removes it. Returns what it cannot do.
///
/// # Errors
/// If it cannot do what nothing goes without: write, flush, rename, remove.
pub fn try_out(folder: &Path) -> Result<Vec<Lack>> {
    let prefix = format!("{UNFINISHED}trial-");
    let inside = tempfile::Builder::new().prefix(&prefix).tempdir_in(folder).at("create a folder in", folder)?;
    let [file, named, link] = ["file", "named", "link"].map(|name| inside.path().join(name));
    // Errors name the folder that was asked for, not the one that is gone when they are read.
    let mut made = File::create(&file).at("create a file in", folder)?;
    made.write_all(&vec![0xa5; TRIED]).at("write a file in", folder)?;
    made.sync_all().at("flush a file in", folder)?;
    File::open(inside.path()).and_then(|opened| opened.sync_all()).at("flush the folder", folder)?;
    rename_new(&file, &named).at("rename a file in", folder)?;
    let mut lacks = Vec::new();
    if std::fs::hard_link(&named, &file).is_err() {
        lacks.push(Lack::HardLinks);
    }
    if fs::link(&named, &link).is_err() {
        lacks.push(Lack::SymbolicLinks);
    }
    let other = File::options().read(true).write(true).open(&named).at("open a file in", folder)?;
    match (made.try_lock(), other.try_lock()) {
        (Ok(()), Err(TryLockError::WouldBlock)) => {}
        (Err(TryLockError::Error(error)), _) | (_, Err(TryLockError::Error(error))) if has_no_locks(&error) => {
            lacks.push(Lack::Locks);
        }
        (Err(TryLockError::Error(error)), _) | (_, Err(TryLockError::Error(error))) => {
            return Err(error).at("lock a file in", folder);
        }
        _ => lacks.push(Lack::LocksThatHold),
    }
    drop((made, other));
    inside.close().at("remove a folder in", folder)?;
    Ok(lacks)
}

/// As [`try_out`], but no longer than `patience`: a server that does not answer holds whoever asks, and what was begun may be left
/// behind then.
///
/// # Errors
/// As those; [`io::ErrorKind::TimedOut`].
pub fn try_out_within(folder: &Path, patience: Duration) -> Result<Vec<Lack>> {
    let place = folder.to_owned();
    within(patience, move || try_out(&place)).at("try out", folder)?
}

/// Does it on a thread of its own.
fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, answer) = mpsc::channel();
    // Nobody listens any more once patience has ended.
    std::thread::Builder::new().name("trial".into()).spawn(move || drop(done.send(work())))?;
    answer.recv_timeout(patience).map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_tried_out_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(try_out_within(dir.path(), Duration::from_mins(1)).unwrap(), []);
        assert!(fs::list(dir.path()).unwrap().is_empty());
        let error = try_out(&dir.path().join("none")).unwrap_err();
        assert!(error.is_missing(), "{error}");
        assert!(free(dir.path()).is_some_and(|bytes| bytes > 0) && free(&dir.path().join("none")).is_none());
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let (go, wait) = mpsc::channel::<()>();
        let error = within(Duration::from_millis(20), move || wait.recv()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(go);
        assert_eq!(within(Duration::from_mins(1), || 7).unwrap(), 7);
    }

    #[test]
    fn the_innermost_mount_counts_and_its_options_say_how_far_locks_reach() {
        let table = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                     41 27 0:38 / /u rw shared:3 - nfs4 server:/u rw,vers=4.2,local_lock=none\n\
                     42 41 0:39 / /u/with\\040blank rw - nfs server:/x rw,local_lock=all\n\
                     43 27 0:40 / /scratch rw - lustre 10.0.0.1@tcp:/x rw,flock\n\
                     44 27 0:41 / /work rw - gpfs work rw\n\
                     45 27 0:42 / /mnt rw - ext4 /dev/vdb rw\n\
                     46 27 0:43 / /mnt rw - fuse.bindfs /x rw\n";
        for (folder, kind, locks) in [
            ("/srv", "ext4", Reach::Machine),
            ("/u/me", "nfs4", Reach::Cluster),
            ("/us", "ext4", Reach::Machine),
            ("/u/with blank/x", "nfs", Reach::Node),
            ("/scratch/me", "lustre", Reach::Cluster),
            ("/work", "gpfs", Reach::Node),
            ("/mnt/x", "fuse.bindfs", Reach::Node),
        ] {
            let found = FileSystem::in_table(Path::new(folder), table).unwrap();
            assert_eq!((found.kind.as_str(), found.reach), (kind, locks), "{folder}");
        }
        assert_eq!(FileSystem::in_table(Path::new("/x"), ""), None);
        assert_eq!(reach("lustre", "rw"), Reach::Nowhere);
        assert_eq!(reach("lustre", "rw,localflock"), Reach::Node);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_file_system_of_processes_is_known() {
        let found = FileSystem::of(Path::new("/proc/self")).unwrap();
        assert_eq!((found.kind.as_str(), found.reach), ("proc", Reach::Machine));
    }
}
