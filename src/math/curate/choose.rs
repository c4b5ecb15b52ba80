//! The selection: which pairs of target and pool count, and which images of the pool are taken.
//!
//! An *edge* says that a pool image is among the k nearest of a target image. Edges are filtered after the search, so fewer than
//! k may remain; what a filter drops keeps its reason. The images with an edge left are the selection. Its order is that of best
//! rank, best distance, pool row: all targets' first choices come before any second one, so a budget keeps the target's shape. Or
//! it is that of votes: images that many targets chose come first, which is more precise and follows where the target is dense. Votes may
//! weigh differently, as in [cluster sampling](super::sampling).
//!
//! Where k images per target do not meet a budget, others may *refill* it: of each image beyond the first k of all targets its best edge
//! counts, and those images come last, by rank.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::join::distance;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// Row of the target image.
    pub target: u32,
    /// Row of the pool image.
    pub pool: u32,
    /// Its place among the nearest, from 1.
    pub rank: u32,
    /// Cosine, −1 to 1.
    pub cosine: f64,
}

impl Edge {
    /// 1 − cosine, 0 to 2.
    pub fn distance(&self) -> f64 {
        distance(self.cosine)
    }

    /// The order in which edges are served: rank, distance, target, pool.
    fn before(&self, other: &Self) -> std::cmp::Ordering {
        let order = self.rank.cmp(&other.rank).then(self.distance().total_cmp(&other.distance()));
        order.then(self.target.cmp(&other.target)).then(self.pool.cmp(&other.pool))
    }
}

/// Why an edge counts or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Ok,
    /// It counts, and its image is beyond the first k: the budget was not met without.
    Refill,
    /// The image is on the list of those never to be taken.
    Excluded,
    MaxDist,
    /// Too near: a copy of the target image itself.
    MinDist,
    /// The image nearly equals one of the target.
    TargetCopy,
    /// The image is in a held-out set, or nearly.
    HeldOut,
    /// The image nearly equals another one, which stands for it.
    Duplicate,
    /// The image serves enough targets already.
    ImageCap,
    /// The target has enough images already.
    TargetCap,
    /// The budget went to others.
    Budget,
}

impl Reason {
    pub const ALL: [Self; 11] = [
        Self::Ok,
        Self::Refill,
        Self::Excluded,
        Self::MaxDist,
        Self::MinDist,
        Self::TargetCopy,
        Self::HeldOut,
        Self::Duplicate,
        Self::ImageCap,
        Self::TargetCap,
        Self::Budget,
    ];

    /// True if the edge counts.
    pub fn counts(self) -> bool {
        matches!(self, Self::Ok | Self::Refill)
    }

    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refill => "refill",
            Self::Excluded => "excluded",
            Self::MaxDist => "max_dist",
            Self::MinDist => "min_dist",
            Self::TargetCopy => "target_copy",
            Self::HeldOut => "held_out",
            Self::Duplicate => "duplicate",
            Self::ImageCap => "image_cap",
            Self::TargetCap => "target_cap",
            Self::Budget => "budget",
        }
    }
}

/// Which images come first, and so get the budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Best rank, best distance, pool row.
    #[default]
    Rank,
    /// Most targets that chose it, then as by `rank`.
    Votes,
    /// The fork's cluster sampling: clusters of candidates get weighted shares of the budget; within each, images with the most votes,
    /// votes of a rarely served part of the target weighing more.
    Clusters,
}

/// Limits on distances: a pair counts if `min ≤ distance < max`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Strictly below this.
    pub max: Option<f64>,
    /// Not below this.
    pub min: Option<f64>,
}

/// The edges that a filter looks at, with what became of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Edges {
    /// By target, then by rank.
    pub edges: Vec<Edge>,
    pub reasons: Vec<Reason>,
    pub order: Order,
    /// Edges of a higher rank refill.
    k: usize,
    /// What the vote of each target row weighs, in the order of clusters; 1 where it is not said.
    weights: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// Its best edge: lowest rank, then lowest distance, then lowest target.
    pub best: Edge,
    /// How many targets chose it.
    pub targets: u32,
    /// What their votes weigh together.
    pub weight: f64,
}

