//! TURTLE's settings, ports, card and search.

use candle_core::{D, Tensor};

use super::loss::{cross_entropy, labels, outer};
use kinset_artifact::Stored;
use kinset_artifact::curve::Curve;
use kinset_artifact::encoder::{Classifier, Encoder, Tensors};
use kinset_artifact::features::Features;
use kinset_artifact::k_table::KTable;
use kinset_base::seed::Seed;
use kinset_model::params::values;
use kinset_model::{ClassifierNet, HeadChoice, HeadsShape, LinearProbes, TaskEncoder};
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::collapse::check_clusters;
use kinset_train::feature_space::{CenteredFeatures, alone, check_alike};
use kinset_train::ports::ClassifierOut;
use kinset_train::{
    Measured, OptimizerSettings, ScheduleSettings, Snapshot, Trainable, TrainingLoop, found_clusters, measured, scalar, train,
};

kinset_stage::settings! {
    /// Settings; the defaults are those of the paper.
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Rounds of the search; each is `steps` steps of the task encoder. 60 of 100 are the paper's 6000.
        epochs: u64 = 60, min 1;
        /// Steps of the task encoder per round.
        steps: u64 = 100, min 1;
        /// Images per step, drawn without replacement, B; all, if there are fewer.
        batch: usize = 10_000, min 2;
        /// Steps of the inner classifiers per step of the task encoder, M.
        inner_steps: usize = 10, min 1;
        /// Whether inner classifiers go on from where they were, or start anew each time.
        warm_start: bool = false;
        /// Weight of the entropy of the mean label, γ.
        gamma: f64 = 10.0, not_negative;
        /// Tells searches with equal settings apart: another number, other draws.
        trial: u64 = 0;
        /// How the task encoder moves.
        optimizer: OptimizerSettings = OptimizerSettings::adam(1e-3, 0.0), nested;
        /// How inner classifiers move.
        inner_optimizer: OptimizerSettings = OptimizerSettings::adam(1e-3, 0.0), nested;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, D]` of the same images in one or several spaces.
        features: Vec<Stored<Features>>,
        /// The encoder of the features, if there is one space, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
        /// A number of clusters that `auto_k` or `sweep_k` found, in place of `clusters`.
        clusters_from: Option<Stored<KTable>>,
    }
}

/// The search for labels.
#[derive(Debug)]
pub struct Turtle;

impl Stage for Turtle {
    const KIND: &'static str = "turtle";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "find the labeling that linear classifiers fit best, in one or several feature spaces";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = ClassifierOut;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<ClassifierOut, StageError> {
        let config = &Config { clusters: found_clusters(config.clusters, input.clusters_from.as_ref(), cx)?, ..config.clone() };
        if input.features.len() > 1 && input.encoder.is_some() {
            return Err(StageError::Mismatch {
                what: format!("`encoder` is one, and `features` are of {} spaces", input.features.len()),
                hint: "leave `encoder` out: what is found in several spaces sorts features of all of them".into(),
            });
        }
        let spaces = input
            .features
            .iter()
            .map(|features| CenteredFeatures::of(features, input.encoder.as_ref(), &cx.device))
            .collect::<Result<Vec<_>, _>>()?;
        let Some(first) = spaces.first() else { unreachable!("the port takes one or more") };
        for (space, features) in spaces.iter().zip(&input.features) {
            check_alike((&input.features[0], &first.ids), (features, &space.ids))?;
        }
        StageError::enough_for_clusters("clusters", config.clusters, first.len())?;
        if spaces.len() == 1 {
            first.warn_of_equal_images(config.clusters, cx)?;
        }
        let dims: Vec<usize> = spaces.iter().map(CenteredFeatures::dim).collect();
        let seed = cx.seed.branch("trial").at(config.trial);
        let task = TaskEncoder::init(&dims, config.clusters, seed.branch("task"), &cx.device)?;
        let probes = LinearProbes::init(&dims, config.clusters, seed.branch("inner"), &cx.device)?;
        let constant = ScheduleSettings::constant();
        let mut run = Run {
            config,
            cx,
            seed,
            dims,
            learner: Trainable::new(task.params(), task.params(), &config.optimizer, &constant, config.epochs)?,
            inner: Trainable::new(probes.params(), probes.params(), &config.inner_optimizer, &constant, config.epochs)?,
            task,
            probes,
            spaces: &spaces,
        };
        let points = train(&mut run, cx)?;
        let task = run.task;
        check_clusters((first.len(), config.clusters, config.epochs), cx, |rows| {
            let logits = spaces.iter().enumerate().map(|(at, space)| Ok(task.logits(at, &space.rows(rows)?)?.detach()));
            Ok(values(&labels(&logits.collect::<Result<Vec<_>, StageError>>()?)?.1)?)
        })?;
        Ok(ClassifierOut {
            classifier: classifier(&task, &spaces, config)?.save(&cx.out("classifier")?)?,
            curve: Curve { points }.save(&cx.out("curve")?)?,
        })
    }
}

/// One head per space. Those of several read the spaces side by side, each with zeros for the others.
fn classifier(task: &TaskEncoder, spaces: &[CenteredFeatures], config: &Config) -> Result<Classifier, StageError> {
    let (clusters, all) = (config.clusters, spaces.iter().map(CenteredFeatures::dim).sum::<usize>());
    let mut heads = Tensors::default();
    let mut before = 0;
    for (at, space) in spaces.iter().enumerate() {
        let (weight, bias) = task.plain(at)?;
        let (weight, bias) = space.plain_layer(&weight, &bias);
        let mut wide = vec![0.0; clusters * all];
        for (wide, own) in wide.chunks_exact_mut(all).zip(weight.chunks_exact(space.dim())) {
            wide[before..before + own.len()].copy_from_slice(own);
        }
        before += space.dim();
        heads.insert(format!("cluster_head.{at}.weight"), vec![clusters, all], wide);
        heads.insert(format!("cluster_head.{at}.bias"), vec![clusters], bias);
    }
    let chosen_by = format!("nothing to choose: step {} of the search", config.epochs * config.steps);
    let choice = HeadChoice { head: 0, chosen_by, losses: Vec::new() };
    let shape = HeadsShape::linear(clusters, spaces.len(), None);
    if let [space] = spaces {
        return space.classifier(shape, &heads, choice);
    }
    let (body, normalization) = alone(all, &candle_core::Device::Cpu)?;
    let shape = HeadsShape { committee: true, ..shape };
    let net = ClassifierNet::with_heads(&body, shape, &heads, &candle_core::Device::Cpu)?;
    Ok(Classifier { card: net.card(normalization, choice)?, tensors: net.to_tensors()? })
}

impl Method for Turtle {
    const CARD: PaperCard = PaperCard {
        paper: "A. Gadetsky, Y. Jiang, M. Brbić: Let Go of Your Labels with Unsupervised Transfer, ICML 2024, arXiv 2406.07236",
        reads: "features of one or several encoders (the paper's best: CLIP ViT-L/14 and DINOv2 ViT-g); of one, optionally its \
                encoder",
        writes: "classifier (a linear head per space; several decide by the mean of their probabilities), curve",
        idea: "The labels people use are ones that a linear classifier on good features learns with ease. So search for labels \
               that linear classifiers in all spaces agree with after a few steps; spreading them over all clusters keeps that \
               from being trivial.",
        loss: "τ [B, K] = mean over spaces s of soft-max(θ_s φ_s); inner, M steps: Σ_s CE(w_s φ_s; τ) with τ fixed; outer, one step: \
               Σ_s CE(w_s φ_s; τ) with w fixed − γ Σ_s entropy(mean_i soft-max(θ_s φ_s))",
        selection: "none: the last step counts. Seeds may differ; `consensus` puts several together without labels",
        as_in_paper: "6000 steps of 10,000 images, M 10, inner classifiers anew at each step (cold start), Adam 1e-3 for both, γ 10, a \
                      task encoder with weight norm, first-order gradients",
        unlike_paper: "Features are centered and scaled to mean square 1 (the authors take each encoder's own length). The paper's choice of \
                       settings by cross-validated generalization is left out",
        expect: "CIFAR-10 99.5 ACC, CIFAR-100 89.1, ImageNet 72.9 on CLIP ViT-L/14 and DINOv2 ViT-g together (paper)",
    };
}

struct Run<'a> {
    config: &'a Config,
    cx: &'a Context<'a>,
    seed: Seed,
    dims: Vec<usize>,
    task: TaskEncoder,
    learner: Trainable,
    probes: LinearProbes,
    inner: Trainable,
    spaces: &'a [CenteredFeatures],
}

impl Run<'_> {
    /// The images of a step, drawn anew.
    fn draw(&self, number: u64) -> Vec<usize> {
        let n = self.spaces[0].len();
        let mut rng = self.seed.branch("batch").at(number).rng();
        let mut all: Vec<usize> = (0..n).collect();
        let wanted = self.config.batch.min(n);
        // The first part of a shuffle is a draw without replacement.
        for at in 0..wanted.min(n - 1) {
            all.swap(at, at + rng.below(n - at));
        }
        all.truncate(wanted);
        all
    }
}

impl TrainingLoop for Run<'_> {
    fn epochs(&self) -> u64 {
        self.config.epochs
    }

    fn steps(&self) -> u64 {
        self.config.steps
    }

    fn begin(&mut self, epoch: u64) -> Result<(), StageError> {
        self.learner.begin(epoch);
        self.inner.begin(epoch);
        Ok(())
    }

    fn step(&mut self, epoch: u64, step: u64) -> Result<Measured, StageError> {
        let config = self.config;
        let number = epoch * config.steps + step;
        let rows = self.draw(number);
        let seen = self.spaces.iter().map(|space| space.rows(&rows)).collect::<Result<Vec<_>, _>>()?;
        let logits = seen.iter().enumerate().map(|(at, x)| self.task.logits(at, x)).collect::<Result<Vec<_>, _>>()?;
        let (each, mean) = labels(&logits)?;
        let still = mean.detach();
        if !config.warm_start {
            let seed = self.seed.branch("inner").at(number);
            self.probes = LinearProbes::init(&self.dims, config.clusters, seed, &self.cx.device)?;
            let constant = ScheduleSettings::constant();
            let params = self.probes.params();
            self.inner = Trainable::new(params, params, &config.inner_optimizer, &constant, config.epochs)?;
            self.inner.begin(epoch);
        }
        for _ in 0..config.inner_steps {
            let losses = seen
                .iter()
                .enumerate()
                .map(|(at, x)| Ok(cross_entropy(&self.probes.logits(at, x)?, &still)?))
                .collect::<Result<Vec<_>, StageError>>()?;
            self.inner.descend(&Tensor::stack(&losses, 0)?.sum_all()?)?;
        }
        let inner = seen.iter().enumerate().map(|(at, x)| self.probes.logits(at, x)).collect::<Result<Vec<_>, _>>()?;
        let loss = outer(&inner, &each, &mean, config.gamma)?;
        self.learner.descend(&loss.total)?;
        Ok(measured([
            ("loss", scalar(&loss.total)?),
            ("error", scalar(&loss.error)?),
            ("entropy", scalar(&loss.spread)?),
            ("confidence", scalar(&still.max(D::Minus1)?.mean_all()?)?),
        ]))
    }

    fn end(&mut self, _epoch: u64, _means: &Measured) -> Result<Measured, StageError> {
        Ok(Measured::new())
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        self.learner.state("task", snapshot)?;
        // Those that start anew at each step need no memory.
        if self.config.warm_start { self.inner.state("inner", snapshot) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    #[test]
    fn settings_that_cannot_be_are_named() {
        assert_eq!(Config::default().check(), []);
        let wrong = Config { steps: 0, inner_steps: 0, gamma: -1.0, ..Config::default() };
        let fields: Vec<String> = wrong.check().into_iter().map(|complaint| complaint.path).collect();
        assert_eq!(fields, ["steps", "inner_steps", "gamma"]);
        let default = Config::default();
        assert_eq!(default.epochs * default.steps, 6000, "the paper's T");
    }
}
