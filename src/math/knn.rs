//! k-nearest-neighbor votes and purity over neighbor lists, to judge features with labels (never to train).

/// Votes of the `k` nearest labeled-or-not neighbors, each with weight exp(s / T), s its similarity (Wu et al. 2018,
/// "Unsupervised feature learning via non-parametric instance discrimination", section 3.4). Neighbors without label do not
/// vote; a row all of whose neighbors are silent gets −1. Equal sums go to the lower class.
///
/// # Shapes
/// `neighbors` and `similarity` [N, M], best first; `labels` indexed by neighbor, each below `classes`.
///
/// # Panics
/// If shapes disagree, `k` is 0 or above M, the temperature is not positive, or a number is out of range.
pub fn weighted_vote(
    neighbors: &[u32],
    similarity: &[f32],
    width: usize,
    k: usize,
    labels: &[i32],
    classes: usize,
    temperature: f64,
) -> Vec<i32> {
    check(neighbors, width, k);
    assert_eq!(neighbors.len(), similarity.len(), "one similarity per neighbor");
    assert!(temperature > 0.0, "a temperature is positive");
    let mut sums = vec![0.0_f64; classes];
    neighbors
        .chunks(width)
        .zip(similarity.chunks(width))
        .map(|(row, similarity)| {
            sums.fill(0.0);
            // Relative to the best, so that a small temperature cannot overflow; the ranking of the sums is the same.
            let best = f64::from(similarity[..k].iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let mut heard = false;
            for (&neighbor, &s) in row[..k].iter().zip(similarity) {
                if let Ok(class) = usize::try_from(labels[neighbor as usize]) {
                    sums[class] += ((f64::from(s) - best) / temperature).exp();
                    heard = true;
                }
            }
            if !heard {
                return -1;
            }
            let mut winner = 0;
            for class in 1..classes {
                if sums[class] > sums[winner] {
                    winner = class;
                }
            }
            winner as i32
        })
        .collect()
}

/// The plain majority among a row's own cluster and those of its first `k` neighbors, each one vote. Equal counts go to the lower
/// cluster.
///
/// # Shapes
/// `neighbors` [N, M] over the rows themselves, `cluster` `[N]`, each below `clusters`.
///
/// # Panics
/// If shapes disagree, `k` is 0 or above M, or a number is out of range.
pub fn majority_with_self(neighbors: &[u32], width: usize, k: usize, cluster: &[u32], clusters: usize) -> Vec<u32> {
    check(neighbors, width, k);
    assert_eq!(neighbors.len(), cluster.len() * width, "one list of neighbors per row");
    let mut votes = vec![0_usize; clusters];
    neighbors
        .chunks(width)
        .zip(cluster)
        .map(|(row, &own)| {
            votes.fill(0);
            votes[own as usize] += 1;
            for &neighbor in &row[..k] {
                votes[cluster[neighbor as usize] as usize] += 1;
            }
            (1..clusters).fold(0, |best, c| if votes[c] > votes[best] { c } else { best }) as u32
        })
        .collect()
}

/// The label of the nearest neighbor of each row: the 1-NN classifier.
///
/// # Panics
/// If shapes disagree or a neighbor is out of range.
pub fn nearest(neighbors: &[u32], width: usize, labels: &[i32]) -> Vec<i32> {
    check(neighbors, width, 1);
    neighbors.chunks(width).map(|row| labels[row[0] as usize]).collect()
}

/// Share of (row, neighbor) pairs over the first `k` neighbors whose labels agree, 0 to 1: how far a neighbor list can be
/// trusted. Pairs with an unknown label do not count; NaN if none is left. Rows must not be their own neighbors.
///
/// # Shapes
/// `neighbors` [N, M] over the rows themselves, `labels` `[N]`.
///
/// # Panics
/// If shapes disagree, `k` is 0 or above M, or a neighbor is out of range.
pub fn purity(neighbors: &[u32], width: usize, k: usize, labels: &[i32]) -> f64 {
    check(neighbors, width, k);
    assert_eq!(neighbors.len(), labels.len() * width, "one list of neighbors per label");
    let (mut agree, mut pairs) = (0_u64, 0_u64);
    for (row, &label) in neighbors.chunks(width).zip(labels) {
        for &neighbor in &row[..k] {
            let other = labels[neighbor as usize];
            if label >= 0 && other >= 0 {
                pairs += 1;
                agree += u64::from(label == other);
            }
        }
    }
    agree as f64 / pairs as f64
}

fn check(neighbors: &[u32], width: usize, k: usize) {
    assert!(width > 0 && neighbors.len().is_multiple_of(width), "neighbors must be [N, M] with M > 0");
    assert!((1..=width).contains(&k), "k must be from 1 to M");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topk::top_k;

    #[test]
    fn the_weighted_vote_of_the_reference_comes_out() {
        let point = |degrees: f64| [degrees.to_radians().cos() as f32, degrees.to_radians().sin() as f32];
        let bank = [0.0, 20.0, 60.0, 100.0, 140.0, 200.0].map(point);
        let (mut neighbors, mut similarity) = (Vec::new(), Vec::new());
        for query in [5.0, 80.0, 120.0, 260.0].map(point) {
            let s: Vec<f32> = bank.iter().map(|b| b[0] * query[0] + b[1] * query[1]).collect();
            for i in top_k(&s, 4) {
                neighbors.push(i as u32);
                similarity.push(s[i]);
            }
        }
        assert_eq!(weighted_vote(&neighbors, &similarity, 4, 4, &[0, 1, 1, 2, 2, 0], 3, 0.1), [0, 1, 2, 0]);
        assert_eq!(weighted_vote(&neighbors, &similarity, 4, 4, &[0, 1, 1, 2, 2, 0], 3, 1e-4)[0], 0, "no overflow");
        assert_eq!(nearest(&neighbors, 4, &[0, 1, 1, 2, 2, 0]), [0, 1, 2, 0]);
    }

    #[test]
    fn neighbors_without_label_are_silent() {
        assert_eq!(weighted_vote(&[0, 1, 2, 2], &[0.9, 0.1, 0.5, 0.4], 2, 2, &[-1, 1, -1], 2, 0.1), [1, -1]);
    }

    #[test]
    fn a_row_votes_too_and_ties_go_to_the_lower_cluster() {
        let neighbors = [1, 2, 0, 2, 0, 1];
        assert_eq!(majority_with_self(&neighbors, 2, 2, &[2, 1, 1], 3), [1, 1, 1]);
        assert_eq!(majority_with_self(&neighbors, 2, 1, &[2, 1, 1], 3), [1, 1, 1], "one against one");
        assert_eq!(majority_with_self(&neighbors, 2, 1, &[0, 1, 2], 3), [0, 0, 0]);
        assert_eq!(majority_with_self(&neighbors, 2, 2, &[0, 1, 2], 3), [0, 0, 0]);
    }

    #[test]
    fn purity_counts_agreeing_pairs() {
        let neighbors = [1, 2, 0, 2, 0, 1];
        assert!((purity(&neighbors, 2, 1, &[0, 0, 1]) - 2.0 / 3.0).abs() < 1e-12);
        assert!((purity(&neighbors, 2, 2, &[0, 0, 1]) - 2.0 / 6.0).abs() < 1e-12);
        assert!((purity(&neighbors, 2, 2, &[0, 0, -1]) - 1.0).abs() < 1e-12);
        assert!(purity(&neighbors, 2, 2, &[-1, -1, -1]).is_nan());
    }
}
