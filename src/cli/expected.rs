//! Expected run times: by what stages of their kind took here before, else, for those that take longest, by a table.
//!
//! An estimate is a range, and there is none where nothing is known. What a stage took is scaled by images and passes; times
//! of other machines are not used, nor those of stages that had next to nothing to do.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, AddAssign, Mul};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::pipeline::event::{Event, Listener};
use crate::pipeline::graph::Selected;
use crate::pipeline::run::IMAGES;
use crate::pipeline::spec::Node;
use crate::pipeline::state::{Outlook, State};
use crate::store::key::{Input, Key};
use crate::store::record::{Lookup, Record};
use crate::store::{Manifest, lock};

/// Seconds, the least and the most that are expected.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Expected {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Expected {
    /// About as long as this, which was measured here.
    pub(super) fn measured(seconds: f64) -> Self {
        Self { low: 0.7, high: 1.5 } * seconds
    }

    /// So long on another machine of [`CORES`] cores.
    fn elsewhere(seconds: f64) -> Self {
        Self { low: 0.5, high: 2.0 } * (seconds * CORES / rayon::current_num_threads() as f64)
    }
}

impl Mul<f64> for Expected {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self { low: self.low * times, high: self.high * times }
    }
}

impl Add for Expected {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { low: self.low + other.low, high: self.high + other.high }
    }
}

impl AddAssign for Expected {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Expected {
    /// `less than a minute`, `2 to 5 minutes`, `1.5 to 4 hours`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (self.low / 60.0, self.high / 60.0);
        if high <= 1.0 {
            f.write_str("less than a minute")
        } else if high < 100.0 {
            match (low.round().max(1.0), high.ceil()) {
                (low, high) if low >= high => write!(f, "about {high} minutes"),
                (low, high) => write!(f, "{low} to {high} minutes"),
            }
        } else {
            let half = |minutes: f64| (minutes / 30.0).round() / 2.0;
            write!(f, "{} to {} hours", half(low).max(0.5), half(high))
        }
    }
}

/// Cores of the machine that the table is from: an AMD EPYC (Zen 5) with AVX-512.
const CORES: f64 = 2.0;
/// What a stage took tells nothing of one that has more than twice as much to do, unless it took so many seconds.
const TELLING: f64 = 0.8;
/// Shorter runs are not worth a word: seconds.
const WORTH: f64 = 30.0;
/// Kinds that take seconds where others take minutes; unless they are known, they are not counted.
const QUICK: [&str; 21] = [
    "ingest",
    "frozen",
    "onnx_encoder",
    "pretrained",
    "pixels",
    "join",
    "concat",
    "neighbors",
    "kmeans",
    "distill",
    "spectral",
    "consensus",
    "choose",
    "predict",
    "outliers",
    "duplicates",
    "near_duplicates",
    "evaluate",
    "knn_eval",
    "named",
    "probe",
];

/// Images times passes; pairs of images for kinds that compare all of them.
fn amount(kind: &str, settings: &Value, images: usize) -> f64 {
    let number = |name: &str| settings.get(name).and_then(Value::as_f64);
    let images = images as f64;
    match (kind, number("epochs")) {
        ("neighbors" | "duplicates", _) => images * images,
        // A sample of 2048 by default, and each number of clusters up to the largest.
        ("auto_k", _) => images.min(number("sample").unwrap_or(2048.0)) * number("max").unwrap_or(50.0),
        (_, Some(epochs)) => images * epochs,
        // 50 passes, and 2000 steps of an eighth of the images at least.
        ("scan_heads", None) => {
            let batch = number("batch").unwrap_or_else(|| (images / 8.0).clamp(64.0, 1024.0));
            (50.0 * images).max(2000.0 * batch)
        }
        (_, None) => images,
    }
}

/// Seconds that training for [`amount`] 1 takes on the machine of the table, of kinds that take longest in a pipeline of `kinset init`.
/// `loaded` says that others trained the network of the features, which is then a large one.
fn tabled(kind: &str, settings: &Value, loaded: bool) -> Option<f64> {
    match kind {
        // A residual network on crops: time goes with the pixels and with the square of the channels.
        "simclr" => {
            let network = settings.get("network")?;
            let of = |table: &Value, name: &str| table.get(name).and_then(Value::as_f64);
            if network.get("backbone").and_then(Value::as_str) != Some("resnet18") {
                return None;
            }
            let (width, size) = (of(network, "width")? / 16.0, of(settings, "size")? / 32.0);
            Some(2.9e-3 * width * width * size * size)
        }
        "auto_k" => Some(settings.get("restarts").and_then(Value::as_f64)? * if loaded { 1.2e-4 } else { 3e-5 }),
        // Twelve heads on 1280 numbers of an image, or on 128.
        "scan_heads" => Some(settings.get("heads").and_then(Value::as_f64)? / 12.0 * if loaded { 9.7e-5 } else { 1.8e-5 }),
        _ => None,
    }
}

