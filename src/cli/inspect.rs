//! `kinset inspect`: a description of what a stage wrote, or of any Parquet file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::args::{PipelineArgs, PlaceArgs};
use super::common::{Answer, Failure, NOT_THERE, looked_in, not_an_input, outlook};
use super::pictures::{Pictures, images_of};
use super::result_images::Shown;
use super::terminal;
use crate::artifact::error::ArtifactError;
use crate::artifact::images::Images;
use crate::artifact::parquet::inspect::{inspect, inspect_metadata};
use crate::artifact::parquet::summary::{FileReport, Shape, Values};
use crate::artifact::{Artifact, Stored};
use crate::base::fault::{Diagnosis, Exit, Fault, chain};
use crate::base::{fs, output, unit};
use crate::pipeline::graph::{self, Selection};
use crate::pipeline::state::{self, State};
use crate::report::album::Album;
use crate::report::page::look::{self, Look};
use crate::store::digest::Digest;

/// Summarize a stage's result or any Parquet file: counts, ranges, histograms
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset inspect pipelines/fashion-mini.toml features
  kinset inspect artifacts/fashion-mini/neighbors/neighbors.parquet --rows 3
  kinset inspect pipelines/fashion-mini.toml neighbors --html neighbors.html
  kinset inspect somebody-elses.parquet --json")]
pub struct InspectArgs {
    /// A pipeline file, or any Parquet file
    #[arg(value_name = "PIPELINE|FILE")]
    target: PathBuf,
    /// The stage, if a pipeline was named
    stage: Option<String>,
    /// Number of rows to show, from the first
    #[arg(long, default_value_t = 5)]
    rows: usize,
    /// Write an HTML page with histograms and images to this file
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Apply a profile of the pipeline
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Override a setting of the pipeline
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Override the seed of the pipeline
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// JSON and other small files are shown up to this size.
const SHOWN: u64 = 1 << 20;

/// There is nothing to look into.
#[derive(Debug, thiserror::Error)]
enum Nothing {
    #[error("`{stage}` has no valid cached result in `{artifacts}`")]
    Stale { stage: String, artifacts: String },
    #[error("which stage of `{pipeline}`? It has {stages}")]
    Which { pipeline: String, stages: String },
}

impl Fault for Nothing {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Stale { .. } => Exit::Run.code("inspect::no-result").hint(NOT_THERE),
            Self::Which { .. } => Exit::Usage.code("inspect::which-stage").hint("name one: kinset inspect PIPELINE STAGE"),
        }
    }
}

/// A file to look into: the output it belongs to, its name there, where it lies.
struct Found {
    output: String,
    name: String,
    path: PathBuf,
}

/// What was asked for: files, the groups of pictures that go with them, and the images that their rows are of.
#[derive(Default)]
struct Target {
    files: Vec<Found>,
    shown: Shown,
    images: Option<Stored<Images>>,
}

pub(super) fn run(args: &InspectArgs) -> Answer {
    let is_pipeline = args.target.extension().is_some_and(|ending| ending == "toml");
    if let Some(path) = &args.html {
        output::not_over(path, [args.target.as_path()])?;
    }
    let target = if is_pipeline { find_stage(args)? } else { find_file(args)? };
    let (mut text, mut answers) = (String::new(), Vec::new());
    let mut look = Look { title: title(args), groups: target.shown.groups, ..Look::default() };
    for file in &target.files {
        let title = if file.output.is_empty() { file.name.clone() } else { format!("{} · {}", file.output, file.name) };
        let parquet = !is_pipeline || ends_with(&file.name, "parquet");
        let answer = if parquet {
            let report = inspect(&file.path, args.rows)?;
            // The table is whole, and what was asked for.
            let paths = paths(&report, target.images.as_ref()).unwrap_or_else(|error| no_paths(&error));
            text.push_str(&described(&title, &report, &paths));
            let mut answer = json!(report);
            if !paths.is_empty() {
                answer["paths"] = json!(paths);
            }
            look.files.push((title, report));
            answer
        } else {
            let (words, value) = small(&title, &file.path, &file.name)?;
            text.push_str(&words);
            value
        };
        text.push('\n');
        answers.push(json!({ "output": file.output, "file": file.name, "content": answer }));
    }
    if let Some(path) = &args.html {
        let names = look.groups.iter().flat_map(|group| group.ids.iter().map(String::as_str));
        let album = target.shown.images.as_ref().map(|images| Album::of_names(names, images)).unwrap_or_default();
        output::write(path, look::render(&look, &album).as_bytes())?;
        terminal::say(&format!("a page with histograms and images is in {}", path.display()));
    }
    if args.json {
        terminal::print_json(&answers)?;
    } else if args.html.is_none() {
        terminal::print(text.trim_end())?;
    }
    Ok(Exit::Done)
}

fn title(args: &InspectArgs) -> String {
    let target = args.target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    args.stage.as_ref().map_or(target.clone(), |stage| format!("{stage} of {target}"))
}

