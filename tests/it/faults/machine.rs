//! A machine that refuses: full disks, files that may not grow, system calls that fail, no more threads, places that are read-only.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use kinset::base::seed::{Rng, Seed};

use super::super::bad_input::Disk;
use super::super::harness::{Bench, CHEAP, Said, WHOLE, files_below};
use super::kit::{Digests, HUNG, Series, attempt, count};

const RUN: [&str; 6] = ["run", "p.toml", "--json", "--checkpoint-every", "0", "--threads=2"];

/// The exit code of a machine's fault.
const MACHINE: i32 = 7;

#[test]
fn a_disk_that_is_full_at_any_write_loses_nothing() {
    let quiet = Bench::with(&WHOLE);
    let wanted = quiet.run(&["--no-report"]).done().digests();
    // Pages, as the small disk counts them.
    let room: u64 =
        files_below(&quiet.path("artifacts")).iter().map(|file| fs::metadata(file).unwrap().len().div_ceil(4096)).sum();
    let mut series = Series::new("full disk");
    let (times, mut met) = (count(4, 30), 0);
    for number in 0..times {
        let bench = Bench::with(&WHOLE);
        let size = 4 * (2 + room * number as u64 / times as u64);
        let Some(disk) = Disk::mount(bench.path("artifacts"), &format!("{size}k")) else { return };
        let how = format!("a disk of {size} KiB");
        let said = attempt(&mut bench.command(&RUN));
        series.ended_with(&how, &said, &[MACHINE, 0]);
        met += usize::from(said.exit == MACHINE);
        disk.remount("size=64m");
        series.recovers(&how, &bench, &RUN, &wanted);
    }
    assert!(met > times / 2, "only {met} of {times} disks were full");
    series.finish();
}

