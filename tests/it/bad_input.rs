//! Bad input, as a table: each row says what is wrong, and asserts the exit code, that the message names the place
//! and the fix, and that nothing is lost or half-written.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{Bench, CHEAP, CHEAP_NODES, ROOT, Said, WHOLE, files_below, idx_images, idx_labels, sorted};

/// Asserts what every refusal owes.
#[track_caller]
fn assert_refused(said: &Said, exit: i32, words: &[&str], what: &str) {
    assert_eq!(said.exit, exit, "{what}:\n{}\n{}", said.out, said.err);
    for word in words {
        assert!(said.err.contains(word), "{what}: `{word}` is not in:\n{}", said.err);
    }
    for text in [&said.out, &said.err] {
        assert!(!text.contains("panicked") && !text.contains("bug in kinset"), "{what}:\n{text}");
    }
}

/// A pipeline over some source, without training.
fn over(source: &str) -> String {
    let drawn = "dataset = \"synthetic\"\nsplit = \"train\"\nimages = 30\nclasses = 3\nsize = 8\n";
    assert!(CHEAP.contains(drawn));
    CHEAP.replace(drawn, source)
}

/// One thing that is wrong with the settings or the wiring: what to set, the exit code, what must be said (the place, the fix).
type Row = (&'static str, i32, &'static [&'static str]);

#[test]
fn bad_settings_and_wires_are_refused_with_place_and_fix() {
    let rows: &[Row] = &[
        // Unknown words, with the nearest known one.
        ("stage.pretext.epoch=5", 3, &["unknown key `epoch`", "stage `pretext`", "did you mean `epochs`?", "known keys"]),
        ("stage.pretext.network.widht=5", 3, &["`widht`", "did you mean `width`?"]),
        ("stage.pretext.kind=simclar", 3, &["`simclar`", "did you mean `simclr`?"]),
        ("stage.pretext.network.backbone=resnet_tony", 3, &["`resnet_tony`", "did you mean `resnet_tiny`?"]),
        ("data.train.dataset=synthtic", 3, &["`synthtic`", "did you mean `synthetic`?"]),
        ("data.train.split=trian", 3, &["`trian`", "`train`"]),
        ("stage.pretxt.epochs=5", 3, &["no stage `pretxt`", "pretext"]),
        ("device=gpu", 3, &["`device`", "`cpu`, `cuda:0` or `metal`"]),
        // Ports that stand for each other.
        (
            "stage.assignments.features=features",
            3,
            &["`images`, `features`", "several are connected", "connect exactly one of them"],
        ),
        (
            "stage.kmeans.clusters_from=auto_k",
            3,
            &["`clusters` and `clusters_from`", "in place of the first", "leave `clusters` out"],
        ),
        ("stage.tower.network.output=3", 3, &["network.output", "nothing that this network has"]),
        ("stage.tower.weights=hf:nobody", 3, &["names no repository", "hf:facebook/dinov2-small"]),
        ("stage.tower.weights=hf:facebook/dinov2-small", 4, &["cannot find the weights", "hf download facebook/dinov2-small"]),
        // Wrong types.
        ("stage.pretext.epochs=many", 3, &["`epochs` of stage `pretext`", "expects an integer", "the text `many`"]),
        ("stage.pretext.epochs=1.5", 3, &["`epochs`", "expects an integer", "`1.5`"]),
        ("stage.pretext.epochs=-1", 3, &["`epochs`", "expects an integer, 0 or more", "`-1`"]),
        ("stage.pretext.batch=[16]", 3, &["`batch`", "expects an integer"]),
        ("stage.pretext.network=7", 3, &["`network`", "a table"]),
        ("stage.pretext.temperature=nan", 3, &["`temperature`"]),
        ("seed=-1", 3, &["`seed`", "an integer, 0 or more"]),
        // Out of range.
        ("stage.pretext.epochs=0", 3, &["`epochs`", "is 0"]),
        ("stage.pretext.temperature=0", 3, &["`temperature`", "must be above 0"]),
        ("stage.pretext.network.width=0", 3, &["`network.width`", "must lie between"]),
        ("stage.cluster.clusters=1", 3, &["`clusters`", "at least 2"]),
        ("stage.kmeans.clusters=0", 3, &["`clusters`", "at least"]),
        ("stage.neighbors.k=0", 3, &["`k`", "at least 1"]),
        ("data.train.limit=0", 3, &["`limit`", "1 or more"]),
        ("data.train.classes=11", 3, &["`classes`", "1 to 10"]),
        ("data.train.channels=2", 3, &["`channels`", "1 or 3"]),
        // Mis-wired.
        (
            "stage.pretext.images=data.train.labels",
            3,
            &["`data.train.labels` gives labels", "expects images", "these give images: `data.train`"],
        ),
        ("stage.pretext.images=nowhere", 3, &["`nowhere`", "these give images"]),
        ("stage.features.encoder=kmeans", 3, &["`kmeans` gives classifier", "expects encoder", "`pretext`"]),
        ("stage.scores.labels=data.test", 3, &["port `labels`", "expects labels", "`data.test.labels`"]),
        ("stage.cluster.labels=data.train.labels", 3, &["unknown key `labels`", "stage `cluster`"]),
        ("stage.cluster.val_images=data.train.labels", 3, &["`data.train.labels` gives labels", "expects images"]),
        ("stage.scores.classifiers=[]", 3, &["port `classifiers`", "classifier"]),
        // A cycle, with its path.
        ("stage.features.encoder=features", 3, &["`features`", "reads the stage's own result"]),
        ("stage.pretext.images=features", 3, &["wait for each other", "`pretext` -> `features` -> `pretext`"]),
        // Too much of too little.
        ("stage.neighbors.k=48", 4, &["k is 48", "only 48 images", "k = 47"]),
        ("stage.kmeans.clusters=49", 4, &["clusters is 49", "only 48 images", "ask for fewer clusters"]),
        ("stage.cluster.clusters=49", 4, &["clusters is 49", "only 48 images", "ask for fewer clusters"]),
        // The hint names what is not set yet.
        (
            "stage.selflabel={ kind = \"selflabel\", images = \"data.train\", classifier = \"cluster\", epochs = 1, batch = 16, threshold = \"fixed\", confidence_threshold = 0.9999999 }",
            5,
            &["no image is classified with a confidence above", "the largest seen is 0.", "set `threshold = \"per_cluster\"`"],
        ),
        ("stage.pretext.batch=49", 4, &["batch is 49", "only 48 images", "batch = 48"]),
        ("stage.cluster.batch=49", 4, &["batch is 49", "only 48 images", "batch = 48"]),
        ("stage.selflabel.batch=49", 4, &["batch is 49", "only 48 images", "batch = 48"]),
        ("stage.ruc.batch=49", 4, &["batch is 49", "only 48 images", "batch = 48"]),
        ("stage.ruc.num_neighbors=6", 4, &["`num_neighbors` is 6", "only 5 neighbors", "at most 5"]),
        ("stage.ruc.relabel_rise=0.02", 3, &["`relabel_rise`", "which no probability reaches"]),
        (
            "stage.ruc.confidence_threshold=0.9999999",
            5,
            &["no image keeps its label", "0 reach the confidence", "the largest is 0.", "set `sampling = \"metric\"`"],
        ),
        ("data.train.limit=1", 4, &["only 1 image", "hint"]),
        // Numbers that run away.
        ("stage.pretext.optimizer.lr=1e30", 5, &["pretext: the loss is", "lower the learning rate"]),
    ];
    let bench = Bench::with(&WHOLE);
    bench.run(&[]).done();
    for (change, exit, words) in rows {
        let said = bench.kinset(&["run", "p.toml", "--set", change]);
        assert_refused(&said, *exit, words, change);
        bench.assert_sound(change);
    }
    assert_eq!(bench.run(&[]).done().ran().len(), 0, "nothing was lost");
}

#[test]
fn one_class_is_no_fault_until_clusters_collapse() {
    let bench = Bench::with(CHEAP);
    assert_eq!(bench.run(&["--set", "data.train.classes=1"]).done().ran(), CHEAP_NODES);
    let bench = Bench::with(&WHOLE);
    let said = bench.run(&["--set", "data.train.classes=1", "--set", "data.test.classes=1"]);
    match said.exit {
        0 => {}
        _ => assert_refused(&said, 5, &["the clusters collapsed in epoch", "the largest has", "hint"], "one class"),
    }
    bench.assert_sound("one class");
}

#[test]
fn a_pretext_that_falls_into_one_point_is_an_error_with_the_numbers() {
    let bench = Bench::with(
        "name = \"p\"\n[data.train]\ndataset = \"synthetic\"\nsplit = \"train\"\nimages = 96\nclasses = 3\nsize = 12\n\
         [stage.pretext]\nkind = \"byol\"\nimages = \"data.train\"\nepochs = 12\nbatch = 16\n\
         network = { backbone = \"resnet_tiny\", width = 8 }\nschedule = { warm_up = 0 }\n",
    );
    // Weights that decay to nothing leave nothing to tell images apart by.
    let said = bench.run(&["--set", "stage.pretext.optimizer.weight_decay=20"]);
    let words =
        ["nearly the same projection", "their spread is 0.0", "hint", "lower `optimizer.lr` or `optimizer.weight_decay`"];
    assert_refused(&said, 5, &words, "a collapse");
    bench.run(&[]).done();
    bench.assert_sound("a collapse");
}

#[test]
fn bad_command_lines_are_refused() {
    let bench = Bench::with(CHEAP);
    let rows: &[(&[&str], i32, &[&str])] = &[
        (&["run"], 2, &["<PIPELINE>", "--help"]),
        (&["rum", "p.toml"], 2, &["'rum'", "'run'"]),
        (&["run", "p.toml", "--treads", "1"], 2, &["--treads", "--threads"]),
        (&["run", "p.toml", "--threads", "many"], 2, &["many", "--threads"]),
        (&["run", "p.toml", "--memory", "8MiB"], 2, &["8MiB", "--memory", "at least 64MiB"]),
        (&["run", "p.toml", "--checkpoint-every=-1"], 2, &["--checkpoint-every", "a number of seconds is expected"]),
        (&["run", "p.toml", "--set", "garbage"], 3, &["`garbage`", "stage.pretext.epochs=5"]),
        (&["run", "p.toml", "--profile", "nope"], 3, &["no profile `nope`"]),
        (&["run", "p.toml", "--only", "kmean"], 3, &["no stage `kmean`", "did you mean `kmeans`?"]),
        (&["run", "p.toml", "--device", "cuda:0"], 7, &["cuda:0", "hint", "`device = \"cpu\"`"]),
        (&["run", "nofile.toml"], 3, &["no pipeline file `nofile.toml`", "`kinset init DIR > FILE`"]),
        (&["plan", "nofile.toml"], 3, &["no pipeline file `nofile.toml`", "`kinset init DIR > FILE`"]),
        (&["run", "."], 3, &["`.` is a folder, not a pipeline file"]),
        (&["run", "p.toml", "--artifacts", "p.toml"], 6, &["p.toml", "it is not a folder", "choose another path"]),
        (&["verify"], 6, &["artifacts", "hint"]),
        (&["explain", "p.toml", "kmean"], 3, &["no stage `kmean`", "`kmeans`"]),
        (&["methods", "simclar"], 2, &["`simclar`", "did you mean `simclr`?"]),
        (&["data", "check", "digist"], 3, &["`digist`", "did you mean `digits`?"]),
        (&["data", "check", "mnist"], 4, &["mnist", "train-images-idx3-ubyte", "hint"]),
        (&["init", "nowhere"], 4, &["nowhere"]),
        (&["data", "check", "p.toml", "--set", "dim=-1"], 2, &["`dim` is a whole number, 1 or more, and not -1"]),
        (&["data", "check", "p.toml", "--set", "header=5"], 2, &["`header` is `true` or `false`, and not 5"]),
        (&["init", ".", "--clusters", "1"], 2, &["`--clusters` is 1", "two at least"]),
    ];
    for (args, exit, words) in rows {
        assert_refused(&bench.kinset(args), *exit, words, &args.join(" "));
        bench.assert_sound(&args.join(" "));
    }
}

#[test]
fn bad_files_are_refused_with_line_and_caret() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("empty", "", &["there is nothing to do", "`[data.…]`"]),
        ("no TOML", "name = \"x\"\n[stage.a\n", &["p.toml:2"]),
        ("twice", "name = \"x\"\nname = \"y\"\n", &["p.toml:2", "name"]),
        ("no kind", "name = \"x\"\n[stage.a]\nimages = \"data.b\"\n", &["p.toml:2", "`kind`"]),
        ("a missing port", "name = \"x\"\n[stage.a]\nkind = \"simclr\"\n", &["p.toml", "`images`", "stage `a`"]),
        (
            "a cycle of three",
            "name = \"x\"\n[data.d]\ndataset = \"digits\"\n[stage.a]\nkind = \"embed\"\nimages = \"data.d\"\nencoder = \"c\"\n\
             [stage.b]\nkind = \"neighbors\"\nfeatures = \"a\"\n[stage.c]\nkind = \"scan\"\nimages = \"data.d\"\nencoder = \"c\"\n\
             neighbors = \"b\"\n",
            &["p.toml:7:11", "wait for each other", "`a` -> `c` -> `b` -> `a`", "reads the stage's own result"],
        ),
        ("a name that is a path", "name = \"../x\"\n", &["p.toml:1:8", "`../x` cannot be the name"]),
        ("a stage named like a path", "name = \"x\"\n[stage.\"../a\"]\nkind = \"simclr\"\n", &["p.toml:2", "`../a`"]),
        (
            "all at once",
            "name = \"x\"\nseed = \"a\"\nsead = 1\n[stage.a]\nkind = \"what\"\n",
            &["p.toml:2", "p.toml:3", "p.toml:5"],
        ),
    ];
    for (what, text, words) in rows {
        let bench = Bench::with(text);
        for command in ["run", "plan", "graph", "status"] {
            assert_refused(&bench.kinset(&[command, "p.toml"]), 3, words, &format!("{command}: {what}"));
        }
        assert!(!bench.path("artifacts").exists(), "{what}: a file with faults leaves no trace");
    }
    let bench = Bench::new();
    bench.write("p.toml", [0xff, 0xfe, 0x00, 0x41]);
    assert_refused(&bench.kinset(&["run", "p.toml"]), 3, &["p.toml", "UTF-8"], "no text");
    bench.write("p.toml", vec![b'#'; 64 << 20]);
    assert_refused(&bench.kinset(&["run", "p.toml"]), 3, &["p.toml"], "64 MiB of comment");
}

