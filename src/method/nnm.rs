//! # NNM: match with neighbors in the batch and in the whole set
//!
//! Nearest neighbor matching, a clustering stage that builds on SCAN's: see [`Nnm::SIGN`].
//!
//! # The published settings
//! From `configs/scan/*.yml` of the authors' code. [`Config::default`] is the column CIFAR-10. For all of them: λ 5, all other
//! terms with weight 1, one epoch of warm-up, 100 epochs at a constant rate.
//!
//! | | CIFAR-10 | CIFAR-20 | STL-10 | ImageNet-10 | -50 | -100 | -200 | -Dogs |
//! |---|---|---|---|---|---|---|---|---|
//! | `clusters` | 10 | 20 | 10 | 10 | 50 | 100 | 200 | 15 |
//! | backbone, stem | ResNet-18, `cifar` | same | `stl` | `stl` | ResNet-50, `imagenet` | same | same | same |
//! | `update` | all | all | all | all | heads | heads | heads | heads |
//! | `heads` | 3 | 3 | 3 | 1 | 10 | 3 | 1 | 3 |
//! | `batch` | 200 | 500 | 200 | 128 | 512 | 1000 | 1024 | 512 |
//! | `optimizer` | `adam`, 1e-4, decay 1e-4 | same | same | same | `sgd`, 5.0, momentum 0.9, no decay | same | same | same |
//! | `num_neighbors` | 20 | 20 | 20 | 20 | 50 | 50 | 50 | 50 |
//! | `augment.kind` | strong | strong | strong | strong | simclr | simclr | simclr | simclr |
//! | `augment.cutout` | 16 | 16 | 32 | 32 | | | | |
//! | side of a view | 32 | 32 | 96 | 96 | 224 | 224 | 224 | 224 |
//!
//! The table of published scores was reached with `global = "permuted"`, `global_views = "augmented"`, and with the checkpoint
//! picked by accuracy on the test set, which no setting here can do.

use std::ops::Range;

use candle_core::{D, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::artifact::curve::Curve;
use crate::artifact::encoder::{Classifier, Encoder, Tensors, Weights};
use crate::artifact::images::{ImageSet, Images};
use crate::artifact::neighbors::{NeighborTable, Neighbors};
use crate::artifact::{Draft, Stored};
use crate::augment::{Recipe, Strong};
use crate::base::seed::Seed;
use crate::kernel::neighbors::{NeighborError, Search, all_pairs};
use crate::math::{cosine, euclid};
use crate::method::scan::{Update, validation_loss};
use crate::model::ClassifierNet;
use crate::model::Mode;
use crate::model::encoder::EncoderNet;
use crate::model::params::values;
use crate::stage::learner::{Learner, Order};
use crate::stage::selection::Selection;
use crate::stage::sight::{Sight, belongs, encoded, numbers, partner};
use crate::stage::training::{Measured, Snapshot, Trainee, measured, train};
use crate::stage::{Complaint, Context, Method, Settings, Sign, Stage, StageError};
use crate::train::ahead::{Ahead, Place};
use crate::train::batches::{Batches, Last};
use crate::train::feed::Feed;
use crate::train::health;
use crate::train::settings::{OptimizerSettings, ScheduleSettings};

/// Whose neighbor in the whole set an image is matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Global {
    /// Its own: what the paper means.
    Aligned,
    /// That of a random image, drawn anew each epoch: what the authors' code does, which collects answers in visiting order and
    /// reads them by number. The published scores come from it; it acts as a penalty on confidence.
    Permuted,
    /// Nobody's: the loss of the first epoch throughout.
    Off,
}

/// Which views the neighbors in the whole set are found on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GlobalViews {
    /// The pictures as they are.
    Plain,
    /// One view by `augment` each, as in the authors' code.
    Augmented,
}

/// Settings; the defaults are those of NNM's `configs/scan/scan_cifar10.yml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Clusters, K; more than there are classes is fine.
    pub clusters: usize,
    /// Heads trained side by side, H; the best by validation loss is chosen.
    pub heads: usize,
    /// Hidden units of a head; none: linear, as in the paper.
    pub hidden: Option<usize>,
    /// What training moves: `all`, or `heads` on an encoder in evaluation mode (ImageNet).
    pub update: Update,
    /// Passes over the images.
    pub epochs: u64,
    /// Anchors per step, B.
    pub batch: usize,
    /// How many neighbors are candidates: of those connected the first so many, or so many are mined here. 20 on small sets, 50 on
    /// ImageNet.
    pub num_neighbors: usize,
    /// Whether an image is a candidate for its own neighbor, as in the authors' code.
    pub include_self: bool,
    /// Whether the neighbor in the batch is matched with a second view of the anchor (the authors' code since July 2021), or with
    /// the anchor itself (the paper's figure).
    pub second_view: bool,
    /// Weight of the entropy term, λ.
    pub entropy_weight: f64,
    /// Weight of the class terms; 1 in the paper.
    pub class_weight: f64,
    /// Whose neighbor in the whole set an image is matched with.
    pub global: Global,
    /// Which views that neighbor is found on.
    pub global_views: GlobalViews,
    /// Epochs before the match with the whole set joins; 1 in the authors' code.
    pub warm_up: u64,
    /// How many neighbors the validation loss looks at.
    pub validation_neighbors: usize,
    /// Validate after every so many epochs, and after the last.
    pub validate_every: u64,
    /// How weights move.
    pub optimizer: OptimizerSettings,
    /// How the learning rate moves.
    pub schedule: ScheduleSettings,
    /// What anchors, their second views and neighbors go through.
    pub augment: Recipe,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clusters: 10,
            heads: 3,
            hidden: None,
            update: Update::All,
            epochs: 100,
            batch: 200,
            num_neighbors: 20,
            include_self: true,
            second_view: true,
            entropy_weight: 5.0,
            class_weight: 1.0,
            global: Global::Aligned,
            global_views: GlobalViews::Plain,
            warm_up: 1,
            validation_neighbors: 5,
            validate_every: 1,
            optimizer: OptimizerSettings::adam(1e-4, 1e-4),
            schedule: ScheduleSettings::constant(),
            augment: Strong::default().into(),
        }
    }
}

impl Settings for Config {
    fn check(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        let mut at_least = |field, value, least| found.extend(Complaint::unless_at_least(field, value, least));
        at_least("clusters", self.clusters as u64, 2);
        at_least("heads", self.heads as u64, 1);
        at_least("hidden", self.hidden.unwrap_or(1) as u64, 1);
        at_least("epochs", self.epochs, 1);
        at_least("batch", self.batch as u64, 2);
        at_least("num_neighbors", self.num_neighbors as u64, 1);
        at_least("warm_up", self.warm_up, 1);
        at_least("validation_neighbors", self.validation_neighbors as u64, 1);
        at_least("validate_every", self.validate_every, 1);
        found.extend(Complaint::if_negative("entropy_weight", self.entropy_weight));
        found.extend(Complaint::if_negative("class_weight", self.class_weight));
        found.extend(Complaint::below("optimizer", self.optimizer.complaints()));
        found.extend(Complaint::below("schedule", self.schedule.complaints()));
        found.extend(Complaint::below("augment", self.augment.check()));
        found
    }
}

crate::ports! {
    /// What NNM reads.
    pub label_free struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// Image → `[D]`.
        encoder: Stored<Encoder>,
        /// `[N, M]`, mined on features of the same images; without them, NNM mines its own.
        neighbors: Option<Stored<Neighbors>>,
        /// Images to choose epoch and head on; without them, the training images.
        val_images: Option<Stored<Images>>,
        /// Their neighbors among themselves; without them, NNM mines its own.
        val_neighbors: Option<Stored<Neighbors>>,
    }
}

crate::outputs! {
    /// What NNM writes.
    pub struct Out {
        /// All heads of the best epoch, the best of them chosen.
        classifier: Draft<Classifier>,
        /// Loss and its parts per epoch, for training and validation. `loss` is what all epochs share, the match within the
        /// batch; `global`, from the second epoch on, is added to what is minimised.
        curve: Draft<Curve>,
    }
}

/// The clustering stage.
#[derive(Debug)]
pub struct Nnm;

