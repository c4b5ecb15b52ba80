//! The run of the pipeline behind the command, and its summary.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::args::{OrderArg, PickArg, SimilarArgs};
use super::attributes;
use super::export::{self, Placed};
use super::inputs::{FileNames, Input, Inputs, PoolPictures};
use super::materialize::Pictures;
use super::plan;
use crate::artifact::features::{FeatureTable, Features};
use crate::artifact::images::{Images, names_and_paths};
use crate::artifact::matches::{MatchTable, Matches};
use crate::artifact::selection::{Selection, SelectionTable};
use crate::artifact::{Artifact, Stored};
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::base::output;
use crate::base::search_path::DataPaths;
use crate::base::stop::Stop;
use crate::base::unit;
use crate::builtin::similar::shards::Shards;
use crate::builtin::similar::stage::stem;
use crate::cli::args::{CacheArgs, ClusterArgs, PlaceArgs};
use crate::cli::cluster::Where;
use crate::cli::common::{Answer, Failure, device_of, places};
use crate::cli::near_images::Near;
use crate::cli::report;
use crate::cli::run::stop_on_signals;
use crate::cli::run_cache::RunCache;
use crate::cli::terminal::{self, Screen};
use crate::dataset::vectors::attributes::Attributes;
use crate::dataset::vectors::byte_of;
use crate::math::curate::choose::Edge;
use crate::pipeline::cache::Cache;
use crate::pipeline::error::RunError;
use crate::pipeline::event::{Listener, Tell};
use crate::pipeline::journal::{Journal, runs_folder};
use crate::pipeline::run::{self, Options, Summary};
use crate::pipeline::spec::{self, Request, Spec};
use crate::pipeline::state::{self, Outlook};
use crate::registry;
use crate::report::gather::{Elsewhere, Finder};
use crate::store::Store;
use crate::store::digest::Digest;

/// Names that are shown of a long list.
const SHOWN: usize = 3;

/// A flag that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Unfit {
    pub(super) what: String,
    pub(super) hint: String,
}

impl Fault for Unfit {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("similar::flags").hint(self.hint.clone())
    }
}

pub(in crate::cli) fn run(args: &SimilarArgs) -> Answer {
    check(args)?;
    let places = places(&PlaceArgs { artifacts: ARTIFACTS.into(), data: None }, None);
    let inputs = Inputs::of(args, &places)?;
    let pictures = inputs.pictures(args)?;
    spare(args, &inputs)?;
    let path = args.save_dir.join(plan::FILE);
    let artifacts = args.artifacts.clone().unwrap_or_else(|| args.save_dir.join(ARTIFACTS));
    let store = Store::open(&artifacts)?;
    let (screen, stop) = (Screen::new(), stop_on_signals()?);
    let mut depth = plan::depth(args);
    let (spec, summary) = loop {
        let text = plan::write(args, &inputs, depth)?;
        output::write(&path, text.as_bytes())?;
        let spec = spec::check(&path, &text, &Request::default(), &registry::catalog())?;
        let summary = work(args, &spec, &store, (&artifacts, &places), (&screen, &stop))?;
        if summary.exit() != Exit::Done {
            if summary.exit() == Exit::Stopped {
                terminal::say("\nstopped; the same command resumes from here");
            }
            return Ok(summary.exit());
        }
        let farther = if args.refill {
            deeper(&Done { args, inputs: &inputs, spec: &spec, store: &store, summary: &summary }, depth)?
        } else {
            None
        };
        let Some(farther) = farther else { break (spec, summary) };
        terminal::say(&format!("the budget is not met by {depth} neighbors of each target image; looking for {farther}"));
        depth = farther;
    };
    let done = Done { args, inputs: &inputs, spec: &spec, store: &store, summary: &summary };
    let rows = export(&done, pictures.as_ref())?;
    let near = near(&done)?;
    let page = if args.no_report { None } else { page(&done, &places, pictures.as_ref())? };
    let page = page.map(|path| path.display().to_string());
    if args.json {
        terminal::print_json(&json!({
            "save_dir": args.save_dir.display().to_string(), "seconds": summary.seconds, "nn": rows, "near": near, "report": page,
        }))?;
    } else {
        terminal::print(&table(&rows))?;
        terminal::say(&format!("\nlists, tables and report.json are in {}", args.save_dir.display()));
        if let Some(page) = page {
            terminal::say(&format!("report: {page}"));
        }
    }
    Ok(Exit::Done)
}

