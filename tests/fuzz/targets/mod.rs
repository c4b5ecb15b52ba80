//! Fuzz targets: everything that reads files of strangers. A panic is a finding; so is an assertion that fails.

mod archive;
mod picture;
mod set;
mod vectors;
mod weights;

/// What reads any bytes, and may refuse them; it may not panic.
pub(crate) type Target = fn(&[u8]);

/// All targets, by name.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("archive", archive::target),
    ("picture", picture::target),
    ("set", set::target),
    ("vectors", vectors::target),
    ("weights", weights::target),
];
