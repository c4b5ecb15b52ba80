//! `kinset data`: the list of data sets, downloads and checks.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::args::PlaceArgs;
use super::common::{Answer, Failure, places};
use super::terminal;
use crate::artifact::parquet::arrow_files;
use crate::artifact::parquet::pictures::PictureFile;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::base::name::Name;
use crate::base::reading::Reading;
use crate::base::unit;
use crate::dataset::fetch::{self, FetchEvent, Outcome, PUBLISHED, PublishedWeights, Weights};
use crate::dataset::vectors::{self, Options};
use crate::dataset::{self, DatasetError, FaultyImages, Labels, Source, registry};

/// List the known data sets, download one, or check one that is on disk
#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

/// `data`.
#[derive(Debug, Subcommand)]
enum DataCommand {
    /// List the known data sets, and the published weights that can be downloaded
    #[command(after_help = "\
Example:
  kinset data list")]
    List {
        #[command(flatten)]
        places: PlaceArgs,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Download a data set or published weights: resumes, verifies checksums, unpacks; does nothing if all is there
    #[command(after_help = "\
Examples:
  kinset data fetch stl10
  kinset data fetch cifar10 --dry-run          print what would be downloaded, from where, to where
  kinset data fetch svhn --all                 its extra images too
  kinset data fetch dinov2_vits14              the weights of an encoder
  kinset data fetch stl10 --from http://mirror.example/stl10")]
    Fetch(FetchArgs),
    /// Read a whole data set and report its content, or what is wrong with it
    #[command(after_help = "\
Examples:
  kinset data check fashion-mini
  kinset data check folder --root my/photos
  kinset data check tar --root shards --set image_column=input.jpg
  kinset data check features.csv               features that another program made")]
    Check {
        /// The data set, or a folder, archive, table or file of features
        dataset: String,
        /// The split
        #[arg(long)]
        split: Option<String>,
        /// Folder of the data set, if not the default
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        /// Another setting of the source or the features (may be repeated)
        #[arg(long, value_name = "SETTING=VALUE")]
        set: Vec<String>,
        #[command(flatten)]
        places: PlaceArgs,
        /// Print JSON, with the names of all damaged files
        #[arg(long)]
        json: bool,
    },
}

/// `data fetch`.
#[derive(Debug, Args)]
struct FetchArgs {
    /// The data set, the weights of an encoder by name, or the URL of a file of weights
    dataset: String,
    /// Target folder, if not the default
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Download from this mirror instead of the publishers; checksums are still verified
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Expected SHA-256 in place of the published checksum, of one file or of the only one (may be repeated)
    #[arg(long, value_name = "[FILE=]DIGITS")]
    sha256: Vec<String>,
    /// Download optional files too: the extra images of svhn
    #[arg(long)]
    all: bool,
    /// Print what would be downloaded, without network access
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    places: PlaceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(DataArgs { command }: &DataArgs) -> Answer {
    match command {
        DataCommand::List { places: args, json } => {
            let places = places(args, None);
            let (mut rows, mut table) = (Vec::new(), terminal::table(&["name", "here", "splits", "what it is"], &[]));
            for entry in registry::entries() {
                let here = !entry.needs_root() && registry::locate(&Source::named(entry.name), &places).is_ok();
                let splits: Vec<&str> = entry.splits.iter().map(|split| split.name).collect();
                let offered = !entry.downloads.is_empty();
                let word = match (entry.needs_root(), here) {
                    (true, _) => "yours",
                    (false, true) => "yes",
                    (false, false) if offered => "fetch",
                    (false, false) => "no",
                };
                table.add_row([entry.name, word, &splits.join(", "), entry.title]);
                rows.push(json!({
                    "name": entry.name, "kind": "data set", "here": here, "fetch": offered, "needs_root": entry.needs_root(), "splits": splits,
                    "title": entry.title, "license": entry.license, "advice": entry.advice,
                }));
            }
            let mut weights = terminal::table(&["weights", "here", "size", "license", "what it is"], &[2]);
            for one in &PUBLISHED {
                let here = one.weights(&places)?.find().is_ok();
                let size = unit::bytes(one.megabytes * 1_000_000);
                weights.add_row([one.name, if here { "yes" } else { "fetch" }, &size, one.license, one.title]);
                rows.push(json!({
                    "name": one.name, "kind": "weights", "here": here, "fetch": true, "url": one.url, "sha256": one.sha256,
                    "bytes": one.megabytes * 1_000_000, "title": one.title, "license": one.license,
                }));
            }
            if *json {
                terminal::print_json(&rows)?;
            } else {
                terminal::print(&format!("{}\n{}", terminal::text(&table), terminal::text(&weights)))?;
                let place = places.data().display();
                terminal::say(&format!(
                    "\nlooked for below `{place}`; `fetch`: `kinset data fetch NAME` downloads it; `yours`: say where with `root`"
                ));
            }
            Ok(Exit::Done)
        }
        DataCommand::Fetch(args) => get(args),
        DataCommand::Check { dataset, split, root, set, places: args, json } => {
            let (mut given, places) = (settings(set)?, places(args, None));
            let found = Path::new(dataset);
            let (mut name, mut root) = (dataset.as_str(), root.clone());
            if root.is_none() && registry::find(dataset).is_err() && fs::exists(found) {
                match form(found) {
                    Some(form) => (name, root) = (form, Some(found.to_owned())),
                    None => return check_features(found, &given, *json),
                }
            }
            given.insert("dataset".to_owned(), name.into());
            given.extend(split.as_ref().map(|split| ("split".to_owned(), split.as_str().into())));
            let source: Source =
                serde_json::from_value(given.into()).map_err(|why| Failure::own(BadSetting { problem: why.to_string() }))?;
            // A path may be no text.
            let source = Source { root: root.or_else(|| source.root.clone()), ..source };
            match dataset::check(&source, &places, &mut dataset::file_digest) {
                Ok(report) => show_check(&source, &report, *json),
                Err(error) => {
                    if let DatasetError::Unreadable { faults, .. } = &error {
                        show_unreadable(&source, faults, *json)?;
                    }
                    Err(error.into())
                }
            }
        }
    }
}

/// The format of a data set that lies at a path; nothing for features.
pub(super) fn form(path: &Path) -> Option<&'static str> {
    let ending = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
    match ending.as_ref().and_then(|ending| ending.to_str()) {
        _ if fs::metadata(path).is_ok_and(|found| found.is_some_and(|found| found.is_dir())) => {
            match arrow_files::files(path) {
                // What Hugging Face's `save_to_disk` writes: images, or features.
                Ok(Some(files)) => files.first().is_some_and(|file| PictureFile::open(file, None).is_ok()).then_some("parquet"),
                _ => Some("folder"),
            }
        }
        Some("tar") => Some("tar"),
        Some("parquet") if PictureFile::open(path, None).is_ok() => Some("parquet"),
        _ => None,
    }
}

/// `name=value`, where a value is JSON or else a text.
fn settings(given: &[String]) -> Result<Map<String, Value>, Failure> {
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::own(BadSetting { problem: format!("`{text}` is not of the form `SETTING=VALUE`") }))?;
        Ok((name.trim().to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
    };
    given.iter().map(pair).collect()
}

/// A setting on the command line that no data source has.
#[derive(Debug, thiserror::Error)]
#[error("`--set`: {problem}")]
struct BadSetting {
    problem: String,
}

impl Fault for BadSetting {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("data::setting").hint("`kinset methods ingest` and `kinset methods import_features` list the settings")
    }
}

