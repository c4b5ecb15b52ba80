//! The calibration of the classifier: whether it is as sure as it is right.

use super::assignments::Looked;
use super::inputs::{Results, Subject};
use super::page::{Bin, Calibration, Part};
use kinset_math::calibration::{BINS, reliability};

pub(super) fn calibration(results: &Results<'_>, subject: &Subject, looked: &Looked) -> Part<Calibration> {
    let Some(assigned) = &looked.assigned else { return Part::absent("There are no assignments to look at.") };
    if assigned.probable == Some(false) {
        return Part::absent("Distances to the centers of k-means are not probabilities, so they have no calibration.");
    }
    let (Some(truth), Some(matching)) = (&looked.truth, &assigned.matching) else {
        return Part::absent("The classes of these images are unknown, so calibration cannot be measured.");
    };
    let table = &assigned.table;
    let named = matching.rename(&table.cluster);
    let known: Vec<usize> = (0..table.len()).filter(|&row| truth.of_row[row] >= 0 && table.cluster[row] >= 0).collect();
    if known.is_empty() {
        return Part::absent("None of these images has both a cluster and a class.");
    }
    let confidence: Vec<f32> = known.iter().map(|&row| table.confidence[row].clamp(0.0, 1.0)).collect();
    let correct: Vec<bool> = known.iter().map(|&row| named[row] == truth.of_row[row]).collect();
    let found = reliability(&confidence, &correct, BINS);
    let share = |sum: f64| sum / known.len() as f64;
    Part::Shown(Calibration {
        stage: subject.assignments.map(|node| results.name(node).to_owned()).unwrap_or_default(),
        images: known.len(),
        ece: found.error,
        accuracy: share(correct.iter().filter(|right| **right).count() as f64),
        confidence: share(confidence.iter().map(|&p| f64::from(p)).sum()),
        bins: found
            .bins
            .iter()
            .map(|b| Bin { low: b.low, high: b.high, count: b.count, confidence: b.confidence, accuracy: b.accuracy })
            .collect(),
    })
}
