//! # SimCLR: contrastive learning of two views within a batch
//!
//! The pretext task of SCAN on small images, as SCAN's authors run it: see [`SimClr::CARD`].

use candle_core::{D, Tensor};

use kinset_artifact::images::ImageSet;
use kinset_augment::{Recipe, Simclr};
use kinset_model::Mode;
use kinset_model::encoder::EncoderNet;
use kinset_model::settings::NetworkSettings;
use kinset_stage::{Context, Method, PaperCard, Stage, StageError};
use kinset_train::course::LEAST_BATCH;
use kinset_train::ports::{EncoderOut, ImagesIn};
use kinset_train::{
    At, BatchOrder, Measured, Objective, OptimizerSettings, Paced, Prefetcher, ScheduleSettings, Trainer, measured, pretext,
    scalar, train,
};

kinset_stage::settings! {
    /// Settings; the defaults are those of SCAN's `configs/pretext/simclr_cifar10.yml`.
    pub struct Config {
        /// The network that learns.
        network: NetworkSettings = NetworkSettings::default(), nested;
        /// Side of the views, pixels; unset: that of the images.
        size: Option<usize> = None;
        /// Passes over the images; unset: 500, or more on few images.
        epochs: Option<u64> = None, min 1;
        /// Images per step, B; the network sees 2B views. Unset: 512, or fewer of few images.
        batch: Option<usize> = None, min 2, because "an image needs another to differ from";
        /// Temperature of the loss, τ.
        temperature: f64 = 0.1, above_zero;
        /// How weights move.
        optimizer: OptimizerSettings = OptimizerSettings::sgd(0.4, 0.9, 1e-4), nested;
        /// How the learning rate moves.
        schedule: ScheduleSettings = ScheduleSettings::cosine(0.1), nested;
        /// What makes two views of an image.
        augment: Recipe = Simclr::default().into(), nested;
    }
}

kinset_train::paced!(Config: 500 epochs, 512 images a step, 3000 steps at least);

/// The pretext stage.
#[derive(Debug)]
pub struct SimClr;

impl Stage for SimClr {
    const KIND: &'static str = "simclr";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "learn an encoder: two views of an image agree";
    const SEEDED: bool = true;
    const ON_DEVICE: bool = true;

    type Config = Config;
    type In = ImagesIn;
    type Out = EncoderOut;

    fn run(config: &Config, input: ImagesIn, cx: &Context<'_>) -> Result<EncoderOut, StageError> {
        let images = ImageSet::open(&input.images)?;
        let course = config.course(images.len(), LEAST_BATCH, cx)?;
        let (loader, net) = pretext::begin(&images, config.size, &config.network, cx)?;
        // Both views pass through the network together: batch norm sees 2B images.
        let batch = |at: At<'_>| {
            let seed = cx.seed.branch("views").at(at.epoch);
            let view = |number| loader.views(at.rows, &config.augment, seed.at(number));
            Ok(Tensor::cat(&[view(0)?, view(1)?], 0)?)
        };
        let mut trainer = Trainer {
            epochs: course.epochs,
            order: BatchOrder::new(images.len(), course.batch, cx.seed)?,
            learner: course.learner(net.params(), net.params())?,
            prefetcher: Prefetcher::default(),
            batch,
            objective: Contrast { net: &net, temperature: config.temperature },
        };
        let curve = train(&mut trainer, cx)?;
        pretext::finish(&net, &loader, curve, cx)
    }
}

impl Method for SimClr {
    const CARD: PaperCard = PaperCard {
        paper: "T. Chen, S. Kornblith, M. Norouzi, G. Hinton: A Simple Framework for Contrastive Learning of Visual \
                Representations, ICML 2020, arXiv 2002.05709, eq. 1; as run by SCAN (ECCV 2020, arXiv 2005.12320)",
        reads: "images",
        writes: "encoder (backbone + projection head), curve",
        idea: "Two random views of one image should lie closer together than to the views of all other images in the batch. \
               What survives the random changes is what the image shows.",
        loss: "z [B, 2, P] unit rows; s = z[:,0] · cᵀ / τ with c = [z[:,0]; z[:,1]] [2B, P]; \
               mean over i of log Σ_{k≠i} exp(s_ik) − s_{i,B+i}",
        selection: "none: the last epoch",
        as_in_paper: "SCAN's CIFAR-10 table: ResNet-18, MLP head to 128, τ 0.1, SGD 0.4 / 0.9 / 1e-4, cosine to 0.1³ of the \
                      rate, batch 512, 500 epochs; random resized crop 0.2–1, flip, jitter 0.4/0.4/0.4/0.1 at 0.8, gray at 0.2",
        unlike_paper: "One-sided as in SCAN's code (B anchors, the first views); the paper's loss takes all 2B. No blur, no \
                       LARS, no warm-up by default, as in SCAN's code. Channel statistics are measured on the images, not \
                       looked up. Where `epochs` or `batch` is not set, few images get smaller batches at a lower rate and more epochs, 3000 steps at least",
        expect: "the SCAN table on CIFAR-10 needs 500 epochs on a GPU; on small gray images a few minutes of `resnet_tiny` on \
                 a CPU give features whose k-means beats that of the pixels, see `pipelines/fashion-mini.toml`",
    };
}

