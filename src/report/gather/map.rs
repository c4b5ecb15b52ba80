//! The map of the features: a sample of them along two principal components, and as t-SNE places them.

use super::assignments::{Looked, take};
use super::inputs::{Results, Subject};
use super::page::{Colors, Map, Part, Point};
use kinset_artifact::features::{FeatureReader, Features};
use kinset_base::seed::Seed;
use kinset_math::pca::principal;
use kinset_math::tsne::Tsne;

/// Images on paper: every pair of them is looked at, many times, and every run that did something waits for it.
const SAMPLE: usize = 1200;

/// The map of the report's features.
pub(super) fn map(results: &Results<'_>, subject: &Subject, looked: &Looked) -> Part<Map> {
    let Some(node) = subject.features else { return Part::absent("There are no features of these images yet.") };
    let mut faults = Vec::new();
    let reader = results.get::<Features>(node).and_then(|stored| take(FeatureReader::open(&stored), &mut faults));
    let sample = reader.as_ref().map_or_else(Vec::new, |reader| sample(reader.len()));
    let values = reader.as_ref().and_then(|reader| take(reader.rows(&sample), &mut faults));
    let (Some(reader), Some(values)) = (reader, values) else {
        return Part::absent(format!("`{}` cannot be read: {}", results.name(node), faults.join("; ")));
    };
    if sample.len() < 4 {
        return Part::absent("Fewer than four images make no map.");
    }
    let dim = reader.dim();
    let known = looked.assigned.as_ref().is_none_or(|assigned| assigned.table.ids == reader.ids());
    let classes = if looked.assigned.is_none() { looked.classes_of(reader.ids()) } else { None };
    let colors = match (&looked.assigned, &classes) {
        (Some(_), _) if known => Colors::Clusters,
        (None, Some(_)) => Colors::Classes,
        _ => Colors::None,
    };
    let pca = principal(&values, dim, 2);
    let placed = Tsne::default().place(&values, dim);
    let points = sample
        .iter()
        .enumerate()
        .map(|(place, &row)| {
            let row = row as usize;
            let id = &reader.ids()[row];
            let shot = looked.shot(row, id);
            let color = match (colors, &classes) {
                (Colors::Clusters, _) => shot.cluster,
                (Colors::Classes, Some(classes)) => classes[row],
                _ => -1,
            };
            let along = |axis: usize| if axis < pca.count { pca.scores[place * pca.count + axis] } else { 0.0 };
            Point { shot, color, pca: (along(0), along(1)), tsne: (placed[place][0], placed[place][1]) }
        })
        .collect();
    let share = |axis: usize| pca.share.get(axis).copied().unwrap_or(0.0);
    Part::Shown(Map {
        stage: results.name(node).to_owned(),
        dim,
        of: reader.len(),
        share: (share(0), share(1)),
        colors,
        points,
    })
}

/// Random rows, ascending; the same ones every time.
fn sample(len: usize) -> Vec<u32> {
    if len <= SAMPLE {
        return (0..len as u32).collect();
    }
    let mut rows = Seed::new(0).branch("report").branch("map").rng().permutation(len);
    rows.truncate(SAMPLE);
    rows.sort_unstable();
    rows.into_iter().map(|row| row as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_ascends_has_no_row_twice_and_is_the_same_every_time() {
        let rows = sample(10_000);
        assert_eq!(rows.len(), SAMPLE);
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]) && rows[SAMPLE - 1] < 10_000);
        assert_eq!(rows, sample(10_000));
        assert_eq!(sample(3), [0, 1, 2]);
    }
}
