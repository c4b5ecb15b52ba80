//! `kinset doctor`: whether this machine and its folders are fit to run pipelines, to be read and to be pasted into a report of a bug.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::args::{CacheArgs, ClusterArgs, PlaceArgs};
use super::cluster::Where;
use super::common::{Answer, Failure, places};
use super::doctor_peers::peers;
use super::doctor_slurm::slurm;
use super::run_cache::Settings;
use super::terminal;
use super::version::Facts;
use crate::base::clock::Stopwatch;
use crate::base::fault::{Exit, Fault, chain};
use crate::base::fs::{self, FileError};
use crate::base::machine::Machine;
use crate::base::search_path::DataPaths;
use crate::base::unit;
use crate::dataset::hub::Repository;
use crate::dataset::{Entry, Source, registry};
use crate::gpu::{self, Card, Libraries};
use crate::pipeline::dispatch::rules::CacheMode;
use crate::remote::Remote;
use crate::store::Store;
use crate::store::place::{self, FileSystem, Lack, Reach};
use crate::train::device::DeviceName;

/// Check that this machine and its folders are fit to run pipelines; the answer can be pasted into a bug report
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is `ok`, a `warning` or a `fault`, with what to do. The exit code is that of the worst
fault, or 0 if there is none. Folders are tried out in a temporary folder inside them, which is
removed. Your home folder is shown as `~`, your user name as `USER`.

`--peers` is for a store that machines share: start it on two of them at the same time (`--peers 3`:
on three). They meet in the store, which is made if there is none, and say whether locks hold between
them, how soon one sees what another writes, and how far their clocks are apart.

Examples:
  kinset doctor
  kinset doctor --artifacts /scratch/artifacts --data /shared/data
  kinset doctor --cache s3://bucket/team
  srun -N 2 kinset doctor --artifacts /shared/artifacts --peers
  kinset doctor --device cuda:0")]
pub struct DoctorArgs {
    #[command(flatten)]
    places: PlaceArgs,
    /// Try this cache: s3://, gs://, az://, file://, https:// [default: $KINSET_CACHE, else that of the cluster file]
    #[arg(long, value_name = "URL")]
    cache: Option<String>,
    /// Meet the same command on other machines over the store; so many in all [2]
    #[arg(long, value_name = "MACHINES", num_args = 0..=1, default_missing_value = "2", value_parser = machines)]
    peers: Option<usize>,
    /// Compare a graphics card with the processor, kernel by kernel: cuda:0
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Reads how many machines meet.
fn machines(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (2..=64).contains(count))
        .ok_or_else(|| "a number of machines is expected, 2 to 64".to_owned())
}

/// A file system that takes longer to answer does not answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// With less space on a disk, or less memory, all but the smallest pipelines fail.
const LITTLE: u64 = 1 << 30;
/// A run opens some files per thread, and the tables that it reads.
const FEW_FILES: u64 = 256;
/// Threads beside those that compute: for reading, writing, signals and progress.
const FEW_THREADS: u64 = 32;

/// How well it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Ok,
    Warning,
    Fault(Exit),
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault(_) => "fault",
        }
    }
}

/// One thing that was looked at.
pub(super) struct Check {
    name: &'static str,
    pub(super) level: Level,
    pub(super) text: String,
    /// What to do.
    pub(super) hint: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, text: impl Into<String>) -> Self {
        Self { name, level: Level::Ok, text: text.into(), hint: None }
    }

    /// Adds what is wrong, and what to do; of several the worst is what the check is.
    pub(super) fn with(mut self, level: Level, what: &str, hint: impl Into<String>) -> Self {
        self.text.push_str(&format!("; {what}"));
        if self.hint.is_none() || level > self.level {
            self.hint = Some(hint.into());
        }
        self.level = self.level.max(level);
        self
    }

    /// The same, if it is so.
    pub(super) fn warn_if(self, is_so: bool, what: &str, hint: &str) -> Self {
        if is_so { self.with(Level::Warning, what, hint) } else { self }
    }
}

