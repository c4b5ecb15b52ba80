//! Saved progress, from which a stage that was stopped or killed resumes.
//!
//! A file is replaced as a whole: what it holds is named at its beginning, and a digest stands at its end. One that is not whole, or
//! holds something else, does not count: then the work begins again, which is slow but right. What grows is kept in parts, so that
//! nothing is written twice.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::error::StageError;
use kinset_base::clock::Stopwatch;
use kinset_base::fs;
use kinset_store::digest::Digest;

/// Digits of the digest at the end.
const DIGEST: usize = 64;

/// The unfinished work of a stage, in the folder of its key.
pub struct Unfinished<'a> {
    cx: &'a Context<'a>,
    /// What is kept, with the version of its form: `kmeans 1`.
    form: &'static str,
    folder: PathBuf,
    saved: Cell<Stopwatch>,
}

impl std::fmt::Debug for Unfinished<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unfinished").field("form", &self.form).finish_non_exhaustive()
    }
}

impl<'a> Unfinished<'a> {
    pub(super) fn new(cx: &'a Context<'a>, form: &'static str, folder: &Path) -> Self {
        Self { cx, form, folder: folder.to_owned(), saved: Cell::new(Stopwatch::start()) }
    }

    fn path(&self, part: Option<usize>) -> PathBuf {
        self.folder.join(part.map_or_else(|| "unfinished.bin".to_owned(), |number| format!("unfinished-{number:06}.bin")))
    }

    /// What was kept last; nothing if there is none that is whole.
    ///
    /// # Errors
    /// If it cannot be read although it may be whole: the disk fails, nobody may look. If what is no such file cannot be removed.
    pub fn load<T: DeserializeOwned>(&self) -> Result<Option<T>, StageError> {
        self.read(&self.path(None))
    }

    /// All parts that were added, up to the first that is missing or not whole.
    ///
    /// # Errors
    /// As [`Unfinished::load`].
    pub fn parts<T: DeserializeOwned>(&self) -> Result<Vec<T>, StageError> {
        let mut parts = Vec::new();
        while let Some(part) = self.read(&self.path(Some(parts.len())))? {
            parts.push(part);
        }
        Ok(parts)
    }

    /// The part of this number, if it is there and whole, whatever is missing before it.
    ///
    /// # Errors
    /// As [`Unfinished::load`].
    pub fn part<T: DeserializeOwned>(&self, number: usize) -> Result<Option<T>, StageError> {
        self.read(&self.path(Some(number)))
    }

    fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, StageError> {
        if fs::metadata(path).map_err(StageError::of_store)?.is_none() {
            return Ok(None);
        }
        let whole = match fs::read(path) {
            Ok(bytes) => self.decode(&bytes),
            Err(error) if error.is_not_of_content() => return Err(StageError::of_store(error)),
            Err(_) => None,
        };
        if whole.is_none() {
            self.cx.warn(format!("the saved progress in `{}` is damaged; that work is repeated", path.display()));
            fs::remove_folder(path).map_err(StageError::of_store)?;
        }
        Ok(whole)
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Option<T> {
        let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if Digest::of(body).hex().as_bytes() != digest {
            return None;
        }
        let rest = body.strip_prefix(self.form.as_bytes())?.strip_prefix(b"\n")?;
        postcard::from_bytes(rest).ok()
    }

    /// Keeps the work, in place of what was kept before.
    ///
    /// # Errors
    /// If it cannot be written, or another process has taken over the stage.
    pub fn save<T: Serialize + ?Sized>(&self, work: &T) -> Result<(), StageError> {
        self.write(&self.path(None), work)
    }

    /// Keeps a further part; they are numbered from 0.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add<T: Serialize + ?Sized>(&self, number: usize, part: &T) -> Result<(), StageError> {
        self.write(&self.path(Some(number)), part)
    }

    fn write<T: Serialize + ?Sized>(&self, path: &Path, work: &T) -> Result<(), StageError> {
        let begin = format!("{}\n", self.form).into_bytes();
        let mut bytes = postcard::to_extend(work, begin)
            .map_err(|error| StageError::Progress { what: self.form.to_owned(), source: serde::ser::Error::custom(error) })?;
        let digest = Digest::of(&bytes).hex();
        bytes.extend(digest.as_bytes());
        self.cx.check_lock()?;
        fs::write_atomic(path, &bytes).map_err(StageError::of_store)?;
        self.saved.set(Stopwatch::start());
        Ok(())
    }

    /// True if the work was not kept for as long as a checkpoint may be apart from the next.
    pub fn is_due(&self) -> bool {
        self.saved.get().elapsed() >= self.cx.checkpoint_every
    }

