//! The events of a run on disk: one JSON object a line in `runs/<utc>/events.jsonl`, written while it happens and read by whoever
//! asks later what happened. A kill may leave half a line at the end, and another version other events: readers pass them over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::event::{Event, Listener};
use kinset_base::clock::{self, Stopwatch};
use kinset_base::fs;

/// The file of events in the folder of a run.
const FILE: &str = "events.jsonl";

/// The progress of a stage is written at most so often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Where the runs of a pipeline are recorded.
pub fn runs_folder(artifacts: &Path, pipeline: &str) -> PathBuf {
    artifacts.join(pipeline).join("runs")
}

/// The event files below `runs/`, oldest first.
pub fn files(runs: &Path) -> Vec<PathBuf> {
    let folders = fs::list(runs).unwrap_or_default();
    folders.into_iter().map(|folder| folder.join(FILE)).filter(|file| fs::exists(file)).collect()
}

/// The event file of a run that is named by its folder or by the file itself.
pub fn file_of(run: &Path) -> PathBuf {
    if run.is_dir() { run.join(FILE) } else { run.to_path_buf() }
}

/// The name of the run that a file of events belongs to: when it began.
pub fn run_of(file: &Path) -> String {
    file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The folder of a run in which its jobs leave theirs.
const JOBS: &str = "jobs";

/// The events of a run that are known here, in their order. What its jobs said comes behind the first, which says what was planned.
pub fn events(file: &Path) -> fs::Result<impl Iterator<Item = Event>> {
    let mut own = lines(fs::reader(file)?);
    let jobs = jobs_of(fs::parent(file));
    let files = fs::list(&jobs).unwrap_or_default().into_iter().filter(|file| file.extension().is_some_and(|e| e == EVENTS));
    let of_jobs = files.flat_map(|file| events_of(&file));
    Ok(own.next().into_iter().chain(of_jobs).chain(own))
}

/// The ending of files of events.
const EVENTS: &str = "jsonl";

/// The events of this file alone; none if it cannot be read.
pub fn events_of(file: &Path) -> impl Iterator<Item = Event> + use<> {
    fs::reader(file).into_iter().flat_map(lines)
}

fn lines(reader: impl BufRead) -> impl Iterator<Item = Event> {
    reader.split(b'\n').map_while(Result::ok).filter_map(|line| serde_json::from_slice(&line).ok())
}

/// Where the jobs of a run lie.
pub fn jobs_of(run: &Path) -> PathBuf {
    run.join(JOBS)
}

/// The pipeline file of the last run below `runs/`, if one tells.
pub fn last_pipeline(runs: &Path) -> Option<PathBuf> {
    let started = files(runs).iter().rev().find_map(|file| events(file).ok()?.next());
    match started {
        Some(Event::RunStarted { file, .. }) if !file.is_empty() => Some(file.into()),
        _ => None,
    }
}

/// Writes events as JSON lines, each with its time, into a folder that is made when the first stage works: a run with nothing
/// to do leaves no trace.
#[derive(Debug)]
pub struct Journal {
    runs: PathBuf,
    state: Mutex<JournalState>,
}

#[derive(Debug, Default)]
struct JournalState {
    held_back: Vec<String>,
    file: Option<File>,
    broken: bool,
    /// By stage, when its progress was written last.
    progress: BTreeMap<String, Stopwatch>,
    folder: Option<PathBuf>,
}

impl Journal {
    /// A journal below `runs/`.
    pub fn new(runs: PathBuf) -> Self {
        Self { runs, state: Mutex::default() }
    }

    /// A journal at the end of this file, which belongs to the run of somebody else.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn at_end_of(file: &Path) -> fs::Result<Self> {
        let state = JournalState { file: Some(fs::append(file)?), ..JournalState::default() };
        Ok(Self { runs: PathBuf::new(), state: Mutex::new(state) })
    }

    /// The folder of this run, which is made if it was not needed so far.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn begin(&self) -> fs::Result<PathBuf> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &state.folder {
            return Ok(folder.clone());
        }
        let (folder, file) = self.open()?;
        (state.folder, state.file) = (Some(folder.clone()), Some(file));
        Ok(folder)
    }

    /// The folder of this run, if it left one.
    pub fn folder(&self) -> Option<PathBuf> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).folder.clone()
    }

    fn open(&self) -> fs::Result<(PathBuf, File)> {
        fs::create_folders(&self.runs)?;
        let stamp = clock::stamp(clock::unix_seconds());
        let mut attempt = 0_u32;
        loop {
            let name = if attempt == 0 { stamp.clone() } else { format!("{stamp}-{attempt}") };
            let folder = self.runs.join(name);
            match std::fs::create_dir(&folder) {
                Ok(()) => {
                    let file = fs::create_new(&folder.join(FILE))?;
                    return Ok((folder, file));
                }
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(e) => return Err(fs::FileError::new("create the folder", &folder, e)),
            }
        }
    }
}

