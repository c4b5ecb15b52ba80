//! Two machines over one store. They are names that processes give themselves, without locks; and, where FUSE is at hand, also two mounts
//! of one folder whose locks do not reach each other, and which remember for half a minute what they have seen and not found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kinset::base::clock::Stopwatch;
use tempfile::TempDir;

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
    /// None where there is no FUSE, with a word why.
    fn of(folder: &Path) -> Option<Self> {
        let mounts = Self { dir: tempfile::tempdir().unwrap() };
        for host in HOSTS {
            let at = mounts.at(host);
            fs::create_dir(&at).unwrap();
            let caches = "attr_timeout=30,entry_timeout=30,negative_timeout=30";
            match Command::new("bindfs").args(["-o", caches]).args([folder, &at]).output() {
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
        let bench = Bench::with(pipeline);
        let seen = [bench.path(""), bench.path("")];
        test(&Self { bench, seen, locks: Some("none"), mounts: None });
        let bench = Bench::with(pipeline);
        let Some(mounts) = Mounts::of(&bench.path("")) else { return };
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
