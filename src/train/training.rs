//! The training loop that all trained stages share: resume, step, measure, save checkpoints, stop when asked.
//!
//! [`train`] runs any [`TrainingLoop`]. A method of the usual kind (shuffled batches, one loss, one optimizer) states an
//! [`Objective`](super::objective::Objective) and lets [`Trainer`](super::objective::Trainer) be the loop; one that is not (two
//! networks in turns, a search with inner steps) is a loop itself. A run that was killed and resumed takes exactly the steps of one
//! that was not: the position in the epoch and the sums of its measurements are part of the checkpoint, and randomness is counted,
//! not remembered.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoints;
use super::snapshot::Snapshot;
use crate::error::TrainError;
use kinset_artifact::curve::Point;
use kinset_base::clock::Stopwatch;
use kinset_stage::{Context, StageError};

/// What a step or an epoch measured: name and value.
pub type Measured = Vec<(String, f64)>;

pub fn measured<const N: usize>(values: [(&str, f64); N]) -> Measured {
    values.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

pub fn scalar(tensor: &Tensor) -> candle_core::Result<f64> {
    Ok(f64::from(tensor.to_scalar::<f32>()?))
}

/// Passes a finite number through.
pub fn finite(what: &'static str, value: f64, epoch: u64, step: u64) -> Result<f64, TrainError> {
    let (epoch, step) = (epoch as usize, step as usize);
    if value.is_finite() { Ok(value) } else { Err(TrainError::NotFinite { what, value, epoch, step }) }
}

/// Something that is trained in epochs of steps.
pub trait TrainingLoop {
    fn epochs(&self) -> u64;

    fn steps(&self) -> u64;

    /// Prepares an epoch. Called again when a run resumes in the middle of one, so it may depend on nothing but `epoch` and
    /// [`TrainingLoop::state`].
    fn begin(&mut self, epoch: u64) -> Result<(), StageError>;

    /// One step; the first measurement is the loss.
    fn step(&mut self, epoch: u64, step: u64) -> Result<Measured, StageError>;

    /// Closes an epoch: validation without labels, selection. `means` are the epoch's mean measurements; what is returned joins
    /// them in the curve.
    fn end(&mut self, epoch: u64, means: &Measured) -> Result<Measured, StageError>;

    /// Hands everything that training changes to the snapshot, which saves or restores it.
    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError>;
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
/// [`StageError::Stopped`] if it was asked to stop, with the progress saved; a loss that is not finite; another process that has taken
/// over; whatever the loop says.
pub fn train(trained: &mut dyn TrainingLoop, cx: &Context<'_>) -> Result<Vec<Point>, StageError> {
    let checkpoints = Checkpoints::open(cx.work())?;
    let (epochs, steps) = (trained.epochs(), trained.steps());
    let mut at = Position::default();
    let visit = |trained: &mut dyn TrainingLoop, at: &mut Position, snapshot: &mut Snapshot| -> Result<(), StageError> {
        snapshot.value("position", at)?;
        trained.state(snapshot)
    };
    let found = checkpoints.load()?;
    for damage in &found.damaged {
        cx.warn(format!("{damage}; using an older one"));
    }
    if let Some(checkpoint) = found.checkpoint {
        visit(trained, &mut at, &mut Snapshot::of(checkpoint))?;
        cx.note(format!("resuming at epoch {}/{epochs}, step {}", at.epoch + 1, at.step));
    }
    let save = |trained: &mut dyn TrainingLoop, at: &mut Position| -> Result<(), StageError> {
        let mut snapshot = Snapshot::default();
        visit(trained, at, &mut snapshot)?;
        cx.check_lock()?;
        snapshot.save(&checkpoints, at.epoch * steps + at.step)
    };

    let bar = cx.bar(epochs * steps, "steps");
    bar.advance(at.epoch * steps + at.step);
    let mut saved = Stopwatch::start();
    while at.epoch < epochs {
        trained.begin(at.epoch)?;
        while at.step < steps {
            let measured = trained.step(at.epoch, at.step)?;
            if let Some((_, loss)) = measured.first() {
                finite("the loss", *loss, at.epoch, at.step)?;
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
                save(trained, &mut at)?;
                saved = Stopwatch::start();
                cx.check()?;
            }
        }
        let means: Measured = at.sums.drain(..).map(|(name, sum)| (name, sum / steps as f64)).collect();
        let closing = trained.end(at.epoch, &means)?;
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
            save(trained, &mut at)?;
            cx.check()?;
        }
    }
    Ok(at.curve.into_iter().map(|(step, name, value)| Point { step: step as u32, name, value }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_passes_and_what_is_none_names_its_place() {
        assert!(finite("the loss", -11.0, 0, 0).is_ok());
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(finite("the loss", value, 3, 7).is_err());
        }
        let error = finite("the loss", f64::NAN, 3, 7).unwrap_err();
        assert_eq!(error.to_string(), "the loss is `NaN` in epoch 4, step 8");
    }
}
