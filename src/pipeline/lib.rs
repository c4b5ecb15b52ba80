//! # kinset-pipeline: pipeline files, plans and runs
//!
//! From the text of a pipeline file to finished stages: the text with all its places ([`document`]), what stages there are
//! ([`catalog`]), the checked nodes ([`spec`], with [`settings`]), their shape ([`graph`]), and all that can be wrong
//! ([`fault`]). [`run`] tells its [`event`]s, which [`journal`] keeps; numbers among them also go
//! where TensorBoard finds them ([`scalars`]). [`schema`] says to editors what may stand in a file. For `kinset verify`, the
//! catalog also says what results have to look like (`judge`). [`cache`] is what a run asks
//! of results of other machines. [`vary`] makes several nodes of a stage whose settings take several values, `shard` of a source that is read in parts.
//!
//! Not here: what a stage does (`builtin`, `methods`), words on the screen (`cli`).

#![forbid(unsafe_code)]

mod attempt;
pub mod cache;
pub mod catalog;
pub mod dispatch;
pub mod document;
pub mod error;
pub mod event;
pub mod fault;
pub mod graph;
pub mod journal;
mod judge;
pub mod run;
pub mod scalars;
pub mod schema;
pub mod settings;
mod shard;
pub mod spec;
pub mod state;
#[cfg(test)]
mod testing;
pub mod vary;
