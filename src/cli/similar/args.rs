//! The arguments of `kinset similar`. The first flags are the fork's, also in its spelling with underscores.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::args::{MachineArgs, distance, fraction, positive, power, seconds, similarity};

/// How repetitions in the target are found.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Dedup {
    /// Keep an image, drop its later near-duplicates
    Greedy,
    /// As the SCAN fork does: drop every image that has a near-duplicate
    Fork,
    /// Keep all
    None,
}

/// How images and annotations are written.
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
    /// Similar to the first image of a group
    Star,
    /// Similar to any image of a group
    Chain,
}

/// Which images come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OrderArg {
    /// Best rank, then smallest distance: every target image in turn
    Rank,
    /// Chosen by most target images: higher precision, lower coverage of rare targets
    Votes,
    /// Cluster sampling: clusters of the candidates get weighted shares of --budget; within each, images with the most votes
    Clusters,
}

/// How images are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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

/// What every selection from a pool is told: where its results go, what its features and images are.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Output folder for lists and tables
    #[arg(long, alias = "save_dir", value_name = "DIR")]
    pub save_dir: PathBuf,
    /// The pool's images where its features were given: a folder, or VOC's JPEGImages/ and Annotations/
    #[arg(long, alias = "near_db", value_name = "DIR")]
    pub near_db: Option<PathBuf>,
    /// Encoder that makes the features of images: a published one by name, a file (.onnx, .safetensors, .pth), or `none` to learn one
    /// from the pool [default: a published one that is on this machine, else none]
    #[arg(long, value_name = "NAME|FILE|none")]
    pub encoder: Option<String>,
    /// Leave out images that cannot be decoded, instead of stopping at them
    #[arg(long)]
    pub skip_broken: bool,
    /// Dimension of the vectors in CSV files [default: that of their first records]
    #[arg(long, alias = "feature_dim", value_name = "D", value_parser = positive)]
    pub feature_dim: Option<usize>,
    /// How images and annotations are written
    #[arg(long, alias = "materialise", value_enum, default_value = "list")]
    pub materialize: Materialize,
    /// The column of image names; "" uses row numbers [default: id, name, ...]
    #[arg(long, value_name = "NAME")]
    pub id_column: Option<String>,
    /// The column of vectors, or the prefix of numbered columns [default: embedding, ...]
    #[arg(long, value_name = "NAME")]
    pub column: Option<String>,
    /// Whether CSV files begin with a header [default: detected]
    #[arg(long, value_name = "true|false")]
    pub header: Option<bool>,
    /// Field separator of CSV files: a character, tab or blank [default: detected]
    #[arg(long, value_name = "CHAR")]
    pub separator: Option<String>,
    /// Folder of the cache [default: artifacts/ in --save-dir]
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Save progress at least this often
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub checkpoint_every: f64,
    /// Write no report.html at the end
    #[arg(long)]
    pub no_report: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Random seed
    // A pipeline file's whole numbers end here.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: u64,
}

/// Select the images of a pool that make a training set like a target
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset similar --target my/target --pool my/pool --save-dir out --budget 500 --materialize symlink
  kinset similar --target my/target --pool a.tar b.tar --save-dir out --encoder dinov2_vits14
  kinset similar --target-csv target.csv --near-csv pool.csv --save-dir out --nn-factor 5 20
  kinset similar --target t.parquet --pool a.parquet b.parquet --save-dir out --budget 6000 --pool-sim 0.95
  kinset similar --target t.npy --pool p.npy --save-dir out --near-db pictures --materialize symlink")]
pub struct SimilarArgs {
    /// The target: a folder, .tar or .parquet of images, or features: .csv, .npy, .parquet or .arrow
    #[arg(long, alias = "target_csv", visible_alias = "target", value_name = "PATH", required_unless_present = "target_db")]
    pub target_csv: Option<PathBuf>,
    /// The pool, likewise; several are shards, each cached separately
    #[arg(long, alias = "near_csv", visible_alias = "pool", value_name = "PATH", num_args = 1.., required_unless_present = "near_db")]
    pub near_csv: Vec<PathBuf>,
    /// The target's images, for the report where its features were given: a folder, or VOC's JPEGImages/
    #[arg(long, alias = "target_db", value_name = "DIR")]
    pub target_db: Option<PathBuf>,
    /// Pool images per target image; several give one nested selection each
    #[arg(long, alias = "nn_factor", value_name = "K", num_args = 1.., default_values_t = [20], value_parser = positive)]
    pub nn_factor: Vec<usize>,
    /// A saved table of neighbors (not needed: what was found is kept)
    #[arg(long, alias = "nn_npy", value_name = "FILE", hide = true)]
    pub nn_npy: Option<PathBuf>,
    #[command(flatten)]
    pub set: SetArgs,

