//! # cli/similar: `kinset similar`
//!
//! A target and a pool in, a training set like the target out, in the words and files of the fork of SCAN that began this
//! ([`args`]). Both are files of features, or images ([`inputs`]). The work is a pipeline like any other ([`plan`] writes it), so it
//! is cached, resumed and explained; [`command`] runs it, [`export`] turns its selections into lists, tables and arrays,
//! [`materialize`] finds and lays out pictures and annotations, [`links`] remembers which of them it put there, [`attributes`] compares what is known of the images besides.
//! [`set`] is what `kinset curate` does likewise.

pub mod args;
pub mod attributes;
pub mod command;
pub mod export;
pub mod inputs;
pub mod links;
pub mod materialize;
pub mod plan;
pub mod set;

pub use args::SimilarArgs;
pub(super) use command::run;
