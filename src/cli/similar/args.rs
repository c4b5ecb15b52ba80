//! The arguments of `kinset similar`. The first flags are the fork's, also in its spelling with underscores.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// How repetitions in the target are found.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Dedup {
    /// Keep a frame, drop later ones that are at least so similar
    Greedy,
    /// As the fork does: drop every frame that has a similar one
    Fork,
    /// Keep all
    None,
}

/// What becomes of pictures and annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Materialize {
    /// Lists and tables only
    List,
    /// Symbolic links
    Symlink,
    /// Hard links
    Hardlink,
    /// Copies
    Copy,
}

/// What joins near-duplicates of the pool.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LinkArg {
    /// Near the first of a group
    Star,
    /// Near any of a group
    Chain,
}

/// Which images come first.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OrderArg {
    /// Of best rank, then of least distance: every target image in turn
    Rank,
    /// Chosen by most target images: surer, and dense where the target is
    Votes,
}

/// How images are picked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PickArg {
    /// The nearest of each target image
    Nearest,
    /// At random
    Random,
    /// Far from each other
    Diverse,
    /// Unlike the target
    Dissimilar,
}

/// Choose the images of a pool that make a training set like a target
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset similar --target-csv target.csv --near-csv pool.csv --save-dir out --nn-factor 5 20
  kinset similar --target t.parquet --pool a.parquet b.parquet --save-dir out --budget 6000 --pool-sim 0.95
  kinset similar --target t.npy --pool p.npy --save-dir out --near-db pictures --materialize symlink")]
pub struct SimilarArgs {
    /// Features of the target: .csv, .npy or .parquet
    #[arg(long, alias = "target_csv", visible_alias = "target", value_name = "FILE")]
    pub target_csv: PathBuf,
    /// Features of the pool; several files are shards, and a new one costs only itself
    #[arg(long, alias = "near_csv", visible_alias = "pool", value_name = "FILE", num_args = 1.., required = true)]
    pub near_csv: Vec<PathBuf>,
    /// Where lists and tables go
    #[arg(long, alias = "save_dir", value_name = "DIR")]
    pub save_dir: PathBuf,
    /// The target's pictures, for the report: a folder, or VOC's JPEGImages/
    #[arg(long, alias = "target_db", value_name = "DIR")]
    pub target_db: Option<PathBuf>,
    /// The pool's pictures: a folder, or VOC's JPEGImages/ and Annotations/
    #[arg(long, alias = "near_db", value_name = "DIR")]
    pub near_db: Option<PathBuf>,
    /// Pool images per target image; several give one nested selection each
    #[arg(long, alias = "nn_factor", value_name = "K", num_args = 1.., default_values_t = [20])]
    pub nn_factor: Vec<usize>,
    /// Numbers per vector in the CSV files [default: what their first records agree on]
    #[arg(long, alias = "feature_dim", value_name = "D")]
    pub feature_dim: Option<usize>,
    /// A saved table of neighbors (not needed: what was found is kept)
    #[arg(long, alias = "nn_npy", value_name = "FILE", hide = true)]
    pub nn_npy: Option<PathBuf>,

    /// Target images with this cosine similarity or more repeat each other, -1 to 1
    #[arg(
        long,
        alias = "dist_thr",
        visible_alias = "dedup-sim",
        value_name = "S",
        default_value_t = 0.98,
        allow_negative_numbers = true,
        help_heading = "The target"
    )]
    pub dist_thr: f64,
    /// How repetitions in the target are left out
    #[arg(long, value_enum, default_value = "greedy", help_heading = "The target")]
    pub dedup: Dedup,

    /// Keep a pair only below this distance, 1 - cosine, 0 to 2
    #[arg(long, alias = "max_dist", value_name = "D", help_heading = "Which pairs")]
    pub max_dist: Option<f64>,
    /// Drop pairs below this distance: copies of target images, e.g. 1e-4
    #[arg(long, alias = "min_dist", value_name = "D", help_heading = "Which pairs")]
    pub min_dist: Option<f64>,
    /// A list of pool names never to take
    #[arg(long, value_name = "FILE", help_heading = "Which pairs")]
    pub exclude: Option<PathBuf>,
    /// Drop pool images this similar to any target image
    #[arg(long, value_name = "S", help_heading = "Which pairs")]
    pub target_sim: Option<f64>,
    /// Features of images that must not be taken, not even nearly: test sets
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Which pairs")]
    pub held_out: Vec<PathBuf>,
    /// Drop pool images this similar to a held-out image
    #[arg(long, value_name = "S", default_value_t = 0.98, help_heading = "Which pairs")]
    pub held_out_sim: f64,
    /// Pool images this similar are one image
    #[arg(long, value_name = "S", help_heading = "Which pairs")]
    pub pool_sim: Option<f64>,
    /// What joins them
    #[arg(long, value_enum, default_value = "star", help_heading = "Which pairs")]
    pub link: LinkArg,

    /// Most images to take
    #[arg(long, value_name = "N", help_heading = "How many")]
    pub budget: Option<usize>,
    /// Which images come first
    #[arg(long, value_enum, default_value = "rank", help_heading = "How many")]
    pub order: OrderArg,
    /// Share the budget among so many parts of the target
    #[arg(long, value_name = "K", requires = "budget", help_heading = "How many")]
    pub clusters: Option<usize>,
    /// In proportion to their sizes to this power: 0 equal shares, 1 as they are
    #[arg(long, value_name = "P", default_value_t = 0.0, help_heading = "How many")]
    pub power: f64,
    /// Most target images that one pool image may serve
    #[arg(long, value_name = "N", help_heading = "How many")]
    pub per_image: Option<usize>,
    /// Most pool images for one target image
    #[arg(long, value_name = "N", help_heading = "How many")]
    pub per_target: Option<usize>,
    /// How images are picked
    #[arg(long, value_enum, default_value = "nearest", help_heading = "How many")]
    pub pick: PickArg,
    /// With --pick dissimilar: below this cosine
    #[arg(long, value_name = "S", default_value_t = 0.3, allow_negative_numbers = true, help_heading = "How many")]
    pub dissimilar_below: f64,
    /// All randomness
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "How many")]
    pub seed: u64,

    /// What is known of images, for the report: a CSV with a header, names first, then a column per attribute
    #[arg(long, value_name = "FILE")]
    pub attributes: Option<PathBuf>,
    /// What becomes of pictures and annotations
    #[arg(long, alias = "materialise", value_enum, default_value = "list")]
    pub materialize: Materialize,
    /// The column of names in Parquet files [default: id, name, ...]
    #[arg(long, value_name = "NAME")]
    pub id_column: Option<String>,
    /// The column of vectors in Parquet files [default: embedding, ...]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// Where what was found is kept [default: artifacts/ in --save-dir]
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Number of threads; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Save the progress of the search at least this often
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub checkpoint_every: f64,
    /// Write no report.html at the end
    #[arg(long)]
    pub no_report: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}
