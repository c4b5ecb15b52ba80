//! What may be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::similar::args::SimilarArgs;

/// Sort images without labels; build training sets that look like a target.
///
/// A pipeline is a TOML file; its stages are cached by what goes into them. Run it again and nothing happens; change one
/// setting and exactly what depends on it runs; kill it and it goes on where it stopped.
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
  10 `plan` found work to do · 75 stopped, run again to go on · 70 a bug of kinset"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a pipeline: what is missing or out of date, nothing else
    #[command(after_help = "\
Examples:
  kinset run pipelines/fashion-mini.toml
  kinset run pipelines/fashion-mini.toml --profile smoke
  kinset run pipelines/stl10.toml --set stage.pretext.epochs=5 --until features
  kinset run pipelines/stl10.toml --only scores --force")]
    Run(RunArgs),
    /// Say what `run` would do, and why; exit code 10 if there is work
    #[command(after_help = "\
Examples:
  kinset plan pipelines/fashion-mini.toml
  kinset plan pipelines/fashion-mini.toml --set stage.cluster.epochs=50 --json")]
    Plan(PlanArgs),
    /// Say why a stage would run: every field that differs, old and new
    #[command(after_help = "\
Example:
  kinset explain pipelines/fashion-mini.toml cluster --set stage.neighbors.k=10")]
    Explain(ExplainArgs),
    /// Draw the stages as a graph
    #[command(after_help = "\
Examples:
  kinset graph pipelines/fashion-mini.toml                      mermaid, for Markdown
  kinset graph pipelines/fashion-mini.toml --format dot | dot -Tsvg > graph.svg")]
    Graph(GraphArgs),
    /// Show what each stage last gave, and whether it still holds
    #[command(after_help = "\
Example:
  kinset status pipelines/fashion-mini.toml")]
    Status(PlanArgs),
    /// Lay two pipelines or runs beside each other: settings, results, scores
    #[command(after_help = "\
Examples:
  kinset diff pipelines/fashion-mini.toml pipelines/compare.toml
  kinset diff pipelines/fashion-mini.toml --right-set stage.pretext.epochs=10
  kinset diff artifacts/fashion-mini/runs/2026-11-21T10-00-00.000Z artifacts/fashion-mini/runs/2026-11-22T10-00-00.000Z")]
    Diff(DiffArgs),
    /// Show the results as one page: scores, clusters with pictures, curves, a map; one HTML file that needs no network
    #[command(after_help = "\
Examples:
  kinset report pipelines/fashion-mini.toml
  kinset report pipelines/fashion-mini.toml --out fashion.html
  kinset report pipelines/fashion-mini.toml --json | jq .scores")]
    Report(ReportArgs),
    /// Draw one figure for a paper: confusion matrix, prototypes, calibration
    #[command(after_help = "\
Examples:
  kinset plot pipelines/fashion-mini.toml confusion
  kinset plot pipelines/fashion-mini.toml confusion --stage kmeans_features --out kmeans.svg
  kinset plot pipelines/fashion-mini.toml prototypes --out prototypes.png
  kinset plot pipelines/fashion-mini.toml calibration")]
    Plot(PlotArgs),
    /// Look into what a stage wrote, or into any Parquet file
    #[command(after_help = "\
Examples:
  kinset inspect pipelines/fashion-mini.toml features
  kinset inspect artifacts/fashion-mini/neighbors/neighbors.parquet --rows 3
  kinset inspect pipelines/fashion-mini.toml neighbors --html neighbors.html
  kinset inspect somebody-elses.parquet --json")]
    Inspect(InspectArgs),
    /// Re-hash everything in the store; with --repair drop what is damaged, so that it runs again
    #[command(after_help = "\
Example:
  kinset verify --repair")]
    Verify(VerifyArgs),
    /// Show what the store can give back; delete it with --delete
    #[command(after_help = "\