/// A picture file of the repository.
fn picture() -> Vec<u8> {
    fs::read(format!("{ROOT}/tests/golden/dataset/rgb.png")).unwrap()
}

#[test]
fn bad_data_are_refused_with_file_and_fix() {
    type Make = fn(&Bench);
    let folder = "dataset = \"folder\"\nroot = \"raw\"\n";
    let idx = "dataset = \"idx\"\nroot = \"raw\"\n";
    let parquet = "dataset = \"parquet\"\nroot = \"raw\"\n";
    let rows: &[(&str, &str, Make, &[&str])] = &[
        ("no folder", folder, |_| (), &["data.train", "`raw`", "hint", "root"]),
        ("an empty folder", folder, |b| fs::create_dir(b.path("raw")).unwrap(), &["`raw` contains no", "hint", "root"]),
        ("a file as folder", folder, |b| drop(b.write("raw", "x")), &["`raw`", "hint"]),
        (
            "no pictures",
            folder,
            |b| drop(b.write("raw/a.txt", "x")),
            &["`raw` contains no PNG, JPEG, WebP, GIF, BMP or TIFF image", "hint"],
        ),
        (
            "a cut picture",
            folder,
            |b| {
                b.write("raw/a.png", picture());
                b.write("raw/b.png", &picture()[..60]);
            },
            &["1 of 2 images", "`b.png`", "hint", "skip_broken = true"],
        ),
        (
            "an empty picture",
            folder,
            |b| {
                b.write("raw/a.png", picture());
                b.write("raw/b.png", "");
            },
            &["`b.png` (the file is empty)", "skip_broken = true"],
        ),
        (
            "a picture that is none",
            folder,
            |b| {
                b.write("raw/a.png", picture());
                b.write("raw/b.jpg", "hello");
            },
            &["`b.jpg`", "skip_broken = true"],
        ),
        (
            "a flipped bit in a picture",
            folder,
            |b| {
                b.write("raw/a.png", picture());
                let mut bytes = picture();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                b.write("raw/b.png", bytes);
            },
            &["`b.png`", "skip_broken = true"],
        ),
        ("one image", folder, |b| drop(b.write("raw/a.png", picture())), &["only 1 image", "hint"]),
        ("no images file", idx, |b| drop(b.write("raw/labels-idx1-ubyte", idx_labels(&[0]))), &["images-idx3-ubyte", "hint"]),
        (
            "IDX cut in the pixels",
            idx,
            |b| drop(b.write("raw/images-idx3-ubyte", idx_images(10, 8, 8, &[7; 100]))),
            &["`raw/images-idx3-ubyte` ends after 116 bytes, its header declares 656", "hint"],
        ),
        (
            "IDX cut in the header",
            idx,
            |b| drop(b.write("raw/images-idx3-ubyte", &idx_images(10, 8, 8, &[])[..9])),
            &["raw/images-idx3-ubyte", "hint"],
        ),
        ("IDX empty", idx, |b| drop(b.write("raw/images-idx3-ubyte", "")), &["raw/images-idx3-ubyte", "hint"]),
        (
            "IDX with a tail",
            idx,
            |b| drop(b.write("raw/images-idx3-ubyte", idx_images(2, 8, 8, &[7; 999]))),
            &["raw/images-idx3-ubyte", "hint"],
        ),
        (
            "IDX with another magic",
            idx,
            |b| drop(b.write("raw/images-idx3-ubyte", "nonsense and more nonsense")),
            &["`raw/images-idx3-ubyte`, byte 0", "found 6e 6f 6e 73", "hint"],
        ),
        (
            "IDX that promises the moon",
            idx,
            |b| drop(b.write("raw/images-idx3-ubyte", idx_images(u32::MAX, u32::MAX, u32::MAX, &[0; 64]))),
            &["raw/images-idx3-ubyte", "hint"],
        ),
        ("IDX of nothing", idx, |b| drop(b.write("raw/images-idx3-ubyte", idx_images(0, 8, 8, &[]))), &["raw", "hint"]),
        (
            "IDX of no pixels",
            idx,
            |b| drop(b.write("raw/images-idx3-ubyte", idx_images(5, 0, 8, &[]))),
            &["raw/images-idx3-ubyte", "hint"],
        ),
        (
            "gzip cut",
            idx,
            |b| {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(&idx_images(40, 8, 8, &(0..2560).map(|i| (i * i % 251) as u8).collect::<Vec<_>>())).unwrap();
                let bytes = packer.finish().unwrap();
                b.write("raw/images-idx3-ubyte.gz", &bytes[..bytes.len() / 2]);
            },
            &["raw/images-idx3-ubyte.gz", "hint"],
        ),
        (
            "more labels than images",
            idx,
            |b| {
                b.write("raw/images-idx3-ubyte", idx_images(4, 8, 8, &[9; 256]));
                b.write("raw/labels-idx1-ubyte", idx_labels(&[0, 1, 0, 1, 0]));
            },
            &["raw/", "5", "4", "hint"],
        ),
        ("an empty Parquet file", parquet, |b| drop(b.write("raw/a.parquet", "")), &["`raw/a.parquet` is damaged", "hint"]),
        (
            "no Parquet file",
            parquet,
            |b| drop(b.write("raw/a.parquet", "PAR1 or so, PAR1")),
            &["`raw/a.parquet` is damaged", "hint"],
        ),
        (
            "a cut Parquet file",
            parquet,
            |b| {
                b.write("s.toml", "name = \"s\"\n[data.a]\ndataset = \"synthetic\"\nimages = 6\n");
                b.kinset(&["run", "s.toml", "--artifacts", "other"]).done();
                let bytes = fs::read(b.path("other/s/data.a/images.parquet")).unwrap();
                b.write("raw/a.parquet", &bytes[..bytes.len() / 2]);
            },
            &["`raw/a.parquet` is damaged", "hint"],
        ),
        (
            "labels without which nothing can be scored",
            idx,
            |b| {
                drop(b.write(
                    "raw/images-idx3-ubyte",
                    idx_images(30, 8, 8, &(0..1920).map(|i| (i % 199) as u8).collect::<Vec<_>>()),
                ));
            },
            &["did not produce output `data.train.labels`", "hint"],
        ),
    ];
    for (what, source, make, words) in rows {
        let bench = Bench::with(&over(source));
        make(&bench);
        let said = bench.kinset(&["run", "p.toml"]);
        assert_refused(&said, 4, words, what);
        bench.assert_sound(what);
        // A plan meets the same data, and ends as well-behaved.
        let plan = bench.kinset(&["plan", "p.toml"]);
        assert!([4, 10].contains(&plan.exit) && !plan.err.contains("panicked"), "{what}: {}", plan.err);
    }
}

