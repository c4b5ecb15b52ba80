//! Runs whose stages are computed by other processes: on this machine, or on a cluster that Slurm or Kubernetes runs.
//!
//! A job is a [`ticket`]: some nodes of a pipeline over one store. Its outcome is the records of its nodes, never the word of whoever
//! runs it: what a scheduler says only tells when to look, and how to put a failure into words. [`rules`] says where stages run ([`schema`] says so to editors),
//! [`unit`](self) groups them into jobs, [`watch`] submits and follows them, [`worker`] is what a job does, [`local`] and [`slurm`]
//! run jobs, [`rehearsal`] and [`kubernetes`] write them down instead, and [`jobs`] finds those of earlier runs. Workers never show results under readable names; the watching process does.

pub mod cluster;
pub mod error;
pub mod jobs;
pub mod kubernetes;
pub mod local;
pub mod rehearsal;
pub mod rules;
pub mod schema;
pub mod slurm;
mod tail;
pub mod ticket;
mod unit;
pub mod watch;
pub mod worker;
