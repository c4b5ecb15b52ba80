//! Linear heads that begin where other clusterings are: logistic regression of their clusters on the features that the heads read.
//!
//! Heads take the clusterings in turn. The first head of each is fitted to all images, each further one to as many that are drawn with
//! replacement (a bootstrap sample, of a branch of the seed per head): the heads of one clustering say nearly the same and differ where
//! it is uncertain, so that there is something to choose from after training.

use candle_core::Tensor;

use super::feature_space::{Centering, heads_for};
use super::image_loader::ImageLoader;
use super::infer;
use super::input_cache::encode;
use kinset_artifact::Stored;
use kinset_artifact::encoder::{Backbone, Classifier, Normalization};
use kinset_artifact::features::FeatureTable;
use kinset_artifact::images::ImageSet;
use kinset_base::seed::Seed;
use kinset_kernel::gemm::Gemm;
use kinset_math::logistic::Logistic;
use kinset_math::topk::argmax_rows;
use kinset_model::{ClassifierNet, HeadsShape, ModelError};
use kinset_stage::{Context, StageError};

/// As in spectral clustering, whose head is made the same way.
pub const FIT: Logistic = Logistic::new(1e-3);

/// Below this share of images on which the first head and the clustering agree, the features do not carry it.
const AGREE: f64 = 0.8;

/// The clusters that a classifier sorts images into.
#[derive(Clone, Debug)]
pub struct Start {
    /// `[N]`.
    labels: Vec<u32>,
    /// The stage it comes from.
    origin: String,
}

impl Start {
    /// Of images, given as the features that the classifier's heads read.
    ///
    /// # Errors
    /// Other clusters than the heads will have, a hidden layer in these, features that the classifier does not read.
    pub fn of_features(
        stored: &Stored<Classifier>,
        table: &FeatureTable,
        shape: HeadsShape,
        cx: &Context<'_>,
    ) -> Result<Self, StageError> {
        let classifier = fitting(stored, shape)?;
        let net = heads_for(&classifier, stored.origin(), table, &cx.device)?;
        let said = infer::of_features(&net, classifier.card.head, &table.values, &cx.device, |_| cx.check())?;
        Ok(Self::of(&said, stored, shape))
    }

    /// Gives the heads of a network the clusters of classifiers of the images that it will be trained on.
    ///
    /// # Errors
    /// As [`Start::of_features`]; images that an encoder does not read, features that are the same for all images.
    pub fn begin(
        stored: &[Stored<Classifier>],
        images: &ImageSet,
        (net, hidden): (&ClassifierNet, Option<usize>),
        normalization: &Normalization,
        cx: &Context<'_>,
    ) -> Result<(), StageError> {
        let shape = HeadsShape::linear(net.clusters(), net.heads(), hidden);
        let starts = stored.iter().map(|start| Self::of_images(start, images, shape, cx)).collect::<Result<Vec<_>, _>>()?;
        let (channels, size) = (net.encoder().architecture().channels, net.encoder().architecture().size);
        let loader = ImageLoader::like(images, channels, size, normalization, &cx.device)?;
        Self::distill(&starts, net, encode(net.encoder(), &loader, cx)?, cx.seed, cx)
    }

