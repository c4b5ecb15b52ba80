//! # MoCo v2: contrastive learning against a queue of earlier images
//!
//! The pretext task of SCAN on ImageNet; what makes it different from SimCLR is that the number of images to differ from does not
//! depend on the batch size: see [`MoCo::CARD`].

use candle_core::{D, Device, Tensor, Var};

use kinset_artifact::images::ImageSet;
use kinset_augment::{Recipe, Simclr};
use kinset_base::seed::Seed;
use kinset_math::cosine;
use kinset_model::encoder::EncoderNet;
use kinset_model::settings::NetworkSettings;
use kinset_model::{Mode, Params, Role};
use kinset_stage::{Complaint, Context, Method, PaperCard, Stage, StageError};
use kinset_train::course::LEAST_BATCH;
use kinset_train::ema::blend;
use kinset_train::ports::{EncoderOut, ImagesIn};
use kinset_train::{
    At, BatchOrder, Measured, Objective, OptimizerSettings, Paced, Prefetcher, ScheduleSettings, Snapshot, Trainer, measured,
    pretext, scalar, train,
};

kinset_stage::settings! {
    /// Settings; the defaults are MoCo v2's, but for network and queue, which are those of small sets.
    pub struct Config {
        /// The network that learns.
        network: NetworkSettings = NetworkSettings::default(), nested;
        /// Side of the views, pixels; unset: that of the images.
        size: Option<usize> = None;
        /// Passes over the images; unset: 200, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Images per step, B; unset: 256, or fewer of few images.
        batch: Option<usize> = None, min 2, because "batch norm needs them";
        /// Temperature of the loss, τ.
        temperature: f64 = 0.2, above_zero;
        /// Earlier keys to differ from, K; a multiple of the batch. The paper's 65,536 is for a million images: with more keys
        /// than images, an image's own earlier keys count as negatives. Unset: 4096, or as many as there are images.
        queue: Option<usize> = None;
        /// What stays of the key encoder in a step, m. The paper's 0.999 is for runs of many thousand steps; 0.99 suits short
        /// ones.
        key_momentum: f64 = 0.999, below_one;
        /// Parts of a batch that batch norm sees one by one, the keys' images in another order than the queries'. The paper's 8
        /// GPUs.
        norm_groups: usize = 8;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::sgd(0.03, 0.9, 1e-4), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::cosine(0.1), nested;
        /// What makes two views of an image.
        augment: Recipe = Simclr { blur: 0.5, ..Simclr::default() }.into(), nested;
    }
    and combinations
}

impl Config {
    fn combinations(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        let (batch, norm_groups) = (self.batch.unwrap_or(Self::USUAL.batch), self.norm_groups);
        if let Some(queue) = self.queue
            && batch >= 2
            && (queue < batch || !queue.is_multiple_of(batch))
        {
            let nearest = (queue / batch).max(1) * batch;
            found.push(Complaint::new(
                "queue",
                format!("is {queue}, and must be a multiple of `batch`, {batch}: {nearest}, for example"),
            ));
        }
        if norm_groups == 0 || norm_groups > (batch / 2).max(1) {
            found.push(Complaint::new(
                "norm_groups",
                format!(
                    "is {norm_groups}, and must lie between 1 and {}, so that each has 2 images at least",
                    (batch / 2).max(1)
                ),
            ));
        }
        found
    }
}

impl Config {
    /// The batch; left open, one that cuts the queue evenly and has enough for the norm groups.
    fn fitting_batch(&self, images: usize) -> Result<usize, StageError> {
        if let Some(batch) = self.batch {
            return Ok(batch);
        }
        let least = 2 * self.norm_groups;
        let most = Self::USUAL.batch_for(images, LEAST_BATCH.max(least));
        let even = |batch: &usize| self.queue.is_none_or(|queue| queue.is_multiple_of(*batch));
        (least..=most).rev().find(even).ok_or_else(|| StageError::TooFew {
            setting: "the least batch",
            value: least,
            images,
            hint: "add more images, lower `norm_groups`, or set another `queue`".into(),
        })
    }

