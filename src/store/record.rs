//! Records: the blobs of every output of a key, their content digests, and what it cost to compute them.
//!
//! It is written last and in one step, so a record that is there is complete. The first one published wins: who comes later
//! adopts it, even if the two disagree (sums on a GPU); otherwise two equal runs would feed different data to the stages below.
//! A lookup that finds a blob missing or cut short is no hit: the stage runs again and its result replaces the record.
//!
//! The file begins with the digest of all that follows, so that no byte of it can change unseen. What a newer kinset wrote is
//! neither read nor replaced.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::{UNCHECKED, changed};
use super::digest::{Digest, Hasher};
use super::disk::{entries, parent, stat};
use super::error::{Result, StoreError};
use super::key::{Key, Manifest};
use super::layout::{Store, checked_name};
use super::place::Reach;
use kinset_base::clock::{self, Stopwatch};
use kinset_base::fs::{self, At};

/// The form of records. Until 1 they carried no digest, and nobody compared the inputs of a stage with theirs.
pub const FORMAT: u32 = 2;

/// The first form that carries a digest.
const SEALED: u32 = 2;

/// How a file begins that carries the digest of what follows. Later forms begin likewise.
const SEAL: &str = "{\n  \"digest\": \"";
const SEAL_END: &str = "\",";

/// On a shared file system, for so long after a wait for somebody a result may still come into sight.
const SETTLES: Duration = Duration::from_secs(1);
/// And for so long at most what a folder lists may not be found by its name.
const REMEMBERED: Duration = Duration::from_mins(1);
const LOOKS: Duration = Duration::from_millis(100);

/// A record larger than this is none.
pub const LARGEST: u64 = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Its name within the artifact: `features.parquet`.
    pub name: String,
    /// The digest of its bytes, which is also where they lie.
    pub blob: Digest,
    /// The digest of what it says, where that is another (Parquet).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical: Option<Digest>,
    /// Bytes.
    pub size: u64,
}

impl StoredFile {
    /// The digest of what it says.
    pub fn content(&self) -> Digest {
        self.logical.unwrap_or(self.blob)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutput {
    /// The kind of artifact: `features`.
    pub kind: String,
    /// The digest of what it says; this goes into the keys of the stages below.
    pub content: Digest,
    /// Its files, the main one first.
    pub files: Vec<StoredFile>,
}

impl StoredOutput {
    /// The digest of what its files say.
    fn digest(&self) -> Digest {
        content_digest(&self.kind, self.files.iter().map(|file| (file.name.as_str(), file.content())))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The form of the record, [`FORMAT`].
    pub format: u32,
    pub key: Key,
    pub kind: String,
    pub version: u32,
    /// By name, what came out.
    pub outputs: BTreeMap<String, StoredOutput>,
    /// What it cost: seconds of wall clock.
    pub seconds: f64,
    /// When it was done: seconds since 1970, UTC.
    pub finished: f64,
    pub crate_version: String,
    pub threads: usize,
    /// Bytes of memory the process held at most meanwhile, with all that ran beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// What else is worth knowing: commit, device, resumed from which epoch.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

impl Record {
    /// Bytes of all its files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|(_, file)| file.size).fold(0, u64::saturating_add)
    }

    pub fn files(&self) -> impl Iterator<Item = (&str, &StoredFile)> {
        self.outputs.iter().flat_map(|(output, stored)| stored.files.iter().map(move |file| (output.as_str(), file)))
    }
}

/// How a result came about: provenance, none of it in the key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Provenance {
    /// Seconds of wall clock, over all attempts if it was resumed.
    pub seconds: f64,
    pub threads: usize,
    /// Bytes of memory the process held at most, where the system says.
    pub peak_memory: Option<u64>,
    pub host: Option<String>,
    pub notes: BTreeMap<String, String>,
}

/// What lies under the name of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Found {
    Nothing,
    Whole(Record),
    /// What is wrong with it, in words.
    Damaged(String),
    /// A newer kinset wrote it, in this form.
    Newer(u32),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// A record, and every blob is there with its size, and none that this process knows to be changed.
    Hit(Record),
    /// Never done, or removed since.
    Miss,
    /// Done once, but not whole any more, and why: run it again and it heals.
    Damaged(String),
}

/// What became of a result that was to be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The record that is valid from now on: ours, or the one that was there before.
    pub record: Record,
    /// True if an earlier record was adopted.
    pub adopted: bool,
    /// True if the adopted one says something else than ours did: the stage does not repeat itself.
    pub differed: bool,
}

