//! Exact nearest neighbors of every image among the others.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::artifact::features::{FeatureTable, Features};
use crate::artifact::neighbors::{NeighborTable, Neighbors};
use crate::artifact::{Draft, Stored};
use crate::kernel::neighbors::{self, NeighborError};
use crate::math::cosine;
use crate::stage::{Complaint, Context, Settings, Stage, StageError};

/// Settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Neighbors per image, M: 20 on small sets, 50 on ImageNet (SCAN).
    pub k: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { k: 20 }
    }
}

impl Settings for Config {
    fn check(&self) -> Vec<Complaint> {
        if self.k == 0 { vec![Complaint::new("k", "is 0, and must be at least 1")] } else { Vec::new() }
    }
}

crate::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
    }
}

crate::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[N, M]`.
        neighbors: Draft<Neighbors>,
    }
}

/// Neighbor mining.
#[derive(Debug)]
pub struct Mine;

impl Stage for Mine {
    const KIND: &'static str = "neighbors";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "find every image's exact nearest neighbors by cosine";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let mut features = FeatureTable::load(&input.features)?;
        let n = features.ids.len();
        if config.k >= n {
            return Err(StageError::TooFew {
                setting: "k",
                value: config.k,
                images: n,
                hint: format!("an image is no neighbor of itself, so `k` can be at most {}", n.saturating_sub(1)),
            });
        }
        let zero = cosine::normalize_rows(&mut features.values, features.dim);
        if let Some(&first) = zero.first() {
            return Err(StageError::Degenerate {
                code: "neighbors::zero-features",
                what: format!("{} images have features that are all 0; the first is `{}`", zero.len(), features.ids[first]),
                hint: "a direction is needed to compare; look at these images, or train the encoder longer".into(),
            });
        }
        let bar = cx.bar(1000, "per mille of pairs");
        let mut shown = 0;
        let found = neighbors::all_pairs(&features.values, features.dim, config.k, &mut |done, total| {
            let now = (done * 1000 / total.max(1)) as u64;
            bar.advance(now - shown);
            shown = now;
            if cx.stop.requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let found = match found {
            Err(NeighborError::Stopped) => return Err(StageError::Stopped),
            found => found?,
        };
        let table = NeighborTable {
            ids: features.ids,
            k: config.k,
            index: found.index,
            similarity: found.similarity,
            metric: "cosine".into(),
            exact: true,
            recall: None,
        };
        Ok(Out { neighbors: table.save(&cx.out("neighbors")?)? })
    }
}
