//! Checkpoint files: how they are written, verified and found again.
//!
//! A checkpoint is a folder `checkpoint-<number>` of two files: `tensors.safetensors`, and `state.json`, which holds the caller's
//! state and the digests of both. Each file is written beside its place, flushed and renamed, `state.json` last: a folder without
//! it, or whose bytes have not the digests in it, does not count. The two newest are kept; whoever loads gets the newest that
//! is whole, a list of those that were not, and nothing if none is: then a run begins again, which is slow but right. One that cannot be
//! read although it may be whole, since the disk fails or nobody may look, is an error: to begin again would throw it away.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{Result, TrainError};
use kinset_artifact::encoder::{Tensors, Weights};
use kinset_artifact::error::ArtifactError;
use kinset_base::fault::chain;
use kinset_base::fs::{self, FileError};
use kinset_store::StoreError;
use kinset_store::digest::Digest;

const KEPT: usize = 2;
/// The format of `state.json`.
const FORMAT: u32 = 2;
/// Between a section and a tensor. Stands in no name of a section, so that `net` does not take what is `net/optimizer`'s.
const SEPARATOR: char = ':';
/// A state is small; a file larger than this is something else.
const LARGEST_STATE: u64 = 1 << 28;

const TENSORS: &str = "tensors.safetensors";
const STATE: &str = "state.json";
const PREFIX: &str = "checkpoint-";

/// The checkpoints of one run, in a folder of their own.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
}

/// What a checkpoint holds.
#[derive(Clone, Debug)]
pub struct Checkpoint<S> {
    /// Its number, the larger the newer.
    pub number: u64,
    pub state: S,
    sections: Tensors,
}

/// What was found by looking for a checkpoint.
#[derive(Clone, Debug)]
pub struct Resumption<S> {
    /// The newest whole checkpoint.
    pub checkpoint: Option<Checkpoint<S>>,
    /// Newer ones that were not whole, newest first: to be told as warnings.
    pub damaged: Vec<Damage>,
}

/// A checkpoint that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the checkpoint `{}` cannot be used: {why}", path.display())]
pub struct Damage {
    pub path: PathBuf,
    pub why: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    /// Of the bytes of `tensors.safetensors`.
    tensors: Digest,
    /// Of `state`, written compactly.
    digest: Digest,
    state: Value,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which is made if it is not there.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        fs::create_folders(&folder).map_err(StoreError::from)?;
        Ok(Self { folder })
    }

    /// Writes a checkpoint, then removes all but the newest two. `number` must grow from one to the next; `sections` are named
    /// groups of tensors: weights, optimizer, average.
    ///
    /// # Errors
    /// If something cannot be written. The checkpoints before it are still there then.
    pub fn save<S: Serialize>(&self, number: u64, state: &S, sections: &[(&str, &Tensors)]) -> Result<()> {
        let folder = self.folder.join(format!("{PREFIX}{number:012}"));
        fs::remove_folder(&folder).and_then(|()| fs::create_folders(&folder)).map_err(StoreError::from)?;
        let mut all = Tensors::default();
        for (section, tensors) in sections {
            for (name, Weights { shape, values }) in tensors.iter() {
                all.insert(format!("{section}{SEPARATOR}{name}"), shape.clone(), values.clone());
            }
        }
        let path = folder.join(TENSORS);
        all.save(&path).map_err(kept)?;
        let tensors = Digest::of_file(&path).map_err(StoreError::from)?;
        let path = folder.join(STATE);
        let unwritable = |source| StoreError::Encode { what: "a checkpoint", source };
        let state = serde_json::to_value(state).map_err(unwritable)?;
        let digest = Digest::of(&serde_json::to_vec(&state).map_err(unwritable)?);
        let file = File { format: FORMAT, tensors, digest, state };
        let text = serde_json::to_vec_pretty(&file).map_err(unwritable)?;
        fs::write_atomic(&path, &text).and_then(|()| fs::sync_folder(&self.folder)).map_err(StoreError::from)?;
        self.prune()
    }

    /// The newest checkpoint that is whole.
    ///
    /// # Errors
    /// If the folder cannot be listed, or a checkpoint that may be whole cannot be read. Damaged checkpoints are not errors.
    pub fn load<S: DeserializeOwned>(&self) -> Result<Resumption<S>> {
        let mut damaged = Vec::new();
        for (number, path) in self.all()? {
            match read(&path) {
                Ok((state, sections)) => {
                    return Ok(Resumption { checkpoint: Some(Checkpoint { number, state, sections }), damaged });
                }
                Err(Unusable::Damaged(why)) => damaged.push(Damage { path, why }),
                Err(Unusable::Unread(error)) => return Err(StoreError::from(error).into()),
            }
        }
        Ok(Resumption { checkpoint: None, damaged })
    }

    /// Removes all checkpoints: the run is over.
    pub fn clear(&self) -> Result<()> {
        for (_, path) in self.all()? {
            fs::remove_folder(&path).map_err(StoreError::from)?;
        }
        Ok(())
    }

    fn prune(&self) -> Result<()> {
        let mut kept = 0;
        for (_, path) in self.all()? {
            // A folder without its state never became a checkpoint, so it does not count as one.
            if kept < KEPT && fs::exists(&path.join(STATE)) {
                kept += 1;
            } else {
                fs::remove_folder(&path).map_err(StoreError::from)?;
            }
        }
        Ok(())
    }

    /// All folders that look like checkpoints, the newest first.
    fn all(&self) -> Result<Vec<(u64, PathBuf)>> {
        let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse::<u64>().ok();
        let listed = fs::list(&self.folder).map_err(StoreError::from)?;
        let mut found: Vec<_> = listed.into_iter().filter_map(|path| Some((number(&path)?, path))).collect();
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Ok(found)
    }
}

