//! `kinset explain`: why a stage would run.

use clap::Args;
use serde_json::json;

use super::args::PipelineArgs;
use super::common::{Answer, outlook};
use super::plan::words;
use super::terminal;
use crate::base::fault::Exit;
use crate::pipeline::graph::{self, Selection};
use crate::pipeline::state::{State, Why};

/// Show why a stage would run: every field that differs, old and new
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kinset explain pipelines/fashion-mini.toml cluster --set stage.neighbors.k=10")]
pub struct ExplainArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage
    stage: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExplainArgs) -> Answer {
    outlook(&args.pipeline, |spec, outlook| {
        let only = Selection { only: vec![args.stage.clone()], ..Selection::default() };
        let chosen = graph::select(spec, &only)?.nodes;
        let states = outlook.states(&std::collections::BTreeSet::new());
        let (mut answers, mut text) = (Vec::new(), String::new());
        for index in chosen {
            let (node, state) = (&spec.nodes[index], &states[index]);
            let (word, why, key) = words(state);
            let differences: Vec<_> = match state {
                State::Stale { why: Why::Changed(differences), .. } => differences.clone(),
                _ => Vec::new(),
            };
            text.push_str(&format!("{} ({}) {word}{}\n", node.name, node.kind, if why.is_empty() { "" } else { ":" }));
            if differences.is_empty() {
                if !why.is_empty() {
                    text.push_str(&format!("  {why}\n"));
                }
            } else {
                for difference in &differences {
                    let from = difference.port().and_then(|port| {
                        let reference = node.ports.get(port)?.first()?;
                        Some(format!("   (from `{}`)", spec.reference(reference)))
                    });
                    text.push_str(&format!("  {difference}{}\n", from.unwrap_or_default()));
                }
            }
            if let State::Fresh { record, .. } = state {
                text.push_str(&format!("  its result is up to date; key {}\n", record.key.short()));
            }
            answers.push(json!({
                "stage": node.name, "kind": node.kind, "state": word, "why": why, "key": key,
                "differences": differences
                    .iter()
                    .map(|d| json!({ "field": d.path, "old": d.old, "new": d.new }))
                    .collect::<Vec<_>>(),
            }));
        }
        if args.json {
            terminal::print_json(&answers)?;
        } else {
            terminal::print(&text)?;
        }
        Ok(Exit::Done)
    })
}