    /// The queue; left open, no longer than the set.
    fn fitting_queue(&self, batch: usize, images: usize) -> usize {
        self.queue.unwrap_or_else(|| (QUEUE.min(images) / batch).max(1) * batch)
    }
}

kinset_train::paced!(Config: 200 epochs, 256 images a step, 5000 steps at least);

/// Keys to differ from, if there are as many images.
const QUEUE: usize = 4096;

/// The pretext stage.
#[derive(Debug)]
pub struct MoCo;

impl Stage for MoCo {
    const KIND: &'static str = "moco";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "learn an encoder: match two views of an image against a queue of negatives";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = ImagesIn;
    type Out = EncoderOut;

    fn run(config: &Config, input: ImagesIn, cx: &Context<'_>) -> Result<EncoderOut, StageError> {
        let images = ImageSet::open(&input.images)?;
        let course = config.course_of(config.fitting_batch(images.len())?, images.len())?;
        config.tell(&course, images.len(), cx);
        let length = config.fitting_queue(course.batch, images.len());
        let (loader, net) = pretext::begin(&images, config.size, &config.network, cx)?;
        let order = BatchOrder::new(images.len(), course.batch, cx.seed)?;
        advise(config, length, images.len(), course.epochs * order.steps(), cx);
        let batch = |at: At<'_>| {
            let (views, shuffle) = (cx.seed.branch("views").at(at.epoch), cx.seed.branch("shuffle").at(at.epoch));
            let shuffled = shuffle.at(at.step).rng().permutation(at.rows.len());
            let mut places = vec![0; at.rows.len()];
            for (place, &from) in shuffled.iter().enumerate() {
                places[from] = place as u32;
            }
            let shuffled: Vec<usize> = shuffled.into_iter().map(|from| at.rows[from]).collect();
            Ok(Views {
                queries: loader.views(at.rows, &config.augment, views.at(0))?,
                keys: loader.views(&shuffled, &config.augment, views.at(1))?,
                places,
            })
        };
        let objective = Momentum {
            config,
            net: &net,
            // It starts as an equal network, and no gradient ever reaches it.
            key: net.duplicate()?.frozen()?,
            queue: Queue::new(length, net.architecture().output(), cx.seed.branch("queue"), &cx.device)?,
            new_keys: None,
        };
        let mut trainer = Trainer {
            epochs: course.epochs,
            order,
            learner: course.learner(net.params(), net.params())?,
            prefetcher: Prefetcher::default(),
            batch,
            objective,
        };
        let curve = train(&mut trainer, cx)?;
        pretext::finish(&net, &loader, curve, cx)
    }
}

/// Says which settings do not suit a set of this size.
fn advise(config: &Config, queue: usize, images: usize, steps: u64, cx: &Context<'_>) {
    if queue > images {
        cx.warn(format!("`queue` is {queue}, and there are {images} images: an image's own earlier keys count as negatives"));
    } else if config.queue.is_none() {
        cx.chose(format!("`queue` {queue}"));
    }
    let memory = 1.0 / (1.0 - config.key_momentum);
    if (steps as f64) < 2.0 * memory {
        cx.warn(format!(
            "with `key_momentum` {} the key encoder averages over about {memory:.0} steps, but there are only {steps}: it stays \
             close to its random initialization. Lower it, 0.99 for example, or train longer",
            config.key_momentum
        ));
    }
}

