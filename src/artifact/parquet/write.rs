//! Writing of tables, row group by row group, and the digest of their content.
//!
//! A file's bytes depend on how its writer cuts it; what a table says does not. So there are two digests. The one of the bytes is
//! the store's business; the *logical* one is made here while the data pass: names and types of the columns, the declared
//! metadata, and the values of each column in row order. It does not see batches, row groups, encodings, codecs or the version
//! of the Parquet crate, so none of these runs a pipeline again.
//!
//! The bytes are kept steady too: rows are cut again by a fixed rule however they arrive, `created_by` is fixed, and nothing is
//! compressed (embeddings and encoded pictures do not shrink, and an upgraded codec must not move a byte).

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::column::{Column, ColumnKind};
use crate::error::{ArtifactError, Result, display};
use crate::meta::Meta;
use crate::origin;
use kinset_base::fs::{self, At};
use kinset_store::digest::{Digest, Hasher};

/// Rows are handed to the encoder in chunks of so many rows …
pub(super) const CHUNK_ROWS: usize = 8192;
/// … or so many bytes, whichever comes first.
const CHUNK_BYTES: usize = 8 << 20;
/// Rows of a table in memory that are handed over at a time.
const SAVED_ROWS: usize = 16_384;
/// A row group ends after so many rows …
const GROUP_ROWS: usize = 65_536;
/// … or so many bytes, whichever comes first …
const GROUP_BYTES: usize = 64 << 20;
/// … but, where rows are small, not before so many rows.
const GROUP_ROWS_AT_LEAST: usize = 16_384;
/// A row group of pictures ends after so many bytes: they come one by one, and a group waits in memory until it is whole.
const PICTURE_GROUP_BYTES: usize = 32 << 20;
/// Pages of pictures are small, because one picture out of many is read by its page.
const PICTURE_PAGE_BYTES: usize = 128 << 10;

/// Streams a table to a file. Memory: one row group.
pub struct TableWriter {
    path: PathBuf,
    schema: Vec<(String, ColumnKind)>,
    arrow: SchemaRef,
    writer: ArrowWriter<BufWriter<File>>,
    meta: Meta,
    extra: Vec<(String, String)>,
    pending: VecDeque<Vec<Column>>,
    /// Rows of the first pending batch that were written already.
    skip: usize,
    chunk: Filled,
    group: Filled,
    rows: u64,
    digests: Vec<Hasher>,
}

#[derive(Clone, Copy, Default)]
struct Filled {
    rows: usize,
    bytes: usize,
}

impl TableWriter {
    /// Starts a table at a path; a file that is there already is replaced.
    pub fn create(path: &Path, schema: &[(&str, ColumnKind)], meta: Meta) -> Result<Self> {
        let arrow: SchemaRef = Arc::new(Schema::new(schema.iter().map(|(name, kind)| kind.field(name)).collect::<Vec<_>>()));
        fs::remove(path)?;
        let file = BufWriter::with_capacity(1 << 18, fs::create_new(path)?);
        // Arrow's schema is added at the end: pyarrow finds our metadata only inside it.
        let options = ArrowWriterOptions::new().with_properties(properties(schema)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, arrow.clone(), options).map_err(|e| encode(path, &e))?;
        Ok(Self {
            path: path.to_owned(),
            schema: schema.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
            arrow,
            writer,
            meta,
            extra: Vec::new(),
            pending: VecDeque::new(),
            skip: 0,
            chunk: Filled::default(),
            group: Filled::default(),
            rows: 0,
            digests: schema.iter().map(|_| column_hasher()).collect(),
        })
    }