#[test]
fn the_rest_of_a_folder_with_broken_pictures_can_be_used() {
    let bench = Bench::with(&over("dataset = \"folder\"\nroot = \"raw\"\n"));
    for (number, shade) in (0..8u8).enumerate() {
        let mut bytes = Vec::new();
        let image = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([(x as u8) * shade + (y as u8) * 9]));
        image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
        bench.write(format!("raw/{}/{number}.png", shade % 3), bytes);
    }
    bench.write("raw/0/broken.png", "hello");
    assert_eq!(bench.run(&[]).exit, 4);
    let said = bench.run(&["--set", "data.train.skip_broken=true"]).done();
    assert!(said.err.contains("broken.png"), "{}", said.err);
    assert_eq!(said.ran(), CHEAP_NODES);
}

#[test]
fn pictures_that_are_damaged_inside_are_taken_and_named() {
    let bench = Bench::with("name = \"d\"\n[data.train]\ndataset = \"folder\"\nroot = \"raw\"\n");
    let whole = fs::read(Path::new(ROOT).join("tests/golden/dataset/subsampled.jpg")).unwrap();
    bench.write("raw/whole.jpg", &whole);
    let mut damaged = whole;
    let end = damaged.len();
    damaged[end - 60..end - 2].fill(0);
    for number in 1..8 {
        damaged[end - 61] = number;
        bench.write(format!("raw/{number}.jpg"), &damaged);
    }
    let said = bench.run(&[]).done();
    assert!(said.err.contains("7 JPEGs are corrupt and decode only partly: `"), "{}", said.err);
    assert!(said.err.contains(", and 2 more") && !said.err.contains("whole.jpg"), "{}", said.err);
    let said = bench.kinset(&["data", "check", "folder", "--root", "raw"]).done();
    assert!(said.out.contains("folder: 7 damaged") && said.out.contains("corrupt entropy-coded data"), "{}", said.out);
}