impl Method for MoCo {
    const CARD: PaperCard = PaperCard {
        paper: "K. He, H. Fan, Y. Wu, S. Xie, R. Girshick: Momentum Contrast for Unsupervised Visual Representation Learning, \
                CVPR 2020, arXiv 1911.05722, eq. 1 and 2, algorithm 1; with the head, views and schedule of X. Chen et al.: \
                Improved Baselines with Momentum Contrastive Learning, arXiv 2003.04297",
        reads: "images",
        writes: "encoder (query backbone + projection head), curve",
        idea: "A view of an image should find its other view among thousands of earlier images. Their keys wait in a queue, so \
               the batch can be small; the network that makes keys follows the learning one slowly, so that old and new keys \
               go together.",
        loss: "q, k [B, P] unit rows of the two networks, k and the queue [K, P] without gradient; \
               mean over i of log(exp(q_i·k_i/τ) + Σ_j exp(q_i·queue_j/τ)) − q_i·k_i/τ; \
               then θ_key ← m θ_key + (1 − m) θ_query, and the keys replace the oldest of the queue",
        selection: "none: the last epoch",
        as_in_paper: "MoCo v2: MLP head to 128, τ 0.2, m 0.999, SGD 0.03 / 0.9 / 1e-4, cosine, batch 256, 200 epochs; random \
                      resized crop 0.2–1, flip, jitter 0.4/0.4/0.4/0.1 at 0.8, gray at 0.2, blur 0.1–2 at 0.5; the queue starts \
                      with random unit vectors; the batch norm of 8 GPUs (`norm_groups`)",
        unlike_paper: "ResNet-18 with the CIFAR stem and a queue of 4096 by default, for small sets; on ImageNet set `resnet50` \
                       and 65,536. Shuffling batch norm is an affair of several GPUs: here each batch is cut into `norm_groups` \
                       parts that pass through the network one by one, the keys' images in a random order of their own, so that \
                       an image's query and key share their statistics with different others. Running statistics see every \
                       part, not one GPU's. The cosine ends at 0.1³ of the rate, not at 0. Where `epochs`, `batch` or \
                       `queue` is not set, few images get smaller batches at a lower rate, more epochs, 5000 steps at least, and a shorter queue",
        expect: "SCAN's ImageNet tables use the published weights of 800 epochs; on small sets `key_momentum = 0.99` and about \
                 SimCLR's epochs",
    };
}

struct Momentum<'a> {
    config: &'a Config,
    /// Makes queries, and learns.
    net: &'a EncoderNet,
    /// Makes keys, and follows.
    key: EncoderNet,
    queue: Queue,
    /// Of this step, for the queue.
    new_keys: Option<Tensor>,
}

/// Two views of each image of a batch.
struct Views {
    queries: Tensor,
    /// In another order.
    keys: Tensor,
    /// For each query the place of its key.
    places: Vec<u32>,
}

impl Objective for Momentum<'_> {
    type Batch = Views;

    fn loss(&mut self, views: Views, _at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let Self { config, net, key, queue, .. } = self;
        let places = Tensor::new(views.places, views.keys.device())?;
        let keys = in_groups(key, &views.keys, config.norm_groups)?.index_select(&places, 0)?;
        let queries = in_groups(net, &views.queries, config.norm_groups)?;
        let Contrast { loss, found } = contrast(&queries, &keys, &queue.keys(), config.temperature)?;
        self.new_keys = Some(keys);
        let shown = measured([("loss", scalar(&loss)?), ("found", found)]);
        Ok((Some(loss), shown))
    }

    fn after(&mut self, at: At<'_>) -> Result<(), StageError> {
        blend(self.key.params(), self.net.params(), self.config.key_momentum)?;
        if let Some(keys) = self.new_keys.take() {
            self.queue.push((at.epoch * at.steps + at.step) * at.rows.len() as u64, &keys)?;
        }
        Ok(())
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        snapshot.params("key", self.key.params())?;
        snapshot.params("queue", &self.queue.params)
    }
}

/// Sends a batch through a network part by part, so that batch norm sees no more than a part.
///
/// # Shapes
/// `images`: `[B, C, S, S]`. Returns `[B, P]`, unit rows.
fn in_groups(net: &EncoderNet, images: &Tensor, groups: usize) -> Result<Tensor, StageError> {
    let batch = images.dim(0)?;
    let part = |group: usize| {
        let (from, to) = (batch * group / groups, batch * (group + 1) / groups);
        Ok(net.project(&net.features(&images.narrow(0, from, to - from)?, Mode::Train)?, Mode::Train)?)
    };
    let parts = (0..groups).map(part).collect::<Result<Vec<_>, StageError>>()?;
    Ok(Tensor::cat(&parts, 0)?)
}

