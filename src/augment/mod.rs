//! # augment: what may happen to a picture?
//!
//! Pixels become views.
//!
//! Not here: which recipe a method uses (`method`).
