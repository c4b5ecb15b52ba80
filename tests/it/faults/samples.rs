//! A small sample of everything that can be read: data sets of the registry, forms of features.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::super::harness::{Bench, CHEAP, ROOT, files_below, idx_images, idx_labels, sorted};
use super::super::published::{write_cifar, write_imagenet, write_stl10, write_svhn};

/// A PNG of 8 × 8 gray pixels, another for each number.
pub(crate) fn png(number: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let shade = number.wrapping_mul(37);
    let image = image::GrayImage::from_fn(8, 8, |x, y| {
        image::Luma([(x as u8 * 9).wrapping_mul(number | 1).wrapping_add(y as u8 ^ shade)])
    });
    image.write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes
}

/// Pictures in class folders.
pub(crate) fn write_photos(bench: &Bench, folder: &str) {
    for number in 0..24 {
        bench.write(format!("{folder}/{}/{number}.png", ["ant", "bee", "cat"][usize::from(number) % 3]), png(number));
    }
}

/// Writes a sample of a data set; what `kinset data check` and a pipeline's source say of it: `(root, split)`.
pub(crate) fn data_set(name: &str, bench: &Bench) -> Option<(PathBuf, &'static str)> {
    let data = bench.path("data");
    let below = |folder: &str, split: &'static str| Some((bench.path("data").join(folder), split));
    match name {
        // Nothing is read, or the same as for `imagenet`.
        "synthetic" | "imagenet-50" | "imagenet-100" | "imagenet-200" => None,
        "digits" | "fashion-mini" => {
            for file in files_below(&PathBuf::from(ROOT).join("data").join(name)) {
                bench.write(format!("data/{name}/{}", file.file_name().unwrap().to_str().unwrap()), fs::read(&file).unwrap());
            }
            below(name, "all")
        }
        "idx" | "mnist" | "fashion-mnist" => {
            let pixels: Vec<u8> = (0..20 * 64).map(|at| (at * 7 % 251) as u8).collect();
            bench.write("data/idx/images-idx3-ubyte", idx_images(20, 8, 8, &pixels));
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(&idx_labels(&(0..20).map(|at| at % 3).collect::<Vec<_>>())).unwrap();
            bench.write("data/idx/labels-idx1-ubyte.gz", packer.finish().unwrap());
            (name == "idx").then(|| (bench.path("data/idx"), "all"))
        }
        "cifar10" | "cifar100" | "cifar20" => {
            write_cifar(&data);
            below(if name == "cifar10" { name } else { "cifar100" }, "test")
        }
        "stl10" => {
            write_stl10(&data);
            below(name, "train")
        }
        "svhn" => {
            write_svhn(&data);
            below(name, "test")
        }
        "folder" => {
            write_photos(bench, "data/folder");
            for file in sorted(&PathBuf::from(ROOT).join("tests/golden/dataset")) {
                let picture = file
                    .extension()
                    .is_some_and(|end| ["png", "jpg", "webp", "gif", "bmp", "tif"].iter().any(|known| end == *known));
                if picture {
                    let name = file.file_name().unwrap().to_str().unwrap();
                    bench.write(format!("data/folder/dog/{name}"), fs::read(&file).unwrap());
                }
            }
            below(name, "all")
        }
        "imagenet" => {
            write_imagenet(&data);
            below(name, "val")
        }
        "parquet" => {
            let golden = format!("{ROOT}/tests/golden/dataset/huggingface.parquet");
            bench.write("data/parquet/train.parquet", fs::read(golden).unwrap());
            below(name, "all")
        }
        "tar" => {
            let mut archive = tar::Builder::new(Vec::new());
            for number in 0..20_u8 {
                for (ending, content) in [("png", png(number)), ("cls", vec![b'0' + number % 3])] {
                    let mut header = tar::Header::new_gnu();
                    header.set_size(content.len() as u64);
                    header.set_mode(0o644);
                    header.set_cksum();
                    archive.append_data(&mut header, format!("{number:04}.{ending}"), content.as_slice()).unwrap();
                }
            }
            bench.write("data/tar/a.tar", archive.into_inner().unwrap());
            below(name, "all")
        }
        other => panic!("the data set `{other}` has no sample: write one here, as small as it can be"),
    }
}

/// The endings of files of features, as the reader itself lists them.
pub(crate) fn forms_of_features() -> Vec<String> {
    let bench = Bench::with("name = \"f\"\n[stage.features]\nkind = \"import_features\"\nfile = \"raw.none\"\n");
    bench.write("raw.none", "");
    let said = bench.kinset(&["run", "p.toml"]);
    assert_ne!(said.exit, 0, "{}", said.out);
    let line =
        said.err.lines().find(|line| line.contains("come as")).unwrap_or_else(|| panic!("no list of forms: {}", said.err));
    let words = line.split_once("come as").unwrap().1.split(|c: char| !(c == '.' || c.is_ascii_alphanumeric()));
    let found: Vec<String> =
        words.filter_map(|word| word.strip_prefix('.')).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    assert!(found.len() >= 3, "{line}");
    found
}

/// Features of a few images in one of these forms.
pub(crate) fn features(form: &str) -> Vec<u8> {
    let values: Vec<f32> = (0..20 * 4).map(|at| (at * at % 17) as f32 - 3.5).collect();
    match form {
        "csv" | "txt" | "tsv" => {
            let between = if form == "tsv" { "\t" } else { "," };
            let line = |(row, values): (usize, &[f32])| {
                let numbers: Vec<String> = values.iter().map(f32::to_string).collect();
                format!("{row}.png{between}{}\n", numbers.join(between))
            };
            values.chunks(4).enumerate().map(line).collect::<String>().into_bytes()
        }
        "npy" => {
            let mut header = "{'descr': '<f4', 'fortran_order': False, 'shape': (20, 4), }".to_owned();
            header.push_str(&" ".repeat(117 - header.len()));
            header.push('\n');
            let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
            bytes.extend((header.len() as u16).to_le_bytes());
            bytes.extend(header.as_bytes());
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            bytes
        }
        "parquet" | "pq" => {
            let bench = Bench::with(CHEAP);
            bench.run(&["--until", "features"]).done();
            fs::read(bench.path("artifacts/cheap/features/features.parquet")).unwrap()
        }
        "arrow" => {
            let ids: Vec<String> = (0..20).map(|row| format!("{row}.png")).collect();
            kinset::artifact::testing::arrow_stream(&ids, 4, &values).unwrap()
        }
        other => {
            let golden = files_below(&PathBuf::from(ROOT).join("tests/golden"));
            let found = golden.iter().find(|file| file.extension().is_some_and(|ending| ending == other));
            let file = found.unwrap_or_else(|| panic!("features in the form `.{other}` have no sample: write one here"));
            fs::read(file).unwrap()
        }
    }
}
