//! Groups: clusters under the names that a person gave them, with what that person moved or rejected. For people, and for what learns
//! from them; never for a label-free method.

use std::path::Path;

use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::TableReader;
use super::{Artifact, Draft, Stored, table};

const FILE: &str = "groups.parquet";

/// The group of each image, in Parquet: `id`, `row`, `group`, `by_hand`, `cluster`, `confidence`. A person who names and moves says what
/// the images show, so it is not label-free:
///
/// ```compile_fail,E0277
/// fn only_label_free<A: kinset_artifact::LabelFree>() {}
/// only_label_free::<kinset_artifact::groups::Groups>();
/// ```
#[derive(Debug)]
pub enum Groups {}

artifact!(Groups, "groups", [FILE], ground_truth);

#[derive(Clone, Debug, PartialEq)]
pub struct GroupTable {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// `[N]`: the name of the group; empty for an image that was rejected, or belongs to no cluster.
    pub group: Vec<String>,
    /// `[N]`: true where a person moved or rejected this image.
    pub by_hand: Vec<bool>,
    /// `[N]`: the cluster of each image, from 0; −1 where it belongs to none.
    pub cluster: Vec<i32>,
    /// `[N]`: the probability of that cluster, 0–1.
    pub confidence: Vec<f32>,
}

impl GroupTable {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// True if a person rejected the image in this row.
    pub fn is_rejected(&self, row: usize) -> bool {
        self.by_hand[row] && self.group[row].is_empty()
    }

    /// Writes `groups.parquet` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Groups>> {
        let path = dir.join(FILE);
        table::check_ids(&path, &self.ids, "images")?;
        self.check(&path)?;
        let file = table::save_images(dir, FILE, Meta::new(Groups::KIND), &self.ids, |r| {
            vec![
                ("group", table::slice(&self.group, &r)),
                ("by_hand", table::slice(&self.by_hand, &r)),
                ("cluster", table::slice(&self.cluster, &r)),
                ("confidence", table::slice(&self.confidence, &r)),
            ]
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<Groups>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Groups::KIND)?;
        let table = Self {
            ids: table::read_ids(&reader, "images")?,
            group: reader.values("group")?,
            by_hand: reader.values("by_hand")?,
            cluster: reader.values("cluster")?,
            confidence: reader.values("confidence")?,
        };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let n = self.ids.len();
        let lengths = [
            ("group", self.group.len()),
            ("by_hand", self.by_hand.len()),
            ("cluster", self.cluster.len()),
            ("confidence", self.confidence.len()),
        ];
        for (column, length) in lengths {
            table::check_length(path, column, length, n)?;
        }
        table::check_finite(path, "confidence", 1, &self.confidence)?;
        if let Some(row) = self.cluster.iter().position(|cluster| *cluster < -1) {
            return Err(table::out_of_range(path, "cluster", row, self.cluster[row], "a cluster from 0, or -1 for none"));
        }
        let lost = |&row: &usize| self.group[row].is_empty() && !self.by_hand[row] && self.cluster[row] >= 0;
        match (0..n).find(lost) {
            Some(row) => {
                let what = format!("row {row} has no group, although nobody rejected it");
                Err(ArtifactError::Contradiction { path: display(path), what })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn table() -> GroupTable {
        GroupTable {
            ids: ["a", "b", "c"].map(String::from).to_vec(),
            group: ["shoes", "", "shirts"].map(String::from).to_vec(),
            by_hand: vec![false, true, true],
            cluster: vec![0, 0, -1],
            confidence: vec![0.5, 1.0, 0.25],
        }
    }

    #[test]
    fn groups_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let read = GroupTable::load(&stored(&table().save(dir.path()).unwrap())).unwrap();
        assert_eq!(read, table());
        assert_eq!([0, 1, 2].map(|row| read.is_rejected(row)), [false, true, false]);
    }

    #[test]
    fn an_image_without_a_group_was_rejected_or_in_no_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut GroupTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.group[0].clear()).contains("row 0 has no group"));
        assert!(refuse(|t| t.cluster[1] = -2).contains("`cluster`"));
        assert!(refuse(|t| t.confidence[2] = f32::NAN).contains("`NaN`"));
        assert!(refuse(|t| t.by_hand.truncate(1)).contains("1 values where 3"));
    }
}
