//! The column types of kinset's tables, and their form in Arrow.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryBuilder, BooleanArray, FixedSizeListArray, Float32Array, Float64Array,
    Int32Array, Int64Array, StringArray, StructArray, UInt32Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float32Type, Float64Type, Int32Type, Int64Type, UInt32Type};

use kinset_store::digest::Hasher;

/// The type of a column. No value is ever missing, except that an image may lack its bytes or its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Bool,
    U32,
    I32,
    I64,
    F32,
    F64,
    Text,
    /// One vector per row: a fixed-size list of `f32`, child `element`, nothing null.
    Vectors {
        /// Numbers per row.
        width: usize,
    },
    /// One list of row numbers per row: a fixed-size list of `u32`, child `element`, nothing null.
    IndexLists {
        /// Numbers per row.
        width: usize,
    },
    /// Encoded pictures in Hugging Face layout: a struct of `bytes` and `path`. An empty one is null on disk.
    Images,
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::U32 => f.write_str("uint32"),
            Self::I32 => f.write_str("int32"),
            Self::I64 => f.write_str("int64"),
            Self::F32 => f.write_str("float32"),
            Self::F64 => f.write_str("float64"),
            Self::Text => f.write_str("text"),
            Self::Vectors { width } => write!(f, "vectors of {width} float32"),
            Self::IndexLists { width } => write!(f, "lists of {width} uint32"),
            Self::Images => f.write_str("images (struct of bytes and path)"),
        }
    }
}

impl ColumnKind {
    /// Bytes that a row takes at least.
    pub(super) fn least_row_bytes(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::U32 | Self::I32 | Self::F32 | Self::Text => 4,
            Self::I64 | Self::F64 | Self::Images => 8,
            Self::Vectors { width } | Self::IndexLists { width } => width.saturating_mul(4),
        }
    }

    pub fn empty(self) -> Column {
        match self {
            Self::Bool => Column::Bool(Vec::new()),
            Self::U32 => Column::U32(Vec::new()),
            Self::I32 => Column::I32(Vec::new()),
            Self::I64 => Column::I64(Vec::new()),
            Self::F32 => Column::F32(Vec::new()),
            Self::F64 => Column::F64(Vec::new()),
            Self::Text => Column::Text(Vec::new()),
            Self::Vectors { width } => Column::Vectors { width, values: Vec::new() },
            Self::IndexLists { width } => Column::IndexLists { width, values: Vec::new() },
            Self::Images => Column::Images { bytes: Vec::new(), paths: Vec::new() },
        }
    }

    /// The Arrow field of a column of this kind. Everything is declared non-null, so that readers skip the levels work; but
    /// pictures, none of which is ever missing, are declared as Hugging Face's `Image` declares them: `datasets` compares the
    /// fields and decodes what is equal.
    pub(super) fn field(self, name: &str) -> Field {
        let list = |child: DataType, width: usize| {
            DataType::FixedSizeList(Arc::new(Field::new("element", child, false)), i32::try_from(width).unwrap_or(i32::MAX))
        };
        let kind = match self {
            Self::Bool => DataType::Boolean,
            Self::U32 => DataType::UInt32,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
            Self::Text => DataType::Utf8,
            Self::Vectors { width } => list(DataType::Float32, width),
            Self::IndexLists { width } => list(DataType::UInt32, width),
            Self::Images => DataType::Struct(image_fields()),
        };
        Field::new(name, kind, self == Self::Images)
    }

    /// The kind of an Arrow field, if it is one of ours.
    pub(super) fn from_field(field: &Field) -> Option<Self> {
        Some(match field.data_type() {
            DataType::Boolean => Self::Bool,
            DataType::UInt32 => Self::U32,
            DataType::Int32 => Self::I32,
            DataType::Int64 => Self::I64,
            DataType::Float32 => Self::F32,
            DataType::Float64 => Self::F64,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::FixedSizeList(child, width) => {
                let width = usize::try_from(*width).ok().filter(|width| *width > 0)?;
                match child.data_type() {
                    DataType::Float32 => Self::Vectors { width },
                    DataType::UInt32 => Self::IndexLists { width },
                    _ => return None,
                }
            }
            DataType::Struct(fields) => {
                let is = |name: &str, fits: fn(&DataType) -> bool| {
                    fields.iter().any(|field| field.name() == name && fits(field.data_type()))
                };
                let bytes = is("bytes", |t| matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView));
                let path = is("path", |t| matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View));
                if !(bytes && path) {
                    return None;
                }
                Self::Images
            }
            _ => return None,
        })
    }
}

