//! Data and weights that come in, results that go out: `data fetch`, `pretrained`, `predict`, `export`, and STL-10 from its real files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use flate2::Compression;
use flate2::write::GzEncoder;
use kinset::base::unit::hex;
use sha2::{Digest, Sha256};

use super::harness::{Bench, ROOT};
use super::published::write_stl10;

/// A folder of photos of two kinds, and a pipeline that sorts them by their pixels.
pub(crate) fn photos() -> Bench {
    let bench = Bench::with(
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

[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "pixels"
clusters = 2

[stage.assignments]
kind = "predict"
images = "data.photos"
classifier = "kmeans"
"#,
    );
    for number in 0..24_u8 {
        bench.write(format!("photos/{}/{number}.png", ["dark", "light"][usize::from(number % 2)]), png(number));
    }
    bench
}

/// Even numbers are dark above, odd ones below; no two are equal.
fn png(number: u8) -> Vec<u8> {
    let image = image::RgbImage::from_fn(8, 8, |x, y| {
        let light = (y < 4) == (number % 2 == 1);
        image::Rgb([if light { 220 } else { 20 } + (x as u8), number, number / 2])
    });
    let mut bytes = Vec::new();
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// `id` → the rest of the line.
fn by_id(csv: &str) -> BTreeMap<String, Vec<String>> {
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("id,row,path,cluster,confidence,entropy,second_cluster"));
    lines
        .map(|line| {
            let fields: Vec<String> = line.split(',').map(str::to_owned).collect();
            (fields[0].clone(), fields[1..].to_vec())
        })
        .collect()
}

fn text(bench: &Bench, name: &str) -> String {
    fs::read_to_string(bench.path(name)).unwrap()
}

#[test]
fn loose_pictures_go_where_the_pipeline_puts_them() {
    let bench = photos();
    let before = bench.kinset(&["predict", "p.toml", "photos"]);
    assert_eq!(before.exit, 5, "there is no classifier yet: {}", before.err);
    bench.run(&[]).done();
    bench.kinset(&["export", "p.toml", "assignments", "--output", "stage.csv"]).done();
    let stage = by_id(&fs::read_to_string(bench.path("stage.csv")).unwrap());
    let said = bench.kinset(&["predict", "p.toml", "photos"]).done();
    let loose = by_id(&said.out);
    assert_eq!(loose.len(), 24);
    for (id, fields) in &loose {
        assert_eq!(fields[2..], stage[id][2..], "the same cluster and confidence as in the pipeline: {id}");
        assert!(fields[1].ends_with(&stage[id][1]), "the same file: {} and {}", fields[1], stage[id][1]);
    }
    let clusters: Vec<&str> = loose.values().map(|fields| fields[2].as_str()).collect();
    assert_eq!(clusters.iter().filter(|cluster| **cluster == "0").count(), 12);
    assert!(said.err.contains("24 images by `kmeans`"), "{}", said.err);

    // Files, a table, other forms.
    let table = "artifacts/photos/data.photos/images.parquet";
    let said = bench.kinset(&["predict", "p.toml", table, "photos/dark/0.png", "--format", "jsonl"]).done();
    let lines: Vec<serde_json::Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 25);
    assert_eq!(lines[24]["path"], "photos/dark/0.png");
    assert!(lines[24]["id"].as_str().unwrap().ends_with("-1"), "it is in the table too: {}", lines[24]);
    let said = bench.kinset(&["predict", "p.toml", "photos", "--output", "out.parquet", "--stage", "kmeans", "--json"]).done();
    assert_eq!(said.json["pictures"], 24);
    let seen = bench.kinset(&["inspect", "out.parquet", "--json"]).done();
    assert!(seen.out.contains("\"path\"") && seen.out.contains("\"rows\": 24"), "{}", seen.out);
    assert_eq!(bench.kinset(&["predict", "p.toml", "photos", "--format", "parquet"]).exit, 2);
    assert_eq!(bench.kinset(&["predict", "p.toml", "photos", "--stage", "kmeanz"]).exit, 2);
    assert_eq!(bench.kinset(&["predict", "p.toml", "nowhere"]).exit, 4);
}

