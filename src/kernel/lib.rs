//! # kinset-kernel: where is the time spent?
//!
//! The hot loops on a CPU, as candle custom operations or on plain slices; the only room with `unsafe`. Work is cut in fixed chunks and summed in a fixed order, so the bits do not depend on the number of threads.
//!
//! Not here: what the networks look like (`model`), formulas that are not hot (`math`).

mod agreement;
mod attention;
#[cfg(target_arch = "x86_64")]
mod broadcast;
#[cfg(test)]
mod check;
mod conv;
#[cfg(target_arch = "x86_64")]
mod direct;
mod elementwise;
mod error;
mod exponential;
mod gelu;
#[cfg(test)]
mod golden;
mod graph;
mod grid;
pub mod lanes;
mod linear;
mod memory;
pub mod neighbors;
mod norm;
mod panels;
#[cfg(target_arch = "x86_64")]
mod partials;
mod patches;
mod pool;
pub mod product;
mod simd;
mod threads;
mod tile;
mod transformer;
#[cfg(target_arch = "x86_64")]
mod turn;
#[cfg(target_arch = "x86_64")]
mod unpacked;
#[cfg(target_arch = "x86_64")]
mod winograd;

pub use agreement::agreement;
pub use conv::conv2d;
pub use elementwise::{add, add_relu, relu};
pub use error::KernelError;
pub use gelu::{Rectifier, gelu, quick_gelu};
pub use linear::linear;
pub use memory::Recycler;
pub use norm::{After, BatchNorm, batch_norm, batch_norm_eval, l2_normalize, scale_shift};
pub use patches::Patches;
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d};
pub use threads::keep_candle_on_one_thread;
pub use transformer::{Layer, LayerNorm, TransformerBlock};
