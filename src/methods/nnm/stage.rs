//! NNM's ports, card and training: see [`Nnm::CARD`].

use candle_core::Tensor;

use super::loss::{Logits, TermWeights, class_contrast_of, nnm_loss};
use super::matching::{matched_rows, nearest_in_set};
use super::sets::{Seen, pairs, pass};
use super::settings::{Config, Global, GlobalViews};
use crate::scan::Update;
use crate::scan::loss::validation_loss;
use kinset_artifact::Stored;
use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::k_table::KTable;
use kinset_artifact::neighbors::Neighbors;
use kinset_math::euclid;
use kinset_model::encoder::EncoderNet;
use kinset_model::params::values;
use kinset_model::{ClassifierNet, Mode};
use kinset_stage::{Context, Method, PaperCard, Stage, StageError, Stop};
use kinset_train::batches::{Batches, Last};
use kinset_train::best_epoch::BestEpoch;
use kinset_train::course::PER_CLUSTER;
use kinset_train::input_cache::row_tensor;
use kinset_train::neighbor_pairs::NeighborPairs;
use kinset_train::ports::ChosenOut;
use kinset_train::start::Start;
use kinset_train::{
    At, BatchOrder, Course, ImageLoader, Measured, Objective, Paced, Prefetcher, Snapshot, Trainer, finite, found_clusters,
    measured, train,
};

kinset_stage::ports! {
    /// What NNM reads.
    pub label_free struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// Image → `[D]`.
        encoder: Stored<Encoder>,
        /// A number of clusters that `auto_k` or `sweep_k` found, in place of `clusters`.
        clusters_from: Option<Stored<KTable>>,
        /// `[N, M]`, mined on features of the same images; without them, NNM mines its own.
        neighbors: Option<Stored<Neighbors>>,
        /// Classifiers of such images whose clusters the heads begin with, in turn, on the features of the encoder; without them, they
        /// begin at random.
        start: Option<Vec<Stored<Classifier>>>,
        /// Images to choose epoch and head on; without them, the training images.
        val_images: Option<Stored<Images>>,
        /// Their neighbors among themselves; without them, NNM mines its own.
        val_neighbors: Option<Stored<Neighbors>>,
    }
}

/// The clustering stage.
#[derive(Debug)]
pub struct Nnm;

impl Stage for Nnm {
    const KIND: &'static str = "nnm";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "cluster images so that neighbors in batch and set agree";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = ChosenOut;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<ChosenOut, StageError> {
        let config = &Config { clusters: found_clusters(config.clusters, input.clusters_from.as_ref(), cx)?, ..config.clone() };
        let images = ImageSet::open(&input.images)?;
        let encoder = Encoder::load(&input.encoder)?;
        StageError::enough_for_clusters("clusters", config.clusters, images.len())?;
        let course = config.course(images.len(), PER_CLUSTER * config.clusters, cx)?;
        let val_images = input.val_images.as_ref().map(ImageSet::open).transpose()?;
        if val_images.is_none() && input.val_neighbors.is_some() {
            return Err(StageError::Mismatch {
                what: "`val_neighbors` is connected, and `val_images` is not".into(),
                hint: "connect both, or neither to validate on the training images".into(),
            });
        }
        let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &cx.device)?;
        let net =
            ClassifierNet::init(&body, config.clusters, config.heads, config.hidden, cx.seed.branch("heads"), &cx.device)?;
        if let Some(start) = &input.start {
            Start::begin(start, &images, (&net, config.hidden), &encoder.card.normalization, cx)?;
        }
        let set = |images, ports, wanted| {
            let (architecture, normalization) = (&encoder.card.architecture, &encoder.card.normalization);
            let loader = ImageLoader::like(images, architecture.channels, architecture.size, normalization, &cx.device)?;
            pairs(config, &net, (loader, images), ports, wanted, cx)
        };
        let training = set(
            &images,
            ("neighbors", input.neighbors.as_ref()),
            ("num_neighbors", config.num_neighbors, Config::default().num_neighbors),
        )?;
        let validation = val_images
            .as_ref()
            .map(|images| {
                let default = Config::default().validation_neighbors;
                let wanted = ("validation_neighbors", config.validation_neighbors, default);
                set(images, ("val_neighbors", input.val_neighbors.as_ref()), wanted)
            })
            .transpose()?;

        let mut trainer = trainer(config, &course, &net, &training, validation.as_ref(), cx)?;
        let points = train(&mut trainer, cx)?;
        let steps = course.epochs * trainer.order.steps();
        trainer.objective.best.finish(&net, (steps, "consistency + class − entropy"), points, cx, |kept| {
            kept.classifier(&net, &encoder.card.normalization)
        })
    }
}