#[test]
fn a_look_at_a_result_names_the_files_of_its_images() {
    let bench = photos();
    bench.run(&[]).done();
    for stage in ["assignments", "features", "data.photos"] {
        let shown = bench.kinset(&["inspect", "p.toml", stage, "--rows", "24"]).done().out;
        let missing: Vec<usize> = (0..24).filter(|number| !shown.contains(&format!("/{number}.png"))).collect();
        assert!(missing.is_empty(), "{stage} lacks {missing:?}: {shown}");
    }
    bench.kinset(&["export", "p.toml", "assignments", "--output", "stage.csv"]).done();
    let stage = by_id(&fs::read_to_string(bench.path("stage.csv")).unwrap());
    let seen = bench.kinset(&["inspect", "p.toml", "assignments", "--rows", "3", "--json"]).done().json;
    let content = &seen[0]["content"];
    let paths = content["paths"].as_array().unwrap();
    assert_eq!(paths.len(), 3);
    for (row, path) in content["first_rows"].as_array().unwrap().iter().zip(paths) {
        assert_eq!(path.as_str(), Some(stage[row[0].as_str().unwrap()][1].as_str()), "joined by id");
    }
    // Weights are no rows of images.
    assert!(!bench.kinset(&["inspect", "p.toml", "kmeans"]).done().out.contains(".png"));
}

