//! Labeled features and query features: what `knn_eval` and `linear_eval` read.

use super::evaluate::truth_of;
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_artifact::scores::{Protocol, ScoreRow, Scores};
use kinset_artifact::{Draft, Stored};
use kinset_stage::StageError;

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// Features of the images whose labels are used.
        bank: Stored<Features>,
        /// Their labels.
        bank_labels: Stored<Labels>,
        /// Features of the images that are classified.
        queries: Stored<Features>,
        /// Their labels.
        query_labels: Stored<Labels>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// One row.
        scores: Draft<Scores>,
    }
}

/// Both sets, of one encoder.
pub(super) struct Bank {
    pub bank: FeatureTable,
    pub queries: FeatureTable,
    /// Classes of the bank's images; −1 where unknown.
    pub labels: Vec<i32>,
    /// Classes of the queries; −1 where unknown.
    pub truth: Vec<i32>,
    pub classes: usize,
}

impl Bank {
    /// # Errors
    /// If the features come from different encoders, or the labels are those of other images.
    pub(super) fn load(input: &In) -> Result<Self, StageError> {
        let (bank, queries) = (FeatureTable::load(&input.bank)?, FeatureTable::load(&input.queries)?);
        if bank.encoder != queries.encoder || bank.dim != queries.dim {
            return Err(StageError::Mismatch {
                what: format!(
                    "the features of `{}` and `{}` come from different encoders",
                    input.bank.origin(),
                    input.queries.origin()
                ),
                hint: "embed both with the same encoder".into(),
            });
        }
        if bank.layer != queries.layer {
            return Err(StageError::Mismatch {
                what: format!(
                    "the features of `{}` are the layer `{}`, those of `{}` the layer `{}`",
                    input.bank.origin(),
                    bank.layer,
                    input.queries.origin(),
                    queries.layer
                ),
                hint: "embed both with the same `layer`".into(),
            });
        }
        let (bank_labels, query_labels) = (LabelTable::load(&input.bank_labels)?, LabelTable::load(&input.query_labels)?);
        let (truth, labels) = (truth_of(&queries.ids, &query_labels)?, truth_of(&bank.ids, &bank_labels)?);
        let classes = bank_labels.classes().max(query_labels.classes());
        Ok(Self { bank, queries, labels, truth, classes })
    }

    /// A row without a measure yet.
    pub(super) fn row(&self, input: &In, notes: Vec<String>) -> ScoreRow {
        ScoreRow {
            name: "queries".into(),
            measured: Some(input.bank.digest()),
            images: self.known(),
            classes: self.classes,
            notes,
            ..ScoreRow::default()
        }
    }

    /// Queries whose class is known.
    fn known(&self) -> usize {
        self.truth.iter().filter(|truth| **truth >= 0).count()
    }

    /// The share of them that `said` has right, 0 to 1.
    pub(super) fn share(&self, said: &[i32]) -> f64 {
        let right = self.truth.iter().zip(said).filter(|(truth, said)| **truth >= 0 && truth == said).count();
        right as f64 / self.known().max(1) as f64
    }

    pub(super) fn protocol(input: &In, matching: &str) -> Protocol {
        Protocol {
            scored_on: vec![input.queries.digest()],
            labels: Some(input.query_labels.digest()),
            matching: matching.into(),
        }
    }
}
