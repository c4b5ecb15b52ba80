//! Names of clusters: given, merged, moved, rejected, undone, carried over, and in everything that goes out.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::harness::{Bench, Said};
use super::import_export::photos;

/// Photos that have been sorted.
fn sorted() -> Bench {
    let bench = photos();
    bench.run(&[]).done();
    bench
}

fn label(bench: &Bench, more: &[&str]) -> Said {
    bench.kinset(&[&["label", "p.toml"], more].concat())
}

/// Images per group.
fn groups(bench: &Bench) -> BTreeMap<String, u64> {
    let said = label(bench, &["--json"]).done();
    let groups = said.json["groups"].as_array().unwrap();
    groups.iter().map(|group| (group["name"].as_str().unwrap().to_owned(), group["images"].as_u64().unwrap())).collect()
}

fn of(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(name, images)| ((*name).to_owned(), *images)).collect()
}

/// Path → group, from a CSV of assignments.
fn exported(bench: &Bench) -> BTreeMap<String, String> {
    bench.kinset(&["export", "p.toml", "assignments", "--output", "out.csv"]).done();
    let text = fs::read_to_string(bench.path("out.csv")).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().ends_with(",second_cluster,group"), "{text}");
    lines
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (fields[2].to_owned(), fields[7].to_owned())
        })
        .collect()
}

/// The cluster of the dark images.
fn dark(bench: &Bench) -> usize {
    let said = bench.kinset(&["predict", "p.toml", "photos/dark/0.png", "--by-number", "--format", "jsonl"]).done();
    usize::try_from(said.json["cluster"].as_u64().unwrap()).unwrap()
}

#[test]
fn names_are_in_everything_that_goes_out() {
    let bench = sorted();
    assert_eq!(groups(&bench), of(&[("cluster 0", 12), ("cluster 1", 12)]));
    assert!(!bench.path("p.names.toml").exists(), "a look writes nothing");
    let dark = dark(&bench);
    let name = format!("{dark}=night");
    let moves = ["--cluster", &name, "--move", "dark/2.png=day", "--reject", "dark/4.png"];
    let said = label(&bench, &moves).done();
    assert!(said.err.contains("3 changes in p.names.toml"), "{}", said.err);
    let light = format!("cluster {}", 1 - dark);
    assert_eq!(groups(&bench), of(&[("night", 10), (&light, 12), ("day", 1)]));
    assert!(label(&bench, &moves).done().err.contains("nothing to change"));

    let rows = exported(&bench);
    let group = |path: &str| rows[path].as_str();
    assert_eq!([group("dark/0.png"), group("dark/2.png"), group("dark/4.png")], ["night", "day", ""]);
    assert_eq!(group("light/1.png"), light);
    let said = bench.kinset(&["export", "p.toml", "assignments", "--output", "sorted"]).done();
    assert!(said.err.contains("23 images linked into 3 folders") && said.err.contains("1 image rejected"), "{}", said.err);
    let count = |folder: &str| fs::read_dir(bench.path("sorted").join(folder)).unwrap().count();
    assert_eq!([count("night"), count("day"), count(&light)], [10, 1, 12]);
    bench.kinset(&["export", "p.toml", "assignments", "--output", "out.parquet"]).done();
    assert!(bench.kinset(&["inspect", "out.parquet", "--json"]).done().out.contains("\"group\""));
    bench.kinset(&["export", "p.toml", "assignments", "--output", "plain.csv", "--by-number"]).done();
    assert!(!fs::read_to_string(bench.path("plain.csv")).unwrap().contains("night"));

    let said = bench.kinset(&["predict", "p.toml", "photos/dark/2.png", "--format", "jsonl"]).done();
    assert_eq!(said.json["group"], "night", "a classifier knows clusters, not what was moved");
    let said = bench.kinset(&["predict", "p.toml", "photos/dark/2.png"]).done();
    assert!(said.out.lines().next().unwrap().ends_with(",group") && said.out.ends_with(",night\n"), "{}", said.out);
    bench.kinset(&["export", "p.toml", "kmeans", "--output", "k.onnx"]).done();
    let card: Value = serde_json::from_slice(&fs::read(bench.path("k.onnx.json")).unwrap()).unwrap();
    assert_eq!(card["names"][dark], "night");

    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    assert_eq!(page["clusters"]["each"][dark]["name"], "night");
    assert_eq!((&page["clusters"]["groups"]["moved"], &page["clusters"]["groups"]["rejected"]), (&json!(1), &json!(1)));
    bench.kinset(&["report", "p.toml"]).done();
    let html = || fs::read_to_string(bench.path("artifacts/photos/report.html")).unwrap();
    assert!(html().contains("<bdi>night</bdi>") && html().contains("1 image rejected"));
    label(&bench, &["--rename", "night=<b>dusk"]).done();
    bench.run(&[]).done();
    assert!(html().contains("&lt;b&gt;dusk") && !html().contains("<b>dusk"), "a run that does nothing shows new names");
}

