//! A measure over the values of a setting, mean and deviation over seeds.

use maud::{Markup, html};
use serde_json::Value as Json;

use super::figure::{Figure, color, num, short};
use super::scale::{Scale, tidy};
use crate::gather::page::{Measured, Sweep, SweepRow};
use kinset_math::stats;

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 184.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 38.0;
/// Lines that can be told apart; more combinations are put together.
const LINES: usize = 6;
/// Values that have room for their names.
const NAMED: usize = 9;

/// A value of the setting, by its place: mean, and deviation where there is one.
type Point = (usize, f64, Option<f64>);

/// The measure of this name in the table, over the setting with the most values; the others are lines. None if fewer than two values
/// have it. Values stand side by side at equal distances, in the order of the file: a rate of 0.001 is as far from 0.01 as that from 0.1.
pub fn chart(sweep: &Sweep, measure: &str, title: &str, factor: f64) -> Option<Figure> {
    let values_of = |setting: &String| {
        let mut values: Vec<&Json> = Vec::new();
        for value in sweep.rows.iter().filter_map(|row| row.values.get(setting)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        values
    };
    let across = sweep.settings.iter().rev().max_by_key(|setting| values_of(setting).len())?;
    let values = values_of(across);
    let lines = lines(sweep, measure, across, &values, factor);
    let at: Vec<usize> = lines.iter().flat_map(|(_, points)| points).map(|point| point.0).collect();
    if at.iter().min() == at.iter().max() {
        return None;
    }
    let x = Scale::new((0.0, (values.len() - 1) as f64), (LEFT + 10.0, WIDTH - RIGHT));
    let ends = lines.iter().flat_map(|(_, points)| points).flat_map(|(_, mean, std)| {
        let std = std.unwrap_or(0.0);
        [mean - std, mean + std]
    });
    let (low, high) = Scale::range(ends);
    let room = (high - low) * 0.06;
    let y = Scale::new((low - room, high + room), (HEIGHT - BOTTOM, TOP));
    let words: Vec<String> =
        values.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    let every = words.len().div_ceil(NAMED);
    let letters = (46 / words.len().div_ceil(every)).max(4);
    // Deviations of several lines would lie upon each other.
    let aside = |number: usize| 3.0 * (number as f64 - (lines.len() - 1) as f64 / 2.0);
    let body = html! {
        text.strong x="0" y="11" { (short(title, if lines.len() > 1 { 20 } else { 44 })) }
        @for (tick, word) in y.labels(4) {
            line.grid x1=(num(LEFT)) x2=(num(WIDTH - RIGHT)) y1=(num(y.at(tick))) y2=(num(y.at(tick))) {}
            text.soft.small.end x=(num(LEFT - 5.0)) y=(num(y.at(tick) + 3.2)) { (word) }
        }
        @for (place, word) in words.iter().enumerate().filter(|(place, _)| place % every == 0) {
            text.soft.small.mid x=(num(x.at(place as f64))) y=(num(HEIGHT - BOTTOM + 14.0)) { (short(word, letters)) }
        }
        text.faint.small.end x=(num(WIDTH - RIGHT)) y=(num(HEIGHT - 6.0)) { (short(across, 40)) }
        @for (number, (name, points)) in lines.iter().enumerate() { (drawn(name, points, number, &|place| x.at(place as f64) + aside(number), &words, &y)) }
        @if lines.len() > 1 { (legend(&lines)) }
    };
    let points_of =
        |points: &[Point]| points.iter().map(|point| format!("{} at {}", tidy(point.1), words[point.0])).collect::<Vec<_>>();
    let told: Vec<String> = lines.iter().map(|(name, points)| format!("{name} {}", points_of(points).join(", "))).collect();
    Some(Figure { width: WIDTH, height: HEIGHT, label: format!("{title} over {across}: {}", told.join("; ").trim()), body })
}

/// A line for each combination of the other settings, or a single one with the mean over them and their deviation.
fn lines(sweep: &Sweep, measure: &str, across: &str, values: &[&Json], factor: f64) -> Vec<(String, Vec<Point>)> {
    let others = |row: &SweepRow| {
        let others = sweep.settings.iter().filter(|setting| *setting != across);
        let words = others.filter_map(|setting| Some(format!("{setting}={}", row.values.get(setting)?).replace('"', "")));
        words.collect::<Vec<_>>().join(" ")
    };
    let mut lines: Vec<(String, Vec<Point>)> = Vec::new();
    for row in &sweep.rows {
        let place = row.values.get(across).and_then(|value| values.iter().position(|other| *other == value));
        let found: Option<&Measured> = row.measures.iter().find(|known| known.name == measure);
        let (Some(place), Some(found)) = (place, found) else { continue };
        let point = (place, found.mean * factor, found.std.map(|std| std * factor));
        let name = others(row);
        match lines.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.push(point),
            None => lines.push((name, vec![point])),
        }
    }
    if lines.len() > LINES {
        let each: Vec<Point> = lines.into_iter().flat_map(|(_, points)| points).collect();
        let of = |place: usize| -> Vec<f64> { each.iter().filter(|point| point.0 == place).map(|point| point.1).collect() };
        let all = (0..values.len()).map(|place| (place, of(place))).filter(|(_, means)| !means.is_empty());
        let points =
            all.map(|(place, means)| (place, stats::mean(&means), (means.len() > 1).then(|| stats::std(&means)))).collect();
        return vec![("mean over the other settings".into(), points)];
    }
    for (_, points) in &mut lines {
        points.sort_by_key(|point| point.0);
    }
    lines
}