/// Faulty images that are listed; JSON has all.
const MOST_LISTED: usize = 20;

/// Lines of what was read.
fn lines(reading: &Reading) -> String {
    let took = reading.took.iter().map(|what| format!("  read    {what}\n"));
    let left = (!reading.left.is_empty()).then(|| format!("  not read: {}\n", reading.left.join(", ")));
    let doubts = reading.doubts.iter().map(|doubt| format!("  warning: {doubt}\n"));
    took.chain(left).chain(doubts).collect()
}

fn told(reading: &Reading) -> Value {
    json!({ "took": reading.took, "left": reading.left, "doubts": reading.doubts })
}

/// Lists the files that are no data at all.
fn show_unreadable(source: &Source, faults: &[String], json: bool) -> Result<(), Failure> {
    if json {
        return terminal::print_json(
            &json!({ "dataset": source.dataset, "unreadable": faults.len(), "unreadable_files": faults }),
        );
    }
    let mut text = format!("{}: {} cannot be read\n", source.dataset, unit::counted(faults.len() as u64, "file"));
    for fault in faults.iter().take(MOST_LISTED) {
        text.push_str(&format!("  unreadable: {fault}\n"));
    }
    if faults.len() > MOST_LISTED {
        text.push_str(&format!(
            "  unreadable: and {} more; all with `--json`\n",
            unit::count((faults.len() - MOST_LISTED) as u64)
        ));
    }
    terminal::print(&text)
}

