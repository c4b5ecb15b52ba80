//! Learning rate schedules.
//!
//! A learning rate is a plain function of the epoch, so nothing of it needs saving. As in the reference code it is set once per
//! epoch, from the epoch counted from 0; a warm-up, which the reference lacks, may move every step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The shape of a learning rate over the epochs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The base rate throughout.
    #[default]
    Constant,
    /// Down along half a cosine.
    Cosine {
        /// The last rate is nearly base · `decay_rate`³.
        #[serde(default = "tenth")]
        decay_rate: f64,
    },
    Step {
        /// The factor at each milestone.
        #[serde(default = "tenth")]
        decay_rate: f64,
        /// The epochs after which the rate falls.
        milestones: Vec<usize>,
    },
}

fn tenth() -> f64 {
    0.1
}

impl Schedule {
    /// The rate in `epoch` (from 0) of `epochs`.
    pub fn rate(&self, base: f64, epoch: usize, epochs: usize) -> f64 {
        match self {
            Self::Constant => base,
            Self::Cosine { decay_rate } => cosine(base, *decay_rate, epoch, epochs),
            Self::Step { decay_rate, milestones } => step(base, *decay_rate, milestones, epoch),
        }
    }
}

/// Half a cosine from `base` to `base · decay_rate³`, which it would reach at `epoch == epochs`.
///
/// # Paper
/// Loshchilov & Hutter 2017, SGDR, eq. 5; the floor is that of SCAN's code (`lr_decay_rate` 0.1, so base / 1000).
pub fn cosine(base: f64, decay_rate: f64, epoch: usize, epochs: usize) -> f64 {
    let floor = base * decay_rate.powi(3);
    floor + (base - floor) * (1.0 + (PI * epoch as f64 / epochs.max(1) as f64).cos()) / 2.0
}

/// `base` times `decay_rate` for each milestone strictly before `epoch`.
pub fn step(base: f64, decay_rate: f64, milestones: &[usize], epoch: usize) -> f64 {
    let passed = milestones.iter().filter(|&&milestone| milestone < epoch).count();
    base * decay_rate.powi(passed as i32)
}

/// A rate during a linear warm-up: `position` (from 0) of `length` steps or epochs gets (position + 1) / length of it.
pub fn warm_up(rate: f64, position: usize, length: usize) -> f64 {
    if position < length { rate * (position + 1) as f64 / length as f64 } else { rate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cosine_is_that_of_the_reference() {
        // methods/scan.md section 10: base 0.4, decay 0.1, 500 epochs.
        for (epoch, wanted) in
            [(0, 0.4), (1, 0.39999606), (100, 0.36184160), (250, 0.2002), (400, 0.03855840), (499, 0.00040394)]
        {
            let rate = Schedule::Cosine { decay_rate: 0.1 }.rate(0.4, epoch, 500);
            assert!((rate - wanted).abs() < 5e-9, "epoch {epoch}: {rate}");
        }
    }

    #[test]
    fn a_step_falls_after_its_milestone() {
        let rate = |epoch| Schedule::Step { decay_rate: 0.1, milestones: vec![2, 4] }.rate(1.0, epoch, 9);
        let rates: Vec<f64> = (0..7).map(rate).collect();
        for (rate, wanted) in rates.iter().zip([1.0, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01]) {
            assert!((rate - wanted).abs() < 1e-15, "{rates:?}");
        }
    }

    #[test]
    fn a_warm_up_ends_at_the_full_rate_and_may_be_absent() {
        let rates: Vec<f64> = (0..6).map(|i| warm_up(2.0, i, 4)).collect();
        for (rate, wanted) in rates.iter().zip([0.5, 1.0, 1.5, 2.0, 2.0, 2.0]) {
            assert!((rate - wanted).abs() < 1e-15, "{rates:?}");
        }
        assert!((warm_up(2.0, 0, 0) - 2.0).abs() < 1e-15);
    }

    #[test]
    fn settings_have_defaults_and_refuse_strangers() {
        let read = serde_json::from_str::<Schedule>;
        assert_eq!(read(r#"{"kind":"cosine"}"#).unwrap(), Schedule::Cosine { decay_rate: 0.1 });
        assert_eq!(read(r#"{"kind":"constant"}"#).unwrap(), Schedule::default());
        assert!(read(r#"{"kind":"cosine","decay":0.2}"#).is_err());
    }
}
