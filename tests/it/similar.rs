//! `kinset similar`, which chooses what the specification says, from every form of features, and says why; and `kinset curate`, which does so
//! without a target.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kinset::artifact::image_codec;
use kinset::artifact::matches::MatchTable;
use kinset::artifact::parquet::TableReader;
use kinset::artifact::pixels::Pixels;
use kinset::artifact::selection::SelectionTable;
use kinset::artifact::{Artifact, Stored};
use kinset::base::seed::Seed;
use kinset::math::curate::choose::Reason;
use kinset::store::digest::Digest;
use serde_json::{Value, json};

use super::harness::{Bench, ROOT, Said, event_files, files_below, sorted};

/// A point on the circle.
fn angle(degrees: f64) -> Vec<f64> {
    vec![degrees.to_radians().cos(), degrees.to_radians().sin()]
}

/// The fork's plain flavor.
fn csv<'a>(rows: impl IntoIterator<Item = (&'a str, Vec<f64>)>) -> String {
    let mut text = String::new();
    for (name, values) in rows {
        let values: Vec<String> = values.iter().map(f64::to_string).collect();
        text.push_str(&format!("{name},{}\n", values.join(",")));
    }
    text
}

fn numbered(prefix: &str, rows: impl IntoIterator<Item = Vec<f64>>) -> String {
    let rows: Vec<(String, Vec<f64>)> =
        rows.into_iter().enumerate().map(|(i, row)| (format!("{prefix}{i}.jpg"), row)).collect();
    csv(rows.iter().map(|(name, row)| (name.as_str(), row.clone())))
}

fn cloud(n: usize, dim: usize, center: &[f64], spread: f64, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = Seed::new(seed).rng();
    (0..n).map(|_| (0..dim).map(|d| center.get(d).copied().unwrap_or(0.0) + spread * rng.normal()).collect()).collect()
}

fn similar(bench: &Bench, more: &[&str]) -> Said {
    let args = ["similar", "--target-csv", "t.csv", "--near-csv", "p.csv", "--save-dir", "out", "--json"];
    bench.kinset(&[&args[..], more].concat())
}

fn list(bench: &Bench, k: usize) -> Vec<String> {
    let path = bench.path(format!("out/ImageSets/scan_nn{k}.txt"));
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn stored<A: Artifact>(folder: &Path) -> Stored<A> {
    Stored::new(A::FILES.iter().map(|file| folder.join(file)).collect(), Digest::of(b""), "a test")
}

fn selection(bench: &Bench, k: usize) -> SelectionTable {
    SelectionTable::load(&stored(&bench.path(format!("out/artifacts/similar/nn{k}")))).unwrap()
}

/// Everything below `out` by name, but the store and the page, which says how long everything took.
fn outputs(bench: &Bench) -> BTreeMap<String, Vec<u8>> {
    let out = bench.path("out");
    let left_out = [out.join("artifacts"), out.join("report.html")];
    let all = files_below(&out).into_iter().filter(|path| !left_out.iter().any(|other| path.starts_with(other)));
    all.map(|path| (path.strip_prefix(&out).unwrap().display().to_string(), fs::read(path).unwrap())).collect()
}

const SEVEN: [f64; 7] = [0.0, 1.0, 2.0, 90.0, 91.0, 180.0, 270.0];

#[test]
fn the_seven_angles_of_the_specification_in_every_mode() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", SEVEN.map(angle)));
    bench.write("p.csv", numbered("p", (0..36).map(|i| angle(f64::from(i) * 10.0))));
    for (mode, kept) in [("greedy", &[0_usize, 3, 5, 6][..]), ("fork", &[5, 6]), ("none", &[0, 1, 2, 3, 4, 5, 6])] {
        similar(&bench, &["--dedup", mode, "--nn_factor", "1"]).done();
        let matches = MatchTable::load(&stored(&bench.path("out/artifacts/similar/matches_1"))).unwrap();
        let found: Vec<usize> = (0..7).filter(|&row| matches.repeats.kept[row]).collect();
        assert_eq!(found, kept, "{mode}");
    }
    // The last, with all seven: the pool images at 0°, 90°, 180°, 270°.
    assert_eq!(list(&bench, 1), ["p0", "p9", "p18", "p27"]);
    let frame = selection(&bench, 1);
    let zero = frame.chosen.iter().find(|chosen| chosen.id == "p0.jpg").unwrap();
    assert_eq!((zero.targets, zero.best.target, zero.best.rank), (3, 0, 1), "0°, 1° and 2° chose it");
}

#[test]
fn a_pool_that_is_the_target_gives_the_target() {
    let bench = Bench::new();
    let rows = numbered("x", cloud(60, 5, &[], 1.0, 1));
    bench.write("t.csv", &rows);
    bench.write("p.csv", &rows);
    similar(&bench, &["--dedup", "none", "--nn-factor", "1"]).done();
    let found = selection(&bench, 1);
    assert_eq!(found.chosen.len(), 60);
    assert!(found.edges.iter().all(|judged| judged.edge.target == judged.edge.pool && judged.edge.distance() <= 1e-6));
    // The guard against copies then leaves nothing at all, and says so.
    let said = similar(&bench, &["--dedup", "none", "--nn-factor", "1", "--min-dist", "1e-4"]).done();
    assert_eq!(selection(&bench, 1).chosen, []);
    assert!(said.err.contains("60 of 60 target images have no selected image"), "{}", said.err);
}

#[test]
fn a_budget_is_refilled_beyond_k_and_its_edges_say_so() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", cloud(6, 4, &[1.0], 0.5, 2)));
    bench.write("p.csv", numbered("p", cloud(300, 4, &[], 1.0, 3)));
    let chosen = |more: &[&str]| {
        let said = similar(&bench, &[&["--nn-factor", "2"], more].concat()).done();
        (selection(&bench, 2), said.err)
    };
    let pools = |table: &SelectionTable| table.chosen.iter().map(|chosen| chosen.best.pool).collect::<Vec<_>>();
    let (short, said) = chosen(&["--budget", "100"]);
    assert!(short.chosen.len() <= 12 && said.contains("of the budget of 100 images were taken; `refill`"), "{said}");
    for order in ["rank", "votes", "clusters"] {
        let (full, said) = chosen(&["--budget", "100", "--order", order, "--refill"]);
        assert_eq!(full.chosen.len(), 100);
        assert!(said.contains("looking for"), "twelve neighbors of each are not enough: {said}");
        assert!(pools(&short).iter().all(|pool| pools(&full).contains(pool)), "{order}: what k gives is there");
        for judged in &full.edges {
            let wanted = if judged.edge.rank <= 2 { Reason::Ok } else { Reason::Refill };
            assert!(judged.reason == wanted || judged.edge.rank > 2 && judged.reason == Reason::Budget, "{judged:?}");
        }
        let refills = full.edges.iter().filter(|judged| judged.reason == Reason::Refill).count();
        assert_eq!(refills, 100 - short.chosen.len());
        // In their order: a smaller budget is the beginning, also where it needs less depth.
        let mut by_order: Vec<_> = full.chosen.iter().map(|chosen| (chosen.order, chosen.best.pool)).collect();
        by_order.sort_unstable();
        let mut some: Vec<u32> = by_order[..30].iter().map(|(_, pool)| *pool).collect();
        some.sort_unstable();
        assert_eq!(pools(&chosen(&["--budget", "30", "--order", order, "--refill"]).0), some, "{order}");
    }
    // Where k is enough nothing is refilled, and all of a pool is its end.
    let (five, _) = chosen(&["--budget", "5", "--refill"]);
    assert!(five.edges.iter().all(|judged| judged.edge.rank <= 2 && judged.reason != Reason::Refill));
    let (all, said) = chosen(&["--budget", "400", "--refill"]);
    assert_eq!((all.chosen.len(), said.contains("raise")), (300, true));
    for more in [&["--pick", "random"][..], &["--order", "clusters", "--clusters", "2"], &["--pool-clusters", "3"]] {
        let said = similar(&bench, &[&["--nn-factor", "2", "--budget", "9", "--refill"], more].concat());
        assert_eq!(said.exit, 2, "{}", said.err);
    }
}

