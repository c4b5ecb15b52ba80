//! Benchmarks of work that PyTorch, torchvision, FAISS and scikit-learn do too.
//!
//! `cargo bench --bench peers -- WORK [--NAME NUMBER …]` does a piece of work and prints one line of JSON. `peers.py` beside this
//! file runs it in turn with the peer's piece and prints what comes out; see there for what is compared with what.

#![expect(clippy::print_stdout, reason = "a line of JSON is what it is for")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use candle_core::{Device, Tensor, Var};
use kinset::artifact::encoder::{Backbone, Encoder, Stem};
use kinset::artifact::images::{ImageSet, Images, ImagesInfo, ImagesWriter, Picture};
use kinset::artifact::neighbors::NeighborTable;
use kinset::artifact::pixels::Pixels;
use kinset::artifact::{Artifact, Draft, Stored};
use kinset::augment::{Plain, Recipe, Simclr, Viewer};
use kinset::base::clock::Stopwatch;
use kinset::base::search_path::DataPaths;
use kinset::base::seed::Seed;
use kinset::kernel::gemm::{Gemm, product};
use kinset::kernel::{conv2d, neighbors};
use kinset::math::kmeans::KMeans;
use kinset::methods::{scan, simclr};
use kinset::model::published::{Published, TowerSettings};
use kinset::model::settings::NetworkSettings;
use kinset::model::{EncoderNet, Mode, architecture};
use kinset::stage::{Context, Signal, Sink, Stage, Stop};
use kinset::store::digest::Digest;
use kinset::train::image_loader::ImageLoader;
use kinset::train::ports::ImagesIn;
use rayon::prelude::*;
use serde_json::{Value, json};

mod ground;

/// As in the program: memory of steps comes back without a call to the system.
#[global_allocator]
static ALLOCATOR: kinset::kernel::CachingAllocator = kinset::kernel::CachingAllocator::new();

type Answer<T> = Result<T, Box<dyn Error>>;

fn main() -> Answer<()> {
    kinset::kernel::keep_candle_on_one_thread();
    let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let work = args.next().unwrap_or_default();
    let mut settings = Settings::read(args)?;
    let (seconds, more) = match work.as_str() {
        "simclr" => simclr_steps(&mut settings)?,
        "conv" => convolutions(&mut settings)?,
        "views" => views(&mut settings)?,
        "knn" => nearest(&mut settings)?,
        "gemm" => products(&mut settings),
        "heads" => heads(&mut settings)?,
        "kmeans" => k_means(&mut settings)?,
        "frozen" => frozen(&mut settings)?,
        // `cargo bench` without a word: nothing to compare, so nothing to do.
        "" => return Ok(()),
        other => return Err(format!("no work `{other}`: simclr, conv, views, knn, gemm, heads, kmeans or frozen").into()),
    };
    settings.all_used()?;
    let program = format!("kinset {}", env!("CARGO_PKG_VERSION"));
    println!("{}", json!({ "program": program, "work": work, "settings": settings.used, "seconds": seconds, "more": more }));
    Ok(())
}

/// `--NAME NUMBER`, each with a default.
struct Settings {
    given: BTreeMap<String, usize>,
    used: BTreeMap<String, usize>,
}

impl Settings {
    fn read(mut args: impl Iterator<Item = String>) -> Answer<Self> {
        let mut given = BTreeMap::new();
        while let Some(name) = args.next() {
            let name = name.strip_prefix("--").ok_or(format!("`{name}` is no setting"))?.to_owned();
            let value = args.next().ok_or(format!("`--{name}` wants a number"))?.parse()?;
            given.insert(name, value);
        }
        Ok(Self { given, used: BTreeMap::new() })
    }

    fn get(&mut self, name: &str, default: usize) -> usize {
        let value = self.given.remove(name).unwrap_or(default);
        self.used.insert(name.to_owned(), value);
        value
    }

    fn all_used(&self) -> Answer<()> {
        if self.given.is_empty() { Ok(()) } else { Err(format!("settings that nobody reads: {:?}", self.given).into()) }
    }
}

/// Seconds of each repetition after one that does not count.
fn repeated<T>(times: usize, mut work: impl FnMut() -> Answer<T>) -> Answer<Vec<f64>> {
    work()?;
    (0..times)
        .map(|_| {
            let start = Stopwatch::start();
            let result = work()?;
            let seconds = start.seconds();
            drop(result);
            Ok(seconds)
        })
        .collect()
}

/// Takes the time whenever a stage reports a number of this name, once an epoch.
struct Laps {
    name: &'static str,
    start: Stopwatch,
    at: Mutex<Vec<f64>>,
}

impl Sink for Laps {
    fn signal(&self, _stage: &str, signal: Signal) {
        if matches!(&signal, Signal::Metric { name, .. } if name == self.name) {
            self.at.lock().unwrap_or_else(PoisonError::into_inner).push(self.start.seconds());
        }
    }
}