    /// Target images with at least this cosine similarity are near-duplicates, -1 to 1
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
    /// How near-duplicates in the target are removed
    #[arg(long, value_enum, default_value = "greedy", help_heading = "The target")]
    pub dedup: Dedup,

    /// Keep a pair only below this distance, 1 - cosine, 0 to 2
    #[arg(
        long,
        alias = "max_dist",
        value_name = "D",
        value_parser = distance,
        allow_negative_numbers = true,
        help_heading = "Which pairs"
    )]
    pub max_dist: Option<f64>,
    /// Drop pairs below this distance: copies of target images, e.g. 1e-4
    #[arg(
        long,
        alias = "min_dist",
        value_name = "D",
        value_parser = distance,
        allow_negative_numbers = true,
        help_heading = "Which pairs"
    )]
    pub min_dist: Option<f64>,
    /// A list of pool names never to select
    #[arg(long, value_name = "FILE", help_heading = "Which pairs")]
    pub exclude: Option<PathBuf>,
    /// Drop pool images this similar to any target image
    #[arg(long, value_name = "S", value_parser = similarity, allow_negative_numbers = true, help_heading = "Which pairs")]
    pub target_sim: Option<f64>,
    /// Images to exclude together with their near-duplicates, or their features: test sets
    #[arg(long, value_name = "PATH", num_args = 1.., help_heading = "Which pairs")]
    pub held_out: Vec<PathBuf>,
    /// Drop pool images this similar to a held-out image
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0.98,
        value_parser = similarity,
        allow_negative_numbers = true,
        help_heading = "Which pairs"
    )]
    pub held_out_sim: f64,
    /// Tell which images of target and test sets have a pool image this similar
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0.98,
        value_parser = fraction,
        help_heading = "Which pairs"
    )]
    pub near_sim: f64,
    /// Also look for near-duplicates within the pool, the target, the test sets: all pairs are compared
    #[arg(long, help_heading = "Which pairs")]
    pub duplicates: bool,
    /// Pool images this similar count as one image
    #[arg(long, value_name = "S", value_parser = similarity, allow_negative_numbers = true, help_heading = "Which pairs")]
    pub pool_sim: Option<f64>,
    /// How near-duplicates in the pool are grouped
    #[arg(long, value_enum, default_value = "star", help_heading = "Which pairs")]
    pub link: LinkArg,

    /// Maximum number of images to select
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "How many")]
    pub budget: Option<usize>,
    /// Which images come first
    #[arg(long, value_enum, default_value = "rank", help_heading = "How many")]
    pub order: OrderArg,
    /// With --order clusters: clusters of the candidates [default: 27]
    #[arg(long, value_name = "K", value_parser = positive, help_heading = "How many")]
    pub pool_clusters: Option<usize>,
    /// Where K images per target image do not meet the budget, go on beyond them until it is met
    #[arg(long, requires = "budget", help_heading = "How many")]
    pub refill: bool,
    /// Split the budget among this many clusters of the target
    #[arg(long, value_name = "K", requires = "budget", value_parser = positive, help_heading = "How many")]
    pub clusters: Option<usize>,
    /// Shares in proportion to cluster size to this power: 0 equal, 1 proportional
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0.0,
        value_parser = power,
        allow_negative_numbers = true,
        help_heading = "How many"
    )]
    pub power: f64,
    /// Maximum number of target images per pool image
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "How many")]
    pub per_image: Option<usize>,
    /// Maximum number of pool images per target image
    #[arg(long, value_name = "N", value_parser = positive, help_heading = "How many")]
    pub per_target: Option<usize>,
    /// How images are picked
    #[arg(long, value_enum, default_value = "nearest", help_heading = "How many")]
    pub pick: PickArg,
    /// With --pick dissimilar: below this cosine similarity
    #[arg(
        long,
        value_name = "S",
        default_value_t = 0.3,
        allow_negative_numbers = true,
        value_parser = similarity,
        help_heading = "How many"
    )]
    pub dissimilar_below: f64,
    /// Attributes of images, for the report: a CSV with a header, names first, then a column per attribute
    #[arg(long, value_name = "FILE")]
    pub attributes: Option<PathBuf>,
}
