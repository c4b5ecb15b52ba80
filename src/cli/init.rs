//! `kinset init`: a commented pipeline for a folder of images.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::PlaceArgs;
use super::common::{Answer, Failure, device_of, namesake, places};
use super::expected::{Expected, Forecast};
use super::init_encoder::{self, Encoder, quoted};
use super::terminal;
use crate::artifact::image_codec;
use crate::base::clock::Stopwatch;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::base::name::Name;
use crate::base::output;
use crate::base::search_path::DataPaths;
use crate::base::unit;
use crate::dataset::{self, Labels, Source};
use crate::pipeline::graph::Selected;
use crate::pipeline::spec::{self, Node, Request};
use crate::pipeline::state::{Devices, Outlook, State};
use crate::registry;
use crate::store::Store;

/// Write a commented pipeline for a folder of images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset init my/photos > photos.toml
  kinset init my/photos --clusters 12 --output photos.toml
  kinset init my/photos --clusters auto --output photos.toml             as many clusters as estimators find
  kinset init my/photos --encoder dinov2_vits14 --output photos.toml     an encoder that others trained
  kinset init my/photos --encoder my/encoder.onnx --output photos.toml")]
pub struct InitArgs {
    /// The folder of images
    folder: PathBuf,
    /// How many clusters to look for, or `auto`: as many as estimators find [default: 10, or half as many as there are images]
    #[arg(long, value_name = "N|auto", value_parser = count)]
    clusters: Option<Count>,
    /// Encoder that makes the features: a published one by name (dinov2_vits14, clip_vit_b32, resnet50, …), a file (.onnx,
    /// .safetensors, .pth), or `none` to learn one from these images [default: a published one that is on this machine, else none]
    #[arg(long, value_name = "NAME|FILE|none")]
    encoder: Option<String>,
    /// Do not read the subfolders as classes
    #[arg(long)]
    no_labels: bool,
    /// Leave out images that cannot be decoded, instead of stopping at them
    #[arg(long)]
    skip_broken: bool,
    /// Name of the pipeline and of its results [default: the folder's name, numbered if taken]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where to write the pipeline [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The template; what stands in `<<…>>` is filled in.
const TEMPLATE: &str = include_str!("init.toml");
/// Letters of a name that is made of a folder's; a number comes behind it.
const LONGEST: usize = 60;
/// Where results lie unless `--artifacts` says otherwise.
const ARTIFACTS: &str = "artifacts";

/// What was asked for cannot be written.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error("`{path}` already exists")]
    Taken { path: String },
    #[error("`{name}` cannot be the name of a pipeline")]
    Name { name: String },
    #[error("`--clusters` is {clusters}, and clustering needs two at least")]
    FewClusters { clusters: usize },
    #[error("{} cannot be sorted into {} clusters", unit::counted(*images as u64, "image"), unit::count(*clusters as u64))]
    ManyClusters { clusters: usize, images: usize },
}

impl Fault for Unfit {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Taken { .. } => Exit::Usage.code("init::taken").hint("name another file with `--output`, or remove this one"),
            Self::Name { .. } => Exit::Usage.code("init::name").hint(
                "the name is also that of a folder: at most 100 letters, digits, `-`, `_` and `.`, not beginning with `.` or `-`, and not `store`",
            ),
            Self::FewClusters { .. } => {
                Exit::Usage.code("init::clusters").hint("name about as many as you expect kinds of images: `--clusters 10`")
            }
            Self::ManyClusters { images: 0..=3, .. } => {
                Exit::Usage.code("init::clusters").hint("there are too few images to cluster: name a folder with more")
            }
            Self::ManyClusters { images, .. } => Exit::Usage
                .code("init::clusters")
                .hint(format!("name fewer with `--clusters N`, far fewer than there are images: `--clusters {}`", images / 2)),
        }
    }
}

/// What the subfolders are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Folders {
    /// There are none, or images beside them.
    Plain,
    Classes,
    /// Their names look like no classes.
    Doubted,
    /// They are not to be read.
    Unread,
}

