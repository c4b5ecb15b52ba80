//! The run of the pipeline behind the command, and its summary.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::args::SimilarArgs;
use super::attributes;
use super::export::{self, Placed};
use super::materialize::Pictures;
use super::plan;
use crate::artifact::features::{FeatureTable, Features};
use crate::artifact::matches::{MatchTable, Matches};
use crate::artifact::selection::{Selection, SelectionTable};
use crate::artifact::{Artifact, Stored};
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::base::output;
use crate::base::search_path::DataPaths;
use crate::builtin::similar::shards::Shards;
use crate::builtin::similar::stage::stem;
use crate::cli::common::{Answer, Failure, device_of};
use crate::cli::report;
use crate::cli::run::stop_on_signals;
use crate::cli::terminal::{self, Screen};
use crate::dataset::vectors::attributes::Attributes;
use crate::dataset::vectors::byte_of;
use crate::math::curate::choose::Edge;
use crate::pipeline::error::RunError;
use crate::pipeline::event::{Listener, Tell};
use crate::pipeline::journal::{Journal, runs_folder};
use crate::pipeline::run::{self, Options, Summary};
use crate::pipeline::spec::{self, Request, Spec};
use crate::pipeline::state::{self, Outlook};
use crate::registry;
use crate::report::gather::{Elsewhere, Finder};
use crate::store::Store;

/// Names that are shown of a long list.
const SHOWN: usize = 3;

/// A flag that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct Unfit {
    what: String,
    hint: String,
}

impl Fault for Unfit {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("similar::flags").hint(self.hint.clone())
    }
}

pub(in crate::cli) fn run(args: &SimilarArgs) -> Answer {
    check(args)?;
    let pictures = args.near_db.as_deref().map(Pictures::open).transpose()?;
    spare(args)?;
    let path = args.save_dir.join(plan::FILE);
    let text = plan::write(args)?;
    output::write(&path, text.as_bytes())?;
    let spec = spec::check(&path, &text, &Request::default(), &registry::catalog())?;
    let artifacts = args.artifacts.clone().unwrap_or_else(|| args.save_dir.join("artifacts"));
    let store = Store::open(&artifacts)?;
    let summary = work(args, &spec, &store, &artifacts)?;
    if summary.exit() != Exit::Done {
        if summary.exit() == Exit::Stopped {
            terminal::say("\nstopped; the same command resumes from here");
        }
        return Ok(summary.exit());
    }
    let rows = export(args, &spec, &store, &summary, pictures.as_ref())?;
    let page = if args.no_report { None } else { page(args, &spec, &store, &summary, pictures.as_ref())? };
    let page = page.map(|path| path.display().to_string());
    if args.json {
        terminal::print_json(
            &json!({ "save_dir": args.save_dir.display().to_string(), "seconds": summary.seconds, "nn": rows, "report": page }),
        )?;
    } else {
        terminal::print(&table(&rows))?;
        terminal::say(&format!("\nlists, tables and report.json are in {}", args.save_dir.display()));
        if let Some(page) = page {
            terminal::say(&format!("report: {page}"));
        }
    }
    Ok(Exit::Done)
}

