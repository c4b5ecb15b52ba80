//! The [`Remote`]: the names of its objects, and its records.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kinset_store::key::{Key, Manifest};
use kinset_store::record::{self, NotThisRecord, Record};
use kinset_store::{digest::Digest, manifests};

use super::address::Address;
use super::error::{RemoteError, Result};
use super::objects::{Objects, Trouble};

/// A store elsewhere. Shared between threads by reference.
pub struct Remote {
    pub(super) objects: Box<dyn Objects>,
    address: Address,
    /// Objects that were found to be other than they should be: whoever has them whole replaces them.
    damaged: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.address)
    }
}

pub(super) const RECORDS: &str = "records";
pub(super) const BLOBS: &str = "blobs";
pub(super) const MANIFESTS: &str = "manifests";

pub(super) fn record_name(key: &Key) -> String {
    let hex = key.hex();
    format!("{RECORDS}/{}/{hex}.json", &hex[..2])
}

pub(super) fn blob_name(blob: &Digest) -> String {
    let hex = blob.hex();
    format!("{BLOBS}/{}/{hex}", &hex[..2])
}

pub(super) fn manifest_name(kind: &str, key: &Key) -> String {
    format!("{MANIFESTS}/{kind}/{key}.json")
}

impl Remote {
    /// The store at an address. Nobody is asked yet. Silence longer than `patience` is taken for the end of a connection.
    ///
    /// # Errors
    /// [`RemoteError::NotBuilt`]; what the environment says of credentials and cannot be understood.
    #[cfg(feature = "object-store")]
    pub fn open(address: &Address, patience: Duration) -> Result<Self> {
        let objects = super::cloud::Cloud::open(address, patience).map_err(|trouble| told(address, trouble))?;
        Ok(Self::over(Box::new(objects), address.clone()))
    }

    /// The store at an address, if this kinset could talk to it.
    ///
    /// # Errors
    /// [`RemoteError::NotBuilt`], always.
    #[cfg(not(feature = "object-store"))]
    pub fn open(address: &Address, _patience: Duration) -> Result<Self> {
        Err(RemoteError::NotBuilt { url: address.to_string() })
    }

    /// A store of these objects.
    pub fn over(objects: Box<dyn Objects>, address: Address) -> Self {
        Self { objects, address, damaged: Mutex::default() }
    }

    /// True if this kinset was built to talk to remote stores.
    pub fn is_built() -> bool {
        cfg!(feature = "object-store")
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn told(&self, trouble: Trouble) -> RemoteError {
        told(&self.address, trouble)
    }

    /// Remembers an object that is not what it should be, and says so.
    pub(super) fn damage(&self, object: String, why: impl Into<String>) -> RemoteError {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(object.clone());
        RemoteError::Damaged { object, why: why.into() }
    }

    pub(super) fn is_known_to_be_damaged(&self, object: &str) -> bool {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).contains(object)
    }

