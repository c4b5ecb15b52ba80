//! The folders in which raw data are looked for.

use std::path::{Path, PathBuf};

#[derive(Clone, Debug)]
pub struct DataPaths {
    /// What a `root` in a pipeline file is relative to: that file's folder, or the working directory.
    base: PathBuf,
    data: PathBuf,
    hub: PathBuf,
}

impl DataPaths {
    /// `base` is what a `root` in a pipeline file is relative to; `option` is `--data DIR`, `variable` is `KINSET_DATA` (the
    /// command line reads both); without them it is `data` below the working directory.
    pub fn new(base: impl Into<PathBuf>, option: Option<PathBuf>, variable: Option<PathBuf>) -> Self {
        let data = option.or(variable.filter(|v| !v.as_os_str().is_empty())).unwrap_or_else(|| PathBuf::from("data"));
        Self { base: base.into(), data, hub: PathBuf::new() }
    }

    /// Sets the folder in which Hugging Face's tools keep what they fetched.
    #[must_use]
    pub fn with_hub(self, hub: PathBuf) -> Self {
        Self { hub, ..self }
    }

    /// The folder that holds one folder per repository of Hugging Face's hub, as their tools leave them.
    pub fn hub(&self) -> &Path {
        &self.hub
    }

    /// The folder that holds one folder per data set.
    pub fn data(&self) -> &Path {
        &self.data
    }

    pub fn file(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// All folders that a data set may lie in, the best first: `root` alone where it is given, else the folder of this name
    /// and those where operating systems install it.
    pub fn candidates(&self, name: &str, root: Option<&Path>, system: &[&str]) -> Vec<PathBuf> {
        match root {
            Some(root) => vec![self.file(root)],
            None => std::iter::once(self.data.join(name)).chain(system.iter().map(PathBuf::from)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_relative_to_the_pipeline_and_data_come_from_option_variable_or_default() {
        let paths = DataPaths::new("/a", Some("/d".into()), Some("/e".into()));
        assert_eq!(paths.candidates("x", Some(Path::new("r")), &["/s"]), [PathBuf::from("/a/r")]);
        assert_eq!(paths.candidates("x", Some(Path::new("/r")), &[]), [PathBuf::from("/r")]);
        assert_eq!(paths.candidates("x", None, &["/s"]), [PathBuf::from("/d/x"), PathBuf::from("/s")]);
        assert_eq!(DataPaths::new("", None, Some("/e".into())).data(), Path::new("/e"));
        assert_eq!(DataPaths::new("", None, Some("".into())).data(), Path::new("data"));
    }
}
