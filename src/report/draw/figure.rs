//! A drawing: shapes in a box of so many units, for a page or for a file of its own.

use maud::{Markup, PreEscaped, html};

/// Colors and type of all drawings. They hang on variables, so that a page can be dark.
pub const STYLE: &str = include_str!("figure.css");

/// A drawing.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Units across.
    pub width: f64,
    /// Units down.
    pub height: f64,
    /// What it shows, for those who do not see it.
    pub label: String,
    pub body: Markup,
}

impl Figure {
    /// As a part of a page that has [`STYLE`].
    pub fn inline(&self) -> Markup {
        let (width, height) = (num(self.width), num(self.height));
        html! {
            svg.fig viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height) role="img" aria-label=(self.label) {
                (self.body)
            }
        }
    }

    /// As a file.
    pub fn standalone(&self) -> String {
        let (width, height) = (num(self.width), num(self.height));
        let svg = html! {
            svg.fig xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height)
                role="img" aria-label=(self.label) {
                style { (PreEscaped(STYLE)) }
                rect.paper width="100%" height="100%" {}
                (self.body)
            }
        };
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", svg.into_string())
    }
}

/// A coordinate, short: tenths of a unit are seen by nobody.
pub fn num(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A text in at most so many letters.
pub fn short(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(letters.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The class that gives a thing its color: one of ten, then all over again.
pub fn color(place: usize) -> String {
    format!("c{}", place % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_texts_are_short() {
        assert_eq!([num(1.0), num(-0.04), num(2.55), num(-3.25)], ["1", "0", "2.5", "-3.2"]);
        assert_eq!([short("shirt", 5), short("ankle boot", 6)], ["shirt", "ankle…"]);
    }

    #[test]
    fn a_file_of_its_own_escapes_its_label() {
        let figure = Figure { width: 10.0, height: 5.5, label: "<a> & \"b\"".into(), body: html! { g {} } };
        let file = figure.standalone();
        assert!(
            file.contains("aria-label=\"&lt;a&gt; &amp; &quot;b&quot;\"") && file.contains("viewBox=\"0 0 10 5.5\""),
            "{file}"
        );
        assert!(!figure.inline().into_string().contains("http"));
    }
}
