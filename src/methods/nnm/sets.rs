//! What does the network see of the images, and who is near whom?

use std::ops::Range;

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
use kinset_stage::{Context, StageError};
use kinset_train::feed::Feed;
use kinset_train::sight::{Sight, belongs, encoded, partner};

/// Images per chunk of a pass over a set.
const CHUNK: usize = 256;

/// Images as the network sees them, and who is near whom.
pub(super) struct Set<'a> {
    pub(super) sight: Sight<'a>,
    pub(super) table: NeighborTable,
}

impl<'a> Set<'a> {
    /// Reads the neighbors, or mines them on the backbone's features of plain images.
    #[expect(clippy::too_many_arguments, reason = "called once for training and once for validation, from one place")]
    pub(super) fn new(
        config: &Config,
        net: &ClassifierNet,
        feed: Feed<'a>,
        images: &ImageSet,
        table: Option<&Stored<Neighbors>>,
        port: &str,
        (setting, k): (&'static str, usize),
        cx: &Context<'_>,
    ) -> Result<Self, StageError> {
        let table = table
            .map(|stored| {
                let table = NeighborTable::load(stored)?;
                belongs(&table, images, port)?;
                Ok::<_, StageError>(table)
            })
            .transpose()?;
        if table.is_none() && k >= images.len() {
            return Err(StageError::TooFew {
                setting,
                value: k,
                images: images.len(),
                hint: format!("an image is no neighbor of itself, so it can be at most {}", images.len().saturating_sub(1)),
            });
        }
        let still = config.update == Update::Heads && !config.augment.is_random();
        if let (Some(table), false) = (&table, still) {
            return Ok(Self { sight: Sight { feed, cached: None }, table: table.clone() });
        }
        let features = encoded(net.encoder(), &feed, cx)?;
        let dim = net.encoder().dim();
        let cached = if still { Some(Tensor::from_slice(&features, (feed.len(), dim), &cx.device)?) } else { None };
        let table = table.map_or_else(|| mine(features, dim, k, images.ids()), Ok)?;
        Ok(Self { sight: Sight { feed, cached }, table })
    }

    /// Runs the set through `net`, without recording; each image in one view, or plain.
    pub(super) fn pass(&self, net: &ClassifierNet, views: Option<(&Recipe, Seed)>, features: bool) -> Result<Pass, StageError> {
        let net = net.frozen()?;
        let mut pass = Pass { features: Vec::new(), log: vec![Vec::new(); net.heads()] };
        for start in (0..self.sight.feed.len()).step_by(CHUNK) {
            let seen = self.features(&net, start..(start + CHUNK).min(self.sight.feed.len()), views)?;
            if features {
                pass.features.extend(values(&seen)?);
            }
            for (head, log) in pass.log.iter_mut().enumerate() {
                log.extend(values(&candle_nn::ops::log_softmax(&net.logits(head, &seen)?, D::Minus1)?)?);
            }
        }
        Ok(pass)
    }

    pub(super) fn features(
        &self,
        net: &ClassifierNet,
        rows: Range<usize>,
        views: Option<(&Recipe, Seed)>,
    ) -> Result<Tensor, StageError> {
        if let Some(cached) = &self.sight.cached {
            return Ok(cached.narrow(0, rows.start, rows.len())?);
        }
        let images = match views {
            Some((recipe, seed)) => self.sight.feed.views(&rows.collect::<Vec<_>>(), recipe, seed)?,
            None => self.sight.feed.plain_range(rows)?,
        };
        Ok(net.features(&images, Mode::Eval)?)
    }
}

/// What the network says of a whole set.
pub(super) struct Pass {
    /// Backbone features `[N, D]`, not normalised; empty if nobody asked.
    pub(super) features: Vec<f32>,
    /// Per head, logarithms of probabilities `[N, K]`.
    pub(super) log: Vec<Vec<f32>>,
}

/// What the network gets to see in a step: features `[B, D]` if they are computed already, else views `[B, C, S, S]`.
pub(super) struct Seen {
    pub(super) anchors: Tensor,
    pub(super) neighbors: Tensor,
    pub(super) second: Option<Tensor>,
}

impl Seen {
    /// Features of all, each through the network on its own, so that each has its own batch statistics, as in the authors' code.
    pub(super) fn features(self, net: &ClassifierNet, mode: Mode, sight: &Sight<'_>) -> Result<Self, StageError> {
        let features = |seen| sight.features(net, seen, mode);
        let (anchors, neighbors) = (features(self.anchors)?, features(self.neighbors)?);
        Ok(Self { anchors, neighbors, second: self.second.map(features).transpose()? })
    }
}

/// Images and their neighbors, drawn for a step.
pub(super) struct Draws<'a> {
    pub(super) config: &'a Config,
    pub(super) set: Set<'a>,
    pub(super) seed: Seed,
}

impl Draws<'_> {
    pub(super) fn seen(&self, rows: &[usize], epoch: u64) -> Result<Seen, StageError> {
        let Config { num_neighbors, include_self, second_view, augment, .. } = self.config;
        let Set { sight, table } = &self.set;
        let partners: Vec<usize> =
            rows.iter().map(|&row| partner(table, *num_neighbors, *include_self, row, epoch, self.seed)).collect();
        let views = self.seed.branch("views").at(epoch);
        let see = |rows: &[usize], view: &str| sight.see(rows, augment, views.branch(view));
        let second = if *second_view { Some(see(rows, "second")?) } else { None };
        Ok(Seen { anchors: see(rows, "anchor")?, neighbors: see(&partners, "neighbor")?, second })
    }
}