impl Stage for Nnm {
    const KIND: &'static str = "nnm";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "cluster images so that neighbors in batch and set agree";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let images = ImageSet::open(&input.images)?;
        let encoder = Encoder::load(&input.encoder)?;
        StageError::enough_for_clusters("clusters", config.clusters, images.len())?;
        let val_images = input.val_images.as_ref().map(ImageSet::open).transpose()?;
        if val_images.is_none() && input.val_neighbors.is_some() {
            return Err(StageError::Mismatch {
                what: "`val_neighbors` is connected, and `val_images` is not".into(),
                hint: "connect both, or neither to validate on the training images".into(),
            });
        }
        let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &cx.device)?;
        let net =
            ClassifierNet::init(&body, config.clusters, config.heads, config.hidden, cx.seed.branch("heads"), &cx.device)?;
        let set = |images, table: Option<&Stored<Neighbors>>, ports, wanted: (&'static str, usize)| {
            let architecture = &encoder.card.architecture;
            let feed = Feed::like(images, architecture.channels, architecture.size, &encoder.card.normalization, &cx.device)?;
            Set::new(config, &net, feed, images, table, ports, wanted, cx)
        };
        let training = set(&images, input.neighbors.as_ref(), "neighbors", ("num_neighbors", config.num_neighbors))?;
        let validation = val_images
            .as_ref()
            .map(|images| {
                let wanted = ("validation_neighbors", config.validation_neighbors);
                set(images, input.val_neighbors.as_ref(), "val_neighbors", wanted)
            })
            .transpose()?;

        let mut run = Run::new(config, net, training, validation, cx)?;
        let curve = train(&mut run, cx)?;
        let Run { net, selection, .. } = run;
        let choice = selection.conclude(&net, "consistency + class − entropy", cx)?;
        let card = net.card(encoder.card.normalization.clone(), choice)?;
        Ok(Out {
            classifier: Classifier { card, tensors: net.to_tensors()? }.save(&cx.out("classifier")?)?,
            curve: Curve { points: curve }.save(&cx.out("curve")?)?,
        })
    }
}

impl Method for Nnm {
    const SIGN: Sign = Sign {
        paper: "Z. Dang, C. Deng, X. Yang, K. Wei, H. Huang: Nearest Neighbor Matching for Deep Clustering, CVPR 2021; as run by \
                its authors' code since July 2021",
        reads: "images, encoder; optionally neighbors (20 on small sets, 50 on ImageNet; else mined here on the backbone's \
                features of plain images), validation images and their neighbors",
        writes: "classifier (all heads of the best epoch, the best chosen), curve",
        idea: "SCAN asks that an image and its mined neighbors fall into one cluster. NNM adds the neighbors it finds while \
               training, in the batch and in the whole set, and asks that clusters as a whole agree across the match too.",
        loss: "p, p', n [B, K] soft-max of anchor, its second view and a mined neighbor; l = p at the nearest anchor of the batch; \
               q [B, K] last epoch's answers of the nearest images of the whole set. P = [p; p'], Q = [n; l], S = [P; Q], \
               T = [q; q; q; q]. C(X, Y) = mean_i −ln(X_i · Y_i); D(X, Y) = cross-entropy over the columns, scaled to unit \
               length, of X against those of Y; loss = C(P, Q) + D(P, Q) − λ · entropy(mean P), from the second epoch on \
               + C(S, T) + D(S, T), summed over the H heads",
        selection: "after every epoch, on plain validation images and their neighbors: C + D − entropy with weight 1; the lowest \
                    over heads and epochs wins. Never by accuracy, as the authors' code does",
        as_in_paper: "the CIFAR-10 table: 100 epochs, batch 200, Adam 1e-4 with decay 1e-4, λ 5, three heads, backbone and heads \
                      updated, strong augmentation on all three views, three forward passes a step, the anchor among its own \
                      candidates; `global = \"permuted\"` with `global_views = \"augmented\"` is what the authors' code runs",
        unlike_paper: "`global = \"aligned\"` (the default) matches an image with its own neighbor in the set, as the paper means; \
                       the authors' code mixes up the rows. That neighbor is found on plain pictures by default. Without \
                       validation images the training images serve. Neighbor draws are counted per image and epoch. A last batch \
                       of one image joins the one before. An image is never its own neighbor in batch or set. With \
                       `update = \"heads\"` and a plain recipe features are computed once. `hidden` gives heads a hidden layer",
        expect: "CIFAR-10 84.3 ACC, CIFAR-20 47.7, STL-10 80.8 (paper: best of runs, picked by test accuracy); chosen without \
                 labels about 0.7 less",
    };
}

/// Images per chunk of a pass over a set.
const CHUNK: usize = 256;

/// Candidates among which the nearest image is decided in double precision, beyond the image itself.
const SPARE: usize = 8;

/// Images as the network sees them, and who is near whom.
struct Set<'a> {
    sight: Sight<'a>,
    table: NeighborTable,
}

impl<'a> Set<'a> {
    /// Reads the neighbors, or mines them on the backbone's features of plain images.
    #[expect(clippy::too_many_arguments, reason = "called once for training and once for validation, from one place")]
    fn new(
        config: &Config,
        net: &ClassifierNet,
        feed: Feed<'a>,
        images: &ImageSet,
        table: Option<&Stored<Neighbors>>,
        port: &str,
        (setting, k): (&'static str, usize),
        cx: &Context<'_>,
    ) -> Result<Self, StageError> {
        let table = table
            .map(|stored| {
                let table = NeighborTable::load(stored)?;
                belongs(&table, images, port)?;
                Ok::<_, StageError>(table)
            })
            .transpose()?;
        if table.is_none() && k >= images.len() {
            return Err(StageError::TooFew {
                setting,
                value: k,
                images: images.len(),
                hint: format!("an image is no neighbor of itself, so it can be at most {}", images.len().saturating_sub(1)),
            });
        }
        let still = config.update == Update::Heads && !config.augment.is_random();
        if let (Some(table), false) = (&table, still) {
            return Ok(Self { sight: Sight { feed, cached: None }, table: table.clone() });
        }
        let features = encoded(net.encoder(), &feed, cx)?;
        let dim = net.encoder().dim();
        let cached = if still { Some(Tensor::from_slice(&features, (feed.len(), dim), &cx.device)?) } else { None };
        let table = table.map_or_else(|| mine(features, dim, k, images.ids()), Ok)?;
        Ok(Self { sight: Sight { feed, cached }, table })
    }

    /// Runs the set through `net`, without recording; each image in one view, or plain.
    fn pass(&self, net: &ClassifierNet, views: Option<(&Recipe, Seed)>, features: bool) -> Result<Pass, StageError> {
        let net = net.frozen()?;
        let mut pass = Pass { features: Vec::new(), log: vec![Vec::new(); net.heads()] };
        for start in (0..self.sight.feed.len()).step_by(CHUNK) {
            let seen = self.features(&net, start..(start + CHUNK).min(self.sight.feed.len()), views)?;
            if features {
                pass.features.extend(values(&seen)?);
            }
            for (head, log) in pass.log.iter_mut().enumerate() {
                log.extend(values(&candle_nn::ops::log_softmax(&net.logits(head, &seen)?, D::Minus1)?)?);
            }
        }
        Ok(pass)
    }

    fn features(&self, net: &ClassifierNet, rows: Range<usize>, views: Option<(&Recipe, Seed)>) -> Result<Tensor, StageError> {
        if let Some(cached) = &self.sight.cached {
            return Ok(cached.narrow(0, rows.start, rows.len())?);
        }
        let images = match views {
            Some((recipe, seed)) => self.sight.feed.views(&rows.collect::<Vec<_>>(), recipe, seed)?,
            None => self.sight.feed.plain_range(rows)?,
        };
        Ok(net.features(&images, Mode::Eval)?)
    }
}

/// What the network says of a whole set.
struct Pass {
    /// Backbone features `[N, D]`, not normalised; empty if nobody asked.
    features: Vec<f32>,
    /// Per head, logarithms of probabilities `[N, K]`.
    log: Vec<Vec<f32>>,
}

/// The `k` nearest images of each by cosine.
fn mine(mut features: Vec<f32>, dim: usize, k: usize, ids: &[String]) -> Result<NeighborTable, StageError> {
    let without = cosine::normalize_rows(&mut features, dim);
    if let Some(&first) = without.first() {
        return Err(StageError::Degenerate {
            code: "nnm::zero-features",
            what: format!(
                "the encoder gives {} images features that are all 0 or no numbers; the first is `{}`",
                without.len(),
                ids[first]
            ),
            hint: "a direction is needed to compare; look at these images, or train the encoder longer".into(),
        });
    }
    let found = all_pairs(&features, dim, k, &mut |_, _| std::ops::ControlFlow::Continue(()))?;
    Ok(NeighborTable {
        ids: ids.to_vec(),
        k,
        index: found.index,
        similarity: found.similarity,
        metric: "cosine".into(),
        exact: true,
        recall: None,
    })
}

/// The nearest other image of each, by Euclidean distance of features as they are.
///
/// # Shapes
/// `features` `[N, D]`. Returns `[N]`.
///
/// # Errors
/// Features that are no numbers.
pub fn nearest_in_set(features: &[f32], dim: usize) -> Result<Vec<u32>, StageError> {
    if let Some(at) = features.iter().position(|value| !value.is_finite()) {
        return Err(NeighborError::NotFinite { row: at / dim }.into());
    }
    let n = features.len() / dim;
    let width = (SPARE + 1).min(n);
    let lifted = euclid::lift(features, dim);
    let mut search = Search::new(&lifted.queries, lifted.dim, width)?;
    search.feed(&lifted.pool, 0)?;
    Ok(euclid::nearest_of(features, dim, &search.finish()?.index, width))
}

/// Which image's answer each image is matched with: that of its own nearest image; or, if `visited` says in which order images
/// were visited, row r holds the nearest of the r-th visited, as in the authors' code.
pub fn matched_rows(nearest: &[u32], visited: Option<&[usize]>) -> Vec<u32> {
    match visited {
        None => nearest.to_vec(),
        Some(visited) => visited.iter().map(|&image| nearest[image]).collect(),
    }
}

/// What the network gets to see in a step: features `[B, D]` if they are computed already, else views `[B, C, S, S]`.
struct Seen {
    anchors: Tensor,
    neighbors: Tensor,
    second: Option<Tensor>,
}

impl Seen {
    /// Features of all, each through the network on its own, so that each has its own batch statistics, as in the authors' code.
    fn features(self, net: &ClassifierNet, mode: Mode, sight: &Sight<'_>) -> Result<Self, StageError> {
        let features = |seen| sight.features(net, seen, mode);
        let (anchors, neighbors) = (features(self.anchors)?, features(self.neighbors)?);
        Ok(Self { anchors, neighbors, second: self.second.map(features).transpose()? })
    }
}

/// Images and their neighbors, drawn for a step.
struct Draws<'a> {
    config: &'a Config,
    set: Set<'a>,
    seed: Seed,
}

