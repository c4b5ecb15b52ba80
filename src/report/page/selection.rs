//! The section about the selection of a curation stage: whether it looks like its target.

use maud::{Markup, html};

use super::words::{Paper, percent, sheet, stage};
use crate::draw::curves;
use crate::draw::scale::tidy;
use crate::gather::page::{Chart, Glimpse, Line, Selected, Sight, Taken};
use kinset_artifact::selection::Report;
use kinset_base::unit;
use kinset_math::curate::alike::Difference;

pub(super) fn selections(paper: Paper<'_>) -> Markup {
    html! {
        @if !paper.page.selections.is_empty() {
            section #selection {
                h2 { a.anchor href="#selection" { "Selection" } }
                @for selected in &paper.page.selections { (one(selected, paper)) }
            }
        }
    }
}

/// Whether it was chosen for a target. Without one, clusters of the pool take its place, each by its most typical image.
fn has_target(report: &Report) -> bool {
    report.inputs.contains_key("target")
}

fn one(selected: &Selected, paper: Paper<'_>) -> Markup {
    let report = &selected.report;
    let counts = &report.counts;
    let count = |number: usize| unit::count(number as u64);
    let target = has_target(report);
    let per = if target { "for each target image" } else { "from each cluster" };
    html! {
        div data-selection=(selected.stage) {
            h3 { (stage(&selected.stage)) span.quiet { " · " (report.pick) ", up to " (report.k) " " (per) } }
            div.cards {
                (fact("selected", &count(counts.selected), &format!("of {} in the pool", count(counts.pool))))
                @if target {
                    (fact("target", &count(counts.target_kept), &format!("of {} without near-duplicates", count(counts.target))))
                    (fact("candidates", &count(counts.candidates), "in the pool, near a target image"))
                    (fact("uncovered", &count(counts.uncovered), "target images with nothing selected"))
                } @else {
                    (fact("clusters", &count(counts.target), "of images of the pool"))
                    (fact("uncovered", &count(counts.uncovered), "clusters with nothing selected"))
                }
            }
            @if let Some(taken) = &selected.taken { (looked_at(taken, paper)) }
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
                div.wide {
                    table {
                        thead { tr { th { "part of the " (whom(report)) } th.r { (whom(report)) " %" } th.r { "selection %" } th.r { "random %" } } }
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
}

/// What the selection is compared with.
fn whom(report: &Report) -> &'static str {
    if has_target(report) { "target" } else { "clusters" }
}

/// The pictures: targets with what was taken for them, and some of all.
fn looked_at(taken: &Taken, paper: Paper<'_>) -> Markup {
    let columns = 1 + taken.pairs.iter().map(|(_, beside)| beside.len()).max().unwrap_or(0);
    let mut sights = vec![None; columns * taken.pairs.len()];
    for (line, (target, beside)) in taken.pairs.iter().enumerate() {
        let all = std::iter::once(target).chain(beside).map(|glimpse| Some(&glimpse.sight));
        all.enumerate().for_each(|(at, sight)| sights[line * columns + at] = sight);
    }
    let lot: Vec<Option<&Sight>> = taken.lot.iter().map(|glimpse| Some(&glimpse.sight)).collect();
    let cell = |glimpse: &Glimpse, place: usize, class: &str| {
        let style = format!("--x:{};--y:{}", place % columns, place / columns);
        let words = in_words(glimpse);
        html! { span class={ "t " (class) } style=(style) role="img" title=(words) aria-label=(words) {} }
    };
    let pairs = paper.album.sheet_of(&sights, columns, paper.quality).map(|found| {
        let inside = html! {
            @for (line, (target, beside)) in taken.pairs.iter().enumerate() {
                div.line.hood {
                    (cell(target, line * columns, "query"))
                    span.cells {
                        @for (at, glimpse) in beside.iter().enumerate() { (cell(glimpse, line * columns + at + 1, "")) }
                        @if beside.is_empty() { span.quiet { "nothing was taken" } }
                    }
                }
            }
        };
        sheet(&found, 48, "contact hoods", inside)
    });
    let some = paper.album.sheet_of(&lot, lot.len(), paper.quality).map(|found| {
        let inside = html! {
            div.line {
                span.cells {
                    @for (place, glimpse) in taken.lot.iter().enumerate() {
                        @let words = in_words(glimpse);
                        span.t style=(format!("--x:{place};--y:0")) role="img" title=(words) aria-label=(words) {}
                    }
                }
            }
        };
        sheet(&found, 48, "contact", inside)
    });
    html! {
        @if let Some(pairs) = pairs { p { "Images of the target, each with the nearest of those taken for it:" } (pairs) }
        @if let Some(some) = some { p { "A random sample of all that were taken:" } (some) }
    }
}

fn in_words(glimpse: &Glimpse) -> String {
    match glimpse.similarity {
        Some(similarity) => format!("{} · distance {:.3}", glimpse.id, (1.0 - similarity).max(0.0)),
        None => glimpse.id.clone(),
    }
}

fn fact(title: &str, value: &str, below: &str) -> Markup {
    html! { div.card { p.key { (title) } p.value { (value) } p.below { (below) } } }
}

fn coverage(report: &Report) -> Chart {
    let line = |name: &str, of: fn(&kinset_artifact::selection::Coverage) -> f64| Line {
        name: name.to_owned(),
        points: report.coverage.iter().map(|at| (at.distance, of(at))).collect(),
    };
    Chart {
        name: format!("{} covered", whom(report)),
        lines: vec![line("selection", |at| at.selection), line("random", |at| at.random)],
    }
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
        lines: vec![
            line(whom(report), &nearest.target),
            line("selection", &nearest.selection),
            line("random", &nearest.random),
        ],
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
        ("two-sample test (0.5: indistinguishable)", |d| Some(d.two_sample)),
    ];
    html! {
        div.wide {
            table {
                thead { tr { th { "difference from the " (whom(report)) } @for name in &names { th.r { (name) } } } }
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
}
