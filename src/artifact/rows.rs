//! The two columns every table of images begins with: `id`, the image's name that never shifts, and `row`, its number.

use std::ops::Range;
use std::path::Path;

use super::error::{ArtifactError, Result, shown};
use super::parquet::{Column, ColumnKind, TableReader, TableWriter};

/// Rows that a table in memory hands to its writer at a time.
const STEP: usize = 16_384;

/// Writes a table that lies in memory: `id`, `row`, then what `rest` says of a range of rows.
pub(super) fn write(writer: &mut TableWriter, ids: &[String], mut rest: impl FnMut(Range<usize>) -> Vec<Column>) -> Result<()> {
    for start in (0..ids.len()).step_by(STEP) {
        let range = start..ids.len().min(start + STEP);
        let mut columns = vec![Column::Text(ids[range.clone()].to_vec()), numbers(range.clone())];
        columns.extend(rest(range));
        writer.write(columns)?;
    }
    Ok(())
}

/// The column `row` for a range of rows.
pub(super) fn numbers(range: Range<usize>) -> Column {
    Column::U32(range.map(|row| row as u32).collect())
}

/// Reads the ids, and checks that there are some, that each stands once, and that rows are numbered from 0. `what` names the
/// things that are counted.
pub(super) fn read_ids(reader: &TableReader, what: &'static str) -> Result<Vec<String>> {
    reader.require(&[("id", ColumnKind::Text), ("row", ColumnKind::U32)])?;
    if reader.rows() == 0 {
        return Err(ArtifactError::Empty { path: shown(reader.path()), what });
    }
    let mut columns = reader.read(&["id", "row"])?.into_iter();
    let (Some(Column::Text(ids)), Some(Column::U32(rows))) = (columns.next(), columns.next()) else {
        unreachable!("a reader yields the kinds it was asked for")
    };
    if let Some((at, found)) = rows.iter().enumerate().find(|(at, found)| *at != **found as usize) {
        return Err(ArtifactError::OutOfRange {
            path: shown(reader.path()),
            column: "row".into(),
            row: at,
            value: found.to_string(),
            wanted: format!("`{at}`"),
        });
    }
    check_ids(reader.path(), &ids, what)?;
    Ok(ids)
}

/// Checks that there are ids, and that each stands once.
pub(super) fn check_ids(path: &Path, ids: &[String], what: &'static str) -> Result<()> {
    if ids.is_empty() {
        return Err(ArtifactError::Empty { path: shown(path), what });
    }
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_unstable_by(|a, b| ids[*a].cmp(&ids[*b]).then(a.cmp(b)));
    match order.windows(2).find(|pair| ids[pair[0]] == ids[pair[1]]) {
        Some(pair) => {
            let (first, second) = (pair[0], pair[1]);
            Err(ArtifactError::DuplicateId { path: shown(path), id: ids[first].clone(), first, second })
        }
        None => Ok(()),
    }
}

/// Checks the number of values of a column.
pub(super) fn check_length(path: &Path, column: &str, found: usize, wanted: usize) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    Err(ArtifactError::Length { path: shown(path), what: column.into(), found, wanted })
}

/// Checks that numbers, `width` per row, are finite.
pub(super) fn check_finite(path: &Path, column: &str, width: usize, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(place) => Err(ArtifactError::NotFinite {
            path: shown(path),
            column: column.into(),
            row: place / width.max(1),
            value: values[place].to_string(),
        }),
        None => Ok(()),
    }
}

/// Says that a value does not fit.
pub(super) fn out_of_range(
    path: &Path,
    column: &str,
    row: usize,
    value: impl ToString,
    wanted: impl Into<String>,
) -> ArtifactError {
    let (path, column) = (shown(path), column.to_owned());
    ArtifactError::OutOfRange { path, column, row, value: value.to_string(), wanted: wanted.into() }
}

/// Checks that rows can be numbered with 32 bits.
pub(super) fn check_count(path: &Path, rows: usize) -> Result<()> {
    let limit = u64::from(u32::MAX);
    if rows as u64 > limit { Err(ArtifactError::TooManyRows { path: shown(path), limit }) } else { Ok(()) }
}