#[test]
fn clusters_of_candidates_get_weighted_shares_of_the_budget() {
    let bench = Bench::new();
    // Ninety images of the target are about the first direction and ten about the other; so are those of the pool, half and half.
    let two = |n: usize, other: usize, seed: u64| {
        let mut rows = cloud(n, 4, &[4.0], 0.7, seed);
        rows.extend(cloud(other, 4, &[0.0, 4.0], 0.7, seed + 1));
        rows
    };
    bench.write("t.csv", numbered("t", two(90, 10, 1)));
    bench.write("p.csv", numbered("p", two(300, 300, 5)));
    let chosen = |order: &str| {
        let common = ["--dedup", "none", "--nn-factor", "40", "--budget", "60", "--order", order];
        similar(&bench, &[&common[..], if order == "clusters" { &["--pool-clusters", "2"] } else { &[] }].concat()).done();
        selection(&bench, 40)
    };
    let rare = |table: &SelectionTable| table.chosen.iter().filter(|chosen| chosen.best.pool >= 300).count();
    let (votes, clusters) = (chosen("votes"), chosen("clusters"));
    assert_eq!((votes.chosen.len(), clusters.chosen.len()), (60, 60));
    // Ten parts of the target, of which the rare direction has one or two: by the definition its cluster gets about their share, and the
    // images with the most votes are all about the other.
    assert!(rare(&votes) == 0 && (4..=16).contains(&rare(&clusters)), "{} {}", rare(&votes), rare(&clusters));
    let of: std::collections::BTreeSet<(bool, i32)> = clusters.chosen.iter().map(|c| (c.best.pool >= 300, c.cluster)).collect();
    assert!(of == [(false, 0), (true, 1)].into() || of == [(false, 1), (true, 0)].into(), "{of:?}");
    let before = outputs(&bench);
    similar(
        &bench,
        &[
            "--dedup",
            "none",
            "--nn-factor",
            "40",
            "--budget",
            "60",
            "--order",
            "clusters",
            "--pool-clusters",
            "2",
            "--threads",
            "1",
            "--artifacts",
            "other",
        ],
    )
    .done();
    let after = outputs(&bench);
    assert!(before.iter().filter(|(name, _)| *name != "similar.toml").all(|(name, bytes)| after[name] == *bytes));
}

#[test]
fn selections_are_nested_filters_do_what_they_say_and_every_edge_has_a_reason() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", cloud(30, 6, &[1.0], 0.7, 2)));
    bench.write("p.csv", numbered("p", cloud(400, 6, &[], 1.0, 3)));
    similar(&bench, &["--nn-factor", "5", "20"]).done();
    let (five, twenty) = (list(&bench, 5), list(&bench, 20));
    assert!(five.len() < twenty.len() && five.iter().all(|name| twenty.contains(name)));
    let all = selection(&bench, 20);
    let chosen = |more: &[&str]| {
        similar(&bench, &[&["--nn-factor", "20"], more].concat()).done();
        selection(&bench, 20)
    };
    assert_eq!(chosen(&["--max-dist", "0"]).chosen, []);
    assert_eq!(chosen(&["--max-dist", "2.01"]).chosen, all.chosen);
    let near = chosen(&["--max-dist", "0.2"]);
    assert!(!near.chosen.is_empty() && near.chosen.len() < all.chosen.len());
    for judged in &near.edges {
        assert_eq!(judged.reason == Reason::Ok, judged.edge.distance() < 0.2, "{judged:?}");
    }
    let budget = chosen(&["--budget", "25"]);
    let mut first: Vec<_> = all.chosen.iter().filter(|chosen| chosen.order < 25).map(|chosen| &chosen.id).collect();
    first.sort();
    let mut paid: Vec<_> = budget.chosen.iter().map(|chosen| &chosen.id).collect();
    paid.sort();
    assert_eq!(paid, first, "a budget is a prefix of the order");
    bench.write("no.txt", format!("{}\nnobody.png\n", five[0]));
    let said = similar(&bench, &["--nn-factor", "20", "--exclude", "no.txt"]).done();
    assert!(said.err.contains("1 of 2 names to exclude are not in the pool; the first is `nobody`"), "{}", said.err);
    assert!(!list(&bench, 20).contains(&five[0]));
    let capped = chosen(&["--per-image", "1", "--per-target", "3"]);
    assert!(capped.chosen.iter().all(|chosen| chosen.targets == 1) && capped.selected.iter().all(|count| *count <= 3));
    let shared = chosen(&["--budget", "40", "--clusters", "2"]);
    assert_eq!(shared.chosen.len(), 40);
    assert_eq!(shared.report.clusters.iter().map(|part| part.quota.unwrap()).collect::<Vec<_>>(), [20, 20]);
}

#[test]
fn one_thread_and_five_write_the_same_bytes() {
    let run = |threads: &str| {
        let bench = Bench::new();
        bench.write("t.csv", numbered("t", cloud(40, 8, &[1.0], 0.5, 2)));
        bench.write("p.csv", numbered("p", cloud(3000, 8, &[], 1.0, 3)));
        similar(&bench, &["--threads", threads, "--pool-sim", "0.9", "--nn-factor", "4", "9"]).done();
        let mut found = outputs(&bench);
        // These two name the folder.
        assert!(found.remove("similar.toml").is_some() && found.remove("report.json").is_some());
        found
    };
    let one = run("1");
    assert_eq!(one.len(), 11, "{:?}", one.keys());
    assert_eq!(run("5"), one);
}

