//! Two machines over one store. They are names that processes give themselves, without locks; and, where FUSE is at hand, also two mounts
//! of one folder whose locks do not reach each other, and which remember for half a minute what they have seen and not found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kinset::base::clock::Stopwatch;
use kinset::base::seed::Seed;
use tempfile::TempDir;

use super::cluster::{contents_at, repeated, workers_of};
use super::faults::kit::count;
use super::harness::{Bench, CHEAP, Running, Said, WHOLE, WHOLE_NODES, command, sorted};

const HOSTS: [&str; 2] = ["a", "b"];
const A: usize = 0;
const B: usize = 1;

/// Two machines that see one folder.
struct Pair {
    bench: Bench,
    /// The folder as each sees it.
    seen: [PathBuf; 2],
    /// What their locks are said to be, if that is to be said.
    locks: Option<&'static str>,
    mounts: Option<Mounts>,
}

/// Two mounts, for as long as this lives.
struct Mounts {
    dir: TempDir,
}

impl Mounts {
    /// None where there is no FUSE, with a word why. They remember for so many seconds.
    fn of(folder: &Path, remembers: u32) -> Option<Self> {
        let mounts = Self { dir: tempfile::tempdir().unwrap() };
        for host in HOSTS {
            let at = mounts.at(host);
            fs::create_dir(&at).unwrap();
            let caches = ["attr", "entry", "negative"].map(|cache| format!("{cache}_timeout={remembers}")).join(",");
            match Command::new("bindfs").args(["-o", &caches]).args([folder, &at]).output() {
                Ok(done) if done.status.success() => {}
                Ok(done) => {
                    println!("skipped: bindfs cannot mount here: {}", String::from_utf8_lossy(&done.stderr).trim());
                    return None;
                }
                Err(error) => {
                    println!("skipped: no bindfs here ({error}); Debian's package `bindfs` has it");
                    return None;
                }
            }
        }
        Some(mounts)
    }

    fn at(&self, host: &str) -> PathBuf {
        self.dir.path().join(host)
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        for host in HOSTS {
            let _ = Command::new("umount").arg("-l").arg(self.at(host)).output();
        }
    }
}

impl Pair {
    /// The same test on machines that are names, and on two mounts where they can be made.
    fn each(pipeline: &str, test: impl Fn(&Self)) {
        Self::each_of(pipeline, 30, test);
    }

    /// With mounts that remember for so many seconds.
    fn each_of(pipeline: &str, remembers: u32, test: impl Fn(&Self)) {
        let bench = Bench::with(pipeline);
        let seen = [bench.path(""), bench.path("")];
        test(&Self { bench, seen, locks: Some("none"), mounts: None });
        let bench = Bench::with(pipeline);
        let Some(mounts) = Mounts::of(&bench.path(""), remembers) else { return };
        let seen = HOSTS.map(|host| mounts.at(host));
        test(&Self { bench, seen, locks: None, mounts: Some(mounts) });
    }

    fn command(&self, host: usize, lease: u32, args: &[&str]) -> Command {
        let mut command = command(&self.seen[host], args);
        command.env("KINSET_HOST", HOSTS[host]).env("KINSET_LEASE", lease.to_string());
        command.envs(self.locks.map(|locks| ("KINSET_LOCKS", locks)));
        command
    }

    fn on(&self, host: usize, args: &[&str]) -> Said {
        Said::of(&self.command(host, 600, args).output().unwrap())
    }

    fn start(&self, host: usize, lease: u32, args: &[&str]) -> Running {
        self.bench.spawn(HOSTS[host], &mut self.command(host, lease, args))
    }

    fn how(&self) -> &'static str {
        if self.mounts.is_some() { "two mounts" } else { "two names" }
    }
}

const RUN: [&str; 4] = ["run", "p.toml", "--json", "--no-report"];
const TRAIN: [&str; 8] = ["run", "p.toml", "--json", "--no-report", "--until", "pretext", "--checkpoint-every", "0"];

/// [`WHOLE`], with a first training that takes long enough to be met.
fn slow(epochs: u32) -> String {
    let changed = WHOLE.replacen("epochs = 2", &format!("epochs = {epochs}"), 1);
    assert_ne!(changed, *WHOLE);
    changed
}