impl<S> Checkpoint<S> {
    /// A group of tensors; empty if none was saved by that name.
    pub fn section(&self, section: &str) -> Tensors {
        let mut found = Tensors::default();
        for (name, Weights { shape, values }) in self.sections.iter() {
            if let Some(name) = name.strip_prefix(section).and_then(|rest| rest.strip_prefix(SEPARATOR)) {
                found.insert(name, shape.clone(), values.clone());
            }
        }
        found
    }
}

/// Gives a failed write of tensors its meaning: what a checkpoint needs is of the store.
fn kept(error: ArtifactError) -> TrainError {
    match error {
        ArtifactError::File(error) => StoreError::from(error).into(),
        error => error.into(),
    }
}

/// Why a checkpoint is not the one to go on from.
enum Unusable {
    /// It is not whole; why, in words.
    Damaged(String),
    /// It may be whole.
    Unread(FileError),
}

impl From<FileError> for Unusable {
    fn from(error: FileError) -> Self {
        if error.is_not_of_content() { Self::Unread(error) } else { Self::Damaged(chain(&error)) }
    }
}

/// Reads and verifies.
fn read<S: DeserializeOwned>(folder: &Path) -> std::result::Result<(S, Tensors), Unusable> {
    let damaged = |why: String| Err(Unusable::Damaged(why));
    let path = folder.join(STATE);
    let bytes = match fs::read_at_most(&path, LARGEST_STATE) {
        Err(error) if error.is_missing() => return damaged("it was never finished".into()),
        read => read?,
    };
    let file: File = match serde_json::from_slice(&bytes) {
        Ok(file) => file,
        Err(error) => return damaged(format!("`{STATE}` is damaged ({error})")),
    };
    if file.format != FORMAT {
        return damaged(format!("it has format {}, this program writes {FORMAT}", file.format));
    }
    let written = serde_json::to_vec(&file.state).map_err(|error| Unusable::Damaged(chain(&error)))?;
    if Digest::of(&written) != file.digest {
        return damaged(format!("`{STATE}` is not what was written"));
    }
    let path = folder.join(TENSORS);
    if Digest::of_file(&path)? != file.tensors {
        return damaged(format!("`{TENSORS}` is not what was written"));
    }
    let tensors = match Tensors::load(&path) {
        Ok(tensors) => tensors,
        Err(ArtifactError::File(error)) => return Err(error.into()),
        Err(error) => return damaged(chain(&error)),
    };
    match serde_json::from_value(file.state) {
        Ok(state) => Ok((state, tensors)),
        Err(error) => damaged(format!("its state is that of another stage or version ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fault::{Exit, Fault};

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Place {
        epoch: usize,
        losses: Vec<f64>,
    }

    fn place(epoch: usize) -> Place {
        Place { epoch, losses: (0..epoch).map(|e| 1.0 / (e as f64 + 3.0)).collect() }
    }

    fn weights(value: f32) -> Tensors {
        let mut tensors = Tensors::default();
        tensors.insert("a.weight", vec![2, 2], vec![value, 1.0, -0.0, f32::MIN_POSITIVE]);
        tensors.insert("scalar", vec![], vec![value]);
        tensors
    }

    fn saved(dir: &Path, epochs: std::ops::Range<usize>) -> Checkpoints {
        let checkpoints = Checkpoints::open(dir.join("work")).unwrap();
        for epoch in epochs {
            let (model, optimizer) = (weights(epoch as f32), weights(-1.0));
            checkpoints.save(epoch as u64, &place(epoch), &[("model", &model), ("optimizer", &optimizer)]).unwrap();
        }
        checkpoints
    }

    fn file(checkpoints: &Checkpoints, number: u64, name: &str) -> PathBuf {
        checkpoints.folder.join(format!("{PREFIX}{number:012}")).join(name)
    }

    /// Flips a bit in the middle.
    fn damage(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write_atomic(path, &bytes).unwrap();
    }

    #[test]
    fn what_was_saved_comes_back_and_only_the_two_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 0..4);
        let found = checkpoints.load::<Place>().unwrap();
        let checkpoint = found.checkpoint.unwrap();
        assert!(found.damaged.is_empty());
        assert_eq!((checkpoint.number, &checkpoint.state), (3, &place(3)));
        assert_eq!(checkpoint.section("model"), weights(3.0));
        assert_eq!(checkpoint.section("optimizer"), weights(-1.0));
        assert!(checkpoint.section("mod").is_empty());
        checkpoints.save(4, &place(4), &[("model", &weights(1.0)), ("model/optimizer", &weights(2.0))]).unwrap();
        let checkpoint = checkpoints.load::<Place>().unwrap().checkpoint.unwrap();
        assert_eq!(checkpoint.section("model"), weights(1.0), "a section is not part of one whose name it begins with");
        assert_eq!(checkpoint.section("model/optimizer"), weights(2.0));
        assert_eq!(checkpoints.all().unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [4, 3]);
    }

    #[test]
    fn a_damaged_newest_falls_back_to_the_older_and_says_why() {
        for name in [TENSORS, STATE] {
            let dir = tempfile::tempdir().unwrap();
            let checkpoints = saved(dir.path(), 0..2);
            damage(&file(&checkpoints, 1, name));
            let found = checkpoints.load::<Place>().unwrap();
            assert_eq!(found.checkpoint.unwrap().state, place(0), "{name}");
            assert_eq!(found.damaged.len(), 1);
            assert!(found.damaged[0].to_string().contains(name), "{}", found.damaged[0]);
        }
    }

    #[test]
    fn a_changed_number_in_the_state_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 3..4);
        let path = file(&checkpoints, 3, STATE);
        let text = fs::read_text(&path).unwrap();
        assert!(text.contains("\"epoch\": 3"), "{text}");
        fs::write_atomic(&path, text.replace("\"epoch\": 3", "\"epoch\": 4").as_bytes()).unwrap();
        let found = checkpoints.load::<Place>().unwrap();
        assert!(found.checkpoint.is_none());
        assert!(found.damaged[0].why.contains("not what was written"));
    }

    #[test]
    fn with_both_damaged_a_run_starts_afresh_with_two_warnings() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 0..2);
        damage(&file(&checkpoints, 0, TENSORS));
        fs::remove(&file(&checkpoints, 1, STATE)).unwrap();
        let found = checkpoints.load::<Place>().unwrap();
        assert!(found.checkpoint.is_none());
        assert_eq!(found.damaged.len(), 2);
        assert!(found.damaged[0].why.contains("never finished"));
    }

    /// The first page of a process is mapped nowhere, and reading it is an error of input and output.
    #[cfg(target_os = "linux")]
    fn break_disk_below(path: &Path) {
        fs::remove(path).unwrap();
        fs::link(Path::new("/proc/self/mem"), path).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_disk_that_fails_is_told_and_the_newest_checkpoint_is_not_given_up_for_it() {
        for name in [TENSORS, STATE] {
            let dir = tempfile::tempdir().unwrap();
            let checkpoints = saved(dir.path(), 0..2);
            break_disk_below(&file(&checkpoints, 1, name));
            let error = checkpoints.load::<Place>().unwrap_err();
            assert_eq!((error.exit(), error.code()), (Exit::Machine, "file::device"), "{name}: {error}");
        }
    }

    #[test]
    fn a_checkpoint_that_cannot_be_written_is_never_the_fault_of_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 0..1);
        let folder = dir.path().join("work");
        fs::remove_folder(&folder).unwrap();
        let listed = checkpoints.load::<Place>().unwrap_err();
        fs::write_atomic(&folder, b"mine").unwrap();
        let saved = checkpoints.save(1, &place(1), &[]).unwrap_err();
        for error in [listed, saved, Checkpoints::open(&folder).unwrap_err()] {
            assert_eq!((error.exit(), error.code()), (Exit::Store, "store::file"), "{error}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_a_checkpoint_is_passed_over_and_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 0..2);
        for name in ["checkpoint-3", "checkpoint-000000000004"] {
            fs::write_atomic(&checkpoints.folder.join(name), b"mine").unwrap();
        }
        let found = checkpoints.load::<Place>().unwrap();
        assert_eq!((found.checkpoint.unwrap().number, found.damaged.len()), (1, 2));
        checkpoints.save(4, &place(4), &[("model", &weights(4.0))]).unwrap();
        assert_eq!(checkpoints.all().unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [4, 1]);
        fs::write_atomic(&checkpoints.folder.join("checkpoint-5"), b"mine").unwrap();
        checkpoints.clear().unwrap();
        assert_eq!(checkpoints.all().unwrap(), []);
    }

    #[test]
    fn an_unfinished_folder_is_swept_away_by_the_next_save_and_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 0..2);
        fs::create_folders(&checkpoints.folder.join(format!("{PREFIX}{:012}", 2))).unwrap();
        assert_eq!(checkpoints.load::<Place>().unwrap().checkpoint.unwrap().number, 1);
        checkpoints.save(3, &place(3), &[]).unwrap();
        assert_eq!(checkpoints.all().unwrap().iter().map(|(n, _)| *n).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn saving_a_number_again_replaces_it_and_an_empty_folder_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 0..0);
        assert!(checkpoints.load::<Place>().unwrap().checkpoint.is_none());
        checkpoints.save(1, &place(1), &[]).unwrap();
        checkpoints.save(1, &place(2), &[]).unwrap();
        assert_eq!(checkpoints.load::<Place>().unwrap().checkpoint.unwrap().state, place(2));
        checkpoints.clear().unwrap();
        assert!(checkpoints.all().unwrap().is_empty());
    }

    #[test]
    fn a_state_of_another_version_is_a_warning_not_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = saved(dir.path(), 0..1);
        let found = checkpoints.load::<Vec<u32>>().unwrap();
        assert!(found.checkpoint.is_none() && found.damaged[0].why.contains("another stage or version"));
    }
}