#[test]
fn a_selection_is_nearer_to_the_target_than_random_images() {
    let bench = Bench::new();
    let mut pool = cloud(600, 8, &[3.0], 1.0, 4);
    pool.extend(cloud(600, 8, &[0.0, 3.0], 1.0, 5));
    bench.write("t.csv", numbered("t", cloud(80, 8, &[3.0], 1.0, 6)));
    bench.write("p.csv", numbered("p", pool));
    similar(&bench, &["--nn-factor", "5"]).done();
    let report = selection(&bench, 5).report;
    let (chosen, random) = (report.difference["selection"], report.difference["random"]);
    assert!(chosen.mmd2 < 0.5 * random.mmd2 && chosen.energy < random.energy, "{chosen:?} {random:?}");
    assert!(chosen.mean_gap < random.mean_gap && chosen.two_sample < random.two_sample);
    assert!(report.total_variation["selection"] < report.total_variation["random"]);
    assert!(report.nearest.mean["selection"] < report.nearest.mean["random"]);
    assert!(report.coverage.iter().all(|at| at.selection >= at.random));
    let lot = |pick: &str| {
        similar(&bench, &["--nn-factor", "5", "--pick", pick, "--budget", "100"]).done();
        selection(&bench, 5)
    };
    for pick in ["random", "diverse"] {
        let found = lot(pick);
        assert_eq!((found.chosen.len(), &found.pick[..]), (100, pick));
        assert!(found.report.difference["selection"].mmd2 > chosen.mmd2, "{pick} does not look");
    }
    let unlike = lot("dissimilar");
    assert!(unlike.chosen.iter().all(|chosen| chosen.best.cosine < 0.3));
}

#[test]
fn copies_in_the_pool_of_the_target_and_of_a_test_set_are_dropped_and_traced() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", [0.0, 60.0].map(angle)));
    // p0 is t0 itself; p2 and p3 are p1, nearly; p5 is in the test set.
    bench.write("p.csv", numbered("p", [0.0, 5.0, 5.1, 5.2, 55.0, 70.0].map(angle)));
    bench.write("h.csv", numbered("h", [70.0].map(angle)));
    let more = [
        "--nn-factor",
        "6",
        "--target-sim",
        "0.99999",
        "--held-out",
        "h.csv",
        "--held-out-sim",
        "0.9999",
        "--pool-sim",
        "0.9999",
    ];
    let said = similar(&bench, &more).done();
    assert_eq!(list(&bench, 6), ["p1", "p4"]);
    // Whatever is left out of the selection, it is told what the pool has of target and test set: here from 8° apart on.
    assert_eq!(
        said.json["near"]["said"],
        json!([
            "2 of 2 images of `target` have a near copy in `pool_1`: 6 images of it",
            "1 of 1 image of `held_out_1` has a near copy in `pool_1`: 1 image of it",
            "1 of 1 image of `held_out_1` has a near copy in `target`: 1 image of it"
        ])
    );
    let copies = fs::read_to_string(bench.path("out/near_copies.csv")).unwrap();
    let line = copies.lines().find(|line| line.starts_with("held_out[0],")).unwrap();
    assert!(line.starts_with("held_out[0],,h0.jpg,0,pool,,p5.jpg,5,1"), "{copies}");
    let said = bench.kinset(&["duplicates", "out/similar.toml", "--artifacts", "out/artifacts", "--rows", "1"]).done();
    assert!(
        said.out.contains("of `held_out_1` has a near copy in `pool_1`") && said.out.contains("… and 3 more"),
        "{}",
        said.out
    );
    let said = similar(&bench, &["--nn-factor", "6", "--duplicates", "--near-sim", "0.9999"]).done();
    assert_eq!(said.json["near"]["said"][0], "2 of 6 images of `pool_1` repeat others, 0 with equal features");
    let groups = fs::read_to_string(bench.path("out/duplicates.csv")).unwrap();
    let kept: Vec<&str> = groups.lines().filter(|line| line.contains(",true,pool,")).collect();
    assert!(kept.len() == 2 && kept[1].contains("p1.jpg"), "{groups}");
    similar(&bench, &more).done();
    let found = selection(&bench, 6);
    let why = |pool: &str| {
        found.edges.iter().find(|judged| judged.pool_id == pool).map(|j| (j.reason, j.duplicate_of.clone())).unwrap()
    };
    assert_eq!(why("p0.jpg").0, Reason::TargetCopy);
    assert_eq!(why("p5.jpg").0, Reason::HeldOut);
    assert_eq!(why("p3.jpg"), (Reason::Duplicate, "p1.jpg".to_owned()));
    assert_eq!(found.chosen[0].copies, 2);
    let groups = found.report.duplicates.unwrap();
    assert_eq!((groups.compared, groups.groups, groups.dropped, groups.largest), (4, 1, 2, 3));
}

#[test]
fn shards_are_one_pool_and_a_new_one_costs_only_itself() {
    let bench = Bench::new();
    let pool = cloud(500, 6, &[], 1.0, 3);
    bench.write("t.csv", numbered("t", cloud(20, 6, &[1.0], 0.7, 2)));
    bench.write("p.csv", numbered("p", pool.clone()));
    let rows: Vec<(String, Vec<f64>)> = pool.into_iter().enumerate().map(|(i, row)| (format!("p{i}.jpg"), row)).collect();
    for (name, part) in [("a.csv", &rows[..200]), ("b.csv", &rows[200..201]), ("c.csv", &rows[201..])] {
        bench.write(name, csv(part.iter().map(|(name, row)| (name.as_str(), row.clone()))));
    }
    similar(&bench, &[]).done();
    let (whole, edges) = (list(&bench, 20), selection(&bench, 20).edges);
    let shards = |files: &[&str]| {
        let args = [&["similar", "--target", "t.csv", "--save-dir", "out", "--json", "--pool"], files].concat();
        bench.kinset(&args)
    };
    shards(&["a.csv", "b.csv"]).done();
    let before = runs(&bench);
    shards(&["a.csv", "b.csv", "c.csv"]).done();
    assert_eq!(list(&bench, 20), whole);
    assert_eq!(selection(&bench, 20).edges, edges);
    let ran = started(&bench, before);
    assert!(
        ran.len() == 4 && ["pool_3", "matches_3", "near_copies", "nn20"].iter().all(|stage| ran.iter().any(|one| one == stage)),
        "what was searched is kept: {ran:?}"
    );
    // What is in two shards under one name is one image, and the selection that of the pool without the second.
    let twice = shards(&["a.csv", "p.csv"]).done();
    assert!(twice.err.contains("200 images of `pool_2` that are in an earlier shard of the pool"), "{}", twice.err);
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(list(&bench, 20)), sorted(whole.clone()));
    for pick in ["random", "diverse", "dissimilar"] {
        let args = [
            "similar",
            "--target",
            "t.csv",
            "--save-dir",
            "out",
            "--pool",
            "a.csv",
            "p.csv",
            "--pick",
            pick,
            "--budget",
            "400",
        ];
        bench.kinset(&args).done();
        let names = sorted(list(&bench, 20));
        assert!(names.len() > 100 && names.windows(2).all(|pair| pair[0] != pair[1]), "{pick}: each once");
    }
    bench.write("other.csv", csv([("p0.jpg", vec![0.0, 0.0, 0.0, 0.0, 0.0, 1.0])]));
    let twice = shards(&["a.csv", "other.csv"]);
    assert_eq!(twice.exit, 4);
    let words = "the image `p0.jpg` is in two shards of the pool, `pool_1` and `pool_2`, with different features";
    assert!(twice.err.contains(words), "{}", twice.err);
}