/// Why bytes from elsewhere are not the record of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotThisRecord {
    #[error("{0}")]
    Damaged(String),
    /// Whoever meets it leaves it as it is.
    #[error("a newer kinset wrote it, in format {0}")]
    Newer(u32),
    #[error("an older kinset computed its result without a check of the inputs")]
    Unchecked,
    #[error("it is of `{kind}`, version {version}")]
    Other { kind: String, version: u32 },
}

impl Record {
    /// Reads the record of a manifest's key as another store holds it.
    ///
    /// # Errors
    /// [`NotThisRecord`]; nothing of it counts then.
    pub fn read(bytes: &[u8], manifest: &Manifest) -> std::result::Result<Self, NotThisRecord> {
        let record = Self::read_any(bytes, &manifest.key())?;
        if record.kind != manifest.kind || record.version != manifest.version {
            return Err(NotThisRecord::Other { kind: record.kind, version: record.version });
        }
        Ok(record)
    }

    /// Reads the record of a key whose manifest is not known.
    ///
    /// # Errors
    /// As [`Record::read`].
    pub fn read_any(bytes: &[u8], key: &Key) -> std::result::Result<Self, NotThisRecord> {
        match check(bytes, key).map_err(NotThisRecord::Damaged)? {
            Found::Whole(record) if record.format <= UNCHECKED => Err(NotThisRecord::Unchecked),
            Found::Whole(record) => Ok(record),
            Found::Newer(format) => Err(NotThisRecord::Newer(format)),
            Found::Nothing | Found::Damaged(_) => Err(NotThisRecord::Damaged("it is empty".into())),
        }
    }

    /// The record as a store holds it.
    ///
    /// # Errors
    /// None in practice: all its fields can be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        sealed(self)
    }

    /// True if the results say the same.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        same_content(self, other)
    }
}

/// The digest of an artifact from the digests of what its files say, in the order of the kind's files.
pub fn content_digest<'a>(kind: &str, files: impl IntoIterator<Item = (&'a str, Digest)>) -> Digest {
    let mut hasher = Hasher::derived("kinset 2026-11 artifact content");
    hasher.field(kind);
    for (name, digest) in files {
        hasher.field(name).field(&digest.hex());
    }
    hasher.finish()
}

impl Store {
    /// What is known of a key. Reads one small file and looks at each blob's size; opens nothing else and writes nothing. On a shared
    /// file system nothing counts as missing before its folder was listed.
    ///
    /// # Errors
    /// If the file system fails, or a newer kinset wrote the record; a damaged result is no error.
    pub fn lookup(&self, key: &Key) -> Result<Lookup> {
        let path = self.record_path(key);
        let found = match self.record(key)? {
            Found::Nothing if self.appears(&path)? => self.record(key)?,
            found => found,
        };
        let record = match found {
            Found::Nothing => return Ok(Lookup::Miss),
            Found::Damaged(damage) => return Ok(Lookup::Damaged(damage)),
            Found::Newer(format) => return Err(StoreError::newer(&path, format, FORMAT)),
            Found::Whole(record) => record,
        };
        Ok(match self.missing_from_any(&record.outputs)? {
            Some(damage) => Lookup::Damaged(damage),
            None => Lookup::Hit(record),
        })
    }

