//! SCAN on images: settings, ports, card.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::training::{pairs, train_heads};
use kinset_artifact::Stored;
use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::k_table::KTable;
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_augment::{Recipe, Strong};
use kinset_model::ClassifierNet;
use kinset_model::encoder::EncoderNet;
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::course::PER_CLUSTER;
use kinset_train::input_cache::CachedInputs;
use kinset_train::neighbor_pairs::check_same_images;
use kinset_train::ports::ChosenOut;
use kinset_train::start::Start;
use kinset_train::{ImageLoader, OptimizerSettings, Paced, ScheduleSettings, found_clusters};

/// What training moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Update {
    /// Backbone and heads (small data sets).
    All,
    /// The heads alone, on an encoder in evaluation mode (ImageNet).
    Heads,
}

kinset_stage::settings! {
    /// Settings; the defaults are those of SCAN's `configs/scan/scan_cifar10.yml`.
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Heads trained side by side, H; the best by validation loss is chosen. 1 on small sets, 10 on ImageNet.
        heads: usize = 1, min 1;
        /// Hidden units of a head; unset: linear, as in the paper.
        hidden: Option<usize> = None, min 1;
        /// What training moves.
        update: Update = Update::All;
        /// Passes over the images; unset: 50, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Anchors per step, B; unset: 128, or fewer of few images and more for many clusters.
        batch: Option<usize> = None, min 2;
        /// Weight of the entropy term, λ.
        entropy_weight: f64 = 5.0, not_negative;
        /// How many of the mined neighbors are candidates; unset: all.
        num_neighbors: Option<usize> = None, min 1;
        /// Whether an image is a candidate for its own neighbor, as in the authors' code.
        include_self: bool = true;
        /// How many neighbors the validation loss looks at.
        validation_neighbors: usize = 5, min 1;
        /// Validate after every so many epochs, and after the last.
        validate_every: u64 = 1, min 1;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::adam(1e-4, 1e-4), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::constant(), nested;
        /// What anchors and neighbors go through.
        augment: Recipe = Strong::default().into(), nested;
    }
}

kinset_train::paced!(Config: 50 epochs, 128 images a step, 2000 steps at least);

kinset_stage::ports! {
    /// What SCAN reads.
    pub label_free struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// Image → `[D]`.
        encoder: Stored<Encoder>,
        /// A number of clusters that `auto_k` or `sweep_k` found, in place of `clusters`.
        clusters_from: Option<Stored<KTable>>,
        /// `[N, M]`, mined on features of the same images.
        neighbors: Stored<Neighbors>,
        /// Classifiers of such images whose clusters the heads begin with, in turn, on the features of the encoder; without them, they
        /// begin at random.
        start: Option<Vec<Stored<Classifier>>>,
        /// Images to choose epoch and head on; without them, the training images.
        val_images: Option<Stored<Images>>,
        /// Their neighbors among themselves.
        val_neighbors: Option<Stored<Neighbors>>,
    }
}

/// The clustering stage.
#[derive(Debug)]
pub struct Scan;

