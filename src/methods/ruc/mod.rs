//! # RUC: robust retraining of a finished clustering
//!
//! A finished clustering is improved: its assignments are taken as noisy labels; [`sampling`] tells the images whose
//! label is kept from the others, two networks learn from both, and each moves images over once it is sure of them
//! ([`pair`]), by the losses of [`loss`]; their sum is one network ([`ensemble`]). [`stage`] has ports and card, [`settings`] the
//! tables of the data sets.
//!
//! **What becomes of the classifier that comes in.** It is asked once, in evaluation mode on plain images, for labels and
//! confidences; any head will do: linear, hidden, on a projection, centroids. Of its numbers only the *backbone* goes on, twice,
//! and each copy gets a new linear head on the backbone's own output, as in the authors' code, so that the two differ. A
//! projection, a hidden layer or centroids have no part in the result. With `head = "kept"` a linear head goes on too, in both. Distances to centroids are no confidences: with such a
//! classifier use `sampling = "metric"`. An encoder without parameters (pixels) is refused, for it cannot learn.
//!
//! Not here: formulas without tensors (`math::targets`), strong views (`augment::randaugment`).

pub mod ensemble;
pub mod loss;
pub mod pair;
pub mod sampling;
pub mod settings;
pub mod stage;

pub use settings::Config;
pub use stage::Ruc;
