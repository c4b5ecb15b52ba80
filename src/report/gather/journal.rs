//! The last run that did something, read from its events, which may break off anywhere.

use std::collections::BTreeMap;
use std::path::Path;

use kinset_artifact::curve::Point;
use kinset_base::fs;
use kinset_pipeline::event::Event;
use kinset_pipeline::journal;

/// Runs that are looked through for the first half of a training that was interrupted.
const RUNS: usize = 20;
/// Warnings that are kept.
const WARNINGS: usize = 50;

/// What a run said.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Journal {
    /// Its folder.
    pub(super) began: String,
    /// The version of kinset.
    pub(super) version: String,
    pub(super) stages: BTreeMap<String, Told>,
    /// Stage and words.
    pub(super) warnings: Vec<(String, String)>,
    /// Wall clock; nothing if it did not end.
    pub(super) seconds: Option<f64>,
    pub(super) exit: Option<u8>,
}

/// What a run said of a stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    /// `ran`, `cached`, `failed`, `stopped`, `blocked`, `adopted`, `began`, `waited`.
    pub(super) word: &'static str,
    /// The error and its causes.
    pub(super) error: Option<String>,
    pub(super) hint: Option<String>,
}

/// The newest event file: its run and its size, which say cheaply whether anything happened since.
pub(super) fn newest(runs: &Path) -> Option<(String, u64)> {
    let file = journal::files(runs).pop()?;
    let size = fs::metadata(&file).ok().flatten()?.len();
    Some((journal::run_of(&file), size))
}

impl Journal {
    /// The last run below `runs/`, if there is one.
    pub(super) fn last(runs: &Path) -> Option<Self> {
        let file = journal::files(runs).pop()?;
        let mut journal = Self { began: journal::run_of(&file), ..Self::default() };
        for event in journal::events(&file).ok()? {
            journal.hear(event);
        }
        Some(journal)
    }

    fn hear(&mut self, event: Event) {
        let mut say = |stage, word| {
            self.stages.insert(stage, Told { word, ..Told::default() });
        };
        match event {
            Event::RunStarted { version, .. } => self.version = version.into_owned(),
            Event::RunFinished { seconds, exit, .. } => (self.seconds, self.exit) = (Some(seconds), Some(exit)),
            Event::StageFresh { stage, .. } => say(stage, "cached"),
            Event::StagePulled { stage, .. } => say(stage, "from a cache"),
            Event::StageWaiting { stage, .. } => say(stage, "waited"),
            Event::StageStarted { stage, .. } => say(stage, "began"),
            Event::StageFinished { stage, adopted: true, .. } => say(stage, "adopted"),
            Event::StageFinished { stage, .. } => say(stage, "ran"),
            Event::StageStopped { stage } => say(stage, "stopped"),
            Event::StageFailed { stage, error, hint } => {
                self.stages.insert(stage, Told { word: "failed", error: Some(error), hint });
            }
            Event::StageBlocked { stage, by } => {
                let error = Some(format!("`{by}` has no result"));
                self.stages.insert(stage, Told { word: "blocked", error, hint: None });
            }
            Event::Warning { stage, text } if self.warnings.len() < WARNINGS => self.warnings.push((stage, text)),
            Event::Warning { .. } | Event::Metric { .. } | Event::Progress { .. } | Event::Note { .. } | Event::Job { .. } => {}
        }
    }

    /// Stages of which this was the last word.
    pub(super) fn those(&self, words: &[&str]) -> Vec<String> {
        self.stages.iter().filter(|(_, told)| words.contains(&told.word)).map(|(stage, _)| stage.clone()).collect()
    }

    /// How many stages this was the last word of.
    pub(super) fn count(&self, word: &str) -> usize {
        self.stages.values().filter(|told| told.word == word).count()
    }
}

