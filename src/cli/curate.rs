//! `kinset curate`: a balanced part of a pool, without a target.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::args::{PlaceArgs, positive};
use super::common::{Answer, Failure, places};
use super::similar::args::SetArgs;
use super::similar::export::{self, Names};
use super::similar::inputs::{Given, Inputs, PoolPictures};
use super::similar::plan;
use super::similar::set::{self, Done, Work};
use super::terminal;
use crate::artifact::levels::{LevelRow, LevelTable, Levels};
use crate::artifact::selection::{Selection, SelectionTable};
use crate::base::fault::Exit;

/// The command, the name of its pipeline.
const COMMAND: &str = "curate";
/// The stage that selects, and the name of what it selects.
const CURATED: &str = "curated";

/// How images are picked.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Pick {
    /// In turn from the clusters of hierarchical k-means
    Hierarchical,
    /// In turn from the clusters of one k-means
    Flat,
    /// At random
    Random,
    /// Far from each other
    Farthest,
}

/// Which images of a cluster come first.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Within {
    /// Any
    Random,
    /// The most typical
    Nearest,
}

/// Select a balanced part of a pool: what is rare is not drowned by what is frequent
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset curate --pool my/photos --save-dir out --budget 500 --materialize symlink
  kinset curate --pool a.tar b.tar --save-dir out --encoder dinov2_vits14
  kinset curate --pool pool.parquet --save-dir out --budget 10000 --clusters 4000 1000 250")]
pub struct CurateArgs {
    /// The pool: folders, .tar or .parquet files of images, or features: .csv, .npy, .parquet or .arrow; each cached separately
    #[arg(long, aliases = ["near-csv", "near_csv"], value_name = "PATH", num_args = 1.., required = true)]
    pool: Vec<PathBuf>,
    /// Number of images to select [default: a tenth of the pool]
    #[arg(long, value_name = "N", value_parser = positive)]
    budget: Option<usize>,
    #[command(flatten)]
    pub set: SetArgs,

    /// How images are picked
    #[arg(long, value_enum, default_value = "hierarchical", help_heading = "How")]
    pick: Pick,
    /// Clusters of each level, that of images first, each fewer than before [default: by the size of the pool]
    #[arg(long, value_name = "K", num_args = 1.., value_parser = positive, help_heading = "How")]
    clusters: Vec<usize>,
    /// Resampling steps of each level
    #[arg(long, value_name = "N", default_value_t = 10, help_heading = "How")]
    resamples: u16,
    /// Images nearest to each center that a resampling keeps
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive, help_heading = "How")]
    nearest: usize,
    /// Which images of a cluster come first
    #[arg(long, value_enum, default_value = "random", help_heading = "How")]
    within: Within,
}

pub(super) fn run(args: &CurateArgs) -> Answer {
    let set = &args.set;
    set::check(set)?;
    if args.clusters.windows(2).any(|pair| pair[0] <= pair[1]) {
        return Err(set::unfit(
            "`--clusters` must be numbers that fall",
            "write the level of images first: `--clusters 1000 100 20`",
        ));
    }
    let places = places(&PlaceArgs { artifacts: set::ARTIFACTS.into(), data: None }, None);
    let inputs = Inputs::of(&Given { pool: &args.pool, ..Given::default() }, set, &places)?;
    let pictures = inputs.pictures(set)?;
    let names = Names::called(CURATED);
    let files = [export::REPORT, export::PAGE, &names.list, &names.manifest, &names.folder].map(str::to_owned);
    set::spare(COMMAND, set, &inputs, &files, &[])?;
    let store = set::store(set)?;
    let work = Work::new(COMMAND, set, &inputs, &places, &store)?;
    let done = work.run(&pipeline(args, &inputs)?)?;
    if let Some(exit) = done.broke_off() {
        return Ok(exit);
    }
    let levels = LevelTable::load(&done.stored::<Levels>(CURATED)?)?;
    let mut found = export(&done, &names, pictures.as_ref())?;
    found["levels"] = levels.levels.iter().map(as_json).collect();
    done.report(&[(CURATED, found.clone())])?;
    let page = done.page(None, pictures.as_ref())?;
    if set.json {
        terminal::print_json(&json!({
            "save_dir": set.save_dir.display().to_string(), "seconds": done.summary.seconds, "curated": found, "report": page,
        }))?;
        return Ok(Exit::Done);
    }
    terminal::print(&table(&levels.levels))?;
    terminal::say(&format!(
        "\n{} of {} images were selected; their list, table and report.json are in {}",
        found["counts"]["selected"],
        found["counts"]["pool"],
        set.save_dir.display()
    ));
    if let Some(page) = page {
        terminal::say(&format!("report: {page}"));
    }
    Ok(Exit::Done)
}

