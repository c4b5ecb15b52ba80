//! The data of a report page: all its numbers and words, and which images it shows.
//!
//! It is gathered once, drawn by [`draw`](crate::draw) and [`page`](crate::page), and printed by
//! `kinset report --json`. There is no clock in it: the same results give the same page.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use kinset_artifact::near_duplicates::NearSummary;
use kinset_artifact::selection::Report as SelectionReport;

/// Something to show, or why there is nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Part<T> {
    Shown(T),
    Absent {
        /// Why, as a sentence for people.
        absent: String,
    },
}

impl<T> Part<T> {
    pub fn absent(why: impl Into<String>) -> Self {
        Self::Absent { absent: why.into() }
    }

    pub fn shown(&self) -> Option<&T> {
        match self {
            Self::Shown(value) => Some(value),
            Self::Absent { .. } => None,
        }
    }

    /// Why there is nothing to show.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Shown(_) => None,
            Self::Absent { absent } => Some(absent),
        }
    }
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    pub pipeline: String,
    /// Its file, as it was named.
    pub file: String,
    pub profile: Option<String>,
    /// Changes when anything the report is made from changes.
    pub fingerprint: String,
    /// The version of kinset that made the report.
    pub version: String,
    /// The seed of what is not repeated.
    pub seed: u64,
    /// The seeds of `[repeat]`.
    pub seeds: Vec<u64>,
    /// The device as the file names it.
    pub device: String,
    pub standing: Standing,
    /// The last run that did something.
    pub run: Option<LastRun>,
    /// All stages in the order of the file, repetitions apart.
    pub stages: Vec<StageRow>,
    /// What flows where, between places of `stages`.
    pub wires: Vec<Wire>,
    pub warnings: Vec<Warning>,
    /// A table for each stage that measures.
    pub scores: Part<Vec<Board>>,
    /// A group of curves for each stage that trains.
    pub curves: Part<Vec<Training>>,
    pub confusions: Part<Vec<Confusion>>,
    pub clusters: Part<Clusters>,
    pub calibration: Part<Calibration>,
    pub neighbors: Part<Neighborhoods>,
    pub map: Part<Map>,
    pub duplicates: Option<Copies>,
    /// What repeats within and across sets of features.
    pub near: Vec<NearSets>,
    pub outliers: Option<Unusual>,
    pub selections: Vec<Selected>,
    /// How numbers of clusters compare.
    pub counts: Vec<CountTable>,
    /// How settings compare, for each thing that was measured under several.
    pub varied: Vec<Sweep>,
}

/// How a pipeline stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "word", rename_all = "kebab-case")]
pub enum Standing {
    /// Every stage has a cached result.
    Complete,
    /// Nothing ever ran.
    Never,
    /// A stage failed in the last run.
    Failed { stages: Vec<String> },
    /// The last run was stopped, or died, before it was through.
    Interrupted {
        /// What was at work.
        stages: Vec<String>,
        /// True if it was asked to stop; false if it ended without a word, or is still running.
        asked: bool,
    },
    /// Some stages have no cached result: the file changed, or only some were asked for.
    Partial {
        /// Stages that would run.
        stages: usize,
    },
}

/// The last run that did something.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LastRun {
    /// Its folder: when it began.
    pub began: String,
    /// How long it took, in seconds; nothing if it did not end.
    pub seconds: Option<f64>,
    pub exit: Option<u8>,
    /// Stages that worked.
    pub ran: usize,
    /// Stages whose results were there.
    pub fresh: usize,
    /// The version of kinset.
    pub version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StageRow {
    pub name: String,
    /// Its name in the file.
    pub family: String,
    /// Its name without the mark of a repetition.
    pub variant: String,
    pub kind: String,
    /// `fresh`, `to run`, `waits`, `broken`: how it stands now.
    pub state: String,
    /// Why it is not fresh.
    pub why: Option<String>,
    /// What it did in the last run: `ran`, `cached`, `failed`, `stopped`, `blocked`, `adopted`, `began`.
    pub last: Option<String>,
    pub error: Option<String>,
    pub hint: Option<String>,
    /// How long its result took, in seconds.
    pub seconds: Option<f64>,
    /// Memory of the process while it ran, at most, in bytes.
    pub peak_memory: Option<u64>,
    /// Size of its result in bytes.
    pub bytes: Option<u64>,
    /// When it was done, UTC.
    pub finished: Option<String>,
    /// The version of kinset that did it.
    pub version: Option<String>,
    /// Its seed, if it draws.
    pub seed: Option<u64>,
    pub key: Option<String>,
}

