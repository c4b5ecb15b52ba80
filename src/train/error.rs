//! Errors of training.

use std::path::PathBuf;

use kinset_artifact::error::ArtifactError;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_model::ModelError;
use kinset_stage::StageError;

/// A fault of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting outside its range.
    #[error("invalid {setting} `{found}`: it must be {wanted}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What was asked for.
        found: String,
        /// Its range.
        wanted: &'static str,
    },
    /// A batch that the set cannot fill.
    #[error("the batch is `{batch}`, but there are only {images} images")]
    BatchTooLarge {
        /// Images per batch.
        batch: usize,
        /// Images in the set.
        images: usize,
    },
    /// A set without images.
    #[error("there are no images to train on")]
    NoImages,
    /// Images of several sizes, and none was named.
    #[error("the images have different sizes, and no `size` is given")]
    NoSize,
    /// Gray images for a network that saw color, or the other way round.
    #[error("the network takes images of {network} channels, and these have {images}")]
    Channels {
        /// Channels it was trained on.
        network: usize,
        /// Channels there are.
        images: usize,
    },
    /// A view that cannot be made.
    #[error(transparent)]
    View(#[from] kinset_augment::Error),
    /// A loss that is no number.
    #[error("{what} is `{value}` in epoch {}, step {}", .epoch + 1, .step + 1)]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Epoch, counted from 0.
        epoch: usize,
        /// Step in the epoch, counted from 0.
        step: usize,
    },
    /// Nearly all images in one cluster.
    #[error(
        "the clusters collapsed in epoch {}: {empty} of {clusters} are empty, the largest holds {:.1} % of the images, \
         entropy {entropy:.3} of at most {:.3} nats", .epoch + 1, 100.0 * .largest, (*.clusters as f64).ln()
    )]
    Collapsed {
        /// Epoch, counted from 0.
        epoch: usize,
        /// K.
        clusters: usize,
        /// Clusters without an image.
        empty: usize,
        /// Share of the largest cluster, 0–1.
        largest: f64,
        /// Entropy of the shares, nats.
        entropy: f64,
    },
    /// A device by a name nobody knows.
    #[error("unknown device `{0}`: expected `auto`, `cpu`, `cuda`, `cuda:N` or `metal`")]
    UnknownDevice(String),
    /// A device this program was built without.
    #[error("the device `{device}` was asked for, but this program was built without `{feature}`")]
    BackEndMissing {
        /// The device.
        device: String,
        /// The feature of the build.
        feature: &'static str,
    },
    /// A device that does not answer.
    #[error("the device `{device}` cannot be used")]
    Device {
        /// The device.
        device: String,
        /// Why.
        #[source]
        source: candle_core::Error,
    },
    /// A checkpoint that cannot be written as JSON.
    #[error("the state of a checkpoint cannot be written to `{path}`")]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// An artifact's file.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A network.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// The result of moving weights.
pub type Result<T> = std::result::Result<T, TrainError>;

impl From<candle_core::Error> for TrainError {
    fn from(error: candle_core::Error) -> Self {
        Self::Model(error.into())
    }
}

impl From<TrainError> for StageError {
    fn from(error: TrainError) -> Self {
        Self::other(error)
    }
}

impl Fault for TrainError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Setting { .. } => Exit::Pipeline.code("train::setting"),
            Self::BatchTooLarge { images, .. } => Exit::Data
                .code("train::batch-too-large")
                .hint(format!("the last, partial batch of an epoch is dropped, so at most `batch = {images}` trains at all")),
            Self::NoImages => Exit::Data.code("train::no-images"),
            Self::NoSize => {
                Exit::Data.code("train::no-size").hint("set `size`, the side in pixels that images are cropped and resized to")
            }
            Self::Channels { .. } => Exit::Data
                .code("train::channels")
                .hint("use images like those the network was trained on, all gray or all in color"),
            Self::View(error) => error.diagnosis(),
            Self::NotFinite { .. } => Exit::Run
                .code("train::not-finite")
                .hint("lower the learning rate, or start it lower with `schedule.warm_up`; the last checkpoint is kept"),
            Self::Collapsed { .. } => Exit::Run.code("train::collapsed").hint(
                "raise `entropy_weight`, lower the learning rate, or look at the neighbors: if few of them agree, \
                 no loss helps",
            ),
            Self::UnknownDevice(_) => Exit::Pipeline.code("train::unknown-device"),
            Self::BackEndMissing { feature, .. } => Exit::Machine
                .code("train::back-end-missing")
                .hint(format!("build with `cargo build --release --features {feature}`, or set `device = \"cpu\"`")),
            Self::Device { .. } => Exit::Machine.code("train::device").hint("set `device = \"cpu\"`, or check the driver"),
            Self::Unwritable { .. } => Exit::Bug.code("train::checkpoint"),
            Self::File(error) => error.diagnosis(),
            Self::Artifact(error) => error.diagnosis(),
            Self::Model(error) => error.diagnosis(),
        }
    }
}
