//! Errors of kernels. Candle's own error type travels through `bwd`, so these are wrapped into it.

use kinset_base::fault::{Diagnosis, Exit, Fault};

/// An error of a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Shapes that do not match.
    #[error("`{op}` does not accept shapes {shapes:?}")]
    Shape {
        /// Which operation.
        op: &'static str,
        /// The shapes it was given.
        shapes: Vec<Vec<usize>>,
    },
    /// A window that does not fit.
    #[error("`{op}`: a window of {kernel} with stride {stride} and padding {padding} does not fit a map of {height} x {width}")]
    Window {
        /// Which operation.
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
    NoGradient {
        /// Which operation.
        op: &'static str,
    },
    /// A tensor is not where or what the CPU kernels need.
    #[error("`{op}` needs contiguous f32 numbers on the CPU")]
    NotFloats {
        /// Which operation.
        op: &'static str,
    },
    /// `KINSET_ISA` names no instruction set.
    #[error("`KINSET_ISA` is `{value}`, which is no instruction set that kinset knows")]
    UnknownIsa {
        /// Its value.
        value: String,
    },
    /// `KINSET_ISA` asks for more than the processor has.
    #[error("`KINSET_ISA` asks for `{asked}`, but this processor has no more than `{detected}`")]
    MissingIsa {
        /// Its value.
        asked: String,
        /// What the processor has.
        detected: String,
    },
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
            Self::UnknownIsa { .. } => {
                Exit::Usage.code("kernel::unknown-isa").hint("one of `portable`, `avx2`, `avx512`; unset is the best there is")
            }
            Self::MissingIsa { detected, .. } => {
                Exit::Usage.code("kernel::missing-isa").hint(format!("set it to `{detected}` or less, or unset it"))
            }
        }
    }
}
