//! # dataset: how is this data set read?
//!
//! Raw data in published formats, turned into images and labels.
//!
//! Not here: our own tables (`artifact`).
