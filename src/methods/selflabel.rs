//! # Self-label: training on confident pseudo-labels
//!
//! The third stage of SCAN, with its known problems fixed: see [`SelfLabel::CARD`].

use candle_core::{D, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use kinset_artifact::Stored;
use kinset_artifact::curve::Curve;
use kinset_artifact::encoder::Classifier;
use kinset_artifact::images::{ImageSet, Images};
use kinset_augment::{Recipe, Strong};
use kinset_math::topk::argmax;
use kinset_model::Mode;
use kinset_model::{ClassifierNet, HeadChoice};
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::course::LEAST_BATCH;
use kinset_train::ema::Ema;
use kinset_train::ports::ClassifierOut;
use kinset_train::{
    At, BatchOrder, ImageLoader, Measured, Objective, OptimizerSettings, Paced, Prefetcher, ScheduleSettings, Snapshot,
    Trainer, infer, measured, scalar, train,
};

/// Which answers are confident enough to learn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// `confidence_threshold` for every cluster, as in the paper.
    Fixed,
    /// Lowered, epoch by epoch and cluster by cluster, to where `keep_share` of the cluster's images pass.
    PerCluster,
}

kinset_stage::settings! {
    /// Settings; the defaults are those of SCAN's `configs/selflabel/selflabel_cifar10.yml`, but for the threshold.
    pub struct Config {
        /// Passes over the images; unset: 200, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Images per step, B; unset: 1000, or fewer of few images.
        batch: Option<usize> = None, min 2;
        /// An answer is confident above this probability, 0–1.
        confidence_threshold: f64 = 0.99, below_one;
        /// Whether clusters that hardly reach the threshold get a lower one.
        threshold: Threshold = Threshold::PerCluster;
        /// The share of a cluster's images that pass at least, 0–1, if thresholds are per cluster.
        keep_share: f64 = 0.2, below_one;
        /// Weigh clusters so that each counts the same in the loss of a batch.
        class_balancing: bool = true;
        /// Follow an exponential moving average of the weights with this α; none on small sets, 0.999 on ImageNet.
        ema_alpha: Option<f64> = None, below_one;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::adam(1e-4, 1e-4), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::constant(), nested;
        /// What the learning view goes through; the answers come from the plain image.
        augment: Recipe = Strong::default().into(), nested;
    }
}

kinset_train::paced!(Config: 200 epochs, 1000 images a step, 1500 steps at least);

kinset_stage::ports! {
    /// What self-labeling reads.
    pub label_free struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// Whose chosen head gives the first answers.
        classifier: Stored<Classifier>,
    }
}

/// The self-labeling stage.
#[derive(Debug)]
pub struct SelfLabel;

impl Stage for SelfLabel {
    const KIND: &'static str = "selflabel";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "train a classifier on its own confident predictions";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = ClassifierOut;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<ClassifierOut, StageError> {
        let images = ImageSet::open(&input.images)?;
        let course = config.course(images.len(), LEAST_BATCH, cx)?;
        let classifier = Classifier::load(&input.classifier)?;
        let architecture = &classifier.card.encoder.architecture;
        let normalization = &classifier.card.encoder.normalization;
        let loader = ImageLoader::like(&images, architecture.channels, architecture.size, normalization, &cx.device)?;
        // Numbers of its own and one head, whatever the classifier had.
        let net = ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &cx.device)?
            .keep_head(classifier.card.head)?
            .duplicate()?;
        if net.params().parameters().next().is_none() {
            return Err(StageError::Mismatch {
                what: format!("the classifier of `{}` has nothing to train", input.classifier.origin()),
                hint: "connect a classifier whose encoder and head were learned, such as one of `scan`".into(),
            });
        }
        let batch = |at: At<'_>| {
            let seed = cx.seed.branch("views").at(at.epoch);
            Ok((loader.plain(at.rows)?, loader.views(at.rows, &config.augment, seed)?))
        };
        let objective = Confident {
            config,
            loader: &loader,
            net: &net,
            teacher: net.frozen()?,
            ema: config.ema_alpha.map(|alpha| Ema::new(net.params(), alpha)).transpose()?,
            thresholds: Vec::new(),
            start: None,
            cx,
        };
        let mut trainer = Trainer {
            epochs: course.epochs,
            order: BatchOrder::new(images.len(), course.batch, cx.seed)?,
            learner: course.learner(net.params(), net.params())?,
            prefetcher: Prefetcher::default(),
            batch,
            objective,
        };
        let curve = train(&mut trainer, cx)?;
        let choice = HeadChoice { head: 0, chosen_by: "the only head; last epoch".into(), losses: Vec::new() };
        let card = net.card(normalization.clone(), choice)?;
        Ok(ClassifierOut {
            classifier: Classifier { card, tensors: net.to_tensors()? }.save(&cx.out("classifier")?)?,
            curve: Curve { points: curve }.save(&cx.out("curve")?)?,
        })
    }
}