/// What flows from one stage to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Wire {
    /// Place of the maker in `stages`.
    pub from: usize,
    /// Place of the reader.
    pub to: usize,
    pub artifact: String,
}

/// What a reader should not overlook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Warning {
    /// `collapse`, `imbalance`, `confidence`, `calibration`, `duplicates`, `baseline`, `names`, `stage`, `report`.
    pub about: &'static str,
    pub text: String,
}

/// A table of scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Board {
    /// The stage that measured.
    pub stage: String,
    pub images: String,
    /// How many of them have a class.
    pub count: usize,
    pub classes: usize,
    /// How clusters are matched with classes.
    pub matching: String,
    pub rows: Vec<BoardRow>,
}

/// A line of a table of scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BoardRow {
    /// What was measured.
    pub stage: String,
    /// Its kind: `scan`, `kmeans`.
    pub kind: String,
    /// True for k-means, which stands beside every method.
    pub baseline: bool,
    /// True if its training saw these images (without labels); nothing where that is unknown.
    pub seen: Option<bool>,
    /// One for each repetition.
    pub seeds: Vec<u64>,
    /// By name (`acc`, `nmi`, …), in the order of a table; shares from 0 to 1.
    pub measures: Vec<Measured>,
    pub clusters: usize,
    /// Images in the smallest and the largest cluster, of the first repetition.
    pub sizes: Option<(u64, u64)>,
    /// What else there is to say: how the head was chosen.
    pub notes: Vec<String>,
}

/// A measure over repetitions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// The name of one of [`MEASURES`](kinset_artifact::scores::MEASURES), or a measure without labels.
    pub name: &'static str,
    /// One for each repetition.
    pub values: Vec<f64>,
    pub mean: f64,
    /// Their standard deviation (n − 1); nothing for one.
    pub std: Option<f64>,
}

/// Something under all combinations of the settings that vary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sweep {
    /// What it is, by its name in the file.
    pub stage: String,
    /// What it was measured on; empty without scores.
    pub images: String,
    pub measured_by: Option<String>,
    /// Names of the settings.
    pub settings: Vec<String>,
    pub rows: Vec<SweepRow>,
}

/// One combination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepRow {
    /// The stage with what varies, without the mark of a repetition.
    pub stage: String,
    /// By setting.
    pub values: BTreeMap<String, serde_json::Value>,
    /// One for each repetition.
    pub seeds: Vec<u64>,
    /// `information`, `agreement`, then scores.
    pub measures: Vec<Measured>,
    /// True for the one with the most information between neighbors, which needs no labels.
    pub most: bool,
}

/// How a training went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Training {
    /// The stage, without the mark of a repetition.
    pub stage: String,
    pub kind: String,
    /// True if it did not end: these are the epochs it got to.
    pub unfinished: bool,
    pub charts: Vec<Chart>,
    /// The step that was chosen without labels, and by what.
    pub best: Option<Best>,
}

/// A choice made without labels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Best {
    /// The curve that decides.
    pub by: String,
    /// The step at which it is least.
    pub step: u32,
    /// Its value there.
    pub value: f64,
    pub last_step: u32,
    /// Its value there.
    pub last: f64,
}

/// Lines that share axes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chart {
    /// What was measured: `loss`.
    pub name: String,
    /// A line for each repetition, or for each of a few related measures.
    pub lines: Vec<Line>,
}

/// A line of a chart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// Its name; empty if it is alone.
    pub name: String,
    /// Step and value.
    pub points: Vec<(f64, f64)>,
}

/// Classes against clusters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Confusion {
    pub measured_by: String,
    /// What was measured.
    pub stage: String,
    pub images: String,
    /// True for the one to look at first.
    pub main: bool,
    /// `[C]`: names of the classes.
    pub classes: Vec<String>,
    /// `[K]`: clusters in the order of the columns: each behind the class it is matched with.
    pub columns: Vec<usize>,
    /// `[K]`: the class that each column is matched with.
    pub matched: Vec<Option<usize>>,
    /// `[C, K]`: images of a class (row) in a cluster (column), in the order of the columns.
    pub counts: Vec<Vec<u64>>,
    /// `[C, K]`: the same as shares of the class: each row that has images sums to 1.
    pub shares: Vec<Vec<f64>>,
    /// The largest entries that are not on the diagonal.
    pub top: Vec<Mistake>,
}

