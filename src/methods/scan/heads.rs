//! SCAN's heads on features that were computed once: settings, ports, card.

use super::stage::{self, Scan, Update};
use super::training::{pairs, train_heads};
use kinset_artifact::Stored;
use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::k_table::KTable;
use kinset_artifact::neighbors::Neighbors;
use kinset_augment::Plain;
use kinset_model::HeadsShape;
use kinset_model::params::values;
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::best_epoch::Kept;
use kinset_train::course::PER_CLUSTER;
use kinset_train::feature_space::CenteredFeatures;
use kinset_train::input_cache::CachedInputs;
use kinset_train::ports::ChosenOut;
use kinset_train::start::Start;
use kinset_train::{OptimizerSettings, Paced, ScheduleSettings, found_clusters};

kinset_stage::settings! {
    /// Settings; what is not about features is as in [`stage::Config`].
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Heads trained side by side, H; the best by validation loss is chosen. 10, as SCAN on ImageNet.
        heads: usize = 10, min 1;
        /// Hidden units of a head; unset: linear, as in the paper.
        hidden: Option<usize> = None, min 1;
        /// Passes over the images; unset: 50, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Anchors per step, B; unset: 1024, or fewer of few images and more for many clusters.
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

kinset_stage::ports! {
    /// What SCAN's heads read.
    pub label_free struct In {
        /// `[N, D]`.
        features: Stored<Features>,
        /// `[N, M]`, of the same images.
        neighbors: Stored<Neighbors>,
        /// The encoder the features come from, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
        /// A number of clusters that `auto_k` or `sweep_k` found, in place of `clusters`.
        clusters_from: Option<Stored<KTable>>,
        /// Classifiers of such features whose clusters the heads begin with, in turn; without them, they begin at random.
        start: Option<Vec<Stored<Classifier>>>,
    }
}

/// SCAN's clustering stage on features.
#[derive(Debug)]
pub struct ScanHeads;

impl Stage for ScanHeads {
    const KIND: &'static str = "scan_heads";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "cluster features so that neighbors agree: SCAN's heads on a frozen encoder";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = ChosenOut;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<ChosenOut, StageError> {
        let config = &Config { clusters: found_clusters(config.clusters, input.clusters_from.as_ref(), cx)?, ..config.clone() };
        let features = CenteredFeatures::of(&input.features, input.encoder.as_ref(), &cx.device)?;
        let table = features.neighbors(&input.neighbors)?;
        StageError::enough_for_clusters("clusters", config.clusters, features.len())?;
        features.warn_of_equal_images(config.clusters, cx)?;
        let shape = HeadsShape::linear(config.clusters, config.heads, config.hidden);
        let net = features.heads(shape, cx.seed.branch("heads"))?;
        if let Some(start) = &input.start {
            let given = FeatureTable::load(&input.features)?;
            let starts = start.iter().map(|start| Start::of_features(start, &given, shape, cx));
            Start::distill(&starts.collect::<Result<Vec<_>, _>>()?, &net, values(&features.values)?, cx.seed, cx)?;
        }
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
        unlike_paper: "Features are computed once, so there are no views. They are centered and scaled to mean square 1, with Adam at 1e-3 and \
                       batches of 1024 in place of SGD: heads alone take larger steps than networks. `start` gives them the \
                       clusters of other classifiers. Where `epochs` or `batch` is not set, few images get smaller batches and more epochs, 2000 steps at least",
        expect: "on strong features a little above k-means; digits 83.1, 90.5 beside 79.2, 79.5 (two seeds)",
    };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::{Device, Tensor};

    use super::*;
    use kinset_artifact::encoder::Tensors;
    use kinset_artifact::neighbors::NeighborTable;
    use kinset_artifact::testing::stored;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_math::topk::argmax_rows;
    use kinset_model::{ClassifierNet, HeadChoice};
    use kinset_stage::testing::Heard;
    use kinset_stage::{Signal, Stop};

    const IMAGES: usize = 300;
    const DIM: usize = 4;

    /// Features without any order, neighbors at random, and a classifier that goes by the largest of the first three numbers.
    fn input(dir: &Path, dim: usize) -> (In, FeatureTable) {
        let folder = |name: &str| {
            let path = dir.join(format!("{name}{dim}"));
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let mut rng = Seed::new(8).rng();
        let ids: Vec<String> = (0..IMAGES).map(|row| format!("{row:03}")).collect();
        let table = FeatureTable {
            ids: ids.clone(),
            dim,
            values: (0..IMAGES * dim).map(|_| 3.0 + 0.01 * rng.normal() as f32).collect(),
            normalized: false,
            encoder: "imported".into(),
            layer: "imported".into(),
        };
        let features = stored(&table.save(&folder("features")).unwrap());
        let neighbors = NeighborTable {
            ids,
            k: 2,
            index: (0..IMAGES).flat_map(|row| [1, 2].map(|by| ((row + by) % IMAGES) as u32)).collect(),
            similarity: vec![0.5; 2 * IMAGES],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        };
        let mut heads = Tensors::default();
        let weight = (0..3 * dim).map(|at| if at % dim == at / dim { 1.0 } else { 0.0 }).collect();
        heads.insert("cluster_head.0.weight", vec![3, dim], weight);
        heads.insert("cluster_head.0.bias", vec![3], vec![0.0; 3]);
        let choice = HeadChoice { head: 0, chosen_by: "a test".into(), losses: Vec::new() };
        let space = CenteredFeatures::of(&features, None, &Device::Cpu).unwrap();
        let start = space.classifier(HeadsShape::linear(3, 1, None), &heads, choice).unwrap();
        let start = stored(&start.save(&folder("start")).unwrap());
        let neighbors = stored(&neighbors.save(&folder("neighbors")).unwrap());
        (In { features, neighbors, encoder: None, clusters_from: None, start: Some(vec![start]) }, table)
    }

    /// One step of next to nothing.
    fn still() -> Config {
        let optimizer = OptimizerSettings::sgd(1e-9, 0.0, 0.0);
        Config { clusters: 3, heads: 3, epochs: Some(1), batch: Some(IMAGES), optimizer, ..Config::default() }
    }

    fn run(dir: &Path, config: &Config, input: In) -> (Result<Classifier, StageError>, Vec<Signal>) {
        let (heard, places, stop) = (Heard::default(), DataPaths::new(dir, None, None), Stop::default());
        let folder = |name: &str| {
            let path = dir.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, stop, folder("work"), folder("out"), &heard);
        let ran = ScanHeads::run(config, input, &cx).map(|out| Classifier::load(&stored(&out.classifier)).unwrap());
        (ran, heard.signals())
    }

    /// The cluster of every image by each head.
    fn labels(classifier: &Classifier, table: &FeatureTable) -> Vec<Vec<usize>> {
        let net = ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &Device::Cpu).unwrap();
        let rows = Tensor::from_slice(&table.values, (table.len(), table.dim), &Device::Cpu).unwrap();
        (0..net.heads()).map(|head| argmax_rows(&values(&net.logits(head, &rows).unwrap()).unwrap(), 3)).collect()
    }

    fn agree(a: &[usize], b: &[usize]) -> f64 {
        a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
    }

    #[test]
    fn heads_begin_with_the_clusters_of_a_start_and_differ() {
        let dir = tempfile::tempdir().unwrap();
        let (given, table) = input(dir.path(), DIM);
        let wanted = labels(&Classifier::load(&given.start.as_ref().unwrap()[0]).unwrap(), &table).swap_remove(0);
        let (found, said) = run(dir.path(), &still(), given);
        let found = found.unwrap();
        for labels in labels(&found, &table) {
            assert!(agree(&labels, &wanted) >= 0.95, "{}", agree(&labels, &wanted));
        }
        let weights: Vec<&[f32]> =
            (0..3).map(|head| found.tensors.get(&format!("cluster_head.{head}.weight")).unwrap().values.as_slice()).collect();
        assert!(weights[0] != weights[1] && weights[1] != weights[2] && weights[0] != weights[2]);
        let notes =
            said.iter().filter(|signal| matches!(signal, Signal::Note(note) if note.contains("begins with the clusters")));
        assert_eq!(notes.count(), 1, "{said:?}");

        // A second start that names the clusters otherwise: the heads take turns.
        let mut twice = input(dir.path(), DIM).0;
        let first = Classifier::load(&twice.start.as_ref().unwrap()[0]).unwrap();
        let mut tensors = first.tensors.clone();
        let weight = &first.tensors.get("cluster_head.0.weight").unwrap().values;
        tensors.insert("cluster_head.0.weight", vec![3, DIM], [&weight[DIM..], &weight[..DIM]].concat());
        std::fs::create_dir_all(dir.path().join("turned")).unwrap();
        let turned = Classifier { tensors, ..first }.save(&dir.path().join("turned")).unwrap();
        twice.start.as_mut().unwrap().push(stored(&turned));
        let both = run(dir.path(), &still(), twice).0.unwrap();
        let renamed: Vec<usize> = wanted.iter().map(|label| (label + 2) % 3).collect();
        for (labels, wanted) in labels(&both, &table).iter().zip([&wanted, &renamed, &wanted]) {
            assert!(agree(labels, wanted) >= 0.95, "{}", agree(labels, wanted));
        }

        let again = run(dir.path(), &still(), input(dir.path(), DIM).0).0.unwrap();
        assert_eq!(found.tensors, again.tensors);
        let random = run(dir.path(), &still(), In { start: None, ..input(dir.path(), DIM).0 }).0.unwrap();
        assert!(labels(&random, &table).iter().all(|labels| agree(labels, &wanted) < 0.95), "chance does not do it");
    }

    #[test]
    fn a_start_that_cannot_be_one_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |config: Config, input: In| run(dir.path(), &config, input).0.unwrap_err().to_string();
        let given = || input(dir.path(), DIM).0;
        assert_eq!(refused(Config { clusters: 4, ..still() }, given()), "`clusters` is 4, and `start`, `test`, has 3");
        let hidden = refused(Config { hidden: Some(8), ..still() }, given());
        assert_eq!(hidden, "`hidden` is 8, and only linear heads can begin with the clusters of `test`");
        let other = In { start: input(dir.path(), DIM + 1).0.start, ..given() };
        assert_eq!(refused(still(), other), "the heads of `test` read 5 numbers of an image, and `features` have 4");
    }
}
