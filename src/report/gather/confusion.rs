//! Confusion matrices: which classes are taken for which. Rows are classes and sum to 1, whatever the sizes of the clusters.

use super::inputs::{Results, wired};
use super::page::{Confusion, Mistake};
use crate::scores::Scored;
use kinset_artifact::labels::{LabelTable, Labels};

/// Mistakes that are named.
const TOP: usize = 20;

/// A matrix for each thing that was measured with one, of repetitions the first. `main` is the stage to look at first.
pub(super) fn confusions(results: &Results<'_>, scored: &[Scored], main: Option<&str>) -> Vec<Confusion> {
    let mut all: Vec<Confusion> = Vec::new();
    for score in scored.iter().filter(|score| !score.row.confusion.is_empty()) {
        if all.iter().any(|known| known.measured_by == score.measured_by && known.stage == score.stage) {
            continue;
        }
        let names = class_names(results, &score.measured_by);
        let row = &score.row;
        let mut confusion = confusion(&row.confusion, &row.matching, &names);
        (confusion.measured_by, confusion.stage, confusion.images) =
            (score.measured_by.clone(), score.stage.clone(), score.images.clone());
        all.push(confusion);
    }
    // The classifier whose assignments are shown, else the last that is no baseline fitted on the way.
    let judges: Vec<String> = all.iter().map(|confusion| confusion.measured_by.clone()).collect();
    for judge in judges {
        let of_judge: Vec<usize> = (0..all.len()).filter(|&place| all[place].measured_by == judge).collect();
        let named = of_judge.iter().find(|&&place| Some(all[place].stage.as_str()) == main);
        let known = of_judge.iter().rfind(|&&place| results.spec.nodes.iter().any(|node| node.variant() == all[place].stage));
        if let Some(&place) = named.or(known).or(of_judge.first()) {
            all[place].main = true;
        }
    }
    all
}

/// The names of the classes that a stage measures against.
fn class_names(results: &Results<'_>, judge: &str) -> Vec<String> {
    let node = results.spec.nodes.iter().find(|node| node.family == judge);
    let labels = node.and_then(|node| wired(node, "labels")).and_then(|node| results.get::<Labels>(node));
    labels.and_then(|labels| LabelTable::load(&labels).ok()).map(|labels| labels.names).unwrap_or_default()
}

/// The name of a class, or its number.
pub(super) fn class_name(names: &[String], class: usize) -> String {
    names.get(class).filter(|name| !name.is_empty()).cloned().unwrap_or_else(|| format!("class {class}"))
}

/// Orders and scales a matrix. `counts` [C, K]; `matching`: pairs of cluster and class.
pub(super) fn confusion(counts: &[Vec<u64>], matching: &[(u32, u32)], names: &[String]) -> Confusion {
    let clusters = counts.first().map_or(0, Vec::len);
    let mut class_of = vec![None; clusters];
    for &(cluster, class) in matching {
        if let Some(place) = class_of.get_mut(cluster as usize) {
            *place = Some(class as usize);
        }
    }
    let mut columns: Vec<usize> = (0..clusters).collect();
    let size = |cluster: usize| counts.iter().map(|row| row[cluster]).sum::<u64>();
    // Clusters without a class come last, the largest first; several clusters of one class stand side by side.
    columns.sort_by_key(|&cluster| (class_of[cluster].unwrap_or(usize::MAX), std::cmp::Reverse(size(cluster)), cluster));
    let matched: Vec<Option<usize>> = columns.iter().map(|&cluster| class_of[cluster]).collect();
    let counts: Vec<Vec<u64>> = counts.iter().map(|row| columns.iter().map(|&cluster| row[cluster]).collect()).collect();
    let shares: Vec<Vec<f64>> = counts.iter().map(|row| shares(row)).collect();
    let name = |class: usize| class_name(names, class);
    let mut top = Vec::new();
    for (class, row) in counts.iter().enumerate() {
        for (column, &count) in row.iter().enumerate() {
            if count > 0 && matched[column] != Some(class) {
                top.push(Mistake {
                    class: name(class),
                    cluster: columns[column],
                    taken_for: matched[column].map(name),
                    count,
                    share: shares_at(&shares, class, column),
                });
            }
        }
    }
    // Stable: equal counts stay in the order of classes.
    top.sort_by_key(|mistake| std::cmp::Reverse(mistake.count));
    top.truncate(TOP);
    Confusion {
        measured_by: String::new(),
        stage: String::new(),
        images: String::new(),
        main: false,
        classes: (0..counts.len()).map(name).collect(),
        columns,
        matched,
        counts,
        shares,
        top,
    }
}

fn shares_at(shares: &[Vec<f64>], class: usize, column: usize) -> f64 {
    shares.get(class).and_then(|row| row.get(column)).copied().unwrap_or_default()
}

/// A row as shares of its sum; zeros where there is nothing.
fn shares(row: &[u64]) -> Vec<f64> {
    let sum: u64 = row.iter().sum();
    row.iter().map(|&count| if sum > 0 { count as f64 / sum as f64 } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_shares_of_the_class_and_columns_follow_the_matching() {
        // Class 0 lies in cluster 2, class 1 in cluster 0; cluster 1 belongs to none.
        let counts = [vec![1, 0, 3], vec![8, 2, 0], vec![0, 0, 0]];
        let names = ["cat".to_owned(), "dog".to_owned()];
        let matrix = confusion(&counts, &[(2, 0), (0, 1)], &names);
        assert_eq!(matrix.columns, [2, 0, 1]);
        assert_eq!(matrix.matched, [Some(0), Some(1), None]);
        assert_eq!(matrix.counts, [vec![3, 1, 0], vec![0, 8, 2], vec![0, 0, 0]]);
        assert_eq!(matrix.shares, [vec![0.75, 0.25, 0.0], vec![0.0, 0.8, 0.2], vec![0.0; 3]]);
        assert_eq!(matrix.classes, ["cat", "dog", "class 2"]);
        let top: Vec<(&str, usize, Option<&str>, u64)> =
            matrix.top.iter().map(|m| (m.class.as_str(), m.cluster, m.taken_for.as_deref(), m.count)).collect();
        assert_eq!(top, [("dog", 1, None, 2), ("cat", 0, Some("dog"), 1)]);
    }

    #[test]
    fn clusters_of_one_class_stand_side_by_side_the_largest_first() {
        let counts = [vec![1, 5, 9], vec![7, 0, 0]];
        let matrix = confusion(&counts, &[(0, 1), (1, 0), (2, 0)], &[]);
        assert_eq!(matrix.columns, [2, 1, 0]);
        for row in &matrix.shares {
            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}
