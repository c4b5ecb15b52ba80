//! Stages that other processes compute: workers of this machine, jobs of a Slurm that is a script (`slurm.sh`), and pods of a Kubernetes
//! that is one (`kubectl.sh`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::harness::{Bench, CHEAP, ROOT, Running, Said, WHOLE, WHOLE_NODES, files_below, ground, sorted};

/// The bytes of a store by name: of blobs all, of records what they say of the result and not of the run.
pub(super) fn contents(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    contents_at(bench, "artifacts")
}

/// The same of a store elsewhere.
pub(crate) fn contents_at(bench: &Bench, artifacts: &str) -> BTreeMap<String, Vec<u8>> {
    let store = bench.path(artifacts).join("store");
    let mut found = BTreeMap::new();
    for path in files_below(&store.join("blobs")).into_iter().chain(files_below(&store.join("records"))) {
        let name = path.strip_prefix(&store).unwrap().display().to_string();
        let bytes = fs::read(&path).unwrap();
        let kept = if name.starts_with("records") {
            let record: Value = serde_json::from_slice(&bytes).unwrap();
            serde_json::to_vec(&[&record["key"], &record["kind"], &record["outputs"]]).unwrap()
        } else {
            bytes
        };
        found.insert(name, kept);
    }
    assert!(!found.is_empty());
    found
}

/// [`ground`] with repetitions from the clustering on, and scores.
pub(crate) fn repeated(epochs: u32, seeds: u32) -> String {
    ground("tiny", 48, epochs)
        + "\n[stage.scores]\nkind = \"evaluate\"\nclassifiers = [\"cluster\"]\nimages = \"data.train\"\nlabels = \"data.train.labels\"\n"
        + &format!("\n[repeat]\nfrom = \"cluster\"\nseeds = {seeds}\n")
}

#[test]
fn two_processes_leave_what_one_does() {
    let (one, two) = (Bench::with(&WHOLE), Bench::with(&WHOLE));
    let expected = one.run(&["--no-report"]).done();
    let said = two.run(&["--no-report", "--executor", "local:2"]).done();
    assert_eq!(said.ran(), *WHOLE_NODES, "{}", said.err);
    assert_eq!(said.digests(), expected.digests());
    assert!(contents(&one) == contents(&two), "the same records and the same blobs");
    assert_eq!(views(&one), views(&two), "the process that watches shows the results");
    two.assert_sound("after two processes");
    let runs = sorted(&two.path("artifacts/whole/runs"));
    assert_eq!(runs.len(), 1, "workers write into the folder of their run: {runs:?}");
    let status = two.kinset(&["status", "p.toml", "--json"]).done();
    assert_eq!(status.those("fresh").len(), WHOLE_NODES.len());
    assert_eq!(two.run(&["--executor", "local:2"]).done().ran().len(), 0);
}

fn views(bench: &Bench) -> Vec<PathBuf> {
    let folder = bench.path("artifacts/whole");
    let files = files_below(&folder).into_iter().map(|path| path.strip_prefix(&folder).unwrap().to_owned());
    files.filter(|path| !path.starts_with("runs")).collect()
}

#[test]
fn a_report_shows_the_curves_of_workers() {
    let bench = Bench::with(&repeated(3, 1));
    bench.run(&["--executor", "local:2"]).done();
    let run = &sorted(&bench.path("artifacts/tiny/runs"))[0];
    let curve = files_below(run).into_iter().any(|path| path.to_string_lossy().contains("pretext/events.out.tfevents"));
    assert!(curve, "TensorBoard finds them too: {:?}", files_below(run));
    let diff = bench.kinset(&["diff", run.to_str().unwrap(), run.to_str().unwrap(), "--json"]).done();
    assert!(diff.out.contains("pretext"), "{}", diff.out);
}

#[test]
fn an_error_of_a_worker_s_stage_is_that_of_one_process() {
    let wrong = ["--no-report", "--set", "stage.kmeans.clusters=99"];
    let (one, two) = (Bench::with(CHEAP), Bench::with(CHEAP));
    let alone = one.run(&wrong);
    let said = two.run(&[&wrong[..], &["--executor", "local:2"]].concat());
    assert_eq!(said.exit, alone.exit, "{}", said.err);
    let stages = |said: &Said| {
        let stages = said.json["stages"].as_array().unwrap().iter();
        stages
            .map(|stage| [&stage["stage"], &stage["state"], &stage["error"], &stage["by"]].map(Value::clone))
            .collect::<Vec<_>>()
    };
    assert_eq!(stages(&said), stages(&alone));
    for words in ["failed  kmeans", "hint", "blocked  scores"] {
        assert!(said.err.contains(words) && alone.err.contains(words), "`{words}` is not in: {}", said.err);
    }
}

