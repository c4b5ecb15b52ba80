//! k-nearest-neighbor evaluation of features alone: labeled neighbors vote about images that took no part in training.

use super::bank::{Bank, In, Out};
use kinset_artifact::features::FeatureTable;
use kinset_artifact::scores::{ScoreRow, Scores};
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
        /// A vote weighs e^(similarity / temperature); SCAN's code: that of the loss. Unset: every vote weighs the same.
        temperature: Option<f64> = Some(0.1), above_zero;
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
        let mut sets = Bank::load(&input)?;
        unit(&mut sets.bank);
        unit(&mut sets.queries);
        let (bank, queries) = (&sets.bank, &sets.queries);
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
        let said = knn::weighted_vote(&found.index, &found.similarity, k, k, &sets.labels, sets.classes, temperature);
        let notes = vec![format!("{k} of {} images vote", bank.len())];
        let row = ScoreRow { knn: Some(sets.share(&said)), ..sets.row(&input, notes) };
        let protocol = Bank::protocol(&input, "none: neighbors vote with their labels");
        Ok(Out { scores: Scores { protocol, rows: vec![row] }.save(&cx.out("scores")?)? })
    }
}

/// Features of unit length, as cosine similarity wants them.
fn unit(table: &mut FeatureTable) {
    if !table.normalized {
        // Rows that are all 0 are refused by the search.
        let _ = cosine::normalize_rows(&mut table.values, table.dim);
    }
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
