//! # kinset-math: numerical algorithms
//!
//! What is the formula? Plain slices of numbers, no tensors, no files, no failure but a documented panic on a broken
//! precondition. Tables are row-major; a label or cluster below zero means "not known" and is left out of every count.
//!
//! | question | module |
//! |---|---|
//! | how sure, how spread? | [`entropy`], [`softmax`] |
//! | what should an image be taught? | [`targets`], [`beta`] |
//! | how alike? | [`cosine`], [`topk`] |
//! | how far? | [`euclid`] |
//! | whose neighborhoods are alike? | [`rerank`] |
//! | which cluster is which class, and how well do they agree? | [`hungarian`], [`partition`] |
//! | is a confidence of 0.9 right nine times in ten? | [`calibration`] |
//! | which image stands for its cluster? | [`prototype`] |
//! | what do the neighbors say? | [`knn`], [`propagation`] |
//! | what would the plainest clustering say? | [`kmeans`] |
//! | which images hang together in the neighbor graph? | [`spectral`] |
//! | which linear head gives these labels? | [`logistic`] |
//! | how many clusters are there? | [`count`], [`silhouette`], [`stability`], [`spectrum`] |
//! | how much, how variable? | [`stats`] |
//! | how do features look on paper? | [`pca`], [`tsne`] |
//! | which images of a pool look like a target? | [`curate`] |
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
