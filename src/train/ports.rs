//! Ports and outputs that several methods share.

use kinset_artifact::curve::Curve;
use kinset_artifact::encoder::{Classifier, Encoder};
use kinset_artifact::features::Features;
use kinset_artifact::images::Images;
use kinset_artifact::k_table::KTable;
use kinset_artifact::neighbors::Neighbors;
use kinset_artifact::{Draft, Stored};

kinset_stage::ports! {
    /// What a pretext task reads.
    pub label_free struct ImagesIn {
        /// `[N, H, W, C]`.
        images: Stored<Images>,
    }
}

kinset_stage::outputs! {
    /// What a pretext task writes.
    pub struct EncoderOut {
        /// The network with its projection head.
        encoder: Draft<Encoder>,
        /// Measurements per epoch, the loss first.
        curve: Draft<Curve>,
    }
}

kinset_stage::ports! {
    /// What heads on features read.
    pub label_free struct FeaturesIn {
        /// `[N, D]`.
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
    /// What a training writes whose last epoch counts.
    pub struct ClassifierOut {
        /// The classifier.
        classifier: Draft<Classifier>,
        /// Measurements per epoch, the loss first.
        curve: Draft<Curve>,
    }
}

kinset_stage::outputs! {
    /// What a training writes that chooses an epoch.
    pub struct ChosenOut {
        /// All heads of the best epoch, the best of them chosen.
        classifier: Draft<Classifier>,
        /// Loss and its parts per epoch, for training and validation.
        curve: Draft<Curve>,
        /// All heads after the last epoch, the best of them chosen: what the choice of an epoch was worth.
        last: Draft<Classifier>,
    }
}