#[test]
fn shards_without_names_are_named_by_their_row_in_the_whole_pool() {
    let bench = Bench::new();
    let pool = cloud(50, 4, &[], 1.0, 3);
    bench.write("t.csv", numbered("t", cloud(10, 4, &[1.0], 0.7, 2)));
    for (name, rows) in [("p.npy", &pool[..]), ("a.npy", &pool[..20]), ("b.npy", &pool[20..])] {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({}, 4), }}", rows.len());
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(rows.iter().flatten().flat_map(|value| value.to_le_bytes()));
        bench.write(name, &bytes);
    }
    let run = |files: &[&str]| {
        bench.kinset(&[&["similar", "--target", "t.csv", "--save-dir", "out", "--json", "--pool"], files].concat())
    };
    run(&["p.npy"]).done();
    let whole = list(&bench, 20);
    assert!(whole.contains(&"49".to_owned()) || whole.len() > 30);
    let said = run(&["a.npy", "b.npy"]).done();
    assert_eq!(list(&bench, 20), whole);
    assert!(said.err.contains("images of `pool_1`, `pool_2` by their row in the whole pool"), "{}", said.err);
    let twice = run(&["a.npy", "a.npy"]);
    assert!(
        twice.exit == 4 && twice.err.contains("two shards of the pool are the same, `pool_1` and `pool_2`"),
        "{}",
        twice.err
    );
}

fn runs(bench: &Bench) -> usize {
    sorted(&bench.path("out/artifacts/similar/runs")).len()
}

/// The stages that began in the runs after the first so many.
fn started(bench: &Bench, before: usize) -> Vec<String> {
    let mut found = Vec::new();
    for run in sorted(&bench.path("out/artifacts/similar/runs")).into_iter().skip(before) {
        for line in fs::read_to_string(run.join("events.jsonl")).unwrap().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            if event["event"] == "stage-started" {
                found.push(event["stage"].as_str().unwrap().to_owned());
            }
        }
    }
    found
}

#[test]
fn every_form_of_features_says_the_same() {
    let bench = Bench::new();
    let (target, pool) = (cloud(10, 4, &[1.0], 0.7, 2), cloud(50, 4, &[], 1.0, 3));
    bench.write("t.csv", numbered("t", target));
    bench.write("p.csv", numbered("p", pool.clone()));
    similar(&bench, &[]).done();
    let expected = list(&bench, 20);
    // Names in quotes, with their line's end; and names with a comma, with the number of numbers or without.
    let mut quoted = String::new();
    for line in numbered("p", pool.clone()).lines() {
        let (name, rest) = line.split_once(',').unwrap();
        quoted.push_str(&format!("\"{name}\n\",{rest}\n"));
    }
    let commas: String = numbered("clip,p", pool).replace("clip,p", "clip,0,p");
    let run = |name: &str, text: String, more: &[&str]| {
        bench.write(name, text);
        let args = ["similar", "--target", "t.csv", "--pool", name, "--save-dir", "out", "--json"];
        bench.kinset(&[&args[..], more].concat()).done();
        list(&bench, 20)
    };
    assert_eq!(run("q.csv", quoted, &[]), expected);
    let with: Vec<String> = expected.iter().map(|name| format!("clip,0,{name}")).collect();
    assert_eq!(run("c.csv", commas.clone(), &[]), with);
    assert_eq!(run("d.csv", commas, &["--feature_dim", "4"]), with);
    // kinset's own table of the same features, as anybody's Parquet.
    let own = bench.path("out/artifacts/similar/pool_1/features.parquet");
    let args = ["similar", "--target", "t.csv", "--pool", own.to_str().unwrap(), "--save-dir", "again", "--json"];
    bench.kinset(&args).done();
    assert_eq!(fs::read_to_string(bench.path("again/ImageSets/scan_nn20.txt")).unwrap().lines().collect::<Vec<_>>(), with);
}

/// A `.npy` file of `<i8`: rows of `columns` numbers.
fn npy(path: &Path) -> Vec<Vec<i64>> {
    let bytes = fs::read(path).unwrap();
    let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    let columns: usize =
        header.split_once(", ").unwrap().1.split_once('(').unwrap().1.split([',', ')']).nth(1).unwrap().trim().parse().unwrap();
    let numbers: Vec<i64> = bytes[128..].chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap())).collect();
    numbers.chunks(columns).map(<[i64]>::to_vec).collect()
}

#[test]
fn the_fork_s_arrays_have_its_shapes() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", SEVEN.map(angle)));
    bench.write("p.csv", numbered("p", (0..5).map(|i| angle(f64::from(i) * 70.0))));
    similar(&bench, &["--nn-factor", "2", "8"]).done();
    let target = npy(&bench.path("out/topk2_neighbors_target.npy"));
    assert_eq!(target, [[0, 1, 2], [1, 0, 2], [2, 1, 0], [3, 4, 2], [4, 3, 2], [5, 4, 3], [6, 5, 0]]);
    let pool = npy(&bench.path("out/topk2_neighbors_val_from_train.npy"));
    // Angles 0, 90, 180 and 270 are kept; each with its place and k + 1 of 0°, 70°, 140°, 210°, 280°.
    assert_eq!(pool, [[0, 0, 1, 4], [1, 1, 2, 0], [2, 3, 2, 4], [3, 4, 3, 0]]);
    let eight = npy(&bench.path("out/topk8_neighbors_val_from_train.npy"));
    assert_eq!(eight[0], [0, 0, 1, 4, 2, 3, -1, -1, -1, -1], "the pool has five");
}

