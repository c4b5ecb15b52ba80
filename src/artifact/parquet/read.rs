//! Tables from disk. Nothing in a file is believed before it was checked, and no file makes this panic.

use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy, RowSelector,
};
use parquet::errors::ParquetError;

use super::column::{Column, ColumnKind, Unfit, blobs, texts};
use super::footer::Footer;
use super::guard::guarded;
use super::source::Source;
use super::write::CHUNK_ROWS;
use crate::error::{ArtifactError, Result, shown};
use crate::meta::Meta;

/// A table of the house on disk.
#[derive(Clone, Debug)]
pub struct TableReader {
    path: PathBuf,
    footer: Footer,
    schema: Vec<(String, ColumnKind)>,
    meta: Meta,
    rows: usize,
}

impl TableReader {
    /// Opens a table and reads its footer. `artifact` is the kind it must hold.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or holds something else.
    pub fn open(path: &Path, artifact: &'static str) -> Result<Self> {
        let footer = Footer::read(path)?;
        let pairs = footer.metadata().file_metadata().key_value_metadata();
        let entry = pairs.into_iter().flatten().find(|pair| pair.key == "kinset").and_then(|pair| pair.value.as_deref());
        let Some(text) = entry else {
            return Err(ArtifactError::NotOurs { path: shown(path), wanted: artifact });
        };
        let meta: Meta = serde_json::from_str(text).map_err(|e| ArtifactError::Json {
            path: shown(path),
            wanted: artifact,
            detail: e.to_string(),
        })?;
        meta.check(path, artifact)?;
        let rows = footer.rows(path)?;
        let fields = footer.schema().fields().iter();
        let schema = fields.filter_map(|field| Some((field.name().clone(), ColumnKind::of(field)?))).collect();
        Ok(Self { path: path.to_owned(), footer, schema, meta, rows })
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What it says about itself.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Its columns, as far as they are of a kind the house knows.
    pub fn schema(&self) -> &[(String, ColumnKind)] {
        &self.schema
    }

    /// The kind of a column.
    ///
    /// # Errors
    /// If it is missing or of a kind the house does not know.
    pub fn kind(&self, column: &str) -> Result<ColumnKind> {
        if let Some((_, kind)) = self.schema.iter().find(|(name, _)| name == column) {
            return Ok(*kind);
        }
        let fields = self.footer.schema().fields();
        Err(match fields.iter().find(|field| field.name() == column) {
            Some(field) => ArtifactError::WrongType {
                path: shown(&self.path),
                column: column.into(),
                found: field.data_type().to_string(),
                wanted: "a type of kinset's tables".into(),
            },
            None => ArtifactError::NoColumn {
                path: shown(&self.path),
                column: column.into(),
                found: fields.iter().map(|field| field.name().clone()).collect(),
            },
        })
    }

    /// The width of a column of vectors.
    ///
    /// # Errors
    /// If it is missing or holds something else.
    pub fn vector_width(&self, column: &str) -> Result<usize> {
        match self.kind(column)? {
            ColumnKind::Vectors { width } => Ok(width),
            other => Err(self.wrong_type(column, other, "fixed-size lists of float32")),
        }
    }

    /// The width of a column of row numbers.
    ///
    /// # Errors
    /// If it is missing or holds something else.
    pub fn list_width(&self, column: &str) -> Result<usize> {
        match self.kind(column)? {
            ColumnKind::IndexLists { width } => Ok(width),
            other => Err(self.wrong_type(column, other, "fixed-size lists of uint32")),
        }
    }

    fn wrong_type(&self, column: &str, found: ColumnKind, wanted: &str) -> ArtifactError {
        let (path, column) = (shown(&self.path), column.to_owned());
        ArtifactError::WrongType { path, column, found: found.to_string(), wanted: wanted.into() }
    }

    /// Checks that columns are there and of these kinds.
    ///
    /// # Errors
    /// If one is missing or of another kind.
    pub fn require(&self, columns: &[(&str, ColumnKind)]) -> Result<()> {
        for (name, wanted) in columns {
            let found = self.kind(name)?;
            if found != *wanted {
                return Err(self.wrong_type(name, found, &wanted.to_string()));
            }
        }
        Ok(())
    }

    /// How many row groups it has.
    pub fn groups(&self) -> usize {
        self.footer.metadata().num_row_groups()
    }

    /// The rows of a row group.
    pub fn group_rows(&self, group: usize) -> usize {
        self.footer.metadata().row_groups().get(group).map_or(0, |g| usize::try_from(g.num_rows()).unwrap_or(0))
    }

    /// Some columns, all rows.
    ///
    /// # Errors
    /// If a column is missing or the file is damaged.
    pub fn read(&self, columns: &[&str]) -> Result<Vec<Column>> {
        self.gather(self.batches(columns)?, columns, self.rows)
    }

    /// Some columns of one row group.
    ///
    /// # Errors
    /// If a column is missing or the file is damaged.
    pub fn read_group(&self, group: usize, columns: &[&str]) -> Result<Vec<Column>> {
        let batches = self.start(columns, |builder| builder.with_row_groups(vec![group]))?;
        self.gather(batches, columns, self.group_rows(group))
    }

    /// One picture, as its file's bytes, or nothing, and then its path. Only the pages it lies in are read.
    ///
    /// # Errors
    /// If the column holds no pictures, there is no such row, or the file is damaged.
    pub fn picture(&self, column: &str, row: usize) -> Result<(Vec<u8>, String)> {
        self.require(&[(column, ColumnKind::Images)])?;
        let bytes = blobs(&self.cell(column, "bytes", row)?).and_then(|mut found| found.pop()).unwrap_or_default();
        if !bytes.is_empty() {
            return Ok((bytes, String::new()));
        }
        Ok((bytes, self.picture_path(column, row)?))
    }

    /// One picture, as its file's bytes and its path; either may be nothing.
    ///
    /// # Errors
    /// As [`TableReader::picture`].
    pub fn picture_and_path(&self, column: &str, row: usize) -> Result<(Vec<u8>, String)> {
        let (bytes, _) = self.picture(column, row)?;
        Ok((bytes, self.picture_path(column, row)?))
    }

    /// Some pictures, each as its file's bytes and its path, either of which may be nothing. Only the pages they lie in are read,
    /// and of these some hundred rows are in memory at a time.
    ///
    /// # Errors
    /// As [`TableReader::picture`].
    ///
    /// # Panics
    /// If the rows do not ascend.
    pub fn pictures(&self, column: &str, rows: &[usize]) -> Result<Vec<(Vec<u8>, String)>> {
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "rows must ascend");
        self.require(&[(column, ColumnKind::Images)])?;
        let mut bytes = Vec::with_capacity(rows.len());
        self.cells(column, "bytes", rows, |cell| {
            bytes.push(blobs(cell).and_then(|mut found| found.pop()).unwrap_or_default());
        })?;
        let mut paths = Vec::with_capacity(rows.len());
        self.cells(column, "path", rows, |cell| {
            paths.push(texts(cell).and_then(|mut found| found.pop()).unwrap_or_default());
        })?;
        Ok(bytes.into_iter().zip(paths).collect())
    }

