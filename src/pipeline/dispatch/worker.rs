//! The work of a job: the nodes of one task of a ticket, one after the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::DispatchError;
use super::ticket::{End, Place, Task, Ticket};
use crate::attempt::{Attempt, DamagedInput, Setback};
use crate::catalog::Catalog;
use crate::error::RunError;
use crate::event::{Event, Tell};
use crate::fault::Faults;
use crate::graph;
use crate::run::{Options, Outcome};
use crate::spec::{self, Spec};
use crate::state::{Known, Outlook};
use kinset_base::clock::Stopwatch;
use kinset_base::fault::{Exit, Fault, chain};
use kinset_base::fs;
use kinset_base::search_path::DataPaths;
use kinset_stage::StageError;
use kinset_store::Store;
use kinset_store::digest::{Digest, Hasher};
use kinset_store::key::Key;
use kinset_store::record::{Lookup, Record};

/// How often an input is looked for that should be there.
const LOOK: Duration = Duration::from_millis(500);

/// Attempts at a node whose inputs are mended meanwhile.
const ATTEMPTS: usize = 3;

/// A task of a ticket, ready to be done.
#[derive(Debug)]
pub struct Work {
    pub ticket: Ticket,
    pub place: Place,
    /// The number of the task.
    pub index: usize,
}

impl Work {
    /// Reads a ticket.
    ///
    /// # Errors
    /// If it is none, is of another version, or has no such task.
    pub fn load(ticket: &Path, index: usize) -> Result<Self, DispatchError> {
        let place = Place::of(ticket);
        let ticket = Ticket::load(ticket)?;
        if index >= ticket.tasks.len() {
            return Err(DispatchError::NoTask { tasks: ticket.tasks.len(), index });
        }
        Ok(Self { ticket, place, index })
    }

    /// The pipeline as it was when the job was submitted.
    ///
    /// # Errors
    /// Faults that it has here and not there.
    pub fn spec(&self, catalog: &dyn Catalog) -> Result<Spec, Faults> {
        spec::check(&self.ticket.file, &self.ticket.text, &self.ticket.request, catalog)
    }

    pub fn tasks(&self) -> &[Task] {
        &self.ticket.tasks[self.index]
    }

    /// The class of device of the task, of its first stage that has a class of its own.
    pub fn device_class(&self) -> &str {
        let classes = self.tasks().iter().map(|task| self.ticket.devices.class(&task.stage));
        classes.reduce(|first, class| if first == "cpu" { class } else { first }).unwrap_or("cpu")
    }

    /// Where its events go.
    pub fn events(&self) -> PathBuf {
        self.place.events(self.index)
    }

    /// Does the task; how it ended is left beside the ticket as well.
    ///
    /// # Errors
    /// If nobody could be told how it ended.
    pub fn run(
        &self,
        spec: &Spec,
        store: &Store,
        places: &DataPaths,
        options: &Options,
        tell: Tell<'_>,
    ) -> Result<End, DispatchError> {
        if fs::exists(&self.place.end(self.index)) {
            fs::remove(&self.place.end(self.index))?;
        }
        let outlook = Outlook::of(spec, options, store, places);
        let mut worker = Worker { work: self, attempt: Attempt::new(outlook, options, tell), options, known: Known::new() };
        let end = worker.all(tell);
        end.write(&self.place.end(self.index))?;
        Ok(end)
    }

    /// What its unfinished stages have kept so far: equal marks mean that nothing was moved.
    pub fn mark(&self, store: &Store) -> Digest {
        let mut hasher = Hasher::derived("kinset 2026-11 unfinished work");
        for key in self.keys() {
            files_below(&store.scratch_path(&key), &mut hasher);
            hasher.field(if matches!(store.lookup(&key), Ok(Lookup::Hit(_))) { "done" } else { "" });
        }
        hasher.finish()
    }

    /// The keys that it has worked on, as its events tell.
    fn keys(&self) -> Vec<Key> {
        let mut keys = Vec::new();
        for event in crate::journal::events_of(&self.events()) {
            if let Event::StageStarted { key, .. } = event
                && let Ok(key) = key.parse()
                && !keys.contains(&key)
            {
                keys.push(key);
            }
        }
        keys
    }

