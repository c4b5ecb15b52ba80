//! `kinset methods`: what stages there are, and what their papers say.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::common::{Answer, Failure};
use super::terminal;
use crate::base::fault::{Diagnosis, Exit, Fault, nearest};
use crate::registry;
use crate::stage::{AnyStage, Arity, Limit};

/// List stages and methods, or describe one: paper, loss, settings, deviations
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset methods
  kinset methods scan")]
pub struct MethodsArgs {
    /// Describe this one
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A name that no stage has.
#[derive(Debug, thiserror::Error)]
#[error("unknown stage kind `{name}`")]
struct Unknown {
    name: String,
}

impl Fault for Unknown {
    fn diagnosis(&self) -> Diagnosis {
        let near = nearest(&self.name, registry::all().map(AnyStage::kind));
        Exit::Usage
            .code("methods::unknown")
            .hint(near.map_or_else(|| "`kinset methods` lists them".into(), |near| format!("did you mean `{near}`?")))
    }
}

pub(super) fn run(args: &MethodsArgs) -> Answer {
    if let Some(name) = &args.name {
        let stage = registry::find(name).ok_or_else(|| Failure::own(Unknown { name: name.clone() }))?;
        if args.json {
            terminal::print_json(&as_json(stage))?;
        } else {
            terminal::print(&card(stage))?;
        }
        return Ok(Exit::Done);
    }
    if args.json {
        terminal::print_json(&registry::all().map(as_json).collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let mut table = terminal::table(&["kind", "reads", "writes", "what it does"], &[]);
    for stage in registry::all() {
        table.add_row([stage.kind().to_owned(), reads(stage), writes(stage), stage.summary().to_owned()]);
    }
    terminal::print(&terminal::text(&table))?;
    terminal::say("\n`kinset methods NAME` describes one; methods with a paper: ");
    let papers: Vec<&str> = registry::all().filter(|stage| stage.card().is_some()).map(AnyStage::kind).collect();
    terminal::say(&papers.join(", "));
    Ok(Exit::Done)
}

fn reads(stage: &dyn AnyStage) -> String {
    let ports: Vec<String> = stage
        .ports()
        .iter()
        .map(|port| match port.arity {
            Arity::One => port.name.to_owned(),
            Arity::Optional => format!("[{}]", port.name),
            Arity::Many => format!("{}…", port.name),
            Arity::Any => format!("[{}…]", port.name),
            Arity::Either => format!("<{}>", port.name),
            Arity::EitherMany => format!("<{}…>", port.name),
        })
        .collect();
    if ports.is_empty() { "raw data".to_owned() } else { ports.join(", ") }
}

fn writes(stage: &dyn AnyStage) -> String {
    stage.outputs().iter().map(|output| output.name).collect::<Vec<_>>().join(", ")
}

fn as_json(stage: &dyn AnyStage) -> serde_json::Value {
    let card = stage.card().map(|card| {
        json!({
            "paper": card.paper, "reads": card.reads, "writes": card.writes, "idea": card.idea, "loss": card.loss,
            "selection": card.selection, "as_in_paper": card.as_in_paper, "unlike_paper": card.unlike_paper,
            "expect": card.expect,
        })
    });
    let ports: Vec<_> = stage
        .ports()
        .iter()
        .map(
            |port| json!({ "name": port.name, "artifact": port.artifact, "arity": format!("{:?}", port.arity).to_lowercase() }),
        )
        .collect();
    let outputs: Vec<_> = stage
        .outputs()
        .iter()
        .map(|output| json!({ "name": output.name, "artifact": output.artifact, "optional": output.optional }))
        .collect();
    let limits: BTreeMap<String, String> =
        stage.limits().into_iter().map(|(path, limit)| (path, format!("must {limit}"))).collect();
    json!({
        "kind": stage.kind(), "version": stage.version(), "summary": stage.summary(), "ports": ports, "outputs": outputs,
        "settings": stage.default_settings(), "limits": limits, "sign": card,
    })
}

/// The card of a stage, for people.
fn card(stage: &dyn AnyStage) -> String {
    let mut text = format!("{} (version {}): {}\n", stage.kind(), stage.version(), stage.summary());
    let width = terminal::width().clamp(60, 120);
    let mut part = |name: &str, body: &str| {
        text.push_str(&format!("\n{name}\n"));
        for line in wrapped(body, width - 2) {
            text.push_str(&format!("  {line}\n"));
        }
    };
    if let Some(card) = stage.card() {
        part("paper", card.paper);
        part("idea", card.idea);
        part("loss", card.loss);
        part("selection", card.selection);
        part("as in the paper", card.as_in_paper);
        part("unlike the paper", card.unlike_paper);
        part("expect", card.expect);
    }
    text.push_str("\nports\n");
    for port in stage.ports() {
        let arity = match port.arity {
            Arity::One => "",
            Arity::Optional => " (optional)",
            Arity::Many => " (a list)",
            Arity::Any => " (a list, optional)",
            Arity::Either => " (exactly one of these)",
            Arity::EitherMany => " (a list, exactly one of these)",
        };
        text.push_str(&format!("  {:<18} {}{arity}\n", port.name, port.artifact));
    }
    if stage.ports().is_empty() {
        text.push_str("  none: it reads raw data\n");
    }
    text.push_str("\noutputs\n");
    for (index, output) in stage.outputs().iter().enumerate() {
        let how = if index == 0 { " (the stage's bare name means this one)" } else { "" };
        text.push_str(&format!("  {:<18} {}{how}\n", output.name, output.artifact));
    }
    text.push_str("\nsettings and their defaults\n");
    let mut lines = Vec::new();
    flatten("", &stage.default_settings(), &stage.limits().into_iter().collect(), &mut lines);
    if lines.is_empty() {
        lines.push("none".to_owned());
    }
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn flatten(prefix: &str, value: &serde_json::Value, limits: &BTreeMap<String, Limit>, lines: &mut Vec<String>) {
    let shown = match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&path, value, limits, lines);
            }
            return;
        }
        serde_json::Value::Null => "(not set)".to_owned(),
        other => other.to_string(),
    };
    lines.push(match limits.get(prefix) {
        Some(limit) => format!("{prefix:<28} {shown:<12} must {limit}"),
        None => format!("{prefix:<28} {shown}"),
    });
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
