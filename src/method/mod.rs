//! # method: what does each paper do?
//!
//! Stages with a paper, one file each.
//!
//! Not here: stages without one (`step`).