struct Contrast<'a> {
    net: &'a EncoderNet,
    temperature: f64,
}

impl Objective for Contrast<'_> {
    type Batch = Tensor;

    fn loss(&mut self, views: Tensor, _at: At<'_>) -> Result<(Option<Tensor>, Measured), StageError> {
        let z = self.net.project(&self.net.features(&views, Mode::Train)?, Mode::Train)?;
        let loss = contrastive_loss(&z, self.temperature)?;
        let shown = measured([("loss", scalar(&loss)?)]);
        Ok((Some(loss), shown))
    }
}

/// SimCLR's loss as SCAN's code has it: the first views are the anchors.
///
/// # Shapes
/// `z`: `[2B, P]`, unit rows, all first views, then all second views. Returns a scalar in nats; chance level is `ln(2B − 1)`.
///
/// # Paper
/// SimCLR, eq. 1, summed over the first views only.
pub fn contrastive_loss(z: &Tensor, temperature: f64) -> candle_core::Result<Tensor> {
    let b = z.dim(0)? / 2;
    let anchors = z.narrow(0, 0, b)?;
    let positives = z.narrow(0, b, b)?;
    let similarity = (anchors.matmul(&z.t()?)? / temperature)?;
    // An anchor is no candidate for itself: its column leaves the sum of exponentials.
    let itself = Tensor::eye(b, z.dtype(), z.device())?.pad_with_zeros(1, 0, b)?;
    let others = (similarity - (itself * 1e9)?)?;
    let agreement = ((anchors * positives)?.sum(D::Minus1)? / temperature)?;
    (others.log_sum_exp(D::Minus1)? - agreement)?.mean_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// The input of the parity fixture: `f[i,v,k] = sin(1 + 0.7i + 1.3v + 0.5k(i+1))`, unit rows.
    fn fixture() -> Vec<f64> {
        let mut z = vec![0.0; 2 * 4 * 3];
        for i in 0..4 {
            for v in 0..2 {
                let row: Vec<f64> =
                    (0..3).map(|k| (1.0 + 0.7 * i as f64 + 1.3 * v as f64 + 0.5 * k as f64 * (i + 1) as f64).sin()).collect();
                let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                for k in 0..3 {
                    z[(v * 4 + i) * 3 + k] = row[k] / norm;
                }
            }
        }
        z
    }

    #[test]
    fn the_loss_equals_the_authors() {
        for (temperature, expected) in [(0.1, 5.559_910_8), (0.5, 1.901_124_2)] {
            let z = Tensor::from_vec(fixture(), (8, 3), &Device::Cpu).unwrap().to_dtype(candle_core::DType::F32).unwrap();
            let loss = contrastive_loss(&z, temperature).unwrap().to_scalar::<f32>().unwrap();
            assert!((f64::from(loss) - expected).abs() < 2e-6, "{temperature}: {loss} instead of {expected}");
        }
    }

    #[test]
    fn unrelated_views_cost_the_chance_level_and_shuffling_pairs_changes_nothing() {
        let same = Tensor::ones((8, 3), candle_core::DType::F64, &Device::Cpu).unwrap();
        let loss = contrastive_loss(&same, 0.1).unwrap().to_scalar::<f64>().unwrap();
        assert!((loss - 7_f64.ln()).abs() < 1e-9);

        let z = Tensor::from_vec(fixture(), (8, 3), &Device::Cpu).unwrap();
        let order = Tensor::new(&[2_u32, 0, 3, 1, 6, 4, 7, 5], &Device::Cpu).unwrap();
        let shuffled = z.index_select(&order, 0).unwrap();
        let (a, b) = (contrastive_loss(&z, 0.1).unwrap(), contrastive_loss(&shuffled, 0.1).unwrap());
        assert!((a.to_scalar::<f64>().unwrap() - b.to_scalar::<f64>().unwrap()).abs() < 1e-9);
    }

    #[test]
    fn the_gradient_equals_finite_differences() {
        let z = Var::from_tensor(&Tensor::from_vec(fixture(), (8, 3), &Device::Cpu).unwrap()).unwrap();
        let loss = |values: Vec<f64>| {
            contrastive_loss(&Tensor::from_vec(values, (8, 3), &Device::Cpu).unwrap(), 0.5).unwrap().to_scalar::<f64>().unwrap()
        };
        let gradient = contrastive_loss(&z, 0.5).unwrap().backward().unwrap();
        let gradient = gradient.get(&z).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (at, found) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut values = fixture();
                values[at] += by;
                loss(values)
            };
            let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((found - expected).abs() < 1e-7, "{at}: {found} instead of {expected}");
        }
    }
}
