//! Stored manifests, and the search for the one that is most like a new one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::disk::entries;
use super::error::{Result, StoreError};
use super::key::{FORMAT, Key, Manifest};
use super::layout::{Store, checked_name};
use super::manifest_diff::{Difference, differences};
use super::record::Form;
use kinset_base::fs;

/// Of a kind's manifests, the newest so many are compared when a reason is looked for.
const COMPARED: usize = 256;

/// A larger file is no manifest.
pub const LARGEST: u64 = 16 << 20;

impl Store {
    fn manifests_of(&self, kind: &str) -> Result<PathBuf> {
        Ok(self.manifests().join(checked_name("a kind", kind)?))
    }

    pub(super) fn manifest_path(&self, kind: &str, key: &Key) -> Result<PathBuf> {
        Ok(self.manifests_of(kind)?.join(format!("{key}.json")))
    }

    pub fn manifest(&self, kind: &str, key: &Key) -> Result<Option<Manifest>> {
        let path = self.manifest_path(kind, key)?;
        if fs::metadata(&path)?.is_none() {
            return Ok(None);
        }
        read_manifest(&path, key).map(Some)
    }

    /// The stored manifests of a kind, the newest first, and no more than 256: a store with thousands of results answers as quickly
    /// as a small one. Damaged ones are passed over.
    pub fn newest_manifests(&self, kind: &str) -> Result<impl Iterator<Item = (Key, Manifest)>> {
        let mut known = Vec::new();
        for (file, path) in entries(&self.manifests_of(kind)?)? {
            let Some(Ok(key)) = file.strip_suffix(".json").map(str::parse::<Key>) else { continue };
            let Some(written) = fs::metadata(&path)?.and_then(|found| found.modified().ok()) else { continue };
            known.push((std::cmp::Reverse(written), key, path));
        }
        known.sort_unstable();
        Ok(known.into_iter().take(COMPARED).filter_map(|(_, key, path)| Some((key, read_manifest(&path, &key).ok()?))))
    }

    /// The stored manifest that differs least from this one, of the same kind and none of `except`, and how: the newest first
    /// among equals, of [`Store::newest_manifests`].
    fn nearest_manifest(&self, candidate: &Manifest, except: &BTreeSet<Key>) -> Result<Option<Nearest>> {
        let mut best: Option<Nearest> = None;
        for (key, manifest) in self.newest_manifests(&candidate.kind)?.filter(|(key, _)| !except.contains(key)) {
            let differences = differences(&manifest, candidate);
            if best.as_ref().is_none_or(|best| differences.len() < best.differences.len()) {
                best = Some(Nearest { key, manifest, differences });
            }
        }
        Ok(best)
    }

    /// The stored result to compare with when somebody asks why a stage runs: what `<pipeline>/<stage>` shows now, else the
    /// nearest of its kind that is not shown for another stage of the pipeline (k-means on pixels says nothing about k-means on
    /// features). No differences: the result was there once, and its record or a blob has gone.
    pub fn compare(&self, pipeline: &str, stage: &str, candidate: &Manifest) -> Result<Option<Nearest>> {
        match self.view(pipeline, stage)? {
            Some(shown) if shown.kind == candidate.kind => {
                let differences = differences(&shown.manifest, candidate);
                Ok(Some(Nearest { key: shown.key, manifest: shown.manifest, differences }))
            }
            _ => {
                let siblings = self.views_of(pipeline)?.into_iter().filter(|other| other.stage != stage);
                self.nearest_manifest(candidate, &siblings.map(|other| other.key).collect())
            }
        }
    }

    /// Saves a manifest beside its record.
    pub(super) fn save_manifest(&self, manifest: &Manifest, key: &Key) -> Result<()> {
        let path = self.manifest_path(&manifest.kind, key)?;
        match read_manifest(&path, key) {
            Ok(_) => return Ok(()),
            Err(newer @ StoreError::Newer { .. }) => return Err(newer),
            Err(_) => {}
        }
        let text = serde_json::to_vec_pretty(manifest).map_err(|source| StoreError::Encode { what: "a manifest", source })?;
        self.replace(&path, &text)
    }
}

/// An earlier result of the same kind, and what tells it from the one that is wanted.
#[derive(Clone, Debug)]
pub struct Nearest {
    pub key: Key,
    pub manifest: Manifest,
    /// Old and new, field by field, the likeliest cause first.
    pub differences: Vec<Difference>,
}

/// Reads a manifest and checks that its contents match its name.
///
/// # Errors
/// [`StoreError::Newer`] if a newer kinset wrote it, whatever it holds.
pub(super) fn read_manifest(path: &Path, key: &Key) -> Result<Manifest> {
    manifest_of(&fs::read_at_most(path, LARGEST)?, path, key)
}

/// The same of bytes from elsewhere; `path` is for errors.
///
/// # Errors
/// [`StoreError::Newer`], [`StoreError::Damaged`].
pub fn manifest_of(bytes: &[u8], path: &Path, key: &Key) -> Result<Manifest> {
    let damaged = |why: String| StoreError::Damaged { path: path.display().to_string(), why };
    let Form { format } = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT {
        return Err(StoreError::newer(path, format, FORMAT));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    // What the key of another format is cannot be told.
    let matches = manifest.format != FORMAT || manifest.key() == *key;
    if matches { Ok(manifest) } else { Err(damaged("its contents do not match its name".into())) }
}
