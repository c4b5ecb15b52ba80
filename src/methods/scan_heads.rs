//! # SCAN's heads on features: cluster so that neighbors agree, the encoder long gone
//!
//! SCAN's loss on features that were computed once: see [`ScanHeads::SIGN`].

use candle_core::{D, Tensor};

use super::scan::{Validation, scan_loss, validation_loss};
use kinset_artifact::curve::Curve;
use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::features::Features;
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::{Draft, Stored};
use kinset_model::params::values;
use kinset_model::{ClassifierNet, HeadsShape};
use kinset_stage::{Context, Method, Sign, Stage, StageError};
use kinset_train::learner::{Learner, Order};
use kinset_train::selection::{Concluded, Kept, Selection};
use kinset_train::settings::{OptimizerSettings, ScheduleSettings};
use kinset_train::sight::partner;
use kinset_train::space::Space;
use kinset_train::training::{Measured, Snapshot, Trainee, measured, train};

kinset_stage::settings! {
    /// Settings; what is not about features is as in [`super::scan::Config`].
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Heads trained side by side, H; the best by validation loss is chosen. 10, as SCAN on ImageNet.
        heads: usize = 10, min 1;
        /// Hidden units of a head; none: linear, as in the paper.
        hidden: Option<usize> = None, min 1;
        /// Passes over the images.
        epochs: u64 = 50, min 1;
        /// Anchors per step, B.
        batch: usize = 1024, min 2;
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
        optimizer: OptimizerSettings = OptimizerSettings::adam(1e-3, 0.0), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::constant(), nested;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub label_free struct In {
        /// `[N, D]`.
        features: Stored<Features>,
        /// `[N, M]`, of the same images.
        neighbors: Stored<Neighbors>,
        /// The encoder the features come from, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// All heads of the best epoch, the best of them chosen.
        classifier: Draft<Classifier>,
        /// Loss and its parts per epoch, for training and validation.
        curve: Draft<Curve>,
        /// All heads after the last epoch, the best of them chosen: what the choice of an epoch was worth.
        last: Draft<Classifier>,
    }
}

/// SCAN's clustering stage on features.
#[derive(Debug)]
pub struct ScanHeads;

impl Stage for ScanHeads {
    const KIND: &'static str = "scan_heads";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "cluster features so that neighbors agree: SCAN's heads, the encoder as it is";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let space = Space::of(&input.features, input.encoder.as_ref(), &cx.device)?;
        let table = NeighborTable::load(&input.neighbors)?;
        space.belongs(&table)?;
        StageError::enough_for_clusters("clusters", config.clusters, space.len())?;
        let shape = HeadsShape::linear(config.clusters, config.heads, config.hidden);
        let net = space.heads(shape, cx.seed.branch("heads"))?;
        let mut run = Run {
            config,
            cx,
            order: Order::new(space.len(), config.batch, cx.seed)?,
            learner: Learner::new(net.params(), net.params(), &config.optimizer, &config.schedule, config.epochs)?,
            net,
            space: &space,
            table: &table,
            selection: Selection::default(),
        };
        let curve = train(&mut run, cx)?;
        let steps = config.epochs * run.steps();
        let Run { net, selection, .. } = run;
        let Concluded { best, last } = selection.conclude(&net, steps, "consistency − entropy", cx)?;
        let save = |Kept { tensors, choice }, output| {
            let classifier = space.classifier(shape, &space.plain_heads(&tensors), choice)?;
            Ok::<_, StageError>(classifier.save(&cx.out(output)?)?)
        };
        Ok(Out {
            classifier: save(best, "classifier")?,
            curve: Curve { points: curve }.save(&cx.out("curve")?)?,
            last: save(last, "last")?,
        })
    }
}

impl Method for ScanHeads {
    const SIGN: Sign = Sign {
        paper: "W. Van Gansbeke, S. Vandenhende, S. Georgoulis, M. Proesmans, L. Van Gool: SCAN: Learning to Classify Images \
                without Labels, ECCV 2020, arXiv 2005.12320, eq. 2",
        reads: "features, neighbors mined on them (50 on ImageNet); optionally their encoder",
        writes: "classifier (all heads of the best epoch, the best chosen), curve, last (the same of the last epoch)",
        idea: "An image and its nearest neighbors mostly show the same thing, so they should fall into the same cluster; \
               spreading all images over all clusters keeps that from being trivial.",
        loss: "P, Q [B, K] soft-max of anchor and neighbor; consistency = mean_i −ln(P_i · Q_i); p̄ [K] = mean_i P_i; \
               loss = consistency − λ · entropy(p̄), summed over the H heads",
        selection: "after every epoch, on all features and their neighbors: consistency − entropy with weight 1; the lowest over \
                    heads and epochs wins",
        as_in_paper: "loss, λ 5, one neighbor per anchor and step, ten linear heads on an encoder that stands still: SCAN's \
                      ImageNet experiment",
        unlike_paper: "Features are computed once, so there are no views. They are centred and scaled to mean square 1, with Adam at 1e-3 and \
                       batches of 1024 in place of SGD: heads alone take larger steps than networks",
        expect: "on strong features a little above k-means; digits 83.1, 90.5 beside 79.2, 79.5 (two seeds)",
    };
}

struct Run<'a> {
    config: &'a Config,
    cx: &'a Context<'a>,
    order: Order,
    learner: Learner,
    net: ClassifierNet,
    space: &'a Space,
    table: &'a NeighborTable,
    selection: Selection,
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
        let Config { num_neighbors, include_self, heads, entropy_weight, .. } = *self.config;
        let k = num_neighbors.unwrap_or(self.table.k);
        let rows = self.order.rows(step);
        let partners: Vec<usize> =
            rows.iter().map(|&row| partner(self.table, k, include_self, row, epoch, self.cx.seed)).collect();
        let anchors = self.net.all_logits(&self.space.rows(rows)?)?;
        let neighbors = self.net.all_logits(&self.space.rows(&partners)?)?;
        let loss = scan_loss(&anchors, &neighbors, heads, entropy_weight)?;
        self.learner.descend(&loss.total)?;
        // Heads are optimised by their sum, so that each sees its full gradient, and shown by their mean.
        let mean = |part: &Tensor| Ok::<_, StageError>(f64::from(part.to_scalar::<f32>()?) / heads as f64);
        Ok(measured([
            ("loss", mean(&loss.total)?),
            ("consistency", mean(&loss.consistency)?),
            ("entropy", mean(&loss.entropy)?),
        ]))
    }

    fn end(&mut self, epoch: u64, _means: &Measured) -> Result<Measured, StageError> {
        if !(epoch + 1).is_multiple_of(self.config.validate_every) && epoch + 1 < self.config.epochs {
            return Ok(Measured::new());
        }
        let net = self.net.frozen()?;
        let said = |head| values(&candle_nn::ops::softmax(&net.logits(head, &self.space.values)?, D::Minus1)?);
        let probabilities: Vec<Vec<f32>> = (0..self.config.heads).map(said).collect::<Result<_, _>>()?;
        let (width, clusters) = (self.table.k, self.config.clusters);
        let k = self.config.validation_neighbors.min(width);
        let parts: Vec<Validation> =
            probabilities.iter().map(|p| validation_loss(p, clusters, &self.table.index, width, k)).collect();
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
