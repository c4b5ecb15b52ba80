//! The settings of `similar`: the rules by which images are taken.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use kinset_math::curate::choose::Order;
use kinset_math::curate::groups::Link;
use kinset_stage::Complaint;

/// How images are picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// The nearest of each target image.
    #[default]
    Nearest,
    /// At random: the baseline. As many as `nearest` would take, or `budget`.
    Random,
    /// Far from each other (k-center), on a sample of the pool: the other baseline.
    Diverse,
    /// For each target image some that do *not* look like it: up to `k` of a random tenth of (a sample of) the pool.
    Dissimilar,
}

impl Pick {
    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Random => "random",
            Self::Diverse => "diverse",
            Self::Dissimilar => "dissimilar",
        }
    }
}

kinset_stage::settings! {
    /// Numbers of images for parts of the target, so that rare ones are served.
    #[derive(Copy, PartialEq)]
    pub struct Quotas {
        /// Parts of the target, by k-means on its features.
        clusters: usize = 10, min 1;
        /// A part's number is in proportion to its size to this power: 0 the same for all, 1 as the target has them.
        power: f64 = 0.0, within 0..=4;
    }
}

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Images of the pool per image of the target; at most what `retrieve` looked for.
        k: usize = 20, min 1;
        /// How images are picked.
        pick: Pick = Pick::Nearest;
        /// Keep a pair only if its distance, 1 − cosine, is below this.
        // A little above 2, so that "everything" can be said.
        max_dist: Option<f64> = None, within 0.0..=2.1, because "it is a distance, 1 − cosine";
        /// Drop a pair if its distance is below this: a guard against copies of target images in the pool.
        min_dist: Option<f64> = None, within 0.0..=2.1, because "it is a distance, 1 − cosine";
        /// Candidates whose cosine is this or more are one image: the best ranked stands for the others.
        pool_sim: Option<f64> = None, within -1..=1, because "it is a cosine similarity";
        /// What joins candidates: near the first of a group (`star`), or near any of it (`chain`).
        link: Link = Link::Star;
        /// Drop candidates whose cosine with any target image is this or more.
        target_sim: Option<f64> = None, within -1..=1, because "it is a cosine similarity";
        /// Drop candidates whose cosine with any held-out image is this or more.
        held_out_sim: f64 = 0.98, within -1..=1, because "it is a cosine similarity";
        /// For `pick = "dissimilar"`: the cosine that an image must be below (the fork's number).
        dissimilar_below: f64 = 0.3, within -1..=1, because "it is a cosine similarity";
        /// A list of names never to take, one a line, relative to the pipeline file; endings like .jpg do not count.
        exclude: Option<PathBuf> = None;
        /// Most images to take.
        budget: Option<usize> = None, min 1;
        /// Images beyond `k` that may be taken where `k` do not meet the budget: up to this many per target image, by rank; at most what
        /// `retrieve` looked for.
        refill: Option<usize> = None, min 1;
        /// Which come first: those of best rank, then best distance (`rank`); those that most target images chose (`votes`); or, as in the
        /// cluster sampling of the SCAN fork, those with the most votes in each cluster of the candidates, clusters and votes weighted so that
        /// rarely chosen parts of the target get more (`clusters`).
        order: Order = Order::Rank;
        /// For `order = "clusters"`: clusters of the candidates, by k-means; none: 27, the fork's number, or those of `assignments`.
        pool_clusters: Option<usize> = None, min 1;
        /// Most target images that one pool image may serve, so that hubs do not stand for all.
        per_image: Option<usize> = None, min 1;
        /// Most pool images taken for one target image.
        per_target: Option<usize> = None, min 1;
        /// Shares of the budget for parts of the target.
        quotas: Option<Quotas> = None, nested;
    }
    and combinations
}

