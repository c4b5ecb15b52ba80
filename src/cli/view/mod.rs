//! # cli/view: `kinset view`
//!
//! The groups of a pipeline in the browser, to look at and to change. `http` speaks as much HTTP as one page needs, `access` turns away
//! whoever is not that page, `answers` has what it may ask and change, and `command` starts all of it. The page is plain HTML, CSS and JavaScript beside
//! these files; nothing is loaded from elsewhere. The file of names is all that is ever written.

mod access;
mod answers;
pub mod command;
mod http;
mod thumbs;

pub use command::ViewArgs;
pub(super) use command::run;
