//! A description of any Parquet file, whoever wrote it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float32Type};

use super::footer::Footer;
use super::shape::add_shapes;
use super::summary::{BATCH, ColumnReport, FileReport, GroupReport, Values, list_at, numbers};
use crate::error::Result;

/// Different texts are counted up to this many.
const DISTINCT: usize = 1000;
/// Characters of a value that are shown.
const SHOWN: usize = 60;

/// Reads a whole file twice, the second time for the shapes, and describes it column by column, with its `first` rows as text.
pub fn inspect(path: &Path, first: usize) -> Result<FileReport> {
    let footer = Footer::read(path)?;
    let file = footer.metadata().file_metadata();
    let pairs = file.key_value_metadata().into_iter().flatten().filter(|pair| pair.key != "ARROW:schema");
    let metadata = pairs.map(|pair| (pair.key.clone(), pair.value.clone().unwrap_or_default())).collect();
    let groups = footer.metadata().row_groups().iter();
    let groups = groups.map(|g| GroupReport { rows: g.num_rows(), bytes: g.compressed_size() }).collect();
    let fields = footer.schema().fields();
    let column = |(place, field): (usize, &FieldRef)| {
        let (bytes, codec) = storage(&footer, place);
        ColumnReport {
            name: field.name().clone(),
            kind: plain_type(field.data_type()),
            nullable: field.is_nullable(),
            bytes,
            codec,
            count: 0,
            nulls: 0,
            values: None,
            shape: None,
        }
    };
    let mut columns: Vec<ColumnReport> = fields.iter().enumerate().map(column).collect();
    let mut tallies: Vec<Option<Tally>> = fields.iter().map(|field| Tally::new(field.data_type())).collect();
    let mut first_rows: Vec<Vec<String>> = Vec::new();
    let mut batches = footer.columns(0..fields.len(), BATCH)?;
    let mut add = |batch: &RecordBatch| {
        for row in 0..batch.num_rows().min(first.saturating_sub(first_rows.len())) {
            first_rows.push(batch.columns().iter().map(|column| render(column, row)).collect());
        }
        for ((array, column), tally) in batch.columns().iter().zip(&mut columns).zip(&mut tallies) {
            column.nulls += array.null_count() as u64;
            column.count += (array.len() - array.null_count()) as u64;
            if let Some(tally) = tally {
                tally.add(array);
            }
        }
        Ok(())
    };
    while batches.next(&mut add)?.is_some() {}
    for (column, tally) in columns.iter_mut().zip(tallies) {
        column.values = tally.map(Tally::finish);
    }
    add_shapes(&footer, &mut columns)?;
    let created_by = file.created_by().map(str::to_owned);
    Ok(FileReport { bytes: footer.bytes, rows: footer.rows, groups, created_by, metadata, columns, first_rows })
}

/// What a file of ours says about itself, without a look at its rows; null if it says nothing.
pub fn inspect_metadata(path: &Path) -> Result<serde_json::Value> {
    let footer = Footer::read(path)?;
    Ok(footer.entry("kinset").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
}

/// Bytes and codecs of the leaves below a column.
fn storage(footer: &Footer, root: usize) -> (i64, String) {
    let schema = footer.parquet_schema();
    let (mut bytes, mut codecs) = (0_i64, BTreeSet::new());
    for group in footer.metadata().row_groups() {
        for (leaf, column) in group.columns().iter().enumerate() {
            if leaf < schema.num_columns() && schema.get_column_root_idx(leaf) == root {
                bytes = bytes.saturating_add(column.compressed_size());
                codecs.insert(format!("{:?}", column.compression()).to_lowercase());
            }
        }
    }
    (bytes, codecs.into_iter().collect::<Vec<_>>().join(", "))
}

/// A type in words: `fixed_size_list<float32>[128]`.
fn plain_type(kind: &DataType) -> String {
    match kind {
        DataType::FixedSizeList(child, width) => format!("fixed_size_list<{}>[{width}]", plain_type(child.data_type())),
        DataType::List(child) | DataType::LargeList(child) => format!("list<{}>", plain_type(child.data_type())),
        DataType::Struct(parts) => {
            let parts: Vec<String> = parts.iter().map(|p| format!("{}: {}", p.name(), plain_type(p.data_type()))).collect();
            format!("struct<{}>", parts.join(", "))
        }
        DataType::Dictionary(_, values) => format!("dictionary<{}>", plain_type(values)),
        DataType::Utf8 => "string".into(),
        other => other.to_string().to_lowercase(),
    }
}

/// Smallest, largest and sum of what was finite.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    count: u64,
    strange: u64,
    min: f64,
    max: f64,
    sum: f64,
}

impl Span {
    fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.strange += 1;
            return;
        }
        (self.min, self.max) = if self.count == 0 { (value, value) } else { (self.min.min(value), self.max.max(value)) };
        self.count += 1;
        self.sum += value;
    }

    fn any(&self, value: f64) -> Option<f64> {
        (self.count > 0).then_some(value)
    }

    fn mean(&self) -> Option<f64> {
        self.any(self.sum / self.count as f64)
    }
}

