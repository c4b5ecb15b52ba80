//! The graph of a file while it is read: what does not depend on the picture is computed.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::file::Values;
use super::numbers::{constant, setting, tensor};
use crate::error::{ModelError, Result};
use crate::graph::{Inputs, operator};
use crate::onnx::messages::{Node as GivenNode, Tensor as Numbers};
use crate::params::values;
use kinset_artifact::graph::{Attribute, Node};

/// A graph while it is read.
pub(super) struct Drawn {
    pub(super) nodes: Vec<Node>,
    pub(super) constants: BTreeMap<String, Tensor>,
}

impl Drawn {
    pub(super) fn of(initializers: Vec<Numbers>) -> Result<Self> {
        let mut constants = BTreeMap::new();
        for numbers in initializers {
            let name = numbers.name.clone().unwrap_or_default();
            constants.insert(name.clone(), tensor(&name, &numbers)?);
        }
        Ok(Self { nodes: Vec::new(), constants })
    }

    pub(super) fn reads(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.inputs.iter().any(|input| input == name))
    }

    /// Takes an operator: brought to the one set, and computed if all it reads is known.
    pub(super) fn take(&mut self, given: GivenNode, set: i64) -> Result<()> {
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

    pub(super) fn maker(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.outputs.first().is_some_and(|output| output == name))
    }

    pub(super) fn made_by(&self, name: &str, operator: &str) -> Option<&Node> {
        self.maker(name).filter(|node| {
            node.operator == operator && node.inputs.len() > usize::from(operator != "Erf" && operator != "Sqrt")
        })
    }

    pub(super) fn number(&self, name: &str) -> Option<f32> {
        let tensor = self.constants.get(name).filter(|tensor| tensor.dtype() == DType::F32 && tensor.elem_count() == 1)?;
        tensor.flatten_all().ok()?.to_vec1::<f32>().ok()?.first().copied()
    }

    /// The two inputs of an operator in the order in which the second is a known number.
    pub(super) fn with_number<'a>(&self, node: &'a Node) -> Option<(&'a str, f32)> {
        let [a, b] = node.inputs.as_slice() else { return None };
        self.number(b).map(|number| (a.as_str(), number)).or_else(|| Some((b.as_str(), self.number(a)?)))
    }

    /// What the first operators say of the values that are expected.
    pub(super) fn values(&self, input: &str) -> Values {
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
}
