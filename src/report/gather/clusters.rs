//! The clusters and the images to judge them by: a prototype, the surest, the least sure, some at random.

use super::assignments::{Assigned, Looked};
use super::confusion::class_name;
use super::inputs::{Results, Subject};
use super::page::{Cluster, Clusters, Group, Groups, Part};
use kinset_artifact::assignments::AssignmentTable;
use kinset_artifact::features::{FeatureReader, Features};
use kinset_base::seed::Seed;
use kinset_dataset::names::Names;
use kinset_math::prototype::{TOP, prototypes};
use kinset_math::stats;
use kinset_math::topk::rank;

/// Bins of the histogram of confidence.
const BINS: usize = 20;
/// Classes that are named for each cluster.
const CLASSES: usize = 4;

/// Images in each row of a contact sheet: fewer where there are many clusters, so that a page stays a page.
pub(super) fn per_row(clusters: usize) -> usize {
    match clusters {
        0..=12 => 14,
        13..=30 => 10,
        31..=100 => 8,
        101..=300 => 5,
        _ => 3,
    }
}

/// All clusters of the report's assignments.
pub(super) fn clusters(results: &Results<'_>, subject: &Subject, looked: &Looked) -> Part<Clusters> {
    let Some(node) = subject.assignments else {
        return Part::absent("No stage of this pipeline writes assignments: add one of the kind `predict`.");
    };
    let stage = results.name(node);
    let Some(assigned) = &looked.assigned else {
        let why = looked
            .faults
            .first()
            .map_or_else(|| "it has no result yet".to_owned(), |fault| format!("it cannot be read: {fault}"));
        return Part::absent(format!("Nothing to show of `{stage}`: {why}."));
    };
    let table = &assigned.table;
    let members = members(&table.cluster, table.clusters);
    let per_row = per_row(table.clusters);
    let mut by_confidence = members.clone();
    for rows in &mut by_confidence {
        rows.sort_unstable_by(|&a, &b| rank((table.confidence[a], a), (table.confidence[b], b)));
    }
    let (standing, prototypes_by) = stand_ins(results, subject, assigned, &by_confidence);
    let shot = |row: &usize| looked.shot(*row, &table.ids[*row]);
    let each = members
        .iter()
        .zip(&by_confidence)
        .enumerate()
        .map(|(number, (rows, sorted))| {
            let mut lot = rows.clone();
            Seed::new(0).branch("report").at(number as u64).rng().shuffle(&mut lot);
            let classes = classes(looked, assigned, number);
            let known: u64 = assigned.counted.as_ref().map_or(0, |counted| counted.cluster_sizes()[number]);
            let mean = rows.iter().map(|&row| f64::from(table.confidence[row])).sum::<f64>() / rows.len().max(1) as f64;
            Cluster {
                number,
                size: rows.len(),
                confidence: (!rows.is_empty()).then_some(mean),
                name: assigned.names.as_ref().and_then(|names| names.clusters.get(&number).cloned()),
                class: assigned.class(number).zip(looked.truth.as_ref()).map(|(class, truth)| class_name(&truth.names, class)),
                purity: classes.first().filter(|_| known > 0).map(|(_, count)| *count as f64 / known as f64),
                classes: classes.into_iter().take(CLASSES).collect(),
                prototype: standing[number].as_ref().map(shot),
                most: sorted.iter().take(per_row).map(shot).collect(),
                least: sorted.iter().rev().take(per_row).map(shot).collect(),
                random: lot.iter().take(per_row).map(shot).collect(),
            }
        })
        .collect();
    let confidence: Vec<f64> = table.confidence.iter().map(|&p| f64::from(p).clamp(0.0, 1.0)).collect();
    let one_to_one = "one class for each cluster, so that the most images come out right (Hungarian method)";
    let matching = assigned.matching.as_ref().zip(looked.truth.as_ref()).map(|(_, truth)| {
        if table.clusters > truth.count { "each cluster is named after its most frequent class" } else { one_to_one }.to_owned()
    });
    let accuracy =
        assigned.counted.as_ref().zip(assigned.matching.as_ref()).map(|(counted, matching)| counted.accuracy(matching));
    Part::Shown(Clusters {
        stage: stage.to_owned(),
        classifier: subject.classifier.map(|node| results.name(node).to_owned()),
        images: subject.images.map(|node| results.name(node).to_owned()).unwrap_or_default(),
        count: table.len(),
        unassigned: table.cluster.iter().filter(|cluster| **cluster < 0).count(),
        prototypes_by,
        matching,
        accuracy,
        groups: assigned.names.as_ref().map(|names| groups(names, table)),
        median_confidence: stats::median(&confidence),
        confidence: stats::histogram(&confidence, 0.0, 1.0, BINS),
        each,
    })
}

