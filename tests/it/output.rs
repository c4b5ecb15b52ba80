//! Output of commands: standard output on a full disk or without a reader, files that appear whole or not at all, names that a terminal
//! would obey.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use kinset::cli::args::Cli;

use super::harness::{Bench, Said, files_below, repeats, sorted};
use super::import_export::photos;

/// Every command that answers on standard output, and how it ends otherwise. The last ones need a damaged store.
const ANSWERS: &[(&[&str], i32)] = &[
    (&["run", "p.toml", "--json"], 0),
    (&["run", "p.toml", "--json", "--set", "stage.kmeans.clusters=99"], 4),
    (&["plan", "p.toml"], 0),
    (&["plan", "p.toml", "--set", "stage.kmeans.clusters=3"], 10),
    (&["plan", "p.toml", "--set", "stage.kmeans.clusters=3", "--json"], 10),
    (&["explain", "p.toml", "kmeans"], 0),
    (&["graph", "p.toml"], 0),
    (&["compare", "p.toml", "--methods", "kmeans", "--seeds", "1"], 0),
    (&["compare", "p.toml", "--methods", "kmeans", "--seeds", "1", "--json"], 0),
    (&["status", "p.toml"], 0),
    (&["status", "p.toml", "--json"], 0),
    (&["jobs", "p.toml", "--json"], 0),
    (&["diff", "p.toml", "--right-set", "stage.kmeans.clusters=3"], 0),
    (&["diff", "p.toml", "--json"], 0),
    (&["report", "p.toml"], 0),
    (&["report", "p.toml", "--json"], 0),
    (&["plot", "p.toml", "prototypes"], 0),
    (&["inspect", "p.toml", "features"], 0),
    (&["inspect", "p.toml", "features", "--json"], 0),
    (&["duplicates", "d.toml"], 0),
    (&["duplicates", "d.toml", "--json"], 0),
    (&["label", "p.toml"], 0),
    (&["label", "p.toml", "--json"], 0),
    (&["view", "p.toml"], 0),
    (&["predict", "p.toml", "photos"], 0),
    (&["predict", "p.toml", "photos", "--output", "x.csv", "--json"], 0),
    (&["export", "p.toml", "kmeans", "--output", "x.onnx", "--json"], 0),
    (&["similar", "--target", "t.csv", "--pool", "p.csv", "--save-dir", "out", "--nn-factor", "1", "--no-report"], 0),
    (&["curate", "--pool", "p.csv", "--save-dir", "even", "--budget", "2", "--clusters", "1", "--no-report"], 0),
    (&["data", "list"], 0),
    (&["data", "check", "folder", "--root", "photos"], 0),
    (&["data", "check", "folder", "--root", "photos", "--json"], 0),
    (&["data", "fetch", "stl10", "--dry-run", "--json"], 0),
    (&["methods"], 0),
    (&["methods", "scan", "--json"], 0),
    (&["init", "photos"], 0),
    (&["completions", "fish"], 0),
    (&["schema"], 0),
    (&["schema", "cluster"], 0),
    (&["man"], 0),
    (&["gc", "p.toml"], 0),
    (&["gc", "--json"], 0),
    // What it answers with its feature, `tests/remote.py` sees.
    (&["cache", "--help"], 0),
    (&["--help"], 0),
    (&["run", "--help"], 0),
    (&["--version"], 0),
    (&["--version", "--verbose"], 0),
    (&["doctor"], 0),
    (&["doctor", "--json"], 0),
    (&["verify"], 6),
    (&["verify", "--json"], 6),
];

/// Results of [`photos`], and features beside them. Also their damage, once asked for.
fn answering() -> Bench {
    let bench = photos();
    bench.run(&[]).done();
    bench.write("t.csv", "a,1,0\nb,0,1\n");
    bench.write("p.csv", "c,1,0.1\nd,0.1,1\ne,1,1\n");
    bench.write("d.toml", repeats("t.csv", "p.csv"));
    bench.kinset(&["run", "d.toml"]).done();
    bench
}

