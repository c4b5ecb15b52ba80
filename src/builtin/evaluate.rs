//! Scores of classifiers against labels. Ground truth is read here and in `knn_eval`, `linear_eval`, `distribution` and `probe` only.
//!
//! A row of k-means always stands beside the others: a learned result should be better than it. If
//! none is connected, one is fitted on the features of the first classifier's own encoder.

use kinset_artifact::encoder::{Classifier, HeadKind, Normalization};
use kinset_artifact::features::Features;
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_artifact::scores::{Protocol, ScoreRow, Scores};
use kinset_artifact::{Draft, Stored};
use kinset_base::seed::Seed;
use kinset_kernel::gemm::Gemm;
use kinset_math::calibration::{BINS, reliability};
use kinset_math::cosine;
use kinset_math::kmeans::KMeans;
use kinset_math::partition::{Classes, ClusterId, Clusters, Contingency};
use kinset_math::topk::argmax_rows;
use kinset_model::{ClassifierNet, EncoderNet, HeadChoice};
use kinset_stage::{Context, Either, NoSettings, Stage, StageError};
use kinset_train::feature_space::alone;
use kinset_train::image_loader::ImageLoader;
use kinset_train::infer::{self, Layer};

use super::classify::{Inputs, of_features, probabilities};

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// What is judged, in the order of the rows.
        classifiers: Vec<Stored<Classifier>>,
        /// `[N, H, W, C]`.
        images: Either<Stored<Images>>,
        /// `[N, D]` in place of them, as the heads read them; of several encoders in the order of training.
        features: Either<Vec<Stored<Features>>>,
        /// The ground truth of these images.
        labels: Stored<Labels>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// A row per classifier.
        scores: Draft<Scores>,
    }
}

/// Evaluation.
#[derive(Debug)]
pub struct Evaluate;

impl Stage for Evaluate {
    const KIND: &'static str = "evaluate";
    /// 3: says what was measured on what.
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "evaluate classifiers against labels: ACC, NMI, ARI, top-5, ECE, with k-means as baseline";
    const ON_DEVICE: bool = true;

    type Config = NoSettings;
    type In = In;
    type Out = Out;

    fn run(_: &NoSettings, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let labels = LabelTable::load(&input.labels)?;
        let classifiers = input.classifiers.iter().map(Classifier::load).collect::<Result<Vec<_>, _>>()?;
        let inputs = Inputs::of(&input.images, &input.features)?;
        let truth = truth_of(inputs.ids(), &labels)?;
        let said = inputs.said(&classifiers, &input.classifiers, cx)?;
        let mut rows = Vec::new();
        for (place, (classifier, p)) in classifiers.iter().zip(&said).enumerate() {
            // Names of stages are no part of a key, so they are no part of a result either: the report puts them in.
            cx.check()?;
            let row = row(format!("classifiers[{place}]"), classifier, p, &truth, labels.classes())?;
            rows.push(ScoreRow { measured: Some(input.classifiers[place].digest()), ..row });
        }
        let kmeans = classifiers.iter().any(|classifier| classifier.card.kind == HeadKind::Centroids);
        if let (false, Some(first)) = (kmeans, classifiers.first()) {
            let (baseline, p) = beside(&inputs, first, cx)?;
            let mut row = row("k-means".into(), &baseline, &p, &truth, labels.classes())?;
            row.notes.push("fitted on these images, on the features of the first classifier's encoder".into());
            rows.push(row);
        }
        let features = input.features.0.iter().flatten().map(Stored::digest);
        let protocol = Protocol {
            scored_on: input.images.0.iter().map(Stored::digest).chain(features).collect(),
            labels: Some(input.labels.digest()),
            matching: "one to one where there are as many classes as clusters or more (Hungarian), else by majority".into(),
        };
        Ok(Out { scores: Scores { protocol, rows }.save(&cx.out("scores")?)? })
    }
}

/// k-means for a classifier to stand beside, and what it says.
fn beside(inputs: &Inputs, first: &Classifier, cx: &Context<'_>) -> Result<(Classifier, Vec<f32>), StageError> {
    match inputs {
        Inputs::Images(images) => {
            let baseline = baseline(first, images, cx)?;
            let said = probabilities(&[&baseline], images, cx, |_| ())?.swap_remove(0);
            Ok((baseline, said))
        }
        Inputs::Features(table) => {
            let (body, normalization) = alone(table.dim, &cx.device)?;
            let baseline = fitted(&body, normalization, table.values.clone(), first.card.clusters, cx)?;
            let said = of_features(&baseline, "k-means", table, cx)?;
            Ok((baseline, said))
        }
    }
}

