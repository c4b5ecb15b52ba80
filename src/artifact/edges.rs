//! Pairs of a target image and a pool image as columns of a table, and which images of the target repeat others.

use std::ops::Range;
use std::path::Path;

use super::error::Result;
use super::parquet::{Column, TableReader};
use super::table::{self, column, slice};
use kinset_math::curate::choose::Edge;
use kinset_math::curate::repeats::Repeats;

/// The columns of some edges: `target_id`, `target`, `pool_id`, `pool`, `rank`, `similarity`. `name` is the name of a pool image.
pub(super) fn columns<T>(
    rows: &[T],
    edge: impl Fn(&T) -> &Edge,
    targets: &[String],
    name: impl Fn(&T) -> String,
) -> Vec<(&'static str, Column)> {
    vec![
        ("target_id", column(rows, |row| targets[edge(row).target as usize].clone())),
        ("target", column(rows, |row| edge(row).target)),
        ("pool_id", column(rows, name)),
        ("pool", column(rows, |row| edge(row).pool)),
        ("rank", column(rows, |row| edge(row).rank)),
        ("similarity", column(rows, |row| edge(row).cosine)),
    ]
}

pub(super) fn read(reader: &TableReader) -> Result<Vec<Edge>> {
    let (target, pool, rank): (Vec<u32>, Vec<u32>, Vec<u32>) =
        (reader.values("target")?, reader.values("pool")?, reader.values("rank")?);
    let edges = target.into_iter().zip(pool).zip(rank).zip(reader.values("similarity")?);
    Ok(edges.map(|(((target, pool), rank), cosine)| Edge { target, pool, rank, cosine }).collect())
}

/// Refuses the edge of a row that belongs to no target image, or is as alike as nothing can be.
pub(super) fn check(path: &Path, row: usize, edge: &Edge, targets: usize) -> Result<()> {
    if edge.target as usize >= targets {
        return Err(table::out_of_range(path, "target", row, edge.target, format!("a row below {targets}")));
    }
    if !(-1.0..=1.0).contains(&edge.cosine) {
        return Err(table::out_of_range(path, "similarity", row, edge.cosine, "a cosine from -1 to 1"));
    }
    Ok(())
}

/// The columns `kept`, `representative`, `similarity` of a range of target images.
pub(super) fn repeats_columns(repeats: &Repeats, range: &Range<usize>) -> Vec<(&'static str, Column)> {
    let Repeats { kept, representative, similarity } = repeats;
    vec![
        ("kept", slice(kept, range)),
        ("representative", slice(representative, range)),
        ("similarity", slice(similarity, range)),
    ]
}

pub(super) fn read_repeats(reader: &TableReader) -> Result<Repeats> {
    let (kept, representative) = (reader.values("kept")?, reader.values("representative")?);
    Ok(Repeats { kept, representative, similarity: reader.values("similarity")? })
}

/// Refuses repetitions that are not those of so many target images.
pub(super) fn check_repeats(path: &Path, repeats: &Repeats, targets: usize) -> Result<()> {
    let Repeats { kept, representative, similarity } = repeats;
    for (column, found) in [("kept", kept.len()), ("representative", representative.len()), ("similarity", similarity.len())] {
        table::check_length(path, column, found, targets)?;
    }
    match representative.iter().position(|&row| row as usize >= targets) {
        Some(row) => {
            Err(table::out_of_range(path, "representative", row, representative[row], format!("a row below {targets}")))
        }
        None => Ok(()),
    }
}
