//! Entropy: how spread out a distribution is. Natural logarithms throughout, as the papers' losses have them: ln K is the most that
//! K clusters can reach.

use rayon::prelude::*;

/// Rows per parallel piece; fixed, so that no result depends on the number of threads.
const ROWS: usize = 1024;

/// Entropy −Σ p ln p of one distribution, with 0 ln 0 = 0.
///
/// The numbers are taken as they are: nothing is normalized, entries at or below zero count as zero.
///
/// # Units
/// Nats, 0 to ln K.
pub fn entropy<P: Copy + Into<f64>>(p: &[P]) -> f64 {
    // `+ 0.0` turns the −0.0 of a one-hot distribution into 0.0.
    -p.iter().map(|&p| p.into()).filter(|&p| p > 0.0).map(|p| p * p.ln()).sum::<f64>() + 0.0
}

/// Entropy of the distribution behind some counts; 0 if all counts are zero.
pub fn entropy_of_counts(counts: &[u64]) -> f64 {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return 0.0;
    }
    let total = total as f64;
    // ln n − Σ c ln c / n: exactly zero for a single non-empty cell, unlike −Σ p ln p of rounded quotients.
    let weighted: f64 = counts.iter().filter(|&&c| c > 0).map(|&c| (c as f64 / total) * (total / c as f64).ln()).sum();
    weighted.max(0.0)
}

/// Entropy of each row of probabilities [N, K].
///
/// # Panics
/// If `clusters` is 0 or does not divide the length.
pub fn entropy_rows(probabilities: &[f32], clusters: usize) -> Vec<f32> {
    assert!(clusters > 0 && probabilities.len().is_multiple_of(clusters), "probabilities must be [N, K] with K > 0");
    probabilities.par_chunks(ROWS * clusters).flat_map_iter(|rows| rows.chunks(clusters).map(|p| entropy(p) as f32)).collect()
}

/// Effective number of clusters, exp of the entropy: K if all are used alike, 1 if one holds everything.
pub fn perplexity<P: Copy + Into<f64>>(p: &[P]) -> f64 {
    entropy(p).exp()
}

/// Mean of the rows of probabilities [N, K], a distribution over K clusters; zeros for N = 0.
///
/// # Panics
/// If `clusters` is 0 or does not divide the length.
pub fn mean_distribution(probabilities: &[f32], clusters: usize) -> Vec<f64> {
    assert!(clusters > 0 && probabilities.len().is_multiple_of(clusters), "probabilities must be [N, K] with K > 0");
    let mut mean = vec![0.0; clusters];
    for row in probabilities.chunks(clusters) {
        for (sum, &p) in mean.iter_mut().zip(row) {
            *sum += f64::from(p);
        }
    }
    let rows = (probabilities.len() / clusters).max(1) as f64;
    for sum in &mut mean {
        *sum /= rows;
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::softmax::softmax_rows;

    #[test]
    fn a_uniform_distribution_has_ln_k_and_a_certain_one_zero() {
        assert!((entropy(&[0.1_f64; 10]) - 10_f64.ln()).abs() < 1e-12);
        assert!((perplexity(&[0.25_f32; 4]) - 4.0).abs() < 1e-12);
        let certain = entropy(&[0.0_f32, 1.0, 0.0]);
        assert!(certain == 0.0 && certain.is_sign_positive());
        assert!((entropy(&[0.5, 0.25, 0.25]) - 1.5 * 2_f64.ln()).abs() < 1e-12);
    }

    #[test]
    fn counts_and_their_distribution_agree() {
        assert!((entropy_of_counts(&[3, 0, 1]) - entropy(&[0.75, 0.25])).abs() < 1e-15);
        assert!(entropy_of_counts(&[7, 0]) == 0.0);
        assert!(entropy_of_counts(&[]) == 0.0);
    }

    #[test]
    fn the_mean_prediction_of_the_scan_fixture_has_its_published_entropy() {
        let logits: Vec<f32> =
            (0..30).map(|f| 2.0 * (1.1 * (f / 5) as f64 + 0.9 * (f % 5) as f64).cos()).map(|x| x as f32).collect();
        let p = softmax_rows(&logits, 5);
        assert!((entropy(&mean_distribution(&p, 5)) - 1.5896356).abs() < 1e-6);
        assert_eq!(entropy_rows(&p, 5).len(), 6);
        assert!((f64::from(entropy_rows(&p, 5)[2]) - entropy(&p[10..15])).abs() < 1e-6);
    }

    #[test]
    fn no_rows_have_no_entropy() {
        assert!(entropy_rows(&[], 4).is_empty());
        assert_eq!(mean_distribution(&[], 2), [0.0, 0.0]);
    }
}
