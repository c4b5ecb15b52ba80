//! Faults made on purpose, against everything that the registries list: stages, data sets, forms of features, commands. A new one is
//! in it without a line here, or a test says which sample it wants.
//!
//! After each fault three things hold: the process ended with a documented exit code and did not hang; nothing is left half-written
//! that a next run refuses; an undisturbed run gives the digests of one that was never disturbed.
//!
//! `cargo test` takes a sample. `KINSET_FAULTS=long` (`just faults`) takes the numbers that the project answers for, and each series
//! prints a row: what was done, how often, how many digests differed, how many exit codes were wrong.

mod answers;
mod doctor;
mod inputs;
pub(crate) mod kit;
mod machine;
pub(crate) mod samples;
mod stops;
mod store;
