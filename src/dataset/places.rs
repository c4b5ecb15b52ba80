//! Where data sets are looked for.

use std::path::{Path, PathBuf};

use super::error::{Looked, Result};
use super::source::Source;
use crate::base::fs;

/// The places a source can lie in.
#[derive(Clone, Debug)]
pub struct Places {
    /// What a source's `root` is relative to: the pipeline file's folder, or the working directory.
    base: PathBuf,
    /// Holds one folder per data set.
    data: PathBuf,
    /// Holds one folder per repository of Hugging Face's hub, as their tools leave them.
    hub: PathBuf,
}

impl Places {
    /// `base` is what a source's `root` is relative to; `option` is `--data DIR`, `variable` is `KINSET_DATA` (the command
    /// line reads both); without them it is `data` below the working directory.
    pub fn new(base: impl Into<PathBuf>, option: Option<PathBuf>, variable: Option<PathBuf>) -> Self {
        let data = option.or(variable.filter(|v| !v.as_os_str().is_empty())).unwrap_or_else(|| PathBuf::from("data"));
        Self { base: base.into(), data, hub: PathBuf::new() }
    }

    /// Says where Hugging Face's tools keep what they fetched.
    #[must_use]
    pub fn with_hub(self, hub: PathBuf) -> Self {
        Self { hub, ..self }
    }

    /// Where Hugging Face's tools keep what they fetched.
    pub fn hub(&self) -> &Path {
        &self.hub
    }

    /// The folder that holds one folder per data set.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where a file lies that a setting names: relative to what a source's `root` is relative to.
    pub fn file(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// The root of a source that must have one.
    pub(super) fn root_of(&self, source: &Source) -> Result<PathBuf> {
        match &source.root {
            Some(root) => Ok(self.base.join(root)),
            None => Err(source.fault("root", "is needed: where the data lie")),
        }
    }

    /// All folders a data set may lie in, the best first.
    pub(super) fn candidates(&self, name: &str, root: Option<&Path>, system: &[&str]) -> Vec<PathBuf> {
        match root {
            Some(root) => vec![self.base.join(root)],
            None => std::iter::once(self.data.join(name)).chain(system.iter().map(PathBuf::from)).collect(),
        }
    }
}

/// Says what a place lacks.
pub(super) fn lack(place: &Path, missing: &[String]) -> Looked {
    let lack = match fs::metadata(place) {
        Ok(Some(found)) if found.is_dir() => format!("lacks {}", missing.join(", ")),
        Ok(Some(_)) => "not a folder".to_owned(),
        Ok(None) => "no such folder".to_owned(),
        Err(error) => error.to_string(),
    };
    Looked { place: place.display().to_string(), lack }
}
