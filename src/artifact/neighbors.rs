//! Neighbors: the most similar images of each image.

use std::path::Path;

use super::error::{ArtifactError, Result, display};
use super::meta::Meta;
use super::parquet::{Column, TableReader};
use super::{Artifact, Draft, Stored, table};
use kinset_math::partition::Contingency;

const FILE: &str = "neighbors.parquet";

/// The M most similar images of each image, in Parquet: `id`, `row`, `neighbor` (rows), `similarity` (falling).
#[derive(Debug)]
pub enum Neighbors {}

artifact!(Neighbors, "neighbors", [FILE], label_free);

/// The share of true neighbors found, measured on a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recall {
    /// 0 to 1.
    pub share: f64,
    /// Images whose true neighbors were compared.
    pub images: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NeighborTable {
    /// Names of the images, N.
    pub ids: Vec<String>,
    /// Neighbors per image, M.
    pub k: usize,
    /// `[N, M]`: rows of the neighbors, the most similar one first, the image itself left out, each at most once.
    pub index: Vec<u32>,
    /// `[N, M]`: their similarities, falling.
    pub similarity: Vec<f32>,
    /// What `similarity` is: `cosine`, −1 to 1, or `jaccard`, 0 to 1, of two images' reciprocal neighbors.
    pub metric: String,
    /// True if no nearer neighbor was missed.
    pub exact: bool,
    /// Where the search was not exact.
    pub recall: Option<Recall>,
}

impl NeighborTable {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The neighbors of an image, the most similar one first.
    pub fn neighbors(&self, row: usize) -> &[u32] {
        &self.index[row * self.k..(row + 1) * self.k]
    }

    pub fn similarities(&self, row: usize) -> &[f32] {
        &self.similarity[row * self.k..(row + 1) * self.k]
    }

    /// The mutual information of an image's cluster and its neighbor's, in nats, over the first `used` neighbors of every image. It falls
    /// when neighbors come apart, and when clusters are emptied or merged, and needs no labels.
    ///
    /// # Shapes
    /// `of_row`: `[N]`, below `clusters`; −1 where an image is in none.
    pub fn information(&self, of_row: &[i32], clusters: usize, used: usize) -> f64 {
        let pairs =
            || (0..self.len()).flat_map(|row| self.neighbors(row)[..used].iter().map(move |&near| (row, near as usize)));
        let here: Vec<i32> = pairs().map(|(row, _)| of_row[row]).collect();
        let there: Vec<i32> = pairs().map(|(_, near)| of_row[near]).collect();
        Contingency::between(&here, &there, clusters).mutual_information()
    }

    /// Writes `neighbors.parquet` into a folder.
    pub fn save(&self, dir: &Path) -> Result<Draft<Neighbors>> {
        let path = dir.join(FILE);
        table::check_ids(&path, &self.ids, "images")?;
        self.check(&path)?;
        let mut meta = Meta::new(Neighbors::KIND)
            .with("k", self.k)
            .with("metric", self.metric.as_str())
            .with("exact", self.exact)
            .with("self", "excluded");
        if let Some(recall) = self.recall {
            meta = meta.with("recall", recall.share).with("recall_images", recall.images);
        }
        let k = self.k;
        let file = table::save_images(dir, FILE, meta, &self.ids, |r| {
            let range = r.start * k..r.end * k;
            vec![
                ("neighbor", Column::IndexLists { width: k, values: self.index[range.clone()].to_vec() }),
                ("similarity", Column::Vectors { width: k, values: self.similarity[range].to_vec() }),
            ]
        })?;
        Ok(Draft::new(vec![file]))
    }

    pub fn load(stored: &Stored<Neighbors>) -> Result<Self> {
        let path = stored.file(FILE);
        let reader = TableReader::open(path, Neighbors::KIND)?;
        let ids = table::read_ids(&reader, "images")?;
        let (k, index) = reader.index_lists("neighbor")?;
        let (_, similarity) = reader.vectors("similarity")?;
        let meta = reader.meta();
        let metric = meta.get(path, "metric", "a word like `cosine`")?;
        let exact = meta.get(path, "exact", "true or false")?;
        let recall = meta.fields.contains_key("recall").then(|| {
            let share = meta.get(path, "recall", "a number from 0 to 1")?;
            Ok::<_, ArtifactError>(Recall { share, images: meta.get(path, "recall_images", "a number of images")? })
        });
        let recall = recall.transpose()?;
        let table = Self { ids, k, index, similarity, metric, exact, recall };
        table.check(path)?;
        Ok(table)
    }

