//! The way from the bytes of a file to an encoder.

use std::collections::BTreeSet;
use std::fmt;

use prost::Message;
use serde_json::Value;

use super::drawn::Drawn;
use super::finish::tried;
use super::picture::{Picture, sides};
use crate::error::{ModelError, Result};
use crate::import::ImportError;
use crate::onnx::messages::{Model, Node as GivenNode, ValueInfo};
use kinset_artifact::encoder::{Architecture, Backbone, EncoderCard, Normalization, Stem, Tensors};

/// Operator sets that are understood.
const SETS: std::ops::RangeInclusive<i64> = 9..=23;
/// Outputs that are taken where nobody says which, the best first.
const USUAL: [&str; 7] =
    ["embedding", "embeddings", "image_embeds", "image_embeddings", "features", "pooler_output", "last_hidden_state"];

/// How the tokens of a transformer, or the places of a map, become one list of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The first token.
    First,
    /// The mean of all.
    Mean,
}

/// What is read of a file.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The output that becomes the features.
    pub output: Option<String>,
    pub pool: Option<Pool>,
    /// Whether tokens and maps become one list of numbers in the usual way, if `pool` does not say how: the first token, the mean of
    /// all places.
    pub usual_pool: bool,
    /// Side of the pictures, pixels, where the file takes any.
    pub size: Option<usize>,
}

/// What its values are when a picture comes to the first operator that learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Not known from the file.
    Unknown,
    /// It takes values 0 to 1 and normalizes channels itself.
    Inside,
    /// It takes values 0 to 255, likewise.
    Bytes,
}

/// An encoder as the file has it.
#[derive(Clone, Debug)]
pub struct Read {
    pub architecture: Architecture,
    pub tensors: Tensors,
    pub values: Values,
    /// How its tokens or places become one list of numbers.
    pub pool: Option<Pool>,
    /// What kinset wrote of its own files: how pictures are prepared.
    pub prepared: Option<Value>,
    /// The output, and the others.
    pub output: String,
    pub others: Vec<String>,
}

impl Read {
    /// Its card, for pictures that were prepared like this.
    pub fn card(&self, normalization: Normalization) -> EncoderCard {
        let weights = self.architecture.graph.iter().flat_map(|graph| graph.weights.keys());
        EncoderCard {
            architecture: self.architecture.clone(),
            normalization,
            parameters: Vec::new(),
            buffers: weights.map(|name| format!("backbone.{name}")).collect(),
        }
    }
}

/// Reads an encoder.
///
/// # Errors
/// [`ImportError::Onnx`] for what is no such file, or a network that takes no picture; [`ModelError::Operator`] for what kinset cannot run.
pub fn encoder(bytes: &[u8], wanted: &Wanted) -> Result<Read> {
    let model = Model::decode(bytes).map_err(|error| onnx(format!("is no ONNX file, or a damaged one ({error})")))?;
    let graph = model.graph.clone().ok_or_else(|| onnx("has no graph"))?;
    let set = model.opset_import.iter().find(|set| set.domain.as_deref().is_none_or(|domain| matches!(domain, "" | "ai.onnx")));
    let set = set.and_then(|set| set.version).unwrap_or(1);
    if !SETS.contains(&set) {
        let (first, last) = (SETS.start(), SETS.end());
        return Err(onnx(format!(
            "has operator set {set}; {first} to {last} are understood: export it with `opset_version=17`"
        )));
    }
    let outputs: Vec<String> = graph.output.iter().filter_map(|output| output.name.clone()).collect();
    let output = chosen(&outputs, wanted.output.as_deref())?;
    let mut drawn = Drawn::of(graph.initializer)?;
    for node in needed(graph.node, &output) {
        drawn.take(node, set)?;
    }
    let inputs: Vec<&ValueInfo> = graph
        .input
        .iter()
        .filter(|input| input.name.as_ref().is_some_and(|name| drawn.reads(name) && !drawn.constants.contains_key(name)))
        .collect();
    let [input] = inputs.as_slice() else {
        let names = listed(inputs.iter().filter_map(|input| input.name.as_deref()));
        return Err(onnx(format!(
            "takes {names} for the output `{output}`, and an encoder takes pictures alone: choose another `output`"
        )));
    };
    let name = input.name.clone().unwrap_or_default();
    let sides = sides(input).ok_or_else(|| onnx(format!("has an input `{name}` that is no tensor of floating numbers")))?;
    let picture = Picture::of(&name, &sides, wanted.size)?;
    drawn.fuse(&output);
    let others = outputs.into_iter().filter(|other| *other != output).collect();
    let values = drawn.values(&name);
    let (graph, tensors, pool) = drawn.finish(&name, &output, &picture, wanted)?;
    let features = tried(&graph, &picture)?.1;
    let architecture = Architecture {
        backbone: Backbone::Graph,
        stem: Stem::Imagenet,
        width: 1,
        channels: picture.channels,
        size: picture.size,
        features,
        projection: None,
        transformer: None,
        graph: Some(graph.graph),
    };
    let about = model.metadata_props.iter().find(|entry| entry.key.as_deref() == Some("kinset"));
    let about: Option<Value> = about.and_then(|entry| serde_json::from_str(entry.value.as_deref()?).ok());
    let prepared = about.and_then(|about| about.get("input").cloned());
    Ok(Read { architecture, tensors, values, pool, prepared, output, others })
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "channels are normalized before it",
            Self::Inside => "values 0 to 1, channels are normalized inside",
            Self::Bytes => "values 0 to 255, channels are normalized inside",
        })
    }
}

pub(super) fn onnx(what: impl Into<String>) -> ModelError {
    ImportError::Onnx { what: what.into() }.into()
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// The output that was asked for, a usual one, or the only one.
fn chosen(outputs: &[String], asked: Option<&str>) -> Result<String> {
    let usual = || USUAL.iter().copied().find(|name| outputs.iter().any(|output| output == name));
    match (asked, outputs) {
        (Some(asked), _) if outputs.iter().any(|output| output == asked) => Ok(asked.to_owned()),
        (Some(asked), _) => {
            Err(onnx(format!("has no output `{asked}`; it has {}", listed(outputs.iter().map(String::as_str)))))
        }
        (None, [only]) => Ok(only.clone()),
        (None, all) => usual()
            .map(str::to_owned)
            .ok_or_else(|| onnx(format!("has the outputs {}: name one with `output`", listed(all.iter().map(String::as_str))))),
    }
}

/// The operators that lead to an output, in their order.
fn needed(nodes: Vec<GivenNode>, output: &str) -> Vec<GivenNode> {
    let mut wanted = BTreeSet::from([output.to_owned()]);
    let mut kept: Vec<GivenNode> = Vec::new();
    for node in nodes.into_iter().rev() {
        if node.output.iter().any(|name| wanted.contains(name)) {
            wanted.extend(node.input.iter().filter(|name| !name.is_empty()).cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}
