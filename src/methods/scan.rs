//! # SCAN: cluster so that neighbors agree
//!
//! The clustering stage of SCAN: see [`Scan::SIGN`].

use candle_core::{D, Tensor};
use serde::{Deserialize, Serialize};

use kinset_artifact::curve::Curve;
use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::{Draft, Stored};
use kinset_augment::{Recipe, Strong};
use kinset_base::seed::Seed;
use kinset_kernel::scan_terms;
use kinset_math::entropy;
use kinset_model::ClassifierNet;
use kinset_model::Mode;
use kinset_model::encoder::EncoderNet;
use kinset_stage::{Context, Method, Sign, Stage, StageError};
use kinset_train::ahead::{Ahead, Place};
use kinset_train::feed::Feed;
use kinset_train::infer;
use kinset_train::learner::{Learner, Order};
use kinset_train::selection::{Concluded, Selection};
use kinset_train::settings::{OptimizerSettings, ScheduleSettings};
use kinset_train::sight::{Sight, belongs, partner};
use kinset_train::training::{Measured, Snapshot, Trainee, measured, train};

/// What training moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Update {
    /// Backbone and heads (small data sets).
    All,
    /// The heads alone, on an encoder in evaluation mode (ImageNet).
    Heads,
}

kinset_stage::settings! {
    /// Settings; the defaults are those of SCAN's `configs/scan/scan_cifar10.yml`.
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Heads trained side by side, H; the best by validation loss is chosen. 1 on small sets, 10 on ImageNet.
        heads: usize = 1, min 1;
        /// Hidden units of a head; none: linear, as in the paper.
        hidden: Option<usize> = None, min 1;
        /// What training moves.
        update: Update = Update::All;
        /// Passes over the images.
        epochs: u64 = 50, min 1;
        /// Anchors per step, B.
        batch: usize = 128, min 2;
        /// Weight of the entropy term, λ.
        entropy_weight: f64 = 5.0, not_negative;
        /// How many of the mined neighbors are candidates; none: all.
        num_neighbors: Option<usize> = None, min 1;
        /// Whether an image is a candidate for its own neighbor, as in the authors' code.
        include_self: bool = true;
        /// How many neighbors the validation loss looks at.
        validation_neighbors: usize = 5, min 1;
        /// Validate after every so many epochs, and after the last.
        validate_every: u64 = 1, min 1;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::adam(1e-4, 1e-4), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::constant(), nested;
        /// What anchors and neighbors go through.
        augment: Recipe = Strong::default().into(), nested;
    }
}

kinset_stage::ports! {
    /// What SCAN reads.
    pub label_free struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// Image → `[D]`.
        encoder: Stored<Encoder>,
        /// `[N, M]`, mined on features of the same images.
        neighbors: Stored<Neighbors>,
        /// Images to choose epoch and head on; without them, the training images.
        val_images: Option<Stored<Images>>,
        /// Their neighbors among themselves.
        val_neighbors: Option<Stored<Neighbors>>,
    }
}

kinset_stage::outputs! {
    /// What SCAN writes.
    pub struct Out {
        /// All heads of the best epoch, the best of them chosen.
        classifier: Draft<Classifier>,
        /// Loss and its parts per epoch, for training and validation.
        curve: Draft<Curve>,
        /// All heads after the last epoch, the best of them chosen: what the choice of an epoch was worth.
        last: Draft<Classifier>,
    }
}

/// The clustering stage.
#[derive(Debug)]
pub struct Scan;