fn damage(bench: &Bench) {
    let blobs = files_below(&bench.path("artifacts/store/blobs"));
    let bytes = fs::read(&blobs[0]).unwrap();
    fs::remove_file(&blobs[0]).unwrap();
    fs::write(&blobs[0], &bytes[..bytes.len() - 1]).unwrap();
}

fn said_to(bench: &Bench, args: &[&str], out: impl Into<Stdio>) -> Said {
    Said::of(&bench.command(args).stdout(out).output().unwrap())
}

/// Asserts how every command ends with this standard output.
fn assert_ends(out: impl Fn() -> Stdio, wanted: impl Fn(i32) -> i32, words: &str) {
    let bench = answering();
    let mut damaged = false;
    for (args, own) in ANSWERS {
        if *own == 6 && !damaged {
            damage(&bench);
            damaged = true;
        }
        let said = said_to(&bench, args, out());
        assert_eq!(said.exit, wanted(*own), "{args:?}: {}", said.err);
        assert!(said.err.contains(words) && !said.err.contains("panicked"), "{args:?}: {}", said.err);
    }
}

#[test]
fn every_command_is_asked_what_it_does_without_room_or_reader() {
    let mut command = Cli::command();
    command.build();
    // What is hidden is for other programs, and leaves its answer in files.
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()) {
        assert!(ANSWERS.iter().any(|(args, _)| args[0] == sub.get_name()), "`{}` is not among the answers", sub.get_name());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_standard_output_is_told_by_every_command() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    assert_ends(full, |_| 7, "cannot write to standard output");
}

#[test]
fn a_closed_pipe_keeps_every_command_s_own_code() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer.into()
    };
    assert_ends(closed, |own| own, "");
}

#[test]
#[cfg(target_os = "linux")]
fn standard_error_without_room_changes_nothing() {
    let bench = photos();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = bench.command(&["run", "p.toml"]).stderr(full).output().unwrap();
    assert_eq!(ended.status.code(), Some(0));
}

/// kinset, started by a shell that sets limits first.
#[cfg(unix)]
fn limited(bench: &Bench, limits: &str, args: &[&str]) -> Said {
    let inner = bench.command(args);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits}; exec \"$@\""), "sh"]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Said::of(&command.current_dir(bench.path("")).stdin(Stdio::null()).output().unwrap())
}

/// No file may be larger than a block, and nobody is killed for trying.
const NO_ROOM: &str = "trap '' XFSZ; ulimit -f 1";

/// Everything in the folder but the results, by name.
fn beside(bench: &Bench) -> Vec<String> {
    let names = sorted(&bench.path("")).into_iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned());
    names
        .filter(|name| {
            !["artifacts", "hf", "p.toml", "photos", "p.csv", "t.csv", "features.csv", "names.toml"].contains(&&**name)
        })
        .collect()
}

#[test]
#[cfg(unix)]
fn a_full_disk_leaves_nothing_half_written_and_the_next_try_succeeds() {
    let bench = answering();
    bench.write("old.csv", "theirs");
    for (args, place) in [
        (&["predict", "p.toml", "photos", "--output", "old.csv"][..], "old.csv"),
        (&["predict", "p.toml", "photos", "--output", "new.parquet"], "new.parquet"),
        (&["export", "p.toml", "assignments", "--output", "sorted", "--copy"], "sorted"),
        (&["export", "p.toml", "pixels", "--output", "net.safetensors"], "net.safetensors"),
        (&["report", "p.toml", "--out", "page.html"], "page.html"),
    ] {
        let before = beside(&bench);
        let limits = if ["sorted", "net.safetensors"].contains(&place) { "trap '' XFSZ; ulimit -f 0" } else { NO_ROOM };
        let said = limited(&bench, limits, args);
        assert_eq!(said.exit, 7, "{args:?}: {}", said.err);
        assert!(said.err.contains(place) && !said.err.contains(".kinset-"), "{args:?}: {}", said.err);
        assert_eq!(beside(&bench), before, "{args:?}");
        bench.kinset(args).done();
        assert!(bench.path(place).exists(), "{place}");
    }
    assert!(fs::read_to_string(bench.path("old.csv")).unwrap().starts_with("id,row,path"));
}