/// Images of one class among those of another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mistake {
    pub class: String,
    pub cluster: usize,
    /// The class that the cluster is matched with.
    pub taken_for: Option<String>,
    pub count: u64,
    /// As a share of their class.
    pub share: f64,
}

/// Images that repeat others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Copies {
    /// The stage that found them.
    pub stage: String,
    pub groups: usize,
    /// Images that another stands for.
    pub copies: usize,
    /// Of these, with pixels equal to those of that one.
    pub exact: usize,
    /// The similarity from which on images are near.
    pub least: f64,
    /// What was compared.
    pub by: String,
    /// Some groups, of each first the image that is kept.
    pub shown: Vec<Vec<Shot>>,
}

/// Images that are unlike all others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unusual {
    /// The stage that scored them.
    pub stage: String,
    /// Neighbors that an image is compared with.
    pub k: usize,
    /// The most unusual first; their similarity is the mean one to their neighbors.
    pub shown: Vec<Shot>,
}

/// An image to be shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shot {
    /// Its number in the result that is shown; pictures are found by `id`.
    pub row: u32,
    pub id: String,
    /// Its cluster; −1 if it has none.
    pub cluster: i32,
    pub confidence: Option<f32>,
    pub class: Option<String>,
    /// False if its class is another than that of its cluster, or of the image it is shown for; nothing where one of them is unknown.
    pub right: Option<bool>,
    /// How alike it is to the image it is shown for.
    pub similarity: Option<f32>,
}

/// All clusters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clusters {
    /// The stage whose assignments these are.
    pub stage: String,
    /// The stage that made the classifier.
    pub classifier: Option<String>,
    pub images: String,
    pub count: usize,
    pub unassigned: usize,
    /// What prototypes were chosen by.
    pub prototypes_by: String,
    /// How clusters got their classes, if they have any.
    pub matching: Option<String>,
    /// The share of images in the right cluster under that matching.
    pub accuracy: Option<f64>,
    /// The groups that a person made of them; nothing if nobody named any.
    pub groups: Option<Groups>,
    /// Images by confidence, in equal bins from 0 to 1.
    pub confidence: Vec<u64>,
    pub median_confidence: f64,
    /// By number.
    pub each: Vec<Cluster>,
}

/// What a person made of clusters.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Groups {
    pub each: Vec<Group>,
    /// Images that were moved by hand.
    pub moved: usize,
    /// Images that were rejected.
    pub rejected: usize,
}

/// Clusters of one name, and images that were moved there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    pub name: String,
    pub clusters: Vec<usize>,
    pub images: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cluster {
    pub number: usize,
    pub size: usize,
    /// Mean confidence of its images.
    pub confidence: Option<f64>,
    /// What a person calls it.
    pub name: Option<String>,
    /// The class it is matched with.
    pub class: Option<String>,
    /// Its most frequent classes, with the number of images.
    pub classes: Vec<(String, u64)>,
    /// The share of its most frequent class, of those with a class.
    pub purity: Option<f64>,
    pub prototype: Option<Shot>,
    /// The images it is surest of, the surest first.
    pub most: Vec<Shot>,
    /// Those it is least sure of, the least sure first.
    pub least: Vec<Shot>,
    pub random: Vec<Shot>,
}

/// Confidence against accuracy.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// The stage whose assignments these are.
    pub stage: String,
    /// Images with a class.
    pub images: usize,
    /// Expected calibration error, 0 to 1.
    pub ece: f64,
    pub accuracy: f64,
    /// Mean confidence.
    pub confidence: f64,
    /// Lowest confidence first, empty ones included.
    pub bins: Vec<Bin>,
}

/// An interval of confidence.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    pub low: f64,
    pub high: f64,
    pub count: u64,
    /// Their mean confidence.
    pub confidence: f64,
    pub accuracy: f64,
}

