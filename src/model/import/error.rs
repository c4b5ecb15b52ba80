//! What can be wrong with a file of somebody else's weights.

use kinset_base::pickle::PickleError;
use kinset_base::unit;

/// Why no network was read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A format we do not read.
    #[error("it begins with {found}, which is neither PyTorch's zip, nor its legacy stream, nor safetensors")]
    Foreign {
        /// The first bytes.
        found: String,
    },
    /// A file that holds code beside weights.
    #[error("it is a TorchScript archive: a program, not a state dict")]
    Script,
    /// A file that stops early.
    #[error("it ends at byte {at}, in the middle of {what}")]
    Truncated {
        /// Where.
        at: usize,
        /// What was to come.
        what: &'static str,
    },
    /// A pickle that no pickler writes.
    #[error("its pickle is damaged at byte {at}: {what}")]
    Damaged {
        /// Where, within the pickle.
        at: usize,
        /// What is wrong.
        what: String,
    },
    /// A pickle that wants more than tensors and plain containers.
    #[error("its pickle wants `{name}`, and nothing but tensors and plain containers is ever built")]
    Refused {
        /// The module and name, or the operation.
        name: String,
    },
    /// More than is believed.
    #[error("{what} is more than the {} that are believed", unit::count(*most))]
    TooLarge {
        /// What, with its number.
        what: String,
        /// The limit.
        most: u64,
    },
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
    #[error("its SHA-256 is {found}, and {wanted} was asked for")]
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
    #[error("it holds none of the image encoders known here (DINOv2, CLIP, ResNet-50): {found}")]
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
    #[error("its first convolution is 3 × 3, and the `cifar`, `stl` and `strided` stems all have that one")]
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
    #[error("it holds {heads} heads and does not say which is the best")]
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

impl ImportError {
    /// Stable and searchable.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } | Self::Script => "import::foreign",
            Self::Truncated { .. } => "import::truncated",
            Self::Damaged { .. } | Self::Archive(_) | Self::Storage { .. } | Self::Tensor { .. } | Self::Header(_) => {
                "import::damaged"
            }
            Self::Refused { .. } => "import::refused",
            Self::TooLarge { .. } => "import::too-large",
            Self::Checksum { .. } => "import::checksum",
            Self::NoNetwork { .. } | Self::NoTower { .. } => "import::no-network",
            Self::Several(_) | Self::NoPart { .. } => "import::which-network",
            Self::WhichStem | Self::Stem { .. } => "import::which-stem",
            Self::WhichHead { .. } | Self::NoHead { .. } => "import::which-head",
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Foreign { .. } => "name a file that `torch.save` or safetensors wrote",
            Self::Script | Self::Refused { .. } => {
                "save the tensors alone, where the file comes from and is trusted: \
                 `torch.save(network.state_dict(), \"weights.pth\")`"
            }
            Self::Truncated { .. } | Self::Damaged { .. } | Self::Archive(_) | Self::Storage { .. } | Self::Header(_) => {
                "the file is damaged, or a download that stopped early: get it again"
            }
            Self::Checksum { .. } => "get the file again, or correct `sha256`",
            Self::Several(_) | Self::NoPart { .. } => "name one of them with `part = \"NAME\"`",
            Self::WhichStem => {
                "say `stem = \"cifar\"` (32 px; SCAN, NNM, RUC on CIFAR and AND) or `stem = \"stl\"` (96 px): a wrong one would \
                 load and give worthless features"
            }
            Self::Stem { .. } => "leave `stem` out, or correct it",
            Self::WhichHead { .. } | Self::NoHead { .. } => "name one with `head = NUMBER`, counted from 0",
            Self::NoTower { .. } => {
                "weights come as their authors or transformers name them; `network.backbone` says which network is looked for"
            }
            Self::NoNetwork { .. } | Self::TooLarge { .. } | Self::Tensor { .. } => return None,
        };
        Some(text.to_owned())
    }
}

impl From<PickleError> for ImportError {
    fn from(error: PickleError) -> Self {
        match error {
            PickleError::Truncated { at, what } => Self::Truncated { at, what },
            PickleError::Damaged { at, what } => Self::Damaged { at, what },
            PickleError::Refused { name } => Self::Refused { name },
            PickleError::TooLarge { what, most } => Self::TooLarge { what, most },
        }
    }
}