#[test]
fn a_damaged_input_is_made_again_by_workers_too() {
    let bench = Bench::with(CHEAP);
    let expected = bench.run(&["--no-report"]).done().digests();
    let features = bench.path("artifacts/cheap/features/features.parquet");
    let blob = files_below(&bench.path("artifacts/store/blobs"))
        .into_iter()
        .find(|blob| fs::read(blob).unwrap() == fs::read(&features).unwrap());
    let blob = blob.unwrap();
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes).unwrap();
    let said = bench.run(&["--no-report", "--executor", "local:2", "--set", "stage.kmeans.restarts=3"]).done();
    assert!(said.ran().contains(&"features") && said.ran().contains(&"kmeans"), "{}", said.err);
    assert_eq!(said.digests()["features.features"], expected["features.features"]);
    bench.assert_sound("after damage");
}

/// Waits until this is so.
#[track_caller]
pub(super) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within a minute: {what}");
}

/// True if a worker has measured its first epoch.
fn has_an_epoch(bench: &Bench, stage: &str) -> bool {
    let files = files_below(&bench.path("artifacts/tiny/runs"));
    let jobs =
        files.iter().filter(|path| path.to_string_lossy().contains("/jobs/") && path.extension().is_some_and(|e| e == "jsonl"));
    let words = format!("\"event\":\"metric\",\"stage\":\"{stage}\"");
    jobs.into_iter().any(|path| fs::read_to_string(path).unwrap().contains(&words))
}

#[test]
fn ctrl_c_ends_workers_with_their_checkpoints() {
    let text = repeated(60, 1);
    let args = ["run", "p.toml", "--json", "--no-report", "--until", "pretext"];
    let expected = Bench::with(&text).kinset(&args).done().digests();
    let bench = Bench::with(&text);
    let with_workers = [&args[..], &["--executor", "local:2"]].concat();
    let running = bench.start("run", &with_workers);
    wait_until("an epoch", || has_an_epoch(&bench, "pretext"));
    running.signal("INT");
    let said = running.end();
    assert_eq!(said.exit, 75, "{}", said.err);
    assert_eq!(said.those("stopped"), ["pretext"], "{}", said.err);
    let kept = files_below(&bench.path("artifacts/store/work"));
    assert!(kept.iter().any(|path| path.ends_with("state.json")), "{kept:?}");
    let said = bench.kinset(&with_workers).done();
    assert!(said.err.contains("resuming at epoch"), "{}", said.err);
    assert_eq!(said.digests(), expected);
    bench.assert_sound("after a stop");
}

#[test]
fn whoever_is_killed_the_same_command_ends_with_the_same_bytes() {
    let text = repeated(40, 2);
    let args = ["run", "p.toml", "--json", "--no-report", "--checkpoint-every", "0"];
    let expected = Bench::with(&text).kinset(&args).done().digests();
    let bench = Bench::with(&text);
    let with_workers = [&args[..], &["--executor", "local:2"]].concat();
    // The watching process: its workers hear that it has gone.
    let running = bench.start("run", &with_workers);
    wait_until("an epoch", || has_an_epoch(&bench, "pretext"));
    assert!(running.kill());
    // A worker: its stage has failed, and says so.
    let mut running = bench.start("run", &with_workers);
    assert!(running.wait_for("runs  pretext"), "{}", running.said());
    let worker = workers_of(&running).pop().unwrap();
    assert!(Command::new("kill").args(["-9", &worker.to_string()]).status().unwrap().success());
    let said = running.end();
    assert_eq!(said.exit, 5, "{}", said.err);
    assert!(said.err.contains("its process was killed") && said.err.contains("hint"), "{}", said.err);
    let said = bench.kinset(&with_workers).done();
    assert_eq!(said.digests(), expected);
    bench.assert_sound("after two kills");
}

/// The processes that one has started and that live.
pub(crate) fn workers_of(running: &Running) -> Vec<u32> {
    let of = |path: PathBuf| {
        let status = fs::read_to_string(path.join("status")).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse::<u32>().ok()?;
        (parent == running.id()).then(|| path.file_name()?.to_str()?.parse::<u32>().ok())?
    };
    sorted(Path::new("/proc")).into_iter().filter_map(of).collect()
}

/// A Slurm of one's own.
pub(super) struct Slurm {
    pub(super) bench: Bench,
    bin: PathBuf,
    own: PathBuf,
}

