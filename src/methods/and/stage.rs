//! AND's settings, ports and training: a round of instance discrimination, then rounds in which more and more images form classes with their
//! neighbors: see [`And::CARD`].

use candle_core::Tensor;

use super::bank::{Bank, Positives};
use super::discovery::{Found, anchor_count, discover};
use kinset_artifact::curve::Curve;
use kinset_artifact::encoder::{Encoder, ProjectionKind};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::images::{ImageSet, Images};
use kinset_artifact::{Artifact, Draft, Stored, content_digest};
use kinset_augment::{Instance, Recipe};
use kinset_model::Mode;
use kinset_model::encoder::EncoderNet;
use kinset_model::init::Init;
use kinset_model::settings::NetworkSettings;
use kinset_stage::{Complaint, Context, Method, PaperCard, Stage, StageError};
use kinset_store::digest::Digest;
use kinset_train::course::LEAST_BATCH;
use kinset_train::infer::{self, Layer};
use kinset_train::ports::EncoderOut;
use kinset_train::settings::ScheduleKind;
use kinset_train::{
    At, BatchOrder, ImageLoader, Measured, Objective, OptimizerSettings, Paced, Prefetcher, ScheduleSettings, Snapshot,
    Trainable, Trainer, measured, pretext, scalar, train,
};

kinset_stage::settings! {
    /// Settings; the defaults are AND's `configs/base.yaml` with `cifar10.yaml`.
    pub struct Config {
        /// The network that learns, unless an encoder is connected.
        network: NetworkSettings = NetworkSettings { projection: ProjectionKind::Linear, ..NetworkSettings::default() }, nested;
        /// Side of the views, pixels; unset: that of the images, or of the connected encoder.
        size: Option<usize> = None;
        /// Passes over the images in all rounds together, cut evenly among them; unset: 1000, or more on few images.
        epochs: Option<u64> = None;
        /// Rounds with neighborhoods, R, after the first one without: `max_round` − 1 of the authors' code. 0 is plain instance
        /// discrimination.
        rounds: u64 = 4;
        /// The round to begin with, for an encoder that is connected and has learned already.
        start_round: u64 = 0;
        /// Images per step, B; the last of an epoch may be fewer. Unset: 128, or fewer of few images.
        batch: Option<usize> = None, min 2;
        /// Temperature of the soft-max over the bank, T.
        temperature: f64 = 0.1, above_zero;
        /// How much of its memory an image keeps per visit, m, 0–1.
        momentum: f64 = 0.5, below_one;
        /// Neighbors of an anchor that count as its class, itself not counted, k.
        neighbors: usize = 1, min 1;
        /// The share of images that each round adds to the anchors; unset: 1 / R, so that the last round takes all.
        select_rate: Option<f64> = None;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings { nesterov: true, ..OptimizerSettings::sgd(0.03, 0.9, 5e-4) }, nested;
        /// How the learning rate moves, within each round anew.
        // A milestone is the last epoch before the fall: 0.03 up to and with epoch 119.
        schedule: ScheduleSettings =
            ScheduleSettings { kind: ScheduleKind::Step, milestones: vec![119, 159], ..ScheduleSettings::constant() }, nested;
        /// What makes the view of an image.
        augment: Recipe = Instance::default().into(), nested;
    }
    and combinations
}

impl Config {
    fn rounds_run(&self) -> u64 {
        self.rounds - self.start_round + 1
    }

    /// The round of an epoch of so many, and the epoch's number in it, from 0.
    fn place(&self, epoch: u64, epochs: u64) -> (u64, u64) {
        let first = |nth: u64| (u128::from(nth) * u128::from(epochs) / u128::from(self.rounds_run())) as u64;
        let nth = (0..self.rounds_run()).rev().find(|&nth| first(nth) <= epoch).unwrap_or(0);
        (self.start_round + nth, epoch - first(nth))
    }
}

kinset_train::paced!(Config: 1000 epochs, 128 images a step, 5000 steps at least);

