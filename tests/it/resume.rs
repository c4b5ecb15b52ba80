//! Killed and stopped runs, which end where an uninterrupted one does.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use kinset::base::clock::Stopwatch;
use kinset::base::seed::{Rng, Seed};

use super::harness::{Bench, GROUND, WHOLE, WHOLE_NODES, event_files, files_below, ground, methods, sorted, tiny_stage};

/// Kills after a random while, longer and longer, until a run gets through; returns what that one gave, and how many were killed.
fn kill_until_done(bench: &Bench, args: &[&str], rng: &mut Rng, first: f64) -> (BTreeMap<String, String>, usize) {
    let mut killed = 0;
    loop {
        let running = bench.start("run", args);
        // Grows, so that the slowest machine gets through.
        let patience = first * (1.0 + killed as f64 / 2.0);
        std::thread::sleep(Duration::from_secs_f64(rng.between(2.0, patience) / 1000.0));
        if running.kill() {
            killed += 1;
            bench.assert_no_half("after a kill");
            assert!(killed < 400, "it never gets through");
            continue;
        }
        let said = bench.kinset(args).done();
        assert_eq!(said.ran().len(), 0, "it had got through: {}", said.err);
        return (said.digests(), killed);
    }
}

impl Bench {
    /// After a kill the store may hold half-written drafts (the next run sweeps them), but nothing published may be damaged.
    fn assert_no_half(&self, why: &str) {
        if self.path("artifacts/store").is_dir() {
            let said = self.kinset(&["verify", "--json"]);
            assert_eq!(said.exit, 0, "{why}: {}", said.out);
        }
    }

    /// How often a training went on from a checkpoint, over all runs so far.
    fn resumed(&self, pipeline: &str) -> usize {
        let runs = self.path("artifacts").join(pipeline).join("runs");
        let events = event_files(&runs).into_iter().map(|path| fs::read_to_string(path).unwrap());
        events.map(|text| text.lines().filter(|line| line.contains("resuming at epoch")).count()).sum()
    }
}

#[test]
fn every_method_killed_at_random_ends_as_if_nothing_had_happened() {
    let (images, epochs) = (48, 8);
    for (number, method) in methods().enumerate() {
        let kind = method.kind();
        let text = format!("{}{}", ground("tiny", images, 2), tiny_stage("it", method, epochs));
        let quiet = Bench::with(&text);
        let expected = quiet.run(&["--until", "it"]).done().digests();

        // On a fast machine a run may get through before it was killed often enough to say anything: then again, less patient.
        let mut enough = false;
        for attempt in 0..6 {
            let bench = Bench::with(&text);
            bench.run(&["--until", GROUND]).done();
            let mut rng = Seed::new(17).branch("kill").at(number as u64).at(attempt).rng();
            let args = ["run", "p.toml", "--no-report", "--json", "--until", "it", "--checkpoint-every", "0"];
            let (digests, killed) = kill_until_done(&bench, &args, &mut rng, 60.0 * 0.7_f64.powi(attempt as i32));
            let resumed = bench.resumed("tiny");
            println!("{kind}: killed {killed} times, went on from a checkpoint {resumed} times");
            assert_eq!(digests, expected, "{kind}, killed {killed} times");
            bench.assert_sound("after all kills");
            enough = killed >= 3 && resumed >= 1;
            if enough {
                break;
            }
        }
        assert!(enough, "{kind}: the kills come too late to test anything");
    }
}

/// [`WHOLE`] with a long first training, and what it gives.
fn long(epochs: u32) -> String {
    let changed = WHOLE.replacen("epochs = 2", &format!("epochs = {epochs}"), 1);
    assert_ne!(changed, *WHOLE);
    changed
}

#[test]
fn a_signal_stops_at_the_next_step_and_the_same_command_goes_on() {
    let text = long(60);
    let expected = Bench::with(&text).run(&["--until", "pretext"]).done().digests();
    let args = ["run", "p.toml", "--no-report", "--json", "--until", "pretext"];
    for signal in ["INT", "TERM", "HUP", "USR1", "USR2"] {
        let bench = Bench::with(&text);
        let running = bench.start("run", &args);
        bench.wait_for_an_epoch("whole");
        running.signal(signal);
        let said = running.end();
        assert_eq!(said.exit, 75, "{signal}: {}", said.err);
        assert_eq!(said.those("stopped"), ["pretext"], "{signal}");
        assert!(!said.err.contains("panicked"), "{}", said.err);
        bench.assert_sound("after a stop");
        let plan = bench.kinset(&["plan", "p.toml", "--json", "--until", "pretext"]);
        assert_eq!(plan.exit, 10);
        assert!(plan.out.contains("interrupted; will resume"), "{}", plan.out);
        let said = bench.kinset(&args).done();
        assert_eq!(said.ran(), ["pretext"]);
        assert!(said.err.contains("resuming at epoch"), "{}", said.err);
        assert_eq!(said.digests(), expected, "{signal}");
        // The curve of both halves is one curve: no epoch twice, none lost.
        assert_eq!(bench.metrics("whole", "pretext").iter().filter(|(name, _)| name == "loss").count(), 60);
    }
}

