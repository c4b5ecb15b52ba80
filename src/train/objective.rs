//! The usual training loop: batches in random order, made ahead of time; one loss; one optimizer.
//!
//! A method states what is its own, an [`Objective`]: the loss of a batch, and what else a step or an epoch changes. [`Trainer`]
//! owns the rest: the order of the images, prefetching, the learning rate, the state of the network in checkpoints.

use candle_core::Tensor;

use super::prefetch::{Place, Prefetcher};
use super::snapshot::Snapshot;
use super::trainable::{BatchOrder, Trainable};
use super::training::{Measured, TrainingLoop, measured};
use kinset_stage::StageError;

/// A batch in a run.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// Counted from 0.
    pub epoch: u64,
    /// Within the epoch, counted from 0.
    pub step: u64,
    /// Steps in an epoch.
    pub steps: u64,
    /// The images of the batch, as rows of the set.
    pub rows: &'a [usize],
}

/// What a method minimises, and what moves beside the weights. Only the loss must be given.
pub trait Objective: Send {
    /// What a network reads of a batch of images.
    type Batch: Send;

    /// Prepares an epoch; see [`TrainingLoop::begin`].
    fn begin(&mut self, _epoch: u64) -> Result<(), StageError> {
        Ok(())
    }

    /// The epoch that the learning rate is taken of, if the schedule does not run over the whole training.
    fn schedule_epoch(&self, epoch: u64) -> u64 {
        epoch
    }

    /// The loss to minimise, none if this batch teaches nothing; and what is shown of it, a loss first.
    fn loss(&mut self, batch: Self::Batch, at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError>;

    /// Follows each step of the optimizer: moving averages, memories.
    fn after(&mut self, _at: At<'_>) -> Result<(), StageError> {
        Ok(())
    }

    /// Closes an epoch; see [`TrainingLoop::end`]. `rate` is the learning rate of this epoch.
    fn end(&mut self, _epoch: u64, _means: &Measured, rate: f64) -> Result<Measured, StageError> {
        Ok(measured([("lr", rate)]))
    }

    /// What training changes beside the network and its optimizer; see [`TrainingLoop::state`].
    fn state(&mut self, _snapshot: &mut Snapshot) -> Result<(), StageError> {
        Ok(())
    }
}

/// The loop around an [`Objective`].
#[derive(Debug)]
pub struct Trainer<O: Objective, F> {
    pub epochs: u64,
    pub order: BatchOrder,
    pub learner: Trainable,
    pub prefetcher: Prefetcher<O::Batch, StageError>,
    /// Makes a batch: a function of the place alone, called from another thread while the batch before is learned from.
    pub batch: F,
    pub objective: O,
}

impl<O: Objective, F: Fn(At<'_>) -> Result<O::Batch, StageError> + Sync> TrainingLoop for Trainer<O, F> {
    fn epochs(&self) -> u64 {
        self.epochs
    }

    fn steps(&self) -> u64 {
        self.order.steps()
    }

    fn begin(&mut self, epoch: u64) -> Result<(), StageError> {
        self.order.begin(epoch);
        self.learner.begin(self.objective.schedule_epoch(epoch));
        self.objective.begin(epoch)
    }

    fn step(&mut self, epoch: u64, step: u64) -> Result<Measured, StageError> {
        let Self { order, learner, prefetcher, batch, objective, .. } = self;
        let (order, batch, steps) = (&*order, &*batch, order.steps());
        let at = move |step| At { epoch, step, steps, rows: order.rows(step) };
        prefetcher.step(
            Place { epoch, step, steps },
            |step| batch(at(step)),
            |batch| {
                let (loss, measured) = objective.loss(batch, at(step))?;
                if let Some(loss) = loss {
                    learner.descend(&loss)?;
                    objective.after(at(step))?;
                }
                Ok(measured)
            },
        )
    }

    fn end(&mut self, epoch: u64, means: &Measured) -> Result<Measured, StageError> {
        self.objective.end(epoch, means, self.learner.rate())
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        self.learner.state("net", snapshot)?;
        self.objective.state(snapshot)
    }
}
