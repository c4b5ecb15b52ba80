//! Images, or features that were computed before, through a classifier, to assignments in Parquet: the result people came for.

use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_artifact::encoder::Classifier;
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::{Draft, Stored};
use kinset_math::entropy;
use kinset_math::topk::top_k;
use kinset_model::ClassifierNet;
use kinset_stage::{Context, Either, NoSettings, Stage, StageError};
use kinset_train::feature_space::{heads_for, side_by_side};
use kinset_train::image_loader::ImageLoader;
use kinset_train::infer;

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
        let (ids, probabilities) = if let Some(features) = &input.features.0 {
            let table = side_by_side(features)?;
            let said = of_features(&classifier, input.classifier.origin(), &table, cx)?;
            (table.ids, said)
        } else {
            let Some(images) = &input.images.0 else { unreachable!("the plan connects one of both") };
            let images = ImageSet::open(images)?;
            let bar = cx.bar(images.len() as u64, "images");
            let said = probabilities(&[&classifier], &images, cx, |done| bar.advance(done as u64))?.swap_remove(0);
            (images.ids().to_vec(), said)
        };
        let table = assigned(ids, &probabilities, classifier.card.clusters);
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

/// What a classifier says of features.
///
/// # Shapes
/// Returns `[N, K]`, row-major; rows sum to 1.
///
/// # Errors
/// Features its heads do not read, or the run is to stop.
pub(super) fn of_features(
    classifier: &Classifier,
    origin: &str,
    table: &FeatureTable,
    cx: &Context<'_>,
) -> Result<Vec<f32>, StageError> {
    let net = heads_for(classifier, origin, table, &cx.device)?;
    infer::of_features(&net, classifier.card.head, &table.values, &cx.device, |_| cx.check())
}

/// What the chosen heads of classifiers on equal backbones say of images.
///
/// # Shapes
/// Returns `[N, K]` of each, row-major; rows sum to 1.
///
/// # Errors
/// If a classifier does not fit the images, or the run is to stop.
pub(super) fn probabilities(
    classifiers: &[&Classifier],
    images: &ImageSet,
    cx: &Context<'_>,
    mut done: impl FnMut(usize),
) -> Result<Vec<Vec<f32>>, StageError> {
    let Some(first) = classifiers.first() else { return Ok(Vec::new()) };
    let card = &first.card.encoder;
    let loader =
        ImageLoader::like(images, card.architecture.channels, card.architecture.size, &card.normalization, &cx.device)?;
    let net = |classifier: &&Classifier| ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &cx.device);
    let nets = classifiers.iter().map(net).collect::<Result<Vec<_>, _>>()?;
    let heads: Vec<_> = nets.iter().zip(classifiers).map(|(net, classifier)| (net, classifier.card.head)).collect();
    infer::predict_ensemble(&heads, &loader, |images| {
        done(images);
        cx.check()
    })
}