#[test]
fn a_check_names_all_broken_pictures_and_a_run_the_first() {
    let bench = Bench::with("name = \"d\"\n[data.train]\ndataset = \"folder\"\nroot = \"raw\"\n");
    bench.write("raw/whole.png", picture());
    for number in 0..40 {
        bench.write(format!("raw/{number:02}.png"), &picture()[..20 + number]);
    }
    let said = bench.kinset(&["data", "check", "raw"]);
    assert_eq!(said.exit, 4, "{}", said.out);
    assert!(said.out.starts_with("folder: 40 broken\n") && said.out.contains("broken: `00.png`"), "{}", said.out);
    assert!(said.out.contains("broken: and 20 more; all with `--json`"), "{}", said.out);
    let said = bench.kinset(&["data", "check", "raw", "--json"]);
    let files = said.json["broken_files"].as_array().unwrap();
    assert_eq!((said.exit, files.len(), files[39]["file"].as_str()), (4, 40, Some("39.png")));
    assert_eq!(bench.kinset(&["data", "check", "raw", "--set", "skip_broken=true"]).exit, 0);
    assert_eq!(bench.kinset(&["data", "check", "raw", "--set", "skip_brokn=true"]).exit, 2);
    let said = bench.run(&[]);
    assert_eq!(said.exit, 4);
    assert!(said.err.contains("40 of 41 images") && said.err.contains("`04.png`"), "{}", said.err);
    assert!(said.err.contains("and 35 more") && !said.err.contains("`05.png`"), "{}", said.err);
    bench.write("f.csv", "a,1,2\nb,3,4\n");
    let said = bench.kinset(&["data", "check", "f.csv"]).done();
    assert!(said.out.starts_with("f.csv: sound\n") && said.out.contains("2 vectors"), "{}", said.out);
}

