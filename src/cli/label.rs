//! `kinset label`: names for clusters, and images moved or rejected, in a file beside the pipeline's.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::args::PipelineArgs;
use super::common::{Answer, Failure, Held, looked_in, outlook, stored};
use super::pictures::Pictures;
use super::terminal;
use crate::artifact::assignments::{AssignmentTable, Assignments};
use crate::artifact::{Artifact, Stored};
use crate::base::fault::{self, Diagnosis, Exit, Fault};
use crate::base::unit;
use crate::dataset::names::carry::missing;
use crate::dataset::names::error::Clusters;
use crate::dataset::names::{Change, Item, Names, NamesError, NamesFile, Place, carried};
use crate::pipeline::spec::Spec;
use crate::pipeline::state::Outlook;
use crate::report::gather::Glance;
use crate::report::names;

/// Name clusters, merge them, move or reject single images, and list the groups
#[derive(Debug, Args)]
#[command(after_help = "\
Names are kept in photos.names.toml beside photos.toml, or in the file that a stage of the kind
`named` reads. `report`, `export` and `predict` use them. Two clusters of one name are one group.

Examples:
  kinset label photos.toml                                list the groups
  kinset label photos.toml --cluster 3=shoes --cluster 5=shoes
  kinset label photos.toml --rename shoes=boots
  kinset label photos.toml --move holiday/12.jpg=shoes --reject 9f86d081884c7d65
  kinset label photos.toml --carry                        after a run that changed the clusters")]
pub struct LabelArgs {
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// The stage whose clusters are named [default: the one the file names, else the last that predicts]
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
    /// Name a cluster; nothing behind the `=` takes its name away (may be repeated)
    #[arg(long, value_name = "N=NAME", value_parser = pair, help_heading = "Changes")]
    cluster: Vec<(String, String)>,
    /// Give a group another name; that of another group merges the two (may be repeated)
    #[arg(long, value_name = "OLD=NEW", value_parser = pair, help_heading = "Changes")]
    rename: Vec<(String, String)>,
    /// Move an image, by its id or path, to a group (may be repeated)
    #[arg(long = "move", value_name = "IMAGE=NAME", value_parser = image_pair, help_heading = "Changes")]
    moves: Vec<(String, String)>,
    /// Put an image, by its id or path, into no group (may be repeated)
    #[arg(long, value_name = "IMAGE", help_heading = "Changes")]
    reject: Vec<String>,
    /// Put an image that was moved or rejected back where its cluster is (may be repeated)
    #[arg(long, value_name = "IMAGE", help_heading = "Changes")]
    restore: Vec<String>,
    /// Carry the names over to the clusters of the present result, by the images that they share with those of the result they were given to
    #[arg(long, conflicts_with = "forget", help_heading = "Another result")]
    carry: bool,
    /// Drop the names of clusters, and keep the images that were moved or rejected
    #[arg(long, help_heading = "Another result")]
    forget: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const NO_SIGN: &str = "an `=` with a name behind it is expected";

/// Splits `N=NAME`.
fn pair(text: &str) -> Result<(String, String), String> {
    let (key, name) = text.split_once('=').ok_or(NO_SIGN)?;
    Ok((key.to_owned(), name.to_owned()))
}

/// Splits `IMAGE=NAME` at its last `=`, since files have one in their names more often than groups.
fn image_pair(text: &str) -> Result<(String, String), String> {
    let (image, name) = text.rsplit_once('=').ok_or(NO_SIGN)?;
    Ok((image.to_owned(), name.to_owned()))
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("`{pipeline}` has no stage that writes assignments")]
    NoAssignments { pipeline: String },
    #[error("`{written}` is not the number of a cluster: {there}")]
    NoCluster { written: String, there: Clusters },
    #[error("there is no group `{name}`")]
    NoGroup { name: String, nearest: Option<String> },
    #[error("`{stage}` has no image `{image}`")]
    NoImage { stage: String, image: String },
    #[error("`{image}` is the path of {count} images of `{stage}`")]
    ManyImages { stage: String, image: String, count: usize },
    #[error(
        "the result that `{path}` was made for is no longer in `{artifacts}`, so nobody knows which images its clusters had"
    )]
    Lost { path: String, artifacts: String },
}

