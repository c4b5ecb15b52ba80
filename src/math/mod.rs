//! # math: numbers in, numbers out
//!
//! What is the formula? Plain slices of numbers, no tensors, no files, no failure but a documented panic on a broken precondition.
//!
//! Not here: fast products and convolutions (`kernel`), losses with gradients (with the method whose paper brought them, in `method`).
