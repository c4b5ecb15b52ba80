//! A network as a list of ONNX's operators; its weights stand beside it, as those of every network.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// From pictures `[B, C, S, S]` to features, operator by operator, in an order in which each finds its inputs made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// What pictures are called.
    pub input: String,
    /// What features are called.
    pub output: String,
    /// True if it takes one picture at a time.
    pub alone: bool,
    pub nodes: Vec<Node>,
    /// The shapes of the weights, by name; their numbers are tensors of the network, called `backbone.NAME`.
    pub weights: BTreeMap<String, Vec<usize>>,
    /// Whole numbers: shapes, axes, indices.
    pub whole: BTreeMap<String, Whole>,
}

/// An operator, by its name and meaning in ONNX's operator set 17 (and `Gelu` of 20).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    pub operator: String,
    /// Names; an empty one stands for an input that is left out.
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, Attribute>,
}

/// A setting of an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attribute {
    Float(f32),
    Int(i64),
    Ints(Vec<i64>),
    Text(String),
}

/// A tensor of whole numbers, last axis fastest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    pub shape: Vec<usize>,
    pub values: Vec<i64>,
}

impl Node {
    pub fn new(operator: &str, inputs: &[&str], output: &str) -> Self {
        Self {
            operator: operator.to_owned(),
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            outputs: vec![output.to_owned()],
            attributes: BTreeMap::new(),
        }
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: Attribute) -> Self {
        self.attributes.insert(name.to_owned(), value);
        self
    }

    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name) {
            Some(Attribute::Int(value)) => Some(*value),
            _ => None,
        }
    }

    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name) {
            Some(Attribute::Float(value)) => Some(*value),
            _ => None,
        }
    }

    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name) {
            Some(Attribute::Ints(values)) => Some(values),
            _ => None,
        }
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name) {
            Some(Attribute::Text(text)) => Some(text),
            _ => None,
        }
    }
}
