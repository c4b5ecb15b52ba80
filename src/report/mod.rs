//! # report: what would a person rather look at?
//!
//! [`scores`] puts the score tables of a pipeline into one, with the names of its stages, and mean ± spread over repeats.
//!
//! [`lines`] writes assignments as CSV and JSON lines.
//!
//! Not here: the results themselves (`artifact`), what is printed where (`cli`).

pub mod lines;
pub mod scores;
