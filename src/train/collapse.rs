//! Cluster sizes, and the check that clusters have not collapsed into one: rarely do they come apart again, so that is an error with
//! the numbers, not a result.

use serde::{Deserialize, Serialize};

use super::error::{Result, TrainError};
use kinset_stage::{Context, StageError};

/// The share of the largest possible entropy, ln K, below which clusters count as collapsed. Ours. With ten clusters, 94 % of the
/// images in one and the rest in another are just above it.
const FLOOR: f64 = 0.1;

/// Steps of a training before which nothing is called a collapse: a new head begins with a few clusters, on some images with one,
/// and has to pull them apart first. Ours.
pub const PATIENCE: u64 = 100;

/// How the images of an epoch spread over the clusters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterSizes {
    images: usize,
    counts: Vec<usize>,
}

impl ClusterSizes {
    pub fn new(clusters: usize) -> Self {
        Self { images: 0, counts: vec![0; clusters] }
    }

    /// Takes in a batch.
    ///
    /// # Shapes
    /// `probabilities`: `[B, K]`, row-major, rows sum to 1.
    ///
    /// # Panics
    /// If they are not rows of K.
    pub fn observe(&mut self, probabilities: &[f32]) {
        let clusters = self.counts.len();
        assert!(clusters > 0 && probabilities.len().is_multiple_of(clusters), "rows of {clusters} were expected");
        for row in probabilities.chunks_exact(clusters) {
            let best = (1..clusters).fold(0, |best, k| if row[k] > row[best] { k } else { best });
            self.counts[best] += 1;
            self.images += 1;
        }
    }

    /// Images per cluster, each in its most probable one.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Clusters without an image.
    pub fn empty(&self) -> Vec<usize> {
        (0..self.counts.len()).filter(|&k| self.counts[k] == 0).collect()
    }

    /// The share of images in the largest cluster, 0–1.
    pub fn largest(&self) -> f64 {
        self.counts.iter().max().map_or(0.0, |&most| most as f64 / self.images.max(1) as f64)
    }

    /// Entropy of the shares of images, nats: ln K if all clusters are equally large, 0 if one holds all.
    pub fn entropy(&self) -> f64 {
        let shares = self.counts.iter().map(|&count| count as f64 / self.images.max(1) as f64);
        shares.filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum()
    }

    /// Warns of clusters without an image.
    pub fn warn_if_empty(&self, cx: &Context<'_>) {
        let (empty, clusters) = (self.empty().len(), self.counts.len());
        if empty > 0 {
            cx.warn(format!("{empty} of {clusters} clusters are empty; fewer `clusters` may fit these images better"));
        }
    }

    /// Refuses clusters that fell into one.
    ///
    /// # Errors
    /// [`TrainError::Collapsed`] if the entropy of the shares is below a tenth of ln K. Nothing observed is no collapse.
    pub fn check(&self, epoch: usize) -> Result<()> {
        let clusters = self.counts.len();
        let entropy = self.entropy();
        if clusters < 2 || self.images == 0 || entropy >= FLOOR * (clusters as f64).ln() {
            return Ok(());
        }
        Err(TrainError::Collapsed { epoch, clusters, empty: self.empty().len(), largest: self.largest(), entropy })
    }
}

/// Checks the clusters that a finished training of so many epochs gives: a collapse is an error, an empty cluster a warning.
///
/// # Shapes
/// `probabilities`: of these rows of `images` images, `[B, K]`, row-major.
///
/// # Errors
/// [`TrainError::Collapsed`]; whatever `probabilities` says.
pub fn check_clusters(
    (images, clusters, epochs): (usize, usize, u64),
    cx: &Context<'_>,
    probabilities: impl Fn(&[usize]) -> std::result::Result<Vec<f32>, StageError>,
) -> std::result::Result<(), StageError> {
    let mut sizes = ClusterSizes::new(clusters);
    let all: Vec<usize> = (0..images).collect();
    for rows in all.chunks(4096) {
        cx.check()?;
        sizes.observe(&probabilities(rows)?);
    }
    sizes.check(epochs.saturating_sub(1) as usize)?;
    sizes.warn_if_empty(cx);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(counts: &[usize]) -> ClusterSizes {
        let mut sizes = ClusterSizes::new(counts.len());
        for (k, &count) in counts.iter().enumerate() {
            let mut row = vec![0.0; counts.len()];
            row[k] = 1.0;
            for _ in 0..count {
                sizes.observe(&row);
            }
        }
        sizes
    }

    #[test]
    fn even_clusters_have_the_full_entropy_and_one_cluster_has_none() {
        assert!((spread(&[5, 5, 5, 5]).entropy() - 4_f64.ln()).abs() < 1e-12);
        assert!(spread(&[20, 0, 0, 0]).entropy().abs() < 1e-12);
        assert_eq!(spread(&[3, 0, 1]).empty(), [1]);
        assert!((spread(&[3, 0, 1]).largest() - 0.75).abs() < 1e-12);
    }

    #[test]
    fn collapse_is_an_error_with_the_numbers_and_imbalance_is_none() {
        let error = spread(&[990, 10, 0, 0, 0, 0, 0, 0, 0, 0]).check(4).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the clusters collapsed in epoch 5: 8 of 10 are empty, the largest has 99.0 % of the images, \
             entropy 0.056 of at most 2.303 nats"
        );
        assert!(spread(&[90, 10, 0, 0, 0, 0, 0, 0, 0, 0]).check(4).is_ok());
        assert!(spread(&[95, 5]).check(0).is_ok());
        assert!(ClusterSizes::new(10).check(0).is_ok());
    }

    #[test]
    fn an_image_counts_for_its_most_probable_cluster() {
        let mut sizes = ClusterSizes::new(2);
        sizes.observe(&[0.6, 0.4, 0.6, 0.4]);
        assert_eq!(sizes.counts(), [2, 0]);
    }
}