impl Fault for Trouble {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::NoAssignments { .. } => {
                Exit::Usage.code("label::no-assignments").hint("add one of the kind `predict`, which reads a classifier")
            }
            Self::NoCluster { .. } => Exit::Usage.code("label::no-cluster").hint("`kinset label PIPELINE` lists the clusters"),
            Self::NoGroup { nearest, .. } => Exit::Usage.code("label::no-group").hint(match nearest {
                Some(name) => format!("did you mean `{name}`?"),
                None => "`kinset label PIPELINE` lists the groups".into(),
            }),
            Self::NoImage { .. } => Exit::Usage
                .code("label::no-image")
                .hint("name it by its id or path as `kinset export PIPELINE assignments --output x.csv` writes them"),
            Self::ManyImages { .. } => Exit::Usage.code("label::many-images").hint("name one by its id"),
            Self::Lost { .. } => Exit::Store.code("label::lost").hint(
                "go back to that result, if its settings are known; or drop the names of clusters with `--forget`, which keeps \
                 what was moved and rejected, and name the clusters anew",
            ),
        }
    }
}

/// The assignments whose clusters are named, and where their names are kept.
pub(super) struct Subject {
    pub(super) held: Held,
    pub(super) table: AssignmentTable,
    pub(super) path: PathBuf,
}

impl Subject {
    /// The assignments of the stage that was asked for, else of the one that the file of names is about, else of the last that predicts.
    pub(super) fn find(
        spec: &Spec,
        outlook: &Outlook<'_>,
        pipeline: &PipelineArgs,
        asked: Option<&str>,
    ) -> Result<Self, Failure> {
        let none = || Failure::own(Trouble::NoAssignments { pipeline: pipeline.pipeline.display().to_string() });
        let stage = if let Some(stage) = asked {
            stage.to_owned()
        } else {
            let node = Glance::at(outlook, None).subject().ok_or_else(none)?;
            let named = Names::read(&names::place(outlook, node))?.stage;
            let gives = |name: &String| spec.node(name).is_some_and(|node| node.gives(Assignments::KIND));
            named.filter(gives).unwrap_or_else(|| spec.nodes[node].name.clone())
        };
        let held = stored(spec, outlook, &stage, &[Assignments::KIND])?;
        let path = names::place(outlook, held.node);
        Ok(Self { table: AssignmentTable::load(&held.typed())?, held, path })
    }

    /// Refuses a file that names other clusters than these.
    pub(super) fn check(&self, names: &Names) -> Result<(), NamesError> {
        names.check(&self.path, &self.held.stage, self.held.digest, self.table.clusters)
    }
}

pub(super) fn run(args: &LabelArgs) -> Answer {
    outlook(&args.pipeline, |spec, outlook| {
        let subject = Subject::find(spec, outlook, &args.pipeline, args.stage.as_deref())?;
        let changes = [args.cluster.len(), args.rename.len(), args.moves.len(), args.reject.len(), args.restore.len()];
        let asked: usize = changes.iter().sum();
        if asked == 0 && !args.carry && !args.forget {
            let names = Names::read(&subject.path)?;
            subject.check(&names)?;
            list(args, &subject, &names, &[])?;
            return Ok(Exit::Done);
        }
        let images = Images::of(outlook, &subject, asked)?;
        let (changes, file) = NamesFile::edit(&subject.path, |file| {
            let mut changes = Vec::new();
            if args.carry {
                changes.extend(carry(outlook, &subject, file)?);
            } else if args.forget {
                changes.extend(forget(&subject, file)?);
            }
            subject.check(file.names())?;
            change(args, &subject, &images, file, &mut changes)?;
            if file.names().highest().is_some() {
                file.set_result(&subject.held.stage, subject.held.digest);
            }
            Ok::<_, Failure>(changes)
        })?;
        let count = changes.iter().filter(|change| change.before != change.after).count();
        let words = if count == 0 { "nothing to change".to_owned() } else { unit::counted(count as u64, "change") };
        terminal::say(&format!("{words} in {}", file.path().display()));
        list(args, &subject, file.names(), &changes)?;
        Ok(Exit::Done)
    })
}

