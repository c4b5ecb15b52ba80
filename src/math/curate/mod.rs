//! # math/curate: the selection of pool images: those that look like a target, or a balanced part
//!
//! | subject | module |
//! |---|---|
//! | which pairs are at least so alike? | [`join`] |
//! | which frames of the target repeat others? | [`repeats`] |
//! | which images of a pool are one image, more or less? | [`groups`], of more than fit memory [`owners`] |
//! | which pairs of target and pool count, and which images are taken? | [`choose`] |
//! | how many for each part of the target? | [`quota`] |
//! | how many of each cluster of candidates, if what is rare weighs more? | [`sampling`] |
//! | which parts does a pool have, whatever their sizes? | [`hierarchy`] |
//! | which images are a balanced part of a pool? | [`balanced`] |
//! | what is a selection without the target? | [`blind`] |
//! | do two sets look alike? | [`alike`], [`frechet`] |
//!
//! Everything but k-means is defined on cosines in double precision of the rows as stored; distance is 1 − cosine, from 0 to 2.
//!
//! Not here: the search of the pool (`kernel/neighbors`), tables (`artifact/matches`, `artifact/selection`), stages (`builtin`).

pub mod alike;
pub mod balanced;
pub mod blind;
pub mod choose;
pub mod frechet;
pub mod groups;
pub mod hierarchy;
pub mod join;
pub mod owners;
pub mod quota;
pub mod repeats;
pub mod sampling;
