//! Outliers: how unlike all others each image of a set is.

use std::path::Path;

use super::meta::Meta;
use super::parquet::TableReader;
use super::table::{self, slice};
use super::{Artifact, Draft, Stored};
use crate::error::Result;

const FILE: &str = "outliers.parquet";

/// How unlike the others each image is, in Parquet: `id`, `row`, `rank` (1 for the most unusual), `score` (mean cosine distance, 0 to 2,
/// to its nearest images), and where a classifier was asked `confidence`, 0 to 1, and `cluster`.
#[derive(Debug)]
pub enum Outliers {}

artifact!(Outliers, "outliers", [FILE], label_free);

#[derive(Clone, Debug, PartialEq)]
pub struct OutlierTable {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// `[N]`: the larger, the more unusual.
    pub score: Vec<f32>,
    /// Neighbors that the score is the mean of.
    pub k: usize,
    /// `[N]` each: what a classifier said.
    pub said: Option<Said>,
}

/// What a classifier said of each image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// `[N]`: the probability of its cluster.
    pub confidence: Vec<f32>,
    /// `[N]`: from 0; −1 for none.
    pub cluster: Vec<i32>,
}

impl OutlierTable {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Rows, the most unusual first; of equals the earlier one.
    pub fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by(|&a, &b| self.score[b as usize].total_cmp(&self.score[a as usize]).then(a.cmp(&b)));
        order
    }

    /// Writes `outliers.parquet` into a folder.
    ///
    /// # Errors
    /// If a score is not finite, a column has another length, or the file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<Draft<Outliers>> {
        self.check(&dir.join(FILE))?;
        let mut rank = vec![0_u32; self.len()];
        for (place, row) in (1..).zip(self.order()) {
            rank[row as usize] = place;
        }
        let meta = Meta::new(Outliers::KIND).with("k", self.k).with("classified", self.said.is_some());
        let file = table::save_images(dir, FILE, meta, &self.ids, |r| {
            let mut columns = vec![("rank", slice(&rank, &r)), ("score", slice(&self.score, &r))];
            if let Some(said) = &self.said {
                columns.extend([("confidence", slice(&said.confidence, &r)), ("cluster", slice(&said.cluster, &r))]);
            }
            columns
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<Outliers>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Outliers::KIND)?;
        let said = if reader.meta().get(path, "classified", "true or false")? {
            Some(Said { confidence: reader.values("confidence")?, cluster: reader.values("cluster")? })
        } else {
            None
        };
        let (ids, score) = (table::read_ids(&reader, "images")?, reader.values("score")?);
        let table = Self { ids, score, k: reader.meta().get(path, "k", "a number of neighbors")?, said };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        table::check_ids(path, &self.ids, "images")?;
        let n = self.ids.len();
        table::check_count(path, n)?;
        table::check_length(path, "score", self.score.len(), n)?;
        table::check_finite(path, "score", 1, &self.score)?;
        if let Some(Said { confidence, cluster }) = &self.said {
            table::check_length(path, "confidence", confidence.len(), n)?;
            table::check_finite(path, "confidence", 1, confidence)?;
            table::check_length(path, "cluster", cluster.len(), n)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::stored;

    #[test]
    fn tables_come_back_and_the_most_unusual_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let ids = ["a", "b", "c"].map(str::to_owned).to_vec();
        let said = Said { confidence: vec![0.5, 1.0, 0.25], cluster: vec![0, -1, 1] };
        for said in [Some(said), None] {
            let table = OutlierTable { ids: ids.clone(), score: vec![0.5, 0.75, 0.5], k: 7, said };
            assert_eq!(OutlierTable::load(&stored(&table.save(dir.path()).unwrap())).unwrap(), table);
            assert_eq!(table.order(), [1, 0, 2]);
        }
        let wrong = OutlierTable { ids, score: vec![0.5, f32::NAN, 0.5], k: 7, said: None };
        assert!(wrong.save(dir.path()).unwrap_err().to_string().contains("`score`"));
    }
}
