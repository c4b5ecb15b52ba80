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

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_train::Paced;
    use kinset_train::course::{LEAST_BATCH, PER_CLUSTER};

    /// Batch and epochs of 300, 5,000 and 60,000 images.
    fn chosen<P: Paced>(least: usize) -> [(usize, u64); 3] {
        [300, 5000, 60_000].map(|images| {
            let course = P::default().course_of(P::USUAL.batch_for(images, least), images).unwrap();
            (course.batch, course.epochs)
        })
    }

    /// The same numbers are in the guide. They are not in the key: who changes them raises the `VERSION` of the stage.
    #[test]
    fn open_settings_become_what_the_guide_says() {
        let ten = 10 * PER_CLUSTER;
        assert_eq!(chosen::<simclr::Config>(LEAST_BATCH), [(64, 750), (512, 500), (512, 500)]);
        assert_eq!(chosen::<moco::Config>(LEAST_BATCH), [(64, 1250), (256, 264), (256, 200)]);
        assert_eq!(chosen::<byol::Config>(LEAST_BATCH), [(64, 750), (256, 300), (256, 300)]);
        assert_eq!(chosen::<and::Config>(LEAST_BATCH), [(64, 1250), (128, 1000), (128, 1000)]);
        assert_eq!(chosen::<scan::stage::Config>(ten), [(100, 667), (128, 52), (128, 50)]);
        assert_eq!(chosen::<scan::heads::Config>(ten), [(100, 667), (625, 250), (1024, 50)]);
        assert_eq!(chosen::<nnm::Config>(ten), [(100, 667), (200, 100), (200, 100)]);
        assert_eq!(chosen::<temi::Config>(ten), [(100, 667), (625, 250), (1024, 100)]);
        assert_eq!(chosen::<selflabel::Config>(LEAST_BATCH), [(64, 375), (625, 200), (1000, 200)]);
        assert_eq!(chosen::<ruc::Config>(LEAST_BATCH), [(64, 375), (250, 200), (250, 200)]);
    }
}