#[test]
fn what_a_scheduler_sends_twice_still_leaves_a_checkpoint() {
    let text = long(60);
    let args = ["run", "p.toml", "--no-report", "--json", "--until", "pretext", "--checkpoint-every", "3600"];
    // To a step and to the script that passes it on; a warning before the end of a job's time, and the end of it; Ctrl-C that a
    // program between the terminal and this one passes on.
    for (signals, pause) in [(["TERM", "TERM"], 0), (["TERM", "TERM"], 20), (["USR2", "TERM"], 20), (["INT", "INT"], 20)] {
        let bench = Bench::with(&text);
        let mut running = bench.start("run", &args);
        bench.wait_for_an_epoch("whole");
        running.signal(signals[0]);
        std::thread::sleep(Duration::from_millis(pause));
        running.signal_while_alive(signals[1]);
        let said = running.end();
        assert_eq!(said.exit, 75, "{signals:?}, {pause} ms: {}", said.err);
        let kept = files_below(&bench.path("artifacts/store/work"));
        assert!(kept.iter().any(|path| path.ends_with("state.json")), "{signals:?}, {pause} ms: {kept:?}");
    }
}

/// One step of this takes longer than two seconds.
const SLOW_STEP: &str = "name = \"slow\"\ndevice = \"cpu\"\n\n[data.train]\ndataset = \"synthetic\"\nimages = 256\nclasses = 3\nsize = 32\n\n[stage.pretext]\nkind = \"simclr\"\nimages = \"data.train\"\nepochs = 1\nbatch = 256\nnetwork = { backbone = \"resnet50\", stem = \"cifar\" }\n";

#[test]
fn a_second_ctrl_c_ends_at_once_and_a_second_term_does_not() {
    let bench = Bench::with(SLOW_STEP);
    bench.run(&["--until", "data.train"]).done();
    for (signal, exit) in [("INT", 130), ("TERM", 75)] {
        let mut running = bench.start("run", &["run", "p.toml", "--no-report"]);
        assert!(running.wait_for("pretext (simclr)"), "{}", running.said());
        std::thread::sleep(Duration::from_millis(500));
        running.signal(signal);
        std::thread::sleep(Duration::from_millis(500));
        running.signal_while_alive(signal);
        let said = running.end();
        assert_eq!(said.exit, exit, "{signal}: {}", said.err);
    }
}

