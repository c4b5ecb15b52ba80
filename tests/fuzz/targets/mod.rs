//! What is fuzzed: everything that reads files of strangers. A panic is a finding; so is an assertion that fails.

mod archive;
mod picture;
mod set;
mod vectors;
mod weights;

/// All targets, by name.
pub(crate) const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("archive", archive::target),
    ("picture", picture::target),
    ("set", set::target),
    ("vectors", vectors::target),
    ("weights", weights::target),
];
