//! The origin of a table: kind of stage, key, inputs, seed. The engine leaves a note in the folder a stage writes to, and every
//! table written there takes it into the half of its metadata that is for readers.
//!
//! A note in the folder, not an argument of every writer: no stage can forget it, and none can make it up. It is never
//! published.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::error::{ArtifactError, Result, display};
use kinset_base::fs;

/// The note. Hidden, so that no listing of outputs shows it.
const NOTE: &str = ".origin.json";

/// Leaves a note for the tables that will be written to this folder.
pub fn leave(folder: &Path, origin: &BTreeMap<String, Value>) -> Result<()> {
    let path = folder.join(NOTE);
    let encode = |e: serde_json::Error| ArtifactError::Encode { path: display(&path), detail: e.to_string() };
    Ok(fs::write_atomic(&path, &serde_json::to_vec(origin).map_err(encode)?)?)
}

/// What the note beside this file says; nothing if there is none.
pub(super) fn beside(file: &Path) -> Result<BTreeMap<String, Value>> {
    let Some(note) = file.parent().map(|folder| folder.join(NOTE)).filter(|note| fs::exists(note)) else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_slice(&fs::read(&note)?).map_err(|e| ArtifactError::Json {
        path: display(&note),
        wanted: "a note of origin",
        detail: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_find_the_note_beside_them_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (noted, bare) = (folder.path().join("a"), folder.path().join("b"));
        fs::create_folders(&noted).unwrap();
        fs::create_folders(&bare).unwrap();
        let origin = BTreeMap::from([("key".to_owned(), Value::from("ab"))]);
        leave(&noted, &origin).unwrap();
        assert_eq!(beside(&noted.join("t.parquet")).unwrap(), origin);
        assert!(beside(&bare.join("t.parquet")).unwrap().is_empty());
    }
}