#[test]
fn a_start_elsewhere_takes_nothing_from_a_run_that_is_held_up() {
    let text = slow(60);
    let expected = Bench::with(&text).run(&["--until", "pretext"]).done().digests();
    Pair::each(&text, |pair| {
        pair.bench.write("q.toml", CHEAP);
        let running = pair.start(A, 600, &TRAIN);
        // At work, so that its draft is open.
        pair.bench.wait_for_an_epoch("whole");
        running.signal("STOP");
        let drafts = || sorted(&pair.bench.path("artifacts/store/tmp"));
        let before = drafts();
        assert!(!before.is_empty());
        pair.on(B, &["run", "q.toml", "--json"]).done();
        assert_eq!(drafts(), before, "{}", pair.how());
        running.signal("CONT");
        let said = running.end().done();
        assert_eq!(said.digests(), expected, "{}", pair.how());
        pair.bench.assert_sound(pair.how());
    });
}

#[test]
fn two_machines_compute_each_stage_once() {
    Pair::each(&slow(25), |pair| {
        let mut first = pair.start(A, 600, &RUN);
        assert!(first.wait_for("runs  pretext"), "{}", first.said());
        let second = pair.start(B, 600, &RUN);
        let (first, second) = (first.end().done(), second.end().done());
        assert_eq!(first.ran().len() + second.ran().len(), WHOLE_NODES.len(), "{}\n{}", first.err, second.err);
        assert_eq!(first.digests(), second.digests());
        assert!(second.those("adopted").contains(&"pretext"), "{}", second.err);
        assert!(second.err.contains("waits  pretext: process") && second.err.contains(" on a, for `"), "{}", second.err);
        if pair.locks.is_none() {
            assert_eq!(first.err.matches("kept apart by leases").count(), 1, "{}", first.err);
        }
        pair.bench.assert_sound(pair.how());
        assert_eq!(pair.on(B, &RUN).done().ran().len(), 0);
    });
}

#[test]
fn one_that_is_suspended_for_longer_than_its_lease_loses_the_stage_and_the_other_ends_well() {
    let text = slow(60);
    let expected = Bench::with(&text).run(&["--until", "pretext"]).done().digests();
    Pair::each(&text, |pair| {
        let first = pair.start(A, 2, &TRAIN);
        pair.bench.wait_for_an_epoch("whole");
        first.signal("STOP");
        let second = pair.start(B, 2, &TRAIN).end().done();
        assert_eq!(second.ran(), ["pretext"], "{}", second.err);
        assert!(second.err.contains("resuming at epoch"), "{}: {}", pair.how(), second.err);
        assert_eq!(second.digests(), expected, "{}", pair.how());
        first.signal("CONT");
        let said = first.end();
        assert_eq!(said.exit, 75, "{}: {}", pair.how(), said.err);
        assert!(said.err.contains("another process has taken over this stage") && said.err.contains("hint"), "{}", said.err);
        let said = pair.on(A, &TRAIN).done();
        assert_eq!((said.ran().len(), said.digests()), (0, expected.clone()), "{}", said.err);
        pair.bench.assert_sound(pair.how());
    });
}

#[test]
fn the_progress_of_a_machine_that_died_is_gone_on_from() {
    let text = slow(60);
    let expected = Bench::with(&text).run(&["--until", "pretext"]).done().digests();
    Pair::each(&text, |pair| {
        let first = pair.start(A, 3, &TRAIN);
        pair.bench.wait_for_an_epoch("whole");
        assert!(first.kill());
        let second = pair.start(B, 3, &TRAIN).end().done();
        assert!(second.err.contains("waits  pretext") && second.err.contains("resuming at epoch"), "{}", second.err);
        assert_eq!(second.digests(), expected, "{}", pair.how());
        // Its drafts go when it is back.
        assert_eq!(pair.on(A, &TRAIN).done().ran().len(), 0);
        pair.bench.assert_sound(pair.how());
    });
}

