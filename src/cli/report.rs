//! `kinset report`: the results of a pipeline as one page.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use clap::Args;

use super::args::PipelineArgs;
use super::common::{Answer, not_an_input, outlook};
use super::terminal;
use crate::base::fault::{Exit, chain};
use crate::base::unit;
use crate::pipeline::state::{Known, Outlook};
use crate::report::error::ReportError;
use crate::report::file;
use crate::report::gather::{Elsewhere, Glance};

/// Write a report as one self-contained HTML file: scores, clusters with images, curves, a feature map
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset report pipelines/fashion-mini.toml
  kinset report pipelines/fashion-mini.toml --out fashion.html
  kinset report pipelines/fashion-mini.toml --json | jq .scores")]
pub struct ReportArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Where to write the page [default: report.html in the pipeline's folder of the artifacts]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Show the assignments of this stage, or of this classifier [default: those of the last stage that predicts]
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Print the content of the report as JSON instead of writing it
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReportArgs) -> Answer {
    outlook(&args.pipeline, |spec, outlook| {
        let glance = Glance::at(outlook, args.stage.as_deref());
        if glance.is_blank() {
            let pipeline = args.pipeline.pipeline.display().to_string();
            let artifacts = args.pipeline.places.artifacts.display().to_string();
            return Err(ReportError::NoResults { pipeline, artifacts }.into());
        }
        if args.json {
            terminal::print_json(&glance.gather())?;
            say_damage(&glance);
            return Ok(Exit::Done);
        }
        let path = args.out.clone().unwrap_or_else(|| file::place(&args.pipeline.places.artifacts, &spec.name));
        not_an_input(&path, &args.pipeline, outlook)?;
        let bytes = file::write(&glance, &path)?;
        say_damage(&glance);
        terminal::print_data(&path.display().to_string())?;
        terminal::say(&format!("one page of {}; it opens without a network", unit::bytes(bytes as u64)));
        Ok(Exit::Done)
    })
}

/// Says what the report lacks because it is damaged.
fn say_damage(glance: &Glance<'_>) {
    for damaged in glance.damaged() {
        terminal::say(&format!("warning: {damaged}; `kinset verify --repair` removes it, the next run computes it again"));
    }
}

/// Writes the report at the end of a run with these results, if it says anything new. Whatever goes wrong here, the results stand.
/// `elsewhere` finds pictures of features that were brought along.
pub(super) fn after_run(outlook: &Outlook<'_>, known: &Known, path: PathBuf, elsewhere: Elsewhere<'_>) -> Option<PathBuf> {
    let written = catch_unwind(AssertUnwindSafe(|| {
        let glance = Glance::after(outlook, known).with_pictures(elsewhere);
        // Nothing has a result: a page that is there says more.
        if glance.is_blank() {
            return Ok(false);
        }
        file::refresh(&glance, &path).map(|()| true)
    }));
    match written {
        Ok(Ok(there)) => there.then_some(path),
        Ok(Err(error)) => {
            terminal::say(&format!("warning: no report: {}; the results are not touched by this", chain(&error)));
            None
        }
        Err(_) => {
            terminal::say(
                "warning: no report: making it failed, which is a bug in kinset; the results are not touched by this",
            );
            None
        }
    }
}