/// How many clusters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Number(usize),
    /// As many as are found, this at most.
    Auto(usize),
}

/// Reads `12` or `auto`.
fn count(text: &str) -> Result<Count, String> {
    match text {
        "auto" => Ok(Count::Auto(MOST)),
        _ => text.parse().map(Count::Number).map_err(|_| "a number or `auto` is expected".into()),
    }
}

/// More clusters are not looked for unasked.
const MOST: usize = 50;
/// Fewest clusters that stages take.
const FEWEST: usize = 2;
/// As many as are looked for if nobody says how many.
const USUAL: usize = 10;

/// The number of clusters that was asked for or fits so many images; of those that are found, the most is the root of their number, so
/// that a cluster has as many images as there are clusters.
fn clusters_of(asked: Option<Count>, images: usize) -> Result<Count, Unfit> {
    match asked.unwrap_or_else(|| Count::Number(USUAL.min(images / 2).max(FEWEST))) {
        Count::Auto(most) if images > 2 * FEWEST => Ok(Count::Auto(most.min(images.isqrt()).max(FEWEST + 1))),
        Count::Auto(_) => Err(Unfit::ManyClusters { clusters: FEWEST + 1, images }),
        Count::Number(clusters @ 0..FEWEST) => Err(Unfit::FewClusters { clusters }),
        Count::Number(clusters) if clusters > images => Err(Unfit::ManyClusters { clusters, images }),
        number @ Count::Number(_) => Ok(number),
    }
}

pub(super) fn run(args: &InitArgs) -> Answer {
    // Before a large folder is read.
    clusters_of(args.clusters, usize::MAX).map_err(Failure::own)?;
    // A source's root is relative to the pipeline file, and the file may be moved: name the folder in full.
    let folder = std::path::absolute(&args.folder).map_err(|error| fs::FileError::new("find", &args.folder, error))?;
    let root = quoted(&folder)?;
    let places = places(&PlaceArgs { artifacts: ARTIFACTS.into(), data: None }, None);
    let choice = init_encoder::chosen(args.encoder.as_deref(), &places)?;
    let source = Source { skip_broken: args.skip_broken, ..Source::named("folder").root(&folder) };
    let report = dataset::check(&source, &places, &mut dataset::file_digest)?;
    if let Some(fault) = report.fault() {
        return Err(fault.into());
    }
    let clusters = clusters_of(args.clusters, report.images).map_err(Failure::own)?;
    terminal::say(&report.reading.line());
    for doubt in &report.reading.doubts {
        terminal::say(&format!("warning: {doubt}"));
    }
    terminal::say(&choice.to_string());
    if let Count::Auto(most) = clusters {
        terminal::say(&format!("clusters: as many as divide the graph of neighbors best, {FEWEST} to {most}"));
    }
    let labels = match report.labels {
        Labels::Absent { .. } => Folders::Plain,
        _ if args.no_labels => Folders::Unread,
        _ if report.classes_doubted => Folders::Doubted,
        _ => Folders::Classes,
    };
    let name = match &args.name {
        Some(name) if spec::is_name(name) => name.clone(),
        Some(name) => return Err(Failure::own(Unfit::Name { name: name.clone() })),
        None => free_name(&slug(&folder), args.output.as_deref(), Path::new(ARTIFACTS)),
    };
    let wanted = Wanted {
        name: &name,
        root: &root,
        clusters,
        images: report.images,
        folders: labels,
        skip_broken: args.skip_broken,
        encoder: &choice.encoder,
    };
    let text = fill(&wanted);
    let rate = Rate { network: choice.seconds, picture: picture_seconds(&report.files, &folder) };
    if let Some(said) = expected(&text, report.images, rate) {
        terminal::say(&said);
    }
    match &args.output {
        None => terminal::print_data(&text)?,
        Some(path) => {
            if fs::exists(path) || fs::is_link(path) {
                return Err(Failure::own(Unfit::Taken { path: path.display().to_string() }));
            }
            output::write(path, text.as_bytes())?;
            terminal::say(&format!("wrote `{}`; now: kinset run {}", path.display(), path.display()));
        }
    }
    Ok(Exit::Done)
}