#[test]
fn who_is_killed_is_not_waited_for_on_its_own_machine() {
    Pair::each(&slow(60), |pair| {
        let first = pair.start(A, 600, &TRAIN);
        pair.bench.wait_for_an_epoch("whole");
        assert!(first.kill());
        let begun = Stopwatch::start();
        let mut again = pair.start(A, 600, &[&TRAIN[..], &["--no-wait"]].concat());
        assert!(again.wait_for("resuming at epoch"), "{}", again.said());
        assert!(begun.seconds() < 30.0);
        again.end().done();
        pair.bench.assert_sound(pair.how());
    });
}

#[test]
fn nothing_is_deleted_while_another_machine_runs() {
    Pair::each(&slow(25), |pair| {
        let mut running = pair.start(A, 600, &TRAIN);
        assert!(running.wait_for("runs  pretext"), "{}", running.said());
        let said = pair.on(B, &["gc", "--delete"]);
        assert_eq!(said.exit, 6, "{}: {}", pair.how(), said.err);
        assert!(said.err.contains(&format!("process {} on a", running.id())), "{}: {}", pair.how(), said.err);
        running.end().done();
        pair.on(B, &["gc", "--delete"]).done();
        pair.bench.assert_sound(pair.how());
    });
}

#[test]
fn a_result_of_another_machine_is_found_although_it_was_looked_for_before() {
    Pair::each(CHEAP, |pair| {
        assert_eq!(pair.on(B, &["run", "p.toml", "--json", "--until", "pixels"]).done().ran().len(), 2);
        // Now it remembers that the others were not there.
        assert_eq!(pair.on(B, &["plan", "p.toml"]).exit, 10);
        let first = pair.on(A, &RUN).done();
        assert!(first.ran().len() > 2, "{}", first.err);
        let looked = Stopwatch::start();
        let second = pair.on(B, &RUN).done();
        assert_eq!((second.ran().len(), second.digests()), (0, first.digests()), "{}: {}", pair.how(), second.err);
        println!("{}: all found in {:.1} s", pair.how(), looked.seconds());
    });
}

#[test]
fn what_a_variable_may_not_say_is_an_error_of_usage() {
    let bench = Bench::with(CHEAP);
    for (name, value) in [("KINSET_LOCKS", "perhaps"), ("KINSET_LEASE", "0"), ("KINSET_LEASE", "soon")] {
        let said = Said::of(&bench.command(&RUN).env(name, value).output().unwrap());
        assert_eq!(said.exit, 2, "{}", said.err);
        assert!(said.err.contains(name) && said.err.contains(value) && said.err.contains("unset it"), "{}", said.err);
    }
}

#[test]
fn raw_files_are_hashed_by_one_machine_for_all() {
    let text = "name = \"r\"\n\n[stage.imported]\nkind = \"import_features\"\nfile = \"features.csv\"\n";
    Pair::each(text, |pair| {
        if pair.mounts.is_none() {
            // Two machines of other names have disks of their own.
            return;
        }
        // What was touched just now is not remembered.
        std::thread::sleep(Duration::from_millis(2500));
        for host in [A, B] {
            pair.on(host, &RUN).done();
        }
        let found = sorted(&pair.bench.path("artifacts/store"));
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        let digests: Vec<_> = names.into_iter().filter(|name| name.starts_with("digests-")).collect();
        assert!(digests.len() == 1 && digests[0].starts_with("digests-a-"), "{}: {digests:?}", pair.how());
    });
}