impl Slurm {
    pub(super) fn with(pipeline: &str, cluster: &str) -> Self {
        let bench = Bench::with(pipeline);
        bench.write("cluster.toml", cluster);
        let (bin, own) = (bench.path("bin"), bench.path("slurm"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&own).unwrap();
        for name in ["sbatch", "squeue", "scancel", "scontrol", "sacct"] {
            std::os::unix::fs::symlink(Path::new(ROOT).join("tests/it/cluster/slurm.sh"), bin.join(name)).unwrap();
        }
        Self { bench, bin, own }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bench.command(args);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.bin.display())).env("FAKE_SLURM", &self.own);
        command
    }

    pub(super) fn kinset(&self, args: &[&str]) -> Said {
        Said::of(&self.command(args).output().unwrap())
    }

    pub(super) fn run(&self, more: &[&str]) -> Said {
        self.kinset(&[&["run", "p.toml", "--json", "--no-report"], more].concat())
    }

    pub(super) fn start(&self, name: &str, more: &[&str]) -> Running {
        self.bench.spawn(name, &mut self.command(&[&["run", "p.toml", "--json", "--no-report"], more].concat()))
    }

    /// The calls of one of Slurm's commands so far.
    pub(super) fn calls(&self, of: &str) -> Vec<String> {
        let all = fs::read_to_string(self.own.join("calls")).unwrap_or_default();
        all.lines().filter(|line| line.split(' ').next() == Some(of)).map(str::to_owned).collect()
    }

    /// The scripts that were submitted, in order.
    pub(super) fn scripts(&self) -> Vec<String> {
        let scripts = files_below(&self.own).into_iter().filter(|path| path.ends_with("script"));
        scripts.map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    /// How many jobs whoever watches knows.
    fn submitted(&self) -> usize {
        let lists = files_below(&self.bench.path("artifacts")).into_iter().filter(|path| path.ends_with("jobs.jsonl"));
        lists.map(|path| fs::read_to_string(path).unwrap().matches("\"job\"").count()).sum()
    }

    /// How many tasks are in this state.
    fn count(&self, state: &str) -> usize {
        let files = files_below(&self.own);
        files
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "state"))
            .filter(|path| fs::read_to_string(path).unwrap() == state)
            .count()
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // Whatever a test that failed left at work.
        for path in files_below(&self.own).iter().filter(|path| path.extension().is_some_and(|e| e == "state")) {
            let _ = fs::write(path.with_extension("cancel"), "");
            if fs::read_to_string(path).is_ok_and(|state| state == "RUNNING") {
                let pid = fs::read_to_string(path.with_extension("pid")).unwrap_or_default();
                let _ = Command::new("kill").args(["-9", &pid]).stderr(Stdio::null()).status();
            }
        }
        wait_until("the end of all jobs", || self.count("RUNNING") + self.count("PENDING") == 0);
    }
}

/// What asks often, so that tests need not wait.
pub(super) const QUICK: &str =
    "executor = \"slurm\"\n\n[default]\ncpus = 1\n\n[limits]\npoll = \"200ms\"\nsubmit_every = \"1ms\"\nsettle = \"1s\"\n";

#[test]
fn a_whole_graph_is_submitted_at_once_and_leaves_what_one_process_does() {
    let text = repeated(3, 4);
    let one = Bench::with(&text);
    let expected = one.run(&["--no-report"]).done();
    let slurm = Slurm::with(&text, QUICK);
    let said = slurm.run(&[]).done();
    assert_eq!(said.ran(), expected.ran(), "{}", said.err);
    assert_eq!(said.digests(), expected.digests());
    assert!(contents(&one) == contents(&slurm.bench), "the same records and the same blobs");
    slurm.bench.assert_sound("after jobs");
    // data.train, pretext, features, neighbors, an array of four, and another.
    assert_eq!(slurm.calls("sbatch").len(), 6);
    let scripts = slurm.scripts();
    assert!(
        scripts[4].contains("#SBATCH --array=0-3\n") && scripts[4].contains("#SBATCH --dependency=afterok:"),
        "{}",
        scripts[4]
    );
    assert!(scripts[5].contains("#SBATCH --dependency=afterok:101,aftercorr:105\n"), "{}", scripts[5]);
    let runs = sorted(&slurm.bench.path("artifacts/tiny/runs"));
    assert_eq!(runs.len(), 1, "{runs:?}");
    let list = fs::read_to_string(runs[0].join("jobs/jobs.jsonl")).unwrap();
    assert_eq!(list.lines().filter(|line| line.contains("\"job\"")).count(), 6, "{list}");
    let again = slurm.run(&[]).done();
    assert_eq!((again.ran().len(), slurm.calls("sbatch").len()), (0, 6));
}

