//! The report page, which says what the results say: whole, broken off, failed, without labels, with names that would like to be markup.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use kinset::artifact::Stored;
use kinset::artifact::images::{Images, ImagesInfo, ImagesWriter, Picture};
use kinset::artifact::pixels::Pixels;
use kinset::base::seed::Seed;
use kinset::report::album::Album;
use kinset::report::gather::page::{
    Cluster, Clusters, Colors, Confusion, Map, Neighborhood, Neighborhoods, Page, Part, Point, Shot, Standing,
};
use kinset::report::page::render;
use kinset::store::digest::Digest;
use serde_json::Value;

use super::harness::{Bench, CHEAP, WHOLE, WHOLE_KINDS, methods};

/// The page of a pipeline.
fn page_of(bench: &Bench, pipeline: &str) -> String {
    fs::read_to_string(bench.path(format!("artifacts/{pipeline}/report.html"))).unwrap()
}

/// The scores as they lie in the store.
fn scores(bench: &Bench, pipeline: &str, stage: &str) -> Vec<Value> {
    let text = fs::read_to_string(bench.path(format!("artifacts/{pipeline}/{stage}/scores.json"))).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["content"]["rows"].as_array().unwrap().clone()
}

/// Asserts that a page is one file: nothing in it is loaded from elsewhere.
#[track_caller]
fn assert_alone(html: &str) {
    for found in ["http://", "https://", "@import", "<link rel=\"stylesheet\"", "srcset=", "<iframe", "<object", "<embed"] {
        assert!(!html.contains(found), "{found}");
    }
    let after = |mark: &str| {
        html.match_indices(mark).map(|(at, _)| html[at + mark.len()..].chars().take(24).collect::<String>()).collect::<Vec<_>>()
    };
    for from in after(" src=\"").iter().chain(&after("url(")) {
        assert!(from.starts_with("data:"), "{from}");
    }
    for from in after(" href=\"") {
        assert!(from.starts_with('#') || from.starts_with("data:"), "{from}");
    }
}

/// What stands behind a mark up to the next quote.
fn value<'a>(html: &'a str, mark: &str) -> &'a str {
    between(html, mark, "\"")
}

/// What stands between two marks.
fn between<'a>(html: &'a str, mark: &str, end: &str) -> &'a str {
    let Some((_, rest)) = html.split_once(mark) else { panic!("no `{mark}`") };
    rest.split(end).next().unwrap()
}

#[test]
fn a_run_leaves_a_page_and_a_second_run_leaves_it_alone() {
    let bench = Bench::with(CHEAP);
    let said = bench.run(&["--no-report"]).done();
    assert!(said.json["report"].is_null() && !bench.path("artifacts/cheap/report.html").exists());
    let said = bench.run(&[]).done();
    assert_eq!(said.json["report"], "artifacts/cheap/report.html");
    let html = page_of(&bench, "cheap");
    assert!(html.contains("data-standing=\"complete\""));
    assert_alone(&html);
    let path = bench.path("artifacts/cheap/report.html");
    let written = || fs::metadata(&path).unwrap().modified().unwrap();
    let first = written();
    bench.run(&[]).done();
    assert_eq!(written(), first, "nothing is new, nothing is written");
    bench.run(&["--set", "stage.kmeans.clusters=4"]).done();
    assert_ne!(page_of(&bench, "cheap"), html);
    bench.run(&[]).done();
    let again = bench.kinset(&["report", "p.toml", "--out", "else/where.html"]).done();
    assert_eq!(again.out.trim(), "else/where.html");
    assert_eq!(
        fs::read_to_string(bench.path("else/where.html")).unwrap(),
        page_of(&bench, "cheap"),
        "the same results, the same bytes"
    );
}

#[test]
fn a_page_that_cannot_be_written_costs_no_result() {
    let bench = Bench::with(CHEAP);
    // A folder stands where the page belongs.
    bench.write("artifacts/cheap/report.html/in-the-way", "x");
    let said = bench.run(&[]).done();
    assert_eq!(said.ran().len(), 6);
    assert!(said.err.contains("warning: no report: "), "{}", said.err);
    assert!(said.json["report"].is_null());
    assert_ne!(bench.kinset(&["report", "p.toml"]).exit, 0, "asked for by name, it is a fault");
}