impl Method for SelfLabel {
    const CARD: PaperCard = PaperCard {
        paper: "W. Van Gansbeke et al.: SCAN: Learning to Classify Images without Labels, ECCV 2020, arXiv 2005.12320, \
                section 2.3",
        reads: "images, classifier (its chosen head)",
        writes: "classifier (one head), curve",
        idea: "Where the classifier is sure on the plain image, it should say the same on a strongly changed one. Confident \
               images lie in the middle of their cluster, and learning from them straightens its borders.",
        loss: "q [B, K] soft-max on plain images; rows with max q above the threshold are kept, their arg-max is the target; \
               cross-entropy [B', K] of the changed images, weighted so that clusters count the same",
        selection: "none: the last epoch, as in the paper; a collapse is an error, not a result",
        as_in_paper: "SCAN's CIFAR-10 table: 200 epochs, batch 1000, Adam 1e-4 with decay 1e-4, threshold 0.99, class \
                      balancing; with `threshold = \"fixed\"` answers under batch statistics; with `ema_alpha` the live weights become the average and \
                      batch-norm buffers stay, as in the authors' code",
        unlike_paper: "`threshold = \"per_cluster\"` (the default) lowers a cluster's threshold to where a fifth of its images \
                       pass, so that no cluster is emptied for lack of confidence (authors' issues 46, 101, 128), and takes its \
                       answers under running statistics; `fixed` is the paper. A step without a confident image is skipped and counted (the authors' code aborts); an epoch \
                       without one is an error that names the largest confidence seen. Lost clusters are an error with the sizes. Where \
                       `epochs` or `batch` is not set, few images get smaller batches and more epochs, 1500 steps at least",
        expect: "CIFAR-10 81.8 → 87.6 ± 0.4 ACC (paper, 10 runs); STL-10 gains about one point",
    };
}

/// Fewer clusters in use than this share of what the stage began with is a collapse.
const COLLAPSE: f64 = 0.5;

struct Confident<'a> {
    config: &'a Config,
    loader: &'a ImageLoader<'a>,
    net: &'a ClassifierNet,
    /// The same numbers, seen without recording.
    teacher: ClassifierNet,
    ema: Option<Ema>,
    /// Of this epoch, per cluster.
    thresholds: Vec<f64>,
    /// Clusters in use before the first step.
    start: Option<f64>,
    cx: &'a Context<'a>,
}

/// What the classifier says of all plain images.
struct Answers {
    sizes: Vec<usize>,
    /// Per cluster, of the images that fall into it, descending.
    confidences: Vec<Vec<f64>>,
}

impl Answers {
    fn of(probabilities: &[f32], clusters: usize) -> Self {
        let mut confidences = vec![Vec::new(); clusters];
        for row in probabilities.chunks_exact(clusters) {
            if let Some(cluster) = argmax(row) {
                confidences[cluster].push(f64::from(row[cluster]));
            }
        }
        for of_cluster in &mut confidences {
            of_cluster.sort_by(|a, b| b.total_cmp(a));
        }
        Self { sizes: confidences.iter().map(Vec::len).collect(), confidences }
    }