/// A file by itself; pictures are shown if it is a table of images.
fn find_file(args: &InspectArgs) -> Result<Target, Failure> {
    let name = args.target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let files = vec![Found { output: String::new(), name, path: args.target.clone() }];
    let is_images = || {
        let about = inspect_metadata(&args.target).ok()?;
        (about["artifact"] == Images::KIND).then(|| Stored::<Images>::new(vec![args.target.clone()], Digest::of(b""), "a file"))
    };
    let shown = match args.html.as_ref().and_then(|_| is_images()) {
        Some(images) => Shown::of_images(images)?,
        None => Shown::default(),
    };
    Ok(Target { files, shown, ..Target::default() })
}

fn ends_with(name: &str, ending: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == ending)
}

fn find_stage(args: &InspectArgs) -> Result<Target, Failure> {
    let pipeline = PipelineArgs {
        pipeline: args.target.clone(),
        set: args.set.clone(),
        profile: args.profile.clone(),
        seed: args.seed,
        device: None,
        places: args.places.clone(),
    };
    outlook(&pipeline, |spec, outlook| {
        if let Some(path) = &args.html {
            not_an_input(path, &pipeline, outlook)?;
        }
        let Some(stage) = &args.stage else {
            let stages = spec.nodes.iter().map(|node| format!("`{}`", node.name)).collect::<Vec<_>>().join(", ");
            return Err(Failure::own(Nothing::Which { pipeline: spec.name.clone(), stages }));
        };
        let chosen = graph::select(spec, &Selection { only: vec![stage.clone()], ..Selection::default() })?.nodes;
        let states = outlook.states(&BTreeSet::new());
        let mut target = Target::default();
        for index in chosen {
            let State::Fresh { record, .. } = &states[index] else {
                return Err(Failure::own(Nothing::Stale {
                    stage: spec.nodes[index].name.clone(),
                    artifacts: looked_in(outlook),
                }));
            };
            for (output, stored) in &record.outputs {
                state::intact(outlook.store, &spec.nodes[index].name, output, stored)?;
                for file in &stored.files {
                    let path = outlook.store.blob_path(&file.blob);
                    target.files.push(Found { output: output.clone(), name: file.name.clone(), path });
                }
                if args.html.is_some() && target.shown.groups.is_empty() {
                    target.shown = Shown::of_output(outlook, &states, index, stored)?;
                }
            }
            match images_of(outlook, &states, index) {
                Ok(images) => target.images = target.images.or(images),
                Err(error) => no_paths(&error),
            }
        }
        Ok(target)
    })
}

/// The paths of the pictures in the first rows; none if the rows are not of pictures, or the pictures have no paths.
fn paths(report: &FileReport, images: Option<&Stored<Images>>) -> Result<Vec<String>, ArtifactError> {
    let named = |column: &str| report.columns.iter().position(|found| found.name == column);
    // A table of images shows them itself.
    let (Some(id), None, Some(images)) = (named("id"), named("image"), images) else { return Ok(Vec::new()) };
    let ids: Vec<String> = report.first_rows.iter().map(|row| row[id].clone()).collect();
    let paths = Pictures::of(images.clone(), &ids)?.paths()?;
    Ok(if paths.iter().all(String::is_empty) { Vec::new() } else { paths })
}

/// Says why there are none.
fn no_paths<T: Default>(error: &dyn Fault) -> T {
    terminal::say(&format!("warning: no paths of images: {}", chain(error)));
    T::default()
}

/// A Parquet file in words; `paths` are those of the pictures in its first rows.
fn described(title: &str, report: &FileReport, paths: &[String]) -> String {
    let mut text = format!(
        "{title}: {} rows, {} columns, {} row groups, {}\n",
        unit::count(report.rows as u64),
        report.columns.len(),
        report.groups.len(),
        unit::bytes(report.bytes)
    );
    let mut table = terminal::table(&["  column", "type", "present", "missing", "values"], &[2, 3]);
    for column in &report.columns {
        table.add_row([
            format!("  {}", column.name),
            column.kind.clone(),
            unit::count(column.count),
            unit::count(column.nulls),
            column.values.as_ref().map_or_else(String::new, in_words),
        ]);
    }
    text.push_str(&terminal::text(&table));
    text.push('\n');
    for column in &report.columns {
        if let Some(shape) = &column.shape {
            text.push_str(&drawn(&column.name, shape));
        }
    }
    for (key, value) in &report.metadata {
        let short: String = value.chars().take(200).collect();
        let more = if short.len() < value.len() { " …" } else { "" };
        text.push_str(&format!("  {key}: {short}{more}\n"));
    }
    if !report.first_rows.is_empty() {
        let path = (!paths.is_empty()).then_some("path");
        let names: Vec<&str> = report.columns.iter().map(|column| column.name.as_str()).chain(path).collect();
        let mut table = terminal::table(&names, &[]);
        for (place, row) in report.first_rows.iter().enumerate() {
            table.add_row(row.iter().chain(paths.get(place)));
        }
        text.push('\n');
        text.push_str(&terminal::text(&table));
        text.push('\n');
    }
    text
}

/// Columns of a terminal that a bar may take.
const BAR: u64 = 40;
/// More different numbers than these are drawn in one line.
const LINES: usize = 20;

