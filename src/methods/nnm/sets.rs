//! The inputs of NNM: training and validation sets with their neighbors, and passes over a whole set.

use candle_core::{D, Tensor};

use super::matching::mine;
use super::settings::Config;
use crate::scan::Update;
use kinset_artifact::Stored;
use kinset_artifact::images::ImageSet;
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_augment::Recipe;
use kinset_base::seed::Seed;
use kinset_model::params::values;
use kinset_model::{ClassifierNet, Mode};
use kinset_stage::{Context, StageError, Stop};
use kinset_train::ImageLoader;
use kinset_train::input_cache::{CachedInputs, encode};
use kinset_train::neighbor_pairs::{NeighborPairs, check_same_images};

/// Images per chunk of a pass over a set.
const CHUNK: usize = 256;

/// Images and their neighbors, which are connected at `port` or mined here on the backbone's features of plain images.
pub(super) fn pairs<'a>(
    config: &'a Config,
    net: &ClassifierNet,
    (loader, images): (ImageLoader<'a>, &ImageSet),
    (port, connected): (&str, Option<&Stored<Neighbors>>),
    (setting, k, default): (&'static str, usize, usize),
    cx: &Context<'_>,
) -> Result<NeighborPairs<'a>, StageError> {
    let connected = connected.map(NeighborTable::load).transpose()?;
    let k = match &connected {
        Some(table) => {
            check_same_images(table, images.ids(), port)?;
            k
        }
        // An image is no neighbor of itself.
        None => cx.fitting(setting, k, default, 1..=images.len().saturating_sub(1), images.len())?,
    };
    let fixed = config.update == Update::Heads && !config.augment.is_random();
    let dim = net.encoder().dim();
    let features = if fixed || connected.is_none() { encode(net.encoder(), &loader, cx)? } else { Vec::new() };
    let inputs = if fixed {
        CachedInputs::Features(Tensor::from_slice(&features, (loader.len(), dim), &cx.device)?)
    } else {
        CachedInputs::Views(loader)
    };
    let table = connected.map_or_else(|| mine(features, dim, k, images.ids(), &cx.stop), Ok)?;
    let Config { num_neighbors, include_self, ref augment, .. } = *config;
    Ok(NeighborPairs { inputs, table, candidates: num_neighbors, include_self, augment, seed: cx.seed })
}

/// What the network says of a whole set.
pub(super) struct Pass {
    /// Backbone features `[N, D]`, not normalized; empty if nobody asked.
    pub(super) features: Vec<f32>,
    /// Per head, logarithms of probabilities `[N, K]`.
    pub(super) log: Vec<Vec<f32>>,
}

/// Runs a set through `net`, without recording; each image in one view, or plain.
pub(super) fn pass(
    inputs: &CachedInputs<'_>,
    net: &ClassifierNet,
    views: Option<(&Recipe, Seed)>,
    features: bool,
    stop: &Stop,
) -> Result<Pass, StageError> {
    let net = net.frozen()?;
    let mut pass = Pass { features: Vec::new(), log: vec![Vec::new(); net.heads()] };
    for start in (0..inputs.len()).step_by(CHUNK) {
        stop.check()?;
        let rows = start..(start + CHUNK).min(inputs.len());
        let read = match views {
            Some((recipe, seed)) => inputs.read(&rows.collect::<Vec<_>>(), recipe, seed)?,
            None => inputs.plain(rows)?,
        };
        let read = inputs.features(&net, read, Mode::Eval)?;
        if features {
            pass.features.extend(values(&read)?);
        }
        for (head, log) in pass.log.iter_mut().enumerate() {
            log.extend(values(&candle_nn::ops::log_softmax(&net.logits(head, &read)?, D::Minus1)?)?);
        }
    }
    Ok(pass)
}

/// What the network reads of a batch, and then the features of it: anchors, a neighbor of each, a second view of the anchors.
pub(super) struct Seen {
    pub(super) anchors: Tensor,
    pub(super) neighbors: Tensor,
    pub(super) second: Option<Tensor>,
}

impl Seen {
    pub(super) fn draw(pairs: &NeighborPairs<'_>, second: bool, rows: &[usize], epoch: u64) -> Result<Self, StageError> {
        let [anchors, neighbors] = pairs.anchors_and_neighbors(rows, epoch)?;
        Ok(Self { anchors, neighbors, second: second.then(|| pairs.view(rows, epoch, "second")).transpose()? })
    }

    /// Features of all, each through the network on its own, so that each has its own batch statistics, as in the authors' code.
    pub(super) fn features(self, net: &ClassifierNet, mode: Mode, inputs: &CachedInputs<'_>) -> Result<Self, StageError> {
        let features = |read| inputs.features(net, read, mode);
        let (anchors, neighbors) = (features(self.anchors)?, features(self.neighbors)?);
        Ok(Self { anchors, neighbors, second: self.second.map(features).transpose()? })
    }
}