#[test]
fn under_nohup_a_closed_terminal_stops_nothing() {
    let bench = Bench::with(&long(20));
    let own = bench.command(&["run", "p.toml", "--no-report", "--until", "pretext"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(own.get_program()).args(own.get_args());
    let running = bench.spawn("run", command.current_dir(bench.path("")).stdin(Stdio::null()));
    bench.wait_for_an_epoch("whole");
    running.signal("HUP");
    let said = running.end();
    assert_eq!(said.exit, 0, "{}", said.err);
}

/// Within which a signal is answered.
const ANSWER: Duration = Duration::from_secs(2);

#[test]
fn k_means_answers_every_signal_within_two_seconds_and_goes_on() {
    let mut rng = Seed::new(3).rng();
    let mut rows = String::new();
    for row in 0..20_000 {
        rows.push_str(&format!("i{row}"));
        (0..16).for_each(|_| rows.push_str(&format!(",{:.3}", rng.normal())));
        rows.push('\n');
    }
    let bench = Bench::with(
        "name = \"k\"\ndevice = \"cpu\"\n\n[stage.features]\nkind = \"import_features\"\nfile = \"many.csv\"\n\n[stage.clusters]\nkind = \"kmeans\"\nfeatures = \"features\"\nclusters = 100\nrestarts = 100000\n",
    );
    bench.write("many.csv", rows);
    bench.run(&["--until", "features"]).done();
    for (attempt, signal) in ["INT", "TERM", "HUP"].into_iter().enumerate() {
        let mut running = bench.start("run", &["run", "p.toml", "--no-report", "--json"]);
        assert!(running.wait_for("clusters (kmeans)"), "{}", running.said());
        // Long enough to get through a start or two.
        std::thread::sleep(Duration::from_secs(1));
        running.signal(signal);
        let sent = Stopwatch::start();
        let said = running.end();
        let waited = sent.elapsed();
        assert_eq!(said.exit, 75, "{signal}: {}", said.err);
        assert!(waited < ANSWER, "{signal} was answered after {waited:?}");
        assert_eq!(said.those("stopped"), ["clusters"], "{signal}");
        assert_eq!(said.err.contains("resuming in start"), attempt > 0, "{signal}: {}", said.err);
        bench.assert_sound("after a stop");
    }
}

#[test]
fn a_step_that_takes_longer_than_the_answer_may_is_not_waited_for() {
    let bench = Bench::with(SLOW_STEP);
    bench.run(&["--until", "data.train"]).done();
    let mut running = bench.start("run", &["run", "p.toml", "--no-report"]);
    assert!(running.wait_for("pretext (simclr)"), "{}", running.said());
    std::thread::sleep(Duration::from_millis(500));
    running.signal("INT");
    let sent = Stopwatch::start();
    let said = running.end();
    let waited = sent.elapsed();
    assert_eq!(said.exit, 75, "{}", said.err);
    assert!(waited < ANSWER, "it was answered after {waited:?}");
    assert!(said.err.contains("the same command resumes"), "{}", said.err);
    // What it left behind is swept up by the next run.
    bench.run(&["--until", "data.train"]).done();
    bench.assert_sound("after a stop in the middle of a step");
}

/// Stops a run after an epoch; its newest checkpoint.
fn stopped_at(bench: &Bench, args: &[&str]) -> PathBuf {
    let running = bench.start("run", args);
    bench.wait_for_an_epoch("whole");
    running.signal("TERM");
    assert_eq!(running.end().exit, 75);
    newest(bench)
}

/// The newest checkpoint; each attempt at a stage takes those of the last one into a folder of its own.
fn newest(bench: &Bench) -> PathBuf {
    let files = files_below(&bench.path("artifacts/store/work"));
    files.into_iter().rfind(|path| path.extension().is_some_and(|e| e == "safetensors")).unwrap()
}

#[test]
fn a_damaged_checkpoint_costs_a_few_steps_and_changes_nothing() {
    let text = long(60);
    let expected = Bench::with(&text).run(&["--until", "pretext"]).done().digests();
    let args = ["run", "p.toml", "--no-report", "--json", "--until", "pretext", "--checkpoint-every", "0"];
    let bench = Bench::with(&text);
    let newest = stopped_at(&bench, &args);
    let bytes = fs::read(&newest).unwrap();
    fs::remove_file(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let said = bench.kinset(&args).done();
    assert!(said.err.contains("using an older one") && said.err.contains("resuming at epoch"), "{}", said.err);
    assert_eq!(said.digests(), expected);
}

#[test]
#[cfg(target_os = "linux")]
fn checkpoints_that_cannot_be_read_or_written_are_no_fault_of_the_data() {
    let text = long(60);
    let args = ["run", "p.toml", "--no-report", "--json", "--until", "pretext", "--checkpoint-every", "0"];
    let bench = Bench::with(&text);
    let newest = stopped_at(&bench, &args);
    // The first page of a process is mapped nowhere, and reading it is an error of input and output.
    let aside = bench.path("aside");
    fs::rename(&newest, &aside).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &newest).unwrap();
    let said = bench.kinset(&args);
    assert_eq!(said.exit, 7, "{}", said.err);
    // The disk works again.
    fs::rename(&aside, self::newest(&bench)).unwrap();
    let mut running = bench.start("run", &args);
    assert!(running.wait_for("resuming at epoch"), "{}", running.said());
    let works = bench.path("artifacts/store/work");
    let work = sorted(&sorted(&works)[0]).into_iter().rfind(|path| path.is_dir()).unwrap();
    for _ in 0..1000 {
        // The run makes the folder again, if it comes first; or it has ended, since it missed it.
        let (gone, taken) = (bench.path("gone"), bench.path("file"));
        fs::write(&taken, "mine").unwrap();
        let _ = fs::remove_dir_all(&gone);
        if fs::rename(&work, &gone).is_ok() && fs::rename(&taken, &work).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let said = running.end();
    assert_eq!(said.exit, 6, "{}", said.err);
}

#[test]
fn one_thread_and_two_give_the_same_digests() {
    let expected = Bench::with(&WHOLE).run(&["--threads", "1"]).done();
    assert_eq!(expected.ran(), *WHOLE_NODES);
    assert_eq!(Bench::with(&WHOLE).run(&["--threads", "2", "--memory", "64MiB"]).done().digests(), expected.digests());
    for threads in ["1", "2", "5"] {
        let bench = Bench::with(&WHOLE);
        let output =
            bench.command(&["run", "p.toml", "--no-report", "--json"]).env("RAYON_NUM_THREADS", threads).output().unwrap();
        let said = super::harness::Said::of(&output).done();
        assert_eq!(said.digests(), expected.digests(), "RAYON_NUM_THREADS={threads}");
    }
}
