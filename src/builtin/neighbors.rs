//! Exact nearest neighbors of every image among the others.

use std::ops::RangeInclusive;

use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::{Draft, Stored};
use kinset_kernel::neighbors;
use kinset_math::{cosine, rerank};
use kinset_stage::{Complaint, Context, Stage, StageError};

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Neighbors per image, M: 20 on small sets, 50 on ImageNet (SCAN).
        k: usize = 20, min 1;
        /// Order neighbors by how alike their neighborhoods are, not by cosine; none: by cosine, as in all methods here.
        rerank: Option<Rerank> = None, nested;
    }
}

kinset_stage::settings! {
    /// k-reciprocal re-ranking (Zhong et al., CVPR 2017, without the blend with the original distance): the similarity is then
    /// 1 minus the Jaccard distance of two images' reciprocal neighbors. The defaults are those of the file that comes with
    /// NNM's code, which its runs do not use.
    #[derive(Copy, PartialEq, Eq)]
    pub struct Rerank {
        /// Images in a list of neighbors, the image itself among them.
        k1: usize = 20, min 2, because "the image and a neighbor";
        /// Images whose description is averaged into one's own, the image itself among them.
        k2: usize = 6;
    }
    and lists
}

impl Rerank {
    fn lists(&self) -> Option<Complaint> {
        let Self { k1, k2 } = *self;
        let fits = (1..=k1).contains(&k2);
        (!fits).then(|| Complaint::new("k2", format!("is {k2}, and must lie between 1 and `k1`, which is {k1}")))
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// `[N, M]`.
        neighbors: Draft<Neighbors>,
    }
}

/// Neighbor mining.
#[derive(Debug)]
pub struct Mine;

/// As many neighbors as there may be: an image is none of itself.
fn others(images: usize) -> RangeInclusive<usize> {
    1..=images.saturating_sub(1)
}

impl Stage for Mine {
    const KIND: &'static str = "neighbors";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "find every image's exact nearest neighbors by cosine";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn fits(config: &Config, images: usize) -> Result<(), StageError> {
        StageError::fitting("k", config.k, Config::default().k, &others(images), images).map(drop)
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let mut features = FeatureTable::load(&input.features)?;
        let n = features.ids.len();
        let k = cx.fitting("k", config.k, Config::default().k, others(n), n)?;
        let reach = config.rerank.map(|Rerank { k1, k2 }| {
            let k1 = cx.fitting("rerank.k1", k1, Rerank::default().k1, k2.max(2)..=n, n)?;
            Ok::<_, StageError>(rerank::Reach { k1, k2 })
        });
        let reach = reach.transpose()?;
        let zero = cosine::normalize_rows(&mut features.values, features.dim);
        if let Some(&first) = zero.first() {
            return Err(StageError::Degenerate {
                code: "neighbors::zero-features",
                what: format!("{} images have features that are all 0; the first is `{}`", zero.len(), features.ids[first]),
                hint: "the cosine similarity with a zero vector is undefined: if these images are black or empty, leave them out; \
                       else take another encoder"
                    .into(),
            });
        }
        let pairs = n as u64 * n as u64;
        let bar = cx.bar(pairs, "pairs");
        let mut shown = 0;
        // Re-ranking looks at lists of its own length.
        let width = reach.map_or(k, |reach| k.max(reach.k1 - 1));
        let found = neighbors::all_pairs(&features.values, features.dim, width, &cx.stop, &mut |done, total| {
            let now = (done as u128 * u128::from(pairs) / total.max(1) as u128) as u64;
            bar.advance(now - shown);
            shown = now;
        });
        let found = found.map_err(StageError::other)?;
        let (index, similarity, metric) = match reach {
            None => (found.index, found.similarity, "cosine"),
            Some(reach) => {
                let (rows, dim) = (&features.values, features.dim);
                let (index, similarity) = rerank::nearest(rows, dim, &found.index, width, reach, k, &cx.stop)?;
                (index, similarity, "jaccard")
            }
        };
        let table = NeighborTable { ids: features.ids, k, index, similarity, metric: metric.into(), exact: true, recall: None };
        Ok(Out { neighbors: table.save(&cx.out("neighbors")?)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    #[test]
    fn re_ranking_that_makes_no_sense_is_complained_about_by_path() {
        let complaints = |k1, k2| Config { k: 5, rerank: Some(Rerank { k1, k2 }) }.check();
        assert_eq!(complaints(20, 6), []);
        assert_eq!(complaints(20, 20), []);
        for (k1, k2, path) in [(1, 1, "rerank.k1"), (20, 0, "rerank.k2"), (4, 5, "rerank.k2")] {
            assert_eq!(complaints(k1, k2)[0].path, path, "{k1} {k2}");
        }
        assert!(Config { k: 0, rerank: None }.check()[0].message.contains("at least 1"));
    }
}