    pub(super) fn is_whole_again(&self, object: &str) {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).remove(object);
    }

    /// Asks for what certainly is not there: whoever answers that lets us read.
    ///
    /// # Errors
    /// If nobody answers, or reading is not allowed.
    pub fn probe(&self) -> Result<()> {
        self.small(&record_name(&Manifest::new("probe", 0, &()).map_err(RemoteError::from)?.key()), 1).map(drop)
    }

    /// A small object, if it is there.
    pub(super) fn small(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let there = self.objects.read(name, &mut |piece| {
            bytes.extend_from_slice(piece);
            if bytes.len() as u64 > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match there.map_err(|trouble| self.told(trouble))? {
            true if bytes.len() as u64 > most => Err(self.damage(name.to_owned(), "it is too large")),
            there => Ok(there.then_some(bytes)),
        }
    }

    /// The record of a manifest's key; its blobs are not looked at.
    ///
    /// # Errors
    /// [`RemoteError::Damaged`], [`RemoteError::Newer`]; if nobody answers.
    pub fn record(&self, manifest: &Manifest) -> Result<Option<Record>> {
        self.record_as(&manifest.key(), |bytes| Record::read(bytes, manifest))
    }

    /// The record of a key, whatever its kind.
    pub(super) fn record_of(&self, key: &Key) -> Result<Option<Record>> {
        self.record_as(key, |bytes| Record::read_any(bytes, key))
    }

    /// The record of a key, and what it was computed from; its blobs are not looked at.
    ///
    /// # Errors
    /// [`RemoteError::Damaged`] if one is there without the other, or is not what it should be; [`RemoteError::Newer`]; if nobody answers.
    pub fn whole(&self, key: &Key) -> Result<Option<(Record, Manifest)>> {
        let Some(record) = self.record_of(key)? else { return Ok(None) };
        let manifest = self.manifest(&record)?;
        let missing = || RemoteError::Damaged { object: manifest_name(&record.kind, key), why: "it is not there".into() };
        let manifest = manifest.ok_or_else(missing)?;
        Ok(Some((record, manifest)))
    }

    fn record_as(
        &self,
        key: &Key,
        read: impl FnOnce(&[u8]) -> std::result::Result<Record, NotThisRecord>,
    ) -> Result<Option<Record>> {
        let name = record_name(key);
        let Some(bytes) = self.small(&name, record::LARGEST)? else { return Ok(None) };
        match read(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(NotThisRecord::Newer(format)) => Err(RemoteError::Newer { object: name, format }),
            Err(other) => Err(self.damage(name, other.to_string())),
        }
    }

    fn manifest(&self, record: &Record) -> Result<Option<Manifest>> {
        let name = manifest_name(&record.kind, &record.key);
        let Some(bytes) = self.small(&name, manifests::LARGEST)? else { return Ok(None) };
        match manifests::manifest_of(&bytes, Path::new(&name), &record.key) {
            Ok(manifest) if manifest.key() == record.key => Ok(Some(manifest)),
            Ok(_) => Err(self.damage(name, "it is not what its key was made of")),
            Err(kinset_store::StoreError::Newer { found, .. }) => Err(RemoteError::Newer { object: name, format: found }),
            Err(error) => Err(self.damage(name, error.to_string())),
        }
    }

    /// All keys with a record, each with when it was written: seconds since 1970, UTC.
    ///
    /// # Errors
    /// [`RemoteError::NoList`] of a web server; if nobody answers.
    pub fn keys(&self) -> Result<BTreeMap<Key, f64>> {
        let found = self.list(RECORDS)?.into_iter();
        Ok(found.filter_map(|(name, object)| Some((key_of(&name)?, object.changed))).collect())
    }

    pub(super) fn list(&self, folder: &str) -> Result<Vec<(String, super::objects::Object)>> {
        if self.address.scheme.is_web() {
            return Err(RemoteError::NoList { url: self.address.to_string() });
        }
        self.objects.list(folder).map_err(|trouble| self.told(trouble))
    }

    /// Refuses to write where only reading is possible.
    ///
    /// # Errors
    /// [`RemoteError::ReadOnly`].
    pub fn writable(&self) -> Result<()> {
        if self.address.scheme.is_web() {
            return Err(RemoteError::ReadOnly { url: self.address.to_string() });
        }
        Ok(())
    }
}

fn told(address: &Address, trouble: Trouble) -> RemoteError {
    let url = address.to_string();
    match trouble {
        Trouble::Unreachable(why) => RemoteError::Unreachable { url, why },
        Trouble::Refused(why) => RemoteError::Refused { url, why },
        Trouble::Here(error) => RemoteError::File(error),
    }
}

/// The key of a record's name, or of a manifest's.
pub(super) fn key_of(name: &str) -> Option<Key> {
    name.rsplit('/').next()?.strip_suffix(".json")?.parse().ok()
}
