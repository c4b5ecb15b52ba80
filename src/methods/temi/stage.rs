//! TEMI's settings, ports, card and training.

use candle_core::{D, Tensor};

use super::loss::{log_probabilities, same_cluster, temi_loss};
use kinset_artifact::curve::Curve;
use kinset_artifact::encoder::HeadKind;
use kinset_model::params::values;
use kinset_model::{DistillHeads, DistillShape, HeadChoice, HeadsShape};
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::best_epoch::lowest;
use kinset_train::collapse::check_clusters;
use kinset_train::course::PER_CLUSTER;
use kinset_train::ema::blend;
use kinset_train::feature_space::CenteredFeatures;
use kinset_train::neighbor_pairs::draw_neighbors;
use kinset_train::ports::{ClassifierOut, FeaturesIn};
use kinset_train::{
    At, BatchOrder, Measured, Objective, OptimizerSettings, Paced, Prefetcher, ScheduleSettings, Snapshot, Trainer,
    found_clusters, measured, scalar, train,
};

kinset_stage::settings! {
    /// Settings; the defaults are those of the paper and of the command in its authors' README.
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Heads, H; the one of the lowest loss is chosen. Paper: 50; README: 16. On 50,000 × 768 features each costs some
        /// eight minutes of a CPU.
        heads: usize = 50, min 1;
        /// Hidden units of a head, U.
        hidden: usize = 512, min 1;
        /// Width of what is brought to unit length before the last layer, V.
        bottleneck: usize = 256, min 1;
        /// Passes over the images; unset: the README's 100 (paper: 200 on small sets), or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Images per step, each with a neighbor, B; unset: 1024, or fewer of few images and more for many clusters.
        batch: Option<usize> = None, min 2;
        /// How many of the mined neighbors are candidates; unset: all. Paper: 50, and 25 on ImageNet.
        num_neighbors: Option<usize> = None, min 1;
        /// β, which keeps rare clusters from being emptied: 0.5–1.
        beta: f64 = 0.6, above_zero;
        /// Temperature of the student.
        student_temperature: f64 = 0.1, above_zero;
        /// Temperature of the teacher.
        teacher_temperature: f64 = 0.1, above_zero;
        /// How slowly the teacher follows, 0–1.
        teacher_momentum: f64 = 0.996, below_one;
        /// How slowly the mean of the teacher's answers is forgotten, 0–1.
        marginal_momentum: f64 = 0.9, below_one;
        /// Epochs in which the last layer is frozen.
        freeze_last: u64 = 1;
        /// How weights move.
        // 1e-4 per 256 images.
        optimizer: OptimizerSettings = OptimizerSettings::adam(4e-4, 0.0), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings { warm_up: 20, ..ScheduleSettings::constant() }, nested;
    }
}

kinset_train::paced!(Config: 100 epochs, 1024 images a step, 2000 steps at least);

/// The clustering stage.
#[derive(Debug)]
pub struct Temi;

impl Stage for Temi {
    const KIND: &'static str = "temi";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "cluster features by the mutual information of neighbors: self-distilled heads";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = FeaturesIn;
    type Out = ClassifierOut;

