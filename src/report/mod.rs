//! # report: what would a person rather look at?
//!
//! [`scores`] puts the score tables of a pipeline into one, with the names of its stages, and mean ± spread over repeats.
//!
//! [`diff`] lays two pipelines or runs beside each other; [`journal`] reads a run's events back.
//!
//! [`lines`] writes assignments as CSV and JSON lines.
//!
//! Not here: the results themselves (`artifact`), what is printed where (`cli`).

pub mod diff;
pub mod journal;
pub mod lines;
pub mod scores;