fn drawn(name: &str, points: &[Point], number: usize, x: &dyn Fn(usize) -> f64, words: &[String], y: &Scale) -> Markup {
    let at: Vec<String> = points.iter().map(|(place, mean, _)| format!("{},{}", num(x(*place)), num(y.at(*mean)))).collect();
    html! {
        g class=(color(number)) {
            @if points.len() > 1 { polyline.line points=(at.join(" ")) {} }
            @for (place, mean, std) in points {
                @let across = num(x(*place));
                @if let Some(std) = std {
                    line.line x1=(across) x2=(across) y1=(num(y.at(mean - std))) y2=(num(y.at(mean + std))) {}
                }
                circle.dot cx=(across) cy=(num(y.at(*mean))) r="3" {
                    title { (name) " " (words[*place]) ": " (tidy(*mean)) @if let Some(std) = std { " ± " (tidy(*std)) } }
                }
            }
        }
    }
}

/// Names from the right to the left, beside the title.
fn legend(lines: &[(String, Vec<Point>)]) -> Markup {
    let shown = lines.len().min(3);
    let width = 190.0 / shown as f64;
    html! {
        @for (place, (name, _)) in lines.iter().take(shown).enumerate() {
            g class=(color(place)) {
                circle.dot cx=(num(106.0 + width * place as f64)) cy="7.5" r="3" {}
                text.soft.small x=(num(112.0 + width * place as f64)) y="11" { (short(name, (width / 5.6) as usize)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn row(values: &[(&str, Json)], mean: f64, std: Option<f64>) -> SweepRow {
        SweepRow {
            stage: String::new(),
            values: values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>(),
            seeds: vec![1],
            measures: vec![Measured { name: "acc", values: vec![mean], mean, std }],
            most: false,
        }
    }

    fn sweep(settings: &[&str], rows: Vec<SweepRow>) -> Sweep {
        let settings = settings.iter().map(|&name| name.to_owned()).collect();
        Sweep { stage: "scan".into(), images: String::new(), measured_by: None, settings, rows }
    }

    #[test]
    fn the_setting_with_most_values_lies_across_and_the_others_are_lines() {
        let mut rows = Vec::new();
        for (k, shift) in [("<5>", 0.0), ("20", 0.1)] {
            rows.extend([0.001, 0.01, 0.1].map(|lr| row(&[("k", json!(k)), ("lr", json!(lr))], 0.5 + shift, Some(0.02))));
        }
        let figure = chart(&sweep(&["k", "lr"], rows), "acc", "ACC %", 100.0).unwrap();
        let svg = figure.inline().into_string();
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 6 + 2), "{svg}");
        assert!(svg.contains("k=&lt;5&gt;") && !svg.contains("<5>") && svg.contains(">0.001<"), "{svg}");
        assert!(figure.label.contains("ACC % over lr") && figure.label.contains("60 at 0.1"), "{}", figure.label);
    }

    #[test]
    fn many_combinations_are_one_line_with_their_spread_and_one_value_is_none() {
        let rows: Vec<SweepRow> = (0..20)
            .flat_map(|k| [0.1, 0.2].map(|lr| row(&[("k", json!(k)), ("lr", json!(lr))], f64::from(k) / 20.0 + lr, None)))
            .collect();
        let across_k = chart(&sweep(&["k", "lr"], rows.clone()), "acc", "ACC", 1.0).unwrap().inline().into_string();
        assert_eq!(across_k.matches("<polyline").count(), 2);
        let many: Vec<SweepRow> = (0..9)
            .flat_map(|k| (0..9).map(move |lr| row(&[("k", json!(k)), ("lr", json!(lr))], f64::from(k + lr), None)))
            .collect();
        let together = chart(&sweep(&["k", "lr"], many), "acc", "ACC", 1.0).unwrap();
        assert!(together.label.contains("mean over the other settings 4 at 0, 5 at 1"), "{}", together.label);
        assert!(chart(&sweep(&["lr"], rows[..1].to_vec()), "acc", "ACC", 1.0).is_none());
        assert!(chart(&sweep(&["lr"], rows), "nmi", "NMI", 1.0).is_none(), "what was not measured");
    }
}