fn show_check(source: &Source, report: &dataset::Report, json: bool) -> Answer {
    let (names, labels) = match &report.labels {
        Labels::Named(names) => (
            names.clone(),
            format!("{} {}", unit::count(names.len() as u64), if names.len() == 1 { "class" } else { "classes" }),
        ),
        Labels::Numbered => (Vec::new(), format!("{} classes without names", report.per_class.len())),
        Labels::Absent { why } => (Vec::new(), format!("none: {why}")),
    };
    let all = |faulty: &FaultyImages| {
        faulty.all.iter().map(|one| json!({ "file": one.name, "reason": one.reason })).collect::<Vec<_>>()
    };
    if json {
        terminal::print_json(&json!({
            "dataset": source.dataset, "images": report.images, "gray": report.gray, "smallest": report.smallest,
            "largest": report.largest, "classes": names, "per_class": report.per_class, "unlabeled": report.unlabeled,
            "broken": report.broken.count, "broken_files": all(&report.broken),
            "damaged": report.damaged.count, "damaged_files": all(&report.damaged),
            "files": report.files, "ignored": report.ignored.endings, "read": told(&report.reading),
        }))?;
        return report.fault().map_or(Ok(Exit::Done), |fault| Err(fault.into()));
    }
    let (w, h) = report.smallest;
    let size = if report.smallest == report.largest {
        format!("{w} × {h}")
    } else {
        format!("{w} × {h} to {} × {}", report.largest.0, report.largest.1)
    };
    let bytes: u64 = report.files.iter().map(|(_, bytes)| bytes).sum();
    let faults: Vec<String> = [(report.broken.count, "broken"), (report.damaged.count, "damaged")]
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, word)| format!("{} {word}", unit::count(*number as u64)))
        .collect();
    let mut text = format!(
        "{}: {}\n  images  {} ({} gray), {size} pixels\n  files   {}, {}\n  labels  {labels}\n",
        source.dataset,
        if faults.is_empty() { "sound".to_owned() } else { faults.join(", ") },
        unit::count(report.images as u64),
        unit::count(report.gray as u64),
        unit::count(report.files.len() as u64),
        unit::bytes(bytes)
    );
    for (class, count) in report.per_class.iter().enumerate() {
        let name = names.get(class).cloned().unwrap_or_else(|| class.to_string());
        text.push_str(&format!("          {:>8}  {name}\n", unit::count(*count as u64)));
    }
    if report.unlabeled > 0 {
        text.push_str(&format!("          {:>8}  without a label\n", unit::count(report.unlabeled as u64)));
    }
    // The labels are told above, class by class.
    let took = report.reading.took.iter().take(1).cloned().collect();
    text.push_str(&lines(&Reading { took, ..report.reading.clone() }));
    let word = if report.skip_broken { "left out" } else { "broken" };
    for (word, faulty) in [(word, &report.broken), ("damaged", &report.damaged)] {
        for one in faulty.all.iter().take(MOST_LISTED) {
            text.push_str(&format!("  {word}: `{}` ({})\n", one.name, one.reason));
        }
        if faulty.count > MOST_LISTED {
            let more = unit::count((faulty.count - MOST_LISTED) as u64);
            text.push_str(&format!("  {word}: and {more} more; all with `--json`\n"));
        }
    }
    terminal::print(&text)?;
    report.fault().map_or(Ok(Exit::Done), |fault| Err(fault.into()))
}

