//! RUC's settings, as its authors run it.
//!
//! | | CIFAR-10 (the defaults) | CIFAR-20 | STL-10 | ImageNet-50 (by the authors on their issue 13) |
//! |---|---|---|---|---|
//! | `batch` | 250 | 250 | 100 | 16–32 |
//! | `guess_weight`, λ_U | 25 | 100 | 50 | 25 |
//! | `relabel_threshold`, τ₂ | 0.99 | 0.9 | 0.9 | |
//! | `relabel_rise` | 0 | 0.02 | 0.02 | |
//! | `epochs` | 200 | 200 | 200 | 100 |
//! | `optimizer` | SGD 0.01, Nesterov 0.9, decay 5e-4 | the same | the same | SGD 0.01, decay 5e-4 |
//! | images | train split | train split | train and test split | |
//!
//! The size of the views and the statistics they are normalized with are the classifier's own. (On STL-10 the authors feed SCAN's
//! ImageNet-normalized networks with CIFAR-10's statistics.)

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use kinset_augment::{RandAugment, Recipe, Standard};
use kinset_stage::Complaint;
use kinset_train::Course;
use kinset_train::settings::{OptimizerSettings, ScheduleSettings};

/// Which images keep the label that the clustering gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sampling {
    /// Those the classifier is sure of.
    Confidence,
    /// Those whose neighbors mostly have the same.
    Metric,
    /// Both.
    Hybrid,
}

/// Whose statistics the peer's batch norm uses while it only teaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Statistics {
    /// Those of the batch, and its running ones move: the authors' code.
    Batch,
    /// Its running ones, which stay.
    Running,
}

/// What the two networks' heads are at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// New ones that differ, as in the authors' code: clusters are learned again from the labels that are kept, which takes
    /// many steps.
    New,
    /// Both the classifier's own: what it knows stays, and the two differ by the order they see images in. For short runs.
    Kept,
}

kinset_stage::settings! {
    /// Settings; the defaults are those of the authors' `main_ruc_cifar10.py`. See the module for other data sets.
    pub struct Config {
        /// Passes of each network over the images; unset: 200, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Images per step, B; unset: 250, or fewer of few images.
        batch: Option<usize> = None, min 2;
        /// What the networks' heads are at the start.
        head: Head = Head::New;
        /// Which images keep their label at first.
        sampling: Sampling = Sampling::Hybrid;
        /// The classifier is sure from this probability on, 0–1: τ₁.
        confidence_threshold: f64 = 0.99, within 0..=1;
        /// How many of the mined neighbors vote, besides the image itself; unset: all. The authors' 100 votes are 99 neighbors
        /// of a self-supervised projection.
        num_neighbors: Option<usize> = None, min 1;
        /// An image without a label gets the one that a network is this sure of, 0–1: τ₂.
        relabel_threshold: f64 = 0.99, within 0..=1;
        /// How much τ₂ rises after each fifth of the epochs.
        relabel_rise: f64 = 0.0, not_negative;
        /// Weight of the loss on guessed labels once the ramp is over, λ_U.
        guess_weight: f64 = 25.0, not_negative;
        /// Epochs over which that weight rises from a tenth to its whole, linearly.
        ramp_epochs: u64 = 200, min 1;
        /// Temperature that targets are sharpened with, T.
        temperature: f64 = 0.5, above_zero;
        /// Both shapes of the beta distribution of MixUp's share, α.
        mixup: f64 = 4.0, above_zero;
        /// The part of a label that is spread over the other clusters on strong views, ε, 0–1.
        smoothing: f64 = 0.5, within 0..=1;
        /// Draw ε uniformly from 0–1 for every step instead: the paper, not its code.
        random_smoothing: bool = false;
        /// Whose statistics the peer uses while it teaches.
        peer_statistics: Statistics = Statistics::Batch;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings { nesterov: true, ..OptimizerSettings::sgd(0.01, 0.9, 5e-4) }, nested;
        /// How the learning rate moves.
        // Down to nothing: a trillionth of the rate.
        schedule: ScheduleSettings = ScheduleSettings::cosine(1e-4), nested;
        /// What the two views go through that are mixed and that labels are guessed from.
        weak: Recipe = Standard { crop_scale: [0.2, 1.0], ..Standard::default() }.into(), nested;
        /// What the view goes through that smoothed labels are learned on.
        strong: Recipe = RandAugment::default().into(), nested;
    }
    and combinations
}

