//! Hugging Face's cache: files that its tools have fetched, found as these find them; never fetched.
//!
//! ```text
//! HUB/models--OWNER--NAME/refs/main                       the revision, as text
//! HUB/models--OWNER--NAME/snapshots/REVISION/FILE         usually a link to ../../blobs/…
//! ```

use std::path::PathBuf;

use kinset_base::fs;
use kinset_base::search_path::DataPaths;

/// The files that hold weights, the best first.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];
/// The longest text that is accepted as the name of a revision.
const LONGEST: u64 = 256;

/// A repository, as `OWNER/NAME` or `OWNER/NAME@REVISION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    name: String,
    revision: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFetched {
    pub repository: String,
    pub place: PathBuf,
    pub command: String,
}

impl Repository {
    /// Reads a name; nothing if it is none. A name is one folder, so nothing in it leads out of the cache.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let (owner, rest) = name.split_once('/')?;
        (plain(owner) && plain(rest) && plain(revision)).then(|| Self { name: name.to_owned(), revision: revision.to_owned() })
    }

    /// The file of weights in the cache.
    pub fn weights(&self, places: &DataPaths) -> Result<PathBuf, NotFetched> {
        let folder = places.hub().join(format!("models--{}", self.name.replace('/', "--")));
        let named = fs::read_at_most(&folder.join("refs").join(&self.revision), LONGEST).ok();
        let named = named.and_then(|bytes| String::from_utf8(bytes).ok()).map(|text| text.trim().to_owned());
        // A revision is the name of a reference, or stands for itself.
        let revision = named.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let snapshot = folder.join("snapshots").join(revision.as_ref().unwrap_or(&self.revision));
        let found = WEIGHTS.iter().map(|file| snapshot.join(file)).find(|path| fs::exists(path));
        found.ok_or_else(|| {
            let revision = if self.revision == "main" { String::new() } else { format!(" --revision {}", self.revision) };
            let command = format!("hf download {} {}{revision}", self.name, WEIGHTS[0]);
            NotFetched { repository: self.name.clone(), place: folder, command }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(files: &[(&str, &str)]) -> (tempfile::TempDir, DataPaths) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = dir.path().join(name);
            fs::create_folders(path.parent().unwrap()).unwrap();
            fs::write_atomic(&path, content.as_bytes()).unwrap();
        }
        let places = DataPaths::new(".", None, None).with_hub(dir.path().to_owned());
        (dir, places)
    }

    #[test]
    fn a_reference_leads_to_a_snapshot_and_a_revision_stands_for_itself() {
        let root = "models--facebook--dinov2-small";
        let (dir, places) = cache(&[
            (&format!("{root}/refs/main"), "abc123\n"),
            (&format!("{root}/snapshots/abc123/model.safetensors"), "new"),
            (&format!("{root}/snapshots/0ld/pytorch_model.bin"), "old"),
        ]);
        let weights = |text: &str| Repository::parse(text).unwrap().weights(&places);
        let at = |path: &str| dir.path().join(root).join("snapshots").join(path);
        assert_eq!(weights("facebook/dinov2-small").unwrap(), at("abc123/model.safetensors"));
        assert_eq!(weights("facebook/dinov2-small@0ld").unwrap(), at("0ld/pytorch_model.bin"));
        let missing = weights("facebook/dinov2-small@v2").unwrap_err();
        assert_eq!(missing.command, "hf download facebook/dinov2-small model.safetensors --revision v2");
        let missing = weights("facebook/dinov2-base").unwrap_err();
        assert_eq!(missing.command, "hf download facebook/dinov2-base model.safetensors");
    }

    #[test]
    fn a_reference_that_leads_elsewhere_is_not_followed() {
        let (_dir, places) = cache(&[
            ("models--a--b/refs/main", "../../../secrets"),
            ("secrets/model.safetensors", "x"),
            ("models--a--b/snapshots/other/model.safetensors", "y"),
        ]);
        assert!(Repository::parse("a/b").unwrap().weights(&places).is_err());
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for text in ["dinov2", "a/b/c", "../x", "a/..", "a/b@../c", "/b", "a/", "a b/c", "a/b@"] {
            assert_eq!(Repository::parse(text), None, "{text}");
        }
    }
}