/// What is counted while a column passes.
enum Tally {
    Numbers(Span),
    Texts { distinct: BTreeSet<String>, more: bool, min: Option<String>, max: Option<String> },
    Flags(u64),
    Bytes { lengths: Span, total: u64 },
    Lists { fixed: bool, floats: bool, lengths: Span, values: Span, norms: Span },
    Parts(Vec<(String, Tally)>),
}

impl Tally {
    fn new(kind: &DataType) -> Option<Self> {
        Some(match kind {
            kind if kind.is_numeric() => Self::Numbers(Span::default()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Texts { distinct: BTreeSet::new(), more: false, min: None, max: None }
            }
            DataType::Boolean => Self::Flags(0),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Self::Bytes { lengths: Span::default(), total: 0 }
            }
            DataType::FixedSizeList(child, _) | DataType::List(child) | DataType::LargeList(child)
                if child.data_type().is_numeric() =>
            {
                Self::Lists {
                    fixed: matches!(kind, DataType::FixedSizeList(..)),
                    floats: child.data_type().is_floating(),
                    lengths: Span::default(),
                    values: Span::default(),
                    norms: Span::default(),
                }
            }
            DataType::Struct(parts) => {
                let known = parts.iter().filter_map(|part| Some((part.name().clone(), Self::new(part.data_type())?)));
                Self::Parts(known.collect())
            }
            DataType::Dictionary(_, values) => return Self::new(values),
            _ => return None,
        })
    }

    fn add(&mut self, array: &ArrayRef) {
        let present = |array: &dyn Array| -> Vec<usize> { (0..array.len()).filter(|row| !array.is_null(*row)).collect() };
        match self {
            Self::Numbers(span) => numbers(array).into_iter().flatten().for_each(|value| span.add(value)),
            Self::Flags(yes) => *yes += array.as_boolean_opt().map_or(0, |flags| flags.true_count() as u64),
            Self::Texts { distinct, more, min, max } => {
                let Ok(texts) = cast(array, &DataType::LargeUtf8) else { return };
                let Some(texts) = texts.as_string_opt::<i64>() else { return };
                for row in present(texts) {
                    let text = texts.value(row);
                    if min.as_deref().is_none_or(|min| text < min) {
                        *min = Some(text.to_owned());
                    }
                    if max.as_deref().is_none_or(|max| text > max) {
                        *max = Some(text.to_owned());
                    }
                    if distinct.len() < DISTINCT && !distinct.contains(text) {
                        distinct.insert(text.to_owned());
                    } else if !*more && !distinct.contains(text) {
                        *more = true;
                    }
                }
            }
            Self::Bytes { lengths, total } => {
                let Ok(blobs) = cast(array, &DataType::LargeBinary) else { return };
                let Some(blobs) = blobs.as_binary_opt::<i64>() else { return };
                for row in present(blobs) {
                    lengths.add(blobs.value(row).len() as f64);
                    *total += blobs.value(row).len() as u64;
                }
            }
            Self::Lists { floats, lengths, values, norms, .. } => {
                for row in present(array) {
                    let Some(list) = list_at(array, row) else { continue };
                    lengths.add(list.len() as f64);
                    let mut square = 0.0;
                    for value in numbers(&list).into_iter().flatten() {
                        values.add(value);
                        square += value * value;
                    }
                    if *floats {
                        norms.add(square.sqrt());
                    }
                }
            }
            Self::Parts(parts) => {
                let Some(array) = array.as_struct_opt() else { return };
                for (name, tally) in parts {
                    if let Some(part) = array.column_by_name(name) {
                        tally.add(part);
                    }
                }
            }
        }
    }

    fn finish(self) -> Values {
        match self {
            Self::Numbers(s) => Values::Numbers { min: s.any(s.min), max: s.any(s.max), mean: s.mean(), not_finite: s.strange },
            Self::Texts { distinct, more, min, max } => {
                Values::Texts { distinct: distinct.len(), more, min: min.map(|t| cut(&t)), max: max.map(|t| cut(&t)) }
            }
            Self::Flags(yes) => Values::Flags { yes },
            Self::Bytes { lengths, total } => {
                let [min, max] = [lengths.min, lengths.max].map(|value| lengths.any(value).map(|value| value as u64));
                Values::Bytes { min, max, total }
            }
            Self::Lists { fixed, floats, lengths, values, norms } => Values::Lists {
                min_length: lengths.any(lengths.min).map(|value| value as u64),
                max_length: lengths.any(lengths.max).map(|value| value as u64),
                mean_length: lengths.mean(),
                fixed,
                min: values.any(values.min),
                max: values.any(values.max),
                not_finite: values.strange,
                norm: norms.mean().filter(|_| floats).map(|mean| [norms.min, mean, norms.max]),
            },
            Self::Parts(parts) => Values::Parts(parts.into_iter().map(|(name, tally)| (name, tally.finish())).collect()),
        }
    }
}

