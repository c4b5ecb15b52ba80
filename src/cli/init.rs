//! `kinset init`: a commented pipeline for a folder of images.

use std::path::PathBuf;

use clap::Args;

use super::common::{Answer, Failure};
use super::terminal;
use crate::base::fault::{Diagnosis, Exit, Fault};
use crate::base::fs;
use crate::base::search_path::DataPaths;
use crate::dataset::{self, Labels, Source};

/// Write a commented pipeline for a folder of images
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kinset init my/photos > photos.toml
  kinset init my/photos --clusters 12 --output photos.toml")]
pub struct InitArgs {
    /// The folder of images
    folder: PathBuf,
    /// How many clusters to look for
    #[arg(long, default_value_t = 10)]
    clusters: usize,
    /// Where to write the pipeline [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The template; what stands in `<<…>>` is filled in.
const TEMPLATE: &str = include_str!("init.toml");

/// The output file is there already.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` already exists")]
struct Taken {
    path: String,
}

impl Fault for Taken {
    fn diagnosis(&self) -> Diagnosis {
        Exit::Usage.code("init::taken").hint("name another file with `--output`, or remove this one")
    }
}

pub(super) fn run(args: &InitArgs) -> Answer {
    // A source's root is relative to the pipeline file, and the file may be moved: name the folder in full.
    let folder = std::path::absolute(&args.folder).map_err(|error| fs::FileError::new("find", &args.folder, error))?;
    let source = Source::named("folder").root(&folder);
    let report = dataset::check(&source, &DataPaths::new("", None, None), &mut dataset::file_digest)?;
    let labelled = !matches!(report.labels, Labels::Absent { .. });
    let text = fill(&folder.display().to_string(), args.clusters, report.images, labelled);
    match &args.output {
        None => terminal::print(&text)?,
        Some(path) => {
            if fs::exists(path) {
                return Err(Failure::own(Taken { path: path.display().to_string() }));
            }
            fs::write_atomic(path, text.as_bytes())?;
            terminal::say(&format!("wrote `{}`; now: kinset run {}", path.display(), path.display()));
        }
    }
    Ok(Exit::Done)
}

/// The template for this folder.
fn fill(folder: &str, clusters: usize, images: usize, labelled: bool) -> String {
    // At most a quarter of the images per step, so that small folders train at all.
    let batch = 256.min(images / 4).max(2);
    let quoted = serde_json::Value::String(folder.to_owned()).to_string();
    let mut text = TEMPLATE
        .replace("<<root>>", &quoted)
        .replace("<<clusters>>", &clusters.to_string())
        .replace("<<images>>", &images.to_string())
        .replace("<<batch>>", &batch.to_string())
        .replace("<<k>>", &20.min(images.saturating_sub(1)).max(1).to_string());
    let (start, end) = ("# <<labels\n", "# labels>>\n");
    while let (Some(from), Some(to)) = (text.find(start), text.find(end)) {
        let inside = text[from + start.len()..to].to_owned();
        text.replace_range(from..to + end.len(), if labelled { &inside } else { "" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::spec::{self, Request};
    use crate::registry;

    #[test]
    fn what_it_writes_is_a_pipeline_without_faults() {
        for labelled in [true, false] {
            let text = fill("/photos/\"odd\" name", 7, 5000, labelled);
            assert!(!text.contains("<<") && !text.contains(">>"), "{text}");
            let spec = spec::check(std::path::Path::new("photos.toml"), &text, &Request::default(), &registry::catalog());
            let spec = spec.unwrap_or_else(|faults| panic!("{}", faults.render(false, 100)));
            assert_eq!(spec.nodes.iter().any(|node| node.kind == "evaluate"), labelled);
        }
    }
}
