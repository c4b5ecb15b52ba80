//! Two networks side by side as one.
//!
//! RUC's result is the sum of two networks' logits. Side by side they are one network twice as wide, whose halves do not see each
//! other: convolutions are block-diagonal, batch norms stand in a row, and the head adds up what both halves say. So the result is
//! a classifier like any other, and every stage that takes one takes it. The price is that zeros are multiplied too: it costs four
//! times what one network costs, not twice.

use kinset_artifact::encoder::{Classifier, ClassifierCard, EncoderCard, HeadKind, Tensors, Weights};
use kinset_model::{ModelError, architecture};

/// The convolution that reads the image, which both halves see.
const FIRST: &str = "backbone.conv1.weight";

/// One classifier whose logits are the sums of two classifiers' logits.
///
/// # Errors
/// If they are not two residual networks of one shape with a linear head each; if twice their width is more than is accepted.
pub fn side_by_side(one: &Classifier, other: &Classifier, chosen_by: String) -> Result<Classifier, ModelError> {
    let shape = &one.card.encoder.architecture;
    let plain = |card: &ClassifierCard| card.kind == HeadKind::Linear && card.hidden.is_none() && card.heads == 1;
    if other.card.encoder.architecture != *shape || shape.projection.is_some() || !plain(&one.card) || !plain(&other.card) {
        return Err(ModelError::Architecture {
            field: "network",
            found: format!("{:?} beside {:?}", shape, other.card.encoder.architecture),
            wanted: "two equal networks with a linear head each".into(),
        });
    }
    let wide = architecture(shape.backbone, shape.stem, 2 * shape.width, shape.channels, shape.size, None)?;
    let mut tensors = Tensors::default();
    for (name, first) in one.tensors.iter() {
        let second =
            other.tensors.get(name).filter(|second| second.shape == first.shape).ok_or_else(|| ModelError::Architecture {
                field: "network",
                found: format!("`{name}` is in one alone"),
                wanted: "equal ones".into(),
            })?;
        let Weights { shape, values } = match (first.shape.len(), name) {
            (2, _) => joined_rows(first, second),
            (1, name) if name.starts_with("cluster_head.") => summed(first, second),
            (4, name) if name != FIRST => blocks(first, second),
            _ => stacked(first, second),
        };
        tensors.insert(name, shape, values);
    }
    let encoder = EncoderCard { architecture: wide, ..one.card.encoder.clone() };
    Ok(Classifier { card: ClassifierCard { encoder, chosen_by, ..one.card.clone() }, tensors })
}

/// Outputs of the first, then of the second.
fn stacked(first: &Weights, second: &Weights) -> Weights {
    let mut shape = first.shape.clone();
    if let Some(outputs) = shape.first_mut() {
        *outputs *= 2;
    }
    Weights { shape, values: [first.values.as_slice(), &second.values].concat() }
}

/// Inputs of the first, then of the second, to the same outputs.
fn joined_rows(first: &Weights, second: &Weights) -> Weights {
    let (outputs, inputs) = (first.shape[0], first.shape[1]);
    let rows = first.values.chunks_exact(inputs).zip(second.values.chunks_exact(inputs));
    let values = rows.flat_map(|(a, b)| a.iter().chain(b).copied()).collect();
    Weights { shape: vec![outputs, 2 * inputs], values }
}

fn summed(first: &Weights, second: &Weights) -> Weights {
    let values = first.values.iter().zip(&second.values).map(|(a, b)| a + b).collect();
    Weights { shape: first.shape.clone(), values }
}

/// Each half from its own inputs to its own outputs, and zero between.
fn blocks(first: &Weights, second: &Weights) -> Weights {
    let mut shape = first.shape.clone();
    let row: usize = shape[1..].iter().product();
    let mut values = Vec::with_capacity(4 * first.values.len());
    for own in first.values.chunks_exact(row) {
        values.extend_from_slice(own);
        values.resize(values.len() + row, 0.0);
    }
    for own in second.values.chunks_exact(row) {
        values.resize(values.len() + row, 0.0);
        values.extend_from_slice(own);
    }
    shape[0] *= 2;
    shape[1] *= 2;
    Weights { shape, values }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::{Backbone, Normalization, Stem};
    use kinset_base::seed::Seed;
    use kinset_model::params::values;
    use kinset_model::testing::wave;
    use kinset_model::{ClassifierNet, EncoderNet, HeadChoice, Mode};

    fn one(backbone: Backbone, stem: Stem, channels: usize, seed: u64) -> (ClassifierNet, Classifier) {
        let shape = architecture(backbone, stem, 4, channels, 16, None).unwrap();
        let encoder = EncoderNet::init(&shape, Seed::new(seed), &Device::Cpu).unwrap();
        let net = ClassifierNet::init(&encoder, 5, 1, None, Seed::new(seed + 100), &Device::Cpu).unwrap();
        // Running statistics that are not those of a new network.
        net.features(&wave(&[6, channels, 16, 16], 0.1 * seed as f64, 0.3, 2.0), Mode::Train).unwrap();
        let normalization = Normalization::new(vec![0.0; channels], vec![1.0; channels]);
        let choice = HeadChoice { head: 0, chosen_by: "the only one".into(), losses: vec![] };
        let card = net.card(normalization, choice).unwrap();
        let tensors = net.to_tensors().unwrap();
        (net, Classifier { card, tensors })
    }

    #[test]
    fn the_sum_of_two_is_one_of_twice_the_width() {
        for (backbone, stem, channels) in [
            (Backbone::ResnetTiny, Stem::Cifar, 1),
            (Backbone::Resnet18, Stem::Stl, 3),
            (Backbone::Resnet50, Stem::Imagenet, 3),
            (Backbone::ResnetTiny, Stem::Strided, 3),
        ] {
            let ((first, a), (second, b)) = (one(backbone, stem, channels, 1), one(backbone, stem, channels, 2));
            let both = side_by_side(&a, &b, "both".into()).unwrap();
            let net = ClassifierNet::from_tensors(&both.card, &both.tensors, &Device::Cpu).unwrap();
            let images = wave(&[3, channels, 16, 16], 0.07, 0.1, 1.0);
            let logits =
                |net: &ClassifierNet| values(&net.logits(0, &net.features(&images, Mode::Eval).unwrap()).unwrap()).unwrap();
            let (sum, found) = (logits(&first).into_iter().zip(logits(&second)), logits(&net));
            for (found, (a, b)) in found.iter().zip(sum) {
                assert!((found - (a + b)).abs() < 2e-5 * (1.0 + found.abs()), "{backbone:?}: {found} is not {}", a + b);
            }
        }
    }

    #[test]
    fn networks_that_differ_are_refused() {
        let (_, a) = one(Backbone::ResnetTiny, Stem::Cifar, 1, 1);
        let (_, b) = one(Backbone::ResnetTiny, Stem::Strided, 1, 1);
        assert!(side_by_side(&a, &b, String::new()).is_err());
        let mut short = a.clone();
        short.tensors.remove("backbone.conv1.weight");
        assert!(side_by_side(&a, &short, String::new()).unwrap_err().to_string().contains("backbone.conv1.weight"));
    }
}
