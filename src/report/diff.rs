//! Two pipelines, or two runs, beside each other: which settings differ, which results, and what the scores say.
//!
//! Stages are paired by name, those left over by kind where each side has one of a kind. A result is the same if it says the
//! same, however it came about.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::journal::Run;
use super::scores::{self, Scored};
use kinset_artifact::scores::MEASURES;
use kinset_math::stats;
use kinset_pipeline::error::RunError;
use kinset_pipeline::event::Planned;
use kinset_pipeline::state::{Known, Outlook, State};
use kinset_store::key::Manifest;
use kinset_store::manifest_diff::{Difference, differences, differences_of};
use kinset_store::record::Record;
use kinset_store::{Lookup, Store};

/// One of the two.
#[derive(Debug)]
pub struct Side {
    pub title: String,
    /// Its stages, in the order of the pipeline file.
    pub stages: Vec<SideStage>,
    pub scores: Vec<Scored>,
}

/// A stage of one of the two.
#[derive(Debug)]
pub struct SideStage {
    pub planned: Planned,
    /// Its settings with all defaults, as far as they are known.
    pub settings: Option<Value>,
    /// What its key is made of, if all it reads is there.
    pub manifest: Option<Manifest>,
    pub record: Option<Record>,
}

impl Side {
    /// A pipeline as it stands.
    pub fn of_pipeline(title: String, outlook: &Outlook<'_>) -> Result<Self, RunError> {
        let mut known = Known::new();
        let states = outlook.states(&BTreeSet::new());
        for (place, state) in states.iter().enumerate() {
            if let State::Fresh { record, .. } = state {
                known.insert(place, (**record).clone());
            }
        }
        let plan = Planned::of(outlook.spec);
        let scores = scores::of_plan(&plan, outlook.store, |place| known.get(&place))?;
        let mut stages = Vec::with_capacity(plan.len());
        for (place, (planned, state)) in plan.into_iter().zip(states).enumerate() {
            let node = &outlook.spec.nodes[place];
            let settings = Some(outlook.stage(node)?.manifest(&node.settings)?.settings().clone());
            let (manifest, record) = match state {
                State::Fresh { manifest, record } => (Some(manifest), Some(*record)),
                State::Stale { .. } => (outlook.inputs(node, &known).ok().map(|inputs| inputs.manifest), None),
                State::Waits { .. } | State::Broken { .. } => (None, None),
            };
            stages.push(SideStage { planned, settings, manifest, record });
        }
        Ok(Self { title, stages, scores })
    }

    /// A run as its journal has it, over the store it wrote into. What the store has given up since is missing.
    pub fn of_run(title: String, run: &Run, store: &Store) -> Result<Self, RunError> {
        let mut records = Known::new();
        for (place, planned) in run.plan.iter().enumerate() {
            if let Some(key) = run.keys.get(&planned.stage)
                && let Lookup::Hit(record) = store.lookup(key)?
            {
                records.insert(place, record);
            }
        }
        let scores = scores::of_plan(&run.plan, store, |place| records.get(&place))?;
        let mut stages = Vec::with_capacity(run.plan.len());
        for (place, planned) in run.plan.iter().enumerate() {
            let manifest = match run.keys.get(&planned.stage) {
                Some(key) => store.manifest(&planned.kind, key)?,
                None => None,
            };
            let settings = manifest.as_ref().map(|manifest| manifest.settings().clone());
            stages.push(SideStage { planned: planned.clone(), settings, manifest, record: records.remove(&place) });
        }
        Ok(Self { title, stages, scores })
    }
}

/// Two beside each other.
#[derive(Debug, Serialize)]
pub struct Diff {
    pub left: String,
    pub right: String,
    /// The stages, in the order of the left one; those that only the right one has come last.
    pub stages: Vec<StageDiff>,
    /// The scores that either has.
    pub scores: Vec<ScoreDiff>,
}

/// Which sides have a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    Both,
    Left,
    Right,
}

/// A stage on both sides.
#[derive(Debug, Serialize)]
pub struct StageDiff {
    /// Its name left, or right where only that has it.
    pub stage: String,
    /// Its name right, where that is another.
    pub right_name: Option<String>,
    pub kind: String,
    pub presence: Presence,
    /// Kind, version, settings, seed, numerics: what differs, `settings.epochs` first.
    pub fields: Vec<Field>,
    /// Ports that read something else.
    pub inputs: Vec<String>,
    /// Outputs that say something else; empty also where a side has no result.
    pub outputs: Vec<String>,
    /// True if one side has a result and the other has none yet.
    pub waits: bool,
    /// How long it took left and right, seconds, where there is a result.
    pub seconds: [Option<f64>; 2],
}

/// A field that differs.
#[derive(Debug, PartialEq, Serialize)]
pub struct Field {
    /// The way to it.
    pub field: String,
    pub left: Option<Value>,
    pub right: Option<Value>,
    /// Both in a sentence.
    pub text: String,
}

