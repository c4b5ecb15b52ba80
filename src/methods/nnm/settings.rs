//! Which numbers do the authors run NNM with?
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

use serde::{Deserialize, Serialize};

use crate::scan::Update;
use kinset_augment::{Recipe, Strong};
use kinset_stage::{Complaint, Settings};
use kinset_train::settings::{OptimizerSettings, ScheduleSettings};

/// Whose neighbor in the whole set an image is matched with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GlobalViews {
    /// The pictures as they are.
    Plain,
    /// One view by `augment` each, as in the authors' code.
    Augmented,
}

/// Settings; the defaults are those of NNM's `configs/scan/scan_cifar10.yml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Clusters, K; more than there are classes is fine.
    pub clusters: usize,
    /// Heads trained side by side, H; the best by validation loss is chosen.
    pub heads: usize,
    /// Hidden units of a head; none: linear, as in the paper.
    pub hidden: Option<usize>,
    /// What training moves: `all`, or `heads` on an encoder in evaluation mode (ImageNet).
    pub update: Update,
    /// Passes over the images.
    pub epochs: u64,
    /// Anchors per step, B.
    pub batch: usize,
    /// How many neighbors are candidates: of those connected the first so many, or so many are mined here. 20 on small sets, 50 on
    /// ImageNet.
    pub num_neighbors: usize,
    /// Whether an image is a candidate for its own neighbor, as in the authors' code.
    pub include_self: bool,
    /// Whether the neighbor in the batch is matched with a second view of the anchor (the authors' code since July 2021), or with
    /// the anchor itself (the paper's figure).
    pub second_view: bool,
    /// Weight of the entropy term, λ.
    pub entropy_weight: f64,
    /// Weight of the class terms; 1 in the paper.
    pub class_weight: f64,
    /// Whose neighbor in the whole set an image is matched with.
    pub global: Global,
    /// Which views that neighbor is found on.
    pub global_views: GlobalViews,
    /// Epochs before the match with the whole set joins; 1 in the authors' code.
    pub warm_up: u64,
    /// How many neighbors the validation loss looks at.
    pub validation_neighbors: usize,
    /// Validate after every so many epochs, and after the last.
    pub validate_every: u64,
    /// How weights move.
    pub optimizer: OptimizerSettings,
    /// How the learning rate moves.
    pub schedule: ScheduleSettings,
    /// What anchors, their second views and neighbors go through.
    pub augment: Recipe,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            clusters: 10,
            heads: 3,
            hidden: None,
            update: Update::All,
            epochs: 100,
            batch: 200,
            num_neighbors: 20,
            include_self: true,
            second_view: true,
            entropy_weight: 5.0,
            class_weight: 1.0,
            global: Global::Aligned,
            global_views: GlobalViews::Plain,
            warm_up: 1,
            validation_neighbors: 5,
            validate_every: 1,
            optimizer: OptimizerSettings::adam(1e-4, 1e-4),
            schedule: ScheduleSettings::constant(),
            augment: Strong::default().into(),
        }
    }
}

impl Settings for Config {
    fn check(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        let mut at_least = |field, value, least| found.extend(Complaint::unless_at_least(field, value, least));
        at_least("clusters", self.clusters as u64, 2);
        at_least("heads", self.heads as u64, 1);
        at_least("hidden", self.hidden.unwrap_or(1) as u64, 1);
        at_least("epochs", self.epochs, 1);
        at_least("batch", self.batch as u64, 2);
        at_least("num_neighbors", self.num_neighbors as u64, 1);
        at_least("warm_up", self.warm_up, 1);
        at_least("validation_neighbors", self.validation_neighbors as u64, 1);
        at_least("validate_every", self.validate_every, 1);
        found.extend(Complaint::if_negative("entropy_weight", self.entropy_weight));
        found.extend(Complaint::if_negative("class_weight", self.class_weight));
        found.extend(Complaint::below("optimizer", self.optimizer.complaints()));
        found.extend(Complaint::below("schedule", self.schedule.complaints()));
        found.extend(Complaint::below("augment", self.augment.check()));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_complained_about() {
        assert_eq!(Config::default().check(), []);
        let complaint = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check()[0].path.clone()
        };
        assert_eq!(complaint(|c| c.clusters = 1), "clusters");
        assert_eq!(complaint(|c| c.batch = 1), "batch");
        assert_eq!(complaint(|c| c.warm_up = 0), "warm_up");
        assert_eq!(complaint(|c| c.class_weight = -1.0), "class_weight");
        assert_eq!(complaint(|c| c.entropy_weight = f64::NAN), "entropy_weight");
    }
}