#[test]
fn pictures_and_annotations_are_put_in_place_and_what_is_missing_is_named() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", [0.0, 90.0].map(angle)));
    bench.write("p.csv", csv([("a.jpg", angle(1.0)), ("b", angle(89.0)), ("c.png", angle(92.0)), ("../evil", angle(3.0))]));
    for name in ["JPEGImages/a.jpg", "JPEGImages/b.png", "Annotations/a.xml"] {
        bench.write(format!("db/{name}"), name);
    }
    for how in ["symlink", "hardlink", "copy"] {
        let said = similar(&bench, &["--nn-factor", "2", "--near_db", "db/", "--materialise", how]).done();
        assert!(said.err.contains("nn2: 2 names have no picture: `c.png`, `../evil`"), "{}", said.err);
        assert!(said.err.contains("3 names have no annotation: `b`, `c.png`, `../evil`"), "{}", said.err);
        let placed: Vec<String> = files_below(&bench.path("out/nn2"))
            .iter()
            .map(|p| p.strip_prefix(bench.path("out/nn2")).unwrap().display().to_string())
            .collect();
        assert_eq!(placed, [".exported-by-kinset", "Annotations/a.xml", "JPEGImages/a.jpg", "JPEGImages/b.png"], "{how}");
        assert_eq!(fs::read_to_string(bench.path("out/nn2/JPEGImages/b.png")).unwrap(), "JPEGImages/b.png");
        let link = fs::symlink_metadata(bench.path("out/nn2/JPEGImages/a.jpg")).unwrap().is_symlink();
        assert_eq!(link, how == "symlink");
    }
    assert_eq!(list(&bench, 2), ["a", "b", "c", "../evil"]);
    let said = similar(&bench, &["--nn-factor", "1", "--near-db", "db/", "--materialize", "copy"]).done();
    assert_eq!(said.json["nn"][0]["counts"]["selected"], 2);
    // Told to leave, nothing is removed; an older selection's files are named.
    bench.write("out/nn1/JPEGImages/old.jpg", "x");
    let said = similar(&bench, &["--nn-factor", "1", "--near-db", "db/", "--materialize", "copy"]).done();
    assert!(said.err.contains("nn1: 1 files are left from an earlier selection"), "{}", said.err);
}

#[test]
fn a_smaller_selection_takes_away_the_links_of_a_larger_one_and_nothing_else() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", [0.0].map(angle)));
    bench.write("p.csv", numbered("p", (0..5).map(|i| angle(f64::from(i)))));
    for i in 0..5 {
        bench.write(format!("db/p{i}.jpg"), format!("picture {i}"));
    }
    let select = |budget: &str, how: &str| {
        similar(&bench, &["--nn-factor", "5", "--budget", budget, "--near-db", "db", "--materialize", how]).done()
    };
    for how in ["symlink", "hardlink"] {
        select("5", how);
        bench.write("out/nn5/images/mine.jpg", "mine");
        let said = select("2", how);
        let there: Vec<String> =
            sorted(&bench.path("out/nn5/images")).iter().map(|path| path.file_name().unwrap().display().to_string()).collect();
        assert_eq!(there, ["mine.jpg", "p0.jpg", "p1.jpg"], "{how}");
        assert!(said.err.contains("nn5: 3 links of an earlier selection removed"), "{}", said.err);
        assert!(said.err.contains("nn5: 1 files are left from an earlier selection"), "{}", said.err);
        assert_eq!(sorted(&bench.path("db")).len(), 5, "pictures stay");
    }
    // Copies are nobody's links: they stay.
    select("5", "copy");
    let said = select("1", "copy");
    assert!(said.err.contains("nn5: 5 files are left from an earlier selection"), "{}", said.err);
}

#[test]
fn a_report_says_what_would_be_missed() {
    let bench = Bench::new();
    // Images of the target at 0° to 9°, at 90°, where the pool has one, and at 180°, where it has none.
    bench.write("t.csv", numbered("t", (0..10).map(f64::from).chain([90.0, 180.0]).map(angle)));
    let pool = (0..100).map(|i| f64::from(i) * 0.1).chain([90.5]).chain((0..100).map(|i| 270.0 + f64::from(i) * 0.1));
    bench.write("p.csv", numbered("p", pool.map(angle)));
    let said = similar(&bench, &["--dedup", "none", "--nn-factor", "3", "--budget", "8"]).done();
    let missed = selection(&bench, 3).report.missed.unwrap();
    assert_eq!(json!(missed), said.json["nn"][0]["missed"]);
    let names: Vec<(&str, &str)> = missed.targets.iter().map(|far| (far.id.as_str(), far.reason.as_str())).collect();
    assert_eq!(names[0].0, "t11.jpg", "{names:?}");
    let near = missed.targets.iter().find(|far| far.id == "t10.jpg").unwrap();
    assert_eq!((near.pool_id.as_str(), near.reason.as_str()), ("p100.jpg", "budget"), "{near:?}");
    assert!(near.in_pool < missed.near && missed.in_pool < missed.uncovered, "{missed:?}");
    let far = missed.regions.last().unwrap();
    assert!(far.selected == 0 && far.distance > 0.5 && missed.regions[0].selected > 0, "{:?}", missed.regions);
    assert!((missed.regions.iter().map(|region| region.share).sum::<f64>() - 1.0).abs() < 1e-9);
    let budgets: Vec<usize> = missed.budgets.iter().map(|budget| budget.images).collect();
    assert_eq!(budgets[..4], [1, 2, 4, 8]);
    assert!(budgets.last().unwrap() > &8, "what a larger budget would bring: {budgets:?}");
    assert!(missed.budgets.windows(2).all(|pair| pair[0].coverage <= pair[1].coverage && pair[0].distance >= pair[1].distance));
    let page = fs::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("What would be missed") && page.contains("covered by budget"), "the page says it");
}

#[test]
fn the_command_leaves_a_page_with_pictures_where_it_knows_them() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", [0.0, 90.0].map(angle)));
    bench.write("p.csv", numbered("p", [1.0, 89.0, 180.0].map(angle)));
    let picture = |gray: u8| image_codec::encode_png("p", &Pixels::new(4, 4, 1, vec![gray; 16])).unwrap();
    bench.write("targets/t0.png", picture(10));
    bench.write("pool/p1.png", picture(200));
    let page = |more: &[&str]| {
        let said = similar(&bench, &[&["--nn-factor", "1"], more].concat()).done();
        assert_eq!(said.json["report"], "out/report.html");
        fs::read_to_string(bench.path("out/report.html")).unwrap()
    };
    let without = page(&[]);
    assert!(without.contains("data-selection=\"nn1\"") && !without.contains("Images of the target"), "no pictures, no sheet");
    let with = page(&["--target-db", "targets", "--near-db", "pool"]);
    assert!(with.contains("Images of the target") && with.contains("t0.jpg") && with.contains("p1.jpg · distance 0.000"));
    // What is the same is not drawn again, and a picture that has changed is.
    let written = || fs::metadata(bench.path("out/report.html")).unwrap().modified().unwrap();
    let first = written();
    assert!(page(&["--target-db", "targets", "--near-db", "pool"]) == with && written() == first, "it was drawn again");
    bench.write("pool/p1.png", picture(100));
    assert!(page(&["--target-db", "targets", "--near-db", "pool"]) != with);
    let odd = similar(&bench, &["--nn-factor", "1", "--target-db", "nowhere/"]).done();
    assert!(odd.err.contains("warning: no images of the target"), "{}", odd.err);
    fs::remove_file(bench.path("out/report.html")).unwrap();
    let said = similar(&bench, &["--nn-factor", "1", "--no-report"]).done();
    assert!(said.json["report"].is_null() && !bench.path("out/report.html").exists());
}

