//! `kinset compare`: what it runs, on which features, and what it says without labels.

use super::harness::{Bench, CHEAP};

#[test]
fn methods_are_compared_on_the_features_of_a_pipeline_and_its_results_stay() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    let before = bench.run(&[]).done().digests();
    let compare = |more: &[&str]| bench.kinset(&[&["compare", "p.toml", "--json"], more].concat());
    let said = compare(&["--methods", "kmeans,spectral", "--seeds", "2"]).done();
    assert_eq!((&said.json["features"], &said.json["clusters"]), (&"features".into(), &3.into()));
    let rows = said.json["methods"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["method"].as_str().unwrap()).collect::<Vec<_>>(), ["kmeans", "spectral"]);
    for row in rows {
        for measure in ["information", "acc", "nmi", "ari"] {
            assert_eq!(row[measure].as_array().unwrap().len(), 2, "{measure}: {row}");
        }
        let (information, agreement) = (row["information"][0].as_f64().unwrap(), row["agreement"].as_f64().unwrap());
        // Of three clusters no more than ln 3 can be told.
        assert!(information > 0.0 && information < 3_f64.ln() && agreement <= 1.0, "{row}");
    }
    // The pipeline's own k-means is that of the first seed, so it was not fitted again.
    let own = std::fs::read_to_string(bench.path("artifacts/cheap/scores/scores.json")).unwrap();
    let own: serde_json::Value = serde_json::from_str(&own).unwrap();
    assert_eq!(rows[0]["acc"][0], own["content"]["rows"][0]["acc"]);
    let again = bench.run(&[]).done();
    assert!(again.ran().is_empty() && again.digests() == before, "{}", again.err);
    // One more seed keeps the others.
    let more = compare(&["--methods", "kmeans,spectral", "--seeds", "3"]).done();
    for (less, more) in rows.iter().zip(more.json["methods"].as_array().unwrap()) {
        assert_eq!(less["information"].as_array().unwrap()[..], more["information"].as_array().unwrap()[..2]);
    }
}

#[test]
fn without_labels_there_are_no_scores_and_what_is_missing_is_said() {
    let unlabeled = CHEAP.split("[stage.scores]").next().unwrap();
    let bench = Bench::with(unlabeled);
    let said = bench.kinset(&["compare", "p.toml", "--methods", "kmeans", "--seeds", "1"]);
    assert_eq!(said.exit, 0, "{}", said.err);
    let table: Vec<&str> = said.out.trim().lines().collect();
    assert_eq!(table[0], "features of `features`, 3 clusters, 1 seed");
    assert!(table[1].contains("information") && !table[1].contains("ACC"), "{}", said.out);
    let wrong = |args: &[&str], exit: i32, what: &str| {
        let said = bench.kinset(&[&["compare", "p.toml"], args].concat());
        assert!(said.exit == exit && said.err.contains(what), "{}: {}", said.exit, said.err);
    };
    wrong(&["--features", "pixels"], 2, "`pixels` writes no features\n\nhint: stages with features: features");
    wrong(&["--methods", "nnm"], 2, "invalid value 'nnm'");
    wrong(&["--clusters", "1"], 2, "invalid value '1'");
    bench.write("p.toml", unlabeled.split("[stage.kmeans]").next().unwrap());
    wrong(&[], 2, "says how many clusters there are\n\nhint: name a number: `--clusters 10`");
    bench.write("p.toml", unlabeled.split("[stage.features]").next().unwrap());
    wrong(&["--clusters", "3"], 2, "writes features that could be clustered");
}
