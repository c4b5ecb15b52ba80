//! Distributions of column values: histograms, and counts where there are few different whole numbers.
//!
//! A second pass over the file: the edges of a histogram are the extremes that [`super::inspect`] found in the first, and a
//! histogram that grows while it reads would have other edges for other orders of rows.

use std::collections::BTreeMap;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::DataType;

use super::footer::Footer;
use super::summary::{BATCH, BINS, ColumnReport, FEW, Shape, Values, list_at, numbers};
use crate::error::Result;

/// Adds their shapes to columns that have one: numbers, and lists of floats. Row numbers have none worth looking at.
pub(super) fn add_shapes(footer: &Footer, columns: &mut [ColumnReport]) -> Result<()> {
    let fields = footer.schema().fields();
    let empty = |place: usize| Some((place, empty(fields[place].data_type(), &columns[place])?, BTreeMap::new()));
    let mut wanted: Vec<(usize, Shape, BTreeMap<i64, u64>)> = (0..columns.len()).filter_map(empty).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut batches = footer.columns(wanted.iter().map(|(place, ..)| *place), BATCH)?;
    let mut add = |batch: &RecordBatch| {
        for (array, (_, shape, tally)) in batch.columns().iter().zip(&mut wanted) {
            let mut add = |value: f64| match shape {
                Shape::Histogram { low, high, counts } => {
                    if let Some(bin) = bin(value, *low, *high) {
                        counts[bin] += 1;
                    }
                }
                Shape::Counts(_) => *tally.entry(value as i64).or_default() += 1,
            };
            if array.data_type().is_numeric() {
                numbers(array).into_iter().flatten().for_each(&mut add);
            } else {
                for row in 0..array.len() {
                    if let Some(list) = list_at(array, row).filter(|_| !array.is_null(row)) {
                        numbers(&list).into_iter().flatten().for_each(&mut add);
                    }
                }
            }
        }
        Ok(())
    };
    while batches.next(&mut add)?.is_some() {}
    for (place, shape, tally) in wanted {
        columns[place].shape =
            Some(if let Shape::Counts(_) = shape { Shape::Counts(tally.into_iter().collect()) } else { shape });
    }
    Ok(())
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