    /// As [`Store::lookup`], after waiting for the process that was at the key: on a shared file system what it did may take a moment to
    /// be seen.
    ///
    /// # Errors
    /// Those.
    pub fn lookup_after_waiting(&self, key: &Key) -> Result<Lookup> {
        let waited = Stopwatch::start();
        loop {
            let found = self.lookup(key)?;
            if found != Lookup::Miss || self.reach() == Reach::Machine || waited.elapsed() >= SETTLES {
                return Ok(found);
            }
            std::thread::sleep(LOOKS);
        }
    }

    /// True if a file is there that was not found by its name. Over a network a machine remembers for a while what it did not find, but
    /// asks the server when a folder is opened. What that lists is waited for.
    fn appears(&self, path: &Path) -> Result<bool> {
        if self.reach() == Reach::Machine {
            return Ok(false);
        }
        let is_listed = |path: &Path| Ok::<_, StoreError>(entries(parent(path))?.iter().any(|(_, listed)| listed == path));
        let waited = Stopwatch::start();
        // The folder too may be remembered as not there.
        for place in [parent(path), path] {
            while stat(place)?.is_none() {
                if waited.elapsed() >= REMEMBERED || !is_listed(place)? {
                    return Ok(false);
                }
                // Who wants to make something asks the server in any case, and from then on the machine knows that the name is taken.
                if self.may_write && std::fs::create_dir(place).is_ok() {
                    let _ = std::fs::remove_dir(place);
                }
                if stat(place)?.is_none() {
                    std::thread::sleep(LOOKS);
                }
            }
        }
        Ok(true)
    }

    pub(super) fn missing_from_any(&self, outputs: &BTreeMap<String, StoredOutput>) -> Result<Option<String>> {
        for (name, output) in outputs {
            if let Some(damage) = self.missing_from(name, output)? {
                return Ok(Some(damage));
            }
        }
        Ok(None)
    }

    /// The first blob that is not there with its size, or that this process knows to be changed, in words.
    pub(super) fn missing_from(&self, output: &str, stored: &StoredOutput) -> Result<Option<String>> {
        for file in &stored.files {
            let StoredFile { name, blob, size, .. } = file;
            let path = self.blob_path(blob);
            let found = match stat(&path)? {
                None if self.appears(&path)? => stat(&path)?,
                found => found,
            };
            match found.filter(Metadata::is_file) {
                Some(found) if found.len() != *size => {
                    let found = found.len();
                    return Ok(Some(format!("`{name}` of its output `{output}` has {found} bytes instead of {size}")));
                }
                Some(found) if self.is_known_to_differ(blob, &found) => return Ok(Some(changed(output, file))),
                Some(_) => {}
                None if fs::dangling(&path).is_some() => {
                    return Ok(Some(format!("`{name}` of its output `{output}` is a link to what is not there")));
                }
                None => return Ok(Some(format!("`{name}` of its output `{output}` is missing"))),
            }
        }
        Ok(None)
    }

