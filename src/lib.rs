//! # kinset
pub mod base;
