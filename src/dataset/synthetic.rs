//! Drawn pictures, for tests and smoke runs: K shapes and textures with random place, size, turn and noise.
//!
//! Every picture depends only on the seed, its split and its number. Only additions, multiplications, divisions and square roots
//! are used, which IEEE 754 rounds the same everywhere, so the bytes are equal on every machine.

use super::entry::{Entry, Format, Request, Split};
use super::error::Result;
use super::reader::{DatasetFiles, DatasetReader, Labels, Record};
use super::source::Source;
use kinset_artifact::pixels::Pixels;
use kinset_base::seed::{Rng, Seed};

pub(super) static DATASETS: &[Entry] = &[Entry {
    license: "none needed",
    splits: &[Split::named("train"), Split::named("test")],
    ..Entry::new("synthetic", "drawn shapes and textures, for tests: nothing is read", "", &Synthetic)
}];

/// The classes, in the order in which `classes = K` takes them.
const SHAPES: [&str; 10] = [
    "disc",
    "horizontal stripes",
    "cross",
    "checkerboard",
    "ring",
    "vertical stripes",
    "square",
    "diagonal stripes",
    "triangle",
    "gradient",
];

#[derive(Clone, Copy)]
struct Settings {
    /// Images per split; 256 unless set.
    images: usize,
    /// The first so many of [`SHAPES`]; 4 unless set.
    classes: usize,
    /// Pixels per side; 16 unless set.
    size: usize,
    /// 1 (gray) unless set to 3 (color: each picture has a random one, so color says nothing of the class).
    channels: usize,
    /// 0 unless set.
    seed: u64,
}

impl Settings {
    /// What a source asks for, defaults filled in.
    fn new(source: &Source) -> Result<Self> {
        let settings = Self {
            images: source.images.unwrap_or(256),
            classes: source.classes.unwrap_or(4),
            size: source.size.unwrap_or(16),
            channels: source.channels.unwrap_or(1),
            seed: source.seed.unwrap_or(0),
        };
        for (name, value, range) in [
            ("images", settings.images, 1..=1_000_000),
            ("classes", settings.classes, 1..=SHAPES.len()),
            ("size", settings.size, 4..=512),
        ] {
            if !range.contains(&value) {
                let problem = format!("must be {} to {}, found {value}", range.start(), range.end());
                return Err(source.fault(name, problem));
            }
        }
        if ![1, 3].contains(&settings.channels) {
            return Err(source.fault("channels", format!("must be 1 or 3, found {}", settings.channels)));
        }
        Ok(settings)
    }
}

#[derive(Debug)]
struct Synthetic;

impl Format for Synthetic {
    fn name(&self) -> &'static str {
        "synthetic"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["images", "classes", "size", "channels", "seed"]
    }

    fn complete(&self, source: &Source) -> Result<Source> {
        if source.root.is_some() {
            return Err(source.fault("root", "does not apply: nothing is read"));
        }
        let Settings { images, classes, size, channels, seed } = Settings::new(source)?;
        Ok(Source {
            images: Some(images),
            classes: Some(classes),
            size: Some(size),
            channels: Some(channels),
            seed: Some(seed),
            ..source.clone()
        })
    }

    fn locate(&self, request: &Request<'_>) -> Result<DatasetFiles> {
        let (settings, parts) = (Settings::new(request.source)?, request.parts.to_vec());
        Ok(DatasetFiles::new(Vec::new(), None, move |_, _| Ok(open(settings, &parts))))
    }
}

fn open(settings: Settings, parts: &[String]) -> DatasetReader {
    let Settings { images, classes, size, channels, seed } = settings;
    let draw_part = |part: &String| {
        let seed = Seed::new(seed).branch("synthetic").branch(part);
        // As even as it gets, in random order: the row says nothing of the class.
        let mut labels: Vec<usize> = (0..images).map(|row| row % classes).collect();
        seed.branch("labels").rng().shuffle(&mut labels);
        (0..).zip(labels).map(move |(row, class)| {
            let pixels = draw(class, size, channels, &mut seed.at(row).rng());
            Ok(Record::raw(pixels, Some(class as i32)))
        })
    };
    let labels = Labels::of_classes(&SHAPES[..classes]);
    DatasetReader::chain(labels, images * parts.len(), parts.iter().map(draw_part).collect())
}

/// One picture of a class.
fn draw(class: usize, size: usize, channels: usize, rng: &mut Rng) -> Pixels {
    // Everything in units of the side: the center, the half-width, the period of a texture.
    let (cx, cy) = (rng.between(0.4, 0.6), rng.between(0.4, 0.6));
    let half = rng.between(0.22, 0.34);
    let period = rng.between(0.22, 0.34);
    let phase = rng.unit();
    let back = rng.between(10.0, 70.0);
    let mut ink = [0.0; 3];
    for value in &mut ink {
        *value = rng.between(150.0, 245.0);
    }
    let step = 1.0 / size as f64;
    let mut data = Vec::with_capacity(size * size * channels);
    for y in 0..size {
        for x in 0..size {
            // Four samples per pixel soften the edges.
            let mut cover = 0.0;
            for (dx, dy) in [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)] {
                cover += shape(class, (x as f64 + dx) * step, (y as f64 + dy) * step, cx, cy, half, period, phase);
            }
            let noise = rng.between(-8.0, 8.0);
            for &ink in &ink[..channels] {
                data.push((back + (ink - back) * cover * 0.25 + noise).clamp(0.0, 255.0).round() as u8);
            }
        }
    }
    Pixels::new(size, size, channels, data)
}

