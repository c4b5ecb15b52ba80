//! Epochs, batch and learning rate of a training: as given, or chosen for the number of images.
//!
//! Papers count in epochs of some fifty thousand images. On a hundredth of that their numbers are a hundredth of the steps, and their
//! batches do not even fit. So a method whose `epochs` and `batch` are left open has its usual numbers only where there are enough
//! images: a step takes no more than an eighth of them, and there are as many epochs as it takes for a stated number of steps.
//! What a method says in epochs (warm-up, milestones) and the rate of SGD go along, unless they were set to something else.

use super::settings::{OptimizerKind, OptimizerSettings, ScheduleSettings};
use super::trainable::Trainable;
use kinset_model::Params;
use kinset_stage::{Context, StageError};

/// What a method is usually trained with, and what it needs.
#[derive(Clone, Copy, Debug)]
pub struct Usual {
    pub epochs: u64,
    pub batch: usize,
    /// Steps in all, at least.
    pub steps: u64,
}

impl Usual {
    /// The batch for so many images, if it is left open: `least` or more.
    pub fn batch_for(&self, images: usize, least: usize) -> usize {
        self.batch.min(images / STEPS_OF_AN_EPOCH).max(least).min(images)
    }
}

/// An epoch has so many steps at least, if the batch is left open.
const STEPS_OF_AN_EPOCH: usize = 8;

/// How many images per cluster a batch that is left open has, for losses that look at the mean of the answers over the batch: with
/// fewer, how even it is is chance. SCAN's batches on 50 and 100 classes of ImageNet are that large.
pub const PER_CLUSTER: usize = 10;

/// How many images a batch that is left open has where they are what an image is told from, or what batch norm sees.
pub const LEAST_BATCH: usize = 64;

/// Settings of a method that learns in epochs of batches. Written by [`paced!`](crate::paced).
pub trait Paced: Default {
    const USUAL: Usual;

    /// As given; none: left open.
    fn epochs(&self) -> Option<u64>;
    /// As given; none: left open.
    fn batch(&self) -> Option<usize>;
    fn optimizer(&self) -> &OptimizerSettings;
    fn schedule(&self) -> &ScheduleSettings;

    /// What to train with on so many images; a step has `least` of them or more, if it is left open. What is chosen here is said and
    /// kept with the result.
    ///
    /// # Errors
    /// [`StageError::TooFew`] for a batch that is given and larger than the set, or fewer than two images.
    fn course(&self, images: usize, least: usize, cx: &Context<'_>) -> Result<Course, StageError> {
        let batch = self.batch().unwrap_or_else(|| Self::USUAL.batch_for(images, least));
        let course = self.course_of(batch, images)?;
        self.tell(&course, images, cx);
        Ok(course)
    }

    /// The same with this batch, without a word.
    ///
    /// # Errors
    /// As [`Paced::course`].
    fn course_of(&self, batch: usize, images: usize) -> Result<Course, StageError> {
        if batch > images || batch < 2 {
            return Err(StageError::too_few("batch", batch.max(2), &(2..=images), images));
        }
        let (default, steps) = (Self::default(), (images / batch) as u64);
        let epochs = self.epochs().unwrap_or_else(|| Self::USUAL.epochs.max(Self::USUAL.steps.div_ceil(steps)));
        let usual = if self.epochs().is_none() { Self::USUAL.epochs } else { epochs };
        let mut course =
            Course { epochs, batch, optimizer: self.optimizer().clone(), schedule: self.schedule().clone(), usual };

        let given = self.schedule();
        course.schedule.warm_up = course.stretched(given.warm_up as u64, default.schedule().warm_up as u64) as usize;
        if given.milestones == default.schedule().milestones {
            let later = |&milestone: &usize| course.stretched(milestone as u64, milestone as u64) as usize;
            course.schedule.milestones = given.milestones.iter().map(later).collect();
        }
        let share = batch as f64 / Self::USUAL.batch as f64;
        let (own, usual) = (self.optimizer(), default.optimizer());
        let scaled = self.batch().is_none() && share < 1.0 && own.kind == OptimizerKind::Sgd;
        if scaled && own.kind == usual.kind && own.lr.to_bits() == usual.lr.to_bits() {
            course.optimizer.lr *= share;
        }
        Ok(course)
    }

