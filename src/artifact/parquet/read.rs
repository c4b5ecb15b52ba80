//! Reading of tables. Nothing in a file is trusted before it was checked, and no file makes this panic.

use std::ops::Range;
use std::path::Path;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{RowSelection, RowSelectionPolicy, RowSelector};

use super::batches::BatchReader;
use super::column::{Column, ColumnKind, Unfit, Value, blobs, texts};
use super::footer::Footer;
use super::write::{CHUNK_ROWS, column_hasher, content_digest};
use crate::error::{ArtifactError, Result, display};
use crate::meta::Meta;
use kinset_store::digest::{Digest, Hasher};

/// Rows of pictures decoded at a time: pictures are large.
const PICTURES: usize = 256;

#[derive(Clone, Debug)]
pub struct TableReader {
    footer: Footer,
    meta: Meta,
}

impl TableReader {
    /// Opens a table and reads its footer. `artifact` is the kind it must hold.
    pub fn open(path: &Path, artifact: &'static str) -> Result<Self> {
        let footer = Footer::read(path)?;
        let Some(text) = footer.entry("kinset") else {
            return Err(ArtifactError::NotOurs { path: display(path), wanted: artifact });
        };
        let meta: Meta = serde_json::from_str(text).map_err(|e| ArtifactError::Json {
            path: display(path),
            wanted: artifact,
            detail: e.to_string(),
        })?;
        meta.check(path, artifact)?;
        Ok(Self { footer, meta })
    }

    /// The digest of what the table says, made from its rows as the writer made it from them. `None` for pictures: theirs is of
    /// what they were before they were encoded.
    pub fn content(&self) -> Result<Option<Digest>> {
        let names: Vec<&str> = self.footer.schema().fields().iter().map(|field| field.name().as_str()).collect();
        let batches = self.batches(&names)?;
        if batches.wanted.iter().any(|(_, kind)| *kind == ColumnKind::Images) {
            return Ok(None);
        }
        let (schema, mut rows) = (batches.wanted.clone(), 0);
        let mut digests: Vec<Hasher> = schema.iter().map(|_| column_hasher()).collect();
        for batch in batches {
            let columns = batch?;
            rows += columns.first().map_or(0, Column::len) as u64;
            for (column, digest) in columns.iter().zip(&mut digests) {
                column.digest(digest);
            }
        }
        content_digest(self.path(), &self.meta, rows, schema.iter().zip(&digests)).map(Some)
    }

    pub fn path(&self) -> &Path {
        &self.footer.path
    }

    pub fn rows(&self) -> usize {
        self.footer.rows
    }

    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    pub fn kind(&self, column: &str) -> Result<ColumnKind> {
        let (_, field) = self.footer.column(column)?;
        let unknown = || self.footer.wrong_type(column, field.data_type(), "a type of kinset's tables");
        ColumnKind::from_field(field).ok_or_else(unknown)
    }

    pub fn vector_width(&self, column: &str) -> Result<usize> {
        match self.kind(column)? {
            ColumnKind::Vectors { width } => Ok(width),
            other => Err(self.footer.wrong_type(column, other, "fixed-size lists of float32")),
        }
    }

    pub fn require(&self, column: &str, wanted: ColumnKind) -> Result<()> {
        let found = self.kind(column)?;
        if found == wanted { Ok(()) } else { Err(self.footer.wrong_type(column, found, wanted)) }
    }

    pub fn groups(&self) -> usize {
        self.footer.metadata().num_row_groups()
    }

    pub fn group_rows(&self, group: usize) -> usize {
        self.footer.metadata().row_groups().get(group).map_or(0, |g| usize::try_from(g.num_rows()).unwrap_or(0))
    }

    /// The values of a column that has one per row.
    pub fn values<T: Value>(&self, column: &str) -> Result<Vec<T>> {
        self.require(column, T::KIND)?;
        match self.read(&[column])?.pop().and_then(T::from_column) {
            Some(values) => Ok(values),
            None => unreachable!("the kind was just checked"),
        }
    }

    /// The width and the values, `[rows, width]`, of a column of vectors.
    pub fn vectors(&self, column: &str) -> Result<(usize, Vec<f32>)> {
        self.vector_width(column)?;
        match self.read(&[column])?.pop() {
            Some(Column::Vectors { width, values }) => Ok((width, values)),
            _ => unreachable!("the kind was just checked"),
        }
    }

