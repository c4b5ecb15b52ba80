//! The head of the page: what it is, how it stands, the numbers one looks for, what not to overlook, and the stages.

use maud::{Markup, html};

use super::words::{Paper, moment, name, percent, prose, seconds, stage};
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
                    }
                }
            }
            button #theme type="button" hidden title="light, dark, or as the system has it" { "Theme" }
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

/// The numbers one looks for first.
pub(super) fn cards(page: &Page) -> Markup {
    let clusters = page.clusters.shown();
    let total: f64 = page.stages.iter().filter_map(|stage| stage.seconds).sum();
    let memory = page.stages.iter().filter_map(|stage| stage.peak_memory).max();
    let main = main_row(page);
    html! {
        div.cards {
            @if let Some(clusters) = clusters {
                (card("images", &unit::count(clusters.count as u64), &clusters.images))
                (card("clusters", &clusters.each.len().to_string(), &format!("by {}", clusters.classifier.as_deref().unwrap_or(&clusters.stage))))
            }
            @if let Some((board, row)) = main {
                @for (key, title) in [("acc", "accuracy"), ("nmi", "NMI"), ("ari", "ARI")] {
                    @if let Some(measure) = row.measures.iter().find(|measure| measure.name == key) {
                        (card(&format!("{title}, %"), &percent(measure.mean), &format!("{} on {}", row.stage, board.images)))
                    }
                }
            }
            @if let Some(calibration) = page.calibration.shown() {
                (card("ECE, %", &percent(calibration.ece), "confidence against accuracy"))
            }
            @if total > 0.0 {
                (card("computing", &seconds(total), &memory.map(|peak| format!("at most {}", unit::bytes(peak))).unwrap_or_default()))
            }
        }
    }
}

fn card(title: &str, value: &str, below: &str) -> Markup {
    html! { div.card { p.key { (title) } p.value { (value) } p.below { bdi { (below) } } } }
}

/// The row of the classifier that is shown, best on images that its training did not see.
fn main_row(page: &Page) -> Option<(&Board, &BoardRow)> {
    let boards = page.scores.shown()?;
    let wanted = page.clusters.shown().and_then(|clusters| clusters.classifier.clone());
    let family = |name: &str| page.stages.iter().find(|stage| stage.name == name).map(|stage| stage.family.clone());
    let wanted = wanted.as_deref().and_then(family);
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