/// Keys of earlier images, the newest in the place of the oldest.
struct Queue {
    /// One tensor, `[K, P]`. What is next to go follows from the number of keys that ever came.
    params: Params,
    keys: Var,
}

impl Queue {
    /// Random unit vectors.
    fn new(size: usize, dim: usize, seed: Seed, device: &Device) -> Result<Self, StageError> {
        let mut rng = seed.rng();
        let mut values: Vec<f32> = (0..size * dim).map(|_| rng.normal() as f32).collect();
        // Normal numbers are never all 0, so every row has a direction.
        let _none = cosine::normalize_rows(&mut values, dim);
        let keys = Var::from_vec(values, (size, dim), device)?;
        let mut params = Params::new();
        params.push("keys", Role::Buffer, keys.clone())?;
        Ok(Self { params, keys })
    }

    /// `[K, P]`, as they are now; pushing changes them.
    fn keys(&self) -> Tensor {
        self.keys.as_detached_tensor()
    }

    /// Replaces the oldest. `before` is how many keys came before these; their number divides K.
    fn push(&self, before: u64, keys: &Tensor) -> Result<(), StageError> {
        let size = self.keys.dim(0)? as u64;
        self.keys().slice_set(&keys.contiguous()?, 0, (before % size) as usize)?;
        Ok(())
    }
}

/// What a batch of queries gives.
#[derive(Debug)]
pub struct Contrast {
    /// A scalar, nats; chance level is `ln(K + 1)`.
    pub loss: Tensor,
    /// The share of queries that lie closer to their own key than to all others, 0–1.
    pub found: f64,
}

/// MoCo's loss.
///
/// # Shapes
/// `queries`, `keys`: `[B, P]`; `queue`: `[K, P]`; unit rows all. Row i of the keys belongs to row i of the queries.
///
/// # Paper
/// He et al. 2020, eq. 1 (InfoNCE).
pub fn contrast(queries: &Tensor, keys: &Tensor, queue: &Tensor, temperature: f64) -> candle_core::Result<Contrast> {
    let own = ((queries * keys)?.sum_keepdim(D::Minus1)? / temperature)?;
    let others = (queries.matmul(&queue.t()?)? / temperature)?;
    let found = own.detach().gt(&others.detach().max_keepdim(D::Minus1)?)?.to_dtype(candle_core::DType::F64)?;
    let found = found.mean_all()?.to_scalar::<f64>()?;
    let all = Tensor::cat(&[&own, &others], 1)?.log_sum_exp(D::Minus1)?;
    Ok(Contrast { loss: (all - own.squeeze(1)?)?.mean_all()?, found })
}

#[cfg(test)]
mod tests {
    use candle_core::DType;
    use serde_json::Value;

    use super::*;
    use kinset_artifact::encoder::{Backbone, ProjectionKind, Stem};
    use kinset_model::params::values;
    use kinset_model::testing::{assert_near, numbers};
    use kinset_stage::Settings;

    fn rows(shape: (usize, usize), step: f64, phase: f64) -> Vec<f64> {
        let wave: Vec<f64> = (0..shape.0 * shape.1).map(|i| (step * i as f64 + phase).sin()).collect();
        wave.chunks(shape.1)
            .flat_map(|row| {
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.iter().map(move |x| x / norm)
            })
            .collect()
    }

    fn tensor(values: Vec<f64>, rows: usize) -> Tensor {
        let columns = values.len() / rows;
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()
    }

