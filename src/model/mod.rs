//! # model: what does the network look like?
//!
//! Networks, heads, their initial weights and their names.
//!
//! Not here: how weights move (`train`), fast operations (`kernel`).