/// Seconds of each epoch of a stage but the first.
fn epochs<S: Stage>(config: &S::Config, input: S::In, metric: &'static str, folder: &Path) -> Answer<Vec<f64>> {
    let laps = Laps { name: metric, start: Stopwatch::start(), at: Mutex::default() };
    let places = DataPaths::new(folder, None, None);
    let (work, out) = (folder.join("work"), folder.join("out"));
    let context = Context::new("bench", Device::Cpu, Seed::new(1), &places, Stop::default(), work, out, &laps)
        .with_checkpoint_every(Duration::from_hours(24));
    S::run(config, input, &context)?;
    let at = laps.at.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(at.windows(2).map(|lap| lap[1] - lap[0]).collect())
}

/// What was just written, as if it came out of the store.
fn stored<A: Artifact>(draft: Draft<A>) -> Stored<A> {
    Stored::new(draft.files.into_iter().map(|file| file.path).collect(), Digest::of(b"bench"), "bench")
}

fn images(folder: &Path, pictures: Vec<Pixels>) -> Answer<(Stored<Images>, Vec<String>)> {
    let mut writer = ImagesWriter::create(folder, &ImagesInfo::new("bench"))?;
    for picture in pictures {
        writer.push(Picture::Raw(picture))?;
    }
    let (draft, ids) = writer.finish()?;
    Ok((stored(draft), ids))
}

/// Steps of the pretext stage itself, augmentation included: an epoch of one step each.
fn simclr_steps(settings: &mut Settings) -> Answer<(Vec<f64>, Value)> {
    let (width, batch) = (settings.get("width", 64), settings.get("batch", 128));
    let (size, steps) = (settings.get("size", 32), settings.get("steps", 3));
    let folder = tempfile::tempdir()?;
    let (images, _) = images(folder.path(), ground::pictures(batch, size, 3))?;
    let network = NetworkSettings { width, ..NetworkSettings::default() };
    let rounds = Some(steps as u64 + 1);
    let config = simclr::Config { network, batch: Some(batch), epochs: rounds, ..simclr::Config::default() };
    let seconds = epochs::<simclr::SimClr>(&config, ImagesIn { images }, "lr", folder.path())?;
    Ok((seconds, json!({ "images": batch })))
}

/// Forward and all gradients of a 3x3 convolution that keeps channels and side.
fn convolutions(settings: &mut Settings) -> Answer<(Vec<f64>, Value)> {
    let (channels, side) = (settings.get("channels", 64), settings.get("side", 32));
    let (batch, times) = (settings.get("batch", 64), settings.get("repeats", 10));
    let variable =
        |shape: [usize; 4]| Var::from_tensor(&Tensor::from_vec(ground::bells(shape.iter().product()), &shape, &Device::Cpu)?);
    let (x, w) = (variable([batch, channels, side, side])?, variable([channels, channels, 3, 3])?);
    let seconds = repeated(times, || Ok(conv2d(&x, &w, 1, 1)?.backward()?))?;
    let flop = 3 * 2 * batch * channels * channels * 9 * side * side;
    Ok((seconds, json!({ "flop": flop })))
}

/// A view of each of some pictures by SimCLR's recipe, normalised, in one batch.
fn views(settings: &mut Settings) -> Answer<(Vec<f64>, Value)> {
    let (size, count, times) = (settings.get("size", 32), settings.get("count", 512), settings.get("repeats", 5));
    let pictures = ground::pictures(count, size, 3);
    let rows: Vec<usize> = (0..count).collect();
    let viewer = Viewer::new(&Recipe::Simclr(Simclr::default()), size, &[0.4914, 0.4822, 0.4465], &[0.2023, 0.1994, 0.2010])?;
    let mut epoch = 0;
    let seconds = repeated(times, || {
        epoch += 1;
        let leaves = Seed::new(1).at(epoch);
        Ok(viewer.views(&pictures, &rows, |row| leaves.at(row as u64))?)
    })?;
    Ok((seconds, json!({ "images": count })))
}

/// The exact nearest rows of every row, and those of a few rows, for comparison.
fn nearest(settings: &mut Settings) -> Answer<(Vec<f64>, Value)> {
    let (count, dim, k) = (settings.get("rows", 60_000), settings.get("dim", 128), settings.get("k", 20));
    let rows = ground::unit_rows(count, dim);
    // No warming up: it takes seconds, and so does the peer.
    let start = Stopwatch::start();
    let found = neighbors::all_pairs(&rows, dim, k, &Stop::default(), &mut |_, _| {})?;
    let seconds = start.seconds();
    let sample: Vec<&[u32]> = found.index.chunks(k).step_by((count / 100).max(1)).collect();
    Ok((vec![seconds], json!({ "sample": sample })))
}