#[test]
fn who_comes_back_finds_the_jobs_of_one_that_was_killed() {
    let text = repeated(80, 3);
    let expected = Bench::with(&text).run(&["--no-report"]).done().digests();
    let slurm = Slurm::with(&text, QUICK);
    let running = slurm.start("first", &[]);
    wait_until("all are submitted", || slurm.submitted() == 6 && has_an_epoch(&slurm.bench, "pretext"));
    assert!(!slurm.bench.path("artifacts/tiny/pretext").exists(), "before the first was done");
    assert!(running.kill());
    let said = slurm.run(&[]).done();
    // On a busy machine the first of the six may have ended before the second run looked.
    let ended = said.err.lines().filter(|line| line.trim_start().starts_with("fresh ")).count();
    assert!(ended < 6, "nothing was left to come back to: {}", said.err);
    assert_eq!(said.json["jobs"], serde_json::json!({ "submitted": 0, "attached": 6 - ended }), "{}", said.err);
    assert_eq!(slurm.calls("sbatch").len(), 6);
    assert_eq!(said.digests(), expected);
    assert_eq!(sorted(&slurm.bench.path("artifacts/tiny/runs")).len(), 2, "one folder for each that watches");
}

#[test]
fn ctrl_c_leaves_jobs_at_work_and_jobs_cancels_them() {
    let text = repeated(400, 2);
    let slurm = Slurm::with(&text, QUICK);
    let running = slurm.bench.spawn("first", &mut slurm.command(&["run", "p.toml", "--no-report"]));
    wait_until("all are submitted", || slurm.submitted() == 6 && has_an_epoch(&slurm.bench, "pretext"));
    running.signal("INT");
    let said = running.end();
    assert_eq!(said.exit, 75, "{}", said.err);
    assert!(said.err.contains("jobs go on") && said.err.contains("kinset jobs p.toml --cancel"), "{}", said.err);
    assert_eq!(slurm.count("RUNNING"), 1);
    let listed = slurm.kinset(&["jobs", "p.toml", "--json"]).done();
    let alive: Vec<&str> = listed.json["jobs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|job| job["alive"] == true)
        .map(|job| job["stages"][0].as_str().unwrap())
        .collect();
    assert_eq!(alive, ["pretext", "features", "neighbors", "cluster@1", "cluster@2", "scores@1", "scores@2"]);
    let log = slurm.kinset(&["jobs", "p.toml", "--log", "pretext"]).done();
    assert!(log.out.contains("runs  pretext"), "{}", log.out);
    slurm.kinset(&["jobs", "p.toml", "--cancel"]).done();
    assert_eq!(slurm.calls("scancel").len(), 1, "one call for all");
    wait_until("the queue is empty", || slurm.count("RUNNING") + slurm.count("PENDING") == 0);
    let kept = files_below(&slurm.bench.path("artifacts/store/work"));
    assert!(kept.iter().any(|path| path.ends_with("state.json")), "{kept:?}");
    let mut again = slurm.start("again", &["--until", "pretext"]);
    assert!(again.wait_for("resuming at epoch"), "{}", again.said());
    again.signal("INT");
    assert_eq!(again.end().exit, 75);
}

#[test]
fn a_job_that_was_cancelled_has_failed_and_says_so() {
    let slurm = Slurm::with(&repeated(400, 2), QUICK);
    let running = slurm.start("first", &[]);
    wait_until("all are submitted", || slurm.submitted() == 6 && has_an_epoch(&slurm.bench, "pretext"));
    slurm.kinset(&["jobs", "p.toml", "--cancel", "pretext"]).done();
    let said = running.end();
    assert_eq!(said.exit, 5, "{}", said.err);
    assert_eq!(said.those("failed"), ["pretext"]);
    assert_eq!(said.those("blocked").len(), 6);
    assert!(said.err.contains("its job was cancelled") && said.err.contains("pretext-0.log"), "{}", said.err);
}

/// A job that is at work by its stage: the folder of the first task.
fn job_of(slurm: &Slurm, stage: &str) -> PathBuf {
    let of_stage = |path: &PathBuf| {
        fs::read_to_string(path.join("comment")).is_ok_and(|comment| comment.trim().ends_with(&format!(":{stage}")))
    };
    sorted(&slurm.own).into_iter().find(of_stage).unwrap()
}

fn kill_9(pid: &str) {
    assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
}

#[test]
fn a_job_whose_node_fails_is_queued_again_by_slurm_and_goes_on() {
    let text = repeated(60, 1);
    let expected = Bench::with(&text).run(&["--no-report"]).done().digests();
    let slurm = Slurm::with(&text, QUICK);
    let mut running = slurm.start("first", &["--checkpoint-every", "0"]);
    wait_until("an epoch", || has_an_epoch(&slurm.bench, "pretext"));
    let job = job_of(&slurm, "pretext");
    // The node is gone, with all that ran on it; Slurm queues the job again under its number.
    fs::write(job.join("0.requeue"), "").unwrap();
    kill_9(&fs::read_to_string(job.join("0.pid")).unwrap());
    assert!(running.wait_for("resuming at epoch"), "{}", running.said());
    let said = running.end().done();
    assert_eq!(said.digests(), expected, "{}", said.err);
    assert!(said.those("failed").is_empty() && slurm.calls("scontrol").is_empty());
    assert_eq!(slurm.calls("sbatch").len(), 6, "nothing is submitted twice");
}

#[test]
fn a_job_that_runs_out_of_memory_says_so_and_how_much_its_last_result_needed() {
    let slurm = Slurm::with(&repeated(1, 1), QUICK);
    slurm.run(&["--until", "pretext"]).done();
    // Enough for the program, and less than the network takes.
    slurm.bench.write("cluster.toml", format!("setup = [\"ulimit -v 600000\"]\n{QUICK}"));
    let said = slurm.run(&["--until", "pretext", "--set", "stage.pretext.network.width=1024"]);
    assert_eq!(said.exit, 7, "{}", said.err);
    assert_eq!(said.those("failed"), ["pretext"], "{}", said.err);
    for words in ["out of memory", "raise `memory`", "its last results needed", "pretext-0.log"] {
        assert!(said.err.contains(words), "`{words}` is not in: {}", said.err);
    }
}

#[test]
fn a_job_that_is_killed_without_a_word_has_failed_and_its_log_is_named() {
    let slurm = Slurm::with(&repeated(400, 1), QUICK);
    let running = slurm.start("first", &["--until", "pretext"]);
    wait_until("an epoch", || has_an_epoch(&slurm.bench, "pretext"));
    kill_9(&fs::read_to_string(job_of(&slurm, "pretext").join("0.pid")).unwrap());
    let said = running.end();
    assert_eq!(said.exit, 5, "{}", said.err);
    assert_eq!(said.those("failed"), ["pretext"], "{}", said.err);
    assert!(said.err.contains("its job ended without a result") && said.err.contains("pretext-0.log"), "{}", said.err);
}

#[test]
fn a_job_that_is_warned_of_its_end_is_queued_again_and_goes_on() {
    let text = repeated(60, 1);
    let expected = Bench::with(&text).run(&["--no-report"]).done().digests();
    let slurm = Slurm::with(&text, QUICK);
    let mut running = slurm.start("first", &[]);
    wait_until("an epoch", || has_an_epoch(&slurm.bench, "pretext"));
    let pid = fs::read_to_string(job_of(&slurm, "pretext").join("0.pid")).unwrap();
    assert!(Command::new("kill").args(["-USR2", &pid]).status().unwrap().success());
    assert!(running.wait_for("resuming at epoch"), "{}", running.said());
    let said = running.end().done();
    assert_eq!(said.digests(), expected);
    assert_eq!(slurm.calls("scontrol").len(), 1);
}

#[test]
fn a_scheduler_that_is_busy_is_asked_again_and_one_that_refuses_fails_a_stage() {
    let slurm = Slurm::with(CHEAP, QUICK);
    fs::write(slurm.own.join("busy"), "3").unwrap();
    let said = slurm.run(&[]).done();
    assert_eq!(said.ran().len(), 6, "{}", said.err);
    assert!(said.err.contains("Socket timed out"), "{}", said.err);
    let rule = "\n[[rule]]\nkind = \"neighbors\"\npartition = \"nowhere\"\n";
    let slurm = Slurm::with(CHEAP, &format!("{QUICK}{rule}"));
    let said = slurm.run(&[]);
    assert_eq!(said.exit, 5, "{}", said.err);
    assert_eq!(said.those("failed"), ["neighbors"]);
    assert_eq!(said.ran().len(), 5, "the others are done: {}", said.err);
    assert!(said.err.contains("invalid partition specified") && said.err.contains("hint"), "{}", said.err);
}

#[test]
fn stages_may_run_in_the_process_that_watches_and_chains_in_one_job() {
    let rules =
        "\n[[rule]]\nkind = [\"evaluate\"]\nwhere = \"here\"\n\n[[rule]]\nstage = [\"features\", \"neighbors\"]\nfuse = true\n";
    let slurm = Slurm::with(CHEAP, &format!("{QUICK}{rules}"));
    let said = slurm.run(&[]).done();
    assert_eq!(said.digests(), Bench::with(CHEAP).run(&["--no-report"]).done().digests());
    assert_eq!(said.json["jobs"]["submitted"], 4, "{}", said.err);
    assert!(slurm.scripts().iter().any(|script| script.contains("features+neighbors")));
}

#[test]
fn who_detaches_comes_back_to_what_is_done() {
    let slurm = Slurm::with(CHEAP, QUICK);
    let said = slurm.run(&["--detach"]).done();
    assert_eq!(said.those("submitted").len(), 6, "{}", said.err);
    wait_until("all jobs are done", || slurm.count("COMPLETED") == 6);
    let said = slurm.run(&[]).done();
    assert_eq!(said.those("fresh").len(), 6);
    assert_eq!(slurm.calls("sbatch").len(), 6);
}

#[test]
fn a_rehearsal_writes_scripts_and_nothing_else() {
    let rules = "\n[[rule]]\nkind = [\"simclr\"]\ngpus = 1\ngpu_type = \"a100\"\ntime = \"1d\"\nmemory = \"16GiB\"\nextra = [\"--constraint=a100\"]\nwithout = [\"comment\"]\n";
    let slurm = Slurm::with(&repeated(3, 4), &format!("setup = [\"module load cuda/12.4\"]\n{QUICK}at_once = 2\n{rules}"));
    let said = slurm.kinset(&["run", "p.toml", "--dry-run", "d"]).done();
    assert!(said.err.contains("wrote 6 scripts"), "{}", said.err);
    assert!(slurm.calls("sbatch").is_empty() && !slurm.bench.path("artifacts").exists());
    let mut text = String::new();
    for path in sorted(&slurm.bench.path("d")) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with("sbatch") || name.ends_with("sh") {
            assert!(Command::new("bash").arg("-n").arg(&path).status().unwrap().success(), "{name}");
            text.push_str(&format!("== {name}\n{}\n", fs::read_to_string(&path).unwrap()));
        }
    }
    let text = text
        .replace(env!("CARGO_BIN_EXE_kinset"), "KINSET")
        .replace(slurm.bench.path("").to_str().unwrap().trim_end_matches('/'), "DIR");
    let text: String = text
        .lines()
        .map(|line| match line.split_once("=kinset:") {
            // Digests hold the paths of this machine.
            Some((before, digest)) => format!("{before}=kinset:DIGEST{}\n", &digest[12..]),
            None => format!("{line}\n"),
        })
        .collect();
    super::cli::assert_snapshot("dry-run", &text);
    // What was written can be submitted by hand.
    let submitted = slurm
        .command(&[])
        .get_envs()
        .fold(Command::new("bash"), |mut command, (name, value)| {
            if let Some(value) = value {
                command.env(name, value);
            }
            command
        })
        .arg("d/submit.sh")
        .current_dir(slurm.bench.path(""))
        .status()
        .unwrap();
    assert!(submitted.success());
    wait_until("all jobs are done", || slurm.count("COMPLETED") + slurm.count("FAILED") + slurm.count("CANCELLED") == 12);
    assert_eq!(slurm.count("COMPLETED"), 12);
    assert_eq!(slurm.run(&[]).done().those("fresh").len(), 12);
}

