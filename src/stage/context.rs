//! The context of a running stage: all that it may use.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use candle_core::Device;
use serde_json::Value;

use super::error::StageError;
use super::raw_files::RawFiles;
use super::unfinished::Unfinished;
use kinset_artifact::origin;
use kinset_base::clock::Stopwatch;
use kinset_base::fs;
use kinset_base::raw_file::RawFile;
use kinset_base::reading::Reading;
use kinset_base::search_path::DataPaths;
use kinset_base::seed::Seed;
use kinset_base::stop::Stop;
use kinset_store::digest::Digest;
use kinset_store::lock::StageLock;

/// What a stage tells while it runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// A number of its training curve.
    Metric {
        /// Epoch or step.
        step: u64,
        /// What was measured.
        name: String,
        /// The number.
        value: f64,
    },
    /// How far it is.
    Progress {
        /// Units done.
        done: u64,
        /// Units in all.
        total: u64,
        /// What a unit is.
        unit: &'static str,
        /// A word or number to show beside it.
        text: Option<String>,
    },
    /// Something worth knowing.
    Note(String),
    /// Something worth acting on.
    Warning(String),
}

/// Where signals go.
pub trait Sink: Sync {
    /// Takes a signal of the stage with this name.
    fn signal(&self, stage: &str, signal: Signal);
}

/// Lines that the record of a result keeps, by what they are about.
pub type Kept = BTreeMap<&'static str, Vec<String>>;

/// What the engine lends to a running stage.
pub struct Context<'a> {
    /// The name of the stage in its pipeline, for messages.
    pub stage: &'a str,
    /// Where tensors live.
    pub device: Device,
    /// This stage's branch of the tree of randomness.
    pub seed: Seed,
    /// Where raw data are looked for.
    pub places: &'a DataPaths,
    /// Whether to stop.
    pub stop: Stop,
    /// Save a checkpoint at least this often.
    pub checkpoint_every: Duration,
    work: PathBuf,
    shared: Option<PathBuf>,
    lock: Option<&'a StageLock>,
    out: PathBuf,
    raw: Option<&'a RawFiles>,
    digests: BTreeMap<&'a str, Digest>,
    raw_checked: AtomicBool,
    origin: BTreeMap<String, Value>,
    kept: Mutex<Kept>,
    sink: &'a dyn Sink,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("stage", &self.stage).field("work", &self.work).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// Lends folders, device and seed to a stage. `work` outlives the process (checkpoints), `out` takes what is written.
    #[expect(clippy::too_many_arguments, reason = "everything a stage may use, visible in one place")]
    pub fn new(
        stage: &'a str,
        device: Device,
        seed: Seed,
        places: &'a DataPaths,
        stop: Stop,
        work: PathBuf,
        out: PathBuf,
        sink: &'a dyn Sink,
    ) -> Self {
        let (checkpoint_every, digests, origin) = (Duration::from_mins(1), BTreeMap::new(), BTreeMap::new());
        let (shared, lock, raw, raw_checked, kept) = (None, None, None, AtomicBool::new(false), Mutex::default());
        Self {
            stage,
            device,
            seed,
            places,
            stop,
            checkpoint_every,
            work,
            shared,
            lock,
            out,
            raw,
            digests,
            raw_checked,
            origin,
            kept,
            sink,
        }
    }

    /// Lends the raw files, and their digests in the same order, which the engine knows already.
    #[must_use]
    pub fn with_raw(mut self, raw: &'a RawFiles, digests: impl Iterator<Item = Digest>) -> Self {
        self.raw = Some(raw);
        self.digests = raw.iter().map(|file| file.name.as_str()).zip(digests).collect();
        self
    }

    /// Lends the lock of the stage's key, so that nothing is kept once another process has taken over.
    #[must_use]
    pub fn with_lock(mut self, lock: &'a StageLock) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Lends the folder of what several processes compute together.
    #[must_use]
    pub fn with_shared(mut self, folder: Option<PathBuf>) -> Self {
        self.shared = folder;
        self
    }

    /// Says what the tables of this stage shall say of where they come from.
    #[must_use]
    pub fn with_origin(mut self, origin: BTreeMap<String, Value>) -> Self {
        self.origin = origin;
        self
    }

    /// Sets how often to save.
    #[must_use]
    pub fn with_checkpoint_every(mut self, interval: Duration) -> Self {
        self.checkpoint_every = interval;
        self
    }

    /// The digest of a raw file, if the engine knows it.
    pub fn raw_digest(&self, file: &RawFile) -> Option<Digest> {
        self.digests.get(file.name.as_str()).copied()
    }

    /// Says that what was read of every raw file was compared with its digest, so that a file which changed since matters to nobody.
    pub fn mark_raw_checked(&self) {
        self.raw_checked.store(true, Ordering::Relaxed);
    }

    /// Whether the stage said so.
    pub fn raw_checked(&self) -> bool {
        self.raw_checked.load(Ordering::Relaxed)
    }

    /// What [`Stage::raw_files`](super::Stage::raw_files) found with the files, once.
    pub fn found<T: Any>(&self) -> Option<T> {
        self.raw?.take()
    }

    /// Goes on to keep progress, unless another process has taken over this stage.
    ///
    /// # Errors
    /// [`StoreError::Taken`](kinset_store::StoreError::Taken); if nobody can tell.
    pub fn check_lock(&self) -> Result<(), StageError> {
        self.lock.map_or(Ok(()), |lock| lock.check().map_err(|error| StageError::Other(Box::new(error))))
    }

    /// The private folder of this attempt at the stage's key: checkpoints of an unfinished run live here.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// The unfinished work of this stage. `form` names what is kept, with the version of its form: `kmeans 1`.
    pub fn unfinished(&self, form: &'static str) -> Unfinished<'_> {
        Unfinished::new(self, form, &self.work)
    }

    /// What several processes compute of this stage together, part by part: in [`Stage::share`](super::Stage::share) always, and when the stage
    /// runs if there is something.
    pub fn shared(&self, form: &'static str) -> Option<Unfinished<'_>> {
        self.shared.as_ref().map(|folder| Unfinished::new(self, form, folder))
    }

    /// A fresh folder for one output.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn out(&self, output: &str) -> Result<PathBuf, StageError> {
        let folder = self.out.join(output);
        fs::create_folders(&folder).map_err(StageError::of_store)?;
        if !self.origin.is_empty() {
            origin::leave(&folder, &self.origin)?;
        }
        Ok(folder)
    }

    /// Goes on, or stops because somebody asked.
    ///
    /// # Errors
    /// [`StageError::Stopped`].
    pub fn check(&self) -> Result<(), StageError> {
        Ok(self.stop.check()?)
    }

    /// As [`StageError::fitting`]; a default that is lowered is said.
    ///
    /// # Errors
    /// Those.
    pub fn fitting(
        &self,
        setting: &'static str,
        value: usize,
        default: usize,
        fits: RangeInclusive<usize>,
        images: usize,
    ) -> Result<usize, StageError> {
        let fitting = StageError::fitting(setting, value, default, &fits, images)?;
        if fitting < value {
            self.note(format!("`{setting}` is {fitting} instead of {default}, since there are only {images} images"));
        }
        Ok(fitting)
    }

    /// Progress over this many units.
    pub fn bar(&self, total: u64, unit: &'static str) -> Bar<'_> {
        let sent = Sent { clock: Stopwatch::start(), done: 0, text: None };
        Bar { sink: self.sink, stage: self.stage, total, unit, sent: Mutex::new(sent) }
    }

    /// Records a number of the training curve.
    pub fn metric(&self, step: u64, name: &str, value: f64) {
        self.sink.signal(self.stage, Signal::Metric { step, name: name.to_owned(), value });
    }

    /// Says what was read of files of others, in a note, and a warning for each doubt; `stage.json` keeps all of it.
    pub fn read(&self, reading: &Reading) {
        let line = reading.line();
        if !line.is_empty() {
            self.note(&line);
            self.keep("read", line);
        }
        for doubt in &reading.doubts {
            self.warn(doubt);
            self.keep("read", doubt.clone());
        }
    }

    /// Says what was chosen where the settings leave it open, in a note; `stage.json` keeps it.
    pub fn chose(&self, text: impl Into<String>) {
        let text = text.into();
        self.note(&text);
        self.keep("chosen", text);
    }

    fn keep(&self, name: &'static str, line: String) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().push(line);
    }

    /// What [`Context::read`] (`read`) and [`Context::chose`] (`chosen`) were told so far.
    pub fn kept(&self) -> Kept {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says something worth knowing.
    pub fn note(&self, text: impl Into<String>) {
        self.sink.signal(self.stage, Signal::Note(text.into()));
    }

    /// Says something worth acting on.
    pub fn warn(&self, text: impl Into<String>) {
        self.sink.signal(self.stage, Signal::Warning(text.into()));
    }
}

/// Signals are at least so far apart.
const INTERVAL: Duration = Duration::from_millis(200);

/// How far a stage is. It sends [`Signal::Progress`]; who listens draws it.
pub struct Bar<'a> {
    sink: &'a dyn Sink,
    stage: &'a str,
    total: u64,
    unit: &'static str,
    sent: Mutex<Sent>,
}

struct Sent {
    clock: Stopwatch,
    done: u64,
    text: Option<String>,
}

impl fmt::Debug for Bar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bar").field("stage", &self.stage).field("total", &self.total).finish_non_exhaustive()
    }
}