/// `kinset data check FILE`: reads features through.
fn check_features(path: &Path, given: &Map<String, Value>, json: bool) -> Answer {
    let mut options = Options::default();
    for (name, value) in given {
        let wrong = |wanted: &str| Failure::own(BadSetting { problem: format!("`{name}` is {wanted}, and not {value}") });
        let text = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match name.as_str() {
            "id_column" => options.id_column = Some(text()),
            "column" => options.column = Some(text()),
            "names" => options.names = Some(text().into()),
            "dim" => {
                let dim = value.as_u64().and_then(|dim| u32::try_from(dim).ok()).filter(|dim| *dim > 0);
                options.dim = Some(dim.ok_or_else(|| wrong("a whole number, 1 or more"))? as usize);
            }
            "header" => options.header = Some(value.as_bool().ok_or_else(|| wrong("`true` or `false`"))?),
            "separator" => options.separator = Some(text()),
            _ => return Err(Failure::own(BadSetting { problem: format!("features have no setting `{name}`") })),
        }
    }
    let report = vectors::check(path, &options)?;
    let place = Name::of(path);
    if json {
        let problems: Vec<_> =
            report.problems.iter().map(|one| json!({ "row": one.row, "name": one.name, "reason": one.what })).collect();
        terminal::print_json(&json!({
            "file": place.as_str(), "vectors": report.rows, "dim": report.dim, "broken": report.broken, "broken_vectors": problems,
            "read": told(&report.reading),
        }))?;
    } else {
        let state =
            if report.broken == 0 { "sound".to_owned() } else { format!("{} broken", unit::count(report.broken as u64)) };
        let mut text = format!("{place}: {state}\n{}", lines(&report.reading));
        for one in report.problems.iter().take(MOST_LISTED) {
            text.push_str(&format!("  broken: row {}, `{}` ({})\n", unit::count(one.row as u64), one.name, one.what));
        }
        if report.broken > MOST_LISTED {
            text.push_str(&format!("          and {} more; see `--json`\n", unit::count((report.broken - MOST_LISTED) as u64)));
        }
        terminal::print(&text)?;
    }
    if report.broken > 0 {
        return Err(Failure::own(BrokenVectors { file: place.into_string(), broken: report.broken, rows: report.rows }));
    }
    Ok(Exit::Done)
}

/// Features that cannot be compared.
#[derive(Debug, thiserror::Error)]
#[error("{broken} of {rows} vectors of `{file}` are broken")]
struct BrokenVectors {
    file: String,
    broken: usize,
    rows: usize,
}

impl Fault for BrokenVectors {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Data
            .code("data::broken-vectors")
            .hint("drop these rows where the file is made, or read other columns with `--set`")
    }
}

/// Shows a fetch: a bar, and a line for each thing that happens.
fn show_event(bar: &mut indicatif::ProgressBar, event: FetchEvent) {
    match event {
        FetchEvent::Started { name, url, have, total } => {
            bar.finish_and_clear();
            *bar = terminal::bytes_bar(total, &name);
            bar.set_position(have);
            let size = total.map(|total| format!(" ({})", unit::bytes(total))).unwrap_or_default();
            let from = if have > 0 { format!(", from byte {} on", unit::count(have)) } else { String::new() };
            bar.suspend(|| terminal::say(&format!("downloading {url}{size}{from}")));
        }
        FetchEvent::Received(bytes) => bar.set_position(bytes),
        FetchEvent::Retrying { why, pause } => {
            bar.suspend(|| terminal::say(&format!("retrying in {}: {why}", unit::duration(pause))));
        }
        FetchEvent::Verifying(name) => bar.suspend(|| terminal::say(&format!("verifying {name}"))),
        FetchEvent::Unpacking(name) => bar.suspend(|| terminal::say(&format!("unpacking {name}"))),
    }
}