#[test]
fn a_worker_reads_no_raw_data_whose_keys_are_in_its_ticket() {
    let drawn = "dataset = \"synthetic\"\nsplit = \"train\"\nimages = 30\nclasses = 3\nsize = 8\n";
    assert!(CHEAP.contains(drawn));
    let slurm = Slurm::with(&CHEAP.replace(drawn, "dataset = \"folder\"\nroot = \"photos\"\n"), QUICK);
    super::faults::samples::write_photos(&slurm.bench, "photos");
    slurm.kinset(&["run", "p.toml", "--executor", "here", "--until", "data.train"]).done();
    slurm.kinset(&["run", "p.toml", "--dry-run", "d"]).done();
    fs::remove_dir_all(slurm.bench.path("photos")).unwrap();
    // In the order of their numbers, each finds what those above have made.
    for ticket in sorted(&slurm.bench.path("d")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let said = slurm.bench.kinset(&["exec-stage", ticket.to_str().unwrap()]);
        assert_eq!(said.exit, 0, "{}", said.err);
    }
    assert!(slurm.bench.kinset(&["plan", "p.toml"]).exit == 4, "a plan has to read them");
}

#[test]
fn a_plan_for_cards_has_their_keys_where_there_is_none() {
    let text = ground("tiny", 48, 2).replace("device = \"cpu\"\n", "");
    let rules = "executor = \"slurm\"\n\n[[rule]]\nkind = [\"simclr\", \"scan\"]\ngpus = 1\n";
    let slurm = Slurm::with(&text, rules);
    let plan = |more: &[&str]| slurm.bench.kinset(&[&["plan", "p.toml", "--json"], more].concat());
    let devices = |said: &Said| {
        let stages = said.json["stages"].as_array().unwrap().iter();
        stages.map(|stage| (stage["stage"].as_str().unwrap().to_owned(), stage["device"].clone())).collect::<BTreeMap<_, _>>()
    };
    let of_cluster = devices(&plan(&[]));
    assert_eq!(
        (&of_cluster["pretext"], &of_cluster["features"], &of_cluster["neighbors"]),
        (&"cuda".into(), &"cpu".into(), &Value::Null)
    );
    assert_eq!(devices(&plan(&["--executor", "here"]))["pretext"], "cpu");
    // A pipeline that names its device means it everywhere.
    assert_eq!(devices(&plan(&["--device", "cpu"]))["pretext"], "cpu");
}

