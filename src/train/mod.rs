//! # train: how does one step work?
//!
//! Optimizers, schedules, averages, checkpoints, devices.
//!
//! Not here: losses and loops (`method`): a method owns its rounds.
