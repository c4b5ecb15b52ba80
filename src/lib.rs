//! # kinset

pub mod base;
pub mod math;

pub mod kernel;

pub mod store;

pub mod artifact;

pub mod augment;
pub mod dataset;
pub mod model;

pub mod train;

pub mod stage;

pub mod method;
pub mod step;

pub mod pipeline;

pub mod report;

pub mod cli;