    /// Of images, plain, through the classifier's own encoder.
    ///
    /// # Errors
    /// As [`Start::of_features`]; images that the encoder does not read.
    fn of_images(
        stored: &Stored<Classifier>,
        images: &ImageSet,
        shape: HeadsShape,
        cx: &Context<'_>,
    ) -> Result<Self, StageError> {
        let classifier = fitting(stored, shape)?;
        let encoder = &classifier.card.encoder;
        if encoder.architecture.backbone == Backbone::Features {
            return Err(ModelError::NoImages.into());
        }
        let (channels, size) = (encoder.architecture.channels, encoder.architecture.size);
        let loader = ImageLoader::like(images, channels, size, &encoder.normalization, &cx.device)?;
        let net = ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &cx.device)?;
        let bar = cx.bar(images.len() as u64, "images sorted");
        let said = infer::probabilities(&net, &[classifier.card.head], &loader, |done| {
            bar.advance(done as u64);
            cx.check()
        })?;
        Ok(Self::of(&said[0], stored, shape))
    }

    fn of(said: &[f32], stored: &Stored<Classifier>, shape: HeadsShape) -> Self {
        let labels = argmax_rows(said, shape.clusters).into_iter().map(|label| label as u32).collect();
        Self { labels, origin: stored.origin().to_owned() }
    }

    /// Gives the heads of a network the clusters of `starts`, in turn.
    ///
    /// # Shapes
    /// `rows`: `[N, D]`, the images as the heads read them.
    ///
    /// # Errors
    /// Features that are the same for all images; the run is to stop.
    pub fn distill(
        starts: &[Self],
        net: &ClassifierNet,
        mut rows: Vec<f32>,
        seed: Seed,
        cx: &Context<'_>,
    ) -> Result<(), StageError> {
        let Some(first) = starts.first() else { return Ok(()) };
        let (images, clusters, dim) = (first.labels.len(), net.clusters(), rows.len() / first.labels.len());
        let centering = Centering::of(&rows, dim).ok_or_else(|| StageError::Mismatch {
            what: format!("all images have the same features, so no head can tell the clusters of `{}` apart", first.origin),
            hint: "check the encoder".into(),
        })?;
        centering.apply(&mut rows);
        let bar = cx.bar(net.heads() as u64, "heads started");
        for head in 0..net.heads() {
            let start = &starts[head % starts.len()];
            let fit = if head < starts.len() {
                FIT.fit(&rows, dim, &start.labels, clusters, &Gemm, &cx.stop)?
            } else {
                let mut rng = seed.branch("start").at(head as u64).rng();
                let drawn: Vec<usize> = (0..images).map(|_| rng.below(images)).collect();
                let labels: Vec<u32> = drawn.iter().map(|&row| start.labels[row]).collect();
                let sample: Vec<f32> = drawn.iter().flat_map(|&row| &rows[row * dim..(row + 1) * dim]).copied().collect();
                FIT.fit(&sample, dim, &labels, clusters, &Gemm, &cx.stop)?
            };
            if head < starts.len() {
                start.tell(fit.agreement(&rows, dim, &start.labels, &Gemm), cx);
            }
            let (weight, bias) = centering.plain_layer(&fit.weight, &fit.bias);
            for (name, values, shape) in [("weight", weight, vec![clusters, dim]), ("bias", bias, vec![clusters])] {
                let Some(var) = net.params().get(&format!("cluster_head.{head}.{name}")) else {
                    unreachable!("heads with a hidden layer were refused")
                };
                var.set(&Tensor::from_vec(values, shape, var.device())?)?;
            }
            bar.advance(1);
        }
        Ok(())
    }

    /// Says for which share of the images a head begins with the clusters of this start.
    fn tell(&self, share: f64, cx: &Context<'_>) {
        let text = format!(
            "a head that begins with the clusters of `{}` gives {:.1} % of the images the same",
            self.origin,
            100.0 * share
        );
        if share < AGREE {
            cx.warn(format!("{text}: these features do not carry its clusters; start from one that was found on them"));
        } else {
            cx.note(text);
        }
    }
}

/// The classifier, if linear heads of this shape can begin with its clusters.
fn fitting(stored: &Stored<Classifier>, shape: HeadsShape) -> Result<Classifier, StageError> {
    let (classifier, origin) = (Classifier::load(stored)?, stored.origin());
    if let Some(hidden) = shape.hidden {
        return Err(StageError::Mismatch {
            what: format!("`hidden` is {hidden}, and only linear heads can begin with the clusters of `{origin}`"),
            hint: "leave out `hidden`, or `start`".into(),
        });
    }
    let found = classifier.card.clusters;
    if found != shape.clusters {
        return Err(StageError::Mismatch {
            what: format!("`clusters` is {}, and `start`, `{origin}`, has {found}", shape.clusters),
            hint: format!("set `clusters = {found}`, or connect a start of {} clusters", shape.clusters),
        });
    }
    Ok(classifier)
}
