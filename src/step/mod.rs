//! # step: which stages need no paper?
//!
//! Stages without a paper.
//!
//! Not here: stages with a paper (`method`).
