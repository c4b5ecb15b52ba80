//! Pulling: a result of the remote store becomes one of the local store.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::ControlFlow;

use kinset_base::fs::{self, At, FileError};
use kinset_base::stop::Stopped;
use kinset_store::Store;
use kinset_store::digest::{Digest, Hasher};
use kinset_store::key::Manifest;
use kinset_store::record::{Record, StoredFile};

use super::error::{RemoteError, Result};
use super::remote::{Remote, blob_name};
use super::work::{Work, side_by_side};

/// A result that was brought here.
#[derive(Debug)]
pub struct Pulled {
    pub record: Record,
    /// Bytes that came; what was here already did not have to.
    pub bytes: u64,
}

/// Why what came is of no use.
enum Halt {
    Stopped,
    TooLong,
    File(FileError),
}

impl Remote {
    /// Brings the result of a manifest's key here: its blobs, each compared with its digest, and then its record. Nothing if the remote
    /// store has none.
    ///
    /// # Errors
    /// [`RemoteError::Damaged`] if anything of it is not what it should be, or not there; if nobody answers; if the local store
    /// cannot be written. No record is here then that was not here before.
    pub fn pull(&self, store: &Store, manifest: &Manifest, work: Work<'_>) -> Result<Option<Pulled>> {
        let Some(record) = self.record(manifest)? else { return Ok(None) };
        self.bring(store, manifest, record, work).map(Some)
    }

    /// The same for a record of [`Remote::record`].
    ///
    /// # Errors
    /// Those.
    pub fn bring(&self, store: &Store, manifest: &Manifest, record: Record, work: Work<'_>) -> Result<Pulled> {
        let missing = missing(store, &record)?;
        side_by_side(&missing, work.stop, |file| self.blob(store, file, work))?;
        let bytes = missing.iter().map(|file| file.size).sum();
        let published = store.adopt(manifest, record)?;
        Ok(Pulled { record: published.record, bytes })
    }

    /// Brings one blob here.
    fn blob(&self, store: &Store, file: &StoredFile, work: Work<'_>) -> Result<()> {
        let name = blob_name(&file.blob);
        let folder = store.draft()?;
        let draft = folder.path().join("blob");
        let mut out = fs::create_new(&draft).map_err(|error| RemoteError::Store(error.into()))?;
        let (mut hasher, mut size, mut halted) = (Hasher::plain(), 0, None);
        let mut take = |piece: &[u8]| {
            size += piece.len() as u64;
            hasher.update(piece);
            let halt = if work.stop.requested() {
                Halt::Stopped
            } else if size > file.size {
                Halt::TooLong
            } else if let Err(error) = out.write_all(piece).at("write", &draft) {
                Halt::File(error)
            } else {
                (work.moved)(piece.len() as u64);
                return ControlFlow::Continue(());
            };
            halted = Some(halt);
            ControlFlow::Break(())
        };
        let there = self.objects.read(&name, &mut take).map_err(|trouble| self.told(trouble))?;
        match halted {
            Some(Halt::Stopped) => return Err(Stopped.into()),
            Some(Halt::File(error)) => return Err(RemoteError::Store(error.into())),
            Some(Halt::TooLong) => return Err(self.damage(name, format!("it has more than {} bytes", file.size))),
            None if !there => return Err(self.damage(name, "it is not there")),
            None if size < file.size => {
                return Err(self.damage(name, format!("it has {size} bytes instead of {}", file.size)));
            }
            None if hasher.finish() != file.blob => return Err(self.damage(name, "its bytes have changed")),
            None => {}
        }
        drop(out);
        store.publish_blob(&draft)?;
        Ok(())
    }
}

