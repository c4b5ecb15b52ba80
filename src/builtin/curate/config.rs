//! The settings of `curate`: how a pool is clustered, and how many of its images are taken.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use kinset_stage::Complaint;

/// How images are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// In turn from the clusters of hierarchical k-means with resampling, from the highest level down (Vo et al. 2024).
    #[default]
    Hierarchical,
    /// In turn from the clusters of one k-means, of as many as the first level has: the first baseline.
    Flat,
    /// At random: the baseline that the pool itself is.
    Random,
    /// Far from each other (k-center), on a sample of the pool: the other extreme.
    Farthest,
}

impl Pick {
    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hierarchical => "hierarchical",
            Self::Flat => "flat",
            Self::Random => "random",
            Self::Farthest => "farthest",
        }
    }
}

/// Which images of a cluster come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Within {
    /// Any.
    #[default]
    Random,
    /// Those nearest to its center: the most typical.
    Nearest,
}

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// How images are picked.
        pick: Pick = Pick::Hierarchical;
        /// Images to take; unset: a tenth of the pool.
        budget: Option<usize> = None, min 1;
        /// Clusters of each level, that of images first, each fewer than before; unset: by the size of the pool, without the levels from the third on in which most images are in few clusters.
        clusters: Option<Vec<usize>> = None;
        /// Resampling steps of each level: of every cluster the images nearest to its center are clustered anew.
        resamples: usize = 10;
        /// Images nearest to each center that a resampling keeps.
        nearest: usize = 4, min 1;
        /// Which images of a cluster come first.
        within: Within = Within::Random;
        /// Most iterations of k-means on a sample.
        iterations: usize = 20, min 1;
        /// Most passes over the whole pool that move the centers of a first sample, where a sample is not the pool.
        passes: usize = 3;
    }
    and combinations
}

impl Config {
    fn combinations(&self) -> Option<Complaint> {
        let clusters = self.clusters.as_ref()?;
        if clusters.is_empty() || clusters.contains(&0) || clusters.windows(2).any(|pair| pair[0] <= pair[1]) {
            let hint = "write the level of images first, such as [1000, 100, 20]";
            return Some(
                Complaint::new("clusters", format!("are {clusters:?}, and must be numbers that fall")).with_hint(hint),
            );
        }
        None
    }

    /// Clusters of each level for a pool of some images.
    pub fn levels(&self, images: usize) -> Vec<usize> {
        let all = self.clusters.clone().unwrap_or_else(|| by_size(images));
        match self.pick {
            Pick::Hierarchical => all,
            Pick::Flat => all[..1].to_vec(),
            Pick::Random | Pick::Farthest => vec![1],
        }
    }
}

/// Four for every image along a side of the pool if it were a square, but no more than one for ten images; then a quarter of each level
/// in the next, while that are ten or more.
fn by_size(images: usize) -> Vec<usize> {
    let first = ((4.0 * (images as f64).sqrt()) as usize).min(images / 10).max(1);
    std::iter::successors(Some(first), |clusters| Some(clusters / 4).filter(|fewer| *fewer >= 10)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    #[test]
    fn levels_follow_the_size_of_the_pool_unless_they_are_named() {
        let levels = |images| Config::default().levels(images);
        assert_eq!(levels(1_000_000), [4000, 1000, 250, 62, 15]);
        assert_eq!(levels(7_749), [352, 88, 22]);
        assert_eq!((levels(48), levels(3)), (vec![4], vec![1]));
        let named = |pick| Config { pick, clusters: Some(vec![9, 3]), ..Config::default() }.levels(100);
        assert_eq!([named(Pick::Hierarchical), named(Pick::Flat), named(Pick::Random)], [vec![9, 3], vec![9], vec![1]]);
    }

    #[test]
    fn levels_that_do_not_fall_are_complained_about() {
        for clusters in [vec![], vec![0], vec![10, 10], vec![5, 9]] {
            let complaints = Config { clusters: Some(clusters), ..Config::default() }.check();
            assert_eq!(complaints[0].path, "clusters");
        }
        assert!(Config { clusters: Some(vec![10, 2]), ..Config::default() }.check().is_empty());
    }
}
