//! Names of one result carried over to another of the same images: a cluster takes the name that most of its images had.

use std::collections::BTreeMap;

use super::file::Names;
use kinset_artifact::assignments::AssignmentTable;
use kinset_base::id::is_twin;

/// A cluster of the new result, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    pub cluster: usize,
    /// The name that it takes; nothing if no name is that of more than half of its images.
    pub name: Option<String>,
    /// Its images that the old result has, too.
    pub known: usize,
    /// Those of them that had this name; of the most frequent one if it takes none.
    pub agree: usize,
}

/// Which name each cluster of the `new` result takes: the one that more than half of its images had in the `old` one, images moved by
/// hand left out, because they stay where they are. Clusters that had no name give none.
///
/// # Shapes
/// One entry for each cluster of the new result, in their order.
pub fn carried(names: &Names, old: &AssignmentTable, new: &AssignmentTable) -> Vec<Carried> {
    let before: BTreeMap<&str, i32> = old.ids.iter().map(String::as_str).zip(old.cluster.iter().copied()).collect();
    let mut votes: Vec<BTreeMap<Option<&str>, usize>> = vec![BTreeMap::new(); new.clusters];
    for (id, &cluster) in new.ids.iter().zip(&new.cluster) {
        // Which of several equal images is the first may change with the folder.
        let known = before.get(id.as_str()).filter(|_| !is_twin(id) && !names.images.contains_key(id));
        if let (Some(&was), Ok(cluster)) = (known, usize::try_from(cluster)) {
            let name = usize::try_from(was).ok().and_then(|was| names.clusters.get(&was));
            *votes[cluster].entry(name.map(String::as_str)).or_default() += 1;
        }
    }
    let taken = |(cluster, votes): (usize, BTreeMap<Option<&str>, usize>)| {
        let known: usize = votes.values().sum();
        let best = votes.into_iter().filter(|(name, _)| name.is_some()).max_by_key(|&(_, count)| count);
        let (name, agree) = best.unwrap_or((None, 0));
        Carried { cluster, name: name.filter(|_| 2 * agree > known).map(str::to_owned), known, agree }
    };
    votes.into_iter().enumerate().map(taken).collect()
}

/// Images that were moved or rejected and are not among those of a result: they are kept, since they may come back.
pub fn missing(names: &Names, table: &AssignmentTable) -> usize {
    let mut ids: Vec<&str> = table.ids.iter().map(String::as_str).collect();
    ids.sort_unstable();
    names.images.keys().filter(|id| ids.binary_search(&id.as_str()).is_err()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Place;

    fn table(clusters: usize, of: &[(&str, i32)]) -> AssignmentTable {
        let n = of.len();
        AssignmentTable {
            ids: of.iter().map(|(id, _)| (*id).to_owned()).collect(),
            clusters,
            cluster: of.iter().map(|(_, cluster)| *cluster).collect(),
            confidence: vec![0.5; n],
            entropy: vec![0.1; n],
            second_cluster: vec![-1; n],
        }
    }

    #[test]
    fn a_cluster_takes_the_name_of_more_than_half_of_its_images_and_else_none() {
        let clusters = BTreeMap::from([(0, "cats".to_owned()), (1, "dogs".to_owned())]);
        let images = BTreeMap::from([("m".to_owned(), Place::Group("dogs".to_owned())), ("x".to_owned(), Place::Rejected)]);
        let names = Names { clusters, images, ..Names::default() };
        let old = table(3, &[("a", 0), ("b", 0), ("c", 0), ("d", 1), ("e", 1), ("f", 2), ("g", 2), ("m", 0)]);
        // Cluster 0 is the dogs, 1 the cats and a new image, 2 half cats and half of what had no name, 3 nothing known.
        let new = table(4, &[("d", 0), ("e", 0), ("m", 0), ("a", 1), ("b", 1), ("new", 1), ("c", 2), ("f", 2), ("other", 3)]);
        let found: Vec<_> = carried(&names, &old, &new).into_iter().map(|c| (c.name, c.agree, c.known)).collect();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(found, [(some("dogs"), 2, 2), (some("cats"), 2, 2), (None, 1, 2), (None, 0, 0)]);
        assert_eq!(missing(&names, &new), 1);
    }
}
