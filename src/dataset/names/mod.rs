//! Names that a person gives to clusters, and images that a person moves or rejects: a small TOML file beside the pipeline's.
//!
//! ```toml
//! of = "3f1c…"                    # the result whose clusters are named: the digest of its assignments
//! stage = "assignments"           # the stage that it came from
//! rejected = ["9f86d081884c7d65"] # images that belong to no group
//!
//! [clusters]                      # two clusters of one name are one group
//! 0 = "shirts"
//! 3 = "shirts"
//!
//! [images]                        # single images that belong elsewhere
//! "2c26b46b68ffc68f" = "shoes"
//! ```
//!
//! [`file`](mod@file) reads the file and changes what was asked for in it, whatever else it says; [`groups`] lays it over assignments;
//! [`carry`] brings the names of one result to another. Not here: where the file of a pipeline lies, and which result it is
//! compared with (`report::names`).

pub mod carry;
pub mod error;
pub mod file;
pub mod groups;

pub use carry::{Carried, carried};
pub use error::NamesError;
pub use file::{Change, Item, Names, NamesFile, Place};
pub use groups::{cluster_name, ruled};
