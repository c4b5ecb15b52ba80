//! # NNM: nearest neighbor matching, in the batch and in the whole set
//!
//! Nearest neighbor matching, a clustering stage that builds on SCAN's: [`stage`] has ports, card and the training; [`settings`]
//! the published tables; [`sets`] what is seen of the images; [`matching`] who is whose neighbor; [`loss`] the loss.

pub mod loss;
pub mod matching;
pub mod sets;
pub mod settings;
pub mod stage;

pub use settings::Config;
pub use stage::Nnm;