/// The files of a record whose bytes are not here, each once.
///
/// # Errors
/// If one is here and cannot be read.
pub fn missing<'r>(store: &Store, record: &'r Record) -> Result<Vec<&'r StoredFile>> {
    let mut seen: BTreeSet<Digest> = BTreeSet::new();
    let mut missing = Vec::new();
    for (_, file) in record.files() {
        if seen.insert(file.blob) && !store.has(file)? {
            missing.push(file);
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Machine, manifest, quietly};
    use kinset_store::record::Lookup;

    #[test]
    fn a_result_is_the_same_here_as_it_was_there() {
        let (place, here, there) = crate::testing::three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        assert_eq!(here.store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
        let pulled = place.remote.pull(&here.store, &manifest(1), quietly()).unwrap().unwrap();
        assert_eq!((pulled.bytes, &pulled.record), (pulled.record.bytes(), &there.whole(1)));
        assert_eq!(here.whole(1), there.whole(1));
        assert_eq!(here.store.manifest("scan", &manifest(1).key()).unwrap(), Some(manifest(1)));
        assert!(here.store.verify(false, None).unwrap().is_clean());
        // Again: nothing has to come.
        assert_eq!(place.remote.pull(&here.store, &manifest(1), quietly()).unwrap().unwrap().bytes, 0);
        assert!(place.remote.pull(&here.store, &manifest(2), quietly()).unwrap().is_none());
    }

    #[test]
    fn no_changed_byte_of_any_object_is_believed() {
        let (place, _, there) = crate::testing::three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        for name in place.objects.names().into_iter().filter(|name| !name.starts_with("manifests/")) {
            let good = place.objects.bytes(&name);
            let mut bad = vec![Vec::new(), good[..good.len() - 1].to_vec(), [&good[..], b"\n"].concat()];
            for at in 0..good.len() {
                let mut bytes = good.clone();
                bytes[at] ^= 1;
                bad.push(bytes);
            }
            let here = Machine::new();
            for bytes in bad {
                place.objects.put(&name, &bytes);
                let error = place.remote.pull(&here.store, &manifest(1), quietly()).unwrap_err();
                assert!(matches!(&error, RemoteError::Damaged { object, .. } if *object == name), "{error}");
                assert_eq!(here.store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
            }
            assert!(here.store.verify(false, None).unwrap().is_clean());
            place.objects.put(&name, &good);
        }
        let here = Machine::new();
        place.remote.pull(&here.store, &manifest(1), quietly()).unwrap().unwrap();
    }

    #[test]
    fn a_record_whose_blob_is_gone_is_none() {
        let (place, here, there) = crate::testing::three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        let blob = place.objects.names().into_iter().find(|name| name.starts_with("blobs/")).unwrap();
        place.objects.take(&blob);
        let error = place.remote.pull(&here.store, &manifest(1), quietly()).unwrap_err();
        assert!(error.to_string().ends_with("is damaged: it is not there"), "{error}");
        assert_eq!(here.store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
    }

    #[test]
    fn a_newer_form_is_refused_and_no_damage() {
        let (place, here, _) = crate::testing::three();
        place.objects.put(&crate::remote::record_name(&manifest(1).key()), br#"{"format": 99}"#);
        let error = place.remote.pull(&here.store, &manifest(1), quietly()).unwrap_err();
        assert!(matches!(error, RemoteError::Newer { format: 99, .. }), "{error}");
    }

    #[test]
    fn a_record_of_another_stage_under_this_key_is_damage() {
        let (place, here, there) = crate::testing::three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        let [one, two] = [1, 2].map(|number| crate::remote::record_name(&manifest(number).key()));
        place.objects.put(&two, &place.objects.bytes(&one));
        let error = place.remote.pull(&here.store, &manifest(2), quietly()).unwrap_err();
        assert!(error.to_string().contains("belongs to the key"), "{error}");
    }

    #[test]
    fn a_place_that_fails_leaves_no_trace_and_the_next_pull_goes_on_from_there() {
        let (place, here, there) = crate::testing::three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        for calls in 0.. {
            place.objects.fail_after(calls);
            let pulled = place.remote.pull(&here.store, &manifest(1), quietly());
            place.objects.heal();
            assert!(here.store.verify(false, None).unwrap().is_clean());
            match pulled {
                Err(error) => {
                    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
                    assert_eq!(here.store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
                }
                Ok(pulled) => {
                    assert!(pulled.is_some() && calls > 1);
                    break;
                }
            }
        }
        assert_eq!(here.whole(1), there.whole(1));
    }

    #[test]
    fn what_is_damaged_here_is_mended_from_there() {
        let (place, _, there) = crate::testing::three();
        let record = there.compute(1, "one");
        place.push(&there, 1).unwrap();
        let (_, file) = record.files().next().unwrap();
        there.damage_blob(&file.blob);
        place.remote.pull(&there.store, &manifest(1), quietly()).unwrap().unwrap();
        assert!(there.store.verify(false, None).unwrap().is_clean());
        assert_eq!(there.whole(1), record);
    }

    #[test]
    fn a_stop_ends_it_between_pieces() {
        let (place, here, there) = crate::testing::three();
        there.compute(1, "one");
        place.push(&there, 1).unwrap();
        let stop = kinset_base::stop::Stop::default();
        stop.request();
        let work = Work { stop: &stop, ..quietly() };
        assert!(matches!(place.remote.pull(&here.store, &manifest(1), work).unwrap_err(), RemoteError::Stopped(_)));
        assert_eq!(here.store.lookup(&manifest(1).key()).unwrap(), Lookup::Miss);
    }
}