fn image_fields() -> Fields {
    Fields::from(vec![Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)])
}

/// The same expression for the values of any column, with their number per row; another one for pictures.
macro_rules! each {
    ($column:expr, $values:ident, $width:ident => $do:expr, $bytes:ident, $paths:ident => $pictures:expr) => {
        each!(@ $column, $values, $width => $do, $bytes, $paths => $pictures, Bool U32 I32 I64 F32 F64 Text)
    };
    (@ $column:expr, $values:ident, $width:ident => $do:expr, $bytes:ident, $paths:ident => $pictures:expr, $($kind:ident)*) => {
        match $column {
            $(Self::$kind($values) => { let $width = 1_usize; $do })*
            Self::Vectors { width, values: $values } => { let $width = *width; $do }
            Self::IndexLists { width, values: $values } => { let $width = *width; $do }
            Self::Images { bytes: $bytes, paths: $paths } => $pictures,
        }
    };
}

/// A Rust type of which a column holds one value per row.
pub trait Value: Sized {
    const KIND: ColumnKind;

    fn from_column(column: Column) -> Option<Vec<Self>>;
}

macro_rules! values {
    ($($kind:ident $type:ty),*) => {
        $(impl Value for $type {
            const KIND: ColumnKind = ColumnKind::$kind;

            fn from_column(column: Column) -> Option<Vec<Self>> {
                if let Column::$kind(values) = column { Some(values) } else { None }
            }
        }

        impl From<Vec<$type>> for Column {
            fn from(values: Vec<$type>) -> Self {
                Self::$kind(values)
            }
        })*
    };
}
values!(Bool bool, U32 u32, I32 i32, I64 i64, F32 f32, F64 f64, Text String);

#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    Bool(Vec<bool>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Text(Vec<String>),
    Vectors {
        /// Numbers per row.
        width: usize,
        /// `[rows, width]`.
        values: Vec<f32>,
    },
    IndexLists {
        /// Numbers per row.
        width: usize,
        /// `[rows, width]`.
        values: Vec<u32>,
    },
    Images {
        /// A picture's file, or nothing if it was left where it is.
        bytes: Vec<Vec<u8>>,
        /// Where it came from, or nothing.
        paths: Vec<String>,
    },
}

pub(super) enum Unfit {
    /// A value is missing in this row.
    Null(usize),
    /// The type is another one than the schema declares.
    Kind,
}

impl Column {
    pub fn kind(&self) -> ColumnKind {
        match self {
            Self::Bool(_) => ColumnKind::Bool,
            Self::U32(_) => ColumnKind::U32,
            Self::I32(_) => ColumnKind::I32,
            Self::I64(_) => ColumnKind::I64,
            Self::F32(_) => ColumnKind::F32,
            Self::F64(_) => ColumnKind::F64,
            Self::Text(_) => ColumnKind::Text,
            Self::Vectors { width, .. } => ColumnKind::Vectors { width: *width },
            Self::IndexLists { width, .. } => ColumnKind::IndexLists { width: *width },
            Self::Images { .. } => ColumnKind::Images,
        }
    }