/// A folder's name as that of a pipeline.
fn slug(folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let words: Vec<&str> =
        name.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let name: String = words.join("-").chars().take(LONGEST).collect();
    if spec::is_name(&name) { name } else { "photos".to_owned() }
}

/// The name, or with a number behind it the first that no other pipeline has: none in the folder where this one is written, none
/// whose results lie in `artifacts`.
fn free_name(name: &str, output: Option<&Path>, artifacts: &Path) -> String {
    let folder = output.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = fs::list(folder).unwrap_or_default();
    let pipelines = files.iter().filter(|file| file.extension().is_some_and(|ending| ending == "toml"));
    let taken: Vec<String> =
        pipelines.filter_map(|file| Some(spec::load(file, &Request::default(), &registry::catalog()).ok()?.name)).collect();
    let free = |name: &String| !taken.contains(name) && namesake(name, artifacts, output).is_none();
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(free).unwrap_or_else(|| name.to_owned())
}

/// What the template is filled with.
struct Wanted<'a> {
    name: &'a str,
    /// The folder, as a text of a pipeline file.
    root: &'a str,
    clusters: Count,
    images: usize,
    folders: Folders,
    skip_broken: bool,
    encoder: &'a Encoder,
}

/// Images of a smoke run, where an encoder is loaded that takes long for each.
const SMOKE: usize = 64;
/// Most clusters of a smoke run that finds their number.
const SMOKE_CLUSTERS: usize = 6;

/// Seconds that one picture takes.
#[derive(Clone, Copy)]
struct Rate {
    /// In the encoder that is loaded, if it was tried.
    network: Option<f64>,
    /// Until it is decoded.
    picture: f64,
}

/// Pictures that are decoded to see how long it takes.
const DECODED: usize = 4;

/// Seconds that decoding one of these files takes, with all threads at it.
fn picture_seconds(files: &[(String, u64)], folder: &Path) -> f64 {
    let some = (0..DECODED.min(files.len())).map(|place| &files[place * files.len() / DECODED.min(files.len())].0);
    let bytes: Vec<Vec<u8>> = some.filter_map(|name| fs::read(&folder.join(Name::path(name))).ok()).collect();
    let clock = Stopwatch::start();
    let decoded = bytes.iter().filter(|bytes| image_codec::decode("a picture", bytes, 3).is_ok()).count();
    clock.seconds() / decoded.max(1) as f64 / rayon::current_num_threads() as f64
}

/// How long a run of this pipeline will take, and a smoke run; nothing where nothing is known.
fn expected(text: &str, images: usize, rate: Rate) -> Option<String> {
    let store = Store::open_to_read(Path::new(ARTIFACTS)).ok()?;
    let places = DataPaths::new("", None, None);
    let of = |profile: Option<&str>| {
        let request = Request { profile: profile.map(str::to_owned), ..Request::default() };
        let spec = spec::check(Path::new("init.toml"), text, &request, &registry::catalog()).ok()?;
        let devices = device_of(&spec).ok()?.1;
        let on_cpu = devices == Devices::from("cpu");
        let outlook = Outlook { spec: &spec, registry: registry::catalog(), store: &store, places: &places, devices };
        let states: Vec<State> = spec.nodes.iter().map(|_| State::Waits { on: Vec::new() }).collect();
        let selected = Selected { nodes: (0..spec.nodes.len()).collect(), ..Selected::default() };
        let read = |source: &Node| {
            let limit = source.settings.get("limit").and_then(serde_json::Value::as_u64);
            Some(limit.map_or(images, |limit| images.min(limit as usize)))
        };
        let Forecast { mut all, unknown } = Forecast::of(&outlook, &states, &selected, read);
        let shown = spec.nodes.iter().find(|node| node.kind == "ingest").and_then(read).unwrap_or(images) as f64;
        all += Expected::measured(rate.picture * shown);
        match (unknown.as_slice(), rate.network) {
            ([], _) => {}
            ([name], Some(network)) if name == "features" => all += Expected::measured(network * shown),
            _ => return None,
        }
        on_cpu.then_some(all)
    };
    Some(format!("expected to take {}, and {} with `--profile smoke`", of(None)?, of(Some("smoke"))?))
}