/// A picture of one color with a little noise, as PNG.
fn colored(color: [u8; 3], seed: u64) -> Vec<u8> {
    let mut rng = Seed::new(seed).rng();
    let data = (0..24 * 24).flat_map(|_| color.map(|level| level.saturating_add(rng.below(20) as u8))).collect();
    image_codec::encode_png("p", &Pixels::new(24, 24, 3, data)).unwrap()
}

const RED: [u8; 3] = [210, 20, 20];
const BLUE: [u8; 3] = [20, 20, 210];

/// Folders of pictures: a red target, and a pool of red and blue ones.
fn folders(bench: &Bench) {
    for i in 0..3 {
        bench.write(format!("target/t{i}.png"), colored(RED, i));
    }
    for i in 0..6 {
        bench.write(format!("pool/red/{i}.png"), colored(RED, 10 + i));
        bench.write(format!("pool/blue/{i}.png"), colored(BLUE, 20 + i));
    }
}

/// `kinset similar` of folders, with a small encoder.
fn of_folders(bench: &Bench, args: &[&str]) -> Said {
    let encoder = format!("{ROOT}/tests/golden/onnx/mobile.onnx");
    let fixed = ["similar", "--save-dir", "out", "--json", "--encoder", encoder.as_str(), "--dedup", "none"];
    bench.kinset(&[&fixed[..], args].concat())
}

#[test]
fn folders_of_images_are_enough_and_their_images_go_by_the_names_of_files() {
    let bench = Bench::new();
    folders(&bench);
    let args = ["--target", "target", "--pool", "pool", "--nn-factor", "6", "--budget", "5", "--materialize", "symlink"];
    let said = of_folders(&bench, &args).done();
    assert!(said.err.contains("encoder: `"), "{}", said.err);
    assert_eq!((&said.json["nn"][0]["counts"]["selected"], &said.json["nn"][0]["images_found"]), (&5.into(), &5.into()));
    let chosen = list(&bench, 6);
    assert!(chosen.len() == 5 && chosen.iter().all(|name| name.starts_with("red/")), "{chosen:?}");
    let link = bench.path("out/nn6/images").join(format!("{}.png", chosen[0]));
    assert_eq!(fs::read(&link).unwrap(), fs::read(bench.path("pool").join(format!("{}.png", chosen[0]))).unwrap());
    let page = fs::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("Images of the target"), "the page has pictures");
    let written = || fs::metadata(bench.path("out/report.html")).unwrap().modified().unwrap();
    let first = written();
    of_folders(&bench, &args).done();
    assert_eq!(written(), first, "nothing is new, nothing is drawn");
    // The fork's flags for pictures say the same.
    let plain = outputs(&bench);
    of_folders(&bench, &[&["--target-db", "target", "--near-db", "pool"], &args[4..]].concat()).done();
    for (name, bytes) in outputs(&bench) {
        // Which of the flags were typed stands nowhere.
        assert!(plain[&name] == bytes, "{name} differs");
    }
    // What must not be taken may be images, too.
    for i in 0..6 {
        bench.write(format!("test/{i}.png"), colored(RED, 10 + i));
    }
    let args =
        ["--target", "target", "--pool", "pool", "--nn-factor", "12", "--held-out", "test", "--held-out-sim", "0.9999999"];
    of_folders(&bench, &args).done();
    let out = selection(&bench, 12).edges.iter().filter(|judged| judged.reason == Reason::HeldOut).count();
    assert_eq!(out, 18, "six images, each near three: {:?}", selection(&bench, 12).report.edges);
}

#[test]
fn pools_of_several_folders_and_archives_are_shards() {
    let bench = Bench::new();
    folders(&bench);
    let args = ["--target", "target", "--pool", "pool/blue", "pool/red", "--nn-factor", "6", "--budget", "5"];
    of_folders(&bench, &[&args[..], &["--materialize", "copy"]].concat()).done();
    let places: Vec<String> = files_below(&bench.path("out/nn6"))
        .iter()
        .map(|path| path.strip_prefix(bench.path("out/nn6")).unwrap().display().to_string())
        .collect();
    assert!(places.len() == 6 && places[1..].iter().all(|place| place.starts_with("pool_2/images/")), "{places:?}");
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("", bench.path("pool/red")).unwrap();
    bench.write("red.tar", archive.into_inner().unwrap());
    let args = ["--target", "target", "--pool", "pool/blue", "red.tar", "--nn-factor", "6", "--budget", "5"];
    of_folders(&bench, &args).done();
    assert_eq!(list(&bench, 6).len(), 5);
    let refused = of_folders(&bench, &[&args[..], &["--materialize", "copy"]].concat());
    assert!(refused.err.contains("those of `red.tar` are inside it"), "{}", refused.err);
}

#[test]
fn features_and_images_are_not_mixed_and_flags_go_with_what_is_given() {
    let bench = Bench::new();
    folders(&bench);
    bench.write("p.csv", numbered("p", SEVEN.map(angle)));
    let refused = |args: &[&str], wanted: &str| {
        let said = of_folders(&bench, args);
        assert_eq!(said.exit, 2, "{}", said.err);
        assert!(said.err.contains(wanted), "{}", said.err);
    };
    refused(&["--target", "target", "--pool", "p.csv"], "`target` holds images, and `p.csv` holds features");
    refused(&["--target", "p.csv", "--pool", "p.csv"], "`--encoder` and `--skip-broken` are for images");
    refused(&["--target", "target", "--pool", "pool", "--exclude", "p.csv"], "`--exclude` is for files of features");
    let said = bench.kinset(&["similar", "--target", "target", "--pool", "pool", "--save-dir", "out", "--encoder", "alexnet"]);
    assert!(said.exit == 2 && said.err.contains("names neither a published encoder nor a file"));
    assert!(bench.kinset(&["similar", "--target", "target", "--save-dir", "out"]).err.contains("--near-csv"));
}