#[test]
fn what_a_killed_export_left_is_no_reason_to_refuse() {
    let bench = answering();
    bench.write(".sorted.kinset-abcdef/kinset.lock", "");
    bench.write(".sorted.kinset-abcdef/sorted/0/half.png", "half");
    bench.write("empty/.kinset-abcdef/kinset.lock", "");
    bench.write("empty/.kinset-abcdef/content/0/half.png", "half");
    bench.write(".x.csv.kinset-abcdef/kinset.lock", "");
    for place in ["sorted", "empty"] {
        bench.kinset(&["export", "p.toml", "assignments", "--output", place, "--copy"]).done();
        assert_eq!(files_below(&bench.path(place)).len(), 25, "{place}: the pictures and the mark of an export");
    }
    bench.kinset(&["predict", "p.toml", "photos", "--output", "x.csv"]).done();
    assert_eq!(beside(&bench), ["d.toml", "empty", "sorted", "x.csv"]);
}

#[test]
fn what_somebody_else_wrote_beside_an_export_stays() {
    let bench = answering();
    bench.write("net.json", "{\"mine\": true}");
    bench.write("net.onnx.json", "[1]");
    for (stage, file) in [("pixels", "net.safetensors"), ("kmeans", "net.onnx")] {
        let said = bench.kinset(&["export", "p.toml", stage, "--output", file]);
        assert!(said.exit == 2 && said.err.contains(".json`, the JSON file that belongs to"), "{file}: {}", said.err);
        assert!(!bench.path(file).exists(), "{file}: nothing is written before");
    }
    assert_eq!(fs::read_to_string(bench.path("net.json")).unwrap(), "{\"mine\": true}");
    // Our own card is written again.
    for (stage, file) in [("pixels", "own.safetensors"), ("kmeans", "own.onnx")] {
        bench.kinset(&["export", "p.toml", stage, "--output", file]).done();
        bench.kinset(&["export", "p.toml", stage, "--output", file]).done();
    }
    bench.kinset(&["export", "p.toml", "pixels", "--output", "own.safetensors"]).done();
}

#[test]
fn no_output_goes_over_an_input_into_the_store_or_where_it_cannot_be() {
    let bench = answering();
    bench.write("more/a.png", fs::read(bench.path("photos/dark/0.png")).unwrap());
    for (args, words) in [
        (&["predict", "p.toml", "photos", "--output", "p.toml"][..], "is an input"),
        (&["predict", "p.toml", "more/a.png", "--format", "csv", "--output", "more/a.png"], "is an input"),
        (&["predict", "p.toml", "photos", "--format", "csv", "--output", "photos/dark/0.png"], "is an input"),
        (&["predict", "p.toml", "photos/dark/0.png", "--output", "more/a.png"], "names an image file"),
        (&["predict", "p.toml", "photos", "--output", "photos"], "is an input"),
        (&["predict", "p.toml", "more/a.png", "--output", "artifacts/photos"], "is a folder"),
        (&["predict", "p.toml", "photos", "--output", "artifacts/store/x.csv"], "is an input"),
        (&["predict", "p.toml", "photos", "--output", "p.toml/x.csv"], "p.toml"),
        (&["export", "p.toml", "assignments", "--output", "photos"], "already exists"),
        (&["export", "p.toml", "assignments", "--output", "x.csv", "--copy"], "--copy"),
        (&["report", "p.toml", "--out", "p.toml"], "is an input"),
        (&["report", "p.toml", "--out", "photos"], "is a folder"),
        (&["plot", "p.toml", "prototypes", "--out", "p.toml/x.svg"], "p.toml"),
        (
            &["inspect", "artifacts/photos/features/features.parquet", "--html", "artifacts/photos/features/features.parquet"],
            "is an input",
        ),
        (
            &["similar", "--target", "t.csv", "--pool", "p.csv", "--save-dir", "more", "--attributes", "more/report.json"],
            "report.json",
        ),
    ] {
        bench.write("more/report.json", "theirs");
        let said = bench.kinset(args);
        assert!(said.exit == 2 && said.err.contains(words), "{args:?}: {} {}", said.exit, said.err);
        assert_eq!(fs::read_to_string(bench.path("more/report.json")).unwrap(), "theirs", "{args:?}");
    }
    bench.run(&[]).done();
    bench.assert_sound("nothing was written into the store");
    assert!(fs::read_to_string(bench.path("p.toml")).unwrap().contains("kmeans"));
}

