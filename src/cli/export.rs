//! `kinset export`: a result in the form that others use.
//!
//! Networks become safetensors with PyTorch's names, or ONNX, which runs without kinset, and a card beside them; assignments become CSV,
//! JSON lines, Parquet, or one folder per cluster with the pictures in it; duplicates and outliers become a table; features and
//! neighbors become arrays, tables, or a folder for TensorBoard.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::args::PipelineArgs;
use super::common::{Answer, Failure, Held, classifier_of, not_an_input, outlook, places, stored};
use super::pictures::Pictures;
use super::terminal;
use super::{export_tables, odd_images};
use crate::artifact::Artifact;
use crate::artifact::assignments::{AssignmentTable, AssignmentsWriter};
use crate::artifact::encoder::{Classifier, Encoder, HeadKind, Tensors};
use crate::artifact::features::Features;
use crate::artifact::groups::GroupTable;
use crate::artifact::images;
use crate::artifact::near_duplicates::NearDuplicates;
use crate::artifact::neighbors::Neighbors;
use crate::artifact::probe::Probe;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs::{self, At};
use crate::base::name::Name;
use crate::base::output::{self, Output};
use crate::base::unit;
use crate::dataset::{self, Source};
use crate::model::import::Layout;
use crate::model::{ModelError, export, onnx};
use crate::pipeline::spec::Spec;
use crate::pipeline::state::Outlook;
use crate::report::lines::{Form, Line};
use crate::report::names;

/// Whose names tensors get.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum NamesArg {
    /// SCAN, NNM and RUC: backbone.…, contrastive_head.…, cluster_head.0.…
    Scan,
    /// MoCo: module.encoder_q.…
    Moco,
    /// AND: conv1.…, linear.…; of an AlexNet features.0.…, projection.0.…
    And,
}

/// Export a result: networks for PyTorch or as ONNX; assignments, duplicates, outliers as CSV; features and neighbors for NumPy; a folder of images per cluster
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset export pipelines/fashion-mini.toml cluster --output scan.safetensors
  kinset export pipelines/fashion-mini.toml cluster --output scan.onnx     runs in onnxruntime
  kinset export pipelines/fashion-mini.toml assignments --output assignments.csv
  kinset export photos.toml assignments --output sorted          links, one folder per cluster
  kinset export photos.toml assignments --output sorted --copy
  kinset export photos.toml duplicates --output copies.csv       copies, the one to keep first
  kinset export photos.toml features --output features.npy       names beside it, in features.names.txt
  kinset export photos.toml features --output projector          for `tensorboard --logdir projector`
  kinset export photos.toml neighbors --output neighbors.csv     an edge a line")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ExportArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage, or STAGE.OUTPUT if it has several outputs
    stage: String,
    /// Output path: FILE.safetensors or .onnx for networks; FILE.csv, .jsonl, .parquet or a new folder for assignments; FILE.csv, .jsonl or .parquet for duplicates and outliers; .npy, .safetensors, .csv, .parquet or a new folder for features; .npy, .csv, .jsonl or .parquet for neighbors
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
    /// Naming scheme of the tensors in safetensors
    #[arg(long, value_enum, default_value = "scan")]
    names: NamesArg,
    /// Leave out the names of clusters, what was moved and what was rejected
    #[arg(long)]
    by_number: bool,
    /// Copy images into their folders instead of linking them
    #[arg(long)]
    copy: bool,
    /// Neighbors as .npy: each image first among its own, as in SCAN's and NNM's files
    #[arg(long)]
    with_self: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be exported, the best first where a stage gives several.
const KINDS: [&str; 9] = [
    "assignments",
    "classifier",
    Probe::KIND,
    "encoder",
    "duplicates",
    NearDuplicates::KIND,
    "outliers",
    Features::KIND,
    Neighbors::KIND,
];
/// A card is some kilobytes.
const LARGEST_CARD: u64 = 1 << 20;
/// The ending of a picture's name is kept up to this many bytes.
const LONGEST_ENDING: usize = 16;
/// A name in a folder of pictures is cut to this many bytes.
const LONGEST_NAME: usize = 180;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("`{path}`, the JSON file that belongs to `{output}`, already exists and was not written by kinset")]
    Foreign { path: String, output: String },
    #[error("`--copy` works only with a folder of images, and `{path}` is to be a file")]
    Copy { path: String },
    #[error("`{stage}` clusters imported features, so there are no images to put into folders")]
    NoImages { stage: String },
    #[error("cannot write assignments to `{path}`: expected a CSV, JSON lines or Parquet file, or a folder")]
    Ending { path: String },
    #[error("cannot write {what} to `{path}`: expected a CSV, JSON lines or Parquet file")]
    Table { what: String, path: String },
    #[error("cannot write a network to `{path}`: expected a safetensors or ONNX file")]
    Weights { path: String },
    #[error("`--names` works only with safetensors: in ONNX the tensors keep their names")]
    Names,
    #[error("the images of `{stage}` are not separate files, so they cannot be linked")]
    NoFiles { stage: String },
    #[error("`{path}`, an input of `{stage}`, no longer exists")]
    Gone { path: String, stage: String },
}

