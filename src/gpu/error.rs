//! Errors of the card: why there is none, and what it refused.

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::unit;

#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    #[error("`{library}` cannot be loaded: {reason}")]
    Library { library: String, reason: String },
    #[error("the driver finds no NVIDIA card")]
    NoCard,
    #[error("there is no card {index}: the driver finds {count}")]
    NoSuchCard { index: usize, count: usize },
    #[error("this process computes on card {card} already")]
    Chosen { card: usize },
    #[error("{name} has compute capability {}.{}; 7.5 is the least", capability / 10, capability % 10)]
    TooOld {
        name: String,
        /// Ten times the compute capability.
        capability: u32,
    },
    /// A function of a library failed.
    #[error("`{call}` failed: {reason} (code {code})")]
    Call { call: &'static str, code: i32, reason: String },
    #[error("the card has {} free, and {} are needed for {images} images of {height} x {width} pixels", unit::bytes(*.free), unit::bytes(*.needed))]
    Memory {
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
        /// B.
        images: usize,
        /// Pixels.
        height: usize,
        /// Pixels.
        width: usize,
    },
    #[error("{images} images of {height} x {width} pixels make a map of more than {} numbers", i32::MAX)]
    TooLarge { images: usize, height: usize, width: usize },
    #[error("cuDNN has no reproducible algorithm for {what}")]
    NoAlgorithm { what: String },
    #[error("`{what}` holds {found} numbers, and {wanted} are wanted")]
    Length { what: &'static str, found: usize, wanted: usize },
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

pub type Result<T> = std::result::Result<T, GpuError>;

impl GpuError {
    /// As candle's error for cards, which a backward pass returns and `model` takes for the machine's fault.
    pub(crate) fn wrap(self) -> candle_core::Error {
        candle_core::Error::Cuda(Box::new(self))
    }
}

impl Fault for GpuError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Library { .. } => Exit::Machine.code("gpu::library").hint(
                "the driver brings `libcuda.so.1`; cuDNN 9 and cuBLAS are of the packages `nvidia-cudnn-cu12` and `nvidia-cublas-cu12`, \
                 whose folders `lib` belong in LD_LIBRARY_PATH; or set `device = \"cpu\"`",
            ),
            Self::NoCard | Self::NoSuchCard { .. } => {
                Exit::Machine.code("gpu::no-card").hint("`nvidia-smi` lists the cards; or set `device = \"cpu\"`")
            }
            Self::TooOld { .. } => Exit::Machine.code("gpu::too-old").hint("set `device = \"cpu\"`"),
            Self::Call { .. } => Exit::Machine.code("gpu::call").hint("check the driver, or set `device = \"cpu\"`"),
            Self::Memory { .. } => Exit::Machine.code("gpu::memory").hint("lower `batch`, or end other programs on the card"),
            Self::TooLarge { .. } => Exit::Pipeline.code("gpu::too-large").hint("lower `batch`"),
            Self::NoAlgorithm { .. } => Exit::Machine.code("gpu::no-algorithm").hint("set `device = \"cpu\"`, and report it"),
            Self::Chosen { .. } => Exit::Bug.code("gpu::chosen"),
            Self::Length { .. } => Exit::Bug.code("gpu::length"),
            Self::Tensor(_) => Exit::Bug.code("gpu::tensor"),
        }
    }
}