/// Kills of runs and of their workers, in turn on one machine and on the other, until both runs are done; then again over another store,
/// until there were enough.
#[test]
fn whoever_is_killed_on_two_machines_the_store_is_that_of_one_process() {
    let text = repeated(40, 2);
    let one = Bench::with(&text);
    one.run(&["--no-report"]).done();
    let (expected, kills) = (contents_at(&one, "artifacts"), count(4, 40));
    Pair::each(&text, |pair| {
        let clock = Stopwatch::start();
        let mut rng = Seed::new(31).branch("hosts").rng();
        let (mut killed, mut stores) = ([0; 2], 0);
        while killed.iter().sum::<usize>() < kills {
            stores += 1;
            let artifacts = format!("artifacts-{stores}");
            let more = ["--checkpoint-every", "0", "--executor", "local:2", "--artifacts", &artifacts];
            let args = [&RUN[..], &more].concat();
            let start = |host| pair.start(host, 2, &args);
            let mut runs = [start(A), start(B)].map(Some);
            let mut patience = 400.0;
            while killed.iter().sum::<usize>() < kills && runs.iter().all(Option::is_some) {
                std::thread::sleep(Duration::from_secs_f64(rng.between(50.0, patience) / 1000.0));
                let number: usize = killed.iter().sum();
                let (host, of_worker) = (number / 2 % 2, number % 2 == 1);
                let mut run = runs[host].take().unwrap();
                if run.has_ended() {
                    let said = run.end();
                    // Its worker was killed or lost its lease, or all is done.
                    assert!([0, 5, 75].contains(&said.exit), "{}: exit {}: {}", pair.how(), said.exit, said.err);
                    runs[host] = (said.exit != 0).then(|| start(host));
                    continue;
                }
                if of_worker {
                    if let Some(worker) = workers_of(&run).pop() {
                        let sent = Command::new("kill").args(["-9", &worker.to_string()]).output().unwrap();
                        killed[1] += usize::from(sent.status.success());
                    }
                    runs[host] = Some(run);
                } else {
                    killed[0] += usize::from(run.kill());
                    runs[host] = Some(start(host));
                }
                // Grows, so that the slowest machine gets through.
                patience *= 1.04;
            }
            for (host, run) in runs.into_iter().enumerate() {
                run.map(Running::end);
                // What its workers left is removed by the next run on that machine.
                let said = pair.on(host, &args).done();
                assert!(said.those("failed").is_empty(), "{}", said.err);
            }
            pair.on(A, &args).done();
            let found = contents_at(&pair.bench, &artifacts);
            let differs = |name: &&String| found.get(*name) != expected.get(*name);
            let names: BTreeSet<&String> = found.keys().chain(expected.keys()).filter(differs).collect();
            assert!(names.is_empty(), "{}: not the same records and blobs: {names:#?}", pair.how());
            pair.bench.assert_sound_at(&artifacts, pair.how());
        }
        let [runs, workers] = killed;
        println!("{}: killed {runs} runs and {workers} workers over {stores} stores in {:.0} s", pair.how(), clock.seconds());
    });
}

#[test]
fn two_machines_that_meet_say_what_they_see_of_each_other() {
    let doctor = ["doctor", "--peers", "--json"];
    let of_peers = |said: &Said| {
        let all = said.json["checks"].as_array().unwrap_or_else(|| panic!("{}\n{}", said.out, said.err));
        let check = all.iter().find(|check| check["check"] == "peers").unwrap();
        ["level", "text", "hint"].map(|part| check[part].as_str().unwrap_or_default().to_owned())
    };
    Pair::each_of(CHEAP, 3, |pair| {
        let meet = |locks: Option<&str>| {
            let start = |host: usize| {
                let mut command = pair.command(host, 600, &doctor);
                command.envs(locks.map(|locks| ("KINSET_LOCKS", locks)));
                pair.bench.spawn(HOSTS[host], &mut command)
            };
            [start(A), start(B)].map(Running::end)
        };
        for (said, other) in meet(None).iter().zip([" on b;", " on a;"]) {
            let [level, text, hint] = of_peers(said);
            assert_eq!(said.exit, 0, "{}: {}", pair.how(), said.out);
            // Two names of one machine prove nothing about two machines.
            assert!(level == "warning" && text.contains("one machine") && hint.contains("two machines"), "{text}: {hint}");
            let locks = if pair.mounts.is_some() { "do not hold between them, as expected" } else { "locks hold between them" };
            assert!(text.starts_with("met process ") && text.contains(other) && text.contains(locks), "{}: {text}", pair.how());
            println!("{}: {text}", pair.how());
        }
        assert!(sorted(&pair.bench.path("artifacts/store/tmp")).is_empty());
        if pair.mounts.is_some() {
            for said in meet(Some("cluster")) {
                let [level, text, hint] = of_peers(&said);
                assert_eq!((said.exit, level.as_str()), (6, "fault"), "{text}");
                assert!(text.contains("locks do not hold") && hint.contains("KINSET_LOCKS=node"), "{text}: {hint}");
            }
        }
    });
}
