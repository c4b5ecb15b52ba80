//! The section of measurements: score tables, training curves, confusion matrices, calibration.

use maud::{Markup, html};

use super::format::{Paper, name, percent, section, stage};
use crate::album;
use crate::draw::scale::tidy;
use crate::draw::{bars, curves, matrix, reliability};
use crate::gather::page::{Board, BoardRow, Confusion, CountTable, Measured, Training};
use kinset_artifact::scores::{MEASURES, Measure};
use kinset_base::unit;

/// Confusion matrices beside the main ones; settings that vary make many.
const OTHERS: usize = 16;

pub(super) fn scores(paper: Paper<'_>) -> Markup {
    section("scores", "Scores", &paper.page.scores, |boards| {
        html! {
            @for board in boards { (table(board)) }
            p.note {
                "Percent; bold is the best of a column, k-means included. Classes are read only here. Where a stage kept the weights of its "
                "label-free best epoch, these were measured; the training curves say which epoch that was and where the last one ended."
            }
        }
    })
}

fn table(board: &Board) -> Markup {
    let used: Vec<Measure> = MEASURES
        .into_iter()
        .filter(|column| board.rows.iter().any(|row| measured(&row.measures, column.name).is_some()))
        .collect();
    let best = |column: &Measure| {
        let means = board.rows.iter().filter_map(|row| measured(&row.measures, column.name)).map(|measure| measure.mean);
        if column.less_is_better { means.fold(f64::INFINITY, f64::min) } else { means.fold(f64::NEG_INFINITY, f64::max) }
    };
    let seeds = board.rows.iter().map(|row| row.seeds.len()).max().unwrap_or(1);
    let told = board.rows.iter().any(|row| row.seen.is_some());
    let sized = board.rows.iter().any(|row| row.sizes.is_some());
    let notes: Vec<(&BoardRow, &String)> =
        board.rows.iter().flat_map(|row| row.notes.iter().map(move |note| (row, note))).collect();
    html! {
        div.board data-board=(board.stage) {
            h3 { (name(&board.images)) span.quiet { " · " (unit::count(board.count as u64)) " images, " (board.classes) " classes, by " (stage(&board.stage)) } }
            div.wide {
                table.scores {
                    thead {
                        tr {
                            th { "stage" } th { "kind" }
                            @for column in &used { th.r { (column.title) } }
                            @if sized { th.r { "clusters" } th.r { "sizes" } }
                            @if told { th { "images in training" } }
                        }
                    }
                    tbody {
                        @for row in &board.rows {
                            tr.baseline[row.baseline] data-row=(row.stage) {
                                td { (stage(&row.stage)) }
                                td { (row.kind) @if row.baseline { span.tag { "baseline" } } }
                                @for column in &used { (score(measured(&row.measures, column.name), column.name, best(column))) }
                                @if sized {
                                    td.r { (row.clusters) }
                                    td.r { @if let Some((least, most)) = row.sizes { (unit::count(least)) "–" (unit::count(most)) } }
                                }
                                @if told { td.quiet { (match row.seen { Some(true) => "seen", Some(false) => "not seen", None => "–" }) } }
                            }
                        }
                    }
                }
            }
            p.note {
                @if !board.matching.is_empty() { "Matching: " (board.matching) ". " }
                @if seeds > 1 { "Mean ± standard deviation over " (seeds) " seeds." } @else { "One seed: no standard deviation." }
            }
            @if !notes.is_empty() {
                details.note { summary { "How each was chosen" } ul { @for (row, note) in notes { li { (stage(&row.stage)) ": " (note) } } } }
            }
        }
    }
}

fn measured<'a>(measures: &'a [Measured], key: &str) -> Option<&'a Measured> {
    measures.iter().find(|measure| measure.name == key)
}

fn score(measure: Option<&Measured>, key: &str, best: f64) -> Markup {
    let Some(measure) = measure else { return html! { td.r.quiet { "–" } } };
    let is_best = measure.mean.total_cmp(&best).is_eq();
    html! {
        td.r.best[is_best] data-name=(key) data-value=(measure.mean) {
            (percent(measure.mean))
            @if let Some(std) = measure.std { span.quiet { " ± " (percent(std)) } }
        }
    }
}

pub(super) fn training(paper: Paper<'_>) -> Markup {
    section("training", "Training", &paper.page.curves, |trainings| {
        html! { @for training in trainings { (curves_of(training)) } }
    })
}

fn curves_of(training: &Training) -> Markup {
    html! {
        div.training data-training=(training.stage) {
            h3 {
                (stage(&training.stage)) span.quiet { " · " (training.kind) }
                @if training.unfinished { span.tag.held { "unfinished" } }
            }
            div.charts { @for chart in &training.charts { (curves::chart(chart, training.best.as_ref().map(|best| f64::from(best.step)), "epoch").inline()) } }
            @if let Some(best) = &training.best {
                p.note {
                    "Label-free best: epoch " (best.step) " (" (best.by) " " (tidy(best.value)) "); last: epoch " (best.last_step) " ("
                    (tidy(best.last)) ")."
                }
            }
        }
    }
}

/// What a table recommends, or that its estimators disagree.
fn recommendation(table: &CountTable) -> Markup {
    let votes = table.votes.len();
    html! {
        @if table.agreed {
            " · recommends " b { (table.chosen) }
        } @else if table.named_by > 1 {
            " · the estimators disagree: " (table.named_by) " of " (votes) " name " b { (table.chosen) }
        } @else {
            " · the estimators disagree: no two of " (votes) " name the same number"
        }
    }
}

