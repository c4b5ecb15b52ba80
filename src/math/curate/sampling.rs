//! Cluster sampling: how many images of each cluster are taken, and which first, so that clusters with what is rare get more.
//!
//! As a fork of SCAN samples the frames of a camera. It counts objects: n_ic of class c in cluster i. A class weighs w_c = 1 − n_c / Σ n,
//! a cluster in proportion to Σ_c w_c n_ic / (n_c + 10⁻⁷), and gets that share of the budget, cut to a whole number. Within a cluster
//! the images with most objects come first, each counted by the weight of its class. Two of its flaws are not here: an empty cluster is
//! a cluster of weight 0, and whoever spends the quotas goes on with what they leave of the budget.

/// Clusters, unless another number is named: the fork's.
pub const CLUSTERS: usize = 27;
/// The fork's guard against classes without an object.
const LEAST: f64 = 1e-7;

/// What classes and clusters weigh.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// `[C]`, 0 to 1.
    pub classes: Vec<f64>,
    /// `[K]`, summing to 1; all 0 if there is no object.
    pub clusters: Vec<f64>,
}

impl Weights {
    /// From the objects of each class in each cluster, `counts` [K, C]. Where one class has all objects, it weighs 1.
    ///
    /// # Panics
    /// If `classes` is 0 or does not divide the length.
    pub fn of(counts: &[u64], classes: usize) -> Self {
        assert!(classes > 0 && counts.len().is_multiple_of(classes), "counts must be [K, C] with C > 0");
        let mut totals = vec![0_u64; classes];
        for row in counts.chunks_exact(classes) {
            totals.iter_mut().zip(row).for_each(|(total, count)| *total += count);
        }
        let all: u64 = totals.iter().sum();
        let single = totals.contains(&all);
        let weight = |&total: &u64| if single { 1.0 } else { 1.0 - total as f64 / all as f64 };
        let weights: Vec<f64> = totals.iter().map(weight).collect();
        let shares = |row: &[u64]| {
            let terms = row.iter().zip(&totals).zip(&weights);
            terms.map(|((&count, &total), weight)| weight * count as f64 / (total as f64 + LEAST)).sum()
        };
        let mut clusters: Vec<f64> = counts.chunks_exact(classes).map(shares).collect();
        let sum: f64 = clusters.iter().sum();
        if sum > 0.0 {
            for weight in &mut clusters {
                *weight /= sum;
            }
        }
        Self { classes: weights, clusters }
    }

    /// `[K]`: images that each cluster gets of a budget, together at most the budget.
    pub fn quotas(&self, budget: usize) -> Vec<usize> {
        self.clusters.iter().map(|weight| (budget as f64 * weight).trunc() as usize).collect()
    }
}

/// How many images of a cluster count: the most probable ones, down to the probability nearest to one half, of equal ones the first.
/// `probabilities` fall.
pub fn confident(probabilities: &[f32]) -> usize {
    let from_half = |at: usize| (f64::from(probabilities[at]) - 0.5).abs();
    (0..probabilities.len()).min_by(|&a, &b| from_half(a).total_cmp(&from_half(b)).then(a.cmp(&b))).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects of four classes in 27 clusters, the sixth of which is empty.
    fn counts() -> Vec<u64> {
        let count = |i: u64, c: u64| if i == 5 { 0 } else { (7 * i + 3 * c + i * c) % 11 * (c + 1) };
        (0..27).flat_map(|i| (0..4).map(move |c| count(i, c))).collect()
    }

    const CLASSES: [f64; 4] = [0.8973966309341501, 0.8192955589586524, 0.7151607963246555, 0.5681470137825422];
    const SOME: [(usize, f64); 5] =
        [(0, 0.030566268597621217), (1, 0.03406130771624177), (5, 0.0), (13, 0.03845905421593956), (26, 0.04204073110797676)];
    const QUOTAS: [usize; 27] = [
        183, 204, 230, 251, 252, 0, 299, 173, 46, 347, 309, 183, 204, 230, 251, 252, 278, 299, 173, 46, 347, 309, 183, 204,
        230, 251, 252,
    ];

    #[test]
    fn weights_and_quotas_are_those_of_the_definition() {
        // From a script in Python, with counts as `r` by cluster: n[c] = sum(r[c] for r in counts), w[c] = 1 - n[c] / sum(n),
        // s[i] = sum(w[c] * counts[i][c] / (n[c] + 1e-7) for c in range(4)), s[i] / sum(s), int(6000 * s[i]).
        let weights = Weights::of(&counts(), 4);
        let close = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
        for (found, wanted) in weights.classes.iter().zip(CLASSES) {
            close(*found, wanted);
        }
        for (place, wanted) in SOME {
            close(weights.clusters[place], wanted);
        }
        assert_eq!(weights.quotas(6000), QUOTAS);
        close(weights.clusters.iter().sum(), 1.0);
        let all: usize = weights.quotas(6000).iter().sum();
        assert_eq!(all, 5986, "cut to whole numbers, they fill the budget not quite");
    }

    #[test]
    fn what_is_rare_weighs_more_and_nothing_weighs_nothing() {
        // By hand: n = (8, 2), w = (0.2, 0.8); the first cluster 0.2 · 8/8 = 0.2, the second 0.8 · 2/2 = 0.8.
        let weights = Weights::of(&[8, 0, 0, 2], 2);
        assert_eq!(weights.quotas(100), [20, 79], "0.8 is a little less after the fork's 1e-7");
        assert_eq!(Weights::of(&[0, 0, 0, 0], 2).quotas(100), [0, 0]);
        assert_eq!(Weights::of(&[3, 0, 1, 0], 2).quotas(100), [75, 25], "of one class no other is rarer");
        assert_eq!(Weights::of(&[3, 1], 1).classes, [1.0]);
    }

    #[test]
    fn a_cluster_ends_at_the_probability_nearest_to_one_half() {
        assert_eq!(confident(&[0.9, 0.7, 0.52, 0.45, 0.2]), 3);
        assert_eq!(confident(&[0.9, 0.75, 0.25]), 2, "the first of equals");
        assert_eq!(confident(&[0.3, 0.2]), 1);
        assert_eq!(confident(&[0.99, 0.98]), 2);
        assert_eq!(confident(&[]), 0);
    }
}
