//! `kinset predict`: images outside the pipeline, assigned to clusters by its classifier.
//!
//! Memory does not grow with the number of pictures, except for their 16-digit names, by which equal images are told apart.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rayon::prelude::*;
use serde_json::json;

use super::args::PipelineArgs;
use super::common::{Answer, Failure, classifier_of, device_of, not_an_input, outlook, stored};
use super::terminal::{self, Reader};
use crate::artifact::Artifact;
use crate::artifact::assignments::{AssignmentTable, AssignmentsWriter};
use crate::artifact::image_codec::{Look, with_channels};
use crate::artifact::probe::Probe;
use crate::base::clock::Stopwatch;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs::{self, At};
use crate::base::id::Ids;
use crate::base::output::{self, Output, OutputError};
use crate::base::unit;
use crate::builtin::predict::assigned;
use crate::dataset::Source;
use crate::dataset::adhoc_images::{AdhocImage, AdhocImages};
use crate::dataset::guarded_decode::decode_as;
use crate::pipeline::spec::Spec;
use crate::report::lines::{Form, Line};
use crate::train::infer::Predictor;

/// A form of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RowsFormat {
    /// Comma-separated values with a header
    Csv,
    /// One JSON object per line
    Jsonl,
    /// A Parquet table
    Parquet,
}

/// Assign images to clusters with a pipeline's classifier: folders, lists, tar, Parquet
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset predict pipelines/fashion-mini.toml my/photos > assignments.csv
  kinset predict pipelines/fashion-mini.toml a.jpg b.png more.parquet --output assignments.parquet
  kinset predict pipelines/fashion-mini.toml my/photos --stage kmeans --format jsonl --skip-broken")]
pub struct PredictArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Images: folders, PNG, JPEG, WebP, GIF, BMP or TIFF files, `.txt` lists of paths, tar or Parquet files
    #[arg(value_name = "IMAGES", required = true)]
    images: Vec<PathBuf>,
    /// The stage whose classifier or probe is used [default: the one that the last `predict` stage reads, else the last one]
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Where to write the assignments [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Output format [default: from the file's extension, else csv]
    #[arg(long, value_enum)]
    format: Option<RowsFormat>,
    /// Leave out the groups of clusters that have names
    #[arg(long)]
    by_number: bool,
    /// Skip images that cannot be read, and list the first of them, instead of failing
    #[arg(long)]
    skip_broken: bool,
    /// Print one JSON object at the end (with --output)
    #[arg(long, requires = "output")]
    json: bool,
}

/// Broken pictures that are named one by one.
const NAMED: usize = 5;

/// Why nothing was sorted.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("`{pipeline}` has no stage that produces a classifier")]
    NoClassifier { pipeline: String },
    #[error("`{name}` cannot be read: {why}")]
    Broken { name: String, why: String },
    #[error("none of the {count} images can be read; the first is `{name}`: {why}")]
    AllBroken { count: usize, name: String, why: String },
    #[error("Parquet output needs a file name")]
    NoFile,
    #[error("`--output` names an image file")]
    Picture,
    #[error("`--output` ends in `.{ending}`, which is not written")]
    Ending { ending: String },
}

impl Fault for Trouble {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoClassifier { .. } => Exit::Usage
                .code("predict::no-classifier")
                .hint("name a pipeline with a stage like `scan`, `kmeans` or `pretrained`"),
            Self::Broken { .. } => {
                Exit::Data.code("predict::broken-picture").hint("repair or remove it, or skip such images with `--skip-broken`")
            }
            Self::AllBroken { .. } => Exit::Data.code("predict::broken-picture"),
            Self::Picture => Exit::Usage
                .code("predict::output")
                .hint("name a file for the assignments, `--output assignments.csv`; give images without `--output`"),
            Self::Ending { .. } => Exit::Usage
                .code("predict::output")
                .hint("CSV, JSON lines and Parquet are written: `.csv`, `.jsonl`, `.parquet`, or name one with `--format`"),
            Self::NoFile => Exit::Usage.code("predict::no-file").hint("name one: `--output assignments.parquet`"),
        }
    }
}

