//! SCAN's heads on features that were computed once: settings, ports, card.

use super::stage::{self, Scan, Update};
use super::training::{pairs, train_heads};
use kinset_augment::Plain;
use kinset_model::HeadsShape;
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::best_epoch::Kept;
use kinset_train::course::PER_CLUSTER;
use kinset_train::feature_space::CenteredFeatures;
use kinset_train::input_cache::CachedInputs;
use kinset_train::ports::{ChosenOut, FeaturesIn};
use kinset_train::{OptimizerSettings, Paced, ScheduleSettings};

kinset_stage::settings! {
    /// Settings; what is not about features is as in [`stage::Config`].
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Heads trained side by side, H; the best by validation loss is chosen. 10, as SCAN on ImageNet.
        heads: usize = 10, min 1;
        /// Hidden units of a head; none: linear, as in the paper.
        hidden: Option<usize> = None, min 1;
        /// Passes over the images; none: 50, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Anchors per step, B; none: 1024, or fewer of few images and more for many clusters.
        batch: Option<usize> = None, min 2;
        /// Weight of the entropy term, λ.
        entropy_weight: f64 = 5.0, not_negative;
        /// How many of the mined neighbors are candidates; none: all.
        num_neighbors: Option<usize> = None, min 1;
        /// Whether an image is a candidate for its own neighbor, as in the authors' code.
        include_self: bool = true;
        /// How many neighbors the validation loss looks at.
        validation_neighbors: usize = 5, min 1;
        /// Validate after every so many epochs, and after the last.
        validate_every: u64 = 1, min 1;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::adam(1e-3, 0.0), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::constant(), nested;
    }
}

impl Config {
    /// The same for the training that both stages share.
    fn of_heads(&self) -> stage::Config {
        let Self { clusters, heads, hidden, epochs, batch, entropy_weight, num_neighbors, include_self, .. } = *self;
        let Self { validation_neighbors, validate_every, .. } = *self;
        stage::Config {
            clusters,
            heads,
            hidden,
            update: Update::Heads,
            epochs,
            batch,
            entropy_weight,
            num_neighbors,
            include_self,
            validation_neighbors,
            validate_every,
            optimizer: self.optimizer.clone(),
            schedule: self.schedule.clone(),
            augment: Plain::default().into(),
        }
    }
}

kinset_train::paced!(Config: 50 epochs, 1024 images a step, 2000 steps at least);

/// SCAN's clustering stage on features.
#[derive(Debug)]
pub struct ScanHeads;

impl Stage for ScanHeads {
    const KIND: &'static str = "scan_heads";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "cluster features so that neighbors agree: SCAN's heads on a frozen encoder";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = FeaturesIn;
    type Out = ChosenOut;

    fn run(config: &Config, input: FeaturesIn, cx: &Context<'_>) -> Result<ChosenOut, StageError> {
        let features = CenteredFeatures::of(&input.features, input.encoder.as_ref(), &cx.device)?;
        let table = features.neighbors(&input.neighbors)?;
        StageError::enough_for_clusters("clusters", config.clusters, features.len())?;
        features.warn_of_equal_images(config.clusters, cx)?;
        let shape = HeadsShape::linear(config.clusters, config.heads, config.hidden);
        let net = features.heads(shape, cx.seed.branch("heads"))?;
        let course = config.course(features.len(), PER_CLUSTER * config.clusters, cx)?;
        let config = config.of_heads();
        let pairs = pairs(&config, CachedInputs::Features(features.values.clone()), table, cx);
        train_heads(&config, &course, &net, &pairs, &pairs, cx, |Kept { tensors, choice }| {
            features.classifier(shape, &features.plain_heads(&tensors), choice)
        })
    }
}

impl Method for ScanHeads {
    const CARD: PaperCard = PaperCard {
        paper: Scan::CARD.paper,
        reads: "features, neighbors mined on them (50 on ImageNet); optionally their encoder",
        writes: "classifier (all heads of the best epoch, the best chosen), curve, last (the same of the last epoch)",
        idea: Scan::CARD.idea,
        loss: Scan::CARD.loss,
        selection: "after every epoch, on all features and their neighbors: consistency − entropy with weight 1; the lowest over \
                    heads and epochs wins",
        as_in_paper: "loss, λ 5, one neighbor per anchor and step, ten linear heads on a frozen encoder: SCAN's \
                      ImageNet experiment",
        unlike_paper: "Features are computed once, so there are no views. They are centred and scaled to mean square 1, with Adam at 1e-3 and \
                       batches of 1024 in place of SGD: heads alone take larger steps than networks. Where `epochs` or `batch` is not set, few images get smaller batches and more epochs, 2000 steps at least",
        expect: "on strong features a little above k-means; digits 83.1, 90.5 beside 79.2, 79.5 (two seeds)",
    };
}
