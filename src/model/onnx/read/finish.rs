//! A graph that is tried with pictures of zeros, gets its pooling and short names, and is laid down with its numbers.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Device, Tensor};

use super::drawn::Drawn;
use super::file::{Pool, Wanted, onnx};
use super::picture::Picture;
use crate::error::{ModelError, Result};
use crate::graph::GraphNet;
use crate::params::values;
use kinset_artifact::encoder::Tensors;
use kinset_artifact::graph::{Attribute, Graph, Node, Whole};

/// What stands for a made tensor that has no name of its own.
const INPUT: &str = "images";

impl Drawn {
    /// The graph and its weights, with short names for what is made on the way.
    pub(super) fn finish(
        self,
        input: &str,
        output: &str,
        picture: &Picture,
        wanted: &Wanted,
    ) -> Result<(WithNumbers, Tensors, Option<Pool>)> {
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
        let pool = wanted.pool.or(match dims.as_slice() {
            [_, _, _] if wanted.usual_pool => Some(Pool::First),
            [_, _, height, width] if wanted.usual_pool && height * width > 1 => Some(Pool::Mean),
            _ => None,
        });
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
        Ok((all, tensors, pool))
    }
}

/// Names that no exporter gives.
const TURNED: &str = "kinset/turned";
const FIRST: &str = "kinset/first";
const POOLED: &str = "kinset/pooled";
const FLAT: &str = "kinset/flat";

/// A graph with the numbers it reads.
pub(super) struct WithNumbers {
    pub(super) graph: Graph,
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

/// The shape that comes out of pictures of zeros, and its last side. Of two pictures, and of one: what takes one at a time says so.
pub(super) fn tried(all: &WithNumbers, picture: &Picture) -> Result<(Vec<usize>, usize)> {
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