    fn largest(&self) -> f64 {
        self.confidences.iter().filter_map(|c| c.first()).copied().fold(0.0, f64::max)
    }

    /// e to the entropy of the cluster sizes: how many clusters are in use.
    fn in_use(&self) -> f64 {
        let counts: Vec<u64> = self.sizes.iter().map(|&size| size as u64).collect();
        kinset_math::entropy::entropy_of_counts(&counts).exp()
    }

    fn thresholds(&self, config: &Config) -> Vec<f64> {
        self.confidences
            .iter()
            .map(|of_cluster| {
                let fixed = config.confidence_threshold;
                if config.threshold == Threshold::Fixed || of_cluster.is_empty() {
                    return fixed;
                }
                let share = ((of_cluster.len() as f64 * config.keep_share).ceil() as usize).clamp(1, of_cluster.len());
                // Strictly above the threshold passes, so it sits just below the last confidence that should.
                fixed.min(f64::from((of_cluster[share - 1] as f32).next_down()))
            })
            .collect()
    }
}

impl Confident<'_> {
    fn answers(&self) -> Result<Answers, StageError> {
        let probabilities = infer::probabilities(self.net, &[0], self.loader, |_| self.cx.check())?;
        Ok(Answers::of(&probabilities[0], self.net.clusters()))
    }

    fn no_confident(&self, largest: f64) -> StageError {
        StageError::Degenerate {
            code: "selflabel::nothing-confident",
            what: format!(
                "no image is classified with a confidence above {}; the largest seen is {largest:.4}",
                self.config.confidence_threshold
            ),
            hint: match self.config.threshold {
                Threshold::Fixed => {
                    "set `threshold = \"per_cluster\"`, lower `confidence_threshold` below the largest \
                                     confidence seen, or train the classifier longer"
                }
                Threshold::PerCluster => {
                    "lower `confidence_threshold` below the largest confidence seen, raise `keep_share` or \
                                          `batch`, or train the classifier longer"
                }
            }
            .into(),
        }
    }
}

