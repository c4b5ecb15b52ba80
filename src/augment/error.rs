//! Errors of augmentation.

use kinset_base::fault::{Diagnosis, Exit, Fault};

/// A view that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A picture has other channels than the views.
    #[error("the image in row `{row}` has `{found}` channels, the views have `{expected}`")]
    Channels {
        /// Its row.
        row: usize,
        /// Channels it has.
        found: usize,
        /// Channels of the normalization.
        expected: usize,
    },
    /// A picture that cannot be decoded.
    #[error("the image in row `{row}` cannot be read: {why}")]
    Undecodable {
        /// Its row.
        row: usize,
        /// Why.
        why: String,
    },
    /// A row beyond the last.
    #[error("row `{row}` is out of range: there are `{count}` images")]
    Row {
        /// The row.
        row: usize,
        /// How many there are.
        count: usize,
    },
    /// A picture without pixels.
    #[error("the image in row `{row}` has no pixels")]
    Empty {
        /// Its row.
        row: usize,
    },
    /// The statistics do not describe gray or RGB pictures.
    #[error("normalization with `{mean}` means and `{std}` deviations: 1 (gray) or 3 (RGB) of both are needed")]
    Statistics {
        /// Means given.
        mean: usize,
        /// Deviations given.
        std: usize,
    },
    /// A mean or deviation that cannot be used.
    #[error(
        "normalization of channel `{channel}` with mean `{mean}` and deviation `{std}`: both must be finite, the second positive"
    )]
    Deviation {
        /// The channel, from 0.
        channel: usize,
        /// Its mean.
        mean: f32,
        /// Its deviation.
        std: f32,
    },
    /// Views of no pixels, or of more than fit.
    #[error("views of `{size}` pixels: the size must be 1–16384")]
    Size {
        /// The size asked for.
        size: usize,
    },
    /// The first resize leaves less than a view.
    #[error("images are resized to `{resize}` pixels, but views need `{size}`")]
    Resize {
        /// The recipe's resize.
        resize: usize,
        /// The size of a view.
        size: usize,
    },
    /// A recipe with a number out of range.
    #[error("`{field}` of the recipe {message}")]
    Recipe {
        /// The field.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The buffer does not hold the batch.
    #[error("a batch of `{rows}` views needs a buffer of `{expected}` numbers, not `{found}`")]
    Room {
        /// Views asked for.
        rows: usize,
        /// Numbers they consist of.
        expected: usize,
        /// Numbers the buffer holds.
        found: usize,
    },
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
        }
    }
}