impl Method for Nnm {
    const CARD: PaperCard = PaperCard {
        paper: "Z. Dang, C. Deng, X. Yang, K. Wei, H. Huang: Nearest Neighbor Matching for Deep Clustering, CVPR 2021; as run by \
                its authors' code since July 2021",
        reads: "images, encoder; optionally neighbors (20 on small sets, 50 on ImageNet; else mined here on the backbone's \
                features of plain images), validation images and their neighbors",
        writes: "classifier (all heads of the best epoch, the best chosen), curve, last (the same of the last epoch)",
        idea: "SCAN asks that an image and its mined neighbors fall into one cluster. NNM adds the neighbors it finds while \
               training, in the batch and in the whole set, and asks that clusters as a whole agree across the match too.",
        loss: "p, p', n [B, K] soft-max of anchor, its second view and a mined neighbor; l = p at the nearest anchor of the batch; \
               q [B, K] last epoch's answers of the nearest images of the whole set. P = [p; p'], Q = [n; l], S = [P; Q], \
               T = [q; q; q; q]. C(X, Y) = mean_i −ln(X_i · Y_i); D(X, Y) = cross-entropy over the columns, scaled to unit \
               length, of X against those of Y; loss = C(P, Q) + D(P, Q) − λ · entropy(mean P), from the second epoch on \
               + C(S, T) + D(S, T), summed over the H heads",
        selection: "after every epoch, on plain validation images and their neighbors: C + D − entropy with weight 1; the lowest \
                    over heads and epochs wins. Never by accuracy, as the authors' code does",
        as_in_paper: "the CIFAR-10 table: 100 epochs, batch 200, Adam 1e-4 with decay 1e-4, λ 5, three heads, backbone and heads \
                      updated, strong augmentation on all three views, three forward passes a step, the anchor among its own \
                      candidates; `global = \"permuted\"` with `global_views = \"augmented\"` is what the authors' code runs",
        unlike_paper: "`global = \"aligned\"` (the default) matches an image with its own neighbor in the set, as the paper means; \
                       the authors' code mixes up the rows. That neighbor is found on plain pictures by default. Without \
                       validation images the training images serve. Neighbor draws are counted per image and epoch. A last batch \
                       of one image joins the one before. An image is never its own neighbor in batch or set. With \
                       `update = \"heads\"` and a plain recipe features are computed once. `hidden` gives heads a hidden layer, `start` the clusters of \
                       other classifiers. Where \
                       `epochs` or `batch` is not set, few images get smaller batches and more epochs, 2000 steps at least",
        expect: "CIFAR-10 84.3 ACC, CIFAR-20 47.7, STL-10 80.8 (paper: best of runs, picked by test accuracy); chosen without \
                 labels about 0.7 less",
    };
}

#[expect(clippy::type_complexity, reason = "the closure that draws a batch has no name")]
fn trainer<'a>(
    config: &'a Config,
    course: &Course,
    net: &'a ClassifierNet,
    training: &'a NeighborPairs<'a>,
    validation: Option<&'a NeighborPairs<'a>>,
    cx: &Context<'_>,
) -> Result<Trainer<Matching<'a>, impl Fn(At<'_>) -> Result<Seen, StageError> + Sync>, StageError> {
    let (moved, recorded) = match config.update {
        Update::All => (net.params().clone(), net.clone()),
        Update::Heads => (net.head_params(), net.with_frozen_encoder()?),
    };
    Ok(Trainer {
        epochs: course.epochs,
        order: BatchOrder::of(Batches::new(training.inputs.len(), course.batch, Last::Join)?, cx.seed),
        learner: course.learner(net.params(), &moved)?,
        prefetcher: Prefetcher::new(!training.inputs.are_features()),
        batch: |at: At<'_>| Seen::draw(training, config.second_view, at.rows, at.epoch),
        objective: Matching {
            config,
            epochs: course.epochs,
            warm_up: course.stretched(config.warm_up, Config::default().warm_up),
            training,
            validation,
            net,
            recorded,
            targets: Vec::new(),
            fixed_nearest: None,
            best: BestEpoch::default(),
            device: cx.device.clone(),
            stop: cx.stop.clone(),
        },
    })
}

