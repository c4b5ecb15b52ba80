//! Identities of processes: which process of which machine wrote something, and whether it is still there.
//!
//! Several machines may have one store mounted, so a process number alone says nothing. What is temporary in the store carries the
//! whole name in its own, and a lease in its text.

use std::path::Path;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::digest::Hasher;
use kinset_base::fs;

/// Names this machine where its own name does not: containers whose names change, machines of one name.
pub const VARIABLE: &str = "KINSET_HOST";

/// Hex digits of a digest that tell machines and boots apart.
const DIGITS: usize = 8;
/// Characters of a machine's name in the name of a file.
const NAMED: usize = 40;
/// Files of the kernel are short, whatever their length says.
const LARGEST: u64 = 1 << 16;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// The name of its machine.
    pub(super) host: String,
    /// What tells machines of one name apart.
    machine: String,
    /// The machine's start; empty where the system does not tell.
    boot: String,
    /// Within which its number is one: containers have numbers of their own.
    space: String,
    pub(super) pid: u32,
    /// When it began, on the clock of its machine: numbers are given again.
    began: u64,
}

/// Whether a process is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Running,
    Gone,
    /// It cannot be seen from here.
    Unknown,
}

static THIS: LazyLock<Process> = LazyLock::new(Process::look);

impl Process {
    /// This one.
    pub(super) fn this() -> &'static Self {
        &THIS
    }

    fn look() -> Self {
        let text = |path: &str| text(path).unwrap_or_default();
        let named = std::env::var(VARIABLE).ok().filter(|name| !name.trim().is_empty());
        let host = named.as_ref().map_or_else(own_host, |name| name.trim().to_owned());
        let machine = if named.is_some() { short(&[&host]) } else { short(&[&host, &text("/etc/machine-id")]) };
        let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default().to_string_lossy().into_owned();
        let pid = std::process::id();
        Self {
            machine,
            boot: short(&[&text("/proc/sys/kernel/random/boot_id")]),
            space: space.chars().filter(char::is_ascii_digit).collect(),
            began: began(pid).flatten().unwrap_or(0),
            host,
            pid,
        }
    }

    /// For the names of files: host, boot and process. No two processes have the same.
    pub(super) fn tag(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
        let host: String = self.host.chars().map(plain).take(NAMED).collect();
        let Self { machine, boot, space, pid, began, .. } = self;
        format!("{host}-{machine}-{boot}.{space}-{pid}.{began}")
    }

    /// The process in a name `<prefix><tag>-<letters>`; nothing for other names.
    pub(super) fn in_name(name: &str, prefix: &str) -> Option<Self> {
        let (tag, _) = name.strip_prefix(prefix)?.rsplit_once('-')?;
        Self::parse(tag)
    }

    pub(super) fn parse(tag: &str) -> Option<Self> {
        let mut parts = tag.rsplitn(4, '-');
        let (pid, began) = parts.next()?.split_once('.')?;
        let (boot, space) = parts.next()?.split_once('.')?;
        let (machine, host) = (parts.next()?, parts.next()?);
        let [host, machine, boot, space] = [host, machine, boot, space].map(str::to_owned);
        Some(Self { host, machine, boot, space, pid: pid.parse().ok()?, began: began.parse().ok()? })
    }

    /// True if both run under one kernel, be it in containers of different names.
    pub(super) fn shares_kernel(&self, other: &Self) -> bool {
        self.boot == other.boot && (!self.boot.is_empty() || self.machine == other.machine)
    }

    /// What tells machines apart in the names of files.
    pub(super) fn machine_tag(&self) -> String {
        self.tag().rsplitn(3, '-').last().unwrap_or_default().to_owned()
    }

    /// Whether it is still there, as this other process sees it.
    pub(super) fn fate(&self, seen_by: &Self) -> Fate {
        if self.machine != seen_by.machine {
            return Fate::Unknown;
        }
        if self.boot != seen_by.boot {
            return if self.boot.is_empty() || seen_by.boot.is_empty() { Fate::Unknown } else { Fate::Gone };
        }
        if self.space != seen_by.space {
            return Fate::Unknown;
        }
        match began(self.pid) {
            Some(Some(began)) if began == self.began => Fate::Running,
            Some(_) => Fate::Gone,
            None if (self.pid, self.began) == (seen_by.pid, seen_by.began) => Fate::Running,
            None => Fate::Unknown,
        }
    }
}

fn text(path: &str) -> Option<String> {
    let bytes = fs::read_at_most(Path::new(path), LARGEST).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn own_host() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .into_iter()
        .filter_map(text)
        .chain(["HOSTNAME", "COMPUTERNAME"].into_iter().filter_map(|name| std::env::var(name).ok()))
        .map(|name| name.trim().to_owned())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "this machine".into())
}

/// Nothing of an empty text, so that what is not known equals nothing else by chance.
fn short(parts: &[&str]) -> String {
    if parts.iter().all(|part| part.is_empty()) {
        return String::new();
    }
    let mut hasher = Hasher::derived("kinset 2026-11 machine");
    for part in parts {
        hasher.field(part);
    }
    hasher.finish().hex()[..DIGITS].to_owned()
}

/// When the process with this number began, in ticks since the start of the machine; `Some(None)`: there is none, or a dead one that
/// nobody has buried. `None`: the system does not tell (Linux does).
#[expect(clippy::option_option, reason = "not known is not the same as not there")]
fn began(pid: u32) -> Option<Option<u64>> {
    if !Path::new("/proc/self/stat").exists() {
        return None;
    }
    let Some(line) = text(&format!("/proc/{pid}/stat")) else {
        // Where processes of others are hidden, so is the first of all.
        return Path::new("/proc/1/stat").exists().then_some(None);
    };
    // The name of the program stands in parentheses, and may hold any character.
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    if matches!(fields.first(), Some(&("Z" | "X"))) {
        return Some(None);
    }
    Some(Some(fields.get(19)?.parse().ok()?))
}

#[cfg(test)]
impl Process {
    /// This one, as if it ran on a machine of another name.
    pub(super) fn on(host: &str) -> Self {
        Self { host: host.to_owned(), machine: short(&[host]), ..Self::this().clone() }
    }

    /// One of this machine that is not there any more.
    pub(super) fn gone() -> Self {
        Self { began: Self::this().began + 1, ..Self::this().clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_which_process_and_is_a_plain_name() {
        let odd = Process { host: "node-7 größe/..".into(), ..Process::this().clone() };
        let tag = odd.tag();
        assert!(tag.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)), "{tag}");
        let read = Process::in_name(&format!("draft-{tag}-x9Z"), "draft-").unwrap();
        assert_eq!(Process { host: odd.host.clone(), ..read }, odd);
        for none in ["draft-1lN1nO", "draft-", "draft-a-b-c-d", "new-1"] {
            assert_eq!(Process::in_name(none, "draft-"), None, "{none}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn who_is_there_is_known_on_one_machine_and_not_from_another() {
        let me = Process::this();
        assert_eq!(me.fate(me), Fate::Running);
        assert_eq!(Process::gone().fate(me), Fate::Gone, "the number was given to another");
        assert_eq!(Process { pid: u32::MAX, ..me.clone() }.fate(me), Fate::Gone);
        assert_eq!(Process { boot: "0".into(), ..me.clone() }.fate(me), Fate::Gone, "the machine was started anew");
        assert_eq!(Process { space: "0".into(), ..me.clone() }.fate(me), Fate::Unknown, "in another container");
        assert_eq!(Process::on("other").fate(me), Fate::Unknown);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while began(pid) != Some(None) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }
}
