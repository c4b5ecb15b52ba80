//! Parquet's metadata structures, as far as the decoder reads them: which field is what.
//!
//! From `parquet.thrift` of the format's specification (apache/parquet-format 2.12) and the decoder's source (parquet 60.1,
//! without encryption; statistics of pages are not read). A field that is missing here is one that the decoder skips; that none
//! is missing is for the fuzzer to find out.

use super::thrift::Kind::{Byte, Bytes, Double, Flag, Number, Numbers, Struct, Structs};
use super::thrift::Structure;

macro_rules! structures {
    ($($constant:ident $name:literal { $($field:literal $kind:expr),* })*) => {
        $(pub(super) const $constant: Structure = Structure { name: $name, fields: &[$(($field, $kind)),*] };)*
    };
}

structures! {
    FILE "FileMetaData" {
        1 Number, 2 Structs(&COLUMN), 3 Number, 4 Structs(&GROUP), 5 Structs(&KEY_VALUE), 6 Bytes, 7 Structs(&COLUMN_ORDER)
    }
    COLUMN "SchemaElement" {
        1 Number, 2 Number, 3 Number, 4 Bytes, 5 Number, 6 Number, 7 Number, 8 Number, 9 Number, 10 Struct(&LOGICAL)
    }
    LOGICAL "LogicalType" {
        1 Struct(&EMPTY), 2 Struct(&EMPTY), 3 Struct(&EMPTY), 4 Struct(&EMPTY), 5 Struct(&DECIMAL), 6 Struct(&EMPTY),
        7 Struct(&TIME), 8 Struct(&TIME), 10 Struct(&INTEGER), 11 Struct(&EMPTY), 12 Struct(&EMPTY), 13 Struct(&EMPTY),
        14 Struct(&EMPTY), 15 Struct(&EMPTY), 16 Struct(&VARIANT), 17 Struct(&GEOMETRY), 18 Struct(&GEOGRAPHY), 19 Struct(&EMPTY)
    }
    EMPTY "an empty structure" {}
    DECIMAL "DecimalType" { 1 Number, 2 Number }
    TIME "TimeType or TimestampType" { 1 Flag, 2 Struct(&TIME_UNIT) }
    TIME_UNIT "TimeUnit" { 1 Struct(&EMPTY), 2 Struct(&EMPTY), 3 Struct(&EMPTY) }
    INTEGER "IntType" { 1 Byte, 2 Flag }
    VARIANT "VariantType" { 1 Byte }
    GEOMETRY "GeometryType" { 1 Bytes }
    GEOGRAPHY "GeographyType" { 1 Bytes, 2 Number }
    GROUP "RowGroup" {
        1 Structs(&CHUNK), 2 Number, 3 Number, 4 Structs(&SORTING_COLUMN), 5 Number, 6 Number, 7 Number
    }
    SORTING_COLUMN "SortingColumn" { 1 Number, 2 Flag, 3 Flag }
    CHUNK "ColumnChunk" { 1 Bytes, 2 Number, 3 Struct(&CHUNK_METADATA), 4 Number, 5 Number, 6 Number, 7 Number }
    CHUNK_METADATA "ColumnMetaData" {
        1 Number, 2 Numbers, 4 Number, 5 Number, 6 Number, 7 Number, 9 Number, 10 Number, 11 Number, 12 Struct(&STATISTICS),
        13 Structs(&PAGE_ENCODING), 14 Number, 15 Number, 16 Struct(&SIZES), 17 Struct(&GEOSPATIAL)
    }
    STATISTICS "Statistics" {
        1 Bytes, 2 Bytes, 3 Number, 4 Number, 5 Bytes, 6 Bytes, 7 Flag, 8 Flag, 9 Number
    }
    PAGE_ENCODING "PageEncodingStats" { 1 Number, 2 Number, 3 Number }
    SIZES "SizeStatistics" { 1 Number, 2 Numbers, 3 Numbers }
    GEOSPATIAL "GeospatialStatistics" { 1 Struct(&BOX), 2 Numbers }
    BOX "BoundingBox" { 1 Double, 2 Double, 3 Double, 4 Double, 5 Double, 6 Double, 7 Double, 8 Double }
    KEY_VALUE "KeyValue" { 1 Bytes, 2 Bytes }
    COLUMN_ORDER "ColumnOrder" { 1 Struct(&EMPTY), 2 Struct(&EMPTY), 3 Struct(&EMPTY) }

    PAGES "OffsetIndex" { 1 Structs(&PAGE_LOCATION), 2 Numbers }
    PAGE_LOCATION "PageLocation" { 1 Number, 2 Number, 3 Number }

    PAGE "PageHeader" {
        1 Number, 2 Number, 3 Number, 4 Number, 5 Struct(&DATA_PAGE), 6 Struct(&EMPTY), 7 Struct(&DICTIONARY_PAGE),
        8 Struct(&DATA_PAGE_V2)
    }
    DATA_PAGE "DataPageHeader" { 1 Number, 2 Number, 3 Number, 4 Number }
    DATA_PAGE_V2 "DataPageHeaderV2" { 1 Number, 2 Number, 3 Number, 4 Number, 5 Number, 6 Number, 7 Flag }
    DICTIONARY_PAGE "DictionaryPageHeader" { 1 Number, 2 Number, 3 Flag }
}
