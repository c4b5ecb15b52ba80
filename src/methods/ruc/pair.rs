//! The training of two networks that teach each other.
//!
//! In each epoch the first learns with the second as its peer, then the second with the first. The labels are
//! shared and change during both passes: a network that is sure of an image without a label gives it one, for good, and the next
//! batch sees it.

use candle_core::{D, Tensor};

use super::loss::{Mixing, cross_entropy, square_error, tensor_of};
use super::settings::{Config, Head, Statistics};
use kinset_base::seed::Seed;
use kinset_math::entropy::entropy_of_counts;
use kinset_math::targets::{guess, min_max, refine, sharpen, smooth};
use kinset_math::topk::{argmax, argmax_rows};
use kinset_model::{ClassifierNet, Mode};
use kinset_stage::{StageError, Stop};
use kinset_train::collapse::{ClusterSizes, PATIENCE};
use kinset_train::prefetch::Place;
use kinset_train::{BatchOrder, Course, ImageLoader, Measured, Prefetcher, Snapshot, Trainable, TrainingLoop, infer, measured};

/// The label of each image, shared by both networks.
#[derive(Clone, Debug, PartialEq)]
pub struct PseudoLabels {
    /// `[N]`: its cluster; of images without a label, the one the clustering gave them, which nobody looks at.
    pub label: Vec<u32>,
    /// `[N]`: whether that is its label.
    pub clean: Vec<bool>,
}

/// One of the two.
struct Network {
    net: ClassifierNet,
    /// The same numbers, seen without recording.
    teacher: ClassifierNet,
    learner: Trainable,
    /// `[N]`: how sure it was of each plain image when it last trained on it; −1 before that.
    sure: Vec<f32>,
    /// `[N]`: the same after its last pass, scaled to 0–1: what its peer goes by. All 0 before the first.
    trust: Vec<f32>,
}

/// The views of a batch.
struct Views {
    plain: Tensor,
    weak: [Tensor; 2],
    strong: Tensor,
}

/// Two networks in training.
pub(super) struct Pair<'a> {
    config: &'a Config,
    course: Course,
    loader: ImageLoader<'a>,
    networks: [Network; 2],
    /// Of either network: each pass has an order of its own.
    orders: [BatchOrder; 2],
    labels: PseudoLabels,
    prefetcher: Prefetcher<Views, StageError>,
    seed: Seed,
    /// Images that got a label in this epoch.
    relabeled: usize,
    /// Clusters in use by the labels that came in: e to the entropy of their sizes.
    start: f64,
    /// Of the last epoch that ended.
    pub(super) sizes: ClusterSizes,
    stop: Stop,
}

/// At most this share of the clusters that were in use at the start is a collapse.
const COLLAPSE: f64 = 0.5;

/// Branches of the seed, and groups of tensors in a checkpoint.
const NAMES: [&str; 2] = ["first", "second"];