/// Images by what a person calls them.
struct Images<'a> {
    stage: &'a str,
    ids: Vec<&'a str>,
    of_path: BTreeMap<String, Vec<String>>,
}

impl<'a> Images<'a> {
    /// Paths are read only if something is `asked` of images.
    fn of(outlook: &Outlook<'_>, subject: &'a Subject, asked: usize) -> Result<Self, Failure> {
        let mut ids: Vec<&str> = subject.table.ids.iter().map(String::as_str).collect();
        ids.sort_unstable();
        let mut of_path: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if asked > 0 {
            let states = outlook.states(&std::collections::BTreeSet::new());
            let pictures = Pictures::behind(outlook, &states, subject.held.node, &subject.table.ids)?;
            let paths = pictures.map(|pictures| pictures.paths()).transpose()?.unwrap_or_default();
            for (id, path) in subject.table.ids.iter().zip(paths).filter(|(_, path)| !path.is_empty()) {
                of_path.entry(path).or_default().push(id.clone());
            }
        }
        Ok(Self { stage: &subject.held.stage, ids, of_path })
    }

    fn find(&self, written: &str) -> Result<Item, Failure> {
        if self.ids.binary_search(&written).is_ok() {
            return Ok(Item::Image(written.to_owned()));
        }
        let (stage, image) = (self.stage.to_owned(), written.to_owned());
        match self.of_path.get(written).map(Vec::as_slice) {
            Some([id]) => Ok(Item::Image(id.clone())),
            Some(several) if several.len() > 1 => Err(Failure::own(Trouble::ManyImages { stage, image, count: several.len() })),
            _ => Err(Failure::own(Trouble::NoImage { stage, image })),
        }
    }
}

/// Makes the changes that were asked for, in the order in which the help lists them.
fn change(
    args: &LabelArgs,
    subject: &Subject,
    images: &Images<'_>,
    file: &mut NamesFile,
    changes: &mut Vec<Change>,
) -> Result<(), Failure> {
    let clusters = subject.table.clusters;
    let group = |name: &str| Some(Place::Group(name.to_owned())).filter(|_| !name.is_empty());
    for (written, name) in &args.cluster {
        let number = written.trim().parse::<usize>().ok().filter(|number| *number < clusters);
        let number =
            number.ok_or_else(|| Failure::own(Trouble::NoCluster { written: written.clone(), there: Clusters(clusters) }))?;
        changes.push(file.set(&Item::Cluster(number), group(name))?);
    }
    for (old, new) in &args.rename {
        let done = file.rename(old, new, clusters)?;
        if done.is_empty() && old != new {
            let list = file.names().list(&subject.table);
            let nearest = fault::nearest(old, list.iter().map(|group| group.name.as_str())).map(str::to_owned);
            return Err(Failure::own(Trouble::NoGroup { name: old.clone(), nearest }));
        }
        changes.extend(done);
    }
    for (written, name) in &args.moves {
        changes.push(file.set(&images.find(written)?, Some(Place::Group(name.clone())))?);
    }
    for written in &args.reject {
        changes.push(file.set(&images.find(written)?, Some(Place::Rejected))?);
    }
    for written in &args.restore {
        changes.push(file.set(&images.find(written)?, None)?);
    }
    Ok(())
}

/// Drops all that depends on the numbers of clusters.
fn forget(subject: &Subject, file: &mut NamesFile) -> Result<Vec<Change>, NamesError> {
    let changes = file.forget()?;
    file.set_result(&subject.held.stage, subject.held.digest);
    Ok(changes)
}

