//! Selections as the files of the SCAN fork: lists, tables and arrays, under its names where it has one.

use std::path::{Path, PathBuf};

use super::args::Materialize;
use super::inputs::PoolPictures;
use super::links::Links;
use super::materialize::{self, Found};
use crate::artifact::error::ArtifactError;
use crate::artifact::features::FeatureTable;
use crate::artifact::meta::Meta;
use crate::artifact::parquet::{Column, ColumnKind, TableWriter};
use crate::artifact::selection::SelectionTable;
use crate::base::output::{self, Output, OutputError};
use crate::base::stop::Stop;
use crate::builtin::similar::stage::stem;
use crate::cli::common::Failure;
use crate::cli::near_images::Near;
use crate::dataset::EXPORT_MARK;
use crate::dataset::vectors::npy;
use crate::kernel::neighbors;
use crate::math::cosine;
use crate::math::curate::choose::Edge;
use crate::math::curate::repeats::Repeats;
use crate::report::lines::Form;
use crate::stage::StageError;

/// Rows that are written at a time.
const STEP: usize = 1 << 16;
/// No image: FAISS's word for it.
const NOBODY: i64 = -1;

/// What was found among the pool's pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Pictures that were put in place, or listed.
    pub images: usize,
    /// Names without a picture.
    pub without_image: Vec<String>,
    /// Names without an annotation, where there are any.
    pub without_annotation: Vec<String>,
    /// Names whose links lead out of the folder of pictures.
    pub outside: Vec<String>,
    /// Links of an earlier selection that were removed.
    pub removed: usize,
    /// Other files that an earlier selection left.
    pub strangers: usize,
}

/// Where the files of a selection lie below the folder of results.
pub(in crate::cli) struct Names {
    pub(in crate::cli) list: String,
    edges: String,
    pub(in crate::cli) manifest: String,
    /// Of pictures.
    pub(in crate::cli) folder: String,
}

impl Names {
    /// As the fork calls the selection of so many neighbors.
    pub(super) fn of(k: usize) -> Self {
        Self { list: format!("ImageSets/scan_nn{k}.txt"), ..Self::called(&format!("nn{k}")) }
    }

    /// Of a selection with a name of its own.
    pub(in crate::cli) fn called(name: &str) -> Self {
        Self {
            list: format!("ImageSets/{name}.txt"),
            edges: format!("edges_{name}.parquet"),
            manifest: format!("manifest_{name}.parquet"),
            folder: name.to_owned(),
        }
    }
}

/// Every file that a run writes but the pipeline, and the folders `nn<k>` of pictures.
pub(super) fn files(factors: &[usize]) -> Vec<String> {
    let ours = [REPORT, PAGE, REPETITIONS, SHARED, GROUPS];
    let mut names: Vec<String> = ours.map(str::to_owned).to_vec();
    names.extend(factors.first().map(|&k| near_target(k)));
    for &k in factors {
        let Names { list, edges, manifest, folder } = Names::of(k);
        names.extend([list, edges, manifest, near_pool(k), folder]);
    }
    names
}

pub(in crate::cli) const REPORT: &str = "report.json";
pub(in crate::cli) const PAGE: &str = "report.html";
const REPETITIONS: &str = "target_dedup.parquet";
const SHARED: &str = "near_copies.csv";
const GROUPS: &str = "duplicates.csv";

fn near_target(k: usize) -> String {
    format!("topk{k}_neighbors_target.npy")
}

fn near_pool(k: usize) -> String {
    format!("topk{k}_neighbors_val_from_train.npy")
}

/// Writes a table beside its place, and puts it there whole.
fn table(
    path: &Path,
    schema: &[(&str, ColumnKind)],
    meta: Meta,
    fill: impl FnOnce(&mut TableWriter) -> Result<(), ArtifactError>,
) -> Result<(), Failure> {
    let output = Output::file(path)?;
    let place = output.path()?;
    let written = TableWriter::create(place, schema, meta).and_then(|mut writer| {
        fill(&mut writer)?;
        writer.finish()
    });
    written.map_err(|error| Failure::of_output(&output, error))?;
    Ok(output.finish()?)
}

/// The list of names, without endings, in pool order.
pub(in crate::cli) fn list(dir: &Path, names: &Names, selection: &SelectionTable) -> Result<PathBuf, Failure> {
    let path = dir.join(&names.list);
    let mut text = String::new();
    for chosen in &selection.chosen {
        text.push_str(stem(&chosen.id));
        text.push('\n');
    }
    output::write(&path, text.as_bytes())?;
    Ok(path)
}

