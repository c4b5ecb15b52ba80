//! # kinset-report: reports and drawings
//!
//! A page per pipeline, in one file that opens anywhere: [`gather`] collects what is on it, as plain data, [`album`] reads the pictures
//! that it names, [`draw`] makes the drawings, [`page`] the HTML, and [`file`](mod@file) writes it if anything changed. [`plot`] gives single
//! drawings as files.
//!
//! [`diff`] lays two pipelines or runs beside each other; [`journal`] reads a run's events back. [`scores`] puts the score tables of a pipeline into one, with the names of its stages, and mean ± spread over repeats.
//! [`lines`] writes assignments as CSV and JSON lines; [`names`] finds what a person calls clusters.
//!
//! Not here: the results themselves (`artifact`), what is printed where (`cli`).

#![forbid(unsafe_code)]

pub mod album;
pub mod diff;
pub mod draw;
pub mod error;
pub mod file;
pub mod gather;
pub mod journal;
pub mod lines;
pub mod names;
pub mod page;
pub mod plot;
pub mod scores;
