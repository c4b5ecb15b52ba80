//! The section about the selection of a curation stage: whether it looks like its target.

use maud::{Markup, html};

use super::format::{Paper, percent, sheet, stage};
use crate::draw::curves;
use crate::draw::scale::tidy;
use crate::gather::page::{Chart, Glimpse, Line, Selected, Sight, Taken};
use kinset_artifact::selection::{Budget, Missed, Report};
use kinset_base::unit;
use kinset_math::curate::alike::Difference;

/// Target images that are listed as missed.
const LISTED: usize = 8;

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
                @if let Some(missed) = report.missed.as_ref().filter(|missed| missed.budgets.len() > 1) {
                    @for chart in by_budget(missed) { (curves::chart(&chart, None, "image").inline()) }
                }
            }
            @if let Some(missed) = &report.missed { (left_out(missed, counts.target_kept, selected.taken.as_ref(), paper)) }
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

/// What more and fewer images would bring.
fn by_budget(missed: &Missed) -> [Chart; 2] {
    type Of = fn(&Budget) -> f64;
    let chart = |name: &str, lines: [(&str, Of); 2]| Chart {
        name: name.to_owned(),
        lines: lines
            .map(|(name, of)| Line {
                name: name.to_owned(),
                points: missed.budgets.iter().map(|budget| (budget.images as f64, of(budget))).collect(),
            })
            .to_vec(),
    };
    [
        chart("covered by budget", [("selection", |at| at.coverage), ("random", |at| at.random_coverage)]),
        chart("MMD² by budget", [("selection", |at| at.mmd2), ("random", |at| at.random_mmd2)]),
    ]
}

/// What was not taken and may be missed.
fn left_out(missed: &Missed, targets: usize, taken: Option<&Taken>, paper: Paper<'_>) -> Markup {
    let count = |number: usize| unit::count(number as u64);
    let distance = |distance: f64| format!("{distance:.3}");
    let pictures = taken.and_then(|taken| beside(&taken.missed, "nothing is near", paper));
    let name = |taken: Option<&String>, id: &str| taken.map_or_else(|| id.to_owned(), Clone::clone);
    let never = missed.regions.iter().filter(|region| region.selected == 0).count();
    html! {
        h4 { "What would be missed" }
        p {
            b data-uncovered=(missed.uncovered) { (count(missed.uncovered)) " of " (count(targets)) } " target images are not covered: no image that was taken is "
            "as near to them as half of the target's images are to another one, a distance of " (distance(missed.near)) ". The pool has such an image, which may be "
            "taken, for " (count(missed.in_pool)) " of them."
        }
        @if !missed.targets.is_empty() {
            div.wide {
                table {
                    thead { tr { th { "target image" } th.r { "distance" } th { "nearest in the pool" } th.r { "distance" } th { "why not taken" } } }
                    tbody {
                        @for (place, far) in missed.targets.iter().enumerate().take(LISTED) {
                            @let shown = taken.and_then(|taken| taken.missed.get(place));
                            tr {
                                td { bdi { (name(shown.map(|(image, _)| &image.id), &far.id)) } } td.r { (distance(far.distance)) }
                                td { bdi { (name(shown.and_then(|(_, near)| Some(&near.first()?.id)), &far.pool_id)) } } td.r { (distance(far.in_pool)) }
                                td { (if far.reason == "ok" { "taken" } else { &far.reason }) }
                            }
                        }
                    }
                }
            }
            @if let Some(pictures) = pictures { p { "Target images that are farthest from what was taken, each with the nearest of the pool:" } (pictures) }
        }
        @if !missed.regions.is_empty() {
            p {
                "Parts of the pool, those nearest to the target first; of " b data-never=(never) { (count(never)) } " of " (count(missed.regions.len())) " nothing was taken."
            }
            div.wide {
                table {
                    thead { tr { th { "like" } th.r { "of the pool %" } th.r { "distance to the target" } th.r { "taken" } } }
                    tbody {
                        @for (place, region) in missed.regions.iter().enumerate() {
                            tr {
                                td { bdi { (name(taken.and_then(|taken| Some(&taken.regions.get(place)?.id)), &region.typical)) } }
                                td.r { (percent(region.share)) } td.r { (distance(region.distance)) } td.r { (count(region.selected)) }
                            }
                        }
                    }
                }
            }
            @if let Some(regions) = taken.and_then(|taken| row_of(&taken.regions, paper)) { p { "A typical image of each part, in the same order:" } (regions) }
        }
        @if missed.budgets.len() > 1 {
            div.wide {
                table {
                    thead {
                        tr { th.r { "images" } th.r { "covered %" } th.r { "by random %" } th.r { "mean distance" } th.r { "MMD²" } th.r { "of random" } }
                    }
                    tbody {
                        @for budget in &missed.budgets {
                            tr {
                                td.r { (count(budget.images)) } td.r { (percent(budget.coverage)) } td.r { (percent(budget.random_coverage)) }
                                td.r { (distance(budget.distance)) } td.r { (tidy(budget.mmd2)) } td.r { (tidy(budget.random_mmd2)) }
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
    let (pairs, some) = (beside(&taken.pairs, "nothing was taken", paper), row_of(&taken.lot, paper));
    html! {
        @if let Some(pairs) = pairs { p { "Images of the target, each with the nearest of those taken for it:" } (pairs) }
        @if let Some(some) = some { p { "A random sample of all that were taken:" } (some) }
    }
}

/// A row of pictures. Nothing where none can be seen.
fn row_of(glimpses: &[Glimpse], paper: Paper<'_>) -> Option<Markup> {
    let sights: Vec<Option<&Sight>> = glimpses.iter().map(|glimpse| Some(&glimpse.sight)).collect();
    let found = paper.album.sheet_of(&sights, sights.len(), paper.quality)?;
    let inside = html! {
        div.line {
            span.cells {
                @for (place, glimpse) in glimpses.iter().enumerate() {
                    @let words = in_words(glimpse);
                    span.t style=(format!("--x:{place};--y:0")) role="img" title=(words) aria-label=(words) {}
                }
            }
        }
    };
    Some(sheet(&found, 48, "contact", inside))
}

/// Lines of pictures: an image each, framed, and those beside it, or why there are none. Nothing where no picture can be seen.
pub(super) fn beside(lines: &[(Glimpse, Vec<Glimpse>)], none: &str, paper: Paper<'_>) -> Option<Markup> {
    let columns = 1 + lines.iter().map(|(_, beside)| beside.len()).max().unwrap_or(0);
    let mut sights = vec![None; columns * lines.len()];
    for (line, (first, beside)) in lines.iter().enumerate() {
        let all = std::iter::once(first).chain(beside).map(|glimpse| Some(&glimpse.sight));
        all.enumerate().for_each(|(at, sight)| sights[line * columns + at] = sight);
    }
    let cell = |glimpse: &Glimpse, place: usize, class: &str| {
        let style = format!("--x:{};--y:{}", place % columns, place / columns);
        let words = in_words(glimpse);
        html! { span class={ "t " (class) } style=(style) role="img" title=(words) aria-label=(words) {} }
    };
    let found = paper.album.sheet_of(&sights, columns, paper.quality)?;
    let inside = html! {
        @for (line, (first, beside)) in lines.iter().enumerate() {
            div.line.hood {
                (cell(first, line * columns, "query"))
                span.cells {
                    @for (at, glimpse) in beside.iter().enumerate() { (cell(glimpse, line * columns + at + 1, "")) }
                    @if beside.is_empty() { span.quiet { (none) } }
                }
            }
        }
    };
    Some(sheet(&found, 48, "contact hoods", inside))
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
