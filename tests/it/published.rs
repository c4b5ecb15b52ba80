//! The field's data sets in the forms they are published in, so that the pipelines of papers read what a user would have fetched.
//!
//! A few images at the beginning of each file are drawn; behind them, where the published length must be kept, are zeros that
//! take no room on disk.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use kinset::base::seed::Seed;

/// Images that are drawn at the beginning of a training file, and of a test file: a smoke profile reads no more.
const DRAWN: [u64; 2] = [200, 100];

/// A stripe pattern whose angle is its class: `[3, side, side]` planes, row by row.
fn planes(seed: &mut kinset::base::seed::Rng, class: u64, side: u32) -> Vec<u8> {
    let (angle, shade) = (class as f64 * std::f64::consts::PI / 10.0, seed.between(40.0, 200.0));
    let mut planes = Vec::with_capacity((3 * side * side) as usize);
    for plane in 0..3 {
        for y in 0..side {
            for x in 0..side {
                let wave = (0.3 * (f64::from(x) * angle.cos() + f64::from(y) * angle.sin())).sin();
                planes.push((shade + 40.0 * wave + 5.0 * f64::from(plane) + seed.between(0.0, 10.0)) as u8);
            }
        }
    }
    planes
}

/// The drawn images of a part, with their classes.
fn drawn(name: &str, part: &str, classes: u64, side: u32, count: u64) -> Vec<(u64, Vec<u8>)> {
    let one = |number| {
        let mut rng = Seed::new(7).branch(name).branch(part).at(number).rng();
        let class = rng.below(classes as usize) as u64;
        (class, planes(&mut rng, class, side))
    };
    (0..count).map(one).collect()
}

/// Planes column by column, as MATLAB keeps them.
fn turned(planes: &[u8], side: usize) -> Vec<u8> {
    planes.chunks(side * side).flat_map(|plane| (0..side * side).map(|at| plane[at % side * side + at / side])).collect()
}

/// STL-10: column by column, labels from 1 in a file of their own.
pub(crate) fn write_stl10(data: &Path) {
    let folder = data.join("stl10/stl10_binary");
    fs::create_dir_all(&folder).unwrap();
    for ((part, count), number) in [("train", 5_000_u64), ("test", 8_000)].into_iter().zip(DRAWN) {
        let file = File::create(folder.join(format!("{part}_X.bin"))).unwrap();
        file.set_len(count * 3 * 96 * 96).unwrap();
        let mut classes = vec![1_u8; count as usize];
        for (at, (class, planes)) in drawn("stl10", part, 10, 96, number).into_iter().enumerate() {
            classes[at] = class as u8 + 1;
            file.write_all_at(&turned(&planes, 96), at as u64 * 3 * 96 * 96).unwrap();
        }
        fs::write(folder.join(format!("{part}_y.bin")), classes).unwrap();
    }
}

/// CIFAR: labels before each image's planes. CIFAR-10 in five files and one, CIFAR-100 with the coarse label first.
pub(crate) fn write_cifar(data: &Path) {
    let ten = data.join("cifar10/cifar-10-batches-bin");
    let hundred = data.join("cifar100/cifar-100-binary");
    for folder in [&ten, &hundred] {
        fs::create_dir_all(folder).unwrap();
    }
    let block = 3 * 32 * 32;
    for (part, number) in ["train", "test"].into_iter().zip(DRAWN) {
        for (folder, labels, count) in [(&ten, 1, 10_000), (&hundred, 2, if part == "train" { 50_000 } else { 10_000 })] {
            let name = match (labels, part) {
                (1, "train") => "data_batch_1.bin".to_owned(),
                (1, _) => "test_batch.bin".to_owned(),
                _ => format!("{part}.bin"),
            };
            let file = File::create(folder.join(name)).unwrap();
            file.set_len(count * (labels + block)).unwrap();
            for (at, (class, planes)) in drawn("cifar", part, 10, 32, number).into_iter().enumerate() {
                let label = if labels == 1 { vec![class as u8] } else { vec![2 * class as u8, 7 * class as u8] };
                file.write_all_at(&[label, planes].concat(), at as u64 * (labels + block)).unwrap();
            }
        }
    }
    for number in 2..=5 {
        File::create(ten.join(format!("data_batch_{number}.bin"))).unwrap().set_len(10_000 * (1 + block)).unwrap();
    }
}

