//! A table of another program, in Parquet or Arrow.

use std::path::{Path, PathBuf};

use arrow::datatypes::{Field, Schema};

use super::arrow_files::ArrowFiles;
use super::batches::BatchReader;
use super::footer::Footer;
use crate::error::{ArtifactError, Result, display};

#[derive(Debug)]
pub(super) struct TableFile {
    path: PathBuf,
    rows: usize,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Parquet(Box<Footer>),
    Arrow(ArrowFiles),
}

impl TableFile {
    /// Opens a file: one of Arrow if its name ends in `.arrow`, else one of Parquet.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (rows, form) = if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("arrow")) {
            let files = ArrowFiles::open(path)?;
            (files.rows()?, Form::Arrow(files))
        } else {
            let footer = Footer::read(path)?;
            (footer.rows, Form::Parquet(Box::new(footer)))
        };
        Ok(Self { path: path.to_owned(), rows, form })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn schema(&self) -> &Schema {
        match &self.form {
            Form::Parquet(footer) => footer.schema(),
            Form::Arrow(files) => files.schema(),
        }
    }

    /// The entry of its metadata under a key.
    pub(super) fn entry(&self, key: &str) -> Option<&str> {
        match &self.form {
            Form::Parquet(footer) => footer.entry(key),
            Form::Arrow(files) => files.entry(key),
        }
    }

    /// The footer, if it is Parquet.
    pub(super) fn footer(&self) -> Option<&Footer> {
        if let Form::Parquet(footer) = &self.form { Some(footer) } else { None }
    }

    /// The place and type of a column.
    pub(super) fn column(&self, name: &str) -> Result<(usize, &Field)> {
        let fields = self.schema().fields();
        let (place, field) = fields.find(name).ok_or_else(|| ArtifactError::NoColumn {
            path: display(&self.path),
            column: name.into(),
            found: fields.iter().map(|field| field.name().clone()).collect(),
        })?;
        Ok((place, field.as_ref()))
    }

    /// Begins to read some columns, by their places, so many rows at a time.
    pub(super) fn columns(&self, places: impl IntoIterator<Item = usize>, rows: usize) -> Result<BatchReader> {
        match &self.form {
            Form::Parquet(footer) => footer.columns(places, rows),
            Form::Arrow(files) => {
                let mut places: Vec<usize> = places.into_iter().collect();
                places.sort_unstable();
                places.dedup();
                Ok(files.columns(places, rows))
            }
        }
    }
}