    /// Counts a stop: whether anything was moved since `before`, and how often in a row nothing was.
    ///
    /// # Errors
    /// If that cannot be remembered.
    pub fn stalls(&self, before: Digest, after: Digest) -> Result<u32, DispatchError> {
        let path = self.place.stalls(self.index);
        let so_far = fs::read_text(&path).ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(0);
        let stalls = if before == after { so_far + 1 } else { 0 };
        fs::write_atomic(&path, stalls.to_string().as_bytes())?;
        Ok(stalls)
    }
}

/// Names, sizes and small contents of the files below a folder. Names of folders are left out: an heir copies checkpoints.
fn files_below(folder: &Path, hasher: &mut Hasher) {
    for path in fs::list(folder).unwrap_or_default() {
        if path.is_dir() {
            files_below(&path, hasher);
            continue;
        }
        let Some(found) = fs::metadata(&path).ok().flatten() else { continue };
        hasher.field(&path.file_name().unwrap_or_default().to_string_lossy()).field(&found.len().to_string());
        if found.len() < 1 << 20 {
            hasher.update(&fs::read(&path).unwrap_or_default());
        }
    }
}

struct Worker<'a> {
    work: &'a Work,
    attempt: Attempt<'a>,
    options: &'a Options,
    known: Known,
}

impl Worker<'_> {
    fn all(&mut self, tell: Tell<'_>) -> End {
        for task in self.work.tasks() {
            if let Err(end) = self.one(task) {
                let stage = task.stage.clone();
                tell.tell(if end.exit == Exit::Stopped as u8 {
                    Event::StageStopped { stage }
                } else {
                    Event::StageFailed { stage, error: end.message.clone(), hint: end.hint.clone() }
                });
                return *end;
            }
        }
        End::default()
    }

    fn one(&mut self, task: &Task) -> Result<(), Box<End>> {
        let failed = |error: RunError| Box::new(End::of(&task.stage, &error));
        let spec = self.attempt.outlook.spec;
        let index = spec.nodes.iter().position(|node| node.name == task.stage);
        let index = index.ok_or_else(|| failed(RunError::NoInput { stage: task.stage.clone() }))?;
        for above in graph::inputs(&spec.nodes[index]) {
            self.find(above).map_err(failed)?;
        }
        let mut mended = 0;
        loop {
            let result = match task.share {
                None => self.attempt.node(index, &self.known, task.forced).map(Some),
                Some(share) => self.attempt.share(index, &self.known, task.forced, share).map(|()| None),
            };
            match result {
                // Whoever puts the shares together has the result.
                Ok(None) => return Ok(()),
                Ok(Some((Outcome::Ran { .. } | Outcome::Adopted | Outcome::Fresh | Outcome::Pulled { .. }, record))) => {
                    self.known.insert(index, record);
                    return Ok(());
                }
                Ok(_) => return Err(failed(StageError::Stopped.into())),
                Err(Setback::Mended) if mended < ATTEMPTS => mended += 1,
                Err(Setback::Mended) => {
                    let why = "its blobs keep being written to".to_owned();
                    return Err(failed(RunError::Damaged { stage: task.stage.clone(), why }));
                }
                Err(Setback::Damaged(input)) => return Err(Box::new(self.forget(task, input))),
                Err(Setback::Failed(error)) => return Err(failed(error)),
            }
        }
    }

    /// Forgets a damaged input, so that whoever watches has it made again.
    fn forget(&self, task: &Task, DamagedInput { maker, content, why }: DamagedInput) -> End {
        let (store, stage) = (self.attempt.outlook.store, &self.attempt.outlook.spec.nodes[maker].name);
        let key = self.known.get(&maker).map(|record| record.key);
        let forgotten = store.forget_readers(&content).and_then(|_| key.map_or(Ok(()), |key| store.forget(&key)));
        match forgotten {
            Ok(()) => {
                let error = RunError::Damaged { stage: stage.clone(), why };
                End { damaged: Some(stage.clone()), ..End::of(&task.stage, &error) }
            }
            Err(error) => End::of(&task.stage, &error.into()),
        }
    }

    /// Finds the result of a node above: by the key in the ticket, else by the key that follows from what lies above it.
    fn find(&mut self, index: usize) -> Result<(), RunError> {
        if self.known.contains_key(&index) {
            return Ok(());
        }
        let spec = self.attempt.outlook.spec;
        let node = &spec.nodes[index];
        let key = if let Some(key) = self.work.ticket.keys.get(&node.name) {
            *key
        } else {
            for above in graph::inputs(node) {
                self.find(above)?;
            }
            self.attempt.outlook.inputs(node, &self.known)?.manifest.key()
        };
        let record = self.wait_for(&key)?.ok_or_else(|| RunError::NoInput { stage: node.name.clone() })?;
        self.known.insert(index, record);
        Ok(())
    }

    /// The record of a key. What another machine has just published may not be seen here at once.
    fn wait_for(&self, key: &Key) -> Result<Option<Record>, RunError> {
        let clock = Stopwatch::start();
        loop {
            if let Lookup::Hit(record) = self.attempt.outlook.store.lookup(key)? {
                return Ok(Some(record));
            }
            if clock.seconds() >= self.work.ticket.settle {
                return Ok(None);
            }
            self.options.stop.check().map_err(StageError::from)?;
            std::thread::sleep(LOOK);
        }
    }
}

