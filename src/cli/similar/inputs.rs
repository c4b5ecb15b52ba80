//! What a selection is made of: files of features, or images whose features an encoder makes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::args::{Materialize, SimilarArgs};
use super::command::Unfit;
use super::materialize::{Found, Pictures, VOC_IMAGES};
use crate::artifact::selection::SelectionTable;
use crate::base::fs;
use crate::base::search_path::DataPaths;
use crate::cli::common::Failure;
use crate::cli::data;
use crate::cli::init_encoder::{self, Encoder};
use crate::cli::terminal;

/// One of the things that were given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Input {
    /// As it was typed.
    pub(super) path: PathBuf,
    /// The format of a source of images; nothing for features.
    pub(super) images: Option<&'static str>,
}

impl Input {
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), images: data::form(path) }
    }

    /// Where the source begins: VOC's folder has annotations and masks beside its images.
    pub(super) fn root(&self) -> PathBuf {
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

/// All that was given.
pub(super) struct Inputs {
    pub(super) target: Input,
    /// The shards.
    pub(super) pool: Vec<Input>,
    pub(super) held_out: Vec<Input>,
    /// What makes features of images, if any are given.
    pub(super) encoder: Option<Encoder>,
}

impl Inputs {
    /// Looks at what was given, and for an encoder where it needs one.
    ///
    /// # Errors
    /// If features and images are mixed, a flag goes with the other of the two, or there is no such encoder.
    pub(super) fn of(args: &SimilarArgs, places: &DataPaths) -> Result<Self, Failure> {
        let all = |paths: &[PathBuf]| paths.iter().map(|path| Input::of(path)).collect::<Vec<_>>();
        // clap has seen to it that one of the two is there.
        let target = args.target_csv.as_ref().or(args.target_db.as_ref()).map_or(Path::new(""), PathBuf::as_path);
        let pool = if args.near_csv.is_empty() { args.near_db.as_slice() } else { &args.near_csv };
        let mut inputs = Self { target: Input::of(target), pool: all(pool), held_out: all(&args.held_out), encoder: None };
        inputs.check(args)?;
        if inputs.are_images() {
            let choice = init_encoder::chosen(args.encoder.as_deref(), places)?;
            terminal::say(&choice.to_string());
            inputs.encoder = Some(choice.encoder);
        }
        Ok(inputs)
    }

    /// Each thing that was given.
    pub(super) fn all(&self) -> impl Iterator<Item = &Input> {
        [&self.target].into_iter().chain(&self.pool).chain(&self.held_out)
    }

    /// True if features are made here.
    pub(super) fn are_images(&self) -> bool {
        self.target.images.is_some()
    }

    fn check(&self, args: &SimilarArgs) -> Result<(), Failure> {
        let unfit = |what: String, hint: &str| Err(Failure::own(Unfit { what, hint: hint.to_owned() }));
        if let Some(other) = self.all().find(|input| input.images.is_some() != self.are_images()) {
            let shown = |input: &Input| format!("`{}` holds {}", input.path.display(), input.content());
            return unfit(
                format!("{}, and {}", shown(&self.target), shown(other)),
                "features are comparable only if one encoder made both: give images everywhere (folders, .tar, .parquet), and one \
                 encoder makes the features of all; or files of features everywhere",
            );
        }
        let materialized = args.materialize != Materialize::List && args.near_db.is_none();
        if !self.are_images() {
            if materialized {
                return unfit("`--materialize` needs the pool's images".into(), "name their folder with `--near-db`");
            }
            return match (&args.encoder, args.skip_broken) {
                (None, false) => Ok(()),
                _ => unfit(
                    "`--encoder` and `--skip-broken` are for images, and features were given".into(),
                    "give folders of images as target and pool, or leave the flag out",
                ),
            };
        }
        let of_features = [
            ("--exclude", args.exclude.is_some()),
            ("--id-column", args.id_column.is_some()),
            ("--column", args.column.is_some()),
            ("--header", args.header.is_some()),
            ("--separator", args.separator.is_some()),
            ("--feature-dim", args.feature_dim.is_some()),
        ];
        if let Some((flag, _)) = of_features.iter().find(|(_, given)| *given) {
            return unfit(
                format!("`{flag}` is for files of features, and images were given"),
                "leave it out; images that must not be selected are named with `--held-out FOLDER`",
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
    pub(super) fn pictures(&self, args: &SimilarArgs) -> fs::Result<Option<PoolPictures>> {
        let own = || self.pool.iter().filter(|input| input.is_folder()).map(|input| input.path.as_path()).collect::<Vec<_>>();
        let folders = match &args.near_db {
            Some(folder) => vec![folder.as_path()],
            None => own(),
        };
        let opened = folders.into_iter().map(Pictures::open).collect::<fs::Result<Vec<_>>>()?;
        // A folder among archives is not known by its number.
        let all = opened.len() == self.pool.len() || args.near_db.is_some();
        Ok((all && !opened.is_empty()).then_some(PoolPictures { folders: opened }))
    }
}

/// The folders of the pool's pictures: one for all shards, or one each.
pub(super) struct PoolPictures {
    folders: Vec<Pictures>,
}

impl PoolPictures {
    /// The folder of a shard, from 0.
    pub(super) fn of(&self, shard: usize) -> &Pictures {
        &self.folders[if self.folders.len() == 1 { 0 } else { shard }]
    }

    /// True if a folder of pictures lies in this one.
    pub(super) fn are_below(&self, folder: &Path) -> bool {
        self.folders.iter().any(|pictures| pictures.is_below(folder))
    }

    /// Where the picture of a name lies, in whichever folder has it first.
    pub(super) fn find(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().find_map(|pictures| pictures.find(name).ok()?.image)
    }

    /// Where a picture of a shard and its annotation go below a folder. Where there are several folders, the same name may be in all.
    pub(super) fn destination(&self, shard: usize, name: &str, found: &Found) -> Vec<(PathBuf, PathBuf)> {
        let below = if self.folders.len() == 1 { PathBuf::new() } else { PathBuf::from(super::plan::pool(shard + 1)) };
        let all = self.of(shard).destination(name, found);
        all.into_iter().map(|(from, to)| (from, below.join(to))).collect()
    }
}

/// The names of files, for people, in place of those that are made of content.
pub(super) struct FileNames {
    /// By row.
    pub(super) target: Vec<String>,
    /// By row of the pool: what images are called in its features, and their paths within their source.
    pub(super) ids: Vec<String>,
    pub(super) paths: Vec<String>,
    /// The row of the pool that each shard begins at.
    pub(super) starts: Vec<usize>,
}

impl FileNames {
    /// The shard of a row of the pool, from 0.
    pub(super) fn shard(&self, row: u32) -> usize {
        self.starts.partition_point(|start| *start <= row as usize).saturating_sub(1)
    }

    pub(super) fn rename(&self, selection: &mut SelectionTable) {
        selection.targets.clone_from(&self.target);
        for chosen in &mut selection.chosen {
            chosen.id.clone_from(&self.paths[chosen.best.pool as usize]);
        }
        let doubled = selection.edges.iter().any(|judged| !judged.duplicate_of.is_empty());
        let known: BTreeMap<&String, &String> = self.ids.iter().zip(&self.paths).rev().filter(|_| doubled).collect();
        for judged in &mut selection.edges {
            judged.pool_id.clone_from(&self.paths[judged.edge.pool as usize]);
            if let Some(path) = known.get(&judged.duplicate_of) {
                judged.duplicate_of.clone_from(path);
            }
        }
    }
}