pub(super) fn run(args: &DoctorArgs) -> Answer {
    let (facts, machine, paths) = (Facts::look()?, Machine::look(), places(&args.places, None));
    let artifacts = &args.places.artifacts;
    let named = args.places.data.is_some() || std::env::var_os("KINSET_DATA").is_some_and(|folder| !folder.is_empty());
    let at = Where::of(&ClusterArgs::default(), Path::new(""));
    let checks = [
        version(),
        device(&facts),
        processor(&facts),
        threads(&facts, &machine),
        memory(&machine),
        limits(&facts, &machine),
        patiently("artifacts", artifacts, in_artifacts),
        cache(args.cache.as_ref(), at.as_ref()),
        slurm(at.as_ref().ok()),
        in_data(&paths, named),
        datasets(&paths),
        weights(&paths),
        variables(),
        Check::ok("python", "not needed"),
    ];
    let met = args.peers.map(|count| peers(artifacts, &facts, count)).transpose()?;
    let compared = args.device.iter().flat_map(|name| card(name));
    let mut checks: Vec<Check> = checks.into_iter().chain(met).chain(compared).collect();
    let own = Own::known();
    for check in &mut checks {
        check.text = own.hidden(&check.text);
        check.hint = check.hint.as_ref().map(|hint| own.hidden(hint));
    }
    let worst = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    let exit = if let Level::Fault(exit) = worst { exit } else { Exit::Done };
    if args.json {
        let all: Vec<_> = checks
            .iter()
            .map(|check| json!({ "check": check.name, "level": check.level.word(), "text": check.text, "hint": check.hint }))
            .collect();
        terminal::print_json(&json!({ "level": worst.word(), "exit": exit as u8, "checks": all }))?;
    } else {
        terminal::print(&in_words(&checks))?;
    }
    Ok(exit)
}

fn in_words(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { name, level, text: found, hint } in checks {
        text.push_str(&format!("{:<7}  {name:<9}  {found}\n", level.word()));
        if let Some(hint) = hint {
            text.push_str(&format!("{:20}hint: {hint}\n", ""));
        }
    }
    let count = |word: &str| checks.iter().filter(|check| check.level.word() == word).count() as u64;
    let (faults, warnings) = (count("fault"), count("warning"));
    text.push_str(&match (faults, warnings) {
        (0, 0) => "\nall is well\n".to_owned(),
        _ => format!("\n{}, {}\n", unit::counted(faults, "fault"), unit::counted(warnings, "warning")),
    });
    text
}

fn version() -> Check {
    let read = |path: &str| fs::read_text(Path::new(path)).ok();
    let mut text = format!("kinset {} on {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    if let Some(kernel) = read("/proc/sys/kernel/osrelease") {
        text.push_str(&format!(" {}", kernel.trim()));
    }
    let name = read("/etc/os-release").unwrap_or_default();
    if let Some(name) = name.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")) {
        text.push_str(&format!(", {}", name.trim_matches('"')));
    }
    Check::ok("version", text)
}

fn device(facts: &Facts) -> Check {
    let check = Check::ok("device", facts.device());
    let unused =
        facts.cards.iter().filter(|_| facts.device == "cpu").find_map(|card| card.parse::<DeviceName>().ok()?.open().err());
    match unused {
        Some(error) => check.with(Level::Warning, &chain(&error), "check the driver, or set `device = \"cpu\"`"),
        None => check,
    }
}