impl Stage for Scan {
    const KIND: &'static str = "scan";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "cluster images so that neighbors agree";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let images = ImageSet::open(&input.images)?;
        let encoder = Encoder::load(&input.encoder)?;
        let table = NeighborTable::load(&input.neighbors)?;
        belongs(&table, &images, "neighbors")?;
        StageError::enough_for_clusters("clusters", config.clusters, images.len())?;
        let (val_images, val_table) = match (&input.val_images, &input.val_neighbors) {
            (Some(val_images), Some(val_neighbors)) => {
                let (set, table) = (ImageSet::open(val_images)?, NeighborTable::load(val_neighbors)?);
                belongs(&table, &set, "val_neighbors")?;
                (Some(set), Some(table))
            }
            (None, None) => (None, None),
            _ => {
                return Err(StageError::Mismatch {
                    what: "of `val_images` and `val_neighbors` only one is connected".into(),
                    hint: "connect both, or neither to validate on the training images".into(),
                });
            }
        };
        let architecture = encoder.card.architecture.clone();
        let like = |set| Feed::like(set, architecture.channels, architecture.size, &encoder.card.normalization, &cx.device);

        let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &cx.device)?;
        let net =
            ClassifierNet::init(&body, config.clusters, config.heads, config.hidden, cx.seed.branch("heads"), &cx.device)?;
        let moved = match config.update {
            Update::All => net.params().clone(),
            Update::Heads => net.head_params(),
        };
        // An encoder that stands still, on views that stand still: its features are computed once.
        let still = config.update == Update::Heads && !config.augment.is_random();
        let sight_of = |set| Sight::of(like(set)?, still, net.encoder(), cx);
        let training = sight_of(&images)?;
        let validation = val_images.as_ref().map(sight_of).transpose()?;

        let mut run = Run {
            config,
            order: Order::new(images.len(), config.batch, cx.seed)?,
            learner: Learner::new(net.params(), &moved, &config.optimizer, &config.schedule, config.epochs)?,
            ahead: Ahead::new(training.cached.is_none()),
            recorded: if config.update == Update::Heads { net.with_frozen_encoder()? } else { net.clone() },
            net,
            val_table: val_table.as_ref().unwrap_or(&table),
            validation: validation.unwrap_or_else(|| training.clone()),
            pairs: Pairs { config, sight: training, table: &table, seed: cx.seed },
            selection: Selection::default(),
        };
        let curve = train(&mut run, cx)?;
        let steps = config.epochs * run.steps();
        let Run { net, selection, .. } = run;
        let Concluded { best, last } = selection.conclude(&net, steps, "consistency − entropy", cx)?;
        Ok(Out {
            classifier: best.classifier(&net, &encoder.card.normalization)?.save(&cx.out("classifier")?)?,
            curve: Curve { points: curve }.save(&cx.out("curve")?)?,
            last: last.classifier(&net, &encoder.card.normalization)?.save(&cx.out("last")?)?,
        })
    }
}

impl Method for Scan {
    const SIGN: Sign = Sign {
        paper: "W. Van Gansbeke, S. Vandenhende, S. Georgoulis, M. Proesmans, L. Van Gool: SCAN: Learning to Classify Images \
                without Labels, ECCV 2020, arXiv 2005.12320, eq. 2",
        reads: "images, encoder, neighbors (20 on small sets, 50 on ImageNet); optionally validation images and their neighbors",
        writes: "classifier (all heads of the best epoch, the best chosen), curve, last (the same of the last epoch)",
        idea: "An image and its nearest neighbors mostly show the same thing, so they should fall into the same cluster; \
               spreading all images over all clusters keeps that from being trivial.",
        loss: "P, Q [B, K] soft-max of anchor and neighbor; consistency = mean_i −ln(P_i · Q_i); p̄ [K] = mean_i P_i; \
               loss = consistency − λ · entropy(p̄), summed over the H heads",
        selection: "after every epoch, on plain validation images and their neighbors: consistency − entropy with weight 1; \
                    the lowest over heads and epochs wins",
        as_in_paper: "SCAN's CIFAR-10 table: 50 epochs, batch 128, Adam 1e-4 with decay 1e-4, λ 5, one head, backbone and head \
                      updated, strong augmentation on both sides, one neighbor per anchor and step, the anchor among its own \
                      candidates",
        unlike_paper: "Without validation images the training images serve, again without labels. Neighbor draws are counted per \
                       image and epoch (the authors' workers repeat one stream). With `update = \"heads\"` and a plain recipe \
                       features are computed once. `hidden` gives heads a hidden layer",
        expect: "CIFAR-10 81.8 ± 0.3 ACC after SimCLR of 500 epochs (paper, 10 runs); handwritten digits from pixels with \
                 five heads above 85, see `pipelines/digits.toml`",
    };
}