#[test]
fn faults_of_a_cluster_file_are_told_with_line_and_caret() {
    let slurm = Slurm::with(CHEAP, "executor = \"slurm\"\n[default]\ncpu = 4\n");
    let said = slurm.run(&[]);
    assert_eq!(said.exit, 3, "{}", said.err);
    for words in ["cluster.toml:3:1", "unknown key `cpu`", "did you mean `cpus`?"] {
        assert!(said.err.contains(words), "`{words}` is not in: {}", said.err);
    }
    let said = slurm.run(&["--cluster", "nowhere.toml"]);
    assert!(said.exit == 3 && said.err.contains("there is no cluster file `nowhere.toml`"), "{}", said.err);
    let said = slurm.run(&["--executor", "here", "--detach"]);
    assert_eq!(said.exit, 3, "the file is looked at all the same: {}", said.err);
}

#[test]
fn a_ticket_of_another_version_is_refused_and_whoever_watches_hears_of_it() {
    let slurm = Slurm::with(CHEAP, QUICK);
    slurm.kinset(&["run", "p.toml", "--dry-run", "d"]).done();
    let ticket = slurm.bench.path("d/01-data.train.json");
    let text = fs::read_to_string(&ticket).unwrap();
    let own = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&own));
    fs::write(&ticket, text.replace(&own, "\"version\": \"0.0.0\"")).unwrap();
    let said = slurm.bench.kinset(&["exec-stage", "d/01-data.train.json"]);
    assert_eq!(said.exit, 7, "{}", said.err);
    assert!(fs::read_to_string(slurm.bench.path("d/01-data.train-0.end")).unwrap().contains("job::version"));
    let said = slurm.bench.kinset(&["exec-stage", "d/02-pixels.json", "7"]);
    assert_eq!(said.exit, 2, "{}", said.err);
}

