//! Output for people: help, plans, graphs and descriptions of stages as committed text; every `--json` answer parses.
//!
//! `KINSET_BLESS=1 cargo test --release cli::` writes the snapshots anew; look at the difference before you commit it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use kinset::cli::args::Cli;

use super::harness::{Bench, CHEAP, CHEAP_NODES, ROOT, Said, command, files_below, sorted};

fn snapshots() -> PathBuf {
    PathBuf::from(ROOT).join("tests/it/snapshots")
}

/// Digests are machine-independent where numbers are, so they are left out; so is where the test ran.
fn redacted(text: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let digest = word.len() >= 12 && word.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
        out.push_str(if digest { "<digest>" } else { &word });
        word.clear();
        out.push(c);
    }
    out.pop();
    out
}

/// Compares with the committed text, or writes it if asked to.
#[track_caller]
pub(crate) fn assert_snapshot(name: &str, text: &str) {
    let path = snapshots().join(format!("{name}.txt"));
    let text = redacted(text);
    if std::env::var_os("KINSET_BLESS").is_some() {
        fs::create_dir_all(snapshots()).unwrap();
        fs::write(&path, &text).unwrap();
        return;
    }
    let known = fs::read_to_string(&path).unwrap_or_default();
    if known != text {
        let first = known.lines().zip(text.lines()).position(|(a, b)| a != b);
        let line = first.unwrap_or_else(|| known.lines().count().min(text.lines().count()));
        panic!(
            "`{name}` is not what `{}` says, from line {} on:\n- {}\n+ {}\nis it meant? KINSET_BLESS=1 writes it anew\n\n{text}",
            path.display(),
            line + 1,
            known.lines().nth(line).unwrap_or("(end)"),
            text.lines().nth(line).unwrap_or("(end)"),
        );
    }
}

/// All commands, as they are typed.
fn commands(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
    found.push(path.to_vec());
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        commands(sub, &[path, &[sub.get_name().to_owned()]].concat(), found);
    }
}

#[test]
fn the_help_of_every_command_is_as_committed() {
    let mut all = Vec::new();
    commands(&Cli::command(), &[], &mut all);
    assert!(all.len() > 10);
    let bench = Bench::new();
    for path in all {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let said = bench.kinset(&args).done();
        assert_snapshot(&["help".to_owned(), path.join("-")].join("-").trim_end_matches('-').replace("--", "-"), &said.out);
        assert_eq!(said.err, "");
    }
}

#[test]
fn plan_explain_and_graph_are_as_committed() {
    let bench = Bench::with(CHEAP);
    assert_snapshot("plan-before", &bench.kinset(&["plan", "p.toml"]).out);
    assert_snapshot("graph-mermaid", &bench.kinset(&["graph", "p.toml"]).done().out);
    assert_snapshot("graph-dot", &bench.kinset(&["graph", "p.toml", "--format", "dot"]).done().out);
    bench.run(&[]).done();
    assert_snapshot("plan-after", &bench.kinset(&["plan", "p.toml"]).done().out);
    let changes = ["--set", "stage.kmeans.clusters=4", "--set", "stage.kmeans.restarts=3"];
    assert_snapshot("plan-changed", &bench.kinset(&[&["plan", "p.toml"], &changes[..]].concat()).out);
    assert_snapshot("explain-changed", &bench.kinset(&[&["explain", "p.toml", "kmeans"], &changes[..]].concat()).done().out);
    assert_snapshot("explain-fresh", &bench.kinset(&["explain", "p.toml", "neighbors"]).done().out);
    assert_snapshot("verify", bench.kinset(&["verify"]).done().out.split_once('\n').unwrap().1);
}

#[test]
fn the_list_of_stages_and_each_sign_are_as_committed() {
    let bench = Bench::new();
    assert_snapshot("methods", &bench.kinset(&["methods"]).done().out);
    for stage in kinset::registry::all() {
        let said = bench.kinset(&["methods", stage.kind()]).done();
        assert_snapshot(&format!("methods-{}", stage.kind()), &said.out);
    }
}

