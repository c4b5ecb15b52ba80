//! k-means on features: the baseline of every learned result.

use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::k_table::KTable;
use kinset_artifact::{Draft, Stored};
use kinset_kernel::gemm::Gemm;
use kinset_math::kmeans;
use kinset_model::{ClassifierNet, HeadChoice};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::distinct::warn_of_equal_images;
use kinset_train::feature_space::body_of;
use kinset_train::found_clusters;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// Independent starts; the one with the least inertia is kept (scikit-learn's former default).
        restarts: usize = 10, min 1;
        /// Most iterations of a start (scikit-learn's default).
        iterations: usize = 300, min 1;
        /// Stop when centers move less than this share of the mean variance (scikit-learn's default).
        tolerance: f64 = 1e-4, not_negative;
        /// How much clusters of equal size are preferred: weight of the entropy of the sizes, as a share of the total variance; 0 is k-means.
        /// 0.2 decides between clusterings of nearly the same inertia and changes little otherwise. New images go to the nearest center.
        balance: f64 = 0.0, not_negative;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
        /// The encoder the features come from, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
        /// A number of clusters that `auto_k` or `sweep_k` found, in place of `clusters`.
        clusters_from: Option<Stored<KTable>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The encoder with the centers as its head.
        classifier: Draft<Classifier>,
    }
}

#[derive(Debug)]
pub struct KMeans;

impl Stage for KMeans {
    const KIND: &'static str = "kmeans";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "k-means on features, as a classifier: the baseline of every method";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn fits(config: &Config, images: usize) -> Result<(), StageError> {
        StageError::enough_for_clusters("clusters", config.clusters, images)
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let config = &Config { clusters: found_clusters(config.clusters, input.clusters_from.as_ref(), cx)?, ..config.clone() };
        let features = FeatureTable::load(&input.features)?;
        let (body, normalization) = body_of(&features, &input.features, input.encoder.as_ref(), &cx.device)?;
        let n = features.ids.len();
        Self::fits(config, n)?;
        warn_of_equal_images(&features.values, features.dim, config.clusters..=config.clusters, cx);
        let method = kmeans::KMeans {
            clusters: config.clusters,
            restarts: config.restarts,
            iterations: config.iterations,
            tolerance: config.tolerance,
            balance: config.balance,
        };
        let unfinished = cx.unfinished("kmeans 2");
        let mut progress: kmeans::Progress = unfinished.load()?.unwrap_or_default();
        if progress != kmeans::Progress::default() {
            cx.note(format!("resuming in start {} of {}", progress.starts() + 1, config.restarts));
        }
        let bar = cx.bar(config.restarts as u64, "starts");
        let mut shown = 0;
        let rows = (&features.values[..], features.dim);
        let fit = method.go_on(rows, &Gemm, cx.seed, &cx.stop, &mut progress, |progress| {
            bar.advance((progress.starts() - shown) as u64);
            shown = progress.starts();
            unfinished.save_when_due(progress)
        });
        let fit = unfinished.save_when_stopped(fit, &progress)?;
        if !fit.converged {
            cx.warn(format!("k-means did not converge in {} iterations; raise `iterations`", fit.iterations));
        }
        let net = ClassifierNet::from_centroids(&body, &fit.centers, features.normalized, &cx.device)?;
        let choice = HeadChoice {
            head: 0,
            chosen_by: match config.balance {
                0.0 => format!("least inertia of {} starts", config.restarts),
                balance => {
                    format!("least inertia less {balance} times the entropy of the sizes, of {} starts", config.restarts)
                }
            },
            losses: vec![fit.inertia],
        };
        let card = net.card(normalization, choice)?;
        Ok(Out { classifier: Classifier { card, tensors: net.to_tensors()? }.save(&cx.out("classifier")?)? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use candle_core::Device;

    use super::*;
    use kinset_artifact::testing::stored;
    use kinset_base::fs;
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_stage::Stop;
    use kinset_stage::testing::Heard;

    /// What k-means warns of on rows of one number.
    fn warnings(dir: &Path, rows: &[f32], clusters: usize) -> Vec<String> {
        let (work, out) = (dir.join("work"), dir.join("out"));
        fs::create_folders(&work).unwrap();
        let table = FeatureTable {
            ids: (0..rows.len()).map(|row| row.to_string()).collect(),
            dim: 1,
            values: rows.to_vec(),
            normalized: false,
            encoder: "test".into(),
            layer: "test".into(),
        };
        let features = stored(&table.save(dir).unwrap());
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), work, out, &heard);
        let config = Config { clusters, restarts: 2, ..Config::default() };
        KMeans::run(&config, In { features, encoder: None, clusters_from: None }, &cx).unwrap();
        heard.warnings()
    }

    #[test]
    fn fewer_distinct_images_than_clusters_are_warned_of_with_the_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let six: Vec<f32> = (0..60).map(|row| (row % 6) as f32).collect();
        assert_eq!(warnings(dir.path(), &six, 10), ["60 images, 6 of them distinct; 10 clusters requested: 4 stay empty"]);
        assert_eq!(warnings(dir.path(), &[2.0; 20], 5), ["20 images, 1 of them distinct; 5 clusters requested: 4 stay empty"]);
        assert_eq!(warnings(dir.path(), &six, 6), [""; 0]);
    }
}