/// A card beside the processor: what it is, then each of its kernels.
fn card(name: &str) -> Vec<Check> {
    let refused = |error: &dyn Fault| {
        let check = Check::ok("card", format!("`{name}`"));
        vec![check.with(Level::Fault(error.exit()), &chain(error), error.hint().unwrap_or_default())]
    };
    let index = match name.parse::<DeviceName>() {
        Ok(DeviceName::Cuda(index)) if cfg!(feature = "gpu") => index,
        // Whatever else it is says why it cannot be opened, or is none.
        Ok(other) => {
            let Err(error) = other.open() else {
                let hint = "name an NVIDIA card: `--device cuda:0`";
                return vec![Check::ok("card", format!("`{name}`")).with(
                    Level::Fault(Exit::Usage),
                    "nothing to compare",
                    hint,
                )];
            };
            return refused(&error);
        }
        Err(error) => return refused(&error),
    };
    let card = match Card::open(&Libraries::default(), index) {
        Ok(card) => card,
        Err(error) => return refused(&error),
    };
    let (capability, version) = (card.capability(), card.driver_version().unwrap_or_default());
    let mut checks = vec![Check::ok(
        "card",
        format!(
            "{}, compute capability {}.{}, driver for CUDA {}.{}",
            card.name(),
            capability / 10,
            capability % 10,
            version / 1000,
            version % 1000 / 10
        ),
    )];
    let findings = match gpu::check(&card) {
        Ok(findings) => findings,
        Err(error) => {
            checks.extend(refused(&error));
            return checks;
        }
    };
    for finding in findings {
        let (runs, each) = (finding.runs as u64, finding.time / finding.runs.max(1) as u32);
        let text = format!("{}: error {:.1e} in {}, {}", finding.name, finding.error, unit::counted(runs, "run"), short(each));
        let check = Check::ok("kernel", text);
        let what = format!("more than {:e}: this card computes something else than the processor", gpu::AGREE);
        checks.push(if finding.agrees() {
            check
        } else {
            check.with(Level::Fault(Exit::Machine), &what, "set `device = \"cpu\"`, and report it with this answer")
        });
    }
    checks
}

/// A time that may be short.
fn short(time: Duration) -> String {
    format!("{:.0} µs each", time.as_secs_f64() * 1e6)
}

fn processor(facts: &Facts) -> Check {
    let table = fs::read_text(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let model = table.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim());
    let text = format!("{}instruction set {}", model.map(|name| format!("{name}, ")).unwrap_or_default(), facts.instructions());
    Check::ok("processor", text).warn_if(
        facts.used < facts.detected,
        "it can do more",
        "unset KINSET_ISA, unless another machine's results are to be met",
    )
}

fn threads(facts: &Facts, machine: &Machine) -> Check {
    let cores = machine.cores.map(|cores| unit::counted(cores as u64, "core"));
    let allowed = std::thread::available_parallelism().map_or(facts.threads, usize::from);
    let quota = machine.quota.map(|quota| format!(", processor time of {quota:.1} cores for this group"));
    let text = format!(
        "{} on {}, {allowed} usable{}",
        unit::counted(facts.threads as u64, "thread"),
        cores.as_deref().unwrap_or("an unknown number of cores"),
        quota.unwrap_or_default()
    );
    Check::ok("threads", text).warn_if(
        facts.threads > allowed,
        "more threads than usable cores wait for each other",
        "unset RAYON_NUM_THREADS, or name the number with `--threads N`",
    )
}

fn memory(machine: &Machine) -> Check {
    let Machine { memory, available, group_memory, addresses, .. } = *machine;
    let mut text = match (memory, available) {
        (Some(memory), Some(available)) => format!("{}, {} available", unit::bytes(memory), unit::bytes(available)),
        _ => "not known on this system".to_owned(),
    };
    for (limit, of) in [(group_memory, "limit of this group"), (addresses, "limit on addresses (`ulimit -v`)")] {
        text.push_str(&limit.map(|limit| format!(", {of} {}", unit::bytes(limit))).unwrap_or_default());
    }
    let usable = [available, group_memory, addresses].into_iter().flatten().min();
    Check::ok("memory", text).warn_if(
        usable.is_some_and(|bytes| bytes < LITTLE),
        "less than 1 GiB is little",
        "end other programs, raise the limit, or lower `batch` and the size of images",
    )
}

fn limits(facts: &Facts, machine: &Machine) -> Check {
    let number = |limit: Option<u64>| limit.map_or_else(|| "any number of".to_owned(), unit::count);
    let file = machine.file_size.map(|bytes| format!(", files of at most {}", unit::bytes(bytes))).unwrap_or_default();
    let text = format!("{} open files, {} processes and threads{file}", number(machine.files), number(machine.processes));
    let below = |limit: Option<u64>, needed: u64| limit.is_some_and(|limit| limit < needed);
    Check::ok("limits", text)
        .warn_if(below(machine.files, FEW_FILES), "few open files", "raise the limit: `ulimit -n 4096`")
        .warn_if(
            below(machine.processes, facts.threads as u64 + FEW_THREADS),
            "few threads",
            "raise the limit: `ulimit -u 4096`",
        )
        .warn_if(below(machine.file_size, LITTLE), "files may not grow large", "raise the limit: `ulimit -f unlimited`")
}