#[test]
fn no_snapshot_is_an_orphan() {
    let mut all = Vec::new();
    commands(&Cli::command(), &[], &mut all);
    let mut known: Vec<String> = all
        .iter()
        .map(|path| ["help".to_owned(), path.join("-")].join("-").trim_end_matches('-').to_owned())
        .chain(kinset::registry::all().map(|stage| format!("methods-{}", stage.kind())))
        .chain(
            ["plan-before", "plan-after", "plan-changed", "graph-mermaid", "graph-dot", "explain-changed", "explain-fresh"]
                .map(str::to_owned),
        )
        .chain(["methods".to_owned(), "verify".to_owned(), "dry-run".to_owned(), "dry-run-kubernetes".to_owned()])
        .collect();
    known.sort();
    for path in sorted(&snapshots()) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(known.contains(&name), "`{}` belongs to nothing any more: delete it", path.display());
    }
}

#[test]
fn every_json_answer_parses_and_is_all_there_is_on_standard_output() {
    let bench = Bench::with(CHEAP);
    let data = format!("{ROOT}/data");
    let answers: [(&[&str], i32); 22] = [
        (&["plan", "p.toml", "--json"], 10),
        (&["run", "p.toml", "--json"], 0),
        (&["run", "p.toml", "--json", "--set", "stage.kmeans.clusters=99"], 4),
        (&["plan", "p.toml", "--json"], 0),
        (&["explain", "p.toml", "kmeans", "--json"], 0),
        (&["status", "p.toml", "--json"], 0),
        (&["diff", "p.toml", "--right-set", "stage.kmeans.clusters=4", "--json"], 0),
        (&["report", "p.toml", "--json"], 0),
        (&["inspect", "p.toml", "features", "--json"], 0),
        (&["inspect", "artifacts/cheap/neighbors/neighbors.parquet", "--rows", "2", "--json"], 0),
        (&["predict", "p.toml", "artifacts/cheap/data.train/images.parquet", "--output", "x.csv", "--json"], 0),
        (&["export", "p.toml", "pixels", "--output", "x.safetensors", "--json"], 0),
        (&["export", "p.toml", "kmeans", "--output", "x.onnx", "--json"], 0),
        (&["data", "fetch", "stl10", "--dry-run", "--json"], 0),
        (&["verify", "--json"], 0),
        (&["doctor", "--json"], 0),
        (&["gc", "p.toml", "--json"], 0),
        (&["gc", "--json"], 0),
        (&["data", "list", "--json"], 0),
        (&["data", "check", "digits", "--data", &data, "--json"], 0),
        (&["methods", "--json"], 0),
        (&["methods", "scan", "--json"], 0),
    ];
    for (args, exit) in answers {
        let said = bench.kinset(args);
        assert_eq!(said.exit, exit, "{args:?}: {}\n{}", said.out, said.err);
        assert!(!said.json.is_null(), "{args:?}: {}", said.out);
    }
}

#[test]
fn a_result_is_shown_as_a_page_with_its_pictures() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    let page = |args: &[&str]| {
        bench.kinset(&[&["inspect"], args, &["--html", "x.html"]].concat()).done();
        fs::read_to_string(bench.path("x.html")).unwrap()
    };
    for (args, sheets) in [
        (&["p.toml", "data.train"][..], 1),
        (&["artifacts/cheap/data.train/images.parquet"], 1),
        (&["p.toml", "neighbors"], 24),
        (&["p.toml", "features"], 0),
    ] {
        let html = page(args);
        assert_eq!(html.matches("url(data:image/").count(), sheets, "{args:?}");
        assert!(html.contains("<svg") && !html.contains("http://") && !html.contains("https://"), "{args:?}");
    }
}