/// Images and their neighbors, as the network sees them.
struct Pairs<'a> {
    config: &'a Config,
    sight: Sight<'a>,
    table: &'a NeighborTable,
    seed: Seed,
}

impl Pairs<'_> {
    /// What is seen of anchors and of a neighbor of each in this epoch.
    fn seen(&self, rows: &[usize], epoch: u64) -> Result<(Tensor, Tensor), StageError> {
        let Config { num_neighbors, include_self, augment, .. } = self.config;
        let k = num_neighbors.unwrap_or(self.table.k);
        let partners: Vec<usize> =
            rows.iter().map(|&row| partner(self.table, k, *include_self, row, epoch, self.seed)).collect();
        let views = self.seed.branch("views").at(epoch);
        let see = |rows: &[usize], view: &str| self.sight.see(rows, augment, views.branch(view));
        Ok((see(rows, "anchor")?, see(&partners, "neighbor")?))
    }
}

struct Run<'a> {
    config: &'a Config,
    pairs: Pairs<'a>,
    validation: Sight<'a>,
    val_table: &'a NeighborTable,
    net: ClassifierNet,
    /// The same numbers, seen so that gradients reach what is updated.
    recorded: ClassifierNet,
    order: Order,
    learner: Learner,
    ahead: Ahead<(Tensor, Tensor), StageError>,
    selection: Selection,
}

impl Run<'_> {
    /// Probabilities of the validation images, `[N, K]` per head.
    fn validation(&self) -> Result<Vec<Vec<f32>>, StageError> {
        let heads: Vec<usize> = (0..self.config.heads).collect();
        let Some(cached) = &self.validation.cached else {
            return infer::probabilities(&self.net, &heads, &self.validation.feed, |_| Ok::<_, StageError>(()));
        };
        let net = self.net.frozen()?;
        heads
            .iter()
            .map(|&head| {
                let probabilities = candle_nn::ops::softmax(&net.logits(head, cached)?, D::Minus1)?;
                Ok(probabilities.flatten_all()?.to_vec1::<f32>()?)
            })
            .collect()
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
        let Self { config, pairs, recorded, order, learner, ahead, .. } = self;
        let seen = |step| pairs.seen(order.rows(step), epoch);
        ahead.step(Place { epoch, step, steps: order.steps() }, seen, |(anchors, neighbors)| {
            // Two forward passes, so that each side has its own batch statistics, as in the authors' code.
            let mode = if config.update == Update::Heads { Mode::Eval } else { Mode::Train };
            let features = |seen| pairs.sight.features(recorded, seen, mode);
            let (anchors, neighbors) = (features(anchors)?, features(neighbors)?);
            let (anchors, neighbors) = (recorded.all_logits(&anchors)?, recorded.all_logits(&neighbors)?);
            let loss = scan_loss(&anchors, &neighbors, config.heads, config.entropy_weight)?;
            learner.descend(&loss.total)?;
            // Heads are optimised by their sum, so that each sees its full gradient, and shown by their mean.
            let mean = |part: &Tensor| Ok::<_, StageError>(f64::from(part.to_scalar::<f32>()?) / config.heads as f64);
            Ok(measured([
                ("loss", mean(&loss.total)?),
                ("consistency", mean(&loss.consistency)?),
                ("entropy", mean(&loss.entropy)?),
            ]))
        })
    }

    fn end(&mut self, epoch: u64, _means: &Measured) -> Result<Measured, StageError> {
        if !(epoch + 1).is_multiple_of(self.config.validate_every) && epoch + 1 < self.config.epochs {
            return Ok(Measured::new());
        }
        let probabilities = self.validation()?;
        let k = self.config.validation_neighbors.min(self.val_table.k);
        let parts: Vec<Validation> = probabilities
            .iter()
            .map(|p| validation_loss(p, self.config.clusters, &self.val_table.index, self.val_table.k, k))
            .collect();
        let losses: Vec<f64> = parts.iter().map(Validation::total).collect();
        let head = self.selection.offer(epoch, &losses, &probabilities, &self.net)?;
        Ok(measured([
            ("val_loss", losses[head]),
            ("val_consistency", parts[head].consistency),
            ("val_entropy", parts[head].entropy),
            ("best_head", head as f64),
        ]))
    }

    fn save(&self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        self.learner.save("net", snapshot)?;
        self.selection.save(snapshot)
    }

    fn load(&mut self, snapshot: &Snapshot) -> Result<(), StageError> {
        self.learner.load("net", snapshot)?;
        self.selection.load(snapshot)
    }
}