Examples:
  kinset gc pipelines/*.toml                 what no named pipeline uses any more
  kinset gc pipelines/*.toml --delete
  kinset gc --max-size 10GiB pipelines/*.toml")]
    Gc(GcArgs),
    /// Choose the images of a pool that make a training set like a target
    #[command(after_help = "\
Examples:
  kinset similar --target-csv target.csv --near-csv pool.csv --save-dir out --nn-factor 5 20
  kinset similar --target t.parquet --pool a.parquet b.parquet --save-dir out --budget 6000 --pool-sim 0.95
  kinset similar --target t.npy --pool p.npy --save-dir out --near-db pictures --materialize symlink")]
    Similar(Box<SimilarArgs>),
    /// Sort pictures with a pipeline's classifier: a folder, files, Parquet tables
    #[command(after_help = "\
Examples:
  kinset predict pipelines/fashion-mini.toml my/photos > assignments.csv
  kinset predict pipelines/fashion-mini.toml a.jpg b.png more.parquet --output assignments.parquet
  kinset predict pipelines/fashion-mini.toml my/photos --stage kmeans --format jsonl --skip-broken")]
    Predict(PredictArgs),
    /// Write a result as others use it: networks for PyTorch or as ONNX, assignments as CSV, pictures in a folder per cluster
    #[command(after_help = "\
Examples:
  kinset export pipelines/fashion-mini.toml cluster --output scan.safetensors
  kinset export pipelines/fashion-mini.toml cluster --output scan.onnx     runs in onnxruntime
  kinset export pipelines/fashion-mini.toml assignments --output assignments.csv
  kinset export photos.toml assignments --output sorted          links, one folder per cluster
  kinset export photos.toml assignments --output sorted --copy")]
    Export(ExportArgs),
    /// List the known data sets, fetch one, or check one that is on disk
    #[command(subcommand)]
    Data(DataCommand),
    /// List stages and methods, or print the sign of one: paper, loss, settings, deviations
    #[command(after_help = "\
Examples:
  kinset methods
  kinset methods scan")]
    Methods(MethodsArgs),
    /// Write a commented pipeline for a folder of images
    #[command(after_help = "\
Examples:
  kinset init my/photos > photos.toml
  kinset init my/photos --clusters 12 --output photos.toml")]
    Init(InitArgs),
}

/// Where things are.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Where the store and the readable views live
    #[arg(long, value_name = "DIR", default_value = "artifacts", help_heading = "Places")]
    pub artifacts: PathBuf,
    /// Where raw data are looked for [default: $KINSET_DATA, else data/]
    #[arg(long, value_name = "DIR", help_heading = "Places")]
    pub data: Option<PathBuf>,
}

/// Which pipeline, and how it is bent.
#[derive(Clone, Debug, Args)]
pub struct PipelineArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE")]
    pub pipeline: PathBuf,
    /// Overrides a setting, for example stage.pretext.epochs=5 (may be repeated)
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Bend the pipeline")]
    pub set: Vec<String>,
    /// Lays a profile of the file over it
    #[arg(long, value_name = "NAME", help_heading = "Bend the pipeline")]
    pub profile: Option<String>,
    /// Replaces the seed of the file
    #[arg(long, value_name = "N", help_heading = "Bend the pipeline")]
    pub seed: Option<u64>,
    /// Replaces the device of the file: auto, cpu, cuda:0, metal
    #[arg(long, value_name = "DEVICE", help_heading = "Bend the pipeline")]
    pub device: Option<String>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
}

/// Which stages.
#[derive(Clone, Debug, Default, Args)]
pub struct SelectArgs {
    /// Only these stages (comma-separated); what they read must be there
    #[arg(long, value_name = "STAGES", value_delimiter = ',', help_heading = "Which stages")]
    pub only: Vec<String>,
    /// These stages and everything below them
    #[arg(long, value_name = "STAGES", value_delimiter = ',', help_heading = "Which stages")]
    pub from: Vec<String>,
    /// These stages and everything above them
    #[arg(long, value_name = "STAGES", value_delimiter = ',', help_heading = "Which stages")]
    pub until: Vec<String>,
    /// Run the chosen stages even if they are fresh (all, if none are chosen)
    #[arg(long, help_heading = "Which stages")]
    pub force: bool,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Which stages.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Number of threads; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Fail instead of waiting when another run computes the same stage
    #[arg(long)]
    pub no_wait: bool,
    /// Save the progress of training at least this often
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    pub checkpoint_every: f64,
    /// Write no report.html at the end
    #[arg(long)]
    pub no_report: bool,
    /// Print one JSON object at the end instead of tables
    #[arg(long)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=1e9).contains(&value) => Ok(value),
        _ => Err("a number of seconds is expected, 0 or more".to_owned()),
    }
}

/// `plan` and `status`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Which stages.
    #[command(flatten)]
    pub select: SelectArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// The stage
    pub stage: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How to draw.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum GraphFormat {
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
}

/// `graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// The language to draw in
    #[arg(long, value_enum, default_value = "mermaid")]
    pub format: GraphFormat,
}

/// `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// A pipeline file, or the folder of a run
    #[arg(value_name = "LEFT")]
    pub left: PathBuf,
    /// Another one [default: the left one, bent by --right-set and its kin]
    #[arg(value_name = "RIGHT")]
    pub right: Option<PathBuf>,
    /// Overrides a setting of both pipelines
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Bend the pipelines")]
    pub set: Vec<String>,
    /// Lays a profile over both
    #[arg(long, value_name = "NAME", help_heading = "Bend the pipelines")]
    pub profile: Option<String>,
    /// Replaces the seed of both
    #[arg(long, value_name = "N", help_heading = "Bend the pipelines")]
    pub seed: Option<u64>,
    /// Overrides a setting of the right one
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Bend the pipelines")]
    pub right_set: Vec<String>,
    /// Lays a profile over the right one
    #[arg(long, value_name = "NAME", help_heading = "Bend the pipelines")]
    pub right_profile: Option<String>,
    /// Replaces the seed of the right one
    #[arg(long, value_name = "N", help_heading = "Bend the pipelines")]
    pub right_seed: Option<u64>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Where to write the page [default: report.html in the pipeline's folder of the artifacts]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Show the assignments of this stage, or of this classifier [default: those of the last stage that predicts]
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Print what is on the page as JSON, and write nothing
    #[arg(long)]
    pub json: bool,
}

/// What can be drawn alone.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PlotWhat {
    /// Classes against clusters; rows sum to 1
    Confusion,
    /// An image for each cluster
    Prototypes,
    /// Confidence against accuracy
    Calibration,
}

/// `plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// What to draw
    #[arg(value_enum, value_name = "WHAT")]
    pub what: PlotWhat,
    /// Of which stage: for confusion one that was measured, else one that predicts or its classifier
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Where to write it: FILE.svg, for prototypes also FILE.png [default: confusion_matrix.svg, prototypes.svg or calibration.svg in the
    /// pipeline's folder of the artifacts]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A pipeline file, or any Parquet file
    #[arg(value_name = "PIPELINE|FILE")]
    pub target: PathBuf,
    /// The stage, if a pipeline was named
    pub stage: Option<String>,
    /// How many of the first rows to show
    #[arg(long, default_value_t = 5)]
    pub rows: usize,
    /// Write a page with histograms and pictures into this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Lays a profile of the pipeline over it
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Overrides a setting of the pipeline
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Replaces the seed of the pipeline
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Drop damaged results, so that the next run makes them again
    #[arg(long)]
    pub repair: bool,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Pipelines whose results are kept
    #[arg(value_name = "PIPELINE")]
    pub pipelines: Vec<PathBuf>,
    /// Really delete
    #[arg(long)]
    pub delete: bool,
    /// Let the store hold this much; of unused results, the cheapest to recompute go first, for example 10GiB
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<String>,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A form of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowsFormat {
    /// Comma-separated values with a header
    Csv,
    /// One JSON object per line
    Jsonl,
    /// A Parquet table
    Parquet,
}

/// `predict`.
#[derive(Debug, Args)]
pub struct PredictArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// Pictures: folders, PNG, JPEG or WebP files, Parquet tables
    #[arg(value_name = "IMAGES", required = true)]
    pub images: Vec<PathBuf>,
    /// The stage whose classifier sorts [default: the one that the last `predict` stage reads, else the last one]
    #[arg(long, value_name = "STAGE")]
    pub stage: Option<String>,
    /// Where to write the assignments [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Their form [default: as the file's name ends, else csv]
    #[arg(long, value_enum)]
    pub format: Option<RowsFormat>,
    /// Leave pictures out that cannot be read, and name the first of them, instead of stopping
    #[arg(long)]
    pub skip_broken: bool,
    /// Print one JSON object at the end (with --output)
    #[arg(long, requires = "output")]
    pub json: bool,
}

/// Whose names tensors get.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum NamesArg {
    /// SCAN, NNM and RUC: backbone.…, contrastive_head.…, cluster_head.0.…
    Scan,
    /// MoCo: module.encoder_q.…
    Moco,
    /// AND: conv1.…, linear.…
    And,
}

/// `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which pipeline.
    #[command(flatten)]
    pub pipeline: PipelineArgs,
    /// The stage, or STAGE.OUTPUT where it gives several
    pub stage: String,
    /// Where to: networks FILE.safetensors or .onnx; assignments FILE.csv, .jsonl, .parquet, or a new folder
    #[arg(long, short, value_name = "PATH")]
    pub output: PathBuf,
    /// Whose names the tensors in safetensors get
    #[arg(long, value_enum, default_value = "scan")]
    pub names: NamesArg,
    /// Copy pictures into their folders instead of linking them
    #[arg(long)]
    pub copy: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// List the data sets kinset knows by name
    #[command(after_help = "\
Example:
  kinset data list")]
    List {
        /// Where things are.
        #[command(flatten)]
        places: PlaceArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Get a published data set: resumed where it broke off, checked, unpacked; nothing if it is there
    #[command(after_help = "\
Examples:
  kinset data fetch stl10
  kinset data fetch cifar10 --dry-run          say what would be got, from where, to where
  kinset data fetch svhn --all                 its extra images too
  kinset data fetch stl10 --from http://mirror.example/stl10")]
    Fetch(FetchArgs),
    /// Read a data set to the end and say what is in it, or what is wrong with it
    #[command(after_help = "\
Examples:
  kinset data check fashion-mini
  kinset data check folder --root my/photos")]
    Check {
        /// The data set
        dataset: String,
        /// The split
        #[arg(long)]
        split: Option<String>,
        /// Where it is, if not at its usual place
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Where things are.
        #[command(flatten)]
        places: PlaceArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `data fetch`.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The data set, or the address of a file of weights
    pub dataset: String,
    /// Where it shall lie, if not at its usual place
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Get the files from this address instead of the publishers'; checksums stay
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// Another SHA-256 than the published checksum, of one file or of the only one (may be repeated)
    #[arg(long, value_name = "[FILE=]DIGITS")]
    pub sha256: Vec<String>,
    /// Also what few need: the extra images of svhn
    #[arg(long)]
    pub all: bool,
    /// Say what would be done, and ask nobody
    #[arg(long)]
    pub dry_run: bool,
    /// Where things are.
    #[command(flatten)]
    pub places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `methods`.
#[derive(Debug, Args)]
pub struct MethodsArgs {
    /// Print the sign of this one
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder of images
    pub folder: PathBuf,
    /// How many clusters to look for
    #[arg(long, default_value_t = 10)]
    pub clusters: usize,
    /// Where to write the pipeline [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
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
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help" && sub.get_name() != "data") {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "`{}` has no example", sub.get_name());
        }
    }
}
