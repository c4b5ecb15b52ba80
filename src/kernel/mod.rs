//! # kernel: where is the time spent?
//!
//! The hot loops on a CPU, as candle custom operations or on plain slices; the only room with `unsafe`. Work is cut in fixed chunks and summed in a fixed order, so the bits do not depend on the number of threads.
//!
//! Not here: what the networks look like (`model`), formulas that are not hot (`math`).

pub mod lanes;