/// How many neighbors are to be looked for next, where a selection has not met its budget and the pool has more.
fn deeper(done: &Done<'_>, depth: usize) -> Result<Option<usize>, Failure> {
    let mut next = None;
    for k in plan::factors(done.args) {
        let counts = SelectionTable::report(&done.stored::<Selection>(&plan::selection(k))?)?.counts;
        if done.args.budget.is_some_and(|budget| counts.selected < budget) && depth < counts.pool {
            next = Some((plan::REFILL * depth).min(counts.pool));
        }
    }
    Ok(next)
}

/// Writes what the pool shares with target and test sets, and says it.
fn near(done: &Done<'_>) -> Result<Value, Failure> {
    let Done { args, spec, store, summary, .. } = *done;
    let node = spec.nodes.iter().position(|node| node.name == plan::NEAR).unwrap_or_default();
    let near = Near::of(&done.stored(plan::NEAR)?, node, (spec, store, &summary.records))?;
    export::near(&args.save_dir, &near)?;
    let lines = near.told();
    if !args.json {
        for line in &lines {
            terminal::say(line);
        }
        let target = near.summary().shared.iter().any(|share| (share.set, share.other) == (1, 0) && share.copies > 0);
        if target && args.target_sim.is_none() && args.min_dist.is_none() {
            terminal::say(&format!(
                "hint: `--target-sim {}` leaves the copies of target images out of the selection",
                args.near_sim
            ));
        }
    }
    Ok(json!({ "said": lines, "summary": near.summary() }))
}

/// Where results lie unless `--artifacts` says otherwise.
const ARTIFACTS: &str = "artifacts";

/// A run that is done.
struct Done<'a> {
    args: &'a SimilarArgs,
    inputs: &'a Inputs,
    spec: &'a Spec,
    store: &'a Store,
    summary: &'a Summary,
}

