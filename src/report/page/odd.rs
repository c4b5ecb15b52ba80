//! The sections of images that stand out: copies, and outliers.

use maud::{Markup, html};

use super::format::{Paper, cell, sheet, stage};
use crate::album;
use crate::gather::page::{Copies, Unusual};
use kinset_base::unit::{count, counted};

/// Outliers side by side on their sheet.
const COLUMNS: usize = 20;

pub(super) fn copies(paper: Paper<'_>) -> Markup {
    html! {
        @if let Some(copies) = &paper.page.duplicates {
            section #duplicates {
                h2 { a.anchor href="#duplicates" { "Duplicates" } }
                p {
                    (stage(&copies.stage)) ": " b #copies data-value=(copies.copies) { (counted(copies.copies as u64, "image")) }
                    " that " @if copies.copies == 1 { "repeats another" } @else { "repeat others" } ", in " (counted(copies.groups as u64, "group"))
                    "; " (count(copies.exact as u64)) " with equal pixels"
                    ", the others by " (copies.by) " with a similarity of " (copies.least) " or more."
                }
                @if !copies.shown.is_empty() {
                    (groups(copies, paper))
                    p.note { "Framed: the image that is kept. The groups that are least alike come first." }
                }
            }
        }
    }
}

fn groups(copies: &Copies, paper: Paper<'_>) -> Markup {
    let columns = copies.shown.iter().map(Vec::len).max().unwrap_or(0);
    let mut names = vec![""; columns * copies.shown.len()];
    for (line, group) in copies.shown.iter().enumerate() {
        group.iter().enumerate().for_each(|(at, shot)| names[line * columns + at] = &shot.id);
    }
    let Some(found) = paper.album.sheet(&names, album::NEIGHBOR, columns, paper.quality) else {
        return html! { p.absent { "The images cannot be shown." } };
    };
    let inside = html! {
        @for (line, group) in copies.shown.iter().enumerate() {
            div.line.hood {
                @for (at, shot) in group.iter().enumerate() {
                    @if at == 0 { (cell(paper, shot, line * columns, columns, "query")) }
                }
                span.cells { @for (at, shot) in group.iter().enumerate().skip(1) { (cell(paper, shot, line * columns + at, columns, "")) } }
            }
        }
    };
    sheet(&found, 48, "contact hoods", inside)
}

pub(super) fn unusual(paper: Paper<'_>) -> Markup {
    html! {
        @if let Some(unusual) = &paper.page.outliers {
            section #outliers {
                h2 { a.anchor href="#outliers" { "Outliers" } }
                p { (stage(&unusual.stage)) ": the images that are least like their " (unusual.k) " nearest, the most unusual first." }
                (most(unusual, paper))
            }
        }
    }
}

fn most(unusual: &Unusual, paper: Paper<'_>) -> Markup {
    let names: Vec<&str> = unusual.shown.iter().map(|shot| shot.id.as_str()).collect();
    let Some(found) = paper.album.sheet(&names, album::NEIGHBOR, COLUMNS, paper.quality) else {
        return html! { p.absent { "The images cannot be shown." } };
    };
    let inside = html! {
        div.line { span.cells { @for (at, shot) in unusual.shown.iter().enumerate() { (cell(paper, shot, at, COLUMNS, "")) } } }
    };
    sheet(&found, 48, "contact", inside)
}
