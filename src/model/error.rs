//! What can be wrong with a network.

use std::fmt;

use kinset_base::hint::{Exit, Fault};
use kinset_stage::StageError;

/// A fault of a network, its weights or its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A setting of the architecture that no network has.
    #[error("no network has {field} = `{found}`: {wanted}")]
    Architecture {
        /// The setting.
        field: &'static str,
        /// What was asked for.
        found: String,
        /// What would fit.
        wanted: String,
    },
    /// Weights of another network.
    #[error("the weights do not fit the network: {0}")]
    Weights(Mismatch),
    /// A weight that is no number.
    #[error("the weights of `{name}` hold a value that is not finite")]
    NotFinite {
        /// The tensor.
        name: String,
    },
    /// Two tensors by one name.
    #[error("two tensors are called `{name}`")]
    Twice {
        /// The name.
        name: String,
    },
    /// An input the network cannot take.
    #[error("the network takes {wanted}, the input has shape `{found:?}`")]
    Input {
        /// What it takes.
        wanted: String,
        /// The shape it got.
        found: Vec<usize>,
    },
    /// Images for a classifier that never knew an encoder.
    #[error("its heads were trained on features without their encoder, so it sorts features and no images")]
    NoImages,
    /// One head of several that decide together.
    #[error("its heads decide together: none of them stands for all")]
    Committee,
    /// A head the classifier does not have.
    #[error("there is no head `{head}`: the classifier has {heads}, counted from 0")]
    Head {
        /// The head asked for.
        head: usize,
        /// How many there are.
        heads: usize,
    },
    /// A network without the part that was asked for.
    #[error("the network has no {part}")]
    Absent {
        /// The part.
        part: &'static str,
    },
    /// A file of somebody else's weights that cannot be read.
    #[error(transparent)]
    Import(Box<super::import::ImportError>),
    /// A file of weights that cannot be read.
    #[error("cannot read weights from `{file}`")]
    Unreadable {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: Box<ModelError>,
    },
    /// Something that other people's networks have no place for.
    #[error("the authors' networks have no place for {what}")]
    NoPlace {
        /// What it is.
        what: String,
    },
    /// A network that one file of protobuf has no room for.
    #[error("the network takes {bytes} bytes, and an ONNX file ends at 2 GiB")]
    TooLarge {
        /// What it would take.
        bytes: u64,
    },
    /// A file of weights that cannot be written.
    #[error(transparent)]
    File(Box<kinset_artifact::error::ArtifactError>),
    /// The tensor library refused.
    #[error("the tensor library failed")]
    Tensor(#[from] candle_core::Error),
}

/// The result of work on a network.
pub type Result<T> = std::result::Result<T, ModelError>;

impl From<ModelError> for StageError {
    fn from(error: ModelError) -> Self {
        Self::other(error)
    }
}

impl Fault for ModelError {
    fn code(&self) -> &'static str {
        match self {
            Self::Architecture { .. } => "model::no-such-network",
            Self::Weights(_) => "model::wrong-weights",
            Self::NotFinite { .. } => "model::weights-not-finite",
            Self::Twice { .. } => "model::name-taken",
            Self::Input { .. } => "model::wrong-input",
            Self::NoImages => "model::features-only",
            Self::Committee => "model::committee",
            Self::Head { .. } => "model::no-such-head",
            Self::Absent { .. } => "model::no-such-part",
            Self::Import(error) => error.code(),
            Self::Unreadable { source, .. } => source.code(),
            Self::NoPlace { .. } => "model::no-place",
            Self::TooLarge { .. } => "model::too-large",
            Self::File(error) => error.code(),
            Self::Tensor(_) => "model::tensor",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Weights(_) => Some(
                "the file was made for another backbone, stem, width or number of clusters; nothing was loaded, because a \
                 partly random network trains without complaint and scores badly"
                    .into(),
            ),
            Self::NoImages => {
                Some("connect `features` in place of `images`, or train the heads with their `encoder` connected".into())
            }
            Self::Committee => Some("connect one of the classifiers it was made of".into()),
            Self::Import(error) => error.hint(),
            Self::Unreadable { source, .. } => source.hint(),
            Self::NoPlace { .. } => {
                Some("choose other `--names`, or end the name in `.onnx`, which has a place for everything".into())
            }
            Self::TooLarge { .. } => Some("end the name in `.safetensors`, which has no such limit".into()),
            Self::File(error) => error.hint(),
            Self::NotFinite { .. } => Some("the run that made these weights diverged: lower its learning rate".into()),
            Self::Tensor(error) if is_machine(error) => Some("try a smaller batch, or `device = \"cpu\"`".into()),
            _ => None,
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Architecture { .. } => Exit::Pipeline,
            Self::Weights(_) | Self::Import(_) | Self::Input { .. } | Self::NoImages | Self::Committee => Exit::Data,
            Self::NoPlace { .. } | Self::TooLarge { .. } => Exit::Usage,
            Self::Unreadable { source, .. } => source.exit(),
            Self::File(error) => error.exit(),
            Self::NotFinite { .. } => Exit::Run,
            Self::Tensor(error) if is_machine(error) => Exit::Machine,
            Self::Twice { .. } | Self::Head { .. } | Self::Absent { .. } | Self::Tensor(_) => Exit::Bug,
        }
    }
}

/// True if the device failed, not the computation that was asked of it.
fn is_machine(error: &candle_core::Error) -> bool {
    use candle_core::Error as E;
    match error {
        E::Cuda(_) | E::Metal(_) | E::NotCompiledWithCudaSupport | E::NotCompiledWithMetalSupport => true,
        E::WithBacktrace { inner, .. } | E::Context { inner, .. } | E::WithPath { inner, .. } => is_machine(inner),
        _ => false,
    }
}

/// How two sets of named tensors differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Names the network has and the weights lack.
    pub missing: Vec<String>,
    /// Names the weights have and the network lacks.
    pub unexpected: Vec<String>,
    /// Name, the network's shape, the weights' shape.
    pub misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
}

impl Mismatch {
    /// True if there is no difference.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// An error, if there is a difference.
    ///
    /// # Errors
    /// [`ModelError::Weights`] with this list.
    pub fn check(self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(ModelError::Weights(self)) }
    }
}

/// Names shown per kind of difference: enough to see the pattern.
const SHOWN: usize = 4;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> =
            self.misshapen.iter().map(|(name, wanted, found)| format!("`{name}` is {found:?} and not {wanted:?}")).collect();
        let quoted = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        let parts =
            [("missing", quoted(&self.missing)), ("unexpected", quoted(&self.unexpected)), ("of another shape", shapes)];
        let mut first = true;
        for (what, items) in parts.iter().filter(|(_, items)| !items.is_empty()) {
            let more = items.len().saturating_sub(SHOWN);
            write!(f, "{}{} {what}: {}", if first { "" } else { "; " }, items.len(), items[..items.len() - more].join(", "))?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
            first = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_lists_both_directions_and_shortens_long_lists() {
        let mismatch = Mismatch {
            missing: (0..6).map(|i| format!("a.{i}")).collect(),
            unexpected: vec!["x".into()],
            misshapen: vec![("w".into(), vec![2, 3], vec![3, 2])],
        };
        assert_eq!(
            mismatch.to_string(),
            "6 missing: `a.0`, `a.1`, `a.2`, `a.3` and 2 more; 1 unexpected: `x`; \
             1 of another shape: `w` is [3, 2] and not [2, 3]"
        );
        assert!(Mismatch::default().check().is_ok());
    }
}
