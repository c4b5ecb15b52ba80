//! Line charts over training steps.

use maud::{Markup, html};

use super::figure::{Figure, color, num, short};
use super::scale::{Scale, tidy};
use crate::gather::page::{Chart, Line};

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 168.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 22.0;

/// A chart. `mark` is a step to point out; `unit` is what a step is.
pub fn chart(chart: &Chart, mark: Option<f64>, unit: &str) -> Figure {
    let points = || chart.lines.iter().flat_map(|line| line.points.iter().copied());
    let x = Scale::new(Scale::range(points().map(|point| point.0)), (LEFT, WIDTH - RIGHT));
    let (low, high) = Scale::range(points().map(|point| point.1));
    let room = (high - low) * 0.06;
    let y = Scale::new((low - room, high + room), (HEIGHT - BOTTOM, TOP));
    let named = chart.lines.len() > 1;
    let body = html! {
        text.strong x="0" y="11" { (short(&chart.name, if named { 20 } else { 44 })) }
        @for (tick, word) in y.labels(4) {
            line.grid x1=(num(LEFT)) x2=(num(WIDTH - RIGHT)) y1=(num(y.at(tick))) y2=(num(y.at(tick))) {}
            text.soft.small.end x=(num(LEFT - 5.0)) y=(num(y.at(tick) + 3.2)) { (word) }
        }
        @for (tick, word) in x.labels(5).into_iter().filter(|(tick, _)| unit != "epoch" || (tick - tick.round()).abs() < 1e-9) {
            text.soft.small.mid x=(num(x.at(tick))) y=(num(HEIGHT - BOTTOM + 13.0)) { (word) }
        }
        text.faint.small x="0" y=(num(HEIGHT - BOTTOM + 13.0)) { (unit) }
        @if let Some(mark) = mark {
            line.dash x1=(num(x.at(mark))) x2=(num(x.at(mark))) y1=(num(TOP)) y2=(num(HEIGHT - BOTTOM)) {
                title { "chosen without labels: " (unit) " " (tidy(mark)) }
            }
        }
        @for (place, line) in chart.lines.iter().enumerate() { (drawn(line, place, &x, &y, unit)) }
        @if named { (legend(&chart.lines)) }
    };
    let last = |line: &Line| line.points.last().map(|point| format!("{} ends at {}", line.name, tidy(point.1)));
    let ends: Vec<String> = chart.lines.iter().filter_map(last).collect();
    Figure { width: WIDTH, height: HEIGHT, label: format!("{} over {unit}s: {}", chart.name, ends.join(", ")), body }
}

fn drawn(line: &Line, place: usize, x: &Scale, y: &Scale, unit: &str) -> Markup {
    let at: Vec<String> =
        line.points.iter().map(|&(step, value)| format!("{},{}", num(x.at(step)), num(y.at(value)))).collect();
    let last = line.points.last().copied().unwrap_or_default();
    html! {
        g class=(color(place)) {
            @if line.points.len() > 1 { polyline.line points=(at.join(" ")) {} }
            circle.dot cx=(num(x.at(last.0))) cy=(num(y.at(last.1))) r="2.4" {
                title { (line.name) " " (tidy(last.1)) " at " (unit) " " (tidy(last.0)) }
            }
        }
    }
}

/// Names from the right to the left, beside the title.
fn legend(lines: &[Line]) -> Markup {
    let shown = lines.len().min(4);
    let width = 150.0 / shown as f64;
    html! {
        @for (place, line) in lines.iter().take(shown).enumerate() {
            g class=(color(place)) {
                circle.dot cx=(num(146.0 + width * place as f64)) cy="7.5" r="3" {}
                text.soft.small x=(num(152.0 + width * place as f64)) y="11" { (short(&line.name, (width / 5.6) as usize)) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_there_with_all_its_points_and_names_are_text() {
        let line = |name: &str| Line { name: name.into(), points: vec![(1.0, 3.0), (2.0, 2.0), (3.0, 2.5)] };
        let chart = Chart { name: "loss<b>".into(), lines: vec![line("a"), line("<i>")] };
        let figure = super::chart(&chart, Some(2.0), "epoch");
        let svg = figure.inline().into_string();
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("loss&lt;b&gt;") && svg.contains("&lt;i&gt;") && !svg.contains("<i>"), "{svg}");
        assert!(svg.contains("chosen without labels: epoch 2"));
        assert!(figure.label.contains("a ends at 2.5"), "{}", figure.label);
    }
}
