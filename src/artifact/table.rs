//! Tables in memory: how they are written, and the checks that they share.
//!
//! Every table of images begins with two columns: `id`, the image's name that never shifts, and `row`, its number.

use std::ops::Range;
use std::path::Path;

use super::DraftFile;
use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::{Column, TableReader, TableWriter};

/// Writes a table as a file of a folder: `columns` gives those of a range of rows.
pub(super) fn save(
    dir: &Path,
    name: &'static str,
    meta: Meta,
    rows: usize,
    columns: impl Fn(Range<usize>) -> Vec<(&'static str, Column)>,
) -> Result<DraftFile> {
    let path = dir.join(name);
    let digest = TableWriter::save(&path, meta, rows, columns)?;
    Ok(DraftFile { name, path, logical: Some(digest) })
}

/// As [`save`], for a table of images: `id` and `row` come first.
pub(super) fn save_images(
    dir: &Path,
    name: &'static str,
    meta: Meta,
    ids: &[String],
    rest: impl Fn(Range<usize>) -> Vec<(&'static str, Column)>,
) -> Result<DraftFile> {
    save(dir, name, meta, ids.len(), |range| {
        let first = [("id", slice(ids, &range)), ("row", row_numbers(range.clone()))];
        first.into_iter().chain(rest(range)).collect()
    })
}

pub(super) fn slice<T: Clone>(values: &[T], range: &Range<usize>) -> Column
where
    Column: From<Vec<T>>,
{
    values[range.clone()].to_vec().into()
}

/// What some rows have in common, as a column.
pub(super) fn column<T, V>(rows: &[T], value: impl Fn(&T) -> V) -> Column
where
    Column: From<Vec<V>>,
{
    rows.iter().map(value).collect::<Vec<V>>().into()
}

/// The column `row` for a range of rows.
pub(super) fn row_numbers(range: Range<usize>) -> Column {
    Column::U32(range.map(|row| row as u32).collect())
}

/// Reads the ids, and checks that there are some, that each stands once, and that rows are numbered from 0. `what` names the
/// things that are counted.
pub(super) fn read_ids(reader: &TableReader, what: &'static str) -> Result<Vec<String>> {
    if reader.rows() == 0 {
        return Err(ArtifactError::Empty { path: display(reader.path()), what });
    }
    let (ids, rows) = (reader.values::<String>("id")?, reader.values::<u32>("row")?);
    if let Some((at, found)) = rows.iter().enumerate().find(|(at, found)| *at != **found as usize) {
        return Err(out_of_range(reader.path(), "row", at, found, format!("`{at}`")));
    }
    check_ids(reader.path(), &ids, what)?;
    Ok(ids)
}

/// Checks that there are ids, and that each stands once.
pub(super) fn check_ids(path: &Path, ids: &[String], what: &'static str) -> Result<()> {
    if ids.is_empty() {
        return Err(ArtifactError::Empty { path: display(path), what });
    }
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by(|a, b| ids[*a].cmp(&ids[*b]).then(a.cmp(b)));
    match order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
        Some(pair) => {
            let (first, second) = (pair[0], pair[1]);
            Err(ArtifactError::DuplicateId { path: display(path), id: ids[first].clone(), first, second })
        }
        None => Ok(()),
    }
}

pub(super) fn check_length(path: &Path, column: &str, found: usize, wanted: usize) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(ArtifactError::Length { path: display(path), what: column.into(), found, wanted })
}

/// Checks that numbers, `width` per row, are finite.
pub(super) fn check_finite(path: &Path, column: &str, width: usize, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(ArtifactError::NotFinite {
            path: display(path),
            column: column.into(),
            row: place / width.max(1),
            value: values[place].to_string(),
        }),
        None => Ok(()),
    }
}

pub(super) fn out_of_range(
    path: &Path,
    column: &str,
    row: usize,
    value: impl ToString,
    wanted: impl Into<String>,
) -> ArtifactError {
    let (path, column) = (display(path), column.to_owned());
    ArtifactError::OutOfRange { path, column, row, value: value.to_string(), wanted: wanted.into() }
}

/// Checks that rows can be numbered with 32 bits.
pub(super) fn check_count(path: &Path, rows: usize) -> Result<()> {
    let limit = u64::from(u32::MAX);
    if rows as u64 > limit { Err(ArtifactError::TooManyRows { path: display(path), limit }) } else { Ok(()) }
}
