//! The inputs of a selection: files of features, or images whose features an encoder makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::args::{Materialize, SetArgs};
use super::materialize::{Found, Pictures, VOC_IMAGES};
use crate::artifact::selection::SelectionTable;
use crate::base::search_path::DataPaths;
use crate::base::{fs, rows};
use crate::cli::common::Failure;
use crate::cli::data;
use crate::cli::init_encoder::{self, Encoder};
use crate::cli::terminal;

/// One of the things that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Input {
    /// As it was typed.
    pub(in crate::cli) path: PathBuf,
    /// The format of a source of images; nothing for features.
    pub(in crate::cli) images: Option<&'static str>,
}

impl Input {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), images: data::form(path) }
    }

    /// Where the source begins: VOC's folder has annotations and masks beside its images.
    pub(in crate::cli) fn root(&self) -> PathBuf {
        let voc = self.path.join(VOC_IMAGES);
        if self.images == Some("folder") && fs::exists(&voc) { voc } else { self.path.clone() }
    }

    fn is_folder(&self) -> bool {
        self.images == Some("folder")
    }

    fn content(&self) -> &'static str {
        if self.images.is_some() { "images" } else { "features" }
    }
}

/// What was typed.
#[derive(Default)]
pub(in crate::cli) struct Given<'a> {
    /// What shall be looked like, if anything.
    pub(in crate::cli) target: Option<&'a Path>,
    pub(in crate::cli) pool: &'a [PathBuf],
    pub(in crate::cli) held_out: &'a [PathBuf],
    /// A list of names never to select.
    pub(in crate::cli) exclude: Option<&'a Path>,
}

/// All that was given.
pub(in crate::cli) struct Inputs {
    pub(in crate::cli) target: Option<Input>,
    /// The shards.
    pub(in crate::cli) pool: Vec<Input>,
    pub(in crate::cli) held_out: Vec<Input>,
    /// What makes features of images, if any are given.
    pub(in crate::cli) encoder: Option<Encoder>,
}

impl Inputs {
    /// Looks at what was given, and for an encoder where it needs one.
    ///
    /// # Errors
    /// If features and images are mixed, a flag goes with the other of the two, or there is no such encoder.
    pub(in crate::cli) fn of(given: &Given<'_>, set: &SetArgs, places: &DataPaths) -> Result<Self, Failure> {
        let all = |paths: &[PathBuf]| paths.iter().map(|path| Input::of(path)).collect::<Vec<_>>();
        let (target, pool, held_out) = (given.target.map(Input::of), all(given.pool), all(given.held_out));
        let mut inputs = Self { target, pool, held_out, encoder: None };
        inputs.check(given, set)?;
        if inputs.are_images() {
            let choice = init_encoder::chosen(set.encoder.as_deref(), places)?;
            terminal::say(&choice.to_string());
            inputs.encoder = Some(choice.encoder);
        }
        Ok(inputs)
    }

    /// Each thing that was given.
    pub(in crate::cli) fn all(&self) -> impl Iterator<Item = &Input> {
        self.target.iter().chain(&self.pool).chain(&self.held_out)
    }

    /// True if features are made here.
    pub(in crate::cli) fn are_images(&self) -> bool {
        self.all().next().is_some_and(|input| input.images.is_some())
    }

    fn check(&self, given: &Given<'_>, set: &SetArgs) -> Result<(), Failure> {
        let unfit = |what: String, hint: &str| Err(super::set::unfit(what, hint));
        let other = self.all().find(|input| input.images.is_some() != self.are_images());
        if let Some((first, other)) = self.all().next().zip(other) {
            let shown = |input: &Input| format!("`{}` holds {}", input.path.display(), input.content());
            return unfit(
                format!("{}, and {}", shown(first), shown(other)),
                "features are comparable only if one encoder made both: give images everywhere (folders, .tar, .parquet), and one \
                 encoder makes the features of all; or files of features everywhere",
            );
        }
        let materialized = set.materialize != Materialize::List && set.near_db.is_none();
        if !self.are_images() {
            if materialized {
                return unfit("`--materialize` needs the pool's images".into(), "name their folder with `--near-db`");
            }
            return match (&set.encoder, set.skip_broken) {
                (None, false) => Ok(()),
                _ => unfit(
                    "`--encoder` and `--skip-broken` are for images, and features were given".into(),
                    "give folders of images, or leave the flag out",
                ),
            };
        }
        let of_features = [
            ("--exclude", given.exclude.is_some()),
            ("--id-column", set.id_column.is_some()),
            ("--column", set.column.is_some()),
            ("--header", set.header.is_some()),
            ("--separator", set.separator.is_some()),
            ("--feature-dim", set.feature_dim.is_some()),
        ];
        if let Some((flag, _)) = of_features.iter().find(|(_, given)| *given) {
            return unfit(
                format!("`{flag}` is for files of features, and images were given"),
                match given.exclude {
                    Some(_) => "leave it out; images that must not be selected are named with `--held-out FOLDER`",
                    None => "leave it out",
                },
            );
        }
        let archive = self.pool.iter().find(|input| !input.is_folder());
        match archive.filter(|_| materialized) {
            Some(archive) => unfit(
                format!("`--materialize` needs images that are files, and those of `{}` are inside it", archive.path.display()),
                "unpack it and give the folder; the lists and tables are written without",
            ),
            None => Ok(()),
        }
    }

