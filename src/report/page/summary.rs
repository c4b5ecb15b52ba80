//! The head of the page: what it is, how it stands, the numbers one looks for, what not to overlook, and the stages.

use maud::{Markup, html};

use super::format::{Paper, moment, name, percent, prose, seconds, stage};
use crate::draw::dag::dag;
use crate::gather::page::{Board, BoardRow, Page, StageRow, Standing, Warning};
use kinset_base::unit;

/// Said of the profile that only tries whether everything runs.
const SMOKE: &str = "smoke: these numbers mean nothing";

/// Name, standing, where it comes from.
pub(super) fn head(page: &Page) -> Markup {
    let (class, word) = match &page.standing {
        Standing::Complete => ("ok", "complete"),
        Standing::Never => ("todo", "has not run"),
        Standing::Failed { .. } => ("wrong", "failed"),
        Standing::Interrupted { .. } => ("held", "interrupted"),
        Standing::Partial { .. } => ("todo", "partly done"),
    };
    let smoke = page.profile.as_deref() == Some("smoke");
    html! {
        header.top {
            div.title {
                p.brand { "kinset report" }
                h1 {
                    (name(&page.pipeline)) " "
                    @if smoke && page.standing == Standing::Complete {
                        span.badge.held data-standing=(word) { (SMOKE) }
                    } @else {
                        span.badge.(class) data-standing=(word) { (word) }
                        @if smoke && page.standing != Standing::Never { " " span.badge.held { (SMOKE) } }
                    }
                }
                p.origin {
                    code { bdi { (page.file) } }
                    @if let Some(profile) = &page.profile { " · profile " code { bdi { (profile) } } }
                    " · " (seeds(page))
                    " · device " (page.device)
                    " · kinset " (page.version)
                }
                @if let Some(run) = &page.run {
                    p.origin {
                        "Last run with work: " (moment(&run.began)) ", " (unit::counted(run.ran as u64, "stage")) " ran, " (run.fresh) " from cache, "
                        @if let Some(time) = run.seconds { "in " (seconds(time)) "." } @else { "did not end." }
                        (effort(page))
                    }
                }
            }
            button #theme type="button" hidden title="light, dark, or as the system has it" { "Theme" }
        }
    }
}

/// What all results together took.
fn effort(page: &Page) -> Markup {
    let total: f64 = page.stages.iter().filter_map(|stage| stage.seconds).sum();
    let memory = page.stages.iter().filter_map(|stage| stage.peak_memory).max();
    html! {
        @if total > 0.0 {
            " All results took " (seconds(total)) @if let Some(peak) = memory { " and at most " (unit::bytes(peak)) " of memory" } "."
        }
    }
}

fn seeds(page: &Page) -> Markup {
    html! {
        @if page.seeds.is_empty() { "seed " (page.seed) } @else {
            "seeds " (page.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))
        }
    }
}

/// What came out, in a sentence: how many groups, how sure, how good where classes are known, and beside k-means.
pub(super) fn headline(page: &Page) -> Markup {
    html! {
        @if let Some(clusters) = page.clusters.shown() {
            p #headline {
                b { (unit::counted((clusters.count - clusters.unassigned) as u64, "image")) }
                @if !clusters.images.is_empty() { " of " (name(&clusters.images)) }
                " sorted into " b { (unit::counted(clusters.each.len() as u64, "cluster")) }
                " by " (stage(clusters.classifier.as_deref().unwrap_or(&clusters.stage)))
                ", half of them with a confidence of " (percent(clusters.median_confidence)) " % or more."
                @if let Some((board, row)) = main_row(page) { " " (measured(board, row)) }
            }
            (candidates(page))
        }
    }
}

/// The accuracy of a row, and of the k-means that stands in the same table.
fn measured(board: &Board, row: &BoardRow) -> Markup {
    let accuracy = |row: &BoardRow| row.measures.iter().find(|measure| measure.name == "acc").map(|measure| measure.mean);
    let kmeans =
        board.rows.iter().filter(|other| other.baseline && other.stage != row.stage).filter_map(accuracy).reduce(f64::max);
    html! {
        @if let Some(own) = accuracy(row) {
            "Measured on " (stage(&board.images)) ", " b { (percent(own)) " %" } " lie in the cluster of their class"
            @if let Some(kmeans) = kmeans { "; k-means: " b { (percent(kmeans)) " %" } }
            "."
        }
    }
}

