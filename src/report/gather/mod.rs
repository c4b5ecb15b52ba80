//! # report/gather: the content of the page
//!
//! [`whole`] goes through a pipeline's results and puts a [`page::Page`] together: plain data, which `kinset report --json` prints and
//! everything else draws. One file for each part of the page. Nothing here opens a picture: the page names rows, and
//! [`album`](super::album) reads exactly these.
//!
//! Not here: how any of it looks (`draw`, `page` beside this folder).

mod assignments;
mod calibration;
mod clusters;
mod confusion;
mod inputs;
mod journal;
mod map;
mod near;
mod neighborhoods;
mod odd;
pub mod page;
mod samples;
mod score_tables;
mod stages;
mod trainings;
mod varied;
mod warnings;
pub mod whole;

pub(super) use inputs::wired;
pub use page::Page;
pub use samples::{Elsewhere, Finder};
pub(super) use varied::{AGREEMENT, INFORMATION};
pub use whole::{Glance, Sights};