#[test]
fn two_pipelines_and_two_runs_are_laid_beside_each_other() {
    let bench = Bench::with(CHEAP);
    let other = ["--set", "stage.kmeans.clusters=4"];
    bench.run(&[]).done();
    bench.run(&other).done();
    let said = bench.kinset(&["diff", "p.toml", "--right-set", "stage.kmeans.clusters=4", "--json"]).done();
    let stages = said.json["stages"].as_array().unwrap();
    assert_eq!(stages.len(), CHEAP_NODES.len());
    let of = |name: &str| stages.iter().find(|stage| stage["stage"] == name).unwrap();
    let kmeans = of("kmeans");
    assert_eq!(kmeans["fields"].as_array().unwrap().len(), 1, "{kmeans}");
    assert_eq!((&kmeans["fields"][0]["field"], &kmeans["fields"][0]["right"]), (&"settings.clusters".into(), &4.into()));
    assert_eq!(of("features")["fields"], serde_json::json!([]));
    assert!(of("scores")["inputs"].as_array().unwrap().contains(&"classifiers".into()), "{}", of("scores"));
    let acc = said.json["scores"].as_array().unwrap().iter().find(|score| score["score"] == "acc").unwrap();
    assert!(acc["left"]["mean"].is_f64() && acc["right"]["mean"].is_f64() && acc["stage"] == "kmeans", "{acc}");

    // The runs say the same as the pipelines, and words are there for people.
    let runs = sorted(&bench.path("artifacts/cheap/runs"));
    let [first, second] = runs.as_slice() else { panic!("{runs:?}") };
    let (first, second) = (first.to_str().unwrap(), second.to_str().unwrap());
    let of_runs = bench.kinset(&["diff", first, second, "--json"]).done();
    for part in ["stages", "scores"] {
        assert_eq!(of_runs.json[part], said.json[part], "{part}");
    }
    let words = bench.kinset(&["diff", first, second]).done().out;
    assert!(words.contains("settings.clusters") && words.contains("the same: data.train"), "{words}");
    let nothing = bench.kinset(&["diff", "p.toml"]).done().out;
    assert!(!nothing.contains("what differs"), "{nothing}");
    assert_eq!(bench.kinset(&["diff", "p.toml", "nowhere"]).exit, 2);
}

#[test]
fn the_event_file_tells_the_whole_run() {
    let bench = Bench::with(CHEAP);
    bench.run(&["--threads", "1"]).done();
    let files = files_below(&bench.path("artifacts/cheap/runs"));
    let [file] = files.as_slice() else { panic!("one run, one file: {files:?}") };
    let events: Vec<serde_json::Value> =
        fs::read_to_string(file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"], &events[events.len() - 1]["event"]), (&"run-started".into(), &"run-finished".into()));
    for node in CHEAP_NODES {
        let of_node = events.iter().filter(|event| event["stage"] == node);
        let words: Vec<&str> =
            of_node.filter_map(|event| event["event"].as_str()).filter(|w| w.starts_with("stage-")).collect();
        assert_eq!(words, ["stage-started", "stage-finished"], "{node}");
    }
}

#[test]
fn views_show_the_results_under_readable_names() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    for (file, stage) in [
        ("data.train/images.parquet", "data.train"),
        ("data.train/labels.parquet", "data.train"),
        ("features/features.parquet", "features"),
        ("neighbors/neighbors.parquet", "neighbors"),
        ("kmeans/classifier.safetensors", "kmeans"),
        ("scores/scores.json", "scores"),
    ] {
        let path = bench.path("artifacts/cheap").join(file);
        let card = fs::read_to_string(path.parent().unwrap().join("stage.json")).unwrap();
        let card: serde_json::Value = serde_json::from_str(&card).unwrap();
        let blob = card["files"][path.file_name().unwrap().to_str().unwrap()]["blob"].as_str().unwrap();
        assert_eq!(kinset::store::digest::Digest::of(&fs::read(&path).unwrap()).hex(), blob, "{file}");
        assert_eq!(card["stage"], stage);
    }
}

#[test]
fn scores_say_what_was_measured_on_what_and_their_table_has_the_names() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    let at = |file: &str| bench.path("artifacts/cheap").join(file);
    let json = |file: &str| serde_json::from_str::<serde_json::Value>(&fs::read_to_string(at(file)).unwrap()).unwrap();
    let content = |stage: &str, output: &str| json(&format!("{stage}/stage.json"))["outputs"][output]["content"].clone();
    let scores = json("scores/scores.json")["content"].clone();
    assert_eq!(scores["protocol"]["scored_on"], serde_json::json!([content("data.train", "images")]));
    assert_eq!(scores["protocol"]["labels"], content("data.train", "labels"));
    assert_eq!(scores["rows"][0]["measured"], content("kmeans", "classifier"));
    let table = fs::read_to_string(at("scores/scores.csv")).unwrap();
    let acc = scores["rows"][0]["acc"].as_f64().unwrap();
    assert!(table.lines().nth(1).unwrap().starts_with(&format!("kmeans,data.train,1,30,3,3,{acc},")), "{table}");

    // Other names, the same bytes, and a table of its own.
    let named = CHEAP
        .replace("[stage.kmeans]", "[stage.other]")
        .replace("\"kmeans\"]", "\"other\"]")
        .replace("[stage.scores]", "[stage.judge]");
    bench.write("p.toml", &named);
    let said = bench.run(&[]).done();
    assert_eq!(said.ran(), [] as [&str; 0], "names are no part of a key");
    assert_eq!(fs::read(at("scores/scores.json")).unwrap(), fs::read(at("judge/scores.json")).unwrap());
    let renamed = fs::read_to_string(at("judge/scores.csv")).unwrap();
    assert_eq!(renamed, table.replace("\nkmeans,", "\nother,"));
}