    /// Some values of a child of a struct, each as an array of length 1. As in [`TableReader::cell`], whole pages are skipped and
    /// nothing less.
    fn cells(&self, column: &str, child: &str, rows: &[usize], mut take: impl FnMut(&ArrayRef)) -> Result<()> {
        let missing = |row: usize| ArtifactError::Length {
            path: shown(&self.path),
            what: column.into(),
            found: self.rows,
            wanted: row + 1,
        };
        let leaf = self.leaf(column, child).ok_or_else(|| missing(self.rows))?;
        let (mut rest, mut first) = (rows, 0);
        for group in 0..self.groups() {
            let count = self.group_rows(group);
            let (wanted, later) = rest.split_at(rest.partition_point(|&row| row < first + count));
            if !wanted.is_empty() {
                let wanted: Vec<usize> = wanted.iter().map(|row| row - first).collect();
                self.cells_of(group, leaf, (column, child), &wanted, &mut take)?;
            }
            (rest, first) = (later, first + count);
        }
        rest.first().map_or(Ok(()), |&row| Err(missing(row)))
    }

    /// [`TableReader::cells`] of one row group; rows count from its first.
    fn cells_of(
        &self,
        group: usize,
        leaf: usize,
        (column, child): (&str, &str),
        rows: &[usize],
        take: &mut impl FnMut(&ArrayRef),
    ) -> Result<()> {
        let pages = self.footer.metadata().page_index_for_row_group(group);
        let located = pages.page_locations(leaf).into_iter().flatten();
        let mut starts: Vec<usize> = located.filter_map(|page| usize::try_from(page.first_row_index).ok()).collect();
        starts.push(0);
        starts.push(self.group_rows(group));
        starts.sort_unstable();
        starts.dedup();
        let mut selectors = Vec::new();
        let mut read: Vec<std::ops::Range<usize>> = Vec::new();
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
        let decoder = self.footer.decoder(&self.path)?;
        let mask = ProjectionMask::leaves(self.footer.parquet_schema(), [leaf]);
        let mut reader = guarded(&self.path, || {
            decoder
                .with_projection(mask)
                .with_row_groups(vec![group])
                .with_row_selection_policy(RowSelectionPolicy::Selectors)
                .with_row_selection(RowSelection::from(selectors))
                .with_batch_size(256)
                .build()
        })?;
        let damaged = |detail: &str| ArtifactError::Damaged { path: shown(&self.path), detail: detail.to_owned() };
        let (mut numbers, mut wanted) = (read.into_iter().flatten(), rows.iter().copied().peekable());
        while wanted.peek().is_some() {
            let batch = guarded(&self.path, || reader.next().transpose().map_err(ParquetError::from))?;
            let batch = batch.ok_or_else(|| damaged("a page has fewer rows than it claims"))?;
            let parts = batch.column_by_name(column).and_then(|parts| parts.as_struct_opt()?.column_by_name(child).cloned());
            let cells = parts.ok_or_else(|| damaged("a batch lacks its pictures"))?;
            for place in 0..batch.num_rows() {
                let row = numbers.next().ok_or_else(|| damaged("a page has more rows than it claims"))?;
                if wanted.next_if_eq(&row).is_some() {
                    take(&cells.slice(place, 1));
                }
            }
        }
        Ok(())
    }

