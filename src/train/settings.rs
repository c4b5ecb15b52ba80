//! Settings of optimizer and learning rate: flat tables, so that one setting can be changed alone.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::error::Result;
use super::optim::{Optimization, Optimizer};
use super::schedule::{self, Schedule};
use kinset_model::params::Params;
use kinset_stage::{Complaint, Limit, Settings, schema};

/// Which optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// Adam with coupled weight decay, as PyTorch's `Adam`.
    Adam,
}

/// Limits of the numbers in [`OptimizerSettings`].
const RATES: [(&str, Limit); 3] =
    [("lr", Limit::AboveZero), ("momentum", Limit::BelowOne), ("weight_decay", Limit::NotNegative)];

/// How weights move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = limited)]
pub struct OptimizerSettings {
    /// `sgd` or `adam`.
    pub kind: OptimizerKind,
    /// Base learning rate.
    pub lr: f64,
    /// Momentum of SGD, 0–1.
    #[serde(default = "momentum")]
    pub momentum: f64,
    /// Nesterov's look-ahead, for SGD.
    #[serde(default)]
    pub nesterov: bool,
    /// Added to the gradient, times the weight.
    #[serde(default)]
    pub weight_decay: f64,
}

fn momentum() -> f64 {
    0.9
}

fn tenth() -> f64 {
    0.1
}

/// Writes the limits into the schema.
fn limited(table: &mut Schema) {
    schema::limit(table, &OptimizerSettings::sgd(0.1, momentum(), 0.0).limits());
}

impl OptimizerSettings {
    pub const fn sgd(lr: f64, momentum: f64, weight_decay: f64) -> Self {
        Self { kind: OptimizerKind::Sgd, lr, momentum, nesterov: false, weight_decay }
    }

    /// Adam with β 0.9 and 0.999, ε 1e-8.
    pub const fn adam(lr: f64, weight_decay: f64) -> Self {
        Self { kind: OptimizerKind::Adam, lr, momentum: 0.9, nesterov: false, weight_decay }
    }

    /// Starts optimizing these parameters.
    pub fn build(&self, params: &Params) -> Result<Optimization> {
        let Self { kind, momentum, nesterov, weight_decay, .. } = *self;
        match kind {
            OptimizerKind::Sgd => Optimizer::Sgd { momentum, nesterov, weight_decay },
            OptimizerKind::Adam => Optimizer::adam(weight_decay),
        }
        .over(params)
    }
}

impl Settings for OptimizerSettings {
    fn check(&self) -> Vec<Complaint> {
        let idle = self.nesterov && (self.kind != OptimizerKind::Sgd || self.momentum <= 0.0);
        let [lr, momentum, weight_decay] = RATES.map(|(_, limit)| limit);
        let found = [
            lr.complaint("lr", &self.lr),
            momentum.complaint("momentum", &self.momentum),
            idle.then(|| Complaint::new("nesterov", "is for `sgd` with a momentum above 0")),
            weight_decay.complaint("weight_decay", &self.weight_decay),
        ];
        found.into_iter().flatten().collect()
    }

    fn limits(&self) -> Vec<(String, Limit)> {
        RATES.map(|(name, limit)| (name.to_owned(), limit)).into()
    }
}

/// Which course the learning rate takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// The base rate throughout.
    Constant,
    /// Half a cosine down to nearly `decay_rate`³ of it.
    Cosine,
    /// Times `decay_rate` after each milestone.
    Step,
}

/// How the learning rate moves, epoch by epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSettings {
    /// `constant`, `cosine` or `step`.
    pub kind: ScheduleKind,
    /// How far it falls; see the kinds.
    #[serde(default = "tenth")]
    pub decay_rate: f64,
    /// Epochs after which it falls, for `step`.
    #[serde(default)]
    pub milestones: Vec<usize>,
    /// Epochs over which the rate first rises linearly; none in SCAN.
    #[serde(default)]
    pub warm_up: usize,
}

impl ScheduleSettings {
    pub const fn constant() -> Self {
        Self { kind: ScheduleKind::Constant, decay_rate: 0.1, milestones: Vec::new(), warm_up: 0 }
    }

    pub const fn cosine(decay_rate: f64) -> Self {
        Self { kind: ScheduleKind::Cosine, decay_rate, milestones: Vec::new(), warm_up: 0 }
    }

    /// The rate in an epoch, counted from 0.
    pub fn rate(&self, base: f64, epoch: u64, epochs: u64) -> f64 {
        let (epoch, epochs) = (epoch as usize, epochs as usize);
        let rate = match self.kind {
            ScheduleKind::Constant => Schedule::Constant,
            ScheduleKind::Cosine => Schedule::Cosine { decay_rate: self.decay_rate },
            ScheduleKind::Step => Schedule::Step { decay_rate: self.decay_rate, milestones: self.milestones.clone() },
        }
        .rate(base, epoch, epochs);
        schedule::warm_up(rate, epoch, self.warm_up)
    }
}

impl Settings for ScheduleSettings {
    fn check(&self) -> Vec<Complaint> {
        if self.decay_rate > 0.0 && self.decay_rate <= 1.0 {
            return Vec::new();
        }
        vec![Complaint::new("decay_rate", format!("is {}, and must lie above 0 and at most at 1", self.decay_rate))]
    }
}
