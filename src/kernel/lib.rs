//! # kinset-kernel: CPU kernels
//!
//! The hot loops on a CPU, as candle custom operations or on plain slices; with `gpu` the only crate with `unsafe`. Work is cut in fixed
//! chunks and summed in a fixed order, so the bits do not depend on the number of threads.
//!
//! Which vector instructions run is decided once, at run time ([`isa`]). Three things are global for the process: that choice,
//! the allocator's cache (with a flag that memory ran out), and the table of recorded results in `autograd`.
//!
//! Not here: what the networks look like (`model`), formulas that are not hot (`math`).

mod accumulate;
mod allocator;
mod attention;
mod autograd;
mod batch_norm;
mod buffers;
pub mod cells;
#[cfg(test)]
mod check;
mod conv;
mod depthwise;
pub mod dispatch;
mod elementwise;
mod error;
mod exponential;
mod gelu;
pub mod gemm;
#[cfg(test)]
mod golden;
mod int16_scan;
pub mod isa;
mod linear;
pub mod near_pairs;
pub mod neighbors;
mod packed_gemm;
mod patches;
mod pool;
mod scan_loss;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(target_arch = "x86_64")]
mod small_gemm;
mod threads;
mod transformer;
#[cfg(target_arch = "x86_64")]
mod transpose;

pub use allocator::{CachingAllocator, keep_large_blocks_apart, memory_refused};
pub use batch_norm::{After, BatchNorm, batch_norm, batch_norm_eval, l2_normalize, scale_shift};
pub use conv::conv2d;
pub use depthwise::depthwise_conv2d;
pub use elementwise::{add, add_relu, clip, relu};
pub use error::KernelError;
pub use gelu::{Activation, gelu, quick_gelu};
pub use linear::linear;
pub use patches::Patches;
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d};
pub use scan_loss::scan_terms;
pub use threads::keep_candle_on_one_thread;
pub use transformer::{Layer, LayerNorm, TransformerBlock};