/// Writes the page that shows the selections, with pictures where it is known where they lie.
fn page(
    args: &SimilarArgs,
    spec: &Spec,
    store: &Store,
    summary: &Summary,
    pool: Option<&Pictures>,
) -> Result<Option<PathBuf>, Failure> {
    // The fork asks for this folder and reads nothing from it, so what is typed there may be anything.
    let target = args.target_db.as_deref().and_then(|folder| {
        let opened = Pictures::open(folder);
        opened.map_err(|error| terminal::say(&format!("warning: no images of the target: {error}: {}", error.source))).ok()
    });
    let finder = |pictures: &'_ Pictures, name: &str| pictures.find(name).ok().and_then(|found| found.image);
    let places = DataPaths::new("", None, None);
    let outlook = Outlook { spec, registry: registry::catalog(), store, places: &places, devices: device_of(spec)?.1 };
    let elsewhere = Elsewhere {
        target: target.as_ref().map(|pictures| Box::new(move |name: &str| finder(pictures, name)) as Finder<'_>),
        pool: pool.map(|pictures| Box::new(move |name: &str| finder(pictures, name)) as Finder<'_>),
    };
    Ok(report::after_run(&outlook, &summary.records, args.save_dir.join(export::PAGE), elsewhere))
}

/// What clap cannot know.
fn check(args: &SimilarArgs) -> Result<(), Failure> {
    let unfit = |what: &str, hint: &str| Err(Failure::own(Unfit { what: what.to_owned(), hint: hint.to_owned() }));
    if !(-1.0..=1.0).contains(&args.dist_thr) {
        let hint = "it is the cosine similarity from which on target images repeat each other, usually 0.9 to 0.99; a limit on \
                    the distance of pairs is `--max-dist`";
        return unfit(&format!("`--dist-thr` is {}, and must lie in -1 to 1", args.dist_thr), hint);
    }
    if let (Some(min), Some(max)) = (args.min_dist, args.max_dist)
        && min >= max
        && max > 0.0
    {
        return unfit(
            &format!("`--min-dist` is {min}, and `--max-dist` {max} leaves nothing above it"),
            "raise it, or lower `--min-dist`",
        );
    }
    if args.separator.as_deref().is_some_and(|separator| byte_of(separator).is_none()) {
        return unfit("`--separator` is not one character", "name one such as `;`, or `tab` or `blank`");
    }
    if args.near_db.is_none() && args.materialize != super::args::Materialize::List {
        return unfit("`--materialize` needs the pool's images", "name their folder with `--near-db`");
    }
    if args.nn_npy.is_some() {
        terminal::say(
            "warning: `--nn-npy` is not needed: what was found is kept, and found again only if something has changed",
        );
    }
    Ok(())
}

/// Refuses a folder in which something else would be overwritten: an input, or a file that no earlier run wrote.
fn spare(args: &SimilarArgs) -> Result<(), Failure> {
    let files = export::files(&args.save_dir, &plan::factors(args));
    let lists = [&args.exclude, &args.attributes].into_iter().flatten();
    let inputs: Vec<&Path> =
        args.near_csv.iter().chain(&args.held_out).chain([&args.target_csv]).chain(lists).map(PathBuf::as_path).collect();
    for file in &files {
        output::not_over(file, inputs.iter().copied())?;
    }
    let ours = fs::read_text(&args.save_dir.join(plan::FILE)).is_ok_and(|text| text.starts_with(plan::MARK));
    if let Some(foreign) = files.iter().find(|file| !ours && (fs::exists(file) || fs::is_link(file))) {
        let hint = "it was not written by `kinset similar`: name another folder with `--save-dir`, or move the file away";
        let what = format!("`{}` would be overwritten", foreign.display());
        return Err(Failure::own(Unfit { what, hint: hint.to_owned() }));
    }
    Ok(())
}

fn work(args: &SimilarArgs, spec: &Spec, store: &Store, artifacts: &Path) -> Result<Summary, Failure> {
    let stop = stop_on_signals()?;
    let (device, devices) = device_of(spec)?;
    let journal = Journal::new(runs_folder(artifacts, &spec.name));
    let screen = Screen::new();
    let listeners: [&dyn Listener; 2] = [&screen, &journal];
    let options = Options {
        registry: registry::catalog(),
        chosen: (0..spec.nodes.len()).collect(),
        forced: std::collections::BTreeSet::new(),
        threads: rayon::current_num_threads(),
        device,
        devices,
        shows: true,
        wait: true,
        checkpoint_every: Duration::from_secs_f64(args.checkpoint_every),
        stop,
    };
    // Every path of the pipeline is written in full.
    let places = DataPaths::new("", None, None);
    Ok(run::run(spec, store, &places, &options, Tell(&listeners))?)
}

/// The main output of a stage.
fn stored<A: Artifact>(spec: &Spec, store: &Store, summary: &Summary, stage: &str) -> Result<Stored<A>, Failure> {
    let index = spec.nodes.iter().position(|node| node.name == stage);
    let record = index.and_then(|index| summary.records.get(&index));
    let output = record.and_then(|record| record.outputs.iter().find(|(_, output)| output.kind == A::KIND));
    let Some((name, output)) = output else { return Err(RunError::NoKind { kind: stage.to_owned() }.into()) };
    Ok(state::stored(store, stage, name, output)?)
}

/// Writes everything, and returns what to say of each number of neighbors.
fn export(
    args: &SimilarArgs,
    spec: &Spec,
    store: &Store,
    summary: &Summary,
    pictures: Option<&Pictures>,
) -> Result<Vec<Value>, Failure> {
    let dir = &args.save_dir;
    let factors = plan::factors(args);
    let target = FeatureTable::load(&stored::<Features>(spec, store, summary, plan::TARGET)?)?;
    let (mut edges, mut start): (Vec<Edge>, u32) = (Vec::new(), 0);
    for shard in 1..=args.near_csv.len() {
        let matches = MatchTable::load(&stored::<Matches>(spec, store, summary, &plan::matches(shard))?)?;
        if shard == 1 {
            export::repetitions(dir, &matches)?;
        }
        edges.extend(matches.edges.iter().map(|edge| Edge { pool: edge.pool + start, ..*edge }));
        start += matches.pool as u32;
    }
    edges.sort_by(|a, b| a.target.cmp(&b.target).then(b.cosine.total_cmp(&a.cosine)).then(a.pool.cmp(&b.pool)));
    export::arrays(dir, &factors, &target, &edges)?;
    let known = args.attributes.as_deref().map(|path| Attributes::open(path, |name| stem(name).to_owned())).transpose()?;
    let pool = match &known {
        Some(known) => Some(pool_shares(known, args, spec, store, summary)?),
        None => None,
    };
    let (mut rows, mut reports) = (Vec::new(), serde_json::Map::new());
    for &k in &factors {
        let selection = SelectionTable::load(&stored::<Selection>(spec, store, summary, &plan::selection(k))?)?;
        let list = export::list(dir, k, &selection)?;
        export::edges(dir, k, &selection)?;
        let placed = export::manifest(dir, k, &selection, pictures, args.materialize)?;
        warn(k, &placed, pictures.is_some());
        let report = &selection.report;
        let attributes = match (&known, &pool) {
            (Some(known), Some(pool)) => attributes::compare(known, &selection, pool),
            _ => Vec::new(),
        };
        for shift in &attributes {
            if shift.unknown > 0 {
                terminal::say(&format!("warning: nn{k}: {} images have no `{}`", shift.unknown, shift.attribute));
            }
        }
        rows.push(json!({
            "k": k,
            "list": list.display().to_string(),
            "counts": report.counts,
            "images_found": placed.images,
            "without_image": placed.without_image.len(),
            "without_annotation": placed.without_annotation.len(),
            "difference": report.difference,
            "attributes": attributes,
        }));
        let mut report = json!(report);
        if known.is_some() {
            report["attributes"] = json!(attributes);
        }
        reports.insert(k.to_string(), report);
    }
    let inputs = inputs(args)?;
    let report = json!({ "inputs": inputs, "settings": spec_settings(spec), "nn": reports });
    let mut text = serde_json::to_vec_pretty(&report).unwrap_or_default();
    text.push(b'\n');
    output::write(&dir.join(export::REPORT), &text)?;
    Ok(rows)
}

/// How often each value of each attribute occurs in the pool: what random selection would give.
fn pool_shares(
    known: &Attributes,
    args: &SimilarArgs,
    spec: &Spec,
    store: &Store,
    summary: &Summary,
) -> Result<attributes::Counts, Failure> {
    let mut all = attributes::Counts::none(known);
    let target = FeatureTable::load(&stored::<Features>(spec, store, summary, plan::TARGET)?)?;
    let shards = (1..=args.near_csv.len()).map(|shard| stored::<Features>(spec, store, summary, &plan::pool(shard)));
    let pool = Shards::open(&shards.collect::<Result<Vec<_>, _>>()?, &target)?;
    all.add(known.count((0..pool.len() as u32).map(|row| stem(&pool.id(row)).to_owned())));
    Ok(all)
}

/// What each stage was told.
fn spec_settings(spec: &Spec) -> Value {
    spec.nodes.iter().map(|node| (node.name.clone(), node.settings.clone())).collect::<serde_json::Map<_, _>>().into()
}

/// Which files went in, and the digests of their bytes.
fn inputs(args: &SimilarArgs) -> Result<Value, Failure> {
    let one = |path: &PathBuf| -> Result<Value, Failure> {
        Ok(json!({ "path": path.display().to_string(), "blake3": crate::store::digest::Digest::of_file(path)?.hex() }))
    };
    let all = |paths: &[PathBuf]| paths.iter().map(one).collect::<Result<Vec<_>, _>>();
    Ok(json!({ "target": one(&args.target_csv)?, "pool": all(&args.near_csv)?, "held_out": all(&args.held_out)? }))
}

fn warn(k: usize, placed: &Placed, looked: bool) {
    if !looked {
        return;
    }
    for (names, what) in [
        (&placed.without_image, "have no picture"),
        (&placed.without_annotation, "have no annotation"),
        (&placed.outside, "are links that lead out of the folder of images and are not followed"),
    ] {
        if !names.is_empty() {
            let first: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
            let more = if names.len() > SHOWN { " …" } else { "" };
            terminal::say(&format!("warning: nn{k}: {} names {what}: {}{more}", names.len(), first.join(", ")));
        }
    }
    if placed.strangers > 0 {
        terminal::say(&format!("warning: nn{k}: {} files are left from an earlier selection", placed.strangers));
    }
}

fn table(rows: &[Value]) -> String {
    let columns = ["k", "target", "kept", "pool", "selected", "uncovered", "MMD²", "random's MMD²"];
    let mut table = terminal::table(&columns, &[0, 1, 2, 3, 4, 5, 6, 7]);
    for row in rows {
        let count = |name: &str| row["counts"][name].to_string();
        let mmd = |name: &str| row["difference"][name]["mmd2"].as_f64().map_or("–".to_owned(), |mmd2| format!("{mmd2:.4}"));
        table.add_row(vec![
            row["k"].to_string(),
            count("target"),
            count("target_kept"),
            count("pool"),
            count("selected"),
            count("uncovered"),
            mmd("selection"),
            mmd("random"),
        ]);
    }
    terminal::text(&table)
}
