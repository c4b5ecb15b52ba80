//! `kinset status`: what each stage last gave, and whether it still holds.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::common::{Answer, looked_in, outlook_at, selection};
use super::plan::{PlanArgs, words};
use super::run::score_tables;
use super::terminal;
use crate::base::fault::Exit;
use crate::base::{clock, unit};
use crate::pipeline::state::{Known, State};
use crate::store::Record;

/// Show the latest result of each stage, and whether it is up to date
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  kinset status pipelines/fashion-mini.toml")]
pub struct StatusArgs {
    #[command(flatten)]
    plan: PlanArgs,
}

pub(super) fn run(StatusArgs { plan: args }: &StatusArgs) -> Answer {
    outlook_at(&args.pipeline, &args.cluster, |spec, outlook| {
        let selected = selection(spec, &args.select)?;
        let states = outlook.states(&selected.forced);
        // A run that was killed between a result and its table of scores left that of an earlier one; whoever asks where results lie
        // reads it next.
        let shown = |index: usize, record: &Record| {
            let view = outlook.store.view(&spec.name, &spec.nodes[index].name);
            view.is_ok_and(|view| view.is_some_and(|view| view.key == record.key))
        };
        let fresh = states.iter().enumerate().filter_map(|(index, state)| match state {
            State::Fresh { record, .. } if shown(index, record) => Some((index, (**record).clone())),
            _ => None,
        });
        let known: Known = fresh.collect();
        if let Err(failure) = score_tables(spec, outlook.store, &known) {
            terminal::say(&format!("warning: {}", failure.in_words()));
        }
        let mut rows = Vec::new();
        let mut table = terminal::table(&["stage", "state", "size", "took", "finished", "where"], &[2, 3]);
        for &index in &spec.order {
            if !selected.nodes.contains(&index) {
                continue;
            }
            let (node, state) = (&spec.nodes[index], &states[index]);
            let (word, why, key) = words(state);
            let folder = outlook.store.view_path(&spec.name, &node.name)?;
            let view = folder.is_dir().then(|| folder.display().to_string());
            if let State::Fresh { record, .. } = state {
                table.add_row([
                    node.name.clone(),
                    word.to_owned(),
                    unit::bytes(record.bytes()),
                    unit::duration(Duration::from_secs_f64(record.seconds.max(0.0))),
                    clock::stamp(record.finished),
                    view.clone().unwrap_or_default(),
                ]);
                rows.push(json!({
                    "stage": node.name, "kind": node.kind, "state": word, "key": key, "bytes": record.bytes(),
                    "seconds": record.seconds, "finished": record.finished, "folder": view, "outputs": record.outputs,
                }));
            } else {
                let none = String::new;
                table.add_row([node.name.clone(), format!("{word}: {why}"), none(), none(), none(), none()]);
                rows.push(
                    json!({ "stage": node.name, "kind": node.kind, "state": word, "why": why, "key": key, "folder": view }),
                );
            }
        }
        if args.json {
            terminal::print_json(&json!({ "pipeline": spec.name, "stages": rows }))?;
        } else {
            terminal::print(&terminal::text(&table))?;
            if !states.iter().any(|state| matches!(state, State::Fresh { .. })) {
                let folder = looked_in(outlook);
                terminal::say(&format!("\nno stage has a result in `{folder}`; `--artifacts DIR` names another folder"));
            }
        }
        Ok(Exit::Done)
    })
}
