//! Parquet's own structures, as far as the decoder reads them: which field is what.
//!
//! From `parquet.thrift` of the format's specification (apache/parquet-format 2.12). A field that is missing here is one that the
//! decoder skips; that none is missing is for the fuzzer to find out.

use super::thrift::Kind::{Byte, Bytes, Double, Flag, List, Number, Struct};
use super::thrift::Structure;

/// `FileMetaData`, the footer.
pub(super) const FILE: Structure = Structure {
    name: "FileMetaData",
    fields: &[
        (1, Number),
        (2, List(&Struct(&COLUMN))),
        (3, Number),
        (4, List(&Struct(&GROUP))),
        (5, List(&Struct(&KEY_VALUE))),
        (6, Bytes),
        (7, List(&Struct(&COLUMN_ORDER))),
        (8, Struct(&ENCRYPTION)),
        (9, Bytes),
    ],
};

/// `OffsetIndex`: where the pages of a column lie.
pub(super) const PAGES: Structure =
    Structure { name: "OffsetIndex", fields: &[(1, List(&Struct(&PAGE_LOCATION))), (2, List(&Number))] };

const PAGE_LOCATION: Structure = Structure { name: "PageLocation", fields: &[(1, Number), (2, Number), (3, Number)] };

/// `PageHeader`.
pub(super) const PAGE: Structure = Structure {
    name: "PageHeader",
    fields: &[
        (1, Number),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Struct(&DATA_PAGE)),
        (6, Struct(&EMPTY)),
        (7, Struct(&DICTIONARY_PAGE)),
        (8, Struct(&DATA_PAGE_V2)),
    ],
};

const DATA_PAGE: Structure = Structure {
    name: "DataPageHeader",
    fields: &[(1, Number), (2, Number), (3, Number), (4, Number), (5, Struct(&STATISTICS))],
};

const DATA_PAGE_V2: Structure = Structure {
    name: "DataPageHeaderV2",
    fields: &[
        (1, Number),
        (2, Number),
        (3, Number),
        (4, Number),
        (5, Number),
        (6, Number),
        (7, Flag),
        (8, Struct(&STATISTICS)),
    ],
};

const DICTIONARY_PAGE: Structure = Structure { name: "DictionaryPageHeader", fields: &[(1, Number), (2, Number), (3, Flag)] };

const COLUMN: Structure = Structure {
    name: "SchemaElement",
    fields: &[
        (1, Number),
        (2, Number),
        (3, Number),
        (4, Bytes),
        (5, Number),
        (6, Number),
        (7, Number),
        (8, Number),
        (9, Number),
        (10, Struct(&LOGICAL)),
    ],
};

/// `LogicalType`, a union. The variants that hold nothing are empty structures.
const LOGICAL: Structure = Structure {
    name: "LogicalType",
    fields: &[
        (1, Struct(&EMPTY)),
        (2, Struct(&EMPTY)),
        (3, Struct(&EMPTY)),
        (4, Struct(&EMPTY)),
        (5, Struct(&DECIMAL)),
        (6, Struct(&EMPTY)),
        (7, Struct(&TIME)),
        (8, Struct(&TIME)),
        (10, Struct(&INTEGER)),
        (11, Struct(&EMPTY)),
        (12, Struct(&EMPTY)),
        (13, Struct(&EMPTY)),
        (14, Struct(&EMPTY)),
        (15, Struct(&EMPTY)),
        (16, Struct(&VARIANT)),
        (17, Struct(&GEOMETRY)),
        (18, Struct(&GEOGRAPHY)),
        (19, Struct(&EMPTY)),
    ],
};

const EMPTY: Structure = Structure { name: "an empty structure", fields: &[] };
const DECIMAL: Structure = Structure { name: "DecimalType", fields: &[(1, Number), (2, Number)] };
/// `TimeType` and `TimestampType`.
const TIME: Structure = Structure { name: "TimeType", fields: &[(1, Flag), (2, Struct(&TIME_UNIT))] };
const TIME_UNIT: Structure =
    Structure { name: "TimeUnit", fields: &[(1, Struct(&EMPTY)), (2, Struct(&EMPTY)), (3, Struct(&EMPTY))] };
