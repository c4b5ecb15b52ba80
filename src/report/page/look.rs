//! The HTML page of `kinset inspect`: the columns of a result, how their values are spread, and pictures where it has any.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::format::{name, sheet};
use crate::album::{Album, CONTACT};
use crate::draw::figure::{self, Figure, num};
use crate::draw::scale::{Scale, tidy};
use kinset_artifact::parquet::summary::{ColumnReport, FileReport, Shape};
use kinset_base::unit;

const STYLE: &str = include_str!("style.css");
/// As on the page of a pipeline: nothing from elsewhere, and here no script at all.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Quality of the pictures, 1–100.
const QUALITY: u8 = 84;

/// What is on the page.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub title: String,
    /// Its tables by name.
    pub files: Vec<(String, FileReport)>,
    pub groups: Vec<Group>,
}

/// Pictures that belong together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    /// What they have in common; may be empty.
    pub title: String,
    /// Their names.
    pub ids: Vec<String>,
    /// What to say of each; may be shorter.
    pub words: Vec<String>,
    /// True if the first one is what the others were found for.
    pub query: bool,
}

pub fn render(look: &Look, album: &Album) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (look.title) " – kinset inspect" }
                link rel="icon" href="data:,";
                style { (PreEscaped(figure::STYLE)) (PreEscaped(STYLE)) }
            }
            body {
                header.top { div.title { p.brand { "kinset inspect" } h1 { (name(&look.title)) } } }
                main {
                    @for (file, report) in &look.files { (table(file, report)) }
                    @if !look.groups.is_empty() {
                        section #pictures {
                            h2 { "Pictures" }
                            @if let Some(fault) = album.fault() { p.absent { "The images cannot be shown: " (name(fault)) } }
                            @for group in &look.groups { (pictures(group, album)) }
                        }
                    }
                }
                footer { "Made by kinset " (env!("CARGO_PKG_VERSION")) ". One file, nothing is loaded from elsewhere." }
            }
        }
    };
    page.into_string()
}

fn table(file: &str, report: &FileReport) -> Markup {
    html! {
        section {
            h2 { (name(file)) }
            p.quiet { (unit::count(report.rows as u64)) " rows, " (report.columns.len()) " columns, " (unit::bytes(report.bytes)) }
            div.wide {
                table {
                    thead { tr { th { "column" } th { "type" } th.r { "present" } th.r { "missing" } th { "first value" } } }
                    tbody {
                        @for (place, column) in report.columns.iter().enumerate() {
                            tr {
                                td { code { (name(&column.name)) } }
                                td { (column.kind) }
                                td.r { (unit::count(column.count)) }
                                td.r { (unit::count(column.nulls)) }
                                td { @if let Some(row) = report.first_rows.first() { (name(&row[place])) } }
                            }
                        }
                    }
                }
            }
            div.charts {
                @for column in &report.columns {
                    @if let Some(shape) = &column.shape { figure { h3 { code { (name(&column.name)) } } (spread(column, shape).inline()) } }
                }
            }
        }
    }
}

/// Bars of a column.
fn spread(column: &ColumnReport, shape: &Shape) -> Figure {
    let (width, height, base) = (280.0, 110.0, 90.0);
    let (ends, counts): ((String, String), Vec<u64>) = match shape {
        Shape::Histogram { low, high, counts } => ((tidy(*low), tidy(*high)), counts.clone()),
        Shape::Counts(counts) => {
            let (first, last) = (counts.first().map_or(0, |c| c.0), counts.last().map_or(0, |c| c.0));
            let of = |value: i64| counts.iter().find(|(other, _)| *other == value).map_or(0, |(_, count)| *count);
            ((first.to_string(), last.to_string()), (first..=last).map(of).collect())
        }
    };
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let y = Scale::new((0.0, most as f64), (base, 4.0));
    let step = width / counts.len().max(1) as f64;
    let label = format!("How the values of {} are spread, from {} to {}.", column.name, ends.0, ends.1);
    let body = html! {
        @for (place, &count) in counts.iter().enumerate() {
            @if count > 0 {
                rect.bar x=(num(step * place as f64 + 0.5)) y=(num(y.at(count as f64).min(base - 1.0))) width=(num((step - 1.0).max(0.5)))
                    height=(num((base - y.at(count as f64)).max(1.0))) {
                    title { (unit::count(count)) }
                }
            }
        }
        line.axis x1="0" x2=(num(width)) y1=(num(base)) y2=(num(base)) {}
        text.soft.small x="0" y=(num(base + 14.0)) { (ends.0) }
        text.soft.small.end x=(num(width)) y=(num(base + 14.0)) { (ends.1) }
    };
    Figure { width, height, label, body }
}

fn pictures(group: &Group, album: &Album) -> Markup {
    let columns = group.ids.len().clamp(1, 16);
    let names: Vec<&str> = group.ids.iter().map(String::as_str).collect();
    let Some(found) = album.sheet(&names, CONTACT, columns, QUALITY) else { return html! {} };
    let inside = html! {
        div.line {
            span.cells {
                @for (place, &id) in names.iter().enumerate() {
                    @let style = format!("--x:{};--y:{}", place % columns, place / columns);
                    @let path = album.path(id).map_or_else(|| format!("image {id}"), str::to_owned);
                    @let words = group.words.get(place).map_or_else(|| path.clone(), |words| format!("{path} · {words}"));
                    @let class = if group.query && place == 0 { "t query" } else { "t" };
                    span class=(class) style=(style) role="img" title=(words) aria-label=(words) {}
                }
            }
        }
    };
    html! {
        @if !group.title.is_empty() { h3 { (name(&group.title)) } }
        (sheet(&found, 56, "contact", inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> FileReport {
        let column = |name: &str, shape| ColumnReport {
            name: name.into(),
            kind: "float32".into(),
            nullable: false,
            bytes: 4,
            codec: "plain".into(),
            count: 3,
            nulls: 0,
            values: None,
            shape,
        };
        FileReport {
            bytes: 100,
            rows: 3,
            groups: Vec::new(),
            created_by: None,
            metadata: std::collections::BTreeMap::new(),
            columns: vec![
                column("<b>", Some(Shape::Histogram { low: -1.0, high: 1.0, counts: vec![1, 0, 2] })),
                column("cluster", Some(Shape::Counts(vec![(-1, 1), (2, 2)]))),
            ],
            first_rows: vec![vec!["<script>".into(), "2".into()]],
        }
    }

    #[test]
    fn a_page_shows_columns_and_their_spread_and_names_stay_text() {
        let look = Look { title: "a \"<i>\"".into(), files: vec![("x.parquet".into(), report())], groups: Vec::new() };
        let html = render(&look, &Album::default());
        assert!(!html.contains("<script>") && !html.contains("<i>") && html.contains("&lt;script&gt;"), "{html}");
        assert_eq!(html.matches("class=\"bar\"").count(), 4, "two bars of each; what never occurs has none");
        assert!(!html.contains("http://") && !html.contains("https://"));
        assert!(!html.contains("Pictures"));
    }

    #[test]
    fn pictures_that_cannot_be_read_leave_no_hole() {
        let group = Group { title: "cluster 1".into(), ids: vec!["a".into(), "b".into()], ..Group::default() };
        let html = render(&Look { groups: vec![group], ..Look::default() }, &Album::default());
        assert!(html.contains("Pictures") && !html.contains("url("), "{html}");
    }
}
