//! The file system of a folder: its kind, how far its locks reach, its free space, and whether it can do what the store relies on.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::digest::Hasher;
use super::disk::rename_new;
use super::lock::has_no_locks;
use super::process::Process;
use kinset_base::fs::{self, At, Result, UNFINISHED};

/// The longest table of mounts that is read.
const LARGEST: u64 = 1 << 24;
/// Written in a trial.
const TRIED: usize = 1 << 16;

/// Says how far the locks of the store reach where the table of mounts does not: `machine`, `cluster`, `node`, `none`.
pub const VARIABLE: &str = "KINSET_LOCKS";

/// Where a lock that one process holds keeps others out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

impl Reach {
    /// The values of [`VARIABLE`].
    pub(super) const NAMES: [(&str, Self); 4] =
        [("machine", Self::Machine), ("cluster", Self::Cluster), ("node", Self::Node), ("none", Self::Nowhere)];

    /// In words, of a file system whose locks have this reach.
    pub fn words(self) -> &'static str {
        match self {
            Self::Machine => "of this machine alone",
            Self::Cluster => "shared, with locks that hold on all machines",
            Self::Node => "shared, with locks that hold on this machine only",
            Self::Nowhere => "without locks",
        }
    }
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

    /// A line is `id parent device root point options … - kind source options`; of two at one point the later lies on top. A kind that
    /// is not known may be anybody's.
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
        kind if LOCAL.contains(&kind) => Reach::Machine,
        _ => Reach::Node,
    }
}

/// File systems that one machine alone can have mounted.
const LOCAL: [&str; 36] = [
    "apfs",
    "aufs",
    "bcachefs",
    "btrfs",
    "devtmpfs",
    "ecryptfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "fuseblk",
    "hfs",
    "hfsplus",
    "hugetlbfs",
    "iso9660",
    "jffs2",
    "jfs",
    "minix",
    "msdos",
    "nilfs2",
    "ntfs",
    "ntfs3",
    "overlay",
    "proc",
    "ramfs",
    "reiserfs",
    "rootfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "udf",
    "vfat",
    "xfs",
    "zfs",
];

/// A number for the file system with this device number, the same on all machines if they share it. Device numbers are not: each
/// machine counts its mounts.
pub(super) fn volume(device: u64) -> u64 {
    static KNOWN: Mutex<BTreeMap<u64, u64>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry(device).or_insert_with(|| {
        let table = fs::read_at_most(Path::new("/proc/self/mountinfo"), LARGEST).unwrap_or_default();
        volume_in(&String::from_utf8_lossy(&table), device)
    })
}

fn volume_in(table: &str, device: u64) -> u64 {
    let mut hasher = Hasher::derived("kinset 2026-11 volume");
    match shared_source(table, device) {
        Some((kind, source)) => hasher.field(kind).field(source),
        None => hasher.field(&Process::this().machine_tag()).field(&device.to_string()),
    };
    let digest = hasher.finish().hex();
    u64::from_str_radix(&digest[..16], 16).unwrap_or(device)
}

/// Kind and source of a file system that other machines may have mounted too.
fn shared_source(table: &str, device: u64) -> Option<(&str, &str)> {
    let number = device_number(device);
    let (_, system) =
        table.lines().filter_map(|line| line.split_once(" - ")).find(|(mount, _)| mount.split(' ').nth(2) == Some(&number))?;
    let mut parts = system.split(' ');
    let (kind, source, options) = (parts.next()?, parts.next()?, parts.next().unwrap_or_default());
    (reach(kind, options) != Reach::Machine).then_some((kind, source))
}

/// As the table of mounts writes it.
fn device_number(device: u64) -> String {
    #[cfg(target_os = "linux")]
    return format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    #[cfg(not(target_os = "linux"))]
    device.to_string()
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

/// Does it on a thread of its own, and waits no longer than `patience` for what comes of it.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`]; if there can be no thread.
pub fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
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
                     46 27 0:43 / /mnt rw - fuse.bindfs /x rw\n\
                     47 27 0:44 / /odd rw - wekafs pool rw\n";
        for (folder, kind, locks) in [
            ("/srv", "ext4", Reach::Machine),
            ("/u/me", "nfs4", Reach::Cluster),
            ("/us", "ext4", Reach::Machine),
            ("/u/with blank/x", "nfs", Reach::Node),
            ("/scratch/me", "lustre", Reach::Cluster),
            ("/work", "gpfs", Reach::Node),
            ("/mnt/x", "fuse.bindfs", Reach::Node),
            ("/odd", "wekafs", Reach::Node),
        ] {
            let found = FileSystem::in_table(Path::new(folder), table).unwrap();
            assert_eq!((found.kind.as_str(), found.reach), (kind, locks), "{folder}");
        }
        assert_eq!(FileSystem::in_table(Path::new("/x"), ""), None);
        assert_eq!(reach("lustre", "rw"), Reach::Nowhere);
        assert_eq!(reach("lustre", "rw,localflock"), Reach::Node);
        assert!(LOCAL.is_sorted());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_shared_file_system_has_one_number_whatever_its_device_is_here() {
        let table = |device: &str| {
            format!(
                "41 27 {device} / /u rw - nfs4 server:/u rw\n42 27 0:9 / /v rw - nfs4 server:/v rw\n\
                 27 1 254:0 / / rw - ext4 /dev/vda rw\n"
            )
        };
        let [one, other, third, disk] = [(0, 38), (0, 77), (0, 9), (254, 0)].map(|(a, b)| rustix::fs::makedev(a, b));
        let number = volume_in(&table("0:38"), one);
        assert_eq!(volume_in(&table("0:77"), other), number);
        assert_ne!(volume_in(&table("0:77"), third), number);
        let none = rustix::fs::makedev(0, 99);
        assert_ne!(volume_in(&table("0:38"), disk), volume_in(&table("0:38"), none), "a disk is that of its machine");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_file_system_of_processes_is_known() {
        let found = FileSystem::of(Path::new("/proc/self")).unwrap();
        assert_eq!((found.kind.as_str(), found.reach), ("proc", Reach::Machine));
    }
}