/// What lies below a folder, in words: its place, its file system, its free space.
fn place_of(folder: &Path) -> String {
    let shown = fs::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let system = FileSystem::of(folder).map(|system| format!(", {}", system.kind)).unwrap_or_default();
    let free = place::free(folder).map(|free| format!(", {} free", unit::bytes(free))).unwrap_or_default();
    format!("`{}`{system}{free}", shown.display())
}

/// The nearest folder above a path that is there.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|folder| !folder.as_os_str().is_empty() && fs::exists(folder));
    there.unwrap_or(Path::new(".")).to_owned()
}

/// Adds what a trial of a folder found: what it cannot do is a warning, and for one that cannot be written `refused` has the word.
fn tried(mut check: Check, folder: &Path, refused: impl Fn(Check, &FileError) -> Check) -> Check {
    let lacks = match place::try_out_within(folder, PATIENCE) {
        Ok(lacks) => lacks,
        Err(error) => return refused(check, &error),
    };
    check.text.push_str("; writes, flushes and renames");
    for lack in lacks {
        let (what, hint) = match lack {
            Lack::HardLinks => {
                ("no hard links", "views and exports are copies there: choose another file system to save space")
            }
            Lack::SymbolicLinks => ("no symbolic links", "use `kinset export --copy` there"),
            Lack::Locks => ("no locks", "leases keep runs apart there; mount it with locks if you can"),
            Lack::LocksThatHold => ("locks without effect", "set `KINSET_LOCKS=none`, so that leases alone keep runs apart"),
        };
        check = check.with(Level::Warning, what, hint);
    }
    let room = place::free(folder).is_some_and(|free| free < LITTLE);
    check.warn_if(room, "little free space", "free some space (`kinset gc` lists unused results), or name another folder")
}

/// Looks at a folder, unless its file system does not answer: then that is what is wrong.
fn patiently(name: &'static str, folder: &Path, look: fn(&Path) -> Check) -> Check {
    let place = folder.to_owned();
    // Longer than a trial by itself may take.
    place::within(PATIENCE * 2, move || look(&place)).unwrap_or_else(|error| {
        let check = Check::ok(name, format!("`{}`", folder.display()));
        let hint = "see whether its server can be reached, or name another folder with `--artifacts DIR`";
        check.with(Level::Fault(Exit::Machine), &error.to_string(), hint)
    })
}

fn in_artifacts(artifacts: &Path) -> Check {
    let folder = nearest(artifacts);
    let is_folder = fs::metadata(&folder).is_ok_and(|found| found.is_some_and(|found| found.is_dir()));
    if !is_folder {
        let check = Check::ok("artifacts", format!("`{}`", artifacts.display()));
        let hint = "move the file away, or name another folder with `--artifacts DIR`";
        return check.with(Level::Fault(Exit::Store), &format!("`{}` is no folder", folder.display()), hint);
    }
    let mut check = Check::ok("artifacts", place_of(&folder));
    if folder != artifacts {
        check.text.push_str(&format!(" (a run will make `{}` in it)", artifacts.display()));
    }
    check = tried(check, &folder, |check, error| {
        // As the store has it: whatever becomes of its files is never the fault of the data.
        let exit = if error.is_of_machine() { Exit::Machine } else { Exit::Store };
        let hint = error.hint().unwrap_or_else(|| "name another folder with `--artifacts DIR`".to_owned());
        check.with(Level::Fault(exit), &chain(error), hint)
    });
    match Store::open_to_read(artifacts) {
        Ok(store) => {
            let told = std::env::var_os(place::VARIABLE).map(|_| format!(" (by {})", place::VARIABLE)).unwrap_or_default();
            check.text.push_str(&format!("; {}{told}", store.reach().words()));
            if matches!(store.reach(), Reach::Node | Reach::Nowhere) {
                check.text.push_str(", so leases keep runs apart");
            }
            check.text.push_str(if store.exists() { "; holds a store" } else { "; no store yet" });
        }
        Err(error) => check = check.with(Level::Fault(error.exit()), &chain(&error), error.hint().unwrap_or_default()),
    }
    check
}

