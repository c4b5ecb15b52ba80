//! `kinset diff`: two pipelines or runs beside each other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::args::{PipelineArgs, PlaceArgs};
use super::common::{Answer, Failure, outlook};
use super::terminal;
use crate::base::fault::Exit;
use crate::base::unit;
use crate::report::diff::{Diff, Presence, ScoreDiff, Side, Spread, compare};
use crate::report::journal::Run;
use crate::store::Store;

/// Compare two pipelines or runs: settings, results, scores
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset diff pipelines/fashion-mini.toml pipelines/compare.toml
  kinset diff pipelines/fashion-mini.toml --right-set stage.pretext.epochs=10
  kinset diff artifacts/fashion-mini/runs/2026-11-21T10-00-00.000Z artifacts/fashion-mini/runs/2026-11-22T10-00-00.000Z")]
pub struct DiffArgs {
    /// A pipeline file, or the folder of a run
    #[arg(value_name = "LEFT")]
    left: PathBuf,
    /// Another one [default: LEFT with --right-set, --right-profile and --right-seed]
    #[arg(value_name = "RIGHT")]
    right: Option<PathBuf>,
    /// Override a setting of both pipelines
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Override settings")]
    set: Vec<String>,
    /// Apply a profile to both
    #[arg(long, value_name = "NAME", help_heading = "Override settings")]
    profile: Option<String>,
    /// Override the seed of both
    #[arg(long, value_name = "N", help_heading = "Override settings")]
    seed: Option<u64>,
    /// Override a setting of the right one
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Override settings")]
    right_set: Vec<String>,
    /// Apply a profile to the right one
    #[arg(long, value_name = "NAME", help_heading = "Override settings")]
    right_profile: Option<String>,
    /// Override the seed of the right one
    #[arg(long, value_name = "N", help_heading = "Override settings")]
    right_seed: Option<u64>,
    #[command(flatten)]
    places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DiffArgs) -> Answer {
    let left = side(args, &args.left, false)?;
    let right = side(args, args.right.as_ref().unwrap_or(&args.left), true)?;
    let diff = compare(&left, &right);
    if args.json {
        terminal::print_json(&diff)?;
    } else {
        terminal::print(&in_words(&diff))?;
    }
    Ok(Exit::Done)
}

/// A pipeline file, or else a run.
fn side(args: &DiffArgs, target: &Path, right: bool) -> Result<Side, Failure> {
    if target.extension().is_none_or(|ending| ending != "toml") {
        let run = Run::read(target).map_err(Failure::own)?;
        let store = Store::open_to_read(&args.places.artifacts)?;
        return Ok(Side::of_run(format!("{} ({})", target.display(), run.pipeline), &run, &store)?);
    }
    let mut pipeline = PipelineArgs {
        pipeline: target.to_path_buf(),
        set: args.set.clone(),
        profile: args.profile.clone(),
        seed: args.seed,
        device: None,
        places: args.places.clone(),
    };
    if right {
        pipeline.set.extend(args.right_set.iter().cloned());
        pipeline.profile = args.right_profile.clone().or(pipeline.profile);
        pipeline.seed = args.right_seed.or(pipeline.seed);
    }
    let mut title = target.display().to_string();
    if let Some(profile) = &pipeline.profile {
        title.push_str(&format!(" --profile {profile}"));
    }
    if let Some(seed) = pipeline.seed {
        title.push_str(&format!(" --seed {seed}"));
    }
    for set in &pipeline.set {
        title.push_str(&format!(" --set {set}"));
    }
    outlook(&pipeline, |_, outlook| Ok(Side::of_pipeline(title, outlook)?))
}

fn in_words(diff: &Diff) -> String {
    let mut text = format!("left   {}\nright  {}\n", diff.left, diff.right);
    let mut table = terminal::table(&["stage", "left", "right", "what differs"], &[1, 2]);
    let mut same = Vec::new();
    for stage in &diff.stages {
        if stage.same() {
            same.push(stage.stage.as_str());
            continue;
        }
        let took = |seconds: Option<f64>, there: bool| match seconds {
            Some(seconds) => unit::duration(Duration::from_secs_f64(seconds.max(0.0))),
            None if there => "no result".into(),
            None => "–".into(),
        };
        let mut what: Vec<String> = stage.fields.iter().map(|field| field.text.clone()).collect();
        match stage.presence {
            Presence::Both => {}
            Presence::Left => what.push("only left".into()),
            Presence::Right => what.push("only right".into()),
        }
        if !stage.inputs.is_empty() {
            what.push(format!("reads other {}", stage.inputs.join(", ")));
        }
        if !stage.outputs.is_empty() {
            what.push(format!("gives other {}", stage.outputs.join(", ")));
        }
        let name = match &stage.right_name {
            Some(other) => format!("{} / {other}", stage.stage),
            None => stage.stage.clone(),
        };
        if stage.waits && what.is_empty() {
            what.push("reads what differs above".into());
        }
        // A line per difference: a stage may have many, and a terminal is narrow.
        for (line, words) in what.iter().enumerate() {
            let first = |text: String| if line == 0 { text } else { String::new() };
            table.add_row([
                first(name.clone()),
                first(took(stage.seconds[0], stage.presence != Presence::Right)),
                first(took(stage.seconds[1], stage.presence != Presence::Left)),
                words.clone(),
            ]);
        }
    }
    text.push('\n');
    if same.len() < diff.stages.len() {
        text.push_str(&terminal::text(&table));
        text.push('\n');
    }
    if !same.is_empty() {
        text.push_str(&format!("\nthe same: {}\n", same.join(", ")));
    }
    if !diff.scores.is_empty() {
        text.push_str(&format!("\n{}\n", terminal::text(&scores(&diff.scores))));
    }
    text
}

/// A row for each stage that was measured, a column for each score: left → right.
fn scores(all: &[ScoreDiff]) -> comfy_table::Table {
    let (mut rows, mut columns): (Vec<(&str, &str)>, Vec<&str>) = (Vec::new(), Vec::new());
    for score in all {
        let row = (score.stage.as_str(), score.images.as_str());
        if !rows.contains(&row) {
            rows.push(row);
        }
        if !columns.contains(&score.score) {
            columns.push(score.score);
        }
    }
    let mut header = vec!["scores, %".to_owned(), "of".to_owned()];
    header.extend(columns.iter().map(|score| score.to_uppercase()));
    let mut table = terminal::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    for (stage, images) in rows {
        let mut cells = vec![stage.to_owned(), images.to_owned()];
        for column in &columns {
            let found =
                all.iter().find(|score| (score.stage.as_str(), score.images.as_str(), score.score) == (stage, images, *column));
            cells.push(found.map(in_one).unwrap_or_default());
        }
        table.add_row(cells);
    }
    table
}

fn in_one(score: &ScoreDiff) -> String {
    let change = match (score.left, score.right) {
        (Some(a), Some(b)) => format!(" ({:+.1})", (b.mean - a.mean) * 100.0),
        _ => String::new(),
    };
    format!("{} → {}{change}", percent(score.left), percent(score.right))
}

fn percent(spread: Option<Spread>) -> String {
    match spread {
        None => "–".into(),
        Some(Spread { mean, runs: 1, .. }) => format!("{:.1}", mean * 100.0),
        Some(Spread { mean, std, .. }) => format!("{:.1} ± {:.1}", mean * 100.0, std * 100.0),
    }
}