    /// Its rows; a last row that is not complete counts as one.
    pub fn len(&self) -> usize {
        each!(self, values, width => values.len().div_ceil(width.max(1)), bytes, paths => bytes.len().max(paths.len()))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn is_complete(&self) -> bool {
        each!(self, values, width => width > 0 && values.len().is_multiple_of(width), bytes, paths => bytes.len() == paths.len())
    }

    pub(super) fn row_bytes(&self, row: usize) -> usize {
        let extra = match self {
            Self::Text(v) => v[row].len(),
            Self::Images { bytes, paths } => bytes[row].len() + paths[row].len(),
            _ => 0,
        };
        self.kind().least_row_bytes() + extra
    }

    /// Moves some rows to the end of another column of the same kind. Texts and pictures are empty here afterwards.
    pub(super) fn move_rows(&mut self, rows: Range<usize>, to: &mut Self) {
        match (self, to) {
            (Self::Bool(from), Self::Bool(to)) => to.extend_from_slice(&from[rows]),
            (Self::U32(from), Self::U32(to)) => to.extend_from_slice(&from[rows]),
            (Self::I32(from), Self::I32(to)) => to.extend_from_slice(&from[rows]),
            (Self::I64(from), Self::I64(to)) => to.extend_from_slice(&from[rows]),
            (Self::F32(from), Self::F32(to)) => to.extend_from_slice(&from[rows]),
            (Self::F64(from), Self::F64(to)) => to.extend_from_slice(&from[rows]),
            (Self::Text(from), Self::Text(to)) => to.extend(from[rows].iter_mut().map(std::mem::take)),
            (Self::Vectors { width, values: from }, Self::Vectors { values: to, .. }) => {
                to.extend_from_slice(&from[rows.start * *width..rows.end * *width]);
            }
            (Self::IndexLists { width, values: from }, Self::IndexLists { values: to, .. }) => {
                to.extend_from_slice(&from[rows.start * *width..rows.end * *width]);
            }
            (Self::Images { bytes, paths }, Self::Images { bytes: to_bytes, paths: to_paths }) => {
                to_bytes.extend(bytes[rows.clone()].iter_mut().map(std::mem::take));
                to_paths.extend(paths[rows].iter_mut().map(std::mem::take));
            }
            _ => unreachable!("kinds are compared before rows are moved"),
        }
    }

    /// Makes room for more rows of numbers, `bytes` at most.
    pub(super) fn reserve(&mut self, rows: usize, bytes: usize) {
        if !matches!(self, Self::Text(_) | Self::Images { .. }) {
            let rows = rows.min(bytes / self.kind().least_row_bytes().max(1));
            each!(self, values, width => values.reserve(rows * width), _bytes, _paths => {});
        }
    }

    /// Digests what it says: values in row order, little-endian, texts with their length in front. A picture is its bytes; its
    /// path counts only where there are no bytes, so that a renamed folder does not count as another data set.
    pub(super) fn digest(&self, hasher: &mut Hasher) {
        fn numbers<T: Copy, const N: usize>(hasher: &mut Hasher, values: &[T], bytes: fn(T) -> [u8; N]) {
            let mut buffer = Vec::with_capacity(N * values.len().min(1 << 13));
            for part in values.chunks(1 << 13) {
                buffer.clear();
                buffer.extend(part.iter().flat_map(|value| bytes(*value)));
                hasher.update(&buffer);
            }
        }
        match self {
            Self::Bool(v) => numbers(hasher, v, |yes| [u8::from(yes)]),
            Self::U32(v) | Self::IndexLists { values: v, .. } => numbers(hasher, v, u32::to_le_bytes),
            Self::I32(v) => numbers(hasher, v, i32::to_le_bytes),
            Self::I64(v) => numbers(hasher, v, i64::to_le_bytes),
            Self::F32(v) | Self::Vectors { values: v, .. } => numbers(hasher, v, f32::to_le_bytes),
            Self::F64(v) => numbers(hasher, v, f64::to_le_bytes),
            Self::Text(v) => v.iter().for_each(|text| {
                hasher.field(text);
            }),
            Self::Images { bytes, paths } => {
                for (bytes, path) in bytes.iter().zip(paths) {
                    hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
                    if bytes.is_empty() {
                        hasher.field(path);
                    }
                }
            }
        }
    }

    pub(super) fn into_arrow(self) -> Result<ArrayRef, arrow::error::ArrowError> {
        let list = |child: ArrayRef, width: usize| -> Result<ArrayRef, arrow::error::ArrowError> {
            let field = Arc::new(Field::new("element", child.data_type().clone(), false));
            let width = i32::try_from(width)
                .map_err(|_| arrow::error::ArrowError::InvalidArgumentError("a list of more than 2³¹ values".into()))?;
            Ok(Arc::new(FixedSizeListArray::try_new(field, width, child, None)?))
        };
        Ok(match self {
            Self::Bool(v) => Arc::new(BooleanArray::from(v)),
            Self::U32(v) => Arc::new(UInt32Array::from(v)),
            Self::I32(v) => Arc::new(Int32Array::from(v)),
            Self::I64(v) => Arc::new(Int64Array::from(v)),
            Self::F32(v) => Arc::new(Float32Array::from(v)),
            Self::F64(v) => Arc::new(Float64Array::from(v)),
            Self::Text(v) => Arc::new(StringArray::from(v)),
            Self::Vectors { width, values } => list(Arc::new(Float32Array::from(values)), width)?,
            Self::IndexLists { width, values } => list(Arc::new(UInt32Array::from(values)), width)?,
            Self::Images { bytes, paths } => {
                // Collected, pictures would lie in memory three times: here, in a buffer that grows, and where it grew from.
                let mut all = BinaryBuilder::with_capacity(bytes.len(), bytes.iter().map(Vec::len).sum());
                for picture in bytes {
                    all.append_option((!picture.is_empty()).then_some(picture));
                }
                let paths: StringArray = paths.iter().map(|p| (!p.is_empty()).then_some(p.as_str())).collect();
                let parts: Vec<ArrayRef> = vec![Arc::new(all.finish()), Arc::new(paths)];
                Arc::new(StructArray::try_new(image_fields(), parts, None::<NullBuffer>)?)
            }
        })
    }

    /// Its values from Arrow, with the type the schema declares.
    pub(super) fn from_arrow(array: &ArrayRef, kind: ColumnKind) -> Result<Self, Unfit> {
        if array.null_count() > 0 {
            return Err(Unfit::Null((0..array.len()).find(|row| array.is_null(*row)).unwrap_or(0)));
        }
        let child = |width: usize| -> Result<ArrayRef, Unfit> {
            let lists = array.as_fixed_size_list_opt().ok_or(Unfit::Kind)?;
            // A sliced array keeps its whole child: cut it to our rows.
            let start = lists.value_offset_at(0);
            let values = lists.values().slice(start, lists.len() * width);
            if values.null_count() > 0 {
                let place = (0..values.len()).find(|place| values.is_null(*place)).unwrap_or(0);
                return Err(Unfit::Null(place / width.max(1)));
            }
            Ok(values)
        };
        Ok(match kind {
            ColumnKind::Bool => Self::Bool(array.as_boolean_opt().ok_or(Unfit::Kind)?.values().iter().collect()),
            ColumnKind::U32 => Self::U32(numbers::<UInt32Type>(array)?),
            ColumnKind::I32 => Self::I32(numbers::<Int32Type>(array)?),
            ColumnKind::I64 => Self::I64(numbers::<Int64Type>(array)?),
            ColumnKind::F32 => Self::F32(numbers::<Float32Type>(array)?),
            ColumnKind::F64 => Self::F64(numbers::<Float64Type>(array)?),
            ColumnKind::Text => Self::Text(texts(array).ok_or(Unfit::Kind)?),
            ColumnKind::Vectors { width } => Self::Vectors { width, values: numbers::<Float32Type>(&child(width)?)? },
            ColumnKind::IndexLists { width } => Self::IndexLists { width, values: numbers::<UInt32Type>(&child(width)?)? },
            ColumnKind::Images => {
                let parts = array.as_struct_opt().ok_or(Unfit::Kind)?;
                let bytes = parts.column_by_name("bytes").and_then(blobs).ok_or(Unfit::Kind)?;
                let paths = parts.column_by_name("path").and_then(texts).ok_or(Unfit::Kind)?;
                Self::Images { bytes, paths }
            }
        })
    }
}

fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<Vec<T::Native>, Unfit> {
    Ok(array.as_primitive_opt::<T>().ok_or(Unfit::Kind)?.values().to_vec())
}

/// Texts of any of Arrow's forms; missing ones are empty.
pub(super) fn texts(array: &ArrayRef) -> Option<Vec<String>> {
    let array = cast(array, &DataType::LargeUtf8).ok()?;
    let array = array.as_string_opt::<i64>()?;
    Some((0..array.len()).map(|row| if array.is_null(row) { String::new() } else { array.value(row).to_owned() }).collect())
}

/// Byte strings of any of Arrow's forms; missing ones are empty.
pub(super) fn blobs(array: &ArrayRef) -> Option<Vec<Vec<u8>>> {
    let array = cast(array, &DataType::LargeBinary).ok()?;
    let array = array.as_binary_opt::<i64>()?;
    Some((0..array.len()).map(|row| if array.is_null(row) { Vec::new() } else { array.value(row).to_vec() }).collect())
}