/// Writes the page that shows the selections, with pictures where it is known where they lie.
fn page(done: &Done<'_>, places: &DataPaths, pool: Option<&PoolPictures>) -> Result<Option<PathBuf>, Failure> {
    let Done { args, inputs, spec, store, summary } = *done;
    // The fork asks for this folder and reads nothing from it, so what is typed there may be anything.
    let target = args.target_db.as_deref().and_then(|folder| {
        let opened = Pictures::open(folder);
        opened.map_err(|error| terminal::say(&format!("warning: no images of the target: {error}: {}", error.source))).ok()
    });
    let outlook = Outlook { spec, registry: registry::catalog(), store, places, devices: device_of(spec)?.1 };
    let elsewhere = if inputs.are_images() {
        // They are results, like all others that a page shows.
        Elsewhere::default()
    } else {
        Elsewhere {
            target: target.as_ref().map(|pictures| Box::new(|name: &str| pictures.find(name).ok()?.image) as Finder<'_>),
            pool: pool.map(|pictures| Box::new(|name: &str| pictures.find(name)) as Finder<'_>),
        }
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
    if args.refill && args.pick != PickArg::Nearest {
        return unfit(
            "`--refill` goes with `--pick nearest` only",
            "leave it out: other picks meet any budget that the pool has images for",
        );
    }
    if args.order == OrderArg::Clusters && args.clusters.is_some() {
        return unfit("`--order clusters` and `--clusters` both divide the budget", "leave one out");
    }
    if args.order != OrderArg::Clusters && args.pool_clusters.is_some() {
        return unfit("`--pool-clusters` is for `--order clusters`", "add that, or leave it out");
    }
    if args.nn_npy.is_some() {
        terminal::say(
            "warning: `--nn-npy` is not needed: what was found is kept, and found again only if something has changed",
        );
    }
    Ok(())
}

/// Refuses a folder in which something else would be overwritten: an input, or a file that no earlier run wrote.
fn spare(args: &SimilarArgs, inputs: &Inputs) -> Result<(), Failure> {
    let files = export::files(&args.save_dir, &plan::factors(args));
    let lists = [&args.exclude, &args.attributes].into_iter().flatten();
    let read: Vec<&Path> = inputs.all().map(|input| &input.path).chain(lists).map(PathBuf::as_path).collect();
    for file in &files {
        output::not_over(file, read.iter().copied())?;
    }
    let ours = fs::read_text(&args.save_dir.join(plan::FILE)).is_ok_and(|text| text.starts_with(plan::MARK));
    if let Some(foreign) = files.iter().find(|file| !ours && (fs::exists(file) || fs::is_link(file))) {
        let hint = "it was not written by `kinset similar`: name another folder with `--save-dir`, or move the file away";
        let what = format!("`{}` would be overwritten", foreign.display());
        return Err(Failure::own(Unfit { what, hint: hint.to_owned() }));
    }
    Ok(())
}

fn work(
    args: &SimilarArgs,
    spec: &Spec,
    store: &Store,
    (artifacts, places): (&Path, &DataPaths),
    (screen, stop): (&Screen, &Stop),
) -> Result<Summary, Failure> {
    let (device, devices) = device_of(spec)?;
    // There is no file of a pipeline that a cluster file could lie beside.
    let rules = Where::of(&ClusterArgs::default(), Path::new(plan::FILE))?.rules;
    let cache = RunCache::of(&CacheArgs::default(), &rules.cache, artifacts, stop)?;
    let journal = Journal::new(runs_folder(artifacts, &spec.name));
    let listeners: [&dyn Listener; 2] = [screen, &journal];
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
        stop: stop.clone(),
        cache: cache.clone().map(|cache| cache as Arc<dyn Cache>),
    };
    let summary = run::run(spec, store, places, &options, Tell(&listeners))?;
    cache.inspect(|cache| drop(cache.finish()));
    Ok(summary)
}

impl Done<'_> {
    /// The main output of a stage.
    fn stored<A: Artifact>(&self, stage: &str) -> Result<Stored<A>, Failure> {
        let index = self.spec.nodes.iter().position(|node| node.name == stage);
        let record = index.and_then(|index| self.summary.records.get(&index));
        let output = record.and_then(|record| record.outputs.iter().find(|(_, output)| output.kind == A::KIND));
        let Some((name, output)) = output else { return Err(RunError::NoKind { kind: stage.to_owned() }.into()) };
        Ok(state::stored(self.store, stage, name, output)?)
    }

    /// What the images are called by people, if features were made of them here.
    fn file_names(&self) -> Result<Option<FileNames>, Failure> {
        if !self.inputs.are_images() {
            return Ok(None);
        }
        let of = |features: &str| Ok::<_, Failure>(names_and_paths(&self.stored::<Images>(&plan::source(features))?)?);
        let (mut ids, mut paths, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for shard in 1..=self.inputs.pool.len() {
            starts.push(ids.len());
            let (shard_ids, shard_paths) = of(&plan::pool(shard))?;
            ids.extend(shard_ids);
            paths.extend(shard_paths);
        }
        Ok(Some(FileNames { target: of(plan::TARGET)?.1, ids, paths, starts }))
    }
}

/// Writes everything, and returns what to say of each number of neighbors.
fn export(done: &Done<'_>, pictures: Option<&PoolPictures>) -> Result<Vec<Value>, Failure> {
    let Done { args, inputs, spec, .. } = *done;
    let dir = &args.save_dir;
    let factors = plan::factors(args);
    let target = FeatureTable::load(&done.stored::<Features>(plan::TARGET)?)?;
    let (mut edges, mut start, mut repeats): (Vec<Edge>, u32, _) = (Vec::new(), 0, None);
    for shard in 1..=inputs.pool.len() {
        let matches = MatchTable::load(&done.stored::<Matches>(&plan::matches(shard))?)?;
        edges.extend(matches.edges.iter().map(|edge| Edge { pool: edge.pool + start, ..*edge }));
        start += matches.pool as u32;
        repeats.get_or_insert(matches);
    }
    let names = done.file_names()?;
    if let Some(matches) = &repeats {
        export::repetitions(dir, names.as_ref().map_or(&matches.targets, |names| &names.target), &matches.repeats)?;
    }
    edges.sort_by(|a, b| a.target.cmp(&b.target).then(b.cosine.total_cmp(&a.cosine)).then(a.pool.cmp(&b.pool)));
    export::arrays(dir, &factors, &target, &edges)?;
    let known = args.attributes.as_deref().map(|path| Attributes::open(path, |name| stem(name).to_owned())).transpose()?;
    let pool = match &known {
        Some(known) => Some(pool_shares(known, done, &target, names.as_ref())?),
        None => None,
    };
    let (mut rows, mut reports) = (Vec::new(), serde_json::Map::new());
    for &k in &factors {
        let mut selection = SelectionTable::load(&done.stored::<Selection>(&plan::selection(k))?)?;
        if let Some(names) = &names {
            names.rename(&mut selection);
        }
        let list = export::list(dir, k, &selection)?;
        export::edges(dir, k, &selection)?;
        let shard = |row| names.as_ref().map_or(0, |names| names.shard(row));
        let placed = export::manifest(dir, k, &selection, pictures, &shard, args.materialize)?;
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
            "missed": report.missed,
            "attributes": attributes,
        }));
        let mut report = json!(report);
        if known.is_some() {
            report["attributes"] = json!(attributes);
        }
        reports.insert(k.to_string(), report);
    }
    let report = json!({ "inputs": digests(done)?, "settings": spec_settings(spec), "nn": reports });
    let mut text = serde_json::to_vec_pretty(&report).unwrap_or_default();
    text.push(b'\n');
    output::write(&dir.join(export::REPORT), &text)?;
    Ok(rows)
}