/// `kinset data fetch ADDRESS`, or the name of published weights.
fn get_weights(args: &FetchArgs, published: Option<&PublishedWeights>) -> Answer {
    let (url, known) = published.map_or((args.dataset.as_str(), None), |one| (one.url, Some(one.sha256.to_owned())));
    let sha256 = match (args.sha256.as_slice(), known) {
        ([given], _) => given.clone(),
        ([], Some(known)) => known,
        _ => return Err(Failure::own(NoSum { url: args.dataset.clone() })),
    };
    let mut weights = Weights::new(url, &sha256, args.root.as_deref(), &places(&args.places, None))?;
    if let Some(mirror) = &args.from {
        weights = weights.from(mirror);
    }
    let terms = published.map(|one| format!(" (terms of use: {})", one.license)).unwrap_or_default();
    let place = weights.path();
    // As text: a path need not be any, and JSON knows no other.
    let file = place.display().to_string();
    let answer = |fetched: bool| json!({ "url": weights.url, "sha256": weights.sha256, "file": file, "fetched": fetched });
    if args.dry_run {
        terminal::say(&format!("would download {} into {}", weights.asked(), weights.folder.display()));
        terminal::say(&format!("  and verify its SHA-256 {}", weights.sha256));
        if args.json {
            terminal::print_json(&answer(false))?;
        }
        return Ok(Exit::Done);
    }
    let mut bar = terminal::bytes_bar(None, "");
    let fetch::Options { pause, patience, .. } = fetch::Options::default();
    let outcome = weights.fetch(pause, patience, &mut |event| show_event(&mut bar, event));
    bar.finish_and_clear();
    let fetched = match outcome? {
        Outcome::There(path) => {
            terminal::say(&format!("nothing to do: {} already exists", path.display()));
            false
        }
        Outcome::Fetched(path) => {
            terminal::say(&format!("the weights are in {}{terms}", path.display()));
            true
        }
    };
    if args.json {
        terminal::print_json(&answer(fetched))?;
    }
    Ok(Exit::Done)
}

/// An address says nothing about what comes from it.
#[derive(Debug, thiserror::Error)]
#[error("`{url}` needs its checksum")]
struct NoSum {
    url: String,
}

impl Fault for NoSum {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage
            .code("fetch::no-sum")
            .hint("add `--sha256 DIGITS`; the publisher of the weights states it, or take `sha256sum` of a file you trust")
    }
}

/// `kinset data fetch`.
fn get(args: &FetchArgs) -> Answer {
    let published = PublishedWeights::find(&args.dataset);
    if published.is_some() || Weights::is_address(&args.dataset) {
        return get_weights(args, published);
    }
    let entry = registry::find(&args.dataset)?;
    let sums = args.sha256.iter().map(|text| match text.split_once('=') {
        Some((name, digits)) => (Some(name.to_owned()), digits.to_owned()),
        None => (None, text.clone()),
    });
    let options = fetch::Options {
        root: args.root.clone(),
        from: args.from.clone(),
        sums: sums.collect(),
        all: args.all,
        ..fetch::Options::default()
    };
    let plan = fetch::plan(entry, &places(&args.places, None), options)?;
    let files: Vec<_> = plan
        .files
        .iter()
        .map(|file| json!({ "name": file.name, "urls": file.urls, "checksum": file.sum.to_string(), "unpack": file.unpacked.is_some() }))
        .collect();
    let answer = |root: Option<&Path>, fetched: bool| {
        let (folder, root) = (plan.folder.display().to_string(), root.map(|root| root.display().to_string()));
        json!({ "dataset": entry.name, "folder": folder, "root": root, "fetched": fetched, "files": files })
    };
    if args.dry_run {
        if let Some(there) = &plan.there {
            terminal::say(&format!("nothing to do: `{}` is complete in {}", entry.name, there.display()));
        } else {
            for file in &plan.files {
                let then = if file.unpacked.is_some() { ", then unpack it" } else { "" };
                terminal::say(&format!("would download {} into {}{then}", file.urls.join(" or "), plan.folder.display()));
                terminal::say(&format!("  and verify its {}", file.sum));
            }
            terminal::say(&format!("terms of use: {}", entry.license));
        }
        if args.json {
            terminal::print_json(&answer(plan.there.as_deref(), false))?;
        }
        return Ok(Exit::Done);
    }
    let mut bar = terminal::bytes_bar(None, "");
    let outcome = fetch::fetch(&plan, &mut |event| show_event(&mut bar, event));
    bar.finish_and_clear();
    let (root, fetched) = match outcome? {
        Outcome::There(root) => {
            terminal::say(&format!("nothing to do: `{}` is complete in {}", entry.name, root.display()));
            (root, false)
        }
        Outcome::Fetched(root) => {
            terminal::say(&format!("`{}` is in {} (terms of use: {})", entry.name, root.display(), entry.license));
            (root, true)
        }
    };
    if args.json {
        terminal::print_json(&answer(Some(&root), fetched))?;
    }
    Ok(Exit::Done)
}