/// The groups that follow from names.
fn groups(names: &Names, table: &AssignmentTable) -> Groups {
    let list = names.list(table);
    let laid = names.groups(table);
    Groups {
        moved: list.iter().map(|group| group.moved).sum(),
        rejected: (0..laid.len()).filter(|&row| laid.is_rejected(row)).count(),
        each: list
            .into_iter()
            .map(|group| Group { name: group.name, clusters: group.clusters, images: group.images })
            .collect(),
    }
}

/// Rows by cluster.
fn members(cluster: &[i32], clusters: usize) -> Vec<Vec<usize>> {
    let mut members = vec![Vec::new(); clusters];
    for (row, &cluster) in cluster.iter().enumerate() {
        if let Some(rows) = usize::try_from(cluster).ok().and_then(|cluster| members.get_mut(cluster)) {
            rows.push(row);
        }
    }
    members
}

/// The classes of a cluster, the most frequent first.
fn classes(looked: &Looked, assigned: &Assigned, number: usize) -> Vec<(String, u64)> {
    let (Some(counted), Some(truth)) = (&assigned.counted, &looked.truth) else { return Vec::new() };
    let of_cluster = counted.cells().iter().filter(|(cluster, _, _)| cluster.0 == number);
    let mut classes: Vec<(usize, u64)> = of_cluster.map(|(_, class, count)| (class.0, *count)).collect();
    classes.sort_by_key(|&(class, count)| (std::cmp::Reverse(count), class));
    classes.into_iter().map(|(class, count)| (class_name(&truth.names, class), count)).collect()
}

/// The image that stands for each cluster, and how it was chosen. Of the features only the rows in question are read.
fn stand_ins(
    results: &Results<'_>,
    subject: &Subject,
    assigned: &Assigned,
    by_confidence: &[Vec<usize>],
) -> (Vec<Option<usize>>, String) {
    let surest = || by_confidence.iter().map(|rows| rows.first().copied()).collect();
    let features = subject.features.and_then(|node| Some((node, FeatureReader::open(&results.get::<Features>(node)?).ok()?)));
    let Some((node, features)) = features.filter(|(_, features)| features.ids() == assigned.table.ids) else {
        return (surest(), "the most confident image of each cluster (there are no features of these images)".into());
    };
    let table = &assigned.table;
    let mut rows: Vec<u32> = by_confidence.iter().flat_map(|rows| rows.iter().take(TOP).map(|&row| row as u32)).collect();
    rows.sort_unstable();
    let Ok(values) = features.rows(&rows) else {
        return (surest(), "the most confident image of each cluster (the features cannot be read)".into());
    };
    let cluster: Vec<i32> = rows.iter().map(|&row| table.cluster[row as usize]).collect();
    let confidence: Vec<f32> = rows.iter().map(|&row| table.confidence[row as usize]).collect();
    let found = prototypes(&cluster, &confidence, &values, features.dim(), table.clusters, TOP);
    let by = format!("of the {TOP} most confident images the one nearest to their mean feature (`{}`)", results.name(node));
    (found.into_iter().map(|place| place.map(|place| rows[place] as usize)).collect(), by)
}
