//! How are the values of a column spread? Histograms, and counts where there are few different whole numbers.
//!
//! A second pass over the file: the edges of a histogram are the extremes that [`super::inspect`] found in the first, and a
//! histogram that grows while it reads would have other edges for other orders of rows.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use serde::Serialize;

use super::footer::Footer;
use super::guard::guarded;
use super::inspect::{BATCH, ColumnReport, Values, list_at, numbers};

use crate::error::Result;

/// Bars of a histogram.
pub const BINS: usize = 32;
/// Whole numbers are counted one by one up to so many different ones.
pub const FEW: usize = 64;

/// How values are spread.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Values in equal intervals from `low` to `high`, the last one closed on both sides. Of lists, the values in them.
    Histogram {
        /// The smallest value.
        low: f64,
        /// The largest value.
        high: f64,
        /// [`BINS`] counts.
        counts: Vec<u64>,
    },
    /// How often each whole number occurs, the smallest first.
    Counts(Vec<(i64, u64)>),
}

/// The shapes of columns that have one: numbers, and lists of floats. Row numbers have none worth looking at.
///
/// # Errors
/// If the file cannot be read or is damaged.
pub(super) fn shapes(path: &Path, columns: &[ColumnReport]) -> Result<Vec<Option<Shape>>> {
    let footer = Footer::read(path)?;
    let mut shapes: Vec<Option<Shape>> =
        footer.schema().fields().iter().zip(columns).map(|(field, column)| empty(field.data_type(), column)).collect();
    let wanted: Vec<usize> = (0..shapes.len()).filter(|&place| shapes[place].is_some()).collect();
    if wanted.is_empty() {
        return Ok(shapes);
    }
    let mut tallies: Vec<BTreeMap<i64, u64>> = vec![BTreeMap::new(); wanted.len()];
    let decoder = footer.decoder(path)?;
    let mut reader = guarded(path, || {
        let mask = ProjectionMask::roots(footer.parquet_schema(), wanted.iter().copied());
        decoder.with_batch_size(BATCH).with_projection(mask).build()
    })?;
    while let Some(batch) = guarded(path, || reader.next().transpose())? {
        guarded(path, || {
            for ((array, &place), tally) in batch.columns().iter().zip(&wanted).zip(&mut tallies) {
                let Some(shape) = &mut shapes[place] else { continue };
                let mut take = |value: f64| match shape {
                    Shape::Histogram { low, high, counts } => {
                        if let Some(bin) = bin(value, *low, *high) {
                            counts[bin] += 1;
                        }
                    }
                    Shape::Counts(_) => *tally.entry(value as i64).or_default() += 1,
                };
                if array.data_type().is_numeric() {
                    numbers(array).into_iter().flatten().for_each(&mut take);
                } else {
                    for row in 0..array.len() {
                        if let Some(list) = list_at(array, row).filter(|_| !array.is_null(row)) {
                            numbers(&list).into_iter().flatten().for_each(&mut take);
                        }
                    }
                }
            }
            Ok::<_, parquet::errors::ParquetError>(())
        })?;
    }
    for (place, tally) in wanted.into_iter().zip(tallies) {
        if let Some(Shape::Counts(counts)) = &mut shapes[place] {
            *counts = tally.into_iter().collect();
        }
    }
    Ok(shapes)
}

/// The bar a value falls into; none if it is outside or not a number.
fn bin(value: f64, low: f64, high: f64) -> Option<usize> {
    let inside = (low..=high).contains(&value);
    inside.then(|| (((value - low) / (high - low) * BINS as f64) as usize).min(BINS - 1))
}

/// The shape of a column before anything is counted.
fn empty(kind: &DataType, column: &ColumnReport) -> Option<Shape> {
    let (min, max) = match column.values.as_ref()? {
        Values::Numbers { min, max, .. } if column.name != "row" => ((*min)?, (*max)?),
        Values::Lists { min, max, .. } if floats(kind) => ((*min)?, (*max)?),
        _ => return None,
    };
    if kind.is_integer() && max - min < FEW as f64 {
        return Some(Shape::Counts(Vec::new()));
    }
    // Values that are all the same, or so large that their distance is infinite, have no intervals.
    (max > min && (max - min).is_finite()).then(|| Shape::Histogram { low: min, high: max, counts: vec![0; BINS] })
}

fn floats(kind: &DataType) -> bool {
    matches!(kind, DataType::FixedSizeList(child, _) | DataType::List(child) | DataType::LargeList(child)
        if child.data_type().is_floating())
}

#[cfg(test)]
mod tests {
    use super::super::inspect::inspect;
    use super::super::tests::{flipped, meta, write};
    use super::*;

    #[test]
    fn numbers_have_histograms_and_row_numbers_have_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        write(&path, &[2500, 700], meta());
        let report = inspect(&path, 0).unwrap();
        let shape = |name: &str| report.columns.iter().find(|column| column.name == name).unwrap().shape.clone();
        assert_eq!((shape("row"), shape("id"), shape("image"), shape("n")), (None, None, None, None));
        let Some(Shape::Histogram { low, high, counts }) = shape("v") else { panic!() };
        assert!((-1.0..-0.999).contains(&low) && (0.999..=1.0).contains(&high), "{low} {high}");
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (BINS, 3200 * 3));
        for column in &report.columns {
            if let Some(Shape::Histogram { counts, .. }) = &column.shape {
                assert!(counts[0] > 0 && counts[BINS - 1] > 0, "the extremes of `{}` are in its bars", column.name);
            }
        }
    }

    #[test]
    fn a_value_falls_into_the_bar_that_holds_it() {
        assert_eq!(bin(0.0, 0.0, 32.0), Some(0));
        assert_eq!(bin(31.9, 0.0, 32.0), Some(31));
        assert_eq!(bin(32.0, 0.0, 32.0), Some(31), "the last bar is closed on both sides");
        assert_eq!((bin(-0.1, 0.0, 32.0), bin(f64::NAN, 0.0, 32.0)), (None, None));
    }

    #[test]
    fn few_whole_numbers_are_counted_and_others_spread() {
        let column = |min: f64, max: f64| ColumnReport {
            name: "cluster".into(),
            kind: "int32".into(),
            nullable: false,
            bytes: 0,
            codec: String::new(),
            count: 3,
            nulls: 0,
            values: Some(Values::Numbers { min: Some(min), max: Some(max), mean: Some(1.0), not_finite: 0 }),
            shape: None,
        };
        assert_eq!(empty(&DataType::Int32, &column(-1.0, 9.0)), Some(Shape::Counts(Vec::new())));
        assert!(matches!(empty(&DataType::Int32, &column(0.0, 64.0)), Some(Shape::Histogram { .. })));
        assert!(matches!(empty(&DataType::Float32, &column(0.0, 9.0)), Some(Shape::Histogram { .. })));
        assert_eq!(empty(&DataType::Float32, &column(2.0, 2.0)), None);
        assert_eq!(empty(&DataType::Float64, &column(f64::MIN, f64::MAX)), None);
    }

    #[test]
    fn damaged_files_are_errors_and_never_panics() {
        for seed in 300..400 {
            let (_dir, path) = flipped(seed);
            let _ = inspect(&path, 0);
        }
    }
}