impl Draws<'_> {
    fn seen(&self, rows: &[usize], epoch: u64) -> Result<Seen, StageError> {
        let Config { num_neighbors, include_self, second_view, augment, .. } = self.config;
        let Set { sight, table } = &self.set;
        let partners: Vec<usize> =
            rows.iter().map(|&row| partner(table, *num_neighbors, *include_self, row, epoch, self.seed)).collect();
        let views = self.seed.branch("views").at(epoch);
        let see = |rows: &[usize], view: &str| sight.see(rows, augment, views.branch(view));
        let second = if *second_view { Some(see(rows, "second")?) } else { None };
        Ok(Seen { anchors: see(rows, "anchor")?, neighbors: see(&partners, "neighbor")?, second })
    }
}

struct Run<'a> {
    config: &'a Config,
    draws: Draws<'a>,
    /// None: the training images serve.
    validation: Option<Set<'a>>,
    net: ClassifierNet,
    /// The same numbers, seen so that gradients reach what is updated.
    recorded: ClassifierNet,
    order: Order,
    learner: Learner,
    ahead: Ahead<Seen, StageError>,
    /// Per head, what each image is matched with in this epoch: logarithms of probabilities `[N, K]`. Empty during warm-up.
    targets: Vec<Tensor>,
    /// The nearest image of each where features stand still.
    still: Option<Vec<u32>>,
    selection: Selection,
    device: candle_core::Device,
}

impl<'a> Run<'a> {
    fn new(
        config: &'a Config,
        net: ClassifierNet,
        training: Set<'a>,
        validation: Option<Set<'a>>,
        cx: &Context<'_>,
    ) -> Result<Self, StageError> {
        let (moved, recorded) = match config.update {
            Update::All => (net.params().clone(), net.clone()),
            Update::Heads => (net.head_params(), net.with_frozen_encoder()?),
        };
        Ok(Self {
            config,
            order: Order::of(Batches::new(training.sight.feed.len(), config.batch, Last::Join)?, cx.seed),
            ahead: Ahead::new(training.sight.cached.is_none()),
            draws: Draws { config, set: training, seed: cx.seed },
            validation,
            learner: Learner::new(net.params(), &moved, &config.optimizer, &config.schedule, config.epochs)?,
            net,
            recorded,
            targets: Vec::new(),
            still: None,
            selection: Selection::default(),
            device: cx.device.clone(),
        })
    }

    /// Finds every image's nearest in the whole set and keeps that one's answers for the next epoch. Returns the answers of all
    /// images if they were given on plain ones.
    fn refresh(&mut self, epoch: u64) -> Result<Option<Vec<Vec<f32>>>, StageError> {
        let Self { config, draws, net, .. } = self;
        let plain = config.global_views == GlobalViews::Plain || draws.set.sight.cached.is_some();
        let views = (!plain).then(|| (&config.augment, draws.seed.branch("refresh").at(epoch)));
        let pass = draws.set.pass(net, views, self.still.is_none())?;
        let nearest = match self.still.take() {
            Some(nearest) => nearest,
            None => nearest_in_set(&pass.features, net.encoder().dim())?,
        };
        let n = nearest.len();
        let visited = draws.seed.branch("visited").at(epoch);
        let visited = (config.global == Global::Permuted).then(|| visited.rng().permutation(n));
        let rows = Tensor::new(matched_rows(&nearest, visited.as_deref()), &self.device)?;
        let answers = |log: &Vec<f32>| Tensor::from_slice(log, (n, config.clusters), &self.device)?.index_select(&rows, 0);
        self.targets = pass.log.iter().map(answers).collect::<candle_core::Result<_>>()?;
        if config.update == Update::Heads && plain {
            self.still = Some(nearest);
        }
        Ok(plain.then_some(pass.log))
    }

    /// Measures all heads without labels, and keeps the state if it is the best so far.
    fn validate(&mut self, epoch: u64, known: Option<Vec<Vec<f32>>>) -> Result<Measured, StageError> {
        let set = self.validation.as_ref().unwrap_or(&self.draws.set);
        let log = match known {
            Some(log) if self.validation.is_none() => log,
            _ => set.pass(&self.net, None, false)?.log,
        };
        let (clusters, table) = (self.config.clusters, &set.table);
        let k = self.config.validation_neighbors.min(table.k);
        let probabilities: Vec<Vec<f32>> = log.into_iter().map(|log| log.into_iter().map(f32::exp).collect()).collect();
        let parts: Vec<(f64, f64, f64)> = probabilities
            .iter()
            .map(|p| {
                let found = validation_loss(p, clusters, &table.index, table.k, k);
                (found.consistency, class_contrast_of(p, clusters), found.entropy)
            })
            .collect();
        let losses: Vec<f64> = parts.iter().map(|(consistency, class, entropy)| consistency + class - entropy).collect();
        let head = self.selection.offer(epoch, &losses, &probabilities, &self.net)?;
        let chosen = &probabilities[head];
        let confidence: f64 = chosen.chunks_exact(clusters).map(|row| f64::from(row.iter().copied().fold(0.0, f32::max))).sum();
        let (consistency, class, entropy) = parts[head];
        Ok(measured([
            ("val_loss", losses[head]),
            ("val_consistency", consistency),
            ("val_class", class),
            ("val_entropy", entropy),
            ("val_confidence", confidence / (chosen.len() / clusters) as f64),
            ("best_head", head as f64),
        ]))
    }
}

