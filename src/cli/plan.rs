//! `kinset plan`: what would run, and why.

use clap::Args;
use serde_json::json;

use super::args::{ClusterArgs, PipelineArgs, SelectArgs};
use super::cluster::Where;
use super::common::{Answer, outlook_at, selection};
use super::expected::Forecast;
use super::terminal;
use crate::base::fault::{Exit, Fault, chain};
use crate::dataset::{self, Source};
use crate::pipeline::dispatch::rules::Executor;
use crate::pipeline::spec::Node;
use crate::pipeline::state::{Outlook, State};

/// Show what `run` would do, and why; exit code 10 if there is work
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset plan pipelines/fashion-mini.toml
  kinset plan pipelines/fashion-mini.toml --set stage.cluster.epochs=50 --json")]
pub struct PlanArgs {
    #[command(flatten)]
    pub(super) pipeline: PipelineArgs,
    #[command(flatten)]
    pub(super) select: SelectArgs,
    #[command(flatten)]
    pub(super) cluster: ClusterArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &PlanArgs) -> Answer {
    let Where { executor, rules, .. } = Where::of(&args.cluster, &args.pipeline.pipeline)?;
    let here = executor == Executor::Here;
    let rules = if let Executor::Local(_) = executor { rules.on_this_machine() } else { rules };
    outlook_at(&args.pipeline, &args.cluster, |spec, outlook| {
        let selected = selection(spec, &args.select)?;
        let states = outlook.states(&selected.forced);
        let (mut work, mut broken) = (0, None);
        let mut rows = Vec::new();
        let mut table = terminal::table(&["stage", "kind", "state", "why"], &[]);
        for &index in &spec.order {
            if !selected.nodes.contains(&index) {
                continue;
            }
            // What is known to fail need not be tried.
            let refused = outlook.refusal(&states, index).map(|error| State::Broken { error: error.into() });
            let (node, state) = (&spec.nodes[index], refused.as_ref().unwrap_or(&states[index]));
            let (word, mut why, key) = words(state);
            let works = matches!(state, State::Stale { .. } | State::Waits { .. });
            let parts = if here || !works { 1 } else { rules.shares(node, outlook.registry) };
            if parts > 1 {
                why.push_str(&format!("; in {parts} parts"));
            }
            match state {
                State::Fresh { .. } => {}
                State::Stale { .. } | State::Waits { .. } => work += 1,
                State::Broken { error } => broken = broken.or(Some(error.exit())),
            }
            table.add_row([node.name.as_str(), node.kind.as_str(), word, why.as_str()]);
            let device = outlook.stage(node)?.on_device().then(|| outlook.devices.class(&node.name));
            rows.push(json!({
                "stage": node.name, "kind": node.kind, "state": word, "why": why, "key": key, "device": device,
                "parts": (parts > 1).then_some(parts),
            }));
        }
        // Of other machines nothing is known.
        let forecast = here.then(|| Forecast::of(outlook, &states, &selected, |source| files_of(outlook, source)));
        if args.json {
            let known = forecast.filter(|forecast| work > 0 && forecast.unknown.is_empty());
            let seconds = known.map(|Forecast { all, .. }| [all.low, all.high]);
            terminal::print_json(&json!({ "pipeline": spec.name, "work": work, "seconds": seconds, "stages": rows }))?;
        } else {
            terminal::print(&terminal::text(&table))?;
            let total = rows.len();
            let time = forecast.and_then(|forecast| forecast.told()).map(|told| format!(", {told}")).unwrap_or_default();
            terminal::say(&match work {
                0 if broken.is_none() => format!("\nnothing to do: {total} of {total} stages are fresh"),
                _ => format!("\n{work} of {total} stages have work{time}"),
            });
        }
        Ok(broken.unwrap_or(if work > 0 { Exit::Work } else { Exit::Done }))
    })
}

/// How many images a source will give, where each is a file of its own.
fn files_of(outlook: &Outlook<'_>, source: &Node) -> Option<usize> {
    let settings: Source = serde_json::from_value(source.settings.clone()).ok()?;
    if settings.dataset != "folder" {
        return None;
    }
    let files = dataset::locate(&settings, outlook.places).ok()?.files.len();
    Some(settings.limit.map_or(files, |limit| files.min(limit)))
}

/// A state in words: word, why, key.
pub(super) fn words(state: &State) -> (&'static str, String, Option<String>) {
    match state {
        State::Fresh { record, .. } => ("fresh", String::new(), Some(record.key.hex())),
        State::Stale { key, why } => ("runs", why.to_string(), Some(key.hex())),
        State::Waits { on } => ("waits", format!("for {}; runs if its inputs change", on.join(", ")), None),
        State::Broken { error } => {
            let hint = error.hint().map(|hint| format!(" (hint: {hint})")).unwrap_or_default();
            ("broken", format!("{}{hint}", chain(error)), None)
        }
    }
}
