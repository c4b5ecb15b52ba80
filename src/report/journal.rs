//! The journal of a run, read again: what was planned, and which result each stage had.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kinset_base::fault::{Diagnosis, Exit, Fault};
use kinset_base::fs::FileError;
use kinset_pipeline::event::{Event, Planned};
use kinset_pipeline::journal;
use kinset_store::Key;

/// A run that ended, or broke off.
#[derive(Clone, Debug)]
pub struct Run {
    pub folder: PathBuf,
    pub pipeline: String,
    /// The version of kinset.
    pub version: String,
    /// Its stages, in the order of the pipeline file.
    pub plan: Vec<Planned>,
    /// The key of each stage that was fresh or came to its end.
    pub keys: BTreeMap<String, Key>,
    /// Seconds in all and exit code; nothing if the run was cut off.
    pub end: Option<(f64, u8)>,
}

/// Why a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RunUnread {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{path}` is not the journal of a run: {why}")]
    Other { path: String, why: String },
}

impl Fault for RunUnread {
    fn diagnosis(&self) -> Diagnosis {
        let code = match self {
            Self::File(error) if !error.is_missing() => return error.diagnosis(),
            Self::File(error) => error.code(),
            Self::Other { .. } => "run::no-journal",
        };
        Exit::Usage
            .code(code)
            .hint("runs are the folders artifacts/<pipeline>/runs/<time>; a run with nothing to do leaves none")
    }
}

impl Run {
    /// Reads the run in a folder, or the event file itself. A last line that was cut off is passed over, as a kill leaves it.
    ///
    /// # Errors
    /// If there is no journal, or it does not begin with a plan.
    pub fn read(path: &Path) -> Result<Self, RunUnread> {
        let file = journal::file_of(path);
        let other = |why: &str| RunUnread::Other { path: file.display().to_string(), why: why.to_owned() };
        let mut events = journal::events(&file)?;
        let Some(Event::RunStarted { pipeline, version, plan, .. }) = events.next() else {
            return Err(other("it does not begin with the plan of a run"));
        };
        let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        let version = version.into_owned();
        let mut run = Self { folder, pipeline, version, plan, keys: BTreeMap::new(), end: None };
        for event in events {
            match event {
                Event::StageFresh { stage, key }
                | Event::StageFinished { stage, key, .. }
                | Event::StagePulled { stage, key, .. } => {
                    let key = key.parse().map_err(|_| other("it names a result in no way that is known here"))?;
                    run.keys.insert(stage, key);
                }
                Event::RunFinished { seconds, exit, .. } => run.end = Some((seconds, exit)),
                _ => {}
            }
        }
        Ok(run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinset_base::fs;
    use kinset_pipeline::event::Listener;
    use kinset_pipeline::journal::Journal;
    use kinset_store::Manifest;

    fn planned(stage: &str) -> Planned {
        Planned {
            stage: stage.into(),
            family: stage.into(),
            kind: "pixels".into(),
            seed: 1,
            varied: vec![],
            reads: BTreeMap::new(),
        }
    }

    #[test]
    fn what_was_told_is_read_back_even_if_the_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(dir.path().join("runs"));
        let key = Manifest::new("pixels", 1, &serde_json::json!({})).unwrap().key();
        let (pipeline, plan) = ("p".to_owned(), vec![planned("a"), planned("b")]);
        journal.hear(&Event::RunStarted { pipeline, file: String::new(), version: "1".into(), plan: plan.clone() });
        journal.hear(&Event::StageFresh { stage: "a".into(), key: key.hex() });
        let (stage, kind, why) = ("b".to_owned(), "pixels".to_owned(), "never ran".to_owned());
        journal.hear(&Event::StageStarted { stage, kind, key: key.hex(), why });
        let folder = journal.folder().unwrap();
        let file = folder.join("events.jsonl");
        let mut text = fs::read_text(&file).unwrap();
        text.push_str("{\"event\":\"stage-fini");
        fs::write_atomic(&file, text.as_bytes()).unwrap();

        let run = Run::read(&folder).unwrap();
        assert_eq!((run.pipeline.as_str(), &run.plan, run.end), ("p", &plan, None));
        assert_eq!(run.keys.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(run.keys["a"], key);
        assert_eq!(Run::read(&file).unwrap().keys.len(), 1, "the file may be named itself");
    }

    #[test]
    fn other_files_are_refused_with_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Run::read(&dir.path().join("x")).unwrap_err();
        assert_eq!((missing.exit(), missing.hint().is_some()), (Exit::Usage, true));
        for text in ["", "{}", "{\"event\":\"note\"}", "hello"] {
            let path = dir.path().join("events.jsonl");
            fs::write_atomic(&path, text.as_bytes()).unwrap();
            assert!(matches!(Run::read(dir.path()), Err(RunUnread::Other { .. })), "{text}");
        }
    }
}