impl StageDiff {
    /// True if nothing differs: both sides have the same result, or neither has one and nothing that decides it differs.
    pub fn same(&self) -> bool {
        self.presence == Presence::Both
            && !self.waits
            && self.fields.is_empty()
            && self.inputs.is_empty()
            && self.outputs.is_empty()
    }
}

/// A score on both sides.
#[derive(Debug, PartialEq, Serialize)]
pub struct ScoreDiff {
    /// The stage that was measured, by its left name.
    pub stage: String,
    /// The images it was measured on.
    pub images: String,
    /// The name of one of [`MEASURES`].
    pub score: &'static str,
    /// Mean over seeds left, 0–1.
    pub left: Option<Spread>,
    /// Mean over seeds right, 0–1.
    pub right: Option<Spread>,
}

/// Mean and spread over repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub mean: f64,
    /// The standard deviation of a sample; 0 for a single run.
    pub std: f64,
    pub runs: usize,
}

pub fn compare(left: &Side, right: &Side) -> Diff {
    let pairs = pairs(left, right);
    let mut stages = Vec::new();
    let mut renamed = BTreeMap::new();
    for (a, b) in pairs {
        let (a, b) = (a.map(|at| &left.stages[at]), b.map(|at| &right.stages[at]));
        if let (Some(a), Some(b)) = (a, b) {
            renamed.insert(b.planned.variant().to_owned(), a.planned.variant().to_owned());
        }
        stages.extend(stage(a, b));
    }
    Diff { left: left.title.clone(), right: right.title.clone(), stages, scores: score(&left.scores, &right.scores, &renamed) }
}

/// Places of stages that belong together.
fn pairs(left: &Side, right: &Side) -> Vec<(Option<usize>, Option<usize>)> {
    let find = |name: &str| right.stages.iter().position(|stage| stage.planned.stage == name);
    let mut partner: Vec<Option<usize>> = left.stages.iter().map(|stage| find(&stage.planned.stage)).collect();
    let free = |stages: &[SideStage], taken: &dyn Fn(usize) -> bool| {
        let mut by_kind: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, stage) in stages.iter().enumerate().filter(|(at, _)| !taken(*at)) {
            by_kind.entry(stage.planned.kind.clone()).or_default().push(at);
        }
        by_kind
    };
    let taken: BTreeSet<usize> = partner.iter().flatten().copied().collect();
    let of_right = free(&right.stages, &|at| taken.contains(&at));
    let of_left = free(&left.stages, &|at| partner[at].is_some());
    for (kind, at) in of_left {
        if let ([a], Some([b])) = (at.as_slice(), of_right.get(&kind).map(Vec::as_slice)) {
            partner[*a] = Some(*b);
        }
    }
    let taken: BTreeSet<usize> = partner.iter().flatten().copied().collect();
    let only_right = (0..right.stages.len()).filter(|at| !taken.contains(at)).map(|at| (None, Some(at)));
    partner.into_iter().enumerate().map(|(a, b)| (Some(a), b)).chain(only_right).collect()
}

