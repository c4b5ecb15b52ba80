//! The pictures that go with a result: some of the images, the most confident of each cluster, images beside their neighbors.

use std::collections::VecDeque;

use super::common::Failure;
use super::pictures::images_of;
use crate::artifact::assignments::{AssignmentTable, Assignments};
use crate::artifact::images::{ImageSet, Images};
use crate::artifact::neighbors::{NeighborTable, Neighbors};
use crate::artifact::{Artifact, Stored};
use crate::pipeline::spec::{OutputRef, Spec};
use crate::pipeline::state::{Outlook, State};
use crate::report::page::look::Group;
use crate::store::StoredOutput;

/// Images of a set that are shown.
const IMAGES: usize = 160;
/// Images of a cluster that are shown.
const OF_CLUSTER: usize = 16;
const CLUSTERS: usize = 200;
/// Images that are shown beside their neighbors.
const QUERIES: usize = 24;
/// Neighbors that are shown of each.
const NEIGHBORS: usize = 15;

/// Pictures, and where they are.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) groups: Vec<Group>,
    pub(super) images: Option<Stored<Images>>,
}

impl Shown {
    /// Some images of a set, evenly spaced.
    pub(super) fn of_images(images: Stored<Images>) -> Result<Self, Failure> {
        let set = ImageSet::open_within(&images, 0)?;
        let ids: Vec<String> = evenly(set.len(), IMAGES).into_iter().map(|row| set.id(row as usize).to_owned()).collect();
        let title = format!("{} of {} images, evenly spaced", ids.len(), set.len());
        Ok(Self { groups: vec![Group { title, ids, ..Group::default() }], images: Some(images) })
    }

    /// What goes with an output of a stage, which is intact; nothing if it has no pictures, or they cannot be found.
    pub(super) fn of_output(
        outlook: &Outlook<'_>,
        states: &[State],
        index: usize,
        output: &StoredOutput,
    ) -> Result<Self, Failure> {
        let files = outlook.store.paths(output);
        let name = &outlook.spec.nodes[index].name;
        let groups = match output.kind.as_str() {
            Images::KIND => return Self::of_images(Stored::new(files, output.content, name.as_str())),
            Assignments::KIND => {
                let table = AssignmentTable::load(&Stored::new(files, output.content, name.as_str()))?;
                clusters(&table)
            }
            Neighbors::KIND => {
                let table = NeighborTable::load(&Stored::new(files, output.content, name.as_str()))?;
                neighborhoods(&table)
            }
            _ => return Ok(Self::default()),
        };
        let Some(images) = images_of(outlook, states, index)? else { return Ok(Self::default()) };
        Ok(Self { groups, images: Some(images) })
    }
}

/// The images that a stage reads, or that what it reads was made of, the nearest first.
pub(super) fn images_behind(spec: &Spec, index: usize) -> Vec<&OutputRef> {
    let (mut ahead, mut found) = (VecDeque::from([index]), Vec::new());
    let mut seen = vec![false; spec.nodes.len()];
    while let Some(at) = ahead.pop_front() {
        let node = &spec.nodes[at];
        // `images` before `val_images`, whatever the alphabet says.
        let mut ports: Vec<_> = node.ports.iter().collect();
        ports.sort_by_key(|(port, _)| (*port != "images" && *port != "features", (*port).clone()));
        for (_, references) in ports {
            for reference in references {
                if reference.artifact == Images::KIND {
                    found.push(reference);
                }
                if !std::mem::replace(&mut seen[reference.node], true) {
                    ahead.push_back(reference.node);
                }
            }
        }
    }
    found
}

/// So many of `count` rows, evenly spaced, the first among them.
fn evenly(count: usize, most: usize) -> Vec<u32> {
    let shown = count.min(most);
    (0..shown).map(|place| (place * count / shown) as u32).collect()
}

/// The surest images of each cluster.
fn clusters(table: &AssignmentTable) -> Vec<Group> {
    let sizes = table.sizes();
    let mut rows: Vec<u32> = (0..table.len() as u32).collect();
    rows.sort_by(|&a, &b| table.confidence[b as usize].total_cmp(&table.confidence[a as usize]).then(a.cmp(&b)));
    let group = |cluster: usize| {
        let of_cluster = rows.iter().copied().filter(|&row| table.cluster[row as usize] == cluster as i32);
        let rows: Vec<u32> = of_cluster.take(OF_CLUSTER).collect();
        let sure = |&row: &u32| format!("confidence {:.3}", table.confidence[row as usize]);
        let words = rows.iter().map(sure).collect();
        let size = sizes.get(cluster).copied().unwrap_or(0);
        let ids = rows.iter().map(|&row| table.ids[row as usize].clone()).collect();
        Group { title: format!("cluster {cluster}: {size} images, most confident first"), ids, words, query: false }
    };
    (0..table.clusters.min(CLUSTERS)).map(group).collect()
}

fn neighborhoods(table: &NeighborTable) -> Vec<Group> {
    let shown = table.k.min(NEIGHBORS);
    let group = |row: u32| {
        let start = row as usize * table.k;
        let near = &table.index[start..start + shown];
        let mut words = vec!["the image".to_owned()];
        words.extend(table.similarity[start..start + shown].iter().map(|similarity| format!("similarity {similarity:.3}")));
        let rows = std::iter::once(row).chain(near.iter().copied());
        Group { title: String::new(), ids: rows.map(|row| table.ids[row as usize].clone()).collect(), words, query: true }
    };
    evenly(table.ids.len(), QUERIES).into_iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spaced_evenly_and_never_more_than_there_are() {
        assert_eq!(evenly(10, 5), [0, 2, 4, 6, 8]);
        assert_eq!(evenly(3, 5), [0, 1, 2]);
        assert!(evenly(0, 5).is_empty());
    }

    #[test]
    fn a_cluster_shows_its_surest_images_first() {
        let table = AssignmentTable {
            ids: ["a", "b", "c", "d"].map(String::from).to_vec(),
            clusters: 2,
            cluster: vec![1, 0, 1, -1],
            confidence: vec![0.5, 0.9, 0.75, 0.3],
            entropy: vec![0.1; 4],
            second_cluster: vec![0, 1, 0, 1],
        };
        let found = clusters(&table);
        assert_eq!(found[1].ids, ["c", "a"]);
        assert_eq!(found[1].words, ["confidence 0.750", "confidence 0.500"]);
        assert!(found[0].title.starts_with("cluster 0: 1 images"), "{}", found[0].title);
    }

    #[test]
    fn an_image_stands_before_its_neighbors() {
        let table = NeighborTable {
            ids: ["a", "b", "c"].map(String::from).to_vec(),
            k: 2,
            index: vec![1, 2, 0, 2, 1, 0],
            similarity: vec![0.9, 0.8, 0.9, 0.7, 0.7, 0.6],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        };
        let found = neighborhoods(&table);
        assert_eq!((found.len(), found[1].ids.join(""), found[1].query), (3, "bac".to_owned(), true));
        assert_eq!(found[1].words[2], "similarity 0.700");
    }
}
