//! The stages and what flows between them. Repetitions share a box.

use std::collections::BTreeSet;

use maud::html;

use super::figure::{Figure, num, short};
use super::layers::layout;
use crate::gather::page::{StageRow, Wire};
use kinset_base::unit;

const WIDTH: f64 = 172.0;
const HEIGHT: f64 = 42.0;
const GAP: f64 = 16.0;
const DOWN: f64 = 34.0;

/// The stages of a pipeline.
pub fn dag(stages: &[StageRow], wires: &[Wire]) -> Figure {
    let mut families: Vec<&str> = Vec::new();
    for stage in stages {
        if !families.contains(&stage.family.as_str()) {
            families.push(&stage.family);
        }
    }
    let family = |stage: usize| families.iter().position(|name| *name == stages[stage].family).unwrap_or(0);
    let pairs: BTreeSet<(usize, usize)> = wires
        .iter()
        .filter(|wire| wire.from < stages.len() && wire.to < stages.len())
        .map(|wire| (family(wire.from), family(wire.to)))
        .collect();
    let pairs: Vec<(usize, usize)> = pairs.into_iter().collect();
    let artifacts = |&(from, to): &(usize, usize)| -> String {
        let ours = wires.iter().filter(|wire| (family(wire.from), family(wire.to)) == (from, to));
        ours.map(|wire| wire.artifact.as_str()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
    };
    let placed = layout(families.len(), &pairs, WIDTH, GAP);
    let top = |layer: usize| 4.0 + layer as f64 * (HEIGHT + DOWN);
    let body = html! {
        @for (way, pair) in placed.ways.iter().zip(&pairs) {
            path.wire d=(path(way, &top)) { title { (families[pair.0]) " → " (families[pair.1]) ": " (artifacts(pair)) } }
        }
        @for (place, name) in families.iter().enumerate() {
            @let twins: Vec<&StageRow> = stages.iter().filter(|stage| stage.family == *name).collect();
            @let (class, word) = standing(&twins);
            @let (x, y) = (placed.across[place] - WIDTH / 2.0, top(placed.layer[place]));
            g class=(class) {
                rect.box x=(num(x)) y=(num(y)) width=(num(WIDTH)) height=(num(HEIGHT)) rx="7" {}
                circle.lamp cx=(num(x + 12.0)) cy=(num(y + 14.5)) r="3.6" {}
                text.strong x=(num(x + 21.0)) y=(num(y + 18.0)) { (short(name, 21)) title { (name) } }
                text.soft.small x=(num(x + 21.0)) y=(num(y + 32.0)) { (short(&twins[0].kind, 12)) " · " (word) }
            }
        }
    };
    let height = top(placed.layers) - DOWN + 8.0;
    let label = format!("The {} stages and what flows between them; the table below says the same.", families.len());
    // Room for the lines of the outermost boxes.
    let body = html! { g transform="translate(1 0)" { (body) } };
    Figure { width: placed.width + 2.0, height: height.max(10.0), label, body }
}

/// A line through its places: straight through boxes' layers, bent between them.
fn path(way: &[(f64, usize)], top: &impl Fn(usize) -> f64) -> String {
    let mut path = String::new();
    for pair in way.windows(2) {
        let ((from, above), (to, below)) = (pair[0], pair[1]);
        let (start, end) = (top(above) + HEIGHT, top(below));
        let middle = num(start.midpoint(end));
        if path.is_empty() {
            path = format!("M{},{}", num(from), num(start));
        } else {
            path.push_str(&format!("V{}", num(start)));
        }
        path.push_str(&format!("C{},{middle} {},{middle} {},{}", num(from), num(to), num(to), num(end)));
    }
    path
}

/// The class and the word of a box: what needs attention comes first.
fn standing(twins: &[&StageRow]) -> (&'static str, String) {
    let count = twins.len();
    let times = if count > 1 { format!("{count} × ") } else { String::new() };
    let some = |n: usize, word: &str| if count > 1 { format!("{n} of {count} {word}") } else { word.to_owned() };
    let of = |is: &dyn Fn(&StageRow) -> bool| twins.iter().filter(|stage| is(stage)).count();
    let open = |stage: &StageRow| stage.state != "fresh";
    let said = |stage: &StageRow, word: &str| stage.last.as_deref() == Some(word);
    let failed = of(&|stage| open(stage) && said(stage, "failed"));
    let broken = of(&|stage| stage.state == "broken");
    let stopped = of(&|stage| open(stage) && (said(stage, "stopped") || said(stage, "began")));
    let waiting = of(&open);
    if failed > 0 {
        ("wrong", some(failed, "failed"))
    } else if broken > 0 {
        ("wrong", some(broken, "broken"))
    } else if stopped > 0 {
        ("held", some(stopped, "stopped"))
    } else if waiting > 0 {
        ("todo", some(waiting, if twins.iter().any(|stage| stage.state == "waits") { "waits" } else { "to run" }))
    } else {
        let seconds: f64 = twins.iter().filter_map(|stage| stage.seconds).sum();
        let time = unit::duration(std::time::Duration::from_secs_f64(seconds.max(0.0)));
        let ran = twins.iter().any(|stage| said(stage, "ran") || said(stage, "adopted"));
        ("ok", format!("{times}{} · {time}", if ran { "ran" } else { "cached" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, family: &str, state: &str, last: &str) -> StageRow {
        StageRow {
            name: name.into(),
            family: family.into(),
            kind: "scan".into(),
            state: state.into(),
            last: (!last.is_empty()).then(|| last.into()),
            seconds: (state == "fresh").then_some(1.0),
            ..StageRow::default()
        }
    }

    #[test]
    fn repetitions_share_a_box_and_states_are_written_out() {
        let stages = [
            stage("data.a", "data.a", "fresh", "cached"),
            stage("s@1", "s", "fresh", "ran"),
            stage("s@2", "s", "to run", "failed"),
            stage("<t>", "<t>", "waits", ""),
        ];
        let wire = |from, to| Wire { from, to, artifact: "images".into() };
        let figure = dag(&stages, &[wire(0, 1), wire(0, 2), wire(1, 3), wire(2, 3)]);
        let svg = figure.inline().into_string();
        assert_eq!((svg.matches("class=\"box\"").count(), svg.matches("class=\"wire\"").count()), (3, 2));
        for words in ["cached · 1.0 s", "1 of 2 failed", "&lt;t&gt;", "waits"] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(figure.width > WIDTH && figure.height > 3.0 * HEIGHT);
    }
}
