//! # report/draw: the drawings
//!
//! One kind of drawing, one file: [`curves`], [`matrix`], [`reliability`], [`bars`], [`dag`] (placed by [`layers`]), [`map`], [`varied`]. Each takes
//! a part of the [`page`](super::gather::page) and gives a [`figure`], which goes into a page or into a file of its own.
//! Axes are [`scale`]'s. All texts go through `maud`, which escapes them by type.
//!
//! Not here: words and tables around the drawings (`page` beside this folder).

pub mod bars;
pub mod curves;
pub mod dag;
pub mod figure;
pub mod layers;
pub mod map;
pub mod matrix;
pub mod reliability;
pub mod scale;
pub mod varied;