/// The labels in the order of the images.
///
/// # Errors
/// If the labels are not those of these images.
pub(super) fn truth_of(ids: &[String], labels: &LabelTable) -> Result<Vec<i32>, StageError> {
    if ids == labels.ids.as_slice() {
        return Ok(labels.labels.clone());
    }
    let by_id: std::collections::BTreeMap<&str, i32> =
        labels.ids.iter().map(String::as_str).zip(labels.labels.iter().copied()).collect();
    ids.iter()
        .map(|id| {
            by_id.get(id.as_str()).copied().ok_or_else(|| StageError::Mismatch {
                what: format!("the image `{id}`, and perhaps others, has no entry in the labels"),
                hint: "connect the labels of the same source as the images; imported features get its names if `import_features` has \
                       `images` connected"
                    .into(),
            })
        })
        .collect()
}

/// k-means on the features of a classifier's encoder.
fn baseline(classifier: &Classifier, images: &ImageSet, cx: &Context<'_>) -> Result<Classifier, StageError> {
    let card = &classifier.card.encoder;
    let loader =
        ImageLoader::like(images, card.architecture.channels, card.architecture.size, &card.normalization, &cx.device)?;
    let net = ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &cx.device)?;
    let encoder = net.encoder().without_projection()?;
    let features = infer::features(&encoder, Layer::Backbone, &loader, |_| cx.check())?;
    fitted(&encoder, card.normalization.clone(), features, classifier.card.clusters, cx)
}

/// k-means on features of an encoder.
fn fitted(
    encoder: &EncoderNet,
    normalization: Normalization,
    mut features: Vec<f32>,
    clusters: usize,
    cx: &Context<'_>,
) -> Result<Classifier, StageError> {
    // Rows that are all 0 stay where they are.
    let _ = cosine::normalize_rows(&mut features, encoder.dim());
    let clusters = clusters.min(features.len() / encoder.dim());
    let fit = KMeans::new(clusters).fit(&features, encoder.dim(), &Gemm, Seed::new(0).branch("evaluate"), &cx.stop)?;
    let net = ClassifierNet::from_centroids(encoder, &fit.centers, true, &cx.device)?;
    let choice = HeadChoice { head: 0, chosen_by: "least inertia of 10 starts".into(), losses: vec![fit.inertia] };
    Ok(Classifier { card: net.card(normalization, choice)?, tensors: net.to_tensors()? })
}

/// All measures of one classifier.
fn row(name: String, classifier: &Classifier, p: &[f32], truth: &[i32], classes: usize) -> Result<ScoreRow, StageError> {
    let clusters = classifier.card.clusters;
    let assigned: Vec<i32> = argmax_rows(p, clusters).into_iter().map(|cluster| cluster as i32).collect();
    let table = Contingency::new(Clusters { of_row: &assigned, count: clusters }, Classes { of_row: truth, count: classes });
    if table.total() == 0 {
        return Err(StageError::Mismatch {
            what: "none of the images has a label".into(),
            hint: "connect images with labels, or leave this stage out".into(),
        });
    }
    let majority = table.match_by_majority();
    let over = clusters > classes;
    let matching = if over { majority.clone() } else { table.match_one_to_one() };
    let mut notes = vec![format!("head chosen by {}", classifier.card.chosen_by)];
    if over {
        notes.push(format!("{clusters} clusters for {classes} classes: ACC names each cluster after its most frequent class"));
    }
    // Distances to centers are no probabilities.
    let ece = (classifier.card.kind != HeadKind::Centroids).then(|| {
        let named = matching.rename(&assigned);
        let known: Vec<usize> = (0..truth.len()).filter(|&r| truth[r] >= 0).collect();
        let confidence: Vec<f32> = known.iter().map(|&r| p[r * clusters + assigned[r] as usize]).collect();
        let correct: Vec<bool> = known.iter().map(|&r| named[r] == truth[r]).collect();
        reliability(&confidence, &correct, BINS).error
    });
    let mut confusion = vec![vec![0; clusters]; classes];
    for &(ClusterId(cluster), class, count) in table.cells() {
        confusion[class.0][cluster] = count;
    }
    Ok(ScoreRow {
        name,
        images: table.total() as usize,
        clusters,
        classes,
        acc: Some(table.accuracy(&matching)),
        nmi: Some(table.nmi()),
        ari: Some(table.ari()),
        top5: Some(matching.top_k_accuracy(p, Classes { of_row: truth, count: classes }, 5.min(clusters))),
        ece,
        majority: Some(table.accuracy(&majority)),
        matching: matching.pairs().map(|(cluster, class)| (cluster.0 as u32, class.0 as u32)).collect(),
        per_class: table.class_accuracies(&matching),
        confusion,
        cluster_sizes: table.cluster_sizes().to_vec(),
        notes,
        ..ScoreRow::default()
    })
}
