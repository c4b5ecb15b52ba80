//! The one integration binary: it drives the built program as a user would, on tiny pipelines
//! and a data set that is drawn, and asserts what ran, what came out and what was said.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "tests: helpers may fail, and say what they measured"
)]

mod bad_input;
mod cli;
mod cluster;
mod compare;
mod concurrent_runs;
mod conformance;
mod damage;
mod encoders;
mod faults;
mod fresh;
mod fuzz;
#[cfg(all(unix, feature = "gpu"))]
mod gpu;
mod harness;
mod hosts;
mod import_export;
mod names;
mod output;
mod pipelines;
mod published;
mod report;
mod resume;
mod sharded;
mod similar;
mod split;
mod tidy;
mod varied;
mod version;