impl Bar<'_> {
    /// Moves on by some units.
    pub fn advance(&self, units: u64) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.done += units;
        if sent.clock.elapsed() >= INTERVAL || sent.done >= self.total {
            let (done, total, unit, text) = (sent.done, self.total, self.unit, sent.text.clone());
            self.sink.signal(self.stage, Signal::Progress { done, total, unit, text });
            sent.clock = Stopwatch::start();
        }
    }

    /// Shows a word or number beside the bar from its next move on.
    pub fn say(&self, text: &str) {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).text = Some(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Heard;

    #[test]
    fn a_default_that_does_not_fit_is_lowered_with_a_word_and_a_choice_is_refused_by_name() {
        let (heard, places) = (Heard::default(), DataPaths::new("", None, None));
        let stop = Stop::default();
        let cx = Context::new("it", Device::Cpu, Seed::new(1), &places, stop, PathBuf::new(), PathBuf::new(), &heard);
        assert_eq!(cx.fitting("k", 64, 1024, 2..=300, 300).unwrap(), 64);
        assert!(heard.signals().is_empty());
        assert_eq!(cx.fitting("k", 1024, 1024, 2..=300, 300).unwrap(), 300);
        let said = Signal::Note("`k` is 300 instead of 1024, since there are only 300 images".into());
        assert_eq!(heard.signals(), [said]);
        let refused = cx.fitting("k", 512, 1024, 2..=300, 300).unwrap_err();
        assert_eq!(refused.to_string(), "k is 512, but there are only 300 images");
        let nothing = RangeInclusive::new(2, 1);
        let one = cx.fitting("k", 1024, 1024, nothing, 1).unwrap_err();
        assert_eq!(one.to_string(), "k is 1024, but there is only 1 image");
    }
}
