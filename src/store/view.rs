//! Views: the latest result of each stage under readable names in `artifacts/<pipeline>/<stage>/`, with a `stage.json` that says
//! what it is and what went into it.
//!
//! The files share their bytes with the store: a clone where the file system has them, else a hard link, else a copy; all
//! read-only. A new result is built beside the old one and swapped in, so that nobody sees half of each. What a person has put
//! into the folder stays there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self as files, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::disk::{entries, exchange, make_read_only, rename_new, stat};
use super::error::{Result, StoreError};
use super::key::{Key, Manifest};
use super::layout::{FOLDER, Store, checked_name};
use super::record::{self, Record, StoredOutput};
use kinset_base::fs::{self, At};

/// The form of `stage.json`.
const FORMAT: u32 = 1;

/// The file that says what a view shows.
pub const CARD: &str = "stage.json";

/// How the folders begin in which views are built.
pub(super) const BUILDING: &str = ".new-";

/// A card larger than this is none.
const LARGEST: u64 = 32 << 20;

/// How often another run may get in between.
const ATTEMPTS: usize = 10;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    pub format: u32,
    pub pipeline: String,
    pub stage: String,
    pub key: Key,
    pub kind: String,
    pub manifest: Manifest,
    pub outputs: BTreeMap<String, StoredOutput>,
    pub files: BTreeMap<String, ViewFile>,
    /// What it cost: seconds of wall clock.
    pub seconds: f64,
    /// When it was done: seconds since 1970, UTC.
    pub finished: f64,
    pub crate_version: String,
    pub threads: usize,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewFile {
    pub blob: Digest,
    /// Bytes.
    pub size: u64,
    /// How it shares its bytes with the blob.
    pub form: Form,
}

/// How a file of a view shares its bytes with the blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A clone: shared until one is written.
    Clone,
    /// The same file under a second name.
    HardLink,
    /// Bytes of its own.
    Copy,
}

impl Store {
    /// The folder of a view.
    ///
    /// # Errors
    /// If a name is not a safe file name, or is taken (`store` for a pipeline, `runs` for a stage).
    pub fn view_path(&self, pipeline: &str, stage: &str) -> Result<PathBuf> {
        let refused = |name: &str, what| Err(StoreError::Name { name: name.to_owned(), what });
        if pipeline.eq_ignore_ascii_case(FOLDER) {
            return refused(pipeline, "a pipeline");
        }
        if stage.eq_ignore_ascii_case("runs") {
            return refused(stage, "a stage");
        }
        Ok(self.artifacts().join(checked_name("a pipeline", pipeline)?).join(checked_name("a stage", stage)?))
    }

    /// What the view of a stage shows; `None` if there is none that can be read.
    pub fn view(&self, pipeline: &str, stage: &str) -> Result<Option<View>> {
        read_card(&self.view_path(pipeline, stage)?)
    }

    /// What all views show, sorted by pipeline and stage.
    pub fn views(&self) -> Result<Vec<View>> {
        let mut all = Vec::new();
        for (pipeline, folder) in entries(self.artifacts())? {
            if pipeline != FOLDER {
                all.extend(views_in(&folder)?);
            }
        }
        Ok(all)
    }

    /// What the views of one pipeline show, sorted by stage.
    pub fn views_of(&self, pipeline: &str) -> Result<Vec<View>> {
        views_in(&self.artifacts().join(checked_name("a pipeline", pipeline)?))
    }

    /// Shows a result as the latest of a stage. A view that is right already is only looked at (one small file read, each
    /// file's size compared), and `false` returned.
    pub fn update_view(&self, pipeline: &str, stage: &str, manifest: &Manifest, record: &Record) -> Result<bool> {
        let view = self.view_path(pipeline, stage)?;
        let old = read_card(&view)?;
        if let Some(old) = &old
            && old.key == record.key
            && old.finished.total_cmp(&record.finished).is_eq()
            && old.outputs == record.outputs
            && self.is_whole(&view, old)?
        {
            return Ok(false);
        }
        self.writable()?;
        let parent = self.artifacts().join(pipeline);
        self.writing(fs::create_folders(&parent))?;
        let fresh = self.build(&parent, pipeline, stage, manifest, record)?;
        self.writing(self.fail.pass("view built").at("replace", &view))?;
        self.swap_in(fresh.path(), &view, old.as_ref())?;
        self.writing(self.fail.pass("view swapped in").at("replace", &view))?;
        // Now it holds the old result, or nothing.
        let _ = fresh.close();
        Ok(true)
    }

