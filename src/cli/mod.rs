//! # cli: what did they type, and what do we answer?
//!
//! One file per command; the only room that prints.
//!
//! Not here: anything else.
