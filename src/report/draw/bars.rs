//! Bar charts: sizes of clusters, and histograms.

use maud::html;

use super::figure::{Figure, num, short};
use super::scale::{Scale, tidy};
use crate::gather::page::Clusters;
use kinset_base::unit;

/// Up to so many clusters have a bar with a name each.
const NAMED: usize = 40;

/// Images per cluster: named bars, or for many clusters all sizes from the largest to the smallest.
pub fn sizes(clusters: &Clusters) -> Figure {
    let most = clusters.each.iter().map(|cluster| cluster.size).max().unwrap_or(0).max(1);
    let even = clusters.count.saturating_sub(clusters.unassigned) as f64 / clusters.each.len().max(1) as f64;
    let label = format!("Sizes of {} clusters; the largest has {most} images.", clusters.each.len());
    if clusters.each.len() > NAMED {
        return ranked(clusters, most, even, label);
    }
    let (left, width, line) = (170.0, 300.0, 20.0);
    let x = Scale::new((0.0, most as f64), (left, left + width));
    let height = line * clusters.each.len() as f64 + 16.0;
    let body = html! {
        // Below the labels, which would be struck through by it.
        line.dash x1=(num(x.at(even))) x2=(num(x.at(even))) y1="0" y2=(num(height - 14.0)) {}
        @for (place, cluster) in clusters.each.iter().enumerate() {
            @let y = line * place as f64;
            text.end x=(num(left - 8.0)) y=(num(y + 13.5)) {
                (cluster.number)
                @if let Some(called) = cluster.name.as_ref().or(cluster.class.as_ref()) { tspan.soft { " · " (short(called, 20)) } }
            }
            rect.bar x=(num(left)) y=(num(y + 3.0)) width=(num((x.at(cluster.size as f64) - left).max(0.5))) height=(num(line - 6.0)) rx="2" {}
            text.soft.small.clear x=(num(x.at(cluster.size as f64) + 5.0)) y=(num(y + 13.5)) { (unit::count(cluster.size as u64)) }
        }
        text.faint.small.mid x=(num(x.at(even))) y=(num(height - 3.0)) { "even" }
    };
    Figure { width: left + width + 44.0, height, label, body }
}

fn ranked(clusters: &Clusters, most: usize, even: f64, label: String) -> Figure {
    let mut sizes: Vec<usize> = clusters.each.iter().map(|cluster| cluster.size).collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    let (left, top, width, height) = (48.0, 10.0, 440.0, 170.0);
    let x = Scale::new((0.0, sizes.len() as f64), (left, left + width));
    let y = Scale::new((0.0, most as f64), (top + height, top));
    let mut path = String::new();
    for (place, &size) in sizes.iter().enumerate() {
        path.push_str(&format!("L{},{}H{}", num(x.at(place as f64)), num(y.at(size as f64)), num(x.at(place as f64 + 1.0))));
    }
    let bottom = top + height;
    let body = html! {
        @for tick in y.ticks(4) {
            line.grid x1=(num(left)) x2=(num(left + width)) y1=(num(y.at(tick))) y2=(num(y.at(tick))) {}
            text.soft.small.end x=(num(left - 6.0)) y=(num(y.at(tick) + 3.2)) { (tidy(tick)) }
        }
        path.bar d=(format!("M{},{}{path}V{}Z", num(left), num(bottom), num(bottom))) fill-opacity="0.75" {}
        line.dash x1=(num(left)) x2=(num(left + width)) y1=(num(y.at(even))) y2=(num(y.at(even))) {}
        text.faint.small.end x=(num(left + width)) y=(num(y.at(even) - 4.0)) { "even" }
        text.soft.small x=(num(left)) y=(num(bottom + 14.0)) { "clusters, the largest first" }
    };
    Figure { width: left + width + 8.0, height: bottom + 20.0, label, body }
}

/// A histogram over equal bins from `low` to `high`.
pub fn histogram(counts: &[u64], (low, high): (f64, f64), unit: &str, label: String) -> Figure {
    let (left, top, width, height) = (8.0, 8.0, 300.0, 96.0);
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let x = Scale::new((0.0, counts.len().max(1) as f64), (left, left + width));
    let value = Scale::new((low, high), (left, left + width));
    let edge = |place: usize| low + (high - low) * place as f64 / counts.len().max(1) as f64;
    let body = html! {
        @for (place, &count) in counts.iter().enumerate() {
            @let tall = count as f64 / most * height;
            rect.bar x=(num(x.at(place as f64) + 0.8)) y=(num(top + height - tall)) height=(num(tall)) rx="1.5"
                width=(num(x.at(1.0) - x.at(0.0) - 1.6)) {
                title { (tidy(edge(place))) "–" (tidy(edge(place + 1))) ": " (unit::count(count)) }
            }
        }
        line.axis x1=(num(left)) x2=(num(left + width)) y1=(num(top + height)) y2=(num(top + height)) {}
        @for tick in value.ticks(5) {
            text.soft.small.mid x=(num(value.at(tick))) y=(num(top + height + 13.0)) { (tidy(tick)) }
        }
        text.faint.small.end x=(num(left + width)) y=(num(top + height + 26.0)) { (unit) }
    };
    Figure { width: left + width + 8.0, height: top + height + 30.0, label, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_has_a_bar_for_each_bin_the_tallest_as_high_as_the_drawing() {
        let svg = histogram(&[2, 8, 0], (0.0, 1.0), "confidence", "h".into()).inline().into_string();
        assert_eq!(svg.matches("class=\"bar\"").count(), 3);
        assert!(svg.contains("height=\"96\"") && svg.contains("height=\"24\"") && svg.contains("height=\"0\""), "{svg}");
    }
}