#[test]
fn a_plan_says_what_so_many_images_cannot_satisfy() {
    let bench = Bench::with(CHEAP);
    let plan = |set: &[&str]| bench.kinset(&[&["plan", "p.toml", "--json"], set].concat());
    let state = |said: &Said, stage: &str| {
        let stages = said.json["stages"].as_array().unwrap();
        let found = stages.iter().find(|row| row["stage"] == stage).unwrap();
        (found["state"].as_str().unwrap().to_owned(), found["why"].as_str().unwrap().to_owned())
    };
    let large = ["--set", "stage.neighbors.k=5000", "--set", "stage.kmeans.clusters=31"];
    assert_eq!(plan(&large).exit, 10, "nobody has counted the images yet");
    bench.run(&["--until", "data.train"]).done();
    let said = plan(&large);
    assert_eq!(said.exit, 4, "{}", said.out);
    let why = |stage: &str, what: &str| {
        let (state, why) = state(&said, stage);
        assert!(state == "broken" && why.contains(what), "{stage}: {state}, {why}");
    };
    why("neighbors", "k is 5000, but there are only 30 images (hint: set `k = 29` or less");
    why("kmeans", "clusters is 31, but there are only 30 images");
    assert_eq!(state(&said, "features").0, "waits");
    assert_eq!(plan(&["--set", "stage.neighbors.k=29", "--set", "stage.kmeans.clusters=30"]).exit, 10);
    bench.run(&[]).done();
    assert_eq!((plan(&large).exit, plan(&[]).exit), (4, 0), "features are counted as well as images");
}

#[test]
fn a_command_that_finds_no_result_names_the_folder_it_looked_in() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    let from_elsewhere = |args: &[&str]| bench.kinset(&[args, &["--artifacts", "else/where"]].concat());
    for (args, exit) in [
        (&["export", "p.toml", "kmeans", "--output", "x.onnx"][..], 5),
        (&["inspect", "p.toml", "features"], 5),
        (&["report", "p.toml"], 5),
        (&["status", "p.toml"], 0),
    ] {
        let said = from_elsewhere(args);
        assert_eq!(said.exit, exit, "{args:?}: {}", said.err);
        assert!(said.err.contains("in `else/where`") && said.err.contains("--artifacts DIR"), "{args:?}: {}", said.err);
    }
    assert_eq!(bench.kinset(&["status", "p.toml"]).done().err, "", "no warning where there are results");
}

#[test]
fn what_gc_would_delete_is_what_no_named_pipeline_uses() {
    let bench = Bench::with(CHEAP);
    let first = bench.run(&[]).done();
    bench.run(&["--set", "stage.kmeans.clusters=4"]).done();
    // What the readable views show is kept too, so they shall show the file's own results.
    bench.run(&[]).done();
    let before = bench.kinset(&["verify", "--json"]).done().json["records"].as_u64().unwrap();
    assert_eq!(before, 8, "six, and two of the change");
    // How much is freed is said by itself: "from 316 MiB to 316 MiB" says nothing.
    let planned = bench.kinset(&["gc", "p.toml"]).done();
    let said = planned.err.trim().strip_prefix("`--delete` would free ").unwrap_or_else(|| panic!("{}", planned.err));
    let (freed, rest) = said.split_once(" of ").unwrap();
    let (before, rest) = rest.split_once("; ").unwrap();
    assert!(freed != before && rest.starts_with("nothing was deleted"), "{}", planned.err);
    assert!(planned.out.contains("result") && planned.out.contains("kmeans"), "{}", planned.out);
    assert_eq!(bench.kinset(&["verify", "--json"]).done().json["records"], 8, "dry by default");
    let deleted = bench.kinset(&["gc", "p.toml", "--delete"]).done();
    assert!(deleted.err.trim().starts_with(&format!("freed {freed} of {before}")), "{}", deleted.err);
    assert_eq!(bench.kinset(&["verify", "--json"]).done().json["records"], 6);
    let nothing = bench.kinset(&["gc", "p.toml"]).done();
    assert!(nothing.out == "nothing to delete\n" && nothing.err.trim().starts_with("the store uses "), "{}", nothing.err);
    bench.assert_sound("after gc");
    let again = bench.run(&[]).done();
    assert_eq!((again.ran().len(), again.digests()), (0, first.digests()));
}

