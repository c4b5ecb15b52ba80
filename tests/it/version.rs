//! Results that may not move without their VERSION: a committed table pins what each kind of stage gives on a tiny input: a digest where the
//! arithmetic is exact, rounded numbers where the last bits depend on the processor.
//!
//! `KINSET_BLESS=1 cargo test --release version::` writes the table anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use kinset::artifact::assignments::AssignmentTable;
use kinset::artifact::distribution::Distribution;
use kinset::artifact::duplicates::DuplicateTable;
use kinset::artifact::encoder::Classifier;
use kinset::artifact::features::FeatureTable;
use kinset::artifact::k_table::KSweep;
use kinset::artifact::levels::{LevelTable, Levels};
use kinset::artifact::matches::MatchTable;
use kinset::artifact::near_duplicates::{NearDuplicates, NearTable};
use kinset::artifact::neighbors::NeighborTable;
use kinset::artifact::outliers::OutlierTable;
use kinset::artifact::probe::Probe;
use kinset::artifact::selection::{Selection, SelectionTable};
use kinset::artifact::{Artifact, Stored};
use kinset::registry;
use kinset::store::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::harness::{Bench, CHEAP, ROOT, Said, WHOLE, WHOLE_KINDS};

/// What is pinned of a kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pin {
    version: u32,
    result: BTreeMap<String, Value>,
}

/// To six digits.
fn rounded(value: f64) -> Value {
    format!("{value:.5e}").parse::<f64>().map_or(Value::Null, |value| json!(value))
}

/// How far numbers may be apart, as a share: processors differ in the last bits of a step, and steps add up.
const NEAR: f64 = 2e-3;

fn same(then: &BTreeMap<String, Value>, now: &BTreeMap<String, Value>) -> bool {
    then.len() == now.len()
        && then.iter().zip(now).all(|((name, was), (other, is))| {
            let near = match (was.as_f64(), is.as_f64()) {
                (Some(was), Some(is)) => (was - is).abs() <= NEAR * was.abs().max(1e-3),
                _ => was == is,
            };
            name == other && near
        })
}

fn stored<A: Artifact>(path: &Path) -> Stored<A> {
    Stored::new(vec![path.to_owned()], Digest::of(b""), "a test")
}

fn digest_of(bytes: impl IntoIterator<Item = i64>) -> Value {
    json!(Digest::of(&bytes.into_iter().flat_map(i64::to_le_bytes).collect::<Vec<u8>>()).short())
}

fn score(said: &Said, measured_by: &str, name: &str) -> Value {
    let row = said.json["scores"].as_array().unwrap().iter().find(|row| row["measured_by"] == measured_by).unwrap();
    row["row"][name].as_f64().map_or(Value::Null, rounded)
}

