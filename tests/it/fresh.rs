//! Caching: what runs and what does not. Every test asserts the exact list.

use std::fs;

use kinset::base::clock::Stopwatch;

use super::harness::{Bench, CHEAP, CHEAP_NODES, ROOT, WHOLE, WHOLE_NODES, whole_below};

const NOTHING: [&str; 0] = [];

#[test]
fn a_second_run_starts_no_stage_and_is_quick() {
    let bench = Bench::with(&WHOLE);
    let first = bench.run(&[]).done();
    assert_eq!(first.ran(), *WHOLE_NODES);
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let clock = Stopwatch::start();
        let second = bench.run(&[]).done();
        best = best.min(clock.seconds());
        assert_eq!(second.ran(), NOTHING);
        assert_eq!(second.those("fresh"), *WHOLE_NODES);
        assert_eq!(second.digests(), first.digests());
    }
    println!("a second run of {} stages took {best:.3} s", WHOLE_NODES.len());
    // The promise is 0.2 s; here other tests run at the same time.
    assert!(best < 1.0, "{best} s");
    bench.assert_sound("after the second run");
}

#[test]
fn a_first_run_says_of_every_stage_that_it_never_ran() {
    let bench = Bench::with(&WHOLE);
    let first = bench.run(&[]).done();
    let why: Vec<&str> = first.json["stages"].as_array().unwrap().iter().filter_map(|stage| stage["why"].as_str()).collect();
    assert_eq!(why, vec!["never ran"; WHOLE_NODES.len()], "siblings of the same kind are no explanation");
}

/// [`CHEAP`] on files: a small part of the committed digits, beside the pipeline.
fn on_files() -> Bench {
    let source = "dataset = \"digits\"\nlimit = 40\n";
    let drawn = "dataset = \"synthetic\"\nsplit = \"train\"\nimages = 30\nclasses = 3\nsize = 8\n";
    assert!(CHEAP.contains(drawn));
    let bench = Bench::with(&CHEAP.replace(drawn, source));
    for name in ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"] {
        bench.write(format!("data/digits/{name}"), fs::read(format!("{ROOT}/data/digits/{name}")).unwrap());
    }
    bench
}

#[test]
fn touching_raw_files_runs_nothing_and_changing_them_runs_what_reads_them() {
    let bench = on_files();
    let first = bench.run(&[]).done();
    assert_eq!(first.ran(), CHEAP_NODES);
    for name in ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"] {
        // Another inode, another time, the same bytes.
        let (path, aside) = (bench.path(format!("data/digits/{name}")), bench.path("aside"));
        fs::copy(&path, &aside).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    assert_eq!(bench.run(&[]).done().ran(), NOTHING);

    // Other labels: the images say what they said, so only the scores, which alone read labels, are made anew.
    let labels = bench.path("data/digits/labels-idx1-ubyte.gz");
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(fs::File::open(&labels).unwrap()), &mut bytes).unwrap();
    bytes[8..].rotate_left(1);
    fs::remove_file(&labels).unwrap();
    bench.write("data/digits/labels-idx1-ubyte", &bytes);
    let second = bench.run(&[]).done();
    assert_eq!(second.ran(), ["data.train", "scores"]);
}

#[test]
fn moving_checkout_and_artifacts_runs_nothing() {
    let bench = on_files();
    bench.run(&[]).done();
    let elsewhere = Bench::new();
    for name in ["p.toml", "data", "artifacts"] {
        fs::rename(bench.path(name), elsewhere.path(name)).unwrap();
    }
    assert_eq!(elsewhere.run(&[]).done().ran(), NOTHING);
    // And with the data under another root, given in either way.
    fs::rename(elsewhere.path("data"), elsewhere.path("raw")).unwrap();
    assert_eq!(elsewhere.run(&["--data", "raw"]).done().ran(), NOTHING);
    assert_eq!(elsewhere.run(&["--set", "data.train.root=raw/digits"]).done().ran(), NOTHING);
    elsewhere.assert_sound("after the move");
}