pub(super) fn run(args: &PredictArgs) -> Answer {
    let (stage, classifier, device, names, look) = outlook(&args.pipeline, |spec, outlook| {
        let stage = match &args.stage {
            Some(stage) => stage.clone(),
            None => last_classifier(spec).ok_or_else(|| Failure::own(Trouble::NoClassifier { pipeline: spec.name.clone() }))?,
        };
        let found = stored(spec, outlook, &stage, &["classifier", Probe::KIND])?;
        if let Some(file) = &args.output {
            output::not_over(file, args.images.iter().map(PathBuf::as_path))?;
            not_an_input(file, &args.pipeline, outlook)?;
        }
        let (classifier, names) = classifier_of(outlook, &found, args.by_number)?;
        let look = look_of(spec, &stage);
        Ok((stage, classifier, device_of(spec)?.0, names, look))
    })?;
    let predictor = Predictor::new(&classifier, &device)?;
    let mut images = AdhocImages::open(&args.images)?;
    let (line, doubts) = (images.reading().line(), &images.reading().doubts);
    for said in
        Some(line).filter(|line| !line.is_empty()).into_iter().chain(doubts.iter().map(|doubt| format!("warning: {doubt}")))
    {
        terminal::say(&said);
    }
    let mut out = Out::open(args, predictor.clusters(), names)?;
    let total = images.count();
    let (bar, clock) = (terminal::bar(total as u64, "images"), Stopwatch::start());
    let (mut ids, mut rows, mut broken, mut first) = (Ids::default(), 0_u64, 0, None);
    loop {
        let chunk = images.next_chunk()?;
        if chunk.is_empty() {
            break;
        }
        let seen = chunk.len() as u64;
        let views: Vec<(AdhocImage, Result<Vec<f32>, String>)> = chunk
            .into_par_iter()
            .map(|arrival| {
                let view = view(&predictor, &arrival, look);
                (arrival, view)
            })
            .collect();
        let (mut names, mut paths, mut numbers) = (Vec::new(), Vec::new(), Vec::new());
        for (arrival, view) in views {
            match (view, arrival.bytes) {
                (Ok(view), Ok(bytes)) => {
                    numbers.extend(view);
                    names.push(ids.next(&bytes));
                    paths.push(arrival.name);
                }
                (Err(why), _) | (Ok(_), Err(why)) => {
                    if !args.skip_broken {
                        return Err(Failure::own(Trouble::Broken { name: arrival.name, why }));
                    }
                    broken += 1;
                    if broken <= NAMED {
                        bar.suspend(|| terminal::say(&format!("left out: `{}`: {why}", arrival.name)));
                    }
                    first.get_or_insert((arrival.name, why));
                }
            }
        }
        if !names.is_empty() {
            let probabilities = predictor.probabilities(numbers)?;
            let table = assigned(names, &probabilities, predictor.clusters());
            let count = table.len() as u64;
            if out.push(table, paths, rows)? == Reader::Gone {
                bar.finish_and_clear();
                return Ok(Exit::Done);
            }
            rows += count;
        }
        bar.inc(seen);
    }
    bar.finish_and_clear();
    if let (0, Some((name, why))) = (rows, first) {
        return Err(Failure::own(Trouble::AllBroken { count: broken, name, why }));
    }
    out.finish()?;
    let seconds = clock.elapsed().as_secs_f64();
    let mut words = format!(
        "{} images by `{stage}` in {} ({:.0} a second)",
        unit::count(rows),
        unit::duration(clock.elapsed()),
        rows as f64 / seconds.max(1e-9)
    );
    if broken > 0 {
        words.push_str(&format!("; {} left out", unit::count(broken as u64)));
    }
    if let Some(file) = &args.output {
        words.push_str(&format!("; they are in {}", file.display()));
    }
    terminal::say(&words);
    if args.json {
        terminal::print_json(
            &json!({ "stage": stage, "pictures": rows, "left_out": broken, "clusters": predictor.clusters() }),
        )?;
    }
    Ok(Exit::Done)
}

/// What the network sees of a picture, or why it sees nothing.
fn view(predictor: &Predictor, arrival: &AdhocImage, look: Look) -> Result<Vec<f32>, String> {
    let bytes = arrival.bytes.as_ref().map_err(Clone::clone)?;
    let picture = decode_as(bytes, look).map_err(|error| error.to_string())?;
    predictor.view(with_channels(picture, predictor.channels())).map_err(|error| error.to_string())
}

/// How pictures look to a stage's network: as they do in the source it learned from, if its sources agree.
fn look_of(spec: &Spec, stage: &str) -> Look {
    let mut open: Vec<usize> = spec.nodes.iter().position(|node| node.name == stage).into_iter().collect();
    let (mut seen, mut looks) = (vec![false; spec.nodes.len()], Vec::new());
    while let Some(index) = open.pop() {
        let node = &spec.nodes[index];
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        let source = (node.kind == "ingest").then(|| serde_json::from_value::<Source>(node.settings.clone()));
        looks.extend(source.and_then(Result::ok).and_then(|source| source.look().ok()));
        open.extend(node.ports.values().flatten().map(|read| read.node));
    }
    looks.dedup();
    if let [look] = looks[..] { look } else { Look::default() }
}

