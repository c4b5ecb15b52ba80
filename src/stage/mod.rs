//! # stage: what is a stage?
//!
//! The contract between the engine and everything that runs in it.
//!
//! Not here: the stages themselves (`step`, `method`), when they run (`pipeline`).
