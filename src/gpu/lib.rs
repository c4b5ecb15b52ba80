//! # kinset-gpu: residual networks on an NVIDIA card
//!
//! A back end beside candle, for the part of training that takes the time: the body of a residual network, forward and backward.
//! Everything else stays on the processor. Nothing of CUDA is linked: `libcuda` and cuDNN are opened at run time ([`Card::open`]), so
//! that a program with this crate starts on machines without either, and says in one line why it uses no card.
//!
//! # How
//!
//! A network ([`Network`]) and the shape of a batch make a plan: a list of steps forward, and one backward, over buffers that are laid
//! out once in one piece of memory. A step is a kernel or a convolution of cuDNN. All of it goes into one stream, whichever thread
//! asks, and one thread asks at a time; there is nothing to synchronize but the host's reading of results. For candle a whole body is
//! one operation ([`features`]) on tensors of the processor: images and one row of weights in, features out, and backward the gradient
//! of the row.
//!
//! Maps are `[B, H, W, C]`, f32. Convolutions are cuDNN's, of algorithms that it calls reproducible, without TF32. Batch norm, ReLU and
//! the residual sum are one kernel forward and one backward, beside their sums; sums have one order, and NaN passes. Kernels are CUDA
//! C++ (`kernels/*.cu`); their PTX is checked in (`just ptx` makes it by NVRTC 12.0, from PyPI, without a card), for compute capability
//! 7.5; for 8.0 and 9.0 it would be the same text. The driver, of CUDA 12.0 or newer, translates it for the card. A test holds sources and
//! PTX together.
//!
//! The libraries are opened by `libloading`, with tables of the functions that are called, some twenty each. cudarc, which has all of
//! them, wants one version of CUDA when it is built, ends the process where a function is missing, and cannot be linked and loaded in
//! one build, so that candle's own features would have excluded this one.
//!
//! # Tests
//!
//! No card has run this yet. Tests run it on a double: libcuda and the functions of cuDNN that are called, built by g++ (`double/`),
//! with the kernels compiled for the processor from the same sources. It poisons memory with NaN, refuses memory that was given back
//! or never handed out, puts work off until somebody waits for it, and refuses memory that another stream has not finished with. What
//! it cannot tell: time, races inside a kernel (threads do not talk to each other in these), registers, what cuDNN really does.
//!
//! # What it does not do
//!
//! - Precision is f32; there is neither TF32 nor bf16.
//! - Weights go to the card and gradients come back with every step; optimizers, heads and losses compute on the processor.
//! - Images are copied when they are wanted, not ahead.
//! - Bodies that are no residual networks (transformers, imported graphs), neighbors and k-means stay on the processor.
//! - One card per process.

mod card;
mod check;
mod convolution;
mod cudnn;
mod driver;
mod error;
mod kernels;
mod library;
mod network;
mod operation;
mod plan;
#[cfg(test)]
mod reference;
mod session;
#[cfg(test)]
mod test_double;
#[cfg(test)]
mod testing;

pub use card::{Card, Libraries};
pub use check::{AGREE, Finding, check};
pub use error::{GpuError, Result};
pub use network::{Block, Network, Pool, Unit};
pub use operation::{Statistics, features};