struct Matching<'a> {
    config: &'a Config,
    epochs: u64,
    /// Of them, without the match with the whole set.
    warm_up: u64,
    training: &'a NeighborPairs<'a>,
    /// None: the training images serve.
    validation: Option<&'a NeighborPairs<'a>>,
    net: &'a ClassifierNet,
    /// The same numbers, seen so that gradients reach what is updated.
    recorded: ClassifierNet,
    /// Per head, what each image is matched with in this epoch: logarithms of probabilities `[N, K]`. Empty during warm-up.
    targets: Vec<Tensor>,
    /// The nearest image of each where features do not change.
    fixed_nearest: Option<Vec<u32>>,
    best: BestEpoch,
    device: candle_core::Device,
    stop: Stop,
}

impl Matching<'_> {
    /// Finds every image's nearest in the whole set and keeps that one's answers for the next epoch. Returns the answers of all
    /// images if they were given on plain ones.
    fn refresh(&mut self, epoch: u64) -> Result<Option<Vec<Vec<f32>>>, StageError> {
        let Self { config, training: NeighborPairs { inputs, seed, .. }, net, .. } = self;
        let plain = config.global_views == GlobalViews::Plain || inputs.are_features();
        let views = (!plain).then(|| (&config.augment, seed.branch("refresh").at(epoch)));
        let pass = pass(inputs, net, views, self.fixed_nearest.is_none(), &self.stop)?;
        let nearest = match self.fixed_nearest.take() {
            Some(nearest) => nearest,
            None => nearest_in_set(&pass.features, net.encoder().dim(), &self.stop)?,
        };
        let n = nearest.len();
        let visited = seed.branch("visited").at(epoch);
        let visited = (config.global == Global::Permuted).then(|| visited.rng().permutation(n));
        let rows = Tensor::new(matched_rows(&nearest, visited.as_deref()), &self.device)?;
        let answers = |log: &Vec<f32>| Tensor::from_slice(log, (n, config.clusters), &self.device)?.index_select(&rows, 0);
        self.targets = pass.log.iter().map(answers).collect::<candle_core::Result<_>>()?;
        if config.update == Update::Heads && plain {
            self.fixed_nearest = Some(nearest);
        }
        Ok(plain.then_some(pass.log))
    }

    /// Measures all heads without labels, and keeps the state if it is the best so far.
    fn validate(&mut self, epoch: u64, known: Option<Vec<Vec<f32>>>) -> Result<Measured, StageError> {
        let set = self.validation.unwrap_or(self.training);
        let log = match known {
            Some(log) if self.validation.is_none() => log,
            _ => pass(&set.inputs, self.net, None, false, &self.stop)?.log,
        };
        let (clusters, table) = (self.config.clusters, &set.table);
        let k = self.config.validation_neighbors.min(table.k);
        let probabilities: Vec<Vec<f32>> = log.into_iter().map(|log| log.into_iter().map(f32::exp).collect()).collect();
        let parts: Vec<(f64, f64, f64)> = probabilities
            .iter()
            .map(|p| {
                let found = validation_loss(p, clusters, &table.index, table.k, k);
                (found.consistency, class_contrast_of(p, clusters), found.entropy)
            })
            .collect();
        let losses: Vec<f64> = parts.iter().map(|(consistency, class, entropy)| consistency + class - entropy).collect();
        let head = self.best.offer(epoch, &losses, &probabilities, self.net)?;
        let chosen = &probabilities[head];
        let confidence: f64 = chosen.chunks_exact(clusters).map(|row| f64::from(row.iter().copied().fold(0.0, f32::max))).sum();
        let (consistency, class, entropy) = parts[head];
        Ok(measured([
            ("val_loss", losses[head]),
            ("val_consistency", consistency),
            ("val_class", class),
            ("val_entropy", entropy),
            ("val_confidence", confidence / (chosen.len() / clusters) as f64),
            ("best_head", head as f64),
        ]))
    }
}