/// What is known of the stages that a run has before it.
pub(super) struct Forecast {
    pub(super) all: Expected,
    /// Stages of which nothing is known.
    pub(super) unknown: Vec<String>,
}

impl Forecast {
    /// Of the selected stages that are not fresh. `images` says of how many images a source is that was not read yet.
    pub(super) fn of(
        outlook: &Outlook<'_>,
        states: &[State],
        selected: &Selected,
        images: impl Fn(&Node) -> Option<usize>,
    ) -> Self {
        let mut found = Self { all: Expected::default(), unknown: Vec::new() };
        let mut known: BTreeMap<&str, Vec<(Manifest, Record)>> = BTreeMap::new();
        for &index in &selected.nodes {
            let node = &outlook.spec.nodes[index];
            if !matches!(states[index], State::Stale { .. } | State::Waits { .. }) {
                continue;
            }
            let read = outlook.images(states, index).or_else(|| source_of(outlook, index).and_then(&images));
            let before = known.entry(&node.kind).or_insert_with(|| earlier(outlook, &node.kind));
            match read.and_then(|read| of_stage(outlook, states, node, read, before)) {
                Some(seconds) => found.all += seconds,
                None if QUICK.contains(&node.kind.as_str()) => {}
                None => found.unknown.push(node.name.clone()),
            }
        }
        found
    }

    /// In words, where it is worth a word and something is known.
    pub(super) fn told(&self) -> Option<String> {
        if self.all.high < WORTH {
            return None;
        }
        let all = self.all;
        Some(match self.unknown.as_slice() {
            [] => format!("expected to take {all}"),
            unknown => {
                let names: Vec<String> = unknown.iter().map(|name| format!("`{name}`")).collect();
                format!("expected to take {all}, and more for {}, of which nothing is known", names.join(", "))
            }
        })
    }
}

/// The source whose images a stage reads, straight or through the features of others.
fn source_of<'s>(outlook: &Outlook<'s>, index: usize) -> Option<&'s Node> {
    let ports = &outlook.spec.nodes[index].ports;
    let [reference] = ports.get("features").or_else(|| ports.get("images"))?.as_slice() else { return None };
    let above = &outlook.spec.nodes[reference.node];
    if above.kind == "ingest" { Some(above) } else { source_of(outlook, reference.node) }
}

/// The results of a kind that were made on this machine and say of how many images they are, the newest first. What cannot be read
/// tells nothing.
fn earlier(outlook: &Outlook<'_>, kind: &str) -> Vec<(Manifest, Record)> {
    let Ok(manifests) = outlook.store.newest_manifests(kind) else { return Vec::new() };
    let here = lock::host();
    let of = |(key, manifest)| match outlook.store.lookup(&key) {
        Ok(Lookup::Hit(record)) if record.host.as_ref() == Some(&here) && record.notes.contains_key(IMAGES) => {
            Some((manifest, record))
        }
        _ => None,
    };
    manifests.filter_map(of).collect()
}

/// Settings that decide how long an image takes.
const COSTLY: [&str; 6] = ["network", "size", "heads", "hidden", "update", "inner_steps"];

/// Whether an image takes as long with these settings as with those.
fn alike(one: &Value, other: &Value) -> bool {
    COSTLY.iter().all(|name| one.get(name) == other.get(name))
}

/// The stage whose network makes the features of a stage.
fn encoder_of<'s>(outlook: &Outlook<'s>, node: &Node) -> Option<(usize, &'s Node)> {
    let above = |port: &str| node.ports.get(port)?.first().map(|reference| reference.node);
    let spec = outlook.spec;
    match (above("encoder"), above("features")) {
        (Some(encoder), _) => Some((encoder, &spec.nodes[encoder])),
        (None, Some(features)) => encoder_of(outlook, &spec.nodes[features]),
        (None, None) => None,
    }
}

/// Kinds that load a network, which is larger than those that are trained here.
fn is_loaded(kind: &str) -> bool {
    matches!(kind, "frozen" | "onnx_encoder")
}