#[test]
fn gc_keeps_the_result_whose_clusters_a_person_named() {
    let predict = "\n[stage.assignments]\nkind = \"predict\"\nfeatures = \"features\"\nclassifier = \"kmeans\"\n";
    let bench = Bench::with(&format!("{CHEAP}{predict}"));
    bench.run(&[]).done();
    bench.kinset(&["label", "p.toml", "--cluster", "0=shapes"]).done();
    bench.write("p.toml", format!("{}{predict}", CHEAP.replace("clusters = 3", "clusters = 4")));
    bench.run(&[]).done();
    // Its classifier can be computed again; which images were called shapes cannot be told from that.
    let named: &[&[&str]] = &[&["gc", "p.toml", "--delete"], &["gc", "--delete"]];
    for args in named {
        let said = bench.kinset(args).done();
        assert!(!said.out.contains("predict"), "{}", said.out);
    }
    let carried = bench.kinset(&["label", "p.toml", "--carry"]).done();
    assert!(carried.out.contains("shapes"), "{}", carried.out);
}

#[test]
fn a_pipeline_that_init_writes_runs() {
    let bench = Bench::new();
    for (number, shade) in (0..24u8).enumerate() {
        let image = image::RgbImage::from_fn(20, 16, |x, y| image::Rgb([(x * 9) as u8, (y * 11) as u8 + shade, shade * 10]));
        let mut bytes = Vec::new();
        image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bench.write(format!("photos/{}/{number}.png", ["cat", "dog"][number % 2]), bytes);
    }
    let said = bench.kinset(&["init", "photos", "--clusters", "2", "--output", "p.toml"]).done();
    assert_eq!(said.out, "");
    assert_eq!(bench.kinset(&["plan", "p.toml"]).exit, 10);
    let smaller = ["--profile", "smoke", "--set", "stage.pretext.network.width=8", "--until", "features"];
    let said = bench.run(&smaller).done();
    assert_eq!(said.ran(), ["data.images", "pretext", "features"]);
    // A file that is there is not written over.
    assert_ne!(bench.kinset(&["init", "photos", "--output", "p.toml"]).exit, 0);
}

#[test]
fn pipelines_of_one_folder_do_not_write_over_each_other() {
    let bench = Bench::new();
    let mut bytes = Vec::new();
    let image = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([x as u8, y as u8, 9]));
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    for folder in ["cats", "dogs"] {
        for name in ["1", "2"] {
            bench.write(format!("{folder}/{name}.png"), bytes.clone());
        }
    }
    let init = |args: &[&str]| bench.kinset(&[&["init"], args].concat());
    let named = |file: &str| {
        let text = fs::read_to_string(bench.path(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("name = ").map(str::to_owned)).unwrap()
    };
    for (folder, file) in [("cats", "a.toml"), ("dogs", "b.toml"), ("cats", "c.toml")] {
        init(&[folder, "--output", file]).done();
    }
    assert_eq!(["a.toml", "b.toml", "c.toml"].map(named), ["\"cats\"", "\"dogs\"", "\"cats-2\""]);
    init(&["cats", "--name", "my.cats", "--output", "d.toml"]).done();
    assert_eq!(named("d.toml"), "\"my.cats\"");
    assert_eq!(init(&["cats", "--name", "../cats"]).exit, 2);
    // Results are remembered with the file they came from, wherever that is written.
    let run = |file: &str| bench.kinset(&["run", file, "--until", "data.images", "--no-report"]).done().err;
    assert!(!run("a.toml").contains("is also called"));
    fs::create_dir(bench.path("elsewhere.d")).unwrap();
    init(&["cats", "--output", "elsewhere.d/e.toml"]).done();
    assert_eq!(named("elsewhere.d/e.toml"), "\"cats-2\"");
    // A file that was copied by hand is told apart when it runs.
    fs::copy(bench.path("a.toml"), bench.path("copy.toml")).unwrap();
    let said = run("copy.toml");
    assert!(said.contains("a.toml` is also called `cats`"), "{said}");
    assert!(!run("a.toml").contains("is also called"), "a run with nothing to do leaves no journal");
}