    fn picture_path(&self, column: &str, row: usize) -> Result<String> {
        Ok(texts(&self.cell(column, "path", row)?).and_then(|mut found| found.pop()).unwrap_or_default())
    }

    /// One value of a child of a struct, as an array of length 1.
    ///
    /// The decoder is made to skip whole pages only: inside a page it trusts the lengths it skips over, and a damaged one makes
    /// it ask for more memory than there is, which no guard can catch.
    fn cell(&self, column: &str, child: &str, row: usize) -> Result<ArrayRef> {
        let missing =
            || ArtifactError::Length { path: shown(&self.path), what: column.into(), found: self.rows, wanted: row + 1 };
        let mut first = 0;
        let group = (0..self.groups()).find(|group| {
            let rows = self.group_rows(*group);
            let here = row - first < rows;
            first += if here { 0 } else { rows };
            here
        });
        let (Some(group), Some(leaf)) = (group, self.leaf(column, child)) else { return Err(missing()) };
        let row = row - first;
        let pages = self.footer.metadata().page_index_for_row_group(group);
        let starts =
            pages.page_locations(leaf).into_iter().flatten().filter_map(|page| usize::try_from(page.first_row_index).ok());
        let page = starts.filter(|start| *start <= row).max().unwrap_or(0);
        let count = row - page + 1;
        let decoder = self.footer.decoder(&self.path)?;
        let mask = ProjectionMask::leaves(self.footer.parquet_schema(), [leaf]);
        let batch = guarded(&self.path, || {
            decoder
                .with_projection(mask)
                .with_row_groups(vec![group])
                .with_row_selection_policy(RowSelectionPolicy::Selectors)
                .with_row_selection(RowSelection::from(vec![RowSelector::skip(page), RowSelector::select(count)]))
                .with_batch_size(count)
                .build()?
                .next()
                .transpose()
                .map_err(ParquetError::from)
        })?;
        let parts = batch.filter(|batch| batch.num_rows() == count).and_then(|batch| batch.column_by_name(column).cloned());
        let cell = parts.as_ref().and_then(|parts| parts.as_struct_opt()).and_then(|parts| parts.column_by_name(child));
        Ok(cell.ok_or_else(missing)?.slice(count - 1, 1))
    }

