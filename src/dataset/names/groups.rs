//! Names laid over assignments: the group of each image, and the labels that follow from it.

use std::collections::BTreeMap;

use super::error::NamesError;
use super::file::{Names, Place};
use kinset_artifact::assignments::AssignmentTable;
use kinset_artifact::groups::GroupTable;
use kinset_artifact::labels::LabelTable;

/// A name is also that of a folder.
const LONGEST: usize = 100;

/// What a cluster is called that nobody named.
pub fn cluster_name(cluster: usize) -> String {
    format!("cluster {cluster}")
}

/// The cluster that is called so if nobody named it.
pub(super) fn numbered(name: &str) -> Option<usize> {
    let cluster = name.strip_prefix("cluster ")?.parse().ok()?;
    (name == cluster_name(cluster)).then_some(cluster)
}

/// Refuses what cannot be the name of a group.
///
/// # Errors
/// [`NamesError::Name`].
pub fn ruled(name: &str) -> Result<(), NamesError> {
    let why = match name {
        "" => "it is empty",
        _ if name.trim() != name => "it begins or ends with a blank",
        _ if name.len() > LONGEST => "it is longer than 100 bytes",
        _ if name.chars().any(char::is_control) => "it has a character that controls a terminal",
        _ if name.contains(['/', '\\', ':']) => "`/`, `\\` and `:` part the names of folders",
        _ if name.starts_with('.') => "it begins with a dot",
        _ => return Ok(()),
    };
    Err(NamesError::Name { name: name.escape_debug().to_string(), why })
}

/// A group and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Clusters of this name.
    pub clusters: Vec<usize>,
    /// Images, those moved here included.
    pub images: usize,
    /// Images moved here by hand.
    pub moved: usize,
    /// True if a person named it; false for a cluster that is a group by itself.
    pub named: bool,
}

impl Names {
    /// The name of a cluster, or what it is called anyway.
    pub fn of_cluster(&self, cluster: usize) -> String {
        self.clusters.get(&cluster).cloned().unwrap_or_else(|| cluster_name(cluster))
    }

    /// `[K]`: the group of each cluster.
    pub fn of_clusters(&self, clusters: usize) -> Vec<String> {
        (0..clusters).map(|cluster| self.of_cluster(cluster)).collect()
    }

    /// The group of each image: where a person put it, else that of its cluster. The names must be those of this result
    /// ([`Names::check`]).
    pub fn groups(&self, table: &AssignmentTable) -> GroupTable {
        let of_cluster = self.of_clusters(table.clusters);
        let by_cluster = |row: usize| usize::try_from(table.cluster[row]).ok().map(|cluster| of_cluster[cluster].clone());
        let (mut group, mut by_hand) = (Vec::with_capacity(table.len()), Vec::with_capacity(table.len()));
        for (row, id) in table.ids.iter().enumerate() {
            let place = self.images.get(id);
            by_hand.push(place.is_some());
            group.push(match place {
                Some(Place::Group(name)) => name.clone(),
                Some(Place::Rejected) => String::new(),
                None => by_cluster(row).unwrap_or_default(),
            });
        }
        let (ids, cluster, confidence) = (table.ids.clone(), table.cluster.clone(), table.confidence.clone());
        GroupTable { ids, group, by_hand, cluster, confidence }
    }

    /// All groups: in the order of their first cluster, then by name those that have moved images alone.
    pub fn list(&self, table: &AssignmentTable) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        let laid = self.groups(table);
        let mut place = |name: &str, groups: &mut Vec<Group>| {
            *places.entry(name.to_owned()).or_insert_with(|| {
                let named = numbered(name).is_none();
                groups.push(Group { name: name.to_owned(), clusters: Vec::new(), images: 0, moved: 0, named });
                groups.len() - 1
            })
        };
        for (cluster, name) in self.of_clusters(table.clusters).iter().enumerate() {
            let at = place(name, &mut groups);
            groups[at].clusters.push(cluster);
        }
        let mut alone: Vec<&String> = laid.group.iter().filter(|name| !name.is_empty()).collect();
        alone.sort_unstable();
        alone.dedup();
        for name in alone {
            place(name, &mut groups);
        }
        for (name, &by_hand) in laid.group.iter().zip(&laid.by_hand).filter(|(name, _)| !name.is_empty()) {
            let at = place(name, &mut groups);
            groups[at].images += 1;
            groups[at].moved += usize::from(by_hand);
        }
        groups
    }

    /// The labels that a person has given by naming and moving, in the order of the names; nothing if there are none. Images of
    /// unnamed clusters and rejected ones have no label, −1.
    pub fn labels(&self, table: &AssignmentTable) -> Option<LabelTable> {
        let names: Vec<String> =
            self.list(table).into_iter().filter(|group| group.named && group.images > 0).map(|group| group.name).collect();
        let number: BTreeMap<&str, i32> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at as i32)).collect();
        let labels = self.groups(table).group.iter().map(|name| number.get(name.as_str()).copied().unwrap_or(-1)).collect();
        (!names.is_empty()).then(|| LabelTable { ids: table.ids.clone(), labels, names: names.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let clusters = BTreeMap::from([(0, "shirts".to_owned()), (2, "shirts".to_owned())]);
        let group = |name: &str| Place::Group(name.to_owned());
        let images = [("a", group("shoes")), ("b", Place::Rejected), ("f", group("cluster 1")), ("gone", group("hats"))];
        Names { clusters, images: images.map(|(id, place)| (id.to_owned(), place)).into(), ..Names::default() }
    }

    fn table() -> AssignmentTable {
        AssignmentTable {
            ids: ["a", "b", "c", "d", "e", "f", "g"].map(String::from).to_vec(),
            clusters: 4,
            cluster: vec![0, 0, 0, 2, 1, 2, -1],
            confidence: vec![0.5; 7],
            entropy: vec![0.1; 7],
            second_cluster: vec![1; 7],
        }
    }

    #[test]
    fn images_are_in_the_group_of_their_cluster_or_where_a_person_put_them() {
        let laid = names().groups(&table());
        assert_eq!(laid.group, ["shoes", "", "shirts", "shirts", "cluster 1", "cluster 1", ""]);
        assert_eq!(laid.by_hand, [true, true, false, false, false, true, false]);
        let row = |group: &Group| (group.name.clone(), group.clusters.clone(), group.images, group.moved, group.named);
        let list: Vec<_> = names().list(&table()).iter().map(row).collect();
        assert_eq!(
            list,
            [
                ("shirts".into(), vec![0, 2], 2, 0, true),
                ("cluster 1".into(), vec![1], 2, 1, false),
                ("cluster 3".into(), vec![3], 0, 0, false),
                ("shoes".into(), vec![], 1, 1, true),
            ]
        );
        let labels = names().labels(&table()).unwrap();
        assert_eq!((labels.names, labels.labels), (vec!["shirts".into(), "shoes".into()], vec![1, -1, 0, 0, -1, -1, -1]));
        assert_eq!(Names::default().labels(&table()), None);
    }

    #[test]
    fn a_name_is_what_a_folder_can_be_called() {
        for name in ["shirts", "été 2024", "a.b", "写真"] {
            assert!(ruled(name).is_ok(), "{name}");
        }
        for name in ["", " a", "a ", "a/b", "a\\b", "..", ".a", "a\nb", "a\u{1b}[0m", "c:", &"x".repeat(101)] {
            assert!(ruled(name).is_err(), "{name:?}");
        }
    }
}
