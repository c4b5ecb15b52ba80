//! # TEMI: clustering by mutual information of neighbors
//!
//! Heads on features computed before, taught by a slower copy of themselves: [`stage`] has settings, ports, card and the training;
//! [`loss`] the loss.

pub mod loss;
pub mod stage;

pub use stage::{Config, Temi};