    /// The width and the values, `[rows, width]`, of a column of lists of row numbers.
    pub fn index_lists(&self, column: &str) -> Result<(usize, Vec<u32>)> {
        let found = self.kind(column)?;
        let read = if let ColumnKind::IndexLists { .. } = found { self.read(&[column])?.pop() } else { None };
        match read {
            Some(Column::IndexLists { width, values }) => Ok((width, values)),
            _ => Err(self.footer.wrong_type(column, found, "fixed-size lists of uint32")),
        }
    }

    /// Some columns, all rows.
    pub fn read(&self, columns: &[&str]) -> Result<Vec<Column>> {
        self.collect(self.start(columns, None)?, columns, self.rows())
    }

    pub fn read_group(&self, group: usize, columns: &[&str]) -> Result<Vec<Column>> {
        self.collect(self.start(columns, Some(group))?, columns, self.group_rows(group))
    }

    /// One picture, as its file's bytes, or nothing, and then its path. Only the pages it lies in are read.
    pub fn picture(&self, column: &str, row: usize) -> Result<(Vec<u8>, String)> {
        self.require(column, ColumnKind::Images)?;
        let bytes = self.picture_parts(column, "bytes", &[row], blobs)?.pop().unwrap_or_default();
        let path = if bytes.is_empty() { self.picture_parts(column, "path", &[row], texts)?.pop() } else { None };
        Ok((bytes, path.unwrap_or_default()))
    }

