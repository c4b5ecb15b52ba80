//! What the tests of this room share.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails says where")]

use super::error::Result;
use super::meta::Meta;
use super::parquet::{Column, TableWriter};
use super::{Artifact, Draft, Stored};
use kinset_store::digest::Digest;

/// A draft as if the store had taken it.
pub fn stored<A: Artifact>(draft: &Draft<A>) -> Stored<A> {
    Stored::new(draft.files.iter().map(|file| file.path.clone()).collect(), Digest::of(b"test"), "test")
}

/// The message with which a table of any content is refused.
pub fn refused<A: Artifact, T>(load: impl Fn(&Stored<A>) -> Result<T>, meta: Meta, columns: Vec<(&str, Column)>) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(A::FILES[0]);
    let schema: Vec<_> = columns.iter().map(|(name, column)| (*name, column.kind())).collect();
    let mut writer = TableWriter::create(&path, &schema, meta).unwrap();
    writer.write(columns.into_iter().map(|(_, column)| column).collect()).unwrap();
    writer.finish().unwrap();
    match load(&Stored::new(vec![path], Digest::of(b"test"), "test")) {
        Ok(_) => panic!("the table was believed"),
        Err(e) => e.to_string(),
    }
}
