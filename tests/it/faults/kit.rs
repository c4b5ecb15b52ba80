//! A series of faults: processes that may hang, what each left behind, and the row that sums them up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::CommandFactory;
use kinset::base::clock::Stopwatch;
use kinset::base::seed::Rng;
use kinset::cli::args::Cli;

use super::super::harness::{Bench, Said, files_below, sorted};

/// What each output says, by `stage.output`.
pub(super) type Digests = BTreeMap<String, String>;

/// As many as a sample takes, or as the long campaign does.
pub(crate) fn count(sample: usize, campaign: usize) -> usize {
    if std::env::var("KINSET_FAULTS").is_ok_and(|kind| kind == "long") { campaign } else { sample }
}

/// A process that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// What stands for the exit code of one that hung.
pub(super) const HUNG: i32 = -1000;

/// Starts a process and waits for its end, or for the end of patience. The exit code is minus the signal, if one ended it.
pub(super) fn attempt(command: &mut Command) -> Said {
    attempt_into(command, Stdio::piped())
}

/// Reads a pipe to its end beside whatever goes on.
fn reading(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// As [`attempt`], with standard output led somewhere.
pub(super) fn attempt_into(command: &mut Command, out: Stdio) -> Said {
    let mut child = command.stdout(out).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (reading(child.stdout.take()), reading(child.stderr.take()));
    let exit = wait(&mut child, PATIENCE);
    let (out, err) = (out.join().unwrap(), err.join().unwrap());
    let json = serde_json::from_str(&out).unwrap_or_default();
    Said { exit, out, err, json }
}

/// Waits so long, then kills it.
pub(super) fn wait(child: &mut Child, patience: Duration) -> i32 {
    let clock = Stopwatch::start();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or_else(|| -status.signal().unwrap_or(1));
        }
        if clock.elapsed() > patience {
            let _ = child.kill();
            let _ = child.wait();
            return HUNG;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

/// The exit codes that `kinset --help` lists, but for that of our own bugs.
pub(super) fn documented() -> BTreeSet<i32> {
    let help = Cli::command().get_after_help().unwrap().to_string();
    let codes = help.split_once("Exit codes:").unwrap().1;
    let numbers = codes.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
    let codes: BTreeSet<i32> = numbers.filter(|&code| code != 70).collect();
    assert!(codes.contains(&0) && codes.contains(&75) && codes.len() > 6, "{codes:?}");
    codes
}

/// What a series of faults of one kind did.
pub(super) struct Series {
    what: &'static str,
    documented: BTreeSet<i32>,
    runs: usize,
    exits: Vec<String>,
    differing: Vec<String>,
    left: Vec<String>,
}

impl Series {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, documented: documented(), runs: 0, exits: Vec::new(), differing: Vec::new(), left: Vec::new() }
    }

    /// A disturbed process ended. Any documented code will do.
    pub(super) fn ended(&mut self, how: &str, said: &Said) {
        self.ended_with(how, said, &[]);
    }

    /// A disturbed process ended, for which these codes are due.
    pub(super) fn ended_with(&mut self, how: &str, said: &Said, due: &[i32]) {
        self.runs += 1;
        let fits = if due.is_empty() { self.documented.contains(&said.exit) } else { due.contains(&said.exit) };
        let bug = [&said.out, &said.err].into_iter().any(|text| text.contains("panicked at") || text.contains("bug in kinset"));
        if !fits || bug {
            let code = match said.exit {
                HUNG => "it hangs".to_owned(),
                code => format!("exit {code}"),
            };
            self.exits.push(format!("{how}: {code}, due {due:?}: {}", tail(&said.err)));
        }
    }

    /// Notes a difference where there should be none.
    pub(super) fn same<T: PartialEq>(&mut self, how: &str, found: &T, wanted: &T) {
        if found != wanted {
            self.differing.push(how.to_owned());
        }
    }

    /// An undisturbed run ends well and says what a never disturbed one said; the store is sound, and nothing half-written is left.
    /// True if so.
    pub(super) fn recovers(&mut self, how: &str, bench: &Bench, args: &[&str], wanted: &Digests) -> bool {
        let before = self.faults();
        let said = attempt(&mut bench.command(args));
        if said.exit == 0 {
            self.same(&format!("{how}: other digests"), &said.digests(), wanted);
        } else {
            self.differing.push(format!("{how}: the next run ends with {}: {}", said.exit, tail(&said.err)));
        }
        let said = attempt(&mut bench.command(&["verify", "--json"]));
        if said.exit != 0 {
            self.left.push(format!("{how}: `verify` ends with {}: {}{}", said.exit, tail(&said.err), tail(&said.out)));
        }
        self.clean(how, &bench.path(""));
        self.faults() == before
    }

    /// Nothing half-written lies below a folder.
    pub(super) fn clean(&mut self, how: &str, folder: &Path) {
        let half = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(".tmp") || name.starts_with(".probe") || path.extension().is_some_and(|ending| ending == "part")
        };
        let mut found: Vec<PathBuf> = files_below(folder).into_iter().filter(half).collect();
        found.extend(sorted(&folder.join("artifacts/store/tmp")));
        if !found.is_empty() {
            self.left.push(format!("{how}: half-written: {found:?}"));
        }
    }

    fn faults(&self) -> usize {
        self.exits.len() + self.differing.len() + self.left.len()
    }

    /// Prints the row, and fails if anything is in it that should not.
    #[track_caller]
    pub(super) fn finish(self) {
        let Self { what, runs, exits, differing, left, .. } = self;
        println!(
            "faults | {what:<58} | {runs:>4} runs | {:>3} digests differ | {:>3} wrong exit codes | {:>3} left behind",
            differing.len(),
            exits.len(),
            left.len()
        );
        assert!(runs > 0, "{what}: nothing was tried");
        let mut text = String::new();
        for (kind, found) in [("digests or answers differ", differing), ("wrong exit codes", exits), ("left behind", left)] {
            if !found.is_empty() {
                let _ = writeln!(text, "{kind} ({}):\n  {}", found.len(), found.join("\n  "));
            }
        }
        assert!(text.is_empty(), "{what}, {runs} runs\n{text}");
    }
}

