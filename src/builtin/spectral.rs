//! Spectral clustering of the neighbor graph, and a linear head that sorts new images the same way.
//!
//! Images of a class are joined by many neighbors, also where they are far apart: k-means on features sees distances, the graph sees
//! what hangs together. K eigenvectors of I − D^(−½) W D^(−½) after the trivial one; rows brought to unit length; k-means (Ng, Jordan
//! and Weiss 2001, "On Spectral Clustering: Analysis and an Algorithm"; von Luxburg 2007, arXiv 0711.0189). W joins neighbors (von
//! Luxburg, section 2.2) in place of all pairs by a Gaussian, and an edge weighs as much as its ends have neighbors in common (Jarvis
//! and Patrick 1973). The head is kinset's: logistic regression of the clusters on the features.

use kinset_artifact::encoder::{Classifier, Encoder, Tensors};
use kinset_artifact::features::Features;
use kinset_artifact::k_table::KTable;
use kinset_artifact::neighbors::Neighbors;
use kinset_artifact::{Draft, Stored};
use kinset_kernel::gemm::Gemm;
use kinset_math::kmeans::KMeans;
use kinset_math::logistic::Logistic;
use kinset_math::spectral::{self, Graph};
use kinset_model::params::values;
use kinset_model::{HeadChoice, HeadsShape};
use kinset_stage::{Context, Stage, StageError};
use kinset_train::feature_space::CenteredFeatures;
use kinset_train::found_clusters;

kinset_stage::settings! {
    /// Settings.
    pub struct Config {
        /// Clusters, K.
        clusters: usize = 10, min 2;
        /// How many of the mined neighbors join images in the graph; fewer, if fewer were mined.
        num_neighbors: usize = 20, min 1;
        /// Independent starts of k-means on the embedding; the one with the least inertia is kept.
        restarts: usize = 10, min 1;
        /// Most iterations of such a start.
        iterations: usize = 300, min 1;
        /// Weight of the head's squared weights. Features are centered and of mean square 1.
        penalty: f64 = 1e-3, not_negative;
    }
}

kinset_stage::ports! {
    /// What it reads.
    pub struct In {
        /// `[N, D]`; the head reads them, the clusters come from the neighbors alone.
        features: Stored<Features>,
        /// `[N, M]`, of the same images.
        neighbors: Stored<Neighbors>,
        /// The encoder the features come from, so that new images can be sorted; without it, new features can.
        encoder: Option<Stored<Encoder>>,
        /// A number of clusters that `auto_k` or `sweep_k` found, in place of `clusters`.
        clusters_from: Option<Stored<KTable>>,
    }
}

kinset_stage::outputs! {
    /// What it writes.
    pub struct Out {
        /// The encoder with a linear head.
        classifier: Draft<Classifier>,
    }
}

/// Spectral clustering.
#[derive(Debug)]
pub struct Spectral;

impl Stage for Spectral {
    const KIND: &'static str = "spectral";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "cluster the neighbor graph by its spectrum; a linear head sorts new images";
    const SEEDED: bool = true;

    type Config = Config;
    type In = In;
    type Out = Out;

    fn fits(config: &Config, images: usize) -> Result<(), StageError> {
        StageError::enough_for_clusters("clusters", config.clusters, images)
    }

    fn run(config: &Config, input: In, cx: &Context<'_>) -> Result<Out, StageError> {
        let config = &Config { clusters: found_clusters(config.clusters, input.clusters_from.as_ref(), cx)?, ..config.clone() };
        let space = CenteredFeatures::of(&input.features, input.encoder.as_ref(), &cx.device)?;
        let neighbors = space.neighbors(&input.neighbors)?;
        Self::fits(config, space.len())?;
        let graph = Graph::of_shared_neighbors(&neighbors.index, neighbors.k, config.num_neighbors.min(neighbors.k));
        let embedding = spectral::embed(&graph, config.clusters, &cx.stop)?;
        if !embedding.converged {
            cx.warn("the spectrum of the neighbor graph did not converge; clusters that hang together may be split");
        }
        let method = KMeans { restarts: config.restarts, iterations: config.iterations, ..KMeans::new(config.clusters) };
        let fit = method.fit(&embedding.rows, embedding.dim, &Gemm, cx.seed, &cx.stop)?;
        let rows = values(&space.values)?;
        let head = Logistic::new(config.penalty).fit(&rows, space.dim(), &fit.labels, config.clusters, &Gemm, &cx.stop)?;
        let share = 100.0 * head.agreement(&rows, space.dim(), &fit.labels, &Gemm);
        cx.note(format!("the head gives {share:.1} % of the images the cluster that the graph gave them"));
        let (weight, bias) = space.plain_layer(&head.weight, &head.bias);
        let mut tensors = Tensors::default();
        tensors.insert("cluster_head.0.weight", vec![config.clusters, space.dim()], weight);
        tensors.insert("cluster_head.0.bias", vec![config.clusters], bias);
        let choice = HeadChoice {
            head: 0,
            chosen_by: format!("least inertia of {} starts in the spectral embedding", config.restarts),
            losses: vec![fit.inertia],
        };
        let shape = HeadsShape::linear(config.clusters, 1, None);
        Ok(Out { classifier: space.classifier(shape, &tensors, choice)?.save(&cx.out("classifier")?)? })
    }
}
