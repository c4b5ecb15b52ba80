//! Faults of where answers go, for every command: a reader that has gone, a full device, a full disk, a folder that is read-only, a kill
//! while a file is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::CommandFactory;
use kinset::base::seed::Seed;
use kinset::cli::args::Cli;

use super::super::bad_input::Disk;
use super::super::harness::{Bench, CHEAP, files_below, repeats};
use super::kit::{Series, attempt, attempt_into, count};
use super::samples::write_photos;

/// Something to type, and what makes it write to `out/` instead of standard output.
struct Line {
    args: &'static [&'static str],
    to: &'static [&'static str],
    /// It writes nowhere else.
    always: bool,
}

const fn says(args: &'static [&'static str]) -> Line {
    Line { args, to: &[], always: false }
}

const fn writes(args: &'static [&'static str], to: &'static [&'static str]) -> Line {
    Line { args, to, always: false }
}

const fn needs(args: &'static [&'static str], to: &'static [&'static str]) -> Line {
    Line { args, to, always: true }
}

const LINES: &[Line] = &[
    says(&["run", "p.toml"]),
    says(&["plan", "p.toml"]),
    says(&["plan", "p.toml", "--set", "stage.kmeans.clusters=2"]),
    says(&["explain", "p.toml", "kmeans"]),
    says(&["graph", "p.toml"]),
    says(&["compare", "p.toml", "--methods", "kmeans", "--seeds", "1"]),
    says(&["status", "p.toml"]),
    says(&["jobs", "p.toml", "--json"]),
    says(&["label", "p.toml"]),
    says(&["duplicates", "d.toml"]),
    needs(&["duplicates", "d.toml"], &["--output", "out/groups.csv"]),
    needs(&["duplicates", "d.toml"], &["--shared", "out/leaks.jsonl"]),
    says(&["diff", "p.toml", "--right-set", "stage.kmeans.clusters=2"]),
    writes(&["report", "p.toml"], &["--out", "out/report.html"]),
    writes(&["plot", "p.toml", "confusion"], &["--out", "out/confusion.svg"]),
    writes(&["inspect", "p.toml", "data.train"], &["--html", "out/images.html"]),
    says(&["verify"]),
    says(&["doctor"]),
    says(&["gc", "p.toml"]),
    // With its feature too: there is no such folder.
    says(&["cache", "status", "p.toml", "--url", "file:///no/such/folder"]),
    says(&["cache", "push", "p.toml", "--url", "file:///no/such/folder"]),
    says(&["cache", "pull", "p.toml", "--url", "file:///no/such/folder"]),
    says(&["cache", "gc", "--older-than", "1d", "--url", "file:///no/such/folder"]),
    needs(&["similar", "--target", "target.csv", "--pool", "pool.csv", "--nn-factor", "2"], &["--save-dir", "out/like"]),
    needs(
        &[
            "similar",
            "--target",
            "t.csv",
            "--pool",
            "p.csv",
            "--nn-factor",
            "2",
            "--near-db",
            "photos",
            "--materialize",
            "copy",
        ],
        &["--save-dir", "out/like"],
    ),
    needs(
        &["curate", "--pool", "p.csv", "--budget", "2", "--clusters", "2", "--near-db", "photos", "--materialize", "copy"],
        &["--save-dir", "out/like"],
    ),
    writes(&["predict", "p.toml", "photos"], &["--output", "out/new.csv"]),
    writes(&["predict", "p.toml", "photos", "--format", "jsonl"], &["--output", "out/new.jsonl"]),
    needs(&["predict", "p.toml", "photos"], &["--output", "out/new.parquet"]),
    needs(&["export", "p.toml", "assignments"], &["--output", "out/groups.csv"]),
    needs(&["export", "p.toml", "assignments"], &["--output", "out/groups.parquet"]),
    needs(&["export", "p.toml", "assignments"], &["--output", "out/sorted"]),
    needs(&["export", "p.toml", "assignments", "--copy"], &["--output", "out/sorted"]),
    needs(&["export", "p.toml", "kmeans"], &["--output", "out/kmeans.onnx"]),
    needs(&["export", "p.toml", "pixels"], &["--output", "out/pixels.onnx"]),
    says(&["data", "list"]),
    says(&["data", "check", "folder", "--root", "photos"]),
    says(&["data", "fetch", "digits"]),
    says(&["methods"]),
    says(&["completions", "fish"]),
    says(&["man", "run"]),
    needs(&["man"], &["--output", "out/man"]),
    writes(&["schema"], &["--output", "out/schema.json"]),
    writes(&["init", "photos"], &["--output", "out/p.toml"]),
];

