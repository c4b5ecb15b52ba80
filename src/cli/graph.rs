//! `kinset graph`: the stages as a drawing.

use clap::{Args, ValueEnum};

use super::args::PipelineArgs;
use super::common::{Answer, outlook};
use super::terminal;
use crate::base::fault::Exit;
use crate::pipeline::graph::{self, State as Drawn};
use crate::pipeline::state::State;

/// How to draw.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum GraphFormat {
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
}

/// Draw the stages as a graph
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset graph pipelines/fashion-mini.toml                      mermaid, for Markdown
  kinset graph pipelines/fashion-mini.toml --format dot | dot -Tsvg > graph.svg")]
pub struct GraphArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Output format
    #[arg(long, value_enum, default_value = "mermaid")]
    format: GraphFormat,
}

pub(super) fn run(args: &GraphArgs) -> Answer {
    outlook(&args.pipeline, |spec, outlook| {
        let states: Vec<Drawn> = outlook
            .states(&std::collections::BTreeSet::new())
            .iter()
            .map(|state| match state {
                State::Fresh { .. } => Drawn { word: "fresh".into(), work: false },
                State::Stale { .. } => Drawn { word: "to run".into(), work: true },
                State::Waits { .. } => Drawn { word: "waits".into(), work: true },
                State::Broken { .. } => Drawn { word: "broken".into(), work: true },
            })
            .collect();
        terminal::print_data(&match args.format {
            GraphFormat::Mermaid => graph::mermaid(spec, &states),
            GraphFormat::Dot => graph::dot(spec, &states),
        })?;
        Ok(Exit::Done)
    })
}
