//! Encoders that others trained: an ONNX file from `init` to exported groups, weights by name, and features joined to images by path.

use std::fs;

use super::harness::{Bench, ROOT, sorted};

const NOTHING: [&str; 0] = [];

/// Photos in two folders: stripes and blobs of some shades.
fn photos(bench: &Bench, folder: &str) {
    for number in 0..24u8 {
        let image = image::RgbImage::from_fn(24, 20, |x, y| {
            let value = if number % 2 == 0 { (x * 40) as u8 } else { ((x * x + y * y) / 4) as u8 };
            image::Rgb([value, value.wrapping_add(number), 255 - value])
        });
        let mut bytes = Vec::new();
        image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bench.write(format!("{folder}/{}/{number:02}.png", ["stripes", "blobs"][usize::from(number % 2)]), bytes);
    }
}

#[test]
fn a_folder_and_an_onnx_file_become_groups_that_leave_as_folders_and_as_a_network() {
    let bench = Bench::new();
    photos(&bench, "photos");
    let encoder = format!("{ROOT}/tests/golden/onnx/mobile.onnx");
    let init = ["init", "photos", "--clusters", "2", "--encoder", &encoder, "--output", "p.toml"];
    let said = bench.kinset(&init).done();
    assert!(said.err.contains("encoder: ") && said.err.contains("12 features of 17 × 17 pixels"), "{}", said.err);
    let smoke = bench.run(&["--profile", "smoke", "--artifacts", "smoke"]).done();
    assert!(smoke.ran().contains(&"scores"), "{}", smoke.out);

    let cold = bench.run(&[]).done();
    let stages = ["encoder", "features", "neighbors", "kmeans", "spectral", "heads", "cluster", "assignments", "scores"];
    assert!(stages.iter().all(|stage| cold.ran().contains(stage)), "{}", cold.out);
    assert_eq!(bench.run(&[]).done().ran(), NOTHING);
    // The same bytes from one thread, and from the file under another name.
    fs::copy(&encoder, bench.path("copy.onnx")).unwrap();
    let file = "stage.encoder.file=\"copy.onnx\"";
    let alone = bench.run(&["--artifacts", "alone", "--threads", "1", "--set", file]).done();
    assert_eq!(alone.digests(), cold.digests());
    assert_eq!(bench.run(&["--set", file]).done().ran(), NOTHING);

    bench.kinset(&["export", "p.toml", "assignments", "--output", "sorted"]).done();
    let groups = sorted(&bench.path("sorted")).into_iter().filter(|path| path.is_dir()).count();
    assert_eq!(groups, 2);
    let rows = bench.kinset(&["predict", "p.toml", "photos"]).done();
    assert_eq!(rows.out.lines().count(), 25, "{}", rows.out);

    // What leaves as ONNX comes back, prepared as it says itself, and makes the same of the pictures.
    bench.kinset(&["export", "p.toml", "encoder", "--output", "own.onnx"]).done();
    let own = ["--set", "stage.encoder.file=\"own.onnx\"", "--set", "stage.encoder.output=\"features\""];
    let again = bench.run(&[&own[..], &["--artifacts", "own"]].concat()).done();
    assert!(again.err.contains("prepared as the file itself says"), "{}", again.err);
    let of = |artifacts: &str| fs::read(bench.path(format!("{artifacts}/photos/scores/scores.csv"))).unwrap();
    assert_eq!(of("own"), of("artifacts"));
    bench.assert_sound("after an encoder from ONNX");
}

#[test]
fn an_encoder_that_cannot_be_is_refused_with_what_to_do() {
    let bench = Bench::new();
    photos(&bench, "photos");
    let init = |encoder: &str| bench.kinset(&["init", "photos", "--encoder", encoder]);
    let said = init("dinov2_vits14");
    assert!(said.exit == 4 && said.err.contains("`kinset data fetch dinov2_vits14`"), "{}", said.err);
    let said = init("dinov9");
    assert!(said.exit == 2 && said.err.contains("dinov2_vitb14") && said.err.contains("`none`"), "{}", said.err);
    bench.write("broken.onnx", b"\x08\x07\x12\xff");
    let said = init("broken.onnx");
    assert!(said.exit == 4 && said.err.contains("no ONNX file, or a damaged one"), "{}", said.err);
    let said = init("none").done();
    assert!(said.out.contains("kind = \"simclr\"") && said.err.contains("as asked"), "{}", said.err);
    let said = bench.kinset(&["init", "photos", "--no-labels", "--skip-broken"]).done();
    assert!(said.out.contains("\nlabels = false ") && said.out.contains("\nskip_broken = true "), "{}", said.out);
    assert!(!said.out.contains("evaluate") && said.err.contains("`kinset data fetch dinov2_vits14` (88 MB)"), "{}", said.err);
    let said = bench.kinset(&["data", "list", "--json"]).done();
    let weights = said.json.as_array().unwrap().iter().filter(|one| one["kind"] == "weights").count();
    assert_eq!(weights, 9);
}

#[test]
fn vectors_named_by_path_are_scored_and_shown_as_their_images() {
    let bench = Bench::new();
    photos(&bench, "photos");
    let rows: Vec<String> = (0..24)
        .map(|number: u8| {
            let folder = ["stripes", "blobs"][usize::from(number % 2)];
            let x = f32::from(number % 2) * 4.0 + f32::from(number) * 0.01;
            format!("/elsewhere/photos/{folder}/{number:02}.png,{x},{}", 1.0 - x / 4.0)
        })
        .rev()
        .collect();
    bench.write("own.csv", format!("name,e0,e1\n{}\n", rows.join("\n")));
    let pipeline = "name = \"own\"\nseed = 1\n[data.images]\ndataset = \"folder\"\nroot = \"photos\"\n\
        [stage.features]\nkind = \"import_features\"\nimages = \"data.images\"\nfile = \"own.csv\"\n\
        [stage.kmeans]\nkind = \"kmeans\"\nfeatures = \"features\"\nclusters = 2\n\
        [stage.assignments]\nkind = \"predict\"\nfeatures = \"features\"\nclassifier = \"kmeans\"\n\
        [stage.scores]\nkind = \"evaluate\"\nclassifiers = [\"kmeans\"]\nfeatures = \"features\"\nlabels = \"data.images.labels\"\n";
    bench.write("p.toml", pipeline);
    let said = bench.run(&[]).done();
    assert!(said.err.contains("24 images found by path below their folder"), "{}", said.err);
    let scores = fs::read_to_string(bench.path("artifacts/own/scores/scores.csv")).unwrap();
    assert!(scores.contains("kmeans"), "{scores}");
    let told = bench.kinset(&["run", "p.toml", "--no-report"]).done().out;
    assert!(told.contains("scores: 24 images of features, 2 classes\n"), "{told}");
    bench.kinset(&["export", "p.toml", "assignments", "--output", "groups.csv"]).done();
    assert!(fs::read_to_string(bench.path("groups.csv")).unwrap().contains("stripes/00.png"));
    // Without the images the vectors keep their names, and the labels know none of them.
    bench.write("p.toml", pipeline.replace("images = \"data.images\"\nfile", "file"));
    let said = bench.run(&[]);
    assert!(said.exit == 4 && said.err.contains("`import_features` has `images` connected"), "{}: {}", said.exit, said.err);
}