/// A pipeline over pictures, run, with something to do for each of [`LINES`].
fn place() -> Bench {
    let drawn = "dataset = \"synthetic\"\nsplit = \"train\"\nimages = 30\nclasses = 3\nsize = 8\n";
    let sorted = "\n[stage.assignments]\nkind = \"predict\"\nimages = \"data.train\"\nclassifier = \"kmeans\"\n";
    let bench = Bench::with(&(CHEAP.replace(drawn, "dataset = \"folder\"\nroot = \"photos\"\n") + sorted));
    write_photos(&bench, "photos");
    for (target, pool) in [("target.csv", "pool.csv"), ("t.csv", "p.csv")] {
        let line = |number: usize| {
            let folder = if target == "t.csv" { ["ant/", "bee/", "cat/"][number % 3] } else { "" };
            format!("{folder}{number}.png,{},{},0.5\n", number % 5, number * number % 7)
        };
        bench.write(target, (0..6).map(line).collect::<String>());
        bench.write(pool, (6..24).map(line).collect::<String>());
    }
    fs::create_dir(bench.path("out")).unwrap();
    bench.write("d.toml", repeats("t.csv", "p.csv"));
    bench.kinset(&["run", "d.toml"]).done();
    bench.run(&[]).done();
    bench
}

/// The lines of the commands that take this flag, or all.
fn lines() -> impl Iterator<Item = (Vec<&'static str>, &'static Line)> {
    fn command_of<'a>(command: &'a clap::Command, args: &[&str]) -> &'a clap::Command {
        match args.first().and_then(|word| command.find_subcommand(word)) {
            Some(sub) => command_of(sub, &args[1..]),
            None => command,
        }
    }
    LINES.iter().flat_map(|line| {
        let mut forms = vec![line.args.to_vec()];
        let mut cli = Cli::command();
        cli.build();
        if command_of(&cli, line.args).get_arguments().any(|arg| arg.get_id() == "json") {
            forms.push([line.args, &["--json"]].concat());
        }
        forms.into_iter().map(move |args| (args, line))
    })
}

#[test]
fn every_command_has_a_line() {
    fn leaves(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        let subs: Vec<_> = command.get_subcommands().filter(|sub| sub.get_name() != "help" && !sub.is_hide_set()).collect();
        if subs.is_empty() {
            found.push(path.to_vec());
        }
        for sub in subs {
            leaves(sub, &[path, &[sub.get_name().to_owned()]].concat(), found);
        }
    }
    let mut all = Vec::new();
    leaves(&Cli::command(), &[], &mut all);
    assert!(all.len() > 10);
    // One answers until it is told to stop; `output` and `tests/view.py` try it.
    for path in all.into_iter().filter(|path| path[0] != "view") {
        let known = LINES.iter().any(|line| path.iter().zip(line.args).all(|(word, arg)| word == arg));
        assert!(known, "`kinset {}` is not tried by these tests: add a line for it", path.join(" "));
    }
}

#[test]
fn every_command_ends_by_its_code_wherever_its_answer_goes() {
    let mut series = Series::new("closed pipes and full devices, every command");
    let bench = place();
    for (args, line) in lines() {
        let args = if line.always { [&args[..], line.to].concat() } else { args };
        let again = || {
            // What an export made is not written over.
            let _ = fs::remove_dir_all(bench.path("out"));
            fs::create_dir(bench.path("out")).unwrap();
            bench.command(&args)
        };
        let quiet = attempt(&mut again());
        let how = args.join(" ");
        series.ended(&how, &quiet);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let said = attempt_into(&mut again(), Stdio::from(writer));
        series.ended_with(&format!("{how} | true"), &said, &[quiet.exit]);
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let said = attempt_into(&mut again(), Stdio::from(full));
        let due = if quiet.out.is_empty() { quiet.exit } else { 7 };
        series.ended_with(&format!("{how} > /dev/full"), &said, &[due]);
        // What it says beside its answer is no reason to fail.
        let mut command = again();
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = command.stdout(Stdio::null()).stderr(full).status().unwrap();
        series.same(&format!("{how} 2> /dev/full ends with {status}"), &status.code(), &Some(quiet.exit));
    }
    series.finish();
}