impl Config {
    fn combinations(&self) -> Vec<Complaint> {
        let epochs = self.epochs.unwrap_or(Self::USUAL.epochs);
        let mut found = Vec::new();
        let mut wrong = |field: &str, what: String| found.push(Complaint::new(field, what));
        if self.start_round > self.rounds {
            wrong("start_round", format!("is {}, and there are only {} `rounds`", self.start_round, self.rounds));
        } else if self.rounds - self.start_round >= epochs {
            let least = (self.rounds - self.start_round).saturating_add(1);
            wrong("epochs", format!("is {epochs}, and each of {least} rounds needs one"));
        }
        if let Some(rate) = self.select_rate
            && !(rate > 0.0 && rate * self.rounds as f64 <= 1.0 + 1e-9)
        {
            wrong("select_rate", format!("is {rate}; times {} `rounds` it must lie above 0 and at most at 1", self.rounds));
        }
        found
    }
}

kinset_stage::ports! {
    /// What AND reads.
    pub label_free struct In {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
        /// A network to begin with instead of a new one; its projections of the plain images fill the bank.
        encoder: Option<Stored<Encoder>>,
    }
}

kinset_stage::outputs! {
    /// What AND writes.
    pub struct Out {
        /// The network with its projection head.
        encoder: Draft<Encoder>,
        /// The memory bank, `[N, P]`: what the paper's votes are counted on.
        bank: Draft<Features>,
        /// Loss, learning rate, round, share and entropy of the anchors per epoch.
        curve: Draft<Curve>,
    }
}

/// The pretext stage.
#[derive(Debug)]
pub struct And;

impl Stage for And {
    const KIND: &'static str = "and";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "learn an encoder: an image and its nearest neighbor are one class";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let images = ImageSet::open(&input.images)?;
        if config.neighbors >= images.len() {
            return Err(StageError::TooFew {
                setting: "neighbors",
                value: config.neighbors,
                images: images.len(),
                hint: "an image is no neighbor of itself: ask for fewer `neighbors`, or add more images".into(),
            });
        }
        let course = config.course(images.len(), LEAST_BATCH, cx)?;
        let order = BatchOrder::whole(images.len(), course.batch, cx.seed)?;
        let (loader, net, bank) = match &input.encoder {
            None => fresh(config, &images, cx)?,
            Some(stored) => begun(config, stored, &images, cx)?,
        };
        let per_round = course.epochs.div_ceil(config.rounds_run());
        let batch = |at: At<'_>| Ok(loader.views(at.rows, &config.augment, cx.seed.branch("views").at(at.epoch))?);
        let (epochs, ranks) = (course.epochs, vec![None; images.len()]);
        let objective = Discovery { config, epochs, net: &net, bank, seen: None, found: None, ranks, cx };
        let mut trainer = Trainer {
            epochs,
            order,
            learner: Trainable::new(net.params(), net.params(), &course.optimizer, &course.schedule, per_round)?,
            prefetcher: Prefetcher::default(),
            batch,
            objective,
        };
        let curve = train(&mut trainer, cx)?;
        let values = trainer.objective.bank.values()?;
        let EncoderOut { encoder, curve } = pretext::finish(&net, &loader, curve, cx)?;
        let bank = FeatureTable {
            ids: images.ids().to_vec(),
            dim: values.len() / images.len(),
            values,
            normalized: true,
            encoder: digest_of(&encoder)?.hex(),
            layer: "projection".into(),
        };
        Ok(Out { encoder, bank: bank.save(&cx.out("bank")?)?, curve })
    }
}

