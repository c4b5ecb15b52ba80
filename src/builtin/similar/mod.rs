//! # builtin/similar: the selection of a training set that looks like a target
//!
//! [`mod@stage`] takes what `retrieve` found through filters, caps and a budget; [`config`] says by which; [`shards`] is the pool
//! as one table; [`pick`] are the ways to choose that do not search; [`clusters`] are what one order of the budget goes by; [`report`] measures whether the result looks like the
//! target, [`missed`] what it leaves out and what a larger one would bring.
//!
//! Not here: the search (`builtin/retrieve`), the rules themselves (`math/curate`), images for training (`builtin/subset`).

pub mod clusters;
pub mod config;
pub mod missed;
pub mod pick;
pub mod report;
pub mod shards;
pub mod stage;

pub use stage::Similar;
