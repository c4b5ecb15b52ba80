//! # kinset-builtin: the stages without a paper
//!
//! Reading raw data, features or other people's weights, embedding, joining features, mining neighbors, finding duplicates, near-duplicates across sets and outliers, choosing images like a
//! target or a balanced part of a pool, k-means, spectral clustering, the number of clusters, consensus, distilling, predicting, names of clusters, a probe of labels, evaluating: one file or
//! folder each, and one line here.
//!
//! Not here: stages with a paper (`methods`).

#![forbid(unsafe_code)]

pub mod auto_k;
mod bank;
pub mod choose;
mod classify;
pub mod concat;
pub mod consensus;
pub mod curate;
pub mod distill;
pub mod distribution;
pub mod duplicates;
pub mod embed;
pub mod evaluate;
pub mod frozen;
pub mod import_features;
pub mod ingest;
pub mod join;
pub mod kmeans;
pub mod knn_eval;
pub mod linear_eval;
pub mod named;
pub mod near_duplicates;
pub mod neighbors;
pub mod onnx_encoder;
pub mod outliers;
pub mod pixels;
pub mod predict;
pub mod pretrained;
pub mod probe;
pub mod retrieve;
pub mod similar;
pub mod spectral;
pub mod subset;
pub mod sweep_k;

use kinset_stage::{AnyStage, Erased};

/// All steps. Adding one is one file and its two lines here.
pub const BUILTIN: &[&dyn AnyStage] = &[
    &Erased::<ingest::Ingest>::new(),
    &Erased::<pixels::Pixels>::new(),
    &Erased::<pretrained::Pretrained>::new(),
    &Erased::<frozen::Frozen>::new(),
    &Erased::<onnx_encoder::OnnxEncoder>::new(),
    &Erased::<embed::Embed>::new(),
    &Erased::<join::Join>::new(),
    &Erased::<concat::Concat>::new(),
    &Erased::<neighbors::Mine>::new(),
    &Erased::<duplicates::FindDuplicates>::new(),
    &Erased::<outliers::FindOutliers>::new(),
    &Erased::<near_duplicates::NearDuplicates>::new(),
    &Erased::<import_features::ImportFeatures>::new(),
    &Erased::<retrieve::Retrieve>::new(),
    &Erased::<similar::Similar>::new(),
    &Erased::<curate::Curate>::new(),
    &Erased::<subset::Subset>::new(),
    &Erased::<kmeans::KMeans>::new(),
    &Erased::<spectral::Spectral>::new(),
    &Erased::<auto_k::AutoK>::new(),
    &Erased::<sweep_k::SweepK>::new(),
    &Erased::<distill::Distill>::new(),
    &Erased::<consensus::Consensus>::new(),
    &Erased::<choose::Choose>::new(),
    &Erased::<predict::Predict>::new(),
    &Erased::<named::Named>::new(),
    &Erased::<probe::Fit>::new(),
    &Erased::<evaluate::Evaluate>::new(),
    &Erased::<knn_eval::KnnEval>::new(),
    &Erased::<linear_eval::LinearEval>::new(),
    &Erased::<distribution::Count>::new(),
];
