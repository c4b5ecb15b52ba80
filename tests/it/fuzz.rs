//! The fuzz targets with stable Rust: samples, mutated the same way each time, for a second; for longer with
//! `KINSET_FUZZ_SECONDS=60` (`just fuzz`). Nothing looks at coverage here; `tests/fuzz` does.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use kinset::base::clock::Stopwatch;
use kinset::base::memory::Watch;
use kinset::base::seed::{Rng, Seed};
use kinset::base::unit;

use super::faults::samples;
use super::harness::{Bench, ROOT, files_below};

/// An input that takes longer is a finding.
const SLOW: Duration = Duration::from_secs(20);
/// Endings of pictures.
const PICTURES: [&str; 6] = ["png", "jpg", "webp", "gif", "bmp", "tif"];
/// Larger inputs make everything slow and find nothing else.
const LARGEST: usize = 1 << 20;
/// As many findings say enough.
const MOST: usize = 8;

thread_local! {
    /// How many panics this thread has had; none are counted where nobody fuzzes.
    static PANICS: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Counts panics of threads that fuzz instead of printing them: guarded decoders have many.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |info| match PANICS.get() {
            Some(count) => PANICS.set(Some(count + 1)),
            None => usual(info),
        }));
    });
    PANICS.set(Some(0));
}

/// Numbers that readers are known to stumble over.
const NUMBERS: [u64; 14] = [0, 1, 2, 7, 8, 127, 128, 255, 256, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff];

/// Changes an input in one way.
fn mutate_once(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut Rng) {
    if bytes.is_empty() {
        bytes.push(rng.bits32() as u8);
        return;
    }
    let at = rng.below(bytes.len());
    let longest = 1 << (1 + rng.below(8));
    let length = (1 + rng.below(longest)).min(bytes.len() - at);
    match rng.below(10) {
        0 | 1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at] = rng.bits32() as u8,
        3 | 4 => {
            // A number in either order of bytes, as wide as there is room.
            let number = NUMBERS[rng.below(NUMBERS.len())].wrapping_sub(rng.below(2) as u64);
            let wide = [1, 2, 4, 8][rng.below(4)].min(bytes.len() - at);
            let mut digits = number.to_le_bytes()[..wide].to_vec();
            if rng.chance(0.5) {
                digits.reverse();
            }
            bytes[at..at + wide].copy_from_slice(&digits);
        }
        5 => {
            // Another digit where one stands: headers in words.
            match bytes[at..].iter().position(u8::is_ascii_digit) {
                Some(place) => bytes[at + place] = b'0' + rng.below(10) as u8,
                None => bytes[at] = b'-',
            }
        }
        6 => drop(bytes.drain(at..at + length)),
        7 => {
            let again = bytes[at..at + length].to_vec();
            let to = rng.below(bytes.len() + 1);
            bytes.splice(to..to, again);
        }
        8 => bytes.truncate(at),
        _ => {
            // A piece of another sample.
            let other = &seeds[rng.below(seeds.len())];
            if !other.is_empty() {
                let from = rng.below(other.len());
                let piece = &other[from..(from + length).min(other.len())];
                bytes.splice(at..(at + piece.len()).min(bytes.len()), piece.iter().copied());
            }
        }
    }
    bytes.truncate(LARGEST);
}

/// The input of a number: first the samples themselves, then mutated ones.
fn input(number: usize, seeds: &[Vec<u8>], of: Seed) -> Vec<u8> {
    if let Some(seed) = seeds.get(number) {
        return seed.clone();
    }
    let mut rng = of.at(number as u64).rng();
    let mut bytes = seeds[rng.below(seeds.len())].clone();
    for _ in 0..1 << rng.below(5) {
        mutate_once(&mut bytes, seeds, &mut rng);
    }
    bytes
}

