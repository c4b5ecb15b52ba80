//! Damage to the store: bytes that change under our eyes, and things in the place of files. Nothing is computed from it, and one
//! run mends it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::harness::{Bench, CHEAP, CHEAP_NODES, Said, files_below, sorted};

/// Changes a read-only file where it lies, as who writes through the hard link of a view does.
fn change(path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    edit(&mut bytes);
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
}

/// Flips a bit in the values of a table, near its begin, where no reader notices.
fn flip(path: &Path) {
    change(path, |bytes| {
        let place = bytes.len() / 4;
        bytes[place] ^= 0x10;
    });
}

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

const FEATURES: &str = "artifacts/cheap/features/features.parquet";

impl Bench {
    /// The record of a stage of [`CHEAP`].
    fn record(&self, stage: &str) -> PathBuf {
        let card = fs::read_to_string(self.path(format!("artifacts/cheap/{stage}/stage.json"))).unwrap();
        let card: serde_json::Value = serde_json::from_str(&card).unwrap();
        let key = card["key"].as_str().unwrap();
        self.path(format!("artifacts/store/records/{}/{key}.json", &key[..2]))
    }

    /// Gives all records the form of those that came before inputs were compared.
    fn age(&self) {
        for record in files_below(&self.path("artifacts/store/records")) {
            let text = fs::read_to_string(&record).unwrap();
            let mut lines: Vec<&str> = text.lines().collect();
            if lines[1] == "  \"format\": 1," {
                continue;
            }
            assert!(lines.remove(1).starts_with("  \"digest\""), "{text}");
            assert_eq!(lines[1], "  \"format\": 2,");
            lines[1] = "  \"format\": 1,";
            fs::write(&record, lines.join("\n")).unwrap();
        }
    }

    /// Runs, and fails the test if that takes much longer than it should.
    fn run_without_hanging(&self, more: &[&str]) -> Said {
        let running = self.start("run", &[&["run", "p.toml", "--json"], more].concat());
        let id = running.id().to_string();
        let watch = std::thread::spawn(move || {
            for _ in 0..600 {
                std::thread::sleep(Duration::from_millis(100));
                if !Path::new("/proc").join(&id).join("exe").exists() {
                    return;
                }
            }
            let _ = Command::new("kill").args(["-KILL", &id]).status();
        });
        let said = running.end();
        watch.join().unwrap();
        said
    }
}

#[test]
fn a_byte_flipped_through_a_view_is_never_computed_from_and_one_run_heals() {
    let good = Bench::with(CHEAP).run(&[]).done().digests();
    for threads in ["1", "4"] {
        let bench = Bench::with(CHEAP);
        bench.run(&["--until", "features"]).done();
        flip(&bench.path(FEATURES));
        let said = bench.run(&["--threads", threads]).done();
        assert_eq!(said.digests(), good);
        assert_eq!(said.ran(), ["features", "neighbors", "kmeans", "scores"], "{}", said.err);
        assert!(said.err.contains("damaged: `features.parquet` of its output `features` has changed"), "{}", said.err);
        bench.assert_sound("after healing");
        assert_eq!(bench.run(&[]).done().ran().len(), 0);
    }
}

#[test]
fn a_damaged_input_of_a_damaged_result_heals_too() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    flip(&bench.path("artifacts/cheap/data.train/images.parquet"));
    flip(&bench.path(FEATURES));
    let said = bench.run(&["--set", "stage.kmeans.restarts=2"]).done();
    let ran = said.ran();
    assert!(["data.train", "features", "kmeans"].iter().all(|stage| ran.contains(stage)), "{}", said.err);
    assert!(["pixels", "neighbors"].iter().all(|stage| !ran.contains(stage)), "what is right stays: {}", said.err);
    assert_eq!(bench.run(&[]).done().digests(), good);
    bench.assert_sound("after healing");
}

#[test]
fn forcing_a_stage_whose_input_is_damaged_heals() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    for forced in [&["--force"][..], &["--from", "kmeans", "--force"]] {
        flip(&bench.path(FEATURES));
        let said = bench.run(forced);
        if said.exit == 6 {
            assert!(forced.len() > 1 && said.err.contains("leave out `--only` or `--from`"), "{}", said.err);
            bench.run(&["--force"]).done();
        }
        assert_eq!(bench.run(&[]).done().digests(), good);
        bench.assert_sound("after forcing");
    }
}

#[test]
fn a_damaged_input_whose_stage_may_not_run_is_named() {
    let bench = Bench::with(CHEAP);
    bench.run(&["--until", "features"]).done();
    flip(&bench.path(FEATURES));
    let said = bench.run(&["--only", "kmeans"]);
    assert_eq!(said.exit, 6, "{}", said.err);
    for words in ["the result of `features` is damaged", "has changed", "leave out `--only` or `--from`"] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
    bench.run(&[]).done();
    bench.assert_sound("after a whole run");
}

