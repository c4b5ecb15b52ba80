//! The whole page: one file, nothing from elsewhere.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::format::{Paper, data, prose};
use super::{clusters, features, near, odd, results, selection, summary, varied};
use crate::album::Album;
use crate::draw::figure;
use crate::gather::page::Page;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// What the browser itself refuses: everything that is not in this file.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Pictures are made coarser until a page is below its limit.
const QUALITIES: [u8; 4] = [84, 62, 40, 20];
/// Bytes of the element around whole pictures, at most.
const AROUND_WHOLES: usize = 100;
/// Where the name of a page's content stands.
const MARK: &str = "kinset-report";

/// Bytes a page may have: 5 MB for few clusters, 20 MB for a thousand.
pub fn limit(page: &Page) -> usize {
    let clusters = page.clusters.shown().map_or(0, |clusters| clusters.each.len());
    if clusters <= 30 { 4_900_000 } else { 4_900_000 + 15_000_000 * clusters.min(1000) / 1000 }
}

pub fn render(page: &Page, album: &Album) -> String {
    let (none, limit) = (BTreeMap::new(), limit(page));
    let mut made = (Markup::default(), String::new());
    for quality in QUALITIES {
        let parts = parts(Paper { page, album, quality });
        made = (parts.clone(), whole(page, &parts, &none).into_string());
        if made.1.len() <= limit {
            break;
        }
    }
    // Whole pictures have what the rest leaves them.
    let wholes = album.wholes(limit.saturating_sub(made.1.len() + AROUND_WHOLES));
    if wholes.is_empty() { made.1 } else { whole(page, &made.0, &wholes).into_string() }
}

/// True if a page, of which this is the beginning, was made from the same.
pub fn is_of(beginning: &str, fingerprint: &str) -> bool {
    beginning.contains(&format!("<meta name=\"{MARK}\" content=\"{fingerprint}\">"))
}

/// The sections: pictures first, then how they were measured, then how they were made.
fn parts(paper: Paper<'_>) -> Markup {
    let page = paper.page;
    html! {
        (summary::headline(page))
        (summary::warnings(&page.warnings))
        (clusters::clusters(paper))
        (features::on_paper(paper))
        (features::neighbors(paper))
        (odd::copies(paper))
        (odd::unusual(paper))
        (results::scores(paper))
        (varied::varied(&page.varied))
        (results::confusion(paper))
        (results::calibration(paper))
        (results::training(paper))
        (results::counts(&page.counts))
        (near::near_sets(paper))
        (selection::selections(paper))
        (summary::stages(paper))
        (missing(page))
    }
}

/// The page around its sections; `wholes` are data URIs of whole pictures, by their numbers in the album.
fn whole(page: &Page, parts: &Markup, wholes: &BTreeMap<usize, &str>) -> Markup {
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
                main { (parts) }
                footer { "Made by kinset " (page.version) " from " code { bdi { (page.file) } } ". One file, nothing is loaded from elsewhere." }
                dialog #look aria-label="Whole picture" {
                    span.t hidden {}
                    p.words {}
                    button type="button" { "Close" }
                }
                @if !wholes.is_empty() { (data("wholes", wholes)) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    }
}

/// The sections in their order: name, title, and why it is not there; `None` if it is, an empty reason if nobody misses it.
fn sections(page: &Page) -> [(&'static str, &'static str, Option<&str>); 14] {
    let unless = |empty: bool| empty.then_some("");
    [
        ("clusters", "Clusters", page.clusters.why()),
        ("map", "Map", page.map.why()),
        ("neighbors", "Neighbors", page.neighbors.why()),
        ("duplicates", "Duplicates", unless(page.duplicates.is_none())),
        ("outliers", "Outliers", unless(page.outliers.is_none())),
        ("scores", "Scores", page.scores.why()),
        ("varied", "Varied settings", unless(page.varied.is_empty())),
        ("confusion", "Confusion", page.confusions.why()),
        ("calibration", "Calibration", page.calibration.why()),
        ("training", "Training", page.curves.why()),
        ("counts", "Number of clusters", unless(page.counts.is_empty())),
        ("near", "Near-duplicates", unless(page.near.is_empty())),
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