/// The template for this folder.
fn fill(wanted: &Wanted<'_>) -> String {
    let Wanted { clusters, images, .. } = *wanted;
    let unlabeled = match wanted.folders {
        Folders::Doubted => "labels = false                 # the names of the subfolders do not look like classes\n",
        Folders::Unread => "labels = false                 # the subfolders are not read as classes\n",
        Folders::Plain | Folders::Classes => "",
    };
    let skip = "skip_broken = true             # images that cannot be decoded are left out; else the run stops at them\n";
    let skip_broken = if wanted.skip_broken { skip.to_owned() } else { format!("# {skip}") };
    let (encoder, settings) = match wanted.encoder {
        Encoder::Learned => ("pretext", ""),
        Encoder::Loaded(settings) => ("encoder", settings.as_str()),
    };
    // Where neighbors are looked for, what heads read, and the clusters by k-means that they begin with.
    let (space, head, start) = match wanted.encoder {
        Encoder::Learned => ("joined", "backbone", "joined_head"),
        Encoder::Loaded(_) => ("features", "features", "kmeans"),
    };
    let (learned, labeled) = (settings.is_empty(), wanted.folders == Folders::Classes);
    let k = 20.min(images.saturating_sub(1)).max(1);
    let (many, setting, advice, most) = match clusters {
        Count::Number(number) => {
            let advice = "here and below; not sure? Try a few more than you expect, and look at the cluster sizes";
            (number.to_string(), format!("clusters = {number}"), advice, number)
        }
        Count::Auto(most) => (
            "as many as it finds".to_owned(),
            "clusters_from = \"how_many\"".to_owned(),
            "here and below",
            SMOKE_CLUSTERS.min(most),
        ),
    };
    // As many as are looked for, and their neighbors.
    let smoke = SMOKE.max(4 * most).max(k + 1).min(images);
    let mut text = TEMPLATE.to_owned();
    let counted = matches!(clusters, Count::Auto(_));
    for (section, kept) in [("labels", labeled), ("learned", learned), ("loaded", !learned), ("counted", counted)] {
        let (start, end) = (format!("# <<{section}\n"), format!("# {section}>>\n"));
        while let (Some(from), Some(to)) = (text.find(&start), text.find(&end)) {
            let inside = text[from + start.len()..to].to_owned();
            text.replace_range(from..to + end.len(), if kept { &inside } else { "" });
        }
    }
    text.replace("<<name>>", &serde_json::Value::String(wanted.name.to_owned()).to_string())
        .replace("<<root>>", wanted.root)
        .replace("<<unlabeled>>", unlabeled)
        .replace("<<skip_broken>>", &skip_broken)
        .replace("<<encoder>>", encoder)
        .replace("<<settings>>", settings)
        .replace("<<space>>", space)
        .replace("<<head>>", head)
        .replace("<<start>>", start)
        .replace("<<input>>", if learned { "images = \"data.images\"" } else { "features = \"features\"" })
        .replace("<<clusters>><<advice>>", &format!("{setting:<30} # {advice}"))
        .replace("<<clusters>>", &setting)
        .replace("<<many>>", &many)
        .replace("<<most>>", &(if let Count::Auto(most) = clusters { most } else { MOST }).to_string())
        .replace("<<smoke_most>>", &most.to_string())
        .replace("<<images>>", &images.to_string())
        // At most a quarter of the images per step, so that small folders train at all.
        .replace("<<batch>>", &256.min(images / 4).max(2).to_string())
        .replace("<<smoke>>", &smoke.to_string())
        .replace("<<k>>", &k.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_writes_is_a_pipeline_without_faults() {
        let loaded = Encoder::Loaded("kind = \"frozen\"\nnetwork = { backbone = \"clip_vit_b32\" }\n".into());
        let Ok(root) = quoted(Path::new("/photos/\"odd\" name")) else { panic!("it is text") };
        let each = [(&Encoder::Learned, Count::Number(7)), (&loaded, Count::Number(7)), (&loaded, Count::Auto(40))];
        for (encoder, clusters) in each {
            for folders in [Folders::Plain, Folders::Classes, Folders::Doubted, Folders::Unread] {
                let skip_broken = folders == Folders::Plain;
                let text = fill(&Wanted { name: "photos", root: &root, clusters, images: 5000, folders, skip_broken, encoder });
                assert!(!text.contains("<<") && !text.contains(">>"), "{text}");
                for profile in [None, Some("smoke".to_owned())] {
                    let request = Request { profile, ..Request::default() };
                    let spec = spec::check(Path::new("photos.toml"), &text, &request, &registry::catalog());
                    let spec = spec.unwrap_or_else(|faults| panic!("{}", faults.render(false, 100)));
                    let has = |kind: &str| spec.nodes.iter().any(|node| node.kind == kind);
                    assert_eq!(has("evaluate"), folders == Folders::Classes);
                    assert_eq!(has("simclr"), matches!(encoder, Encoder::Learned));
                    assert_eq!(has("frozen"), !has("simclr"));
                    assert_eq!(has("auto_k"), clusters == Count::Auto(40));
                }
                assert_eq!(text.contains("\nlabels = false "), matches!(folders, Folders::Doubted | Folders::Unread));
                assert_eq!(text.contains("\nskip_broken = true "), skip_broken);
            }
        }
    }

    #[test]
    fn clusters_are_at_least_two_and_at_most_as_many_as_images() {
        let of =
            |asked: Option<usize>, images| clusters_of(asked.map(Count::Number), images).map_err(|unfit| unfit.to_string());
        let numbers = [10, 6, 2, 2].map(Count::Number).map(Ok);
        assert_eq!([of(None, 5000), of(None, 12), of(None, 2), of(Some(2), 2)], numbers);
        let found = |images| clusters_of(count("auto").ok(), images).map_err(|unfit| unfit.to_string());
        assert_eq!([found(100_000), found(1636), found(90), found(5)], [50, 40, 9, 3].map(Count::Auto).map(Ok));
        assert_eq!(found(4).unwrap_err(), "4 images cannot be sorted into 3 clusters");
        assert!(count("many").is_err() && count("7") == Ok(Count::Number(7)));
        assert_eq!(of(Some(1), 9).unwrap_err(), "`--clusters` is 1, and clustering needs two at least");
        assert_eq!(of(Some(0), 9).unwrap_err(), "`--clusters` is 0, and clustering needs two at least");
        assert_eq!(of(Some(10), 9).unwrap_err(), "9 images cannot be sorted into 10 clusters");
        assert_eq!(of(None, 1).unwrap_err(), "1 image cannot be sorted into 2 clusters");
    }

    #[test]
    fn a_folder_names_its_pipeline_and_a_second_one_has_a_number() {
        let slugs = ["/a/My Photos (2024)", "/a/été", "/", "/a/..x", "/a/store", "/a/写真"].map(|path| slug(Path::new(path)));
        assert_eq!(slugs, ["my-photos-2024", "t", "photos", "x", "photos", "photos"]);
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("new.toml");
        let name = || free_name("cats", Some(&output), &dir.path().join("artifacts"));
        assert_eq!(name(), "cats");
        let text = |name: &str| {
            let (folders, encoder) = (Folders::Plain, &Encoder::Learned);
            fill(&Wanted {
                name,
                root: "\"/photos\"",
                clusters: Count::Number(2),
                images: 100,
                folders,
                skip_broken: false,
                encoder,
            })
        };
        fs::write_atomic(&dir.path().join("a.toml"), text("cats").as_bytes()).unwrap();
        fs::write_atomic(&dir.path().join("b.toml"), text("cats-2").as_bytes()).unwrap();
        fs::write_atomic(&dir.path().join("c.toml"), b"no pipeline").unwrap();
        assert_eq!(name(), "cats-3");
    }
}
