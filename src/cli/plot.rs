//! `kinset plot`: one drawing of a pipeline's results, for a paper.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::PipelineArgs;
use super::common::{Answer, Failure, not_an_input, outlook};
use super::terminal;
use crate::base::fault::Exit;
use crate::base::output;
use crate::report::album::Album;
use crate::report::error::ReportError;
use crate::report::gather::Glance;
use crate::report::plot::Plot;

/// What can be drawn alone.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PlotWhat {
    /// Classes against clusters; rows sum to 1
    Confusion,
    /// An image for each cluster
    Prototypes,
    /// Confidence against accuracy
    Calibration,
}

/// Draw one figure for a paper: confusion matrix, prototypes, calibration
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset plot pipelines/fashion-mini.toml confusion
  kinset plot pipelines/fashion-mini.toml confusion --stage kmeans_features --out kmeans.svg
  kinset plot pipelines/fashion-mini.toml prototypes --out prototypes.png
  kinset plot pipelines/fashion-mini.toml calibration")]
pub struct PlotArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// What to draw
    #[arg(value_enum, value_name = "WHAT")]
    what: PlotWhat,
    /// The stage: for confusion one that was evaluated, else one that predicts or its classifier
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Where to write it: FILE.svg, for prototypes also FILE.png [default: confusion_matrix.svg, prototypes.svg or calibration.svg in the
    /// pipeline's folder of the artifacts]
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &PlotArgs) -> Answer {
    let plot = match args.what {
        PlotWhat::Confusion => Plot::Confusion,
        PlotWhat::Prototypes => Plot::Prototypes,
        PlotWhat::Calibration => Plot::Calibration,
    };
    outlook(&args.pipeline, |spec, outlook| {
        let folder = args.pipeline.places.artifacts.join(&spec.name);
        let path = args.out.clone().unwrap_or_else(|| folder.join(format!("{}.svg", plot.stem())));
        not_an_input(&path, &args.pipeline, outlook)?;
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        // A stage that is measured need not be one whose assignments are shown.
        let asked = args.stage.as_deref().filter(|_| plot != Plot::Confusion);
        let glance = Glance::at(outlook, asked);
        let page = glance.gather_without_map();
        let images = glance.images().filter(|_| plot == Plot::Prototypes);
        let album = Album::of(&page, images.as_ref(), |_| None);
        let drawing = plot.draw(&page, &album, &ending, args.stage.as_deref())?;
        output::write(&path, &drawing.bytes)?;
        terminal::print_data(&path.display().to_string())?;
        Ok(Exit::Done)
    })
}

impl From<ReportError> for Failure {
    fn from(fault: ReportError) -> Self {
        Self::own(fault)
    }
}
