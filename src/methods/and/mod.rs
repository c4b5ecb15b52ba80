//! # AND: anchor neighborhood discovery
//!
//! The pretext task of anchor neighborhood discovery: the stage with its settings and rounds ([`stage`]), the memory bank that is
//! its classifier ([`bank`]), and how a round finds its neighborhoods ([`discovery`]).
//!
//! Not here: its views (`augment::instance`), the weighted vote that its paper measures with (`builtin::knn_eval`, `k = 200`), the
//! number of clusters (`builtin::auto_k`).

pub mod bank;
pub mod discovery;
pub mod stage;

pub use stage::{And, Config};
