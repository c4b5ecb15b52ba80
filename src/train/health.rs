//! Is this run still worth its electricity?
//!
//! A loss that is no number never becomes one again, and clusters that fell into one rarely come apart: both are errors with
//! the numbers, not results.

use serde::{Deserialize, Serialize};

use super::error::{Result, TrainError};

/// Passes a finite number through.
///
/// # Errors
/// [`TrainError::NotFinite`] with its place.
pub fn finite(what: &'static str, value: f64, epoch: usize, step: usize) -> Result<f64> {
    if value.is_finite() { Ok(value) } else { Err(TrainError::NotFinite { what, value, epoch, step }) }
}

/// The share of the largest possible entropy, ln K, below which clusters count as collapsed. Ours. With ten clusters, 94 % of the
/// images in one and the rest in another are just above it.
const FLOOR: f64 = 0.1;

/// Steps of a training before which nothing is called a collapse: a new head begins with a few clusters, on some images with one,
/// and has to pull them apart first. Ours.
pub const PATIENCE: u64 = 100;

/// How the images of an epoch spread over the clusters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Occupancy {
    images: usize,
    counts: Vec<usize>,
    mass: Vec<f64>,
}

impl Occupancy {
    /// No images yet, `clusters` clusters.
    pub fn new(clusters: usize) -> Self {
        Self { images: 0, counts: vec![0; clusters], mass: vec![0.0; clusters] }
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
            for (mass, &p) in self.mass.iter_mut().zip(row) {
                *mass += f64::from(p);
            }
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
        entropy(self.counts.iter().map(|&count| count as f64 / self.images.max(1) as f64))
    }

    /// Entropy of the mean probabilities, nats.
    pub fn mean_entropy(&self) -> f64 {
        entropy(self.mass.iter().map(|mass| mass / self.images.max(1) as f64))
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

fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    shares.filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(counts: &[usize]) -> Occupancy {
        let mut occupancy = Occupancy::new(counts.len());
        for (k, &count) in counts.iter().enumerate() {
            let mut row = vec![0.0; counts.len()];
            row[k] = 1.0;
            for _ in 0..count {
                occupancy.observe(&row);
            }
        }
        occupancy
    }

    #[test]
    fn a_number_passes_and_what_is_none_names_its_place() {
        assert!(finite("the loss", -11.0, 0, 0).is_ok());
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(finite("the loss", value, 3, 7).is_err());
        }
        let error = finite("the loss", f64::NAN, 3, 7).unwrap_err();
        assert_eq!(error.to_string(), "the loss is `NaN` in epoch 4, step 8");
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
            "the clusters collapsed in epoch 5: 8 of 10 are empty, the largest holds 99.0 % of the images, \
             entropy 0.056 of at most 2.303 nats"
        );
        assert!(spread(&[90, 10, 0, 0, 0, 0, 0, 0, 0, 0]).check(4).is_ok());
        assert!(spread(&[95, 5]).check(0).is_ok());
        assert!(Occupancy::new(10).check(0).is_ok());
    }

    #[test]
    fn soft_and_hard_assignments_are_told_apart() {
        let mut occupancy = Occupancy::new(2);
        occupancy.observe(&[0.6, 0.4, 0.6, 0.4]);
        assert_eq!(occupancy.counts(), [2, 0]);
        let wanted = -(0.6_f64 * 0.6_f64.ln() + 0.4 * 0.4_f64.ln());
        assert!((occupancy.mean_entropy() - wanted).abs() < 1e-6);
    }
}
