//! The clusters to look at: prototypes, sizes, contact sheets.

use maud::{Markup, html};

use super::format::{Paper, cell, name, percent, prose, section, sheet, stage};
use super::results::confidence;
use crate::album;
use crate::draw::bars;
use crate::gather::page::{Cluster, Clusters, Groups, Shot};
use kinset_base::unit;

/// Up to so many clusters lie open.
const OPEN: usize = 24;
/// Stands for a cell without a picture.
const NO_PICTURE: &str = "";

/// Prototypes, sizes and contact sheets.
pub(super) fn clusters(paper: Paper<'_>) -> Markup {
    section("clusters", "Clusters", &paper.page.clusters, |clusters| {
        html! {
            p {
                (unit::count(clusters.count as u64)) " images"
                @if !clusters.images.is_empty() { " of " (name(&clusters.images)) }
                " in " (clusters.each.len()) " clusters, by " (stage(&clusters.stage)) "."
                @if paper.page.seeds.len() > 1 { " Of several seeds, the first is shown." }
                @if clusters.unassigned > 0 { " " (unit::count(clusters.unassigned as u64)) " belong to none." }
                @if let Some(matching) = &clusters.matching { " Names are those of classes: " (matching) "." }
                @if let Some(accuracy) = clusters.accuracy {
                    " Accuracy under that matching: " b #cluster-accuracy data-value=(accuracy) { (percent(accuracy)) " %" } "."
                }
            }
            @if let Some(groups) = &clusters.groups { (named(groups)) }
            h3 { "Prototypes" }
            (prototypes(clusters, paper))
            p.note { "The prototype of a cluster: " (prose(&clusters.prototypes_by)) "." }
            h3 { "Contact sheets" }
            p.note {
                "For each cluster its most confident images, its least confident ones, and some drawn at random; of a small one all, the most "
                "confident first. Thumbnails are cut to squares; a click shows the whole picture."
                @if clusters.matching.is_some() { " A bar below an image: its class is not that of the cluster." }
            }
            @if clusters.each.len() > OPEN { (finder()) }
            div #sheets.pairs[clusters.each.len() > 12] { @for cluster in &clusters.each { (block(cluster, clusters, paper)) } }
            div.beside {
                div { h3 { "Sizes" } (bars::sizes(clusters).inline()) }
                div {
                    h3 { "Confidence" }
                    (confidence(&clusters.confidence))
                    p.note { "Median " (percent(clusters.median_confidence)) " %." }
                }
            }
        }
    })
}

/// What a person made of the clusters.
fn named(groups: &Groups) -> Markup {
    html! {
        p #groups {
            "Groups by name: "
            @for (place, group) in groups.each.iter().enumerate() {
                @if place > 0 { " · " }
                b { (name(&group.name)) } " " (unit::count(group.images as u64))
            }
            "."
            @if groups.moved > 0 { " " (unit::counted(groups.moved as u64, "image")) " moved by hand." }
            @if groups.rejected > 0 { " " (unit::counted(groups.rejected as u64, "image")) " rejected." }
        }
    }
}

/// For many clusters: find by name or number, sort. Without the script it is not there.
fn finder() -> Markup {
    html! {
        div.finder hidden {
            label { "Find " input #find type="search" placeholder="number, name or class"; }
            label {
                "Sort by "
                select #sort {
                    option value="number" { "number" }
                    option value="size" { "size" }
                    option value="confidence" { "confidence" }
                    option value="purity" { "purity" }
                }
            }
            button #unfold type="button" { "Open all" }
        }
    }
}

fn prototypes(clusters: &Clusters, paper: Paper<'_>) -> Markup {
    let names: Vec<&str> =
        clusters.each.iter().map(|cluster| cluster.prototype.as_ref().map_or(NO_PICTURE, |shot| &shot.id)).collect();
    let side = album::prototype(clusters.each.len());
    let columns = names.len().min(25);
    let inside = html! {
        @for (place, cluster) in clusters.each.iter().enumerate() {
            a.proto href={ "#cluster-" (cluster.number) } {
                @match &cluster.prototype {
                    Some(shot) => (cell(paper, shot, place, columns, "")),
                    None => span.t.none title="no image" {},
                }
                span.caption { b { (cluster.number) } @if let Some(called) = &cluster.name { " " (name(called)) } @if let Some(class) = &cluster.class { " " (name(class)) } }
            }
        }
    };
    let Some(found) = paper.album.sheet(&names, side, columns, paper.quality) else { return no_pictures(paper) };
    let (side, class) = if clusters.each.len() > 100 { (48, "protos tiny") } else { (84, "protos") };
    sheet(&found, side, class, inside)
}

