//! # BYOL: prediction of a momentum network's output for another view
//!
//! A pretext task without anything to differ from; k-means on its features rivals SCAN's whole pipeline: see [`Byol::CARD`].

use candle_core::{D, Tensor};

use kinset_artifact::encoder::ProjectionKind;
use kinset_artifact::images::ImageSet;
use kinset_augment::{Recipe, Simclr};
use kinset_kernel::l2_normalize;
use kinset_model::encoder::EncoderNet;
use kinset_model::settings::NetworkSettings;
use kinset_model::{Mode, Params, PredictionHead};
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::course::LEAST_BATCH;
use kinset_train::ema::blend;
use kinset_train::ports::{EncoderOut, ImagesIn};
use kinset_train::{
    At, BatchOrder, Measured, Objective, OptimizerSettings, Paced, Prefetcher, ScheduleSettings, Snapshot, Trainer, measured,
    pretext, scalar, train,
};

kinset_stage::settings! {
    /// Settings; the defaults are those of the paper's 300-epoch runs, brought to the size of CIFAR.
    pub struct Config {
        /// The network that learns. Without batch norm in the projection (`mlp`, `linear`) it may collapse.
        network: NetworkSettings =
            NetworkSettings { projection: ProjectionKind::MlpNorm, projection_dim: 256, ..NetworkSettings::default() }, nested;
        /// Hidden width of the predictor; unset: that of the projection head, D. The paper has 4096 for both.
        predictor_hidden: Option<usize> = None, within 1..=65_536;
        /// Side of the views, pixels; unset: that of the images.
        size: Option<usize> = None;
        /// Passes over the images; unset: 300, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Images per step, B; unset: 256, or fewer of few images.
        batch: Option<usize> = None, min 2, because "batch norm needs them";
        /// What stays of the target in the first step, τ; rises to 1 along half a cosine. The paper: 0.99 for 300 epochs, 0.996
        /// for 1000.
        target_decay: f64 = 0.99, below_one;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::sgd(0.05, 0.9, 5e-4), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings { warm_up: 10, ..ScheduleSettings::cosine(0.1) }, nested;
        /// What makes two views of an image.
        augment: Recipe = Simclr::default().into(), nested;
    }
}

kinset_train::paced!(Config: 300 epochs, 256 images a step, 3000 steps at least);

/// The pretext stage.
#[derive(Debug)]
pub struct Byol;

impl Stage for Byol {
    const KIND: &'static str = "byol";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "learn an encoder: predict a moving-average network's output for another view";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = ImagesIn;
    type Out = EncoderOut;

    fn run(config: &Config, input: ImagesIn, cx: &Context<'_>) -> Result<EncoderOut, StageError> {
        let images = ImageSet::open(&input.images)?;
        let course = config.course(images.len(), LEAST_BATCH, cx)?;
        let (loader, net) = pretext::begin(&images, config.size, &config.network, cx)?;
        let architecture = net.architecture();
        let hidden = config.predictor_hidden.unwrap_or(architecture.features);
        let predictor = PredictionHead::init(architecture.output(), hidden, cx.seed.branch("weights"), &cx.device)?;
        let mut online = Params::new();
        for (name, role, var) in net.params().iter().chain(predictor.params().iter()) {
            online.push(name, role, var.clone())?;
        }
        let batch = |at: At<'_>| {
            let seed = cx.seed.branch("views").at(at.epoch);
            let view = |number| loader.views(at.rows, &config.augment, seed.at(number));
            Ok([view(0)?, view(1)?])
        };
        let order = BatchOrder::new(images.len(), course.batch, cx.seed)?;
        // The target starts as an equal network, and no gradient ever reaches it.
        let target = net.duplicate()?.frozen()?;
        let objective = Bootstrap { config, net: &net, predictor, target, epochs: course.epochs, steps: order.steps() };
        let mut trainer = Trainer {
            epochs: course.epochs,
            order,
            learner: course.learner(&online, &online)?,
            prefetcher: Prefetcher::default(),
            batch,
            objective,
        };
        let curve = train(&mut trainer, cx)?;
        pretext::finish(&net, &loader, curve, cx)
    }
}

