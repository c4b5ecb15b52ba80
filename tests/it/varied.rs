//! Pipelines whose settings take several values: the same bytes as by hand, from one process and from jobs of a cluster.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::harness::{Bench, CHEAP, Said, ground};

/// [`ground`] with assignments and scores, the clustering with two seeds.
fn plain(epochs: u32) -> String {
    ground("tiny", 48, epochs)
        + "\n[stage.assigned]\nkind = \"predict\"\nimages = \"data.train\"\nclassifier = \"cluster\"\n"
        + "\n[stage.scores]\nkind = \"evaluate\"\nclassifiers = [\"cluster\"]\nimages = \"data.train\"\nlabels = \"data.train.labels\"\n"
        + "\n[repeat]\nfrom = \"cluster\"\nseeds = 2\n"
}

const GRID: &str = "\n[vary]\nstage.cluster.entropy_weight = [1, 2.5, 5]\n";

/// The digests of what depends on the weight, under the names of a pipeline in which it varies.
fn of_hand(said: &Said, weight: &str) -> BTreeMap<String, String> {
    let named = |(name, digest): (String, String)| {
        let (stage, output) = name.split_once('.').unwrap();
        let varied = ["cluster", "assigned", "scores"].iter().find(|family| stage.starts_with(**family));
        let stage =
            varied.map_or(stage.to_owned(), |family| stage.replacen(family, &format!("{family}@entropy_weight={weight}"), 1));
        (format!("{stage}.{output}"), digest)
    };
    said.digests().into_iter().map(named).collect()
}

#[test]
fn a_grid_is_what_was_written_by_hand_and_a_killed_one_goes_on() {
    let (hand, varied) = (Bench::with(&plain(12)), Bench::with(&(plain(12) + GRID)));
    let mut expected = BTreeMap::new();
    for weight in ["1", "2.5", "5"] {
        let set = format!("stage.cluster.entropy_weight={weight}");
        expected.extend(of_hand(&hand.run(&["--no-report", "--set", &set]).done(), weight));
    }
    let running = varied.start("first", &["run", "p.toml", "--json", "--no-report", "--checkpoint-every", "0"]);
    varied.wait_for_an_epoch("tiny");
    assert!(running.kill());
    let said = varied.run(&[]).done();
    assert_eq!(said.digests(), expected);
    assert!(said.err.contains("resuming at epoch"), "{}", said.err);
    let once = |family: &str| said.states().keys().filter(|name| name.split('@').next() == Some(family)).count();
    assert_eq!(["pretext", "neighbors", "cluster", "assigned", "scores"].map(once), [1, 1, 6, 6, 6]);
    varied.assert_sound("after a kill");
    assert_eq!(varied.run(&[]).done().ran().len(), 0);
    // The keys are the same, so whoever did one thing by hand has done it for the grid.
    hand.write("p.toml", plain(12) + GRID);
    let said = hand.run(&[]).done();
    assert_eq!((said.ran().len(), said.digests()), (0, expected));
}

#[test]
fn tables_and_the_report_show_every_combination() {
    let bench = Bench::with(&(plain(2) + GRID));
    let said = bench.run(&[]).done();
    // The k-means that is fitted on the way depends on nothing that varies.
    let scored: Vec<&Value> =
        said.json["scores"].as_array().unwrap().iter().filter(|row| row["made_by"] != Value::Null).collect();
    assert_eq!(scored.len(), 6);
    assert_eq!(
        scored[3]["varied"],
        json!([{ "path": "stage.cluster.entropy_weight", "name": "entropy_weight", "value": 2.5 }])
    );
    let own = fs::read_to_string(bench.path("artifacts/tiny/scores@entropy_weight=2.5@2/scores.csv")).unwrap();
    assert!(own.starts_with("measured,images,seed,entropy_weight,count,"), "{own}");
    assert!(own.lines().nth(1).unwrap().starts_with("cluster,data.train,2,2.5,48,3,3,"), "{own}");
    let table = fs::read_to_string(bench.path("artifacts/tiny/scores.csv")).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 7, "{table}");
    assert_eq!(rows[0][..5], ["measured", "measured_by", "images", "seed", "entropy_weight"]);
    let column = |name: &str| rows[0].iter().position(|other| *other == name).unwrap();
    for row in &rows[1..] {
        assert_eq!(row[..3], ["cluster", "scores", "data.train"]);
        let number = |name: &str| row[column(name)].parse::<f64>().unwrap();
        assert!(number("information") >= 0.0 && number("agreement") <= 1.0 && number("acc") > 0.3, "{table}");
    }
    let json: Value = serde_json::from_str(&fs::read_to_string(bench.path("artifacts/tiny/scores.json")).unwrap()).unwrap();
    assert_eq!((json.as_array().unwrap().len(), &json[5]["settings"]), (6, &json!({ "entropy_weight": 5 })));

    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    let sweep = &page["varied"][0];
    assert_eq!(
        (&sweep["stage"], &sweep["settings"], sweep["rows"].as_array().unwrap().len()),
        (&json!("cluster"), &json!(["entropy_weight"]), 3)
    );
    let measures: Vec<&Value> = sweep["rows"][0]["measures"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(measures[..3], [&json!("information"), &json!("agreement"), &json!("acc")]);
    assert_eq!(sweep["rows"][0]["seeds"], json!([1, 2]));
    let means = || {
        sweep["rows"].as_array().unwrap().iter().map(|row| (row["most"] == true, row["measures"][0]["mean"].as_f64().unwrap()))
    };
    let most = means().map(|(_, mean)| mean).fold(0.0, f64::max);
    assert!(means().all(|(marked, mean)| marked == (mean >= most)), "{sweep}");
    let html = fs::read_to_string(bench.path("artifacts/tiny/report.html")).unwrap();
    assert!(html.contains("href=\"#varied\">Varied settings</a>") && html.contains("data-sweep=\"cluster\""));
    let named = page["scores"][0]["rows"].as_array().unwrap().iter().filter(|row| row["kind"] == "scan").count();
    assert_eq!(named, 3, "one line for each in the table of scores");
}