/// The epochs that an unfinished training got to, over the last runs that worked on this key. What was measured again counts
/// as it was measured last.
pub(super) fn progress(runs: &Path, stage: &str, key: &str) -> Vec<Point> {
    let mut found: BTreeMap<u32, Vec<(String, f64)>> = BTreeMap::new();
    let files = journal::files(runs);
    for file in &files[files.len().saturating_sub(RUNS)..] {
        let mut ours = false;
        for event in journal::events(file).into_iter().flatten() {
            match event {
                Event::StageStarted { stage: begun, key: of, .. } if begun == stage => ours = of == key,
                Event::Metric { stage: measured, step, name, value } if ours && measured == stage => {
                    let step = found.entry(u32::try_from(step).unwrap_or(u32::MAX)).or_default();
                    match step.iter_mut().find(|(known, _)| *known == name) {
                        Some(known) => known.1 = value,
                        None => step.push((name, value)),
                    }
                }
                _ => {}
            }
        }
    }
    let of_step =
        |(step, values): (u32, Vec<(String, f64)>)| values.into_iter().map(move |(name, value)| Point { step, name, value });
    found.into_iter().flat_map(of_step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(runs: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in runs {
            fs::create_folders(&dir.path().join(name)).unwrap();
            fs::write_atomic(&dir.path().join(name).join("events.jsonl"), text.as_bytes()).unwrap();
        }
        dir
    }

    #[test]
    fn the_last_word_of_each_stage_counts_and_a_broken_line_does_no_harm() {
        let dir = folder(&[
            ("2026-01-01T00-00-00.000Z", "{\"event\":\"run-started\",\"pipeline\":\"p\",\"version\":\"0.0.1\",\"plan\":[]}\n"),
            (
                "2026-01-02T00-00-00.000Z",
                concat!(
                    "{\"event\":\"run-started\",\"pipeline\":\"p\",\"version\":\"0.1.0\",\"plan\":[]}\n",
                    "{\"event\":\"stage-fresh\",\"stage\":\"a\",\"key\":\"1\"}\n",
                    "{\"event\":\"stage-started\",\"stage\":\"b\",\"kind\":\"k\",\"key\":\"2\",\"why\":\"\"}\n",
                    "{\"event\":\"warning\",\"stage\":\"b\",\"text\":\"<b>\"}\n",
                    "{\"event\":\"stage-failed\",\"stage\":\"b\",\"error\":\"no\",\"hint\":null}\n",
                    "{\"event\":\"stage-blocked\",\"stage\":\"c\",\"by\":\"b\"}\n",
                    "{\"event\":\"stage-started\",\"stage\":\"d\",\"kind\":\"k\",\"key\":\"3\",\"why\":\"\"}\n",
                    "{\"event\":\"run-fin",
                ),
            ),
        ]);
        let journal = Journal::last(dir.path()).unwrap();
        assert_eq!((journal.began.as_str(), journal.version.as_str()), ("2026-01-02T00-00-00.000Z", "0.1.0"));
        let words: Vec<&str> = journal.stages.values().map(|told| told.word).collect();
        assert_eq!(words, ["cached", "failed", "blocked", "began"]);
        assert_eq!(journal.stages["c"].error.as_deref(), Some("`b` has no result"));
        assert_eq!((journal.seconds, journal.exit), (None, None), "it never ended");
        assert_eq!(journal.warnings, [("b".to_owned(), "<b>".to_owned())]);
        assert_eq!(Journal::last(&dir.path().join("nowhere")), None);
    }

    #[test]
    fn a_training_in_two_halves_is_one_curve_and_another_key_is_no_part_of_it() {
        let started = |key: &str| {
            format!("{{\"event\":\"stage-started\",\"stage\":\"s\",\"kind\":\"k\",\"key\":\"{key}\",\"why\":\"\"}}\n")
        };
        let metric = |step: u32, value: f64| {
            format!("{{\"event\":\"metric\",\"stage\":\"s\",\"step\":{step},\"name\":\"loss\",\"value\":{value}}}\n")
        };
        let dir = folder(&[
            ("1", &format!("{}{}", started("other"), metric(9, 7.0))),
            ("2", &format!("{}{}{}", started("k"), metric(1, 3.0), metric(2, 2.5))),
            ("3", &format!("{}{}{}", started("k"), metric(2, 2.0), metric(3, 1.0))),
        ]);
        let points: Vec<(u32, f64)> = progress(dir.path(), "s", "k").iter().map(|point| (point.step, point.value)).collect();
        assert_eq!(points, [(1, 3.0), (2, 2.0), (3, 1.0)]);
    }
}