/// Gives the names of one result to the clusters of another.
fn carry(outlook: &Outlook<'_>, subject: &Subject, file: &mut NamesFile) -> Result<Vec<Change>, Failure> {
    let names = file.names().clone();
    if names.of == Some(subject.held.digest) || names.highest().is_none() {
        return Ok(Vec::new());
    }
    let old = match names.of {
        Some(of) => outlook.store.output_of(Assignments::KIND, of)?,
        None => None,
    };
    let lost = || {
        let path = subject.path.display().to_string();
        Failure::own(Trouble::Lost { path, artifacts: looked_in(outlook) })
    };
    let old = old.ok_or_else(lost)?;
    let old: Stored<Assignments> = Stored::new(outlook.store.paths(&old), old.content, "the earlier result");
    let old = AssignmentTable::load(&old)?;
    let mut changes = forget(subject, file)?;
    let dropped = changes.iter().filter(|change| matches!(change.item, Item::Image(_))).count();
    for found in carried(&names, &old, &subject.table) {
        let (cluster, known) = (found.cluster, unit::counted(found.known as u64, "known image"));
        match found.name {
            Some(name) => {
                terminal::say(&format!("cluster {cluster}: {name}, by {} of {known}", unit::count(found.agree as u64)));
                changes.push(file.set(&Item::Cluster(cluster), Some(Place::Group(name)))?);
            }
            None => terminal::say(&format!("cluster {cluster}: no name is that of more than half of {known}")),
        }
    }
    if dropped > 0 {
        let images = unit::counted(dropped as u64, "image");
        terminal::say(&format!("{images} moved to clusters without a name: back where the classifier has them"));
    }
    let given: Vec<&String> = file.names().clusters.values().collect();
    let mut lost: Vec<&String> = names.clusters.values().filter(|name| !given.contains(name)).collect();
    lost.dedup();
    for name in lost {
        terminal::say(&format!("warning: no cluster takes the name `{name}`"));
    }
    Ok(changes)
}

/// Shows the groups.
fn list(args: &LabelArgs, subject: &Subject, names: &Names, changes: &[Change]) -> Result<(), Failure> {
    let groups = names.list(&subject.table);
    let laid = names.groups(&subject.table);
    let rejected = (0..laid.len()).filter(|&row| laid.is_rejected(row)).count();
    if args.json {
        let each: Vec<_> = groups
            .iter()
            .map(|group| {
                json!({ "name": group.name, "named": group.named, "clusters": group.clusters, "images": group.images,
                        "moved": group.moved })
            })
            .collect();
        return terminal::print_json(&json!({
            "file": subject.path.display().to_string(), "stage": subject.held.stage, "of": subject.held.digest, "groups": each,
            "rejected": rejected, "unknown": missing(names, &subject.table), "changes": changes,
        }));
    }
    let mut table = terminal::table(&["group", "images", "moved", "clusters"], &[1, 2]);
    for group in &groups {
        let clusters: Vec<String> = group.clusters.iter().map(ToString::to_string).collect();
        let moved = if group.moved > 0 { unit::count(group.moved as u64) } else { String::new() };
        table.add_row([group.name.clone(), unit::count(group.images as u64), moved, clusters.join(", ")]);
    }
    terminal::print(&terminal::text(&table))?;
    if rejected > 0 {
        terminal::say(&format!("{} rejected", unit::counted(rejected as u64, "image")));
    }
    let unknown = missing(names, &subject.table);
    if unknown > 0 {
        let images = unit::counted(unknown as u64, "image");
        terminal::say(&format!("{images} moved or rejected that `{}` does not have", subject.held.stage));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_behind_the_sign() {
        let two = |key: &str, name: &str| Ok((key.to_owned(), name.to_owned()));
        assert_eq!(image_pair("a=b.jpg=shoes"), two("a=b.jpg", "shoes"));
        assert_eq!(pair("3=a=b"), two("3", "a=b"));
        assert_eq!(pair("3="), two("3", ""));
        assert!(pair("3").is_err() && image_pair("3").is_err());
    }
}