#[test]
fn renaming_stages_runs_nothing() {
    let bench = Bench::with(CHEAP);
    let first = bench.run(&[]).done();
    let renamed = CHEAP
        .replace("stage.features", "stage.vectors")
        .replace("= \"features\"", "= \"vectors\"")
        .replace("data.train", "data.pool")
        .replace("stage.kmeans", "stage.groups")
        .replace("[\"kmeans\"]", "[\"groups\"]")
        .replace("name = \"cheap\"", "name = \"another\"");
    bench.write("p.toml", renamed);
    let second = bench.run(&[]).done();
    assert_eq!(second.ran(), NOTHING);
    assert_eq!(second.digests()["vectors.features"], first.digests()["features.features"]);
    assert!(bench.path("artifacts/another/vectors/features.parquet").is_file(), "the new name has its view");
}

#[test]
fn order_comments_and_blanks_run_nothing() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    // The tables the other way round, and the lines of each too.
    let mut tables: Vec<String> = CHEAP.trim().split("\n\n").map(str::to_owned).collect();
    let head = tables.remove(0);
    tables.reverse();
    let mut text = format!("# a comment\n{}\n", head.lines().rev().collect::<Vec<_>>().join("   # why\n"));
    for table in &tables {
        let mut lines = table.lines();
        text.push_str(&format!("\n\n{}\n", lines.next().unwrap()));
        for line in lines.rev() {
            text.push_str(&format!("  {}   # said\n", line.replace(" = ", "=")));
        }
    }
    bench.write("p.toml", text);
    assert_eq!(bench.run(&[]).done().ran(), NOTHING);
}

#[test]
fn saying_a_default_runs_nothing() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    assert_eq!(
        bench.run(&["--set", "stage.kmeans.restarts=10", "--set", "stage.features.normalize=true"]).done().ran(),
        NOTHING
    );
}

#[test]
fn the_number_of_threads_is_nobodys_business() {
    let bench = Bench::with(CHEAP);
    bench.run(&["--threads", "1"]).done();
    for threads in ["2", "3", "8"] {
        assert_eq!(bench.run(&["--threads", threads]).done().ran(), NOTHING);
    }
}

#[test]
fn changing_one_setting_runs_exactly_its_cone() {
    let bench = Bench::with(&WHOLE);
    bench.run(&[]).done();
    assert_eq!(whole_below("ruc"), ["ruc", "scores"]);
    assert_eq!(
        whole_below("data.test"),
        ["data.test", "scores", "test_features", "knn", "linear", "matches", "selection", "near", "chosen"],
        "labels, and over several stages"
    );
    for change in [
        "stage.turtle.trial=1",
        "stage.knn.k=3",
        "stage.selflabel.epochs=1",
        "stage.ruc.epochs=1",
        "stage.cluster.optimizer.lr=0.001",
        "stage.neighbors.k=4",
        "stage.kmeans.clusters=4",
        "stage.pretext.temperature=0.5",
        "data.test.seed=7",
        "stage.selection.budget=10",
    ] {
        let node = change.strip_prefix("stage.").unwrap_or(change);
        let node = if node == change { "data.test" } else { node.split('.').next().unwrap() };
        assert_eq!(bench.run(&["--set", change]).done().ran(), whole_below(node), "{change}");
    }
    assert_eq!(bench.run(&[]).done().ran(), NOTHING, "what was there before is still there");
    bench.assert_sound("after ten changes");
}

#[test]
fn a_result_that_comes_out_the_same_stops_the_wave() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    for (change, ran) in [
        // More than there is.
        ("data.train.limit=1000", "data.train"),
        // It converges long before.
        ("stage.kmeans.iterations=500", "kmeans"),
    ] {
        let said = bench.run(&["--set", change]).done();
        assert_eq!(said.ran(), [ran], "{change}");
        assert_eq!(said.those("fresh").len(), CHEAP_NODES.len() - 1, "{change}");
    }
}

#[test]
fn another_seed_runs_what_draws_and_its_cone() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    assert_eq!(bench.run(&["--seed", "9"]).done().ran(), ["kmeans", "scores"]);
    assert_eq!(bench.run(&[]).done().ran(), NOTHING);
}