impl Config {
    fn combinations(&self) -> Vec<Complaint> {
        let mut found = Vec::new();
        if let (Some(min), Some(max)) = (self.min_dist, self.max_dist)
            && min >= max
            && max > 0.0
        {
            found.push(Complaint::new("min_dist", format!("is {min}, and `max_dist` {max} leaves nothing above it")));
        }
        for (field, given) in [("quotas", self.quotas.is_some()), ("refill", self.refill.is_some())] {
            if given && self.budget.is_none() {
                found.push(Complaint::new(field, "needs a budget").with_hint("set `budget`"));
            }
        }
        if let Some(refill) = self.refill {
            if self.pick != Pick::Nearest {
                found.push(Complaint::new("refill", "goes with `pick = \"nearest\"` only: other picks meet any budget"));
            }
            if refill <= self.k {
                found.push(
                    Complaint::new("refill", format!("is {refill}, and `k` is {} already", self.k)).with_hint("raise it"),
                );
            }
        }
        if self.order == Order::Clusters && self.quotas.is_some() {
            let hint = "leave out `quotas`, or choose another `order`";
            found.push(Complaint::new("quotas", "and `order = \"clusters\"` both divide the budget").with_hint(hint));
        }
        if self.order != Order::Clusters && self.pool_clusters.is_some() {
            found.push(Complaint::new("pool_clusters", "is for `order = \"clusters\"`").with_hint("set `order`"));
        }
        found
    }

    /// Neighbors of each target image that must have been looked for.
    pub fn depth(&self) -> usize {
        self.k.max(self.refill.unwrap_or(0))
    }

    /// What may be meant in another unit than it is said in.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        if let Some(max) = self.max_dist.filter(|max| (0.9..2.0).contains(max)) {
            doubts
                .push(format!("max_dist is {max}: nearly every pair is nearer than that; it is a distance, not a similarity"));
        }
        if let Some(min) = self.min_dist.filter(|min| *min > 0.5) {
            doubts
                .push(format!("min_dist is {min}: it drops all but very different images; it is a distance, not a similarity"));
        }
        for (field, value) in [("pool_sim", self.pool_sim), ("target_sim", self.target_sim)] {
            if let Some(value) = value.filter(|value| *value < 0.5) {
                let effect = "images with so small a similarity count as duplicates";
                doubts.push(format!("{field} is {value}: {effect}; it is a similarity, not a distance"));
            }
        }
        doubts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_stage::Settings;

    #[test]
    fn settings_out_of_range_are_complained_about_by_name() {
        let complaints = Config {
            k: 0,
            max_dist: Some(98.0),
            min_dist: Some(-0.1),
            budget: Some(0),
            quotas: Some(Quotas { clusters: 0, power: 9.0 }),
            per_image: Some(0),
            pool_sim: Some(1.5),
            ..Config::default()
        }
        .check();
        let paths: Vec<&str> = complaints.iter().map(|complaint| complaint.path.as_str()).collect();
        assert_eq!(paths, ["k", "max_dist", "min_dist", "pool_sim", "budget", "per_image", "quotas.clusters", "quotas.power"]);
        let alone = Config { quotas: Some(Quotas::default()), ..Config::default() }.check();
        assert_eq!(alone[0].hint.as_deref(), Some("set `budget`"));
        let both =
            Config { order: Order::Clusters, quotas: Some(Quotas::default()), budget: Some(9), ..Config::default() }.check();
        assert_eq!(both[0].path, "quotas");
        let idle = Config { pool_clusters: Some(3), refill: Some(20), pick: Pick::Random, ..Config::default() }.check();
        let idle: Vec<&str> = idle.iter().map(|complaint| complaint.path.as_str()).collect();
        assert_eq!(idle, ["refill", "refill", "refill", "pool_clusters"]);
        for (max, fits) in [(0.0, true), (2.01, true), (2.2, false)] {
            assert_eq!(Config { max_dist: Some(max), ..Config::default() }.check().is_empty(), fits, "{max}");
        }
        assert!(!Config { max_dist: Some(0.1), min_dist: Some(0.1), ..Config::default() }.check().is_empty());
    }

    #[test]
    fn a_similarity_where_a_distance_is_meant_raises_a_doubt() {
        assert!(Config { max_dist: Some(0.98), ..Config::default() }.doubts()[0].contains("not a similarity"));
        assert!(Config { pool_sim: Some(0.05), ..Config::default() }.doubts()[0].contains("not a distance"));
        assert_eq!(Config { max_dist: Some(0.3), pool_sim: Some(0.9), ..Config::default() }.doubts(), Vec::<String>::new());
    }
}
