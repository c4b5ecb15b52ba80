//! The choice of images that keep the label the clustering gave them.
//!
//! Those the classifier is sure of, those whose neighbors mostly have the same label, or those of both kinds. Computed once,
//! before training, on plain images.

use super::settings::{Config, Sampling};
use kinset_artifact::neighbors::NeighborTable;
use kinset_math::knn::majority_with_self;
use kinset_math::topk::argmax_rows;
use kinset_stage::StageError;

/// What the clustering says of each image, and whether that is taken as its label.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// `[N]`: the cluster of each image.
    pub label: Vec<u32>,
    /// `[N]`: whether that is taken as its label.
    pub clean: Vec<bool>,
    /// Images the classifier is sure of.
    pub confident: usize,
    /// Images whose neighbors agree.
    pub agreeing: usize,
    /// Images of both kinds.
    pub both: usize,
    /// Clusters of which no image keeps its label.
    pub lost_clusters: usize,
}

/// Splits the images.
///
/// # Shapes
/// `probabilities` `[N, K]`, row-major; neighbors of the same N images, the image itself left out.
///
/// # Errors
/// If more neighbors are asked for than were mined; if nothing, or only one cluster, is left.
///
/// # Paper
/// RUC, section 3.1. The threshold itself passes, as in the authors' code. Of a tied vote the lower cluster wins (the authors'
/// sort on a GPU leaves that open).
pub fn split(probabilities: &[f32], clusters: usize, neighbors: &NeighborTable, config: &Config) -> Result<Split, StageError> {
    let k = config.num_neighbors.unwrap_or(neighbors.k);
    if k > neighbors.k {
        return Err(StageError::Mismatch {
            what: format!("`num_neighbors` is {k}, but only {} neighbors per image were mined", neighbors.k),
            hint: format!("set `num_neighbors` to at most {}, or mine more with the stage `neighbors`", neighbors.k),
        });
    }
    let best = argmax_rows(probabilities, clusters);
    let confidence = |row: usize| probabilities[row * clusters + best[row]];
    let label: Vec<u32> = best.iter().map(|&cluster| cluster as u32).collect();
    let voted = majority_with_self(&neighbors.index, neighbors.k, k, &label, clusters);
    let (mut confident, mut agreeing, mut both) = (0, 0, 0);
    let clean: Vec<bool> = (0..label.len())
        .map(|row| {
            let sure = f64::from(confidence(row)) >= config.confidence_threshold;
            let agrees = voted[row] == label[row];
            confident += usize::from(sure);
            agreeing += usize::from(agrees);
            both += usize::from(sure && agrees);
            match config.sampling {
                Sampling::Confidence => sure,
                Sampling::Metric => agrees,
                Sampling::Hybrid => sure && agrees,
            }
        })
        .collect();
    let mut kept = vec![false; clusters];
    for (row, _) in clean.iter().enumerate().filter(|(_, clean)| **clean) {
        kept[best[row]] = true;
    }
    let lost_clusters = kept.iter().filter(|kept| !**kept).count();
    let largest = (0..label.len()).map(confidence).fold(0.0, f32::max);
    let split = Split { label, clean, confident, agreeing, both, lost_clusters };
    split.check(clusters, largest, config)?;
    Ok(split)
}

impl Split {
    /// Images that keep their label.
    pub fn clean_images(&self) -> usize {
        self.clean.iter().filter(|clean| **clean).count()
    }

