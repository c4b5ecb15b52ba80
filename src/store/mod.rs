//! # store: where is it, and is it whole?
//!
//! Results on disk, named by what they say.
//!
//! Not here: what the files mean (`artifact`), when something runs (`pipeline`).

pub mod digest;