/// How long a stage takes for so many images.
fn of_stage(
    outlook: &Outlook<'_>,
    states: &[State],
    node: &Node,
    images: usize,
    earlier: &[(Manifest, Record)],
) -> Option<Expected> {
    let wanted = amount(&node.kind, &node.settings, images);
    let encoder = encoder_of(outlook, node);
    let same_encoder = |manifest: &Manifest| match (encoder, manifest.inputs.get("encoder")) {
        (Some((place, _)), Some(Input::One(read))) => {
            matches!(&states[place], State::Fresh { record, .. } if record.outputs.values().any(|output| output.content == *read))
        }
        _ => false,
    };
    let rate = earlier.iter().find_map(|(manifest, record)| {
        let had = amount(&node.kind, manifest.settings(), record.notes.get(IMAGES)?.parse().ok()?);
        let tells = had > 0.0
            && !record.notes.contains_key("resumed")
            && (record.seconds >= TELLING || wanted <= 2.0 * had)
            && alike(&node.settings, manifest.settings())
            && (node.kind != "embed" || same_encoder(manifest));
        tells.then(|| record.seconds / had)
    });
    let loaded = encoder.is_some_and(|(_, encoder)| is_loaded(&encoder.kind));
    match (rate, node.kind.as_str()) {
        (Some(rate), _) => Some(Expected::measured(rate * wanted)),
        // A network that is trained here takes an image much longer while it is trained.
        (None, "embed") if !loaded => Some(Expected::default()),
        (None, kind) => tabled(kind, &node.settings, loaded).map(|rate| Expected::elsewhere(rate * wanted)),
    }
}

/// Says how long the rest of a run will take, once its images are there and something has to be computed from them.
pub(super) struct Told<'a> {
    pub(super) outlook: Outlook<'a>,
    pub(super) selected: Selected,
    /// Takes what is to be said.
    pub(super) say: &'a (dyn Fn(&str) + Sync),
    said: AtomicBool,
    /// The keys of the results that are there, by stage.
    made: Mutex<BTreeMap<String, Key>>,
}

impl<'a> Told<'a> {
    pub(super) fn new(outlook: Outlook<'a>, selected: Selected, say: &'a (dyn Fn(&str) + Sync)) -> Self {
        Self { outlook, selected, say, said: AtomicBool::new(false), made: Mutex::default() }
    }
}

impl Listener for Told<'_> {
    fn hear(&self, event: &Event) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Event::StageFresh { stage, key }
        | Event::StageFinished { stage, key, .. }
        | Event::StagePulled { stage, key, .. } = event
        {
            made.extend(key.parse().ok().map(|key| (stage.clone(), key)));
        }
        let Event::StageStarted { kind, .. } = event else { return };
        if kind == "ingest" || is_loaded(kind) || self.said.swap(true, Ordering::Relaxed) {
            return;
        }
        let states = self.outlook.states_after(&self.selected.forced, &made);
        if let Some(text) = Forecast::of(&self.outlook, &states, &self.selected, |_| None).told() {
            (self.say)(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_range_is_said_in_whole_minutes_or_half_hours() {
        let said = |low: f64, high: f64| Expected { low: 60.0 * low, high: 60.0 * high }.to_string();
        assert_eq!(said(0.1, 0.9), "less than a minute");
        assert_eq!(said(0.4, 2.1), "1 to 3 minutes");
        assert_eq!(said(4.6, 4.9), "about 5 minutes");
        assert_eq!(said(40.0, 99.0), "40 to 99 minutes");
        assert_eq!(said(80.0, 230.0), "1.5 to 4 hours");
    }

    #[test]
    fn more_images_and_passes_take_longer_and_heads_have_a_least_number_of_steps() {
        let of = |kind: &str, settings: Value, images: usize| amount(kind, &settings, images) as u64;
        assert_eq!(of("simclr", json!({ "epochs": 10 }), 300), 3000);
        assert_eq!(of("embed", json!({}), 300), 300);
        assert_eq!(of("neighbors", json!({}), 300), 90_000);
        assert_eq!(of("scan_heads", json!({ "epochs": null }), 1600), 400_000);
        assert_eq!(of("scan_heads", json!({ "epochs": null }), 100_000), 5_000_000);
        assert_eq!(of("scan_heads", json!({ "epochs": 1 }), 1600), 1600);
        assert_eq!(of("auto_k", json!({ "max": 40, "sample": 2048 }), 100_000), 2048 * 40);
    }

    #[test]
    fn nothing_is_said_of_what_is_short_or_not_known() {
        let told = |high: f64, unknown: &[&str]| {
            let unknown = unknown.iter().map(|&name| name.to_owned()).collect();
            Forecast { all: Expected { low: high / 2.0, high }, unknown }.told()
        };
        assert_eq!(told(20.0, &["ruc"]), None);
        assert_eq!(told(120.0, &[]).unwrap(), "expected to take 1 to 2 minutes");
        let more = told(120.0, &["ruc"]).unwrap();
        assert_eq!(more, "expected to take 1 to 2 minutes, and more for `ruc`, of which nothing is known");
        assert_eq!(tabled("ruc", &json!({}), false), None);
        assert_eq!(tabled("simclr", &json!({ "network": { "backbone": "resnet50", "width": 64 }, "size": 32 }), false), None);
        let rate = |width: usize| {
            tabled("simclr", &json!({ "network": { "backbone": "resnet18", "width": width }, "size": 32 }), false).unwrap()
        };
        assert!((rate(32) / rate(16) - 4.0).abs() < 1e-9);
    }
}
