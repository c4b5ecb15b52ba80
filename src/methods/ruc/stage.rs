//! RUC's ports and card, and the way from a classifier to a better one: see [`Ruc::CARD`].

use super::ensemble::side_by_side;
use super::pair::{Pair, PseudoLabels};
use super::sampling::split;
use super::settings::{Config, Head};
use kinset_artifact::curve::{Curve, Point};
use kinset_artifact::encoder::{Classifier, HeadKind};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::{Draft, Stored};
use kinset_model::{ClassifierNet, HeadChoice};
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::course::LEAST_BATCH;
use kinset_train::neighbor_pairs::check_same_images;
use kinset_train::{ImageLoader, Paced, infer, train};

kinset_stage::ports! {
    /// What RUC reads.
    pub label_free struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// Whose chosen head gives the first labels, and whose backbone the networks start from.
        classifier: Stored<Classifier>,
        /// `[N, M]`, mined on features of the same images that saw no clustering.
        neighbors: Stored<Neighbors>,
    }
}

kinset_stage::outputs! {
    /// What RUC writes.
    pub struct Out {
        /// Both networks as one, twice as wide: their logits added up.
        classifier: Draft<Classifier>,
        /// The first network alone.
        first: Draft<Classifier>,
        /// The second network alone.
        second: Draft<Classifier>,
        /// Losses, sizes of the split, agreement and confidence per epoch; at step 0 the split before training.
        curve: Draft<Curve>,
    }
}

#[derive(Debug)]
pub struct Ruc;

impl Stage for Ruc {
    const KIND: &'static str = "ruc";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "retrain a clustering as if its labels were noisy, with two networks";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let images = ImageSet::open(&input.images)?;
        let course = config.course(images.len(), LEAST_BATCH, cx)?;
        let classifier = Classifier::load(&input.classifier)?;
        let neighbors = NeighborTable::load(&input.neighbors)?;
        fits(&images, &classifier, &neighbors, &input)?;
        if config.head == Head::Kept {
            keeps(&classifier, &input)?;
        }
        let (card, clusters) = (&classifier.card, classifier.card.clusters);
        let architecture = &card.encoder.architecture;
        let loader =
            ImageLoader::like(&images, architecture.channels, architecture.size, &card.encoder.normalization, &cx.device)?;
        let base = ClassifierNet::from_tensors(card, &classifier.tensors, &cx.device)?;

        let bar = cx.bar(images.len() as u64, "images split");
        let mut said = infer::probabilities(&base, &[card.head], &loader, |done| {
            bar.advance(done as u64);
            cx.check()
        })?;
        drop(bar);
        let split = split(&said.swap_remove(0), clusters, &neighbors, config)?;
        cx.note(format!(
            "{} of {} images keep their label: {} are confident, {} agree with their neighbors, {} do both",
            split.clean_images(),
            images.len(),
            split.confident,
            split.agreeing,
            split.both
        ));
        if split.lost_clusters > 0 && config.head == Head::New {
            cx.warn(format!(
                "{} of {clusters} clusters have no image that keeps its label, and new heads cannot learn them; \
                 `sampling = \"metric\"` or a lower `confidence_threshold` may help",
                split.lost_clusters
            ));
        }
        if split.clean_images() == images.len() {
            cx.warn("every image keeps its label, so none is treated as noisy; a higher `confidence_threshold` may help");
        }
        let mut points: Vec<Point> = [
            ("clean", split.clean_images()),
            ("confident", split.confident),
            ("agreeing", split.agreeing),
            ("confident_and_agreeing", split.both),
        ]
        .map(|(name, count)| Point { step: 0, name: name.into(), value: count as f64 })
        .into();

        let labels = PseudoLabels { label: split.label, clean: split.clean };
        let mut pair = Pair::new((config, course), loader, &base.keep_head(card.head)?, labels, cx.seed, &cx.device, &cx.stop)?;
        points.extend(train(&mut pair, cx)?);
        let empty = pair.sizes.empty().len();
        if empty > 0 {
            cx.warn(format!("{empty} of {clusters} clusters are empty"));
        }
        let alone = |net: &ClassifierNet| -> Result<Classifier, StageError> {
            let choice = HeadChoice { head: 0, chosen_by: "the only head; last epoch".into(), losses: Vec::new() };
            Ok(Classifier { card: net.card(card.encoder.normalization.clone(), choice)?, tensors: net.to_tensors()? })
        };
        let [first, second] = pair.nets();
        let (first, second) = (alone(first)?, alone(second)?);
        let both = side_by_side(&first, &second, "nothing to choose: both networks of the last epoch, logits added".into())?;
        Ok(Out {
            classifier: both.save(&cx.out("classifier")?)?,
            first: first.save(&cx.out("first")?)?,
            second: second.save(&cx.out("second")?)?,
            curve: Curve { points }.save(&cx.out("curve")?)?,
        })
    }
}