#[test]
fn groups_merge_and_come_apart_and_what_is_not_there_is_refused() {
    let bench = sorted();
    let names = || fs::read_to_string(bench.path("p.names.toml")).unwrap();
    label(&bench, &["--cluster", "0=a", "--cluster", "1=b", "--move", "dark/0.png=b"]).done();
    label(&bench, &["--rename", "b=a"]).done();
    assert_eq!(groups(&bench), of(&[("a", 24)]));
    label(&bench, &["--cluster", "1=", "--restore", "dark/0.png"]).done();
    assert_eq!(groups(&bench), of(&[("a", 12), ("cluster 1", 12)]));

    let before = names();
    for (args, exit, code) in [
        (["--cluster", "2=x"], 2, "label::no-cluster"),
        (["--cluster", "x=x"], 2, "label::no-cluster"),
        (["--cluster", "0=a/b"], 2, "names::name"),
        (["--rename", "c=d"], 2, "label::no-group"),
        (["--move", "dark/99.png=a"], 2, "label::no-image"),
        (["--reject", "0000000000000000"], 2, "label::no-image"),
        (["--stage", "kmeans"], 2, "result::other-kind"),
    ] {
        let said = label(&bench, &args);
        assert!(said.exit == exit && said.err.contains(code), "{args:?}: {} {}", said.exit, said.err);
    }
    // One of two changes is wrong: none is made.
    assert_eq!(label(&bench, &["--cluster", "0=c", "--reject", "nobody"]).exit, 2);
    assert_eq!(names(), before);
    bench.write("p.names.toml", "clusters = 3\n");
    for args in [&["label", "p.toml"][..], &["export", "p.toml", "assignments", "--output", "x.csv"]] {
        let said = bench.kinset(args);
        assert!(said.exit == 4 && said.err.contains("names::value") && said.err.contains("line 1"), "{args:?}: {}", said.err);
    }
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    assert!(page["warnings"].to_string().contains("Names are not shown"), "{}", page["warnings"]);
}

#[test]
fn names_of_another_result_are_noticed_and_carried_over_by_the_images_they_share() {
    let bench = sorted();
    let dark = dark(&bench);
    label(&bench, &["--cluster", &format!("{dark}=night"), "--cluster", &format!("{}=day", 1 - dark)]).done();
    label(&bench, &["--reject", "dark/2.png"]).done();
    // One picture more, and clusters in another number.
    fs::remove_file(bench.path("photos/light/5.png")).unwrap();
    let four = ["--set", "stage.kmeans.clusters=4"];
    bench.run(&four).done();
    for args in [
        &["label", "p.toml"][..],
        &["export", "p.toml", "assignments", "--output", "x.csv"],
        &["export", "p.toml", "kmeans", "--output", "x.onnx"],
        &["predict", "p.toml", "photos"],
        &["label", "p.toml", "--cluster", "3=x"],
    ] {
        let said = bench.kinset(&[args, &four].concat());
        assert!(said.exit == 4 && said.err.contains("names::stale") && said.err.contains("--carry"), "{args:?}: {}", said.err);
    }
    bench.kinset(&[&["predict", "p.toml", "photos", "--by-number"], &four[..]].concat()).done();
    let page = bench.kinset(&[&["report", "p.toml", "--json"], &four[..]].concat()).done().json;
    assert_eq!(page["clusters"]["groups"], Value::Null);
    let warned = page["warnings"].as_array().unwrap().iter().any(|warning| warning["about"] == "names");
    assert!(warned, "{}", page["warnings"]);

    let said = label(&bench, &[&["--carry"], &four[..]].concat()).done();
    assert!(said.err.contains(": night, by "), "{}", said.err);
    bench.kinset(&[&["export", "p.toml", "assignments", "--output", "x.csv"], &four[..]].concat()).done();
    for line in fs::read_to_string(bench.path("x.csv")).unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let wanted = if fields[2] == "dark/2.png" { "" } else { ["day", "night"][usize::from(fields[2].starts_with("dark"))] };
        assert_eq!(fields[7], wanted, "{line}");
    }

    // The result that was named is gone: nobody guesses.
    let text = fs::read_to_string(bench.path("p.names.toml")).unwrap();
    let of = text.lines().find(|line| line.starts_with("of = ")).unwrap();
    bench.write("p.names.toml", text.replace(of, &format!("of = \"{}\"", "0".repeat(64))));
    let said = label(&bench, &[&["--carry"], &four[..]].concat());
    assert!(said.exit == 6 && said.err.contains("label::lost"), "{}", said.err);
    label(&bench, &[&["--forget"], &four[..]].concat()).done();
    let said = label(&bench, &[&["--json"], &four[..]].concat()).done();
    assert_eq!((said.json["rejected"].as_u64(), said.json["groups"].as_array().unwrap().len()), (Some(1), 4));
}

