//! Formatting and escaping of numbers, names and pictures. Everything that comes from outside goes through here or through `maud`'s
//! own escaping.

use std::time::Duration;

use maud::{Markup, PreEscaped, html};
use serde::Serialize;

use crate::album::{Album, Sheet};
use crate::gather::page::{Page, Part, Shot};
use kinset_base::unit;
use kinset_store::digest::Digest;

/// What all sections write on.
#[derive(Clone, Copy)]
pub(super) struct Paper<'a> {
    pub(super) page: &'a Page,
    pub(super) album: &'a Album,
    /// Quality of pictures, 1–100.
    pub(super) quality: u8,
}

/// A name from outside: text, in its own direction.
pub(super) fn name(text: &str) -> Markup {
    html! { bdi { (text) } }
}

pub(super) fn stage(text: &str) -> Markup {
    html! { code { bdi { (text) } } }
}

/// A message: text, with what stands in back-ticks set as names.
pub(super) fn prose(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    // An odd tick is a tick.
    let paired = parts.len() % 2 == 1;
    html! {
        bdi {
            @if paired {
                @for (place, part) in parts.iter().enumerate() {
                    @if place % 2 == 1 { (stage(part)) } @else { (part) }
                }
            } @else { (text) }
        }
    }
}

/// A share as percent, one decimal.
pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1}", share * 100.0) } else { "–".to_owned() }
}

pub(super) fn seconds(time: f64) -> String {
    unit::duration(Duration::from_secs_f64(time.clamp(0.0, 1e12)))
}

/// `2026-11-21T22-50-09.123Z` as people read it.
pub(super) fn moment(stamp: &str) -> String {
    let (date, time) = stamp.split_once('T').unwrap_or((stamp, ""));
    let time: Vec<&str> = time.split(['-', '.']).take(2).collect();
    if time.len() == 2 { format!("{date} {} UTC", time.join(":")) } else { stamp.to_owned() }
}

/// A section, if there is something in it.
pub(super) fn section<T>(id: &str, title: &str, part: &Part<T>, shown: impl FnOnce(&T) -> Markup) -> Markup {
    html! {
        @if let Some(value) = part.shown() {
            section id=(id) {
                h2 { a.anchor href={ "#" (id) } { (title) } }
                (shown(value))
            }
        }
    }
}

/// Cells of a sheet share its picture; `show` is the side of a cell on the page, in CSS pixels.
pub(super) fn sheet(sheet: &Sheet, show: usize, class: &str, inside: Markup) -> Markup {
    let pixelated = if sheet.side * 2 <= show { " crisp" } else { "" };
    let style = format!("--sprite:url({});--n:{};--m:{};--s:{show}px", sheet.uri, sheet.columns, sheet.rows);
    html! { div class={ "sheet " (class) (pixelated) } style=(style) { (inside) } }
}

/// The cell at a place of a sheet.
pub(super) fn cell(paper: Paper<'_>, shot: &Shot, place: usize, columns: usize, class: &str) -> Markup {
    let wrong = if shot.right == Some(false) { " wrong" } else { "" };
    let style = format!("--x:{};--y:{}", place % columns.max(1), place / columns.max(1));
    let words = about(paper, shot);
    let whole = paper.album.number(&shot.id);
    html! { span class={ "t " (class) (wrong) } style=(style) role="img" title=(words) aria-label=(words) data-whole=[whole] {} }
}

/// An image in words.
pub(super) fn about(paper: Paper<'_>, shot: &Shot) -> String {
    let mut words = paper.album.path(&shot.id).map_or_else(|| unnamed(shot), str::to_owned);
    if let Some(class) = &shot.class {
        words.push_str(&format!(" · {class}"));
    }
    if shot.cluster >= 0 {
        words.push_str(&format!(" · cluster {}", shot.cluster));
    }
    if let Some(confidence) = shot.confidence {
        words.push_str(&format!(" · confidence {:.1} %", confidence * 100.0));
    }
    if let Some(similarity) = shot.similarity {
        words.push_str(&format!(" · similarity {similarity:.3}"));
    }
    words
}

/// An image without a file: its name, or if that is only the digest of its pixels, its number.
fn unnamed(shot: &Shot) -> String {
    if shot.id.parse::<Digest>().is_ok() { format!("image {}", shot.row) } else { shot.id.clone() }
}

/// Data for the page's script. In a script element only `<` can end it, so none is left.
pub(super) fn data(id: &str, value: &impl Serialize) -> Markup {
    // Plain types with text keys: this cannot fail.
    let text = serde_json::to_string(value).unwrap_or_default().replace('<', "\\u003c");
    html! { script id=(id) type="application/json" { (PreEscaped(text)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_markup_quotes_emoji_and_other_directions_are_text() {
        let wicked = "<script>alert(\"1\")</script> & 'x' 🦊 \u{202e}gnp.exe \u{5e9}\u{5dc}\u{5d5}\u{5dd}";
        let html = name(wicked).into_string();
        assert!(html.starts_with("<bdi>&lt;script&gt;alert(&quot;1&quot;)") && html.ends_with("</bdi>"), "{html}");
        assert!(html.contains('🦊') && html.contains('\u{5e9}') && html.contains("&amp;"));
        let album = Album::default();
        let shot = Shot { id: "\"><img src=x>".into(), class: Some(wicked.into()), cluster: 1, ..Shot::default() };
        let page = super::super::tests::empty_page();
        let html = cell(Paper { page: &page, album: &album, quality: 80 }, &shot, 5, 3, "").into_string();
        assert!(!html.contains("<img") && !html.contains("<script") && html.contains("--x:2;--y:1"), "{html}");
    }

    #[test]
    fn names_in_messages_are_set_apart_and_stay_text() {
        assert_eq!(prose("no `<b>` here").into_string(), "<bdi>no <code><bdi>&lt;b&gt;</bdi></code> here</bdi>");
        assert_eq!(prose("a ` b").into_string(), "<bdi>a ` b</bdi>");
    }

    #[test]
    fn data_cannot_end_its_script() {
        let html = data("d", &["</script><b>", "<!--"]).into_string();
        assert_eq!(html.matches('<').count(), 2, "{html}");
        assert!(html.contains("\\u003c/script>\\u003cb>"));
    }

    #[test]
    fn moments_and_shares_are_read_by_people() {
        assert_eq!(moment("2026-11-21T22-50-09.123Z"), "2026-11-21 22:50 UTC");
        assert_eq!(moment("odd"), "odd");
        assert_eq!([percent(0.6884), percent(f64::NAN)], ["68.8", "–"]);
    }
}