    /// Says what was left open and is decided now.
    fn tell(&self, course: &Course, images: usize, cx: &Context<'_>) {
        let Course { epochs, batch, optimizer, .. } = course;
        let mut chosen = Vec::new();
        if self.epochs().is_none() {
            chosen.push(format!("`epochs` {epochs}{}", other_than(*epochs, Self::USUAL.epochs)));
        }
        if self.batch().is_none() {
            chosen.push(format!("`batch` {batch}{}", other_than(*batch, Self::USUAL.batch)));
        }
        if optimizer.lr < self.optimizer().lr {
            chosen.push(format!("`optimizer.lr` {:.4} (usually {})", optimizer.lr, self.optimizer().lr));
        }
        if course.schedule != *self.schedule() {
            chosen.push(format!("`schedule` {:.1} times as long", *epochs as f64 / Self::USUAL.epochs as f64));
        }
        if !chosen.is_empty() {
            let steps = epochs * (images / batch) as u64;
            cx.chose(format!("{} for {images} images: {steps} steps", chosen.join(", ")));
        }
    }
}

fn other_than<N: PartialEq + std::fmt::Display>(found: N, usual: N) -> String {
    if found == usual { String::new() } else { format!(" (usually {usual})") }
}

/// What a method is trained with.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    pub epochs: u64,
    pub batch: usize,
    /// With the rate for this batch: SGD's falls with the batch, which keeps the noise of the steps (Goyal et al. 2017, arXiv
    /// 1706.02677, section 2.1); the length of Adam's steps does not depend on the batch.
    pub optimizer: OptimizerSettings,
    /// Of these epochs.
    pub schedule: ScheduleSettings,
    /// The epochs that a method's own numbers are for.
    usual: u64,
}

impl Course {
    /// What a setting that counts epochs is in these: as given, unless it is the method's own number and the epochs were left open;
    /// then it grows with them.
    pub fn stretched(&self, given: u64, usual: u64) -> u64 {
        if given == usual { (given * self.epochs + self.usual / 2) / self.usual } else { given }
    }

    /// A network that learns by this course; see [`Trainable::new`].
    ///
    /// # Errors
    /// A device without room.
    pub fn learner(&self, params: &Params, moved: &Params) -> Result<Trainable, StageError> {
        Trainable::new(params, moved, &self.optimizer, &self.schedule, self.epochs)
    }
}

