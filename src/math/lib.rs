//! # kinset-math: numerical algorithms
//!
//! Formulas on plain slices of numbers: no tensors, no files, no failure but a documented panic on a broken
//! precondition. Tables are row-major; a label or cluster below zero means "not known" and is left out of every count.
//!
//! | subject | module |
//! |---|---|
//! | entropy, probabilities from logits | [`entropy`], [`softmax`], [`temperature`] |
//! | soft labels, MixUp | [`targets`], [`beta`] |
//! | cosine similarity, the largest of many | [`cosine`], [`topk`] |
//! | Euclidean distance | [`euclid`] |
//! | re-ranking by neighborhoods | [`rerank`] |
//! | clusters matched with classes, and how well they agree | [`hungarian`], [`partition`] |
//! | calibration of confidence | [`calibration`] |
//! | the most typical image of a cluster | [`prototype`] |
//! | votes of neighbors | [`knn`], [`propagation`] |
//! | k-means | [`kmeans`] |
//! | clusters of the neighbor graph | [`spectral`] |
//! | logistic regression | [`logistic`] |
//! | the number of clusters | [`count`], [`silhouette`], [`stability`], [`spectrum`] |
//! | mean, spread, quantiles | [`stats`] |
//! | features in two dimensions | [`pca`], [`tsne`] |
//! | images of a pool that look like a target, or a balanced part of it | [`curate`] |
//!
//! Sums run in double precision and in a fixed order, so results do not depend on the number of threads.
//!
//! Not here: fast products and convolutions (`kernel`), losses with gradients (with the method whose paper brought them, in
//! `methods`).

#![forbid(unsafe_code)]

pub mod beta;
pub mod calibration;
pub mod cosine;
pub mod count;
pub mod curate;
mod eigen;
pub mod entropy;
pub mod euclid;
pub mod hungarian;
pub mod kmeans;
pub mod knn;
pub mod logistic;
pub mod partition;
pub mod pca;
pub mod propagation;
pub mod prototype;
pub mod rerank;
pub mod silhouette;
pub mod softmax;
pub mod spectral;
pub mod spectrum;
pub mod stability;
pub mod stats;
pub mod targets;
pub mod temperature;
pub mod topk;
pub mod tsne;
