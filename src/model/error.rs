//! Errors of networks.

use std::fmt;

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_stage::StageError;

/// A fault of a network, its weights or its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    #[error("invalid `{field}` {found}: expected {wanted}")]
    Architecture { field: &'static str, found: String, wanted: String },
    #[error("the weights do not fit the network: {0}")]
    Weights(Mismatch),
    #[error("the weights of `{name}` contain NaN or infinity")]
    NotFinite { name: String },
    #[error("two tensors have the name `{name}`")]
    Twice { name: String },
    #[error("invalid input of shape {found:?}: the network expects {wanted}")]
    Input { wanted: String, found: Vec<usize> },
    #[error("the classifier was trained on features without an encoder, so it cannot classify images")]
    NoImages,
    #[error("the classifier is an ensemble: no single head represents it")]
    Committee,
    #[error("invalid head {head}: the classifier has {heads}, counted from 0")]
    Head { head: usize, heads: usize },
    /// A network that came as a graph of operators.
    #[error("cannot run the operator `{operator}` that makes `{name}`: {what}")]
    Operator { operator: String, name: String, what: String },
    #[error("the network has no {part}")]
    Absent { part: &'static str },
    /// A file of somebody else's weights that cannot be read.
    #[error(transparent)]
    Import(Box<super::import::ImportError>),
    #[error("cannot read weights from `{file}`")]
    Unreadable {
        file: String,
        #[source]
        source: Box<ModelError>,
    },
    #[error("the authors' format cannot store {what}")]
    NoPlace { what: String },
    #[error("the network has {bytes} bytes; the limit of an ONNX file is 2 GiB")]
    TooLarge { bytes: u64 },
    /// A file of weights that cannot be written.
    #[error(transparent)]
    File(Box<kinset_artifact::error::ArtifactError>),
    /// A graphics card that failed, or on which there is no room.
    #[error("the graphics card cannot do this")]
    Card(#[source] Box<kinset_gpu::GpuError>),
    #[error("the tensor library failed")]
    Tensor(#[from] candle_core::Error),
}

pub type Result<T> = std::result::Result<T, ModelError>;

impl From<kinset_gpu::GpuError> for ModelError {
    fn from(error: kinset_gpu::GpuError) -> Self {
        Self::Card(Box::new(error))
    }
}

impl From<ModelError> for StageError {
    fn from(error: ModelError) -> Self {
        Self::other(error)
    }
}

impl Fault for ModelError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Architecture { .. } => Exit::Pipeline.code("model::no-such-network"),
            Self::Weights(mismatch) if mismatch.file.is_some() => Exit::Data.code("model::wrong-weights").hint(format!(
                "{}; else the file was made for another backbone, stem or width, and nothing was loaded, because a partly random network \
                 would train without an error and score badly",
                super::import::error::PREFIX
            )),
            Self::Weights(_) => Exit::Data.code("model::wrong-weights").hint(
                "the file was made for another backbone, stem, width or number of clusters; nothing was loaded, because a \
                 partly random network would train without an error and score badly",
            ),
            Self::NotFinite { .. } => Exit::Run
                .code("model::weights-not-finite")
                .hint("the run that made these weights diverged: lower its learning rate"),
            Self::Twice { .. } => Exit::Bug.code("model::name-taken"),
            Self::Input { .. } => Exit::Data.code("model::wrong-input"),
            Self::NoImages => Exit::Data
                .code("model::features-only")
                .hint("connect `features` in place of `images`, or train the heads with their `encoder` connected"),
            Self::Committee => Exit::Data.code("model::committee").hint("connect one of the classifiers it combines"),
            Self::Head { .. } => Exit::Bug.code("model::no-such-head"),
            Self::Operator { .. } => Exit::Data
                .code("model::operator")
                .hint("export the network anew with another operator in its place: `torch.onnx.export(…, opset_version=17)`"),
            Self::Absent { .. } => Exit::Bug.code("model::no-such-part"),
            Self::Import(error) => error.diagnosis(),
            Self::Unreadable { source, .. } => source.diagnosis(),
            Self::NoPlace { .. } => Exit::Usage
                .code("model::no-place")
                .hint("choose other `--names`, or end the name in `.onnx`, which can store every network"),
            Self::TooLarge { .. } => {
                Exit::Usage.code("model::too-large").hint("end the name in `.safetensors`, which has no such limit")
            }
            Self::File(error) => error.diagnosis(),
            Self::Card(error) => error.diagnosis(),
            Self::Tensor(error) if is_machine(error) => {
                Exit::Machine.code("model::tensor").hint("try a smaller batch, or `device = \"cpu\"`")
            }
            Self::Tensor(_) => Exit::Bug.code("model::tensor"),
        }
    }
}

/// True if the device failed, not the computation that was asked of it.
fn is_machine(error: &candle_core::Error) -> bool {
    use candle_core::Error as E;
    match error {
        // `kinset_gpu` wraps its errors so, where they pass through candle.
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
    /// Of a file of somebody else: which network it is nearest to, and how its names begin.
    pub file: Option<String>,
}

impl Mismatch {
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshapen.is_empty()
    }

    /// An error, if there is a difference.
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
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "; {file}"))
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
            file: None,
        };
        assert_eq!(
            mismatch.to_string(),
            "6 missing: `a.0`, `a.1`, `a.2`, `a.3` and 2 more; 1 unexpected: `x`; \
             1 of another shape: `w` is [3, 2] and not [2, 3]"
        );
        assert!(Mismatch::default().check().is_ok());
    }
}