/// How often τ₂ rises.
const RISES: u64 = 5;
/// The weight of guesses never is a smaller share of its whole.
const FLOOR: f64 = 0.1;

impl Config {
    /// τ₂ in an epoch of so many, counted from 0.
    pub fn relabel_from(&self, epoch: u64, epochs: u64) -> f64 {
        let rises = (RISES * epoch / epochs.max(1)).min(RISES - 1);
        self.relabel_threshold + self.relabel_rise * rises as f64
    }

    /// τ₂ at the end.
    fn last_relabel_from(&self) -> f64 {
        self.relabel_threshold + self.relabel_rise * (RISES - 1) as f64
    }

    fn combinations(&self) -> Option<Complaint> {
        let last = self.last_relabel_from();
        let message = format!("raises the threshold to {last:.3} at last, which no probability reaches");
        (self.relabel_threshold <= 1.0 && last > 1.0).then(|| Complaint::new("relabel_rise", message))
    }

    /// The share of λ_U that counts at a step, 0.1 to 1; `images` N.
    pub fn ramp(&self, epoch: u64, step: u64, images: usize, course: &Course) -> f64 {
        // One step too many where the batch divides the images, as in the authors' code.
        let steps = images / course.batch + 1;
        let ramp = course.stretched(self.ramp_epochs, Self::default().ramp_epochs);
        ((epoch as f64 + step as f64 / steps as f64) / ramp as f64).clamp(FLOOR, 1.0)
    }
}

kinset_train::paced!(Config: 200 epochs, 250 images a step, 1500 steps at least);

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;
    use kinset_train::Paced as _;

    fn near(found: f64, wanted: f64, tolerance: f64) {
        assert!((found - wanted).abs() <= tolerance, "{found} is not {wanted}");
    }

    // methods/ruc.md section 14.

    #[test]
    fn the_ramp_is_that_of_the_reference() {
        let config = Config { epochs: Some(200), ..Config::default() };
        let course = config.course_of(250, 50_000).unwrap();
        for (epoch, wanted) in [(0, 0.1), (19, 0.1), (20, 0.1), (40, 0.2), (100, 0.5), (199, 0.995), (400, 1.0)] {
            near(config.ramp(epoch, 0, 50_000, &course), wanted, 1e-12);
        }
        // 200 steps of 250, and the denominator has one more.
        near(config.ramp(40, 100, 50_000, &course), (40.0 + 100.0 / 201.0) / 200.0, 1e-12);
        let longer = Config::default().course_of(40, 100).unwrap();
        near(config.ramp(375, 0, 100, &longer), 0.5, 1e-12);
    }

    #[test]
    fn the_rate_is_that_of_the_reference() {
        let config = Config::default();
        for (epoch, wanted, tolerance) in
            [(0, 0.01, 1e-12), (20, 0.009_755_28, 5e-9), (40, 0.009_045_08, 5e-9), (100, 0.005, 1e-12), (199, 6.168e-7, 5e-11)]
        {
            near(config.schedule.rate(config.optimizer.lr, epoch, 200), wanted, tolerance);
        }
    }

    #[test]
    fn the_threshold_for_new_labels_rises_in_fifths_or_stays() {
        let rising = Config { relabel_threshold: 0.9, relabel_rise: 0.02, ..Config::default() };
        for (epoch, wanted) in [(0, 0.9), (39, 0.9), (40, 0.92), (80, 0.94), (159, 0.96), (199, 0.98)] {
            near(rising.relabel_from(epoch, 200), wanted, 1e-12);
        }
        assert!(rising.check().is_empty());
        near(Config::default().relabel_from(199, 200), 0.99, 1e-12);
        near(rising.relabel_from(399, 400), 0.98, 1e-12);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        assert_eq!(Config::default().check(), []);
        let wrong = Config {
            epochs: Some(0),
            batch: Some(1),
            confidence_threshold: 1.5,
            relabel_threshold: 0.99,
            relabel_rise: 0.02,
            guess_weight: -1.0,
            temperature: 0.0,
            mixup: f64::NAN,
            smoothing: -0.1,
            ..Config::default()
        };
        let fields: Vec<String> = wrong.check().into_iter().map(|complaint| complaint.path).collect();
        let all =
            ["epochs", "batch", "confidence_threshold", "guess_weight", "temperature", "mixup", "smoothing", "relabel_rise"];
        assert_eq!(fields, all);
    }
}