    /// The metadata, which may be changed until the end: some facts are known only when all rows have passed.
    pub fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }

    /// Adds an entry of file metadata for other tools. It is not part of the digest.
    pub fn add_metadata(&mut self, key: &str, value: String) {
        self.extra.push((key.to_owned(), value));
    }

    /// Rows taken so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Writes a table that lies in memory: `columns` gives those of a range of rows, by name, always the same ones.
    pub fn save(
        path: &Path,
        meta: Meta,
        rows: usize,
        columns: impl Fn(Range<usize>) -> Vec<(&'static str, Column)>,
    ) -> Result<Digest> {
        let schema: Vec<_> = columns(0..0).iter().map(|(name, column)| (*name, column.kind())).collect();
        let mut writer = Self::create(path, &schema, meta)?;
        writer.write_all(rows, |rows| columns(rows).into_iter().map(|(_, column)| column).collect())?;
        writer.finish()
    }

    /// Writes rows that lie in memory, some thousand copied at a time: `columns` gives those of a range.
    pub fn write_all(&mut self, rows: usize, columns: impl Fn(Range<usize>) -> Vec<Column>) -> Result<()> {
        (0..rows).step_by(SAVED_ROWS).try_for_each(|start| self.write(columns(start..rows.min(start + SAVED_ROWS))))
    }

    /// Writes some rows: one column per column of the schema, in its order.
    ///
    /// # Errors
    /// If columns differ in kind from the schema or in length from each other, if the table grows beyond 2³² rows, or if the
    /// file cannot be written.
    pub fn write(&mut self, columns: Vec<Column>) -> Result<()> {
        self.write_rows(columns, None)
    }

    /// As [`TableWriter::write`], for pictures that can be encoded in several ways: `contents` are, row by row, what stands for
    /// them in the digest.
    pub fn write_pictures(&mut self, columns: Vec<Column>, contents: &[Digest]) -> Result<()> {
        self.write_rows(columns, Some(contents))
    }

    fn write_rows(&mut self, columns: Vec<Column>, contents: Option<&[Digest]>) -> Result<()> {
        self.check(&columns)?;
        let rows = columns.first().map_or(0, Column::len);
        if rows == 0 {
            return Ok(());
        }
        self.rows += rows as u64;
        if self.rows > u64::from(u32::MAX) {
            return Err(ArtifactError::TooManyRows { path: display(&self.path), limit: u64::from(u32::MAX) });
        }
        for (column, digest) in columns.iter().zip(&mut self.digests) {
            match (column, contents) {
                (Column::Images { .. }, Some(contents)) => contents.iter().for_each(|content| {
                    digest.field(&content.hex());
                }),
                _ => column.digest(digest),
            }
        }
        // The widths of all rows, so that the cut below does not depend on how rows arrive.
        let bytes: Vec<usize> = (0..rows).map(|row| columns.iter().map(|c| c.row_bytes(row)).sum()).collect();
        self.pending.push_back(columns);
        for bytes in bytes {
            self.chunk.rows += 1;
            self.chunk.bytes += bytes;
            if self.chunk.rows >= CHUNK_ROWS || self.chunk.bytes >= CHUNK_BYTES {
                self.write_chunk()?;
            }
        }
        Ok(())
    }

    fn check(&self, columns: &[Column]) -> Result<()> {
        let path = || display(&self.path);
        if columns.len() != self.schema.len() {
            let (found, wanted) = (columns.len(), self.schema.len());
            return Err(ArtifactError::Length { path: path(), what: "columns".into(), found, wanted });
        }
        let rows = columns.first().map_or(0, Column::len);
        for (column, (name, kind)) in columns.iter().zip(&self.schema) {
            if column.kind() != *kind {
                let (found, wanted) = (column.kind().to_string(), kind.to_string());
                return Err(ArtifactError::WrongType { path: path(), column: name.clone(), found, wanted });
            }
            if column.len() != rows || !column.is_complete() {
                return Err(ArtifactError::Length { path: path(), what: name.clone(), found: column.len(), wanted: rows });
            }
        }
        Ok(())
    }

    /// Hands the counted rows to the encoder, and ends the row group if it is full.
    fn write_chunk(&mut self) -> Result<()> {
        let mut chunk: Vec<Column> = self.schema.iter().map(|(_, kind)| kind.empty()).collect();
        let mut missing = self.chunk.rows;
        while missing > 0 {
            let Some(first) = self.pending.front_mut() else { unreachable!("rows are counted when they come in") };
            let rows = first.first().map_or(0, Column::len);
            let taken = (rows - self.skip).min(missing);
            for (column, part) in chunk.iter_mut().zip(first) {
                part.move_rows(self.skip..self.skip + taken, column);
            }
            missing -= taken;
            self.skip += taken;
            if self.skip == rows {
                self.pending.pop_front();
                self.skip = 0;
            }
        }
        let arrays = chunk.into_iter().map(Column::into_arrow).collect::<std::result::Result<Vec<_>, _>>();
        let batch = arrays.and_then(|arrays| RecordBatch::try_new(self.arrow.clone(), arrays));
        batch.map_err(Into::into).and_then(|batch| self.writer.write(&batch)).map_err(|e| encode(&self.path, &e))?;
        self.group.rows += self.chunk.rows;
        self.group.bytes += self.chunk.bytes;
        self.chunk = Filled::default();
        let pictures = self.schema.iter().any(|(_, kind)| *kind == ColumnKind::Images);
        let full = if pictures {
            self.group.bytes >= PICTURE_GROUP_BYTES
        } else {
            self.group.bytes >= GROUP_BYTES && self.group.rows >= GROUP_ROWS_AT_LEAST
        };
        if self.group.rows >= GROUP_ROWS || full {
            self.writer.flush().map_err(|e| encode(&self.path, &e))?;
            self.group = Filled::default();
        }
        Ok(())
    }

    /// Ends the file; returns the digest of its content.
    pub fn finish(mut self) -> Result<Digest> {
        if self.chunk.rows > 0 {
            self.write_chunk()?;
        }
        for (field, value) in origin::beside(&self.path)? {
            self.meta.about.entry(field).or_insert(value);
        }
        let whole = serde_json::to_string(&self.meta)
            .map_err(|e| ArtifactError::Encode { path: display(&self.path), detail: e.to_string() })?;
        self.extra.push(("kinset".to_owned(), whole));
        let schema = Schema::clone(&self.arrow).with_metadata(self.extra.iter().cloned().collect::<BTreeMap<_, _>>());
        self.extra.push((ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&schema)));
        self.extra.sort_unstable();
        for (key, value) in self.extra {
            self.writer.append_key_value_metadata(KeyValue::new(key, value));
        }
        let mut file = self.writer.into_inner().map_err(|e| encode(&self.path, &e))?;
        file.flush().at("write", &self.path)?;

        content_digest(&self.path, &self.meta, self.rows, self.schema.iter().zip(&self.digests))
    }
}