/// A shape as bars of blocks: one line, or a line per number where there are few.
fn drawn(name: &str, shape: &Shape) -> String {
    match shape {
        Shape::Histogram { low, high, counts } => format!("  {name}: {} {} {}\n", number(*low), blocks(counts), number(*high)),
        Shape::Counts(counts) if counts.len() <= LINES => {
            let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
            let mut text = format!("  {name}:\n");
            for (value, count) in counts {
                // Whatever occurs has a bar, however short.
                let width = (count * BAR).div_ceil(most) as usize;
                text.push_str(&format!("  {value:>8}  {:<40}  {}\n", "█".repeat(width), unit::count(*count)));
            }
            text
        }
        Shape::Counts(counts) => {
            let (first, last) = (counts.first().map_or(0, |c| c.0), counts.last().map_or(0, |c| c.0));
            let of = |value: i64| counts.iter().find(|(other, _)| *other == value).map_or(0, |(_, count)| *count);
            let all: Vec<u64> = (first..=last).map(of).collect();
            format!("  {name}: {first} {} {last}\n", blocks(&all))
        }
    }
}

/// One block per count, as high as its share of the largest; a blank where there is nothing.
fn blocks(counts: &[u64]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let block = |count: u64| match (count as u128 * 8).div_ceil(u128::from(most)) as usize {
        0 => ' ',
        height => HEIGHTS[height.min(8) - 1],
    };
    counts.iter().map(|&count| block(count)).collect()
}

fn number(value: f64) -> String {
    if value.fract().abs() <= 0.0 && value.abs() < 1e9 { format!("{value}") } else { format!("{value:.4}") }
}

fn in_words(values: &Values) -> String {
    let range = |min: &Option<f64>, max: &Option<f64>| match (min, max) {
        (Some(min), Some(max)) => format!("{} … {}", number(*min), number(*max)),
        _ => "none finite".to_owned(),
    };
    let odd = |count: &u64| if *count > 0 { format!(", {count} not finite") } else { String::new() };
    match values {
        Values::Numbers { min, max, mean, not_finite } => {
            let mean = mean.map(|mean| format!(", mean {}", number(mean))).unwrap_or_default();
            format!("{}{mean}{}", range(min, max), odd(not_finite))
        }
        Values::Texts { distinct, more, min, max } => {
            let least = if *more { "more than " } else { "" };
            format!(
                "{least}{distinct} different, `{}` … `{}`",
                min.clone().unwrap_or_default(),
                max.clone().unwrap_or_default()
            )
        }
        Values::Flags { yes } => format!("{yes} true"),
        Values::Bytes { min, max, total } => format!(
            "{} … {} each, {} in all",
            unit::bytes(min.unwrap_or(0)),
            unit::bytes(max.unwrap_or(0)),
            unit::bytes(*total)
        ),
        Values::Lists { min_length, max_length, fixed, min, max, not_finite, norm, .. } => {
            let length = if *fixed {
                format!("{} each", max_length.unwrap_or(0))
            } else {
                format!("{} … {} each", min_length.unwrap_or(0), max_length.unwrap_or(0))
            };
            let norm = norm.map(|[a, b, c]| format!(", length {a:.4} … {c:.4}, mean {b:.4}")).unwrap_or_default();
            format!("{length}, {}{norm}{}", range(min, max), odd(not_finite))
        }
        Values::Parts(parts) => {
            parts.iter().map(|(name, values)| format!("{name}: {}", in_words(values))).collect::<Vec<_>>().join("; ")
        }
    }
}

/// A file that is no table: JSON as it is, anything else by its size.
fn small(title: &str, path: &Path, name: &str) -> Result<(String, Value), Failure> {
    let bytes = fs::metadata(path)?.map_or(0, |found| found.len());
    if ends_with(name, "json") && bytes <= SHOWN {
        let text = fs::read_text(path)?;
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let pretty = serde_json::to_string_pretty(&value).unwrap_or_default();
        return Ok((format!("{title}: {}\n{pretty}\n", unit::bytes(bytes)), value));
    }
    Ok((format!("{title}: {}\n", unit::bytes(bytes)), json!({ "bytes": bytes })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_share_and_what_occurs_is_seen() {
        assert_eq!(blocks(&[0, 1, 4, 8, 1000]), " ▁▁▁█");
        assert_eq!(blocks(&[1, 2, 3, 4, 5, 6, 7, 8]), "▁▂▃▄▅▆▇█");
        assert_eq!(blocks(&[0, 0]), "  ");
        let few = drawn("cluster", &Shape::Counts(vec![(-1, 1), (0, 400)]));
        assert_eq!(few.lines().count(), 3);
        assert!(few.contains("      -1  █ ") && few.contains(&"█".repeat(40)), "{few}");
        let histogram = Shape::Histogram { low: -1.0, high: 0.5, counts: vec![1, 0, 2] };
        assert_eq!(drawn("similarity", &histogram), "  similarity: -1 ▄ █ 0.5000\n");
        let many = (0..30).map(|n| (n * 2, 1)).collect();
        assert_eq!(drawn("k", &Shape::Counts(many)).chars().filter(|c| *c == '█').count(), 30);
    }
}