/// The pipeline as TOML. Paths are written in full, so that it may be moved.
fn pipeline(args: &CurateArgs, inputs: &Inputs) -> Result<String, Failure> {
    let mut text = plan::begin(COMMAND, &args.set, inputs);
    let mut pools = Vec::new();
    for (shard, input) in (1..).zip(&inputs.pool) {
        let pool = plan::pool(shard);
        plan::features(&mut text, &args.set, &pool, input)?;
        pools.push(format!("\"{pool}\""));
    }
    let pick = match args.pick {
        Pick::Hierarchical => "hierarchical",
        Pick::Flat => "flat",
        Pick::Random => "random",
        Pick::Farthest => "farthest",
    };
    let within = match args.within {
        Within::Random => "random",
        Within::Nearest => "nearest",
    };
    let _ = write!(
        text,
        "\n[stage.{CURATED}]\nkind = \"curate\"\npool = [{}]\npick = \"{pick}\"\nresamples = {}\nnearest = {}\nwithin = \"{within}\"\n",
        pools.join(", "),
        args.resamples,
        args.nearest
    );
    if let Some(budget) = args.budget {
        let _ = writeln!(text, "budget = {budget}");
    }
    if !args.clusters.is_empty() {
        let _ = writeln!(text, "clusters = {:?}", args.clusters);
    }
    Ok(text)
}

/// Writes list and table, and puts pictures in place; returns what to say of it.
fn export(done: &Done<'_>, files: &Names, pictures: Option<&PoolPictures>) -> Result<Value, Failure> {
    let dir = &done.set.save_dir;
    let mut selection = SelectionTable::load(&done.stored::<Selection>(CURATED)?)?;
    let names = done.file_names()?;
    if let Some(names) = &names {
        names.rename(&mut selection);
    }
    let list = export::list(dir, files, &selection)?;
    let shard = |row| names.as_ref().map_or(0, |names| names.shard(row));
    let placed = export::manifest(dir, files, &selection, pictures, &shard, done.set.materialize)?;
    set::warn(&files.folder, &placed, pictures.is_some());
    Ok(json!({
        "list": list.display().to_string(),
        "counts": selection.report.counts,
        "images_found": placed.images,
        "without_image": placed.without_image.len(),
        "without_annotation": placed.without_annotation.len(),
    }))
}

fn as_json(level: &LevelRow) -> Value {
    json!({
        "clusters": level.clusters,
        "smallest": level.smallest,
        "largest": level.largest,
        "effective": level.effective,
        "effective_selected": level.effective_selected,
        "effective_random": level.effective_random,
    })
}

/// How evenly each level was divided, and images were taken from it.
fn table(levels: &[LevelRow]) -> String {
    let columns = ["level", "clusters", "smallest", "largest", "effective in the pool", "in the selection", "in a random one"];
    let mut table = terminal::table(&columns, &[0, 1, 2, 3, 4, 5, 6]);
    for level in levels {
        let effective =
            [level.effective, level.effective_selected, level.effective_random].map(|number| format!("{number:.1}"));
        let counts = [level.level, level.clusters, level.smallest, level.largest].map(|number| number.to_string());
        table.add_row(counts.into_iter().chain(effective).collect::<Vec<_>>());
    }
    terminal::text(&table)
}
