//! Metadata of an artifact's file: one JSON object, the same in Parquet metadata and in JSON files.
//!
//! In Parquet it stands under the key `kinset`. It has two halves. `fields` is content: dimension, metric, class names; it is
//! part of the logical digest. `about` is provenance: source, stage, seed; it is for readers and is *not* part of the digest, or
//! every rename upstream would run everything downstream again. No clock, no host, no path in either.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DraftFile;
use super::error::{ArtifactError, Result, display};
use kinset_base::fs;

/// The number of the format of all artifacts. Raise it when an older kinset could not read, or would misread, what is written.
pub const FORMAT: u64 = 1;

/// JSON files are small: this is a guard against a file that is not what it claims to be.
const LARGEST_JSON: u64 = 1 << 28;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    pub artifact: String,
    pub format: u64,
    /// Content: part of the digest.
    pub fields: BTreeMap<String, Value>,
    /// Provenance: not part of the digest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<String, Value>,
}

impl Meta {
    /// Metadata of a kind of artifact, in today's format.
    pub fn new(artifact: &str) -> Self {
        Self { artifact: artifact.into(), format: FORMAT, fields: BTreeMap::new(), about: BTreeMap::new() }
    }

    /// Adds a field of content.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.into(), value.into());
        self
    }

    /// Adds a field of provenance.
    #[must_use]
    pub fn about(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.about.insert(field.into(), value.into());
        self
    }

    /// A field of content as a Rust value.
    ///
    /// # Errors
    /// If it is missing or of another type. `wanted` says in words what fits.
    pub fn get<T: DeserializeOwned>(&self, path: &Path, field: &str, wanted: &'static str) -> Result<T> {
        let value = self.fields.get(field);
        value.and_then(|value| T::deserialize(value).ok()).ok_or_else(|| ArtifactError::MetaField {
            path: display(path),
            field: field.into(),
            wanted,
            found: value.map_or("nothing".into(), |value| format!("`{value}`")),
        })
    }

    /// Compares kind and format with what is expected.
    pub(super) fn check(&self, path: &Path, wanted: &'static str) -> Result<()> {
        check_head(path, &self.artifact, self.format, wanted)
    }
}

fn check_head(path: &Path, artifact: &str, format: u64, wanted: &'static str) -> Result<()> {
    if artifact != wanted {
        return Err(ArtifactError::WrongKind { path: display(path), found: artifact.into(), wanted });
    }
    if format != FORMAT {
        return Err(ArtifactError::WrongFormat { path: display(path), found: format, known: FORMAT });
    }
    Ok(())
}

/// A JSON file: what it is, and its content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonFile<T> {
    artifact: String,
    format: u64,
    content: T,
}

/// Writes a JSON artifact: fields in the order of the type, two spaces, a final newline. Equal content gives equal bytes.
pub(super) fn write_json<T: Serialize>(path: &Path, artifact: &'static str, content: &T) -> Result<()> {
    let file = JsonFile { artifact: artifact.to_owned(), format: FORMAT, content };
    let mut text =
        serde_json::to_vec_pretty(&file).map_err(|e| ArtifactError::Encode { path: display(path), detail: e.to_string() })?;
    text.push(b'\n');
    Ok(fs::write_atomic(path, &text)?)
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path, artifact: &'static str) -> Result<T> {
    let failed = |e: serde_json::Error| ArtifactError::Json { path: display(path), wanted: artifact, detail: e.to_string() };
    let bytes = fs::read_at_most(path, LARGEST_JSON)?;
    // The head is judged before the content, so that a newer file is called new and not malformed.
    let head: JsonFile<IgnoredAny> = serde_json::from_slice(&bytes).map_err(failed)?;
    check_head(path, &head.artifact, head.format, artifact)?;
    let file: JsonFile<T> = serde_json::from_slice(&bytes).map_err(failed)?;
    Ok(file.content)
}

/// Writes an artifact that is one JSON file into a folder, once `check` has found no fault in it.
pub(super) fn save_checked<T: Serialize>(
    (dir, name, artifact): (&Path, &'static str, &'static str),
    content: &T,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<DraftFile> {
    let path = dir.join(name);
    check(&path)?;
    write_json(&path, artifact, content)?;
    Ok(DraftFile { name, path, logical: None })
}

/// Reads it, and checks it again: whoever wrote it may not have.
pub(super) fn load_checked<T: DeserializeOwned>(
    path: &Path,
    artifact: &'static str,
    check: impl FnOnce(&T, &Path) -> Result<()>,
) -> Result<T> {
    let content = read_json(path, artifact)?;
    check(&content, path)?;
    Ok(content)
}

/// What Hugging Face's `datasets` reads from the file metadata: the features, of which `id` and `row` are always the first.
pub(super) fn hugging_face(features: &[(&str, Value)]) -> String {
    let mut all = serde_json::Map::new();
    all.insert("id".into(), json!({ "dtype": "string", "_type": "Value" }));
    all.insert("row".into(), json!({ "dtype": "uint32", "_type": "Value" }));
    for (name, feature) in features {
        all.insert((*name).to_owned(), feature.clone());
    }
    json!({ "info": { "features": all } }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_as_what_they_are() {
        let meta = Meta::new("thing").with("k", 3).with("names", vec!["a", "b"]);
        let path = Path::new("t.parquet");
        assert_eq!(meta.get::<usize>(path, "k", "a number").unwrap(), 3);
        assert_eq!(meta.get::<Vec<String>>(path, "names", "names").unwrap(), ["a", "b"]);
        let text = meta.get::<usize>(path, "names", "a number").unwrap_err().to_string();
        assert!(text.contains("`names`: a number was expected, found `[\"a\",\"b\"]`"), "{text}");
        assert!(meta.get::<usize>(path, "dim", "a number").unwrap_err().to_string().contains("found nothing"));
    }

    #[test]
    fn json_comes_back_and_equal_content_is_equal_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        let content = BTreeMap::from([("a".to_owned(), 0.1 + 0.2), ("b".to_owned(), f64::MIN_POSITIVE)]);
        write_json(&path, "thing", &content).unwrap();
        let first = fs::read(&path).unwrap();
        write_json(&path, "thing", &content).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first);
        assert_eq!(read_json::<BTreeMap<String, f64>>(&path, "thing").unwrap(), content);
        assert!(matches!(read_json::<BTreeMap<String, f64>>(&path, "other"), Err(ArtifactError::WrongKind { .. })));
        assert!(matches!(read_json::<Vec<f64>>(&path, "thing"), Err(ArtifactError::Json { .. })));
    }
}