impl Method for And {
    const CARD: PaperCard = PaperCard {
        paper: "J. Huang, Q. Dong, S. Gong, X. Zhu: Unsupervised Deep Learning by Neighbourhood Discovery, ICML 2019, arXiv \
                1904.11567, eq. 2–5; instance discrimination after Z. Wu et al., CVPR 2018",
        reads: "images; optionally an encoder to begin with",
        writes: "encoder (backbone + projection head), bank (features of the training images as they were remembered), curve",
        idea: "Every image is its own class, and what the network made of it before is the class's weight vector. Then, round by \
               round, images whose similarity to all others is most decided are joined with their nearest neighbor into one class.",
        loss: "x [B, P] unit rows, V [N, P] the bank; p = soft-max(x·Vᵀ / T) [B, N]; instance: −ln p_ii; anchor: \
               −ln(p_ii + Σ_{j ∈ neighbors(i)} p_ij); mean over B. After each step's gradient V_i ← unit(m·V_i + (1−m)·x_i)",
        selection: "none: the last epoch. (The authors keep each round's best epoch by test accuracy, which needs labels.) Per \
                    round the r/R images of lowest entropy are anchors, chosen anew",
        as_in_paper: "The authors' CIFAR-10 table: ResNet-18, linear head to 128, T 0.1, m 0.5, one neighbor, 4 rounds after the \
                      first, 200 epochs each, SGD 0.03 / 0.9 Nesterov / 5e-4, rate down tenfold after epochs 119 and 159 of each \
                      round, batch 128 with the partial last one, their crop law, jitter on every view with hue 0.4, no flip, \
                      PyTorch's default initialization, uniform bank",
        unlike_paper: "No accuracy is measured while training: `knn_eval` with `k = 200, temperature = 0.1` does that, on `bank` or on \
                       features of plain images. One image left over at the end of an epoch joins the batch before. Equal \
                       entropies and similarities go to the lower row. Channel statistics are measured on the images. Beginning \
                       from an encoder and a later round is an extension its users asked for. Where `epochs` or `batch` is not set, few images get \
                       smaller batches at a lower rate and more epochs, 5000 steps at least",
        expect: "CIFAR-10, ResNet-18, 1000 epochs: weighted kNN 86.3 (80.8 after the first round alone); the gain is in the first \
                 rounds with neighbors. The paper's own table is of an AlexNet (`backbone = \"alexnet\"`): CIFAR-10 74.8, CIFAR-100 \
                 41.5, SVHN 90.9, ImageNet 31.3",
    };
}

/// A new network as PyTorch starts one, and a bank of random directions.
fn fresh<'a>(
    config: &Config,
    images: &'a ImageSet,
    cx: &Context<'_>,
) -> Result<(ImageLoader<'a>, EncoderNet, Bank), StageError> {
    if config.start_round > 0 {
        return Err(StageError::Mismatch {
            what: format!("`start_round` is {}, but no encoder is connected that has learned already", config.start_round),
            hint: "connect `encoder`, or begin with round 0".into(),
        });
    }
    let (loader, net) = pretext::begin(images, config.size, &config.network, cx)?;
    let seed = cx.seed.branch("weights");
    for (name, var) in net.params().parameters() {
        if let [_, rest @ ..] = var.dims()
            && rest.len() == 3
        {
            let drawn = Init::Linear { inputs: rest.iter().product() }.draw(var.dims(), seed, name);
            var.set(&Tensor::from_vec(drawn, var.dims(), &cx.device)?)?;
        }
    }
    let bank = Bank::random(images.len(), config.network.projection_dim, cx.seed.branch("bank"), &cx.device)?;
    Ok((loader, net, bank))
}

