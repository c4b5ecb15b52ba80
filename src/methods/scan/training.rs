//! The training of SCAN's heads, whether images or features are read.

use candle_core::{D, Tensor};

use super::loss::{Validation, scan_loss, validation_loss};
use super::stage::{Config, Update};
use kinset_artifact::encoder::Classifier;
use kinset_artifact::neighbors::NeighborTable;
use kinset_model::params::values;
use kinset_model::{ClassifierNet, Mode};
use kinset_stage::{Context, StageError, Stop};
use kinset_train::best_epoch::{BestEpoch, Kept};
use kinset_train::input_cache::CachedInputs;
use kinset_train::neighbor_pairs::NeighborPairs;
use kinset_train::ports::ChosenOut;
use kinset_train::{
    At, BatchOrder, Course, Measured, Objective, Prefetcher, Snapshot, Trainer, infer, measured, scalar, train,
};

/// Inputs and their neighbors, drawn as the settings say.
pub(super) fn pairs<'a>(
    config: &'a Config,
    inputs: CachedInputs<'a>,
    table: NeighborTable,
    cx: &Context<'_>,
) -> NeighborPairs<'a> {
    let Config { num_neighbors, include_self, ref augment, .. } = *config;
    NeighborPairs { inputs, candidates: num_neighbors.unwrap_or(table.k), include_self, table, augment, seed: cx.seed }
}

/// Trains the heads of `net`, and what else `config.update` says; `made` turns a state of the network into a classifier.
pub(super) fn train_heads(
    config: &Config,
    course: &Course,
    net: &ClassifierNet,
    training: &NeighborPairs<'_>,
    validation: &NeighborPairs<'_>,
    cx: &Context<'_>,
    made: impl Fn(Kept) -> Result<Classifier, StageError>,
) -> Result<ChosenOut, StageError> {
    let (moved, recorded) = match config.update {
        Update::All => (net.params().clone(), net.clone()),
        Update::Heads => (net.head_params(), net.with_frozen_encoder()?),
    };
    let order = BatchOrder::new(training.inputs.len(), course.batch, cx.seed)?;
    let steps = course.epochs * order.steps();
    let mut trainer = Trainer {
        epochs: course.epochs,
        order,
        learner: course.learner(net.params(), &moved)?,
        prefetcher: Prefetcher::new(!training.inputs.are_features()),
        batch: |at: At<'_>| training.anchors_and_neighbors(at.rows, at.epoch),
        objective: Agreement {
            config,
            epochs: course.epochs,
            net,
            recorded,
            training,
            validation,
            best: BestEpoch::default(),
            stop: cx.stop.clone(),
        },
    };
    let points = train(&mut trainer, cx)?;
    trainer.objective.best.finish(net, (steps, "consistency − entropy"), points, cx, made)
}

struct Agreement<'a> {
    config: &'a Config,
    epochs: u64,
    net: &'a ClassifierNet,
    /// The same numbers, seen so that gradients reach what is updated.
    recorded: ClassifierNet,
    training: &'a NeighborPairs<'a>,
    validation: &'a NeighborPairs<'a>,
    best: BestEpoch,
    stop: Stop,
}

impl Agreement<'_> {
    /// Probabilities of the validation images, `[N, K]` per head.
    fn probabilities(&self) -> Result<Vec<Vec<f32>>, StageError> {
        let heads: Vec<usize> = (0..self.config.heads).collect();
        let features = match &self.validation.inputs {
            CachedInputs::Views(loader) => return infer::probabilities(self.net, &heads, loader, |_| Ok(self.stop.check()?)),
            CachedInputs::Features(features) => features,
        };
        let net = self.net.frozen()?;
        let softmax = |head| {
            self.stop.check()?;
            Ok(values(&candle_nn::ops::softmax(&net.logits(head, features)?, D::Minus1)?)?)
        };
        heads.into_iter().map(softmax).collect()
    }
}

impl Objective for Agreement<'_> {
    /// Of anchors, and of a neighbor of each.
    type Batch = [Tensor; 2];

    fn loss(&mut self, batch: [Tensor; 2], _at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let Self { config, recorded, training, .. } = self;
        // Two forward passes, so that each side has its own batch statistics, as in the authors' code.
        let mode = if config.update == Update::Heads { Mode::Eval } else { Mode::Train };
        let [anchors, neighbors] = batch.map(|read| training.inputs.features(recorded, read, mode));
        let (anchors, neighbors) = (recorded.all_logits(&anchors?)?, recorded.all_logits(&neighbors?)?);
        let loss = scan_loss(&anchors, &neighbors, config.heads, config.entropy_weight)?;
        // Heads are optimized by their sum, so that each sees its full gradient, and shown by their mean.
        let mean = |part: &Tensor| scalar(part).map(|sum| sum / config.heads as f64);
        let shown = measured([
            ("loss", mean(&loss.total)?),
            ("consistency", mean(&loss.consistency)?),
            ("entropy", mean(&loss.entropy)?),
        ]);
        Ok((Some(loss.total), shown))
    }

    fn end(&mut self, epoch: u64, _means: &Measured, _rate: f64) -> Result<Measured, StageError> {
        let Config { validate_every, validation_neighbors, clusters, .. } = *self.config;
        if !(epoch + 1).is_multiple_of(validate_every) && epoch + 1 < self.epochs {
            return Ok(Measured::new());
        }
        let probabilities = self.probabilities()?;
        let table = &self.validation.table;
        let k = validation_neighbors.min(table.k);
        let parts: Vec<Validation> =
            probabilities.iter().map(|p| validation_loss(p, clusters, &table.index, table.k, k)).collect();
        let losses: Vec<f64> = parts.iter().map(Validation::total).collect();
        let head = self.best.offer(epoch, &losses, &probabilities, self.net)?;
        Ok(measured([
            ("val_loss", losses[head]),
            ("val_consistency", parts[head].consistency),
            ("val_entropy", parts[head].entropy),
            ("best_head", head as f64),
        ]))
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        self.best.state(snapshot)
    }
}
