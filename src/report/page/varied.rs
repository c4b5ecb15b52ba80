//! The section of varied settings: a table and charts for each thing that was measured under them.

use maud::{Markup, html};
use serde_json::Value as Json;

use super::format::{name, percent, stage};
use crate::draw::varied::chart;
use crate::gather::page::{Measured, Sweep, SweepRow};
use crate::gather::{AGREEMENT, INFORMATION};
use kinset_artifact::scores::MEASURES;

/// A column: its name, its title, whether less is better, and whether it is a share.
type Column = (&'static str, &'static str, bool, bool);

/// What needs no labels comes first.
fn columns(sweep: &Sweep) -> Vec<Column> {
    let own: [Column; 2] = [(INFORMATION, "information", false, false), (AGREEMENT, "agreement", false, false)];
    let scores = MEASURES.map(|measure| (measure.name, measure.title, measure.less_is_better, true));
    own.into_iter().chain(scores).filter(|(key, ..)| sweep.rows.iter().any(|row| of(row, key).is_some())).collect()
}

fn of<'r>(row: &'r SweepRow, key: &str) -> Option<&'r Measured> {
    row.measures.iter().find(|measure| measure.name == key)
}

pub(super) fn varied(sweeps: &[Sweep]) -> Markup {
    html! {
        @if !sweeps.is_empty() {
            section #varied {
                h2 { a.anchor href="#varied" { "Varied settings" } }
                p.note {
                    "Two columns need no labels: information is what an image's cluster tells of its neighbor's, in nats; agreement is the mean "
                    "adjusted Rand index between seeds. Of both, more is better, and the combination with the most information is marked. Choose "
                    "by them: the best of many scores is too good to be true. Information compares equal numbers of clusters, and settings that "
                    "share their neighbors. Scores are in percent."
                }
                @for sweep in sweeps { (table(sweep)) }
            }
        }
    }
}

fn table(sweep: &Sweep) -> Markup {
    let columns = columns(sweep);
    let differs = |key: &str| {
        let mut means = sweep.rows.iter().filter_map(|row| of(row, key)).map(|measure| measure.mean);
        means.next().is_some_and(|first| means.any(|mean| mean.total_cmp(&first).is_ne()))
    };
    let charts = columns.iter().filter(|(key, ..)| differs(key)).filter_map(|(key, title, _, share)| {
        let title = if *share { format!("{title} %") } else { (*title).to_owned() };
        chart(sweep, key, &title, if *share { 100.0 } else { 1.0 })
    });
    let seeds = sweep.rows.iter().map(|row| row.seeds.len()).max().unwrap_or(1);
    html! {
        div.board data-sweep=(sweep.stage) {
            h3 {
                (stage(&sweep.stage))
                span.quiet {
                    @if !sweep.images.is_empty() { " on " (name(&sweep.images)) }
                    @if let Some(judge) = &sweep.measured_by { ", by " (stage(judge)) }
                }
            }
            div.charts { @for figure in charts { (figure.inline()) } }
            div.wide {
                table.scores {
                    thead {
                        tr {
                            @for setting in &sweep.settings { th.r { (name(setting)) } }
                            @for (_, title, _, _) in &columns { th.r { (title) } }
                            th {}
                        }
                    }
                    tbody {
                        @for row in &sweep.rows {
                            tr data-row=(row.stage) {
                                @for setting in &sweep.settings { td.r { (value(row.values.get(setting))) } }
                                @for column in &columns { (cell(sweep, row, *column)) }
                                td { @if row.most { span.tag { "most information" } } }
                            }
                        }
                    }
                }
            }
            p.note { @if seeds > 1 { "Mean ± standard deviation over " (seeds) " seeds." } @else { "One seed: no standard deviation." } }
        }
    }
}

fn value(value: Option<&Json>) -> Markup {
    html! { @match value { Some(Json::String(text)) => (name(text)), Some(other) => (other.to_string()), None => "–" } }
}

fn cell(sweep: &Sweep, row: &SweepRow, (key, _, less, share): Column) -> Markup {
    let Some(measure) = of(row, key) else { return html! { td.r.quiet { "–" } } };
    let better = |mean: f64| if less { mean < measure.mean } else { mean > measure.mean };
    let best = !sweep.rows.iter().filter_map(|row| of(row, key)).any(|other| better(other.mean));
    let word = |number: f64| if share { percent(number) } else { format!("{number:.3}") };
    html! {
        td.r.best[best] data-name=(key) data-value=(measure.mean) {
            (word(measure.mean))
            @if let Some(std) = measure.std { span.quiet { " ± " (word(std)) } }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_shows_settings_measures_and_what_to_choose_and_texts_stay_texts() {
        let row = |value: Json, information: f64, acc: f64, most: bool| SweepRow {
            stage: format!("scan@x={value}"),
            values: BTreeMap::from([("x".to_owned(), value)]),
            seeds: vec![1, 2],
            measures: vec![
                Measured { name: INFORMATION, values: vec![information; 2], mean: information, std: Some(0.0) },
                Measured { name: "acc", values: vec![acc; 2], mean: acc, std: Some(0.01) },
            ],
            most,
        };
        let sweep = Sweep {
            stage: "scan".into(),
            images: "data.test".into(),
            measured_by: Some("scores".into()),
            settings: vec!["x".into()],
            rows: vec![row(json!("<i>"), 1.25, 0.5, true), row(json!(0.1), 1.0, 0.75, false)],
        };
        let page = varied(&[sweep]).into_string();
        assert!(page.contains("&lt;i&gt;") && !page.contains("<i>"), "{page}");
        assert!(page.contains("1.250") && page.contains("75.0<span class=\"quiet\"> ± 1.0</span>"), "{page}");
        assert_eq!((page.matches("\">most information").count(), page.matches("class=\"r best\"").count()), (1, 2), "{page}");
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(varied(&[]).into_string().is_empty());
    }
}
