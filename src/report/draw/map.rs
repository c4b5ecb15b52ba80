//! The map of features: a point for each image of the sample, and the number of a cluster where most of it lies.

use std::collections::BTreeMap;

use maud::html;

use super::figure::{Figure, color, num};
use super::scale::Scale;
use crate::gather::page::{Colors, Map, Point};

const SIDE: f64 = 520.0;
const ROOM: f64 = 10.0;
/// Up to so many clusters are numbered.
const NUMBERED: usize = 60;

/// Which of the two placements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Pca,
    Tsne,
}

impl Placed {
    fn at(self, point: &Point) -> (f64, f64) {
        match self {
            Self::Pca => point.pca,
            Self::Tsne => point.tsne,
        }
    }
}

/// The map. Points carry their place in the sample, for the picture beside the pointer.
pub fn map(map: &Map, placed: Placed) -> Figure {
    let places: Vec<(f64, f64)> = map.points.iter().map(|point| placed.at(point)).collect();
    let (left, right) = Scale::range(places.iter().map(|place| place.0));
    let (low, high) = Scale::range(places.iter().map(|place| place.1));
    // One scale for both axes: distances are what there is to see.
    let span = (right - left).max(high - low).max(f64::MIN_POSITIVE);
    let middle = (left.midpoint(right), low.midpoint(high));
    let x = Scale::new((middle.0 - span / 2.0, middle.0 + span / 2.0), (ROOM, SIDE - ROOM));
    let y = Scale::new((middle.1 - span / 2.0, middle.1 + span / 2.0), (SIDE - ROOM, ROOM));
    let radius = if places.len() > 800 { "2.6" } else { "3.4" };
    let colors = map.points.iter().map(|point| point.color).max().unwrap_or(-1);
    let body = html! {
        @for (place, (point, at)) in map.points.iter().zip(&places).enumerate() {
            circle class=(class(point.color, colors)) style=[hue(point.color, colors)]
                cx=(num(x.at(at.0))) cy=(num(y.at(at.1))) r=(radius) data-i=(place) {}
        }
        @for (number, (at_x, at_y)) in middles(map, &places) {
            text.halo.mid x=(num(x.at(at_x))) y=(num(y.at(at_y) + 4.0)) { (number) }
        }
    };
    let by = match placed {
        Placed::Pca => "their first two principal components",
        Placed::Tsne => "t-SNE",
    };
    let label = format!("{} of {} images placed by {by} of `{}`.", map.points.len(), map.of, map.stage);
    Figure { width: SIDE, height: SIDE, label, body }
}

/// One of ten colors, as long as there are ten or fewer.
fn class(color_of: i32, most: i32) -> String {
    let one = usize::try_from(color_of).ok().filter(|_| most < 10).map(color);
    format!("point {}", one.unwrap_or_default()).trim_end().to_owned()
}

/// A hue of its own for each of more than ten, neighbors far apart.
fn hue(color_of: i32, most: i32) -> Option<String> {
    (color_of >= 0 && most >= 10).then(|| format!("--c:oklch(.62 .14 {:.0})", f64::from(color_of) * 137.508 % 360.0))
}

/// Where the middle image of each cluster lies; medians, so that strays do not count.
fn middles(map: &Map, places: &[(f64, f64)]) -> Vec<(i32, (f64, f64))> {
    let mut groups: BTreeMap<i32, Vec<(f64, f64)>> = BTreeMap::new();
    for (point, place) in map.points.iter().zip(places).filter(|(point, _)| point.color >= 0) {
        groups.entry(point.color).or_default().push(*place);
    }
    if map.colors == Colors::None || groups.len() > NUMBERED {
        return Vec::new();
    }
    let median = |values: Vec<f64>| kinset_math::stats::median(&values);
    groups
        .into_iter()
        .map(|(number, group)| {
            let across = median(group.iter().map(|place| place.0).collect());
            (number, (across, median(group.iter().map(|place| place.1).collect())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::page::Shot;

    #[test]
    fn every_image_is_a_point_and_every_cluster_a_number() {
        let point =
            |i: i32| Point { shot: Shot::default(), color: i % 3 - 1, pca: (f64::from(i), 0.0), tsne: (0.0, f64::from(i)) };
        let sample = Map {
            stage: "f".into(),
            dim: 8,
            of: 100,
            share: (0.5, 0.2),
            colors: Colors::Clusters,
            points: (0..9).map(point).collect(),
        };
        for placed in [Placed::Pca, Placed::Tsne] {
            let svg = map(&sample, placed).inline().into_string();
            assert_eq!(svg.matches("<circle").count(), 9);
            assert_eq!(svg.matches("class=\"halo mid\"").count(), 2, "−1 is no cluster: {svg}");
            assert!(svg.contains("data-i=\"8\"") && svg.contains("class=\"point c1\""), "{svg}");
        }
        let (wide, narrow) = (hue(11, 30), hue(-1, 30));
        assert!(wide.is_some() && narrow.is_none() && class(11, 30) == "point");
    }
}
