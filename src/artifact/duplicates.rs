//! Duplicates: which images of a set are one image, more or less, and which of them stands for the others.

use std::collections::BTreeMap;
use std::path::Path;

use super::meta::Meta;
use super::parquet::TableReader;
use super::table::{self, slice};
use super::{Artifact, Draft, Stored};
use crate::error::Result;

const FILE: &str = "duplicates.parquet";

/// What each image is a copy of, in Parquet: `id`, `row`, `group` (−1 for an image without copies; groups are numbered by the rows of
/// their representatives), `kept` (it stands for its group, or has none), `representative` (the row that stands for it),
/// `representative_id`, `exact` (its pixels are those of the representative), `similarity` (cosine with the representative; 1 for itself). The metadata say
/// what was compared (`by`) and the least cosine of images that are near (`least`).
#[derive(Debug)]
pub enum Duplicates {}

artifact!(Duplicates, "duplicates", [FILE], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct DuplicateTable {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// `[N]`: the row that stands for each image; the image itself if it is kept.
    pub representative: Vec<u32>,
    /// `[N]`: the pixels are those of the representative.
    pub exact: Vec<bool>,
    /// `[N]`: the cosine with the representative.
    pub similarity: Vec<f32>,
    /// The least cosine of two images that are near.
    pub least: f64,
    /// What was compared, in words.
    pub by: String,
}

impl DuplicateTable {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Rows of the groups of two images or more: the representative first, then the others, the most similar first.
    pub fn groups(&self) -> Vec<Vec<u32>> {
        let mut groups: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (row, &of) in self.representative.iter().enumerate() {
            groups.entry(of).or_default().push(row as u32);
        }
        let mut groups: Vec<Vec<u32>> = groups.into_values().filter(|group| group.len() > 1).collect();
        for group in &mut groups {
            let order = |row: &u32| {
                let at = *row as usize;
                (self.representative[at] != *row, std::cmp::Reverse(self.exact[at]))
            };
            let alike = |row: &u32| self.similarity[*row as usize];
            group.sort_by(|a, b| order(a).cmp(&order(b)).then(alike(b).total_cmp(&alike(a))).then(a.cmp(b)));
        }
        groups
    }

    /// `[N]`: the group of each image, −1 if it has no copies.
    pub fn group_numbers(&self) -> Vec<i32> {
        let mut numbers = vec![-1; self.len()];
        for (number, group) in self.groups().iter().enumerate() {
            for &row in group {
                numbers[row as usize] = number as i32;
            }
        }
        numbers
    }

    /// Writes `duplicates.parquet` into a folder.
    ///
    /// # Errors
    /// If the columns contradict each other, or the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<Draft<Duplicates>> {
        self.check(&dir.join(FILE))?;
        let meta = Meta::new(Duplicates::KIND).with("least", self.least).with("by", self.by.as_str());
        let groups = self.group_numbers();
        let kept: Vec<bool> = self.representative.iter().enumerate().map(|(row, &of)| of as usize == row).collect();
        let of: Vec<String> = self.representative.iter().map(|&row| self.ids[row as usize].clone()).collect();
        let file = table::save_images(dir, FILE, meta, &self.ids, |r| {
            vec![
                ("group", slice(&groups, &r)),
                ("kept", slice(&kept, &r)),
                ("representative", slice(&self.representative, &r)),
                ("representative_id", slice(&of, &r)),
                ("exact", slice(&self.exact, &r)),
                ("similarity", slice(&self.similarity, &r)),
            ]
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<Duplicates>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Duplicates::KIND)?;
        let table = Self {
            ids: table::read_ids(&reader, "images")?,
            representative: reader.values("representative")?,
            exact: reader.values("exact")?,
            similarity: reader.values("similarity")?,
            least: reader.meta().get(path, "least", "a cosine")?,
            by: reader.meta().get(path, "by", "words")?,
        };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        table::check_ids(path, &self.ids, "images")?;
        let n = self.ids.len();
        table::check_count(path, n)?;
        table::check_length(path, "representative", self.representative.len(), n)?;
        table::check_length(path, "exact", self.exact.len(), n)?;
        table::check_length(path, "similarity", self.similarity.len(), n)?;
        for (row, &of) in self.representative.iter().enumerate() {
            if self.representative.get(of as usize) != Some(&of) {
                return Err(table::out_of_range(path, "representative", row, of, "the row of an image that is kept"));
            }
        }
        match self.similarity.iter().position(|cosine| !(-1.0..=1.0).contains(cosine)) {
            Some(row) => Err(table::out_of_range(path, "similarity", row, self.similarity[row], "a cosine from -1 to 1")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    fn table() -> DuplicateTable {
        DuplicateTable {
            ids: ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec(),
            representative: vec![3, 1, 3, 3, 1],
            exact: vec![false, true, true, true, false],
            similarity: vec![0.97, 1.0, 1.0, 1.0, 0.99],
            least: 0.95,
            by: "features".to_owned(),
        }
    }

    #[test]
    fn groups_begin_with_what_stands_for_them() {
        assert_eq!(table().groups(), [vec![1, 4], vec![3, 2, 0]]);
        assert_eq!(table().group_numbers(), [1, 0, 1, 1, 0]);
        let alone = DuplicateTable { representative: (0..5).collect(), ..table() };
        assert_eq!((alone.groups().len(), alone.group_numbers()), (0, vec![-1; 5]));
    }

    #[test]
    fn tables_come_back_and_contradictions_do_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(DuplicateTable::load(&stored(&table().save(dir.path()).unwrap())).unwrap(), table());
        let refuse = |change: fn(&mut DuplicateTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.representative[0] = 2).contains("an image that is kept"));
        assert!(refuse(|t| t.representative[0] = 9).contains("an image that is kept"));
        assert!(refuse(|t| t.similarity[1] = 1.5).contains("a cosine"));
        assert!(refuse(|t| t.exact.truncate(2)).contains("`exact`"));
    }
}