    fn run(config: &Config, input: FeaturesIn, cx: &Context<'_>) -> Result<ClassifierOut, StageError> {
        let config = &Config { clusters: found_clusters(config.clusters, input.clusters_from.as_ref(), cx)?, ..config.clone() };
        let space = CenteredFeatures::of(&input.features, input.encoder.as_ref(), &cx.device)?;
        space.warn_of_equal_images(config.clusters, cx)?;
        let table = space.neighbors(&input.neighbors)?;
        StageError::enough_for_clusters("clusters", config.clusters, space.len())?;
        let course = config.course(space.len(), PER_CLUSTER * config.clusters, cx)?;
        let shape = DistillShape {
            dim: space.dim(),
            hidden: config.hidden,
            bottleneck: config.bottleneck,
            clusters: config.clusters,
            heads: config.heads,
        };
        let student = DistillHeads::init(shape, cx.seed.branch("heads"), &cx.device)?;
        let teacher = DistillHeads::over(shape, &student.params().duplicate()?)?;
        let even = Tensor::full(1.0 / config.clusters as f32, (config.heads, config.clusters), &cx.device)?;
        let k = config.num_neighbors.unwrap_or(table.k);
        // Images and neighbors pass together.
        let batch = |at: At<'_>| {
            let neighbors = draw_neighbors(&table, k, false, at.rows, at.epoch, cx.seed);
            space.rows(&[at.rows, neighbors.as_slice()].concat())
        };
        let learner = course.learner(student.params(), student.params())?;
        let order = BatchOrder::new(space.len(), course.batch, cx.seed)?;
        let objective = Distillation {
            config,
            freeze_last: course.stretched(config.freeze_last, Config::default().freeze_last),
            student,
            teacher,
            marginal: even,
            sums: vec![0.0; config.heads],
            losses: Vec::new(),
            steps: order.steps(),
        };
        let mut trainer =
            Trainer { epochs: course.epochs, order, learner, prefetcher: Prefetcher::new(false), batch, objective };
        let curve = train(&mut trainer, cx)?;
        let Distillation { teacher, losses, .. } = trainer.objective;
        let head = lowest(&losses);
        check_clusters((space.len(), config.clusters, course.epochs), cx, |rows| {
            let scores = teacher.scores(head, &space.rows(rows)?, true)?;
            Ok(values(&log_probabilities(&scores, config.teacher_temperature)?.exp()?)?)
        })?;
        let chosen_by = format!("lowest loss of the last epoch ({}), without labels", course.epochs);
        let choice = HeadChoice { head, chosen_by, losses };
        let made = HeadsShape {
            kind: HeadKind::Bottleneck,
            bottleneck: Some(config.bottleneck),
            ..HeadsShape::linear(config.clusters, config.heads, Some(config.hidden))
        };
        let heads = space.plain_heads(&teacher.to_heads(config.teacher_temperature)?);
        Ok(ClassifierOut {
            classifier: space.classifier(made, &heads, choice)?.save(&cx.out("classifier")?)?,
            curve: Curve { points: curve }.save(&cx.out("curve")?)?,
        })
    }
}

impl Method for Temi {
    const CARD: PaperCard = PaperCard {
        paper: "N. Adaloglou, F. Michels, H. Kalisch, M. Kollmann: Exploring the Limits of Deep Image Clustering using Pretrained \
                Models, BMVC 2023, arXiv 2303.17896; settings as in the authors' README",
        reads: "features, neighbors mined on them (50; 25 on ImageNet); optionally their encoder",
        writes: "classifier (all heads of the teacher, the best chosen), curve",
        idea: "An image and its neighbor should say more of each other's cluster than chance would. Pairs that the heads think \
               belong together count more, so that wrong neighbors do less harm; a slower copy of the heads is the teacher.",
        loss: "s, s', t, t' [B, K] soft-max of image and neighbor by student and teacher, temperature 0.1; m [K] moving mean of t \
               and t'; I(s, t') = ln Σ_c (s_c t'_c)^β / m_c; w [B] = mean over heads of Σ_c t_c t'_c; loss = −½ mean_i w_i (I(s, \
               t') + I(s', t)), summed over the H heads",
        selection: "the head whose loss was lowest on average over the last epoch",
        as_in_paper: "β 0.6, heads of 512 and 256 units with GELU, unit length and weight norm, 50 heads, teacher's momentum 0.996, \
                      mean's 0.9, batch 1024, rate 4e-4 after 20 epochs of warm-up, the last layer frozen in the first epoch, 100 \
                      epochs, the teacher as the result",
        unlike_paper: "Features are centered and scaled to mean square 1 (the authors take each encoder's own length). Warm-up rises by epochs, \
                       not steps. Adam without AdamW's decay, which would take 0.02 % off a weight over a whole run. Heads are \
                       optimized by the sum of their losses. A cluster below 1e-8 in the mean counts as 1e-8. Where `epochs` or \
                       `batch` is not set, few images get smaller batches and more epochs, 2000 steps at least",
        expect: "CIFAR-10 94.5 ACC on DINO ViT-B/16, 96.9 on CLIP ViT-L/14; CIFAR-100 67.1 and 73.7; 6 to 12 points above k-means \
                 over 17 encoders (paper)",
    };
}