#[test]
fn what_is_known_of_images_is_compared_and_changes_no_choice() {
    let bench = Bench::new();
    bench.write("t.csv", numbered("t", [0.0, 5.0, 10.0, 180.0].map(angle)));
    bench.write("p.csv", numbered("p", (0..8).map(|i| angle(if i < 4 { f64::from(i) } else { 90.0 + f64::from(i) }))));
    let rows = |prefix: &str, n: usize, cats: usize| -> String {
        let row = |i| format!("{prefix}{i},{},day\n", if i < cats { "cat" } else { "dog" });
        (0..n).map(row).collect::<Vec<_>>().concat()
    };
    bench.write("known.csv", format!("image,class,time\n{}{}", rows("t", 4, 3), rows("p", 7, 4)));
    let plain = similar(&bench, &["--nn-factor", "2", "--dedup", "none"]).done();
    let before = list(&bench, 2);
    let said = similar(&bench, &["--nn-factor", "2", "--dedup", "none", "--attributes", "known.csv"]).done();
    assert_eq!(list(&bench, 2), before);
    assert_eq!(plain.json["nn"][0]["counts"], said.json["nn"][0]["counts"]);
    let report: Value = serde_json::from_str(&fs::read_to_string(bench.path("out/report.json")).unwrap()).unwrap();
    let found = &report["nn"]["2"]["attributes"];
    assert_eq!(*found, said.json["nn"][0]["attributes"]);
    let class = &found[0];
    assert_eq!((&class["attribute"], &class["values"][0]["value"]), (&Value::from("class"), &Value::from("cat")));
    // Three of four target images are cats, four of the seven pool images that the file names.
    let near = |value: &Value, wanted: f64| (value.as_f64().unwrap() - wanted).abs() < 1e-12;
    assert!(near(&class["values"][0]["target"], 0.75) && near(&class["values"][0]["pool"], 4.0 / 7.0), "{class}");
    assert!(near(&class["pool_differs"], 0.75 - 4.0 / 7.0), "{class}");
    assert_eq!(found[1]["selection_differs"], 0.0);
    assert!(said.err.contains("have no `class`"), "p7 is not named: {}", said.err);
    bench.write("known.csv", "image,class\na\n");
    let refused = similar(&bench, &["--attributes", "known.csv"]);
    assert_eq!(refused.exit, 4, "{}", refused.err);
    assert!(refused.err.contains("line 2: 1 fields where the header has 2"), "{}", refused.err);
}

#[test]
fn bad_input_is_refused_in_words() {
    let bench = Bench::new();
    let good = numbered("p", cloud(20, 3, &[], 1.0, 3));
    let refuse = |target: &str, pool: &str, more: &[&str], exit: i32, words: &str| {
        bench.write("t.csv", target);
        bench.write("p.csv", pool);
        let said = similar(&bench, more);
        assert_eq!(said.exit, exit, "{words}: {}", said.err);
        let flat = said.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(words), "`{words}` is not in: {}", said.err);
        assert!(!said.err.contains("panicked"), "{}", said.err);
    };
    refuse("", &good, &[], 4, "the file has no record");
    refuse("a,1,2\n", &good, &[], 4, "the target has features of 2 numbers, those of `pool_1` have 3");
    refuse("a,1,2,NaN\n", &good, &[], 4, "row 0 (`a`): number 3 of 3 is NaN");
    refuse("a,0,0,0\n", &good, &[], 4, "row 0 (`a`): all numbers are 0");
    refuse("a,1,2,3\nb,1,1,1\na,1,0,0\n", &good, &[], 4, "row 2: the name `a` is already in row 0");
    refuse("a,1,2,3\nb,1,1\n", &good, &["--feature-dim", "3"], 4, "line 2: 3 fields where a name and 3 numbers were expected");
    refuse(&good, &good, &["--dist-thr", "98"], 2, "`--dist-thr` is 98, and must lie in -1 to 1");
    refuse(&good, &good, &["--max-dist", "98"], 2, "a distance is expected: 1 - cosine, 0 to 2");
    refuse(&good, &good, &["--nn-factor", "0"], 2, "a whole number is expected, 1 to 4294967295");
    refuse(&good, &good, &["--pool-sim", "nan"], 2, "a cosine similarity is expected, -1 to 1");
    refuse(&good, &good, &["--max-dist", "0.1", "--min-dist", "0.2"], 2, "`--max-dist` 0.1 leaves nothing above it");
    refuse(&good, &good, &["--separator", "ab"], 2, "`--separator` is not one character");
    refuse(&good, &good, &["--seed", "18446744073709551615"], 2, "--seed");
    refuse(&good, &good, &["--materialize", "copy"], 2, "name their folder with `--near-db`");
    refuse(&good, &good, &["--near-db", "nowhere"], 4, "nowhere");
    refuse(&good, &good, &["--exclude", "nowhere.txt"], 4, "nowhere.txt");
    bench.write("t.csv", &good);
    let said = similar(&bench, &["--dist-thr", "0.1"]).done();
    assert!(said.err.contains("it is a similarity, not a distance"), "{}", said.err);
    let said = similar(&bench, &["--max-dist", "0.98"]).done();
    assert!(said.err.contains("it is a distance, not a similarity"), "{}", said.err);
    let gone = bench.kinset(&["similar", "--target", "x.csv", "--pool", "p.csv", "--save-dir", "out"]);
    assert!(gone.exit == 4 && gone.err.contains("x.csv"), "{}", gone.err);
}

#[test]
fn the_pipeline_runs_end_to_end_in_its_smoke_profile() {
    let bench = Bench::new();
    let (file, data) = (format!("{ROOT}/pipelines/similar.toml"), format!("{ROOT}/data"));
    let args = ["run", &file, "--profile", "smoke", "--data", &data, "--json"];
    bench.kinset(&args).done();
    let found = SelectionTable::load(&stored(&bench.path("artifacts/similar/selection"))).unwrap();
    assert!(found.chosen.len() <= 120 && found.chosen.len() > 60, "{}", found.chosen.len());
    assert_eq!(bench.kinset(&args).done().ran().len(), 0);
    bench.assert_sound("after the smoke run");
    let page = bench.kinset(&["report", &file, "--profile", "smoke", "--data", &data, "--json"]).done().json;
    let taken = &page["selections"][0]["taken"];
    assert_eq!(taken["pairs"].as_array().unwrap().len(), 8, "eight images of the target are shown");
    assert!(taken["pairs"][0][0]["sight"]["table"]["row"].is_number(), "{taken}");
    assert_eq!(page["selections"][1]["report"]["pick"], "random");
    assert_eq!(page["selections"][1]["taken"]["pairs"], serde_json::json!([]), "at random nothing is taken for anybody");
    assert_eq!(page["selections"][1]["taken"]["lot"].as_array().unwrap().len(), 24);
}

