//! Pages of next to nothing.

use super::html::{is_of, limit, render};
use crate::album::Album;
use crate::gather::page::{Page, Part, Standing, Warning};

/// A page of a pipeline that never ran.
pub(super) fn empty_page() -> Page {
    Page {
        pipeline: "p".into(),
        file: "p.toml".into(),
        profile: None,
        fingerprint: "abc".into(),
        version: "0.1.0".into(),
        seed: 1,
        seeds: Vec::new(),
        device: "cpu".into(),
        standing: Standing::Never,
        run: None,
        stages: Vec::new(),
        wires: Vec::new(),
        warnings: Vec::new(),
        scores: Part::absent("no scores"),
        curves: Part::absent("no curves"),
        confusions: Part::absent("no confusions"),
        clusters: Part::absent("no clusters"),
        calibration: Part::absent("no calibration"),
        neighbors: Part::absent("no neighbors"),
        map: Part::absent("no map"),
        selections: Vec::new(),
        counts: Vec::new(),
        varied: Vec::new(),
        duplicates: None,
        near: Vec::new(),
        outliers: None,
    }
}

#[test]
fn a_page_of_nothing_has_no_empty_sections_and_says_why() {
    let page = empty_page();
    let html = render(&page, &Album::default());
    for why in
        ["no scores", "no curves", "no confusions", "no clusters", "no calibration", "no neighbors", "no map", "has not run"]
    {
        assert!(html.contains(why), "{why}");
    }
    let sections = |html: &str| html.matches("<section").count();
    assert_eq!(
        (sections(&html), html.matches("href=\"#").count()),
        (2, 2),
        "the stages, their link, and what is not shown: {html}"
    );
    assert!(html.len() < limit(&page));
    assert!(is_of(&html, "abc") && !is_of(&html, "abd"));
}

#[test]
fn sections_with_the_same_reason_share_a_line_and_one_that_is_shown_has_none() {
    let page = Page {
        scores: Part::Shown(Vec::new()),
        curves: Part::absent("no `map`"),
        map: Part::absent("no `map`"),
        ..empty_page()
    };
    let html = render(&page, &Album::default());
    assert!(html.contains("<li><b>Map, Training</b> <bdi>no <code><bdi>map</bdi></code></bdi></li>"), "{html}");
    assert!(
        html.contains("<section id=\"scores\">") && html.contains("href=\"#scores\">Scores</a>") && !html.contains("<b>Scores")
    );
}

#[test]
fn results_of_a_smoke_profile_are_called_meaningless_and_not_complete() {
    let badge = |profile: Option<&str>, standing: Standing| {
        let page = Page { profile: profile.map(str::to_owned), standing, ..empty_page() };
        let html = render(&page, &Album::default());
        html.split_once("<h1>").unwrap().1.split_once("</h1>").unwrap().0.to_owned()
    };
    let smoke = badge(Some("smoke"), Standing::Complete);
    assert!(smoke.contains("smoke: these numbers mean nothing") && !smoke.contains(">complete<"), "{smoke}");
    assert!(smoke.contains("data-standing=\"complete\""), "what reads the page finds the standing: {smoke}");
    let half = badge(Some("smoke"), Standing::Partial { stages: 1 });
    assert!(half.contains("these numbers mean nothing") && half.contains(">partly done<"), "{half}");
    for other in [badge(Some("full"), Standing::Complete), badge(None, Standing::Complete)] {
        assert!(
            other.contains("class=\"badge ok\"") && other.contains(">complete<") && !other.contains("mean nothing"),
            "{other}"
        );
    }
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let html = render(&empty_page(), &Album::default());
    for found in ["http:", "https:", "src=\"/", "@import", "url(//", "url(h"] {
        assert!(!html.contains(found), "{found}");
    }
    assert!(html.contains("default-src 'none'"));
}

#[test]
fn words_from_outside_are_text_wherever_they_stand() {
    let wicked = "</script><script>alert(1)</script>\"'<img src=x onerror=y>";
    let page = Page {
        pipeline: wicked.into(),
        file: wicked.into(),
        profile: Some(wicked.into()),
        device: wicked.into(),
        warnings: vec![Warning { about: "stage", text: wicked.into() }],
        scores: Part::absent(wicked),
        ..empty_page()
    };
    let html = render(&page, &Album::default());
    assert!(!html.contains("<img") && !html.contains("<script>alert"), "{html}");
    assert_eq!(html.matches("<script").count(), 1, "only the page's own");
}
