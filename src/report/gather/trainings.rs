//! Training curves, of every stage that has one: repetitions as lines of the same chart, and what an unfinished training got to.

use std::path::Path;

use super::inputs::Results;
use super::journal;
use super::page::{Best, Chart, CountTable, Line, StageRow, Training};
use kinset_artifact::curve::{Curve, Point};
use kinset_artifact::k_table::{KSweep, KTable};

/// Points of a line; a longer one is thinned.
const POINTS: usize = 400;
/// Repetitions, or combinations of settings, that are drawn.
const LINES: usize = 12;
/// What begins so was measured in validation, and shares a chart with the same in training.
const VALIDATION: &str = "val_";

/// All trainings, in the order of the file.
pub(super) fn trainings(results: &Results<'_>, rows: &[StageRow], runs: &Path) -> Vec<Training> {
    let mut all: Vec<Training> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for row in rows {
        if seen.contains(&row.family.as_str()) {
            continue;
        }
        seen.push(&row.family);
        // Where settings vary, of each combination the first seed.
        let varies = rows.iter().any(|twin| twin.family == row.family && twin.variant != row.variant);
        let first = |place: usize, twin: &StageRow| !rows[..place].iter().any(|other| other.variant == twin.variant);
        let twins = || {
            let twins = rows.iter().enumerate().filter(|(_, twin)| twin.family == row.family);
            twins.filter(move |(place, twin)| !varies || first(*place, twin))
        };
        let label = |twin: &StageRow| match twin.variant.strip_prefix(&format!("{}@", row.family)) {
            Some(settings) if varies => settings.to_owned(),
            _ => twin.name.clone(),
        };
        let mut curves: Vec<(String, Vec<Point>)> = Vec::new();
        for (node, twin) in twins().take(LINES) {
            let curve = results.get::<Curve>(node).and_then(|stored| Curve::load(&stored).ok());
            if let Some(curve) = curve.filter(|curve| !curve.points.is_empty()) {
                curves.push((label(twin), curve.points));
            }
        }
        let unfinished = curves.is_empty();
        if unfinished {
            for (_, twin) in twins().take(LINES).filter(|(_, twin)| twin.state == "to run") {
                let points = journal::progress(runs, &twin.name, twin.key.as_deref().unwrap_or_default());
                if !points.is_empty() {
                    curves.push((label(twin), points));
                }
            }
        }
        if curves.is_empty() {
            continue;
        }
        // Of one combination only it would be taken for that of all.
        let best = curves.first().filter(|_| !varies).and_then(|(_, points)| best(points));
        let (stage, kind) = (row.family.clone(), row.kind.clone());
        all.push(Training { stage, kind, unfinished, charts: charts(&curves), best });
    }
    all
}

/// A chart for each measure; those that belong together share one if there are no repetitions.
fn charts(curves: &[(String, Vec<Point>)]) -> Vec<Chart> {
    let mut names: Vec<&str> = Vec::new();
    for point in curves.iter().flat_map(|(_, points)| points) {
        if !names.contains(&point.name.as_str()) {
            names.push(&point.name);
        }
    }
    let mut charts: Vec<Chart> = Vec::new();
    for &name in &names {
        let lines = |label: &dyn Fn(&str) -> String| -> Vec<Line> {
            let of = |(stage, points): &(String, Vec<Point>)| {
                let points = points.iter().filter(|point| point.name == name).map(|p| (f64::from(p.step), p.value)).collect();
                Line { name: label(stage), points: thinned(points) }
            };
            curves.iter().map(of).filter(|line| !line.points.is_empty()).collect()
        };
        if let [_] = curves {
            // A partner that came before takes this one in.
            let partner = name.strip_prefix(VALIDATION);
            if let Some(chart) = partner.and_then(|partner| charts.iter_mut().find(|chart| chart.name == partner)) {
                if let [first] = chart.lines.as_mut_slice() {
                    first.name = "training".into();
                }
                chart.lines.extend(lines(&|_| "validation".to_owned()));
                continue;
            }
            charts.push(Chart { name: name.to_owned(), lines: lines(&|_| String::new()) });
        } else {
            charts.push(Chart { name: name.to_owned(), lines: lines(&|stage| stage.to_owned()) });
        }
    }
    charts
}