    /// Where the pool's pictures lie, if that is known.
    ///
    /// # Errors
    /// If a folder cannot be read.
    pub(in crate::cli) fn pictures(&self, set: &SetArgs) -> fs::Result<Option<PoolPictures>> {
        let own = || self.pool.iter().filter(|input| input.is_folder()).map(|input| input.path.as_path()).collect::<Vec<_>>();
        let folders = match &set.near_db {
            Some(folder) => vec![folder.as_path()],
            None => own(),
        };
        let opened = folders.into_iter().map(Pictures::open).collect::<fs::Result<Vec<_>>>()?;
        // A folder among archives is not known by its number.
        let all = opened.len() == self.pool.len() || set.near_db.is_some();
        Ok((all && !opened.is_empty()).then_some(PoolPictures { folders: opened }))
    }
}

/// The folders of the pool's pictures: one for all shards, or one each.
pub(in crate::cli) struct PoolPictures {
    folders: Vec<Pictures>,
}

impl PoolPictures {
    /// The folder of a shard, from 0.
    pub(in crate::cli) fn of(&self, shard: usize) -> &Pictures {
        &self.folders[if self.folders.len() == 1 { 0 } else { shard }]
    }

    /// True if a folder of pictures lies in this one.
    pub(in crate::cli) fn are_below(&self, folder: &Path) -> bool {
        self.folders.iter().any(|pictures| pictures.is_below(folder))
    }

    /// Where the picture of a name lies, in whichever folder has it first.
    pub(in crate::cli) fn find(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().find_map(|pictures| pictures.find(name).ok()?.image)
    }

    /// Where a picture of a shard and its annotation go below a folder. Where there are several folders, the same name may be in all.
    pub(in crate::cli) fn destination(&self, shard: usize, name: &str, found: &Found) -> Vec<(PathBuf, PathBuf)> {
        let below = if self.folders.len() == 1 { PathBuf::new() } else { PathBuf::from(super::plan::pool(shard + 1)) };
        let all = self.of(shard).destination(name, found);
        all.into_iter().map(|(from, to)| (from, below.join(to))).collect()
    }
}

/// The names of files, for people, in place of those that are made of content.
pub(in crate::cli) struct FileNames {
    /// By row; none where the target is images of the pool.
    pub(in crate::cli) target: Option<Vec<String>>,
    /// By row of the pool: what images are called in its features, and their paths within their source.
    pub(in crate::cli) ids: Vec<String>,
    pub(in crate::cli) paths: Vec<String>,
    /// The row of the pool that each shard begins at.
    pub(in crate::cli) starts: Vec<usize>,
}

impl FileNames {
    /// The shard of a row of the pool, from 0.
    pub(in crate::cli) fn shard(&self, row: u32) -> usize {
        rows::table_of(&self.starts, |start| *start, row as usize)
    }

    pub(in crate::cli) fn rename(&self, selection: &mut SelectionTable) {
        for chosen in &mut selection.chosen {
            chosen.id.clone_from(&self.paths[chosen.best.pool as usize]);
        }
        let doubled = selection.edges.iter().any(|judged| !judged.duplicate_of.is_empty());
        let named = doubled || self.target.is_none();
        let known: BTreeMap<&String, &String> = self.ids.iter().zip(&self.paths).rev().filter(|_| named).collect();
        match &self.target {
            Some(target) => selection.targets.clone_from(target),
            None => {
                for target in &mut selection.targets {
                    if let Some(path) = known.get(target) {
                        target.clone_from(path);
                    }
                }
            }
        }
        for judged in &mut selection.edges {
            judged.pool_id.clone_from(&self.paths[judged.edge.pool as usize]);
            if let Some(path) = known.get(&judged.duplicate_of) {
                judged.duplicate_of.clone_from(path);
            }
        }
    }
}