/// A network that has learned before, and its projections as the bank.
fn begun<'a>(
    config: &Config,
    stored: &Stored<Encoder>,
    images: &'a ImageSet,
    cx: &Context<'_>,
) -> Result<(ImageLoader<'a>, EncoderNet, Bank), StageError> {
    let encoder = Encoder::load(stored)?;
    let architecture = &encoder.card.architecture;
    let Some(projection) = &architecture.projection else {
        return Err(StageError::Mismatch {
            what: format!("the encoder of `{}` has no projection head", stored.origin()),
            hint: "connect an encoder of `simclr` or `and`".into(),
        });
    };
    let size = config.size.unwrap_or(architecture.size);
    let loader = ImageLoader::like(images, architecture.channels, size, &encoder.card.normalization, &cx.device)?;
    // Numbers of its own: the stored ones stay as they are.
    let net = EncoderNet::from_tensors(&encoder.card, &encoder.tensors, &cx.device)?;
    if net.params().parameters().next().is_none() {
        return Err(StageError::Mismatch {
            what: format!("the encoder of `{}` has nothing to train", stored.origin()),
            hint: "connect an encoder that was learned".into(),
        });
    }
    let values = infer::features(&net, Layer::Projection, &loader, |_| cx.check())?;
    let bank = Bank::of(values, projection.dim, &cx.device)?;
    Ok((loader, net, bank))
}

/// The digest that the store will give an encoder, so that the bank can name it.
fn digest_of(encoder: &Draft<Encoder>) -> Result<Digest, StageError> {
    let mut files = Vec::new();
    for file in &encoder.files {
        let says = match file.logical {
            Some(says) => says,
            None => Digest::of_file(&file.path)?,
        };
        files.push((file.name, says));
    }
    Ok(content_digest(Encoder::KIND, files))
}

struct Discovery<'a> {
    config: &'a Config,
    epochs: u64,
    net: &'a EncoderNet,
    bank: Bank,
    /// What the network made of this batch, for the bank.
    seen: Option<Tensor>,
    /// The neighborhoods of this round; none in the first.
    found: Option<Found>,
    /// Of each image its rank among the anchors; follows from `found`.
    ranks: Vec<Option<u32>>,
    cx: &'a Context<'a>,
}

impl Discovery<'_> {
    fn discover(&mut self, round: u64) -> Result<(), StageError> {
        let Config { rounds, select_rate, neighbors, temperature, .. } = *self.config;
        let values = self.bank.values()?;
        let dim = values.len() / self.ranks.len();
        let count = anchor_count(self.ranks.len(), rounds, select_rate, round);
        let now = (round, count, neighbors);
        let found = discover(&values, dim, temperature, now, self.found.as_ref(), &self.cx.stop)?;
        self.cx.note(format!(
            "round {round} of {rounds}: {count} of {} images are anchors, mean entropy {:.3} of {:.3} nats",
            self.ranks.len(),
            found.anchor_entropy,
            found.entropy
        ));
        self.found = Some(found);
        self.rank();
        Ok(())
    }

    fn rank(&mut self) {
        self.ranks.fill(None);
        for (rank, &anchor) in self.found.iter().flat_map(|found| &found.anchors).enumerate() {
            self.ranks[anchor as usize] = Some(rank as u32);
        }
    }
}