impl Trainee for Run<'_> {
    fn epochs(&self) -> u64 {
        self.config.epochs
    }

    fn steps(&self) -> u64 {
        self.order.steps()
    }

    fn begin(&mut self, epoch: u64) -> Result<(), StageError> {
        self.order.begin(epoch);
        self.learner.begin(epoch);
        Ok(())
    }

    fn step(&mut self, epoch: u64, step: u64) -> Result<Measured, StageError> {
        let Self { config, draws, recorded, order, learner, ahead, targets, device, .. } = self;
        let seen = |step: u64| draws.seen(order.rows(step), epoch);
        let rows = order.rows(step);
        ahead.step(Place { epoch, step, steps: order.steps() }, seen, |seen| {
            let mode = if config.update == Update::Heads { Mode::Eval } else { Mode::Train };
            let features = seen.features(recorded, mode, &draws.set.sight)?;
            // Found on raw features of this very pass, and one for all heads.
            let nearest = euclid::nearest_other(&values(&features.anchors)?, features.anchors.dim(1)?);
            let nearest = Tensor::new(nearest, device)?;
            let rows = numbers(rows, device)?;
            let weights = TermWeights { class: config.class_weight, entropy: config.entropy_weight };
            let (mut sum, mut parts) = (None::<Tensor>, [0.0; 5]);
            for head in 0..config.heads {
                let logits = |features: &Tensor| recorded.logits(head, features);
                let (anchors, neighbors) = (logits(&features.anchors)?, logits(&features.neighbors)?);
                let second = features.second.as_ref().map(logits).transpose()?;
                let logits = Logits { anchors: &anchors, neighbors: &neighbors, second: second.as_ref() };
                let matched = targets.get(head).map(|targets| targets.index_select(&rows, 0)).transpose()?;
                let loss = nnm_loss(&logits, &nearest, matched.as_ref(), weights)?;
                let terms = [Some(&loss.local), Some(&loss.consistency), Some(&loss.class), Some(&loss.entropy)];
                for (part, term) in parts.iter_mut().zip(terms.into_iter().chain([loss.global.as_ref()])) {
                    *part += term.map_or(Ok(0.0), Tensor::to_scalar::<f32>).map(f64::from)?;
                }
                let total = loss.total()?;
                sum = Some(match sum {
                    None => total,
                    Some(sum) => (sum + total)?,
                });
            }
            let Some(sum) = sum else { unreachable!("there is at least one head") };
            // Heads are optimised by their sum, so that each sees its full gradient, and shown by their mean.
            let [local, consistency, class, entropy, global] = parts.map(|part| part / config.heads as f64);
            health::finite("the match with the whole set", global, epoch as usize, step as usize)?;
            learner.descend(&sum)?;
            let mut shown = measured([("loss", local), ("consistency", consistency), ("class", class), ("entropy", entropy)]);
            if !targets.is_empty() {
                shown.extend(measured([("global", global)]));
            }
            Ok(shown)
        })
    }

    fn end(&mut self, epoch: u64, _means: &Measured) -> Result<Measured, StageError> {
        let next = epoch + 1;
        let refreshes = self.config.global != Global::Off && next >= self.config.warm_up && next < self.config.epochs;
        let known = if refreshes { self.refresh(epoch)? } else { None };
        if !next.is_multiple_of(self.config.validate_every) && next < self.config.epochs {
            return Ok(Measured::new());
        }
        self.validate(epoch, known)
    }

    fn save(&self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        self.learner.save("net", snapshot)?;
        let mut targets = Tensors::default();
        for (head, target) in self.targets.iter().enumerate() {
            targets.insert(format!("{head}"), target.dims().to_vec(), values(target)?);
        }
        snapshot.put("targets", targets);
        self.selection.save(snapshot)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), StageError> {
        self.learner.load("net", snapshot)?;
        let targets = snapshot.take("targets");
        self.targets = (0..targets.len())
            .filter_map(|head| targets.get(&format!("{head}")))
            .map(|Weights { shape, values }| Tensor::from_slice(values, shape.as_slice(), &self.device))
            .collect::<candle_core::Result<_>>()?;
        self.selection.load(snapshot)
    }
}

/// What one head says of a batch: logits `[B, K]`.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    /// Of the anchors.
    pub anchors: &'a Tensor,
    /// Of one mined neighbor of each.
    pub neighbors: &'a Tensor,
    /// Of a second view of each anchor; none: the first serves again, as in the paper's figure.
    pub second: Option<&'a Tensor>,
}

/// The weights of the loss that are not 1.
#[derive(Clone, Copy, Debug)]
pub struct TermWeights {
    /// Of the class terms; 1 in the paper.
    pub class: f64,
    /// Of the entropy, λ.
    pub entropy: f64,
}

/// The parts of NNM's loss; scalars, in nats.
#[derive(Clone, Debug)]
pub struct NnmLoss {
    /// The match within the batch: `consistency + class − λ · entropy`.
    pub local: Tensor,
    /// How much the views and their neighbors disagree, C(P, Q).
    pub consistency: Tensor,
    /// How hard it is to tell clusters by whom they hold, D(P, Q).
    pub class: Tensor,
    /// How evenly both views of the anchors spread over the clusters.
    pub entropy: Tensor,
    /// The match with the whole set, C(S, T) + D(S, T), if there is something to match.
    pub global: Option<Tensor>,
}

impl NnmLoss {
    /// What is minimised.
    ///
    /// # Errors
    /// If the tensor operations fail.
    pub fn total(&self) -> candle_core::Result<Tensor> {
        match &self.global {
            Some(global) => &self.local + global,
            None => Ok(self.local.clone()),
        }
    }
}

/// NNM's loss of one head.
///
/// # Shapes
/// `nearest`: `[B]`, u32, each anchor's nearest anchor in the batch. `targets`: `[B, K]`, logarithms of the probabilities each
/// image is matched with; they get no gradient if they were made without one.
///
/// # Errors
/// If the tensor operations fail.
///
/// # Paper
/// NNM, as its authors' code has it since July 2021; without a second view, as the paper's figure has it. The logarithm of an
/// agreement is not taken below −100, and a mean probability below 1e-8 counts as 1e-8.
pub fn nnm_loss(
    logits: &Logits<'_>,
    nearest: &Tensor,
    targets: Option<&Tensor>,
    weights: TermWeights,
) -> candle_core::Result<NnmLoss> {
    let log = |logits: &Tensor| candle_nn::ops::log_softmax(logits, D::Minus1);
    let anchors = log(logits.anchors)?;
    let second = logits.second.map_or_else(|| Ok(anchors.clone()), log)?;
    let local = anchors.index_select(nearest, 0)?;
    let ours = Tensor::cat(&[&anchors, &second], 0)?;
    let theirs = Tensor::cat(&[&log(logits.neighbors)?, &local], 0)?;
    let consistency = disagreement(&ours, &theirs)?;
    let class = class_contrast(&ours, &theirs)?;
    let mean = ours.exp()?.mean(0)?.maximum(1e-8)?;
    let entropy = (&mean * mean.log()?)?.sum_all()?.neg()?;
    let local = ((&consistency + (&class * weights.class)?)? - (&entropy * weights.entropy)?)?;
    let global = targets
        .map(|targets| {
            let all = Tensor::cat(&[&ours, &theirs], 0)?;
            let fourfold = targets.repeat((4, 1))?;
            disagreement(&all, &fourfold)? + (class_contrast(&all, &fourfold)? * weights.class)?
        })
        .transpose()?;
    Ok(NnmLoss { local, consistency, class, entropy, global })
}

/// C(X, Y) = mean_i −ln(X_i · Y_i), from logarithms `[B, K]`: f32 cannot hold an agreement of e^−100.
fn disagreement(x: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
    (x + y)?.log_sum_exp(D::Minus1)?.neg()?.minimum(100.0)?.mean_all()
}

/// D(X, Y), from logarithms `[B, K]`: columns of X against columns of Y, all of unit length, no temperature.
fn class_contrast(x: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
    let columns = |log: &Tensor| {
        let p = log.exp()?;
        // The floor keeps the gradient of a cluster that nobody is in from being 0 / 0.
        let length = p.sqr()?.sum_keepdim(0)?.maximum(1e-24)?.sqrt()?;
        p.broadcast_div(&length)
    };
    let (x, y) = (columns(x)?, columns(y)?);
    let cosines = x.t()?.matmul(&y)?;
    let own = (x * y)?.sum(0)?;
    (cosines.log_sum_exp(D::Minus1)? - own)?.mean_all()
}

