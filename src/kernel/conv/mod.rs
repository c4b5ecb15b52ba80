//! Two-dimensional convolution: the layer, its gradients, and the table of algorithms.
//!
//! Each algorithm is a file beside this one and a line in the table of `table.rs`. With vector registers of our own (`simd`),
//! `winograd` does the 3 x 3 convolutions without stride, which are most of a residual network, `strided` those with stride 2,
//! and `direct` (AVX-512) or `strided` the others without stride; `unfolded` does the rest, and all of them on other processors.

#[cfg(target_arch = "x86_64")]
mod direct;
#[cfg(target_arch = "x86_64")]
mod reduce;
mod shape;
#[cfg(target_arch = "x86_64")]
mod strided;
mod table;
mod unfolded;
#[cfg(target_arch = "x86_64")]
mod winograd;

use table::Algorithm;
pub use table::conv2d;