#[test]
fn init_says_what_the_subfolders_are_and_leaves_splits_unread_as_classes() {
    let bench = Bench::new();
    for (number, part) in ["train", "test"].into_iter().enumerate() {
        bench.write(format!("raw/{part}/cat/{number}.png"), picture());
    }
    let said = bench.kinset(&["init", "raw"]).done();
    assert!(said.err.contains("2 classes by folder: test, train"), "{}", said.err);
    assert!(said.err.contains("split = \"test+train\""), "{}", said.err);
    assert!(said.out.contains("\nlabels = false ") && !said.out.contains("evaluate"), "{}", said.out);
}

#[test]
fn pixels_of_large_pictures_are_no_features() {
    let said = Bench::with(CHEAP).run(&["--no-report", "--until", "pixels", "--set", "stage.pixels.size=2100"]);
    assert_eq!(said.exit, 4, "{}", said.err);
    assert!(said.err.contains("2100 × 2100 pixels of 1 channel are more than 4,194,304 features"), "{}", said.err);
    assert!(said.err.contains("`size = 64`"), "{}", said.err);
}

/// The blobs of a bench.
fn blobs(bench: &Bench) -> Vec<PathBuf> {
    files_below(&bench.path("artifacts/store/blobs"))
}

/// Replaces a read-only file of the store.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