/// The cache of runs that name no other: whether it answers, as for a result that is not there. Nothing is written to it.
fn cache(named: Option<&String>, at: Result<&Where, &Failure>) -> Check {
    let check = Check::ok(
        "cache",
        if Remote::is_built() { "none set" } else { "none set; this kinset was built without remote caches" },
    );
    let args = CacheArgs { cache: named.cloned(), cache_mode: None };
    let settings = match at.map(|at| Settings::of(&args, &at.rules.cache)) {
        Ok(Ok(None)) => return check,
        Ok(Ok(Some(settings))) => settings,
        Ok(Err(failure)) => return unfit(Check::ok("cache", "set"), &failure),
        Err(failure) => return unfit(Check::ok("cache", "set"), failure),
    };
    let mode = CacheMode::NAMES.into_iter().find(|(_, mode)| *mode == settings.mode).map_or("", |(name, _)| name);
    let check = Check::ok("cache", format!("`{}`, {mode}", settings.address));
    let asked = Stopwatch::start();
    match settings.open().and_then(|remote| Ok(remote.probe()?)) {
        Ok(()) => {
            let time = unit::duration(asked.elapsed());
            Check { text: format!("{}; answers in {time}", check.text), ..check }
        }
        Err(failure) => unfit(check, &failure),
    }
}

/// A check of something that runs can do without.
fn unfit(check: Check, failure: &Failure) -> Check {
    let level = match failure.fault().exit() {
        // Runs go on without a cache that does not answer; with one that makes no sense they do not begin.
        Exit::Store => Level::Warning,
        exit => Level::Fault(exit),
    };
    check.with(level, &failure.in_words(), failure.fault().hint().unwrap_or_default())
}

fn in_data(paths: &DataPaths, named: bool) -> Check {
    let folder = paths.data();
    let is_folder = fs::metadata(folder).is_ok_and(|found| found.is_some_and(|found| found.is_dir()));
    match (is_folder, named) {
        (true, _) => {
            let mut check = Check::ok("data", place_of(folder));
            if let Err(error) = fs::list(folder) {
                let hint = "check the permissions, or name another folder with `--data DIR`";
                return check.with(Level::Fault(Exit::Data), &chain(&error), hint);
            }
            if let Some(reach) = FileSystem::of(folder).map(|system| system.reach).filter(|reach| *reach != Reach::Machine) {
                check.text.push_str(if reach == Reach::Nowhere { ", shared, without locks" } else { ", shared" });
            }
            tried(check, folder, |mut check, error| {
                if error.is_of_machine() {
                    return check.with(Level::Warning, &chain(error), error.hint().unwrap_or_default());
                }
                check.text.push_str("; may be read but not written, which is enough for all but `kinset data fetch`");
                check
            })
        }
        (false, true) => Check::ok("data", format!("`{}`", folder.display())).with(
            Level::Fault(Exit::Data),
            "there is no such folder",
            "name the folder of the data sets with `--data DIR` or KINSET_DATA; `kinset data fetch` makes it",
        ),
        (false, false) => Check::ok(
            "data",
            format!(
                "no folder `{}` here; a pipeline over your own folder needs none, `kinset data fetch` makes it",
                folder.display()
            ),
        ),
    }
}

fn datasets(paths: &DataPaths) -> Check {
    let here = |entry: &&Entry| !entry.needs_root() && registry::locate(&Source::named(entry.name), paths).is_ok();
    let names: Vec<&str> = registry::entries().filter(here).map(|entry| entry.name).collect();
    Check::ok("data sets", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
}

/// What of other people's networks is here. Names are left out: they may be private.
fn weights(paths: &DataPaths) -> Check {
    let fetched = fs::list(&paths.data().join("weights")).unwrap_or_default();
    let files = fetched.iter().flat_map(|folder| fs::list(folder).unwrap_or_default()).count() as u64;
    let cached = fs::list(paths.hub()).unwrap_or_default();
    let has_weights = |path: &&PathBuf| {
        let name =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix("models--")).map(|name| name.replacen("--", "/", 1));
        name.and_then(|name| Repository::parse(&name)).is_some_and(|repository| repository.weights(paths).is_ok())
    };
    let repositories = cached.iter().filter(has_weights).count() as u64;
    let text = format!(
        "{} fetched by kinset; {} in the cache of Hugging Face's tools",
        unit::counted(files, "file"),
        if repositories == 1 { "1 network".to_owned() } else { unit::counted(repositories, "network") }
    );
    Check::ok("weights", text)
}