#[test]
fn only_from_until_and_force_choose_what_they_say() {
    let bench = Bench::with(CHEAP);
    assert_eq!(bench.run(&["--until", "features"]).done().ran(), ["data.train", "pixels", "features"]);
    let said = bench.run(&["--only", "scores"]);
    assert_eq!(said.exit, 5);
    assert_eq!(said.ran(), NOTHING);
    assert!(said.err.contains("`scores` needs `kmeans`, which is not selected"), "{}", said.err);
    assert_eq!(bench.run(&["--from", "kmeans"]).done().ran(), ["kmeans", "scores"]);
    assert_eq!(bench.run(&["--only", "neighbors"]).done().ran(), ["neighbors"]);
    assert_eq!(bench.run(&[]).done().ran(), NOTHING);
    assert_eq!(bench.run(&["--force", "--only", "neighbors,kmeans"]).done().ran(), ["neighbors", "kmeans"]);
    assert_eq!(bench.run(&["--force", "--from", "features"]).done().ran(), ["features", "neighbors", "kmeans", "scores"]);
    assert_eq!(bench.run(&["--force", "--until", "pixels"]).done().ran(), ["data.train", "pixels"]);
    assert_eq!(bench.run(&["--force"]).done().ran(), CHEAP_NODES);
    assert_eq!(bench.run(&["--only", "kmeans", "--set", "data.train.images=24"]).exit, 5, "what it reads is not there");
}

#[test]
fn a_profile_is_a_pipeline_of_its_own_over_the_same_results() {
    let bench = Bench::with(&format!("{CHEAP}\n[profile.less.stage.neighbors]\nk = 3\n"));
    assert_eq!(bench.run(&[]).done().ran(), CHEAP_NODES);
    assert_eq!(bench.run(&["--profile", "less"]).done().ran(), ["neighbors"]);
    assert_eq!(
        bench.run(&["--profile", "less", "--set", "stage.neighbors.k=5"]).done().ran(),
        NOTHING,
        "--set has the last word"
    );
}

#[test]
fn plan_says_what_run_does_and_why() {
    let bench = Bench::with(CHEAP);
    let plan = |more: &[&str]| bench.kinset(&[&["plan", "p.toml", "--json"], more].concat());
    let before = plan(&[]);
    assert_eq!(before.exit, 10);
    assert_eq!(before.json["work"], 6);
    assert_eq!(before.those("runs"), ["data.train"]);
    assert_eq!(before.those("waits"), ["pixels", "features", "neighbors", "kmeans", "scores"]);
    assert!(!bench.path("artifacts").exists(), "a plan writes nothing");
    bench.run(&[]).done();
    let after = plan(&[]).done();
    assert_eq!(after.those("fresh"), CHEAP_NODES);

    let changed = plan(&["--set", "stage.kmeans.clusters=4"]);
    assert_eq!(changed.exit, 10);
    assert_eq!((changed.those("runs"), changed.those("waits")), (vec!["kmeans"], vec!["scores"]));
    let why = changed.json["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "kmeans").unwrap();
    assert_eq!(why["why"], "settings.clusters 3 → 4");
    assert_eq!(plan(&["--force", "--only", "kmeans"]).exit, 10);

    let said = bench.kinset(&["explain", "p.toml", "kmeans", "--set", "stage.kmeans.clusters=4", "--json"]).done();
    assert_eq!(said.json[0]["differences"], serde_json::json!([{ "field": "settings.clusters", "old": 3, "new": 4 }]));
    let said = bench.kinset(&["explain", "p.toml", "kmeans"]).done();
    assert!(said.out.contains("fresh"), "{}", said.out);

    // A change above, made: the field below is the input, and the stage it comes from is named.
    bench.run(&["--set", "data.train.seed=5", "--until", "features"]).done();
    let said = bench.kinset(&["explain", "p.toml", "neighbors", "--set", "data.train.seed=5"]).done();
    assert!(said.out.contains("inputs.features") && said.out.contains("(from `features"), "{}", said.out);
}

#[test]
fn a_broken_stage_stops_its_dependents_and_nobody_else() {
    let sibling = "\n[data.lost]\ndataset = \"folder\"\nroot = \"nowhere\"\n\n[stage.lost]\nkind = \"embed\"\nimages = \"data.lost\"\nencoder = \"pixels\"\n\n[stage.more]\nkind = \"neighbors\"\nfeatures = \"lost\"\nk = 2\n";
    let bench = Bench::with(&format!("{CHEAP}{sibling}"));
    let said = bench.run(&[]);
    assert_eq!(said.exit, 4, "{}", said.err);
    assert_eq!(said.ran(), CHEAP_NODES);
    assert_eq!(said.those("failed"), ["data.lost"]);
    assert_eq!(said.those("blocked"), ["lost", "more"]);
    assert!(said.err.contains("nowhere"), "{}", said.err);
    bench.assert_sound("after a failure");
    // What was done stays done.
    assert_eq!(bench.run(&[]).ran(), NOTHING);
}