/// SVHN: MATLAB's level 5 without compression, the images as one array of columns, digits from 1 with 10 for 0.
pub(crate) fn write_svhn(data: &Path) {
    let folder = data.join("svhn");
    fs::create_dir_all(&folder).unwrap();
    let part_of = |kind: u32, bytes: &[u8]| {
        let mut part = [kind.to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
        part.extend(bytes);
        part.resize(part.len().next_multiple_of(8), 0);
        part
    };
    let head = |name: &str, sizes: &[u32], bytes: u64| {
        let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
        let inside = [part_of(6, &[9, 0, 0, 0, 0, 0, 0, 0]), part_of(5, &sizes), part_of(1, name.as_bytes())].concat();
        let all = inside.len() as u64 + 8 + bytes.next_multiple_of(8);
        let mut head = [14_u32.to_le_bytes(), (all as u32).to_le_bytes()].concat();
        head.extend(inside);
        head.extend([2_u32.to_le_bytes(), (bytes as u32).to_le_bytes()].concat());
        head
    };
    for ((part, count), number) in [("train", 73_257_u64), ("test", 26_032)].into_iter().zip(DRAWN) {
        let file = File::create(folder.join(format!("{part}_32x32.mat"))).unwrap();
        let mut start = vec![b' '; 124];
        start.extend([0, 1, b'I', b'M']);
        start.extend(head("X", &[32, 32, 3, count as u32], count * 3072));
        file.write_all_at(&start, 0).unwrap();
        let mut digits = vec![1_u8; count as usize];
        for (at, (class, planes)) in drawn("svhn", part, 10, 32, number).into_iter().enumerate() {
            digits[at] = if class == 0 { 10 } else { class as u8 };
            file.write_all_at(&turned(&planes, 32), start.len() as u64 + at as u64 * 3072).unwrap();
        }
        let mut end = head("y", &[count as u32, 1], count);
        end.extend(digits);
        end.resize(end.len().next_multiple_of(8), 0);
        file.write_all_at(&end, start.len() as u64 + (count * 3072).next_multiple_of(8)).unwrap();
    }
}

/// ImageNet: a folder of JPEG files per class, and SCAN's lists of subsets beside them.
pub(crate) fn write_imagenet(data: &Path) {
    let folder = data.join("imagenet");
    let name = |class: u64| format!("n{:08}", 1_440_764 + class);
    let side = 40;
    for (part, of_class) in [("train", 2), ("val", 1)] {
        for class in 0..200_u64 {
            let place = folder.join(part).join(name(class));
            fs::create_dir_all(&place).unwrap();
            for number in 0..of_class {
                let planes = planes(&mut Seed::new(9).branch(part).at(class * 10 + number).rng(), class % 10, side);
                let plane = (side * side) as usize;
                let picture = image::RgbImage::from_fn(side, side - 8, |x, y| {
                    image::Rgb([0, 1, 2].map(|channel| planes[channel * plane + (y * side + x) as usize]))
                });
                let path = place.join(format!("{}_{number}.JPEG", name(class)));
                picture.save_with_format(path, image::ImageFormat::Jpeg).unwrap();
            }
        }
    }
    for classes in [50, 100, 200] {
        let list: Vec<String> = (0..classes).map(|class| format!("{} class {class}", name(class))).collect();
        fs::write(folder.join(format!("imagenet_{classes}.txt")), list.join("\n")).unwrap();
    }
}
