//! The section about near-duplicates in features: what repeats, and what sets share.

use maud::{Markup, html};

use super::format::{Paper, prose, stage};
use super::selection::beside;
use crate::gather::page::{Glimpse, NearSets};
use kinset_base::unit::count;
use kinset_math::curate::groups::Link;

/// Lines of the table of what sets share.
const LINES: usize = 12;

pub(super) fn near_sets(paper: Paper<'_>) -> Markup {
    html! {
        @if !paper.page.near.is_empty() {
            section #near {
                h2 { a.anchor href="#near" { "Near-duplicates" } }
                @for near in &paper.page.near { (one(near, paper)) }
            }
        }
    }
}

fn one(near: &NearSets, paper: Paper<'_>) -> Markup {
    let summary = &near.summary;
    let shared: Vec<(Glimpse, Vec<Glimpse>)> =
        near.shared.iter().map(|(_, image, copy)| (image.clone(), vec![copy.clone()])).collect();
    html! {
        div data-near=(near.stage) {
            h3 { (stage(&near.stage)) span.quiet { " · features with a similarity of " (summary.least) " or more" } }
            ul { @for line in &near.told { li { (prose(line)) } } }
            @if summary.groups > 0 {
                p {
                    (count(summary.groups as u64)) " groups; the largest has " (count(summary.largest as u64)) " images. "
                    @match summary.link {
                        Link::Star => { "Each image of a group is near to the one that stands for it, the first of the pool." }
                        Link::Chain => {
                            "Images of a group are connected by near pairs; the similarity to the image that stands for it falls to "
                            (format!("{:.3}", summary.farthest)) "."
                        }
                    }
                }
            }
            @if !near.shared.is_empty() {
                div.wide {
                    table {
                        thead { tr { th { "image of" } th { "name" } th { "most similar" } th.r { "similarity" } } }
                        tbody {
                            @for (set, image, copy) in near.shared.iter().take(LINES) {
                                tr {
                                    td { (prose(set)) } td { bdi { (image.id) } } td { bdi { (copy.id) } }
                                    td.r { (copy.similarity.map(|similarity| format!("{similarity:.4}")).unwrap_or_default()) }
                                }
                            }
                        }
                    }
                }
                @if let Some(pictures) = beside(&shared, "", paper) { p { "Framed: the image; beside it, its copy in an earlier set:" } (pictures) }
            }
            @if let Some(pictures) = beside(&near.groups, "", paper) {
                p { "Groups, the least alike first; framed: the image that is kept." } (pictures)
            }
        }
    }
}
