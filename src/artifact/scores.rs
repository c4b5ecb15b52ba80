//! Scores: how well clusters agree with classes. Measured against labels, so no method may read them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{ArtifactError, Result, display};
use super::meta::{load_checked, save_checked};
use super::{Artifact, Draft, Stored, table};
use kinset_store::digest::Digest;

const FILE: &str = "scores.json";

/// What was measured, under which protocol, in JSON. Not label-free:
///
/// ```compile_fail,E0277
/// fn only_label_free<A: kinset_artifact::LabelFree>() {}
/// only_label_free::<kinset_artifact::scores::Scores>();
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub protocol: Protocol,
    /// The results, the main one first; k-means on the same images stands beside it.
    pub rows: Vec<ScoreRow>,
}

/// How it was measured, and on what. Numbers of different protocols must not be compared.
///
/// Names of stages and data sets are no part of a key, so they are no part of a result: contents stand here by the digests that
/// `stage.json` has of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// The images, or the features in place of them: several of several encoders.
    #[serde(default)]
    pub scored_on: Vec<Digest>,
    /// The ground truth of these images.
    #[serde(default)]
    pub labels: Option<Digest>,
    /// How clusters were matched with classes: `hungarian`, `majority`.
    pub matching: String,
}

// Files of before have other fields, which were empty: they are read as well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScoreRow {
    /// What was measured, by its place among the inputs (`classifiers[1]`), or the baseline.
    pub name: String,
    /// The content of what was measured; nothing for a baseline that was fitted on the way.
    #[serde(default)]
    pub measured: Option<Digest>,
    /// Images with a known class, N.
    pub images: usize,
    /// Clusters, K.
    pub clusters: usize,
    /// Classes, C.
    pub classes: usize,
    /// Accuracy under the matching, 0–1.
    pub acc: Option<f64>,
    /// Normalized mutual information, 0–1.
    pub nmi: Option<f64>,
    /// Adjusted Rand index, up to 1.
    pub ari: Option<f64>,
    /// The share of images whose class is among the five most probable matched clusters, 0–1.
    pub top5: Option<f64>,
    /// Expected calibration error, 0–1.
    pub ece: Option<f64>,
    /// Accuracy if each cluster takes its most frequent class, 0–1: the measure where K > C.
    pub majority: Option<f64>,
    /// Accuracy of the nearest neighbors' vote on the features, 0–1.
    pub knn: Option<f64>,
    /// Accuracy of a linear classifier on the features, 0–1.
    // Left out where there is none: scores of before keep their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linear: Option<f64>,
    /// Pairs of cluster and class.
    pub matching: Vec<(u32, u32)>,
    /// `[C]`: the share of each class that was found, 0–1; nothing where the class has no image.
    pub per_class: Vec<Option<f64>>,
    /// `[C, K]`: images of a class (row) in a cluster (column).
    pub confusion: Vec<Vec<u64>>,
    /// `[K]`: images per cluster.
    pub cluster_sizes: Vec<u64>,
    pub notes: Vec<String>,
}

artifact!(Scores, "scores", [FILE], ground_truth);

impl Scores {
    /// Writes `scores.json` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Self>> {
        Ok(Draft::new(vec![save_checked((dir, FILE, Self::KIND), self, |path| self.check(path))?]))
    }

    pub fn load(stored: &Stored<Self>) -> Result<Self> {
        load_checked(stored.file(FILE), Self::KIND, Self::check)
    }

    fn check(&self, path: &Path) -> Result<()> {
        if self.rows.is_empty() {
            return Err(ArtifactError::Empty { path: display(path), what: "scores" });
        }
        for (place, row) in self.rows.iter().enumerate() {
            row.check(path, place)?;
        }
        Ok(())
    }
}

/// A number that results may have, and tables a column for.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    /// In files: `acc`.
    pub name: &'static str,
    /// In tables: `ACC`.
    pub title: &'static str,
    /// True of errors.
    pub less_is_better: bool,
    of: fn(&ScoreRow) -> Option<f64>,
}

/// All of them, in the order of tables.
pub const MEASURES: [Measure; 8] = [
    Measure { name: "acc", title: "ACC", less_is_better: false, of: |row| row.acc },
    Measure { name: "nmi", title: "NMI", less_is_better: false, of: |row| row.nmi },
    Measure { name: "ari", title: "ARI", less_is_better: false, of: |row| row.ari },
    Measure { name: "top5", title: "top-5", less_is_better: false, of: |row| row.top5 },
    Measure { name: "ece", title: "ECE", less_is_better: true, of: |row| row.ece },
    Measure { name: "majority", title: "majority", less_is_better: false, of: |row| row.majority },
    Measure { name: "knn", title: "kNN", less_is_better: false, of: |row| row.knn },
    Measure { name: "linear", title: "linear", less_is_better: false, of: |row| row.linear },
];