impl Method for Byol {
    const CARD: PaperCard = PaperCard {
        paper: "J.-B. Grill et al.: Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, NeurIPS 2020, arXiv \
                2006.07733, eq. 1 and 2, section 3",
        reads: "images",
        writes: "encoder (online backbone + projection head, no predictor), curve",
        idea: "From one view of an image, guess what a slower copy of the network makes of another view. Nothing pushes images \
               apart; the predictor, the slowness of the copy and batch norm keep them from falling into one point.",
        loss: "p = predictor(projection(online)) and z = projection(target) [B, P], z without gradient; \
               mean of 2 − 2 cos(p_1, z_2) plus mean of 2 − 2 cos(p_2, z_1); then θ_target ← τ θ_target + (1 − τ) θ_online with \
               τ = 1 − (1 − τ_base)(cos(π k/K) + 1)/2 in step k of K",
        selection: "none: the last epoch; a collapse is an error, not a result",
        as_in_paper: "projection and predictor of two linear layers with batch norm and ReLU between, to 256; τ_base 0.99 and \
                      300 epochs (the paper's shorter setting); symmetric loss; 10 epochs of warm-up, then cosine",
        unlike_paper: "SGD 0.05 / 0.9 / 5e-4 at batch 256, as is common on CIFAR, in place of LARS at batch 4096; decay falls on \
                       biases and batch norm too. Hidden layers as wide as the features (512 for ResNet-18; the paper: 4096). \
                       Both views by one recipe, SimCLR's without blur and solarization, which are for large images. The \
                       cosine ends at 0.1³ of the rate, not at 0. Where `epochs` or `batch` is not set, few images get smaller batches at \
                       a lower rate and more epochs, 3000 steps at least",
        expect: "k-means on the features of ResNet-18 after 1000 epochs: CIFAR-10 89.4 ACC, CIFAR-20 56.9 (ProPos, table 2, \
                 train and test images)",
    };
}

/// Below this spread of an epoch the projections count as one point. Ours; see [`spread`].
const COLLAPSE: f64 = 0.02;

struct Bootstrap<'a> {
    config: &'a Config,
    net: &'a EncoderNet,
    predictor: PredictionHead,
    target: EncoderNet,
    epochs: u64,
    /// Steps in an epoch.
    steps: u64,
}

impl Bootstrap<'_> {
    /// What stays of the target in a step. Never remembered: a run may resume at the very end of an epoch.
    fn decay(&self, epoch: u64, step: u64) -> f64 {
        decay_at(self.config.target_decay, epoch * self.steps + step, self.epochs * self.steps)
    }
}

impl Objective for Bootstrap<'_> {
    type Batch = [Tensor; 2];

    fn loss(&mut self, [first, second]: [Tensor; 2], _at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let Self { net, predictor, target, .. } = self;
        // View by view: batch norm sees B images at a time, as in the paper.
        let project = |net: &EncoderNet, view: &Tensor| net.projection(&net.features(view, Mode::Train)?, Mode::Train);
        let goals = [project(target, &second)?, project(target, &first)?];
        let projections = [project(net, &first)?, project(net, &second)?];
        let spread = f64::midpoint(spread(&projections[0])?, spread(&projections[1])?);
        let guesses = [predictor.forward(&projections[0], Mode::Train)?, predictor.forward(&projections[1], Mode::Train)?];
        let loss = (distance(&guesses[0], &goals[0])? + distance(&guesses[1], &goals[1])?)?;
        let shown = measured([("loss", scalar(&loss)?), ("spread", spread)]);
        Ok((Some(loss), shown))
    }

    fn after(&mut self, at: At<'_>) -> Result<(), StageError> {
        Ok(blend(self.target.params(), self.net.params(), self.decay(at.epoch, at.step))?)
    }

    fn end(&mut self, epoch: u64, means: &Measured, rate: f64) -> Result<Measured, StageError> {
        if let Some((_, spread)) = means.iter().find(|(name, _)| name == "spread")
            && *spread < COLLAPSE
        {
            return Err(collapsed(epoch, *spread, self.config.network.projection));
        }
        Ok(measured([("lr", rate), ("decay", self.decay(epoch, self.steps - 1))]))
    }

    fn state(&mut self, snapshot: &mut Snapshot) -> Result<(), StageError> {
        snapshot.params("target", self.target.params())
    }
}