/// What lies in a folder: bytes by name. Reports tell the time, so only that they are there counts; a kill may leave a hidden file of
/// its own beside them, which is in nobody's way.
fn content(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let ours = |file: &PathBuf| {
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp"));
        !hidden && !file.components().any(|part| part.as_os_str() == "artifacts")
    };
    files_below(folder)
        .into_iter()
        .filter(ours)
        .map(|file| {
            let name = file.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
            let told = name.contains("report.") || name.contains(".html");
            (name, if told { Vec::new() } else { fs::read(&file).unwrap_or_default() })
        })
        .collect()
}

/// The lines that write to `out/`, whole.
fn writers() -> impl Iterator<Item = Vec<&'static str>> {
    LINES.iter().filter(|line| !line.to.is_empty()).map(|line| [line.args, line.to].concat())
}

#[test]
fn what_cannot_be_written_leaves_nothing_in_the_way_of_the_next_try() {
    let mut series = Series::new("full disks under every command's output");
    let bench = place();
    for args in writers() {
        let how = args.join(" ");
        let _ = fs::remove_dir_all(bench.path("out"));
        fs::create_dir(bench.path("out")).unwrap();
        let said = attempt(&mut bench.command(&args));
        assert_eq!(said.exit, 0, "{how}: {}", said.err);
        let wanted = content(&bench.path("out"));
        assert!(!wanted.is_empty(), "{how} writes nothing to `out`");
        let room: usize = files_below(&bench.path("out"))
            .iter()
            .map(|file| fs::metadata(file).map_or(1, |f| f.len().div_ceil(4096) as usize))
            .sum();
        fs::remove_dir_all(bench.path("out")).unwrap();
        for number in 0..count(2, 6) {
            let Some(disk) = Disk::mount(bench.path("out"), &format!("{}k", 4 * (1 + room * number / count(2, 6)))) else {
                return;
            };
            let said = attempt(&mut bench.command(&args));
            // Links and names take no room.
            series.ended_with(&format!("{how}, disk full"), &said, &[7, 0]);
            series.clean(&format!("{how}, disk full"), &bench.path("out"));
            disk.remount("size=64m");
            let mut due = wanted.clone();
            // A page that finds no room costs a warning and no result: it alone may be missing then.
            if said.exit == 0 && ["similar", "curate"].contains(&args[0]) && said.err.contains("warning: no report: ") {
                series.same(&format!("{how}: a page is due"), &due.remove("like/report.html").is_some(), &true);
            }
            if said.exit != 0 {
                let said = attempt(&mut bench.command(&args));
                series.same(&format!("{how} with space again: exit {}: {}", said.exit, said.err), &said.exit, &0);
            }
            series.same(&format!("{how}, with space again"), &content(&bench.path("out")), &due);
            disk.remount("ro");
            let said = attempt(&mut bench.command(&args));
            // A folder that is there already may be refused before it is found to be read-only.
            series.ended_with(&format!("{how}, read-only"), &said, &[0, 2, 4, 6, 7]);
        }
        for instead in ["a file", "nothing"] {
            let _ = fs::remove_dir_all(bench.path("out"));
            if instead == "a file" {
                fs::write(bench.path("out"), "mine").unwrap();
            }
            let said = attempt(&mut bench.command(&args));
            series.ended(&format!("{how}, with {instead} in place of the folder"), &said);
            if instead == "a file" {
                series.same(
                    &format!("{how}: a foreign file is gone"),
                    &fs::read(bench.path("out")).ok(),
                    &Some(b"mine".to_vec()),
                );
                fs::remove_file(bench.path("out")).unwrap();
            }
        }
    }
    series.finish();
}

#[test]
fn a_kill_while_something_is_written_leaves_nothing_in_the_way_of_the_next_try() {
    let mut series = Series::new("kill -9 while a command writes");
    let bench = place();
    let mut rng = Seed::new(51).branch("writing").rng();
    for args in writers() {
        let how = args.join(" ");
        let fresh = || {
            let _ = fs::remove_dir_all(bench.path("out"));
            fs::create_dir(bench.path("out")).unwrap();
        };
        fresh();
        bench.kinset(&args).done();
        let wanted = content(&bench.path("out"));
        for _ in 0..count(2, 10) {
            fresh();
            let running = bench.start("writer", &args);
            std::thread::sleep(Duration::from_secs_f64(rng.between(1.0, 60.0) / 1000.0));
            running.kill();
            let said = attempt(&mut bench.command(&args));
            let whole = said.exit != 0 && content(&bench.path("out")) == wanted;
            // What was finished before the kill is not written over.
            series.ended_with(&format!("{how}, after a kill"), &said, if whole { &[] } else { &[0] });
            series.same(&format!("{how}, after a kill"), &content(&bench.path("out")), &wanted);
        }
    }
    series.finish();
}