/// A worker's own fault as the end of its task, for whoever watches.
pub fn leave(place: &Place, index: usize, error: &dyn Fault) -> fs::Result<()> {
    let end = End {
        exit: error.exit() as u8,
        code: error.code().to_owned(),
        message: chain(error),
        hint: error.hint(),
        ..End::default()
    };
    end.write(&place.end(index))
}

#[cfg(test)]
mod tests {
    use super::super::ticket::{Form, Restarts, Worker};
    use super::*;
    use crate::spec::Request;
    use crate::state::Devices;

    #[test]
    fn stops_without_progress_are_counted_until_something_moves() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let form = Form {
            pipeline: "p".into(),
            file: "p.toml".into(),
            text: String::new(),
            request: Request::default(),
            artifacts: dir.path().into(),
            places: DataPaths::new("", None, None),
            devices: Devices::from("cpu"),
            checkpoint_every: 1.0,
            settle: 0.0,
            restarts: Restarts { times: 1, signal: "USR2".into(), without_progress: 2 },
            cache: None,
        };
        let task = Task { stage: "s".into(), forced: false, share: None, plan: Digest::of(b"") };
        let ticket = form.fill("s".into(), Worker::default(), std::collections::BTreeMap::new(), vec![vec![task]]);
        let place = Place { folder: dir.path().into(), stem: "01-s".into() };
        fs::write_atomic(&place.ticket(), &serde_json::to_vec(&ticket).unwrap()).unwrap();
        assert!(matches!(Work::load(&place.ticket(), 1), Err(DispatchError::NoTask { tasks: 1, index: 1 })));
        let work = Work::load(&place.ticket(), 0).unwrap();
        // What its events say it works on, and what that has kept.
        let key: Key = "12".repeat(32).parse().unwrap();
        let before = work.mark(&store);
        let begun = Event::StageStarted { stage: "s".into(), kind: "k".into(), key: key.hex(), why: String::new() };
        fs::write_atomic(&work.events(), &serde_json::to_vec(&begun).unwrap()).unwrap();
        let kept = store.scratch_path(&key).join("attempt");
        fs::create_folders(&kept).unwrap();
        let begun = work.mark(&store);
        assert_ne!(before, begun);
        assert_eq!((work.stalls(begun, begun).unwrap(), work.stalls(begun, begun).unwrap()), (1, 2));
        fs::write_atomic(&kept.join("checkpoint-2"), b"more").unwrap();
        let moved = work.mark(&store);
        assert_ne!(begun, moved);
        assert_eq!((work.stalls(begun, moved).unwrap(), work.stalls(moved, moved).unwrap()), (0, 1));
        // An heir keeps the same in a folder of its own.
        fs::rename(&kept, &store.scratch_path(&key).join("heir")).unwrap();
        assert_eq!(work.mark(&store), moved);
    }
}