impl Fault for Trouble {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Foreign { .. } => {
                Exit::Usage.code("export::foreign").hint("name another file with `--output`, or move that one away")
            }
            Self::Copy { .. } => Exit::Usage.code("export::copy").hint("leave `--copy` out, or name a folder with `--output`"),
            Self::NoImages { .. } => {
                Exit::Usage.code("export::no-images").hint("end the name of `--output` in `.csv`, `.jsonl` or `.parquet`")
            }
            Self::Ending { .. } => {
                Exit::Usage.code("export::ending").hint("end the name in `.csv`, `.jsonl` or `.parquet`, or name a folder")
            }
            Self::Table { .. } => Exit::Usage.code("export::ending").hint("end the name in `.csv`, `.jsonl` or `.parquet`"),
            Self::Weights { .. } => Exit::Usage
                .code("export::ending")
                .hint("end the name in `.safetensors`, which PyTorch loads, or in `.onnx`, which onnxruntime runs"),
            Self::Names => Exit::Usage.code("export::names").hint("leave `--names` out, or end the name in `.safetensors`"),
            Self::NoFiles { .. } => Exit::Usage.code("export::no-files").hint("write them from the store instead: `--copy`"),
            Self::Gone { .. } => Exit::Data.code("export::gone").hint("write them from the store instead: `--copy`"),
        }
    }
}

pub(super) fn run(args: &ExportArgs) -> Answer {
    let told = outlook(&args.pipeline, |spec, outlook| {
        let held = stored(spec, outlook, &args.stage, &KINDS)?;
        not_an_input(&args.output, &args.pipeline, outlook)?;
        match (held.kind.as_str(), network(args)) {
            ("encoder", form) => encoder(args, form?, &held),
            ("classifier" | Probe::KIND, form) => classifier(args, form?, outlook, &held),
            ("duplicates" | "outliers" | NearDuplicates::KIND, _) => odd(args, outlook, &held),
            (Features::KIND, _) => export_tables::features(&args.output, &held),
            (Neighbors::KIND, _) => export_tables::neighbors(&args.output, args.with_self, &held),
            _ => assignments(args, spec, outlook, &held),
        }
    })?;
    terminal::say(told["said"].as_str().unwrap_or_default());
    if args.json {
        terminal::print_json(&told)?;
    }
    Ok(Exit::Done)
}

/// What a network becomes.
enum Network {
    Weights(Layout),
    Onnx,
}

/// By the ending of the name.
fn network(args: &ExportArgs) -> Result<Network, Failure> {
    let ending = export_tables::ending(&args.output);
    match (ending.as_deref(), args.names) {
        (Some("onnx"), NamesArg::Scan) => Ok(Network::Onnx),
        (Some("onnx"), _) => Err(Failure::own(Trouble::Names)),
        (Some("safetensors"), NamesArg::Scan) => Ok(Network::Weights(Layout::Scan)),
        (Some("safetensors"), NamesArg::Moco) => Ok(Network::Weights(Layout::Moco)),
        (Some("safetensors"), NamesArg::And) => Ok(Network::Weights(Layout::And)),
        _ => Err(Failure::own(Trouble::Weights { path: args.output.display().to_string() })),
    }
}

fn encoder(args: &ExportArgs, form: Network, held: &Held) -> Result<Value, Failure> {
    let encoder = Encoder::load(&held.typed())?;
    let Network::Weights(layout) = form else { return whole(args, held, &onnx::encoder(encoder)?) };
    save(args, held, &encoder.tensors, layout, &json!({ "encoder": encoder.card }))
}