impl Objective for Matching<'_> {
    type Batch = Seen;

    fn loss(&mut self, seen: Seen, at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let Self { config, training, recorded, targets, device, .. } = self;
        let mode = if config.update == Update::Heads { Mode::Eval } else { Mode::Train };
        let features = seen.features(recorded, mode, &training.inputs)?;
        // Found on raw features of this very pass, and one for all heads.
        let nearest = euclid::nearest_other(&values(&features.anchors)?, features.anchors.dim(1)?);
        let nearest = Tensor::new(nearest, device)?;
        let rows = row_tensor(at.rows, device)?;
        let weights = TermWeights { class: config.class_weight, entropy: config.entropy_weight };
        let (mut sum, mut parts) = (None::<Tensor>, [0.0; 5]);
        for head in 0..config.heads {
            let logits = |features: &Tensor| recorded.logits(head, features);
            let (anchors, neighbors) = (logits(&features.anchors)?, logits(&features.neighbors)?);
            let second = features.second.as_ref().map(logits).transpose()?;
            let logits = Logits { anchors: &anchors, neighbors: &neighbors, second: second.as_ref() };
            let matched = targets.get(head).map(|targets| targets.index_select(&rows, 0)).transpose()?;
            let loss = nnm_loss(&logits, &nearest, matched.as_ref(), weights)?;
            let terms = [Some(&loss.local), Some(&loss.consistency), Some(&loss.class), Some(&loss.entropy)];
            for (part, term) in parts.iter_mut().zip(terms.into_iter().chain([loss.global.as_ref()])) {
                *part += term.map_or(Ok(0.0), Tensor::to_scalar::<f32>).map(f64::from)?;
            }
            let total = loss.total()?;
            sum = Some(match sum {
                None => total,
                Some(sum) => (sum + total)?,
            });
        }
        let Some(sum) = sum else { unreachable!("there is at least one head") };
        // Heads are optimized by their sum, so that each sees its full gradient, and shown by their mean.
        let [local, consistency, class, entropy, global] = parts.map(|part| part / config.heads as f64);
        finite("the match with the whole set", global, at.epoch, at.step)?;
        let mut shown = measured([("loss", local), ("consistency", consistency), ("class", class), ("entropy", entropy)]);
        if !targets.is_empty() {
            shown.extend(measured([("global", global)]));
        }
        Ok((Some(sum), shown))
    }

    fn end(&mut self, epoch: u64, _means: &Measured, _rate: f64) -> Result<Measured, StageError> {
        let next = epoch + 1;
        let refreshes = self.config.global != Global::Off && next >= self.warm_up && next < self.epochs;
        let known = if refreshes { self.refresh(epoch)? } else { None };
        if !next.is_multiple_of(self.config.validate_every) && next < self.epochs {
            return Ok(Measured::new());
        }
        self.validate(epoch, known)
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        snapshot.tensors("targets", &mut self.targets, &self.device)?;
        self.best.state(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use candle_core::Device;
    use tempfile::TempDir;

    use super::*;
    use crate::nnm::matching::mine;
    use kinset_artifact::curve::Curve;
    use kinset_artifact::encoder::{Backbone, Classifier, Stem, Tensors};
    use kinset_artifact::images::{ImagesInfo, ImagesWriter, Picture};
    use kinset_artifact::pixels::Pixels;
    use kinset_artifact::testing::stored;
    use kinset_augment::Plain;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_math::topk::argmax_rows;
    use kinset_model::architecture;
    use kinset_stage::testing::Heard;
    use kinset_train::infer::{self, Layer};
    use kinset_train::{OptimizerSettings, TrainingLoop as _};

    #[track_caller]
    fn assert_near(found: f64, wanted: f64, tolerance: f64, what: &str) {
        assert!((found - wanted).abs() <= tolerance, "{what}: {found} is not {wanted}");
    }

    #[test]
    fn an_epoch_visits_every_image_and_nobody_alone() {
        for (images, sizes) in [(10, vec![4, 4, 2]), (9, vec![4, 5]), (3, vec![3]), (8, vec![4, 4])] {
            let mut order = BatchOrder::of(Batches::new(images, 4, Last::Join).unwrap(), Seed::new(1));
            let mut visits = |epoch| -> Vec<Vec<usize>> {
                order.begin(epoch);
                (0..order.steps()).map(|step| order.rows(step).to_vec()).collect()
            };
            let (first, second) = (visits(0), visits(1));
            assert_eq!(first.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
            assert_ne!(second, first);
            let mut all = second.concat();
            all.sort_unstable();
            assert_eq!(all, (0..images).collect::<Vec<_>>());
        }
    }

    /// Images, by default of three patterns in turn, and two encoders.
    struct Ground {
        dir: TempDir,
        places: DataPaths,
        images: Stored<Images>,
        encoder: Stored<Encoder>,
        pixels: Stored<Encoder>,
    }

    impl Ground {
        fn new(count: usize) -> Self {
            Self::drawn(count, |image, at| match image % 3 {
                0 => at % 8 < 4,
                1 => at / 8 < 4,
                _ => (at % 8 + at / 8).is_multiple_of(2),
            })
        }

        /// Images of ten patterns in turn.
        fn of_ten(count: usize) -> Self {
            Self::drawn(count, |image, at| Seed::new(3).at((image % 10) as u64).at(at as u64).rng().chance(0.5))
        }

        fn drawn(count: usize, lit: impl Fn(usize, usize) -> bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = |name: &str| -> PathBuf {
                let path = dir.path().join(name);
                std::fs::create_dir_all(&path).unwrap();
                path
            };
            let mut writer = ImagesWriter::create(&folder("images"), &ImagesInfo::new("test")).unwrap();
            let mut rng = Seed::new(9).rng();
            for image in 0..count {
                let data = (0..64).map(|at| if lit(image, at) { 170 + rng.below(80) } else { rng.below(80) } as u8).collect();
                writer.push(Picture::Raw(Pixels { width: 8, height: 8, channels: 1, data })).unwrap();
            }
            let (images, _) = writer.finish().unwrap();
            let encoder = |backbone, name: &str| {
                let shape = architecture(backbone, Stem::Cifar, 8, 1, 8, None).unwrap();
                let net = EncoderNet::init(&shape, Seed::new(2), &Device::Cpu).unwrap();
                let card = net.card(kinset_artifact::encoder::Normalization::new(vec![0.4], vec![0.3]));
                stored(&Encoder { card, tensors: net.to_tensors().unwrap() }.save(&folder(name)).unwrap())
            };
            let (resnet, pixels) = (encoder(Backbone::ResnetTiny, "encoder"), encoder(Backbone::Pixels, "pixels"));
            let places = DataPaths::new(dir.path(), None, None);
            Self { images: stored(&images), encoder: resnet, pixels, places, dir }
        }

        fn input(&self) -> In {
            In {
                images: self.images.clone(),
                encoder: self.encoder.clone(),
                clusters_from: None,
                neighbors: None,
                start: None,
                val_images: None,
                val_neighbors: None,
            }
        }

        fn with_context<T>(&self, work: &str, f: impl FnOnce(&Context<'_>) -> T) -> T {
            let folder = |name: &str| self.dir.path().join(work).join(name);
            std::fs::create_dir_all(folder("work")).unwrap();
            let (stop, seed) = (Stop::default(), Seed::new(5));
            f(&Context::new("test", Device::Cpu, seed, &self.places, stop, folder("work"), folder("out"), &Heard::default()))
        }

        /// Trains to the end and takes the last state, however little was learned.
        fn trained(&self, name: &str, config: &Config, input: In) -> (Tensors, Vec<kinset_artifact::curve::Point>) {
            let encoder = Encoder::load(&input.encoder).unwrap();
            let images = ImageSet::open(&input.images).unwrap();
            let val_images = input.val_images.as_ref().map(|images| ImageSet::open(images).unwrap());
            self.with_context(name, |cx| {
                let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
                let net = ClassifierNet::init(&body, config.clusters, config.heads, None, Seed::new(1), &Device::Cpu).unwrap();
                let set = |images, table: &Option<Stored<Neighbors>>, k| {
                    let loader = ImageLoader::like(images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
                    let ports = ("neighbors", table.as_ref());
                    pairs(config, &net, (loader, images), ports, ("num_neighbors", k, 20), cx).unwrap()
                };
                let training = set(&images, &input.neighbors, config.num_neighbors);
                let validation =
                    val_images.as_ref().map(|images| set(images, &input.val_neighbors, config.validation_neighbors));
                let course = config.course(images.len(), 1, cx).unwrap();
                let mut trainer = trainer(config, &course, &net, &training, validation.as_ref(), cx).unwrap();
                let points = train(&mut trainer, cx).unwrap();
                (net.to_tensors().unwrap(), points)
            })
        }

        fn run(&self, name: &str, config: &Config, input: In) -> Result<(Classifier, Curve), StageError> {
            let out = self.with_context(name, |cx| Nnm::run(config, input, cx))?;
            Ok((Classifier::load(&stored(&out.classifier)).unwrap(), Curve::load(&stored(&out.curve)).unwrap()))
        }
    }

    /// Quick, on frozen features.
    fn heads_only(epochs: u64) -> Config {
        Config {
            clusters: 3,
            heads: 2,
            update: Update::Heads,
            epochs: Some(epochs),
            batch: Some(20),
            num_neighbors: 5,
            optimizer: OptimizerSettings::adam(0.02, 0.0),
            augment: Plain::default().into(),
            ..Config::default()
        }
    }

    fn small(epochs: u64) -> Config {
        Config { clusters: 3, heads: 2, epochs: Some(epochs), batch: Some(8), num_neighbors: 4, ..Config::default() }
    }

    #[test]
    fn heads_begin_with_the_clusters_of_a_start() {
        let ground = Ground::new(60);
        let folder = ground.dir.path().join("start");
        std::fs::create_dir_all(&folder).unwrap();
        let learned = ground.run("learned", &heads_only(15), ground.input()).unwrap().0;
        let start = Some(vec![stored(&learned.save(&folder).unwrap())]);
        let still = Config { optimizer: OptimizerSettings::sgd(1e-9, 0.0, 0.0), ..heads_only(1) };
        let images = ImageSet::open(&ground.images).unwrap();
        let labels = |classifier: &Classifier, head: usize| {
            let net = ClassifierNet::from_tensors(&classifier.card, &classifier.tensors, &Device::Cpu).unwrap();
            let loader = ImageLoader::like(&images, 1, 8, &classifier.card.encoder.normalization, &Device::Cpu).unwrap();
            argmax_rows(&infer::probabilities(&net, &[head], &loader, |_| Ok::<_, StageError>(())).unwrap()[0], 3)
        };
        let wanted = labels(&learned, learned.card.head);
        let begun = ground.run("begun", &still, In { start, ..ground.input() }).unwrap().0;
        let random = ground.run("random", &still, ground.input()).unwrap().0;
        for (classifier, same) in [(&begun, true), (&random, false)] {
            for head in 0..2 {
                let agree = labels(classifier, head).iter().zip(&wanted).filter(|(one, other)| one == other).count();
                assert_eq!(agree >= 57, same, "{agree} of 60");
            }
        }
    }

    #[test]
    fn the_match_with_the_whole_set_joins_after_the_warm_up() {
        let ground = Ground::new(24);
        for (warm_up, global, from) in [(1, Global::Aligned, 2), (3, Global::Permuted, 4), (1, Global::Off, 6)] {
            let config = Config { global, warm_up, ..heads_only(5) };
            let (_, curve) = ground.run(&format!("{warm_up}{global:?}"), &config, ground.input()).unwrap();
            let epochs: Vec<u32> = curve.values("global").map(|(epoch, _)| epoch).collect();
            assert_eq!(epochs, (from..=5).collect::<Vec<_>>());
            assert_eq!(curve.values("loss").count(), 5);
        }
    }

    #[test]
    fn aligned_matches_agree_with_the_batch_and_mixed_up_ones_hold_confidence_down() {
        // The toy problem of methods/nnm.md, section 5: ten clear groups. There: aligned, a global part of 1.66 and a mean largest
        // probability of 0.98; mixed up, a total of −3.92, a global part of 5.49, and 0.81.
        let ground = Ground::of_ten(100);
        let last = |curve: &Curve, name: &str| curve.values(name).last().unwrap().1;
        let run = |name: &str, global| {
            let config = Config { clusters: 10, batch: Some(50), global, ..heads_only(80) };
            ground.run(name, &config, In { encoder: ground.pixels.clone(), ..ground.input() }).unwrap().1
        };
        let (aligned, permuted, off) =
            (run("aligned", Global::Aligned), run("permuted", Global::Permuted), run("off", Global::Off));
        let local = last(&aligned, "consistency") + last(&aligned, "class");
        assert_near(last(&aligned, "global"), local, 0.3, "the aligned global part");
        assert!(last(&aligned, "val_confidence") > 0.95 && last(&off, "val_confidence") > 0.95);
        assert_near(last(&permuted, "global"), 5.49, 0.15, "the mixed-up global part");
        assert_near(last(&permuted, "loss") + last(&permuted, "global"), -3.92, 0.2, "the mixed-up total");
        assert_near(last(&permuted, "val_confidence"), 0.81, 0.05, "the largest probability of mixed-up matches");
        for curve in [&aligned, &permuted, &off] {
            assert!(last(curve, "val_entropy") > 2.29, "ten clusters are in use");
        }
    }

    #[test]
    fn training_the_heads_leaves_the_encoder_bit_for_bit() {
        let ground = Ground::new(24);
        let before = Encoder::load(&ground.encoder).unwrap().tensors;
        let random = Config { update: Update::Heads, ..small(2) };
        for (name, config, moves) in [("still", heads_only(2), false), ("views", random, false), ("all", small(2), true)] {
            let (after, _) = ground.trained(name, &config, ground.input());
            let same = before.iter().all(|(name, weights)| after.get(name) == Some(weights));
            assert_eq!(same, !moves, "{name}");
            assert!(after.len() > before.len(), "backbone and heads");
        }
    }

    #[test]
    fn each_view_has_its_own_forward_pass_and_moves_the_running_statistics() {
        let ground = Ground::new(12);
        let encoder = Encoder::load(&ground.encoder).unwrap();
        let net = |seed| {
            let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
            ClassifierNet::init(&body, 3, 1, None, Seed::new(seed), &Device::Cpu).unwrap()
        };
        let images = ImageSet::open(&ground.images).unwrap();
        let loader = ImageLoader::like(&images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
        for second_view in [true, false] {
            let config = Config { second_view, ..small(1) };
            ground.with_context("passes", |cx| {
                let wanted = ("num_neighbors", 4, 20);
                let pairs = pairs(&config, &net(1), (loader.clone(), &images), ("neighbors", None), wanted, cx).unwrap();
                let draw = || Seen::draw(&pairs, second_view, &[3, 1, 4, 7, 9], 0).unwrap();
                let (here, there) = (net(1), net(1));
                let seen = draw().features(&here, Mode::Train, &pairs.inputs).unwrap();
                assert_eq!(seen.second.is_some(), second_view);
                let Seen { anchors, neighbors, second } = draw();
                let views: Vec<Tensor> = [anchors, neighbors].into_iter().chain(second).collect();
                assert_eq!(views.len(), if second_view { 3 } else { 2 });
                let first = there.features(&views[0], Mode::Train).unwrap();
                assert_ne!(here.to_tensors().unwrap(), there.to_tensors().unwrap(), "one pass is not enough");
                for view in &views[1..] {
                    there.features(view, Mode::Train).unwrap();
                }
                assert_eq!(here.to_tensors().unwrap(), there.to_tensors().unwrap());
                assert_eq!(values(&seen.anchors).unwrap(), values(&first).unwrap());
            });
        }
    }

    #[test]
    fn a_run_that_goes_on_matches_with_the_whole_set_at_once() {
        let ground = Ground::new(24);
        let images = ImageSet::open(&ground.images).unwrap();
        let encoder = Encoder::load(&ground.encoder).unwrap();
        let loader = ImageLoader::like(&images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
        for config in [small(3), Config { global: Global::Permuted, global_views: GlobalViews::Augmented, ..small(3) }] {
            ground.with_context("resume", |cx| {
                let nets = [1, 1].map(|seed| {
                    let body = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
                    ClassifierNet::init(&body, 3, 2, None, Seed::new(seed), &Device::Cpu).unwrap()
                });
                let wanted = ("num_neighbors", 4, 20);
                let set = pairs(&config, &nets[0], (loader.clone(), &images), ("neighbors", None), wanted, cx).unwrap();
                let course = config.course(images.len(), 1, cx).unwrap();
                let [mut run, mut again] = [0, 1].map(|which| trainer(&config, &course, &nets[which], &set, None, cx).unwrap());
                for step in 0..run.steps() {
                    run.begin(0).unwrap();
                    let shown = run.step(0, step).unwrap();
                    assert!(shown.iter().all(|(name, _)| name != "global"));
                }
                run.end(0, &Measured::new()).unwrap();
                run.begin(1).unwrap();
                run.step(1, 0).unwrap();
                let mut snapshot = Snapshot::default();
                run.state(&mut snapshot).unwrap();
                again.state(&mut snapshot.restoring()).unwrap();
                again.begin(1).unwrap();
                let (one, other) = (run.step(1, 1).unwrap(), again.step(1, 1).unwrap());
                assert_eq!(one, other);
                assert!(other.iter().any(|(name, value)| name == "global" && *value > 0.0));
                assert_eq!(run.end(1, &Measured::new()).unwrap(), again.end(1, &Measured::new()).unwrap());
                assert_eq!(nets[0].to_tensors().unwrap(), nets[1].to_tensors().unwrap());
            });
        }
    }

    /// Neighbors as the stage `neighbors` would mine them.
    fn mined(ground: &Ground, k: usize, name: &str) -> Stored<Neighbors> {
        let images = ImageSet::open(&ground.images).unwrap();
        let encoder = Encoder::load(&ground.encoder).unwrap();
        let net = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &Device::Cpu).unwrap();
        let loader = ImageLoader::like(&images, 1, 8, &encoder.card.normalization, &Device::Cpu).unwrap();
        let features = infer::features(&net, Layer::Backbone, &loader, |_| Ok::<_, StageError>(())).unwrap();
        let table = mine(features, net.dim(), k, images.ids(), &Stop::default()).unwrap();
        let folder = ground.dir.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        stored(&table.save(&folder).unwrap())
    }

    #[test]
    fn its_own_mining_gives_what_connected_neighbors_give() {
        let ground = Ground::new(24);
        let alone = ground.trained("alone", &small(2), ground.input());
        let connected = In { neighbors: Some(mined(&ground, 4, "mined")), ..ground.input() };
        assert_eq!(alone, ground.trained("with", &small(2), connected));
        // Others to validate on: neighbors of their own, mined or connected.
        let val = In { val_images: Some(ground.images.clone()), ..ground.input() };
        let one = ground.trained("val", &small(2), val);
        assert_eq!(alone.0, one.0, "validation moves nothing");
        let val_neighbors = Some(mined(&ground, 5, "val_mined"));
        let val = In { val_images: Some(ground.images.clone()), val_neighbors, ..ground.input() };
        assert_eq!(one, ground.trained("val_connected", &small(2), val));
    }

    #[test]
    fn more_clusters_than_patterns_are_fine() {
        let ground = Ground::new(60);
        let config = Config { clusters: 7, ..heads_only(30) };
        let (classifier, curve) = ground.run("many", &config, ground.input()).unwrap();
        assert_eq!(classifier.card.clusters, 7);
        assert!(curve.values("val_entropy").last().unwrap().1 > 1.0);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_says_so() {
        let (ground, other) = (Ground::new(24), Ground::new(27));
        let mut count = 0;
        let mut fails = |config: Config, input: In, words: &[&str]| {
            count += 1;
            let error = ground.run(&format!("bad{count}"), &config, input).unwrap_err();
            let text = format!("{error} {}", kinset_base::fault::Fault::hint(&error).unwrap_or_default());
            for word in words {
                assert!(text.contains(word), "`{word}` is not in: {text}");
            }
        };
        let input = || ground.input();
        fails(Config { clusters: 25, ..small(1) }, input(), &["clusters is 25", "only 24 images", "fewer clusters"]);
        fails(Config { num_neighbors: 24, ..small(1) }, input(), &["num_neighbors is 24", "`num_neighbors = 23` or less"]);
        let strange = In { neighbors: Some(mined(&other, 4, "strange")), ..input() };
        fails(small(1), strange, &["`neighbors` was computed on a different image set (27 images, expected 24)"]);
        let lonely = In { val_neighbors: Some(mined(&ground, 4, "lonely")), ..input() };
        fails(small(1), lonely, &["`val_neighbors` is connected, and `val_images` is not"]);
        let wide = In { val_images: Some(ground.images.clone()), ..input() };
        fails(
            Config { validation_neighbors: 30, ..small(1) },
            wide,
            &["validation_neighbors is 30", "`validation_neighbors = 23` or less"],
        );

        // An encoder whose numbers are of another network, and one that saw color.
        let folder = |name: &str| {
            let path = ground.dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let color = architecture(Backbone::ResnetTiny, Stem::Cifar, 8, 3, 8, None).unwrap();
        let color = EncoderNet::init(&color, Seed::new(2), &Device::Cpu).unwrap();
        let normalization = |channels| kinset_artifact::encoder::Normalization::new(vec![0.4; channels], vec![0.3; channels]);
        let card = color.card(normalization(3));
        let saved = Encoder { card, tensors: color.to_tensors().unwrap() }.save(&folder("color")).unwrap();
        fails(small(1), In { encoder: stored(&saved), ..input() }, &["3 channels, but these have 1"]);
        let mut torn = Encoder::load(&ground.encoder).unwrap();
        torn.tensors.remove("backbone.conv1.weight");
        let torn = torn.save(&folder("torn"));
        let error = match torn {
            Ok(saved) => ground.run("torn_run", &small(1), In { encoder: stored(&saved), ..input() }).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("backbone.conv1.weight"), "{error}");
    }

    #[test]
    fn clusters_that_fell_into_one_are_an_error_with_the_numbers() {
        // Nothing spreads the images, and everything asks them to agree.
        let ground = Ground::new(60);
        let config = Config { entropy_weight: 0.0, class_weight: 0.0, heads: 1, ..heads_only(80) };
        let error = ground.run("collapse", &config, ground.input()).unwrap_err().to_string();
        assert!(error.contains("the clusters collapsed"), "{error}");
        // A handful of steps is too few to tell.
        let early = Config { epochs: Some(33), ..config };
        assert!(ground.run("early", &early, ground.input()).is_ok(), "99 steps");
    }
}
