//! Errors of importing weights.

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::pickle::{self, PickleError};

/// Why no network was read from a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    #[error("unknown format: it begins with {found}; expected a PyTorch zip, a PyTorch legacy stream or safetensors")]
    Foreign {
        /// The first bytes.
        found: String,
    },
    #[error("it is {kind}; a PyTorch zip, a PyTorch legacy stream or safetensors was expected")]
    OtherKind { kind: String },
    #[error("it is a TorchScript archive: a program, not a state dict")]
    Script,
    /// A pickle, or a file around one, that is not whole, or wants more than tensors and plain containers.
    #[error(transparent)]
    Pickle(#[from] PickleError),
    #[error("its zip archive is damaged: {0}")]
    Archive(String),
    #[error("its storage `{key}` {what}")]
    Storage { key: String, what: String },
    #[error("its tensor `{name}` {what}")]
    Tensor { name: String, what: String },
    #[error("its safetensors header is damaged: {0}")]
    Header(String),
    #[error("its SHA-256 is {found}, expected {wanted}")]
    Checksum { wanted: String, found: String },
    #[error(
        "it contains neither a residual network nor AND's AlexNet: none of its dictionaries has a tensor `conv1.weight`, or `features.0.weight` and `fc1.0.weight` ({found})"
    )]
    NoNetwork { found: String },
    /// An ONNX file that is no encoder.
    #[error("it {what}")]
    Onnx { what: String },
    #[error("it contains none of the supported image encoders (DINOv2, CLIP, ResNet-50): {found}")]
    NoTower { found: String },
    #[error("it contains several networks: {}", names(.0))]
    Several(Vec<String>),
    #[error("it contains no network `{part}`; it has {}", names(found))]
    NoPart { part: String, found: Vec<String> },
    #[error("its networks have the prefixes {}, and `prefix` selects none of them", names(found))]
    WhichPrefix { found: Vec<String> },
    #[error("no name in it begins with `{prefix}`; they begin with {}", super::beginnings::in_words(found))]
    NoPrefix { prefix: String, found: Vec<(String, usize)> },
    /// Something that was never built, among the tensors.
    #[error("its tensor `{name}` is an object of the class `{class}`, and only tensors are read")]
    Object { name: String, class: String },
    #[error("its first convolution is 3 × 3, which the `cifar`, `stl` and `strided` stems all have")]
    WhichStem,
    #[error("its first convolution is {found}, which is not that of the stem `{stem}`")]
    Stem {
        /// The shape of its weight.
        found: String,
        stem: &'static str,
    },
    #[error("it contains {heads} heads and does not record which is best")]
    WhichHead { heads: usize },
    #[error("there is no head {head}: it contains {heads}, counted from 0")]
    NoHead { head: i64, heads: usize },
}

/// What to do where names do not fit.
pub(crate) const PREFIX: &str = "give the prefix of the network's tensors with `prefix = \"backbone.\"`, and leave out other tensors with \
                                 `ignore = [\"projector.*\"]`";

fn names(list: &[String]) -> String {
    list.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl Fault for ImportError {
    fn diagnosis(&self) -> Diagnosis {
        let data = |code| Exit::Data.code(code);
        match self {
            Self::Foreign { .. } | Self::OtherKind { .. } => {
                data("import::foreign").hint("name a file that `torch.save` or safetensors wrote")
            }
            Self::Script => data("import::foreign").hint(pickle::TENSORS_ALONE),
            Self::Pickle(error) => error.diagnosis(),
            Self::Archive(_) | Self::Storage { .. } | Self::Header(_) => data("import::damaged").hint(pickle::DAMAGED),
            Self::Tensor { .. } => data("import::damaged"),
            Self::Checksum { .. } => data("import::checksum").hint("download the file again, or correct `sha256`"),
            Self::NoNetwork { .. } => data("import::no-network").hint(PREFIX),
            Self::WhichPrefix { found } => data("import::which-prefix").hint(format!(
                "name one with `prefix = \"{}\"`; momentum copies are read only if they are named",
                found.first().map_or("backbone.", String::as_str)
            )),
            Self::NoPrefix { .. } => data("import::which-prefix").hint(PREFIX),
            Self::Object { name, .. } => {
                data("import::refused").hint(format!("leave it out with `ignore = [\"{name}\"]`, or {}", pickle::TENSORS_ALONE))
            }
            Self::Onnx { .. } => data("import::onnx"),
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