#[test]
fn a_sweep_ends_in_one_report_though_its_driver_dies_twice() {
    let counts: Vec<String> = (1..=20).map(|count| count.to_string()).collect();
    let assigned = "\n[stage.assigned]\nkind = \"predict\"\nimages = \"data.train\"\nclassifier = \"kmeans\"\n";
    let seeds = "\n[repeat]\nfrom = \"kmeans\"\nseeds = 3\n";
    let text = format!("{CHEAP}{assigned}{seeds}\n[vary]\nstage.kmeans.restarts = [{}]\n", counts.join(", "));
    // One task for each setting and seed.
    let rules = format!("{QUICK}\n[[rule]]\nstage = [\"kmeans\", \"assigned\", \"scores\"]\nfuse = true\n");
    let slurm = Slurm::with(&text, &rules);
    slurm.run(&["--executor", "here", "--until", "neighbors"]).done();
    let first = slurm.start("first", &[]);
    wait_until("all are submitted", || slurm.submitted() == 1);
    assert!(first.kill());
    let second = slurm.start("second", &[]);
    wait_until("some of the sweep is done", || slurm.count("COMPLETED") >= 10);
    assert!(second.kill());
    let said = slurm.kinset(&["run", "p.toml", "--json"]).done();
    assert_eq!(slurm.calls("sbatch").len(), 1, "one array, submitted once");
    assert!(slurm.scripts()[0].contains("#SBATCH --array=0-59\n"), "{}", slurm.scripts()[0]);
    assert_eq!(said.states().len(), 4 + 3 * 60);
    assert_eq!(said.json["scores"].as_array().unwrap().len(), 60);
    let report = fs::read_to_string(slurm.bench.path(said.json["report"].as_str().unwrap())).unwrap();
    assert!(report.contains("data-sweep=\"kmeans\""));
    let page = slurm.kinset(&["report", "p.toml", "--json"]).done().json;
    let rows = page["varied"][0]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 20);
    assert!(rows.iter().all(|row| row["seeds"] == serde_json::json!([1, 2, 3]) && row["measures"][1]["name"] == "agreement"));
    // One of them, by hand and in one process.
    let hand = Bench::with(&format!("{CHEAP}{seeds}"));
    let digests = hand.run(&["--no-report", "--set", "stage.kmeans.restarts=7"]).done().digests();
    assert_eq!(said.digests()["kmeans@restarts=7@3.classifier"], digests["kmeans@3.classifier"]);
}

/// A Kubernetes of one's own, whose pods see this bench.
struct Kubernetes {
    bench: Bench,
    bin: PathBuf,
    own: PathBuf,
}

