//! # TURTLE: a search for labels that linear classifiers can learn
//!
//! A search for labels, over one or several spaces of features: [`stage`] has settings, ports, card and the search; [`loss`] its two
//! losses.

pub mod loss;
pub mod stage;

pub use stage::{Config, Turtle};