/// What the values of a column are digested with.
pub(super) fn column_hasher() -> Hasher {
    Hasher::derived("kinset 2026-11 column content")
}

/// The digest of what a table says, from its columns with what their values came to.
pub(super) fn content_digest<'a>(
    path: &Path,
    meta: &Meta,
    rows: u64,
    columns: impl Iterator<Item = (&'a (String, ColumnKind), &'a Hasher)>,
) -> Result<Digest> {
    let fields = serde_json::to_string(&meta.fields)
        .map_err(|e| ArtifactError::Encode { path: display(path), detail: e.to_string() })?;
    let mut table = Hasher::derived("kinset 2026-11 table content");
    table.field(&meta.artifact).field(&meta.format.to_string()).field(&fields).field(&rows.to_string());
    for ((name, kind), digest) in columns {
        table.field(name).field(&kind.to_string()).field(&digest.finish().hex());
    }
    Ok(table.finish())
}

/// What the encoder could not do: our bug, unless the file system refused.
fn encode(path: &Path, error: &ParquetError) -> ArtifactError {
    if let ParquetError::External(source) = error
        && let Some(io) = source.downcast_ref::<std::io::Error>()
    {
        let io =
            io.raw_os_error().map_or_else(|| std::io::Error::new(io.kind(), io.to_string()), std::io::Error::from_raw_os_error);
        return fs::FileError::new("write", path, io).into();
    }
    ArtifactError::Encode { path: display(path), detail: error.to_string() }
}

fn properties(schema: &[(&str, ColumnKind)]) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_created_by("kinset".to_owned())
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        // Row groups end where `write_chunk` says, nowhere else.
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(None);
    for (name, kind) in schema {
        let parts: &[&[&str]] = match kind {
            ColumnKind::Vectors { .. } | ColumnKind::IndexLists { .. } => &[&["list", "element"]],
            ColumnKind::Images => &[&["bytes"], &["path"]],
            ColumnKind::Text if *name != "id" => {
                // Words that come again and again: the names of curves, reasons.
                properties = properties.set_column_dictionary_enabled(ColumnPath::from(*name), true);
                continue;
            }
            _ => continue,
        };
        for part in parts {
            let leaf = ColumnPath::new(std::iter::once(name).chain(part.iter()).map(|part| (*part).to_owned()).collect());
            // The smallest float of all vectors tells nobody anything.
            properties = properties.set_column_statistics_enabled(leaf.clone(), EnabledStatistics::None);
            if *kind == ColumnKind::Images {
                properties = properties.set_column_data_page_size_limit(leaf, PICTURE_PAGE_BYTES);
            }
        }
    }
    if schema.iter().any(|(_, kind)| *kind == ColumnKind::Images) {
        // The encoder looks at a page's size only after so many values.
        properties = properties.set_write_batch_size(16);
    }
    properties.build()
}
