//! # kinset-methods: the stages from papers
//!
//! Stages with a paper, one file each (a folder where one would be too long): settings (the defaults are the paper's table),
//! ports without ground truth, loss, run, tests, and a card that `kinset methods NAME` prints.
//!
//! Not here: stages without a paper (`builtin`), networks (`model`), optimizers (`train`).

#![forbid(unsafe_code)]

pub mod and;
pub mod byol;
pub mod moco;
pub mod nnm;
pub mod ruc;
pub mod scan;
pub mod selflabel;
pub mod simclr;
pub mod temi;
pub mod turtle;

use kinset_stage::{AnyStage, Erased};

/// All methods. Adding one is one file and its two lines here.
pub const METHODS: &[&dyn AnyStage] = &[
    &Erased::<simclr::SimClr>::method(),
    &Erased::<moco::MoCo>::method(),
    &Erased::<byol::Byol>::method(),
    &Erased::<and::And>::method(),
    &Erased::<scan::Scan>::method(),
    &Erased::<selflabel::SelfLabel>::method(),
    &Erased::<nnm::Nnm>::method(),
    &Erased::<ruc::Ruc>::method(),
    &Erased::<scan::ScanHeads>::method(),
    &Erased::<temi::Temi>::method(),
    &Erased::<turtle::Turtle>::method(),
];