#[test]
fn every_command_knows_the_names() {
    let bench = Bench::with(&(plain(2) + GRID + "\n[profile.smoke.vary]\nstage.cluster.entropy_weight = [1]\n"));
    let one = bench.run(&["--no-report", "--profile", "smoke"]).done();
    assert!(one.ran().contains(&"cluster@entropy_weight=1@2"), "{:?}", one.ran());
    let said = bench.run(&["--no-report", "--until", "cluster@entropy_weight=5"]).done();
    assert_eq!(
        said.ran(),
        ["cluster@entropy_weight=5@1", "cluster@entropy_weight=5@2"],
        "the seeds of one setting: {}",
        said.err
    );
    let said = bench.kinset(&["run", "p.toml", "--json", "--no-report", "--only", "cluster@entropy_weight=2.5@2"]).done();
    assert_eq!(said.ran(), ["cluster@entropy_weight=2.5@2"]);
    let plan = bench.kinset(&["plan", "p.toml", "--json"]);
    assert_eq!((plan.exit, plan.json["work"].as_u64()), (10, Some(1 + 2 * 4)));
    let why = bench.kinset(&["explain", "p.toml", "cluster@entropy_weight=2.5@1"]).done().out;
    assert!(why.contains("entropy_weight") || why.contains("never ran"), "{why}");
    let status = bench.kinset(&["status", "p.toml", "--json"]).done();
    assert_eq!(status.those("fresh").len(), 4 + 5 + 2 * 2);
    let several = bench.kinset(&["export", "p.toml", "cluster", "--output", "c.pth.tar"]);
    assert!(several.exit != 0 && several.err.contains("did you mean `cluster@entropy_weight=1@1`?"), "{}", several.err);
    let fault = bench.run(&["--set", "vary.stage.clutser.lr=[1]"]);
    assert!(
        fault.exit == 3 && fault.err.contains("--set:1:12") && fault.err.contains("did you mean `cluster`?"),
        "{}",
        fault.err
    );
}

#[test]
fn a_source_may_vary_and_what_does_not_is_measured_once() {
    let text =
        format!("{}\n[vary]\nstage.kmeans.clusters = [2, 3]\n", CHEAP.replace("[\"kmeans\"]", "[\"kmeans\", \"other\"]"))
            + "[stage.other]\nkind = \"kmeans\"\nfeatures = \"features\"\nencoder = \"pixels\"\nclusters = 3\n";
    let bench = Bench::with(&text);
    let said = bench.run(&[]).done();
    assert_eq!(said.json["scores"].as_array().unwrap().len(), 4, "two judges measure both");
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    let rows: Vec<&Value> = page["scores"][0]["rows"].as_array().unwrap().iter().map(|row| &row["stage"]).collect();
    assert_eq!(rows, [&json!("kmeans@clusters=2"), &json!("other"), &json!("kmeans@clusters=3")]);
    let other = &page["scores"][0]["rows"][1];
    assert_eq!(other["seeds"], json!([1]), "once, whoever measured it");
    let bench = Bench::with(&format!("{CHEAP}\n[vary]\ndata.train.images = [30, 42]\n"));
    let said = bench.run(&["--no-report"]).done();
    assert_eq!(said.ran().len(), 12);
    assert!(said.ran().contains(&"data.train@images=42"), "{:?}", said.ran());
}

#[test]
fn a_comparison_wants_one_value_of_what_features_depend_on() {
    let bench = Bench::with(&format!("{CHEAP}\n[vary]\ndata.train.images = [30, 42]\n"));
    let said = bench.kinset(&["compare", "p.toml", "--methods", "kmeans"]);
    assert_eq!(said.exit, 2, "{}", said.err);
    assert!(
        said.err.contains("`[vary]` makes several features of `features`")
            && said.err.contains("--set vary.data.train.images=[…]"),
        "{}",
        said.err
    );
    bench.kinset(&["compare", "p.toml", "--methods", "kmeans", "--seeds", "1", "--set", "vary.data.train.images=[30]"]).done();
}