/// How many stages have a blob of this name among their results.
fn makers(bench: &Bench, name: &str) -> usize {
    let records = files_below(&bench.path("artifacts/store/records"));
    records.iter().filter(|record| fs::read_to_string(record).unwrap().contains(name)).count()
}

#[test]
fn a_flipped_byte_in_any_blob_is_found_and_heals() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    for blob in blobs(&bench) {
        let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
        let mut bytes = fs::read(&blob).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        replace(&blob, &bytes);
        let said = bench.kinset(&["verify"]);
        assert_eq!(said.exit, 6, "{}", said.out);
        assert!(said.out.contains(&name) && said.out.contains("hint: `kinset verify --repair`"), "{}", said.out);
        let makers = makers(&bench, &name);
        assert!(bench.kinset(&["verify", "--repair"]).exit == 0);
        let healed = bench.run(&[]).done();
        assert_eq!(healed.ran().len(), makers, "the stages that made it: {}", healed.err);
        assert_eq!(healed.digests(), good, "after a flip in {name}");
        bench.assert_sound("after healing");
    }
}

#[test]
fn a_deleted_or_shortened_blob_heals_by_running() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    for (number, blob) in blobs(&bench).into_iter().enumerate() {
        let (name, bytes) = (blob.file_name().unwrap().to_str().unwrap(), fs::read(&blob).unwrap());
        if number % 2 == 0 {
            fs::remove_file(&blob).unwrap();
        } else {
            replace(&blob, &bytes[..bytes.len() / 2]);
        }
        assert_eq!(bench.kinset(&["verify"]).exit, 6);
        let plan = bench.kinset(&["plan", "p.toml"]);
        assert!(plan.exit == 10 && plan.out.contains("damaged"), "{}", plan.out);
        let healed = bench.run(&[]).done();
        // What one stage writes again is whole for the others that have the same.
        assert!((1..=makers(&bench, name)).contains(&healed.ran().len()), "{}", healed.err);
        assert_eq!(healed.digests(), good);
        bench.assert_sound("after healing");
    }
}