fn collapsed(epoch: u64, spread: f64, projection: ProjectionKind) -> StageError {
    let norm = if projection == ProjectionKind::MlpNorm { "" } else { "set `network.projection = \"mlp_norm\"`, " };
    StageError::Degenerate {
        code: "byol::collapsed",
        what: format!(
            "all images have nearly the same projection: in epoch {} their spread is {spread:.4}, where 1 is even and less than \
             {COLLAPSE} is one point",
            epoch + 1
        ),
        hint: format!("{norm}lower `optimizer.lr` or `optimizer.weight_decay`, raise `target_decay` or `batch`"),
    }
}

/// What stays of the target in a step: rises from `base` to 1.
///
/// # Paper
/// Grill et al. 2020, section 3.3.
fn decay_at(base: f64, step: u64, steps: u64) -> f64 {
    let way = std::f64::consts::PI * step as f64 / steps as f64;
    1.0 - (1.0 - base) * (way.cos() + 1.0) / 2.0
}

/// The mean squared distance of directions, 2 − 2 cos: 0 if they agree, 4 if they are opposite.
///
/// # Shapes
/// `guess`, `goal`: `[B, P]`, rows of any length. Returns a scalar.
///
/// # Paper
/// Grill et al. 2020, eq. 2, one of its two directions.
pub fn distance(guess: &Tensor, goal: &Tensor) -> candle_core::Result<Tensor> {
    let cosine = (l2_normalize(guess)? * l2_normalize(&goal.detach())?)?.sum(D::Minus1)?;
    cosine.mean_all()?.affine(-2.0, 2.0)
}

