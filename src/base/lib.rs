//! # kinset-base: tools that all crates share
//!
//! Randomness that needs no state ([`seed`]), stable names for images ([`id`]), the names that others gave ([`name`]), file access whose
//! errors carry the path ([`fs`]), the one writer for what people get ([`output`]), what an error owes its reader ([`fault`]),
//! units for people ([`mod@unit`]), texts of others as people see them ([`shown`]), the memory of the process ([`memory`]), what the
//! machine allows it ([`machine`]), other programs ([`command`]), the only clock ([`clock`]), requests to stop ([`stop`]), raw files ([`raw_file`]), where they are
//! looked for ([`search_path`]), what they are ([`mod@file_kind`]) and what was read of them ([`reading`]); tables one after the other
//! ([`rows`]); and `pickle`, which reads
//! the plain values in Python's files.
//!
//! Not here: formulas (`math`), results on disk (`store`).

#![forbid(unsafe_code)]

pub mod clock;
pub mod command;
pub mod fault;
pub mod file_kind;
pub mod fs;
pub mod id;
pub mod machine;
pub mod memory;
pub mod name;
pub mod output;
pub mod pickle;
pub mod raw_file;
pub mod reading;
pub mod rows;
pub mod search_path;
pub mod seed;
pub mod shown;
pub mod stop;
pub mod unit;