/// Which of several classifiers the page shows, and why that one.
fn candidates(page: &Page) -> Markup {
    let Some((clusters, taken)) = page.clusters.shown().and_then(|shown| Some((shown, shown.classifier.as_ref()?))) else {
        return html! {};
    };
    let family = |name: &str| page.stages.iter().find(|stage| stage.name == name).map(|stage| stage.family.as_str());
    let mut others: Vec<&str> = Vec::new();
    for row in page.wires.iter().filter(|wire| wire.artifact == "classifier").filter_map(|wire| page.stages.get(wire.from)) {
        if Some(row.family.as_str()) != family(taken) && !others.contains(&row.family.as_str()) {
            others.push(&row.family);
        }
    }
    let notes = main_row(page).map(|(_, row)| row.notes.as_slice()).unwrap_or_default();
    html! {
        @if !others.is_empty() {
            p.note #candidates {
                "This page shows " (stage(taken)) " because " (stage(&clusters.stage)) " reads it; this pipeline also has "
                @for (place, other) in others.iter().enumerate() { @if place > 0 { ", " } (stage(other)) }
                "."
                @for note in notes { " " (stage(taken)) ": " (note) "." }
            }
        }
    }
}

/// The row of the classifier that is shown, best on images that its training did not see.
fn main_row(page: &Page) -> Option<(&Board, &BoardRow)> {
    let boards = page.scores.shown()?;
    let wanted = page.clusters.shown().and_then(|clusters| clusters.classifier.clone());
    let variant = |name: &str| page.stages.iter().find(|stage| stage.name == name).map(|stage| stage.variant.clone());
    let wanted = wanted.as_deref().and_then(variant);
    let rows = || boards.iter().flat_map(|board| board.rows.iter().map(move |row| (board, row)));
    let has_acc = |row: &BoardRow| row.measures.iter().any(|measure| measure.name == "acc");
    let of = |unseen: bool| {
        // Without assignments the last thing that was learned.
        rows().rfind(|(_, row)| {
            let ours = wanted.as_ref().map_or(!row.baseline, |name| *name == row.stage);
            has_acc(row) && ours && (!unseen || row.seen == Some(false))
        })
    };
    of(true).or_else(|| of(false))
}

pub(super) fn warnings(warnings: &[Warning]) -> Markup {
    html! {
        @if !warnings.is_empty() {
            section #warnings aria-label="Warnings" {
                ul.warnings {
                    @for warning in warnings { li data-about=(warning.about) { b { (title(warning.about)) } " " (prose(&warning.text)) } }
                }
            }
        }
    }
}

fn title(about: &str) -> &'static str {
    match about {
        "collapse" => "Collapse.",
        "imbalance" => "Imbalance.",
        "confidence" => "Low confidence.",
        "calibration" => "Calibration.",
        "duplicates" => "Repeated images.",
        "baseline" => "k-means.",
        "report" => "Report.",
        _ => "Run.",
    }
}

/// The stages as a drawing and as a table.
pub(super) fn stages(paper: Paper<'_>) -> Markup {
    let page = paper.page;
    html! {
        section #stages {
            h2 { a.anchor href="#stages" { "Stages" } }
            div.wide { (dag(&page.stages, &page.wires).inline()) }
            div.wide {
                table.stages {
                    thead {
                        tr {
                            th { "stage" } th { "kind" } th { "now" } th { "last run" } th.r { "took" } th.r { "memory" } th.r { "size" }
                            th.r { "seed" } th { "finished" }
                        }
                    }
                    tbody { @for row in &page.stages { (stage_row(row)) } }
                }
            }
            p.note {
                "Time and memory were measured when a result was computed, even if it is cached now. Memory is the peak of the whole "
                "process, including stages that ran at the same time."
            }
        }
    }
}

fn stage_row(row: &StageRow) -> Markup {
    let class = match (row.state.as_str(), row.last.as_deref()) {
        ("fresh", _) => "ok",
        ("broken", _) | (_, Some("failed")) => "wrong",
        (_, Some("stopped" | "began")) => "held",
        _ => "todo",
    };
    html! {
        tr data-stage=(row.name) data-state=(row.state) {
            td { (stage(&row.name)) }
            td { (row.kind) }
            td { span.state { span.lamp.(class) {} (row.state) } @if let Some(why) = &row.why { span.why { (prose(why)) } } }
            td {
                (row.last.as_deref().unwrap_or("–"))
                @if let Some(error) = &row.error { span.why.bad { (prose(error)) } }
                @if let Some(hint) = &row.hint { span.why { "hint: " (prose(hint)) } }
            }
            td.r { (row.seconds.map_or_else(|| "–".to_owned(), seconds)) }
            td.r { (row.peak_memory.map_or_else(|| "–".to_owned(), unit::bytes)) }
            td.r { (row.bytes.map_or_else(|| "–".to_owned(), unit::bytes)) }
            td.r { (row.seed.map_or_else(|| "–".to_owned(), |seed| seed.to_string())) }
            td.quiet { (row.finished.as_deref().map_or_else(|| "–".to_owned(), moment)) }
        }
    }
}