    /// True if each blob is there and has its digest.
    fn has_whole_blobs(&self, record: &Record) -> Result<bool> {
        for (name, output) in &record.outputs {
            if self.damage(name, output)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Publishes a result: manifest, then record; the private work folder of the key is removed. If a whole record was there
    /// before, it is adopted and ours forgotten; a damaged one is replaced, and so is one whose inputs nobody compared.
    ///
    /// # Errors
    /// If the store cannot be written, a blob of `outputs` is not there ([`Store::publish_output`] comes first), or a newer kinset
    /// has a record under this name.
    pub fn publish(
        &self,
        manifest: &Manifest,
        outputs: BTreeMap<String, StoredOutput>,
        facts: Provenance,
    ) -> Result<Published> {
        let ours = Record {
            format: FORMAT,
            key: manifest.key(),
            kind: manifest.kind.clone(),
            version: manifest.version,
            outputs,
            seconds: facts.seconds,
            finished: clock::unix_seconds(),
            crate_version: env!("CARGO_PKG_VERSION").to_owned(),
            threads: facts.threads,
            peak_memory: facts.peak_memory,
            host: facts.host,
            notes: facts.notes,
        };
        self.adopt(manifest, ours)
    }

    /// Makes a record valid here whose blobs are here: one of ours, or one of another store. Otherwise as [`Store::publish`].
    ///
    /// # Errors
    /// Those.
    pub fn adopt(&self, manifest: &Manifest, ours: Record) -> Result<Published> {
        let key = ours.key;
        let path = self.record_path(&key);
        self.writable()?;
        if let Some(damage) = self.missing_from_any(&ours.outputs)? {
            return Err(StoreError::Damaged { path: path.display().to_string(), why: damage });
        }
        self.save_manifest(manifest, &key)?;
        let text = sealed(&ours)?;
        let published = if self.write_new(&path, &text)? {
            Published { record: ours, adopted: false, differed: false }
        } else if let Lookup::Hit(theirs) = self.lookup(&key)?
            && theirs.format > UNCHECKED
            && self.has_whole_blobs(&theirs)?
        {
            let differed = !same_content(&ours, &theirs);
            Published { record: theirs, adopted: true, differed }
        } else {
            self.replace(&path, &text)?;
            Published { record: ours, adopted: false, differed: false }
        };
        self.writing(self.fail.pass("record durable").at("publish", &path))?;
        self.remove_scratch(&key)?;
        Ok(published)
    }

    /// Forgets the result of a key, so that it runs again; its blobs stay until `gc`. Nothing there is fine too.
    pub fn forget(&self, key: &Key) -> Result<()> {
        self.writable()?;
        self.remove_file(&self.record_path(key))
    }

    /// Where the files of an output lie, the main one first.
    pub fn paths(&self, output: &StoredOutput) -> Vec<PathBuf> {
        output.files.iter().map(|file| self.blob_path(&file.blob)).collect()
    }

    /// All keys with a record, sorted.
    pub fn keys(&self) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for (_, shard) in entries(&self.records())? {
            for (file, _) in entries(&shard)? {
                if let Some(Ok(key)) = file.strip_suffix(".json").map(str::parse) {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    }

    /// The outputs of this kind whose content has this digest, whatever stages made them, with their keys and names; the blobs are
    /// not looked at.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn outputs_of(&self, kind: &str, content: Digest) -> Result<Vec<(Key, String, StoredOutput)>> {
        let mut found = Vec::new();
        for key in self.keys()? {
            let Found::Whole(record) = self.record(&key)? else { continue };
            let outputs = record.outputs.into_iter().filter(|(_, output)| output.kind == kind && output.content == content);
            found.extend(outputs.map(|(name, output)| (key, name, output)));
        }
        Ok(found)
    }

    /// The first of [`Store::outputs_of`] that is whole.
    ///
    /// # Errors
    /// As [`Store::lookup`].
    pub fn output_of(&self, kind: &str, content: Digest) -> Result<Option<StoredOutput>> {
        for (_, name, output) in self.outputs_of(kind, content)? {
            if self.damage(&name, &output)?.is_none() {
                return Ok(Some(output));
            }
        }
        Ok(None)
    }

    /// The record of a key; its blobs are not looked at.
    pub(super) fn record(&self, key: &Key) -> Result<Found> {
        let path = self.record_path(key);
        let read = self.fail.pass("record looked for").at("read", &path).and_then(|()| fs::read_at_most(&path, LARGEST));
        let found = match read {
            Ok(bytes) => check(&bytes, key),
            Err(error) if error.is_missing() || error.source.kind() == ErrorKind::NotADirectory => return Ok(Found::Nothing),
            Err(error) if error.is_no_file() || error.source.kind() == ErrorKind::Other => Err(error.source.to_string()),
            Err(error) => return Err(error.into()),
        };
        Ok(found.unwrap_or_else(|why| Found::Damaged(format!("its record is damaged ({why})"))))
    }
}

fn same_content(a: &Record, b: &Record) -> bool {
    let content = |record: &Record| -> Vec<(String, Digest)> {
        record.outputs.iter().map(|(name, output)| (name.clone(), output.content)).collect()
    };
    content(a) == content(b)
}

/// The form that a file says it has.
#[derive(Deserialize)]
pub(super) struct Form {
    pub(super) format: u32,
}

/// A record as it is written: with the digest of all that follows in front.
fn sealed(record: &Record) -> Result<Vec<u8>> {
    let plain = serde_json::to_vec_pretty(record).map_err(|source| StoreError::Encode { what: "a record", source })?;
    // Its opening brace stands in front of the digest.
    let rest = plain.get(1..).unwrap_or_default();
    let mut text = [SEAL, &seal(rest).hex(), SEAL_END].concat().into_bytes();
    text.extend_from_slice(rest);
    Ok(text)
}

fn seal(rest: &[u8]) -> Digest {
    Hasher::derived("kinset 2026-11 record").update(rest).finish()
}

/// Whether a file carries the digest of what follows, and it is right.
fn is_sealed(bytes: &[u8]) -> Option<bool> {
    let (digest, rest) = bytes.strip_prefix(SEAL.as_bytes())?.split_at_checked(64)?;
    let rest = rest.strip_prefix(SEAL_END.as_bytes())?;
    Some(seal(rest).hex().as_bytes() == digest)
}

/// Reads a record, checks that it is as it was written and belongs to the key, and that its names stay inside their folder.
fn check(bytes: &[u8], key: &Key) -> std::result::Result<Found, String> {
    let is_sealed = is_sealed(bytes);
    // Before its form is looked at: a digit of that may be what changed.
    if is_sealed == Some(false) {
        return Err("its bytes have changed".into());
    }
    let Form { format } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if format > FORMAT {
        return Ok(Found::Newer(format));
    }
    if format >= SEALED && is_sealed.is_none() {
        return Err("its digest is missing".into());
    }
    let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if record.key != *key {
        return Err(format!("it belongs to the key {}", record.key.short()));
    }
    for (output, file) in record.files() {
        checked_name("an output", output)
            .and_then(|_| checked_name("a file", &file.name))
            .map_err(|error| error.to_string())?;
    }
    for (name, output) in &record.outputs {
        if output.digest() != output.content {
            return Err(format!("the digest of its output `{name}` does not match the digests of the files"));
        }
    }
    Ok(Found::Whole(record))
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs as files;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::blob::NewFile;
    use kinset_base::fault::{Exit, Fault};

    pub(crate) fn new_store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    pub(crate) fn manifest(epochs: u32) -> Manifest {
        Manifest::new("scan", 1, &json!({"epochs": epochs})).unwrap()
    }

    /// Publishes two files as the output `features`.
    pub(crate) fn publish(store: &Store, manifest: &Manifest, content: &str, seconds: f64) -> Result<Published> {
        let draft = store.draft()?;
        let [table, card] = ["table.bin", "card.json"].map(|name| draft.path().join(name));
        files::write(&table, content).unwrap();
        files::write(&card, format!("{{\"says\": \"{content}\"}}")).unwrap();
        let output = store.publish_output(
            "features",
            &[
                NewFile { name: "table.bin", path: &table, logical: Some(Digest::of(content.trim().as_bytes())) },
                NewFile { name: "card.json", path: &card, logical: None },
            ],
        )?;
        let facts = Provenance { seconds, threads: 2, ..Provenance::default() };
        store.publish(manifest, BTreeMap::from([("features".to_owned(), output)]), facts)
    }

    /// The folder for checkpoints of an attempt that has ended.
    pub(crate) fn begun(store: &Store, manifest: &Manifest) -> PathBuf {
        let lock = store.try_lock_stage(&manifest.key(), "digits/cluster").unwrap().unwrap();
        store.scratch(manifest, &lock).unwrap()
    }

    /// Gives a record the form of those whose inputs nobody compared.
    pub(crate) fn age(store: &Store, key: &Key) {
        let Found::Whole(record) = store.record(key).unwrap() else { panic!("no record") };
        let old = Record { format: 1, ..record };
        files::write(store.record_path(key), serde_json::to_vec_pretty(&old).unwrap()).unwrap();
    }

    pub(crate) fn whole(store: &Store, manifest: &Manifest) -> Record {
        match store.lookup(&manifest.key()).unwrap() {
            Lookup::Hit(record) => record,
            other => panic!("expected a hit, got {other:?}"),
        }
    }

    #[test]
    fn what_was_published_is_found_again_and_what_was_not_is_not() {
        let (dir, store) = new_store();
        assert_eq!(store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
        let work = begun(&store, &manifest(1));
        let published = publish(&store, &manifest(1), "one", 3.5).unwrap();
        assert!(!published.adopted && !published.differed);
        assert!(!work.exists(), "the checkpoints of a finished stage are removed");
        let found = whole(&Store::open_existing(dir.path()).unwrap(), &manifest(1));
        assert_eq!(found, published.record);
        assert_eq!((found.seconds, found.threads, found.bytes()), (3.5, 2, 3 + 15));
        assert_eq!(store.lookup(&manifest(2).key()).unwrap(), Lookup::Miss);
        assert_eq!(store.keys().unwrap(), [manifest(1).key()]);
        assert_eq!(store.manifest("scan", &manifest(1).key()).unwrap(), Some(manifest(1)));
        assert!(fs::list(&store.tmp()).unwrap().is_empty());
    }

    #[test]
    fn the_digest_for_the_stages_below_is_of_what_files_say() {
        let (_dir, store) = new_store();
        let output = |text: &str| {
            let draft = store.draft().unwrap();
            let path = draft.path().join("t");
            files::write(&path, text).unwrap();
            let file = NewFile { name: "t", path: &path, logical: Some(Digest::of(text.trim().as_bytes())) };
            store.publish_output("features", &[file]).unwrap()
        };
        let [a, b, c] = ["x", "x ", "y"].map(output);
        assert_ne!(a.files[0].blob, b.files[0].blob);
        assert_eq!(a.content, b.content);
        assert_ne!(a.content, c.content);
    }

    #[test]
    fn the_first_result_wins_and_a_different_second_one_is_reported() {
        let (_dir, store) = new_store();
        let first = publish(&store, &manifest(1), "one", 1.0).unwrap();
        let same = publish(&store, &manifest(1), "one", 2.0).unwrap();
        assert_eq!((same.adopted, same.differed, &same.record), (true, false, &first.record));
        let other = publish(&store, &manifest(1), "two", 3.0).unwrap();
        assert_eq!((other.adopted, other.differed, &other.record), (true, true, &first.record));
        assert_eq!(whole(&store, &manifest(1)), first.record);
    }

    #[test]
    fn a_result_whose_inputs_nobody_compared_is_replaced_when_the_stage_runs_again() {
        let (_dir, store) = new_store();
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        age(&store, &manifest(1).key());
        let again = publish(&store, &manifest(1), "two", 1.0).unwrap();
        assert!(!again.adopted && !again.differed);
        assert_eq!(whole(&store, &manifest(1)), again.record);
    }

    #[test]
    fn of_many_at_once_one_wins_and_all_adopt_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(dir.path()).unwrap());
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || publish(&store, &manifest(1), &format!("result {i}"), 1.0).unwrap())
            })
            .collect();
        let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(results.iter().filter(|result| !result.adopted).count(), 1);
        assert_eq!(results.iter().filter(|result| result.differed).count(), 7);
        let holds = whole(&store, &manifest(1));
        assert!(results.iter().all(|result| result.record == holds));
    }

    #[test]
    fn a_missing_or_short_blob_is_damage_and_running_again_heals() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let path = store.blob_path(&record.outputs["features"].files[0].blob);

        files::remove_file(&path).unwrap();
        let missing = "`table.bin` of its output `features` is missing".to_owned();
        assert_eq!(store.lookup(&manifest(1).key()).unwrap(), Lookup::Damaged(missing));
        assert!(!publish(&store, &manifest(1), "one", 1.0).unwrap().differed);
        whole(&store, &manifest(1));

        files::remove_file(&path).unwrap();
        files::write(&path, "on").unwrap();
        let short = "`table.bin` of its output `features` has 2 bytes instead of 3".to_owned();
        assert_eq!(store.lookup(&manifest(1).key()).unwrap(), Lookup::Damaged(short));
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        whole(&store, &manifest(1));
    }

    #[test]
    fn a_damaged_result_is_replaced_by_one_that_says_something_else() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        files::remove_file(store.blob_path(&record.outputs["features"].files[0].blob)).unwrap();
        let healed = publish(&store, &manifest(1), "two", 1.0).unwrap();
        assert!(!healed.adopted);
        assert_eq!(whole(&store, &manifest(1)), healed.record);
    }

    #[test]
    fn a_record_that_is_not_what_its_name_promises_is_damage() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let path = store.record_path(&record.key);
        let good = files::read_to_string(&path).unwrap();
        let why = |text: &str| {
            files::write(&path, text).unwrap();
            match store.lookup(&record.key).unwrap() {
                Lookup::Damaged(why) => {
                    why.strip_prefix("its record is damaged (").unwrap().strip_suffix(')').unwrap().to_owned()
                }
                other => panic!("{text}: {other:?}"),
            }
        };
        why("");
        why(&good[..good.len() / 2]);
        assert_eq!(why(&good.replace("\"format\": 2", "\"format\": 1")), "its bytes have changed");
        assert_eq!(why(&good.replace("{\n  \"digest\"", "{\n  \"digets\"")), "its digest is missing");
        assert_eq!(why(&good.replace("{\n", "{ \n")), "its digest is missing");
        files::write(&path, &good).unwrap();
        whole(&store, &manifest(1));
        // What a record says has to be right without a digest too.
        age(&store, &record.key);
        let old = files::read_to_string(&path).unwrap();
        whole(&store, &manifest(1));
        let other = manifest(2).key();
        assert_eq!(why(&old.replace(&record.key.hex(), &other.hex())), format!("it belongs to the key {}", other.short()));
        assert!(why(&old.replace("card.json", "../../card.json")).contains("cannot name a file"));
        let content = record.outputs["features"].content;
        assert_eq!(
            why(&old.replace(&content.hex(), &Digest::of(b"another").hex())),
            "the digest of its output `features` does not match the digests of the files"
        );
    }

    #[test]
    fn every_changed_bit_of_a_record_is_damage() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let good = files::read(store.record_path(&record.key)).unwrap();
        assert_eq!(check(&good, &record.key), Ok(Found::Whole(record.clone())));
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                let found = check(&bad, &record.key);
                assert!(found.is_err(), "bit {bit} of byte {at}: {found:?}");
            }
        }
        for bad in [[&good[..], b"\n"].concat(), [b" ", &good[..]].concat(), good[..good.len() - 1].to_vec()] {
            assert!(check(&bad, &record.key).is_err());
        }
    }

    #[test]
    fn a_record_of_a_newer_form_is_refused_and_left_as_it_is() {
        let (_dir, store) = new_store();
        let key = manifest(1).key();
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        let path = store.record_path(&key);
        let today = serde_json::to_vec_pretty(&whole(&store, &manifest(1))).unwrap();
        let tomorrow = String::from_utf8(today).unwrap().replace("\"format\": 2", "\"format\": 3");
        for text in [r#"{"format": 99}"#, &tomorrow] {
            files::write(&path, text).unwrap();
            let refused = [store.lookup(&key).unwrap_err(), publish(&store, &manifest(1), "one", 1.0).unwrap_err()];
            for error in refused {
                assert_eq!((error.code(), error.exit()), ("store::newer", Exit::Store));
                assert!(error.to_string().contains(&key.hex()), "{error}");
            }
            assert_eq!(files::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_is_no_file_in_the_place_of_a_record_or_blob_is_damage_and_running_again_heals() {
        let (_dir, store) = new_store();
        let record = publish(&store, &manifest(1), "one", 1.0).unwrap().record;
        let mut places = vec![store.record_path(&record.key)];
        places.extend(record.files().map(|(_, file)| store.blob_path(&file.blob)));
        for place in places {
            for what in ["folder", "full folder", "pipe", "dangling link", "link to itself"] {
                files::remove_file(&place).unwrap();
                match what {
                    "pipe" => assert!(std::process::Command::new("mkfifo").arg(&place).status().unwrap().success()),
                    "dangling link" => std::os::unix::fs::symlink("nowhere", &place).unwrap(),
                    "link to itself" => std::os::unix::fs::symlink(&place, &place).unwrap(),
                    _ => files::create_dir(&place).unwrap(),
                }
                if what == "full folder" {
                    files::write(place.join("mine"), "mine").unwrap();
                }
                let found = store.lookup(&record.key).unwrap();
                assert!(matches!(found, Lookup::Damaged(_) | Lookup::Miss), "{what} at {}: {found:?}", place.display());
                if let (Lookup::Damaged(why), "dangling link") = (&found, what) {
                    assert!(why.ends_with("is a link to what is not there"), "{why}");
                }
                publish(&store, &manifest(1), "one", 1.0).unwrap();
                whole(&store, &manifest(1));
            }
        }
        let kept = fs::list(&store.root().join("aside")).unwrap();
        assert_eq!(kept.len(), 3);
        assert!(kept.iter().all(|folder| files::read(folder.join("mine")).unwrap() == b"mine"));
        // A file where the folder of records should be.
        let shard = store.record_path(&record.key).parent().unwrap().to_path_buf();
        files::remove_dir_all(&shard).unwrap();
        files::write(&shard, "mine").unwrap();
        assert_eq!(store.lookup(&record.key).unwrap(), Lookup::Miss);
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        whole(&store, &manifest(1));
    }

    #[test]
    fn records_of_format_1_can_be_read_for_ever() {
        let [key, blob, logical] = ["a", "b", "c"].map(|digit| digit.repeat(64));
        let text = format!(
            r#"{{"format": 1, "key": "{key}", "kind": "embed", "version": 3, "seconds": 12.5, "finished": 1795301409.25,
                "outputs": {{"features": {{"kind": "features", "content": "{logical}", "files": [
                    {{"name": "features.parquet", "blob": "{blob}", "logical": "{logical}", "size": 1234}},
                    {{"name": "card.json", "blob": "{blob}", "size": 5}}]}}}},
                "crate_version": "0.1.0", "threads": 2, "host": "node7", "notes": {{"device": "cpu"}}}}"#
        );
        let content =
            content_digest("features", [("features.parquet", logical.parse().unwrap()), ("card.json", blob.parse().unwrap())]);
        let text = text.replace(&format!("\"content\": \"{logical}\""), &format!("\"content\": \"{content}\""));
        let Found::Whole(record) = check(text.as_bytes(), &key.parse().unwrap()).unwrap() else { panic!("it is whole") };
        let files = &record.outputs["features"].files;
        assert_eq!((record.bytes(), files[0].content().hex(), files[1].content().hex()), (1239, logical, blob));
        let again = check(&serde_json::to_vec_pretty(&record).unwrap(), &record.key).unwrap();
        assert_eq!(again, Found::Whole(record));
    }

    #[test]
    fn a_record_never_names_a_blob_that_is_not_there() {
        let (_dir, store) = new_store();
        let file = StoredFile { name: "x".into(), blob: Digest::of(b"x"), logical: None, size: 1 };
        let output = StoredOutput { kind: "features".into(), content: Digest::of(b"x"), files: vec![file] };
        let outputs = BTreeMap::from([("features".to_owned(), output)]);
        assert!(store.publish(&manifest(1), outputs, Provenance::default()).is_err());
        assert_eq!(store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
    }

    #[test]
    fn a_forgotten_result_runs_again() {
        let (_dir, store) = new_store();
        publish(&store, &manifest(1), "one", 1.0).unwrap();
        store.forget(&manifest(1).key()).unwrap();
        store.forget(&manifest(1).key()).unwrap();
        assert_eq!(store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
    }
}
