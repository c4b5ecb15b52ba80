//! From somebody's ONNX file to an encoder: the operators that lead to one output, in the form of one operator set, and their weights.
//!
//! What does not depend on the picture is computed here. What exporters spell out in many operators (GELU, layer norm) becomes one
//! again, which runs faster. The graph is tried with pictures of zeros, so that a file that cannot be run is refused at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use prost::Message;
use serde_json::Value;

use super::messages::{Attribute as Given, Model, Node as GivenNode, Tensor as Numbers, ValueInfo};
use crate::error::{ModelError, Result};
use crate::graph::{GraphNet, Inputs, operator};
use crate::import::ImportError;
use crate::params::values;
use kinset_artifact::encoder::{Architecture, Backbone, EncoderCard, Normalization, Stem, Tensors};
use kinset_artifact::graph::{Attribute, Graph, Node, Whole};

/// Operator sets that are understood.
const SETS: std::ops::RangeInclusive<i64> = 9..=23;
/// Outputs that are taken where nobody says which, the best first.
const USUAL: [&str; 7] =
    ["embedding", "embeddings", "image_embeds", "image_embeddings", "features", "pooler_output", "last_hidden_state"];
/// What stands for a made tensor that has no name of its own.
const INPUT: &str = "images";
/// The largest side, pixels.
const LARGEST: usize = 4096;

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
    let (graph, tensors) = drawn.finish(&name, &output, &picture, wanted.pool)?;
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
    Ok(Read { architecture, tensors, values, prepared, output, others })
}

