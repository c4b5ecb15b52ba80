//! Images that are unlike all others: by their nearest neighbors, with what a classifier says beside it.

use std::ops::RangeInclusive;

use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_artifact::neighbors::{NeighborTable, Neighbors};
use kinset_artifact::outliers::{OutlierTable, Outliers, Said};
use kinset_artifact::{Draft, Stored};
use kinset_stage::{Context, Stage, StageError};

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Nearest images whose mean distance is the score: more than an image has copies.
        k: usize = 10, min 1;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, M]`.
        neighbors: Stored<Neighbors>,
        /// `[N]`; their confidence stands beside the score.
        assignments: Option<Stored<Assignments>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// How unlike the others each image is.
        outliers: Draft<Outliers>,
    }
}

/// The search for outliers: the distance to the k nearest images (Ramaswamy, Rastogi and Shim, SIGMOD 2000), averaged over them.
#[derive(Debug)]
pub struct FindOutliers;

impl Stage for FindOutliers {
    const KIND: &'static str = "outliers";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "find images that are unlike all others, by the distance to their neighbors";

    type Config = Config;
    type In = In;
    type Out = Out;

    fn fits(config: &Config, images: usize) -> Result<(), StageError> {
        StageError::fitting("k", config.k, Config::default().k, &others(images), images).map(drop)
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let neighbors = NeighborTable::load(&input.neighbors)?;
        cx.check()?;
        let n = neighbors.len();
        let usual = Config::default().k;
        if config.k > neighbors.k && config.k != usual {
            return Err(StageError::Mismatch {
                what: format!(
                    "`k` is {}, but `{}` has {} neighbors of each image",
                    config.k,
                    input.neighbors.origin(),
                    neighbors.k
                ),
                hint: format!("set `k = {}` or less here, or a larger one there", neighbors.k),
            });
        }
        let k = cx.fitting("k", config.k, usual, 1..=neighbors.k, n)?;
        let score = (0..n).map(|row| {
            let near = &neighbors.similarities(row)[..k];
            (1.0 - near.iter().map(|&cosine| f64::from(cosine)).sum::<f64>() / k as f64) as f32
        });
        let said = match &input.assignments {
            Some(stored) => {
                let table = AssignmentTable::load(stored)?;
                if table.ids != neighbors.ids {
                    return Err(StageError::Mismatch {
                        what: format!("`{}` and `{}` are about other images", stored.origin(), input.neighbors.origin()),
                        hint: "assign the images whose neighbors were found".into(),
                    });
                }
                Some(Said { confidence: table.confidence, cluster: table.cluster })
            }
            None => None,
        };
        let table = OutlierTable { score: score.collect(), ids: neighbors.ids, k, said };
        Ok(Out { outliers: table.save(&cx.out("outliers")?)? })
    }
}

/// As many neighbors as there may be: an image is none of itself.
fn others(images: usize) -> RangeInclusive<usize> {
    1..=images.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_artifact::testing::stored;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_stage::testing::Heard;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|row| format!("image {row}")).collect()
    }

    fn found(config: &Config, assignments: Option<Vec<String>>) -> Result<OutlierTable, StageError> {
        let dir = tempfile::tempdir().unwrap();
        let (work, out) = (dir.path().join("work"), dir.path().join("out"));
        fs::create_folders(&work).unwrap();
        fs::create_folders(&out).unwrap();
        let similarity = vec![0.875, 0.75, 0.5, 0.25, 0.0, -1.0];
        let (index, metric) = (vec![1, 2, 2, 0, 0, 1], "cosine".to_owned());
        let table = NeighborTable { ids: ids(3), k: 2, index, similarity, metric, exact: true, recall: None };
        let neighbors = stored(&table.save(dir.path()).unwrap());
        let assignments = assignments.map(|ids| {
            let n = ids.len();
            let (cluster, second_cluster) = (vec![1; n], vec![0; n]);
            let table =
                AssignmentTable { ids, clusters: 2, cluster, confidence: vec![0.75; n], entropy: vec![0.5; n], second_cluster };
            stored(&table.save(dir.path()).unwrap())
        });
        let (places, heard, stop) = (DataPaths::new("", None, None), Heard::default(), kinset_stage::Stop::default());
        let cx =
            Context::new("it", candle_core::Device::Cpu, kinset_base::seed::Seed::new(1), &places, stop, work, out, &heard);
        let outliers = FindOutliers::run(config, In { neighbors, assignments }, &cx)?.outliers;
        Ok(OutlierTable::load(&stored(&outliers)).unwrap())
    }

    #[test]
    fn the_score_is_the_mean_distance_and_what_is_not_there_is_refused() {
        let table = found(&Config::default(), None).unwrap();
        assert_eq!(
            (table.score.as_slice(), table.k, &table.said),
            (&[0.1875, 0.625, 1.5][..], 2, &None),
            "as many as there are"
        );
        assert_eq!(found(&Config { k: 1 }, None).unwrap().score, [0.125, 0.5, 1.0]);
        let said = found(&Config::default(), Some(ids(3))).unwrap().said.unwrap();
        assert_eq!((said.confidence[0], said.cluster[2]), (0.75, 1));
        let told = found(&Config { k: 3 }, None).unwrap_err().to_string();
        assert!(told.contains("`k` is 3") && told.contains("2 neighbors"), "{told}");
        assert!(found(&Config::default(), Some(ids(2))).unwrap_err().to_string().contains("about other images"));
    }
}
