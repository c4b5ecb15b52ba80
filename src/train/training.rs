//! The loop that trained stages share: go on from the last checkpoint, step, measure, save, stop when asked.
//!
//! It owns the clockwork and nothing else. What a step does, when neighbors are mined anew, how many networks there are and
//! which result is kept is the method's business, behind [`Trainee`]. A run that was killed and resumed takes exactly the steps
//! of one that was not: the position in the epoch and the sums of its measurements are part of the checkpoint, and randomness
//! is counted, not remembered.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::health;
use kinset_artifact::curve::Point;
use kinset_artifact::encoder::Tensors;
use kinset_base::clock::Stopwatch;
use kinset_stage::context::Context;
use kinset_stage::error::StageError;

/// What a step or an epoch measured: name and value.
pub type Measured = Vec<(String, f64)>;

/// Names some measurements.
pub fn measured<const N: usize>(values: [(&str, f64); N]) -> Measured {
    values.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// Something that is trained in epochs of steps.
pub trait Trainee {
    /// Epochs in all.
    fn epochs(&self) -> u64;

    /// Steps in an epoch.
    fn steps(&self) -> u64;

    /// Prepares an epoch. Called again when a run goes on in the middle of one, so it may depend on nothing but `epoch` and
    /// what [`Trainee::save`] keeps.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn begin(&mut self, epoch: u64) -> Result<(), StageError>;

    /// One step; the first measurement is the loss.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn step(&mut self, epoch: u64, step: u64) -> Result<Measured, StageError>;

    /// Closes an epoch: validation without labels, selection. `means` are the epoch's mean measurements; what is returned joins
    /// them in the curve.
    ///
    /// # Errors
    /// Whatever went wrong.
    fn end(&mut self, epoch: u64, means: &Measured) -> Result<Measured, StageError>;

    /// Puts everything that training moves into the snapshot.
    ///
    /// # Errors
    /// If the device fails.
    fn save(&self, snapshot: &mut Snapshot) -> Result<(), StageError>;

    /// Takes it out again.
    ///
    /// # Errors
    /// If it does not fit.
    fn load(&mut self, snapshot: &Snapshot) -> Result<(), StageError>;
}

/// All that training moves: groups of tensors and small values, by name.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    tensors: BTreeMap<String, Tensors>,
    values: BTreeMap<String, Value>,
}

impl Snapshot {
    /// Puts a group of tensors.
    pub fn put(&mut self, name: &str, tensors: Tensors) {
        self.tensors.insert(name.to_owned(), tensors);
    }

    /// A group of tensors; empty if it was not put.
    pub fn take(&self, name: &str) -> Tensors {
        self.tensors.get(name).cloned().unwrap_or_default()
    }

    /// Sets a value.
    ///
    /// # Errors
    /// If it is nothing JSON can say.
    pub fn set(&mut self, name: &str, value: &impl Serialize) -> Result<(), StageError> {
        let value = serde_json::to_value(value).map_err(|source| StageError::Progress { what: name.to_owned(), source })?;
        self.values.insert(name.to_owned(), value);
        Ok(())
    }

    /// A value that was set.
    ///
    /// # Errors
    /// If it was not set, or is of another type.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, StageError> {
        let value = self.values.get(name).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|source| StageError::Progress { what: name.to_owned(), source })
    }

    fn save(&self, to: &Checkpoints, number: u64) -> Result<(), StageError> {
        let names: Vec<&String> = self.tensors.keys().collect();
        let sections: Vec<(&str, &Tensors)> = self.tensors.iter().map(|(name, tensors)| (name.as_str(), tensors)).collect();
        Ok(to.save(number, &(names, &self.values), &sections)?)
    }

    fn of(checkpoint: Checkpoint<(Vec<String>, BTreeMap<String, Value>)>) -> Self {
        let tensors = checkpoint.state.0.iter().map(|name| (name.clone(), checkpoint.section(name))).collect();
        Self { tensors, values: checkpoint.state.1 }
    }
}