    fn check(&self, clusters: usize, largest: f32, config: &Config) -> Result<(), StageError> {
        let Self { confident, agreeing, label, .. } = self;
        let found = format!(
            "of {} images {confident} reach the confidence {} (the largest is {largest:.4}), and {agreeing} agree with their \
             neighbors",
            label.len(),
            config.confidence_threshold
        );
        if self.clean_images() == 0 {
            return Err(StageError::Degenerate {
                code: "ruc::nothing-clean",
                what: format!("no image keeps its label: {found}"),
                hint:
                    "set `sampling = \"metric\"` (distances of k-means are not confidences), lower `confidence_threshold`, or \
                       train the classifier longer"
                        .into(),
            });
        }
        if clusters - self.lost_clusters < 2 {
            return Err(StageError::Degenerate {
                code: "ruc::one-cluster",
                what: format!("all {} images that keep their label are of one cluster: {found}", self.clean_images()),
                hint: "look at the classifier, whose clusters may have collapsed; else set `sampling = \"metric\"` or lower \
                       `confidence_threshold`"
                    .into(),
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fault::Fault;

    /// Five images: 0 and 1 sure and alike, 2 sure among strangers, 3 unsure among its like, 4 unsure.
    fn given() -> (Vec<f32>, NeighborTable) {
        let probabilities = vec![0.99, 0.01, 0.995, 0.005, 0.002, 0.998, 0.9, 0.1, 0.3, 0.7];
        let table = NeighborTable {
            ids: ["a", "b", "c", "d", "e"].map(String::from).to_vec(),
            k: 2,
            index: vec![1, 3, 0, 3, 0, 1, 0, 1, 2, 0],
            similarity: vec![0.5; 10],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        };
        (probabilities, table)
    }

    fn of(sampling: Sampling) -> Split {
        let (probabilities, table) = given();
        // The reference's threshold, in the precision of the probabilities.
        let config = Config { sampling, confidence_threshold: f64::from(0.99_f32), ..Config::default() };
        split(&probabilities, 2, &table, &config).unwrap()
    }

    #[test]
    fn the_threshold_itself_passes_and_neighbors_outvote() {
        let (confidence, metric, hybrid) = (of(Sampling::Confidence), of(Sampling::Metric), Sampling::Hybrid);
        assert_eq!(confidence.label, [0, 0, 1, 0, 1]);
        assert_eq!(confidence.clean, [true, true, true, false, false]);
        assert_eq!(metric.clean, [true, true, false, true, true]);
        assert_eq!((metric.confident, metric.agreeing, metric.both), (3, 4, 2));
        let (probabilities, table) = given();
        let lower = Config { sampling: hybrid, confidence_threshold: 0.65, ..Config::default() };
        let hybrid = split(&probabilities, 2, &table, &lower).unwrap();
        assert_eq!(hybrid.clean, [true, true, false, true, true]);
    }

    #[test]
    fn hybrid_is_what_both_believe() {
        let (probabilities, table) = given();
        for threshold in [0.5, 0.65, 0.7] {
            let of = |sampling| {
                let config = Config { sampling, confidence_threshold: threshold, ..Config::default() };
                split(&probabilities, 2, &table, &config).map(|split| split.clean)
            };
            let (Ok(one), Ok(two), Ok(both)) = (of(Sampling::Confidence), of(Sampling::Metric), of(Sampling::Hybrid)) else {
                continue;
            };
            assert!((0..5).all(|row| both[row] == (one[row] && two[row])), "{threshold}");
        }
    }

    #[test]
    fn a_split_that_teaches_nothing_is_an_error_with_the_numbers() {
        let (probabilities, table) = given();
        let with = |config: &Config| split(&probabilities, 2, &table, config).unwrap_err();
        let error = with(&Config { sampling: Sampling::Confidence, confidence_threshold: 0.9999, ..Config::default() });
        assert_eq!(error.code(), "ruc::nothing-clean");
        assert!(error.to_string().contains("0 reach the confidence 0.9999 (the largest is 0.9980), and 4 agree"), "{error}");
        let error = with(&Config { confidence_threshold: 0.98, ..Config::default() });
        assert_eq!(error.code(), "ruc::one-cluster", "{error}");
        let error = with(&Config { num_neighbors: Some(3), ..Config::default() });
        assert!(error.to_string().contains("only 2 neighbors"), "{error}");
    }
}