impl Measure {
    pub fn of(&self, row: &ScoreRow) -> Option<f64> {
        (self.of)(row)
    }

    /// For tables that people read: that several clusters share a class is only worth a column where there are more of them.
    pub fn told(&self, row: &ScoreRow) -> Option<f64> {
        self.of(row).filter(|_| self.name != "majority" || row.clusters > row.classes)
    }
}

impl ScoreRow {
    /// The numbers of this result by name, in the order of [`MEASURES`].
    pub fn numbers(&self) -> [(&'static str, Option<f64>); MEASURES.len()] {
        MEASURES.map(|measure| (measure.name, measure.of(self)))
    }

    fn check(&self, path: &Path, place: usize) -> Result<()> {
        let numbers = self.numbers().into_iter().chain(self.per_class.iter().map(|share| ("per_class", *share)));
        for (column, value) in numbers {
            let Some(value) = value else { continue };
            if !value.is_finite() {
                let (path, column) = (display(path), column.to_owned());
                return Err(ArtifactError::NotFinite { path, column, row: place, value: value.to_string() });
            }
            // The Rand index may fall below 0, but not far; all may miss 1 by rounding.
            let low = if column == "ari" { -1.0 } else { 0.0 };
            if !(low - 1e-9..=1.0 + 1e-9).contains(&value) {
                return Err(table::out_of_range(path, column, place, value, format!("a share from {low} to 1")));
            }
        }
        let Self { clusters, classes, confusion, cluster_sizes, per_class, matching, .. } = self;
        let contradiction = |what: String| {
            Err(ArtifactError::Contradiction { path: display(path), what: format!("result {place} (`{}`): {what}", self.name) })
        };
        if !confusion.is_empty() && (confusion.len() != *classes || confusion.iter().any(|row| row.len() != *clusters)) {
            return contradiction(format!("the confusion matrix is not {classes} classes × {clusters} clusters"));
        }
        if !cluster_sizes.is_empty() && cluster_sizes.len() != *clusters {
            return contradiction(format!("{} cluster sizes for {clusters} clusters", cluster_sizes.len()));
        }
        if !per_class.is_empty() && per_class.len() != *classes {
            return contradiction(format!("{} class accuracies for {classes} classes", per_class.len()));
        }
        match matching.iter().find(|(cluster, class)| *cluster as usize >= *clusters || *class as usize >= *classes) {
            Some((cluster, class)) => contradiction(format!("cluster {cluster} is matched with class {class}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn scores() -> Scores {
        Scores {
            protocol: Protocol {
                scored_on: vec![Digest::of(b"images")],
                labels: Some(Digest::of(b"labels")),
                matching: "hungarian".into(),
            },
            rows: vec![ScoreRow {
                name: "classifiers[0]".into(),
                measured: Some(Digest::of(b"classifier")),
                images: 4,
                clusters: 2,
                classes: 2,
                acc: Some(0.75),
                nmi: Some(0.1 + 0.2),
                ari: Some(-0.125),
                matching: vec![(0, 1), (1, 0)],
                per_class: vec![Some(1.0), None],
                confusion: vec![vec![0, 3], vec![0, 1]],
                cluster_sizes: vec![0, 4],
                ..ScoreRow::default()
            }],
        }
    }

    #[test]
    fn scores_come_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Scores::load(&stored(&scores().save(dir.path()).unwrap())).unwrap(), scores());
    }

    #[test]
    fn scores_of_before_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let draft = scores().save(dir.path()).unwrap();
        let path = dir.path().join(FILE);
        let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let content = &mut file["content"];
        content["protocol"] =
            serde_json::json!({ "dataset": "", "trained_on": [], "scored_on": [], "matching": "hungarian", "seeds": [] });
        let row = content["rows"][0].as_object_mut().unwrap();
        row.insert("split".into(), "".into());
        row.remove("measured");
        std::fs::write(&path, file.to_string()).unwrap();
        let read = Scores::load(&stored(&draft)).unwrap();
        assert_eq!((read.protocol.scored_on.len(), read.protocol.labels, read.rows[0].measured), (0, None, None));
        assert_eq!(read.rows[0].acc, scores().rows[0].acc);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut ScoreRow)| {
            let mut scores = scores();
            change(&mut scores.rows[0]);
            scores.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|row| row.nmi = Some(f64::NAN)).contains("`nmi`"));
        assert!(refuse(|row| row.acc = Some(75.0)).contains("a share from 0 to 1"));
        assert!(refuse(|row| row.clusters = 3).contains("2 classes × 3 clusters"));
        assert!(refuse(|row| row.matching = vec![(0, 2)]).contains("matched with class 2"));
        let empty = Scores { rows: vec![], ..scores() };
        assert!(matches!(empty.save(dir.path()).unwrap_err(), ArtifactError::Empty { .. }));
    }
}