/// How numbers of clusters compare.
pub(super) fn counts(tables: &[CountTable]) -> Markup {
    html! {
        @if !tables.is_empty() {
            section #counts {
                h2 { a.anchor href="#counts" { "Number of clusters" } }
                @for table in tables {
                    h3 { (stage(&table.stage)) span.quiet { (recommendation(table)) } }
                    p.note { (table.rule) }
                    div.charts { @for chart in &table.charts { (curves::chart(chart, Some(table.chosen as f64), "cluster").inline()) } }
                    @if !table.votes.is_empty() {
                        p { @for (place, (by, k)) in table.votes.iter().enumerate() { @if place > 0 { ", " } (by) ": " b { (k) } } }
                    }
                }
            }
        }
    }
}

/// Confusion matrices: the main one of each measuring stage open, the others behind a line.
pub(super) fn confusion(paper: Paper<'_>) -> Markup {
    section("confusion", "Confusion", &paper.page.confusions, |all| {
        let others: Vec<&Confusion> =
            all.iter().filter(|one| !one.main && one.classes.len().max(one.columns.len()) <= matrix::CELLS).collect();
        html! {
            p.note {
                "Rows are classes, scaled by the true class: each row sums to 1. Columns are clusters in the order of the matching; framed "
                "cells are a cluster and the class it is matched with."
                @if paper.page.seeds.len() > 1 { " Of several seeds, the first is shown." }
            }
            @for one in all.iter().filter(|one| one.main) { (one_confusion(one, paper, true)) }
            @for one in others.iter().take(OTHERS) { (one_confusion(one, paper, false)) }
            @if others.len() > OTHERS {
                p.note { "And " (others.len() - OTHERS) " more: " code { "kinset plot PIPELINE confusion --stage STAGE" } " draws one of them." }
            }
        }
    })
}

fn one_confusion(confusion: &Confusion, paper: Paper<'_>, open: bool) -> Markup {
    html! {
        details.confusion open[open] data-confusion={ (confusion.measured_by) "/" (confusion.stage) } {
            summary { (stage(&confusion.stage)) " on " (name(&confusion.images)) }
            div.matrices {
            @if let Some(figure) = matrix::matrix(confusion) {
                div.wide { (figure.inline()) }
            } @else if let Some(uri) = matrix::picture(confusion).and_then(|picture| album::uri(&picture, paper.quality)) {
                div.wide { img.matrix src=(uri) alt={ "Confusion matrix, a pixel for each of " (confusion.classes.len()) " classes and " (confusion.columns.len()) " clusters" }; }
            }
            @if !confusion.top.is_empty() {
                div.note {
                    h3 { "Most frequent confusions" }
                    table {
                        thead { tr { th { "class" } th { "lies in" } th.r { "images" } th.r { "% of the class" } } }
                        tbody {
                            @for mistake in confusion.top.iter().take(if open { 12 } else { 5 }) {
                                tr {
                                    td { (name(&mistake.class)) }
                                    td { "cluster " (mistake.cluster) @if let Some(class) = &mistake.taken_for { " · " (name(class)) } }
                                    td.r { (unit::count(mistake.count)) }
                                    td.r { (percent(mistake.share)) }
                                }
                            }
                        }
                    }
                }
            }
            }
        }
    }
}

pub(super) fn calibration(paper: Paper<'_>) -> Markup {
    section("calibration", "Calibration", &paper.page.calibration, |calibration| {
        html! {
            div.beside {
                (reliability::reliability(calibration).inline())
                div {
                    dl.facts {
                        dt { "expected calibration error" } dd #ece data-value=(calibration.ece) { (percent(calibration.ece)) " %" }
                        dt { "mean confidence" } dd { (percent(calibration.confidence)) " %" }
                        dt { "accuracy" } dd data-value=(calibration.accuracy) { (percent(calibration.accuracy)) " %" }
                        dt { "images" } dd { (unit::count(calibration.images as u64)) }
                    }
                    p.note {
                        "Bars are the accuracy at each confidence; the dashed line is where they would end if confidences were true, the shaded "
                        "part is how far they miss. 15 equal bins (Guo et al. 2017). Assignments of "
                        (stage(&calibration.stage)) "."
                    }
                }
            }
        }
    })
}

/// A histogram of confidence, for the clusters.
pub(super) fn confidence(counts: &[u64]) -> Markup {
    bars::histogram(counts, (0.0, 1.0), "confidence", "Images by confidence.".into()).inline()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn estimators_that_disagree_recommend_nothing() {
        let said = |votes: &[usize], (chosen, named_by, agreed)| {
            let votes: BTreeMap<String, usize> = votes.iter().enumerate().map(|(by, &k)| (by.to_string(), k)).collect();
            let table = CountTable { stage: "it".into(), chosen, named_by, agreed, rule: String::new(), votes, charts: vec![] };
            recommendation(&table).into_string()
        };
        assert_eq!(said(&[7, 7, 2], (7, 2, true)), " · recommends <b>7</b>");
        assert_eq!(said(&[17, 37, 21, 2, 50], (2, 1, false)), " · the estimators disagree: no two of 5 name the same number");
        assert_eq!(said(&[2, 37, 21, 2, 50], (2, 2, false)), " · the estimators disagree: 2 of 5 name <b>2</b>");
    }
}