/// Every pair that was looked at.
pub(super) fn edges(dir: &Path, names: &Names, selection: &SelectionTable) -> Result<(), Failure> {
    let schema = [
        ("target_id", ColumnKind::U32),
        ("target_name", ColumnKind::Text),
        ("pool_id", ColumnKind::U32),
        ("pool_name", ColumnKind::Text),
        ("rank", ColumnKind::U32),
        ("similarity", ColumnKind::F32),
        ("distance", ColumnKind::F32),
        ("kept", ColumnKind::Bool),
        ("reason", ColumnKind::Text),
        ("duplicate_of", ColumnKind::Text),
    ];
    table(&dir.join(&names.edges), &schema, Meta::new("edges").with("k", selection.k), |writer| {
        selection.edges.chunks(STEP).try_for_each(|all| {
            writer.write(vec![
                Column::U32(all.iter().map(|e| e.edge.target).collect()),
                Column::Text(all.iter().map(|e| selection.targets[e.edge.target as usize].clone()).collect()),
                Column::U32(all.iter().map(|e| e.edge.pool).collect()),
                Column::Text(all.iter().map(|e| e.pool_id.clone()).collect()),
                Column::U32(all.iter().map(|e| e.edge.rank).collect()),
                Column::F32(all.iter().map(|e| e.edge.cosine as f32).collect()),
                Column::F32(all.iter().map(|e| e.edge.distance() as f32).collect()),
                Column::Bool(all.iter().map(|e| e.reason.counts()).collect()),
                Column::Text(all.iter().map(|e| e.reason.word().to_owned()).collect()),
                Column::Text(all.iter().map(|e| e.duplicate_of.clone()).collect()),
            ])
        })
    })
}

/// Every image that was taken, where it lies, and for whom it was taken; pictures and annotations are put in place.
pub(in crate::cli) fn manifest(
    dir: &Path,
    names: &Names,
    selection: &SelectionTable,
    pictures: Option<&PoolPictures>,
    shard: &dyn Fn(u32) -> usize,
    how: Materialize,
) -> Result<Placed, Failure> {
    let mut placed = Placed::default();
    let below = dir.join(&names.folder);
    let (mut found, mut ways) = (Vec::with_capacity(selection.chosen.len()), Vec::new());
    for chosen in &selection.chosen {
        let shard = shard(chosen.best.pool);
        let folder = pictures.map(|pictures| pictures.of(shard));
        let here = folder.map(|folder| folder.find(&chosen.id)).transpose()?.unwrap_or_default();
        if let (Some(pictures), Some(folder)) = (pictures, folder) {
            placed.images += usize::from(here.image.is_some());
            if here.image.is_none() {
                placed.without_image.push(chosen.id.clone());
            }
            if folder.voc && here.annotation.is_none() {
                placed.without_annotation.push(chosen.id.clone());
            }
            if here.outside {
                placed.outside.push(chosen.id.clone());
            }
            if how != Materialize::List {
                for (from, to) in pictures.destination(shard, &chosen.id, &here) {
                    let to = below.join(to);
                    // All are looked at before the first is put anywhere.
                    folder.spare(&from, &to)?;
                    ways.push((from, to));
                }
            }
        }
        found.push(here);
    }
    if how != Materialize::List {
        // A source whose root holds this folder leaves it out by that.
        let mark = below.join(EXPORT_MARK);
        let before = Links::read(&mark);
        let now = if how == Materialize::Copy { Links::default() } else { Links::of(&below, &ways, &before)? };
        // All that may be there is on the list before the first is put in place, and what was there until it is gone.
        output::write(&mark, before.with(&now).text().as_bytes())?;
        for (from, to) in &ways {
            materialize::put(how, from, to).map_err(OutputError::from)?;
        }
        let wanted = ways.into_iter().map(|(_, to)| to).chain([mark.clone()]).collect();
        // An earlier selection in the same place that is the pool of this one keeps its pictures.
        if pictures.is_none_or(|pictures| !pictures.are_below(&below)) {
            placed.removed = before.remove_all_but(&below, &wanted)?;
            output::write(&mark, now.text().as_bytes())?;
        }
        placed.strangers = materialize::strangers(&below, &wanted)?;
    }
    let schema = [
        ("pool_id", ColumnKind::U32),
        ("pool_name", ColumnKind::Text),
        ("image_path", ColumnKind::Text),
        ("annotation_path", ColumnKind::Text),
        ("best_target_id", ColumnKind::U32),
        ("best_target_name", ColumnKind::Text),
        ("best_rank", ColumnKind::U32),
        ("best_distance", ColumnKind::F32),
        ("n_targets", ColumnKind::U32),
        ("order", ColumnKind::U32),
    ];
    let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    table(&dir.join(&names.manifest), &schema, Meta::new("manifest").with("k", selection.k), |writer| {
        selection.chosen.chunks(STEP).zip(found.chunks(STEP)).try_for_each(|(all, found)| {
            writer.write(vec![
                Column::U32(all.iter().map(|c| c.best.pool).collect()),
                Column::Text(all.iter().map(|c| c.id.clone()).collect()),
                Column::Text(found.iter().map(|Found { image, .. }| shown(image)).collect()),
                Column::Text(found.iter().map(|Found { annotation, .. }| shown(annotation)).collect()),
                Column::U32(all.iter().map(|c| c.best.target).collect()),
                Column::Text(all.iter().map(|c| selection.targets[c.best.target as usize].clone()).collect()),
                Column::U32(all.iter().map(|c| c.best.rank).collect()),
                Column::F32(all.iter().map(|c| c.best.distance() as f32).collect()),
                Column::U32(all.iter().map(|c| c.targets).collect()),
                Column::U32(all.iter().map(|c| c.order).collect()),
            ])
        })
    })?;
    Ok(placed)
}