/// What each kind gives.
fn measure() -> BTreeMap<String, BTreeMap<String, Value>> {
    let one = |name: &str, value: Value| BTreeMap::from([(name.to_owned(), value)]);
    let cheap = Bench::with(CHEAP);
    // The pixels are learned features too, as far as the steps are concerned; and they are the same on every machine.
    let more = "\n[stage.assignments]\nkind = \"predict\"\nimages = \"data.train\"\nclassifier = \"kmeans\"\n\n[stage.spectral]\nkind = \"spectral\"\nfeatures = \"features\"\nneighbors = \"neighbors\"\nencoder = \"pixels\"\nclusters = 3\n\n[stage.spectral_assignments]\nkind = \"predict\"\nimages = \"data.train\"\nclassifier = \"spectral\"\n\n[stage.knn]\nkind = \"knn_eval\"\nbank = \"features\"\nbank_labels = \"data.train.labels\"\nqueries = \"features\"\nquery_labels = \"data.train.labels\"\n\n[stage.linear]\nkind = \"linear_eval\"\nbank = \"features\"\nbank_labels = \"data.train.labels\"\nqueries = \"features\"\nquery_labels = \"data.train.labels\"\n\n[stage.estimate]\nkind = \"auto_k\"\nfeatures = \"features\"\nmax = 8\n\n[stage.sweep]\nkind = \"sweep_k\"\nfeatures = \"features\"\nmax = 5\n\n[data.test]\ndataset = \"synthetic\"\nsplit = \"test\"\nimages = 8\nclasses = 3\nsize = 8\n\n[stage.target]\nkind = \"embed\"\nimages = \"data.test\"\nencoder = \"pixels\"\n\n[stage.matches]\nkind = \"retrieve\"\ntarget = \"target\"\npool = \"features\"\nk = 4\n\n[stage.selection]\nkind = \"similar\"\ntarget = \"target\"\npool = [\"features\"]\nmatches = [\"matches\"]\nk = 4\nbudget = 9\n\n[stage.chosen]\nkind = \"subset\"\nimages = [\"data.train\"]\nselection = \"selection\"\n\n[stage.balanced]\nkind = \"curate\"\npool = [\"features\"]\nclusters = [6, 3]\nresamples = 2\nnearest = 3\n\n[stage.counted]\nkind = \"distribution\"\nselections = [\"balanced\"]\nlabels = [\"data.train.labels\"]\n\n[stage.duplicates]\nkind = \"duplicates\"\nimages = \"data.train\"\nsimilarity = 0.8\n\n[stage.outliers]\nkind = \"outliers\"\nneighbors = \"neighbors\"\n\n[stage.near]\nkind = \"near_duplicates\"\npool = [\"features\"]\ntarget = \"target\"\nsimilarity = 0.9\n\n[stage.joined]\nkind = \"join\"\nfeatures = [\"features\"]\ncomponents = 3\n\n[stage.both]\nkind = \"concat\"\nfeatures = [\"features\", \"target\"]\n\n[stage.taught]\nkind = \"distill\"\nclassifier = \"kmeans\"\nreads = \"features\"\nfeatures = \"joined\"\n\n[stage.taught_assignments]\nkind = \"predict\"\nfeatures = \"joined\"\nclassifier = \"taught\"\n";
    cheap.write("p.toml", format!("{CHEAP}{more}"));
    let said = cheap.run(&[]).done();
    let view = |file: &str| cheap.path("artifacts/cheap").join(file);
    let digests = said.digests();
    let mut all = BTreeMap::new();
    all.insert("ingest", {
        let mut result = one("images", json!(digests["data.train.images"][..12]));
        result.extend(one("labels", json!(digests["data.train.labels"][..12])));
        result
    });
    all.insert("pixels", one("encoder", json!(digests["pixels.encoder"][..12])));
    let features = FeatureTable::load(&stored(&view("features/features.parquet"))).unwrap();
    all.insert("embed", {
        let mut result = one("first", rounded(f64::from(features.row(0)[0])));
        result.extend(one("sum", rounded(features.values.iter().map(|&v| f64::from(v)).sum())));
        result
    });
    let neighbors = NeighborTable::load(&stored(&view("neighbors/neighbors.parquet"))).unwrap();
    all.insert(
        "neighbors",
        one("index", digest_of((0..neighbors.len()).flat_map(|row| neighbors.neighbors(row).to_vec()).map(i64::from))),
    );
    let duplicates = DuplicateTable::load(&stored(&view("duplicates/duplicates.parquet"))).unwrap();
    all.insert("duplicates", {
        let mut result = one("representatives", digest_of(duplicates.representative.iter().map(|&row| i64::from(row))));
        result.extend(one("groups", json!(duplicates.groups().len())));
        result
    });
    let files = NearDuplicates::FILES.iter().map(|file| view(&format!("near/{file}"))).collect();
    let (near, _) = NearTable::load(&Stored::new(files, Digest::of(b""), "near")).unwrap();
    all.insert("near_duplicates", {
        let members = near.members.iter().flat_map(|member| [member.group, member.set, member.row]).map(i64::from);
        let mut result = one("members", digest_of(members));
        let copies = near.shared.iter().flat_map(|copy| [copy.row, copy.other_row, copy.copies]).map(i64::from);
        result.extend(one("shared", digest_of(copies)));
        result
    });
    let outliers = OutlierTable::load(&stored(&view("outliers/outliers.parquet"))).unwrap();
    all.insert("outliers", one("scores", rounded(outliers.score.iter().map(|&score| f64::from(score)).sum())));
    let assignments = AssignmentTable::load(&stored(&view("assignments/assignments.parquet"))).unwrap();
    let clusters = digest_of(assignments.cluster.iter().map(|&cluster| i64::from(cluster)));
    all.insert("kmeans", one("clusters", clusters));
    let by_spectrum = AssignmentTable::load(&stored(&view("spectral_assignments/assignments.parquet"))).unwrap();
    all.insert("spectral", one("clusters", digest_of(by_spectrum.cluster.iter().map(|&cluster| i64::from(cluster)))));
    let taught = AssignmentTable::load(&stored(&view("taught_assignments/assignments.parquet"))).unwrap();
    all.insert("distill", one("clusters", digest_of(taught.cluster.iter().map(|&cluster| i64::from(cluster)))));
    // Which way a component points is nothing.
    let joined = FeatureTable::load(&stored(&view("joined/features.parquet"))).unwrap();
    all.insert("join", one("sum", rounded(joined.values.iter().map(|&v| f64::from(v.abs())).sum())));
    let both = FeatureTable::load(&stored(&view("both/features.parquet"))).unwrap();
    all.insert("concat", one("sum", rounded(both.values.iter().map(|&v| f64::from(v.abs())).sum())));
    let confidence = assignments.confidence.iter().map(|&c| f64::from(c)).sum::<f64>() / assignments.len() as f64;
    all.insert("predict", one("mean confidence", rounded(confidence)));
    all.insert("evaluate", {
        let mut result = one("acc", score(&said, "scores", "acc"));
        result.extend(one("nmi", score(&said, "scores", "nmi")));
        result.extend(one("ari", score(&said, "scores", "ari")));
        result
    });
    all.insert("knn_eval", one("knn", score(&said, "knn", "knn")));
    all.insert("linear_eval", one("linear", score(&said, "linear", "linear")));

    let table = |file: &str| KSweep::load(&stored(&view(file))).unwrap();
    let estimate = table("estimate/k_table.parquet");
    all.insert("auto_k", {
        let mut result = one("chosen", json!(estimate.chosen));
        result.extend(estimate.votes.iter().map(|(name, k)| (format!("vote of {name}"), json!(k))));
        result
    });
    let sweep = table("sweep/k_table.parquet");
    all.insert("sweep_k", {
        let mut result = one("chosen", json!(sweep.chosen));
        result.extend(one("scores", rounded(sweep.values("score").map(|(_, score)| score).sum())));
        result
    });

    let stored_at = |files: &[&str]| files.iter().map(|file| view(file)).collect::<Vec<_>>();
    let matches = stored_at(&["matches/edges.parquet", "matches/targets.parquet"]);
    let matches = MatchTable::load(&Stored::new(matches, Digest::of(b""), "a test")).unwrap();
    all.insert("retrieve", one("pool rows", digest_of(matches.edges.iter().map(|edge| i64::from(edge.pool)))));
    let selected = |stage: &str| {
        let files = Selection::FILES.iter().map(|file| view(&format!("{stage}/{file}"))).collect();
        SelectionTable::load(&Stored::new(files, Digest::of(b""), "a test")).unwrap()
    };
    let rows = |selection: &SelectionTable| digest_of(selection.chosen.iter().map(|chosen| i64::from(chosen.best.pool)));
    let selection = selected("selection");
    all.insert("similar", {
        let mut result = one("chosen", rows(&selection));
        let difference = selection.report.difference["selection"];
        result.extend(one("energy", rounded(difference.energy)));
        result.extend(one("frechet", rounded(difference.frechet.unwrap())));
        result
    });
    all.insert("curate", {
        let files = Levels::FILES.iter().map(|file| view(&format!("balanced/{file}"))).collect();
        let levels = LevelTable::load(&Stored::new(files, Digest::of(b""), "a test")).unwrap();
        let mut result = one("chosen", rows(&selected("balanced")));
        result.extend(one("clusters", digest_of(levels.clusters.iter().map(|cluster| i64::from(cluster.images)))));
        result.extend(levels.levels.iter().map(|level| (format!("within level {}", level.level), rounded(level.within))));
        result
    });
    let counted = Distribution::load(&stored(&view("counted/distribution.json"))).unwrap();
    all.insert("distribution", counted.sets.iter().map(|set| (set.name.clone(), rounded(set.effective))).collect());
    all.insert("subset", one("images", json!(digests["chosen.images"][..12])));

    // Of what is not pinned yet: the first loss where something is trained, else what comes out, by digest.
    let rest: Vec<(&str, &str)> = WHOLE_KINDS.iter().copied().filter(|(_, kind)| !all.contains_key(kind)).collect();
    let names: Vec<&str> = rest.iter().map(|(name, _)| *name).collect();
    let whole = Bench::with(&WHOLE);
    let digests = whole.run(&["--until", &names.join(",")]).done().digests();
    // Copied numbers; the statistics of drawn images are whole numbers divided once.
    all.insert("pretrained", one("encoder", json!(digests["weights.encoder"][..12])));
    let files = Classifier::FILES.iter().map(|file| whole.path("artifacts/whole/together").join(file)).collect();
    let together = Classifier::load(&Stored::new(files, Digest::of(b""), "a test")).unwrap();
    all.insert("consensus", {
        let mut result = one("heads", json!(together.card.heads));
        result.extend(one("reference", json!(together.card.head)));
        result.extend(one("committee", json!(together.card.committee)));
        result
    });
    let files = Probe::FILES.iter().map(|file| whole.path("artifacts/whole/probe").join(file)).collect();
    let probe = Probe::load(&Stored::new(files, Digest::of(b""), "a test")).unwrap();
    all.insert("probe", {
        let mut result = one("classes", json!(probe.names.len()));
        result.extend(one("loss", rounded(probe.classifier.card.head_losses[0])));
        result
    });
    for (name, kind) in rest {
        let outputs =
            digests.iter().filter_map(|(output, digest)| Some((output.strip_prefix(name)?.strip_prefix('.')?, digest)));
        let loss = whole.metrics("whole", name).into_iter().find(|(measure, _)| measure == "loss");
        all.entry(kind).or_insert_with(|| match loss {
            Some((_, loss)) => one("first loss", rounded(loss)),
            None => outputs.map(|(output, digest)| (output.to_owned(), json!(digest[..12]))).collect(),
        });
    }
    all.into_iter().map(|(kind, result)| (kind.to_owned(), result)).collect()
}

