//! From pictures to features: what stands before a network, residual networks and AlexNet.

use super::graph::Sketch;
use super::messages::Attribute;
use super::messages::Node;
use super::transformer;
use crate::alexnet;
use crate::encoder::{alexnet, layout};
use crate::error::Result;
use crate::resnet::{Layout, Step};
use kinset_artifact::encoder::EncoderCard;
use kinset_artifact::graph::{Attribute as Setting, Graph};

/// What the backbone makes of pictures.
///
/// # Shapes
/// `images`: `[B, C, S, S]` of values 0–1. Gives `features`, `[B, D]`, not normalized.
pub(super) fn features(s: &mut Sketch, card: &EncoderCard, images: &str) -> Result<String> {
    let architecture = &card.architecture;
    let each = [1, architecture.channels, 1, 1];
    let mean = s.constant("mean", &each, &card.normalization.mean);
    let std = s.constant("std", &each, &card.normalization.std);
    let centred = s.node("Sub", "centred", &[images, &mean], Vec::new());
    let x = s.node("Div", "normalized", &[&centred, &std], Vec::new());
    if let Some(graph) = &architecture.graph {
        return Ok(foreign(s, graph, &x));
    }
    if let Some(layout) = alexnet(architecture) {
        return Ok(plain(s, &layout, x));
    }
    Ok(match (layout(architecture), &architecture.transformer) {
        (Some(layout), _) => residual(s, &layout, x),
        (None, Some(shape)) => transformer::features(s, architecture, shape, &x)?,
        (None, None) => flat(s, &x),
    })
}

/// Everything but the first axis as one.
fn flat(s: &mut Sketch, x: &str) -> String {
    s.node("Flatten", "features", &[x], vec![Attribute::int("axis", 1)])
}

/// Somebody's operators, each name of theirs behind `backbone.`, so that none of ours is taken.
fn foreign(s: &mut Sketch, graph: &Graph, images: &str) -> String {
    let named = |name: &str| match name {
        "" => String::new(),
        name if name == graph.input => images.to_owned(),
        name => format!("backbone.{name}"),
    };
    for (name, shape) in &graph.weights {
        s.weight(&named(name), shape);
    }
    for (name, whole) in &graph.whole {
        s.whole_of(&named(name), &whole.shape, &whole.values);
    }
    for node in &graph.nodes {
        let outputs: Vec<String> = node.outputs.iter().map(|name| named(name)).collect();
        let inputs: Vec<String> = node.inputs.iter().map(|name| named(name)).collect();
        // Set 17 has no such operator yet.
        if let ("Gelu", [x, ..], [output, ..]) = (node.operator.as_str(), inputs.as_slice(), outputs.as_slice()) {
            s.gelu(x, output);
            continue;
        }
        let attribute = node.attributes.iter().map(|(name, value)| match value {
            Setting::Float(_) | Setting::Int(_) if node.operator == "ConstantOfShape" => Attribute::number(name, value),
            Setting::Float(value) => Attribute::float(name, *value),
            Setting::Int(value) => Attribute::int(name, *value),
            Setting::Ints(values) => Attribute::signed(name, values),
            Setting::Text(text) => Attribute::text(name, text),
        });
        s.foreign(Node {
            name: outputs.first().cloned(),
            op_type: Some(node.operator.clone()),
            attribute: attribute.collect(),
            input: inputs,
            output: outputs,
            domain: None,
        });
    }
    flat(s, &named(&graph.output))
}

fn residual(s: &mut Sketch, layout: &Layout, x: String) -> String {
    let mut x = unit(s, &x, "backbone.", &layout.first());
    x = s.relu(&x, "backbone.relu");
    if let Some((kernel, stride, padding)) = layout.pool() {
        let attributes = vec![
            Attribute::ints("kernel_shape", &[kernel; 2]),
            Attribute::ints("pads", &[padding; 4]),
            Attribute::ints("strides", &[stride; 2]),
        ];
        x = s.node("MaxPool", "backbone.maxpool", &[&x], attributes);
    }
    for block in layout.residuals() {
        let prefix = format!("backbone.{}.", block.name);
        let mut y = x.clone();
        for (i, step) in block.steps.iter().enumerate() {
            y = unit(s, &y, &prefix, step);
            if i + 1 < block.steps.len() {
                y = s.relu(&y, &format!("{prefix}relu{}", i + 1));
            }
        }
        let around = match &block.shortcut {
            Some(step) => unit(s, &x, &prefix, step),
            None => x,
        };
        let sum = s.node("Add", &format!("{prefix}add"), &[&y, &around], Vec::new());
        x = s.relu(&sum, &format!("{prefix}relu"));
    }
    let pooled = s.node("GlobalAveragePool", "backbone.avgpool", &[&x], Vec::new());
    flat(s, &pooled)
}

/// AlexNet: convolutions with bias, batch norm, ReLU, poolings, and the two fully connected layers.
fn plain(s: &mut Sketch, layout: &alexnet::Layout, mut x: String) -> String {
    for (number, (step, pool)) in layout.steps().iter().enumerate() {
        let &Step { inputs, outputs, kernel, stride, padding, .. } = step;
        let name = format!("backbone.{}", step.conv);
        let weight = s.weight(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
        let bias = s.weight(&format!("{name}.bias"), &[outputs]);
        let window = |kernel: usize, stride: usize, padding: usize| {
            vec![
                Attribute::ints("kernel_shape", &[kernel; 2]),
                Attribute::ints("pads", &[padding; 4]),
                Attribute::ints("strides", &[stride; 2]),
            ]
        };
        x = s.node("Conv", &name, &[&x, &weight, &bias], window(kernel, stride, padding));
        x = s.batch_norm(&x, &format!("backbone.{}", step.norm), outputs);
        x = s.relu(&x, &format!("backbone.relu{}", number + 1));
        if let Some((kernel, stride)) = *pool {
            x = s.node("MaxPool", &format!("backbone.maxpool{}", number + 1), &[&x], window(kernel, stride, 0));
        }
    }
    let mut x = s.node("Flatten", "backbone.flatten", &[&x], vec![Attribute::int("axis", 1)]);
    for (name, [inputs, outputs]) in layout.dense().into_iter().flatten() {
        x = s.linear(&x, &format!("backbone.{name}.0"), inputs, outputs);
        x = s.batch_norm(&x, &format!("backbone.{name}.1"), outputs);
        x = s.relu(&x, &format!("backbone.{name}.relu"));
    }
    flat(s, &x)
}

/// A convolution and its batch norm.
fn unit(s: &mut Sketch, x: &str, prefix: &str, step: &Step) -> String {
    let &Step { inputs, outputs, kernel, stride, padding, .. } = step;
    let name = format!("{prefix}{}", step.conv);
    let weight = s.weight(&format!("{name}.weight"), &[outputs, inputs, kernel, kernel]);
    let attributes = vec![
        Attribute::ints("kernel_shape", &[kernel; 2]),
        Attribute::ints("pads", &[padding; 4]),
        Attribute::ints("strides", &[stride; 2]),
    ];
    let y = s.node("Conv", &name, &[x, &weight], attributes);
    s.batch_norm(&y, &format!("{prefix}{}", step.norm), outputs)
}