    /// Removes views that a process that is gone left half built. `locked`: the store is locked exclusively.
    pub(super) fn remove_unfinished_views(&self, locked: bool) -> Result<()> {
        for (pipeline, folder) in entries(self.artifacts())? {
            let Ok(found) = files::read_dir(&folder) else { continue };
            for entry in found.filter(|_| pipeline != FOLDER) {
                let entry = entry.at("list", &folder)?;
                if entry.file_name().to_string_lossy().starts_with(BUILDING) {
                    self.remove_leftover(&entry.file_name(), &entry.path(), locked)?;
                }
            }
        }
        Ok(())
    }

    /// True if each file is there with its size, and a hard link still leads to the blob (a healed blob is another file).
    fn is_whole(&self, view: &Path, shown: &View) -> Result<bool> {
        for (name, file) in &shown.files {
            let Some(found) = stat(&view.join(name))? else { return Ok(false) };
            if !found.is_file() || found.len() != file.size {
                return Ok(false);
            }
            if file.form == Form::HardLink && !stat(&self.blob_path(&file.blob))?.is_some_and(|blob| same_file(&found, &blob)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Builds a view in a hidden folder beside its place.
    fn build(
        &self,
        parent: &Path,
        pipeline: &str,
        stage: &str,
        manifest: &Manifest,
        record: &Record,
    ) -> Result<tempfile::TempDir> {
        let fresh =
            tempfile::Builder::new().prefix(&self.temporary(BUILDING)).tempdir_in(parent).at("create a folder in", parent);
        let fresh = self.writing(fresh)?;
        #[cfg(unix)]
        {
            // Temporary folders are private; a view is as open as its pipeline's folder.
            let rights = files::metadata(parent).at("look at", parent)?.permissions();
            self.writing(files::set_permissions(fresh.path(), rights).at("open", fresh.path()))?;
        }
        let mut shown = BTreeMap::new();
        for (name, blob, size) in names(record) {
            let path = fresh.path().join(&name);
            let form = self.writing(share(&self.blob_path(&blob), &path))?;
            shown.insert(name, ViewFile { blob, size, form });
        }
        let card = View {
            format: FORMAT,
            pipeline: pipeline.to_owned(),
            stage: stage.to_owned(),
            key: record.key,
            kind: record.kind.clone(),
            manifest: manifest.clone(),
            outputs: record.outputs.clone(),
            files: shown,
            seconds: record.seconds,
            finished: record.finished,
            crate_version: record.crate_version.clone(),
            threads: record.threads,
            notes: record.notes.clone(),
        };
        let text = serde_json::to_vec_pretty(&card).map_err(|source| StoreError::Encode { what: "a view", source })?;
        // Not flushed: a view is made again from the store whenever it is not right.
        self.writing(files::write(fresh.path().join(CARD), text).at("write", fresh.path()))?;
        Ok(fresh)
    }

    /// Gives the new view its place. `fresh` then holds what was there before, without what a person had put there.
    fn swap_in(&self, fresh: &Path, view: &Path, old: Option<&View>) -> Result<()> {
        for _ in 0..ATTEMPTS {
            match rename_new(fresh, view) {
                Ok(()) => return Ok(()),
                Err(taken) if matches!(taken.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) => {}
                // No hard links to folders: the system has no rename that spares what is there.
                Err(_) if stat(view)?.is_none() => return self.writing(files::rename(fresh, view).at("rename", view)),
                Err(error) => return self.writing(Err(error).at("rename", view)),
            }
            match exchange(fresh, view) {
                Ok(true) => return self.carry_over(fresh, view, old),
                Ok(false) => return self.writing(replace_each(fresh, view, old)),
                // Somebody removed it meanwhile: now the name is free.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return self.writing(Err(error).at("replace", view)),
            }
        }
        let error = io::Error::other("it keeps being replaced by others");
        Err(StoreError::File(fs::FileError::new("replace", view, error)))
    }

    /// Moves what was not ours from the old view into the new one.
    fn carry_over(&self, old_view: &Path, view: &Path, old: Option<&View>) -> Result<()> {
        let ours = of_view(old);
        if stat(old_view)?.is_some_and(|found| !found.is_dir()) {
            return self.set_aside_as(view.file_name().unwrap_or_default(), old_view);
        }
        for entry in files::read_dir(old_view).at("list", old_view)? {
            let entry = entry.at("list", old_view)?;
            let name = entry.file_name();
            let to = view.join(&name);
            if !ours.contains(name.to_string_lossy().as_ref()) && stat(&to)?.is_none() {
                self.writing(files::rename(entry.path(), &to).at("keep", &to))?;
            }
        }
        Ok(())
    }
}

fn of_view(shown: Option<&View>) -> BTreeSet<&str> {
    shown.into_iter().flat_map(|shown| shown.files.keys().map(String::as_str)).chain([CARD]).collect()
}

/// Without an exchange of folders: the card goes first, so that a view without one is not taken for whole, and comes back last.
fn replace_each(fresh: &Path, view: &Path, old: Option<&View>) -> fs::Result<()> {
    fs::remove(&view.join(CARD))?;
    for name in of_view(old) {
        if !fs::exists(&fresh.join(name)) {
            fs::remove(&view.join(name))?;
        }
    }
    for path in fs::list(fresh)? {
        if let Some(name) = path.file_name()
            && name != CARD
        {
            files::rename(&path, view.join(name)).at("replace", &path)?;
        }
    }
    files::rename(fresh.join(CARD), view.join(CARD)).at("replace", view)
}

/// The files of a view: their own names, or `<output>-<file>` where two outputs have files of one name (or of the card's). The
/// output that is called what it is, as the classifier `classifier` beside the classifier `last`, keeps its names.
fn names(record: &Record) -> Vec<(String, Digest, u64)> {
    let mut times: BTreeMap<&str, usize> = BTreeMap::from([(CARD, 1)]);
    for (_, file) in record.files() {
        *times.entry(&file.name).or_default() += 1;
    }
    record
        .files()
        .map(|(output, file)| {
            let alone = times.get(file.name.as_str()) == Some(&1);
            let first = record.outputs.get(output).is_some_and(|of| of.kind == output);
            let name =
                if (alone || first) && file.name != CARD { file.name.clone() } else { format!("{output}-{}", file.name) };
            (name, file.blob, file.size)
        })
        .collect()
}

/// Lets a new file share the bytes of a blob, as cheaply as the file system can.
fn share(blob: &Path, path: &Path) -> fs::Result<Form> {
    if reflink_copy::reflink(blob, path).is_ok() {
        make_read_only(path)?;
        return Ok(Form::Clone);
    }
    if files::hard_link(blob, path).is_ok() {
        return Ok(Form::HardLink);
    }
    files::copy(blob, path).at("copy to", path)?;
    make_read_only(path)?;
    Ok(Form::Copy)
}

fn same_file(a: &Metadata, b: &Metadata) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (a.dev(), a.ino()) == (b.dev(), b.ino())
    }
    #[cfg(not(unix))]
    {
        a.len() == b.len()
    }
}

fn views_in(folder: &Path) -> Result<Vec<View>> {
    entries(folder)?.into_iter().filter_map(|(_, view)| read_card(&view).transpose()).collect()
}

/// What a view shows; `None` if that cannot be read.
///
/// # Errors
/// [`StoreError::Newer`] if a newer kinset made it.
fn read_card(view: &Path) -> Result<Option<View>> {
    let path = view.join(CARD);
    let Ok(bytes) = fs::read_at_most(&path, LARGEST) else { return Ok(None) };
    if let Ok(record::Form { format }) = serde_json::from_slice(&bytes)
        && format > FORMAT
    {
        return Err(StoreError::newer(&path, format, FORMAT));
    }
    let Ok(shown) = serde_json::from_slice::<View>(&bytes) else { return Ok(None) };
    // A name with a path in it would lead out of the folder.
    let safe = shown.files.keys().all(|file| checked_name("a file", file).is_ok());
    Ok((shown.format == FORMAT && safe).then_some(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::record::tests::{manifest, new_store, publish};
    use crate::record::{StoredFile, StoredOutput};

    fn listed(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            files::read_dir(path).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn the_latest_result_lies_under_readable_names() {
        let (dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        assert!(store.update_view("digits", "cluster", &manifest(1), &record).unwrap());
        let view = dir.path().join("digits/cluster");
        assert_eq!(listed(&view), ["card.json", "stage.json", "table.bin"]);
        assert_eq!(files::read_to_string(view.join("table.bin")).unwrap(), "one");
        assert!(files::metadata(view.join("table.bin")).unwrap().permissions().readonly());
        assert_eq!(listed(&dir.path().join("digits")), ["cluster"]);
        let shown = store.view("digits", "cluster").unwrap().unwrap();
        assert_eq!((shown.key, &shown.manifest, &shown.outputs), (record.key, &manifest(1), &record.outputs));
        assert_eq!(store.views().unwrap(), [shown]);
    }

    #[test]
    fn a_right_view_is_not_touched() {
        let (dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        store.update_view("digits", "cluster", &manifest(1), &record).unwrap();
        let card = dir.path().join("digits/cluster/stage.json");
        let written = files::metadata(&card).unwrap().modified().unwrap();
        let reader = Store::open_existing(dir.path()).unwrap();
        assert!(!reader.update_view("digits", "cluster", &manifest(1), &record).unwrap());
        assert_eq!(files::metadata(&card).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn a_new_result_replaces_the_old_one_and_leaves_what_a_person_put_there() {
        let (dir, store) = new_store();
        let old = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        store.update_view("digits", "cluster", &manifest(1), &old).unwrap();
        let view = dir.path().join("digits/cluster");
        files::write(view.join("notes.txt"), "mine").unwrap();
        files::create_dir(view.join("plots")).unwrap();

        let mut new = publish(&store, &manifest(2), "two", 1.0).unwrap().record;
        new.outputs.get_mut("features").unwrap().files.retain(|file| file.name == "table.bin");
        assert!(store.update_view("digits", "cluster", &manifest(2), &new).unwrap());
        assert_eq!(listed(&view), ["notes.txt", "plots", "stage.json", "table.bin"], "card.json was of the old result");
        assert_eq!(files::read_to_string(view.join("table.bin")).unwrap(), "two");
        assert_eq!(files::read_to_string(view.join("notes.txt")).unwrap(), "mine");
        assert_eq!(listed(&dir.path().join("digits")), ["cluster"]);
    }

    #[test]
    fn without_an_exchange_of_folders_the_files_are_replaced_one_by_one() {
        let (dir, store) = new_store();
        let old = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        store.update_view("digits", "cluster", &manifest(1), &old).unwrap();
        let view = dir.path().join("digits/cluster");
        files::write(view.join("notes.txt"), "mine").unwrap();
        let mut new = publish(&store, &manifest(2), "two", 1.0).unwrap().record;
        new.outputs.get_mut("features").unwrap().files.retain(|file| file.name == "table.bin");
        let fresh = store.build(&dir.path().join("digits"), "digits", "cluster", &manifest(2), &new).unwrap();
        replace_each(fresh.path(), &view, store.view("digits", "cluster").unwrap().as_ref()).unwrap();
        assert_eq!(listed(&view), ["notes.txt", "stage.json", "table.bin"]);
        assert_eq!(files::read_to_string(view.join("table.bin")).unwrap(), "two");
        assert_eq!(store.view("digits", "cluster").unwrap().unwrap().key, new.key);
        drop(fresh);
        assert_eq!(listed(&dir.path().join("digits")), ["cluster"]);
    }

    #[test]
    fn a_view_that_lost_a_file_or_its_card_is_made_again() {
        let (dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let view = dir.path().join("digits/cluster");
        let show = || store.update_view("digits", "cluster", &manifest(1), &record).unwrap();
        show();
        for file in ["table.bin", "stage.json"] {
            files::remove_file(view.join(file)).unwrap();
            assert!(show(), "{file}");
            assert_eq!(listed(&view), ["card.json", "stage.json", "table.bin"]);
        }
        files::remove_file(view.join("table.bin")).unwrap();
        files::write(view.join("table.bin"), "onetwo").unwrap();
        assert!(show());
        files::write(view.join("stage.json"), "{").unwrap();
        assert!(show());
        files::remove_dir_all(&view).unwrap();
        files::write(&view, "a file in its place").unwrap();
        assert!(show());
        assert!(!show());
    }

    #[test]
    fn a_healed_blob_reaches_the_view() {
        let (dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        store.update_view("digits", "cluster", &manifest(1), &record).unwrap();
        let blob = store.blob_path(&record.outputs["features"].files[0].blob);
        files::remove_file(&blob).unwrap();
        files::write(&blob, "onE").unwrap();
        // The stage is run again by force: same bytes, so the old record is adopted, but the blob is a new file.
        let again = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        assert_eq!(again, record);
        let view = dir.path().join("digits/cluster/table.bin");
        store.update_view("digits", "cluster", &manifest(1), &again).unwrap();
        assert_eq!(files::read_to_string(view).unwrap(), "one");
        assert_eq!(files::read_to_string(blob).unwrap(), "one");
    }

    #[test]
    fn outputs_with_files_of_one_name_are_told_apart() {
        let (_dir, store) = new_store();
        let mut record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let file = |name: &str| StoredFile { name: name.into(), blob: Digest::of(b"x"), logical: None, size: 1 };
        let output = |files| StoredOutput { kind: "net".into(), content: Digest::of(b"x"), files };
        record.outputs = BTreeMap::from([
            ("near".to_owned(), output(vec![file("t.parquet"), file("a")])),
            ("far".to_owned(), output(vec![file("t.parquet"), file("stage.json")])),
            ("net".to_owned(), output(vec![file("a")])),
        ]);
        let names: Vec<_> = names(&record).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["far-t.parquet", "far-stage.json", "near-t.parquet", "near-a", "a"]);
    }

    #[test]
    fn names_that_are_taken_or_lead_away_are_refused() {
        let (_dir, store) = new_store();
        for (pipeline, stage) in [("store", "x"), ("Store", "x"), ("x", "runs"), ("..", "x"), ("x", "../y"), ("", "x")] {
            assert!(store.view_path(pipeline, stage).is_err(), "{pipeline}/{stage}");
        }
    }

    #[test]
    fn a_reader_never_sees_a_view_of_two_results() {
        let (dir, store) = new_store();
        let records = [1, 2].map(|i| publish(&store, &manifest(i), &format!("result {i}"), 1.0).unwrap().record);
        store.update_view("digits", "cluster", &manifest(1), &records[0]).unwrap();
        let view = dir.path().join("digits/cluster");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for i in 0..100 {
                    let i = i % 2;
                    store.update_view("digits", "cluster", &manifest(i as u32 + 1), &records[i]).unwrap();
                }
            });
            while !writer.is_finished() {
                // Through one handle on the folder, as a tool that opened it would.
                if let Ok(folder) = files::canonicalize(&view) {
                    let card = read_card(&folder).unwrap().expect("there is always a whole card");
                    assert!(records.iter().any(|record| record.key == card.key));
                }
                assert!(files::read_to_string(view.join("table.bin")).unwrap().starts_with("result"));
            }
        });
    }
}