fn onnx(what: impl Into<String>) -> ModelError {
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

/// The sides of an input of floating numbers; 0 where any will do.
fn sides(input: &ValueInfo) -> Option<Vec<usize>> {
    let tensor = input.kind.as_ref()?.tensor_type.as_ref()?;
    if !matches!(tensor.elem_type, Some(Numbers::FLOAT | Numbers::FLOAT16 | Numbers::BFLOAT16 | Numbers::DOUBLE)) {
        return None;
    }
    let sides =
        tensor.shape.as_ref()?.dim.iter().map(|side| side.dim_value.and_then(|side| usize::try_from(side).ok()).unwrap_or(0));
    Some(sides.collect())
}

/// What goes in.
#[derive(Clone, Copy, Debug)]
struct Picture {
    channels: usize,
    size: usize,
    /// The channels come last.
    last: bool,
    /// It takes one at a time.
    alone: bool,
}

impl Picture {
    fn of(name: &str, sides: &[usize], size: Option<usize>) -> Result<Self> {
        let shown: Vec<String> = sides.iter().map(|side| if *side == 0 { "?".to_owned() } else { side.to_string() }).collect();
        let wrong = |why: &str| onnx(format!("has an input `{name}` of shape [{}]: {why}", shown.join(", ")));
        let &[batch, one, two, three] = sides else {
            return Err(wrong("an encoder takes pictures `[batch, channels, height, width]`"));
        };
        let last = matches!(three, 1 | 3) && !matches!(one, 1 | 3);
        let (channels, height, width) = if last { (three, one, two) } else { (one, two, three) };
        let channels = match channels {
            // Whoever leaves it open takes color.
            0 => 3,
            1 | 3 => channels,
            _ => return Err(wrong("pictures have 1 or 3 channels")),
        };
        if batch > 1 {
            return Err(wrong("it takes batches of one size alone: export it with a dynamic batch axis"));
        }
        let fixed = height.max(width);
        if height != width && height * width != 0 {
            return Err(wrong("kinset shows squares"));
        }
        let size = match (fixed, size) {
            (0, None) => 224,
            (0, Some(size)) => size,
            (fixed, None) => fixed,
            (fixed, Some(size)) if fixed == size => size,
            (_, Some(size)) => return Err(wrong(&format!("`size` is {size}"))),
        };
        if !(1..=LARGEST).contains(&size) {
            return Err(wrong(&format!("sides of 1 to {LARGEST} pixels are taken")));
        }
        Ok(Self { channels, size, last, alone: batch == 1 })
    }
}

/// A graph while it is read.
struct Drawn {
    nodes: Vec<Node>,
    constants: BTreeMap<String, Tensor>,
}

impl Drawn {
    fn of(initializers: Vec<Numbers>) -> Result<Self> {
        let mut constants = BTreeMap::new();
        for numbers in initializers {
            let name = numbers.name.clone().unwrap_or_default();
            constants.insert(name.clone(), tensor(&name, &numbers)?);
        }
        Ok(Self { nodes: Vec::new(), constants })
    }

    fn reads(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.inputs.iter().any(|input| input == name))
    }

    /// Takes an operator: brought to the one set, and computed if all it reads is known.
    fn take(&mut self, given: GivenNode, set: i64) -> Result<()> {
        let failed = |what: String| ModelError::Operator {
            operator: given.op_type.clone().unwrap_or_default(),
            name: given.output.first().cloned().unwrap_or_default(),
            what,
        };
        if let Some(domain) = given.domain.as_deref().filter(|domain| !matches!(*domain, "" | "ai.onnx")) {
            return Err(failed(format!(
                "it is one of `{domain}`, not of ONNX: export the network without the optimizations of a runtime"
            )));
        }
        if given.op_type.as_deref() == Some("Constant") {
            let name = given.output.first().cloned().unwrap_or_default();
            let value = constant(&name, &given.attribute)?;
            self.constants.insert(name, value.ok_or_else(|| failed("it has no numbers that are read".into()))?);
            return Ok(());
        }
        let mut node = Node {
            operator: given.op_type.clone().unwrap_or_default(),
            inputs: given.input.clone(),
            outputs: given.output.clone(),
            attributes: BTreeMap::new(),
        };
        for attribute in &given.attribute {
            let name = attribute.name.clone().unwrap_or_default();
            if let Some(value) = setting(attribute).map_err(&failed)? {
                node.attributes.insert(name, value);
            }
        }
        self.in_one_set(&mut node, set).map_err(&failed)?;
        let known = node.inputs.iter().all(|name| name.is_empty() || self.constants.contains_key(name));
        if known {
            let inputs: Vec<Option<&Tensor>> = node.inputs.iter().map(|name| self.constants.get(name)).collect();
            let made = operator(&node, &Inputs(&inputs), &Device::Cpu).map_err(|why| failed(why.to_string()))?;
            self.constants.extend(node.outputs.into_iter().zip(made));
        } else {
            self.nodes.push(node);
        }
        Ok(())
    }

    /// Settings that became inputs, inputs that were settings: as in set 17.
    fn in_one_set(&mut self, node: &mut Node, set: i64) -> std::result::Result<(), String> {
        let mut input = |node: &mut Node, place: usize, setting: &str| -> std::result::Result<(), String> {
            let Some(value) = node.attributes.remove(setting) else { return Ok(()) };
            let name = format!("{}.{setting}", node.outputs.first().map_or("", String::as_str));
            let value = match value {
                Attribute::Ints(values) => Tensor::from_slice(&values, values.len(), &Device::Cpu),
                Attribute::Float(value) => Tensor::full(value, (), &Device::Cpu),
                other => return Err(format!("`{setting}` is {other:?}")),
            };
            self.constants.insert(name.clone(), value.map_err(|error| error.to_string())?);
            node.inputs.resize(node.inputs.len().max(place + 1), String::new());
            node.inputs[place] = name;
            Ok(())
        };
        match node.operator.as_str() {
            "Squeeze" | "Unsqueeze" => input(node, 1, "axes")?,
            "Clip" => {
                input(node, 1, "min")?;
                input(node, 2, "max")?;
            }
            "Split" => input(node, 1, "split")?,
            "Pad" => {
                input(node, 1, "pads")?;
                input(node, 2, "value")?;
            }
            "Slice" => {
                input(node, 1, "starts")?;
                input(node, 2, "ends")?;
                input(node, 3, "axes")?;
            }
            "Dropout" => node.inputs.truncate(1),
            "Resize" if set < 11 => return Err("it is of an operator set before 11".into()),
            // Before 13 all axes from this one on were one.
            "Softmax" if set < 13 && node.int("axis").unwrap_or(1) != -1 => {
                return Err("it is of an operator set before 13, over axes that are not told".into());
            }
            reduce if reduce.starts_with("Reduce") && node.inputs.len() > 1 => {
                let axes = node.inputs.pop().and_then(|name| self.constants.get(&name).cloned());
                let axes = axes.and_then(|axes| axes.flatten_all().ok()?.to_vec1::<i64>().ok());
                let axes = axes.ok_or("its axes are computed from the picture")?;
                if axes.is_empty() && node.int("noop_with_empty_axes") == Some(1) {
                    node.operator = "Identity".into();
                } else if !axes.is_empty() {
                    node.attributes.insert("axes".into(), Attribute::Ints(axes));
                }
                node.attributes.remove("noop_with_empty_axes");
            }
            _ => {}
        }
        Ok(())
    }

    fn maker(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.outputs.first().is_some_and(|output| output == name))
    }

    fn made_by(&self, name: &str, operator: &str) -> Option<&Node> {
        self.maker(name).filter(|node| {
            node.operator == operator && node.inputs.len() > usize::from(operator != "Erf" && operator != "Sqrt")
        })
    }

    fn number(&self, name: &str) -> Option<f32> {
        let tensor = self.constants.get(name).filter(|tensor| tensor.dtype() == DType::F32 && tensor.elem_count() == 1)?;
        tensor.flatten_all().ok()?.to_vec1::<f32>().ok()?.first().copied()
    }

    /// The two inputs of an operator in the order in which the second is a known number.
    fn with_number<'a>(&self, node: &'a Node) -> Option<(&'a str, f32)> {
        let [a, b] = node.inputs.as_slice() else { return None };
        self.number(b).map(|number| (a.as_str(), number)).or_else(|| Some((b.as_str(), self.number(a)?)))
    }

    /// Several operators that are one, as one.
    fn fuse(&mut self, output: &str) {
        for place in 0..self.nodes.len() {
            let found = self.gelu(&self.nodes[place]).or_else(|| self.layer_norm(&self.nodes[place]));
            if let Some(node) = found {
                self.nodes[place] = node;
            }
        }
        let mut wanted = BTreeSet::from([output.to_owned()]);
        let mut kept = Vec::new();
        for node in std::mem::take(&mut self.nodes).into_iter().rev() {
            if node.outputs.iter().any(|name| wanted.contains(name)) {
                wanted.extend(node.inputs.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.nodes = kept;
    }

    /// x · ½ · (1 + erf(x / √2)), in any order.
    fn gelu(&self, last: &Node) -> Option<Node> {
        if last.operator != "Mul" {
            return None;
        }
        let mut factors: Vec<&str> = last.inputs.iter().map(String::as_str).collect();
        let at = factors.iter().position(|name| self.made_by(name, "Mul").is_some_and(|node| self.is_part_of_gelu(node)));
        if let Some(at) = at {
            let inner = self.made_by(factors.remove(at), "Mul")?;
            factors.extend(inner.inputs.iter().map(String::as_str));
        }
        let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
        let half = factors.iter().position(|name| self.number(name).is_some_and(|number| near(number, 0.5)))?;
        factors.remove(half);
        let sum = factors.iter().position(|name| self.erf_of(name).is_some())?;
        let x = self.erf_of(factors.remove(sum))?;
        let [same] = factors.as_slice() else { return None };
        (*same == x).then(|| Node::new("Gelu", &[x], &last.outputs[0]))
    }

    fn is_part_of_gelu(&self, product: &Node) -> bool {
        product.inputs.iter().any(|name| self.erf_of(name).is_some() || self.number(name).is_some())
    }

    /// x, of 1 + erf(x / √2).
    fn erf_of(&self, sum: &str) -> Option<&str> {
        let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
        let (erf, one) = self.with_number(self.made_by(sum, "Add")?)?;
        let scaled = self.made_by(erf, "Erf")?.inputs.first()?;
        let root = std::f32::consts::SQRT_2;
        let divided =
            self.made_by(scaled, "Div").and_then(|node| Some((node.inputs[0].as_str(), self.number(&node.inputs[1])?)));
        let times = || self.with_number(self.made_by(scaled, "Mul")?).map(|(x, number)| (x, 1.0 / number));
        let (x, by) = divided.or_else(times)?;
        (near(one, 1.0) && near(by, root)).then_some(x)
    }

    /// (x − mean) / √(variance + ε) · weight + bias over the last axis.
    fn layer_norm(&self, last: &Node) -> Option<Node> {
        if last.operator != "Add" {
            return None;
        }
        let row = |name: &str| self.constants.get(name).filter(|tensor| tensor.rank() == 1);
        let (scaled, bias) = ordered(last, |name| row(name).is_some())?;
        let (unit, weight) = ordered(self.made_by(scaled, "Mul")?, |name| row(name).is_some())?;
        let divided = self.made_by(unit, "Div")?;
        let x = self.centred(&divided.inputs[0])?;
        let root = self.made_by(&divided.inputs[1], "Sqrt")?;
        let (variance, epsilon) = self.with_number(self.made_by(root.inputs.first()?, "Add")?)?;
        let squares = self.maker(variance).filter(|node| last_mean(node))?.inputs.first()?;
        let square = self.maker(squares)?;
        let twice = match (square.operator.as_str(), square.inputs.as_slice()) {
            ("Pow", [x, two]) => self.number(two).is_some_and(|two| (two - 2.0).abs() < 1e-6).then_some(x),
            ("Mul", [x, same]) => (x == same).then_some(x),
            _ => None,
        }?;
        if self.centred(twice)? != x {
            return None;
        }
        let node = Node::new("LayerNormalization", &[x, weight, bias], &last.outputs[0])
            .with("axis", Attribute::Int(-1))
            .with("epsilon", Attribute::Float(epsilon));
        Some(node)
    }

    /// x, of x less its mean over the last axis.
    fn centred(&self, name: &str) -> Option<&str> {
        let [x, mean] = self.made_by(name, "Sub")?.inputs.as_slice() else { return None };
        let mean = self.maker(mean).filter(|node| last_mean(node))?;
        (mean.inputs.first()? == x).then_some(x)
    }

    /// What the first operators say of the values that are expected.
    fn values(&self, input: &str) -> Values {
        let mut at = input.to_owned();
        let mut found = Values::Unknown;
        for _ in 0..6 {
            let mut readers = self.nodes.iter().filter(|node| node.inputs.contains(&at));
            let (Some(node), None) = (readers.next(), readers.next()) else { return found };
            let known = node.inputs.iter().filter(|name| **name != at).map(|name| self.constants.get(name));
            let small: Option<Vec<&Tensor>> = known.map(|tensor| tensor.filter(|tensor| tensor.elem_count() <= 3)).collect();
            let Some(numbers) = small else { return found };
            match node.operator.as_str() {
                "Add" | "Sub" | "Mul" | "Div" if !numbers.is_empty() => {
                    let large = numbers.iter().any(|tensor| {
                        values(tensor).is_ok_and(|all| {
                            all.iter().any(|value| value.abs() > 16.0 || (value.abs() < 0.01 && *value != 0.0))
                        })
                    });
                    found = if large || found == Values::Bytes { Values::Bytes } else { Values::Inside };
                }
                "Identity" | "Cast" | "Transpose" => {}
                _ => return found,
            }
            at.clone_from(&node.outputs[0]);
        }
        found
    }

    /// The graph and its weights, with short names for what is made on the way.
    fn finish(self, input: &str, output: &str, picture: &Picture, pool: Option<Pool>) -> Result<(WithNumbers, Tensors)> {
        let Self { mut nodes, constants } = self;
        if picture.last {
            for name in nodes.iter_mut().flat_map(|node| &mut node.inputs).filter(|name| *name == input) {
                TURNED.clone_into(name);
            }
            nodes.insert(0, Node::new("Transpose", &[input], TURNED).with("perm", Attribute::Ints(vec![0, 2, 3, 1])));
        }
        let used: BTreeSet<&String> = nodes.iter().flat_map(|node| &node.inputs).collect();
        let constants =
            constants.iter().filter(|(name, _)| used.contains(name)).map(|(name, tensor)| (name.clone(), tensor.clone()));
        let mut constants: BTreeMap<String, Tensor> = constants.collect();
        let (weights, whole) = (BTreeMap::new(), BTreeMap::new());
        let graph = Graph { input: input.to_owned(), output: output.to_owned(), alone: picture.alone, nodes, weights, whole };
        // Before names are shortened, so that what cannot be run is named as in the file.
        let mut all = WithNumbers { graph, constants: constants.clone() };
        let (dims, _) = tried(&all, picture).or_else(|error| {
            // Some exporters write the one picture they saw into a shape.
            all.graph.alone = true;
            tried(&all, picture).map_err(|_| error)
        })?;
        all.pool(&dims, pool, &mut constants)?;
        let mut tensors = Tensors::default();
        for (name, tensor) in &constants {
            if tensor.dtype() == DType::I64 {
                let values = tensor.flatten_all()?.to_vec1::<i64>()?;
                all.graph.whole.insert(name.clone(), Whole { shape: tensor.dims().to_vec(), values });
                continue;
            }
            let numbers = values(tensor)?;
            if numbers.iter().any(|value| !value.is_finite()) {
                return Err(ModelError::NotFinite { name: name.clone() });
            }
            all.graph.weights.insert(name.clone(), tensor.dims().to_vec());
            tensors.insert(format!("backbone.{name}"), tensor.dims().to_vec(), numbers);
        }
        all.constants = constants;
        all.shorten();
        Ok((all, tensors))
    }
}

/// Names that no exporter gives.
const TURNED: &str = "kinset/turned";
const FIRST: &str = "kinset/first";
const POOLED: &str = "kinset/pooled";
const FLAT: &str = "kinset/flat";

/// A graph with the numbers it reads.
struct WithNumbers {
    graph: Graph,
    constants: BTreeMap<String, Tensor>,
}

impl WithNumbers {
    fn append(&mut self, node: Node) {
        self.graph.output.clone_from(&node.outputs[0]);
        self.graph.nodes.push(node);
    }

    /// Makes one list of numbers for each picture of what comes out in this shape.
    fn pool(&mut self, dims: &[usize], pool: Option<Pool>, constants: &mut BTreeMap<String, Tensor>) -> Result<()> {
        let last = self.graph.output.clone();
        let flat = |name: &str| Node::new("Flatten", &[name], FLAT).with("axis", Attribute::Int(1));
        match (dims, pool) {
            ([_, _], None) => {}
            ([_, _], Some(_)) => return Err(onnx("gives one list of numbers for each picture: `pool` has nothing to do")),
            ([_, _, 1, 1], None) => self.append(flat(&last)),
            ([_, _, _], Some(Pool::First)) => {
                constants.insert(FIRST.into(), Tensor::full(0_i64, (), &Device::Cpu)?);
                self.append(Node::new("Gather", &[&last, FIRST], POOLED).with("axis", Attribute::Int(1)));
            }
            ([_, _, _], Some(Pool::Mean)) => {
                let node = Node::new("ReduceMean", &[&last], POOLED);
                self.append(node.with("axes", Attribute::Ints(vec![1])).with("keepdims", Attribute::Int(0)));
            }
            ([_, _, _, _], Some(Pool::Mean)) => {
                self.append(Node::new("GlobalAveragePool", &[&last], POOLED));
                self.append(flat(POOLED));
            }
            ([_, sides @ ..], _) => {
                let shape: Vec<String> = sides.iter().map(ToString::to_string).collect();
                return Err(onnx(format!(
                    "gives [batch, {}] for each picture: set `pool = \"mean\"`, or `pool = \"first\"` for the first token, or another \
                     `output`",
                    shape.join(", ")
                )));
            }
            ([], _) => return Err(onnx("gives one number, and features are `[batch, D]`")),
        }
        Ok(())
    }

    /// Gives short names to what is made on the way.
    fn shorten(&mut self) {
        let Graph { input, output, nodes, .. } = &mut self.graph;
        let mut names = BTreeMap::from([(std::mem::replace(input, INPUT.to_owned()), INPUT.to_owned())]);
        let mut count = 0;
        for node in nodes {
            for name in node.inputs.iter_mut().filter(|name| !self.constants.contains_key(*name)) {
                if let Some(short) = names.get(name) {
                    name.clone_from(short);
                }
            }
            for name in &mut node.outputs {
                let mut short = format!("t{count}");
                while self.constants.contains_key(&short) {
                    short.push('_');
                }
                count += 1;
                names.insert(std::mem::replace(name, short.clone()), short);
            }
        }
        if let Some(short) = names.get(output) {
            output.clone_from(short);
        }
    }
}

/// The inputs of an operator of two that may change places, in the order in which the second is such a one.
fn ordered(node: &Node, is_second: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let [a, b] = node.inputs.as_slice() else { return None };
    if is_second(b) { Some((a, b)) } else { is_second(a).then_some((b.as_str(), a.as_str())) }
}

fn last_mean(node: &Node) -> bool {
    node.operator == "ReduceMean" && node.ints("axes") == Some(&[-1]) && node.int("keepdims").unwrap_or(1) == 1
}

/// The shape that comes out of pictures of zeros, and its last side. Of two pictures, and of one: what takes one at a time says so.
fn tried(all: &WithNumbers, picture: &Picture) -> Result<(Vec<usize>, usize)> {
    let net = GraphNet::over(all.graph.clone(), all.constants.clone());
    let run = |count: usize| {
        net.forward(&Tensor::zeros((count, picture.channels, picture.size, picture.size), DType::F32, &Device::Cpu)?)
    };
    let dims = run(2)?.dims().to_vec();
    if dims.first() != Some(&2) {
        return Err(onnx(format!("makes {dims:?} of 2 pictures: export it with a dynamic batch axis")));
    }
    let features = dims.last().copied().unwrap_or(0);
    if features == 0 || dims.len() == 1 {
        return Err(onnx(format!("gives numbers of shape {dims:?}, and features are `[batch, D]`")));
    }
    Ok((dims, features))
}

/// Numbers of a file, floating ones as `f32`, whole ones and truths as `i64`.
fn tensor(name: &str, numbers: &Numbers) -> Result<Tensor> {
    let wrong = |what: &str| onnx(format!("has a tensor `{name}` that {what}"));
    if numbers.data_location == Some(1) {
        return Err(wrong("lies in another file: save the model as one, `onnx.save(onnx.load(…), …)`"));
    }
    let shape = numbers.dims.iter().map(|&side| usize::try_from(side)).collect::<std::result::Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| wrong("has a side below 0"))?;
    let count = shape.iter().try_fold(1_usize, |all, &side| all.checked_mul(side)).ok_or_else(|| wrong("is too large"))?;
    let raw = numbers.raw_data.as_deref().unwrap_or_default();
    let narrow = |value: &i32| u16::try_from(*value).unwrap_or(0);
    let made = match numbers.data_type {
        Some(Numbers::FLOAT) if raw.is_empty() => Made::Floats(numbers.float_data.clone()),
        Some(Numbers::FLOAT) => Made::Floats(raw.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect()),
        Some(Numbers::DOUBLE) if raw.is_empty() => Made::Floats(numbers.double_data.iter().map(|&v| v as f32).collect()),
        Some(Numbers::DOUBLE) => Made::Floats(raw.as_chunks::<8>().0.iter().map(|v| f64::from_le_bytes(*v) as f32).collect()),
        Some(Numbers::FLOAT16) if raw.is_empty() => {
            Made::Floats(numbers.int32_data.iter().map(|v| f16::from_bits(narrow(v)).to_f32()).collect())
        }
        Some(Numbers::FLOAT16) => {
            Made::Floats(raw.as_chunks::<2>().0.iter().map(|v| f16::from_le_bytes(*v).to_f32()).collect())
        }
        Some(Numbers::BFLOAT16) if raw.is_empty() => {
            Made::Floats(numbers.int32_data.iter().map(|v| bf16::from_bits(narrow(v)).to_f32()).collect())
        }
        Some(Numbers::BFLOAT16) => {
            Made::Floats(raw.as_chunks::<2>().0.iter().map(|v| bf16::from_le_bytes(*v).to_f32()).collect())
        }
        Some(Numbers::INT64) if raw.is_empty() => Made::Whole(numbers.int64_data.clone()),
        Some(Numbers::INT64) => Made::Whole(raw.as_chunks::<8>().0.iter().map(|v| i64::from_le_bytes(*v)).collect()),
        Some(Numbers::INT32 | Numbers::BOOL) if raw.is_empty() => {
            Made::Whole(numbers.int32_data.iter().map(|&v| v.into()).collect())
        }
        Some(Numbers::INT32) => Made::Whole(raw.as_chunks::<4>().0.iter().map(|v| i32::from_le_bytes(*v).into()).collect()),
        Some(Numbers::BOOL) => Made::Whole(raw.iter().map(|&v| v.into()).collect()),
        other => {
            return Err(wrong(&format!(
                "has numbers of type {}, which are not read (a quantized network?)",
                other.unwrap_or(0)
            )));
        }
    };
    let len = match &made {
        Made::Floats(values) => values.len(),
        Made::Whole(values) => values.len(),
    };
    if len != count {
        return Err(wrong(&format!("has {len} numbers for the shape {shape:?}")));
    }
    Ok(match made {
        Made::Floats(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
        Made::Whole(values) => Tensor::from_vec(values, shape, &Device::Cpu)?,
    })
}

enum Made {
    Floats(Vec<f32>),
    Whole(Vec<i64>),
}

/// What a `Constant` stands for.
fn constant(name: &str, attributes: &[Given]) -> Result<Option<Tensor>> {
    let [given] = attributes else { return Ok(None) };
    Ok(match (given.name.as_deref(), &given.t) {
        (Some("value"), Some(numbers)) => Some(tensor(name, numbers)?),
        (Some("value_float"), _) => Some(Tensor::full(given.f.unwrap_or(0.0), (), &Device::Cpu)?),
        (Some("value_int"), _) => Some(Tensor::full(given.i.unwrap_or(0), (), &Device::Cpu)?),
        (Some("value_floats"), _) => Some(Tensor::from_slice(&given.floats, given.floats.len(), &Device::Cpu)?),
        (Some("value_ints"), _) => Some(Tensor::from_slice(&given.ints, given.ints.len(), &Device::Cpu)?),
        _ => None,
    })
}

/// A setting of an operator; none where it says nothing that matters.
fn setting(given: &Given) -> std::result::Result<Option<Attribute>, String> {
    let name = given.name.as_deref().unwrap_or_default();
    Ok(Some(match given.kind {
        Some(Given::FLOAT) => match given.f.unwrap_or(0.0) {
            value if value.is_finite() => Attribute::Float(value),
            value => return Err(format!("its setting `{name}` is {value}")),
        },
        Some(Given::INT) => Attribute::Int(given.i.unwrap_or(0)),
        Some(Given::INTS) => Attribute::Ints(given.ints.clone()),
        Some(Given::STRING) => Attribute::Text(String::from_utf8_lossy(given.s.as_deref().unwrap_or_default()).into_owned()),
        // `ConstantOfShape` has one number in a tensor.
        Some(Given::TENSOR) => {
            let numbers = given.t.as_ref().and_then(|numbers| tensor(name, numbers).ok());
            let numbers =
                numbers.filter(|numbers| numbers.elem_count() == 1).ok_or(format!("its setting `{name}` is no number"))?;
            let numbers = numbers.flatten_all().map_err(|error| error.to_string())?;
            match (numbers.to_vec1::<i64>(), numbers.to_vec1::<f32>()) {
                (Ok(whole), _) => Attribute::Int(whole[0]),
                (_, Ok(floats)) if floats[0].is_finite() => Attribute::Float(floats[0]),
                _ => return Err(format!("its setting `{name}` is no number")),
            }
        }
        _ => return Err(format!("its setting `{name}` is of a kind that is not read")),
    }))
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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rayon::ThreadPoolBuilder;

    use super::*;
    use crate::testing::{assert_near, numbers, wave};
    use crate::{EncoderNet, Mode};
    use kinset_artifact::encoder::Encoder;

    const MOBILE: &[u8] = include_bytes!("../../../tests/golden/onnx/mobile.onnx");
    const TOKENS: &[u8] = include_bytes!("../../../tests/golden/onnx/tokens.onnx");

    fn net(read: &Read) -> EncoderNet {
        let card = read.card(Normalization::new(vec![0.0; 3], vec![1.0; 3]));
        EncoderNet::from_tensors(&card, &read.tensors, &Device::Cpu).unwrap()
    }

    fn pictures(size: usize) -> Tensor {
        (wave(&[3, 3, size, size], 0.013, 0.2, 0.5) + 0.5).unwrap()
    }

    fn wanted(output: Option<&str>, pool: Option<Pool>, size: Option<usize>) -> Wanted {
        Wanted { output: output.map(str::to_owned), pool, size }
    }

    /// Made by `tests/golden/onnx/encoders.py`.
    #[test]
    fn features_are_those_of_onnxruntime() {
        let golden: Value = serde_json::from_str(include_str!("../../../tests/golden/onnx/encoders.json")).unwrap();
        let all = |file: &str, output: &str| numbers(&golden[file][output]["values"]);
        for output in ["embedding", "logits"] {
            let read = encoder(MOBILE, &wanted(Some(output), None, None)).unwrap();
            assert_eq!((read.architecture.size, read.values), (17, Values::Inside));
            let found = net(&read).features(&pictures(17), Mode::Eval).unwrap();
            assert_near(output, &values(&found).unwrap(), &all("mobile", output), 2e-5);
        }
        assert_eq!(encoder(MOBILE, &Wanted::default()).unwrap().output, "embedding");
        let tokens = all("tokens", "last_hidden_state");
        for pool in [Pool::First, Pool::Mean] {
            let read = encoder(TOKENS, &wanted(None, Some(pool), Some(12))).unwrap();
            assert_eq!(read.values, Values::Unknown);
            let found = values(&net(&read).features(&pictures(12), Mode::Eval).unwrap()).unwrap();
            let pooled = tokens.chunks_exact(10 * 8).flat_map(|picture| match pool {
                Pool::First => picture[..8].to_vec(),
                Pool::Mean => (0..8).map(|d| picture.chunks_exact(8).map(|token| token[d]).sum::<f64>() / 10.0).collect(),
            });
            assert_near("tokens", &found, &pooled.collect::<Vec<_>>(), 2e-5);
        }
    }

    #[test]
    fn what_exporters_spell_out_is_one_operator_again() {
        let read = encoder(TOKENS, &wanted(None, Some(Pool::First), Some(12))).unwrap();
        let graph = read.architecture.graph.unwrap();
        let count = |operator: &str| graph.nodes.iter().filter(|node| node.operator == operator).count();
        assert_eq!(["Gelu", "LayerNormalization", "Erf", "ReduceMean", "Constant"].map(count), [1, 3, 0, 0, 0]);
    }

    #[test]
    fn what_is_read_comes_back_from_what_is_written() {
        for (bytes, pool, size) in [(MOBILE, None, 17), (TOKENS, Some(Pool::First), 12)] {
            let read = encoder(bytes, &wanted(None, pool, Some(size))).unwrap();
            let features = net(&read).features(&pictures(size), Mode::Eval).unwrap();
            let written = crate::onnx::encoder(Encoder {
                card: read.card(Normalization::new(vec![0.0; 3], vec![1.0; 3])),
                tensors: read.tensors.clone(),
            });
            let again = encoder(&written.unwrap().bytes, &wanted(Some("features"), None, None)).unwrap();
            let found = net(&again).features(&pictures(size), Mode::Eval).unwrap();
            let same: Vec<f64> = values(&features).unwrap().into_iter().map(f64::from).collect();
            assert_near("again", &values(&found).unwrap(), &same, 1e-6);
            assert_eq!(again.prepared.unwrap()["size"], size);
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads_or_on_who_is_in_the_batch() {
        let read = encoder(MOBILE, &Wanted::default()).unwrap();
        let net = net(&read);
        let pictures = Tensor::cat(&vec![pictures(17); 3], 0).unwrap();
        let run = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| values(&net.features(&pictures, Mode::Eval).unwrap()).unwrap())
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn no_gradient_reaches_it_and_nothing_in_it_trains() {
        let net = net(&encoder(MOBILE, &Wanted::default()).unwrap());
        assert_eq!(net.params().parameters().count(), 0);
        assert!(!net.features(&pictures(17), Mode::Train).unwrap().track_op());
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do() {
        let refuse = |bytes: &[u8], wanted: &Wanted| encoder(bytes, wanted).unwrap_err().to_string();
        assert!(refuse(b"abc", &Wanted::default()).contains("no ONNX file"));
        let text = refuse(MOBILE, &wanted(Some("x"), None, None));
        assert!(text.contains("no output `x`; it has `logits`, `embedding`"), "{text}");
        let text = refuse(TOKENS, &wanted(None, None, Some(12)));
        assert!(text.contains("[batch, 10, 8]") && text.contains("`pool = \"mean\"`"), "{text}");
        assert!(refuse(MOBILE, &wanted(None, Some(Pool::Mean), None)).contains("`pool` has nothing to do"));
        assert!(refuse(MOBILE, &wanted(None, None, Some(224))).contains("[?, 3, 17, 17]: `size` is 224"));
        let changed = |change: &dyn Fn(&mut Model)| {
            let mut model = Model::decode(MOBILE).unwrap();
            change(&mut model);
            encoder(&model.encode_to_vec(), &Wanted::default()).unwrap_err()
        };
        let named = |model: &mut Model, operator: &str| {
            model
                .graph
                .as_mut()
                .unwrap()
                .node
                .iter_mut()
                .find(|node| node.op_type.as_deref() == Some(operator))
                .unwrap()
                .op_type = Some("Einsum".into());
        };
        let error = changed(&|model| named(model, "HardSwish"));
        // In the words of the file.
        assert_eq!(error.to_string(), "cannot run the operator `Einsum` that makes `/made/19`: kinset does not have it");
        let text = changed(&|model| model.opset_import[0].version = Some(7)).to_string();
        assert!(text.contains("operator set 7"), "{text}");
        let text = changed(&|model| model.graph.as_mut().unwrap().output.iter_mut().for_each(|o| o.name = Some("y".into())))
            .to_string();
        assert!(text.contains("name one with `output`"), "{text}");
        let text = changed(&|model| model.graph.as_mut().unwrap().initializer[0].data_location = Some(1)).to_string();
        assert!(text.contains("another file"), "{text}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn changed_bytes_never_panic(
            tokens: bool,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [MOBILE.to_vec(), TOKENS.to_vec()]);
            let mut bytes = FILES[usize::from(tokens)].clone();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let pool = tokens.then_some(Pool::First);
            if let Ok(read) = encoder(&bytes, &wanted(None, pool, Some(if tokens { 12 } else { 17 }))) {
                let card = read.card(Normalization::new(vec![0.0; read.architecture.channels], vec![1.0; read.architecture.channels]));
                let _ = EncoderNet::from_tensors(&card, &read.tensors, &Device::Cpu);
            }
        }
    }
}