fn fuzz(name: &str, seeds: Vec<Vec<u8>>) {
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name).unwrap().1;
    if let Some(folder) = std::env::var_os("KINSET_FUZZ_SEEDS") {
        let folder = Path::new(&folder).join(name);
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("sample-{number}")), seed).unwrap();
        }
    }
    let seconds = std::env::var("KINSET_FUZZ_SECONDS").map_or(1.0, |text| text.parse().unwrap());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    fs::create_dir_all(&place).unwrap();
    // If it ends the whole process, this is what it read.
    let last = place.join(format!("{name}-last"));
    let kept = fs::File::create(&last).unwrap();

    count_panics();
    let (watch, clock) = (Watch::start(), Stopwatch::start());
    let (mut number, mut caught, mut slowest) = (0, 0, 0.0_f64);
    let mut findings: Vec<String> = Vec::new();
    while number < seeds.len() || clock.seconds() < seconds {
        let bytes = input(number, &seeds, Seed::new(1).branch(name));
        // Never emptied first, which file systems answer by flushing it.
        kept.write_all_at(&bytes, 0).unwrap();
        kept.set_len(bytes.len() as u64).unwrap();
        let before = PANICS.get().unwrap_or(0);
        let one = Stopwatch::start();
        let ended = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
        slowest = slowest.max(one.seconds());
        let finding = match ended {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
                Some(text.unwrap_or("a panic without words").to_owned())
            }
            Ok(()) if one.elapsed() > SLOW => Some(format!("it takes {:.1} s", one.seconds())),
            Ok(()) => {
                if PANICS.get().unwrap_or(0) > before {
                    caught += 1;
                    // An input that makes a decoder panic, for the test that its panic is an error.
                    fs::write(place.join(format!("{name}-caught")), &bytes).unwrap();
                }
                None
            }
        };
        if let Some(text) = finding {
            let path = place.join(format!("{name}-{number}"));
            fs::write(&path, &bytes).unwrap();
            findings.push(format!("input {number} ({}): {text}", path.display()));
            if findings.len() >= MOST {
                break;
            }
        }
        number += 1;
    }
    PANICS.set(None);
    let peak = watch.peak().map_or_else(|| "unknown".to_owned(), unit::bytes);
    println!(
        "fuzz | {name:<8} | {number:>8} inputs in {:.0} s | {} findings | {caught} caught panics of decoders | slowest {slowest:.2} s | \
         memory {peak}",
        clock.seconds(),
        findings.len(),
    );
    assert!(findings.is_empty(), "{name}:\n  {}", findings.join("\n  "));
}

/// The files of a folder of `tests/golden` with one of these endings, each behind a byte.
fn golden(folder: &str, endings: &[&str], behind: Option<u8>) -> Vec<Vec<u8>> {
    let files = files_below(&PathBuf::from(ROOT).join("tests/golden").join(folder)).into_iter();
    let files = files.filter(|file| file.extension().is_some_and(|ending| endings.iter().any(|known| ending == *known)));
    let found: Vec<Vec<u8>> = files.map(|file| [behind.as_slice(), &fs::read(file).unwrap()].concat()).collect();
    assert!(!found.is_empty(), "{folder}: {endings:?}");
    found
}

#[test]
fn pictures() {
    fuzz("picture", golden("dataset", &PICTURES, None));
}

#[test]
fn weights() {
    let endings = ["pth", "tar", "ckpt", "t7", "safetensors"];
    fuzz(
        "weights",
        [golden("pretrained", &endings, None), golden("encoders", &endings, None), golden("onnx", &["onnx"], None)].concat(),
    );
}

#[test]
fn archives() {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none()));
    let add = |archive: &mut tar::Builder<_>, name: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        // As it is, for what `tar` itself would refuse.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if kind.is_symlink() {
            header.set_link_name("../../out").unwrap();
        }
        header.set_cksum();
        archive.append(&header, content).unwrap();
    };
    add(&mut archive, "a/b.bin", tar::EntryType::Regular, b"content");
    add(&mut archive, "a/", tar::EntryType::Directory, b"");
    let good = archive.get_ref().get_ref().clone();
    add(&mut archive, "../c", tar::EntryType::Regular, b"x");
    add(&mut archive, "a/link", tar::EntryType::Symlink, b"");
    add(&mut archive, "a/link/d", tar::EntryType::Regular, b"x");
    let whole = archive.into_inner().unwrap().finish().unwrap();
    fuzz("archive", vec![whole, good]);
}

#[test]
fn features_and_attributes() {
    let mut seeds = Vec::new();
    for (kind, form) in ["csv", "npy", "parquet"].into_iter().enumerate() {
        seeds.push([&[kind as u8][..], &samples::features(form)].concat());
    }
    seeds.push(b"\0name,a,b,c\nx.png,1,2,3\n\"y\"\"\n.png\",4,5e-3,-6\n".to_vec());
    seeds.push(b"\x03name,weather,split\nx.png,rain,train\n\"y,.png\",,test\n".to_vec());
    seeds.extend(golden("dataset", &["parquet"], Some(2)));
    fuzz("vectors", seeds);
}

#[test]
fn data_sets() {
    let bench = Bench::new();
    let mut seeds = Vec::new();
    let mut take = |name: &str, kind: fn(&Path) -> Option<u8>, most: usize| {
        let (root, _) = samples::data_set(name, &bench).unwrap();
        for file in files_below(&root) {
            let Some(kind) = kind(&file) else { continue };
            let mut bytes = vec![kind];
            fs::File::open(&file).unwrap().take(most as u64).read_to_end(&mut bytes).unwrap();
            seeds.push(bytes);
        }
    };
    take("idx", |file| if file.to_string_lossy().ends_with(".gz") { None } else { Some(0) }, LARGEST);
    take("digits", |file| file.to_string_lossy().ends_with("images-idx3-ubyte.gz").then_some(1), LARGEST);
    // The beginning of a file that is longer than an input may be.
    take("svhn", |_| Some(2), 1 << 14);
    take("parquet", |_| Some(3), LARGEST);
    take("tar", |_| Some(4), LARGEST);
    seeds.extend(golden("dataset", &PICTURES, Some(5)));
    fuzz("set", seeds);
}