    fn check(&self, path: &Path) -> Result<()> {
        let (n, k) = (self.ids.len(), self.k);
        if k == 0 || k >= n {
            let what = format!("{n} images cannot have {k} neighbors each: at least 1 and fewer than there are images");
            return Err(ArtifactError::Contradiction { path: display(path), what });
        }
        table::check_length(path, "neighbor", self.index.len(), n.saturating_mul(k))?;
        table::check_length(path, "similarity", self.similarity.len(), n.saturating_mul(k))?;
        table::check_finite(path, "similarity", k, &self.similarity)?;
        let mut seen = Vec::with_capacity(k);
        for (row, (index, similarity)) in self.index.chunks_exact(k).zip(self.similarity.chunks_exact(k)).enumerate() {
            if let Some(stray) = index.iter().find(|i| **i as usize >= n) {
                return Err(table::out_of_range(path, "neighbor", row, stray, format!("a row below {n}")));
            }
            if index.contains(&(row as u32)) {
                return Err(table::out_of_range(path, "neighbor", row, row, "another image than itself"));
            }
            seen.clear();
            seen.extend_from_slice(index);
            seen.sort_unstable();
            if let Some(twice) = seen.windows(2).find(|pair| pair[0] == pair[1]) {
                return Err(table::out_of_range(path, "neighbor", row, twice[0], "each neighbor at most once"));
            }
            if let Some(pair) = similarity.windows(2).find(|pair| pair[1] > pair[0]) {
                return Err(table::out_of_range(path, "similarity", row, pair[1], format!("at most `{}`", pair[0])));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ring, stored};

    fn table() -> NeighborTable {
        NeighborTable {
            ids: vec!["a".into(), "b".into(), "c".into()],
            k: 2,
            index: vec![1, 2, 2, 0, 0, 1],
            similarity: vec![0.9, 0.5, 0.8, 0.8, 0.5, -0.25],
            metric: "cosine".into(),
            exact: true,
            recall: None,
        }
    }

    #[test]
    fn neighbors_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let approximate = NeighborTable { exact: false, recall: Some(Recall { share: 0.98, images: 1000 }), ..table() };
        for table in [table(), approximate] {
            assert_eq!(NeighborTable::load(&stored(&table.save(dir.path()).unwrap())).unwrap(), table);
        }
        assert_eq!((table().neighbors(1), table().similarities(0)), (&[2, 0][..], &[0.9, 0.5][..]));
    }

    #[test]
    fn what_is_no_neighbor_is_refused_with_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let refuse = |change: fn(&mut NeighborTable)| {
            let mut table = table();
            change(&mut table);
            table.save(dir.path()).unwrap_err().to_string()
        };
        assert!(refuse(|t| t.index[3] = 3).contains("`3` in row 1; a row below 3"));
        assert!(refuse(|t| t.index[3] = 1).contains("another image than itself"));
        assert!(refuse(|t| t.index[0] = 2).contains("at most once"));
        assert!(refuse(|t| t.similarity[1] = 0.95).contains("at most `0.9`"));
        assert!(refuse(|t| t.similarity[1] = f32::NAN).contains("`NaN`"));
        assert!(refuse(|t| t.similarity.truncate(4)).contains("`similarity`"));
        assert!(refuse(|t| t.k = 3).contains("3 images cannot have 3 neighbors"));
        assert!(refuse(|t| t.k = 0).contains("0 neighbors"));
    }

    #[test]
    fn arcs_of_a_ring_say_more_of_their_neighbors_than_one_large_cluster_or_a_mixture() {
        let n = 1200_u32;
        let ring = ring(n);
        let of = |label: fn(usize) -> usize| {
            ring.information(&(0..n as usize).map(|row| label(row) as i32).collect::<Vec<_>>(), 4, 2)
        };
        let arcs = of(|i| i / 300);
        // By hand: 298 of 300 images of an arc have both neighbors in it, and 2 have one in the next arc.
        let (same, next) = (598.0 / 2400.0_f64, 1.0 / 2400.0_f64);
        let by_hand = 4.0 * same * (same * 16.0).ln() + 8.0 * next * (next * 16.0).ln();
        assert!((arcs - by_hand).abs() < 1e-12, "{arcs} {by_hand}");
        assert!(arcs > of(|i| usize::from(i >= 1190) * 3), "all but ten in one cluster");
        assert!(arcs > of(|i| (i / 300).min(2)), "two merged");
        assert!(arcs > of(|i| i * 7919 % 1201 % 4), "mixed");
        assert!(of(|_| 2).abs() < 1e-12);
    }
}