/// How a budget is divided.
#[derive(Clone, Copy)]
pub struct Shares<'a> {
    /// Images that each part gets first.
    pub quotas: &'a [usize],
    /// The part of an image, told by its best edge; none if it belongs to none.
    pub of: &'a dyn Fn(&Edge) -> Option<u32>,
}

impl Edges {
    pub fn new(edges: impl IntoIterator<Item = Edge>, k: usize) -> Self {
        let edges: Vec<Edge> = edges.into_iter().filter(|edge| edge.rank as usize <= k).collect();
        Self { reasons: vec![Reason::Ok; edges.len()], edges, order: Order::Rank, k, weights: Vec::new() }
    }

    /// The same, and of each image that no target has among its first `k` the best edge beyond.
    pub fn refilled(edges: impl IntoIterator<Item = Edge>, k: usize) -> Self {
        let (mut edges, mut beyond): (Vec<Edge>, Vec<Edge>) = edges.into_iter().partition(|edge| edge.rank as usize <= k);
        let mut known: Vec<u32> = edges.iter().map(|edge| edge.pool).collect();
        known.sort_unstable();
        beyond.retain(|edge| known.binary_search(&edge.pool).is_err());
        beyond.sort_unstable_by(|a, b| a.pool.cmp(&b.pool).then(a.before(b)));
        beyond.dedup_by_key(|edge| edge.pool);
        edges.extend(beyond);
        edges.sort_unstable_by_key(|edge| (edge.target, edge.rank));
        Self { k, ..Self::new(edges, usize::MAX) }
    }

    /// The same, in another order.
    #[must_use]
    pub fn in_order_of(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// The same, the vote of each target row weighing differently in the order of clusters.
    #[must_use]
    pub fn weighing(self, weights: Vec<f64>) -> Self {
        Self { weights, ..self }
    }

    /// True if the image of an edge is beyond the first k of every target.
    pub fn refills(&self, edge: &Edge) -> bool {
        edge.rank as usize > self.k
    }

    /// Calls those edges by their name that count and refill, and forgets the edges of higher ranks than they have: they would be others
    /// if the search had gone farther, and nothing was taken from them.
    pub fn tell_refills(&mut self) {
        let counting = self.edges.iter().zip(&self.reasons).filter(|(_, reason)| reason.counts());
        let last = counting.map(|(edge, _)| edge.rank as usize).max().unwrap_or(0).max(self.k);
        let mut left = self.edges.iter().map(|edge| edge.rank as usize <= last);
        self.reasons.retain(|_| left.next().unwrap_or(true));
        self.edges.retain(|edge| edge.rank as usize <= last);
        let k = self.k;
        self.drop_where(|edge| (edge.rank as usize > k).then_some(Reason::Refill));
    }

    /// Gives a reason to the edges that still count and for which there is one.
    pub fn drop_where(&mut self, reason: impl Fn(&Edge) -> Option<Reason>) {
        for (edge, was) in self.edges.iter().zip(&mut self.reasons) {
            if *was == Reason::Ok
                && let Some(found) = reason(edge)
            {
                *was = found;
            }
        }
    }

    pub fn limit(&mut self, limits: Limits) {
        self.drop_where(|edge| {
            let far = limits.max.is_some_and(|max| edge.distance() >= max);
            let near = limits.min.is_some_and(|min| edge.distance() < min);
            far.then_some(Reason::MaxDist).or(near.then_some(Reason::MinDist))
        });
    }

    /// Lets an image serve at most `per_image` targets and a target have at most `per_target` images; the best edges first.
    pub fn cap(&mut self, per_image: Option<usize>, per_target: Option<usize>) {
        if per_image.is_none() && per_target.is_none() {
            return;
        }
        let size = |of: fn(&Edge) -> u32| self.edges.iter().map(of).max().map_or(0, |most| most as usize + 1);
        let (mut of_image, mut of_target) = (vec![0_usize; size(|e| e.pool)], vec![0_usize; size(|e| e.target)]);
        for place in self.in_order() {
            let edge = self.edges[place];
            let (image, target) = (&mut of_image[edge.pool as usize], &mut of_target[edge.target as usize]);
            if per_image.is_some_and(|most| *image >= most) {
                self.reasons[place] = Reason::ImageCap;
            } else if per_target.is_some_and(|most| *target >= most) {
                self.reasons[place] = Reason::TargetCap;
            } else {
                *image += 1;
                *target += 1;
            }
        }
    }

    /// Places of the edges that count, best first.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.edges.len()).filter(|&place| self.reasons[place].counts()).collect();
        order.sort_unstable_by(|&a, &b| self.edges[a].before(&self.edges[b]));
        order
    }