impl Stage for Scan {
    const KIND: &'static str = "scan";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "cluster images so that neighbors agree";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = ChosenOut;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<ChosenOut, StageError> {
        let config = &Config { clusters: found_clusters(config.clusters, input.clusters_from.as_ref(), cx)?, ..config.clone() };
        let images = ImageSet::open(&input.images)?;
        let encoder = Encoder::load(&input.encoder)?;
        let table = NeighborTable::load(&input.neighbors)?;
        check_same_images(&table, images.ids(), "neighbors")?;
        StageError::enough_for_clusters("clusters", config.clusters, images.len())?;
        let course = config.course(images.len(), PER_CLUSTER * config.clusters, cx)?;
        let (val_images, val_table) = match (&input.val_images, &input.val_neighbors) {
            (Some(val_images), Some(val_neighbors)) => {
                let (set, table) = (ImageSet::open(val_images)?, NeighborTable::load(val_neighbors)?);
                check_same_images(&table, set.ids(), "val_neighbors")?;
                (Some(set), Some(table))
            }
            (None, None) => (None, None),
            _ => {
                return Err(StageError::Mismatch {
                    what: "of `val_images` and `val_neighbors` only one is connected".into(),
                    hint: "connect both, or neither to validate on the training images".into(),
                });
            }
        };
        let architecture = &encoder.card.architecture;
        let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &cx.device)?;
        let net =
            ClassifierNet::init(&body, config.clusters, config.heads, config.hidden, cx.seed.branch("heads"), &cx.device)?;
        if let Some(start) = &input.start {
            Start::begin(start, &images, (&net, config.hidden), &encoder.card.normalization, cx)?;
        }
        // An encoder that is not updated, on views that are not random: its features are computed once.
        let fixed = config.update == Update::Heads && !config.augment.is_random();
        let pairs = |set, table| {
            let normalization = &encoder.card.normalization;
            let loader = ImageLoader::like(set, architecture.channels, architecture.size, normalization, &cx.device)?;
            Ok::<_, StageError>(pairs(config, CachedInputs::of(loader, fixed, net.encoder(), cx)?, table, cx))
        };
        let training = pairs(&images, table)?;
        let validation = val_images.as_ref().zip(val_table).map(|(set, table)| pairs(set, table)).transpose()?;
        train_heads(config, &course, &net, &training, validation.as_ref().unwrap_or(&training), cx, |kept| {
            kept.classifier(&net, &encoder.card.normalization)
        })
    }
}

impl Method for Scan {
    const CARD: PaperCard = PaperCard {
        paper: "W. Van Gansbeke, S. Vandenhende, S. Georgoulis, M. Proesmans, L. Van Gool: SCAN: Learning to Classify Images \
                without Labels, ECCV 2020, arXiv 2005.12320, eq. 2",
        reads: "images, encoder, neighbors (20 on small sets, 50 on ImageNet); optionally validation images and their neighbors",
        writes: "classifier (all heads of the best epoch, the best chosen), curve, last (the same of the last epoch)",
        idea: "An image and its nearest neighbors mostly show the same thing, so they should fall into the same cluster; \
               spreading all images over all clusters keeps that from being trivial.",
        loss: "P, Q [B, K] soft-max of anchor and neighbor; consistency = mean_i −ln(P_i · Q_i); p̄ [K] = mean_i P_i; \
               loss = consistency − λ · entropy(p̄), summed over the H heads",
        selection: "after every epoch, on plain validation images and their neighbors: consistency − entropy with weight 1; \
                    the lowest over heads and epochs wins",
        as_in_paper: "SCAN's CIFAR-10 table: 50 epochs, batch 128, Adam 1e-4 with decay 1e-4, λ 5, one head, backbone and head \
                      updated, strong augmentation on both sides, one neighbor per anchor and step, the anchor among its own \
                      candidates",
        unlike_paper: "Without validation images the training images serve, again without labels. Neighbor draws are counted per \
                       image and epoch (the authors' workers repeat one stream). With `update = \"heads\"` and a plain recipe \
                       features are computed once. `hidden` gives heads a hidden layer, and \
                       `start` the clusters of other classifiers. Where `epochs` or `batch` is not set, few images get smaller batches and \
                       more epochs, 2000 steps at least",
        expect: "CIFAR-10 81.8 ± 0.3 ACC after SimCLR of 500 epochs (paper, 10 runs); handwritten digits from pixels with \
                 five heads above 85, see `pipelines/digits.toml`",
    };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::{Backbone, Normalization, Stem};
    use kinset_artifact::images::{ImagesInfo, ImagesWriter, Picture};
    use kinset_artifact::pixels::Pixels;
    use kinset_artifact::testing::stored;
    use kinset_augment::Plain;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_math::topk::argmax_rows;
    use kinset_model::{HeadChoice, architecture};
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;
    use kinset_train::infer;

    const IMAGES: usize = 48;

    fn folder(dir: &Path, name: &str) -> std::path::PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn body(backbone: Backbone) -> EncoderNet {
        EncoderNet::init(&architecture(backbone, Stem::Cifar, 8, 1, 8, None).unwrap(), Seed::new(2), &Device::Cpu).unwrap()
    }

