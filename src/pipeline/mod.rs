//! # pipeline: what runs, when, and why?
//!
//! From the text of a pipeline file to finished stages.
//!
//! Not here: what a stage does (`step`, `method`), words on the screen (`cli`).
