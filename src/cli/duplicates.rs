//! `kinset duplicates`: what repeats, and what a test set shares with a pool.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::args::PipelineArgs;
use super::common::{Answer, Failure, Held, known, not_an_input, outlook, stored};
use super::near_images::Near;
use super::{export_tables, odd_images, terminal};
use crate::artifact::Artifact;
use crate::artifact::duplicates::{DuplicateTable, Duplicates};
use crate::artifact::near_duplicates::NearDuplicates;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::{output, unit};
use crate::pipeline::spec::Spec;
use crate::pipeline::state::Outlook;
use crate::report::lines::Form;

/// Show near-duplicates: what repeats in a set, and which images of test sets are in the pool
#[derive(Debug, Args)]
#[command(after_help = "\
Reads what stages of the kinds `near_duplicates` (features: a pool, a target, test sets) and
`duplicates` (the images of one source) have found. It exits with 0 whatever they found.

Examples:
  kinset duplicates pool.toml                          what was found, and the first of it
  kinset duplicates pool.toml near --shared leaks.csv  test images with a near copy in the pool
  kinset duplicates pool.toml near --output groups.csv all groups, the image to keep first")]
pub struct DuplicatesArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage [default: all that look for duplicates]
    stage: Option<String>,
    /// Lines to show of each list
    #[arg(long, value_name = "N", default_value_t = 10)]
    rows: usize,
    /// Write the groups to FILE.csv or FILE.jsonl: images of a group one after the other, the one to keep first
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write what sets share to FILE.csv or FILE.jsonl: images with a near copy in an earlier set
    #[arg(long, value_name = "FILE")]
    shared: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const KINDS: [&str; 2] = [NearDuplicates::KIND, Duplicates::KIND];

/// Why nothing is shown.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("`{pipeline}` has no stage that looks for duplicates")]
    None { pipeline: String },
    #[error("which stage of `{pipeline}`? {stages} look for duplicates")]
    Which { pipeline: String, stages: String },
    #[error("cannot write duplicates to `{path}`: expected a CSV or JSON lines file")]
    Ending { path: String },
    #[error("`{stage}` looks at one set of images, which shares nothing with others")]
    OneSet { stage: String },
}

impl Fault for Trouble {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::None { .. } => Exit::Usage
                .code("duplicates::no-stage")
                .hint("add one: `kind = \"near_duplicates\"` with `pool = [\"features\"]`; `pipelines/similar.toml` has one"),
            Self::Which { .. } => {
                Exit::Usage.code("duplicates::which-stage").hint("name one: kinset duplicates PIPELINE STAGE")
            }
            Self::Ending { .. } => Exit::Usage.code("duplicates::ending").hint("end the name in `.csv` or `.jsonl`"),
            Self::OneSet { .. } => Exit::Usage
                .code("duplicates::one-set")
                .hint("name a stage of the kind `near_duplicates` with `target` or `held_out`"),
        }
    }
}

/// What one stage found.
struct Found {
    said: Vec<String>,
    tables: Vec<String>,
    told: Value,
    /// Lines of the files that were asked for.
    groups: Option<String>,
    shared: Option<String>,
}

pub(super) fn run(args: &DuplicatesArgs) -> Answer {
    let mut told = Vec::new();
    let found = outlook(&args.pipeline, |spec, outlook| {
        for place in [&args.output, &args.shared].into_iter().flatten() {
            not_an_input(place, &args.pipeline, outlook)?;
        }
        let stages = stages(args, spec)?;
        let look = |stage: &String| look(args, spec, outlook, stage);
        stages.iter().map(look).collect::<Result<Vec<_>, _>>()
    })?;
    for found in found {
        if !args.json {
            terminal::print(&format!("{}\n", found.said.join("\n")))?;
            found.tables.iter().try_for_each(|table| terminal::print(&format!("\n{table}")))?;
        }
        for (place, lines) in [(&args.output, &found.groups), (&args.shared, &found.shared)] {
            if let (Some(place), Some(lines)) = (place, lines) {
                output::write(place, lines.as_bytes())?;
                terminal::say(&format!("written: {}", place.display()));
            }
        }
        told.push(found.told);
    }
    if args.json {
        terminal::print_json(&json!({ "stages": told }))?;
    }
    Ok(Exit::Done)
}

/// The stage that was named, or all that look for duplicates.
fn stages(args: &DuplicatesArgs, spec: &Spec) -> Result<Vec<String>, Failure> {
    if let Some(stage) = &args.stage {
        return Ok(vec![stage.clone()]);
    }
    let looking = spec.nodes.iter().filter(|node| KINDS.iter().any(|kind| node.gives(kind)));
    let mut stages: Vec<String> = looking.map(|node| node.name.clone()).collect();
    let pipeline = args.pipeline.pipeline.display().to_string();
    if stages.is_empty() {
        return Err(Failure::own(Trouble::None { pipeline }));
    }
    if args.shared.is_some() {
        stages.retain(|stage| spec.node(stage).is_some_and(|node| node.gives(NearDuplicates::KIND)));
    }
    if stages.len() != 1 && (args.output.is_some() || args.shared.is_some()) {
        let stages = stages.iter().map(|stage| format!("`{stage}`")).collect::<Vec<_>>().join(", ");
        let stages = if stages.is_empty() { "none of its stages".to_owned() } else { stages };
        return Err(Failure::own(Trouble::Which { pipeline, stages }));
    }
    Ok(stages)
}

