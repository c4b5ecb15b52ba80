//! Images, or features that were computed before, through a classifier, to assignments in Parquet: the result people came for.

use std::slice::from_ref;

use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_artifact::encoder::Classifier;
use kinset_artifact::features::Features;
use kinset_artifact::images::Images;
use kinset_artifact::{Draft, Stored};
use kinset_math::entropy;
use kinset_math::topk::top_k;
use kinset_stage::{Context, Either, NoSettings, Stage, StageError};

use super::classify::Inputs;

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, H, W, C]`.
        images: Either<Stored<Images>>,
        /// `[N, D]`, as the heads read them; of several encoders in the order of training.
        features: Either<Vec<Stored<Features>>>,
        /// Image, or features, → `[K]`.
        classifier: Stored<Classifier>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// Cluster, confidence, entropy and second cluster of every image.
        assignments: Draft<Assignments>,
    }
}

/// Prediction.
#[derive(Debug)]
pub struct Predict;

impl Stage for Predict {
    const KIND: &'static str = "predict";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "assign images to clusters with a classifier, with a confidence for each";
    const ON_DEVICE: bool = true;

    type Config = NoSettings;
    type In = In;
    type Out = Out;

    fn run(_: &NoSettings, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let classifier = Classifier::load(&input.classifier)?;
        let inputs = Inputs::of(&input.images, &input.features)?;
        let probabilities = inputs.said(from_ref(&classifier), from_ref(&input.classifier), cx)?.swap_remove(0);
        let table = assigned(inputs.ids().to_vec(), &probabilities, classifier.card.clusters);
        Ok(Out { assignments: table.save(&cx.out("assignments")?)? })
    }
}

/// Where images belong, from what a classifier says of them.
///
/// # Shapes
/// `probabilities`: `[N, K]`, row-major, K at least 2.
pub fn assigned(ids: Vec<String>, probabilities: &[f32], clusters: usize) -> AssignmentTable {
    let n = ids.len();
    let mut table = AssignmentTable {
        ids,
        clusters,
        cluster: Vec::with_capacity(n),
        confidence: Vec::with_capacity(n),
        entropy: entropy::entropy_rows(probabilities, clusters),
        second_cluster: Vec::with_capacity(n),
    };
    for row in probabilities.chunks_exact(clusters) {
        let best = top_k(row, 2);
        table.cluster.push(best[0] as i32);
        table.confidence.push(row[best[0]]);
        table.second_cluster.push(best[1] as i32);
    }
    table
}