/// Products of rows with columns in single precision, each dropped: what a search among them would cost without a search.
fn products(settings: &mut Settings) -> (Vec<f64>, Value) {
    const TILE: (usize, usize) = (128, 2048);
    let (count, columns, dim) = (settings.get("rows", 4096), settings.get("columns", 65_536), settings.get("dim", 256));
    let (a, b) = (ground::unit_rows(count, dim), ground::unit_rows(columns, dim));
    let tiles: Vec<(&[f32], &[f32])> =
        a.chunks(TILE.0 * dim).flat_map(|a| b.chunks(TILE.1 * dim).map(move |b| (a, b))).collect();
    let once = || {
        tiles.par_iter().for_each_init(Vec::new, |out: &mut Vec<f32>, (a, b)| {
            out.resize(a.len() / dim * (b.len() / dim), 0.0);
            product(a, b, dim, out);
            std::hint::black_box(&out);
        });
    };
    once();
    let start = Stopwatch::start();
    once();
    (vec![start.seconds()], json!({ "pairs": count * columns }))
}

/// Epochs of SCAN's heads on features that were computed once: training and validation, the stage itself. The features are the
/// pixels of gray pictures, so that what comes before the heads takes no time.
fn heads(settings: &mut Settings) -> Answer<(Vec<f64>, Value)> {
    let (count, side) = (settings.get("rows", 60_000), settings.get("side", 23));
    let (heads, clusters) = (settings.get("heads", 5), settings.get("clusters", 10));
    let (batch, times) = (settings.get("batch", 128), settings.get("epochs", 2));
    let folder = tempfile::tempdir()?;
    let (images, ids) = images(folder.path(), ground::pictures(count, side, 1))?;
    let shape = architecture(Backbone::Pixels, Stem::Cifar, 1, 1, side, None)?;
    let net = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu)?;
    let normalization =
        ImageLoader::of(&ImageSet::open(&images)?, None, &Device::Cpu, &Stop::default())?.normalization().clone();
    let encoder = Encoder { card: net.card(normalization), tensors: net.to_tensors()? };
    let config = scan::stage::Config {
        clusters,
        heads,
        update: scan::Update::Heads,
        epochs: Some(times as u64 + 1),
        batch: Some(batch),
        augment: Plain::default().into(),
        ..scan::stage::Config::default()
    };
    let input = scan::stage::In {
        clusters_from: None,
        images,
        encoder: stored(encoder.save(folder.path())?),
        neighbors: stored(table(ids).save(folder.path())?),
        start: None,
        val_images: None,
        val_neighbors: None,
    };
    let seconds = epochs::<scan::Scan>(&config, input, "best_head", folder.path())?;
    Ok((seconds, json!({ "dim": side * side })))
}

/// Neighbors that are no worse than any others.
fn table(ids: Vec<String>) -> NeighborTable {
    const M: usize = 20;
    let n = ids.len();
    let index = (0..n).flat_map(|row| (1..=M).map(move |step| ((row + 37 * step) % n) as u32)).collect();
    let similarity = (0..n).flat_map(|_| (1..=M).map(|step| 1.0 / step as f32)).collect();
    NeighborTable { ids, k: M, index, similarity, metric: "cosine".into(), exact: true, recall: None }
}

/// k-means: so many starts by k-means++, so many of Lloyd's iterations each.
fn k_means(settings: &mut Settings) -> Answer<(Vec<f64>, Value)> {
    let (count, dim, clusters) = (settings.get("rows", 60_000), settings.get("dim", 128), settings.get("clusters", 10));
    let (restarts, iterations) = (settings.get("restarts", 3), settings.get("iterations", 20));
    let rows = ground::bells(count * dim);
    let config = KMeans { restarts, iterations, tolerance: 0.0, ..KMeans::new(clusters) };
    let start = Stopwatch::start();
    let fit = config.fit(&rows, dim, &Gemm, Seed::new(1), &Stop::default())?;
    Ok((vec![start.seconds()], json!({ "inertia": fit.inertia, "iterations": fit.iterations })))
}

/// Images through a frozen encoder whose weights are drawn: ViT-S/14 as DINOv2 has it, ViT-B/32 as CLIP, ResNet-50.
fn frozen(settings: &mut Settings) -> Answer<(Vec<f64>, Value)> {
    let (network, batch, times) = (settings.get("network", 0), settings.get("batch", 64), settings.get("repeats", 1));
    let backbones = [Published::Dinov2Small, Published::ClipBase32, Published::Resnet50];
    let backbone = *backbones.get(network).ok_or(format!("no network {network}: 0 to {}", backbones.len() - 1))?;
    let (shape, _) = TowerSettings { backbone, ..TowerSettings::default() }.network(None, None)?;
    let net = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu)?.frozen()?;
    let images = ground::bells(batch * 3 * shape.size * shape.size);
    let images = Tensor::from_vec(images, (batch, 3, shape.size, shape.size), &Device::Cpu)?;
    let seconds = repeated(times, || Ok(net.features(&images, Mode::Eval)?))?;
    Ok((seconds, json!({ "images": batch })))
}