/// What of the environment changes what kinset does.
fn variables() -> Check {
    let names = [
        "KINSET_CACHE_MODE",
        "KINSET_CACHE_TIMEOUT",
        "KINSET_CLUSTER",
        "KINSET_DATA",
        "KINSET_HOST",
        "KINSET_ISA",
        "KINSET_LEASE",
        "KINSET_LOCKS",
        "RAYON_NUM_THREADS",
        "HF_HOME",
        "HF_HUB_CACHE",
        "NO_COLOR",
    ];
    let set: Vec<String> = names
        .into_iter()
        .filter_map(|name| Some(format!("{name}={}", std::env::var_os(name).filter(|value| !value.is_empty())?.display())))
        .collect();
    Check::ok("variables", if set.is_empty() { "none set".to_owned() } else { set.join(", ") })
}

/// What of a person stands in paths.
struct Own {
    home: Option<String>,
    user: Option<String>,
}

impl Own {
    fn known() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = set("HOME").or_else(|| set("USERPROFILE")).map(|home| home.trim_end_matches(['/', '\\']).to_owned());
        let last = |home: &String| Path::new(home).file_name().map(|name| name.to_string_lossy().into_owned());
        let user = set("USER").or_else(|| set("LOGNAME")).or_else(|| set("USERNAME")).or_else(|| home.as_ref().and_then(last));
        Self { home: home.filter(|home| !home.is_empty()), user }
    }

    /// A text whose paths do not say whose they are.
    fn hidden(&self, text: &str) -> String {
        let text = self.home.as_ref().map_or_else(|| text.to_owned(), |home| replaced(text, home, "~"));
        self.user.as_ref().map_or(text.clone(), |user| replaced(&text, user, "USER"))
    }
}

/// Replaces what stands between the parts of a path, or the ends of one.
fn replaced(text: &str, part: &str, by: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let (mut out, mut from) = (String::new(), 0);
    for (at, _) in text.match_indices(part) {
        let whole = !text[..at].ends_with(is_part) && !text[at + part.len()..].starts_with(is_part);
        let in_path = part.starts_with('/') || text[..at].ends_with(['/', '\\']);
        if whole && in_path && at >= from {
            out.push_str(&text[from..at]);
            out.push_str(by);
            from = at + part.len();
        }
    }
    out.push_str(&text[from..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_do_not_say_whose_they_are() {
        let own = Own { home: Some("/u/ada".into()), user: Some("ada".into()) };
        for (text, hidden) in [
            ("`/u/ada/art`, ext4", "`~/art`, ext4"),
            ("cannot write `/u/ada`: full", "cannot write `~`: full"),
            ("`/scratch/ada/x`, `/scratch/adam`", "`/scratch/USER/x`, `/scratch/adam`"),
            ("/u/adam ada.toml ada", "/u/adam ada.toml ada"),
            ("HF_HOME=/u/ada/hf", "HF_HOME=~/hf"),
        ] {
            assert_eq!(own.hidden(text), hidden);
        }
    }

    #[test]
    fn the_worst_counts_and_brings_its_hint() {
        let check = Check::ok("x", "a").with(Level::Warning, "b", "first").warn_if(false, "no", "no");
        let check = check.with(Level::Fault(Exit::Store), "c", "second").warn_if(true, "d", "third");
        assert_eq!(
            (check.text.as_str(), check.level, check.hint.as_deref()),
            ("a; b; c; d", Level::Fault(Exit::Store), Some("second"))
        );
        assert!(Level::Fault(Exit::Machine) > Level::Fault(Exit::Store) && Level::Warning > Level::Ok);
    }
}