struct Distillation<'a> {
    config: &'a Config,
    /// Epochs in which the last layer is frozen.
    freeze_last: u64,
    student: DistillHeads,
    /// Numbers of its own, unrecorded.
    teacher: DistillHeads,
    /// Moving mean of the teacher's probabilities, `[H, K]`.
    marginal: Tensor,
    /// Loss of each head, summed over the steps of this epoch.
    sums: Vec<f64>,
    /// Mean loss of each head over the epoch before.
    losses: Vec<f64>,
    /// Steps in an epoch.
    steps: u64,
}

impl Objective for Distillation<'_> {
    type Batch = Tensor;

    fn loss(&mut self, seen: Tensor, at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let (config, batch) = (self.config, at.rows.len());
        let halves = |log: &Tensor| Ok::<_, StageError>([log.narrow(0, 0, batch)?, log.narrow(0, batch, batch)?]);

        let (mut teachers, mut weights, mut means) = (Vec::with_capacity(config.heads), None, Vec::with_capacity(config.heads));
        for head in 0..config.heads {
            let log = log_probabilities(&self.teacher.scores(head, &seen, true)?, config.teacher_temperature)?;
            let [one, other] = halves(&log)?;
            let chance = same_cluster(&one, &other)?;
            weights = Some(match weights {
                None => chance,
                Some(sum) => (sum + chance)?,
            });
            means.push(log.exp()?.mean(0)?);
            teachers.push([one, other]);
        }
        let Some(weights) = weights else { unreachable!("there is at least one head") };
        let weights = (weights / config.heads as f64)?;
        let keep = config.marginal_momentum;
        self.marginal = ((&self.marginal * keep)? + (Tensor::stack(&means, 0)? * (1.0 - keep))?)?;

        let mut total: Option<Tensor> = None;
        let mut each = Vec::with_capacity(config.heads);
        for (head, teachers) in teachers.iter().enumerate() {
            let still = at.epoch < self.freeze_last;
            let log = log_probabilities(&self.student.scores(head, &seen, still)?, config.student_temperature)?;
            let [one, other] = halves(&log)?;
            let loss =
                temi_loss([&one, &other], [&teachers[0], &teachers[1]], &self.marginal.get(head)?, &weights, config.beta)?;
            each.push(loss.detach());
            total = Some(match total {
                None => loss,
                Some(sum) => (sum + loss)?,
            });
        }
        let Some(total) = total else { unreachable!("there is at least one head") };
        let each = Tensor::stack(&each, 0)?.to_vec1::<f32>()?;
        for (sum, loss) in self.sums.iter_mut().zip(&each) {
            *sum += f64::from(*loss);
        }
        let loss = each.iter().map(|&loss| f64::from(loss)).sum::<f64>() / config.heads as f64;
        Ok((Some(total), measured([("loss", loss), ("weight", scalar(&weights.mean_all()?)?)])))
    }

    fn after(&mut self, _at: At<'_>) -> Result<(), StageError> {
        Ok(blend(self.teacher.params(), self.student.params(), self.config.teacher_momentum)?)
    }

    fn end(&mut self, _epoch: u64, _means: &Measured, _rate: f64) -> Result<Measured, StageError> {
        self.losses = self.sums.iter().map(|sum| sum / self.steps as f64).collect();
        self.sums.fill(0.0);
        let best = lowest(&self.losses);
        let mean = self.marginal.get(best)?;
        let entropy = scalar(&(&mean * mean.maximum(1e-12)?.log()?)?.sum(D::Minus1)?.neg()?)?;
        Ok(measured([("best_loss", self.losses[best]), ("best_head", best as f64), ("entropy", entropy)]))
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        snapshot.params("teacher", self.teacher.params())?;
        snapshot.tensor("marginal", &mut self.marginal)?;
        snapshot.value("sums", &mut self.sums)?;
        snapshot.value("losses", &mut self.losses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    #[test]
    fn settings_that_cannot_be_are_named() {
        assert_eq!(Config::default().check(), []);
        let wrong = Config { clusters: 1, heads: 0, beta: 0.0, teacher_momentum: 1.0, ..Config::default() };
        let fields: Vec<String> = wrong.check().into_iter().map(|complaint| complaint.path).collect();
        assert_eq!(fields, ["clusters", "heads", "beta", "teacher_momentum"]);
    }
}