fn classifier(args: &ExportArgs, form: Network, outlook: &Outlook<'_>, held: &Held) -> Result<Value, Failure> {
    let (classifier, names) = classifier_of(outlook, held, args.by_number)?;
    let Network::Weights(layout) = form else { return whole(args, held, &onnx::classifier(classifier, &names)?) };
    let Classifier { card, tensors } = classifier;
    let linear = export::with_linear_heads(&card, &tensors)?;
    // Centroids left as a linear head, so that is what the card says.
    let card = crate::artifact::encoder::ClassifierCard { kind: HeadKind::Linear, ..card };
    let mut about = json!({ "classifier": card });
    if !names.is_empty() {
        about["names"] = json!(names);
    }
    save(args, held, &linear, layout, &about)
}

/// A network that needs nobody to put it together.
fn whole(args: &ExportArgs, held: &Held, file: &onnx::File) -> Result<Value, Failure> {
    // A name of its own: safetensors of the same stem have a card that tells of other heads.
    let beside = beside(args, "onnx.json")?;
    output::write(&args.output, &file.bytes)?;
    write_card(&beside, &file.about)?;
    let outputs: Vec<String> = file.outputs.iter().map(ToString::to_string).collect();
    let (stage, to, input) = (&held.stage, args.output.display(), &file.input);
    let card = beside.display();
    let said = format!("`{stage}` in {to}: {input} → {}; preprocessing and metadata: {card}", outputs.join(", "));
    Ok(json!({
        "said": said, "stage": held.stage, "artifact": held.kind, "file": to.to_string(), "card": card.to_string(),
        "input": file.input, "outputs": file.outputs,
    }))
}

/// Weights, and the card beside them: all that a state dict does not say.
fn save(args: &ExportArgs, held: &Held, tensors: &Tensors, layout: Layout, card: &Value) -> Result<Value, Failure> {
    let beside = beside(args, "json")?;
    let output = Output::file(&args.output)?;
    let names = export::save(tensors, layout, output.path()?).map_err(|error| match error {
        ModelError::File(error) => Failure::of_output(&output, *error),
        error => error.into(),
    })?;
    output.finish()?;
    write_card(&beside, card)?;
    let (count, stage, to, card) = (names.len(), &held.stage, args.output.display(), beside.display());
    let said = format!("{count} tensors of `{stage}` in {to}; metadata: {card}");
    Ok(json!({
        "said": said, "stage": held.stage, "artifact": held.kind, "file": to.to_string(), "card": card.to_string(),
        "tensors": names,
    }))
}

/// The name of the output with this ending, if nobody else has a file there: nobody asked for this one to be written.
fn beside(args: &ExportArgs, ending: &str) -> Result<PathBuf, Failure> {
    let beside = args.output.with_extension(ending);
    if (fs::exists(&beside) || fs::is_link(&beside)) && !is_card(&beside) {
        let (path, output) = (beside.display().to_string(), args.output.display().to_string());
        return Err(Failure::own(Trouble::Foreign { path, output }));
    }
    Ok(beside)
}

/// True for what an earlier export wrote there.
fn is_card(path: &Path) -> bool {
    let card = fs::read_at_most(path, LARGEST_CARD).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    card.is_some_and(|card| {
        [&card["encoder"], &card["classifier"]["encoder"]].iter().any(|encoder| encoder["architecture"].is_object())
    })
}

fn write_card(path: &Path, card: &Value) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(card).unwrap_or_default();
    text.push('\n');
    Ok(output::write(path, text.as_bytes())?)
}

