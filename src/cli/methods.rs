//! `kinset methods`: what stages there are, and what their papers say.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::common::{Answer, Failure};
use super::terminal;
use crate::base::fault::{Diagnosis, Exit, Fault, nearest};
use crate::registry;
use crate::stage::{AnyStage, Arity};

/// List stages and methods, or describe one: paper, loss, every setting, deviations
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

fn as_json(stage: &dyn AnyStage) -> Value {
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
        "settings": stage.default_settings(), "limits": limits, "schema": stage.schema(), "sign": card,
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
    text.push_str("\nsettings: the default, what else may be set, what it means\n");
    let mut lines = Vec::new();
    settings("", &stage.schema(), &stage.default_settings(), width, &mut lines);
    if lines.is_empty() {
        lines.push("none".to_owned());
    }
    for line in lines {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// Every setting of a table, by its dotted path, from the table's schema; `defaults` tells which tables are not set.
fn settings(above: &str, table: &Value, defaults: &Value, width: usize, lines: &mut Vec<String>) {
    for (name, setting) in table["properties"].as_object().into_iter().flatten() {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let explain = |indent: usize, text: &str, lines: &mut Vec<String>| {
            let indent = " ".repeat(indent);
            lines.extend(wrapped(text, width - 2 - indent.len()).into_iter().map(|line| format!("{indent}{line}")));
        };
        let document = setting["description"].as_str().unwrap_or_default();
        let inner = &defaults[name];
        if setting["properties"].is_object() {
            let end = if inner.is_null() { " (not set)" } else { "" };
            lines.push(format!("{path}: a table{end}"));
            explain(6, document, lines);
            settings(&path, setting, inner, width, lines);
        } else if let Some(kinds) = tables(setting) {
            lines.push(format!("{path}: a table"));
            explain(6, document, lines);
            for (kind, table) in &kinds {
                let document = table["description"].as_str().unwrap_or_default();
                let end = if table["required"].is_null() { " The default, see below." } else { "" };
                explain(6, &format!("with kind = {kind}: {document}{end}"), lines);
                if !table["required"].is_null() {
                    let others = table["properties"].as_object().into_iter().flatten().filter(|(name, _)| *name != "kind");
                    let others: Vec<String> = others.map(|(name, setting)| assigned(name, setting)).collect();
                    explain(10, &others.join(", "), lines);
                }
            }
            for (_, table) in kinds.iter().filter(|(_, table)| table["required"].is_null()) {
                settings(&path, table, inner, width, lines);
            }
        } else if setting["const"].is_null() {
            let needed = table["required"].as_array().is_some_and(|needed| needed.contains(&json!(name)));
            let left = if needed { format!("{path} (to be given)") } else { assigned(&path, setting) };
            let right = takes(setting);
            if right.len() > 60 {
                lines.push(left);
                explain(6, &format!("One of {right}."), lines);
            } else {
                lines.push(format!("{left:<34} {right}").trim_end().to_owned());
            }
            explain(6, document, lines);
            for (choice, document) in choices(setting) {
                if let Some(document) = document {
                    explain(10, &format!("{choice}: {document}"), lines);
                }
            }
        }
    }
}

/// A setting as it stands in a file, with its default.
fn assigned(name: &str, setting: &Value) -> String {
    match &setting["default"] {
        Value::Null => format!("{name} (not set)"),
        default => format!("{name} = {}", in_toml(default)),
    }
}

fn in_toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(in_toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The tables that a setting chooses from by their `kind`.
fn tables(setting: &Value) -> Option<Vec<(&Value, &Value)>> {
    let kinds = setting["oneOf"].as_array()?.iter().map(|table| (&table["properties"]["kind"]["const"], table));
    kinds.map(|(kind, table)| kind.is_string().then_some((kind, table))).collect()
}

/// The words that a setting chooses from, with their meaning where it is not plain.
fn choices(setting: &Value) -> Vec<(&Value, Option<&str>)> {
    let ways = setting["oneOf"].as_array().map_or_else(|| vec![setting], |ways| ways.iter().collect());
    let mut found = Vec::new();
    for way in ways {
        found.extend(way["enum"].as_array().into_iter().flatten().map(|word| (word, None)));
        if way["const"].is_string() {
            found.push((&way["const"], way["description"].as_str()));
        }
    }
    found
}

/// What values a setting takes.
fn takes(setting: &Value) -> String {
    let words = choices(setting);
    if !words.is_empty() {
        return words.iter().map(|(word, _)| word.to_string()).collect::<Vec<_>>().join(", ");
    }
    let kind = match setting["type"].as_str() {
        Some("string") => "text",
        Some("boolean") => "true or false",
        Some("array") => {
            let each = takes(&setting["items"]);
            let (kind, range) =
                each.split_once(',').map_or((each.as_str(), String::new()), |(kind, range)| (kind, format!(",{range}")));
            return match setting["minItems"].as_u64() {
                Some(2) => format!("[{kind}, {kind}]{range}"),
                _ => format!("list of: {each}"),
            };
        }
        Some(kind) => kind,
        None => "",
    };
    let of = |name: &str| setting[name].as_f64();
    let range = match (of("minimum"), of("maximum"), of("exclusiveMinimum"), of("exclusiveMaximum")) {
        (Some(low), Some(high), ..) => format!(", {low} to {high}"),
        (Some(low), None, _, Some(end)) => format!(", {low} to below {end}"),
        (_, _, Some(end), _) => format!(", above {end}"),
        (Some(low), ..) => format!(", at least {low}"),
        _ => String::new(),
    };
    format!("{kind}{range}")
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