/// The parts of SCAN's loss, summed over the heads; scalars, in nats.
#[derive(Clone, Debug)]
pub struct ScanLoss {
    /// `consistency − λ · entropy`.
    pub total: Tensor,
    /// How much anchor and neighbor disagree.
    pub consistency: Tensor,
    /// How evenly the anchors spread over the clusters.
    pub entropy: Tensor,
}

/// SCAN's loss of all heads.
///
/// # Shapes
/// `anchors`, `neighbors`: logits `[B, H·K]`, head by head.
///
/// # Errors
/// If the tensor operations fail.
///
/// # Paper
/// SCAN, eq. 2. As in the authors' code the logarithm of an agreement is not taken below −100, and a mean probability below
/// 1e-8 counts as 1e-8.
pub fn scan_loss(anchors: &Tensor, neighbors: &Tensor, heads: usize, entropy_weight: f64) -> candle_core::Result<ScanLoss> {
    let terms = scan_terms(anchors, neighbors, heads)?.sum(0)?;
    let (consistency, entropy) = (terms.get(0)?, terms.get(1)?);
    let total = (&consistency - (&entropy * entropy_weight)?)?;
    Ok(ScanLoss { total, consistency, entropy })
}

/// SCAN's validation loss of one head, in nats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Validation {
    /// Mean of −ln(p_a · p_n) over images and their neighbors, the image itself among them.
    pub consistency: f64,
    /// Entropy of the mean probability.
    pub entropy: f64,
}

impl Validation {
    /// What is minimised: both parts with weight 1, whatever λ is in training.
    pub fn total(&self) -> f64 {
        self.consistency - self.entropy
    }
}