#[test]
fn a_stage_reads_names_and_what_it_writes_is_for_measuring() {
    let bench = photos();
    let more = "\n[stage.groups]\nkind = \"named\"\nassignments = \"assignments\"\nfile = \"mine.toml\"\n\n\
                [stage.agreement]\nkind = \"evaluate\"\nclassifiers = [\"kmeans\"]\nimages = \"data.photos\"\nlabels = \"groups.labels\"\n";
    let text = fs::read_to_string(bench.path("p.toml")).unwrap() + more;
    bench.write("p.toml", &text);
    bench.run(&["--until", "groups"]).done();
    let dark = dark(&bench);
    label(&bench, &["--cluster", &format!("{dark}=night"), "--cluster", &format!("{}=day", 1 - dark)]).done();
    label(&bench, &["--move", "dark/0.png=day"]).done();
    assert!(bench.path("mine.toml").exists(), "the file that the stage reads");
    let said = bench.run(&[]).done();
    assert_eq!(said.ran(), ["groups", "agreement"]);
    let acc = |said: &Said| said.json["scores"][0]["row"]["acc"].as_f64().unwrap();
    assert!((acc(&said) - 23.0 / 24.0).abs() < 1e-9, "{}", said.json["scores"]);
    assert_eq!(bench.run(&[]).done().ran(), Vec::<&str>::new());
    bench.kinset(&["export", "p.toml", "assignments", "--output", "out.csv"]).done();
    // A classifier of the groups as they were corrected, for new images and for other programs.
    let probe =
        "\n[stage.probe]\nkind = \"probe\"\nfeatures = \"features\"\nencoder = \"pixels\"\nlabels = \"groups.labels\"\n";
    bench.write("p.toml", text.clone() + probe);
    let said = bench.run(&[]).done();
    assert!(said.ran() == ["probe"] && said.err.contains("images are right when they are held out"), "{}", said.err);
    let said = bench.kinset(&["predict", "p.toml", "photos/dark/2.png", "--stage", "probe", "--format", "jsonl"]).done();
    assert_eq!(said.json["group"], "night");
    bench.kinset(&["export", "p.toml", "probe", "--output", "probe.onnx"]).done();
    let card: Value = serde_json::from_slice(&fs::read(bench.path("probe.onnx.json")).unwrap()).unwrap();
    assert!(card["names"].as_array().unwrap().contains(&json!("day")), "{}", card["names"]);
    bench.write("p.toml", &text);
    // Another result: the stage fails, says what to do, and nothing else suffers.
    let said = bench.run(&["--set", "stage.kmeans.clusters=3"]);
    assert!(said.exit == 4 && said.err.contains("--carry"), "{}", said.err);
    assert_eq!(said.those("failed"), ["groups"]);
    assert_eq!(said.those("ran"), ["kmeans", "assignments"]);

    // The types let no label into training.
    for (kind, port, from) in
        [("kmeans", "features", "groups"), ("selflabel", "classifier", "probe"), ("predict", "classifier", "probe")]
    {
        let cheat = format!("{text}{probe}\n[stage.cheat]\nkind = \"{kind}\"\n{port} = \"{from}\"\n");
        bench.write("cheat.toml", cheat);
        let said = bench.kinset(&["plan", "cheat.toml"]);
        assert!(said.exit == 3 && said.err.contains(&format!("`{from}`")), "{kind}: {}", said.err);
    }
}
