//! What can go wrong between a picture and its view.

use kinset_base::hint::{Exit, Fault};

/// A view that cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A picture has other channels than the views.
    #[error("the picture in row `{row}` has `{found}` channels, the views have `{expected}`")]
    Channels {
        /// Its row.
        row: usize,
        /// Channels it has.
        found: usize,
        /// Channels of the normalisation.
        expected: usize,
    },
    /// A picture that cannot be decoded.
    #[error("the picture in row `{row}` cannot be read: {why}")]
    Undecodable {
        /// Its row.
        row: usize,
        /// Why.
        why: String,
    },
    /// A row beyond the last.
    #[error("row `{row}` was asked for, but there are `{count}` pictures")]
    Row {
        /// The row.
        row: usize,
        /// How many there are.
        count: usize,
    },
    /// A picture without pixels.
    #[error("the picture in row `{row}` has no pixels")]
    Empty {
        /// Its row.
        row: usize,
    },
    /// The statistics do not describe gray or RGB pictures.
    #[error("normalisation with `{mean}` means and `{std}` deviations: 1 (gray) or 3 (RGB) of both are needed")]
    Statistics {
        /// Means given.
        mean: usize,
        /// Deviations given.
        std: usize,
    },
    /// A mean or deviation that cannot be used.
    #[error(
        "normalisation of channel `{channel}` with mean `{mean}` and deviation `{std}`: both must be finite, the second positive"
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
    #[error("pictures are resized to `{resize}` pixels, but views need `{size}`")]
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
    #[error("a batch of `{rows}` views needs room for `{expected}` numbers, not `{found}`")]
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
    fn code(&self) -> &'static str {
        match self {
            Self::Channels { .. } => "augment::channels",
            Self::Undecodable { .. } => "augment::undecodable",
            Self::Row { .. } => "augment::row",
            Self::Empty { .. } => "augment::empty",
            Self::Statistics { .. } => "augment::statistics",
            Self::Deviation { .. } => "augment::deviation",
            Self::Size { .. } => "augment::size",
            Self::Resize { .. } => "augment::resize",
            Self::Recipe { .. } => "augment::recipe",
            Self::Room { .. } => "augment::room",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Channels { .. } => Some("use an encoder that was trained on pictures with these channels".to_owned()),
            Self::Resize { size, .. } => Some(format!("set `resize` to {size} or more, or leave it out")),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Channels { .. }
            | Self::Undecodable { .. }
            | Self::Empty { .. }
            | Self::Statistics { .. }
            | Self::Deviation { .. } => Exit::Data,
            Self::Resize { .. } | Self::Recipe { .. } | Self::Size { .. } => Exit::Pipeline,
            Self::Row { .. } | Self::Room { .. } => Exit::Bug,
        }
    }
}
