//! The tables of scores: a line for everything that was measured, repetitions put together.

use super::inputs::{Results, above, wired};
use super::page::{Board, BoardRow, Measured};
use crate::scores::{Scored, distinct};
use kinset_artifact::scores::{MEASURES, Scores};
use kinset_math::stats;

/// One board for each measuring stage, in the order of the file.
pub(super) fn boards(results: &Results<'_>, scored: &[Scored]) -> Vec<Board> {
    let mut boards: Vec<Board> = Vec::new();
    for score in distinct(scored) {
        let Some(judge) = results.spec.nodes.iter().position(|node| node.family == score.measured_by) else { continue };
        let board = if let Some(place) = boards.iter().position(|board| board.stage == score.measured_by) {
            &mut boards[place]
        } else {
            boards.push(Board {
                stage: score.measured_by.clone(),
                images: score.images.clone(),
                count: score.row.images,
                classes: score.row.classes,
                matching: matching(results, judge),
                rows: Vec::new(),
            });
            let last = boards.len() - 1;
            &mut boards[last]
        };
        let known = board.rows.iter().position(|row| row.stage == score.stage);
        let place = known.unwrap_or_else(|| {
            board.rows.push(new_row(results, judge, score));
            board.rows.len() - 1
        });
        let row = &mut board.rows[place];
        row.seeds.push(score.seed);
        for measure in MEASURES {
            note(&mut row.measures, measure.name, measure.told(&score.row));
        }
    }
    boards.iter_mut().flat_map(|board| &mut board.rows).for_each(|row| sum_up(&mut row.measures));
    boards
}

/// Puts a measurement to those of the same name.
pub(super) fn note(measures: &mut Vec<Measured>, name: &'static str, value: Option<f64>) {
    let Some(value) = value else { return };
    match measures.iter_mut().find(|measure| measure.name == name) {
        Some(measure) => measure.values.push(value),
        None => measures.push(Measured { name, values: vec![value], mean: value, std: None }),
    }
}

/// Finds mean and deviation of what was noted.
pub(super) fn sum_up(measures: &mut [Measured]) {
    for measure in measures {
        measure.mean = stats::mean(&measure.values);
        measure.std = (measure.values.len() > 1).then(|| stats::std(&measure.values));
    }
}

fn new_row(results: &Results<'_>, judge: usize, score: &Scored) -> BoardRow {
    let nodes = &results.spec.nodes;
    let measured = score.made_by.as_ref().and_then(|maker| nodes.iter().position(|node| node.variant() == maker));
    let kind = measured.map_or_else(|| "kmeans".to_owned(), |node| nodes[node].kind.clone());
    // The baseline that `evaluate` fits itself is fitted on the images it measures.
    let images = wired(&nodes[judge], "images").or_else(|| wired(&nodes[judge], "queries"));
    let seen = match (measured, images) {
        (Some(measured), Some(images)) => Some(above(results.spec, measured).contains(&images)),
        (None, Some(_)) => Some(true),
        _ => None,
    };
    let sizes = &score.row.cluster_sizes;
    BoardRow {
        stage: score.stage.clone(),
        baseline: kind == "kmeans",
        kind,
        seen: seen.filter(|_| score.row.knn.is_none() && score.row.linear.is_none()),
        seeds: Vec::new(),
        measures: Vec::new(),
        clusters: score.row.clusters,
        sizes: sizes.iter().min().zip(sizes.iter().max()).map(|(least, most)| (*least, *most)),
        notes: score.row.notes.clone(),
    }
}

/// How clusters were matched with classes, in the words of the scores.
fn matching(results: &Results<'_>, judge: usize) -> String {
    let family = &results.spec.nodes[judge].family;
    let mut nodes = (0..results.spec.nodes.len()).filter(|&node| results.spec.nodes[node].family == *family);
    nodes
        .find_map(|node| Scores::load(&results.get::<Scores>(node)?).ok())
        .map(|scores| scores.protocol.matching)
        .unwrap_or_default()
}
