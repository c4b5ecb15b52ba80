//! The assignments that a report shows, with the classes of their images where these are known.

use std::collections::BTreeMap;

use super::confusion::class_name;
use super::inputs::{Results, Subject};
use super::page::Shot;
use crate::names;
use kinset_artifact::assignments::{AssignmentTable, Assignments};
use kinset_artifact::encoder::{Classifier, HeadKind};
use kinset_artifact::labels::{LabelTable, Labels};
use kinset_base::fault::{Fault, chain};
use kinset_dataset::names::Names;
use kinset_math::partition::{Classes, ClusterId, Clusters, Contingency, Matching};
use kinset_pipeline::state::Outlook;

/// The classes of the images.
pub(super) struct Truth {
    /// `[N]`, −1 where it is not known; in the order of [`Looked::ids`].
    pub(super) of_row: Vec<i32>,
    pub(super) names: Vec<String>,
    pub(super) count: usize,
}

/// What is known of the images of a report.
#[derive(Default)]
pub(super) struct Looked {
    /// The images that are looked at, in their order: those of the assignments, else those that have labels.
    ids: Vec<String>,
    pub(super) assigned: Option<Assigned>,
    pub(super) truth: Option<Truth>,
    pub(super) faults: Vec<String>,
    /// Why names are not shown, and what to do.
    pub(super) unnamed: Option<String>,
}

/// Which cluster each image is in.
pub(super) struct Assigned {
    pub(super) table: AssignmentTable,
    /// Clusters and classes, where classes are known.
    pub(super) counted: Option<Contingency>,
    pub(super) matching: Option<Matching>,
    /// What a person calls the clusters.
    pub(super) names: Option<Names>,
    /// False for centroids, whose distances are no probabilities; nothing where the classifier is not known.
    pub(super) probable: Option<bool>,
}

/// Takes a result, or notes why it cannot be read.
pub(super) fn take<T, E: std::error::Error>(result: Result<T, E>, faults: &mut Vec<String>) -> Option<T> {
    result.map_err(|error| faults.push(chain(&error))).ok()
}

impl Looked {
    /// Reads what the subject has.
    pub(super) fn load(outlook: &Outlook<'_>, results: &Results<'_>, subject: &Subject) -> Self {
        let mut looked = Self::default();
        let stored = subject.assignments.and_then(|node| Some((node, results.get::<Assignments>(node)?)));
        let table = stored.as_ref().and_then(|(_, stored)| take(AssignmentTable::load(stored), &mut looked.faults));
        let labels = subject.labels.and_then(|node| results.get::<Labels>(node));
        let labels = labels.and_then(|stored| take(LabelTable::load(&stored), &mut looked.faults));
        if let Some(labels) = labels {
            looked.ids = table.as_ref().map_or_else(|| labels.ids.clone(), |table| table.ids.clone());
            looked.truth = truth(&looked.ids, labels);
        } else if let Some(table) = &table {
            looked.ids.clone_from(&table.ids);
        }
        let card = subject.classifier.and_then(|node| results.get::<Classifier>(node));
        let card = card.and_then(|stored| take(Classifier::card(&stored), &mut looked.faults));
        let names = table.as_ref().zip(stored).and_then(|(table, (node, stored))| {
            match names::of_assignments(outlook, node, stored.digest(), table.clusters) {
                Ok(found) => found.map(|(_, names)| names),
                Err(error) => {
                    looked.unnamed =
                        Some(error.hint().map_or_else(|| chain(&error), |hint| format!("{}: {hint}", chain(&error))));
                    None
                }
            }
        });
        looked.assigned = table.map(|table| {
            let counted = looked.truth.as_ref().map(|truth| {
                let clusters = Clusters { of_row: &table.cluster, count: table.clusters };
                Contingency::new(clusters, Classes { of_row: &truth.of_row, count: truth.count })
            });
            let counted = counted.filter(|counted| counted.total() > 0);
            // As `evaluate` does it.
            let matching = counted.as_ref().zip(looked.truth.as_ref()).map(|(counted, truth)| {
                if table.clusters > truth.count { counted.match_by_majority() } else { counted.match_one_to_one() }
            });
            Assigned { table, counted, matching, names, probable: card.map(|card| card.kind != HeadKind::Centroids) }
        });
        looked
    }

