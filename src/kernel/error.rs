//! Errors of kernels. Candle's own error type travels through `bwd`, so these are wrapped into it.

use kinset_base::fault::{Diagnosis, Exit, Fault};

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("`{op}` does not accept shapes {shapes:?}")]
    Shape { op: &'static str, shapes: Vec<Vec<usize>> },
    #[error("`{op}`: a window of {kernel} with stride {stride} and padding {padding} does not fit a map of {height} x {width}")]
    Window {
        op: &'static str,
        /// Side of the window, pixels.
        kernel: usize,
        /// Step, pixels.
        stride: usize,
        /// Border of zeros, pixels.
        padding: usize,
        /// Input height, pixels.
        height: usize,
        /// Input width, pixels.
        width: usize,
    },
    /// The backward pass reached an operation whose output received no gradient.
    #[error("`{op}` received no gradient in the backward pass")]
    NoGradient { op: &'static str },
    /// A tensor is not where or what the CPU kernels need.
    #[error("`{op}` needs contiguous f32 numbers on the CPU")]
    NotFloats { op: &'static str },
    #[error("`KINSET_ISA` is `{value}`, which is not a known instruction set")]
    UnknownIsa { value: String },
    #[error("`KINSET_ISA` is `{asked}`, but this processor supports at most `{detected}`")]
    MissingIsa { asked: String, detected: String },
}

impl KernelError {
    /// As candle's error, which the operations return.
    pub fn wrap(self) -> candle_core::Error {
        candle_core::Error::wrap(self)
    }
}

impl Fault for KernelError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Shape { .. } => Exit::Bug.code("kernel::shape"),
            Self::Window { .. } => Exit::Run.code("kernel::window").hint("use a smaller window, more padding or larger images"),
            Self::NoGradient { .. } => Exit::Bug.code("kernel::no-gradient"),
            Self::NotFloats { .. } => Exit::Bug.code("kernel::not-floats"),
            Self::UnknownIsa { .. } => Exit::Usage
                .code("kernel::unknown-isa")
                .hint("one of `portable`, `avx2`, `avx512`; if it is not set, the best one is used"),
            Self::MissingIsa { detected, .. } => {
                Exit::Usage.code("kernel::missing-isa").hint(format!("set it to `{detected}` or less, or unset it"))
            }
        }
    }
}