    /// Keeps the work if that is due.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_when_due<T: Serialize + ?Sized>(&self, work: &T) -> Result<(), StageError> {
        if self.is_due() { self.save(work) } else { Ok(()) }
    }

    /// Passes a result on, and keeps the work if that is a stop.
    ///
    /// # Errors
    /// That of the result; if the work cannot be written.
    pub fn save_when_stopped<R, T, E>(&self, result: Result<R, E>, work: &T) -> Result<R, StageError>
    where
        T: Serialize + ?Sized,
        E: Into<StageError>,
    {
        result.map_err(|error| match error.into() {
            StageError::Stopped => self.save(work).err().unwrap_or(StageError::Stopped),
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use candle_core::Device;

    use super::*;
    use crate::Stop;
    use crate::testing::Heard;
    use kinset_base::fault::{Exit, Fault};
    use kinset_base::search_path::DataPaths;
    use kinset_base::seed::Seed;
    use kinset_base::stop::Stopped;

    /// What a test does in a folder; returns how many warnings came.
    fn in_folder(folder: &Path, every: u64, test: impl FnOnce(&Context<'_>)) -> usize {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let out = folder.join("out");
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, Stop::default(), folder.into(), out, &heard);
        test(&cx.with_checkpoint_every(Duration::from_secs(every)));
        heard.signals().len()
    }

    type Work = (Vec<f32>, Vec<(f64, u32)>, Option<usize>);

    fn work() -> Work {
        (vec![0.1, -0.0, f32::MIN_POSITIVE], vec![(0.1 + 0.2, 9), (f64::NEG_INFINITY, u32::MAX)], Some(3))
    }

    #[test]
    fn work_comes_back_to_the_bit_and_nothing_is_there_at_first() {
        let dir = tempfile::tempdir().unwrap();
        let warnings = in_folder(dir.path(), 60, |cx| {
            let unfinished = cx.unfinished("test 1");
            assert_eq!(unfinished.load::<Work>().unwrap(), None);
            unfinished.save(&work()).unwrap();
            let found: Work = unfinished.load().unwrap().unwrap();
            assert_eq!(found, work());
            assert_eq!(found.0[1].to_bits(), (-0.0_f32).to_bits());
        });
        assert_eq!(warnings, 0);
    }

    #[test]
    fn what_is_not_whole_or_of_another_form_does_not_count_and_is_warned_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unfinished.bin");
        in_folder(dir.path(), 60, |cx| cx.unfinished("test 1").save(&work()).unwrap());
        let whole = fs::read(&path).unwrap();
        let refused = |form| {
            in_folder(dir.path(), 60, |cx| {
                assert_eq!(cx.unfinished(form).load::<Work>().unwrap(), None);
                cx.unfinished(form).save(&work()).unwrap();
            })
        };
        for cut in [0, 20, whole.len() - 1] {
            fs::write_atomic(&path, &whole[..cut]).unwrap();
            assert_eq!(refused("test 1"), 1, "{cut} bytes");
        }
        let mut flipped = whole.clone();
        flipped[9] ^= 1;
        fs::write_atomic(&path, &flipped).unwrap();
        assert_eq!(refused("test 1"), 1, "a flipped bit");
        fs::write_atomic(&path, &whole).unwrap();
        assert_eq!(refused("test 2"), 1, "another form");
        fs::remove(&path).unwrap();
        fs::create_folders(&path.join("in")).unwrap();
        assert_eq!(refused("test 1"), 1, "a folder");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn work_that_cannot_be_read_or_written_is_the_fault_of_the_machine_or_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unfinished.bin");
        // The first page of a process is mapped nowhere, and reading it is an error of input and output.
        fs::link(Path::new("/proc/self/mem"), &path).unwrap();
        let told = |folder: &Path, exit| {
            in_folder(folder, 60, |cx| {
                let unfinished = cx.unfinished("test 1");
                let result = if folder.is_dir() { unfinished.load::<Work>().map(drop) } else { unfinished.save(&work()) };
                let error = result.unwrap_err();
                assert_eq!(error.exit(), exit, "{error}");
            })
        };
        assert_eq!(told(dir.path(), Exit::Machine), 0);
        assert!(fs::is_link(&path), "it is still there for a disk that works again");
        assert_eq!(told(&dir.path().join("gone"), Exit::Store), 0);
    }

    #[test]
    fn parts_come_back_in_order_up_to_the_first_that_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        in_folder(dir.path(), 60, |cx| {
            let unfinished = cx.unfinished("parts 1");
            for number in 0..3 {
                unfinished.add(number, &[number as f32; 2][..]).unwrap();
            }
            assert_eq!(unfinished.parts::<Vec<f32>>().unwrap(), [[0.0; 2], [1.0; 2], [2.0; 2]]);
        });
        fs::write_atomic(&dir.path().join("unfinished-000001.bin"), b"x").unwrap();
        let warnings = in_folder(dir.path(), 60, |cx| {
            assert_eq!(cx.unfinished("parts 1").parts::<Vec<f32>>().unwrap(), [[0.0; 2]]);
        });
        assert_eq!(warnings, 1);
    }

    #[test]
    fn it_is_kept_when_it_is_due_and_when_a_stop_comes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("unfinished.bin");
        in_folder(dir.path(), 3600, |cx| {
            let unfinished = cx.unfinished("test 1");
            unfinished.save_when_due(&1).unwrap();
            assert!(unfinished.save_when_stopped(Ok::<_, Stopped>(7), &1).is_ok_and(|result| result == 7));
            assert!(!fs::exists(&path));
            let stopped = unfinished.save_when_stopped(Err::<i32, _>(Stopped), &2);
            assert!(matches!(stopped, Err(StageError::Stopped)));
            assert_eq!(unfinished.load::<i32>().unwrap(), Some(2));
        });
        in_folder(dir.path(), 0, |cx| {
            cx.unfinished("test 1").save_when_due(&3).unwrap();
            assert_eq!(cx.unfinished("test 1").load::<i32>().unwrap(), Some(3));
        });
    }
}