impl Kubernetes {
    fn with(pipeline: &str) -> Self {
        let bench = Bench::with(pipeline);
        let (bin, own) = (bench.path("bin"), bench.path("kubernetes"));
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(&own).unwrap();
        std::os::unix::fs::symlink(Path::new(ROOT).join("tests/it/cluster/kubectl.sh"), bin.join("kubectl")).unwrap();
        let cluster = format!(
            "executor = \"kubernetes\"\nkinset = \"{}\"\nsetup = [\"echo $(uname) pod $JOB_COMPLETION_INDEX\"]\n\n\
             [default]\ncpus = 1\nmemory = \"2GiB\"\ntime = \"1h\"\n\n[limits]\nat_once = 2\nsettle = \"1s\"\n\n\
             [requeue]\ntimes = 3\n\n\
             [kubernetes]\nimage = \"registry.example/kinset:1\"\nnamespace = \"vision\"\nclaims = [\"team:{}\"]\nsecrets = [\"s3\"]\n\
             user = 1000\n",
            env!("CARGO_BIN_EXE_kinset"),
            bench.path("").canonicalize().unwrap().display()
        );
        bench.write("cluster.toml", cluster);
        Self { bench, bin, own }
    }

    /// Applies what was written.
    fn submit(&self) -> Said {
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap());
        let mut script = Command::new("bash");
        script.arg("d/submit.sh").current_dir(self.bench.path("")).stdin(Stdio::null());
        script.env("PATH", path).env("FAKE_KUBERNETES", &self.own).env("KINSET_POLL", "0.1");
        Said::of(&script.output().unwrap())
    }

    fn calls(&self, of: &str) -> usize {
        let calls = fs::read_to_string(self.own.join("calls")).unwrap_or_default();
        calls.lines().filter(|line| line.contains(&format!(" {of} "))).count()
    }
}

/// The text with the digests of tickets, which hold paths of this machine, taken out.
fn without_digests(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = ["kinset-", "kinset:"].iter().filter_map(|mark| rest.find(mark)).min() {
        let (before, digest) = rest.split_at(at + 7);
        let is_one = digest.get(..12).is_some_and(|digest| digest.bytes().all(|c| c.is_ascii_hexdigit()));
        out.push_str(before);
        out.push_str(if is_one { "DIGEST" } else { "" });
        rest = &digest[if is_one { 12 } else { 0 }..];
    }
    out + rest
}

#[test]
fn manifests_for_kubernetes_leave_what_one_process_does() {
    let text = repeated(3, 4);
    let one = Bench::with(&text);
    one.run(&["--no-report"]).done();
    let pods = Kubernetes::with(&text);
    let said = pods.bench.kinset(&["run", "p.toml"]);
    assert!(said.exit == 2 && said.err.contains("--dry-run DIR"), "{}", said.err);
    let said = pods.bench.kinset(&["run", "p.toml", "--dry-run", "d"]).done();
    assert!(said.err.contains("wrote 6 manifests"), "{}", said.err);
    assert!(!pods.bench.path("artifacts").exists(), "nothing was done");
    let mut text = String::new();
    for file in ["d/submit.sh", "d/02-pretext.yaml", "d/05-cluster.yaml"] {
        text.push_str(&format!("== {file}\n{}\n", fs::read_to_string(pods.bench.path(file)).unwrap()));
    }
    let text = without_digests(&text)
        .replace(env!("CARGO_BIN_EXE_kinset"), "KINSET")
        .replace(pods.bench.path("").canonicalize().unwrap().to_str().unwrap(), "DIR");
    super::cli::assert_snapshot("dry-run-kubernetes", &text);

    let said = pods.submit().done();
    assert_eq!(pods.calls("apply"), 6, "{}", said.err);
    assert!(contents(&one) == contents(&pods.bench), "the same records and the same blobs");
    pods.bench.assert_sound("after pods");
    let log = files_below(&pods.own).into_iter().find(|path| path.to_string_lossy().ends_with("tiny-cluster-3.log")).unwrap();
    assert!(fs::read_to_string(log).unwrap().contains(" pod 3\n"));
    assert_eq!(pods.bench.run(&["--executor", "here"]).done().ran().len(), 0);
}

#[test]
fn a_pod_that_fails_stops_what_reads_it_and_is_tried_again_by_the_same_script() {
    let pods = Kubernetes::with(CHEAP);
    pods.bench.kinset(&["run", "p.toml", "--dry-run", "d", "--set", "stage.kmeans.clusters=99"]).done();
    for round in 1..3 {
        let said = pods.submit();
        assert_eq!(said.exit, 5, "{}", said.err);
        assert!(
            said.err.contains("cheap-kmeans has failed") && said.err.contains("cheap-scores is not submitted"),
            "{}",
            said.err
        );
        assert_eq!((pods.calls("apply"), pods.calls("delete")), (5 * round, round - 1));
    }
    let said = pods.bench.run(&["--executor", "here", "--until", "neighbors"]).done();
    assert_eq!(said.those("fresh").len(), 4, "the others are done");
}
