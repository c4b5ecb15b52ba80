//! An ONNX file: the graph of a network, its inputs and outputs, and how a picture is prepared.

use std::fmt;

use prost::Message;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::body;
use super::graph::Sketch;
use super::heads::{self, CLUSTER, PROBABILITIES};
use super::messages::{Dimension, Entry, Graph, IR, Model, OPSET, OperatorSet, Shape, TensorType, Type, ValueInfo};
use crate::encoder::check;
use crate::error::{ModelError, Result};
use kinset_artifact::encoder::{Backbone, Classifier, Encoder, EncoderCard, Filter, Resize};

const IMAGES: &str = "images";
/// The name of what the backbone makes of them, and of what heads without one read.
const FEATURES: &str = "features";
/// The name of what `embed` writes.
const EMBEDDING: &str = "embedding";
/// The first axis of everything: as many as one likes.
const BATCH: &str = "batch";
/// The longest message of protobuf, bytes.
const LONGEST: usize = i32::MAX as usize;

/// A file to be written.
#[derive(Clone, Debug)]
pub struct File {
    pub bytes: Vec<u8>,
    /// What it says about itself under the key `kinset`: how a picture is prepared, and the card of the network.
    pub about: Value,
    pub input: Port,
    /// What comes out, the answer first.
    pub outputs: Vec<Port>,
}

/// A tensor that goes in or comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: &'static str,
    /// Its axes but for the first, the batch.
    pub sides: Vec<usize>,
    pub words: String,
}

impl Port {
    fn new(name: &'static str, sides: &[usize], words: impl Into<String>) -> Self {
        Self { name, sides: sides.to_vec(), words: words.into() }
    }

    fn shape(&self) -> Value {
        std::iter::once(json!(BATCH)).chain(self.sides.iter().map(|side| json!(side))).collect()
    }

    fn message(&self) -> ValueInfo {
        let batch = Dimension { dim_value: None, dim_param: Some(BATCH.to_owned()) };
        let side = |&side: &usize| Dimension { dim_value: Some(side as i64), dim_param: None };
        let shape = Shape { dim: std::iter::once(batch).chain(self.sides.iter().map(side)).collect() };
        let tensor = TensorType { elem_type: Some(heads::number(self.name)), shape: Some(shape) };
        let kind = Type { tensor_type: Some(tensor) };
        ValueInfo { name: Some(self.name.to_owned()), kind: Some(kind), doc_string: Some(self.words.clone()) }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        json!({ "name": self.name, "shape": self.shape(), "words": self.words }).serialize(serializer)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{BATCH}", self.name)?;
        self.sides.iter().try_for_each(|side| write!(f, ", {side}"))?;
        f.write_str("]")
    }
}

/// An encoder: pictures → `embedding`, which is what the stage `embed` writes, and `features`, the backbone's output as it is.
///
/// # Errors
/// [`ModelError::Architecture`], [`ModelError::Weights`] if card and numbers do not fit; [`ModelError::NoImages`] where there is no
/// network; [`ModelError::TooLarge`].
pub fn encoder(encoder: Encoder) -> Result<File> {
    let Encoder { card, tensors } = encoder;
    check(&card.architecture)?;
    let mut s = Sketch::new(tensors);
    let (input, prepared) = pictures(&card)?;
    let features = body::features(&mut s, &card, IMAGES)?;
    let words = if heads::projected(&mut s, &card.architecture, &features, EMBEDDING).is_some() {
        "the projection head's output at unit length"
    } else {
        s.unit(&features, EMBEDDING);
        "the backbone's output at unit length"
    };
    let outputs = vec![
        Port::new(EMBEDDING, &[card.architecture.output()], words),
        Port::new(FEATURES, &[card.architecture.features], "the backbone's output"),
    ];
    let about = json!({ "artifact": "encoder", "input": prepared, "encoder": card });
    finish(s, "encoder", about, input, outputs)
}

/// A classifier: pictures, or features where it never knew an encoder → `probabilities` of the head that counts and `cluster`, the
/// most probable. `names`, `[K]` or none, are what a person calls the clusters; they stand in the metadata.
pub fn classifier(classifier: Classifier, names: &[String]) -> Result<File> {
    let Classifier { card, tensors } = classifier;
    let architecture = &card.encoder.architecture;
    check(architecture)?;
    if card.head >= card.heads {
        return Err(ModelError::Head { head: card.head, heads: card.heads });
    }
    let mut s = Sketch::new(tensors);
    let (input, prepared, read) = if architecture.backbone == Backbone::Features {
        let input = Port::new(FEATURES, &[architecture.output()], "features of the kind that the heads were trained on");
        let shape = input.shape();
        (input, json!({ "name": FEATURES, "shape": shape }), FEATURES.to_owned())
    } else {
        let (input, prepared) = pictures(&card.encoder)?;
        let features = body::features(&mut s, &card.encoder, IMAGES)?;
        let projected = heads::projected(&mut s, architecture, &features, "projection");
        (input, prepared, projected.unwrap_or(features))
    };
    heads::decided(&mut s, &card, &read);
    let outputs = vec![
        Port::new(PROBABILITIES, &[card.clusters], "of each cluster; rows of sum 1"),
        Port::new(CLUSTER, &[], "the most probable cluster, counted from 0"),
    ];
    let mut about = json!({ "artifact": "classifier", "input": prepared, "classifier": card });
    if !names.is_empty() {
        about["names"] = json!(names);
    }
    finish(s, "classifier", about, input, outputs)
}

/// Pictures as the graph takes them, in words and for programs.
fn pictures(card: &EncoderCard) -> Result<(Port, Value)> {
    let architecture = &card.architecture;
    if architecture.backbone == Backbone::Features {
        return Err(ModelError::NoImages);
    }
    let (size, channels) = (architecture.size, architecture.channels);
    let Resize { shorter, filter } = card.normalization.resize.unwrap_or(Resize { shorter: size, filter: Filter::Bilinear });
    let filter = filter.name();
    let mode = if channels == 1 { "L" } else { "RGB" };
    let words = format!(
        "pictures in Pillow's mode {mode}, values 0 to 1: the shorter side brought to {shorter} pixels ({filter}, with antialias), \
         {size} × {size} cut from the middle; channels are normalized inside"
    );
    let input = Port::new(IMAGES, &[channels, size, size], words);
    let prepared = json!({
        "name": IMAGES, "shape": input.shape(), "mode": mode, "values": [0, 1], "shorter": shorter, "filter": filter, "size": size,
    });
    Ok((input, prepared))
}

fn finish(s: Sketch, name: &str, about: Value, input: Port, outputs: Vec<Port>) -> Result<File> {
    let graph = Graph {
        name: Some(name.to_owned()),
        input: vec![input.message()],
        output: outputs.iter().map(Port::message).collect(),
        ..s.finish()?
    };
    let model = Model {
        ir_version: Some(IR),
        producer_name: Some("kinset".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        doc_string: None,
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: Some(String::new()), version: Some(OPSET) }],
        metadata_props: vec![Entry { key: Some("kinset".into()), value: Some(about.to_string()) }],
    };
    Ok(File { bytes: encoded(&model, LONGEST)?, about, input, outputs })
}

/// The message, if it is no longer than that.
pub(super) fn encoded(model: &Model, longest: usize) -> Result<Vec<u8>> {
    let bytes = model.encoded_len();
    if bytes > longest {
        return Err(ModelError::TooLarge { bytes: bytes as u64 });
    }
    Ok(model.encode_to_vec())
}
