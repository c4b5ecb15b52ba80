//! # report/gather: the content of the page
//!
//! [`whole`] goes through a pipeline's results and puts a [`page::Page`] together: plain data, which `kinset report --json` prints and
//! everything else draws. One file for each part of the page. Nothing here opens a picture: the page names rows, and
//! [`album`](super::album) reads exactly these.
//!
//! Not here: how any of it looks (`draw`, `page` beside this folder).

mod boards;
mod calibration;
mod clusters;
mod confusion;
mod find;
mod journal;
mod looked;
mod map;
mod near;
mod neighborhoods;
mod odd;
pub mod page;
mod stages;
mod taken;
mod trainings;
mod varied;
mod warnings;
pub mod whole;

pub(super) use find::wired;
pub use page::Page;
pub use taken::{Elsewhere, Finder};
pub(super) use varied::{AGREEMENT, INFORMATION};
pub use whole::{Glance, Sights};
