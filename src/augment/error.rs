//! Errors of augmentation.

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::stop::Stopped;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A picture has other channels than the views.
    #[error("the image in row `{row}` has `{found}` channels, the views have `{expected}`")]
    Channels { row: usize, found: usize, expected: usize },
    #[error("the image in row `{row}` cannot be read: {why}")]
    Undecodable { row: usize, why: String },
    #[error("row `{row}` is out of range: there are `{count}` images")]
    Row { row: usize, count: usize },
    #[error("the image in row `{row}` has no pixels")]
    Empty { row: usize },
    #[error("normalization with `{mean}` means and `{std}` deviations: 1 (gray) or 3 (RGB) of both are needed")]
    Statistics { mean: usize, std: usize },
    #[error(
        "normalization of channel `{channel}` with mean `{mean}` and deviation `{std}`: both must be finite, the second positive"
    )]
    Deviation {
        /// The channel, from 0.
        channel: usize,
        mean: f32,
        std: f32,
    },
    #[error("views of `{size}` pixels: the size must be 1–16384")]
    Size { size: usize },
    #[error("images are resized to `{resize}` pixels, but views need `{size}`")]
    Resize { resize: usize, size: usize },
    #[error("`{field}` of the recipe {message}")]
    Recipe { field: String, message: String },
    #[error("a batch of `{rows}` views needs a buffer of `{expected}` numbers, not `{found}`")]
    Room { rows: usize, expected: usize, found: usize },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl Fault for Error {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Channels { .. } => {
                Exit::Data.code("augment::channels").hint("use an encoder that was trained on images with these channels")
            }
            Self::Undecodable { .. } => Exit::Data.code("augment::undecodable"),
            Self::Row { .. } => Exit::Bug.code("augment::row"),
            Self::Empty { .. } => Exit::Data.code("augment::empty"),
            Self::Statistics { .. } => Exit::Data.code("augment::statistics"),
            Self::Deviation { .. } => Exit::Data.code("augment::deviation"),
            Self::Size { .. } => Exit::Pipeline.code("augment::size"),
            Self::Resize { size, .. } => {
                Exit::Pipeline.code("augment::resize").hint(format!("set `resize` to {size} or more, or leave it out"))
            }
            Self::Recipe { .. } => Exit::Pipeline.code("augment::recipe"),
            Self::Room { .. } => Exit::Bug.code("augment::room"),
            Self::Stopped(_) => Exit::Stopped.code("augment::stopped"),
        }
    }
}
