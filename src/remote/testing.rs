//! Places and machines for tests: objects in memory that fail on request, and local stores.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock, Mutex};

use kinset_base::stop::Stop;
use kinset_store::Store;
use kinset_store::blob::NewFile;
use kinset_store::digest::Digest;
use kinset_store::key::Manifest;
use kinset_store::record::{Lookup, Provenance, Record};

use crate::error::Result;
use crate::objects::{Object, Objects, Trouble};
use crate::push::Pushed;
use crate::{Remote, Work};

static NEVER: LazyLock<Stop> = LazyLock::new(Stop::default);

/// Nobody listens, and nobody stops it.
pub(crate) fn quietly() -> Work<'static> {
    Work { stop: &NEVER, moved: &|_| {} }
}

/// Objects in memory.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Vec<u8>, f64)>,
    written: Vec<String>,
    calls: u64,
    fails_after: Option<u64>,
    now: f64,
}

impl Memory {
    fn call<T>(&self, act: impl FnOnce(&mut State) -> T) -> std::result::Result<T, Trouble> {
        let mut state = self.0.lock().unwrap();
        state.calls += 1;
        match &mut state.fails_after {
            Some(0) => return Err(Trouble::Unreachable("it was told to fail".into())),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(act(&mut state))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.lock().unwrap().objects[name].0.clone()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap();
        let now = state.now;
        state.objects.insert(name.to_owned(), (bytes.to_vec(), now));
    }

    pub(crate) fn take(&self, name: &str) {
        self.0.lock().unwrap().objects.remove(name).unwrap();
    }

    /// The names that were written, in order.
    pub(crate) fn written(&self) -> Vec<String> {
        self.0.lock().unwrap().written.clone()
    }

    pub(crate) fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    /// Lets so many calls pass, and fails from then on.
    pub(crate) fn fail_after(&self, calls: u64) {
        self.0.lock().unwrap().fails_after = Some(calls);
    }

    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().fails_after = None;
    }

    pub(crate) fn set_clock(&self, now: f64) {
        self.0.lock().unwrap().now = now;
    }
}

impl Objects for Memory {
    fn look(&self, name: &str) -> std::result::Result<Option<Object>, Trouble> {
        self.call(|state| {
            state.objects.get(name).map(|(bytes, changed)| Object { size: bytes.len() as u64, changed: *changed })
        })
    }

    fn read(&self, name: &str, take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> std::result::Result<bool, Trouble> {
        let Some(bytes) = self.call(|state| state.objects.get(name).map(|(bytes, _)| bytes.clone()))? else { return Ok(false) };
        for piece in bytes.chunks(2) {
            if take(piece).is_break() {
                break;
            }
        }
        Ok(true)
    }

    fn create(&self, name: &str, content: &[u8]) -> std::result::Result<bool, Trouble> {
        self.call(|state| {
            let is_new = !state.objects.contains_key(name);
            if is_new {
                state.objects.insert(name.to_owned(), (content.to_vec(), state.now));
                state.written.push(name.to_owned());
            }
            is_new
        })
    }

    fn replace(&self, name: &str, content: &[u8]) -> std::result::Result<(), Trouble> {
        self.call(|state| {
            state.objects.insert(name.to_owned(), (content.to_vec(), state.now));
            state.written.push(name.to_owned());
        })
    }

    fn upload(
        &self,
        name: &str,
        from: &mut dyn Read,
        size: u64,
        going: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> std::result::Result<bool, Trouble> {
        let mut content = Vec::new();
        from.read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, size);
        if going(size).is_break() {
            return Ok(false);
        }
        self.replace(name, &content).map(|()| true)
    }

    fn list(&self, folder: &str) -> std::result::Result<Vec<(String, Object)>, Trouble> {
        let below = format!("{folder}/");
        self.call(|state| {
            let found = state.objects.iter().filter(|(name, _)| name.starts_with(&below));
            found
                .map(|(name, (bytes, changed))| (name.clone(), Object { size: bytes.len() as u64, changed: *changed }))
                .collect()
        })
    }

    fn remove(&self, name: &str) -> std::result::Result<(), Trouble> {
        self.call(|state| drop(state.objects.remove(name)))
    }
}

/// A remote store, and what lies in it.
pub(crate) struct Place {
    pub(crate) remote: Remote,
    pub(crate) objects: Memory,
}

impl Place {
    pub(crate) fn at(url: &str) -> Self {
        let objects = Memory::default();
        Self { remote: Remote::over(Box::new(objects.clone()), url.parse().unwrap()), objects }
    }

    pub(crate) fn push(&self, machine: &Machine, number: u32) -> Result<Pushed> {
        self.remote.push(&machine.store, &manifest(number).key(), quietly())
    }
}

/// A local store.
pub(crate) struct Machine {
    pub(crate) store: Store,
    _folder: tempfile::TempDir,
}

pub(crate) fn manifest(number: u32) -> Manifest {
    Manifest::new("scan", 1, &BTreeMap::from([("epochs", number)])).unwrap()
}

impl Machine {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: Store::open(folder.path()).unwrap(), _folder: folder }
    }

    /// Publishes a result of two files.
    pub(crate) fn compute(&self, number: u32, says: &str) -> Record {
        let draft = self.store.draft().unwrap();
        let files = ["table.bin", "card.json"].map(|name| (name, draft.path().join(name)));
        for (name, path) in &files {
            std::fs::write(path, format!("{name} says {says}")).unwrap();
        }
        let files = files.each_ref().map(|(name, path)| NewFile { name, path, logical: None });
        let output = self.store.publish_output("features", &files).unwrap();
        let outputs = BTreeMap::from([("features".to_owned(), output)]);
        self.store.publish(&manifest(number), outputs, Provenance::default()).unwrap().record
    }

    pub(crate) fn whole(&self, number: u32) -> Record {
        match self.store.lookup(&manifest(number).key()).unwrap() {
            Lookup::Hit(record) => record,
            other => panic!("expected a hit, got {other:?}"),
        }
    }

    /// Changes a byte of a blob behind the back of the store.
    pub(crate) fn damage_blob(&self, blob: &Digest) {
        let path = self.store.blob_path(blob);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[0] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
}

/// A remote store, and two machines.
pub(crate) fn three() -> (Place, Machine, Machine) {
    (Place::at("s3://bucket/team"), Machine::new(), Machine::new())
}
