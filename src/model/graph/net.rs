//! A graph, ready to run: its operators one after the other on groups of pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::inputs::Inputs;
use super::operators::operator;
use crate::error::{ModelError, Result};
use crate::init::Init;
use crate::params::Builder;
use kinset_artifact::graph::{Graph, Node};

/// Pictures that pass together.
const GROUP: usize = 4;

/// A graph, ready to run.
#[derive(Clone, Debug)]
pub(crate) struct GraphNet {
    graph: Arc<Graph>,
    /// Weights and whole numbers, by name.
    constants: Arc<BTreeMap<String, Tensor>>,
    /// Of each operator, what nobody needs after it.
    done: Arc<Vec<Vec<String>>>,
}

impl GraphNet {
    pub(crate) fn build(b: &mut Builder, graph: &Graph) -> Result<Self> {
        let mut constants = BTreeMap::new();
        for (name, shape) in &graph.weights {
            constants.insert(name.clone(), b.buffer(name, shape, Init::Zeros)?.as_detached_tensor());
        }
        for (name, whole) in &graph.whole {
            let tensor = Tensor::from_slice(&whole.values, whole.shape.as_slice(), &Device::Cpu)?;
            constants.insert(name.clone(), tensor);
        }
        Ok(Self::over(graph.clone(), constants))
    }

    /// A graph and its numbers.
    pub(crate) fn over(graph: Graph, constants: BTreeMap<String, Tensor>) -> Self {
        let mut done = vec![Vec::new(); graph.nodes.len()];
        let mut seen = BTreeSet::from([graph.output.as_str()]);
        for (node, done) in graph.nodes.iter().zip(&mut done).rev() {
            let last = node.inputs.iter().chain(&node.outputs).filter(|name| seen.insert(name));
            *done = last.cloned().collect();
        }
        Self { graph: Arc::new(graph), constants: Arc::new(constants), done: Arc::new(done) }
    }

    /// # Shapes
    /// `images`: `[B, C, S, S]`. Returns what the graph makes of them, B of it.
    pub(crate) fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let batch = images.dim(0)?;
        let group = if self.graph.alone { 1 } else { GROUP };
        let starts: Vec<usize> = (0..batch).step_by(group).collect();
        let run = |&start: &usize| self.group(&images.narrow(0, start, group.min(batch - start))?.contiguous()?);
        let parts = if images.device().is_cpu() {
            starts.par_iter().map(run).collect::<Result<Vec<_>>>()?
        } else {
            starts.iter().map(run).collect::<Result<Vec<_>>>()?
        };
        Ok(Tensor::cat(&parts, 0)?)
    }

    fn group(&self, images: &Tensor) -> Result<Tensor> {
        let mut made: BTreeMap<&str, Tensor> = BTreeMap::from([(self.graph.input.as_str(), images.clone())]);
        for (node, done) in self.graph.nodes.iter().zip(self.done.iter()) {
            let failed = |what: String| ModelError::Operator { operator: node.operator.clone(), name: first(node), what };
            let of = |name: &String| made.get(name.as_str()).or_else(|| self.constants.get(name));
            if let Some(missing) = node.inputs.iter().find(|name| !name.is_empty() && of(name).is_none()) {
                return Err(failed(format!("its input `{missing}` is made nowhere")));
            }
            let inputs: Vec<Option<&Tensor>> = node.inputs.iter().map(of).collect();
            let outputs = operator(node, &Inputs(&inputs), images.device()).map_err(|why| failed(why.to_string()))?;
            for (name, output) in node.outputs.iter().zip(outputs) {
                made.insert(name, output);
            }
            for name in done {
                made.remove(name.as_str());
            }
        }
        let output = made.remove(self.graph.output.as_str()).or_else(|| self.constants.get(&self.graph.output).cloned());
        output.ok_or_else(|| ModelError::Input { wanted: format!("an output `{}`", self.graph.output), found: Vec::new() })
    }
}

fn first(node: &Node) -> String {
    node.outputs.first().cloned().unwrap_or_default()
}