/// The end of what was said.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" / ")
}

/// True if this process may do what others may not: permissions then say nothing.
pub(super) fn privileged() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

impl Bench {
    /// kinset as somebody for whom permissions hold; what the bench holds is not theirs to write.
    pub(super) fn command_of_a_guest(&self, args: &[&str]) -> Command {
        let mut command = self.command(args);
        if privileged() {
            // Where it was built, others may not look.
            let copy = self.path("kinset-program");
            if !copy.exists() {
                fs::copy(env!("CARGO_BIN_EXE_kinset"), &copy).unwrap();
            }
            fs::set_permissions(self.path(""), fs::Permissions::from_mode(0o755)).unwrap();
            let mut other = Command::new(copy);
            other
                .args(args)
                .current_dir(self.path(""))
                .stdin(Stdio::null())
                .env("NO_COLOR", "1")
                .env("HF_HOME", self.path("hf"));
            other.uid(65534).gid(65534);
            command = other;
        }
        command
    }
}

/// What can become of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Flipped,
    Cut,
    LastByteCut,
    Empty,
    Gone,
    FolderInstead,
    FifoInstead,
    LinkToItself,
}

impl Damage {
    pub(super) const ALL: [Self; 8] = [
        Self::Flipped,
        Self::Cut,
        Self::LastByteCut,
        Self::Empty,
        Self::Gone,
        Self::FolderInstead,
        Self::FifoInstead,
        Self::LinkToItself,
    ];

    /// Does it to a file, of which no more than a few bytes are read. What was there can be put back.
    pub(super) fn to(self, path: &Path, rng: &mut Rng) -> Damaged {
        let aside = PathBuf::from(format!("{}.aside", path.display()));
        let len = fs::metadata(path).unwrap().len();
        let permissions = fs::metadata(path).unwrap().permissions();
        fs::rename(path, &aside).unwrap();
        let start = |length: u64| {
            let mut file = fs::File::open(&aside).unwrap().take(length);
            std::io::copy(&mut file, &mut fs::File::create(path).unwrap()).unwrap();
        };
        match self {
            Self::Flipped => {
                start(len);
                if len > 0 {
                    use std::os::unix::fs::FileExt;
                    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
                    let at = rng.below(len as usize) as u64;
                    let mut byte = [0];
                    file.read_exact_at(&mut byte, at).unwrap();
                    file.write_all_at(&[byte[0] ^ (1 << rng.below(8))], at).unwrap();
                }
            }
            Self::Cut => start((len / 2).min(1000)),
            Self::LastByteCut => start(len.saturating_sub(1)),
            Self::Empty => start(0),
            Self::Gone => {}
            Self::FolderInstead => fs::create_dir(path).unwrap(),
            Self::FifoInstead => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            Self::LinkToItself => std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap(),
        }
        if path.is_file() {
            fs::set_permissions(path, permissions).unwrap();
        }
        Damaged { path: path.to_owned(), aside }
    }
}

/// A damaged file, and the whole one beside it.
pub(super) struct Damaged {
    path: PathBuf,
    aside: PathBuf,
}

impl Damaged {
    /// Puts the whole one back.
    pub(super) fn undo(self) {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.path).unwrap(),
            Ok(_) => fs::remove_file(&self.path).unwrap(),
            Err(_) => {}
        }
        fs::rename(&self.aside, &self.path).unwrap();
    }

    /// The first line that differs.
    pub(super) fn first_difference(&self) -> String {
        let [damaged, whole] = [&self.path, &self.aside].map(|path| fs::read(path).unwrap());
        let [damaged, whole] = [&damaged, &whole].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let pair = damaged.lines().zip(whole.lines()).find(|(damaged, whole)| damaged != whole);
        pair.map_or_else(|| "a line less".to_owned(), |(damaged, whole)| format!("`{}` for `{}`", damaged.trim(), whole.trim()))
    }

    /// Lets it be: the whole one is lost.
    pub(super) fn keep(self) {
        fs::remove_file(&self.aside).unwrap();
    }
}