fn render(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".into();
    }
    let one = array.slice(row, 1);
    match array.data_type() {
        DataType::Struct(parts) => {
            let Some(array) = array.as_struct_opt() else { return "…".into() };
            let parts =
                parts.iter().zip(array.columns()).map(|(part, column)| format!("{}: {}", part.name(), render(column, row)));
            format!("{{{}}}", parts.collect::<Vec<_>>().join(", "))
        }
        DataType::FixedSizeList(..) | DataType::List(_) | DataType::LargeList(_) => {
            let Some(list) = list_at(array, row) else { return "…".into() };
            let mut text = String::from("[");
            for i in 0..list.len().min(4) {
                let _ = write!(text, "{}{}", if i == 0 { "" } else { ", " }, render(&list, i));
            }
            if list.len() > 4 {
                let _ = write!(text, ", … {} in all", list.len());
            }
            text + "]"
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            let length = cast(&one, &DataType::LargeBinary).ok().and_then(|a| Some(a.as_binary_opt::<i64>()?.value(0).len()));
            length.map_or("…".into(), |length| format!("<{}>", kinset_base::unit::bytes(length as u64)))
        }
        DataType::Dictionary(_, values) => cast(&one, values).map_or("…".into(), |plain| render(&plain, 0)),
        // f32 as f64 would show digits that are not there.
        DataType::Float32 => one.as_primitive_opt::<Float32Type>().map_or("…".into(), |a| short(a.value(0))),
        _ => {
            let text = cast(&one, &DataType::LargeUtf8).ok();
            let text = text.as_ref().and_then(|a| a.as_string_opt::<i64>()).filter(|a| !a.is_null(0)).map(|a| cut(a.value(0)));
            text.unwrap_or("…".into())
        }
    }
}

fn short(value: f32) -> String {
    let text = format!("{value:.5}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{flipped, meta, rows, write};
    use super::*;

    fn values<'a>(report: &'a FileReport, name: &str) -> &'a Values {
        report.columns.iter().find(|column| column.name == name).unwrap().values.as_ref().unwrap()
    }

    #[test]
    fn a_table_is_described_column_by_column() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        write(&path, &[2500], meta());
        let report = inspect(&path, 2).unwrap();
        assert_eq!((report.rows, report.groups.len(), report.created_by.as_deref()), (2500, 1, Some("kinset")));
        assert_eq!(report.metadata.keys().collect::<Vec<_>>(), ["kinset"]);
        let column = |name: &str| report.columns.iter().find(|c| c.name == name).unwrap();
        assert_eq!(column("v").kind, "fixed_size_list<float32>[3]");
        assert_eq!(column("image").kind, "struct<bytes: binary, path: string>");
        assert_eq!((column("id").count, column("id").nulls, column("id").codec.as_str()), (2500, 0, "uncompressed"));
        assert!(column("v").bytes >= 2500 * 12);

        let wanted = Values::Numbers { min: Some(0.0), max: Some(2499.0), mean: Some(1249.5), not_finite: 0 };
        assert_eq!(*values(&report, "row"), wanted);
        let texts = Values::Texts { distinct: 1000, more: true, min: Some("id0000".into()), max: Some("id2499".into()) };
        assert_eq!(*values(&report, "id"), texts);
        let Values::Lists { min_length, fixed, min, norm, .. } = values(&report, "v") else { panic!() };
        assert_eq!((*min_length, *fixed, *min), (Some(3), true, Some(-1.0)));
        let [low, mean, high] = norm.unwrap();
        assert!((low - 1.0).abs() < 1e-6 && low < mean && mean < high && high < 1.4143, "{norm:?}");
        let Values::Lists { norm, max, .. } = values(&report, "n") else { panic!() };
        assert_eq!((norm, *max), (&None, Some(2499.0)), "row numbers have no length");
        let Values::Parts(parts) = values(&report, "image") else { panic!() };
        assert_eq!(parts["bytes"], Values::Bytes { min: Some(1), max: Some(4), total: 5000 });

        assert_eq!(report.first_rows.len(), 2);
        assert_eq!(report.first_rows[1][..4], ["id0001", "1", "4", "1099511627776"]);
        assert_eq!(report.first_rows[1][6], "[0.84147, 0, -1]");
        assert_eq!(report.first_rows[1][8], "{bytes: <1 B>, path: a/1.png}");
        assert_eq!(report.first_rows[0][8], "{bytes: null, path: null}");
        assert!(serde_json::to_string(&report).unwrap().contains("\"not_finite\":0"));
        assert_eq!(rows(0..1).len(), report.columns.len());
    }

    #[test]
    fn an_empty_table_has_no_extremes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.parquet");
        write(&path, &[], meta());
        let report = inspect(&path, 5).unwrap();
        assert_eq!((report.rows, report.first_rows.len()), (0, 0));
        assert_eq!(*values(&report, "d"), Values::Numbers { min: None, max: None, mean: None, not_finite: 0 });
    }

    #[test]
    fn damaged_files_are_errors_and_never_panics() {
        for seed in 0..300 {
            let (_dir, path) = flipped(seed);
            let _ = inspect(&path, 3);
        }
    }
}
