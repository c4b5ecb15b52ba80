//! Reliability diagrams: confidence against accuracy. Bars below the diagonal are more confident than they are right.

use maud::html;

use super::figure::{Figure, num};
use super::scale::Scale;
use crate::gather::page::Calibration;
use kinset_base::unit;

const LEFT: f64 = 44.0;
const SIDE: f64 = 288.0;
const TOP: f64 = 14.0;
const COUNTS: f64 = 64.0;
const GAP: f64 = 14.0;

/// The reliability diagram, and below it how many images there are at each confidence.
pub fn reliability(calibration: &Calibration) -> Figure {
    let x = Scale::new((0.0, 1.0), (LEFT, LEFT + SIDE));
    let y = Scale::new((0.0, 1.0), (TOP + SIDE, TOP));
    let most = calibration.bins.iter().map(|bin| bin.count).max().unwrap_or(1).max(1);
    let base = TOP + SIDE + GAP + COUNTS;
    let total: u64 = calibration.bins.iter().map(|bin| bin.count).sum::<u64>().max(1);
    let body = html! {
        @for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
            line.grid x1=(num(LEFT)) x2=(num(LEFT + SIDE)) y1=(num(y.at(tick))) y2=(num(y.at(tick))) {}
            text.soft.small.end x=(num(LEFT - 6.0)) y=(num(y.at(tick) + 3.2)) { (format!("{:.0}", tick * 100.0)) }
            text.soft.small.mid x=(num(x.at(tick))) y=(num(base + 13.0)) { (format!("{:.0}", tick * 100.0)) }
        }
        @for bin in calibration.bins.iter().filter(|bin| bin.count > 0) {
            @let (left, width) = (x.at(bin.low) + 1.0, x.at(bin.high) - x.at(bin.low) - 2.0);
            @let (right, sure) = (y.at(bin.accuracy), y.at(bin.confidence));
            rect.bar x=(num(left)) y=(num(right)) width=(num(width)) height=(num((TOP + SIDE - right).max(0.0))) rx="1.5" {
                title {
                    "confidence " (format!("{:.0}–{:.0}", bin.low * 100.0, bin.high * 100.0)) " %: " (bin.count) " images, mean confidence "
                    (format!("{:.1}", bin.confidence * 100.0)) " %, accuracy " (format!("{:.1}", bin.accuracy * 100.0)) " %"
                }
            }
            rect.gap x=(num(left)) y=(num(right.min(sure))) width=(num(width)) height=(num((right - sure).abs())) rx="1" {}
            @let tall = bin.count as f64 / most as f64 * COUNTS;
            rect.bar x=(num(left)) y=(num(base - tall)) width=(num(width)) height=(num(tall)) rx="1.5" fill-opacity="0.45" {
                title { (unit::count(bin.count)) " images, " (format!("{:.1}", bin.count as f64 / total as f64 * 100.0)) " %" }
            }
        }
        line.dash x1=(num(LEFT)) y1=(num(TOP + SIDE)) x2=(num(LEFT + SIDE)) y2=(num(TOP)) {}
        line.axis x1=(num(LEFT)) x2=(num(LEFT + SIDE)) y1=(num(TOP + SIDE)) y2=(num(TOP + SIDE)) {}
        line.axis x1=(num(LEFT)) x2=(num(LEFT + SIDE)) y1=(num(base)) y2=(num(base)) {}
        text.soft.small x=(num(LEFT + 10.0)) y=(num(TOP + 34.0)) { "accuracy, %" }
        text.soft.small.end x=(num(LEFT - 6.0)) y=(num(base - COUNTS + 8.0)) { "images" }
        text.soft.small.end x=(num(LEFT + SIDE)) y=(num(base + 26.0)) { "confidence, %" }
        text.strong x=(num(LEFT + 10.0)) y=(num(TOP + 20.0)) { "ECE " (format!("{:.1}", calibration.ece * 100.0)) " %" }
    };
    let label = format!(
        "Reliability of {}: expected calibration error {:.1} percent over {} images.",
        calibration.stage,
        calibration.ece * 100.0,
        calibration.images,
    );
    Figure { width: LEFT + SIDE + 10.0, height: base + 30.0, label, body }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::page::Bin;

    #[test]
    fn there_are_bars_where_there_are_images_and_the_error_is_written_out() {
        let bin = |low: f64, count, confidence, accuracy| Bin { low, high: low + 0.5, count, confidence, accuracy };
        let calibration = Calibration {
            stage: "a".into(),
            images: 10,
            ece: 0.2,
            accuracy: 0.7,
            confidence: 0.9,
            bins: vec![bin(0.0, 0, 0.0, 0.0), bin(0.5, 10, 0.9, 0.7)],
        };
        let svg = reliability(&calibration).inline().into_string();
        assert_eq!((svg.matches("class=\"bar\"").count(), svg.matches("class=\"gap\"").count()), (2, 1));
        assert!(svg.contains("ECE 20.0 %") && svg.contains("10 images, mean confidence 90.0 %, accuracy 70.0 %"), "{svg}");
        // 0.2 of 288 units, between accuracy and confidence.
        assert!(svg.contains("height=\"57.6\""), "{svg}");
    }
}