#[test]
fn copies_and_outliers_are_listed_with_their_files_and_shown() {
    let bench = photos();
    let more = "\n[stage.neighbors]\nkind = \"neighbors\"\nfeatures = \"features\"\nk = 4\n\n[stage.duplicates]\nkind = \"duplicates\"\n\
                images = \"data.photos\"\nsimilarity = 1.0\n\n[stage.outliers]\nkind = \"outliers\"\nneighbors = \"neighbors\"\n\
                assignments = \"assignments\"\n";
    let pipeline = fs::read_to_string(bench.path("p.toml")).unwrap();
    bench.write("p.toml", format!("{pipeline}{more}"));
    let picture = image::load_from_memory(&png(3)).unwrap();
    bench.write("photos/light/3 (copy).png", png(3));
    picture.save_with_format(bench.path("photos/dark/3 as bitmap, again.bmp"), image::ImageFormat::Bmp).unwrap();
    let odd = image::RgbImage::from_fn(8, 8, |x, y| image::Rgb([if (x + y) % 2 == 0 { 255 } else { 0 }, 0, 90]));
    odd.save_with_format(bench.path("photos/dark/odd.png"), image::ImageFormat::Png).unwrap();
    let said = bench.run(&[]).done();
    assert!(said.err.contains("duplicates: 2 images repeat others, in 1 group"), "{}", said.err);
    bench.kinset(&["export", "p.toml", "duplicates", "--output", "copies.csv"]).done();
    let lines: Vec<Vec<String>> = fs::read_to_string(bench.path("copies.csv"))
        .unwrap()
        .lines()
        .map(|line| line.split(',').map(str::to_owned).collect())
        .collect();
    assert_eq!(lines[0], ["group", "kept", "path", "id", "row", "exact", "similarity"]);
    assert_eq!((lines.len(), &lines[1][..3]), (4, &["0", "true", "light/3.png"].map(str::to_owned)[..]), "{lines:?}");
    assert!(lines[2..].iter().all(|line| line[1] == "false" || line[2].starts_with('"')), "{lines:?}");
    let text = fs::read_to_string(bench.path("copies.csv")).unwrap();
    assert!(
        text.contains("0,false,\"dark/3 as bitmap, again.bmp\",") && text.contains("0,false,light/3 (copy).png,"),
        "{text}"
    );

    bench.kinset(&["export", "p.toml", "outliers", "--output", "odd.jsonl"]).done();
    let first: Vec<serde_json::Value> =
        fs::read_to_string(bench.path("odd.jsonl")).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((first.len(), &first[0]["path"], &first[0]["rank"]), (27, &"dark/odd.png".into(), &1.into()));
    assert!(first.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
    assert!(first[0]["confidence"].as_f64().is_some_and(|sure| sure > 0.0) && first[0]["cluster"].is_i64(), "{}", first[0]);
    let said = bench.kinset(&["export", "p.toml", "outliers", "--output", "folder"]);
    assert_eq!(said.exit, 2, "{}", said.err);
    assert!(said.err.contains("cannot write outliers to `folder`") && said.err.contains(".jsonl"), "{}", said.err);
    let page = fs::read_to_string(bench.path("artifacts/photos/report.html")).unwrap();
    assert!(page.contains("<section id=\"duplicates\">") && page.contains("<section id=\"outliers\">"));
    assert!(page.contains("dark/3 as bitmap, again.bmp") && page.contains("2 images"), "copies have their names");
}

#[test]
fn new_pictures_look_as_those_of_the_source_do() {
    let bench = photos();
    let pipeline = fs::read_to_string(bench.path("p.toml")).unwrap();
    let clear = image::RgbaImage::from_fn(8, 8, |x, y| image::Rgba([9, 9, 9, if y < 4 { 255 } else { x as u8 }]));
    clear.save_with_format(bench.path("photos/dark/clear.png"), image::ImageFormat::Png).unwrap();
    let told = |background: &str| {
        bench.write("p.toml", pipeline.replace("root = \"photos\"\n", &format!("root = \"photos\"\n{background}")));
        let read = bench.run(&[]).done().err;
        let inside = bench.kinset(&["export", "p.toml", "assignments", "--output", "stage.csv"]).done();
        let stage = by_id(&fs::read_to_string(bench.path("stage.csv")).unwrap());
        let own = stage.values().find(|fields| fields[1] == "dark/clear.png").unwrap();
        let loose = bench.kinset(&["predict", "p.toml", "photos/dark/clear.png"]).done().out;
        let said = by_id(&loose).into_values().next().unwrap();
        assert_eq!(said[2..], own[2..], "{background}: {}{}", read, inside.err);
        (read, said[3].clone())
    };
    let (white, black) = (told(""), told("background = \"black\"\n"));
    assert!(white.0.contains("1 with transparency, laid over white"), "{}", white.0);
    assert!(black.0.contains("1 with transparency, laid over black"), "{}", black.0);
    assert_ne!(white.1, black.1, "it is another picture");
}

#[test]
fn a_broken_picture_is_named_and_stops_or_is_left_out() {
    let bench = photos();
    bench.run(&[]).done();
    let whole = png(40);
    bench.write("more/a.png", &whole);
    bench.write("more/b.png", &whole[..30]);
    bench.write("more/c.jpg", "<html>");
    bench.write("more/notes.txt", "no picture, and not taken for one");
    let said = bench.kinset(&["predict", "p.toml", "more", "--output", "out.csv"]);
    assert_eq!(said.exit, 4);
    assert!(said.err.contains("b.png") && said.err.contains("--skip-broken"), "{}", said.err);
    assert!(!bench.path("out.csv").exists(), "nothing half-written under the name");
    let said = bench.kinset(&["predict", "p.toml", "more", "--output", "out.csv", "--skip-broken"]).done();
    assert!(said.err.contains("b.png") && said.err.contains("c.jpg") && said.err.contains("2 left out"), "{}", said.err);
    assert_eq!(by_id(&fs::read_to_string(bench.path("out.csv")).unwrap()).len(), 1);
    let said = bench.kinset(&["predict", "p.toml", "more/c.jpg", "--skip-broken"]);
    assert_eq!(said.exit, 4, "none of them: {}", said.err);
}

#[test]
fn pictures_are_sorted_into_one_folder_per_cluster() {
    let bench = photos();
    bench.run(&[]).done();
    bench.kinset(&["export", "p.toml", "assignments", "--output", "linked"]).done();
    let mut seen = 0;
    for cluster in ["0", "1"] {
        let mut kinds = Vec::new();
        for entry in fs::read_dir(bench.path("linked").join(cluster)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
            let number: u8 = name.split(['_', '.']).nth(1).unwrap().parse().unwrap();
            assert_eq!(fs::read(&path).unwrap(), png(number), "{name}");
            kinds.push(name.split('_').next().unwrap().to_owned());
            seen += 1;
        }
        kinds.dedup();
        assert_eq!(kinds.len(), 1, "a cluster of both kinds: {kinds:?}");
    }
    assert_eq!(seen, 24);
    let said = bench.kinset(&["export", "p.toml", "assignments", "--output", "linked"]);
    assert_eq!(said.exit, 2, "what is there is not mixed with: {}", said.err);
    // Copies come from the store: the photos may be gone.
    bench.kinset(&["export", "p.toml", "assignments", "--output", "copied", "--copy", "--json"]).done();
    let copy = bench.path("copied/0");
    assert!(!fs::symlink_metadata(fs::read_dir(copy).unwrap().next().unwrap().unwrap().path()).unwrap().is_symlink());
    assert_eq!(bench.kinset(&["export", "p.toml", "assignments", "--output", "x.xlsx"]).exit, 2);
    let said = bench.kinset(&["export", "p.toml", "data.photos", "--output", "x"]);
    assert!(said.err.contains("it gives"), "{}", said.err);
}

#[test]
fn features_and_neighbors_leave_as_arrays_and_come_back_the_same() {
    let bench = photos();
    let pipeline = text(&bench, "p.toml");
    bench.write("p.toml", format!("{pipeline}\n[stage.neighbors]\nkind = \"neighbors\"\nfeatures = \"features\"\nk = 3\n"));
    bench.kinset(&["run", "p.toml"]).done();
    let export = |pipeline: &str, stage: &str, file: &str| bench.kinset(&["export", pipeline, stage, "--output", file]);
    for file in ["f.npy", "f.csv", "f.safetensors", "f.parquet", "projector"] {
        export("p.toml", "features", file).done();
    }
    assert!(bench.path("projector/projector_config.pbtxt").is_file());
    let back = |file: &str| format!("[stage.features]\nkind = \"import_features\"\nfile = \"{file}\"\nnormalize = false\n");
    for (file, more) in [("f.npy", "names = \"f.names.txt\"\n"), ("f.csv", ""), ("f.parquet", "")] {
        bench.write("back.toml", format!("name = \"back\"\n{}{more}", back(file)));
        bench.kinset(&["run", "back.toml"]).done();
        export("back.toml", "features", "back.csv").done();
        assert_eq!(text(&bench, "back.csv"), text(&bench, "f.csv"), "{file}");
    }
    for (file, more) in
        [("n.npy", &[][..]), ("own.npy", &["--with-self"]), ("n.csv", &[]), ("n.jsonl", &[]), ("n.parquet", &[])]
    {
        bench.kinset(&[&["export", "p.toml", "neighbors", "--output", file], more].concat()).done();
    }
    let edges = text(&bench, "n.csv");
    assert_eq!((edges.lines().next(), edges.lines().count()), (Some("source,target,rank,similarity"), 1 + 24 * 3));
    let rows = |file: &str, width: usize| -> Vec<Vec<i64>> {
        let bytes = fs::read(bench.path(file)).unwrap();
        let data = &bytes[bytes.len() - 24 * width * 8..];
        let numbers: Vec<i64> = data.as_chunks().0.iter().map(|number| i64::from_le_bytes(*number)).collect();
        numbers.chunks(width).map(<[i64]>::to_vec).collect()
    };
    for (row, (with, without)) in (0..).zip(rows("own.npy", 4).iter().zip(rows("n.npy", 3))) {
        assert_eq!((with[0], &with[1..]), (row, &without[..]));
    }
    for (stage, file, more) in
        [("features", "x.xlsx", None), ("neighbors", "folder", None), ("neighbors", "x.csv", Some("--with-self"))]
    {
        let mut args = vec!["export", "p.toml", stage, "--output", file];
        args.extend(more);
        assert_eq!(bench.kinset(&args).exit, 2, "{stage} {file}");
    }
    fs::remove_file(bench.path("f.npy")).unwrap();
    export("p.toml", "features", "f.npy").done();
    fs::remove_file(bench.path("f.npy")).unwrap();
    bench.write("f.names.txt", "somebody's");
    let said = export("p.toml", "features", "f.npy");
    assert!(said.exit == 2 && said.err.contains("f.names.txt"), "{}", said.err);
}

#[test]
fn exports_and_results_below_a_source_s_root_are_not_read_again() {
    let bench = photos();
    let pipeline = fs::read_to_string(bench.path("p.toml")).unwrap();
    bench.write("p.toml", pipeline.replace("root = \"photos\"", "root = \".\""));
    bench.write("photos/dark/@eaDir/0.png/SYNOPHOTO_THUMB_M.png", png(99));
    let first = bench.run(&[]).done();
    assert!(first.err.contains("24 images (PNG), 1 class by folder: photos"), "{}", first.err);
    assert!(first.err.contains("1 × folder @eaDir") && first.err.contains("`labels = false`"), "{}", first.err);
    bench.kinset(&["export", "p.toml", "assignments", "--output", "sorted"]).done();
    bench.kinset(&["export", "p.toml", "assignments", "--output", "copied", "--copy"]).done();
    let again = bench.run(&[]).done();
    assert_eq!((again.ran().len(), again.digests()), (0, first.digests()));
    let said = bench.kinset(&["data", "check", "."]).done();
    assert!(
        said.out.contains("2 × folder exported by kinset") && said.out.contains("1 × folder of kinset's results"),
        "{}",
        said.out
    );
}

const NETWORK: &str = r#"
name = "network"
seed = 1
device = "cpu"
[data.train]
dataset = "synthetic"
split = "train"
images = 48
classes = 3
size = 12
[stage.pretext]
kind = "simclr"
images = "data.train"
epochs = 2
batch = 16
network = { backbone = "resnet_tiny", width = 8 }
[stage.features]
kind = "embed"
images = "data.train"
encoder = "pretext"
[stage.neighbors]
kind = "neighbors"
features = "features"
k = 5
[stage.cluster]
kind = "scan"
images = "data.train"
encoder = "pretext"
neighbors = "neighbors"
clusters = 3
heads = 2
epochs = 2
batch = 16
[stage.assignments]
kind = "predict"
images = "data.train"
classifier = "cluster"
"#;

#[test]
fn weights_that_were_exported_come_back_to_the_same_features_and_assignments() {
    let bench = Bench::with(NETWORK);
    let first = bench.run(&[]).done().digests();
    for (stage, file) in [("pretext.encoder", "pretext.safetensors"), ("cluster", "cluster.safetensors")] {
        bench.kinset(&["export", "p.toml", stage, "--output", file]).done();
        assert!(bench.path(file).with_extension("json").is_file(), "the card beside it");
    }
    let card: serde_json::Value = serde_json::from_str(&fs::read_to_string(bench.path("cluster.json")).unwrap()).unwrap();
    let head = card["classifier"]["head"].as_u64().unwrap();
    let again = format!(
        r#"{NETWORK}
[stage.pretext_again]
kind = "pretrained"
images = "data.train"
file = "pretext.safetensors"
stem = "cifar"
[stage.features_again]
kind = "embed"
images = "data.train"
encoder = "pretext_again"
[stage.cluster_again]
kind = "pretrained"
images = "data.train"
file = "cluster.safetensors"
stem = "cifar"
head = {head}
[stage.assignments_again]
kind = "predict"
images = "data.train"
classifier = "cluster_again.classifier"
"#
    );
    bench.write("p.toml", again);
    let second = bench.run(&[]).done().digests();
    assert_eq!(second["features_again.features"], first["features.features"]);
    assert_eq!(second["assignments_again.assignments"], first["assignments.assignments"]);
    assert_eq!(second["pretext_again.encoder"], first["pretext.encoder"], "bit by bit");
    let said = bench.kinset(&["export", "p.toml", "cluster", "--output", "x.safetensors", "--names", "moco"]);
    assert!(said.exit == 2 && said.err.contains("cannot store `cluster_head.0"), "{}", said.err);
}

/// AND's AlexNet of PyTorch's own file, two layers of it, and what is done with them.
const ALEXNET: &str = r#"
name = "alexnet"
device = "cpu"
[data.d]
dataset = "synthetic"
images = 40
classes = 2
size = 32
channels = 3
[stage.net]
kind = "pretrained"
images = "data.d"
file = "net.ckpt"
[stage.features]
kind = "embed"
images = "data.d"
encoder = "net"
[stage.conv5]
kind = "embed"
images = "data.d"
encoder = "net"
layer = "conv5"
[stage.linear]
kind = "linear_eval"
bank = "conv5"
bank_labels = "data.d.labels"
queries = "conv5"
query_labels = "data.d.labels"
[stage.kmeans]
kind = "kmeans"
features = "features"
encoder = "net"
clusters = 2
"#;

#[test]
fn ands_alexnet_is_read_used_layer_by_layer_and_goes_back_under_ands_names() {
    let bench = Bench::with(ALEXNET);
    bench.write("net.ckpt", fs::read(format!("{ROOT}/tests/golden/alexnet/cifar.ckpt")).unwrap());
    let first = bench.run(&[]).done();
    let inner = bench.kinset(&["inspect", "p.toml", "conv5", "--json"]).done().out;
    assert!(inner.contains(r#"\"layer\":\"conv5\""#), "{inner}");
    bench.kinset(&["export", "p.toml", "net.encoder", "--output", "net.safetensors", "--names", "and"]).done();
    let weights = String::from_utf8_lossy(&fs::read(bench.path("net.safetensors")).unwrap()).into_owned();
    for name in ["features.0.weight", "fc1.1.running_mean", "projection.0.bias"] {
        assert!(weights.contains(&format!("\"{name}\"")), "{name}");
    }
    for (stage, file) in [("net.encoder", "net.onnx"), ("kmeans", "kmeans.onnx")] {
        bench.kinset(&["export", "p.toml", stage, "--output", file]).done();
    }
    bench.write("p.toml", ALEXNET.replace("net.ckpt", "net.safetensors"));
    let second = bench.run(&[]).done();
    assert_eq!(second.digests()["net.encoder"], first.digests()["net.encoder"], "bit by bit");
    let loose = fs::read(format!("{ROOT}/tests/golden/dataset/rgb.png")).unwrap();
    bench.write("loose/a.png", loose);
    bench.kinset(&["predict", "p.toml", "loose", "--stage", "kmeans"]).done();

    // What is no layer is told before anything runs; what this network lacks, with its layers.
    let with = |more: &str| bench.kinset(&["run", "p.toml", "--set", more]);
    let said = with("stage.conv5.layer=konv5");
    assert!(said.exit == 3 && said.err.contains("is no layer"), "{}", said.err);
    let said = with("stage.conv5.layer=conv6");
    assert!(said.exit == 4 && said.err.contains("no layer `conv6`") && said.err.contains("`conv5`, `fc1`"), "{}", said.err);
    // Images of another size, layers that differ, and heads on a layer inside.
    let said = with("stage.net.size=96");
    assert!(said.exit == 3 && said.err.contains("32 to 39 pixels"), "{} {}", said.exit, said.err);
    let said = with("stage.linear.queries=\"features\"");
    assert!(said.exit == 4, "{}", said.err);
    let said = with("stage.kmeans.features=\"conv5\"");
    assert!(said.exit == 4 && said.err.contains("are the layer `conv5` of its encoder"), "{}", said.err);
}

#[test]
fn a_network_becomes_one_onnx_file_and_says_what_goes_in_and_comes_out() {
    let bench = Bench::with(NETWORK);
    bench.run(&[]).done();
    let export = |stage: &str, file: &str| bench.kinset(&["export", "p.toml", stage, "--output", file, "--json"]);
    let said = export("cluster", "cluster.onnx").done();
    assert!(said.err.contains("images [batch, 1, 12, 12] → probabilities [batch, 3], cluster [batch]"), "{}", said.err);
    assert_eq!(said.json["input"]["shape"], serde_json::json!(["batch", 1, 12, 12]));
    assert_eq!(said.json["outputs"][0]["name"], "probabilities");
    let card: serde_json::Value = serde_json::from_str(&fs::read_to_string(bench.path("cluster.onnx.json")).unwrap()).unwrap();
    assert_eq!((&card["input"]["mode"], &card["input"]["shorter"]), (&"L".into(), &12.into()));
    assert_eq!(card["classifier"]["clusters"], 3);
    // The same bytes again, and wherever: no time and no place is in them.
    let first = fs::read(bench.path("cluster.onnx")).unwrap();
    assert!(first.windows(6).any(|bytes| bytes == b"kinset"));
    bench.write("below/empty", "");
    export("cluster", "below/other.ONNX").done();
    assert_eq!(fs::read(bench.path("below/other.ONNX")).unwrap(), first);
    let said = export("pretext.encoder", "pretext.onnx").done();
    assert!(said.err.contains("→ embedding [batch, 128], features [batch, 32]"), "{}", said.err);

    // What weights cannot become is told before anything is written.
    for (file, words) in [("x.pth", "`.onnx`"), ("x.json", "`.safetensors`"), ("x", "`.safetensors`"), ("x.csv", "`.onnx`")] {
        let said = export("cluster", file);
        assert!(said.exit == 2 && said.err.contains(words), "{file}: {}", said.err);
        assert!(!bench.path(file).exists(), "{file}");
    }
    let said = bench.kinset(&["export", "p.toml", "cluster", "--output", "x.onnx", "--names", "moco"]);
    assert!(said.exit == 2 && said.err.contains("leave `--names` out"), "{}", said.err);
    let said = export("assignments", "x.onnx");
    assert!(said.exit == 2 && said.err.contains("cannot write assignments"), "{}", said.err);
}

#[test]
fn a_file_of_weights_that_is_missing_wrong_or_wicked_is_told_before_or_while_it_is_read() {
    let stage = |file: &str, more: &str| {
        format!(
            "name = \"w\"\ndevice = \"cpu\"\n[data.d]\ndataset = \"synthetic\"\nimages = 8\nclasses = 2\nsize = 32\nchannels = 3\n\
             [stage.w]\nkind = \"pretrained\"\nimages = \"data.d\"\nfile = \"{file}\"\n{more}\n"
        )
    };
    let golden = |name: &str| format!("{ROOT}/tests/golden/pretrained/{name}");
    let run = |file: &str, more: &str| Bench::with(&stage(file, more)).run(&["--until", "w"]);
    let said = run(&golden("scan_pretext.pth.tar"), "stem = \"cifar\"").done();
    assert_eq!(said.those("ran"), ["data.d", "w"]);
    for (file, more, words) in [
        ("nowhere.pth".to_owned(), "", "there is no file"),
        (golden("bad_system.pth"), "", "posix.system"),
        (golden("make.py"), "", "unknown format"),
        (golden("scan_pretext.pth.tar"), "", "stem = \\\"cifar\\\""),
        (golden("ruc.t7"), "stem = \"cifar\"", "`net1`, `net2`"),
        (golden("gray.pth.tar"), "stem = \"cifar\"", "channel"),
        (golden("scan_pretext.pth.tar"), "stem = \"cifar\"\nbackbone = \"resnet34\"", "missing"),
        (golden("scan_pretext.pth.tar"), &format!("stem = \"cifar\"\nsha256 = \"{}\"", "0".repeat(64)), "SHA-256"),
    ] {
        let said = run(&file, more);
        assert_eq!(said.exit, 4, "{file}: {}", said.err);
        assert!(said.out.contains(words) || said.err.contains(words), "{file}, {words}: {}\n{}", said.out, said.err);
    }
    let said = run("", "");
    assert!(said.exit == 3 && said.err.contains("is needed"), "{}", said.err);
}

/// CIFAR-10's archive: records of the right number, all zeros.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let batch = vec![0_u8; 10_000 * 3073];
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(batch.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("cifar-10-batches-bin/{name}.bin"), batch.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Serves bytes: the first answer breaks off in the middle, the others give what is asked for. Returns the address.
fn serve(content: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut from = 0;
            for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                let line = line.unwrap().to_lowercase();
                if let Some(range) = line.strip_prefix("range: bytes=") {
                    from = range.trim_end_matches('-').parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let end = if number == 0 { content.len() / 2 } else { content.len() };
            let (status, total) = (if from > 0 { "206 Partial Content" } else { "200 OK" }, content.len());
            let head = format!(
                "HTTP/1.1 {status}\r\nETag: \"1\"\r\nConnection: close\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{total}\r\n\r\n",
                total - from,
                total - 1
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&content[from..end]));
        }
    });
    address
}

#[test]
fn a_data_set_is_fetched_resumed_checked_unpacked_and_then_left_alone() {
    let bench = Bench::new();
    let archive = archive();
    let digits = hex(&Sha256::digest(&archive));
    let address = serve(archive);
    let fetch = |more: &[&str]| bench.kinset(&[&["data", "fetch", "cifar10", "--from", &address], more].concat());
    let said = fetch(&["--dry-run"]).done();
    assert!(said.err.contains("would download") && said.err.contains("c32a1d4ab5d03f1284b67883e8d87530"), "{}", said.err);
    assert!(!bench.path("data").exists(), "dry");
    let said = fetch(&["--sha256", &digits]).done();
    assert!(
        said.err.contains("retrying in") && said.err.contains("from byte") && said.err.contains("unpacking"),
        "{}",
        said.err
    );
    let said = bench.kinset(&["data", "check", "cifar10"]).done();
    assert!(said.out.contains("60,000"), "{}", said.out);
    let said = fetch(&["--json"]).done();
    assert!(said.err.contains("nothing to do") && said.json["fetched"] == false, "{}", said.err);
    // Another file than the published one does not come in.
    let other = bench.kinset(&["data", "fetch", "cifar10", "--from", &address, "--data", "elsewhere"]);
    assert_eq!(other.exit, 4);
    assert!(other.err.contains("is not the published file") && other.err.contains("--sha256"), "{}", other.err);
    assert!(!bench.path("elsewhere/cifar10/cifar-10-batches-bin").exists());
}

#[test]
fn what_cannot_be_fetched_says_how_it_is_to_be_had() {
    let bench = Bench::new();
    let nobody = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    // An unknown host would wait for a name server; a port where nobody listens says no at once, six times.
    let said = bench.kinset(&["data", "fetch", "svhn", "--dry-run", "--all", "--json"]).done();
    assert_eq!(said.json["files"].as_array().unwrap().len(), 3);
    let said = bench.kinset(&["data", "fetch", "imagenet"]);
    assert!(said.exit == 4 && said.err.contains("train/n01440764"), "{}", said.err);
    assert_eq!(bench.kinset(&["data", "fetch", "stl11"]).exit, 3);
    let said = bench.kinset(&["data", "fetch", "stl10", "--sha256", "abc"]);
    assert!(said.exit == 2 && said.err.contains("64 hexadecimal"), "{}", said.err);
    bench.write("data/cifar10/cifar-10-binary.tar.gz", "not it");
    let digits = "0".repeat(64);
    let said = bench.kinset(&["data", "fetch", "cifar10", "--from", &nobody, "--sha256", &digits]);
    assert_eq!(said.exit, 4);
    for words in ["cannot download", "tried 6 times", "by hand", "put the file into `data/cifar10`"] {
        assert!(said.err.contains(words), "{words}: {}", said.err);
    }
}

#[test]
fn stl10_runs_from_its_real_files_cold_resumed_and_warm_and_says_how_to_get_them() {
    let (bench, file) = (Bench::new(), format!("{ROOT}/pipelines/stl10.toml"));
    let args = ["run", &file, "--profile", "smoke", "--data", "sets", "--json"];
    let said = bench.kinset(&args);
    assert_eq!(said.exit, 4, "{}", said.err);
    assert!(said.err.contains("kinset data fetch stl10 --data sets"), "{}", said.err);
    let whole = bench.kinset(&["run", &file, "--json"]);
    assert_eq!(whole.exit, 4);
    assert!(whole.err.contains("`kinset data fetch stl10`"), "without `--data` the command is shorter: {}", whole.err);

    write_stl10(&bench.path("sets"));
    let cold = bench.kinset(&args).done();
    // Pool and training images are the same here: whichever comes first reads them for both.
    let read = cold.ran().into_iter().filter(|stage| ["data.pool", "data.train"].contains(stage)).count();
    assert!(read == 1 && cold.ran().contains(&"scores"), "{}", cold.out);
    assert!(!cold.json["scores"].as_array().unwrap().is_empty());
    let warm = bench.kinset(&args).done();
    assert_eq!((warm.ran().len(), warm.digests()), (0, cold.digests()));

    // Killed while it learns, and again while it clusters.
    let args = [&args[..], &["--artifacts", "other", "--checkpoint-every", "0"]].concat();
    for words in ["pretext (simclr)", "cluster (scan)"] {
        let mut running = bench.start("run", &args);
        assert!(running.wait_for(words), "{}", running.said());
        std::thread::sleep(std::time::Duration::from_millis(150));
        running.kill();
    }
    let resumed = bench.kinset(&args).done();
    assert_eq!(resumed.digests(), cold.digests());
    bench.assert_sound_at("other", "after two kills");
}