#[test]
fn a_folder_of_selections_that_is_not_ours_is_left_alone() {
    let bench = answering();
    let similar = ["similar", "--target", "t.csv", "--pool", "p.csv", "--save-dir", "out", "--nn-factor", "1", "--no-report"];
    bench.write("out/report.json", "theirs");
    let said = bench.kinset(&similar);
    assert!(said.exit == 2 && said.err.contains("report.json` would be overwritten"), "{}", said.err);
    assert_eq!(sorted(&bench.path("out")).len(), 1, "nothing was written before");
    fs::remove_file(bench.path("out/report.json")).unwrap();
    bench.kinset(&similar).done();
    bench.kinset(&similar).done();
}

#[test]
#[cfg(unix)]
fn a_selection_over_an_earlier_one_in_the_same_place_loses_no_picture() {
    for first in ["symlink", "hardlink", "copy"] {
        for second in ["symlink", "hardlink", "copy"] {
            let bench = answering();
            for (number, name) in ["c", "d", "e"].into_iter().enumerate() {
                let picture = fs::read(bench.path(format!("photos/dark/{}.png", number * 2))).unwrap();
                bench.write(format!("pool/JPEGImages/{name}.png"), picture);
                bench.write(format!("pool/Annotations/{name}.xml"), "<annotation/>");
            }
            let similar = |near: &str, how: &str| {
                let common = ["similar", "--target", "t.csv", "--pool", "p.csv", "--save-dir", "out", "--nn-factor", "1"];
                bench.kinset(&[&common[..], &["--no-report", "--near-db", near, "--materialize", how]].concat()).done()
            };
            similar("pool", first);
            let contents = |folder: &str| -> Vec<Vec<u8>> {
                files_below(&bench.path(folder)).iter().map(|path| fs::read(path).unwrap()).collect()
            };
            let (pool, chosen) = (contents("pool"), contents("out/nn1"));
            assert_eq!(chosen.len(), 5, "two pictures, their annotations, and the mark of an export");
            let said = similar("out/nn1", second);
            assert_eq!((contents("pool"), contents("out/nn1")), (pool, chosen), "{first}, then {second}");
            assert!(!said.err.contains("no picture"), "{first}, then {second}: {}", said.err);
        }
    }
}

#[test]
#[cfg(unix)]
fn names_that_no_file_has_and_links_out_of_the_pool_are_told_and_not_followed() {
    let bench = answering();
    let long = "n".repeat(300);
    bench.write("p.csv", format!("{long},1,0.1\nlnk/passwd,0.1,1\n"));
    bench.write("outside/passwd", "secret");
    fs::create_dir_all(bench.path("pool")).unwrap();
    std::os::unix::fs::symlink(bench.path("outside"), bench.path("pool/lnk")).unwrap();
    let args = ["--nn-factor", "1", "--no-report", "--near-db", "pool", "--materialize", "copy"];
    let said =
        bench.kinset(&[&["similar", "--target", "t.csv", "--pool", "p.csv", "--save-dir", "out"], &args[..]].concat()).done();
    assert!(said.err.contains("2 names have no picture") && said.err.contains("not followed: `lnk/passwd`"), "{}", said.err);
    assert_eq!(files_below(&bench.path("out/nn1")), [bench.path("out/nn1/.exported-by-kinset")], "only the mark of an export");
    assert!(bench.path("out/manifest_nn1.parquet").is_file(), "the lists are whole");
}