/// What can be said against the inputs before any work.
fn fits(images: &ImageSet, classifier: &Classifier, neighbors: &NeighborTable, input: &In) -> Result<(), StageError> {
    check_same_images(neighbors, images.ids(), "neighbors")?;
    if classifier.card.clusters > images.len() {
        return Err(StageError::TooFew {
            setting: "the number of clusters",
            value: classifier.card.clusters,
            images: images.len(),
            hint: "connect a classifier of fewer clusters, or add more images".into(),
        });
    }
    let transformer = classifier.card.encoder.architecture.transformer.is_some();
    if transformer || !classifier.card.encoder.parameters.iter().any(|name| name.starts_with("backbone.")) {
        return Err(StageError::Mismatch {
            what: format!(
                "the encoder of `{}` ({:?}) has no residual network that could learn",
                input.classifier.origin(),
                classifier.card.encoder.architecture.backbone
            ),
            hint: "connect a classifier on a learned encoder, such as one of `scan` or `kmeans` on features".into(),
        });
    }
    Ok(())
}

/// Networks can begin with the classifier's own head only if it is one like theirs.
fn keeps(classifier: &Classifier, input: &In) -> Result<(), StageError> {
    let card = &classifier.card;
    if card.kind == HeadKind::Linear && card.hidden.is_none() && card.encoder.architecture.projection.is_none() {
        return Ok(());
    }
    Err(StageError::Mismatch {
        what: format!("the head of `{}` cannot be kept: it is not linear on the backbone", input.classifier.origin()),
        hint: "set `head = \"new\"`, or connect a classifier of `scan` or `nnm` without `hidden`".into(),
    })
}

impl Method for Ruc {
    const CARD: PaperCard = PaperCard {
        paper: "S. Park, S. Han, S. Kim, D. Kim, S. Park, S. Hong, M. Cha: Improving Unsupervised Image Clustering With Robust \
                Learning, CVPR 2021, arXiv 2012.11150; settings as in the authors' code",
        reads: "images, classifier (its chosen head and its backbone), neighbors (on self-supervised features; 99 in the \
                authors' code)",
        writes: "classifier (both networks as one of twice the width), first, second (each alone), curve",
        idea: "A clustering is a set of noisy labels. The images it is sure of, and whose neighbors agree, keep theirs; two \
               networks learn from these, guess for the others, correct each other, and take an image over once one of them is \
               sure of it.",
        loss: "S, U images with and without label; t [S, K] label refined by the peer and sharpened, q [U, K] mean of both \
               networks on two weak views, sharpened; MixUp of all 2B views; mean −Σ y' ln p over S + λ_U · ramp · mean (p − \
               y')² over U and K + mean −Σ s ln p(strong view) over S, s = 1 − ε on the label",
        selection: "none: the last epoch; a collapse is an error, not a result",
        as_in_paper: "the authors' CIFAR-10 script: 200 epochs, batch 250, SGD 0.01 with Nesterov 0.9 and decay 5e-4, cosine to \
                      0, hybrid sampling from 0.99, relabelling from 0.99, λ_U 25, ramp 0.1 to 1 over 200 epochs, T 0.5, \
                      Beta(4, 4), ε 0.5, RandAugment(2, 2) at their level, new linear heads, the peer under batch statistics. \
                      CIFAR-20: `guess_weight = 100`, `relabel_threshold = 0.9`, `relabel_rise = 0.02`; STL-10: `batch = 100`, \
                      `guess_weight = 50`, thresholds as CIFAR-20",
        unlike_paper: "Labels are never renumbered by the truth. A step without labeled, or without other images leaves that \
                       loss out (the authors' code divides by 0). Equal confidences weigh nothing instead of 0/0. τ₂ rises by \
                       fifths of the epochs, whatever their number. A last batch \
                       of one image joins the one before. Neighbors come from a stage of their own, on whatever features it was given. Views are normalized as \
                       the classifier was trained (the authors use CIFAR-10's statistics on STL-10 too). Tied votes go to the \
                       lower cluster. `head = \"kept\"` starts both networks from the classifier's own head, for runs too short \
                       to learn one anew. Where `epochs` or `batch` is not set, few images get smaller batches at a lower rate and more \
                       epochs, 1500 steps at least",
        expect: "on SCAN, last epoch, both networks, scored on the training images (paper): CIFAR-10 88.7 → 90.1, CIFAR-20 \
                 50.6 → 54.3, STL-10 81.4 → 86.6 ACC. New heads begin at chance: a few epochs on a small set lose what SCAN \
                 had, unless `head = \"kept\"`. Each network alone is the better calibrated; adding logits doubles their scale. Compare ECE with \
                 `evaluate`, giving it the classifier that came in, `first` and both",
    };
}