    /// Queries, keys and queue of `tests/golden/pretext/make.py`.
    fn fixture() -> [Tensor; 3] {
        [tensor(rows((4, 3), 0.9, 0.3), 4), tensor(rows((4, 3), 0.8, 0.5), 4), tensor(rows((6, 3), 1.7, 1.1), 6)]
    }

    #[test]
    fn loss_and_gradient_are_those_of_pytorch() {
        let golden: Value = serde_json::from_str(include_str!("../../tests/golden/pretext/moco.json")).unwrap();
        for case in golden["cases"].as_array().unwrap() {
            let temperature = case["temperature"].as_f64().unwrap();
            let [queries, keys, queue] = fixture().map(|t| t.to_dtype(DType::F32).unwrap());
            let queries = Var::from_tensor(&queries).unwrap();
            let contrast = contrast(queries.as_tensor(), &keys, &queue, temperature).unwrap();
            assert_near("loss", &[contrast.loss.to_scalar::<f32>().unwrap()], &[case["loss"].as_f64().unwrap()], 2e-6);
            assert!((contrast.found - case["first"].as_f64().unwrap()).abs() < 1e-12);
            let gradient = contrast.loss.backward().unwrap();
            let gradient = values(gradient.get(queries.as_tensor()).unwrap()).unwrap();
            assert_near("gradient", &gradient, &numbers(&case["gradient"]), 5e-6);
        }
    }

