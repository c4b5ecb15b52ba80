//! `kinset gc`: deletion of results that nothing refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::args::{PipelineArgs, PlaceArgs};
use super::common::{Answer, Failure, outlook};
use super::terminal;
use crate::artifact::Artifact;
use crate::artifact::assignments::Assignments;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::{fs, unit};
use crate::dataset::names::Names;
use crate::pipeline::journal;
use crate::pipeline::state::State;
use crate::report::names;
use crate::store::Store;
use crate::store::gc::{Item, Policy};

/// List results that no named pipeline uses; delete them with --delete
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset gc pipelines/*.toml                 what no named pipeline uses any more
  kinset gc pipelines/*.toml --delete
  kinset gc --max-size 10GiB pipelines/*.toml")]
pub struct GcArgs {
    /// Pipelines whose results are kept
    #[arg(value_name = "PIPELINE")]
    pipelines: Vec<PathBuf>,
    /// Delete the results instead of listing them
    #[arg(long)]
    delete: bool,
    /// Keep unused results up to this store size, for example 10GiB; those cheapest to recompute are deleted first
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
    #[command(flatten)]
    places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A size that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not a size")]
struct NoSize {
    text: String,
}

impl Fault for NoSize {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("gc::size").hint("write a number and a unit, for example `500MiB` or `10GiB`")
    }
}

/// What an entry gives back. A record or a manifest by itself is too small to count; why a result gives back nothing, its reason says.
fn size(bytes: u64) -> String {
    if bytes == 0 { "–".to_owned() } else { unit::bytes(bytes) }
}

pub(super) fn run(args: &GcArgs) -> Answer {
    let max_size = match &args.max_size {
        None => None,
        Some(text) => Some(unit::parse_bytes(text).ok_or_else(|| Failure::own(NoSize { text: text.clone() }))?),
    };
    let (mut roots, mut files) = (BTreeMap::new(), BTreeSet::new());
    for pipeline in &args.pipelines {
        let pipeline = PipelineArgs {
            pipeline: pipeline.clone(),
            set: Vec::new(),
            profile: None,
            seed: None,
            device: None,
            places: args.places.clone(),
        };
        outlook(&pipeline, |spec, outlook| {
            for (node, state) in spec.nodes.iter().zip(outlook.states(&BTreeSet::new())) {
                if let State::Fresh { record, .. } = state {
                    roots.insert(record.key, format!("{}/{}", spec.name, node.name));
                }
            }
            let gives = |node: &usize| spec.nodes[*node].gives(Assignments::KIND);
            files.extend((0..spec.nodes.len()).filter(gives).map(|node| names::place(outlook, node)));
            Ok(())
        })?;
    }
    let store = if args.delete { Store::open(&args.places.artifacts)? } else { Store::open_existing(&args.places.artifacts)? };
    // Names of pipelines that were run here count as well: they cannot be computed again.
    let runs =
        fs::list(&args.places.artifacts)?.into_iter().filter_map(|folder| Some(folder.file_name()?.to_str()?.to_owned()));
    let pipelines = runs.filter_map(|name| journal::last_pipeline(&journal::runs_folder(&args.places.artifacts, &name)));
    files.extend(pipelines.map(|pipeline| names::beside(&pipeline)));
    for file in files {
        let Some(of) = Names::read(&file)?.of else { continue };
        for (key, ..) in store.outputs_of(Assignments::KIND, of)? {
            roots.entry(key).or_insert_with(|| format!("its clusters are named in {}", file.display()));
        }
    }
    let policy = Policy { roots, max_size, ..Policy::default() };
    let plan = if args.delete { store.gc(&policy)? } else { store.gc_plan(&policy)? };

    let described = |item: &Item| match item {
        Item::Result { key, kind } => ("result", format!("{kind} {}", key.short())),
        Item::Work { key } => ("checkpoints", key.short()),
        Item::Manifest { key, kind } => ("manifest", format!("{kind} {}", key.short())),
        Item::Blob { blob } => ("bytes", blob.short()),
    };
    if args.json {
        let victims: Vec<_> = plan
            .victims
            .iter()
            .map(|v| {
                let (word, name) = described(&v.item);
                json!({ "what": word, "name": name, "bytes": v.bytes, "seconds": v.seconds, "why": v.why })
            })
            .collect();
        terminal::print_json(&json!({
            "deleted": args.delete, "before": plan.before, "after": plan.after, "spared": plan.spared, "over": plan.over,
            "kept": plan.kept.len(), "victims": victims,
        }))?;
        return Ok(Exit::Done);
    }
    let mut table = terminal::table(&["what", "name", "size", "recompute", "reason"], &[2, 3]);
    for victim in &plan.victims {
        let (word, name) = described(&victim.item);
        let again = victim.seconds.map_or_else(String::new, |s| unit::duration(Duration::from_secs_f64(s.max(0.0))));
        table.add_row([word.to_owned(), name, size(victim.bytes), again, victim.why.clone()]);
    }
    if plan.victims.is_empty() {
        terminal::print("nothing to delete\n")?;
    } else {
        terminal::print(&terminal::text(&table))?;
    }
    // Two sizes of a large store may look alike: what becomes free is said by itself.
    let (before, freed) = (unit::bytes(plan.before), unit::bytes(plan.before.saturating_sub(plan.after)));
    terminal::say(&match (args.delete, plan.victims.is_empty()) {
        (_, true) => format!("\nthe store uses {before}"),
        (true, false) => format!("\nfreed {freed} of {before}"),
        (false, false) => format!("\n`--delete` would free {freed} of {before}; nothing was deleted"),
    });
    if plan.spared > 0 {
        terminal::say(&format!("{} are unused but less than an hour old, and are kept", unit::bytes(plan.spared)));
    }
    if plan.over > 0 {
        terminal::say(&format!("the results in use alone exceed the size limit by {}", unit::bytes(plan.over)));
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gives_back_nothing_has_no_size() {
        assert_eq!([size(0), size(2048)], ["–", "2.00 KiB"]);
    }
}
