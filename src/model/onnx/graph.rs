//! A graph while it is drawn: operators in the order of their work, and the numbers they read.
//!
//! Every operator gives one tensor, called like itself. Numbers of the network keep the names they have in its own file; each may be
//! read once, and none may be left over, so that a network that is drawn in part is an error.

use super::messages::{Attribute, Graph, Node, Tensor};
use crate::error::{Mismatch, Result};
use kinset_artifact::encoder::{Tensors, Weights};

/// The shortest length that is divided by, as in `kernel::l2_normalize`.
const SHORTEST: f32 = 1e-12;

/// Operators and numbers so far.
#[derive(Debug)]
pub(super) struct Sketch {
    nodes: Vec<Node>,
    numbers: Vec<Tensor>,
    left: Tensors,
    mismatch: Mismatch,
}

impl Sketch {
    /// Nothing yet, of a network with these numbers.
    pub(super) fn new(tensors: Tensors) -> Self {
        Self { nodes: Vec::new(), numbers: Vec::new(), left: tensors, mismatch: Mismatch::default() }
    }

    /// An operator. Returns the name of what it gives, which is its own.
    pub(super) fn node(&mut self, operator: &str, name: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        self.nodes.push(Node {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![name.to_owned()],
            name: Some(name.to_owned()),
            op_type: Some(operator.to_owned()),
            attribute,
            domain: None,
        });
        name.to_owned()
    }

    /// An operator of another's graph, which may give several tensors.
    pub(super) fn foreign(&mut self, node: Node) {
        self.nodes.push(node);
    }

    /// A tensor of the network, as it is. Returns its name.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> String {
        if let Some(values) = self.take(name, shape) {
            self.numbers.push(Tensor::floats(name, shape, &values));
        }
        name.to_owned()
    }

    /// A tensor of the network that becomes part of another; none if it is not there in this shape.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Option<Vec<f32>> {
        match self.left.remove(name) {
            Some(Weights { shape: found, values }) if found == shape => return Some(values),
            Some(Weights { shape: found, .. }) => self.mismatch.misshapen.push((name.to_owned(), shape.to_vec(), found)),
            None => self.mismatch.missing.push(name.to_owned()),
        }
        None
    }

    /// A tensor that is still there.
    pub(super) fn look(&self, name: &str) -> Option<&Weights> {
        self.left.get(name)
    }

    /// A tensor that this graph has no use for.
    pub(super) fn leave_out(&mut self, name: &str) {
        self.left.remove(name);
    }

    /// Numbers that no training moved. One name means the same numbers wherever it is used.
    pub(super) fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.once(Tensor::floats(name, shape, values))
    }

    /// The same, of whole numbers in a row.
    pub(super) fn whole(&mut self, name: &str, values: &[i64]) -> String {
        self.once(Tensor::ints(name, &[values.len()], values))
    }

    /// The same, in a shape.
    pub(super) fn whole_of(&mut self, name: &str, shape: &[usize], values: &[i64]) {
        self.once(Tensor::ints(name, shape, values));
    }

    /// The same, a single one without an axis.
    pub(super) fn index(&mut self, name: &str, value: i64) -> String {
        self.once(Tensor::ints(name, &[], &[value]))
    }

    fn once(&mut self, tensor: Tensor) -> String {
        let name = tensor.name.clone().unwrap_or_default();
        if !self.numbers.iter().any(|known| known.name == tensor.name) {
            self.numbers.push(tensor);
        }
        name
    }

    /// Weights times input plus bias, `[B, inputs]` → `[B, outputs]`.
    pub(super) fn linear(&mut self, x: &str, name: &str, inputs: usize, outputs: usize) -> String {
        let weight = self.weight(&format!("{name}.weight"), &[outputs, inputs]);
        let bias = self.weight(&format!("{name}.bias"), &[outputs]);
        self.node("Gemm", name, &[x, &weight, &bias], vec![Attribute::int("transB", 1)])
    }

    /// The same without a bias.
    pub(super) fn product(&mut self, x: &str, name: &str, inputs: usize, outputs: usize) -> String {
        let weight = self.weight(&format!("{name}.weight"), &[outputs, inputs]);
        self.node("Gemm", name, &[x, &weight], vec![Attribute::int("transB", 1)])
    }

    /// Batch norm by the running statistics, over the second axis.
    pub(super) fn batch_norm(&mut self, x: &str, name: &str, channels: usize) -> String {
        let parts = ["weight", "bias", "running_mean", "running_var"];
        let [weight, bias, mean, variance] = parts.map(|part| self.weight(&format!("{name}.{part}"), &[channels]));
        let epsilon = Attribute::float("epsilon", crate::norm::EPSILON as f32);
        self.node("BatchNormalization", name, &[x, &weight, &bias, &mean, &variance], vec![epsilon])
    }

    pub(super) fn relu(&mut self, x: &str, name: &str) -> String {
        self.node("Relu", name, &[x], Vec::new())
    }

    /// x · Φ(x), in the five operators that runtimes know as one.
    pub(super) fn gelu(&mut self, x: &str, name: &str) -> String {
        let root = self.constant("root_of_two", &[], &[std::f32::consts::SQRT_2]);
        let (one, half) = (self.constant("one", &[], &[1.0]), self.constant("half", &[], &[0.5]));
        let scaled = self.node("Div", &format!("{name}.scaled"), &[x, &root], Vec::new());
        let erf = self.node("Erf", &format!("{name}.erf"), &[&scaled], Vec::new());
        let twice = self.node("Add", &format!("{name}.twice"), &[&erf, &one], Vec::new());
        let product = self.node("Mul", &format!("{name}.product"), &[x, &twice], Vec::new());
        self.node("Mul", name, &[&product, &half], Vec::new())
    }

    /// Rows of a table at unit length. A row of zeros stays one.
    pub(super) fn unit(&mut self, x: &str, name: &str) -> String {
        let shortest = self.constant("shortest", &[], &[SHORTEST]);
        let attributes = vec![Attribute::ints("axes", &[1]), Attribute::int("keepdims", 1)];
        let length = self.node("ReduceL2", &format!("{name}.length"), &[x], attributes);
        let divisor = self.node("Max", &format!("{name}.divisor"), &[&length, &shortest], Vec::new());
        self.node("Div", name, &[x, &divisor], Vec::new())
    }

    /// Whether all that was asked for was there.
    pub(super) fn check(&self) -> Result<()> {
        self.mismatch.clone().check()
    }

    /// The graph, without what goes in and comes out.
    ///
    /// # Errors
    /// [`ModelError::Weights`](crate::ModelError::Weights) with all that is missing, left over or of another shape.
    pub(super) fn finish(mut self) -> Result<Graph> {
        self.mismatch.unexpected.extend(self.left.names().map(str::to_owned));
        self.mismatch.check()?;
        Ok(Graph { node: self.nodes, initializer: self.numbers, ..Graph::default() })
    }
}