/// How far apart the directions of rows are: the root of the summed variances of unit rows. 1 if all directions are taken evenly,
/// 0 if there is one.
///
/// # Shapes
/// `rows`: `[B, P]`, of any length.
pub fn spread(rows: &Tensor) -> candle_core::Result<f64> {
    let rows = l2_normalize(&rows.detach())?.to_dtype(candle_core::DType::F64)?;
    let apart = rows.broadcast_sub(&rows.mean_keepdim(0)?)?;
    Ok(apart.sqr()?.sum(D::Minus1)?.mean_all()?.to_scalar::<f64>()?.sqrt())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Var};
    use serde_json::Value;

    use super::*;
    use kinset_base::fault::Fault;
    use kinset_model::params::values;
    use kinset_model::testing::{assert_near, numbers, wave};
    use kinset_stage::Settings;

    fn golden() -> Value {
        serde_json::from_str(include_str!("../../tests/golden/pretext/byol.json")).unwrap()
    }

    fn online() -> [Tensor; 2] {
        [wave(&[4, 3], 0.9, 0.3, 2.0), wave(&[4, 3], 1.3, 0.1, 0.5)]
    }

    fn target() -> [Tensor; 2] {
        [wave(&[4, 3], 0.8, 0.5, 3.0), wave(&[4, 3], 1.7, 1.1, 0.7)]
    }

    fn symmetric(online: [&Tensor; 2], target: &[Tensor; 2]) -> Tensor {
        (distance(online[0], &target[1]).unwrap() + distance(online[1], &target[0]).unwrap()).unwrap()
    }

    #[test]
    fn loss_gradient_and_spread_are_those_of_pytorch() {
        let golden = golden();
        let online = online().map(|t| Var::from_tensor(&t).unwrap());
        let loss = symmetric([online[0].as_tensor(), online[1].as_tensor()], &target());
        assert_near("loss", &[loss.to_scalar::<f32>().unwrap()], &[golden["loss"].as_f64().unwrap()], 2e-6);
        let gradients = loss.backward().unwrap();
        for (var, wanted) in online.iter().zip(golden["gradients"].as_array().unwrap()) {
            assert_near("gradient", &values(gradients.get(var.as_tensor()).unwrap()).unwrap(), &numbers(wanted), 5e-6);
        }
        assert!((spread(&target()[0]).unwrap() - golden["spread"].as_f64().unwrap()).abs() < 1e-6);
    }

    #[test]
    fn the_gradient_equals_finite_differences_and_stops_at_the_target() {
        let wide = |t: Tensor| t.to_dtype(DType::F64).unwrap();
        let [first, second] = online().map(wide);
        let target = target().map(|t| Var::from_tensor(&wide(t)).unwrap());
        let goals = [target[0].as_tensor().clone(), target[1].as_tensor().clone()];
        let var = Var::from_tensor(&first).unwrap();
        let gradients = symmetric([var.as_tensor(), &second], &goals).backward().unwrap();
        assert!(target.iter().all(|goal| gradients.get(goal.as_tensor()).is_none()), "a gradient reached the target");
        let gradient = gradients.get(var.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (at, found) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut values = first.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                values[at] += by;
                let first = Tensor::from_vec(values, (4, 3), &Device::Cpu).unwrap();
                symmetric([&first, &second], &goals).to_scalar::<f64>().unwrap()
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - expected).abs() < 1e-7, "{at}: {found} instead of {expected}");
        }
    }

    #[test]
    fn only_directions_count_and_the_limits_are_0_and_4() {
        let [a, _] = online();
        let opposite = (&a * -3.0).unwrap();
        assert!(distance(&(&a * 5.0).unwrap(), &a).unwrap().to_scalar::<f32>().unwrap().abs() < 1e-6);
        assert!((distance(&a, &opposite).unwrap().to_scalar::<f32>().unwrap() - 4.0).abs() < 1e-6);
    }

    #[test]
    fn one_direction_has_no_spread_and_opposite_ones_have_all() {
        let tensor = |values: &[f32]| Tensor::from_slice(values, (values.len() / 2, 2), &Device::Cpu).unwrap();
        assert!(spread(&tensor(&[3.0, 4.0, 6.0, 8.0, 0.3, 0.4])).unwrap() < 1e-6);
        assert!((spread(&tensor(&[1.0, 0.0, -2.0, 0.0, 0.0, 3.0, 0.0, -1.0])).unwrap() - 1.0).abs() < 1e-6);
        assert!(spread(&tensor(&[0.0, 0.0, 0.0, 0.0])).unwrap() < 1e-6, "nor has nothing at all");
    }

    #[test]
    fn the_target_slows_down_along_half_a_cosine() {
        for case in golden()["decay"].as_array().unwrap() {
            let number = |name: &str| case[name].as_f64().unwrap();
            let found = decay_at(number("base"), number("step") as u64, number("steps") as u64);
            assert!((found - number("value")).abs() < 1e-15, "{case}: {found}");
        }
        assert!((1.0 - decay_at(0.99, 100, 100)).abs() < 1e-15, "at the end it no longer moves");
    }

    #[test]
    fn a_collapse_says_what_to_change() {
        let error = collapsed(4, 0.0012, ProjectionKind::Linear);
        assert_eq!(error.code(), "byol::collapsed");
        assert!(error.to_string().contains("in epoch 5 their spread is 0.0012"), "{error}");
        assert!(error.hint().unwrap().starts_with("set `network.projection = \"mlp_norm\"`, lower"));
        assert!(collapsed(4, 0.0, ProjectionKind::MlpNorm).hint().unwrap().starts_with("lower `optimizer.lr`"));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let paths = |config: Config| config.check().into_iter().map(|found| found.path).collect::<Vec<_>>();
        let wrong =
            Config { epochs: Some(0), batch: Some(1), predictor_hidden: Some(0), target_decay: 1.0, ..Config::default() };
        assert_eq!(paths(wrong), ["predictor_hidden", "epochs", "batch", "target_decay"]);
        assert!(paths(Config::default()).is_empty());
    }
}