#[test]
fn no_result_moves_without_its_version() {
    let path = PathBuf::from(ROOT).join("tests/it/versions.json");
    let measured: BTreeMap<String, Pin> = measure()
        .into_iter()
        .map(|(kind, result)| {
            let version = registry::find(&kind).unwrap_or_else(|| panic!("there is no `{kind}` any more")).version();
            (kind, Pin { version, result })
        })
        .collect();
    for stage in registry::all() {
        assert!(measured.contains_key(stage.kind()), "nothing pins `{}`: measure it in this file", stage.kind());
    }
    if std::env::var_os("KINSET_BLESS").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&measured).unwrap() + "\n").unwrap();
        return;
    }
    let pinned: BTreeMap<String, Pin> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (kind, now) in &measured {
        let Some(then) = pinned.get(kind) else { panic!("`{kind}` is not pinned yet: KINSET_BLESS=1 pins it") };
        let moved = !same(&then.result, &now.result);
        match (moved, now.version == then.version) {
            (false, true) => {}
            (true, true) => panic!(
                "`{kind}` gives another result and its VERSION is still {}: everybody's store would serve the old one.\n\
                 was {:?}\nnow {:?}\nIf it is meant: raise VERSION in the stage's file, say why beside it, and run the tests \
                 with KINSET_BLESS=1",
                now.version, then.result, now.result
            ),
            (_, false) => {
                panic!("the VERSION of `{kind}` went from {} to {}: KINSET_BLESS=1 pins it", then.version, now.version)
            }
        }
    }
    assert_eq!(pinned.len(), measured.len(), "kinds that are gone: KINSET_BLESS=1 writes the table anew");
}

#[test]
fn a_move_is_told_from_noise() {
    let one = |value: Value| BTreeMap::from([("loss".to_owned(), value)]);
    assert!(same(&one(json!(3.318)), &one(json!(3.3182))) && !same(&one(json!(3.318)), &one(json!(3.33))));
    assert!(same(&one(json!("abc")), &one(json!("abc"))) && !same(&one(json!("abc")), &one(json!("abd"))));
    assert!(!same(&one(json!(1.0)), &BTreeMap::new()));
}