#[test]
#[cfg(unix)]
fn a_shell_completes_commands_options_and_values() {
    let script = Said::of(&command(Path::new(ROOT), &["completions", "bash"]).output().unwrap()).done().out;
    // As bash does: the words so far, which of them is to be completed, and the one before it.
    let ask = |words: &[&str]| {
        let (line, [.., before, last]) = (words.join(" "), words) else { unreachable!("a command and a word of it") };
        let asked = format!(
            "COMP_WORDS=({line}); COMP_CWORD={}; _kinset kinset {last} {before}; echo \"${{COMPREPLY[@]}}\"",
            words.len() - 1
        );
        let said = std::process::Command::new("bash").args(["--norc", "-c", &format!("{script}\n{asked}")]).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(ask(&["kinset", "pl"]), "plan plot");
    assert_eq!(ask(&["kinset", "run", "--no-r"]), "--no-report");
    assert_eq!(ask(&["kinset", "completions", "z"]), "zsh");
    for (shell, mark) in [("zsh", "#compdef kinset"), ("fish", "complete -c kinset")] {
        let script = Said::of(&command(Path::new(ROOT), &["completions", shell]).output().unwrap()).done().out;
        assert!(script.contains(mark) && script.contains("similar"), "{shell}: {script}");
    }
}

#[test]
fn the_instruction_set_is_printed_and_can_be_capped() {
    let kinset = |value: &str, args: &[&str]| {
        let said = Said::of(&command(Path::new(ROOT), args).env("KINSET_ISA", value).output().unwrap());
        (said.exit, said.out, said.err)
    };
    let (exit, out, _) = kinset("portable", &["--version", "--verbose"]);
    assert_eq!(exit, 0);
    assert!(out.starts_with(&format!("kinset {}\n", env!("CARGO_PKG_VERSION"))), "{out}");
    assert!(
        out.contains("\ndevice: ") && out.contains("instruction set: portable (detected: ") && out.contains("\nthreads: "),
        "{out}"
    );
    let (exit, out, _) = kinset("", &["--version"]);
    assert_eq!((exit, out.as_str()), (0, concat!("kinset ", env!("CARGO_PKG_VERSION"), "\n")));
    for args in [["--version", "--verbose"], ["methods", "--json"]] {
        let (exit, out, err) = kinset("avx9", &args);
        assert_eq!((exit, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("`avx9`") && err.contains("`portable`, `avx2`, `avx512`"), "{err}");
    }
    assert_eq!(kinset("avx9", &["--help"]).0, 0, "help is there for those who look for the right value");
}

#[test]
fn the_number_that_is_found_reaches_the_clusters_in_one_run() {
    let counted = "\n[stage.how_many]\nkind = \"auto_k\"\nfeatures = \"features\"\nmax = 4\nrestarts = 1\nestimators = [\"modularity\", \"silhouette\"]\nrule = \"first\"\n";
    let found = CHEAP.replace("clusters = 3", "clusters_from = \"how_many\"") + counted;
    let bench = Bench::with(&found);
    bench.run(&[]).done();
    let json =
        |path: &str| -> serde_json::Value { serde_json::from_str(&fs::read_to_string(bench.path(path)).unwrap()).unwrap() };
    let table = bench.kinset(&["inspect", "p.toml", "how_many", "--json"]).done();
    let chosen = table.json[0]["content"]["metadata"]["kinset"]
        .as_str()
        .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
    let chosen = chosen.unwrap()["fields"]["chosen"].as_u64().unwrap();
    assert!((2..=4).contains(&chosen));
    let card = json("artifacts/cheap/kmeans/classifier.json");
    assert_eq!(card["content"]["clusters"].as_u64().unwrap(), chosen, "{card}");
    let kept = json("artifacts/cheap/kmeans/stage.json");
    assert!(kept.to_string().contains(&format!("`clusters` is {chosen}, the number that was found")), "{kept}");
    // Another estimate, another clustering; the same estimate, nothing.
    let again = bench.run(&["--set", "stage.how_many.restarts=2"]).done();
    assert!(!again.ran().contains(&"features"), "{}", again.err);
    let both = bench.run(&["--set", "stage.kmeans.clusters=3"]);
    assert!(both.exit == 3 && both.err.contains("in place of the first"), "{}", both.err);
    // What compares methods looks for as many.
    let compared = bench.kinset(&["compare", "p.toml", "--methods", "kmeans", "--seeds", "1", "--json"]).done();
    assert_eq!(compared.json["clusters"].as_u64(), Some(chosen));
}