/// How much ink a class has at a point, 0–1.
#[expect(clippy::too_many_arguments, reason = "a point and the five numbers of a drawing; a struct would only rename them")]
fn shape(class: usize, x: f64, y: f64, cx: f64, cy: f64, half: f64, period: f64, phase: f64) -> f64 {
    let (dx, dy) = ((x - cx).abs(), (y - cy).abs());
    let radius = (dx * dx + dy * dy).sqrt();
    let stripe = |along: f64| (along / period + phase).fract() < 0.5;
    let inked = match SHAPES[class] {
        "disc" => radius < half,
        "ring" => radius < half * 1.15 && radius > half * 0.6,
        "square" => dx.max(dy) < half * 0.9,
        "cross" => dx.min(dy) < half * 0.3 && dx.max(dy) < half * 1.2,
        "triangle" => y < cy + half && dx < (y - (cy - half)) * 0.5,
        "horizontal stripes" => stripe(y),
        "vertical stripes" => stripe(x),
        "diagonal stripes" => stripe((x + y) * 0.75),
        "checkerboard" => stripe(x) ^ stripe(y),
        _ => return x * (1.0 - phase) + y * phase,
    };
    f64::from(u8::from(inked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_digest;
    use crate::reader::Content;
    use crate::registry;
    use kinset_base::search_path::DataPaths;
    use kinset_store::digest::Hasher;

    fn draw_all(source: &Source) -> Vec<Record> {
        let located = registry::locate(source, &DataPaths::new("", None, None)).unwrap();
        assert!(located.files.is_empty());
        located.open(&mut file_digest).unwrap().records.map(Result::unwrap).collect()
    }

    fn small(split: &str) -> Source {
        let mut source = Source::named("synthetic").split(split);
        (source.images, source.classes, source.size) = (Some(40), Some(10), Some(12));
        source
    }

    fn pixels(record: &Record) -> &Pixels {
        match &record.content {
            Content::Raw(pixels) => pixels,
            Content::Encoded { .. } => panic!("drawings are raw"),
        }
    }

    #[test]
    fn drawings_are_pinned_and_each_depends_on_its_number_only() {
        let records = draw_all(&small("train"));
        let mut hasher = Hasher::plain();
        for record in &records {
            hasher.update(&pixels(record).data);
        }
        assert_eq!(hasher.finish().short(), "46e4bf1af3e3", "a change here moves every test that uses drawings");
        let mut limited = small("train");
        limited.limit = Some(7);
        assert_eq!(draw_all(&limited), records[..7]);
        let mut color = small("train");
        color.channels = Some(3);
        assert_eq!(pixels(&draw_all(&color)[0]).data.len(), 12 * 12 * 3);
    }

    #[test]
    fn splits_and_seeds_differ_and_join() {
        let (train, test) = (draw_all(&small("train")), draw_all(&small("test")));
        assert_ne!(pixels(&train[0]), pixels(&test[0]));
        assert_eq!(draw_all(&small("all")), [train.clone(), test].concat());
        let mut other = small("train");
        other.seed = Some(1);
        assert_ne!(draw_all(&other), train);
    }

    #[test]
    fn classes_are_even_and_their_order_is_random() {
        let labels: Vec<i32> = draw_all(&small("train")).iter().map(|record| record.label.unwrap()).collect();
        for class in 0..10 {
            assert_eq!(labels.iter().filter(|&&label| label == class).count(), 4);
        }
        assert!(labels.iter().enumerate().any(|(row, &label)| label != (row % 10) as i32));
    }

    #[test]
    fn the_class_shows_in_the_pixels() {
        // One nearest neighbor from train to test: far above the chance of one in ten.
        let (train, test) = (draw_all(&small("train")), draw_all(&small("test")));
        let distance = |a: &Record, b: &Record| -> i64 {
            pixels(a).data.iter().zip(&pixels(b).data).map(|(&a, &b)| (i64::from(a) - i64::from(b)).pow(2)).sum()
        };
        let right = test
            .iter()
            .filter(|query| train.iter().min_by_key(|known| distance(known, query)).unwrap().label == query.label)
            .count();
        assert!(right >= 20, "{right} of 40");
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (source, expected) in [
            (Source { classes: Some(11), ..small("all") }, "`classes` of `synthetic` must be 1 to 10, found 11"),
            (Source { channels: Some(2), ..small("all") }, "`channels` of `synthetic` must be 1 or 3, found 2"),
            (Source { size: Some(0), ..small("all") }, "`size` of `synthetic` must be 4 to 512, found 0"),
        ] {
            assert_eq!(registry::identity(&source).unwrap_err().to_string(), expected);
        }
    }
}