    /// Noise, brighter in the upper half, the lower half or nowhere; the start is made of pixels, and the encoder is another.
    fn input(dir: &Path) -> In {
        let mut writer = ImagesWriter::create(&folder(dir, "images"), &ImagesInfo::new("test")).unwrap();
        let mut rng = Seed::new(9).rng();
        for image in 0..IMAGES {
            let lit = |at: usize| (at < 32 && image % 3 == 0) || (at >= 32 && image % 3 == 1);
            let data = (0..64).map(|at| (rng.below(80) + if lit(at) { 170 } else { 0 }) as u8).collect();
            writer.push(Picture::Raw(Pixels { width: 8, height: 8, channels: 1, data })).unwrap();
        }
        let images = stored(&writer.finish().unwrap().0);
        let ids = ImageSet::open(&images).unwrap().ids().to_vec();
        let neighbors = NeighborTable {
            ids,
            k: 1,
            index: (0..IMAGES).map(|row| ((row + 3) % IMAGES) as u32).collect(),
            similarity: vec![0.5; IMAGES],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        };
        let net = body(Backbone::ResnetTiny);
        let encoder = Encoder { card: net.card(Normalization::new(vec![0.4], vec![0.3])), tensors: net.to_tensors().unwrap() };
        let bright = |from: usize, to: usize| (0..64).map(move |at| if (from..to).contains(&at) { 0.8 } else { 0.15 });
        let centroids: Vec<f32> = bright(32, 64).chain(bright(0, 0)).chain(bright(0, 32)).collect();
        let start = ClassifierNet::from_centroids(&body(Backbone::Pixels), &centroids, false, &Device::Cpu).unwrap();
        let choice = HeadChoice { head: 0, chosen_by: "a test".into(), losses: Vec::new() };
        let card = start.card(Normalization::new(vec![0.0], vec![1.0]), choice).unwrap();
        let start = Classifier { card, tensors: start.to_tensors().unwrap() };
        In {
            images,
            encoder: stored(&encoder.save(&folder(dir, "encoder")).unwrap()),
            clusters_from: None,
            neighbors: stored(&neighbors.save(&folder(dir, "neighbors")).unwrap()),
            start: Some(vec![stored(&start.save(&folder(dir, "start")).unwrap())]),
            val_images: None,
            val_neighbors: None,
        }
    }

    #[test]
    fn heads_on_an_encoder_begin_with_the_clusters_of_a_start_on_another() {
        let dir = tempfile::tempdir().unwrap();
        for update in [Update::All, Update::Heads] {
            let input = input(dir.path());
            let images = ImageSet::open(&input.images).unwrap();
            let optimizer = OptimizerSettings::sgd(1e-9, 0.0, 0.0);
            let (epochs, batch, augment) = (Some(1), Some(IMAGES), Plain::default().into());
            let config = Config { clusters: 3, heads: 2, update, epochs, batch, optimizer, augment, ..Config::default() };
            let (places, stop) = (DataPaths::new(dir.path(), None, None), Stop::default());
            let (work, out) = (folder(dir.path(), "work"), folder(dir.path(), "out"));
            let heard = Heard::default();
            let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, stop, work, out, &heard);
            let found = Classifier::load(&stored(&Scan::run(&config, input, &cx).unwrap().classifier)).unwrap();
            let net = ClassifierNet::from_tensors(&found.card, &found.tensors, &Device::Cpu).unwrap();
            let loader = ImageLoader::like(&images, 1, 8, &found.card.encoder.normalization, &Device::Cpu).unwrap();
            for said in infer::probabilities(&net, &[0, 1], &loader, |_| Ok::<_, StageError>(())).unwrap() {
                let right = argmax_rows(&said, 3).iter().enumerate().filter(|(row, k)| [2, 0, 1][row % 3] == **k).count();
                assert!(right * 100 >= 95 * IMAGES, "{update:?}: {right} of {IMAGES}");
            }
        }
    }
}
