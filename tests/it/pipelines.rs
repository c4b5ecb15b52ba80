//! The committed pipelines: each plans without faults, and its smoke profile too.

use std::path::PathBuf;

use kinset::pipeline::spec::{self, Request};
use kinset::registry;
use serde_json::Value;

use super::harness::{Bench, ROOT, sorted};
use super::published::{write_cifar, write_imagenet, write_stl10, write_svhn};

fn all() -> Vec<PathBuf> {
    let found: Vec<PathBuf> = sorted(&PathBuf::from(ROOT).join("pipelines"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    assert!(!found.is_empty());
    found
}

/// Those on the data sets of the papers.
fn published() -> impl Iterator<Item = PathBuf> {
    all().into_iter().filter(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let sets =
            ["stl10", "cifar10", "cifar20", "cifar100", "svhn", "imagenet", "imagenet-50", "imagenet-100", "imagenet-200"];
        sets.iter().any(|name| text.contains(&format!("dataset = \"{name}\"")))
    })
}

#[test]
fn a_pipeline_of_a_paper_leaves_nothing_open_that_would_suit_the_number_of_images() {
    let mut trained = 0;
    // Two have settings of ours.
    let ours = ["frozen.toml", "cifar10.toml"];
    for path in published().filter(|path| !ours.iter().any(|ours| path.ends_with(ours))) {
        let text = std::fs::read_to_string(&path).unwrap();
        let spec = spec::check(&path, &text, &Request::default(), &registry::catalog()).unwrap();
        for node in &spec.nodes {
            for open in ["epochs", "batch", "queue"] {
                let default = registry::find(&node.kind).unwrap().default_settings();
                if default.get(open).is_some_and(Value::is_null) {
                    assert!(node.settings[open].is_u64(), "{}: `{open}` of `{}`", path.display(), node.name);
                    trained += 1;
                }
            }
        }
    }
    assert!(trained >= 60, "epochs and batch of SCAN, NNM, RUC and AND: {trained}");
}

#[test]
fn every_pipeline_plans_without_faults_with_its_smoke_profile_too() {
    let bench = Bench::new();
    let data = format!("{ROOT}/data");
    for path in all() {
        let file = path.to_str().unwrap();
        for profile in [&[][..], &["--profile", "smoke"]] {
            let said = bench.kinset(&[&["plan", file, "--json", "--data", &data], profile].concat());
            assert_ne!(said.exit, 3, "{}", said.err);
            // Raw data that are not here are no fault of the file; anything else is.
            for stage in said.json["stages"].as_array().unwrap() {
                if stage["state"] == "broken" {
                    let why = stage["why"].as_str().unwrap();
                    let missing = ["cannot find the data set", "cannot find the weights", "there is no file"];
                    assert!(missing.iter().any(|begin| why.starts_with(begin)), "{file}: {why}");
                }
            }
            assert!([4, 10].contains(&said.exit), "{file}: exit {}\n{}", said.exit, said.err);
        }
    }
}

#[test]
fn every_pipeline_is_named_like_its_file_and_begins_with_a_comment() {
    let bench = Bench::new();
    for path in all() {
        let said = bench.kinset(&["plan", path.to_str().unwrap(), "--json"]);
        assert_eq!(said.json["pipeline"].as_str(), path.file_stem().unwrap().to_str(), "{}", path.display());
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# "), "{}", path.display());
    }
}

#[test]
fn every_pipeline_of_a_paper_runs_end_to_end_on_files_of_the_published_form() {
    let bench = Bench::new();
    let data = bench.path("data");
    for write in [write_stl10, write_cifar, write_svhn, write_imagenet] {
        write(&data);
    }
    fetched(&bench);
    let mut ran = 0;
    for path in published() {
        let file = path.to_str().unwrap();
        let args = ["run", file, "--profile", "smoke", "--json"];
        // One store for all: what two of them share runs once.
        let said = bench.kinset(&args);
        assert_eq!(said.exit, 0, "{file}: {}\n{}", said.out, said.err);
        assert!(!said.json["scores"].as_array().unwrap().is_empty(), "{file} scores nothing");
        assert_eq!(bench.kinset(&args).done().ran().len(), 0, "{file}");
        ran += 1;
    }
    assert!(ran >= 17, "SCAN, NNM, RUC and AND on what their papers have: {ran}");
    bench.assert_sound("after all smoke runs");
}

/// The cache of Hugging Face's tools, with a small DINOv2 in it.
fn fetched(bench: &Bench) {
    let weights = std::fs::read(format!("{ROOT}/tests/golden/encoders/dinov2_hub.safetensors")).unwrap();
    let folder = "hf/hub/models--facebook--dinov2-small";
    bench.write(format!("{folder}/refs/main"), "0123abcd");
    bench.write(format!("{folder}/snapshots/0123abcd/model.safetensors"), weights);
}

#[test]
fn heads_on_frozen_features_run_end_to_end_from_the_cache_of_the_hub() {
    let (file, data) = (format!("{ROOT}/pipelines/frozen.toml"), format!("{ROOT}/data"));
    let args = ["run", &file, "--profile", "smoke", "--data", &data, "--json"];
    let bench = Bench::new();
    let said = bench.kinset(&args);
    assert_eq!(said.exit, 4, "{}", said.err);
    assert!(said.err.contains("hf download facebook/dinov2-small model.safetensors"), "{}", said.err);
    fetched(&bench);
    let said = bench.kinset(&args).done();
    let names: Vec<&str> =
        said.json["scores"].as_array().unwrap().iter().map(|row| row["row"]["name"].as_str().unwrap()).collect();
    assert!(names.len() >= 5, "k-means, SCAN's heads, TEMI, TURTLE, consensus: {names:?}");
    assert_eq!(bench.kinset(&args).done().ran().len(), 0);
    bench.assert_sound("after the smoke run");
}

#[test]
fn the_main_job_runs_end_to_end_in_its_smoke_profile() {
    let bench = Bench::new();
    let (file, data) = (format!("{ROOT}/pipelines/fashion-mini.toml"), format!("{ROOT}/data"));
    let args = ["run", &file, "--profile", "smoke", "--data", &data, "--json"];
    let said = bench.kinset(&args).done();
    let rows = said.json["scores"].as_array().unwrap();
    assert!(rows.len() >= 8, "k-means on pixels, on features, SCAN, self-label, on both sets: {}", said.out);
    assert_eq!(bench.kinset(&args).done().ran().len(), 0);
    bench.assert_sound("after the smoke run");
}
