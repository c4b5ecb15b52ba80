//! `kinset doctor`: whether Slurm answers, and has the partitions that the cluster file names.

use super::cluster::Where;
use super::doctor::{Check, Level};
use crate::base::fault::{Exit, Fault, chain};
use crate::base::unit;
use crate::pipeline::dispatch::rules::Executor;
use crate::pipeline::dispatch::slurm::{About, Partition};

/// `at` is what the cluster file says; one that cannot be read is told of with the cache that it may name.
pub(super) fn slurm(at: Option<&Where>) -> Check {
    let wanted = at.is_some_and(|at| at.executor == Executor::Slurm);
    let level = |exit| if wanted { Level::Fault(exit) } else { Level::Warning };
    let about = match About::ask() {
        Ok(Some(about)) => about,
        Ok(None) if wanted => {
            let hint = "run kinset on a machine that submits jobs, with `sbatch` on the search path (`PATH`)";
            return Check::ok("slurm", "not found").with(level(Exit::Machine), "the cluster file asks for it", hint);
        }
        Ok(None) => return Check::ok("slurm", "not found; `--executor slurm` alone needs it"),
        Err(error) => {
            let hint = "ask those who run the cluster; `SLURM_CONF` says where its configuration is";
            return Check::ok("slurm", "installed").with(level(error.exit()), &chain(&error), hint);
        }
    };
    let check = Check::ok("slurm", in_words(&about));
    let named = at.map(|at| at.rules.partitions()).unwrap_or_default();
    let unknown: Vec<String> = named
        .into_iter()
        .filter(|name| !about.partitions.iter().any(|partition| partition.name == *name))
        .map(|name| format!("`{name}`"))
        .collect();
    let missing = format!("the cluster file names {}, which it does not have", unknown.join(", "));
    check
        .warn_if(!about.partitions.iter().any(|partition| partition.up), "no partition is up", "jobs wait until one is")
        .warn_if(!unknown.is_empty(), &missing, "correct `partition` in the cluster file: `sinfo` lists them")
}

fn in_words(about: &About) -> String {
    let partition = |Partition { name, default, up, nodes }: &Partition| {
        let (default, down) = (if *default { ", the default" } else { "" }, if *up { "" } else { ", down" });
        format!("{name} ({}{default}{down})", unit::counted(*nodes, "node"))
    };
    let all: Vec<String> = about.partitions.iter().map(partition).collect();
    format!("{}; partitions: {}", about.version, if all.is_empty() { "none".to_owned() } else { all.join(", ") })
}