impl Objective for Discovery<'_> {
    type Batch = Tensor;

    fn begin(&mut self, epoch: u64) -> Result<(), StageError> {
        let (round, _) = self.config.place(epoch, self.epochs);
        // A run that resumes in the middle of a round has its neighborhoods from the checkpoint: the bank has moved since.
        if round > 0 && self.found.as_ref().is_none_or(|found| found.round != round) {
            self.discover(round)?;
        }
        Ok(())
    }

    fn schedule_epoch(&self, epoch: u64) -> u64 {
        self.config.place(epoch, self.epochs).1
    }

    fn loss(&mut self, views: Tensor, at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let Self { config, net, bank, found, ranks, .. } = self;
        let k = if found.is_some() { config.neighbors } else { 0 };
        let neighbors = |row: usize| {
            let (found, rank) = (found.as_ref()?, ranks[row]? as usize);
            Some(&found.neighbors[rank * k..(rank + 1) * k])
        };
        let x = net.project(&net.features(&views, Mode::Train)?, Mode::Train)?;
        let loss = bank.loss(&x, &Positives::new(at.rows, k, neighbors), config.temperature)?;
        let value = scalar(&loss)?;
        // A loss that is no number is the loop's to report; the bank must not be asked to remember what made it.
        self.seen = value.is_finite().then_some(x);
        Ok((Some(loss), measured([("loss", value)])))
    }

    fn after(&mut self, at: At<'_>) -> Result<(), StageError> {
        self.seen.take().map_or(Ok(()), |x| self.bank.follow(at.rows, &x, self.config.momentum))
    }

    fn end(&mut self, epoch: u64, _means: &Measured, rate: f64) -> Result<Measured, StageError> {
        let (round, _) = self.config.place(epoch, self.epochs);
        let mut said = measured([("lr", rate), ("round", round as f64)]);
        if let Some(found) = &self.found {
            said.extend(measured([
                ("anchors", found.anchors.len() as f64 / self.ranks.len() as f64),
                ("entropy", found.entropy),
                ("anchor_entropy", found.anchor_entropy),
                ("kept", found.kept),
            ]));
        }
        Ok(said)
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        self.bank.state(snapshot)?;
        snapshot.value("found", &mut self.found)?;
        self.rank();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use kinset_base::seed::Seed;
    use kinset_stage::Settings;
    use kinset_train::schedule::step;

    #[test]
    fn the_rate_falls_where_the_authors_code_lets_it_fall() {
        let config = Config::default();
        for (epoch, expected) in [(0, 0.03), (79, 0.03), (80, 0.03), (119, 0.03), (120, 0.003), (159, 0.003), (160, 0.0003)] {
            let rate = config.schedule.rate(config.optimizer.lr, epoch, 200);
            assert!((rate - expected).abs() < 1e-12, "epoch {epoch}: {rate}");
        }
        assert!((step(0.03, 0.1, &[119, 159], 199) - 0.0003).abs() < 1e-12);
    }

    #[test]
    fn epochs_are_cut_evenly_and_each_round_begins_its_own_count() {
        let config = Config::default();
        assert_eq!([0, 199, 200, 999].map(|epoch| config.place(epoch, 1000)), [(0, 0), (0, 199), (1, 0), (4, 199)]);
        let rounds: Vec<u64> = (0..12).map(|epoch| config.place(epoch, 12).0).collect();
        assert_eq!(rounds, [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4]);
        let later = Config { start_round: 2, ..Config::default() };
        assert_eq!([0, 1, 2, 5].map(|epoch| later.place(epoch, 6)), [(2, 0), (2, 1), (3, 0), (4, 1)]);
        let plain = Config { rounds: 0, ..Config::default() };
        assert_eq!(plain.place(999, 1000), (0, 999));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = Config {
            epochs: Some(4),
            batch: Some(1),
            neighbors: 0,
            temperature: 0.0,
            momentum: 1.0,
            select_rate: Some(0.3),
            ..Config::default()
        };
        let fields: Vec<String> = wrong.check().into_iter().map(|complaint| complaint.path).collect();
        assert_eq!(fields, ["batch", "temperature", "momentum", "neighbors", "epochs", "select_rate"]);
        let late = Config { start_round: 5, ..Config::default() };
        assert_eq!(late.check()[0].path, "start_round");
        assert!(Config { epochs: Some(5), ..Config::default() }.check().is_empty());
    }

    #[test]
    fn an_image_counts_with_its_neighbors_once_it_is_an_anchor() {
        let near = [7_u32, 8];
        let positives = Positives::new(&[3, 4], 2, |row| (row == 4).then_some(&near[..]));
        let bank = Bank::random(9, 4, Seed::new(1), &Device::Cpu).unwrap();
        let x = Tensor::from_slice(&[0.5_f32; 8], (2, 4), &Device::Cpu).unwrap();
        let with = bank.loss(&x, &positives, 0.1).unwrap().to_scalar::<f32>().unwrap();
        let without = bank.loss(&x, &Positives::new(&[3, 4], 2, |_| None), 0.1).unwrap().to_scalar::<f32>().unwrap();
        assert!(with < without, "{with} {without}");
    }
}