    /// The classes of some images, `[N]`, −1 where one is not known; nothing if none is. Tables of equal length may still hold other
    /// images, or the same in another order.
    pub(super) fn classes_of(&self, ids: &[String]) -> Option<Vec<i32>> {
        let of_row = &self.truth.as_ref()?.of_row;
        if ids == self.ids {
            return Some(of_row.clone());
        }
        let classes = by_id(ids, &self.ids, of_row);
        classes.iter().any(|class| *class >= 0).then_some(classes)
    }

    /// An image as it is shown. What is known of a row is told only of the image that is in it.
    pub(super) fn shot(&self, row: usize, id: &str) -> Shot {
        if self.ids.get(row).is_none_or(|own| own != id) {
            return Shot { row: row as u32, id: id.to_owned(), cluster: -1, ..Shot::default() };
        }
        let class = self.truth.as_ref().and_then(|truth| usize::try_from(*truth.of_row.get(row)?).ok());
        let mut shot = Shot { row: row as u32, id: id.to_owned(), cluster: -1, ..Shot::default() };
        shot.class = class.zip(self.truth.as_ref()).map(|(class, truth)| class_name(&truth.names, class));
        if let Some(assigned) = &self.assigned
            && row < assigned.table.len()
        {
            shot.cluster = assigned.table.cluster[row];
            shot.confidence = Some(assigned.table.confidence[row]);
            let taken = usize::try_from(shot.cluster).ok().and_then(|cluster| assigned.class(cluster));
            shot.right = class.zip(taken).map(|(class, taken)| class == taken);
        }
        shot
    }
}

impl Assigned {
    /// The class that a cluster is matched with.
    pub(super) fn class(&self, cluster: usize) -> Option<usize> {
        self.matching.as_ref()?.class(ClusterId(cluster)).map(|class| class.0)
    }
}

/// Labels in the order of the images; nothing if no image has one.
fn truth(ids: &[String], labels: LabelTable) -> Option<Truth> {
    let count = labels.classes();
    let LabelTable { ids: known, labels, names } = labels;
    let of_row = if ids == known.as_slice() { labels } else { by_id(ids, &known, &labels) };
    of_row.iter().any(|label| *label >= 0).then_some(Truth { of_row, names, count })
}

/// The classes of some images, −1 where one is not among the `known`.
fn by_id(ids: &[String], known: &[String], classes: &[i32]) -> Vec<i32> {
    let of: BTreeMap<&str, i32> = known.iter().map(String::as_str).zip(classes.iter().copied()).collect();
    ids.iter().map(|id| of.get(id.as_str()).copied().unwrap_or(-1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(of: &[&str]) -> Vec<String> {
        of.iter().map(|&id| id.to_owned()).collect()
    }

    #[test]
    fn classes_follow_the_image_and_not_its_row() {
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        let truth = Truth { of_row: vec![0, 1, 1], names, count: 2 };
        let looked = Looked { ids: ids(&["a", "b", "c"]), truth: Some(truth), ..Looked::default() };
        assert_eq!(looked.classes_of(&ids(&["a", "b", "c"])), Some(vec![0, 1, 1]));
        assert_eq!(looked.classes_of(&ids(&["c", "x", "a"])), Some(vec![1, -1, 0]), "as long, in another order");
        assert_eq!(looked.classes_of(&ids(&["x", "y", "z"])), None, "as long, of other images");
        assert_eq!(looked.shot(1, "b").class.as_deref(), Some("dog"));
        assert_eq!(looked.shot(1, "c").class, None);
        assert_eq!(looked.shot(9, "c").class, None);
    }
}