/// D(X, X) of a whole table of probabilities `[N, K]`, in double precision.
pub fn class_contrast_of(probabilities: &[f32], clusters: usize) -> f64 {
    // Row `k` of XᵀX, in the order of the images, whatever the number of threads.
    let products: Vec<Vec<f64>> = (0..clusters)
        .into_par_iter()
        .map(|k| {
            let mut sums = vec![0.0; clusters];
            for row in probabilities.chunks_exact(clusters) {
                let own = f64::from(row[k]);
                sums.iter_mut().zip(row).for_each(|(sum, &p)| *sum += own * f64::from(p));
            }
            sums
        })
        .collect();
    let length: Vec<f64> = (0..clusters).map(|k| products[k][k].sqrt().max(1e-12)).collect();
    let of_cluster = |k: usize| {
        let cosine = |j: usize| products[k][j] / (length[k] * length[j]);
        (0..clusters).map(|j| cosine(j).exp()).sum::<f64>().ln() - cosine(k)
    };
    (0..clusters).map(of_cluster).sum::<f64>() / clusters as f64
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use candle_core::{DType, Device, Var};
    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;
    use crate::artifact::Artifact;
    use crate::artifact::encoder::{Backbone, Stem};
    use crate::artifact::images::{ImagesInfo, ImagesWriter, Picture};
    use crate::artifact::pixels::Pixels;
    use crate::augment::Plain;
    use crate::dataset::Places;
    use crate::method::simclr::contrastive_loss;
    use crate::model::architecture;
    use crate::stage::context::{Signal, Sink, Stop};
    use crate::store::digest::Digest;
    use crate::train::infer::{self, Layer};

    fn table(values: &[f64], rows: usize, dtype: DType) -> Tensor {
        Tensor::from_slice(values, (rows, values.len() / rows), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn cells(rows: usize, columns: usize, f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        (0..rows * columns).map(|at| f((at / columns) as f64, (at % columns) as f64)).collect()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    fn list(t: &Tensor) -> Vec<f64> {
        t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    /// What a loss is made from, in double precision.
    #[derive(Clone)]
    struct Input {
        b: usize,
        /// Anchors, neighbors, and the second view, if there is one.
        logits: Vec<Vec<f64>>,
        nearest: Vec<u32>,
        /// Probabilities.
        targets: Option<Vec<f64>>,
        entropy_weight: f64,
    }

    impl Input {
        fn loss_of(&self, logits: &[Tensor], dtype: DType) -> NnmLoss {
            let nearest = Tensor::new(self.nearest.clone(), &Device::Cpu).unwrap();
            let targets = self.targets.as_ref().map(|q| table(q, self.b, DType::F64).log().unwrap().to_dtype(dtype).unwrap());
            let logits = Logits { anchors: &logits[0], neighbors: &logits[1], second: logits.get(2) };
            nnm_loss(&logits, &nearest, targets.as_ref(), TermWeights { class: 1.0, entropy: self.entropy_weight }).unwrap()
        }

        fn loss(&self, dtype: DType) -> NnmLoss {
            let logits: Vec<Tensor> = self.logits.iter().map(|values| table(values, self.b, dtype)).collect();
            self.loss_of(&logits, dtype)
        }

        /// Of the total, with respect to all logits.
        fn gradients(&self, dtype: DType) -> Vec<Vec<f64>> {
            let vars: Vec<Var> =
                self.logits.iter().map(|values| Var::from_tensor(&table(values, self.b, dtype)).unwrap()).collect();
            let logits: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            let gradients = self.loss_of(&logits, dtype).total().unwrap().backward().unwrap();
            vars.iter().map(|var| list(gradients.get(var).unwrap())).collect()
        }
    }

    /// methods/nnm.md, section 4.2.
    fn fixture(second_view: bool, global: bool) -> Input {
        let mut logits = vec![
            cells(4, 3, |i, k| 2.0 * (1.0 + 0.7 * i + 1.3 * k).sin()),
            cells(4, 3, |i, k| 2.0 * (0.5 + 0.9 * i + 0.4 * k).cos()),
        ];
        if second_view {
            logits.push(cells(4, 3, |i, k| 1.5 * (0.3 + 1.1 * i + 0.8 * k).sin()));
        }
        let bank = table(&cells(6, 3, |r, k| 3.0 * (0.2 + 0.6 * r + 1.7 * k).cos()), 6, DType::F64);
        let bank = candle_nn::ops::softmax(&bank, D::Minus1).unwrap();
        let rows = Tensor::new(&[5_u32, 0, 3, 2], &Device::Cpu).unwrap();
        let targets = global.then(|| list(&bank.index_select(&rows, 0).unwrap()));
        Input { b: 4, logits, nearest: vec![2, 3, 0, 1], targets, entropy_weight: 5.0 }
    }

    #[track_caller]
    fn assert_near(found: f64, wanted: f64, tolerance: f64, what: &str) {
        assert!((found - wanted).abs() <= tolerance, "{what}: {found} is not {wanted}");
    }

    #[test]
    fn the_loss_and_its_gradients_equal_the_authors() {
        let wanted = [(false, None, -2.587_881_84), (true, Some(1.421_645_89 + 1.080_395_20), -0.085_840_75)];
        let rows = [
            [
                [0.098_636_1, -0.087_051_4, -0.011_584_7],
                [-0.006_117_7, -0.029_436_8, 0.035_554_5],
                [0.008_218_5, 0.054_049_3, -0.062_267_8],
            ],
            [
                [0.162_650_1, -0.084_973_6, -0.077_676_5],
                [0.046_023_3, -0.037_075_6, -0.008_947_6],
                [0.028_004_5, 0.061_161_5, -0.089_166_0],
            ],
        ];
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-4)] {
            for ((global, part, total), rows) in wanted.into_iter().zip(rows) {
                let input = fixture(true, global);
                let loss = input.loss(dtype);
                assert_near(number(&loss.consistency), 0.952_650_32, tolerance, "C(P, Q)");
                assert_near(number(&loss.class), 1.161_667_21, tolerance, "D(P, Q)");
                assert_near(number(&loss.entropy), 0.940_439_87, tolerance, "H");
                assert_near(number(&loss.total().unwrap()), total, tolerance, "total");
                assert_eq!(loss.global.is_some(), global);
                if let (Some(found), Some(part)) = (&loss.global, part) {
                    assert_near(number(found), part, tolerance, "C(S, T) + D(S, T)");
                    assert_near(number(&loss.local) + part, total, tolerance, "the sum");
                }
                for (gradient, row) in input.gradients(dtype).iter().zip(rows) {
                    for (found, wanted) in gradient.iter().zip(row) {
                        assert_near(*found, wanted, tolerance, "gradient of row 0");
                    }
                }
            }
            let figure = fixture(false, false).loss(dtype);
            assert_near(number(&figure.consistency), 0.742_447_40, tolerance, "C, as in the paper's figure");
            assert_near(number(&figure.class), 1.074_815_68, tolerance, "D, as in the paper's figure");
        }
    }

    #[test]
    fn the_two_global_parts_equal_the_authors_one_by_one() {
        let input = fixture(true, true);
        let log = |values: &[f64]| candle_nn::ops::log_softmax(&table(values, 4, DType::F64), D::Minus1).unwrap();
        let (p, n, second) = (log(&input.logits[0]), log(&input.logits[1]), log(&input.logits[2]));
        let l = p.index_select(&Tensor::new(input.nearest.clone(), &Device::Cpu).unwrap(), 0).unwrap();
        let s = Tensor::cat(&[p, second, n, l], 0).unwrap();
        let t = table(input.targets.as_ref().unwrap(), 4, DType::F64).log().unwrap().repeat((4, 1)).unwrap();
        assert_near(number(&disagreement(&s, &t).unwrap()), 1.421_645_89, 1e-6, "C(S, T)");
        assert_near(number(&class_contrast(&s, &t).unwrap()), 1.080_395_20, 1e-6, "D(S, T)");
    }

    #[test]
    fn larger_losses_equal_pytorchs() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/nnm/golden.json")).unwrap();
        let numbers = |list: &Value| -> Option<Vec<f64>> {
            list.as_array().map(|list| list.iter().map(|v| v.as_f64().unwrap()).collect())
        };
        let cases = golden["loss"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let name = case["name"].as_str().unwrap();
            let logits = ["anchors", "neighbors", "second"].iter().filter_map(|part| numbers(&case[*part])).collect();
            let input = Input {
                b: case["b"].as_u64().unwrap() as usize,
                logits,
                nearest: numbers(&case["nearest"]).unwrap().into_iter().map(|v| v as u32).collect(),
                targets: numbers(&case["targets"]),
                entropy_weight: case["weight"].as_f64().unwrap(),
            };
            let loss = input.loss(DType::F64);
            let wanted = |part: &str| case[part].as_f64().unwrap();
            for (part, found) in [("consistency", &loss.consistency), ("class", &loss.class), ("entropy", &loss.entropy)] {
                assert_near(number(found), wanted(part), 1e-9 * wanted(part).abs().max(1.0), &format!("{name}, {part}"));
            }
            assert_near(number(&loss.total().unwrap()), wanted("total"), 1e-8, name);
            if name == "sure" {
                // PyTorch does not believe gradients of agreements below 1e-12.
                assert!(input.gradients(DType::F32).iter().flatten().all(|g| g.is_finite()));
                continue;
            }
            for (gradient, wanted) in input.gradients(DType::F64).iter().zip(case["gradients"].as_array().unwrap()) {
                for (found, wanted) in gradient.iter().zip(numbers(wanted).unwrap()) {
                    assert_near(*found, wanted, 1e-9, &format!("{name}, gradient"));
                }
            }
        }
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        for (second, global) in [(true, true), (true, false), (false, true)] {
            let input = fixture(second, global);
            for (which, gradient) in input.gradients(DType::F64).iter().enumerate() {
                for (at, found) in gradient.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut input = input.clone();
                        input.logits[which][at] += by;
                        number(&input.loss(DType::F64).total().unwrap())
                    };
                    assert_near(*found, (moved(1e-5) - moved(-1e-5)) / 2e-5, 1e-8, "gradient");
                }
            }
        }
    }

    #[test]
    fn without_targets_nothing_flows_into_them_and_without_weights_only_consistency_is_left() {
        let input = fixture(true, false);
        let logits: Vec<Tensor> = input.logits.iter().map(|values| table(values, 4, DType::F64)).collect();
        let nearest = Tensor::new(input.nearest, &Device::Cpu).unwrap();
        let logits = Logits { anchors: &logits[0], neighbors: &logits[1], second: Some(&logits[2]) };
        let loss = nnm_loss(&logits, &nearest, None, TermWeights { class: 0.0, entropy: 0.0 }).unwrap();
        assert_near(number(&loss.total().unwrap()), number(&loss.consistency), 1e-12, "total");
    }

    #[test]
    fn clusters_that_nobody_is_in_give_numbers_and_no_nan() {
        // The third cluster's probability is 0 in f32, for anchors and neighbors alike; the last row is torn apart.
        let logits = |sign: f64| {
            let mut rows = cells(6, 3, |i, k| if k > 1.0 { -500.0 } else { 100.0 * (i + k).sin() });
            rows[15] = 400.0 * sign;
            rows[16] = -400.0 * sign;
            rows
        };
        let input = Input {
            b: 6,
            logits: vec![logits(1.0), logits(-1.0), logits(1.0)],
            nearest: vec![1, 2, 3, 4, 5, 0],
            targets: Some(vec![1.0 / 3.0; 18]),
            entropy_weight: 5.0,
        };
        let loss = input.loss(DType::F32);
        assert!(number(&loss.total().unwrap()).is_finite());
        assert!(input.gradients(DType::F32).iter().flatten().all(|g| g.is_finite()));
    }

    /// methods/nnm.md, section 4.1: K, the least D, and at the plateau with permuted targets the largest probability, C, D and the
    /// global part.
    const LIMITS: [(usize, f64, f64, f64, f64, f64); 6] = [
        (10, 1.4612, 0.76, 0.54, 1.52, 5.12),
        (15, 1.8165, 0.74, 0.59, 1.86, 5.97),
        (20, 2.0782, 0.74, 0.61, 2.12, 6.57),
        (50, 2.9458, 0.72, 0.66, 2.96, 8.46),
        (100, 3.6222, 0.71, 0.67, 3.63, 9.87),
        (200, 4.3069, 0.71, 0.68, 4.31, 11.27),
    ];

    #[test]
    fn untrained_heads_start_at_minus_three_times_the_logarithm_of_k() {
        for (k, ..) in LIMITS {
            let logits = |phase: f64| cells(64, k, |i, j| 0.02 * (1.7 * i + 0.9 * j + phase).sin());
            let input = Input {
                b: 64,
                logits: vec![logits(0.0), logits(1.0), logits(2.0)],
                nearest: (0..64).rev().collect(),
                targets: None,
                entropy_weight: 5.0,
            };
            let total = number(&input.loss(DType::F32).total().unwrap());
            assert_near(total, -3.0 * (k as f64).ln(), 0.02, &format!("{k} clusters"));
        }
    }

    #[test]
    fn perfect_clusters_reach_the_least_class_term() {
        for (k, least, ..) in LIMITS {
            let sure = (Tensor::eye(k, DType::F64, &Device::Cpu).unwrap() * 300.0).unwrap();
            let log = candle_nn::ops::log_softmax(&sure, D::Minus1).unwrap();
            assert_near(number(&class_contrast(&log, &log).unwrap()), least, 1e-4, &format!("{k} clusters"));
            let p: Vec<f32> = list(&log.exp().unwrap()).into_iter().map(|v| v as f32).collect();
            assert_near(class_contrast_of(&p, k), least, 1e-4, "of a whole table");
        }
    }

    #[test]
    fn mixed_up_targets_hold_confidence_down_to_the_plateau_of_the_reference() {
        for (k, _, probability, consistency, class, global) in LIMITS.into_iter().take(4) {
            // Perfect balanced clusters, every image as sure as every other; row (i, j) is of cluster i and matched with one of j.
            let parts = |sure: f64| {
                let log =
                    |cluster: usize, of: usize| if cluster == of { sure.ln() } else { ((1.0 - sure) / (k - 1) as f64).ln() };
                let rows = |which: fn(usize, usize) -> usize| -> Tensor {
                    let values = (0..k * k * k).map(|at| log(which(at / k / k, at / k % k), at % k)).collect::<Vec<_>>();
                    table(&values, k * k, DType::F64)
                };
                let (own, other) = (rows(|i, _| i), rows(|_, j| j));
                let of =
                    |x: &Tensor, y: &Tensor| (number(&disagreement(x, y).unwrap()), number(&class_contrast(x, y).unwrap()));
                let ((c, d), (far, apart)) = (of(&own, &own), of(&own, &other));
                assert_near(apart, (k as f64).ln(), 1e-6, "who is matched at random tells clusters not apart");
                (c, d, far + apart)
            };
            let total = |sure: f64| {
                let (c, d, g) = parts(sure);
                c + d + g
            };
            let sure =
                (50..100).map(|p| f64::from(p) / 100.0).fold(0.5, |best, p| if total(p) < total(best) { p } else { best });
            let (c, d, g) = parts(sure);
            assert_near(sure, probability, 0.0101, &format!("{k} clusters, the largest probability"));
            assert_near(c, consistency, 0.02, &format!("{k} clusters, C"));
            assert_near(d, class, 0.011, &format!("{k} clusters, D"));
            assert_near(g, global, 0.03, &format!("{k} clusters, the global part"));
        }
    }

    #[test]
    fn mixed_up_rows_are_those_of_the_authors_loader() {
        // methods/nnm.md, section 5: with every item its own nearest, row r held these.
        let visited = [6, 11, 8, 10, 4, 9, 7, 1, 0, 3, 5, 2];
        let own: Vec<u32> = (0..12).collect();
        assert_eq!(matched_rows(&own, Some(&visited)), visited.map(|row| row as u32));
        let nearest: Vec<u32> = (0..12).map(|row| (row + 5) % 12).collect();
        assert_eq!(matched_rows(&nearest, Some(&visited))[..3], [11, 4, 1]);
        assert_eq!(matched_rows(&nearest, None), nearest);
    }

    #[test]
    fn the_pretext_loss_of_the_reference_comes_out() {
        // methods/nnm.md, section 3.1: rows 2i and 2i + 1 are the views of item i; here all first views come first.
        let mut z = cells(6, 4, |i, k| (0.4 + 1.9 * i + 0.7 * k).sin());
        for row in z.chunks_mut(4) {
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            for v in row {
                *v /= length;
            }
        }
        let rows = Tensor::new(&[0_u32, 2, 4, 1, 3, 5], &Device::Cpu).unwrap();
        for (dtype, tolerance) in [(DType::F64, 1e-6), (DType::F32, 1e-4)] {
            let z = table(&z, 6, dtype).index_select(&rows, 0).unwrap();
            assert_near(number(&contrastive_loss(&z, 0.1).unwrap()), 12.206_012, tolerance, "NT-Xent");
        }
    }

    #[test]
    fn the_nearest_in_a_set_is_the_nearest_of_all_pairs() {
        let mut rng = Seed::new(4).rng();
        let (n, dim) = (1500, 7);
        let mut features: Vec<f32> = (0..n * dim).map(|_| (3.0 + rng.normal()) as f32).collect();
        // A crowd of copies, larger than the list of candidates.
        for row in (0..n).step_by(40) {
            features.copy_within(0..dim, row * dim);
        }
        assert_eq!(nearest_in_set(&features, dim).unwrap(), euclid::nearest_other(&features, dim));
        assert_eq!(nearest_in_set(&[1.0, 2.0, 5.0], 1).unwrap(), [1, 0, 1]);
        assert_eq!(nearest_in_set(&[0.0; 6], 2).unwrap(), [1, 0, 0], "all alike");
        features[8] = f32::NAN;
        assert!(nearest_in_set(&features, dim).unwrap_err().to_string().contains("row `1`"));
    }

    #[test]
    fn an_epoch_visits_every_image_and_nobody_alone() {
        for (images, sizes) in [(10, vec![4, 4, 2]), (9, vec![4, 5]), (3, vec![3]), (8, vec![4, 4])] {
            let mut order = Order::of(Batches::new(images, 4, Last::Join).unwrap(), Seed::new(1));
            let mut visits = |epoch| -> Vec<Vec<usize>> {
                order.begin(epoch);
                (0..order.steps()).map(|step| order.rows(step).to_vec()).collect()
            };
            let (first, second) = (visits(0), visits(1));
            assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            assert_ne!(second, first);
            let mut all = second.concat();
            all.sort_unstable();
            assert_eq!(all, (0..images).collect::<Vec<_>>());
        }
    }

    #[test]
    fn impossible_settings_are_complained_about() {
        assert_eq!(Config::default().check(), []);
        let complaint = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check()[0].path.clone()
        };
        assert_eq!(complaint(|c| c.clusters = 1), "clusters");
        assert_eq!(complaint(|c| c.batch = 1), "batch");
        assert_eq!(complaint(|c| c.warm_up = 0), "warm_up");
        assert_eq!(complaint(|c| c.class_weight = -1.0), "class_weight");
        assert_eq!(complaint(|c| c.entropy_weight = f64::NAN), "entropy_weight");
    }

    struct Deaf;

    impl Sink for Deaf {
        fn signal(&self, _: &str, _: Signal) {}
    }

    fn stored<A: Artifact>(draft: &Draft<A>) -> Stored<A> {
        Stored::new(draft.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"test"), "test")
    }

    /// Images, by default of three patterns in turn, and two encoders.
    struct Ground {
        dir: TempDir,
        places: Places,
        images: Stored<Images>,
        encoder: Stored<Encoder>,
        pixels: Stored<Encoder>,
    }

    impl Ground {
        fn new(count: usize) -> Self {
            Self::drawn(count, |image, at| match image % 3 {
                0 => at % 8 < 4,
                1 => at / 8 < 4,
                _ => (at % 8 + at / 8).is_multiple_of(2),
            })
        }

        /// Images of ten patterns in turn.
        fn of_ten(count: usize) -> Self {
            Self::drawn(count, |image, at| Seed::new(3).at((image % 10) as u64).at(at as u64).rng().chance(0.5))
        }

        fn drawn(count: usize, lit: impl Fn(usize, usize) -> bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = |name: &str| -> PathBuf {
                let path = dir.path().join(name);
                std::fs::create_dir_all(&path).unwrap();
                path
            };
            let mut writer = ImagesWriter::create(&folder("images"), &ImagesInfo::new("test")).unwrap();
            let mut rng = Seed::new(9).rng();
            for image in 0..count {
                let data = (0..64).map(|at| if lit(image, at) { 170 + rng.below(80) } else { rng.below(80) } as u8).collect();
                writer.push(Picture::Raw(Pixels { width: 8, height: 8, channels: 1, data })).unwrap();
            }
            let (images, _) = writer.finish().unwrap();
            let encoder = |backbone, name: &str| {
                let shape = architecture(backbone, Stem::Cifar, 8, 1, 8, None).unwrap();
                let net = EncoderNet::init(&shape, Seed::new(2), &Device::Cpu).unwrap();
                let card = net.card(crate::artifact::encoder::Normalization { mean: vec![0.4], std: vec![0.3] });
                stored(&Encoder { card, tensors: net.to_tensors().unwrap() }.save(&folder(name)).unwrap())
            };
            let (resnet, pixels) = (encoder(Backbone::ResnetTiny, "encoder"), encoder(Backbone::Pixels, "pixels"));
            let places = Places::new(dir.path(), None, None);
            Self { images: stored(&images), encoder: resnet, pixels, places, dir }
        }

        fn input(&self) -> In {
            In {
                images: self.images.clone(),
                encoder: self.encoder.clone(),
                neighbors: None,
                val_images: None,
                val_neighbors: None,
            }
        }

        fn with_context<T>(&self, work: &str, f: impl FnOnce(&Context<'_>) -> T) -> T {
            let folder = |name: &str| self.dir.path().join(work).join(name);
            std::fs::create_dir_all(folder("work")).unwrap();
            let (stop, seed) = (Stop::default(), Seed::new(5));
            f(&Context::new("test", Device::Cpu, seed, &self.places, stop, folder("work"), folder("out"), &Deaf))
        }

        /// Trains to the end and takes the last state, however little was learned.
        fn trained(&self, name: &str, config: &Config, input: In) -> (Tensors, Vec<crate::artifact::curve::Point>) {
            let encoder = Encoder::load(&input.encoder).unwrap();
            let images = ImageSet::open(&input.images).unwrap();
            let val_images = input.val_images.as_ref().map(|images| ImageSet::open(images).unwrap());
            self.with_context(name, |cx| {
                let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
                let net = ClassifierNet::init(&body, config.clusters, config.heads, None, Seed::new(1), &Device::Cpu).unwrap();
                let set = |images, table: &Option<Stored<Neighbors>>, k| {
                    let feed = Feed::like(images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
                    Set::new(config, &net, feed, images, table.as_ref(), "neighbors", ("num_neighbors", k), cx).unwrap()
                };
                let training = set(&images, &input.neighbors, config.num_neighbors);
                let validation =
                    val_images.as_ref().map(|images| set(images, &input.val_neighbors, config.validation_neighbors));
                let mut run = Run::new(config, net.clone(), training, validation, cx).unwrap();
                let points = train(&mut run, cx).unwrap();
                (run.net.to_tensors().unwrap(), points)
            })
        }

        fn run(&self, name: &str, config: &Config, input: In) -> Result<(Classifier, Curve), StageError> {
            let out = self.with_context(name, |cx| Nnm::run(config, input, cx))?;
            Ok((Classifier::load(&stored(&out.classifier)).unwrap(), Curve::load(&stored(&out.curve)).unwrap()))
        }
    }

    /// Quick, on features that stand still.
    fn heads_only(epochs: u64) -> Config {
        Config {
            clusters: 3,
            heads: 2,
            update: Update::Heads,
            epochs,
            batch: 20,
            num_neighbors: 5,
            optimizer: OptimizerSettings::adam(0.02, 0.0),
            augment: Plain::default().into(),
            ..Config::default()
        }
    }

    fn small(epochs: u64) -> Config {
        Config { clusters: 3, heads: 2, epochs, batch: 8, num_neighbors: 4, ..Config::default() }
    }

    #[test]
    fn the_match_with_the_whole_set_joins_after_the_warm_up() {
        let ground = Ground::new(24);
        for (warm_up, global, from) in [(1, Global::Aligned, 2), (3, Global::Permuted, 4), (1, Global::Off, 6)] {
            let config = Config { global, warm_up, ..heads_only(5) };
            let (_, curve) = ground.run(&format!("{warm_up}{global:?}"), &config, ground.input()).unwrap();
            let epochs: Vec<u32> = curve.of("global").map(|(epoch, _)| epoch).collect();
            assert_eq!(epochs, (from..=5).collect::<Vec<_>>());
            assert_eq!(curve.of("loss").count(), 5);
        }
    }

    #[test]
    fn aligned_matches_agree_with_the_batch_and_mixed_up_ones_hold_confidence_down() {
        // The toy problem of methods/nnm.md, section 5: ten clear groups. There: aligned, a global part of 1.66 and a mean largest
        // probability of 0.98; mixed up, a total of −3.92, a global part of 5.49, and 0.81.
        let ground = Ground::of_ten(100);
        let last = |curve: &Curve, name: &str| curve.of(name).last().unwrap().1;
        let run = |name: &str, global| {
            let config = Config { clusters: 10, batch: 50, global, ..heads_only(80) };
            ground.run(name, &config, In { encoder: ground.pixels.clone(), ..ground.input() }).unwrap().1
        };
        let (aligned, permuted, off) =
            (run("aligned", Global::Aligned), run("permuted", Global::Permuted), run("off", Global::Off));
        let local = last(&aligned, "consistency") + last(&aligned, "class");
        assert_near(last(&aligned, "global"), local, 0.3, "the aligned global part");
        assert!(last(&aligned, "val_confidence") > 0.95 && last(&off, "val_confidence") > 0.95);
        assert_near(last(&permuted, "global"), 5.49, 0.15, "the mixed-up global part");
        assert_near(last(&permuted, "loss") + last(&permuted, "global"), -3.92, 0.2, "the mixed-up total");
        assert_near(last(&permuted, "val_confidence"), 0.81, 0.05, "the largest probability of mixed-up matches");
        for curve in [&aligned, &permuted, &off] {
            assert!(last(curve, "val_entropy") > 2.29, "ten clusters are in use");
        }
    }

    #[test]
    fn training_the_heads_leaves_the_encoder_bit_for_bit() {
        let ground = Ground::new(24);
        let before = Encoder::load(&ground.encoder).unwrap().tensors;
        let random = Config { update: Update::Heads, ..small(2) };
        for (name, config, moves) in [("still", heads_only(2), false), ("views", random, false), ("all", small(2), true)] {
            let (after, _) = ground.trained(name, &config, ground.input());
            let same = before.iter().all(|(name, weights)| after.get(name) == Some(weights));
            assert_eq!(same, !moves, "{name}");
            assert!(after.len() > before.len(), "backbone and heads");
        }
    }

    #[test]
    fn each_view_has_its_own_forward_pass_and_moves_the_running_statistics() {
        let ground = Ground::new(12);
        let encoder = Encoder::load(&ground.encoder).unwrap();
        let net = |seed| {
            let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
            ClassifierNet::init(&body, 3, 1, None, Seed::new(seed), &Device::Cpu).unwrap()
        };
        let images = ImageSet::open(&ground.images).unwrap();
        let feed = Feed::like(&images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
        for second_view in [true, false] {
            let config = Config { second_view, ..small(1) };
            ground.with_context("passes", |cx| {
                let set =
                    Set::new(&config, &net(1), feed.clone(), &images, None, "neighbors", ("num_neighbors", 4), cx).unwrap();
                let draws = Draws { config: &config, set, seed: cx.seed };
                let (here, there) = (net(1), net(1));
                let rows = [3, 1, 4, 7, 9];
                let seen = draws.seen(&rows, 0).unwrap().features(&here, Mode::Train, &draws.set.sight).unwrap();
                assert_eq!(seen.second.is_some(), second_view);
                let Seen { anchors, neighbors, second } = draws.seen(&rows, 0).unwrap();
                let views: Vec<Tensor> = [anchors, neighbors].into_iter().chain(second).collect();
                assert_eq!(views.len(), if second_view { 3 } else { 2 });
                let first = there.features(&views[0], Mode::Train).unwrap();
                assert_ne!(here.to_tensors().unwrap(), there.to_tensors().unwrap(), "one pass is not enough");
                for view in &views[1..] {
                    there.features(view, Mode::Train).unwrap();
                }
                assert_eq!(here.to_tensors().unwrap(), there.to_tensors().unwrap());
                assert_eq!(values(&seen.anchors).unwrap(), values(&first).unwrap());
            });
        }
    }

    #[test]
    fn a_run_that_goes_on_matches_with_the_whole_set_at_once() {
        let ground = Ground::new(24);
        let images = ImageSet::open(&ground.images).unwrap();
        let encoder = Encoder::load(&ground.encoder).unwrap();
        let feed = Feed::like(&images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
        for config in [small(3), Config { global: Global::Permuted, global_views: GlobalViews::Augmented, ..small(3) }] {
            ground.with_context("resume", |cx| {
                let make = || {
                    let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
                    let net = ClassifierNet::init(&body, 3, 2, None, Seed::new(1), &Device::Cpu).unwrap();
                    let set = Set::new(&config, &net, feed.clone(), &images, None, "neighbors", ("num_neighbors", 4), cx);
                    Run::new(&config, net, set.unwrap(), None, cx).unwrap()
                };
                let mut run = make();
                for step in 0..run.steps() {
                    run.begin(0).unwrap();
                    let shown = run.step(0, step).unwrap();
                    assert!(shown.iter().all(|(name, _)| name != "global"));
                }
                run.end(0, &Measured::new()).unwrap();
                run.begin(1).unwrap();
                run.step(1, 0).unwrap();
                let mut snapshot = Snapshot::default();
                run.save(&mut snapshot).unwrap();
                let mut again = make();
                again.load(&snapshot).unwrap();
                again.begin(1).unwrap();
                let (one, other) = (run.step(1, 1).unwrap(), again.step(1, 1).unwrap());
                assert_eq!(one, other);
                assert!(other.iter().any(|(name, value)| name == "global" && *value > 0.0));
                assert_eq!(run.end(1, &Measured::new()).unwrap(), again.end(1, &Measured::new()).unwrap());
                assert_eq!(run.net.to_tensors().unwrap(), again.net.to_tensors().unwrap());
            });
        }
    }

    /// Neighbors as the step `neighbors` would mine them.
    fn mined(ground: &Ground, k: usize, name: &str) -> Stored<Neighbors> {
        let images = ImageSet::open(&ground.images).unwrap();
        let encoder = Encoder::load(&ground.encoder).unwrap();
        let net = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
        let feed = Feed::like(&images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
        let features = infer::features(&net, Layer::Backbone, &feed, |_| Ok::<_, StageError>(())).unwrap();
        let table = mine(features, net.dim(), k, images.ids()).unwrap();
        let folder = ground.dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        stored(&table.save(&folder).unwrap())
    }

    #[test]
    fn its_own_mining_gives_what_connected_neighbors_give() {
        let ground = Ground::new(24);
        let alone = ground.trained("alone", &small(2), ground.input());
        let connected = In { neighbors: Some(mined(&ground, 4, "mined")), ..ground.input() };
        assert_eq!(alone, ground.trained("with", &small(2), connected));
        // Others to validate on: neighbors of their own, mined or connected.
        let val = In { val_images: Some(ground.images.clone()), ..ground.input() };
        let one = ground.trained("val", &small(2), val);
        assert_eq!(alone.0, one.0, "validation moves nothing");
        let val_neighbors = Some(mined(&ground, 5, "val_mined"));
        let val = In { val_images: Some(ground.images.clone()), val_neighbors, ..ground.input() };
        assert_eq!(one, ground.trained("val_connected", &small(2), val));
    }

    #[test]
    fn more_clusters_than_patterns_are_fine() {
        let ground = Ground::new(60);
        let config = Config { clusters: 7, ..heads_only(30) };
        let (classifier, curve) = ground.run("many", &config, ground.input()).unwrap();
        assert_eq!(classifier.card.clusters, 7);
        assert!(curve.of("val_entropy").last().unwrap().1 > 1.0);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_says_so() {
        let (ground, other) = (Ground::new(24), Ground::new(27));
        let mut count = 0;
        let mut fails = |config: Config, input: In, words: &[&str]| {
            count += 1;
            let error = ground.run(&format!("bad{count}"), &config, input).unwrap_err();
            let text = format!("{error} {}", crate::base::hint::Fault::hint(&error).unwrap_or_default());
            for word in words {
                assert!(text.contains(word), "`{word}` is not in: {text}");
            }
        };
        let input = || ground.input();
        fails(Config { clusters: 25, ..small(1) }, input(), &["clusters is 25", "only 24 images", "fewer clusters"]);
        fails(Config { num_neighbors: 24, ..small(1) }, input(), &["num_neighbors is 24", "at most 23"]);
        let strange = In { neighbors: Some(mined(&other, 4, "strange")), ..input() };
        fails(small(1), strange, &["`neighbors` were mined on 27 other images than the 24"]);
        let lonely = In { val_neighbors: Some(mined(&ground, 4, "lonely")), ..input() };
        fails(small(1), lonely, &["`val_neighbors` is connected, and `val_images` is not"]);
        let wide = In { val_images: Some(ground.images.clone()), ..input() };
        fails(Config { validation_neighbors: 30, ..small(1) }, wide, &["validation_neighbors is 30", "at most 23"]);

        // An encoder whose numbers are of another network, and one that saw color.
        let folder = |name: &str| {
            let path = ground.dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let color = architecture(Backbone::ResnetTiny, Stem::Cifar, 8, 3, 8, None).unwrap();
        let color = EncoderNet::init(&color, Seed::new(2), &Device::Cpu).unwrap();
        let normalization =
            |channels| crate::artifact::encoder::Normalization { mean: vec![0.4; channels], std: vec![0.3; channels] };
        let card = color.card(normalization(3));
        let saved = Encoder { card, tensors: color.to_tensors().unwrap() }.save(&folder("color")).unwrap();
        fails(small(1), In { encoder: stored(&saved), ..input() }, &["3 channels, and these have 1"]);
        let mut torn = Encoder::load(&ground.encoder).unwrap();
        torn.tensors.remove("backbone.conv1.weight");
        let torn = torn.save(&folder("torn"));
        let error = match torn {
            Ok(saved) => ground.run("torn_run", &small(1), In { encoder: stored(&saved), ..input() }).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("backbone.conv1.weight"), "{error}");
    }

    #[test]
    fn clusters_that_fell_into_one_are_an_error_with_the_numbers() {
        // Nothing spreads the images, and everything asks them to agree.
        let ground = Ground::new(60);
        let config = Config { entropy_weight: 0.0, class_weight: 0.0, heads: 1, ..heads_only(80) };
        let error = ground.run("collapse", &config, ground.input()).unwrap_err().to_string();
        assert!(error.contains("the clusters collapsed"), "{error}");
    }
}