    /// The images with an edge that counts, in budget order.
    pub fn picks(&self) -> Vec<Pick> {
        let mut order: Vec<Edge> = self.in_order().into_iter().map(|place| self.edges[place]).collect();
        // Stable: of each image's edges the best stays first.
        order.sort_by_key(|edge| edge.pool);
        let mut picks: Vec<Pick> = Vec::new();
        for edge in order {
            let weight = self.weights.get(edge.target as usize).copied().unwrap_or(1.0);
            match picks.last_mut() {
                Some(pick) if pick.best.pool == edge.pool => {
                    (pick.targets, pick.weight) = (pick.targets + 1, pick.weight + weight);
                }
                _ => picks.push(Pick { best: edge, targets: 1, weight }),
            }
        }
        picks.sort_unstable_by(|a, b| {
            let refills = self.refills(&a.best);
            let votes = match self.order {
                Order::Votes if !refills => b.targets.cmp(&a.targets),
                Order::Clusters if !refills => b.weight.total_cmp(&a.weight),
                _ => std::cmp::Ordering::Equal,
            };
            let order = refills.cmp(&self.refills(&b.best)).then(votes).then(a.best.rank.cmp(&b.best.rank));
            order.then(a.best.distance().total_cmp(&b.best.distance())).then(a.best.pool.cmp(&b.best.pool))
        });
        picks
    }

    /// Takes `budget` images at most, in budget order. With parts, each gets its number first, and what some cannot use goes to the others
    /// in order.
    pub fn spend(&mut self, budget: usize, parts: Option<Shares<'_>>) {
        let picks = self.picks();
        let mut taken = vec![false; picks.len()];
        let mut left = budget;
        if let Some(parts) = parts {
            let mut room = parts.quotas.to_vec();
            for (pick, taken) in picks.iter().zip(&mut taken) {
                let Some(part) = (parts.of)(&pick.best) else { continue };
                let room = &mut room[part as usize];
                if *room > 0 && left > 0 {
                    (*room, left, *taken) = (*room - 1, left - 1, true);
                }
            }
        }
        for taken in &mut taken {
            if left > 0 && !*taken {
                (left, *taken) = (left - 1, true);
            }
        }
        let mut unpaid: Vec<u32> =
            picks.iter().zip(taken).filter(|(_, taken)| !taken).map(|(pick, _)| pick.best.pool).collect();
        unpaid.sort_unstable();
        self.drop_where(|edge| unpaid.binary_search(&edge.pool).is_ok().then_some(Reason::Budget));
    }