#[test]
#[cfg(unix)]
fn what_a_terminal_would_obey_is_escaped_for_people_and_kept_for_programs() {
    let bench = answering();
    let evil = "x\u{1b}[31mEVIL\u{202e}gnp.png";
    bench.write(Path::new("bad").join(evil), "no picture");
    bench.write(Path::new("good").join(evil), fs::read(bench.path("photos/dark/0.png")).unwrap());
    let acts = |text: &str| text.contains(['\u{1b}', '\u{202e}', '\u{9b}']);
    let said = bench.kinset(&["data", "check", "folder", "--root", "bad"]);
    assert!(
        said.err.contains("\\u{1b}[31mEVIL\\u{202e}") && !acts(&said.err) && !acts(&said.out),
        "{}\n{}",
        said.out,
        said.err
    );
    let said = bench.kinset(&["predict", "p.toml", "bad", "--skip-broken"]);
    assert!(said.err.contains("\\u{1b}[31m") && !acts(&said.err), "{}", said.err);
    let said = bench.kinset(&["predict", "p.toml", "good"]).done();
    assert!(said.out.contains(evil) && !acts(&said.err), "{}\n{}", said.out, said.err);
    let said = bench.kinset(&["predict", "p.toml", "good", "--format", "jsonl"]).done();
    assert!(said.out.contains("\\u001b[31mEVIL"), "{}", said.out);
    bench.write("c.csv", "name\u{1b}[2J,a,b\nx,1,oops\n");
    for args in [&["plan", "x\u{1b}[2J.toml"][..], &["plan", "p.toml", "x\u{1b}[2J"], &["inspect", "x\u{9b}2J.parquet"]] {
        let said = bench.kinset(args);
        assert!(said.exit != 0 && !acts(&said.err), "{args:?}: {}", said.err);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn threads_that_cannot_be_had_are_the_machine_s_fault() {
    let bench = photos();
    // Where memory ends in a thread that was reported to have started, the standard library aborts before our code runs; that is for
    // a few kilobytes of each thread's megabytes, so not for three limits in turn.
    let started = |said: &Said| said.err.contains("failed to allocate an alternative stack");
    let said = [1_500_000, 1_530_000, 1_560_000]
        .map(|most| limited(&bench, &format!("ulimit -v {most}"), &["run", "p.toml", "--threads", "1024"]))
        .into_iter()
        .find(|said| !started(said))
        .unwrap();
    assert!(said.exit == 7 && said.err.contains("cannot start the worker threads"), "{} {}", said.exit, said.err);
    assert!(said.err.contains("ulimit -u") && !said.err.contains("panicked"), "{}", said.err);
    for args in [&["status", "p.toml"][..], &["data", "check", "folder", "--root", "photos"]] {
        let mut command = bench.command(args);
        let said = Said::of(&command.env("RAYON_NUM_THREADS", "1").output().unwrap());
        assert_eq!(said.exit, 0, "{args:?}: {}", said.err);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn too_many_open_files_are_the_machine_s_fault() {
    let bench = answering();
    // Standard input, output and error, and what the loader needs; then none is left for the data.
    for limit in 4..12 {
        let said = limited(&bench, &format!("ulimit -n {limit}"), &["run", "p.toml", "--json"]);
        assert!([0, 7].contains(&said.exit), "{limit}: {} {}", said.exit, said.err);
        assert!(!said.err.contains("panicked"), "{limit}: {}", said.err);
    }
    bench.assert_sound("after too many open files");
}