/// kinset, started by another program.
fn under(bench: &Bench, program: &str, before: &[&str], args: &[&str]) -> Command {
    let own = bench.command(args);
    let mut command = Command::new(program);
    command.args(before).arg(own.get_program()).args(args).current_dir(bench.path("")).stdin(Stdio::null());
    for (name, value) in own.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// kinset under a shell's limits. A file that grows too long is an error then, not the end.
pub(super) fn limited(bench: &Bench, limits: &str, args: &[&str]) -> Command {
    under(bench, "sh", &["-c", &format!("trap '' XFSZ; {limits}; exec \"$0\" \"$@\"")], args)
}

#[test]
fn files_that_may_not_grow_lose_nothing() {
    let wanted = Bench::with(&WHOLE).run(&["--no-report"]).done().digests();
    let mut series = Series::new("files that may not grow");
    for number in 0..count(3, 12) {
        let bench = Bench::with(&WHOLE);
        // Blocks of 512 bytes: 1, 4, 16 … in the sample.
        let blocks = if count(0, 1) == 0 { 4_u32.pow(number as u32) } else { 1 + number as u32 * number as u32 };
        let how = format!("files of {blocks} blocks");
        let said = attempt(&mut limited(&bench, &format!("ulimit -f {blocks}"), &RUN));
        series.ended_with(&how, &said, &[MACHINE, 0]);
        series.recovers(&how, &bench, &RUN, &wanted);
    }
    series.finish();
}

#[test]
fn too_few_files_or_threads_lose_nothing() {
    let wanted = Bench::with(CHEAP).run(&["--no-report"]).done().digests();
    let mut series = Series::new("too few files or threads");
    for number in 0..count(4, 20) {
        let bench = Bench::with(CHEAP);
        for limits in [format!("ulimit -n {}", 4 + 3 * number), format!("ulimit -v {}", 60_000 + 40_000 * number)] {
            let said = attempt(&mut limited(&bench, &limits, &RUN));
            // The system's loader needs files and memory too, and has exit codes of its own.
            if !(said.exit == 127 && said.err.contains("error while loading shared libraries")) {
                series.ended_with(&limits, &said, &[MACHINE, 0]);
            }
            series.recovers(&limits, &bench, &RUN, &wanted);
        }
    }
    series.finish();
}

/// True where `strace` may change what system calls return.
static TRACING: LazyLock<bool> = LazyLock::new(|| {
    let tried =
        Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=getpid:error=EPERM", "true"]).status();
    let can = tried.is_ok_and(|status| status.success());
    if !can {
        println!("skipped: `strace` is not here, or may not trace");
    }
    can
});

/// kinset, with this done to its system calls.
fn traced(bench: &Bench, rule: &str, log: &str, args: &[&str]) -> Command {
    under(bench, "strace", &["-f", "-qq", "--seccomp-bpf", "-o", log, "-e", rule], args)
}

/// The system calls of a run that touch files, memory or threads, and how often the busiest thread made each.
fn calls(bench: &Bench) -> BTreeMap<String, usize> {
    let log = bench.path("calls.log");
    let rule = "trace=%file,%desc,clone3,clone,mmap,mremap,munmap,brk";
    assert_eq!(attempt(&mut traced(bench, rule, log.to_str().unwrap(), &RUN)).exit, 0);
    let mut by_thread: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            *by_thread.entry((call.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, usize> = BTreeMap::new();
    for ((call, _), times) in by_thread {
        let known = most.entry(call).or_default();
        *known = times.max(*known);
    }
    // They start the program itself, or wait.
    most.retain(|call, _| !["execve", "epoll_wait", "poll", "close"].contains(&call.as_str()));
    most
}

/// An error that a system call may well give.
fn error_of(call: &str, rng: &mut Rng) -> &'static str {
    let errors: &[&str] = match call {
        "write" | "pwrite64" | "writev" | "ftruncate" | "fallocate" | "fsync" | "fdatasync" => &["ENOSPC", "EIO", "EDQUOT"],
        "mkdir" | "mkdirat" | "rename" | "renameat" | "renameat2" | "link" | "linkat" | "symlink" => {
            &["ENOSPC", "EIO", "EROFS"]
        }
        "open" | "openat" => &["EIO", "EMFILE", "EACCES", "ENFILE"],
        "mmap" | "mremap" | "brk" => &["ENOMEM"],
        "clone" | "clone3" => &["EAGAIN"],
        "flock" | "fcntl" => &["ENOLCK", "EIO"],
        _ => &["EIO"],
    };
    errors[rng.below(errors.len())]
}

/// True where a process ends by what runs before our code does, in three ways only:
///
/// - The system's loader fails: with its exit code, or by a signal without a word.
/// - glibc ends the process.
/// - The standard library has no room for the small stack on which an overflow of a thread's own would be told. It panics then: on
///   the main thread before `main`, on another after its start was reported to have succeeded, so nobody can catch it or be told.
///   (A thread that cannot be started at all is an error, and counts.)
fn ends_before_our_code(call: &str, said: &Said) -> bool {
    let no_stack = match call {
        "mmap" => "failed to allocate an alternative stack: ",
        "mprotect" => "failed to set up alternative stack guard page: ",
        _ => "Fatal glibc error",
    };
    // `strace` has its own word to say first.
    let silent = said.err.lines().all(|line| line.starts_with("strace: "));
    let ended = said.exit != 0 && said.exit != HUNG;
    said.exit == 127
        || (said.exit < 0 && silent)
        || (ended && ["Fatal glibc error", no_stack].iter().any(|word| said.err.contains(word)))
}

#[test]
fn system_calls_that_fail_lose_nothing() {
    if !*TRACING {
        return;
    }
    let quiet = Bench::with(CHEAP);
    let wanted: Digests = quiet.run(&["--no-report"]).done().digests();
    let calls: Vec<(String, usize)> = calls(&Bench::with(CHEAP)).into_iter().collect();
    let mut series = Series::new("injected errors of system calls");
    let mut rng = Seed::new(23).branch("calls").rng();
    let mut bench = Bench::with(CHEAP);
    // A sample takes different calls; the campaign each of them at several of its times.
    let (due, mut counted) = (count(20, 300), 0);
    for number in 0..2 * due {
        if counted == due {
            break;
        }
        let (call, most) = &calls[(number * 7) % calls.len()];
        let (error, when) = (error_of(call, &mut rng), 1 + rng.below(*most));
        // From there on, as on a disk that is gone, or once.
        let rest = if rng.below(2) == 0 { "+" } else { "" };
        let how = format!("{call}:error={error}:when={when}{rest}");
        let said = attempt(&mut traced(&bench, &format!("inject={how}"), "/dev/null", &RUN));
        if !ends_before_our_code(call, &said) {
            series.ended(&how, &said);
            counted += 1;
        }
        if said.exit == 0 {
            // A report that cannot be written costs no result.
            series.same(&how, &said.digests(), &wanted);
        }
        if !series.recovers(&how, &bench, &RUN, &wanted) || number % 2 == 0 {
            bench = Bench::with(CHEAP);
        }
    }
    assert_eq!(counted, due, "half of the failing calls end a process before our code runs");
    series.finish();
}

#[test]
fn a_place_that_others_own_is_read_and_named_when_written() {
    let mut series = Series::new("read-only places, by permissions");
    let bench = Bench::with(CHEAP);
    let wanted = bench.run(&[]).done().digests();
    let text = bench.path("p.toml");
    for (how, args, due) in [
        ("looking", &["plan", "p.toml"][..], &[0][..]),
        ("looking", &["status", "p.toml"], &[0]),
        ("looking", &["verify"], &[0]),
        ("looking", &["inspect", "p.toml", "features"], &[0]),
        ("looking", &["predict", "p.toml", "none"], &[4]),
        ("a run with nothing to do", &["run", "p.toml"], &[0, 6]),
        ("a run with something to do", &["run", "p.toml", "--set", "stage.neighbors.k=4"], &[6]),
        ("a repair", &["verify", "--repair"], &[0, 6]),
        ("an export", &["export", "p.toml", "kmeans", "--output", "k.onnx"], &[6, 7]),
        ("an export elsewhere", &["export", "p.toml", "kmeans", "--output", "/proc/k.onnx"], &[4, 6, 7]),
        ("a report", &["report", "p.toml"], &[6, 7]),
        ("a search", &["similar", "--target", "features.csv", "--pool", "features.csv", "--save-dir", "like"], &[6, 7]),
    ] {
        let said = attempt(&mut bench.command_of_a_guest(args));
        series.ended_with(&format!("{how}: {}", args.join(" ")), &said, due);
    }
    // What may not even be read.
    let record = files_below(&bench.path("artifacts/store/records")).swap_remove(0);
    let blob = files_below(&bench.path("artifacts/store/blobs")).swap_remove(0);
    for path in [&text, &record, &blob] {
        let before = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        for args in [&["plan", "p.toml"][..], &["run", "p.toml"], &["verify"], &["inspect", "p.toml", "features"]] {
            series.ended(
                &format!("{} unreadable: {}", path.display(), args.join(" ")),
                &attempt(&mut bench.command_of_a_guest(args)),
            );
        }
        fs::set_permissions(path, before).unwrap();
    }
    series.recovers("with permissions", &bench, &["run", "p.toml", "--json"], &wanted);
    series.finish();
}