#[test]
fn the_numbers_of_the_page_are_those_of_the_scores() {
    let bench = Bench::with(&WHOLE);
    bench.run(&[]).done();
    let html = page_of(&bench, "whole");
    assert_alone(&html);
    let (_, board) = html.split_once("data-board=\"scores\"").unwrap();
    for (stage, row) in ["kmeans", "cluster", "selflabel", "ruc"].iter().zip(scores(&bench, "whole", "scores")) {
        let (_, line) = board.split_once(&format!("data-row=\"{stage}\"")).unwrap();
        let line = line.split("</tr>").next().unwrap();
        for key in ["acc", "nmi", "ari", "top5", "ece"] {
            let Some(wanted) = row[key].as_f64() else { continue };
            let found: f64 = value(line, &format!("data-name=\"{key}\" data-value=\"")).parse().unwrap();
            assert!((found - wanted).abs() < 1e-12, "{stage} {key}: {found} and {wanted}");
        }
    }
    let at = |mark: &str| html.find(mark).unwrap_or_else(|| panic!("no `{mark}`"));
    let order = [
        "id=\"headline\"",
        "<section id=\"clusters\"",
        "<section id=\"map\"",
        "<section id=\"scores\"",
        "<section id=\"training\"",
    ]
    .map(at);
    assert!(order.is_sorted(), "pictures come before tables and curves: {order:?}");
    let candidates = between(&html, "<p class=\"note\" id=\"candidates\">", "</p>");
    assert!(
        candidates.contains("shows <code><bdi>turtle</bdi></code>") && candidates.contains("<bdi>selflabel</bdi>"),
        "{candidates}"
    );
    // What the page is made of, as data.
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    assert_eq!(page["standing"]["word"], "complete");
    for (place, row) in scores(&bench, "whole", "scores").iter().enumerate() {
        let confusion = &page["confusions"][place];
        let columns: Vec<usize> = serde_json::from_value(confusion["columns"].clone()).unwrap();
        let counts: Vec<Vec<u64>> = serde_json::from_value(confusion["counts"].clone()).unwrap();
        let shares: Vec<Vec<f64>> = serde_json::from_value(confusion["shares"].clone()).unwrap();
        for (class, wanted) in row["confusion"].as_array().unwrap().iter().enumerate() {
            for (at, &cluster) in columns.iter().enumerate() {
                assert_eq!(Some(counts[class][at]), wanted[cluster].as_u64());
            }
            assert!(counts[class].iter().sum::<u64>() == 0 || (shares[class].iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
    let clusters = page["clusters"]["each"].as_array().unwrap();
    let sizes: u64 = clusters.iter().map(|cluster| cluster["size"].as_u64().unwrap()).sum();
    assert_eq!((clusters.len(), sizes), (3, 48));
    assert_eq!(page["clusters"]["classifier"], "turtle");
    assert_eq!(page["map"]["points"].as_array().unwrap().len(), 48);
    let selections = page["selections"].as_array().unwrap();
    let similar = selections.iter().find(|one| one["stage"] == "selection").unwrap();
    assert_eq!(similar["report"]["counts"]["target"], 24);
    for stage in page["stages"].as_array().unwrap() {
        assert_eq!(stage["state"], "fresh");
        assert!(stage["seconds"].as_f64().is_some() && stage["last"] == "ran", "{stage}");
        assert!(!cfg!(target_os = "linux") || stage["peak_memory"].as_u64() > Some(1 << 20), "{stage}");
    }
    let trained: Vec<&str> = page["curves"].as_array().unwrap().iter().map(|one| one["stage"].as_str().unwrap()).collect();
    let is_method = |kind: &str| methods().any(|method| method.kind() == kind);
    let wanted: Vec<&str> = WHOLE_KINDS.iter().filter(|(_, kind)| is_method(kind)).map(|(name, _)| *name).collect();
    assert_eq!(trained, wanted, "every method has a curve");
    for section in
        ["scores", "clusters", "confusion", "calibration", "map", "neighbors", "training", "counts", "selection", "stages"]
    {
        assert!(html.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
}

#[test]
fn accuracy_and_calibration_error_are_those_of_the_scores_of_the_same_images() {
    let text = WHOLE.replace(
        "images = \"data.test\"\nlabels = \"data.test.labels\"",
        "images = \"data.train\"\nlabels = \"data.train.labels\"",
    );
    let bench = Bench::with(&text);
    bench.run(&["--until", "scores,assignments,neighbors"]).done();
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    let row = &scores(&bench, "whole", "scores")[2];
    for (found, wanted) in [
        (&page["calibration"]["ece"], &row["ece"]),
        (&page["calibration"]["accuracy"], &row["acc"]),
        (&page["clusters"]["accuracy"], &row["acc"]),
    ] {
        let (found, wanted) = (found.as_f64().unwrap(), wanted.as_f64().unwrap());
        assert!((found - wanted).abs() < 1e-6, "{found} and {wanted}");
    }
    let sizes: Vec<u64> =
        page["clusters"]["each"].as_array().unwrap().iter().map(|one| one["size"].as_u64().unwrap()).collect();
    assert_eq!(serde_json::json!(sizes), row["cluster_sizes"]);
    assert_eq!(page["standing"]["word"], "partial");
}

#[test]
fn repetitions_share_a_row_with_mean_and_deviation() {
    let bench = Bench::with(&format!("{CHEAP}\n[repeat]\nfrom = \"kmeans\"\nseeds = 3\n"));
    bench.run(&[]).done();
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    let row = &page["scores"][0]["rows"][0];
    assert_eq!((row["seeds"].as_array().unwrap().len(), row["measures"][0]["values"].as_array().unwrap().len()), (3, 3));
    assert!(row["measures"][0]["std"].as_f64().is_some());
    assert!(page_of(&bench, "cheap").contains("over 3 seeds"));
}

#[test]
fn what_has_no_results_is_an_error_that_names_the_place() {
    let bench = Bench::with(&WHOLE);
    for args in [&["report", "p.toml"][..], &["report", "p.toml", "--json"]] {
        let said = bench.kinset(args);
        assert_eq!(said.exit, 5, "{}", said.err);
        assert!(
            said.err.contains("`p.toml` has no results in `artifacts`") && said.err.contains("--artifacts"),
            "{}",
            said.err
        );
        assert_eq!(said.out, "");
    }
    assert!(!bench.path("artifacts/whole").exists(), "no empty page");
    assert!(!bench.path("artifacts/store").exists(), "to look is not to write");
}

#[test]
fn what_failed_says_why_and_shows_the_rest() {
    let bench = Bench::with(CHEAP);
    let said = bench.run(&["--set", "stage.kmeans.clusters=99"]);
    assert_ne!(said.exit, 0);
    let html = page_of(&bench, "cheap");
    assert!(
        html.contains("data-standing=\"failed\"") && html.contains("The last run failed in <code><bdi>kmeans</bdi></code>")
    );
    assert!(html.contains("<code><bdi>kmeans</bdi></code> has no result"), "why the scores could not run");
    assert!(html.contains("hint: "), "and what to do");
    assert!(
        html.contains("<section id=\"neighbors\"") && html.contains("5 neighbors of each image"),
        "what there is, is shown"
    );
    // The file itself, without the bad setting, is only not finished.
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    assert_ne!(page["standing"]["word"], "complete");
}

#[test]
fn what_was_interrupted_says_so_and_shows_the_epochs_it_got_to() {
    let text = WHOLE.replacen("epochs = 2", "epochs = 400", 1);
    let bench = Bench::with(&text);
    let running = bench.start("run", &["run", "p.toml", "--json", "--until", "pretext"]);
    bench.wait_for_an_epoch("whole");
    running.signal("TERM");
    assert_eq!(running.end().exit, 75);
    let html = page_of(&bench, "whole");
    assert!(html.contains("data-standing=\"interrupted\"") && html.contains("was stopped in <code><bdi>pretext</bdi></code>"));
    assert!(html.contains("data-training=\"pretext\"") && html.contains("unfinished"));
    assert_alone(&html);

    // And killed: nobody could say a word.
    let running = bench.start("again", &["run", "p.toml", "--json", "--until", "pretext"]);
    std::thread::sleep(Duration::from_millis(400));
    assert!(running.kill());
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    assert_eq!((&page["standing"]["word"], &page["standing"]["asked"]), (&"interrupted".into(), &false.into()));
}

/// Photos in folders of their class, or all in one.
fn photos(bench: &Bench, names: &[(&str, &str)]) {
    for (number, (class, name)) in names.iter().enumerate() {
        let light = number % 2 * 200;
        let image =
            image::RgbImage::from_fn(12, 9, |x, y| image::Rgb([light as u8 + x as u8, light as u8 + y as u8, number as u8]));
        let mut bytes = Vec::new();
        image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bench.write(Path::new("photos").join(class).join(name), bytes);
    }
}

/// Sorts `photos/` by pixels.
fn sorting(more: &str) -> String {
    format!(
        r#"
name = "photos"
device = "cpu"

[data.photos]
dataset = "folder"
root = "photos"

[stage.pixels]
kind = "pixels"
images = "data.photos"

[stage.features]
kind = "embed"
images = "data.photos"
encoder = "pixels"

[stage.neighbors]
kind = "neighbors"
features = "features"
k = 3

[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "pixels"
clusters = 2

[stage.assignments]
kind = "predict"
images = "data.photos"
classifier = "kmeans"
{more}"#
    )
}

#[test]
fn without_labels_there_are_clusters_and_no_scores() {
    let bench = Bench::with(&sorting(""));
    let names: Vec<String> = (0..20).map(|number| format!("{number}.png")).collect();
    photos(&bench, &names.iter().map(|name| ("", name.as_str())).collect::<Vec<_>>());
    bench.run(&[]).done();
    let html = page_of(&bench, "photos");
    assert!(html.contains("scores need images with labels"));
    assert_eq!(html.matches("<article class=\"cluster\"").count(), 2);
    assert!(html.contains("url(data:image/") && !html.contains("purity"), "pictures, and nothing that only labels can say");
    assert!(html.contains("<b>20 images</b> of <bdi>data.photos</bdi> sorted into <b>2 clusters</b> by"), "{html}");
    assert!(!html.contains("Measured on") && !html.contains("id=\"candidates\""), "no classes, and one classifier");
    let wholes: BTreeMap<usize, String> =
        serde_json::from_str(between(&html, "<script id=\"wholes\" type=\"application/json\">", "</script>")).unwrap();
    assert_eq!(wholes.len(), 20, "no picture is a square, so each can be seen whole");
    assert!(wholes.values().all(|uri| uri.starts_with("data:image/jpeg;base64,")));
    assert!(wholes.keys().all(|number| html.contains(&format!("data-whole=\"{number}\""))));
    assert!(html.contains("not probabilities"), "centroids have no calibration");
    let rows = |kind: &str| html.matches(&format!("<span class=\"kind\">{kind}</span>")).count();
    assert_eq!((rows("all"), rows("least confident")), (2, 0), "ten images of a cluster stand there once");
    assert_alone(&html);
    let page = bench.kinset(&["report", "p.toml", "--json"]).done().json;
    assert!(page["scores"]["absent"].is_string() && page["clusters"]["accuracy"].is_null());
}

#[test]
fn pictures_of_features_that_were_brought_along_are_found_by_name() {
    let bench = Bench::with(
        r#"
name = "brought"
device = "cpu"

[data.photos]
dataset = "folder"
root = "photos"

[stage.features]
kind = "import_features"
file = "f.csv"

[stage.kmeans]
kind = "kmeans"
features = "features"
clusters = 2

[stage.assignments]
kind = "predict"
features = ["features"]
classifier = "kmeans"
"#,
    );
    let names: Vec<String> = (0..12).map(|number| format!("{number}.png")).collect();
    photos(&bench, &names.iter().map(|name| ("", name.as_str())).collect::<Vec<_>>());
    // Some of the images, and not in their order.
    let brought = [11, 8, 5, 4, 2];
    let table = |name: &dyn Fn(usize) -> String| -> String {
        let line = |&number: &usize| format!("{},{}.5,{}.25,1.0\n", name(number), number % 2 * 4, number % 2 * 7 + 1);
        brought.iter().map(line).collect::<Vec<_>>().concat()
    };
    bench.write("f.csv", table(&|number| format!("{number}.png")));
    bench.run(&[]).done();
    let html = page_of(&bench, "brought");
    for number in 0..12 {
        let shown = html.contains(&format!("title=\"{number}.png · cluster"));
        assert_eq!(shown, brought.contains(&number), "{number}");
    }
    // Names of nothing that is there are no pictures.
    bench.write("f.csv", table(&|number| format!("other-{number}.png")));
    bench.run(&[]).done();
    let html = page_of(&bench, "brought");
    assert!(html.contains("The images cannot be shown: ") && html.contains("neither by name nor by path"), "{html}");
    assert!(!html.contains("url(data:image/"));
}

#[test]
fn names_that_would_like_to_be_markup_stay_text() {
    let classes = ["<b>cat & \"dog\"", "\u{5d7}\u{5ea}\u{5d5}\u{5dc} \u{202e}fox", "🦊 'x' `y`"];
    let files = [
        "\"><img src=x onerror=alert(1)>.png",
        "<script>alert(2)<script>.png",
        "</style>\u{2028}&amp;.png".trim_start_matches("</"),
        "{{7*7}}.png",
    ];
    let mut names = Vec::new();
    for class in classes {
        names.extend(files.iter().map(|file| (class, *file)));
    }
    let bench = Bench::with(&sorting(
        "\n[stage.scores]\nkind = \"evaluate\"\nclassifiers = [\"kmeans\"]\nimages = \"data.photos\"\nlabels = \"data.photos.labels\"\n",
    ));
    photos(&bench, &names);
    bench.run(&[]).done();
    let html = page_of(&bench, "photos");
    assert_alone(&html);
    for wicked in ["<img src=x", "<b>cat", "<script>alert", "onerror=alert(1)>.png\""] {
        assert!(!html.contains(wicked), "{wicked}");
    }
    assert!(html.contains("&lt;b&gt;cat &amp; &quot;dog&quot;") && html.contains("🦊 'x' `y`"));
    assert!(html.contains("<bdi>\u{5d7}\u{5ea}\u{5d5}\u{5dc} \u{202e}fox</bdi>"), "another direction is kept to itself");
    assert_eq!(html.matches("<script").count(), 3, "the data of the map, whole pictures, and the page's own");
    for plot in ["confusion", "prototypes"] {
        let said = bench.kinset(&["plot", "p.toml", plot]).done();
        let svg = fs::read_to_string(bench.path(said.out.trim())).unwrap();
        assert!(!svg.contains("<b>cat") && svg.contains("&lt;b&gt;cat"), "{plot}");
    }
}

#[test]
fn single_figures_are_written_under_the_names_of_the_field() {
    let bench = Bench::with(&WHOLE);
    assert_eq!(bench.kinset(&["plot", "p.toml", "confusion"]).exit, 5, "nothing ran yet");
    bench.run(&[]).done();
    for (plot, file) in
        [("confusion", "confusion_matrix.svg"), ("prototypes", "prototypes.svg"), ("calibration", "calibration.svg")]
    {
        let said = bench.kinset(&["plot", "p.toml", plot]).done();
        assert_eq!(said.out.trim(), format!("artifacts/whole/{file}"));
        let svg = fs::read_to_string(bench.path(format!("artifacts/whole/{file}"))).unwrap();
        assert!(
            svg.starts_with("<?xml")
                && svg.contains("xmlns=\"http://www.w3.org/2000/svg\"")
                && svg.trim_end().ends_with("</svg>")
        );
    }
    bench.kinset(&["plot", "p.toml", "prototypes", "--out", "deep/p.png"]).done();
    let png = image::load_from_memory(&fs::read(bench.path("deep/p.png")).unwrap()).unwrap();
    assert_eq!((png.width(), png.height()), (3 * 12, 12), "three prototypes as they are");
    let other = bench.kinset(&["plot", "p.toml", "confusion", "--stage", "kmeans", "--out", "k.svg"]).done();
    assert_eq!(other.out.trim(), "k.svg");
    assert!(fs::read_to_string(bench.path("k.svg")).unwrap().contains("Confusion matrix of kmeans"));
    assert_eq!(bench.kinset(&["plot", "p.toml", "confusion", "--out", "c.png"]).exit, 2);
    assert_eq!(bench.kinset(&["plot", "p.toml", "confusion", "--stage", "nobody"]).exit, 5);
}

/// A page of noise, which no format makes small.
fn noise(clusters: usize, images: usize, side: usize, per_row: usize) -> (Page, Stored<Images>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = ImagesWriter::create(dir.path(), &ImagesInfo::new("noise")).unwrap();
    for number in 0..images {
        let mut rng = Seed::new(number as u64).rng();
        let data = (0..side * side * 3).map(|_| rng.bits32() as u8).collect();
        writer.push(Picture::Raw(Pixels::new(side, side, 3, data))).unwrap();
    }
    let (draft, ids) = writer.finish().unwrap();
    let stored = Stored::new(draft.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"noise"), "noise");
    let shot = |row: usize| {
        let row = row % images;
        let class = Some(format!("class number {}", row % clusters));
        Shot {
            row: row as u32,
            id: ids[row].clone(),
            cluster: (row % clusters) as i32,
            confidence: Some(0.5),
            class,
            ..Shot::default()
        }
    };
    let shots = |from: usize, count: usize| (from..from + count).map(shot).collect::<Vec<_>>();
    let each = (0..clusters).map(|number| Cluster {
        number,
        size: 50,
        confidence: Some(0.7),
        name: None,
        class: Some(format!("class number {number}")),
        classes: vec![(format!("class number {number}"), 30), ("another".into(), 20)],
        purity: Some(0.6),
        prototype: Some(shot(number)),
        most: shots(number * 9, per_row),
        least: shots(number * 9 + 3, per_row),
        random: shots(number * 9 + 6, per_row),
    });
    let counts: Vec<Vec<u64>> = (0..clusters)
        .map(|a| (0..clusters).map(|b| if a == b { 30 } else { u64::from((a * 7 + b).is_multiple_of(50)) }).collect())
        .collect();
    let shares = counts.iter().map(|row| row.iter().map(|&n| n as f64 / row.iter().sum::<u64>() as f64).collect()).collect();
    let confusion = Confusion {
        measured_by: "scores".into(),
        stage: "scan".into(),
        images: "noise".into(),
        main: true,
        classes: (0..clusters).map(|number| format!("class number {number}")).collect(),
        columns: (0..clusters).collect(),
        matched: (0..clusters).map(Some).collect(),
        counts,
        shares,
        top: Vec::new(),
    };
    let page = Page {
        duplicates: None,
        near: Vec::new(),
        outliers: None,
        pipeline: "noise".into(),
        file: "noise.toml".into(),
        profile: None,
        fingerprint: String::new(),
        version: String::new(),
        seed: 1,
        seeds: Vec::new(),
        device: "cpu".into(),
        standing: Standing::Complete,
        run: None,
        stages: Vec::new(),
        wires: Vec::new(),
        warnings: Vec::new(),
        scores: Part::absent("none"),
        curves: Part::absent("none"),
        confusions: Part::Shown(vec![confusion]),
        clusters: Part::Shown(Clusters {
            stage: "assignments".into(),
            classifier: Some("scan".into()),
            images: "noise".into(),
            count: 50 * clusters,
            unassigned: 0,
            prototypes_by: "lot".into(),
            matching: None,
            groups: None,
            accuracy: None,
            confidence: vec![1; 20],
            median_confidence: 0.5,
            each: each.collect(),
        }),
        calibration: Part::absent("none"),
        neighbors: Part::Shown(Neighborhoods {
            stage: "neighbors".into(),
            k: 20,
            metric: "cosine".into(),
            exact: false,
            recall: Some((0.9931, 1000)),
            purity: None,
            similarity: (0.9, 0.8),
            shown: (0..12).map(|row| Neighborhood { query: shot(row), neighbors: shots(row + 1, 12) }).collect(),
        }),
        map: Part::Shown(Map {
            stage: "features".into(),
            dim: 8,
            of: images,
            share: (0.5, 0.2),
            colors: Colors::Clusters,
            points: (0..2000)
                .map(|row| Point {
                    shot: shot(row),
                    color: (row % clusters) as i32,
                    pca: (row as f64, 1.0),
                    tsne: (1.0, row as f64),
                })
                .collect(),
        }),
        selections: Vec::new(),
        counts: Vec::new(),
        varied: Vec::new(),
    };
    (page, stored, dir)
}

#[test]
fn a_page_of_ten_clusters_stays_below_5_mb_whatever_the_images() {
    let (page, images, _dir) = noise(10, 2000, 96, 14);
    let album = Album::of(&page, Some(&images), |_| None);
    assert_eq!(album.fault(), None);
    let html = render(&page, &album);
    println!("{} bytes", html.len());
    assert!(html.len() < 5_000_000, "{}", html.len());
    assert_eq!(html.matches("<article class=\"cluster\"").count(), 10);
    assert!(html.contains("data-value=\"0.9931\"") && html.contains("of the true ones, measured on 1,000 images"));
}

#[test]
fn a_page_of_a_thousand_clusters_stays_below_20_mb_and_can_be_searched() {
    let (page, images, _dir) = noise(1000, 9000, 40, 3);
    let album = Album::of(&page, Some(&images), |_| None);
    let html = render(&page, &album);
    println!("{} bytes", html.len());
    assert!(html.len() < 20_000_000, "{}", html.len());
    assert_eq!(html.matches("<details class=\"cluster\"").count(), 1000);
    assert!(
        html.contains("id=\"find\"") && html.contains("<img class=\"matrix\" src=\"data:image/png"),
        "the matrix is a picture"
    );
    assert_alone(&html);
}
