//! NNM's settings, as its authors run it.
//!
//! From `configs/scan/*.yml` of the authors' code. [`Config::default`] is the column CIFAR-10. For all of them: λ 5, all other
//! terms with weight 1, one epoch of warm-up, 100 epochs at a constant rate.
//!
//! | | CIFAR-10 | CIFAR-20 | STL-10 | ImageNet-10 | -50 | -100 | -200 | -Dogs |
//! |---|---|---|---|---|---|---|---|---|
//! | `clusters` | 10 | 20 | 10 | 10 | 50 | 100 | 200 | 15 |
//! | backbone, stem | ResNet-18, `cifar` | same | `stl` | `stl` | ResNet-50, `imagenet` | same | same | same |
//! | `update` | all | all | all | all | heads | heads | heads | heads |
//! | `heads` | 3 | 3 | 3 | 1 | 10 | 3 | 1 | 3 |
//! | `batch` | 200 | 500 | 200 | 128 | 512 | 1000 | 1024 | 512 |
//! | `optimizer` | `adam`, 1e-4, decay 1e-4 | same | same | same | `sgd`, 5.0, momentum 0.9, no decay | same | same | same |
//! | `num_neighbors` | 20 | 20 | 20 | 20 | 50 | 50 | 50 | 50 |
//! | `augment.kind` | strong | strong | strong | strong | simclr | simclr | simclr | simclr |
//! | `augment.cutout` | 16 | 16 | 32 | 32 | | | | |
//! | side of a view | 32 | 32 | 96 | 96 | 224 | 224 | 224 | 224 |
//!
//! The table of published scores was reached with `global = "permuted"`, `global_views = "augmented"`, and with the checkpoint
//! picked by accuracy on the test set, which no setting here can do.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scan::Update;
use kinset_augment::{Recipe, Strong};
use kinset_train::settings::{OptimizerSettings, ScheduleSettings};

/// Whose neighbor in the whole set an image is matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Global {
    /// Its own: what the paper means.
    Aligned,
    /// That of a random image, drawn anew each epoch: what the authors' code does, which collects answers in visiting order and
    /// reads them by number. The published scores come from it; it acts as a penalty on confidence.
    Permuted,
    /// Nobody's: the loss of the first epoch throughout.
    Off,
}

/// Which views the neighbors in the whole set are found on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GlobalViews {
    /// The pictures as they are.
    Plain,
    /// One view by `augment` each, as in the authors' code.
    Augmented,
}

kinset_stage::settings! {
    /// Settings; the defaults are those of NNM's `configs/scan/scan_cifar10.yml`.
    pub struct Config {
        /// Clusters, K; more than there are classes is fine.
        clusters: usize = 10, min 2;
        /// Heads trained side by side, H; the best by validation loss is chosen.
        heads: usize = 3, min 1;
        /// Hidden units of a head; unset: linear, as in the paper.
        hidden: Option<usize> = None, min 1;
        /// What training moves: `all`, or `heads` on an encoder in evaluation mode (ImageNet).
        update: Update = Update::All;
        /// Passes over the images; unset: 100, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Anchors per step, B; unset: 200, or fewer of few images and more for many clusters.
        batch: Option<usize> = None, min 2;
        /// How many neighbors are candidates: of those connected the first so many, or so many are mined here. 20 on small
        /// sets, 50 on ImageNet.
        num_neighbors: usize = 20, min 1;
        /// Whether an image is a candidate for its own neighbor, as in the authors' code.
        include_self: bool = true;
        /// Whether the neighbor in the batch is matched with a second view of the anchor (the authors' code since July 2021),
        /// or with the anchor itself (the paper's figure).
        second_view: bool = true;
        /// Weight of the entropy term, λ.
        entropy_weight: f64 = 5.0, not_negative;
        /// Weight of the class terms; 1 in the paper.
        class_weight: f64 = 1.0, not_negative;
        /// Whose neighbor in the whole set an image is matched with.
        global: Global = Global::Aligned;
        /// Which views that neighbor is found on.
        global_views: GlobalViews = GlobalViews::Plain;
        /// Epochs before the match with the whole set joins; 1 in the authors' code.
        warm_up: u64 = 1, min 1;
        /// How many neighbors the validation loss looks at.
        validation_neighbors: usize = 5, min 1;
        /// Validate after every so many epochs, and after the last.
        validate_every: u64 = 1, min 1;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::adam(1e-4, 1e-4), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::constant(), nested;
        /// What anchors, their second views and neighbors go through.
        augment: Recipe = Strong::default().into(), nested;
    }
}

kinset_train::paced!(Config: 100 epochs, 200 images a step, 2000 steps at least);

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    #[test]
    fn impossible_settings_are_complained_about() {
        assert_eq!(Config::default().check(), []);
        let complaint = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check()[0].path.clone()
        };
        assert_eq!(complaint(|c| c.clusters = 1), "clusters");
        assert_eq!(complaint(|c| c.batch = Some(1)), "batch");
        assert_eq!(complaint(|c| c.warm_up = 0), "warm_up");
        assert_eq!(complaint(|c| c.class_weight = -1.0), "class_weight");
        assert_eq!(complaint(|c| c.entropy_weight = f64::NAN), "entropy_weight");
    }
}
