//! Limits of the machine and its administrator: cores, memory, files. Linux tells them; elsewhere little is known.

use std::path::{Path, PathBuf};

use super::fs;

/// Files of the kernel are short, whatever their length says.
const LARGEST: u64 = 1 << 20;
/// Groups mean "no limit" by a number near the largest; no machine has as much.
const UNLIMITED: u64 = 1 << 60;

/// What a process may use. What is not known or not limited is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Machine {
    /// Cores that the system has.
    pub cores: Option<usize>,
    /// Processor time per time that the groups of the process allow: 1.5 is one and a half cores.
    pub quota: Option<f64>,
    /// Bytes of memory in all.
    pub memory: Option<u64>,
    /// Bytes of memory that could be had now.
    pub available: Option<u64>,
    /// Bytes of memory that the groups of the process allow.
    pub group_memory: Option<u64>,
    /// Bytes of addresses (`ulimit -v`).
    pub addresses: Option<u64>,
    /// Open files (`ulimit -n`).
    pub files: Option<u64>,
    /// Processes and threads: `ulimit -u`, or what the groups allow if that is less.
    pub processes: Option<u64>,
    /// Bytes of a file (`ulimit -f`).
    pub file_size: Option<u64>,
}

impl Machine {
    /// This one, as this process may use it.
    pub fn look() -> Self {
        Self::of(Path::new("/"))
    }

    /// Bytes of memory in all that this process may use.
    pub fn memory_in_all(&self) -> Option<u64> {
        [self.memory, self.group_memory, self.addresses].into_iter().flatten().min()
    }

    /// The same where `proc` and `sys` lie below another root.
    fn of(root: &Path) -> Self {
        let text = |path: &str| {
            let bytes = fs::read_at_most(&root.join(path), LARGEST).ok()?;
            String::from_utf8(bytes).ok()
        };
        let [memory, limits, status] =
            ["meminfo", "self/limits", "cpuinfo"].map(|file| text(&format!("proc/{file}")).unwrap_or_default());
        let kilobytes = |name: &str| {
            let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let limit =
            |name: &str| limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok();
        let cores = status.lines().filter(|line| line.starts_with("processor")).count();
        let groups = Groups { root, table: text("proc/self/cgroup").unwrap_or_default() };
        let quota = |text: &str| {
            // Version 2 has both numbers in one file.
            let (quota, period) = text.trim().split_once(' ')?;
            Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
        };
        // Version 1 says -1 where there is no limit.
        let positive = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
        let old_quota = || {
            let [quota, period] = ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| groups.least("cpu", file, positive));
            Some(quota? / period?)
        };
        let number = |text: &str| text.trim().parse::<u64>().ok().filter(|&number| number < UNLIMITED);
        let processes: [Option<u64>; 2] =
            [limit("Max processes"), groups.least("pids", "pids.max", number).or_else(|| groups.least("", "pids.max", number))];
        Self {
            cores: (cores > 0).then_some(cores),
            quota: groups.least("", "cpu.max", quota).or_else(old_quota),
            memory: kilobytes("MemTotal:"),
            available: kilobytes("MemAvailable:"),
            group_memory: groups
                .least("", "memory.max", number)
                .or_else(|| groups.least("memory", "memory.limit_in_bytes", number)),
            addresses: limit("Max address space"),
            files: limit("Max open files"),
            processes: processes.into_iter().flatten().min(),
            file_size: limit("Max file size"),
        }
    }
}

/// The control groups of the process.
struct Groups<'a> {
    root: &'a Path,
    /// `/proc/self/cgroup`: lines of `number:controllers:path`; no controllers in version 2.
    table: String,
}

impl Groups<'_> {
    /// The least that the group of a controller (version 2: none) and those above it allow, by this file of theirs.
    fn least<N: PartialOrd>(&self, controller: &str, file: &str, read: impl Fn(&str) -> Option<N>) -> Option<N> {
        let mounts = self.root.join("sys/fs/cgroup");
        let path = self.table.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/'))
        })?;
        // `unified` where both versions are mounted.
        let tops: Vec<PathBuf> =
            if controller.is_empty() { vec![mounts.clone(), mounts.join("unified")] } else { vec![mounts.join(controller)] };
        let mut least: Option<N> = None;
        for top in tops {
            // In a container the path may be that of the machine outside: then the top is its own group.
            let inner = top.join(path);
            for folder in inner.ancestors().take_while(|folder| folder.starts_with(&top)) {
                let found =
                    fs::read_at_most(&folder.join(file), LARGEST).ok().and_then(|bytes| read(&String::from_utf8_lossy(&bytes)));
                if let Some(found) = found
                    && least.as_ref().is_none_or(|least| found < *least)
                {
                    least = Some(found);
                }
            }
        }
        least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rooted(files: &[(&str, &str)]) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_folders(fs::parent(&path)).unwrap();
            fs::write_atomic(&path, text.as_bytes()).unwrap();
        }
        Machine::of(dir.path())
    }

    #[test]
    fn the_tightest_group_and_the_limits_count() {
        let found = rooted(&[
            ("proc/meminfo", "MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    500 kB\n"),
            ("proc/cpuinfo", "processor\t: 0\nmodel name: x\n\nprocessor\t: 1\n"),
            (
                "proc/self/limits",
                "Limit                     Soft Limit           Hard Limit           Units     \nMax file size             unlimited            unlimited            bytes     \nMax processes             96365                96365                processes \nMax open files            256                20000                files     \nMax address space         4096            unlimited            bytes     \n",
            ),
            ("proc/self/cgroup", "0::/user/job\n"),
            ("sys/fs/cgroup/user/job/memory.max", "max\n"),
            ("sys/fs/cgroup/user/memory.max", "300000\n"),
            ("sys/fs/cgroup/user/job/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/user/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/user/pids.max", "100\n"),
        ]);
        let wanted = Machine {
            cores: Some(2),
            quota: Some(1.5),
            memory: Some(1_024_000),
            available: Some(512_000),
            group_memory: Some(300_000),
            addresses: Some(4096),
            files: Some(256),
            processes: Some(100),
            file_size: None,
        };
        assert_eq!(found, wanted);
    }

    #[test]
    fn groups_of_the_first_version_are_known_too_and_no_limit_is_none() {
        let table = ("proc/self/cgroup", "5:pids:/\n4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n");
        let found = rooted(&[
            table,
            ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "5000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/pids/pids.max", "77\n"),
        ]);
        assert_eq!(found, Machine { quota: Some(0.5), group_memory: Some(5000), processes: Some(77), ..Machine::default() });
        let none = rooted(&[
            table,
            ("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "1\n"),
        ]);
        assert_eq!(none, Machine::default());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_says_what_it_has() {
        let found = Machine::look();
        assert!(found.cores >= Some(1) && found.memory > found.available && found.files >= Some(1), "{found:?}");
    }
}
