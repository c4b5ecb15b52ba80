//! Errors of importing weights.

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::pickle::{self, PickleError};

/// Why no network was read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A format we do not read.
    #[error("unknown format: it begins with {found}; expected a PyTorch zip, a PyTorch legacy stream or safetensors")]
    Foreign {
        /// The first bytes.
        found: String,
    },
    /// A file that holds code beside weights.
    #[error("it is a TorchScript archive: a program, not a state dict")]
    Script,
    /// A pickle, or a file around one, that is not whole, or wants more than tensors and plain containers.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    /// An archive that cannot be read.
    #[error("its zip archive is damaged: {0}")]
    Archive(String),
    /// Numbers that are not where the pickle says.
    #[error("its storage `{key}` {what}")]
    Storage {
        /// The name of the storage.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// A tensor that cannot be.
    #[error("its tensor `{name}` {what}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A safetensors file that cannot be read.
    #[error("its safetensors header is damaged: {0}")]
    Header(String),
    /// Another file than was meant.
    #[error("its SHA-256 is {found}, expected {wanted}")]
    Checksum {
        /// What was asked for.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// No state dict of a residual network.
    #[error("it holds no residual network: none of its dictionaries has a tensor `conv1.weight` ({found})")]
    NoNetwork {
        /// What there is.
        found: String,
    },
    /// No published image encoder.
    #[error("it holds none of the supported image encoders (DINOv2, CLIP, ResNet-50): {found}")]
    NoTower {
        /// What there is.
        found: String,
    },
    /// Several state dicts, and none was named.
    #[error("it holds the networks {}", names(.0))]
    Several(Vec<String>),
    /// A state dict that is not there.
    #[error("it holds no network `{part}`; it has {}", names(found))]
    NoPart {
        /// What was asked for.
        part: String,
        /// What there is.
        found: Vec<String>,
    },
    /// A first layer that two networks share.
    #[error("its first convolution is 3 × 3, which the `cifar`, `stl` and `strided` stems all have")]
    WhichStem,
    /// A first layer that contradicts the settings.
    #[error("its first convolution is {found}, which is not that of the stem `{stem}`")]
    Stem {
        /// The shape of its weight.
        found: String,
        /// What was asked for.
        stem: &'static str,
    },
    /// Several heads, and nobody says which.
    #[error("it holds {heads} heads and does not say which is best")]
    WhichHead {
        /// How many.
        heads: usize,
    },
    /// A head that is not there.
    #[error("there is no head {head}: it holds {heads}, counted from 0")]
    NoHead {
        /// The head asked for.
        head: i64,
        /// How many there are.
        heads: usize,
    },
}

fn names(list: &[String]) -> String {
    list.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Fault for ImportError {
    fn diagnosis(&self) -> Diagnosis {
        let data = |code| Exit::Data.code(code);
        match self {
            Self::Foreign { .. } => data("import::foreign").hint("name a file that `torch.save` or safetensors wrote"),
            Self::Script => data("import::foreign").hint(pickle::TENSORS_ALONE),
            Self::Pickle(error) => error.diagnosis(),
            Self::Archive(_) | Self::Storage { .. } | Self::Header(_) => data("import::damaged").hint(pickle::DAMAGED),
            Self::Tensor { .. } => data("import::damaged"),
            Self::Checksum { .. } => data("import::checksum").hint("get the file again, or correct `sha256`"),
            Self::NoNetwork { .. } => data("import::no-network"),
            Self::NoTower { .. } => data("import::no-network")
                .hint("tensors must have the names of the authors or of transformers; `network.backbone` selects the network"),
            Self::Several(_) | Self::NoPart { .. } => {
                data("import::which-network").hint("name one of them with `part = \"NAME\"`")
            }
            Self::WhichStem => data("import::which-stem").hint(
                "set `stem = \"cifar\"` (32 px; SCAN, NNM, RUC on CIFAR and AND) or `stem = \"stl\"` (96 px): the wrong \
                 one would load and give worthless features",
            ),
            Self::Stem { .. } => data("import::which-stem").hint("leave `stem` out, or correct it"),
            Self::WhichHead { .. } | Self::NoHead { .. } => {
                data("import::which-head").hint("name one with `head = NUMBER`, counted from 0")
            }
        }
    }
}