/// Every so many points, the last always.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points.into_iter().enumerate().filter(|(place, _)| place % step == 0 || *place == last).map(|(_, point)| point).collect()
}

/// The epoch that a validation loss would choose, beside the last: stages with such a loss keep that epoch's weights.
fn best(points: &[Point]) -> Option<Best> {
    let loss: Vec<&Point> = points.iter().filter(|point| point.name == "val_loss").collect();
    let least = loss.iter().min_by(|a, b| a.value.total_cmp(&b.value).then(a.step.cmp(&b.step)))?;
    let last = loss.last()?;
    Some(Best { by: "val_loss".into(), step: least.step, value: least.value, last_step: last.step, last: last.value })
}

/// The tables that compare numbers of clusters.
pub(super) fn counts(results: &Results<'_>) -> Vec<CountTable> {
    let load = |node: usize| {
        let sweep = KSweep::load(&results.get::<KTable>(node)?).ok()?;
        let mut criteria: Vec<&str> = Vec::new();
        for point in &sweep.points {
            if !criteria.contains(&point.criterion.as_str()) {
                criteria.push(&point.criterion);
            }
        }
        let chart = |criterion: &&str| {
            // The mean over seeds at each K.
            let mut points: Vec<(f64, f64, f64)> = Vec::new();
            for (k, value) in sweep.values(criterion) {
                match points.iter_mut().find(|point| point.0.total_cmp(&f64::from(k)).is_eq()) {
                    Some(point) => (point.1, point.2) = (point.1 + value, point.2 + 1.0),
                    None => points.push((f64::from(k), value, 1.0)),
                }
            }
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let points = points.into_iter().map(|(k, sum, count)| (k, sum / count)).collect();
            Chart { name: (*criterion).to_owned(), lines: vec![Line { name: String::new(), points }] }
        };
        Some(CountTable {
            stage: results.name(node).to_owned(),
            chosen: sweep.chosen,
            named_by: sweep.named_by(),
            agreed: sweep.is_agreed(),
            rule: sweep.rule.clone(),
            votes: sweep.votes.clone(),
            charts: criteria.iter().map(chart).filter(|chart| chart.lines[0].points.len() > 1).collect(),
        })
    };
    (0..results.spec.nodes.len()).filter_map(load).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(name: &str, values: &[f64]) -> Vec<Point> {
        values.iter().enumerate().map(|(step, &value)| Point { step: step as u32 + 1, name: name.into(), value }).collect()
    }

    #[test]
    fn validation_stands_beside_training_and_repetitions_beside_each_other() {
        let one = [points("loss", &[3.0, 2.0]), points("val_loss", &[2.0, 2.5]), points("lr", &[0.1, 0.1])].concat();
        let alone = charts(&[("s".to_owned(), one.clone())]);
        let names: Vec<(&str, Vec<&str>)> = alone
            .iter()
            .map(|chart| (chart.name.as_str(), chart.lines.iter().map(|line| line.name.as_str()).collect()))
            .collect();
        assert_eq!(names, [("loss", vec!["training", "validation"]), ("lr", vec![""])]);
        let twice = charts(&[("s@1".to_owned(), one.clone()), ("s@2".to_owned(), one.clone())]);
        assert_eq!(twice.len(), 3);
        assert_eq!(twice[0].lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), ["s@1", "s@2"]);
        let best = best(&one).unwrap();
        assert_eq!((best.step, best.value, best.last_step, best.last), (1, 2.0, 2, 2.5));
    }

    #[test]
    fn long_lines_are_thinned_and_keep_their_ends() {
        let line = thinned((0..1001).map(|i| (f64::from(i), 0.0)).collect());
        assert!(line.len() <= POINTS + 1 && line.len() > POINTS / 2);
        assert!((line[0].0, line[line.len() - 1].0) == (0.0, 1000.0));
    }
}