#[test]
fn what_is_exported_is_compared_first() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    let export = ["export", "p.toml", "kmeans", "-o", "clusters.onnx"];
    flip(&bench.path("artifacts/cheap/kmeans/classifier.safetensors"));
    let said = bench.kinset(&export);
    assert_eq!(said.exit, 6, "{}", said.err);
    assert!(said.err.contains("is damaged") && said.err.contains("verify --repair"), "{}", said.err);
    assert!(!bench.path("clusters.onnx").exists());
    bench.kinset(&["verify", "--repair"]).done();
    bench.run(&[]).done();
    bench.kinset(&export).done();
}

#[test]
fn pictures_are_compared_before_they_are_shown_or_copied() {
    const SORTED: &str = "\n[stage.assignments]\nkind = \"predict\"\nimages = \"data.train\"\nclassifier = \"kmeans\"\n";
    let bench = Bench::with(&format!("{CHEAP}{SORTED}"));
    bench.run(&[]).done();
    let page = |name: &str| {
        let said = bench.kinset(&["report", "p.toml", "--out", name]).done();
        (said.err, fs::read_to_string(bench.path(name)).unwrap())
    };
    let (said, whole) = page("whole.html");
    assert!(!said.contains("damaged") && whole.contains("data:image/"), "{said}");
    flip(&bench.path("artifacts/cheap/data.train/images.parquet"));
    let (said, damaged) = page("damaged.html");
    let why = "the result of `data.train` is damaged: `images.parquet` of its output `images` has changed";
    assert!(said.contains(why) && said.contains("verify --repair"), "{said}");
    assert!(damaged.contains("A result cannot be read: the result of <code>"), "it is said on the page");
    assert!(damaged.matches("data:image/").count() < whole.matches("data:image/").count(), "no picture is shown of it");
    let refused: [&[&str]; 4] = [
        &["inspect", "p.toml", "data.train", "--html", "x.html"],
        &["inspect", "p.toml", "assignments", "--html", "x.html"],
        &["inspect", "p.toml", "neighbors", "--html", "x.html"],
        &["export", "p.toml", "assignments", "--output", "sorted", "--copy"],
    ];
    for args in refused {
        let said = bench.kinset(args);
        assert!(said.exit == 6 && said.err.contains("is damaged"), "{}: {}", args.join(" "), said.err);
        assert!(!bench.path("x.html").exists() && !bench.path("sorted").exists(), "{}", args.join(" "));
    }
    bench.kinset(&["verify", "--repair"]).done();
    bench.run(&[]).done();
    for args in refused {
        bench.kinset(args).done();
    }
}

#[test]
fn repair_drops_what_an_older_kinset_may_have_computed_from_damage() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    bench.age();
    assert_eq!(bench.run(&[]).done().ran().len(), 0, "records of the older form are read");
    bench.assert_sound("with records of the older form");
    flip(&bench.path(FEATURES));
    bench.kinset(&["verify", "--repair"]).done();
    let said = bench.run(&[]).done();
    assert_eq!(said.ran(), ["features", "neighbors", "kmeans"], "{}", said.err);
    assert_eq!(said.digests(), good);
    bench.assert_sound("after repair");

    // The same when a run meets the damage.
    bench.age();
    flip(&bench.path(FEATURES));
    let said = bench.run(&["--set", "stage.neighbors.k=4"]).done();
    assert_eq!(said.ran(), ["features", "neighbors", "kmeans"], "{}", said.err);
    assert_eq!(bench.run(&[]).done().digests(), good);
    bench.assert_sound("after a run");
}

#[test]
fn another_artifacts_blob_in_a_record_is_found() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    bench.age();
    let [features, neighbors] = ["features", "neighbors"].map(|stage| {
        let record: serde_json::Value = serde_json::from_slice(&fs::read(bench.record(stage)).unwrap()).unwrap();
        record["outputs"][stage]["files"][0].clone()
    });
    let text = fs::read_to_string(bench.record("features")).unwrap();
    let swapped = text
        .replace(features["blob"].as_str().unwrap(), neighbors["blob"].as_str().unwrap())
        .replace(&format!("\"size\": {}", features["size"]), &format!("\"size\": {}", neighbors["size"]));
    assert_ne!(swapped, text);
    fs::write(bench.record("features"), swapped).unwrap();
    let said = bench.kinset(&["verify"]);
    assert_eq!(said.exit, 6, "{}", said.out);
    assert!(said.out.contains("`features.parquet` of its output `features`"), "{}", said.out);
    bench.kinset(&["verify", "--repair"]).done();
    let said = bench.run(&[]).done();
    assert_eq!(said.ran(), ["features", "neighbors", "kmeans"], "{}", said.err);
    assert_eq!(said.digests(), good);
    bench.assert_sound("after repair");
}

