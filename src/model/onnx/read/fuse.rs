//! Operators that exporters spell out, as one again: GELU and layer norm.

use std::collections::BTreeSet;

use super::drawn::Drawn;
use kinset_artifact::graph::{Attribute, Node};

impl Drawn {
    /// Several operators that are one, as one.
    pub(super) fn fuse(&mut self, output: &str) {
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
}

/// The inputs of an operator of two that may change places, in the order in which the second is such a one.
fn ordered(node: &Node, is_second: impl Fn(&str) -> bool) -> Option<(&str, &str)> {
    let [a, b] = node.inputs.as_slice() else { return None };
    if is_second(b) { Some((a, b)) } else { is_second(a).then_some((b.as_str(), a.as_str())) }
}

fn last_mean(node: &Node) -> bool {
    node.operator == "ReduceMean" && node.ints("axes") == Some(&[-1]) && node.int("keepdims").unwrap_or(1) == 1
}
