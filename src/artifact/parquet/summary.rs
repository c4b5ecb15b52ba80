//! Descriptions of a Parquet file, its columns and their values, and access to the numbers in them.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use serde::Serialize;

/// Rows decoded at a time.
pub(super) const BATCH: usize = 1024;
/// Bars of a histogram.
pub const BINS: usize = 32;
/// Whole numbers are counted one by one up to so many different ones.
pub const FEW: usize = 64;

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Values in equal intervals from `low` to `high`, the last one closed on both sides. Of lists, the values in them.
    Histogram {
        low: f64,
        high: f64,
        /// [`BINS`] counts.
        counts: Vec<u64>,
    },
    /// How often each whole number occurs, the smallest first.
    Counts(Vec<(i64, u64)>),
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileReport {
    pub bytes: u64,
    pub rows: usize,
    pub groups: Vec<GroupReport>,
    pub created_by: Option<String>,
    /// Its metadata, by key; Arrow's own schema is left out.
    pub metadata: BTreeMap<String, String>,
    pub columns: Vec<ColumnReport>,
    /// The first rows, as text, one cell per column.
    pub first_rows: Vec<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    pub rows: i64,
    /// Bytes on disk.
    pub bytes: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnReport {
    pub name: String,
    /// Its type, in Arrow's words.
    pub kind: String,
    /// True if the schema allows missing values.
    pub nullable: bool,
    /// Bytes on disk, all row groups.
    pub bytes: i64,
    pub codec: String,
    /// Values that are there.
    pub count: u64,
    pub nulls: u64,
    /// What the values are like, if the type is one we can describe.
    pub values: Option<Values>,
    pub shape: Option<Shape>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Values {
    Numbers {
        /// The smallest, if any is finite.
        min: Option<f64>,
        /// The largest, if any is finite.
        max: Option<f64>,
        /// The mean of the finite ones.
        mean: Option<f64>,
        not_finite: u64,
    },
    Texts {
        /// Different ones; a lower bound if `more`.
        distinct: usize,
        /// True if there are more than could be counted.
        more: bool,
        /// The first in the alphabet, cut.
        min: Option<String>,
        /// The last in the alphabet, cut.
        max: Option<String>,
    },
    Flags {
        yes: u64,
    },
    Bytes {
        /// The shortest, bytes.
        min: Option<u64>,
        /// The longest, bytes.
        max: Option<u64>,
        /// All together, bytes.
        total: u64,
    },
    Lists {
        min_length: Option<u64>,
        max_length: Option<u64>,
        mean_length: Option<f64>,
        /// True if the type fixes the length.
        fixed: bool,
        /// The smallest number in any list.
        min: Option<f64>,
        /// The largest number in any list.
        max: Option<f64>,
        not_finite: u64,
        /// Euclidean lengths: smallest, mean, largest; only for lists of floats.
        norm: Option<[f64; 3]>,
    },
    /// Structs, by the names of their parts.
    Parts(BTreeMap<String, Values>),
}

/// The numbers of an array as f64; missing ones are left out.
pub(super) fn numbers(array: &ArrayRef) -> Option<Vec<f64>> {
    let array = cast(array, &DataType::Float64).ok()?;
    Some(array.as_primitive_opt::<Float64Type>()?.iter().flatten().collect())
}

pub(super) fn list_at(array: &ArrayRef, row: usize) -> Option<ArrayRef> {
    if let Some(lists) = array.as_fixed_size_list_opt() {
        return Some(lists.value(row));
    }
    if let Some(lists) = array.as_list_opt::<i32>() {
        return Some(lists.value(row));
    }
    array.as_list_opt::<i64>().map(|lists| lists.value(row))
}