/// What the pool shares with target and test sets, and what repeats if that was asked for.
pub(super) fn near(dir: &Path, near: &Near) -> Result<(), Failure> {
    output::write(&dir.join(SHARED), near.shared(Form::Csv).0.as_bytes())?;
    if near.summary().within {
        output::write(&dir.join(GROUPS), near.groups(Form::Csv).0.as_bytes())?;
    }
    Ok(())
}

/// Which target images repeat others.
pub(super) fn repetitions(dir: &Path, targets: &[String], repeats: &Repeats) -> Result<(), Failure> {
    let schema = [
        ("target_id", ColumnKind::U32),
        ("target_name", ColumnKind::Text),
        ("kept", ColumnKind::Bool),
        ("representative_id", ColumnKind::U32),
        ("similarity", ColumnKind::F32),
    ];
    table(&dir.join(REPETITIONS), &schema, Meta::new("target_dedup"), |writer| {
        writer.write(vec![
            Column::U32((0..targets.len() as u32).collect()),
            Column::Text(targets.to_vec()),
            Column::Bool(repeats.kept.clone()),
            Column::U32(repeats.representative.clone()),
            Column::F32(repeats.similarity.iter().map(|similarity| *similarity as f32).collect()),
        ])
    })
}

/// The fork's two arrays: each target image with its `k` nearest among the target, itself first; and each kept one, by its place
/// among the kept, with its `k` + 1 nearest of the pool. Where there are fewer, −1 stands.
pub(super) fn arrays(dir: &Path, factors: &[usize], target: &FeatureTable, edges: &[Edge]) -> Result<(), Failure> {
    let mut values = target.values.clone();
    let _ = cosine::normalize_rows(&mut values, target.dim);
    let n = target.len();
    for (number, &k) in factors.iter().enumerate() {
        if number == 0 {
            let among = k.min(n - 1);
            let found = match among {
                0 => Vec::new(),
                _ => {
                    // A signal ends the process soon enough: nothing of this is kept.
                    neighbors::all_pairs(&values, target.dim, among, &Stop::default(), &mut |_, _| {})
                        .map_err(StageError::other)?
                        .index
                }
            };
            let mut table = Vec::with_capacity(n * (k + 1));
            for row in 0..n {
                table.push(row as i64);
                table.extend(found[row * among..(row + 1) * among].iter().map(|&other| i64::from(other)));
                table.extend(std::iter::repeat_n(NOBODY, k - among));
            }
            output::write(&dir.join(near_target(k)), &npy::whole_numbers(&table, k + 1))?;
        }
        let mut table: Vec<i64> = Vec::new();
        for (place, near) in edges.chunk_by(|a, b| a.target == b.target).enumerate() {
            table.push(place as i64);
            table.extend(near.iter().take(k + 1).map(|edge| i64::from(edge.pool)));
            table.extend(std::iter::repeat_n(NOBODY, (k + 1).saturating_sub(near.len())));
        }
        output::write(&dir.join(near_pool(k)), &npy::whole_numbers(&table, k + 2))?;
    }
    Ok(())
}