fn form(place: Option<&Path>) -> Result<Option<Form>, Failure> {
    let Some(place) = place else { return Ok(None) };
    match export_tables::ending(place).as_deref() {
        Some("csv") => Ok(Some(Form::Csv)),
        Some("jsonl" | "ndjson") => Ok(Some(Form::JsonLines)),
        _ => Err(Failure::own(Trouble::Ending { path: place.display().to_string() })),
    }
}

fn look(args: &DuplicatesArgs, spec: &Spec, outlook: &Outlook<'_>, stage: &str) -> Result<Found, Failure> {
    let (groups, shared) = (form(args.output.as_deref())?, form(args.shared.as_deref())?);
    let held = stored(spec, outlook, stage, &KINDS)?;
    if held.kind == Duplicates::KIND {
        return one_set(args, outlook, &held, groups);
    }
    let near = Near::of(&held.typed(), held.node, (spec, outlook.store, &known(outlook)))?;
    let summary = near.summary();
    let said = near.told().into_iter().map(|line| format!("{stage}: {line}")).collect();
    let mut tables = Vec::new();
    let more = |all: usize| {
        if all > args.rows { format!("… and {} more\n", unit::count((all - args.rows) as u64)) } else { String::new() }
    };
    if !near.table.shared.is_empty() {
        let mut table = terminal::table(&["image of", "", "in", "most similar", "similarity", "copies"], &[4, 5]);
        for at in near.table.by_weight().into_iter().take(args.rows) {
            let (copy, (image, other)) = (&near.table.shared[at], near.copy(at));
            let called = |set: u32| near.called[set as usize].clone();
            table.add_row(vec![
                called(copy.set),
                image.to_owned(),
                called(copy.other),
                other.to_owned(),
                format!("{:.4}", copy.similarity),
                unit::count(u64::from(copy.copies)),
            ]);
        }
        tables.push(format!("{}\n{}", terminal::text(&table), more(near.table.shared.len())));
    }
    if summary.groups > 0 {
        let members = &near.table.members;
        let mut begins: Vec<(usize, usize)> = Vec::new();
        members.chunk_by(|a, b| a.group == b.group).fold(0, |begin, group| {
            begins.push((begin, group.len()));
            begin + group.len()
        });
        begins.sort_by_key(|(begin, size)| (std::cmp::Reverse(*size), *begin));
        let mut table = terminal::table(&["group", "images", "kept", "least similar"], &[0, 1, 3]);
        for &(begin, size) in begins.iter().take(args.rows) {
            let least = members[begin..begin + size].iter().map(|member| member.similarity).fold(1.0, f32::min);
            table.add_row(vec![
                members[begin].group.to_string(),
                unit::count(size as u64),
                near.member(begin).to_owned(),
                format!("{least:.4}"),
            ]);
        }
        tables.push(format!("{}\n{}", terminal::text(&table), more(begins.len())));
    }
    let told = json!({ "stage": stage, "kind": held.kind, "said": near.told(), "summary": summary });
    let (groups, shared) = (groups.map(|form| near.groups(form).0), shared.map(|form| near.shared(form).0));
    Ok(Found { said, tables, told, groups, shared })
}

/// Duplicates among the images of one source.
fn one_set(args: &DuplicatesArgs, outlook: &Outlook<'_>, held: &Held, form: Option<Form>) -> Result<Found, Failure> {
    let stage = held.stage.clone();
    if args.shared.is_some() {
        return Err(Failure::own(Trouble::OneSet { stage }));
    }
    let table = DuplicateTable::load(&held.typed())?;
    let groups = table.groups();
    let repeats: usize = groups.iter().map(|group| group.len() - 1).sum();
    let word = if repeats == 1 { "repeats another" } else { "repeat others" };
    let images = unit::counted(table.len() as u64, "image");
    let said = format!(
        "{stage}: {} of {images} {word}, in {}",
        unit::count(repeats as u64),
        unit::counted(groups.len() as u64, "group")
    );
    let told = json!({
        "stage": stage, "kind": held.kind, "said": [said],
        "summary": { "images": table.len(), "repeats": repeats, "groups": groups.len(), "least": table.least, "by": table.by },
    });
    let lines = |form| Ok::<_, Failure>(odd_images::lines(held, outlook, form)?.0);
    Ok(Found { said: vec![said], tables: Vec::new(), told, groups: form.map(lines).transpose()?, shared: None })
}
