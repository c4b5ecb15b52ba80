//! The section of features: neighbors and the map.

use maud::{Markup, html};

use super::format::{Paper, about, cell, data, percent, section, sheet, stage};
use crate::album;
use crate::draw::map::{Placed, map};
use crate::gather::page::{Colors, Map, Neighborhoods};
use kinset_base::unit;

/// Cells of the map's sheet side by side.
const COLUMNS: usize = 50;

pub(super) fn neighbors(paper: Paper<'_>) -> Markup {
    section("neighbors", "Neighbors", &paper.page.neighbors, |neighbors| {
        html! {
            p {
                (stage(&neighbors.stage)) ": " (neighbors.k) " neighbors of each image by " (neighbors.metric) " similarity"
                @if neighbors.exact { ", none missed" }
                @if let Some((share, images)) = neighbors.recall {
                    ", " b #recall data-value=(share) { (percent(share)) " %" } " of the true ones, measured on " (unit::count(images as u64)) " images"
                }
                ". Mean similarity " (format!("{:.3}", neighbors.similarity.0)) " of the first, " (format!("{:.3}", neighbors.similarity.1)) " of the last."
                @if let Some((all, first)) = neighbors.purity {
                    " Of the image's own class: " b #purity data-value=(all) { (percent(all)) " %" } " of all neighbors, " (percent(first))
                    " % of the first."
                }
            }
            (shown(neighbors, paper))
            @if neighbors.purity.is_some() { p.note { "A bar below a neighbor: its class is another than that of the image." } }
        }
    })
}

fn shown(neighbors: &Neighborhoods, paper: Paper<'_>) -> Markup {
    let columns = 1 + neighbors.shown.iter().map(|shown| shown.neighbors.len()).max().unwrap_or(0);
    let mut names = vec![""; columns * neighbors.shown.len()];
    for (line, shown) in neighbors.shown.iter().enumerate() {
        let all = std::iter::once(&shown.query).chain(&shown.neighbors);
        all.enumerate().for_each(|(at, shot)| names[line * columns + at] = &shot.id);
    }
    let Some(found) = paper.album.sheet(&names, album::NEIGHBOR, columns, paper.quality) else {
        return html! { p.absent { "The images cannot be shown." } };
    };
    let inside = html! {
        @for (line, shown) in neighbors.shown.iter().enumerate() {
            div.line.hood {
                (cell(paper, &shown.query, line * columns, columns, "query"))
                span.cells {
                    @for (at, shot) in shown.neighbors.iter().enumerate() { (cell(paper, shot, line * columns + at + 1, columns, "")) }
                }
            }
        }
    };
    sheet(&found, 48, "contact hoods", inside)
}

/// The map, with the pictures for the pointer.
pub(super) fn on_paper(paper: Paper<'_>) -> Markup {
    section("map", "Map", &paper.page.map, |found| {
        let names: Vec<&str> = found.points.iter().map(|point| point.shot.id.as_str()).collect();
        let pictures = paper.album.sheet(&names, album::ON_MAP, COLUMNS, paper.quality);
        let words: Vec<String> = found.points.iter().map(|point| about(paper, &point.shot)).collect();
        html! {
            p {
                (unit::count(found.points.len() as u64)) " of " (unit::count(found.of as u64)) " images by the features of " (stage(&found.stage)) " ("
                (found.dim) " numbers each)" (colors(found)) "."
            }
            div.maps {
                figure { (map(found, Placed::Tsne).inline()) figcaption { b { "t-SNE" } " (perplexity 30): what is close belongs together; distances between groups and their sizes mean nothing." } }
                figure {
                    (map(found, Placed::Pca).inline())
                    figcaption { b { "PCA" } ": the two directions of most variance, " (percent(found.share.0)) " % and " (percent(found.share.1)) " % of it." }
                }
            }
            @if let Some(pictures) = pictures { (sheet(&pictures, 84, "peek", html! { span.t {} span.words {} })) }
            (data("map-words", &words))
        }
    })
}

fn colors(map: &Map) -> &'static str {
    match map.colors {
        Colors::Clusters => "; colors and numbers are clusters",
        Colors::Classes => "; colors are classes",
        Colors::None => "",
    }
}