/// Makes settings with `epochs`, `batch`, `optimizer` and `schedule` [`Paced`](crate::course::Paced).
#[macro_export]
macro_rules! paced {
    ($config:ty: $epochs:literal epochs, $batch:literal images a step, $steps:literal steps at least) => {
        impl $crate::course::Paced for $config {
            const USUAL: $crate::course::Usual = $crate::course::Usual { epochs: $epochs, batch: $batch, steps: $steps };

            fn epochs(&self) -> Option<u64> {
                self.epochs
            }

            fn batch(&self) -> Option<usize> {
                self.batch
            }

            fn optimizer(&self) -> &$crate::OptimizerSettings {
                &self.optimizer
            }

            fn schedule(&self) -> &$crate::ScheduleSettings {
                &self.schedule
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use candle_core::Device;

    use super::*;
    use crate::settings::ScheduleKind;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::testing::Heard;
    use kinset_stage::{Signal, Stop};

    #[derive(Clone)]
    struct Config {
        epochs: Option<u64>,
        batch: Option<usize>,
        optimizer: OptimizerSettings,
        schedule: ScheduleSettings,
    }

    impl Default for Config {
        fn default() -> Self {
            let step = ScheduleSettings { kind: ScheduleKind::Step, milestones: vec![30], ..ScheduleSettings::constant() };
            let (optimizer, schedule) = (OptimizerSettings::sgd(0.4, 0.9, 0.0), ScheduleSettings { warm_up: 10, ..step });
            Self { epochs: None, batch: None, optimizer, schedule }
        }
    }

    crate::paced!(Config: 40 epochs, 512 images a step, 1000 steps at least);

    fn chosen(config: &Config, images: usize, least: usize) -> (Result<Course, StageError>, Vec<String>) {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let stop = Stop::default();
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, stop, PathBuf::new(), PathBuf::new(), &heard);
        let course = config.course(images, least, &cx);
        let kept = cx.kept().remove("chosen").unwrap_or_default();
        let said: Vec<Signal> = kept.iter().cloned().map(Signal::Note).collect();
        assert_eq!(heard.signals(), said, "what is kept is what was said");
        (course, kept)
    }

    fn course(config: &Config, images: usize) -> Course {
        chosen(config, images, 40).0.unwrap()
    }

    #[test]
    fn few_images_and_many_get_as_many_steps_as_it_takes() {
        let config = Config::default();
        for (images, batch, epochs) in [(30, 30, 1000), (300, 40, 143), (1000, 125, 125), (5000, 512, 112), (60_000, 512, 40)] {
            let found = course(&config, images);
            assert_eq!((found.batch, found.epochs), (batch, epochs), "{images}");
            assert!(found.epochs * (images / found.batch) as u64 >= 1000);
        }
        assert_eq!(course(&config, 60_000).optimizer, config.optimizer);
        assert_eq!(course(&config, 60_000).schedule, config.schedule);
        assert_eq!(chosen(&config, 60_000, 5120).0.unwrap().batch, 5120, "many clusters want more than the usual batch");
    }

    #[test]
    fn the_rate_of_sgd_falls_with_the_batch_and_what_counts_epochs_grows_with_them() {
        let found = course(&Config::default(), 1000);
        assert!((found.optimizer.lr - 0.4 * 125.0 / 512.0).abs() < 1e-12);
        assert_eq!((found.schedule.warm_up, found.schedule.milestones.clone()), (31, vec![94]));
        assert_eq!((found.stretched(2, 2), found.stretched(2, 3)), (6, 2), "what somebody chose stays");
        let adam = Config { optimizer: OptimizerSettings::adam(0.4, 0.0), ..Config::default() };
        assert_eq!(course(&adam, 1000).optimizer, adam.optimizer);
    }

    #[test]
    fn what_was_given_is_obeyed_or_refused() {
        let given = Config { epochs: Some(3), batch: Some(300), ..Config::default() };
        let (found, said) = chosen(&given, 300, 40);
        let found = found.unwrap();
        assert_eq!((found.epochs, found.batch), (3, 300));
        assert_eq!((&found.optimizer, &found.schedule), (&given.optimizer, &given.schedule));
        assert_eq!((found.stretched(7, 7), said.len()), (7, 0));
        let refused = chosen(&Config { batch: Some(512), ..given.clone() }, 300, 40).0.unwrap_err();
        assert_eq!(refused.to_string(), "batch is 512, but there are only 300 images");
        let alone = chosen(&Config::default(), 1, 40).0.unwrap_err();
        assert_eq!(alone.to_string(), "batch is 2, but there is only 1 image");

        let schedule = ScheduleSettings { warm_up: 5, milestones: vec![7], ..given.schedule };
        let rate = OptimizerSettings::sgd(0.3, 0.9, 0.0);
        let own = Config { schedule, optimizer: rate, ..Config::default() };
        let found = course(&own, 1000);
        assert_eq!((&found.optimizer, &found.schedule), (&own.optimizer, &own.schedule));
    }

    #[test]
    fn what_was_chosen_is_said() {
        let said = |config: &Config, images| chosen(config, images, 40).1;
        assert_eq!(
            said(&Config::default(), 1000),
            ["`epochs` 125 (usually 40), `batch` 125 (usually 512), `optimizer.lr` 0.0977 (usually 0.4), \
                 `schedule` 3.1 times as long for 1000 images: 1000 steps"]
        );
        let batch = Config { batch: Some(512), ..Config::default() };
        assert_eq!(said(&batch, 60_000), ["`epochs` 40 for 60000 images: 4680 steps"]);
    }
}