#[test]
fn a_damaged_record_heals_by_running() {
    let bench = Bench::with(CHEAP);
    let good = bench.run(&[]).done().digests();
    let records = files_below(&bench.path("artifacts/store/records"));
    assert_eq!(records.len(), CHEAP_NODES.len());
    for (number, record) in records.into_iter().enumerate() {
        let bytes = fs::read(&record).unwrap();
        let damage: &[u8] = match number % 3 {
            0 => &bytes[..bytes.len() / 2],
            1 => b"",
            _ => b"{\"format\": 1}",
        };
        replace(&record, damage);
        let said = bench.kinset(&["verify"]);
        assert_eq!(said.exit, 6, "{}", said.out);
        assert!(said.out.contains(record.file_name().unwrap().to_str().unwrap()), "{}", said.out);
        let healed = bench.run(&[]).done();
        assert_eq!(healed.ran().len(), 1, "{}", healed.err);
        assert_eq!(healed.digests(), good);
        bench.assert_sound("after healing");
    }
}

#[test]
fn a_damaged_memo_costs_time_and_nothing_else() {
    let bench = Bench::with(&over("dataset = \"digits\"\nlimit = 40\n"));
    let data = format!("{ROOT}/data");
    bench.run(&["--data", &data]).done();
    let memo = bench.memo();
    assert!(memo.is_file());
    for content in ["", "nonsense\n{\"a\":1}\n", "\u{0}\u{0}\u{0}"] {
        replace(&memo, content.as_bytes());
        assert_eq!(bench.run(&["--data", &data]).done().ran().len(), 0);
    }
}