    /// For each of so many target rows how many edges count.
    pub fn per_target(&self, targets: usize) -> Vec<u32> {
        let mut counts = vec![0; targets];
        for (edge, _) in self.edges.iter().zip(&self.reasons).filter(|(_, reason)| reason.counts()) {
            counts[edge.target as usize] += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn edge(target: u32, pool: u32, rank: u32, cosine: f64) -> Edge {
        Edge { target, pool, rank, cosine }
    }

    /// Two targets, three neighbors each; image 7 is a neighbor of both.
    fn two() -> Vec<Edge> {
        vec![
            edge(0, 7, 1, 0.95),
            edge(0, 3, 2, 0.90),
            edge(0, 9, 3, 0.50),
            edge(1, 4, 1, 0.99),
            edge(1, 7, 2, 0.97),
            edge(1, 2, 3, 0.10),
        ]
    }

    fn pools(edges: &Edges) -> Vec<u32> {
        edges.picks().iter().map(|pick| pick.best.pool).collect()
    }

    #[test]
    fn first_choices_come_before_second_ones_and_the_best_edge_is_told() {
        let edges = Edges::new(two(), 3);
        // Rank 1 by distance, then rank 2, then rank 3.
        assert_eq!(pools(&edges), [4, 7, 3, 9, 2]);
        let seven = edges.picks()[1];
        assert_eq!((seven.best.target, seven.best.rank, seven.targets), (0, 1, 2));
        assert_eq!(pools(&Edges::new(two(), 1)), [4, 7]);
    }

    #[test]
    fn by_votes_the_image_of_many_targets_comes_first() {
        let mut edges = Edges::new(two(), 3).in_order_of(Order::Votes);
        assert_eq!(pools(&edges), [7, 4, 3, 9, 2]);
        edges.spend(1, None);
        assert_eq!(pools(&edges), [7]);
    }

    #[test]
    fn max_dist_is_strict_and_zero_takes_nothing() {
        let left = |max, min| {
            let mut edges = Edges::new(two(), 3);
            edges.limit(Limits { max, min });
            let mut pools = pools(&edges);
            pools.sort_unstable();
            (pools, edges.reasons)
        };
        assert_eq!(left(Some(0.0), None).0, [0_u32; 0]);
        assert_eq!(left(Some(2.01), None).0, [2, 3, 4, 7, 9]);
        assert_eq!(left(Some(0.5), None).0, [3, 4, 7], "0.5 is not below 0.5");
        let (pools, reasons) = left(None, Some(0.02));
        assert_eq!(pools, [2, 3, 7, 9]);
        assert_eq!(reasons[3], Reason::MinDist);
    }

    #[test]
    fn a_budget_serves_targets_in_turn_and_says_who_went_without() {
        let mut edges = Edges::new(two(), 3);
        edges.spend(3, None);
        assert_eq!(pools(&edges), [4, 7, 3]);
        assert_eq!(edges.reasons[2], Reason::Budget);
        assert_eq!(edges.per_target(3), [2, 2, 0]);
    }

    #[test]
    fn quotas_are_served_first_and_what_is_left_goes_on() {
        let of = |edge: &Edge| Some(edge.target);
        let mut edges = Edges::new(two(), 3);
        edges.spend(3, Some(Shares { quotas: &[0, 2], of: &of }));
        // Part 1 owns images 4 and 2; then the next in order, 7.
        assert_eq!(pools(&edges), [4, 7, 2]);
        let mut edges = Edges::new(two(), 3);
        edges.spend(9, Some(Shares { quotas: &[1, 8], of: &of }));
        assert_eq!(pools(&edges).len(), 5);
        // An image of no part waits until the parts have their numbers.
        let mut edges = Edges::new(two(), 3);
        edges.spend(2, Some(Shares { quotas: &[1, 1], of: &|edge| (edge.pool != 4).then_some(edge.target) }));
        assert_eq!(pools(&edges), [7, 2]);
    }

    #[test]
    fn votes_weigh_as_much_as_they_are_said_to() {
        let edges = Edges::new(two(), 3).in_order_of(Order::Clusters);
        assert_eq!(pools(&edges), [7, 4, 3, 9, 2], "as by votes");
        let edges = edges.weighing(vec![0.25, 0.875]);
        assert_eq!(pools(&edges), [7, 4, 2, 3, 9]);
        assert_eq!(edges.picks()[0].weight.to_bits(), 1.125_f64.to_bits());
    }

    #[test]
    fn images_beyond_k_refill_a_budget_by_rank_and_say_so() {
        let mut all = two();
        all.extend([edge(0, 5, 4, 0.4), edge(0, 4, 5, 0.3), edge(1, 6, 4, 0.05), edge(1, 5, 5, 0.04), edge(1, 8, 6, 0.0)]);
        for order in [Order::Rank, Order::Votes, Order::Clusters] {
            let first = Edges::new(all.clone(), 3).in_order_of(order);
            let mut edges = Edges::refilled(all.clone(), 3).in_order_of(order).weighing(vec![0.5, 1.0]);
            assert_eq!(edges.picks().len(), 8);
            assert_eq!(
                edges.clone().weighing(vec![]).picks()[..5],
                first.picks()[..],
                "what was there comes first, with its votes"
            );
            assert_eq!(pools(&edges)[5..], [5, 6, 8]);
            edges.spend(7, None);
            edges.tell_refills();
            let reason = |pool: u32| {
                let mut its = edges.edges.iter().zip(&edges.reasons).filter(|(edge, _)| edge.pool == pool);
                its.next().map(|(edge, reason)| (edge.target, edge.rank, *reason))
            };
            assert_eq!(reason(5), Some((0, 4, Reason::Refill)), "its best edge alone");
            assert_eq!(reason(6), Some((1, 4, Reason::Refill)));
            assert_eq!(reason(8), None, "no budget reached it");
            assert_eq!((edges.edges.len(), edges.reasons.len()), (8, 8));
            assert_eq!(edges.per_target(2), [4, 4]);
        }
        // A deeper search changes nothing.
        let mut shallow = Edges::refilled(all.iter().copied().filter(|edge| edge.rank < 5), 3);
        let mut deep = Edges::refilled(all, 3);
        for edges in [&mut shallow, &mut deep] {
            edges.spend(7, None);
            edges.tell_refills();
        }
        assert_eq!(shallow, deep);
    }

    #[test]
    fn caps_bound_hubs_and_greedy_targets() {
        let mut edges = Edges::new(two(), 3);
        edges.cap(Some(1), None);
        assert_eq!(edges.reasons[4], Reason::ImageCap, "image 7 serves target 0, whose first choice it is");
        let mut edges = Edges::new(two(), 3);
        edges.cap(None, Some(1));
        assert_eq!(pools(&edges), [4, 7]);
        assert_eq!(edges.reasons[1], Reason::TargetCap);
    }

    #[test]
    fn a_reason_once_given_stays() {
        let mut edges = Edges::new(two(), 3);
        edges.drop_where(|edge| (edge.pool == 7).then_some(Reason::Excluded));
        edges.limit(Limits { max: Some(0.0), min: None });
        assert_eq!(edges.reasons[0], Reason::Excluded);
        assert_eq!(edges.reasons[1], Reason::MaxDist);
        let mut words = Reason::ALL.map(Reason::word);
        words.sort_unstable();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
    }

    proptest! {
        #[test]
        fn smaller_k_and_smaller_budgets_are_nested_and_no_edge_is_lost(
            cosines in prop::collection::vec(prop::collection::vec((0_u32..30, 0_i8..5), 0..12), 1..12),
            k in 1_usize..12, budget in 0_usize..40,
        ) {
            let mut edges = Vec::new();
            for (target, row) in cosines.iter().enumerate() {
                let mut row: Vec<(u32, f64)> = row.iter().map(|&(p, c)| (p, f64::from(c) / 5.0)).collect();
                row.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
                row.dedup_by_key(|p| p.0);
                for (rank, (pool, cosine)) in row.into_iter().enumerate() {
                    edges.push(edge(target as u32, pool, rank as u32 + 1, cosine));
                }
            }
            let set = |k: usize, budget: Option<usize>| {
                let mut all = Edges::new(edges.clone(), k);
                if let Some(budget) = budget {
                    all.spend(budget, None);
                }
                (pools(&all), all)
            };
            let (small, _) = set(k, None);
            let (large, all) = set(k + 1, None);
            prop_assert!(small.iter().all(|pool| large.contains(pool)));
            let (paid, spent) = set(k + 1, Some(budget));
            prop_assert_eq!(&paid[..], &large[..budget.min(large.len())], "the budget takes the head of the order");
            prop_assert_eq!(all.edges.len(), spent.reasons.len());
            // Every distinct image, by the definition, one by one.
            for pick in all.picks() {
                let its: Vec<&Edge> = all.edges.iter().filter(|edge| edge.pool == pick.best.pool).collect();
                prop_assert_eq!(its.len(), pick.targets as usize);
                let best = its.iter().min_by(|a, b| {
                    a.rank.cmp(&b.rank).then(a.distance().total_cmp(&b.distance())).then(a.target.cmp(&b.target))
                });
                prop_assert_eq!(**best.unwrap(), pick.best);
            }
        }
    }
}