#[test]
fn a_search_killed_at_random_ends_with_the_same_bytes() {
    let text = |out: &str| {
        format!(
            "name = \"s\"\ndevice = \"cpu\"\n[stage.target]\nkind = \"import_features\"\nfile = \"t.csv\"\n\
             [stage.pool]\nkind = \"import_features\"\nfile = \"p.npy\"\n\
             [stage.{out}]\nkind = \"retrieve\"\ntarget = \"target\"\npool = \"pool\"\nk = 5\ndedup = \"none\"\n"
        )
    };
    let bench = Bench::with(&text("matches"));
    bench.write("t.csv", numbered("t", cloud(2000, 4, &[1.0], 0.7, 2)));
    // Ten row groups.
    let mut rng = Seed::new(9).rng();
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (600000, 4), }";
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend((0..2_400_000).flat_map(|_| (rng.normal() as f32).to_le_bytes()));
    bench.write("p.npy", &bytes);
    bench.run(&["--until", "target,pool"]).done();
    let expected = bench.run(&[]).done().digests()["matches.matches"].clone();
    let again = Bench::with(&text("again"));
    for name in ["t.csv", "p.npy"] {
        fs::copy(bench.path(name), again.path(name)).unwrap();
    }
    again.run(&["--until", "target,pool"]).done();
    let (mut killed, mut rng) = (0, Seed::new(3).rng());
    let resumed = loop {
        let running = again.start("run", &["run", "p.toml", "--no-report", "--json", "--checkpoint-every", "0"]);
        std::thread::sleep(std::time::Duration::from_millis(20 + killed * 10 + rng.below(60) as u64));
        if running.kill() {
            killed += 1;
            assert!(killed < 300, "it never gets through");
            continue;
        }
        let events: String =
            event_files(&again.path("artifacts/s/runs")).into_iter().map(|p| fs::read_to_string(p).unwrap()).collect();
        break events.matches("resuming at row").count();
    };
    println!("killed {killed} times, went on {resumed} times");
    assert_eq!(again.run(&[]).done().digests()["again.matches"], expected);
    assert!(killed >= 1);
    again.assert_sound("after all kills");
}

fn curate(bench: &Bench, args: &[&str]) -> Said {
    bench.kinset(&[&["curate", "--save-dir", "out", "--json"], args].concat())
}

fn curated(bench: &Bench) -> Vec<String> {
    let text = fs::read_to_string(bench.path("out/ImageSets/curated.txt")).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_balanced_part_of_a_folder_takes_what_is_rare() {
    let bench = Bench::new();
    for i in 0..30 {
        bench.write(format!("pool/blue/{i}.png"), colored(BLUE, 20 + i));
    }
    for i in 0..3 {
        bench.write(format!("pool/red/{i}.png"), colored(RED, 10 + i));
    }
    let encoder = format!("{ROOT}/tests/golden/onnx/mobile.onnx");
    let args = ["--pool", "pool", "--budget", "6", "--encoder", &encoder, "--clusters", "2", "--materialize", "symlink"];
    let said = curate(&bench, &args).done();
    let names = curated(&bench);
    let red = names.iter().filter(|name| name.starts_with("red/")).count();
    assert_eq!((names.len(), red), (6, 3), "in turn from two clusters: {names:?}");
    let found = &said.json["curated"];
    assert_eq!((&found["counts"]["selected"], &found["images_found"]), (&6.into(), &6.into()));
    let level = &found["levels"][0];
    assert_eq!((&level["clusters"], &level["smallest"], &level["largest"]), (&2.into(), &3.into(), &30.into()));
    for name in &names {
        let link = bench.path("out/curated/images").join(format!("{name}.png"));
        assert_eq!(fs::read(&link).unwrap(), fs::read(bench.path("pool").join(format!("{name}.png"))).unwrap());
    }
    let page = fs::read_to_string(bench.path("out/report.html")).unwrap();
    assert!(page.contains("data-selection=\"curated\"") && page.contains("A random sample"), "the page has pictures");
    let report: Value = serde_json::from_str(&fs::read_to_string(bench.path("out/report.json")).unwrap()).unwrap();
    assert_eq!(report["curated"], *found);
    // Typical images go by the names of files, too.
    let manifest = TableReader::open(&bench.path("out/manifest_curated.parquet"), "manifest").unwrap();
    let typical: Vec<String> = manifest.values("best_target_name").unwrap();
    assert!(typical.iter().all(|name| name.contains(".png")), "{typical:?}");
    // Nothing is new: nothing is computed, no file changes.
    let (before, written) = (outputs(&bench), || fs::metadata(bench.path("out/report.html")).unwrap().modified().unwrap());
    let first = written();
    curate(&bench, &args).done();
    assert!(outputs(&bench) == before && written() == first);
    // A smaller budget is the beginning of it; the links that it does not need go.
    curate(&bench, &[&args[..3], &["2"], &args[4..]].concat()).done();
    assert!(curated(&bench).iter().all(|name| names.contains(name)) && curated(&bench).len() == 2);
    assert_eq!(files_below(&bench.path("out/curated/images")).len(), 2);
}

#[test]
fn a_balanced_part_of_features_is_that_of_the_stage_in_shards_or_not() {
    let bench = Bench::new();
    let mut rows = cloud(180, 4, &[3.0], 0.4, 5);
    rows.extend(cloud(20, 4, &[0.0, 3.0], 0.4, 6));
    let text = numbered("p", rows);
    bench.write("p.csv", &text);
    curate(&bench, &["--pool", "p.csv", "--clusters", "8", "2", "--seed", "3"]).done();
    let names = curated(&bench);
    assert_eq!(names.len(), 20, "a tenth");
    let stored = stored(&bench.path("out/artifacts/curate/curated"));
    let table = SelectionTable::load(&stored).unwrap();
    assert_eq!(table.chosen.iter().map(|chosen| chosen.id.trim_end_matches(".jpg").to_owned()).collect::<Vec<_>>(), names);
    let rare = table.chosen.iter().filter(|chosen| chosen.best.pool >= 180).count();
    assert!((7..=13).contains(&rare), "{rare} of the rare tenth");
    let before = outputs(&bench);
    curate(&bench, &["--pool", "p.csv", "--clusters", "8", "2", "--seed", "3", "--threads", "1", "--artifacts", "other"])
        .done();
    assert!(outputs(&bench) == before, "whatever the number of threads");
    let at = text.match_indices('\n').nth(99).unwrap().0 + 1;
    bench.write("a.csv", &text[..at]);
    bench.write("b.csv", &text[at..]);
    curate(&bench, &["--pool", "a.csv", "b.csv", "--clusters", "8", "2", "--seed", "3"]).done();
    assert_eq!(curated(&bench), names);
    for (args, exit, words) in [
        (&["--pool", "p.csv", "--clusters", "2", "8"][..], 2, "must be numbers that fall"),
        (&["--pool", "p.csv", "--clusters", "500"], 4, "clusters"),
        (&["--pool", "p.csv", "--materialize", "copy"], 2, "`--materialize` needs the pool's images"),
        (&["--pool", "p.csv", "--encoder", "none"], 2, "are for images"),
        (&["--pool", "gone.csv"], 4, "gone.csv"),
        (&["--budget", "5"], 2, "--pool"),
    ] {
        let said = curate(&bench, args);
        assert!(said.exit == exit && said.err.contains(words), "{args:?}: {} {}", said.exit, said.err);
    }
    // Each command spares the files of the other.
    bench.write("t.csv", numbered("t", cloud(5, 4, &[], 1.0, 7)));
    let refused = similar(&bench, &["--nn-factor", "2"]);
    assert!(refused.exit == 2 && refused.err.contains("was not written by `kinset similar`"), "{}", refused.err);
}