/// Validates one head without labels.
///
/// # Shapes
/// `probabilities`: `[N, K]`; `index`: `[N, width]`, of which the first `k` columns count.
///
/// # Paper
/// Not in the paper: SCAN's `utils/evaluate_utils.py`, which pairs every image with itself too.
pub fn validation_loss(probabilities: &[f32], clusters: usize, index: &[u32], width: usize, k: usize) -> Validation {
    use rayon::prelude::*;
    let row = |r: usize| &probabilities[r * clusters..(r + 1) * clusters];
    let disagreement = |a: usize, b: usize| {
        let dot: f64 = row(a).iter().zip(row(b)).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        -dot.ln().max(-100.0)
    };
    let n = probabilities.len() / clusters;
    let per_row: Vec<f64> = (0..n)
        .into_par_iter()
        .map(|r| {
            let others = &index[r * width..r * width + k];
            disagreement(r, r) + others.iter().map(|&other| disagreement(r, other as usize)).sum::<f64>()
        })
        .collect();
    Validation {
        consistency: per_row.iter().sum::<f64>() / (n * (k + 1)) as f64,
        entropy: entropy::entropy(&entropy::mean_distribution(probabilities, clusters)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    fn logits() -> (Vec<f64>, Vec<f64>) {
        let cell =
            |f: &dyn Fn(f64, f64) -> f64| -> Vec<f64> { (0..30).map(|at| f((at / 5) as f64, (at % 5) as f64)).collect() };
        (cell(&|i, c| 2.0 * (1.1 * i + 0.9 * c).cos()), cell(&|i, c| 2.0 * (0.8 * i - 0.6 * c + 0.3).sin()))
    }

    fn tensor(values: Vec<f64>, dtype: DType) -> Tensor {
        Tensor::from_vec(values, (6, 5), &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn the_loss_equals_the_authors() {
        let (a, n) = logits();
        for (weight, expected) in [(2.0, -1.384_392_7), (5.0, -6.153_299_8)] {
            let loss = scan_loss(&tensor(a.clone(), DType::F32), &tensor(n.clone(), DType::F32), 1, weight).unwrap();
            assert!((number(&loss.consistency) - 1.794_878_5).abs() < 1e-6);
            assert!((number(&loss.entropy) - 1.589_635_6).abs() < 1e-6);
            assert!((number(&loss.total) - expected).abs() < 2e-6);
        }
    }

    #[test]
    fn the_validation_loss_equals_the_authors() {
        let p = candle_nn::ops::softmax(&tensor(logits().0, DType::F32), D::Minus1).unwrap();
        let p = p.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let index: Vec<u32> = (0..6).flat_map(|i| [(i + 1) % 6, (i + 2) % 6]).collect();
        let found = validation_loss(&p, 5, &index, 2, 2);
        assert!((found.entropy - 1.589_635_6).abs() < 1e-6);
        assert!((found.consistency - 1.515_934_6).abs() < 1e-6);
        assert!((found.total() + 0.073_701_0).abs() < 1e-6);
    }

    #[test]
    fn renaming_clusters_changes_nothing_and_agreement_of_one_hots_costs_nothing() {
        let (a, n) = logits();
        let order = Tensor::new(&[3_u32, 0, 4, 1, 2], &Device::Cpu).unwrap();
        let renamed = |v: &[f64]| tensor(v.to_vec(), DType::F64).index_select(&order, 1).unwrap();
        let plain = scan_loss(&tensor(a.clone(), DType::F64), &tensor(n.clone(), DType::F64), 1, 5.0).unwrap();
        let other = scan_loss(&renamed(&a), &renamed(&n), 1, 5.0).unwrap();
        assert!((number(&plain.total) - number(&other.total)).abs() < 1e-12);

        let sure = (Tensor::eye(5, DType::F64, &Device::Cpu).unwrap() * 200.0).unwrap();
        let loss = scan_loss(&sure, &sure, 1, 1.0).unwrap();
        assert!(number(&loss.consistency).abs() < 1e-12);
        assert!((number(&loss.entropy) - 5_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn complete_disagreement_is_large_but_finite() {
        let one = (Tensor::eye(5, DType::F32, &Device::Cpu).unwrap() * 500.0).unwrap();
        let other = one.index_select(&Tensor::new(&[1_u32, 2, 3, 4, 0], &Device::Cpu).unwrap(), 0).unwrap();
        let consistency = number(&scan_loss(&one, &other, 1, 5.0).unwrap().consistency);
        assert!((80.0..=100.0).contains(&consistency), "{consistency}");
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        let (a, n) = logits();
        let (va, vn) = (
            Var::from_tensor(&tensor(a.clone(), DType::F64)).unwrap(),
            Var::from_tensor(&tensor(n.clone(), DType::F64)).unwrap(),
        );
        let gradients = scan_loss(&va, &vn, 1, 5.0).unwrap().total.backward().unwrap();
        let loss = |a: &[f64], n: &[f64]| {
            number(&scan_loss(&tensor(a.to_vec(), DType::F64), &tensor(n.to_vec(), DType::F64), 1, 5.0).unwrap().total)
        };
        for (var, first) in [(&va, true), (&vn, false)] {
            let gradient = gradients.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            for at in 0..30 {
                let moved = |by: f64| {
                    let (mut a, mut n) = (a.clone(), n.clone());
                    if first {
                        a[at] += by;
                    } else {
                        n[at] += by;
                    }
                    loss(&a, &n)
                };
                let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                assert!((gradient[at] - expected).abs() < 1e-7);
            }
        }
    }
}
