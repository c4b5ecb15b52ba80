//! Records: the blobs of every output of a key, their content digests, and what it cost to compute them.
//!
//! It is written last and in one step, so a record that is there is complete. The first one published wins: who comes later
//! adopts it, even if the two disagree (sums on a GPU); otherwise two equal runs would feed different data to the stages below.
//! A lookup that finds a blob missing or cut short is no hit: the stage runs again and its result replaces the record.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::digest::{Digest, Hasher};
use super::disk::{entries, stat};
use super::error::{Result, StoreError};
use super::key::{Key, Manifest};
use super::layout::{Store, checked_name};
use kinset_base::clock;
use kinset_base::fs;

/// The form of records.
pub const FORMAT: u32 = 1;

/// A record larger than this is none.
const LARGEST: u64 = 16 << 20;

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

#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// A record, and every blob is there with its size.
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
    /// What is known of a key. Reads one small file and looks at each blob's size; opens nothing else and writes nothing.
    ///
    /// # Errors
    /// If the file system fails; a damaged result is no error.
    pub fn lookup(&self, key: &Key) -> Result<Lookup> {
        let record = match self.record(key)? {
            None => return Ok(Lookup::Miss),
            Some(Err(damage)) => return Ok(Lookup::Damaged(damage)),
            Some(Ok(record)) => record,
        };
        Ok(match self.missing_from(&record.outputs)? {
            Some(damage) => Lookup::Damaged(damage),
            None => Lookup::Hit(record),
        })
    }

    /// The first blob that is not there with its size, in words.
    pub(super) fn missing_from(&self, outputs: &BTreeMap<String, StoredOutput>) -> Result<Option<String>> {
        for (output, stored) in outputs {
            for StoredFile { name, blob, size, .. } in &stored.files {
                match stat(&self.blob_path(blob))?.filter(Metadata::is_file).map(|found| found.len()) {
                    Some(found) if found == *size => {}
                    Some(found) => {
                        return Ok(Some(format!("`{name}` of its output `{output}` has {found} bytes instead of {size}")));
                    }
                    None => return Ok(Some(format!("`{name}` of its output `{output}` is missing"))),
                }
            }
        }
        Ok(None)
    }

    /// Publishes a result: manifest, then record; the private work folder of the key is removed. If a whole record was there
    /// before, it is adopted and ours forgotten; a damaged one is replaced.
    ///
    /// # Errors
    /// If the store cannot be written, or a blob of `outputs` is not there ([`Store::publish_output`] comes first).
    pub fn publish(
        &self,
        manifest: &Manifest,
        outputs: BTreeMap<String, StoredOutput>,
        facts: Provenance,
    ) -> Result<Published> {
        let key = manifest.key();
        let path = self.record_path(&key);
        self.writable()?;
        if let Some(damage) = self.missing_from(&outputs)? {
            return Err(StoreError::Damaged { path: path.display().to_string(), why: damage });
        }
        let ours = Record {
            format: FORMAT,
            key,
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
        self.save_manifest(manifest, &key)?;
        let text = serde_json::to_vec_pretty(&ours).map_err(|source| StoreError::Encode { what: "a record", source })?;
        let published = if self.write_new(&path, &text)? {
            Published { record: ours, adopted: false, differed: false }
        } else if let Lookup::Hit(theirs) = self.lookup(&key)? {
            let differed = !same_content(&ours, &theirs);
            Published { record: theirs, adopted: true, differed }
        } else {
            self.replace(&path, &text)?;
            Published { record: ours, adopted: false, differed: false }
        };
        self.writing(fs::At::at(self.fail.pass("record durable"), "publish", &path))?;
        self.remove_scratch(&key)?;
        Ok(published)
    }

    /// Forgets the result of a key, so that it runs again; its blobs stay until `gc`. Nothing there is fine too.
    pub fn forget(&self, key: &Key) -> Result<()> {
        self.writable()?;
        self.writing(fs::remove(&self.record_path(key)))
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

    /// The record of a key, if there is one that can be read; its blobs are not looked at.
    pub fn record(&self, key: &Key) -> Result<Option<std::result::Result<Record, String>>> {
        let found = match fs::read_at_most(&self.record_path(key), LARGEST) {
            Ok(bytes) => check(&bytes, key),
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) if error.source.kind() == std::io::ErrorKind::Other => Err(error.source.to_string()),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(found.map_err(|why| format!("its record is damaged ({why})"))))
    }
}

fn same_content(a: &Record, b: &Record) -> bool {
    let content = |record: &Record| -> Vec<(String, Digest)> {
        record.outputs.iter().map(|(name, output)| (name.clone(), output.content)).collect()
    };
    content(a) == content(b)
}

/// Reads a record, checks that it belongs to the key, and that its names stay inside their folder.
fn check(bytes: &[u8], key: &Key) -> std::result::Result<Record, String> {
    #[derive(Deserialize)]
    struct Form {
        format: u32,
    }
    let Form { format } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if format != FORMAT {
        return Err(format!("it has format {format}, this program reads {FORMAT}"));
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
    Ok(record)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs as files;
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::blob::NewFile;

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
        let work = store.scratch(&manifest(1).key()).unwrap();
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
        assert_eq!(why(&good.replace("\"format\": 1", "\"format\": 2")), "it has format 2, this program reads 1");
        let other = manifest(2).key();
        assert_eq!(why(&good.replace(&record.key.hex(), &other.hex())), format!("it belongs to the key {}", other.short()));
        assert!(why(&good.replace("card.json", "../../card.json")).contains("cannot name a file"));
        files::write(&path, good).unwrap();
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
        let record = check(text.as_bytes(), &key.parse().unwrap()).unwrap();
        let files = &record.outputs["features"].files;
        assert_eq!((record.bytes(), files[0].content().hex(), files[1].content().hex()), (1239, logical, blob));
        let again = check(&serde_json::to_vec_pretty(&record).unwrap(), &record.key).unwrap();
        assert_eq!(again, record);
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