/// A line of the event file.
#[derive(Serialize)]
struct Line<'a> {
    time: f64,
    #[serde(flatten)]
    event: &'a Event,
}

impl Listener for Journal {
    fn hear(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.broken {
            return;
        }
        // A bar moves more often than a reader of the file cares for.
        if let Event::Progress { stage, done, total, .. } = event
            && done < total
        {
            if state.progress.get(stage).is_some_and(|last| last.elapsed() < PROGRESS_EVERY) {
                return;
            }
            state.progress.insert(stage.clone(), Stopwatch::start());
        }
        let Ok(line) = serde_json::to_string(&Line { time: clock::unix_seconds(), event }) else { return };
        if state.file.is_none() && matches!(event, Event::StageStarted { .. } | Event::StageFailed { .. } | Event::Job { .. }) {
            match self.open() {
                Ok((folder, file)) => (state.folder, state.file) = (Some(folder), Some(file)),
                Err(error) => {
                    // The journal is a convenience: without it the run goes on.
                    tracing::warn!("no event file: {error}: {}", error.source);
                    state.broken = true;
                    return;
                }
            }
        }
        state.held_back.push(line);
        let lines: String = state.held_back.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        if let Some(file) = &mut state.file {
            let written = file.write_all(lines.as_bytes());
            state.held_back.clear();
            if let Err(error) = written {
                tracing::warn!("the event file stops here: {error}");
                state.broken = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Planned;

    #[test]
    fn what_was_heard_is_read_again_whatever_the_end_looks_like() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().join("runs"));
        let stage = || "s".to_owned();
        let planned = Planned { stage: stage(), family: stage(), kind: "k".into(), seed: 1, varied: vec![], reads: [].into() };
        let heard = [
            Event::RunStarted { pipeline: "p".into(), file: "p.toml".into(), version: "1".into(), plan: vec![planned] },
            Event::StageFresh { stage: stage(), key: "1".into() },
            Event::StageWaiting { stage: stage(), holder: "another".into() },
            Event::StageStarted { stage: stage(), kind: "k".into(), key: "2".into(), why: "never ran".into() },
            Event::Metric { stage: stage(), step: 3, name: "loss".into(), value: 0.1 },
            Event::Progress { stage: stage(), done: 1, total: 2, unit: "images".into(), text: None },
            Event::Note { stage: stage(), text: "\u{1f98a}\n".into() },
            Event::Warning { stage: stage(), text: "<b>".into() },
            Event::StageFinished { stage: stage(), key: "2".into(), seconds: 1.5, adopted: false },
            Event::StageFailed { stage: stage(), error: "no".into(), hint: None },
            Event::StageBlocked { stage: stage(), by: "t".into() },
            Event::StageStopped { stage: stage() },
            Event::RunFinished { seconds: 2.5, ran: 1, exit: 0 },
        ];
        for event in &heard {
            journal.hear(event);
        }
        let file = file_of(&journal.folder().unwrap());
        assert_eq!(files(&dir.path().join("runs")), std::slice::from_ref(&file));
        assert_eq!(events(&file).unwrap().collect::<Vec<_>>(), heard);
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend(b"{\"event\":\"of-tomorrow\"}\n\xff\xfe\n{\"event\":\"stage-fini");
        fs::write_atomic(&file, &bytes).unwrap();
        assert_eq!(events(&file).unwrap().count(), heard.len());
        assert!(events(&dir.path().join("nowhere")).is_err() && files(&dir.path().join("nowhere")).is_empty());
    }

    #[test]
    fn a_run_with_nothing_to_do_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().join("runs"));
        journal.hear(&Event::RunStarted { pipeline: "p".into(), file: "p.toml".into(), version: "1".into(), plan: Vec::new() });
        journal.hear(&Event::StageFresh { stage: "s".into(), key: "1".into() });
        assert_eq!(journal.folder(), None);
        assert!(!fs::exists(&dir.path().join("runs")));
    }
}