impl<'a> Pair<'a> {
    /// Two copies of a classifier of one head, or of its backbone with a new head each.
    ///
    /// # Errors
    /// Settings out of range, fewer images than a batch, a device without room.
    pub(super) fn new(
        (config, course): (&'a Config, Course),
        loader: ImageLoader<'a>,
        base: &ClassifierNet,
        labels: PseudoLabels,
        seed: Seed,
        device: &candle_core::Device,
        stop: &Stop,
    ) -> Result<Self, StageError> {
        let clusters = base.clusters();
        let network = |name: &str| -> Result<Network, StageError> {
            let net = match config.head {
                Head::New => {
                    let body = base.encoder().without_projection()?.duplicate()?;
                    ClassifierNet::init(&body, clusters, 1, None, seed.branch("head").branch(name), device)?
                }
                Head::Kept => base.duplicate()?,
            };
            Ok(Network {
                teacher: net.frozen()?,
                learner: course.learner(net.params(), net.params())?,
                net,
                sure: vec![-1.0; loader.len()],
                trust: vec![0.0; loader.len()],
            })
        };
        let networks = [network(NAMES[0])?, network(NAMES[1])?];
        let mut sizes = vec![0_u64; clusters];
        labels.label.iter().for_each(|&label| sizes[label as usize] += 1);
        let order = |name: &str| BatchOrder::whole(loader.len(), course.batch, seed.branch(name));
        let orders = [order(NAMES[0])?, order(NAMES[1])?];
        Ok(Self {
            config,
            course,
            networks,
            orders,
            labels,
            prefetcher: Prefetcher::default(),
            seed,
            relabeled: 0,
            start: entropy_of_counts(&sizes).exp(),
            sizes: ClusterSizes::new(clusters),
            loader,
            stop: stop.clone(),
        })
    }

    pub(super) fn nets(&self) -> [&ClassifierNet; 2] {
        [&self.networks[0].net, &self.networks[1].net]
    }

    /// `[N, K]`: what both say together of the plain images, and the share of images on whose cluster they agree.
    fn together(&self) -> Result<(Vec<f32>, f64), StageError> {
        let tick = |_| Ok::<_, StageError>(self.stop.check()?);
        let of = |net| infer::probabilities(net, &[0], &self.loader, tick).map(|mut p| p.swap_remove(0));
        let [first, second] = self.nets();
        let (first, second, k) = (of(first)?, of(second)?, first.clusters());
        let agree = argmax_rows(&first, k).into_iter().zip(argmax_rows(&second, k)).filter(|(a, b)| a == b).count();
        Ok((product(&first, &second, k), agree as f64 / self.loader.len() as f64))
    }
}

/// Rows of probabilities whose logits are the sums of two others' logits.
fn product(first: &[f32], second: &[f32], clusters: usize) -> Vec<f32> {
    let mut both = Vec::with_capacity(first.len());
    for (a, b) in first.chunks_exact(clusters).zip(second.chunks_exact(clusters)) {
        let row: Vec<f64> = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).collect();
        // Two networks that are wholly sure of different clusters cancel out: then nothing is known.
        let sum: f64 = row.iter().sum();
        both.extend(row.iter().map(|p| if sum > 0.0 { (p / sum) as f32 } else { 1.0 / clusters as f32 }));
    }
    both
}

/// What a network says of views: rows of probabilities.
fn said(teacher: &ClassifierNet, views: &Tensor, mode: Mode) -> Result<Vec<Vec<f32>>, StageError> {
    let logits = teacher.logits(0, &teacher.features(views, mode)?)?;
    Ok(candle_nn::ops::softmax(&logits, D::Minus1)?.to_vec2::<f32>()?)
}

/// A step in numbers.
#[derive(Debug, Default)]
struct Step {
    loss: f64,
    labeled: f64,
    guessed: f64,
    smoothed: f64,
    relabeled: usize,
    all_labeled: bool,
    none_labeled: bool,
}

/// What the step of one network needs to know.
struct StepInput<'a> {
    config: &'a Config,
    rows: &'a [usize],
    /// Share of λ_U.
    ramp: f64,
    /// τ₂.
    relabel_from: f64,
    /// Of this step.
    seed: Seed,
}

