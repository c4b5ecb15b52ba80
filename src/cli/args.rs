//! The command line as a whole, and the groups of arguments that several commands share.

use std::path::PathBuf;

use clap::{Args, Parser};

use super::Command;
use crate::base::unit::parse_bytes;
use crate::pipeline::dispatch::rules::{CacheMode, Executor};

/// Sort images without labels; build training sets that look like a target.
///
/// A pipeline is a TOML file; each stage is cached under a hash of its settings and inputs. A second run does nothing;
/// a changed setting runs only what depends on it; an interrupted run resumes at its last checkpoint.
#[derive(Debug, Parser)]
#[command(
    name = "kinset",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "\
Start here:
  kinset init my/photos > photos.toml   write a commented pipeline for a folder of images
  kinset run photos.toml                run it; run it again: nothing to do
  kinset inspect photos.toml features   look at what a stage wrote

Environment:
  KINSET_ISA   cap on the instructions that kernels use: portable, avx2 or avx512
               (`kinset --version --verbose` prints which are used)

Exit codes:
  0 done · 2 command line · 3 pipeline file · 4 data · 5 a stage failed · 6 store · 7 machine (device, disk, memory)
  10 `plan` found work to do · 75 stopped, run again to resume · 70 a bug in kinset
  130 ended at once by a second Ctrl-C"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where things are.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Folder of the store and the results
    #[arg(long, value_name = "DIR", default_value = "artifacts", help_heading = "Folders")]
    pub artifacts: PathBuf,
    /// Folder of the data sets [default: $KINSET_DATA, else data/]
    #[arg(long, value_name = "DIR", help_heading = "Folders")]
    pub data: Option<PathBuf>,
}

/// Which pipeline, and how it is bent.
#[derive(Clone, Debug, Args)]
pub struct PipelineArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: PathBuf,
    /// Override a setting, for example stage.pretext.epochs=5 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Override settings")]
    pub set: Vec<String>,
    /// Apply a profile of the pipeline file
    #[arg(long, value_name = "NAME", help_heading = "Override settings")]
    pub profile: Option<String>,
    /// Override the seed of the pipeline file
    #[arg(long, value_name = "N", help_heading = "Override settings")]
    pub seed: Option<u64>,
    /// Override the device of the pipeline file: auto, cpu, cuda:0, metal
    #[arg(long, value_name = "DEVICE", help_heading = "Override settings")]
    pub device: Option<String>,
    #[command(flatten)]
    pub places: PlaceArgs,
}

/// Where stages run.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// What runs the stages: here, local:N (so many processes), slurm, kubernetes (with --dry-run) [default: that of the cluster file, else here]
    #[arg(long, value_name = "EXECUTOR", help_heading = "Cluster")]
    pub executor: Option<Executor>,
    /// The cluster file [default: $KINSET_CLUSTER, else cluster.toml beside the pipeline, else ~/.config/kinset/cluster.toml]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub cluster: Option<PathBuf>,
}

/// How much of the machine is used.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct MachineArgs {
    /// Number of threads; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Memory, for example 8GiB: a quarter is for pictures that are being decoded, a quarter for decoded ones that are kept [default: 1 GiB
    /// and 2 GiB for these, or a quarter of what the machine or its control group has if that is less]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,
}

/// Which cache a run asks.
#[derive(Clone, Debug, Default, Args)]
pub struct CacheArgs {
    /// Look for results here before computing them: s3://, gs://, az://, file://, https:// [default: $KINSET_CACHE, else that of the cluster file]
    #[arg(long, value_name = "URL", help_heading = "Cache")]
    pub cache: Option<String>,
    /// read, read-write (send what was computed) or off [default: $KINSET_CACHE_MODE, else that of the cluster file, else read]
    #[arg(long, value_name = "MODE", help_heading = "Cache")]
    pub cache_mode: Option<CacheMode>,
}

/// Which stages.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectArgs {
    /// Only these stages (comma-separated); their inputs must be cached
    #[arg(long, value_name = "STAGES", value_delimiter = ',', help_heading = "Stage selection")]
    pub only: Vec<String>,
    /// These stages and all that depend on them
    #[arg(long, value_name = "STAGES", value_delimiter = ',', help_heading = "Stage selection")]
    pub from: Vec<String>,
    /// These stages and all that they need
    #[arg(long, value_name = "STAGES", value_delimiter = ',', help_heading = "Stage selection")]
    pub until: Vec<String>,
    /// Run the selected stages even if they are cached (all, if none are selected)
    #[arg(long, help_heading = "Stage selection")]
    pub force: bool,
}

/// Reads a number of a range. NaN lies in none.
fn within(text: &str, low: f64, high: f64, expected: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(expected.to_owned()),
    }
}

/// Reads a cosine.
pub(super) fn similarity(text: &str) -> Result<f64, String> {
    within(text, -1.0, 1.0, "a cosine similarity is expected, -1 to 1")
}

/// Reads the cosine of images that are one, more or less.
pub(super) fn fraction(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1.0, "a cosine similarity is expected, 0 to 1")
}

/// Reads 1 − cosine; a little above 2, so that "everything" can be said.
pub(super) fn distance(text: &str) -> Result<f64, String> {
    within(text, 0.0, 2.1, "a distance is expected: 1 - cosine, 0 to 2")
}

/// Reads the power of a cluster's size.
pub(super) fn power(text: &str) -> Result<f64, String> {
    within(text, 0.0, 4.0, "a number is expected, 0 to 4")
}

/// Reads an amount of memory, in bytes.
fn memory(text: &str) -> Result<u64, String> {
    let least = 64 << 20;
    parse_bytes(text).filter(|&bytes| bytes >= least).ok_or_else(|| "a size of at least 64MiB is expected, as 8GiB".to_owned())
}

/// Reads a time in seconds.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    within(text, 0.0, 1e9, "a number of seconds is expected, 0 or more")
}

/// Reads how many of something that cannot be none. Rows have no more numbers than these.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse::<u32>() {
        Ok(value) if value > 0 => Ok(value as usize),
        _ => Err(format!("a whole number is expected, 1 to {}", u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| !["help", "data", "cache"].contains(&sub.get_name())) {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "`{}` has no example", sub.get_name());
        }
    }
}
