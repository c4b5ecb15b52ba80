//! k-means on features: the row that stands beside every learned result.

use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::features::{FeatureTable, Features};
use kinset_artifact::{Draft, Stored};
use kinset_kernel::gemm::Gemm;
use kinset_math::kmeans;
use kinset_model::{ClassifierNet, HeadChoice};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::feature_space::body_of;

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
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`.
        features: Stored<Features>,
        /// The encoder the features come from, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The encoder with the centers as its head.
        classifier: Draft<Classifier>,
    }
}

/// k-means.
#[derive(Debug)]
pub struct KMeans;

impl Stage for KMeans {
    const KIND: &'static str = "kmeans";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "k-means on features, as a classifier: the baseline of every method";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let features = FeatureTable::load(&input.features)?;
        let (body, normalization) = body_of(&features, &input.features, input.encoder.as_ref(), &cx.device)?;
        let n = features.ids.len();
        StageError::enough_for_clusters("clusters", config.clusters, n)?;
        cx.check()?;
        let method = kmeans::KMeans {
            clusters: config.clusters,
            restarts: config.restarts,
            iterations: config.iterations,
            tolerance: config.tolerance,
        };
        let fit = method.fit(&features.values, features.dim, &Gemm, cx.seed);
        if !fit.converged {
            cx.warn(format!("k-means did not converge in {} iterations; raise `iterations`", fit.iterations));
        }
        let net = ClassifierNet::from_centroids(&body, &fit.centers, features.normalized, &cx.device)?;
        let choice = HeadChoice {
            head: 0,
            chosen_by: format!("least inertia of {} starts", config.restarts),
            losses: vec![fit.inertia],
        };
        let card = net.card(normalization, choice)?;
        Ok(Out { classifier: Classifier { card, tensors: net.to_tensors()? }.save(&cx.out("classifier")?)? })
    }
}