/// One step of `own` with `peer` as its teacher.
///
/// Eight forward passes in the authors' order, for each of them moves running statistics: `own` on the plain and both weak views,
/// `own` on the strong one, `peer` on the first three, `own` on the mixed batch. Gradients flow through the fourth and the last.
fn learn(
    own: &mut Network,
    peer: &Network,
    labels: &mut PseudoLabels,
    views: &Views,
    input: &StepInput<'_>,
) -> Result<Step, StageError> {
    let StepInput { config, rows, ramp, relabel_from, seed } = *input;
    let clusters = own.net.clusters();
    // The split at the beginning of the batch holds for all of it.
    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&at| labels.clean[rows[at]]);
    let mut step = Step { all_labeled: outside.is_empty(), none_labeled: inside.is_empty(), ..Step::default() };
    let mut parts = Vec::new();

    let own_said = [
        said(&own.teacher, &views.plain, Mode::Train)?,
        said(&own.teacher, &views.weak[0], Mode::Train)?,
        said(&own.teacher, &views.weak[1], Mode::Train)?,
    ];
    if inside.is_empty() {
        // Nothing to learn from, yet the running statistics see the view as in any other step.
        own.teacher.features(&views.strong, Mode::Train)?;
    } else {
        let logits = own.net.logits(0, &own.net.features(&views.strong, Mode::Train)?)?;
        let epsilon = if config.random_smoothing { seed.branch("smoothing").rng().unit() } else { config.smoothing };
        let targets: Vec<Vec<f64>> =
            inside.iter().map(|&at| smooth(labels.label[rows[at]] as usize, clusters, epsilon)).collect();
        let chosen = Tensor::new(inside.iter().map(|&at| at as u32).collect::<Vec<_>>(), logits.device())?;
        let loss = cross_entropy(&logits.index_select(&chosen, 0)?, &tensor_of(&targets, &logits)?)?;
        step.smoothed = f64::from(loss.to_scalar::<f32>()?);
        parts.push(loss);
    }
    let mode = if config.peer_statistics == Statistics::Batch { Mode::Train } else { Mode::Eval };
    let peer_said = [
        said(&peer.teacher, &views.plain, mode)?,
        said(&peer.teacher, &views.weak[0], mode)?,
        said(&peer.teacher, &views.weak[1], mode)?,
    ];

    let sharp = |mut target: Vec<f64>| {
        sharpen(&mut target, config.temperature);
        target
    };
    let refined: Vec<Vec<f64>> = inside
        .iter()
        .map(|&at| {
            let row = rows[at];
            sharp(refine(labels.label[row] as usize, &peer_said[0][at], f64::from(peer.trust[row])))
        })
        .collect();
    let guessed: Vec<Vec<f64>> = outside
        .iter()
        .map(|&at| sharp(guess(&[&own_said[1][at], &own_said[2][at], &peer_said[1][at], &peer_said[2][at]])))
        .collect();

    // Both weak views of the images with a label, then both of those without.
    let second = rows.len();
    let shifted = |part: &[usize]| part.iter().map(|at| at + second).collect::<Vec<_>>();
    let order = [inside.clone(), shifted(&inside), outside.clone(), shifted(&outside)].concat();
    let targets = [refined.clone(), refined, guessed.clone(), guessed].concat();
    let mixing = Mixing::draw(order.len(), config.mixup, &mut seed.branch("mixing").rng());
    let weak = Tensor::cat(&views.weak, 0)?;
    let mixed = mixing.of_images(&weak, &order)?;
    let logits = own.net.logits(0, &own.net.features(&mixed, Mode::Train)?)?;
    let targets = tensor_of(&mixing.of_targets(&targets), &logits)?;
    // The mean of nothing is no number: a part without images is left out.
    let (edge, all) = (2 * inside.len(), order.len());
    if edge > 0 {
        let loss = cross_entropy(&logits.narrow(0, 0, edge)?, &targets.narrow(0, 0, edge)?)?;
        step.labeled = f64::from(loss.to_scalar::<f32>()?);
        parts.push(loss);
    }
    if edge < all {
        let loss = square_error(&logits.narrow(0, edge, all - edge)?, &targets.narrow(0, edge, all - edge)?)?;
        let loss = (loss * (config.guess_weight * ramp))?;
        step.guessed = f64::from(loss.to_scalar::<f32>()?);
        parts.push(loss);
    }
    let total = Tensor::stack(&parts, 0)?.sum_all()?;
    own.learner.descend(&total)?;
    step.loss = f64::from(total.to_scalar::<f32>()?);

    for (p, &row) in own_said[0].iter().zip(rows) {
        let Some(best) = argmax(p) else { continue };
        own.sure[row] = p[best];
        if !labels.clean[row] && f64::from(p[best]) >= relabel_from {
            (labels.clean[row], labels.label[row]) = (true, best as u32);
            step.relabeled += 1;
        }
    }
    Ok(step)
}