const INTEGER: Structure = Structure { name: "IntType", fields: &[(1, Byte), (2, Flag)] };
const VARIANT: Structure = Structure { name: "VariantType", fields: &[(1, Byte)] };
const GEOMETRY: Structure = Structure { name: "GeometryType", fields: &[(1, Bytes)] };
const GEOGRAPHY: Structure = Structure { name: "GeographyType", fields: &[(1, Bytes), (2, Number)] };

const GROUP: Structure = Structure {
    name: "RowGroup",
    fields: &[
        (1, List(&Struct(&CHUNK))),
        (2, Number),
        (3, Number),
        (4, List(&Struct(&SORTING_COLUMN))),
        (5, Number),
        (6, Number),
        (7, Number),
    ],
};

const SORTING_COLUMN: Structure = Structure { name: "SortingColumn", fields: &[(1, Number), (2, Flag), (3, Flag)] };

const CHUNK: Structure = Structure {
    name: "ColumnChunk",
    fields: &[
        (1, Bytes),
        (2, Number),
        (3, Struct(&CHUNK_METADATA)),
        (4, Number),
        (5, Number),
        (6, Number),
        (7, Number),
        (8, Struct(&CHUNK_ENCRYPTION)),
        (9, Bytes),
    ],
};

const CHUNK_METADATA: Structure = Structure {
    name: "ColumnMetaData",
    fields: &[
        (1, Number),
        (2, List(&Number)),
        (3, List(&Bytes)),
        (4, Number),
        (5, Number),
        (6, Number),
        (7, Number),
        (8, List(&Struct(&KEY_VALUE))),
        (9, Number),
        (10, Number),
        (11, Number),
        (12, Struct(&STATISTICS)),
        (13, List(&Struct(&PAGE_ENCODING))),
        (14, Number),
        (15, Number),
        (16, Struct(&SIZES)),
        (17, Struct(&GEOSPATIAL)),
    ],
};

const STATISTICS: Structure = Structure {
    name: "Statistics",
    fields: &[(1, Bytes), (2, Bytes), (3, Number), (4, Number), (5, Bytes), (6, Bytes), (7, Flag), (8, Flag), (9, Number)],
};

const PAGE_ENCODING: Structure = Structure { name: "PageEncodingStats", fields: &[(1, Number), (2, Number), (3, Number)] };
const SIZES: Structure = Structure { name: "SizeStatistics", fields: &[(1, Number), (2, List(&Number)), (3, List(&Number))] };
const GEOSPATIAL: Structure = Structure { name: "GeospatialStatistics", fields: &[(1, Struct(&BOX)), (2, List(&Number))] };
const BOX: Structure = Structure {
    name: "BoundingBox",
    fields: &[(1, Double), (2, Double), (3, Double), (4, Double), (5, Double), (6, Double), (7, Double), (8, Double)],
};
const KEY_VALUE: Structure = Structure { name: "KeyValue", fields: &[(1, Bytes), (2, Bytes)] };

/// `ColumnOrder`, a union.
const COLUMN_ORDER: Structure =
    Structure { name: "ColumnOrder", fields: &[(1, Struct(&EMPTY)), (2, Struct(&EMPTY)), (3, Struct(&EMPTY))] };

/// `EncryptionAlgorithm`, a union.
const ENCRYPTION: Structure = Structure { name: "EncryptionAlgorithm", fields: &[(1, Struct(&CIPHER)), (2, Struct(&CIPHER))] };
const CIPHER: Structure = Structure { name: "AesGcmV1", fields: &[(1, Bytes), (2, Bytes), (3, Flag)] };
/// `ColumnCryptoMetaData`, a union.
const CHUNK_ENCRYPTION: Structure =
    Structure { name: "ColumnCryptoMetaData", fields: &[(1, Struct(&EMPTY)), (2, Struct(&CHUNK_KEY))] };
const CHUNK_KEY: Structure = Structure { name: "EncryptionWithColumnKey", fields: &[(1, List(&Bytes)), (2, Bytes)] };