    /// Some pictures, each as its file's bytes and its path, either of which may be nothing. Only the pages they lie in are read,
    /// and of these some hundred rows are in memory at a time.
    ///
    /// # Panics
    /// If the rows do not ascend.
    pub fn pictures(&self, column: &str, rows: &[usize]) -> Result<Vec<(Vec<u8>, String)>> {
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "rows must ascend");
        self.require(column, ColumnKind::Images)?;
        let bytes = self.picture_parts(column, "bytes", rows, blobs)?;
        let paths = self.picture_parts(column, "path", rows, texts)?;
        Ok(bytes.into_iter().zip(paths).collect())
    }

    /// The paths of all pictures of a column, without reading their bytes; empty for arrays.
    pub fn picture_paths(&self, column: &str) -> Result<Vec<String>> {
        self.require(column, ColumnKind::Images)?;
        self.picture_parts(column, "path", &(0..self.rows()).collect::<Vec<_>>(), texts)
    }

    /// One part of some pictures, by ascending row.
    fn picture_parts<T: Default>(
        &self,
        column: &str,
        part: &str,
        rows: &[usize],
        convert: fn(&ArrayRef) -> Option<Vec<T>>,
    ) -> Result<Vec<T>> {
        let missing = |row: usize| ArtifactError::Length {
            path: display(self.path()),
            what: column.into(),
            found: self.rows(),
            wanted: row + 1,
        };
        let leaf = self.footer.parquet_schema().columns().iter().position(|leaf| leaf.path().parts() == [column, part]);
        let leaf = leaf.ok_or_else(|| missing(self.rows()))?;
        let (mut rest, mut first, mut found) = (rows, 0, Vec::with_capacity(rows.len()));
        for group in 0..self.groups() {
            let count = self.group_rows(group);
            let (wanted, later) = rest.split_at(rest.partition_point(|&row| row < first + count));
            if !wanted.is_empty() {
                let wanted: Vec<usize> = wanted.iter().map(|row| row - first).collect();
                self.cells(group, leaf, (column, part), &wanted, |cell| {
                    found.push(convert(cell).and_then(|mut values| values.pop()).unwrap_or_default());
                })?;
            }
            (rest, first) = (later, first + count);
        }
        rest.first().map_or(Ok(found), |&row| Err(missing(row)))
    }

    /// Some values of a child of a struct, of one row group, each as an array of length 1; rows count from its first.
    ///
    /// The decoder is made to skip whole pages only: inside a page it trusts the lengths it skips over, and a damaged one makes
    /// it ask for more memory than there is, which no guard can catch.
    fn cells(
        &self,
        group: usize,
        leaf: usize,
        (column, child): (&str, &str),
        rows: &[usize],
        mut take: impl FnMut(&ArrayRef),
    ) -> Result<()> {
        let pages = self.footer.metadata().page_index_for_row_group(group);
        let located = pages.page_locations(leaf).into_iter().flatten();
        let mut starts: Vec<usize> = located.filter_map(|page| usize::try_from(page.first_row_index).ok()).collect();
        starts.push(0);
        starts.push(self.group_rows(group));
        starts.sort_unstable();
        starts.dedup();
        let mut selectors = Vec::new();
        let mut read: Vec<Range<usize>> = Vec::new();
        for page in starts.windows(2) {
            let inside = rows.partition_point(|&row| row < page[1]) > rows.partition_point(|&row| row < page[0]);
            let length = page[1] - page[0];
            if inside {
                selectors.push(RowSelector::select(length));
                read.push(page[0]..page[1]);
            } else {
                selectors.push(RowSelector::skip(length));
            }
        }
        let mask = ProjectionMask::leaves(self.footer.parquet_schema(), [leaf]);
        let mut batches = self.footer.batches(|builder| {
            builder
                .with_projection(mask)
                .with_row_groups(vec![group])
                .with_row_selection_policy(RowSelectionPolicy::Selectors)
                .with_row_selection(RowSelection::from(selectors))
                .with_batch_size(PICTURES)
        })?;
        let damaged = |detail: &str| ArtifactError::Damaged { path: display(self.path()), detail: detail.to_owned() };
        let (mut numbers, mut wanted) = (read.into_iter().flatten(), rows.iter().copied().peekable());
        while wanted.peek().is_some() {
            let batch = batches.next(|batch| {
                let parts =
                    batch.column_by_name(column).and_then(|parts| parts.as_struct_opt()?.column_by_name(child).cloned());
                let cells = parts.ok_or_else(|| damaged("a batch lacks its pictures"))?;
                for place in 0..batch.num_rows() {
                    let row = numbers.next().ok_or_else(|| damaged("a page has more rows than it claims"))?;
                    if wanted.next_if_eq(&row).is_some() {
                        take(&cells.slice(place, 1));
                    }
                }
                Ok(())
            })?;
            batch.ok_or_else(|| damaged("a page has fewer rows than it claims"))?;
        }
        Ok(())
    }

    /// Some columns, in batches of a few thousand rows.
    pub fn batches(&self, columns: &[&str]) -> Result<Batches> {
        self.start(columns, None)
    }

    fn start(&self, columns: &[&str], group: Option<usize>) -> Result<Batches> {
        let wanted = columns
            .iter()
            .map(|name| Ok(((*name).to_owned(), self.kind(name)?)))
            .collect::<Result<Vec<(String, ColumnKind)>>>()?;
        let roots = self.footer.schema().fields().iter().enumerate();
        let roots = roots.filter(|(_, field)| columns.contains(&field.name().as_str())).map(|(place, _)| place);
        let mask = ProjectionMask::roots(self.footer.parquet_schema(), roots);
        let images = wanted.iter().any(|(_, kind)| *kind == ColumnKind::Images);
        let reader = self.footer.batches(|builder| {
            let builder = builder.with_projection(mask).with_batch_size(if images { PICTURES } else { CHUNK_ROWS });
            if let Some(group) = group { builder.with_row_groups(vec![group]) } else { builder }
        })?;
        Ok(Batches { reader, wanted })
    }

    fn collect(&self, batches: Batches, columns: &[&str], rows: usize) -> Result<Vec<Column>> {
        let mut all: Vec<Column> = batches.wanted.iter().map(|(_, kind)| kind.empty()).collect();
        // Nothing is compressed in our files, so their size bounds what they can hold; others grow as they are read.
        let bytes = usize::try_from(self.footer.bytes).unwrap_or(usize::MAX);
        for column in &mut all {
            column.reserve(rows, bytes);
        }
        for batch in batches {
            for (column, mut part) in all.iter_mut().zip(batch?) {
                part.move_rows(0..part.len(), column);
            }
        }
        for (column, name) in all.iter().zip(columns) {
            if column.len() != rows {
                let (path, found) = (display(self.path()), column.len());
                return Err(ArtifactError::Length { path, what: (*name).to_owned(), found, wanted: rows });
            }
        }
        Ok(all)
    }
}

pub struct Batches {
    reader: BatchReader,
    wanted: Vec<(String, ColumnKind)>,
}

fn convert(path: &Path, wanted: &[(String, ColumnKind)], batch: &RecordBatch) -> Result<Vec<Column>> {
    let convert = |(name, kind): &(String, ColumnKind)| {
        let Some(array) = batch.column_by_name(name) else {
            let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            return Err(ArtifactError::NoColumn { path: display(path), column: name.clone(), found });
        };
        Column::from_arrow(array, *kind).map_err(|unfit| {
            let (path, column) = (display(path), name.clone());
            match unfit {
                Unfit::Null(row) => ArtifactError::Null { path, column, row },
                Unfit::Kind => {
                    ArtifactError::WrongType { path, column, found: array.data_type().to_string(), wanted: kind.to_string() }
                }
            }
        })
    };
    wanted.iter().map(convert).collect()
}

impl Iterator for Batches {
    type Item = Result<Vec<Column>>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = self.reader.path().to_owned();
        self.reader.next(|batch| convert(&path, &self.wanted, batch)).transpose()
    }
}