impl TrainingLoop for Pair<'_> {
    fn epochs(&self) -> u64 {
        self.course.epochs
    }

    fn steps(&self) -> u64 {
        self.orders.iter().map(BatchOrder::steps).sum()
    }

    fn begin(&mut self, epoch: u64) -> Result<(), StageError> {
        self.orders.iter_mut().for_each(|order| order.begin(epoch));
        self.networks.iter_mut().for_each(|network| network.learner.begin(epoch));
        Ok(())
    }

    fn step(&mut self, epoch: u64, step: u64) -> Result<Measured, StageError> {
        let Self { config, course, loader, networks: [first, second], orders, labels, prefetcher, seed, relabeled, .. } = self;
        let half = orders[0].steps();
        let (turn, step) = (step / half, step % half);
        let (own, peer, order) = if turn == 0 { (first, second, &orders[0]) } else { (second, first, &orders[1]) };
        let pass = 2 * epoch + turn;
        let at = seed.branch("views").at(pass);
        let make = |step| {
            let rows = order.rows(step);
            let weak = |number| loader.views(rows, &config.weak, at.branch("weak").at(number));
            let strong = loader.views(rows, &config.strong, at.branch("strong"))?;
            Ok(Views { plain: loader.plain(rows)?, weak: [weak(0)?, weak(1)?], strong })
        };
        let input = StepInput {
            config,
            rows: order.rows(step),
            ramp: config.ramp(epoch, step, loader.len(), course),
            relabel_from: config.relabel_from(epoch, course.epochs),
            seed: seed.branch("step").at(pass).at(step),
        };
        let place = Place { epoch: pass, step, steps: half };
        let found = prefetcher.step(place, make, |views| learn(own, peer, labels, &views, &input))?;
        if step + 1 == half {
            own.trust = min_max(&own.sure);
        }
        *relabeled += found.relabeled;
        Ok(measured([
            ("loss", found.loss),
            ("labeled", found.labeled),
            ("guessed", found.guessed),
            ("smoothed", found.smoothed),
            ("all_labeled", f64::from(u8::from(found.all_labeled))),
            ("none_labeled", f64::from(u8::from(found.none_labeled))),
        ]))
    }

    fn end(&mut self, epoch: u64, _means: &Measured) -> Result<Measured, StageError> {
        let (probabilities, agreement) = self.together()?;
        self.sizes = ClusterSizes::new(self.networks[0].net.clusters());
        self.sizes.observe(&probabilities);
        // A new head begins with a few clusters; in the second half it has had its time, unless that is a handful of steps.
        let late = 2 * (epoch + 1) > self.course.epochs && (epoch + 1) * self.orders[0].steps() >= PATIENCE;
        let in_use = self.sizes.entropy().exp();
        if late && in_use <= COLLAPSE * self.start {
            return Err(StageError::Degenerate {
                code: "ruc::collapsed",
                what: format!(
                    "the clusters collapsed in epoch {}: {in_use:.1} are in use, {:.1} were before; sizes {:?}",
                    epoch + 1,
                    self.start,
                    self.sizes.counts()
                ),
                hint: "keep the classifier this stage started from, or lower `optimizer.lr` or `guess_weight`, train for more \
                       `epochs`, or let more images keep their label (`sampling`, `confidence_threshold`)"
                    .into(),
            });
        }
        let clusters = self.networks[0].net.clusters();
        let confidence: f64 =
            probabilities.chunks_exact(clusters).map(|p| f64::from(p.iter().copied().fold(0.0, f32::max))).sum();
        let smallest = self.sizes.counts().iter().min().copied().unwrap_or(0);
        let clean = self.labels.clean.iter().filter(|clean| **clean).count();
        let relabeled = std::mem::take(&mut self.relabeled);
        Ok(measured([
            ("clean", clean as f64),
            ("relabeled", relabeled as f64),
            ("relabel_threshold", self.config.relabel_from(epoch, self.course.epochs)),
            ("agreement", agreement),
            ("confidence", confidence / self.loader.len() as f64),
            ("clusters_in_use", in_use),
            ("smallest_cluster", smallest as f64),
            ("lr", self.networks[0].learner.rate()),
        ]))
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        for (network, name) in self.networks.iter_mut().zip(NAMES) {
            network.learner.state(name, snapshot)?;
            snapshot.floats(&format!("{name}/sure"), &mut network.sure)?;
            snapshot.floats(&format!("{name}/trust"), &mut network.trust)?;
        }
        snapshot.value("label", &mut self.labels.label)?;
        snapshot.value("clean", &mut self.labels.clean)?;
        snapshot.value("relabeled", &mut self.relabeled)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use kinset_artifact::encoder::{Backbone, Projection, ProjectionKind, Stem};
    use kinset_artifact::images::{ImageSet, ImagesInfo, ImagesWriter, Picture};
    use kinset_artifact::pixels::Pixels;
    use kinset_artifact::testing::stored;
    use kinset_model::params::values;
    use kinset_model::{EncoderNet, Role, architecture};
    use kinset_train::Paced as _;
    use kinset_train::settings::OptimizerSettings;

    const IMAGES: usize = 24;
    const CLUSTERS: usize = 3;

    fn images(dir: &std::path::Path) -> ImageSet {
        let mut writer = ImagesWriter::create(dir, &ImagesInfo::new("test")).unwrap();
        for row in 0..IMAGES {
            // Bars: flat, upright, slanted.
            let at = |i: usize| match row % CLUSTERS {
                0 => i / 8 % 4,
                1 => i % 8 % 4,
                _ => (i / 8 + i % 8) % 4,
            };
            writer.push(Picture::Raw(Pixels::new(8, 8, 1, (0..64).map(|i| (at(i) * 60 + row) as u8).collect()))).unwrap();
        }
        ImageSet::open(&stored(&writer.finish().unwrap().0)).unwrap()
    }

    fn config() -> Config {
        Config { epochs: Some(4), batch: Some(8), ..Config::default() }
    }

    fn pair<'a>(config: &'a Config, set: &'a ImageSet, clean: impl Fn(usize) -> bool) -> Pair<'a> {
        let projection = Some(Projection { kind: ProjectionKind::Linear, dim: 4 });
        let shape = architecture(Backbone::ResnetTiny, Stem::Cifar, 4, 1, 8, projection).unwrap();
        let encoder = EncoderNet::init(&shape, Seed::new(1), &Device::Cpu).unwrap();
        let loader = ImageLoader::of(set, None, &Device::Cpu, &Stop::default()).unwrap();
        let labels = PseudoLabels {
            label: (0..IMAGES).map(|row| (row % CLUSTERS) as u32).collect(),
            clean: (0..IMAGES).map(clean).collect(),
        };
        let base = ClassifierNet::init(&encoder, CLUSTERS, 1, None, Seed::new(3), &Device::Cpu).unwrap();
        let course = config.course_of(8, IMAGES).unwrap();
        Pair::new((config, course), loader, &base, labels, Seed::new(2), &Device::Cpu, &Stop::default()).unwrap()
    }

    fn numbers(pair: &Pair<'_>, which: usize, role: Role) -> Vec<f32> {
        let all = pair.networks[which].net.params().iter().filter(|(_, found, _)| *found == role);
        all.flat_map(|(_, _, var)| values(var).unwrap()).collect()
    }

    fn epoch(pair: &mut Pair<'_>, epoch: u64) -> Vec<Measured> {
        pair.begin(epoch).unwrap();
        (0..pair.steps()).map(|step| pair.step(epoch, step).unwrap()).collect()
    }

    fn of(measured: &Measured, name: &str) -> f64 {
        measured.iter().find(|(found, _)| found == name).unwrap().1
    }

    #[test]
    fn both_start_from_one_backbone_with_heads_of_their_own_and_no_projection() {
        let dir = tempfile::tempdir().unwrap();
        let (set, config) = (images(dir.path()), config());
        let pair = pair(&config, &set, |_| true);
        let [first, second] = pair.nets();
        for (name, _, var) in first.params().iter() {
            let other = second.params().get(name).unwrap();
            assert_eq!(values(var).unwrap() == values(other).unwrap(), name.starts_with("backbone."), "{name}");
            assert!(!name.starts_with("contrastive_head"));
        }
        assert!(first.params().get("cluster_head.0.weight").is_some());
    }

    #[test]
    fn heads_that_are_kept_are_equal_and_part_as_they_learn() {
        let dir = tempfile::tempdir().unwrap();
        let (set, config) = (images(dir.path()), Config { head: Head::Kept, ..config() });
        let mut pair = pair(&config, &set, |row| row % 2 == 0);
        let head = |pair: &Pair<'_>, which: usize| values(pair.nets()[which].params().get("cluster_head.0.weight").unwrap());
        let start = head(&pair, 0).unwrap();
        assert_eq!(start, head(&pair, 1).unwrap());
        epoch(&mut pair, 0);
        let learned = [0, 1].map(|which| head(&pair, which).unwrap());
        assert!(learned[0] != start && learned[1] != start && learned[0] != learned[1]);
    }

    #[test]
    fn a_batch_all_or_none_of_which_has_labels_gives_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let set = images(dir.path());
        for all in [true, false] {
            let config = Config { relabel_threshold: 1.0, ..config() };
            let mut pair = pair(&config, &set, |_| all);
            for measured in epoch(&mut pair, 0) {
                assert!(measured.iter().all(|(_, value)| value.is_finite()), "{measured:?}");
                assert!(of(&measured, "loss") > 0.0);
                assert!((of(&measured, "guessed") > 0.0) != all && (of(&measured, "labeled") > 0.0) == all);
                assert!((of(&measured, "smoothed") > 0.0) == all);
                assert!((of(&measured, "all_labeled") - f64::from(u8::from(all))).abs() < 1e-12);
            }
            assert!(numbers(&pair, 0, Role::Parameter).iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn a_single_image_with_a_label_teaches() {
        let dir = tempfile::tempdir().unwrap();
        let (set, config) = (images(dir.path()), config());
        let mut pair = pair(&config, &set, |row| row == 5);
        let measured = epoch(&mut pair, 0);
        assert_eq!(measured.iter().filter(|step| of(step, "smoothed") > 0.0).count(), 2, "once per network");
    }

    #[test]
    fn the_first_learns_while_the_second_stays_but_for_its_running_statistics() {
        let dir = tempfile::tempdir().unwrap();
        let set = images(dir.path());
        for statistics in [Statistics::Batch, Statistics::Running] {
            let config = Config { peer_statistics: statistics, ..config() };
            let mut pair = pair(&config, &set, |row| row % 2 == 0);
            let before = [0, 1].map(|which| [Role::Parameter, Role::Buffer].map(|role| numbers(&pair, which, role)));
            pair.begin(0).unwrap();
            pair.step(0, 0).unwrap();
            let same = |which, place: usize, role| numbers(&pair, which, role) == before[which][place];
            assert!(!same(0, 0, Role::Parameter) && !same(0, 1, Role::Buffer));
            assert!(same(1, 0, Role::Parameter));
            assert_eq!(same(1, 1, Role::Buffer), statistics == Statistics::Running);
        }
    }

    #[test]
    fn a_sure_network_gives_a_label_for_good_and_the_peer_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let set = images(dir.path());
        // Whatever is most probable is sure enough.
        let config = Config { relabel_threshold: 0.0, ..config() };
        let mut pair = pair(&config, &set, |row| row % 4 == 0);
        let measured = epoch(&mut pair, 0);
        let half = measured.len() / 2;
        assert!(of(&measured[0], "guessed") > 0.0, "the batch goes on with the split it began with");
        assert!(measured[half..].iter().all(|step| of(step, "all_labeled") > 0.5), "the second finds all labeled");
        assert!(pair.labels.clean.iter().all(|clean| *clean));
        for row in (0..IMAGES).step_by(4) {
            assert_eq!(pair.labels.label[row] as usize, row % CLUSTERS, "a label that was there stays");
        }
        let end = pair.end(0, &Vec::new()).unwrap();
        assert_eq!((of(&end, "relabeled"), of(&end, "clean")), (18.0, 24.0));
    }

    #[test]
    fn trust_is_nothing_before_the_first_pass_and_scaled_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (set, config) = (images(dir.path()), config());
        let mut pair = pair(&config, &set, |row| row % 2 == 0);
        pair.begin(0).unwrap();
        let half = pair.steps() / 2;
        for step in 0..half {
            assert!(pair.networks.iter().all(|network| network.trust.iter().all(|&w| w == 0.0)));
            pair.step(0, step).unwrap();
        }
        let trust = &pair.networks[0].trust;
        assert!(trust.contains(&0.0) && trust.contains(&1.0) && trust.iter().all(|w| (0.0..=1.0).contains(w)));
        assert!(pair.networks[1].trust.iter().all(|&w| w == 0.0));
    }

    #[test]
    fn two_networks_learn_what_the_labels_say() {
        let dir = tempfile::tempdir().unwrap();
        let set = images(dir.path());
        let optimizer = OptimizerSettings { lr: 0.05, ..Config::default().optimizer };
        let config = Config { epochs: Some(12), optimizer, weak: kinset_augment::Plain::default().into(), ..config() };
        let mut pair = pair(&config, &set, |row| row < 18);
        for number in 0..12 {
            epoch(&mut pair, number);
            pair.end(number, &Vec::new()).unwrap();
        }
        let (said, agreement) = pair.together().unwrap();
        let right = argmax_rows(&said, CLUSTERS).iter().enumerate().filter(|(row, k)| row % CLUSTERS == **k).count();
        assert!(right >= 22 && agreement > 0.8, "{right} of {IMAGES}, agreement {agreement}");
    }

    #[test]
    fn clusters_that_fall_into_one_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (set, mut config) = (images(dir.path()), config());
        config.epochs = Some(40);
        let mut pair = pair(&config, &set, |_| true);
        for network in &pair.networks {
            let bias = network.net.params().get("cluster_head.0.bias").unwrap();
            bias.set(&Tensor::new(&[0_f32, 1e3, 0.0], &Device::Cpu).unwrap()).unwrap();
        }
        for early in [0, 18, 32] {
            assert!(pair.end(early, &Vec::new()).is_ok(), "too early to tell");
        }
        let error = pair.end(33, &Vec::new()).unwrap_err();
        assert!(error.to_string().contains("1.0 are in use, 3.0 were before; sizes [0, 24, 0]"), "{error}");
        pair.start = 1.9;
        assert!(pair.end(39, &Vec::new()).is_ok(), "what came in was hardly better");
    }

    #[test]
    fn what_was_saved_goes_on_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let set = images(dir.path());
        let config = Config { relabel_threshold: 0.4, ..config() };
        let (mut straight, mut stopped) = (pair(&config, &set, |row| row % 2 == 0), pair(&config, &set, |row| row % 2 == 0));
        epoch(&mut straight, 0);
        let wanted = epoch(&mut straight, 1);
        epoch(&mut stopped, 0);
        stopped.begin(1).unwrap();
        (0..4).for_each(|step| drop(stopped.step(1, step).unwrap()));
        let mut snapshot = Snapshot::default();
        stopped.state(&mut snapshot).unwrap();
        let mut resumed = pair(&config, &set, |_| false);
        resumed.state(&mut snapshot.restoring()).unwrap();
        resumed.begin(1).unwrap();
        let found: Vec<Measured> = (4..resumed.steps()).map(|step| resumed.step(1, step).unwrap()).collect();
        assert_eq!(found, wanted[4..]);
        assert_eq!(resumed.labels, straight.labels);
        for which in [0, 1] {
            assert_eq!(numbers(&resumed, which, Role::Parameter), numbers(&straight, which, Role::Parameter));
            assert_eq!(numbers(&resumed, which, Role::Buffer), numbers(&straight, which, Role::Buffer));
        }
    }

    #[test]
    fn probabilities_multiply_where_logits_add_up() {
        let both = product(&[0.5, 0.5, 0.9, 0.1], &[0.8, 0.2, 0.5, 0.5], 2);
        assert!(both.iter().zip([0.8, 0.2, 0.9, 0.1]).all(|(found, wanted)| (found - wanted).abs() < 1e-6), "{both:?}");
        assert_eq!(product(&[1.0, 0.0], &[0.0, 1.0], 2), [0.5, 0.5]);
    }
}
