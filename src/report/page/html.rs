//! The whole page: one file, nothing from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::words::{Paper, prose};
use super::{clusters, features, odd, results, selection, summary};
use crate::album::Album;
use crate::draw::figure;
use crate::gather::page::Page;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// What the browser itself refuses: everything that is not in this file.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Pictures are made coarser until a page is below its limit.
const QUALITIES: [u8; 4] = [84, 62, 40, 20];
/// Where the name of a page's content stands.
const MARK: &str = "kinset-report";

/// Bytes a page may have: 5 MB for few clusters, 20 MB for a thousand.
pub fn limit(page: &Page) -> usize {
    let clusters = page.clusters.shown().map_or(0, |clusters| clusters.each.len());
    if clusters <= 30 { 4_900_000 } else { 4_900_000 + 15_000_000 * clusters.min(1000) / 1000 }
}

pub fn render(page: &Page, album: &Album) -> String {
    let mut text = String::new();
    for quality in QUALITIES {
        text = whole(Paper { page, album, quality }).into_string();
        if text.len() <= limit(page) {
            break;
        }
    }
    text
}

/// True if a page, of which this is the beginning, was made from the same.
pub fn is_of(beginning: &str, fingerprint: &str) -> bool {
    beginning.contains(&format!("<meta name=\"{MARK}\" content=\"{fingerprint}\">"))
}

fn whole(paper: Paper<'_>) -> Markup {
    let page = paper.page;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name=(MARK) content=(page.fingerprint);
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.pipeline) " – kinset report" }
                link rel="icon" href="data:,";
                style { (PreEscaped(figure::STYLE)) (PreEscaped(STYLE)) }
            }
            body {
                (summary::head(page))
                (navigation(page))
                main {
                    (summary::cards(page))
                    (summary::warnings(&page.warnings))
                    (results::scores(paper))
                    (clusters::clusters(paper))
                    (results::confusion(paper))
                    (results::calibration(paper))
                    (features::on_paper(paper))
                    (features::neighbors(paper))
                    (odd::copies(paper))
                    (odd::unusual(paper))
                    (results::training(paper))
                    (results::counts(&page.counts))
                    (selection::selections(paper))
                    (summary::stages(paper))
                    (missing(page))
                }
                footer { "Made by kinset " (page.version) " from " code { bdi { (page.file) } } ". One file, nothing is loaded from elsewhere." }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// The sections in their order: name, title, and why it is not there; `None` if it is, an empty reason if nobody misses it.
fn sections(page: &Page) -> [(&'static str, &'static str, Option<&str>); 12] {
    let unless = |empty: bool| empty.then_some("");
    [
        ("scores", "Scores", page.scores.why()),
        ("clusters", "Clusters", page.clusters.why()),
        ("confusion", "Confusion", page.confusions.why()),
        ("calibration", "Calibration", page.calibration.why()),
        ("map", "Map", page.map.why()),
        ("neighbors", "Neighbors", page.neighbors.why()),
        ("duplicates", "Duplicates", unless(page.duplicates.is_none())),
        ("outliers", "Outliers", unless(page.outliers.is_none())),
        ("training", "Training", page.curves.why()),
        ("counts", "Number of clusters", unless(page.counts.is_empty())),
        ("selection", "Selection", unless(page.selections.is_empty())),
        ("stages", "Stages", None),
    ]
}

fn navigation(page: &Page) -> Markup {
    let there = sections(page).into_iter().filter(|(_, _, why)| why.is_none());
    html! { nav aria-label="Sections" { @for (id, title, _) in there { a href={ "#" (id) } { (title) } } } }
}

/// What the page does not show, and why; sections with the same reason share a line.
fn missing(page: &Page) -> Markup {
    let mut lines: Vec<(&str, Vec<&str>)> = Vec::new();
    for (_, title, why) in sections(page) {
        let Some(why) = why.filter(|why| !why.is_empty()) else { continue };
        match lines.iter_mut().find(|(other, _)| *other == why) {
            Some((_, titles)) => titles.push(title),
            None => lines.push((why, vec![title])),
        }
    }
    html! {
        @if !lines.is_empty() {
            section #missing {
                h2 { "Not shown" }
                ul.missing { @for (why, titles) in &lines { li { b { (titles.join(", ")) } " " (prose(why)) } } }
            }
        }
    }
}