impl Objective for Confident<'_> {
    /// Plain and changed images.
    type Batch = (Tensor, Tensor);

    fn begin(&mut self, _epoch: u64) -> Result<(), StageError> {
        // A run that resumes in the middle of an epoch has the thresholds of its beginning from the checkpoint.
        if self.thresholds.is_empty() {
            let answers = self.answers()?;
            self.start.get_or_insert(answers.in_use());
            self.thresholds = answers.thresholds(self.config);
            if self.config.threshold == Threshold::Fixed && answers.largest() <= self.config.confidence_threshold {
                return Err(self.no_confident(answers.largest()));
            }
        }
        Ok(())
    }

    fn loss(&mut self, (plain, strong): (Tensor, Tensor), _at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let Self { config, net, teacher, thresholds, .. } = self;
        // The authors' answers come under batch statistics, which also moves the running ones. Thresholds per cluster are
        // measured under running statistics, so their answers must be too, or nothing need pass them. No graph either way.
        let mode = if config.threshold == Threshold::Fixed { Mode::Train } else { Mode::Eval };
        let answer = teacher.logits(0, &teacher.features(&plain, mode)?)?;
        let answer = candle_nn::ops::softmax(&answer, D::Minus1)?.to_vec2::<f32>()?;
        let kept = confident(&answer, thresholds);
        let share = kept.len() as f64 / answer.len() as f64;
        if kept.is_empty() {
            return Ok((None, measured([("loss", 0.0), ("confident", 0.0), ("skipped", 1.0)])));
        }
        let logits = net.logits(0, &net.features(&strong, Mode::Train)?)?;
        let loss = confident_loss(&logits, &kept, config.class_balancing)?;
        let shown = measured([("loss", scalar(&loss)?), ("confident", share), ("skipped", 0.0)]);
        Ok((Some(loss), shown))
    }

    fn after(&mut self, _at: At<'_>) -> Result<(), StageError> {
        self.ema.as_ref().map_or(Ok(()), |ema| Ok(ema.update(self.net.params())?))
    }

    fn end(&mut self, epoch: u64, means: &Measured, _rate: f64) -> Result<Measured, StageError> {
        let answers = self.answers()?;
        let skipped = means.iter().find(|(name, _)| name == "skipped").map_or(0.0, |(_, share)| *share);
        if skipped >= 1.0 {
            return Err(self.no_confident(answers.largest()));
        }
        let lowest = self.thresholds.iter().copied().fold(1.0, f64::min);
        let start = self.start.unwrap_or(self.net.clusters() as f64);
        if answers.in_use() < COLLAPSE * start {
            return Err(StageError::Degenerate {
                code: "selflabel::collapsed",
                what: format!(
                    "the clusters collapsed in epoch {}: {:.1} are in use, {start:.1} were before; sizes {:?}",
                    epoch + 1,
                    answers.in_use(),
                    answers.sizes
                ),
                hint: "keep the classifier this stage started from, or use fewer `epochs`, a smaller `optimizer.lr`, a weaker \
                   `augment` or a higher `keep_share`"
                    .into(),
            });
        }
        self.thresholds = answers.thresholds(self.config);
        if self.config.threshold == Threshold::PerCluster && answers.sizes.contains(&0) {
            let empty = (0..answers.sizes.len()).filter(|&cluster| answers.sizes[cluster] == 0).map(|k| k.to_string());
            self.cx.warn(format!("cluster {} became empty", empty.collect::<Vec<_>>().join(", ")));
        }
        let smallest = answers.sizes.iter().copied().min().unwrap_or(0);
        Ok(measured([
            ("lowest_threshold", lowest),
            ("clusters_in_use", answers.in_use()),
            ("smallest_cluster", smallest as f64),
            ("largest_confidence", answers.largest()),
        ]))
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        if let Some(ema) = &self.ema {
            snapshot.params("ema", ema.shadow())?;
        }
        snapshot.value("thresholds", &mut self.thresholds)?;
        snapshot.value("start", &mut self.start)
    }
}

/// Rows whose most probable cluster passes its threshold, with that cluster.
///
/// # Paper
/// SCAN, section 2.3: strictly above.
pub fn confident(probabilities: &[Vec<f32>], thresholds: &[f64]) -> Vec<(usize, usize)> {
    probabilities
        .iter()
        .enumerate()
        .filter_map(|(row, p)| {
            let cluster = argmax(p)?;
            (f64::from(p[cluster]) > thresholds[cluster]).then_some((row, cluster))
        })
        .collect()
}