fn stage(left: Option<&SideStage>, right: Option<&SideStage>) -> Option<StageDiff> {
    let named = left.or(right)?;
    let presence = match (left, right) {
        (Some(_), Some(_)) => Presence::Both,
        (Some(_), None) => Presence::Left,
        _ => Presence::Right,
    };
    let seconds = [left, right].map(|side| side?.record.as_ref().map(|record| record.seconds));
    let waits = presence == Presence::Both && seconds[0].is_some() != seconds[1].is_some();
    let (mut fields, mut inputs, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
    if let (Some(a), Some(b)) = (left, right) {
        let found: Vec<Difference> = match (&a.manifest, &b.manifest) {
            (Some(a), Some(b)) => differences(a, b),
            _ => match (&a.settings, &b.settings) {
                (Some(a), Some(b)) => differences_of("settings", a, b),
                _ => Vec::new(),
            },
        };
        for difference in found {
            match difference.port() {
                Some(port) if !inputs.contains(&port.to_owned()) => inputs.push(port.to_owned()),
                Some(_) => {}
                None => {
                    let text = difference.to_string();
                    fields.push(Field { field: difference.path, left: difference.old, right: difference.new, text });
                }
            }
        }
        if let (Some(a), Some(b)) = (&a.record, &b.record) {
            let names: BTreeSet<&String> = a.outputs.keys().chain(b.outputs.keys()).collect();
            let content = |record: &Record, name: &String| record.outputs.get(name).map(|output| output.content);
            outputs = names.into_iter().filter(|name| content(a, name) != content(b, name)).cloned().collect();
        }
    }
    Some(StageDiff {
        stage: named.planned.stage.clone(),
        right_name: right.map(|stage| stage.planned.stage.clone()).filter(|name| *name != named.planned.stage),
        kind: named.planned.kind.clone(),
        presence,
        fields,
        inputs,
        outputs,
        waits,
        seconds,
    })
}

fn score(left: &[Scored], right: &[Scored], renamed: &BTreeMap<String, String>) -> Vec<ScoreDiff> {
    let by_left = |name: &String| renamed.get(name).unwrap_or(name).clone();
    let mut rows: Vec<(String, String)> = Vec::new();
    let names = left.iter().map(|row| (row.stage.clone(), row.images.clone()));
    for name in names.chain(right.iter().map(|row| (by_left(&row.stage), by_left(&row.images)))) {
        if !rows.contains(&name) {
            rows.push(name);
        }
    }
    let mut found = Vec::new();
    for (stage, images) in rows {
        for measure in MEASURES {
            let spread = |values: Vec<f64>| {
                (!values.is_empty()).then(|| Spread {
                    mean: stats::mean(&values),
                    std: stats::std(&values),
                    runs: values.len(),
                })
            };
            let a = left.iter().filter(|row| row.stage == stage && row.images == images);
            let b = right.iter().filter(|row| by_left(&row.stage) == stage && by_left(&row.images) == images);
            let (a, b) = (
                spread(a.filter_map(|row| measure.told(&row.row)).collect()),
                spread(b.filter_map(|row| measure.told(&row.row)).collect()),
            );
            if a.is_some() || b.is_some() {
                found.push(ScoreDiff { stage: stage.clone(), images: images.clone(), score: measure.name, left: a, right: b });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use kinset_artifact::scores::ScoreRow;

    fn side(title: &str, stages: &[(&str, &str, Value)], scores: &[(&str, u64, f64)]) -> Side {
        let stage = |(name, kind, settings): &(&str, &str, Value)| SideStage {
            planned: Planned {
                stage: (*name).into(),
                family: (*name).into(),
                kind: (*kind).into(),
                seed: 1,
                varied: Vec::new(),
                reads: BTreeMap::new(),
            },
            settings: Some(settings.clone()),
            manifest: None,
            record: None,
        };
        let scored = |(stage, seed, acc): &(&str, u64, f64)| Scored {
            judge: "scores".into(),
            measured_by: "scores".into(),
            measured: (*stage).into(),
            varied: Vec::new(),
            stage: (*stage).into(),
            made_by: Some((*stage).into()),
            images: "data.test".into(),
            seed: *seed,
            row: ScoreRow { acc: Some(*acc), ..ScoreRow::default() },
        };
        Side { title: title.into(), stages: stages.iter().map(stage).collect(), scores: scores.iter().map(scored).collect() }
    }

    #[test]
    fn stages_pair_by_name_then_by_kind_and_settings_are_told_apart() {
        let left = side(
            "a",
            &[("data.test", "ingest", json!({})), ("pretext", "simclr", json!({"epochs": 5})), ("cluster", "scan", json!({}))],
            &[("cluster", 1, 0.5)],
        );
        let right = side(
            "b",
            &[
                ("data.test", "ingest", json!({})),
                ("scan", "scan", json!({})),
                ("pretext", "simclr", json!({"epochs": 9})),
                ("nnm", "nnm", json!({})),
            ],
            &[("scan", 1, 0.6), ("scan", 2, 0.8), ("nnm", 1, 0.1)],
        );
        let diff = compare(&left, &right);
        let said: Vec<(&str, Option<&str>, Presence, Vec<&str>)> = diff
            .stages
            .iter()
            .map(|s| {
                let fields = s.fields.iter().map(|field| field.text.as_str()).collect();
                (s.stage.as_str(), s.right_name.as_deref(), s.presence, fields)
            })
            .collect();
        assert_eq!(
            said,
            [
                ("data.test", None, Presence::Both, vec![]),
                ("pretext", None, Presence::Both, vec!["settings.epochs 5 → 9"]),
                ("cluster", Some("scan"), Presence::Both, vec![]),
                ("nnm", None, Presence::Right, vec![]),
            ]
        );
        let [of_cluster, of_nnm] = diff.scores.as_slice() else { panic!("{:?}", diff.scores) };
        assert_eq!((of_cluster.stage.as_str(), of_cluster.score), ("cluster", "acc"));
        let (a, b) = (of_cluster.left.unwrap(), of_cluster.right.unwrap());
        assert!((a.mean - 0.5).abs() < 1e-12 && (b.mean - 0.7).abs() < 1e-12 && (b.std - 0.02_f64.sqrt()).abs() < 1e-12);
        assert_eq!((a.runs, b.runs, of_nnm.left), (1, 2, None));
    }

    #[test]
    fn two_left_overs_of_a_kind_are_not_guessed_at() {
        let left = side("a", &[("x", "kmeans", json!({})), ("y", "kmeans", json!({}))], &[]);
        let right = side("b", &[("z", "kmeans", json!({}))], &[]);
        let presences: Vec<Presence> = compare(&left, &right).stages.iter().map(|stage| stage.presence).collect();
        assert_eq!(presences, [Presence::Left, Presence::Left, Presence::Right]);
    }
}
