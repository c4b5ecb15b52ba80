//! Operators of heads: a pretext's projection, and the heads that give clusters.

use super::graph::Sketch;
use super::messages::{Attribute, Tensor};
use kinset_artifact::encoder::{Architecture, ClassifierCard, HeadKind, Projection, ProjectionKind, Weights};

/// The name of a classifier's answer: probabilities, `[B, K]`.
pub(super) const PROBABILITIES: &str = "probabilities";
/// The name of the most probable, `[B]`.
pub(super) const CLUSTER: &str = "cluster";

/// What the projection head makes of features, at unit length, if there is one; else the features.
///
/// # Shapes
/// `[B, D]` → `[B, P]`, called `name`.
pub(super) fn projected(s: &mut Sketch, architecture: &Architecture, features: &str, name: &str) -> Option<String> {
    let Projection { kind, dim } = architecture.projection?;
    let (inputs, head) = (architecture.features, "contrastive_head");
    let layer = |number: usize| format!("{head}.{number}");
    let out = match kind {
        ProjectionKind::Linear => s.linear(features, head, inputs, dim),
        ProjectionKind::Mlp => {
            let hidden = s.linear(features, &layer(0), inputs, inputs);
            let hidden = s.relu(&hidden, &layer(1));
            s.linear(&hidden, &layer(2), inputs, dim)
        }
        ProjectionKind::MlpNorm => {
            let hidden = s.linear(features, &layer(0), inputs, inputs);
            let hidden = s.batch_norm(&hidden, &layer(1), inputs);
            let hidden = s.relu(&hidden, &layer(2));
            s.linear(&hidden, &layer(3), inputs, dim)
        }
    };
    Some(s.unit(&out, name))
}

/// The answer of the head that counts, or of all where they decide together.
///
/// # Shapes
/// `features`: what the heads read, `[B, D]`. Gives [`PROBABILITIES`] and [`CLUSTER`].
pub(super) fn decided(s: &mut Sketch, card: &ClassifierCard, features: &str) {
    let read = if card.normalize_features { s.unit(features, "unit") } else { features.to_owned() };
    let last = |s: &mut Sketch, logits: &str, name: &str| s.node("Softmax", name, &[logits], vec![Attribute::int("axis", 1)]);
    if card.committee && card.heads > 1 {
        let votes: Vec<String> = (0..card.heads)
            .map(|head| {
                let logits = logits(s, card, &read, head);
                last(s, &logits, &format!("cluster_head.{head}.probabilities"))
            })
            .collect();
        let votes: Vec<&str> = votes.iter().map(String::as_str).collect();
        s.node("Mean", PROBABILITIES, &votes, Vec::new());
    } else {
        let logits = logits(s, card, &read, card.head);
        last(s, &logits, PROBABILITIES);
    }
    s.node("ArgMax", CLUSTER, &[PROBABILITIES], vec![Attribute::int("axis", 1), Attribute::int("keepdims", 0)]);
    // Heads that were not chosen.
    for (name, _) in card.head_parameters() {
        s.leave_out(&name);
    }
}

fn logits(s: &mut Sketch, card: &ClassifierCard, x: &str, head: usize) -> String {
    let (clusters, dim) = (card.clusters, card.encoder.architecture.output());
    let name = format!("cluster_head.{head}");
    let part = |part: &str| format!("{name}.{part}");
    match (card.kind, card.hidden) {
        (HeadKind::Linear, None) => s.linear(x, &name, dim, clusters),
        (HeadKind::Linear, Some(hidden)) => {
            let y = s.linear(x, &part("0"), dim, hidden);
            let y = s.relu(&y, &part("1"));
            s.linear(&y, &part("2"), hidden, clusters)
        }
        (HeadKind::Bottleneck, hidden) => {
            let (hidden, narrow) = (hidden.unwrap_or_default(), card.bottleneck.unwrap_or_default());
            let y = s.linear(x, &part("0"), dim, hidden);
            let y = s.gelu(&y, &part("1"));
            let y = s.linear(&y, &part("2"), hidden, narrow);
            let y = s.unit(&y, &part("unit"));
            s.product(&y, &part("last"), narrow, clusters)
        }
        // Minus the squared distance, but for |x|², which is the same for all clusters and does not move the probabilities.
        (HeadKind::Centroids, _) => {
            let lengths: Vec<f32> = match s.look("centroids") {
                Some(Weights { values, .. }) => values.chunks(dim.max(1)).map(minus_square).collect(),
                None => Vec::new(),
            };
            let centroids = s.weight("centroids", &[clusters, dim]);
            let bias = s.constant("centroids.bias", &[lengths.len()], &lengths);
            let attributes = vec![Attribute::float("alpha", 2.0), Attribute::int("transB", 1)];
            s.node("Gemm", "centroids.nearness", &[x, &centroids, &bias], attributes)
        }
    }
}

fn minus_square(row: &[f32]) -> f32 {
    -row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() as f32
}

/// The number type of an answer.
pub(super) fn number(answer: &str) -> i32 {
    if answer == CLUSTER { Tensor::INT64 } else { Tensor::FLOAT }
}
