//! # builtin/retrieve: the nearest pool images of each target image
//!
//! [`mod@stage`] is the stage; [`progress`] is what a killed search goes on from.
//!
//! Not here: which of them are taken (`builtin/similar`), the products (`kernel/neighbors`).

pub mod progress;
pub mod stage;

pub use stage::Retrieve;
