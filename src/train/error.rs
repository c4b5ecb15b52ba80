//! Errors of training.

use kinset_artifact::error::ArtifactError;
use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_model::ModelError;
use kinset_stage::StageError;
use kinset_store::StoreError;

/// A fault of training.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    #[error("invalid {setting} `{found}`: it must be {wanted}")]
    Setting { setting: &'static str, found: String, wanted: &'static str },
    #[error("the batch is `{batch}`, but there are only {images} images")]
    BatchTooLarge { batch: usize, images: usize },
    #[error("there are no images to train on")]
    NoImages,
    #[error("the images have different sizes, and no `size` is given")]
    NoSize,
    #[error("the network expects images of {network} channels, but these have {images}")]
    Channels { network: usize, images: usize },
    #[error(transparent)]
    View(#[from] kinset_augment::Error),
    #[error("{what} is `{value}` in epoch {}, step {}", .epoch + 1, .step + 1)]
    NotFinite {
        what: &'static str,
        value: f64,
        /// Epoch, counted from 0.
        epoch: usize,
        /// Step in the epoch, counted from 0.
        step: usize,
    },
    #[error(
        "the clusters collapsed in epoch {}: {empty} of {clusters} are empty, the largest has {:.1} % of the images, \
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
    #[error("unknown device `{0}`: expected `auto`, `cpu`, `cuda`, `cuda:N` or `metal`")]
    UnknownDevice(String),
    #[error("the device `{device}` is not available: this program was built without `{feature}`")]
    BackEndMissing { device: String, feature: &'static str },
    #[error("the device `{device}` cannot be used")]
    Device {
        device: String,
        #[source]
        source: candle_core::Error,
    },
    #[error("the device `{device}` cannot be used")]
    Card {
        device: String,
        #[source]
        source: Box<kinset_gpu::GpuError>,
    },
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] StoreError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error(transparent)]
    Model(#[from] ModelError),
}

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
            Self::Card { source, .. } => source.diagnosis(),
            Self::Checkpoint(error) => error.diagnosis(),
            Self::File(error) => error.diagnosis(),
            Self::Artifact(error) => error.diagnosis(),
            Self::Model(error) => error.diagnosis(),
        }
    }
}
