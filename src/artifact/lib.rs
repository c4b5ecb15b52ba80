//! # kinset-artifact: the files that stages exchange
//!
//! What flows between stages. One file per kind: [`images`] and [`labels`] come in, [`encoder`] holds networks (encoder and
//! classifier), [`features`], [`neighbors`] and [`assignments`] are made from them, [`matches`](mod@matches) and [`selection`] say which images
//! of a pool are taken, [`duplicates`] and [`outliers`] which images stand out, [`near_duplicates`] which ones several sets share,
//! [`curve`] tells how a training went, [`k_table`]
//! how numbers of clusters compare, [`levels`] how a pool was divided, [`groups`] what a person calls clusters, [`probe`] is a classifier
//! fitted to labels, [`distribution`] counts classes, and [`scores`] tell how well it ended. Labels, groups, probes, distributions and
//! scores carry ground truth; nothing else does ([`LabelFree`]).
//!
//! Each kind is checked when it is written and again when it is read. Tables are Parquet ([`mod@parquet`], the only place that
//! knows the format) and say what they are under the key `kinset` ([`meta`]) and where they come from ([`origin`]); pictures are
//! decoded by [`image_codec`].
//!
//! Not here: where files lie (`store`), raw data in the formats of the field (`dataset`).

#![forbid(unsafe_code)]

/// Makes a type an artifact: the word for it, its files (the main one first), and whether it is free of ground truth.
macro_rules! artifact {
    ($type:ident, $kind:literal, $files:expr, label_free) => {
        artifact!(@ $type, $kind, $files, true);
        impl $crate::LabelFree for $type {}
    };
    ($type:ident, $kind:literal, $files:expr, ground_truth) => { artifact!(@ $type, $kind, $files, false); };
    (@ $type:ident, $kind:literal, $files:expr, $label_free:literal) => {
        impl $crate::Artifact for $type {
            const KIND: &'static str = $kind;
            const FILES: &'static [&'static str] = &$files;
            const LABEL_FREE: bool = $label_free;
        }
    };
}

pub mod assignments;
mod catch_panic;
pub mod curve;
mod decode_memory;
pub mod distribution;
pub mod duplicates;
mod edges;
pub mod encoder;
pub mod error;
pub mod features;
pub mod graph;
pub mod groups;
pub mod image_codec;
pub mod images;
pub mod k_table;
pub mod labels;
pub mod levels;
pub mod matches;
pub mod meta;
pub mod near_duplicates;
pub mod neighbors;
pub mod origin;
pub mod outliers;
pub mod parquet;
pub mod picture_facts;
pub mod pixels;
pub mod probe;
pub mod scores;
pub mod selection;
mod table;
#[doc(hidden)]
pub mod testing;
mod tiff_page;
mod vit_config;

#[cfg(test)]
mod tests;

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

pub use kinset_store::record::content_digest;

use kinset_store::digest::Digest;

/// A kind of thing that flows between stages: a fixed set of files that mean something together.
pub trait Artifact: Sized + 'static {
    /// The word for it in plans and records: `features`.
    const KIND: &'static str;
    /// The files it consists of, the main one first.
    const FILES: &'static [&'static str];
    /// False for what holds ground truth or was measured against it.
    const LABEL_FREE: bool;
}

/// An artifact without a trace of ground truth: the only kind a method may read or write.
#[diagnostic::on_unimplemented(
    message = "`{Self}` carries ground truth, and ground truth never reaches a method",
    note = "only steps such as `evaluate` read labels or scores, and what they write is marked likewise"
)]
pub trait LabelFree: Artifact {}

/// An artifact in the store: which one it is, and where its files lie.
#[derive(Debug)]
pub struct Stored<A> {
    files: Vec<PathBuf>,
    digest: Digest,
    origin: String,
    kind: PhantomData<A>,
}

impl<A> Clone for Stored<A> {
    fn clone(&self) -> Self {
        Self { files: self.files.clone(), digest: self.digest, origin: self.origin.clone(), kind: PhantomData }
    }
}

impl<A: Artifact> Stored<A> {
    /// Names files as an artifact. `files` stand in the order of [`Artifact::FILES`]; `origin` is the stage it came from, for
    /// messages.
    ///
    /// # Panics
    /// If the number of files is not the kind's.
    pub fn new(files: Vec<PathBuf>, digest: Digest, origin: impl Into<String>) -> Self {
        assert_eq!(files.len(), A::FILES.len(), "{} consists of {:?}", A::KIND, A::FILES);
        Self { files, digest, origin: origin.into(), kind: PhantomData }
    }

    /// The path of one of its files.
    ///
    /// # Panics
    /// If the kind has no file of this name.
    pub fn file(&self, name: &str) -> &Path {
        let index = A::FILES.iter().position(|file| *file == name);
        &self.files[index.unwrap_or_else(|| panic!("{} has no file `{name}`", A::KIND))]
    }

    /// The digest of its content: equal digests, equal content.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The stage it came from, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

#[derive(Clone, Debug)]
pub struct DraftFile {
    /// Its name, one of [`Artifact::FILES`].
    pub name: &'static str,
    pub path: PathBuf,
    /// The digest of its content, where that is not the digest of its bytes (Parquet).
    pub logical: Option<Digest>,
}

/// An artifact that was just written and is not in the store yet.
#[derive(Clone, Debug)]
pub struct Draft<A> {
    /// Its files, in the order of [`Artifact::FILES`].
    pub files: Vec<DraftFile>,
    kind: PhantomData<A>,
}

impl<A: Artifact> Draft<A> {
    /// Names files that were just written as an artifact.
    ///
    /// # Panics
    /// If names or order are not the kind's.
    pub fn new(files: Vec<DraftFile>) -> Self {
        let names: Vec<_> = files.iter().map(|file| file.name).collect();
        assert_eq!(names, A::FILES, "{} consists of {:?}", A::KIND, A::FILES);
        Self { files, kind: PhantomData }
    }
}
