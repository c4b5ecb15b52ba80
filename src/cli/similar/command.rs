//! The run of the pipeline behind the command, and its summary.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{OrderArg, PickArg, SimilarArgs};
use super::attributes;
use super::export::{self, Names};
use super::inputs::{FileNames, Given, Inputs, PoolPictures};
use super::materialize::Pictures;
use super::plan;
use super::set::{self, Done, Work, unfit};
use crate::artifact::features::{FeatureTable, Features};
use crate::artifact::matches::{MatchTable, Matches};
use crate::artifact::selection::{Selection, SelectionTable};
use crate::base::fault::Exit;
use crate::builtin::similar::shards::Shards;
use crate::builtin::similar::stage::stem;
use crate::cli::args::PlaceArgs;
use crate::cli::common::{Answer, Failure, places};
use crate::cli::near_images::Near;
use crate::cli::terminal;
use crate::dataset::vectors::attributes::Attributes;
use crate::math::curate::choose::Edge;
use crate::report::gather::Finder;

/// What was typed.
pub(super) fn given(args: &SimilarArgs) -> Given<'_> {
    // clap has seen to it that one of the two is there.
    let pool = if args.near_csv.is_empty() { args.set.near_db.as_slice() } else { &args.near_csv };
    let target = args.target_csv.as_ref().or(args.target_db.as_ref());
    Given { target: target.map(PathBuf::as_path), pool, held_out: &args.held_out, exclude: args.exclude.as_deref() }
}

