//! Classifiers against labels: the only place, with `knn_eval`, where ground truth is read.
//!
//! A row of k-means always stands beside the others: a learned result that does not beat it is not worth its electricity. If
//! none is connected, one is fitted on the features of the first classifier's own encoder.

use crate::artifact::encoder::{Classifier, HeadKind};
use crate::artifact::images::{ImageSet, Images};
use crate::artifact::labels::{LabelTable, Labels};
use crate::artifact::scores::{Protocol, ScoreRow, Scores};
use crate::artifact::{Draft, Stored};
use crate::base::seed::Seed;
use crate::kernel::product::Gemm;
use crate::math::calibration::{BINS, reliability};
use crate::math::cosine;
use crate::math::kmeans::KMeans;
use crate::math::partition::{Classes, ClusterId, Clusters, Contingency};
use crate::math::topk::argmax_rows;
use crate::model::{ClassifierNet, HeadChoice};
use crate::stage::contract::NoSettings;
use crate::stage::{Context, Stage, StageError};
use crate::train::feed::Feed;
use crate::train::infer::{self, Layer};

use super::predict::probabilities;

crate::ports! {
    /// What it reads.
    pub struct In {
        /// What is judged, in the order of the rows.
        classifiers: Vec<Stored<Classifier>>,
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// The ground truth of these images.
        labels: Stored<Labels>,
    }
}

crate::outputs! {
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
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "measure classifiers against labels: ACC, NMI, ARI, top-5, ECE, k-means beside";
    const ON_DEVICE: bool = true;

    type Config = NoSettings;
    type In = In;
    type Out = Out;

    fn run(_: &NoSettings, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let images = ImageSet::open(&input.images)?;
        let labels = LabelTable::load(&input.labels)?;
        let truth = truth_of(images.ids(), &labels)?;
        let bar = cx.bar((images.len() * input.classifiers.len()) as u64, "images");
        let (mut rows, mut kmeans) = (Vec::new(), false);
        for (place, stored) in input.classifiers.iter().enumerate() {
            let classifier = Classifier::load(stored)?;
            kmeans |= classifier.card.kind == HeadKind::Centroids;
            let p = probabilities(&classifier, &images, cx, |done| bar.advance(done as u64))?;
            // Names of stages are no part of a key, so they are no part of a result either: the report puts them in.
            rows.push(row(format!("classifiers[{place}]"), &classifier, &p, &truth, labels.classes())?);
        }
        if let (false, Some(first)) = (kmeans, input.classifiers.first()) {
            let baseline = baseline(&Classifier::load(first)?, &images, cx)?;
            let p = probabilities(&baseline, &images, cx, |_| ())?;
            let mut row = row("k-means".into(), &baseline, &p, &truth, labels.classes())?;
            row.notes.push("fitted on these images, on the features of the first classifier's encoder".into());
            rows.push(row);
        }
        let protocol = Protocol {
            matching: "one to one where there are as many classes as clusters or more (Hungarian), else by majority".into(),
            ..Protocol::default()
        };
        Ok(Out { scores: Scores { protocol, rows }.save(&cx.out("scores")?)? })
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
                what: format!("the labels say nothing of the image `{id}`, and perhaps of others"),
                hint: "connect the labels of the same source as the images".into(),
            })
        })
        .collect()
}

/// k-means on the features of a classifier's encoder.
fn baseline(classifier: &Classifier, images: &ImageSet, cx: &Context<'_>) -> Result<Classifier, StageError> {
    let card = &classifier.card.encoder;
    let feed = Feed::like(images, card.architecture.channels, card.architecture.size, &card.normalization, &cx.device)?;
    let net = ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &cx.device)?;
    let encoder = net.encoder().without_projection()?;
    let mut features = infer::features(&encoder, Layer::Backbone, &feed, |_| cx.check())?;
    // Rows that are all 0 stay where they are.
    let _ = cosine::normalize_rows(&mut features, encoder.dim());
    let clusters = classifier.card.clusters.min(images.len());
    let fit = KMeans::new(clusters).fit(&features, encoder.dim(), &Gemm, Seed::new(0).branch("evaluate"));
    let net = ClassifierNet::from_centroids(&encoder, &fit.centers, true, &cx.device)?;
    let choice = HeadChoice { head: 0, chosen_by: "least inertia of 10 starts".into(), losses: vec![fit.inertia] };
    Ok(Classifier { card: net.card(card.normalization.clone(), choice)?, tensors: net.to_tensors()? })
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