/// Cross-entropy on the confident rows. Balanced, it is the mean over the clusters present of each cluster's mean.
///
/// # Shapes
/// `logits`: `[B, K]`; `kept`: row and target. Returns a scalar in nats.
///
/// # Errors
/// If the tensor operations fail; `kept` must not be empty.
///
/// # Paper
/// SCAN, section 2.3; the weights are n / n_c as in the authors' `ConfidenceBasedCE`, whose mean divides by the sum of weights.
pub fn confident_loss(logits: &Tensor, kept: &[(usize, usize)], balanced: bool) -> candle_core::Result<Tensor> {
    let clusters = logits.dim(1)?;
    let mut counts = vec![0_usize; clusters];
    for (_, cluster) in kept {
        counts[*cluster] += 1;
    }
    let weights: Vec<f64> =
        kept.iter().map(|(_, cluster)| if balanced { kept.len() as f64 / counts[*cluster] as f64 } else { 1.0 }).collect();
    let sum: f64 = weights.iter().sum();
    // One weight per kept cell and 0 elsewhere: the weighted sum of −ln p at the targets.
    let mut cells = vec![0.0_f64; kept.len() * clusters];
    for (at, ((_, cluster), weight)) in kept.iter().zip(&weights).enumerate() {
        cells[at * clusters + cluster] = weight / sum;
    }
    let cells = Tensor::from_vec(cells, (kept.len(), clusters), logits.device())?.to_dtype(logits.dtype())?;
    let rows: Vec<u32> = kept.iter().map(|(row, _)| *row as u32).collect();
    let logits = logits.index_select(&Tensor::new(rows, logits.device())?, 0)?;
    (candle_nn::ops::log_softmax(&logits, D::Minus1)? * cells)?.sum_all()?.neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    fn logits() -> (Tensor, Tensor) {
        let cell = |f: &dyn Fn(f64, f64) -> f64| {
            let values: Vec<f64> = (0..30).map(|at| f((at / 5) as f64, (at % 5) as f64)).collect();
            Tensor::from_vec(values, (6, 5), &Device::Cpu).unwrap()
        };
        (cell(&|i, c| 3.0 * (0.9 * i * (c + 1.0) + 0.2 * c).sin()), cell(&|i, c| 3.0 * (1.7 * i + 1.3 * c).cos()))
    }

    #[test]
    fn the_loss_equals_the_authors() {
        let (plain, strong) = logits();
        let plain = plain.to_dtype(DType::F32).unwrap();
        let p = candle_nn::ops::softmax(&plain, D::Minus1).unwrap().to_vec2::<f32>().unwrap();
        let strong = strong.to_dtype(DType::F32).unwrap();
        for (threshold, balanced, expected) in
            [(0.5, true, 3.665_924_8), (0.5, false, 3.945_552_1), (0.7, true, 2.882_882_4), (0.7, false, 2.882_882_4)]
        {
            let kept = confident(&p, &[threshold; 5]);
            let loss = confident_loss(&strong, &kept, balanced).unwrap().to_scalar::<f32>().unwrap();
            assert!((f64::from(loss) - expected).abs() < 2e-6, "{threshold} {balanced}: {loss}");
        }
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        let strong = Var::from_tensor(&logits().1).unwrap();
        let kept = [(0, 1), (2, 1), (3, 4)];
        let gradients = confident_loss(&strong, &kept, true).unwrap().backward().unwrap();
        let gradient = gradients.get(&strong).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let values = strong.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for at in 0..30 {
            let moved = |by: f64| {
                let mut values = values.clone();
                values[at] += by;
                let logits = Tensor::from_vec(values, (6, 5), &Device::Cpu).unwrap();
                confident_loss(&logits, &kept, true).unwrap().to_scalar::<f64>().unwrap()
            };
            assert!((gradient[at] - (moved(1e-5) - moved(-1e-5)) / 2e-5).abs() < 1e-8);
        }
    }

    #[test]
    fn a_timid_cluster_gets_a_lower_threshold_and_a_bold_one_keeps_its_own() {
        let mut probabilities = Vec::new();
        for confidence in [0.999, 0.998, 0.997, 0.6] {
            probabilities.extend([confidence, 1.0 - confidence]);
        }
        for confidence in [0.9, 0.8, 0.7, 0.65, 0.6] {
            probabilities.extend([1.0 - confidence, confidence]);
        }
        let answers = Answers::of(&probabilities, 2);
        assert_eq!(answers.sizes, [4, 5]);
        assert!((answers.largest() - 0.999).abs() < 1e-6);
        let config = Config { keep_share: 0.4, ..Config::default() };
        let thresholds = answers.thresholds(&config);
        assert!((thresholds[0] - 0.99).abs() < 1e-12);
        let rows: Vec<Vec<f32>> = probabilities.chunks(2).map(<[f32]>::to_vec).collect();
        let kept = confident(&rows, &thresholds);
        assert_eq!(kept.iter().filter(|(_, cluster)| *cluster == 1).count(), 2, "two fifths of the timid cluster pass");
        let fixed = answers.thresholds(&Config { threshold: Threshold::Fixed, ..config });
        assert!(fixed.iter().all(|t| (t - 0.99).abs() < 1e-12));
    }
}