    fn leaf(&self, column: &str, child: &str) -> Option<usize> {
        self.footer.parquet_schema().columns().iter().position(|leaf| leaf.path().parts() == [column, child])
    }

    /// Some columns, in batches of a few thousand rows.
    ///
    /// # Errors
    /// If a column is missing.
    pub fn batches(&self, columns: &[&str]) -> Result<Batches> {
        self.start(columns, |builder| builder)
    }

    fn start(
        &self,
        columns: &[&str],
        narrow: impl FnOnce(ParquetRecordBatchReaderBuilder<Source>) -> ParquetRecordBatchReaderBuilder<Source>,
    ) -> Result<Batches> {
        let wanted = columns
            .iter()
            .map(|name| Ok(((*name).to_owned(), self.kind(name)?)))
            .collect::<Result<Vec<(String, ColumnKind)>>>()?;
        let roots = self.footer.schema().fields().iter().enumerate();
        let roots = roots.filter(|(_, field)| columns.contains(&field.name().as_str())).map(|(place, _)| place);
        let mask = ProjectionMask::roots(self.footer.parquet_schema(), roots);
        // Pictures are large: a batch of them must stay small.
        let images = wanted.iter().any(|(_, kind)| *kind == ColumnKind::Images);
        let decoder = self.footer.decoder(&self.path)?;
        let reader = guarded(&self.path, || {
            narrow(decoder.with_projection(mask).with_batch_size(if images { 256 } else { CHUNK_ROWS })).build()
        })?;
        Ok(Batches { path: self.path.clone(), reader: Some(reader), wanted })
    }

    fn gather(&self, batches: Batches, columns: &[&str], rows: usize) -> Result<Vec<Column>> {
        let mut all = columns.iter().map(|name| Ok(self.kind(name)?.empty())).collect::<Result<Vec<_>>>()?;
        // Nothing is compressed in our files, so their size bounds what they can hold; others grow as they are read.
        let bytes = usize::try_from(self.footer.bytes).unwrap_or(usize::MAX);
        for column in &mut all {
            column.reserve(rows, bytes);
        }
        for batch in batches {
            for (column, part) in all.iter_mut().zip(batch?) {
                column.append(part);
            }
        }
        for (column, name) in all.iter().zip(columns) {
            if column.len() != rows {
                let (path, found) = (shown(&self.path), column.len());
                return Err(ArtifactError::Length { path, what: (*name).to_owned(), found, wanted: rows });
            }
        }
        Ok(all)
    }
}

/// Streams columns of a table.
pub struct Batches {
    path: PathBuf,
    reader: Option<ParquetRecordBatchReader>,
    wanted: Vec<(String, ColumnKind)>,
}

impl Batches {
    fn convert(&self, batch: &RecordBatch) -> Result<Vec<Column>> {
        let mut columns = Vec::with_capacity(self.wanted.len());
        for (name, kind) in &self.wanted {
            let path = || shown(&self.path);
            let Some(array) = batch.column_by_name(name) else {
                let found = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
                return Err(ArtifactError::NoColumn { path: path(), column: name.clone(), found });
            };
            let column = guarded(&self.path, || Ok::<_, ParquetError>(Column::from_arrow(array, *kind)))?;
            columns.push(column.map_err(|unfit| match unfit {
                Unfit::Null(row) => ArtifactError::Null { path: path(), column: name.clone(), row },
                Unfit::Kind => ArtifactError::WrongType {
                    path: path(),
                    column: name.clone(),
                    found: array.data_type().to_string(),
                    wanted: kind.to_string(),
                },
            })?);
        }
        Ok(columns)
    }
}

impl Iterator for Batches {
    type Item = Result<Vec<Column>>;

    fn next(&mut self) -> Option<Self::Item> {
        // Taken out, so that nothing is asked of a decoder that has failed once.
        let mut reader = self.reader.take()?;
        let batch = match guarded(&self.path, || reader.next().transpose()) {
            Ok(batch) => batch?,
            Err(e) => return Some(Err(e)),
        };
        let columns = self.convert(&batch);
        if columns.is_ok() {
            self.reader = Some(reader);
        }
        Some(columns)
    }
}