    #[test]
    fn the_gradient_equals_finite_differences_and_reaches_the_queries_alone() {
        let [queries, keys, queue] = fixture().map(|t| Var::from_tensor(&t).unwrap());
        let loss = |q: &Tensor| contrast(q, &keys.as_detached_tensor(), &queue.as_detached_tensor(), 0.5).unwrap().loss;
        let gradients = loss(queries.as_tensor()).backward().unwrap();
        assert!(gradients.get(keys.as_tensor()).is_none() && gradients.get(queue.as_tensor()).is_none());
        let gradient = gradients.get(queries.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (at, found) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut values = rows((4, 3), 0.9, 0.3);
                values[at] += by;
                loss(&tensor(values, 4)).to_scalar::<f64>().unwrap()
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - expected).abs() < 1e-7, "{at}: {found} instead of {expected}");
        }
    }

    #[test]
    fn one_key_for_all_costs_the_chance_level_and_a_perfect_match_almost_nothing() {
        let same = |rows| Tensor::ones((rows, 4), DType::F64, &Device::Cpu).unwrap();
        let chance = contrast(&same(3), &same(3), &same(7), 0.2).unwrap();
        assert!((chance.loss.to_scalar::<f64>().unwrap() - 8_f64.ln()).abs() < 1e-12);
        assert!(chance.found.abs() < 1e-12, "a tie is no find");
        let (one, other) = (tensor(vec![1.0, 0.0], 1), tensor(vec![-1.0, 0.0], 1));
        let perfect = contrast(&one, &one, &other, 0.05).unwrap();
        assert!(perfect.loss.to_scalar::<f64>().unwrap() < 1e-15);
        assert!((perfect.found - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_queue_starts_at_random_and_the_newest_replace_the_oldest() {
        let queue = Queue::new(6, 3, Seed::new(1), &Device::Cpu).unwrap();
        let start = queue.keys().to_vec2::<f32>().unwrap();
        assert!(start.iter().all(|row| (row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-6));
        assert_eq!(start, Queue::new(6, 3, Seed::new(1), &Device::Cpu).unwrap().keys().to_vec2::<f32>().unwrap());
        assert_ne!(start, Queue::new(6, 3, Seed::new(2), &Device::Cpu).unwrap().keys().to_vec2::<f32>().unwrap());
        let of = |value: f32| Tensor::full(value, (2, 3), &Device::Cpu).unwrap();
        for step in 0..4 {
            queue.push(2 * step, &of(step as f32)).unwrap();
        }
        let firsts: Vec<f32> = queue.keys().to_vec2::<f32>().unwrap().iter().map(|row| row[0]).collect();
        assert_eq!(firsts, [3.0, 3.0, 1.0, 1.0, 2.0, 2.0]);
        let other = Queue::new(6, 3, Seed::new(9), &Device::Cpu).unwrap();
        other.params.load(&queue.params.to_tensors().unwrap()).unwrap();
        assert_eq!(other.keys().to_vec2::<f32>().unwrap(), queue.keys().to_vec2::<f32>().unwrap());
    }

    fn tiny() -> EncoderNet {
        let settings = NetworkSettings {
            backbone: Backbone::ResnetTiny,
            stem: Stem::Cifar,
            width: 4,
            projection: ProjectionKind::Mlp,
            projection_dim: 5,
        };
        EncoderNet::init(&settings.architecture(1, 8).unwrap(), Seed::new(1), &Device::Cpu).unwrap()
    }

    fn images() -> Tensor {
        let values: Vec<f32> = (0..6 * 64).map(|i| (0.037 * f64::from(i)).sin() as f32 + (i % 7) as f32 * 0.1).collect();
        Tensor::from_vec(values, (6, 1, 8, 8), &Device::Cpu).unwrap()
    }

    #[test]
    fn the_key_encoder_has_no_gradient_and_follows_by_its_momentum() {
        let net = tiny();
        let key = net.duplicate().unwrap().frozen().unwrap();
        let (start, keys) = (key.to_tensors().unwrap(), in_groups(&key, &images(), 2).unwrap());
        assert!(!keys.track_op() && in_groups(&net, &images(), 2).unwrap().track_op());
        for (_, var) in net.params().parameters() {
            var.set(&(var.as_detached_tensor() + 1.0).unwrap()).unwrap();
        }
        blend(key.params(), net.params(), 0.75).unwrap();
        for (name, var) in key.params().parameters() {
            for (after, before) in values(var).unwrap().iter().zip(&start.get(name).unwrap().values) {
                assert!((after - before - 0.25).abs() < 1e-6, "{name}");
            }
        }
        assert_ne!(values(&in_groups(&key, &images(), 2).unwrap()).unwrap(), values(&keys).unwrap(), "it sees what followed");
    }

    #[test]
    fn batch_norm_sees_a_part_at_a_time() {
        let (net, images) = (tiny(), images());
        let whole = in_groups(&net, &images, 1).unwrap().to_vec2::<f32>().unwrap();
        let parts = in_groups(&net, &images, 2).unwrap().to_vec2::<f32>().unwrap();
        assert_ne!(whole, parts);
        let half = in_groups(&net, &images.narrow(0, 3, 3).unwrap(), 1).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(half, parts[3..], "a part does not see the others");
        assert_eq!(in_groups(&net, &images.narrow(0, 0, 5).unwrap(), 2).unwrap().dims(), [5, 5], "parts may be uneven");
    }

    #[test]
    fn a_queue_that_does_not_fit_the_batch_is_refused_with_one_that_does() {
        let complaint = |config: Config| {
            let found = config.check();
            assert_eq!(found.len(), 1, "{found:?}");
            (found[0].path.clone(), found[0].message.clone())
        };
        let (path, message) = complaint(Config { queue: Some(4000), ..Config::default() });
        assert_eq!(
            (path.as_str(), message.as_str()),
            ("queue", "is 4000, and must be a multiple of `batch`, 256: 3840, for example")
        );
        assert_eq!(
            complaint(Config { queue: Some(128), ..Config::default() }).1,
            "is 128, and must be a multiple of `batch`, 256: 256, for example"
        );
        assert_eq!(complaint(Config { batch: Some(8), ..Config::default() }).0, "norm_groups");
        assert_eq!(complaint(Config { batch: Some(0), norm_groups: 1, ..Config::default() }).0, "batch");
        assert_eq!(complaint(Config { key_momentum: 1.0, ..Config::default() }).0, "key_momentum");
        assert_eq!(complaint(Config { temperature: f64::NAN, ..Config::default() }).0, "temperature");
    }
}