fn assignments(args: &ExportArgs, spec: &Spec, outlook: &Outlook<'_>, held: &Held) -> Result<Value, Failure> {
    let table = AssignmentTable::load(&held.typed())?;
    // A row without its picture says that the ids are of other pictures.
    let pictures = Pictures::behind(outlook, &outlook.states(&BTreeSet::new()), held.node, &table.ids)?;
    let pictures = pictures.filter(Pictures::are_all);
    let paths = pictures.as_ref().map(Pictures::paths).transpose()?.unwrap_or_default();
    let named = if args.by_number { None } else { names::of_assignments(outlook, held.node, held.digest, table.clusters)? };
    let groups = named.as_ref().map(|(_, names)| names.groups(&table));
    let ending = export_tables::ending(&args.output);
    let path = |row: usize| paths.get(row).map_or("", String::as_str);
    if args.copy && ending.is_some() {
        return Err(Failure::own(Trouble::Copy { path: args.output.display().to_string() }));
    }
    let said = match ending.as_deref() {
        Some("csv" | "jsonl" | "ndjson") => {
            let form = if ending.as_deref() == Some("csv") { Form::Csv } else { Form::JsonLines };
            let mut text = form.head(groups.is_some()).to_owned();
            for row in 0..table.len() {
                text.push_str(&form.line(&line(&table, groups.as_ref(), row, path(row))));
            }
            output::write(&args.output, text.as_bytes())?;
            format!("{} assignments of `{}` in {}", unit::count(table.len() as u64), held.stage, args.output.display())
        }
        Some("parquet") => {
            match &groups {
                None => output::copy(&held.files[0], &args.output)?,
                Some(groups) => {
                    let output = Output::file(&args.output)?;
                    let paths = (0..table.len()).map(|row| path(row).to_owned()).collect();
                    let written = AssignmentsWriter::create(output.path()?, table.clusters, true);
                    let pushed = written.and_then(|mut writer| {
                        writer.push(table.clone(), paths, groups.group.clone())?;
                        writer.finish()
                    });
                    pushed.map_err(|error| Failure::of_output(&output, error))?;
                    output.finish()?;
                }
            }
            format!("{} assignments of `{}` in {}", unit::count(table.len() as u64), held.stage, args.output.display())
        }
        None => {
            let Some(pictures) = pictures else {
                return Err(Failure::own(Trouble::NoImages { stage: held.stage.clone() }));
            };
            folders(args, spec, &pictures, &table, groups.as_ref())?
        }
        Some(_) => return Err(Failure::own(Trouble::Ending { path: args.output.display().to_string() })),
    };
    Ok(json!({
        "said": said, "stage": held.stage, "artifact": held.kind, "to": args.output.display().to_string(), "images": table.len(),
        "clusters": table.clusters, "sizes": table.sizes(),
        "groups": named.map(|(_, names)| names.list(&table).into_iter().map(|group| (group.name, group.images)).collect::<Vec<_>>()),
    }))
}

/// Duplicates or outliers as a table.
fn odd(args: &ExportArgs, outlook: &Outlook<'_>, held: &Held) -> Result<Value, Failure> {
    let ending = export_tables::ending(&args.output);
    let form = match ending.as_deref() {
        Some("csv") => Form::Csv,
        Some("jsonl" | "ndjson") => Form::JsonLines,
        Some("parquet") => {
            output::copy(&held.files[0], &args.output)?;
            let said = format!("{} of `{}` in {}", held.kind, held.stage, args.output.display());
            return Ok(
                json!({ "said": said, "stage": held.stage, "artifact": held.kind, "to": args.output.display().to_string() }),
            );
        }
        _ => return Err(Failure::own(Trouble::Table { what: held.kind.clone(), path: args.output.display().to_string() })),
    };
    let (text, rows) = odd_images::lines(held, outlook, form)?;
    output::write(&args.output, text.as_bytes())?;
    let said = format!("{} {} of `{}` in {}", unit::count(rows as u64), held.kind, held.stage, args.output.display());
    Ok(json!({
        "said": said, "stage": held.stage, "artifact": held.kind, "to": args.output.display().to_string(), "images": rows,
    }))
}

fn line<'a>(table: &'a AssignmentTable, groups: Option<&'a GroupTable>, row: usize, path: &'a str) -> Line<'a> {
    Line {
        id: &table.ids[row],
        row: row as u64,
        path,
        cluster: table.cluster[row],
        confidence: table.confidence[row],
        entropy: table.entropy[row],
        second_cluster: table.second_cluster[row],
        group: groups.map(|groups| groups.group[row].as_str()),
    }
}

