//! Does the selection of a curation stage look like its target?

use maud::{Markup, html};

use super::words::{Paper, percent, stage};
use crate::artifact::selection::Report;
use crate::base::unit;
use crate::math::curate::alike::Difference;
use crate::report::draw::curves;
use crate::report::draw::scale::tidy;
use crate::report::gather::page::{Chart, Line, Selected};

/// The reports of all curation stages.
pub(super) fn selections(paper: Paper<'_>) -> Markup {
    html! {
        @if !paper.page.selections.is_empty() {
            section #selection {
                h2 { a.anchor href="#selection" { "Selection" } }
                @for selected in &paper.page.selections { (one(selected)) }
            }
        }
    }
}

fn one(selected: &Selected) -> Markup {
    let report = &selected.report;
    let counts = &report.counts;
    let count = |number: usize| unit::count(number as u64);
    html! {
        div data-selection=(selected.stage) {
            h3 { (stage(&selected.stage)) span.quiet { " · " (report.pick) ", up to " (report.k) " for each target image" } }
            div.cards {
                (fact("selected", &count(counts.selected), &format!("of {} in the pool", count(counts.pool))))
                (fact("target", &count(counts.target_kept), &format!("of {} without repetitions", count(counts.target))))
                (fact("candidates", &count(counts.candidates), "in the pool, near a target image"))
                (fact("uncovered", &count(counts.uncovered), "target images with nothing selected"))
            }
            div.charts {
                @if report.coverage.len() > 1 { (curves::chart(&coverage(report), None, "distance").inline()) }
                @if report.nearest.edges.len() > 2 { (curves::chart(&nearest(report), None, "distance").inline()) }
            }
            div.beside {
                (differences(report))
                div {
                    table {
                        thead { tr { th { "pairs" } th.r { "number" } } }
                        tbody { @for (reason, number) in &report.edges { tr { td { (reason) } td.r { (count(*number)) } } } }
                    }
                    @if let Some(copies) = &report.duplicates {
                        p.note {
                            (count(copies.dropped)) " images were dropped as near copies, in " (count(copies.groups)) " groups; the largest has "
                            (count(copies.largest)) "."
                        }
                    }
                }
            }
            @if !report.clusters.is_empty() {
                table {
                    thead { tr { th { "part of the target" } th.r { "target %" } th.r { "selection %" } th.r { "random %" } } }
                    tbody {
                        @for share in &report.clusters {
                            tr {
                                td { (share.cluster) } td.r { (percent(share.target)) } td.r { (percent(share.selection)) }
                                td.r { (percent(share.random)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn fact(title: &str, value: &str, below: &str) -> Markup {
    html! { div.card { p.key { (title) } p.value { (value) } p.below { (below) } } }
}

fn coverage(report: &Report) -> Chart {
    let line = |name: &str, of: fn(&crate::artifact::selection::Coverage) -> f64| Line {
        name: name.to_owned(),
        points: report.coverage.iter().map(|at| (at.distance, of(at))).collect(),
    };
    Chart { name: "target covered".into(), lines: vec![line("selection", |at| at.selection), line("random", |at| at.random)] }
}

fn nearest(report: &Report) -> Chart {
    let nearest = &report.nearest;
    let line = |name: &str, counts: &[u64]| {
        let middles = nearest.edges.windows(2).map(|edge| edge[0].midpoint(edge[1]));
        let total = counts.iter().sum::<u64>().max(1) as f64;
        Line { name: name.to_owned(), points: middles.zip(counts.iter().map(|&count| count as f64 / total)).collect() }
    };
    Chart {
        name: "nearest".into(),
        lines: vec![line("target", &nearest.target), line("selection", &nearest.selection), line("random", &nearest.random)],
    }
}

/// A measure of a difference, if it was taken.
type Of = fn(&Difference) -> Option<f64>;

/// How selection and random images differ from the target, side by side.
fn differences(report: &Report) -> Markup {
    let names: Vec<&String> = report.difference.keys().collect();
    let rows: [(&str, Of); 5] = [
        ("distance of the means", |d| Some(d.mean_gap)),
        ("MMD²", |d| Some(d.mmd2)),
        ("energy distance", |d| Some(d.energy)),
        ("Fréchet distance", |d| d.frechet),
        ("two-sample test (0.5: nobody can tell)", |d| Some(d.two_sample)),
    ];
    html! {
        table {
            thead { tr { th { "difference from the target" } @for name in &names { th.r { (name) } } } }
            tbody {
                @for (title, of) in rows {
                    tr {
                        td { (title) }
                        @for difference in report.difference.values() { td.r { (of(difference).map_or_else(|| "–".to_owned(), tidy)) } }
                    }
                }
            }
        }
    }
}