/// A small file system of its own, for as long as this lives. None where mounting is not allowed.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "kinset-test"]).arg(&at).output();
        match done {
            Ok(output) if output.status.success() => Some(Self(at)),
            _ => {
                println!("skipped: mounting a small disk is not allowed here");
                None
            }
        }
    }

    pub(crate) fn remount(&self, options: &str) {
        assert!(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named_keeps_what_is_done_and_space_is_all_it_takes() {
    let bench = Bench::with(&CHEAP.replace("images = 30", "images = 600").replace("size = 8", "size = 32"));
    let Some(disk) = Disk::mount(bench.path("artifacts"), "400k") else { return };
    let said = bench.run(&[]);
    assert_refused(&said, 7, &["No space left on device", "hint", "free some space"], "a full disk");
    bench.assert_sound("after a full disk");
    let done: Vec<String> = said.ran().into_iter().map(str::to_owned).collect();
    disk.remount("size=64m");
    let said = bench.run(&[]).done();
    let again: Vec<&str> = said.ran();
    assert!(done.iter().all(|stage| !again.contains(&stage.as_str())), "{done:?} were done: {again:?}");
    bench.assert_sound("with space again");
}

#[test]
fn a_full_disk_in_training_loses_no_finished_stage() {
    let bench = Bench::with(&WHOLE);
    let Some(disk) = Disk::mount(bench.path("artifacts"), "300k") else { return };
    let said = bench.run(&["--checkpoint-every", "0"]);
    assert_refused(&said, 7, &["No space left on device", "hint", "free some space"], "a full disk");
    disk.remount("size=64m");
    assert_eq!(bench.run(&[]).done().digests(), Bench::with(&WHOLE).run(&[]).done().digests());
    bench.assert_sound("with space again");
}

#[test]
fn a_read_only_store_can_be_looked_at_and_is_named_when_written() {
    let bench = Bench::with(CHEAP);
    let Some(disk) = Disk::mount(bench.path("artifacts"), "64m") else { return };
    bench.run(&[]).done();
    disk.remount("ro");
    let said = bench.kinset(&["run", "p.toml", "--set", "stage.neighbors.k=4"]);
    assert_refused(&said, 6, &["artifacts", "Read-only file system", "hint", "--artifacts DIR"], "a read-only store");
    for command in ["plan", "status"] {
        assert_eq!(bench.kinset(&[command, "p.toml"]).done().exit, 0, "{command} only looks");
    }
    disk.remount("rw");
    bench.assert_sound("after a read-only store");
}

#[test]
fn strangers_in_the_store_are_named_and_left_alone() {
    let bench = Bench::with(CHEAP);
    bench.run(&[]).done();
    let stray = bench.write("artifacts/store/blobs/notes.txt", "mine");
    let said = bench.kinset(&["verify"]);
    assert!(said.out.contains("notes.txt"), "{}", said.out);
    bench.kinset(&["verify", "--repair"]);
    assert_eq!(fs::read_to_string(&stray).unwrap(), "mine");
    assert_eq!(bench.run(&[]).done().ran().len(), 0);
    assert!(!sorted(&bench.path("artifacts/store")).is_empty());
}

#[test]
fn a_cache_that_makes_no_sense_or_cannot_be_asked_is_refused_and_never_ignored() {
    let bench = Bench::with(CHEAP);
    let mut rows: Vec<(&[&str], &str, &str)> = vec![
        (&["--cache", "ftp://host/x"], "", "its scheme is not known"),
        (&["--cache", "https://ada:SECRET@host/x"], "", "belong into the environment"),
        (&["--cache", "/mnt/team"], "", "`file:///mnt/team`"),
        (&[], "s3://bucket/x?secret=SECRET", "more than a place"),
        (&["--cache-mode", "write"], "", "`read`, `read-write` or `off`"),
    ];
    if cfg!(not(feature = "remote")) {
        rows.push((&["--cache", "s3://bucket/team"], "", "--features remote"));
        rows.push((&[], "file:///mnt/team", "built without remote caches"));
    }
    for (args, variable, words) in rows {
        let mut command = bench.command(&[&["run", "p.toml"][..], args].concat());
        let said = Said::of(&command.env("KINSET_CACHE", variable).output().unwrap());
        assert_refused(&said, 2, &[words], &format!("{args:?} {variable}"));
        assert!(!said.err.contains("SECRET"), "{}", said.err);
        assert!(!bench.path("artifacts/store/records").exists(), "{args:?} {variable}");
    }
    assert_refused(&bench.kinset(&["cache", "push", "p.toml"]), 2, &["no cache is named", "--url"], "no URL");
    bench.write("cluster.toml", "[cache]\nurl = \"ftp://host/x\"\n");
    assert_refused(
        &bench.kinset(&["compare", "p.toml"]),
        2,
        &["its scheme is not known"],
        "the cluster file, of another command",
    );
    bench.run(&["--cache-mode", "off"]).done();
}