#[test]
fn outputs_that_a_stage_does_not_declare_are_found() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    bench.age();
    let text = fs::read_to_string(bench.record("features")).unwrap();
    fs::write(bench.record("features"), text.replacen("\"features\": {", "\"vectors\": {", 1)).unwrap();
    let said = bench.kinset(&["verify"]);
    assert_eq!(said.exit, 6);
    assert!(said.out.contains("it has no output `features`"), "{}", said.out);
}

#[test]
fn records_of_a_newer_kinset_are_refused_and_left_as_they_are() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    let record = bench.record("features");
    let newer = r#"{"format": 99, "new": true}"#;
    fs::write(&record, newer).unwrap();
    let said = bench.run(&[]);
    assert_eq!(said.exit, 6, "{}", said.err);
    assert!(said.err.contains("has format 99") && said.err.contains("nothing was changed"), "{}", said.err);
    for (args, exit) in [(&["verify"][..], 6), (&["verify", "--repair"], 0), (&["gc", "--delete"], 6), (&["gc"], 6)] {
        let said = bench.kinset(args);
        assert_eq!(said.exit, exit, "{args:?}: {}\n{}", said.out, said.err);
        assert!(format!("{}{}", said.out, said.err).contains("has format 99"), "{args:?}: {}\n{}", said.out, said.err);
    }
    assert_eq!(fs::read_to_string(&record).unwrap(), newer);
    assert!(files_below(&bench.path("artifacts/store/blobs")).len() >= CHEAP_NODES.len());
}

#[test]
fn a_folder_or_pipe_in_the_place_of_anything_in_the_store_heals_by_running() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    let places = || {
        let mut places = vec![bench.record("kmeans"), bench.path("artifacts/store/digests-of-another.jsonl")];
        places.push(bench.path("artifacts/store/locks/store.lock"));
        places.extend(files_below(&bench.path("artifacts/store/blobs")).into_iter().step_by(3));
        let key = bench.record("kmeans").file_stem().unwrap().to_owned();
        places.push(bench.path("artifacts/store/work").join(key));
        places
    };
    for place in places() {
        for what in ["folder", "pipe", "file"] {
            if place.is_dir() {
                fs::remove_dir_all(&place).unwrap();
            } else {
                drop(fs::remove_file(&place));
            }
            match what {
                "folder" => {
                    fs::create_dir(&place).unwrap();
                    fs::write(place.join("mine"), "mine").unwrap();
                }
                "pipe" => pipe(&place),
                _ => fs::write(&place, "").unwrap(),
            }
            let why = format!("a {what} at `{}`", place.display());
            let said = bench.run_without_hanging(&[]);
            assert_eq!((said.exit, said.digests()), (0, good.clone()), "{why}: {}", said.err);
            // What needs the place, and does not run by itself.
            let said = bench.run_without_hanging(&["--force"]);
            assert_eq!((said.exit, said.digests()), (0, good.clone()), "{why}: {}", said.err);
            bench.assert_sound(&why);
        }
    }
    assert!(!sorted(&bench.path("artifacts/store/aside")).is_empty(), "what was somebody's is kept");
}

#[test]
fn repair_mends_folders_and_pipes_in_the_place_of_blobs_and_records() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    let blob = files_below(&bench.path("artifacts/store/blobs")).remove(0);
    for (place, what) in [(bench.record("kmeans"), "folder"), (blob, "pipe")] {
        fs::remove_file(&place).unwrap();
        if what == "pipe" {
            pipe(&place);
        } else {
            fs::create_dir(&place).unwrap();
        }
        assert_eq!(bench.kinset(&["verify"]).exit, 6);
        bench.kinset(&["verify", "--repair"]).done();
        bench.kinset(&["verify"]).done();
    }
    assert_eq!(bench.run(&[]).done().digests(), good);
    bench.assert_sound("after repair");
}

#[test]
fn a_pipe_or_folder_as_a_file_of_features_is_refused_and_waited_for_by_nobody() {
    let bench = Bench::with("name = \"p\"\n[stage.imported]\nkind = \"import_features\"\nfile = \"given.csv\"\n");
    pipe(&bench.path("given.csv"));
    let said = bench.run_without_hanging(&[]);
    assert!(said.exit == 4 && said.err.contains("given.csv"), "{}: {}", said.exit, said.err);
    fs::remove_file(bench.path("given.csv")).unwrap();
    fs::create_dir(bench.path("given.csv")).unwrap();
    let said = bench.run_without_hanging(&[]);
    assert!(said.exit == 4 && said.err.contains("given.csv"), "{}: {}", said.exit, said.err);
}