/// The classifier that the last `predict` stage reads, else the last one that a stage gives: as written in the file.
fn last_classifier(spec: &Spec) -> Option<String> {
    let read = spec.order.iter().rev().map(|&index| &spec.nodes[index]).filter(|node| node.kind == "predict");
    let wired = read.filter_map(|node| node.ports.get("classifier")).flatten().next();
    if let Some(reference) = wired {
        return Some(spec.reference(reference));
    }
    // A stage that may come out without one does not count.
    let gives = |&&index: &&usize| spec.nodes[index].outputs.iter().any(|o| o.artifact == "classifier" && !o.optional);
    let last = spec.order.iter().rev().find(gives);
    last.map(|&index| spec.nodes[index].name.clone())
}

/// Where the answers go, with the names of the clusters, if they have any.
struct Out {
    sink: Sink,
    names: Vec<String>,
}

enum Sink {
    /// To standard output.
    Said(Form),
    Lines {
        form: Form,
        file: BufWriter<fs::File>,
        output: Output,
    },
    Table {
        writer: Box<AssignmentsWriter>,
        output: Output,
    },
}

impl Out {
    fn open(args: &PredictArgs, clusters: usize, names: Vec<String>) -> Result<Self, Failure> {
        let ending = args.output.as_deref().and_then(Path::extension).map(|ending| ending.to_string_lossy().to_lowercase());
        let form = match (args.format, ending.as_deref()) {
            (Some(form), _) => form,
            (None, Some("parquet")) => RowsFormat::Parquet,
            (None, Some("jsonl" | "ndjson" | "json")) => RowsFormat::Jsonl,
            // `--output *.png`: what the shell made of it begins with somebody's picture.
            (None, Some("png" | "jpg" | "jpeg" | "webp" | "gif" | "bmp" | "tif" | "tiff")) => {
                return Err(Failure::own(Trouble::Picture));
            }
            (None, Some(ending @ ("xlsx" | "xls" | "ods" | "html" | "feather" | "arrow" | "npy"))) => {
                return Err(Failure::own(Trouble::Ending { ending: ending.to_owned() }));
            }
            _ => RowsFormat::Csv,
        };
        let lines = match form {
            RowsFormat::Csv => Some(Form::Csv),
            RowsFormat::Jsonl => Some(Form::JsonLines),
            RowsFormat::Parquet => None,
        };
        let named = !names.is_empty();
        let sink = match (lines, &args.output) {
            (None, None) => return Err(Failure::own(Trouble::NoFile)),
            (None, Some(file)) => {
                let output = Output::file(file)?;
                let writer = Box::new(AssignmentsWriter::create(output.path()?, clusters, named)?);
                Sink::Table { writer, output }
            }
            (Some(form), None) => Sink::Said(form),
            (Some(form), Some(file)) => {
                let output = Output::file(file)?;
                Sink::Lines { form, file: BufWriter::new(output.create()?), output }
            }
        };
        let mut out = Self { sink, names };
        out.write(lines.map_or("", |form| form.head(named)))?;
        Ok(out)
    }

    /// Takes lines; tells whether anybody wants more.
    fn write(&mut self, text: &str) -> Result<Reader, Failure> {
        match &mut self.sink {
            Sink::Said(_) => return terminal::print_part(text),
            Sink::Lines { file, output, .. } => {
                file.write_all(text.as_bytes()).at("write", output.place()).map_err(OutputError::from)?;
            }
            Sink::Table { .. } => {}
        }
        Ok(Reader::There)
    }

    fn push(&mut self, table: AssignmentTable, paths: Vec<String>, first: u64) -> Result<Reader, Failure> {
        let of_cluster = |cluster: i32| usize::try_from(cluster).ok().and_then(|cluster| self.names.get(cluster).cloned());
        let groups: Vec<String> = if self.names.is_empty() {
            Vec::new()
        } else {
            table.cluster.iter().map(|&cluster| of_cluster(cluster).unwrap_or_default()).collect()
        };
        let form = match &mut self.sink {
            Sink::Table { writer, output } => {
                writer.push(table, paths, groups).map_err(|error| Failure::of_output(output, error))?;
                return Ok(Reader::There);
            }
            Sink::Said(form) | Sink::Lines { form, .. } => *form,
        };
        let text: String = (0..table.len())
            .map(|at| {
                form.line(&Line {
                    id: &table.ids[at],
                    row: first + at as u64,
                    path: &paths[at],
                    cluster: table.cluster[at],
                    confidence: table.confidence[at],
                    entropy: table.entropy[at],
                    second_cluster: table.second_cluster[at],
                    group: groups.get(at).map(String::as_str),
                })
            })
            .collect();
        self.write(&text)
    }

    /// The file appears whole, under its name, at the end.
    fn finish(self) -> Result<(), Failure> {
        let output = match self.sink {
            Sink::Said(_) => return Ok(()),
            Sink::Lines { mut file, output, .. } => {
                file.flush().at("write", output.place()).map_err(OutputError::from)?;
                output
            }
            Sink::Table { writer, output } => {
                writer.finish().map_err(|error| Failure::of_output(&output, error))?;
                output
            }
        };
        Ok(output.finish()?)
    }
}
