//! k-nearest-neighbor evaluation of features alone: labelled neighbors vote about images that took no part in training.

use super::evaluate::truth_of;
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_artifact::scores::{Protocol, ScoreRow, Scores};
use kinset_artifact::{Draft, Stored};
use kinset_kernel::neighbors::Search;
use kinset_math::cosine;
use kinset_math::knn;
use kinset_stage::{Context, Stage, StageError};

/// Rows of the bank per piece.
const PIECE: usize = 8192;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Neighbors that vote; SCAN's code has 100 of them weighed at CIFAR's size, AND's 200.
        k: usize = 20, min 1;
        /// A vote weighs e^(similarity / temperature); SCAN's code: that of the loss. None: every vote weighs the same.
        temperature: Option<f64> = Some(0.1), above_zero;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// Features of the images that vote.
        bank: Stored<Features>,
        /// Their labels.
        bank_labels: Stored<Labels>,
        /// Features of the images that are voted about.
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

/// k-nearest-neighbor evaluation.
#[derive(Debug)]
pub struct KnnEval;

impl Stage for KnnEval {
    const KIND: &'static str = "knn_eval";
    /// 2: says what was measured on what.
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "evaluate features with a k-nearest-neighbor classifier on labels";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let bank = unit(FeatureTable::load(&input.bank)?);
        let queries = unit(FeatureTable::load(&input.queries)?);
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
        let (bank_labels, query_labels) = (LabelTable::load(&input.bank_labels)?, LabelTable::load(&input.query_labels)?);
        let truth = truth_of(&queries.ids, &query_labels)?;
        let votes = truth_of(&bank.ids, &bank_labels)?;
        let classes = bank_labels.classes().max(query_labels.classes());
        let k = cx.fitting("k", config.k, Config::default().k, 1..=bank.len(), bank.len())?;
        let bar = cx.bar(bank.len() as u64, "bank images");
        let mut search = Search::new(&queries.values, queries.dim, k, &cx.stop).map_err(StageError::other)?;
        for (piece, rows) in bank.values.chunks(PIECE * bank.dim).enumerate() {
            search.feed(rows, piece * PIECE).map_err(StageError::other)?;
            bar.advance((rows.len() / bank.dim) as u64);
        }
        let found = search.finish().map_err(StageError::other)?;
        // Equal weights are those of an endless temperature.
        let temperature = config.temperature.unwrap_or(1e12);
        let said = knn::weighted_vote(&found.index, &found.similarity, k, k, &votes, classes, temperature);
        let known: Vec<usize> = (0..truth.len()).filter(|&r| truth[r] >= 0).collect();
        let right = known.iter().filter(|&&r| said[r] == truth[r]).count();
        let row = ScoreRow {
            name: "queries".into(),
            measured: Some(input.bank.digest()),
            images: known.len(),
            classes,
            knn: Some(right as f64 / known.len().max(1) as f64),
            notes: vec![format!("{k} of {} images vote", bank.len())],
            ..ScoreRow::default()
        };
        let protocol = Protocol {
            scored_on: vec![input.queries.digest()],
            labels: Some(input.query_labels.digest()),
            matching: "none: neighbors vote with their labels".into(),
        };
        Ok(Out { scores: Scores { protocol, rows: vec![row] }.save(&cx.out("scores")?)? })
    }
}

/// Features of unit length, as cosine similarity wants them.
fn unit(mut table: FeatureTable) -> FeatureTable {
    if !table.normalized {
        // Rows that are all 0 are refused by the search.
        let _ = cosine::normalize_rows(&mut table.values, table.dim);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use kinset_kernel::neighbors;
    use kinset_stage::Settings;

    /// What `tests/golden/and/make.py` has of the votes.
    #[derive(Deserialize)]
    struct Golden {
        labels: Vec<i32>,
        votes: Vec<i32>,
    }

    /// `wave` there.
    fn wave(rows: usize, phase: f64) -> Vec<f32> {
        let mut all: Vec<f32> = (0..rows)
            .flat_map(|i| (0..6).map(move |d| 0.7 * i as f64 + 1.3 * d as f64 + 0.21 * (i * d) as f64))
            .map(|angle| (phase + angle).sin() as f32)
            .collect();
        assert!(cosine::normalize_rows(&mut all, 6).is_empty());
        all
    }

    #[test]
    fn two_hundred_weighted_votes_are_those_of_torch() {
        // methods/and.md section 7.1: K = 200, σ = 0.1.
        let golden: Golden = serde_json::from_str(include_str!("../../tests/golden/and/loss.json")).unwrap();
        let config = Config { k: 200, temperature: Some(0.1) };
        assert!(config.check().is_empty());
        let (bank, queries) = (wave(240, 0.9), wave(30, 2.2));
        let found = neighbors::nearest(&queries, &bank, 6, config.k, &kinset_stage::Stop::default()).unwrap();
        let said = knn::weighted_vote(&found.index, &found.similarity, config.k, config.k, &golden.labels, 5, 0.1);
        assert_eq!(said, golden.votes);
    }
}