/// One folder per cluster, or per group where clusters have names, with links to the pictures or with the pictures themselves. Rejected
/// images are left out.
fn folders(
    args: &ExportArgs,
    spec: &Spec,
    pictures: &Pictures,
    table: &AssignmentTable,
    groups: Option<&GroupTable>,
) -> Result<String, Failure> {
    let rows: BTreeMap<usize, usize> = (0..table.len()).filter_map(|row| Some((pictures.place(row)? as usize, row))).collect();
    let output = Output::folder(&args.output)?;
    let place = output.path()?.to_owned();
    let root = if args.copy { None } else { Some(root_of(args, spec, pictures)?) };
    // A source whose root holds this folder leaves it out by that.
    fs::write_atomic(&place.join(dataset::EXPORT_MARK), b"").map_err(|error| output.named(error))?;
    let digits = (table.clusters.max(1) - 1).to_string().len();
    let (mut made, mut rejected) = (BTreeSet::new(), 0);
    let mut names: BTreeSet<PathBuf> = BTreeSet::new();
    let bar = terminal::bar(table.len() as u64, "images");
    images::for_each(&pictures.images, |at, id, bytes, path| {
        let Some(&row) = rows.get(&at) else { return Ok(()) };
        let cluster = table.cluster[row];
        let word = match groups {
            Some(groups) if groups.is_rejected(row) => {
                rejected += 1;
                return Ok(());
            }
            Some(groups) if !groups.group[row].is_empty() => groups.group[row].clone(),
            _ if cluster < 0 => "none".to_owned(),
            _ => format!("{cluster:0digits$}"),
        };
        let folder = place.join(&word);
        if made.insert(word) {
            fs::create_folders(&folder).map_err(|error| output.named(error))?;
        }
        let mut to = folder.join(name(id, path));
        if !names.insert(to.clone()) {
            to = folder.join(format!("{id}-{}", name(id, path)));
            names.insert(to.clone());
        }
        match &root {
            Some(_) if path.is_empty() => {
                return Err(Failure::own(Trouble::NoFiles { stage: pictures.images.origin().to_owned() }));
            }
            Some(root) => {
                let from = root.join(Name::path(path));
                if !fs::exists(&from) {
                    let (path, stage) = (from.display().to_string(), pictures.images.origin().to_owned());
                    return Err(Failure::own(Trouble::Gone { path, stage }));
                }
                fs::link(&from, &to).map_err(|error| output.named(error))?;
            }
            None if bytes.is_empty() => write_picture(&output, &to, &images::outside(path, id)?)?,
            None => write_picture(&output, &to, bytes)?,
        }
        bar.inc(1);
        Ok(())
    })?;
    output.finish()?;
    bar.finish_and_clear();
    let how = if args.copy { "copied" } else { "linked" };
    let (count, folders) = (unit::count((table.len() - rejected) as u64), made.len());
    let left = if rejected > 0 { format!("; {} rejected", unit::counted(rejected as u64, "image")) } else { String::new() };
    Ok(format!("{count} images {how} into {folders} folders of {}{left}", args.output.display()))
}

/// Writes a picture into a folder that is not in its place yet.
fn write_picture(output: &Output, path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = fs::create_new(path).and_then(|mut file| {
        file.write_all(bytes).at("write", path)?;
        file.sync_all().at("flush", path)
    });
    Ok(written.map_err(|error| output.named(error))?)
}

/// The folder that the paths of a source's pictures begin at.
fn root_of(args: &ExportArgs, spec: &Spec, pictures: &Pictures) -> Result<PathBuf, Failure> {
    let none = || Failure::own(Trouble::NoFiles { stage: pictures.images.origin().to_owned() });
    let node = spec.node(pictures.images.origin()).ok_or_else(none)?;
    let settings: Source = serde_json::from_value(node.settings.clone()).map_err(|_| none())?;
    let located = dataset::locate(&settings, &places(&args.pipeline.places, Some(&args.pipeline.pipeline)))?;
    let root =
        located.root.filter(|_| matches!(settings.dataset.as_str(), name if name == "folder" || name.starts_with("imagenet")));
    Ok(fs::absolute(&root.ok_or_else(none)?)?)
}

/// A picture's name in its cluster's folder: the way to its file, flattened; of an array its id.
fn name(id: &str, path: &str) -> String {
    if path.is_empty() {
        return format!("{id}.png");
    }
    let flat: String = path.chars().map(|c| if matches!(c, '/' | '\\' | '\0' | ':') { '_' } else { c }).collect();
    let flat = flat.trim_start_matches(['.', '_']);
    if flat.is_empty() || flat.len() > LONGEST_NAME {
        let ending = Path::new(path).extension().map(|ending| format!(".{}", ending.to_string_lossy()));
        let ending = ending.filter(|ending| ending.len() <= LONGEST_ENDING).unwrap_or_default();
        return format!("{id}{ending}");
    }
    flat.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_folder_lead_nowhere_else() {
        assert_eq!(name("ab", ""), "ab.png");
        assert_eq!(name("ab", "cat/1.jpg"), "cat_1.jpg");
        assert_eq!(name("ab", "../../etc/passwd"), "etc_passwd".trim_start_matches('_'));
        assert_eq!(name("ab", "/x.png"), "x.png");
        assert_eq!(name("ab", &format!("{}.jpg", "x".repeat(300))), "ab.jpg");
        assert_eq!(name("ab", &format!("x.{}", "y".repeat(300))), "ab");
        assert!(!name("ab", "..\\..\\c:\\x").contains(['\\', ':', '/']));
    }
}
