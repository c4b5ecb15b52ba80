//! A network with its optimizer and learning rate, and the order of the images in an epoch.
//!
//! A method with two networks has two of the first. What is saved is what is needed to resume bit for bit; the order of the images
//! and the rate are functions of the epoch and are not.

use candle_core::Tensor;

use super::batches::{Batches, Last};
use super::optim::Optimization;
use super::settings::{OptimizerSettings, ScheduleSettings};
use super::snapshot::Snapshot;
use kinset_base::seed::Seed;
use kinset_model::Params;
use kinset_stage::StageError;

/// A network's numbers and what moves them.
#[derive(Debug)]
pub struct Trainable {
    params: Params,
    optimizer: Optimization,
    base: f64,
    schedule: ScheduleSettings,
    epochs: u64,
    rate: f64,
}

impl Trainable {
    /// Moves `moved`, which are some or all of `params`; all of `params`, buffers too, are saved.
    pub fn new(
        params: &Params,
        moved: &Params,
        optimizer: &OptimizerSettings,
        schedule: &ScheduleSettings,
        epochs: u64,
    ) -> Result<Self, StageError> {
        let (base, schedule) = (optimizer.lr, schedule.clone());
        Ok(Self { params: params.clone(), optimizer: optimizer.build(moved)?, base, schedule, epochs, rate: base })
    }

    /// Sets the rate of an epoch, counted from 0.
    pub fn begin(&mut self, epoch: u64) {
        self.rate = self.schedule.rate(self.base, epoch, self.epochs);
    }

    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Parameters and buffers of the network.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Back-propagates a scalar loss and makes a step.
    pub fn descend(&mut self, loss: &Tensor) -> Result<(), StageError> {
        Ok(self.optimizer.descend(loss, self.rate)?)
    }

    /// Weights, buffers and moments, under this name.
    pub fn state(&mut self, name: &str, snapshot: &mut Snapshot) -> Result<(), StageError> {
        snapshot.params(name, &self.params)?;
        snapshot.group(&format!("{name}/optimizer"), &mut self.optimizer, Optimization::state, Optimization::load)
    }
}

/// The images in the order of this epoch, batch by batch.
#[derive(Clone, Debug)]
pub struct BatchOrder {
    batches: Batches,
    seed: Seed,
    rows: Vec<Vec<usize>>,
}

impl BatchOrder {
    /// Cuts `images` images into full batches; what does not fill one is dropped, and others are next epoch.
    ///
    /// # Errors
    /// No images, a batch of 0, a batch larger than the set.
    pub fn new(images: usize, batch: usize, seed: Seed) -> Result<Self, StageError> {
        Ok(Self::of(Batches::new(images, batch, Last::Drop)?, seed.branch("order")))
    }

    /// Batches in orders drawn from this very seed.
    pub fn of(batches: Batches, seed: Seed) -> Self {
        Self { batches, seed, rows: Vec::new() }
    }

    /// Cuts `images` images into batches so that each comes once per epoch: the last batch may be smaller. It is at least two
    /// images, for batch statistics: one that is left over joins the batch before.
    pub fn whole(images: usize, batch: usize, seed: Seed) -> Result<Self, StageError> {
        let full = Self::new(images, batch, seed)?;
        Ok(Self { batches: Batches::new(images, batch, Last::Join)?, ..full })
    }

    /// Shuffles for an epoch.
    pub fn begin(&mut self, epoch: u64) {
        self.rows = self.batches.shuffled(self.seed, epoch as usize);
    }

    pub fn steps(&self) -> u64 {
        self.batches.len() as u64
    }

    pub fn rows(&self, step: u64) -> &[usize] {
        &self.rows[step as usize]
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};

    use super::*;
    use kinset_model::Role;
    use kinset_model::params::values;

    fn learner() -> (Trainable, Var) {
        let var = Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
        let mut params = Params::new();
        params.push("w", Role::Parameter, var.clone()).unwrap();
        let settings = OptimizerSettings::sgd(0.5, 0.9, 0.0);
        (Trainable::new(&params, &params, &settings, &ScheduleSettings::cosine(0.1), 10).unwrap(), var)
    }

    #[test]
    fn a_whole_order_visits_every_image_and_leaves_none_alone() {
        for (images, batch, lengths) in [(10, 4, vec![4, 4, 2]), (9, 4, vec![4, 5]), (8, 4, vec![4, 4]), (4, 4, vec![4])] {
            let mut order = BatchOrder::whole(images, batch, Seed::new(1)).unwrap();
            order.begin(0);
            let rows: Vec<Vec<usize>> = (0..order.steps()).map(|step| order.rows(step).to_vec()).collect();
            assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), lengths);
            let mut all = rows.concat();
            all.sort_unstable();
            assert_eq!(all, (0..images).collect::<Vec<_>>());
        }
        assert!(BatchOrder::whole(3, 4, Seed::new(1)).is_err(), "a batch larger than the set");
    }

    #[test]
    fn a_learner_that_was_saved_goes_on_as_if_nothing_had_happened() {
        let pull = |learner: &mut Trainable, var: &Var, epoch| {
            learner.begin(epoch);
            let loss = (var.as_tensor() - 1.0).unwrap().sqr().unwrap().sum_all().unwrap();
            learner.descend(&loss).unwrap();
        };
        let (mut one, var) = learner();
        pull(&mut one, &var, 0);
        let mut snapshot = Snapshot::default();
        one.state("net", &mut snapshot).unwrap();
        pull(&mut one, &var, 1);
        let (mut other, again) = learner();
        other.state("net", &mut snapshot.restoring()).unwrap();
        pull(&mut other, &again, 1);
        assert_eq!(values(&var).unwrap(), values(&again).unwrap());
        assert!(values(&var).unwrap()[0] > 0.5);
        assert!(one.rate() < 0.5, "the rate follows its schedule");
    }
}