fn no_pictures(paper: Paper<'_>) -> Markup {
    html! { p.absent { "The images cannot be shown" @if let Some(fault) = paper.album.fault() { ": " (name(fault)) } "." } }
}

fn block(cluster: &Cluster, clusters: &Clusters, paper: Paper<'_>) -> Markup {
    let share = cluster.size as f64 / (clusters.count - clusters.unassigned).max(1) as f64;
    let facts = html! {
        b { "Cluster " (cluster.number) @if let Some(called) = &cluster.name { ": " (name(called)) } }
        @if let Some(class) = &cluster.class { " " span.chip { (name(class)) } }
        span.quiet {
            " " (unit::count(cluster.size as u64)) " images, " (percent(share)) " %"
            @if let Some(confidence) = cluster.confidence { " · mean confidence " (percent(confidence)) " %" }
            @if let Some(purity) = cluster.purity { " · purity " (percent(purity)) " %" }
        }
    };
    let (sure, pure) = (cluster.confidence.unwrap_or(0.0), cluster.purity.unwrap_or(0.0));
    let body = html! {
        @if cluster.classes.len() > 1 {
            p.quiet.classes {
                @for (place, (class, count)) in cluster.classes.iter().enumerate() {
                    @if place > 0 { " · " }
                    (name(class)) " " (percent(*count as f64 / cluster.size.max(1) as f64)) " %"
                }
            }
        }
        (rows(cluster, clusters, paper))
    };
    let words = [&cluster.name, &cluster.class].map(|word| word.as_deref().unwrap_or_default()).join(" ").to_lowercase();
    html! {
        @if clusters.each.len() > OPEN {
            details.cluster id={ "cluster-" (cluster.number) } data-number=(cluster.number) data-size=(cluster.size) data-confidence=(sure)
                data-purity=(pure) data-words=(words) { summary { (facts) } (body) }
        } @else {
            article.cluster id={ "cluster-" (cluster.number) } data-number=(cluster.number) data-size=(cluster.size) { p.facts { (facts) } (body) }
        }
    }
}

/// The rows of a contact sheet, which are one picture.
fn rows(cluster: &Cluster, clusters: &Clusters, paper: Paper<'_>) -> Markup {
    // What fits into one row stands there once.
    let kinds: &[(&str, &[Shot])] = if cluster.size <= cluster.most.len() {
        &[("all", &cluster.most)]
    } else {
        &[("most confident", &cluster.most), ("least confident", &cluster.least), ("random", &cluster.random)]
    };
    let columns = kinds.iter().map(|(_, shots)| shots.len()).max().unwrap_or(0);
    if columns == 0 {
        return html! { p.absent { "No image is in this cluster." } };
    }
    let mut wanted = vec![NO_PICTURE; columns * kinds.len()];
    for (line, (_, shots)) in kinds.iter().enumerate() {
        shots.iter().enumerate().for_each(|(at, shot)| wanted[line * columns + at] = &shot.id);
    }
    let side = album::contact(clusters.each.len());
    let Some(found) = paper.album.sheet(&wanted, side, columns, paper.quality) else { return no_pictures(paper) };
    let inside = html! {
        @for (line, (title, shots)) in kinds.iter().enumerate() {
            div.line {
                span.kind { (title) }
                span.cells.fill style={ "--cols:" (columns) } { @for (at, shot) in shots.iter().enumerate() { (cell(paper, shot, line * columns + at, columns, "")) } }
            }
        }
    };
    let show = match clusters.each.len() {
        0..=12 => 61,
        13..=100 => 52,
        _ => 40,
    };
    sheet(&found, show, "contact", inside)
}