pub(in crate::cli) fn run(args: &SimilarArgs) -> Answer {
    check(args)?;
    let set = &args.set;
    let places = places(&PlaceArgs { artifacts: set::ARTIFACTS.into(), data: None }, None);
    let inputs = Inputs::of(&given(args), set, &places)?;
    let pictures = inputs.pictures(set)?;
    let lists: Vec<&Path> = [&args.exclude, &args.attributes].into_iter().flatten().map(PathBuf::as_path).collect();
    set::spare(plan::COMMAND, set, &inputs, &export::files(&plan::factors(args)), &lists)?;
    let store = set::store(set)?;
    let work = Work::new(plan::COMMAND, set, &inputs, &places, &store)?;
    let mut depth = plan::depth(args);
    let done = loop {
        let done = work.run(&plan::write(args, &inputs, depth)?)?;
        if let Some(exit) = done.broke_off() {
            return Ok(exit);
        }
        let farther = if args.refill { deeper(args, &done, depth)? } else { None };
        let Some(farther) = farther else { break done };
        terminal::say(&format!("the budget is not met by {depth} neighbors of each target image; looking for {farther}"));
        depth = farther;
    };
    let rows = export(args, &done, pictures.as_ref())?;
    let near = near(args, &done)?;
    let target = if set.no_report { None } else { target_pictures(args) };
    let target = target.as_ref().map(|pictures| Box::new(|name: &str| pictures.find(name).ok()?.image) as Finder<'_>);
    let page = done.page(target, pictures.as_ref())?;
    if set.json {
        terminal::print_json(&json!({
            "save_dir": set.save_dir.display().to_string(),
            "seconds": done.summary.seconds,
            "nn": rows,
            "near": near,
            "report": page,
        }))?;
    } else {
        terminal::print(&table(&rows))?;
        terminal::say(&format!("\nlists, tables and report.json are in {}", set.save_dir.display()));
        if let Some(page) = page {
            terminal::say(&format!("report: {page}"));
        }
    }
    Ok(Exit::Done)
}

/// The pictures of a target whose features were given.
fn target_pictures(args: &SimilarArgs) -> Option<Pictures> {
    // The fork asks for this folder and reads nothing from it, so what is typed there may be anything.
    let opened = Pictures::open(args.target_db.as_deref()?);
    opened.map_err(|error| terminal::say(&format!("warning: no images of the target: {error}: {}", error.source))).ok()
}

/// How many neighbors are to be looked for next, where a selection has not met its budget and the pool has more.
fn deeper(args: &SimilarArgs, done: &Done<'_>, depth: usize) -> Result<Option<usize>, Failure> {
    let mut next = None;
    for k in plan::factors(args) {
        let counts = SelectionTable::report(&done.stored::<Selection>(&plan::selection(k))?)?.counts;
        if args.budget.is_some_and(|budget| counts.selected < budget) && depth < counts.pool {
            next = Some((plan::REFILL * depth).min(counts.pool));
        }
    }
    Ok(next)
}

/// Writes what the pool shares with target and test sets, and says it.
fn near(args: &SimilarArgs, done: &Done<'_>) -> Result<Value, Failure> {
    let Done { set, spec, summary, .. } = done;
    let node = spec.nodes.iter().position(|node| node.name == plan::NEAR).unwrap_or_default();
    let near = Near::of(&done.stored(plan::NEAR)?, node, (spec, done.store, &summary.records))?;
    export::near(&set.save_dir, &near)?;
    let lines = near.told();
    if !set.json {
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

/// What clap cannot know.
fn check(args: &SimilarArgs) -> Result<(), Failure> {
    set::check(&args.set)?;
    if !(-1.0..=1.0).contains(&args.dist_thr) {
        let hint = "it is the cosine similarity from which on target images repeat each other, usually 0.9 to 0.99; a limit on \
                    the distance of pairs is `--max-dist`";
        return Err(unfit(format!("`--dist-thr` is {}, and must lie in -1 to 1", args.dist_thr), hint));
    }
    if let (Some(min), Some(max)) = (args.min_dist, args.max_dist)
        && min >= max
        && max > 0.0
    {
        return Err(unfit(
            format!("`--min-dist` is {min}, and `--max-dist` {max} leaves nothing above it"),
            "raise it, or lower `--min-dist`",
        ));
    }
    if args.refill && args.pick != PickArg::Nearest {
        let hint = "leave it out: other picks meet any budget that the pool has images for";
        return Err(unfit("`--refill` goes with `--pick nearest` only", hint));
    }
    if args.order == OrderArg::Clusters && args.clusters.is_some() {
        return Err(unfit("`--order clusters` and `--clusters` both divide the budget", "leave one out"));
    }
    if args.order != OrderArg::Clusters && args.pool_clusters.is_some() {
        return Err(unfit("`--pool-clusters` is for `--order clusters`", "add that, or leave it out"));
    }
    if args.nn_npy.is_some() {
        terminal::say(
            "warning: `--nn-npy` is not needed: what was found is kept, and found again only if something has changed",
        );
    }
    Ok(())
}

/// Writes everything, and returns what to say of each number of neighbors.
fn export(args: &SimilarArgs, done: &Done<'_>, pictures: Option<&PoolPictures>) -> Result<Vec<Value>, Failure> {
    let Done { set, inputs, .. } = done;
    let dir = &set.save_dir;
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
        let called = names.as_ref().and_then(|names| names.target.as_ref()).unwrap_or(&matches.targets);
        export::repetitions(dir, called, &matches.repeats)?;
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
        let files = Names::of(k);
        let list = export::list(dir, &files, &selection)?;
        export::edges(dir, &files, &selection)?;
        let shard = |row| names.as_ref().map_or(0, |names| names.shard(row));
        let placed = export::manifest(dir, &files, &selection, pictures, &shard, set.materialize)?;
        set::warn(&files.folder, &placed, pictures.is_some());
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
    done.report(&[("nn", reports.into())])?;
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
    let pool = Shards::open(&done.pool()?, Some(target.dim))?;
    let name = |row: u32| names.map_or_else(|| pool.id(row), |names| names.paths[row as usize].as_str().into());
    all.add(known.count((0..pool.len() as u32).map(|row| stem(&name(row)).to_owned())));
    Ok(all)
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
