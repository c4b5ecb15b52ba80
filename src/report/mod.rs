//! # report: what would a person rather look at?
//!
//! Tables and pictures of results.
//!
//! Not here: the results themselves (`artifact`).