/// How often each value of each attribute occurs in the pool: what random selection would give.
fn pool_shares(
    known: &Attributes,
    done: &Done<'_>,
    target: &FeatureTable,
    names: Option<&FileNames>,
) -> Result<attributes::Counts, Failure> {
    let mut all = attributes::Counts::none(known);
    let shards = (1..=done.inputs.pool.len()).map(|shard| done.stored::<Features>(&plan::pool(shard)));
    let pool = Shards::open(&shards.collect::<Result<Vec<_>, _>>()?, Some(target.dim))?;
    let name = |row: u32| names.map_or_else(|| pool.id(row), |names| names.paths[row as usize].as_str().into());
    all.add(known.count((0..pool.len() as u32).map(|row| stem(&name(row)).to_owned())));
    Ok(all)
}

/// What each stage was told.
fn spec_settings(spec: &Spec) -> Value {
    spec.nodes.iter().map(|node| (node.name.clone(), node.settings.clone())).collect::<serde_json::Map<_, _>>().into()
}

/// What went in, and digests: of a file's bytes, of the features that were made of images.
fn digests(done: &Done<'_>) -> Result<Value, Failure> {
    let one = |input: &Input, stage: &str| -> Result<Value, Failure> {
        let digest = match input.images {
            None => Digest::of_file(&input.path)?,
            Some(_) => done.stored::<Features>(stage)?.digest(),
        };
        Ok(json!({ "path": input.path.display().to_string(), "blake3": digest.hex() }))
    };
    let all = |inputs: &[Input], stage: &dyn Fn(usize) -> String| {
        (1..).zip(inputs).map(|(number, input)| one(input, &stage(number))).collect::<Result<Vec<_>, _>>()
    };
    let Inputs { target, pool, held_out, .. } = done.inputs;
    Ok(json!({
        "target": one(target, plan::TARGET)?, "pool": all(pool, &plan::pool)?, "held_out": all(held_out, &plan::held_out)?,
    }))
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
    if placed.removed > 0 {
        terminal::say(&format!("nn{k}: {} of an earlier selection removed", unit::counted(placed.removed as u64, "link")));
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