/// Where the loop is; part of every checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Position {
    epoch: u64,
    step: u64,
    sums: Vec<(String, f64)>,
    curve: Vec<(u64, String, f64)>,
}

/// Trains to the end and returns the curve.
///
/// # Errors
/// [`StageError::Stopped`] if it was asked to stop, with the progress saved; a loss that is not finite; whatever the trainee
/// says.
pub fn train(trainee: &mut dyn Trainee, cx: &Context<'_>) -> Result<Vec<Point>, StageError> {
    const POSITION: &str = "position";
    let checkpoints = Checkpoints::open(cx.work())?;
    let mut at = Position::default();
    let found = checkpoints.load()?;
    for damage in &found.damaged {
        cx.warn(format!("{damage}; an older one serves"));
    }
    if let Some(checkpoint) = found.checkpoint {
        let snapshot = Snapshot::of(checkpoint);
        at = snapshot.get(POSITION)?;
        trainee.load(&snapshot)?;
        cx.note(format!("goes on at epoch {} of {}, step {}", at.epoch + 1, trainee.epochs(), at.step));
    }
    let steps_of_an_epoch = trainee.steps();
    let save = |trainee: &dyn Trainee, at: &Position| -> Result<(), StageError> {
        let mut snapshot = Snapshot::default();
        snapshot.set(POSITION, at)?;
        trainee.save(&mut snapshot)?;
        snapshot.save(&checkpoints, at.epoch * steps_of_an_epoch + at.step)
    };

    let (epochs, steps) = (trainee.epochs(), trainee.steps());
    let bar = cx.bar(epochs * steps, "steps");
    bar.advance(at.epoch * steps + at.step);
    let mut saved = Stopwatch::start();
    while at.epoch < epochs {
        trainee.begin(at.epoch)?;
        while at.step < steps {
            let measured = trainee.step(at.epoch, at.step)?;
            if let Some((_, loss)) = measured.first() {
                health::finite("the loss", *loss, at.epoch as usize, at.step as usize)?;
            }
            if at.step == 0 {
                at.sums = measured.iter().map(|(name, _)| (name.clone(), 0.0)).collect();
            }
            for (sum, (_, value)) in at.sums.iter_mut().zip(&measured) {
                sum.1 += value;
            }
            at.step += 1;
            bar.advance(1);
            if cx.stop.requested() || saved.elapsed() >= cx.checkpoint_every {
                save(trainee, &at)?;
                saved = Stopwatch::start();
                cx.check()?;
            }
        }
        let means: Measured = at.sums.drain(..).map(|(name, sum)| (name, sum / steps as f64)).collect();
        let closing = trainee.end(at.epoch, &means)?;
        for (name, value) in means.iter().chain(&closing) {
            cx.metric(at.epoch + 1, name, *value);
            at.curve.push((at.epoch + 1, name.clone(), *value));
        }
        if let Some((name, value)) = means.first() {
            bar.say(&format!("epoch {} of {epochs} · {name} {value:.4}", at.epoch + 1));
        }
        at.epoch += 1;
        at.step = 0;
        if at.epoch < epochs && cx.stop.requested() {
            save(trainee, &at)?;
            cx.check()?;
        }
    }
    Ok(at.curve.into_iter().map(|(step, name, value)| Point { step: step as u32, name, value }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_comes_back_without_what_lies_in_a_group_below_it() {
        let group = |names: &[&str]| {
            let mut tensors = Tensors::default();
            for (at, name) in names.iter().enumerate() {
                tensors.insert(*name, vec![1], vec![at as f32]);
            }
            tensors
        };
        let mut snapshot = Snapshot::default();
        for (name, tensors) in
            [("net", &["weight", "bias"][..]), ("net/optimizer", &["steps", "velocity/weight"]), ("network", &["weight"])]
        {
            snapshot.put(name, group(tensors));
        }
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path()).unwrap();
        snapshot.save(&checkpoints, 7).unwrap();
        let again = Snapshot::of(checkpoints.load().unwrap().checkpoint.unwrap());
        assert_eq!(again.tensors, snapshot.tensors);
    }
}