/// Images and their neighbors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Neighborhoods {
    pub stage: String,
    /// Neighbors per image.
    pub k: usize,
    /// What similarity is.
    pub metric: String,
    /// True if none was missed.
    pub exact: bool,
    /// The share of true neighbors found, and on how many images that was measured, where it is not exact.
    pub recall: Option<(f64, usize)>,
    /// Share of neighbors of the image's own class, over all images, for all k and for the first.
    pub purity: Option<(f64, f64)>,
    /// Mean similarity of the first and of the last neighbor.
    pub similarity: (f64, f64),
    /// Some images, each with its nearest.
    pub shown: Vec<Neighborhood>,
}

/// An image and its neighbors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Neighborhood {
    pub query: Shot,
    /// Its neighbors, the nearest first.
    pub neighbors: Vec<Shot>,
}

/// Features on paper.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Map {
    /// The stage whose features these are.
    pub stage: String,
    pub dim: usize,
    /// Images there are.
    pub of: usize,
    /// Share of the variance along the two axes of `pca`.
    pub share: (f64, f64),
    pub colors: Colors,
    pub points: Vec<Point>,
}

/// What a color stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Colors {
    Clusters,
    Classes,
    None,
}

/// An image on paper.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    pub shot: Shot,
    /// Its color, from 0; −1 for none.
    pub color: i32,
    /// Along the first two principal components.
    pub pca: (f64, f64),
    pub tsne: (f64, f64),
}

impl Page {
    /// What is seen of other sets than that of the rows.
    pub fn sights(&self) -> impl Iterator<Item = &Sight> {
        let taken = self.selections.iter().filter_map(|selected| selected.taken.as_ref()).flat_map(Taken::all);
        taken.chain(self.near.iter().flat_map(NearSets::all)).map(|glimpse| &glimpse.sight)
    }
}

/// What a curation stage found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Selected {
    pub stage: String,
    pub report: SelectionReport,
    /// Some of the images.
    pub taken: Option<Taken>,
}

/// Images of a selection, to look at.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Taken {
    /// Some images of the target, each with the nearest of those that were taken for it.
    pub pairs: Vec<(Glimpse, Vec<Glimpse>)>,
    /// Some of all that were taken, at random.
    pub lot: Vec<Glimpse>,
    /// Images of the target that are farthest from what was taken, each with the nearest of the pool.
    pub missed: Vec<(Glimpse, Vec<Glimpse>)>,
    /// A typical image of each part of the pool.
    pub regions: Vec<Glimpse>,
}

impl Taken {
    pub fn all(&self) -> impl Iterator<Item = &Glimpse> {
        let pairs = self.pairs.iter().chain(&self.missed);
        pairs.flat_map(|(target, beside)| std::iter::once(target).chain(beside)).chain(&self.lot).chain(&self.regions)
    }
}

/// What repeats within and across a pool, a target and held-out sets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NearSets {
    pub stage: String,
    pub summary: NearSummary,
    /// What was found, in words.
    pub told: Vec<String>,
    /// Some images with a near copy in an earlier set: what people call their set, the image, the copy.
    pub shared: Vec<(String, Glimpse, Glimpse)>,
    /// Some groups, the least alike first: the image that is kept, and the others.
    pub groups: Vec<(Glimpse, Vec<Glimpse>)>,
}

impl NearSets {
    pub fn all(&self) -> impl Iterator<Item = &Glimpse> {
        let groups = self.groups.iter().flat_map(|(kept, rest)| std::iter::once(kept).chain(rest));
        self.shared.iter().flat_map(|(_, image, copy)| [image, copy]).chain(groups)
    }
}

/// An image of some set, to be shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Glimpse {
    pub id: String,
    pub sight: Sight,
    /// How alike it is to the image it is shown for.
    pub similarity: Option<f64>,
}

/// Where a picture is seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// A row of the images that a stage gave.
    Table {
        /// The place of the stage in the file.
        node: usize,
        row: usize,
    },
    File(PathBuf),
    Nowhere,
}

/// How numbers of clusters compare.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CountTable {
    pub stage: String,
    /// The number its rule chose.
    pub chosen: usize,
    /// Estimators that voted for it.
    pub named_by: usize,
    /// False if half of the estimators or fewer voted for it: then it is no recommendation.
    pub agreed: bool,
    pub rule: String,
    pub votes: BTreeMap<String, usize>,
    /// A chart for each criterion, over the number of clusters.
    pub charts: Vec<Chart>,
}
